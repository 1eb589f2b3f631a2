"""The owner of a set of partitions: takes batches of records, decides, and carries out.

    records -> read -> apply (pure) -> changelog acknowledged -> local copy -> outputs, Redis -> replies
            -> offsets

Durable before told (design law 4): nobody hears of a state that Kafka has not acknowledged, and the
input offsets follow last, so a kill at any point repeats records, which law 2 then skips. Outputs are
in the outbox of the changelog record (law 3, `twin.outbox`), so what was not told is told by whoever
comes next. One batch is decided while the one before it is carried out; telling keeps their order. An
error that is not bad input ends the process uncommitted; it never skips a record.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from twin import document, inputs
from twin.apply import NEW_VALUES, Context, apply, deadlines_of, due_of
from twin.changelog import CHANGELOGS, OUTBOX, Place, tombstone
from twin.copy import Copy
from twin.delivery import Entry, Ticket, Writer
from twin.effects import DeadlineOf, Effects
from twin.kit import logs, metrics
from twin.outbox import MAX_BYTES, Outbox, Output
from twin.owned import Grave, Owned
from twin.view import Row, Shown, View, row
from twin.wire import codec, rejected, topics
from twin.wire.errors import Misaddressed, WireError
from twin.wire.partition import partition_of
from twin.wire.records import Command, Position, Reply, Twin
from twin.wire.telemetry import Sample

log = logs.get(__name__)

MAX_TIME_MS: Final = 2**48
"""What 48 bits of a ULID hold, the year 10889."""
_AGES: Final = 16
"""The age of one in so many records is measured."""


@dataclass(slots=True)
class Batch:
    """What one batch of records brought about."""

    twins: dict[str, Twin | None] = field(default_factory=dict)
    """The last state of each; None = deleted."""
    owners: dict[str, Owned] = field(default_factory=dict)
    """Vehicle id -> what holds it."""
    deleted: dict[str, Grave] = field(default_factory=dict)
    """Deleted at some point of the batch, even if there is a new twin by now."""
    outboxes: dict[str, Outbox] = field(default_factory=dict)
    commands: dict[str, Command] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    rejected: list[tuple[Any, WireError]] = field(default_factory=list)
    event_times: list[int] = field(default_factory=list)
    late: int = 0
    duplicates: int = 0
    documents: dict[str, bytes | None] = field(default_factory=dict)
    """As in the changelog."""
    counts: Counter[tuple[Any, str]] = field(default_factory=Counter)
    """How much to add to which counter under which label."""
    ends: dict[Place, int] = field(default_factory=dict)
    """Behind this batch, of each changelog partition that it wrote to."""


class Owner:
    """Decides for the vehicles of the partitions that Faust has given to this worker."""

    def __init__(
        self,
        writer: Writer,
        view: View,
        copy: Copy | None,
        context: Context,
        partitions: int,
        on_foreign: Callable[[Ticket], Any],
        on_fault: Callable[[Exception], None],
    ) -> None:
        self.parts: dict[int, Owned] = {}
        self._writer = writer
        self._view = view
        self._copy = copy
        self._context = context
        self._partitions = partitions
        self._on_foreign = on_foreign
        self._on_fault = on_fault
        self.deciding = asyncio.Lock()
        """Held while the twins are ahead of what is written of them."""
        self._last: asyncio.Task[None] | None = None
        self._told: dict[Place, int] = {}
        self._safe: dict[Place, tuple[int, int]] = {}

    async def take(self, records: Sequence[Any], done: Callable[[], None]) -> None:
        """Decide Kafka records and start to carry them out; `done` is called when all is told.

        A record has topic, partition, offset, timestamp (ms), key, value, headers. Returns when the
        batch before is carried out.
        """
        position = 0
        while position < len(records):
            started = time.perf_counter()
            async with self.deciding:
                batch, position = self.decide(records, position)
                if batch.rejected:
                    # What the twin's record does not hold must be there before it.
                    ticket = Ticket()
                    for message, error in batch.rejected:
                        self._reject(message, error, ticket)
                    await self._writer.wait(ticket)
                ticket = Ticket()
                shown = self._write_changelog(batch, ticket)
                before = self._last
                end = done if position >= len(records) else None
                self._last = asyncio.create_task(
                    self._carry_out(batch, ticket, shown, before, end, started), name="carry out"
                )
            if before is not None:
                await before

    def decide(self, records: Sequence[Any], position: int) -> tuple[Batch, int]:
        """Apply records from `position` on; the batch, and where the next one begins. No I/O.

        It ends early when the outbox of a vehicle is full (`outbox.MAX_BYTES`).
        """
        batch = Batch()
        for index in range(position, len(records)):
            outbox = self._apply(batch, records[index])
            if outbox is not None and outbox.size > MAX_BYTES:
                break
        for _, error in batch.rejected:
            batch.counts[metrics.TWIN_REJECTED, error.reason] += 1
        for (counter, label), count in batch.counts.items():
            counter.labels(label).inc(count)
        metrics.TWIN_LATE.inc(batch.late)
        metrics.TWIN_DUPLICATES.inc(batch.duplicates)
        return batch, index + 1

    def _apply(self, batch: Batch, message: Any) -> Outbox | None:
        """Apply one record; the vehicle's outbox if there is anything to tell."""
        topic, partition, offset = message.topic, message.partition, message.offset
        try:
            record = inputs.read(topic, message.key, message.value)
        except WireError as error:
            batch.rejected.append((message, error))
            return None
        owned = self.parts[partition]
        vehicle_id = record.vehicle_id
        twin = owned.twins.get(vehicle_id)
        if twin is None:
            expected = self.partition_of(vehicle_id)
            if expected != partition:
                batch.rejected.append((message, _misplaced(vehicle_id, expected, partition)))
                return None
            if owned.buried(vehicle_id, topic, offset):
                batch.counts[metrics.TWIN_REPEATED, topic] += 1
                return None
        at = owned.book.now_ms = arrival(message)
        place = Position(topic=topic, partition=partition, offset=offset)
        after, effects = apply(twin, owned.book, record, place, at, self._context)
        if effects.repeated:
            batch.counts[metrics.TWIN_REPEATED, topic] += 1
            return None
        batch.counts[metrics.TWIN_APPLIED, topic] += 1
        if offset % _AGES == 0 and isinstance(record, Sample):
            batch.event_times.append(record.event_time)
        batch.twins[vehicle_id] = after
        batch.owners[vehicle_id] = owned
        if effects is NEW_VALUES:
            return None
        batch.late += effects.late
        batch.duplicates += effects.duplicate
        if effects.outdated:
            batch.counts[metrics.TWIN_OUTDATED, topic] += 1
        if effects.rejected is not None:
            batch.rejected.append((message, effects.rejected))
        if twin is None or after is None:
            self._come_and_go(batch, owned, vehicle_id, twin, after)
        if twin is None and after is None and effects.replies:
            _bury(batch, owned, vehicle_id, {topic: [partition, offset]})
        if not effects.tells:
            return None
        about = after or twin
        revision = 0 if about is None else about["revision"]
        return self._tell(batch, owned, vehicle_id, revision, effects, (topic, offset))

    def _come_and_go(
        self, batch: Batch, owned: Owned, vehicle_id: str, before: Twin | None, after: Twin | None
    ) -> None:
        if after is not None:
            grave = owned.exhume(vehicle_id)
            if grave is not None:
                # The record that deleted the old twin must not delete the new one when it is repeated.
                after["applied"] = {**grave, **after["applied"]}
            owned.twins[vehicle_id] = after
        elif before is not None:
            del owned.twins[vehicle_id]
            owned.deadlines.forget(vehicle_id)
            _bury(batch, owned, vehicle_id, before["applied"])
        elif vehicle_id not in batch.deleted:
            del batch.twins[vehicle_id]

    def _tell(
        self,
        batch: Batch,
        owned: Owned,
        vehicle_id: str,
        revision: int,
        effects: Effects,
        why: tuple[str, int],
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
        owned.deadlines.add(effects.deadlines)
        twin = batch.twins.get(vehicle_id)
        if twin is not None and owned.deadlines.crowded(vehicle_id):
            counting = deadlines_of(twin, owned.book.of(vehicle_id), self._context)
            owned.deadlines.replace(vehicle_id, counting)
        outbox = batch.outboxes.get(vehicle_id)
        if outbox is None:
            outbox = batch.outboxes[vehicle_id] = Outbox()
        if outputs:
            outbox.add(*why, outputs)
        return outbox

    def _write_changelog(self, batch: Batch, ticket: Ticket) -> Shown:
        """Start to make a batch durable; what is to be shown of it is taken now, before the next one."""
        shown = Shown(
            epochs={owned.partition: owned.epoch for owned in batch.owners.values()},
            commands=batch.commands.values(),
            removed=batch.removed,
        )
        rows: defaultdict[int, dict[str, Row]] = defaultdict(dict)
        entries: defaultdict[int, list[Entry]] = defaultdict(list)
        for vehicle_id, twin in batch.twins.items():
            owned = batch.owners[vehicle_id]
            outbox = batch.outboxes.get(vehicle_id)
            headers = [(OUTBOX, outbox.dump())] if outbox is not None and outbox.causes else None
            value = None
            if twin is None:
                headers = [*(headers or ()), *tombstone(owned.epoch, batch.deleted[vehicle_id])]
                owned.tombs[vehicle_id] = self._writer.end((topics.TWINS, owned.partition))
            else:
                twin["epoch"] = owned.epoch
                value = document.dump(twin)
                rows[owned.partition][vehicle_id] = row(twin, value)
            batch.documents[vehicle_id] = value
            entries[owned.partition].append((vehicle_id, value, headers))
        for partition, records in entries.items():
            place = (topics.TWINS, partition)
            self._writer.changelog(place, records, ticket)
            batch.ends[place] = self._writer.end(place)
        shown.rows = rows
        for vehicle_id in batch.deleted:
            shown.deleted.setdefault(batch.owners[vehicle_id].partition, set()).add(vehicle_id)
        return shown

    async def _carry_out(
        self,
        batch: Batch,
        ticket: Ticket,
        shown: Shown,
        before: asyncio.Task[None] | None,
        done: Callable[[], None] | None,
        started: float,
    ) -> None:
        try:
            await self._writer.wait(ticket)
            if ticket.foreign:
                await self._on_foreign(ticket)
            if before is not None:
                await before
            passed("changelog", started)
            if self._copy is not None:
                await asyncio.to_thread(self._copy.write, _records(batch), self._safe)
                passed("copy", started)
            ticket = Ticket()
            self._write_outputs(batch, ticket)
            await self._view.write(shown)
            await self._writer.wait(ticket)
            if ticket.foreign:
                await self._on_foreign(ticket)
            passed("told", started)
            # An answer comes last: whoever gets it can read everything that it says.
            if batch.replies:
                await self._view.reply(shown.epochs, batch.replies)
                passed("replied", started)
            now = time.time()
            for event_time in batch.event_times:
                metrics.TWIN_EVENT_AGE.observe(now - event_time / 1000)
            self._told.update(batch.ends)
            if done is not None:
                done()
        except Exception as error:
            self._on_fault(error)

    def _write_outputs(self, batch: Batch, ticket: Ticket) -> None:
        ledger: defaultdict[int, dict[str, Entry]] = defaultdict(dict)
        for vehicle_id, outbox in batch.outboxes.items():
            owned = batch.owners[vehicle_id]
            for _, _, outputs in outbox.causes:
                self.write_outputs(owned, vehicle_id, outputs, ledger[owned.partition], ticket)
        for partition, entries in ledger.items():
            if entries:
                place = (topics.LEDGER, partition)
                self._writer.changelog(place, list(entries.values()), ticket)
                batch.ends[place] = self._writer.end(place)

    def write_outputs(
        self,
        owned: Owned,
        vehicle_id: str,
        outputs: Sequence[Output],
        ledger: dict[str, Entry],
        ticket: Ticket,
    ) -> None:
        """Send changes and downlinks; `ledger` gets the newest state of each entry."""
        for output in outputs:
            if output.kind == "ledger":
                headers = tombstone(owned.epoch) if output.value is None else None
                ledger[output.key] = (output.key, output.value, headers)
            elif output.kind != "replies":
                topic = topics.CHANGES if output.kind == "changes" else topics.DOWNLINK
                entry = (vehicle_id, output.value, None)
                self._writer.send(topic, owned.partition, entry, ticket)

    async def durable(self) -> None:
        """Return when everything that was decided before is."""
        async with self.deciding:
            last = self._last
        if last is not None:
            await asyncio.shield(last)

    def mark(self) -> dict[Place, int]:
        """Up to where in the changelogs everything is told."""
        return dict(self._told)

    def committed(self, mark: dict[Place, int], offsets: Mapping[Any, int]) -> None:
        """The inputs behind a `mark` are committed: up to it nobody will ask for outboxes again."""
        for tp, offset in offsets.items():
            owned = self.parts.get(tp.partition)
            if owned is not None:
                owned.committed[tp.topic] = offset
        safe: dict[Place, tuple[int, int]] = {}
        for owned in self.parts.values():
            if owned.graves:
                owned.forget_graves()
            for topic in CHANGELOGS:
                place = (topic, owned.partition)
                if place in mark:
                    # A tombstone is not in the copy, and it is needed as long as its grave is.
                    needed = owned.tombs.values() if topic == topics.TWINS else ()
                    safe[place] = (min([mark[place], *needed]), owned.epoch)
        self._safe = safe

    def release(self, partitions: Iterable[int]) -> None:
        """Hold these no more."""
        for partition in partitions:
            del self.parts[partition]
            for topic in CHANGELOGS:
                self._told.pop((topic, partition), None)
        self._safe = {place: kept for place, kept in self._safe.items() if place[1] in self.parts}

    async def due(self, now_ms: int) -> None:
        """Turn deadlines that have come into `requests` records (law 6)."""
        ticket = Ticket()
        for owned in self.parts.values():
            for record in owned.deadlines.due(now_ms, partial(self._due_of, owned)):
                entry = (record["vehicle_id"], codec.dump(record), None)
                self._writer.send(topics.REQUESTS, owned.partition, entry, ticket)
        await self._writer.wait(ticket)
        metrics.TWIN_COUNT.set(sum(len(owned.twins) for owned in self.parts.values()))
        metrics.TWIN_DEADLINES.set(sum(len(owned.deadlines) for owned in self.parts.values()))

    def _due_of(self, owned: Owned, vehicle_id: str, of: DeadlineOf, ref: str) -> int | None:
        twin = owned.twins.get(vehicle_id)
        return None if twin is None else due_of(twin, owned.book, of, ref, self._context)

    def partition_of(self, vehicle_id: str) -> int:
        """The partition of a vehicle, in every topic about vehicles."""
        return partition_of(vehicle_id.encode(), self._partitions)

    def _reject(self, message: Any, error: WireError, ticket: Ticket) -> None:
        key, value, headers = rejected.record(
            error=error,
            source=f"kafka:{message.topic}/{message.partition}/{message.offset}",
            at_ms=arrival(message),
            key=message.key,
            value=message.value,
            headers=message.headers or (),
        )
        self._writer.send(topics.REJECTED, message.partition, (key, value, list(headers)), ticket)


def passed(step: str, started: float) -> None:
    """A batch has come this far (law 4)."""
    metrics.TWIN_STEP_SECONDS.labels(step).observe(time.perf_counter() - started)


def arrival(message: Any) -> int:
    """When the record entered the system, ms: the uplink's header, else Kafka's timestamp.

    Both can be forged by whoever may write to the topic; what a ULID cannot hold counts as absent.
    """
    for name, value in message.headers or ():
        if name == "ingested-at" and value and value.isdigit() and int(value[:16]) < MAX_TIME_MS:
            return int(value[:16])
    timestamp = int(message.timestamp or 0)
    return timestamp if 0 <= timestamp < MAX_TIME_MS else 0


def _records(batch: Batch) -> Iterator[tuple[Place, str, bytes | None]]:
    """What a batch wrote, as records of the changelogs."""
    for vehicle_id, value in batch.documents.items():
        yield (topics.TWINS, batch.owners[vehicle_id].partition), vehicle_id, value
    for vehicle_id, outbox in batch.outboxes.items():
        place = (topics.LEDGER, batch.owners[vehicle_id].partition)
        for _, _, outputs in outbox.causes:
            for output in outputs:
                if output.kind == "ledger":
                    yield place, output.key, output.value


def _bury(batch: Batch, owned: Owned, vehicle_id: str, applied: Grave) -> None:
    """What was applied must not be applied again, though there is no twin that says so.

    That goes for requests that were refused because there is none: if a kill had them decided again,
    there could be one by then.
    """
    grave = {**owned.graves.get(vehicle_id, {}), **applied}
    batch.twins[vehicle_id] = None
    owned.graves[vehicle_id] = batch.deleted[vehicle_id] = grave


def _output(kind: Any, key: str, record: Any, revision: int) -> Output:
    return Output(kind, key, codec.dump(record), revision)


def _misplaced(vehicle_id: str, expected: int, partition: int) -> Misaddressed:
    return Misaddressed(
        f"vehicle {vehicle_id!r} belongs to partition {expected}, the record is on {partition}:"
        " its producer does not use murmur2",
        reason="wrong_partition",
    )
