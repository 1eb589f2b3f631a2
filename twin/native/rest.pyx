# cython: language_level=3, cdivision=True
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
    ORIGIN_BYTES = 112
    HEAD_BYTES = 256
    VALUES_BYTES = 4096
    MAX_DIGITS = 18
    MAX_NUMBER_BYTES = 32

NEW, LATE, DUPLICATE, REPEATED = 1, 2, 3, 4
UNHEARD, STALE = -1, -2
cdef int64_t _UNHEARD = UNHEARD, _STALE = STALE
cdef int _NEW = NEW, _LATE = LATE, _DUPLICATE = DUPLICATE, _REPEATED = REPEATED

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef const char* _SUSPECT = b',"q":"suspect"}'
cdef Py_ssize_t _SUSPECT_BYTES = strlen(_SUSPECT) - 1
"""More than an origin without it."""
cdef object _dumps = orjson.dumps


cdef bytes _text(tuple values):
    """Values as JSON, joined by commas. Copied, because orjson's own bytes lie in front of a hole."""
    cdef bytes text = _dumps(values)
    return PyBytes_FromStringAndSize(PyBytes_AS_STRING(text) + 1, PyBytes_GET_SIZE(text) - 2)


cdef object _loads = orjson.loads


@cython.final
@cython.no_gc
cdef class Group:
    cdef public tuple names
    cdef public tuple values
    cdef public int64_t t
    cdef public int64_t n
    cdef public int64_t s
    cdef public int64_t o
    cdef public tuple suspect

    def __init__(
        self, tuple names, tuple values, int64_t t, int64_t n, int64_t s, int64_t o, tuple suspect=()
    ):
        self.names = names
        self.values = values
        self.t = t
        self.n = n
        self.s = s
        self.o = o
        self.suspect = suspect

    def copy(self):
        return Group(self.names, self.values, self.t, self.n, self.s, self.o, self.suspect)

    def __repr__(self):
        return f"Group{(self.names, self.values, self.t, self.n, self.s, self.o, self.suspect)}"


@cython.final
@cython.no_gc
cdef class Row:
    @property
    def version(self):
        return self.epoch, self.created, self.revision

    @property
    def seen(self):
        return self.heard if self.heard >= 0 else None


cdef struct Head:
    # Of a document what is in front of the vehicle id, between it and `applied`, and behind that.
    char[HEAD_BYTES] one
    char* one_end
    char[HEAD_BYTES] two
    char* two_end
    char[HEAD_BYTES] three
    char* three_end


