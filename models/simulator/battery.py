"""The traction battery: charge, voltage, current. Units: kW, kWh, V, A, Ohm; shapes (n,).

Voltage is the open-circuit line of the pack (180 V empty, 260 V full) less the sag by current. It
assists the engine, feeds the auxiliaries, takes braking energy back and is charged by the engine
when low. A worn battery has more resistance, a weaker cell, less capacity, and must be cooled.
"""

import numpy as np

from models.simulator.arrays import Floats, Mask, scattered
from models.simulator.ranges import Ranges

CAPACITY_KWH = 8.0


class Battery:
    """State of charge (0..1), voltage and current (positive = discharge) of n packs."""

    def __init__(self, n: int, rng: np.random.Generator, ranges: Ranges) -> None:
        self.charge: Floats = rng.uniform(*ranges.charge, n)
        self._offset = scattered(rng, n, 0.0, 0.5 * ranges.tolerance)
        self._resistance = scattered(rng, n, 0.15, 0.01 * ranges.tolerance)
        self.voltage: Floats = 180.0 + 80.0 * self.charge + self._offset
        self.current: Floats = np.zeros(n)

    @property
    def wanted_kw(self) -> Floats:
        """Power the engine should put into the pack."""
        return np.clip((0.45 - self.charge) * 60.0, 0.0, 6.0)

    def step(
        self, dt: float, load_kw: Floats, charge_kw: Floats, worn: Floats, running: Mask
    ) -> None:
        """`dt` seconds with `load_kw` taken and `charge_kw` offered; a full pack takes no more.

        A car that is off draws nothing from the pack.
        """
        room = np.clip((0.97 - self.charge) * 20.0, 0.0, 1.0)
        power = np.where(running, load_kw + 1.2 * worn - charge_kw * room, 0.0)
        rest = 180.0 + 80.0 * self.charge + self._offset - 10.0 * worn
        resistance = self._resistance * (1 + 2.5 * worn)
        # power = (rest - current * resistance) * current, solved for the smaller current
        root = np.sqrt(np.maximum(rest**2 - 4000.0 * resistance * power, 0.0))
        self.current = (rest - root) / (2 * resistance)
        self.voltage = rest - self.current * resistance
        used = self.current * rest / 1000.0 * dt / 3600.0
        self.charge = np.clip(self.charge - used / (CAPACITY_KWH * (1 - 0.5 * worn)), 0.02, 1.0)
