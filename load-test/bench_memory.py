"""`cartwin bench memory`: resident bytes a twin, in the worker and in Redis.

A worker that has taken its partitions and holds nothing, then the same with every vehicle told four
times: the difference of resident memory (/proc) and of Redis' used_memory, by the number of twins.
Buffers that grew meanwhile are in it. Then the worker is started again, and restores the twins from
the changelog: that difference is told, too, and must keep the limit as well.

The limits are for documents of about 1 KB: those of cars that are online and send the 4 signals of the
index. `--signals 18` makes them 2.4 KB. What Redis has is told by key: documents, each part of the index.
"""

import argparse
import time
from itertools import islice
from pathlib import Path
from typing import Any, Final

import redis

from bench_broker import Broker
from bench_output import Screen, leave, machine
from bench_process import resident_bytes
from bench_records import NAMES, Plan, births, records, rounds
from bench_stack import at_least, common_options, on_stack
from bench_worker import Worker, all_applied, stop, until
from twin.local import Endpoints, Stack
from twin.local.ports import PortPicker
from twin.wire import keys

PARTITIONS: Final = 12
LIMITS: Final = {"worker": 6 * 1024, "worker_restored": 6 * 1024, "redis": 3 * 1024}
"""Bytes a twin that must not be exceeded."""
_TOLD: Final = 4
_CALM_S: Final = 3.0
_SAMPLE: Final = 500
"""So many twins are looked at for what one of them takes."""


def arguments(words: list[str] | None) -> argparse.Namespace:
    """The command line; ends with 2 and a sentence when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="cartwin bench memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--vehicles", type=int, default=100_000, help="twins (100000)")
    parser.add_argument(
        "--signals", type=int, default=4, help=f"signals of a twin, up to {len(NAMES)} (4)"
    )
    common_options(parser)
    options = parser.parse_args(words)
    at_least(parser, options, {"vehicles": 1000, "signals": 1})
    if options.signals > len(NAMES):
        parser.error(f"--signals {options.signals}: at most {len(NAMES)} are accepted")
    return options


def main(words: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = arguments(words)

    def run(stack: Stack, endpoints: Endpoints, screen: Screen) -> dict[str, Any]:
        return measure(options.vehicles, options.signals, stack.data_dir, endpoints, screen)

    return on_stack("memory", options, run, partitions=PARTITIONS)


def measure(
    vehicles: int, signals: int, work: Path, endpoints: Endpoints, screen: Screen
) -> dict[str, Any]:
    """Fill, look, start again, look again."""
    broker, view = Broker(endpoints.kafka), redis.Redis.from_url(endpoints.redis)
    folder = work / "runs"
    folder.mkdir()
    port = PortPicker().free()
    # The telemetry is of the last hour, and nobody goes on sending.
    worker = Worker("memory", endpoints, folder, port, STORE="memory", STALE_AFTER_S="36000")
    start_ms = time.time_ns() // 1_000_000 - 3_600_000
    plan = Plan(vehicles, (_TOLD - 1) * vehicles, start_ms, signals=signals)
    try:
        worker.start()
        until(worker.ready, lambda: "the worker is not ready", 120)
        empty, redis_empty = _calm(worker), _used(view)
        screen.say(f"empty: worker {empty >> 20} MB, redis {redis_empty >> 20} MB")
        broker.feed(births(plan, start_ms), "presence")
        for one in rounds(plan):
            broker.feed(records(plan, one))
        all_applied(broker, [worker], 60 + plan.total / 1000)
        full, redis_full = _calm(worker), _used(view)
        screen.say(f"{vehicles:,} twins: worker {full >> 20} MB, redis {redis_full >> 20} MB")
        document, by_key = _by_key(view, vehicles)
        screen.table(
            f"bytes a twin in Redis, documents of {document} bytes",
            [{"key": key, "bytes": size} for key, size in by_key.items()],
        )
        stop([worker])
        worker.start()
        all_applied(broker, [worker], 180)
        restored = _calm(worker)
        screen.say(f"restored: worker {restored >> 20} MB")
    finally:
        stop([worker])
    results = {
        "worker": round((full - empty) / vehicles),
        "worker_restored": round((restored - empty) / vehicles),
        "redis": round((redis_full - redis_empty) / vehicles),
    }
    problems = missed_limits(results)
    for problem in problems:
        screen.say(f"missed: {problem}")
    return {
        "bench": "memory",
        "ok": not problems,
        "machine": machine(),
        "params": {
            "vehicles": vehicles,
            "signals": signals,
            "records": plan.total,
            "partitions": PARTITIONS,
        },
        "results": results,
        "unit": "bytes a twin",
        "bytes": {
            "worker_empty": empty,
            "worker": full,
            "worker_restored": restored,
            "redis_empty": redis_empty,
            "redis": redis_full,
        },
        "document_bytes": document,
        "redis_by_key": by_key,
        "limits": LIMITS,
        "ratio": {},
        "skipped": [],
        "problems": problems,
    }


def missed_limits(results: dict[str, int]) -> list[str]:
    """A sentence for each figure above its limit."""
    return [
        f"{name}: {results[name]} bytes a twin, at most {limit} is accepted"
        for name, limit in LIMITS.items()
        if results[name] > limit
    ]


def _calm(worker: Worker) -> int:
    """Resident bytes when nothing comes any more."""
    time.sleep(_CALM_S)
    worker.check()
    return resident_bytes(worker.child.pid)


def _used(view: Any) -> int:
    return int(view.info("memory")["used_memory"])


def _by_key(view: Any, vehicles: int) -> tuple[int, dict[str, float]]:
    """Bytes of a twin's document, and of what Redis has of a twin under which key."""
    some = list(islice(view.scan_iter(match=keys.twin("*"), count=1000), _SAMPLE))
    values = view.mget(some)
    by_key = {keys.twin("*"): sum(map(view.memory_usage, some)) / len(some)}
    for key in sorted(view.scan_iter(count=1000)):
        if not key.startswith(keys.twin("").encode()):
            size = view.memory_usage(key, samples=0) / vehicles
            if size >= 1:
                by_key[key.decode()] = size
    document = sum(len(keys.document_of(value)) for value in values) / len(some)
    return round(document), {key: round(size, 1) for key, size in by_key.items()}


if __name__ == "__main__":
    leave(main())
