# cython: language_level=3, cdivision=True, auto_pickle=False
"""A twin as it waits for its next record: numbers in a struct, values and all the rest as JSON.

    observe: telemetry that is all newer, or nothing new at all | dump, stored: its document

`twin.packed` says what must hold of it. Of 100,000 twins hardly one is in the processor's cache when its
record comes, so time goes by the number of objects that are touched.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, strlen

from twin.native.telemetry cimport Sample

import orjson

from twin.native.telemetry import shared_names

cdef enum:
    NONE = -1
    MAX_SHAPES = 1024
    HEAD_BYTES = 512
    ORIGIN_BYTES = 112
    VALUES_BYTES = 4096
    MAX_DIGITS = 18
    MAX_NUMBER_BYTES = 32

cdef enum Told:
    _NEW = 1
    _LATE = 2
    _DUPLICATE = 3
    _REPEATED = 4

cdef enum Session:
    _UNHEARD = -1
    _STALE = -2

NEW, LATE, DUPLICATE, REPEATED = _NEW, _LATE, _DUPLICATE, _REPEATED
UNHEARD, STALE = _UNHEARD, _STALE

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef const char* _SUSPECT = b',"q":"suspect"'
cdef Py_ssize_t _SUSPECT_BYTES = strlen(_SUSPECT)
cdef int64_t _MAX_COUNT = 2**62
cdef object _dumps = orjson.dumps, _loads = orjson.loads


cdef bytes _json_of(tuple values):
    """Values as JSON, joined by commas. Copied, because orjson's own bytes lie in front of a hole."""
    cdef bytes text = _dumps(values)
    return PyBytes_FromStringAndSize(PyBytes_AS_STRING(text) + 1, PyBytes_GET_SIZE(text) - 2)


cdef int64_t _integer(number) except? -1:
    """C would take a float, too, and cut it."""
    if type(number) is not int:
        raise TypeError(f"{number!r:.40} is no integer")
    return number


@cython.final
@cython.no_gc
cdef class Group:
    cdef readonly tuple names
    cdef public tuple values
    cdef public int64_t t
    cdef public int64_t n
    cdef public int64_t s
    cdef public int64_t o
    cdef public tuple suspect

    def __init__(
        self, tuple names not None, tuple values not None, t, n, s, o, tuple suspect not None=()
    ):
        self.names = names
        self.values = values
        self.t = _integer(t)
        self.n = _integer(n)
        self.s = _integer(s)
        self.o = _integer(o)
        self.suspect = suspect

    def __reduce__(self):
        return Group, (self.names, self.values, self.t, self.n, self.s, self.o, self.suspect)

    def copy(self):
        return Group(self.names, self.values, self.t, self.n, self.s, self.o, self.suspect)

    def __repr__(self):
        return f"Group{self.__reduce__()[1]}"


@cython.final
@cython.no_gc
cdef class Row:
    @property
    def version(self):
        return self.epoch, self.created, self.revision

    @property
    def seen(self):
        return self.heard if self.heard >= 0 else None


