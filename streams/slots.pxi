# Slots: the packed bytes of one aggregate each, read and edited in place. Included by `kernel.pyx`.

cdef enum:
    COUNT, SUM, MEAN, DISTINCT, RECENT, DECAYED, SINCE

KINDS = {"Count": COUNT, "Sum": SUM, "Mean": MEAN, "Distinct": DISTINCT, "Recent": RECENT, "Decayed": DECAYED, "Since": SINCE}

cdef int64_t EVER = _EVER
SECOND = 1_000_000

cdef enum:
    MOST_SIZES = 4
    MOST_TILES = 4_095
    SERIES_HEAD = 6
    TIMES_HEAD = 3
    HASH = 4            # bytes of a hash in a sketch
    MOST_READS = 16
    HEADER = 36
    SLACK = 64
"""Bytes that an edited slot may grow by before it is moved."""

cdef struct Spec:
    int kind
    int sizes
    int64_t size[MOST_SIZES]
    int64_t keep[MOST_SIZES]
    int reads           # its windows
    int series[MOST_READS]
    int64_t window[MOST_READS]
    int64_t tile[MOST_READS]
    int64_t most        # Distinct: k; Recent: n; Decayed: keys; Since: cap, microseconds
    int64_t half_life   # Decayed, microseconds
    int first           # Since
    int field           # the text that it reads

cdef struct Slot:
    uint8_t* data       # borrowed from the row while `room` is 0
    Py_ssize_t size
    Py_ssize_t room

cdef struct Reach:
    int feature
    int bounded
    double least

cdef struct Tile:
    int32_t index
    Slot* slots


# Slots: raw bytes that are read and edited in place.

cdef inline uint32_t u32(const uint8_t* at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return value

cdef inline int32_t i32(const uint8_t* at) noexcept nogil:
    cdef int32_t value
    memcpy(&value, at, 4)
    return value

cdef inline int64_t i64(const uint8_t* at) noexcept nogil:
    cdef int64_t value
    memcpy(&value, at, 8)
    return value

cdef inline uint64_t u64(const uint8_t* at) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, at, 8)
    return value

cdef inline double f64(const uint8_t* at) noexcept nogil:
    cdef double value
    memcpy(&value, at, 8)
    return value

cdef inline void put32(uint8_t* at, uint32_t value) noexcept nogil:
    memcpy(at, &value, 4)

cdef inline void put64(uint8_t* at, int64_t value) noexcept nogil:
    memcpy(at, &value, 8)

cdef inline void putf(uint8_t* at, double value) noexcept nogil:
    memcpy(at, &value, 8)


cdef int own(Slot* slot, Py_ssize_t more) except -1:
    """Make the slot ours to edit, with room for so many more bytes."""
    cdef uint8_t* data
    if slot.room >= slot.size + more and slot.room:
        return 0
    cdef Py_ssize_t room = slot.size + more + SLACK
    if slot.room:
        data = <uint8_t*>realloc(slot.data, room)
    else:
        data = <uint8_t*>malloc(room)
        if data != NULL and slot.size:
            memcpy(data, slot.data, slot.size)
    if data == NULL:
        raise MemoryError
    slot.data, slot.room = data, room
    return 0

cdef int insert(Slot* slot, Py_ssize_t at, Py_ssize_t count) except -1:
    """Open a gap of zeros."""
    own(slot, count)
    memmove(slot.data + at + count, slot.data + at, slot.size - at)
    memset(slot.data + at, 0, count)
    slot.size += count
    return 0

cdef int erase(Slot* slot, Py_ssize_t at, Py_ssize_t count) except -1:
    own(slot, 0)
    memmove(slot.data + at, slot.data + at + count, slot.size - at - count)
    slot.size -= count
    return 0

cdef int need(Slot* slot, Py_ssize_t end) except -1:
    if end > slot.size or end < 0:
        raise ValueError(f"a slot of {slot.size} bytes ends before {end}")
    return 0


