"""What may break in a car, when, and the truth about it that only training and evaluation read.

| mode | what happens | where it shows |
|---|---|---|
| cooling | the coolant pump moves less | coolant, fan, intake air, current |
| lubrication | bearings run drier | vibration, friction: throttle, load, heat |
| air_path | the air filter clogs | air flow, power, rich trims, heat |
| ignition | cylinders misfire | roughness at low engine speed, lean trims, timing, power |
| alternator | it gives less current, over worn diodes | 12 V supply, the more the more is switched on |
| battery | cells of the traction battery age | pack voltage, charge, current |
| drive_shaft | it loses balance | vibration and body with road speed, drag |
| tyres | one wheel leaks | its pressure, drag, its corner's shaking |
| shock_absorber | one corner is no longer damped | its corner's shaking |

Engine modes end in limp mode; a car with a flat tyre or a worn shock absorber drives on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np

from models.simulator.ranges import DAYS_TO_FAILURE

Mode = Literal[
    "cooling",
    "drive_shaft",
    "battery",
    "air_path",
    "lubrication",
    "ignition",
    "alternator",
    "tyres",
    "shock_absorber",
]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)
CHASSIS_MODES: Final[tuple[Mode, ...]] = ("tyres", "shock_absorber")
ENGINE_MODES: Final = tuple(mode for mode in MODES if mode not in CHASSIS_MODES)
"""The modes that stop an engine from driving the car."""

DAY_S: Final = 86_400.0


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

    A `failure_s` later than `at_s` is the expectation at full power without parking, else the moment
    it happened. `severity`: how strong the signs are at failure. All None: nothing has begun.
    """

    vehicle: int
    at_s: float
    mode: Mode | None
    onset_s: float | None
    failure_s: float | None
    health: float
    severity: float | None = None

    @property
    def remaining_s(self) -> float | None:
        """Clock seconds of driving at full power that are left; 0 once failed."""
        return None if self.failure_s is None else max(self.failure_s - self.at_s, 0.0)

    def record(self, vehicle_id: str, start_ms: int) -> dict[str, Any]:
        """The record for topic `truth`; times in ms since 1970, `remaining_life` in ms on the clock."""

        def moment(seconds: float | None) -> int | None:
            return None if seconds is None else start_ms + round(seconds * 1000)

        return {
            "vehicle_id": vehicle_id,
            "event_time": moment(self.at_s),
            "mode": self.mode,
            "onset": moment(self.onset_s),
            "failure_time": moment(self.failure_s),
            "remaining_life": None if self.remaining_s is None else round(self.remaining_s * 1000),
            "health": self.health,
            "severity": self.severity,
        }


def draw_faults(
    n: int,
    *,
    share: float,
    onset_s: tuple[float, float],
    seed: int,
    days: tuple[float, float] = DAYS_TO_FAILURE,
    severity: tuple[float, float] = (1.0, 1.0),
    modes: Sequence[Mode] = ENGINE_MODES,
) -> tuple[Fault, ...]:
    """Faults for `round(share * n)` of n cars, `modes` in equal numbers, times drawn uniformly.

    `onset_s` in clock seconds, `days` from onset to failure in component days, `severity` of `Fault`.
    Raises ValueError.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share of cars with a fault is {share}; 0 to 1 is accepted")
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(n)[: round(share * n)]
    onsets = rng.uniform(*onset_s, chosen.size)
    lives = rng.uniform(*days, chosen.size)
    strengths = rng.uniform(*severity, chosen.size)
    return tuple(
        Fault(int(vehicle), modes[i % len(modes)], *map(float, drawn))
        for i, (vehicle, *drawn) in enumerate(zip(chosen, onsets, lives, strengths, strict=True))
    )
