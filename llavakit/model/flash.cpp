// Attention of a packed row and its gradient, tile by tile (FlashAttention, arXiv 2205.14135), for a CPU.
//
// Every segment attends to itself. A query has a position in its segment and sees the keys up to it. Scores exist for a
// tile only; of the forward pass the logarithm of each query's sum is kept, and backward forms the weights again.
// All products are one small kernel over "units": a float, or a pair of bfloat16 that one instruction multiplies.
// Compiled for the machine at hand with -DWIDTH=<head width, even>; see flash.py.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

// AMX has tiles of its own, which oneDNN's products use.
#if defined(__AVX512BF16__) && !defined(__AMX_TILE__)
#define HALF
#endif

constexpr int D = (WIDTH + 15) / 16 * 16;  // a head with room to whole vectors, which holds zeros
constexpr int QUERIES = 32, KEYS = 128;    // of a tile: its scores stay within a core's cache
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
    using Value = uint16_t;
    static constexpr int PER = 2;
    static Vector times(Unit left, const Unit* right, Vector sum) {
        return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(int(left)),
                                        (__m512bh)_mm512_loadu_si512(right));
    }
    static float wide(uint16_t x) {
        uint32_t bits = uint32_t(x) << 16;
        float out;
        memcpy(&out, &bits, 4);
        return out;
    }
    static uint16_t narrow(float x) {
        uint32_t bits;
        memcpy(&bits, &x, 4);
        return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }
};
#endif

struct Segment {
    int64_t queries, keys, query, key;  // how many, and where they begin in the row
};

struct Tensor {
    char* data;
    int64_t token, head;  // strides in elements
};

// One head of a segment, and the `repeat` heads of queries that share it.
template <class T>
struct Head {
    using Value = typename T::Value;
    const Tensor* tensors;
    Segment segment;
    const int64_t* at;  // int64[queries]: each one's position in the segment, ascending
    float* sums;        // float[repeat][all queries of the row]: log2 of the sum of 2^score
    int64_t number, repeat, row;
    float scale;
    int64_t window;

    // Rows of tensor `which` from token `first` of the segment on.
    Value* queries(int which, int64_t head, int64_t first) const {
        const Tensor& t = tensors[which];
        return (Value*)t.data + (segment.query + first) * t.token + (number * repeat + head) * t.head;
    }
    Value* keys(int which) const {
        const Tensor& t = tensors[which];
        return (Value*)t.data + segment.key * t.token + number * t.head;
    }
    float* sum(int64_t head, int64_t first) const { return sums + head * row + segment.query + first; }
    // The keys that queries at `at[0..count)` meet.
    void limits(const int64_t* at, int64_t count, int64_t& low, int64_t& high) const {
        low = std::max<int64_t>(0, at[0] - window + 1) / KEYS * KEYS;
        high = up(at[count - 1] + 1, LANES);
    }
    // Hides of `some` keys from `start` on what the queries do not see: their scores are -inf.
    void hide(float* scores, const int64_t* at, int count, int64_t start, int some) const {
        if (start + some - 1 <= at[0] && start > at[count - 1] - window) return;
        for (int r = 0; r < count; r++)
            for (int64_t j = 0; j < some; j++)
                if (start + j > at[r] || start + j <= at[r] - window) scores[r * KEYS + j] = -INFINITY;
    }
};

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

