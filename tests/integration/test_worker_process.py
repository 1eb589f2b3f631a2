"""The twin worker as a process on real Kafka and Redis: what it promises when it is killed."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import orjson
import pytest
import redis

from tests.kafka_log import read_topic
from tests.processes import Process, until
from tests.stacks import make_module_stack
from twin.kit import kafka as kit_kafka
from twin.wire import codec, ids, keys, topics
from twin.wire.partition import partition_of
from twin.wire.telemetry import Telemetry

__all__ = ["make_module_stack"]

pytestmark = pytest.mark.integration


class Bench:
    """One Kafka and Redis with a worker that can be killed and started again."""

    def __init__(self, endpoints, log_dir):
        self.redis = redis.from_url(endpoints.redis)
        self.producer = kit_kafka.producer(endpoints.kafka, "test")
        self.worker = Process("worker", endpoints, log_dir, WORKER_ID="worker-0")
        self.kafka = endpoints.kafka

    def start(self):
        """A worker that runs, if there is none."""
        if self.worker.child is None or self.worker.child.exit_code() is not None:
            self.worker.start()

    def kill(self):
        """And another one in its place."""
        self.worker.kill()
        self.worker.start()

    def send(self, topic, key, value, headers=None):
        self.producer.produce(topic, value, key, headers=headers or [])
        self.producer.poll(0)

    def telemetry(self, vehicle_id, sequence, **signals):
        now = time.time_ns() // 1_000_000
        record = Telemetry(vehicle_id, now, 1, sequence, signals or {"speed": float(sequence % 50)})
        self.send(topics.TELEMETRY, vehicle_id, codec.encode_telemetry(record))
        return now

    def request(self, request_id, vehicle_id, kind, body, **more):
        now = time.time_ns() // 1_000_000
        record = {
            "request_id": request_id,
            "kind": kind,
            "vehicle_id": vehicle_id,
            "at": now,
            "by": "test",
            "body": body,
            **more,
        }
        self.send(topics.REQUESTS, vehicle_id, codec.dump(record))
        self.producer.flush()
        reply = until(lambda: self.redis.get(f"reply:{request_id}"), f"no reply to {request_id}")
        return orjson.loads(reply)

    def presence(self, vehicle_id, state, session):
        record = {
            "vehicle_id": vehicle_id,
            "state": state,
            "session": session,
            "at": session,
            "shard": 0,
            "attributes": {"fleet": "berlin"},
        }
        self.send(topics.PRESENCE, vehicle_id, codec.dump(record))

    def twin(self, vehicle_id):
        value = self.redis.get(keys.twin(vehicle_id))
        return orjson.loads(keys.document_of(value)) if value else None

    def not_ready(self):
        """Why the worker is not ready."""
        status, text = self.worker.get("/readyz")
        return orjson.loads(text)["why"] if status else {"answer": text}

    @contextlib.contextmanager
    def hanging_redis(self) -> Iterator[None]:
        """Redis takes connections and answers nothing."""
        server = self.redis.info("server")["process_id"]
        os.kill(server, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(server, signal.SIGCONT)

    def changelog(self, vehicle_id):
        """Documents of a car."""
        return [twin for twin in self.read("twins") if twin["vehicle_id"] == vehicle_id]

    def read(self, topic):
        """The records of a topic, as JSON and without tombstones, from the oldest on."""
        return [orjson.loads(r.value()) for r in read_topic(self.kafka, topic) if r.value()]


@pytest.fixture(scope="module")
def module_bench(make_module_stack, tmp_path_factory):
    _, endpoints = make_module_stack(partitions=4, mqtt="amqtt")
    made = Bench(endpoints, tmp_path_factory.mktemp("logs"))
    yield made
    made.worker.stop()


@pytest.fixture
def bench(module_bench):
    """The module's Kafka and Redis with a running worker; tests keep apart by their vehicle ids."""
    module_bench.start()
    return module_bench


