"""`cartwin bench scorer`: what scoring every message by both networks costs, and how late a score is.

    history -> train -> champion; simulated cars -> telemetry -> `python -m models scorer` -> scores

Rate: a backlog of telemetry, read from where every car has a full window and a baseline; CPU of the
process and its children from /proc, rate by the offsets that it commits. Latency: rows paced at --rate
a second, event time taken as they are sent, until Kafka's time stamp of their score, every score said
(SCORE_ALL). Equality: those scores against the same rows of the log through `models.scoring` here.
Beside that, in the same run, what tutorials write: one call of the networks for each message.
"""

import argparse
import math
import os
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import orjson

from bench_broker import Broker
from bench_output import Screen, leave, machine
from bench_pace import Pacer
from bench_process import cpu_s, resident_bytes
from bench_records import Record
from bench_stack import at_least, common_options, on_stack
from bench_worker import ROOT, WorkerFailed, until
from models import artefact, serving
from models.features import INPUTS, WINDOW
from models.registry import SCORERS
from models.scoring import Batch, Vehicles, assess
from models.simulator import Cars
from twin.local import Endpoints, Stack
from twin.local.ports import HOST, PortPicker
from twin.local.process import Child, spawn, stop_all
from twin.wire import codec, topics
from twin.wire.telemetry import Telemetry

PARTITIONS: Final = 12
MIN_RATE: Final = 25_000.0
"""Messages a second of one core, both networks on each."""
MAX_P99_MS: Final = 500.0
MAX_DIFFERENCE: Final = 1e-4
MIN_BOTH: Final = 0.99
"""Of the rows that are timed, those that both networks judged."""

_WARM_ROWS: Final = 2 * WINDOW
"""Rows a car before the rate is measured: a window, and a baseline in the regimes of most cars."""
_LEAD_S: Final = 8.0
"""Of the paced time not counted: windows and baselines fill meanwhile."""
_ROWS_A_CAR: Final = 10
"""Paced rows of a car in a second: enough that its window is full soon."""
_ALONE: Final = 300
_DEADLINE_S: Final = 240.0


