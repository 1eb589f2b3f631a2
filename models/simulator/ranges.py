"""From which ranges a fleet's cars, days and wear are drawn.

Models learn on `TRAIN`; evaluation takes cars from `SHIFTED`, whose climate, tolerances, noise,
traffic, state of charge and pace of wear reach beyond everything that was learnt, as another season,
city or supplier would.
"""

from dataclasses import dataclass
from typing import Final

DAYS_TO_FAILURE: Final = (1.5, 4.0)
"""Usual component days from onset to failure: 90 to 240 s of the clock at acceleration 1440."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """Bounds of what is drawn uniformly, factors on the spread of what is drawn normally, and means."""

    ambient_c: tuple[float, float] = (-5.0, 32.0)
    charge: tuple[float, float] = (0.35, 0.95)  # of the traction battery at the start
    cold_share: float = 0.2  # of cars that start at ambient temperature
    tolerance: float = 1.0  # factor: how far parts of healthy cars lie from the data sheet
    noise: float = 1.0  # factor: noise of the sensors
    mean_s: tuple[float, float, float] = (30.0, 150.0, 180.0)  # standing, city, highway at a time
    consumers_kw: tuple[float, float] = (0.05, 0.45)  # lamps, wipers, heaters on the 12 V net
    trip_s: float = 1500.0  # mean drive until the engine is switched off, for cars that park
    off_s: tuple[float, float] = (60.0, 3600.0)  # how long it stays off, log-uniform
    days: tuple[float, float] = DAYS_TO_FAILURE  # component days from onset to failure
    severity: tuple[float, float] = (0.4, 1.0)  # how strong a fault's signs are at failure
    scatter: float = 0.01  # of the wear: time to failure deviates by about its square root


TRAIN: Final = Ranges()
SHIFTED: Final = Ranges(
    ambient_c=(-15.0, 40.0),
    charge=(0.25, 0.98),
    cold_share=0.3,
    tolerance=1.25,
    noise=1.25,
    mean_s=(40.0, 220.0, 120.0),
    consumers_kw=(0.05, 0.6),
    trip_s=900.0,
    off_s=(60.0, 14_400.0),
    days=(1.25, 4.5),
    scatter=0.02,
)
