"""The embedded servers do what the rest of cartwin needs of them."""

import time
import uuid

import pytest
import redis
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from twin.wire.topics import SPECS, TELEMETRY

pytestmark = pytest.mark.integration


def test_kafka_has_every_topic_of_the_catalogue(kafka):
    """Topics about a vehicle have 12 partitions locally, the others one."""
    topics = AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=10).topics
    counts = {spec.name: len(topics[spec.name].partitions) for spec in SPECS}
    assert counts == {spec.name: 12 if spec.partitioned else 1 for spec in SPECS}


def test_kafka_returns_what_was_produced(kafka):
    """A record that was acknowledged can be read with its key."""
    marker = uuid.uuid4().bytes
    delivered = []
    producer = Producer({"bootstrap.servers": kafka, "acks": "all"})
    producer.produce(
        TELEMETRY,
        marker,
        key=b"k",
        on_delivery=lambda error, record: delivered.append((error, record)),
    )
    assert producer.flush(20) == 0
    ((error, record),) = delivered
    assert error is None
    consumer = Consumer(
        {"bootstrap.servers": kafka, "group.id": marker.hex(), "auto.offset.reset": "earliest"}
    )
    try:
        consumer.subscribe([TELEMETRY])
        end = time.monotonic() + 30
        while time.monotonic() < end:
            read = consumer.poll(1)
            if read is not None and read.error() is None and read.value() == marker:
                break
        else:
            pytest.fail("the record was not read within 30 s")
        assert (read.key(), read.partition(), read.offset()) == (
            b"k",
            record.partition(),
            record.offset(),
        )
    finally:
        consumer.close()


def test_redis_keeps_a_value_and_evicts_nothing(redis_url):
    """SET is read back by GET; a full Redis refuses instead of forgetting."""
    with redis.Redis.from_url(redis_url) as client:
        client.set("local:test", b"value")
        assert client.get("local:test") == b"value"
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
