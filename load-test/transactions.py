"""What a Kafka transaction per batch would cost, beside plain acknowledged writes (DECISIONS 17).

    python load-test/transactions.py --kafka 127.0.0.1:9092

Writes batches of 1 KB records to a topic of its own, and waits for each: once with acks=all, once in a
transaction. Prints milliseconds a batch (p50, p99) and CPU microseconds a record as one JSON line.
"""

import argparse
import json
import os
import statistics
import time

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from twin.kit.kafka import connection

PARTITIONS = 12
VALUE = b"x" * 1024


def measure(
    producer: Producer, topic: str, records: int, batches: int, transaction: bool
) -> dict[str, float]:
    """Milliseconds a batch and CPU us a record."""
    took = []
    cpu = time.process_time()
    for _ in range(batches):
        start = time.perf_counter()
        if transaction:
            producer.begin_transaction()
        for number in range(records):
            producer.produce(topic, VALUE, str(number), number % PARTITIONS)
        if transaction:
            producer.commit_transaction()
        else:
            producer.flush()
        took.append((time.perf_counter() - start) * 1000)
    cpu = time.process_time() - cpu
    return {
        "p50_ms": round(statistics.median(took), 2),
        "p99_ms": round(statistics.quantiles(took, n=100)[98], 2),
        "cpu_us_record": round(cpu / batches / records * 1e6, 2),
    }


def main() -> None:
    """Both ways, for small and for large batches."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kafka", required=True, metavar="HOST:PORT", help="a broker")
    parser.add_argument("--batches", type=int, default=200, help="batches of each kind (200)")
    told = parser.parse_args()
    topic = f"transactions-{os.getpid()}"
    admin = AdminClient(connection(told.kafka))
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(30)
    base = {**connection(told.kafka), "acks": "all", "enable.idempotence": True}
    plain = Producer({**base, "linger.ms": 2})
    bound = Producer({**base, "linger.ms": 2, "transactional.id": topic})
    bound.init_transactions(30)
    results = {}
    try:
        for records in (50, 2000):
            for name, producer in (("acknowledged", plain), ("transaction", bound)):
                measure(producer, topic, records, 20, producer is bound)  # warm
                results[f"{name} {records}"] = measure(
                    producer, topic, records, told.batches, producer is bound
                )
    finally:
        admin.delete_topics([topic])[topic].result(30)
    print(json.dumps({"bench": "transactions", "results": results}))


if __name__ == "__main__":
    main()
