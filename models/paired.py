"""Is one model better than another on the same cars? Recall at an equal alarm budget, with doubt told.

Both models' own thresholds differ in how many false alarms they allow, so their recalls cannot be held
against each other as they are. Each car is reduced to the highest danger (score in units of its
threshold) at which a model would still raise its debounced alarm: `threshold.alarm_level`. A budget of
false alarms among the healthy cars then gives each model the threshold that it needs, and each
failing car is found or not. How far the difference may be chance is told by a bootstrap that draws
cars, the same ones for both models (paired), because rows of one car hang together. Pure numpy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.debounce import Debounce
from models.evaluate import Life, first_warning
from models.threshold import alarm_level

DRAWS: Final = 2000
_INTERVAL: Final = (2.5, 97.5)  # percent

Floats = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Levels:
    """One model on every car: alarm level (cars,), -inf where none; `us_per_row` of its calls.

    `alarmed` (healthy cars,): whether the scorer would have told an alarm. A failing car's level is that
    between onset and failure; `leads` (failing cars,) are ms from its
    first alarm, at the model's own thresholds, to the failure, NaN when it was missed.
    """

    healthy: Floats
    alarmed: NDArray[np.bool_]
    failing: Floats
    leads: Floats
    us_per_row: float


def levels(
    lives: Sequence[Life], danger: Floats, alarm: NDArray[np.bool_], policy: Debounce, us: float
) -> Levels:
    """Reduce rows to cars; `danger` and `alarm` (rows,) of the whole log, NaN where nothing is said.

    A car that was degraded and had not failed when the log ended is in neither part.
    """
    healthy, alarmed, failing, leads = [], [], [], []
    for life in lives:
        fate, rows, times = life.fate, life.rows, life.times
        if fate.mode is None:
            healthy.append(_level(danger[rows], policy))
            alarmed.append(bool(alarm[rows].any()))
        elif fate.failed and fate.onset is not None and fate.failure is not None:
            warned = (times >= fate.onset) & (times < fate.failure)
            if not warned.any():
                continue
            failing.append(_level(danger[rows][warned], policy))
            opened = first_warning(life, alarm[rows])
            leads.append(np.nan if opened is None else fate.failure - opened)
    return Levels(
        np.array(healthy),
        np.array(alarmed, bool),
        np.array(failing),
        np.array(leads, np.float64),
        us,
    )


def recall(found: Levels, budget: float, healthy: Index, failing: Index) -> float:
    """Share of the `failing` cars that are found while at most `budget` of `healthy` ones alarm.

    `budget` is a share (0..1); both are numbers of cars, and a car may come more than once.
    """
    worst = np.sort(found.healthy[healthy])[::-1]
    allowed = int(budget * worst.size)
    threshold = worst[allowed] if allowed < worst.size else -np.inf
    return float((found.failing[failing] > threshold).mean())


def difference(
    champion: Levels, challenger: Levels, budget: float, *, seed: int, draws: int = DRAWS
) -> dict[str, Any]:
    """Both models' figures, challenger minus champion, and the 95 % interval of each difference.

    `recall` at the budget; `false_alarms` share of healthy cars that alarm at the models' own
    thresholds; `lead_s` median of what both found. None where there is nothing to compare.
    """
    rng = np.random.default_rng(seed)
    cars, failures = champion.healthy.size, champion.failing.size
    every = np.arange(cars), np.arange(failures)
    picks = [
        (rng.integers(0, cars, cars), rng.integers(0, failures, failures)) for _ in range(draws)
    ]

    def told(measure: Any) -> dict[str, Any]:
        each = {"champion": champion, "challenger": challenger}
        whole = {name: measure(one, *every) for name, one in each.items()}
        gaps = np.array([measure(challenger, *p) - measure(champion, *p) for p in picks])
        gaps = gaps[~np.isnan(gaps)]
        gap = whole["challenger"] - whole["champion"]
        low, high = np.percentile(gaps, _INTERVAL) if gaps.size else (np.nan, np.nan)
        figures = {**whole, "difference": gap, "low": float(low), "high": float(high)}
        return {
            name: None if np.isnan(value) else round(value, 4) for name, value in figures.items()
        }

    both = ~np.isnan(champion.leads) & ~np.isnan(challenger.leads)

    def lead(one: Levels, _healthy: Index, failing: Index) -> float:
        picked = failing[both[failing]]
        return float(np.median(one.leads[picked])) / 1000 if picked.size else np.nan

    return {
        "healthy": cars,
        "failures": failures,
        "budget": budget,
        "recall": told(lambda one, healthy, failing: recall(one, budget, healthy, failing)),
        "false_alarms": told(lambda one, healthy, _failing: float(one.alarmed[healthy].mean())),
        "lead_s": told(lead),
        "us_per_row": {
            "champion": round(champion.us_per_row, 1),
            "challenger": round(challenger.us_per_row, 1),
        },
        "seed": seed,
        "draws": draws,
    }


def verdict(found: dict[str, Any]) -> str:
    """`better` when more is found for sure and no more false alarms, `worse` when either is worse
    for sure, else `undecided`."""
    recalls, alarms = found["recall"], found["false_alarms"]
    if recalls["high"] < 0 or alarms["low"] > 0:
        return "worse"
    return "better" if recalls["low"] > 0 and alarms["difference"] <= 0 else "undecided"


def text(result: dict[str, Any]) -> str:
    """A result of `comparison.compare` for people."""
    lines = [
        f"champion    {result['champion']}",
        f"challenger  {result['challenger']}: {result['verdict']}",
        f"on {result['rows']} rows of {result['topic']}: {result['healthy']} healthy cars,"
        f" {result['failures']} that failed",
        f"{'':44}{'champion':>10}{'challenger':>12}  difference (95 % of {result['draws']} draws)",
    ]
    named = {
        "recall": f"recall while {result['budget']:.1%} of healthy cars alarm",
        "false_alarms": "healthy cars that alarm, own thresholds",
        "lead_s": "lead of what both found, s (median)",
    }
    for name, what in named.items():
        one = {key: "-" if value is None else f"{value:.3g}" for key, value in result[name].items()}
        lines.append(
            f"{what:44}{one['champion']:>10}{one['challenger']:>12}"
            f"  {one['difference']} ({one['low']} to {one['high']})"
        )
    cost = result["us_per_row"]
    lines.append(f"{'CPU a row, us':44}{cost['champion']:>10}{cost['challenger']:>12}")
    return "\n".join(lines)


def _level(danger: Floats, policy: Debounce) -> float:
    return alarm_level(danger[~np.isnan(danger)], policy.k, policy.n)
