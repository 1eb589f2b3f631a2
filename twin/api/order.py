"""`sort=-coolant_temp` and the place where the next page begins. Pure.

Twins are sorted by one indexed field and, where that is equal, by vehicle id; a minus turns both round.
A twin without the number comes after all others; one without open commands has 0 of them. The cursor
names the last twin given and where it stood, so it holds whatever becomes of that twin.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import orjson

from twin.api.filters import FIELDS
from twin.api.problems import Problem
from twin.api.tokens import decode_text, encode_text
from twin.wire.errors import Misaddressed
from twin.wire.ids import check_vehicle_id
from twin.wire.keys import COUNTED, OPEN_COMMANDS

ID: Final = "vehicle_id"
_MAX_CHARS: Final = 4000


class Place(NamedTuple):
    """A twin in an order: its value there (None: in the order of ids, or it has none), and its id."""

    value: str | float | None
    vehicle_id: str


@dataclass(frozen=True, slots=True)
class Order:
    """`field` is an indexed one or `vehicle_id`."""

    field: str
    descending: bool

    @property
    def textual(self) -> bool:
        """Whether the values are text."""
        return self.field in COUNTED

    def value_of(self, number: float | None) -> float | None:
        """The value in the order of a number that the index may not have."""
        return 0.0 if number is None and self.field == OPEN_COMMANDS else number

    @property
    def others_first(self) -> bool:
        """Whether twins that are not in the index of the field come before those that are."""
        return self.field == OPEN_COMMANDS and not self.descending

    def arranged(self, places: list[Place]) -> list[Place]:
        """Places in this order."""
        lacking = sorted(place for place in places if place.value is None)
        having = sorted((place for place in places if place.value is not None), key=_key)
        if self.descending:
            lacking.reverse()
            having.reverse()
        return having + lacking

    def behind(self, place: Place, after: Place) -> bool:
        """Whether `place` comes after `after`."""
        return place != after and self.arranged([place, after])[0] == after

    def encode(self, place: Place) -> str:
        """A cursor that goes on behind `place`."""
        return encode_text(orjson.dumps([self._name(), *place]).decode())

    def decode(self, cursor: str) -> Place:
        """The place behind a cursor; raises `Problem` invalid_cursor."""
        try:
            name, value, vehicle_id = orjson.loads(decode_text(cursor, _MAX_CHARS))
            check_vehicle_id(vehicle_id)
        except (ValueError, TypeError, Misaddressed) as error:
            raise _no_cursor(cursor) from error
        if name != self._name():
            raise Problem(
                "invalid_cursor",
                f"cursor={cursor[:80]!r} is of a list with sort={str(name)[:80]}, not"
                f" {self._name()}: pages of one list have one order",
            )
        kind = str if self.textual else float
        wanted = isinstance(value, kind) and self.field != ID
        if not wanted and (value is not None or self.textual):
            raise _no_cursor(cursor)
        return Place(value, vehicle_id)

    def _name(self) -> str:
        return f"{'-' if self.descending else ''}{self.field}"


def parse(sort: str) -> Order:
    """Read the parameter; raises `Problem` invalid_sort naming what is accepted."""
    field = sort.removeprefix("-")
    if field != ID and field not in FIELDS:
        raise Problem(
            "invalid_sort",
            f"sort={sort[:80]!r} is not accepted; sortable, each also with a minus: {ID},"
            f" {', '.join(FIELDS)}",
        )
    return Order(field, sort.startswith("-"))


def _key(place: Place) -> tuple[str | float, str]:
    assert place.value is not None
    return place.value, place.vehicle_id


def _no_cursor(cursor: str) -> Problem:
    return Problem(
        "invalid_cursor",
        f"cursor={cursor[:80]!r} is none: next_cursor of the page before is accepted",
    )
