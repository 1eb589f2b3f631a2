"""Rejected records, the newest first, over a log that can only be read forwards. No I/O of its own.

Each partition is read backwards in blocks; of what matches, the newest of all partitions comes next, and
a partition is read on when it has nothing more to offer. Within a partition the order is Kafka's. A
cursor is where each partition goes on, so a list neither skips nor repeats while new records come and
old ones go.

One call looks at MOST_SCANNED records or for MOST_S: a filter that matches little gives short pages,
even empty ones, with a cursor.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Final, NamedTuple, Protocol

from twin.api.problems import Problem
from twin.api.tokens import decode_text, encode_text
from twin.wire.partition import partition_of
from twin.wire.redrive import Rejected

MOST_SCANNED: Final = 20_000
MOST_S: Final = 3.0
_FIRST_BLOCK: Final = 16
_LAST_BLOCK: Final = 1024
_BLOCK_BYTES: Final = 4 * 1024 * 1024
_CLOCKS_MS: Final = 60_000
"""How far the clocks of those who reject may be apart; but for that, time grows along a partition."""
_CURSOR_CHARS: Final = 16_000
_RUN: Final = 64
_GAP: Final = 4
_BATCH_BYTES: Final = 16 * 1024 * 1024


class Record(NamedTuple):
    """A record of topic `rejected`; `at` in ms is when it was rejected."""

    partition: int
    offset: int
    at: int
    key: bytes | None
    told: Rejected
    size: int
    """Bytes of its value."""

    @property
    def id(self) -> str:
        """`partition-offset`."""
        return f"{self.partition}-{self.offset}"


Span = tuple[int, int]
"""Offsets: from, and up to but without."""


class Log(Protocol):
    """Topic `rejected` as it is scanned."""

    def partitions(self) -> int:
        """How many it has."""

    def bounds(self, partitions: Collection[int]) -> dict[int, Span]:
        """What each partition holds."""

    def first_at(self, bounds: Mapping[int, Span], at_ms: int) -> dict[int, int]:
        """The first offset in each partition whose time is not before `at_ms`; the end without one."""

    def read(self, spans: Mapping[int, Span]) -> Iterable[Record]:
        """Records of these spans, of each partition in its order."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A filter. Times in ms: `at_from` <= at < `at_to`; `source` is a prefix."""

    reason: str | None = None
    vehicle_id: str | None = None
    source: str | None = None
    at_from: int | None = None
    at_to: int | None = None

    def fits(self, record: Record) -> bool:
        """Whether the record is one that is looked for."""
        return (
            (self.reason is None or record.told.reason == self.reason)
            and (self.vehicle_id is None or record.key == self.vehicle_id.encode())
            and (self.source is None or record.told.source.startswith(self.source))
            and (self.at_from is None or record.at >= self.at_from)
            and (self.at_to is None or record.at < self.at_to)
        )


class Page(NamedTuple):
    """Records, the newest first; `cursor` where to go on, None at the end.

    `start`: where it began, so that the same can be asked for again whatever came meanwhile; None: empty.
    """

    items: list[Record]
    cursor: str | None
    start: str | None


