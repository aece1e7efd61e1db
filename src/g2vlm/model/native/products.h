/* Products of a stored matrix with one vector or a few, which read the matrix at the speed of the memory. */

#ifndef G2VLM_PRODUCTS_H
#define G2VLM_PRODUCTS_H

#include "tiles.h"

/* Bytes that a product has fetched into the second cache before it needs them: farther than the processor looks
   ahead by itself. The first cache is too small for that. */
#define AHEAD 3072

/* Partial sums of the plain forms: so many that compilers keep them in vector registers and that no addition waits
   for the one before. */
#define LANES 64

static inline float sum_of_lanes(const float *lanes) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += lanes[i];
    return sum;
}

static inline float row_float32(const float *restrict row, const float *restrict x, int64_t columns) {
    float lanes[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= columns; i += LANES)
        for (int j = 0; j < LANES; j++) lanes[j] += row[i + j] * x[i + j];
    for (; i < columns; i++) lanes[0] += row[i] * x[i];
    return sum_of_lanes(lanes);
}

static inline float plain_bfloat16(const uint16_t *restrict row, const float *restrict x, int64_t columns) {
    float lanes[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= columns; i += LANES)
        for (int j = 0; j < LANES; j++) lanes[j] += widen(row[i + j]) * x[i + j];
    for (; i < columns; i++) lanes[0] += widen(row[i]) * x[i];
    return sum_of_lanes(lanes);
}

static inline float plain_int8(const int8_t *restrict row, const float *restrict x, int64_t columns) {
    float lanes[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= columns; i += LANES)
        for (int j = 0; j < LANES; j++) lanes[j] += (float)row[i + j] * x[i + j];
    for (; i < columns; i++) lanes[0] += (float)row[i] * x[i];
    return sum_of_lanes(lanes);
}

/* One row with `many` vectors, at most four, which is known while translating. */
INLINE void row_bfloat16(const uint16_t *row, const Vector *vectors, const int many, int64_t columns, float *out,
                         int64_t stride) {
    int64_t i = 0;
#if FAST_BFLOAT16
    /* So many sums that one multiplication need not wait for the one before. */
    const int chains = many == 1 ? 4 : many == 2 ? 2 : 1;
    __m512 sums[4][4];
    for (int v = 0; v < many; v++)
        for (int k = 0; k < chains; k++) sums[v][k] = _mm512_setzero_ps();
    for (; i + 32 * chains <= columns; i += 32 * chains)
        for (int k = 0; k < chains; k++) {
            _mm_prefetch((const char *)(row + i + 32 * k) + AHEAD, _MM_HINT_T1);
            __m512bh weights = (__m512bh)_mm512_loadu_si512(row + i + 32 * k);
            for (int v = 0; v < many; v++)
                sums[v][k] = _mm512_dpbf16_ps(sums[v][k], weights,
                                              (__m512bh)_mm512_loadu_si512(vectors[v].narrow + i + 32 * k));
        }
#endif
    for (int v = 0; v < many; v++) {
        float rest = plain_bfloat16(row + i, vectors[v].wide + i, columns - i);
#if FAST_BFLOAT16
        for (int k = 1; k < chains; k++) sums[v][0] = _mm512_add_ps(sums[v][0], sums[v][k]);
        rest += _mm512_reduce_add_ps(sums[v][0]);
#endif
        out[v * stride] = rest;
    }
}

