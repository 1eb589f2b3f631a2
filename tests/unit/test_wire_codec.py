"""Telemetry in and out of bytes: golden files, every reason code, both validation modes."""

import json
import struct
from pathlib import Path

import orjson
import pytest

from twin.wire import avro_writer, codec, schema
from twin.wire.catalogue import SIGNALS
from twin.wire.errors import WireError
from twin.wire.telemetry import CLOCK_AHEAD_MS, Telemetry

FIXTURES = Path(__file__).parents[1] / "fixtures" / "telemetry"
NOW = 1_790_000_000_500


def read(payload, **overrides):
    arguments = {"vehicle_id": "car-1", "ingested_at": NOW, "counter": 7, **overrides}
    return codec.read_payload(payload, **arguments)


def message(**fields):
    return orjson.dumps({"event_time": NOW, "session": 1, "sequence": 2, **fields})


def reason(payload, **overrides):
    with pytest.raises(WireError) as caught:
        read(payload, **overrides)
    assert caught.value.detail
    return caught.value.reason


def test_the_golden_message_of_v1_reads_as_it_always_did():
    """The first version's JSON payload is read for ever."""
    payload = (FIXTURES / "v1.json").read_bytes()
    telemetry = read(payload)
    fields = json.loads(payload)
    assert (telemetry.event_time, telemetry.session, telemetry.sequence) == (
        fields.pop("event_time"),
        fields.pop("session"),
        fields.pop("sequence"),
    )
    assert telemetry.signals == fields
    assert not telemetry.assigned
    assert telemetry.suspect == ()


def test_the_golden_record_of_v1_is_written_and_read_byte_for_byte():
    """The first version's Avro bytes on Kafka never change."""
    golden = bytes.fromhex((FIXTURES / "v1.avro.hex").read_text())
    telemetry = read((FIXTURES / "v1.json").read_bytes())
    assert codec.encode_telemetry(telemetry) == golden
    assert codec.decode_telemetry(golden) == telemetry


def test_the_schema_file_is_what_the_catalogue_asks_for():
    """Catalogue and the current Avro schema file cannot part ways unnoticed."""
    file = Path(schema.__file__).parent / "schemas" / "telemetry-v1.avsc"
    assert json.loads(file.read_text()) == schema.build()


@pytest.mark.parametrize(
    "fields",
    [
        [*reversed(schema.build()["fields"])],
        schema.build()["fields"][1:],
        schema.build()["fields"][:3],
        [*schema.build()["fields"], {"name": "gear", "type": ["null", "string"]}],
        [*schema.build()["fields"], {"name": "gear", "type": "int"}],
    ],
)
def test_a_schema_of_another_shape_is_refused_at_once(fields):
    """A new version of another shape fails at the import, not with wrong bytes on Kafka."""
    with pytest.raises(ValueError, match="shape"):
        avro_writer.writer({"fields": fields})


BODY = codec.encode_telemetry(Telemetry("x", NOW, 1, 2, {"tire_pressure_1_1": 32}))[7:]
HEAD, TAIL = BODY[:8], BODY[9:]  # three numbers, then `assigned`, then the rest
assert TAIL.count(b"\2\x40") == 1


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(HEAD + b"\2" + TAIL, id="a boolean is 0 or 1"),
        pytest.param(HEAD + b"\0\2\1" + TAIL[1:], id="a string's length is negative"),
        pytest.param(HEAD + b"\0\2\2\xff" + TAIL, id="a string is not UTF-8"),
        pytest.param(HEAD + b"\0" + b"\xfe" * 9 + b"\1", id="2^63 strings"),
        pytest.param(b"\xff" * 10 + b"\1" + BODY[6:], id="11 bytes of a long"),
        pytest.param(b"\xff" * 9 + b"\2" + BODY[6:], id="65 bits of a long"),
        pytest.param(BODY.replace(b"\2\x40", b"\2" + b"\xff" * 5 + b"\1"), id="6 bytes of an int"),
        pytest.param(
            BODY.replace(b"\2\x40", b"\2" + b"\xff" * 4 + b"\x10"), id="33 bits of an int"
        ),
        pytest.param(BODY.replace(b"\2\x40", b"\4\x40"), id="a third branch"),
        pytest.param(BODY.replace(b"\2\x40", b"\1\x40"), id="a negative branch"),
        pytest.param(BODY + b"\0", id="bytes are left"),
        pytest.param(BODY[:-1], id="bytes are missing"),
    ],
)
def test_wrong_avro_is_malformed(body):
    """Named as such."""
    with pytest.raises(WireError) as caught:
        codec.decode_telemetry(b"\0\0\0\0\1\2x" + body)
    assert caught.value.reason == "malformed_avro"


def test_the_longest_numbers_are_read_and_no_longer_ones():
    """The last byte of a long and of an int: what fits is read, what does not is refused."""
    telemetry = Telemetry("x", 2**63 - 1, 1, 2, {"tire_pressure_1_1": 2**31 - 1})
    data = codec.encode_telemetry(telemetry)
    assert codec.decode_telemetry(data) == telemetry
    for end, more in ((b"\xfe" + b"\xff" * 8 + b"\1", b"\3"), (b"\xfe\xff\xff\xff\x0f", b"\x1f")):
        assert data.count(end) == 1
        with pytest.raises(WireError, match="more bits"):
            codec.decode_telemetry(data.replace(end, end[:-1] + more))


