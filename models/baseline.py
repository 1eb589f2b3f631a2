"""The plain detector beside the networks: principal components, Hotelling's T2 and residual Q.

Deep detectors beat it by little on public benchmarks, so every report shows it (anchors: SKAB).
Fitted on the same healthy rows and calibrated the same way; numpy only, stored in the artefact, so
that a later evaluation compares the same two.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.features import Features

FILE = "baseline.npz"
_EXPLAINED = 0.9
_QUANTILE = 0.99

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pca:
    """Mean, deviation, components (c, FEATURES), their variances (c,), and what 1 is: T2, Q."""

    mean: Floats
    std: Floats
    components: Floats
    variances: Floats
    units: Floats

    @classmethod
    def fit(cls, rows: Features, calibration: Features) -> "Pca":
        """Components that explain 90 % of `rows`; 1 is the 99 % quantile of `calibration`."""
        mean, std = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
        std = np.maximum(std, 1e-6)
        values, vectors = np.linalg.eigh(np.cov((rows - mean) / std, rowvar=False))
        order = values.argsort()[::-1]
        explained = np.cumsum(values[order]) / values.sum()
        kept = order[: int(np.searchsorted(explained, _EXPLAINED)) + 1]
        raw = cls(mean, std, vectors[:, kept].T, values[kept], np.ones(2))
        return cls(
            mean,
            std,
            raw.components,
            raw.variances,
            np.quantile(raw._parts(calibration), _QUANTILE, axis=0),
        )

    def scores(self, rows: Features) -> Floats:
        """The larger of T2 and Q (n,), each in units of its calibration quantile."""
        largest: Floats = (self._parts(rows) / self.units).max(axis=1)
        return largest

    def _parts(self, rows: Features) -> Floats:
        scaled = (rows - self.mean) / self.std
        inside = scaled @ self.components.T
        t2 = (np.square(inside) / self.variances).sum(axis=1)
        q = np.square(scaled - inside @ self.components).sum(axis=1)
        return np.stack([t2, q], axis=1)

    def save(self, folder: Path, threshold: float) -> None:
        """Write it with its calibrated threshold."""
        np.savez(
            folder / FILE,
            mean=self.mean,
            std=self.std,
            components=self.components,
            variances=self.variances,
            units=self.units,
            threshold=threshold,
        )

    @classmethod
    def load(cls, folder: Path) -> tuple["Pca", float]:
        """What `save` wrote."""
        with np.load(folder / FILE) as file:
            names = ("mean", "std", "components", "variances", "units")
            return cls(*(file[name] for name in names)), float(file["threshold"])
