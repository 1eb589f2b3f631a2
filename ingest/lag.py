"""How long what a broker gives us may have waited there, told by messages to ourselves. Pure.

A broker's queue of a session is in order. When a mark that we sent comes back, all that the broker had
for us before has been given to us; so nothing that comes now waited longer than since that mark was
sent. That holds whatever made us late: we were away, Kafka was, the broker or this process stood still.

Where several workers share a subscription and the broker keeps one queue for them all beside those of
their sessions (HiveMQ), marks do not tell of that queue.
"""

from typing import Final

BEHIND_S: Final = 5.0
"""Less is no backlog: half of what a car may send at once."""
EVERY_S: Final = 2.0
"""From one mark to the next."""
AGAIN_S: Final = 10.0
"""A full queue drops a mark, too: it is sent again after so long."""


class Lag:
    """Marks of one connection. `token`: its own, since a session may still hold marks of another.

    Times are seconds of a clock that never goes back.
    """

    __slots__ = ("_first_at", "_last_at", "_number", "_out", "_taken", "_token")

    def __init__(self, token: bytes) -> None:
        self._token = token
        self._number = 0
        self._out = False
        """Whether a mark was sent that is not back."""
        self._first_at = self._last_at = 0.0
        """When the newest mark was sent: first, and again."""
        self._taken: float | None = None
        """What the broker had for us at this time has been given to us."""

    def due(self, now: float) -> bytes | None:
        """The mark to send at `now`, if one is due."""
        if self._out and now - self._last_at < AGAIN_S:
            return None
        if not self._out:
            self._number += 1
            self._first_at = now
        self._out = True
        self._last_at = now
        return self._mark

    def heard(self, mark: bytes) -> None:
        """A mark came back."""
        if self._out and mark == self._mark:
            self._out = False
            self._taken = self._first_at

    def behind(self, now: float) -> bool:
        """Whether what comes at `now` may have waited for more than BEHIND_S."""
        return self._taken is None or now - self._taken > BEHIND_S

    @property
    def _mark(self) -> bytes:
        return b"%s %d" % (self._token, self._number)
