// 16 numbers at a time, as compilers know them without the intrinsics of any processor.
//
// Numbers are float32, or bfloat16 (T) that is read and written as such and computed with as
// float32.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace lanes {

using std::int64_t;

constexpr int LANES = 16;
typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef float Floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef std::int32_t Whole __attribute__((vector_size(4 * LANES)));
typedef std::uint32_t Bits __attribute__((vector_size(4 * LANES)));
typedef std::uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

struct bfloat16 {
    std::uint16_t bits;
};

inline Lanes load(const float *from) { return *reinterpret_cast<const Floats *>(from); }

inline Lanes load(const bfloat16 *from) {
    return (Lanes)(__builtin_convertvector(*reinterpret_cast<const Halves *>(from), Bits) << 16);
}

inline void store(float *to, Lanes x) { *reinterpret_cast<Floats *>(to) = x; }

/// Rounded to nearest, ties to even. The last bit of a NaN is kept from carrying it into infinity.
inline void store(bfloat16 *to, Lanes x) {
    Bits bits = (Bits)x;
    Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    Bits unrounded = (bits >> 16) | 0x40;
    *reinterpret_cast<Halves *>(to) = __builtin_convertvector(x == x ? rounded : unrounded, Halves);
}

/// Some of 16 numbers; `filling` stands for the others.
template <typename T> inline Lanes load_some(const T *from, int64_t count, float filling) {
    T some[LANES];
    std::memcpy(some, from, count * sizeof(T));
    Lanes x = load(some);
    for (int64_t lane = count; lane < LANES; lane++) x[lane] = filling;
    return x;
}

inline Lanes all(float x) { return Lanes{} + x; }

inline Lanes larger(Lanes a, Lanes b) { return a > b ? a : b; }

inline float sum_of(Lanes x) {
    for (int half = LANES / 2; half; half /= 2)
        for (int lane = 0; lane < half; lane++) x[lane] += x[lane + half];
    return x[0];
}

inline float largest_of(Lanes x) {
    float found = x[0];
    for (int lane = 1; lane < LANES; lane++) found = x[lane] > found ? x[lane] : found;
    return found;
}

/// e^x for x <= 0, to 2 units in the last place; 0 from e^-87 down, NaN for NaN (Cephes, expf).
inline Lanes exponential(Lanes x) {
    Lanes powers = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
    Lanes rest = (x - powers * 0.693359375f) + powers * 2.12194440e-4f;
    Lanes p = rest * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * rest + 8.3334519073e-3f;
    p = p * rest + 4.1665795894e-2f;
    p = p * rest + 1.6666665459e-1f;
    p = p * rest + 5.0000001201e-1f;
    p = p * (rest * rest) + rest + 1.0f;
    Lanes two = (Lanes)((__builtin_convertvector(x < -87.0f ? all(0.0f) : powers, Whole) + 127) << 23);
    return x < -87.0f ? all(0.0f) : p * two;
}

/// 1 / (1 + e^-x), without an overflow on either side.
inline Lanes sigmoid(Lanes x) {
    Lanes e = exponential(x > 0.0f ? -x : x);
    return (x > 0.0f ? all(1.0f) : e) / (1.0f + e);
}

}  // namespace lanes

typedef float float32;
typedef lanes::bfloat16 bfloat16;
