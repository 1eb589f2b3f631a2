"""The accounts: what the cars say they sent, held against what Kafka and the twins have. Pure.

    CarSide (car-side logs)  +  Evidence (Kafka records)  ->  account() -> figures and problems

Counted is what this fleet did: the sessions and vehicles of the car-side logs, commands since its
first connect. A message is (vehicle, session, sequence), wherever it is.

    lost        acknowledged to the car by its broker or covered by an ack of the uplink, but neither
                in `telemetry` nor in `rejected`, and the car does not hold it any more
    held        kept by the car's store at the end, and not in Kafka
    dropped     let go by a full store without an ack, and not in Kafka
    gaps        numbers that Kafka lacks in sessions, from 1 to the last that was sent; by the logs these
                are lost, held, dropped, or were never acknowledged, and another number is a problem
    duplicates  records in `telemetry` beyond one a message
    applied     messages in `telemetry` at or below the offset that their twin has applied
    alarms      cars whose twin's health became alarm; on healthy: without a fault, or before it

Nothing here or in `verdict*.py` imports a service or its contracts: a common mistake would hide.
"""

import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any, Final

from verdict_sides import CarSide, Evidence, Message, Place

FINAL: Final = frozenset(
    {"succeeded", "failed", "rejected", "expired", "cancelled", "undeliverable"}
)
SAID_BY_CAR: Final = frozenset({"succeeded", "failed", "rejected"})
EXAMPLES: Final = 5


@dataclass(slots=True)
class Verdict:
    """The figures of the JSON line, what is wrong, and what may still become right by waiting."""

    figures: dict[str, Any]
    problems: list[str]
    pending: list[str]

    def line(self) -> dict[str, Any]:
        """The JSON line: `ok` first, the problems last."""
        problems = self.pending + self.problems
        return {"ok": not problems, **self.figures, "problems": problems}


def account(cars: CarSide, evidence: Evidence) -> Verdict:
    """Hold the two sides against each other."""
    start = cars.start or 0
    kafka = {m: places for m, places in evidence.telemetry.items() if m[:2] in cars.sessions}
    rejected = [(at, m) for at, m in evidence.rejected if _ours(at, m, cars, start)]
    ends = Ends.of(cars, kafka.keys() | {m for _, m in rejected if m is not None})
    applied = {m for m, places in kafka.items() if _is_applied(evidence, m[0], places)}
    scores = [
        s for s in evidence.scores.values() if (s["vehicle_id"], s["session"]) in cars.sessions
    ]
    commands = [c for c in evidence.commands.values() if c["issued_at"] >= start]
    decided = [c for c in commands if "cause" in c or c["by"].startswith("rule:")]
    alarms = Alarms.of(cars, evidence, start)
    pending = [
        *_some("acknowledged messages are neither in telemetry nor in rejected", _texts(ends.lost)),
        *_some("messages are held by their cars and not in Kafka", _texts(ends.held)),
        *_some("messages in Kafka are not applied to their twin", _texts(kafka.keys() - applied)),
        *_some("cars that connected have no twin", cars.vehicles - evidence.twins.keys()),
        *_some(
            "commands of decisions have no final state",
            (f"{c['id']} ({c['state']})" for c in decided if c["state"] not in FINAL),
        ),
        *_some(
            "cars in alarm by their scores are not by their twin",
            {s["vehicle_id"] for s in scores if s["state"] == "alarm"} - alarms.all,
        ),
        *([] if decided else ["no command was decided by a rule"]),
        *alarms.missed(),
    ]
    problems = [
        *([] if cars.vehicles else ["no car connected"]),
        *_some("messages in Kafka were sent by no car", _texts(kafka.keys() - cars.sent)),
        *(
            []
            if ends.gaps == len(ends.missing)
            else [
                f"{ends.gaps} numbers are missing in the sessions in Kafka,"
                f" {len(ends.missing)} by the logs of the cars"
            ]
        ),
        *_some("values of twins are not those of the log", _wrong_values(evidence)),
        *_some("records in Kafka cannot be read", evidence.unreadable),
        *_some("healthy cars were in alarm", alarms.on_healthy),
        *_some("commands of decisions name no score", _causeless(decided, evidence)),
        *_some("commands ended otherwise than their car says", _contradicted(commands, cars)),
        *_some(
            "cars have no truth in the logs (the fleet did not end gracefully)",
            cars.vehicles - cars.faults.keys(),
        ),
    ]
    figures = {
        "connected": len(cars.vehicles),
        "sent": len(cars.sent),
        "acknowledged": len(cars.acknowledged),
        "kafka": len(kafka),
        "applied": len(applied),
        "rejected": len(rejected),
        "duplicates": sum(map(len, kafka.values())) - len(kafka),
        "twins": len(cars.vehicles & evidence.twins.keys()),
        "scores": len(scores),
        "alarms": len(alarms.all),
        "alarms_on_healthy": len(alarms.on_healthy),
        "commands": dict(sorted(Counter(c["state"] for c in commands).items())),
        "lost": len(ends.lost),
        "gaps": ends.gaps,
        "held": len(ends.held),
        "dropped": len(ends.dropped),
        "again": cars.again,
        "alarms_on_degraded": len(alarms.on_degraded),
        "degraded": len(alarms.degraded),
        "decided": len(decided),
        "versions": sorted({m["version"] for s in scores for m in s.get("models", {}).values()}),
    }
    return Verdict(figures, problems, pending)


