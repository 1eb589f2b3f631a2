"""Avro of one telemetry record, read by hand because every message of every car passes here.

It knows what `avro_writer` writes: the header fields, then signals of type ["null", "float" | "int"].
A car says the same *shape* of record again and again: the same signals present, ints of the same
length. A shape fixes every bit of a record that is not a value (branches, continuation bits, the sign
of times, `assigned`, `suspect`), so one comparison under a mask recognises it and one `unpack` reads it:

    body -> shapes of this length -> mask fits: unpack | none fits: `learn` reads field by field

`learn` is strict: whatever the bytes are, it gives a sample or raises `Malformed`. It refuses what
fastavro reads although no encoder writes it: ints of more than 32 and longs of more than 64 bits,
negative lengths, a branch or boolean that is not one byte 0, 2 or 0, 1. All else is read alike.
Encoding: https://avro.apache.org/docs/1.12.0/specification/#binary-encoding
"""

import math
import struct
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from twin.wire.avro_writer import signals_of
from twin.wire.errors import Malformed
from twin.wire.telemetry import Sample, shared_names

MAX_SHAPES: Final = 1024
"""Remembered in all; then the memory begins anew."""
MAX_SHAPES_OF_LENGTH: Final = 16
MAX_SHAPE_BYTES: Final = 1024
"""Longer records (of many suspect signals) are read field by field."""

_NULL: Final = 0
_VALUE: Final = 2
_LONG_BYTES: Final = 10
_INT_BYTES: Final = 5
_FLOAT: Final = struct.Struct("<f").unpack_from
_bytes_to_int = int.from_bytes

_SEVENS: Final = array("H", (low & 0x7F | (low & 0x7F00) >> 1 for low in range(0x10000)))
"""Two bytes of a varint, read as a little-endian number, without their continuation bits."""
_SHORT_INT: Final = array("h", (rest >> 1 ^ -(rest & 1) for rest in _SEVENS)).__getitem__
"""An int of one or two bytes."""

# Times are six bytes long from 2004 to 2039; a sequence is masked to its length.
_HEAD: Final = struct.Struct("<HHHHHHI").unpack_from
_HEAD_WIDTHS: Final = (6, 6)
_SEQUENCE_BYTES: Final = 4


@dataclass(slots=True, eq=False)
class _Shape:
    """Records are of this shape when `(number & keep) + carry & check == fixed`, number being the body
    as a little-endian int: the fixed bits are as here, times are not negative, floats are finite.

    An exponent of all ones, that of infinity and no number, overflows by `carry` into the sign bit,
    which `keep` has cleared.
    """

    keep: int
    carry: int
    check: int
    fixed: int
    sequence: int | None
    """Mask of the sequence, when the header is as long as usual."""
    longs: tuple[tuple[int, int], ...]
    """Otherwise of each of its numbers: how far to shift the body, and a mask of its bits."""
    names: tuple[str, ...]
    values: Callable[[bytes], tuple[Any, ...]]
    ints: tuple[tuple[int, Callable[[Any], int]], ...]
    """Which values are ints, and what makes one of the bytes."""
    assigned: bool
    suspect: tuple[str, ...]


