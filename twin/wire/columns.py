"""Column maps of recorded drives: which column of a known CSV format is which catalogue signal.

A format is recognised by its header. A column that is in no map has no signal: it is not sent, and
the replay lists it. Units follow the catalogue (m/s, shares 0..1, degC, kPa), so a map is
`value = cell x factor + offset`.

Sources: the seed file of the replaced demo (its cardata-v1.avsc names the units), and carOBD
(github.com/eron93br/carOBD), 27 OBD-II PIDs of a Toyota Etios in the units of SAE J1979.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from twin.wire.catalogue import NAMES

_PERCENT: Final = 0.01
_KM_PER_H: Final = 1 / 3.6


@dataclass(frozen=True, slots=True)
class Column:
    """A column that carries a signal: `signal` = cell x `factor` + `offset`."""

    signal: str
    factor: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class Format:
    """A known CSV format. It is this one when all of `marks` are in the header.

    `time`: column with seconds since 1970; None = one row a second from a start given by the user.
    `vehicle`: column with the vehicle id; None = `vehicle_prefix` + file name without `.csv`.
    """

    name: str
    marks: frozenset[str]
    columns: Mapping[str, Column]
    time: str | None = None
    vehicle: str | None = None
    vehicle_prefix: str = ""


CARS: Final = Format(
    name="cars",
    marks=frozenset({"time", "car"}),
    columns={name: Column(name) for name in NAMES},
    time="time",
    vehicle="car",
)

CAR_OBD: Final = Format(
    name="carOBD",
    marks=frozenset({"ENGINE_RPM", "VEHICLE_SPEED", "COOLANT_TEMPERATURE"}),
    columns={
        # Spelt so by the recorder.
        "ENGINE_RUN_TINE": Column("engine_run_time"),
        "ENGINE_RPM": Column("engine_speed"),
        "VEHICLE_SPEED": Column("speed", _KM_PER_H),
        "THROTTLE": Column("throttle_pos", _PERCENT),
        "ENGINE_LOAD": Column("engine_load", _PERCENT),
        "COOLANT_TEMPERATURE": Column("coolant_temp"),
        "LONG_TERM_FUEL_TRIM_BANK_1": Column("long_fuel_trim", _PERCENT),
        "SHORT_TERM_FUEL_TRIM_BANK_1": Column("short_fuel_trim", _PERCENT),
        "INTAKE_MANIFOLD_PRESSURE": Column("manifold_pressure"),
        "FUEL_TANK": Column("fuel_level", _PERCENT),
        "PEDAL_D": Column("pedal_pos", _PERCENT),
        "ABSOLUTE_BAROMETRIC_PRESSURE": Column("barometric_pressure"),
        "INTAKE_AIR_TEMP": Column("intake_air_temp"),
        "TIMING_ADVANCE": Column("timing_advance"),
        "CATALYST_TEMPERATURE_BANK1_SENSOR1": Column("catalyst_temp_1"),
        "CATALYST_TEMPERATURE_BANK1_SENSOR2": Column("catalyst_temp_2"),
        "CONTROL_MODULE_VOLTAGE": Column("control_module_voltage"),
    },
    vehicle_prefix="etios-",
)

FORMATS: Final = (CARS, CAR_OBD)


def column_name(cell: str) -> str:
    """A header cell as the maps spell it: without byte order mark, blanks, empty unit `()`."""
    return cell.strip().lstrip("\ufeff").removesuffix("()").strip()


def recognise(names: Iterable[str]) -> Format | None:
    """The format whose marks are all among the header's `names` (see `column_name`)."""
    present = set(names)
    return next((known for known in FORMATS if known.marks <= present), None)
