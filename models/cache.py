"""The log's telemetry as columns on disk: read once from Kafka, trained on as often as needed.

The number of rows is known before the first is read (`log.Stretch.rows`), so the columns are files of
fixed size, mapped into memory: a log larger than the memory is no special case. Signals are float32
as on the wire, NaN where absent; only what `features.INPUTS` names is kept.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.features import INPUTS
from twin.wire import codec
from twin.wire.errors import WireError


@dataclass(frozen=True, slots=True)
class Columns:
    """Telemetry rows in order of arrival; `lives[life[i]]` is the life of row i (`models.labels`)."""

    lives: list[str]
    life: NDArray[np.int64]
    event_time: NDArray[np.int64]
    suspect: NDArray[np.bool_]
    signals: NDArray[np.float32]
    unreadable: int
    """Records that are no telemetry; they have no row."""

    def __len__(self) -> int:
        return int(self.life.size)

    def only(self, rows: NDArray[np.bool_]) -> "Columns":
        """These rows alone, in memory; lives keep their numbers."""
        return Columns(
            self.lives,
            self.life[rows],
            self.event_time[rows],
            self.suspect[rows],
            self.signals[rows],
            self.unreadable,
        )


def spool(
    folder: Path,
    rows: int,
    batches: Iterable[list[tuple[bytes, bytes]]],
    life_of: Callable[[str, int], str],
) -> Columns:
    """Write at most `rows` telemetry records (value, key) as columns into `folder`.

    `life_of` names the life of a vehicle id and session.
    """

    def column(name: str, kind: Any, *shape: int) -> Any:
        return np.memmap(folder / name, kind, "w+", shape=(rows, *shape))

    life = column("life", np.int64)
    event_time = column("event_time", np.int64)
    suspect = column("suspect", np.bool_)
    signals = column("signals", np.float32, len(INPUTS))
    numbers: dict[str, int] = {}
    n = 0
    unreadable = 0
    for batch in batches:
        for value, _key in batch:
            try:
                row = codec.decode_telemetry(value)
            except WireError:
                unreadable += 1
                continue
            life[n] = numbers.setdefault(life_of(row.vehicle_id, row.session), len(numbers))
            event_time[n] = row.event_time
            suspect[n] = bool(row.suspect)
            signals[n] = [row.signals.get(name, np.nan) for name in INPUTS]
            n += 1
    return Columns(list(numbers), life[:n], event_time[:n], suspect[:n], signals[:n], unreadable)