@cython.final
@cython.no_gc
cdef class Packed:
    cdef int64_t _epoch, _created, _revision, _updated
    cdef int64_t _seen, _session
    cdef int64_t _partition, _offset
    cdef int64_t _late, _duplicates
    cdef int64_t _t, _n, _s, _o
    cdef readonly bytes applied
    cdef public bytes text
    cdef tuple _names
    cdef object _values
    cdef tuple _more
    cdef readonly object standing

    def __init__(self, tuple numbers, bytes applied, bytes text, list groups, standing):
        cdef Group newest
        (
            self._epoch, self._created, self._revision, self._updated, self._seen, self._session,
            self._partition, self._offset, self._late, self._duplicates,
        ) = numbers
        self.applied = applied
        self.text = text
        self.standing = standing
        self._names = None
        self._values = b""
        self._t = self._n = self._s = self._o = NONE
        if groups and not groups[-1].suspect:
            newest = groups[-1]
            self._names, self._values = newest.names, _text(newest.values)
            self._t, self._n, self._s, self._o = newest.t, newest.n, newest.s, newest.o
            self._more = tuple(groups[:-1])
        else:
            self._more = tuple(groups)

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

    def observe(self, Sample sample, int64_t partition, int64_t offset, int64_t at):
        cdef Group group
        cdef int same
        if self._offset >= offset and partition == self._partition:
            return _REPEATED
        if self._session == _STALE or sample.suspect or not sample.names:
            return None
        if self._names is sample.names:
            # All of its signals are here, so one comparison decides for all (law 1).
            same = _order(sample, self._t, self._n, self._s)
            if same == 0:
                if type(self._values) is tuple:
                    self._values = _text(<tuple>self._values)
                if self._values != _text(sample.values):
                    return None
                self._count(partition, offset, &self._duplicates)
                return _DUPLICATE
            if same < 0:
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

    cdef void _take(self, Sample sample, int64_t offset):
        self._values = sample.values
        self._t, self._n, self._s, self._o = (
            sample.event_time, sample.session, sample.sequence, offset
        )

    cdef void _count(self, int64_t partition, int64_t offset, int64_t* counted):
        """A record of which nothing is new."""
        self._partition = partition
        self._offset = offset
        if self._late == NONE:
            self._late = self._duplicates = 0
        counted[0] += 1

    def read_signals(self, bytes data not None, Py_ssize_t at):
        cdef Shape shape
        names = _names_in(data, at)
        if names is None:
            return False
        shape = _shape(names)
        if shape.count and not self._read(data, at, shape):
            return False
        self._names = shape.names if shape.count else None
        return True

    cdef bint _read(self, bytes data, Py_ssize_t begin, Shape shape) except -1:
        """Values and origin, if all signals have the same; the text is one that has these names."""
        cdef char[VALUES_BYTES] values
        cdef char* to = values
        cdef const char* at = PyBytes_AS_STRING(data) + begin
        cdef const char* end = PyBytes_AS_STRING(data) + PyBytes_GET_SIZE(data) - 2
        cdef const char* origin = NULL
        cdef const char* value
        cdef Py_ssize_t place, length = 0
        for place in range(shape.count):
            at += PyBytes_GET_SIZE(<bytes>shape.beginnings[place]) - (place == 0)
            value = at
            at = _number(at, end)
            if at == NULL or (at - value) + 1 > values + VALUES_BYTES - to:
                return False
            to = _put(to, value, at - value)
            to = _put(to, b",", 1)
            if origin == NULL:
                origin = at
                at = _member(at, end, b',"t":', &self._t)
                at = _member(at, end, b',"n":', &self._n)
                at = _member(at, end, b',"s":', &self._s)
                at = _member(at, end, b',"o":', &self._o)
                if at == NULL or at[0] != b"}":
                    return False
                at += 1
                length = at - origin
            elif end - at < length or memcmp(at, origin, length) != 0:
                return False
            else:
                at += length
        self._values = PyBytes_FromStringAndSize(values, to - 1 - values)
        return at == end

    cdef Group _group_of(self, tuple names):
        """Of a car whose records carry other signals in turn."""
        for group in self._more:
            if (<Group>group).names is names:
                return <Group>group
        return None

    cdef bint _is_newest(self, Sample sample):
        cdef Group group
        if _order(sample, self._t, self._n, self._s) <= 0:
            return False
        for one in self._more:
            group = <Group>one
            if _order(sample, group.t, group.n, group.s) <= 0:
                return False
        return True

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
        found = [((<Group>group).names, (<Group>group).values) for group in self._more]
        if self._names is not None:
            found.append((self._names, self._values_of()))
        return found

    def row(self, str vehicle_id):
        cdef Row row = Row.__new__(Row)
        row.values = self.values_of()
        row.epoch, row.created, row.revision = self._epoch, self._created, self._revision
        row.standing = self.standing
        row.heard = self._seen
        cdef Head head
        self._head(&head)
        columns = self._columns()
        row.document = self._write(vehicle_id, &head, columns, False)
        row.text = self._write(vehicle_id, &head, columns, True)
        return row

    def dump(self, str vehicle_id):
        cdef Head head
        self._head(&head)
        return self._write(vehicle_id, &head, self._columns(), False)

    def beginning(self, str vehicle_id):
        """Of the document what is in front of `text`."""
        cdef Head head
        self._head(&head)
        applied = self.applied if self._offset >= 0 else self.applied[1:]
        return b"".join((
            head.one[: head.one_end - head.one], vehicle_id.encode(),
            head.two[: head.two_end - head.two], applied,
            head.three[: head.three_end - head.three],
        ))

    cdef int _head(self, Head* head) except -1:
        cdef char* at = say(head.one, b'{"epoch":', self._epoch)
        head.one_end = _put(at, b',"vehicle_id":"', 15)
        at = say(head.two, b'","revision":', self._revision)
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
        head.two_end = at
        at = _put(head.three, b'},"presence":{', 14)
        if self._seen >= 0:
            at = say(at, b'"seen":', self._seen)
            at = _put(at, b",", 1)
        head.three_end = at
        return 0

    cdef list _columns(self):
        """What came in the same record; that of `_names` is the last."""
        cdef list columns = []
        cdef Column column
        cdef Group group
        for one in self._more:
            group = <Group>one
            column = _column(group.names, _text(group.values), group.suspect)
            column.place(group.t, group.n, group.s, group.o)
            columns.append(column)
        if self._names is not None:
            if type(self._values) is tuple:
                self._values = _text(<tuple>self._values)
            column = _column(self._names, <bytes>self._values, ())
            column.place(self._t, self._n, self._s, self._o)
            columns.append(column)
        return columns

    cdef bytes _write(self, str vehicle_id, Head* head, list columns, bint stored):
        """The document as it is dumped, or as the view stores it."""
        cdef Py_ssize_t size, length
        cdef bytes made
        cdef char* to
        cdef Column column
        cdef const char* of = PyUnicode_AsUTF8AndSize(vehicle_id, &length)
        cdef const char* applied = PyBytes_AS_STRING(self.applied)
        cdef Py_ssize_t others = PyBytes_GET_SIZE(self.applied)
        cdef bint first = True
        if others and self._offset < 0:
            applied += 1
            others -= 1
        size = (
            (head.one_end - head.one) + length + (head.two_end - head.two) + others
            + (head.three_end - head.three) + PyBytes_GET_SIZE(self.text)
        )
        for one in columns:
            column = <Column>one
            size += column.stored_size() if stored else column.size()
        if not columns:
            size += 2
        elif not stored:
            size += 1  # }} without the comma in front of the first
        made = PyBytes_FromStringAndSize(NULL, size)
        to = _put(PyBytes_AS_STRING(made), head.one, head.one_end - head.one)
        to = _put(to, of, length)
        to = _put(to, head.two, head.two_end - head.two)
        to = _put(to, applied, others)
        to = _put(to, head.three, head.three_end - head.three)
        to = _put(to, PyBytes_AS_STRING(self.text), PyBytes_GET_SIZE(self.text))
        for one in columns:
            column = <Column>one
            to = column.store(to) if stored else column.write(to, first)
            first = False
        if not stored or not columns:
            to = _put(to, b"}}", 2)
        if to != PyBytes_AS_STRING(made) + size:
            raise AssertionError("a document has not the length that was calculated")
        return made