class Reader:
    """Reads record bodies of one schema (parsed), from behind the vehicle id on.

    Raises `ValueError` for a schema of another shape, as `avro_writer.signals_of` does.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._signals = signals_of(schema)
        self._shapes: dict[int, list[_Shape]] = {}
        """By length of the body, the last used first."""
        self._count = 0

    def known(self, body: bytes, vehicle_id: str) -> Sample | None:
        """The record, if it is of a shape seen before. Its times and numbers are not negative, its
        values finite."""
        shapes = self._shapes.get(len(body))
        if shapes is None:
            return None
        number = _bytes_to_int(body, "little")
        for shape in shapes:
            if (number & shape.keep) + shape.carry & shape.check == shape.fixed:
                break
        else:
            return None
        if shape is not shapes[0]:
            shapes.remove(shape)
            shapes.insert(0, shape)
        if shape.sequence is None:
            event_time, session, sequence = [
                _packed(number >> shift & mask) >> 1 for shift, mask in shape.longs
            ]
        else:
            a, b, c, d, e, f, word = _HEAD(body)
            word &= shape.sequence
            sevens = _SEVENS
            event_time = (sevens[a] | sevens[b] << 14 | sevens[c] << 28) >> 1
            session = (sevens[d] | sevens[e] << 14 | sevens[f] << 28) >> 1
            sequence = (sevens[word & 0xFFFF] | sevens[word >> 16] << 14) >> 1
        values = shape.values(body)
        if shape.ints:
            row = list(values)
            for index, made in shape.ints:
                row[index] = made(row[index])
            values = tuple(row)
        return Sample(
            vehicle_id,
            event_time,
            session,
            sequence,
            shape.names,
            values,
            shape.assigned,
            shape.suspect,
        )

    def learn(self, body: bytes, vehicle_id: str) -> Sample:
        """The record, field by field; its shape is known from then on. Raises `Malformed`."""
        fields = _Fields(body)
        event_time, session, sequence = fields.time(), fields.time(), fields.time()
        assigned = fields.boolean()
        suspect = fields.strings()
        names: list[str] = []
        values: list[float] = []
        for name, is_float in self._signals:
            if fields.present():
                names.append(name)
                values.append(fields.number() if is_float else fields.integer())
        fields.end()
        sample = Sample(
            vehicle_id,
            event_time,
            session,
            sequence,
            shared_names(tuple(names)),
            tuple(values),
            assigned,
            suspect,
        )
        # A shape says that times are not negative and values finite: none is made of others.
        if min(event_time, session, sequence) >= 0 and math.isfinite(sum(values)):
            self._remember(len(body), fields.shape(sample))
        return sample

    def _remember(self, length: int, shape: _Shape) -> None:
        if length > MAX_SHAPE_BYTES:
            return
        if self._count >= MAX_SHAPES:
            self._shapes.clear()
            self._count = 0
        shapes = self._shapes.setdefault(length, [])
        if len(shapes) >= MAX_SHAPES_OF_LENGTH:
            shapes.pop()
            self._count -= 1
        shapes.insert(0, shape)
        self._count += 1


class _Fields:
    """A record being read field by field, while the bits that its shape fixes are noted."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0
        self._keep = bytearray(len(body))
        self._carry = bytearray(len(body))
        self._check = bytearray(len(body))
        self._times: list[slice] = []
        self._format: list[str] = ["<"]
        self._ints: list[Callable[[Any], int]] = []

    def time(self) -> int:
        """A long of the header."""
        start = self._at
        value = self._long(_LONG_BYTES)
        self._times.append(slice(start, self._at))
        self._fix(start, 0x81)  # the lowest bit is the sign
        for at in range(start + 1, self._at):
            self._fix(at, 0xFE if at - start == _LONG_BYTES - 1 else 0x80)
        self._format.append(f"{self._at - start}x")
        return value

    def boolean(self) -> bool:
        byte = self._constant(1)[0]
        if byte > 1:
            raise _malformed(f"a boolean is {byte}; 0 or 1 is accepted")
        return byte == 1

    def strings(self) -> tuple[str, ...]:
        """An array of strings: blocks of a count and as many items, until the count is 0."""
        start = self._at
        found: list[str] = []
        while count := self._long(_LONG_BYTES):
            if count < 0:  # then the length of the block in bytes follows, for readers that skip
                self._long(_LONG_BYTES)
            for _ in range(abs(count)):
                text, self._at = string_at(self._body, self._at)
                found.append(text)
        length, self._at = self._at - start, start
        self._constant(length)
        return tuple(found)

    def present(self) -> bool:
        """The branch of a nullable signal."""
        branch = self._constant(1)[0]
        if branch not in (_NULL, _VALUE):
            raise _malformed(f"the branch of a signal is {branch}; {_NULL} or {_VALUE} is accepted")
        return branch == _VALUE

    def number(self) -> float:
        at = self._at
        self._take(4)
        self._keep[at + 2], self._keep[at + 3] = 0x80, 0x7F  # the exponent
        self._carry[at + 2] = 0x80
        self._check[at + 3] = 0x80
        self._format.append("f")
        value: float = _FLOAT(self._body, at)[0]
        return value

    def integer(self) -> int:
        start = self._at
        value = self._long(_INT_BYTES)
        width = self._at - start
        for at in range(start, self._at):
            self._fix(at, 0xF0 if at - start == _INT_BYTES - 1 else 0x80)
        self._format.append("B" if width == 1 else "H" if width == 2 else f"{width}s")
        return value

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._body):
            raise _malformed(f"{len(self._body) - self._at} bytes are left behind the record")

    def shape(self, sample: Sample) -> _Shape:
        """What all records like this one have in common."""
        keep, check = _bytes_to_int(self._keep, "little"), _bytes_to_int(self._check, "little")
        codes = [code for code in self._format[1:] if not code.endswith("x")]
        widths = tuple(time.stop - time.start for time in self._times)
        usual = widths[:2] == _HEAD_WIDTHS and widths[2] <= _SEQUENCE_BYTES
        return _Shape(
            keep=keep,
            carry=_bytes_to_int(self._carry, "little"),
            check=check,
            fixed=_bytes_to_int(self._body, "little") & keep & check,
            sequence=_sevens_mask(widths[2]) if usual else None,
            longs=tuple(
                (8 * time.start, _sevens_mask(width))
                for time, width in zip(self._times, widths, strict=True)
            ),
            names=sample.names,
            values=struct.Struct("".join(self._format)).unpack,
            ints=tuple(
                (index, _long_int if code.endswith("s") else _SHORT_INT)
                for index, code in enumerate(codes)
                if code != "f"
            ),
            assigned=sample.assigned,
            suspect=sample.suspect,
        )

    def _long(self, most: int) -> int:
        value, self._at = _long_at(self._body, self._at, most)
        return value

    def _constant(self, length: int) -> bytes:
        start = self._at
        data = self._take(length)
        self._keep[start : self._at] = self._check[start : self._at] = b"\xff" * length
        self._format.append(f"{length}x")
        return data

    def _take(self, length: int) -> bytes:
        start, end = self._at, self._at + length
        if end > len(self._body):
            raise _cut(self._body)
        self._at = end
        return self._body[start:end]

    def _fix(self, at: int, bits: int) -> None:
        self._keep[at] = self._check[at] = bits


