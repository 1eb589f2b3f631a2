"""What there is as far as the changelogs were read: for whoever compares it with Redis.

    tails of `ledger`, then of `twins`: documents, outboxes -> Known -> expected? a stray?

A command is durable with the record of its twin: it is in the outbox. Its own record in `ledger` comes
later, and for as long as its owner is frozen or gone it does not come at all, while Redis has the
command already. So an entry is as good from an outbox as from the ledger, and no entry is a stray
that has a word in either or is open in the document of its twin. The last holds however old the outbox
is: compaction may take a record that has a newer one behind it, but the newest says what is open.

A deleted twin's commands go with it. Those that its owner's book had forgotten by then (they ended more
than a day before) get no tombstone: they are told by the twin that is not there, or was made after them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import orjson

from twin.book import IDEMPOTENCY_MS
from twin.changelog import Tail
from twin.fields import check_entry
from twin.kit import logs
from twin.lifecycle import FINAL
from twin.outbox import untold
from twin.packed import Packed, Version, load
from twin.view.packing import FINAL_TTL_S
from twin.wire.errors import Malformed, WireError
from twin.wire.records import Command

log = logs.get(__name__)

_LAST: Final = 2**63
"""As a revision: nothing comes behind it. A command id is given once."""


@dataclass(slots=True)
class Told:
    """What readings brought: of each id the newest, without what is gone."""

    twins: dict[str, Packed] = field(default_factory=dict)
    commands: dict[str, Command] = field(default_factory=dict)


class _Word(NamedTuple):
    """The newest word on a command. `ended`: when it came to its end (ms), 0 = it is open or gone."""

    revision: int
    there: bool
    ended: int = 0


@dataclass(slots=True)
class Known:
    """Of a twin its version and its open commands, of a command its newest word."""

    twins: dict[str, Version] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)
    """Ids of twins and commands whose newest record says nothing to us; they are left alone."""
    _words: dict[str, _Word] = field(default_factory=dict)
    _open: dict[str, frozenset[str]] = field(default_factory=dict)

    def take_ledger(self, tail: Tail, told: Told) -> None:
        """What was read of a partition of `ledger`, before `twins` was."""
        for key, newest in tail.newest.items():
            self._take_entry(told, key, newest.value, _LAST)

    def take_twins(self, tail: Tail, told: Told) -> None:
        """What was read of a partition of `twins`."""
        for vehicle_id, newest in tail.newest.items():
            self._take_twin(told, vehicle_id, newest.value)
        for vehicle_id, outbox in tail.outboxes:
            try:
                outputs = [output for output in untold(outbox, {}) if output.kind == "ledger"]
            except (ValueError, LookupError, TypeError) as error:
                self._pass_over("no outbox", vehicle_id, error)
                continue
            for output in outputs:
                self._take_entry(told, output.key, output.value, output.revision)

    def has_twin(self, vehicle_id: str) -> bool:
        """Whether there is a twin, readable or not."""
        return vehicle_id in self.twins or vehicle_id in self.unreadable

    def has(self, command_id: str) -> bool:
        """Whether there is an entry that belongs to a twin as it is now."""
        word, twin = self._words.get(command_id), self.twins.get(_vehicle_of(command_id))
        if word is None or twin is None or not word.there:
            return False
        created_at = twin[1]
        return not word.ended or word.ended + IDEMPOTENCY_MS >= created_at

    def expects(self, command_id: str, now_ms: int) -> bool:
        """Whether Redis must have an entry at a time: final ones end there by themselves."""
        if not self.has(command_id):
            return False
        ended = self._words[command_id].ended
        return not ended or ended + 1000 * FINAL_TTL_S > now_ms

    def expected(self, now_ms: int) -> Iterator[str]:
        """Ids of all commands that Redis must have."""
        return (command_id for command_id in self._words if self.expects(command_id, now_ms))

    def stray(self, command_id: str) -> bool:
        """Whether nothing speaks for an entry of Redis, if `twins` was read to its end behind it."""
        vehicle_id = _vehicle_of(command_id)
        return not (
            self.has(command_id)
            or command_id in self._open.get(vehicle_id, ())
            or command_id in self.unreadable
            or vehicle_id in self.unreadable
        )

    def _take_twin(self, told: Told, vehicle_id: str, value: bytes | None) -> None:
        told.twins.pop(vehicle_id, None)
        try:
            if value is None:
                self.twins.pop(vehicle_id, None)
                self._open.pop(vehicle_id, None)
            else:
                packed, fields = load(value)
                if fields["vehicle_id"] != vehicle_id:
                    raise Malformed("not this vehicle's")
                self._open.pop(vehicle_id, None)
                if opened := frozenset(fields["commands"]["open"]):
                    self._open[vehicle_id] = opened
                told.twins[vehicle_id] = packed
                self.twins[vehicle_id] = packed.version
        except (Malformed, LookupError, TypeError) as error:
            self._pass_over("no twin document", vehicle_id, error)
        else:
            self.unreadable.discard(vehicle_id)

    def _take_entry(self, told: Told, key: str, value: bytes | None, removed_at: int) -> None:
        """`removed_at`: revision of the twin at which an entry without a value was removed."""
        command_id = key.partition("/")[2]
        if value is None:
            if self._say(command_id, _Word(removed_at, there=False)):
                told.commands.pop(command_id, None)
            return
        try:
            command: Command = orjson.loads(value)
            check_entry(key, command)
        except (WireError, ValueError) as error:
            self._pass_over("no ledger entry", command_id, error)
            return
        ended = command["updated_at"] if command["state"] in FINAL else 0
        if self._say(command_id, _Word(command.get("revision", 0), there=True, ended=ended)):
            told.commands[command_id] = command

    def _say(self, command_id: str, word: _Word) -> bool:
        known = self._words.get(command_id)
        if known is not None and known.revision > word.revision:
            return False
        self._words[command_id] = word
        self.unreadable.discard(command_id)
        return True

    def _pass_over(self, what: str, name: str, error: Exception) -> None:
        self.unreadable.add(name)
        log.error(what, name=name[:160], error=repr(error)[:200])


def _vehicle_of(command_id: str) -> str:
    """As `ids.vehicle_of`, of whatever is found in Redis."""
    return command_id.rpartition(".")[0]
