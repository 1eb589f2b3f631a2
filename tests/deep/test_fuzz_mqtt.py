"""Whatever cars publish: each message is a record of its topic or of `rejected`, and nothing stops.

Hypothesis draws topics and payloads (valid ones with something changed, random bytes, huge ones);
they go through Mosquitto, HiveMQ (MQTT 5) and amqtt (MQTT 3.1.1) into one uplink, a shard each, with
the worker behind it.
Nothing is shrunk: a message that ends a process would end it again at each try. They come in rounds
until a time budget is used up, which decides nothing else.
"""

import itertools
import json
import socket
import string
import struct
import time
from collections import Counter
from types import SimpleNamespace
from typing import get_args
from urllib.parse import urlsplit

import orjson
import paho.mqtt.client as paho
import pytest
import redis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.kafka_log import read_topic
from tests.processes import until
from tests.stacks import need_mosquitto
from twin.client.car import Car
from twin.local.options import External
from twin.wire import keys, topics
from twin.wire.catalogue import NAMES
from twin.wire.codec import MAX_MESSAGE_BYTES, encode_telemetry
from twin.wire.errors import Reason
from twin.wire.partition import partition_of
from twin.wire.telemetry import Telemetry

pytestmark = [pytest.mark.deep, pytest.mark.timeout(300)]

PARTITIONS = 12
BROKERS = {"mosquitto": paho.MQTTv5, "amqtt": paho.MQTTv311, "hivemq": paho.MQTTv5}
LEAVES = tuple(topics.UP)
BUDGET_S = 25.0
ROUND = settings(
    max_examples=50,
    phases=[Phase.generate],
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)


def now_ms():
    return time.time_ns() // 1_000_000


# --- What is drawn -------------------------------------------------------------------------------

VEHICLES = ("fuzz-1", "fuzz-2", "F.u_z-Z")
# Control characters, surrogates and unassigned ones are for `test_topics_that_are_no_text`.
characters = st.characters(exclude_categories=("Cc", "Cs", "Cn"), exclude_characters="/+#")
vehicle_ids = st.sampled_from(VEHICLES) | st.text(string.ascii_letters, min_size=1, max_size=64)
segments = (
    vehicle_ids | st.text(characters, max_size=80) | st.sampled_from(["sensor", "..", "$SYS"])
)
up_topics = st.builds("vehicles/{}/{}".format, segments, st.sampled_from(LEAVES)) | st.builds(
    "vehicles/sensor/data/{}".format, segments
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=40)
    | st.sampled_from(["", "NaN", "\x00", "\ud800", "a" * 300, 2**63, 2**64, -1, 1e308, 0.5, 1e-45])
)
values = st.recursive(
    scalars,
    lambda below: (
        st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=20), below, max_size=4)
    ),
    max_leaves=8,
)
FIELDS = (
    "vehicle_id", "event_time", "session", "sequence", "state", "at", "attributes", "properties",
    "command_id", "progress", "reason", "desired_version", "traceparent", "assigned", "suspect",
    *NAMES,
)  # fmt: skip
names = st.sampled_from(FIELDS) | st.text(max_size=200)
signals = st.dictionaries(
    st.sampled_from(NAMES), st.integers(0, 1) | st.floats(0, 1), min_size=1, max_size=10
)


@st.composite
def valid(draw, leaf):
    """Fields of a message that is accepted on topic `leaf` of a vehicle."""
    vehicle_id = draw(st.sampled_from(VEHICLES))
    now = now_ms()
    car = Car(vehicle_id, draw(st.dictionaries(st.text(max_size=10), st.text(max_size=10))))
    car.connect(now - draw(st.integers(0, 10_000)))
    birth, reported = car.connected(now)
    if leaf == "telemetry":
        return vehicle_id, json.loads(car.telemetry(now, draw(signals)).payload)
    if leaf == "status":
        return vehicle_id, json.loads(draw(st.sampled_from([birth, car.goodbye(now)])).payload)
    if leaf == "reported":
        properties = draw(st.dictionaries(st.text(max_size=20), values, max_size=5))
        return vehicle_id, json.loads(reported.payload) | {"properties": properties}
    state = draw(st.sampled_from(["received", "accepted", "rejected", "running", "succeeded"]))
    return vehicle_id, {"command_id": f"{vehicle_id}.{'0' * 26}", "state": state, "at": now}


