/* One more text token of each row through the semantic expert: what `G2VLM.write` computes, in one parallel region.

   The residual stream is float32; what tensors of a bfloat16 network hold between two operations is rounded
   to bfloat16 here as well. Sums are added up in another order than torch does. */

#define _GNU_SOURCE /* for syscall */

#include <stdlib.h>

#include "attention.h"
#include "products.h"

typedef struct {
    Matrix qkv;     /* rows of queries, keys, values */
    Matrix out;
    Matrix gate_up; /* rows of the gate, then of what it opens */
    Matrix down;
    const float *attention_norm;
    const float *query_norm;
    const float *key_norm;
    const float *mlp_norm;
} Layer;

typedef struct {
    int32_t num_layers;
    int32_t num_heads;
    int32_t num_kv_heads;
    int32_t head_dim;
    int32_t narrow; /* the network is bfloat16, else float32 */
    float eps;
    int64_t width;
    int64_t mlp_width;
    const Layer *layers;
    const float *final_norm;
    Matrix language_head;
    const void *embedding;    /* (words, width), in the network's format */
    const float *frequencies; /* of the rotation, half a head */
} Network;

/* One pass: its buffers, each with a row for every token. */
typedef struct {
    const Network *network;
    int64_t rows;
    float *x;
    float *qkv;
    float *attended;
    float *hidden; /* the gate, then what it opens */
    float *update;
    float *parts;
    float *cosines; /* half a head each */
    float *sines;
} Pass;

static void rms_norm(const float *x, const float *weight, int64_t count, float eps, int narrow, float *out) {
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < count; i++) squares += x[i] * x[i];
    float factor = 1 / sqrtf(squares / (float)count + eps);
    for (int64_t i = 0; i < count; i++) out[i] = held(x[i] * factor * weight[i], narrow);
}

static void rotate_halves(float *head, const float *cosines, const float *sines, int64_t half, int narrow) {
    for (int64_t i = 0; i < half; i++) {
        float first = head[i], second = head[i + half];
        head[i] = held(first * cosines[i] - second * sines[i], narrow);
        head[i + half] = held(second * cosines[i] + first * sines[i], narrow);
    }
}

static void keep(void *memory, int64_t start, const float *values, int64_t count, int narrow) {
    for (int64_t i = 0; i < count; i++) {
        if (narrow)
            ((uint16_t *)memory)[start + i] = narrowed(values[i]);
        else
            ((float *)memory)[start + i] = values[i];
    }
}

static int64_t qkv_width(const Network *network) {
    return (network->num_heads + 2 * network->num_kv_heads) * network->head_dim;
}

/* Norm and rotation of queries and keys; keys and values go to memory. Called by all threads. */
static void place_heads(const Pass *pass, const Layer *layer, const Memory *memory) {
    const Network *network = pass->network;
    const int64_t dim = network->head_dim, kv_heads = network->num_kv_heads, heads = network->num_heads;
    const int64_t all = heads + 2 * kv_heads;
#pragma omp for schedule(static)
    for (int64_t i = 0; i < pass->rows * all; i++) {
        int64_t row = i / all, head = i % all, kind = head < heads ? 0 : head < heads + kv_heads ? 1 : 2;
        float *own = pass->qkv + i * dim;
        if (kind < 2) {
            rms_norm(own, kind ? layer->key_norm : layer->query_norm, dim, network->eps, 0, own);
            rotate_halves(own, pass->cosines + row * dim / 2, pass->sines + row * dim / 2, dim / 2, network->narrow);
        }
        if (kind) {
            int64_t index = row * kv_heads + head - heads - (kind == 2 ? kv_heads : 0);
            int64_t start = (index * memory->capacity + memory->length) * dim;
            keep(kind == 1 ? memory->keys : memory->values, start, own, dim, network->narrow);
        }
    }
}

typedef struct {
    int64_t begin;
    int64_t end;
} Range;

/* The share of this thread in `count` things. */
static Range own_range(int64_t count) {
    int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
    Range range = {count * thread / threads, count * (thread + 1) / threads};
    return range;
}

/* The share of this thread in the first `count` rows of a matrix, which are whole bands of packed ones. */
static Range own_rows(const Matrix *matrix, int64_t count) {
    const int64_t grain = matrix->kind == PACKED ? BAND : 1;
    Range range = own_range(count / grain);
    range.begin *= grain;
    range.end *= grain;
    return range;
}

