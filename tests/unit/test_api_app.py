"""HTTP as clients see it: addresses, headers, refusals, and the page."""

import asyncio
import re
from typing import Any, get_args
from unittest.mock import Mock

import httpx
import orjson
import pytest
from prometheus_client import REGISTRY

from tests.api_fakes import Fakes, exchange, twin
from twin.api import middleware, parameters, problems, requests
from twin.api.tokens import Token, decode_token
from twin.wire import ids
from twin.wire.catalogue import SIGNALS
from twin.wire.errors import Reason
from twin.wire.records import RefusalCode

CAR = "/v1/twins/car-1"
JSON = {"Content-Type": "application/json"}
PATCH = {"Content-Type": "application/merge-patch+json"}


def get(path: str, fakes: Fakes | None = None, **headers: str) -> httpx.Response:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return exchange(fakes or Fakes(twin()), "GET", path, headers=headers)


def is_problem(answer: httpx.Response, status: int, code: str, *named: str) -> None:
    """The answer is a complete problem document whose sentence names these words."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert (answer.status_code, body["code"], body["status"]) == (status, code, status), body
    assert body["type"] == f"/v1/problems#{code}"
    assert body["title"]
    assert body["instance"].startswith("/")
    for word in named:
        assert word in body["detail"]


# --- reading -------------------------------------------------------------------------------------


def test_twin_is_answered_as_stored_with_its_revision_as_etag() -> None:
    """GET gives the whole document and the ETag r<revision>."""
    answer = get(CAR)
    assert answer.json() == twin()
    assert answer.headers["etag"] == '"r7"'
    assert answer.headers["content-type"] == "application/json"


def test_current_etag_is_304_without_a_body() -> None:
    """If-None-Match with the current ETag saves the body; with an older one it does not."""
    answer = get(CAR, If_None_Match='"r7"')
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", '"r7"')
    assert get(CAR, If_None_Match='"r6"').json()["revision"] == 7


def test_absent_twin_is_404_whatever_the_client_holds() -> None:
    """An unknown vehicle is 404, and no ETag of a client makes it a 304."""
    is_problem(get("/v1/twins/nobody"), 404, "twin_not_found", "nobody")
    for tag in ('"r0"', '"r7"', "*"):
        is_problem(get("/v1/twins/nobody", If_None_Match=tag), 404, "twin_not_found")


def test_fields_choose_parts_of_twin_and_list() -> None:
    """`fields` gives only the named paths, in a twin and in a list."""
    expected = {"reported": {"coolant_temp": twin()["reported"]["coolant_temp"]}}
    assert get(f"{CAR}?fields=reported.coolant_temp,reported.speed").json() == expected
    assert get("/v1/twins?fields=reported.coolant_temp").json()["items"] == [expected]


@pytest.mark.parametrize(
    ("path", "code", "named"),
    [
        (f"{CAR}?fields=", "invalid_parameter", "fields"),
        (f"{CAR}?fields=a..b", "invalid_fields", "'a..b'"),
        (f"{CAR}?after=zzz", "invalid_token", "Cartwin-Token"),
        (f"{CAR}?field=health", "invalid_parameter", "accepted: fields, after, at"),
        ("/v1/twins?filtre=x", "invalid_parameter", "filter, sort, limit, cursor, fields, after"),
        ("/v1/twins?limit=0", "invalid_parameter", "limit"),
        ("/v1/twins?limit=201", "invalid_parameter", "200"),
        ("/v1/twins?limit=many", "invalid_parameter", "'many'"),
        ("/v1/twins?filter=vin+eq+x", "invalid_filter", "coolant_temp"),
        ("/v1/twins?sort=colour", "invalid_sort", "presence, health"),
        ("/v1/twins?sort=--speed", "invalid_sort", "coolant_temp"),
        ("/v1/twins?cursor=%C3%A4", "invalid_cursor", "next_cursor"),
        ("/v1/twins/a%20b", "bad_vehicle_id", "A-Z a-z 0-9"),
        ("/v1/twins/sensor", "bad_vehicle_id", "sensor"),
        (f"/v1/twins/{'x' * 65}", "bad_vehicle_id", "1 to 64"),
        ("/v1/commands/nonsense", "bad_vehicle_id", "ULID"),
        ("/v1/commands?limit=0", "invalid_parameter", "limit"),
        ("/v1/requests/nonsense", "invalid_parameter", "request_id"),
        ("/v1/fleet?x=1", "invalid_parameter", "accepted: none"),
    ],
)
def test_bad_parameter_is_400_naming_it(path: str, code: str, named: str) -> None:
    """What cannot be used is refused with the parameter's name and what is accepted."""
    is_problem(get(path), 400, code, named)


