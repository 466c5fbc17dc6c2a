# The rows of a partition in memory of their own: a table of places, each with a block that holds a key and its row.
#
# A row that has changed is written over the old one where it fits. There is no object for a key or a row, which
# saves half of what they take beside their bytes. A row that is looked up alone among a million waits for memory three
# times, for its place, its block and its bytes; `fetch` follows hundreds side by side, so that their waits overlap.
# Included by `kernel.pyx`.

cdef extern from *:
    """
    #if defined(__GNUC__)
    #define fetch_ahead(at) __builtin_prefetch(at)
    #else
    #define fetch_ahead(at)
    #endif

    /* A read, as processors may drop what is only asked for when the page is not at hand, either. */
    static inline void touch(const void *at) { (void)*(const volatile char *)at; }
    """
    void fetch_ahead(const void* at) nogil
    void touch(const void* at) nogil

cdef extern from "Python.h":
    Py_hash_t _Py_HashBytes(const void* data, Py_ssize_t size) nogil

cdef enum:
    AHEAD = 8           # rows that are fetched while one is worked on
    LEAST_PLACES = 64
    SCATTER = 0x9E3779B1    # odd, so that its multiples come by each place once a round

    GRAIN = 32          # sizes of blocks are multiples of it
    LARGEST = 4_096     # a larger block is malloc's own
    SLAB = 65_536       # bytes that hold blocks of one size
    SIZES = 129         # from 0 to `LARGEST`, in grains
    NONE = 0xFFFFFFFF

cdef struct Block:
    uint32_t key_size, size, slab       # bytes of the key and of the row, which follow; where the block lies

cdef struct Slab:
    uint8_t* data
    uint32_t bytes                      # of each of its blocks
    uint32_t live                       # blocks in use
    uint32_t fresh, free                # what was never in use begins here; the last block that is free again
    uint32_t after, before              # slabs of the same size with room

cdef struct Place:
    Block* block                        # NULL: free
    uint32_t hash
    uint32_t used                       # since `cold` came by

cdef inline uint8_t* key_in(Block* block) noexcept nogil:
    return <uint8_t*>block + sizeof(Block)

cdef inline uint8_t* row_in(Block* block) noexcept nogil:
    return key_in(block) + block.key_size

# Slabs: with malloc and free for each block these were an eighth of a worker's time, and are a sixteenth. They take as
# much memory.

cdef Slab* slabs = NULL
cdef uint32_t slabs_known = 0, slabs_room = 0, slab_spare = NONE     # `slab_spare`: one without memory, and more `after` it
cdef uint32_t roomy[SIZES]                                           # by size: the first slab with room
memset(roomy, 0xFF, sizeof(roomy))

cdef inline Py_ssize_t bytes_for(Py_ssize_t key_and_row) noexcept nogil:
    """Of the block that holds so many."""
    cdef Py_ssize_t size = sizeof(Block) + key_and_row, grain = GRAIN if size <= LARGEST else LARGEST
    return (size + grain - 1) // grain * grain

cdef inline Py_ssize_t bytes_of(Block* block) noexcept nogil:
    return bytes_for(<Py_ssize_t>block.key_size + block.size) if block.slab == NONE else slabs[block.slab].bytes