# Numbers of 1, 2, 4 or 8 bytes; `wide` is 0 to 3.

cdef inline uint32_t get_unsigned(const uint8_t* at, int wide) noexcept nogil:
    cdef uint16_t small
    if wide == 0:
        return at[0]
    if wide == 1:
        memcpy(&small, at, 2)
        return small
    return u32(at)

cdef inline void put_unsigned(uint8_t* at, int wide, uint32_t value) noexcept nogil:
    memcpy(at, &value, 1 << wide)

cdef inline int64_t get_signed(const uint8_t* at, int wide) noexcept nogil:
    cdef int16_t small
    if wide == 0:
        return <int8_t>at[0]
    if wide == 1:
        memcpy(&small, at, 2)
        return small
    return i32(at) if wide == 2 else i64(at)

cdef inline void put_signed(uint8_t* at, int wide, int64_t value) noexcept nogil:
    memcpy(at, &value, 1 << wide)

cdef inline int width_unsigned(int64_t value) noexcept nogil:
    return 0 if value < 1 << 8 else 1 if value < 1 << 16 else 2

cdef inline int width_signed(int64_t value) noexcept nogil:
    cdef int64_t most = value if value >= 0 else ~value
    return 0 if most < 1 << 7 else 1 if most < 1 << 15 else 2 if most < <int64_t>1 << 31 else 3


# Series, as `streams.aggregates.packing` lays them out.

cdef struct Series:
    Py_ssize_t n
    int wide            # of the distances
    int high            # of the sums
    int64_t first
    Py_ssize_t distances, sums, end     # where they begin, and where the series ends

cdef int series_view(Slot* slot, Py_ssize_t at, Series* s) except -1:
    cdef uint16_t head
    need(slot, at + 2)
    memcpy(&head, slot.data + at, 2)
    s.n, s.wide, s.high, s.first, s.end = head & MOST_TILES, head >> 12 & 3, head >> 14, 0, at + 2
    s.distances = s.sums = s.end
    if head:
        need(slot, at + SERIES_HEAD)
        s.first = i32(slot.data + at + 2)
        if s.wide > 2 or not s.n:
            raise ValueError(f"a series begins with {head:#x}")
        s.distances = at + SERIES_HEAD
        s.sums = s.distances + (s.n << s.wide)
        s.end = s.sums + (s.n << s.high)
        need(slot, s.end)
    return 0

cdef inline void series_head(uint8_t* at, Series* s) noexcept nogil:
    cdef uint16_t head = <uint16_t>(s.n | s.wide << 12 | s.high << 14)
    memcpy(at, &head, 2)

cdef inline int64_t series_tile(Slot* slot, Series* s, Py_ssize_t i) noexcept nogil:
    return s.first + get_unsigned(slot.data + s.distances + (i << s.wide), s.wide)

cdef inline int64_t series_sum(Slot* slot, Series* s, Py_ssize_t i) noexcept nogil:
    return get_signed(slot.data + s.sums + (i << s.high), s.high)

cdef Py_ssize_t series_find(Slot* slot, Series* s, int64_t tile) noexcept nogil:
    """The first of its sorted tiles that is not below `tile`."""
    cdef Py_ssize_t low = 0, high = s.n, middle
    while low < high:
        middle = (low + high) // 2
        if series_tile(slot, s, middle) < tile:
            low = middle + 1
        else:
            high = middle
    return low