/* Which vectors this thread prepares. A single one is prepared by every thread for itself, which costs less than
   waiting for one that does; several are shared. */
static Range own_vectors(const Pass *pass) {
    Range one = {0, 1};
    return pass->rows == 1 ? one : own_range(pass->rows);
}

static void wait_for_vectors(const Pass *pass) {
    if (pass->rows > 1) {
#pragma omp barrier
    }
}

/* Called by all threads. */
static void norm_vectors(const Pass *pass, const float *weight, const Matrix *matrix, Vector *vectors) {
    const int64_t width = pass->network->width;
    Range own = own_vectors(pass);
    for (int64_t row = own.begin; row < own.end; row++) {
        rms_norm(pass->x + row * width, weight, width, pass->network->eps, pass->network->narrow, vectors[row].wide);
        prepare(&vectors[row], matrix);
    }
    wait_for_vectors(pass);
}

/* Called by all threads. */
static void take_vectors(const Pass *pass, const float *values, int64_t stride, const Matrix *matrix, Vector *vectors) {
    Range own = own_vectors(pass);
    for (int64_t row = own.begin; row < own.end; row++) {
        for (int64_t i = 0; i < matrix->columns; i++)
            vectors[row].wide[i] = held(values[row * stride + i], pass->network->narrow);
        prepare(&vectors[row], matrix);
    }
    wait_for_vectors(pass);
}

/* Add a product to the residual stream. Called by all threads. */
static void add_product(const Pass *pass, const Matrix *matrix, const Vector *vectors) {
    const int64_t width = matrix->rows;
    Range own = own_rows(matrix, width);
    multiply(matrix, vectors, pass->rows, own.begin, own.end, pass->network->narrow, pass->update, width);
    for (int64_t row = 0; row < pass->rows; row++)
        for (int64_t i = own.begin; i < own.end; i++) pass->x[row * width + i] += pass->update[row * width + i];
#pragma omp barrier
}

/* Called by all threads. */
static void open_gates(const Pass *pass, const Matrix *matrix, const Vector *vectors) {
    const int narrow = pass->network->narrow;
    const int64_t half = pass->network->mlp_width, stride = 2 * half;
    Range own = own_rows(matrix, half);
    multiply(matrix, vectors, pass->rows, own.begin, own.end, narrow, pass->hidden, stride);
    multiply(matrix, vectors, pass->rows, half + own.begin, half + own.end, narrow, pass->hidden, stride);
    for (int64_t row = 0; row < pass->rows; row++) {
        float *gate = pass->hidden + row * stride, *up = gate + half;
#pragma omp simd
        for (int64_t i = own.begin; i < own.end; i++)
            gate[i] = held(held(gate[i] / (1 + expf(-gate[i])), narrow) * up[i], narrow);
    }
#pragma omp barrier
}

/* Called by all threads. */
static void run_layer(const Pass *pass, const Layer *layer, const Past *past, Vector *vectors) {
    const int64_t width = qkv_width(pass->network);
    norm_vectors(pass, layer->attention_norm, &layer->qkv, vectors);
    Range own = own_rows(&layer->qkv, width);
    multiply(&layer->qkv, vectors, pass->rows, own.begin, own.end, pass->network->narrow, pass->qkv, width);
#pragma omp barrier
    place_heads(pass, layer, &past->own);
    attend(past, pass->qkv, width, pass->parts, pass->attended);
    take_vectors(pass, pass->attended, layer->out.columns, &layer->out, vectors);
    add_product(pass, &layer->out, vectors);
    norm_vectors(pass, layer->mlp_norm, &layer->gate_up, vectors);
    open_gates(pass, &layer->gate_up, vectors);
    take_vectors(pass, pass->hidden, 2 * pass->network->mlp_width, &layer->down, vectors);
    add_product(pass, &layer->down, vectors);
}

