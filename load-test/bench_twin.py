"""`cartwin bench twin`: CPU a message and rate of one process, of cartwin and of its peers.

The same Kafka, records (Avro in Confluent framing, 18 signals), durability (acks=all, changelog
acknowledged before offsets are committed) and work for all: decode, fold by event time per signal, a
state of about 1 KB a vehicle, one changelog record an update. Every run starts a fresh process on fresh
topics; the runs of the peers alternate, and medians are told. A run whose final states are not the fold
of all records makes the result not ok. The targets are those of `cartwin-table`, which does what the
peers do; `cartwin` keeps the read model in Redis besides, and its ratios are told, too. Method:
bench_run.py; peers: bench_peers.py, peers/.
"""

import argparse
import shutil
import time
from statistics import median
from typing import Any, Final

import redis
from rich.progress import Progress

from bench_broker import Broker, BrokerFailed
from bench_output import Screen, leave, machine
from bench_peers import PEERS, Job, Peer, Skipped, environment
from bench_records import Expected, Plan, records, rounds
from bench_run import Figures, Load, RunFailed, check, measure
from bench_stack import at_least, common_options, on_stack
from twin.local import Endpoints, LocalError, Stack
from twin.local.options import BENCHMARK_JVM
from twin.local.ports import PortPicker
from twin.local.process import spawn, stop_all

PARTITIONS: Final = 12
TARGETS: Final = {"faust": 8.0, "quix": 2.0, "kafka-streams": 1.5}
"""cartwin must be so many times better than a peer in CPU a message and in rate."""
_SUBJECT: Final = "cartwin-table"
_WITH_VIEW: Final = "cartwin"
_SLOWEST_PER_S: Final = 1000
_START_S: Final = 90
_STOP_S: Final = 15.0