cdef Py_ssize_t series_add(Slot* slot, Py_ssize_t at, int64_t tile, int64_t amount, int64_t keep) except -1:
    """`streams.aggregates.windows.add`. Returns where the series ends."""
    cdef Series s
    series_view(slot, at, &s)
    cdef Py_ssize_t i
    cdef int64_t last = series_tile(slot, &s, s.n - 1) if s.n else tile, old
    if last - tile > keep:
        return s.end
    i = s.n - 1 if s.n and tile == last else s.n if tile > last else series_find(slot, &s, tile)
    if i < s.n and series_tile(slot, &s, i) == tile:
        old = series_sum(slot, &s, i)
        if width_signed(old + amount) <= s.high and (width_signed(old) < s.high or width_signed(old + amount) == s.high):
            own(slot, 0)
            put_signed(slot.data + s.sums + (i << s.high), s.high, old + amount)
            return s.end
    elif 0 < s.n < MOST_TILES and tile > s.first and tile - s.first <= keep and width_unsigned(tile - s.first) <= s.wide and width_signed(amount) <= s.high:
        insert(slot, s.sums + (i << s.high), 1 << s.high)
        insert(slot, s.distances + (i << s.wide), 1 << s.wide)
        put_unsigned(slot.data + s.distances + (i << s.wide), s.wide, <uint32_t>(tile - s.first))
        put_signed(slot.data + s.sums + (1 << s.wide) + (i << s.high), s.high, amount)
        s.n += 1
        series_head(slot.data + at, &s)
        return s.end + (1 << s.wide) + (1 << s.high)
    return series_rewrite(slot, at, &s, i, tile, amount, tile - keep if tile > last else last - keep)

cdef Py_ssize_t series_rewrite(Slot* slot, Py_ssize_t at, Series* s, Py_ssize_t i, int64_t tile, int64_t amount, int64_t oldest) except -1:
    """Add to the tile that is, or comes to be, at `i`, in the fewest bytes; tiles before `oldest` go."""
    cdef bint new = i == s.n or series_tile(slot, s, i) != tile
    cdef Py_ssize_t n = s.n + new, gone = 0, k, size
    cdef int64_t* tiles = <int64_t*>malloc(16 * n)
    if tiles == NULL:
        raise MemoryError
    cdef int64_t* sums = tiles + n
    cdef int high = 0
    try:
        for k in range(n):
            if new and k == i:
                tiles[k], sums[k] = tile, amount
            else:
                tiles[k], sums[k] = series_tile(slot, s, k - (new and k > i)), series_sum(slot, s, k - (new and k > i))
        if not new:
            sums[i] += amount
        while tiles[gone] < oldest:
            gone += 1
        for k in range(gone, n):
            high = max(high, width_signed(sums[k]))
        s.wide, s.high, s.first, s.n = width_unsigned(tiles[n - 1] - tiles[gone]), high, tiles[gone], n - gone
        if s.n > MOST_TILES:
            raise ValueError(f"a series of {s.n} tiles")
        size = SERIES_HEAD + (s.n << s.wide) + (s.n << s.high)
        if size > s.end - at:
            insert(slot, at, size - (s.end - at))
        else:
            erase(slot, at, s.end - at - size)
        series_head(slot.data + at, s)
        put32(slot.data + at + 2, <uint32_t><int32_t>s.first)
        s.distances = at + SERIES_HEAD
        s.sums = s.distances + (s.n << s.wide)
        for k in range(s.n):
            put_unsigned(slot.data + s.distances + (k << s.wide), s.wide, <uint32_t>(tiles[gone + k] - s.first))
            put_signed(slot.data + s.sums + (k << s.high), s.high, sums[gone + k])
        return at + size
    finally:
        free(tiles)

cdef Py_ssize_t series_join(Slot* slot, Py_ssize_t at, Slot* other, Py_ssize_t from_, int64_t keep) except -1:
    """Add every tile of another series, which lies at `from_` in `other`. Returns where ours ends."""
    cdef Series s
    series_view(slot, at, &s)
    cdef Py_ssize_t end = s.end, i
    series_view(other, from_, &s)
    for i in range(s.n):
        end = series_add(slot, at, series_tile(other, &s, i), series_sum(other, &s, i), keep)
    return end


# Distinct: for each tile size a series of how many hashes each tile has, then the hashes (u32).