def string_at(data: bytes, at: int) -> tuple[str, int]:
    """The string that begins at byte `at`, and where it ends. Raises `Malformed`."""
    length, start = _long_at(data, at, _LONG_BYTES)
    if length < 0:
        raise _malformed(f"the length of a string is {length}")
    end = start + length
    if end > len(data):
        raise _cut(data)
    try:
        return str(data[start:end], "utf-8"), end
    except UnicodeDecodeError as error:
        raise _malformed("a string is not UTF-8") from error


def _long_at(data: bytes, at: int, most: int) -> tuple[int, int]:
    """The zigzag varint at `at` of at most `most` bytes (5: an int, 10: a long), and where it ends."""
    value = 0
    for shift in range(0, 7 * most, 7):
        if at >= len(data):
            raise _cut(data)
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> (32 if most == _INT_BYTES else 64):
                raise _malformed("an integer has more bits than its type")
            return value >> 1 ^ -(value & 1), at
    raise _malformed(f"an integer is longer than {most} bytes")


def _packed(word: int) -> int:
    """A varint of any length: 7 bits of each byte, the low ones first."""
    value = shift = 0
    while word:
        value |= (word & 0x7F) << shift
        word >>= 8
        shift += 7
    return value


def _long_int(data: bytes) -> int:
    rest = _packed(_bytes_to_int(data, "little"))
    return rest >> 1 ^ -(rest & 1)


def _sevens_mask(width: int) -> int:
    return _bytes_to_int(b"\x7f" * width, "little")


def _cut(data: bytes) -> Malformed:
    return _malformed(f"it ends at byte {len(data)}, within a field")


def _malformed(detail: str) -> Malformed:
    return Malformed(f"not Avro of this schema: {detail}", reason="malformed_avro")
