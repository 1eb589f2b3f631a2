"""Rows in, verdicts out: the one path that the scorer, calibration checks and evaluation all take.

rows of a partition -> features, windows (`features`) -> both models, batched over all partitions ->
per car: debounce -> state. What a row gives depends on the rows of its car before it and on nothing
else: not on the batch it came in, nor on other cars. Pure: the model is anything that computes
scores for rows and probabilities for windows; time is an argument.

What cannot be scored is counted, and the car is told apart from a healthy one: a row that lacks an
input or is suspect leaves the car's state alone until MAX_GAP_MS passed without a good row; from
then on, as for a car that never sent one, its state is insufficient_data (an open alarm stays).
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.debounce import Debounce, Debounced, health
from models.features import MAX_GAP_MS, Features, Index, Pushed, WindowStore, compute, regimes
from models.trend import Norms, Trends
from twin.wire.records import HealthState

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Gate:
    """Where one model's alarm begins: a threshold on its score and the debounce behind it."""

    threshold: float
    debounce: Debounce


class Model(Protocol):
    """A loaded model; both gates belong to it."""

    version: str
    horizon_s: int
    autoencoder: Gate
    lstm: Gate
    norms: Norms

    def rows(self, features: Features) -> tuple[Floats, Floats]:
        """Largest residual (n,) and signed residuals (n, FEATURES) of valid rows alone."""
        ...

    def windows(self, windows: Features) -> Floats:
        """Probabilities (k,) that a car fails within the horizon after its window."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one partition in order of arrival; `usable` (n,) is False for suspect rows."""

    ids: Sequence[str]
    event_times: Index
    signals: NDArray[np.floating[Any]]
    usable: NDArray[np.bool_]


@dataclass(slots=True)
class Car:
    """One car: both debounces, its state, and the event time of its last good row (ms)."""

    autoencoder: Debounced
    lstm: Debounced
    good_at: int | None = None
    state: HealthState = "insufficient_data"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Row `row` of its batch. A row that could not be scored has neither score nor probability."""

    row: int
    state: HealthState
    score: float | None = None
    deviations: Floats | None = None
    probability: float | None = None


@dataclass(slots=True)
class _Prepared:
    batch: Batch
    rows: Index  # of the batch, good and not late
    features: Features
    slots: Index
    pushed: Pushed
    ends: Index  # of the batch
    unusable: Index


@dataclass(slots=True)
class Vehicles:
    """Windows and states of the vehicles of one partition, at most `limit` of each."""

    limit: int
    store: WindowStore = field(init=False)
    trends: Trends | None = None
    cars: OrderedDict[str, Car] = field(default_factory=OrderedDict)
    counts: Counter[str] = field(default_factory=Counter)
    """Rows by result: scored, late, incomplete, suspect, no_room."""

    def __post_init__(self) -> None:
        self.store = WindowStore(max_vehicles=self.limit)

    def prepare(self, batch: Batch, now_ms: int) -> _Prepared:
        """Take the rows into the windows."""
        features, complete = compute(batch.signals)
        good = np.flatnonzero(complete & batch.usable)
        slots = self.store.index([batch.ids[i] for i in good.tolist()], now_ms)
        if self.trends is not None:
            self.trends.forget(self.store.handed_over())
        kept = good[slots >= 0]
        pushed = self.store.push(slots[slots >= 0], features[kept], batch.event_times[kept])
        rows = kept[~pushed.late]
        self.counts.update(
            scored=rows.size,
            late=kept.size - rows.size,
            no_room=good.size - kept.size,
            suspect=int((~batch.usable).sum()),
            incomplete=int((batch.usable & ~complete).sum()),
        )
        unusable = np.flatnonzero(~(complete & batch.usable))
        taken = slots[slots >= 0][~pushed.late]
        return _Prepared(batch, rows, features[rows], taken, pushed, kept[pushed.ends], unusable)

    def judge(
        self, model: Model, prepared: _Prepared, residuals: Floats, chances: Floats
    ) -> list[Verdict]:
        """Verdicts of a prepared batch, in order of arrival."""
        batch = prepared.batch
        if self.trends is None:
            self.trends = Trends(model.norms)
        state = regimes(prepared.features)
        deviations = self.trends.push(prepared.slots, state, residuals)
        chance = dict(zip(prepared.ends.tolist(), chances.tolist(), strict=True))
        verdicts = []
        place = dict(zip(prepared.rows.tolist(), range(prepared.rows.size), strict=True))
        values = deviations.max(axis=1).tolist()
        for row in np.union1d(prepared.rows, prepared.unusable).tolist():
            car = self._car(model, batch.ids[row])
            at = int(batch.event_times[row])
            i = place.get(row)
            if i is None:
                if car.state != "alarm" and (car.good_at is None or at - car.good_at > MAX_GAP_MS):
                    car.state = "insufficient_data"
                verdicts.append(Verdict(row, car.state))
                continue
            probability = chance.get(row)
            car.good_at = at
            score = None if math.isnan(values[i]) else values[i]
            car.state = _advance(model, car, score, probability)
            told = None if score is None else deviations[i]
            verdicts.append(Verdict(row, car.state, score, told, probability))
        return verdicts

    def adopt(self, model: Model) -> None:
        """Another model from now on: alarms stay open, half-counted exceedances are forgotten."""
        for car in self.cars.values():
            car.autoencoder.forget_rows(model.autoencoder.debounce)
            car.lstm.forget_rows(model.lstm.debounce)
        self.trends = None

    def _car(self, model: Model, vehicle_id: str) -> Car:
        car = self.cars.get(vehicle_id)
        if car is None:
            car = Car(model.autoencoder.debounce.start(), model.lstm.debounce.start())
            self.cars[vehicle_id] = car
            if len(self.cars) > self.limit:
                self.cars.popitem(last=False)
        else:
            self.cars.move_to_end(vehicle_id)
        return car


def assess(
    model: Model, work: Sequence[tuple[Vehicles, Batch]], now_ms: int
) -> list[list[Verdict]]:
    """Verdicts for each batch of `work`; each model is called once for all of them."""
    prepared = [vehicles.prepare(batch, now_ms) for vehicles, batch in work]
    _, residuals = model.rows(np.concatenate([p.features for p in prepared]))
    chances = model.windows(np.concatenate([p.pushed.windows for p in prepared]))
    verdicts = []
    row = window = 0
    for (vehicles, _), p in zip(work, prepared, strict=True):
        rows, windows = slice(row, row + p.rows.size), slice(window, window + p.ends.size)
        verdicts.append(vehicles.judge(model, p, residuals[rows], chances[windows]))
        row, window = rows.stop, windows.stop
    return verdicts


def _advance(model: Model, car: Car, score: float | None, probability: float | None) -> HealthState:
    lstm = None
    if probability is not None:
        lstm = car.lstm.push(probability, model.lstm.threshold)
    elif car.lstm.alarm:  # while a window fills again after a hole, it stays open
        lstm = "alarm"
    if score is not None:
        return health(car.autoencoder.push(score, model.autoencoder.threshold), lstm)
    # No baseline yet: of a new car, or for a model that was just swapped in.
    if car.autoencoder.alarm or lstm == "alarm":
        return "alarm"
    return car.state