def test_cursor_belongs_to_its_order() -> None:
    """A cursor of a list sorted in another way is refused, and names both."""
    fakes = Fakes(*(twin(f"car-{n}") for n in range(3)))
    cursor = get("/v1/twins?limit=1&sort=-coolant_temp", fakes).json()["next_cursor"]
    answer = get(f"/v1/twins?limit=1&cursor={cursor}", fakes)
    is_problem(answer, 400, "invalid_cursor", "sort=-coolant_temp", "vehicle_id")


def test_list_pages_are_complete_and_end() -> None:
    """Following next_cursor visits every twin once, in order and backwards, then ends."""
    fakes = Fakes(*(twin(f"car-{n:02}") for n in range(7)))

    async def visit(query: str) -> list[list[str]]:
        pages = []
        cursor: str | None = ""
        async with fakes.client() as client:
            while cursor is not None:
                follow = f"&cursor={cursor}" if cursor else ""
                body = (await client.get(f"/v1/twins?limit=3&{query}{follow}")).json()
                pages.append([item["vehicle_id"] for item in body["items"]])
                cursor = body["next_cursor"]
        return pages

    expected = [["car-00", "car-01", "car-02"], ["car-03", "car-04", "car-05"], ["car-06"]]
    assert asyncio.run(visit("")) == expected
    assert asyncio.run(visit("filter=presence eq online")) == expected
    backwards = [["car-06", "car-05", "car-04"], ["car-03", "car-02", "car-01"], ["car-00"]]
    assert asyncio.run(visit("sort=-vehicle_id")) == backwards


def test_list_is_stable_under_change() -> None:
    """Twins that come or go between two pages make no other twin appear twice or never."""
    fakes = Fakes(*(twin(f"car-{n}") for n in range(5)))

    async def scenario() -> tuple[list[str], list[str]]:
        async with fakes.client() as client:
            first = (await client.get("/v1/twins?limit=2")).json()
            del fakes.reader.twins["car-1"]
            fakes.reader.twins["car-0a"] = twin("car-0a")
            rest = (await client.get(f"/v1/twins?cursor={first['next_cursor']}")).json()
        return tuple([item["vehicle_id"] for item in page["items"]] for page in (first, rest))

    assert asyncio.run(scenario()) == (["car-0", "car-1"], ["car-2", "car-3", "car-4"])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("filter=health eq alarm", ["a", "c", "e"]),
        ("filter=health eq alarm&sort=-vehicle_id", ["e", "c", "a"]),
        ("filter=health eq alarm and fleet ne berlin", ["c"]),
        ("filter=health ne alarm", ["b", "d"]),
        ("filter=coolant_temp gt 100", []),
    ],
)
def test_list_filters(query: str, expected: list[str]) -> None:
    """A filter gives the twins that fulfil it, whichever index finds them."""
    alarm = {"state": "alarm", "since": 5, "models": {}}
    fakes = Fakes(
        twin("a", health=alarm),
        twin("b"),
        twin("c", health=alarm, attributes={}),
        twin("d", attributes={}),
        twin("e", health=alarm),
    )
    items = get(f"/v1/twins?{query}", fakes).json()["items"]
    assert [item["vehicle_id"] for item in items] == expected


def test_filtered_alarms_are_paged_by_id() -> None:
    """The alarm index gives the same pages as the scan of all ids, in both directions."""
    alarm = {"state": "alarm", "since": 5, "models": {}}
    fakes = Fakes(*(twin(name, health=alarm) for name in "abc"))

    async def second_page(sort: str) -> list[str]:
        query = {"filter": "health eq alarm", "sort": sort, "limit": "2", "fields": "vehicle_id"}
        async with fakes.client() as client:
            first = (await client.get("/v1/twins", params=query)).json()
            query["cursor"] = first["next_cursor"]
            rest = (await client.get("/v1/twins", params=query)).json()
        assert rest["next_cursor"] is None
        return [item["vehicle_id"] for item in rest["items"]]

    assert asyncio.run(second_page("vehicle_id")) == ["c"]
    assert asyncio.run(second_page("-vehicle_id")) == ["a"]


