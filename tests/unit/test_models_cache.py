"""The log as columns."""

from pathlib import Path

import numpy as np

from models.cache import spool
from models.features import INPUTS
from tests.models_builders import T0, telemetry
from twin.wire import codec


def test_columns_hold_what_the_records_said(tmp_path: Path) -> None:
    """Order, lives, times and present values survive; an absent signal is NaN, a bad record no row."""
    rows = [
        telemetry("car-1", T0, 3.5),
        telemetry("car-2", T0 + 5, 4.5),
        telemetry("car-1", T0 + 9, 5.5),
    ]
    del rows[1].signals["coolant_temp"]
    rows[2].suspect = ("speed",)
    records = [(codec.encode_telemetry(row), b"") for row in rows]
    columns = spool(tmp_path, 4, [[records[0], (b"poison", b"")], records[1:]], lambda v, _s: v)
    assert columns.unreadable == 1
    assert [columns.lives[i] for i in columns.life] == ["car-1", "car-2", "car-1"]
    assert columns.event_time.tolist() == [T0, T0 + 5, T0 + 9]
    assert columns.suspect.tolist() == [False, False, True]
    assert columns.signals[:, INPUTS.index("speed")].tolist() == [3.5, 4.5, 5.5]
    assert np.isnan(columns.signals[:, INPUTS.index("coolant_temp")]).tolist() == [
        False,
        True,
        False,
    ]


def test_a_selection_keeps_the_numbers_of_lives(tmp_path: Path) -> None:
    """A part of the rows is told by the same lives."""
    records = [(codec.encode_telemetry(telemetry(f"car-{i}", T0 + i)), b"") for i in range(4)]
    columns = spool(tmp_path, 4, [records], lambda v, _s: v)
    part = columns.only(np.array([False, True, False, True]))
    assert [part.lives[i] for i in part.life] == ["car-1", "car-3"]
    assert len(part) == 2