def arguments(words: list[str] | None) -> argparse.Namespace:
    """The command line; ends with 2 and a sentence when it is wrong."""
    names = ",".join(peer.name for peer in PEERS)
    parser = argparse.ArgumentParser(
        prog="cartwin bench twin",
        description=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--messages", type=int, default=400_000, help="measured records (400000)")
    parser.add_argument("--vehicles", type=int, default=100_000, help="vehicles (100000)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each peer (3)")
    parser.add_argument("--peers", default=names, help=f"which, of {names}")
    common_options(parser)
    options = parser.parse_args(words)
    known = {peer.name: peer for peer in PEERS}
    chosen = [name for name in options.peers.split(",") if name]
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        parser.error(f"--peers {options.peers!r}: {names} are accepted")
    at_least(parser, options, {"messages": 1000, "vehicles": 10, "runs": 1})
    options.peers = [known[name] for name in dict.fromkeys(chosen)]
    return options


def main(words: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = arguments(words)

    def run(stack: Stack, endpoints: Endpoints, screen: Screen) -> dict[str, Any]:
        return Bench(options, stack, endpoints, screen).run()

    return on_stack("twin", options, run, partitions=PARTITIONS, kafka_jvm=BENCHMARK_JVM)


class Bench:
    """All runs of all peers on one running stack."""

    def __init__(
        self, options: argparse.Namespace, stack: Stack, endpoints: Endpoints, screen: Screen
    ) -> None:
        self._options = options
        self._screen = screen
        self._home = (options.data_dir / "peers").resolve()
        self._home.mkdir(parents=True, exist_ok=True)
        self._work = stack.data_dir
        self._pids = {c.name: c.pid for c in stack.children() if c.name in ("kafka", "redis")}
        self._broker = Broker(endpoints.kafka)
        self._redis = endpoints.redis
        self._ports = PortPicker()
        self._figures: dict[str, list[Figures]] = {}
        self._skipped: dict[str, str] = {}
        self._problems: list[str] = []

    def run(self) -> dict[str, Any]:
        """Install, run, sum up."""
        options = self._options
        heads = self._install()
        load = self._load()
        for number in range(1, options.runs + 1):
            for peer in options.peers:
                if peer.name not in heads:
                    continue
                try:
                    figures = self._one(peer, heads[peer.name], load, number)
                except (RunFailed, BrokerFailed) as error:
                    self._problems.append(f"{peer.name}, run {number}: {error}")
                    self._screen.say(f"{peer.name}, run {number} failed: {error}")
                    continue
                self._figures.setdefault(peer.name, []).append(figures)
                self._problems += [f"{peer.name}, run {number}: {p}" for p in figures.problems]
                self._screen.say(
                    f"{peer.name}, run {number}: {figures.cpu_us:.1f} us CPU a message,"
                    f" {figures.rate:,.0f} messages/s, {figures.rss_mb:.0f} MB"
                    + ("" if not figures.problems else f"; NOT EQUAL: {figures.problems[0]}")
                )
        return self._line()

    def _install(self) -> dict[str, list[str]]:
        heads: dict[str, list[str]] = {}
        for peer in self._options.peers:
            self._screen.say(f"{peer.name}: {peer.about}")
            try:
                heads[peer.name] = list(peer.install(self._home))
            except (Skipped, LocalError) as reason:
                self._skipped[peer.name] = str(reason)
                self._screen.say(f"SKIPPED {peer.name}: {reason}")
        return heads

    def _load(self) -> Load:
        options = self._options
        start = time.time_ns() // 1_000_000 - 3_600_000
        plan = Plan(options.vehicles, options.messages, start)
        self._screen.say(f"making {plan.total:,} records")
        expected = Expected(plan)
        fed = []
        for one in rounds(plan):
            expected.add(one)
            fed.append(list(records(plan, one)))
        return Load(fed[0], [record for batch in fed[1:] for record in batch], expected)

    def _one(self, peer: Peer, head: list[str], load: Load, number: int) -> Figures:
        run = f"{peer.name}-{number}"
        group = peer.group.format(run=run)
        changelog = peer.changelog.format(group=group)
        folder = self._work / "runs" / run
        folder.mkdir(parents=True)
        job = Job(
            self._broker.bootstrap, self._redis, group, PARTITIONS, folder, self._ports.free()
        )
        self._broker.reset(PARTITIONS, [group])
        redis.Redis.from_url(self._redis).flushall()
        self._broker.feed(load.warmup)
        argv = [*head, *peer.arguments(job)]
        log = self._work / "logs" / f"{run}.log"
        child = spawn(peer.name, argv, environment(peer, job), log)
        total = len(load.warmup) + len(load.measured)
        try:
            with self._screen.progress() as bars:
                figures = measure(
                    self._broker,
                    child,
                    changelog,
                    group,
                    load,
                    self._pids,
                    _START_S + total / _SLOWEST_PER_S,
                    _bar(bars, f"{peer.name}, run {number}", total),
                )
        finally:
            stop_all([child], _STOP_S)
            shutil.rmtree(folder, ignore_errors=True)
        figures.settings = figures.settings or dict(peer.settings)
        figures.problems, figures.state_bytes = check(
            self._broker, changelog, peer.form, load.expected
        )
        return figures

    def _line(self) -> dict[str, Any]:
        options = self._options
        results = {name: summary(runs) for name, runs in self._figures.items()}
        ratio, rate_ratio = ratios(results, "cpu_us"), ratios(results, "rate")
        with_view = {f: ratios(results, f, _WITH_VIEW) for f in ("cpu_us", "rate")}
        missed = missed_targets(ratio, rate_ratio)
        for name in (peer.name for peer in options.peers):
            if len(self._figures.get(name, ())) < options.runs and name not in self._skipped:
                missed.append(f"{name} has fewer than {options.runs} good runs")
        self._screen.table(
            f"medians; ratio = peer / {_SUBJECT} (CPU), {_SUBJECT} / peer (rate)",
            [
                {
                    "peer": name,
                    "CPU us": found["cpu_us"],
                    "messages/s": found["rate"],
                    "MB": found["rss_mb"],
                    "state B": found["state_bytes"],
                    "changelog": found["changelog_records"],
                    "CPU ratio": ratio.get(name, ""),
                    "rate ratio": rate_ratio.get(name, ""),
                    "with view": with_view["cpu_us"].get(name, ""),
                    "rate with view": with_view["rate"].get(name, ""),
                }
                for name, found in results.items()
            ],
        )
        problems = self._problems + missed
        for problem in problems:
            self._screen.say(f"missed: {problem}")
        return {
            "bench": "twin",
            "ok": not problems,
            "machine": machine(),
            "params": {
                "messages": options.messages,
                "vehicles": options.vehicles,
                "runs": options.runs,
                "partitions": PARTITIONS,
                "warmup": options.vehicles,
                "kafka_jvm": " ".join(BENCHMARK_JVM),
            },
            "results": results,
            "ratio": ratio,
            "rate_ratio": rate_ratio,
            "with_view": {"ratio": with_view["cpu_us"], "rate_ratio": with_view["rate"]},
            "targets": TARGETS,
            "skipped": [{"peer": name, "why": why} for name, why in self._skipped.items()],
            "problems": problems,
        }


def summary(runs: list[Figures]) -> dict[str, Any]:
    """Medians of a peer's runs, every run beside them, and its settings."""
    return {
        "cpu_us": round(median(run.cpu_us for run in runs), 1),
        "rate": round(median(run.rate for run in runs)),
        "rss_mb": round(median(run.rss_mb for run in runs)),
        "state_bytes": round(median(run.state_bytes for run in runs)),
        "changelog_records": round(median(run.changelog_records for run in runs)),
        "others_cpu_us": {
            name: round(median(run.others_cpu_us[name] for run in runs), 1)
            for name in runs[0].others_cpu_us
        },
        "equal": not any(run.problems for run in runs),
        "runs": [
            {"cpu_us": round(run.cpu_us, 1), "rate": round(run.rate), "s": round(run.seconds, 1)}
            for run in runs
        ],
        "settings": runs[0].settings,
    }


def ratios(
    results: dict[str, dict[str, Any]], figure: str, subject: str = _SUBJECT
) -> dict[str, float]:
    """How many times better than each peer `subject` is; empty when it did not run."""
    ours = results.get(subject, {}).get(figure)
    if not ours:
        return {}
    better = {}
    for name, found in results.items():
        if name not in (_SUBJECT, _WITH_VIEW) and found[figure]:
            quotient = found[figure] / ours
            better[name] = round(quotient if figure == "cpu_us" else 1 / quotient, 2)
    return better


def missed_targets(cpu: dict[str, float], rate: dict[str, float]) -> list[str]:
    """A sentence for each ratio below its target; peers that did not run have none."""
    return [
        f"{what} of {name}: {found[name]} times, {least} is wanted"
        for what, found in (("CPU", cpu), ("rate", rate))
        for name, least in TARGETS.items()
        if name in found and found[name] < least
    ]


def _bar(bars: Progress, text: str, total: int) -> Any:
    task = bars.add_task(text, total=total)
    return lambda done: bars.update(task, completed=min(done, total))


if __name__ == "__main__":
    leave(main())