@st.composite
def changed_json(draw):
    """A valid message, some fields of which are set, added or dropped."""
    leaf = draw(st.sampled_from(LEAVES))
    vehicle_id, fields = draw(valid(leaf))
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(sorted(fields)) | names) if fields else draw(names)
        if draw(st.booleans()):
            fields[name] = draw(values)
        else:
            fields.pop(name, None)
    return f"vehicles/{vehicle_id}/{leaf}", json.dumps(fields).encode()


@st.composite
def avro(draw):
    """Framed Avro of a message; the fields are not checked, so they may be impossible."""
    vehicle_id = draw(st.sampled_from(VEHICLES))
    longs = st.integers(-(2**63), 2**63 - 1)
    record = Telemetry(
        vehicle_id, draw(longs), draw(longs), draw(longs), {"speed": draw(st.floats(width=32))}
    )
    plain = encode_telemetry(record)
    return f"vehicles/{vehicle_id}/telemetry", plain[draw(st.sampled_from([0, 0, 5])) :]


@st.composite
def damaged(draw):
    """A message with bytes cut off, changed or put in."""
    topic, payload = draw(changed_json() | avro())
    place = draw(st.integers(0, len(payload)))
    inserted = draw(st.binary(max_size=8))
    skipped = draw(st.integers(0, 8) | st.just(len(payload)))
    return topic, payload[:place] + inserted + payload[place + skipped :]


class Huge(bytes):
    """Bytes that are not shown whole."""

    def __repr__(self):
        return f"<{len(self)} bytes, {self[:60]!r}..>"


@st.composite
def huge(draw):
    """Around and far beyond what a message may have, and very deep."""
    size = draw(st.sampled_from([MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES + 1, 300_000, 900_000]))
    head, tail = b'{"speed":1,"state":"', b'"}'
    payload = draw(
        st.sampled_from(
            [
                head + b"a" * (size - len(head) - len(tail)) + tail,
                b"[" * size,
                b'{"properties":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_001,
                b'{"properties":' + b"[" * 900 + b"]" * 900 + b"}",
                b"\0" * size,
                b'{"attributes":{%s}}' % b",".join(b'"%d":""' % n for n in range(9_000)),
                # Good for the uplink, too large for a twin.
                b'{"event_time":%d,"session":1,"sequence":1,"properties":{%s}}'
                % (now_ms(), b",".join(b'"%d":"%s"' % (n, b"a" * 100) for n in range(1_000))),
            ]
        )
    )
    topic = f"vehicles/{draw(st.sampled_from(VEHICLES))}/{draw(st.sampled_from(LEAVES))}"
    return topic, Huge(payload)


messages = (
    changed_json()
    | changed_json()
    | avro()
    | damaged()
    | st.tuples(up_topics, st.binary(max_size=200))
    | st.tuples(up_topics, changed_json().map(lambda message: message[1]))
)
batches = st.lists(messages, min_size=1, max_size=20) | st.lists(huge(), min_size=1, max_size=2)
content_types = st.sampled_from(
    [None, None, None, "", "application/json", "avro/binary", "text/plain"]
) | st.text(characters, max_size=20)

raw_segments = (
    st.binary(max_size=80)
    | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.sampled_from([b"\xff", b"\0", b"\xed\xa0\x80", b"\xef\xbf\xbf", b"+", b"#", b"\x01\x7f"])
)


# --- Where it goes -------------------------------------------------------------------------------


