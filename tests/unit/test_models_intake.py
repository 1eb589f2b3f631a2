"""Records to rows, or passed over."""

import numpy as np
import pytest

from models.features import signal_matrix
from models.intake import at_home, matrix, read
from tests.models_builders import T0, telemetry
from twin.wire import codec
from twin.wire.partition import partition_of

GOOD = codec.encode_telemetry(telemetry("car-1", T0))


def test_rows_keep_order_and_place() -> None:
    """Rows come out as they lay in the log, each with its place among the records."""
    other = codec.encode_telemetry(telemetry("car-2", T0 + 1))
    rows = read([b"car-1", b"?", b"car-2"], [GOOD, GOOD, other])
    assert (rows.ids(), rows.places.tolist()) == (["car-1", "car-2"], [0, 2])
    assert rows.batch().event_times.tolist() == [T0, T0 + 1]


def test_suspect_rows_are_not_usable() -> None:
    """The uplink's doubt reaches the models."""
    doubtful = telemetry("car-1", T0)
    doubtful.suspect = ("speed",)
    rows = read([b"car-1"] * 2, [GOOD, codec.encode_telemetry(doubtful)])
    assert rows.batch().usable.tolist() == [True, False]


def test_columns_hold_what_each_row_has() -> None:
    """Rows of different cars with different signals: each value in its column, NaN where none is."""
    full, few = telemetry("car-1", T0, 7.0), telemetry("car-2", T0)
    few.signals = {"tire_pressure_1_1": 32, "speed": 3.5}
    none = telemetry("car-3", T0)
    none.signals = {"tire_pressure_1_1": 30}
    two = telemetry("car-4", T0)
    two.signals = {"speed": 2.5, "coolant_temp": 80.0}
    made = [full, few, none, two, full]
    rows = read(
        [row.vehicle_id.encode() for row in made], [codec.encode_telemetry(row) for row in made]
    )
    expected = signal_matrix([row.signals for row in made]).astype(np.float32)
    assert np.array_equal(matrix(rows.samples).astype(np.float32), expected, equal_nan=True)


@pytest.mark.parametrize("known", [True, False])
def test_a_row_on_another_partition_is_not_at_home(known: bool) -> None:
    """Its car's window is elsewhere; whether the car is known here makes no difference."""
    ids = [f"car-{i}" for i in range(40)]
    right = np.array([partition_of(one.encode(), 4) for one in ids])
    lies = right.copy()
    lies[::5] = (lies[::5] + 1) % 4
    homes = right if known else np.full(40, -1)
    assert at_home(ids, lies, homes, 4).tolist() == (lies == right).tolist()


def _impossible(**fields: object) -> bytes:
    row = telemetry("car-1", T0)
    for name, value in fields.items():
        setattr(row, name, value)
    return codec.encode_telemetry(row)


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b"\xff\x00poison", b"car-1"),
        (GOOD[:-3], b"car-1"),
        (None, b"car-1"),
        (b"\x00\x00\x00\x00\x63abc", b"car-1"),
        (GOOD, b"car-2"),
        (GOOD, None),
        (_impossible(vehicle_id="sensor"), b"sensor"),
        (_impossible(vehicle_id="a/b"), b"a/b"),
        (_impossible(vehicle_id=""), b""),
        (_impossible(event_time=-1), b"car-1"),
        (_impossible(session=-1), b"car-1"),
        (_impossible(sequence=-1), b"car-1"),
        (_impossible(signals={"speed": float("nan")}), b"car-1"),
        (_impossible(signals={"speed": 1.0, "coolant_temp": float("-inf")}), b"car-1"),
    ],
)
def test_a_bad_record_is_passed_over_and_the_rest_is_read(
    value: bytes | None, key: bytes | None
) -> None:
    """What the worker would set aside is no row, and the good ones around it are."""
    rows = read([b"car-1", key, b"car-1"], [GOOD, value, GOOD])
    assert rows.places.tolist() == [0, 2]
