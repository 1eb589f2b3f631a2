"""Models change while cars drive: swap, refusal, rollback, shadow, with every row accounted for.

The tests run in the order of the file, on one Kafka of their own. The scorer says every score
(SCORE_ALL) and takes its models from a store behind a URL, so each row on the log must have exactly
one score, whatever happened meanwhile.
"""

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import httpx
import numpy as np
import orjson
import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from models import artefact, edge, lite, serving
from models.drift import MOVED, Reference
from models.features import FEATURES
from models.intake import read
from models.registry import SCORERS, challenge, current, promote, registration, roles
from models.scoring import Vehicles
from models.simulator import Cars
from models.store import Location, location
from models.trend import WARM_UP
from tests.models_artefacts import driven, publish_small
from twin.kit import kafka as kit_kafka
from twin.local.options import FREE_PORTS, Options
from twin.local.ports import PortPicker
from twin.local.stack import Stack
from twin.wire import codec, topics
from twin.wire.telemetry import Telemetry

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
DEADLINE_S = 90
PARTITIONS = 3
CARS = 20
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


class Bench:
    """Kafka, a store behind a URL, a scorer that says everything, and cars that drive."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.bootstrap = bootstrap
        self.folder = folder
        self.url = f"file://{folder}/remote"
        self.remote = folder / "remote"
        self.producer = kit_kafka.producer(bootstrap, "test")
        self.cars = Cars(CARS, seed=5)
        self.made = 0
        self.scorer: subprocess.Popen[bytes] | None = None
        self.health = ""
        self.log = folder / "scorer.log"

    @property
    def store(self) -> Location:
        return location(self.url, self.folder / "publisher-cache")

    def publish(self, **how: Any) -> artefact.Artefact:
        """One more model."""
        self.made += 1
        return publish_small(self.store, self.made, now_ms=START + 1000 * self.made, **how)

    def run(self, *arguments: str) -> tuple[int, dict[str, Any], str]:
        """A command of models/ with --json: exit code, result, what it said."""
        done = subprocess.run(
            [sys.executable, "-m", "models", *arguments, "--json"],
            env=self.environment(MODEL_CACHE=str(self.folder / "command-cache")),
            cwd=ROOT,
            check=False,
            capture_output=True,
            timeout=DEADLINE_S,
        )
        told = orjson.loads(done.stdout) if done.stdout else {}
        return done.returncode, told, done.stderr.decode()

    def environment(self, **more: str) -> dict[str, str]:
        return {
            **os.environ,
            "KAFKA_BOOTSTRAP": self.bootstrap,
            "MODEL_STORE": self.url,
            "LOG_FORMAT": "json",
            **more,
        }

    def start(self) -> None:
        """Start the scorer and wait until it is ready."""
        port = PortPicker().free()
        self.health = f"http://127.0.0.1:{port}"
        env = self.environment(
            HEALTH_PORT=str(port),
            SCORER_ID="scorer-0",
            SCORE_ALL="true",
            SCORER_DRIFT_S="0.5",
            MODEL_CACHE=str(self.folder / "scorer-cache"),
        )
        with self.log.open("wb") as log:
            self.scorer = subprocess.Popen(
                [sys.executable, "-m", "models", "scorer"],
                env=env,
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        until(self.ready, "scorer not ready")

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.health}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def metric(self, line: str) -> float:
        """The value of a metric by its name and labels, 0 when it is not there."""
        for told in httpx.get(f"{self.health}/metrics", timeout=5).text.splitlines():
            if told.startswith(f"{line} "):
                return float(told.rpartition(" ")[2])
        return 0.0

    def drive(self, seconds: int) -> None:
        """All cars send a row for each second."""
        for _ in range(seconds):
            rows = self.cars.step()
            at = START + round(self.cars.elapsed_s * 1000)
            for car, values in enumerate(zip(*(rows[name].tolist() for name in rows), strict=True)):
                signals = dict(zip(rows, values, strict=True))
                row = Telemetry(f"live-{car:03d}", at, START, self.cars.steps, signals)
                self.send(row.vehicle_id, codec.encode_telemetry(row))
        assert self.producer.flush(30) == 0

    def send(self, key: str, value: bytes, **where: int) -> None:
        headers: kit_kafka.Headers = [("ingested-at", b"1")]
        self.producer.produce(topics.TELEMETRY, value, key, headers=headers, **where)

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

    def status(self, version: str, state: str, role: str = "champion") -> dict[str, Any] | None:
        """What the scorer said of a version in a role, if it is its last word about that role."""
        said = [s for s in self.values(topics.MODEL_STATUS) if s.get("role") == role]
        if said and (said[-1]["version"], said[-1]["state"]) == (version, state):
            return said[-1]
        return None

    def caught_up(self) -> bool:
        """Has the scorer committed everything on telemetry?"""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": SCORERS})
        try:
            parts = [TopicPartition(topics.TELEMETRY, p) for p in range(PARTITIONS)]
            return all(
                max(part.offset, 0) == consumer.get_watermark_offsets(part, 20)[1]
                for part in consumer.committed(parts, timeout=20)
            )
        finally:
            consumer.close()

    def accounted(self) -> list[dict[str, Any]]:
        """All scores, after a check that each row on the log has exactly one."""
        until(self.caught_up, "telemetry not scored")
        rows = Counter(
            (m.partition(), m.offset()) for m in self.read(topics.TELEMETRY) if m.value() != b"bad"
        )
        scores = self.values(topics.SCORES)
        assert Counter((s["partition"], s["offset"]) for s in scores) == rows
        assert len({s["id"] for s in scores}) == len(scores)
        return scores


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """An own Kafka, a first champion, and a scorer that runs it."""
    folder = tmp_path_factory.mktemp("swap")
    options = Options(
        data_dir=folder / "data",
        ports=FREE_PORTS,
        processes=(),
        mqtt="amqtt",
        partitions=PARTITIONS,
    )
    stack = Stack(options)
    made = Bench(stack.start().kafka, folder)
    first = made.publish()
    promote(made.bootstrap, registration(first), edge.package(first))
    made.start()
    until(lambda: made.status(first.version, "running"), "first champion not taken")
    yield made
    if made.scorer is not None and made.scorer.poll() is None:
        made.scorer.kill()
        made.scorer.wait()
    stack.stop()


def champion(bench: Bench) -> str:
    """The version that has the role."""
    record = current(bench.bootstrap)
    assert record is not None
    return record["version"]


def test_every_score_equals_offline_scoring_of_the_same_log(bench: Bench) -> None:
    """With SCORE_ALL each row has a score, and it is what one pass over the log computes."""
    bench.drive(60)
    said = {(s["partition"], s["offset"]): s for s in bench.accounted()}
    assert len(said) == 60 * CARS
    made = artefact.verify(bench.store, champion(bench))
    log = bench.read(topics.TELEMETRY)
    for partition in range(PARTITIONS):
        there = [message for message in log if message.partition() == partition]
        rows = read([m.key() for m in there], [m.value() for m in there])
        vehicles = Vehicles(100)
        vehicles.adopt("champion", serving.load(made))
        verdicts = vehicles.judges["champion"].judge(vehicles.prepare(rows.batch(), 0))
        for message, verdict in zip(there, verdicts, strict=True):
            record = said[partition, message.offset()]
            assert record["state"] == verdict.state
            for name, field, value in (
                ("autoencoder", "score", verdict.score),
                ("lstm", "failure_probability", verdict.probability),
            ):
                told = record["models"].get(name, {}).get(field)
                assert (told is None) == (value is None)
                assert told is None or told == pytest.approx(value, rel=1e-4, abs=1e-4)


def test_a_swap_under_load_loses_no_row_and_scores_none_twice(bench: Bench) -> None:
    """Cars drive on while the champion changes; each partition has old scores, then new ones."""
    before, second = champion(bench), bench.publish()
    going = threading.Event()

    def drive() -> None:
        while not going.is_set():
            bench.drive(1)

    driving = threading.Thread(target=drive)
    driving.start()
    try:
        until(lambda: bench.metric("cartwin_scorer_batch_seconds_count") > 20, "no load")
        promote(bench.bootstrap, registration(second), edge.package(second))
        until(lambda: bench.status(second.version, "running"), "second champion not taken")
        seen = len(bench.read(topics.TELEMETRY))
        until(lambda: len(bench.read(topics.TELEMETRY)) > seen + 3 * CARS, "load has ended")
    finally:
        going.set()
        driving.join()
    scores = bench.accounted()
    for partition in range(PARTITIONS):
        there = sorted(
            (s["offset"], s["id"].rpartition(":")[2]) for s in scores if s["partition"] == partition
        )
        versions = [version for _, version in there]
        swap = versions.index(second.version)
        assert set(versions[:swap]) == {before}
        assert set(versions[swap:]) == {second.version}
    later = [s for s in scores if second.version in s["id"]]
    assert {s["state"] for s in later} == {"normal"}


def _cut(folder: Path) -> None:
    path = folder / artefact.LSTM / "saved_model.pb"
    path.write_bytes(path.read_bytes()[:-100])


def _altered(folder: Path) -> None:
    path = folder / lite.AUTOENCODER
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _missing(folder: Path) -> None:
    (folder / artefact.GOLDEN).unlink()


def _other_golden(folder: Path) -> None:
    with np.load(folder / artefact.GOLDEN) as file:
        golden = dict(file)
    np.savez(folder / artefact.GOLDEN, **{**golden, "scores": golden["scores"] + 0.5})


@pytest.mark.parametrize(
    ("how", "hurt", "why"),
    [
        ({}, _cut, "saved_model.pb was altered"),
        ({}, _altered, "autoencoder.tflite was altered"),
        ({}, _missing, "file is missing"),
        ({"touch": _other_golden}, None, "golden scores differ from the trainer's by 0.5"),
        (
            {"features": {"hash": "0" * 16}},
            None,
            "was trained on features 0000000000000000",
        ),
    ],
    ids=["cut", "altered", "missing", "golden", "features"],
)
def test_a_model_that_is_not_whole_is_refused_and_the_old_one_scores_on(
    bench: Bench, how: dict[str, Any], hurt: Callable[[Path], None] | None, why: str
) -> None:
    """The scorer says which model it refused and why; not a row is lost meanwhile."""
    running = [s for s in bench.values(topics.MODEL_STATUS) if s.get("state") == "running"][-1]
    made = bench.publish(**how)
    if hurt is not None:
        hurt(bench.remote / made.version)
    promote(bench.bootstrap, registration(made), edge.package(made))
    bench.drive(3)
    refused = until(lambda: bench.status(made.version, "refused"), "not refused")
    assert why in refused["why"]
    bench.drive(3)
    scores = bench.accounted()
    newest = max(s["event_time"] for s in scores)
    last = [s for s in scores if s["event_time"] == newest]
    assert {s["id"].rpartition(":")[2] for s in last} == {running["version"]}
    assert len(last) == CARS


def test_one_command_rolls_back_past_what_no_scorer_takes(bench: Bench) -> None:
    """The champion becomes the last one before that loads; others are named and passed over."""
    running = [s for s in bench.values(topics.MODEL_STATUS) if s.get("state") == "running"][-1]
    code, told, said = bench.run("rollback")
    assert (code, told["version"]) == (0, running["version"])
    assert champion(bench) == running["version"]
    assert said.count("passed over") == 4
    until(lambda: bench.status(running["version"], "running"), "not rolled back")
    bench.drive(2)
    bench.accounted()


def test_rolling_back_goes_on_to_the_first_and_then_says_so(bench: Bench) -> None:
    """Each rollback is one step; before the first champion there is none."""
    first = bench.values(topics.SCORES)[0]["id"].rpartition(":")[2]
    version = champion(bench)
    code, told, said = bench.run("rollback")
    while code == 0:
        version = told["version"]
        code, told, said = bench.run("rollback")
    assert (code, version) == (1, first)
    assert f"no champion is known before {version}" in said
    until(lambda: bench.status(version, "running"), "not rolled back")


def test_a_challenger_is_counted_and_says_nothing(bench: Bench) -> None:
    """It judges every row in its own state; no score of it reaches the twins."""
    before, shadow = champion(bench), bench.publish(threshold=1e-6)
    alarms = 'cartwin_scorer_alarms_total{role="champion"}'
    opened = bench.metric(alarms)
    challenge(bench.bootstrap, registration(shadow, "challenger"))
    until(lambda: bench.status(shadow.version, "running", "challenger"), "challenger not taken")
    bench.drive(100)  # a baseline needs 24 rows in one regime
    scores = bench.accounted()
    assert not [s for s in scores if shadow.version in s["id"]]
    newest = {s["vehicle_id"]: s["state"] for s in scores if before in s["id"]}
    assert set(newest.values()) == {"normal"}
    line = 'cartwin_scorer_shadow_rows_total{challenger="alarm",champion="normal"}'
    assert bench.metric(line) > 0
    assert bench.metric('cartwin_scorer_alarms_total{role="challenger"}') == CARS
    assert bench.metric(alarms) == opened
    code, told, said = bench.run("list")
    assert code == 0, said
    assert {m["version"]: m["role"] for m in told["models"] if m["role"]} == {
        before: "champion",
        shadow.version: "challenger",
    }


def test_a_challenger_that_is_retired_is_counted_no_more(bench: Bench) -> None:
    """The role ends; the champion does not notice."""
    shadow = roles(bench.bootstrap)["challenger"]["version"]
    assert bench.run("retire")[0] == 0
    until(lambda: bench.status(shadow, "retired", "challenger"), "challenger not left")
    opened = bench.metric('cartwin_scorer_alarms_total{role="challenger"}')
    bench.drive(2)
    bench.accounted()
    assert bench.metric('cartwin_scorer_alarms_total{role="challenger"}') == opened
    code, _, said = bench.run("retire")
    assert (code, said.strip()) == (1, "there is no challenger")


def test_a_promoted_challenger_scores_from_its_first_row(bench: Bench) -> None:
    """It brings the baselines that it learnt in the shadow, and is challenger no more."""
    shadow = bench.publish()
    challenge(bench.bootstrap, registration(shadow, "challenger"))
    until(lambda: bench.status(shadow.version, "running", "challenger"), "challenger not taken")
    bench.drive(100)
    until(bench.caught_up, "telemetry not scored")
    assert bench.run("promote", shadow.version)[0] == 0
    until(lambda: bench.status(shadow.version, "running"), "challenger not promoted")
    assert list(roles(bench.bootstrap)) == ["champion"]
    bench.drive(1)
    scores = [s for s in bench.accounted() if shadow.version in s["id"]]
    assert len(scores) == CARS
    assert all("autoencoder" in s["models"] and "lstm" in s["models"] for s in scores)


def test_a_row_on_another_car_s_partition_is_passed_over(bench: Bench) -> None:
    """It is counted as unreadable, and no window takes it."""
    key, value = next(
        (m.key(), m.value()) for m in bench.read(topics.TELEMETRY) if m.partition() == 0
    )
    before = bench.metric('cartwin_scorer_rows_total{result="unreadable"}')
    scored = len(bench.values(topics.SCORES))
    bench.send(key.decode(), value, partition=1)
    bench.producer.flush(30)
    until(bench.caught_up, "telemetry not read")
    assert bench.metric('cartwin_scorer_rows_total{result="unreadable"}') == before + 1
    assert len(bench.values(topics.SCORES)) == scored


def test_nothing_went_wrong_unseen(bench: Bench) -> None:
    """SIGTERM ends the scorer with 0, and its log holds no stack trace."""
    assert bench.scorer is not None
    bench.scorer.terminate()
    assert bench.scorer.wait(60) == 0
    assert "Traceback" not in bench.log.read_text()


def test_a_fleet_that_is_another_than_the_training_s_is_told(bench: Bench) -> None:
    """An event and a metric for the feature that moved, as soon as there are rows enough."""
    rows = driven(CARS, 400, 9)
    lives = np.tile(np.arange(CARS), 400)
    warmer = rows.copy()
    warmer[:, FEATURES.index("coolant_excess")] += 40
    values = np.column_stack([warmer, np.zeros(len(rows))])
    made = bench.publish(drift=Reference.fit(values, lives).to_json())
    if bench.scorer is None or bench.scorer.poll() is not None:
        bench.start()
    promote(bench.bootstrap, registration(made), edge.package(made))
    until(lambda: bench.status(made.version, "running"), "not taken")
    bench.drive(WARM_UP + 150)

    def told() -> dict[str, Any]:
        records = [m for m in bench.read(topics.MODEL_STATUS) if b"/drift/" in m.key()]
        said = [orjson.loads(m.value()) for m in records]
        return {s["feature"]: s for s in said if "feature" in s and s["version"] == made.version}

    until(lambda: told().get("coolant_excess", {}).get("state") == "moved", "no drift is told")
    assert told()["coolant_excess"]["psi"] > MOVED
    assert bench.metric('cartwin_scorer_drift_psi{feature="coolant_excess"}') > MOVED
