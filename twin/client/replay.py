"""Recorded cars through the MQTT door: plan, publish at a pace, find every row again, compare.

    files -> [plan] -> MQTT -> uplink -> Kafka telemetry | rejected -> worker -> twins
                          <------ window: published, not yet seen in Kafka ------>

The window reaches from the car to Kafka: a row leaves it when it is read there. So a slow bridge
slows the replay down, and no broker ever queues more of it than Mosquitto keeps by default (1,000).
One thread does it all; waiting is waiting for records.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from twin.client.publish import Publisher
from twin.client.replay_check import Arrivals, read_twins
from twin.client.replay_plan import Plan
from twin.client.replay_source import BadRecording
from twin.client.replay_tally import Mismatch, Tally

WINDOW: Final = 1_000
PATIENCE_S: Final = 60.0
_TICK_S: Final = 0.02
_SHOW_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replay is, in rows; `twins` = cars whose twin has applied its last row."""

    sent: int
    acknowledged: int
    kafka: int
    twins: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """The accounts of one replay."""

    plan: Plan
    sent: int
    tally: Tally
    twins: int
    mismatches: list[Mismatch]
    seconds: float
    problems: list[str] = field(default_factory=list)
    """One sentence for each check that was missed."""

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def equal(self) -> bool:
        """Each row is in Kafka and each car has a twin that reports its last values."""
        return self.tally.seen == self.plan.rows and not self.mismatches

    def document(self) -> dict[str, Any]:
        """The line that `--json` prints; `kafka` and `rejected` are distinct rows found there."""
        plan, tally = self.plan, self.tally
        return {
            "ok": self.ok,
            "rows": plan.rows,
            "kafka": tally.accepted,
            "rejected": tally.rejected,
            "twins": self.twins,
            "equal": self.equal,
            "duplicates": tally.duplicates,
            "suspect": plan.suspect,
            "by_signal": {
                name: {"rows": one.rows, "worst": one.worst} for name, one in plan.by_signal.items()
            },
            "by_reason": tally.by_reason,
            "seconds": round(self.seconds, 2),
        }


def check_clock(plan: Plan, now_ms: int, speed: float | None) -> None:
    """Refuse rows that would arrive before their event time; raises `BadRecording`."""
    takes_ms = 0.0 if speed is None else (plan.last - plan.first) / speed
    ahead_ms = plan.last - now_ms - takes_ms
    if ahead_ms > 0:
        raise BadRecording(
            f"the last row has event time {plan.last}, {ahead_ms / 1000:.0f} s after it would be"
            " sent; rows of the past are accepted (choose an earlier --start)"
        )


def run(
    plan: Plan,
    mqtt_urls: Sequence[str],
    bootstrap: str,
    speed: float | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    patience_s: float = PATIENCE_S,
) -> Result:
    """Replay and check. `speed`: recorded seconds per second, None = as fast as Kafka takes it.

    Gives up when nothing new arrives for `patience_s` though something is under way; the result
    then says what is missing. Raises `MqttUnavailable`, `KafkaUnavailable`, `BadRecording`.
    """
    began = time.monotonic()
    with Arrivals(bootstrap, plan) as arrivals, Publisher(mqtt_urls) as publisher:
        sending = _Sending(arrivals, publisher, patience_s, on_progress)
        for vehicle_id, event_time, payload in plan.messages():
            due = 0.0 if speed is None else began + (event_time - plan.first) / 1000 / speed
            if not sending.wait(due):
                break
            publisher.telemetry(vehicle_id, payload)
            sending.sent += 1
        sending.drain()
        lost_connections = publisher.faults
    tally = arrivals.tally

    def on_twins(twins: int) -> None:
        on_progress(Progress(sending.sent, sending.sent, tally.seen, twins))

    twins, mismatches = read_twins(bootstrap, plan, tally.ends, on_twins, patience_s)
    result = Result(plan, sending.sent, tally, twins, mismatches, time.monotonic() - began)
    result.problems.extend(_problems(result))
    if tally.seen != plan.rows:
        result.problems.extend(lost_connections)
    return result


class _Sending:
    """The window and the pace; the main loop's waiting."""

    def __init__(
        self,
        arrivals: Arrivals,
        publisher: Publisher,
        patience_s: float,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.sent = 0
        self._arrivals = arrivals
        self._publisher = publisher
        self._patience_s = patience_s
        self._on_progress = on_progress
        self._seen = 0
        self._moved = time.monotonic()
        self._shown = 0.0

    def wait(self, due: float) -> bool:
        """Return when the next row may go: the window is open and `due` (monotonic) has come.

        False when nothing arrives any more.
        """
        while self.sent - self._seen >= WINDOW or (due and time.monotonic() < due):
            left = due - time.monotonic() if self.sent - self._seen < WINDOW else _TICK_S
            if not self._poll(max(0.0, min(left, _TICK_S))):
                return False
        return True

    def drain(self) -> None:
        """Return when all that was sent is in Kafka, or nothing arrives any more."""
        while self.sent > self._seen:
            if not self._poll(_TICK_S):
                return

    def _poll(self, timeout_s: float) -> bool:
        self._publisher.work()
        self._arrivals.poll(timeout_s)
        now = time.monotonic()
        seen = self._arrivals.tally.seen
        if seen != self._seen or seen == self.sent:
            self._moved = now
        self._seen = seen
        if now - self._shown > _SHOW_S:
            self._shown = now
            self._on_progress(Progress(self.sent, self._publisher.acknowledged, seen))
        return now - self._moved < self._patience_s


def _problems(result: Result) -> list[str]:
    plan, tally = result.plan, result.tally
    found = []
    if tally.seen != plan.rows:
        found.append(
            f"{plan.rows - tally.seen} of {plan.rows} rows are not in Kafka"
            f" ({result.sent} were sent)"
        )
    if tally.by_reason != plan.by_reason:
        found.append(
            f"rejected {_reasons(tally.by_reason)}, expected {_reasons(plan.by_reason)}:"
            f" does the uplink run with VALIDATION={plan.mode}"
            + (" and UPLINK_VEHICLE_RATE=0?" if "rate_limited" in tally.by_reason else "?")
        )
    marked = plan.suspect if plan.mode == "warn" else 0
    if tally.suspect != marked:
        found.append(
            f"{tally.suspect} records are marked suspect, expected {marked}:"
            f" does the uplink run with VALIDATION={plan.mode}?"
        )
    cars = sum(1 for vehicle in plan.vehicles.values() if vehicle.accepted)
    if result.twins != cars:
        found.append(f"{result.twins} of {cars} cars have a twin")
    if result.mismatches:
        first = "; ".join(map(str, result.mismatches[:10]))
        found.append(f"{len(result.mismatches)} reported values are not the last ones: {first}")
    return found


def _reasons(by_reason: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(by_reason.items())) or "nothing"
