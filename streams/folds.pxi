# The folds of chunks of records, as `streams.fold` defines them. Included by `kernel.pyx`.
#
# What is rare (a record that cannot be folded, a gap, a row that is too large) is asked of the fold itself.

cdef struct Handed:
    Buffer packed
    Py_ssize_t* ends            # of each event in it
    Py_ssize_t n, room


cdef class Outbox:
    """`streams.fold.deltas.Outbox`, packed at once."""

    cdef Handed* _handed
    cdef Py_ssize_t _partitions

    def __cinit__(self, Py_ssize_t partitions):
        self._handed = <Handed*>malloc(sizeof(Handed) * partitions)
        if self._handed == NULL:
            raise MemoryError
        memset(self._handed, 0, sizeof(Handed) * partitions)
        self._partitions = partitions

    def __dealloc__(self):
        for k in range(self._partitions):
            free(self._handed[k].packed.data)
            free(self._handed[k].ends)
        free(self._handed)

    cdef int add(self, Event* event, Text* categories) except -1:
        cdef Text* key = &event.texts[<int>ITEM_ID]
        cdef Handed* to = &self._handed[murmur2(<const uint8_t*>key.data, key.size) % self._partitions]
        cdef Py_ssize_t* ends
        if to.n == to.room:
            ends = <Py_ssize_t*>realloc(to.ends, sizeof(Py_ssize_t) * (2 * to.room + 64))
            if ends == NULL:
                raise MemoryError
            to.ends, to.room = ends, 2 * to.room + 64
        pack_event(&to.packed, event, categories)
        to.ends[to.n] = to.packed.size
        to.n += 1
        return 0

    def take(self, int64_t source, dict passed, Py_ssize_t most):
        cdef Handed* handed
        cdef Py_ssize_t target
        records = []
        for target in range(self._partitions):
            handed = &self._handed[target]
            if handed.n:
                first = passed.get(target, 0)
                self._cut(handed, source, first, 0, handed.n, most, target, records)
                passed[target] = first + handed.n
                handed.n = handed.packed.size = 0
        return records

    cdef int _cut(self, Handed* handed, int64_t source, int64_t first, Py_ssize_t start, Py_ssize_t end, Py_ssize_t most, target, list records) except -1:
        cdef uint8_t head[32]
        cdef Buffer b
        cdef Py_ssize_t at = handed.ends[start - 1] if start else 0, half = start + (end - start) // 2
        b.data, b.size, b.room = head, 0, 32
        put_big_endian(&b, 0x93, 0, 0)
        pack_integer(&b, source)
        pack_integer(&b, first)
        pack_array(&b, end - start)
        cdef Py_ssize_t size = b.size + handed.ends[end - 1] - at
        if size <= most:
            data = PyBytes_FromStringAndSize(NULL, size)
            memcpy(PyBytes_AS_STRING(data), head, b.size)
            memcpy(PyBytes_AS_STRING(data) + b.size, handed.packed.data + at, size - b.size)
            records.append((target, data))
        elif end - start == 1:
            raise ValueError(f"an event of {size} bytes does not fit into a record")
        else:
            self._cut(handed, source, first, start, half, most, target, records)
            self._cut(handed, source, first + half - start, half, end, most, target, records)
        return 0


cdef struct Touched:
    int64_t newest, version
    Py_ssize_t first, last      # its events; -1 while there is none
    uint8_t* row                # NULL where there is none
    Py_ssize_t size


