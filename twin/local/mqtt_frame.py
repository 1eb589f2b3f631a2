"""MQTT 3.1.1 frames as far as a probe and a broker need them; pure."""

from dataclasses import dataclass
from typing import Final

from twin.wire.errors import CartwinError

CONNECT: Final = 0x10
CONNACK: Final = 0x20
PUBLISH: Final = 0x30
PUBACK: Final = 0x40
PUBREC: Final = 0x50
PUBREL: Final = 0x62
PUBCOMP: Final = 0x70
SUBACK: Final = 0x90
UNSUBACK: Final = 0xB0
PINGRESP: Final = 0xD0
DISCONNECT: Final = 0xE0


class BadFrame(CartwinError):
    """The peer broke the protocol; its connection is closed."""


@dataclass(frozen=True, slots=True)
class Message:
    """An application message; `qos` is the one it was published with."""

    topic: str
    data: bytes
    qos: int
    retain: bool = False


def frame(first: int, body: bytes = b"") -> bytes:
    """A packet of type and flags `first`; raises ValueError over 268,435,455 bytes."""
    if len(body) >= 128**4:
        raise ValueError(f"an MQTT packet of {len(body)} bytes is too long")
    length, size = bytearray(), len(body)
    while True:
        size, digit = divmod(size, 128)
        length.append(digit | 0x80 if size else digit)
        if not size:
            return bytes((first,)) + bytes(length) + body


def text(value: str) -> bytes:
    """A string as it stands in a packet: two bytes of length, UTF-8."""
    encoded = value.encode()
    return len(encoded).to_bytes(2, "big") + encoded


def connect(keep_alive_s: int = 10) -> bytes:
    """CONNECT without client id and user, with a clean session."""
    clean_session = bytes((4, 0x02))
    return frame(CONNECT, text("MQTT") + clean_session + keep_alive_s.to_bytes(2, "big") + text(""))


def publish(message: Message, packet_id: int, *, again: bool = False) -> bytes:
    """PUBLISH; `packet_id` matters above QoS 0, `again` sets the DUP flag."""
    first = PUBLISH | again << 3 | message.qos << 1 | message.retain
    numbered = packet_id.to_bytes(2, "big") if message.qos else b""
    return frame(first, text(message.topic) + numbered + message.data)


def read_publish(flags: int, body: bytes) -> tuple[Message, int]:
    """Message and packet id (0 at QoS 0) of a PUBLISH; raises `BadFrame`."""
    qos, end = flags >> 1 & 3, 2 + int.from_bytes(body[:2], "big")
    start = end + 2 if qos else end
    if qos == 3 or start > len(body):
        raise BadFrame("PUBLISH with QoS 3 or cut short")
    try:
        topic = body[2:end].decode()
    except UnicodeDecodeError:
        raise BadFrame("PUBLISH to a topic that is no UTF-8") from None
    if not topic or topic.startswith("$") or any(sign in topic for sign in "+#\0"):
        raise BadFrame(f"PUBLISH to {topic[:80]!r}, which is no topic to publish to")
    packet_id = int.from_bytes(body[end:start], "big")
    if qos and not packet_id:
        raise BadFrame("PUBLISH with packet id 0")
    return Message(topic, body[start:], qos, bool(flags & 1)), packet_id


def matches(topic: str, pattern: str) -> bool:
    """Whether `topic` is selected by the topic filter `pattern`."""
    if pattern == topic:
        return True
    if topic.startswith("$") and pattern[:1] in "+#":
        return False
    wanted, given = pattern.split("/"), topic.split("/")
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(given) or level not in ("+", given[index]):
            return False
    return len(wanted) == len(given)
