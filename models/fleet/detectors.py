"""Plain detectors beside the networks: each gives one number a row, by the same features.

* limits: what a technician would set: fixed limits on single features from the data sheet; 1 is a
  limit reached. It learns nothing, and its limits are wide enough for every healthy car.
* pca: Hotelling's T2 and Q of a row (`models.baseline`).
* boosting: gradient boosted trees on statistics of a window (last, mean, deviation, extremes and slope
  of each feature), with the labels the LSTM learns from. scikit-learn is imported when it is built.
* boosting_own: the same trees that are given, besides, what our networks are given: how far the car has
  left its own baseline.

The last three have no threshold of their own; the evaluation gives them one.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.features import FEATURES, WINDOW, Features

Floats = NDArray[np.float64]

LIMITS: Final[dict[str, float]] = {
    "coolant_excess": 20.0,  # K over the regulated temperature: the red field
    "air_excess": -0.20,  # ln: a fifth less air than throttle and speed give
    "current_excess": 25.0,  # A
    "pack_sag": 10.0,  # V below the pack's line
    "vibration_excess": 0.25,  # ln: a quarter more than a healthy shaft
    "supply_sag": 1.2,  # V below the regulated supply
    "fuel_trim": 0.20,  # the trim at which an engine computer lights its lamp
    "spark_late": 10.0,  # deg
}
"""A feature beyond its limit (below it where the limit is negative) is a fault for the rule."""


def limits(features: Features) -> Floats:
    """Share of the nearest limit that each row (n, FEATURES) has reached, (n,)."""
    shares = [features[:, FEATURES.index(name)] / limit for name, limit in LIMITS.items()]
    largest: Floats = np.max(shares, axis=0).astype(np.float64)
    return largest


def statistics(windows: Features) -> Features:
    """(k, WINDOW, FEATURES) -> (k, 6 * FEATURES): last, mean, deviation, least, largest, slope."""
    time = np.linspace(-1, 1, WINDOW, dtype=np.float32)
    slope = np.einsum("t,ktf->kf", time / np.square(time).sum(), windows)
    parts = [
        windows[:, -1],
        windows.mean(axis=1),
        windows.std(axis=1),
        windows.min(axis=1),
        windows.max(axis=1),
        slope,
    ]
    return np.concatenate(parts, axis=1)


def _known(windows: Features, deviations: Features | None) -> Features:
    told = statistics(windows)
    return told if deviations is None else np.concatenate([told, deviations], axis=1)


class Boosting:
    """Gradient boosted trees on window statistics; gives the log-odds of failure within the horizon."""

    def __init__(
        self,
        windows: Features,
        labels: NDArray[np.bool_],
        seed: int,
        deviations: Features | None = None,
    ) -> None:
        """`deviations` (k, FEATURES) at the ends of the windows, when they are to be known."""
        from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415

        self._trees: Any = HistGradientBoostingClassifier(
            max_iter=150,
            early_stopping=True,
            validation_fraction=0.15,
            class_weight="balanced",
            random_state=seed,
        )
        self._trees.fit(_known(windows, deviations), labels)

    def scores(self, windows: Features, deviations: Features | None = None) -> Floats:
        """Log-odds (k,) of windows (k, WINDOW, FEATURES), with deviations as they were learnt."""
        parts = [
            self._trees.decision_function(
                _known(windows[part], None if deviations is None else deviations[part])
            )
            for part in (slice(i, i + 65536) for i in range(0, len(windows), 65536))
        ]
        return np.concatenate(parts) if parts else np.empty(0)
