# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""`Profile.advance`, `Profile.values` and the folds of `streams.fold`, compiled.

It does what `Profile.advance_plainly`, the aggregates' own `update`, `merge`, `value`, `pack` and `unpack`, and the folds'
`fold_plainly` say, on the packed bytes themselves: from an event's JSON to its key's row and to the delta that hands it on, with
no object for an event; a slot that no event reaches is copied, one that is reached is edited in place. The law tests hold
the two against each other byte for byte. It is built where there is a C compiler; without one nothing changes but the speed.

Every length that is read from a row, an event or a delta is checked before it is used. Little-endian machines only, as the
rows are.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from libc.math cimport ldexp, llrint, pow
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort, realloc
from libc.string cimport memcmp, memcpy, memmove, memset, strlen

from os import urandom
from threading import Lock

from streams.aggregates import EVER as _EVER
from streams.aggregates import UNIT, hash64
from streams.events import CATEGORIES_MAX, CATEGORY_MAX_CHARS, ID_MAX_BYTES, LATEST, VALUE_MAX

include "slots.pxi"
include "hashes.pxi"
include "events.pxi"


cdef class Kernel:
    """The compiled `advance` and `read` of one profile, which is made from its declaration.

    `features`: for each its signature, the name of its class, [(tile size, tiles kept)], for each of its windows [(index
    of its series, window, tile size)], the field that it reads, its bound, its half-life, whether it keeps the first, and
    what it says where it has seen nothing. `reached(type)` names those that a type of event reaches.
    `tile` is 0 for a profile without tiles.
    """

    cdef Spec* _specs
    cdef uint32_t* _signatures
    cdef Py_ssize_t _count
    cdef int _id
    cdef int64_t _tile, _open
    cdef list _blanks
    cdef object _reached, _lock
    cdef dict _programs
    cdef list _commonest        # those that came first, found without a look into the dictionary
    cdef Events _events
    cdef Slot* _base
    cdef Tile* _tiles
    cdef Py_ssize_t _tiles_held, _tiles_room
    cdef uint8_t* row           # what `fold` made, until the next time
    cdef Py_ssize_t made, _room

    def __cinit__(self, int profile, list features, object reached, int64_t tile, int64_t open_tiles):
        cdef Py_ssize_t i
        cdef int s
        self._count, self._id, self._tile, self._open = len(features), profile, tile, open_tiles
        self._specs = <Spec*>malloc(sizeof(Spec) * (self._count + 1))
        self._signatures = <uint32_t*>malloc(4 * (self._count + 1))
        self._base = <Slot*>malloc(sizeof(Slot) * (self._count + 1))
        if self._specs == NULL or self._signatures == NULL or self._base == NULL:
            raise MemoryError
        memset(self._base, 0, sizeof(Slot) * (self._count + 1))
        self._blanks, self._programs, self._commonest, self._reached = [], {}, [], reached
        self._lock, self._events = Lock(), Events()
        for i, (signature, kind, sizes, reads, by, most, half_life, first, blank) in enumerate(features):
            if len(sizes) > MOST_SIZES or len(reads) > MOST_READS:
                raise ValueError(f"a feature has {len(sizes)} tile sizes and {len(reads)} windows")
            memset(&self._specs[i], 0, sizeof(Spec))
            self._signatures[i] = signature
            self._specs[i].kind = KINDS[kind]
            self._specs[i].sizes = len(sizes)
            for s, (size, keep) in enumerate(sizes):
                self._specs[i].size[s], self._specs[i].keep[s] = size, keep
            self._specs[i].reads = len(reads)
            for s, (series, window, size) in enumerate(reads):
                self._specs[i].series[s], self._specs[i].window[s], self._specs[i].tile[s] = series, window, size
            self._specs[i].most, self._specs[i].half_life, self._specs[i].first = most, half_life, first
            self._specs[i].field = FIELDS[by]
            self._blanks.append(blank)

    def __dealloc__(self):
        cdef Py_ssize_t t
        for t in range(self._tiles_room):
            free(self._tiles[t].slots)
        free(self._tiles)
        free(self.row)
        free(self._base)
        free(self._signatures)
        free(self._specs)

    def users(self, int64_t partition, int64_t partitions, int64_t tolerance, int64_t lateness):
        """The fold of `events` with this profile."""
        return Users(self, partition, partitions, tolerance, lateness)

    def items(self):
        """The fold of `item-deltas` with this profile."""
        return Items(self)

    def advance(self, bytes row, events, int64_t version):
        """The row after these events. Raises `ValueError` where the bytes are no row of this profile."""
        cdef Py_ssize_t n = 0
        with self._lock:  # its scratch memory is one thread's at a time
            self._events.clear()
            for event in events:
                self._events.add(event)
                n += 1
                if n > 1:
                    self._events.at[n - 2].next = n - 1
            if row is None:
                self.fold(NULL, 0, self._events, 0 if n else -1, version)
            else:
                self.fold(<uint8_t*>PyBytes_AS_STRING(row), PyBytes_GET_SIZE(row), self._events, 0 if n else -1, version)
            return PyBytes_FromStringAndSize(<char*>self.row, self.made)

    cdef int fold(self, uint8_t* data, Py_ssize_t end, Events events, Py_ssize_t first, int64_t version) except -1:
        """Make `row` of a row (NULL: none) and the events that follow each other from `first` on."""
        cdef int64_t event_time = 0, created = 0, newest = 0, at, last, index
        cdef Slot* part
        cdef Event* event
        try:
            if data != NULL:
                self._check(data, end)
                event_time, created, newest = i64(data + 12), i64(data + 20), i64(data + 28)
                self._load(data, end)
            while first >= 0:
                event = &events.at[first]
                at = event.event_time
                newest, created = max(newest, at), max(created, event.arrival)
                if self._tile:
                    event_time = newest
                    last, index = newest // self._tile - self._open, at // self._tile
                    self._close(last)
                    part = self._base if index < last else self._part(<int32_t>index)
                else:
                    event_time = at if at > event_time else event_time + 1
                    part = self._base
                self._update(part, event, events.categories + event.first)
                first = event.next
            return self._store(version, event_time, created, newest)
        finally:
            self._reset()

    cdef int64_t newest(self, const uint8_t* data, Py_ssize_t end) except? -1:
        """The time of a row's newest event."""
        self._check(data, end)
        return i64(data + 28)

    cdef int _check(self, const uint8_t* data, Py_ssize_t end) except -1:
        if end < HEADER or memcmp(data, b"fs\x04", 3) != 0 or data[3] != self._id:
            raise ValueError(f"{end} bytes are no row of this profile")
        return 0

    # Reading.

    def read(self, bytes row, int64_t at, int64_t before):
        """The value of every column at an instant, and the first instant after it at which one changes by itself.

        Of a profile with tiles those from index `before` on do not count, and the end of the first of them is such an
        instant. Ages change always, and are left out of that. Raises `ValueError`.
        """
        with self._lock:
            return self._read(row, at, before)

    cdef tuple _read(self, bytes row, int64_t at, int64_t before):
        cdef int64_t until = EVER
        cdef list values = []
        cdef Py_ssize_t i
        cdef uint8_t* data = <uint8_t*>PyBytes_AS_STRING(row)
        try:
            self._check(data, PyBytes_GET_SIZE(row))
            self._load(data, PyBytes_GET_SIZE(row))
            if self._tile:
                self._close(before)
                if self._tiles_held:
                    until = (<int64_t>self._tiles[0].index + 1) * self._tile
            for i in range(self._count):
                if self._base[i].size:
                    self._value(&self._base[i], &self._specs[i], at, &until, self._blanks[i], values)
                else:
                    values += [[] if isinstance(blank, list) else blank for blank in self._blanks[i]]
            return values, until
        finally:
            self._reset()

    cdef int _value(self, Slot* slot, Spec* spec, int64_t at, int64_t* until, tuple blank, list values) except -1:
        cdef Series series[MOST_SIZES]
        cdef Series totals[MOST_SIZES]
        cdef Py_ssize_t end = 0
        cdef int s, r
        cdef object count, total
        if spec.kind == SINCE:
            need(slot, 8)
            total = at
            values.append(min(total - i64(slot.data), spec.most) / SECOND)
        elif spec.kind == RECENT:
            self._recent(slot, at, values)
        elif spec.kind == DECAYED:
            self._decayed(slot, spec, at, values)
        elif spec.kind == DISTINCT:
            for s in range(spec.sizes):
                end = sketch_view(slot, end, &series[s])
            for r in range(spec.reads):
                values.append(distinct_value(slot, &series[spec.series[r]], spec, r, at, until))
        else:
            for s in range(spec.sizes):
                series_view(slot, end, &series[s])
                end = series[s].end
            if spec.kind == MEAN:
                for s in range(spec.sizes):
                    series_view(slot, end, &totals[s])
                    end = totals[s].end
            for r in range(spec.reads):
                s = spec.series[r]
                count = window_total(slot, &series[s], spec, r, at, until)
                if spec.kind == COUNT:
                    values.append(count)
                elif spec.kind == SUM:
                    values.append(count / UNIT)
                else:
                    total = window_total(slot, &totals[s], spec, r, at, NULL) / UNIT
                    values.append(total / count if count else blank[r])
        return 0

    cdef int _recent(self, Slot* slot, int64_t at, list values) except -1:
        cdef Times t
        cdef Py_ssize_t start = times_view(slot, &t), i, size
        cdef list texts = [None] * t.n, ages = [None] * t.n
        cdef object now = at
        for i in range(t.n):
            size = text_size(slot, t.end, i)
            texts[t.n - 1 - i] = PyUnicode_DecodeUTF8(<char*>slot.data + start, size, NULL)
            ages[t.n - 1 - i] = (now - time_at(slot, &t, i)) / SECOND
            start += size
        values.append(texts)
        values.append(ages)
        return 0

    cdef int _decayed(self, Slot* slot, Spec* spec, int64_t at, list values) except -1:
        need(slot, 12)
        cdef Py_ssize_t n = u32(slot.data + 8), i, start, size
        need(slot, 12 + 8 * n)
        start = texts_view(slot, 12 + 8 * n, n)
        cdef list keys = [None] * n, weights = [None] * n
        cdef object half = spec.half_life, now = at, landmark = i64(slot.data)
        cdef double factor = pow(2.0, <double>max(-((now - landmark * half) / half), -1_000.0))
        for i in range(n):
            size = text_size(slot, 12 + 8 * n, i)
            keys[i] = PyUnicode_DecodeUTF8(<char*>slot.data + start, size, NULL)
            weights[i] = f64(slot.data + 12 + 8 * i) * factor
            start += size
        values.append(keys)
        values.append(weights)
        return 0

    # Parts: a slot for each feature; `size` 0 where it has seen nothing.

    cdef int _clear(self, Slot* part) noexcept:
        cdef Py_ssize_t i
        for i in range(self._count):
            if part[i].room:
                free(part[i].data)
        memset(part, 0, sizeof(Slot) * self._count)
        return 0

    cdef int _reset(self) noexcept:
        cdef Py_ssize_t t
        self._clear(self._base)
        for t in range(self._tiles_held):
            self._clear(self._tiles[t].slots)
        self._tiles_held = 0
        return 0

    cdef Slot* _part(self, int32_t index) except NULL:
        """The part of a tile; a new one, in its order, where there is none."""
        cdef Py_ssize_t t = self._tiles_held, room, k
        cdef Tile* tiles
        cdef Tile spare
        while t > 0 and self._tiles[t - 1].index > index:
            t -= 1
        if t > 0 and self._tiles[t - 1].index == index:
            return self._tiles[t - 1].slots
        if self._tiles_held == self._tiles_room:
            room = self._tiles_room + 4
            tiles = <Tile*>realloc(self._tiles, sizeof(Tile) * room)
            if tiles == NULL:
                raise MemoryError
            self._tiles = tiles
            while self._tiles_room < room:
                self._tiles[self._tiles_room].slots = <Slot*>malloc(sizeof(Slot) * (self._count + 1))
                if self._tiles[self._tiles_room].slots == NULL:
                    raise MemoryError
                memset(self._tiles[self._tiles_room].slots, 0, sizeof(Slot) * (self._count + 1))
                self._tiles_room += 1
        spare = self._tiles[self._tiles_held]
        for k in range(self._tiles_held, t, -1):
            self._tiles[k] = self._tiles[k - 1]
        self._tiles[t] = spare
        self._tiles[t].index = index
        self._tiles_held += 1
        return self._tiles[t].slots

    cdef int _close(self, int64_t before) except -1:
        """Join the tiles below index `before` into the base."""
        cdef Tile spare
        cdef Py_ssize_t k
        while self._tiles_held and self._tiles[0].index < before:
            self._join(self._base, self._tiles[0].slots)
            self._clear(self._tiles[0].slots)
            spare = self._tiles[0]
            for k in range(1, self._tiles_held):
                self._tiles[k - 1] = self._tiles[k]
            self._tiles_held -= 1
            self._tiles[self._tiles_held] = spare
        return 0

    cdef int _join(self, Slot* part, Slot* other) except -1:
        cdef Py_ssize_t i, at, from_
        cdef int s, h
        cdef Spec* spec
        cdef Series series
        for i in range(self._count):
            if not other[i].size:
                continue
            if not part[i].size:
                if part[i].room:
                    free(part[i].data)
                part[i] = other[i]
                memset(&other[i], 0, sizeof(Slot))
                continue
            spec = &self._specs[i]
            if spec.kind == DISTINCT:
                sketch_join(&part[i], &other[i], spec)
            elif spec.kind == RECENT:
                recent_join(&part[i], &other[i], spec.most)
            elif spec.kind == SINCE:
                need(&other[i], 8)
                self._since(&part[i], i64(other[i].data), spec.first)
            else:
                at = from_ = 0
                for h in range(2 if spec.kind == MEAN else 1):
                    for s in range(spec.sizes):
                        at = series_join(&part[i], at, &other[i], from_, spec.keep[s])
                        series_view(&other[i], from_, &series)
                        from_ = series.end
        return 0

    # A row: its header, its base, and for a profile with tiles how many (u16) and each one's index (i32) and part.

    cdef int _load(self, uint8_t* data, Py_ssize_t end) except -1:
        cdef Py_ssize_t at = self._load_part(data, HEADER, end, self._base), n, t
        cdef int32_t index
        if self._tile:
            n = self._u16(data, at, end)
            at += 2
            for t in range(n):
                if at + 4 > end:
                    raise ValueError(f"tile {t} of {n} is missing")
                index = i32(data + at)
                if t and index <= self._tiles[self._tiles_held - 1].index:
                    raise ValueError("its tiles are out of order")
                at = self._load_part(data, at + 4, end, self._part(index))
        if at != end:
            raise ValueError(f"{end - at} bytes too many")
        return 0

    cdef Py_ssize_t _u16(self, uint8_t* data, Py_ssize_t at, Py_ssize_t end) except -1:
        cdef uint16_t value
        if at + 2 > end:
            raise ValueError(f"{end} bytes end before {at + 2}")
        memcpy(&value, data + at, 2)
        return value

    cdef Py_ssize_t _size(self, uint8_t* data, Py_ssize_t* at, Py_ssize_t end) except -1:
        """`streams.aggregates.packing.unpack_size`."""
        cdef Py_ssize_t size = 0
        cdef int i
        for i in range(5):
            if at[0] >= end:
                break
            size |= <Py_ssize_t>(data[at[0]] & 0x7F) << 7 * i
            at[0] += 1
            if data[at[0] - 1] < 0x80:
                return size
        raise ValueError(f"a size does not end at {at[0]} of {end} bytes")

    cdef Py_ssize_t _load_part(self, uint8_t* data, Py_ssize_t at, Py_ssize_t end, Slot* part) except -1:
        """How many slots (u16), for each its signature (u32), its size and its bytes. Returns where it ends."""
        cdef Py_ssize_t n = self._u16(data, at, end), k, size, i = 0, tried
        cdef uint32_t signature
        at += 2
        for k in range(n):
            if at + 4 > end:
                raise ValueError(f"{end} bytes end before {at + 4}")
            signature = u32(data + at)
            at += 4
            size = self._size(data, &at, end)
            if at + size > end:
                raise ValueError(f"{end} bytes end before {at + size}")
            for tried in range(self._count):  # slots lie in the order of declaration, so the first try mostly hits
                if i >= self._count:
                    i = 0
                if self._signatures[i] == signature:
                    part[i].data, part[i].size, part[i].room = data + at, size, 0
                    i += 1
                    break
                i += 1
            at += size
        return at

    cdef int _store(self, int64_t version, int64_t event_time, int64_t created, int64_t newest) except -1:
        cdef Py_ssize_t size = HEADER + self._part_size(self._base), t
        cdef uint16_t n = <uint16_t>self._tiles_held
        if self._tile:
            if self._tiles_held > 65_535:
                raise ValueError(f"{self._tiles_held} open tiles")
            size += 2
            for t in range(self._tiles_held):
                size += 4 + self._part_size(self._tiles[t].slots)
        cdef uint8_t* at
        if size > self._room:
            at = <uint8_t*>realloc(self.row, 2 * size)
            if at == NULL:
                raise MemoryError
            self.row, self._room = at, 2 * size
        self.made = size
        at = self.row
        memcpy(at, b"fs\x04", 3)
        at[3] = <uint8_t>self._id
        put64(at + 4, version)
        put64(at + 12, event_time)
        put64(at + 20, created)
        put64(at + 28, newest)
        at = self._store_part(at + HEADER, self._base)
        if self._tile:
            memcpy(at, &n, 2)
            at += 2
            for t in range(self._tiles_held):
                put32(at, <uint32_t>self._tiles[t].index)
                at = self._store_part(at + 4, self._tiles[t].slots)
        return 0

    cdef Py_ssize_t _part_size(self, Slot* part) noexcept:
        cdef Py_ssize_t size = 2, i
        for i in range(self._count):
            if part[i].size:
                size += 4 + varint_size(part[i].size) + part[i].size
        return size

    cdef uint8_t* _store_part(self, uint8_t* at, Slot* part) noexcept:
        cdef uint16_t n = 0
        cdef Py_ssize_t i
        cdef uint8_t* head = at
        at += 2
        for i in range(self._count):
            if part[i].size:
                put32(at, self._signatures[i])
                at = put_varint(at + 4, part[i].size)
                memcpy(at, part[i].data, part[i].size)
                at += part[i].size
                n += 1
        memcpy(head, &n, 2)
        return at

    # Events.

    cdef bytes _program(self, Text* text):
        """The features that a type of event reaches, as an array of `Reach`."""
        cdef bytes kind, program
        cdef list found
        cdef Reach* reach
        for kind, program in self._commonest:
            if PyBytes_GET_SIZE(kind) == text.size and not memcmp(PyBytes_AS_STRING(kind), text.data, text.size):
                return program
        kind = text.data[: text.size]
        program = self._programs.get(kind)
        if program is not None:
            return program
        found = self._reached(kind.decode())
        program = PyBytes_FromStringAndSize(NULL, len(found) * sizeof(Reach))
        reach = <Reach*>PyBytes_AS_STRING(program)
        for k, (i, _, least) in enumerate(found):
            reach[k].feature, reach[k].bounded = i, least is not None
            reach[k].least = 0.0 if least is None else least
        if len(self._programs) < 1_024:  # custom types are the clients' choice: do not grow with them for ever
            self._programs[kind] = program
            if len(self._commonest) < 16:
                self._commonest.append((kind, program))
        return program

    cdef int _update(self, Slot* part, Event* event, Text* categories) except -1:
        cdef bytes program = self._program(&event.texts[<int>TYPE])
        cdef Reach* reach
        cdef Py_ssize_t k
        cdef int64_t at = event.event_time, amount = llrint(event.value * 1e6)
        cdef Spec* spec
        cdef Slot* slot
        reach = <Reach*>PyBytes_AS_STRING(program)
        for k in range(PyBytes_GET_SIZE(program) // <Py_ssize_t>sizeof(Reach)):
            if reach[k].bounded and not (event.has_value and event.value >= reach[k].least):
                continue
            spec, slot = &self._specs[reach[k].feature], &part[reach[k].feature]
            if spec.kind == COUNT:
                self._add(slot, spec, at, 1, 0)
            elif spec.kind == SUM:
                if event.has_value:
                    self._add(slot, spec, at, amount, 0)
            elif spec.kind == MEAN:
                if event.has_value:
                    self._add(slot, spec, at, amount, 1)
            elif spec.kind == SINCE:
                self._since(slot, at, spec.first)
            elif spec.field == CATEGORIES:
                self._texts(slot, spec, at, categories, event.categories)
            else:
                self._texts(slot, spec, at, &event.texts[spec.field], event.texts[spec.field].size >= 0)
        return 0

    cdef int _add(self, Slot* slot, Spec* spec, int64_t at, int64_t amount, int mean) except -1:
        """Count an amount into every series; for a mean, one into each series of counts before."""
        cdef Py_ssize_t end = 0
        cdef int s, h
        if not slot.size:
            insert(slot, 0, 2 * spec.sizes * (1 + mean))
        for h in range(1 + mean):
            for s in range(spec.sizes):
                end = series_add(
                    slot, end, at // spec.size[s], 1 if mean and not h else amount, spec.keep[s]
                )
        return 0

    cdef int _since(self, Slot* slot, int64_t at, int first) except -1:
        if not slot.size:
            insert(slot, 0, 8)
            put64(slot.data, at)
            return 0
        need(slot, 8)
        if (at < i64(slot.data)) if first else (at > i64(slot.data)):
            own(slot, 0)
            put64(slot.data, at)
        return 0

    cdef int _texts(self, Slot* slot, Spec* spec, int64_t at, Text* texts, Py_ssize_t count) except -1:
        """The aggregates that read a text of the event."""
        cdef Py_ssize_t n, end
        cdef uint32_t hashes[32]
        cdef int s
        cdef Series series
        cdef int64_t epoch
        cdef double weight
        if not count and not (spec.kind == DECAYED and slot.size):
            return 0
        if spec.kind == RECENT:
            for n in range(count):
                if not slot.size:
                    times_begin(slot)
                recent_add(slot, at, <const uint8_t*>texts[n].data, texts[n].size, spec.most)
        elif spec.kind == DISTINCT:
            if count > 32:
                raise ValueError("an event has at most 32 categories")
            if not slot.size:
                insert(slot, 0, 2 * spec.sizes)
            for n in range(count):
                hashes[n] = <uint32_t>(hash_of(texts[n]) >> 32)
            end = 0
            for s in range(spec.sizes):
                sketch_keep(slot, end, at // spec.size[s], hashes, count, spec.keep[s], spec.most)
                end = sketch_view(slot, end, &series)
        else:
            if not slot.size:
                insert(slot, 0, 13)
            else:
                need(slot, 12)
                n = u32(slot.data + 8)
                need(slot, 12 + 8 * n)
                texts_view(slot, 12 + 8 * n, n)
            epoch = at // spec.half_life
            if epoch > i64(slot.data):
                decayed_advance(slot, epoch)
            own(slot, 0)
            weight = pow(2.0, <double>(at - i64(slot.data) * spec.half_life) / <double>spec.half_life)
            for n in range(count):
                decayed_add(slot, <const uint8_t*>texts[n].data, texts[n].size, weight)
            decayed_trim(slot, spec.most)
            if not u32(slot.data + 8):
                slot.size = 0
        return 0


include "slabs.pxi"
include "heap.pxi"
include "numbers.pxi"
include "folds.pxi"
include "batches.pxi"
include "rows.pxi"
