"""MQTT packets a client needs, to and from bytes; protocol levels 4 (3.1.1) and 5. No I/O.

Encoders make whole packets. Decoders get the body behind the fixed header (`ingest.parser` cuts it
out of the stream) and raise `ProtocolError` for anything that is not as MQTT says. Text that is no
UTF-8 is read as escapes: what a careless broker let pass must become a rejected record, not a
connection that fails again on every redelivery.
Sources: OASIS MQTT 3.1.1 and 5.0, section 3 of each.
"""

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from ingest import properties
from ingest.errors import ProtocolError
from ingest.properties import read_string, write_string, write_varint

Level = Literal[4, 5]

CONNACK: Final = 2
PUBLISH: Final = 3
PUBACK: Final = 4
SUBACK: Final = 9
UNSUBACK: Final = 11
PINGRESP: Final = 13
DISCONNECT: Final = 14

MAX_PACKET_BYTES: Final = 2**28 - 1
"""The longest remaining length that four bytes can say."""

SUCCESS: Final = 0x00
NO_MATCHING_SUBSCRIBERS: Final = 0x10
FAILURE: Final = 0x80
"""Reason codes from here on are refusals."""
NOT_AUTHORIZED: Final = 0x87
SESSION_TAKEN_OVER: Final = 0x8E
PACKET_TOO_LARGE: Final = 0x95
QUOTA_EXCEEDED: Final = 0x97
UNSUPPORTED_VERSION: Final = 0x84
WRONG_CREDENTIALS: Final = (0x86, NOT_AUTHORIZED, 0x04, 0x05)
"""CONNACK: who we say we are is not accepted; below 0x80 as MQTT 3.1.1 says it."""


class User(NamedTuple):
    """Who we say we are in CONNECT."""

    name: str
    password: bytes | None = None


@dataclass(slots=True)
class Connack:
    """The broker's answer to CONNECT. `code` 0 = accepted; sizes in bytes, times in seconds.

    What MQTT 3.1.1 cannot say has the value that MQTT 5 gives to what is not said.
    """

    session_present: bool
    code: int
    receive_maximum: int = 65_535
    maximum_packet_size: int = MAX_PACKET_BYTES
    server_keep_alive_s: int | None = None
    reason: str | None = None
    session_expiry_s: int | None = None
    """What the broker grants instead of what was asked for."""
    maximum_qos: int = 2
    retains: bool = True
    wildcards: bool = True
    shares: bool = True


@dataclass(slots=True)
class Publish:
    """A message. `packet_id` is 0 at QoS 0.

    `cut` is 0, or the length in bytes of a packet that is over the parser's limit: then `payload`
    is only the beginning of what was sent.
    """

    topic: str
    payload: bytes
    qos: int = 0
    packet_id: int = 0
    retain: bool = False
    dup: bool = False
    content_type: str | None = None
    expiry_s: int | None = None
    cut: int = 0


@dataclass(slots=True)
class Puback:
    """The broker's answer to a PUBLISH of QoS 1; `code` from 0x80 on is a refusal (MQTT 5)."""

    packet_id: int
    code: int = SUCCESS
    reason: str | None = None


@dataclass(slots=True)
class Suback:
    """The broker's answer to SUBSCRIBE: the granted QoS or a refusal for each filter."""

    packet_id: int
    codes: bytes


@dataclass(slots=True)
class Unsuback:
    """The broker's answer to UNSUBSCRIBE; without codes in MQTT 3.1.1."""

    packet_id: int
    codes: bytes = b""


@dataclass(slots=True)
class Pingresp:
    """The broker is alive."""


@dataclass(slots=True)
class Disconnect:
    """The end of a connection, said before it is closed."""

    code: int = SUCCESS
    reason: str | None = None


Packet = Connack | Publish | Puback | Suback | Unsuback | Pingresp | Disconnect
"""What a broker sends to a client that publishes and subscribes at QoS 0 and 1."""

PINGREQ: Final = b"\xc0\x00"


# --- To bytes ------------------------------------------------------------------------------------


