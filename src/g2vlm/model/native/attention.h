/* Attention of one token of each row to everything before it and to itself, with grouped heads.

   What is read lies in stretches, each of which a thread reads for itself: those of segments that several rows
   read, and those of each row's own text. A stretch gives, for every query that reads it, a maximum, a sum of
   weights and a weighted sum of values, which are put together afterwards. */

#ifndef G2VLM_ATTENTION_H
#define G2VLM_ATTENTION_H

#include <omp.h>

#include "products.h"

/* Tokens that a thread reads for itself. */
#define STRETCH 512
/* Keys between two looks at the maximum. */
#define BLOCK 64
/* Largest head, and most queries that read a block at a time: of one group at least. The caller refuses larger
   networks. */
#define MAX_HEAD_DIM 256
#define MAX_QUERIES 48

/* Tokens that some rows read, the same in every row: (layers, kv_heads, length, head_dim), with strides in
   numbers. */
typedef struct {
    const void *keys;
    const void *values;
    int64_t length;
    int64_t layer_stride;
    int64_t head_stride;
    int64_t num_rows;
    const int64_t *rows; /* which */
} Segment;

/* The own text of each row: for each layer (rows, kv_heads, capacity, head_dim). */
typedef struct {
    void *const *keys;
    void *const *values;
    int64_t capacity;
    const int64_t *lengths; /* tokens of each row, without the new one */
} Own;

/* What is read. */
typedef struct {
    int64_t num_segments;
    const Segment *segments;
    const int64_t *places; /* for each segment and each row that reads it, which of the row's parts come first */
    Own own;
    const int64_t *own_places; /* for each row, which part is the first of its own text; */
    const int64_t *counts;     /* how many it has in all; */
    int64_t most;              /* and the most that any row has */
    int64_t rows;
    int64_t heads;
    int64_t kv_heads;
    int64_t dim;
    int32_t narrow;
} Past;

static int64_t num_stretches(int64_t tokens) { return (tokens + STRETCH - 1) / STRETCH; }

/* What every query leaves of a stretch: values, maximum and sum. */
static int64_t part_size(const Past *past) { return past->dim + 2; }

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

/* Where the queries of a group of heads lie in some rows, and where what they find goes. */
typedef struct {
    const float *queries;  /* of the first head of the group, in row 0; */
    int64_t stride;        /* from one row to the next */
    int64_t count;         /* heads of the group */
    const int64_t *rows;   /* which rows */
    int64_t num_rows;
    float *parts;          /* of the first head of the group, in row 0; */
    int64_t per_head;      /* from one head to the next */
    int64_t per_row;       /* from one row to the next */
    const int64_t *places; /* of each of these rows, which part it is, before `shift` */
    int64_t shift;
} Asking;

/* Some tokens of one key head, whose first key and value lie at `base`, for the queries of a group. */
static void attend_stretch(const Past *past, const void *all_keys, const void *all_values, int64_t base, int64_t begin,
                           int64_t end, const Asking *asking) {
    const int64_t count = asking->count, rows = asking->num_rows;
    const int64_t dim = past->dim, total = rows * count;
    const int narrow = past->narrow;
    const float scale = 1 / sqrtf((float)dim);
    float scores[MAX_QUERIES][BLOCK], wide[MAX_HEAD_DIM], sums[MAX_QUERIES * MAX_HEAD_DIM];
    float maxima[MAX_QUERIES], totals[MAX_QUERIES];
    const float *query[MAX_QUERIES];
    for (int64_t i = 0; i < total; i++) {
        query[i] = asking->queries + asking->rows[i / count] * asking->stride + i % count * dim;
        maxima[i] = -FLT_MAX;
        totals[i] = 0;
    }
    memset(sums, 0, total * dim * sizeof(float));
#if FAST_BFLOAT16
    int fast = narrow && dim % 32 == 0;
    uint16_t narrow_queries[MAX_QUERIES * MAX_HEAD_DIM];
    for (int64_t i = 0; fast && i < total; i++)
        for (int64_t d = 0; d < dim; d++) narrow_queries[i * dim + d] = narrowed(query[i][d]);
#endif
    for (int64_t start = begin; start < end; start += BLOCK) {
        int64_t tokens = end - start < BLOCK ? end - start : BLOCK, done = 0, q = 0, place = base + start * dim;
#if FAST_BFLOAT16
        const uint16_t *keys = (const uint16_t *)all_keys + place;
        const uint16_t *values = (const uint16_t *)all_values + place, *next = keys + BLOCK * dim;
        /* While keys are scored, the values of this block are fetched, and while values are added up, the keys
           of the next: memory never waits, and is never asked for more than it can give at a time. */
        const int64_t lines = BLOCK * dim / 32 / total / (BLOCK / 16) + 1;
        for (int64_t i = 0; fast && i < total; i++)
            done = score_keys(keys, narrow_queries + i * dim, tokens, dim, scale, scores[i],
                              (const char *)(values + i * BLOCK * dim / total), lines);
#endif
        for (int64_t k = done; k < tokens; k++) {
            widen_row(all_keys, place + k * dim, dim, narrow, wide);
            for (int64_t i = 0; i < total; i++) scores[i][k] = row_float32(wide, query[i], dim) * scale;
        }
        for (int64_t i = 0; i < total; i++) weigh(scores[i], tokens, dim, sums + i * dim, &maxima[i], &totals[i]);
#if FAST_BFLOAT16
        for (; fast && q + 6 <= total; q += 6) add_values(values, scores + q, tokens, dim, 6, sums + q * dim, next);
        for (; fast && q + 2 <= total; q += 2) add_values(values, scores + q, tokens, dim, 2, sums + q * dim, next);
        for (; fast && q < total; q++) add_values(values, scores + q, tokens, dim, 1, sums + q * dim, next);
#endif
        for (int64_t k = 0; q < total && k < tokens; k++) {
            widen_row(all_values, place + k * dim, dim, narrow, wide);
            for (int64_t i = q; i < total; i++) {
                float weight = scores[i][k], *sum = sums + i * dim;
#pragma omp simd
                for (int64_t d = 0; d < dim; d++) sum[d] += weight * wide[d];
            }
        }
    }
    for (int64_t i = 0; i < total; i++) {
        const int64_t row = i / count, place = asking->places[row] + asking->shift;
        float *part = asking->parts + asking->rows[row] * asking->per_row + i % count * asking->per_head +
                      place * part_size(past);
        memcpy(part, sums + i * dim, dim * sizeof(float));
        part[dim] = maxima[i];
        part[dim + 1] = totals[i];
    }
}

