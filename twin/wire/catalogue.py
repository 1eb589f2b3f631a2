"""The catalogue of signals: the single source for Avro schema, validation, features and pages.

A new signal is one more line here and one more nullable field at the end of a new schema version
(`python -m twin.wire.schema --check` compares the two). Ranges are the physically possible, not
the healthy: a value outside means a broken sensor or a broken sender, not a sick engine.
VSS paths follow COVESA Vehicle Signal Specification 4; "-" where VSS has no such signal.
"""

from dataclasses import dataclass
from typing import Literal

SignalType = Literal["float", "int"]


@dataclass(frozen=True, slots=True)
class Signal:
    """One named value of a car: wire name, unit, type, closed range, VSS path, listed in the index?"""

    name: str
    unit: str
    type: SignalType
    low: float
    high: float
    vss: str
    indexed: bool = False
    personal: bool = False


# fmt: off
SIGNALS: tuple[Signal, ...] = (
    # The 18 signals of the demo that cartwin replaces, under their names (cardata-v1.avsc).
    Signal("coolant_temp", "degC", "float", -50, 215, "Vehicle.Powertrain.CombustionEngine.ECT", indexed=True),
    Signal("intake_air_temp", "degC", "float", -50, 215, "Vehicle.OBD.IntakeTemp"),
    Signal("intake_air_flow_speed", "g/s", "float", 0, 656, "Vehicle.OBD.MAF"),
    Signal("battery_percentage", "1", "float", 0, 1, "Vehicle.Powertrain.TractionBattery.StateOfCharge.Displayed", indexed=True),
    Signal("battery_voltage", "V", "float", 0, 1000, "Vehicle.Powertrain.TractionBattery.CurrentVoltage"),
    Signal("current_draw", "A", "float", -1000, 1000, "Vehicle.Powertrain.TractionBattery.CurrentCurrent"),
    Signal("speed", "m/s", "float", 0, 120, "Vehicle.Speed", indexed=True),
    Signal("engine_vibration_amplitude", "mV", "float", 0, 20000, "-", indexed=True),
    Signal("throttle_pos", "1", "float", 0, 1, "Vehicle.OBD.ThrottlePosition"),
    Signal("tire_pressure_1_1", "psi", "int", 0, 100, "Vehicle.Chassis.Axle.Row1.Wheel.Left.Tire.Pressure"),
    Signal("tire_pressure_1_2", "psi", "int", 0, 100, "Vehicle.Chassis.Axle.Row1.Wheel.Right.Tire.Pressure"),
    Signal("tire_pressure_2_1", "psi", "int", 0, 100, "Vehicle.Chassis.Axle.Row2.Wheel.Left.Tire.Pressure"),
    Signal("tire_pressure_2_2", "psi", "int", 0, 100, "Vehicle.Chassis.Axle.Row2.Wheel.Right.Tire.Pressure"),
    Signal("accelerometer_1_1_value", "m/s2", "float", 0, 160, "-"),
    Signal("accelerometer_1_2_value", "m/s2", "float", 0, 160, "-"),
    Signal("accelerometer_2_1_value", "m/s2", "float", 0, 160, "-"),
    Signal("accelerometer_2_2_value", "m/s2", "float", 0, 160, "-"),
    Signal("control_unit_firmware", "1", "int", 0, 1_000_000_000, "-"),
    # What a real car gives over OBD-II (SAE J1979 ranges) besides.
    Signal("engine_run_time", "s", "float", 0, 65535, "Vehicle.OBD.RunTime"),
    Signal("engine_speed", "rpm", "float", 0, 16384, "Vehicle.Powertrain.CombustionEngine.Speed"),
    Signal("engine_load", "1", "float", 0, 1, "Vehicle.OBD.EngineLoad"),
    Signal("long_fuel_trim", "1", "float", -1, 1, "Vehicle.OBD.LongTermFuelTrim1"),
    Signal("short_fuel_trim", "1", "float", -1, 1, "Vehicle.OBD.ShortTermFuelTrim1"),
    Signal("manifold_pressure", "kPa", "float", 0, 255, "Vehicle.OBD.MAP"),
    Signal("fuel_level", "1", "float", 0, 1, "Vehicle.OBD.FuelLevel"),
    Signal("pedal_pos", "1", "float", 0, 1, "Vehicle.OBD.AcceleratorPositionD"),
    Signal("barometric_pressure", "kPa", "float", 0, 255, "Vehicle.OBD.BarometricPressure"),
    Signal("timing_advance", "deg", "float", -64, 64, "Vehicle.OBD.TimingAdvance"),
    Signal("catalyst_temp_1", "degC", "float", -50, 6514, "Vehicle.OBD.Catalyst.Bank1.Temperature1"),
    Signal("catalyst_temp_2", "degC", "float", -50, 6514, "Vehicle.OBD.Catalyst.Bank1.Temperature2"),
    Signal("control_module_voltage", "V", "float", 0, 66, "Vehicle.OBD.ControlModuleVoltage"),
    # Position: personal data, coarsened for readers without the right.
    Signal("latitude", "deg", "float", -90, 90, "Vehicle.CurrentLocation.Latitude", personal=True),
    Signal("longitude", "deg", "float", -180, 180, "Vehicle.CurrentLocation.Longitude", personal=True),
)
# fmt: on

BY_NAME: dict[str, Signal] = {signal.name: signal for signal in SIGNALS}
NAMES: tuple[str, ...] = tuple(BY_NAME)
INDEXED: tuple[str, ...] = tuple(s.name for s in SIGNALS if s.indexed)
