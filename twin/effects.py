"""What a decision brings about beside the new state: the outputs that the shell must carry out.

State and outputs are one decision (design law 3). The pure core fills an `Effects`; the shell makes
the state durable first, then sends these, in the order of the fields.
"""

from dataclasses import dataclass, field

from twin.wire.records import Change, Command, Downlink, Reply


@dataclass(frozen=True, slots=True)
class Deadline:
    """Becomes a `requests` record of kind deadline at `due` (ms); does nothing when outdated (law 6)."""

    due: int
    vehicle_id: str
    of: str
    ref: str


@dataclass(slots=True)
class Effects:
    """Outputs of one applied record."""

    ledger: list[Command] = field(default_factory=list)
    """Commands whose ledger entry is new or changed."""
    removed: list[str] = field(default_factory=list)
    """Ids of commands to remove from the ledger (twin deleted)."""
    changes: list[Change] = field(default_factory=list)
    downlinks: list[Downlink] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    deadlines: list[Deadline] = field(default_factory=list)
