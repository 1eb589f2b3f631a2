"""Kafka records of telemetry to rows. Pure.

The uplink has checked every record, so what is no row comes of a writer that went round it: no
framed Avro, an unknown schema, a key that is not the vehicle's id (its rows would land on a
partition where the car's window is not), an impossible id or number. The twin worker sets such a
record aside, once and with its reason; here it is only passed over.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from models.features import signal_matrix
from models.scoring import Batch
from twin.wire import codec
from twin.wire.errors import Invalid, Malformed, Misaddressed, WireError
from twin.wire.ids import check_vehicle_id
from twin.wire.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Record:
    """One Kafka record, without its client."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


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


def read(records: Sequence[Record]) -> tuple[dict[int, Rows], list[Record]]:
    """Rows by partition, and the records that are none."""
    found: dict[int, Rows] = {}
    unreadable = []
    for record in records:
        try:
            row = _row(record)
        except WireError:
            unreadable.append(record)
            continue
        rows = found.setdefault(record.partition, Rows())
        rows.rows.append(row)
        rows.offsets.append(record.offset)
    return found, unreadable


def _row(record: Record) -> Telemetry:
    if record.value is None:
        raise Malformed("the record is empty; framed Avro is accepted", reason="malformed_avro")
    row = codec.decode_telemetry(record.value)
    check_vehicle_id(row.vehicle_id)
    if record.key != row.vehicle_id.encode():
        raise Misaddressed(
            f"the record's key is {(record.key or b'')[:80]!r}, its vehicle {row.vehicle_id!r};"
            " the key must be the vehicle id"
        )
    if row.event_time < 0 or row.session < 0 or row.sequence < 0:
        raise Invalid("a time or number is negative; integers from 0 are accepted")
    # 32-bit values cannot overflow the sum, so it is finite only if each of them is.
    if not math.isfinite(sum(row.signals.values())):
        raise Invalid("a signal is infinite or no number; finite numbers are accepted")
    return row
