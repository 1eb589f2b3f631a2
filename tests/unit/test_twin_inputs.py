"""The door of the twin: Kafka records read and checked, each fault with its reason and a sentence."""

import math
from typing import get_type_hints

import orjson
import pytest

from tests.twin_builders import score, status, telemetry
from twin import inputs
from twin.fields import FIELDS
from twin.wire import codec, records, topics
from twin.wire.errors import WireError
from twin.wire.ids import command_id

KEY = b"car-1"
IDENT = command_id("car-1", 1, "x")

GOOD = {
    topics.PRESENCE: status("online", 5, attributes={"fleet": "berlin"}),
    topics.REPORTED: {"event_time": 1, "session": 2, "sequence": 3, "properties": {"a": [1]}},
    topics.OUTCOMES: {"command_id": IDENT, "state": "running", "at": 1, "progress": 0.5},
    topics.DELIVERIES: {
        "id": "d",
        "kind": "command",
        "ref": IDENT,
        "session": 1,
        "state": "sent",
        "at": 1,
    },
    topics.SCORES: score("alarm", 1),
    topics.REQUESTS: {"request_id": "r", "kind": "delete", "at": 1, "by": "ann", "body": {}},
}
TYPES = {
    topics.PRESENCE: records.Presence,
    topics.REPORTED: records.Reported,
    topics.OUTCOMES: records.Outcome,
    topics.DELIVERIES: records.Delivery,
    topics.SCORES: records.Score,
    topics.REQUESTS: records.Request,
}


def read(topic, key=KEY, **changes):
    fields = {"vehicle_id": "car-1", **GOOD[topic], **changes}
    return inputs.read(topic, key, orjson.dumps(fields))


def refused(topic, **changes):
    with pytest.raises(WireError) as error:
        read(topic, **changes)
    assert error.value.detail
    return error.value.reason, error.value.detail


@pytest.mark.parametrize("topic", GOOD)
def test_a_good_record_is_read_as_it_is(topic):
    """Every field of the contract comes through."""
    record = read(topic)
    assert record.vehicle_id == "car-1"
    assert record.record == {"vehicle_id": "car-1", **GOOD[topic]}


@pytest.mark.parametrize("topic", GOOD)
def test_the_table_of_fields_is_that_of_the_contract(topic):
    """Names and requiredness equal those of `wire.records`."""
    hints = get_type_hints(TYPES[topic])
    assert set(FIELDS[topic]) == set(hints)
    required = {name for name, field in FIELDS[topic].items() if field.required}
    assert required == set(TYPES[topic].__required_keys__)


@pytest.mark.parametrize(
    ("topic", "name"),
    [(t, n) for t in GOOD for n in sorted(TYPES[t].__required_keys__ - {"vehicle_id"})],
)
def test_a_missing_field_is_named(topic, name):
    """missing_field, with what is accepted; null is missing."""
    reason, detail = refused(topic, **{name: None})
    assert reason == "missing_field"
    assert name in detail


def test_optional_fields_may_be_null():
    """As if they were not there."""
    assert "reason" not in read(topics.PRESENCE, reason=None).record


def test_unknown_fields_are_not_kept():
    """Nothing that the contract does not name enters a twin."""
    assert "extra" not in read(topics.PRESENCE, extra=1).record


