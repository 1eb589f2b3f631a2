"""A twin as it waits for its next record: numbers in a struct, values and all the rest as JSON."""

from collections.abc import Iterable
from typing import Final

from twin.native.telemetry import Sample
from twin.packed import Standing, Version

NEW: Final = 1
"""All of the record's values are newer."""
LATE: Final = 2
"""None of them is."""
DUPLICATE: Final = 3
"""It is the record that the twin's values are of, at another offset."""
REPEATED: Final = 4
"""It was applied before, by offset (law 2)."""
UNHEARD: Final = -1
"""A `session` whose telemetry does not say that the car was heard: of a presence without `seen`."""
STALE: Final = -2
"""A `session` of a presence that telemetry may end, so no telemetry is plain."""

class Group:
    """Values that came in the same record: event time `t`, session `n`, sequence `s`, offset `o`.

    `suspect` names those of `names` whose value is impossible.
    """

    values: tuple[float, ...]
    t: int
    n: int
    s: int
    o: int
    suspect: tuple[str, ...]
    @property
    def names(self) -> tuple[str, ...]: ...
    def __init__(
        self,
        names: tuple[str, ...],
        values: tuple[float, ...],
        t: int,
        n: int,
        s: int,
        o: int,
        suspect: tuple[str, ...] = (),
    ) -> None: ...
    def copy(self) -> Group:
        """Another one, for a twin of its own."""

def without(groups: Iterable[Group], taken: tuple[str, ...]) -> list[Group]:
    """What is left of groups when a newer record has the signals `taken`."""

class Row:
    """A twin as it is told: what its document and the lists of the view have of it.

    `values`: those of signals by their names, in parts; `seen`: when the car was heard last, ms;
    `text`: the document as the view stores it (`wire.columnar`).
    """

    version: Version
    standing: Standing
    seen: int | None
    values: list[tuple[tuple[str, ...], tuple[float, ...]]]
    document: bytes
    text: bytes

class Packed:
    """One twin. `observe` and `written_by` change it; after anything else it is packed anew.

    Raises `TypeError` or `OverflowError` when a number is none that can be kept and counted on.
    """

    applied: bytes
    """What was applied of other topics, as members of JSON, each with a comma in front."""
    text: bytes
    """Of the document what is between `presence.seen` and the members of `reported`."""
    standing: Standing
    def __init__(
        self,
        numbers: tuple[int, int, int, int, int, int, int, int, int, int],
        applied: bytes,
        text: bytes,
        groups: list[Group],
        standing: Standing,
    ) -> None: ...
    @property
    def numbers(self) -> tuple[int, int, int, int, int, int, int, int, int, int]:
        """epoch, created_at, revision, updated_at | seen, session of the presence | partition, offset
        of the telemetry applied last | late, duplicates. -1: none."""

    @property
    def version(self) -> Version: ...
    @property
    def seen(self) -> int | None:
        """When the car was heard last (ms)."""

    def written_by(self, epoch: int) -> None:
        """It is this owner's state from now on (law 5)."""

    def observe(self, sample: Sample, partition: int, offset: int, at: int) -> int | None:
        """Take telemetry, unless more than values and counts must be looked at.

        `NEW`, `LATE`, `DUPLICATE` or `REPEATED`. None: `apply` must decide; nothing is changed.
        """

    def read_signals(self, data: bytes, at: int) -> bool:
        """Take the signals of a document, of which they are the last part, beginning at byte `at`.

        False if they did not come in one record, or are written in any other way than ours; then
        nothing is changed.
        """

    def groups(self) -> list[Group]:
        """What came in the same record."""

    def row(self, vehicle_id: str) -> Row: ...
    def beginning(self, vehicle_id: str) -> bytes:
        """Of the document what is in front of `text`."""

    def dump(self, vehicle_id: str) -> bytes:
        """The document."""
