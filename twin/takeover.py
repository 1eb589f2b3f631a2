"""Taking partitions over, and making sure that they are ours (law 5).

    assigned -> read changelogs (from where we were, from the local copy, or whole) -> new epoch, fence
             -> read up to the fence -> Owned -> what a former owner wrote too late is written over
             -> what was not told is told -> local copy -> resume

The epoch of an owner is greater than any that it finds in the changelog, and not below the seconds since
1970, so that a Redis which outlived its Kafka does not take it for a former owner. The fence decides
what a former owner still did: a batch in front of it is durable and known here; one behind it is late,
and its writer sees the gap before it tells anything. A record of a greater epoch behind our own means
that we are the former owner: the process ends. One of a lower epoch is a former owner's, who was frozen
and woke up: compaction would keep it as the newest of its key, so ours is written once more.
"""

import asyncio
import gc
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from twin import document
from twin.agents import Owner
from twin.app import INPUTS
from twin.apply import Context
from twin.changelog import (
    CHANGELOGS,
    FENCE,
    ChangelogUnreadable,
    Newest,
    Place,
    Reader,
    Tail,
    tombstone,
)
from twin.copy import Copy, CopyBroken
from twin.delivery import Entry, Ticket, Writer
from twin.kit import logs, metrics
from twin.kit.clock import SystemClock
from twin.owned import Owned, Restored, restore
from twin.view import FormerOwner, View
from twin.wire import codec, topics
from twin.wire.records import Reply

log = logs.get(__name__)


