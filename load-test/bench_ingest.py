"""`cartwin bench ingest`: CPU a message of the bridge from MQTT to Kafka, of cartwin and of its peers.

One Mosquitto, one Kafka, the same messages (JSON, the demo's 18 signals), the same work (decode, check,
Avro, acks=all): broker -> bridge -> Kafka. A feeder of bare TCP keeps a bounded number of messages on
their way, so no broker has to drop. Every run starts fresh processes on fresh topics and sessions; the
runs alternate, medians are told. CPU is that of the bridge's processes from the first measured message
until Kafka has the last; messages/s a core = 1,000,000 / CPU us. After each run every record is read
back: what cartwin lost or doubled makes the result not ok; what a peer did is told.
"""

import argparse
import io
import json
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import fastavro

from bench_bridges import BRIDGES, FEEDER, Bridge, Door
from bench_broker import TELEMETRY, Broker, BrokerFailed
from bench_output import Screen, leave, machine
from bench_peers import ROOT, Skipped
from bench_process import cpu_s, resident_bytes
from bench_run import settings_of
from bench_stack import at_least, common_options, on_stack
from bench_storm import LEAST_PER_S, StormFailed, storm
from mqtt_feeder import connect
from twin.local import Endpoints, LocalError, Stack
from twin.local.options import BENCHMARK_JVM
from twin.local.ports import PortPicker
from twin.local.process import Child, spawn, stop_all

REJECTED: Final = "rejected"
PARTITIONS: Final = 12
MOST_CPU_US: Final = 40.0
"""Of one uplink process, at QoS 1."""
BETTER_THAN: Final = {"paho": 3.0}
"""cartwin's CPU a message must be so many times less."""
_SUBJECT: Final = "cartwin"
_SLOWEST_PER_S: Final = 1000
_START_S: Final = 60
_STOP_S: Final = 15.0
_STORM_S: Final = 600
_LOOK_S: Final = 0.05
_FRAME_BYTES: Final = 5
_SCHEMA: Final = ROOT / "twin/wire/schemas/telemetry-v1.avsc"


class RunFailed(Exception):
    """A run gave no figures; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One run: CPU in us a message, messages a second of all processes together, resident MB."""

    cpu_us: float
    rate: float
    rss_mb: float
    broker_us: float
    lost: int
    doubled: int
    settings: dict[str, Any]


