"""From which ranges a fleet's cars and days are drawn.

Models learn on `TRAIN`; evaluation takes cars from `SHIFTED`, whose climate, tolerances, noise and
state of charge reach beyond everything that was learnt, as another season or supplier would.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Ranges:
    """Bounds of what is drawn uniformly, and factors on the spread of what is drawn normally."""

    ambient_c: tuple[float, float] = (-5.0, 32.0)
    charge: tuple[float, float] = (0.35, 0.95)  # of the traction battery at the start
    cold_share: float = 0.2  # of cars that start at ambient temperature
    tolerance: float = 1.0  # factor: how far parts of healthy cars lie from the data sheet
    noise: float = 1.0  # factor: noise of the sensors


TRAIN: Final = Ranges()
SHIFTED: Final = Ranges(
    ambient_c=(-15.0, 40.0), charge=(0.25, 0.98), cold_share=0.3, tolerance=1.25, noise=1.25
)
