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

cdef struct Place:
    Block* block                        # NULL: free
    uint32_t hash
    uint32_t used                       # since `cold` came by

cdef inline uint8_t* key_in(Block* block) noexcept nogil:
    return <uint8_t*>block + sizeof(Block)

cdef inline uint8_t* row_in(Block* block) noexcept nogil:
    return key_in(block) + block.key_size

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


@cython.no_gc
cdef class Heap:
    """`streams.fold.rows.PlainHeap`. What goes first, when some have to, are rows that were not used lately."""

    cdef Slabs _slabs
    cdef Place* _places
    cdef size_t _mask, _hand
    cdef Py_ssize_t _count, _bytes

    def __cinit__(self):
        self._slabs = Slabs()
        self._places = <Place*>calloc(LEAST_PLACES, sizeof(Place))
        if self._places == NULL:
            raise MemoryError
        self._mask = LEAST_PLACES - 1

    def __dealloc__(self):
        cdef size_t at
        if self._places != NULL:
            for at in range(self._mask + 1):
                if self._places[at].block != NULL and self._places[at].block.slab == NONE:
                    free(self._places[at].block)
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

    @property
    def reserved(self):
        return self._slabs.size

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
            size -= self._slabs.bytes_of(place.block)
        return found

    def tidy(self):
        cdef int size
        cdef uint32_t n
        for size in range(1, SIZES):
            n = self._slabs.sparse(size)
            while n != NONE:
                self._empty_slab(n)
                n = self._slabs.sparse(size)

    cdef int _empty_slab(self, uint32_t n) except -1:
        cdef Slab* slab = self._slabs.leave(n)
        cdef Block* block
        cdef Block* other
        cdef uint32_t at, k, count = 0
        cdef Block* blocks[MOST_BLOCKS]
        cdef uint32_t hashes[MOST_BLOCKS]
        for at in range(slab.fresh // slab.bytes):
            block = <Block*>(slab.data + at * slab.bytes)
            if block.key_size != NONE:
                blocks[count], hashes[count] = block, <uint32_t>_Py_HashBytes(key_in(block), block.key_size)
                fetch_ahead(&self._places[hashes[count] & self._mask])
                count += 1
        for k in range(count):
            block = blocks[k]
            other = self._slabs.allocate(slab.bytes)  # others have room, so there is no new one
            other.key_size, other.size = block.key_size, block.size
            memcpy(key_in(other), key_in(block), block.key_size + block.size)
            self._at(block, hashes[k]).block = other
        self._slabs.give_back(n)
        return 0

    cdef Place* _at(self, Block* block, uint32_t hash) noexcept nogil:
        """The place of a block that has one."""
        cdef size_t at = hash & self._mask
        while self._places[at].block != block:
            at = (at + 1) & self._mask
        return &self._places[at]

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
            place.block, place.hash, place.used = self._slabs.allocate(needed), <uint32_t>hash, 0
            self._count += 1
            self._bytes += needed
        else:
            place.used = 1
            if needed != self._slabs.bytes_of(block):
                place.block = self._slabs.allocate(needed)
                self._bytes += needed - self._slabs.bytes_of(block)
                self._slabs.release(block)
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
        self._bytes -= self._slabs.bytes_of(place.block)
        self._count -= 1
        self._slabs.release(place.block)
        while True:
            at = (at + 1) & self._mask
            if self._places[at].block == NULL:
                break
            home = self._places[at].hash & self._mask
            if ((at - home) & self._mask) >= ((at - gap) & self._mask):
                self._places[gap] = self._places[at]
                gap = at
        self._places[gap].block = NULL
