"""Shows what an owner holds: batch by batch, and all of a partition when it was claimed or lost.

    claim -> everything is pending
    write -> at once
    run   -> what is pending and differs in Redis, commands, then what is there too much

Live batches and `run` take turns, a few milliseconds each. What `run` shows it has read from the
owner's live state, so it waits until that is durable; and a state that it has shown is not replaced
by an older one of a batch still on its way.

Answers are packed behind the state that they speak of, in the same transaction unless the batch needs
several: so an answer costs no round trip of its own, and whoever gets it can read all that it says.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from twin.kit import logs
from twin.packed import Packed
from twin.view import scripts, sweep
from twin.view.link import FormerOwner, Link, ViewLost
from twin.view.packing import Packing
from twin.view.part import Part
from twin.view.rows import Row, beginning, ending
from twin.wire.records import Command, Reply

log = logs.get(__name__)

_CHUNK: Final = 500
_PROBE_S: Final = 1.0
_DIFFERS: Final = scripts.sha(scripts.DIFFERS)

Durable = Callable[[], Awaitable[None]]
"""Returns when all that the owner had decided at the call is acknowledged by Kafka."""


@dataclass(slots=True)
class Shown:
    """A batch. `rows` and `deleted` by partition; each of them, and that of a command, is in `epochs`.

    `deleted` at some point of the batch, even if there is a new twin by now.
    """

    epochs: dict[int, int] = field(default_factory=dict)
    rows: dict[int, dict[str, Row]] = field(default_factory=dict)
    deleted: dict[int, set[str]] = field(default_factory=dict)
    commands: Collection[Command] = ()
    removed: Sequence[str] = ()
    """Ids of ledger entries that are gone."""
    replies: Sequence[Reply] = ()
    """Told when all of the above is there."""


class View:
    """Writes documents, commands and replies; waits while Redis is away, never gives up a write."""

    def __init__(self, url: str, partitions: int) -> None:
        self._link = Link(url)
        self._partitions = partitions
        self._parts: dict[int, Part] = {}
        self._turn = asyncio.Lock()
        self._wake = asyncio.Event()

    @property
    def fault(self) -> str | None:
        """Why Redis cannot be written right now; None when it can."""
        return self._link.fault

    @property
    def pending(self) -> int:
        """What `run` has still to look at: twins, commands, and partitions that are not swept."""
        parts = self._parts.values()
        return sum(len(p.pending) + len(p.pending_commands) + (not p.swept) for p in parts)

    async def claim(
        self,
        partition: int,
        epoch: int,
        twins: Mapping[str, Packed],
        commands: Mapping[str, Command],
    ) -> None:
        """Own a partition's part of the view; `run` will show it. Raises `FormerOwner`.

        `twins` (by vehicle id) and `commands` (by `vehicle/command id`) are the owner's live tables.
        """
        async with self._turn:
            self._parts.pop(partition, None)
            await self._link.claim({partition: epoch})
            self._parts[partition] = Part(epoch, twins, commands)
            self._wake.set()

    def release(self, partitions: Iterable[int]) -> None:
        """Somebody else may own these from now on."""
        for partition in partitions:
            self._parts.pop(partition, None)
            self._link.release([partition])

    async def write(self, shown: Shown) -> None:
        """Show a batch and answer. Returns when Redis has all of it. Raises `FormerOwner`."""

        def pack(packing: Packing) -> None:
            for partition, deleted in shown.deleted.items():
                for vehicle_id in deleted:
                    self._parts[partition].drop(packing, vehicle_id)
            for partition, rows in shown.rows.items():
                part = self._parts[partition]
                for vehicle_id, changed in rows.items():
                    part.pack(packing, vehicle_id, changed)
            for command_id in shown.removed:
                packing.remove(command_id)
            for command in shown.commands:
                packing.command(command)
            for reply in shown.replies:
                packing.reply(reply)

        async with self._turn:
            await self._write(shown.epochs, pack)
            for partition, rows in shown.rows.items():
                part = self._parts.get(partition)
                if part is not None and part.pending:
                    for vehicle_id in rows:
                        part.pending.pop(vehicle_id, None)

    async def run(self, durable: Durable) -> None:
        """Show what is pending, and notice within a second when Redis has lost what it had."""
        while True:
            try:
                if not await self._step(durable):
                    self._wake.clear()
                    try:
                        async with asyncio.timeout(_PROBE_S):
                            await self._wake.wait()
                    except TimeoutError:
                        async with self._turn:
                            await self._link.check()
            except ViewLost as lost:
                async with self._turn:
                    await self._begin_again(lost)
            except FormerOwner as former:
                # Who owns a partition is not decided here: a write to it will say so.
                log.warning("not shown", why=str(former))
                self._forget_lost()

    async def close(self) -> None:
        """End the connection."""
        await self._link.close()

    async def _write(self, epochs: Mapping[int, int], pack: Callable[[Packing], None]) -> None:
        while True:
            self._check(epochs)
            packing = Packing()
            try:
                pack(packing)
                for transaction in packing.transactions():
                    await self._link.transact(*transaction, epochs)
            except ViewLost as lost:
                await self._begin_again(lost)
            except FormerOwner:
                self._distrust(epochs)
                self._forget_lost()
            except BaseException:
                self._distrust(epochs)
                raise
            else:
                return

    def _check(self, epochs: Mapping[int, int]) -> None:
        for partition, epoch in epochs.items():
            part = self._parts.get(partition)
            if part is None or part.epoch != epoch:
                raise FormerOwner(
                    f"partition {partition} is not owned under epoch {epoch} any more"
                )

    def _distrust(self, epochs: Iterable[int]) -> None:
        """What was packed may not have been written."""
        for partition in epochs:
            if partition in self._parts:
                self._parts[partition].last.clear()

    def _forget_lost(self) -> None:
        for partition, part in list(self._parts.items()):
            if not self._link.owns(partition, part.epoch):
                del self._parts[partition]

    async def _begin_again(self, lost: ViewLost) -> None:
        log.warning("showing everything again", why=str(lost), partitions=sorted(self._parts))
        for part in self._parts.values():
            part.begin()
        self._wake.set()
        try:
            await self._link.claim_again()
        except FormerOwner:
            self._forget_lost()

    async def _step(self, durable: Durable) -> bool:
        """Show some of what is pending; False when nothing is."""
        for partition, part in list(self._parts.items()):
            if part.pending:
                await self._show_twins(partition, part, durable)
                return True
            if part.pending_commands:
                await self._show_commands(partition, part, durable)
                return True
        unswept = {p: part for p, part in self._parts.items() if not part.swept}
        if unswept:
            await self._sweep(unswept, durable)
        return bool(unswept)

    async def _show_twins(self, partition: int, part: Part, durable: Durable) -> None:
        pending = part.pending
        ids = list(pending)[:_CHUNK]
        held = [(v, twin) for v in ids if (twin := part.twins.get(v)) is not None]
        # The revision does not tell all: late telemetry moves only what was applied. Nor the epoch,
        # which is that of the last write.
        arguments = [argument for v, twin in held for argument in (v, _beginning(v, twin))]
        async with self._turn:
            differing = await self._link.ask("EVALSHA", _DIFFERS, 0, *arguments)
        rows = {}
        for vehicle_id in map(bytes.decode, differing):
            twin = part.twins.get(vehicle_id)
            if twin is not None:
                rows[vehicle_id] = twin.row(vehicle_id)
        if rows:
            await durable()

        def pack(packing: Packing) -> None:
            if part.pending is not pending:
                return  # Redis has lost what it had: all is looked at anew
            for vehicle_id, changed in rows.items():
                # Of one that is not pending any more a batch has shown the state, or a newer one.
                if vehicle_id in pending:
                    part.pack(packing, vehicle_id, changed)

        async with self._turn:
            if self._parts.get(partition) is part:
                await self._write({partition: part.epoch}, pack)
                for vehicle_id in ids:
                    pending.pop(vehicle_id, None)

    async def _show_commands(self, partition: int, part: Part, durable: Durable) -> None:
        pending = part.pending_commands
        found = {key: part.commands.get(key) for key in pending[:_CHUNK]}
        await durable()

        def pack(packing: Packing) -> None:
            if part.pending_commands is not pending:
                return
            for key, command in found.items():
                # Another one by now is, or will be, in a batch.
                if command is not None and part.commands.get(key) is command:
                    packing.command(command)

        async with self._turn:
            if self._parts.get(partition) is part:
                await self._write({partition: part.epoch}, pack)
                del pending[: len(found)]

    async def _sweep(self, parts: Mapping[int, Part], durable: Durable) -> None:
        """Remove what Redis has and the owner has not. A step of it is over before the next write."""
        async with aclosing(sweep.steps(self._link, parts, self._partitions)) as steps:
            while True:
                async with self._turn:
                    strays = await anext(steps, None)
                if strays is None:
                    break
                if not strays:
                    continue
                await durable()
                async with self._turn:
                    if any(self._parts.get(p) is not part for p, part in parts.items()):
                        return  # a partition came or went: all is looked at again
                    epochs = {p: part.epoch for p, part in parts.items()}
                    await self._write(epochs, partial(strays.pack, parts))
        for part in parts.values():
            part.swept = True
        log.info("shown", partitions=sorted(parts), twins=sum(len(p.twins) for p in parts.values()))


def _beginning(vehicle_id: str, twin: Packed) -> bytes:
    """The first bytes of what Redis has of a twin, up to all that tells this state from another."""
    return beginning(twin.version) + ending(twin.standing) + twin.beginning(vehicle_id)
