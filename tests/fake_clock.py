"""Time for tests of processes that read a `twin.kit.clock.Clock`."""


class FakeClock:
    """A clock that moves only when told."""

    def __init__(self, now_ms: int = 1_790_000_000_000) -> None:
        self._now = now_ms

    def now_ms(self) -> int:
        """Milliseconds since 1970 (UTC)."""
        return self._now

    def advance(self, ms: int) -> None:
        """Move forward by `ms`."""
        self._now += ms
