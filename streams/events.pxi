# Events: from Python's, from their JSON and from a delta's msgpack to a struct whose texts are borrowed, and to msgpack
# again. Included by `kernel.pyx`.
#
# The two readers know what our own encoders write, of ASCII texts, and nothing else: they say 0 to all other bytes, and
# `streams.events.decode` or `streams.fold.deltas.decode` then has the word.

cdef struct Text:
    const char* data
    Py_ssize_t size     # -1: there is none

cdef enum Field:
    USER_ID, ITEM_ID, TYPE, SESSION_ID, REQUEST_ID, CATEGORIES

FIELDS = {
    "user_id": USER_ID, "item_id": ITEM_ID, "type": TYPE, "session_id": SESSION_ID, "request_id": REQUEST_ID, "categories": CATEGORIES, "": CATEGORIES,
}

cdef int64_t ID_MOST = ID_MAX_BYTES, CATEGORIES_MOST = CATEGORIES_MAX, CATEGORY_MOST = CATEGORY_MAX_CHARS, LAST = LATEST
cdef double VALUE_MOST = VALUE_MAX

cdef struct Event:
    Text event_id
    Text texts[5]               # by `Field`
    Py_ssize_t first            # its categories, among those of all events
    Py_ssize_t categories
    int64_t event_time
    int64_t arrival
    int has_value
    double value
    Py_ssize_t next             # the next one of the same key; -1 where there is none


