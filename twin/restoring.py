"""Partitions from their changelogs, some at a time: what takes a partition over begins with.

    place -> Tail (from where we were, from the local copy, or whole) -> read to the end
          -> new epoch, fence -> read up to the fence -> Owned, local copy -> the next group

The epoch of an owner is greater than any that it finds in the changelog, and not below the seconds since
1970, so that a Redis which outlived its Kafka does not take it for a former owner. Where that would be
too far ahead of the clock (`changelog.AHEAD_S`), the clock is waited for. The fence decides
what a former owner still did: a batch in front of it is durable and known here; one behind it is late,
and its writer sees the gap before it tells anything.

What was read is as large as what it becomes. So only a few partitions of it are there at a time, and the
C library is told to give back what it keeps: in small pieces it would keep it for ever.
"""

import asyncio
import ctypes
import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final

from twin.changelog import (
    AHEAD_S,
    CHANGELOGS,
    FENCE,
    Kept,
    Place,
    Reader,
    Tail,
    tombstone,
)
from twin.copy import Copy
from twin.delivery import Ticket, Writer
from twin.kit import logs, metrics
from twin.kit.clock import SystemClock
from twin.owned import Owned, Restored, restore
from twin.sift import sift, tellable
from twin.step import Context
from twin.view import FormerOwner
from twin.wire import codec, topics

log = logs.get(__name__)

GROUP: Final = 2
"""Partitions that are read and built at a time; a group costs some 15 ms of waiting besides."""

_ROUND_S: Final = 1.0

Committed = Mapping[int, Mapping[str, int]]
"""Partition -> input topic -> offset of the next record."""


@dataclass(slots=True)
class Taken:
    """Partitions to begin with, and how they came about."""

    parts: list[Restored] = field(default_factory=list)
    ends: dict[Place, int] = field(default_factory=dict)
    """Of the changelogs, behind our fence."""
    from_copy: int = 0
    """Documents and entries that the local copy had."""
    records: int = 0
    """Read from Kafka."""
    seconds_reading: float = 0
    seconds_building: float = 0

    def places(self) -> dict[Place, Kept]:
        """Where a copy that has all of this is to be read on."""
        made = {}
        for restored in self.parts:
            owned = restored.owned
            for topic in CHANGELOGS:
                place = (topic, owned.partition)
                made[place] = owned.kept(topic, self.ends[place])
        return made


