# The two hashes that the fold asks for: xxh3 of ids, murmur2 of keys. Included by `kernel.pyx`.

cdef extern from *:
    """
    typedef unsigned __int128 u128;
    static const uint8_t SECRET[64] = {
        0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
        0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
        0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
        0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    };
    """
    ctypedef unsigned long long u128
    const uint8_t SECRET[64]

cdef enum:
    NATIVE_HASH = 64    # longer texts are left to `xxhash`

cdef inline uint64_t folded(uint64_t a, uint64_t b) noexcept nogil:
    cdef u128 product = <u128>a * b
    return <uint64_t>product ^ <uint64_t>(product >> 64)

cdef inline uint64_t mixed(const uint8_t* at, const uint8_t* secret) noexcept nogil:
    return folded(u64(at) ^ u64(secret), u64(at + 8) ^ u64(secret + 8))

cdef inline uint64_t swapped(uint64_t x) noexcept nogil:
    x = (x & 0x00FF00FF00FF00FFULL) << 8 | x >> 8 & 0x00FF00FF00FF00FFULL
    x = (x & 0x0000FFFF0000FFFFULL) << 16 | x >> 16 & 0x0000FFFF0000FFFFULL
    return x << 32 | x >> 32

cdef inline uint64_t rotated(uint64_t x, int by) noexcept nogil:
    return x << by | x >> (64 - by)

cdef uint64_t xxh3(const uint8_t* at, Py_ssize_t size) noexcept nogil:
    """XXH3 (64 bits, seed 0) of 1 to 64 bytes."""
    cdef uint64_t h, low, high
    if size <= 3:
        h = <uint64_t>(<uint32_t>at[0] << 16 | <uint32_t>at[size >> 1] << 24 | at[size - 1] | <uint32_t>size << 8)
        h ^= u32(SECRET) ^ u32(SECRET + 4)
        h = (h ^ h >> 33) * 0xC2B2AE3D27D4EB4FULL
        h = (h ^ h >> 29) * 0x165667B19E3779F9ULL
        return h ^ h >> 32
    if size <= 8:
        h = (u32(at + size - 4) + (<uint64_t>u32(at) << 32)) ^ u64(SECRET + 8) ^ u64(SECRET + 16)
        h ^= rotated(h, 49) ^ rotated(h, 24)
        h *= 0x9FB21C651E98DF25ULL
        h ^= (h >> 35) + <uint64_t>size
        h *= 0x9FB21C651E98DF25ULL
        return h ^ h >> 28
    if size <= 16:
        low = u64(at) ^ u64(SECRET + 24) ^ u64(SECRET + 32)
        high = u64(at + size - 8) ^ u64(SECRET + 40) ^ u64(SECRET + 48)
        h = <uint64_t>size + swapped(low) + high + folded(low, high)
    else:
        h = <uint64_t>size * 0x9E3779B185EBCA87ULL
        if size > 32:
            h += mixed(at + 16, SECRET + 32) + mixed(at + size - 32, SECRET + 48)
        h += mixed(at, SECRET) + mixed(at + size - 16, SECRET + 16)
    h = (h ^ h >> 37) * 0x165667919E3779F9ULL
    return h ^ h >> 32

cdef uint64_t hash_of(Text text) except? 0:
    """`streams.aggregates.hash64`."""
    if 0 < text.size <= NATIVE_HASH:
        return xxh3(<const uint8_t*>text.data, text.size)
    return hash64(PyUnicode_DecodeUTF8(text.data, text.size, NULL))

cdef int32_t murmur2(const uint8_t* at, Py_ssize_t size) noexcept nogil:
    """Of `streams.topics.partition_of`, without its sign."""
    cdef uint32_t h = 0x9747B28CU ^ <uint32_t>size, k
    cdef Py_ssize_t left = size
    while left >= 4:
        k = u32(at) * 0x5BD1E995U
        h = h * 0x5BD1E995U ^ (k ^ k >> 24) * 0x5BD1E995U
        at += 4
        left -= 4
    if left == 3:
        h ^= <uint32_t>at[2] << 16
    if left >= 2:
        h ^= <uint32_t>at[1] << 8
    if left >= 1:
        h = (h ^ at[0]) * 0x5BD1E995U
    h = (h ^ h >> 13) * 0x5BD1E995U
    return <int32_t>((h ^ h >> 15) & 0x7FFFFFFFU)


def partition_of(bytes key, int64_t partitions):
    """`streams.topics.partition_of`."""
    if partitions < 1:
        raise ValueError(f"{partitions} partitions")
    return murmur2(<const uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key)) % partitions