class Takeover:
    """Restores partitions for an owner (`twin.stream.recovery.Restorer`)."""

    def __init__(
        self, owner: Owner, reader: Reader, writer: Writer, view: View, copy: Copy | None,
        context: Context, on_fault: Callable[[Exception], Any],
    ) -> None:  # fmt: skip
        self._owner = owner
        self._reader = reader
        self._writer = writer
        self._view = view
        self._copy = copy
        self._context = context
        self._on_fault = on_fault
        self._reading = asyncio.Lock()
        self._clock = SystemClock()

    async def restore(
        self, places: Mapping[Any, int], generation: int, wanted: Callable[[], bool]
    ) -> None:
        """Hold exactly the partitions of `places` (input topic and partition -> next offset)."""
        try:
            await self._restore(places, generation, wanted)
        except Exception as error:
            self._on_fault(error)

    async def _restore(
        self, places: Mapping[Any, int], generation: int, wanted: Callable[[], bool]
    ) -> None:
        started = time.monotonic()
        committed: defaultdict[int, dict[str, int]] = defaultdict(dict)
        for tp, offset in places.items():
            if tp.topic in INPUTS:
                committed[tp.partition][tp.topic] = offset
        lost = self._owner.parts.keys() - committed.keys()
        self._view.release(lost)
        self._owner.release(lost)
        log.info("restoring", partitions=sorted(committed), generation=generation)
        tails = self._tails(committed)
        known = {place: dict(tail.newest) for place, tail in tails.items()}
        if not await self._read(tails, wanted):
            return
        now_s = self._clock.now_ms() // 1000
        epochs = {
            p: max(now_s, *(tails[topic, p].epoch + 1 for topic in CHANGELOGS)) for p in committed
        }
        await self._fence(epochs)
        if not await self._read(tails, wanted):
            return
        for partition, epoch in epochs.items():
            if tails[topics.TWINS, partition].epoch > epoch:
                raise FormerOwner(f"partition {partition} was taken over by another worker")
        read = time.monotonic()
        made = await asyncio.to_thread(self._build, committed, tails, epochs)
        if not wanted():
            return
        for place, tail in tails.items():
            self._writer.begin(place, tail.end)
        for restored in made:
            self._owner.parts[restored.owned.partition] = restored.owned
        built = time.monotonic()
        for restored in made:
            await self._finish(restored)
        if self._copy is not None:
            # Not before: what the copy has is not read again, so it would not be told again.
            await asyncio.to_thread(_keep, self._copy, made, tails, known)
        log.info(
            "restored",
            partitions=sorted(committed),
            twins=sum(len(restored.owned.twins) for restored in made),
            commands=sum(len(restored.owned.book) for restored in made),
            records=sum(tail.records for tail in tails.values()),
            from_copy=sum(len(records) for records in known.values()),
            told_again=sum(len(restored.untold) for restored in made),
            written_again=sum(len(restored.overwritten) for restored in made),
            seconds=round(time.monotonic() - started, 3),
            seconds_reading=round(read - started, 3),
            seconds_building=round(built - read, 3),
        )

    def mark(self) -> dict[Place, int]:
        """See `Owner.mark`."""
        return self._owner.mark()

    def committed(self, mark: dict[Place, int], offsets: Mapping[Any, int]) -> None:
        """See `Owner.committed`."""
        self._owner.committed(mark, offsets)

    def _tails(self, partitions: Iterable[int]) -> dict[Place, Tail]:
        wanted = [(topic, partition) for partition in partitions for topic in CHANGELOGS]
        try:
            return {place: self._begin(*place) for place in wanted}
        except CopyBroken as error:
            assert self._copy is not None
            log.warning("local copy is broken; made anew", error=str(error))
            self._copy.begin_anew()
            return {place: self._begin(*place) for place in wanted}

    def _begin(self, topic: str, partition: int) -> Tail:
        held = self._owner.parts.get(partition)
        place = (topic, partition)
        if held is not None:
            return Tail(self._writer.end(place), epoch=held.epoch, floor=held.epoch)
        if self._copy is not None:
            tail = self._copy.tail(place, *self._reader.bounds(place))
            if tail is not None:
                return tail
        return Tail()

    async def _read(self, tails: Mapping[Place, Tail], wanted: Callable[[], bool]) -> bool:
        async with self._reading:
            return await asyncio.to_thread(self._reader.read, tails, wanted)

    async def _fence(self, epochs: Mapping[int, int]) -> None:
        """From here on a former owner's writes are late, and it sees that it is one (`Writer`)."""
        ticket = Ticket()
        for partition, epoch in epochs.items():
            fence = (FENCE, None, tombstone(epoch))
            self._writer.send(topics.TWINS, partition, fence, ticket)
        await self._writer.wait(ticket)

    def _build(
        self,
        committed: Mapping[int, Mapping[str, int]],
        tails: Mapping[Place, Tail],
        epochs: Mapping[int, int],
    ) -> list[Restored]:
        made = []
        # Millions of new objects and no garbage: looking for cycles would take as long as the rest.
        gc.disable()
        try:
            for partition, offsets in committed.items():
                twins, ledger = (tails[topic, partition] for topic in CHANGELOGS)
                epoch, held = epochs[partition], self._owner.parts.get(partition)
                made.append(restore(partition, epoch, twins, ledger, offsets, self._context, held))
        finally:
            gc.enable()
            gc.freeze()
        return made

    async def _finish(self, restored: Restored) -> None:
        """What the former owner left: late writes, and what it had not told. The view shows by itself."""
        owned = restored.owned
        await self._view.claim(owned.partition, owned.epoch, owned.twins, owned.book.commands)
        metrics.TWIN_WRITTEN_AGAIN.inc(len(restored.overwritten))
        await self._write_again(owned, dict.fromkeys([*restored.overwritten, *restored.entries]))
        ticket = Ticket()
        replies: list[Reply] = []
        for vehicle_id, output in restored.untold:
            if output.kind == "replies" and output.value is not None:
                replies.append(orjson.loads(output.value))
            elif output.kind != "ledger":
                self._owner.write_outputs(owned, vehicle_id, [output], {}, ticket)
        await self._writer.wait(ticket)
        if replies:
            await self._view.reply({owned.partition: owned.epoch}, replies)

    async def examine(self, ticket: Ticket) -> None:
        """Somebody else wrote to our changelogs: see who. Raises `FormerOwner` when it is us."""
        tails: dict[Place, Tail] = {}
        for place, start, _ in ticket.foreign:
            owned = self._owner.parts[place[1]]
            first = min(start, tails[place].end) if place in tails else start
            tails[place] = Tail(first, epoch=owned.epoch, floor=owned.epoch)
        await self._read(tails, lambda: True)
        for place, tail in tails.items():
            owned = self._owner.parts[place[1]]
            if tail.epoch > owned.epoch:
                raise FormerOwner(
                    f"partition {place[1]} of {place[0]} has epoch {tail.epoch}, ours is {owned.epoch}:"
                    " another worker took it over"
                )
            log.warning("late writes of a former owner", place=place, keys=len(tail.overwritten))
            metrics.TWIN_WRITTEN_AGAIN.inc(len(tail.overwritten))
            await self._write_again(owned, tail.overwritten)

    async def watch(self, serving: Callable[[], bool]) -> None:
        """Look for late writes where nothing of ours shows them: partitions without traffic.

        Only while `serving`: in a rebalance somebody else may write by right.
        """
        for partition, owned in list(self._owner.parts.items()):
            for topic in CHANGELOGS:
                place = (topic, partition)
                end = self._writer.end(place)
                try:
                    async with self._reading:
                        _, high = await asyncio.to_thread(self._reader.bounds, place)
                except ChangelogUnreadable as error:
                    log.warning("cannot look for late writes", error=str(error))
                    return
                if not serving() or self._owner.parts.get(partition) is not owned:
                    return
                if high > end == self._writer.end(place):
                    await self.examine(Ticket(foreign=[(place, end, high)]))

    async def _write_again(self, owned: Owned, keys: Iterable[str]) -> None:
        ticket = Ticket()
        # A state that is decided and not yet written must not get ahead of its outbox.
        async with self._owner.deciding:
            for topic, records in _as_owned(owned, keys).items():
                if records:
                    self._writer.changelog((topic, owned.partition), records, ticket)
        await self._writer.wait(ticket)
        if ticket.foreign:
            await self.examine(ticket)


