"""Whether chances and remaining lives mean what they say. Pure numpy.

A chance is reliable when of all windows that were told 30 %, 30 % fail: `bins` shows it (the plot),
`expected_calibration_error` is the mean gap. A life is told well when the prediction lies within a
share of the truth from some point of the part's life on: `alpha_lambda` (Saxena et al.,
International Journal of Prognostics and Health Management, 2010).
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

BINS: Final = 10

Numbers = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Bin:
    """Chances of one tenth of 0..1: their mean, the share that came true, and what they weigh."""

    told: float
    came: float
    weight: float


def bins(chance: Numbers, came: Mask, weight: Numbers | None = None) -> list[Bin]:
    """Bins of equal width that hold anything, from low to high; weights sum to 1.

    `chance`, `came` and `weight` are (n,). Weights let every vehicle count alike, however many
    windows it has. Raises ValueError for a chance outside 0..1, NaN, or other shapes.
    """
    weight = np.ones(chance.size) if weight is None else weight
    if not chance.shape == came.shape == weight.shape or chance.ndim != 1:
        raise ValueError(f"shapes {chance.shape}, {came.shape}, {weight.shape}; (n,) is accepted")
    if not np.all((chance >= 0) & (chance <= 1)):
        raise ValueError("a chance outside 0..1; chances from 0 to 1 are accepted")
    place = np.minimum((chance * BINS).astype(np.int64), BINS - 1)
    mass, told, true = (
        np.bincount(place, weights=weight * values, minlength=BINS)
        for values in (np.ones(chance.size), chance.astype(np.float64), came.astype(np.float64))
    )
    return [
        Bin(float(told[i] / mass[i]), float(true[i] / mass[i]), float(mass[i] / mass.sum()))
        for i in np.flatnonzero(mass > 0).tolist()
    ]


def expected_calibration_error(
    chance: Numbers, came: Mask, weight: Numbers | None = None
) -> float | None:
    """Mean distance of what was told from what came true, over `bins`; None without a window."""
    found = bins(chance, came, weight)
    return sum(one.weight * abs(one.told - one.came) for one in found) if found else None


def alpha_lambda(predicted: Numbers, actual: Numbers, alpha: float) -> float | None:
    """Share of predictions (n,) within `alpha` times the true life (n,); None without one.

    Taken at one point lambda of each part's life, 0 at the first prediction and 1 at the failure.
    """
    if predicted.shape != actual.shape:
        raise ValueError(f"shapes {predicted.shape} and {actual.shape}; the same is accepted")
    if not actual.size:
        return None
    return float(np.mean(np.abs(predicted - actual) <= alpha * actual))
