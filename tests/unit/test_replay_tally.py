"""Rows found again in Kafka, and twins compared with what the recording ends with."""

import orjson
import pytest

from twin.client.replay_plan import Plan, Vehicle
from twin.client.replay_tally import Tally, compare, has_applied
from twin.wire.codec import encode_telemetry
from twin.wire.telemetry import Telemetry


def tally(**rows: int) -> Tally:
    plan = Plan((), 0, "warn", rows=sum(rows.values()), first=1000)
    plan.vehicles = {name: Vehicle(rows=count) for name, count in rows.items()}
    return Tally(plan)


def record(
    vehicle_id: str, sequence: int, session: int = 1000, suspect: tuple[str, ...] = ()
) -> bytes:
    return encode_telemetry(
        Telemetry(vehicle_id, 1, session, sequence, {"speed": 1.0}, suspect=suspect)
    )


def payload(sequence: object, session: object = 1000) -> bytes:
    return orjson.dumps({"session": session, "sequence": sequence, "speed": -1})


def test_each_row_counts_once():
    """A repeated record is a duplicate, not a row; every row up to the last has its own bit."""
    counted = tally(car1=17)
    for sequence in [*range(1, 18), 9]:
        counted.telemetry(b"car1", record("car1", sequence), 3, 100 + sequence)
    assert (counted.accepted, counted.duplicates, counted.seen) == (17, 1, 17)


def test_one_missing_row_is_one_less():
    """A dropped record shows as exactly one."""
    counted = tally(car1=10)
    for sequence in range(1, 11):
        if sequence != 4:
            counted.telemetry(b"car1", record("car1", sequence), 0, sequence)
    assert counted.seen == 9


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"car2", record("car2", 1)),
        (b"car1", record("car1", 1, session=999)),
        (b"car1", record("car1", 0)),
        (b"car1", record("car1", 4)),
        (b"car1", b"junk"),
        (b"car1", None),
        (None, record("car1", 1)),
    ],
    ids=["vehicle", "session", "before", "behind", "junk", "empty", "no key"],
)
def test_other_traffic_is_not_counted(key, value):
    """Only vehicle, session and sequence of this replay make a record ours."""
    counted = tally(car1=3)
    counted.telemetry(key, value, 0, 0)
    assert (counted.seen, counted.duplicates, counted.ends) == (0, 0, {})


def test_rejected_rows_are_counted_by_reason():
    """A rejected record is recognised by the bytes that were sent."""
    counted = tally(car1=5)
    counted.rejected_record(b"car1", payload(1), "out_of_range")
    counted.rejected_record(b"car1", payload(2), "out_of_range")
    counted.rejected_record(b"car1", payload(3), "empty")
    counted.rejected_record(b"car1", payload(3), "empty")
    assert counted.by_reason == {"out_of_range": 2, "empty": 1}
    assert (counted.rejected, counted.seen, counted.duplicates) == (3, 3, 1)


@pytest.mark.parametrize(
    "value",
    [payload(1, session=7), payload("1"), payload(None), payload(9), b"{", b"[1]", None],
)
def test_other_rejected_records_are_not_counted(value):
    """What other cars sent, readable or not, is not ours."""
    counted = tally(car1=5)
    counted.rejected_record(b"car1", value, "malformed_json")
    assert counted.seen == 0


def test_marked_records_are_counted():
    """How many records the uplink marked suspect shows which mode it runs in."""
    counted = tally(car1=2)
    counted.telemetry(b"car1", record("car1", 1, suspect=("speed",)), 0, 1)
    counted.telemetry(b"car1", record("car1", 2), 0, 2)
    assert counted.suspect == 1


def test_the_last_place_of_each_car_is_kept():
    """The worker is waited for until it has applied this offset."""
    counted = tally(car1=2, car2=1)
    counted.telemetry(b"car1", record("car1", 1), 5, 10)
    counted.telemetry(b"car2", record("car2", 1), 6, 3)
    counted.telemetry(b"car1", record("car1", 2), 5, 12)
    assert counted.ends == {"car1": (5, 12), "car2": (6, 3)}


@pytest.mark.parametrize(
    ("applied", "expected"),
    [
        ({"telemetry": [5, 12]}, True),
        ({"telemetry": [5, 13]}, True),
        ({"telemetry": [5, 11]}, False),
        ({"telemetry": [4, 12]}, False),
        ({"presence": [5, 12]}, False),
        ({}, False),
    ],
)
def test_a_twin_has_applied_a_record_at_or_before_its_offset(applied, expected):
    """Partition and offset of `applied.telemetry` decide."""
    assert has_applied({"applied": applied}, 5, 12) is expected


def test_equal_twins_have_no_mismatch():
    """Values compare as numbers: 32 and 32.0 are the same."""
    twin = {"reported": {"speed": {"v": 1.5, "t": 1}, "tire_pressure_1_1": {"v": 32.0, "t": 1}}}
    assert compare("car1", {"speed": 1.5, "tire_pressure_1_1": 32}, twin) == []


def test_wrong_missing_and_invented_values_are_named():
    """Car, signal, expected and found; a signal that nobody sent must be absent, not 0."""
    twin = {"reported": {"speed": {"v": 1.5, "t": 7}, "fuel_level": {"v": 0.0, "t": 8}}}
    found = compare("car1", {"speed": 1.25, "coolant_temp": 90.0}, twin)
    assert [str(one) for one in found] == [
        "car1 speed: expected 1.25, found 1.5 of event time 7",
        "car1 coolant_temp: expected 90.0, found nothing",
        "car1 fuel_level: expected nothing, found 0.0 of event time 8",
    ]


def test_a_car_without_twin_lacks_every_value():
    """An empty document is no equal twin."""
    assert len(compare("car1", {"speed": 1.0, "coolant_temp": 2.0}, {})) == 2