def _as_owned(owned: Owned, keys: Iterable[str]) -> dict[str, list[Entry]]:
    """Records of the changelogs for keys, as what they stand for is now."""
    entries: dict[str, list[Entry]] = {topic: [] for topic in CHANGELOGS}
    for key in keys:
        vehicle_id, _, command_id = key.partition("/")
        if command_id:
            command = owned.book.commands.get(key)
            value = None if command is None else codec.dump({**command, "epoch": owned.epoch})
            headers = tombstone(owned.epoch) if value is None else None
            entries[topics.LEDGER].append((key, value, headers))
            continue
        twin = owned.twins.get(vehicle_id)
        if twin is None:
            headers = tombstone(owned.epoch, owned.graves.get(vehicle_id, {}))
            entries[topics.TWINS].append((key, None, headers))
        else:
            twin["epoch"] = owned.epoch
            entries[topics.TWINS].append((key, document.dump(twin), None))
    return entries


def _keep(
    copy: Copy,
    made: Iterable[Restored],
    tails: Mapping[Place, Tail],
    known: Mapping[Place, Mapping[str, Newest]],
) -> None:
    """Bring the local copy to where the changelogs are: from here on it gets each batch."""
    for restored in made:
        owned = restored.owned
        for topic in CHANGELOGS:
            place = (topic, owned.partition)
            tail, had = tails[place], known[place]
            records = {
                key: newest.value
                for key, newest in tail.newest.items()
                if newest is not had.get(key)
            }
            end = tail.end
            if topic == topics.TWINS:
                end = min([end, *owned.tombs.values()])
            else:
                # Of these the ledger has no state, or an older one, up to the end of its tail.
                for key in restored.entries:
                    command = owned.book.commands.get(key)
                    records[key] = None if command is None else codec.dump(command)
            copy.write(
                ((place, key, value) for key, value in records.items()),
                {place: (end, owned.epoch)},
            )
