"""What may break in a car, when, and the truth about it that only training and evaluation read."""

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np

Mode = Literal["cooling", "drive_shaft", "battery", "air_path"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)

DAY_S: Final = 86_400.0
DAYS_TO_FAILURE: Final = (1.5, 4.0)
"""Usual component days from onset to failure: 90 to 240 s of the clock at acceleration 1440."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Car `vehicle` (its index) begins to degrade `onset_s` clock seconds after the start.

    `days` is the expected time from onset to failure in component days at full power, `severity`
    (0..1] how strong the fault's signs are at failure: a component may break and hardly have shown it.
    """

    vehicle: int
    mode: Mode
    onset_s: float
    days: float
    severity: float = 1.0


@dataclass(frozen=True, slots=True)
class Truth:
    """What is so about one car `at_s` clock seconds after the start; `health` 1 = new, 0 = failed.

    A `failure_s` later than `at_s` is the expectation at full power, else the moment it happened.
    """

    vehicle: int
    at_s: float
    mode: Mode | None
    onset_s: float | None
    failure_s: float | None
    health: float

    def record(self, vehicle_id: str, start_ms: int) -> dict[str, Any]:
        """The record for topic `truth`; times in ms since 1970."""

        def moment(seconds: float | None) -> int | None:
            return None if seconds is None else start_ms + round(seconds * 1000)

        return {
            "vehicle_id": vehicle_id,
            "event_time": moment(self.at_s),
            "mode": self.mode,
            "onset": moment(self.onset_s),
            "failure_time": moment(self.failure_s),
            "health": self.health,
        }


def draw_faults(
    n: int,
    *,
    share: float,
    onset_s: tuple[float, float],
    seed: int,
    days: tuple[float, float] = DAYS_TO_FAILURE,
    severity: float = 1.0,
) -> tuple[Fault, ...]:
    """Faults for `round(share * n)` of n cars, modes in equal numbers, times drawn uniformly.

    `onset_s` in clock seconds, `days` from onset to failure in component days; all of one `severity`.
    Raises ValueError.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share of cars with a fault is {share}; 0 to 1 is accepted")
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(n)[: round(share * n)]
    onsets = rng.uniform(*onset_s, chosen.size)
    lives = rng.uniform(*days, chosen.size)
    return tuple(
        Fault(int(vehicle), MODES[i % len(MODES)], float(onset), float(life), severity)
        for i, (vehicle, onset, life) in enumerate(zip(chosen, onsets, lives, strict=True))
    )