def test_desired_is_answered_with_delta_and_version() -> None:
    """GET desired gives properties, status and delta, with an ETag for If-Match only."""
    answer = get(f"{CAR}/desired", If_None_Match='"d3"')
    assert answer.json() == {"version": 3, "properties": {"a": 1}, "status": {}, "delta": {"a": 1}}
    assert answer.headers["etag"] == '"d3"'
    assert answer.headers["cache-control"] == "no-store"


def test_read_waits_for_a_token() -> None:
    """A read with `after` answers when the write is visible, and 504 when it does not come."""
    fakes = Fakes(twin(), wait_s=0.1)
    seen = Token("car-1", 7).encode()
    missing = Token("car-1", 8).encode()
    assert get(f"{CAR}?after={seen}", fakes).status_code == 200
    for path in (CAR, f"{CAR}/desired", "/v1/twins"):
        is_problem(get(f"{path}?after={missing}", fakes), 504, "not_visible_yet", "revision 8")


def test_head_is_get_without_a_body() -> None:
    """HEAD gives the same status and ETag as GET."""
    answer = exchange(Fakes(twin()), "HEAD", CAR)
    assert (answer.status_code, answer.headers["etag"]) == (200, '"r7"')


# --- writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_desired_is_answered_after_the_owner_decided(method: str) -> None:
    """The answer to a change of desired is the owner's, with ETag and token."""
    fakes = Fakes(twin())
    answer = exchange(
        fakes, method, f"{CAR}/desired", json={"a": None}, headers={"If-Match": '"d3"'}
    )
    assert answer.json() == {"version": 4, "properties": {"a": None}, "delta": {}}
    assert answer.headers["etag"] == '"d4"'
    assert decode_token(answer.headers["cartwin-token"]) == Token("car-1", 8)
    (request,) = fakes.log.requests
    assert request["body"] == {"op": method.lower(), "value": {"a": None}}
    assert request["if_match"] == 3


def test_star_matches_any_twin_that_exists() -> None:
    """If-Match: * asks for a twin, not for a version; whether there is one the owner knows."""
    how = {"json": {}, "headers": {"If-Match": "*"}}
    fakes = Fakes()  # Redis does not have it, or not yet
    assert exchange(fakes, "PUT", f"{CAR}/desired", **how).status_code == 200
    assert "if_match" not in fakes.log.requests[0]
    none = Fakes(twin(), owner=lambda _request: {"status": 404, "code": "twin_not_found"})
    is_problem(exchange(none, "PUT", f"{CAR}/desired", **how), 412, "version_mismatch", "car-1")


def test_owners_refusal_becomes_a_problem() -> None:
    """Status, code, sentence and facts of the owner's refusal reach the client."""

    def owner(_request: Any) -> dict[str, Any]:
        return {
            "status": 412,
            "code": "version_mismatch",
            "detail": "desired is at version 9, not 3",
            "body": {"version": 9},
        }

    answer = exchange(Fakes(twin(), owner=owner), "PATCH", f"{CAR}/desired", json={})
    is_problem(answer, 412, "version_mismatch", "version 9")
    assert answer.json()["version"] == 9


def test_command_is_made_under_an_id_of_the_vehicle() -> None:
    """POST gives 201, the ledger entry and its address."""
    fakes = Fakes(twin())
    answer = exchange(fakes, "POST", f"{CAR}/commands", json={"name": "ping"})
    made = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/commands/{made['id']}"
    assert ids.vehicle_of(made["id"]) == "car-1"
    assert fakes.log.requests[0]["body"] == {
        "id": made["id"],
        "name": "ping",
        "args": {},
        "lane": "default",
    }


def test_repeated_key_gives_the_first_answer() -> None:
    """The same Idempotency-Key and body give the same command, marked as a repetition."""
    fakes = Fakes(twin())

    async def scenario() -> list[httpx.Response]:
        async with fakes.client() as client:
            answers = []
            for _ in range(2):
                answers.append(
                    await client.post(
                        f"{CAR}/commands", json={"name": "ping"}, headers={"Idempotency-Key": "k1"}
                    )
                )
                fakes.clock.advance(60_000)
        return answers

    first, again = asyncio.run(scenario())
    assert first.json() == again.json()
    assert again.status_code == 201
    assert first.headers["location"] == again.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"


