"""A past as Parquet files: written by `simulate --parquet`, trained from by `train --parquet`.

`<folder>/telemetry/*.parquet`: a row a message in order of arrival, file by file in order of name:
vehicle_id, session, event_time (ms), suspect (optional), and a column a signal, null where absent;
signals that models do not use may lie beside them. `<folder>/truth/*.parquet`: a row a car, as the
records of topic `truth` (`simulator.Truth.record`). Reading maps nothing and guesses nothing: a file
that lacks a column, or has it in another type, is named. Imports pyarrow; no TensorFlow here.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models import progress
from models.cache import Columns
from models.errors import BadFiles, NotEnoughData
from models.features import INPUTS
from models.labels import Fate, Truth
from models.simulate import Plan, vehicle_id

TELEMETRY: Final = "telemetry"
TRUTH: Final = "truth"

_NAMES: Final = pa.dictionary(pa.int32(), pa.string())
_KEYS: Final = {"vehicle_id": _NAMES, "session": pa.int64(), "event_time": pa.int64()}
_FATE: Final = {
    "vehicle_id": pa.string(),
    "session": pa.int64(),
    "event_time": pa.int64(),
    "mode": pa.string(),
    "onset": pa.int64(),
    "failure_time": pa.int64(),
    "health": pa.float64(),
}
_FATES: Final = pa.schema(list(_FATE.items()))
_ROWS_A_FILE: Final = 2_000_000
_GROUP: Final = 200_000


def write(folder: Path, plan: Plan, form: progress.Form = "auto") -> dict[str, object]:
    """Simulate into a folder that holds no Parquet yet; rows, vehicles and failures.

    Raises `BadFiles` when there is something already, ValueError for a plan out of range.
    """
    if any(folder.rglob("*.parquet")):
        raise BadFiles(f"{folder} holds Parquet files already; an empty or new folder is accepted")
    for part in (TELEMETRY, TRUTH):
        (folder / part).mkdir(parents=True, exist_ok=True)
    names = pa.array([vehicle_id(car) for car in range(plan.vehicles)])
    fates: dict[int, dict[str, Any]] = {}
    rows = 0
    with progress.steps(f"simulating into {folder}", plan.rows, form) as advance:
        with _Files(folder / TELEMETRY) as files:
            for block in plan.blocks():
                reporting = np.flatnonzero(block.reporting)
                columns = {
                    name: pa.array(values[reporting], pa.float32(), from_pandas=True)
                    for name, values in block.rows.items()
                }
                n = reporting.size
                keys = {
                    "vehicle_id": pa.DictionaryArray.from_arrays(
                        pa.array(reporting, pa.int32()), names
                    ),
                    "session": pa.array(np.full(n, plan.start_ms, np.int64)),
                    "event_time": pa.array(np.full(n, block.event_time, np.int64)),
                }
                files.add(pa.table({**keys, **columns}))
                for truth in block.truth:
                    record = truth.record(vehicle_id(truth.vehicle), plan.start_ms)
                    fates[truth.vehicle] = {**record, "session": plan.start_ms}
                rows += n
                advance(plan.vehicles)
        told = [{name: one[name] for name in _FATE} for one in fates.values()]
        table = pa.Table.from_pylist(told, _FATES)
        pq.write_table(table, folder / TRUTH / "part-00000.parquet")
    failed = sum(one["health"] <= 0 for one in fates.values())
    return {"rows": rows, "vehicles": plan.vehicles, "failures": failed, "folder": str(folder)}


class _Files:
    """Tables gathered into row groups, and these into files of bounded size."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: list[pa.Table] = []
        self._rows = self._written = self._files = 0
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> "_Files":
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._close()

    def add(self, table: pa.Table) -> None:
        self._held.append(table)
        self._rows += table.num_rows
        if self._rows >= _GROUP:
            self._flush()
        if self._written >= _ROWS_A_FILE:
            self._close()

    def _flush(self) -> None:
        if not self._held:
            return
        table = pa.concat_tables(self._held).unify_dictionaries()
        if self._writer is None:
            path = self._folder / f"part-{self._files:05d}.parquet"
            self._writer = pq.ParquetWriter(path, table.schema, compression="zstd")
        self._writer.write_table(table)
        self._written += self._rows
        self._held, self._rows = [], 0

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer, self._written = None, 0
            self._files += 1


def read(
    folder: Path, max_rows: int, form: progress.Form = "auto"
) -> tuple[Columns, Truth, dict[str, Any]]:
    """Telemetry (the last `max_rows`), truth, and what was read: files with rows and sha256.

    Raises `BadFiles`, `NotEnoughData`.
    """
    truth = _truth(folder)
    files = _files(folder / TELEMETRY)
    lengths = [_opened(path).metadata.num_rows for path in files]
    total = sum(lengths)
    if not total:
        raise NotEnoughData(f"{folder / TELEMETRY} holds no row")
    skipped = max(total - max_rows, 0)
    parts: list[tuple[Any, ...]] = []
    lives: dict[str, int] = {}
    with progress.steps(f"reading {folder}", total - skipped, form) as advance:
        for table in _tables(files, skipped):
            parts.append(_columns(table, truth, lives))
            advance(table.num_rows)
    life, event_time, suspect, signals = (np.concatenate(part) for part in zip(*parts, strict=True))
    described = {
        "folder": folder.name,
        "rows": total - skipped,
        "skipped": skipped,
        "files": {
            path.name: {"rows": rows, "sha256": _sha256(path)}
            for path, rows in zip(files, lengths, strict=True)
        },
    }
    return Columns(list(lives), life, event_time, suspect, signals, 0), truth, described


