# Rows for Redis, framed as `feature_repo.layout` frames them. Included by `kernel.pyx`; after `batches.pxi`.

cdef enum:
    BYTES_TAG = 0x0A            # of Feast's values and of protobuf's times: `feature_repo.layout`
    INT64_TAG = 0x20
    SECONDS_TAG = 0x08
    NANOS_TAG = 0x10

cdef inline uint8_t* put_rank_half(uint8_t* at, uint64_t value) noexcept nogil:
    cdef int i
    for i in range(8):
        at[i] = <uint8_t>(value >> (56 - 8 * i))
    return at + 8

cdef inline bytes hash_key(bytes head, bytes key, bytes tail):
    cdef Py_ssize_t before = PyBytes_GET_SIZE(head), size = PyBytes_GET_SIZE(key), after = PyBytes_GET_SIZE(tail)
    cdef uint32_t length = <uint32_t>size
    cdef bytes made = PyBytes_FromStringAndSize(NULL, before + 4 + size + after)
    cdef char* at = PyBytes_AS_STRING(made)
    memcpy(at, PyBytes_AS_STRING(head), before)
    memcpy(at + before, &length, 4)
    memcpy(at + before + 4, PyBytes_AS_STRING(key), size)
    memcpy(at + before + 4 + size, PyBytes_AS_STRING(tail), after)
    return made

cdef inline bytes bytes_value(bytes data):
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
    cdef bytes made = PyBytes_FromStringAndSize(NULL, 1 + varint_size(size) + size)
    cdef uint8_t* at = <uint8_t*>PyBytes_AS_STRING(made)
    at[0] = BYTES_TAG
    memcpy(put_varint(at + 1, size), PyBytes_AS_STRING(data), size)
    return made


def stored(kind, tuple names, bytes head, bytes tail, list rows):
    """[`kind` of (hash key, rank, names, values)] of (key, state), and their arrivals; `head` and `tail` enclose a key.

    Raises `ValueError` with the key and the bytes that are no state.
    """
    cdef bytes key, data
    cdef uint8_t[32] room
    cdef uint8_t* at
    cdef const uint8_t* state
    cdef int64_t version, event_time
    new, made, arrivals = tuple.__new__, [], []
    for key, data in rows:
        if key is None or data is None or PyBytes_GET_SIZE(data) < HEADER or memcmp(PyBytes_AS_STRING(data), b"fs\x04", 3) != 0:
            raise ValueError(key, data)
        state = <const uint8_t*>PyBytes_AS_STRING(data)
        version, event_time = i64(state + 4), i64(state + 12)
        if version < -1 or event_time < 0:
            raise ValueError(key, data)
        put_rank_half(put_rank_half(room, version + 1), event_time)
        rank = PyBytes_FromStringAndSize(<char*>room, 16)
        at = room
        if event_time >= 1_000_000:
            at[0] = SECONDS_TAG
            at = put_varint(at + 1, event_time // 1_000_000)
        if event_time % 1_000_000:
            at[0] = NANOS_TAG
            at = put_varint(at + 1, event_time % 1_000_000 * 1_000)
        time = PyBytes_FromStringAndSize(<char*>room, at - room)
        room[0] = INT64_TAG
        at = put_varint(room + 1, <uint64_t>version)
        values = time, bytes_value(data), PyBytes_FromStringAndSize(<char*>room, at - room)
        made.append(new(kind, (hash_key(head, key, tail), rank, names, values)))
        arrivals.append(i64(state + 20))
    return made, arrivals
