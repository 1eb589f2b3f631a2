"""Engines of NASA's C-MAPSS FD001: 100 that ran to failure, 100 that were cut off before it.

Saxena et al., "Damage propagation modeling for aircraft engine run-to-failure simulation" (PHM
2008). Three files without headers: train_FD001.txt and test_FD001.txt hold a row for each cycle
(unit, cycle, 3 settings, 21 sensors, separated by blanks), RUL_FD001.txt the cycles that were left
of each test engine after its last row.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelsError

TRAIN: Final = "train_FD001.txt"
TEST: Final = "test_FD001.txt"
LEFT: Final = "RUL_FD001.txt"

SENSORS: Final = 21
_COLUMNS: Final = 5 + SENSORS  # unit, cycle, 3 settings


class BadDataSet(ModelsError):
    """The data set is missing, or is not what its description says."""


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine: `sensors` (cycles, SENSORS), and the cycles that are `left` after its last row."""

    unit: int
    sensors: NDArray[np.float64]
    left: int

    def life(self) -> NDArray[np.float64]:
        """Cycles left after each row (cycles,)."""
        return np.arange(len(self.sensors) - 1, -1, -1.0) + self.left


def read(folder: Path) -> tuple[list[Engine], list[Engine]]:
    """Training and test engines. Raises `BadDataSet`, naming the file and the line."""
    train = _engines(TRAIN, _text(folder, TRAIN))
    test = _engines(TEST, _text(folder, TEST))
    left = _lives(_text(folder, LEFT))
    if len(left) != len(test):
        raise BadDataSet(
            f"{LEFT}: {len(left)} lines; {len(test)} are expected, one for each engine of {TEST}"
        )
    return (
        [Engine(unit, rows, 0) for unit, rows in train],
        [Engine(unit, rows, cycles) for (unit, rows), cycles in zip(test, left, strict=True)],
    )


def _text(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text(encoding="ascii")
    except FileNotFoundError:
        raise BadDataSet(
            f"{folder}: no file {name}; a folder with {TRAIN}, {TEST} and {LEFT} is expected"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadDataSet(f"{folder / name}: cannot be read as text ({error!s:.120})") from error


def _engines(name: str, text: str) -> list[tuple[int, NDArray[np.float64]]]:
    units: list[list[list[float]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        row = _numbers(f"{name}, line {number}", line, _COLUMNS)
        if row[0] == len(units) + 1 and row[1] == 1:
            units.append([])
        if not units or row[0] != len(units) or row[1] != len(units[-1]) + 1:
            raise BadDataSet(
                f"{name}, line {number}: unit {row[0]:g}, cycle {row[1]:g}; the next cycle of the"
                " same unit, or cycle 1 of the next, is expected"
            )
        units[-1].append(row[5:])
    if not units:
        raise BadDataSet(f"{name}: no row found; one for each cycle of each engine is expected")
    return [(unit, np.array(rows)) for unit, rows in enumerate(units, 1)]


def _lives(text: str) -> list[int]:
    lives = []
    for number, line in enumerate(text.splitlines(), 1):
        (cycles,) = _numbers(f"{LEFT}, line {number}", line, 1)
        if cycles < 0 or cycles != int(cycles):
            raise BadDataSet(f"{LEFT}, line {number}: {cycles:g}; whole cycles are expected")
        lives.append(int(cycles))
    return lives


def _numbers(place: str, line: str, count: int) -> list[float]:
    cells = line.split()
    try:
        row = [float(cell) for cell in cells]
    except ValueError:
        row = []
    if len(row) != count or not np.isfinite(row).all():
        raise BadDataSet(f"{place}: {count} finite numbers are expected, separated by blanks")
    return row
