"""A door that rejects everything is not ready: what is wrong shall be seen, not only kept. Pure.

Looked at every so often with totals, so that messages cost nothing. When of the last minute's messages,
at least ENOUGH, none was accepted, the fault names the most frequent reason. One that is accepted ends
it, and so does a minute in which too little comes to tell.
"""

from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple

from twin.wire.errors import Reason

ENOUGH: Final = 100
MINUTE_S: Final = 60.0
EVERY_S: Final = 1.0
"""How often it is looked at; more often than that is not remembered."""


class _Look(NamedTuple):
    at_s: float
    received: int
    rejected: dict[Reason, int]


class Door:
    """`fault` may be read by any thread."""

    def __init__(self) -> None:
        self._looks: deque[_Look] = deque(maxlen=int(MINUTE_S / EVERY_S) + 2)
        self.fault = ""

    def look(self, now_s: float, received: int, rejected: Mapping[Reason, int]) -> None:
        """Judge by totals since the start: all messages, and those rejected by reason.

        `now_s` is a clock that never goes back.
        """
        looks = self._looks
        if looks and now_s - looks[-1].at_s < EVERY_S / 2:
            return
        looks.append(_Look(now_s, received, dict(rejected)))
        while len(looks) > 1 and now_s - looks[0].at_s > MINUTE_S:
            looks.popleft()
        before = looks[0]
        came = received - before.received
        reasons = {
            reason: more
            for reason, total in rejected.items()
            if (more := total - before.rejected.get(reason, 0))
        }
        if came < ENOUGH or sum(reasons.values()) < came:
            self.fault = ""
            return
        reason, count = max(reasons.items(), key=lambda item: item[1])
        self.fault = (
            f"everything is rejected: {came} messages within {MINUTE_S:.0f} s, {count} of them {reason}"
            " (GET /v1/rejected shows them)"
        )