/* The numbers of a pass, one after the other in `memory`; without memory, only how many floats they take. */
static int64_t lay_out(Pass *pass, const Past *past, float *memory) {
    const Network *network = pass->network;
    const int64_t rows = pass->rows, half = network->head_dim / 2, heads = network->num_heads;
    float **buffers[] = {&pass->x,      &pass->qkv,   &pass->attended, &pass->hidden,
                         &pass->update, &pass->parts, &pass->cosines,  &pass->sines};
    const int64_t sizes[] = {network->width,
                             qkv_width(network),
                             heads * network->head_dim,
                             2 * network->mlp_width,
                             network->width,
                             heads * num_parts(past) * part_size(past),
                             half,
                             half};
    int64_t total = 0;
    for (int i = 0; i < 8; i++) {
        if (memory) *buffers[i] = memory + total;
        total += (rows * sizes[i] + 15) / 16 * 16;
    }
    return total;
}

/* Embedding and rotation of the tokens; text has the same position along all axes. */
static void begin_pass(const Pass *pass, const int64_t *tokens, const int64_t *positions) {
    const Network *network = pass->network;
    const int64_t width = network->width, half = network->head_dim / 2;
    for (int64_t row = 0; row < pass->rows; row++) {
        widen_row(network->embedding, tokens[row] * width, width, network->narrow, pass->x + row * width);
        for (int64_t i = 0; i < half; i++) {
            float angle = (float)positions[row] * network->frequencies[i];
            pass->cosines[row * half + i] = cosf(angle);
            pass->sines[row * half + i] = sinf(angle);
        }
    }
}

/* The memory of one layer, from that of all. */
static Memory layer_of(Memory memory, int64_t index, int64_t rows, const Network *network) {
    int64_t numbers = rows * network->num_kv_heads * memory.capacity * network->head_dim;
    int64_t bytes = index * numbers * (network->narrow ? 2 : 4);
    memory.keys = (char *)memory.keys + bytes;
    memory.values = (char *)memory.values + bytes;
    return memory;
}

/* The likeliest word; the first of equally likely ones. */
static int64_t likeliest(const float *logits, int64_t words) {
    float largest = -INFINITY;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < words; i++) largest = fmaxf(largest, logits[i]);
    int64_t place = 0;
    while (place < words - 1 && logits[place] != largest) place++;
    return place;
}

/* Read one text token of each row, write its logits and choose the next.

   shared: (layers, 1, kv_heads, capacity, head_dim), read by all rows; of length 0 where there is none.
   own: (layers, rows, kv_heads, capacity, head_dim), in the network's format; with room for one more token.
   logits: (rows, words). choices: (rows). Returns 0, or 1 where memory ran out. */
int g2vlm_write(const Network *network, int64_t rows, const int64_t *tokens, const int64_t *positions,
                const Memory *shared, const Memory *own, float *logits, int64_t *choices, int32_t threads) {
    int64_t longest = 0;
    const int64_t lengths[] = {network->width, network->mlp_width, (int64_t)network->num_heads * network->head_dim};
    for (int i = 0; i < 3; i++) longest = lengths[i] > longest ? lengths[i] : longest;
    const int64_t vectors_each = rows == 1 ? threads : rows, vector_size = (vector_bytes(longest) + 63) / 64 * 64;
    Past past = {*shared, *own, rows, network->num_heads, network->num_kv_heads, network->head_dim, network->narrow};
    Pass pass = {.network = network, .rows = rows};
    float *numbers = aligned_alloc(64, lay_out(&pass, &past, NULL) * sizeof(float));
    char *room = aligned_alloc(64, vector_size * vectors_each);
    Vector *vectors = malloc(vectors_each * sizeof(Vector));
    int failed = !numbers || !room || !vectors;
    if (!failed) {
        lay_out(&pass, &past, numbers);
        begin_pass(&pass, tokens, positions);
        for (int64_t i = 0; i < vectors_each; i++) vectors[i] = vector_in(room + i * vector_size, longest);
#pragma omp parallel num_threads(threads)
        {
            Vector *mine = rows == 1 ? vectors + omp_get_thread_num() : vectors;
            for (int64_t i = 0; i < network->num_layers; i++) {
                Past here = past;
                here.shared = layer_of(*shared, i, 1, network);
                here.own = layer_of(*own, i, rows, network);
                run_layer(&pass, &network->layers[i], &here, mine);
            }
            const Matrix *head = &network->language_head;
            norm_vectors(&pass, network->final_norm, head, mine);
            Range words = own_rows(head, head->rows);
            multiply(head, mine, rows, words.begin, words.end, network->narrow, logits, head->rows);
#pragma omp barrier
#pragma omp for schedule(static)
            for (int64_t row = 0; row < rows; row++) choices[row] = likeliest(logits + row * head->rows, head->rows);
        }
    }
    free(numbers);
    free(room);
    free(vectors);
    return failed;
}

