"""Faults under load: services are killed and Kafka is frozen while cars drive; nothing may be lost.

The accounts are those of `load-test/verdict.py`, which shares no code with the services: the cars'
own logs against Kafka against the twins. Faults follow progress, not the clock: each one waits until
the process that it hits is at work.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
import redis

import verdict
from tests.kafka_log import read_topic
from tests.processes import until
from tests.stacks import need_mosquitto
from twin.kit import kafka as kit_kafka
from twin.local.process import tail
from twin.wire import codec, ids, topics

pytestmark = [pytest.mark.deep, pytest.mark.timeout(420)]

ROOT = Path(__file__).parents[2]
CARS = 50
VEHICLES = [f"car-{number:06d}" for number in range(1, CARS + 1)]
AT_WORK = 1000
"""Messages that a process has dealt with since its start when it is hit; the cars send 200 a second."""
FREEZE_S = 10
"""How long Kafka is stopped: a fault's length, nothing is waited for by it."""

# What the verdict misses in a run without degraded cars, models and rules, and only that.
EXPECTED_PROBLEMS = ("no command was decided by a rule", "0 of 0 cars that failed")


class Fleet:
    """Locust cars at QoS 1, four messages a second each."""

    def __init__(self, mqtt, folder):
        self.log = folder / "cars"
        self.output = folder / "locust.txt"
        command = [
            sys.executable, "-m", "locust", "-f", str(ROOT / "load-test" / "locustfile.py"),
            "--headless", "--host", mqtt, "-u", str(CARS), "-r", "25", "--run-time", "360s",
            "--only-summary", "--exit-code-on-error", "0", "--interval", "0.25", "--linger-s", "1",
            "--cars-log", str(self.log),
        ]  # fmt: skip
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(
                command, stdout=file, stderr=file, env={**os.environ, "PYTHONPATH": str(ROOT)}
            )

    def end(self):
        """All cars say goodbye and wait for their PUBACKs."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(90) == 0, self.output.read_text()[-3000:]

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Loop:
    """Uplink, downlink and worker on one broker, and what is done to them."""

    def __init__(self, stack, endpoints, start):
        (self._kafka,) = [child.pid for child in stack.children() if child.name == "kafka"]
        self.bootstrap = endpoints.kafka
        self.redis = redis.from_url(endpoints.redis)
        self.uplink = start("uplink", endpoints)
        self.downlink = start("downlink", endpoints)
        # Under a stable name it gets its partitions back at once, as a pod of a StatefulSet does.
        self.worker = start("worker", endpoints, WORKER_ID="worker-0")

    def count(self, field, value):
        return int(self.redis.zscore(f"count:{field}", value) or 0)

    def wait(self, condition, what):
        """Wait for a condition; nobody but us may end a process meanwhile."""
        until(
            lambda: all(process.check() for process in self.all) and condition(),
            lambda: f"{what}\n" + "\n".join(f"{p.name}: {tail(p.child.log)}" for p in self.all),
        )

    @property
    def all(self):
        return (self.uplink, self.downlink, self.worker)

    def at_work(self, process, metric):
        self.wait(lambda: process.metrics()[metric] > AT_WORK, f"{process.name} does not work")

    def kill_uplink(self):
        """SIGKILL while messages pass through it."""
        self.at_work(self.uplink, "cartwin_uplink_produced_total")
        self.uplink.kill()
        self.uplink.start()

    def kill_worker(self):
        """SIGKILL while it applies records."""
        self.at_work(self.worker, "cartwin_twin_applied_total")
        self.worker.kill()
        self.worker.start()

    def freeze_kafka(self):
        """SIGSTOP for a while; the uplink is killed in the middle of it, holding messages."""
        self.at_work(self.uplink, "cartwin_uplink_produced_total")
        os.kill(self._kafka, signal.SIGSTOP)
        try:
            frozen = time.monotonic()
            self.wait(
                lambda: self.uplink.metrics()["cartwin_uplink_in_flight"] > 100,
                "nothing waits for Kafka",
            )
            self.uplink.kill()
            self.uplink.start()
            time.sleep(max(0.0, frozen + FREEZE_S - time.monotonic()))
        finally:
            os.kill(self._kafka, signal.SIGCONT)


def ping(bootstrap):
    """Ask every twin for a command, as the API does; the command ids."""
    producer = kit_kafka.producer(bootstrap, "test")
    now = time.time_ns() // 1_000_000
    asked = []
    for vehicle_id in VEHICLES:
        command_id = ids.command_id(vehicle_id, now, "ping")
        asked.append(command_id)
        body = {"id": command_id, "name": "ping", "args": {}, "ttl_s": 600, "lane": "default"}
        request = {
            "request_id": f"{vehicle_id}-ping", "kind": "command", "vehicle_id": vehicle_id,
            "at": now, "by": "test", "body": body,
        }  # fmt: skip
        producer.produce(topics.REQUESTS, codec.dump(request), vehicle_id)
    assert producer.flush(60) == 0
    return asked


def changes(bootstrap):
    """Every change that was told, by id: kind, vehicle, what; the same id always says the same."""
    told = {}
    for record in read_topic(bootstrap, topics.CHANGES):
        change = orjson.loads(record.value())
        said = (change["kind"], change["vehicle_id"], change["what"])
        assert told.setdefault(change["id"], said) == said
    return told


@pytest.mark.parametrize("broker", ["mosquitto", "amqtt"])
def test_kills_and_a_frozen_kafka_lose_nothing(
    broker, make_stack, start_process, tmp_path, record_property, request
):
    """5 kills of the uplink, 3 of the worker, 10 s without Kafka: every message is in its twin."""
    if broker == "mosquitto":
        need_mosquitto()
    stack, endpoints = make_stack(mqtt=broker)
    loop = Loop(stack, endpoints, start_process)
    fleet = Fleet(endpoints.mqtt[0], tmp_path)
    request.addfinalizer(fleet.kill)
    loop.wait(lambda: loop.count("presence", "online") == CARS, "not every car is online")
    began = time.monotonic()
    loop.kill_uplink()
    loop.kill_worker()
    loop.kill_uplink()
    pings = ping(endpoints.kafka)
    loop.freeze_kafka()
    loop.kill_worker()
    loop.kill_uplink()
    loop.kill_worker()
    loop.kill_uplink()
    loop.uplink.ready()
    loop.worker.ready()
    seconds = time.monotonic() - began
    assert (loop.uplink.starts, loop.worker.starts) == (6, 4)
    loop.wait(
        lambda: all(
            b'"state":"succeeded"' in (loop.redis.get(f"command:{c}") or b"") for c in pings
        ),
        "not every command succeeded",
    )
    fleet.end()
    line = account(fleet.log, endpoints.kafka)
    figures = ("sent", "acknowledged", "kafka", "duplicates", "lost")
    numbers = ", ".join(f"{name} {line[name]}" for name in figures)
    record_property("figures", f"{broker}, {seconds:.0f} s of faults: {numbers}")
    assert line["lost"] == 0
    assert line["applied"] == line["kafka"] >= line["acknowledged"] == line["sent"] > 20 * CARS
    assert line["rejected"] == 0
    assert line["connected"] == line["twins"] == CARS
    assert line["commands"] == {"succeeded": CARS}
    # Among them would be: a value of a twin that differs from the checker's own fold of the log.
    assert [p for p in line["problems"] if not p.startswith(EXPECTED_PROBLEMS)] == []
    loop.wait(lambda: loop.count("presence", "offline") == CARS, "a goodbye is lost")
    created = [
        vehicle for kind, vehicle, _ in changes(endpoints.kafka).values() if kind == "created"
    ]
    assert sorted(created) == VEHICLES
    for process in loop.all:
        assert process.stop() == 0, process.name


def account(log, bootstrap):
    """The verdict as soon as everything that arrived is applied, or when time is over."""
    lines = []

    def settled():
        lines[:] = [verdict.judge(log, bootstrap, verdict.SCHEMA, 0)]
        return lines[0]["lost"] == 0 and lines[0]["applied"] == lines[0]["kafka"]

    # What is still missing then is asserted, and shown, by the caller.
    with contextlib.suppress(AssertionError):
        until(settled, "not settled")
    return lines[0]
