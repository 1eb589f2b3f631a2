"""The Locust fleet on real brokers: connect, send, acknowledge, answer, reconnect, say goodbye."""

import json
import os
import queue
import signal
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
CARS = 20
VEHICLES = [f"car-{number:06d}" for number in range(1, CARS + 1)]


class Cloud:
    """A client that hears everything the cars say, and can speak to them."""

    def __init__(self, url):
        parts = urlsplit(url)
        self.address = (parts.hostname, parts.port)
        self.heard = defaultdict(list)
        self._inbox = queue.SimpleQueue()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, f"cloud-{uuid.uuid4()}")
        subscribed = queue.SimpleQueue()
        self._client.on_subscribe = lambda *_: subscribed.put(True)
        self._client.on_message = lambda _c, _u, message: self._inbox.put(message)
        self._client.connect(*self.address)
        self._client.loop_start()
        self._client.subscribe([(f"vehicles/car-{n:06d}/#", 1) for n in range(1, CARS + 1)])
        subscribed.get(timeout=20)

    def until(self, condition, what, seconds=60):
        """Take messages until the condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"not within {seconds} s: {what}")
            try:
                message = self._inbox.get(timeout=0.2)
            except queue.Empty:
                continue
            if message.payload:
                record = json.loads(message.payload)
                self.heard[message.topic].append({**record, "retained": message.retain})

    def of(self, vehicle, leaf):
        """What a car said on one topic, retained messages of earlier runs left out."""
        return [m for m in self.heard[f"vehicles/{vehicle}/{leaf}"] if not m["retained"]]

    def states(self, vehicle, command_id):
        """Outcomes of a command, in order."""
        return [o["state"] for o in self.of(vehicle, "outcomes") if o["command_id"] == command_id]

    def say(self, vehicle, leaf, record, retain=False):
        payload = json.dumps(record) if record else b""
        info = self._client.publish(f"vehicles/{vehicle}/{leaf}", payload, 1, retain)
        info.wait_for_publish(20)

    def command(self, vehicle, name, args=None, ttl_ms=60_000):
        command_id = f"{vehicle}.{uuid.uuid4().hex[:26].upper()}"
        now = time.time_ns() // 1_000_000
        times = {"issued_at": now, "expires_at": now + ttl_ms}
        record = {"id": command_id, "name": name, "args": args or {}, "lane": "default", **times}
        self.say(vehicle, "commands", record)
        return command_id

    def close(self):
        for vehicle in VEHICLES:
            self.say(vehicle, "status", None, retain=True)
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def locust(url, log, *arguments):
    command = [
        sys.executable, "-m", "locust", "-f", str(ROOT / "load-test" / "locustfile.py"), "--headless",
        "--host", url, "-u", str(CARS), "-r", "20", "--run-time", "120s", "--only-summary",
        "--exit-code-on-error", "0", "--cars-log", str(log), *arguments,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    output = log.parent / "locust.txt"
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def lines(log):
    return [
        json.loads(line) for path in log.glob("*.jsonl") for line in path.read_text().splitlines()
    ]


def numbers(log, event):
    return [(r["v"], r["session"], r["sequence"]) for r in lines(log) if r["e"] == event]


@pytest.mark.parametrize("broker", ["mosquitto", "amqtt"])
def test_a_fleet_drives_answers_and_says_goodbye(broker, request, tmp_path):
    """20 cars: every message is acknowledged and arrives, commands get outcomes, all say goodbye."""
    url, log = request.getfixturevalue(broker), tmp_path / "log"
    cloud = Cloud(url)
    try:
        with locust(url, log, "--linger-s", "1", "--interval", "0.5") as process:
            _converse(cloud)
            _reconnect(cloud)
            process.send_signal(signal.SIGTERM)
            cloud.until(
                lambda: all(cloud.of(v, "status")[-1]["state"] == "offline" for v in VEHICLES),
                "every car says goodbye",
            )
            assert process.wait(timeout=60) == 0
        _check_accounts(cloud, log)
    finally:
        cloud.close()


def _converse(cloud):
    cloud.until(
        lambda: all(len(cloud.of(v, "telemetry")) >= 2 for v in VEHICLES), "every car sends"
    )
    for vehicle in VEHICLES:
        birth, reported = cloud.of(vehicle, "status")[0], cloud.of(vehicle, "reported")[0]
        assert (birth["state"], birth["attributes"]["firmware"]) == ("online", "2000")
        assert reported["properties"] == {"telemetry_interval_s": 0.5}
        first = cloud.of(vehicle, "telemetry")[0]
        assert (first["session"], first["sequence"]) == (birth["session"], 1)
        assert first["coolant_temp"] > -50
    pings = {vehicle: cloud.command(vehicle, "ping") for vehicle in VEHICLES}
    limit = cloud.command(VEHICLES[0], "limit_power", {"factor": 0.5})
    unknown = cloud.command(VEHICLES[1], "fly")
    expired = cloud.command(VEHICLES[2], "ping", ttl_ms=-1)
    cloud.say(VEHICLES[3], "desired", {"version": 1, "delta": {"telemetry_interval_s": 0.2}})
    path = ["received", "accepted", "running", "succeeded"]
    slow = ["received", "accepted", "running", "running", "succeeded"]
    cloud.until(
        lambda: (
            all(cloud.states(vehicle, ping) == path for vehicle, ping in pings.items())
            and cloud.states(VEHICLES[0], limit) == slow
            and cloud.states(VEHICLES[1], unknown) == ["rejected"]
            and cloud.states(VEHICLES[2], expired) == ["rejected"]
            and cloud.of(VEHICLES[3], "reported")[-1].get("desired_version") == 1
        ),
        "every command has its outcomes",
    )
    assert cloud.of(VEHICLES[2], "outcomes")[-1]["reason"] == "expired"
    assert cloud.of(VEHICLES[3], "reported")[-1]["properties"] == {"telemetry_interval_s": 0.2}


def _reconnect(cloud):
    """Take a car's connection away by its client id; it comes back as a new session."""
    vehicle = VEHICLES[4]
    before = cloud.of(vehicle, "telemetry")[-1]["session"]
    taken = queue.SimpleQueue()
    thief = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, vehicle, reconnect_on_failure=False)
    thief.on_connect = lambda *_: taken.put(True)
    thief.connect(*cloud.address)
    thief.loop_start()
    taken.get(timeout=20)
    thief.disconnect()
    thief.loop_stop()
    cloud.until(
        lambda: cloud.of(vehicle, "telemetry")[-1]["session"] > before, "the car comes back"
    )
    after = cloud.of(vehicle, "telemetry")[-1]["session"]
    new = [t for t in cloud.of(vehicle, "telemetry") if t["session"] == after]
    assert new[0]["sequence"] == 1
    assert cloud.of(vehicle, "status")[-1]["session"] == after
    ping = cloud.command(vehicle, "ping")
    cloud.until(lambda: "succeeded" in cloud.states(vehicle, ping), "it answers again")