cdef class Touching:
    """The keys that a chunk of records touches, with their rows and events."""

    cdef Kernel _kernel
    cdef Events _events
    cdef Touched* _touched
    cdef Py_ssize_t _room
    cdef dict _index
    cdef Heap _held
    cdef object _elsewhere
    cdef list _alive            # rows from elsewhere

    def __cinit__(self, Kernel kernel, *_):
        self._kernel, self._events = kernel, Events()

    def __dealloc__(self):
        free(self._touched)

    cdef int _begin(self, fold) except -1:
        self._events.clear()
        self._index, self._held, self._elsewhere, self._alive = {}, fold.rows.held, fold.rows.get, []
        return 0

    cdef Touched* _touch(self, bytes key) except NULL:
        """A key that was not touched yet. Its row stays where it is until `_advance`."""
        cdef Py_ssize_t n = len(self._index)
        cdef Touched* more
        cdef Block* block
        cdef bytes row
        if n == self._room:
            more = <Touched*>realloc(self._touched, sizeof(Touched) * (2 * n + 64))
            if more == NULL:
                raise MemoryError
            self._touched, self._room = more, 2 * n + 64
        self._index[key] = n
        more = &self._touched[n]
        more.newest, more.version, more.first, more.last, more.row, more.size = 0, -1, -1, -1, NULL, 0
        block = self._held.find(key)
        if block != NULL:
            more.row, more.size = row_in(block), block.size
            return more
        row = self._elsewhere(key)
        if row is not None:
            self._alive.append(row)
            more.row, more.size = <uint8_t*>PyBytes_AS_STRING(row), PyBytes_GET_SIZE(row)
        return more

    cdef void _give(self, Touched* mine, Py_ssize_t event, int64_t version) noexcept:
        if mine.first < 0:
            mine.first = event
        else:
            self._events.at[mine.last].next = event
        mine.last, mine.version = event, version

    cdef int _advance(self, fold, Py_ssize_t most) except -1:
        cdef Py_ssize_t n = 0
        cdef Touched* mine
        cdef dict changed = fold.rows.changed
        for key in self._index:
            if n + AHEAD < len(self._index):
                mine = &self._touched[n + AHEAD]
                fetch_bytes(mine.row, mine.size)
            mine = &self._touched[n]
            n += 1
            if mine.first < 0:
                continue
            self._kernel.fold(mine.row, mine.size, self._events, mine.first, mine.version)
            if self._kernel.made > most:
                fold.too_large(key, mine.version, self._kernel.made)
            else:
                self._held.write(key, self._kernel.row, self._kernel.made)
                changed[key] = None
        self._index = self._held = self._elsewhere = self._alive = None
        self._events.clear()
        return 0


