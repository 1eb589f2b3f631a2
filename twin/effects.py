"""What a decision brings about beside the new state: the outputs that the shell must carry out.

State and outputs are one decision (design law 3). The pure core fills an `Effects`; the shell makes
the state durable first, then sends these, in the order of the fields.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from twin.wire.errors import CartwinError, WireError
from twin.wire.records import Change, Command, Downlink, RefusalCode, Reply

DeadlineOf = Literal["command", "presence", "desired", "decision"]


class Deadline(NamedTuple):
    """Becomes a `requests` record of kind deadline at `due` (ms); does nothing when outdated.

    `ref` is the command id, the session of the presence, the desired version, or the rule whose
    decision awaits approval (law 6).
    """

    due: int
    vehicle_id: str
    of: DeadlineOf
    ref: str


class Refusal(CartwinError):
    """The owner says no to a request; becomes a `Reply` with this HTTP status and public code.

    `body` holds what the asker needs to go on, such as the current version or state.
    """

    def __init__(
        self, status: int, code: RefusalCode, detail: str, body: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code: RefusalCode = code
        self.detail = detail
        self.body = dict(body or {})


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
    rejected: WireError | None = None
    """Why the record, or a part of it, cannot be accepted: it belongs on `rejected`."""
    late: int = 0
    """Signal values that were not newer than the twin's."""
    duplicate: bool = False
    """A telemetry record that the twin has already, from another offset."""
    repeated: bool = False
    """Applied before, by offset (law 2): nothing else is set."""
    outdated: bool = False
    """The record said nothing new: an old session, a late duplicate, a deadline that is past."""
    changed: bool = False
    """The revision grew."""
    revision: int = 0
    """Of the twin behind this record, when there is anything to tell."""

    @property
    def tells(self) -> bool:
        """Whether there is anything to carry out beside the new document."""
        return bool(
            self.ledger
            or self.removed
            or self.changes
            or self.downlinks
            or self.replies
            or self.deadlines
            or self.rejected is not None
        )
