"""A worker that is behind: what it has not read yet is no silence of the cars."""

import time
from collections import Counter

import orjson
import pytest

from tests.processes import until
from tests.worker_records import read
from tests.workers import PARTITIONS, Scene, make_module_stack, scene, servers
from twin.kit import kafka
from twin.wire import codec, topics
from twin.wire.telemetry import Telemetry

pytestmark = pytest.mark.integration

__all__ = ["make_module_stack", "scene", "servers"]

CARS = 3_000
STALE_S = 300
EVERY_MS = 240_000
ROUNDS = 12


def backlog(bootstrap):
    """Births of an hour ago and telemetry of each car until now, never silent for as long as STALE_S."""
    producer = kafka.producer(bootstrap, "backlog")
    now = time.time_ns() // 1_000_000
    cars = [f"behind-{number}" for number in range(CARS)]
    for number in range(ROUNDS + 1):
        at = now - (ROUNDS - number) * EVERY_MS
        for car in cars:
            if number == 0:
                birth = {"vehicle_id": car, "state": "online", "session": 1, "at": at, "shard": 0}
                topic, value = topics.PRESENCE, orjson.dumps(birth)
            else:
                topic = topics.TELEMETRY
                value = codec.encode_telemetry(Telemetry(car, at, 1, number, {"speed": 1.0}))
            headers = [("ingested-at", b"%d" % at)]
            producer.produce(topic, value, car, headers=headers, timestamp=at)
            producer.poll(0)
    assert producer.flush(60) == 0
    return cars


def states(bootstrap, cars):
    """How often which presence was told of these cars."""
    known = set(cars)
    return Counter(
        record.fields["what"]["state"]
        for record in read(bootstrap, (topics.CHANGES,))
        if record.fields["kind"] == "presence" and record.fields["vehicle_id"] in known
    )


def test_cars_whose_telemetry_waits_in_kafka_are_not_told_stale(scene: Scene):
    """An hour's backlog: all online, once; none stale, though the clock alone says so of each."""
    bootstrap = scene.endpoints.kafka
    cars = backlog(bootstrap)
    worker = scene.worker("behind", STALE_AFTER_S=str(STALE_S), BATCH_RECORDS="500")
    worker.start()
    until(lambda: worker.serves() == list(range(PARTITIONS)), lambda: worker.words)
    scene.settle()
    assert states(bootstrap, cars) == {"online": CARS}
    assert worker.stop() == 0, worker.words
