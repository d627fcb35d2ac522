// The small work of decoding: attention of one query token a row over keys and values that lie in several places,
// with rotary positions and the store of the new token's key and value; and RMS norms.
//
// A segment is a run of tokens that some of the rows see: a shared prefix, or what a row has of its own. It is read
// once for all of its rows. Each row's softmax goes on from segment to segment, so nothing is merged afterwards.
// Compiled for the machine at hand with -DWIDTH=<head width>; see kernel.py.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "../model/numbers.h"

namespace {

constexpr int D = WIDTH, BLOCK = 64;
// Vectors spelled out: left to itself the compiler keeps sums in memory. It splits those that the machine lacks.
constexpr int LANES = D % 16 == 0 ? 16 : D % 8 == 0 ? 8 : 1, PARTS = D / LANES;
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

struct Query {
    float q[D], sum[D], most, mass;
};

inline float wide(float x) { return x; }
inline float wide(bf16 x) { return float_of(x); }
inline void narrow(float x, float* out) { *out = x; }
inline void narrow(float x, bf16* out) { *out = half_of(x); }

// Of x <= 0, to 2e-7. The compiler makes vector code of it, which it does not of expf.
inline float exponential(float x) {
    float t = std::max(x, -87.0f) * 1.44269504f;
    int whole = int(t - 0.5f);
    float f = t - float(whole);
    int bits = (whole + 127) << 23;
    float power;
    __builtin_memcpy(&power, &bits, 4);
    return fraction_of_power(f) * power;
}

// Rows of floats, without a copy where they are that already.
inline const float* floats(const float* from, int64_t, float*) { return from; }
inline const float* floats(const bf16* from, int64_t count, float* into) {
    for (int64_t i = 0; i < count * D; i++) into[i] = wide(from[i]);
    return into;
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

// Scores of R queries and BLOCK keys, each key read once for all of them.
template <int R>
inline void score_block(float (*score)[BLOCK], const Vector* const* q, const Vector* keys) {
    for (int start = 0; start < BLOCK; start += LANES) {
        Vector products[R][LANES];
        for (int j = 0; j < LANES; j++) {
            const Vector* key = keys + (start + j) * PARTS;
            for (int r = 0; r < R; r++) products[r][j] = q[r][0] * key[0];
            for (int i = 1; i < PARTS; i++)
                for (int r = 0; r < R; r++) products[r][j] += q[r][i] * key[i];
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

// `count` keys and values, at most BLOCK, are attended by R queries. Keys are readable up to BLOCK.
template <int R>
inline void attend_block(Query* const* rows, const float* keys, const float* values, int count) {
    float score[R][BLOCK];
    const Vector* q[R];
    for (int r = 0; r < R; r++) q[r] = (const Vector*)rows[r]->q;
    score_block<R>(score, q, (const Vector*)keys);
    Vector sum[R][PARTS];
    for (int r = 0; r < R; r++) {
        Query& row = *rows[r];
        float most = row.most, mass = 0;
        for (int j = 0; j < count; j++) most = std::max(most, score[r][j]);
        for (int j = 0; j < count; j++) {
            score[r][j] = exponential(score[r][j] - most);
            mass += score[r][j];
        }
        float scale = exponential(row.most - most);
        for (int i = 0; i < PARTS; i++) sum[r][i] = ((const Vector*)row.sum)[i] * scale;
        row.mass = row.mass * scale + mass;
        row.most = most;
    }
    const Vector* value = (const Vector*)values;
    for (int j = 0; j < count; j++)
        for (int i = 0; i < PARTS; i++)
            for (int r = 0; r < R; r++) sum[r][i] += score[r][j] * value[j * PARTS + i];
    for (int r = 0; r < R; r++)
        for (int i = 0; i < PARTS; i++) ((Vector*)rows[r]->sum)[i] = sum[r][i];
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
    float key_space[BLOCK * D], value_space[BLOCK * D];
    std::vector<Query*> members;
    for (const Segment* s = segments; s < segments + count; s++) {
        members.clear();
        for (int64_t m = s->first; m < s->first + s->members; m++)
            for (int64_t r = 0; r < repeat; r++) members.push_back(&queries[rows[m] * repeat + r]);
        int64_t offset = layer * s->layer + head * s->head;
        const T *keys = (const T*)s->keys + offset, *values = (const T*)s->values + offset;
        for (int64_t start = 0; start < s->tokens; start += BLOCK) {
            int n = int(std::min<int64_t>(BLOCK, s->tokens - start));
            const float* k = floats(keys + start * D, n, key_space);
            const float* v = floats(values + start * D, n, value_space);
            if (n < BLOCK) {  // a whole block is read
                if (k != key_space) std::copy(k, k + n * D, key_space);
                std::fill(key_space + n * D, key_space + BLOCK * D, 0.0f);
                k = key_space;
            }
            Query* const* some = members.data();
            int64_t left = members.size();
            for (; left >= 4; left -= 4, some += 4) attend_block<4>(some, k, v, n);
            if (left >= 2) {
                attend_block<2>(some, k, v, n);
                left -= 2, some += 2;
            }
            if (left) attend_block<1>(some, k, v, n);
        }
    }
    for (int64_t n = 0; n < tokens * repeat; n++) {
        T* into = out + (n / repeat * heads * repeat + head * repeat + n % repeat) * D;
        float share = 1 / queries[n].mass;
        for (int i = 0; i < D; i++) narrow(queries[n].sum[i] * share, into + i);
    }
}

template <class T>
void norm_row(const T* x, const T* weight, T* out, int64_t width, float eps) {
    float sum = 0;
    for (int64_t i = 0; i < width; i++) sum += wide(x[i]) * wide(x[i]);
    float scale = 1 / std::sqrt(sum / float(width) + eps);
    for (int64_t i = 0; i < width; i++) narrow(wide(x[i]) * scale * wide(weight[i]), out + i);
}

}  // namespace

// q: T[tokens][heads * repeat][D], `stride` elements from token to token, with `store.cos` followed by heads keys and
// heads values; out: T[tokens][heads * repeat][D] without gaps. T is float, or bfloat16 where `half` is set.
extern "C" void attend(const void* segments, int64_t count, const int64_t* rows, int64_t layer, int64_t tokens,
                       int64_t heads, int64_t repeat, const void* q, int64_t stride, void* out, float scale,
                       int64_t half, int64_t threads, const void* store) {
    const Segment* s = (const Segment*)segments;
    const Store& to = *(const Store*)store;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t head = 0; head < heads; head++) {
        if (half)
            attend_head(s, count, rows, layer, head, tokens, heads, repeat, (const bf16*)q, stride, (bf16*)out, scale,
                        to);
        else
            attend_head(s, count, rows, layer, head, tokens, heads, repeat, (const float*)q, stride, (float*)out,
                        scale, to);
    }
}

// x, out: T[tokens][width]; weight: T[width].
extern "C" void norm(const void* x, const void* weight, void* out, int64_t tokens, int64_t width, float eps,
                     int64_t half) {
    for (int64_t t = 0; t < tokens; t++) {
        if (half)
            norm_row((const bf16*)x + t * width, (const bf16*)weight, (bf16*)out + t * width, width, eps);
        else
            norm_row((const float*)x + t * width, (const float*)weight, (float*)out + t * width, width, eps);
    }
}
