# Memory for the blocks of a heap: slabs that hold blocks of one size each. With malloc and free for each block these
# were an eighth of a worker's time, and are a sixteenth. Included by `kernel.pyx`; `heap.pxi` says what is in a block.

cdef enum:
    GRAIN = 32          # sizes of blocks are multiples of it
    LARGEST = 4_096     # a larger block is malloc's own,
    COARSE = 512        # and a multiple of this
    SLAB = 32_768       # bytes that hold blocks of one size
    SIZES = 129         # from 0 to `LARGEST`, in grains
    MOST_BLOCKS = 1_024 # in a slab
    NONE = 0xFFFFFFFF

cdef struct Block:
    uint32_t key_size, size, slab       # bytes of the key (`NONE`: the block is free) and of the row; where the block lies

cdef struct Slab:
    uint8_t* data
    uint32_t bytes                      # of each of its blocks
    uint32_t live                       # blocks in use
    uint32_t fresh, free                # what was never in use begins here; the last block that is free again
    uint32_t after, before              # slabs of the same size with room

cdef struct Size:
    uint32_t first, last                # slabs with room, the one that has had some for longest last
    uint32_t slabs
    Py_ssize_t live                     # blocks in use

cdef inline Py_ssize_t bytes_for(Py_ssize_t key_and_row) noexcept nogil:
    """Of the block that holds so many."""
    cdef Py_ssize_t size = sizeof(Block) + key_and_row, grain = GRAIN if size <= LARGEST else COARSE
    return (size + grain - 1) // grain * grain

cdef inline bint is_full(Slab* slab) noexcept nogil:
    return slab.free == NONE and slab.fresh + slab.bytes > SLAB

@cython.final
cdef class Slabs:
    """Blocks are asked for where room is newest, so that slabs which empty go on to do so."""

    cdef Slab* _slabs
    cdef uint32_t _known, _room, _spare     # `_spare`: one without memory, and more `after` it
    cdef Size _sizes[SIZES]

    def __cinit__(self):
        cdef int n
        self._spare = NONE
        for n in range(SIZES):
            self._sizes[n].first = self._sizes[n].last = NONE

    def __dealloc__(self):
        cdef uint32_t n
        for n in range(self._known):
            free(self._slabs[n].data)
        free(self._slabs)

    @property
    def size(self):
        """Bytes of memory, those of large blocks aside."""
        cdef Py_ssize_t count = 0
        cdef int n
        for n in range(SIZES):
            count += self._sizes[n].slabs
        return count * SLAB

    cdef Py_ssize_t bytes_of(self, Block* block) noexcept nogil:
        if block.slab == NONE:
            return bytes_for(<Py_ssize_t>block.key_size + block.size)
        return self._slabs[block.slab].bytes

    cdef void _link(self, uint32_t n) noexcept:
        cdef Size* size = &self._sizes[self._slabs[n].bytes // GRAIN]
        self._slabs[n].after, self._slabs[n].before = size.first, NONE
        if size.first == NONE:
            size.last = n
        else:
            self._slabs[size.first].before = n
        size.first = n

    cdef void _unlink(self, uint32_t n) noexcept:
        cdef Slab* slab = &self._slabs[n]
        cdef Size* size = &self._sizes[slab.bytes // GRAIN]
        if slab.before == NONE:
            size.first = slab.after
        else:
            self._slabs[slab.before].after = slab.after
        if slab.after == NONE:
            size.last = slab.before
        else:
            self._slabs[slab.after].before = slab.before

    cdef uint32_t _new(self, Py_ssize_t size) except? NONE:
        cdef Slab* more
        cdef uint32_t n = self._spare
        if n == NONE and self._known == self._room:
            more = <Slab*>realloc(self._slabs, sizeof(Slab) * (2 * self._room + 64))
            if more == NULL:
                raise MemoryError
            self._slabs, self._room = more, 2 * self._room + 64
        cdef uint8_t* data = <uint8_t*>malloc(SLAB + 64)       # `Heap.fetch` reads on behind the last block
        if data == NULL:
            raise MemoryError
        if n == NONE:
            n, self._known = self._known, self._known + 1
        else:
            self._spare = self._slabs[n].after
        more = &self._slabs[n]
        more.data, more.bytes, more.live, more.fresh, more.free = data, <uint32_t>size, 0, 0, NONE
        self._sizes[size // GRAIN].slabs += 1
        self._link(n)
        return n

    cdef Slab* leave(self, uint32_t n) noexcept:
        """Nothing is allocated in it any more. Whoever says so moves its blocks and gives it back."""
        self._unlink(n)
        self._sizes[self._slabs[n].bytes // GRAIN].live -= self._slabs[n].live
        return &self._slabs[n]

    cdef void give_back(self, uint32_t n) noexcept:
        """The memory of one that is empty and has no place among those with room."""
        cdef Slab* slab = &self._slabs[n]
        free(slab.data)
        self._sizes[slab.bytes // GRAIN].slabs -= 1
        slab.data, slab.after, self._spare = NULL, self._spare, n

    cdef Block* allocate(self, Py_ssize_t size) except NULL:
        cdef Block* block
        cdef Slab* slab
        cdef uint32_t n
        if size > LARGEST:
            block = <Block*>malloc(size)
            if block == NULL:
                raise MemoryError
            block.slab = NONE
            return block
        n = self._sizes[size // GRAIN].first
        if n == NONE:
            n = self._new(size)
        slab = &self._slabs[n]
        if slab.free == NONE:
            block = <Block*>(slab.data + slab.fresh)
            slab.fresh += slab.bytes
        else:
            block = <Block*>(slab.data + slab.free)
            slab.free = block.size
        slab.live += 1
        self._sizes[size // GRAIN].live += 1
        block.slab = n
        if is_full(slab):
            self._unlink(n)
        return block

    cdef void release(self, Block* block) noexcept:
        cdef uint32_t n = block.slab
        cdef Slab* slab
        if n == NONE:
            free(block)
            return
        slab = &self._slabs[n]
        if is_full(slab):
            self._link(n)
        block.key_size, block.size, slab.free = NONE, slab.free, <uint32_t>(<uint8_t*>block - slab.data)
        slab.live -= 1
        self._sizes[slab.bytes // GRAIN].live -= 1
        if not slab.live:
            self._unlink(n)
            self.give_back(n)

    cdef uint32_t sparse(self, int size) noexcept:
        """A slab whose blocks others of that size can take, where a sixteenth of what they hold is free, or `NONE`."""
        cdef Size* of = &self._sizes[size]
        cdef Py_ssize_t each = SLAB // (size * GRAIN), room = of.slabs * each - of.live
        return of.last if room >= 2 * each and 16 * room > of.slabs * each else <uint32_t>NONE
