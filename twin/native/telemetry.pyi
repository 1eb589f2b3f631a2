"""Avro of one telemetry record, read in one pass."""

from collections.abc import Sequence
from typing import ClassVar

class Sample:
    """A telemetry record in columns: value i is of signal `names[i]`; int signals have ints.

    `names` is one shared object for all records with the same signals (as long as `shared_names`
    remembers it), so `is` tells most equal ones at once. Times in ms since 1970; `assigned` says that
    the bridge had to make up event_time or sequence; `suspect` names signals whose value is impossible.
    """

    __hash__: ClassVar[None]  # type: ignore[assignment]
    vehicle_id: str
    event_time: int
    session: int
    sequence: int
    assigned: bool
    suspect: tuple[str, ...]
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def values(self) -> tuple[float, ...]: ...
    @property
    def plain(self) -> bool:
        """Read by a `Reader`, its times and numbers not negative, its values finite."""

    def __init__(
        self,
        vehicle_id: str,
        event_time: int,
        session: int,
        sequence: int,
        names: tuple[str, ...],
        values: tuple[float, ...],
        assigned: bool = False,
        suspect: tuple[str, ...] = (),
    ) -> None: ...

class Reader:
    """Reads records of one schema: its signals in order, each float (True) or int."""

    def __init__(self, signals: Sequence[tuple[str, bool]]) -> None: ...
    def read(self, data: bytes, at: int, vehicle_id: str | None = None) -> Sample:
        """The record that begins at byte `at` and ends with `data`.

        `vehicle_id` becomes that of the sample if it is equal. Raises `ValueError`.
        """

def id_of_key(key: bytes) -> str | None:
    """The vehicle id of a record's key; None if it is of other characters or of another length."""

def shared_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """The one object that stands for all equal `names`; memory of a twin is mostly names else."""