def _check_accounts(cloud, log):
    sent, acked = numbers(log, "sent"), numbers(log, "acked")
    assert len(sent) == len(set(sent)) > 2 * CARS
    assert set(acked) == set(sent)
    heard = {(v, t["session"], t["sequence"]) for v in VEHICLES for t in cloud.of(v, "telemetry")}
    assert heard == set(sent)
    for vehicle in VEHICLES:
        assert "at" in cloud.of(vehicle, "status")[-1], "a goodbye, not a will"
    truths = [record["v"] for record in lines(log) if record["e"] == "truth"]
    assert sorted(truths) == VEHICLES
    commands = {(r["v"], r["id"], r["state"]) for r in lines(log) if r["e"] == "command"}
    assert commands == {
        (v, o["command_id"], o["state"]) for v in VEHICLES for o in cloud.of(v, "outcomes")
    }


def test_a_wrong_option_ends_the_fleet_with_one_sentence(tmp_path):
    """More degraded cars than cars: exit code 2, the option's name, no stack trace."""
    log = tmp_path / "log"
    with locust("mqtt://127.0.0.1:1", log, "--degraded", "21") as process:
        assert process.wait(timeout=60) == 2
    text = (tmp_path / "locust.txt").read_text()
    assert "--degraded '21'" in text
    assert "Traceback" not in text


def test_users_beyond_the_cars_of_a_process_do_not_drive(amqtt, tmp_path):
    """With --cars 2 of 20 users two drive; the others end with one sentence."""
    log = tmp_path / "log"
    arguments = ("--cars", "2", "--linger-s", "0", "--run-time", "3s")
    with locust(amqtt, log, *arguments) as process:
        assert process.wait(timeout=60) == 0
    assert sorted(r["v"] for r in lines(log) if r["e"] == "connect") == VEHICLES[:2]
    text = (tmp_path / "locust.txt").read_text()
    assert "no car is left" in text
    assert "Traceback" not in text


def test_a_broker_that_does_not_answer_is_named(tmp_path):
    """The report says which address does not answer, and the exit code is not 0."""
    arguments = ("--run-time", "2s", "--exit-code-on-error", "1")
    with locust("mqtt://127.0.0.1:1", tmp_path / "log", *arguments) as process:
        assert process.wait(timeout=60) == 1
    text = (tmp_path / "locust.txt").read_text()
    assert "no MQTT broker answers at mqtt://127.0.0.1:1" in text
    assert "Traceback" not in text
