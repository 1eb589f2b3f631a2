"""One twin as the view shows it: its document, and what the index has of it. Pure.

A `Row` is made when the document is dumped: the next batch is decided while this one is being told.
"""

from collections.abc import Callable
from functools import lru_cache
from math import isfinite
from operator import itemgetter
from typing import Any, Final

import orjson

from twin.packed import Packed, Row, Standing, Version
from twin.wire.catalogue import INDEXED

__all__ = ["Row", "beginning", "ending", "numbers_of", "row"]

_NUMBERS: Final = len(INDEXED) + 1


def row(vehicle_id: str, twin: Packed) -> Row:
    """The row of a twin, with its JSON."""
    return twin.row(vehicle_id)


def numbers_of(row: Row) -> list[float | None]:
    """The indexed signals in the catalogue's order, then `last_seen`; None = it has none."""
    numbers: list[float | None] = [None] * _NUMBERS
    for names, values in row.values:
        places, pick = _indexed(names)
        for place, value in zip(places, pick(values), strict=True):
            # Redis takes no NaN, and would then refuse the whole batch again and again. JSON has
            # null for it, in a document of somebody else.
            if value is not None and isfinite(value):
                numbers[place] = value
    numbers[-1] = row.seen
    return numbers


def beginning(version: Version) -> bytes:
    """The first bytes of a twin's value of this version."""
    return b"[%d,%d,%d," % version


def ending(standing: Standing) -> bytes:
    """The rest of the head."""
    return orjson.dumps(standing[:5])[1:] + b"\n"


@lru_cache(maxsize=1024)
def _indexed(names: tuple[str, ...]) -> tuple[tuple[int, ...], Callable[[Any], tuple[float, ...]]]:
    """Places among the numbers of the indexed signals that a group has, and what picks their values."""
    places = tuple(place for place, name in enumerate(INDEXED) if name in names)
    found = [names.index(INDEXED[place]) for place in places]
    if len(found) == 1:
        return places, lambda values: (values[found[0]],)
    return places, itemgetter(*found) if found else lambda _values: ()
