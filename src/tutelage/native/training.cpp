// Norm, rotation and activation of training, forward and backward, each in one pass over memory.
//
// `tutelage.native.training` says what each function is given. Rows are divided among threads in
// blocks of one size, whatever their number, so that sums over rows do not depend on it.

#include <vector>

#include "lanes.h"
#include "norm.h"

namespace {

using namespace lanes;

constexpr int64_t ROWS = 64;  // whose gradients of a weight are added up by one thread

void normalise(const float *x, const float *weight, float epsilon, float *out, float *factors,
               int64_t rows, int64_t width, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t row = 0; row < rows; row++)
        factors[row] =
            normalise_row(x + row * width, weight, epsilon, out + row * width, width);
}

/// f the factor of a row, y = f x w:
///     dL/dx = f (w g) - x f^3 / width * sum(w g x)        dL/dw = sum over rows of f g x
void normalise_backward(const float *upstream, const float *x, const float *weight,
                        const float *factors, float *of_x, float *of_weight, int64_t rows,
                        int64_t width, int threads) {
    int64_t blocks = (rows + ROWS - 1) / ROWS;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t block = 0; block < blocks; block++) {
        float *sums = of_weight + block * width;
        std::memset(sums, 0, width * sizeof(float));
        int64_t end = rows < (block + 1) * ROWS ? rows : (block + 1) * ROWS;
        for (int64_t row = block * ROWS; row < end; row++) {
            const float *g = upstream + row * width, *own = x + row * width;
            float *found = of_x + row * width, factor = factors[row];
            Lanes products{};
            int64_t whole = width / LANES * LANES;
            for (int64_t i = 0; i < whole; i += LANES)
                products += load(g + i) * load(weight + i) * load(own + i);
            float product = sum_of(products);
            for (int64_t i = whole; i < width; i++) product += g[i] * weight[i] * own[i];
            float share = product * factor * factor * factor / width;
            for (int64_t i = 0; i < whole; i += LANES) {
                Lanes gradient = load(g + i), read = load(own + i);
                store(found + i, gradient * load(weight + i) * factor - read * share);
                store(sums + i, load(sums + i) + gradient * read * factor);
            }
            for (int64_t i = whole; i < width; i++) {
                found[i] = g[i] * weight[i] * factor - own[i] * share;
                sums[i] += g[i] * own[i] * factor;
            }
        }
    }
}

/// Numbers that one thread takes at a time.
constexpr int64_t PIECE = 1 << 12;

/// Calls back with 16 places at a time, and with those that are left.
template <typename Whole_, typename Rest>
void each(int64_t count, int threads, Whole_ whole, Rest rest) {
    int64_t pieces = (count + PIECE - 1) / PIECE;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t piece = 0; piece < pieces; piece++) {
        int64_t i = piece * PIECE, end = count < i + PIECE ? count : i + PIECE;
        for (; i + LANES <= end; i += LANES) whole(i);
        if (i < end) rest(i, end - i);
    }
}

template <typename T> void store_some(T *to, Lanes x, int64_t count) {
    T some[LANES];
    store(some, x);
    std::memcpy(to, some, count * sizeof(T));
}

/// silu(gate) * up (Shazeer 2020, eq. 6).
template <typename T>
void swiglu(const T *gate, const T *up, T *out, int64_t count, int threads) {
    auto made = [](Lanes g, Lanes u) { return g * sigmoid(g) * u; };
    each(
        count, threads, [=](int64_t i) { store(out + i, made(load(gate + i), load(up + i))); },
        [=](int64_t i, int64_t some) {
            store_some(out + i, made(load_some(gate + i, some, 0), load_some(up + i, some, 0)),
                       some);
        });
}

/// s = sigmoid(gate): dL/dgate = g up s (1 + gate (1 - s)), dL/dup = g gate s.
template <typename T>
void swiglu_backward(const T *upstream, const T *gate, const T *up, T *of_gate, T *of_up,
                     int64_t count, int threads) {
    auto gate_part = [](Lanes d, Lanes g, Lanes u, Lanes s) {
        return d * u * s * (1.0f + g * (1.0f - s));
    };
    auto up_part = [](Lanes d, Lanes g, Lanes s) { return d * g * s; };
    each(
        count, threads,
        [=](int64_t i) {
            Lanes d = load(upstream + i), g = load(gate + i), u = load(up + i), s = sigmoid(g);
            store(of_gate + i, gate_part(d, g, u, s));
            store(of_up + i, up_part(d, g, s));
        },
        [=](int64_t i, int64_t some) {
            Lanes d = load_some(upstream + i, some, 0), g = load_some(gate + i, some, 0);
            Lanes u = load_some(up + i, some, 0), s = sigmoid(g);
            store_some(of_gate + i, gate_part(d, g, u, s), some);
            store_some(of_up + i, up_part(d, g, s), some);
        });
}

