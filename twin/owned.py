"""What the owner of a partition holds: twins, commands, deadlines, graves. Made from the changelogs.

    tails of `twins` and `ledger`, committed input offsets -> restore -> Owned, outputs to tell again

A partition that stayed with this worker over a rebalance goes on from what it held; whatever somebody
else wrote in between is in the tail. A grave is what a deleted twin had applied: until the inputs are
committed behind it, an older record of the car must not make the twin anew, nor a newer one lose it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

from twin.apply import deadlines_of, deadlines_of_commands
from twin.book import Book
from twin.changelog import GRAVE, Kept, Newest, Tail
from twin.deadlines import Deadlines
from twin.fields import check_entry
from twin.kit import logs
from twin.outbox import Output, read
from twin.packed import Packed, load
from twin.step import Context
from twin.wire import topics
from twin.wire.errors import Malformed, WireError
from twin.wire.records import Command

log = logs.get(__name__)

_PARTS: Final = {
    "revision", "created_at", "attributes", "desired", "presence", "health", "commands", "applied"
}  # fmt: skip
"""What code that takes a document over cannot do without."""

Grave = dict[str, list[int]]
"""`applied` of a deleted twin: topic -> [partition, offset]."""


@dataclass(slots=True)
class Owned:
    """One partition in this worker's hands, written under `epoch`."""

    partition: int
    epoch: int
    twins: dict[str, Packed] = field(default_factory=dict)
    book: Book = field(default_factory=lambda: Book({}))
    deadlines: Deadlines = field(default_factory=Deadlines)
    graves: dict[str, Grave] = field(default_factory=dict)
    tombs: dict[str, int] = field(default_factory=dict)
    """Of each grave an offset of `twins`, from which on its tombstone is found."""
    begun: int = 0
    """Offset of `twins` behind this owner's fence: what is there of lower epochs came too late."""
    committed: dict[str, int] = field(default_factory=dict)
    """Input topic -> offset of the next record, as it is committed."""
    first_at: int = 0
    """When the first record arrived that was taken (ms); 0 before that."""
    resumed: bool = False
    """Whether it is told what came of that record."""

    def kept(self, topic: str, end: int) -> Kept:
        """Where a copy, which has everything up to `end`, is to be read on.

        A tombstone is not in a copy, and it is needed as long as its grave is.
        """
        if topic == topics.TWINS:
            end = min([end, *self.tombs.values()])
        # The ledger has no fence; of it nothing in front of ours is read again.
        fenced = topic != topics.TWINS or end >= self.begun
        return Kept(end, self.epoch, self.epoch if fenced else 0)

    def buried(self, vehicle_id: str, topic: str, offset: int) -> bool:
        """Whether a record of a car without a twin is older than the twin's deletion."""
        grave = self.graves.get(vehicle_id)
        last = grave.get(topic) if grave is not None else None
        return last is not None and last[0] == self.partition and last[1] >= offset

    def forget_graves(self) -> None:
        """Drop those that no record to come can be older than."""
        for vehicle_id in [v for v, g in self.graves.items() if not _open(g, self.committed)]:
            self.exhume(vehicle_id)

    def exhume(self, vehicle_id: str) -> Grave | None:
        """Take a grave away; None when there is none."""
        self.tombs.pop(vehicle_id, None)
        return self.graves.pop(vehicle_id, None)


@dataclass(frozen=True, slots=True)
class Restored:
    """A partition to begin with, and what its former owner may not have finished."""

    owned: Owned
    untold: list[tuple[str, Output]]
    """Vehicle id and output, in order."""
    overwritten: list[str]
    """Keys of `twins` (a vehicle id) and `ledger` (vehicle/command) to be written once more."""
    strange: list[str] = field(default_factory=list)
    """Keys of `ledger` whose entries are not whole; they were passed over."""

    @property
    def entries(self) -> list[str]:
        """Keys of the ledger that are among the untold; what holds of them is in `owned.book`."""
        return [output.key for _, output in self.untold if output.kind == "ledger"]