def test_429_of_the_owner_is_no_decision_for_its_key() -> None:
    """The same key asks again after a 429, and the decision that then comes is the one it keeps."""
    refusals = ["too_many_open_commands", "too_many_open_commands"]

    def owner(request: Any) -> dict[str, Any]:
        if refusals:
            return {"status": 429, "code": refusals.pop(), "detail": "64 are open"}
        return {"status": 201, "body": {**request["body"], "state": "queued"}}

    fakes = Fakes(twin(), owner=owner)

    async def scenario() -> list[httpx.Response]:
        async with fakes.client() as client:
            how = {"json": {"name": "ping"}, "headers": {"Idempotency-Key": "k1"}}
            answers = [await client.post(f"{CAR}/commands", **how) for _ in range(3)]
            how["json"] = {"name": "pong"}
            return [*answers, await client.post(f"{CAR}/commands", **how)]

    first, again, made, other = asyncio.run(scenario())
    for refused in (first, again):
        is_problem(refused, 429, "too_many_open_commands")
        assert refused.headers["retry-after"] == "1"
    assert made.status_code == 201
    is_problem(other, 409, "idempotency_conflict")
    # Each has a reply of its own; the key goes with all, so the owner knows a repetition.
    assert len({request["request_id"] for request in fakes.log.requests}) == 3
    assert {request["idempotency_key"] for request in fakes.log.requests} == {"k1"}


def test_429_of_the_api_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before it was asked, a write is neither asked nor stored, and may come again."""
    fakes = Fakes(twin())
    how = {"json": {"name": "ping"}, "headers": {"Idempotency-Key": "k1"}}
    with monkeypatch.context() as crowded:
        crowded.setattr(requests, "MAX_UNDECIDED_PER_TWIN", 0)
        is_problem(exchange(fakes, "POST", f"{CAR}/commands", **how), 429, "too_many_writes")
    assert not fakes.log.requests
    assert not fakes.reader.stored
    made = exchange(fakes, "POST", f"{CAR}/commands", **how)
    assert made.status_code == 201
    assert "idempotency-replayed" not in made.headers


def test_delete_is_204_and_its_token_waits_for_absence() -> None:
    """After a deletion there is no body, and the token is fulfilled by the twin's absence."""
    fakes = Fakes(twin())
    answer = exchange(fakes, "DELETE", CAR)
    assert (answer.status_code, answer.content) == (204, b"")
    token = answer.headers["cartwin-token"]
    fakes.wait_s = 0.1
    is_problem(get(f"{CAR}?after={token}", fakes), 504, "not_visible_yet")
    fakes.reader.twins.clear()
    is_problem(get(f"{CAR}?after={token}", fakes), 404, "twin_not_found")


def test_cancel_asks_the_owner_of_the_command() -> None:
    """Cancel goes to the vehicle in the command id, and the state comes back with a refusal."""

    def owner(request: Any) -> dict[str, Any]:
        return {
            "status": 410,
            "code": "already_final",
            "detail": "it is failed",
            "body": {"state": "failed"},
        }

    fakes = Fakes(owner=owner)
    command_id = ids.command_id("car-1", 1, "x")
    answer = exchange(fakes, "POST", f"/v1/commands/{command_id}/cancel")
    is_problem(answer, 410, "already_final")
    assert answer.json()["state"] == "failed"
    assert fakes.log.requests[0]["vehicle_id"] == "car-1"
    assert fakes.log.requests[0]["body"] == {"command_id": command_id}


