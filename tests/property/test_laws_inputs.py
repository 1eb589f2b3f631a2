"""Bad input is data: whatever bytes come, the door answers, and what passes it can be applied."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from tests.twin_builders import CAR, T0, World
from twin import inputs
from twin.apply import apply
from twin.document import dump, load
from twin.fields import FIELDS
from twin.wire import topics
from twin.wire.errors import WireError
from twin.wire.ids import command_id
from twin.wire.records import Position

TOPICS = st.sampled_from([topics.TELEMETRY, *FIELDS])
KEYS = st.sampled_from([CAR.encode(), None, b"", b"\xff\x00", b"other"])
IDENT = command_id(CAR, T0, "a command that exists")
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.sampled_from([CAR, IDENT, "patch", "put", "online", "alarm", "sent", "command", "running"]),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)
GOOD = {
    "vehicle_id": st.just(CAR),
    "session": st.integers(0, 3),
    "at": st.just(T0),
    "shard": st.integers(0, 1),
    "event_time": st.just(T0),
    "sequence": st.integers(0, 3),
    "properties": st.dictionaries(st.text(max_size=2), JSON, max_size=2),
    "command_id": st.just(IDENT),
    "ref": st.sampled_from([IDENT, "1"]),
    "id": st.text("ab", min_size=1, max_size=2),
    "partition": st.just(0),
    "offset": st.just(0),
    "scored_at": st.just(T0),
    "request_id": st.text("ab", min_size=1, max_size=2),
    "by": st.just("ann"),
    "why": st.just("state"),
    "models": st.just({"m": {"version": "v", "score": 2, "threshold": 1}}),
    "body": st.dictionaries(
        st.sampled_from(["op", "value", "id", "name", "args", "ttl_s", "lane", "command_id", "of"]),
        st.one_of(JSON, st.dictionaries(st.text(max_size=2), JSON, max_size=2)),
        max_size=5,
    ),
    "state": st.sampled_from(
        ["online", "offline", "running", "succeeded", "sent", "refused", "alarm", "normal"]
    ),
    "kind": st.sampled_from(["command", "cancel", "desired", "attributes", "delete", "deadline"]),
}


@st.composite
def records(draw):
    """A record whose fields are right or nearly so."""
    topic = draw(st.sampled_from(list(FIELDS)))
    fields = {
        name: draw(st.one_of(GOOD[name], GOOD[name], GOOD[name], JSON) if name in GOOD else JSON)
        for name in FIELDS[topic]
    }
    return topic, orjson.dumps(fields)


def read(topic, key, value):
    """The input, or None for what is refused: only by a `WireError`, with a sentence."""
    try:
        return inputs.read(topic, key, value)
    except WireError as error:
        if not error.detail or not error.reason:
            raise
        return None


@given(TOPICS, KEYS, st.one_of(st.none(), st.binary(max_size=60)))
def test_any_bytes_are_read_or_refused(topic, key, value):
    """No other error, whatever the bytes are; what is read belongs to the key."""
    record = read(topic, key, value)
    assert record is None or record.vehicle_id.encode() == key


@given(TOPICS, JSON)
def test_any_json_is_read_or_refused(topic, value):
    """Likewise for well-formed JSON of any shape."""
    record = read(topic, CAR.encode(), orjson.dumps(value))
    assert record is None or record.vehicle_id == CAR


@given(st.lists(records(), max_size=8), st.booleans())
def test_what_is_read_can_be_applied_and_stored(log, known):
    """Whatever passes the door is decided without an error, and twin and outputs are JSON."""
    world = World()
    if known:
        world.online(1)
        world.request("command", {"id": IDENT, "name": "ping"})
    for offset, (topic, value) in enumerate(log, 10):
        record = read(topic, CAR.encode(), value)
        if record is None:
            continue
        position = Position(topic=topic, partition=0, offset=offset)
        world.state, effects = apply(
            world.state, world.ledger, record, position, T0 + offset, world.context
        )
        world.ledger.take(effects)
        if world.state is not None:
            assert world.state == load(dump(world.state))
        orjson.dumps([effects.ledger, effects.changes, effects.downlinks, effects.replies])
