"""What must come out: one pass over the rows before the first is sent.

Counts rows, suspect rows and rejections with the uplink's own judge (`twin.wire.telemetry`), and
folds the last present value of each signal of each vehicle. The fold is this module's own, in ten
lines: it is what the twins are measured against, so it shares nothing with the worker. All faults
of the files are found here, so nothing is sent of a recording that cannot be sent whole.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from twin.client.replay_rows import Recording, Row, merged, recognise_file
from twin.client.replay_source import BadRecording, Source
from twin.wire.catalogue import BY_NAME
from twin.wire.errors import Invalid
from twin.wire.telemetry import Telemetry, Validation, from_fields

MAX_VEHICLES: Final = 100_000
_SHOWN_FAULTS: Final = 5
_REPORT_EVERY: Final = 2_000


@dataclass(slots=True)
class Vehicle:
    """Rows of one car, how many are accepted, and its last values by (event time, row number)."""

    rows: int = 0
    accepted: int = 0
    last: dict[str, tuple[int, int, float]] = field(default_factory=dict)

    def fold(self, event_time: int, number: int, signals: dict[str, float]) -> None:
        """Keep each value that is newer than the one known."""
        self.accepted += 1
        for name, value in signals.items():
            known = self.last.get(name)
            if known is None or (event_time, number) > known[:2]:
                self.last[name] = (event_time, number, value)

    def expected(self) -> dict[str, float]:
        """Signal -> the value that the twin must report: a float as float32 keeps it."""
        return {name: stored(name, value) for name, (_, _, value) in self.last.items()}


@dataclass(slots=True)
class Suspicion:
    """Impossible values of one signal: how many, and the one furthest out of its range."""

    rows: int
    worst: float


@dataclass(slots=True)
class Plan:
    """A replay, known in advance. Times in ms; `session` is the same whenever it is replayed.

    `suspect` rows have impossible values (`by_signal`): kept and marked, or rejected in `enforce`.
    `by_reason` counts the rows that will be rejected.
    """

    recordings: tuple[Recording, ...]
    start_ms: int
    mode: Validation
    rows: int = 0
    accepted: int = 0
    first: int = 0
    last: int = 0
    suspect: int = 0
    by_signal: dict[str, Suspicion] = field(default_factory=dict)
    by_reason: dict[str, int] = field(default_factory=dict)
    vehicles: dict[str, Vehicle] = field(default_factory=dict)

    @property
    def session(self) -> int:
        """First event time: a second replay repeats every record exactly (law 1 absorbs it)."""
        return self.first

    @property
    def ignored(self) -> tuple[str, ...]:
        """Columns that carry no signal, over all recordings."""
        return tuple(dict.fromkeys(name for one in self.recordings for name in one.ignored))

    def messages(self) -> Iterator[tuple[str, int, bytes]]:
        """Vehicle, event time (ms) and payload of every row, in order of event time.

        Raises `BadRecording` when the files are no longer what was planned.
        """
        for row, number in merged(self.recordings, self.start_ms, _changed):
            vehicle = self.vehicles.get(row.vehicle_id)
            if vehicle is None or number > vehicle.rows:
                _changed(f"vehicle {row.vehicle_id} has more rows than before")
            yield row.vehicle_id, row.event_time, _payload(row, number, self.session)

    def _take(self, row: Row, number: int) -> None:
        self.first = min(self.first, row.event_time) if self.rows else row.event_time
        self.last = max(self.last, row.event_time)
        self.rows += 1
        vehicle = self.vehicles.get(row.vehicle_id)
        if vehicle is None:
            if len(self.vehicles) == MAX_VEHICLES:
                raise BadRecording(
                    f"the recordings hold more than {MAX_VEHICLES} vehicles; replay them in parts"
                )
            vehicle = self.vehicles[row.vehicle_id] = Vehicle()
        vehicle.rows += 1
        judged = _judge(row, "warn")
        if isinstance(judged, Telemetry) and judged.suspect:
            self._suspect(judged.suspect, row.signals)
        if self.mode == "enforce" and (isinstance(judged, Invalid) or judged.suspect):
            judged = _judge(row, "enforce")
        if isinstance(judged, Invalid):
            self.by_reason[judged.reason] = self.by_reason.get(judged.reason, 0) + 1
            return
        self.accepted += 1
        vehicle.fold(row.event_time, number, judged.signals)

    def _suspect(self, names: Sequence[str], signals: dict[str, float]) -> None:
        self.suspect += 1
        for name in names:
            value = signals[name]
            known = self.by_signal.get(name)
            if known is None:
                self.by_signal[name] = Suspicion(1, value)
                continue
            known.rows += 1
            if _outside(name, value) > _outside(name, known.worst):
                known.worst = value


def make(
    sources: Sequence[Source],
    start_ms: int,
    mode: Validation,
    on_progress: Callable[[int], None] = lambda rows: None,
) -> Plan:
    """Read all recordings once. `on_progress` gets the rows read so far.

    Raises `BadRecording` naming file, line and what is accepted.
    """
    recordings = tuple(recognise_file(source) for source in sources)
    _check_names(recordings)
    plan = Plan(recordings, start_ms, mode)
    faults: list[str] = []
    more = 0

    def on_fault(sentence: str) -> None:
        nonlocal more
        if len(faults) < _SHOWN_FAULTS:
            faults.append(sentence)
        else:
            more += 1

    for row, number in merged(recordings, start_ms, on_fault):
        plan._take(row, number)
        if plan.rows % _REPORT_EVERY == 0:
            on_progress(plan.rows)
    if faults:
        raise BadRecording("\n".join([*faults, f"and {more} more faults"] if more else faults))
    if not plan.rows:
        raise BadRecording(f"{sources[0].name} has a header but no rows")
    on_progress(plan.rows)
    return plan


def stored(name: str, value: float) -> float:
    """The value as telemetry keeps it: float32, or an integer where the catalogue says so."""
    if BY_NAME[name].type == "int":
        return value
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def _judge(row: Row, mode: Validation) -> Telemetry | Invalid:
    # Clocks are judged for the whole recording (`replay.check_clock`), so each row arrives in time.
    try:
        return from_fields(
            row.signals, vehicle_id=row.vehicle_id, ingested_at=row.event_time, counter=0, mode=mode
        )
    except Invalid as refused:
        return refused


def _payload(row: Row, number: int, session: int) -> bytes:
    head = {"event_time": row.event_time, "session": session, "sequence": number}
    return orjson.dumps({**head, **row.signals})


def _outside(name: str, value: float) -> float:
    signal = BY_NAME[name]
    return max(signal.low - value, value - signal.high, 0)


def _check_names(recordings: Sequence[Recording]) -> None:
    names: dict[str, str] = {}
    for recording in recordings:
        vehicle_id = recording.vehicle_id
        if vehicle_id is None:
            continue
        if vehicle_id in names:
            raise BadRecording(
                f"{recording.source.name} and {names[vehicle_id]} would both be vehicle"
                f" {vehicle_id}; one file of a name is accepted"
            )
        names[vehicle_id] = recording.source.name


def _changed(detail: str) -> None:
    raise BadRecording(f"a recording changed while it was replayed: {detail}")
