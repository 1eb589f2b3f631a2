"""Logits to probabilities that mean what they say, on cars that no network was trained on."""

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
