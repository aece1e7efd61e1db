/* Matrices as they are stored, and vectors in the forms that products with them read.

   Every format has a plain form, which any C compiler turns into vector code, and one for processors with
   AVX-512 and its instructions for bfloat16 and int8. PLAIN chooses the plain forms, for tests. */

#ifndef G2VLM_FORMATS_H
#define G2VLM_FORMATS_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && !defined(PLAIN)
#include <immintrin.h>
#define WIDE 1
#else
#define WIDE 0
#endif
#if WIDE && defined(__AVX512BF16__)
#define FAST_BFLOAT16 1
#else
#define FAST_BFLOAT16 0
#endif
#if WIDE && defined(__AVX512VNNI__)
#define FAST_INTEGER 1
#else
#define FAST_INTEGER 0
#endif

#if FAST_BFLOAT16 && defined(__AVX512VBMI__) && defined(__AVX512VBMI2__)
#define FAST_PACKED 1
#else
#define FAST_PACKED 0
#endif

#define INLINE static inline __attribute__((always_inline))

enum { FLOAT32, BFLOAT16, INT8, INT4, PACKED };

typedef struct {
    int32_t kind;
    int32_t group;       /* int4: input channels that share a scale and an offset */
    int32_t narrow;      /* int4: scales and offsets are bfloat16, not float32 */
    int64_t rows;
    int64_t columns;
    const void *weight;  /* row after row; int4: two codes a byte, the even channel in the low half; packed: strips */
    const void *scale;   /* int8: a float32 a row; int4: one a group; packed: the second stream */
    const void *offset;  /* int4: of code zero, one a group; packed: where each band begins in the second stream */
    const int32_t *sums; /* int8: the sum of the codes of each row */
    const float *bias;   /* or NULL */
} Matrix;

/* A vector in the forms that products want. Two int8 planes hold it to one part in 32,000 of its largest
   entry: value = step * (coarse + fine / 256). For int8 matrices both are 128 higher, as unsigned bytes, which
   is what the instruction multiplies signed ones with. */
typedef struct {
    float *wide;
    uint16_t *narrow;
    int8_t *coarse;
    int8_t *fine;
    float *group_sums;
    float step;
} Vector;

static inline float widen(uint16_t bits) {
    uint32_t whole = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &whole, sizeof value);
    return value;
}

/* Round to nearest, ties to even, as torch does; not made for NaN. */
static inline uint16_t narrowed(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/* A number as a tensor of the tower's format holds it. */
static inline float held(float value, int is_narrow) { return is_narrow ? widen(narrowed(value)) : value; }

static inline float factor(const void *values, int64_t index, int is_narrow) {
    return is_narrow ? widen(((const uint16_t *)values)[index]) : ((const float *)values)[index];
}

static int64_t vector_bytes(int64_t columns) {
    /* Groups have 32 channels at least; each form starts on a cache line. */
    int64_t lines = (columns + 63) / 64;
    return lines * 64 * (4 + 2 + 1 + 1) + (lines * 2 + 16) * 4;
}

static Vector vector_in(char *memory, int64_t columns) {
    int64_t padded = (columns + 63) / 64 * 64;
    Vector vector;
    vector.wide = (float *)memory;
    vector.narrow = (uint16_t *)(memory + padded * 4);
    vector.coarse = (int8_t *)(memory + padded * 6);
    vector.fine = (int8_t *)(memory + padded * 7);
    vector.group_sums = (float *)(memory + padded * 8);
    vector.step = 0;
    return vector;
}

/* Where channel i of a block of 128 goes so that the even ones, which are the low halves of 64 bytes of
   int4 codes, stand before the odd ones. */
static inline int64_t unzipped(int64_t i) { return (i & ~127) + ((i & 1) << 6) + ((i & 127) >> 1); }

static void split_planes(Vector *vector, int64_t columns, int unzip, int up) {
    const float *x = vector->wide;
    float largest = 1e-30f;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < columns; i++) largest = fmaxf(largest, fabsf(x[i]));
    vector->step = largest / 127;
    float inverse = 127 / largest;
    int64_t zipped = unzip ? columns / 128 * 128 : 0;
    for (int64_t i = 0; i < columns; i++) {
        float scaled = x[i] * inverse, coarse = rintf(scaled);
        float fine = rintf((scaled - coarse) * 256);
        int64_t place = i < zipped ? unzipped(i) : i;
        vector->coarse[place] = (int8_t)((int)coarse + up);
        vector->fine[place] = (int8_t)((fine > 127 ? 127 : (int)fine) + up);
    }
}

/* Derive from `wide` the forms that products with this matrix read. */
static void prepare(Vector *vector, const Matrix *matrix) {
    const float *x = vector->wide;
    int64_t columns = matrix->columns;
    if ((matrix->kind == BFLOAT16 && FAST_BFLOAT16) || (matrix->kind == PACKED && FAST_PACKED))
        for (int64_t i = 0; i < columns; i++) vector->narrow[i] = narrowed(x[i]);
    if (matrix->kind == INT8 && FAST_INTEGER) split_planes(vector, columns, 0, 128);
    if (matrix->kind == INT4) {
        if (FAST_INTEGER) split_planes(vector, columns, 1, 0);
        for (int64_t g = 0; g < columns / matrix->group; g++) {
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t i = g * matrix->group; i < (g + 1) * matrix->group; i++) sum += x[i];
            vector->group_sums[g] = sum;
        }
    }
}

#endif
