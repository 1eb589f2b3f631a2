"""Trips of a real car: reading them, dealing them, breaking them; and what a budget is spent on."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from models.carobd import faults, fitting, reader
from models.carobd.evaluation import missed
from models.carobd.features import FEATURES, LAYOUT, REGIMES, SETTLE, TARGETS, compute, ewm
from models.carobd.reader import COLUMNS, SIGNALS, BadDataSet, Trip, column
from models.carobd.report import plot, text
from models.carobd.split import split

RNG = np.random.default_rng(5)
HEADER = ",".join(f"{name} ()" for name in COLUMNS.values())


def _signals(rows: int, start_coolant: float = 85.0) -> np.ndarray:
    """A trip in town: noise around plausible values, the clock running."""
    signals = RNG.normal(20, 2, (rows, len(SIGNALS)))
    column(signals, "run_time")[:] = np.arange(rows) // 2
    column(signals, "rpm")[:] = RNG.normal(1800, 200, rows)
    column(signals, "speed")[:] = RNG.normal(35, 5, rows)
    column(signals, "coolant")[:] = start_coolant + RNG.normal(0, 0.3, rows)
    column(signals, "voltage")[:] = RNG.normal(14.1, 0.05, rows)
    return signals


def _trip(name: str = "drive1", rows: int = 400) -> Trip:
    return Trip(name, name.rstrip("0123456789"), _signals(rows), 0)


def _csv(rows: int, *more: str) -> str:
    lines = [",".join(f"{v:.2f}" for v in row) for row in _signals(rows)]
    return "\n".join([HEADER, *lines, *more])


def test_columns_are_found_by_name_and_a_cut_row_is_dropped() -> None:
    """Whatever their order, with a comma at the end, and the last row cut short."""
    trip = reader.parse("idle12.csv", _csv(30, "1,2,3"))
    assert (trip.name, trip.kind, trip.dropped) == ("idle12", "idle", 1)
    assert trip.signals.shape == (30, len(SIGNALS))
    names = list(COLUMNS.values())[::-1]
    told = [str(n) for n in range(len(names))]
    turned = reader.parse("idle1.csv", "\n".join([",".join(names), ",".join([*told, ""])]))
    assert column(turned.signals, SIGNALS[0])[0] == len(SIGNALS) - 1


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("trip.csv", _csv(3), r"trip\.csv: a name such as idle1\.csv"),
        ("idle1.csv", "", "idle1.csv: column .* is expected"),
        ("idle1.csv", HEADER.replace("ENGINE_RPM", "RPM"), "column ENGINE_RPM is expected"),
        ("idle1.csv", _csv(3, ",".join(["x"] * len(SIGNALS))), "line 5: numbers"),
        ("idle1.csv", _csv(3, ",".join(["nan"] * len(SIGNALS))), "finite numbers"),
        ("idle1.csv", _csv(3, *["1,2"] * 9), "9 of 12 rows are cut short"),
        ("idle1.csv", HEADER, "0 of 0 rows"),
    ],
)
def test_damaged_trips_are_named(name: str, content: str, why: str) -> None:
    """File, line, and what is expected there."""
    with pytest.raises(BadDataSet, match=why):
        reader.parse(name, content)


def test_an_archive_reads_as_its_folder(tmp_path: Path) -> None:
    """The same trips, by kind and number; what is no trip is left out."""
    (tmp_path / "obdiidata").mkdir()
    for name in ("idle10.csv", "idle9.csv", "drive2.csv"):
        (tmp_path / "obdiidata" / name).write_text(_csv(5))
    there = [trip.name for trip in reader.read(tmp_path)]
    assert there == ["drive2", "idle9", "idle10"]
    packed = tmp_path / "packed"
    packed.mkdir()
    with tarfile.open(packed / reader.ARCHIVE, "w:xz") as tar:
        tar.add(tmp_path / "obdiidata", "obdiidata")
        tar.addfile(tarfile.TarInfo("obdiidata/README"), io.BytesIO())
    assert [trip.name for trip in reader.read(packed)] == there


def test_a_missing_or_cut_archive_is_named(tmp_path: Path) -> None:
    """Before anything is trained."""
    with pytest.raises(BadDataSet, match="no such folder"):
        reader.read(tmp_path / "none")
    with pytest.raises(BadDataSet, match="no trip found"):
        reader.read(tmp_path)
    (tmp_path / reader.ARCHIVE).write_bytes(b"\xfd7zXZ\x00 cut")
    with pytest.raises(BadDataSet, match=r"not a whole tar\.xz"):
        reader.read(tmp_path)


def test_the_test_trips_are_the_same_for_every_seed_and_in_no_other_part() -> None:
    """A seed deals only what is known; every trip is in one part."""
    trips = [_trip(f"{kind}{n}", 3) for kind in ("drive", "idle") for n in range(20)]
    dealt = [split(trips, seed) for seed in (1, 2)]
    names = [[{t.name for t in part} for part in (d.train, d.calibrate, d.test)] for d in dealt]
    assert names[0][2] == names[1][2]
    assert names[0][0] != names[1][0]
    assert sum(map(len, names[0])) == len(set().union(*names[0])) == 40
    shuffled = split(trips[::-1], 1)
    assert {t.name for t in shuffled.train} == names[0][0]


@pytest.mark.parametrize(
    ("name", "signal", "first", "later"),
    [
        ("coolant stuck at 40 C", "coolant", None, None),
        ("coolant drift 2 C/min", "coolant", 0.0, 2.0),
        ("lean trims +8/+4 %", "long_trim", 8.0, 8.0),
        ("lean trims +8/+4 %", "short_trim", 4.0, 4.0),
        ("alternator -1.5 V", "voltage", -1.5, -1.5),
        ("coolant +15 C", "coolant", 15.0, 15.0),
    ],
)
def test_a_fault_is_what_its_name_says(
    name: str, signal: str, first: float | None, later: float | None
) -> None:
    """From its first row on, nothing before, nothing else; `later` a minute of rows after it."""
    fault = next(fault for fault in faults.FAULTS if fault.name == name)
    trip = _trip()
    broken = faults.inject(trip.signals, fault, 100)
    assert np.array_equal(broken[:100], trip.signals[:100])
    moved = column(broken, signal) - column(trip.signals, signal)
    if first is None:
        assert set(column(broken, signal)[100:]) == {40.0}
    else:
        assert moved[100] == pytest.approx(first)
        assert moved[160] == pytest.approx(later)
    touched = np.flatnonzero((broken != trip.signals).any(axis=0))
    assert SIGNALS.index(signal) in touched
    assert len(touched) == (2 if "trims" in name else 1)


def test_a_fault_begins_where_it_can_be_found() -> None:
    """In the first half of the warm part; a trip that hardly is warm gets none."""
    trip = _trip(rows=700)
    column(trip.signals, "coolant")[:200] = 30.0
    onsets = [faults.onset(trip.signals, np.random.default_rng(seed)) for seed in range(50)]
    assert all(at is not None and 200 <= at < 450 for at in onsets)
    column(trip.signals, "coolant")[: 700 - faults.SHORTEST + 1] = 30.0
    assert faults.onset(trip.signals, RNG) is None


def test_a_row_never_knows_what_came_after_it() -> None:
    """Features of a trip that is cut off are the first rows of the whole trip's."""
    trip = _trip()
    whole = compute(trip.signals)
    for cut in (1, SETTLE + 5, 250):
        part = compute(trip.signals[:cut])
        assert np.array_equal(part.features, whole.features[:cut])
        assert np.array_equal(part.valid, whole.valid[:cut])


