"""The local copy: what goes in comes out, and what is no use is not used."""

import time
from random import Random

import orjson
import pytest

from twin import copy as store
from twin.changelog import Kept
from twin.copy import Copy, CopyBroken, CopyUnusable

TWINS, OTHER, LEDGER = ("twins", 1), ("twins", 2), ("ledger", 1)


def document(revision, epoch=1):
    return orjson.dumps({"epoch": epoch, "revision": revision})


@pytest.fixture
def copy(tmp_path):
    made = Copy(tmp_path / "copy")
    yield made
    made.close()


def kept(copy, place, low=0, high=100):
    """Keys and values that the copy has of a place, and where to read on; None when it is no use."""
    tail = copy.tail(place, low, high)
    return tail and (tail.end, {key: record.value for key, record in tail.newest.items()})


def test_each_place_has_what_was_written_to_it_last(copy):
    """Documents of two partitions and entries of the ledger do not mix; deleted ones are gone."""
    copy.write(
        [(TWINS, "a", document(1)), (TWINS, "b", document(1)), (OTHER, "a", document(7))],
        {TWINS: Kept(3, 1), OTHER: Kept(1, 1)},
    )
    copy.write(
        [(LEDGER, "a/x", document(1)), (TWINS, "a", document(2, epoch=4))], {LEDGER: Kept(5, 1)}
    )
    copy.write([(TWINS, "b", None)], {TWINS: Kept(9, 1)})
    assert kept(copy, TWINS) == (9, {"a": document(2, epoch=4)})
    assert kept(copy, OTHER) == (1, {"a": document(7)})
    assert kept(copy, LEDGER) == (5, {"a/x": document(1)})


def test_the_epoch_of_the_owner_is_kept(copy):
    """Higher than any document's when the owner wrote none; a restart must go above it."""
    copy.write([(TWINS, "a", document(2, epoch=4))], {TWINS: Kept(9, 7), LEDGER: Kept(5, 7, 7)})
    for place, floor in ((TWINS, 0), (LEDGER, 7)):
        tail = copy.tail(place, 0, 100)
        assert (tail.epoch, tail.floor) == (7, floor)


def test_it_is_there_after_a_restart(tmp_path):
    """Closed or not."""
    first = Copy(tmp_path)
    first.write([(TWINS, "a", document(1))], {TWINS: Kept(3, 1)})
    first.close()
    again = Copy(tmp_path)
    assert kept(again, TWINS) == (3, {"a": document(1)})
    again.close()


def test_a_place_that_was_never_kept_is_read_from_kafka(copy):
    """Records alone say nothing about what is missing."""
    copy.write([(TWINS, "a", document(1))], {})
    assert kept(copy, TWINS) is None


@pytest.mark.parametrize(("low", "high"), [(4, 100), (0, 2)])
def test_a_place_that_kafka_does_not_have_is_dropped(copy, low, high):
    """Behind the end (another cluster) or before the oldest record; for this partition only."""
    copy.write(
        [(TWINS, "a", document(1)), (OTHER, "a", document(1))],
        {TWINS: Kept(3, 1), OTHER: Kept(3, 1)},
    )
    assert kept(copy, TWINS, low, high) is None
    assert kept(copy, TWINS) is None
    copy.write([(TWINS, "b", document(1))], {TWINS: Kept(3, 1)})
    assert kept(copy, TWINS) == (3, {"b": document(1)})
    assert kept(copy, OTHER) == (3, {"a": document(1)})


def test_records_without_a_place_are_forgotten_when_the_place_is_read_whole(copy):
    """A restore that ended in its middle had written them: some of them Kafka may have deleted since."""
    copy.write([(TWINS, "a", document(1)), (OTHER, "a", document(1))], {OTHER: Kept(3, 1)})
    assert kept(copy, TWINS) is None
    copy.write([(TWINS, "b", document(1))], {TWINS: Kept(3, 1)})
    assert kept(copy, TWINS) == (3, {"b": document(1)})
    assert kept(copy, OTHER) == (3, {"a": document(1)})


def test_a_copy_of_other_topics_is_broken(tmp_path):
    """Their offsets look the same; Kafka's ids of the topics do not. An empty copy is anybody's."""
    ours, theirs = {"twins": "A", "ledger": "B"}, {"twins": "A", "ledger": "C"}
    copy = Copy(tmp_path)
    copy.check(ours)
    copy.write([(TWINS, "a", document(1))], {TWINS: Kept(3, 1)})
    copy.close()
    copy = Copy(tmp_path)
    copy.check(ours)
    with pytest.raises(CopyBroken, match="another Kafka"):
        copy.check(theirs)
    copy.begin_anew()
    copy.check(theirs)
    assert kept(copy, TWINS) is None
    with pytest.raises(CopyBroken, match="another Kafka"):
        copy.check(ours)
    copy.close()


@pytest.mark.parametrize("identity", [None, b"\xff", b"[]"])
def test_a_copy_that_does_not_say_whose_it_is_is_broken(copy, identity):
    """Something wrote to it that is not the worker."""
    copy.write([(TWINS, "a", document(1))], {TWINS: Kept(3, 1)})
    if identity is not None:
        copy._db[store._IDENTITY] = identity
    with pytest.raises(CopyBroken):
        copy.check({"twins": "A"})


