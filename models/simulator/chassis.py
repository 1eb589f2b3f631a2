"""What shakes and what rolls: vibration (mV), body acceleration (m/s2), tyres (psi); shapes (n,).

Vibration comes from the engine and from the turning drive shaft, which shakes more as it wears.
Acceleration comes from the road's roughness and speed; an unbalanced shaft adds to it, more at the
rear. Four corners: front left, front right, rear left, rear right.
"""

import numpy as np

from models.simulator.arrays import Floats, Labels, relaxed, scattered
from models.simulator.ranges import Ranges

ROUGHNESS = np.array([0.3, 1.0, 0.7])  # parked, city, highway
SHAFT_SHAKE = np.array([[0.5], [0.5], [1.0], [1.0]])


class Chassis:
    """Vibration, accelerometers (4, n) and tyre pressures (4, n) of n cars."""

    def __init__(self, n: int, rng: np.random.Generator, ranges: Ranges) -> None:
        self._rng = rng
        self._gain = scattered(rng, n, 1.0, 0.03 * ranges.tolerance)
        self._springs = scattered(rng, n, 1.0, 0.05 * ranges.tolerance)
        self._cold_psi = rng.uniform(30.0, 33.0, (4, n))
        self._tyre_heat: Floats = np.zeros(n)
        self.vibration: Floats = np.zeros(n)
        self.shake: Floats = np.zeros((4, n))

    @property
    def tyres(self) -> Floats:
        return self._cold_psi + self._tyre_heat

    def step(self, dt: float, regime: Labels, speed: Floats, rpm: Floats, shaft: Floats) -> None:
        """`dt` seconds; `shaft` is the damage of the drive shaft."""
        turning = 38.0 * speed * (1 + 0.9 * shaft)
        self.vibration = self._gain * (60.0 + turning + 0.05 * rpm)
        road = ROUGHNESS[regime] * (0.1 + 0.02 * speed) * self._springs
        scatter = self._rng.standard_gamma(6.0, (4, speed.size)) / 6.0
        bump = (self._rng.random((4, speed.size)) < 0.01) * np.minimum(speed / 5.0, 1.5)
        self.shake = road * scatter + bump + SHAFT_SHAKE * 0.04 * shaft * speed
        self._tyre_heat = relaxed(self._tyre_heat, 0.06 * speed, dt, 300.0)
