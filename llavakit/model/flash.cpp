// Attention of a packed row and its gradient, tile by tile (FlashAttention, arXiv 2205.14135), for a CPU.
//
// Every segment attends to itself. A query has a position in its segment and sees the keys up to it. Scores exist for a
// tile only; of the forward pass the logarithm of each query's sum is kept, and backward forms the weights again.
// Compiled for the machine at hand with -DWIDTH=<head width, even>; see flash.py.

#include "units.h"

namespace {

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
