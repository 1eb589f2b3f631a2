"""The owner of a set of partitions: takes batches of records, decides, and carries out.

    records -> read -> apply (pure) -> changelog acknowledged -> outputs, Redis -> replies -> offsets

Durable before told (design law 4): nobody hears of a state that Kafka has not acknowledged, and the
input offsets follow last, so a kill at any point repeats records, which law 2 then skips. An error
that is not bad input ends the process uncommitted; it never skips a record.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import KafkaError, Message, Producer

from twin import inputs
from twin.apply import Context, apply, deadlines_of
from twin.book import Book
from twin.deadlines import Deadlines
from twin.effects import Effects
from twin.kit import logs, metrics
from twin.view import View
from twin.wire import codec, rejected, topics
from twin.wire.errors import CartwinError, Misaddressed, WireError
from twin.wire.ids import vehicle_of
from twin.wire.partition import partition_of
from twin.wire.records import Change, Command, Downlink, Position, Reply, Twin
from twin.wire.telemetry import Telemetry

log = logs.get(__name__)

FLUSH_TIMEOUT_S: Final = 60.0
MAX_TIME_MS: Final = 2**48
"""What 48 bits of a ULID hold, the year 10889."""


class NotDurable(CartwinError):
    """Kafka did not acknowledge a write of the worker; the process must end uncommitted."""


@dataclass(slots=True)
class Batch:
    """What one batch of records brought about, by partition where Kafka needs it."""

    twins: dict[str, Twin | None] = field(default_factory=dict)
    """The last state of each; None = deleted."""
    deleted: set[str] = field(default_factory=set)
    """Deleted at some point of the batch, even if there is a new twin by now."""
    partitions: dict[str, int] = field(default_factory=dict)
    commands: dict[str, Command] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    downlinks: list[Downlink] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    rejected: list[tuple[Any, WireError]] = field(default_factory=list)
    event_times: list[int] = field(default_factory=list)


class Owner:
    """Decides for the vehicles of the partitions that Faust has given to this worker."""

    def __init__(
        self,
        twins: dict[str, Twin],
        book: Book,
        deadlines: Deadlines,
        producer: Producer,
        view: View,
        context: Context,
        partitions: int,
    ) -> None:
        self._twins = twins
        self._book = book
        self._deadlines = deadlines
        self._producer = producer
        self._view = view
        self._context = context
        self._partitions = partitions
        self._places: dict[str, int] = {}
        """Partition of each twin here, so that it is worked out once."""
        self._failed: KafkaError | None = None

    async def take(self, records: Sequence[Any]) -> None:
        """Decide one poll of Kafka records and carry it out; returns when all of it is told."""
        started = time.perf_counter()
        batch = self.decide(records)
        await self._carry_out(batch)
        metrics.TWIN_BATCH_SECONDS.observe(time.perf_counter() - started)
        now = time.time()
        for event_time in batch.event_times:
            metrics.TWIN_EVENT_AGE.observe(now - event_time / 1000)

    def decide(self, messages: Iterable[Any]) -> Batch:
        """Apply Kafka messages to the tables, in order. No I/O.

        A message has topic, partition, offset, timestamp (ms), key, value, headers.
        """
        batch = Batch()
        for message in messages:
            try:
                record = inputs.read(message.topic, message.key, message.value)
                self._check_place(record.vehicle_id, message.partition)
            except WireError as error:
                metrics.TWIN_REJECTED.labels(error.reason).inc()
                batch.rejected.append((message, error))
                continue
            position = Position(
                topic=message.topic, partition=message.partition, offset=message.offset
            )
            vehicle_id = record.vehicle_id
            at = self._book.now_ms = _arrival(message)
            twin, effects = apply(
                self._twins.get(vehicle_id), self._book, record, position, at, self._context
            )
            if effects.repeated:
                metrics.TWIN_REPEATED.labels(message.topic).inc()
                continue
            if effects.rejected is not None:
                metrics.TWIN_REJECTED.labels(effects.rejected.reason).inc()
                batch.rejected.append((message, effects.rejected))
            metrics.TWIN_APPLIED.labels(message.topic).inc()
            if isinstance(record, Telemetry):
                batch.event_times.append(record.event_time)
            self._note(batch, vehicle_id, message.partition, twin, effects)
        return batch

    def _note(
        self, batch: Batch, vehicle_id: str, partition: int, twin: Twin | None, effects: Effects
    ) -> None:
        batch.partitions[vehicle_id] = partition
        if twin is not None:
            self._twins[vehicle_id] = batch.twins[vehicle_id] = twin
            self._places[vehicle_id] = partition
        elif vehicle_id in self._twins:
            del self._twins[vehicle_id]
            self._deadlines.forget(vehicle_id)
            self._places.pop(vehicle_id, None)
            batch.twins[vehicle_id] = None
            batch.deleted.add(vehicle_id)
        for command in effects.ledger:
            self._book.put(command)
            batch.commands[command["id"]] = command
            metrics.TWIN_COMMANDS.labels(command["state"]).inc()
        for command_id in effects.removed:
            self._book.remove(command_id)
            batch.commands.pop(command_id, None)
            batch.removed.append(command_id)
        for change in effects.changes:
            metrics.TWIN_CHANGES.labels(change["kind"]).inc()
        metrics.TWIN_LATE.inc(effects.late)
        batch.changes += effects.changes
        batch.downlinks += effects.downlinks
        batch.replies += effects.replies
        self._deadlines.add(effects.deadlines)
        if twin is not None and self._deadlines.crowded(vehicle_id):
            counting = deadlines_of(twin, self._book.of(vehicle_id), self._context)
            self._deadlines.replace(vehicle_id, counting)

    def _check_place(self, vehicle_id: str, partition: int) -> None:
        """A vehicle has one partition; elsewhere a second owner would keep a second twin of it."""
        if self._places.get(vehicle_id) == partition:
            return
        expected = self._partition_of(vehicle_id)
        if partition != expected:
            raise Misaddressed(
                f"vehicle {vehicle_id!r} belongs to partition {expected}, the record is on"
                f" {partition}: its producer does not use murmur2",
                reason="wrong_partition",
            )

    async def _carry_out(self, batch: Batch) -> None:
        partitions = batch.partitions
        for vehicle_id, twin in batch.twins.items():
            value = None if twin is None else codec.dump(twin)
            self._produce(topics.TWINS, vehicle_id, value, partitions[vehicle_id])
        for command in batch.commands.values():
            vehicle_id = command["vehicle_id"]
            key = f"{vehicle_id}/{command['id']}"
            self._produce(topics.LEDGER, key, codec.dump(command), partitions[vehicle_id])
        for command_id in batch.removed:
            vehicle_id = vehicle_of(command_id)
            key = f"{vehicle_id}/{command_id}"
            self._produce(topics.LEDGER, key, None, partitions[vehicle_id])
        await self._flush()
        for change in batch.changes:
            vehicle_id = change["vehicle_id"]
            self._produce(topics.CHANGES, vehicle_id, codec.dump(change), partitions[vehicle_id])
        for downlink in batch.downlinks:
            vehicle_id = downlink["vehicle_id"]
            self._produce(topics.DOWNLINK, vehicle_id, codec.dump(downlink), partitions[vehicle_id])
        for message, error in batch.rejected:
            self._reject(message, error)
        await self._view.write(
            batch.twins, batch.commands.values(), batch.removed, deleted=batch.deleted
        )
        await self._flush()
        # An answer comes last: whoever gets it can read everything that it says.
        if batch.replies:
            await self._view.write({}, replies=batch.replies)
        metrics.TWIN_COUNT.set(len(self._twins))
        metrics.TWIN_DEADLINES.set(len(self._deadlines))

    async def due(self, now_ms: int) -> None:
        """Turn deadlines that have come into `requests` records (law 6)."""
        records = self._deadlines.due(now_ms)
        for record in records:
            vehicle_id = record["vehicle_id"]
            partition = self._partition_of(vehicle_id)
            self._produce(topics.REQUESTS, vehicle_id, codec.dump(record), partition)
        if records:
            await self._flush()

    async def recovered(self, owned: set[int]) -> None:
        """After Faust restored the tables: forget what is not ours, rebuild heap, index and view."""
        self._places = {vehicle_id: self._partition_of(vehicle_id) for vehicle_id in self._twins}
        for vehicle_id, partition in list(self._places.items()):
            if partition not in owned:
                del self._twins[vehicle_id], self._places[vehicle_id]
        self._book.rebuild(self._twins)
        self._deadlines.clear()
        for vehicle_id, twin in self._twins.items():
            self._deadlines.add(deadlines_of(twin, self._book.of(vehicle_id), self._context))
        twins = list(self._twins.items())
        for start in range(0, len(twins), 1000):
            await self._view.write(dict(twins[start : start + 1000]))
        await self._view.write({}, self._book.all())
        log.info("recovered", twins=len(twins), commands=len(self._book), partitions=sorted(owned))

    def _partition_of(self, vehicle_id: str) -> int:
        return partition_of(vehicle_id.encode(), self._partitions)

    def _produce(
        self,
        topic: str,
        key: str | bytes | None,
        value: bytes | None,
        partition: int,
        headers: rejected.Headers | None = None,
    ) -> None:
        while True:
            try:
                self._producer.produce(
                    topic, value, key, partition, self._on_delivery, headers=list(headers or ())
                )
            except BufferError:
                # The queue is bounded: wait for the broker to take some of it.
                self._producer.poll(0.1)
            else:
                return

    def _on_delivery(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._failed = error

    async def _flush(self) -> None:
        left = await asyncio.to_thread(self._producer.flush, FLUSH_TIMEOUT_S)
        if left or self._failed:
            raise NotDurable(
                f"{left} records are not acknowledged after {FLUSH_TIMEOUT_S:.0f} s"
                if self._failed is None
                else f"Kafka refused a record: {self._failed.str()}"
            )

    def _reject(self, message: Any, error: WireError) -> None:
        key, value, headers = rejected.record(
            error=error,
            source=f"kafka:{message.topic}/{message.partition}/{message.offset}",
            at_ms=_arrival(message),
            key=message.key,
            value=message.value,
            headers=message.headers or (),
        )
        self._produce(topics.REJECTED, key, value, message.partition, headers)


def _arrival(message: Any) -> int:
    """When the record entered the system, ms: the uplink's header, else Kafka's timestamp.

    Both can be forged by whoever may write to the topic; what a ULID cannot hold counts as absent.
    """
    for name, value in message.headers or ():
        if name == "ingested-at" and value and value.isdigit() and int(value[:16]) < MAX_TIME_MS:
            return int(value[:16])
    timestamp = int(message.timestamp or 0)
    return timestamp if 0 <= timestamp < MAX_TIME_MS else 0