class _Tail:
    """One partition, read from its end on."""

    def __init__(self, low: int, high: int) -> None:
        self.low = low
        self.read_from = high
        self.found: deque[Record] = deque()
        """What matches and was not given away, the newest first."""
        self._block = _FIRST_BLOCK

    @property
    def is_open(self) -> bool:
        return not self.found and self.read_from > self.low

    def next_span(self) -> Span:
        return max(self.low, self.read_from - self._block), self.read_from

    def take(self, span: Span, records: list[Record], wanted: Wanted) -> None:
        self.read_from = span[0]
        self.found.extend(record for record in reversed(records) if wanted.fits(record))
        each = sum(record.size for record in records) // max(1, len(records)) + 1
        self._block = max(1, min(2 * self._block, _LAST_BLOCK, _BLOCK_BYTES // each))

    @property
    def go_on(self) -> int:
        """Everything from here on is given away or does not match."""
        return self.found[0].offset + 1 if self.found else self.read_from


def scan(
    log: Log,
    wanted: Wanted,
    cursor: str | None,
    limit: int,
    clock: Callable[[], float] = monotonic,
) -> Page:
    """The next `limit` records behind the cursor. Raises `Problem` invalid_cursor."""
    end = clock() + MOST_S
    tails = _tails(log, wanted, None if cursor is None else decode_cursor(cursor))
    start = _cursor(tails)
    items: list[Record] = []
    scanned = 0
    while len(items) < limit:
        ready = [tail for tail in tails.values() if tail.found]
        spans = {number: tail.next_span() for number, tail in tails.items() if tail.is_open}
        if spans:
            if scanned and (scanned >= MOST_SCANNED or clock() >= end):
                break
            blocks: dict[int, list[Record]] = {number: [] for number in spans}
            for record in log.read(spans):
                blocks[record.partition].append(record)
            for number, span in spans.items():
                tails[number].take(span, blocks[number], wanted)
                scanned += span[1] - span[0]
        elif ready:
            newest = max(ready, key=lambda tail: (tail.found[0].at, tail.found[0].partition))
            items.append(newest.found.popleft())
        else:
            return Page(items, None, start)
    return Page(items, _cursor(tails), start)


def _cursor(tails: Mapping[int, _Tail]) -> str | None:
    left = {number: tail.go_on for number, tail in tails.items() if tail.go_on > tail.low}
    return encode_cursor(left) if left else None


def _tails(log: Log, wanted: Wanted, places: Mapping[int, int] | None) -> dict[int, _Tail]:
    count = log.partitions()
    if wanted.vehicle_id is None:
        numbers = set(range(count))
    else:
        numbers = {partition_of(wanted.vehicle_id.encode(), count)}
    if places is not None:
        numbers &= places.keys()
    bounds = log.bounds(numbers)
    lows = {number: low for number, (low, _) in bounds.items()}
    highs = {number: high for number, (_, high) in bounds.items()}
    if wanted.at_from is not None:
        lows = log.first_at(bounds, wanted.at_from)
    if wanted.at_to is not None:
        highs = log.first_at(bounds, wanted.at_to + _CLOCKS_MS)
    if places is not None:
        highs = {number: min(high, places[number]) for number, high in highs.items()}
    return {number: _Tail(lows[number], highs[number]) for number in sorted(numbers)}


def encode_cursor(places: Mapping[int, int]) -> str:
    """A cursor that goes on below these offsets."""
    return encode_text(",".join(f"{number}:{offset}" for number, offset in places.items()))


def decode_cursor(text: str) -> dict[int, int]:
    """Offsets by partition; raises `Problem` invalid_cursor."""
    try:
        pairs = [pair.split(":") for pair in decode_text(text, _CURSOR_CHARS).split(",")]
        return {_number(number): _number(offset) for number, offset in pairs}
    except ValueError as error:
        raise Problem(
            "invalid_cursor",
            f"cursor={text[:80]!r} is none: next_cursor of the page before is accepted",
        ) from error


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise ValueError("no number")
    return int(text)


def batches(records: Iterable[Record]) -> Iterable[dict[int, Span]]:
    """Spans that hold all the records, to be read one after the other, each bounded in bytes.

    They hold few records besides. Every span of a batch is of another partition.
    """
    runs: dict[int, list[tuple[Span, int]]] = {}
    for record in sorted(records):
        of = runs.setdefault(record.partition, [])
        if of:
            (start, end), size = of[-1]
            near = record.offset <= end + _GAP and record.offset - start < _RUN
            if near and size + record.size <= _BATCH_BYTES:
                of[-1] = ((start, record.offset + 1), size + record.size)
                continue
        of.append(((record.offset, record.offset + 1), record.size))
    while any(runs.values()):
        batch: dict[int, Span] = {}
        room = _BATCH_BYTES
        for number, of in runs.items():
            if of and (not batch or of[0][1] <= room):
                batch[number], size = of.pop(0)
                room -= size
        yield batch
