"""Has what cars send moved away from what the model learnt: the whole fleet, or one car? Pure numpy.

Fleet: for each feature the population stability index (PSI) of a window of rows against bins of the
training's healthy cars: sum of (share now - share then) * ln of their ratio; by usual practice above
0.25 it is another population, below 0.1 the same (Siddiqi, "Credit Risk Scorecards", Wiley 2006). A
feature that moved in the fleet (a season, a firmware, a batch of sensors) asks for another training.

One car: the mean of each feature over its newest rows, against the median of the fleet's cars in the
same window. Farther away than any healthy car of the training ever was over as many rows (and a quarter
more), while the fleet stands: a matter of that car, a sensor or the fault that its score is about.

PSI of few rows is noise, about (bins - 1) / rows, and rows of one car hang together: a window is judged
only with MIN_ROWS rows of MIN_CARS cars, else the feature is `insufficient`, which is not `stable`.
Memory: the window's counts, and a mean of each feature a car.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from models.features import FEATURES, Features, Index
from models.scoring import Prepared, Verdicts

State = Literal["insufficient", "stable", "moved"]
STATES: Final[tuple[State, ...]] = get_args(State)

BINS: Final = 10
MOVED: Final = 0.25
SETTLED: Final = 0.1
"""PSI above which a feature has moved, and below which it is back."""
MIN_ROWS: Final = 2_000
MIN_CARS: Final = 20
FAR: Final = 1.25
"""Of the farthest that a healthy car was, beyond which one car has moved."""

_MEMORY: Final = 64  # rows that a car's mean follows
_LEAST: Final = 1e-4  # share of an empty bin

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]
NAMES: Final = (*FEATURES, "score")
"""What is watched: the features, and the score that the champion gave."""

_WIDTH: Final = len(NAMES)


@dataclass(frozen=True, slots=True)
class Reference:
    """Healthy cars of the training: inner edges of the bins (NAMES, BINS - 1), shares (NAMES, BINS).

    `reach` (NAMES,): how far from the median car's the mean of a car's rows was at most.
    """

    edges: Numbers
    shares: Numbers
    reach: Numbers

    @classmethod
    def fit(cls, rows: Features, lives: Index) -> "Reference":
        """Of rows (n, NAMES), each car's in order; a constant feature has them all in one bin."""
        inner = np.linspace(0, 1, BINS + 1)[1:-1]
        edges = np.quantile(rows.astype(np.float64), inner, axis=0).T
        counts = _counts(rows, edges)
        order = np.argsort(lives, kind="stable")
        cars = np.split(rows[order], np.flatnonzero(np.diff(lives[order])) + 1)
        means = np.array(
            [
                car[begin : begin + _MEMORY].mean(axis=0, dtype=np.float64)
                for car in cars
                for begin in range(0, max(len(car) - _MEMORY, 0) + 1, _MEMORY)
            ]
        )
        reach = np.abs(means - np.median(means, axis=0)).max(axis=0)
        return cls(edges, counts / counts.sum(axis=1, keepdims=True), reach)

    def psi(self, counts: NDArray[np.int64]) -> Numbers:
        """PSI of each name (NAMES,) of a window's counts (NAMES, BINS), which hold rows."""
        now = counts / counts.sum(axis=1, keepdims=True)
        now, then = np.maximum(now, _LEAST), np.maximum(self.shares, _LEAST)
        told: Numbers = ((now - then) * np.log(now / then)).sum(axis=1)
        return told

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name).tolist() for name in ("edges", "shares", "reach")}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> "Reference":
        """Raises ValueError for another shape, KeyError for missing parts."""
        edges, shares, reach = (
            np.asarray(told[name], np.float64) for name in ("edges", "shares", "reach")
        )
        shapes = (edges.shape, shares.shape, reach.shape)
        if shapes != ((_WIDTH, BINS - 1), (_WIDTH, BINS), (_WIDTH,)):
            raise ValueError(f"a reference of shapes {shapes} for {_WIDTH} features")
        rising = np.isfinite(edges).all() and (np.diff(edges) >= 0).all()
        if not (rising and (shares >= 0).all() and (reach >= 0).all()):
            raise ValueError("edges that do not rise, or shares or reach below 0")
        return cls(edges, shares, reach)


def _counts(rows: Features, edges: Numbers) -> NDArray[np.int64]:
    """How many rows fall into each bin: (NAMES, BINS)."""
    places = (
        np.searchsorted(edge, column, side="left")
        for edge, column in zip(edges, rows.T, strict=True)
    )
    return np.stack([np.bincount(place, minlength=BINS) for place in places])


