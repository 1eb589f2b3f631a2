"""A frozen stretch of a log."""

import pytest

from models.errors import LogChanged
from models.log import Counter, Range, Stretch
from twin.wire.partition import partition_of

KEYS = [f"hist-{i:06d}".encode() for i in range(40)]


def _stretch(per_partition: int, partitions: int = 4) -> Stretch:
    return Stretch("history", tuple(Range(p, 5, 5 + per_partition) for p in range(partitions)))


def _key_of(partition: int) -> bytes:
    return next(key for key in KEYS if partition_of(key, 4) == partition)


def test_records_appended_after_the_freeze_lie_outside() -> None:
    """The first end-start records of each partition are inside, all later ones are not."""
    counter = Counter(_stretch(2))
    inside = [counter.inside(_key_of(p)) for _ in range(3) for p in range(4)]
    assert inside == [True] * 8 + [False] * 4
    assert counter.left == 0
    counter.verify()


def test_a_missing_record_is_named_by_its_partition() -> None:
    """What did not come is an error, not a smaller data set."""
    counter = Counter(_stretch(1))
    for partition in (0, 1, 3):
        counter.inside(_key_of(partition))
    with pytest.raises(LogChanged, match=r"1 records of topic history.*\{2: 1\}"):
        counter.verify()


def test_more_records_of_one_partition_do_not_stand_in_for_another() -> None:
    """Counting goes by partition, so appended records never hide missing ones."""
    counter = Counter(_stretch(1))
    for _ in range(4):
        counter.inside(_key_of(0))
    assert counter.left == 3


def test_a_record_without_a_key_is_refused() -> None:
    """Nobody can tell its partition."""
    with pytest.raises(LogChanged, match="without a key"):
        Counter(_stretch(1)).inside(b"")


def test_the_newest_rows_are_an_equal_share_of_every_partition() -> None:
    """Cutting keeps the ends and moves the starts."""
    cut = _stretch(100).newest(200)
    assert cut.rows == 200
    assert {(r.start, r.end) for r in cut.ranges} == {(55, 105)}


def test_a_stretch_shorter_than_asked_is_kept_whole() -> None:
    """Asking for more rows than there are changes nothing."""
    assert _stretch(10).newest(1000) == _stretch(10)
