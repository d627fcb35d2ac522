// Products in registers, of which all others are made.
//
// They are one kernel over "units": a float, or a pair of bfloat16 that one instruction multiplies.

#pragma once

#include <cstdint>
#include <cstring>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "numbers.h"

namespace {

// AMX has tiles of its own, which oneDNN's products use.
#if defined(__AVX512BF16__) && !defined(__AMX_TILE__)
#define HALF
#endif

#ifdef __AVX512F__
constexpr int LANES = 16, ROWS = 8, COLUMNS = 2;  // of a tile in registers; columns are vectors
#else
constexpr int LANES = 8, ROWS = 4, COLUMNS = 2;
#endif
typedef float Vector __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int Ints __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef uint32_t Unit __attribute__((may_alias));

inline int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

struct Float {
    using Value = float;
    static constexpr int PER = 1;  // values of a unit
    static Vector times(Unit left, const Unit* right, Vector sum) {
        float x;
        memcpy(&x, &left, 4);
        return sum + x * *(const Vector*)right;
    }
    static float wide(float x) { return x; }
    static float narrow(float x) { return x; }
};

#ifdef HALF
struct Half {
    using Value = bf16;
    static constexpr int PER = 2;
    static Vector times(Unit left, const Unit* right, Vector sum) {
        return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(int(left)),
                                        (__m512bh)_mm512_loadu_si512(right));
    }
    static float wide(bf16 x) { return float_of(x); }
    static bf16 narrow(float x) { return half_of(x); }
};
#endif

// One tile in registers: c[R][C vectors] (+)= a[R][depth] * b[depth][C vectors], all but c in units.
template <class T, int R, int C>
inline void tile(const Unit* a, int64_t row, int64_t column, const Unit* b, int64_t b_row, int depth, float* c,
                 int64_t c_row, bool add) {
    Vector sum[R][C]{};
    for (int k = 0; k < depth; k++)
#pragma GCC unroll 16
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int v = 0; v < C; v++)
                sum[r][v] = T::times(a[r * row + k * column], b + k * b_row + v * LANES, sum[r][v]);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int v = 0; v < C; v++) {
            Vector& to = *(Vector*)(c + r * c_row + v * LANES);
            to = add ? to + sum[r][v] : sum[r][v];
        }
}

}  // namespace
