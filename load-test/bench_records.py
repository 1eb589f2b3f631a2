"""The telemetry that benches feed: seeded, the same for every peer, with what real cars do to order.

Round 0 tells every vehicle once, in an order of its own; each later round does so again. In those
3 % of the records come late (older than the vehicle's last), 1 % are sent twice, and 5 % carry
only two thirds of the signals, so a fold that is not one of event time per signal ends in other values.

`Expected` is the reference: the greatest (event_time, sequence) per vehicle and signal, over columns.
Within a vehicle there is one session and one record a sequence, so nothing else can decide.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from twin.wire.codec import AVRO_BINARY, encode_telemetry
from twin.wire.telemetry import Telemetry

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Headers = list[tuple[str, bytes]]
Record = tuple[bytes, bytes, Headers]
"""Key, value and headers of a record of `telemetry`."""

# Name, mean, spread over the fleet and in time, integer? Those of the index first.
_SIGNALS: Final = (
    ("coolant_temp", 91.0, 6.0, False),
    ("speed", 22.0, 6.0, False),
    ("engine_vibration_amplitude", 310.0, 60.0, False),
    ("battery_percentage", 0.5, 0.1, False),
    ("intake_air_temp", 31.0, 5.0, False),
    ("intake_air_flow_speed", 42.0, 12.0, False),
    ("throttle_pos", 0.5, 0.1, False),
    ("current_draw", 14.0, 5.0, False),
    ("accelerometer_1_1_value", 3.1, 0.6, False),
    ("accelerometer_1_2_value", 3.0, 0.6, False),
    ("accelerometer_2_1_value", 2.9, 0.6, False),
    ("accelerometer_2_2_value", 3.2, 0.6, False),
    ("battery_voltage", 231.0, 4.0, False),
    ("tire_pressure_1_1", 33.0, 1.5, True),
    ("tire_pressure_1_2", 33.0, 1.5, True),
    ("tire_pressure_2_1", 34.0, 1.5, True),
    ("tire_pressure_2_2", 34.0, 1.5, True),
    ("control_unit_firmware", 2000.0, 0.0, True),
)
NAMES: Final = tuple(name for name, _, _, _ in _SIGNALS)
_INTEGER: Final = tuple(integer for _, _, _, integer in _SIGNALS)
_LATE, _TWICE, _PARTIAL = 0.03, 0.01, 0.05
_INTERVAL_MS: Final = 10_000
_ARRIVAL_MS: Final = 40
"""Car's clock to the uplink."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`messages` records behind the first of each of `vehicles`. `start_ms`: event time of round 0.

    A vehicle has the first `signals` of NAMES.
    """

    vehicles: int
    messages: int
    start_ms: int
    seed: int = 1
    signals: int = len(NAMES)

    @property
    def fast(self) -> int:
        """A partial record carries the first so many signals."""
        return self.signals * 2 // 3

    @property
    def session(self) -> int:
        """Connect time of every car, ms."""
        return self.start_ms - 60_000

    @property
    def total(self) -> int:
        """All records, round 0 among them."""
        return self.vehicles + self.messages


@dataclass(frozen=True, slots=True)
class Round:
    """One record of each vehicle, by its number; `order` says who is sent, and when."""

    number: int
    order: Ints
    times: Ints
    sequences: Ints
    partial: NDArray[np.bool_]
    values: Floats


def vehicle_id(number: int) -> str:
    return f"car-{number:06d}"


def rounds(plan: Plan) -> Iterator[Round]:
    """Round 0 and as many as `messages` need; the last may tell some vehicles only."""
    random = np.random.default_rng(plan.seed)
    means, spreads = (np.array([s[i] for s in _SIGNALS]) for i in (1, 2))
    size = (plan.vehicles, len(NAMES))
    own = means + random.normal(0, 1, size) * spreads
    left = plan.total
    before: Round | None = None
    number = 0
    while left > 0:
        values = np.round(own + random.normal(0, 0.2, size) * spreads, 3)
        values[:, _INTEGER] = np.round(values[:, _INTEGER])
        draw = random.random(plan.vehicles)
        order = random.permutation(plan.vehicles)[:left]
        times = np.full(plan.vehicles, plan.start_ms + number * _INTERVAL_MS, np.int64)
        sequences = np.full(plan.vehicles, 1000 + number * 10, np.int64)
        partial = random.random(plan.vehicles) < _PARTIAL
        if before is None:
            partial[:] = False
        else:
            times[draw < _LATE] -= _INTERVAL_MS + _INTERVAL_MS // 2
            sequences[draw < _LATE] -= 15
            twice = (draw >= _LATE) & (draw < _LATE + _TWICE)
            times[twice], sequences[twice] = before.times[twice], before.sequences[twice]
            partial[twice], values[twice] = before.partial[twice], before.values[twice]
        before = Round(number, order, times, sequences, partial, np.abs(values).astype(np.float32))
        yield before
        left -= len(order)
        number += 1


def records(plan: Plan, one: Round) -> Iterator[Record]:
    """The records of a round in the order of sending, as the uplink would write them."""
    arrived = plan.start_ms + one.number * _INTERVAL_MS + _ARRIVAL_MS
    headers = [
        ("ingested-at", str(arrived).encode()),
        ("content-type", AVRO_BINARY.encode()),
    ]
    for number in one.order.tolist():
        names = NAMES[: plan.fast if one.partial[number] else plan.signals]
        row: list[float] = one.values[number].tolist()
        car = vehicle_id(number)
        telemetry = Telemetry(
            car,
            int(one.times[number]),
            plan.session,
            int(one.sequences[number]),
            {
                name: int(value) if integer else value
                for name, value, integer in zip(names, row, _INTEGER, strict=False)
            },
        )
        yield car.encode(), encode_telemetry(telemetry), headers


def births(plan: Plan, at_ms: int) -> Iterator[Record]:
    """Every car comes online: records of `presence`."""
    headers = [("ingested-at", str(at_ms).encode()), ("content-type", b"application/json")]
    for number in range(plan.vehicles):
        name = vehicle_id(number)
        birth = {
            "vehicle_id": name,
            "state": "online",
            "session": plan.session,
            "at": at_ms,
            "shard": 0,
            "attributes": {"fleet": "bench"},
        }
        yield name.encode(), orjson.dumps(birth), headers


class Expected:
    """What every twin must report after the rounds that were added."""

    def __init__(self, plan: Plan) -> None:
        size = (plan.vehicles, len(NAMES))
        self._plan = plan
        self._known = np.zeros(size, np.bool_)
        self._times = np.zeros(size, np.int64)
        self._sequences = np.zeros(size, np.int64)
        self._values = np.zeros(size, np.float32)

    def add(self, one: Round) -> None:
        """Fold the records of a round; in which order does not matter."""
        sent = np.zeros(len(one.times), np.bool_)
        sent[one.order] = True
        carried = np.ones_like(self._known)
        carried[:, self._plan.signals :] = False
        carried[one.partial, self._plan.fast :] = False
        times, sequences = one.times[:, None], one.sequences[:, None]
        newer = (times > self._times) | ((times == self._times) & (sequences > self._sequences))
        wins = sent[:, None] & carried & (newer | ~self._known)
        self._known |= wins
        np.copyto(self._times, times, where=wins)
        np.copyto(self._sequences, sequences, where=wins)
        np.copyto(self._values, one.values, where=wins)

    @property
    def vehicles(self) -> int:
        return len(self._times)

    def differences(self, number: int, reported: dict[str, Any]) -> list[str]:
        """What of `reported` (name -> value, event time, session, sequence) is not as it must be."""
        wrong = []
        known = self._known[number]
        if len(reported) != int(known.sum()):
            wrong.append(f"{vehicle_id(number)} has {len(reported)} signals, not {known.sum()}")
        for name, value, time, sequence, there in zip(
            NAMES,
            self._values[number].tolist(),
            self._times[number].tolist(),
            self._sequences[number].tolist(),
            known.tolist(),
            strict=True,
        ):
            if not there:
                continue
            ours = (value, time, self._plan.session, sequence)
            theirs = reported.get(name)
            # A peer may write 91.2 where float32 is 91.19999694824219.
            if theirs is None or (float(np.float32(theirs[0])), *theirs[1:]) != ours:
                wrong.append(f"{vehicle_id(number)} {name} is {theirs}, must be {ours}")
        return wrong