cdef class Users(Touching):
    """`UserFold.fold`, with what it hands to the items in `outbox`."""

    cdef readonly Outbox outbox
    cdef int64_t _partition, _partitions, _tolerance, _lateness

    def __init__(self, kernel, int64_t partition, int64_t partitions, int64_t tolerance, int64_t lateness):
        self.outbox = Outbox(partitions)
        self._partition, self._partitions, self._tolerance, self._lateness = partition, partitions, tolerance, lateness

    def fold(self, fold, list records, Py_ssize_t most):
        with self._kernel._lock:
            self._begin(fold)
            self._fetch(fold.ring.seen, records)
            self._read(fold, records)
            self._advance(fold, most)

    cdef int _fetch(self, Numbers seen, list records) except -1:
        cdef Reader reader
        cdef Text event_id
        cdef list keys = []
        for _, key, value in records:
            if type(key) is bytes and type(value) is bytes:
                keys.append(key)
                reader = reader_of(value)
                if skip(&reader, b'{"event_id":') and quoted(&reader, &event_id, NATIVE_HASH):
                    seen.fetch(hash_of(event_id))
        return self._held.fetch(keys)

    cdef int _read(self, fold, list records) except -1:
        cdef object meta = fold.meta, ring = fold.ring, found
        cdef Py_ssize_t room = ring.room
        cdef list fresh = []
        cdef Numbers seen = fold.ring.seen
        cdef int64_t offset, expected = meta.next_offset
        cdef int64_t applied = 0, late = 0, duplicate = 0
        cdef uint64_t fingerprint = 0, number
        cdef Events events = self._events
        cdef Event* event
        cdef Touched* mine
        cdef bytes key
        try:
            for record in records:
                offset, found, value = record
                if offset != expected:
                    meta.next_offset = expected
                    fold.expect(offset)
                expected = offset + 1
                if not self._read_one(found, value):
                    plain = fold.read(record)
                    if plain is None:
                        continue
                    events.add(plain)
                event, key = &events.at[events.n - 1], found
                number = hash_of(event.event_id)
                if seen.has(number):
                    duplicate += 1
                    events.drop()
                    continue
                found = self._index.get(key)
                if found is None:
                    mine = self._touch(key)
                    if mine.row != NULL:
                        mine.newest = self._kernel.newest(mine.row, mine.size)
                    elif not self._is_ours(key):
                        del self._index[key]
                        fold.reject_foreign(record)
                        events.drop()
                        continue
                else:
                    mine = &self._touched[<Py_ssize_t>found]
                if event.event_time < mine.newest - self._lateness:
                    late += 1
                    events.drop()
                    continue
                mine.newest = max(mine.newest, event.event_time)
                seen.put(number)
                fresh.append(number)
                if len(fresh) == room:  # what is forgotten then must not depend on how records are cut into chunks
                    ring.extend(fresh)
                    fresh, room = [], ring.room
                applied += 1
                fingerprint += number
                self._give(mine, events.n - 1, offset)
                self.outbox.add(event, events.categories + event.first)
        finally:
            ring.extend(fresh)
            meta.next_offset = expected
            meta.applied += applied
            meta.late += late
            meta.duplicate += duplicate
            meta.fingerprint = (meta.fingerprint + fingerprint) & 0xFFFFFFFFFFFFFFFF
        return 0

    cdef int _read_one(self, key, value) except -1:
        """Whether the record is a plain event under its own key, which then is the last of the events."""
        cdef Text* user
        if type(key) is not bytes or type(value) is not bytes or not self._events.add_json(value, self._tolerance):
            return 0
        user = &self._events.at[self._events.n - 1].texts[<int>USER_ID]
        if user.size != PyBytes_GET_SIZE(key) or memcmp(user.data, PyBytes_AS_STRING(key), user.size) != 0:
            self._events.drop()
            return 0
        return 1

    cdef bint _is_ours(self, bytes key):
        return murmur2(<const uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key)) % self._partitions == self._partition


cdef class Items(Touching):
    """`ItemFold.fold`."""

    def fold(self, fold, list records, Py_ssize_t most):
        with self._kernel._lock:
            self._begin(fold)
            self._read(fold, records)
            self._advance(fold, most)

    cdef int _read(self, fold, list records) except -1:
        cdef object meta = fold.meta
        cdef int64_t offset, expected = meta.next_offset, source = 0, first = 0
        cdef Events events = self._events
        cdef Touched* mine
        cdef Text* item
        cdef Py_ssize_t k, start
        cdef bytes key
        cdef list keys
        try:
            for record in records:
                offset, _, value = record
                if offset < expected or expected < 0:
                    meta.next_offset = expected
                    fold.expect(offset)
                expected, start = offset + 1, events.n
                if type(value) is bytes and events.add_delta(value, &source, &first):
                    fold.take_up(source, first, events.n - start)
                else:
                    plain = fold.read(record)
                    if plain is None:
                        continue
                    fold.take_up(plain.source, plain.first, len(plain.events))
                    for event in plain.events:
                        events.add(event)
                keys = []
                for k in range(start, events.n):
                    item = &events.at[k].texts[<int>ITEM_ID]
                    keys.append(item.data[: item.size])
                self._held.fetch(keys)
                for k, key in enumerate(keys, start):
                    found = self._index.get(key)
                    mine = self._touch(key) if found is None else &self._touched[<Py_ssize_t>found]
                    self._give(mine, k, offset)
        finally:
            meta.next_offset = expected
        return 0
