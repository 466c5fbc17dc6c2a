# A set of 64-bit numbers, for the ids that are remembered: eight bytes a place, and no object for a number. Included by
# `kernel.pyx`.

cdef uint64_t SALT = int.from_bytes(urandom(8), "little") | 1       # nobody can choose ids that meet in one place


cdef class Numbers:
    """What `set[int]` is, as far as `streams.fold.ring` asks for it. 0 is no place's number, so it is told apart."""

    cdef uint64_t* _places
    cdef uint64_t _mask
    cdef int _shift
    cdef Py_ssize_t _count
    cdef bint _zero

    def __cinit__(self):
        self._allot(10)

    def __dealloc__(self):
        free(self._places)

    def __len__(self):
        return self._count + self._zero

    def __iter__(self):
        cdef uint64_t at
        cdef list found = [0] if self._zero else []
        for at in range(self._mask + 1):
            if self._places[at]:
                found.append(self._places[at])
        return iter(found)

    def __contains__(self, uint64_t number):
        return self.has(number)

    def add(self, uint64_t number):
        self.put(number)

    def update(self, const uint64_t[::1] numbers):
        cdef Py_ssize_t k
        for k in range(numbers.shape[0]):
            self.put(numbers[k])

    def difference_update(self, const uint64_t[::1] numbers):
        cdef Py_ssize_t k
        for k in range(numbers.shape[0]):
            self.take(numbers[k])

    def clear(self):
        self._allot(10)

    cdef int _allot(self, int bits) except -1:
        cdef uint64_t* places = <uint64_t*>calloc(<size_t>1 << bits, 8)
        if places == NULL:
            raise MemoryError
        free(self._places)
        self._places, self._mask, self._shift = places, (<uint64_t>1 << bits) - 1, 64 - bits
        self._count, self._zero = 0, False
        return 0

    cdef inline uint64_t home(self, uint64_t number) noexcept nogil:
        return number * SALT >> self._shift

    cdef inline void fetch(self, uint64_t number) noexcept nogil:
        fetch_ahead(&self._places[self.home(number)])

    cdef inline uint64_t _at(self, uint64_t number) noexcept nogil:
        """Where it is, or the free place where it would be."""
        cdef uint64_t at = self.home(number)
        while self._places[at] and self._places[at] != number:
            at = (at + 1) & self._mask
        return at

    cdef inline bint has(self, uint64_t number) noexcept nogil:
        return self._places[self._at(number)] != 0 if number else self._zero

    cdef int put(self, uint64_t number) except -1:
        cdef uint64_t at
        if not number:
            self._zero = True
            return 0
        at = self._at(number)
        if self._places[at]:
            return 0
        if 3 * <uint64_t>self._count > 2 * self._mask:
            self._grow()
            at = self._at(number)
        self._places[at] = number
        self._count += 1
        return 0

    cdef int _grow(self) except -1:
        cdef uint64_t* old = self._places
        cdef uint64_t places = self._mask + 1, at
        cdef bint zero = self._zero
        self._places = NULL
        try:
            self._allot(65 - self._shift)
        except MemoryError:
            self._places = old
            raise
        self._zero = zero
        for at in range(places):
            if old[at]:
                self.put(old[at])
        free(old)
        return 0

    cdef void take(self, uint64_t number) noexcept:
        """Out of it; those behind it that belong before them move up."""
        cdef uint64_t gap, at
        if not number:
            self._zero = False
            return
        gap = at = self._at(number)
        if not self._places[gap]:
            return
        self._count -= 1
        while True:
            at = (at + 1) & self._mask
            if not self._places[at]:
                break
            if ((at - self.home(self._places[at])) & self._mask) >= ((at - gap) & self._mask):
                self._places[gap] = self._places[at]
                gap = at
        self._places[gap] = 0
