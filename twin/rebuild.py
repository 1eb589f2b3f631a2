"""`python -m twin rebuild-view`: the read model made anew from `twins` and `ledger`, while workers run.

    each partition: changelogs -> newest of each key -> careful writes (an owner's newer one stays)
    read on -> what Redis has and no changelog -> read on -> still not there? the same as seen? -> removal
    sets and orders against the documents -> read on, compare ids

Nothing here waits for an owner or trusts that one is at work. An owner tells Redis of a twin when Kafka
has its record, and of a command when Kafka has it in the outbox of that record; the command's own
record in `ledger` may come any time later. So what is in Redis at one moment is in `twins` by then, as
a document or in an outbox, and whoever reads on to the end knows it (`twin.known`): strays are looked
for first, and judged behind that. What an owner removed before we put it back has its tombstone there
by then, too. And a stray goes only if it is still what was seen: what an owner shows under its name in
the meantime is something else.
"""

import asyncio
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Final

import orjson
from pydantic import Field

from twin.changelog import Place, Reader, Tail
from twin.kit import kafka, logs
from twin.kit.clock import SystemClock
from twin.kit.settings import RedisUrl, Settings
from twin.known import Known, Told
from twin.packed import Version, load
from twin.view.repair import Repair, chunks
from twin.wire import keys, topics
from twin.wire.errors import CartwinError, Malformed

log = logs.get(__name__)

_SETTLE_S: Final = 15.0
"""So long an owner may take to show what it has written to Kafka; else the verdict is that it differs."""
_PAUSE_S: Final = 0.2
_REACH_S: Final = 10.0
_MINUTE_MS: Final = 60_000
_TRIES: Final = 10


class RebuildSettings(Settings):
    """Read once by `python -m twin rebuild-view`."""

    redis_url: RedisUrl = Field(default="redis://127.0.0.1:6379/0", description="Redis of the view")


@dataclass(slots=True)
class Report:
    """What was found and done. `missing`, `extra`: in the log and not in Redis, and the reverse."""

    ok: bool = False
    twins: int = 0
    commands: int = 0
    written: int = 0
    newer: int = 0
    """Twins of which Redis had a newer document already."""
    removed: int = 0
    commands_removed: int = 0
    tidied: int = 0
    unreadable: int = 0
    strange: int = 0
    """Records that no owner wrote; passed over, as owners do."""
    missing: int = 0
    extra: int = 0
    commands_missing: int = 0
    commands_extra: int = 0
    seconds: float = 0