def _columns(table: pa.Table, truth: Truth, lives: dict[str, int]) -> tuple[Any, ...]:
    names = table["vehicle_id"].combine_chunks()
    session = table["session"].to_numpy()
    # A life is looked up once for each car and session, not for each row.
    pairs, inverse = np.unique(
        np.stack([names.indices.to_numpy(), session], axis=1), axis=0, return_inverse=True
    )
    words = names.dictionary.to_pylist()
    numbers = [
        lives.setdefault(truth.life_of(words[car], int(at)), len(lives))
        for car, at in pairs.tolist()
    ]
    rows = table.num_rows
    suspect = np.zeros(rows, bool)
    if "suspect" in table.column_names:
        suspect = pc.fill_null(table["suspect"], pa.scalar(value=True)).to_numpy()
    signals = np.stack([table[name].to_numpy() for name in INPUTS], axis=1)
    life = np.array(numbers, np.int64)[inverse.reshape(-1)]
    return life, table["event_time"].to_numpy(), suspect, signals


def _tables(files: list[Path], skipped: int) -> Iterator[pa.Table]:
    for path in files:
        file = _opened(path)
        kept = [*_KEYS, *INPUTS, *(["suspect"] if "suspect" in file.schema_arrow.names else [])]
        for read in _batches(path, file, kept):
            drop, skipped = min(skipped, read.num_rows), max(skipped - read.num_rows, 0)
            if drop == read.num_rows:
                continue
            table = read.slice(drop)
            for name, kind in _KEYS.items():
                if table[name].null_count:
                    raise BadFiles(f"{path}: column {name} has nulls; none are accepted")
                at = table.schema.get_field_index(name)
                table = table.set_column(at, name, _cast(path, name, table[name], kind))
            yield table


def _batches(path: Path, file: pq.ParquetFile, names: list[str]) -> Iterator[pa.Table]:
    """Signals as float32, NaN where there is none; a page that cannot be read is named."""
    try:
        for batch in file.iter_batches(_GROUP, columns=names):
            table = pa.Table.from_batches([batch])
            for name in INPUTS:
                at = table.schema.get_field_index(name)
                table = table.set_column(at, name, table[name].cast(pa.float32()))
            yield table
    except (OSError, pa.ArrowException) as error:
        raise BadFiles(f"{path} cannot be read to its end ({error!r:.120})") from error


def _cast(path: Path, name: str, values: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    try:
        if kind == _NAMES:
            if not pa.types.is_dictionary(values.type):
                values = values.cast(pa.string()).dictionary_encode()
            return values.cast(kind)
        return values.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise BadFiles(f"{path}: column {name} is {values.type}; {kind} is accepted") from error


def _truth(folder: Path) -> Truth:
    truth = Truth()
    for path in _files(folder / TRUTH):
        file = _opened(path, tuple(_FATE))
        try:
            rows = file.read(columns=list(_FATE)).cast(_FATES).to_pylist()
        except (OSError, pa.ArrowException, ValueError) as error:
            raise BadFiles(f"{path}: no truth can be read from it ({error!r:.160})") from error
        for one in rows:
            if one["vehicle_id"] is None or one["health"] is None:
                raise BadFiles(f"{path}: vehicle_id and health have nulls; none are accepted")
            fate = Fate(
                one["vehicle_id"],
                one["mode"],
                one["onset"],
                one["failure_time"],
                one["health"] <= 0,
            )
            session = one["session"]
            name = fate.vehicle_id if session is None else f"{fate.vehicle_id}/{session}"
            truth.fates[name] = fate
    return truth


def _files(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.parquet"))
    if not found:
        raise BadFiles(
            f"{folder} holds no *.parquet; write a history with:"
            f" python -m models simulate --parquet {folder.parent}"
        )
    return found


def _opened(path: Path, wanted: tuple[str, ...] = (*_KEYS, *INPUTS)) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise BadFiles(f"{path} is no readable Parquet file ({error!r:.120})") from error
    schema = file.schema_arrow
    missing = [name for name in wanted if name not in schema.names]
    if missing:
        raise BadFiles(f"{path} lacks the columns {', '.join(missing)}")
    for name in wanted:
        kind = schema.field(name).type
        if name in INPUTS and not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            raise BadFiles(f"{path}: column {name} is {kind}; numbers are accepted")
    if "suspect" in schema.names and schema.field("suspect").type != pa.bool_():
        raise BadFiles(
            f"{path}: column suspect is {schema.field('suspect').type}; bool is accepted"
        )
    return file


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
