"""Rejected, seen, mended, sent again: the whole circle on a real broker, Kafka, uplink and API."""

import json

import paho.mqtt.client as paho
import pytest
from typer.testing import CliRunner

from tests.integration.test_api_process import Api
from tests.integration.test_ingest_uplink import Bridge, Tail, car, leave, ms, say, until
from tests.mosquittos import PLENTY, own_mosquitto
from twin.cli import app
from twin.kit import kafka as kit_kafka
from twin.wire import rejected
from twin.wire.codec import decode_telemetry
from twin.wire.errors import Malformed

pytestmark = pytest.mark.integration

__all__ = ["own_mosquitto"]


@pytest.fixture(scope="module")
def api(kafka, redis_url, tmp_path_factory):
    """The API as a process."""
    started = Api(tmp_path_factory.mktemp("api"), KAFKA_BOOTSTRAP=kafka, REDIS_URL=redis_url)
    started.wait_ready()
    yield started
    assert started.stop() == 0, started.log.read_text()


@pytest.fixture
def mosquitto(own_mosquitto):
    """A broker that retains nothing of other tests' cars, which a door would accept."""
    return own_mosquitto.start(*PLENTY).url


@pytest.fixture
def start(kafka, mosquitto, tmp_path):
    """Start an uplink that ends with the test."""
    running = []

    def begin(**settings):
        uplink = Bridge(tmp_path / "log", kafka, mosquitto, "-m", "ingest", "uplink", **settings)
        running.append(uplink)
        return uplink.ready()

    yield begin
    for uplink in running:
        assert uplink.stop() == 0, uplink.log.read_text()


@pytest.fixture
def tail(kafka):
    """What comes out, from now on."""
    found = Tail(kafka, "telemetry", "rejected", "scores")
    yield found
    found.close()


@pytest.fixture
def client(mosquitto):
    """A connected car."""
    connected = car(mosquitto, f"circle-{ms()}", version=paho.MQTTv5)
    yield connected
    leave(connected)


def told(message):
    return {name: value.decode() for name, value in message.headers()}


def answered(answer, status=200):
    assert answer.status_code == status, answer.text
    return answer.json()


def test_what_was_rejected_is_seen_mended_and_accepted(api, start, tail, client):
    """Sent again as it is it comes back with attempts 2; mended it is the car's telemetry."""
    uplink = start()
    vehicle_id = f"circle-{ms()}"
    topic = f"vehicles/{vehicle_id}/telemetry"
    say(client, topic, b'{"speed":"fast"}')
    first = tail.of("rejected", vehicle_id, 1)[0]
    made = f"{first.partition()}-{first.offset()}"
    (item,) = answered(api.client.get("/v1/rejected", params={"vehicle_id": vehicle_id}))["items"]
    assert (item["id"], item["reason"], item["attempts"]) == (made, "bad_type", 1)
    assert answered(api.client.get(f"/v1/rejected/{made}"))["value"] == '{"speed":"fast"}'

    again = answered(api.client.post(f"/v1/rejected/{made}/redrive"), 202)
    assert again == {"id": made, "topic": "redrive", "attempts": 1, "changed": False}
    second = tail.of("rejected", vehicle_id, 2)[1]
    assert second.value() == first.value()
    assert told(second) == {**told(first), "attempts": "2", "redriven-by": "api"}

    # By the command line, and the second record, for a change.
    mended = CliRunner().invoke(
        app,
        ["rejected", "redrive", f"{second.partition()}-{second.offset()}", "--api", api.url,
         "--patch", '{"speed":7}'],
    )  # fmt: skip
    assert mended.exit_code == 0, mended.output
    accepted = decode_telemetry(tail.of("telemetry", vehicle_id, 1)[0].value())
    assert accepted.signals == {"speed": 7.0}
    assert accepted.event_time == int(told(first)["ingested-at"])
    # The account of what the broker delivered knows nothing of that.
    until(lambda: uplink.metric("cartwin_uplink_redriven_total") == 2, "two were driven again")
    # In flight is a difference, so it would hide what is forgotten; the outbox knows what it holds.
    names = ("received_total", "produced_total", "rejected_total", "outbox")
    received, *rest = (uplink.metric(f"cartwin_uplink_{name}") for name in names)
    assert received >= 1
    assert received == sum(rest)
    assert uplink.metric("cartwin_uplink_in_flight") == 0


def test_a_door_that_rejects_everything_is_not_ready_until_one_is_accepted(
    api, start, tail, client
):
    """And all it rejected is sent again by a filter, in calls, each once."""
    uplink = start()
    prefix, count = f"door-{ms()}", 120
    for number in range(count):
        client.publish(f"vehicles/{prefix}-{number}/telemetry", b'{"mood":%d}' % number, 1)
    tail.until("rejected", lambda found: sum(_is_of(m, prefix) for m in found) >= count)
    until(
        lambda: "unknown_signal" in uplink.get("/readyz")[1],
        lambda: f"still {uplink.get('/readyz')}",
    )
    assert uplink.get("/readyz")[0] == 503
    say(client, f"vehicles/{prefix}/telemetry", b'{"speed":1}')
    until(lambda: uplink.get("/readyz")[0] == 200, lambda: f"still {uplink.get('/readyz')}")

    wanted = {"source": f"mqtt:vehicles/{prefix}-", "reason": "unknown_signal"}
    body = {"filter": wanted, "limit": 70, "dry_run": True}
    counted = answered(api.client.post("/v1/rejected/redrive", json=body))
    assert (counted["matched"], counted["redriven"], len(counted["ids"])) == (70, 0, 70)
    driven, cursor = [], counted["cursor"]
    while cursor is not None:
        body = {"filter": wanted, "limit": 70, "cursor": cursor}
        done = answered(api.client.post("/v1/rejected/redrive", json=body))
        assert done["failed"] == []
        driven += done["ids"]
        cursor = done["next_cursor"]
    assert driven[:70] == counted["ids"]
    assert len(set(driven)) == len(driven) == count
    records = tail.until(
        "rejected", lambda found: sum(_is_of(m, prefix) for m in found) >= 2 * count
    )
    attempts = [told(message)["attempts"] for message in records if _is_of(message, prefix)]
    assert (attempts.count("1"), attempts.count("2")) == (count, count)