@pytest.mark.deep
def test_kills_under_load_lose_nothing_and_apply_nothing_twice(bench):
    """Revisions equal records per car after SIGKILLs in the middle of a stream.

    At each step of law 4, and with every consequence: tests/integration/test_worker_kills.py.
    """
    cars, rounds, kills = 20, 300, 3
    sequence = 0
    for part in range(kills + 1):
        for _ in range(rounds // (kills + 1)):
            sequence += 1
            for car in range(cars):
                bench.telemetry(f"car-{car}", sequence, speed=float(sequence % 50) + 0.5 * car)
            bench.producer.poll(0.002)
        bench.producer.flush()
        if part < kills:
            # Killed while it is at work: some of this part is applied, some is not.
            until(
                lambda s=sequence: (bench.twin("car-0") or {}).get("revision", 0) > s // 2,
                "no start",
            )
            bench.kill()
    last = {f"car-{car}": sequence for car in range(cars)}
    until(
        lambda: all((bench.twin(v) or {"reported": {"speed": {"s": 0}}})["reported"]["speed"]["s"] == s
                    for v, s in last.items()),
        "not every last message is applied",
    )  # fmt: skip
    for vehicle_id in last:
        twin = bench.twin(vehicle_id)
        assert twin["revision"] == sequence, vehicle_id
        partition = partition_of(vehicle_id.encode(), 4)
        assert twin["applied"]["telemetry"][0] == partition
    # What was told and not committed is told again after a kill: the same bytes under the same id.
    told = {}
    for record in read_topic(bench.kafka, "changes"):
        assert told.setdefault(orjson.loads(record.value())["id"], record.value()) == record.value()
    changes = map(orjson.loads, told.values())
    created = [c["vehicle_id"] for c in changes if c["kind"] == "created"]
    assert sorted(v for v in created if v in last) == sorted(last)
    assert bench.worker.stop() == 0


def test_a_command_goes_its_way_and_every_step_is_told(bench):
    """queued -> sent -> delivered -> succeeded, in Redis, ledger and downlink, under one id."""
    bench.telemetry("cmd-1", 1)
    bench.presence("cmd-1", "online", 1_790_000_000_000)
    bench.producer.flush()
    until(
        lambda: (bench.twin("cmd-1") or {}).get("presence", {}).get("state") == "online",
        "not online",
    )
    command_id = ids.command_id("cmd-1", time.time_ns() // 1_000_000, "x")
    body = {"id": command_id, "name": "ping", "args": {}, "ttl_s": 60, "lane": "default"}
    reply = bench.request("cmd-1-r1", "cmd-1", "command", body)
    assert reply["status"] == 201
    downlinks = until(lambda: bench.read("downlink"), "nothing for the car")
    downlink = downlinks[-1]
    assert (downlink["kind"], downlink["payload"]["id"]) == ("command", command_id)
    delivery = {
        "id": downlink["id"], "kind": "command", "vehicle_id": "cmd-1", "ref": command_id,
        "session": downlink["session"], "state": "sent", "at": 1,
    }  # fmt: skip
    bench.send(topics.DELIVERIES, "cmd-1", codec.dump(delivery))
    for state in ("received", "accepted", "running", "succeeded"):
        outcome = {"vehicle_id": "cmd-1", "command_id": command_id, "state": state, "at": 2}
        bench.send(topics.OUTCOMES, "cmd-1", codec.dump(outcome))
    bench.producer.flush()

    def final():
        entry = orjson.loads(bench.redis.get(f"command:{command_id}"))
        return entry if entry["state"] == "succeeded" else None

    entry = until(final, "the command did not succeed")
    # Deliveries and outcomes are two topics: which is read first is open, the order of states is not.
    states = [step["state"] for step in entry["history"]]
    assert states in (
        ["queued", "sent", "delivered", "accepted", "running", "succeeded"],
        ["queued", "delivered", "accepted", "running", "succeeded"],
    )
    assert [e for e in bench.read("ledger") if e["id"] == command_id][-1] == entry
    assert bench.twin("cmd-1")["commands"]["open"] == []


def test_a_restart_restores_twins_ledger_and_view_from_kafka(bench):
    """With Redis emptied and the worker new, everything is there again from the changelogs."""
    bench.telemetry("old-1", 1, speed=7.5)
    bench.producer.flush()
    until(lambda: bench.twin("old-1"), "no twin")
    body = {"id": ids.command_id("old-1", 10**12, "y"), "name": "ping", "args": {}, "ttl_s": 60}
    more = {"idempotency_key": "k", "body_hash": "h"}
    first = bench.request("old-1-r1", "old-1", "command", {**body, "lane": "default"}, **more)
    bench.worker.kill()
    bench.redis.flushall()
    bench.start()
    twin = until(lambda: bench.twin("old-1"), "the view was not rebuilt")
    assert twin["reported"]["speed"]["v"] == 7.5
    first_ones = {twin["vehicle_id"] for twin in bench.read("twins")}
    until(
        lambda: bench.redis.zcard("ids") == len(bench.redis.keys("twin:*")) == len(first_ones),
        "not all twins are shown again",
    )
    counted = bench.redis.zrange(keys.count("presence"), 0, -1, withscores=True)
    assert sum(number for _, number in counted) == len(first_ones)
    again = {**body, "id": ids.command_id("old-1", 10**12, "z"), "lane": "default"}
    second = bench.request("old-1-r2", "old-1", "command", again, **more)
    assert second["body"]["id"] == first["body"]["id"]
    other = bench.request(
        "old-1-r3", "old-1", "command", again, idempotency_key="k", body_hash="other"
    )
    assert (other["status"], other["code"]) == (409, "idempotency_conflict")


def test_a_deadline_comes_back_as_a_record_even_after_a_restart(bench):
    """A command expires although the worker was killed before its time came."""
    bench.telemetry("due-1", 1)
    bench.producer.flush()
    until(lambda: bench.twin("due-1"), "no twin")
    command_id = ids.command_id("due-1", time.time_ns() // 1_000_000, "x")
    body = {"id": command_id, "name": "ping", "args": {}, "ttl_s": 1, "lane": "default"}
    assert bench.request("due-1-r1", "due-1", "command", body)["status"] == 201
    bench.kill()

    def expired():
        entry = bench.redis.get(f"command:{command_id}")
        return entry and orjson.loads(entry)["state"] == "expired"

    until(expired, "the command did not expire")
    requests = bench.read("requests")
    assert any(r["kind"] == "deadline" and r["body"]["ref"] == command_id for r in requests)


def test_the_view_waits_for_redis_and_loses_nothing(bench):
    """With Redis away the worker holds back, keeps its place, and goes on by itself."""
    bench.telemetry("away-1", 1)
    bench.producer.flush()
    until(lambda: bench.twin("away-1"), "no twin")
    with bench.hanging_redis():
        for sequence in range(2, 30):
            bench.telemetry("away-1", sequence)
        bench.producer.flush()
        until(lambda: "redis" in bench.not_ready(), "readiness does not name Redis")
    until(lambda: bench.not_ready() == {}, "not ready again")
    until(lambda: bench.twin("away-1")["revision"] == 29, "not all came after Redis was back")


def test_a_worker_that_is_told_to_stop_ends_although_redis_hangs(bench):
    """What it could not show is not committed, so the next one shows it."""
    bench.telemetry("hang-1", 1)
    bench.producer.flush()
    until(lambda: bench.twin("hang-1"), "no twin")
    with bench.hanging_redis():
        bench.telemetry("hang-1", 2)
        bench.producer.flush()
        # Durable, so it is about to be shown.
        until(lambda: bench.changelog("hang-1")[-1]["revision"] == 2, "not decided")
        assert bench.worker.stop() is not None, bench.worker.child.obituary()
    bench.start()
    until(lambda: bench.twin("hang-1")["revision"] == 2, "what was in hand is lost")
