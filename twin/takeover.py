"""Taking partitions over, and making sure that they are ours (law 5).

    assigned -> fence, read, build (`twin.restoring`) -> what a former owner wrote too late is written
             over -> what was not told is told -> places of the local copy -> resume

A record of a greater epoch behind our own means that we are the former owner: the process ends. One of a
lower epoch is a former owner's, who was frozen and woke up: compaction would keep it as the newest of its
key, so ours is written once more. A stranger's, which has no epoch, is written over likewise.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

import orjson

from twin.agents import Owner
from twin.app import INPUTS
from twin.apply import Context
from twin.changelog import CHANGELOGS, ChangelogUnreadable, Place, Reader, Tail, tombstone
from twin.copy import Copy, CopyBroken
from twin.delivery import Entry, Ticket, Writer
from twin.kit import logs, metrics
from twin.owned import Owned, Restored
from twin.restoring import Restoring
from twin.view import FormerOwner, Shown, View
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
        self._writer = writer
        self._view = view
        self._copy = copy
        self._on_fault = on_fault
        self._restoring = Restoring(reader, writer, copy, context)

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
        self._release(self._owner.parts.keys() - committed.keys())
        log.info("restoring", partitions=sorted(committed), generation=generation)
        try:
            taken = await self._restoring.take(committed, self._owner.parts, wanted)
        except CopyBroken as error:
            assert self._copy is not None
            log.warning("local copy is of no use; made anew", why=str(error))
            # A new copy has nothing of what is held, so nothing may go on from there.
            self._release(set(self._owner.parts))
            self._copy.begin_anew()
            taken = await self._restoring.take(committed, {}, wanted)
        if taken is None:
            return
        for place, end in taken.ends.items():
            self._writer.begin(place, end)
        for restored in taken.parts:
            self._owner.parts[restored.owned.partition] = restored.owned
        for restored in taken.parts:
            await self._finish(restored)
        # Not before: what the copy has is not read again, so it would not be told again.
        self._owner.told(taken.ends, taken.places())
        await self._owner.keep()
        log.info(
            "restored",
            partitions=sorted(committed),
            twins=sum(len(restored.owned.twins) for restored in taken.parts),
            commands=sum(len(restored.owned.book) for restored in taken.parts),
            records=taken.records,
            from_copy=taken.from_copy,
            told_again=sum(len(restored.untold) for restored in taken.parts),
            written_again=sum(len(restored.overwritten) for restored in taken.parts),
            seconds=round(time.monotonic() - started, 3),
            seconds_reading=round(taken.seconds_reading, 3),
            seconds_building=round(taken.seconds_building, 3),
        )

    def _release(self, partitions: Set[int]) -> None:
        self._view.release(partitions)
        self._owner.release(partitions)

    def mark(self) -> dict[Place, int]:
        """See `Owner.mark`."""
        return self._owner.mark()

    def committed(self, mark: dict[Place, int], offsets: Mapping[Any, int]) -> None:
        """See `Owner.committed`."""
        self._owner.committed(mark, offsets)

    async def _finish(self, restored: Restored) -> None:
        """What the former owner left: late writes, and what it had not told. The view shows by itself
        all but what answers speak of."""
        owned = restored.owned
        # First, since Redis may be away for longer than compaction waits for it.
        metrics.TWIN_WRITTEN_AGAIN.inc(len(restored.overwritten))
        await self._write_again(owned, dict.fromkeys([*restored.overwritten, *restored.entries]))
        await self._view.claim(owned.partition, owned.epoch, owned.twins, owned.book.commands)
        ticket = Ticket()
        replies: list[Reply] = []
        for vehicle_id, output in restored.untold:
            if output.kind == "replies" and output.value is not None:
                replies.append(orjson.loads(output.value))
            elif output.kind != "ledger":
                self._owner.write_outputs(owned, vehicle_id, [output], {}, ticket)
        await self._writer.wait(ticket)
        if replies:
            await self._view.write(_answers(restored, replies))

    async def examine(self, ticket: Ticket) -> None:
        """Somebody else wrote to our changelogs: see who. Raises `FormerOwner` when it is us."""
        tails: dict[Place, Tail] = {}
        parts = dict(self._owner.parts)
        for place, start, _ in ticket.foreign:
            owned = parts[place[1]]
            first = min(start, tails[place].end) if place in tails else start
            tails[place] = Tail(first, epoch=owned.epoch, floor=owned.epoch)
        await self._restoring.read(tails, lambda: True)
        for place, tail in tails.items():
            owned = parts[place[1]]
            if self._owner.parts.get(place[1]) is not owned:
                continue  # a rebalance took it away meanwhile
            if tail.epoch > owned.epoch:
                raise FormerOwner(
                    f"partition {place[1]} of {place[0]} has epoch {tail.epoch}, ours is {owned.epoch}:"
                    " another worker took it over"
                )
            self._writer.looked(place, tail.end)
            if tail.overwritten:
                log.warning("written over", place=place, keys=len(tail.overwritten))
                metrics.TWIN_WRITTEN_AGAIN.inc(len(tail.overwritten))
                await self._write_again(owned, tail.overwritten)

    async def watch(self, serving: Callable[[], bool]) -> None:
        """Look for late writes where nothing of ours shows them: partitions without traffic.

        Only while `serving`: in a rebalance somebody else may write by right.
        """
        for partition, owned in list(self._owner.parts.items()):
            if self._restoring.ahead_s(owned.epoch) > 0:
                raise ChangelogUnreadable(
                    f"partition {partition} is ours under epoch {owned.epoch}: the clock was set back by"
                    " more than a day since, and what we write would count as a stranger's"
                )
            for topic in CHANGELOGS:
                place = (topic, partition)
                end = self._writer.end(place)
                try:
                    _, high = await self._restoring.bounds(place)
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


def _answers(restored: Restored, replies: list[Reply]) -> Shown:
    """Answers that were not told, behind what they speak of, as it is now."""
    owned, partition = restored.owned, restored.owned.partition
    shown = Shown({partition: owned.epoch}, {partition: {}}, {partition: set()}, replies=replies)
    for vehicle_id in {reply["vehicle_id"] for reply in replies}:
        twin = owned.twins.get(vehicle_id)
        if twin is None:
            shown.deleted[partition].add(vehicle_id)
        else:
            shown.rows[partition][vehicle_id] = twin.row(vehicle_id)
    entries = map(owned.book.commands.get, dict.fromkeys(restored.entries))
    shown.commands = [entry for entry in entries if entry is not None]
    return shown


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
            twin.written_by(owned.epoch)
            entries[topics.TWINS].append((key, twin.dump(key), None))
    return entries