def encode_connect(
    level: Level,
    client_id: str,
    *,
    clean_start: bool,
    keep_alive_s: int,
    session_expiry_s: int = 0,
    receive_maximum: int = 65_535,
    user: User | None = None,
) -> bytes:
    """CONNECT without will; properties that have MQTT's default are not written.

    No maximum packet size is announced on purpose: a broker drops what is larger without a word, we
    want to see it and reject it with a reason.
    """
    flags = 0x02 if clean_start else 0x00
    who = b""
    if user is not None:
        flags |= 0x80
        who = write_string(user.name.encode())
        if user.password is not None:
            flags |= 0x40
            who += write_string(user.password)
    body = b"\x00\x04MQTT" + bytes((level, flags))
    body += keep_alive_s.to_bytes(2, "big")
    if level == 5:
        said = b""
        if session_expiry_s:
            said += bytes((properties.SESSION_EXPIRY,)) + session_expiry_s.to_bytes(4, "big")
        if receive_maximum != 65_535:
            said += bytes((properties.RECEIVE_MAXIMUM,)) + receive_maximum.to_bytes(2, "big")
        body += _with_length(said)
    return _packet(0x10, body + write_string(client_id.encode()) + who)


def encode_subscribe(level: Level, packet_id: int, filters: tuple[str, ...], qos: int) -> bytes:
    """SUBSCRIBE to all filters with the same QoS."""
    body = packet_id.to_bytes(2, "big") + (b"\x00" if level == 5 else b"")
    for topic_filter in filters:
        body += write_string(topic_filter.encode()) + bytes((qos,))
    return _packet(0x82, body)


def encode_unsubscribe(level: Level, packet_id: int, filters: tuple[str, ...]) -> bytes:
    """UNSUBSCRIBE from all filters."""
    body = packet_id.to_bytes(2, "big") + (b"\x00" if level == 5 else b"")
    return _packet(0xA2, body + b"".join(write_string(each.encode()) for each in filters))


def encode_publish(level: Level, message: Publish) -> bytes:
    """PUBLISH. Content type and expiry are said only where MQTT 5 is spoken."""
    body = write_string(message.topic.encode())
    if message.qos:
        body += message.packet_id.to_bytes(2, "big")
    if level == 5:
        said = b""
        if message.expiry_s is not None:
            said += bytes((properties.MESSAGE_EXPIRY,)) + message.expiry_s.to_bytes(4, "big")
        if message.content_type is not None:
            said += bytes((properties.CONTENT_TYPE,)) + write_string(message.content_type.encode())
        body += _with_length(said)
    flags = message.dup << 3 | message.qos << 1 | message.retain
    return _packet(PUBLISH << 4 | flags, body + message.payload)


def encode_puback(packet_id: int) -> bytes:
    """PUBACK with reason success, which both levels write the same way."""
    return b"\x40\x02" + packet_id.to_bytes(2, "big")


def encode_disconnect(*, end_session: bool = False) -> bytes:
    """DISCONNECT, normal: the broker keeps the session and sends no will. Same in both levels.

    `end_session` tells an MQTT 5 broker to forget it; 3.1.1 has no word for that.
    """
    if end_session:
        return b"\xe0\x07\x00" + _with_length(bytes((properties.SESSION_EXPIRY, 0, 0, 0, 0)))
    return b"\xe0\x00"


def _packet(first: int, body: bytes) -> bytes:
    if len(body) > MAX_PACKET_BYTES:
        raise ProtocolError(f"a packet of {len(body)} bytes; MQTT carries at most 268435455")
    return bytes((first,)) + write_varint(len(body)) + body


def _with_length(said: bytes) -> bytes:
    return write_varint(len(said)) + said


# --- From bytes ----------------------------------------------------------------------------------


def decode(level: Level, first: int, body: bytes, cut: int = 0) -> Packet:
    """The packet with the first byte `first` and this body.

    `cut` > 0 says that `body` is only the beginning of a PUBLISH of that many bytes.
    """
    kind = first >> 4
    if kind == PUBLISH:
        return _publish(level, first & 0x0F, body, cut)
    if first & 0x0F:
        raise ProtocolError(f"flags of packet 0x{first:02x} must be 0")
    if kind == PUBACK:
        packet_id = _packet_id(body, 0)
        code, found = _reason(level, body, 2)
        return Puback(packet_id, code, properties.text(found, properties.REASON_STRING))
    if kind == SUBACK:
        return _suback(level, body)
    if kind == UNSUBACK:
        return _unsuback(level, body)
    if kind == CONNACK:
        return _connack(level, body)
    if kind == DISCONNECT:
        code, found = _reason(level, body, 0)
        return Disconnect(code, properties.text(found, properties.REASON_STRING))
    if kind == PINGRESP:
        _nothing_behind(body, 0)
        return Pingresp()
    raise ProtocolError(f"packet type {kind} is not sent to a client that uses QoS 0 and 1")


