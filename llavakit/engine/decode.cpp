// Decoding on a CPU: products, attention and norms each by itself, and a step of them all for one token of each row.
//
// Of a step everything but the products is small, and takes longer to begin from Python than to do.
// Compiled for the machine at hand with -DWIDTH=<head width>; see kernel.py.

#include "attend.h"
#include "products.h"

namespace {

using attention::narrow;
using attention::Seen;
using attention::wide;

#ifdef HALF
constexpr bool HALVES = true;
#else
constexpr bool HALVES = false;
using Half = Float;  // so that what is not called compiles
#endif

struct Norm {
    const void* weight;  // T[width], or none: no norm
    float eps;
};

template <class T>
void norm_row(const Norm& norm, const T* x, T* out, int64_t width) {
    const T* weight = (const T*)norm.weight;
    float sum = 0;
    for (int64_t i = 0; i < width; i++) sum += wide(x[i]) * wide(x[i]);
    const float scale = 1 / std::sqrt(sum / float(width) + norm.eps);
    for (int64_t i = 0; i < width; i++) narrow(wide(x[i]) * scale * wide(weight[i]), out + i);
}

template <class T>
void norm_all(const Norm& norm, const T* x, T* out, int64_t tokens, int64_t width) {
#pragma omp for schedule(static)
    for (int64_t t = 0; t < tokens; t++) norm_row(norm, x + t * width, out + t * width, width);
}

// Of every head of its own, in place: queries by one norm, the keys after them by another.
template <class T>
void norm_heads(const Norm& query, const Norm& key, T* joined, int64_t row, int64_t tokens, int64_t queries,
                int64_t keys) {
    if (!query.weight) return;
#pragma omp for collapse(2) schedule(static)
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t head = 0; head < queries + keys; head++) {
            T* x = joined + t * row + head * WIDTH;
            norm_row(head < queries ? query : key, x, x, WIDTH);
        }
}

struct Layer {
    Norm before, between, of_query, of_key;
    Matrix query, rest;  // rest: keys and values; or the three of them are `query`, and `rest` has no outputs
    Matrix out, gate, up, down;
    float scale;
};

struct Model {
    const Layer* layers;
    int64_t count;
    Norm norm;
    Matrix head;
    int64_t heads, repeat;  // of keys, and of queries for each
};

template <class T>
void step(const Model& model, const Seen& seen, typename T::Value* x, int64_t tokens, typename T::Value* logits,
          int64_t threads) {
    using Value = typename T::Value;
    const int64_t hidden = model.head.inputs, inner = model.layers->gate.outputs;
    const int64_t read = model.heads * model.repeat * WIDTH, all = read + 2 * model.heads * WIDTH;
    std::vector<Value> room(tokens * (hidden + all + read + inner));
    Value *normed = room.data(), *joined = normed + tokens * hidden, *attended = joined + tokens * all;
    Value* gated = attended + tokens * read;
    const Value* none = nullptr;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        for (int64_t number = 0; number < model.count; number++) {
            const Layer& layer = model.layers[number];
            norm_all(layer.before, x, normed, tokens, hidden);
            product<T>(layer.query, normed, hidden, tokens, NOTHING, none, joined, all);
            product<T>(layer.rest, normed, hidden, tokens, NOTHING, none, joined + layer.query.outputs, all);
#pragma omp barrier
            norm_heads(layer.of_query, layer.of_key, joined, all, tokens, model.heads * model.repeat, model.heads);
            attention::attend(seen, number, tokens, model.heads, model.repeat, (const Value*)joined, all, attended,
                              layer.scale);
            product<T>(layer.out, attended, read, tokens, PLUS, x, x, hidden);
#pragma omp barrier
            norm_all(layer.between, x, normed, tokens, hidden);
            // The same thread has the same outputs of both.
            product<T>(layer.gate, normed, hidden, tokens, SILU, none, gated, inner);
            product<T>(layer.up, normed, hidden, tokens, TIMES, gated, gated, inner);
#pragma omp barrier
            product<T>(layer.down, gated, inner, tokens, PLUS, x, x, hidden);
#pragma omp barrier
        }
        norm_all(model.norm, x, normed, tokens, hidden);
        product<T>(model.head, normed, hidden, tokens, NOTHING, none, logits, model.head.outputs);
    }
}

}  // namespace

// Of all: `half` says that T is bfloat16, else float.

extern "C" void attend_tokens(const Seen* seen, int64_t layer, int64_t tokens, int64_t heads, int64_t repeat,
                              const void* q, int64_t stride, void* out, float scale, int64_t half, int64_t threads) {
#pragma omp parallel num_threads(threads) if (threads > 1)
    if (half)
        attention::attend(*seen, layer, tokens, heads, repeat, (const bf16*)q, stride, (bf16*)out, scale);
    else
        attention::attend(*seen, layer, tokens, heads, repeat, (const float*)q, stride, (float*)out, scale);
}

// x, out: T[tokens][width]; weight: T[width].
extern "C" void norm_tokens(const void* x, const void* weight, void* out, int64_t tokens, int64_t width, float eps,
                            int64_t half, int64_t threads) {
#pragma omp parallel num_threads(threads) if (threads > 1)
    if (half)
        norm_all({weight, eps}, (const bf16*)x, (bf16*)out, tokens, width);
    else
        norm_all({weight, eps}, (const float*)x, (float*)out, tokens, width);
}

// How many units a matrix takes, laid out; 0 where there are no products of this type, or of so many inputs.
extern "C" int64_t units(int64_t inputs, int64_t outputs, int64_t half) {
    const int64_t per = half ? Half::PER : 1;
    return (half && !HALVES) || inputs % per ? 0 : up(outputs, PANEL) * inputs / per;
}

// weight: T[outputs][inputs].
extern "C" void lay_out(const void* weight, int64_t inputs, int64_t outputs, Unit* panels, int64_t half,
                        int64_t threads) {
#pragma omp parallel num_threads(threads) if (threads > 1)
    if (half)
        laid_out<Half>((const Half::Value*)weight, inputs, outputs, panels);
    else
        laid_out<Float>((const float*)weight, inputs, outputs, panels);
}

// x: T[tokens][inputs], `row` elements from token to token; other, out: T[tokens][outputs] without gaps.
extern "C" void multiply(const Matrix* w, const void* x, int64_t row, int64_t tokens, int64_t then, const void* other,
                         void* out, int64_t half, int64_t threads) {
#pragma omp parallel num_threads(threads) if (threads > 1)
    if (half)
        product<Half>(*w, (const Half::Value*)x, row, tokens, Then(then), (const Half::Value*)other,
                      (Half::Value*)out, w->outputs);
    else
        product<Float>(*w, (const float*)x, row, tokens, Then(then), (const float*)other, (float*)out, w->outputs);
}

// x: T[tokens][hidden], overwritten; logits: T[tokens][head.outputs].
extern "C" void step(const Model* model, const Seen* seen, void* x, int64_t tokens, void* logits, int64_t half,
                     int64_t threads) {
    if (half)
        step<Half>(*model, *seen, (Half::Value*)x, tokens, (Half::Value*)logits, threads);
    else
        step<Float>(*model, *seen, (float*)x, tokens, (float*)logits, threads);
}
