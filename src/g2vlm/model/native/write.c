/* One more text token through the semantic expert: what `G2VLM.write` computes, in one parallel region.

   The residual stream is float32; what tensors of a bfloat16 network hold between two operations is rounded
   to bfloat16 here as well. Sums are added up in another order than torch does. */

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

/* What the threads share. */
typedef struct {
    float *x;
    float *qkv;
    float *attended;
    float *hidden; /* the gate, then what it opens */
    float *update;
    float *parts;
} Shared;

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

/* Norm and rotation of queries and keys; keys and values go to memory. Called by all threads. */
static void place_heads(const Network *network, const Layer *layer, const float *cosines, const float *sines,
                        const Memory *memory, float *qkv) {
    int64_t dim = network->head_dim, kv_heads = network->num_kv_heads, heads = network->num_heads;
#pragma omp for schedule(static)
    for (int64_t head = 0; head < heads + 2 * kv_heads; head++) {
        float *own = qkv + head * dim;
        int64_t kind = head < heads ? 0 : head < heads + kv_heads ? 1 : 2;
        if (kind < 2) {
            rms_norm(own, kind ? layer->key_norm : layer->query_norm, dim, network->eps, 0, own);
            rotate_halves(own, cosines, sines, dim / 2, network->narrow);
        }
        if (kind) {
            int64_t index = head - heads - (kind == 2 ? kv_heads : 0);
            int64_t start = (index * memory->capacity + memory->length) * dim;
            keep(kind == 1 ? memory->keys : memory->values, start, own, dim, network->narrow);
        }
    }
}

/* The share of this thread in `count` rows. */
typedef struct {
    int64_t begin;
    int64_t end;
} Rows;

static Rows own_rows(int64_t count) {
    int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
    Rows rows = {count * thread / threads, count * (thread + 1) / threads};
    return rows;
}

/* Add a product to the residual stream; `room` is a buffer for it. Called by all threads. */
static void add_product(const Matrix *matrix, const Vector *vector, int narrow, float *room, float *x) {
    Rows own = own_rows(matrix->rows);
    multiply(matrix, vector, 1, own.begin, own.end, narrow, room, 0);
    for (int64_t row = own.begin; row < own.end; row++) x[row] += room[row];
#pragma omp barrier
}

/* Called by all threads. */
static void run_layer(const Network *network, const Layer *layer, const float *cosines, const float *sines,
                      const Memory *memory, const Shared *shared, Vector *vector) {
    int narrow = network->narrow;
    int64_t width = network->width, mlp_width = network->mlp_width;

    /* Every thread prepares the vector for itself, which costs less than waiting for one that does. */
    rms_norm(shared->x, layer->attention_norm, width, network->eps, narrow, vector->wide);
    prepare(vector, &layer->qkv);
    Rows own = own_rows(layer->qkv.rows);
    multiply(&layer->qkv, vector, 1, own.begin, own.end, narrow, shared->qkv, 0);
#pragma omp barrier

    place_heads(network, layer, cosines, sines, memory, shared->qkv);
    attend(memory, shared->qkv, network->num_heads, shared->parts, shared->attended);

    for (int64_t i = 0; i < layer->out.columns; i++) vector->wide[i] = held(shared->attended[i], narrow);
    prepare(vector, &layer->out);
    add_product(&layer->out, vector, narrow, shared->update, shared->x);

    rms_norm(shared->x, layer->mlp_norm, width, network->eps, narrow, vector->wide);
    prepare(vector, &layer->gate_up);
    own = own_rows(mlp_width);
    multiply(&layer->gate_up, vector, 1, own.begin, own.end, narrow, shared->hidden, 0);
    multiply(&layer->gate_up, vector, 1, mlp_width + own.begin, mlp_width + own.end, narrow, shared->hidden, 0);
    float *gate = shared->hidden, *up = shared->hidden + mlp_width;
#pragma omp simd
    for (int64_t row = own.begin; row < own.end; row++)
        gate[row] = held(held(gate[row] / (1 + expf(-gate[row])), narrow) * up[row], narrow);
#pragma omp barrier

    memcpy(vector->wide, gate, mlp_width * sizeof(float));
    prepare(vector, &layer->down);
    add_product(&layer->down, vector, narrow, shared->update, shared->x);
}

