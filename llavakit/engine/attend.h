// Attention of one query token a row over keys and values that lie in several places, with rotary positions and the
// store of the new token's key and value.
//
// A segment is a run of tokens that some of the rows see: a shared prefix, or what a row has of its own. It is read
// once for all of its rows. Each row's softmax goes on from segment to segment, so nothing is merged afterwards.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../model/numbers.h"

namespace attention {

constexpr int D = WIDTH, BLOCK = 64;
// Vectors spelled out: left to itself the compiler keeps sums in memory. It splits those that the machine lacks.
constexpr int LANES = D % 16 == 0 ? 16 : D % 8 == 0 ? 8 : 1, PARTS = D / LANES;
constexpr int QUERIES = PARTS > 4 ? 3 : 6;  // whose sums stay in registers
typedef float Vector __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

struct Segment {
    const char *keys, *values;       // of layer 0 and head 0: T[tokens][D]
    int64_t layer, head;             // strides in elements
    int64_t tokens, first, members;  // its rows are rows[first : first + members]
};

// Where the query tokens' own keys and values go, and by how much they and the queries are turned: T[tokens][D], the
// first half of the sine negative. Without `cos` they are turned and stored already.
struct Store {
    char *keys, *values;
    int64_t layer, head;  // strides in elements
    const int64_t* at;    // int64[tokens]: offset of each token within its layer and head, in elements
    const void *cos, *sin;
};

struct Seen {
    const Segment* segments;
    int64_t count;
    const int64_t* rows;  // of which each segment has a run
    Store store;
};

struct Query {
    float q[D], sum[D], most, mass;
};

inline float wide(float x) { return x; }
inline float wide(bf16 x) { return float_of(x); }
inline void narrow(float x, float* out) { *out = x; }
inline void narrow(float x, bf16* out) { *out = half_of(x); }

inline Vector loaded(const float* from) { return *(const Vector*)from; }
inline Vector loaded(const bf16* from) {
    typedef bf16 Short __attribute__((vector_size(LANES * 2), aligned(2), may_alias));
    typedef uint32_t Bits __attribute__((vector_size(LANES * 4)));
    return (Vector)(__builtin_convertvector(*(const Short*)from, Bits) << 16);
}

// Of two vectors that hold sums in groups of 2 * HALF lanes: those of `a`, then those of `b`, in groups of HALF.
template <int HALF>
inline Vector halved(Vector a, Vector b) {
    Vector out;
#if defined(__GNUC__) && !defined(__clang__)
    typedef int Lanes __attribute__((vector_size(LANES * 4)));
    Lanes low, high;
    for (int i = 0; i < LANES; i++) {
        int within = i % (LANES / 2);
        low[i] = (i < LANES / 2 ? 0 : LANES) + within / HALF * 2 * HALF + within % HALF;
        high[i] = low[i] + HALF;
    }
    out = __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
#else
    for (int i = 0; i < LANES; i++) {
        int within = i % (LANES / 2), lane = within / HALF * 2 * HALF + within % HALF;
        const Vector& from = i < LANES / 2 ? a : b;
        out[i] = from[lane] + from[lane + HALF];
    }
#endif
    return out;
}

// The sum of each of LANES vectors, in order.
template <int COUNT>
inline Vector sums(const Vector* from) {
    if constexpr (COUNT == 1)
        return *from;
    else
        return halved<LANES / COUNT>(sums<COUNT / 2>(from), sums<COUNT / 2>(from + COUNT / 2));
}

// Scores of R queries and `count` keys, each key read once for all of them. Up to whole vectors the last key stands in.
template <class T, int R>
inline void score_block(float (*score)[BLOCK], const Vector* const* q, const T* keys, int count) {
    for (int start = 0; start < count; start += LANES) {
        Vector products[R][LANES];
        for (int j = 0; j < LANES; j++) {
            const T* key = keys + std::min(start + j, count - 1) * D;
            Vector part = loaded(key);
            for (int r = 0; r < R; r++) products[r][j] = q[r][0] * part;
            for (int i = 1; i < PARTS; i++) {
                part = loaded(key + i * LANES);
                for (int r = 0; r < R; r++) products[r][j] += q[r][i] * part;
            }
        }
        for (int r = 0; r < R; r++) *(Vector*)(score[r] + start) = sums<LANES>(products[r]);
    }
}

template <class T>
inline void turn(const T* x, const T* cos, const T* sin, float* out) {
    for (int i = 0; i < D; i++) out[i] = wide(x[i]) * wide(cos[i]) + wide(x[(i + D / 2) % D]) * wide(sin[i]);
}

// Keeps the key and the value of each token's head.
template <class T>
void keep(const Store& store, int64_t layer, int64_t head, int64_t tokens, const T* key, const T* value,
          int64_t stride) {
    for (int64_t t = 0; t < tokens; t++) {
        int64_t offset = layer * store.layer + head * store.head + store.at[t];
        T *k = (T*)store.keys + offset, *v = (T*)store.values + offset;
        float turned[D];
        turn(key + t * stride, (const T*)store.cos + t * D, (const T*)store.sin + t * D, turned);
        for (int i = 0; i < D; i++) narrow(turned[i], k + i);
        std::copy(value + t * stride, value + t * stride + D, v);
    }
}

// `count` keys and values, at most BLOCK, are attended by R queries.
template <class T, int R>
inline void attend_block(Query* const* rows, const T* keys, const T* values, int count) {
    float score[R][BLOCK];
    const Vector* q[R];
    for (int r = 0; r < R; r++) q[r] = (const Vector*)rows[r]->q;
    score_block<T, R>(score, q, keys, count);
    Vector sum[R][PARTS];
    for (int r = 0; r < R; r++) {
        Query& row = *rows[r];
        // Spelled out: a maximum of floats is no vector code otherwise, because of NaN.
        Vector highest = *(const Vector*)score[r];
        for (int j = LANES; j < count; j += LANES) {
            const Vector next = *(const Vector*)(score[r] + j);
            highest = next > highest ? next : highest;
        }
        float most = row.most, mass = 0;
        for (int i = 0; i < LANES; i++) most = std::max(most, highest[i]);
        for (int j = 0; j < count; j++) {
            score[r][j] = exponential(score[r][j] - most);
            mass += score[r][j];
        }
        float scale = exponential(row.most - most);
        for (int i = 0; i < PARTS; i++) sum[r][i] = ((const Vector*)row.sum)[i] * scale;
        row.mass = row.mass * scale + mass;
        row.most = most;
    }
    for (int j = 0; j < count; j++)
        for (int i = 0; i < PARTS; i++) {
            const Vector value = loaded(values + j * D + i * LANES);
            for (int r = 0; r < R; r++) sum[r][i] += score[r][j] * value;
        }
    for (int r = 0; r < R; r++)
        for (int i = 0; i < PARTS; i++) ((Vector*)rows[r]->sum)[i] = sum[r][i];
}

// As many queries as there are, at most R.
template <class T, int R>
inline void attend_some(int64_t left, Query* const* rows, const T* keys, const T* values, int count) {
    if constexpr (R > 1)
        if (left < R) return attend_some<T, R - 1>(left, rows, keys, values, count);
    attend_block<T, R>(rows, keys, values, count);
}

template <class T>
void attend_head(const Segment* segments, int64_t count, const int64_t* rows, int64_t layer, int64_t head,
                 int64_t tokens, int64_t heads, int64_t repeat, const T* q, int64_t stride, T* out, float scale,
                 const Store& store) {
    const T *cos = (const T*)store.cos, *sin = (const T*)store.sin;
    if (cos) {
        const T* key = q + (heads * repeat + head) * D;
        keep(store, layer, head, tokens, key, key + heads * D, stride);
    }
    std::vector<Query> queries(tokens * repeat);
    for (int64_t n = 0; n < tokens * repeat; n++) {
        const T* from = q + n / repeat * stride + (head * repeat + n % repeat) * D;
        Query& row = queries[n];
        if (cos)
            turn(from, cos + n / repeat * D, sin + n / repeat * D, row.q);
        else
            for (int i = 0; i < D; i++) row.q[i] = wide(from[i]);
        for (int i = 0; i < D; i++) row.q[i] *= scale, row.sum[i] = 0;
        row.most = -1e30f, row.mass = 0;
    }
    std::vector<Query*> members;
    for (const Segment* s = segments; s < segments + count; s++) {
        members.clear();
        for (int64_t m = s->first; m < s->first + s->members; m++)
            for (int64_t r = 0; r < repeat; r++) members.push_back(&queries[rows[m] * repeat + r]);
        int64_t offset = layer * s->layer + head * s->head;
        const T *keys = (const T*)s->keys + offset, *values = (const T*)s->values + offset;
        for (int64_t start = 0; start < s->tokens; start += BLOCK) {
            int n = int(std::min<int64_t>(BLOCK, s->tokens - start));
            for (int64_t m = 0; m < int64_t(members.size()); m += QUERIES)
                attend_some<T, QUERIES>(members.size() - m, &members[m], keys + start * D, values + start * D, n);
        }
    }
    for (int64_t n = 0; n < tokens * repeat; n++) {
        T* into = out + (n / repeat * heads * repeat + head * repeat + n % repeat) * D;
        float share = 1 / queries[n].mass;
        for (int i = 0; i < D; i++) narrow(queries[n].sum[i] * share, into + i);
    }
}

// q: T[tokens][heads * repeat][D], `stride` elements from token to token, with `store.cos` followed by heads keys and
// heads values; out: T[tokens][heads * repeat][D] without gaps. T is float or bfloat16. Within a parallel region all
// threads share the work, and wait for each other at the end.
template <class T>
void attend(const Seen& seen, int64_t layer, int64_t tokens, int64_t heads, int64_t repeat, const T* q, int64_t stride,
            T* out, float scale) {
#pragma omp for schedule(static)
    for (int64_t head = 0; head < heads; head++)
        attend_head(seen.segments, seen.count, seen.rows, layer, head, tokens, heads, repeat, q, stride, out, scale,
                    seen.store);
}

}  // namespace attention