cdef inline int _order(Sample sample, int64_t t, int64_t n, int64_t s):
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

    def __init__(self, tuple names):
        self.names = names
        self.beginnings = [b',%b:{"v":' % _dumps(name) for name in names]
        self.listed = _dumps(names)
        self.count = len(names)
        self.size = sum(map(len, self.beginnings))


cdef tuple _names_in(bytes data, Py_ssize_t begin):
    """Names of the members of `reported`, which are the last of a document; None if they have other text.

    A name is what is between the end of a signal, or the beginning, and `:{"v":`.
    """
    cdef const char* start = PyBytes_AS_STRING(data)
    cdef const char* end = start + PyBytes_GET_SIZE(data) - 2
    cdef const char* at = start + begin
    cdef const char* close
    cdef bytes beginning
    cdef Py_ssize_t place, length
    cdef list names
    if at > end or memcmp(end, b"}}", 2) != 0:
        return None
    # Nearly always they are those of the document before.
    for place in range(_last.count):
        beginning = <bytes>_last.beginnings[place]
        length = PyBytes_GET_SIZE(beginning) - (place == 0)
        if end - at < length or memcmp(at, PyBytes_AS_STRING(beginning) + (place == 0), length):
            break
        at = <const char*>memchr(at + length, b"}", end - at - length)
        if at == NULL:
            return None
        at += 1
    else:
        if at == end:
            return _last.names
    names = []
    at = start + begin
    while at < end:
        if names:
            if at[0] != b",":
                return None
            at += 1
        if at[0] != b'"':
            return None
        close = <const char*>memchr(at + 1, b'"', end - at - 1)
        if close == NULL or end - close < 7 or memcmp(close, b'":{"v":', 7) != 0:
            return None
        if memchr(at, b"\\", close - at) != NULL:
            return None
        names.append((at + 1)[: close - at - 1].decode("utf-8"))
        at = <const char*>memchr(close + 7, b"}", end - close - 7)
        if at == NULL:
            return None
        at += 1
    return shared_names(tuple(names))


