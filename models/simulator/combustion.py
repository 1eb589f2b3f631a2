"""What the engine computer does to fuel and spark. Trims and loads 0..1, degrees of crank; (n,).

The lambda probe finds the mixture too lean or too rich; the short trim answers at once and hands over
to the long one, which forgets nothing while the probe is cold (`CLOSED_LOOP_C`). A misfire leaves
oxygen in the exhaust, which the probe takes for a lean mixture; a clogged air path makes it rich.
Spark comes earlier with engine speed, later with load and hot intake air, later and uneven in an engine
that misfires.
"""

from typing import Final

import numpy as np

from models.simulator.arrays import Floats, relaxed, scattered
from models.simulator.engine import IDLE_RPM
from models.simulator.ranges import Ranges

CLOSED_LOOP_C: Final = 40.0
LEARNT_S: Final = 30.0
"""Time constant with which the long trim takes over from the short one."""


class Combustion:
    """Fuel trims and timing of n engines, and how rough they run."""

    def __init__(self, n: int, rng: np.random.Generator, ranges: Ranges) -> None:
        self._rng = rng
        self._injectors = scattered(rng, n, 0.0, 0.02 * ranges.tolerance)
        self._spark = scattered(rng, n, 0.0, 0.6 * ranges.tolerance)
        self._load: Floats = np.zeros(n)
        self.long_trim: Floats = self._injectors.copy()
        self.short_trim: Floats = np.zeros(n)
        self.timing: Floats = np.zeros(n)

    def step(
        self,
        dt: float,
        load: Floats,
        rpm: Floats,
        block: Floats,
        intake: Floats,
        misfire: Floats,
        air_path: Floats,
    ) -> None:
        """`dt` seconds; `misfire` and `air_path` are damages. A change of load leans for a moment."""
        closed = (block > CLOSED_LOOP_C) & (rpm > 0.5 * IDLE_RPM)
        lag = relaxed(self._load, load, dt, 2.0)
        lean = self._injectors + 0.14 * misfire - 0.10 * air_path + 0.25 * (load - lag)
        self._load = lag
        gap = np.clip(lean - self.long_trim, -0.25, 0.25)
        self.short_trim = np.where(closed, gap, 0.0)
        learnt = relaxed(self.long_trim, lean, dt, LEARNT_S)
        self.long_trim = np.clip(np.where(closed, learnt, self.long_trim), -0.25, 0.25)
        early = 10.0 + 18.0 * np.clip((rpm - IDLE_RPM) / 3000.0, 0.0, 1.0) - 12.0 * load
        late = 0.15 * np.maximum(intake - 40.0, 0.0) + 7.0 * misfire
        self.timing = early - late + self._spark

    def uneven(self, misfire: Floats) -> tuple[Floats, Floats]:
        """What misfires add to this row's timing (deg) and engine speed (rpm), each (n,)."""
        jitter = misfire * self._rng.standard_normal((2, misfire.size))
        return 2.0 * jitter[0], 40.0 * jitter[1]


def roughness(rpm: Floats, misfire: Floats) -> Floats:
    """Vibration (mV) by missing strokes: felt at idle, lost in the noise at speed."""
    return 200.0 * misfire * (IDLE_RPM / np.maximum(rpm, IDLE_RPM)) ** 1.5