class Cars:
    """A connection to each broker; what they were given is counted in `sent`."""

    def __init__(self, urls):
        self.sent = Counter()
        self._clients = []
        for url, protocol in zip(urls, BROKERS.values(), strict=True):
            client = paho.Client(paho.CallbackAPIVersion.VERSION2, "fuzz", protocol=protocol)
            client.cut = []
            client.on_disconnect = lambda client, _u, _f, reason, _p: client.cut.append(reason)
            parts = urlsplit(url)
            client.connect(parts.hostname, parts.port)
            client.loop_start()
            self._clients.append(client)

    def publish(self, batch, qos=1, content_type=None):
        """Publish to all; returns when every broker has all of it."""
        given = []
        for topic, payload in batch:
            for client in self._clients:
                properties = None
                if client.protocol == paho.MQTTv5 and content_type is not None:
                    properties = Properties(PacketTypes.PUBLISH)
                    properties.ContentType = content_type
                given.append(client.publish(topic, payload, qos, properties=properties))
                self.sent[topic, payload] += 1
        until(
            lambda: all(info.is_published() for info in given) or self.cut(),
            lambda: f"no PUBACK on one of {batch!r:.2000}",
        )
        assert not self.cut(), f"a broker cut us off ({self.cut()}) on one of {batch!r:.2000}"

    def cut(self):
        return [reason for client in self._clients for reason in client.cut]

    def close(self):
        for client in self._clients:
            client.disconnect()
            client.loop_stop()


@pytest.fixture(scope="module")
def world(make_module_stack, start_module_process):
    """Kafka, Redis, the brokers (a shard each, in order), uplink, worker, and a car on every broker."""
    need_mosquitto()
    started, others = [], External()
    for kind in BROKERS:
        _, each = make_module_stack(mqtt=kind, partitions=PARTITIONS, external=others)
        started.append(each)
        others = External(kafka=each.kafka, redis=each.redis)
    endpoints = SimpleNamespace(
        kafka=others.kafka,
        redis=others.redis,
        mqtt=tuple(url for each in started for url in each.mqtt),
    )
    world = SimpleNamespace(
        endpoints=endpoints,
        redis=redis.from_url(endpoints.redis),
        uplink=start_module_process("uplink", endpoints),
        worker=start_module_process("worker", endpoints),
        cars=Cars(endpoints.mqtt),
    )
    yield world
    world.cars.close()


def account(world, what):
    """Wait until the uplink has nothing under way; its metrics, in which the account is even."""

    def even():
        world.uplink.check()
        found = world.uplink.metrics()
        return found if found["cartwin_uplink_in_flight"] == 0 and is_even(found) else None

    return until(even, lambda: f"not even: {what()!r:.3000}\n{world.uplink.metrics()}")


def is_even(found):
    produced = found["cartwin_uplink_produced_total"]
    return (
        found["cartwin_uplink_received_total"] == produced + found["cartwin_uplink_rejected_total"]
    )


def good_messages_get_through(world):
    """A car on each partition is born, reports and sends; uplink and worker are as they were."""
    number = itertools.count()
    for partition in range(PARTITIONS):
        vehicle_id = next(
            name
            for name in (f"good-{now_ms()}-{n}" for n in number)
            if partition_of(name.encode(), PARTITIONS) == partition
        )
        car = Car(vehicle_id, {"fleet": "good"})
        car.connect(now_ms())
        said = [*car.connected(now_ms()), car.telemetry(now_ms(), {"speed": 12.5})]
        world.cars.publish([(message.topic, message.payload) for message in said])

        def complete(vehicle_id=vehicle_id):
            world.worker.check()
            shown = world.redis.get(keys.twin(vehicle_id))
            twin = orjson.loads(keys.document_of(shown)) if shown else None
            return (
                twin
                and twin["presence"]["state"] == "online"
                and twin["config"]
                and twin["reported"].get("speed", {}).get("v") == 12.5
            )

        until(complete, f"good messages on partition {partition} do not reach the twin")
    for process in (world.uplink, world.worker):
        assert process.get("/readyz")[0] == 200, process.get("/readyz")
    assert world.uplink.metrics()["cartwin_uplink_reconnects_total"] == 0