def test_time_out_names_the_request_whose_decision_can_be_read() -> None:
    """The request id of a 504 is an address: 404 until the owner has decided, then its reply."""
    fakes = Fakes(twin(), owner=lambda request: None, wait_s=0.1)
    answer = exchange(fakes, "DELETE", CAR)
    is_problem(answer, 504, "no_decision_yet")
    address = f"/v1/requests/{answer.json()['request_id']}"
    assert address in answer.json()["detail"]
    is_problem(get(address, fakes), 404, "request_not_found")
    request_id = answer.json()["request_id"]
    reply: Any = {"request_id": request_id, "vehicle_id": "car-1", "status": 204, "body": {}}
    fakes.reader.stored[request_id] = reply | {"revision": 8}
    assert get(address, fakes).json()["status"] == 204


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "name: is required"),
        ({"name": "Ping"}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": "ping\n"}, "name"),
        ({"name": 5}, "name"),
        ({"name": "ping", "ttl": 5}, "members: name, args, ttl_s, lane"),
        ({"name": "ping", "ttl_s": 0}, "ttl_s"),
        ({"name": "ping", "ttl_s": 604_801}, "604800"),
        ({"name": "ping", "ttl_s": "60"}, "ttl_s"),
        ({"name": "ping", "args": []}, "args"),
        ({"name": "ping", "lane": ""}, "lane"),
        ([], "an array"),
        ("text", "a string"),
        (None, "null"),
        (True, "a boolean"),
        (3, "a number"),
    ],
)
def test_bad_command_is_422_naming_the_member(body: Any, named: str) -> None:
    """A body that is no command is refused with the member's name; nothing is asked."""
    fakes = Fakes(twin())
    answer = exchange(fakes, "POST", f"{CAR}/commands", content=orjson.dumps(body), headers=JSON)
    is_problem(answer, 422, "invalid_body", named)
    assert not fakes.log.requests


def nested(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "commands", {"name": "p", "args": nested(8)}, 201, None),
        ("POST", "commands", {"name": "p", "args": nested(9)}, 400, "too_deep"),
        ("POST", "commands", {"name": "p", "args": {"a": [[[[[[[[1]]]]]]]]}}, 400, "too_deep"),
        ("POST", "commands", {"name": "p", "args": {"k" * 129: 1}}, 400, "key_too_long"),
        ("POST", "commands", {"name": "p", "args": {"a": "x" * 32_800}}, 413, "too_large"),
        ("PATCH", "desired", nested(400), 400, "too_deep"),
        ("PUT", "desired", {"ö" * 65: 1}, 400, "key_too_long"),
        ("PUT", "attributes", {"fleet": "x", "year": 1}, 422, "invalid_body"),
        ("PUT", "attributes", {"fleet": "x", "year": None}, 422, "invalid_body"),
        ("PUT", "attributes", {"fleet": "x"}, 200, None),
        ("PUT", "desired", {"a": "x" * 131_072}, 413, "too_large"),
    ],
)
def test_limits_of_bodies(method: str, path: str, body: Any, status: int, code: str | None) -> None:
    """Depth, key length and size are judged before anything is asked."""
    fakes = Fakes(twin())
    content = b""
    value = body
    if path == "desired" and code == "too_deep":
        content = b'{"a":' * 400 + b"1" + b"}" * 400
    answer = exchange(
        fakes, method, f"{CAR}/{path}", content=content or orjson.dumps(value), headers=JSON
    )
    assert answer.status_code == status, answer.text
    if code is not None:
        is_problem(answer, status, code)
        assert not fakes.log.requests


def test_streamed_body_is_cut_at_the_limit() -> None:
    """A body without a length is not read further than the limit."""
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while True:
            sent += 65_536
            yield b"x" * 65_536

    answer = exchange(Fakes(), "PUT", f"{CAR}/desired", content=endless(), headers=JSON)
    is_problem(answer, 413, "too_large", "131072")
    assert sent <= 4 * 65_536


def test_a_body_may_be_as_long_as_is_set() -> None:
    """MESSAGE_MAX_BYTES; to the byte."""
    fakes = Fakes(twin())
    fakes.message_max_bytes = 1024
    for length, status in ((1024, 200), (1025, 413)):
        body = b'{"a":"%s"}' % (b"x" * (length - 8))
        headers = {"content-type": "application/merge-patch+json"}
        answer = exchange(fakes, "PATCH", f"{CAR}/desired", content=body, headers=headers)
        assert (len(body), answer.status_code) == (length, status)
    is_problem(answer, 413, "too_large", "1024")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"a":NaN}', b'{"a":1}x', b"[" * 2000])
def test_body_that_is_not_json_is_400(content: bytes) -> None:
    """Broken JSON is refused as such, whatever it is broken by."""
    answer = exchange(Fakes(), "PUT", f"{CAR}/desired", content=content, headers=JSON)
    is_problem(answer, 400, "malformed_json")


