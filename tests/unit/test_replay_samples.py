"""The samples of both recorded formats say what the real files say, in their columns."""

import csv
from pathlib import Path

import pytest

from twin.client import replay_plan
from twin.client.replay_plan import Plan, Suspicion
from twin.client.replay_rows import DEFAULT_START_MS, merged
from twin.client.replay_source import sources
from twin.wire.columns import CAR_OBD

FIXTURES = Path(__file__).parents[1] / "fixtures"
DEMO_SIGNALS = (FIXTURES / "telemetry" / "demo_signals.txt").read_text().split()


def plan(name: str) -> Plan:
    with sources(FIXTURES / "replay" / name) as found:
        return replay_plan.make(found, DEFAULT_START_MS, "warn")


def header(path: Path) -> list[str]:
    with path.open(newline="") as lines:
        return next(csv.reader(lines))


def test_the_sample_of_cars_carries_all_18_signals_of_the_demo():
    """Its header is that of the seed file, and every signal reaches a twin."""
    assert header(FIXTURES / "replay/cars.csv") == ["time", "car", *DEMO_SIGNALS]
    made = plan("cars.csv")
    assert (made.rows, len(made.vehicles), made.ignored) == (48, 4, ())
    for vehicle in made.vehicles.values():
        assert list(vehicle.expected()) == DEMO_SIGNALS


def test_the_sample_of_cars_has_impossible_values_and_blank_cells():
    """What the seed file is known for is in the sample, too."""
    made = plan("cars.csv")
    assert made.suspect == 5
    assert made.by_signal == {
        "battery_percentage": Suspicion(3, -0.75),
        "coolant_temp": Suspicion(2, 240.5),
    }
    # The last row of car 3 has no speed: the one before counts.
    rows = [row for row in (FIXTURES / "replay/cars.csv").read_text().split() if "sample3" in row]
    speeds = [row.split(",")[8] for row in rows]
    assert speeds[-1] == ""
    assert made.vehicles["sample3"].expected()["speed"] == pytest.approx(float(speeds[-2]))


def test_the_samples_of_carobd_are_ragged_trips():
    """Two trips; the second loses columns, ends in a cut row, and a blank line is no row."""
    made = plan("carobd")
    trips = {name: vehicle.rows for name, vehicle in made.vehicles.items()}
    assert trips == {"etios-sample1": 60, "etios-sample2": 40}
    assert len(made.ignored) == 10
    assert made.suspect == 0
    signals = {column.signal for column in CAR_OBD.columns.values()}
    for vehicle in made.vehicles.values():
        assert set(vehicle.expected()) == signals
    rows = [row for row, _ in merged(made.recordings, 0, pytest.fail)]
    present = [len(row.signals) for row in rows if row.vehicle_id == "etios-sample2"]
    assert present == [17] * 39 + [6]


def test_the_samples_have_the_headers_of_the_real_files(shared_folder: Path):
    """All 27 columns as carOBD spells them; the seed file's own header where it is at hand."""
    headers = [header(path) for path in sorted((FIXTURES / "replay/carobd").iterdir())]
    assert [len(set(columns)) for columns in headers] == [27, 27]
    assert headers[0] == headers[1]
    real = shared_folder / "data/seed-cars/car-sensor-data.csv"
    if real.exists():
        assert header(FIXTURES / "replay/cars.csv") == header(real)