cdef Py_ssize_t sketch_view(Slot* slot, Py_ssize_t at, Series* s) except -1:
    """Where it ends; `s.end` is where its hashes begin."""
    series_view(slot, at, s)
    cdef Py_ssize_t end = s.end, i
    cdef int64_t held
    for i in range(s.n):
        held = series_sum(slot, s, i)
        if held < 0 or held > slot.size:
            raise ValueError(f"a tile of {held} hashes")
        end += HASH * held
    need(slot, end)
    return end

cdef int sketch_keep(Slot* slot, Py_ssize_t at, int64_t tile, const uint32_t* hashes, Py_ssize_t count, int64_t keep, int64_t k) except -1:
    """`Distinct._keep`."""
    cdef Series s
    sketch_view(slot, at, &s)
    if s.n and series_tile(slot, &s, s.n - 1) - tile > keep:
        return 0
    cdef Py_ssize_t start = s.end, gone = 0, held = 0, before, i, j, low, high, middle
    cdef int64_t other
    for i in range(s.n):
        other = series_tile(slot, &s, i)
        if other >= tile:
            held = series_sum(slot, &s, i) if other == tile else 0
            break
        start += HASH * series_sum(slot, &s, i)
        if tile - other > keep:
            gone += HASH * series_sum(slot, &s, i)
    before = held
    for j in range(count):
        low, high = 0, held
        while low < high:
            middle = (low + high) // 2
            if u32(slot.data + start + HASH * middle) < hashes[j]:
                low = middle + 1
            else:
                high = middle
        if low < held and u32(slot.data + start + HASH * low) == hashes[j]:
            continue
        insert(slot, start + HASH * low, HASH)
        put32(slot.data + start + HASH * low, hashes[j])
        held += 1
    if held > k:
        erase(slot, start + HASH * <Py_ssize_t>k, HASH * (held - <Py_ssize_t>k))
        held = <Py_ssize_t>k
    if gone:
        erase(slot, s.end, gone)
    if held != before:
        series_add(slot, at, tile, held - before, keep)
    return 0

cdef int sketch_join(Slot* slot, Slot* other, Spec* spec) except -1:
    cdef Py_ssize_t at = 0, from_ = 0, end, i, held, hashes
    cdef int size
    cdef Series s
    cdef uint32_t* copy
    for size in range(spec.sizes):
        end = sketch_view(other, from_, &s)
        hashes = s.end
        for i in range(s.n):
            held = series_sum(other, &s, i)
            copy = <uint32_t*>malloc(HASH * (held + 1))
            if copy == NULL:
                raise MemoryError
            memcpy(copy, other.data + hashes, HASH * held)
            try:
                sketch_keep(slot, at, series_tile(other, &s, i), copy, held, spec.keep[size], spec.most)
            finally:
                free(copy)
            hashes += HASH * held
        from_ = end
        at = sketch_view(slot, at, &s)
    return 0


# Texts: the width of their lengths (u8), their lengths, their UTF-8 up to the slot's end.

cdef Py_ssize_t texts_view(Slot* slot, Py_ssize_t at, Py_ssize_t n) except -1:
    """Where the texts begin. They must end with the slot."""
    need(slot, at + 1)
    cdef int wide = slot.data[at]
    if wide > 2:
        raise ValueError(f"lengths of width {wide}")
    need(slot, at + 1 + (n << wide))
    cdef Py_ssize_t end = at + 1 + (n << wide), i
    for i in range(n):
        end += get_unsigned(slot.data + at + 1 + (i << wide), wide)
    if end != slot.size:
        raise ValueError(f"{n} texts end at {end} of {slot.size} bytes")
    return at + 1 + (n << wide)

cdef inline Py_ssize_t text_size(Slot* slot, Py_ssize_t at, Py_ssize_t i) noexcept nogil:
    return get_unsigned(slot.data + at + 1 + (i << slot.data[at]), slot.data[at])

