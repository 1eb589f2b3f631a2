"""The short way of telemetry says what the long way says, or leaves it to the long way."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin.wire import codec
from twin.wire.catalogue import SIGNALS
from twin.wire.errors import WireError
from twin.wire.telemetry import CLOCK_AHEAD_MS

NOW = 1_790_000_000_000
CAR = "car-000042"
COUNTER = 77
MODES = ("off", "warn", "enforce")


def long_way(payload, mode):
    """The bytes that `read_payload` and the writer make, None when the message is refused."""
    try:
        telemetry = codec.read_payload(
            payload, vehicle_id=CAR, ingested_at=NOW, counter=COUNTER, mode=mode
        )
    except WireError:
        return None
    return codec.encode_telemetry(telemetry)


def short_way(payload, mode):
    return codec.intake(mode).take(payload, CAR.encode(), NOW, COUNTER)


ORDINARY = st.fixed_dictionaries(
    {},
    optional={
        "vehicle_id": st.just(CAR),
        "event_time": st.integers(0, NOW + CLOCK_AHEAD_MS),
        "session": st.integers(0, 10**18 - 1),
        "sequence": st.integers(0, 10**18 - 1),
        "held_from": st.integers(0, 10**18 - 1),
    }
    | {
        s.name: st.integers(max(int(s.low), -(2**31)), int(s.high))
        if s.type == "int"
        else st.floats(s.low, s.high)
        for s in SIGNALS
    },
).filter(lambda fields: any(s.name in fields for s in SIGNALS))


@given(ORDINARY, st.sampled_from(MODES), st.sampled_from([None, 1]), st.randoms())
def test_an_ordinary_message_goes_the_short_way(fields, mode, indent, random):
    """Known names in any order with possible numbers are taken, however many digits they have."""
    order = list(fields)
    random.shuffle(order)
    payload = json.dumps({name: fields[name] for name in order}, indent=indent).encode()
    expected = long_way(payload, mode)
    assert expected is not None
    assert short_way(payload, mode) == expected


SAID = """
0 -0 -0.0 1 -1 1.5 1e2 1E+1 1e-2 01 1. .5 +1 - 1e 1e+ null true false NaN Infinity [] {} [1]
"" "x" "car-000042" "car-00004" 1e999 -1e999 1e-400 123456789012345678 1234567890123456789
9007199254740993 9007199254740993.0 0.1234567890123456789 2147483647 2147483648 2147483647.5
3.4028234663852886e38 3.4028234663852887e38 3.5e38 1790000300000 1790000300001
"""
NAMED = """
vehicle_id event_time session sequence held_from traceparent unknown coolant_tem coolant_temp
coolant_temps speed tire_pressure_1_1 control_unit_firmware latitude sp\\u0065ed
"""
TOKENS = st.sampled_from(SAID.split()) | st.floats(allow_nan=False, allow_infinity=False).map(repr)
NAMES = st.sampled_from(NAMED.split())
SPACE = st.sampled_from(["", "", " ", "\n\t\r ", "\x0b"])


@st.composite
def strange(draw):
    """Objects and what looks like some."""
    members = draw(st.lists(st.tuples(NAMES, TOKENS), max_size=6))
    text = ",".join(
        f'{draw(SPACE)}"{name}"{draw(SPACE)}:{draw(SPACE)}{token}{draw(SPACE)}'
        for name, token in members
    )
    data = bytearray(
        f"{draw(SPACE)}{{{text}}}{draw(SPACE)}{draw(st.sampled_from(['', '', 'x']))}".encode()
    )
    for _ in range(draw(st.integers(0, 2))):
        where = draw(st.integers(0, len(data) - 1))
        data[where : where + draw(st.integers(0, 1))] = draw(st.binary(max_size=1))
    return bytes(data)


@given(strange() | st.binary(max_size=60), st.sampled_from(MODES))
def test_whatever_is_taken_the_short_way_is_what_the_long_way_says(payload, mode):
    """Not one byte differs, and nothing is taken that the long way refuses."""
    taken = short_way(payload, mode)
    assert taken is None or taken == long_way(payload, mode)


@given(ORDINARY, st.data())
def test_a_message_that_is_cut_anywhere_is_not_taken(fields, data):
    """Reading ends within the bytes that are there."""
    payload = json.dumps(fields).encode()
    cut = payload[: data.draw(st.integers(0, len(payload) - 1))]
    assert short_way(cut, "enforce") is None


@pytest.mark.parametrize(
    "payload",
    [
        {"coolant_temp": 91, "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"},
        {"coolant_temp": 91, "event_time": NOW + CLOCK_AHEAD_MS + 1},
        {"coolant_temp": 999},
        {"coolant_temp": None, "speed": 1},
        {"vehicle_id": "car-000043", "coolant_temp": 91},
        {"session": 1},
        {},
    ],
)
def test_what_needs_a_look_or_a_header_is_left_to_the_long_way(payload):
    """A trace, a wrong clock, an impossible value, another car, nothing at all."""
    assert short_way(json.dumps(payload).encode(), "enforce") is None


def test_a_head_or_catalogue_beyond_the_bounds_is_refused():
    """Its buffers have fixed sizes."""
    with pytest.raises(ValueError, match="too many"):
        codec.Intake(b"0" * 17, [], 0)
    with pytest.raises(ValueError, match="too many"):
        codec.Intake(b"", [("a", True, 0.0, 1.0)] * 300, 0)
