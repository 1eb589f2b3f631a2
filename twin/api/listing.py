"""One page of twins: candidates in the order asked for, those whose documents fulfil the filter.

    smallest set that the index has of a condition -> all of it, arranged      (when that is less)
    otherwise the order itself, from the place of the cursor on                (when hits are frequent)
      -> among the other sets of the index -> documents, judged by the conditions -> page

What a page may cost is bounded: when so many ids or documents were looked at, it ends with what it has,
and its cursor goes on from there. So a page may be short, even empty, while there is more. A twin that
did not change is on exactly one page, because the cursor is a place in the order and no number of pages.
"""

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, NamedTuple

import orjson

from twin.api.filters import Condition
from twin.api.order import ID, Order, Place
from twin.api.reader import Ranked, Reader
from twin.api.selectors import Between, Having, Selector
from twin.wire.keys import NUMBERS, index_of

_SMALL: Final = 2000
"""A set of at most so many twins is read and arranged whole."""
_CHUNK: Final = 1000
_DOCUMENTS: Final = 25
"""Fewest to be fetched at once, where some of them may not fulfil the filter."""
_MOST_IDS: Final = 10_000
_MOST_DOCUMENTS: Final = 2000
_VALUE: Final = 25
"""To look for one value of a text field costs as much as so many ids."""


class Page(NamedTuple):
    """Documents, and where the next page begins; None on the last."""

    documents: list[bytes]
    next: Place | None


class _Candidates(NamedTuple):
    """Some places in order, all that there are up to `last`; `cost` in ids that were looked at."""

    places: list[Place]
    last: Place
    cost: int


_Stream = AsyncGenerator[_Candidates, None]


async def select(
    reader: Reader,
    conditions: Sequence[Condition],
    order: Order,
    after: Place | None,
    limit: int,
) -> Page:
    """Up to `limit` twins behind `after` that fulfil all conditions."""
    search = await _plan(reader, conditions, order, limit)
    found: list[tuple[Place, bytes]] = []
    ids = documents = 0
    async with aclosing(search.candidates(after, limit + 1)) as stream:
        async for places, end, cost in stream:
            ids += cost
            last = end
            by_id = {place.vehicle_id: place for place in places}
            names = await reader.among(search.selectors, list(by_id))
            while names and len(found) <= limit and documents < _MOST_DOCUMENTS:
                some = names[: max(limit + 1 - len(found), _DOCUMENTS)]
                names = names[len(some) :]
                documents += len(some)
                last = by_id[some[-1]] if names else end
                for vehicle_id, body in zip(some, await reader.documents(some), strict=True):
                    if body is not None and _fulfils(body, conditions):
                        found.append((by_id[vehicle_id], body))
            if len(found) > limit:
                return Page(_bodies(found[:limit], order), found[limit - 1][0])
            if ids >= _MOST_IDS or documents >= _MOST_DOCUMENTS:
                return Page(_bodies(found, order), last)
    return Page(_bodies(found, order), None)


def _fulfils(body: bytes, conditions: Sequence[Condition]) -> bool:
    if not conditions:
        return True
    index = index_of(orjson.loads(body))
    return all(condition.holds(index) for condition in conditions)


def _bodies(found: list[tuple[Place, bytes]], order: Order) -> list[bytes]:
    """Within a page numbers are sorted as the documents have them: the index may lag behind."""
    bodies = {place.vehicle_id: body for place, body in found}
    places = [place for place, _ in found]
    if order.field in NUMBERS:
        indexes = {v: index_of(orjson.loads(body)) for v, body in bodies.items()}
        places = order.arranged([Place(indexes[v].get(order.field), v) for v in indexes])
    return [bodies[place.vehicle_id] for place in places]


async def _plan(
    reader: Reader, conditions: Sequence[Condition], order: Order, limit: int
) -> "_Search":
    selectors = [s for s in dict.fromkeys(c.selector() for c in conditions) if s is not None]
    sizes = await reader.sizes(selectors)
    whole = None
    if sizes and min(sizes) <= _SMALL:
        total = await reader.total()
        # How far one has to go for a page, were the conditions independent of each other.
        walk = limit * math.prod(total / max(size, 1) for size in sizes)
        if min(sizes) <= walk:
            whole = selectors.pop(sizes.index(min(sizes)))
    return _Search(reader, order, selectors, whole)


