"""The independent checker on a real Kafka: what it reports is what was done to the topics."""

import json
import threading
import uuid

import orjson
import pytest
from confluent_kafka import Producer

import verdict
from twin.wire.codec import encode_telemetry
from twin.wire.telemetry import Telemetry

pytestmark = pytest.mark.integration

START = 1_790_000_000_000
MESSAGES = 5


class World:
    """A fleet of two cars, one of which fails, and everything the services would have written."""

    def __init__(self, kafka, folder):
        self.kafka = kafka
        self.folder = folder
        run = uuid.uuid4().hex[:12]
        self.healthy, self.sick = f"healthy-{run}", f"sick-{run}"
        settings = {"partitioner": "murmur2_random", "linger.ms": 1, "log_level": 0}
        self.producer = Producer({"bootstrap.servers": kafka, **settings})
        self.places = {}

    def produce(self, topic, key, value, headers=()):
        """Write one record; returns [partition, offset]."""
        placed = []
        self.producer.produce(
            topic,
            value,
            key,
            headers=list(headers),
            on_delivery=lambda error, record: placed.append((error, record)),
        )
        assert self.producer.flush(30) == 0
        ((error, record),) = placed
        assert error is None
        return [record.partition(), record.offset()]

    def record(self, topic, vehicle, value):
        return self.produce(topic, vehicle, orjson.dumps(value))

    def telemetry(self, vehicle, n):
        signals = {"coolant_temp": 90.25 + n, "tire_pressure_1_1": 30 + n}
        message = Telemetry(vehicle, START + n * 1000, START, n, signals)
        self.places[vehicle] = self.produce("telemetry", vehicle, encode_telemetry(message))

    def twin(self, vehicle):
        n = MESSAGES
        reported = {"coolant_temp": {"v": 90.25 + n}, "tire_pressure_1_1": {"v": 30 + n}}
        applied = {"telemetry": self.places[vehicle]}
        twin = {"vehicle_id": vehicle, "reported": reported, "applied": applied}
        self.record("twins", vehicle, twin)

    def decide(self):
        """An alarm of the sick car, and the command that it caused."""
        head = {"vehicle_id": self.sick, "session": START}
        score = {"id": f"{self.sick}:0-0:v1", "state": "alarm", **head}
        partition, offset = self.record("scores", self.sick, score)
        what = {"state": "alarm", "event_time": START + 3000}
        self.record("changes", self.sick, {**head, "kind": "health", "what": what})
        self.command = {
            "id": f"{self.sick}.{'0' * 26}",
            "vehicle_id": self.sick,
            "state": "sent",
            "by": "rule:limit",
            "issued_at": START + 3100,
            "cause": {
                "score": score["id"],
                "topic": "scores",
                "partition": partition,
                "offset": offset,
            },
        }
        self.ledger("sent")

    def ledger(self, state):
        key = f"{self.sick}/{self.command['id']}"
        self.produce("ledger", key, orjson.dumps({**self.command, "state": state}))

    def log(self):
        """What the cars say: everything was sent and acknowledged."""
        lines = [{"e": "command", "v": self.sick, "id": f"{self.sick}.{'0' * 26}", "t": START}]
        lines[0]["state"] = "succeeded"
        for vehicle in (self.healthy, self.sick):
            lines.append({"e": "connect", "v": vehicle, "session": START, "t": START})
            for n in range(1, MESSAGES + 1):
                numbers = {"v": vehicle, "session": START, "sequence": n}
                lines.append({"e": "sent", **numbers, "t": START + n * 1000})
                lines.append({"e": "acked", **numbers})
            fault = {"mode": None, "onset": None, "failure": None}
            if vehicle == self.sick:
                fault = {"mode": "cooling", "onset": START + 2000, "failure": START + 4000}
            lines.append({"e": "truth", "v": vehicle, **fault})
        (self.folder / "cars.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def build(self, *, without=None, doubled=None):
        """Write all of it, one telemetry record of the healthy car left out or twice."""
        self.log()
        for vehicle in (self.healthy, self.sick):
            for n in range(1, MESSAGES + 1):
                chosen = vehicle == self.healthy
                copies = 1 + (chosen and n == doubled) - (chosen and n == without)
                for _ in range(copies):
                    self.telemetry(vehicle, n)
            self.twin(vehicle)
        self.decide()
        self.ledger("succeeded")

    def judge(self, capsys, deadline_s):
        """Run the checker's command line: exit code and JSON line."""
        arguments = ["--cars-log", str(self.folder), "--kafka", self.kafka, "--json"]
        code = verdict.main([*arguments, "--deadline-s", str(deadline_s)])
        (line,) = capsys.readouterr().out.splitlines()
        return code, json.loads(line)


@pytest.fixture
def world(kafka, tmp_path):
    return World(kafka, tmp_path)


def test_a_complete_run_is_ok(world, capsys):
    """Exit code 0 and equal counts when Kafka, twins, ledger and cars agree."""
    world.build()
    code, line = world.judge(capsys, 60)
    assert line["problems"] == []
    assert (code, line["ok"], line["lost"], line["duplicates"]) == (0, True, 0, 0)
    assert line["sent"] == line["acknowledged"] == line["kafka"] == line["applied"] == 10
    assert (line["connected"], line["twins"], line["scores"], line["alarms"]) == (2, 2, 1, 1)
    assert line["commands"] == {"succeeded": 1}


def test_one_record_dropped_on_purpose_is_exactly_one_lost(world, capsys):
    """The broker acknowledged ten, Kafka has nine: one is lost, and the exit code says so."""
    world.build(without=2)
    code, line = world.judge(capsys, 2)
    assert (code, line["ok"], line["lost"], line["kafka"]) == (1, False, 1, 9)
    (problem,) = line["problems"]
    assert f"{world.healthy} session {START} sequence 2" in problem


def test_one_record_written_twice_is_exactly_one_duplicate(world, capsys):
    """A duplicate is counted; nothing is lost by it."""
    world.build(doubled=3)
    code, line = world.judge(capsys, 60)
    assert (code, line["duplicates"], line["kafka"], line["lost"]) == (0, 1, 10, 0)


def test_a_rejected_message_is_found_by_its_original_bytes(world, capsys):
    """JSON and Avro bytes in `rejected` say which message they were."""
    world.build(without=2)
    payload = orjson.dumps({"event_time": 1, "session": START, "sequence": 2, "speed": 9e9})
    source = f"mqtt:vehicles/{world.healthy}/telemetry".encode()
    world.produce("rejected", world.healthy, payload, [("source", source)])
    code, line = world.judge(capsys, 60)
    assert (code, line["lost"], line["rejected"], line["kafka"]) == (0, 0, 1, 9)


def test_the_checker_waits_for_what_is_still_under_way(world, capsys):
    """A command that ends and a twin that catches up while the checker looks are in its figures."""
    world.build()
    world.ledger("running")
    world.record(
        "twins",
        world.healthy,
        {"vehicle_id": world.healthy, "reported": {}, "applied": {"telemetry": [0, -1]}},
    )
    looked = threading.Event()
    account = verdict.account

    def look(*arguments):
        found = account(*arguments)
        looked.set()
        return found

    def finish():
        assert looked.wait(60)
        world.ledger("succeeded")
        world.twin(world.healthy)

    verdict.account = look
    worker = threading.Thread(target=finish)
    worker.start()
    try:
        code, line = world.judge(capsys, 60)
    finally:
        worker.join()
        verdict.account = account
    assert (code, line["problems"], line["commands"]) == (0, [], {"succeeded": 1})


def test_a_record_of_a_car_that_cannot_be_read_is_named(world, capsys):
    """Garbage under a car's key is a problem with its topic, partition and offset."""
    world.build()
    partition, offset = world.produce("telemetry", world.sick, b"garbage")
    code, line = world.judge(capsys, 2)
    assert code == 1
    assert any(f"telemetry/{partition}/{offset}" in problem for problem in line["problems"])
