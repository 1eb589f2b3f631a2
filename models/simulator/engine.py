"""The engine: its speed, load, air and heat. Units: kW, kJ, degC, rpm, g/s, kPa, s; shapes (n,).

Air flow is engine speed times load times density. Heat warms a block with a thermal mass; from 86
degC a thermostat lets it out through a radiator that cools with the wind and the fan. The sensor
sits at the engine's outlet, hotter than the block's mean by heat over coolant flow: so a worn
coolant pump shows at once under load, and more and more as the block warms up. Dry bearings drag in
proportion to engine speed: the driver gives more, and half of it heats the block. With the engine off
the coolant stands still, and the block cools towards ambient with `COOLDOWN_S`.
"""

from typing import Final

import numpy as np

from models.simulator.arrays import Floats, Mask, relaxed, scattered
from models.simulator.driving import ENGINE_KW
from models.simulator.ranges import Ranges

IDLE_RPM = 780.0
DISPLACEMENT_L = 2.0
BLOCK_KJ_PER_K: Final = 40.0
COOLDOWN_S: Final = 9000.0
"""Time constant of an engine that is off."""


class Engine:
    """Speed, load and air of n engines."""

    def __init__(self, n: int) -> None:
        self.rpm: Floats = np.full(n, IDLE_RPM)
        self.load: Floats = np.zeros(n)
        self.air_flow: Floats = np.zeros(n)
        self.run_s: Floats = np.zeros(n)

    @property
    def manifold_kpa(self) -> Floats:
        return 28.0 + 72.0 * self.load

    def friction_kw(self, dry: Floats) -> Floats:
        """What bearings that run `dry` take, beyond what they took when they were sound."""
        return 2.5 * dry * self.rpm / 1000.0

    def step(
        self,
        dt: float,
        speed: Floats,
        kw: Floats,
        intake_temp: Floats,
        air_path: Floats,
        running: Mask,
    ) -> None:
        """`dt` seconds at road `speed` and power `kw`; a clogged air path lets less air through."""
        turning = np.where(running, IDLE_RPM + 42.0 * speed + 2600.0 * kw / ENGINE_KW, 0.0)
        self.rpm = relaxed(self.rpm, turning, dt, 0.5)
        full_kw = ENGINE_KW * np.maximum(self.rpm, 1.0) / 5000.0
        self.load = np.where(running, np.minimum(0.12 + 0.85 * kw / full_kw, 1.0), 0.0)
        self.run_s = np.where(running, self.run_s + dt, 0.0)
        density = 1.2 * 293.0 / (273.0 + intake_temp)
        breaths = self.rpm / 120.0 * DISPLACEMENT_L
        self.air_flow = breaths * density * 0.85 * (0.1 + 0.9 * self.load) * (1 - 0.25 * air_path)


class Cooling:
    """Coolant and intake air of n engines. `cold` (n,) bool: started at ambient temperature."""

    def __init__(self, n: int, cold: Mask, rng: np.random.Generator, ranges: Ranges) -> None:
        self.ambient = rng.uniform(*ranges.ambient_c, n)
        self._radiator = scattered(rng, n, 1.0, 0.06 * ranges.tolerance)
        self._thermostat = scattered(rng, n, 86.0, 0.8 * ranges.tolerance)  # begins to open
        self._block: Floats = np.where(cold, self.ambient, self._thermostat + rng.uniform(-1, 3, n))
        self.outlet: Floats = self._block.copy()
        self.fan: Floats = np.zeros(n)
        self.intake: Floats = self.ambient + 5.0

    @property
    def block(self) -> Floats:
        """Mean temperature of block and coolant."""
        return self._block

    def step(
        self,
        dt: float,
        speed: Floats,
        engine_kw: Floats,
        friction_kw: Floats,
        rpm: Floats,
        pump: Floats,
        rich: Floats,
        running: Mask,
    ) -> None:
        """`dt` seconds; `pump` is the damage of the coolant pump, `rich` that of the air path."""
        heat = ((3.5 + 0.6 * engine_kw) * (1 + 0.25 * rich) + 0.5 * friction_kw) * running
        circulation = 1 / (1 + 8.0 * pump)
        flow = 5.5 * (0.4 + 0.2 * rpm / 1000.0) * circulation  # kW per K
        opening = np.clip((self._block - self._thermostat) / 4.0, 0.02, 1.0)
        air = 0.12 + 0.018 * speed + 0.25 * self.fan
        moved = self._radiator * opening * circulation**0.8 * air
        loss = np.where(running, moved, BLOCK_KJ_PER_K / COOLDOWN_S) * (self._block - self.ambient)
        self._block = self._block + dt * (heat - loss) / BLOCK_KJ_PER_K
        self.outlet = relaxed(self.outlet, self._block + heat / flow, dt, 3.0)
        blow = np.where(running, np.clip((self.outlet - 98.0) / 8.0, 0.0, 1.0), 0.0)
        self.fan = relaxed(self.fan, blow, dt, 4.0)
        soak = 0.25 * (self.outlet - self.ambient) / (1 + speed / 6.0)
        self.intake = relaxed(self.intake, self.ambient + 3.0 + soak, dt, 20.0)