@pytest.mark.parametrize(
    ("topic", "changes", "reason"),
    [
        (topics.PRESENCE, {"session": -1}, "bad_type"),
        (topics.PRESENCE, {"session": "5"}, "bad_type"),
        (topics.PRESENCE, {"session": True}, "bad_type"),
        (topics.PRESENCE, {"session": 2**63}, "bad_type"),
        (topics.PRESENCE, {"session": 1.5}, "bad_type"),
        (topics.PRESENCE, {"state": "stale"}, "bad_type"),
        (topics.PRESENCE, {"attributes": {"fleet": 1}}, "bad_type"),
        (topics.PRESENCE, {"attributes": {"fleet": "x" * 257}}, "bad_type"),
        (topics.PRESENCE, {"attributes": {"": "x"}}, "bad_type"),
        (topics.PRESENCE, {"attributes": {f"a{n}": "" for n in range(33)}}, "bad_type"),
        (topics.PRESENCE, {"reason": 7}, "bad_type"),
        (topics.REPORTED, {"properties": [1]}, "bad_type"),
        (topics.OUTCOMES, {"state": "sent"}, "bad_type"),
        (topics.OUTCOMES, {"progress": 1.5}, "out_of_range"),
        (topics.OUTCOMES, {"command_id": "car-1"}, "bad_vehicle_id"),
        (topics.OUTCOMES, {"command_id": command_id("car-2", 1, "x")}, "identity_mismatch"),
        (topics.DELIVERIES, {"ref": "x" * 257}, "bad_type"),
        (topics.DELIVERIES, {"ref": ""}, "bad_type"),
        (topics.SCORES, {"models": {"m": 1}}, "bad_type"),
        (topics.SCORES, {"models": {"m": {}}}, "missing_field"),
        (topics.SCORES, {"models": {"m": {"version": "v", "score": "high"}}}, "bad_type"),
        (topics.SCORES, {"models": {"m": {"version": "v", "signals": [1]}}}, "bad_type"),
        (topics.SCORES, {"models": {"m": {"version": "v", "signals": [{}]}}}, "missing_field"),
        (topics.SCORES, {"state": "broken"}, "bad_type"),
        (topics.REQUESTS, {"kind": "explode"}, "bad_type"),
        (topics.REQUESTS, {"body": 1}, "bad_type"),
        (topics.REQUESTS, {"if_match": "d1"}, "bad_type"),
        (topics.REQUESTS, {"kind": "deadline"}, "missing_field"),
        (
            topics.REQUESTS,
            {"kind": "deadline", "body": {"of": "tea", "ref": "1", "due": 1}},
            "bad_type",
        ),
        (
            topics.REQUESTS,
            {"kind": "deadline", "body": {"of": "command", "ref": "1", "due": -1}},
            "bad_type",
        ),
    ],
)
def test_a_wrong_field_has_a_reason(topic, changes, reason):
    """Type, range, identity: each with its public code, naming field and value."""
    assert refused(topic, **changes)[0] == reason


def test_whole_floats_are_integers():
    """JSON writers that know no integers are understood."""
    assert read(topics.PRESENCE, session=5.0).record["session"] == 5


def test_a_deadline_is_an_input_of_its_own():
    """Its body is judged here, since nobody gets a reply."""
    body = {"of": "command", "ref": IDENT, "due": 7}
    assert read(topics.REQUESTS, kind="deadline", body=body) == inputs.DeadlineInput(
        "car-1", "command", IDENT, 7
    )


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (None, "bad_vehicle_id"),
        (b"", "bad_vehicle_id"),
        (b"\xff", "bad_vehicle_id"),
        (b"sensor", "bad_vehicle_id"),
        (b"car-2", "identity_mismatch"),
    ],
)
def test_the_key_must_be_the_records_vehicle(key, reason):
    """Another vehicle's record, or one without a key, is not applied."""
    assert refused(topics.PRESENCE, key=key)[0] == reason
    with pytest.raises(WireError) as error:
        inputs.read(topics.TELEMETRY, key, codec.encode_telemetry(telemetry(1)))
    assert error.value.reason == reason


@pytest.mark.parametrize(
    ("topic", "value", "reason"),
    [
        (topics.PRESENCE, None, "empty"),
        (topics.TELEMETRY, None, "empty"),
        (topics.PRESENCE, b"", "malformed_json"),
        (topics.PRESENCE, b"[]", "malformed_json"),
        (topics.PRESENCE, b'{"vehicle_id":"car-1","session":NaN}', "malformed_json"),
        (topics.PRESENCE, b"{" + b" " * 140_000 + b"}", "too_large"),
        (topics.TELEMETRY, b"{}", "malformed_avro"),
        (topics.TELEMETRY, b"\0\0\0\0\x63", "unknown_schema"),
        (topics.CHANGES, b"{}", "unknown_topic"),
    ],
)
def test_bytes_that_are_no_record_have_a_reason(topic, value, reason):
    """Tombstones, wrong JSON, wrong Avro, wrong topic."""
    with pytest.raises(WireError) as error:
        inputs.read(topic, KEY, value)
    assert error.value.reason == reason


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_telemetry_that_json_could_not_show_is_refused(value):
    """An infinite value from a foreign producer would be null in the document."""
    record = codec.encode_telemetry(telemetry(1, speed=value, coolant_temp=1.0))
    with pytest.raises(WireError) as error:
        inputs.read(topics.TELEMETRY, KEY, record)
    assert error.value.reason == "bad_type"


def test_telemetry_before_the_epoch_is_refused():
    """Times and numbers begin at 0."""
    record = codec.encode_telemetry(telemetry(-1))
    with pytest.raises(WireError) as error:
        inputs.read(topics.TELEMETRY, KEY, record)
    assert error.value.reason == "out_of_range"
