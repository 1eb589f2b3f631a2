"""Raw outputs to numbers that mean the same everywhere, on cars that no network was trained on.

`platt`: logits to probabilities. `regime_scales`: residuals to a common unit for each signal and
driving regime, because what is much for a coolant sensor at idle is nothing for a throttle in town.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def platt(logits: NDArray[np.floating[Any]], labels: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and offset that make sigmoid(slope * logit + offset) a calibrated probability.

    Newton's method on the log loss with Platt's smoothed targets (Lin et al., Machine Learning 2007).
    The slope stays positive: calibration never turns the order round.
    """
    x = np.stack([logits.astype(np.float64), np.ones(logits.size)], axis=1)
    positives = int(labels.sum())
    negatives = labels.size - positives
    target = np.where(labels, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    line = np.array([1.0, 0.0])
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(x @ line, -30, 30)))
        gradient = x.T @ (p - target)
        curvature = (x * (p * (1 - p))[:, None]).T @ x + 1e-6 * np.eye(2)
        step = np.clip(np.linalg.solve(curvature, gradient), -1, 1)
        line -= step
        if np.abs(step).max() < 1e-8:
            break
    return max(float(line[0]), 0.05), float(line[1])


def regime_scales(
    residuals: NDArray[np.floating[Any]],
    regimes: NDArray[np.integer[Any]],
    count: int,
    quantile: float,
) -> NDArray[np.float64]:
    """The quantile of healthy residuals (n, signals) by regime: (count, signals), above zero.

    `regimes` (n,) are 0..count-1. A regime with fewer than ten rows beyond the quantile borrows the
    quantile of all rows. Raises ValueError without rows.
    """
    if not len(residuals):
        raise ValueError("no healthy rows to calibrate on")
    enough = 10 / (1 - quantile)
    everywhere = np.quantile(residuals, quantile, axis=0)
    scales = np.empty((count, residuals.shape[1]))
    for regime in range(count):
        rows = residuals[regimes == regime]
        scales[regime] = np.quantile(rows, quantile, axis=0) if len(rows) >= enough else everywhere
    return np.maximum(scales, 1e-6)
