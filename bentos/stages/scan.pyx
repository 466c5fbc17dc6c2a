# cython: language_level=3, boundscheck=False, wraparound=False
"""The inner loop of `bentos.stages.nearest`: products of bytes, for processors that multiply 64 of them at once.

It is built where there is a C compiler; without one, or on another processor, all products are computed in float32.
"""

from libc.stdint cimport int8_t, uint8_t, uint32_t

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

    __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))
    static void scan(const uint8_t *codes, const float *scales, const uint8_t *allowed, long n, const int8_t *query,
                     long d, float step, float slack, float *most, float *least) {
        const __m512 none = _mm512_set1_ps(-INFINITY), steps = _mm512_set1_ps(step), apart = _mm512_set1_ps(slack);
        int32_t bias = 0;
        for (long j = 0; j < d; j++) bias -= 128 * query[j];
        for (long row = 0; row < n; row += 64) {
            __m512i sums[4];
            for (int g = 0; g < 4; g++) sums[g] = _mm512_set1_epi32(bias);
            for (long j = 0; j < d; j += 4, codes += 256) {
                int32_t four;
                memcpy(&four, query + j, 4);
                for (int g = 0; g < 4; g++)
                    sums[g] = _mm512_dpbusd_epi32(sums[g], _mm512_loadu_si512(codes + 64 * g), _mm512_set1_epi32(four));
            }
            __m512 best = none;
            for (int g = 0; g < 4; g++, allowed += 16, scales += 16, most += 16) {
                long left = n - row - 16 * g;
                __mmask16 here = left >= 16 ? 0xffff : left <= 0 ? 0 : (__mmask16)((1 << left) - 1);
                __m128i may = _mm_maskz_loadu_epi8(here, allowed);
                here = _mm_test_epi8_mask(may, may);
                __m512 scale = _mm512_loadu_ps(scales), product = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[g]), steps);
                _mm512_storeu_ps(most, _mm512_mask_mul_ps(none, here, scale, _mm512_add_ps(product, apart)));
                best = _mm512_max_ps(best, _mm512_mask_mul_ps(none, here, scale, _mm512_sub_ps(product, apart)));
            }
            *least++ = _mm512_reduce_max_ps(best);
        }
    }
    #else
    static int can_scan(void) { return 0; }
    static void scan(const uint8_t *codes, const float *scales, const uint8_t *allowed, long n, const int8_t *query,
                     long d, float step, float slack, float *most, float *least) {}
    #endif
    """
    bint can_scan()
    void c_scan "scan"(const uint8_t *, const float *, const uint8_t *, long, const int8_t *, long, float, float,
                       float *, float *) nogil


USABLE = can_scan()
"""Whether this processor can do it."""


def scan(
    const uint8_t[:, :, :, ::1] codes, const float[::1] scales, const uint8_t[::1] allowed, const int8_t[::1] query,
    float step, float slack, float[::1] most, float[::1] least,
):
    """The most that each row's product can be, and the least that the best of each 64 rows is; -inf where not allowed.

    `codes` [blocks, d / 4, 64, 4] are 128 more than what `scales` [64 blocks] multiplies, `query` [d] what `step` does;
    the product is off by `slack` scales at most. `most` [64 blocks] and `least` [blocks] are written.
    """
    cdef Py_ssize_t blocks = codes.shape[0], d = 4 * codes.shape[1]
    if not USABLE or codes.shape[2] != 64 or codes.shape[3] != 4:
        raise ValueError("no processor for it, or not 64 rows of 4 bytes a block")
    if min(scales.shape[0], most.shape[0], 64 * least.shape[0]) < 64 * blocks or query.shape[0] != d:
        raise ValueError("sizes do not fit each other")
    if not 64 * (blocks - 1) < allowed.shape[0] <= 64 * blocks:
        raise ValueError(f"{allowed.shape[0]} rows are not in {blocks} blocks of 64")
    c_scan(
        &codes[0, 0, 0, 0], &scales[0], &allowed[0], allowed.shape[0], &query[0], d, step, slack, &most[0], &least[0]
    )
