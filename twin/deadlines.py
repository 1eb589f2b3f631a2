"""Deadlines of this worker's vehicles: a heap rebuilt from the tables, emptied into `requests`.

A deadline changes nothing by itself: it becomes a record and is applied by offset like any other, and
the pure core lets an outdated one do nothing (design law 6). So this may forget and repeat freely.
"""

import heapq
from collections.abc import Callable, Iterable
from typing import Final

from twin.effects import Deadline, DeadlineOf
from twin.wire.records import Request

CROWDED: Final = 100
"""More pending deadlines of one vehicle than this are worth asking which of them still count."""


class Deadlines:
    """Pending deadlines per vehicle; of two for the same reference the earlier counts.

    Answered ones stay until they are due, or until the owner says anew what counts (`replace`), which
    it does when a vehicle is crowded: so a vehicle holds about CROWDED at most.
    """

    def __init__(self) -> None:
        self._heap: list[Deadline] = []
        self._pending: dict[str, tuple[Deadline, ...]] = {}
        """Those of the heap that count, by vehicle; nearly always one."""
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def crowded(self, vehicle_id: str) -> bool:
        """Whether a vehicle has so many pending that some must be outdated."""
        return len(self._pending.get(vehicle_id, ())) > CROWDED

    def forget(self, vehicle_id: str) -> None:
        """Drop all of a vehicle."""
        self._size -= len(self._pending.pop(vehicle_id, ()))
        # What was dropped is left in the heap; when that is most of it, make it anew.
        if len(self._heap) > 2 * self._size + 1000:
            self._heap = [one for pending in self._pending.values() for one in pending]
            heapq.heapify(self._heap)

    def replace(self, vehicle_id: str, deadlines: Iterable[Deadline]) -> None:
        """These, and no others, count for a vehicle."""
        self.forget(vehicle_id)
        self.add(deadlines)

    def add(self, deadlines: Iterable[Deadline]) -> None:
        """Remember."""
        for deadline in deadlines:
            pending = self._pending.get(deadline.vehicle_id, ())
            # A restart adds one of each vehicle, and none has another.
            same = pending and [o for o in pending if (o.of, o.ref) == (deadline.of, deadline.ref)]
            if same and same[0].due <= deadline.due:
                continue
            self._size += not same
            others = [one for one in pending if one not in same] if same else pending
            self._pending[deadline.vehicle_id] = (*others, deadline)
            heapq.heappush(self._heap, deadline)

    def due(
        self,
        until_ms: int,
        now_ms: int,
        due_of: Callable[[str, DeadlineOf, str], int | None],
    ) -> list[Request]:
        """Records of `now_ms` for all deadlines up to `until_ms`, which are then forgotten.

        `due_of` (vehicle id, of, ref) says when a deadline is due by now, None = never: an online car
        puts its own off with each telemetry record, and that must not make a record each time.
        """
        records: list[Request] = []
        while self._heap and self._heap[0].due <= until_ms:
            asked = heapq.heappop(self._heap)
            _, vehicle_id, of, ref = asked
            pending = self._pending.get(vehicle_id, ())
            left = tuple(one for one in pending if one != asked)
            if len(left) == len(pending):
                continue  # forgotten, or an earlier one took its place
            self._size -= 1
            if left:
                self._pending[vehicle_id] = left
            else:
                del self._pending[vehicle_id]
            due = due_of(vehicle_id, of, ref)
            if due is None:
                continue
            if due > until_ms:
                self.add([Deadline(due, vehicle_id, of, ref)])
                continue
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
