"""`python -m twin rebuild-view`: the read model made anew from `twins` and `ledger`, while workers run.

    each partition: changelogs -> newest of each key -> careful writes (an owner's newer one stays)
    what Redis has and no changelog -> read on to the end -> still not there? -> careful removal
    sets and orders against the documents -> read on once more, compare ids

An owner tells Redis after Kafka has it. So what is in Redis at one moment is in the log by then, and
so is the tombstone of a twin that an owner removed from Redis before we put it back: both are seen by
reading on to the end before anything is removed.
"""

import asyncio
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Final

import orjson
from pydantic import Field

from twin.changelog import Newest, Place, Reader, Tail
from twin.kit import kafka, logs
from twin.kit.settings import RedisUrl, Settings
from twin.packed import Version, load
from twin.view.repair import Repair, chunks
from twin.view.rows import row
from twin.wire import topics
from twin.wire.errors import CartwinError, Malformed
from twin.wire.records import Command

log = logs.get(__name__)

_SETTLE_S: Final = 15.0
"""So long an owner may take to show what it has written to Kafka."""
_PAUSE_S: Final = 0.2
_REACH_S: Final = 10.0
_NEVER: Final[Version] = (0, 0, 0)
"""Of a twin that we did not write."""


class RebuildSettings(Settings):
    """Read once by `python -m twin rebuild-view`."""

    redis_url: RedisUrl = Field(default="redis://127.0.0.1:6379/0", description="Redis of the view")


@dataclass(slots=True)
class Report:
    """What was found and done. `missing`, `extra`: twins in the log and not in Redis, and the reverse."""

    ok: bool = False
    twins: int = 0
    commands: int = 0
    written: int = 0
    newer: int = 0
    """Twins of which Redis had a newer document already."""
    removed: int = 0
    tidied: int = 0
    unreadable: int = 0
    strange: int = 0
    """Records that no owner wrote; passed over, as owners do."""
    missing: int = 0
    extra: int = 0
    seconds: float = 0