@dataclass(frozen=True, slots=True)
class _Search:
    """How the twins of a list are found. `whole`: a small set that all of them are in."""

    reader: Reader
    order: Order
    selectors: list[Selector]
    whole: Selector | None

    def candidates(self, after: Place | None, wanted: int) -> _Stream:
        """All that may be in the list, behind `after`."""
        if self.whole is not None:
            return self._arranged(self.whole, after)
        if self.order.field == ID:
            return self._others([], after, wanted)
        return self._by_text(after) if self.order.textual else self._by_number(after, wanted)

    async def _arranged(self, whole: Selector, after: Place | None) -> _Stream:
        ids = await self.reader.members(whole)
        values: Sequence[str | float | None] = [None] * len(ids)
        if self.order.textual:
            values = await self.reader.texts(self.order.field, ids)
        elif self.order.field != ID:
            scores = await self.reader.scores(self.order.field, ids)
            values = [self.order.value_of(score) for score in scores]
        places = self.order.arranged(list(map(Place, values, ids)))
        if after is not None:
            places = [place for place in places if self.order.behind(place, after)]
        for start in range(0, len(places), _CHUNK):
            part = places[start : start + _CHUNK]
            yield _Candidates(part, part[-1], len(part))

    async def _by_text(self, after: Place | None) -> _Stream:
        """One value after the other, each by id."""
        field, descending = self.order.field, self.order.descending
        only = [s.value for s in self.selectors if isinstance(s, Having) and s.field == field]
        values = sorted(only or await self.reader.values(field), reverse=descending)
        behind = None
        if after is not None:
            text = str(after.value)
            values = [v for v in values if (v <= text if descending else v >= text)]
            behind = after.vehicle_id if text in values[:1] else None
        for value in values:
            having = Having(field, value)
            (size,) = await self.reader.sizes([having])
            if size <= _SMALL:
                places = [Place(value, one) for one in await self.reader.members(having)]
                places = self.order.arranged(places)
                if behind is not None:
                    places = [p for p in places if self.order.behind(p, Place(value, behind))]
                if places:
                    yield _Candidates(places, places[-1], _VALUE + len(places))
            else:
                async for ids in self._ids(behind, _CHUNK):
                    places = [Place(value, one) for one in await self.reader.among([having], ids)]
                    yield _Candidates(places, Place(value, ids[-1]), len(ids))
            behind = None

    async def _by_number(self, after: Place | None, wanted: int) -> _Stream:
        """Those that are in the index of the field by their number, the others by id."""
        field = self.order.field
        bounds = [s for s in self.selectors if isinstance(s, Between) and s.field == field]
        low = max((s.low for s in bounds), default=-math.inf)
        high = min((s.high for s in bounds), default=math.inf)
        having = self._ranked(low, high, None, wanted)
        others = self._others([field], None, wanted)
        phases = [others, having] if self.order.others_first else [having, others]
        if bounds or await self._all_have(field):
            phases = [having]
        if after is not None and after.value == self.order.value_of(None):
            continued = self._others([field], after, wanted)
            phases = [continued, *phases[phases.index(others) + 1 :]] if others in phases else []
        elif after is not None:
            assert isinstance(after.value, float)
            continued = self._ranked(low, high, Ranked(after.value, after.vehicle_id), wanted)
            phases = [continued, *phases[phases.index(having) + 1 :]]
        for phase in phases:
            async for candidates in phase:
                yield candidates

    async def _all_have(self, field: str) -> bool:
        (size,) = await self.reader.sizes([Between(field, -math.inf, math.inf)])
        return size >= await self.reader.total()

    async def _ranked(self, low: float, high: float, after: Ranked | None, wanted: int) -> _Stream:
        size = wanted
        while True:
            found = await self.reader.ranked(
                self.order.field, low, high, after, size, descending=self.order.descending
            )
            if found:
                after = found[-1]
                yield _Candidates(list(map(Place._make, found)), Place(*after), len(found))
            if len(found) < size:
                return
            size = min(2 * size, _CHUNK)

    async def _others(self, fields: list[str], after: Place | None, wanted: int) -> _Stream:
        """By id those that are in the index of none of the fields."""
        value = self.order.value_of(None)
        async for ids in self._ids(after.vehicle_id if after else None, wanted):
            names = ids
            for field in fields:
                scores = await self.reader.scores(field, names)
                names = [n for n, score in zip(names, scores, strict=True) if score is None]
            yield _Candidates([Place(value, one) for one in names], Place(value, ids[-1]), len(ids))

    async def _ids(self, after: str | None, wanted: int) -> AsyncGenerator[list[str], None]:
        size = wanted
        while True:
            ids = await self.reader.ids(after, size, descending=self.order.descending)
            if ids:
                yield ids
                after = ids[-1]
            if len(ids) < size:
                return
            size = min(2 * size, _CHUNK)
