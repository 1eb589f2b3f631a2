"""Where normal ends: thresholds from cars known to be healthy and not used for training.

Two answers, the higher one counts. Peaks over threshold (Siffer et al., KDD 2017): a generalised
Pareto tail fitted to the rows' excesses extrapolates to a rare exceedance `q`. Its weakness is that
rows of one car are not independent, so the second answer takes the car as the unit: `alarm_level`
is the highest threshold at which one car would still have raised an alarm (k of n rows), and no
calibration car may. Pure numpy: the fit is by probability-weighted moments (Hosking and Wallis,
Technometrics 1987), which needs no optimiser and is steadier than likelihood on small tails.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def pareto_tail(excesses: Floats) -> tuple[float, float]:
    """Shape and scale of the generalised Pareto distribution of `excesses` (> 0, at least 2).

    Shape > 0 is a heavy tail, 0 exponential, < 0 bounded. Held within -0.5..0.5, where the moments
    are finite and the estimator is consistent.
    """
    ordered = np.sort(np.asarray(excesses, dtype=np.float64))
    n = ordered.size
    a0 = ordered.mean()
    # E[X (1 - F(X))] with the plotting position (i - 0.35) / n of Hosking and Wallis.
    a1 = np.mean(ordered * (1 - (np.arange(1, n + 1) - 0.35) / n))
    if a0 <= 2 * a1:  # heavier than any tail with a mean
        shape = 0.5
    else:
        shape = float(np.clip(2 - a0 / (a0 - 2 * a1), -0.5, 0.5))
    return shape, float(a0 * (1 - shape))


def peaks_over_threshold(scores: Floats, q: float, *, tail: float = 0.98) -> float:
    """The score that a healthy row exceeds with probability `q` (0..1).

    `tail` is the quantile where the tail begins. With fewer than 20 excesses, or a `q` inside the
    data, the plain quantile is the answer.
    """
    scores = np.asarray(scores, dtype=np.float64)
    begin = float(np.quantile(scores, tail))
    excesses = scores[scores > begin] - begin
    if excesses.size < 20 or q >= 1 - tail:
        return float(np.quantile(scores, 1 - q))
    shape, scale = pareto_tail(excesses)
    rarity = q * scores.size / excesses.size
    if abs(shape) < 1e-6:
        return begin - scale * float(np.log(rarity))
    return begin + scale / shape * (rarity**-shape - 1)


def alarm_level(scores: Floats, k: int, n: int) -> float:
    """The highest threshold that `k` of `n` successive rows of one car still exceeded.

    An alarm needs scores *above* the threshold, so at this level itself the car stays silent.
    Minus infinity when the car has fewer than `k` rows.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.size < k:
        return -np.inf
    if scores.size < n:
        return float(np.sort(scores)[-k])
    windows = np.lib.stride_tricks.sliding_window_view(scores, n)
    return float(np.partition(windows, n - k, axis=1)[:, n - k].max())


def highest_level(cars: Iterable[Floats], k: int, n: int) -> float:
    """The highest `alarm_level` of any car, -inf without cars."""
    return max((alarm_level(scores, k, n) for scores in cars), default=-np.inf)
