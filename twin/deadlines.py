"""Deadlines of this worker's vehicles: a heap rebuilt from the tables, emptied into `requests`.

A deadline changes nothing by itself: it becomes a record and is applied by offset like any other, and
the pure core lets an outdated one do nothing (design law 6). So this may forget and repeat freely.
"""

import heapq
from collections.abc import Iterable

from twin.effects import Deadline
from twin.wire.records import Request


class Deadlines:
    """The earliest pending deadline per (vehicle, kind, reference); bounded by what the twins hold."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, str, str, str]] = []
        self._pending: dict[tuple[str, str, str], int] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def clear(self) -> None:
        """Forget all."""
        self._heap.clear()
        self._pending.clear()

    def add(self, deadlines: Iterable[Deadline]) -> None:
        """Remember; of two for the same reference the earlier counts."""
        for deadline in deadlines:
            ident = (deadline.vehicle_id, deadline.of, deadline.ref)
            known = self._pending.get(ident)
            if known is None or deadline.due < known:
                self._pending[ident] = deadline.due
                heapq.heappush(self._heap, (deadline.due, *ident))

    def due(self, now_ms: int) -> list[Request]:
        """Records for all deadlines up to now, which are then forgotten."""
        records: list[Request] = []
        while self._heap and self._heap[0][0] <= now_ms:
            due, *ident = heapq.heappop(self._heap)
            vehicle_id, of, ref = ident
            if self._pending.get((vehicle_id, of, ref)) != due:
                continue  # an earlier one took its place
            del self._pending[vehicle_id, of, ref]
            records.append(
                Request(
                    request_id=f"deadline/{vehicle_id}/{of}/{ref}/{due}",
                    kind="deadline",
                    vehicle_id=vehicle_id,
                    at=now_ms,
                    by="worker",
                    body={"of": of, "ref": ref, "due": due},
                )
            )
        return records
