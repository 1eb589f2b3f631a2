"""How much one car may send: a token bucket for each topic of each vehicle. Pure, time is given.

A bucket holds what may come in BURST_S; it fills at the rate. So a car may be late and send at once what
it has kept for a while, and over longer times nobody is above the rate. Topics are counted apart: a car
that floods its telemetry keeps its status and its outcomes. What waited, because we or Kafka were away,
comes faster than cars sent it: while such a backlog is taken (`ingest.lag` knows) nothing is counted.

A bucket is one number: when it will be full again. One that is full need not be remembered, and no other
is forgotten, so nobody gets a second bucket by waiting for less than the first takes to fill.
"""

from typing import Final

BURST_S: Final = 10
MOST: Final = 400_000
"""Buckets that are remembered: of all topics that cars use in BURST_S. One more is not limited."""
_BURST_MS: Final = BURST_S * 1000
_FEW: Final = 1_000
"""So many buckets are not worth a look for full ones."""
_LOOK_MS: Final = 1_000
"""When there is no room, from one look to the next."""


class RateLimit:
    """`per_s`: messages a second on each topic, more than 0."""

    __slots__ = ("_cost", "_full_at", "_look_at", "_looked_ms", "_most", "per_s")

    def __init__(self, per_s: float, most: int = MOST) -> None:
        self.per_s = per_s
        self._cost = 1000 / per_s
        self._most = most
        self._full_at: dict[str, float] = {}
        self._look_at = min(_FEW, most)
        """So many buckets are worth a look for full ones: twice as many as the last one has left."""
        self._looked_ms = 0

    def admit(self, topic: str, now_ms: int, *, backlog: bool = False, sharers: int = 1) -> bool:
        """Whether a message on `topic` may pass at `now_ms`; it counts only if it does.

        `backlog`: it may have waited, so its time says nothing. `sharers`: processes that the messages
        of the topic are dealt out to; each has its part of the rate.
        """
        if backlog:
            return True
        cost = self._cost * sharers
        full_at = self._full_at.get(topic)
        if full_at is None:
            if len(self._full_at) >= self._look_at and not self._room(now_ms):
                return True
            ahead = 0.0
        else:
            ahead = full_at - now_ms
            if ahead > max(_BURST_MS, cost):
                # The clock was set back: nobody knows.
                ahead = 0.0
        if ahead <= 0:
            self._full_at[topic] = now_ms + cost
            return True
        if ahead + cost > _BURST_MS:
            return False
        self._full_at[topic] = now_ms + ahead + cost
        return True

    def __len__(self) -> int:
        """Buckets that are remembered."""
        return len(self._full_at)

    def _room(self, now_ms: int) -> bool:
        """Forget the full ones; whether there is room for one more."""
        if len(self._full_at) >= self._most and 0 <= now_ms - self._looked_ms < _LOOK_MS:
            return False
        self._looked_ms = now_ms
        self._full_at = {topic: at for topic, at in self._full_at.items() if at > now_ms}
        left = len(self._full_at)
        self._look_at = min(max(2 * left, _FEW), self._most)
        return left < self._most