cdef class Events:
    """Events and their categories; `_alive` holds the objects that own the texts."""

    cdef Event* at
    cdef Text* categories
    cdef Py_ssize_t n, _room, _categories, _categories_room
    cdef list _alive

    def __cinit__(self):
        self._alive = []

    def __dealloc__(self):
        free(self.at)
        free(self.categories)

    cdef int clear(self) except -1:
        self.n = self._categories = 0
        self._alive.clear()
        return 0

    cdef Event* new(self) except NULL:
        """The next one, without a value, a category and the last two texts; `keep` makes it count."""
        cdef Event* event
        if self.n == self._room:
            event = <Event*>realloc(self.at, sizeof(Event) * (2 * self._room + 64))
            if event == NULL:
                raise MemoryError
            self.at, self._room = event, 2 * self._room + 64
        event = &self.at[self.n]
        event.has_value, event.value, event.next = 0, 0.0, -1
        event.first, event.categories = self._categories, 0
        event.texts[<int>SESSION_ID].size = event.texts[<int>REQUEST_ID].size = -1
        return event

    cdef int add_category(self, Event* event, Text text) except -1:
        cdef Text* more
        if event.first + event.categories == self._categories_room:
            more = <Text*>realloc(self.categories, sizeof(Text) * (2 * self._categories_room + 64))
            if more == NULL:
                raise MemoryError
            self.categories, self._categories_room = more, 2 * self._categories_room + 64
        self.categories[event.first + event.categories] = text
        event.categories += 1
        return 0

    cdef void keep(self, Event* event) noexcept:
        """The new one counts."""
        self._categories = event.first + event.categories
        self.n += 1

    cdef void drop(self) noexcept:
        """The last one."""
        self.n -= 1
        self._categories = self.at[self.n].first

    cdef int add(self, event) except -1:
        """One of Python's."""
        cdef Event* new = self.new()
        cdef object value = event.value
        new.event_id = text_of(event.event_id)
        new.texts[<int>USER_ID], new.texts[<int>ITEM_ID] = text_of(event.user_id), text_of(event.item_id)
        new.texts[<int>TYPE], new.texts[<int>SESSION_ID] = text_of(event.type), text_of(event.session_id)
        new.texts[<int>REQUEST_ID] = text_of(event.request_id)
        new.event_time, new.arrival = event.event_time, event.arrival
        if value is not None:
            new.has_value, new.value = 1, value
        for category in event.categories:
            self.add_category(new, text_of(category))
        self._alive.append(event)
        self.keep(new)
        return 0

    cdef int add_json(self, bytes data, int64_t tolerance) except -1:
        """What `streams.events.decode` reads from these bytes. 0 where that has to be asked, which may refuse them."""
        cdef Reader reader = reader_of(data)
        cdef Reader* r = &reader
        cdef Event* event = self.new()
        cdef Text category
        if not (
            skip(r, b'{"event_id":') and quoted(r, &event.event_id, ID_MOST)
            and skip(r, b',"user_id":') and quoted(r, &event.texts[<int>USER_ID], ID_MOST)
            and skip(r, b',"item_id":') and quoted(r, &event.texts[<int>ITEM_ID], ID_MOST)
            and skip(r, b',"type":') and quoted(r, &event.texts[<int>TYPE], 32) and is_type(&event.texts[<int>TYPE])
            and skip(r, b',"event_time":') and integer(r, &event.event_time)
            and skip(r, b',"arrival":') and integer(r, &event.arrival)
        ):
            return 0
        if skip(r, b',"value":'):
            if not decimal(r, &event.value) or not -VALUE_MOST <= event.value <= VALUE_MOST:
                return 0
            event.has_value = 1
        if skip(r, b',"categories":['):
            while True:
                if event.categories == CATEGORIES_MOST or not quoted(r, &category, CATEGORY_MOST):
                    return 0
                self.add_category(event, category)
                if not skip(r, b','):
                    break
            if not skip(r, b']'):
                return 0
        if skip(r, b',"session_id":') and not quoted(r, &event.texts[<int>SESSION_ID], ID_MOST):
            return 0
        if skip(r, b',"request_id":') and not quoted(r, &event.texts[<int>REQUEST_ID], ID_MOST):
            return 0
        if not skip(r, b'}') or r.at != r.end or event.arrival > LAST or event.event_time > event.arrival + tolerance:
            return 0
        self.keep(event)
        return 1

    cdef int add_delta(self, bytes data, int64_t* source, int64_t* first) except -1:
        """What `streams.fold.deltas.decode` reads from these bytes. 0 where that has to be asked."""
        cdef Reader reader = reader_of(data)
        cdef Reader* r = &reader
        cdef Py_ssize_t n = self.n, categories = self._categories
        cdef int64_t count = 0, k
        if r.at < r.end and r.at[0] == 0x93:
            r.at += 1
            if packed_integer(r, source) and packed_integer(r, first) and packed_array(r, &count):
                for k in range(count):
                    if not self._add_packed(r):
                        break
                else:
                    if r.at == r.end:
                        return 1
        self.n, self._categories = n, categories
        return 0

    cdef int _add_packed(self, Reader* r) except -1:
        cdef Event* event = self.new()
        cdef Text category
        cdef int64_t count = 0, k
        if r.at == r.end or r.at[0] != 0x9B:
            return 0
        r.at += 1
        if not (
            packed_text(r, &event.event_id, 0) and packed_text(r, &event.texts[<int>USER_ID], 0)
            and packed_text(r, &event.texts[<int>ITEM_ID], 0) and packed_text(r, &event.texts[<int>TYPE], 0)
            and packed_integer(r, &event.event_time) and packed_integer(r, &event.arrival)
            and 0 <= event.event_time <= 2 * LAST
            and packed_value(r, event) and packed_array(r, &count)
        ):
            return 0
        for k in range(count):
            if not packed_text(r, &category, 0):
                return 0
            self.add_category(event, category)
        if r.at == r.end or r.at[0] != 0x80:
            return 0
        r.at += 1
        if not (packed_text(r, &event.texts[<int>SESSION_ID], 1) and packed_text(r, &event.texts[<int>REQUEST_ID], 1)):
            return 0
        self.keep(event)
        return 1


cdef Text text_of(text) except *:
    cdef Text found
    found.data, found.size = NULL, -1
    if text is not None:
        found.data = PyUnicode_AsUTF8AndSize(text, &found.size)
    return found


# Reading.

cdef struct Reader:
    const uint8_t* at
    const uint8_t* end

cdef inline Reader reader_of(bytes data) noexcept:
    cdef Reader r
    r.at = <const uint8_t*>PyBytes_AS_STRING(data)
    r.end = r.at + PyBytes_GET_SIZE(data)
    return r

cdef inline bint skip(Reader* r, const char* text) noexcept nogil:
    cdef Py_ssize_t size = strlen(text)
    if r.end - r.at < size or memcmp(r.at, text, size) != 0:
        return 0
    r.at += size
    return 1

