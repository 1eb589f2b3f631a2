"""The log's telemetry as columns on disk: read once from Kafka, trained on as often as needed.

The number of rows is known before the first is read (`log.Stretch.rows`), so the columns are files of
fixed size, mapped into memory while they are read. Training computes features and windows of all of it
in memory, which `--max-rows` bounds. A finished cache is
kept under a name made of what was read, and the next run over the same offsets begins there. Signals
are float32 as on the wire, NaN where absent; only what `features.INPUTS` names is kept.
"""

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from models.features import INPUTS
from twin.wire import codec
from twin.wire.errors import WireError

KEPT: Final = 2
"""So many caches are kept; an older one is read from Kafka again."""

_FORMAT: Final = 1
_INDEX: Final = "index.json"
_DRAFT: Final = ".draft-"
_COLUMNS: Final[dict[str, tuple[Any, tuple[int, ...]]]] = {
    "life": (np.int64, ()),
    "event_time": (np.int64, ()),
    "suspect": (np.bool_, ()),
    "signals": (np.float32, (len(INPUTS),)),
}


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


def name_of(what: Any) -> str:
    """The name of a cache of `what` (JSON), as the rows of this program's INPUTS."""
    return hashlib.sha256(orjson.dumps([_FORMAT, what, list(INPUTS)])).hexdigest()[:24]


def known(caches: Path, name: str) -> Columns | None:
    """A finished cache, mapped into memory; None when there is none."""
    folder = caches / name
    try:
        index = orjson.loads((folder / _INDEX).read_bytes())
        rows = index["rows"]
        mapped = {
            name: np.memmap(folder / name, kind, "r", shape=(rows, *shape))
            for name, (kind, shape) in _COLUMNS.items()
        }
    except (OSError, ValueError, KeyError):
        return None
    return Columns(index["lives"], **mapped, unreadable=index["unreadable"])


def keep(
    caches: Path,
    name: str,
    rows: int,
    batches: Iterable[list[tuple[bytes, bytes]]],
    life_of: Callable[[str, int], str],
) -> Columns:
    """Make a cache by `spool`; it gets its name when it is whole. The newest KEPT stay."""
    caches.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=caches))
    try:
        columns = spool(draft, rows, batches, life_of)
        index = {"lives": columns.lives, "rows": len(columns), "unreadable": columns.unreadable}
        # A record that was no telemetry has left its place at the end of each file.
        for name_, (kind, shape) in _COLUMNS.items():
            size = len(columns) * np.dtype(kind).itemsize * math.prod(shape)
            os.truncate(draft / name_, size)
        (draft / _INDEX).write_bytes(orjson.dumps(index))
        shutil.rmtree(caches / name, ignore_errors=True)
        draft.rename(caches / name)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    _prune(caches)
    return columns


def _prune(caches: Path) -> None:
    # What a run has mapped stays readable to it.
    folders = [folder for folder in caches.iterdir() if (folder / _INDEX).exists()]
    for old in sorted(folders, key=lambda folder: folder.stat().st_mtime)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def spool(
    folder: Path,
    rows: int,
    batches: Iterable[list[tuple[bytes, bytes]]],
    life_of: Callable[[str, int], str],
) -> Columns:
    """Write at most `rows` telemetry records (value, key) as columns into `folder`.

    `life_of` names the life of a vehicle id and session.
    """

    life, event_time, suspect, signals = (
        np.memmap(folder / name, kind, "w+", shape=(rows, *shape))
        for name, (kind, shape) in _COLUMNS.items()
    )
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
