from libc.stdint cimport int64_t


cdef class Row:
    cdef int64_t epoch
    cdef int64_t created
    cdef int64_t revision
    cdef int64_t heard
    cdef readonly object standing
    cdef readonly list values
    cdef readonly bytes document
    cdef readonly bytes text


cdef char* say(char* to, const char* name, int64_t number) noexcept