cdef bint quoted(Reader* r, Text* text, int64_t most) noexcept nogil:
    """A text of JSON: 1 to `most` printable ASCII characters, none of them escaped."""
    if r.at == r.end or r.at[0] != 34:
        return 0
    cdef const uint8_t* start = r.at + 1
    r.at = start
    while r.at < r.end and 32 <= r.at[0] < 127 and r.at[0] != 34 and r.at[0] != 92:
        r.at += 1
    text.data, text.size = <const char*>start, r.at - start
    if r.at == r.end or r.at[0] != 34 or not 0 < text.size <= most:
        return 0
    r.at += 1
    return 1

cdef bint is_type(Text* text) noexcept nogil:
    """`streams.events.CUSTOM_TYPE`, which the known types match, too; its length is known."""
    cdef Py_ssize_t i
    for i in range(text.size):
        if not (97 <= text.data[i] <= 122 or i and (48 <= text.data[i] <= 57 or text.data[i] == 95)):
            return 0
    return 1

cdef bint integer(Reader* r, int64_t* value) noexcept nogil:
    """Of 1 to 18 digits, not negative."""
    cdef const uint8_t* start = r.at
    value[0] = 0
    while r.at < r.end and r.at - start < 18 and 48 <= r.at[0] <= 57:
        value[0] = 10 * value[0] + r.at[0] - 48
        r.at += 1
    return r.at > start and (start[0] != 48 or r.at - start == 1)

cdef bint decimal(Reader* r, double* value) noexcept nogil:
    """With a point and at most 15 digits: they and the power of ten are exact, so their quotient is rounded once."""
    cdef bint negative = skip(r, b"-")
    cdef const uint8_t* start = r.at
    cdef const uint8_t* point = NULL
    cdef int64_t digits = 0
    cdef double power = 1.0
    while r.at < r.end and r.at - start <= 16:
        if r.at[0] == 46 and point == NULL and r.at > start:
            point = r.at
        elif 48 <= r.at[0] <= 57:
            digits = 10 * digits + r.at[0] - 48
            if point != NULL:
                power *= 10
        else:
            break
        r.at += 1
    value[0] = digits / power
    if negative:
        value[0] = -value[0]
    return point != NULL and r.at - point > 1 and r.at - start <= 16 and (start[0] != 48 or point - start == 1)

cdef bint big_endian(Reader* r, int size, uint64_t* value) noexcept nogil:
    cdef int i
    if r.end - r.at < size:
        return 0
    value[0] = 0
    for i in range(size):
        value[0] = value[0] << 8 | r.at[i]
    r.at += size
    return 1

cdef bint packed_integer(Reader* r, int64_t* value) noexcept nogil:
    cdef uint64_t found = 0
    if r.at == r.end:
        return 0
    cdef uint8_t mark = r.at[0]
    r.at += 1
    if mark < 0x80 or mark >= 0xE0:
        value[0] = <int8_t>mark
        return 1
    if 0xCC <= mark <= 0xCF:
        if not big_endian(r, 1 << (mark - 0xCC), &found) or found >> 63:
            return 0
        value[0] = <int64_t>found
        return 1
    if 0xD0 <= mark <= 0xD3:
        if not big_endian(r, 1 << (mark - 0xD0), &found):
            return 0
        value[0] = <int64_t>(found << (64 - (8 << (mark - 0xD0)))) >> (64 - (8 << (mark - 0xD0)))
        return 1
    return 0

cdef bint packed_array(Reader* r, int64_t* count) noexcept nogil:
    cdef uint64_t found = 0
    if r.at == r.end:
        return 0
    cdef uint8_t mark = r.at[0]
    r.at += 1
    if mark & 0xF0 == 0x90:
        found = mark & 15
    elif not (mark == 0xDC and big_endian(r, 2, &found) or mark == 0xDD and big_endian(r, 4, &found)):
        return 0
    count[0] = <int64_t>found
    return 1

cdef bint packed_value(Reader* r, Event* event) noexcept nogil:
    """A number, or none."""
    cdef uint64_t found = 0
    if skip(r, b"\xc0"):
        return 1
    if not skip(r, b"\xcb") or not big_endian(r, 8, &found):
        return 0
    memcpy(&event.value, &found, 8)
    event.has_value = 1
    return 1

