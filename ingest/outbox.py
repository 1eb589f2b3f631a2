"""Records on their way to Kafka, for an asyncio process: one producer, polled by a timer.

Order: one idempotent producer keeps the order of `send` per key, retries included. Time: a record
waits as long as Kafka is away (no time-out), and whoever sends holds back its source meanwhile. When
librdkafka's queue is full, records wait here for room, in order: as many as the sources' windows let.
A record that Kafka will never take ends the process (`failed`): its source then sends it again.

Confluent's producer reports deliveries only when polled; polling every few milliseconds and only
while something is under way costs less than a thread that hands each report over to the loop.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from ingest.errors import KafkaRefused
from ingest.rejected import Record
from twin.kit import kafka

QUEUE_KB: Final = 1 << 20
"""What librdkafka may hold, KiB: the windows of 16 brokers (`ingest.connection.WINDOW_BYTES`)."""
POLL_S: Final = 0.005
IDLE_POLL_S: Final = 1.0
"""Errors of the connection to Kafka are logged while polling, so it never stops altogether."""


def producer(bootstrap: str, client_id: str) -> Producer:
    """The producer an outbox needs: as `twin.kit.kafka`, but a record never times out."""
    return kafka.producer(
        bootstrap,
        client_id,
        **{"message.timeout.ms": 0, "queue.buffering.max.kbytes": QUEUE_KB},
    )


Delivered = Callable[[KafkaError | None, Message], None]


class Outbox:
    """Sends records and calls back when Kafka has them. Use inside a running loop."""

    def __init__(self, producer: Producer) -> None:
        self._loop = asyncio.get_running_loop()
        self._producer = producer
        self._waiting: deque[tuple[Record, Delivered]] = deque()
        self._open = 0
        self._moved_at = 0.0
        self._drained = asyncio.Event()
        self._drained.set()
        self._timer: asyncio.TimerHandle = self._loop.call_later(IDLE_POLL_S, self._poll)
        self._soon = False
        self.failed: asyncio.Future[None] = self._loop.create_future()
        """Never done while all is well; else holds what ends the process."""

    def __len__(self) -> int:
        """Records that Kafka has not acknowledged."""
        return self._open

    def silent_s(self, now: float) -> float:
        """Seconds from Kafka's last acknowledgement to `now` (as `time.monotonic` tells it).

        0 when it owes none. May be called from another thread.
        """
        return now - self._moved_at if self._open else 0.0

    def send(self, record: Record, done: Callable[[], None]) -> None:
        """Produce; `done` is called in the loop when Kafka has it. Raises `KafkaRefused`."""

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                self._fail(
                    KafkaRefused(f"Kafka refuses a record for {record.topic}: {error.str()}")
                )
                return
            self._open -= 1
            self._moved_at = monotonic()
            if not self._open:
                self._drained.set()
            done()

        if self._waiting or not self._produce(record, delivered):
            self._waiting.append((record, delivered))
        if not self._open:
            self._moved_at = monotonic()
        self._open += 1
        self._drained.clear()
        if not self._soon:
            self._arm(POLL_S)

    async def drained(self) -> None:
        """Return when Kafka has everything. Raises `KafkaRefused`."""
        waiting = asyncio.ensure_future(self._drained.wait())
        try:
            await asyncio.wait((waiting, self.failed), return_when=asyncio.FIRST_COMPLETED)
            if self.failed.done():
                self.failed.result()
        finally:
            waiting.cancel()

    def close(self) -> None:
        """Stop polling."""
        self._timer.cancel()

    def _poll(self) -> None:
        self._soon = False
        try:
            self._producer.poll(0)
            while self._waiting and self._produce(*self._waiting[0]):
                self._waiting.popleft()
        except KafkaRefused as error:
            self._fail(error)
        finally:
            self._arm(POLL_S if self._open else IDLE_POLL_S)

    def _produce(self, record: Record, delivered: Delivered) -> bool:
        """Whether librdkafka has room for it. Raises `KafkaRefused`."""
        try:
            self._producer.produce(
                record.topic,
                record.value,
                record.key,
                on_delivery=delivered,
                headers=[*record.headers],
            )
        except KafkaException as error:
            raise KafkaRefused(
                f"Kafka takes no record for {record.topic}: {error.args[0].str()}"
            ) from error
        except BufferError:
            return False
        return True

    def _arm(self, delay_s: float) -> None:
        self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, self._poll)
        self._soon = delay_s == POLL_S

    def _fail(self, error: KafkaRefused) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)