cdef int texts_widen(Slot* slot, Py_ssize_t at, Py_ssize_t n, int wide) except -1:
    """Give the n lengths another width, in which they fit."""
    cdef Py_ssize_t k, more = (n << wide) - (n << slot.data[at])
    cdef uint32_t* lengths = <uint32_t*>malloc(4 * n + 4)
    if lengths == NULL:
        raise MemoryError
    try:
        for k in range(n):
            lengths[k] = <uint32_t>text_size(slot, at, k)
        if more > 0:
            insert(slot, at + 1, more)
        else:
            erase(slot, at + 1, -more)
        slot.data[at] = <uint8_t>wide
        for k in range(n):
            put_unsigned(slot.data + at + 1 + (k << wide), wide, lengths[k])
    finally:
        free(lengths)
    return 0

cdef int texts_insert(Slot* slot, Py_ssize_t at, Py_ssize_t n, Py_ssize_t i, Py_ssize_t start, const uint8_t* text, Py_ssize_t size) except -1:
    """A text more: the i-th, whose bytes begin at `start`."""
    insert(slot, start, size)
    memcpy(slot.data + start, text, size)
    if width_unsigned(size) > slot.data[at]:
        texts_widen(slot, at, n, width_unsigned(size))
    cdef int wide = slot.data[at]
    insert(slot, at + 1 + (i << wide), 1 << wide)
    put_unsigned(slot.data + at + 1 + (i << wide), wide, <uint32_t>size)
    return 0

cdef int texts_drop(Slot* slot, Py_ssize_t at, Py_ssize_t n, Py_ssize_t i) except -1:
    """A text less."""
    own(slot, 0)
    cdef int wide = slot.data[at], least = 0
    cdef Py_ssize_t start = at + 1 + (n << wide), k
    for k in range(i):
        start += text_size(slot, at, k)
    erase(slot, start, text_size(slot, at, i))
    erase(slot, at + 1 + (i << wide), 1 << wide)
    if wide:
        for k in range(n - 1):
            least = max(least, width_unsigned(text_size(slot, at, k)))
        if least < wide:
            texts_widen(slot, at, n - 1, least)
    return 0

cdef inline int compare(const uint8_t* a, Py_ssize_t n, const uint8_t* b, Py_ssize_t m) noexcept nogil:
    """By code points, which is how Python compares texts: UTF-8 keeps that order."""
    cdef int found = memcmp(a, b, n if n < m else m)
    return found if found else (-1 if n < m else n > m)


# Recent: times, as `streams.aggregates.packing` lays them out, and texts; sorted by time, then text.

cdef struct Times:
    Py_ssize_t n
    int each            # bytes of one
    int64_t newest
    Py_ssize_t end      # where their texts' lengths begin

cdef int times_begin(Slot* slot) except -1:
    """None, and no texts."""
    insert(slot, 0, TIMES_HEAD + 8 - 5 + 1)
    slot.data[2] = 5
    return 0

cdef Py_ssize_t times_view(Slot* slot, Times* t) except -1:
    """Where the first text begins."""
    cdef uint16_t n
    need(slot, TIMES_HEAD)
    memcpy(&n, slot.data, 2)
    t.n, t.each = n, slot.data[2]
    if t.each != 5 and t.each != 6 and t.each != 8:
        raise ValueError(f"times are {t.each} bytes wide")
    t.end = TIMES_HEAD + t.n * t.each + 8 - t.each
    need(slot, t.end)
    t.newest = i64(slot.data + t.end - 8) if n else 0
    return texts_view(slot, t.end, t.n)

cdef inline int64_t time_at(Slot* slot, Times* t, Py_ssize_t i) noexcept nogil:
    cdef uint64_t before = <uint64_t>t.newest - u64(slot.data + TIMES_HEAD + i * t.each)
    return <int64_t>(<uint64_t>t.newest - (before & ~<uint64_t>0 >> (64 - 8 * t.each)))

cdef inline int times_width(int64_t oldest, int64_t newest) noexcept nogil:
    cdef uint64_t apart = <uint64_t>newest - <uint64_t>oldest
    return 5 if apart < <uint64_t>1 << 40 else 6 if apart < <uint64_t>1 << 48 else 8