def test_rows_of_a_standing_engine_or_without_a_number_are_not_judged() -> None:
    """Means take in nothing of them, and a trip that never runs gives no valid row."""
    trip = _trip()
    hurt = trip.signals.copy()
    hurt[150:160] = np.nan
    rows = compute(hurt)
    assert not rows.valid[150:160].any()
    assert np.isfinite(rows.features).all()
    kept = np.r_[0:150, 160:400]
    assert np.array_equal(rows.features[kept], compute(trip.signals[kept]).features)
    column(hurt, "rpm")[:] = 0
    assert not compute(hurt).valid.any()


def test_what_is_rebuilt_is_hidden_with_all_that_was_made_of_it() -> None:
    """No target sees itself, and every regime stays visible."""
    for hides, (target, feature) in zip(LAYOUT.hides, TARGETS.items(), strict=True):
        hidden = {name for name, hid in zip(FEATURES, hides, strict=True) if hid}
        assert feature in hidden
        assert not hidden.intersection(REGIMES)
        if target.startswith("fuel_trim"):
            assert {"long_trim_10", "short_trim_10", "trim_10", "trim_100"} <= hidden


def test_an_exponential_mean_begins_at_the_first_value() -> None:
    """And forgets as it says."""
    assert ewm(np.full(5, 3.0), 10).tolist() == pytest.approx([3.0] * 5)
    step = ewm(np.r_[0.0, np.ones(10)], 10)
    assert step[-1] == pytest.approx(1 - np.exp(-1))
    assert ewm(np.array([1.0, 5.0]), 0).tolist() == [1.0, 5.0]


