"""Reads Kafka for the replay: what arrives while it runs, and the twins when it is over.

Offsets are frozen before the first message, so only this run is counted. The twins come from their
public changelog `twins`, from its beginning, since a twin may be older than this run.
"""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

import orjson
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from twin.client.replay_plan import Plan
from twin.client.replay_tally import Mismatch, Tally, compare, has_applied
from twin.kit import kafka
from twin.kit.kafka import KafkaUnavailable
from twin.kit.registry import use_ids
from twin.kit.registry_settings import SchemaRegistry
from twin.kit.settings import read
from twin.wire import topics

_TOPICS: Final = (topics.TELEMETRY, topics.REJECTED, topics.TWINS)
_BATCH: Final = 1_000
_TIMEOUT_S: Final = 10.0
# For a second or two after a topic was made; librdkafka does not call it retriable.
_NO_LEADER_YET: Final = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)


class Arrivals:
    """Counts the records of this run from the moment it is entered.

    Raises `KafkaUnavailable`, `RegistryUnavailable`.
    """

    def __init__(self, bootstrap: str, plan: Plan) -> None:
        self._bootstrap = bootstrap
        self.tally = Tally(plan)

    def __enter__(self) -> Self:
        self._consumer = _consumer(self._bootstrap)
        try:
            kafka.wait_for_topics(self._consumer, list(_TOPICS), _TIMEOUT_S)
            use_ids(read(SchemaRegistry), _TIMEOUT_S)
            self._consumer.assign(_frozen(self._consumer, (topics.TELEMETRY, topics.REJECTED)))
        except KafkaException as error:
            self._consumer.close()
            raise KafkaUnavailable(f"Kafka at {self._bootstrap}: {error.args[0].str()}") from None
        except BaseException:
            self._consumer.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._consumer.close()

    def poll(self, timeout_s: float) -> None:
        """Count what Kafka has, waiting up to `timeout_s` for the first record."""
        for message in _batch(self._consumer, timeout_s):
            key, value = _bytes(message.key()), _bytes(message.value())
            if message.topic() == topics.TELEMETRY:
                partition, offset = message.partition(), message.offset()
                assert partition is not None
                assert offset is not None
                self.tally.telemetry(key, value, partition, offset)
            else:
                headers = dict(kafka.headers_of(message) or ())
                reason = _bytes(headers.get("reason")) or b"unknown"
                self.tally.rejected_record(key, value, reason.decode(errors="replace"))


def read_twins(
    bootstrap: str,
    plan: Plan,
    ends: dict[str, tuple[int, int]],
    on_progress: Callable[[int], None],
    patience_s: float,
) -> tuple[int, list[Mismatch]]:
    """Wait until the worker has applied the last record of each car, then compare its twin.

    `ends`: per vehicle, partition and offset of its last telemetry record. Waits until no twin has
    moved on for `patience_s`. Returns how many cars have a twin, and every difference.
    """
    expected = {name: one.expected() for name, one in plan.vehicles.items() if one.accepted}
    # The newest document of each vehicle, unread: a busy worker writes many that nobody needs.
    raw: dict[str, bytes | None] = {}
    waiting = set(expected) & set(ends)
    moved: set[str] = set()
    consumer = _consumer(bootstrap)
    try:
        consumer.assign(
            [TopicPartition(topics.TWINS, number, OFFSET_BEGINNING)
             for number in _partitions(consumer, topics.TWINS)]
        )  # fmt: skip
        deadline = time.monotonic() + patience_s
        while waiting and time.monotonic() < deadline:
            batch = _batch(consumer, 0.2)
            for message in batch:
                vehicle_id = (_bytes(message.key()) or b"").decode(errors="replace")
                if vehicle_id in expected:
                    raw[vehicle_id] = _bytes(message.value())
                    moved.add(vehicle_id)
                    deadline = time.monotonic() + patience_s
            if len(batch) < _BATCH:
                waiting -= {
                    name
                    for name in moved & waiting
                    if has_applied(_document(raw[name]), *ends[name])
                }
                moved.clear()
                on_progress(len(expected) - len(waiting))
    except KafkaException as error:
        raise KafkaUnavailable(f"Kafka at {bootstrap}: {error.args[0].str()}") from None
    finally:
        consumer.close()
    twins = {name: _document(value) for name, value in raw.items() if value is not None}
    return len(twins), [
        mismatch
        for name, signals in expected.items()
        for mismatch in compare(name, signals, twins.get(name, {}))
    ]


def _document(value: bytes | None) -> dict[str, Any]:
    """A twin; one that is deleted or cannot be read reports nothing, which the comparison shows."""
    try:
        document = orjson.loads(value or b"{}")
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _consumer(bootstrap: str) -> Consumer:
    # Nothing is committed, so the group exists in name only. A broker that is gone for a moment is
    # seen as missing progress; the client's own reports would only break the progress display.
    return kafka.consumer(
        bootstrap,
        "cartwin-replay",
        "cartwin-replay",
        **{
            "log_level": 0,
            "error_cb": _ignore,
            "queued.max.messages.kbytes": 8192,
            # A fetch costs the broker more than the records in it: some 100 rows at a time.
            "fetch.min.bytes": 16_384,
            "fetch.wait.max.ms": 50,
        },
    )


def _ignore(_error: Any) -> None:
    """A connection that is lost comes back by itself, or the replay stops making progress."""


def _partitions(consumer: Consumer, topic: str) -> list[int]:
    return sorted(consumer.list_topics(topic, timeout=_TIMEOUT_S).topics[topic].partitions)


def _frozen(consumer: Consumer, names: tuple[str, ...]) -> list[TopicPartition]:
    deadline = time.monotonic() + _TIMEOUT_S
    return [
        TopicPartition(topic, number, _end(consumer, TopicPartition(topic, number), deadline))
        for topic in names
        for number in _partitions(consumer, topic)
    ]


def _end(consumer: Consumer, partition: TopicPartition, deadline: float) -> int:
    """Offset behind the last record."""
    while True:
        try:
            ends = consumer.get_watermark_offsets(partition, timeout=_TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() not in _NO_LEADER_YET or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            assert ends is not None  # None only without a partition
            return int(ends[1])


def _batch(consumer: Consumer, timeout_s: float) -> list[Message]:
    """Wait for one record, then take what is there; `consume` alone would wait to fill a batch."""
    first = consumer.poll(timeout_s)
    if first is None:
        return []
    batch = [first, *consumer.consume(_BATCH - 1, 0)]
    for message in batch:
        error = message.error()
        if error is not None and (error.fatal() or not error.retriable()):
            raise KafkaUnavailable(f"Kafka: {error.str()}")
    return [message for message in batch if message.error() is None]


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