/// How far apart the numbers of two rows, two heads and two tokens lie.
struct Distances {
    int64_t row, head, token;
};

/// y = x cosine + (x, its halves exchanged, -1 times the second) sine (Su et al. 2021, eq. 34);
/// of a gradient the same, transposed. Angles of one row serve all, at a distance of 0.
template <typename T>
void rotate(const T *x, const float *cosine, const float *sine, T *out, int64_t rows,
            int64_t heads, int64_t time, int64_t size, Distances from, Distances to,
            int64_t angles, bool of_gradient, int threads) {
    int64_t half = size / 2;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t token = 0; token < rows * time; token++) {
        int64_t row = token / time, column = token % time;
        const float *c = cosine + row * angles + column * size;
        const float *s = sine + row * angles + column * size;
        auto first = [=](Lanes a, Lanes b, Lanes c1, Lanes s1, Lanes s2) {
            return of_gradient ? a * c1 + b * s2 : a * c1 - b * s1;
        };
        auto second = [=](Lanes a, Lanes b, Lanes c2, Lanes s1, Lanes s2) {
            return of_gradient ? b * c2 - a * s1 : b * c2 + a * s2;
        };
        for (int64_t head = 0; head < heads; head++) {
            const T *a = x + row * from.row + head * from.head + column * from.token;
            T *y = out + row * to.row + head * to.head + column * to.token;
            int64_t i = 0;
            for (; i + LANES <= half; i += LANES) {
                Lanes a1 = load(a + i), a2 = load(a + half + i);
                Lanes s1 = load(s + i), s2 = load(s + half + i);
                store(y + i, first(a1, a2, load(c + i), s1, s2));
                store(y + half + i, second(a1, a2, load(c + half + i), s1, s2));
            }
            if (i < half) {
                int64_t rest = half - i;
                auto some = [=](auto *numbers) { return load_some(numbers + i, rest, 0); };
                Lanes a1 = some(a), a2 = some(a + half), s1 = some(s), s2 = some(s + half);
                store_some(y + i, first(a1, a2, some(c), s1, s2), rest);
                store_some(y + half + i, second(a1, a2, some(c + half), s1, s2), rest);
            }
        }
    }
}

}  // namespace

#define FOR_FORMAT(T)                                                                              \
    void swiglu_##T(const T *gate, const T *up, T *out, int64_t count, int threads) {              \
        swiglu<T>(gate, up, out, count, threads);                                                  \
    }                                                                                              \
    void swiglu_backward_##T(const T *upstream, const T *gate, const T *up, T *of_gate, T *of_up,  \
                             int64_t count, int threads) {                                         \
        swiglu_backward<T>(upstream, gate, up, of_gate, of_up, count, threads);                    \
    }                                                                                              \
    void rotate_##T(const T *x, const float *cosine, const float *sine, T *out, int64_t rows,      \
                    int64_t heads, int64_t time, int64_t size, int64_t row, int64_t head,          \
                    int64_t token, int64_t to_row, int64_t to_head, int64_t to_token,              \
                    int64_t angles, int64_t of_gradient, int threads) {                            \
        rotate<T>(x, cosine, sine, out, rows, heads, time, size, {row, head, token},               \
                  {to_row, to_head, to_token}, angles, of_gradient, threads);                      \
    }

extern "C" {
FOR_FORMAT(float32)
FOR_FORMAT(bfloat16)

void normalise_float32(const float *x, const float *weight, float epsilon, float *out,
                       float *factors, int64_t rows, int64_t width, int threads) {
    normalise(x, weight, epsilon, out, factors, rows, width, threads);
}

void normalise_backward_float32(const float *upstream, const float *x, const float *weight,
                                const float *factors, float *of_x, float *of_weight, int64_t rows,
                                int64_t width, int threads) {
    normalise_backward(upstream, x, weight, factors, of_x, of_weight, rows, width, threads);
}
}
