"""What is read back from a changelog: epochs, the newest of each key, late writes, outboxes."""

from types import SimpleNamespace

import orjson
import pytest
from confluent_kafka import KafkaError

from tests.worker_fakes import Message
from twin.changelog import (
    EPOCH,
    FENCE,
    OUTBOX,
    ChangelogUnreadable,
    Reader,
    Tail,
    _take,
    epoch_of,
)
from twin.wire import topics

PLACE = ("twins", 0)


def read(tail: Tail, *records: tuple) -> Tail:
    """Take records (key, epoch, revision or None for a tombstone, headers)."""
    for key, epoch, revision, *headers in records:
        value = None if revision is None else orjson.dumps({"epoch": epoch, "revision": revision})
        told = [*headers, *([(EPOCH, b"%d" % epoch)] if value is None else [])]
        _take(tail, Message(PLACE, tail.end, key, value, told))
    return tail


def newest(tail: Tail) -> dict:
    return {
        key: None if record.value is None else orjson.loads(record.value)["revision"]
        for key, record in tail.newest.items()
    }


@pytest.mark.parametrize(
    ("value", "headers", "epoch"),
    [
        (b'{"epoch":12,"vehicle_id":"a"}', {}, 12),
        (b'{"epoch":12}', {}, 12),
        (b'{"vehicle_id":"a","epoch":7}', {}, 7),
        (b'{"vehicle_id":"a"}', {}, 0),
        (b'{"epoch":"12"}', {}, 0),
        (b'{"epoch":true,"a":1}', {}, 0),
        (b'{"epoch":1', {}, 0),
        (b'{"epoch":-1}', {}, 0),
        (b'{"a":1,"epoch":-1}', {}, 0),
        (b'{"epoch":281474976710656}', {}, 0),
        (b'{"epoch":281474976710655}', {}, 281474976710655),
        (b'{"a":1,"epoch":281474976710656}', {}, 0),
        (b'{"epoch":%b}' % (b"9" * 5000), {}, 0),
        (b"", {}, 0),
        (b"[1]", {}, 0),
        (b"\xff", {}, 0),
        (None, {EPOCH: b"9"}, 9),
        (None, {EPOCH: b"x"}, 0),
        (None, {EPOCH: b""}, 0),
        (None, {EPOCH: b"9" * 5000}, 0),
        (None, {EPOCH: b"281474976710656"}, 0),
        (None, {}, 0),
    ],
)
def test_a_record_says_its_epoch_or_has_none(value, headers, epoch):
    """Of a document or entry the field, of a tombstone the header; whatever cannot be read is 0."""
    assert epoch_of(value, headers) == epoch


def test_the_newest_record_of_each_key_counts():
    """Tombstones are kept as such; the end is behind the last record."""
    tail = read(Tail(), ("a", 1, 1), ("b", 1, 1), ("a", 1, 2), ("b", 1, None))
    assert newest(tail) == {"a": 2, "b": None}
    assert (tail.end, tail.records, tail.epoch, tail.overwritten) == (4, 4, 1, set())
    assert tail.newest["b"].offset == 3


def test_a_late_write_of_a_former_owner_does_not_count_whatever_its_key():
    """Also of a key of which the new owner wrote nothing yet."""
    tail = read(
        Tail(), ("a", 1, 1), ("b", 1, 1), ("b", 2, 2), ("a", 1, 9), ("b", 1, 9), ("c", 1, 9)
    )
    assert newest(tail) == {"a": 1, "b": 2}
    assert tail.overwritten == {"a", "b", "c"}


def test_behind_a_fence_a_former_owner_is_late():
    """The fence is no key, and raises the epoch."""
    tail = read(Tail(), ("a", 1, 1), (FENCE, 2, None), ("a", 1, 2))
    assert newest(tail) == {"a": 1}
    assert (tail.epoch, tail.overwritten) == (2, {"a"})


def test_what_was_written_again_is_not_to_be_written_again():
    """The owner's record behind the late one."""
    tail = read(Tail(), ("a", 2, 1), ("a", 1, 9), ("a", 2, 2))
    assert newest(tail) == {"a": 2}
    assert tail.overwritten == set()


def test_below_the_floor_everything_is_late():
    """An owner that reads on from its own place knows its own epoch."""
    tail = read(Tail(end=5, epoch=3, floor=3), ("a", 2, 9), ("b", 3, 1))
    assert newest(tail) == {"b": 1}
    assert (tail.overwritten, tail.end) == ({"a"}, 7)


def test_outboxes_come_in_order_and_those_of_late_writes_do_not():
    """A former owner's outputs were decided anew by the next one."""
    tail = read(
        Tail(),
        ("a", 2, 1, (OUTBOX, b"1")),
        ("b", 2, None, (OUTBOX, b"2")),
        ("a", 1, 7, (OUTBOX, b"late")),
        ("a", 2, 2, (OUTBOX, b"3")),
    )
    assert tail.outboxes == [("a", b"1"), ("b", b"2"), ("a", b"3")]


def test_what_no_owner_wrote_does_not_count_and_is_counted():
    """Without an epoch, whatever the key: before any owner and behind one. Its key is written again."""
    tail = Tail(end=10)
    _take(tail, Message(PLACE, 10, "a", b"garbage", ()))
    read(tail, ("a", 3, 1), ("b", 3, 1))
    for key, value in (("b", b"{}"), ("c", None), (FENCE, b"x"), ("a/a.x", b"\xff")):
        _take(tail, Message(PLACE, tail.end, key, value, [(OUTBOX, b"[]")]))
    assert newest(tail) == {"a": 1, "b": 1}
    assert tail.overwritten == {"b", "c", FENCE, "a/a.x"}
    assert (tail.strange, tail.stranger, tail.epoch, tail.outboxes) == (5, 10, 3, [])


def test_records_under_a_key_that_nobody_of_ours_writes_are_passed_over():
    """Any bytes or none, even with an epoch; they are counted, and nothing replaces them."""
    keys = (None, b"", b"\xff\xfe", b"a b", b"a/b/c", b"x" * 65, "\u00e4".encode())
    tail = read(Tail(), *((key, 2, 1) for key in keys), ("a", 1, 1))
    assert newest(tail) == {"a": 1}
    assert (tail.end, tail.strange, tail.stranger) == (8, 7, 0)
    assert (tail.epoch, tail.overwritten) == (1, set())


def test_headers_without_a_value_are_absent():
    """Kafka allows them."""
    tail = read(Tail(), ("a", 1, 1, (OUTBOX, None), ("x", None)))
    assert (tail.newest["a"].headers, tail.outboxes) == ({}, [])


@pytest.mark.parametrize(
    "code", [KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED]
)
def test_an_error_that_waiting_does_not_heal_ends_the_reading(monkeypatch, code):
    """A worker that may not read a changelog says so, instead of standing still."""
    refused = SimpleNamespace(
        topic=lambda: topics.TWINS, partition=lambda: 3, error=lambda: KafkaError(code)
    )
    client = SimpleNamespace(
        assign=lambda _: None, unassign=lambda: None, consume=lambda *_: [refused]
    )
    monkeypatch.setattr("twin.changelog.kafka.consumer", lambda *_, **__: client)
    with pytest.raises(ChangelogUnreadable, match="twins partition 3"):
        Reader("kafka:1").read({(topics.TWINS, 3): Tail()}, lambda: True)
