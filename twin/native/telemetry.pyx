# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, auto_pickle=False
"""Avro of one telemetry record, read in one pass.

It knows what `wire.avro_writer` writes: the vehicle id, times, `assigned`, `suspect`, then signals of
type ["null", "float" | "int"]. Strict: whatever the bytes are, it gives a sample or raises ValueError
with what is wrong. It refuses what fastavro reads although no encoder writes it: ints of more than 32
and longs of more than 64 bits, negative lengths, a branch or boolean that is not one byte 0, 2 or 0, 1.
All else is read alike.
Encoding: https://avro.apache.org/docs/1.12.0/specification/#binary-encoding
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.float cimport PyFloat_FromDouble
from cpython.long cimport PyLong_FromLong
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.math cimport isfinite
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcmp, memcpy

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

ctypedef const unsigned char* Bytes

cdef enum:
    INT_BYTES = 5
    LONG_BYTES = 10
    MAX_SIGNALS = 1024
    MAX_SHAPES = 1024
    MAX_NAMES = 4096
    MAX_VEHICLE_ID = 64


@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class Sample:

    def __init__(
        self,
        str vehicle_id,
        int64_t event_time,
        int64_t session,
        int64_t sequence,
        tuple names not None,
        tuple values not None,
        bint assigned=False,
        tuple suspect not None=(),
    ):
        if len(names) != len(values):
            raise ValueError(f"{len(names)} names and {len(values)} values")
        self.vehicle_id = vehicle_id
        self.event_time = event_time
        self.session = session
        self.sequence = sequence
        self.names = names
        self.values = values
        self.assigned = assigned
        self.suspect = suspect
        self.plain = False

    def __eq__(self, other):
        if not isinstance(other, Sample):
            return NotImplemented
        return _fields(self) == _fields(other)

    __hash__ = None

    def __repr__(self):
        return "Sample" + repr(_fields(self))


cdef tuple _fields(Sample one):
    return (
        one.vehicle_id, one.event_time, one.session, one.sequence, one.names, one.values,
        one.assigned, one.suspect,
    )


@cython.final
cdef class Reader:
    cdef tuple _names
    cdef Py_ssize_t _count
    cdef unsigned char[MAX_SIGNALS] _is_float
    cdef dict _shapes
    cdef bytes _last
    cdef tuple _last_names

    def __cinit__(self, signals):
        cdef list kinds = [is_float for _, is_float in signals]
        self._names = tuple([name for name, _ in signals])
        self._count = len(self._names)
        if self._count > MAX_SIGNALS or self._count != len(kinds):
            raise ValueError(f"{self._count} signals; at most {MAX_SIGNALS} are accepted")
        for place, is_float in enumerate(kinds):
            self._is_float[place] = bool(is_float)
        self._shapes = {}
        self._last = b""
        self._last_names = ()

    def read(self, bytes data not None, Py_ssize_t at, str vehicle_id=None):
        cdef Bytes start = <Bytes>PyBytes_AS_STRING(data)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef Py_ssize_t place, present = 0
        cdef int branch
        cdef bint plain = True
        cdef float number
        # Not the reader's: making an object may run others' code, and so another read.
        cdef unsigned char[MAX_SIGNALS] branches
        cdef double[MAX_SIGNALS] values
        cdef Sample sample = Sample.__new__(Sample)
        if at < 0:
            raise ValueError(f"a record that begins at byte {at}")
        sample.vehicle_id = _vehicle(start, size, &at, vehicle_id)
        sample.event_time = _long(start, size, &at, LONG_BYTES)
        sample.session = _long(start, size, &at, LONG_BYTES)
        sample.sequence = _long(start, size, &at, LONG_BYTES)
        sample.assigned = _boolean(start, size, &at)
        sample.suspect = _strings(start, size, &at)
        for place in range(self._count):
            if at >= size:
                _cut(size)
            branch = start[at]
            at += 1
            branches[place] = branch
            if branch == 0:
                continue
            if branch != 2:
                raise ValueError(f"the branch of a signal is {branch}; 0 or 2 is accepted")
            if self._is_float[place]:
                if at + 4 > size:
                    _cut(size)
                memcpy(&number, start + at, 4)
                at += 4
                if not isfinite(number):
                    plain = False
                values[present] = number
            else:
                values[present] = <double>_long(start, size, &at, INT_BYTES)
            present += 1
        if at != size:
            raise ValueError(f"{size - at} bytes are left behind the record")
        sample.names = self._names_of(branches)
        sample.values = self._values_of(branches, values, present)
        sample.plain = (
            plain and sample.event_time >= 0 and sample.session >= 0 and sample.sequence >= 0
        )
        return sample

    cdef tuple _names_of(self, Bytes branches):
        """Cars say the same signals again and again: one object for all of them."""
        cdef bytes present
        cdef Py_ssize_t place
        if (
            PyBytes_GET_SIZE(self._last) == self._count
            and memcmp(PyBytes_AS_STRING(self._last), branches, self._count) == 0
        ):
            return self._last_names
        present = PyBytes_FromStringAndSize(<const char*>branches, self._count)
        names = self._shapes.get(present)
        if names is None:
            names = shared_names(
                tuple([self._names[place] for place in range(self._count) if branches[place]])
            )
            if len(self._shapes) >= MAX_SHAPES:
                self._shapes.clear()
            self._shapes[present] = names
        self._last = present
        self._last_names = names
        return names

    cdef tuple _values_of(self, Bytes branches, const double* numbers, Py_ssize_t present):
        cdef tuple values = PyTuple_New(present)
        cdef Py_ssize_t place, at = 0
        cdef object value
        for place in range(self._count):
            if branches[place]:
                if self._is_float[place]:
                    value = PyFloat_FromDouble(numbers[at])
                else:
                    value = PyLong_FromLong(<long>numbers[at])
                Py_INCREF(value)
                PyTuple_SET_ITEM(values, at, value)
                at += 1
        return values


def id_of_key(bytes key not None):
    cdef Bytes text = <Bytes>PyBytes_AS_STRING(key)
    cdef Py_ssize_t place, length = PyBytes_GET_SIZE(key)
    cdef unsigned char one
    if not 0 < length <= MAX_VEHICLE_ID:
        return None
    for place in range(length):
        one = text[place]
        if not (
            b"a" <= one <= b"z" or b"0" <= one <= b"9" or b"A" <= one <= b"Z"
            or one == b"-" or one == b"_" or one == b"."
        ):
            return None
    return _decoded(text, length)


cdef dict _names = {}


def shared_names(tuple names not None):
    if len(_names) >= MAX_NAMES:
        _names.clear()
    return _names.setdefault(names, names)


cdef str _vehicle(Bytes data, Py_ssize_t size, Py_ssize_t* at, str expected):
    """The string at `at`; the object `expected` if it is equal."""
    cdef Py_ssize_t length = _length(data, size, at), start = at[0], known
    cdef const char* text
    at[0] += length
    if expected is not None:
        text = PyUnicode_AsUTF8AndSize(expected, &known)
        if known == length and memcmp(text, data + start, length) == 0:
            return expected
    return _decoded(data + start, length)


cdef str _decoded(Bytes text, Py_ssize_t length):
    try:
        return PyUnicode_DecodeUTF8(<const char*>text, length, NULL)
    except UnicodeDecodeError:
        raise ValueError("a string is not UTF-8") from None


cdef Py_ssize_t _length(Bytes data, Py_ssize_t size, Py_ssize_t* at) except -1:
    """The length of a string, which is there as a whole."""
    cdef int64_t length = _long(data, size, at, LONG_BYTES)
    if length < 0:
        raise ValueError(f"the length of a string is {length}")
    if length > size - at[0]:
        _cut(size)
    return length


cdef tuple _strings(Bytes data, Py_ssize_t size, Py_ssize_t* at):
    """An array of strings: blocks of a count and as many items, until the count is 0."""
    cdef int64_t count
    cdef uint64_t left
    cdef Py_ssize_t length
    cdef list found
    if at[0] < size and data[at[0]] == 0:
        at[0] += 1
        return ()
    found = []
    while True:
        count = _long(data, size, at, LONG_BYTES)
        if count == 0:
            return tuple(found)
        if count < 0:  # then the length of the block in bytes follows, for readers that skip
            _long(data, size, at, LONG_BYTES)
        left = <uint64_t>count if count > 0 else 0 - <uint64_t>count
        while left > 0:  # each takes a byte at least, so this ends
            length = _length(data, size, at)
            found.append(_decoded(data + at[0], length))
            at[0] += length
            left -= 1


cdef bint _boolean(Bytes data, Py_ssize_t size, Py_ssize_t* at) except -1:
    if at[0] >= size:
        _cut(size)
    cdef int byte = data[at[0]]
    at[0] += 1
    if byte > 1:
        raise ValueError(f"a boolean is {byte}; 0 or 1 is accepted")
    return byte


cdef int64_t _long(Bytes data, Py_ssize_t size, Py_ssize_t* at, int most) except? -1:
    """The zigzag varint at `at` of at most `most` bytes."""
    cdef uint64_t value = 0
    cdef int place, byte
    for place in range(most):
        if at[0] >= size:
            _cut(size)
        byte = data[at[0]]
        at[0] += 1
        value |= <uint64_t>(byte & 0x7F) << (7 * place)
        if byte < 0x80:
            if place == most - 1 and byte > (0x0F if most == INT_BYTES else 0x01):
                raise ValueError("an integer has more bits than its type")
            return <int64_t>(value >> 1) ^ -<int64_t>(value & 1)
    raise ValueError(f"an integer is longer than {most} bytes")


cdef int _cut(Py_ssize_t size) except -1:
    raise ValueError(f"it ends at byte {size}, within a field")
