"""Features of a trip, row by row, from what came before: what training and the served model get.

signals (n, SIGNALS) -> `compute` -> features (n, FEATURES), valid (n,).

Sensors are slow against the driver, so next to present values stand exponential means over
10, 60 and 300 rows: heat is what load was for minutes. What a fault moves is rebuilt from means
too: the mean of a residual is worth more than a residual. Means begin at the first row with a
running engine and take in running rows only.

While a sensor is rebuilt, everything that was made of it is hidden (`LAYOUT`): its own mean would
tell the network what the broken sensor says. Both fuel trims hide together, one replaces the other.
The coolant's first reading of the trip stays visible: a cold engine's temperature follows from
where it began. A coolant sensor that is wrong from the first row is thus found only once the
engine ought to be warm.

The regime is told by clock, first coolant reading and speed, never by the present coolant, which
may be the broken one: warm-up, idle, city, highway.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.carobd.reader import SIGNALS, Signals, column
from models.network import Layout

REGIMES: Final = ("warm_up", "idle", "city", "highway")

SETTLE: Final = 60
"""Rows with a running engine before the first valid one: means need them."""

_RUNNING_RPM: Final = 400.0
_WARM_C: Final = 75.0
_COLD_S: Final = 700.0  # of running until a cold engine is warm at idle, by the car's clock
_HIGHWAY_KMH: Final = 55.0
_REGIME_ROWS: Final = 30  # mean of the speed that tells the regime: a red light is city

_MEANS: Final[dict[str, tuple[int, ...]]] = {
    "rpm": (0, 10, 60, 300),
    "speed": (0, 10, 60, 300),
    "throttle": (10, 60),
    "load": (0, 10, 60, 300),
    "coolant": (10,),
    "long_trim": (10,),
    "short_trim": (10, 60),
    "manifold": (0, 10, 60),
    "pedal": (0, 10),
    "barometer": (10,),
    "intake_air": (10,),
    "timing": (10, 60),
    "catalyst_1": (10,),
    "catalyst_2": (10,),
    "voltage": (10,),
    "purge": (10, 60),
}
"""Signal -> rows that its means reach back; 0 is the present value."""

_OTHERS: Final = ("trim_10", "trim_100", "start_coolant", "running", "work")
"""Means of both trims' sum; first coolant reading; log of the run time; log of the work done."""

FEATURES: Final = (
    *(f"{name}_{rows}" for name, means in _MEANS.items() for rows in means),
    *_OTHERS,
    *REGIMES,
)
TARGETS: Final[dict[str, str]] = {
    "coolant": "coolant_10",
    "fuel_trim": "trim_10",
    "fuel_trim_slow": "trim_100",
    "voltage": "voltage_10",
}
"""What is rebuilt, by the name that evidence gives it -> its feature.

All share one budget of false alarms. With manifold, throttle, timing, intake air and catalyst beside
them, none of which a control unit's own diagnosis is silent on, lean trims are found in 89 % instead of
94 %. So the choice knows which faults are looked for.
"""

_TRIMS: Final = ("long_trim", "short_trim", "trim")
_HIDDEN: Final[dict[str, tuple[str, ...]]] = {
    "fuel_trim": _TRIMS,
    "fuel_trim_slow": _TRIMS,
}
"""Targets that hide more than what was made of their own signal."""

Features = NDArray[np.float32]


def _layout() -> Layout:
    hides = np.zeros((len(TARGETS), len(FEATURES)), bool)
    for row, target in enumerate(TARGETS):
        for name in _HIDDEN.get(target, (target,)):
            hides[row] |= np.array([feature.rpartition("_")[0] == name for feature in FEATURES])
    return Layout(
        targets=tuple(FEATURES.index(feature) for feature in TARGETS.values()),
        hides=hides,
        regimes=tuple(FEATURES.index(regime) for regime in REGIMES),
        hidden=(96, 48, 96),
        masked=0.15,
        rate=1e-3,
        cosine=True,
    )


LAYOUT: Final = _layout()
"""How the autoencoder sees these features."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Features (n, FEATURES), regime (n,) as a place in `REGIMES`, which rows are valid (n,)."""

    features: Features
    regime: NDArray[np.int64]
    valid: NDArray[np.bool_]


def compute(signals: Signals) -> Rows:
    """Features of one trip (n, SIGNALS); a row is valid once the engine ran for SETTLE rows."""
    running = (column(signals, "rpm") > _RUNNING_RPM) & np.isfinite(signals).all(axis=1)
    found = np.zeros((len(signals), len(FEATURES)), np.float32)
    regime = np.zeros(len(signals), np.int64)
    rows = np.flatnonzero(running)
    if rows.size:
        regime[rows], found[rows] = _running(signals[rows])
    return Rows(found, regime, running & (np.cumsum(running) > SETTLE))


def _running(signals: Signals) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    values = {name: column(signals, name) for name in SIGNALS}
    made: list[NDArray[Any]] = [
        ewm(values[name], rows) for name, means in _MEANS.items() for rows in means
    ]
    run = values["run_time"]
    # Work is revolutions times load: what heated the engine since it started.
    power = values["rpm"] * values["load"] / 1e5
    began = np.full(len(run), values["coolant"][0])
    trim = values["long_trim"] + values["short_trim"]
    made += [
        ewm(trim, 10),
        ewm(trim, 100),
        began,
        np.log1p(run / 60),
        np.log1p(np.cumsum(power) / 60),
    ]
    speed = ewm(values["speed"], _REGIME_ROWS)
    regime = np.where(speed < 2, 1, np.where(speed < _HIGHWAY_KMH, 2, 3))
    regime[(began < _WARM_C) & (run < _COLD_S)] = 0
    made += [regime == number for number in range(len(REGIMES))]
    return regime, np.stack(made, axis=1)


def ewm(values: NDArray[np.floating[Any]], rows: int) -> Signals:
    """Exponential mean (n,) that forgets within `rows` rows, begun at the first value."""
    # Imported here: the reader and the faults have no need of it.
    from scipy.signal import lfilter  # noqa: PLC0415

    if not rows:
        return np.asarray(values, dtype=np.float64)
    keep = np.exp(-1 / rows)
    start = [keep * values[0]]
    mean: Signals = lfilter([1 - keep], [1, -keep], values, zi=start)[0]
    return mean
