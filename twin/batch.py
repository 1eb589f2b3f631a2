"""Deciding a batch of records: bytes in, what came of them out. No I/O.

    records -> read -> observe (a twin at rest) | unpack -> apply -> pack -> Batch

Most records are telemetry that is all newer, and are taken by the twin as it rests (`twin.packed`). For
any other the twin is unpacked, and stays awake until the batch is decided.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from twin import inputs
from twin.apply import (
    NEW_VALUES,
    Context,
    apply,
    deadlines_of,
    deadlines_of_commands,
)
from twin.changelog import Place
from twin.effects import Effects
from twin.kit import metrics
from twin.outbox import MAX_BYTES, Outbox, Output
from twin.owned import Grave, Owned
from twin.packed import DUPLICATE, NEW, REPEATED, pack, unpack
from twin.wire import codec, rejected, topics
from twin.wire.errors import Misaddressed, WireError
from twin.wire.partition import partition_of
from twin.wire.records import Command, Position, Reply, Twin
from twin.wire.telemetry import Sample

MAX_TIME_MS: Final = 2**48
"""What 48 bits of a ULID hold, the year 10889."""
_ORIGINALS_BYTES: Final = 64 * 1024
"""Of the headers of a rejected record, when they travel in an outbox: `topics.TWINS_MAX_BYTES`."""
_AGES: Final = 16
"""The age of one in so many records is measured."""


@dataclass(slots=True)
class Batch:
    """What one batch of records brought about."""

    owners: dict[str, Owned] = field(default_factory=dict)
    """Each vehicle that something came of -> what holds it."""
    awake: dict[str, Twin | None] = field(default_factory=dict)
    """Twins that are unpacked until the batch is decided; None = deleted."""
    deleted: dict[str, Grave] = field(default_factory=dict)
    """Deleted at some point of the batch, even if there is a new twin by now."""
    outboxes: dict[str, Outbox] = field(default_factory=dict)
    commands: dict[str, Command] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    unfit: list[tuple[Any, WireError]] = field(default_factory=list)
    """Records that no state makes acceptable, and why."""
    event_times: list[int] = field(default_factory=list)
    observed: int = 0
    """Records of telemetry that the twin took as it rests."""
    late: int = 0
    duplicates: int = 0
    documents: dict[str, bytes | None] = field(default_factory=dict)
    """As in the changelog."""
    counts: Counter[tuple[Any, str]] = field(default_factory=Counter)
    """How much to add to which counter under which label."""
    ends: dict[Place, int] = field(default_factory=dict)
    """Behind this batch, of each changelog partition that it wrote to."""


class Decider:
    """Decides for the vehicles of the partitions in `parts`, which may come and go between batches."""

    def __init__(self, parts: Mapping[int, Owned], context: Context, partitions: int) -> None:
        self._parts = parts
        self._context = context
        self._partitions = partitions

    def decide(self, records: Sequence[Any], position: int) -> tuple[Batch, int]:
        """Apply records from `position` on; the batch, and where the next one begins.

        A record has topic, partition, offset, timestamp (ms), key, value, headers. The batch ends
        early when the outbox of a vehicle is full (`outbox.MAX_BYTES`).
        """
        batch = Batch()
        for index in range(position, len(records)):
            outbox = self._take(batch, records[index])
            if outbox is not None and outbox.size > MAX_BYTES:
                break
        for vehicle_id, twin in batch.awake.items():
            twins = batch.owners[vehicle_id].twins
            if twin is None:
                twins.pop(vehicle_id, None)
            else:
                twins[vehicle_id] = pack(twin)
        _publish(batch)
        return batch, index + 1

    def _take(self, batch: Batch, message: Any) -> Outbox | None:
        """Read one record and observe or apply it; the vehicle's outbox if there is anything to tell."""
        try:
            record = inputs.read(message.topic, message.key, message.value)
        except WireError as error:
            batch.unfit.append((message, error))
            return None
        owned = self._parts[message.partition]
        vehicle_id = record.vehicle_id
        at = owned.book.now_ms = arrival(message)
        if not owned.first_at:
            owned.first_at = at
        if vehicle_id in batch.awake:
            return self._apply(batch, owned, batch.awake[vehicle_id], record, message, at)
        packed = owned.twins.get(vehicle_id)
        if packed is None:
            return self._apply(batch, owned, None, record, message, at)
        if type(record) is Sample:
            offset = message.offset
            seen = packed.observe(record, owned.partition, offset, at)
            if seen == REPEATED:
                batch.counts[metrics.TWIN_REPEATED, topics.TELEMETRY] += 1
                return None
            if seen is not None:
                batch.owners[vehicle_id] = owned
                batch.observed += 1
                if seen == NEW:
                    if not offset % _AGES:
                        batch.event_times.append(record.event_time)
                else:
                    batch.late += len(record.names)
                    batch.duplicates += seen == DUPLICATE
                    batch.counts[metrics.TWIN_OUTDATED, topics.TELEMETRY] += 1
                return None
        return self._apply(batch, owned, unpack(packed, vehicle_id), record, message, at)

    def _apply(
        self,
        batch: Batch,
        owned: Owned,
        twin: Twin | None,
        record: inputs.Input,
        message: Any,
        at: int,
    ) -> Outbox | None:
        topic, partition, offset = message.topic, message.partition, message.offset
        vehicle_id = record.vehicle_id
        if twin is None:
            expected = partition_of(vehicle_id.encode(), self._partitions)
            if expected != partition:
                batch.unfit.append((message, _misplaced(vehicle_id, expected, partition)))
                return None
            if owned.buried(vehicle_id, topic, offset):
                batch.counts[metrics.TWIN_REPEATED, topic] += 1
                return None
        place = Position(topic=topic, partition=partition, offset=offset)
        after, effects = apply(twin, owned.book, record, place, at, self._context)
        if effects.repeated:
            batch.counts[metrics.TWIN_REPEATED, topic] += 1
            return None
        batch.counts[metrics.TWIN_APPLIED, topic] += 1
        batch.awake[vehicle_id] = after
        batch.owners[vehicle_id] = owned
        if effects is NEW_VALUES:
            return None
        batch.late += effects.late
        batch.duplicates += effects.duplicate
        if effects.outdated:
            batch.counts[metrics.TWIN_OUTDATED, topic] += 1
        if twin is None or after is None:
            self._come_and_go(batch, owned, vehicle_id, twin, after)
        if twin is None and after is None and (effects.replies or effects.rejected is not None):
            _bury(batch, owned, vehicle_id, {topic: [partition, offset]})
        if not effects.tells:
            return None
        about = after or twin
        revision = 0 if about is None else about["revision"]
        return self._tell(batch, owned, vehicle_id, revision, effects, message)

    def _come_and_go(
        self, batch: Batch, owned: Owned, vehicle_id: str, before: Twin | None, after: Twin | None
    ) -> None:
        if after is not None:
            grave = owned.exhume(vehicle_id)
            if grave is not None:
                # The record that deleted the old twin must not delete the new one when it is repeated.
                after["applied"] = {**grave, **after["applied"]}
        elif before is not None:
            owned.deadlines.forget(vehicle_id)
            _bury(batch, owned, vehicle_id, before["applied"])
        elif vehicle_id not in batch.deleted:
            # Nothing came of it.
            del batch.awake[vehicle_id], batch.owners[vehicle_id]

    def _tell(
        self,
        batch: Batch,
        owned: Owned,
        vehicle_id: str,
        revision: int,
        effects: Effects,
        message: Any,
    ) -> Outbox:
        """Keep the effects of one record in the tables and in the vehicle's outbox."""
        outputs = []
        for command in effects.ledger:
            command["revision"] = revision
            command["epoch"] = owned.epoch
            owned.book.put(command)
            batch.commands[command["id"]] = command
            outputs.append(_output("ledger", f"{vehicle_id}/{command['id']}", command, revision))
            batch.counts[metrics.TWIN_COMMANDS, command["state"]] += 1
        for command_id in effects.removed:
            owned.book.remove(command_id)
            batch.commands.pop(command_id, None)
            batch.removed.append(command_id)
            outputs.append(Output("ledger", f"{vehicle_id}/{command_id}", None, revision))
        for change in effects.changes:
            outputs.append(_output("changes", vehicle_id, change, revision))
            batch.counts[metrics.TWIN_CHANGES, change["kind"]] += 1
        outputs += [_output("downlink", vehicle_id, d, revision) for d in effects.downlinks]
        outputs += [_output("replies", r["request_id"], r, revision) for r in effects.replies]
        batch.replies += effects.replies
        if effects.rejected is not None:
            _, value, headers = rejection(message, effects.rejected, _ORIGINALS_BYTES)
            record = rejected.dump(vehicle_id, value, headers)
            outputs.append(Output("rejected", vehicle_id, record, revision))
            batch.counts[metrics.TWIN_REJECTED, effects.rejected.reason] += 1
        owned.deadlines.add(effects.deadlines)
        twin = batch.awake.get(vehicle_id)
        if twin is not None and owned.deadlines.crowded(vehicle_id):
            of_commands = deadlines_of_commands(owned.book.of(vehicle_id), self._context)
            counting = [*deadlines_of(twin, self._context), *of_commands]
            owned.deadlines.replace(vehicle_id, counting)
        outbox = batch.outboxes.get(vehicle_id)
        if outbox is None:
            outbox = batch.outboxes[vehicle_id] = Outbox()
        if outputs:
            outbox.add(message.topic, message.offset, outputs)
        return outbox


