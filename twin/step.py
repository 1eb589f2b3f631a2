"""One record being applied to one twin: what every stage gets, changes and fills.

    apply -> Step -> presence | desired | ledger | health | decide -> Effects

A stage reads `twin`, replaces parts of it and tells what it did through the methods here. Ids are made
of the record's place in the log (`source`), so they are the same on replay and no other's ever.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from twin import causes
from twin.effects import Deadline, DeadlineOf, Effects, Refusal
from twin.policy import Policy
from twin.state import DAY_MS, Limits, size
from twin.wire.records import Cause, Change, Command, Downlink, DownlinkKind, Position, Twin


@dataclass(frozen=True, slots=True)
class Context:
    """Settings of the decision core: equal for all twins of a deployment. Times in ms."""

    policy: Policy = field(default_factory=Policy)
    limits: Limits = field(default_factory=Limits)
    stale_after_ms: int = 120_000
    """Online without new telemetry for this long is stale."""
    debounce_ms: int = 5000
    """An offline is told when it has lasted this long (`twin.presence`)."""
    overdue_after_ms: int = 60_000
    """A command that was sent, without a further word of the car for this long, is overdue."""
    desired_ttl_ms: int = 7 * DAY_MS
    """A desired property that is not confirmed for this long shows as expired."""
    auto_create: bool = True
    """A vehicle's first message makes its twin; otherwise only PUT attributes does."""
    partitions: int = 1
    """Of the topics about vehicles: each gets its share of what is capped per fleet."""


class Ledger(Protocol):
    """The command entries of the shell, as they are after all records before this one.

    Asked only for ids that `ids.vehicle_of` accepts. Entries are never changed in place.
    """

    def get(self, command_id: str, /) -> Command | None:
        """The entry of a command."""
        ...

    def by_key(self, vehicle_id: str, idempotency_key: str, /) -> Command | None:
        """The command that a request with this key made."""
        ...

    def of(self, vehicle_id: str, /) -> Iterable[Command]:
        """All entries of a vehicle."""
        ...

    def count(self, vehicle_id: str, /) -> int:
        """How many entries a vehicle has: all open ones and those that ended within 24 h."""
        ...

    def recent(self, rule: str, fleet: str, since: int, /) -> int:
        """How many commands `rule` gave to vehicles of `fleet` after `since` (ms, by `issued_at`),
        on the partition of the record in hand. Answers for the last minute."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A command to be opened: asked by somebody (`by`) or by a rule (then `cause` is set)."""

    id: str
    name: str
    args: Mapping[str, Any]
    lane: str
    ttl_ms: int
    by: str
    cause: Cause | None = None
    fleet: str | None = None
    idempotency_key: str | None = None
    body_hash: str | None = None


@dataclass(slots=True)
class Step:
    """One record (`why`, arrived `at` ms) being applied to `twin`."""

    twin: Twin
    ledger: Ledger
    why: Position
    at: int
    context: Context
    effects: Effects
    touched: dict[str, Command] = field(default_factory=dict)
    """Ledger entries that this record made or replaced."""

    @property
    def vehicle_id(self) -> str:
        return self.twin["vehicle_id"]

    @property
    def revision(self) -> int:
        """The twin's revision if this record changes anything."""
        return self.twin["revision"] + 1

    @property
    def online(self) -> bool:
        return self.twin["presence"]["state"] == "online"

    def change(
        self,
        kind: str,
        what: dict[str, Any],
        *,
        rule: str | None = None,
        why: Position | None = None,
    ) -> None:
        """Tell a semantic change. `what` must not be changed afterwards.

        `why` is the record in hand, unless an earlier one is told only now.
        """
        changes = self.effects.changes
        change = Change(
            id=f"{self.source}:{len(changes)}",
            vehicle_id=self.vehicle_id,
            revision=self.revision,
            at=self.at,
            kind=kind,
            what=what,
            why=why or self.why,
        )
        if rule is not None:
            change["rule"] = rule
        changes.append(change)
        self.effects.changed = True

    @property
    def source(self) -> str:
        """What ids of the outputs begin with: the record in hand, which no other record is.

        A record is applied once (law 2, also when the twin was deleted in between), and whoever applies
        it again after a kill finds it at the same place. Revisions would not do: a twin that is made
        again counts them from 1. `created_at`: offsets begin anew when a topic is made anew.
        """
        topic, partition, offset = self.why["topic"], self.why["partition"], self.why["offset"]
        return f"{self.vehicle_id}:{self.twin['created_at']}:{topic}/{partition}/{offset}"

    @property
    def place(self) -> str:
        """The record in hand, as `causes` name it."""
        return causes.place(self.why)

    def because(self, *paths: str) -> None:
        """The parts at these JSON pointers come from the record in hand, whole."""
        known = self.twin.get("causes", {})
        self.twin["causes"] = causes.whole(known, paths, self.place)

    def fit(self, parts: dict[str, Any]) -> None:
        """Refuse parts that would make the document longer than its limit, and longer than it is.

        Asked for what people, cars and models put into a twin. What the twin keeps by itself
        (commands, decisions, bookkeeping) is bounded by other limits and may stand above it.
        """
        changed: Any = {**self.twin, **parts}
        length, most = size(changed), self.context.limits.document_bytes
        if length > most and length > size(self.twin):
            raise Refusal(
                413,
                "document_too_large",
                f"the twin document would be {length} bytes; at most {most} are accepted",
            )

    def command(self, command_id: str) -> Command | None:
        """The entry of a command of this vehicle as this record leaves it so far."""
        return self.touched.get(command_id) or self.ledger.get(command_id)

    def put(self, command: Command) -> None:
        """Write a ledger entry."""
        self.touched[command["id"]] = command
        self.effects.changed = True

    def send(
        self,
        kind: DownlinkKind,
        ref: str,
        payload: dict[str, Any],
        expires_at: int | None = None,
    ) -> None:
        """To the car, which must be online, or (`forget`) to its broker.

        The id is new per record and the same on replay.
        """
        presence = self.twin["presence"]
        downlink = Downlink(
            id=f"{self.source}:{kind}:{ref}",
            kind=kind,
            vehicle_id=self.vehicle_id,
            ref=ref,
            shard=presence["shard"],
            session=presence["session"],
            payload=payload,
        )
        if expires_at is not None:
            downlink["expires_at"] = expires_at
        self.effects.downlinks.append(downlink)
        self.effects.changed = True

    def arm(self, of: DeadlineOf, ref: str, due: int) -> None:
        """Ask for a deadline record at `due` (ms)."""
        self.effects.deadlines.append(Deadline(due, self.vehicle_id, of, ref))