cdef const char* _number(const char* at, const char* end):
    """Behind the number of JSON at `at` (RFC 8259, section 6); NULL if there is none, or a long one.

    Those are left to the parser, which knows whether they are finite.
    """
    cdef const char* start
    cdef const char* first = at
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


cdef const char* _digits(const char* at, const char* end):
    while at < end and b"0" <= at[0] <= b"9":
        at += 1
    return at


cdef const char* _member(const char* at, const char* end, const char* name, int64_t* number):
    """Behind `name` and the integer that follows it; NULL if there is no such."""
    cdef Py_ssize_t length = strlen(name)
    cdef const char* start
    cdef int64_t found = 0
    cdef bint negative
    if at == NULL or end - at <= length or memcmp(at, name, length) != 0:
        return NULL
    at += length
    negative = at[0] == b"-"
    start = at + negative
    at = _digits(start, end)
    if at == start or at - start > MAX_DIGITS or (start[0] == b"0" and at - start > 1):
        return NULL
    while start < at:
        found = 10 * found + (start[0] - 48)
        start += 1
    number[0] = -found if negative else found
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
    cdef tuple suspect
    cdef char[ORIGIN_BYTES] origin
    cdef Py_ssize_t length

    cdef int place(self, int64_t t, int64_t n, int64_t s, int64_t o) except -1:
        cdef char* at = say(self.origin, b',"t":', t)
        at = say(at, b',"n":', n)
        at = say(at, b',"s":', s)
        at = say(at, b',"o":', o)
        self.length = _put(at, b"}", 1) - self.origin
        return 0

    cdef Py_ssize_t size(self):
        """Each signal with a comma in front."""
        cdef Py_ssize_t values = PyBytes_GET_SIZE(self.values) + 1 - self.shape.count
        return (
            self.shape.size + values + self.shape.count * self.length + len(self.suspect) * _SUSPECT_BYTES
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
            if self.suspect and self.shape.names[place] in self.suspect:
                to = _put(to, self.origin, self.length - 1)
                to = _put(to, _SUSPECT, _SUSPECT_BYTES + 1)
            else:
                to = _put(to, self.origin, self.length)
        return to

    cdef Py_ssize_t stored_size(self):
        if self.suspect:
            return self.size()
        return (
            1 + PyBytes_GET_SIZE(self.shape.listed) + 1 + PyBytes_GET_SIZE(self.values) + 1
            + self.length
        )

    cdef char* store(self, char* to) except NULL:
        to[0] = 0
        if self.suspect:
            return self.write(to + 1, True)
        to = _put(to + 1, PyBytes_AS_STRING(self.shape.listed), PyBytes_GET_SIZE(self.shape.listed))
        to[0] = 1
        to = _put(to + 1, PyBytes_AS_STRING(self.values), PyBytes_GET_SIZE(self.values))
        to[0] = 1
        return _put(to + 1, self.origin, self.length)


cdef Column _column(tuple names, bytes values, tuple suspect):
    cdef Column column = Column.__new__(Column)
    column.shape = _shape(names)
    column.values = values
    column.suspect = suspect
    return column


cdef char* say(char* to, const char* name, int64_t number):
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


cdef inline char* _put(char* to, const char* data, Py_ssize_t size):
    memcpy(to, data, size)
    return to + size


def without(groups, tuple taken):
    cdef list left = []
    cdef Group group
    cdef tuple places, names
    for one in groups:
        group = <Group>one
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
