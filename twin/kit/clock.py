"""Time as an argument: processes read a Clock, the pure core gets plain milliseconds."""

import time
from typing import Protocol


class Clock(Protocol):
    """A source of the current time."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 (UTC)."""
        ...


class SystemClock:
    """The machine's wall clock."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 (UTC)."""
        return time.time_ns() // 1_000_000


class FakeClock:
    """A clock that moves only when told; for tests."""

    def __init__(self, now_ms: int = 1_790_000_000_000) -> None:
        self._now = now_ms

    def now_ms(self) -> int:
        """Milliseconds since 1970 (UTC)."""
        return self._now

    def advance(self, ms: int) -> None:
        """Move forward by `ms`."""
        self._now += ms