@dataclass(slots=True)
class Rebuild:
    """One run. What it remembers is in `known`."""

    reader: Reader
    repair: Repair
    partitions: int
    known: Known = field(default_factory=Known)
    report: Report = field(default_factory=Report)
    _tails: dict[Place, Tail] = field(default_factory=dict)
    _clock: SystemClock = field(default_factory=SystemClock)

    async def run(self) -> Report:
        """Rebuild and compare. Raises `RedisUnavailable`, `ChangelogUnreadable`."""
        started = time.monotonic()
        for partition in range(self.partitions):
            await self._put(await self._read([partition]))
            _say(f"partition {partition + 1} of {self.partitions}: {len(self.known.twins):,} twins")
        # What came in the meantime; its owner may have shown it, or may be gone.
        await self._put(await self._read(range(self.partitions)))
        await self._remove()
        self.report.tidied = await self.repair.tidy()
        await self._compare()
        self.report.twins = len(self.known.twins)
        self.report.commands = sum(1 for _ in self.known.expected(self._clock.now_ms()))
        self.report.seconds = round(time.monotonic() - started, 3)
        return self.report

    async def _read(self, partitions: Iterable[int]) -> Told:
        """Follow the changelogs of partitions to their ends, and take note.

        The ledger first: so `twins` has whatever a ledger's record follows from.
        """
        told = Told()
        for topic, take in (
            (topics.LEDGER, self.known.take_ledger),
            (topics.TWINS, self.known.take_twins),
        ):
            tails = {(topic, p): self._tails.setdefault((topic, p), Tail()) for p in partitions}
            await asyncio.to_thread(self.reader.read, tails, lambda: True)
            for place, tail in tails.items():
                take(tail, told)
                tail.newest.clear()
                tail.outboxes.clear()
                tail.overwritten.clear()
                if tail.strange:
                    log.error("records that no owner wrote", place=place, records=tail.strange)
                    self.report.strange += tail.strange
                    tail.strange = 0
        return told

    async def _put(self, told: Told) -> None:
        for twins in chunks(list(told.twins.items())):
            rows = {vehicle_id: packed.row(vehicle_id) for vehicle_id, packed in twins}
            newer = await self.repair.put(rows)
            self.report.written += len(rows) - len(newer)
            self.report.newer += len(newer)
            await self._enter(newer)
        now_ms = self._clock.now_ms()
        wanted = [c for name, c in told.commands.items() if self.known.expects(name, now_ms)]
        for commands in chunks(wanted):
            await self.repair.put_commands(commands)

    async def _enter(self, ids: list[str]) -> None:
        """Twins of which Redis has a newer state get the whole index of that one."""
        for _ in range(_TRIES):
            if not ids:
                return
            rows = {}
            for vehicle_id, value in zip(ids, await self.repair.values(ids), strict=True):
                try:
                    rows[vehicle_id] = load(keys.document_of(value))[0].row(vehicle_id)
                except (Malformed, ValueError) as error:
                    log.error("no twin in Redis", name=vehicle_id, error=repr(error)[:200])
            # One that has moved on meanwhile once more; its owner cannot outrun this for long.
            ids = await self.repair.put(rows) if rows else []

    async def _remove(self) -> None:
        # What was removed before we put it back is known as removed behind this.
        await self._read(range(self.partitions))
        twins: dict[str, Version] = {}
        for pages in (self.repair.ids(), self.repair.documents()):
            async for page in pages:
                unknown = [vehicle_id for vehicle_id in page if not self.known.has_twin(vehicle_id)]
                for part in chunks(unknown):
                    twins |= zip(part, await self.repair.versions(part), strict=True)
        commands: dict[str, str] = {}
        async for page in self.repair.commands():
            for part in chunks([command_id for command_id in page if self.known.stray(command_id)]):
                commands |= zip(part, await self.repair.digests(part), strict=True)
        # What was seen and is an owner's is known behind this.
        await self._read(range(self.partitions))
        for dropped in chunks([(v, at) for v, at in twins.items() if not self.known.has_twin(v)]):
            self.report.removed += await self.repair.drop(dict(dropped))
        for removed in chunks([(c, seen) for c, seen in commands.items() if self.known.stray(c)]):
            self.report.commands_removed += await self.repair.remove(dict(removed))

    async def _compare(self) -> None:
        """Ids of Redis against those of the log; owners at work get time to show their latest."""
        deadline = time.monotonic() + _SETTLE_S
        found = await self._differences()
        while any(found) and time.monotonic() < deadline:
            await asyncio.sleep(_PAUSE_S)
            found = [a & b for a, b in zip(found, await self._differences(), strict=True)]
        report = self.report
        report.unreadable = len(self.known.unreadable)
        report.missing, report.extra, report.commands_missing, report.commands_extra = map(
            len, found
        )
        report.ok = not (any(found) or report.unreadable)

    async def _differences(self) -> list[set[str]]:
        """Twins in the log before and after Redis was read and not there; those only there.

        And the same of commands.
        """
        # Final ones that end by themselves in between are not missed.
        soon_ms = self._clock.now_ms() + _MINUTE_MS
        await self._read(range(self.partitions))
        twins, commands = set(self.known.twins), set(self.known.expected(soon_ms))
        listed = {vehicle_id async for page in self.repair.ids() for vehicle_id in page}
        there = {vehicle_id async for page in self.repair.documents() for vehicle_id in page}
        entries = {command_id async for page in self.repair.commands() for command_id in page}
        await self._read(range(self.partitions))
        return [
            (twins & self.known.twins.keys()) - (listed & there),
            {v for v in listed | there if not self.known.has_twin(v)},
            {c for c in commands - entries if self.known.expects(c, soon_ms)},
            {command_id for command_id in entries if self.known.stray(command_id)},
        ]


def main(*, json: bool) -> int:
    """0 when Redis has what the log has, 1 when not, 2 on wrong settings."""
    settings = RebuildSettings.load()
    logs.configure("rebuild-view", settings.log_level, settings.log_format)
    try:
        report = asyncio.run(_run(settings))
    except CartwinError as error:
        _say(f"rebuild-view: {error}")
        return 1
    said = orjson.dumps(asdict(report)).decode() if json else _sentences(report)
    sys.stdout.write(said + "\n")
    return 0 if report.ok else 1


async def _run(settings: RebuildSettings) -> Report:
    producer = kafka.producer(settings.kafka_bootstrap, "cartwin-rebuild-view")
    names = [topics.TWINS, topics.LEDGER]
    await asyncio.to_thread(kafka.wait_for_topics, producer, names, _REACH_S)
    known = producer.list_topics(timeout=10).topics
    reader, repair = Reader(settings.kafka_bootstrap), Repair(settings.redis_url)
    try:
        return await Rebuild(reader, repair, len(known[topics.TWINS].partitions)).run()
    finally:
        reader.close()
        await repair.close()


def _sentences(report: Report) -> str:
    verdict = "has what the log has" if report.ok else "differs from the log"
    return (
        f"The read model {verdict}: {report.twins:,} twins, {report.commands:,} commands,"
        f" {report.seconds:g} s.\n"
        f"{report.written:,} documents written, {report.newer:,} newer ones kept,"
        f" {report.removed:,} twins and {report.commands_removed:,} commands removed,"
        f" {report.tidied:,} stale index entries removed.\n"
        f"{report.missing:,} twins and {report.commands_missing:,} commands missing,"
        f" {report.extra:,} twins and {report.commands_extra:,} commands too many,"
        f" {report.unreadable:,} records unreadable."
    )


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
