# Kafka's record batches (format 2), packed as aiokafka's `BatchBuilder` packs them. Included by `kernel.pyx`.

cdef enum:
    BATCH_HEADER = 61           # written by `streams.engine.batches`, which knows the producer
    SIDE_BY_SIDE = 32           # records whose places in memory are waited for together

cdef inline Py_ssize_t varint_size(uint64_t value) noexcept nogil:
    cdef Py_ssize_t size = 1
    while value > 0x7F:
        value >>= 7
        size += 1
    return size

cdef inline uint8_t* put_varint(uint8_t* at, uint64_t value) noexcept nogil:
    while value > 0x7F:
        at[0] = <uint8_t>(value | 0x80)
        value >>= 7
        at += 1
    at[0] = <uint8_t>value
    return at + 1

cdef struct Pair:
    Text key, row       # size -1: there is none
    size_t hash         # of the key, where `fill` looks it up

cdef inline Py_ssize_t field_size(Text* field) noexcept nogil:
    """Of a key or a value with its length before it. Lengths are zigzag."""
    return 1 if field.size < 0 else varint_size(2 * field.size) + field.size

cdef inline uint8_t* put_field(uint8_t* at, Text* field) noexcept nogil:
    if field.size < 0:
        at[0] = 1
        return at + 1
    at = put_varint(at, 2 * field.size)
    memcpy(at, field.data, field.size)
    return at + field.size

cdef inline Py_ssize_t body_size(Py_ssize_t n, Pair* pair) noexcept nogil:
    """Of the n-th record of a batch: attributes, no time of its own, its number, key, value, no headers."""
    return 3 + varint_size(2 * n) + field_size(&pair.key) + field_size(&pair.row)

cdef inline Text borrowed(bytes data):
    cdef Text text
    text.data, text.size = NULL, -1
    if data is not None:
        text.data, text.size = PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)
    return text


cdef inline int64_t get_varint(const uint8_t* data, Py_ssize_t* at, Py_ssize_t end) except? -2:
    cdef uint64_t value = 0
    cdef int shift = 0
    while at[0] < end and shift < 64:
        value |= <uint64_t>(data[at[0]] & 0x7F) << shift
        at[0] += 1
        if data[at[0] - 1] < 0x80:
            return <int64_t>(value >> 1) ^ -<int64_t>(value & 1)
        shift += 7
    raise ValueError("a number does not end")

cdef inline int get_text(const uint8_t* data, Py_ssize_t* at, Py_ssize_t end, Text* text) except -1:
    """A key or a value; size -1 for a missing one."""
    cdef int64_t size = get_varint(data, at, end)
    if size > end - at[0]:
        raise ValueError(f"a field of {size} bytes does not end")
    text.data, text.size = <const char*>data + at[0], max(size, -1)
    at[0] += max(size, 0)
    return 0


def fill(const uint8_t[::1] data, Py_ssize_t at, Py_ssize_t end, Heap held, dict spilled, dict own):
    """`streams.fold.rows.fill`, of the records between two places, as `pack` makes them. Raises `ValueError`."""
    cdef const uint8_t* here = &data[0] if data.shape[0] else NULL
    cdef Pair found[SIDE_BY_SIDE]
    cdef Pair* one
    cdef Place* place
    cdef Py_ssize_t n, k
    if not 0 <= at <= end <= data.shape[0]:
        raise ValueError(f"{end} is beyond the end")
    while at < end:
        n = 0
        while at < end and n < SIDE_BY_SIDE:
            one = &found[n]
            get_varint(here, &at, end)
            at += 1
            get_varint(here, &at, end)
            get_varint(here, &at, end)
            get_text(here, &at, end, &one.key)
            get_text(here, &at, end, &one.row)
            if one.key.size < 0 or get_varint(here, &at, end):
                raise ValueError("a record without a key, or with headers")
            if one.key.size and one.key.data[0] == 0:
                own[one.key.data[: one.key.size]] = one.row.data[: one.row.size] if one.row.size >= 0 else None
                continue
            one.hash = <size_t>_Py_HashBytes(one.key.data, one.key.size)
            fetch_ahead(&held._places[<uint32_t>one.hash & held._mask])
            n += 1
        for k in range(n):
            place = held._first(<uint32_t>found[k].hash)
            if place.block != NULL:
                touch(place.block)
        for k in range(n):
            one = &found[k]
            if spilled:
                spilled.pop(one.key.data[: one.key.size], None)
            if one.row.size < 0:
                held.remove(one.key.data, one.key.size, one.hash)
            else:
                held.write_raw(one.key.data, one.key.size, one.hash, <const uint8_t*>one.row.data, one.row.size)


def pack(Heap held, keys, list rows, Py_ssize_t most):
    """[(a batch without its header, how many records)] of keys with their rows and of (key, value), in their order.

    Each has at most so many bytes. Raises `KeyError`, and `ValueError` for a record that does not fit.
    """
    cdef Py_ssize_t count = 0, start = 0, n = 0, size = BATCH_HEADER, body
    cdef Pair* pairs = <Pair*>malloc(sizeof(Pair) * (len(keys) + len(rows) + 1))
    cdef bytes key, value
    if pairs == NULL:
        raise MemoryError
    packed = []
    try:
        held.fetch(keys)
        for key in keys:
            pairs[count].key, pairs[count].row = borrowed(key), held.text(key)
            count += 1
        for key, value in rows:
            pairs[count].key, pairs[count].row = borrowed(key), borrowed(value)
            count += 1
        while start < count:
            while start + n < count:
                body = body_size(n, &pairs[start + n])
                body += varint_size(2 * body)
                if size + body > most - (n > 0):  # aiokafka's, too, leaves the last byte to a first record alone
                    break
                size += body
                n += 1
            if not n:
                raise ValueError(f"a record of {max(0, pairs[start].row.size)} bytes does not fit into a batch of {most}")
            packed.append((_packed(&pairs[start], n, size), n))
            start, n, size = start + n, 0, BATCH_HEADER
    finally:
        free(pairs)
    return packed


cdef bytearray _packed(Pair* pairs, Py_ssize_t count, Py_ssize_t size):
    cdef bytearray batch = PyByteArray_FromStringAndSize(NULL, size)
    cdef uint8_t* at = <uint8_t*>PyByteArray_AS_STRING(batch) + BATCH_HEADER
    cdef Py_ssize_t n
    for n in range(count):
        if n + AHEAD < count:
            fetch_bytes(<const uint8_t*>pairs[n + AHEAD].row.data, pairs[n + AHEAD].row.size)
        at = put_varint(at, 2 * body_size(n, &pairs[n]))
        at[0] = at[1] = 0
        at = put_varint(at + 2, 2 * n)
        at = put_field(put_field(at, &pairs[n].key), &pairs[n].row)
        at[0] = 0
        at += 1
    return batch
