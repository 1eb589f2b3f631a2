"""Topic `rejected` for the API: read backwards, and what is driven again on its way into Kafka.

One thread does everything with Kafka's clients, one job after the other, so the event loop is never
held; more than MOST_JOBS at once are refused. The clients are made at the first job and read nothing
between jobs.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from twin.api import rejected_scan
from twin.api.problems import Problem
from twin.api.rejected_scan import Page, Record, Span, Wanted
from twin.api.request_log import LogUnavailable
from twin.kit import kafka, logs
from twin.wire import redrive, topics
from twin.wire.redrive import Again

log = logs.get(__name__)

T = TypeVar("T")

MOST_JOBS: Final = 16
_ANSWER_S: Final = 5.0
_POLL_S: Final = 0.1
_BATCH: Final = 500
_NO_ANSWER: Final = "Kafka did not answer in time"
_MAY_BE_THERE: Final = frozenset(
    {
        KafkaError._MSG_TIMED_OUT,
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._PURGE_INFLIGHT,
        KafkaError._FATAL,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    }
)
"""Errors after which Kafka may have a record all the same: its answer is what did not come."""


class Whole(NamedTuple):
    """A record with its bytes; `headers` as they are in Kafka."""

    record: Record
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class RejectedLog:
    """Reads `rejected`, and produces what is driven again; `LogUnavailable` while Kafka is away."""

    def __init__(self, bootstrap: str, wait_s: float) -> None:
        self._bootstrap = bootstrap
        self._wait_s = wait_s
        self._consumer: Consumer | None = None
        self._producer: Producer | None = None
        self._jobs = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rejected-log")

    async def page(self, wanted: Wanted, cursor: str | None, limit: int) -> Page:
        """The next `limit` records, the newest first."""
        return await self._run(
            lambda: rejected_scan.scan(_Reading(self._reader()), wanted, cursor, limit)
        )

    async def read(self, spans: Mapping[int, Span]) -> list[Whole]:
        """The records of these spans that there are."""

        def job() -> list[Whole]:
            reading = _Reading(self._reader())
            held = reading.bounds([number for number in spans if number < reading.partitions()])
            inside = {
                number: (max(spans[number][0], low), min(spans[number][1], high))
                for number, (low, high) in held.items()
            }
            return [
                Whole(_record(message, headers), message.value(), headers)
                for message, headers in reading.messages(inside)
            ]

        return await self._run(job)

    async def send(self, records: list[Again]) -> list[str | None]:
        """Produce; None for each that Kafka has, else a sentence: it has not, or that is not known."""
        return await self._run(lambda: self._send(records))

    def close(self) -> None:
        """Finish what is under way and leave. Blocks."""
        self._thread.submit(self._close).result()
        self._thread.shutdown()

    async def _run(self, job: Callable[[], T]) -> T:
        if self._jobs >= MOST_JOBS:
            raise Problem(
                "too_busy",
                f"{MOST_JOBS} requests for rejected records are under way, which is the most",
                headers={"Retry-After": "1"},
            )
        self._jobs += 1
        try:
            with _named():
                return await asyncio.get_running_loop().run_in_executor(self._thread, job)
        finally:
            self._jobs -= 1

    # --- In the thread ----------------------------------------------------------------------------

    def _reader(self) -> Consumer:
        if self._consumer is None:
            self._consumer = kafka.consumer(
                self._bootstrap,
                # Nothing is committed: the group has no meaning.
                "cartwin-api-rejected",
                "cartwin-api-rejected",
                **{
                    "enable.partition.eof": True,
                    "queued.max.messages.kbytes": 16 * 1024,
                    "error_cb": _trace,
                },
            )
        return self._consumer

    def _send(self, records: list[Again]) -> list[str | None]:
        if self._producer is None:
            self._producer = kafka.producer(
                self._bootstrap,
                "cartwin-api-redrive",
                **{"message.timeout.ms": int(self._wait_s * 1000), "error_cb": _trace},
            )
        producer = self._producer
        faults: list[str | None] = [_unknown(record, _NO_ANSWER) for record in records]
        answered = 0

        def told(place: int) -> Callable[[KafkaError | None, Message], None]:
            def delivered(error: KafkaError | None, _message: Message) -> None:
                nonlocal answered
                answered += 1
                faults[place] = None if error is None else _fault(records[place], error)

            return delivered

        for place, record in enumerate(records):
            try:
                producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    on_delivery=told(place),
                    headers=[*record.headers],
                )
            except (BufferError, KafkaException) as error:
                answered += 1
                faults[place] = _refused(record, str(error))
        # Longer than a record lives, so that none is still on its way when this returns.
        producer.flush(self._wait_s + 2)
        if answered < len(records):
            producer.purge()
            producer.flush(1)
            self._producer = None
        return faults

    def _close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
        if self._producer is not None:
            self._producer.flush(self._wait_s)


class _Reading:
    """One job's view of the topic (`rejected_scan.Log`)."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def partitions(self) -> int:
        known = self._consumer.list_topics(topics.REJECTED, timeout=_ANSWER_S).topics
        found = known[topics.REJECTED]
        if found.error is not None:
            raise KafkaException(found.error)
        return len(found.partitions)

    def bounds(self, partitions: Collection[int]) -> dict[int, Span]:
        return {
            number: self._consumer.get_watermark_offsets(
                TopicPartition(topics.REJECTED, number), timeout=_ANSWER_S
            )
            for number in partitions
        }

    def first_at(self, bounds: Mapping[int, Span], at_ms: int) -> dict[int, int]:
        asked = [TopicPartition(topics.REJECTED, number, at_ms) for number in bounds]
        found: dict[int, int] = {}
        for place in self._consumer.offsets_for_times(asked, timeout=_ANSWER_S) if asked else ():
            if place.error is not None:
                raise KafkaException(place.error)
            low, high = bounds[place.partition]
            found[place.partition] = high if place.offset < 0 else min(max(place.offset, low), high)
        return found

    def read(self, spans: Mapping[int, Span]) -> Iterator[Record]:
        for message, headers in self.messages(spans):
            yield _record(message, headers)

    def messages(
        self, spans: Mapping[int, Span]
    ) -> Iterator[tuple[Message, list[tuple[str, bytes | None]]]]:
        """Messages of the spans with their headers; offsets without a record are passed over."""
        ends = {number: end for number, (start, end) in spans.items() if start < end}
        if not ends:
            return
        self._consumer.assign(
            [TopicPartition(topics.REJECTED, number, spans[number][0]) for number in ends]
        )
        try:
            moved = time.monotonic()
            while ends:
                first = self._consumer.poll(_POLL_S)
                if first is None:
                    if time.monotonic() - moved > _ANSWER_S:
                        raise LogUnavailable(
                            f"Kafka gives no records of {topics.REJECTED} within {_ANSWER_S:g} s"
                        )
                    continue
                moved = time.monotonic()
                # A batch would be waited for until it is full.
                for message in (first, *self._consumer.consume(_BATCH - 1, 0)):
                    number, offset, error = message.partition(), message.offset(), message.error()
                    if number is None or offset is None or number not in ends:
                        continue
                    if error is not None:
                        if error.code() == KafkaError._PARTITION_EOF:
                            del ends[number]
                        elif error.fatal() or not error.retriable():
                            raise KafkaException(error)
                        continue
                    if offset < ends[number]:
                        yield message, list(kafka.headers_of(message) or ())
                    if offset >= ends[number] - 1:
                        del ends[number]
        finally:
            self._consumer.unassign()


def _fault(record: Again, error: KafkaError) -> str:
    """What a delivery report says of a record."""
    say = _unknown if error.code() in _MAY_BE_THERE else _refused
    return say(record, error.str())


def _refused(record: Again, why: str) -> str:
    return f"Kafka did not take the record for {record.topic}: {why}"


def _unknown(record: Again, why: str) -> str:
    return f"it is not known whether Kafka has the record for {record.topic}: {why}"


def _record(message: Message, headers: list[tuple[str, bytes | None]]) -> Record:
    partition, offset = message.partition(), message.offset()
    return Record(
        partition=-1 if partition is None else partition,
        offset=-1 if offset is None else offset,
        at=message.timestamp()[1],
        key=message.key(),
        # The original's headers may be a megabyte: whoever shows one record reads them from it.
        told=redrive.read(headers)._replace(originals=[]),
        size=len(message.value() or b""),
    )


@contextmanager
def _named() -> Iterator[None]:
    """Kafka's errors as ours."""
    try:
        yield
    except KafkaException as error:
        raise LogUnavailable(
            f"topic {topics.REJECTED} cannot be read: {error.args[0].str()}"
        ) from error


def _trace(error: Any) -> None:
    log.debug("kafka client", error=error.str(), code=error.name())
