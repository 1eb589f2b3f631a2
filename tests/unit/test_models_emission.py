"""What is worth a score record."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.emission import EVIDENCE, WHYS, Emission, Policy, score_record, shares
from models.features import FEATURES, SIGNAL_OF
from models.scoring import STATES, Verdict, Verdicts
from tests.models_builders import T0, SpeedModel, telemetry
from twin.wire.records import HealthState

MODEL = SpeedModel(threshold=10.0, chance=0.5)
POLICY = Policy(deadband=0.25, heartbeat_ms=30_000)
ONES = np.ones(len(FEATURES), np.float32)
NaN = math.nan


def _verdict(state: HealthState = "normal", score: float | None = 1.0) -> Verdict:
    return Verdict(0, state, score, ONES, 0.01)


def _why(
    emission: Emission, slot: int, time: int, state: HealthState = "normal", score: float = 1.0
) -> str | None:
    """What the emission makes of one row."""
    one = Verdicts(
        rows=np.zeros(1, np.int64),
        slots=np.array([slot]),
        states=np.array([STATES.index(state)], np.int8),
        opened=np.zeros(1, bool),
        score=np.array([score]),
        probability=np.array([0.01]),
        deviations=ONES[None],
        remaining=np.full((1, 3), NaN, np.float32),
        rounds=[np.zeros(1, np.int64)],
    )
    (code,) = emission.news(MODEL, one, np.array([time]))
    return None if code < 0 else WHYS[code]


def test_the_first_word_about_a_car_is_its_state() -> None:
    """Whatever it is, it is said once, and repeated only for a reason."""
    emission = Emission(POLICY)
    assert _why(emission, 1, T0, "insufficient_data", NaN) == "state"
    assert _why(emission, 1, T0 + 1, "insufficient_data", NaN) is None
    assert _why(emission, 2, T0, "insufficient_data", NaN) == "state"


def test_a_change_of_state_is_said_at_once() -> None:
    """Also when the score hardly moved."""
    emission = Emission(POLICY)
    _why(emission, 1, T0)
    assert _why(emission, 1, T0 + 1, "alarm", 1.01) == "state"


@pytest.mark.parametrize(("score", "why"), [(3.4, None), (3.6, "deadband")])
def test_a_score_is_said_when_it_leaves_the_deadband(score: float, why: str | None) -> None:
    """From 1.0, a quarter of the threshold of 10 is 2.5 away."""
    emission = Emission(POLICY)
    _why(emission, 1, T0, score=1.0)
    assert _why(emission, 1, T0 + 1, score=score) == why


@pytest.mark.parametrize(("score", "why"), [(49.0, None), (51.0, "deadband")])
def test_far_above_the_threshold_the_deadband_grows_with_the_score(
    score: float, why: str | None
) -> None:
    """An alarm at four times the threshold is not said again for noise of a fifth."""
    emission = Emission(POLICY)
    _why(emission, 1, T0, "alarm", 40.0)
    assert _why(emission, 1, T0 + 1, "alarm", score) == why


def test_an_unchanged_score_is_said_again_after_the_heartbeat() -> None:
    """By event time, so that a replay says the same."""
    emission = Emission(POLICY)
    _why(emission, 1, T0)
    assert _why(emission, 1, T0 + 29_999) is None
    assert _why(emission, 1, T0 + 30_000) == "heartbeat"
    assert _why(emission, 1, T0 + 30_001) is None


def test_an_unscored_row_is_news_only_as_a_state() -> None:
    """A car whose rows cannot be scored is not repeated every heartbeat."""
    emission = Emission(POLICY)
    assert _why(emission, 1, T0, "insufficient_data", NaN) == "state"
    assert _why(emission, 1, T0 + 10**6, "insufficient_data", NaN) is None


def test_everything_is_said_on_demand_and_news_stays_news() -> None:
    """Rows that say nothing new are marked so; the heartbeat's clock goes by what was news."""
    emission = Emission(replace(POLICY, every=True))
    assert _why(emission, 1, T0) == "state"
    assert _why(emission, 1, T0 + 29_999) == "every"
    assert _why(emission, 1, T0 + 30_000) == "heartbeat"
    assert _why(emission, 1, T0 + 30_001, "normal", NaN) == "every"


def test_a_slot_that_changes_hands_is_introduced_again() -> None:
    """What was said of the car before is not said of the next."""
    emission = Emission(POLICY)
    for slot in (1, 3):
        _why(emission, slot, T0)
    emission.forget(np.array([1]))
    assert _why(emission, 1, T0 + 1) == "state"
    assert _why(emission, 3, T0 + 1) is None


def test_the_record_names_position_models_and_evidence() -> None:
    """Everything a decision needs is in it, and its id is made of car, offset and version."""
    row = telemetry("car-1", T0)
    record = score_record(
        MODEL, row, _verdict("alarm", 12.345678), "state", partition=3, offset=99, now_ms=T0 + 5
    )
    assert record["id"] == f"car-1:99:{MODEL.version}"
    assert (record["partition"], record["offset"], record["scored_at"]) == (3, 99, T0 + 5)
    assert record["models"]["autoencoder"]["score"] == 12.3457
    assert record["models"]["autoencoder"]["threshold"] == 10.0
    assert record["models"]["lstm"]["horizon_s"] == 86_400


def test_a_model_that_said_nothing_is_not_in_the_record() -> None:
    """While the window fills there is no probability, and none is made up."""
    row = telemetry()
    filling = Verdict(0, "insufficient_data", 1.0, ONES, None)
    record = score_record(MODEL, row, filling, "state", partition=0, offset=0, now_ms=0)
    assert set(record["models"]) == {"autoencoder"}


@given(st.lists(st.floats(0, 50, width=32), min_size=len(FEATURES), max_size=len(FEATURES)))
def test_shares_are_the_strongest_signals_in_order(residuals: list[float]) -> None:
    """At most EVIDENCE signals of the catalogue, falling shares that sum to at most 1."""
    found = shares(np.array(residuals, np.float32))
    values = [item["share"] for item in found]
    assert values == sorted(values, reverse=True)
    assert len(found) <= EVIDENCE
    assert sum(values) <= 1 + 0.001 * EVIDENCE
    assert {item["signal"] for item in found} <= set(SIGNAL_OF.values())


def test_the_signal_behind_the_largest_residual_comes_first() -> None:
    """One feature far out explains the score."""
    residuals = np.full(len(FEATURES), 0.1, np.float32)
    residuals[FEATURES.index("pack_sag")] = 5.0
    assert shares(residuals)[0]["signal"] == SIGNAL_OF["pack_sag"]
    assert shares(residuals)[0]["share"] > 0.95
