# cython: language_level=3, boundscheck=False, wraparound=False
"""The inner loop of `bentos.stages.nearest`: products of half bytes, for processors that multiply 64 at once.

It is built where there is a C compiler; without one, or on another processor, all products are computed in float32.
"""

from libc.stdint cimport int8_t, int32_t, uint8_t

cdef extern from *:
    """
    #include <math.h>
    #include <stdint.h>
    #include <string.h>

    #if defined(__x86_64__) && defined(__GNUC__)
    #include <immintrin.h>

    static int can_scan(void) {
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
            && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
    }

    #define AHEAD 8192  /* bytes, two pages: within one the processor reads ahead by itself */
    #define WITH __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))

    WITH static inline void bound(const uint8_t *codes, const float *scales, const uint8_t *allowed, long left,
                                  const int8_t *query, long d, int32_t bias, float step, float slack, __m512 *most) {
        const __m512 steps = _mm512_set1_ps(step), apart = _mm512_set1_ps(slack);
        const __m512i all = _mm512_set1_epi8(30);
        __m512i sums[4];
        for (int g = 0; g < 4; g++) sums[g] = _mm512_set1_epi32(bias);
        for (long j = 0; j < d; j += 8, codes += 256) {
            int32_t low, high;
            memcpy(&low, query + j, 4);
            memcpy(&high, query + j + 4, 4);
            for (int g = 0; g < 4; g++) {
                _mm_prefetch((const char *)(codes + 64 * g + AHEAD), _MM_HINT_T0);
                __m512i two = _mm512_loadu_si512(codes + 64 * g);
                __m512i odd = _mm512_and_si512(_mm512_add_epi8(two, two), all);
                sums[g] = _mm512_dpbusd_epi32(sums[g], odd, _mm512_set1_epi32(low));
                odd = _mm512_and_si512(_mm512_srli_epi16(two, 3), all);
                sums[g] = _mm512_dpbusd_epi32(sums[g], odd, _mm512_set1_epi32(high));
            }
        }
        for (int g = 0; g < 4; g++, left -= 16) {
            __mmask16 here = left >= 16 ? 0xffff : left <= 0 ? 0 : (__mmask16)((1 << left) - 1);
            __m128i may = _mm_maskz_loadu_epi8(here, allowed + 16 * g);
            here = _mm_test_epi8_mask(may, may);
            __m512 product = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[g]), steps, apart);
            most[g] = _mm512_mask_mul_ps(_mm512_set1_ps(-INFINITY), here, _mm512_loadu_ps(scales + 16 * g), product);
        }
    }

    WITH static long scan(const uint8_t *codes, const float *scales, const uint8_t *allowed, long n, long every,
                          const int8_t *query, long d, float step, float slack, float floor, int32_t *rows,
                          float *bounds) {
        const __m512 least = _mm512_set1_ps(floor);
        const __m512i along = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        int32_t bias = 0;
        long count = 0;
        for (long j = 0; j < d; j++) bias -= 15 * query[j];
        for (long row = 0; row < n; row += 64 * every) {
            __m512 most[4];
            bound(codes + row * d / 2, scales + row, allowed + row, n - row, query, d, bias, step, slack, most);
            for (int g = 0; g < 4; g++) {
                __mmask16 reach = _mm512_cmp_ps_mask(most[g], least, _CMP_GE_OQ);
                if (!reach) continue;
                __m512i at = _mm512_add_epi32(along, _mm512_set1_epi32((int32_t)(row + 16 * g)));
                _mm512_mask_compressstoreu_epi32(rows + count, reach, at);
                _mm512_mask_compressstoreu_ps(bounds + count, reach, most[g]);
                count += __builtin_popcount(reach);
            }
        }
        return count;
    }

    WITH static void refine(const uint8_t *rests, const float *scales, const int8_t *query, long d, float step,
                            float less, const int32_t *rows, long count, float *bounds) {
        const __m256i all = _mm256_set1_epi8(30);
        int32_t bias = 0;
        for (long j = 0; j < d; j++) bias -= 15 * query[j];
        for (long k = 0; k < count; k++) {
            if (k + 16 < count) _mm_prefetch((const char *)(rests + rows[k + 16] * (d / 2)), _MM_HINT_T0);
            const uint8_t *of = rests + rows[k] * (d / 2);
            __m256i sums = _mm256_setzero_si256();
            for (long j = 0; j < d; j += 64, of += 32) {
                __m256i two = _mm256_loadu_si256((const __m256i *)of);
                __m256i low = _mm256_loadu_si256((const __m256i *)(query + j));
                __m256i high = _mm256_loadu_si256((const __m256i *)(query + j + 32));
                sums = _mm256_dpbusd_epi32(sums, _mm256_and_si256(_mm256_add_epi8(two, two), all), low);
                sums = _mm256_dpbusd_epi32(sums, _mm256_and_si256(_mm256_srli_epi16(two, 3), all), high);
            }
            __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
            half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
            half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1));
            bounds[k] += scales[rows[k]] * ((_mm_cvtsi128_si32(half) + bias) * step - less);
        }
    }
    #else
    static int can_scan(void) { return 0; }
    static long scan(const uint8_t *codes, const float *scales, const uint8_t *allowed, long n, long every,
                     const int8_t *query, long d, float step, float slack, float floor, int32_t *rows, float *bounds) {
        return 0;
    }
    static void refine(const uint8_t *rests, const float *scales, const int8_t *query, long d, float step, float less,
                       const int32_t *rows, long count, float *bounds) {}
    #endif
    """
    bint can_scan()
    long c_scan "scan"(const uint8_t *, const float *, const uint8_t *, long, long, const int8_t *, long, float, float,
                       float, int32_t *, float *) nogil
    void c_refine "refine"(const uint8_t *, const float *, const int8_t *, long, float, float, const int32_t *, long,
                           float *) nogil


