"""Fit a detector on the training and calibration trips, and set its scales at the alarm budget.

A detector is anything that turns features into residuals (n, columns), and `Fit` makes one from
rows. To have healthy residuals of many trips that it was not fitted on, it is fitted once for each
of FOLDS deals of the trips (cross-conformal; Vovk, Annals of Mathematics and AI 2015), each time
without one share, whose residuals then calibrate; what is used afterwards is the mean of the fits,
which errs less than each of them, so that the budget holds with something to spare.

Scales: quantile of each column in each regime; then each column gets an equal share of the budget,
by the levels its debounced alarm would have had on each trip; then their maximum gets the whole.
A score is the largest residual over its scale, and an alarm begins at 1.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.calibration import regime_scales
from models.carobd.features import REGIMES, Features, Rows
from models.carobd.reader import KINDS, Trip
from models.debounce import Debounce
from models.threshold import alarm_level, budgeted

FOLDS: Final = 4
DEBOUNCE: Final = Debounce(k=5, n=10, calm=60, release=0.8)
BUDGET: Final = 0.35 / 2.04
"""False alarms an hour of rows: 0.35 an hour by the car's own clock, half of that by the data set's."""
QUANTILE: Final = 0.999
STRIDE: Final = 2
"""Every so manieth row is fitted on; neighbours hardly differ."""

Residuals = NDArray[np.floating[Any]]
D = TypeVar("D")
Fit = Callable[[Features, Features], D]
"""(rows to fit on, rows to check on) -> a detector."""
Evaluate = Callable[[D, Features], Residuals]


@dataclass(frozen=True, slots=True)
class Fitted(Generic[D]):
    """The fits, and the scales (regimes, columns) at which a score of 1 is the threshold."""

    members: list[D]
    scales: NDArray[np.float64]


def crossed(
    trips: Sequence[Trip],
    rows: Mapping[str, Rows],
    fit: Fit[D],
    evaluate: Evaluate[D],
    told: Callable[[], None],
    budget: float = BUDGET,
) -> Fitted[D]:
    """Fit on and calibrate with healthy trips; `told` after each of the FOLDS fits."""
    ordered = sorted(trips, key=lambda trip: KINDS.index(trip.kind))
    members: list[D] = []
    residuals: list[Residuals] = []
    regimes: list[NDArray[np.int64]] = []
    for fold in range(FOLDS):
        out = ordered[fold::FOLDS]
        names = {trip.name for trip in out}
        member = fit(
            _valid([rows[trip.name] for trip in ordered if trip.name not in names], STRIDE),
            _valid([rows[trip.name] for trip in out], 4 * STRIDE),
        )
        members.append(member)
        for trip in out:
            own = rows[trip.name]
            residuals.append(evaluate(member, own.features[own.valid]))
            regimes.append(own.regime[own.valid])
        told()
    return Fitted(members, scales(residuals, regimes, budget))


def scales(
    residuals: Sequence[Residuals], regimes: Sequence[NDArray[np.int64]], budget: float
) -> NDArray[np.float64]:
    """Scales (regimes, columns) from the healthy residuals (n, columns) of each trip."""
    unit = regime_scales(np.concatenate(residuals), np.concatenate(regimes), len(REGIMES), QUANTILE)
    scaled = [found / unit[regime] for found, regime in zip(residuals, regimes, strict=True)]
    allowed = budget * sum(map(len, scaled)) / 3600
    columns = unit.shape[1]
    share = np.array(
        [budgeted([_level(s[:, i]) for s in scaled], allowed / columns) for i in range(columns)]
    )
    whole = budgeted([_level((s / share).max(axis=1)) for s in scaled], allowed)
    result: NDArray[np.float64] = unit * share * whole
    return result


def _level(scores: Residuals) -> float:
    return alarm_level(scores, DEBOUNCE.k, DEBOUNCE.n)


def _valid(rows: Sequence[Rows], stride: int) -> Features:
    return np.concatenate([part.features[part.valid][::stride] for part in rows])
