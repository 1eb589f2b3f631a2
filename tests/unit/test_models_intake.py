"""Records to rows, or passed over."""

import pytest

from models.intake import Record, read
from tests.models_builders import T0, telemetry
from twin.wire import codec

GOOD = codec.encode_telemetry(telemetry("car-1", T0))


def _record(value: bytes | None = GOOD, key: bytes | None = b"car-1", offset: int = 7) -> Record:
    return Record(3, offset, key, value)


def test_rows_keep_order_and_offset_by_partition() -> None:
    """Each partition's rows come out as they lay in the log."""
    records = [_record(offset=1), Record(4, 8, b"car-1", GOOD), _record(offset=2)]
    rows, unreadable = read(records)
    assert {p: part.offsets for p, part in rows.items()} == {3: [1, 2], 4: [8]}
    assert rows[3].batch().event_times.tolist() == [T0, T0]
    assert not unreadable


def test_suspect_rows_are_not_usable() -> None:
    """The uplink's doubt reaches the models."""
    doubtful = telemetry("car-1", T0)
    doubtful.suspect = ("speed",)
    rows, _ = read([_record(), _record(codec.encode_telemetry(doubtful))])
    assert rows[3].batch().usable.tolist() == [True, False]


def _impossible(**fields: object) -> bytes:
    row = telemetry("car-1", T0)
    for name, value in fields.items():
        setattr(row, name, value)
    return codec.encode_telemetry(row)


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b"\xff\x00poison", b"car-1"),
        (GOOD[:-3], b"car-1"),
        (None, b"car-1"),
        (b"\x00\x00\x00\x00\x63abc", b"car-1"),
        (GOOD, b"car-2"),
        (GOOD, None),
        (_impossible(vehicle_id="sensor"), b"sensor"),
        (_impossible(vehicle_id="a/b"), b"a/b"),
        (_impossible(vehicle_id=""), b""),
        (_impossible(event_time=-1), b"car-1"),
        (_impossible(session=-1), b"car-1"),
        (_impossible(sequence=-1), b"car-1"),
        (_impossible(signals={"speed": float("nan")}), b"car-1"),
        (_impossible(signals={"speed": 1.0, "coolant_temp": float("-inf")}), b"car-1"),
    ],
)
def test_a_bad_record_is_passed_over_and_the_rest_is_read(
    value: bytes | None, key: bytes | None
) -> None:
    """What the worker would set aside is no row, and the good ones around it are."""
    rows, unreadable = read([_record(offset=1), _record(value, key, 2), _record(offset=3)])
    assert rows[3].offsets == [1, 3]
    assert [record.offset for record in unreadable] == [2]
