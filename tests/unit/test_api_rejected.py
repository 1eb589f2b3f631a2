"""Rejected records over HTTP: list, look, drive again; what is refused and how."""

import asyncio
from base64 import b64encode
from typing import Any

import httpx
import orjson
import pytest

from tests.api_fakes import Fakes, exchange
from twin.wire.errors import Invalid, Malformed, TooLarge

MQTT = "mqtt:vehicles/car-1/telemetry"
BAD = b'{"coolant_temp":"hot","speed":7}'
WRONG = Invalid("coolant_temp is 'hot'; a number is accepted")


def ask(fakes: Fakes, method: str, path: str, body: Any = None) -> httpx.Response:
    how = {} if body is None else {"json": body}
    return exchange(fakes, method, path, **how)


def refused(answer: httpx.Response, status: int, code: str, *named: str) -> None:
    """A complete problem whose sentence names these words."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), body
    for word in named:
        assert word in body["detail"], body


def some() -> tuple[Fakes, str]:
    """One rejected message of a car."""
    fakes = Fakes()
    made = fakes.rejected.topic.add(WRONG, MQTT, BAD, at=1000, key=b"car-1", shard=2)
    return fakes, made


def test_a_record_is_listed_with_all_but_its_bytes() -> None:
    """What somebody needs to choose: reason, sentence, source, attempts, vehicle, times, size."""
    fakes, made = some()
    answer = ask(fakes, "GET", "/v1/rejected")
    assert answer.status_code == 200
    assert answer.json() == {
        "items": [
            {
                "id": made,
                "at": 1000,
                "reason": "bad_type",
                "detail": WRONG.detail,
                "source": MQTT,
                "attempts": 1,
                "vehicle_id": "car-1",
                "ingested_at": 1000,
                "content_type": None,
                "size": len(BAD),
            }
        ],
        "next_cursor": None,
    }


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [5, 4, 3, 2, 1]),
        ("reason=too_large", [4, 2]),
        ("vehicle_id=car-2", [5, 2]),
        ("source=kafka:", [3]),
        ("source=mqtt:vehicles/car-1/", [4, 1]),
        ("from=2&to=4", [3, 2]),
        ("from=9", []),
        ("to=1", []),
        ("reason=too_large&vehicle_id=car-2", [2]),
    ],
)
def test_filters_leave_what_matches_the_newest_first(query: str, expected: list[int]) -> None:
    """Each filter by itself and two together; times are from and up to but without."""
    fakes = Fakes()
    add = fakes.rejected.topic.add
    large = TooLarge("too long")
    add(WRONG, MQTT, at=1, key=b"car-1")
    add(large, "mqtt:vehicles/car-2/status", at=2, key=b"car-2")
    add(Malformed("no JSON"), "kafka:scores/1/7", at=3, partition=2)
    add(large, MQTT, at=4, key=b"car-1")
    add(WRONG, "mqtt:vehicles/car-2/telemetry", at=5, key=b"car-2")
    items = ask(fakes, "GET", f"/v1/rejected?{query}").json()["items"]
    assert [item["at"] for item in items] == expected


def test_pages_are_complete_and_new_records_do_not_disturb_them() -> None:
    """Following next_cursor visits each record once, though more are rejected meanwhile."""
    fakes = Fakes()
    for at in range(1, 8):
        fakes.rejected.topic.add(WRONG, MQTT, at=at, partition=at % 3)

    async def visit() -> list[list[int]]:
        pages, follow = [], ""
        async with fakes.client() as client:
            while True:
                body = (await client.get(f"/v1/rejected?limit=3{follow}")).json()
                pages.append([item["at"] for item in body["items"]])
                fakes.rejected.topic.add(WRONG, MQTT, at=100 + len(pages), partition=len(pages) % 3)
                if body["next_cursor"] is None:
                    return pages
                follow = f"&cursor={body['next_cursor']}"

    assert asyncio.run(visit()) == [[7, 6, 5], [4, 3, 2], [1]]


@pytest.mark.parametrize(
    ("query", "code", "named"),
    [
        ("reason=bad_mood", "invalid_parameter", "'rate_limited'"),
        ("vehicle_id=a/b", "bad_vehicle_id", "A-Z a-z 0-9"),
        ("from=-1", "invalid_parameter", "from"),
        ("to=soon", "invalid_parameter", "'soon'"),
        ("limit=201", "invalid_parameter", "200"),
        ("cursor=zzz", "invalid_cursor", "next_cursor"),
        ("filter=x", "invalid_parameter", "reason, vehicle_id, source, from, to, limit, cursor"),
    ],
)
def test_a_bad_filter_is_refused_naming_it(query: str, code: str, named: str) -> None:
    """What is not accepted never lists everything."""
    refused(ask(Fakes(), "GET", f"/v1/rejected?{query}"), 400, code, named)


def test_a_record_is_read_with_its_bytes_and_the_originals_headers() -> None:
    """Text as text, other bytes as base64; of a Kafka record its own headers."""
    fakes, made = some()
    item = ask(fakes, "GET", f"/v1/rejected/{made}").json()
    assert (item["value"], item["encoding"], item["headers"]) == (BAD.decode(), "text", [])
    other = fakes.rejected.topic.add(
        Malformed("no Avro"),
        "kafka:telemetry/1/5",
        b"\x00\xff",
        at=2,
        headers=[("ingested-at", b"1"), ("odd", b"\xff")],
    )
    item = ask(fakes, "GET", f"/v1/rejected/{other}").json()
    assert (item["value"], item["encoding"]) == (b64encode(b"\x00\xff").decode(), "base64")
    assert item["headers"] == [
        {"name": "ingested-at", "value": "1", "encoding": "text"},
        {"name": "odd", "value": b64encode(b"\xff").decode(), "encoding": "base64"},
    ]
    empty = fakes.rejected.topic.add(WRONG, "kafka:scores/1/1", None, at=3)
    assert ask(fakes, "GET", f"/v1/rejected/{empty}").json()["value"] is None


@pytest.mark.parametrize("rejected_id", ["7", "0-", "-1", "00-1", "0-01", "a-b", "0-1-2", "٣-1"])
def test_an_id_that_is_none_is_refused(rejected_id: str) -> None:
    """The sentence says what an id looks like."""
    answer = ask(Fakes(), "GET", f"/v1/rejected/{rejected_id}")
    refused(answer, 400, "invalid_parameter", "<partition>-<offset>")


def test_a_record_that_is_not_there_is_404() -> None:
    """Never was, of a partition that is none, or not kept any more."""
    fakes, made = some()
    partition = int(made.partition("-")[0])
    for missing in (f"{partition}-1", "77-0"):
        refused(ask(fakes, "GET", f"/v1/rejected/{missing}"), 404, "rejected_not_found", missing)
    fakes.rejected.topic.lows[partition] = 1
    for method, path in (("GET", ""), ("POST", "/redrive")):
        refused(ask(fakes, method, f"/v1/rejected/{made}{path}"), 404, "rejected_not_found", made)


def test_a_message_of_a_car_goes_to_the_uplink_again() -> None:
    """To topic redrive with its key, bytes and what the uplink must know; the answer names it."""
    fakes, made = some()
    answer = ask(fakes, "POST", f"/v1/rejected/{made}/redrive")
    assert answer.status_code == 202
    assert answer.json() == {"id": made, "topic": "redrive", "attempts": 1, "changed": False}
    (sent,) = fakes.rejected.sent
    assert (sent.topic, sent.key, sent.value) == ("redrive", b"car-1", BAD)
    assert dict(sent.headers) == {
        "source": MQTT.encode(),
        "attempts": b"1",
        "ingested-at": b"1000",
        "shard": b"2",
        "redriven-by": b"api",
    }


def test_a_kafka_record_goes_to_its_topic_again() -> None:
    """With its own headers and the attempts; the reader counts one more when it fails."""
    fakes = Fakes()
    made = fakes.rejected.topic.add(
        Malformed("no JSON"),
        "kafka:scores/4/9",
        b"{",
        at=5,
        key=b"car-1",
        headers=[("ingested-at", b"3"), ("attempts", b"2")],
    )
    assert ask(fakes, "GET", f"/v1/rejected/{made}").json()["attempts"] == 3
    answer = ask(fakes, "POST", f"/v1/rejected/{made}/redrive", {"value": "e30="})
    assert answer.json() == {"id": made, "topic": "scores", "attempts": 3, "changed": True}
    (sent,) = fakes.rejected.sent
    assert (sent.topic, sent.key, sent.value) == ("scores", b"car-1", b"{}")
    assert sent.headers == [("ingested-at", b"3"), ("attempts", b"3"), ("redriven-by", b"api")]


def test_a_merge_patch_changes_the_original() -> None:
    """RFC 7396: a member is replaced, null removes one, the others stay."""
    fakes, made = some()
    patch = {"coolant_temp": 91.5, "speed": None, "session": 3}
    answer = ask(fakes, "POST", f"/v1/rejected/{made}/redrive", {"patch": patch})
    assert answer.json()["changed"] is True
    assert orjson.loads(fakes.rejected.sent[0].value or b"") == {"coolant_temp": 91.5, "session": 3}


@pytest.mark.parametrize(
    ("body", "status", "code", "named"),
    [
        ({"patch": {}, "value": "e30="}, 422, "invalid_body", "one of both"),
        ({"patch": [1]}, 422, "invalid_body", "patch"),
        ({"value": "%%"}, 422, "invalid_body", "base64"),
        ({"valeu": "e30="}, 422, "invalid_body", "patch, value"),
        ([], 422, "invalid_body", "array"),
        ({"patch": {"k" * 129: 1}}, 400, "key_too_long", "129"),
        ({"value": b64encode(bytes(131_073)).decode()}, 413, "too_large", "131072"),
        ({"value": "x" * 600_000}, 413, "too_large", "body"),
    ],
)
def test_a_change_that_is_none_is_refused(body: Any, status: int, code: str, named: str) -> None:
    """And nothing is sent."""
    fakes, made = some()
    refused(ask(fakes, "POST", f"/v1/rejected/{made}/redrive", body), status, code, named)
    assert fakes.rejected.sent == []


def test_only_a_json_object_can_be_patched() -> None:
    """Other originals take a value; a nesting that cannot be written again is said."""
    fakes = Fakes()
    for number, original in enumerate(
        (b"[1]", b"\x00\x01", b"{", b'{"a":' * 500 + b"1" + b"}" * 500)
    ):
        made = fakes.rejected.topic.add(WRONG, MQTT, original, at=number)
        answer = ask(fakes, "POST", f"/v1/rejected/{made}/redrive", {"patch": {"b": 1}})
        refused(answer, 409, "not_patchable", made)
    assert fakes.rejected.sent == []


def test_a_cut_original_needs_its_whole_value() -> None:
    """What was not kept cannot be sent again."""
    fakes = Fakes()
    made = fakes.rejected.topic.add(
        TooLarge("long"), MQTT, b'{"speed":1', at=1, whole_bytes=900_000
    )
    item = ask(fakes, "GET", f"/v1/rejected/{made}").json()
    assert (item["size"], item["truncated"]) == (900_000, True)
    path = f"/v1/rejected/{made}/redrive"
    refused(ask(fakes, "POST", path), 409, "not_redrivable", made, "900000")
    assert ask(fakes, "POST", path, {"value": "e30="}).status_code == 202


@pytest.mark.parametrize("source", ["kafka:twins/1/2", "kafka:ledger/0/0", "file:x", "", "kafka:"])
def test_what_has_another_source_is_not_sent_anywhere(source: str) -> None:
    """Changelogs have one writer, and a header may say anything."""
    fakes = Fakes()
    made = fakes.rejected.topic.add(WRONG, source, at=1)
    refused(ask(fakes, "POST", f"/v1/rejected/{made}/redrive"), 409, "not_redrivable", made)
    assert fakes.rejected.sent == []


def test_kafka_that_does_not_answer_is_503() -> None:
    """For reading and for sending; the client may come again."""
    fakes, made = some()
    fakes.rejected.refusal = "timed out"
    answer = ask(fakes, "POST", f"/v1/rejected/{made}/redrive")
    refused(answer, 503, "log_unavailable", "timed out")
    fakes.rejected.away = True
    for method, path in (("GET", ""), ("GET", f"/{made}"), ("POST", f"/{made}/redrive")):
        answer = ask(fakes, method, f"/v1/rejected{path}")
        refused(answer, 503, "log_unavailable")
        assert answer.headers["retry-after"] == "1"


def many() -> Fakes:
    """Seven messages, of which one cannot be sent again, and one of another reason."""
    fakes = Fakes()
    for at in range(1, 8):
        whole = {"whole_bytes": 99} if at == 3 else {}
        error = Malformed("no JSON") if at == 5 else WRONG
        fakes.rejected.topic.add(error, MQTT, b"{%d" % at, at=at, partition=at % 3, **whole)
    return fakes


def test_a_dry_run_counts_and_lists_and_sends_nothing() -> None:
    """It answers as the call without it would find them."""
    fakes = many()
    body = {"filter": {"reason": "bad_type"}, "dry_run": True}
    answer = ask(fakes, "POST", "/v1/rejected/redrive", body).json()
    assert fakes.rejected.sent == []
    assert (answer["dry_run"], answer["matched"], answer["redriven"]) == (True, 6, 0)
    listed = ask(fakes, "GET", "/v1/rejected?reason=bad_type").json()["items"]
    assert answer["ids"] == [item["id"] for item in listed]
    assert (answer["failed"], answer["next_cursor"]) == ([], None)


def test_what_matches_is_sent_again_and_what_cannot_be_is_named() -> None:
    """One that fails does not hold up the others."""
    fakes = many()
    answer = ask(fakes, "POST", "/v1/rejected/redrive", {"filter": {"reason": "bad_type"}}).json()
    assert (answer["matched"], answer["redriven"]) == (6, 5)
    assert sorted(sent.value or b"" for sent in fakes.rejected.sent) == [
        b"{%d" % at for at in (1, 2, 4, 6, 7)
    ]
    (failed,) = answer["failed"]
    assert (failed["code"], failed["id"]) == ("not_redrivable", "0-0")
    assert failed["id"] not in answer["ids"]


def test_many_are_sent_in_bounded_calls_that_go_on() -> None:
    """`limit` a call; the cursor ends, and each is sent once though what fails again is rejected anew."""
    fakes = many()

    async def drive() -> list[int]:
        counts, cursor = [], None
        async with fakes.client() as client:
            while True:
                body = {"filter": {}, "limit": 3, "cursor": cursor}
                answer = (await client.post("/v1/rejected/redrive", json=body)).json()
                counts.append(answer["matched"])
                fakes.rejected.topic.add(WRONG, MQTT, b"again", at=50, partition=len(counts) % 3)
                cursor = answer["next_cursor"]
                if cursor is None:
                    return counts

    assert asyncio.run(drive()) == [3, 3, 1]
    assert len(fakes.rejected.sent) == 6
    assert b"again" not in {sent.value for sent in fakes.rejected.sent}


def test_many_that_kafka_does_not_take_are_all_named() -> None:
    """With the code of the refusal."""
    fakes = many()
    fakes.rejected.refusal = "too large"
    answer = ask(fakes, "POST", "/v1/rejected/redrive", {"filter": {}}).json()
    assert (answer["redriven"], answer["ids"]) == (0, [])
    codes = [failed["code"] for failed in answer["failed"]]
    assert sorted(codes) == ["log_unavailable"] * 6 + ["not_redrivable"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "filter"),
        ({"filter": {"reason": "bad_mood"}}, "filter.reason"),
        ({"filter": {"colour": "red"}}, "filter.colour"),
        ({"filter": {}, "limit": 501}, "limit"),
        ({"filter": {}, "dry_run": "yes"}, "dry_run"),
        ({"filter": {"from": "x"}}, "filter.from"),
    ],
)
def test_a_bad_body_for_many_is_refused(body: Any, named: str) -> None:
    """A misspelt filter never means all."""
    fakes = many()
    refused(ask(fakes, "POST", "/v1/rejected/redrive", body), 422, "invalid_body", named)
    assert fakes.rejected.sent == []


def test_the_contract_lists_every_reason() -> None:
    """OpenAPI names the public list where it can be filtered by."""
    described = ask(Fakes(), "GET", "/openapi.json").json()
    parameters = described["paths"]["/v1/rejected"]["get"]["parameters"]
    reason = next(one for one in parameters if one["name"] == "reason")
    assert "rate_limited" in str(reason["schema"])


def test_a_call_can_be_asked_again_for_the_same_records() -> None:
    """With the cursor of its start: what was rejected since is not among them."""
    fakes = many()
    first = ask(fakes, "POST", "/v1/rejected/redrive", {"filter": {}, "dry_run": True}).json()
    fakes.rejected.topic.add(WRONG, MQTT, b"new", at=60, partition=1)
    body = {"filter": {}, "cursor": first["cursor"]}
    answer = ask(fakes, "POST", "/v1/rejected/redrive", body).json()
    assert answer["matched"] == first["matched"] == 7
    assert b"new" not in {sent.value for sent in fakes.rejected.sent}
