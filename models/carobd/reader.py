"""Trips of the carOBD data set: 27 OBD-II values of a Toyota Etios 1.5 (2014), no faults.

github.com/eron93br/carOBD, described in "Detecting Anomalies in the Engine Coolant Sensor using
One-Class Classifiers" (IEEE VTC 2019). One CSV file a trip, named for its kind and number. Quirks:
header names end in " ()" and one is misspelt, rows of some files end in a comma, a file's last row
may be cut short, one file lacks the trouble-code counters. So columns are found by name in the
header, and a row that ends before the last column we need is dropped and counted.

The data set says one row a second. The car's own clock (engine run time) says two: 2.04 rows for
each of its seconds. Everything here counts rows and calls them seconds, as earlier work on this
data set does; `Trip.clock_s` keeps what the car's clock said, so that a report can give both.
"""

import lzma
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelsError

ARCHIVE: Final = "carOBD-obdiidata.tar.xz"
FOLDER: Final = "obdiidata"

COLUMNS: Final[dict[str, str]] = {
    "run_time": "ENGINE_RUN_TINE",  # s, at most 3,696 seen
    "rpm": "ENGINE_RPM",
    "speed": "VEHICLE_SPEED",  # km/h
    "throttle": "THROTTLE",  # %
    "load": "ENGINE_LOAD",  # %
    "coolant": "COOLANT_TEMPERATURE",  # degC
    "long_trim": "LONG_TERM_FUEL_TRIM_BANK_1",  # %
    "short_trim": "SHORT_TERM_FUEL_TRIM_BANK_1",  # %
    "manifold": "INTAKE_MANIFOLD_PRESSURE",  # kPa
    "pedal": "PEDAL_D",  # %
    "barometer": "ABSOLUTE_BAROMETRIC_PRESSURE",  # kPa
    "intake_air": "INTAKE_AIR_TEMP",  # degC
    "timing": "TIMING_ADVANCE",  # degrees before top dead centre
    "catalyst_1": "CATALYST_TEMPERATURE_BANK1_SENSOR1",  # degC
    "catalyst_2": "CATALYST_TEMPERATURE_BANK1_SENSOR2",  # degC
    "voltage": "CONTROL_MODULE_VOLTAGE",  # V
    "purge": "COMMANDED_EVAPORATIVE_PURGE",  # %
}
"""Our name of a signal -> the data set's; the order is that of the columns of `Trip.signals`."""

SIGNALS: Final = tuple(COLUMNS)
KINDS: Final = ("drive", "idle", "live", "long", "ufpe")

_NAME = re.compile(rf"({'|'.join(KINDS)})(\d+)\.csv")
_WORST_SHARE = 0.01  # of a file's rows that may be cut short
_EXPECTED = f"the archive {ARCHIVE} or the folder {FOLDER}/ with files such as idle1.csv"

Signals = NDArray[np.float64]


class BadDataSet(ModelsError):
    """The data set is missing, or is not what its description says."""


@dataclass(frozen=True, slots=True)
class Trip:
    """One healthy trip: signals (n, SIGNALS), and how many rows were cut short and dropped."""

    name: str
    kind: str
    signals: Signals
    dropped: int

    @property
    def clock_s(self) -> float:
        """How long the trip was by the car's own clock, seconds."""
        run = self.signals[:, SIGNALS.index("run_time")]
        return float(np.maximum(np.diff(run), 0).sum())


def read(folder: Path) -> list[Trip]:
    """All trips, by kind and number. Raises `BadDataSet`."""
    trips = [parse(name, text) for name, text in _files(folder)]
    if not trips:
        raise BadDataSet(f"{folder}: no trip found; {_EXPECTED} is expected")
    return sorted(trips, key=lambda trip: (trip.kind, int(trip.name[len(trip.kind) :])))


def parse(name: str, text: str) -> Trip:
    """The trip in the file `name`. Raises `BadDataSet`, naming the file."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise BadDataSet(f"{name}: a name such as idle1.csv is expected, of {', '.join(KINDS)}")
    header, *lines = text.splitlines() or [""]
    names = [column.strip().removesuffix("()").strip() for column in header.split(",")]
    missing = sorted(set(COLUMNS.values()) - set(names))
    if missing:
        raise BadDataSet(f"{name}: column {missing[0]} is expected in its first line")
    places = [names.index(column) for column in COLUMNS.values()]
    rows, dropped = [], 0
    for number, line in enumerate(lines, 2):
        cells = line.split(",")
        # A cell that ends the line may have been cut itself, unless it is the row's last one.
        if len(cells) < len(names) and len(cells) <= max(places) + 1:
            dropped += 1
            continue
        try:
            rows.append([float(cells[place]) for place in places])
        except ValueError:
            raise BadDataSet(f"{name}, line {number}: numbers are expected") from None
    signals = np.array(rows).reshape(-1, len(SIGNALS))
    if not len(signals) or dropped > max(2, _WORST_SHARE * len(lines)):
        raise BadDataSet(f"{name}: {dropped} of {len(lines)} rows are cut short; it is damaged")
    if not np.isfinite(signals).all():
        raise BadDataSet(f"{name}: finite numbers are expected in every row")
    return Trip(f"{match[1]}{match[2]}", match[1], signals, dropped)


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    archive = folder / ARCHIVE
    if archive.is_file():
        yield from _packed(archive)
        return
    unpacked = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    if not unpacked.is_dir():
        raise BadDataSet(f"{folder}: no such folder; one with {_EXPECTED} is expected")
    for path in sorted(unpacked.glob("*.csv")):
        yield path.name, _decoded(path.name, path.read_bytes())


def _packed(archive: Path) -> Iterator[tuple[str, str]]:
    try:
        with tarfile.open(archive, "r:xz") as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None and member.name.endswith(".csv"):
                    name = Path(member.name).name
                    yield name, _decoded(name, file.read())
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise BadDataSet(f"{archive}: not a whole tar.xz archive ({error})") from error


def _decoded(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadDataSet(f"{name}: text is expected") from None


def column(signals: NDArray[Any], name: str) -> Signals:
    """One signal of (n, SIGNALS), by name; a view."""
    found: Signals = signals[:, SIGNALS.index(name)]
    return found