def _is_of(message, prefix):
    return (message.key() or b"").startswith(prefix.encode() + b"-")


def test_a_car_that_floods_is_held_to_its_rate_and_costs_nobody_else(api, start, tail, client):
    """What waited for the uplink passes, what then floods gets the rate, and is accepted when it is sent
    again."""
    assert start().stop() == 0
    waiting, flooding, count = f"waited-{ms()}", f"flood-{ms()}", 60
    for number in range(count):
        client.publish(f"vehicles/{waiting}/telemetry", f'{{"sequence":{number},"speed":1}}', 1)
    say(client, f"vehicles/{waiting}/status", b'{"state":"offline","session":1}')
    uplink = start(UPLINK_VEHICLE_RATE="1")
    assert tail.of("telemetry", waiting, count)
    until(
        lambda: "what waited at the broker is taken" in uplink.log.read_text(),
        "no mark came back",
    )

    def flood(numbers):
        for number in numbers:
            said = json.dumps({"sequence": number, "speed": 1})
            client.publish(f"vehicles/{flooding}/telemetry", said, 1)

    def taken():
        records = tail.read()
        return [
            [m for m in records[name] if m.key() == flooding.encode()]
            for name in ("telemetry", "rejected")
        ]

    # Until the uplink's own clock says that it has gone on for some seconds.
    sent = 0
    while True:
        flood(range(sent, sent + 10))
        sent += 10
        until(lambda: sum(map(len, taken())) >= sent, lambda: f"{taken()} of {sent}")  # noqa: B023
        through, above = taken()
        times = [int(told(message)["ingested-at"]) for message in (*through, *above)]
        if max(times) - min(times) >= 4_000:
            break
    assert len(through) + len(above) == sent
    # A bucket holds ten, and fills by one in a second.
    assert abs(len(through) - 10 - (max(times) - min(times)) // 1000) <= 1
    assert {told(m)["reason"] for m in above} == {"rate_limited"}
    say(client, f"vehicles/{flooding}-not/telemetry", b'{"speed":1}')
    assert tail.of("telemetry", f"{flooding}-not", 1)
    assert not any(m.key() == waiting.encode() for m in tail.records["rejected"])

    body = {"filter": {"vehicle_id": flooding, "reason": "rate_limited"}, "limit": 500}
    redriven, page = 0, answered(api.client.post("/v1/rejected/redrive", json=body))
    redriven += page["redriven"]
    while page["next_cursor"] is not None:
        page = answered(
            api.client.post("/v1/rejected/redrive", json={**body, "cursor": page["next_cursor"]})
        )
        redriven += page["redriven"]
    assert redriven == len(above)
    everything = tail.of("telemetry", flooding, sent)
    assert sorted(decode_telemetry(m.value()).sequence for m in everything) == list(range(sent))


def test_a_kafka_record_goes_to_its_topic_again_with_its_headers(kafka, api, tail):
    """As the worker rejects one: to the source topic, under its key, with the attempts."""
    vehicle_id = f"scored-{ms()}"
    key, value, headers = rejected.record(
        error=Malformed("no JSON"),
        source="kafka:scores/0/12",
        at_ms=ms(),
        key=vehicle_id.encode(),
        value=b"{",
        headers=[("content-type", b"application/json"), ("odd", b"\xff")],
    )
    producer = kit_kafka.producer(kafka, "circle")
    producer.produce("rejected", value, key, headers=headers)
    assert producer.flush(30) == 0
    first = tail.of("rejected", vehicle_id, 1)[0]
    path = f"/v1/rejected/{first.partition()}-{first.offset()}/redrive"
    assert answered(api.client.post(path, json={"value": "e30="}), 202)["topic"] == "scores"
    sent = tail.of("scores", vehicle_id, 1)[0]
    assert (sent.partition(), sent.value()) == (first.partition(), b"{}")
    assert sent.headers() == [
        ("content-type", b"application/json"),
        ("odd", b"\xff"),
        ("attempts", b"1"),
        ("redriven-by", b"api"),
    ]
    missing = api.client.get(f"/v1/rejected/{first.partition()}-999999")
    assert answered(missing, 404)["code"] == "rejected_not_found"
    since = {"from": first.timestamp()[1], "vehicle_id": vehicle_id}
    (item,) = answered(api.client.get("/v1/rejected", params=since))["items"]
    assert item["at"] == first.timestamp()[1]
    until_then = {"to": first.timestamp()[1], "vehicle_id": vehicle_id}
    assert answered(api.client.get("/v1/rejected", params=until_then))["items"] == []