/* One product alone: out = x @ matrix^T + bias, for `count` rows of float32. */
int g2vlm_multiply(const Matrix *matrix, const float *x, int64_t count, float *out, int32_t threads) {
    int64_t own_bytes = (vector_bytes(matrix->columns) + 63) / 64 * 64;
    char *memory = aligned_alloc(64, own_bytes * count);
    Vector *vectors = malloc(count * sizeof(Vector));
    if (!memory || !vectors) {
        free(memory);
        free(vectors);
        return 1;
    }
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < count; i++) {
            vectors[i] = vector_in(memory + i * own_bytes, matrix->columns);
            memcpy(vectors[i].wide, x + i * matrix->columns, matrix->columns * sizeof(float));
            prepare(&vectors[i], matrix);
        }
        Range own = own_rows(matrix, matrix->rows);
        multiply(matrix, vectors, count, own.begin, own.end, 0, out, matrix->rows);
    }
    free(memory);
    free(vectors);
    return 0;
}

/* Rows `begin` to `end` of an int8 or int4 matrix as bfloat16 (`narrow`) or float32; of a packed one as bfloat16,
   whole bands. */
void g2vlm_widen(const Matrix *matrix, int64_t begin, int64_t end, int32_t narrow, void *out, int32_t threads) {
    const int64_t step = matrix->kind == PACKED ? BAND : 1;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = begin; row < end; row += step) {
        char *own = (char *)out + (row - begin) * matrix->columns * (narrow ? 2 : 4);
        if (matrix->kind == PACKED)
            unpack_band(matrix, row / BAND, (uint16_t *)own);
        else
            widen_weights(matrix, row, narrow, own);
    }
}

/* What packed bfloat16 weights take: (rows, columns), whole bands of whole pairs of strips.

   starts: (rows / BAND + 1), filled: where each band begins in the second stream, and where that ends.
   headers: (rows / BAND, pieces of a band), filled. */
void g2vlm_measure(const uint16_t *weights, int64_t rows, int64_t columns, int64_t *starts, Header *headers,
                   int32_t threads) {
    const int64_t pieces = (columns + SPAN - 1) / SPAN;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t band = 0; band < rows / BAND; band++) {
        starts[band + 1] = 0;
        for (int64_t i = 0; i < pieces; i++) {
            const int64_t span = smaller(SPAN, columns - i * SPAN);
            Header header = choose(weights + band * BAND * columns + i * SPAN, columns, span);
            starts[band + 1] += piece_bytes(&header);
            headers[band * pieces + i] = header;
        }
    }
    starts[0] = 0;
    for (int64_t band = 0; band < rows / BAND; band++) starts[band + 1] += starts[band];
}

/* Pack them. strips: columns / STRIP * STRIP_BYTES for each band; second: as `starts` says; both zeroed. */
void g2vlm_pack(const uint16_t *weights, int64_t rows, int64_t columns, const int64_t *starts, const Header *headers,
                uint8_t *strips, uint8_t *second, int32_t threads) {
    const int64_t pieces = (columns + SPAN - 1) / SPAN;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t band = 0; band < rows / BAND; band++) {
        uint8_t *piece = second + starts[band];
        for (int64_t i = 0; i < pieces; i++) {
            const Header *header = headers + band * pieces + i;
            pack_piece(weights + band * BAND * columns + i * SPAN, columns, smaller(SPAN, columns - i * SPAN), *header,
                       strips + (band * columns + i * SPAN) / STRIP * STRIP_BYTES, piece);
            piece += piece_bytes(header);
        }
    }
}

/* Sizes of what callers hand over, to be compared with their own. */
int64_t g2vlm_size_of_network(void) { return sizeof(Network) + sizeof(Layer); }
int64_t g2vlm_size_of_memory(void) { return sizeof(Memory); }
int64_t g2vlm_size_of_header(void) { return sizeof(Header); }

/* Which forms this library was built with: bit 0 bfloat16, bit 1 int8, bit 2 packed, bit 3 packed by tiles. */
int g2vlm_features(void) { return FAST_BFLOAT16 | FAST_INTEGER << 1 | FAST_PACKED << 2 | tiles_allowed << 3; }
