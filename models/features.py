"""Features and windows: the one code that training and streaming both run. Pure numpy.

signals (rows x INPUTS) -> `compute` -> features (rows x FEATURES), valid -> windows of WINDOW rows.

A feature is what a sensor says beyond what the other sensors let expect, so that a fault shows
whether the car stands or drives: temperature over the regulated one, air flow over the flow that
this engine speed and load give, voltage under the pack's line, vibration over that of a healthy shaft.
The expectation is the vehicle type's data sheet (`NOMINAL`), rough on purpose: the model learns the
rest. What is a car's own offset is taken out later, from residuals (`trend`). Tyres and firmware are left
out: they say nothing about the engine.

A row that lacks an input is not valid, and nothing is imputed. A window is WINDOW valid rows of one
vehicle in order of event time; a hole of more than MAX_GAP_MS begins a new one, a reconnection (a
new session) does not: the engine runs on. A row no newer than one already taken is late, and is
ignored.
`windows` does this for a whole log, `WindowStore` row by row; same rows, same windows.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

WINDOW: Final = 32
MAX_GAP_MS: Final = 30_000

INPUTS: Final = (
    "coolant_temp",
    "intake_air_temp",
    "intake_air_flow_speed",
    "battery_percentage",
    "battery_voltage",
    "current_draw",
    "speed",
    "engine_vibration_amplitude",
    "throttle_pos",
    "accelerometer_1_1_value",
    "accelerometer_1_2_value",
    "accelerometer_2_1_value",
    "accelerometer_2_2_value",
    "engine_speed",
    "engine_load",
    "control_module_voltage",
    "long_fuel_trim",
    "short_fuel_trim",
    "timing_advance",
)
"""Signals that a row must have, in the order of the columns of a signal matrix."""

SIGNAL_OF: Final[dict[str, str]] = {
    "speed": "speed",
    "throttle": "throttle_pos",
    "coolant_excess": "coolant_temp",
    "air_excess": "intake_air_flow_speed",
    "current_excess": "current_draw",
    "pack_sag": "battery_voltage",
    "vibration_excess": "engine_vibration_amplitude",
    "shake_excess": "accelerometer_1_1_value",
    "shake_rear": "accelerometer_2_1_value",
    "supply_sag": "control_module_voltage",
    "fuel_trim": "long_fuel_trim",
    "spark_late": "timing_advance",
}
"""Feature -> the signal that evidence names for it."""

FEATURES: Final = tuple(SIGNAL_OF)
"""Names of the features in the order of their columns."""

NOMINAL: Final[dict[str, float]] = {
    "throttle_idle": 0.04,
    "throttle_span": 0.9,
    "coolant_regulated": 88.0,  # degC
    "coolant_per_throttle": 6.0,  # K at full throttle
    "coolant_cold_floor": -3.0,  # K: a cold engine is no news
    "engine_kw": 75.0,
    "idle_rpm": 780.0,
    "displacement_l": 2.0,
    "filling": 0.85,  # volumetric efficiency
    "pack_empty_v": 180.0,
    "pack_span_v": 80.0,
    "pack_ohm": 0.15,
    "motor_share": 0.25,  # electric power per engine power
    "idle_a": 4.0,
    "vibration_idle": 60.0,  # mV
    "vibration_per_speed": 38.0,
    "vibration_per_rpm": 0.05,
    "shake_idle": 0.1,  # m/s2
    "shake_per_speed": 0.02,
    "supply_v": 14.2,
    "spark_deg": 10.0,  # before top dead centre at idle
    "spark_per_krpm": 6.0,
    "spark_per_load": -12.0,
    "spark_hot_air_c": 40.0,  # of the intake, above which spark comes later
    "spark_per_hot_k": -0.15,
}
"""What the data sheet of the vehicle type says; every figure enters `feature_hash`."""

REGIMES: Final = ("warming", "standing", "slow", "fast")
"""What an engine is at, for which a signal's noise and a fault's signs differ."""

_STANDS: Final = 0.5  # m/s, below
_SLOW: Final = 16.0  # m/s, below

Features = NDArray[np.float32]
Index = NDArray[np.int64]


def regimes(features: Features) -> Index:
    """Index into REGIMES for rows (n, FEATURES)."""
    speed = features[:, FEATURES.index("speed")]
    cold = features[:, FEATURES.index("coolant_excess")] <= NOMINAL["coolant_cold_floor"]
    moving = np.where(speed < _STANDS, 1, np.where(speed < _SLOW, 2, 3))
    return np.where(cold, 0, moving).astype(np.int64)


def signal_matrix(rows: Sequence[Mapping[str, float]]) -> NDArray[np.float64]:
    """Rows of present signals as a (rows, INPUTS) matrix; NaN where a signal is absent."""
    count = len(rows) * len(INPUTS)
    values = np.fromiter(chain.from_iterable(map(_inputs, rows)), dtype=np.float64, count=count)
    return values.reshape(len(rows), len(INPUTS))


_all_inputs: Callable[[Mapping[str, float]], tuple[float, ...]] = itemgetter(*INPUTS)


def _inputs(row: Mapping[str, float]) -> Iterable[float]:
    try:
        return _all_inputs(row)
    except KeyError:
        return [row.get(name, np.nan) for name in INPUTS]


def compute(signals: NDArray[np.floating[Any]]) -> tuple[Features, NDArray[np.bool_]]:
    """Features (rows, FEATURES) and which rows are valid (rows,) from a (rows, INPUTS) matrix.

    A row is valid when every input is there and every feature is a finite float32; the features of
    an invalid row are zero and mean nothing. Raises ValueError for another number of columns.
    """
    if signals.ndim != 2 or signals.shape[1] != len(INPUTS):
        raise ValueError(f"signals of shape {signals.shape}; (rows, {len(INPUTS)}) is accepted")
    column = dict(zip(INPUTS, signals.T.astype(np.float64), strict=True))
    with np.errstate(all="ignore"):  # what comes of absent or absurd values is masked below
        features = np.stack(_features(column), axis=1).astype(np.float32)
    # Clipping can hide an infinite input, so the inputs are asked, too.
    valid = np.isfinite(features).all(axis=1) & np.isfinite(signals).all(axis=1)
    features[~valid] = 0.0
    return features, valid


def _features(column: Mapping[str, NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    k = NOMINAL
    speed, volts, amps = column["speed"], column["battery_voltage"], column["current_draw"]
    throttle = np.clip((column["throttle_pos"] - k["throttle_idle"]) / k["throttle_span"], 0.0, 1.0)
    rpm, load = column["engine_speed"], column["engine_load"]
    litres = rpm / 120.0 * k["displacement_l"] * k["filling"] * (0.1 + 0.9 * load)
    air = litres * 1.2 * 293.0 / (273.0 + column["intake_air_temp"])
    coolant = k["coolant_regulated"] + k["coolant_per_throttle"] * throttle
    motor = 1000.0 * k["motor_share"] * k["engine_kw"] * throttle / np.maximum(volts, 50.0)
    line = k["pack_empty_v"] + k["pack_span_v"] * column["battery_percentage"]
    vibration = k["vibration_idle"] + k["vibration_per_speed"] * speed
    vibration = vibration + k["vibration_per_rpm"] * rpm
    front = (column["accelerometer_1_1_value"] + column["accelerometer_1_2_value"]) / 2
    rear = (column["accelerometer_2_1_value"] + column["accelerometer_2_2_value"]) / 2
    above_idle = np.clip(rpm - k["idle_rpm"], 0.0, 3000.0) / 1000.0
    spark = k["spark_deg"] + k["spark_per_krpm"] * above_idle + k["spark_per_load"] * load
    hot = np.maximum(column["intake_air_temp"] - k["spark_hot_air_c"], 0.0)
    spark = spark + k["spark_per_hot_k"] * hot
    road = k["shake_idle"] + k["shake_per_speed"] * speed
    named = {
        "speed": speed,
        "throttle": throttle,
        "coolant_excess": np.maximum(column["coolant_temp"] - coolant, k["coolant_cold_floor"]),
        # The addends keep the ratios quiet where flow and vibration are small.
        "air_excess": np.log((column["intake_air_flow_speed"] + 3.0) / (air + 3.0)),
        # Braking feeds the pack and a pothole shakes the car: neither is news beyond these bounds.
        "current_excess": np.clip(amps - motor - k["idle_a"], -20.0, 40.0),
        "pack_sag": line - k["pack_ohm"] * amps - volts,
        "vibration_excess": np.log(
            (column["engine_vibration_amplitude"] + 10.0) / (vibration + 10.0)
        ),
        "shake_excess": np.clip((front + rear) / 2 - road, -1.5, 1.5),
        "shake_rear": np.clip(rear - front, -1.5, 1.5),
        "supply_sag": k["supply_v"] - column["control_module_voltage"],
        "fuel_trim": column["long_fuel_trim"] + column["short_fuel_trim"],
        "spark_late": spark - column["timing_advance"],
    }
    return [named[name] for name in FEATURES]


def feature_hash() -> str:
    """16 hex digits that change with names, order, figures, windows or formulas.

    A model is used only with the features it was trained on. Formulas enter by their values on two
    fixed rows, to 5 digits (so that another processor's last bit does not matter).
    """
    # fmt: off
    probe = np.array([
        93.7, 31.3, 14.9, 0.613, 226.1, 11.7, 19.3, 853.0, 0.217, 0.51, 0.43, 0.57, 0.61,
        1913.0, 0.37, 13.9, 0.03, -0.02, 11.3,
        71.9, 52.1, 41.7, 0.337, 201.7, 47.3, 7.1, 401.0, 0.583, 0.29, 0.37, 0.23, 0.31,
        2711.0, 0.71, 14.3, -0.04, 0.01, 17.9,
    ]).reshape(2, len(INPUTS))
    # fmt: on
    features, _ = compute(probe)
    said = [
        INPUTS,
        FEATURES,
        REGIMES,
        _STANDS,
        _SLOW,
        NOMINAL,
        WINDOW,
        MAX_GAP_MS,
        [f"{x:.4e}" for x in features.ravel()],
    ]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def windows(
    features: Features, vehicles: Index, event_times: Index, *, stride: int = 1
) -> tuple[Index, Features]:
    """Every `stride`-th complete window of each unbroken run of a log in order of arrival.

    `features` are the valid rows, `vehicles` (rows,) whole numbers that tell vehicles apart,
    `event_times` (rows,) ms. Returns the row that ends each window (k,), by vehicle and time, and
    the windows (k, WINDOW, FEATURES).
    """
    order = np.argsort(vehicles, kind="stable")
    vehicle, time = vehicles[order], event_times[order]
    # One rising key for (vehicle, time): a row is new if it is above all keys before it.
    instants, instant = np.unique(time, return_inverse=True)
    key = np.unique(vehicle, return_inverse=True)[1] * (instants.size + 1) + instant
    new = np.ones(key.size, dtype=bool)
    new[1:] = key[1:] > np.maximum.accumulate(key)[:-1]
    order, vehicle, time = order[new], vehicle[new], time[new]
    begins = np.ones(order.size, dtype=bool)
    begins[1:] = (vehicle[1:] != vehicle[:-1]) | (time[1:] - time[:-1] > MAX_GAP_MS)
    place = np.arange(order.size)
    beyond = place - np.maximum.accumulate(np.where(begins, place, 0)) - (WINDOW - 1)
    last = np.flatnonzero((beyond >= 0) & (beyond % stride == 0))
    return order[last], features[order][last[:, None] + np.arange(1 - WINDOW, 1)]


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a batch of n rows did: `late` (n,) rows ignored, `ends` (k,) rows that complete a window
    (rising), `windows` (k, WINDOW, FEATURES). A row in neither waits: insufficient data.

    `lost` (n,) are late rows of a car that said nothing else for more than MAX_GAP_MS of their arrival:
    its clock was set back, or its newest rows are missing.
    """

    late: NDArray[np.bool_]
    lost: NDArray[np.bool_]
    ends: Index
    windows: Features


class WindowStore:
    """The last WINDOW valid rows of each vehicle in ring buffers, for at most `max_vehicles`.

    Memory grows by doubling and never beyond the bound. Counters: `late` rows ignored, `refused`
    ids that found no room.
    """

    def __init__(self, *, max_vehicles: int) -> None:
        if max_vehicles < 1:
            raise ValueError(f"max_vehicles is {max_vehicles}; at least 1 is accepted")
        self.late = 0
        self.refused = 0
        self._max_vehicles = max_vehicles
        self._slots: dict[str, int] = {}
        self._ids: list[str] = []
        capacity = min(max_vehicles, 256)
        self._rows: Features = np.zeros((capacity, WINDOW, len(FEATURES)), dtype=np.float32)
        self._count = np.zeros(capacity, dtype=np.int64)  # rows since the last break
        self._newest = np.zeros(capacity, dtype=np.int64)  # event time, when count > 0
        self._arrived = np.zeros(capacity, dtype=np.int64)  # clock, for giving slots back
        self._late_from = np.zeros(
            capacity, dtype=np.int64
        )  # arrival of the first of late rows alone
        self._handed: list[int] = []
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._slots)

    def find(self, vehicle_ids: Iterable[str]) -> Index:
        """The slot of each vehicle that has one, -1 for all others."""
        slot = self._slots.get
        return np.array([slot(vehicle_id, -1) for vehicle_id in vehicle_ids], dtype=np.int64)

    def ids(self, slots: Index) -> list[str]:
        """The vehicles in these slots."""
        return [self._ids[slot] for slot in slots.tolist()]

    def drop(self, slots: Index) -> None:
        """Forget the vehicles in these slots, which others may take."""
        for slot in slots.tolist():
            del self._slots[self._ids[slot]]
        self._count[slots] = self._late_from[slots] = 0
        self._free += slots.tolist()

    def index(self, vehicle_ids: Iterable[str], now_ms: int) -> Index:
        """The slot of each vehicle, -1 where there is no room.

        When the store is full, a newcomer takes the slot of a vehicle that has been silent for more
        than MAX_GAP_MS, whose window a gap would end anyway.
        """
        ids = list(vehicle_ids)
        slots = self.find(ids)
        self._arrived[slots[slots >= 0]] = now_ms
        if (slots >= 0).all():
            return slots
        idle: list[int] | None = None
        for i in np.flatnonzero(slots < 0).tolist():
            slot = self._slots.get(ids[i])
            if slot is None and self._free:
                slot = self._free.pop()
                self._ids[slot] = ids[i]
                self._slots[ids[i]] = slot
            elif slot is None and len(self._ids) < self._max_vehicles:
                slot = self._append(ids[i])
            elif slot is None:
                if idle is None:
                    idle = np.flatnonzero(now_ms - self._arrived > MAX_GAP_MS).tolist()
                slot = self._replace(ids[i], idle)
            if slot is None:
                self.refused += 1
                continue
            self._arrived[slot] = now_ms
            slots[i] = slot
        return slots

    def handed_over(self) -> Index:
        """Slots that went to another vehicle since this was last asked."""
        handed, self._handed = self._handed, []
        return np.array(handed, dtype=np.int64)

    def push(
        self, vehicles: Index, features: Features, event_times: Index, arrivals: Index | None = None
    ) -> Pushed:
        """Take valid rows in order of arrival; `vehicles` are slots from `index`, none negative.

        `arrivals` (n,) ms on the log's clock; None = they came when they say.
        """
        late, lost = np.zeros((2, vehicles.size), dtype=bool)
        came = event_times if arrivals is None else arrivals
        ends = [np.empty(0, dtype=np.int64)]
        found = [np.empty((0, WINDOW, len(FEATURES)), dtype=np.float32)]
        for rows in rounds(vehicles):
            slots, times = vehicles[rows], event_times[rows]
            stale = (self._count[slots] > 0) & (times <= self._newest[slots])
            late[rows[stale]] = True
            lost[rows[stale]] = self._lose(slots[stale], came[rows[stale]])
            fresh = rows[~stale]
            full, window = self._take(slots[~stale], features[fresh], times[~stale])
            ends.append(fresh[full])
            found.append(window)
        self.late += int(late.sum())
        end = np.concatenate(ends)
        rising = np.argsort(end)
        return Pushed(late, lost, end[rising], np.concatenate(found)[rising])

    def _lose(self, slots: Index, arrivals: Index) -> NDArray[np.bool_]:
        """A late row of each of `slots`: whether nothing else came for too long."""
        since = self._late_from[slots]
        self._late_from[slots] = since = np.where(since == 0, arrivals, since)
        lost: NDArray[np.bool_] = arrivals - since > MAX_GAP_MS
        return lost

    def _take(
        self, slots: Index, features: Features, times: Index
    ) -> tuple[NDArray[np.bool_], Features]:
        """One newer row for each of `slots`: which of them have a full window now, and these."""
        self._count[slots[times - self._newest[slots] > MAX_GAP_MS]] = 0
        self._rows[slots, self._count[slots] % WINDOW] = features
        self._count[slots] += 1
        self._newest[slots] = times
        self._late_from[slots] = 0
        full = self._count[slots] >= WINDOW
        ready = slots[full, None]
        return full, self._rows[ready, (self._count[ready] + np.arange(WINDOW)) % WINDOW]

    def _append(self, vehicle_id: str) -> int:
        slot = len(self._ids)
        if slot == self._count.size:
            more = min(2 * slot, self._max_vehicles) - slot
            self._rows = np.concatenate(
                [self._rows, np.zeros_like(self._rows, shape=(more, *self._rows.shape[1:]))]
            )
            self._count, self._newest, self._arrived, self._late_from = (
                np.concatenate([a, np.zeros(more, dtype=np.int64)])
                for a in (self._count, self._newest, self._arrived, self._late_from)
            )
        self._ids.append(vehicle_id)
        self._slots[vehicle_id] = slot
        return slot

    def _replace(self, vehicle_id: str, idle: list[int]) -> int | None:
        if not idle:
            return None
        slot = idle.pop()
        del self._slots[self._ids[slot]]
        self._ids[slot] = vehicle_id
        self._slots[vehicle_id] = slot
        self._count[slot] = self._late_from[slot] = 0
        self._handed.append(slot)
        return slot


def rounds(vehicles: Index) -> list[Index]:
    """Rows by occurrence: first the first row of every vehicle, then every second, and so on."""
    if not vehicles.size:
        return []
    order = np.argsort(vehicles, kind="stable")
    _, first, counts = np.unique(vehicles[order], return_index=True, return_counts=True)
    rank = np.arange(order.size) - np.repeat(first, counts)
    by_rank = order[np.argsort(rank, kind="stable")]
    return np.split(by_rank, np.cumsum(np.bincount(rank))[:-1])
