"""Champion against challenger: recall at one budget of false alarms, and how sure the difference is."""

import numpy as np
import pytest

from models.debounce import Debounce
from models.evaluate import Life
from models.labels import Fate
from models.paired import Levels, difference, levels, recall, text, verdict

POLICY = Debounce(k=2, n=2, calm=2, release=0.8)


def model(healthy: float, failing: float, cars: int = 40, us: float = 1.0) -> Levels:
    """Alarm levels around two values; an alarm begins at 1."""
    noise = np.linspace(-0.1, 0.1, cars)
    calm, worn = healthy + noise, failing + noise
    return Levels(calm, calm > 1, worn, np.where(worn > 1, 5000.0, np.nan), us)


def test_recall_is_taken_at_the_threshold_that_the_budget_gives() -> None:
    """Not at the model's own: one that is scaled differently finds as many."""
    every = np.arange(40)
    strict, loose = model(0.2, 0.9), model(2.0, 9.0)
    for found in (strict, loose):
        assert recall(found, 0.0, every, every) == 1.0
    blind = model(0.5, 0.5)
    assert recall(blind, 0.0, every, every) == 0.0
    assert recall(blind, 0.5, every, every) == pytest.approx(0.5, abs=0.05)
    assert recall(blind, 1.0, every, every) == 1.0


def test_better_worse_and_equal_are_told_apart() -> None:
    """Better is more found for sure and no more false alarms; the same model is undecided."""
    poor, good, noisy = model(0.5, 0.5), model(0.5, 2.0), model(1.5, 9.0)
    assert verdict(difference(poor, good, 0.01, seed=1)) == "better"
    assert verdict(difference(good, poor, 0.01, seed=1)) == "worse"
    assert verdict(difference(good, good, 0.01, seed=1)) == "undecided"
    assert verdict(difference(good, noisy, 0.01, seed=1)) == "worse"


def test_the_seed_decides_the_draws_and_nothing_else_does() -> None:
    """So a comparison can be repeated."""
    one, other = model(0.5, 0.55), model(0.5, 0.6)
    assert difference(one, other, 0.05, seed=3) == difference(one, other, 0.05, seed=3)
    assert difference(one, other, 0.05, seed=3) != difference(one, other, 0.05, seed=4)


def test_rows_become_cars_by_their_fate() -> None:
    """Healthy, found, missed; what alarmed before the onset is not a find; who has not failed is left."""
    times = np.arange(10) * 1000
    fates = [
        Fate("calm"),
        Fate("found", "cooling", 3000, 9000, failed=True),
        Fate("early", "cooling", 3000, 9000, failed=True),
        Fate("worn", "cooling", 3000, 90_000),
    ]
    lives = [Life(fate, np.arange(10) + 10 * i, times) for i, fate in enumerate(fates)]
    danger = np.tile(np.linspace(0.1, 1.0, 10), 4)
    alarm = np.zeros(40, bool)
    alarm[15:19] = True  # found: from 5000 on
    alarm[21:29] = True  # early: opens before its onset
    made = levels(lives, danger, alarm, POLICY, 2.5)
    assert made.healthy.size == 1
    assert made.alarmed.tolist() == [False]
    assert made.failing.size == 2
    assert made.leads.tolist()[0] == 4000.0
    assert np.isnan(made.leads[1])
    assert made.us_per_row == 2.5


def test_false_alarms_are_those_that_the_scorer_told() -> None:
    """Not those that its two models would raise together."""
    calm = model(0.5, 2.0)
    told = Levels(calm.healthy, np.ones(40, bool), calm.failing, calm.leads, 1.0)
    found = difference(calm, told, 0.01, seed=1)
    assert (found["false_alarms"]["champion"], found["false_alarms"]["challenger"]) == (0.0, 1.0)
    assert verdict(found) == "worse"


def test_the_table_names_both_and_the_verdict() -> None:
    """For people."""
    found = difference(model(0.5, 0.5), model(0.5, 2.0), 0.01, seed=1)
    said = text(
        {"champion": "a", "challenger": "b", "verdict": "better", "rows": 7, "topic": "t", **found}
    )
    assert "challenger  b: better" in said
    assert "recall while 1.0% of healthy cars alarm" in said
