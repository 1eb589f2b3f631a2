"""Kafka records of telemetry to rows, or to records for `rejected`. Pure.

The uplink has checked every record, so what is refused here is a writer that went round it: no
framed Avro, an unknown schema, or a key that is not the vehicle's id (its rows would land on a
partition where the car's window is not). Such a record is put aside, and the partition goes on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from models.features import signal_matrix
from models.scoring import Batch
from twin.kit.kafka import Headers
from twin.wire import codec
from twin.wire.errors import Malformed, Misaddressed, WireError
from twin.wire.ids import check_vehicle_id
from twin.wire.telemetry import Telemetry

_DETAIL_CHARS = 500


@dataclass(frozen=True, slots=True)
class Record:
    """One Kafka record, without its client."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record for topic `rejected`."""

    key: bytes | None
    value: bytes
    headers: Headers


@dataclass(slots=True)
class Rows:
    """Readable rows of one partition in order of arrival, with their offsets."""

    rows: list[Telemetry] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)

    def batch(self) -> Batch:
        """The rows as the models take them."""
        return Batch(
            [row.vehicle_id for row in self.rows],
            np.array([row.event_time for row in self.rows], dtype=np.int64),
            signal_matrix([row.signals for row in self.rows]),
            np.array([not row.suspect for row in self.rows], dtype=bool),
        )


def read(records: Sequence[Record]) -> tuple[dict[int, Rows], list[tuple[Record, WireError]]]:
    """Rows by partition, and what is none with the reason."""
    found: dict[int, Rows] = {}
    refused = []
    for record in records:
        try:
            row = _row(record)
        except WireError as error:
            refused.append((record, error))
            continue
        rows = found.setdefault(record.partition, Rows())
        rows.rows.append(row)
        rows.offsets.append(record.offset)
    return found, refused


def rejection(record: Record, error: WireError, now_ms: int) -> Rejected:
    """The `rejected` record: original bytes, position and reason."""
    source = f"kafka:{record.topic}/{record.partition}/{record.offset}"
    original = dict(record.headers)
    headers: Headers = [
        ("reason", error.reason.encode()),
        ("detail", error.detail[:_DETAIL_CHARS].encode(errors="backslashreplace")),
        ("source", source.encode()),
        ("attempts", b"1"),
        ("ingested-at", str(now_ms).encode()),
    ]
    if "content-type" in original:
        headers.append(("content-type", original["content-type"]))
    headers += [(f"original-{name}", value) for name, value in record.headers]
    return Rejected(_known_key(record.key), record.value or b"", headers)


def _row(record: Record) -> Telemetry:
    if record.value is None:
        raise Malformed("the record is empty; framed Avro is accepted", reason="malformed_avro")
    row = codec.decode_telemetry(record.value)
    if record.key != row.vehicle_id.encode():
        raise Misaddressed(
            f"the record's key is {(record.key or b'')[:80]!r}, its vehicle {row.vehicle_id!r};"
            " the key must be the vehicle id"
        )
    return row


def _known_key(key: bytes | None) -> bytes | None:
    try:
        return check_vehicle_id((key or b"").decode()).encode()
    except (UnicodeDecodeError, WireError):
        return None