def test_more_than_one_write_at_a_time_is_all_there(copy):
    """Written in parts, deletions among them."""
    size = 2 * store._CHUNK + 1
    copy.write([(TWINS, f"{n}", document(n)) for n in range(size)], {TWINS: Kept(3, 1)})
    copy.write([(TWINS, f"{n}", None) for n in range(0, size, 2)], {TWINS: Kept(4, 1)})
    assert kept(copy, TWINS) == (4, {f"{n}": document(n) for n in range(1, size, 2)})


def test_an_old_copy_is_dropped(copy, monkeypatch):
    """Kafka may have dropped tombstones since."""
    copy.write([(TWINS, "a", document(1))], {TWINS: Kept(3, 1)})
    now = time.time()
    monkeypatch.setattr(store.time, "time", lambda: now + store.MAX_AGE_S + 2)
    assert kept(copy, TWINS) is None


def test_a_place_that_cannot_be_read_makes_the_copy_broken(copy):
    """Whatever the bytes are."""
    copy.write([(TWINS, "a", document(1))], {TWINS: Kept(3, 1)})
    copy._db[store._PLACE + store._prefix(TWINS)] = b"\xff"
    with pytest.raises(CopyBroken):
        copy.tail(TWINS, 0, 100)


def test_a_block_that_cannot_be_read_is_no_end(tmp_path):
    """RocksDB's iterator ends there as at the end of everything: half of the twins would be gone."""
    copy = Copy(tmp_path)
    random = Random(1)
    copy.write(
        [(TWINS, f"{n:05}", random.randbytes(100)) for n in range(5000)], {TWINS: Kept(3, 1)}
    )
    copy._db.flush()
    copy.close()
    (file,) = tmp_path.glob("*.sst")
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 50] = b"\xff" * 50
    file.write_bytes(content)
    copy = Copy(tmp_path)
    with pytest.raises(CopyBroken, match="Corruption"):
        copy.tail(TWINS, 0, 100)
    copy.begin_anew()
    assert kept(copy, TWINS) is None
    copy.write([(TWINS, "a", document(1))], {TWINS: Kept(4, 1)})
    assert kept(copy, TWINS) == (4, {"a": document(1)})
    copy.close()


def test_a_database_without_one_of_its_files_is_made_anew(tmp_path):
    """As after a disk that lost it."""
    copy = Copy(tmp_path)
    copy.write([(TWINS, "a", document(1))], {TWINS: Kept(3, 1)})
    copy._db.flush()
    copy.close()
    for file in tmp_path.glob("*.sst"):
        file.unlink()
    copy = Copy(tmp_path)
    assert kept(copy, TWINS) is None
    copy.close()


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST-*", "OPTIONS-*", "*.log", "rocksdict-*"])
@pytest.mark.parametrize("content", [b"", b"\0broken\n", None])
def test_whichever_file_is_broken_the_worker_starts(tmp_path, name, content):
    """Empty, of other bytes, or gone: what can still be read is whole, else nothing is there."""
    copy = Copy(tmp_path)
    copy.write([(TWINS, f"{n:05}", document(n)) for n in range(2000)], {TWINS: Kept(3, 1)})
    copy.close()
    for file in tmp_path.glob(name):
        file.unlink()
        if content is not None:
            file.write_bytes(content)
    copy = Copy(tmp_path)
    try:
        found = kept(copy, TWINS)
    except CopyBroken:
        copy.begin_anew()
        found = kept(copy, TWINS)
    assert found is None or len(found[1]) == 2000
    copy.write([(TWINS, "a", document(2))], {TWINS: Kept(4, 1)})
    assert kept(copy, TWINS)[1]["a"] == document(2)
    copy.close()


def test_a_broken_database_is_made_anew(tmp_path):
    """The worker starts, cold."""
    first = Copy(tmp_path)
    first.write([(TWINS, "a", document(1))], {TWINS: Kept(3, 1)})
    first.close()
    for file in tmp_path.iterdir():
        if file.is_file() and file.name != "LOCK":
            file.write_bytes(b"\0broken\n")
    again = Copy(tmp_path)
    assert kept(again, TWINS) is None
    again.write([(TWINS, "b", document(2))], {TWINS: Kept(4, 1)})
    assert kept(again, TWINS) == (4, {"b": document(2)})
    again.close()


def test_a_folder_in_use_is_refused_and_left_as_it_is(tmp_path, copy):
    """Two workers must not share one; the sentence names the setting."""
    copy.write([(TWINS, "a", document(1))], {TWINS: Kept(3, 1)})
    with pytest.raises(CopyUnusable, match="STORE_DIR"):
        Copy(tmp_path / "copy")
    assert kept(copy, TWINS) == (3, {"a": document(1)})


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    """A file is in its place."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(CopyUnusable, match="STORE_DIR"):
        Copy(tmp_path / "file" / "copy")