// 2^x of x <= 0, to 2e-7; 0 of what is less than 2^-126.
inline Vector power(Vector x) {
    const Ints some = x > -126.0f;
    x = some ? x : Vector{} - 126.0f;
    Ints whole = __builtin_convertvector(x - 0.5f, Ints);
    Vector f = x - __builtin_convertvector(whole, Vector);
    Vector p = f * 1.5252734e-5f + 1.5403530e-4f;
    p = p * f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    return (Vector)((Ints)(p * (Vector)((whole + 127) << 23)) & some);
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

template <class T>
void forward(const Head<T>& h) {
    enum { QUERY, KEY, VALUE, OUT };
    constexpr int U = D / T::PER;
    const int64_t room = up(h.segment.keys, KEYS), query_token = h.tensors[QUERY].token;
    space.reserve(2 * room * D + QUERIES * (2 * D + 2 * KEYS));
    Unit *keys = space.take<Unit>(room * D), *values = space.take<Unit>(room * D);
    Unit *query = space.take<Unit>(QUERIES * D), *weights = space.take<Unit>(QUERIES * KEYS);
    float *score = space.take<float>(QUERIES * KEYS), *read = space.take<float>(QUERIES * D);
    turned<T>(h.keys(KEY), h.tensors[KEY].token, h.segment.keys, room, keys);
    stacked<T>(h.keys(VALUE), h.tensors[VALUE].token, h.segment.keys, room, values);
    const float turn = h.scale * LOG2E;
    for (int64_t head = 0; head < h.repeat; head++)
        for (int64_t first = 0; first < h.segment.queries; first += QUERIES) {
            const int count = int(std::min<int64_t>(QUERIES, h.segment.queries - first)), rows = int(up(count, ROWS));
            const int64_t* at = h.at + first;
            rows_of<T>(h.queries(QUERY, head, first), query_token, count, rows, query);
            std::fill(read, read + rows * D, 0.0f);
            float most[QUERIES], mass[QUERIES];
            std::fill(most, most + QUERIES, -1e30f);
            std::fill(mass, mass + QUERIES, 0.0f);
            int64_t low, high;
            h.limits(at, count, low, high);
            for (int64_t start = low; start < high; start += KEYS) {
                const int some = int(std::min<int64_t>(KEYS, high - start));
                product<T>(query, U, 1, keys + start, room, U, score, KEYS, rows, some, false);
                h.hide(score, at, count, start, some);
                for (int r = 0; r < count; r++) {
                    Vector* x = (Vector*)(score + r * KEYS);
                    Vector top = x[0];
                    for (int i = 1; i < some / LANES; i++) top = x[i] > top ? x[i] : top;
                    const float now = std::max(most[r], most_of(top) * turn);
                    Vector sum{};
                    for (int i = 0; i < some / LANES; i++) sum += x[i] = power(x[i] * turn - now);
                    if (now > most[r]) {
                        const float before = power(Vector{} + (most[r] - now))[0];
                        for (int i = 0; i < D / LANES; i++) ((Vector*)(read + r * D))[i] *= before;
                        mass[r] *= before;
                        most[r] = now;
                    }
                    mass[r] += sum_of(sum);
                }
                product<T>(flat<T>(score, rows, weights), KEYS / T::PER, 1, values + start / T::PER * D, D,
                           some / T::PER, read, D, rows, D, true);
            }
            for (int r = 0; r < count; r++) {
                auto* into = h.queries(OUT, head, first + r);
                for (int i = 0; i < WIDTH; i++) into[i] = T::narrow(read[r * D + i] / mass[r]);
                h.sum(head, first)[r] = most[r] + std::log2(mass[r]);
            }
        }
}

template <class T>
void backward(const Head<T>& h) {
    enum { QUERY, KEY, VALUE, OUT, D_OUT, D_QUERY, D_KEY, D_VALUE };
    constexpr int U = D / T::PER;
    const int64_t room = up(h.segment.keys, KEYS);
    const Tensor* t = h.tensors;
    space.reserve(5 * room * D + QUERIES * (5 * D + 5 * KEYS));
    Unit *keys = space.take<Unit>(room * D), *values = space.take<Unit>(room * D);
    Unit* keys_stacked = space.take<Unit>(room * D);
    float *d_keys = space.take<float>(room * D), *d_values = space.take<float>(room * D);
    Unit *query = space.take<Unit>(QUERIES * D), *query_stacked = space.take<Unit>(QUERIES * D);
    Unit *given = space.take<Unit>(QUERIES * D), *given_stacked = space.take<Unit>(QUERIES * D);
    float* d_query = space.take<float>(QUERIES * D);
    float *weight = space.take<float>(QUERIES * KEYS), *change = space.take<float>(QUERIES * KEYS);
    Unit *weight_stacked = space.take<Unit>(QUERIES * KEYS), *change_stacked = space.take<Unit>(QUERIES * KEYS);
    Unit* change_flat = space.take<Unit>(QUERIES * KEYS);
    turned<T>(h.keys(KEY), t[KEY].token, h.segment.keys, room, keys);
    turned<T>(h.keys(VALUE), t[VALUE].token, h.segment.keys, room, values);
    stacked<T>(h.keys(KEY), t[KEY].token, h.segment.keys, room, keys_stacked);
    std::fill(d_keys, d_keys + room * D, 0.0f);
    std::fill(d_values, d_values + room * D, 0.0f);
    const float turn = h.scale * LOG2E;
    for (int64_t head = 0; head < h.repeat; head++)
        for (int64_t first = 0; first < h.segment.queries; first += QUERIES) {
            const int count = int(std::min<int64_t>(QUERIES, h.segment.queries - first)), rows = int(up(count, ROWS));
            const int64_t* at = h.at + first;
            rows_of<T>(h.queries(QUERY, head, first), t[QUERY].token, count, rows, query);
            stacked<T>(h.queries(QUERY, head, first), t[QUERY].token, count, rows, query_stacked);
            rows_of<T>(h.queries(D_OUT, head, first), t[D_OUT].token, count, rows, given);
            stacked<T>(h.queries(D_OUT, head, first), t[D_OUT].token, count, rows, given_stacked);
            std::fill(d_query, d_query + rows * D, 0.0f);
            float along[QUERIES];  // of the weights' gradient, what lies along the weights
            for (int r = 0; r < count; r++) {
                const auto *slope = h.queries(D_OUT, head, first + r), *was = h.queries(OUT, head, first + r);
                along[r] = 0;
                for (int i = 0; i < WIDTH; i++) along[r] += T::wide(slope[i]) * T::wide(was[i]);
            }
            int64_t low, high;
            h.limits(at, count, low, high);
            for (int64_t start = low; start < high; start += KEYS) {
                const int some = int(std::min<int64_t>(KEYS, high - start));
                product<T>(query, U, 1, keys + start, room, U, weight, KEYS, rows, some, false);
                product<T>(given, U, 1, values + start, room, U, change, KEYS, rows, some, false);
                h.hide(weight, at, count, start, some);
                for (int r = 0; r < rows; r++) {
                    Vector *x = (Vector*)(weight + r * KEYS), *y = (Vector*)(change + r * KEYS);
                    const float sum = r < count ? h.sum(head, first)[r] : INFINITY;  // no weight below the last query
                    const float less = r < count ? along[r] : 0.0f;
                    for (int i = 0; i < some / LANES; i++) {
                        x[i] = power(x[i] * turn - sum);
                        y[i] = x[i] * (y[i] - less) * h.scale;
                    }
                }
                product<T>(stacked_tile<T>(weight, rows, weight_stacked), 1, KEYS, given_stacked, D, rows / T::PER,
                           d_values + start * D, D, some, D, true);
                product<T>(stacked_tile<T>(change, rows, change_stacked), 1, KEYS, query_stacked, D, rows / T::PER,
                           d_keys + start * D, D, some, D, true);
                product<T>(flat<T>(change, rows, change_flat), KEYS / T::PER, 1, keys_stacked + start / T::PER * D, D,
                           some / T::PER, d_query, D, rows, D, true);
            }
            for (int r = 0; r < count; r++) narrowed<T>(d_query + r * D, h.queries(D_QUERY, head, first + r));
        }
    for (int64_t n = 0; n < h.segment.keys; n++) {
        narrowed<T>(d_keys + n * D, h.keys(D_KEY) + n * t[D_KEY].token);
        narrowed<T>(d_values + n * D, h.keys(D_VALUE) + n * t[D_VALUE].token);
    }
}

template <class T>
void attend(const void* tensors, int64_t count, float* sums, const void* segments, int64_t number, const int64_t* at,
            int64_t heads, int64_t repeat, int64_t queries, float scale, int64_t window, int64_t threads) {
    const Segment* all = (const Segment*)segments;
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1)
    for (int64_t n = 0; n < number * heads; n++) {
        const Segment& s = all[n / heads];
        const int64_t head = n % heads;
        const Head<T> h{(const Tensor*)tensors, s, at + s.query, sums + head * repeat * queries, head, repeat, queries,
                        scale, window};
        count == 4 ? forward<T>(h) : backward<T>(h);
    }
}

}  // namespace

// tensors: query, key, value, out and, for backward, the gradients of out, query, key and value; sums: float[heads of
// queries][queries]; at: int64[queries].
extern "C" void attend_float(const void* tensors, int64_t count, float* sums, const void* segments, int64_t number,
                             const int64_t* at, int64_t heads, int64_t repeat, int64_t queries, float scale,
                             int64_t window, int64_t threads) {
    attend<Float>(tensors, count, sums, segments, number, at, heads, repeat, queries, scale, window, threads);
}

#ifdef HALF
extern "C" void attend_half(const void* tensors, int64_t count, float* sums, const void* segments, int64_t number,
                            const int64_t* at, int64_t heads, int64_t repeat, int64_t queries, float scale,
                            int64_t window, int64_t threads) {
    attend<Half>(tensors, count, sums, segments, number, at, heads, repeat, queries, scale, window, threads);
}
#endif
