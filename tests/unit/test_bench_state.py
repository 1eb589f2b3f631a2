"""What the peers compute, and how their changelogs are read."""

import random

import orjson
import pytest

from bench_state import cartwin, peer, vehicle_of
from peer_fold import decode, fold
from twin.wire.codec import encode_telemetry
from twin.wire.telemetry import Telemetry


def record(time, sequence, session=1, **signals):
    return encode_telemetry(Telemetry("car-1", time, session, sequence, signals))


def test_the_python_peers_fold_does_not_depend_on_order():
    """Any order and any repetition of the same records ends in the same values."""
    log = [record(t, s, speed=t + s, coolant_temp=90.0) for t in (10, 20, 30) for s in (1, 2)]
    log += [record(25, 9, speed=4.0), record(30, 2, speed=99.0), record(30, 2, 2, speed=1.0)]
    ends = set()
    for seed in range(20):
        state = None
        order = log + log[:3]
        random.Random(seed).shuffle(order)
        for value in order:
            state = fold(state, decode(value)) or state
        ends.add(orjson.dumps(state["reported"], option=orjson.OPT_SORT_KEYS))
    assert len(ends) == 1


def test_a_record_without_news_changes_nothing():
    """The fold says so, and the peer writes no changelog record."""
    state = fold(None, decode(record(10, 1, speed=1.0)))
    assert state["revision"] == 1
    assert fold(state, decode(record(10, 1, speed=1.0))) is None
    assert fold(state, decode(record(9, 1, speed=5.0))) is None
    assert state["reported"] == {"speed": [1.0, 10, 1, 1]}


def test_states_of_peers_and_of_cartwin_say_the_same():
    """Both documents give value, event time, session and sequence of each signal."""
    theirs = orjson.dumps({"reported": {"speed": [1.5, 10, 2, 3]}})
    ours = orjson.dumps({"reported": {"speed": {"v": 1.5, "t": 10, "n": 2, "s": 3, "o": 77}}})
    assert peer(theirs) == cartwin(ours) == {"speed": (1.5, 10, 2, 3)}


@pytest.mark.parametrize("key", [b"car-1", b'"car-1"', b'car-1|"twin"'])
def test_keys_of_every_framework_name_the_vehicle(key):
    """Kafka Streams and cartwin, Faust, Quix."""
    assert vehicle_of(key) == "car-1"
