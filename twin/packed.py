"""A twin as it waits for its next record: one object of a few flat parts instead of some fifty.

    Twin -> pack -> Packed -> observe (telemetry, most of the time) -> dump -> JSON of design section 6
                           -> unpack -> Twin -> apply (every other record) -> pack

Of 100,000 twins hardly one is in the processor's cache when its record comes, so time and memory go by
the number of objects: numbers that telemetry moves are fields of one struct (`native.rest`), values are
their JSON, and what telemetry leaves alone is JSON made once, by `pack`. `observe` is `apply` for
telemetry that is all newer or brings nothing new, and does nothing for any other record
(tests/property/test_laws_packed.py).

The document ends with `reported`: so all that is fixed is one piece, between the numbers and the values.
"""

from contextlib import suppress
from functools import lru_cache
from typing import Any, Final, NamedTuple, cast

import orjson

from twin import document
from twin.native.rest import DUPLICATE, LATE, NEW, REPEATED, STALE, UNHEARD, Group, Packed, Row
from twin.reported import Reported
from twin.wire import topics
from twin.wire.errors import Malformed
from twin.wire.records import Counts, Twin

__all__ = [
    "DUPLICATE",
    "LATE",
    "NEW",
    "REPEATED",
    "Packed",
    "Row",
    "Standing",
    "Version",
    "load",
    "pack",
    "unpack",
]

_NONE: Final = -1
_NO_COUNTS: Final = Counts(late=_NONE, duplicates=_NONE)
_MOVING: Final = {
    "epoch",
    "vehicle_id",
    "revision",
    "updated_at",
    "applied",
    "counts",
    "presence",
    "reported",
}
"""What is not in the text, or not as it is in the document."""
_NUMBERS: Final = {int, float}
"""What a value of a signal may be in JSON; null is what others make of infinity."""
_PRESENCE: Final = b'"presence":{'
_SIGNALS: Final = b',"reported":{'

Version = tuple[int, int, int]
"""Epoch of the owner, creation (ms), revision: the greater is the newer document."""


class Standing(NamedTuple):
    """What telemetry alone does not change, of what lists show. `alarm_since`: ms, 0 = no alarm."""

    presence: str
    health: str
    fleet: str
    model: str
    firmware: str
    open_commands: int
    alarm_since: int


def unpack(packed: Packed, vehicle_id: str) -> Twin:
    """The twin, for `apply`. What is packed stays as it is."""
    (
        epoch, _, revision, updated, seen, _, partition, offset, late, duplicates
    ) = packed.numbers  # fmt: skip
    twin = orjson.loads(b'{"presence":{%b}}' % packed.text)
    applied = orjson.loads(b"{%b}" % packed.applied[1:])
    if offset >= 0:
        applied[topics.TELEMETRY] = [partition, offset]
    if seen >= 0:
        twin["presence"]["seen"] = seen
    if late >= 0:
        twin["counts"] = Counts(late=late, duplicates=duplicates)
    twin["reported"] = Reported([group.copy() for group in packed.groups()])
    twin.update(
        epoch=epoch,
        vehicle_id=vehicle_id,
        revision=revision,
        updated_at=updated,
        applied=applied,
    )
    return cast(Twin, twin)


def pack(twin: Twin) -> Packed:
    """A twin at rest. It shares nothing with `twin` that `apply` changes."""
    presence = dict(twin["presence"])
    presence.pop("seen", None)
    fixed = {name: part for name, part in twin.items() if name not in _MOVING}
    text = orjson.dumps({"presence": presence, **fixed})[1 + len(_PRESENCE) : -1] + _SIGNALS
    return _packed(twin, text, [group.copy() for group in cast(Reported, twin["reported"]).groups])


def load(data: bytes) -> tuple[Packed, Twin]:
    """The twin behind `dump`'s bytes, and its fields; `reported` may not be among them.

    Raises `Malformed` when the bytes are no document.
    """
    try:
        # What the quick way stumbles over is judged by the other.
        with suppress(ValueError, LookupError, TypeError, AttributeError, OverflowError):
            usual = _load(data)
            if usual is not None:
                return usual
        twin = document.load(data)
        groups = cast(Reported, twin["reported"]).groups
        if not {type(value) for group in groups for value in group.values} <= _NUMBERS:
            raise TypeError("a signal is no number")
        return pack(twin), twin
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise Malformed(f"not a twin's document: {error!r:.120}") from error


def _load(data: bytes) -> tuple[Packed, Twin] | None:
    """A document as `dump` makes it of most twins, of which only the beginning is parsed; else None."""
    at = data.rfind(_SIGNALS)
    if at < 0:
        return None
    fields = orjson.loads(data[:at] + b"}")
    packed = _packed(fields, b"", [])
    beginning = packed.beginning(fields["vehicle_id"])
    signals = at + len(_SIGNALS)
    if not data.startswith(beginning) or not packed.read_signals(data, signals):
        return None
    packed.text = data[len(beginning) : signals]
    return packed, fields


def _packed(twin: Twin, text: bytes, groups: list[Group]) -> Packed:
    presence, applied = twin["presence"], dict(twin["applied"])
    where, last = applied.pop(topics.TELEMETRY, (_NONE, _NONE))
    state, seen = presence["state"], presence.get("seen", _NONE)
    session = STALE if state == "stale" else UNHEARD if seen < 0 else presence["session"]
    counts = twin.get("counts", _NO_COUNTS)
    numbers = (
        twin.get("epoch", 0), twin["created_at"], twin["revision"], twin["updated_at"],
        seen, session, where, last, counts["late"], counts["duplicates"],
    )  # fmt: skip
    others = b"," + orjson.dumps(applied)[1:-1] if applied else b""
    return Packed(numbers, others, text, groups, _standing(twin))


def _standing(twin: Twin) -> Standing:
    attributes, health = twin["attributes"], twin["health"]
    return _shared(
        twin["presence"]["state"],
        health["state"],
        attributes.get("fleet", ""),
        attributes.get("model", ""),
        attributes.get("firmware", ""),
        len(twin["commands"]["open"]),
        health["since"] if health["state"] == "alarm" else 0,
    )


@lru_cache(maxsize=4096)
def _shared(*standing: Any) -> Standing:
    """One object for the many twins that stand alike."""
    return Standing(*standing)
