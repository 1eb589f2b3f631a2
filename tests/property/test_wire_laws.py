"""Laws of the wire format: round trips, truncation, random bytes, Kafka's partitioner."""

import dataclasses
import io
import math
import random

import fastavro
from aiokafka.partitioner import murmur2 as reference
from hypothesis import given
from hypothesis import strategies as st

from twin.native.telemetry import Reader, id_of_key
from twin.wire import avro_writer, codec, ids, schema
from twin.wire.catalogue import SIGNALS
from twin.wire.errors import WireError
from twin.wire.partition import murmur2, partition_of
from twin.wire.telemetry import Telemetry

VEHICLE_IDS = st.text("abcXYZ019._-", min_size=1, max_size=64).filter(lambda s: s != "sensor")
NUMBERS = st.integers(0, 2**63 - 1)


@st.composite
def signals(draw):
    chosen = draw(st.lists(st.sampled_from(SIGNALS), min_size=1, unique=True))
    return {
        s.name: draw(
            st.integers(int(s.low), int(s.high))
            if s.type == "int"
            else st.floats(s.low, s.high, width=32)
        )
        for s in chosen
    }


TELEMETRY = st.builds(
    Telemetry,
    vehicle_id=VEHICLE_IDS,
    event_time=NUMBERS,
    session=NUMBERS,
    sequence=NUMBERS,
    signals=signals(),
    assigned=st.booleans(),
    suspect=st.lists(st.text(max_size=20), max_size=3).map(tuple),
)

ANY_RECORD = st.builds(
    Telemetry,
    vehicle_id=st.text(max_size=200),
    event_time=st.integers(-(2**63), 2**63 - 1),
    session=st.integers(-(2**63), 2**63 - 1),
    sequence=st.integers(-(2**63), 2**63 - 1),
    signals=st.fixed_dictionaries(
        {},
        optional={
            s.name: st.none() | st.integers(-(2**31), 2**31 - 1)
            if s.type == "int"
            else st.none() | st.floats(width=32, allow_nan=False) | st.integers(-(10**9), 10**9)
            for s in SIGNALS
        },
    ),
    assigned=st.booleans(),
    suspect=st.lists(st.text(max_size=70), max_size=70).map(tuple),
)
CURRENT = schema.load()[schema.CURRENT_ID]


@given(TELEMETRY)
def test_what_is_written_is_read_again(telemetry):
    """decode(encode(x)) == x for every record the uplink can make."""
    assert codec.decode_telemetry(codec.encode_telemetry(telemetry)) == telemetry


@given(ANY_RECORD)
def test_the_writer_by_hand_writes_what_fastavro_writes(telemetry):
    """The bytes are the Avro library's for every record that fits the schema."""
    out = io.BytesIO()
    fields = {name: getattr(telemetry, name) for name, _ in avro_writer.HEADER}
    fastavro.schemaless_writer(out, CURRENT, fields | telemetry.signals)
    assert codec.encode_telemetry(telemetry)[5:] == out.getvalue()


OF_THIS_CENTURY = st.builds(
    Telemetry,
    vehicle_id=st.just("x"),
    event_time=st.integers(2**40, 2**41 - 1),
    session=st.integers(2**40, 2**41 - 1),
    sequence=st.integers(0, 5).flatmap(lambda n: st.integers(0, 2 ** (6 * n))),
    signals=signals(),
)
"""The lengths of times that are usual for decades."""


def by_fastavro(body):
    """What the Avro library reads behind a vehicle id, in the order of a `Sample`; None = nothing."""
    source = io.BytesIO(b"\2x" + body)
    try:
        fields = fastavro.schemaless_reader(source, CURRENT, None)
    except Exception:  # many unrelated types
        return None
    if source.read(1):
        return None
    _, *header = (fields.pop(name) for name, _ in avro_writer.HEADER)
    signals = {name: value for name, value in fields.items() if value is not None}
    return repr([*header[:3], header[3], tuple(header[4]), signals])


def columns(sample):
    return repr(
        [
            sample.event_time,
            sample.session,
            sample.sequence,
            sample.assigned,
            sample.suspect,
            dict(zip(sample.names, sample.values, strict=True)),
        ]
    )


def body_of(telemetry):
    return codec.encode_telemetry(dataclasses.replace(telemetry, vehicle_id="x"))[7:]


READER = Reader(avro_writer.signals_of(CURRENT))


