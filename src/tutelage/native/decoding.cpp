// What lies between the matrix products of a step of decoding, each in one pass over memory.
//
// Rows are divided among threads and never summed across them: the results do not depend on how
// many there are. `tutelage.native.decoding` says what each function is given.

#include <vector>

#include "lanes.h"
#include "norm.h"

namespace {

using namespace lanes;

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#endif
#ifndef PICK
#define PICK(a, b, ...) __builtin_shuffle(a, b, Whole{__VA_ARGS__})
#endif

inline Lanes add_halves(Lanes a, Lanes b) {
    return PICK(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
           PICK(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}

inline Lanes add_fours(Lanes a, Lanes b) {
    return PICK(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) +
           PICK(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
}

inline Lanes add_twos(Lanes a, Lanes b) {
    return PICK(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
           PICK(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
}

inline Lanes add_ones(Lanes a, Lanes b) {
    return PICK(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30) +
           PICK(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
}

/// Lane i of the result is the sum of all lanes of x[i].
inline Lanes sums_of(const Lanes *x) {
    Lanes eights[8], fours[4], twos[2];
    for (int i = 0; i < 8; i++) eights[i] = add_halves(x[i], x[i + 8]);
    for (int i = 0; i < 4; i++) fours[i] = add_fours(eights[i], eights[i + 4]);
    for (int i = 0; i < 2; i++) twos[i] = add_twos(fours[i], fours[i + 2]);
    return add_ones(twos[0], twos[1]);
}

template <typename T>
void add_and_normalise(float *x, const T *added, const float *weight, float epsilon, T *out,
                       int64_t rows, int64_t width, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t row = 0; row < rows; row++) {
        float *own = x + row * width;
        if (added) {
            const T *more = added + row * width;
            int64_t i = 0;
            for (; i + LANES <= width; i += LANES) store(own + i, load(own + i) + load(more + i));
            if (i < width) {
                Lanes sum = load_some(own + i, width - i, 0) + load_some(more + i, width - i, 0);
                std::memcpy(own + i, &sum, (width - i) * sizeof(float));
            }
        }
        normalise_row(own, weight, epsilon, out + row * width, width);
    }
}

/// silu(gate) * up (Shazeer 2020, eq. 6), where a row is gate and up side by side.
template <typename T>
void gate(const T *gate_up, T *out, int64_t rows, int64_t width, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t row = 0; row < rows; row++) {
        const T *gates = gate_up + row * 2 * width, *ups = gates + width;
        T *own = out + row * width;
        for (int64_t i = 0; i < width; i += LANES) {
            int64_t rest = width - i;
            bool some = rest < LANES;
            Lanes g = some ? load_some(gates + i, rest, 0) : load(gates + i);
            Lanes u = some ? load_some(ups + i, rest, 0) : load(ups + i);
            Lanes y = g * sigmoid(g) * u;
            if (some) {
                T last[LANES];
                store(last, y);
                std::memcpy(own + i, last, rest * sizeof(T));
            } else
                store(own + i, y);
        }
    }
}

constexpr int64_t LARGEST = 16 * LANES;  // size of a head

/// Where the heads of a model lie, and what turns them.
template <typename T> struct Heads {
    T *joined;                   // of each token, its queries, keys and values side by side
    const float *cosine, *sine;  // of each token; the sine has the sign of the half beside it
    const float *query_weight, *key_weight;  // of a norm before the turn, or null
    float epsilon;
    int64_t queries, keys, size;

    T *of(int64_t token) const { return joined + token * (queries + 2 * keys) * size; }
    T *key_of(int64_t token) const { return of(token) + queries * size; }
    T *value_of(int64_t token) const { return of(token) + (queries + keys) * size; }
};

/// x * cosine + (x, its halves exchanged) * sine (Su et al. 2021, eq. 34), in place.
template <typename T>
void turn(const Heads<T> &heads, T *x, int64_t token, const float *weight) {
    int64_t size = heads.size, half = size / 2;
    const float *cosine = heads.cosine + token * size, *sine = heads.sine + token * size;
    float before[LARGEST], exchanged[LARGEST];
    for (int64_t i = 0; i < size; i += LANES) store(before + i, load(x + i));
    if (weight) normalise_row(before, weight, heads.epsilon, before, size);
    std::memcpy(exchanged, before + half, half * sizeof(float));
    std::memcpy(exchanged + half, before, half * sizeof(float));
    for (int64_t i = 0; i < size; i += LANES)
        store(x + i, load(before + i) * load(cosine + i) + load(exchanged + i) * load(sine + i));
}

/// Turns a key head and the queries that ask it; the key and its value are stored.
template <typename T>
void turn_and_store(const Heads<T> &heads, int64_t token, int64_t head, T *key, T *value) {
    int64_t size = heads.size, group = heads.queries / heads.keys;
    for (int64_t query = head * group; query < (head + 1) * group; query++)
        turn(heads, heads.of(token) + query * size, token, heads.query_weight);
    T *own = heads.key_of(token) + head * size;
    turn(heads, own, token, heads.key_weight);
    std::memcpy(key, own, size * sizeof(T));
    std::memcpy(value, heads.value_of(token) + head * size, size * sizeof(T));
}

/// Scores of 16 columns, of which `count` are there.
template <typename T, int V>
void score(const T *queries, const T *keys, int64_t group, int64_t count, float scale,
           float *scores, int64_t distance) {
    constexpr int size = V * LANES;
    float wide[LANES * size];
    for (int64_t column = 0; column < LANES; column++) {
        const T *own = keys + (column < count ? column : 0) * size;
        for (int i = 0; i < V; i++) store(wide + column * size + LANES * i, load(own + LANES * i));
    }
    for (int64_t query = 0; query < group; query++) {
        Lanes asked[V], products[LANES];
        for (int i = 0; i < V; i++) asked[i] = load(queries + query * size + LANES * i);
        for (int column = 0; column < LANES; column++) {
            Lanes sum = load(wide + column * size) * asked[0];
            for (int i = 1; i < V; i++) sum += load(wide + column * size + LANES * i) * asked[i];
            products[column] = sum;
        }
        store(scores + query * distance, sums_of(products) * scale);
    }
}

/// Scores become weights, in place; those behind the columns become 0.
inline void softmax(float *scores, int64_t columns, int64_t padded) {
    for (int64_t i = columns; i < padded; i++) scores[i] = -std::numeric_limits<float>::infinity();
    Lanes highest = load(scores);
    for (int64_t i = LANES; i < padded; i += LANES) highest = larger(load(scores + i), highest);
    float top = largest_of(highest);
    Lanes sums{};
    for (int64_t i = 0; i < padded; i += LANES) {
        Lanes weight = exponential(load(scores + i) - top);
        store(scores + i, weight);
        sums += weight;
    }
    float factor = 1.0f / sum_of(sums);
    for (int64_t i = 0; i < padded; i += LANES) store(scores + i, load(scores + i) * factor);
}

/// Sums of values by the weights of G queries, which read each value once.
template <typename T, int V, int G>
void gather(const T *values, const float *weights, int64_t columns, int64_t distance, T *out) {
    constexpr int size = V * LANES;
    Lanes sums[G][V] = {};
    for (int64_t column = 0; column < columns; column++)
        for (int i = 0; i < V; i++) {
            Lanes value = load(values + column * size + LANES * i);
            for (int query = 0; query < G; query++)
                sums[query][i] += value * weights[query * distance + column];
        }
    for (int query = 0; query < G; query++)
        for (int i = 0; i < V; i++) store(out + query * size + LANES * i, sums[query][i]);
}

/// softmax(scale q k^T) v of the queries of one key head (Vaswani et al. 2017, eq. 1).
template <typename T, int V>
void attend(const T *queries, const T *keys, const T *values, T *out, int64_t group,
            int64_t columns, float scale) {
    constexpr int size = V * LANES;
    int64_t padded = (columns + LANES - 1) / LANES * LANES;
    thread_local std::vector<float> room;
    if (room.size() < std::size_t(group * padded)) room.resize(group * padded);
    float *scores = room.data();
    for (int64_t column = 0; column < columns; column += LANES) {
        int64_t count = columns - column < LANES ? columns - column : LANES;
        score<T, V>(queries, keys + column * size, group, count, scale, scores + column, padded);
    }
    for (int64_t query = 0; query < group; query++)
        softmax(scores + query * padded, columns, padded);
    // As many queries at once as there are registers for their sums.
    constexpr int most = V <= 4 ? 4 : V <= 8 ? 2 : 1;
    for (int64_t query = 0, taken; query < group; query += taken) {
        const float *own = scores + query * padded;
        T *to = out + query * size;
        taken = group - query < most ? group - query : most;
        if (most >= 4 && taken == 4)
            gather<T, V, most >= 4 ? 4 : 1>(values, own, columns, padded, to);
        else if (most >= 3 && taken == 3)
            gather<T, V, most >= 3 ? 3 : 1>(values, own, columns, padded, to);
        else if (most >= 2 && taken == 2)
            gather<T, V, most >= 2 ? 2 : 1>(values, own, columns, padded, to);
        else
            gather<T, V, 1>(values, own, columns, padded, to);
    }
}

/// `attend` for a size of head that is known when it runs.
template <typename T>
void attend_any(const T *queries, const T *keys, const T *values, T *out, int64_t group,
                int64_t columns, int64_t size, float scale) {
    switch (size / LANES) {
    case 1: return attend<T, 1>(queries, keys, values, out, group, columns, scale);
    case 2: return attend<T, 2>(queries, keys, values, out, group, columns, scale);
    case 3: return attend<T, 3>(queries, keys, values, out, group, columns, scale);
    case 4: return attend<T, 4>(queries, keys, values, out, group, columns, scale);
    case 5: return attend<T, 5>(queries, keys, values, out, group, columns, scale);
    case 6: return attend<T, 6>(queries, keys, values, out, group, columns, scale);
    case 8: return attend<T, 8>(queries, keys, values, out, group, columns, scale);
    case 16: return attend<T, 16>(queries, keys, values, out, group, columns, scale);
    }
}

/// Reads new tokens from `column` on: those of padding, in front of a row's start, leave nothing.
/// Row i lies at places[i] of the stores. Whether every row lies and starts where it may; nothing
/// is read otherwise.
template <typename T>
bool read(Heads<T> heads, T *keys, T *values, T *out, const int64_t *places, int64_t stored,
          const int64_t *start, int64_t rows, int64_t time, int64_t capacity, int64_t column,
          float scale, int threads) {
    int64_t group = heads.queries / heads.keys, size = heads.size;
    for (int64_t row = 0; row < rows; row++)
        if (start[row] < 0 || start[row] > capacity || places[row] < 0 || places[row] >= stored)
            return false;
    int64_t each = rows * time * heads.keys;
    // Rows lie by the length of their prompts: dealt out in turn, threads have as much to do.
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp for schedule(static, 1)
        for (int64_t i = 0; i < each; i++) {
            int64_t token = i / heads.keys, head = i % heads.keys, row = token / time;
            int64_t at = column + token % time;
            int64_t place = ((places[row] * heads.keys + head) * capacity + at) * size;
            if (at >= start[row]) turn_and_store(heads, token, head, keys + place, values + place);
        }
#pragma omp for schedule(static, 1)
        for (int64_t i = 0; i < each; i++) {
            int64_t token = i / heads.keys, head = i % heads.keys, row = token / time;
            int64_t seen = column + token % time - start[row] + 1;
            int64_t place = ((places[row] * heads.keys + head) * capacity + start[row]) * size;
            T *heard = out + (token * heads.queries + head * group) * size;
            if (seen > 0)
                attend_any(heads.of(token) + head * group * size, keys + place, values + place,
                           heard, group, seen, size, scale);
            else
                std::memset(heard, 0, group * size * sizeof(T));
        }
    }
    return true;
}

constexpr int64_t BLOCK = 1024;  // logits that stay in the nearest cache between two passes

template <typename T> inline Lanes logits_at(const T *logits, int64_t i, int64_t count) {
    return count - i < LANES
               ? load_some(logits + i, count - i, -std::numeric_limits<float>::infinity())
               : load(logits + i);
}

/// The block's highest logit, and its sum of exp((logit - highest) / temperature).
template <typename T>
void weigh(const T *logits, int64_t count, float inverse, float &highest, float &sum) {
    Lanes highs = all(-std::numeric_limits<float>::infinity()), sums{};
    for (int64_t i = 0; i < count; i += LANES) highs = larger(logits_at(logits, i, count), highs);
    highest = largest_of(highs);
    // A block of which nothing is possible; NaN is no logit below another one and goes on.
    float shift = highest == -std::numeric_limits<float>::infinity() ? 0.0f : highest;
    for (int64_t i = 0; i < count; i += LANES)
        sums += exponential((logits_at(logits, i, count) - shift) * inverse);
    sum = sum_of(sums);
}

/// The first entry up to which the weights add up to more than `target`.
template <typename T>
int64_t find(const T *logits, int64_t count, float highest, float inverse, double target) {
    double before = 0;
    int64_t last = 0;
    for (int64_t i = 0; i < count; i += LANES) {
        Lanes weights = exponential((logits_at(logits, i, count) - highest) * inverse);
        for (int lane = 0; lane < LANES; lane++) {
            if (!(weights[lane] > 0.0f)) continue;
            last = i + lane;
            before += weights[lane];
            if (before > target) return last;
        }
    }
    return last;
}

template <typename T>
int64_t first_of(const T *logits, int64_t count, float wanted) {
    for (int64_t i = 0; i < count; i += LANES) {
        Lanes own = logits_at(logits, i, count);
        for (int lane = 0; lane < LANES; lane++)
            if (own[lane] == wanted) return i + lane;
    }
    return 0;
}

template <typename T>
void draw_row(const T *logits, int64_t count, float temperature, float uniform, int64_t *token,
              float *logprob) {
    int64_t blocks = (count + BLOCK - 1) / BLOCK;
    float inverse = temperature > 0.0f ? 1.0f / temperature : 1.0f;
    std::vector<float> highest(blocks), sums(blocks);
    float top = -std::numeric_limits<float>::infinity();
    for (int64_t b = 0; b < blocks; b++) {
        int64_t held = count - b * BLOCK < BLOCK ? count - b * BLOCK : BLOCK;
        weigh(logits + b * BLOCK, held, inverse, highest[b], sums[b]);
        top = highest[b] > top ? highest[b] : top;
    }
    std::vector<double> weights(blocks);
    double total = 0;
    for (int64_t b = 0; b < blocks; b++) {
        weights[b] = sums[b] * std::exp(double(highest[b] - top) * inverse);
        total += weights[b];
    }
    double before = 0, target = uniform * total;
    int64_t block = 0;
    for (int64_t b = 0; b < blocks; b++) {
        if (temperature > 0.0f ? !(weights[b] > 0) : highest[b] != top) continue;
        block = b;
        if (temperature == 0.0f || before + weights[b] > target) break;
        before += weights[b];
    }
    const T *own = logits + block * BLOCK;
    int64_t held = count - block * BLOCK < BLOCK ? count - block * BLOCK : BLOCK;
    double rest = (target - before) / (weights[block] / sums[block]);
    int64_t entry = temperature > 0.0f ? find(own, held, highest[block], inverse, rest)
                                       : first_of(own, held, top);
    *token = block * BLOCK + entry;
    *logprob = float((load_some(own + entry, 1, 0)[0] - top) * inverse - std::log(total));
}

template <typename T>
void draw(const T *logits, const float *uniform, int64_t *tokens, float *logprobs, int64_t rows,
          int64_t count, float temperature, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t row = 0; row < rows; row++)
        draw_row(logits + row * count, count, temperature, uniform[row], tokens + row,
                 logprobs + row);
}

}  // namespace

#define FOR_FORMAT(T)                                                                              \
    void add_and_normalise_##T(float *x, const T *added, const float *weight, float epsilon,       \
                               T *out, int64_t rows, int64_t width, int threads) {                 \
        add_and_normalise<T>(x, added, weight, epsilon, out, rows, width, threads);                \
    }                                                                                              \
    void gate_##T(const T *gate_up, T *out, int64_t rows, int64_t width, int threads) {            \
        gate<T>(gate_up, out, rows, width, threads);                                               \
    }                                                                                              \
    bool read_##T(T *joined, const float *cosine, const float *sine, const float *query_weight,    \
                  const float *key_weight, float epsilon, int64_t queries, int64_t kept,           \
                  int64_t size, T *keys, T *values, T *out, const int64_t *places, int64_t stored, \
                  const int64_t *start, int64_t rows, int64_t time, int64_t capacity,              \
                  int64_t column, float scale, int threads) {                                      \
        return read<T>(                                                                            \
            {joined, cosine, sine, query_weight, key_weight, epsilon, queries, kept, size}, keys,  \
            values, out, places, stored, start, rows, time, capacity, column, scale, threads);     \
    }                                                                                              \
    void draw_##T(const T *logits, const float *uniform, int64_t *tokens, float *logprobs,         \
                  int64_t rows, int64_t count, float temperature, int threads) {                   \
        draw<T>(logits, uniform, tokens, logprobs, rows, count, temperature, threads);             \
    }

extern "C" {
FOR_FORMAT(float32)
FOR_FORMAT(bfloat16)
}