/* One row with `many` vectors, without its scale. */
INLINE void row_int8(const int8_t *row, const Vector *vectors, const int many, int64_t columns, int32_t sum_of_codes,
                     float *out, int64_t stride) {
#if FAST_INTEGER
    const int chains = many == 1 ? 2 : 1;
    __m512i high[4][2], low[4][2];
    for (int v = 0; v < many; v++)
        for (int k = 0; k < chains; k++) high[v][k] = low[v][k] = _mm512_setzero_si512();
    int64_t i = 0;
    for (; i + 64 * chains <= columns; i += 64 * chains)
        for (int k = 0; k < chains; k++) {
            _mm_prefetch((const char *)(row + i + 64 * k) + AHEAD, _MM_HINT_T1);
            __m512i codes = _mm512_loadu_si512(row + i + 64 * k);
            for (int v = 0; v < many; v++) {
                __m512i coarse = _mm512_loadu_si512(vectors[v].coarse + i + 64 * k);
                __m512i fine = _mm512_loadu_si512(vectors[v].fine + i + 64 * k);
                high[v][k] = _mm512_dpbusd_epi32(high[v][k], coarse, codes);
                low[v][k] = _mm512_dpbusd_epi32(low[v][k], fine, codes);
            }
        }
    for (int v = 0; v < many; v++) {
        for (int k = 1; k < chains; k++) {
            high[v][0] = _mm512_add_epi32(high[v][0], high[v][k]);
            low[v][0] = _mm512_add_epi32(low[v][0], low[v][k]);
        }
        int32_t on_coarse = _mm512_reduce_add_epi32(high[v][0]), on_fine = _mm512_reduce_add_epi32(low[v][0]);
        for (int64_t j = i; j < columns; j++) {
            on_coarse += (uint8_t)vectors[v].coarse[j] * row[j];
            on_fine += (uint8_t)vectors[v].fine[j] * row[j];
        }
        /* The planes are 128 too high. */
        on_coarse -= 128 * sum_of_codes;
        on_fine -= 128 * sum_of_codes;
        out[v * stride] = vectors[v].step * ((float)on_coarse + (float)on_fine / 256);
    }
#else
    (void)sum_of_codes;
    for (int v = 0; v < many; v++) out[v * stride] = plain_int8(row, vectors[v].wide, columns);
#endif
}

/* Over the channels from `begin` on, which starts a group: sum of scale * code * x, without offsets. */
static inline float codes_int4(const Matrix *matrix, const uint8_t *row, int64_t first_group, const Vector *vector,
                               int64_t begin, int planes) {
    float sum = 0;
    for (int64_t start = begin; start < matrix->columns; start += matrix->group) {
        const uint8_t *pairs = row + start / 2;
        float part = 0;
        if (planes) {
            /* The rest behind whole blocks is not unzipped. */
            const int8_t *coarse = vector->coarse + start, *fine = vector->fine + start;
            int32_t total = 0;
            for (int64_t j = 0; j < matrix->group / 2; j++) {
                int32_t even = coarse[2 * j] * 256 + fine[2 * j], odd = coarse[2 * j + 1] * 256 + fine[2 * j + 1];
                total += (pairs[j] & 15) * even + (pairs[j] >> 4) * odd;
            }
            part = (float)total * (vector->step / 256);
        } else {
            const float *x = vector->wide + start;
#pragma omp simd reduction(+ : part)
            for (int64_t j = 0; j < matrix->group / 2; j++)
                part += (float)(pairs[j] & 15) * x[2 * j] + (float)(pairs[j] >> 4) * x[2 * j + 1];
        }
        sum += part * factor(matrix->scale, first_group + start / matrix->group, matrix->narrow);
    }
    return sum;
}

