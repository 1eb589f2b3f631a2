"""The 12 V net: alternator, battery, consumers. Units: V, A, Ohm, kW, Ah, s; shapes (n,).

The voltage is what the regulator wants or what is left over: a current that the alternator cannot
give, at low engine speed or worn, comes out of the battery, whose voltage falls with it. Worn diodes
drop voltage under load before that, so a regulator finds less and less. What the alternator gives, the
belt takes from the engine.
"""

from typing import Final

import numpy as np

from models.simulator.arrays import Floats, Mask, scattered
from models.simulator.ranges import Ranges

CAPACITY_AH: Final = 60.0
EFFICIENCY: Final = 0.6
FULL_A: Final = 150.0
STANDBY_A: Final = 0.02
_INNER_OHM: Final = 0.06
_DIODES_OHM: Final = 0.004
_SWITCHED_S: Final = 60.0


class Electrics:
    """Voltage at the control module, and the charge (0..1) of the 12 V battery of n cars."""

    def __init__(self, n: int, ambient: Floats, rng: np.random.Generator, ranges: Ranges) -> None:
        self._rng = rng
        self._bounds = ranges.consumers_kw
        self._wanted = (
            14.4 - 0.012 * (ambient - 20.0) + scattered(rng, n, 0, 0.04 * ranges.tolerance)
        )
        self._consumers = rng.uniform(*self._bounds, n)
        self.charge: Floats = rng.uniform(0.85, 1.0, n)
        self.volts: Floats = self._wanted.copy()
        self.alternator_a: Floats = np.zeros(n)

    @property
    def belt_kw(self) -> Floats:
        """Power the alternator takes from the engine."""
        return self.volts * self.alternator_a / 1000.0 / EFFICIENCY

    @property
    def rest(self) -> Floats:
        """Voltage of the battery without current."""
        return 11.8 + 1.0 * self.charge

    def step(self, dt: float, rpm: Floats, fan: Floats, worn: Floats, running: Mask) -> None:
        """`dt` seconds; consumers are switched now and then, the radiator's fan draws 10 A at most."""
        switched = np.flatnonzero(self._rng.random(rpm.size) < dt / _SWITCHED_S)
        self._consumers[switched] = self._rng.uniform(*self._bounds, switched.size)
        load = np.where(running, 18.0 + 1000.0 * self._consumers / 14.0 + 10.0 * fan, STANDBY_A)
        able = FULL_A * np.clip(rpm / 2500.0, 0.0, 1.0) ** 0.6 * (1 - 0.85 * worn) * running
        ceiling = self._wanted - _DIODES_OHM * (1 + 8.0 * worn) * np.minimum(load, able)
        # A battery that is nearly full takes little: its voltage rises at once.
        ohm = np.where(able > load, _INNER_OHM / (1.02 - self.charge), _INNER_OHM)
        left = self.rest + ohm * (able - load)
        self.volts = np.where(running, np.minimum(ceiling, left), left)
        into = (self.volts - self.rest) / ohm
        self.alternator_a = (load + into) * running
        self.charge = np.clip(self.charge + into * dt / 3600.0 / CAPACITY_AH, 0.05, 1.0)