/* Put the results of all stretches of one query together. */
static void join_parts(const float *parts, int64_t count, int64_t dim, float *out) {
    float maximum = -FLT_MAX, total = 0;
    for (int64_t s = 0; s < count; s++) maximum = fmaxf(maximum, parts[s * (dim + 2) + dim]);
    memset(out, 0, dim * sizeof(float));
    for (int64_t s = 0; s < count; s++) {
        const float *part = parts + s * (dim + 2);
        float share = expf(part[dim] - maximum);
        total += share * part[dim + 1];
        for (int64_t d = 0; d < dim; d++) out[d] += share * part[d];
    }
    for (int64_t d = 0; d < dim; d++) out[d] /= total;
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* Called by all threads. queries: (rows, stride). out: (rows, heads, dim). parts: room for `rows * heads * most *
   part_size` floats. */
static void attend(const Past *past, int64_t layer, const float *queries, int64_t stride, float *parts, float *out) {
    const int64_t dim = past->dim, rows = past->rows, kv_heads = past->kv_heads, group = past->heads / kv_heads;
    const int64_t per_head = past->most * part_size(past), per_row = past->heads * per_head;
    const int64_t together = MAX_QUERIES / group, width = past->narrow ? 2 : 4;
    const int64_t *places = past->places;
    for (int64_t s = 0; s < past->num_segments; s++) {
        const Segment *segment = past->segments + s;
        const int64_t stretches = num_stretches(segment->length), bytes = layer * segment->layer_stride * width;
#pragma omp for schedule(static) nowait
        for (int64_t task = 0; task < kv_heads * stretches; task++) {
            int64_t head = task / stretches, stretch = task % stretches, begin = stretch * STRETCH;
            /* So many rows at a time as there is room for; the stretch stays in the cache. */
            for (int64_t row = 0; row < segment->num_rows; row += together) {
                Asking asking = {queries + head * group * dim, stride, group, segment->rows + row,
                                 least(together, segment->num_rows - row), parts + head * group * per_head, per_head,
                                 per_row, places + row, stretch};
                attend_stretch(past, (const char *)segment->keys + bytes, (const char *)segment->values + bytes,
                               head * segment->head_stride, begin, least(begin + STRETCH, segment->length), &asking);
            }
        }
        places += segment->num_rows;
    }
    int64_t longest = 0;
    for (int64_t row = 0; row < rows; row++) longest = most(longest, past->own.lengths[row] + 1);
    const int64_t stretches = num_stretches(longest);
#pragma omp for schedule(static)
    for (int64_t task = 0; task < rows * kv_heads * stretches; task++) {
        int64_t stretch = task % stretches, head = task / stretches % kv_heads, row = task / stretches / kv_heads;
        int64_t begin = stretch * STRETCH, end = least(begin + STRETCH, past->own.lengths[row] + 1);
        if (begin >= end) continue;
        Asking asking = {queries + head * group * dim, stride, group, &row, 1, parts + head * group * per_head, per_head,
                         per_row, past->own_places + row, stretch};
        attend_stretch(past, past->own.keys[layer], past->own.values[layer],
                       (row * kv_heads + head) * past->own.capacity * dim, begin, end, &asking);
    }
#pragma omp for schedule(static)
    for (int64_t query = 0; query < rows * past->heads; query++)
        join_parts(parts + query * per_head, past->counts[query / past->heads], dim, out + query * dim);
}

#endif
