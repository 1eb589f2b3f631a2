"""What our producer calls delivered is in the topic, from the first record of a new partition on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import NewTopic

from twin.kit import kafka as clients

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PARTITIONS = 12
PRODUCERS = 4
RECORDS = 500
ROUNDS = 5
"""With five requests in flight the first batches of a partition were lost in one of the first rounds."""
CHILD = """
import json, sys
from twin.kit import kafka
bootstrap, topic, records = sys.argv[1], sys.argv[2], int(sys.argv[3])
producer = kafka.producer(bootstrap, "promise")
producer.list_topics(timeout=30)
print("ready", flush=True)
sys.stdin.readline()
delivered = []
for number in range(records):
    producer.produce(topic, b"x" * 300, b"%d" % number,
                     on_delivery=lambda error, _: delivered.append(error is None))
    if number % 10 == 0:
        producer.poll(0.001)
producer.flush(60)
print(json.dumps(sum(delivered)), flush=True)
"""


def stored(bootstrap, topic):
    """Records in a topic."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "promise"})
    try:
        return sum(
            consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30)[1]
            for number in range(PARTITIONS)
        )
    finally:
        consumer.close()


def test_what_is_delivered_is_there_though_its_partition_is_new(kafka):
    """Several producers that begin with a topic at the moment it is made."""
    admin = clients.admin(kafka)
    for number in range(ROUNDS):
        topic = f"promise-{number}"
        children = [
            subprocess.Popen(
                [sys.executable, "-c", CHILD, kafka, topic, str(RECORDS)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(PRODUCERS)
        ]
        try:
            for child in children:
                assert child.stdout.readline() == "ready\n"
            admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(30)
            for child in children:
                child.stdin.write("\n")
                child.stdin.flush()
            delivered = sum(json.loads(child.stdout.readline()) for child in children)
        finally:
            for child in children:
                child.kill()
                child.communicate()
        assert delivered == stored(kafka, topic) == PRODUCERS * RECORDS
        admin.delete_topics([topic])[topic].result(30)
