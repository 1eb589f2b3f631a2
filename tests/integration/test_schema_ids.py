"""Uplink and worker with a schema registry and without, in every mixture, on real Kafka."""

import time

import orjson
import paho.mqtt.client as paho
import pytest
import redis

from tests.fake_registry import FIRST_ID, fake_registry
from tests.kafka_log import read_topic
from tests.processes import Process, until
from tests.stacks import make_stack
from twin.wire import keys, topics

__all__ = ["make_stack"]

pytestmark = pytest.mark.integration

CAR = "car-ids"


@pytest.fixture
def world(make_stack, tmp_path):
    """A registry, the servers, and the processes that `start` has started."""
    pytest.importorskip("confluent_kafka.schema_registry", exc_type=ImportError)
    _, endpoints = make_stack(partitions=4, mqtt="amqtt")
    with fake_registry() as server:
        world = World(server, endpoints, tmp_path)
        yield world
        world.stop()


class World:
    def __init__(self, server, endpoints, folder):
        self.server = server
        self._endpoints = endpoints
        self._folder = folder
        self._running = {}
        self._redis = redis.from_url(endpoints.redis)

    def start(self, name, **told):
        """In the place of the one that runs, if any; waits until it is ready."""
        self.stop(name)
        folder = self._folder / f"{name}-{len(list(self._folder.iterdir()))}"
        folder.mkdir()
        told.setdefault("WORKER_ID", "worker-0")
        made = self._running[name] = Process(name, self._endpoints, folder, **told)
        return made.start()

    def stop(self, *names):
        for name in names or list(self._running):
            if name in self._running:
                self._running.pop(name).stop()

    def say(self, sequence):
        """One message of the car, taken by the broker."""
        host, _, port = self._endpoints.mqtt[0].removeprefix("mqtt://").partition(":")
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=CAR)
        client.connect(host, int(port))
        client.loop_start()
        said = {"event_time": time.time_ns() // 1_000_000, "session": 1, "sequence": sequence}
        payload = orjson.dumps({**said, "coolant_temp": 80.0 + sequence})
        try:
            client.publish(f"vehicles/{CAR}/telemetry", payload, qos=1).wait_for_publish(60)
        finally:
            client.disconnect()
            client.loop_stop()

    def shown(self):
        """The car's coolant temperature in its twin."""
        value = self._redis.get(keys.twin(CAR))
        reported = orjson.loads(keys.document_of(value))["reported"] if value else {}
        return reported.get("coolant_temp", {}).get("v")

    def written(self):
        """The ids on Kafka, oldest first."""
        records = read_topic(self._endpoints.kafka, topics.TELEMETRY)
        return [int.from_bytes(record.value()[1:5], "big") for record in records]


def test_what_one_writes_every_other_reads(world):
    """The worker has a registry or only knows its ids; the uplink writes either."""
    there = {"SCHEMA_REGISTRY_URL": world.server.url}
    world.server.fault = (503, "leader is away")
    uplink = world.start("uplink", **there)
    until(lambda: "leader is away" in uplink.get("/readyz")[1], "not ready with the reason")
    world.server.fault = None
    uplink.ready()
    world.start("worker", **there).ready()
    world.say(1)
    until(lambda: world.shown() == 81.0, "both with a registry")
    world.start("uplink").ready()
    world.say(2)
    until(lambda: world.shown() == 82.0, "the worker with a registry, the uplink without")
    world.start("worker", SCHEMA_IDS=f"{FIRST_ID}=telemetry-v1").ready()
    world.say(3)
    until(lambda: world.shown() == 83.0, "both without a registry")
    world.start("uplink", **there).ready()
    world.say(4)
    until(lambda: world.shown() == 84.0, "the worker without a registry, the uplink with")
    assert world.written() == [FIRST_ID, 1, 1, FIRST_ID]