#if WIDE
/* Sixteen factors or fewer from `index` on. */
static inline __m512 factors(const void *values, int64_t index, __mmask16 mask, int is_narrow) {
    if (!is_narrow) return _mm512_maskz_loadu_ps(mask, (const float *)values + index);
    __m256i bits = _mm256_maskz_loadu_epi16(mask, (const uint16_t *)values + index);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
#endif

/* `many` rows of an int4 matrix one below the other with one vector; `many` is known while translating. Several
   rows share what is read of the vector, and their sums are waited for together. */
INLINE void rows_int4(const Matrix *matrix, int64_t index, const Vector *vector, const int many, float *out) {
    const int64_t columns = matrix->columns, groups = columns / matrix->group;
    int64_t i = 0, g = 0;
    float sums[4] = {0};
#if FAST_INTEGER
    const uint8_t *first = (const uint8_t *)matrix->weight + index * (columns / 2);
    const __m512i low_half = _mm512_set1_epi8(15);
    /* Lane l sums channels 8 l to 8 l + 7 of a block. */
    const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const int64_t in_block = 128 / matrix->group;
    const __m512i owner = _mm512_srli_epi32(lanes, matrix->group == 64 ? 3 : 2);
    const __mmask16 mask = (__mmask16)((1 << in_block) - 1);
    const int narrow = matrix->narrow;
    __m512 totals[4];
    for (int r = 0; r < many; r++) totals[r] = _mm512_setzero_ps();
    for (; i + 128 <= columns; i += 128) {
        const __m512i coarse_even = _mm512_loadu_si512(vector->coarse + i);
        const __m512i coarse_odd = _mm512_loadu_si512(vector->coarse + i + 64);
        const __m512i fine_even = _mm512_loadu_si512(vector->fine + i);
        const __m512i fine_odd = _mm512_loadu_si512(vector->fine + i + 64);
        for (int r = 0; r < many; r++) {
            const uint8_t *row = first + r * (columns / 2) + i / 2;
            _mm_prefetch((const char *)row + AHEAD, _MM_HINT_T1);
            const __m512i pairs = _mm512_loadu_si512(row), zero = _mm512_setzero_si512();
            const __m512i even = _mm512_and_si512(pairs, low_half);
            const __m512i odd = _mm512_and_si512(_mm512_srli_epi16(pairs, 4), low_half);
            __m512i high = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, even, coarse_even), odd, coarse_odd);
            __m512i low = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, even, fine_even), odd, fine_odd);
            __m512 part = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(high, 8), low));
            __m512 scale = factors(matrix->scale, (index + r) * groups + i / matrix->group, mask, narrow);
            totals[r] = _mm512_fmadd_ps(part, _mm512_permutexvar_ps(owner, scale), totals[r]);
        }
    }
    for (int r = 0; r < many; r++) totals[r] = _mm512_mul_ps(totals[r], _mm512_set1_ps(vector->step / 256));
    for (; g < groups; g += 16) {
        __mmask16 rest = (__mmask16)(groups - g >= 16 ? 0xffff : (1 << (groups - g)) - 1);
        const __m512 own = _mm512_maskz_loadu_ps(rest, vector->group_sums + g);
        for (int r = 0; r < many; r++)
            totals[r] = _mm512_fmadd_ps(factors(matrix->offset, (index + r) * groups + g, rest, narrow), own,
                                        totals[r]);
    }
    for (int r = 0; r < many; r++) sums[r] = _mm512_reduce_add_ps(totals[r]);
#endif
    for (int r = 0; r < many; r++) {
        const uint8_t *row = (const uint8_t *)matrix->weight + (index + r) * (columns / 2);
        if (i < columns) sums[r] += codes_int4(matrix, row, (index + r) * groups, vector, i, FAST_INTEGER);
        for (int64_t k = g; k < groups; k++)
            sums[r] += factor(matrix->offset, (index + r) * groups + k, matrix->narrow) * vector->group_sums[k];
        out[r] = sums[r];
    }
}

/* Products of bands `begin` to `end` of a packed matrix with `many` vectors, at most eight, which is known while
   translating. out: (many, stride), from row 0 of the matrix on. */