@cython.final
@cython.no_gc
cdef class Packed:
    cdef int64_t _epoch, _created, _revision, _updated
    cdef int64_t _seen, _session
    cdef int64_t _partition, _offset
    cdef int64_t _late, _duplicates
    cdef int64_t _t, _n, _s, _o
    cdef readonly bytes applied
    cdef bytes _text
    cdef tuple _names
    cdef object _values
    cdef tuple _more
    cdef readonly object standing

    def __cinit__(
        self, tuple numbers not None, bytes applied not None, bytes text not None,
        list groups not None, standing,
    ):
        cdef Group group
        for number in numbers:
            _integer(number)
        (
            self._epoch, self._created, self._revision, self._updated, self._seen, self._session,
            self._partition, self._offset, self._late, self._duplicates,
        ) = numbers
        if max(self._revision, self._late, self._duplicates) > _MAX_COUNT:
            raise OverflowError("a revision or count that cannot grow")
        self.applied = applied
        self._text = text
        self.standing = standing
        self._values = b""
        self._t = self._n = self._s = self._o = NONE
        for one in groups:
            group = <Group?>one
        if groups and not group.suspect:
            self._names, self._values = group.names, _json_of(group.values)
            self._t, self._n, self._s, self._o = group.t, group.n, group.s, group.o
            groups = groups[:-1]
        self._more = tuple(groups)

    @property
    def text(self):
        return self._text

    @text.setter
    def text(self, bytes text not None):
        self._text = text

    @property
    def numbers(self):
        return (
            self._epoch, self._created, self._revision, self._updated, self._seen, self._session,
            self._partition, self._offset, self._late, self._duplicates,
        )

    @property
    def version(self):
        return self._epoch, self._created, self._revision

    @property
    def seen(self):
        return self._seen if self._seen >= 0 else None

    def written_by(self, int64_t epoch):
        self._epoch = epoch

    def observe(self, Sample sample not None, int64_t partition, int64_t offset, int64_t at):
        cdef Group group
        cdef int order
        if self._offset >= offset and partition == self._partition:
            return _REPEATED
        if self._session == _STALE or sample.suspect or not sample.names:
            return None
        if self._names is sample.names:
            # All of its signals are here, so one comparison decides for all (law 1).
            order = _order(sample, self._t, self._n, self._s)
            if order == 0:
                if self._json() != _json_of(sample.values):
                    return None
                self._count(partition, offset, &self._duplicates)
                return _DUPLICATE
            if order < 0:
                self._count(partition, offset, &self._late)
                return _LATE
            self._take(sample, offset)
        else:
            group = self._group_of(sample.names)
            if group is not None:
                if _order(sample, group.t, group.n, group.s) <= 0:
                    return None
                group.values, group.suspect = sample.values, ()
                group.t, group.n, group.s, group.o = (
                    sample.event_time, sample.session, sample.sequence, offset
                )
            elif self._is_newest(sample):
                self._more = tuple(without(self.groups(), sample.names))
                self._names = sample.names
                self._take(sample, offset)
            else:
                return None
        if at > self._seen and self._session != _UNHEARD and sample.session in (0, self._session):
            self._seen = at
        self._partition = partition
        self._offset = offset
        self._revision += 1
        self._updated = at
        return _NEW

    cdef void _take(self, Sample sample, int64_t offset) noexcept:
        self._values = sample.values
        self._t, self._n, self._s, self._o = (
            sample.event_time, sample.session, sample.sequence, offset
        )

    cdef void _count(self, int64_t partition, int64_t offset, int64_t* counted) noexcept:
        """A record of which nothing is new."""
        self._partition = partition
        self._offset = offset
        if self._late == NONE:
            self._late = self._duplicates = 0
        counted[0] += 1

    def read_signals(self, bytes data not None, Py_ssize_t at):
        if at < 0 or at > PyBytes_GET_SIZE(data) - 2 or not data.endswith(b"}}"):
            return False
        # Nearly always they are those of the document before.
        if self._read(data, at, _last):
            return True
        names = _names_in(data, at)
        return names is not None and self._read(data, at, _shape(names))

    cdef bint _read(self, bytes data, Py_ssize_t begin, Shape shape) except -1:
        """Values and origin, if the signals are those of `shape` and all have the same origin."""
        cdef char[VALUES_BYTES] values
        cdef char* to = values
        cdef const char* at = PyBytes_AS_STRING(data) + begin
        cdef const char* end = PyBytes_AS_STRING(data) + PyBytes_GET_SIZE(data) - 2
        cdef const char* origin = NULL
        cdef const char* value
        cdef bytes beginning
        cdef Py_ssize_t place, skipped, length = 0
        cdef int64_t t = NONE, n = NONE, s = NONE, o = NONE
        if not shape.unique:
            return False  # a parser takes the last of them
        for place in range(shape.count):
            beginning = <bytes>shape.beginnings[place]
            skipped = place == 0  # the comma
            value = _behind(
                at, end, PyBytes_AS_STRING(beginning) + skipped, PyBytes_GET_SIZE(beginning) - skipped
            )
            at = _number(value, end)
            if at == NULL or at - value >= values + VALUES_BYTES - to:
                return False
            to = _put(to, value, at - value)
            to = _put(to, b",", 1)
            if origin == NULL:
                origin = at
                at = _member(at, end, b',"t":', &t)
                at = _member(at, end, b',"n":', &n)
                at = _member(at, end, b',"s":', &s)
                at = _member(at, end, b',"o":', &o)
                at = _behind(at, end, b"}", 1)
                length = at - origin
            else:
                at = _behind(at, end, origin, length)
            if at == NULL:
                return False
        if at != end:
            return False
        self._values = PyBytes_FromStringAndSize(values, to - values - (shape.count > 0))
        self._names = shape.names if shape.count else None
        self._t, self._n, self._s, self._o = t, n, s, o
        return True

    cdef Group _group_of(self, tuple names):
        """Of a car whose records carry other signals in turn."""
        for group in self._more:
            if (<Group>group).names is names:
                return <Group>group
        return None

    cdef bint _is_newest(self, Sample sample) except -1:
        cdef Group group
        if _order(sample, self._t, self._n, self._s) <= 0:
            return False
        for group in self._more:
            if _order(sample, group.t, group.n, group.s) <= 0:
                return False
        return True

    cdef bytes _json(self):
        """The values as text; kept so, because a twin rests much longer than it is looked at."""
        if type(self._values) is tuple:
            self._values = _json_of(<tuple>self._values)
        return <bytes>self._values

    cdef tuple _values_of(self):
        if type(self._values) is tuple:
            return <tuple>self._values
        return tuple(_loads(b"[%b]" % self._values))

    def groups(self):
        groups = list(self._more)
        if self._names is not None:
            groups.append(
                Group(self._names, self._values_of(), self._t, self._n, self._s, self._o)
            )
        return groups

    def values_of(self):
        cdef Group group
        cdef list found = []
        for group in self._more:
            found.append((group.names, group.values))
        if self._names is not None:
            found.append((self._names, self._values_of()))
        return found

    def row(self, str vehicle_id):
        cdef Row row = Row.__new__(Row)
        row.values = self.values_of()
        row.epoch, row.created, row.revision = self._epoch, self._created, self._revision
        row.standing = self.standing
        row.heard = self._seen
        beginning, columns = self.beginning(vehicle_id), self._columns()
        row.document = self._write(beginning, columns, False)
        row.text = self._write(beginning, columns, True)
        return row

    def dump(self, str vehicle_id):
        return self._write(self.beginning(vehicle_id), self._columns(), False)

    cpdef bytes beginning(self, str vehicle_id):
        """Of the document what is in front of `text`."""
        cdef char[HEAD_BYTES] head
        cdef char* behind_id
        cdef char* behind_applied
        cdef Py_ssize_t length
        cdef const char* of = PyUnicode_AsUTF8AndSize(vehicle_id, &length)
        cdef Py_ssize_t skipped = self._offset < 0 and PyBytes_GET_SIZE(self.applied) > 0  # the comma
        cdef Py_ssize_t others = PyBytes_GET_SIZE(self.applied) - skipped
        cdef char* at = say(head, b'{"epoch":', self._epoch)
        behind_id = at = _put(at, b',"vehicle_id":"', 15)
        at = say(at, b'","revision":', self._revision)
        at = say(at, b',"updated_at":', self._updated)
        if self._late != NONE:
            at = say(at, b',"counts":{"late":', self._late)
            at = say(at, b',"duplicates":', self._duplicates)
            at = _put(at, b"}", 1)
        at = _put(at, b',"applied":{', 12)
        if self._offset >= 0:
            at = say(at, b'"telemetry":[', self._partition)
            at = say(at, b",", self._offset)
            at = _put(at, b"]", 1)
        behind_applied = at
        at = _put(at, b'},"presence":{', 14)
        if self._seen >= 0:
            at = say(at, b'"seen":', self._seen)
            at = _put(at, b",", 1)
        cdef bytes made = PyBytes_FromStringAndSize(NULL, at - head + length + others)
        cdef char* to = _put(PyBytes_AS_STRING(made), head, behind_id - head)
        to = _put(to, of, length)
        to = _put(to, behind_id, behind_applied - behind_id)
        to = _put(to, PyBytes_AS_STRING(self.applied) + skipped, others)
        _put(to, behind_applied, at - behind_applied)
        return made

    cdef list _columns(self):
        """What came in the same record; that of `_names` is the last."""
        cdef list columns = []
        cdef Group group
        for group in self._more:
            columns.append(
                _column(
                    group.names, _json_of(group.values), group.t, group.n, group.s, group.o, group.suspect
                )
            )
        if self._names is not None:
            columns.append(
                _column(self._names, self._json(), self._t, self._n, self._s, self._o, ())
            )
        return columns

    cdef bytes _write(self, bytes beginning, list columns, bint stored):
        """The document as it is dumped, or as the view stores it."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(beginning) + PyBytes_GET_SIZE(self._text)
        cdef Column column
        cdef bytes made
        cdef char* to
        cdef bint first = True
        for column in columns:
            size += column.stored_size() if stored else column.size()
        if not columns:
            size += 2
        elif not stored:
            size += 1  # }} without the comma in front of the first
        made = PyBytes_FromStringAndSize(NULL, size)
        to = _put(PyBytes_AS_STRING(made), PyBytes_AS_STRING(beginning), PyBytes_GET_SIZE(beginning))
        to = _put(to, PyBytes_AS_STRING(self._text), PyBytes_GET_SIZE(self._text))
        for column in columns:
            to = column.store(to) if stored else column.write(to, first)
            first = False
        if not stored or not columns:
            to = _put(to, b"}}", 2)
        if to != PyBytes_AS_STRING(made) + size:
            raise AssertionError("a document has not the length that was calculated")
        return made


cdef inline int _order(Sample sample, int64_t t, int64_t n, int64_t s) noexcept:
    """Whether a sample is older, of the same time, or newer: below, equal or above 0 (law 1)."""
    if sample.event_time != t:
        return 1 if sample.event_time > t else -1
    if sample.session != n:
        return 1 if sample.session > n else -1
    if sample.sequence != s:
        return 1 if sample.sequence > s else -1
    return 0


@cython.final
@cython.no_gc
cdef class Shape:
    """Names of signals that came together, as documents say them."""
    cdef tuple names
    cdef list beginnings
    cdef bytes listed
    cdef Py_ssize_t count, size
    cdef bint unique

    def __init__(self, tuple names):
        self.names = names
        self.beginnings = [b',%b:{"v":' % _dumps(name) for name in names]
        self.listed = _dumps(names)
        self.count = len(names)
        self.unique = len(set(names)) == len(names)
        self.size = sum(map(len, self.beginnings))


cdef tuple _names_in(bytes data, Py_ssize_t begin):
    """Names of the signals of a document that is written as ours are; of another one any, or None."""
    cdef const char* end = PyBytes_AS_STRING(data) + PyBytes_GET_SIZE(data) - 2
    cdef const char* at = PyBytes_AS_STRING(data) + begin
    cdef const char* close
    cdef list names = []
    while at < end:
        at += 1  # the quotation mark
        close = <const char*>memchr(at, b'"', end - at)
        if close == NULL:
            return None
        names.append(at[: close - at].decode("utf-8", "replace"))
        at = <const char*>memchr(close, b"}", end - close)
        if at == NULL:
            return None
        at += 2  # behind the comma
    return shared_names(tuple(names))


cdef const char* _behind(const char* at, const char* end, const char* text, Py_ssize_t length) noexcept:
    """Behind `text`; NULL if it is not at `at`."""
    if at == NULL or end - at < length or memcmp(at, text, length) != 0:
        return NULL
    return at + length


cdef const char* _number(const char* at, const char* end) noexcept:
    """Behind the number of JSON at `at` (RFC 8259, section 6); NULL if there is none, or a long one.

    Those are left to the parser, which knows whether they are finite.
    """
    cdef const char* start
    cdef const char* first = at
    if at == NULL:
        return NULL
    if at < end and at[0] == b"-":
        at += 1
    start = at
    at = _digits(at, end)
    if at == start or (start[0] == b"0" and at - start > 1):
        return NULL
    if at < end and at[0] == b".":
        start = at + 1
        at = _digits(start, end)
        if at == start:
            return NULL
    if at < end and (at[0] == b"e" or at[0] == b"E"):
        at += 1
        if at < end and (at[0] == b"+" or at[0] == b"-"):
            at += 1
        start = at
        at = _digits(start, end)
        if at == start or at - start > 2:
            return NULL
    return at if at - first <= MAX_NUMBER_BYTES else NULL


cdef const char* _digits(const char* at, const char* end) noexcept:
    while at < end and b"0" <= at[0] <= b"9":
        at += 1
    return at


cdef const char* _member(const char* at, const char* end, const char* name, int64_t* number) noexcept:
    """Behind `name` and the natural number that follows it; NULL if there is no such, or a long one."""
    cdef const char* start = _behind(at, end, name, strlen(name))
    cdef int64_t found = 0
    if start == NULL:
        return NULL
    at = _digits(start, end)
    if at == start or at - start > MAX_DIGITS or (start[0] == b"0" and at - start > 1):
        return NULL
    while start < at:
        found = 10 * found + (start[0] - 48)
        start += 1
    number[0] = found
    return at


cdef dict _shapes = {}
cdef Shape _last = Shape(())


cdef Shape _shape(tuple names):
    global _last
    if _last.names is names:
        return _last
    shape = _shapes.get(names)
    if shape is None:
        if len(_shapes) >= MAX_SHAPES:
            _shapes.clear()
        shape = _shapes[names] = Shape(names)
    _last = <Shape>shape
    return _last


@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class Column:
    """Signals of one record on their way into a document."""
    cdef Shape shape
    cdef bytes values
    cdef char[ORIGIN_BYTES] origin
    cdef Py_ssize_t length
    cdef tuple suspect
    cdef Py_ssize_t suspects

    cdef Py_ssize_t size(self) noexcept:
        """Each signal with a comma in front."""
        cdef Py_ssize_t values = PyBytes_GET_SIZE(self.values) + 1 - self.shape.count
        return (
            self.shape.size + values + self.shape.count * self.length + self.suspects * _SUSPECT_BYTES
        )

    cdef char* write(self, char* to, bint first) except NULL:
        cdef const char* at = PyBytes_AS_STRING(self.values)
        cdef const char* end = at + PyBytes_GET_SIZE(self.values)
        cdef const char* comma
        cdef bytes beginning
        cdef Py_ssize_t place, skipped = first
        for place in range(self.shape.count):
            beginning = <bytes>self.shape.beginnings[place]
            to = _put(
                to, PyBytes_AS_STRING(beginning) + skipped, PyBytes_GET_SIZE(beginning) - skipped
            )
            skipped = 0
            comma = <const char*>memchr(at, b",", end - at)
            if (comma == NULL) != (place == self.shape.count - 1):
                raise ValueError("there are not as many values as signals")
            if comma == NULL:
                comma = end
            to = _put(to, at, comma - at)
            at = comma + 1
            if self.suspects and self.shape.names[place] in self.suspect:
                to = _put(to, self.origin, self.length - 1)
                to = _put(to, _SUSPECT, _SUSPECT_BYTES)
                to = _put(to, b"}", 1)
            else:
                to = _put(to, self.origin, self.length)
        return to

    cdef Py_ssize_t stored_size(self) noexcept:
        if self.suspects:
            return self.size()
        return (
            1 + PyBytes_GET_SIZE(self.shape.listed) + 1 + PyBytes_GET_SIZE(self.values) + 1
            + self.length
        )

    cdef char* store(self, char* to) except NULL:
        to[0] = 0
        if self.suspects:
            return self.write(to + 1, True)
        to = _put(to + 1, PyBytes_AS_STRING(self.shape.listed), PyBytes_GET_SIZE(self.shape.listed))
        to[0] = 1
        to = _put(to + 1, PyBytes_AS_STRING(self.values), PyBytes_GET_SIZE(self.values))
        to[0] = 1
        return _put(to + 1, self.origin, self.length)


cdef Column _column(
    tuple names, bytes values, int64_t t, int64_t n, int64_t s, int64_t o, tuple suspect
):
    cdef Column column = Column.__new__(Column)
    cdef char* at = say(column.origin, b',"t":', t)
    at = say(at, b',"n":', n)
    at = say(at, b',"s":', s)
    at = say(at, b',"o":', o)
    column.length = _put(at, b"}", 1) - column.origin
    column.shape = _shape(names)
    column.values = values
    column.suspect = suspect
    column.suspects = 0
    if suspect:  # as a sample names them: perhaps twice
        for name in names:
            column.suspects += name in suspect
    return column


cdef char* say(char* to, const char* name, int64_t number) noexcept:
    """A member of JSON."""
    cdef char[20] digits
    cdef int left = 20
    cdef uint64_t rest = <uint64_t>number
    to = _put(to, name, strlen(name))
    if number < 0:
        to = _put(to, b"-", 1)
        rest = 0 - rest
    while True:
        left -= 1
        digits[left] = 48 + rest % 10
        rest //= 10
        if rest == 0:
            return _put(to, digits + left, 20 - left)


cdef inline char* _put(char* to, const char* data, Py_ssize_t size) noexcept:
    memcpy(to, data, size)
    return to + size


def without(groups, tuple taken not None):
    cdef list left = []
    cdef Group group
    cdef tuple places, names
    for one in groups:
        group = <Group?>one
        places, names = _left(group.names, taken)
        if places:
            left.append(
                Group(
                    names, tuple([group.values[place] for place in places]),
                    group.t, group.n, group.s, group.o,
                    tuple([name for name in group.suspect if name in names]),
                )
            )
    return left


cdef dict _lefts = {}


cdef tuple _left(tuple names, tuple taken):
    """Places of the names that are not taken, and these names."""
    both = names, taken
    found = _lefts.get(both)
    if found is None:
        if len(_lefts) >= MAX_SHAPES:
            _lefts.clear()
        places = tuple([place for place, name in enumerate(names) if name not in taken])
        found = _lefts[both] = places, shared_names(tuple([names[place] for place in places]))
    return <tuple>found
