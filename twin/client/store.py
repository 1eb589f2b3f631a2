"""What a car keeps until the cloud says that it has it (promise B): store and forward. Pure.

    keep      every sample, sent or not; when the store is full the oldest goes, and is counted
    covered   an ack came: everything of a session up to a number is in Kafka and is let go
    rewind    a new connection: what the broker had may be gone, send again from the oldest held
    again     what to send again now, also after a silence of acks

Samples go out once as they are made, whatever is being repeated beside them. Repeating starts with a
few messages and goes on only with acks, twice as many each time, never above a rate: a fleet that
comes back must not bury its broker, a car must not pass the uplink's limit for one car, and where
nobody sends acks, repeating costs a few messages now and then.
"""

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, Literal, NamedTuple

SILENCE_MS: Final = 10_000
"""So long without progress, and what is held is sent again; then twice as long, and so on."""
LONGEST_SILENCE_MS: Final = 300_000
FIRST: Final = 8
"""Messages that are sent again before an ack must come."""
MOST: Final = 64
"""And so many at most, after acks that came."""
PER_S: Final = 25
"""Messages sent again in a second, at most."""

Note = Callable[[Literal["covered", "dropped"], int, int], None]


class Held(NamedTuple):
    """A message that is not covered, as it was first made."""

    session: int
    sequence: int
    payload: bytes


class Store:
    """At most `capacity` messages. `note(what, session, number)` hears what happens to them:
    "covered" = all of the session up to the number are let go, "dropped" = this one was, for room.
    """

    def __init__(
        self, capacity: int, *, silence_ms: int = SILENCE_MS, note: Note | None = None
    ) -> None:
        if capacity < 1 or silence_ms < 1:
            raise ValueError(f"a store of {capacity} messages, silence {silence_ms} ms: from 1")
        self.dropped = 0
        """Messages that were let go without being covered."""
        self._capacity = capacity
        self._shortest_ms = silence_ms
        self._note = note
        self._count = 0
        self._sessions: dict[int, deque[Held]] = {}  # oldest first, numbers without a gap
        self._patience_ms = silence_ms
        self._since = 0  # the oldest session's last progress or repetition, while something is held
        self._next: tuple[int, int] | None = None  # where repeating goes on
        self._end = (0, 0)  # and where it ends
        self._tries = False  # repeating only to find out whether acks come
        self._window = FIRST
        self._left = 0
        self._free_at = 0

    def __len__(self) -> int:
        """Messages held."""
        return self._count

    @property
    def next_at(self) -> int | None:
        """When `again` has something, unless an ack comes before (ms); None while nothing is held."""
        if not self._count:
            return None
        return self._free_at if self._repeating else self._since + self._patience_ms

    def keep(self, session: int, sequence: int, payload: bytes, now_ms: int) -> None:
        """Hold a message. Sessions rise, and so do the numbers in them, by one."""
        if not self._count:
            self._since, self._patience_ms = now_ms, self._shortest_ms
        self._sessions.setdefault(session, deque()).append(Held(session, sequence, payload))
        self._count += 1
        if self._count > self._capacity:
            oldest = self._pop(next(iter(self._sessions)))
            self.dropped += 1
            if self._note is not None:
                self._note("dropped", oldest.session, oldest.sequence)

    def held_from(self, session: int) -> int | None:
        """The lowest number of a session that is held; None when none is."""
        held = self._sessions.get(session)
        return held[0].sequence if held else None

    def covered(self, session: int, upto: int, now_ms: int) -> int:
        """Let go of a session up to a number; how many that were."""
        before = self._count
        # Acks of a newer session say nothing of whether an older one arrives.
        progress = session == next(iter(self._sessions), None)
        while (lowest := self.held_from(session)) is not None and lowest <= upto:
            self._pop(session)
        gone = before - self._count
        if gone and self._note is not None:
            self._note("covered", session, upto)
        if gone and progress:
            self._since, self._patience_ms = now_ms, self._shortest_ms
            self._window = min(2 * self._window, MOST)
            self._left = self._window
            if self._tries and self._next is not None and (session, upto) >= self._next:
                # Covered beyond what was repeated: the first copies arrive, only late.
                self._next = None
        return gone

    def rewind(self, now_ms: int) -> None:
        """A connection begins: send again from the oldest held."""
        self._patience_ms = self._shortest_ms
        self._start(now_ms, tries=False)

    def again(self, now_ms: int, room: int) -> list[Held]:
        """At most `room` messages to send again now, oldest first."""
        at = self.next_at
        if at is None or now_ms < at:
            return []
        if not self._repeating:
            self._patience_ms = min(2 * self._patience_ms, LONGEST_SILENCE_MS)
            self._start(now_ms, tries=True)
        wanted = min(room, self._left, PER_S)
        if self._next is None or wanted <= 0:
            return []
        found: list[Held] = []
        for held in self._between(self._next, self._end):
            if len(found) == wanted:
                self._next = held.session, held.sequence
                break
            found.append(held)
        else:
            self._next = None
        self._left -= len(found)
        self._since = now_ms
        self._free_at = now_ms + len(found) * 1000 // PER_S
        return found

    @property
    def _repeating(self) -> bool:
        """There is more to send again before an ack must come."""
        return self._next is not None and self._left > 0

    def _start(self, now_ms: int, *, tries: bool) -> None:
        self._since, self._tries = now_ms, tries
        self._window = self._left = FIRST
        self._free_at = now_ms
        self._next = None
        if self._count:
            last = next(reversed(self._sessions.values()))[-1]
            self._next, self._end = (0, 0), (last.session, last.sequence)

    def _between(self, first: tuple[int, int], last: tuple[int, int]) -> Iterator[Held]:
        for session, messages in self._sessions.items():
            if first[0] <= session <= last[0]:
                skipped = max(0, first[1] - messages[0].sequence) if session == first[0] else 0
                for held in islice(messages, skipped, None):
                    if held[:2] > last:
                        return
                    yield held

    def _pop(self, session: int) -> Held:
        messages = self._sessions[session]
        oldest = messages.popleft()
        self._count -= 1
        if not messages:
            del self._sessions[session]
        return oldest