INLINE void packed_products(const Matrix *matrix, int64_t begin, int64_t end, const Vector *vectors, const int many,
                            float *out, int64_t stride) {
    const int64_t columns = matrix->columns;
    if (begin == end) return;
#if FAST_PACKED
    Exponents places[2];
    Unpacking state = begin_unpacking(matrix, begin, places);
    for (int64_t band = begin; band < end; band++) {
        __m512 sums[8][2];
        for (int v = 0; v < many; v++) sums[v][0] = sums[v][1] = _mm512_setzero_ps();
        for (int64_t i = 0; i < columns;)
            for (const int64_t span_end = next_piece(&state, matrix, i, band + 1 == end); i < span_end; i += STRIP)
                for (int block = 0; block < 4; block++) {
                    __m512i pairs[2];
                    unpack_block(&state, block, pairs);
                    for (int v = 0; v < many; v++)
                        for (int k = 0; k < 2; k++) {
                            int32_t x;
                            memcpy(&x, vectors[v].narrow + i + 4 * block + 2 * k, sizeof x);
                            sums[v][k] = _mm512_dpbf16_ps(sums[v][k], (__m512bh)pairs[k],
                                                          (__m512bh)_mm512_set1_epi32(x));
                        }
                }
        for (int v = 0; v < many; v++)
            _mm512_storeu_ps(out + v * stride + band * BAND, _mm512_add_ps(sums[v][0], sums[v][1]));
    }
#else
    uint16_t weights[BAND * SPAN];
    for (int64_t band = begin; band < end; band++) {
        const uint8_t *strips = strips_of(matrix, band), *piece = first_piece(matrix, band);
        for (int64_t i = 0; i < columns; i += SPAN) {
            const int64_t span = smaller(SPAN, columns - i);
            piece = unpack_piece(strips + i / STRIP * STRIP_BYTES, piece, span, weights, SPAN);
            for (int v = 0; v < many; v++)
                for (int row = 0; row < BAND; row++) {
                    float *own = out + v * stride + band * BAND + row;
                    *own = (i ? *own : 0) + plain_bfloat16(weights + row * SPAN, vectors[v].wide + i, span);
                }
        }
    }
#endif
}

/* Of several: by tiles where that is possible, which costs the same for any number up to sixteen. */
static void multiply_packed(const Matrix *matrix, const Vector *vectors, int64_t count, int64_t begin, int64_t end,
                            float *out, int64_t stride) {
    int64_t i = 0;
#if FAST_TILES
    while (tiles_allowed && count - i >= FEWEST_TILE_VECTORS && begin < end) {
        const int64_t taken = smaller(count - i, MOST_TILE_VECTORS);
        multiply_by_tiles(matrix, begin, end, vectors + i, taken, out + i * stride, stride);
        i += taken;
    }
#endif
    for (; i + 8 <= count; i += 8) packed_products(matrix, begin, end, vectors + i, 8, out + i * stride, stride);
    for (; i + 4 <= count; i += 4) packed_products(matrix, begin, end, vectors + i, 4, out + i * stride, stride);
    for (; i + 2 <= count; i += 2) packed_products(matrix, begin, end, vectors + i, 2, out + i * stride, stride);
    for (; i < count; i++) packed_products(matrix, begin, end, vectors + i, 1, out + i * stride, stride);
}

/* One row of any matrix but packed ones with `many` vectors. */
INLINE void row_product(const Matrix *matrix, int64_t row, const Vector *vectors, const int many, float *out,
                        int64_t stride) {
    const int64_t columns = matrix->columns, start = row * columns;
    switch (matrix->kind) {
    case FLOAT32:
        for (int v = 0; v < many; v++)
            out[v * stride] = row_float32((const float *)matrix->weight + start, vectors[v].wide, columns);
        break;
    case BFLOAT16:
        row_bfloat16((const uint16_t *)matrix->weight + start, vectors, many, columns, out, stride);
        break;
    case INT8:
        row_int8((const int8_t *)matrix->weight + start, vectors, many, columns, matrix->sums[row], out, stride);
        for (int v = 0; v < many; v++) out[v * stride] *= ((const float *)matrix->scale)[row];
        break;
    default:
        for (int v = 0; v < many; v++) rows_int4(matrix, row, vectors + v, 1, out + v * stride);
    }
}

/* Rows `begin` to `end` of a matrix with each of `count` vectors, bias included, as a tensor holds the result.
   out: (count, stride). A row of the matrix is read once for all vectors, at most eight; of packed ones, both
   bounds are multiples of BAND. */
