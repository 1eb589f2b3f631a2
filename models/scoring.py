"""Rows in, verdicts out: the one path that the scorer, calibration checks and evaluation all take.

rows -> features, windows (`features`), shared by all models -> each model's numbers, in one call ->
`Judge`: deviations (`trend`), debounce, state. What a row gives depends on the rows of its car before
it and on nothing else: not on the batch it came in, nor on other cars. Pure: the model is anything
that computes residuals for rows and probabilities for windows; time is an argument. Columns
throughout, a loop only over how often the same car is in a batch.

What cannot be scored is counted, and the car is told apart from a healthy one: a row that lacks an
input, is suspect or has a stuck sensor leaves the car's state alone until MAX_GAP_MS passed without a
good row; from then on, as for a car that never sent one, its state is insufficient_data (an open alarm
stays). The same holds for a car that sends late rows alone for so long: its clock was set back.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from models.debounce import Debounce, Debounces
from models.features import (
    MAX_GAP_MS,
    Features,
    Index,
    Pushed,
    WindowStore,
    compute,
    regimes,
    rounds,
)
from models.stuck import Stuck
from models.trend import Norms, Trends
from twin.wire.records import HealthState

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Role = Literal["champion", "challenger"]

STATES: Final[tuple[HealthState, ...]] = ("insufficient_data", "normal", "warning", "alarm")
"""What the numbers in `Verdicts.states` mean."""
_INSUFFICIENT, _NORMAL, _WARNING, ALARM = range(4)


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
        """Largest residual (n,) and residuals (n, FEATURES) of valid rows alone."""
        ...

    def windows(self, windows: Features, deviations: Floats) -> Floats:
        """(k, 4) of windows and the deviations (k, FEATURES) at their ends, seconds of component time.

        Probability that the car fails within the horizon; the life that is left, and the lower and
        upper end of its interval, inf where it has none.
        """
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows (n,) in order of arrival; `usable` is False for suspect rows.

    `partitions`: where each lies on the log, None when nobody will take one away. `arrivals`: when it
    came there, ms; None = when it says.
    """

    ids: Sequence[str]
    event_times: Index
    signals: NDArray[np.floating[Any]]
    usable: Mask
    partitions: Index | None = None
    arrivals: Index | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Row `row` of its batch. A row that could not be scored has neither score nor probability."""

    row: int
    state: HealthState
    score: float | None = None
    deviations: Floats | None = None
    probability: float | None = None
    remaining: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Of the rows of a batch that have one, in order of arrival: arrays (m,), NaN for no number.

    `rows` of the batch; `slots` of the cars; `states` index STATES; `opened`: the row opened an alarm;
    `score` is the largest of `deviations` (m, FEATURES); `remaining` (m, 3) in seconds as of `Model`,
    known where the probability is. `rounds`: positions by occurrence of their
    car (`features.rounds`).
    """

    rows: Index
    slots: Index
    states: NDArray[np.int8]
    opened: Mask
    score: NDArray[np.float64]
    probability: NDArray[np.float64]
    deviations: Floats
    remaining: Floats
    rounds: list[Index]

    def one(self, i: int) -> Verdict:
        """The i-th as an object."""
        score, probability = float(self.score[i]), float(self.probability[i])
        unscored = math.isnan(score)
        return Verdict(
            int(self.rows[i]),
            STATES[self.states[i]],
            None if unscored else score,
            None if unscored else self.deviations[i],
            None if math.isnan(probability) else probability,
            None if math.isnan(probability) else tuple(self.remaining[i].tolist()),
        )

    def __iter__(self) -> Iterator[Verdict]:
        return map(self.one, range(self.rows.size))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch in the windows: what every model judges. Positions are among the rows with a verdict.

    `good` (g,) positions of scored rows, which have `features` and `regimes`; `ends` (k,) positions
    that complete `windows`; all other positions cannot be scored, and those that are `lost` (m,) say so
    at once (`features.Pushed`).
    """

    rows: Index
    slots: Index
    times: Index
    good: Index
    lost: Mask
    features: Features
    regimes: Index
    ends: Index
    windows: Features
    rounds: list[Index]


def in_seconds(said: Floats, horizon_s: float, cap: float) -> Floats:
    """(k, 4) of a network, lives in horizons up to `cap`, as `Model.windows` gives it."""
    told = said * np.array([1, horizon_s, horizon_s, horizon_s], np.float32)
    # Longer lives were never told apart: an interval that reaches the cap has no upper end.
    told[said[:, 3] >= cap * (1 - 1e-6), 3] = np.inf
    return told


class Judge:
    """What one model makes of the cars in numbered slots: baselines, debounces, states."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.trends = Trends(model.norms)
        self.autoencoder = Debounces(model.autoencoder.debounce)
        self.lstm = Debounces(model.lstm.debounce)
        self._states = np.zeros(0, np.int8)
        self._good_at = np.zeros(0, np.int64)  # event time of the last good row, ms

    def judge(self, prepared: Prepared) -> Verdicts:
        """Call the model once; verdicts of all rows."""
        p = prepared
        n = p.rows.size
        self._room(int(p.slots.max(initial=-1)) + 1)
        _, residuals = self.model.rows(p.features)
        deviations = np.full((n, residuals.shape[1]), np.nan, np.float32)
        deviations[p.good] = self.trends.push(p.slots[p.good], p.regimes, residuals)
        score = deviations.max(axis=1).astype(np.float64)
        # A window says little without knowing how the car differs from itself.
        known = ~np.isnan(score[p.ends])
        ends, windows = (p.ends, p.windows) if known.all() else (p.ends[known], p.windows[known])
        said = np.full((n, 4), np.nan, np.float32)
        said[ends] = self.model.windows(windows, deviations[ends])
        probability = said[:, 0].astype(np.float64)
        good = np.zeros(n, bool)
        good[p.good] = True
        states, opened = np.empty(n, np.int8), np.empty(n, bool)
        for i in p.rounds:
            before = self._states[p.slots[i]]
            state = self._step(p.slots[i], p.times[i], good[i], p.lost[i], score[i], probability[i])
            states[i], opened[i] = state, (state == ALARM) & (before != ALARM)
        return Verdicts(
            p.rows, p.slots, states, opened, score, probability, deviations, said[:, 1:], p.rounds
        )

    def succeed(self, former: "Judge") -> None:
        """Take over from another model: states and open alarms stay, half-counted rows do not."""
        self._room(former._states.size)
        self._states[:] = former._states
        self._good_at[:] = former._good_at
        self.autoencoder.alarms_of(former.autoencoder)
        self.lstm.alarms_of(former.lstm)

    def forget(self, slots: Index) -> None:
        """These slots belong to other cars from now on."""
        self.trends.forget(slots)
        self.autoencoder.forget(slots)
        self.lstm.forget(slots)
        slots = slots[slots < self._states.size]
        self._states[slots] = self._good_at[slots] = 0

    def _step(
        self,
        slots: Index,
        times: Index,
        good: Mask,
        lost: Mask,
        score: NDArray[np.float64],
        probability: NDArray[np.float64],
    ) -> NDArray[np.int8]:
        """One row for each of the slots: the states of their cars."""
        model, judged, known = self.model, ~np.isnan(score), ~np.isnan(probability)
        # -1: nothing is known. While a window fills again after a hole, an alarm stays open.
        lstm = np.where(self.lstm.alarm[slots], 2, -1)
        lstm[known] = self.lstm.push(slots[known], probability[known], model.lstm.threshold)
        level = np.zeros(slots.size, np.int8)
        level[judged] = self.autoencoder.push(
            slots[judged], score[judged], model.autoencoder.threshold
        )
        alarm = self.autoencoder.alarm[slots] | (lstm == 2)
        # Alarm needs a debounced model; one raw exceedance of either is a warning. A car whose window
        # is still filling is judged by the autoencoder alone, and is never called normal for that.
        health = np.where((level == 0) & (lstm == 0), _NORMAL, _WARNING)
        health = np.where(lstm < 0, _INSUFFICIENT, health)
        before = self._states[slots]
        # No baseline yet (a new car, or a model that was just swapped in): the state stays.
        state = np.where(alarm, ALARM, np.where(judged, health, before))
        silent = ((times - self._good_at[slots] > MAX_GAP_MS) | lost) & (before != ALARM)
        state = np.where(good, state, np.where(silent, _INSUFFICIENT, before)).astype(np.int8)
        self._states[slots] = state
        self._good_at[slots[good]] = times[good]
        return state

    def _room(self, slots: int) -> None:
        self.autoencoder.room(slots)
        self.lstm.room(slots)
        missing = self.lstm.alarm.size - self._states.size
        if missing > 0:
            self._states = np.concatenate([self._states, np.zeros(missing, np.int8)])
            self._good_at = np.concatenate([self._good_at, np.zeros(missing, np.int64)])


