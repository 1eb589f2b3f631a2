# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True, auto_pickle=False
"""The telemetry of an ordinary car, from its JSON to framed Avro in one pass.

Ordinary is a flat object of known names, each once, with plain numbers within their range, and nothing
that Kafka's headers are told of. For all else `take` says None: then `wire.codec` reads the message,
judges it and says what is wrong. What `take` does say is byte for byte what `wire.codec` would: a
property test holds the two together. JSON: RFC 8259.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport fabs, floor
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

cdef extern from "Python.h":
    double PyOS_string_to_double(const char* text, char** end, void* overflow) except? -1.0

ctypedef const unsigned char* Bytes

cdef enum:
    EVENT_TIME = 0
    SESSION = 1
    SEQUENCE = 2
    VEHICLE_ID = 3
    HELD_FROM = 4  # for the bridge alone (ingest.acks)
    HEADER = 5
    MAX_NAMES = 261
    MAX_VEHICLE_ID = 64
    MAX_HEAD = 16
    # The head, the id, three numbers, two bytes; a branch and at most 5 bytes for each signal.
    MAX_BYTES = MAX_HEAD + 2 + MAX_VEHICLE_ID + 30 + 2 + 6 * MAX_NAMES
    # Digits of which each number fits into 64 bits, and decimal exponents that a double has exactly.
    MAX_DIGITS = 18
    MAX_POWER = 22

cdef double EXACT = 9007199254740992.0  # 2^53
cdef double INT32 = 2147483647.0
cdef double FLOAT32 = 3.4028234663852886e38
cdef double[MAX_POWER + 1] _powers
cdef int _power
_powers[0] = 1.0
for _power in range(MAX_POWER):
    _powers[_power + 1] = _powers[_power] * 10.0


cdef struct Number:
    double value
    int64_t whole
    bint is_whole  # written without fraction and exponent


@cython.final
cdef class Intake:
    cdef tuple _names
    cdef Bytes[MAX_NAMES] _texts
    cdef Py_ssize_t[MAX_NAMES] _sizes
    cdef int[MAX_NAMES] _next  # cars say the same names in the same order
    cdef double[MAX_NAMES] _low
    cdef double[MAX_NAMES] _high
    cdef bint[MAX_NAMES] _is_float
    cdef int _count
    cdef bytes _head
    cdef int64_t _ahead_ms

    def __cinit__(self, bytes head not None, signals, int64_t ahead_ms):
        cdef list rows = list(signals)
        cdef int place
        self._names = tuple(
            [b"event_time", b"session", b"sequence", b"vehicle_id", b"held_from"]
            + [name.encode() for name, *_ in rows]
        )
        self._count = len(self._names)
        if self._count > MAX_NAMES or len(head) > MAX_HEAD:
            raise ValueError(f"{len(rows)} signals and a head of {len(head)} bytes are too many")
        for place in range(self._count):
            name = self._names[place]
            self._texts[place] = <Bytes>PyBytes_AS_STRING(name)
            self._sizes[place] = PyBytes_GET_SIZE(name)
            self._next[place] = (place + 1) % self._count
            if place >= HEADER:
                _, self._is_float[place], self._low[place], self._high[place] = rows[place - HEADER]
        self._head = head
        self._ahead_ms = ahead_ms

    def take(self, bytes payload not None, bytes vehicle_id not None, int64_t at, int64_t counter):
        cdef Bytes text = <Bytes>PyBytes_AS_STRING(payload)
        cdef Bytes end = text + PyBytes_GET_SIZE(payload)
        cdef Py_ssize_t id_size = PyBytes_GET_SIZE(vehicle_id)
        cdef bint[MAX_NAMES] seen
        cdef double[MAX_NAMES] values
        cdef int64_t[HEADER] header
        cdef Number number
        cdef int place = self._count - 1
        cdef bint any_signal = False
        if id_size > MAX_VEHICLE_ID:
            return None
        memset(seen, 0, self._count * sizeof(bint))
        header[EVENT_TIME], header[SESSION], header[SEQUENCE] = at, 0, counter
        text = _behind_space(text, end)
        if text == end or text[0] != b"{":
            return None
        text = _behind_space(text + 1, end)
        while True:
            place = self._name(&text, end, place)
            if place < 0 or seen[place]:
                return None
            seen[place] = True
            text = _behind_space(text, end)
            if text == end or text[0] != b":":
                return None
            text = _behind_space(text + 1, end)
            if place == VEHICLE_ID:
                if end - text < id_size + 2 or text[0] != 34 or text[id_size + 1] != 34:
                    return None
                if memcmp(text + 1, PyBytes_AS_STRING(vehicle_id), id_size) != 0:
                    return None
                text += id_size + 2
            else:
                if not _read(&text, end, &number):
                    return None
                if place < HEADER:
                    if not number.is_whole or number.whole < 0:
                        return None
                    header[place] = number.whole
                else:
                    if not self._possible(place, &number):
                        return None
                    values[place] = number.value
                    any_signal = True
            text = _behind_space(text, end)
            if text == end:
                return None
            if text[0] == b",":
                text = _behind_space(text + 1, end)
            elif text[0] == b"}":
                break
            else:
                return None
        if _behind_space(text + 1, end) != end:
            return None
        if not any_signal or header[EVENT_TIME] > at + self._ahead_ms:
            return None
        return self._written(vehicle_id, header, seen, values)

    cdef int _name(self, Bytes* at, Bytes end, int last) noexcept:
        """Which name is at `at`, in quotes; -1 if it is none of ours."""
        cdef Bytes text = at[0]
        cdef Bytes name
        cdef Py_ssize_t size
        cdef int place = self._next[last]
        if text == end or text[0] != 34:
            return -1
        name = text + 1
        size = self._sizes[place]
        if end - name <= size or name[size] != 34 or memcmp(name, self._texts[place], size) != 0:
            text = name
            while text != end and text[0] != 34:
                text += 1
            size = text - name
            for place in range(self._count):
                if self._sizes[place] == size and memcmp(name, self._texts[place], size) == 0:
                    break
            else:
                return -1
            if text == end:
                return -1
            self._next[last] = place
        at[0] = name + size + 1
        return place

    cdef bint _possible(self, int place, Number* number) noexcept:
        cdef double value = number.value
        if not (self._low[place] <= value <= self._high[place]):
            return False
        if self._is_float[place]:
            return fabs(value) <= FLOAT32
        return fabs(value) <= INT32 and floor(value) == value

    cdef bytes _written(
        self, bytes vehicle_id, const int64_t* header, const bint* seen, const double* values
    ):
        cdef char[MAX_BYTES] record
        cdef char* to = record
        cdef Py_ssize_t size = PyBytes_GET_SIZE(vehicle_id)
        cdef float single
        cdef int place
        to = _put(to, PyBytes_AS_STRING(self._head), PyBytes_GET_SIZE(self._head))
        to = _long(to, size)
        to = _put(to, PyBytes_AS_STRING(vehicle_id), size)
        to = _long(to, header[EVENT_TIME])
        to = _long(to, header[SESSION])
        to = _long(to, header[SEQUENCE])
        to[0] = not (seen[EVENT_TIME] and seen[SEQUENCE])  # assigned
        to[1] = 0  # suspect: none
        to += 2
        for place in range(HEADER, self._count):
            if not seen[place]:
                to[0] = 0
                to += 1
                continue
            to[0] = 2
            if self._is_float[place]:
                single = <float>values[place]
                to = _put(to + 1, <const char*>&single, 4)
            else:
                to = _long(to + 1, <int64_t>values[place])
        return PyBytes_FromStringAndSize(record, to - record)


cdef inline Bytes _behind_space(Bytes text, Bytes end) noexcept:
    while text != end and (text[0] == 32 or text[0] == 10 or text[0] == 13 or text[0] == 9):
        text += 1
    return text


cdef inline bint _is_digit(Bytes text, Bytes end) noexcept:
    return text != end and 48 <= text[0] <= 57


cdef bint _read(Bytes* at, Bytes end, Number* number) except -1:
    """A number of JSON that is told apart exactly; false if it is none."""
    cdef Bytes text = at[0]
    cdef Bytes start = text
    cdef Bytes first
    cdef uint64_t digits = 0
    cdef int count = 0, power = 0, exponent = 0
    cdef bint negative = text != end and text[0] == b"-", shrinks = False
    text += negative
    if not _is_digit(text, end):
        return False
    first = text
    while _is_digit(text, end):
        if count < MAX_DIGITS + 1:
            digits = digits * 10 + (text[0] - 48)
        count += 1
        text += 1
    if first[0] == 48 and count > 1:
        return False
    number.is_whole = text == end or (text[0] != b"." and text[0] != b"e" and text[0] != b"E")
    if number.is_whole:
        # -0 is a number of its own where it is read as a float.
        if count > MAX_DIGITS or (negative and digits == 0):
            return False
        number.whole = -<int64_t>digits if negative else <int64_t>digits
        number.value = <double>number.whole
        at[0] = text
        return True
    if text[0] == b".":
        text += 1
        if not _is_digit(text, end):
            return False
        while _is_digit(text, end):
            if count < MAX_DIGITS + 1:
                digits = digits * 10 + (text[0] - 48)
            count += 1
            power -= 1
            text += 1
    if text != end and (text[0] == b"e" or text[0] == b"E"):
        text += 1
        if text != end and (text[0] == b"+" or text[0] == b"-"):
            shrinks = text[0] == b"-"
            text += 1
        if not _is_digit(text, end):
            return False
        while _is_digit(text, end):
            if exponent < 1000:
                exponent = exponent * 10 + (text[0] - 48)
            text += 1
        power += -exponent if shrinks else exponent
    at[0] = text
    if count <= MAX_DIGITS and <double>digits <= EXACT and -MAX_POWER <= power <= MAX_POWER:
        # One rounding of two exact numbers is the nearest double (Clinger 1990).
        number.value = <double>digits
        if power < 0:
            number.value /= _powers[-power]
        else:
            number.value *= _powers[power]
        if negative:
            number.value = -number.value
        return True
    # A payload ends with a NUL, as all bytes of Python do, so this stops within it.
    number.value = PyOS_string_to_double(<const char*>start, <char**>&first, NULL)
    return first == text


cdef inline char* _put(char* to, const char* data, Py_ssize_t size) noexcept:
    memcpy(to, data, size)
    return to + size


cdef inline char* _long(char* to, int64_t value) noexcept:
    """Zigzag, then 7 bits a byte, the low ones first."""
    cdef uint64_t rest = (<uint64_t>value << 1) ^ <uint64_t>(value >> 63)
    while rest >= 0x80:
        to[0] = <char>(rest & 0x7F | 0x80)
        to += 1
        rest >>= 7
    to[0] = <char>rest
    return to + 1
