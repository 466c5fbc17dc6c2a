# Reading ahead what lookups will need. Of a million rows few are in the processor's cache, and one that is looked up
# alone waits for memory four times, one after the other: for the dictionary's index, its entry, the key and the row.
# Here hundreds are followed side by side, so that their waits overlap. It changes no result: what is found is thrown
# away. It reads the inside of a dictionary as Python 3.11 has it, the only version that Freshet is for. Included by
# `kernel.pyx`.

cdef extern from *:
    """
    #if defined(__GNUC__)
    #define fetch_ahead(at) __builtin_prefetch(at)
    #else
    #define fetch_ahead(at)
    #endif

    typedef struct { size_t hash, rest, at; Py_ssize_t entry; } Probe;

    #ifndef Py_BUILD_CORE
    #define Py_BUILD_CORE 1
    #endif
    #include "internal/pycore_dict.h"

    /* A read, as processors may drop what is only asked for when the page is not at hand, either. */
    static inline void touch(const void *at) { (void)*(const volatile char *)at; }

    static inline Py_ssize_t entry_at(const PyDictKeysObject *keys, size_t at) {
        switch (keys->dk_log2_index_bytes - keys->dk_log2_size) {
            case 0: return ((const int8_t *)keys->dk_indices)[at];
            case 1: return ((const int16_t *)keys->dk_indices)[at];
            case 2: return ((const int32_t *)keys->dk_indices)[at];
            default: return ((const int64_t *)keys->dk_indices)[at];
        }
    }

    static void follow(PyObject *dict, Probe *probes, Py_ssize_t n) {
        PyDictKeysObject *keys = ((PyDictObject *)dict)->ma_keys;
        PyDictKeyEntry *entries;
        size_t mask = ((size_t)1 << keys->dk_log2_size) - 1;
        Py_ssize_t k, left;
        if (keys->dk_kind != DICT_KEYS_GENERAL)  /* as an empty one is */
            return;
        entries = DK_ENTRIES(keys);
        for (k = 0; k < n; k++) {
            probes[k].rest = probes[k].hash;
            probes[k].at = probes[k].hash & mask;
        }
        while (n) {
            for (k = 0; k < n; k++)
                probes[k].entry = entry_at(keys, probes[k].at);
            for (k = 0; k < n; k++)
                if (probes[k].entry >= 0)
                    touch(&entries[probes[k].entry].me_value);
            for (k = left = 0; k < n; k++) {
                Probe probe = probes[k];
                PyDictKeyEntry *entry = &entries[probe.entry];
                if (probe.entry == DKIX_EMPTY)
                    continue;
                if (probe.entry >= 0 && (size_t)entry->me_hash == probe.hash) {
                    touch(entry->me_key);
                    touch(entry->me_value);
                    continue;
                }
                probe.rest >>= 5;
                probe.at = (5 * probe.at + probe.rest + 1) & mask;
                probes[left++] = probe;
            }
            n = left;
        }
    }

    static inline void fetch_number(PyObject *set, uint64_t number) {
        PySetObject *numbers = (PySetObject *)set;
        fetch_ahead(&numbers->table[number % _PyHASH_MODULUS & (uint64_t)numbers->mask]);
    }
    """
    ctypedef struct Probe:
        size_t hash
    void fetch_ahead(const void* at) nogil
    void fetch_number(object numbers, uint64_t number)
    void follow(object dictionary, Probe* probes, Py_ssize_t n)


cdef enum:
    AHEAD = 8       # rows that are fetched while one is worked on


cdef int fetch_rows(dict rows, keys) except -1:
    """What looking up these keys will read, as far as each row's header."""
    cdef Py_ssize_t n = 0
    cdef Probe* probes = <Probe*>malloc(sizeof(Probe) * (len(keys) + 1))
    if probes == NULL:
        raise MemoryError
    for key in keys:
        probes[n].hash = <size_t>hash(key)
        n += 1
    follow(rows, probes, n)
    free(probes)
    return 0


cdef inline void fetch_row(bytes row) noexcept:
    """All of a row."""
    cdef Py_ssize_t at
    if row is not None:
        for at in range(0, PyBytes_GET_SIZE(row), 64):
            fetch_ahead(PyBytes_AS_STRING(row) + at)
