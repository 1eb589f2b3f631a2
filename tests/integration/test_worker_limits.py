"""What a real worker is set to by its environment is what it decides by."""

import time

import orjson
import pytest
import redis

from tests.kafka_log import read_topic
from tests.processes import Process, until
from tests.stacks import make_module_stack
from twin.kit import kafka
from twin.wire import codec, ids, keys, topics
from twin.wire.telemetry import Telemetry

__all__ = ["make_module_stack"]

pytestmark = pytest.mark.integration

SETTINGS = {
    "AUTO_CREATE": "false",
    "OPEN_COMMANDS_MAX": "1",
    "DEPTH_MAX": "2",
    "DESIRED_TTL_S": "1",
    "COMMAND_TTL_S": "90",
}
CAR = "car-1"


def now_ms():
    return time.time_ns() // 1_000_000


def test_settings_of_the_environment_are_what_is_decided_by(make_module_stack, tmp_path):
    """No twin by telemetry; one by attributes; a second open command, a deep property are refused."""
    _, endpoints = make_module_stack(partitions=4, mqtt="amqtt")
    view = redis.from_url(endpoints.redis)
    producer = kafka.producer(endpoints.kafka, "test")
    worker = Process("worker", endpoints, tmp_path, **SETTINGS)
    worker.start()

    def ask(kind, body):
        name = f"r{time.time_ns()}"
        record = {"request_id": name, "kind": kind, "vehicle_id": CAR, "at": now_ms(), "by": "ann"}
        producer.produce(topics.REQUESTS, codec.dump({**record, "body": body}), CAR)
        assert producer.flush(30) == 0
        return orjson.loads(until(lambda: view.get(f"reply:{name}"), f"no reply to {kind}"))

    def twin():
        value = view.get(keys.twin(CAR))
        return orjson.loads(keys.document_of(value)) if value else None

    def command(seed):
        return {"id": ids.command_id(CAR, now_ms(), seed), "name": "ping", "args": {}}

    try:
        record = Telemetry(CAR, now_ms(), 1, 1, {"speed": 1.0})
        producer.produce(topics.TELEMETRY, codec.encode_telemetry(record), CAR)
        assert producer.flush(30) == 0
        refused = until(lambda: list(read_topic(endpoints.kafka, topics.REJECTED)), "not rejected")
        assert [dict(one.headers())["reason"] for one in refused] == [b"unknown_vehicle"]
        assert twin() is None
        assert ask("attributes", {"value": {"fleet": "berlin"}})["status"] == 201
        made = ask("command", command("a"))
        assert made["status"] == 201
        assert ask("command", command("b"))["code"] == "too_many_open_commands"
        deep = ask("desired", {"op": "patch", "value": {"a": {"b": {"c": 1}}}})
        assert deep["code"] == "too_deep"
        assert ask("desired", {"op": "patch", "value": {"a": {"b": 1}}})["status"] == 200
        until(
            lambda: twin()["desired"]["status"]["a"]["state"] == "expired",
            "what is desired does not expire",
        )
        entry = orjson.loads(view.get(keys.command(made["body"]["id"])))
        assert entry["expires_at"] - entry["issued_at"] == 90_000
    finally:
        code = worker.stop()
    assert code == 0
