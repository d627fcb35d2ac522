// Small products and the layouts that they take, for flash.cpp.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "tiles.h"

namespace {

constexpr int D = (WIDTH + 15) / 16 * 16;  // a head with room to whole vectors, which holds zeros
constexpr int QUERIES = 32, KEYS = 128;    // of a tile: its scores stay within a core's cache

// `rows` is a multiple of ROWS, `columns` of LANES.
template <class T>
void product(const Unit* a, int64_t row, int64_t column, const Unit* b, int64_t b_row, int depth, float* c,
             int64_t c_row, int rows, int columns, bool add) {
    int v = 0;
    for (; v + COLUMNS * LANES <= columns; v += COLUMNS * LANES)
        for (int r = 0; r < rows; r += ROWS)
            tile<T, ROWS, COLUMNS>(a + r * row, row, column, b + v, b_row, depth, c + r * c_row + v, c_row, add);
    for (; v < columns; v += LANES)
        for (int r = 0; r < rows; r += ROWS)
            tile<T, ROWS, 1>(a + r * row, row, column, b + v, b_row, depth, c + r * c_row + v, c_row, add);
}

// Rows of one head as units, [count][D / PER], then zeros up to `room` rows.
template <class T>
void rows_of(const typename T::Value* from, int64_t token, int64_t count, int64_t room, Unit* out) {
    constexpr int U = D / T::PER, FILLED = WIDTH / T::PER;
    for (int64_t t = 0; t < count; t++) {
        memcpy(out + t * U, from + t * token, FILLED * sizeof(Unit));
        std::fill(out + t * U + FILLED, out + (t + 1) * U, 0);
    }
    std::fill(out + count * U, out + room * U, 0);
}

// The same turned round, [D / PER][room].
template <class T>
void turned(const typename T::Value* from, int64_t token, int64_t count, int64_t room, Unit* out) {
    constexpr int FILLED = WIDTH / T::PER;
    constexpr int SOME = 16;  // tokens whose lines stay in the cache meanwhile
    for (int64_t start = 0; start < room; start += SOME)
        for (int u = 0; u < FILLED; u++)
            for (int64_t t = start; t < start + SOME; t++)
                if (t < count)
                    memcpy(out + u * room + t, from + t * token + u * T::PER, sizeof(Unit));
                else
                    out[u * room + t] = 0;
    std::fill(out + FILLED * room, out + D / T::PER * room, 0);
}

// Tokens that a unit holds one below another: [room / PER][D].
template <class T>
void stacked(const typename T::Value* from, int64_t token, int64_t count, int64_t room, Unit* out) {
    if constexpr (T::PER == 1) {
        rows_of<T>(from, token, count, room, out);
    } else {
        for (int64_t t = 0; t < room; t += 2) {
            const typename T::Value *a = from + t * token, *b = a + token;
            for (int i = 0; i < WIDTH; i++)
                out[t / 2 * D + i] = (t < count ? Unit(a[i]) : 0) | (t + 1 < count ? Unit(b[i]) << 16 : 0);
            std::fill(out + t / 2 * D + WIDTH, out + (t / 2 + 1) * D, 0);
        }
    }
}

constexpr float LOG2E = 1.44269504f;

// 2^x of x <= 0, to 2e-7; 0 of what is less than 2^-126, and what is no number stays none.
inline Vector power(Vector x) {
    const Ints nothing = x <= -126.0f;
    x = nothing ? Vector{} - 126.0f : x;
    Ints whole = __builtin_convertvector(x - 0.5f, Ints);
    Vector f = x - __builtin_convertvector(whole, Vector);
    return (Vector)((Ints)(fraction_of_power(f) * (Vector)((whole + 127) << 23)) & ~nothing);
}

#ifdef __AVX512F__
inline float most_of(Vector x) { return _mm512_reduce_max_ps((__m512)x); }
inline float sum_of(Vector x) { return _mm512_reduce_add_ps((__m512)x); }
#else
inline float most_of(Vector x) {
    float most = x[0];
    for (int i = 1; i < LANES; i++) most = std::max(most, x[i]);
    return most;
}
inline float sum_of(Vector x) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
}
#endif

// Floats [rows][KEYS] as units: `flat` [rows][KEYS / PER], of neighbours; `stacked_tile` [rows / PER][KEYS], of
// two rows.
template <class T>
inline const Unit* flat(const float* from, int rows, Unit* out) {
    if constexpr (T::PER == 1) return (const Unit*)from;
#ifdef HALF
    for (int i = 0; i < rows * KEYS; i += LANES)
        _mm256_storeu_si256((__m256i*)(out + i / 2), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from + i)));
#endif
    return out;
}
template <class T>
inline const Unit* stacked_tile(const float* from, int rows, Unit* out) {
    if constexpr (T::PER == 1) return (const Unit*)from;
#ifdef HALF
    for (int r = 0; r < rows; r += 2)
        for (int j = 0; j < KEYS; j += LANES) {
            const float* at = from + r * KEYS + j;
            __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(at)));
            __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(at + KEYS)));
            _mm512_storeu_si512(out + r / 2 * KEYS + j, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
        }
#endif
    return out;
}

template <class T>
inline void narrowed(const float* from, typename T::Value* into) {
    for (int i = 0; i < WIDTH; i++) into[i] = T::narrow(from[i]);
}

// Room of this thread's own, which stays: fresh pages would cost more than the sums.
struct Space {
    static constexpr size_t LINE = 16;  // floats of a cache line, at which every piece begins
    std::vector<float> floats;
    float* next = nullptr;
    void reserve(size_t count) {
        if (floats.size() < count + LINE) floats.resize(count + LINE);
        next = (float*)up(int64_t(floats.data()), LINE * 4);
    }
    template <class X>
    X* take(size_t count) {
        X* out = (X*)next;
        next += count;
        return out;
    }
};
thread_local Space space;

}  // namespace
