// Products of some tokens with a matrix that was laid out for it once.
//
// Its outputs lie in panels, as many as a tile in registers has columns, so that a step of decoding reads every weight
// once and in order, which is all that it costs. A token's sums do not depend on how many others there are.

#pragma once

#include <algorithm>
#include <cmath>

#include "../model/tiles.h"

namespace {

constexpr int PANEL = COLUMNS * LANES;
constexpr int MOST = LANES == 16 ? 8 : 6;  // tokens of a tile in registers
constexpr int TOKENS = 120;  // that one thread sums at a time,
constexpr int DEPTH = 1024;  // over so many units: of that, panel and tokens stay within a core's cache

enum Then : int64_t { NOTHING, SILU, PLUS, TIMES };

struct Matrix {
    const Unit* panels;  // [panels][inputs / PER][PANEL]; outputs that fill up the last one are zeros
    const void* bias;    // T[outputs], or none
    int64_t inputs, outputs;
};

// From T[outputs][inputs].
template <class T>
void laid_out(const typename T::Value* weight, int64_t inputs, int64_t outputs, Unit* panels) {
    const int64_t depth = inputs / T::PER;
#pragma omp for schedule(static)
    for (int64_t first = 0; first < outputs; first += PANEL)
        for (int64_t k = 0; k < depth; k++)
            for (int n = 0; n < PANEL; n++) {
                Unit& unit = panels[(first / PANEL * depth + k) * PANEL + n];
                unit = 0;
                if (first + n < outputs) memcpy(&unit, weight + (first + n) * inputs + k * T::PER, sizeof(Unit));
            }
}

// sums[tokens][PANEL] (+)= x[tokens][depth] * panel[depth][PANEL]; `tokens` is at most R.
template <class T, int R>
inline void panel_tile(const Unit* x, int64_t row, const Unit* panel, int depth, float* sums, int tokens, bool add) {
    if constexpr (R > 1)
        if (tokens < R) return panel_tile<T, R - 1>(x, row, panel, depth, sums, tokens, add);
    tile<T, R, COLUMNS>(x, row, 1, panel, PANEL, depth, sums, PANEL, add);
}

inline float silu(float x) {
    float e = exponential(-std::fabs(x));
    return x * (x < 0 ? e : 1.0f) / (1.0f + e);
}

// out[tokens][outputs] = then(x[tokens][inputs] * w + bias); `other` is laid out as `out`. Within a parallel region all
// threads share the work, and do not wait for each other at the end.
template <class T>
void product(const Matrix& w, const typename T::Value* x, int64_t row, int64_t tokens, Then then,
             const typename T::Value* other, typename T::Value* out, int64_t out_row) {
    const int64_t depth = w.inputs / T::PER, panels = up(w.outputs, PANEL) / PANEL;
    const auto* bias = (const typename T::Value*)w.bias;
#pragma omp for collapse(2) schedule(static) nowait
    for (int64_t p = 0; p < panels; p++)
        for (int64_t first = 0; first < tokens; first += TOKENS) {
            alignas(64) float sums[TOKENS * PANEL];
            const int count = int(std::min<int64_t>(TOKENS, tokens - first));
            for (int64_t k = 0; k < depth; k += DEPTH)
                for (int t = 0; t < count; t += MOST)
                    panel_tile<T, MOST>((const Unit*)(x + (first + t) * row) + k, row / T::PER,
                                        w.panels + (p * depth + k) * PANEL, int(std::min<int64_t>(DEPTH, depth - k)),
                                        sums + t * PANEL, std::min(MOST, count - t), k > 0);
            const int64_t at = p * PANEL;
            const int width = int(std::min<int64_t>(PANEL, w.outputs - at));
            for (int t = 0; t < count; t++) {
                float* sum = sums + t * PANEL;
                const int64_t place = (first + t) * out_row + at;
                if (bias)
                    for (int n = 0; n < width; n++) sum[n] += T::wide(bias[at + n]);
                if (then == SILU)
                    for (int n = 0; n < PANEL; n++) sum[n] = silu(sum[n]);
                else if (then == PLUS)
                    for (int n = 0; n < width; n++) sum[n] += T::wide(other[place + n]);
                else if (then == TIMES)
                    for (int n = 0; n < width; n++) sum[n] *= T::wide(other[place + n]);
                for (int n = 0; n < width; n++) out[place + n] = T::narrow(sum[n]);
            }
        }
}

}  // namespace
