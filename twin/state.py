"""The twin document: how it begins, how telemetry is folded in, and what was applied already.

The document is a plain JSON object (`wire.records.Twin`) that the caller owns. Telemetry, the hot
path, writes `reported`, `applied` and `presence.seen` **in place**; every other part is replaced,
never changed, so that outputs may refer to it. A caller that must go back keeps a copy.

Law 1: a value replaces another only if (event_time, session, sequence, value bytes) is greater.
Value bytes are those of the IEEE 754 double, big-endian; between equal values the trusted one wins
over the suspect one. So any order and any duplication of records ends in the same v, t, n, s, q;
`o` says which of several equal records came first, which is the order's to say.

Law 2: a record at or below the offset applied last on its topic and partition changes nothing.
"""

import struct
from dataclasses import dataclass
from typing import Final

from twin.wire.codec import dump
from twin.wire.records import (
    Desired,
    Health,
    Position,
    SignalValue,
    Twin,
    TwinCommands,
    TwinPresence,
)
from twin.wire.telemetry import Telemetry

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS

_bytes = struct.Struct(">d").pack


@dataclass(frozen=True, slots=True)
class Limits:
    """What one twin may hold (law 9). Times in ms; bytes are those of the JSON."""

    document_bytes: int = 64 * 1024
    depth: int = 8
    key_bytes: int = 128
    attributes: int = 32
    attribute_bytes: int = 256
    open_commands: int = 50
    command_bytes: int = 32 * 1024
    ttl_default_ms: int = HOUR_MS
    ttl_max_ms: int = 7 * DAY_MS


def create(vehicle_id: str, at: int) -> Twin:
    """A twin of which nothing is known yet; revision 0, so the record that makes it is revision 1."""
    return Twin(
        vehicle_id=vehicle_id,
        revision=0,
        created_at=at,
        updated_at=at,
        attributes={},
        reported={},
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
    return len(dump(twin))


def fold(twin: Twin, telemetry: Telemetry, offset: int) -> int:
    """Write the newer values into `reported`, in place; returns how many were newer (law 1)."""
    reported = twin["reported"]
    time, session, sequence = telemetry.event_time, telemetry.session, telemetry.sequence
    suspect = telemetry.suspect
    newer = 0
    for name, value in telemetry.signals.items():
        entry = reported.get(name)
        if entry is None:
            entry = reported[name] = SignalValue(v=value, t=time, n=session, s=sequence, o=offset)
        elif time > entry["t"] or (
            time == entry["t"] and _wins(value, session, sequence, name in suspect, entry)
        ):
            entry["v"] = value
            entry["t"] = time
            entry["n"] = session
            entry["s"] = sequence
            entry["o"] = offset
            if "q" in entry:
                del entry["q"]
        else:
            continue
        if suspect and name in suspect:
            entry["q"] = "suspect"
        newer += 1
    return newer


def _wins(value: float, session: int, sequence: int, suspect: bool, entry: SignalValue) -> bool:
    return (session, sequence, _bytes(value), not suspect) > (
        entry["n"],
        entry["s"],
        _bytes(entry["v"]),
        "q" not in entry,
    )
