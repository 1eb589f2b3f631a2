# cython: language_level=3, auto_pickle=False
"""What the lists of the view have of a twin, and what of it has moved since it was told last.

A number is told to its order only when it has moved by more than its lag; of most records none has.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.math cimport INFINITY, isfinite
from libc.stdint cimport int64_t

from twin.native.rest cimport Row, say

cdef enum:
    MAX_NUMBERS = 32
    MAX_SHAPES = 1024
    HEAD_BYTES = 256


@cython.final
@cython.no_gc
cdef class Last:
    cdef int64_t epoch, created, revision
    cdef readonly object standing
    cdef readonly bytes ending
    cdef double[MAX_NUMBERS] scores

    def newer_than(self, Row row not None):
        if row.epoch != self.epoch:
            return row.epoch < self.epoch
        if row.created != self.created:
            return row.created < self.created
        return row.revision < self.revision


@cython.final
cdef class Index:
    cdef tuple _names
    cdef double[MAX_NUMBERS] _lags
    cdef Py_ssize_t _count
    cdef dict _places
    cdef tuple _last_names
    cdef list _last_places

    def __cinit__(self, tuple names not None, tuple lags not None):
        if len(lags) != len(names) + 1 or len(lags) > MAX_NUMBERS:
            raise ValueError(f"{len(lags)} lags of {len(names)} signals and the time")
        self._names = names
        self._count = len(lags)
        for place, lag in enumerate(lags):
            self._lags[place] = lag
        self._places = {}

    def numbers(self, Row row not None):
        cdef list numbers = [None] * self._count
        for names, values in row.values:
            for place, at in self._places_of(names):
                value = values[at]
                # Redis takes no NaN, and would then refuse the whole batch again and again. JSON has
                # null for it, in a document of somebody else.
                if value is not None and isfinite(value):
                    numbers[place] = value
        numbers[self._count - 1] = row.seen
        return numbers

    def last(self, Row row not None, bytes ending not None):
        cdef Last last = Last.__new__(Last)
        last.standing = row.standing
        last.ending = ending
        for place, number in enumerate(self.numbers(row)):
            last.scores[place] = INFINITY if number is None else number
        self._follow(row, last)
        return last

    def moved(self, Row row not None, Last last not None):
        cdef list moved = []
        cdef double by
        for place, number in enumerate(self.numbers(row)):
            if number is not None:
                by = <double>number - last.scores[place]
                if not -self._lags[place] <= by <= self._lags[place]:
                    last.scores[place] = number
                    moved.append((place, number))
        self._follow(row, last)
        return moved

    cdef void _follow(self, Row row, Last last) noexcept:
        last.epoch, last.created, last.revision = row.epoch, row.created, row.revision

    cdef list _places_of(self, tuple names):
        """Places among the numbers, and where a group of these names has them."""
        if names is self._last_names:
            return self._last_places
        places = self._places.get(names)
        if places is None:
            if len(self._places) >= MAX_SHAPES:
                self._places.clear()
            places = self._places[names] = [
                (place, names.index(name)) for place, name in enumerate(self._names) if name in names
            ]
        self._last_names = names
        self._last_places = <list>places
        return self._last_places


def before(bytes key not None, Row row not None, bytes ending not None):
    cdef char[HEAD_BYTES] version, sizes
    cdef char* end = say(version, b"[", row.epoch)
    end = say(end, b",", row.created)
    end = say(end, b",", row.revision)
    end[0] = b","
    cdef bytes head = PyBytes_FromStringAndSize(version, end + 1 - version)
    end = say(sizes, b"\r\n$", len(key))
    cdef bytes one = PyBytes_FromStringAndSize(sizes, end - sizes)
    end = say(sizes, b"\r\n$", len(head) + len(ending) + len(row.text))
    end[0], end[1] = b"\r", b"\n"
    return b"".join((one, b"\r\n", key, PyBytes_FromStringAndSize(sizes, end + 2 - sizes), head, ending))
