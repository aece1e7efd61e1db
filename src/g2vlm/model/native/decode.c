/* One more text token of each row through the semantic expert: what `G2VLM.decode` computes, in one parallel region.

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
static void place_heads(const Pass *pass, const Layer *layer, const Own *memory, int64_t place) {
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
            int64_t start = (index * memory->capacity + memory->lengths[row]) * dim;
            keep(kind == 1 ? memory->keys[place] : memory->values[place], start, own, dim, network->narrow);
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
static void run_layer(const Pass *pass, int64_t place, const Past *past, Vector *vectors) {
    const Layer *layer = pass->network->layers + place;
    const int64_t width = qkv_width(pass->network);
    norm_vectors(pass, layer->attention_norm, &layer->qkv, vectors);
    Range own = own_rows(&layer->qkv, width);
    multiply(&layer->qkv, vectors, pass->rows, own.begin, own.end, pass->network->narrow, pass->qkv, width);
#pragma omp barrier
    place_heads(pass, layer, &past->own, place);
    attend(past, place, pass->qkv, width, pass->parts, pass->attended);
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
                             heads * past->most * part_size(past),
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

/* How many words a pass can choose from, and what each thread found among its share of them, for each row. */
typedef struct {
    int64_t word;  /* the likeliest; the first of equally likely ones */
    float largest; /* its logit */
    float sum;     /* of the exponentials of all, relative to it */
} Found;

static Found likeliest(const float *logits, Range words) {
    Found found = {words.begin, -FLT_MAX, 0};
    float largest = -FLT_MAX, sum = 0;
#pragma omp simd reduction(max : largest)
    for (int64_t i = words.begin; i < words.end; i++) largest = fmaxf(largest, logits[i]);
    while (found.word < words.end - 1 && logits[found.word] != largest) found.word++;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = words.begin; i < words.end; i++) sum += expf(logits[i] - largest);
    found.largest = largest;
    found.sum = sum;
    return found;
}

/* The likeliest word of all threads, and the logarithm of its probability. found: (threads, rows). */
static void choose_word(const Found *found, int64_t threads, int64_t rows, int64_t row, int64_t *choice,
                        float *log_probability) {
    Found best = found[row];
    float sum = 0;
    for (int64_t i = 1; i < threads; i++)
        if (found[i * rows + row].largest > best.largest) best = found[i * rows + row];
    for (int64_t i = 0; i < threads; i++)
        sum += found[i * rows + row].sum * expf(found[i * rows + row].largest - best.largest);
    *choice = best.word;
    *log_probability = -logf(sum);
}

/* Which parts each row has, segment after segment. Fills `numbers`: places (readers), own places and counts (rows). */
static void count_parts(Past *past, int64_t readers, int64_t *numbers) {
    int64_t *places = numbers, *own = numbers + readers, *counts = own + past->rows;
    past->places = places;
    past->own_places = own;
    past->counts = counts;
    past->most = 0;
    for (int64_t row = 0; row < past->rows; row++) own[row] = 0;
    for (int64_t s = 0; s < past->num_segments; s++)
        for (int64_t i = 0; i < past->segments[s].num_rows; i++) {
            int64_t row = past->segments[s].rows[i];
            *places++ = own[row];
            own[row] += num_stretches(past->segments[s].length);
        }
    for (int64_t row = 0; row < past->rows; row++) {
        counts[row] = own[row] + num_stretches(past->own.lengths[row] + 1);
        past->most = most(past->most, counts[row]);
    }
}

/* Read one text token of each row, write its logits and choose the next.

   segments: what rows read before their own text, each row those that name it. own: with room for one more token of
   each row. logits: (rows, words). choices, log_probabilities: (rows). Returns 0, or 1 where memory ran out. */
int g2vlm_decode(const Network *network, int64_t rows, const int64_t *tokens, const int64_t *positions,
                 int64_t num_segments, const Segment *segments, const Own *own, float *logits, int64_t *choices,
                 float *log_probabilities, int32_t threads) {
    int64_t longest = 0, readers = 0;
    const int64_t lengths[] = {network->width, network->mlp_width, (int64_t)network->num_heads * network->head_dim};
    for (int i = 0; i < 3; i++) longest = most(longest, lengths[i]);
    for (int64_t s = 0; s < num_segments; s++) readers += segments[s].num_rows;
    int64_t *counted = malloc((readers + 2 * rows) * sizeof(int64_t));
    if (!counted) return 1;
    const int64_t vectors_each = rows == 1 ? threads : rows, vector_size = (vector_bytes(longest) + 63) / 64 * 64;
    Past past = {.num_segments = num_segments, .segments = segments, .own = *own, .rows = rows,
                 .heads = network->num_heads, .kv_heads = network->num_kv_heads, .dim = network->head_dim,
                 .narrow = network->narrow};
    count_parts(&past, readers, counted);
    Pass pass = {.network = network, .rows = rows};
    float *numbers = aligned_alloc(64, lay_out(&pass, &past, NULL) * sizeof(float));
    char *room = aligned_alloc(64, vector_size * vectors_each);
    Vector *vectors = malloc(vectors_each * sizeof(Vector));
    Found *found = malloc(threads * rows * sizeof(Found));
    int failed = !numbers || !room || !vectors || !found;
    if (!failed) {
        lay_out(&pass, &past, numbers);
        begin_pass(&pass, tokens, positions);
        for (int64_t i = 0; i < vectors_each; i++) vectors[i] = vector_in(room + i * vector_size, longest);
#pragma omp parallel num_threads(threads)
        {
            const int64_t thread = omp_get_thread_num(), team = omp_get_num_threads();
            Vector *mine = rows == 1 ? vectors + thread : vectors;
            for (int64_t i = 0; i < network->num_layers; i++) run_layer(&pass, i, &past, mine);
            const Matrix *head = &network->language_head;
            norm_vectors(&pass, network->final_norm, head, mine);
            Range words = own_rows(head, head->rows);
            multiply(head, mine, rows, words.begin, words.end, network->narrow, logits, head->rows);
            for (int64_t row = 0; row < rows; row++)
                found[thread * rows + row] = likeliest(logits + row * head->rows, words);
#pragma omp barrier
#pragma omp for schedule(static)
            for (int64_t row = 0; row < rows; row++)
                choose_word(found, team, rows, row, choices + row, log_probabilities + row);
        }
    }
    free(counted);
    free(numbers);
    free(room);
    free(vectors);
    free(found);
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
int64_t g2vlm_size_of_memory(void) { return sizeof(Segment) + sizeof(Own); }
int64_t g2vlm_size_of_header(void) { return sizeof(Header); }

/* Which forms this library was built with: bit 0 bfloat16, bit 1 int8, bit 2 packed, bit 3 packed by tiles. */
int g2vlm_features(void) { return FAST_BFLOAT16 | FAST_INTEGER << 1 | FAST_PACKED << 2 | tiles_allowed << 3; }
