"""All records of a Kafka topic, for tests that account for them."""

from confluent_kafka import Consumer, Message

SILENCE_S = 30.0


def read_topic(bootstrap: str, topic: str) -> list[Message]:
    """Every record from the oldest one to the end of each partition as it is when it is reached."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "read-topic",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    records = []
    try:
        left = set(consumer.list_topics(topic, timeout=SILENCE_S).topics[topic].partitions)
        consumer.subscribe([topic])
        while left:
            message = consumer.poll(SILENCE_S)
            assert message is not None, f"Kafka gives no more of {topic}"
            if message.error() is None:
                records.append(message)
            else:
                left.discard(message.partition())
    finally:
        consumer.close()
    return records