@given(ANY_RECORD)
def test_the_reader_by_hand_reads_what_fastavro_reads(telemetry):
    """Equal for every record that the writer can make."""
    body = body_of(telemetry)
    read = READER.read(b"\2x" + body, 0)
    assert columns(read) == by_fastavro(body)
    assert read.names is READER.read(b"\2x" + body, 0).names
    assert read.plain == (
        min(read.event_time, read.session, read.sequence) >= 0
        and all(map(math.isfinite, read.values))
    )


@given(TELEMETRY, st.data())
def test_changed_bytes_are_malformed_or_read_as_fastavro_reads_them(telemetry, data):
    """Whatever one or two bytes are changed to."""
    body = bytearray(body_of(telemetry))
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.sampled_from([0, 1, 2, 4, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    changed = bytes(body)
    try:
        read = READER.read(b"\2x" + changed, 0)
    except ValueError:
        return
    assert columns(read) == by_fastavro(changed)


@given(st.lists(TELEMETRY | OF_THIS_CENTURY, min_size=2, max_size=30))
def test_records_of_many_shapes_do_not_mix(log):
    """One reader for all: each record is read as it was written, whichever came before."""
    for telemetry in [*log, *reversed(log)]:
        body = body_of(telemetry)
        assert columns(READER.read(b"\2x" + body, 0)) == by_fastavro(body)


@given(st.text(max_size=70) | st.text("aZ09._-", max_size=70))
def test_the_vehicle_of_a_key_is_checked_as_ids_are(text):
    """Two checks of the same rule, one of them in the hot path."""
    try:
        checked = ids.check_vehicle_id(text)
    except WireError:
        checked = None
    key = text.encode()
    assert (id_of_key(key) if text not in ids.RESERVED else None) == checked


@given(TELEMETRY, st.data())
def test_a_record_cut_anywhere_is_malformed(telemetry, data):
    """No prefix of a record is mistaken for a record."""
    encoded = codec.encode_telemetry(telemetry)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    try:
        codec.decode_telemetry(encoded[:cut])
    except WireError:
        return
    raise AssertionError(f"{encoded[:cut].hex()} was accepted")


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda b: b"\0\0\0\0\1" + b))
def test_random_bytes_raise_wire_errors_only(payload):
    """Whatever a car sends, the answer is a record or a reason."""
    for call in (
        codec.decode_telemetry,
        lambda b: codec.read_payload(b, vehicle_id="v", ingested_at=10**12, counter=0, mode="warn"),
    ):
        try:
            call(payload)
        except WireError as error:
            assert error.reason  # noqa: PT017 - an accepted payload is fine, too


@given(st.binary(max_size=40))
def test_murmur2_is_kafkas(key):
    """Our partitioner agrees with a client that Faust uses, on every length of tail."""
    assert murmur2(key) == reference(key) & 0xFFFFFFFF


def test_partitions_of_known_keys_are_stable():
    """Keys stay where they are: values from Kafka's own UtilsTest."""
    assert murmur2(b"21") == -973932308 & 0xFFFFFFFF
    assert murmur2(b"foobar") == -790332482 & 0xFFFFFFFF
    assert {partition_of(f"car-{n}".encode(), 12) for n in range(1000)} == set(range(12))


@given(VEHICLE_IDS, st.integers(0, 2**48 - 1), st.text(max_size=30))
def test_a_command_id_is_made_again_by_a_replay_and_names_its_vehicle(vehicle_id, at, seed):
    """The same cause makes the same id; another cause another."""
    made = ids.command_id(vehicle_id, at, seed)
    assert made == ids.command_id(vehicle_id, at, seed)
    assert made != ids.command_id(vehicle_id, at, seed + "x")
    assert ids.vehicle_of(made) == vehicle_id


@given(st.text(max_size=80))
def test_vehicle_ids_are_checked_as_documented(text):
    """Accepted exactly when 1 to 64 of the named characters and not reserved."""
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
    expected = 1 <= len(text) <= 64 and set(text) <= allowed and text != "sensor"
    try:
        accepted = ids.check_vehicle_id(text) == text
    except WireError:
        accepted = False
    assert accepted == expected


def test_ids_sort_by_time():
    """A ULID sorts by its time, so a ledger lists commands in order."""
    times = sorted(random.Random(1).sample(range(2**48), 50))
    made = [ids.command_id("v", at, "x") for at in times]
    assert made == sorted(made)
