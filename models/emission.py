"""Which verdicts are worth a record on topic `scores`, and what the record says.

People and twins get news, not every row: a change of state, a move of the score beyond a deadband,
or a heartbeat so that silence means a stopped scorer. For tests every verdict can be said
(`Policy.every`). Pure; the memory of what was said last is three numbers a car.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from models.features import FEATURES, SIGNAL_OF, Index
from models.scoring import Floats, Model, Verdict, Verdicts
from twin.wire.records import ModelScore, Score, SignalShare
from twin.wire.telemetry import Sample, Telemetry

Why = Literal["state", "deadband", "heartbeat", "every"]
WHYS: Final[tuple[Why, ...]] = get_args(Why)

EVIDENCE = 5
"""At most so many signals are named, the strongest first."""

_STATE, _DEADBAND, _HEARTBEAT, _EVERY = range(4)
_NEVER: Final = -1


@dataclass(frozen=True, slots=True)
class Policy:
    """`deadband`: how far a score must move, as a share of its threshold (or of itself when it lies
    above); `heartbeat_ms` of event time after which an unchanged score is said again; `every`: say
    what is no news, too.
    """

    deadband: float
    heartbeat_ms: int
    every: bool = False


class Emission:
    """What was said last of the car in each slot."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._state = np.full(0, _NEVER, np.int8)
        self._danger = np.zeros(0)
        self._time = np.zeros(0, np.int64)

    def news(self, model: Model, verdicts: Verdicts, times: Index) -> NDArray[np.int8]:
        """Why to say each verdict (m,): an index into WHYS, -1 for what is no news.

        `times` (m,) are event times in ms. What is said is noted.
        """
        self._room(int(verdicts.slots.max(initial=-1)) + 1)
        # The higher of both scores in units of its threshold.
        score = verdicts.score / model.autoencoder.threshold
        danger = np.fmax(score, np.nan_to_num(verdicts.probability) / model.lstm.threshold)
        danger[np.isnan(score)] = np.nan
        why = np.empty(danger.size, np.int8)
        for i in verdicts.rounds:
            why[i] = self._say(verdicts.slots[i], verdicts.states[i], danger[i], times[i])
        return why

    def forget(self, slots: Index) -> None:
        """These slots belong to other cars from now on."""
        self._state[slots[slots < self._state.size]] = _NEVER

    def _say(
        self, slots: Index, states: NDArray[np.int8], danger: NDArray[np.float64], times: Index
    ) -> NDArray[np.int8]:
        policy, last = self._policy, self._danger[slots]
        moved = np.abs(danger - last) > policy.deadband * np.maximum(1.0, last)
        old = times - self._time[slots] >= policy.heartbeat_ms
        other = _EVERY if policy.every else _NEVER
        why = np.where(moved, _DEADBAND, np.where(old, _HEARTBEAT, other))
        why = np.where(np.isnan(danger), other, why)
        why = np.where(states != self._state[slots], _STATE, why).astype(np.int8)
        said = (why != _NEVER) & (why != _EVERY)
        self._state[slots[said]] = states[said]
        self._danger[slots[said]] = np.nan_to_num(danger[said])
        self._time[slots[said]] = times[said]
        return why

    def _room(self, slots: int) -> None:
        missing = slots - self._state.size
        if missing > 0:
            more = max(missing, self._state.size)
            self._state = np.concatenate([self._state, np.full(more, _NEVER, np.int8)])
            self._danger = np.concatenate([self._danger, np.zeros(more)])
            self._time = np.concatenate([self._time, np.zeros(more, np.int64)])


def score_record(
    model: Model,
    row: Sample | Telemetry,
    verdict: Verdict,
    why: Why,
    *,
    partition: int,
    offset: int,
    now_ms: int,
) -> Score:
    """The record for topic `scores`; its id is the same again when the row is scored again."""
    models: dict[str, ModelScore] = {}
    if verdict.score is not None and verdict.deviations is not None:
        models["autoencoder"] = ModelScore(
            version=model.version,
            score=_short(verdict.score),
            threshold=_short(model.autoencoder.threshold),
            signals=shares(verdict.deviations),
        )
    if verdict.probability is not None:
        models["lstm"] = ModelScore(
            version=model.version,
            failure_probability=_short(verdict.probability),
            threshold=_short(model.lstm.threshold),
            horizon_s=model.horizon_s,
        )
        if verdict.remaining is not None:
            left, low, high = verdict.remaining
            models["lstm"]["remaining_s"] = round(left)
            models["lstm"]["remaining_low_s"] = round(low)
            if math.isfinite(high):
                models["lstm"]["remaining_high_s"] = round(high)
    return Score(
        id=f"{row.vehicle_id}:{offset}:{model.version}",
        vehicle_id=row.vehicle_id,
        event_time=row.event_time,
        session=row.session,
        sequence=row.sequence,
        partition=partition,
        offset=offset,
        scored_at=now_ms,
        state=verdict.state,
        models=models,
        why=why,
    )


def shares(deviations: Floats) -> list[SignalShare]:
    """The signals behind a score: each one's share of the squared residuals, at most EVIDENCE."""
    squares = np.square(deviations.astype(np.float64))
    total = float(squares.sum()) or 1.0
    by_signal: dict[str, float] = {}
    for name, square in zip(FEATURES, squares.tolist(), strict=True):
        signal = SIGNAL_OF[name]
        by_signal[signal] = by_signal.get(signal, 0.0) + square / total
    first = sorted(by_signal.items(), key=lambda item: -item[1])[:EVIDENCE]
    return [SignalShare(signal=signal, share=round(share, 3)) for signal, share in first]


def _short(value: float) -> float:
    return float(f"{value:.6g}")