cdef void link(uint32_t n) noexcept:
    cdef uint32_t* first = &roomy[slabs[n].bytes // GRAIN]
    slabs[n].after, slabs[n].before = first[0], NONE
    if first[0] != NONE:
        slabs[first[0]].before = n
    first[0] = n

cdef void unlink(uint32_t n) noexcept:
    cdef Slab* slab = &slabs[n]
    if slab.before == NONE:
        roomy[slab.bytes // GRAIN] = slab.after
    else:
        slabs[slab.before].after = slab.after
    if slab.after != NONE:
        slabs[slab.after].before = slab.before

cdef uint32_t new_slab(Py_ssize_t size) except? NONE:
    global slabs, slabs_known, slabs_room, slab_spare
    cdef Slab* more
    cdef uint32_t n = slab_spare
    if n == NONE and slabs_known == slabs_room:
        more = <Slab*>realloc(slabs, sizeof(Slab) * (2 * slabs_room + 64))
        if more == NULL:
            raise MemoryError
        slabs, slabs_room = more, 2 * slabs_room + 64
    cdef uint8_t* data = <uint8_t*>malloc(SLAB + 64)       # `fetch` reads on behind the last block
    if data == NULL:
        raise MemoryError
    if n == NONE:
        n, slabs_known = slabs_known, slabs_known + 1
    else:
        slab_spare = slabs[n].after
    slabs[n].data, slabs[n].bytes, slabs[n].live, slabs[n].fresh, slabs[n].free = data, <uint32_t>size, 0, 0, NONE
    link(n)
    return n

cdef inline bint is_full(Slab* slab) noexcept nogil:
    return slab.free == NONE and slab.fresh + slab.bytes > SLAB

cdef Block* allocate(Py_ssize_t size) except NULL:
    cdef Block* block
    cdef Slab* slab
    cdef uint32_t n
    if size > LARGEST:
        block = <Block*>malloc(size)
        if block == NULL:
            raise MemoryError
        block.slab = NONE
        return block
    n = roomy[size // GRAIN]
    if n == NONE:
        n = new_slab(size)
    slab = &slabs[n]
    if slab.free == NONE:
        block = <Block*>(slab.data + slab.fresh)
        slab.fresh += slab.bytes
    else:
        block = <Block*>(slab.data + slab.free)
        slab.free = block.size
    slab.live += 1
    block.slab = n
    if is_full(slab):
        unlink(n)
    return block

cdef void release(Block* block) noexcept:
    global slab_spare
    cdef uint32_t n = block.slab
    cdef Slab* slab
    if n == NONE:
        free(block)
        return
    slab = &slabs[n]
    if is_full(slab):
        link(n)
    block.size, slab.free = slab.free, <uint32_t>(<uint8_t*>block - slab.data)
    slab.live -= 1
    if not slab.live and (slab.after != NONE or slab.before != NONE):  # one a size is kept
        unlink(n)
        free(slab.data)
        slab.after, slab_spare = slab_spare, n

cdef inline bytes row_of(Block* block):
    return PyBytes_FromStringAndSize(<char*>row_in(block), block.size)

cdef inline void fetch_bytes(const uint8_t* data, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t at
    for at in range(0, size, 64):
        fetch_ahead(data + at)


cdef bint is_in(bytes key, tuple collections) except -1:
    for keys in collections:
        if key in keys:
            return True
    return False


cdef class Heap:
    """`streams.fold.rows.PlainHeap`. What goes first, when some have to, are rows that were not used lately."""

    cdef Place* _places
    cdef size_t _mask, _hand
    cdef Py_ssize_t _count, _bytes

    def __cinit__(self):
        self._places = <Place*>calloc(LEAST_PLACES, sizeof(Place))
        if self._places == NULL:
            raise MemoryError
        self._mask = LEAST_PLACES - 1

    def __dealloc__(self):
        cdef size_t at
        if self._places != NULL:
            for at in range(self._mask + 1):
                if self._places[at].block != NULL:
                    release(self._places[at].block)
        free(self._places)

    def __len__(self):
        return self._count

    def __iter__(self):
        cdef size_t at
        cdef list keys = []
        for at in range(self._mask + 1):
            fetch_ahead(self._places[(at + AHEAD) & self._mask].block)
            if self._places[at].block != NULL:
                keys.append(self._key(self._places[at].block))
        return iter(keys)

    @property
    def size(self):
        return self._bytes + self._count * 2 * <Py_ssize_t>sizeof(Place)

    def get(self, bytes key not None):
        cdef Block* block = self.find(key)
        return None if block == NULL else row_of(block)

    def rows(self, keys):
        cdef bytes key
        cdef Text row
        cdef list found = []
        for key in keys:
            row = self.text(key)
            found.append((key, row.data[: row.size]))
        return found

    def put(self, bytes key not None, bytes row not None):
        self.write(key, <const uint8_t*>PyBytes_AS_STRING(row), PyBytes_GET_SIZE(row))

    def drop(self, keys):
        cdef bytes key
        self.fetch(keys)
        for key in keys:
            self.remove(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), <size_t>hash(key))

    def cold(self, Py_ssize_t size, *pinned):
        cdef dict found = {}
        cdef size_t step
        cdef Place* place
        cdef bytes key
        for step in range(2 * (self._mask + 1)):  # twice around: once to find all used, once to find all not
            if size <= 0:
                break
            fetch_ahead(self._scattered(self._hand + 3 * AHEAD))
            place = self._scattered(self._hand + 2 * AHEAD)
            fetch_ahead(place.block)
            place = self._scattered(self._hand + AHEAD)
            if place.block != NULL and not place.used:
                fetch_bytes(row_in(place.block), place.block.size)
            place = self._scattered(self._hand)
            self._hand += 1
            if place.block == NULL:
                continue
            if place.used:
                place.used = 0
                continue
            key = self._key(place.block)
            if key in found or is_in(key, pinned):
                continue
            found[key] = row_of(place.block)
            size -= bytes_of(place.block)
        return found

    cdef Place* _scattered(self, size_t n) noexcept nogil:
        """Not one after the other: the places ahead of a hand that goes straight on would fill up without a gap."""
        return &self._places[((n >> 2) * SCATTER << 2 | n & 3) & self._mask]

    cdef bytes _key(self, Block* block):
        return PyBytes_FromStringAndSize(<char*>key_in(block), block.key_size)

    cdef Block* find(self, bytes key) except? NULL:
        return self._place(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), <size_t>hash(key)).block

    cdef Text text(self, bytes key) except *:
        """The row, until it is put again. Raises `KeyError`."""
        cdef Block* block = self.find(key)
        cdef Text text
        if block == NULL:
            raise KeyError(key)
        text.data, text.size = <const char*>row_in(block), block.size
        return text

    cdef int write(self, bytes key, const uint8_t* row, Py_ssize_t size) except -1:
        return self.write_raw(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), <size_t>hash(key), row, size)

    cdef int fetch(self, keys) except -1:
        """Read what looking these up will read, as far as each row's header."""
        cdef Py_ssize_t n = 0, k
        cdef uint32_t* hashes = <uint32_t*>malloc(sizeof(uint32_t) * (len(keys) + 1))
        cdef Place* place
        if hashes == NULL:
            raise MemoryError
        try:
            for key in keys:
                hashes[n] = <uint32_t><size_t>hash(key)
                n += 1
            for k in range(n):
                touch(&self._places[hashes[k] & self._mask])
            for k in range(n):
                place = self._first(hashes[k])
                if place.block != NULL:
                    touch(place.block)
                    touch(<uint8_t*>place.block + 64)
        finally:
            free(hashes)
        return 0

    cdef Place* _first(self, uint32_t hash) noexcept nogil:
        """The first place with that hash, or the free one where it would be."""
        cdef size_t at = hash & self._mask
        while self._places[at].block != NULL and self._places[at].hash != hash:
            at = (at + 1) & self._mask
        return &self._places[at]

    cdef Place* _place(self, const char* key, Py_ssize_t size, size_t hash) noexcept nogil:
        """That of a key, or the free one where it would be."""
        cdef size_t at = <uint32_t>hash & self._mask
        cdef Place* place
        while True:
            place = &self._places[at]
            if place.block == NULL or (
                place.hash == <uint32_t>hash and place.block.key_size == size and not memcmp(key_in(place.block), key, size)
            ):
                return place
            at = (at + 1) & self._mask

    cdef int write_raw(self, const char* key, Py_ssize_t key_size, size_t hash, const uint8_t* row, Py_ssize_t size) except -1:
        """Put a row under a key; neither may lie in the old block."""
        cdef Place* place = self._place(key, key_size, hash)
        cdef Block* block = place.block
        cdef Py_ssize_t needed = bytes_for(key_size + size)
        if needed > 0x7FFFFFFF:
            raise ValueError(f"a row of {size} bytes")
        if block == NULL:
            if 8 * (self._count + 1) > 5 * <Py_ssize_t>(self._mask + 1):
                self._grow()
                place = self._place(key, key_size, hash)
            place.block, place.hash, place.used = allocate(needed), <uint32_t>hash, 0
            self._count += 1
            self._bytes += needed
        else:
            place.used = 1
            if needed != bytes_of(block):
                place.block = allocate(needed)
                self._bytes += needed - bytes_of(block)
                release(block)
        if place.block != block:
            block = place.block
            block.key_size = <uint32_t>key_size
            memcpy(key_in(block), key, key_size)
        block.size = <uint32_t>size
        memcpy(row_in(block), row, size)
        return 0

    cdef int _grow(self) except -1:
        cdef Place* old = self._places
        cdef size_t places = self._mask + 1, at
        self._places = <Place*>calloc(2 * places, sizeof(Place))
        if self._places == NULL:
            self._places = old
            raise MemoryError
        self._mask = 2 * places - 1
        for at in range(places):
            if old[at].block != NULL:
                self._empty(old[at].hash)[0] = old[at]
        free(old)
        return 0

    cdef Place* _empty(self, uint32_t hash) noexcept nogil:
        cdef size_t at = hash & self._mask
        while self._places[at].block != NULL:
            at = (at + 1) & self._mask
        return &self._places[at]

    cdef int remove(self, const char* key, Py_ssize_t size, size_t hash) noexcept:
        cdef Place* place = self._place(key, size, hash)
        if place.block != NULL:
            self._free(place)
        return 0

    cdef void _free(self, Place* place) noexcept:
        """Let a row go, and move those behind it up that belong before them."""
        cdef size_t gap = place - self._places, at = gap, home
        self._bytes -= bytes_of(place.block)
        self._count -= 1
        release(place.block)
        while True:
            at = (at + 1) & self._mask
            if self._places[at].block == NULL:
                break
            home = self._places[at].hash & self._mask
            if ((at - home) & self._mask) >= ((at - gap) & self._mask):
                self._places[gap] = self._places[at]
                gap = at
        self._places[gap].block = NULL