@dataclass(frozen=True, slots=True)
class Ends:
    """What became of messages that are not in Kafka. `gaps` is counted from numbers alone."""

    missing: set[Message]
    lost: set[Message]
    held: set[Message]
    dropped: set[Message]
    gaps: int

    @classmethod
    def of(cls, cars: CarSide, arrived: Set[Message]) -> "Ends":
        """`arrived`: messages of these cars in `telemetry` or `rejected`."""
        missing = cars.sent - arrived
        covered = {m for m in missing if m[2] <= cars.covered.get(m[:2], -1)} - cars.dropped
        held = {m for m in missing if m[0] in cars.keeping} - covered - cars.dropped
        lost = {m for m in missing if m in cars.acknowledged or m in covered} - held
        last: dict[tuple[str, int], int] = {}
        for vehicle, session, number in cars.sent:
            last[vehicle, session] = max(number, last.get((vehicle, session), 0))
        present = sum(1 for m in arrived if 1 <= m[2] <= last.get(m[:2], 0))
        dropped = (missing & cars.dropped) - lost
        return cls(missing, lost, held, dropped, sum(last.values()) - present)


@dataclass(frozen=True, slots=True)
class Alarms:
    """Cars in alarm against what is really so. `expected`: failed by the end, or found before."""

    all: set[str]
    on_healthy: set[str]
    on_degraded: set[str]
    degraded: set[str]
    expected: set[str]

    @classmethod
    def of(cls, cars: CarSide, evidence: Evidence, start: int) -> "Alarms":
        """Judge every change of health to alarm by the time of the telemetry that was scored."""
        healthy: set[str] = set()
        found: set[str] = set()
        for change in evidence.health:
            what, vehicle = change["what"], change["vehicle_id"]
            if what["state"] != "alarm" or what["event_time"] < start:
                continue
            fault = cars.faults.get(vehicle)
            (healthy if fault is None or what["event_time"] < fault.onset else found).add(vehicle)
        faults = {v: f for v, f in cars.faults.items() if f is not None and v in cars.vehicles}
        failed = {v for v, f in faults.items() if f.failure <= cars.end}
        return cls(healthy | found, healthy, found, set(faults), failed | found)

    def missed(self) -> list[str]:
        """A sentence when not most of the expected cars were found."""
        if self.degraded and len(self.on_degraded) * 2 > len(self.expected):
            return []
        return [
            f"{len(self.on_degraded)} of {len(self.expected)} cars that failed or were about to had"
            f" an alarm ({len(self.degraded)} degrade); more than half is accepted"
        ]


def _ours(at: int, message: Message | None, cars: CarSide, start: int) -> bool:
    return message[:2] in cars.sessions if message is not None else at >= start


def _is_applied(evidence: Evidence, vehicle: str, places: Iterable[Place]) -> bool:
    twin = evidence.twins.get(vehicle)
    if twin is None or "telemetry" not in twin["applied"]:
        return False
    partition, offset = twin["applied"]["telemetry"]
    return any(p == partition and o <= offset for p, o in places)


def _wrong_values(evidence: Evidence) -> list[str]:
    """Signals of twins that have applied everything and still differ from the fold of the log."""
    wrong: list[str] = []
    for vehicle, twin in sorted(evidence.twins.items()):
        last = evidence.last.get(vehicle)
        if last is None or twin["applied"].get("telemetry") != list(last):
            continue
        fold, reported = evidence.folds[vehicle], twin["reported"]
        for name in sorted(fold.keys() | reported.keys()):
            ours = fold[name][4] if name in fold else None
            theirs = reported[name]["v"] if name in reported else None
            if _float32(ours) != _float32(theirs):
                wrong.append(f"{vehicle} {name} is {theirs}, in the log {ours}")
    return wrong


def _float32(value: Any) -> object:
    try:
        return struct.pack(">f", value)
    except (struct.error, OverflowError):
        return value


def _causeless(decided: Iterable[Mapping[str, Any]], evidence: Evidence) -> list[str]:
    wrong: list[str] = []
    for command in decided:
        cause = command.get("cause", {})
        score = evidence.scores.get((cause.get("partition", -1), cause.get("offset", -1)))
        named = (cause.get("topic"), cause.get("score"), command["vehicle_id"])
        if score is None or named != ("scores", score["id"], score["vehicle_id"]):
            wrong.append(f"{command['id']} (cause {cause.get('score')})")
    return wrong


def _contradicted(commands: Iterable[Mapping[str, Any]], cars: CarSide) -> list[str]:
    return [
        f"{c['id']} is {c['state']}, the car said {cars.outcomes.get(c['id'], 'nothing')}"
        for c in commands
        if c["state"] in SAID_BY_CAR and cars.outcomes.get(c["id"]) != c["state"]
    ]


def _texts(messages: Iterable[Message]) -> list[str]:
    return [f"{v} session {session} sequence {n}" for v, session, n in messages]


def _some(what: str, names: Iterable[str]) -> list[str]:
    """One sentence with number and examples; nothing when there are none."""
    names = sorted(names)
    if not names:
        return []
    more = ", ..." if len(names) > EXAMPLES else ""
    return [f"{len(names)} {what}: {', '.join(names[:EXAMPLES])}{more}"]
