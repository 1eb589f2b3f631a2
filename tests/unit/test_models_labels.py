"""Fates, labels and the split."""

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import NotEnoughData
from models.labels import PARTS, Fate, read_truth, split

BROKEN = Fate("car-1", "cooling", onset=1000, failure=9000, failed=True)


def _record(**other: object) -> bytes:
    return orjson.dumps(
        {
            "vehicle_id": "hist-000001",
            "event_time": 5000,
            "mode": None,
            "onset": None,
            "failure_time": None,
            "health": 1.0,
            "session": 7,
            **other,
        }
    )


def test_rows_within_the_horizon_before_failure_and_behind_it_are_positive() -> None:
    """The label begins one horizon before the failure and does not end with it."""
    times = np.array([4999, 5000, 8999, 9000, 20_000])
    assert BROKEN.label(times, 4000).tolist() == [False, True, True, True, True]


def test_a_healthy_car_has_no_positive_row() -> None:
    """Without a failure time nothing is within the horizon."""
    assert not Fate("car-1").label(np.array([0, 10**15]), 4000).any()


def test_rows_are_healthy_up_to_a_margin_before_the_onset() -> None:
    """The margin keeps a fault's first moments out of what counts as normal."""
    assert BROKEN.healthy(np.array([0, 799, 800, 1000]), 200).tolist() == [True, True, False, False]


def test_the_latest_record_of_a_car_counts_in_any_order() -> None:
    """A later truth replaces an earlier one, whichever arrives first."""
    early = _record(event_time=4000)
    late = _record(mode="battery", onset=4500, failure_time=6000, health=0.0)
    for values in ([early, late], [late, early]):
        fate = read_truth(values).fates["hist-000001/7"]
        assert fate == Fate("hist-000001", "battery", 4500, 6000, failed=True)


def test_the_same_name_in_another_history_is_another_life() -> None:
    """Two sessions of one vehicle id are told apart; an unknown session falls back to the id."""
    truth = read_truth(
        [_record(), _record(session=8, mode="cooling"), _record(vehicle_id="live-1", session=None)]
    )
    assert truth.fates["hist-000001/7"].mode is None
    assert truth.fates["hist-000001/8"].mode == "cooling"
    assert truth.life_of("hist-000001", 8) == "hist-000001/8"
    assert truth.life_of("live-1", 12345) == "live-1"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"[]",
        b"{}",
        b'"x"',
        _record(vehicle_id="a b"),
        _record(event_time="x"),
        _record(health=None),
    ],
)
def test_a_record_that_is_no_truth_is_counted_and_left_out(value: bytes) -> None:
    """Bad records stop nothing."""
    truth = read_truth([value, _record()])
    assert truth.unreadable == 1
    assert list(truth.fates) == ["hist-000001/7"]


@given(st.integers(10, 60), st.integers(10, 60), st.integers(0, 2**31), st.booleans())
def test_no_vehicle_is_in_two_parts(healthy: int, faulty: int, seed: int, twice: bool) -> None:
    """Every vehicle is dealt to exactly one part, also when it lived in two histories."""
    modes = ["cooling", "battery", "air_path"]
    fates = [Fate(f"h-{i}") for i in range(healthy)]
    fates += [Fate(f"f-{i}", modes[i % 3], 1, 2) for i in range(faulty)]
    if twice:
        fates += [Fate("h-0", "cooling", 1, 2)]
    dealt = split(fates, seed)
    parts = [getattr(dealt, part) for part in PARTS]
    assert sum(map(len, parts)) == len(frozenset().union(*parts)) == healthy + faulty


def test_the_split_depends_on_the_seed_alone() -> None:
    """Order of the input does not matter, the seed does."""
    fates = [Fate(f"h-{i}") for i in range(40)] + [
        Fate(f"f-{i}", "cooling", 1, 2) for i in range(40)
    ]
    assert split(fates, 1) == split(fates[::-1], 1)
    assert split(fates, 1) != split(fates, 2)


def test_every_part_gets_its_share_of_every_mode() -> None:
    """Forty cars of each mode put at least one of each into the smallest part."""
    fates = [Fate(f"h-{i}") for i in range(40)]
    fates += [Fate(f"{m}-{i}", m, 1, 2) for m in ("cooling", "battery") for i in range(40)]
    for part in PARTS:
        kinds = {vehicle.split("-")[0] for vehicle in getattr(split(fates, 3), part)}
        assert kinds == {"h", "cooling", "battery"}


def test_too_few_vehicles_are_refused_with_a_sentence() -> None:
    """A part without a faulty car could measure nothing."""
    fates = [Fate(f"h-{i}") for i in range(40)] + [Fate("f-0", "cooling", 1, 2)]
    with pytest.raises(NotEnoughData, match="1 faulty vehicles are too few"):
        split(fates, 1)
