"""MQTT packets: bytes as the standard writes them, whole, cut anywhere, and random."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import packets
from ingest.errors import ProtocolError
from ingest.packets import Connack, Disconnect, Pingresp, Puback, Publish, Suback, Unsuback, User
from ingest.parser import Parser


def packet(first, *body):
    """A packet from hex, with its length put in front of the body (below 128 bytes)."""
    content = bytes.fromhex("".join(body))
    return bytes((first, len(content))) + content


TOPIC = "0003612f62"  # a/b
USER_PROPERTY = "26000161000162"

# What a broker may send: (level, bytes written by hand after the standard, what they mean).
GOLDEN = {
    "connack 4": (4, packet(0x20, "0100"), Connack(session_present=True, code=0)),
    "connack 4 refused": (4, packet(0x20, "0005"), Connack(session_present=False, code=5)),
    "connack 5": (
        5,
        # receive maximum, server keep alive, maximum packet size, a user property, reason string
        packet(0x20, "0000", "1c", "210014", "13003c", "27000003e8", USER_PROPERTY,
               "1f0005676f6f6421", "2501"),
        Connack(False, 0, 20, 1000, 60, "good!"),
    ),
    "connack 5 that grants less": (
        5,
        # session expiry, maximum QoS 0, nothing retained, no wildcards, no shared subscriptions
        packet(0x20, "0000", "0d", "1100000e10", "2400", "2500", "2800", "2a00"),
        Connack(False, 0, session_expiry_s=3600, maximum_qos=0, retains=False, wildcards=False,
                shares=False),
    ),
    "connack 5 from a 3.1.1 broker": (5, packet(0x20, "0001"), Connack(False, 1)),
    "suback 4": (4, packet(0x90, "000a", "0180"), Suback(10, b"\x01\x80")),
    "suback 5": (5, packet(0x90, "000a", "07", "1f000466696e65", "0101"), Suback(10, b"\x01\x01")),
    "unsuback 4": (4, packet(0xB0, "000a"), Unsuback(10)),
    "unsuback 5": (5, packet(0xB0, "000a", "00", "0011"), Unsuback(10, b"\x00\x11")),
    "publish 4 qos 0": (4, packet(0x30, TOPIC, "78"), Publish("a/b", b"x")),
    "publish 4 qos 1": (
        4,
        packet(0x3B, TOPIC, "0007", "78"),
        Publish("a/b", b"x", 1, 7, retain=True, dup=True),
    ),
    "publish 5 bare": (5, packet(0x32, TOPIC, "0007", "00", "78"), Publish("a/b", b"x", 1, 7)),
    "publish 5 with properties": (
        5,
        # expiry 60 s, content type, payload format, response topic, correlation data, subscription
        # identifiers 1 and 300, a user property
        packet(0x32, TOPIC, "0007", "2a", "020000003c", "03000b6176726f2f62696e617279", "0101",
               "08000172", "0900021122", "0b01", "0bac02", USER_PROPERTY, "78"),
        Publish("a/b", b"x", 1, 7, content_type="avro/binary", expiry_s=60),
    ),
    "publish empty": (4, packet(0x30, TOPIC), Publish("a/b", b"")),
    "puback 4": (4, packet(0x40, "0007"), Puback(7)),
    "puback 5 short": (5, packet(0x40, "0007"), Puback(7)),
    "puback 5 with a code": (5, packet(0x40, "0007", "10"), Puback(7, 0x10)),
    "puback 5 with a reason": (5, packet(0x40, "0007", "97", "04", "1f000178"), Puback(7, 0x97, "x")),
    "pingresp": (4, packet(0xD0), Pingresp()),
    "disconnect 5": (5, packet(0xE0, "8e", "00"), Disconnect(0x8E)),
    "disconnect 5 bare": (5, packet(0xE0), Disconnect()),
}  # fmt: skip


def parse(level, data):
    return list(Parser(level).feed(data))


@pytest.mark.parametrize(("level", "written", "meant"), GOLDEN.values(), ids=GOLDEN.keys())
def test_a_packet_is_read_as_the_standard_writes_it(level, written, meant):
    """Golden bytes of every packet a broker sends are read to what they mean."""
    assert parse(level, written) == [meant]


@pytest.mark.parametrize(("level", "written", "meant"), GOLDEN.values(), ids=GOLDEN.keys())
def test_a_stream_may_be_cut_at_every_byte(level, written, meant):
    """Three packets in a row come out the same, wherever the stream is cut, even byte by byte."""
    stream = written * 3
    for at in range(len(stream) + 1):
        parser = Parser(level)
        assert [*parser.feed(stream[:at]), *parser.feed(stream[at:])] == [meant] * 3
    parser = Parser(level)
    single = [packet for byte in stream for packet in parser.feed(bytes((byte,)))]
    assert single == [meant] * 3


@pytest.mark.parametrize(("level", "written", "_meant"), GOLDEN.values(), ids=GOLDEN.keys())
def test_a_body_cut_short_is_read_as_what_it_is_or_refused(level, written, _meant):
    """No decoder reads over the end of a body that is shorter than its packet should be."""
    for size in range(len(written) - 2):
        try:
            parse(level, bytes((written[0], size)) + written[2 : 2 + size])
        except ProtocolError:
            continue


@pytest.mark.parametrize(
    ("level", "written", "wrong"),
    [
        (4, packet(0x34, TOPIC, "0001", "78"), "QoS 2"),
        (4, packet(0x36, TOPIC), "QoS 3"),
        (4, packet(0x32, TOPIC, "0000"), "packet id 0"),
        (4, packet(0x32, TOPIC, "00"), "before its packet id"),
        (4, packet(0x30, "0009", "616263"), "longer than its packet"),
        (4, packet(0x30, "00"), "ends too early"),
        (5, packet(0x30, TOPIC), "ends too early"),
        (4, packet(0x21, "0000"), "flags"),
        (4, packet(0x20, "0200"), "CONNACK"),
        (4, packet(0x20, "000000"), "too many"),
        (5, packet(0x20, "0000", "05"), "end outside"),
        (5, packet(0x20, "0000", "03", "210000"), "allows nothing"),
        (5, packet(0x20, "0000", "06", "210001", "210002"), "twice"),
        (5, packet(0x20, "0000", "02", "7f00"), "not known"),
        (5, packet(0x20, "0000", "02", "2100"), "ends too early"),
        (5, packet(0x20, "0000", "ffffffff01"), "longer than 4"),
        (4, packet(0x90, "0001"), "answers no filter"),
        (4, packet(0x40, "00"), "before its packet id"),
        (4, packet(0xB0, "000100"), "too many"),
        (5, packet(0xB0, "0001"), "ends too early"),
        (4, packet(0x40, "0007", "00"), "too many"),
        (4, packet(0xD0, "00"), "too many"),
        (4, packet(0x50, "000a"), "type 5"),
        (4, packet(0x00), "type 0"),
        (4, bytes.fromhex("30ffffffffff"), "longer than 4 bytes"),
        (4, bytes.fromhex("20ffff7f"), "too long"),
    ],
)
def test_what_mqtt_forbids_is_a_protocol_error(level, written, wrong):
    """Malformed packets raise `ProtocolError` with a sentence that names the fault."""
    with pytest.raises(ProtocolError, match=wrong):
        parse(level, written)


def test_a_header_that_is_not_complete_is_waited_for():
    """The first byte alone, or an unfinished length, is no fault."""
    assert parse(4, b"\x30") == []
    assert parse(4, b"\x30\xff\xff\xff") == []


@given(st.sampled_from((4, 5)), st.lists(st.binary(max_size=60), max_size=6))
def test_random_bytes_end_in_packets_or_a_protocol_error(level, chunks):
    """Whatever comes, the parser ends, and fails with nothing but `ProtocolError`."""
    parser = Parser(level, limit_bytes=40)
    try:
        for chunk in chunks:
            list(parser.feed(chunk))
    except ProtocolError:
        pass


@given(
    st.sampled_from((4, 5)),
    st.sampled_from([written for _, written, _ in GOLDEN.values()]),
    st.integers(0, 60),
    st.integers(0, 255),
)
def test_a_packet_with_one_wrong_byte_ends_in_packets_or_a_protocol_error(level, whole, at, byte):
    """Nearly right packets reach deeper than random bytes and are as harmless."""
    broken = bytearray(whole)
    broken[at % len(broken)] = byte
    with contextlib.suppress(ProtocolError):
        list(Parser(level).feed(bytes(broken) * 2))


@given(
    st.sampled_from((4, 5)),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=40),
    st.binary(max_size=300),
    st.integers(0, 65535),
    st.booleans(),
    st.none() | st.integers(0, 2**32 - 1),
    st.none() | st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
)
def test_a_message_survives_the_way_to_bytes_and_back(
    level, topic, payload, packet_id, retain, expiry_s, content_type
):
    """PUBLISH is read as it was written; in 3.1.1 without expiry and content type."""
    sent = Publish(
        topic,
        payload,
        int(packet_id > 0),
        packet_id,
        retain=retain,
        expiry_s=expiry_s if level == 5 else None,
        content_type=content_type if level == 5 else None,
    )
    assert parse(level, packets.encode_publish(level, sent)) == [sent]


def test_what_the_client_writes_is_as_the_standard_says():
    """CONNECT, SUBSCRIBE, PUBACK and DISCONNECT have the bytes of the standard in both levels."""
    said = {"clean_start": False, "keep_alive_s": 30, "session_expiry_s": 3600}
    assert packets.encode_connect(4, "up", receive_maximum=100, **said) == bytes.fromhex(
        "100e" + "00044d515454" + "04" + "00" + "001e" + "00027570"
    )
    assert packets.encode_connect(5, "up", receive_maximum=100, **said) == bytes.fromhex(
        "1017" + "00044d515454" + "05" + "00" + "001e" + "08" + "1100000e10" + "210064" + "00027570"
    )
    assert packets.encode_connect(5, "up", clean_start=True, keep_alive_s=30) == bytes.fromhex(
        "100f" + "00044d515454" + "05" + "02" + "001e" + "00" + "00027570"
    )
    assert packets.encode_subscribe(4, 9, ("a/+", "b"), 1) == bytes.fromhex(
        "820c" + "0009" + "0003612f2b01" + "00016201"
    )
    assert packets.encode_subscribe(5, 9, ("b",), 1) == bytes.fromhex(
        "8207" + "0009" + "00" + "00016201"
    )
    assert packets.encode_unsubscribe(4, 9, ("a/+", "b")) == bytes.fromhex(
        "a20a" + "0009" + "0003612f2b" + "000162"
    )
    assert packets.encode_unsubscribe(5, 9, ("b",)) == bytes.fromhex(
        "a206" + "0009" + "00" + "000162"
    )
    assert packets.encode_disconnect(end_session=True) == bytes.fromhex(
        "e007" + "00" + "05" + "1100000000"
    )
    assert packets.encode_puback(258) == bytes.fromhex("40020102")
    assert packets.encode_disconnect() == bytes.fromhex("e000")
    assert bytes.fromhex("c000") == packets.PINGREQ


@pytest.mark.parametrize(
    ("user", "flags", "written"),
    [
        (User("me"), "82", "00026d65"),
        (User("me", b"\xff1"), "c2", "00026d65" + "0002ff31"),
    ],
)
def test_name_and_password_are_written_as_the_standard_says(user, flags, written):
    """Their flags are set, and they stand behind the client id, the password as any bytes."""
    found = packets.encode_connect(4, "up", clean_start=True, keep_alive_s=30, user=user)
    body = "00044d515454" + "04" + flags + "001e" + "00027570" + written
    assert found == packet(0x10, body)


def test_text_that_is_no_utf8_is_read_as_escapes():
    """A topic and a content type that are no UTF-8 reach whoever can reject the message."""
    body = b"\x00\x02a\xff" + b"\x05\x03\x00\x02\xfex" + b"y"
    assert parse(5, bytes((0x30, len(body))) + body) == [
        Publish("a\\xff", b"y", content_type="\\xfex")
    ]


@pytest.mark.parametrize("chunk", [1, 7, 100, 100_000])
@pytest.mark.parametrize("level", [4, 5])
def test_a_message_over_the_limit_is_cut_and_the_next_one_is_whole(level, chunk):
    """Of a PUBLISH over the limit the beginning is kept, the rest skipped, the stream stays in step."""
    long = packets.encode_publish(level, Publish("t/1", b"z" * 500, 1, 5, content_type="c"))
    after = packets.encode_publish(level, Publish("t/2", b"ok"))
    stream = long + after + long
    parser = Parser(level, limit_bytes=64)
    seen = [p for i in range(0, len(stream), chunk) for p in parser.feed(stream[i : i + chunk])]
    assert [p.topic for p in seen] == ["t/1", "t/2", "t/1"]
    assert seen[1] == Publish("t/2", b"ok")
    assert seen[0].cut == len(long) - 3
    assert seen[0].packet_id == 5
    assert seen[0].payload == b"z" * (64 - (len(long) - 3 - 500))
    assert seen[0].content_type == ("c" if level == 5 else None)


def test_properties_longer_than_the_limit_do_not_stop_the_stream():
    """A message whose user properties alone are over the limit is cut, too, and can be rejected."""
    user = b"\x26\x00\x01k\x01\x00" + b"v" * 256
    body = b"\x00\x01t" + b"\x00\x09" + packets.write_varint(len(user)) + user + b"x"
    packet = bytes((0x32,)) + packets.write_varint(len(body)) + body
    (seen,) = Parser(5, limit_bytes=64).feed(packet)
    assert seen == Publish("t", b"", 1, 9, cut=len(body))


def test_packets_before_a_fault_are_still_given():
    """A fault in the stream takes nothing from the packets that came whole before it."""
    stream = Parser(4).feed(bytes.fromhex("40020007" + "0000"))
    assert next(stream) == Puback(7)
    with pytest.raises(ProtocolError):
        next(stream)
