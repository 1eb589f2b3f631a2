"""Topic `rejected` in memory, for the API without servers."""

from collections.abc import Collection, Mapping
from typing import Any

from twin.api.rejected_log import Whole
from twin.api.rejected_scan import Page, Record, Span, Wanted, scan
from twin.api.request_log import LogUnavailable
from twin.wire import redrive, rejected
from twin.wire.errors import WireError
from twin.wire.partition import partition_of
from twin.wire.redrive import Again


class FakeTopic:
    """Partitions as lists (`rejected_scan.Log`); offsets before `lows` are not kept any more."""

    def __init__(self, partitions: int = 3) -> None:
        self.records: list[list[Whole]] = [[] for _ in range(partitions)]
        self.lows = [0] * partitions
        self.reads = 0
        """How many offsets were read."""

    def add(
        self,
        error: WireError,
        source: str = "mqtt:vehicles/car-1/telemetry",
        value: bytes | None = b"{}",
        *,
        at: int,
        key: bytes | None = None,
        partition: int = 0,
        **more: Any,
    ) -> str:
        """Reject a message as the services do; the record's id."""
        vehicle_id, kept, made = rejected.record(
            error=error, source=source, at_ms=at, key=key, value=value, **more
        )
        named = None if vehicle_id is None else vehicle_id.encode()
        if named is not None:
            partition = partition_of(named, len(self.records))
        return self.put(partition, named, kept, [*made], at)

    def put(
        self,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: list[tuple[str, bytes | None]],
        at: int,
    ) -> str:
        """Any record; its id."""
        place = self.records[partition]
        told = redrive.read(headers)._replace(originals=[])
        record = Record(partition, len(place), at, key, told, len(value or b""))
        place.append(Whole(record, value, headers))
        return record.id

    def partitions(self) -> int:
        return len(self.records)

    def bounds(self, partitions: Collection[int]) -> dict[int, Span]:
        return {number: (self.lows[number], len(self.records[number])) for number in partitions}

    def first_at(self, bounds: Mapping[int, Span], at_ms: int) -> dict[int, int]:
        return {
            number: next(
                (n for n in range(low, high) if self.records[number][n].record.at >= at_ms), high
            )
            for number, (low, high) in bounds.items()
        }

    def read(self, spans: Mapping[int, Span]) -> list[Record]:
        self.reads += sum(end - start for start, end in spans.values())
        return [
            whole.record
            for number, (start, end) in spans.items()
            for whole in self.records[number][start:end]
        ]


class FakeRejected:
    """The methods of `RejectedLog` over such a topic; what is sent is kept."""

    def __init__(self) -> None:
        self.topic = FakeTopic()
        self.sent: list[Again] = []
        self.refusal: str | None = None
        """Why Kafka takes nothing."""
        self.away = False

    async def page(self, wanted: Wanted, cursor: str | None, limit: int) -> Page:
        self._check()
        return scan(self.topic, wanted, cursor, limit)

    async def read(self, spans: Mapping[int, Span]) -> list[Whole]:
        self._check()
        topic = self.topic
        return [
            whole
            for number, (start, end) in spans.items()
            if number < len(topic.records)
            for whole in topic.records[number][max(start, topic.lows[number]) : end]
        ]

    async def send(self, records: list[Again]) -> list[str | None]:
        self._check()
        if self.refusal is None:
            self.sent += records
        return [self.refusal] * len(records)

    def _check(self) -> None:
        if self.away:
            raise LogUnavailable("topic rejected cannot be read: no broker answers")
