"""MQTT packets out of a byte stream that may be cut anywhere. No I/O.

`feed` gets bytes as they come and yields whole packets. A PUBLISH over the limit is not buffered:
its beginning is yielded as a cut message and the rest is skipped, so that it can be rejected with a
reason and acknowledged. Any other packet over the limit is a `ProtocolError`, after which the parser
is of no use any more.
"""

from collections.abc import Iterator
from typing import Final

from ingest import packets
from ingest.errors import ProtocolError
from ingest.packets import Level, Packet
from ingest.properties import read_varint
from twin.wire.codec import MAX_MESSAGE_BYTES

LIMIT_BYTES: Final = 2 * MAX_MESSAGE_BYTES
"""Longest body that is kept whole: the longest message, topic (64 KB) and properties."""

_LONGEST_HEADER: Final = 5


class Parser:
    """Cuts one connection's stream into packets."""

    def __init__(self, level: Level, limit_bytes: int = LIMIT_BYTES) -> None:
        self._level = level
        self._limit = limit_bytes
        self._rest = bytearray()
        self._want = 0  # bytes that `_rest` must have before it is worth another look
        self._skip = 0  # bytes still to come of a cut packet

    def feed(self, data: bytes) -> Iterator[Packet]:
        """The packets that end in `data`. Raises `ProtocolError` after those before the fault."""
        if self._skip:
            data, skipped = data[self._skip :], min(self._skip, len(data))
            self._skip -= skipped
        if self._rest:
            self._rest += data
            if len(self._rest) < self._want:
                return
            data = bytes(self._rest)
            self._rest.clear()
        position = 0
        size = len(data)
        while position < size:
            header = self._header(data, position, size)
            if header is None:
                self._keep(data, position, size - position + 1)
                return
            length, begin = header
            first = data[position]
            kept = length if length <= self._limit else self._limit
            if kept < length and first >> 4 != packets.PUBLISH:
                raise ProtocolError(f"packet 0x{first:02x} of {length} bytes is too long")
            end = begin + kept
            if end > size:
                self._keep(data, position, end - position)
                return
            yield packets.decode(
                self._level, first, data[begin:end], length if kept < length else 0
            )
            position = begin + length
            if position > size:
                self._skip = position - size

    def _header(self, data: bytes, position: int, size: int) -> tuple[int, int] | None:
        """Remaining length and where the body begins; None when the header is not complete."""
        body = position + 2
        if body <= size and data[position + 1] < 0x80:
            return data[position + 1], body
        try:
            return read_varint(data, position + 1, size)
        except ProtocolError:
            if size - position < _LONGEST_HEADER:
                return None
            raise

    def _keep(self, data: bytes, position: int, want: int) -> None:
        self._rest += data[position:]
        self._want = want
