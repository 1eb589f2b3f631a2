"""Models on real Kafka: simulate, train through tensorflow-io, score a stream, survive.

The tests run in the order of the file, on one Kafka of their own: a scorer waits for a champion,
gets one, scores, is killed, and goes on.
"""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import httpx
import numpy as np
import orjson
import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from models import artefact, baselines, dataset, edge, serving
from models.emission import Emission, Policy
from models.features import WINDOW
from models.intake import Rows, read
from models.log import freeze
from models.registry import SCORERS, current, promote, registration
from models.scoring import Judge, Vehicles, Verdicts
from models.simulator import Cars, Fault
from models.trend import WARM_UP
from twin.kit import kafka as kit_kafka
from twin.local.options import FREE_PORTS, Options
from twin.local.ports import PortPicker
from twin.local.stack import Stack
from twin.wire import codec, topics
from twin.wire.partition import partition_of
from twin.wire.telemetry import Telemetry

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
DEADLINE_S = 90
PARTITIONS = 4
VEHICLES, DAYS, ROWS = 24, 5, 24 * 300
CARS = 16
START = 1_790_000_000_000


def until(condition: Callable[[], Any], what: str) -> Any:
    """Poll until the condition gives something true; fails naming what did not come."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"after {DEADLINE_S} s: {what}")


def ready(url: str) -> bool:
    """Does /readyz say so?"""
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


class Row(NamedTuple):
    """A row of the log and where it lies."""

    vehicle_id: str
    offset: int


class Bench:
    """Kafka, a model store, cars that drive into topic telemetry, and a scorer to be killed."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.bootstrap = bootstrap
        self.folder = folder
        self.store = folder / "models"
        self.producer = kit_kafka.producer(bootstrap, "test")
        faults = [
            Fault(car, mode, 110.0, 1.5) for car, mode in enumerate(("battery", "drive_shaft"))
        ]
        self.cars = Cars(CARS, seed=5, faults=faults)
        self.scorers: dict[str, subprocess.Popen[bytes]] = {}
        self.logs: list[Path] = []
        self.killed_ms = 0
        self.kept: list[Message] = []
        """Baselines that were on the log when the scorer was killed."""

    def run(self, *arguments: str) -> dict[str, Any]:
        """A command of models/ with --json: its result."""
        done = subprocess.run(
            [sys.executable, "-m", "models", *arguments, "--json"],
            env=self.environment(),
            cwd=ROOT,
            check=False,
            capture_output=True,
            timeout=DEADLINE_S,
        )
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        return orjson.loads(done.stdout)

    def environment(self, **more: str) -> dict[str, str]:
        return {
            **os.environ,
            "KAFKA_BOOTSTRAP": self.bootstrap,
            "MODEL_STORE": str(self.store),
            "LOG_FORMAT": "json",
            **more,
        }

    def start(self, name: str = "scorer-0") -> None:
        """Start a scorer and wait until it is ready."""
        port = PortPicker().free()
        env = self.environment(HEALTH_PORT=str(port), SCORER_ID=name)
        self.logs.append(self.folder / f"scorer-{len(self.logs)}.log")
        with self.logs[-1].open("wb") as log:
            self.scorers[name] = subprocess.Popen(
                [sys.executable, "-m", "models", "scorer"],
                env=env,
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        until(lambda: ready(f"http://127.0.0.1:{port}"), "scorer not ready")

    def drive(self, seconds: int) -> None:
        """All cars send a row each second."""
        for _ in range(seconds):
            rows = self.cars.step()
            at = START + round(self.cars.elapsed_s * 1000)
            for car, values in enumerate(zip(*(rows[name].tolist() for name in rows), strict=True)):
                row = Telemetry(
                    f"live-{car:03d}",
                    at,
                    START,
                    self.cars.steps,
                    dict(zip(rows, values, strict=True)),
                )
                self.send(row.vehicle_id, codec.encode_telemetry(row))
        assert self.producer.flush(30) == 0

    def send(self, key: str, value: bytes) -> None:
        self.producer.produce(topics.TELEMETRY, value, key, headers=[("ingested-at", b"1")])

    def read(self, topic: str) -> list[Message]:
        """All records of a topic up to its present end, by partition and offset."""
        consumer = kit_kafka.consumer(self.bootstrap, "test-reader", "test-reader")
        found: list[Message] = []
        try:
            for part in sorted(consumer.list_topics(topic, timeout=20).topics[topic].partitions):
                first, end = consumer.get_watermark_offsets(TopicPartition(topic, part), 20)
                consumer.assign([TopicPartition(topic, part, first)])
                got = 0
                while got < end - first:
                    got += len(batch := consumer.consume(min(500, end - first - got), 10))
                    found += batch
        finally:
            consumer.close()
        return found

    def values(self, topic: str) -> list[dict[str, Any]]:
        return [orjson.loads(message.value()) for message in self.read(topic)]

    def status(self, version: str, state: str) -> dict[str, Any] | None:
        """What the scorer said of a version, if it is the last word."""
        said = [s for s in self.values(topics.MODEL_STATUS) if s["role"] == "champion"]
        return (
            said[-1]
            if said and (said[-1]["version"], said[-1]["state"]) == (version, state)
            else None
        )

    def members(self) -> dict[str, int]:
        """How many partitions each scorer of the group has."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        group = admin.describe_consumer_groups([SCORERS])[SCORERS].result(20)
        return {
            member.client_id.removeprefix("scorer-"): len(member.assignment.topic_partitions)
            for member in group.members
        }

    def caught_up(self) -> bool:
        """Has the scorer committed everything on telemetry?"""
        return all(committed == end for committed, end in self.committed().values())

    def committed(self) -> dict[int, tuple[int, int]]:
        """Partition of telemetry -> what the scorer committed, and the end."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": SCORERS})
        try:
            parts = [TopicPartition(topics.TELEMETRY, p) for p in range(PARTITIONS)]
            return {
                part.partition: (
                    max(part.offset, 0),
                    consumer.get_watermark_offsets(part, 20)[1],
                )
                for part in consumer.committed(parts, timeout=20)
            }
        finally:
            consumer.close()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """An own Kafka with a scorer that has no champion yet, and a simulated history."""
    folder = tmp_path_factory.mktemp("models")
    options = Options(
        data_dir=folder / "data",
        ports=FREE_PORTS,
        processes=(),
        mqtt="amqtt",
        partitions=PARTITIONS,
    )
    stack = Stack(options)
    made = Bench(stack.start().kafka, folder)
    yield made
    for scorer in made.scorers.values():
        if scorer.poll() is None:
            scorer.kill()
            scorer.wait()
    stack.stop()


