"""The twin document: how it begins, how telemetry is folded in, and what was applied already.

The document (`wire.records.Twin`; as bytes: `twin.document`) belongs to the caller. Telemetry, the hot
path, writes `reported` (law 1, see `twin.reported`), `applied` and `presence.seen` **in place**; every
other part is replaced, never changed, so that outputs may refer to it. A caller that must go back
keeps a copy.

Law 2: a record at or below the offset applied last on its topic and partition changes nothing.
"""

from dataclasses import dataclass
from typing import Final

from twin import document
from twin.reported import Reported
from twin.wire.records import (
    Desired,
    Health,
    Position,
    Twin,
    TwinCommands,
    TwinPresence,
)
from twin.wire.telemetry import Sample

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class Limits:
    """What one twin may hold (law 9). Times in ms; bytes are those of the JSON."""

    document_bytes: int = 64 * 1024
    depth: int = 8
    key_bytes: int = 128
    attributes: int = 32
    attribute_bytes: int = 256
    open_commands: int = 50
    day_commands: int = 2_000
    command_bytes: int = 32 * 1024
    ttl_default_ms: int = HOUR_MS
    ttl_max_ms: int = 7 * DAY_MS


def create(vehicle_id: str, at: int) -> Twin:
    """A twin of which nothing is known yet; revision 0, so the record that makes it is revision 1."""
    return Twin(
        epoch=0,
        vehicle_id=vehicle_id,
        revision=0,
        created_at=at,
        updated_at=at,
        attributes={},
        reported=Reported(),
        config={},
        desired=Desired(version=0, properties={}, status={}),
        delta={},
        presence=TwinPresence(
            state="unknown", since=at, session=0, shard=-1, reason="no status yet"
        ),
        health=Health(state="insufficient_data", since=at, models={}),
        commands=TwinCommands(open=[]),
        applied={},
    )


def was_applied(twin: Twin, position: Position) -> bool:
    """Law 2. Offsets of different partitions do not compare (the topic was made anew)."""
    last = twin["applied"].get(position["topic"])
    return last is not None and last[1] >= position["offset"] and last[0] == position["partition"]


def size(twin: Twin) -> int:
    """Bytes of the document as it is stored."""
    return len(document.dump(twin))


def fold(twin: Twin, sample: Sample, offset: int) -> int:
    """Write the newer values into `reported`, in place; returns how many were newer (law 1)."""
    reported: Reported = twin["reported"]  # type: ignore[assignment]
    return reported.fold(sample, offset)
