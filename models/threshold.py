"""Where normal ends: thresholds from cars known to be healthy and not used for training.

The unit is the car, not the row: rows of one car hang together, so a quantile of rows promises
nothing about how many cars will raise an alarm. `alarm_level` is the highest threshold at which one
car would still have raised its debounced alarm; these levels are block maxima, so their tail is
fitted by a Gumbel distribution (Coles 2001, "An introduction to statistical modeling of extreme
values", ch. 3) with L-moments (Hosking 1990), and the threshold is the level that one car in
`1 / share` reaches. A Pareto tail over rows (POT) was tried instead and moved from 1.1 to 9 between
seeds and settings. Scores with an upper end, as a network's logits, have no such tail: for them
`above_all`.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

_EULER = 0.5772156649015329
_MARGIN = 0.1


def alarm_level(scores: Floats, k: int, n: int) -> float:
    """The highest threshold that `k` of `n` successive rows of one car still exceeded.

    An alarm needs scores *above* the threshold, so at this level itself the car stays silent.
    Minus infinity when the car has fewer than `k` rows.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.size < k:
        return -math.inf
    # Before n rows have come, k of those that have count.
    padded = np.concatenate([np.full(n - k, -math.inf), scores])
    windows = np.lib.stride_tricks.sliding_window_view(padded, n)
    return float(np.partition(windows, n - k, axis=1)[:, n - k].max())


def gumbel(levels: Sequence[float]) -> tuple[float, float]:
    """Location and scale of the Gumbel distribution of at least two block maxima."""
    ordered = np.sort(np.asarray(levels, dtype=np.float64))
    n = ordered.size
    mean = float(ordered.mean())
    second = 2 * float(np.mean(ordered * np.arange(n) / (n - 1))) - mean
    scale = second / math.log(2)
    return mean - _EULER * scale, scale


def above_all(levels: Sequence[float]) -> float:
    """The highest of the levels and a tenth of its distance from the median more."""
    highest = max(levels)
    return highest + _MARGIN * (highest - float(np.median(np.asarray(levels))))


def extreme(levels: Sequence[float], share: float) -> float:
    """The level that a healthy car reaches with probability `share` (0..1) in one history.

    `levels` are those of healthy calibration cars, one each, at least two. Few cars tell little of a
    tail: the scale is taken two standard errors (0.9 / sqrt(n) of it) larger than estimated. Never
    below `above_all`.
    """
    location, scale = gumbel(levels)
    scale *= 1 + 1.8 / math.sqrt(len(levels))
    return max(location - scale * math.log(-math.log1p(-share)), above_all(levels))


def budgeted(levels: Sequence[float], allowed: float) -> float:
    """The lowest level above which at most `allowed` (>= 0, a fraction counts as none) units lie.

    For a budget in alarms of all calibration units together, when they are enough that the budget
    is several alarms: a quantile of block maxima, without a model of their tail. Raises ValueError
    when every unit may alarm: such a budget asks for no threshold.
    """
    ordered = sorted(levels, reverse=True)
    if int(allowed) >= len(ordered):
        raise ValueError(f"{allowed:g} alarms of {len(ordered)} units; fewer alarms are accepted")
    return ordered[int(allowed)]