cdef int times_widen(Slot* slot, Times* t, int each) except -1:
    """Give them another width, in which they fit."""
    cdef Py_ssize_t i, more = (t.n - 1) * (each - t.each)
    cdef int64_t* times = <int64_t*>malloc(8 * t.n)
    if times == NULL:
        raise MemoryError
    try:
        for i in range(t.n):
            times[i] = time_at(slot, t, i)
        if more > 0:
            insert(slot, TIMES_HEAD, more)
        else:
            erase(slot, TIMES_HEAD, -more)
        slot.data[2] = <uint8_t>each
        for i in range(t.n):  # each goes on beyond its width; the next one, or nothing, is written over that
            put64(slot.data + TIMES_HEAD + i * each, times[i])
    finally:
        free(times)
    t.each, t.end = each, t.end + more
    return 0

cdef int recent_add(Slot* slot, int64_t at, const uint8_t* text, Py_ssize_t size, int64_t most) except -1:
    cdef Times t
    times_view(slot, &t)
    cdef Py_ssize_t i = t.n, start, end = slot.size, behind
    cdef int64_t time
    cdef uint16_t n
    cdef int each
    while i > 0:  # from the newest: that is where an event belongs
        time = time_at(slot, &t, i - 1)
        start = end - text_size(slot, t.end, i - 1)
        if time < at or (time == at and compare(slot.data + start, end - start, text, size) <= 0):
            break
        end = start
        i -= 1
    behind = slot.size - end
    if t.n >= most:
        if i == 0:
            return 0
        texts_drop(slot, t.end, t.n, 0)
        erase(slot, TIMES_HEAD, t.each)
        t.n, t.end, i = t.n - 1, t.end - t.each, i - 1
    each = times_width(time_at(slot, &t, 0) if i else at, at if i == t.n else t.newest)
    if each != t.each:
        times_widen(slot, &t, each)
    texts_insert(slot, t.end, t.n, i, slot.size - behind, text, size)
    insert(slot, TIMES_HEAD + i * t.each, t.each)
    t.n += 1
    if i == t.n - 1:
        t.newest = at
        put64(slot.data + TIMES_HEAD + i * t.each, at)
    else:
        memcpy(slot.data + TIMES_HEAD + i * t.each, &at, t.each)
    n = <uint16_t>t.n
    memcpy(slot.data, &n, 2)
    return 0

cdef int recent_join(Slot* slot, Slot* other, int64_t most) except -1:
    cdef Times t
    cdef Py_ssize_t start = times_view(other, &t), i, size
    for i in range(t.n):
        size = text_size(other, t.end, i)
        recent_add(slot, time_at(other, &t, i), other.data + start, size, most)
        start += size
    return 0


# Decayed: the landmark's half-life (i64), how many keys (u32), their weights (f64), the keys, sorted.

cdef int decayed_drop(Slot* slot, Py_ssize_t i) except -1:
    cdef Py_ssize_t n = u32(slot.data + 8)
    texts_drop(slot, 12 + 8 * n, n, i)
    erase(slot, 12 + 8 * i, 8)
    put32(slot.data + 8, <uint32_t>(n - 1))
    return 0

cdef int decayed_advance(Slot* slot, int64_t epoch) except -1:
    """`Decayed._advance`: multiply by a power of two, and drop what decayed to nothing."""
    cdef int64_t halvings = epoch - i64(slot.data)
    cdef double factor = ldexp(1.0, -<int>(halvings if halvings < 1000 else 1000)), weight
    cdef Py_ssize_t i = 0
    own(slot, 0)
    put64(slot.data, epoch)
    while i < u32(slot.data + 8):
        weight = f64(slot.data + 12 + 8 * i) * factor
        if weight > ldexp(1.0, -60):
            putf(slot.data + 12 + 8 * i, weight)
            i += 1
        else:
            decayed_drop(slot, i)
    return 0

