"""How much one car may send: a token bucket for each topic of each vehicle. Pure, time is given.

A bucket holds what may come in BURST_S; it fills at the rate. So a car may be late and send at once what
it has kept for a while, and over longer times nobody is above the rate. Topics are counted apart: a car
that floods its telemetry keeps its status and its outcomes.

After a silence of all cars what comes is a backlog: Kafka or the broker was away, and a car's messages of
that whole time arrive together. Then buckets hold that much more, until as much time has passed again.
How long it was before the first message of all only the caller knows (`away_ms`).

A bucket is one number: when it will be full again. One that is full need not be remembered, so two
generations of BURST_S each are all the state, of at most MOST buckets each.
"""

from typing import Final

BURST_S: Final = 10
MOST: Final = 200_000
MOST_BACKLOG_MS: Final = 3_600_000
"""A silence that was longer counts as one hour: brokers keep a session about as long."""
_SILENCE_MS: Final = 1_000
_GENERATION_MS: Final = BURST_S * 1000


class RateLimit:
    """`per_s`: messages a second on each topic, more than 0.

    One limit for each broker: one may stand still while the others go on.
    """

    __slots__ = (
        "_away_ms",
        "_backlog_ms",
        "_backlog_until",
        "_cost",
        "_end",
        "_fresh",
        "_most",
        "_old",
        "_room",
        "_start",
        "per_s",
    )

    def __init__(self, per_s: float, most: int = MOST, *, away_ms: int = 0) -> None:
        self.per_s = per_s
        self._cost = 1000 / per_s
        self._most = most
        self._room = 0.0
        """Milliseconds that a bucket may be from full, and still give one more."""
        self._old: dict[str, float] = {}
        self._fresh: dict[str, float] = {}
        self._start = self._end = 0
        self._away_ms = min(away_ms, MOST_BACKLOG_MS)
        self._backlog_ms = self._backlog_until = 0

    def admit(self, topic: str, now_ms: int) -> bool:
        """Whether a message on `topic` may pass at `now_ms`; it counts only if it does."""
        if not self._start <= now_ms < self._end:
            self._turn(now_ms)
        fresh = self._fresh
        full_at = fresh.get(topic)
        if full_at is None:
            full_at = self._old.get(topic, now_ms)
            if len(fresh) >= self._most:
                self._old, fresh = fresh, {}
                self._fresh = fresh
        if full_at <= now_ms:
            fresh[topic] = now_ms + self._cost
            return True
        if full_at - now_ms > self._room:
            fresh[topic] = full_at
            return False
        fresh[topic] = full_at + self._cost
        return True

    def __len__(self) -> int:
        """Buckets that are remembered."""
        return len(self._fresh) + len(self._old)

    def _turn(self, now_ms: int) -> None:
        """The next generation begins."""
        silence = now_ms - self._end if self._end else self._away_ms
        # Else: untouched for so long that they are full; or the clock was set back, and nobody knows.
        self._old = self._fresh if 0 <= silence < _GENERATION_MS else {}
        self._fresh = {}
        if silence >= _SILENCE_MS:
            # When within the last generation it began is not known.
            self._backlog_ms = min(silence + _GENERATION_MS, MOST_BACKLOG_MS)
            self._backlog_until = now_ms + self._backlog_ms
        elif not now_ms < self._backlog_until <= now_ms + self._backlog_ms:
            self._backlog_ms = 0
        self._room = max(_GENERATION_MS - self._cost, 0.0) + self._backlog_ms
        self._start, self._end = now_ms, now_ms + _GENERATION_MS