@dataclass(slots=True)
class Rebuild:
    """One run. What it remembers of a twin is its version, of a command its id."""

    reader: Reader
    repair: Repair
    partitions: int
    report: Report = field(default_factory=Report)
    _tails: dict[Place, Tail] = field(default_factory=dict)
    _twins: dict[str, Version] = field(default_factory=dict)
    _commands: set[str] = field(default_factory=set)
    _gone: dict[str, Version] = field(default_factory=dict)
    """Seen as deleted while reading on."""

    async def run(self) -> Report:
        """Rebuild and compare. Raises `RedisUnavailable`, `ChangelogUnreadable`."""
        started = time.monotonic()
        for partition in range(self.partitions):
            places = [(topics.TWINS, partition), (topics.LEDGER, partition)]
            self._tails |= {place: Tail() for place in places}
            await self._read(places)
            await self._put_twins(self._taken((topics.TWINS, partition)))
            await self._put_commands(self._taken((topics.LEDGER, partition)))
            _say(
                f"partition {partition + 1} of {self.partitions}: {len(self._twins):,} twins,"
                f" {len(self._commands):,} commands so far"
            )
        await self._remove()
        self.report.tidied = await self.repair.tidy()
        await self._compare()
        self.report.twins, self.report.commands = len(self._twins), len(self._commands)
        self.report.seconds = round(time.monotonic() - started, 3)
        return self.report

    async def _read(self, places: list[Place]) -> None:
        tails = {place: self._tails[place] for place in places}
        await asyncio.to_thread(self.reader.read, tails, lambda: True)
        for place, tail in tails.items():
            tail.outboxes.clear()
            tail.overwritten.clear()
            if tail.strange:
                log.error("records that no owner wrote", place=place, records=tail.strange)
                self.report.strange += tail.strange
                tail.strange = 0

    def _taken(self, place: Place) -> list[tuple[str, Newest]]:
        """What was read of a place since the last call."""
        newest = self._tails[place].newest
        taken = list(newest.items())
        newest.clear()
        return taken

    async def _put_twins(self, records: list[tuple[str, Newest]]) -> None:
        for part in chunks([(key, n.value) for key, n in records if n.value is not None]):
            rows = {}
            for vehicle_id, value in part:
                try:
                    rows[vehicle_id] = row(vehicle_id, load(value)[0])
                except (Malformed, LookupError, TypeError) as error:
                    self.report.unreadable += 1
                    log.error(
                        "no twin document", vehicle_id=vehicle_id[:80], error=repr(error)[:200]
                    )
            if rows:
                written = await self.repair.put(rows)
                self.report.written += written
                self.report.newer += len(rows) - written
            self._twins |= {vehicle_id: made.version for vehicle_id, made in rows.items()}

    async def _put_commands(self, records: list[tuple[str, Newest]]) -> None:
        for part in chunks([(key, n.value) for key, n in records if n.value is not None]):
            entries = []
            for key, value in part:
                try:
                    entries.append(entry(key, value))
                except (ValueError, LookupError, TypeError) as error:
                    self.report.unreadable += 1
                    log.error("no ledger entry", key=key[:160], error=repr(error)[:200])
            await self.repair.put_commands(entries)
            self._commands.update(command["id"] for command in entries)

    async def _read_on(self) -> None:
        """Follow the changelogs to their ends. Owners show what they write; this only takes note."""
        await self._read(list(self._tails))
        for place in self._tails:
            for key, newest in self._taken(place):
                if place[0] == topics.LEDGER:
                    command_id = key.partition("/")[2]
                    if newest.value is None:
                        self._commands.discard(command_id)
                    else:
                        self._commands.add(command_id)
                elif newest.value is None:
                    if key in self._twins:
                        self._gone[key] = self._twins.pop(key)
                else:
                    self._gone.pop(key, None)
                    self._twins[key] = self._twins.get(key, _NEVER)

    async def _remove(self) -> None:
        strays: dict[str, Version] = {}
        async for page in self.repair.ids():
            unknown = [vehicle_id for vehicle_id in page if vehicle_id not in self._twins]
            strays |= zip(unknown, await self.repair.versions(unknown), strict=True)
        commands: set[str] = set()
        async for page in self.repair.commands():
            commands.update(command_id for command_id in page if command_id not in self._commands)
        await self._read_on()
        strays = {v: there for v, there in strays.items() if v not in self._twins} | self._gone
        for part in chunks(list(strays.items())):
            self.report.removed += await self.repair.drop(dict(part))
        for ids in chunks(sorted(commands - self._commands)):
            await self.repair.remove(ids)

    async def _compare(self) -> None:
        """Ids of Redis against those of the log; owners at work get time to show their latest."""
        deadline = time.monotonic() + _SETTLE_S
        missing, extra = await self._differences()
        while (missing or extra) and time.monotonic() < deadline:
            await asyncio.sleep(_PAUSE_S)
            still_missing, still_extra = await self._differences()
            missing &= still_missing
            extra &= still_extra
        self.report.missing, self.report.extra = len(missing), len(extra)
        self.report.ok = not (missing or extra or self.report.unreadable)

    async def _differences(self) -> tuple[set[str], set[str]]:
        """Twins in the log before and after Redis was read and not there; and those only there."""
        await self._read_on()
        before = set(self._twins)
        there = {vehicle_id async for page in self.repair.ids() for vehicle_id in page}
        await self._read_on()
        return (before & self._twins.keys()) - there, there - self._twins.keys()


def entry(key: str, value: bytes) -> Command:
    """A ledger entry under its key; raises ValueError, LookupError or TypeError when it is none."""
    command: Command = orjson.loads(value)
    if f"{command['vehicle_id']}/{command['id']}" != key:
        raise ValueError(f"entry of {command['id']!r}")
    if not all(isinstance(command[name], int) for name in ("issued_at", "updated_at")):
        raise TypeError("times are numbers")
    return command


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
        f" {report.removed:,} twins removed, {report.tidied:,} stale index entries removed.\n"
        f"{report.missing:,} twins missing, {report.extra:,} too many,"
        f" {report.unreadable:,} records unreadable."
    )


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