def arguments(words: list[str] | None) -> argparse.Namespace:
    """The command line; ends with 2 and a sentence when it is wrong."""
    names = ",".join(bridge.name for bridge in BRIDGES)
    parser = argparse.ArgumentParser(
        prog="cartwin bench ingest",
        description=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--messages", type=int, default=100_000, help="measured a run (100000)")
    parser.add_argument("--warmup", type=int, default=20_000, help="before them (20000)")
    parser.add_argument("--cars", type=int, default=10_000, help="they come from (10000)")
    parser.add_argument("--qos", default="1,0", help="1, 0 or both (1,0)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each bridge (3)")
    parser.add_argument(
        "--connect", type=int, default=18_000, help="cars that connect at once; 0 = none (18000)"
    )
    parser.add_argument("--peers", default=names, help=f"which, of {names}")
    common_options(parser)
    options = parser.parse_args(words)
    known = {bridge.name: bridge for bridge in BRIDGES}
    chosen = [name for name in options.peers.split(",") if name]
    if not chosen or set(chosen) - set(known):
        parser.error(f"--peers {options.peers!r}: {names} are accepted")
    if set(options.qos.split(",")) - {"0", "1"}:
        parser.error(f"--qos {options.qos!r}: 0, 1 or 1,0 is accepted")
    at_least(
        parser, options, {"messages": 1000, "warmup": 1000, "cars": 10, "runs": 1, "connect": 0}
    )
    options.peers = [known[name] for name in dict.fromkeys(chosen)]
    options.qos = [int(one) for one in dict.fromkeys(options.qos.split(","))]
    return options


def main(words: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = arguments(words)

    def run(stack: Stack, endpoints: Endpoints, screen: Screen) -> dict[str, Any]:
        return Bench(options, stack, endpoints, screen).run()

    return on_stack(
        "ingest",
        options,
        run,
        partitions=PARTITIONS,
        kafka_jvm=BENCHMARK_JVM,
        mqtt="mosquitto",
    )


class Bench:
    """All runs of all bridges on one running stack."""

    def __init__(
        self, options: argparse.Namespace, stack: Stack, endpoints: Endpoints, screen: Screen
    ) -> None:
        self._options = options
        self._screen = screen
        self._home = (options.data_dir / "peers").resolve()
        self._home.mkdir(parents=True, exist_ok=True)
        self._logs = stack.data_dir / "logs"
        self._mosquitto = next(c.pid for c in stack.children() if c.name == "mosquitto")
        self._broker = Broker(endpoints.kafka)
        self._mqtt_port = int(endpoints.mqtt[0].rpartition(":")[2])
        self._ports = PortPicker()
        self._figures: dict[str, list[Figures]] = {}
        self._skipped: dict[str, str] = {}
        self._problems: list[str] = []
        self._connecting: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        """Install, run, sum up."""
        options = self._options
        heads = self._install()
        for number in range(1, options.runs + 1):
            for qos in options.qos:
                for bridge in options.peers:
                    if bridge.name in heads:
                        self._try(bridge, heads[bridge.name], qos, number)
        self._storm()
        return self._line()

    def _storm(self) -> None:
        cars, uplink = self._options.connect, BRIDGES[0]
        if not cars:
            return
        self._screen.say(f"{cars} cars connect at once, are cut off and connect again")
        self._broker.reset(PARTITIONS, [])
        ports = [self._ports.free()]
        door = Door(self._mqtt_port, self._broker.bootstrap, 1, "storm", ports)
        argv, environment = uplink.start(uplink.install(self._home), door, 0)
        child = spawn(uplink.name, argv, environment, self._logs / "storm.log")
        deadline = time.monotonic() + _STORM_S
        try:
            until_ready(uplink, [child], ports, deadline)
            self._connecting = storm(
                self._broker,
                self._mqtt_port,
                cars,
                lambda: still_going([child], deadline, lambda: "the storm is not over"),
            )
        except (RunFailed, StormFailed, BrokerFailed) as error:
            self._problems.append(f"storm: {error}")
        finally:
            stop_all([child], _STOP_S)

    def _install(self) -> dict[str, list[str]]:
        heads: dict[str, list[str]] = {}
        for bridge in self._options.peers:
            self._screen.say(f"{bridge.name}: {bridge.about}")
            try:
                heads[bridge.name] = list(bridge.install(self._home))
            except (Skipped, LocalError) as reason:
                self._skipped[bridge.name] = str(reason)
                self._screen.say(f"SKIPPED {bridge.name}: {reason}")
        return heads

    def _try(self, bridge: Bridge, head: list[str], qos: int, number: int) -> None:
        name = f"{bridge.name}, QoS {qos}, run {number}"
        try:
            figures = self._one(bridge, head, qos, number)
        except (RunFailed, BrokerFailed) as error:
            self._problems.append(f"{name}: {error}")
            self._screen.say(f"{name} failed: {error}")
            return
        self._figures.setdefault(key(bridge.name, qos), []).append(figures)
        if bridge.name.startswith(_SUBJECT) and (figures.lost or figures.doubled):
            self._problems.append(f"{name}: {figures.lost} lost, {figures.doubled} doubled")
        self._screen.say(
            f"{name}: {figures.cpu_us:.1f} us CPU a message, {figures.rate:,.0f} messages/s,"
            f" {figures.rss_mb:.0f} MB, {figures.lost} lost, {figures.doubled} doubled"
        )

    def _one(self, bridge: Bridge, head: list[str], qos: int, number: int) -> Figures:
        options = self._options
        run = f"{qos}-{number}"
        self._broker.reset(PARTITIONS, [])
        ports = [self._ports.free() for _ in range(bridge.processes)]
        door = Door(self._mqtt_port, self._broker.bootstrap, qos, run, ports)
        total = options.warmup + options.messages
        deadline = time.monotonic() + _START_S + total / _SLOWEST_PER_S
        children: list[Child] = []
        try:
            for process in range(bridge.processes):
                argv, environment = bridge.start(head, door, process)
                log = self._logs / f"{bridge.name}-{run}-{process}.log"
                children.append(spawn(bridge.name, argv, environment, log))
            until_ready(bridge, children, ports, deadline)
            self._feed(0, options.warmup, qos, children, deadline)
            before = [cpu_s(child.pid) for child in children]
            broker_before = cpu_s(self._mosquitto)
            seconds = self._feed(options.warmup, options.messages, qos, children, deadline)
            spent = sum(cpu_s(c.pid) for c in children) - sum(before)
            broker_spent = cpu_s(self._mosquitto) - broker_before
            resident = sum(resident_bytes(child.pid) for child in children)
            settings = settings_of(children[0].log) or uplink_settings(bridge.processes)
        finally:
            stop_all(children, _STOP_S)
            for client in bridge.clients(door):
                connect(self._mqtt_port, client).close()  # a clean session ends the kept one
        lost, doubled = self._account(total)
        return Figures(
            cpu_us=spent / options.messages * 1e6,
            rate=options.messages / seconds,
            rss_mb=resident / 2**20,
            broker_us=broker_spent / options.messages * 1e6,
            lost=lost,
            doubled=doubled,
            settings=settings,
        )

    def _feed(
        self, first: int, count: int, qos: int, children: list[Child], deadline: float
    ) -> float:
        """Feed messages until Kafka has them all; seconds it took."""
        told = {"port": self._mqtt_port, "messages": count, "first": first, "qos": qos}
        words = [f"--{name}={value}" for name, value in told.items()]
        feeder = subprocess.Popen(  # noqa: S603 - our own program
            [*FEEDER, *words, f"--cars={self._options.cars}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert feeder.stdin is not None
        assert feeder.stdout is not None
        try:
            if not feeder.stdout.readline():
                raise RunFailed("the feeder could not connect to Mosquitto")
            feeder.stdin.write("0\n")
            feeder.stdin.flush()
            begun = time.monotonic()
            while (arrived := self._broker.end(TELEMETRY) - first) < count:
                feeder.stdin.write(f"{arrived}\n")
                feeder.stdin.flush()
                still_going(children, deadline, lambda: self._state(arrived, count))
                time.sleep(_LOOK_S)
            seconds = time.monotonic() - begun
            feeder.stdin.write(f"{arrived}\n")
            feeder.stdin.flush()
            feeder.wait(_STOP_S)
        except (BrokenPipeError, subprocess.TimeoutExpired) as error:
            raise RunFailed(f"the feeder ended before its time: {error!r}") from error
        finally:
            feeder.kill()
            feeder.communicate()
        return seconds

    def _state(self, arrived: int, count: int) -> str:
        rejected = self._broker.end(REJECTED)
        return f"{arrived} of {count} messages are in Kafka, {rejected} were rejected"

    def _account(self, total: int) -> tuple[int, int]:
        """Messages that Kafka does not have, and those it has more than once."""
        schema = fastavro.parse_schema(json.loads(_SCHEMA.read_text()))
        seen: Counter[int] = Counter()
        for message in self._broker.read(TELEMETRY):
            seen[event_time(message.value() or b"", schema)] += 1
        return total - len(seen), sum(seen.values()) - len(seen)

    def _line(self) -> dict[str, Any]:
        options = self._options
        results = {name: summary(runs) for name, runs in self._figures.items()}
        ratio = ratios(results)
        missed = missed_targets(results, ratio)
        for name in (key(b.name, q) for q in options.qos for b in options.peers):
            if (
                len(self._figures.get(name, ())) < options.runs
                and name.split()[0] not in self._skipped
            ):
                missed.append(f"{name} has fewer than {options.runs} good runs")
        self._screen.table(
            "medians; ratio = CPU of a peer / CPU of cartwin at the same QoS",
            [
                {
                    "bridge": name,
                    "CPU us": found["cpu_us"],
                    "messages/s a core": found["per_core"],
                    "messages/s here": found["rate"],
                    "MB": found["rss_mb"],
                    "Mosquitto us": found["broker_us"],
                    "ratio": ratio.get(name, ""),
                }
                for name, found in results.items()
            ],
        )
        if self._connecting:
            self._screen.say(f"storm: {self._connecting}")
            slowest = min(self._connecting[n]["connects_per_s"] for n in ("first", "again"))
            if slowest < LEAST_PER_S:
                missed.append(f"{slowest} connections/s, {LEAST_PER_S:.0f} are wanted")
        problems = self._problems + missed
        for problem in problems:
            self._screen.say(f"missed: {problem}")
        return {
            "bench": "ingest",
            "ok": not problems,
            "machine": machine(),
            "params": {
                "messages": options.messages,
                "qos": options.qos,
                "warmup": options.warmup,
                "cars": options.cars,
                "runs": options.runs,
                "partitions": PARTITIONS,
                "kafka_jvm": " ".join(BENCHMARK_JVM),
            },
            "results": results,
            "ratio": ratio,
            "targets": {"cpu_us at QoS 1": MOST_CPU_US, **BETTER_THAN},
            "connecting": self._connecting,
            "lost": sum(
                run.lost
                for name, runs in self._figures.items()
                if name.startswith(_SUBJECT)
                for run in runs
            ),
            "skipped": [{"peer": name, "why": why} for name, why in self._skipped.items()],
            "problems": problems,
        }


def uplink_settings(workers: int) -> dict[str, Any]:
    """What an uplink is told; the rest are its defaults."""
    return {"UPLINK_VEHICLE_RATE": 100_000, "UPLINK_WORKERS": workers}


def key(name: str, qos: int) -> str:
    """Of a result."""
    return f"{name} qos{qos}"


def until_ready(bridge: Bridge, children: list[Child], ports: list[int], deadline: float) -> None:
    """Return when every process is subscribed; raises `RunFailed`."""
    for child, port in zip(children, ports, strict=True):
        while not (_ready(port) if bridge.has_health else settings_of(child.log)):
            still_going(children, deadline, lambda: f"{bridge.name} is not ready")
            time.sleep(_LOOK_S)


def still_going(children: list[Child], deadline: float, state: Callable[[], str]) -> None:
    """Raises `RunFailed` when a bridge has ended or the time is over."""
    for child in children:
        if child.exit_code() is not None:
            raise RunFailed(f"{child.name} ended with {child.exit_code()}, see {child.log}")
    if time.monotonic() > deadline:
        raise RunFailed(f"too slow: {state()}")


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def event_time(value: bytes, schema: Any) -> int:
    """The one number that tells the feeder's messages apart."""
    record: Any = fastavro.schemaless_reader(io.BytesIO(value[_FRAME_BYTES:]), schema, None)
    return int(record["event_time"])


def summary(runs: list[Figures]) -> dict[str, Any]:
    """Medians of a bridge's runs, every run beside them, and its settings."""
    cpu_us = median(run.cpu_us for run in runs)
    return {
        "cpu_us": round(cpu_us, 1),
        "per_core": round(1e6 / cpu_us),
        "rate": round(median(run.rate for run in runs)),
        "rss_mb": round(median(run.rss_mb for run in runs)),
        "broker_us": round(median(run.broker_us for run in runs), 1),
        "lost": sum(run.lost for run in runs),
        "doubled": sum(run.doubled for run in runs),
        "runs": [{"cpu_us": round(run.cpu_us, 1), "rate": round(run.rate)} for run in runs],
        "settings": runs[0].settings,
    }


def ratios(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    """How many times the CPU of one uplink process each peer takes at the same QoS."""
    found = {}
    for name, result in results.items():
        bridge, _, qos = name.partition(" ")
        ours = results.get(f"{_SUBJECT} {qos}")
        if ours and not bridge.startswith(_SUBJECT):
            found[name] = round(result["cpu_us"] / ours["cpu_us"], 2)
    return found


def missed_targets(results: dict[str, dict[str, Any]], ratio: dict[str, float]) -> list[str]:
    """A sentence for each figure that is not reached; what did not run has none."""
    missed = []
    ours = results.get(key(_SUBJECT, 1))
    if ours and ours["cpu_us"] > MOST_CPU_US:
        missed.append(f"{ours['cpu_us']} us a message at QoS 1, at most {MOST_CPU_US} are wanted")
    missed += [
        f"{name}: {ratio[name]} times our CPU, {least} is wanted"
        for peer, least in BETTER_THAN.items()
        for name in (key(peer, 1), key(peer, 0))
        if name in ratio and ratio[name] < least
    ]
    return missed


if __name__ == "__main__":
    leave(main())
