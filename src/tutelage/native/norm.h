// The norm of decoding and training.

#pragma once

#include "lanes.h"

namespace lanes {

/// x / sqrt(mean(x^2) + epsilon) * weight (Zhang and Sennrich 2019, eq. 4); gives the factor of x.
template <typename T>
float normalise_row(const float *x, const float *weight, float epsilon, T *out, int64_t width) {
    Lanes squares{};
    int64_t whole = width / LANES * LANES;
    for (int64_t i = 0; i < whole; i += LANES) squares += load(x + i) * load(x + i);
    float sum = sum_of(squares);
    for (int64_t i = whole; i < width; i++) sum += x[i] * x[i];
    float factor = 1.0f / std::sqrt(sum / width + epsilon);
    for (int64_t i = 0; i < whole; i += LANES)
        store(out + i, load(x + i) * factor * load(weight + i));
    if (whole < width) {
        T last[LANES];
        int64_t rest = width - whole;
        store(last, load_some(x + whole, rest, 0) * factor * load_some(weight + whole, rest, 0));
        std::memcpy(out + whole, last, rest * sizeof(T));
    }
    return factor;
}

}  // namespace lanes
