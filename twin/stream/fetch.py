"""The records of the inputs, fetched by librdkafka: outside Python, and without membership of a group.

    place(tp -> offset) -> [ librdkafka's threads fetch ahead ] -> take() -> runs of records per partition

aiokafka's fetcher costs 5 to 6 us a record and 1.3 ms a request (it encodes 84 partitions in Python), in
a thread that fights for the interpreter with the one that decides. Here a record costs about 2 us: the
client's threads hold no lock of Python's, and `take` never waits, so it runs in the event loop's own
thread. Only who has nothing to do lets a thread `wait`, instead of looking again and again. Which
partitions, from where, and when, is said by `twin.stream.transport`.

What is fetched and not yet taken is bounded by records and by bytes, small enough that a command does
not wait long behind telemetry, and of all partitions in turn (measured in DECISIONS.md, 32).

Nothing is passed over: a hole is read again, and only believed when Kafka repeats it. An error that
waiting does not heal raises `InputsUnreadable`, also one that librdkafka would skip records over.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, islice, repeat
from operator import itemgetter
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from faust.types import TP

from twin.kit import kafka, logs
from twin.wire.errors import CartwinError

log = logs.get(__name__)

_FETCH_BYTES: Final = 1024 * 1024
_SETTINGS: Final[dict[str, Any]] = {
    # Aborted transactions are records like any other.
    "isolation.level": "read_uncommitted",
    "check.crcs": True,
    # No request goes out while so much is queued, so at most one response more is in memory.
    "queued.min.messages": 4000,
    "queued.max.messages.kbytes": 4 * 1024,
    "fetch.max.bytes": _FETCH_BYTES,
    # So that one backlog does not fill a response while the other partitions wait for theirs.
    "max.partition.fetch.bytes": _FETCH_BYTES // 16,
    # Its default is a second's rest whenever the queue is full.
    "fetch.queue.backoff.ms": 5,
    # A request names every partition: some hundred a second, not one for every few records.
    "fetch.min.bytes": 64 * 1024,
    "fetch.wait.max.ms": 5,
}

# What librdkafka tries again by itself, and loses nothing over.
_HEALS: Final = frozenset(
    {
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.UNKNOWN,
    }
)
_GONE: Final = frozenset(
    {
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)


class InputsUnreadable(CartwinError):
    """A partition of the inputs cannot be read on without losing records."""


class Record(NamedTuple):
    """One record of a topic."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    """Kafka's, ms since 1970; -1 when there is none."""
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]] | None


