"""k of n with hysteresis."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.debounce import Debounce, health

POLICY = Debounce(k=3, n=5, calm=4, release=0.8)
THRESHOLD = 10.0
CALM, BETWEEN, ABOVE = 1.0, 9.0, 11.0
rows = st.lists(st.sampled_from([CALM, BETWEEN, ABOVE]), max_size=60)


def _run(values: list[float], policy: Debounce = POLICY) -> list[bool]:
    state = policy.start()
    alarms = []
    for value in values:
        state.push(value, THRESHOLD)
        alarms.append(state.alarm)
    return alarms


@given(rows)
def test_an_alarm_opens_only_after_k_of_the_last_n(values: list[float]) -> None:
    """Whenever an alarm opens, at least k of the last n rows lay above the threshold."""
    alarms = _run(values)
    for i, alarm in enumerate(alarms):
        above = sum(v == ABOVE for v in values[max(0, i - POLICY.n + 1) : i + 1])
        opened = alarm and not (i and alarms[i - 1])
        assert not opened or above >= POLICY.k
        assert alarm or above < POLICY.k


@given(rows)
def test_an_alarm_closes_only_after_calm_rows_in_succession(values: list[float]) -> None:
    """Whenever an alarm closes, the last `calm` rows all lay below the release level."""
    alarms = _run(values)
    for i in range(1, len(alarms)):
        if alarms[i - 1] and not alarms[i]:
            assert values[i - POLICY.calm + 1 : i + 1] == [CALM] * POLICY.calm


@given(rows)
def test_rows_between_release_and_threshold_change_nothing(values: list[float]) -> None:
    """In the band of hysteresis an alarm neither opens nor closes."""
    alarms = _run(values)
    for i in range(1, len(alarms)):
        if values[i] == BETWEEN:
            assert alarms[i] == alarms[i - 1]


def test_a_score_at_the_threshold_is_not_above_it() -> None:
    """Equal to the threshold is still normal."""
    assert POLICY.start().push(THRESHOLD, THRESHOLD) == "normal"


def test_another_model_keeps_the_alarm_and_forgets_the_rows() -> None:
    """After a change of model an open alarm stays and closes by calm rows of the new model only."""
    state = POLICY.start()
    for value in (ABOVE, ABOVE, ABOVE, CALM, CALM, CALM):
        state.push(value, THRESHOLD)
    state.forget_rows(POLICY)
    assert state.alarm
    assert [state.push(CALM, THRESHOLD) for _ in range(4)] == ["alarm"] * 3 + ["normal"]


@pytest.mark.parametrize(
    ("autoencoder", "lstm", "state"),
    [
        ("normal", "normal", "normal"),
        ("exceeding", "normal", "warning"),
        ("normal", "exceeding", "warning"),
        ("alarm", "normal", "alarm"),
        ("normal", "alarm", "alarm"),
        ("alarm", None, "alarm"),
        ("normal", None, "insufficient_data"),
        ("exceeding", None, "insufficient_data"),
    ],
)
def test_both_models_make_one_state(autoencoder: str, lstm: str | None, state: str) -> None:
    """Alarm needs a debounced model, normal needs both, one exceedance is a warning."""
    assert health(autoencoder, lstm) == state


@pytest.mark.parametrize("wrong", [{"k": 6}, {"k": 0}, {"calm": 0}, {"release": 1.5}, {"n": 65}])
def test_a_policy_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    """A debounce that could never open or close is no policy."""
    with pytest.raises(ValueError, match="are accepted"):
        Debounce(**{"k": 3, "n": 5, "calm": 4, "release": 0.8, **wrong})
