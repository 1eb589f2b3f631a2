"""The benches' load: the same for everybody, as disorderly as real cars, and its reference is right."""

import struct

import numpy as np
import pytest

from bench_records import NAMES, Expected, Plan, records, rounds, vehicle_id
from twin.wire.catalogue import INDEXED
from twin.wire.codec import decode_telemetry

PLAN = Plan(vehicles=200, messages=1500, start_ms=1_790_000_000_000)


def everything(plan=PLAN):
    return [record for one in rounds(plan) for record in records(plan, one)]


def folded(sent):
    """The pure fold, record by record: signal -> [value, event time, session, sequence]."""
    state = {}
    for _, value, _ in sent:
        telemetry = decode_telemetry(value)
        twin = state.setdefault(telemetry.vehicle_id, {})
        for name, number in telemetry.signals.items():
            head = (telemetry.event_time, telemetry.session, telemetry.sequence)
            entry = (*head, struct.pack(">d", number), number)
            twin[name] = max(twin.get(name, entry), entry)
    return {
        vehicle: {name: (e[4], *e[:3]) for name, e in twin.items()}
        for vehicle, twin in state.items()
    }


def expected_of(plan):
    expected = Expected(plan)
    for one in rounds(plan):
        expected.add(one)
    return expected


def test_it_is_as_many_records_as_were_asked_for():
    """Round 0 tells each vehicle once; behind it come exactly `messages` records."""
    sent = everything()
    assert len(sent) == PLAN.total == 1700
    assert {key for key, _, _ in sent[:200]} == {vehicle_id(n).encode() for n in range(200)}


def test_the_same_plan_is_the_same_records():
    """Every peer and every run is fed the same bytes."""
    assert everything() == everything()


def test_records_come_late_twice_and_partial():
    """There is something that a fold of arrival order, or of whole records, would get wrong."""
    seen, late, twice, partial = {}, 0, 0, 0
    for key, value, _ in everything():
        telemetry = decode_telemetry(value)
        before = seen.setdefault(key, [])
        late += any(telemetry.event_time < t for t, _ in before)
        twice += (telemetry.event_time, value) in before
        partial += len(telemetry.signals) < len(NAMES)
        before.append((telemetry.event_time, value))
    assert late > 10
    assert twice > 2
    assert partial > 20


def test_the_reference_is_the_fold_of_all_records():
    """No vehicle differs from a fold made record by record."""
    expected, fold = expected_of(PLAN), folded(everything())
    assert [d for n in range(200) for d in expected.differences(n, fold[vehicle_id(n)])] == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda twin: twin.pop("speed"),
        lambda twin: twin.update(speed=(twin["speed"][0] + 1, *twin["speed"][1:])),
        lambda twin: twin.update(
            speed=(twin["speed"][0], twin["speed"][1] - 1, *twin["speed"][2:])
        ),
        lambda twin: twin.update(altitude=(1.0, 1, 1, 1)),
    ],
)
def test_a_state_that_is_not_the_fold_is_told(damage):
    """A missing signal, another value, another time and a signal too many are differences."""
    expected, fold = expected_of(PLAN), folded(everything())
    twin = dict(fold[vehicle_id(7)])
    damage(twin)
    assert expected.differences(7, twin)


def test_the_shortest_decimal_of_a_float_is_the_same_value():
    """A peer that writes 91.2 for the float 91.19999694824219 is right."""
    expected, fold = expected_of(PLAN), folded(everything())
    short = {
        name: (float(str(np.float32(value))), *rest)
        for name, (value, *rest) in fold[vehicle_id(3)].items()
    }
    assert expected.differences(3, short) == []


def test_a_plan_of_few_signals_has_those_of_the_index_and_its_own_reference():
    """Fewer signals, shorter documents; the index of lists is as large as ever."""
    plan = Plan(vehicles=50, messages=400, start_ms=1_790_000_000_000, signals=5)
    expected, fold = expected_of(plan), folded(everything(plan))
    assert [d for n in range(50) for d in expected.differences(n, fold[vehicle_id(n)])] == []
    assert all(len(twin) == 5 and set(INDEXED) < set(twin) for twin in fold.values())
