"""Where a scorer begins to read a partition, from where it speaks, what it commits."""

from typing import Any

from confluent_kafka import TopicPartition

from models.assignment import Assignment

MINUTE = 60_000
LAST = 1_790_000_000_000


class FakeConsumer:
    """Committed offsets and one record a second per partition, record n at LAST - (1000 - n) s."""

    def __init__(self, committed: dict[int, tuple[int, str]]) -> None:
        self._committed = committed
        self.assigned: dict[int, int] = {}

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        assert timeout > 0
        none = (-1001, "")
        return [
            TopicPartition(p.topic, p.partition, *self._committed.get(p.partition, none))
            for p in partitions
        ]

    def offsets_for_times(
        self, partitions: list[TopicPartition], timeout: float
    ) -> list[TopicPartition]:
        assert timeout > 0
        return [
            TopicPartition(p.topic, p.partition, max(0, 1000 - (LAST - p.offset) // 1000))
            for p in partitions
        ]

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        self.assigned = {p.partition: p.offset for p in partitions}


def _take(committed: dict[int, tuple[int, str]], *partitions: int) -> tuple[Assignment, Any]:
    made = Assignment(restore_minutes=10, forget=lambda _partition: None)
    consumer = FakeConsumer(committed)
    made.assigned(consumer, [TopicPartition("telemetry", p) for p in partitions])
    return made, consumer


def test_a_partition_is_read_again_from_before_its_commit_and_silently() -> None:
    """Ten minutes before the last committed record's time, speaking from the commit on."""
    made, consumer = _take({3: (1001, str(LAST))}, 3)
    assert consumer.assigned == {3: 400}
    assert made.partitions[3].speak_from == 1001


def test_a_new_partition_is_read_from_its_beginning_and_told() -> None:
    """Without a commit the group's rule applies (the oldest record) and nothing is silent."""
    made, consumer = _take({}, 0)
    assert consumer.assigned == {0: -1001}
    assert made.partitions[0].speak_from == 0


def test_a_commit_without_a_time_is_continued_without_a_past() -> None:
    """Windows fill anew rather than from a guess."""
    _, consumer = _take({1: (500, ""), 2: (700, "not a time")}, 1, 2)
    assert consumer.assigned == {1: 500, 2: 700}


def test_nothing_is_committed_while_the_past_is_read_again() -> None:
    """A commit never goes back, and the same position is committed once."""
    made, _ = _take({3: (1001, str(LAST))}, 3)
    owned = made.partitions[3]
    owned.position, owned.timestamp = 900, LAST - MINUTE
    assert made.commits("telemetry") == []
    owned.position, owned.timestamp = 1005, LAST + 4000
    (commit,) = made.commits("telemetry")
    assert (commit.partition, commit.offset, commit.metadata) == (3, 1005, str(LAST + 4000))
    assert made.commits("telemetry") == []


def test_a_partition_that_is_given_up_is_forgotten() -> None:
    """Whoever holds windows and states of it is told; the others stay."""
    forgotten: list[int] = []
    made = Assignment(restore_minutes=10, forget=forgotten.append)
    consumer: Any = FakeConsumer({})
    made.assigned(consumer, [TopicPartition("telemetry", p) for p in (0, 1)])
    made.lost(consumer, [TopicPartition("telemetry", p) for p in (0, 7)])
    assert list(made.partitions) == [1]
    assert forgotten == [0]
