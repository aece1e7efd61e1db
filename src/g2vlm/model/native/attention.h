/* Attention of one token to everything before it and to itself, with grouped heads.

   The memory of a key head is cut into stretches that threads read side by side; each gives, for every query
   of its group, a maximum, a sum of weights and a weighted sum of values, which are put together afterwards. */

#ifndef G2VLM_ATTENTION_H
#define G2VLM_ATTENTION_H

#include <omp.h>

#include "products.h"

#define STRETCH 512
/* Keys between two looks at the maximum. */
#define BLOCK 64
/* Largest head; larger networks are refused by the caller. */
#define MAX_HEAD_DIM 512
/* Most query heads to one key head. */
#define MAX_GROUP 64

/* Keys and values of one layer: (kv_heads, capacity, head_dim). `length` does not count the new token, whose
   keys and values are already there. */
typedef struct {
    void *keys;
    void *values;
    int64_t length;
    int64_t capacity;
    int64_t kv_heads;
    int64_t dim;
    int32_t narrow;
} Memory;

static int64_t num_stretches(int64_t tokens) { return (tokens + STRETCH - 1) / STRETCH; }

static int64_t num_tasks(int64_t tokens, int64_t kv_heads) { return kv_heads * num_stretches(tokens); }

/* Floats that a task leaves: values, maximum and sum of every query. */
static int64_t part_size(int64_t heads, int64_t kv_heads, int64_t dim) { return heads / kv_heads * (dim + 2); }

static inline void widen_row(const void *memory, int64_t start, int64_t count, int narrow, float *out) {
    if (narrow) {
        const uint16_t *row = (const uint16_t *)memory + start;
        for (int64_t i = 0; i < count; i++) out[i] = widen(row[i]);
    } else
        memcpy(out, (const float *)memory + start, count * sizeof(float));
}

/* Weights of a block from its scores, in place; what was summed so far is scaled to the new maximum. */
static inline void weigh(float *scores, int64_t count, int64_t dim, float *sums, float *maximum, float *total) {
    float largest = *maximum;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < count; i++) largest = fmaxf(largest, scores[i]);
    float shrink = expf(*maximum - largest), added = 0;
#pragma omp simd reduction(+ : added)
    for (int64_t i = 0; i < count; i++) {
        scores[i] = expf(scores[i] - largest);
        added += scores[i];
    }
    for (int64_t d = 0; d < dim; d++) sums[d] *= shrink;
    *total = *total * shrink + added;
    *maximum = largest;
}

static inline float dot(const float *query, const float *row, int64_t dim) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < dim; d++) sum += query[d] * row[d];
    return sum;
}

#if FAST_BFLOAT16
/* The sum of each of sixteen registers. */
static inline __m512 sums_of(__m512 *v) {
    for (int i = 0; i < 8; i++)
        v[i] = _mm512_add_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
    for (int i = 0; i < 4; i++) {
        __m512d one = _mm512_castps_pd(v[2 * i]), two = _mm512_castps_pd(v[2 * i + 1]);
        v[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(one, two)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(one, two)));
    }
    /* Each quarter of a register holds four rows; the quarters are still to be added. */
    for (int i = 0; i < 2; i++)
        v[i] = _mm512_add_ps(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x44),
                             _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xee));
    return _mm512_add_ps(_mm512_shuffle_f32x4(v[0], v[1], 0x88), _mm512_shuffle_f32x4(v[0], v[1], 0xdd));
}

#define INLINE static inline __attribute__((always_inline))

/* Scores of sixteen keys. */
INLINE __m512 sixteen_scores(const uint16_t *keys, const uint16_t *query, const int64_t dim) {
    __m512 sums[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
        sums[i] = _mm512_setzero_ps();
        for (int64_t d = 0; d < dim; d += 32)
            sums[i] = _mm512_dpbf16_ps(sums[i], (__m512bh)_mm512_loadu_si512(keys + i * dim + d),
                                       (__m512bh)_mm512_loadu_si512(query + d));
    }
    return sums_of(sums);
}

/* Scores of whole sixteens of keys; returns how many keys these are. Meanwhile `ahead` is fetched, `lines`
   cache lines for every sixteen. */
static int64_t score_keys(const uint16_t *keys, const uint16_t *query, int64_t count, int64_t dim, float scale,
                          float *scores, const char *ahead, int64_t lines) {
    int64_t k = 0;
    for (; k + 16 <= count; k += 16) {
        for (int64_t i = 0; i < lines; i++) _mm_prefetch(ahead + (k / 16 * lines + i) * 64, _MM_HINT_T0);
        /* The size of the released network is known while translating, so that sums stay in registers. */
        __m512 sums = dim == 128 ? sixteen_scores(keys + k * dim, query, 128) : sixteen_scores(keys + k * dim, query, dim);
        _mm512_storeu_ps(scores + k, _mm512_mul_ps(sums, _mm512_set1_ps(scale)));
    }
    return k;
}

/* Add weighted values, 32 channels of `many` queries at a time, whose sums stay in registers. Meanwhile as many
   numbers are fetched from `ahead` on. */