def test_each_message_is_a_record_or_rejected_with_a_reason(world, record_property):
    """received = sent = produced + rejected; rejected records carry reason and original bytes."""
    end = time.monotonic() + BUDGET_S
    examples = 0

    @ROUND
    @given(batches, st.sampled_from([1, 1, 2]), content_types)
    def fuzz(batch, qos, content_type):
        nonlocal examples
        examples += 1
        world.cars.publish(batch, qos, content_type)
        total = world.cars.sent.total()
        until(
            lambda: (
                world.uplink.check()
                and world.uplink.metrics()["cartwin_uplink_received_total"] == total
            ),
            lambda: f"{world.uplink.metrics()} of {total} sent, the last: {batch!r:.3000}",
        )
        account(world, lambda: batch)
        assert world.worker.check()

    fuzz()
    while time.monotonic() < end:
        fuzz()
    good_messages_get_through(world)
    found = account(world, lambda: "good messages")
    sent = world.cars.sent
    assert found["cartwin_uplink_received_total"] == sent.total()
    accepted = {
        topic: read_topic(world.endpoints.kafka, topic)
        for topic in (topics.TELEMETRY, topics.PRESENCE, topics.REPORTED, topics.OUTCOMES)
    }
    count = sum(map(len, accepted.values()))
    assert count == found["cartwin_uplink_produced_total"] > 0
    rejected = read_topic(world.endpoints.kafka, topics.REJECTED)
    reasons = check_rejected(rejected, sent, accepted)
    by_uplink = reasons["mqtt"].total()
    assert by_uplink == found["cartwin_uplink_rejected_total"] > 0
    record_property(
        "figures",
        f"MQTT fuzz: {examples} batches, {sent.total()} messages, {count} accepted,"
        f" {by_uplink} rejected by the uplink {dict(reasons['mqtt'])},"
        f" {reasons['kafka'].total()} by the worker {dict(reasons['kafka'])}",
    )


def check_rejected(rejected, sent, accepted):
    """Reason, detail and original bytes of each record; reasons by who rejected."""
    left = Counter(sent)
    places = {
        f"kafka:{record.topic()}/{record.partition()}/{record.offset()}": record.value()
        for records in accepted.values()
        for record in records
    }
    reasons = {"mqtt": Counter(), "kafka": Counter()}
    for record in rejected:
        headers = dict(record.headers())
        source, reason = headers["source"].decode(), headers["reason"].decode()
        assert reason in get_args(Reason), headers
        assert headers["detail"], headers
        assert b"Traceback" not in headers["detail"]
        assert headers["attempts"] == b"1"
        assert abs(int(headers["ingested-at"]) - now_ms()) < 600_000
        kind, _, place = source.partition(":")
        reasons[kind][reason] += 1
        if kind == "kafka":
            assert record.value() == places[source], source
            continue
        original = (place, record.value())
        if original not in left:
            # Of a message that is far too long only the beginning is kept.
            assert reason == "too_large", headers
            original = next(
                (topic, payload)
                for (topic, payload), count in left.items()
                if count and topic == place and payload.startswith(record.value())
            )
        assert left[original] > 0, f"rejected more often than sent: {original!r:.300}"
        left[original] -= 1
    return reasons


def test_topics_that_are_no_text_harm_nobody(world):
    """Raw bytes as topic: the broker may cut the car off; what it hands on is accounted for."""
    end = time.monotonic() + 8.0
    numbers = itertools.count()

    @ROUND
    @given(
        st.sampled_from(world.endpoints.mqtt),
        raw_segments,
        st.sampled_from(LEAVES),
        st.binary(max_size=60),
    )
    def fuzz(url, segment, leaf, payload):
        topic = b"vehicles/" + segment + b"/" + leaf.encode()
        publish_raw(url, b"raw-%d" % next(numbers), topic, payload)
        assert world.uplink.check()

    fuzz()
    while time.monotonic() < end:
        fuzz()
    account(world, lambda: "raw topics")
    good_messages_get_through(world)
    account(world, lambda: "good messages")


def publish_raw(url, client_id, topic, payload):
    """CONNECT, PUBLISH at QoS 1, DISCONNECT as MQTT 3.1.1 bytes; read until the broker closes."""

    def frame(first, body):
        length, digits = len(body), bytearray()
        while True:
            length, digit = divmod(length, 128)
            digits.append(digit | (0x80 if length else 0))
            if not length:
                return bytes([first]) + bytes(digits) + body

    def text(data):
        return struct.pack(">H", len(data)) + data

    connect = frame(0x10, text(b"MQTT") + b"\x04\x02\x00\x1e" + text(client_id))
    publish = frame(0x32, text(topic) + b"\x00\x01" + payload)
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as connection:
        connection.sendall(connect + publish + frame(0xE0, b""))
        try:
            while connection.recv(4096):
                pass
        except ConnectionResetError:
            pass
