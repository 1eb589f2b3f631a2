"""`cartwin bench api`: how soon the API answers while telemetry flows, and whether its answers are true.

One worker, two API replicas, own Kafka and Redis. A paced producer writes telemetry of a fleet straight
to Kafka, at the rate that is asked for, while clients (bench_calls.py) read, list and write through both
replicas. All cars are online, so desired and commands also go to the downlink topic.

  decided writes   PATCH desired with and without If-Match, POST command, PUT attributes: each waits for
                   the word of the twin's owner
  repeated         POST command again with its Idempotency-Key through the other replica
  reads            GET twin, with If-None-Match, GET desired with the token of a write, GET list

Afterwards what was answered is held against what is there: each car's desired version is the number of
PATCHes that were accepted, and every command exists, once.
"""

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx
import orjson

from bench_broker import Broker
from bench_calls import CALLS_PER_S, DECIDED, MIX, TIMEOUT_S
from bench_output import Screen, leave, machine
from bench_pace import Pacer
from bench_process import cpu_s
from bench_records import Plan, Record, births, records, rounds
from bench_stack import at_least, common_options, on_stack
from bench_worker import ROOT, Worker, WorkerFailed, all_applied, stop, until
from twin.local import Endpoints, Stack
from twin.local.options import BENCHMARK_JVM
from twin.local.ports import HOST, PortPicker
from twin.local.process import Child, spawn, stop_all

PARTITIONS: Final = 12
REPLICAS: Final = 2
VEHICLES: Final = 2000
CARS: Final = 200
"""Vehicles that clients call about."""
LIMIT_MS: Final = 100.0
"""Of the 99th percentile of all decided writes."""
_WARM_S: Final = 20.0
"""Broker, worker and replicas run for so long under the same load before it counts: they compile, and
fill their caches."""
_PERCENTS: Final = (50, 90, 99)
_STEP: Final = re.compile(r'cartwin_twin_step_seconds_(sum|count)\{step="(\w+)"\} (\S+)')


