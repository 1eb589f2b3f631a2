"""n cars that drive, warm up, wear and report: one `step` gives one row of signals per car.

The order of a step is the order of cause: wear, drive (with what generators and friction take from
the engine), engine, its heat, its mixture and spark, both batteries, chassis; then the sensors add
offset, noise and resolution, and some fall silent. Everything is drawn from `seed`: the same
arguments give the same rows. No loop runs over cars.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.simulator.arrays import Floats, Labels, Mask, scattered
from models.simulator.battery import Battery
from models.simulator.chassis import Chassis
from models.simulator.combustion import Combustion, roughness
from models.simulator.driving import Drive
from models.simulator.electrics import Electrics
from models.simulator.engine import Cooling, Engine
from models.simulator.faults import Fault, Truth
from models.simulator.ranges import TRAIN, Ranges
from models.simulator.wear import Signs, Wear

Rows = dict[str, NDArray[Any]]
"""Signal name -> one value per car, shape (n,): float32, or int32 for whole numbers.

NaN: the sensor said nothing, or the whole car, whose whole numbers then mean nothing either.
"""

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
    "long_fuel_trim": (-1, 1, 0.004, 3),
    "short_fuel_trim": (-1, 1, 0.015, 3),
    "timing_advance": (-64, 64, 0.4, 1),
    "engine_run_time": (0, 65535, 0.0, 0),
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

    `interval_s` is the time between rows on the clock, `acceleration` how much faster components
    wear than the clock runs (`wear`), `ranges` what cars and climate are drawn from. With `parking`,
    cars switch their engines off between trips and report nothing meanwhile (`reporting`);
    `dropout` is the share of single values that a sensor does not deliver. Raises ValueError for
    arguments out of range.
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
        parking: bool = False,
        dropout: float = 0.0,
    ) -> None:
        if n < 1:
            raise ValueError(f"{n} cars; at least 1 is accepted")
        if not (interval_s > 0 and acceleration > 0):
            raise ValueError(
                f"interval {interval_s} s, acceleration {acceleration}; above 0 is accepted"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout {dropout}; from 0 to below 1 is accepted")
        streams = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(9))
        start, drive, cooling, battery, chassis, wear, combustion, electrics, silence = streams
        cold = start.random(n) < ranges.cold_share
        self.n = n
        self.interval_s = interval_s
        self.steps = 0
        self._changed: Labels = np.empty(0, dtype=np.int64)
        self._rng = start
        self._silence = silence
        self._dropout = dropout
        self._noise = _NOISE * ranges.noise
        self._drive = Drive(n, cold, drive, ranges, parking=parking)
        self._engine = Engine(n)
        self._cooling = Cooling(n, cold, cooling, ranges)
        self._combustion = Combustion(n, combustion, ranges)
        self._battery = Battery(n, battery, ranges)
        self._electrics = Electrics(n, self._cooling.ambient, electrics, ranges)
        self._chassis = Chassis(n, chassis, ranges)
        self._wear = Wear(n, faults, acceleration, wear, ranges.scatter)
        self._climate_kw = 0.4 + 0.05 * np.abs(self._cooling.ambient - 21.0)
        self._coolant_offset = scattered(start, n, 0.0, 0.5 * ranges.tolerance)
        self._air_gain = scattered(start, n, 1.0, 0.02 * ranges.tolerance)

    @property
    def elapsed_s(self) -> float:
        """Seconds of the clock since the start; the time of the row that `step` returned last."""
        return self.steps * self.interval_s

    @property
    def reporting(self) -> Mask:
        """Which cars have their engine on and so send a row, shape (n,)."""
        return self._drive.running

    def step(self, power_limit: Floats | float | None = None) -> Rows:
        """Advance by one interval; one row per car.

        `power_limit`: the share of power (0..1] a car may use, for all or per car (n,); None = all.
        """
        limit = np.broadcast_to(np.asarray(1.0 if power_limit is None else power_limit), (self.n,))
        if not (np.all(limit > 0) and np.all(limit <= 1)):
            raise ValueError("power limit: above 0 and at most 1 is accepted")
        before_s = self.elapsed_s
        self.steps += 1
        limit = np.where(self._wear.limping, np.minimum(limit, LIMP), limit)
        load = np.where(self._drive.running, limit, 0.0)
        self._changed = self._wear.step(before_s, self.elapsed_s, load)
        signs = self._wear.signs()
        # The driver reacts within seconds: a longer interval is driven in parts of 1 s at most.
        parts = math.ceil(self.interval_s)
        for _ in range(parts):
            self._advance(self.interval_s / parts, limit, signs)
        return self._read(signs)

    def changes(self) -> list[Truth]:
        """Cars in which a fault began or ended in failure during the last step."""
        return [self._wear.truth(int(car), self.elapsed_s) for car in self._changed]

    def truth(self) -> list[Truth]:
        """What is so about every car now: the record that closes a run."""
        return [self._wear.truth(car, self.elapsed_s) for car in range(self.n)]

    def _advance(self, dt: float, limit: Floats, signs: Signs) -> None:
        drive, engine, cooling, battery = self._drive, self._engine, self._cooling, self._battery
        electrics, air_path, misfire = self._electrics, signs["air_path"], signs["ignition"]
        generator_kw = battery.wanted_kw * drive.running
        friction_kw = engine.friction_kw(signs["lubrication"])
        weak = 0.35 * air_path + 0.2 * misfire
        rolling = 1 + signs["drive_shaft"] + 0.15 * signs["tyres"]
        drive.step(dt, limit, generator_kw + electrics.belt_kw + friction_kw, weak, rolling)
        running = drive.running
        engine.step(dt, drive.speed, drive.engine_kw, cooling.intake, air_path, running)
        cooling.step(
            dt,
            drive.speed,
            drive.engine_kw,
            friction_kw,
            engine.rpm,
            signs["cooling"],
            air_path,
            running,
        )
        self._combustion.step(
            dt, engine.load, engine.rpm, cooling.block, cooling.intake, misfire, air_path
        )
        electrics.step(dt, engine.rpm, cooling.fan, signs["alternator"], running)
        load_kw = drive.motor_kw + self._climate_kw + 1.5 * cooling.fan
        regained_kw = np.minimum(0.5 * drive.brake_kw, 20.0)
        battery.step(dt, load_kw, regained_kw + generator_kw, signs["battery"], running)
        self._chassis.step(dt, drive.speed)

    def _read(self, signs: Signs) -> Rows:
        drive, engine, battery, chassis = self._drive, self._engine, self._battery, self._chassis
        combustion, misfire, shaft = self._combustion, signs["ignition"], signs["drive_shaft"]
        spark, jolt = combustion.uneven(misfire)
        rough = roughness(engine.rpm, misfire)
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
                chassis.vibration(drive.speed, engine.rpm, rough, signs["lubrication"], shaft),
                drive.throttle,
                *chassis.shake(
                    drive.regime, drive.speed, shaft, signs["shock_absorber"], signs["tyres"]
                ),
                engine.rpm + jolt,
                engine.load,
                engine.manifold_kpa,
                self._electrics.volts,
                combustion.long_trim,
                combustion.short_trim,
                combustion.timing + spark,
                engine.run_s,
            )
        ):
            values[row] = value
        values += self._noise * self._rng.standard_normal(values.shape)
        np.clip(values, _LOW, _HIGH, out=values)
        values = np.rint(values * _RESOLUTION) / _RESOLUTION
        if self._dropout:
            values[self._silence.random(values.shape) < self._dropout] = np.nan
        values[:, ~drive.running] = np.nan
        rows: Rows = dict(zip(_NOISY, values.astype(np.float32), strict=True))
        tyres = np.rint(chassis.tyres(signs["tyres"])).astype(np.int32)
        rows.update(zip(_TYRES, tyres, strict=True))
        rows["control_unit_firmware"] = np.full(self.n, FIRMWARE, dtype=np.int32)
        return rows
