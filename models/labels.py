"""What is known of each simulated car's fate, and what that makes of its rows.

The truth tells mode, onset and failure time; from it come the label of a row (fails within the
horizon, or has failed), which rows are healthy, and the split. A `life` is one car of one simulated
history: the same vehicle id in a second history is another car, told apart by its session, yet both
fall into the same part of the split, which goes by vehicle id: no vehicle is trained on and tested.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from models.errors import NotEnoughData
from twin.wire.errors import WireError
from twin.wire.ids import check_vehicle_id

Mask = NDArray[np.bool_]
Times = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Fate:
    """One life: times in ms; `failure` is the moment, or the expected one while not `failed`."""

    vehicle_id: str
    mode: str | None = None
    onset: int | None = None
    failure: int | None = None
    failed: bool = False

    def label(self, times: Times, horizon_ms: float) -> Mask:
        """Which of its rows lie within the horizon before the failure, or behind it."""
        if self.failure is None:
            return np.zeros(times.size, dtype=bool)
        return times >= self.failure - horizon_ms

    def left(self, times: Times, unit_ms: float) -> NDArray[np.float32]:
        """Life left at each of its rows, in units: to the failure, zero behind it.

        Of a car that has a fault and has not failed yet, at least what was seen of it; inf without one.
        """
        if self.failure is None or self.mode is None:
            return np.full(times.size, np.inf, np.float32)
        end = self.failure if self.failed else int(times.max(initial=0))
        return (np.maximum(end - times, 0) / unit_ms).astype(np.float32)

    def healthy(self, times: Times, margin_ms: float) -> Mask:
        """Which of its rows lie more than `margin_ms` before any fault began."""
        if self.onset is None:
            return np.ones(times.size, dtype=bool)
        return times < self.onset - margin_ms


@dataclass(frozen=True, slots=True)
class Lives:
    """What is known of the life that is left at the end of each window, (n,) each.

    `left` is the time to the failure, zero behind it. Where `censored`, no failure was seen: life
    lasts at least `left`, which is inf for a car that will not fail.
    """

    left: NDArray[np.float32]
    censored: Mask

    def __post_init__(self) -> None:
        if self.left.shape != self.censored.shape or self.left.ndim != 1:
            raise ValueError(
                f"lives of shapes {self.left.shape} and {self.censored.shape}; (n,) is accepted"
            )
        if np.isnan(self.left).any() or (self.left < 0).any():
            raise ValueError("a life that is negative or NaN; hours or cycles from 0 are accepted")
        if not np.isfinite(self.left[~self.censored]).all():
            raise ValueError("an endless life that is not censored; a finite number is accepted")

    def __getitem__(self, chosen: Any) -> "Lives":
        """The lives of some windows."""
        return Lives(self.left[chosen], self.censored[chosen])

    def fails(self, horizon: float) -> Mask:
        """Which are known to fail within the horizon."""
        return ~self.censored & (self.left <= horizon)

    def told(self, horizon: float) -> Mask:
        """Of which it is known whether they fail within the horizon."""
        return ~self.censored | (self.left > horizon)


@dataclass(slots=True)
class Truth:
    """Fates by life, from the records of topic `truth`."""

    fates: dict[str, Fate] = field(default_factory=dict)
    unreadable: int = 0

    def life_of(self, vehicle_id: str, session: int) -> str:
        """The life that a telemetry row belongs to."""
        life = f"{vehicle_id}/{session}"
        return life if life in self.fates else vehicle_id


def read_truth(values: Iterable[bytes]) -> Truth:
    """The latest record of each life counts; records that are no truth are counted and left out."""
    truth = Truth()
    newest: dict[str, int] = {}
    for value in values:
        try:
            record = orjson.loads(value)
            vehicle_id, at = check_vehicle_id(record["vehicle_id"]), int(record["event_time"])
            fate = Fate(
                vehicle_id,
                record["mode"],
                record["onset"],
                record["failure_time"],
                float(record["health"]) <= 0,
            )
            session = record.get("session")
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, WireError):
            truth.unreadable += 1
            continue
        life = vehicle_id if session is None else f"{vehicle_id}/{session}"
        if at >= newest.get(life, at):
            newest[life] = at
            truth.fates[life] = fate
    return truth


@dataclass(frozen=True, slots=True)
class Split:
    """Vehicle ids of each part; no id is in two."""

    train: frozenset[str]
    validate: frozenset[str]
    calibrate: frozenset[str]
    test: frozenset[str]


PARTS = ("train", "validate", "calibrate", "test")
_SHARES = (0.45, 0.10, 0.25, 0.20)


def split(fates: Iterable[Fate], seed: int) -> Split:
    """Deal vehicles to the parts, each mode (and health) in the same shares.

    `validate` stops the autoencoder's training, `calibrate` sets scales and thresholds, `test` is only
    looked at.
    Raises `NotEnoughData` when a part would have no healthy or no faulty vehicle.
    """
    rng = np.random.default_rng(seed)
    mode_of: dict[str, str | None] = {}
    for fate in fates:
        mode_of[fate.vehicle_id] = mode_of.get(fate.vehicle_id) or fate.mode
    dealt: dict[str, set[str]] = {part: set() for part in PARTS}
    for faulty in (False, True):
        # In order of mode, so that every part gets its share of each.
        group = [v for v in mode_of if (mode_of[v] is not None) == faulty]
        group = sorted(
            np.array(sorted(group))[rng.permutation(len(group))].tolist(),
            key=lambda v: str(mode_of[v]),
        )
        debt = np.zeros(len(PARTS))
        for vehicle in group:
            debt += _SHARES
            part = int(debt.argmax())
            debt[part] -= 1
            dealt[PARTS[part]].add(vehicle)
        short = [part for part in PARTS if not dealt[part].intersection(group)]
        if short:
            raise NotEnoughData(
                f"{len(group)} {'faulty' if faulty else 'healthy'} vehicles are too few to"
                f" {' and '.join(short)}; simulate more vehicles or more days"
            )
    return Split(**{part: frozenset(dealt[part]) for part in PARTS})
