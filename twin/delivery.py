"""Writing to Kafka for the owner: changelogs, of which it is the only writer, and outputs.

Acknowledgements are waited for per batch, not by flushing: while one batch is on its way the next is
decided. Of a changelog only the last record of each partition has a callback: the producer is
idempotent, so what is before it in the partition is there, too.

The producer's queue is bounded (`QUEUE`). What it has no room for waits here, in its order, and follows
while its ticket is waited for: the event loop goes on meanwhile, so heartbeats, health and the group's
member do. Nobody makes more before `wait` is through with what there is, so what waits here is no more
than the outputs of the batches in hand.

Law 5: the offsets that an only writer gets follow on each other. If they do not, somebody else wrote
to the changelog, and `Foreign` says where; the owner looks what it was.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import KafkaError, Message, Producer

from twin.changelog import Place
from twin.wire.errors import CartwinError

QUEUE: Final = {"queue.buffering.max.kbytes": 64 * 1024}
"""Of the producer. librdkafka's own 1 GiB would be reached while Kafka is away, on top of the twins. Two
batches of 2,000 twins of 2 KB are 9 MB; 64 MiB hold eight of the largest records (`TWINS_MAX_BYTES`)."""
_POLL_S: Final = 0.05
TIMEOUT_S: Final = 330.0
"""The producer gives a record up after 300 s; if nothing is heard even of that, the client is broken."""

Headers = Sequence[tuple[str, bytes]]
Entry = tuple[str | bytes | None, bytes | None, Headers | None]
"""Key, value and headers of a record."""


class NotDurable(CartwinError):
    """Kafka did not acknowledge a write of the worker; the process must end uncommitted."""


Waiting = tuple[str, int, Entry, Any]
"""Topic, partition, record and who hears of it."""


@dataclass(slots=True)
class Ticket:
    """Records on their way."""

    left: int = 0
    fault: str | None = None
    foreign: list[tuple[Place, int, int]] = field(default_factory=list)
    """Place, first offset and end of what somebody else wrote in between."""


class Writer:
    """The worker's producer."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._ends: dict[Place, int] = {}
        self._foreign: dict[Place, int] = {}
        self._heard: dict[Place, int] = {}
        self._polling = asyncio.Lock()
        self._waiting: deque[Waiting] = deque()
        """What the producer's queue has no room for yet; the first of them goes first."""

    def begin(self, place: Place, end: int) -> None:
        """From now on this worker alone writes to a changelog partition, which ends at `end`."""
        self._ends[place] = self._heard[place] = end
        self._foreign[place] = 0

    def end(self, place: Place) -> int:
        """Where a changelog partition ends when all of ours is there."""
        return self._ends[place] + self._foreign[place]

    def looked(self, place: Place, end: int) -> None:
        """Nothing up to `end` is news; not taken note of while something of ours is on its way."""
        ours = self.end(place)
        if self._heard[place] == ours < end:
            self._foreign[place] += end - ours
            self._heard[place] = end

    def changelog(self, place: Place, entries: Sequence[Entry], ticket: Ticket) -> None:
        """Write records of different keys to a changelog partition."""
        topic, partition = place
        count = len(entries)
        expected = self._ends[place] = self._ends[place] + count

        def acknowledged(error: KafkaError | None, message: Message) -> None:
            if error is None:
                end, known = (message.offset() or 0) + 1, self._foreign[place]
                self._heard[place] = end
                if end > expected + known:
                    self._foreign[place] = end - expected
                    ticket.foreign.append((place, expected + known - count, end))
                elif end < expected + known:
                    ticket.fault = f"a record in front of {topic}/{partition}/{end - 1} is missing"
            _count(ticket, error)

        ticket.left += 1
        plain: list[dict[str, Any]] = []
        special: list[Entry] = []
        for entry in entries:
            if entry[2]:
                special.append(entry)
            else:
                plain.append({"key": entry[0], "value": entry[1]})
        last = plain.pop() if plain else None
        final: Entry = special.pop() if last is None else (last["key"], last["value"], None)
        for entry in special:
            self._produce(topic, partition, entry, None)
        if not self._waiting and plain:
            self._producer.produce_batch(topic, plain, partition)
            plain = [left for left in plain if "_error" in left]
        for left in plain:
            self._produce(topic, partition, (left["key"], left["value"], None), None)
        self._produce(topic, partition, final, acknowledged)

    def send(self, topic: str, partition: int, entry: Entry, ticket: Ticket) -> None:
        """Write one record to any other topic."""
        ticket.left += 1
        self._produce(topic, partition, entry, lambda error, _message: _count(ticket, error))

    async def wait(self, ticket: Ticket) -> None:
        """Return when Kafka has all of a ticket's records; raises `NotDurable`.

        Also when the queue has no room for so long; the event loop is free all the while.
        """
        deadline = time.monotonic() + TIMEOUT_S
        while ticket.left:
            # One thread at a time, so acknowledgements are heard in the order of the writes; whoever
            # waits for the next batch does not sleep over what this poll has heard for it.
            async with self._polling:
                if ticket.left:
                    await asyncio.to_thread(self._producer.poll, _POLL_S)
                    self._hand_over()
            if time.monotonic() > deadline:
                raise NotDurable(f"{ticket.left} writes are not acknowledged in {TIMEOUT_S:.0f} s")
        if ticket.fault is not None:
            raise NotDurable(f"Kafka refused a record: {ticket.fault}")

    def _produce(self, topic: str, partition: int, entry: Entry, on_delivery: Any) -> None:
        self._waiting.append((topic, partition, entry, on_delivery))
        if len(self._waiting) == 1:
            self._hand_over()

    def _hand_over(self) -> None:
        """Give the producer what there is room for."""
        while self._waiting:
            topic, partition, (key, value, headers), on_delivery = self._waiting[0]
            try:
                self._producer.produce(
                    topic, value, key, partition, on_delivery, headers=list(headers or ())
                )
            except BufferError:
                return
            self._waiting.popleft()


def _count(ticket: Ticket, error: KafkaError | None) -> None:
    ticket.left -= 1
    if error is not None:
        ticket.fault = error.str()
