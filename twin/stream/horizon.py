"""Up to when everything that arrived on a partition's inputs is told. Pure, times are given.

A deadline compares the clock with what a car said last; while what it said lies unread in Kafka, the
clock alone would find a whole fleet silent. So nothing is due by the clock, but by this horizon: of each
input it is the arrival of the newest record that was told, or now, when Kafka has no more of it.

What Kafka has is known by what it answered last. After a while in which nobody looked (the process stood
still, or Kafka was away and held us up) that answer is old, and it is not believed for SETTLE_S.
"""

from collections.abc import Callable, Mapping
from typing import Final

from faust.types import TP

SETTLE_S: Final = 2.0
"""A fetch and a reconnect later Kafka's answer is a new one."""
LOST_S: Final = 1.0
"""It is looked at five times as often."""


class Horizon:
    """Of all partitions that are held. Offsets are those of the next record."""

    def __init__(self) -> None:
        self._next: dict[TP, int] = {}
        self._until: dict[TP, int] = {}
        self._looked_s = 0.0
        self._steady_since_s = 0.0

    def place(self, places: Mapping[TP, int]) -> None:
        """Exactly these are held, from these offsets on."""
        self._next = dict(places)
        self._until = dict.fromkeys(places, 0)
        self._looked_s = 0.0

    def told(self, ends: Mapping[TP, int], arrived: Mapping[TP, int]) -> None:
        """Everything up to `ends` is told, of which the last arrived then (ms)."""
        for tp, end in ends.items():
            self._next[tp] = end
            self._until[tp] = max(self._until.get(tp, 0), arrived.get(tp, 0))

    def look(self, end_of: Callable[[TP], int | None], now_ms: int, now_s: float) -> dict[int, int]:
        """Partition -> horizon in ms, at most `now_ms`; 0 while nothing is known.

        `end_of`: behind the last record that Kafka has, None when it has not answered yet. `now_s` is a
        clock that never goes back.
        """
        if now_s - self._looked_s > LOST_S:
            self._steady_since_s = now_s
        self._looked_s = now_s
        settled = now_s - self._steady_since_s >= SETTLE_S
        horizons: dict[int, int] = {}
        for tp, following in self._next.items():
            if settled:
                end = end_of(tp)
                if end is not None and following >= end:
                    self._until[tp] = now_ms
            until = min(self._until[tp], now_ms)
            horizons[tp.partition] = min(horizons.get(tp.partition, until), until)
        return horizons
