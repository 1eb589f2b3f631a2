"""Telemetry at a steady rate, as a fleet sends it, until stopped."""

import threading
import time
from collections.abc import Iterable
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from bench_records import Record
from twin.kit.kafka import connection

_TICK_S = 0.01


class Pacer(threading.Thread):
    """Writes `records` to `telemetry` at `rate` a second; each written once, in order per vehicle."""

    def __init__(self, bootstrap: str, records: Iterable[Record], rate: int) -> None:
        super().__init__(name="pacer", daemon=True)
        self._records = records
        self._rate = rate
        self._halt = threading.Event()
        self.written = 0
        self.failed: str | None = None
        settings: dict[str, Any] = {
            **connection(bootstrap),
            "log_level": 0,
            "partitioner": "murmur2_random",
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 5,
        }
        self._producer = Producer(settings)

    def run(self) -> None:
        start = time.monotonic()
        records = iter(self._records)
        while not self._halt.is_set():
            due = int((time.monotonic() - start) * self._rate)
            while self.written < due:
                record = next(records, None)
                if record is None:
                    self.failed = "the prepared records came to an end"
                    return
                key, value, headers = record
                self._producer.produce(
                    "telemetry",
                    value,
                    key,
                    headers=dict(headers),
                    on_delivery=self._note,
                )
                self.written += 1
            self._producer.poll(0)
            self._halt.wait(_TICK_S)

    def stop(self) -> None:
        """Write no more; returns when Kafka has all of it."""
        self._halt.set()
        self.join()
        if self._producer.flush(60):
            self.failed = "Kafka did not take all records"

    def _note(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self.failed = error.str()
