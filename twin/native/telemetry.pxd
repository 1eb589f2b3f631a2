from libc.stdint cimport int64_t


cdef class Sample:
    cdef public str vehicle_id
    cdef public int64_t event_time
    cdef public int64_t session
    cdef public int64_t sequence
    cdef readonly tuple names
    cdef readonly tuple values
    cdef public bint assigned
    cdef public tuple suspect
    cdef readonly bint plain
