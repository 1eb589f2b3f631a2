"""One twin as the view shows it: its document, and what the index has of it. Pure.

A `Row` is made when the document is dumped: the hot path changes twins in place, and the next batch is
decided while this one is being told.
"""

import math
from functools import lru_cache
from typing import Final, NamedTuple, cast

import orjson

from twin.document import Document
from twin.reported import Reported
from twin.wire.catalogue import INDEXED
from twin.wire.records import Twin

_NUMBERS: Final = len(INDEXED) + 1

Version = tuple[int, int, int]
"""Epoch of the owner, creation (ms), revision: the greater is newer."""


class Standing(NamedTuple):
    """What telemetry alone does not change. `alarm_since`: ms, 0 = no alarm."""

    presence: str
    health: str
    fleet: str
    model: str
    firmware: str
    open_commands: int
    alarm_since: int


class Row(NamedTuple):
    """`numbers`: the indexed signals in the catalogue's order, then `last_seen`; None = it has none."""

    version: Version
    standing: Standing
    numbers: list[float | None]
    document: bytes


def row(twin: Twin, document: bytes) -> Row:
    """The row of a twin whose JSON is `document`."""
    presence = twin["presence"]
    numbers: list[float | None] = [None] * _NUMBERS
    for group in cast(Reported, twin["reported"]).groups:
        values = group.values
        for place, index in _places(group.names):
            value = values[index]
            # Redis takes no NaN, and would then refuse the whole batch again and again.
            if math.isfinite(value):
                numbers[place] = value
    numbers[-1] = presence.get("seen")
    return Row(
        version(twin),
        _standing(twin, presence["state"]),
        numbers,
        document,
    )


def _standing(twin: Twin, presence: str) -> Standing:
    """What telemetry does not change: made once for the same parts (`document.dump` came before)."""
    known = twin if type(twin) is Document else None
    if known is not None and known.memo is not None:
        parts, standing = cast(tuple[object, Standing], known.memo)
        if parts is known.parts and standing.presence == presence:
            return standing
    attributes, health = twin["attributes"], twin["health"]
    standing = Standing(
        presence,
        health["state"],
        attributes.get("fleet", ""),
        attributes.get("model", ""),
        attributes.get("firmware", ""),
        len(twin["commands"]["open"]),
        health["since"] if health["state"] == "alarm" else 0,
    )
    if known is not None:
        known.memo = known.parts, standing
    return standing


def version(twin: Twin) -> Version:
    """Which of two documents of a vehicle is the newer one."""
    return twin.get("epoch", 0), twin["created_at"], twin["revision"]


def beginning(version: Version) -> bytes:
    """The first bytes of a twin's value of this version."""
    return b"[%d,%d,%d," % version


def ending(standing: Standing) -> bytes:
    """The rest of the head."""
    return orjson.dumps(standing[:5])[1:] + b"\n"


@lru_cache(maxsize=1024)
def _places(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Place among the numbers, and in a group's values, of each indexed signal that it has."""
    return tuple((place, names.index(name)) for place, name in enumerate(INDEXED) if name in names)