cdef int packed_text(Reader* r, Text* text, bint optional) except -1:
    """UTF-8, or none where that may be."""
    cdef uint64_t size = 0, i
    cdef uint8_t mark, high = 0
    if r.at == r.end:
        return 0
    mark = r.at[0]
    r.at += 1
    if mark == 0xC0 and optional:
        text.data, text.size = NULL, -1
        return 1
    if mark & 0xE0 == 0xA0:
        size = mark & 31
    elif not (0xD9 <= mark <= 0xDB and big_endian(r, 1 << (mark - 0xD9), &size)):
        return 0
    if <uint64_t>(r.end - r.at) < size:
        return 0
    for i in range(size):
        high |= r.at[i]
    if high >= 0x80:
        try:
            PyUnicode_DecodeUTF8(<const char*>r.at, <Py_ssize_t>size, NULL)
        except UnicodeDecodeError:
            return 0
    text.data, text.size = <const char*>r.at, <Py_ssize_t>size
    r.at += size
    return 1


# Writing, as msgspec does.

cdef struct Buffer:
    uint8_t* data
    Py_ssize_t size
    Py_ssize_t room

cdef int reserve(Buffer* b, Py_ssize_t more) except -1:
    cdef Py_ssize_t room = b.size + more
    cdef uint8_t* data
    if room > b.room:
        data = <uint8_t*>realloc(b.data, 2 * room)
        if data == NULL:
            raise MemoryError
        b.data, b.room = data, 2 * room
    return 0

cdef inline void put_big_endian(Buffer* b, uint8_t mark, int size, uint64_t value) noexcept nogil:
    cdef int i
    b.data[b.size] = mark
    for i in range(size):
        b.data[b.size + 1 + i] = <uint8_t>(value >> (8 * (size - 1 - i)))
    b.size += 1 + size

cdef void pack_integer(Buffer* b, int64_t value) noexcept nogil:
    cdef int wide
    if -32 <= value < 128:
        put_big_endian(b, <uint8_t>value, 0, 0)
    elif value >= 0:
        wide = 0 if value < 1 << 8 else 1 if value < 1 << 16 else 2 if value < <int64_t>1 << 32 else 3
        put_big_endian(b, 0xCC + wide, 1 << wide, <uint64_t>value)
    else:
        wide = width_signed(value)
        put_big_endian(b, 0xD0 + wide, 1 << wide, <uint64_t>value)

cdef void pack_array(Buffer* b, Py_ssize_t count) noexcept nogil:
    if count < 16:
        put_big_endian(b, <uint8_t>(0x90 | count), 0, 0)
    elif count < 65_536:
        put_big_endian(b, 0xDC, 2, count)
    else:
        put_big_endian(b, 0xDD, 4, count)

cdef void pack_text(Buffer* b, Text* text) noexcept nogil:
    cdef Py_ssize_t size = text.size
    if size < 0:
        put_big_endian(b, 0xC0, 0, 0)
        return
    if size < 32:
        put_big_endian(b, <uint8_t>(0xA0 | size), 0, 0)
    else:
        put_big_endian(b, 0xD9 if size < 256 else 0xDA if size < 65_536 else 0xDB, 1 if size < 256 else 2 if size < 65_536 else 4, size)
    memcpy(b.data + b.size, text.data, size)
    b.size += size

cdef int pack_event(Buffer* b, Event* event, Text* categories) except -1:
    """A `streams.fold.deltas.Passed`."""
    cdef Py_ssize_t size = 64, i
    cdef uint64_t bits
    for i in range(5):
        size += 5 + max(0, event.texts[i].size)
    for i in range(event.categories):
        size += 5 + categories[i].size
    reserve(b, size)
    put_big_endian(b, 0x9B, 0, 0)
    put_big_endian(b, 0xA0, 0, 0)
    pack_text(b, &event.texts[<int>USER_ID])
    pack_text(b, &event.texts[<int>ITEM_ID])
    pack_text(b, &event.texts[<int>TYPE])
    pack_integer(b, event.event_time)
    pack_integer(b, event.arrival)
    if event.has_value:
        memcpy(&bits, &event.value, 8)
        put_big_endian(b, 0xCB, 8, bits)
    else:
        put_big_endian(b, 0xC0, 0, 0)
    pack_array(b, event.categories)
    for i in range(event.categories):
        pack_text(b, &categories[i])
    put_big_endian(b, 0x80, 0, 0)
    pack_text(b, &event.texts[<int>SESSION_ID])
    pack_text(b, &event.texts[<int>REQUEST_ID])
    return 0
