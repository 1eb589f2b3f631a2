"""The owner of a set of partitions: takes batches of records, decides, and carries out.

    records -> read -> apply (pure) -> changelog acknowledged -> local copy -> outputs, Redis (answers
            last) -> offsets

Durable before told (design law 4): nobody hears of a state that Kafka has not acknowledged, and the
input offsets follow last, so a kill at any point repeats records, which law 2 then skips. Outputs are
in the outbox of the changelog record (law 3, `twin.outbox`), so what was not told is told by whoever
comes next; so an answer need not wait until Kafka has the other outputs. One batch is decided while the
one before it is carried out; telling keeps their order. An error that is not bad input ends the process
uncommitted; it never skips a record.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from twin.apply import Context, due_of
from twin.batch import Batch, Decider, rejection
from twin.changelog import CHANGELOGS, OUTBOX, Kept, Place, tombstone
from twin.copy import Copy
from twin.delivery import Entry, Ticket, Writer
from twin.effects import DeadlineOf
from twin.kit import logs, metrics
from twin.outbox import Output
from twin.owned import Owned
from twin.packed import Row, unpack
from twin.view import Shown, View
from twin.wire import codec, rejected, topics

log = logs.get(__name__)


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
        self._decider = Decider(self.parts, context, partitions)
        self._on_foreign = on_foreign
        self._on_fault = on_fault
        self.deciding = asyncio.Lock()
        """Held while the twins are ahead of what is written of them."""
        self._last: asyncio.Task[None] | None = None
        self._told: dict[Place, int] = {}
        self._safe: dict[Place, Kept] = {}

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
                if batch.unfit:
                    # What no record of a twin holds must be there before the offsets.
                    ticket = Ticket()
                    for message, error in batch.unfit:
                        key, value, headers = rejection(message, error)
                        entry = (key, value, headers)
                        self._writer.send(topics.REJECTED, message.partition, entry, ticket)
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
        """Apply records from `position` on; the batch, and where the next one begins. No I/O."""
        return self._decider.decide(records, position)

    def _write_changelog(self, batch: Batch, ticket: Ticket) -> Shown:
        """Start to make a batch durable; what is to be shown of it is taken now, before the next one."""
        shown = Shown(
            epochs={owned.partition: owned.epoch for owned in batch.owners.values()},
            commands=batch.commands.values(),
            removed=batch.removed,
            replies=batch.replies,
        )
        rows: defaultdict[int, dict[str, Row]] = defaultdict(dict)
        entries: defaultdict[int, list[Entry]] = defaultdict(list)
        for vehicle_id, owned in batch.owners.items():
            twin = owned.twins.get(vehicle_id)
            outbox = batch.outboxes.get(vehicle_id)
            headers = [(OUTBOX, outbox.dump())] if outbox is not None and outbox.causes else None
            value = None
            if twin is None:
                headers = [*(headers or ()), *tombstone(owned.epoch, batch.deleted[vehicle_id])]
                owned.tombs[vehicle_id] = self._writer.end((topics.TWINS, owned.partition))
            else:
                twin.written_by(owned.epoch)
                shown_as = rows[owned.partition][vehicle_id] = twin.row(vehicle_id)
                value = shown_as.document
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
            passed("shown", started)
            await self._writer.wait(ticket)
            if ticket.foreign:
                await self._on_foreign(ticket)
            passed("told", started)
            now = time.time()
            for event_time in batch.event_times:
                metrics.TWIN_EVENT_AGE.observe(now - event_time / 1000)
            self._told.update(batch.ends)
            for owned in self.parts.values():
                if owned.first_at and not owned.resumed:
                    owned.resumed = True
                    waited = max(now - owned.first_at / 1000, 0.0)
                    metrics.TWIN_PAUSE_SECONDS.labels(str(owned.partition)).set(waited)
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
        """Send changes, downlinks and what is rejected; `ledger` gets the newest state of each entry."""
        for output in outputs:
            if output.kind == "ledger":
                headers = tombstone(owned.epoch) if output.value is None else None
                ledger[output.key] = (output.key, output.value, headers)
            elif output.kind == "rejected":
                told = rejected.load(output.value or b"")
                self._writer.send(topics.REJECTED, owned.partition, told, ticket)
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

    def told(self, ends: Mapping[Place, int], places: Mapping[Place, Kept]) -> None:
        """Of what was taken over everything is told, up to `ends`; a copy is read on from `places`."""
        self._told.update(ends)
        self._safe = {**self._safe, **places}

    async def keep(self) -> None:
        """Write into the local copy that it is of now, also where nothing is written for hours."""
        if self._copy is not None:
            await asyncio.to_thread(self._copy.write, (), self._safe)

    def mark(self) -> dict[Place, int]:
        """Up to where in the changelogs everything is told."""
        return dict(self._told)

    def committed(self, mark: dict[Place, int], offsets: Mapping[Any, int]) -> None:
        """The inputs behind a `mark` are committed: up to it nobody will ask for outboxes again."""
        for tp, offset in offsets.items():
            owned = self.parts.get(tp.partition)
            if owned is not None:
                owned.committed[tp.topic] = offset
        safe: dict[Place, Kept] = {}
        for owned in self.parts.values():
            if owned.graves:
                owned.forget_graves()
            for topic in CHANGELOGS:
                place = (topic, owned.partition)
                if place in mark:
                    safe[place] = owned.kept(topic, mark[place])
        self._safe = safe

    def release(self, partitions: Iterable[int]) -> None:
        """Hold these no more."""
        for partition in partitions:
            del self.parts[partition]
            with suppress(KeyError):
                metrics.TWIN_PAUSE_SECONDS.remove(str(partition))
            for topic in CHANGELOGS:
                self._told.pop((topic, partition), None)
        self._safe = {place: kept for place, kept in self._safe.items() if place[1] in self.parts}

    async def due(self, now_ms: int, horizons: Mapping[int, int]) -> None:
        """Turn deadlines that have come into `requests` records (law 6).

        `horizons`: partition -> up to when (ms) what cars said is known; a later deadline may have been
        put off by what is not read yet.
        """
        ticket = Ticket()
        for owned in self.parts.values():
            until = horizons.get(owned.partition, 0)
            for record in owned.deadlines.due(until, now_ms, partial(self._due_of, owned)):
                entry = (record["vehicle_id"], codec.dump(record), None)
                self._writer.send(topics.REQUESTS, owned.partition, entry, ticket)
        await self._writer.wait(ticket)
        metrics.TWIN_COUNT.set(sum(len(owned.twins) for owned in self.parts.values()))
        metrics.TWIN_DEADLINES.set(sum(len(owned.deadlines) for owned in self.parts.values()))

    def _due_of(self, owned: Owned, vehicle_id: str, of: DeadlineOf, ref: str) -> int | None:
        packed = owned.twins.get(vehicle_id)
        if packed is None:
            return None
        return due_of(unpack(packed, vehicle_id), owned.book, of, ref, self._context)


def passed(step: str, started: float) -> None:
    """A batch has come this far (law 4)."""
    metrics.TWIN_STEP_SECONDS.labels(step).observe(time.perf_counter() - started)


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
