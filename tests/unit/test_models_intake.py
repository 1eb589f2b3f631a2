"""Records to rows, or aside."""

import pytest

from models.intake import Record, read, rejection
from tests.models_builders import T0, telemetry
from twin.wire import codec

GOOD = codec.encode_telemetry(telemetry("car-1", T0))
HEADERS = [("ingested-at", b"5"), ("content-type", b"avro/binary")]


def _record(value: bytes | None = GOOD, key: bytes | None = b"car-1", offset: int = 7) -> Record:
    return Record("telemetry", 3, offset, key, value, HEADERS)


def test_rows_keep_order_and_offset_by_partition() -> None:
    """Each partition's rows come out as they lay in the log."""
    records = [_record(offset=1), Record("telemetry", 4, 8, b"car-1", GOOD, []), _record(offset=2)]
    rows, refused = read(records)
    assert {p: part.offsets for p, part in rows.items()} == {3: [1, 2], 4: [8]}
    assert rows[3].batch().event_times.tolist() == [T0, T0]
    assert not refused


def test_suspect_rows_are_not_usable() -> None:
    """The uplink's doubt reaches the models."""
    doubtful = telemetry("car-1", T0)
    doubtful.suspect = ("speed",)
    rows, _ = read([_record(), _record(codec.encode_telemetry(doubtful))])
    assert rows[3].batch().usable.tolist() == [True, False]


@pytest.mark.parametrize(
    ("value", "key", "reason"),
    [
        (b"\xff\x00poison", b"car-1", "malformed_avro"),
        (GOOD[:-3], b"car-1", "malformed_avro"),
        (None, b"car-1", "malformed_avro"),
        (b"\x00\x00\x00\x00\x63abc", b"car-1", "unknown_schema"),
        (GOOD, b"car-2", "identity_mismatch"),
        (GOOD, None, "identity_mismatch"),
    ],
)
def test_a_poison_record_is_put_aside_and_the_rest_is_read(
    value: bytes | None, key: bytes | None, reason: str
) -> None:
    """Between two good records a bad one stops nothing and is told why."""
    rows, refused = read([_record(offset=1), _record(value, key, 2), _record(offset=3)])
    assert rows[3].offsets == [1, 3]
    assert [(record.offset, error.reason) for record, error in refused] == [(2, reason)]


def test_a_rejection_carries_position_reason_and_the_original() -> None:
    """Bytes and headers are kept so that the record can be driven again."""
    record = _record(b"poison")
    ((_, error),) = read([record])[1]
    aside = rejection(record, error, now_ms=11)
    headers = dict(aside.headers)
    assert (aside.key, aside.value) == (b"car-1", b"poison")
    assert headers["source"] == b"kafka:telemetry/3/7"
    assert headers["reason"] == b"malformed_avro"
    assert headers["attempts"] == b"1"
    assert headers["ingested-at"] == b"11"
    assert headers["content-type"] == b"avro/binary"
    assert headers["original-ingested-at"] == b"5"


def test_a_key_that_is_no_vehicle_id_is_not_a_key_of_rejected() -> None:
    """The rejected topic is keyed by vehicles only."""
    record = _record(b"poison", key=b"\xff\xfe")
    ((_, error),) = read([record])[1]
    assert rejection(record, error, now_ms=0).key is None
