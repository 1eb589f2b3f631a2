"""A stretch of a Kafka topic with fixed ends: what a training run reads, frozen before it reads.

`freeze` notes the offsets, `commit_start` writes them as absolute numbers for a fresh consumer group
(tensorflow-io's old librdkafka cannot resolve "earliest" on Kafka 4, but continues from a committed
number), `Counter` says which record lies inside the stretch. Records of one key keep their
order, so counting per partition is enough to tell the stretch from what was appended meanwhile.
"""

from dataclasses import dataclass

from confluent_kafka import KafkaException, TopicCollection, TopicPartition

from models.errors import LogChanged, NotEnoughData
from twin.kit import kafka, logs
from twin.wire.partition import partition_of

log = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class Range:
    """Offsets `start` to `end` (exclusive) of one partition."""

    partition: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """The same moment of every partition of a topic: offsets that no longer change."""

    topic: str
    ranges: tuple[Range, ...]
    topic_id: str = ""
    """Kafka's own: a topic that is made again under the same name is another one."""

    @property
    def rows(self) -> int:
        """How many records lie in it, for a topic that is neither compacted nor transactional."""
        return sum(r.end - r.start for r in self.ranges)

    def newest(self, rows: int) -> "Stretch":
        """About the newest `rows` records, an equal share of every partition."""
        share = min(1.0, rows / max(self.rows, 1))
        return Stretch(
            self.topic,
            tuple(
                Range(r.partition, r.end - int((r.end - r.start) * share), r.end)
                for r in self.ranges
            ),
            self.topic_id,
        )


def freeze(bootstrap: str, topic: str, timeout_s: float = 20) -> Stretch:
    """Today's first and last offsets of `topic`.

    Raises `KafkaUnavailable` when no broker answers, `NotEnoughData` when the topic is empty.
    """
    client = kafka.consumer(bootstrap, "models-freeze", "models-freeze")
    try:
        kafka.wait_for_topics(client, [topic], timeout_s)
        # Kept by a name: a client that is no more ends what it was asked.
        admin = kafka.admin(bootstrap)
        described = admin.describe_topics(TopicCollection([topic]))[topic].result(timeout_s)
        partitions = client.list_topics(topic, timeout=timeout_s).topics[topic].partitions
        ranges = []
        for partition in sorted(partitions):
            start, end = client.get_watermark_offsets(TopicPartition(topic, partition), timeout_s)
            ranges.append(Range(partition, start, end))
    except KafkaException as error:
        raise kafka.KafkaUnavailable(
            f"offsets of topic {topic} could not be read: {error.args[0].str()}"
        ) from error
    finally:
        client.close()
    stretch = Stretch(topic, tuple(ranges), str(described.topic_id))
    if not stretch.rows:
        raise NotEnoughData(
            f"topic {topic} is empty; write a history with: python -m models simulate --topic {topic}"
        )
    return stretch


def commit_start(bootstrap: str, group: str, stretch: Stretch) -> None:
    """Commit the stretch's first offsets for `group` as absolute numbers."""
    client = kafka.consumer(bootstrap, group, group)
    try:
        client.commit(
            offsets=[TopicPartition(stretch.topic, r.partition, r.start) for r in stretch.ranges],
            asynchronous=False,
        )
    except KafkaException as error:
        raise kafka.KafkaUnavailable(
            f"start offsets could not be committed for group {group}: {error.args[0].str()}"
        ) from error
    finally:
        client.close()


def forget(bootstrap: str, group: str, timeout_s: float = 20) -> None:
    """Delete the group of a run that has ended; Kafka would show it for a week as one that lags."""
    try:
        admin = kafka.admin(bootstrap)
        admin.delete_consumer_groups([group])[group].result(timeout_s)
    except (KafkaException, TimeoutError) as error:
        log.warning("a consumer group is left behind", group=group, error=f"{error!r:.200}")


class Counter:
    """Which records lie inside the stretch, told by key and order alone."""

    def __init__(self, stretch: Stretch) -> None:
        self._topic = stretch.topic
        self._left = {r.partition: r.end - r.start for r in stretch.ranges}
        self._partition: dict[bytes, int] = {}
        self.left = stretch.rows
        """How many records of the stretch have not come yet."""

    def inside(self, key: bytes) -> bool:
        """Count one record; False when it was appended after the stretch was frozen.

        Raises `LogChanged` for a record without a key, whose partition nobody can tell.
        """
        partition = self._partition.get(key)
        if partition is None:
            if not key:
                raise LogChanged(
                    f"topic {self._topic} holds a record without a key; every record's key must be"
                    " its vehicle id"
                )
            partition = self._partition[key] = partition_of(key, len(self._left))
        if not self._left[partition]:
            return False
        self._left[partition] -= 1
        self.left -= 1
        return True

    def verify(self) -> None:
        """Raise `LogChanged` unless every record of the stretch has come."""
        if self.left:
            short = {p: n for p, n in self._left.items() if n}
            raise LogChanged(
                f"{self.left} records of topic {self._topic} did not come (partition: missing ="
                f" {short}); was it compacted, or a record's partition not chosen by murmur2?"
            )