USABLE = can_scan()
"""Whether this processor can do it."""


def scan(
    const uint8_t[:, :, :, ::1] codes, const float[::1] scales, const uint8_t[::1] allowed, Py_ssize_t every,
    const int8_t[::1] query, float step, float slack, float floor, int32_t[::1] rows, float[::1] bounds,
):
    """Which allowed rows' products may reach the floor, of each `every`-th 64; their number.

    `codes` [blocks, d / 8, 64, 4] hold c of eight numbers of each of 64 rows, the first four in the lower halves;
    2 c - 15 is what `scales` [64 blocks] multiplies, `query` [d and more] what `step` does. A product is off by `slack`
    scales at most. Their rows, ascending, are written to `rows` and the most that their products can be to `bounds`, both
    [64 blocks].
    """
    cdef Py_ssize_t blocks = codes.shape[0], d = 8 * codes.shape[1]
    if not USABLE or codes.shape[2] != 64 or codes.shape[3] != 4:
        raise ValueError("no processor for it, or not 64 rows of 4 bytes a block")
    if min(scales.shape[0], rows.shape[0], bounds.shape[0]) < 64 * blocks or query.shape[0] < d or every < 1:
        raise ValueError("sizes do not fit each other")
    if not 64 * (blocks - 1) < allowed.shape[0] <= 64 * blocks:
        raise ValueError(f"{allowed.shape[0]} rows are not in {blocks} blocks of 64")
    return c_scan(
        &codes[0, 0, 0, 0], &scales[0], &allowed[0], allowed.shape[0], every, &query[0], d, step, slack, floor,
        &rows[0], &bounds[0],
    )


def refine(
    const uint8_t[:, ::1] rests, const float[::1] scales, const int8_t[::1] query, float step, float less,
    const int32_t[::1] rows, float[::1] bounds,
):
    """Move the bounds of `rows` by what rounding had left of them, and lower them by `less` scales.

    `rests` [n, d / 2] hold r of 64 numbers in 32 bytes, the first half in the lower halves; 2 r - 15 is what `scales`
    multiplies, `query` [d] what `step` does.
    """
    cdef Py_ssize_t d = 2 * rests.shape[1], count = rows.shape[0]
    if not USABLE or d % 64 or query.shape[0] != d or bounds.shape[0] != count or scales.shape[0] < rests.shape[0]:
        raise ValueError("no processor for it, or sizes do not fit each other")
    for k in range(count):
        if not 0 <= rows[k] < rests.shape[0]:
            raise ValueError(f"there is no row {rows[k]}")
    if count:
        c_refine(&rests[0, 0], &scales[0], &query[0], d, step, less, &rows[0], count, &bounds[0])
