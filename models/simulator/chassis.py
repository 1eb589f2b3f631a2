"""What shakes and what rolls: vibration (mV), body acceleration (m/s2), tyres (psi); shapes (n,).

Vibration comes from the engine, its bearings and missing strokes, and from the turning drive shaft,
which shakes more as it wears. Acceleration comes from the road's roughness and speed; an unbalanced
shaft adds to it, more at the rear; a corner without damping swings longer, a soft tyre a little. Four
corners: front left, front right, rear left, rear right; a leak and a worn damper are at one of them.
"""

import numpy as np

from models.simulator.arrays import Floats, Labels, relaxed, scattered
from models.simulator.ranges import Ranges

ROUGHNESS = np.array([0.3, 1.0, 0.7, 0.0])  # standing, city, highway, off
SHAFT_SHAKE = np.array([[0.5], [0.5], [1.0], [1.0]])
LEAK_SHARE = 0.6  # of the pressure, when a tyre has failed


class Chassis:
    """Vibration, accelerometers (4, n) and tyre pressures (4, n) of n cars.

    `corner` (n,) is where a leak or a worn damper would be.
    """

    def __init__(self, n: int, rng: np.random.Generator, ranges: Ranges) -> None:
        self._rng = rng
        self._gain = scattered(rng, n, 1.0, 0.03 * ranges.tolerance)
        self._springs = scattered(rng, n, 1.0, 0.05 * ranges.tolerance)
        self._cold_psi = rng.uniform(30.0, 33.0, (4, n))
        self._tyre_heat: Floats = np.zeros(n)
        self.corner = rng.integers(4, size=n)

    def step(self, dt: float, speed: Floats) -> None:
        """`dt` seconds at road `speed`: tyres warm up."""
        self._tyre_heat = relaxed(self._tyre_heat, 0.06 * speed, dt, 300.0)

    def tyres(self, leak: Floats) -> Floats:
        """Pressures; `leak` is the damage of one tyre."""
        return (self._cold_psi + self._tyre_heat) * (1 - LEAK_SHARE * self._at_corner(leak))

    def vibration(
        self, speed: Floats, rpm: Floats, rough: Floats, dry: Floats, shaft: Floats
    ) -> Floats:
        """`rough` in mV by misfires; `dry` and `shaft` are damages of bearings and drive shaft."""
        turning = 38.0 * speed * (1 + 0.9 * shaft)
        bearings = 0.05 * rpm * (1 + 2.0 * dry)
        vibration: Floats = self._gain * (60.0 + turning + bearings + rough)
        return vibration

    def shake(
        self, regime: Labels, speed: Floats, shaft: Floats, damper: Floats, leak: Floats
    ) -> Floats:
        """Accelerations of one row, (4, n); `damper` is the damage of one shock absorber."""
        corner = 1 + self._at_corner(1.5 * damper + 0.2 * leak)
        road = ROUGHNESS[regime] * (0.1 + 0.02 * speed) * self._springs
        scatter = self._rng.standard_gamma(6.0, (4, speed.size)) / 6.0
        bump = (self._rng.random((4, speed.size)) < 0.01) * np.minimum(speed / 5.0, 1.5)
        shake: Floats = (road * scatter + bump) * corner + SHAFT_SHAKE * 0.04 * shaft * speed
        return shake

    def _at_corner(self, value: Floats) -> Floats:
        values = np.zeros((4, value.size))
        values[self.corner, np.arange(value.size)] = value
        return values
