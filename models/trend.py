"""From the residuals of single rows to what a car does differently from itself and from its fleet.

A row's residual is mostly noise; a fault moves its mean. So for each car, regime and feature two means
of the signed residual are kept: the first WARM_UP rows of the regime (the car's own baseline: sensor
offsets, tolerances of parts), and one that follows the newest rows (exponential, MEMORY rows). Their
difference, in units of what is too much for a healthy car (`Norms.scale`), is the deviation; the
score is the largest over features and regimes. A regime that the car is not in keeps its last word:
a worn shaft is silent at a red light, and not healed there.

The baseline's authority is bounded, because a car may be degraded when it is first seen: it is shrunk
towards the fleet's 0 by what is known of the spread between healthy cars (empirical Bayes: Efron and
Morris 1975), and never moves further than BOUND of their standard deviations. Until a regime has its
baseline it says nothing; a car of which no regime does is `insufficient_data`.

A baseline that is learnt is told once (`fresh`), for who keeps it over a restart (`restore`).

Memory: 2 * REGIMES * FEATURES numbers a car. Pure numpy; what a row gives depends on the rows of its
car before it and on nothing else.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.features import FEATURES, REGIMES, Features, Index, rounds

WARM_UP: Final = 24
MEMORY: Final = 12
BOUND: Final = 2.0
_INDEPENDENT: Final = 0.25  # of the rows of a baseline: neighbours hang together

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
_RULE: Final = {"warm_up": WARM_UP, "memory": MEMORY, "bound": BOUND}
_SHAPE: Final = (len(REGIMES), len(FEATURES))


@dataclass(frozen=True, slots=True)
class Norms:
    """What healthy cars show, each (REGIMES, FEATURES), in units of a row's residual.

    `noise`: standard deviation of a row around its car's mean; `spread`: of the cars' means;
    `scale`: the deviation that is too large for a healthy car (`models.fit`), infinite where unknown.
    """

    noise: Floats
    spread: Floats
    scale: Floats

    @classmethod
    def unscaled(cls, residuals: Features, regimes: Index, lives: Index) -> "Norms":
        """Noise and spread of healthy rows (n, FEATURES); scale is 1, to be replaced."""
        noise, spread = np.ones(_SHAPE, np.float32), np.zeros(_SHAPE, np.float32)
        for regime in range(len(REGIMES)):
            rows = regimes == regime
            _, car, count = np.unique(lives[rows], return_inverse=True, return_counts=True)
            if not count.size:
                continue
            values = residuals[rows].astype(np.float64)
            sums = np.zeros((count.size, values.shape[1]))
            np.add.at(sums, car, values)
            means = sums / count[:, None]
            noise[regime] = np.sqrt(np.mean(np.square(values - means[car]), axis=0))
            known = means[count >= WARM_UP]
            if len(known) > 1:
                own = np.square(noise[regime]) / (np.mean(count[count >= WARM_UP]) * _INDEPENDENT)
                spread[regime] = np.sqrt(np.maximum(known.var(axis=0) - own, 0))
        return cls(np.maximum(noise, 1e-6), spread, np.ones(_SHAPE, np.float32))

    def scaled(self, scale: Floats) -> "Norms":
        """These with another scale."""
        return Norms(self.noise, self.spread, np.maximum(scale, 1e-6).astype(np.float32))

    def to_json(self) -> dict[str, Any]:
        # JSON has no infinity: what is not judged is null.
        scale = [[x if np.isfinite(x) else None for x in row] for row in self.scale.tolist()]
        figures = {"noise": self.noise.tolist(), "spread": self.spread.tolist(), "scale": scale}
        return {**_RULE, **figures}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> "Norms":
        """Raises ValueError for norms of another program, KeyError for missing parts."""
        if {name: told[name] for name in _RULE} != _RULE:
            raise ValueError(f"norms were made for another rule than {_RULE}")
        scale = [[np.inf if x is None else x for x in row] for row in told["scale"]]
        parts = [np.asarray(part, np.float32) for part in (told["noise"], told["spread"], scale)]
        if any(part.shape != _SHAPE or not (part >= 0).all() for part in parts):
            raise ValueError(f"norms of another shape than {_SHAPE}, or negative")
        return cls(*parts)


class Trends:
    """Baselines and means of the cars in numbered slots (those of `features.WindowStore`)."""

    def __init__(self, norms: Norms) -> None:
        self._norms = norms
        own = np.square(norms.noise) / (WARM_UP * _INDEPENDENT)
        between = np.square(norms.spread)
        self._trust = between / (between + own)
        self._count = np.zeros((0, len(REGIMES)), np.int32)
        self._told = np.zeros(0, np.int32)  # regimes whose baselines were told
        self._kept = np.zeros((0, len(REGIMES)), bool)  # whose baselines were restored
        self._base = np.zeros((0, *_SHAPE), np.float32)
        self._mean = np.zeros((0, *_SHAPE), np.float32)

    def push(self, slots: Index, regimes: Index, residuals: Features) -> Floats:
        """Rows in order of arrival: the deviations (n, FEATURES) of their cars after each of them.

        For each feature that of the regime in which it is largest; NaN while no regime has a baseline.
        """
        each = self.walk(slots, regimes, residuals)
        known = ~np.isnan(each[:, :, 0]).all(axis=1)
        deviations = np.full(residuals.shape, np.nan, np.float32)
        deviations[known] = np.nanmax(each[known], axis=1)
        return deviations

    def walk(self, slots: Index, regimes: Index, residuals: Features) -> Floats:
        """`push` by regime: (n, REGIMES, FEATURES), NaN for a regime without a baseline."""
        self._room(int(slots.max(initial=-1)) + 1)
        deviations = np.empty((len(slots), *_SHAPE), np.float32)
        for rows in rounds(slots):
            self._take(slots[rows], regimes[rows], residuals[rows])
            deviations[rows] = self._deviations(slots[rows])
        return deviations

    def forget(self, slots: Index) -> None:
        """These slots belong to other cars from now on."""
        slots = slots[slots < len(self._count)]
        self._count[slots] = self._told[slots] = 0
        self._kept[slots] = False

    def fresh(self, slots: Index) -> tuple[Index, Mask, Floats]:
        """Cars among `slots` with a baseline that was not told: theirs (k, REGIMES), and numbers."""
        cars = np.unique(slots)
        there = (self._count[cars] >= WARM_UP) | self._kept[cars]
        cars, there = (part[there.sum(axis=1) > self._told[cars]] for part in (cars, there))
        self._told[cars] = there.sum(axis=1)
        return cars, there, self._base[cars]

    def restore(self, slots: Index, there: Mask, base: Floats) -> None:
        """Baselines that were told before, of each of `slots`; how a car is now its rows have to say."""
        self._room(int(slots.max(initial=-1)) + 1)
        self._count[slots] = 0
        self._kept[slots], self._told[slots], self._base[slots] = there, there.sum(axis=1), base

    def _take(self, slots: Index, regimes: Index, residuals: Features) -> None:
        """One row for each of the slots."""
        seen = np.minimum(self._count[slots, regimes] + 1, 1 << 30)
        self._count[slots, regimes] = seen
        first = (seen == 1)[:, None]
        rows = seen.astype(np.float32)[:, None]
        kept = self._kept[slots, regimes][:, None]
        base = np.where(first & ~kept, 0, self._base[slots, regimes])
        mean = np.where(first, 0, self._mean[slots, regimes])
        # The mean of the newest rows begins as the plain mean of the first.
        mean += (residuals - mean) / np.minimum(rows, MEMORY)
        base += np.where((rows <= WARM_UP) & ~kept, residuals - base, 0) / rows
        self._base[slots, regimes], self._mean[slots, regimes] = base, mean

    def _deviations(self, slots: Index) -> Floats:
        norms = self._norms
        limit = BOUND * norms.spread
        normal = np.clip(self._trust * self._base[slots], -limit, limit)
        deviations = np.abs(self._mean[slots] - normal) / norms.scale
        known = self._count[slots] >= np.where(self._kept[slots], MEMORY, WARM_UP)
        return np.where(known[:, :, None], deviations, np.nan).astype(np.float32)

    def _room(self, slots: int) -> None:
        missing = slots - len(self._count)
        if missing > 0:
            more = max(missing, len(self._count))
            self._count = np.concatenate([self._count, np.zeros((more, len(REGIMES)), np.int32)])
            self._told = np.concatenate([self._told, np.zeros(more, np.int32)])
            self._kept = np.concatenate([self._kept, np.zeros((more, len(REGIMES)), bool)])
            for name in ("_base", "_mean"):
                held = getattr(self, name)
                setattr(self, name, np.concatenate([held, np.zeros((more, *_SHAPE), np.float32)]))
