"""When is a killed worker's partition served again? Seen from outside, in the changelog `twins`."""

from typing import Final

import orjson
from confluent_kafka import Consumer, TopicPartition

from twin.kit.kafka import connection

TWINS: Final = "twins"


class FreshWrites:
    """Watches `twins` for the first record in each of some partitions that applied something new.

    `first`: partition -> when that record was made, seconds since 1970 (its timestamp, by the worker).
    """

    def __init__(self, bootstrap: str, partitions: frozenset[int], ends: dict[int, int]) -> None:
        self._partitions = partitions
        self._applied: dict[int, int] = {}
        self.first: dict[int, float] = {}
        self._consumer = Consumer(
            {**connection(bootstrap), "group.id": "bench-watch", "log_level": 0}
        )
        self._consumer.assign([TopicPartition(TWINS, p, ends.get(p, 0)) for p in partitions])

    def complete(self) -> bool:
        return self.first.keys() == self._partitions

    def read(self, killed_at: float) -> None:
        """Take what has come. A worker that is dead by `killed_at` only says how far it was."""
        for message in self._consumer.consume(5000, timeout=0.1):
            if message.error() is not None or not message.value():
                continue
            partition = int(message.partition() or 0)
            applied = orjson.loads(message.value() or b"")["applied"]["telemetry"][1]
            made_at = message.timestamp()[1] / 1000
            if made_at <= killed_at:
                self._applied[partition] = max(applied, self._applied.get(partition, -1))
            elif applied > self._applied.get(partition, -1):
                self.first.setdefault(partition, made_at)

    def close(self) -> None:
        """Leave Kafka."""
        self._consumer.close()
