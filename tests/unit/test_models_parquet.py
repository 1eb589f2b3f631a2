"""A past as Parquet files: written, read back, and refused where it is not what it should be."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models import parquet
from models.errors import BadFiles, NotEnoughData
from models.features import INPUTS
from models.simulate import Plan, vehicle_id

PLAN = Plan(
    vehicles=7,
    days=1.0,
    seed=3,
    start_ms=1_790_000_000_000,
    interval_s=1.0,
    acceleration=1440.0,
    topic="none",
    dropout=0.05,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A written past: 7 cars, 60 rows each."""
    told = parquet.write(tmp_path / "past", PLAN, "none")
    assert (told["rows"], told["vehicles"]) == (420, 7)
    return tmp_path / "past"


def test_what_is_read_is_what_was_simulated(folder: Path) -> None:
    """Every row of every car in order of arrival, absent signals as NaN, fates by car and session."""
    columns, truth, told = parquet.read(folder, 10**6, "none")
    at = 0
    for block in PLAN.blocks():
        for car in range(PLAN.vehicles):
            assert columns.lives[columns.life[at]] == f"{vehicle_id(car)}/{PLAN.start_ms}"
            assert columns.event_time[at] == block.event_time
            wanted = np.array([block.rows[name][car] for name in INPUTS], np.float32)
            assert np.array_equal(columns.signals[at], wanted, equal_nan=True)
            at += 1
    assert len(columns) == at == 420
    assert np.isnan(columns.signals).any()
    assert not columns.suspect.any()
    last = {t.vehicle: t for block in PLAN.blocks() for t in block.truth}
    assert set(truth.fates) == {f"{vehicle_id(car)}/{PLAN.start_ms}" for car in last}
    assert {f.vehicle_id: f.mode for f in truth.fates.values()} == {
        vehicle_id(car): t.mode for car, t in last.items()
    }
    assert told["rows"] == sum(file["rows"] for file in told["files"].values()) == 420


def test_cars_that_park_send_nothing(tmp_path: Path) -> None:
    """Rows of a parked car are not in the files."""
    told = parquet.write(tmp_path, replace(PLAN, parking=True, days=30.0), "none")
    assert told["rows"] < 7 * 1800
    assert len(parquet.read(tmp_path, 10**6, "none")[0]) == told["rows"]


def test_only_the_last_rows_are_read_on_demand(folder: Path) -> None:
    """Across files, and what was passed over is told."""
    whole, _, _ = parquet.read(folder, 10**6, "none")
    path = next((folder / parquet.TELEMETRY).iterdir())
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 300), path)
    pq.write_table(table.slice(300), path.with_name("part-00001.parquet"))
    columns, _, told = parquet.read(folder, 150, "none")
    assert np.array_equal(columns.event_time, whole.event_time[-150:])
    assert [columns.lives[i] for i in columns.life] == [whole.lives[i] for i in whole.life[-150:]]
    assert (told["rows"], told["skipped"]) == (150, 270)


def test_a_folder_with_files_is_not_written_over(folder: Path) -> None:
    """A second history would be taken for the same cars."""
    with pytest.raises(BadFiles, match="already"):
        parquet.write(folder, PLAN, "none")


def test_rows_of_other_tools_are_read(folder: Path) -> None:
    """Plain strings, 32-bit numbers, doubles, another order of columns, more columns, a suspect mark."""
    path = next((folder / parquet.TELEMETRY).iterdir())
    table = pq.read_table(path)
    before, _, _ = parquet.read(folder, 10**6, "none")
    names = table.column_names[::-1]
    columns = {name: table[name] for name in names}
    columns["vehicle_id"] = columns["vehicle_id"].cast(pa.string())
    columns["speed"] = columns["speed"].cast(pa.float64())
    columns["note"] = pa.array(["x"] * 420)
    columns["suspect"] = pa.array([i % 2 == 0 for i in range(420)])
    pq.write_table(pa.table(columns), path)
    after, _, _ = parquet.read(folder, 10**6, "none")
    assert np.array_equal(after.signals, before.signals, equal_nan=True)
    assert after.lives == before.lives
    assert after.suspect.tolist() == [i % 2 == 0 for i in range(420)]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _emptied(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(0, 0), path)


def _without(name: str) -> Callable[[Path], None]:
    return lambda path: pq.write_table(pq.read_table(path).drop_columns([name]), path)


def _text(path: Path) -> None:
    table = pq.read_table(path)
    at = table.schema.get_field_index("event_time")
    pq.write_table(table.set_column(at, "event_time", pa.array(["soon"] * 420)), path)


def _null(path: Path) -> None:
    table = pq.read_table(path)
    at = table.schema.get_field_index("session")
    values = pa.array([None, *[1] * 419], pa.int64())
    pq.write_table(table.set_column(at, "session", values), path)


@pytest.mark.parametrize(
    ("hurt", "error", "why"),
    [
        (_cut, BadFiles, "no readable Parquet"),
        (_emptied, NotEnoughData, "no row"),
        (_without("speed"), BadFiles, "lacks the columns speed"),
        (_text, BadFiles, "column event_time is string"),
        (_null, BadFiles, "column session has nulls"),
        (Path.unlink, BadFiles, r"no \*\.parquet"),
    ],
)
def test_files_of_another_form_are_named(
    folder: Path, hurt: Callable[[Path], None], error: type[Exception], why: str
) -> None:
    """The file, the column and what is accepted."""
    hurt(next((folder / parquet.TELEMETRY).iterdir()))
    with pytest.raises(error, match=why):
        parquet.read(folder, 10**6, "none")


def test_truth_that_is_no_parquet_is_named(folder: Path) -> None:
    """It is looked at before the telemetry is read."""
    (folder / parquet.TRUTH / "part-00000.parquet").write_bytes(b"no truth")
    with pytest.raises(BadFiles, match=r"truth.*no readable Parquet"):
        parquet.read(folder, 10**6, "none")
