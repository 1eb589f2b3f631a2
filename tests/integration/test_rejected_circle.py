"""Rejected, seen, mended, sent again: the whole circle on a real broker, Kafka, uplink and API."""

import json

import paho.mqtt.client as paho
import pytest
from typer.testing import CliRunner

from tests.integration.test_api_process import Api
from tests.integration.test_ingest_uplink import Bridge, Tail, car, leave, ms, say, until
from twin.cli import app
from twin.kit import kafka as kit_kafka
from twin.wire import rejected
from twin.wire.codec import decode_telemetry
from twin.wire.errors import Malformed

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def api(kafka, redis_url, tmp_path_factory):
    """The API as a process."""
    started = Api(tmp_path_factory.mktemp("api"), KAFKA_BOOTSTRAP=kafka, REDIS_URL=redis_url)
    started.wait_ready()
    yield started
    assert started.stop() == 0, started.log.read_text()


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
    received = uplink.metric("cartwin_uplink_received_total")
    rest = ("produced_total", "rejected_total", "in_flight")
    assert received == sum(uplink.metric(f"cartwin_uplink_{name}") for name in rest)


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
    """What is above goes to `rejected`, and is accepted when somebody sends it again."""
    start(UPLINK_VEHICLE_RATE="1")
    # An uplink that begins takes what a car says in an hour: it may have waited at the broker.
    flooding, count = f"flood-{ms()}", 3_900
    for number in range(count):
        client.publish(
            f"vehicles/{flooding}/telemetry", json.dumps({"sequence": number, "speed": 1}), 1
        )
    say(client, f"vehicles/{flooding}-not/telemetry", b'{"speed":1}')
    assert tail.of("telemetry", f"{flooding}-not", 1)
    both = lambda: len(tail.of("telemetry", flooding, 1)) + len(tail.of("rejected", flooding, 1))  # noqa: E731
    until(lambda: both() >= count, lambda: f"{both()} of {count}")
    through, above = (len(tail.of(name, flooding, 1)) for name in ("telemetry", "rejected"))
    assert through + above == count
    assert above > 0
    assert through >= 3_600
    assert {told(m)["reason"] for m in tail.of("rejected", flooding, above)} == {"rate_limited"}
    body = {"filter": {"vehicle_id": flooding, "reason": "rate_limited"}, "limit": 500}
    assert answered(api.client.post("/v1/rejected/redrive", json=body))["redriven"] == above
    everything = tail.of("telemetry", flooding, count)
    assert sorted(decode_telemetry(m.value()).sequence for m in everything) == list(range(count))


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