def test_simulate_writes_what_it_says(bench: Bench) -> None:
    """As many keyed, framed rows as announced, on the murmur2 partition, and a truth for every car."""
    told = bench.run(
        *("simulate", "--vehicles", str(VEHICLES), "--days", str(DAYS), "--seed", "3"),
        *("--topic", "history", "--start", "2026-01-01T00:00:00Z"),
    )
    assert (told["rows"], told["vehicles"], told["topic"]) == (ROWS, VEHICLES, "history")
    records = bench.read(topics.HISTORY)
    assert len(records) == ROWS
    for record in records[:: ROWS // 50]:
        row = codec.decode_telemetry(record.value())
        assert record.key() == row.vehicle_id.encode()
        assert record.partition() == partition_of(record.key(), PARTITIONS)
        assert dict(record.headers())["content-type"] == b"avro/binary"
    truth = {record["vehicle_id"]: record for record in bench.values(topics.TRUTH)}
    assert len(truth) == VEHICLES
    assert sum(record["health"] <= 0 for record in truth.values()) == told["failures"]


def test_the_same_history_again_is_the_same_records(bench: Bench) -> None:
    """Seed and start decide every byte: a second run only repeats the first."""
    before = [(m.partition(), m.value()) for m in bench.read(topics.HISTORY)]
    bench.run(
        *("simulate", "--vehicles", str(VEHICLES), "--days", str(DAYS), "--seed", "3"),
        *("--topic", "history", "--start", "2026-01-01T00:00:00Z"),
    )
    after = [(m.partition(), m.value()) for m in bench.read(topics.HISTORY)]
    assert sorted(after) == sorted(before * 2)


def test_tensorflow_io_reads_a_frozen_stretch_exactly(bench: Bench) -> None:
    """Every record between the offsets once, none that is appended while reading."""
    topic = "frozen"
    admin = AdminClient({"bootstrap.servers": bench.bootstrap})
    admin.create_topics([NewTopic(topic, 3, 1)])[topic].result(30)
    until(lambda: topic in admin.list_topics(timeout=10).topics, "topic not there")

    def write(first: int, count: int) -> None:
        for i in range(first, first + count):
            bench.producer.produce(topic, f"value-{i}", f"car-{i % 50}")
        assert bench.producer.flush(30) == 0

    write(0, 5_300)
    stretch = freeze(bench.bootstrap, topic)
    assert stretch.rows == 5_300
    appending = threading.Thread(target=write, args=(100_000, 4_000))
    read_values: list[bytes] = []
    for batch in dataset.read(bench.bootstrap, stretch):
        if not read_values:
            appending.start()
        read_values += [value for value, _ in batch]
    appending.join()
    assert sorted(read_values) == sorted(f"value-{i}".encode() for i in range(5_300))
    # Order holds within a key.
    of_car = [int(v.split(b"-")[1]) for v in read_values if int(v.split(b"-")[1]) % 50 == 7]
    assert of_car == sorted(of_car)
    # The group of the run is gone with it.
    groups = [group.group_id for group in admin.list_consumer_groups().result(30).valid]
    assert [name for name in groups if name.startswith("cartwin-train-")] == []


def test_without_a_champion_the_scorer_reads_on_and_says_nothing(bench: Bench) -> None:
    """Ready, caught up, windows warm, and no score that no model stands behind."""
    bench.start()
    bench.drive(WINDOW + 3)
    until(bench.caught_up, "telemetry not read")
    assert bench.read(topics.SCORES) == []


def test_training_from_the_log_stores_and_promotes_a_champion(bench: Bench) -> None:
    """All rows of the log were read; the artefact verifies; the registry and the list agree."""
    told = bench.run(
        *("train", "--topic", "history", "--seed", "2", "--epochs", "4", "--promote-anyway")
    )
    assert (told["rows"], told["unreadable"], told["promoted"]) == (2 * ROWS, 0, True)
    made = artefact.verify(bench.store, told["version"])
    champion = current(bench.bootstrap)
    assert champion is not None
    assert (champion["version"], champion["sha256"]) == (made.version, made.sha256)
    assert made.manifest["trained_on"]["rows"] == 2 * ROWS
    assert set(told["metrics"]["detectors"]) == {"scorer", "autoencoder", "lstm", "pca"}
    (listed,) = bench.run("list")["models"]
    assert (listed["version"], listed["champion"]) == (made.version, True)


def test_evaluate_measures_a_stored_model_on_cars_that_it_did_not_learn_from(bench: Bench) -> None:
    """Those of the history whose fate is known and that lay in the test part."""
    told = bench.run("evaluate", "--topic", "history")
    (made,) = artefact.listing(bench.store)
    learnt = artefact.learnt(made)
    assert told["metrics"]["vehicles"] == VEHICLES - len(learnt) > 0
    assert 0 < told["metrics"]["rows"] < 2 * ROWS / 2
    assert told["metrics"]["detectors"]["autoencoder"]["auc"] > 0.5


def test_the_scorer_takes_the_champion_and_scores_with_warm_windows(bench: Bench) -> None:
    """It announces the version; a car's first score, with its baseline, has a full window already."""
    version = current(bench.bootstrap)["version"]
    until(lambda: bench.status(version, "running"), "champion not taken")
    bench.drive(WARM_UP + 40)
    until(bench.caught_up, "telemetry not scored")
    scores = [score for score in bench.values(topics.SCORES) if score["models"]]
    assert {score["vehicle_id"] for score in scores} == {f"live-{n:03d}" for n in range(CARS)}
    assert all(set(score["models"]) == {"autoencoder", "lstm"} for score in scores)
    assert {score["models"]["lstm"]["version"] for score in scores} == {version}
    lives = [score["models"]["lstm"] for score in scores]
    assert all(0 <= told["remaining_low_s"] <= told["remaining_s"] for told in lives)
    assert all(told["remaining_s"] <= told.get("remaining_high_s", math.inf) for told in lives)


def test_a_poison_record_is_passed_over_and_its_partition_goes_on(bench: Bench) -> None:
    """The next rows of the same car are scored; setting it aside is left to the worker."""
    bench.send("live-001", b"\x00poison")
    bench.drive(40)
    until(bench.caught_up, "telemetry not read past the poison")
    assert bench.read(topics.REJECTED) == []
    (after,) = [m.offset() for m in bench.read(topics.TELEMETRY) if m.value() == b"\x00poison"]
    offsets = [s["offset"] for s in bench.values(topics.SCORES) if s["vehicle_id"] == "live-001"]
    assert max(offsets) > after


def test_a_champion_that_does_not_verify_is_refused_and_the_old_one_scores_on(bench: Bench) -> None:
    """The reason is announced; nothing stops."""
    champion = current(bench.bootstrap)
    (made,) = artefact.listing(bench.store)
    promote(bench.bootstrap, {**registration(made), "sha256": "0" * 64}, edge.package(made))
    refused = until(lambda: bench.status(made.version, "refused"), "not refused")
    assert "not the one that was registered" in refused["why"]
    before = len(bench.read(topics.SCORES))
    bench.drive(31)  # longer than a heartbeat: every car speaks
    until(bench.caught_up, "telemetry not scored")
    assert len(bench.read(topics.SCORES)) >= before + CARS
    promote(bench.bootstrap, champion, edge.package(made))
    until(lambda: bench.status(made.version, "running"), "champion not taken again")


def test_a_killed_scorer_goes_on_where_it_was(bench: Bench) -> None:
    """After SIGKILL under load every row is scored, and no car falls back to insufficient data."""
    bench.drive(5)
    killed_after = len(bench.read(topics.SCORES))
    bench.killed_ms = START + round(1000 * bench.cars.elapsed_s)
    bench.scorers["scorer-0"].send_signal(signal.SIGKILL)
    bench.scorers["scorer-0"].wait()
    bench.kept = bench.read(topics.BASELINES)
    bench.drive(60)
    bench.start()
    until(bench.caught_up, "telemetry not scored after the restart")
    scores = bench.values(topics.SCORES)
    assert len(scores) > killed_after
    newest = {
        s["vehicle_id"]: s["event_time"] for s in sorted(scores, key=lambda s: s["event_time"])
    }
    assert min(newest.values()) > START + 1000 * bench.cars.elapsed_s - 31_000
    later = [s for s in scores if s["event_time"] > bench.killed_ms]
    assert not [s for s in later if s["state"] == "insufficient_data"]
    known = {record["vehicle_id"] for record in bench.values(topics.BASELINES)}
    assert known == {f"live-{car:03d}" for car in range(CARS)}
    said = map(json.loads, bench.logs[-1].read_text().splitlines())
    restored = [line for line in said if line.get("event") == "baselines restored"]
    assert sum(line["cars"] for line in restored) == CARS, restored


def test_a_second_scorer_takes_its_share_and_gives_it_back(bench: Bench) -> None:
    """Partitions move with their windows: every row is scored by someone, nobody starts anew."""
    bench.start("scorer-1")
    moved = until(
        lambda: bench.members() == {"scorer-0": 2, "scorer-1": 2}, "partitions not shared"
    )
    assert moved
    bench.drive(31)
    until(bench.caught_up, "telemetry not scored by two")
    bench.scorers["scorer-1"].terminate()
    assert bench.scorers["scorer-1"].wait(60) == 0
    bench.drive(31)
    until(bench.caught_up, "telemetry not scored by the one that is left")
    scores = [s for s in bench.values(topics.SCORES) if s["event_time"] > bench.killed_ms]
    assert not [s for s in scores if s["state"] == "insufficient_data"]
    late = [s for s in scores if s["event_time"] > START + 1000 * (bench.cars.elapsed_s - 31)]
    assert {s["vehicle_id"] for s in late} == {f"live-{car:03d}" for car in range(CARS)}


def _baseline(message: Message) -> tuple[str, tuple[list[bool], Any]]:
    parsed = baselines._parsed(message.key(), message.value())
    assert parsed is not None
    return message.key().decode(), parsed[1]


def _unbroken(bench: Bench) -> Iterator[tuple[Judge, list[Row], Verdicts, Rows]]:
    """One pass of the newest model over the whole log of telemetry, by partition, with the baselines
    that the killed scorer had learnt.
    """
    (made,) = artefact.listing(bench.store)
    model = serving.load(made)
    log = bench.read(topics.TELEMETRY)
    for partition in range(PARTITIONS):
        there = [message for message in log if message.partition() == partition]
        rows = read([m.key() for m in there], [m.value() for m in there])
        vehicles = Vehicles(100)
        vehicles.adopt("champion", model)
        known = {
            vehicle_id: base
            for message in bench.kept
            if message.partition() == partition
            for vehicle_id, base in [_baseline(message)]
        }
        learnt, base = (np.array(part) for part in zip(*known.values(), strict=True))
        vehicles.restore(list(known), partition, learnt, base, 0)
        judge = vehicles.judges["champion"]
        verdicts = judge.judge(vehicles.prepare(rows.batch(), 0))
        places = rows.places[verdicts.rows].tolist()
        found = [Row(there[place].key().decode(), there[place].offset()) for place in places]
        yield judge, found, verdicts, rows


def test_scores_equal_the_offline_computation(bench: Bench) -> None:
    """Every score since the restart, which read the log again, is what one pass over it gives."""
    expected = {
        row: verdict
        for _, rows, verdicts, _ in _unbroken(bench)
        for row, verdict in zip(rows, verdicts, strict=True)
    }
    records = [s for s in bench.values(topics.SCORES) if s["event_time"] > bench.killed_ms]
    assert records
    for record in records:
        verdict = expected[Row(record["vehicle_id"], record["offset"])]
        said = record["models"]
        assert said["autoencoder"]["score"] == pytest.approx(verdict.score, rel=1e-4, abs=1e-4)
        assert said["lstm"]["failure_probability"] == pytest.approx(verdict.probability, abs=1e-4)


def test_states_equal_an_uninterrupted_run(bench: Bench) -> None:
    """The last state of every car is what one unbroken pass over the log comes to."""
    states: dict[str, str] = {}
    for judge, found, verdicts, rows in _unbroken(bench):
        times = rows.batch().event_times[verdicts.rows]
        why = Emission(Policy(0.25, 30_000)).news(judge.model, verdicts, times)
        for row, verdict, code in zip(found, verdicts, why.tolist(), strict=True):
            if code >= 0:
                states[row.vehicle_id] = verdict.state
    last = {
        s["vehicle_id"]: s["state"]
        for s in sorted(bench.values(topics.SCORES), key=lambda s: s["event_time"])
    }
    assert last == states
    alarmed = {s["vehicle_id"] for s in bench.values(topics.SCORES) if s["state"] == "alarm"}
    assert alarmed, "neither of the worn cars was found"
    assert alarmed <= {"live-000", "live-001"}


def test_sigterm_ends_the_scorer_with_everything_committed(bench: Bench) -> None:
    """Exit code 0, and nothing that was scored would be scored again."""
    bench.drive(3)
    bench.scorers["scorer-0"].terminate()
    assert bench.scorers["scorer-0"].wait(60) == 0
    committed = bench.committed()
    scores = bench.values(topics.SCORES)
    assert scores
    assert all(score["offset"] < committed[score["partition"]][0] for score in scores)
    assert not [log for log in bench.logs if "Traceback" in log.read_text()]
