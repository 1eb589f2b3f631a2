"""n cars that drive, warm up, wear and report: one `step` gives one row of signals per car.

The order of a step is the order of cause: wear, drive (the driver sees the battery's wish to be
charged), engine and its heat, battery, chassis; then the sensors add offset, noise and resolution.
Everything is drawn from `seed`: the same arguments give the same rows. No loop runs over cars.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.simulator.arrays import Floats, Labels, scattered
from models.simulator.battery import Battery
from models.simulator.chassis import Chassis
from models.simulator.driving import Drive
from models.simulator.engine import Cooling, Engine
from models.simulator.faults import Fault, Truth
from models.simulator.ranges import TRAIN, Ranges
from models.simulator.wear import Wear

Rows = dict[str, NDArray[Any]]
"""Signal name -> one value per car, shape (n,): float32, or int32 for whole numbers."""

ACCELERATION: Final = 1440.0
LIMP: Final = 0.35
"""Share of power and top speed that is left to a car that has failed."""

FIRMWARE: Final = 2000

# Signal: (possible low, high, standard deviation of the noise, decimals of the resolution).
_SENSORS: Final[dict[str, tuple[float, float, float, int]]] = {
    "coolant_temp": (-50, 215, 0.3, 1),
    "intake_air_temp": (-50, 215, 0.3, 1),
    "intake_air_flow_speed": (0, 656, 0.15, 2),
    "battery_percentage": (0, 1, 0.001, 3),
    "battery_voltage": (0, 1000, 0.4, 1),
    "current_draw": (-1000, 1000, 0.4, 1),
    "speed": (0, 120, 0.05, 2),
    "engine_vibration_amplitude": (0, 20000, 6.0, 0),
    "throttle_pos": (0, 1, 0.002, 3),
    "accelerometer_1_1_value": (0, 160, 0.02, 2),
    "accelerometer_1_2_value": (0, 160, 0.02, 2),
    "accelerometer_2_1_value": (0, 160, 0.02, 2),
    "accelerometer_2_2_value": (0, 160, 0.02, 2),
    "engine_speed": (0, 16384, 8.0, 0),
    "engine_load": (0, 1, 0.005, 3),
    "manifold_pressure": (0, 255, 0.5, 1),
    "control_module_voltage": (0, 66, 0.03, 2),
}
_NOISY: Final = tuple(_SENSORS)
_LOW = np.array([sensor[0] for sensor in _SENSORS.values()], dtype=float)[:, None]
_HIGH = np.array([sensor[1] for sensor in _SENSORS.values()], dtype=float)[:, None]
_NOISE = np.array([sensor[2] for sensor in _SENSORS.values()])[:, None]
_RESOLUTION = 10.0 ** np.array([sensor[3] for sensor in _SENSORS.values()])[:, None]
_TYRES: Final = tuple(f"tire_pressure_{axle}_{side}" for axle in (1, 2) for side in (1, 2))
SIGNALS: Final = (*_NOISY, *_TYRES, "control_unit_firmware")
"""Names of what every car emits."""


class Cars:
    """The fleet. `faults` names the cars that degrade; the others stay healthy.
    `ranges`: what cars and climate are drawn from.

    `interval_s` is the time between rows on the clock, `acceleration` how much faster components
    wear than the clock runs. Raises ValueError for arguments out of range.
    """

    def __init__(
        self,
        n: int,
        *,
        seed: int,
        interval_s: float = 1.0,
        acceleration: float = ACCELERATION,
        faults: Sequence[Fault] = (),
        ranges: Ranges = TRAIN,
    ) -> None:
        if n < 1:
            raise ValueError(f"{n} cars; at least 1 is accepted")
        if not (interval_s > 0 and acceleration > 0):
            raise ValueError(
                f"interval {interval_s} s, acceleration {acceleration}; above 0 is accepted"
            )
        streams = np.random.SeedSequence(seed).spawn(6)
        start, drive, cooling, battery, chassis, wear = map(np.random.default_rng, streams)
        cold = start.random(n) < ranges.cold_share
        self.n = n
        self.interval_s = interval_s
        self.steps = 0
        self._changed: Labels = np.empty(0, dtype=np.int64)
        self._rng = start
        self._noise = _NOISE * ranges.noise
        self._drive = Drive(n, cold, drive)
        self._engine = Engine(n)
        self._cooling = Cooling(n, cold, cooling, ranges)
        self._battery = Battery(n, battery, ranges)
        self._chassis = Chassis(n, chassis, ranges)
        self._wear = Wear(n, faults, acceleration, wear)
        self._climate_kw = 0.4 + 0.05 * np.abs(self._cooling.ambient - 21.0)
        self._coolant_offset = scattered(start, n, 0.0, 0.5 * ranges.tolerance)
        self._air_gain = scattered(start, n, 1.0, 0.02 * ranges.tolerance)

    @property
    def elapsed_s(self) -> float:
        """Seconds of the clock since the start; the time of the row that `step` returned last."""
        return self.steps * self.interval_s

    def step(self, power_limit: Floats | float | None = None) -> Rows:
        """Advance by one interval; one row per car.

        `power_limit`: the share of power (0..1] a car may use, for all or per car (n,); None = all.
        """
        limit = np.broadcast_to(np.asarray(1.0 if power_limit is None else power_limit), (self.n,))
        if not (np.all(limit > 0) and np.all(limit <= 1)):
            raise ValueError("power limit: above 0 and at most 1 is accepted")
        before_s = self.elapsed_s
        self.steps += 1
        limit = np.where(self._wear.failed, np.minimum(limit, LIMP), limit)
        self._changed = self._wear.step(before_s, self.elapsed_s, limit)
        # The driver reacts within seconds: a longer interval is driven in parts of 1 s at most.
        parts = math.ceil(self.interval_s)
        for _ in range(parts):
            self._advance(self.interval_s / parts, limit)
        return self._read()

    def changes(self) -> list[Truth]:
        """Cars in which a fault began or ended in failure during the last step."""
        return [self._wear.truth(int(car), self.elapsed_s) for car in self._changed]

    def truth(self) -> list[Truth]:
        """What is so about every car now: the record that closes a run."""
        return [self._wear.truth(car, self.elapsed_s) for car in range(self.n)]

    def _advance(self, dt: float, limit: Floats) -> None:
        drive, engine, cooling, battery = self._drive, self._engine, self._cooling, self._battery
        shaft, air_path = self._wear.signs("drive_shaft"), self._wear.signs("air_path")
        generator_kw = battery.wanted_kw
        drive.step(dt, limit, generator_kw, shaft, air_path)
        engine.step(dt, drive.speed, drive.engine_kw, cooling.intake, air_path)
        pump = self._wear.signs("cooling")
        cooling.step(dt, drive.speed, drive.engine_kw, engine.rpm, pump, air_path)
        load_kw = drive.motor_kw + self._climate_kw + 1.5 * cooling.fan
        regained_kw = np.minimum(0.5 * drive.brake_kw, 20.0)
        battery.step(dt, load_kw, regained_kw + generator_kw, self._wear.signs("battery"))
        self._chassis.step(dt, drive.regime, drive.speed, engine.rpm, shaft)

    def _read(self) -> Rows:
        drive, engine, battery, chassis = self._drive, self._engine, self._battery, self._chassis
        values = np.empty((len(_NOISY), self.n))
        for row, value in enumerate(
            (
                self._cooling.outlet + self._coolant_offset,
                self._cooling.intake,
                engine.air_flow * self._air_gain,
                battery.charge,
                battery.voltage,
                battery.current,
                drive.speed,
                chassis.vibration,
                drive.throttle,
                *chassis.shake,
                engine.rpm,
                engine.load,
                engine.manifold_kpa,
                14.1 - 0.3 * self._cooling.fan - 0.8 * self._wear.signs("battery"),
            )
        ):
            values[row] = value
        values += self._noise * self._rng.standard_normal(values.shape)
        np.clip(values, _LOW, _HIGH, out=values)
        values = np.rint(values * _RESOLUTION) / _RESOLUTION
        rows: Rows = dict(zip(_NOISY, values.astype(np.float32), strict=True))
        rows.update(zip(_TYRES, np.rint(chassis.tyres).astype(np.int32), strict=True))
        rows["control_unit_firmware"] = np.full(self.n, FIRMWARE, dtype=np.int32)
        return rows
