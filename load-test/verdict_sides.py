"""The two sides of the accounts: what the cars say, and what Kafka has, as plain collections."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Message = tuple[str, int, int]
"""Vehicle id, session, sequence."""
Place = tuple[int, int]
"""Partition, offset."""

HEAD: Final = frozenset({"vehicle_id", "event_time", "session", "sequence", "assigned", "suspect"})


@dataclass(frozen=True, slots=True)
class Fault:
    """What is really so about a degraded car; times in ms."""

    mode: str
    onset: int
    failure: int


@dataclass(slots=True)
class CarSide:
    """What the cars say. `end` is the last event time (ms); `faults` holds None for healthy cars.

    `keeping`: cars that keep messages until acks cover them; `covered` the highest number by session,
    `dropped` what a full store let go before. `again` counts what stores sent once more.
    """

    vehicles: set[str] = field(default_factory=set)
    sessions: set[tuple[str, int]] = field(default_factory=set)
    sent: set[Message] = field(default_factory=set)
    acknowledged: set[Message] = field(default_factory=set)
    keeping: set[str] = field(default_factory=set)
    covered: dict[tuple[str, int], int] = field(default_factory=dict)
    dropped: set[Message] = field(default_factory=set)
    again: int = 0
    outcomes: dict[str, str] = field(default_factory=dict)
    faults: dict[str, Fault | None] = field(default_factory=dict)
    start: int | None = None
    end: int = 0

    def add(self, line: Mapping[str, Any]) -> None:
        """Take one line of a car-side log. Raises KeyError for a field that is not there."""
        event, vehicle = line["e"], line["v"]
        if event == "connect":
            self.vehicles.add(vehicle)
            self.sessions.add((vehicle, line["session"]))
            self.start = min(line["t"], self.start or line["t"])
            if line.get("store"):
                self.keeping.add(vehicle)
        elif event == "sent":
            self.sent.add((vehicle, line["session"], line["sequence"]))
            self.end = max(self.end, line["t"])
        elif event == "acked":
            self.acknowledged.add((vehicle, line["session"], line["sequence"]))
        elif event == "again":
            self.again += 1
        elif event == "covered":
            session = (vehicle, line["session"])
            self.covered[session] = max(line["number"], self.covered.get(session, 0))
        elif event == "dropped":
            self.dropped.add((vehicle, line["session"], line["number"]))
        elif event == "command":
            self.outcomes[line["id"]] = line["state"]
        elif event == "truth":
            healthy = line["mode"] is None
            self.faults[vehicle] = (
                None if healthy else Fault(line["mode"], line["onset"], line["failure"])
            )


@dataclass(slots=True)
class Evidence:
    """What Kafka has about some vehicles; fed record by record, in the order of each partition.

    `folds` holds, per vehicle and signal, the greatest (event_time, session, sequence, value bytes)
    and the value. A record that lacks what the accounts need raises KeyError.
    """

    vehicles: set[str]
    telemetry: dict[Message, list[Place]] = field(default_factory=dict)
    rejected: list[tuple[int, Message | None]] = field(default_factory=list)
    twins: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    commands: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    scores: dict[Place, Mapping[str, Any]] = field(default_factory=dict)
    health: list[Mapping[str, Any]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    last: dict[str, Place] = field(default_factory=dict)
    folds: dict[str, dict[str, tuple[int, int, int, bytes, float]]] = field(default_factory=dict)

    def add_telemetry(self, fields: Mapping[str, Any], place: Place) -> None:
        """A decoded record of `telemetry`; everything but its head is a signal, None = absent."""
        vehicle = fields["vehicle_id"]
        if vehicle not in self.vehicles:
            return
        order = (fields["event_time"], fields["session"], fields["sequence"])
        self.telemetry.setdefault((vehicle, *order[1:]), []).append(place)
        self.last[vehicle] = place
        fold = self.folds.setdefault(vehicle, {})
        for name, value in fields.items():
            if name in HEAD or value is None:
                continue
            entry = (*order, struct.pack(">d", value), value)
            if name not in fold or entry > fold[name]:
                fold[name] = entry

    def add_rejected(self, vehicle: str | None, at: int, message: Message | None) -> None:
        """A record of `rejected`; `message` when its original bytes say which one it was."""
        if vehicle in self.vehicles:
            self.rejected.append((at, message))

    def add_twin(self, vehicle: str, twin: Mapping[str, Any] | None) -> None:
        """A record of `twins`; None = deleted."""
        if vehicle not in self.vehicles:
            return
        if twin is None:
            self.twins.pop(vehicle, None)
        else:
            self.twins[vehicle] = _with(twin, "applied", "reported")

    def add_command(self, key: str, command: Mapping[str, Any] | None) -> None:
        """A record of `ledger`, key `vehicle/command`; None = removed."""
        vehicle, _, command_id = key.partition("/")
        if vehicle not in self.vehicles:
            return
        if command is None:
            self.commands.pop(command_id, None)
        else:
            self.commands[command_id] = _with(
                command, "id", "vehicle_id", "state", "by", "issued_at"
            )

    def add_score(self, score: Mapping[str, Any], place: Place) -> None:
        """A record of `scores`."""
        if score["vehicle_id"] in self.vehicles:
            self.scores[place] = _with(score, "id", "session", "state")

    def add_change(self, change: Mapping[str, Any]) -> None:
        """A record of `changes`; only those of health count."""
        if change["vehicle_id"] in self.vehicles and change["kind"] == "health":
            _with(change["what"], "state", "event_time")
            self.health.append(change)


def _with(record: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    for name in names:
        record[name]
    return record