def test_the_budget_is_spent_on_the_healthy_trips_and_no_more() -> None:
    """With scales from healthy residuals, their alarms are what the budget allows; without any, none."""
    rng = np.random.default_rng(1)
    residuals = [np.abs(rng.normal(size=(2000, 3))) * [1, 5, 0.1] for _ in range(30)]
    regimes = [rng.integers(0, len(REGIMES), 2000) for _ in range(30)]
    hours = 30 * 2000 / 3600
    for budget in (0.0, 0.5):
        found = fitting.scales(residuals, regimes, budget)
        assert found.shape == (len(REGIMES), 3)
        over = [
            fitting.alarm_level((r / found[g]).max(axis=1), fitting.DEBOUNCE.k, fitting.DEBOUNCE.n)
            > 1
            for r, g in zip(residuals, regimes, strict=True)
        ]
        assert sum(over) <= budget * hours
    # A signal with five times the noise gets about five times the room.
    assert np.median(found[:, 1] / found[:, 0]) == pytest.approx(5, rel=0.3)


def _summary(found: float, false: float) -> dict[str, object]:
    share = {"mean": found, "least": found - 0.1, "most": found}
    by = {f.name: {"trips": 9, "found": share, "delay_rows": 12.0} for f in faults.FAULTS}
    return {"autoencoder": {"false_per_hour": {"mean": false, "least": 0, "most": 1}, "faults": by}}


def test_the_report_says_what_was_missed(tmp_path: Path) -> None:
    """A figure below what is wanted, and more false alarms than allowed, a sentence each."""
    assert missed(_summary(1.0, 0.35)) == []
    told = missed(_summary(0.9, 0.5))
    assert [line.split(":")[0] for line in told] == [
        "coolant stuck at 40 C",
        "lean trims +8/+4 %",
        "alternator -1.5 V",
        "0.50 false alarms an hour, 0.35 are allowed",
    ]
    table = text(_summary(0.9, 0.5))
    assert "90% (80%-90%), 12 rows" in table
    assert table.splitlines()[-1].endswith("| 0.50 |")
    plot(_summary(0.9, 0.5), tmp_path / "carobd.png")
    assert (tmp_path / "carobd.png").read_bytes().startswith(b"\x89PNG")


def test_a_trip_s_clock_is_the_car_s() -> None:
    """Two rows a second of it; a restart of the clock takes no time."""
    trip = _trip(rows=401)
    assert trip.clock_s == 200.0
    column(trip.signals, "run_time")[300:] -= 150
    assert trip.clock_s == 199.0