INLINE void add_values(const uint16_t *values, const float (*weights)[BLOCK], int64_t count, int64_t dim,
                       const int many, float *sums, const uint16_t *ahead) {
    for (int64_t d = 0; d < dim; d += 32) {
        __m512 own[6][2];
        for (int q = 0; q < many; q++)
            for (int i = 0; i < 2; i++) own[q][i] = _mm512_loadu_ps(sums + q * dim + d + 16 * i);
        for (int64_t k = 0; k < count; k++) {
            _mm_prefetch((const char *)(ahead + (d / 32 * BLOCK + k) * 32), _MM_HINT_T0);
            for (int i = 0; i < 2; i++) {
                __m256i bits = _mm256_loadu_si256((const __m256i *)(values + k * dim + d + 16 * i));
                __m512 value = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
                for (int q = 0; q < many; q++)
                    own[q][i] = _mm512_fmadd_ps(_mm512_set1_ps(weights[q][k]), value, own[q][i]);
            }
        }
        for (int q = 0; q < many; q++)
            for (int i = 0; i < 2; i++) _mm512_storeu_ps(sums + q * dim + d + 16 * i, own[q][i]);
    }
}
#endif

/* One stretch of one key head for all queries of its group. */
static void attend_stretch(const Memory *memory, const float *queries, int64_t group, int64_t head, int64_t begin,
                           int64_t end, float *part) {
    int64_t dim = memory->dim;
    int narrow = memory->narrow;
    float scale = 1 / sqrtf((float)dim);
    float *maxima = part + group * dim, *totals = maxima + group;
    float scores[MAX_GROUP][BLOCK], row[MAX_HEAD_DIM];
    for (int64_t q = 0; q < group; q++) {
        memset(part + q * dim, 0, dim * sizeof(float));
        maxima[q] = -FLT_MAX;
        totals[q] = 0;
    }
#if FAST_BFLOAT16
    int fast = narrow && dim % 32 == 0;
    uint16_t narrow_queries[MAX_GROUP * MAX_HEAD_DIM];
    for (int64_t i = 0; fast && i < group * dim; i++) narrow_queries[i] = narrowed(queries[i]);
#endif
    for (int64_t start = begin; start < end; start += BLOCK) {
        int64_t count = end - start < BLOCK ? end - start : BLOCK, done = 0, q = 0;
        int64_t base = (head * memory->capacity + start) * dim;
#if FAST_BFLOAT16
        const uint16_t *keys = (const uint16_t *)memory->keys + base;
        const uint16_t *values = (const uint16_t *)memory->values + base;
        /* While keys are scored, the values of this block are fetched, and while values are added up, the keys
           of the next: memory never waits, and is never asked for more than it can give at a time. */
        const int64_t lines = BLOCK * dim / 32 / group / (BLOCK / 16) + 1;
        for (int64_t i = 0; fast && i < group; i++)
            done = score_keys(keys, narrow_queries + i * dim, count, dim, scale, scores[i],
                              (const char *)(values + i * BLOCK * dim / group), lines);
#endif
        for (int64_t k = done; k < count; k++) {
            widen_row(memory->keys, base + k * dim, dim, narrow, row);
            for (int64_t i = 0; i < group; i++) scores[i][k] = dot(queries + i * dim, row, dim) * scale;
        }
        for (int64_t i = 0; i < group; i++) weigh(scores[i], count, dim, part + i * dim, &maxima[i], &totals[i]);
#if FAST_BFLOAT16
        for (; fast && q + 6 <= group; q += 6) add_values(values, scores + q, count, dim, 6, part + q * dim, keys + BLOCK * dim);
        for (; fast && q + 2 <= group; q += 2) add_values(values, scores + q, count, dim, 2, part + q * dim, keys + BLOCK * dim);
        for (; fast && q < group; q++) add_values(values, scores + q, count, dim, 1, part + q * dim, keys + BLOCK * dim);
#endif
        for (int64_t k = 0; q < group && k < count; k++) {
            widen_row(memory->values, base + k * dim, dim, narrow, row);
            for (int64_t i = q; i < group; i++) {
                float weight = scores[i][k], *sums = part + i * dim;
#pragma omp simd
                for (int64_t d = 0; d < dim; d++) sums[d] += weight * row[d];
            }
        }
    }
}

/* Called by all threads. queries, out: (heads, dim). parts: room for `num_tasks * part_size` floats. */
static void attend(const Memory *memory, const float *queries, int64_t heads, float *parts, float *out) {
    int64_t tokens = memory->length + 1, kv_heads = memory->kv_heads, dim = memory->dim;
    int64_t group = heads / kv_heads, stretches = num_stretches(tokens), size = part_size(heads, kv_heads, dim);
#pragma omp for schedule(static)
    for (int64_t task = 0; task < kv_heads * stretches; task++) {
        int64_t head = task / stretches, begin = task % stretches * STRETCH;
        int64_t end = begin + STRETCH < tokens ? begin + STRETCH : tokens;
        attend_stretch(memory, queries + head * group * dim, group, head, begin, end, parts + task * size);
    }
#pragma omp for schedule(static)
    for (int64_t query = 0; query < heads; query++) {
        const float *first = parts + query / group * stretches * size;
        int64_t q = query % group;
        float maximum = -FLT_MAX, total = 0;
        for (int64_t s = 0; s < stretches; s++) maximum = fmaxf(maximum, first[s * size + group * dim + q]);
        float *own = out + query * dim;
        memset(own, 0, dim * sizeof(float));
        for (int64_t s = 0; s < stretches; s++) {
            const float *part = first + s * size;
            float share = expf(part[group * dim + q] - maximum);
            total += share * part[group * dim + group + q];
            for (int64_t d = 0; d < dim; d++) own[d] += share * part[q * dim + d];
        }
        for (int64_t d = 0; d < dim; d++) own[d] /= total;
    }
}

#endif