def arguments(words: list[str] | None) -> argparse.Namespace:
    """The command line; ends with 2 and a sentence when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="cartwin bench scorer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--vehicles", type=int, default=4000, help="cars (4000)")
    parser.add_argument("--messages", type=int, default=400_000, help="for the rate (400000)")
    parser.add_argument("--rate", type=int, default=5000, help="paced messages a second (5000)")
    parser.add_argument("--seconds", type=int, default=20, help="of paced messages (20)")
    common_options(parser)
    options = parser.parse_args(words)
    at_least(parser, options, {"vehicles": 10, "messages": 1000, "rate": 10, "seconds": 10})
    return options


def main(words: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = arguments(words)

    def run(stack: Stack, endpoints: Endpoints, screen: Screen) -> dict[str, Any]:
        return _Bench(options, stack.data_dir, endpoints, screen).run()

    return on_stack("scorer", options, run, partitions=PARTITIONS)


class _Drive:
    """Cars that drive on: rows as records of telemetry."""

    def __init__(self, vehicles: int, name: str) -> None:
        self._name = name
        self._cars = Cars(vehicles, seed=7)
        self._session = time.time_ns() // 1_000_000
        self._sequence = 0

    def rows(self, count: int, at: float | None = None) -> Iterator[Record]:
        """So many records, car by car; event times are now, or a second apart up to `at` seconds."""
        while count > 0:
            step = self._cars.step()
            columns = zip(*(step[name].tolist() for name in step), strict=True)
            for number, values in enumerate(columns):
                if not count:
                    return
                count -= 1
                moment = time.time_ns() // 1_000_000
                if at is not None:
                    moment = int(1000 * at) + 1000 * self._sequence
                present = {n: v for n, v in zip(step, values, strict=True) if not math.isnan(v)}
                car = f"{self._name}-{number:06d}"
                row = Telemetry(car, moment, self._session, self._sequence, present)
                headers = [("ingested-at", str(moment).encode())]
                yield car.encode(), codec.encode_telemetry(row), headers
            self._sequence += 1


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    cpu: float
    committed: int


class _Bench:
    def __init__(
        self, options: argparse.Namespace, folder: Path, endpoints: Endpoints, screen: Screen
    ) -> None:
        self._options = options
        self._folder = folder / "runs"
        self._folder.mkdir()
        self._endpoints = endpoints
        self._screen = screen
        self._broker = Broker(endpoints.kafka)
        self._store = self._folder / "models"
        self._starts = 0

    def run(self) -> dict[str, Any]:
        """Train, then each part; what is printed."""
        options, screen = self._options, self._screen
        version = self._trained()
        screen.say(f"champion: {version}")
        model = serving.load(artefact.verify(self._store, version))
        per_call = _one_by_one(model)
        drive = _Drive(options.vehicles, "car")
        warm = _WARM_ROWS * options.vehicles
        past = time.time() - 2 * (_WARM_ROWS + options.messages / options.vehicles)
        screen.say(f"writing {warm + options.messages:,} records")
        self._broker.feed(drive.rows(warm + options.messages, past))
        backlog = self._backlog(warm, options.messages)
        latency, difference = self._paced(model)
        results = {
            "cartwin": backlog | latency | {"difference": difference},
            "one call a message": {"cpu_us": per_call},
        }
        problems = _problems(results["cartwin"])
        screen.table("scorer", [{"who": name, **told} for name, told in results.items()])
        for problem in problems:
            screen.say(f"missed: {problem}")
        return {
            "bench": "scorer",
            "ok": not problems,
            "machine": machine(),
            "params": {
                name: getattr(options, name) for name in ("vehicles", "messages", "rate", "seconds")
            },
            "results": results,
            "ratio": {"one call a message": round(per_call / backlog["cpu_us"], 1)},
            "skipped": [],
            "problems": problems,
        }

    def _trained(self) -> str:
        self._screen.say("training a champion")
        words = ("--vehicles", "160", "--days", "10", "--seed", "1", "--topic", "history")
        self._command("simulate", *words)
        self._command("train", "--topic", "history", "--epochs", "4", "--promote-anyway")
        (made,) = artefact.listing(self._store)
        return made.version

    def _command(self, name: str, *words: str) -> None:
        log = self._folder / f"{name}.log"
        argv = [sys.executable, "-m", "models", name, *words, "--progress", "none", "--json"]
        child = spawn(name, argv, self._environment(), log)
        until(lambda: child.exit_code() is not None, lambda: f"{name} does not end", _DEADLINE_S)
        if child.exit_code():
            raise WorkerFailed(child.obituary())

    def _environment(self, **more: str) -> dict[str, str]:
        return {
            **os.environ,
            "KAFKA_BOOTSTRAP": self._endpoints.kafka,
            "MODEL_STORE": str(self._store),
            "TRAINER_CACHE": str(self._folder / "cache"),
            "PYTHONPATH": str(ROOT),
            "LOG_FORMAT": "json",
            **more,
        }

    def _scorer(self, **more: str) -> Child:
        self._starts += 1
        port = PortPicker().free()
        self._health = f"http://{HOST}:{port}/readyz"
        env = self._environment(HEALTH_PORT=str(port), HEALTH_HOST=HOST, SCORER_ID="bench", **more)
        log = self._folder / f"scorer-{self._starts}.log"
        return spawn("scorer", [sys.executable, "-m", "models", "scorer"], env, log)

    def _backlog(self, warm: int, messages: int) -> dict[str, Any]:
        """CPU a message and rate, over the records behind the first `warm`."""
        child = self._scorer()
        samples: list[_Sample] = []

        def done() -> bool:
            if child.exit_code() is not None:
                raise WorkerFailed(child.obituary())
            committed = self._broker.committed(SCORERS)
            samples.append(_Sample(time.monotonic(), cpu_s(child.pid), committed))
            return committed >= warm + messages

        try:
            until(done, lambda: f"{samples[-1].committed} records are scored", _DEADLINE_S)
            resident = resident_bytes(child.pid)
        finally:
            stop_all([child], 20.0)
        first = next(sample for sample in samples if sample.committed >= warm)
        last = samples[-1]
        scored = last.committed - first.committed
        return {
            "cpu_us": round((last.cpu - first.cpu) / scored * 1e6, 1),
            "rate": round(scored / (last.at - first.at)),
            "rate_a_core": round(scored / (last.cpu - first.cpu)),
            "rss_mb": resident >> 20,
        }

    def _paced(self, model: serving.Loaded) -> tuple[dict[str, Any], float]:
        """Event time to the score's time stamp, ms; and how far scores are from those made here."""
        options = self._options
        # Nothing is read again before: every row that it judges is one of these cars.
        child = self._scorer(SCORE_ALL="true", SCORER_RESTORE_MINUTES="0")
        start, before = self._broker.ends(topics.TELEMETRY), self._broker.ends(topics.SCORES)
        drive = _Drive(max(1, options.rate // _ROWS_A_CAR), "paced")
        total = options.rate * options.seconds
        pacer = Pacer(self._endpoints.kafka, drive.rows(10 * total), options.rate)
        try:
            until(lambda: self._ready(child), lambda: "the scorer is not ready", 60)
            began = time.time()
            pacer.start()
            until(lambda: pacer.written >= total, lambda: pacer.failed or "too slow", _DEADLINE_S)
            pacer.stop()
            if pacer.failed:
                raise WorkerFailed(pacer.failed)
            end = self._broker.end(topics.TELEMETRY)
            until(
                lambda: self._ready(child) and self._broker.committed(SCORERS) >= end,
                lambda: "not all paced records are scored",
                60,
            )
        finally:
            stop_all([child], 20.0)
        took, said, both = [], {}, 0
        for message in self._broker.read(topics.SCORES):
            if (message.offset() or 0) < before.get(message.partition() or 0, 0):
                continue
            score = orjson.loads(message.value() or b"{}")
            said[score["partition"], score["offset"]] = score
            if score["event_time"] >= 1000 * (began + _LEAD_S):
                took.append(message.timestamp()[1] - score["event_time"])
                both += {"autoencoder", "lstm"} <= score["models"].keys()
        if not took:
            raise WorkerFailed("the scorer told no score of the paced records")
        p50, p99 = np.quantile(np.array(took), [0.5, 0.99])
        told = {
            "p50_ms": round(float(p50)),
            "p99_ms": round(float(p99)),
            "scores": len(took),
            "by_both": round(both / len(took), 3),
        }
        return told, self._difference(model, start, said)

    def _ready(self, child: Child) -> bool:
        if child.exit_code() is not None:
            raise WorkerFailed(child.obituary())
        try:
            with urllib.request.urlopen(self._health, timeout=2) as answer:  # noqa: S310 - our own
                return bool(answer.status == 200)
        except OSError:
            return False

    def _difference(
        self,
        model: serving.Loaded,
        start: dict[int, int],
        said: dict[tuple[int, int], dict[str, Any]],
    ) -> float:
        """Largest difference of a score (as a share above 1) or chance from those of the log, here."""
        rows: dict[int, list[tuple[int, Telemetry]]] = {}
        for message in self._broker.read(topics.TELEMETRY):
            partition, offset = message.partition() or 0, message.offset() or 0
            if offset >= start.get(partition, 0):
                row = codec.decode_telemetry(message.value() or b"")
                rows.setdefault(partition, []).append((offset, row))
        worst, compared, missing = 0.0, 0, 0
        for partition, told in rows.items():
            vehicles = Vehicles(self._options.vehicles)
            for begin in range(0, len(told), 4096):
                part = told[begin : begin + 4096]
                batch = Batch(
                    [row.vehicle_id for _, row in part],
                    np.array([row.event_time for _, row in part]),
                    np.array([[row.signals.get(n, np.nan) for n in INPUTS] for _, row in part]),
                    np.ones(len(part), bool),
                )
                for verdict in assess(model, [(vehicles, batch)], 0)[0]:
                    score = said.get((partition, part[verdict.row][0]))
                    if score is None and verdict.score is None:
                        continue
                    if score is None:
                        missing += 1
                        continue
                    for name, key, ours in (
                        ("autoencoder", "score", verdict.score),
                        ("lstm", "failure_probability", verdict.probability),
                    ):
                        theirs = score["models"].get(name, {}).get(key)
                        if ours is None or theirs is None:
                            worst = max(worst, float(ours is not theirs))
                            continue
                        worst = max(worst, abs(ours - theirs) / max(1.0, abs(ours)))
                        compared += 1
        if not compared or missing:
            raise WorkerFailed(f"{missing:,} scores are missing, {compared:,} could be compared")
        return float(f"{worst:.2g}")


def _one_by_one(model: serving.Loaded) -> float:
    """CPU us a message when each is a call of its own, as tutorials do."""
    row = np.zeros((1, len(model.norms.noise[0])), np.float32)
    window = np.zeros((1, WINDOW, row.shape[1]), np.float32)
    began = time.process_time()
    for _ in range(_ALONE):
        model.rows(row)
        model.windows(window, row)
    return round((time.process_time() - began) / _ALONE * 1e6, 1)


def _problems(told: dict[str, Any]) -> list[str]:
    """A sentence for each figure that was missed."""
    missed = []
    if told["rate_a_core"] < MIN_RATE:
        missed.append(f"{told['rate_a_core']:,} messages/s a core; {MIN_RATE:,.0f} are wanted")
    if told["p99_ms"] > MAX_P99_MS:
        missed.append(f"p99 {told['p99_ms']} ms from sensor to score; {MAX_P99_MS:.0f} are allowed")
    if told["by_both"] < MIN_BOTH:
        missed.append(
            f"{told['by_both']:.0%} of the rows have both scores; {MIN_BOTH:.0%} are wanted"
        )
    if told["difference"] > MAX_DIFFERENCE:
        missed.append(f"scores differ by {told['difference']}; {MAX_DIFFERENCE} is allowed")
    return missed


if __name__ == "__main__":
    leave(main())
