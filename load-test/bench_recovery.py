"""`cartwin bench recovery`: SIGKILL of a worker under load, in its parts, and nothing lost or doubled.

100,000 twins, 5,000 messages/s. A killed worker's partitions are served again when the first record that
nobody had applied is in the changelog `twins`. Three ways to come back:

  takeover      two workers; the other one takes over, with no copy of those partitions (cold)
  restart-cold  one worker; it is started again under its name with an empty store
  restart-warm  one worker; it is started again under its name with the store that it had

Afterwards every record of the whole log is held against every document of the changelog
(bench_accounts.py): lost and applied twice must be 0.
"""

import argparse
import io
import math
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import fastavro
import orjson
import redis

from bench_accounts import Accounts
from bench_broker import TELEMETRY, Broker
from bench_fresh import TWINS, FreshWrites
from bench_output import Screen, leave, machine
from bench_pace import Pacer
from bench_parts import Event, partitions_of, parts
from bench_records import Plan, Record, records, rounds
from bench_stack import at_least, common_options, on_stack
from bench_worker import GROUP, ROOT, Worker, WorkerFailed, all_applied, stop, until
from twin.local import Endpoints, Stack
from twin.local.options import BENCHMARK_JVM
from twin.local.ports import PortPicker

PARTITIONS: Final = 12
LIMITS: Final = {
    "takeover": {"total_s": 15.0, "restore_s": 8.0},
    "restart-cold": {"total_s": 15.0, "restore_s": 8.0},
    "restart-warm": {"total_s": 8.0, "restore_s": 2.0},
}
"""Seconds that must not be exceeded (medians)."""
_WORKERS: Final = {"takeover": 2, "restart-cold": 1, "restart-warm": 1}
_STEADY_S: Final = 6.0
_LOOK_S: Final = 2.0
"""How long before the kill the changelog is watched: it says how far each partition is."""
_AFTER_S: Final = 5.0
_BACK_S: Final = 120.0
_LOAD_S: Final = 300
"""Records are there for so long at most."""
_SCHEMA: Final = ROOT / "twin/wire/schemas/telemetry-v1.avsc"


def arguments(words: list[str] | None) -> argparse.Namespace:
    """The command line; ends with 2 and a sentence when it is wrong."""
    names = ",".join(LIMITS)
    parser = argparse.ArgumentParser(
        prog="cartwin bench recovery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--vehicles", type=int, default=100_000, help="twins (100000)")
    parser.add_argument("--rate", type=int, default=5000, help="messages/s (5000)")
    parser.add_argument("--runs", type=int, default=3, help="kills of each kind (3)")
    parser.add_argument("--ways", default=names, help=f"which, of {names}")
    common_options(parser)
    options = parser.parse_args(words)
    at_least(parser, options, {"vehicles": 100, "rate": 100, "runs": 1})
    options.ways = [way for way in dict.fromkeys(options.ways.split(",")) if way]
    if not options.ways or not set(options.ways) <= LIMITS.keys():
        parser.error(f"--ways {','.join(options.ways)!r}: {names} are accepted")
    return options