@dataclass(slots=True)
class Vehicles:
    """Windows and states of at most `limit` vehicles, and the judges that share the windows."""

    limit: int
    store: WindowStore = field(init=False)
    judges: dict[Role, Judge] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    """Rows by result: scored, late, incomplete, stuck, suspect, no_room."""
    handed_over: Index = field(default_factory=lambda: np.empty(0, np.int64))
    """Slots that went to another vehicle with the last batch."""
    _stuck: Stuck = field(default_factory=Stuck)
    _partition: Index = field(default_factory=lambda: np.empty(0, np.int64))  # by slot

    def __post_init__(self) -> None:
        self.store = WindowStore(max_vehicles=self.limit)

    def adopt(self, role: Role, model: Model | None) -> None:
        """Another model in a role from now on, or none.

        A challenger that becomes champion keeps the baselines it has learnt; a model that starts
        learns those of every car anew.
        """
        former = self.judges.pop(role, None)
        if model is None:
            return
        judge = Judge(model)
        shadow = self.judges.get("challenger")
        if role == "champion" and shadow is not None and shadow.model.version == model.version:
            judge.trends = shadow.trends
            del self.judges["challenger"]
        if role == "champion" and former is not None:
            judge.succeed(former)
        self.judges[role] = judge

    def prepare(self, batch: Batch, now_ms: int) -> Prepared:
        """Take the rows into the windows."""
        features, complete = compute(batch.signals)
        fit = complete & batch.usable
        slots = self.store.index(batch.ids, now_ms)
        self.handed_over = self.store.handed_over()
        self._forget(self.handed_over)
        self._place(slots, batch.partitions)
        room = slots >= 0
        known = np.flatnonzero(complete & room)
        stuck = np.zeros(room.size, bool)
        stuck[known] = self._stuck.push(slots[known], batch.signals[known])
        kept = np.flatnonzero(fit & room & ~stuck)
        came = None if batch.arrivals is None else batch.arrivals[kept]
        pushed: Pushed = self.store.push(slots[kept], features[kept], batch.event_times[kept], came)
        told = room.copy()
        told[kept[pushed.late & ~pushed.lost]] = False
        lost = np.zeros(room.size, bool)
        lost[kept[pushed.lost]] = True
        self.counts.update(
            scored=kept.size - int(pushed.late.sum()),
            late=int(pushed.late.sum()),
            no_room=int((~room).sum()),
            suspect=int((room & ~batch.usable).sum()),
            incomplete=int((room & batch.usable & ~complete).sum()),
            stuck=int((batch.usable & stuck).sum()),
        )
        rows = np.flatnonzero(told)
        place = np.cumsum(told) - 1
        good = kept[~pushed.late]
        return Prepared(
            rows=rows,
            slots=slots[rows],
            times=batch.event_times[rows],
            good=place[good],
            lost=lost[rows],
            features=features[good],
            regimes=regimes(features[good]),
            ends=place[kept[pushed.ends]],
            windows=pushed.windows,
            rounds=rounds(slots[rows]),
        )

    def restore(
        self, ids: Sequence[str], partition: int, there: Mask, base: Floats, now_ms: int
    ) -> int:
        """Give cars of a partition the champion's baselines that were kept; how many found room."""
        slots = self.store.index(ids, now_ms)
        room = slots >= 0
        self._forget(self.store.handed_over())
        self._place(slots, np.full(slots.size, partition, np.int64))
        self.judges["champion"].trends.restore(slots[room], there[room], base[room])
        return int(room.sum())

    def homes(self, vehicle_ids: Sequence[str]) -> Index:
        """The partition that each known vehicle is on, -1 for all others."""
        slots = self.store.find(vehicle_ids)
        return np.where(slots < 0, -1, self._partition[slots]) if self._partition.size else slots

    def release(self, partition: int) -> Index:
        """Forget the vehicles of a partition; the slots they had."""
        slots = np.flatnonzero(self._partition == partition)
        self.store.drop(slots)
        self._forget(slots)
        self._partition[slots] = -1
        return slots

    def _forget(self, slots: Index) -> None:
        self._stuck.forget(slots)
        for judge in self.judges.values():
            judge.forget(slots)

    def _place(self, slots: Index, partitions: Index | None) -> None:
        missing = int(slots.max(initial=-1)) + 1 - self._partition.size
        if missing > 0:
            more = np.full(max(missing, self._partition.size), -1, np.int64)
            self._partition = np.concatenate([self._partition, more])
        if partitions is not None:
            self._partition[slots[slots >= 0]] = partitions[slots >= 0]


def assess(
    model: Model, work: Sequence[tuple[Vehicles, Batch]], now_ms: int
) -> list[list[Verdict]]:
    """Verdicts of one model for each batch, without a log: for tests and evaluation."""
    verdicts = []
    for vehicles, batch in work:
        judge = vehicles.judges.get("champion")
        if judge is None or judge.model is not model:
            vehicles.adopt("champion", model)
        prepared = vehicles.prepare(batch, now_ms)
        verdicts.append(list(vehicles.judges["champion"].judge(prepared)))
    return verdicts