def _publish(level: Level, flags: int, body: bytes, cut: int) -> Publish:
    qos = flags >> 1 & 3
    if qos > 1:
        raise ProtocolError(f"QoS {qos} was sent, at most 1 was subscribed")
    end = len(body)
    topic, position = read_string(body, 0, end)
    packet_id = 0
    if qos:
        packet_id = _packet_id(body, position)
        position += 2
    content_type = None
    expiry_s = None
    if level == 5 and body[position : position + 1] == b"\x00":
        position += 1
    elif level == 5:
        try:
            found, position = properties.read(body, position, end)
        except ProtocolError:
            if not cut:
                raise
            # The properties alone are over the limit: nothing of the payload was kept.
            found, position = {}, end
        content_type = properties.text(found, properties.CONTENT_TYPE)
        if properties.MESSAGE_EXPIRY in found:
            expiry_s = properties.number(found, properties.MESSAGE_EXPIRY, 0)
    return Publish(
        topic.decode(errors="backslashreplace"),
        body[position:],
        qos,
        packet_id,
        bool(flags & 1),
        bool(flags & 8),
        content_type,
        expiry_s,
        cut,
    )


def _connack(level: Level, body: bytes) -> Connack:
    if len(body) < 2 or body[0] > 1:
        raise ProtocolError(f"CONNACK {body[:4].hex()} is malformed")
    answer = Connack(session_present=body[0] == 1, code=body[1])
    if level == 4 or len(body) == 2:
        # A 3.1.1 broker refuses MQTT 5 in its own, shorter form.
        _nothing_behind(body, 2)
        return answer
    found, position = properties.read(body, 2, len(body))
    _nothing_behind(body, position)
    answer.receive_maximum = properties.number(found, properties.RECEIVE_MAXIMUM, 65_535)
    answer.maximum_packet_size = properties.number(
        found, properties.MAXIMUM_PACKET_SIZE, MAX_PACKET_BYTES
    )
    if answer.receive_maximum == 0 or answer.maximum_packet_size == 0:
        raise ProtocolError("CONNACK allows nothing: receive maximum or packet size is 0")
    if properties.SERVER_KEEP_ALIVE in found:
        answer.server_keep_alive_s = properties.number(found, properties.SERVER_KEEP_ALIVE, 0)
    answer.reason = properties.text(found, properties.REASON_STRING)
    if properties.SESSION_EXPIRY in found:
        answer.session_expiry_s = properties.number(found, properties.SESSION_EXPIRY, 0)
    answer.maximum_qos = properties.number(found, properties.MAXIMUM_QOS, 2)
    answer.retains = properties.number(found, properties.RETAIN_AVAILABLE, 1) != 0
    answer.wildcards = properties.number(found, properties.WILDCARDS_AVAILABLE, 1) != 0
    answer.shares = properties.number(found, properties.SHARED_AVAILABLE, 1) != 0
    return answer


def _suback(level: Level, body: bytes) -> Suback:
    packet_id = _packet_id(body, 0)
    position = 2
    if level == 5:
        _, position = properties.read(body, 2, len(body))
    codes = body[position:]
    if not codes:
        raise ProtocolError("SUBACK answers no filter")
    return Suback(packet_id, codes)


def _unsuback(level: Level, body: bytes) -> Unsuback:
    packet_id = _packet_id(body, 0)
    if level == 4:
        _nothing_behind(body, 2)
        return Unsuback(packet_id)
    _, position = properties.read(body, 2, len(body))
    return Unsuback(packet_id, body[position:])


def _reason(level: Level, body: bytes, position: int) -> tuple[int, properties.Properties]:
    """Reason code and properties, both of which MQTT 5 may leave out and 3.1.1 does not have."""
    end = len(body)
    if position == end:
        return SUCCESS, {}
    if level == 4:
        _nothing_behind(body, position)
    code = body[position] if position < end else SUCCESS
    if position + 1 >= end:
        return code, {}
    found, stop = properties.read(body, position + 1, end)
    _nothing_behind(body, stop)
    return code, found


def _packet_id(body: bytes, position: int) -> int:
    if position + 2 > len(body):
        raise ProtocolError("a packet ends before its packet id")
    packet_id = body[position] << 8 | body[position + 1]
    if packet_id == 0:
        raise ProtocolError("packet id 0 is not allowed")
    return packet_id


def _nothing_behind(body: bytes, position: int) -> None:
    if position != len(body):
        raise ProtocolError(f"{len(body) - position} bytes too many in a packet")