class Source:
    """One client, and its place in each of its partitions.

    No call but `wait` waits for Kafka, and that alone may be called from another thread: not while
    `take` is called, and `place` and `close` wait for its end.
    """

    def __init__(self, bootstrap: str, group: str, client_id: str) -> None:
        """`group` is a name that the client must have; it neither joins it nor commits."""
        self._client: Consumer = kafka.consumer(
            bootstrap, group, client_id, **_SETTINGS, error_cb=self._on_error
        )
        self._fault: KafkaError | None = None
        self._next: dict[TP, int] = {}
        self._holes: dict[TP, tuple[int, int]] = {}
        self._waiting = threading.Lock()
        self._arrived: list[Message] = []
        """What ended a `wait`."""

    def place(self, places: Mapping[TP, int]) -> None:
        """Read exactly these partitions, each from the given offset on.

        One that is there already is left as it is, with what was fetched ahead. Raises
        `InputsUnreadable`.
        """
        # A hole of before may be the same again without being one.
        self._holes.clear()
        stays = {tp for tp, offset in self._next.items() if places.get(tp) == offset}
        with self._waiting:
            self._arrived = [m for m in self._arrived if (m.topic(), m.partition()) in stays]
            self._assign(
                gone=self._next.keys() - stays,
                new={tp: offset for tp, offset in places.items() if tp not in stays},
            )
        self._next = dict(places)

    def wait(self, seconds: float) -> None:
        """Return when something has arrived, at the latest after so long."""
        with self._waiting:
            if not self._arrived:
                self._arrived = self._client.consume(1, seconds)

    def take(self, most: int) -> list[tuple[TP, list[Record]]]:
        """What has arrived, at most so many records, as runs of one partition: in order per partition.

        Raises `InputsUnreadable`; nothing of what arrived with the error is handed over.
        """
        messages, self._arrived = self._arrived, []
        if len(messages) < most:
            messages += self._client.consume(most - len(messages), 0)
        if self._fault is not None:
            raise InputsUnreadable(f"inputs: {self._fault.str()}")
        if any(map(Message.error, messages)):
            messages = list(_good(messages))
        taken = []
        again: dict[TP, int] = {}
        for tp, run in _runs(messages):
            if tp in again:
                continue
            fresh = self._in_sequence(tp, run)
            if fresh is None:
                again[tp] = self._next[tp]
            else:
                taken.append((tp, fresh))
                self._next[tp] = fresh[-1].offset + 1
        if again:
            self._assign(gone=again, new=again)
        return taken

    def end(self, tp: TP) -> int | None:
        """Behind the last record of a partition, as Kafka said with its last answer; None before it."""
        known = self._client.get_watermark_offsets(TopicPartition(*tp), cached=True)
        return known[1] if known is not None and known[1] >= 0 else None

    def behind(self) -> dict[tuple[str, int], int]:
        """Records of each partition that were not taken yet, where Kafka has said its end."""
        ends = ((tp, next_, self.end(tp)) for tp, next_ in self._next.items())
        return {
            (tp.topic, tp.partition): max(0, end - next_)
            for tp, next_, end in ends
            if end is not None
        }

    def close(self) -> None:
        """End the client. May take a moment."""
        with self._waiting:
            self._client.close()

    def _on_error(self, error: KafkaError) -> None:
        # Told here and not as a message: what is the client's as a whole, and that a topic is gone.
        if error.fatal() or error.code() in _GONE:
            self._fault = error
        else:
            kafka.log_error(error)

    def _in_sequence(self, tp: TP, run: list[Record]) -> list[Record] | None:
        """The run when it follows on what was taken; None when there is a hole to be read again."""
        expected, first = self._next[tp], run[0].offset
        if first == expected:
            return run
        if first < expected:
            # librdkafka looks for the oldest record when our place is not in the log.
            raise InputsUnreadable(
                f"{tp.topic} partition {tp.partition} gives offset {first} where {expected} is next:"
                " the topic was made anew, or Kafka has lost records"
            )
        hole = (expected, first)
        if self._holes.get(tp) != hole:
            self._holes[tp] = hole
            return None
        # Kafka has nothing there: expired by retention, compacted, or a transaction's marker.
        log.warning("records are gone", topic=tp.topic, partition=tp.partition, offsets=hole)
        return run

    def _assign(self, gone: Iterable[TP], new: Mapping[TP, int]) -> None:
        """Leave partitions, then begin some, maybe the same: what was fetched of them is dropped."""
        leaving = [TopicPartition(*tp) for tp in gone]
        coming = [TopicPartition(*tp, offset) for tp, offset in new.items()]
        try:
            if leaving:
                self._client.incremental_unassign(leaving)
            if coming:
                self._client.incremental_assign(coming)
        except KafkaException as error:
            raise InputsUnreadable(f"the inputs cannot be read: {error.args[0].str()}") from error


def _good(messages: Iterable[Message]) -> Iterator[Message]:
    for message in messages:
        error = message.error()
        if error is None:
            yield message
            continue
        topic = message.topic()
        # An error of no topic moves the client in no partition.
        if error.fatal() or (topic is not None and error.code() not in _HEALS):
            raise InputsUnreadable(f"input {topic}[{message.partition()}]: {error.str()}")
        log.warning("inputs wait for Kafka", topic=topic, error=error.str())


def _runs(messages: list[Message]) -> Iterator[tuple[TP, list[Record]]]:
    """Messages that stand together and are of one partition; nothing of Python's for each of them."""
    topics: list[Any] = list(map(Message.topic, messages))
    partitions: list[Any] = list(map(Message.partition, messages))
    fields = zip(
        topics,
        partitions,
        map(Message.offset, messages),
        map(itemgetter(1), map(Message.timestamp, messages)),
        map(Message.key, messages),
        map(Message.value, messages),
        kafka.headers_of_all(messages),
        strict=True,
    )
    records = map(tuple.__new__, repeat(Record), fields)
    for place, run in groupby(zip(topics, partitions, strict=True)):
        yield TP(*place), list(islice(records, len(list(run))))
