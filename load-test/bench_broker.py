"""Kafka as the benches use it: topics made anew, records fed, positions watched, changelogs read back.

Speaks Kafka by itself, with none of cartwin's clients, so that a bench cannot share their mistakes; only
how a client is let in (TLS, SASL) is taken from there.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from bench_records import Record
from twin.kit.kafka import connection
from twin.local import topics

TELEMETRY: Final = "telemetry"
_ANSWER_S: Final = 15.0
_GONE: Final = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.GROUP_ID_NOT_FOUND, KafkaError._UNKNOWN_TOPIC}
)


class BrokerFailed(Exception):
    """Kafka did not do what a bench needs; the message is one sentence."""


class Broker:
    """One Kafka, by its address."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self._common: dict[str, Any] = {**connection(bootstrap), "log_level": 0}
        self._admin = AdminClient(self._common)

    def reset(self, partitions: int, groups: Iterable[str], deadline_s: float = 90) -> None:
        """Delete all topics and the `groups`, then make cartwin's topics anew."""
        end = time.monotonic() + deadline_s
        for group in groups:
            self._delete_group(group, end)
        names = [n for n in self._admin.list_topics(timeout=_ANSWER_S).topics if n[:2] != "__"]
        for answer in self._admin.delete_topics(names, request_timeout=_ANSWER_S).values():
            _ignore_gone(answer)
        while set(names) & set(self._admin.list_topics(timeout=_ANSWER_S).topics):
            if time.monotonic() > end:
                raise BrokerFailed(f"Kafka still has the topics {names} that were deleted")
            time.sleep(0.1)
        topics.create(self.bootstrap, partitions, deadline_s)

    def feed(self, records: Iterable[Record], topic: str = TELEMETRY) -> None:
        """Write records as fast as Kafka takes them; returns when it has acknowledged all."""
        producer = Producer(
            {
                **self._common,
                "partitioner": "murmur2_random",
                "acks": "all",
                "max.in.flight": 1,  # more lose the first batches of a new topic (DECISIONS 34)
                "enable.idempotence": True,
                "linger.ms": 20,
                "queue.buffering.max.messages": 1_000_000,
            }
        )
        failed: list[KafkaError] = []

        def note(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failed.append(error)

        for key, value, headers in records:
            while True:
                try:
                    producer.produce(topic, value, key, headers=dict(headers), on_delivery=note)
                    break
                except BufferError:
                    producer.poll(0.1)
        left = producer.flush(120)
        if left or failed:
            raise BrokerFailed(f"{left or len(failed)} records could not be written to {topic}")

    def end(self, topic: str) -> int:
        """Records ever written to a topic: the sum of its end offsets; 0 while it is not there."""
        return sum(self.ends(topic).values())

    def ends(self, topic: str) -> dict[int, int]:
        """End offset of each partition; empty while the topic is not there."""
        deadline = time.monotonic() + _ANSWER_S
        while True:
            known = self._admin.list_topics(topic, timeout=_ANSWER_S).topics[topic]
            if known.error is not None:
                return {}
            latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
            wanted = {TopicPartition(topic, p): latest for p in known.partitions}
            asked = self._admin.list_offsets(wanted, request_timeout=_ANSWER_S)
            try:
                return {place.partition: answer.result().offset for place, answer in asked.items()}
            except KafkaException as error:
                # A topic that is just being made has no leader for a moment; the client would
                # remember that for minutes.
                if time.monotonic() > deadline:
                    raise BrokerFailed(f"Kafka does not say where {topic} ends: {error}") from error
                time.sleep(0.1)
                self._admin = AdminClient(self._common)

    def committed(self, group: str, topic: str = TELEMETRY) -> int:
        """How many records of `topic` the group has committed; 0 while there is no group."""
        asked = self._admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
        try:
            places = asked[group].result().topic_partitions
        except KafkaException as error:
            if error.args[0].code() in _GONE | {KafkaError.COORDINATOR_NOT_AVAILABLE}:
                return 0
            raise
        return sum(max(0, place.offset) for place in places if place.topic == topic)

    def read(self, topic: str, ends: Mapping[int, int] | None = None) -> Iterator[Message]:
        """Every record from the oldest up to `ends`, or to the end as it is now."""
        ends = self.ends(topic) if ends is None else ends
        consumer = Consumer(
            {
                **self._common,
                "group.id": "bench-reader",
                "enable.auto.commit": False,
                "queued.max.messages.kbytes": 262_144,
                "enable.partition.eof": True,
            }
        )
        left = {partition for partition, end in ends.items() if end > 0}
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in left])
        silent_since = time.monotonic()
        try:
            while left:
                messages = consumer.consume(5000, timeout=1)
                if messages:
                    silent_since = time.monotonic()
                elif time.monotonic() - silent_since > 60:
                    raise BrokerFailed(f"Kafka gives no more of {topic} for 60 s")
                for message in messages:
                    partition, offset = int(message.partition() or 0), int(message.offset() or 0)
                    if message.error() is None:
                        yield message
                        offset += 1
                    # At the end of a partition offset is its end: compacted records leave holes.
                    if offset >= ends[partition]:
                        left.discard(partition)
        finally:
            consumer.close()

    def _delete_group(self, group: str, end: float) -> None:
        """A group can be deleted when its last member has left or timed out."""
        while True:
            answer = self._admin.delete_consumer_groups([group], request_timeout=_ANSWER_S)[group]
            try:
                _ignore_gone(answer)
            except KafkaException as error:
                if time.monotonic() > end:
                    raise BrokerFailed(f"the group {group} does not end: {error}") from error
                time.sleep(0.5)
            else:
                return


def _ignore_gone(answer: Any) -> None:
    try:
        answer.result()
    except KafkaException as error:
        if error.args[0].code() not in _GONE:
            raise
