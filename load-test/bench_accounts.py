"""Was every record applied, once, and by its values? The whole log against the whole changelog. Pure.

    telemetry, in order of offsets -> fold and revision after each record of a vehicle
    twins, in order of offsets     -> each document against the fold at the offset that it has applied

A twin's revision is the number of its records that changed it. So at every document in the log, not
only the last one, a revision too high is a record applied twice, one too low is a record lost on the
way. Documents of a lower epoch than their key has are a former owner's late writes: they do not count
but are told. Imports nothing of the services.
"""

import struct
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

HEAD: Final = frozenset({"vehicle_id", "event_time", "session", "sequence", "assigned", "suspect"})
EXAMPLES: Final = 5

Value = tuple[int, int, int, bytes, float]


@dataclass(slots=True)
class Vehicle:
    """What the log says of one vehicle, and what its twin's documents said."""

    values: dict[str, Value] = field(default_factory=dict)
    offsets: list[int] = field(default_factory=list)
    revisions: list[int] = field(default_factory=list)
    """Revision after the record at the same place in `offsets`."""
    partition: int = -1
    epoch: int = -1
    last: Mapping[str, Any] | None = None

    def revision_at(self, offset: int) -> int:
        """Revision after all records up to `offset`."""
        place = bisect_right(self.offsets, offset)
        return self.revisions[place - 1] if place else 0


@dataclass(slots=True)
class Accounts:
    """Fed with all of `telemetry`, then all of `twins`; `line` sums up."""

    vehicles: dict[str, Vehicle] = field(default_factory=dict)
    records: int = 0
    documents: int = 0
    late_writes: int = 0
    twice: int = 0
    missing: int = 0
    problems: dict[str, list[str]] = field(default_factory=dict)

    def add_telemetry(self, fields: Mapping[str, Any], partition: int, offset: int) -> None:
        """A decoded record; everything but its head is a signal, None = absent."""
        self.records += 1
        vehicle = self.vehicles.setdefault(fields["vehicle_id"], Vehicle())
        vehicle.partition = partition
        order = (fields["event_time"], fields["session"], fields["sequence"])
        changed = False
        for name, value in fields.items():
            if name in HEAD or value is None:
                continue
            entry = (*order, struct.pack(">d", value), value)
            if name not in vehicle.values or entry > vehicle.values[name]:
                vehicle.values[name] = entry
                changed = True
        vehicle.offsets.append(offset)
        vehicle.revisions.append((vehicle.revisions or [0])[-1] + changed)

    def add_twin(self, vehicle_id: str, document: Mapping[str, Any] | None) -> None:
        """A record of `twins`, in the order of its partition; None = deleted."""
        self.documents += 1
        vehicle = self.vehicles.get(vehicle_id)
        if vehicle is None or document is None:
            self._note("twins that no record made, or deleted", vehicle_id)
            return
        epoch = document.get("epoch", 0)
        if epoch < vehicle.epoch:
            self.late_writes += 1
            return
        vehicle.epoch = epoch
        vehicle.last = document
        partition, offset = document["applied"]["telemetry"]
        if partition != vehicle.partition:
            self._note("twins on another partition than their records", vehicle_id)
            return
        revision, expected = document["revision"], vehicle.revision_at(offset)
        if revision > expected:
            self.twice += 1
            self._note("documents with records applied twice", f"{vehicle_id} at {offset}")
        elif revision < expected:
            self.missing += 1
            self._note("documents that lack a record", f"{vehicle_id} at {offset}")

    @property
    def lost(self) -> int:
        """Records of the log that no last document has: behind its offset, or below its revision."""
        return sum(self._lost(vehicle) for vehicle in self.vehicles.values())

    @property
    def applied_twice(self) -> int:
        """Documents, of all in the log, whose revision is higher than their records can make it."""
        return self.twice

    def line(self) -> dict[str, Any]:
        """Counts, and sentences about what is wrong."""
        for vehicle_id, vehicle in self.vehicles.items():
            if vehicle.last is None:
                self._note("vehicles without a twin", vehicle_id)
            elif self._lost(vehicle):
                self._note("twins that lack records of the log", vehicle_id)
            else:
                for difference in _differences(vehicle):
                    self._note(
                        "values that are not those of the fold", f"{vehicle_id} {difference}"
                    )
        return {
            "log_records": self.records,
            "twins": sum(vehicle.last is not None for vehicle in self.vehicles.values()),
            "documents": self.documents,
            "late_writes": self.late_writes,
            "lost": self.lost,
            "applied_twice": self.applied_twice,
            "problems": [
                f"{len(names)} {what}: {', '.join(names[:EXAMPLES])}"
                for what, names in self.problems.items()
            ],
        }

    def _lost(self, vehicle: Vehicle) -> int:
        if vehicle.last is None:
            return len(vehicle.offsets)
        offset = vehicle.last["applied"]["telemetry"][1]
        behind: int = len(vehicle.offsets) - bisect_right(vehicle.offsets, offset)
        revision: int = vehicle.last["revision"]
        return behind + max(0, vehicle.revision_at(offset) - revision)

    def _note(self, what: str, name: str) -> None:
        self.problems.setdefault(what, []).append(name)


def _differences(vehicle: Vehicle) -> Iterator[str]:
    assert vehicle.last is not None
    reported = vehicle.last["reported"]
    for name in sorted(vehicle.values.keys() | reported.keys()):
        ours, theirs = vehicle.values.get(name), reported.get(name)
        if ours is None or theirs is None:
            yield f"{name} is {theirs}, in the log {ours}"
        elif (theirs["t"], theirs["n"], theirs["s"], theirs["v"]) != (*ours[:3], ours[4]):
            yield f"{name} is {theirs}, in the log {ours[:3]} {ours[4]}"
