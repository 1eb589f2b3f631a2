"""The ledger's entries of this worker's vehicles, with the two look-ups that decisions need.

A final command stays here for the idempotency window (24 h), so that a repeated key finds the same
command; Kafka keeps it 30 days. The indexes are rebuilt from the entries, never stored. Time is
what the owner says (`now_ms`, the arrival of the record in hand), so decisions replay the same.
"""

from collections import deque
from collections.abc import Container, Iterator, Mapping, MutableMapping
from typing import Final

from twin.lifecycle import FINAL
from twin.wire.ids import vehicle_of
from twin.wire.records import Command

IDEMPOTENCY_MS: Final = 86_400_000
MINUTE_MS: Final = 60_000


class Book:
    """Commands by id, by vehicle, and by (vehicle, idempotency key). Wraps the entries by key."""

    def __init__(self, table: MutableMapping[str, Command]) -> None:
        self.now_ms = 0
        self._table = table
        self._of: dict[str, set[str]] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._given: dict[tuple[str, str], dict[str, int]] = {}
        """(who, fleet) -> rule commands of the last minute with their time of issue."""
        self._ended: deque[tuple[int, str]] = deque()
        """When each final entry was last changed; the oldest first."""

    def __len__(self) -> int:
        return len(self._table)

    @property
    def commands(self) -> Mapping[str, Command]:
        """The live entries by `vehicle/command id`."""
        return self._table

    def get(self, command_id: str) -> Command | None:
        """The entry of a command."""
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
        ids = self._of.get(vehicle_id, ())
        return [self._table[f"{vehicle_id}/{command_id}"] for command_id in ids]

    def count(self, vehicle_id: str) -> int:
        """How many entries a vehicle has."""
        return len(self._of.get(vehicle_id, ()))

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
        """Write an entry; entries that ended before the window go."""
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
        self._given.get(_giver(command), {}).pop(command_id, None)
        key = command.get("idempotency_key")
        if key is not None and self._keys.get((vehicle_id, key)) == command_id:
            del self._keys[vehicle_id, key]

    def rebuild(self, owned: Container[str]) -> None:
        """Make the indexes anew from the table, dropping entries of vehicles that are not owned."""
        for key in [key for key in self._table if key.partition("/")[0] not in owned]:
            del self._table[key]
        self._of.clear()
        self._keys.clear()
        self._ended.clear()
        self._given.clear()
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
            self._ended.append((command["updated_at"], command["id"]))

    def _prune(self) -> None:
        while self._ended and self._ended[0][0] + IDEMPOTENCY_MS < self.now_ms:
            changed_at, command_id = self._ended.popleft()
            command = self.get(command_id)
            if command is not None and command["updated_at"] == changed_at:
                self.remove(command_id)


def _giver(command: Command) -> tuple[str, str]:
    return command["by"], command.get("fleet", "")
