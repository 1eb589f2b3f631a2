"""The log as columns."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from models.cache import KEPT, Columns, keep, known, name_of, spool
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


def _kept(caches: Path, name: str, count: int = 4) -> Columns:
    records = [(codec.encode_telemetry(telemetry(f"car-{i}", T0 + i)), b"") for i in range(count)]
    return keep(caches, name, count + 1, [[(b"poison", b""), *records]], lambda v, _s: v)


def test_a_finished_cache_is_found_again(tmp_path: Path) -> None:
    """The same rows by the same name; nothing by another."""
    made = _kept(tmp_path, "a")
    found = known(tmp_path, "a")
    assert found is not None
    assert (found.lives, found.unreadable, len(found)) == (made.lives, 1, 4)
    assert np.array_equal(found.signals, made.signals, equal_nan=True)
    assert found.event_time.tolist() == made.event_time.tolist()
    assert known(tmp_path, "b") is None


def test_a_reading_that_breaks_off_leaves_no_cache(tmp_path: Path) -> None:
    """Neither under the name nor as a draft."""

    def broken() -> Iterator[list[tuple[bytes, bytes]]]:
        yield [(codec.encode_telemetry(telemetry()), b"")]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep(tmp_path, "a", 2, broken(), lambda v, _s: v)
    assert known(tmp_path, "a") is None
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_lost_bytes_is_read_again(tmp_path: Path) -> None:
    """It is no cache, and the next one takes its place."""
    _kept(tmp_path, "a")
    (tmp_path / "a" / "signals").write_bytes(b"")
    assert known(tmp_path, "a") is None
    assert len(_kept(tmp_path, "a")) == 4
    assert known(tmp_path, "a") is not None


def test_only_the_newest_caches_stay(tmp_path: Path) -> None:
    """And what a run has mapped stays readable to it."""
    first = _kept(tmp_path, "0")
    for number in range(1, KEPT + 1):
        _kept(tmp_path, str(number))
        os.utime(tmp_path / str(number), (number, number))
        os.utime(tmp_path / "0", (0, 0)) if (tmp_path / "0").exists() else None
    assert known(tmp_path, "0") is None
    assert known(tmp_path, str(KEPT)) is not None
    assert first.signals[:, INPUTS.index("speed")].tolist() == [0.0] * 4


def test_what_was_read_makes_the_name() -> None:
    """Other offsets, another topic of the same name: another cache."""
    one = {"topic": "history", "topic_id": "x", "ranges": [[0, 0, 5]]}
    assert name_of(one) == name_of(dict(one))
    assert len({name_of(o) for o in (one, {**one, "topic_id": "y"}, {**one, "ranges": []})}) == 3
