"""Which verdicts are worth a record on topic `scores`, and what the record says.

People and twins get news, not every row: a change of state, a move of the score beyond a deadband,
or a heartbeat so that silence means a stopped scorer. Pure; the memory of what was said last is one
small object a car.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.features import FEATURES, SIGNAL_OF
from models.scoring import Floats, Model, Verdict
from twin.wire.records import HealthState, ModelScore, Score, SignalShare
from twin.wire.telemetry import Telemetry

Why = Literal["state", "deadband", "heartbeat"]

EVIDENCE = 5
"""At most so many signals are named, the strongest first."""


@dataclass(frozen=True, slots=True)
class Policy:
    """`deadband`: how far a score must move, as a share of its threshold (or of itself when it lies
    above); `heartbeat_ms` of event time after which an unchanged score is said again.
    """

    deadband: float
    heartbeat_ms: int


@dataclass(frozen=True, slots=True)
class Said:
    """What was said last of a car."""

    state: HealthState
    danger: float
    event_time: int


class Emission:
    """What was said last of each car of one partition, for at most `limit` cars."""

    def __init__(self, policy: Policy, limit: int) -> None:
        self._policy = policy
        self._limit = limit
        self._said: OrderedDict[str, Said] = OrderedDict()

    def why(self, model: Model, vehicle_id: str, event_time: int, verdict: Verdict) -> Why | None:
        """The reason to say this verdict, None when it says nothing new. What is said is noted."""
        last = self._said.get(vehicle_id)
        danger = _danger(model, verdict) if verdict.score is not None else None
        why: Why | None = None
        if last is None or verdict.state != last.state:
            why = "state"
        elif danger is None:
            return None
        elif abs(danger - last.danger) > self._policy.deadband * max(1.0, last.danger):
            why = "deadband"
        elif event_time - last.event_time >= self._policy.heartbeat_ms:
            why = "heartbeat"
        if why is not None:
            self._said[vehicle_id] = Said(verdict.state, danger or 0.0, event_time)
            self._said.move_to_end(vehicle_id)
            if len(self._said) > self._limit:
                self._said.popitem(last=False)
        return why


def score_record(
    model: Model,
    row: Telemetry,
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


def _danger(model: Model, verdict: Verdict) -> float:
    """The higher of both scores in units of its threshold."""
    score = (verdict.score or 0.0) / model.autoencoder.threshold
    return max(score, (verdict.probability or 0.0) / model.lstm.threshold)


def _short(value: float) -> float:
    return float(f"{value:.6g}")