def main(words: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = arguments(words)

    def run(stack: Stack, endpoints: Endpoints, screen: Screen) -> dict[str, Any]:
        return Bench(options, stack.data_dir, endpoints, screen).run()

    return on_stack("recovery", options, run, partitions=PARTITIONS, kafka_jvm=BENCHMARK_JVM)


@dataclass(slots=True)
class Kill:
    """One kill and what came of it."""

    parts: dict[str, float]
    accounts: dict[str, Any]


class Bench:
    """All kills on one running stack."""

    def __init__(
        self, options: argparse.Namespace, work: Path, endpoints: Endpoints, screen: Screen
    ) -> None:
        self._options = options
        self._work = work
        self._endpoints = endpoints
        self._screen = screen
        self._broker = Broker(endpoints.kafka)
        self._ports = PortPicker()

    def run(self) -> dict[str, Any]:
        """Kill by kill, the ways in turn."""
        options = self._options
        kills: dict[str, list[Kill]] = {way: [] for way in options.ways}
        problems: list[str] = []
        for number in range(1, options.runs + 1):
            for way in options.ways:
                kill = self._kill(way, number)
                kills[way].append(kill)
                problems += [f"{way}, run {number}: {p}" for p in kill.accounts["problems"]]
                told = ", ".join(f"{name} {value:g}" for name, value in kill.parts.items())
                self._screen.say(f"{way}, run {number}: {told}")
                self._screen.say(f"  {kill.accounts}")
        results = {way: summary(runs) for way, runs in kills.items()}
        problems += missed_limits(results)
        self._screen.table("medians, seconds", [{"way": way, **r} for way, r in shown(results)])
        for problem in problems:
            self._screen.say(f"missed: {problem}")
        return {
            "bench": "recovery",
            "ok": not problems,
            "machine": machine(),
            "params": {
                "vehicles": options.vehicles,
                "rate": options.rate,
                "runs": options.runs,
                "partitions": PARTITIONS,
                "kafka_jvm": " ".join(BENCHMARK_JVM),
            },
            "results": results,
            "limits": {way: LIMITS[way] for way in options.ways},
            "ratio": {},
            "skipped": [],
            "lost": sum(k.accounts["lost"] for runs in kills.values() for k in runs),
            "applied_twice": sum(
                k.accounts["applied_twice"] for runs in kills.values() for k in runs
            ),
            "problems": problems,
        }

    def _kill(self, way: str, number: int) -> Kill:
        options = self._options
        folder = self._work / "runs" / f"{way}-{number}"
        folder.mkdir(parents=True)
        plan = Plan(
            options.vehicles, options.rate * _LOAD_S, time.time_ns() // 1_000_000 - 7_200_000
        )
        load = _flowing(plan)
        self._broker.reset(PARTITIONS, [GROUP])
        redis.Redis.from_url(self._endpoints.redis).flushall()
        self._broker.feed(next(load) for _ in range(options.vehicles))
        workers = [
            Worker(f"{way}-{number}-{place}", self._endpoints, folder, self._ports.free())
            for place in range(_WORKERS[way])
        ]
        pacer = Pacer(self._endpoints.kafka, load, options.rate)
        try:
            for worker in workers:
                worker.start()
            all_applied(self._broker, workers, 180)
            if len(workers) > 1:
                until(
                    lambda: all(partitions_of(w.events()) for w in workers),
                    lambda: "not every worker has partitions",
                    60,
                )
            pacer.start()
            time.sleep(_STEADY_S)
            told = self._back(way, workers)
            time.sleep(_AFTER_S)
            pacer.stop()
            if pacer.failed:
                raise WorkerFailed(f"the load failed: {pacer.failed}")
            all_applied(self._broker, [w for w in workers if w.child.exit_code() is None], 180)
        finally:
            stop(workers)
        return Kill(told, self._accounts())

    def _back(self, way: str, workers: list[Worker]) -> dict[str, float]:
        """Kill the first worker, see its partitions served again."""
        victim = workers[0]
        lost = partitions_of(victim.events())
        fresh = FreshWrites(self._endpoints.kafka, lost, self._broker.ends(TWINS))
        alive_until = time.monotonic() + _LOOK_S
        while time.monotonic() < alive_until:
            fresh.read(killed_at=math.inf)
        killed_at = victim.kill()
        if way != "takeover":
            if way == "restart-cold":
                shutil.rmtree(victim.store, ignore_errors=True)
            victim.start()
        successor = workers[-1]
        end = time.monotonic() + _BACK_S
        try:
            while not fresh.complete():
                successor.check()
                if time.monotonic() > end:
                    raise WorkerFailed(
                        f"{way}: partitions {sorted(lost - fresh.first.keys())} of the killed worker"
                        f" are not written again after {_BACK_S:.0f} s"
                    )
                fresh.read(killed_at)
        finally:
            fresh.close()
        first = min(fresh.first.values())
        told = parts(successor.events(), killed_at, lost, first, restarted=way != "takeover")
        if told is None:
            raise WorkerFailed(f"the log of {successor.name} does not say how it took over")
        told |= restoring_us(successor.events())
        told["all_partitions_s"] = round(max(fresh.first.values()) - killed_at, 3)
        written = self._broker.end(TELEMETRY)
        until(
            lambda: self._broker.committed(GROUP) >= written,
            lambda: "the backlog is not worked off",
            _BACK_S,
        )
        told["caught_up_s"] = round(time.time() - killed_at, 3)
        return told

    def _accounts(self) -> dict[str, Any]:
        accounts = Accounts()
        schema = fastavro.parse_schema(orjson.loads(_SCHEMA.read_bytes()))
        for message in self._broker.read(TELEMETRY):
            body = io.BytesIO(bytes(message.value() or b"")[5:])
            fields: Any = fastavro.schemaless_reader(body, schema, None)
            accounts.add_telemetry(
                fields, int(message.partition() or 0), int(message.offset() or 0)
            )
        for message in self._broker.read(TWINS):
            key, value = bytes(message.key() or b"").decode(), message.value()
            if key.startswith("#"):
                continue  # an owner's fence: no vehicle
            accounts.add_twin(key, orjson.loads(value) if value else None)
        return accounts.line()


def restoring_us(found: Iterable[Event]) -> dict[str, float]:
    """What the last restore spent on a twin, in microseconds: on reading it, on building it."""
    restored = [event.fields for event in found if event.name == "restored"][-1]
    twins = restored["twins"]
    return {
        f"{part}_us_a_twin": round(restored[f"seconds_{part}"] / twins * 1e6, 1)
        for part in ("reading", "building")
        if twins
    }


def summary(runs: list[Kill]) -> dict[str, Any]:
    """Median of each part, and every run beside them."""
    names = dict.fromkeys(name for run in runs for name in run.parts)
    return {
        **{
            name: round(median(r.parts[name] for r in runs if name in r.parts), 3) for name in names
        },
        "runs": [{**run.parts, **run.accounts} for run in runs],
    }


def shown(results: dict[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What fits a terminal."""
    for way, found in results.items():
        detected = found.get("detection_s", found.get("start_s"))
        yield (
            way,
            {
                "detection or start": detected,
                "rebalance": found["rebalance_s"],
                "restore": found["restore_s"],
                "read, us a twin": found.get("reading_us_a_twin"),
                "build, us a twin": found.get("building_us_a_twin"),
                "first write": found["first_write_s"],
                "total": found["total_s"],
                "all parts": found["all_partitions_s"],
                "caught up": found["caught_up_s"],
            },
        )


def missed_limits(results: dict[str, dict[str, Any]]) -> list[str]:
    """A sentence for each median above its limit."""
    return [
        f"{way}: {name} is {found[name]}, at most {limit:g} is accepted"
        for way, found in results.items()
        for name, limit in LIMITS[way].items()
        if found[name] > limit
    ]


def _flowing(plan: Plan) -> Iterator[Record]:
    for one in rounds(plan):
        yield from records(plan, one)


if __name__ == "__main__":
    leave(main())