/* Read one text token, which stands at `position`, behind `length` others and write its logits.

   keys, values: (layers, kv_heads, capacity, head_dim), in the network's format; room for one more.
   logits: one for each word. Returns 0, or 1 where memory ran out. */
int g2vlm_write(const Network *network, int64_t token, int64_t position, void *keys, void *values, int64_t length,
                int64_t capacity, float *logits, int32_t threads) {
    int64_t dim = network->head_dim, width = network->width, mlp_width = network->mlp_width;
    int64_t queries = network->num_heads * dim, both = 2 * network->num_kv_heads * dim;
    int64_t longest = mlp_width > width ? mlp_width : width;
    longest = queries > longest ? queries : longest;
    int64_t parts = num_tasks(length + 1, network->num_kv_heads) * part_size(network->num_heads, network->num_kv_heads, dim);
    int64_t floats = 2 * width + 2 * queries + both + 2 * mlp_width + parts + dim;
    int64_t own_bytes = (vector_bytes(longest) + 63) / 64 * 64;
    float *numbers = malloc(floats * sizeof(float));
    char *vectors = aligned_alloc(64, own_bytes * threads);
    if (!numbers || !vectors) {
        free(numbers);
        free(vectors);
        return 1;
    }
    Shared shared;
    shared.x = numbers;
    shared.qkv = shared.x + width;
    shared.attended = shared.qkv + queries + both;
    shared.hidden = shared.attended + queries;
    shared.update = shared.hidden + 2 * mlp_width;
    shared.parts = shared.update + width;
    widen_row(network->embedding, token * width, width, network->narrow, shared.x);
    /* Text has the same position along all axes. */
    float *cosines = shared.parts + parts, *sines = cosines + dim / 2;
    for (int64_t i = 0; i < dim / 2; i++) {
        float angle = (float)position * network->frequencies[i];
        cosines[i] = cosf(angle);
        sines[i] = sinf(angle);
    }

    int64_t layer_bytes = network->num_kv_heads * capacity * dim * (network->narrow ? 2 : 4);
#pragma omp parallel num_threads(threads)
    {
        Vector vector = vector_in(vectors + own_bytes * omp_get_thread_num(), longest);
        for (int64_t i = 0; i < network->num_layers; i++) {
            Memory memory = {(char *)keys + i * layer_bytes, (char *)values + i * layer_bytes, length, capacity,
                             network->num_kv_heads, dim, network->narrow};
            run_layer(network, &network->layers[i], cosines, sines, &memory, &shared, &vector);
        }
        rms_norm(shared.x, network->final_norm, width, network->eps, network->narrow, vector.wide);
        prepare(&vector, &network->language_head);
        Rows own = own_rows(network->language_head.rows);
        multiply(&network->language_head, &vector, 1, own.begin, own.end, network->narrow, logits, 0);
    }
    free(numbers);
    free(vectors);
    return 0;
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
        Rows own = own_rows(matrix->rows);
        multiply(matrix, vectors, count, own.begin, own.end, 0, out, matrix->rows);
    }
    free(memory);
    free(vectors);
    return 0;
}

/* Rows `begin` to `end` of an int8 or int4 matrix as bfloat16 (`narrow`) or float32. */
void g2vlm_widen(const Matrix *matrix, int64_t begin, int64_t end, int32_t narrow, void *out, int32_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = begin; row < end; row++)
        widen_weights(matrix, row, narrow, (char *)out + (row - begin) * matrix->columns * (narrow ? 2 : 4));
}

/* Which forms this library was built with: bit 0 bfloat16, bit 1 int8. */
int g2vlm_features(void) { return FAST_BFLOAT16 | FAST_INTEGER << 1; }
