"""The ids of Avro telemetry: the package's, a registry's, and how each is read under the other."""

import json

import orjson
import pytest

from twin.wire import avro_writer, codec, schema
from twin.wire.errors import UnknownSchema
from twin.wire.telemetry import Telemetry

NOW = 1_790_000_000_500
SAID = Telemetry("car-1", NOW, 1, 2, {"coolant_temp": 91.5})
OURS = codec.encode_telemetry(SAID)
CURRENT = schema.texts()[schema.CURRENT_ID]


@pytest.fixture(autouse=True)
def _the_package_s_ids_afterwards():
    yield
    codec.use_ids({})


def under(number, record=OURS):
    """The same record with another id."""
    return b"\0" + number.to_bytes(4, "big") + record[5:]


def from_a_car(payload):
    return codec.read_payload(payload, vehicle_id="car-1", ingested_at=NOW, counter=7)


def test_with_a_registry_its_id_is_written_by_both_writers():
    """By the general one and by the fast one for ordinary cars."""
    fast = orjson.dumps({"event_time": NOW, "session": 1, "sequence": 2, "coolant_temp": 91.5})
    assert codec.intake("enforce").take(fast, b"car-1", NOW, 7) == OURS
    codec.use_ids({100_017: 1}, 100_017)
    assert codec.encode_telemetry(SAID) == under(100_017)
    assert codec.intake("enforce").take(fast, b"car-1", NOW, 7) == under(100_017)


@pytest.mark.parametrize("written", [None, 100_017])
def test_records_of_both_ids_are_read_with_and_without_a_registry(written):
    """On Kafka and from cars, whichever of the two is written; unasked."""
    codec.use_ids({100_017: 1}, written, find=lambda number: pytest.fail(f"asked for {number}"))
    for record in (OURS, under(100_017)):
        assert codec.decode_telemetry(record) == SAID
        assert codec.decode_sample(record, "car-1").sequence == 2
        assert from_a_car(record) == SAID


def test_an_id_that_was_not_told_is_unknown():
    """As it is again when others are told later."""
    with pytest.raises(UnknownSchema, match=r"100017 is not known \(known: \[1\]\)"):
        codec.decode_telemetry(under(100_017))
    codec.use_ids({100_017: 1}, 100_017)
    codec.use_ids({5: 1})
    assert codec.encode_telemetry(SAID) == OURS
    for read in (codec.decode_telemetry, from_a_car):
        with pytest.raises(UnknownSchema, match=r"known: \[1, 5\]"):
            read(under(100_017))


def test_only_records_of_kafka_make_anybody_look_for_an_id():
    """A car could send every id there is."""
    asked = []

    def find(number):
        asked.append(number)
        return codec.reader_of(CURRENT)

    codec.use_ids({17: 1}, 17, find)
    with pytest.raises(UnknownSchema):
        from_a_car(under(18))
    assert asked == []
    assert codec.decode_telemetry(under(19)) == SAID
    assert codec.decode_sample(under(20), "car-1").vehicle_id == "car-1"
    assert asked == [19, 20]


@pytest.mark.parametrize(
    ("ids", "current"), [({17: 2}, 17), ({17: 1}, 18), ({1: 2}, None), ({17: 1, 2: 1}, 17)]
)
def test_ids_that_contradict_the_package_are_refused_and_nothing_changes(monkeypatch, ids, current):
    """One id of two schemas would be read wrongly for ever."""
    if 2 in ids:  # as if there were a second schema with this id
        monkeypatch.setattr(codec, "_PACKAGE", frozenset({1, 2}))
    with pytest.raises(ValueError, match="schema id"):
        codec.use_ids(ids, current)
    assert codec.encode_telemetry(SAID) == OURS
    with pytest.raises(UnknownSchema):
        codec.decode_telemetry(under(17))


def changed(change):
    made = json.loads(CURRENT)
    change(made["fields"])
    return json.dumps(made)


def test_a_schema_with_fewer_signals_is_read():
    """An older version, or that of a fleet with fewer sensors."""
    short = changed(lambda fields: fields.__delitem__(slice(7, None)))
    codec.use_ids({}, find=lambda _: codec.reader_of(short))
    record = under(17)[:5] + avro_writer.writer(schema.parse(short))(SAID)
    assert len(record) < len(OURS)
    assert codec.decode_telemetry(record) == SAID


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no json", "none of telemetry"),
        ('{"type": "string"}', "none of telemetry"),
        ('{"type": "record", "name": "Order", "fields": []}', "none of telemetry"),
        (changed(lambda f: f.append({"name": "mood", "type": ["null", "int"]})), "mood"),
        (changed(lambda f: f[-1].update(type=["null", "int"])), "another type"),
        (changed(lambda f: f.extend([f[-1]] * 300)), "twice|none of telemetry"),
    ],
)
def test_a_schema_that_is_not_understood_is_unknown(text, said):
    """Signals that this version does not know would get into twins unjudged."""
    with pytest.raises(UnknownSchema, match=said):
        codec.reader_of(text)
