"""One recording (CSV) -> rows as a car would have said them: vehicle, event time, signals.

Streams: a recording may be longer than memory. The rules for cells, the same for every format:
a blank cell is an absent signal; a short row lacks its last signals; anything else that is no
number is a fault, reported with file and line. Blank lines are no rows. carOBD files end each row
in a comma, and some recordings stop in the middle of a row; both are covered by these rules.
"""

import csv
import heapq
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Final

from twin.client.replay_source import BadRecording, Source
from twin.wire.catalogue import BY_NAME
from twin.wire.columns import FORMATS, Format, column_name, recognise
from twin.wire.errors import Misaddressed
from twin.wire.ids import check_vehicle_id

MAX_LINE_BYTES: Final = 65_536
DEFAULT_START_MS: Final = 1_577_836_800_000
"""2020-01-01T00:00:00Z: first row of a recording that has no clock of its own."""

OnFault = Callable[[str], None]
"""Called with a sentence (file:line, what is wrong, what is accepted); it may raise."""


@dataclass(frozen=True, slots=True)
class Row:
    """One telemetry message to be: event time in ms, catalogue signals that are present."""

    vehicle_id: str
    event_time: int
    signals: dict[str, float]


@dataclass(frozen=True, slots=True)
class Recording:
    """A recognised file. `ignored` are its columns that carry no signal."""

    source: Source
    form: Format
    names: tuple[str, ...]
    ignored: tuple[str, ...]
    vehicle_id: str | None


def recognise_file(source: Source) -> Recording:
    """Read the header. Raises `BadRecording` when it is of no known format."""
    with _opened(source) as stream:
        header = next(_cells(source, stream), None)
    if header is None:
        raise BadRecording(f"{source.name} is empty; a header line and rows are accepted")
    names = tuple(column_name(cell) for cell in header)
    form = recognise(names)
    if form is None:
        known = "; ".join(f"{known.name}: {', '.join(sorted(known.marks))}" for known in FORMATS)
        shown = ", ".join(names)[:100].encode("ascii", "backslashreplace").decode()
        raise BadRecording(
            f"{source.name}:1: header {shown!r} is of no known format; a header with these columns"
            f" is accepted: {known}"
        )
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise BadRecording(f"{source.name}:1: column {twice!r} is there twice; once is accepted")
    own = {form.time, form.vehicle, "", *form.columns}
    ignored = tuple(name for name in names if name not in own)
    vehicle_id = None
    if form.vehicle is None:
        try:
            vehicle_id = check_vehicle_id(form.vehicle_prefix + source.stem)
        except Misaddressed as error:
            raise BadRecording(f"{source.name}: by the file's name, {error.detail}") from None
    return Recording(source, form, names, ignored, vehicle_id)


def merged(
    recordings: Iterable[Recording], start_ms: int, on_fault: OnFault
) -> Iterator[tuple[Row, int]]:
    """All rows in the order of event time, each with its number within its vehicle, from 1.

    Recordings without a clock begin at `start_ms` and have one row a second. The order within a
    recording is kept even where its times go back. Rows with faults are left out.
    """
    numbers: dict[str, int] = {}
    with ExitStack() as opened:
        streams = [
            _rows(recording, opened.enter_context(_opened(recording.source)), start_ms, on_fault)
            for recording in recordings
        ]
        for row in heapq.merge(*streams, key=_event_time):
            number = numbers.get(row.vehicle_id, 0) + 1
            numbers[row.vehicle_id] = number
            yield row, number


def _event_time(row: Row) -> int:
    return row.event_time


def _rows(
    recording: Recording, stream: BinaryIO, start_ms: int, on_fault: OnFault
) -> Iterator[Row]:
    source, form, names = recording.source, recording.form, recording.names
    columns = [
        (index, name, form.columns[name])
        for index, name in enumerate(names)
        if name in form.columns
    ]
    # Integers go out as integers, as a car's own software would send them.
    plan = [
        (index, name, column.signal, column.factor, column.offset,
         BY_NAME[column.signal].type == "int")
        for index, name, column in columns
    ]  # fmt: skip
    time_index = names.index(form.time) if form.time else None
    vehicle_index = names.index(form.vehicle) if form.vehicle else None
    width = len(names)
    lines = _cells(source, stream)
    next(lines, None)
    count = -1
    line = 1
    for cells in lines:
        line += 1
        if not cells or (len(cells) == 1 and not cells[0].strip()):
            continue
        count += 1
        where = f"{source.name}:{line}"
        if len(cells) > width and any(cell.strip() for cell in cells[width:]):
            on_fault(
                f"{where}: {len(cells)} cells under {width} columns; at most {width} are accepted"
            )
            continue
        signals: dict[str, float] = {}
        try:
            for index, name, signal, factor, offset, integer in plan:
                cell = cells[index].strip() if index < len(cells) else ""
                if not cell:
                    continue
                value = _number(cell, name) * factor + offset
                signals[signal] = int(value) if integer and value.is_integer() else value
            event_time = (
                start_ms + count * 1000
                if time_index is None
                else _milliseconds(_cell(cells, time_index), names[time_index])
            )
            vehicle_id = recording.vehicle_id or check_vehicle_id(_cell(cells, vehicle_index))
        except _Fault as fault:
            on_fault(f"{where}: {fault}")
            continue
        except Misaddressed as error:
            on_fault(f"{where}: {error.detail}")
            continue
        yield Row(vehicle_id, event_time, signals)


class _Fault(ValueError):
    """What is wrong with a cell, and what is accepted."""


def _cell(cells: list[str], index: int | None) -> str:
    return cells[index].strip() if index is not None and index < len(cells) else ""


def _number(cell: str, name: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    # float() also takes "1_000", "inf" and "nan", which no recorder means as a value.
    if not math.isfinite(value) or "_" in cell:
        raise _Fault(f"{name} is {cell[:40]!r}; a decimal number or nothing is accepted")
    return value


def _milliseconds(cell: str, name: str) -> int:
    try:
        value = round(_number(cell, name) * 1000) if cell else -1
    except _Fault:
        value = -1
    if not 0 <= value < 2**63:
        raise _Fault(f"{name} is {cell[:40]!r}; seconds since 1970 are accepted")
    return value


@contextmanager
def _opened(source: Source) -> Iterator[BinaryIO]:
    try:
        stream = source.path.open("rb")
    except OSError as error:
        raise BadRecording(f"{source.name} cannot be read: {error.strerror}") from None
    with stream:
        yield stream


def _cells(source: Source, stream: BinaryIO) -> Iterator[list[str]]:
    """One list a line, so that a line's number is its place; raises `BadRecording`."""
    line = 0
    try:
        while data := stream.readline(MAX_LINE_BYTES + 1):
            line += 1
            if len(data) > MAX_LINE_BYTES:
                raise BadRecording(
                    f"{source.name}:{line}: a line of more than {MAX_LINE_BYTES} bytes; CSV lines"
                    " up to that are accepted"
                )
            text = data.decode("utf-8-sig" if line == 1 else "utf-8")
            # A reader a line: a stray quote is a fault of its line and swallows no other.
            yield next(csv.reader((text,), strict=True))
    except UnicodeDecodeError:
        raise BadRecording(f"{source.name}:{line}: not text; CSV in UTF-8 is accepted") from None
    except csv.Error as error:
        raise BadRecording(f"{source.name}:{line}: not CSV: {error}") from None