@pytest.mark.parametrize(
    ("method", "path", "content_type"),
    [
        ("PATCH", "desired", "text/plain"),
        ("PATCH", "desired", "application/json-patch+json"),
        ("PUT", "desired", "application/merge-patch+json"),
        ("PUT", "attributes", "application/x-www-form-urlencoded"),
        ("POST", "commands", ""),
    ],
)
def test_other_media_types_are_415(method: str, path: str, content_type: str) -> None:
    """A body in a form that is not accepted is refused with the accepted ones."""
    headers = {"Content-Type": content_type} if content_type else {}
    answer = exchange(Fakes(), method, f"{CAR}/{path}", content=b"{}", headers=headers)
    is_problem(answer, 415, "unsupported_media_type", "application/json")
    assert (answer.headers.get("accept-patch") is not None) is (method == "PATCH")


def test_media_type_may_have_parameters() -> None:
    """A charset behind the media type is fine."""
    headers = {"Content-Type": "Application/Merge-Patch+JSON; charset=utf-8"}
    answer = exchange(Fakes(twin()), "PATCH", f"{CAR}/desired", content=b"{}", headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize("key", ["", "k" * 256, "a b", "ä"])
def test_bad_idempotency_key_is_400(key: str) -> None:
    """A key that cannot be compared safely is refused."""
    headers = [(b"Idempotency-Key", key.encode())]
    answer = exchange(Fakes(twin()), "DELETE", CAR, headers=headers)
    is_problem(answer, 400, "invalid_header", "Idempotency-Key")


@pytest.mark.parametrize(("method", "path"), [("DELETE", CAR), ("PUT", f"{CAR}/attributes")])
def test_condition_that_would_be_ignored_is_refused(method: str, path: str) -> None:
    """If-Match where no version exists is refused, since its sender relies on it."""
    answer = exchange(Fakes(twin()), method, path, json={}, headers={"If-Match": '"r7"'})
    is_problem(answer, 400, "invalid_header", "desired only")


def test_only_a_valid_traceparent_is_passed_on() -> None:
    """A trace context goes with the request; a broken one is left out."""
    fakes = Fakes(twin())
    good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    async def scenario() -> None:
        async with fakes.client() as client:
            for trace in (good, "junk"):
                await client.delete(CAR, headers={"traceparent": trace})

    asyncio.run(scenario())
    assert fakes.log.traces == [good, None]


# --- what is not there, and what fails -------------------------------------------------------------


def test_unknown_address_is_404() -> None:
    """An address that is not ours is a problem that says where to look."""
    is_problem(get("/v2/<script>"), 404, "not_found", "/openapi.json")


def test_wrong_method_is_405_with_allow() -> None:
    """A method that is not accepted is a problem with the accepted ones in Allow."""
    answer = exchange(Fakes(), "POST", "/v1/fleet")
    is_problem(answer, 405, "method_not_allowed", "GET")
    assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{CAR}?at=2026-01-01T00:00:00Z"),
        ("GET", f"{CAR}/events"),
        ("GET", f"{CAR}/history"),
        ("GET", "/v1/events"),
        ("POST", "/v1/operations"),
        ("POST", "/v1/operations/o1/pause"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/lstm"),
    ],
)
def test_what_comes_later_says_so(method: str, path: str) -> None:
    """Calls of the contract that are not built answer 501 and do not pretend."""
    is_problem(exchange(Fakes(twin()), method, path), 501, "not_available_yet")


def test_redis_away_is_503() -> None:
    """A read model that does not answer is a problem that may be tried again."""
    fakes = Fakes(twin())

    async def scenario() -> httpx.Response:
        async with fakes.client() as client:
            fakes.reader.away = True
            return await client.get(CAR)

    answer = asyncio.run(scenario())
    is_problem(answer, 503, "store_unavailable", "Redis")
    assert answer.headers["retry-after"] == "1"


def test_kafka_away_is_503() -> None:
    """A write that Kafka does not take is a problem that may be tried again."""
    fakes = Fakes(twin())
    fakes.log.away = True
    is_problem(exchange(fakes, "DELETE", CAR), 503, "log_unavailable", "Kafka")