def restore(
    partition: int,
    epoch: int,
    twins: Tail,
    ledger: Tail,
    committed: Mapping[str, int],
    context: Context,
    held: Owned | None = None,
) -> Restored:
    """Build a partition from the tails of its changelogs, on top of what this worker `held` of it.

    `committed`: input topic -> offset of the next record.
    """
    owned = Owned(partition, epoch, committed=dict(committed))
    if held is not None:
        owned.twins, owned.graves, owned.tombs = held.twins, held.graves, held.tombs
        owned.deadlines = held.deadlines
    for vehicle_id, newest in twins.newest.items():
        _take_twin(owned, vehicle_id, newest, committed, context)
    commands = {} if held is None else {_key(command): command for command in held.book.all()}
    strange = [k for k, newest in ledger.newest.items() if not _take_command(commands, k, newest)]
    told: list[tuple[str, Output]] = []
    for vehicle_id, outbox in twins.outboxes:
        for output, left in _outputs(vehicle_id, outbox, committed):
            if left:
                told.append((vehicle_id, output))
            if output.kind == "ledger":
                _take_output(commands, output)
    owned.book = Book(commands)
    owned.book.rebuild(owned.twins)
    owned.deadlines.add(deadlines_of_commands(owned.book.all(), context))
    owned.forget_graves()
    return Restored(owned, told, sorted(twins.overwritten | ledger.overwritten), strange)


def _outputs(
    vehicle_id: str, outbox: bytes, committed: Mapping[str, int]
) -> list[tuple[Output, bool]]:
    try:
        return list(read(outbox, committed))
    except (ValueError, LookupError, TypeError) as error:
        log.error("no outbox", vehicle_id=vehicle_id[:80], error=repr(error)[:200])
        return []


def _take_twin(
    owned: Owned,
    vehicle_id: str,
    newest: Newest,
    committed: Mapping[str, int],
    context: Context,
) -> None:
    owned.exhume(vehicle_id)
    if newest.value is None:
        owned.twins.pop(vehicle_id, None)
        owned.deadlines.forget(vehicle_id)
        grave = _grave(vehicle_id, newest)
        if _open(grave, committed):
            owned.graves[vehicle_id] = grave
            owned.tombs[vehicle_id] = newest.offset
        return
    try:
        packed, twin = load(newest.value)
        if twin["vehicle_id"] != vehicle_id or not twin.keys() >= _PARTS:
            raise Malformed("not this vehicle's, or not whole")
        owned.deadlines.add(deadlines_of(twin, context))
        owned.twins[vehicle_id] = packed
    except (WireError, ValueError, LookupError, TypeError) as error:
        log.error("no twin document", vehicle_id=vehicle_id[:80], error=repr(error)[:200])


def _grave(vehicle_id: str, newest: Newest) -> Grave:
    try:
        applied = orjson.loads(newest.headers.get(GRAVE, b"{}"))
        return {
            topic: [int(partition), int(offset)] for topic, (partition, offset) in applied.items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        log.error("no grave", vehicle_id=vehicle_id[:80], error=repr(error)[:200])
        return {}


def _take_command(commands: dict[str, Command], key: str, newest: Newest) -> bool:
    """False when it is no entry: then what was held under its key stays."""
    if newest.value is None:
        commands.pop(key, None)
        return True
    try:
        command: Command = orjson.loads(newest.value)
        check_entry(key, command)
    except (WireError, ValueError):
        return False
    commands[key] = command
    return True


def _take_output(commands: dict[str, Command], output: Output) -> None:
    """A ledger entry that may not be in the ledger yet, or may be there in a later state."""
    known = commands.get(output.key)
    if known is not None and known.get("revision", 0) >= output.revision:
        return
    if output.value is None:
        commands.pop(output.key, None)
    else:
        commands[output.key] = orjson.loads(output.value)


def _key(command: Command) -> str:
    return f"{command['vehicle_id']}/{command['id']}"


def _open(applied: Mapping[str, list[int]], committed: Mapping[str, int]) -> bool:
    return any(offset >= committed.get(topic, 0) for topic, (_, offset) in applied.items())