cdef int decayed_add(Slot* slot, const uint8_t* key, Py_ssize_t size, double weight) except -1:
    cdef Py_ssize_t n = u32(slot.data + 8), texts = 12 + 8 * n, start = texts + 1 + (n << slot.data[texts]), i = 0, held
    cdef int order = 1
    while i < n:
        held = text_size(slot, texts, i)
        order = compare(slot.data + start, held, key, size)
        if order >= 0:
            break
        start += held
        i += 1
    if i < n and order == 0:
        putf(slot.data + 12 + 8 * i, f64(slot.data + 12 + 8 * i) + weight)
        return 0
    texts_insert(slot, texts, n, i, start, key, size)
    insert(slot, 12 + 8 * i, 8)
    putf(slot.data + 12 + 8 * i, 0.0 + weight)
    put32(slot.data + 8, <uint32_t>(n + 1))
    return 0

cdef int decayed_trim(Slot* slot, int64_t most) except -1:
    """Drop the lightest; of equal ones the first by its key, which is the order in which they lie."""
    cdef Py_ssize_t i, lightest
    while u32(slot.data + 8) > most:
        lightest = 0
        for i in range(1, u32(slot.data + 8)):
            if f64(slot.data + 12 + 8 * i) < f64(slot.data + 12 + 8 * lightest):
                lightest = i
        decayed_drop(slot, lightest)
    return 0


# Windows, as they are read.

cdef inline Py_ssize_t window_first(Slot* slot, Series* s, Spec* spec, int r, int64_t at, int64_t* until) noexcept:
    """Its first tile that a window holds; `until` comes down to when that will have left it."""
    cdef Py_ssize_t first
    cdef int64_t leaves
    if spec.window[r] == EVER:
        return 0
    first = series_find(slot, s, (at - spec.window[r]) // spec.tile[r])
    if first < s.n and until != NULL:
        leaves = (series_tile(slot, s, first) + 1) * spec.tile[r] + spec.window[r]
        if leaves < until[0]:
            until[0] = leaves
    return first

cdef object window_total(Slot* slot, Series* s, Spec* spec, int r, int64_t at, int64_t* until):
    """The sum over a window, as an integer of any size."""
    cdef Py_ssize_t first = window_first(slot, s, spec, r, at, until), k
    cdef int64_t small = 0
    cdef object total = 0
    if spec.window[r] == EVER:
        return series_sum(slot, s, 0) if s.n else 0
    for k in range(first, s.n):
        if s.high < 3:
            small += series_sum(slot, s, k)
        else:
            total += series_sum(slot, s, k)
    return small if s.high < 3 else total

cdef int by_size(const void* a, const void* b) noexcept nogil:
    cdef uint32_t x = (<const uint32_t*>a)[0], y = (<const uint32_t*>b)[0]
    return (x > y) - (x < y)

cdef object distinct_value(Slot* slot, Series* s, Spec* spec, int r, int64_t at, int64_t* until):
    """`Distinct._estimate`."""
    cdef Py_ssize_t first = window_first(slot, s, spec, r, at, until), k, start = s.end, size = 0, n = 0
    for k in range(s.n):
        if k < first:
            start += HASH * series_sum(slot, s, k)
        else:
            size += series_sum(slot, s, k)
    if not size:
        return 0
    cdef uint32_t* hashes = <uint32_t*>malloc(HASH * size)
    if hashes == NULL:
        raise MemoryError
    try:
        memcpy(hashes, slot.data + start, HASH * size)
        qsort(hashes, size, HASH, by_size)
        for k in range(size):
            if not n or hashes[k] != hashes[n - 1]:
                hashes[n] = hashes[k]
                n += 1
        if n < spec.most:
            return n
        return round((<object>spec.most - 1) * 2.0**32 / (<object>hashes[spec.most - 1] + 1))
    finally:
        free(hashes)


