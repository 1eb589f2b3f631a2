"""What the components of the simulator share: one value per car as arrays of shape (n,)."""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Mask = NDArray[np.bool_]


def relaxed(value: Floats, target: Floats | float, dt: float, tau: float) -> Floats:
    """First-order lag towards `target` with time constant `tau` over `dt` (s): exact and stable."""
    return value - math.expm1(-dt / tau) * (target - value)


def scattered(rng: np.random.Generator, n: int, mean: float, spread: float) -> Floats:
    """One constant per car: normal around `mean`, cut at 2.5 standard deviations `spread`."""
    return mean + spread * np.clip(rng.standard_normal(n), -2.5, 2.5)
