"""The ledger's entries of this worker's vehicles, with the look-ups that decisions need.

A final command stays here for the idempotency window (24 h), so that a repeated key finds the same
command; Kafka keeps it 30 days. One that the car may have and that ended without its word stays for
7 days, the longest time to live, at most LATE_KEPT of a vehicle: a car that was out of reach for days
says then what it did. These do not count as commands of a day. The indexes are rebuilt from the
entries, never stored. Time is what the owner says (`now_ms`, the arrival of the record in hand), and
whatever is past it is gone before anything is looked up, so what is decided does not depend on when
an entry was last written.
"""

from collections.abc import Iterator, Mapping, MutableMapping
from heapq import heappop, heappush
from typing import Final

from twin.lifecycle import CARS_WORD, FINAL, WITHOUT_CAR
from twin.packed import Packed
from twin.wire.ids import vehicle_of
from twin.wire.records import Command

IDEMPOTENCY_MS: Final = 86_400_000
MINUTE_MS: Final = 60_000
LATE_MS: Final = 7 * 86_400_000
LATE_KEPT: Final = 50
"""Of a vehicle, the newest of those that wait for the car's late word; about 3 KB each."""


class Book:
    """Commands by id, by vehicle, and by (vehicle, idempotency key). Wraps the entries by key."""

    def __init__(self, table: MutableMapping[str, Command]) -> None:
        self.now_ms = 0
        self._table = table
        self._of: dict[str, set[str]] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._given: dict[tuple[str, str], dict[str, int]] = {}
        """(who, fleet) -> rule commands of the last minute with their time of issue."""
        self._ended: list[tuple[int, str]] = []
        """Heap: until when each final entry stays as it is."""
        self._late: dict[str, dict[str, None]] = {}
        """Vehicle -> those of its entries that wait for the car's late word, the oldest first."""

    def __len__(self) -> int:
        return len(self._table)

    @property
    def commands(self) -> Mapping[str, Command]:
        """The live entries by `vehicle/command id`."""
        return self._table

    def get(self, command_id: str) -> Command | None:
        """The entry of a command."""
        self._prune()
        return self._entry(command_id)

    def _entry(self, command_id: str) -> Command | None:
        return self._table.get(f"{vehicle_of(command_id)}/{command_id}")

    def by_key(self, vehicle_id: str, idempotency_key: str) -> Command | None:
        """The command that this key made within the last 24 h."""
        command_id = self._keys.get((vehicle_id, idempotency_key))
        command = self.get(command_id) if command_id else None
        if command is None or command["issued_at"] + IDEMPOTENCY_MS < self.now_ms:
            return None
        return command

    def of(self, vehicle_id: str) -> list[Command]:
        """All entries of a vehicle."""
        self._prune()
        ids = self._of.get(vehicle_id, ())
        return [self._table[f"{vehicle_id}/{command_id}"] for command_id in ids]

    def count(self, vehicle_id: str) -> int:
        """How many commands of a vehicle are open or ended within 24 h."""
        self._prune()
        return len(self._of.get(vehicle_id, ())) - len(self._late.get(vehicle_id, ()))

    def recent(self, rule: str, fleet: str, since: int) -> int:
        """How many commands a rule gave to a fleet after `since` (ms), at most a minute ago."""
        given = self._given.get((f"rule:{rule}", fleet))
        if given is None:
            return 0
        for command_id in [i for i, at in given.items() if at + MINUTE_MS < self.now_ms]:
            del given[command_id]
        return sum(at > since for at in given.values())

    def all(self) -> Iterator[Command]:
        """Every entry."""
        return iter(list(self._table.values()))

    def put(self, command: Command) -> None:
        """Write an entry; entries whose time is over go."""
        self._table[f"{command['vehicle_id']}/{command['id']}"] = command
        self._index(command)
        self._prune()

    def remove(self, command_id: str) -> None:
        """Forget an entry."""
        vehicle_id = vehicle_of(command_id)
        command = self._table.pop(f"{vehicle_id}/{command_id}", None)
        if command is None:
            return
        known = self._of.get(vehicle_id, set())
        known.discard(command_id)
        if not known:
            self._of.pop(vehicle_id, None)
        self._leave_late(vehicle_id, command_id)
        self._given.get(_giver(command), {}).pop(command_id, None)
        key = command.get("idempotency_key")
        if key is not None and self._keys.get((vehicle_id, key)) == command_id:
            del self._keys[vehicle_id, key]

    def rebuild(self, owned: Mapping[str, Packed]) -> None:
        """Make the indexes anew from the table; entries of vehicles that are not owned are dropped.

        So are those of a former twin of the vehicle: when it was deleted, what had ended long before
        was not known here any more, and has no tombstone.
        """
        for key in [key for key, command in self._table.items() if not _belongs(command, owned)]:
            del self._table[key]
        for index in (self._of, self._keys, self._given, self._ended, self._late):
            index.clear()
        for command in sorted(self._table.values(), key=lambda c: c["updated_at"]):
            self._index(command)
            self.now_ms = max(self.now_ms, command["updated_at"])
        self._prune()

    def _index(self, command: Command) -> None:
        self._of.setdefault(command["vehicle_id"], set()).add(command["id"])
        key = command.get("idempotency_key")
        if key is not None:
            self._keys[command["vehicle_id"], key] = command["id"]
        if "fleet" in command and command["issued_at"] + MINUTE_MS >= self.now_ms:
            self._given.setdefault(_giver(command), {})[command["id"]] = command["issued_at"]
        if command["state"] in FINAL:
            self._leave_late(command["vehicle_id"], command["id"])
            heappush(self._ended, (command["updated_at"] + IDEMPOTENCY_MS, command["id"]))

    def _leave_late(self, vehicle_id: str, command_id: str) -> None:
        waiting = self._late.get(vehicle_id)
        if waiting is not None:
            waiting.pop(command_id, None)
            if not waiting:
                del self._late[vehicle_id]

    def _prune(self) -> None:
        while self._ended and self._ended[0][0] < self.now_ms:
            until, command_id = heappop(self._ended)
            command = self._entry(command_id)
            if command is None:
                continue
            ended = command["updated_at"]
            if until == ended + IDEMPOTENCY_MS and _may_answer(command):
                self._wait_for_word(command)
            elif until in (ended + IDEMPOTENCY_MS, ended + LATE_MS):
                self.remove(command_id)

    def _wait_for_word(self, command: Command) -> None:
        waiting = self._late.setdefault(command["vehicle_id"], {})
        waiting[command["id"]] = None
        heappush(self._ended, (command["updated_at"] + LATE_MS, command["id"]))
        if len(waiting) > LATE_KEPT:
            self.remove(next(iter(waiting)))


def _may_answer(command: Command) -> bool:
    """Whether the car may have a final command and has not said how it ended."""
    if command["state"] not in WITHOUT_CAR:
        return False
    late = command.get("late")
    if late is not None and late["state"] in CARS_WORD:
        return False
    refused = command.get("refusals", ())
    return any(session not in refused for session in command["attempts"])


def _belongs(command: Command, owned: Mapping[str, Packed]) -> bool:
    twin = owned.get(command["vehicle_id"])
    if twin is None:
        return False
    # As `twin.known` judges: within the window the deleted twin's entries have their tombstones.
    _, created_at, _ = twin.version
    return command["state"] not in FINAL or command["updated_at"] + IDEMPOTENCY_MS >= created_at


def _giver(command: Command) -> tuple[str, str]:
    return command["by"], command.get("fleet", "")
