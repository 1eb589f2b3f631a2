"""Strangers in a changelog on real Kafka: they hide nothing, and no epoch of theirs counts."""

import time
import uuid

import orjson
import pytest
from confluent_kafka import Producer
from confluent_kafka.cimpl import NewTopic

from twin.changelog import AHEAD_S, MAX_EPOCH, Reader, Tail
from twin.kit import kafka as kit_kafka

pytestmark = pytest.mark.integration


@pytest.fixture
def place(kafka):
    """The partition of a topic of its own."""
    topic = f"log-{uuid.uuid4().hex}"
    admin = kit_kafka.admin(kafka)
    for made in admin.create_topics([NewTopic(topic, 1, 1)]).values():
        made.result(30)
    yield topic, 0
    for gone in admin.delete_topics([topic]).values():
        gone.result(30)


@pytest.fixture
def owner(kafka, place):
    """Writes as an owner does."""
    producer = kit_kafka.producer(kafka, "owner")

    def write(key, epoch, **more):
        producer.produce(place[0], orjson.dumps({"epoch": epoch}), key, **more)
        assert producer.flush(30) == 0

    return write


def read(kafka, place):
    """What a new owner finds."""
    reader, tail = Reader(kafka), Tail()
    end = time.monotonic() + 60
    try:
        assert reader.read({place: tail}, lambda: time.monotonic() < end)
        return tail
    finally:
        reader.close()


def test_an_open_transaction_of_a_stranger_hides_nothing(kafka, place, owner):
    """Readers of committed records would stop in front of it, and miss what owners wrote behind."""
    owner("a", 1)
    stranger = Producer({"bootstrap.servers": kafka, "transactional.id": place[0]})
    stranger.init_transactions(30)
    stranger.begin_transaction()
    stranger.produce(place[0], b"x", None)
    assert stranger.flush(30) == 0
    owner("a", 2)
    tail = read(kafka, place)
    assert (tail.newest["a"].value, tail.end, tail.strange) == (b'{"epoch":2}', 3, 1)
    stranger.abort_transaction(30)
    # The mark of its end takes an offset and is no record.
    tail = read(kafka, place)
    assert (tail.newest["a"].value, tail.end) == (b'{"epoch":2}', 4)


def test_an_epoch_is_judged_by_kafkas_time_of_the_record(kafka, place, owner):
    """Also of an old record: a stranger's then is a stranger's for ever."""
    now_s = int(time.time())
    owner("a", now_s)
    for epoch in (now_s + AHEAD_S + 60, now_s * 1000, MAX_EPOCH - 1):
        owner("a", epoch)
    owner("a", now_s, timestamp=1000 * (now_s - 2 * AHEAD_S))
    tail = read(kafka, place)
    assert (tail.epoch, tail.strange, tail.stranger) == (now_s, 4, 1)
    assert tail.newest["a"].offset == 0
    owner("a", now_s + AHEAD_S - 60)
    assert read(kafka, place).epoch == now_s + AHEAD_S - 60
