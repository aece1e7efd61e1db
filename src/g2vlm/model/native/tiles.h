/* Products of packed matrices with many vectors by the processor's matrix unit (AMX), which multiplies a tile with
   sixteen vectors in about the time that unpacking it takes. */

#ifndef G2VLM_TILES_H
#define G2VLM_TILES_H

#include "packed.h"

#if FAST_PACKED && defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__linux__)
#define FAST_TILES 1
#else
#define FAST_TILES 0
#endif

/* Vectors that one tile holds, for which it is worth while, and that one pass over a matrix takes. */
#define TILE_VECTORS 16
#define FEWEST_TILE_VECTORS 3
#define MOST_TILE_VECTORS 48

/* Whether this process may use the unit. */
static int tiles_allowed = 0;

#if FAST_TILES
#include <sys/syscall.h>
#include <unistd.h>

#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_XTILEDATA 18

/* Linux lets a process use the unit after it asked once. */
__attribute__((constructor)) static void ask_for_tiles(void) {
    tiles_allowed = syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

typedef struct {
    uint8_t palette;
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} TileShapes;

/* Tiles 0 to 2 hold sums and 3 to 5 vectors, of which the last tile may have fewer; 6 holds weights. */
static void shape_tiles(int64_t count) {
    TileShapes shapes = {.palette = 1};
    for (int tile = 0; tile < 7; tile++) {
        const int64_t left = count - tile % 3 * TILE_VECTORS;
        shapes.row_bytes[tile] = 64;
        shapes.rows[tile] = tile == 6 || left >= TILE_VECTORS ? TILE_VECTORS : (uint8_t)(left > 0 ? left : 1);
    }
    _tile_loadconfig(&shapes);
}

/* Add the products of 32 columns. */
INLINE void add_tile(const void *weights, const char *vectors, int64_t step, const int groups) {
    _tile_loadd(6, weights, 64);
    _tile_loadd(3, vectors, step);
    _tile_dpbf16ps(0, 3, 6);
    if (groups > 1) {
        _tile_loadd(4, vectors + TILE_VECTORS * step, step);
        _tile_dpbf16ps(1, 4, 6);
    }
    if (groups > 2) {
        _tile_loadd(5, vectors + 2 * TILE_VECTORS * step, step);
        _tile_dpbf16ps(2, 5, 6);
    }
}

/* As `packed_products`, for `groups` tiles of vectors, the last of which may not be full. The rows of each form of
   the vectors lie at equal distances. */
INLINE void products_by_tiles(const Matrix *matrix, int64_t begin, int64_t end, const Vector *vectors,
                              const int groups, float *out, int64_t stride) {
    const int64_t columns = matrix->columns;
    const char *x = (const char *)vectors[0].narrow;
    const int64_t step = (const char *)vectors[1].narrow - x;
    uint8_t weights[2][16 * 64] __attribute__((aligned(64)));
    Exponents places[2];
    Unpacking state = begin_unpacking(matrix, begin, places);
    for (int64_t band = begin; band < end; band++) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        for (int64_t i = 0; i < columns;) {
            const int64_t span_end = next_piece(&state, matrix, i, band + 1 == end);
            for (; i < span_end; i += 2 * STRIP) {
                uint8_t *tile = weights[i / (2 * STRIP) % 2];
                for (int block = 0; block < 8; block++) {
                    __m512i pairs[2];
                    unpack_block(&state, block % 4, pairs);
                    _mm512_store_si512(tile + 128 * block, pairs[0]);
                    _mm512_store_si512(tile + 128 * block + 64, pairs[1]);
                }
                /* One tile late: what was stored just now cannot be loaded yet. */
                if (i) add_tile(weights[(i / (2 * STRIP) + 1) % 2], x + 2 * i - 64, step, groups);
            }
        }
        add_tile(weights[(columns / (2 * STRIP) + 1) % 2], x + 2 * columns - 64, step, groups);
        float *own = out + band * BAND;
        _tile_stored(0, own, stride * sizeof(float));
        if (groups > 1) _tile_stored(1, own + TILE_VECTORS * stride, stride * sizeof(float));
        if (groups > 2) _tile_stored(2, own + 2 * TILE_VECTORS * stride, stride * sizeof(float));
    }
}

static void multiply_by_tiles(const Matrix *matrix, int64_t begin, int64_t end, const Vector *vectors, int64_t count,
                              float *out, int64_t stride) {
    shape_tiles(count);
    if (count > 2 * TILE_VECTORS)
        products_by_tiles(matrix, begin, end, vectors, 3, out, stride);
    else if (count > TILE_VECTORS)
        products_by_tiles(matrix, begin, end, vectors, 2, out, stride);
    else
        products_by_tiles(matrix, begin, end, vectors, 1, out, stride);
    /* Others on this thread find the unit as they left it. */
    _tile_release();
}
#endif

#endif
