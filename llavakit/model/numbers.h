// What the compiled parts of model and engine share: bfloat16 and floats, and powers of two.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace {

using bf16 = uint16_t;

inline float float_of(bf16 x) {
    uint32_t bits = uint32_t(x) << 16;
    float out;
    memcpy(&out, &bits, 4);
    return out;
}

// To nearest, ties to even.
inline bf16 half_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bf16((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// 2^f of -1/2 <= f <= 1/2, a float or a vector of them, to 2e-7.
template <class X>
inline X fraction_of_power(X f) {
    X p = f * 1.5252734e-5f + 1.5403530e-4f;
    p = p * f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    return p * f + 1.0f;
}

// Of x <= 0, to 2e-7. The compiler makes vector code of it, which it does not of expf.
inline float exponential(float x) {
    float t = std::max(x, -87.0f) * 1.44269504f;
    int whole = int(t - 0.5f);
    float f = t - float(whole);
    int bits = (whole + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return fraction_of_power(f) * power;
}

}  // namespace
