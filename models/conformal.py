"""Intervals of remaining life that hold the truth as often as they say. Pure numpy.

The network's own 5 % and 95 % quantiles are too sure of themselves on cars that it was not trained
on. Split conformal prediction widens them by one number: what was needed on held-out vehicles
(conformalised quantile regression, Romano et al., NeurIPS 2019). Windows of one vehicle are no
independent witnesses, so every vehicle has one vote, spread over its windows, and one vote more is
given to the worst case (Dunn et al., JASA 2023): the interval holds for a new vehicle at a moment
drawn from its life, on average over vehicles. Life is capped, so an interval that reaches the cap
has no upper end: it reads "at least `low`".
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import NotEnoughData

Numbers = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Interval:
    """What is added below and above the network's quantiles, in the unit of life."""

    widen: float
    cap: float

    @classmethod
    def fit(
        cls,
        low: Numbers,
        high: Numbers,
        left: Numbers,
        vehicles: NDArray[np.integer[Any]],
        *,
        cap: float,
        share: float,
    ) -> "Interval":
        """The interval that holds `share` of the lives; all arrays (n,), of held-out vehicles.

        `left` is known life (no bounds of censored ones). Raises `NotEnoughData` when there are too
        few vehicles for any interval below infinity to promise that share.
        """
        _, vehicle, windows = np.unique(vehicles, return_inverse=True, return_counts=True)
        count = windows.size
        if count == 0 or count / (count + 1) < share:
            needed = int(np.ceil(share / (1 - share) - 1e-9))
            raise NotEnoughData(
                f"{count} held-out vehicles; an interval that holds {share:.0%} of lives needs"
                f" {needed}"
            )
        life = np.minimum(left, cap).astype(np.float64)
        outside = np.maximum(low - life, life - high)
        order = np.argsort(outside, kind="stable")
        votes = np.cumsum(1 / windows[vehicle[order]]) / (count + 1)
        place = int(np.searchsorted(votes, share - 1e-9))
        return cls(float(outside[order[min(place, outside.size - 1)]]), cap)

    @classmethod
    def open(cls, cap: float) -> "Interval":
        """The interval of which nothing is known: 0 to `cap`, always."""
        return cls(cap, cap)

    def __call__(
        self, remaining: Numbers, low: Numbers, high: Numbers
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper ends (n,), around `remaining`; the upper is `cap` where it is open."""
        life = remaining.astype(np.float64)
        lower = np.clip(np.minimum(low - self.widen, life), 0, self.cap)
        upper = np.clip(np.maximum(high + self.widen, life), 0, self.cap)
        return lower, upper