class Restoring:
    """Reads changelogs, one reading at a time, and makes partitions of them."""

    def __init__(self, reader: Reader, writer: Writer, copy: Copy | None, context: Context) -> None:
        self._reader = reader
        self._writer = writer
        self._copy = copy
        self._context = context
        self._reading = asyncio.Lock()
        self._clock = SystemClock()

    async def read(self, tails: Mapping[Place, Tail], wanted: Callable[[], bool]) -> bool:
        """See `Reader.read`. What no owner wrote is said in the log."""
        async with self._reading:
            read = await asyncio.to_thread(self._reader.read, tails, wanted)
        for place, tail in tails.items():
            if tail.strange:
                log.error(
                    "records that no owner wrote are passed over",
                    place=place, records=tail.strange, first_offset=tail.stranger,
                )  # fmt: skip
                metrics.TWIN_STRANGE.inc(tail.strange)
                tail.strange = 0
        return read

    async def bounds(self, place: Place) -> tuple[int, int]:
        """See `Reader.bounds`."""
        async with self._reading:
            return await asyncio.to_thread(self._reader.bounds, place)

    async def take(
        self, committed: Committed, held: Mapping[int, Owned], wanted: Callable[[], bool]
    ) -> Taken | None:
        """Make the partitions, on top of what is `held`; None when they are not `wanted` any more.

        Raises `CopyBroken`, `ChangelogUnreadable`, `FormerOwner`.
        """
        taken, partitions = Taken(), sorted(committed)
        with _uncollected():
            if self._copy is not None:
                async with self._reading:
                    topic_ids = await asyncio.to_thread(self._reader.identity)
                self._copy.check(topic_ids)
            for first in range(0, len(partitions), GROUP):
                group = {p: committed[p] for p in partitions[first : first + GROUP]}
                if not await self._take(group, held, wanted, taken):
                    return None
                await asyncio.to_thread(_give_back)
        return taken

    async def _take(
        self,
        committed: Committed,
        held: Mapping[int, Owned],
        wanted: Callable[[], bool],
        taken: Taken,
    ) -> bool:
        began = time.monotonic()
        async with self._reading:
            tails = await asyncio.to_thread(self._begin, committed, held)
        from_copy = sum(len(tail.newest) for tail in tails.values())
        if not await self.read(tails, wanted):
            return False
        now_s = self._clock.now_ms() // 1000
        epochs = {
            p: max(now_s, *(tails[topic, p].epoch + 1 for topic in CHANGELOGS)) for p in committed
        }
        if not await self._await_clock(epochs, wanted):
            return False
        await self._fence(epochs)
        if not await self.read(tails, wanted):
            return False
        for partition, epoch in epochs.items():
            found = tails[topics.TWINS, partition]
            # Two that came at once may both follow on the same epoch, when that is ahead of the clock.
            if found.epoch > epoch or found.fences > 1:
                raise FormerOwner(f"partition {partition} was taken over by another worker")
        read = time.monotonic()
        made = await asyncio.to_thread(self._build, committed, held, tails, epochs)
        taken.parts += made
        taken.ends |= {place: tail.end for place, tail in tails.items()}
        taken.from_copy += from_copy
        taken.records += sum(tail.records for tail in tails.values())
        taken.seconds_reading += read - began
        taken.seconds_building += time.monotonic() - read
        # The thread that built may hold on to them for a moment.
        tails.clear()
        return wanted()

    def _begin(self, partitions: Iterable[int], held: Mapping[int, Owned]) -> dict[Place, Tail]:
        tails = {}
        for partition in partitions:
            for topic in CHANGELOGS:
                place, owned = (topic, partition), held.get(partition)
                tail = None
                if owned is not None:
                    tail = Tail(self._writer.end(place), epoch=owned.epoch, floor=owned.epoch)
                elif self._copy is not None:
                    tail = self._copy.tail(place, *self._reader.bounds(place))
                tails[place] = tail or Tail()
        return tails

    def ahead_s(self, epoch: int) -> int:
        """For how long an epoch is further ahead of the clock than readers accept it; <= 0 when not."""
        return epoch - AHEAD_S - self._clock.now_ms() // 1000

    async def _await_clock(self, epochs: Mapping[int, int], wanted: Callable[[], bool]) -> bool:
        """Until our own records cannot count as a stranger's; False when no longer `wanted`."""
        partition, epoch = max(epochs.items(), key=itemgetter(1))
        if (ahead_s := self.ahead_s(epoch)) > 0:
            log.error(
                "the changelog is ahead of this machine's clock by more than a day: is the clock right?",
                partition=partition, epoch=epoch - 1, waiting_s=ahead_s,
            )  # fmt: skip
        while (ahead_s := self.ahead_s(epoch)) > 0:
            if not wanted():
                return False
            await asyncio.sleep(min(ahead_s, _ROUND_S))
        return True

    async def _fence(self, epochs: Mapping[int, int]) -> None:
        """From here on a former owner's writes are late, and it sees that it is one (`Writer`)."""
        ticket = Ticket()
        for partition, epoch in epochs.items():
            fence = (FENCE, None, tombstone(epoch))
            self._writer.send(topics.TWINS, partition, fence, ticket)
        await self._writer.wait(ticket)

    def _build(
        self,
        committed: Committed,
        held: Mapping[int, Owned],
        tails: Mapping[Place, Tail],
        epochs: Mapping[int, int],
    ) -> list[Restored]:
        made = []
        for partition, offsets in committed.items():
            twins, ledger = (tails[topic, partition] for topic in CHANGELOGS)
            told = (offsets, self._context, held.get(partition))
            restored = _restored(partition, epochs[partition], twins, ledger, *told)
            restored.owned.begun = twins.end
            made.append(restored)
            if self._copy is not None:
                # Not yet the places: what is in front of them is not read again, nor told again.
                self._copy.write(_read_of(restored, twins, ledger), {})
        return made


def _restored(
    partition: int,
    epoch: int,
    twins: Tail,
    ledger: Tail,
    offsets: Mapping[str, int],
    context: Context,
    held: Owned | None,
) -> Restored:
    """See `owned.restore`; what no owner can have written is left out."""
    try:
        restored = restore(partition, epoch, twins, ledger, offsets, context, held)
        strange: list[Any] = restored.strange
        strange += [output for car, output in restored.untold if not tellable(car, output)]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        why = repr(error)[:200]
    else:
        if not strange:
            return restored
        why = repr(strange[0])[:200]
    log.error("a changelog holds what no owner writes", partition=partition, why=why)
    metrics.TWIN_STRANGE.inc(sift(twins, ledger))
    return restore(partition, epoch, twins, ledger, offsets, context, held)


def _read_of(
    restored: Restored, twins: Tail, ledger: Tail
) -> Iterator[tuple[Place, str, bytes | None]]:
    """What the copy does not have yet, as its records."""
    owned = restored.owned
    for topic, tail in zip(CHANGELOGS, (twins, ledger), strict=True):
        for key, newest in tail.newest.items():
            if newest.offset >= 0:
                yield (topic, owned.partition), key, newest.value
    # Of these the ledger has no state, or an older one, up to the end of its tail.
    for key in restored.entries:
        command = owned.book.commands.get(key)
        yield (
            (topics.LEDGER, owned.partition),
            key,
            None if command is None else codec.dump(command),
        )


@contextmanager
def _uncollected() -> Iterator[None]:
    """Millions of new objects and no garbage: looking for cycles would take as long as the rest."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


def _give_back() -> None:
    """What was freed, to the system: glibc keeps it, other C libraries do not know the call."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    trim(0)