def scored_values(prepared: Prepared, verdicts: Verdicts) -> tuple[Index, Features]:
    """Slots (n,) and values (n, NAMES) of the rows of a batch that have a score."""
    score = verdicts.score[prepared.good]
    known = ~np.isnan(score)
    values = np.column_stack([prepared.features[known], score[known]])
    return prepared.slots[prepared.good[known]], values


@dataclass(frozen=True, slots=True)
class Moved:
    """What a window showed of one of NAMES: a change of the fleet's state."""

    name: str
    state: State
    psi: float


@dataclass(frozen=True, slots=True)
class Told:
    """A window's end: `psi` (NAMES,), NaN where it holds too little; changes; cars that moved.

    `cars` (k,) are slots, and `which` (k,) of NAMES, of cars far outside a fleet that stands.
    """

    psi: Numbers
    changes: Sequence[Moved]
    cars: Index
    which: Index


class Drift:
    """Windows of rows of the cars in numbered slots against one reference."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._counts = np.zeros((_WIDTH, BINS), np.int64)
        self._means = np.zeros((0, _WIDTH), np.float64)
        self._rows = np.zeros(0, np.int64)
        self._seen = np.zeros(0, bool)
        self._states = np.zeros(_WIDTH, np.int8)

    @property
    def full(self) -> bool:
        """Whether the window holds MIN_ROWS; a small fleet's lasts longer than was asked for."""
        return bool(self._counts[0].sum() >= MIN_ROWS)

    def push(self, slots: Index, values: Features) -> None:
        """Scored rows (n, NAMES), in order of arrival."""
        if not slots.size:
            return
        self._room(int(slots.max()) + 1)
        self._counts += _counts(values, self._reference.edges)
        # One step for all rows of a car in a batch: their mean, with the weight of that many rows.
        cars, place, rows = np.unique(slots, return_inverse=True, return_counts=True)
        sums = np.zeros((cars.size, _WIDTH))
        np.add.at(sums, place, values)
        fresh = self._rows[cars] == 0
        weight = np.where(fresh, 1.0, -np.expm1(-rows / _MEMORY))[:, None]
        self._means[cars] += weight * (sums / rows[:, None] - self._means[cars])
        self._rows[cars] += rows
        self._seen[cars] = True

    def forget(self, slots: Index) -> None:
        """These slots belong to other cars from now on."""
        slots = slots[slots < self._rows.size]
        self._rows[slots], self._means[slots], self._seen[slots] = 0, 0.0, False

    def close(self) -> Told:
        """End the window: what it showed; the next one begins."""
        cars = np.flatnonzero(self._seen)
        enough = self.full and cars.size >= MIN_CARS
        psi = self._reference.psi(self._counts) if enough else np.full(_WIDTH, np.nan)
        before = self._states.copy()
        # Between both limits it stays what it was: a feature at the limit is no stream of news.
        stays = np.where(before == STATES.index("moved"), "moved", "stable")
        state = np.where(psi > MOVED, "moved", np.where(psi < SETTLED, "stable", stays))
        state = np.where(np.isnan(psi), "insufficient", state)
        self._states = np.array([STATES.index(name) for name in state.tolist()], np.int8)
        changes = [
            Moved(NAMES[i], STATES[self._states[i]], float(psi[i]))
            for i in np.flatnonzero(before != self._states).tolist()
        ]
        far, which = self._far(cars) if enough else (cars[:0], cars[:0])
        self._counts[:] = 0
        self._seen[:] = False
        return Told(psi, changes, far, which)

    def _far(self, cars: Index) -> tuple[Index, Index]:
        """Cars that are farther from the others than healthy cars are, in a feature that stands."""
        known = cars[self._rows[cars] >= _MEMORY]
        if known.size < MIN_CARS:
            return known[:0], known[:0]
        means = self._means[known]
        away = np.abs(means - np.median(means, axis=0)) / np.maximum(self._reference.reach, 1e-9)
        away[:, self._states == STATES.index("moved")] = 0.0
        outside = np.flatnonzero(away.max(axis=1) > FAR)
        return known[outside], away[outside].argmax(axis=1)

    def _room(self, slots: int) -> None:
        missing = slots - self._rows.size
        if missing > 0:
            more = max(missing, self._rows.size)
            self._means = np.concatenate([self._means, np.zeros((more, _WIDTH))])
            self._rows = np.concatenate([self._rows, np.zeros(more, np.int64)])
            self._seen = np.concatenate([self._seen, np.zeros(more, bool)])