def test_unexpected_error_shows_nothing_of_the_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect is a 500 without stack trace or message; the log has it."""
    fakes = Fakes(twin())
    log = Mock()
    monkeypatch.setattr(middleware, "log", log)

    async def scenario() -> httpx.Response:
        async with fakes.client() as client:
            fakes.reader.broken = True
            return await client.get(CAR)

    answer = asyncio.run(scenario())
    is_problem(answer, 500, "internal_error")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    log.exception.assert_called_once_with("request failed", method="GET", path=CAR)


def test_requests_are_counted_by_route_template() -> None:
    """Metrics name the template, never the path, so clients make no new series."""

    def count(route: str) -> float:
        labels = {"method": "GET", "route": route, "status": "404"}
        return REGISTRY.get_sample_value("cartwin_api_requests_total", labels) or 0.0

    before = count("/v1/twins/{vehicle_id}"), count("none")
    get("/v1/twins/unheard-of")
    get("/unheard/of")
    assert (count("/v1/twins/{vehicle_id}"), count("none")) == (before[0] + 1, before[1] + 1)
    assert count("/unheard/of") == 0
    assert b"cartwin_api_requests_total" in get("/metrics").content


def test_the_fleet_is_a_metric_while_redis_answers() -> None:
    """What was known is not told any more when nobody can know."""
    fakes = Fakes(twin("car-1"), twin("car-2"))

    def told() -> float | None:
        assert get("/metrics", fakes).status_code == 200
        state = next(iter(fakes.reader.twins.values()))["presence"]["state"]
        labels = {"field": "presence", "value": state}
        return REGISTRY.get_sample_value("cartwin_fleet_twins", labels)

    assert told() == 2
    fakes.reader.away = True
    assert told() is None


def test_livez_fails_when_a_part_has_ended() -> None:
    """A process whose replies are not read any more asks to be restarted."""
    fakes = Fakes(twin())

    async def scenario() -> tuple[httpx.Response, httpx.Response]:
        async with fakes.client() as client:
            alive = await client.get("/livez")
            fakes.poll.cancel()
            await asyncio.wait([fakes.poll])
            return alive, await client.get("/livez")

    alive, ended = asyncio.run(scenario())
    assert alive.status_code == 200
    assert (ended.status_code, ended.json()["why"]) == (503, ["replies-poll"])


def test_readyz_names_what_is_missing() -> None:
    """Ready when Redis and Kafka answer, otherwise 503 with the part's name."""
    assert get("/readyz").status_code == 200
    fakes = Fakes()
    fakes.reader.away = True
    answer = get("/readyz", fakes)
    assert answer.status_code == 503
    assert "redis" in answer.json()["why"]


# --- why, and who agrees ---------------------------------------------------------------------------


def test_a_value_is_explained_by_its_record() -> None:
    """Record, path and value; dotted and as a pointer; with an ETag."""
    document = twin(applied={"telemetry": [4, 1]}, causes={"/created_at": "presence/0"})
    for path in ("reported.coolant_temp", "%2Freported%2Fcoolant_temp"):
        answer = get(f"{CAR}/explain?path={path}", Fakes(document))
        assert answer.status_code == 200
        body = answer.json()
        assert body["record"] == {"topic": "telemetry", "partition": 4, "offset": 1}
        assert (body["path"], body["value"]["v"]) == ("/reported/coolant_temp", 91.5)
        assert answer.headers["etag"]


def test_an_unknown_path_is_404_naming_what_there_is() -> None:
    """And so is an absent twin; a missing path is 400."""
    answer = get(f"{CAR}/explain?path=reported.speed")
    is_problem(answer, 404, "path_not_found", "reported has no 'speed'", "coolant_temp")
    is_problem(get("/v1/twins/car-9/explain?path=health"), 404, "twin_not_found", "car-9")
    is_problem(get(f"{CAR}/explain"), 400, "invalid_parameter", "path")


@pytest.mark.parametrize(
    ("verdict", "status", "reply"),
    [
        ("approve", 201, {"status": 201, "body": {"id": "car-1.A", "state": "queued"}}),
        ("refuse", 200, {"status": 200, "body": {"verdict": "refused"}}),
    ],
)
def test_an_answer_to_a_rule_goes_to_the_owner(verdict: str, status: int, reply: Any) -> None:
    """Approved it is the command with its address, refused the decision."""
    fakes = Fakes(twin(), owner=lambda request: reply)
    answer = exchange(fakes, "POST", f"{CAR}/decisions/limit-power", json={"verdict": verdict})
    assert (answer.status_code, answer.json()) == (status, reply["body"])
    assert answer.headers.get("location") == ("/v1/commands/car-1.A" if status == 201 else None)
    assert answer.headers["cartwin-token"]
    (request,) = fakes.log.requests
    assert (request["kind"], request["body"]) == (
        "approval",
        {"rule": "limit-power", "verdict": verdict},
    )


