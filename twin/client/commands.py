"""What a car does with a command: take it once, refuse what is stale or wrong, report each step.

    received -> accepted -> running (progress) -> succeeded | failed        or at once: rejected

Pure: time comes in as an argument, outcomes go out as values. A command that comes again under the
same id never runs again, its last outcome is repeated. A cancel that overtakes its command is
remembered, so the command is rejected when it arrives.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from twin.wire.errors import Malformed
from twin.wire.records import OutcomeState

SEEN: Final = 1024
"""Ids a car remembers; the oldest is forgotten first."""

RUNNING: Final = 16
"""Commands a car works on at the same time; one more is rejected as busy."""

MAX_ID: Final = 128
FULL_POWER: Final = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the car says of a command: `at` in ms, `progress` 0 to 1, `name` where it knows it."""

    command_id: str
    state: OutcomeState
    at: int
    progress: float | None = None
    reason: str | None = None
    name: str | None = None

    @property
    def final(self) -> bool:
        """Nothing follows on this outcome."""
        return self.state in ("rejected", "succeeded", "failed")


@dataclass(frozen=True, slots=True)
class Kind:
    """One command a car knows: which arguments it takes, in words and as a check, and how long."""

    accepts: str
    check: Callable[[Mapping[str, Any]], bool]
    duration_ms: int


def _nothing(args: Mapping[str, Any]) -> bool:
    return not args


def _factor(args: Mapping[str, Any]) -> bool:
    factor = args.get("factor")
    return len(args) == 1 and type(factor) in (int, float) and 0.1 <= args["factor"] <= FULL_POWER


KINDS: Final[Mapping[str, Kind]] = {
    "ping": Kind("no arguments", _nothing, 0),
    "flash_lights": Kind("no arguments", _nothing, 1000),
    "limit_power": Kind("factor, a number from 0.1 to 1, and nothing else", _factor, 2000),
    "restore_power": Kind("no arguments", _nothing, 2000),
}


@dataclass(slots=True)
class _Job:
    name: str
    args: Mapping[str, Any]
    half_at: int
    end_at: int
    half_told: bool = False

    @property
    def next_at(self) -> int:
        return self.end_at if self.half_told else self.half_at


@dataclass(slots=True)
class Commands:
    """The commands of one car: `take` a message, `due` for what time brings, `next_at` when.

    `durations_ms` replaces the usual duration of the commands it names. `power_limit` is the share
    of engine power that the finished commands left.
    """

    durations_ms: Mapping[str, int] = field(default_factory=dict)
    power_limit: float = FULL_POWER
    _last: OrderedDict[str, Outcome] = field(default_factory=OrderedDict)
    _jobs: dict[str, _Job] = field(default_factory=dict)

    @property
    def next_at(self) -> int | None:
        """When `due` has something to say (ms); None while nothing runs."""
        return min((job.next_at for job in self._jobs.values()), default=None)

    def take(self, message: Mapping[str, Any], now_ms: int) -> list[Outcome]:
        """Outcomes of a message on `commands`. Raises `Malformed` when it cannot be answered."""
        command_id = message.get("id")
        if not isinstance(command_id, str) or not 0 < len(command_id) <= MAX_ID:
            raise Malformed(
                f"command id {str(command_id)[:80]!r}; 1 to {MAX_ID} characters are accepted"
            )
        if message.get("cancel") is True:
            return [self._cancel(command_id, now_ms)]
        last = self._last.get(command_id)
        if last is not None:
            return [last]
        refusal = self._refusal(message, now_ms)
        if refusal:
            name = message.get("name")
            known = name if isinstance(name, str) and name in KINDS else None
            return [self._tell(Outcome(command_id, "rejected", now_ms, reason=refusal, name=known))]
        return self._start(command_id, message["name"], message.get("args") or {}, now_ms)

    def due(self, now_ms: int) -> list[Outcome]:
        """Progress and ends that have come by `now_ms`, in the order of their times."""
        outcomes: list[Outcome] = []
        while True:
            ready = [(job.next_at, command_id) for command_id, job in self._jobs.items()]
            if not ready or min(ready)[0] > now_ms:
                return outcomes
            outcomes.append(self._advance(min(ready)[1], now_ms))

    def _refusal(self, message: Mapping[str, Any], now_ms: int) -> str | None:
        expires_at, name, args = (message.get(key) for key in ("expires_at", "name", "args"))
        if type(expires_at) is not int:
            return f"bad_request: expires_at {str(expires_at)[:40]!r}; ms since 1970 are accepted"
        if expires_at <= now_ms:
            return "expired"
        kind = KINDS.get(name) if isinstance(name, str) else None
        if kind is None:
            return "unknown_command"
        if args is not None and not isinstance(args, dict):
            return f"bad_args: {str(args)[:40]!r}; a JSON object is accepted"
        if not kind.check(args or {}):
            return f"bad_args: {name} accepts {kind.accepts}"
        if len(self._jobs) >= RUNNING:
            return f"busy: {RUNNING} commands are running"
        return None

    def _start(
        self, command_id: str, name: str, args: Mapping[str, Any], now_ms: int
    ) -> list[Outcome]:
        duration = self.durations_ms.get(name, KINDS[name].duration_ms)
        self._jobs[command_id] = _Job(name, args, now_ms + duration // 2, now_ms + duration)
        outcomes = [
            Outcome(command_id, "received", now_ms, name=name),
            Outcome(command_id, "accepted", now_ms, name=name),
            Outcome(command_id, "running", now_ms, progress=0.0, name=name),
        ]
        self._tell(outcomes[-1])
        if duration == 0:
            self._jobs[command_id].half_told = True
            outcomes.append(self._advance(command_id, now_ms))
        return outcomes

    def _advance(self, command_id: str, now_ms: int) -> Outcome:
        job = self._jobs[command_id]
        if not job.half_told:
            job.half_told = True
            return self._tell(Outcome(command_id, "running", now_ms, 0.5, name=job.name))
        del self._jobs[command_id]
        if job.name == "limit_power":
            self.power_limit = float(job.args["factor"])
        elif job.name == "restore_power":
            self.power_limit = FULL_POWER
        return self._tell(Outcome(command_id, "succeeded", now_ms, 1.0, name=job.name))

    def _cancel(self, command_id: str, now_ms: int) -> Outcome:
        job = self._jobs.pop(command_id, None)
        if job is not None:
            outcome = Outcome(command_id, "failed", now_ms, reason="cancelled", name=job.name)
            return self._tell(outcome)
        last = self._last.get(command_id)
        return last or self._tell(Outcome(command_id, "rejected", now_ms, reason="cancelled"))

    def _tell(self, outcome: Outcome) -> Outcome:
        self._last[outcome.command_id] = outcome
        self._last.move_to_end(outcome.command_id)
        if len(self._last) > SEEN:
            # A running command stays, or the same id could start it a second time.
            del self._last[next(known for known in self._last if known not in self._jobs)]
        return outcome
