"""Lists of twins: scan ids in order, keep those whose indexed values fulfil the filter.

The cursor is the last id given, so a list stays stable while twins come, go and change: nothing is
shown twice, and what was there all the time is not left out. Pages of the scan are bounded; between
them other requests are served.
"""

import bisect
from collections.abc import AsyncIterator, Sequence
from typing import Final

from twin.api.filters import Condition
from twin.api.reader import Reader

_SCAN: Final = 1000


async def select(
    reader: Reader,
    conditions: Sequence[Condition],
    *,
    after: str | None,
    descending: bool,
    limit: int,
) -> tuple[list[str], bool]:
    """Up to `limit` ids behind `after` that fulfil all conditions, and whether more follow."""
    found: list[str] = []
    size = _SCAN if conditions else limit + 1
    async for ids in _candidates(reader, conditions, after, descending, size):
        if conditions:
            entries = await reader.indexes(ids)
            ids = [e.vehicle_id for e in entries if all(c.holds(e.values) for c in conditions)]  # noqa: PLW2901
        found += ids
        if len(found) > limit:
            return found[:limit], True
    return found, False


async def _candidates(
    reader: Reader,
    conditions: Sequence[Condition],
    after: str | None,
    descending: bool,
    size: int,
) -> AsyncIterator[list[str]]:
    if any(c.field == "health" and c.op == "eq" and c.value == "alarm" for c in conditions):
        # Alarms have an index of their own: few of many, and what the page asks every second.
        ids = sorted(vehicle_id for vehicle_id, _since in await reader.alarms())
        if descending:
            ids = ids[: bisect.bisect_left(ids, after) if after is not None else None][::-1]
        elif after is not None:
            ids = ids[bisect.bisect_right(ids, after) :]
        for start in range(0, len(ids), size):
            yield ids[start : start + size]
        return
    while True:
        ids = await reader.ids(after, size, descending=descending)
        if ids:
            yield ids
        if len(ids) < size:
            return
        after = ids[-1]
