"""MQTT 5 properties: read by their type, so that those we do not use are skipped correctly.

Source: MQTT 5.0 section 2.2.2 (https://docs.oasis-open.org/mqtt/mqtt/v5.0/mqtt-v5.0.html).
Every length is checked against the bytes that are there; what does not fit is a `ProtocolError`.
"""

from typing import Final

from ingest.errors import ProtocolError

MESSAGE_EXPIRY: Final = 0x02
CONTENT_TYPE: Final = 0x03
SESSION_EXPIRY: Final = 0x11
SERVER_KEEP_ALIVE: Final = 0x13
REASON_STRING: Final = 0x1F
RECEIVE_MAXIMUM: Final = 0x21
MAXIMUM_QOS: Final = 0x24
RETAIN_AVAILABLE: Final = 0x25
MAXIMUM_PACKET_SIZE: Final = 0x27
WILDCARDS_AVAILABLE: Final = 0x28
SHARED_AVAILABLE: Final = 0x2A

_USER_PROPERTY: Final = 0x26
_SUBSCRIPTION_ID: Final = 0x0B
_WIDTHS: Final = {
    **dict.fromkeys((0x01, 0x17, 0x19, MAXIMUM_QOS, RETAIN_AVAILABLE, 0x29), 1),
    **dict.fromkeys((WILDCARDS_AVAILABLE, SHARED_AVAILABLE), 1),
    **dict.fromkeys((SERVER_KEEP_ALIVE, RECEIVE_MAXIMUM, 0x22, 0x23), 2),
    **dict.fromkeys((MESSAGE_EXPIRY, SESSION_EXPIRY, 0x18, MAXIMUM_PACKET_SIZE), 4),
}
"""Bytes of the properties that are whole numbers."""
_STRINGS: Final = frozenset((CONTENT_TYPE, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1A, 0x1C, REASON_STRING))
"""Properties that are a length of two bytes and as many bytes of text or data."""

Properties = dict[int, int | bytes]


def read_varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """A variable byte integer (at most 4 bytes) and the position behind it."""
    value = 0
    for shift in (0, 7, 14, 21):
        if position >= end:
            raise ProtocolError("a variable byte integer ends too early")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ProtocolError("a variable byte integer is longer than 4 bytes")


def write_varint(value: int) -> bytes:
    """`value` (below 2^28) as a variable byte integer."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read(data: bytes, position: int, end: int) -> tuple[Properties, int]:
    """The properties that begin with their length at `position`, and the position behind them.

    User properties and subscription identifiers are checked and left out.
    """
    length, position = read_varint(data, position, end)
    stop = position + length
    if stop > end:
        raise ProtocolError(f"properties of {length} bytes end outside their packet")
    found: Properties = {}
    while position < stop:
        name = data[position]
        position += 1
        if name == _USER_PROPERTY:
            for _ in ("name", "value"):
                _, position = read_string(data, position, stop)
        elif name == _SUBSCRIPTION_ID:
            _, position = read_varint(data, position, stop)
        elif name in found:
            raise ProtocolError(f"property 0x{name:02x} is there twice")
        elif width := _WIDTHS.get(name):
            if position + width > stop:
                raise ProtocolError(f"property 0x{name:02x} ends too early")
            found[name] = int.from_bytes(data[position : position + width], "big")
            position += width
        elif name in _STRINGS:
            found[name], position = read_string(data, position, stop)
        else:
            raise ProtocolError(f"property 0x{name:02x} is not known to MQTT 5")
    return found, position


def read_string(data: bytes, position: int, end: int) -> tuple[bytes, int]:
    """Two bytes of length, then as many bytes; and the position behind them."""
    begin = position + 2
    if begin > end:
        raise ProtocolError("a string ends too early")
    stop = begin + (data[position] << 8 | data[position + 1])
    if stop > end:
        raise ProtocolError("a string is longer than its packet")
    return data[begin:stop], stop


def write_string(text: bytes) -> bytes:
    """Two bytes of length, then the bytes; raises `ProtocolError` above 65,535 bytes."""
    if len(text) > 0xFFFF:
        raise ProtocolError(f"a string of {len(text)} bytes; MQTT carries at most 65535")
    return len(text).to_bytes(2, "big") + text


def number(found: Properties, name: int, default: int) -> int:
    """The whole number that a property holds, or `default`."""
    value = found.get(name, default)
    return value if isinstance(value, int) else default


def text(found: Properties, name: int) -> str | None:
    """The text that a property holds; bytes that are no UTF-8 come as escapes."""
    value = found.get(name)
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else None
