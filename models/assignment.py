"""The partitions a scorer owns: where to read, from where to speak, and what may be committed.

Windows and debounce live in memory, so a partition that is taken over is read again from
`restore_minutes` before its committed offset, through the same path, silently: records below
`speak_from` are scored and not told. The time to go back to comes from the commit itself: its
metadata holds the Kafka timestamp (ms) of the last record. A partition that is given up is forgotten
with everything of it. Baselines are older than that, and kept elsewhere (`baselines`). (An alarm that
stood longer than that on scores between release and threshold is not remembered; the twin keeps it
until the scorer says otherwise.)
"""

from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaException, TopicPartition

from twin.kit import logs

log = logs.get(__name__)

_KAFKA_S = 20.0


@dataclass(slots=True)
class Partition:
    """One owned partition. `position` is the next offset to read, `timestamp` of the last record."""

    speak_from: int
    position: int = -1
    timestamp: int = 0
    committed: int = -1


class Assignment:
    """All owned partitions of one topic; its callbacks are the consumer's rebalance listener.

    `forget` is told each partition that is not owned any more.
    """

    def __init__(self, *, restore_minutes: float, forget: Callable[[int], None]) -> None:
        self._restore_ms = int(restore_minutes * 60_000)
        self._forget = forget
        self.partitions: dict[int, Partition] = {}

    def assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Take partitions over, each from its restore point."""
        starts = []
        for start, committed in self._starts(consumer, partitions):
            self.partitions[start.partition] = Partition(speak_from=committed)
            starts.append(start)
        consumer.incremental_assign(starts)

    def lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Forget partitions."""
        for gone in partitions:
            if self.partitions.pop(gone.partition, None) is not None:
                self._forget(gone.partition)

    def commits(self, topic: str) -> list[TopicPartition]:
        """What is read and told and not committed yet."""
        found = []
        for number, owned in self.partitions.items():
            if owned.position > max(owned.committed, owned.speak_from):
                owned.committed = owned.position
                found.append(TopicPartition(topic, number, owned.position, str(owned.timestamp)))
        return found

    def _starts(
        self, consumer: Consumer, partitions: list[TopicPartition]
    ) -> list[tuple[TopicPartition, int]]:
        """Where to read each partition from, and its committed offset (0 when it has none)."""
        if not partitions:
            return []
        try:
            known = consumer.committed(partitions, timeout=_KAFKA_S)
            back = [
                TopicPartition(p.topic, p.partition, int(said) - self._restore_ms)
                for p in known
                if p.offset >= 0 and (said := p.metadata or "").isdecimal()
            ]
            found = consumer.offsets_for_times(back, timeout=_KAFKA_S) if back else []
        except KafkaException as error:
            # Without its past a window fills anew: later, not wrong.
            log.warning("windows are not restored", error=error.args[0].str())
            return [(p, 0) for p in partitions]
        restored = {p.partition: p.offset for p in found if p.offset >= 0}
        starts = []
        for p in known:
            committed = max(p.offset, 0)
            offset = min(restored.get(p.partition, committed), committed)
            start = offset if p.offset >= 0 else p.offset
            starts.append((TopicPartition(p.topic, p.partition, start), committed))
        return starts