def test_an_array_in_counted_blocks_is_read():
    """Other encoders write a negative count and the length of the block."""
    one_block = codec.decode_telemetry(b"\0\0\0\0\1\2x" + HEAD + b"\0\2\2a" + TAIL)
    counted = codec.decode_telemetry(b"\0\0\0\0\1\2x" + HEAD + b"\0\1\4\2a" + TAIL)
    assert counted == one_block
    assert counted.suspect == ("a",)


def test_names_are_one_object_for_all_cars_that_say_the_same():
    """The memory of a twin is mostly names else; cars that invent new sets fill no memory for ever."""
    names = [s.name for s in SIGNALS if s.type == "float"]

    def read_of(*chosen):
        telemetry = Telemetry("x", NOW, 1, 2, dict.fromkeys(chosen, 1.0))
        return codec.decode_sample(codec.encode_telemetry(telemetry), "x").names

    usual = read_of(*names)
    assert read_of("speed") is read_of("speed")
    assert read_of(*names) is usual
    for n in range(1, 2**13):
        read_of(*(name for at, name in enumerate(names) if n >> at & 1))
    assert read_of(*names) == usual
    assert read_of(*names) is not usual


def test_framed_avro_of_a_car_is_accepted_and_what_only_the_bridge_says_is_not():
    """A car cannot mark its own record assigned or suspect."""
    telemetry = Telemetry("car-1", NOW, 1, 2, {"speed": 3.5}, True, ("speed",))
    again = read(codec.encode_telemetry(telemetry))
    assert again.signals == {"speed": 3.5}
    assert not again.assigned
    assert again.suspect == ()


def test_plain_avro_needs_its_content_type():
    """Without a frame, only the MQTT 5 content type tells Avro from anything else."""
    framed = codec.encode_telemetry(Telemetry("car-1", NOW, 1, 2, {"speed": 3.5}))
    assert read(framed[5:], content_type="avro/binary").signals == {"speed": 3.5}
    assert reason(framed[5:]) == "malformed_json"


def test_a_message_without_time_gets_the_bridges_time_and_counter_and_is_marked():
    """The demo's payload has neither time nor number."""
    telemetry = read(b'{"speed":3.5}')
    assert (telemetry.event_time, telemetry.sequence, telemetry.session) == (NOW, 7, 0)
    assert telemetry.assigned


def test_a_null_signal_is_absent():
    """A signal that a car does not have is absent, never 0."""
    assert read(message(speed=3.5, coolant_temp=None)).signals == {"speed": 3.5}


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", "malformed_json"),
        (b"speed=3", "malformed_json"),
        (b"[1]", "malformed_json"),
        (b"\0\0\0", "malformed_avro"),
        (b"\0\0\0\0\1\xff", "malformed_avro"),
        (struct.pack(">bI", 0, 99) + b"x", "unknown_schema"),
        (b"{" + b" " * codec.MAX_MESSAGE_BYTES, "too_large"),
        (message(), "empty"),
        (message(speed="fast"), "bad_type"),
        (message(speed=True), "bad_type"),
        (message(speed=1e39), "bad_type"),
        (message(tire_pressure_1_1=31.5), "bad_type"),
        (message(speed=-1), "out_of_range"),
        (message(speed=1, warp=9), "unknown_signal"),
        (message(speed=1, vehicle_id="car-2"), "identity_mismatch"),
        (message(speed=1, event_time=NOW + CLOCK_AHEAD_MS + 1), "clock_ahead"),
        (message(speed=1, event_time=-1), "bad_type"),
        (message(speed=1, sequence="x"), "bad_type"),
        (message(speed=1, session=2**63), "bad_type"),
    ],
)
def test_what_cannot_be_accepted_is_refused_with_its_reason(payload, code):
    """Every refusal has one public reason code."""
    assert reason(payload) == code


def test_an_unknown_content_type_is_refused():
    """A content type that is announced must be one of ours."""
    assert reason(message(speed=1), content_type="text/csv") == "unknown_content_type"


def test_mode_warn_keeps_the_message_and_marks_what_is_impossible():
    """In warn mode the value is kept and named; what Avro cannot hold is only named."""
    telemetry = read(message(speed=500, coolant_temp="hot", warp=9, throttle_pos=0.5), mode="warn")
    assert telemetry.signals == {"speed": 500, "throttle_pos": 0.5}
    assert set(telemetry.suspect) == {"speed", "coolant_temp", "warp"}


def test_mode_off_judges_types_only():
    """In off mode an impossible value passes unmarked."""
    telemetry = read(message(speed=500), mode="off")
    assert telemetry.signals == {"speed": 500}
    assert telemetry.suspect == ()


def test_the_catalogue_has_the_demos_18_signals_first(shared_folder):
    """The replaced demo's schema is kept, name by name; its own file is asked where it is."""
    names = (FIXTURES / "demo_signals.txt").read_text().split()
    assert len(names) == 18
    assert names == [s.name for s in SIGNALS[:18]]
    schema = shared_folder / "data" / "seed-cars" / "cardata-v1.avsc"
    if schema.exists():
        assert [field["name"] for field in json.loads(schema.read_text())["fields"]] == names
