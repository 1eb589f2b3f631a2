"""Telemetry rows, a model without a network, and pieces of logs for tests of models/."""

from collections.abc import Sequence

import numpy as np

from models.debounce import Debounce
from models.features import FEATURES, INPUTS, REGIMES
from models.scoring import Batch, Gate
from models.stuck import LIVELY
from models.trend import Norms
from twin.wire.telemetry import Telemetry

T0 = 1_790_000_000_000
POLICY = Debounce(k=2, n=3, calm=3, release=0.8)


def norms(**scale: float) -> Norms:
    """No car is unlike another; only the named features count, in these units."""
    shape = (len(REGIMES), len(FEATURES))
    scales = np.full(shape, np.inf, np.float32)
    for name, value in scale.items():
        scales[:, FEATURES.index(name)] = value
    return Norms(np.ones(shape, np.float32), np.zeros(shape, np.float32), scales)


class SpeedModel:
    """A model that anyone can compute by hand.

    The residual of a row is its features, of which only speed counts: a car's score is the mean of its
    newest speeds in a regime; the probability of a window is its last speed / 100, and
    what that leaves of 100 s is the life.
    """

    version = "engine-20260101T000000Z-00000000"
    horizon_s = 86_400
    norms = norms(speed=1.0)

    def __init__(self, threshold: float = 10.0, chance: float = 0.5) -> None:
        self.autoencoder = Gate(threshold, POLICY)
        self.lstm = Gate(chance, POLICY)

    def rows(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return features[:, FEATURES.index("speed")], features

    def windows(self, windows: np.ndarray, deviations: np.ndarray) -> np.ndarray:
        chance = windows[:, -1, FEATURES.index("speed")] / 100
        return np.stack([chance, 100 - chance, 90 - chance, np.full(len(windows), np.inf)], axis=1)


def signals(speed: float = 0.0, at: int = 0) -> dict[str, float]:
    """All inputs of the features, plausible; what is lively in a moving car differs with time `at`."""
    values = dict.fromkeys(INPUTS, 1.0)
    values.update(
        coolant_temp=88.0, battery_voltage=230.0, battery_percentage=0.6, throttle_pos=0.1
    )
    values.update(dict.fromkeys(LIVELY, 1.0 + at % 997 / 1e5))
    return {**values, "speed": speed}


def telemetry(
    vehicle_id: str = "car-1", at: int = T0, speed: float = 0.0, **other: float
) -> Telemetry:
    """One row of one car."""
    return Telemetry(vehicle_id, at, 0, 0, {**signals(speed, at), **other})


def batch(rows: Sequence[tuple[str, int, float]], usable: Sequence[bool] | None = None) -> Batch:
    """(vehicle id, seconds after T0, speed) as one partition's rows; a NaN speed is absent."""
    matrix = np.array([[signals(speed, at)[name] for name in INPUTS] for _, at, speed in rows])
    return Batch(
        [vehicle for vehicle, _, _ in rows],
        np.array([T0 + 1000 * second for _, second, _ in rows], dtype=np.int64),
        matrix.reshape(len(rows), len(INPUTS)),
        np.array([True] * len(rows) if usable is None else usable, dtype=bool),
    )
