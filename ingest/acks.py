"""Receipts for cars (promise B): what Kafka has of a session, without a gap. Pure.

    telemetry with `held_from` -> asked -> (Kafka has the record) -> Acks.safe -> Acks.due -> car
                       other workers of the shard (ingest.relay) -> Acks.take ---^

A car that keeps its messages says with each the lowest number that it still holds: all below is
covered. From there on this process counts what it saw acknowledged by Kafka, accepted or rejected,
or what another worker says that it saw, and tells `upto`. It never guesses: after a restart, or when a
car was forgotten because others came, it begins again at `held_from`, and reaches the rest when the
car sends again what it holds.

Bounded twice: CARS sessions, of which the one that was silent longest is forgotten, and RUNS runs of
numbers behind a gap, of which the farthest is forgotten.
"""

import re
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, Protocol

from twin.wire import codec
from twin.wire.errors import WireError
from twin.wire.topics import mqtt_topic

CARS: Final = 100_000
"""Sessions that are followed at the same time, about 0.4 KB each."""
RUNS: Final = 32
"""Runs of numbers without a gap that are remembered of a session behind its first gap. Where workers
share telemetry there is one for every few messages, until the others have told theirs."""

_MARK: Final = b"held_from"
_HIGHEST: Final = 2**63 - 1


class Asked(NamedTuple):
    """What a message of a car that wants receipts says; everything below `held_from` is covered."""

    session: int
    sequence: int
    held_from: int


class Claim(NamedTuple):
    """What a worker saw acknowledged by Kafka of a session, in `runs` (first, last), beside what the
    car itself said is covered: everything below `held_from`."""

    vehicle_id: bytes
    session: int
    held_from: int
    runs: tuple[tuple[int, int], ...]


class Claims(Protocol):
    """Hears what Kafka has of cars that ask for receipts."""

    def safe(self, vehicle_id: bytes, message: Asked, shard: int) -> None:
        """Kafka has a message, which came from the broker number `shard`."""


class Ack(NamedTuple):
    """A message for a car, to be published at the broker number `shard`."""

    shard: int
    topic: str
    payload: bytes


def asked(payload: bytes) -> Asked | None:
    """What a telemetry payload asks for; None when it asks for no receipt.

    Also of a payload that is rejected, even one that is no JSON or was cut: it is kept in `rejected`,
    and a car that never heard so would send it for ever.
    """
    if _MARK not in payload:
        return None
    try:
        fields: Any = codec.parse_object(payload)
    except WireError:
        fields = {name: _first(name, payload) for name in Asked._fields}
    session, sequence, held_from = (_number(fields.get(name)) for name in Asked._fields)
    # Without a session of its own a car begins again at numbers that a former life has covered.
    if not session or sequence is None or held_from is None:
        return None
    return Asked(session, sequence, held_from)


class Acks:
    """What is safe, by vehicle id and session; which cars are to hear of it."""

    def __init__(self, cars: int = CARS) -> None:
        self._cars = cars
        self._sessions: OrderedDict[tuple[bytes, int], _Progress] = OrderedDict()
        self._due: dict[tuple[bytes, int], None] = {}

    def __len__(self) -> int:
        """Sessions that are followed."""
        return len(self._sessions)

    def safe(self, vehicle_id: bytes, message: Asked, shard: int) -> None:
        """Kafka has a message, which came from the broker number `shard`."""
        run = (message.sequence, message.sequence)
        self.take(Claim(vehicle_id, message.session, message.held_from, (run,)), shard)

    def take(self, claim: Claim, shard: int) -> None:
        """Kafka has what is claimed, which came from the broker number `shard`."""
        vehicle_id, session, held_from, runs = claim
        key = (vehicle_id, session)
        progress = self._sessions.get(key)
        if progress is None:
            progress = self._sessions[key] = _Progress(held_from - 1)
            if len(self._sessions) > self._cars:
                self._due.pop(self._sessions.popitem(last=False)[0], None)
        else:
            self._sessions.move_to_end(key)
        progress.shard = shard
        progress.covered(held_from - 1)
        progress.add(runs)
        # It holds what is safe: because that is news, or because it has not heard of it.
        if progress.upto >= held_from:
            self._due[key] = None

    def due(self) -> Iterator[Ack]:
        """What to tell since the last call, one ack a session; made as they are taken."""
        due, self._due = self._due, {}
        for key in due:
            progress = self._sessions.get(key)
            if progress is not None:
                vehicle_id, session = key
                yield Ack(
                    progress.shard,
                    mqtt_topic(vehicle_id.decode(), "ack"),
                    codec.dump({"session": session, "upto": progress.upto}),
                )


class _Progress:
    """Everything up to `upto` is safe or covered; `runs` (first, last) are safe behind a gap."""

    __slots__ = ("runs", "shard", "upto")

    def __init__(self, upto: int) -> None:
        self.upto = upto
        self.runs: list[tuple[int, int]] = []
        self.shard = 0

    def covered(self, upto: int) -> None:
        """The car says so."""
        if upto > self.upto:
            self.upto = upto
            self._close()

    def add(self, runs: Iterable[tuple[int, int]]) -> None:
        """Numbers are safe. The bound is kept once all of them are taken in."""
        for first, last in runs:
            if last <= self.upto:
                continue
            if first <= self.upto + 1:
                self.upto = last
                self._close()
            else:
                self._behind_a_gap(first, last)
        del self.runs[RUNS:]

    def _behind_a_gap(self, first: int, last: int) -> None:
        runs = self.runs
        end = bisect_left(runs, (last + 2,))  # runs before `end` begin next to `last` or below
        at = end
        while at and runs[at - 1][1] >= first - 1:
            at -= 1
        if at < end:
            first, last = min(first, runs[at][0]), max(last, runs[end - 1][1])
        runs[at:end] = [(first, last)]

    def _close(self) -> None:
        """Take in the runs that no gap is before any more."""
        runs = self.runs
        while runs and runs[0][0] <= self.upto + 1:
            self.upto = max(self.upto, runs.pop(0)[1])


def _first(name: str, payload: bytes) -> int | None:
    """The first whole number that stands behind a member's name, in bytes that cannot be parsed."""
    found = re.search(rb'"%s"\s*:\s*(\d{1,19})(?![\d.eE])' % name.encode(), payload)
    return None if found is None else int(found[1])


def _number(value: object) -> int | None:
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= _HIGHEST else None
