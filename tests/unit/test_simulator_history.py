"""The simulated past."""

import numpy as np
import pytest

from models.simulator import Ranges, history, history_steps

START = 1_700_000_000_000


def test_length_and_times_are_known_beforehand() -> None:
    """10 component days at 1440 are 600 s: so many blocks, one interval apart, one row per car."""
    assert history_steps(10) == 600
    assert history_steps(1, interval_s=2.0) == 30
    assert history_steps(1, acceleration=1.0, interval_s=10.0) == 8640
    blocks = list(history(5, 1, seed=1, start_ms=START, interval_s=2.0))
    assert [block.event_time for block in blocks] == [START + 2000 * i for i in range(1, 31)]
    assert all(len(values) == 5 for values in blocks[0].rows.values())


def test_truth_closes_with_a_record_per_vehicle() -> None:
    """Every vehicle's last truth is in the last block, and most faults have ended in failure."""
    blocks = list(history(50, 10, seed=1, start_ms=START))
    last = blocks[-1].truth
    assert [truth.vehicle for truth in last] == list(range(50))
    faulty = [truth for truth in last if truth.mode is not None]
    assert len(faulty) == 20
    failed = {truth.vehicle for truth in faulty if truth.health == 0}
    assert 10 <= len(failed) < 20
    told = [truth for block in blocks[:-1] for truth in block.truth]
    assert {truth.vehicle for truth in told if truth.health == 0} == failed
    assert {truth.vehicle for truth in told} == {truth.vehicle for truth in faulty}


def test_same_seed_same_history() -> None:
    """Equal arguments give an equal past."""
    one, two = (list(history(8, 1, seed=5, start_ms=START)) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        assert (a.event_time, a.truth) == (b.event_time, b.truth)
        assert all(np.array_equal(a.rows[name], b.rows[name], equal_nan=True) for name in a.rows)


def test_a_history_says_who_is_parked() -> None:
    """With parking, the cars that do not report have no values, and some come back."""
    ranges = Ranges(trip_s=60.0, off_s=(20.0, 60.0))
    blocks = list(history(40, 8, seed=2, start_ms=START, ranges=ranges, parking=True))
    reports = np.stack([block.reporting for block in blocks])
    speed = np.stack([block.rows["speed"] for block in blocks])
    assert np.isnan(speed[~reports]).all()
    assert np.isnan(speed[reports]).mean() < 0.01
    assert (reports[1:] & ~reports[:-1]).any()


def test_a_history_of_chosen_modes() -> None:
    """Only the modes that are asked for appear, at the asked severity."""
    blocks = history(20, 6, seed=2, start_ms=START, modes=["tyres"], severity=0.5)
    truths = [truth for block in blocks for truth in block.truth if truth.mode is not None]
    assert {(truth.mode, truth.severity) for truth in truths} == {("tyres", 0.5)}


def test_impossible_history_is_refused() -> None:
    """Days, interval and acceleration must be above 0."""
    with pytest.raises(ValueError, match="0 days"):
        history_steps(0)