def test_an_interlock_is_a_problem_that_names_it() -> None:
    """409 with the reason as a member."""
    refusal = {
        "status": 409,
        "code": "interlock_refused",
        "detail": "the interlock not_online refuses limit_power",
        "body": {"reason": "not_online"},
    }
    fakes = Fakes(twin(), owner=lambda request: refusal)
    answer = exchange(fakes, "POST", f"{CAR}/decisions/r", json={"verdict": "approve"})
    is_problem(answer, 409, "interlock_refused", "not_online")
    assert answer.json()["reason"] == "not_online"


@pytest.mark.parametrize("body", [{}, {"verdict": "maybe"}, {"verdict": "approve", "why": "x"}])
def test_an_answer_that_is_none_is_422(body: Any) -> None:
    """approve or refuse, and nothing else."""
    answer = exchange(Fakes(twin()), "POST", f"{CAR}/decisions/r", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_body")


def test_a_rule_is_named_like_a_rule() -> None:
    """400 for what no policy can hold."""
    answer = exchange(Fakes(twin()), "POST", f"{CAR}/decisions/No!", json={"verdict": "approve"})
    is_problem(answer, 400, "invalid_parameter", "rule")


# --- documents about the API -----------------------------------------------------------------------


def test_every_refusal_of_the_owner_is_a_public_code() -> None:
    """Codes that owner and wire can say are in the public list with a status of their own."""
    assert set(get_args(RefusalCode)) <= set(problems.CODES)
    assert "bad_vehicle_id" in get_args(Reason)
    listed = {item["code"] for item in get("/v1/problems").json()["items"]}
    assert listed == set(problems.CODES)


def test_catalogue_lists_every_signal() -> None:
    """The page gets names, units and ranges from the one catalogue."""
    items = get("/v1/catalogue").json()["items"]
    assert [item["name"] for item in items] == [signal.name for signal in SIGNALS]
    assert items[0]["unit"] == "degC"


def test_openapi_describes_every_call_and_signal() -> None:
    """The document names all routes, problems as problem+json, and the catalogue's signals."""
    document = get("/openapi.json").json()
    patch = document["paths"]["/v1/twins/{vehicle_id}/desired"]["patch"]
    assert "application/merge-patch+json" in patch["requestBody"]["content"]
    assert list(patch["responses"]["412"]["content"]) == ["application/problem+json"]
    assert "501" in document["paths"]["/v1/models"]["get"]["responses"]
    assert "501" not in document["paths"]["/v1/twins"]["get"]["responses"]
    fleet = document["components"]["schemas"]["Fleet"]["properties"]
    assert {"total", "presence", "signals", "alarms"} <= set(fleet)
    reported = document["components"]["schemas"]["Twin"]["properties"]["reported"]["properties"]
    assert set(reported) == {signal.name for signal in SIGNALS}
    assert "HTTPValidationError" not in str(document)


def test_openapi_references_resolve() -> None:
    """No reference of the document points at nothing."""
    document = get("/openapi.json").json()
    found = re.findall(r'"\$ref":"([^"]*)"', orjson.dumps(document).decode())
    assert found
    for reference in found:
        part = document
        for name in reference.removeprefix("#/").split("/"):
            assert name in part, reference
            part = part[name]


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/static/page.js", "/static/page.css", "/static/icon.svg"]
)
def test_page_allows_nothing_from_elsewhere(path: str) -> None:
    """Page and reference are served under a strict policy, with an ETag."""
    answer = get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert get(path, If_None_Match=answer.headers["etag"]).status_code == 304


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/static/page.js", "/static/docs.js", "/static/page.css"]
)
def test_page_has_no_external_or_inline_code(path: str) -> None:
    """Nothing is loaded from another host, and nothing is put in as HTML."""
    text = get(path).text.replace("http://www.w3.org/2000/svg", "")
    for forbidden in (
        "http://",
        "https://",
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "eval(",
    ):
        assert forbidden not in text
    if path in ("/", "/docs"):
        assert "<style" not in text
        assert " style=" not in text
        assert text.count("<script") == text.count("<script src=")


def test_every_query_model_refuses_what_it_does_not_know() -> None:
    """No route silently ignores a misspelt parameter."""
    models = [
        value
        for value in vars(parameters).values()
        if isinstance(value, type) and issubclass(value, parameters.BaseModel)
    ]
    assert len(models) > 5
    for model in models:
        if model is not parameters.BaseModel:
            assert model.model_config["extra"] == "forbid"