def rejection(
    message: Any, error: WireError, originals_bytes: int = rejected.MAX_ORIGINAL_BYTES
) -> tuple[str | None, bytes | None, rejected.Headers]:
    """Key, value and headers of the record on `rejected` for a record of an input topic."""
    return rejected.record(
        error=error,
        source=f"kafka:{message.topic}/{message.partition}/{message.offset}",
        at_ms=arrival(message),
        key=message.key,
        value=message.value,
        headers=message.headers or (),
        originals_bytes=originals_bytes,
    )


def arrival(message: Any) -> int:
    """When the record entered the system, ms: the uplink's header, else Kafka's timestamp.

    Both can be forged by whoever may write to the topic; what a ULID cannot hold counts as absent.
    """
    for name, value in message.headers or ():
        if name == "ingested-at":
            told = _time(value)
            if told is not None:
                return told
    timestamp = int(message.timestamp or 0)
    return timestamp if 0 <= timestamp < MAX_TIME_MS else 0


@lru_cache(maxsize=4096)
def _time(text: bytes | None) -> int | None:
    """Many records came in the same millisecond."""
    time = int(text[:16]) if text and text.isdigit() else MAX_TIME_MS
    return time if time < MAX_TIME_MS else None


def _publish(batch: Batch) -> None:
    """Add what the batch counted to the metrics."""
    for _, error in batch.unfit:
        batch.counts[metrics.TWIN_REJECTED, error.reason] += 1
    batch.counts[metrics.TWIN_APPLIED, topics.TELEMETRY] += batch.observed
    for (counter, label), count in batch.counts.items():
        counter.labels(label).inc(count)
    metrics.TWIN_LATE.inc(batch.late)
    metrics.TWIN_DUPLICATES.inc(batch.duplicates)


def _bury(batch: Batch, owned: Owned, vehicle_id: str, applied: Grave) -> None:
    """What was applied must not be applied again, though there is no twin that says so.

    That goes for records that were refused because there is none: if a kill had them decided again,
    there could be one by then.
    """
    grave = {**owned.graves.get(vehicle_id, {}), **applied}
    batch.awake[vehicle_id] = None
    batch.owners[vehicle_id] = owned
    owned.graves[vehicle_id] = batch.deleted[vehicle_id] = grave


def _output(kind: Any, key: str, record: Any, revision: int) -> Output:
    return Output(kind, key, codec.dump(record), revision)


def _misplaced(vehicle_id: str, expected: int, partition: int) -> Misaddressed:
    return Misaddressed(
        f"vehicle {vehicle_id!r} belongs to partition {expected}, the record is on {partition}:"
        " its producer does not use murmur2",
        reason="wrong_partition",
    )