static void multiply(const Matrix *matrix, const Vector *vectors, int64_t count, int64_t begin, int64_t end,
                     int is_narrow, float *out, int64_t stride) {
    if (matrix->kind == PACKED) multiply_packed(matrix, vectors, count, begin / BAND, end / BAND, out, stride);
    int64_t done = begin;
    if (matrix->kind == INT4)
        for (; done + 4 <= end; done += 4)
            for (int64_t v = 0; v < count; v++) rows_int4(matrix, done, vectors + v, 4, out + v * stride + done);
    for (int64_t row = done; row < end && matrix->kind != PACKED; row++) {
        int64_t i = 0;
        for (; i + 4 <= count; i += 4) row_product(matrix, row, vectors + i, 4, out + i * stride + row, stride);
        for (; i + 2 <= count; i += 2) row_product(matrix, row, vectors + i, 2, out + i * stride + row, stride);
        for (; i < count; i++) row_product(matrix, row, vectors + i, 1, out + i * stride + row, stride);
    }
    for (int64_t i = 0; i < count; i++) {
        float *own = out + i * stride;
        for (int64_t row = begin; row < end; row++)
            own[row] = held(matrix->bias ? own[row] + matrix->bias[row] : own[row], is_narrow);
    }
}

static inline float weight_at(const Matrix *matrix, int64_t row, int64_t column) {
    int64_t index = row * matrix->columns + column;
    if (matrix->kind == INT8) return ((const float *)matrix->scale)[row] * ((const int8_t *)matrix->weight)[index];
    uint8_t pair = ((const uint8_t *)matrix->weight)[index / 2];
    int64_t group = index / matrix->group;
    return factor(matrix->scale, group, matrix->narrow) * (column & 1 ? pair >> 4 : pair & 15) +
           factor(matrix->offset, group, matrix->narrow);
}

/* The weights of one row of an int8 or int4 matrix in bfloat16 or float32. */
static void widen_weights(const Matrix *matrix, int64_t row, int is_narrow, void *out) {
    const int64_t columns = matrix->columns;
    int64_t i = 0;
#if FAST_BFLOAT16
    for (; is_narrow && i + 32 <= columns; i += 32) {
        int64_t index = row * columns + i;
        __m512i low, high;
        __m512 scale, offset = _mm512_setzero_ps();
        if (matrix->kind == INT8) {
            const __m128i *codes = (const __m128i *)((const int8_t *)matrix->weight + index);
            low = _mm512_cvtepi8_epi32(_mm_loadu_si128(codes));
            high = _mm512_cvtepi8_epi32(_mm_loadu_si128(codes + 1));
            scale = _mm512_set1_ps(((const float *)matrix->scale)[row]);
        } else {
            __m128i pairs = _mm_loadu_si128((const __m128i *)((const uint8_t *)matrix->weight + index / 2));
            __m128i even = _mm_and_si128(pairs, _mm_set1_epi8(15));
            __m128i odd = _mm_and_si128(_mm_srli_epi16(pairs, 4), _mm_set1_epi8(15));
            low = _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(even, odd));
            high = _mm512_cvtepu8_epi32(_mm_unpackhi_epi8(even, odd));
            scale = _mm512_set1_ps(factor(matrix->scale, index / matrix->group, matrix->narrow));
            offset = _mm512_set1_ps(factor(matrix->offset, index / matrix->group, matrix->narrow));
        }
        __m512 first = _mm512_fmadd_ps(_mm512_cvtepi32_ps(low), scale, offset);
        __m512 second = _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), scale, offset);
        _mm512_storeu_si512((uint16_t *)out + i, (__m512i)_mm512_cvtne2ps_pbh(second, first));
    }
#endif
    for (; i < columns; i++) {
        float value = weight_at(matrix, row, i);
        if (is_narrow)
            ((uint16_t *)out)[i] = narrowed(value);
        else
            ((float *)out)[i] = value;
    }
}

#endif