def arguments(words: list[str] | None) -> argparse.Namespace:
    """The command line; ends with 2 and a sentence when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="cartwin bench api",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=int, default=30, help="measured time (30)")
    parser.add_argument("--rate", type=int, default=2000, help="telemetry messages/s (2000)")
    common_options(parser)
    options = parser.parse_args(words)
    at_least(parser, options, {"seconds": 5, "rate": 1})
    return options


def main(words: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = arguments(words)

    def run(stack: Stack, endpoints: Endpoints, screen: Screen) -> dict[str, Any]:
        servers = {c.name: c.pid for c in stack.children() if c.name in ("kafka", "redis")}
        return Bench(options, stack.data_dir, endpoints, servers, screen).run()

    return on_stack("api", options, run, partitions=PARTITIONS, kafka_jvm=BENCHMARK_JVM)


class Bench:
    """A fleet, its telemetry, two replicas and their clients."""

    def __init__(
        self,
        options: argparse.Namespace,
        work: Path,
        endpoints: Endpoints,
        servers: dict[str, int],
        screen: Screen,
    ) -> None:
        self._options = options
        self._endpoints = endpoints
        self._servers = servers
        self._screen = screen
        self._broker = Broker(endpoints.kafka)
        self._folder = work / "runs"
        self._folder.mkdir()
        ports = PortPicker()
        self._health = ports.free()
        self._worker = Worker("api", endpoints, self._folder, self._health, STORE="memory")
        self._ports = [ports.free() for _ in range(REPLICAS)]
        self._urls = [f"http://{HOST}:{port}" for port in self._ports]
        self._children: list[Child] = []

    def run(self) -> dict[str, Any]:
        """Start all, measure, and hold the answers against what is there."""
        options = self._options
        total = options.rate * (options.seconds + 120)
        plan = Plan(VEHICLES, total, now_ms())
        load = live(plan)
        self._broker.feed(next(load) for _ in range(VEHICLES))
        self._broker.feed(births(plan, now_ms()), "presence")
        pacer = Pacer(self._endpoints.kafka, load, options.rate)
        try:
            self._worker.start()
            self._start_replicas()
            all_applied(self._broker, [self._worker], 120)
            until(self._replicas_ready, lambda: "an API replica is not ready", 60)
            pacer.start()
            told = self._measure(pacer)
            pacer.stop()
            all_applied(self._broker, [self._worker], 120)
            problems = judge(told["tally"], *self._there(told["tally"]))
        finally:
            stop_all(self._children, 20.0)
            stop([self._worker])
        if pacer.failed:
            problems.append(f"the telemetry failed: {pacer.failed}")
        return self._line(told, problems)

    def _start_replicas(self) -> None:
        for number, port in enumerate(self._ports, 1):
            environment = {
                **self._worker.environment,
                "API_HOST": HOST,
                "API_PORT": str(port),
                "HEALTH_PORT": "0",
            }
            name = f"api-{number}"
            argv = [sys.executable, "-m", "twin", "api"]
            self._children.append(spawn(name, argv, environment, self._folder / f"{name}.log"))

    def _replicas_ready(self) -> bool:
        self._check()
        try:
            return all(httpx.get(f"{url}/readyz").status_code == 200 for url in self._urls)
        except httpx.TransportError:
            return False

    def _check(self) -> None:
        self._worker.check()
        for child in self._children:
            if child.exit_code() not in (None, 0):
                raise WorkerFailed(child.obituary())

    def _measure(self, pacer: Pacer) -> dict[str, Any]:
        """Run the clients; their tally, and what the processes did meanwhile."""
        options = self._options
        self._screen.say(f"{CALLS_PER_S} calls/s for {_WARM_S:g} + {options.seconds} s")
        tally = self._folder / "tally.json"
        argv = [
            *(sys.executable, str(ROOT / "load-test/bench_calls.py"), "--urls"),
            *(",".join(self._urls), "--cars", str(CARS), "--warm-s", str(_WARM_S)),
            *("--seconds", str(options.seconds), "--tally", str(tally)),
        ]
        clients = spawn("clients", argv, self._worker.environment, self._folder / "clients.log")
        self._children.append(clients)
        pids = {
            "worker": self._worker.child.pid,
            **{child.name: child.pid for child in self._children},
            **self._servers,
        }
        self._sleep(_WARM_S)
        written, begin = pacer.written, time.monotonic()
        steps, cpu = self._steps(), {name: cpu_s(pid) for name, pid in pids.items()}
        self._sleep(options.seconds)
        seconds = time.monotonic() - begin
        rate = (pacer.written - written) / seconds
        cpu = {name: (cpu_s(pid) - cpu[name]) / seconds for name, pid in pids.items()}
        later = self._steps()
        end = time.monotonic() + 2 * TIMEOUT_S
        while clients.exit_code() is None and time.monotonic() < end:
            self._sleep(0.1)
        if clients.exit_code() != 0:
            raise WorkerFailed(clients.obituary())
        return {
            "tally": orjson.loads(tally.read_bytes()),
            "rate": rate,
            "cpu": cpu,
            "steps": {
                name: 1000 * (total - steps.get(name, (0, 0))[0]) / (count - before)
                for name, (total, count) in later.items()
                if (before := steps.get(name, (0, 0))[1]) < count
            },
        }

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(0.5, left))
            self._check()

    def _steps(self) -> dict[str, tuple[float, float]]:
        """Step of a batch -> seconds in all, batches."""
        text = httpx.get(f"http://{HOST}:{self._health}/metrics").text
        found = {(name, what): float(number) for what, name, number in _STEP.findall(text)}
        return {
            name: (total, found[name, "count"])
            for (name, what), total in found.items()
            if what == "sum"
        }

    def _there(self, tally: dict[str, Any]) -> tuple[dict[str, int], dict[str, str]]:
        """Desired version of each car, and its commands: id -> vehicle."""
        versions: dict[str, int] = {}
        commands: dict[str, str] = {}
        with httpx.Client(base_url=self._urls[0], timeout=TIMEOUT_S) as api:
            for name in tally["cars"]:
                versions[name] = (
                    api.get(f"/v1/twins/{name}/desired").raise_for_status().json()["version"]
                )
                page = api.get(
                    f"/v1/twins/{name}/commands", params={"limit": 200}
                ).raise_for_status()
                commands |= {entry["id"]: name for entry in page.json()["items"]}
        return versions, commands

    def _line(self, told: dict[str, Any], problems: list[str]) -> dict[str, Any]:
        tally, options = told["tally"], self._options
        results = {kind: figures(tally["samples"].get(kind, [])) for kind in MIX}
        decided = figures([one for kind in DECIDED for one in tally["samples"].get(kind, [])])
        results["decided_writes"] = decided
        if decided["p99"] > LIMIT_MS:
            problems.append(
                f"p99 of decided writes is {decided['p99']} ms, at most {LIMIT_MS:g} is accepted"
            )
        if told["rate"] < 0.95 * options.rate:
            problems.append(
                f"{told['rate']:.0f} messages/s were written, {options.rate} were asked for"
            )
        self._screen.table(
            "ms, from when a call was due to its answer",
            [
                {"call": kind, **{**found, "status": json.dumps(found["status"])}}
                for kind, found in results.items()
            ],
        )
        self._screen.say(f"CPU, cores: {told['cpu']}")
        self._screen.say(f"batches of the worker, mean ms to: {told['steps']}")
        for problem in problems:
            self._screen.say(f"missed: {problem}")
        return {
            "bench": "api",
            "ok": not problems,
            "machine": machine(),
            "params": {
                "seconds": options.seconds,
                "rate": options.rate,
                "vehicles": VEHICLES,
                "called": CARS,
                "calls_per_s": CALLS_PER_S,
                "replicas": REPLICAS,
                "partitions": PARTITIONS,
                "kafka_jvm": " ".join(BENCHMARK_JVM),
            },
            "results": results,
            "unit": "ms",
            "limits": {"decided_writes": {"p99": LIMIT_MS}},
            "telemetry_rate": round(told["rate"], 1),
            "cpu_cores": {name: round(value, 3) for name, value in told["cpu"].items()},
            "worker_steps_ms": {name: round(value, 2) for name, value in told["steps"].items()},
            "ratio": {},
            "skipped": [],
            "problems": problems,
        }


def figures(samples: list[tuple[float, int]]) -> dict[str, Any]:
    """Number, percentiles (nearest rank) and greatest of latencies, and how often each status."""
    latencies = sorted(latency for latency, _ in samples)
    count = len(latencies)
    ranks = {
        f"p{p}": latencies[max(0, -(-count * p // 100) - 1)] if count else 0.0 for p in _PERCENTS
    }
    return {
        "n": count,
        **ranks,
        "max": latencies[-1] if count else 0.0,
        "status": {str(status): n for status, n in sorted(Counter(s for _, s in samples).items())},
    }


def judge(tally: dict[str, Any], versions: dict[str, int], commands: dict[str, str]) -> list[str]:
    """A sentence for each kind of answer that is not true, or missing."""
    problems = [f"{n} times: {what}" for what, n in tally["faults"].items()]
    for kind, n in tally["unanswered"].items():
        problems.append(f"{n} calls {kind} were not answered, or with 5xx")
    wrong = [
        f"{name} is at {versions[name]}, {accepted} were accepted"
        for name, (accepted, unknown) in tally["cars"].items()
        if not accepted <= versions[name] <= accepted + unknown
    ]
    if wrong:
        problems.append(f"{len(wrong)} cars have another desired version: {', '.join(wrong[:5])}")
    missing = tally["commands"].keys() - commands.keys()
    if missing:
        problems.append(f"{len(missing)} commands are not there: {', '.join(sorted(missing)[:3])}")
    more = commands.keys() - tally["commands"].keys()
    if len(more) > tally["unanswered"].get("post_command", 0):
        problems.append(
            f"{len(more)} commands were made that nobody was told of: {', '.join(sorted(more)[:3])}"
        )
    return problems


def live(plan: Plan) -> Iterator[Record]:
    """Records of the plan, as if each was measured and arrived when it is taken."""
    for one in rounds(plan):
        ahead = int(one.times.max()) - now_ms()
        for key, value, headers in records(plan, replace(one, times=one.times - ahead)):
            others = [header for header in headers if header[0] != "ingested-at"]
            yield key, value, [("ingested-at", str(now_ms()).encode()), *others]


def now_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    leave(main())
