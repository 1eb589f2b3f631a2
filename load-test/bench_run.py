"""One run of one peer: warm up, feed, watch, stop, and hold its changelog against the reference.

    round 0 (one record a vehicle) -> all of it committed -> [ feed the rest -> all committed ] -> check

What is in brackets is measured, so start-up, JIT and the making of states are in no figure, for all
alike. CPU is that of the process and its children from the first record fed until the offsets of the
last one are committed. The rate is taken from the changelog, between the end of feeding (which needs
a core itself) and the last changelog record.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from bench_broker import Broker, BrokerFailed
from bench_process import cpu_s, resident_bytes
from bench_records import Expected, Record, vehicle_id
from bench_state import Form, vehicle_of
from twin.local.process import Child

_SAMPLE_S: Final = 0.1
_ASK_COMMITTED_EVERY: Final = 5
_EXAMPLES: Final = 5
_STEADY_SHARE: Final = 0.3
"""Of the messages at least so many must be left when feeding ends, else the whole time counts."""


class RunFailed(Exception):
    """A run gave no figures; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Changelog records so far and CPU seconds so far, at a moment (s)."""

    at: float
    changelog: int
    cpu: float


@dataclass(slots=True)
class Figures:
    """What one run showed. CPU in us a message, rate in messages a second of one process."""

    cpu_us: float
    rate: float
    seconds: float
    rss_mb: float
    changelog_records: int
    state_bytes: int
    others_cpu_us: dict[str, float]
    settings: dict[str, Any]
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Load:
    """What is fed: the records of round 0, those that are measured, and what must come of both."""

    warmup: list[Record]
    measured: list[Record]
    expected: Expected


def measure(
    broker: Broker,
    child: Child,
    changelog: str,
    group: str,
    load: Load,
    others: dict[str, int],
    deadline_s: float,
    progress: Callable[[int], None],
) -> Figures:
    """Warm the running `child` up, feed it and watch it. `others`: pids whose CPU is told beside.

    Round 0 must be in Kafka already. Raises `RunFailed` when the process ends or is too slow.
    """
    watch = _Watch(broker, child, changelog, group, time.monotonic() + deadline_s, progress)
    warm = len(load.warmup)
    watch.until_committed(warm)
    before = {name: cpu_s(pid) for name, pid in others.items()}
    first = watch.sample()
    feeder = _Feeder(broker, load.measured)
    feeder.start()
    samples = [first, *watch.until_committed(warm + len(load.measured), feeder)]
    last = samples[-1]
    messages = len(load.measured)
    spent = {name: (cpu_s(pid) - before[name]) / messages * 1e6 for name, pid in others.items()}
    return Figures(
        cpu_us=(last.cpu - first.cpu) / messages * 1e6,
        rate=rate(samples, feeder.ended, messages),
        seconds=last.at - first.at,
        rss_mb=resident_bytes(child.pid) / 2**20,
        changelog_records=last.changelog - first.changelog,
        state_bytes=0,
        others_cpu_us={name: round(us, 1) for name, us in spent.items()},
        settings=settings_of(child.log),
    )


def rate(samples: list[Sample], fed_at: float, messages: int) -> float:
    """Messages a second while nothing else runs: behind `fed_at` (s), up to the last record."""
    total = samples[-1].changelog - samples[0].changelog
    end = next(sample for sample in samples if sample.changelog == samples[-1].changelog)
    start = next((sample for sample in samples if sample.at >= fed_at), samples[0])
    if end.changelog - start.changelog < _STEADY_SHARE * total or end.at <= start.at:
        start = samples[0]
    if end.at <= start.at or total <= 0:
        return 0.0
    return (end.changelog - start.changelog) / total * messages / (end.at - start.at)


def check(broker: Broker, changelog: str, form: Form, expected: Expected) -> tuple[list[str], int]:
    """What of the last states is not as the fold of all records, and a state's mean size in bytes."""
    last: dict[bytes, bytes] = {}
    for message in broker.read(changelog):
        key, value = message.key() or b"", message.value()
        if isinstance(key, str):
            key = key.encode()
        if value is None:
            last.pop(key, None)
        else:
            last[key] = value if isinstance(value, bytes) else value.encode()
    wrong: list[str] = []
    states = {vehicle_of(key): value for key, value in last.items()}
    for number in range(expected.vehicles):
        value = states.pop(vehicle_id(number), None)
        if value is None:
            wrong.append(f"{vehicle_id(number)} has no state")
        else:
            wrong += expected.differences(number, form(value))
    wrong += [f"{vehicle} was never sent" for vehicle in states]
    size = sum(map(len, last.values())) // max(1, len(last))
    if not wrong:
        return [], size
    return [f"{len(wrong)} differences from the fold: {'; '.join(wrong[:_EXAMPLES])}"], size


def settings_of(log: Path) -> dict[str, Any]:
    """What a peer says of its settings in the first line that is JSON; empty when it says nothing."""
    with log.open("rb") as lines:
        for line in lines:
            if line.startswith(b'{"settings"'):
                told: dict[str, Any] = orjson.loads(line)["settings"]
                return told
    return {}


class _Feeder(threading.Thread):
    """Feeds beside the watching; `ended` (s) is when Kafka had all of it."""

    def __init__(self, broker: Broker, records: Iterable[Record]) -> None:
        super().__init__(name="feeder", daemon=True)
        self._broker = broker
        self._records = records
        self.ended = float("inf")
        self.failed: BrokerFailed | None = None

    def run(self) -> None:
        try:
            self._broker.feed(self._records)
        except BrokerFailed as error:
            self.failed = error
        self.ended = time.monotonic()


class _Watch:
    """Looks at Kafka and the process until everything is committed."""

    def __init__(
        self,
        broker: Broker,
        child: Child,
        changelog: str,
        group: str,
        deadline: float,
        progress: Callable[[int], None],
    ) -> None:
        self._broker = broker
        self._child = child
        self._changelog = changelog
        self._group = group
        self._deadline = deadline
        self._progress = progress

    def sample(self) -> Sample:
        """The state of things now."""
        changelog = self._broker.end(self._changelog)
        return Sample(time.monotonic(), changelog, cpu_s(self._child.pid))

    def until_committed(self, records: int, feeder: _Feeder | None = None) -> list[Sample]:
        """Samples until the group has committed `records`."""
        samples: list[Sample] = []
        while True:
            if self._child.exit_code() is not None:
                raise RunFailed(self._child.obituary())
            if feeder is not None and feeder.failed is not None:
                raise RunFailed(str(feeder.failed))
            if time.monotonic() > self._deadline:
                done = samples[-1].changelog if samples else 0
                raise RunFailed(
                    f"not finished in time: {self._broker.committed(self._group)} of {records}"
                    f" records are committed, {done} changelog records written"
                )
            samples.append(self.sample())
            self._progress(samples[-1].changelog)
            if len(samples) % _ASK_COMMITTED_EVERY == 0 and (
                self._broker.committed(self._group) >= records
            ):
                # The changelog was acknowledged before: a last look sees all of it.
                return [*samples, self.sample()]
            time.sleep(_SAMPLE_S)
