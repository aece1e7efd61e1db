/* bfloat16 without loss in about eleven bits.

   Trained weights have few exponents. A matrix is cut into bands of 16 rows, and these into pieces of up to 512
   columns. In a piece, the three most frequent exponents take two bits, the next seven take five, any other takes
   thirteen; sign and mantissa take a byte, as they are. There are two streams, each read in order:

   - strips of 16 columns: codes of two bits, 64 bytes, then signs and mantissas, 256 bytes;
   - for each piece, what its codes of zero stand for: a header (ten exponents and two counts), codes of three bits,
     64 in 24 bytes, then what their zeros stand for, a byte each.

   A strip has four blocks of 16 x 4 weights, whose order makes two vectors of column pairs out of them: byte p is
   of row 4 (p / 16) + p % 8 / 2 and column 2 (p % 16 / 8) + p % 2. Exponents are kept rotated by one bit, as they
   lie across the two bytes of a number. Source: the idea of DFloat11 (arXiv 2504.11651), with codes of fixed size. */

#ifndef G2VLM_PACKED_H
#define G2VLM_PACKED_H

#include "formats.h"

#define BAND 16
#define SPAN 512
#define STRIP 16
#define STRIP_BYTES 320
#define HEADER_BYTES 16
#define EXPONENTS 10
#define FREQUENT 3
/* Bytes of strips that are fetched into the second cache, and into the first, before they are needed. */
#define AHEAD_OF_STRIP 4032
#define NEAR_STRIP 768
/* Bytes that may be read behind the streams: while the last two pieces are unpacked, what would follow is found out. */
#define SLACK 8192

/* The head of a piece in the second stream. */
typedef struct {
    uint8_t exponents[EXPONENTS];
    uint16_t second; /* codes of three bits */
    uint16_t third;  /* exponents behind them */
} Header;

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

static inline Header header_of(const uint8_t *piece) {
    Header header;
    memcpy(&header, piece, sizeof header);
    return header;
}

static inline int64_t second_bytes(const Header *header) { return (header->second + 63) / 64 * 24; }

static inline int64_t piece_bytes(const Header *header) {
    return HEADER_BYTES + second_bytes(header) + header->third;
}

static inline int64_t band_bytes(const Matrix *matrix) { return matrix->columns / STRIP * STRIP_BYTES; }

static inline const uint8_t *strips_of(const Matrix *matrix, int64_t band) {
    return (const uint8_t *)matrix->weight + band * band_bytes(matrix);
}

static inline const uint8_t *first_piece(const Matrix *matrix, int64_t band) {
    return (const uint8_t *)matrix->scale + ((const int64_t *)matrix->offset)[band];
}

static inline int row_of(int place) { return 4 * (place / 16) + place % 8 / 2; }
static inline int column_of(int place) { return 2 * (place % 16 / 8) + place % 2; }
static inline uint8_t rotated(uint8_t exponent) { return (uint8_t)(exponent << 7 | exponent >> 1); }
static inline uint8_t exponent_of(uint16_t bits) { return (uint8_t)(bits >> 7); }

/* What a piece will be packed with. */
static Header choose(const uint16_t *weights, int64_t stride, int64_t columns) {
    /* Four tables, since neighbours are often equal and an addition would wait for the one before. */
    uint16_t counts[4][256] = {{0}};
    for (int64_t row = 0; row < BAND; row++)
        for (int64_t i = 0; i < columns; i += 4)
            for (int k = 0; k < 4; k++) counts[k][exponent_of(weights[row * stride + i + k])]++;
    for (int e = 0; e < 256; e++) counts[0][e] += counts[1][e] + counts[2][e] + counts[3][e];
    Header header;
    int64_t left = BAND * columns;
    for (int k = 0; k < EXPONENTS; k++) {
        int best = 0;
        for (int e = 1; e < 256; e++)
            if (counts[0][e] > counts[0][best]) best = e;
        header.exponents[k] = (uint8_t)best;
        left -= counts[0][best];
        counts[0][best] = 0;
        if (k == FREQUENT - 1) header.second = (uint16_t)left;
    }
    header.third = (uint16_t)left;
    return header;
}

/* `pack_piece` has two forms. strips: of this piece; zeroed. piece: `piece_bytes` of the header, zeroed. */

#if FAST_PACKED

/* What codes of two bits leave open in a piece, while it is found out. */
typedef struct {
    const uint8_t *codes;
    const uint8_t *third;
    const uint8_t *end;
    int64_t left; /* 64 codes each; below zero behind the last */
    __m512i exponents;
    __m512i frequent; /* those of codes of two bits, four times four bytes */
    uint8_t *out;
} Rest;

INLINE Rest open_rest(const uint8_t *piece, uint8_t *out) {
    const Header header = header_of(piece);
    const __m512i head = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)piece));
    const uint8_t *codes = piece + HEADER_BYTES;
    Rest rest = {.codes = codes,
                 .third = codes + second_bytes(&header),
                 .end = piece + piece_bytes(&header),
                 .left = second_bytes(&header) / 24,
                 .exponents = _mm512_shuffle_epi8(head, _mm512_set1_epi64(0x0908070605040300)),
                 .frequent = _mm512_shuffle_epi8(head, _mm512_set1_epi32(0x02010000)),
                 .out = out};
    return rest;
}

/* Bytes of a table for codes, and from `others`, in order, where a code is zero; moves `others` on. */
INLINE __m512i looked_up(__m512i codes, __m512i table, __m512i used_bits, const uint8_t **others) {
    const __mmask64 zero = _mm512_testn_epi8_mask(codes, used_bits);
    const __m512i found = _mm512_permutexvar_epi8(codes, table);
    const __m512i next = _mm512_loadu_si512(*others);
    *others += __builtin_popcountll(zero);
    return _mm512_mask_expand_epi8(found, zero, next);
}

/* Sixty-four more exponents. */
INLINE void continue_rest(Rest *rest) {
    /* Three bytes to each eight, then three bits to each byte. */
    const __m512i spread = _mm512_set_epi64(0x171615, 0x141312, 0x11100f, 0x0e0d0c, 0x0b0a09, 0x080706, 0x050403,
                                            0x020100);
    const __m512i windows = _mm512_set1_epi64(0x15120f0c09060300);
    _mm_prefetch((const char *)rest->codes + 1024, _MM_HINT_T0);
    const __m512i bytes = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)rest->codes));
    const __m512i codes = _mm512_multishift_epi64_epi8(windows, _mm512_permutexvar_epi8(spread, bytes));
    _mm512_storeu_si512(rest->out, looked_up(codes, rest->exponents, _mm512_set1_epi8(7), &rest->third));
    rest->codes += 24;
    rest->out += 64;
    rest->left--;
}

/* Unpacking of bands in their order, a block at a time. While the blocks of a piece are unpacked, the exponents of
   the next are found out. The two places for exponents differ in their low bits, by which the processor tells what
   it writes from what it reads. */
typedef uint8_t Exponents[BAND * SPAN + 2048];

typedef struct {
    const uint8_t *strip;
    const uint8_t *open; /* exponents of this piece that codes of two bits leave open, from here on */
    __m512i frequent;
    Rest rest; /* of the next piece */
    Exponents *places;
    int place;
} Unpacking;

INLINE Unpacking begin_unpacking(const Matrix *matrix, int64_t band, Exponents *places) {
    Unpacking state = {.strip = strips_of(matrix, band), .places = places};
    state.rest = open_rest(first_piece(matrix, band), places[0]);
    return state;
}

/* Go on to the piece that begins with column `begin`, of the last band or another; returns where it ends. */
INLINE int64_t next_piece(Unpacking *state, const Matrix *matrix, int64_t begin, int is_last_band) {
    const int64_t end = smaller(begin + SPAN, matrix->columns);
    while (state->rest.left > 0) continue_rest(&state->rest);
    state->frequent = state->rest.frequent;
    state->open = state->places[state->place];
    state->place ^= 1;
    if (end < matrix->columns || !is_last_band) state->rest = open_rest(state->rest.end, state->places[state->place]);
    return end;
}

/* The next block, which is number `index` of its strip: for each of 16 rows a pair of columns, then the next pair. */
INLINE void unpack_block(Unpacking *state, const int index, __m512i *pairs) {
    const __m512i shifts = _mm512_set_epi32(6, 6, 6, 6, 4, 4, 4, 4, 2, 2, 2, 2, 0, 0, 0, 0);
    const __m512i mantissa = _mm512_set1_epi8(0x7f);
    const uint8_t *strip = state->strip;
    for (int line = 0; line < STRIP_BYTES && index == 0; line += 64) {
        _mm_prefetch((const char *)strip + AHEAD_OF_STRIP + line, _MM_HINT_T1);
        _mm_prefetch((const char *)strip + NEAR_STRIP + line, _MM_HINT_T0);
    }
    const __m128i twos = _mm_loadu_si128((const __m128i *)(strip + 16 * index));
    const __m512i codes = _mm512_srlv_epi32(_mm512_broadcast_i32x4(twos), shifts);
    const __m512i exponents = looked_up(codes, state->frequent, _mm512_set1_epi8(3), &state->open);
    const __m512i rests = _mm512_loadu_si512(strip + 64 + 64 * index);
    /* Bits of the one where the mask is set, of the other elsewhere. */
    const __m512i high = _mm512_ternarylogic_epi32(mantissa, exponents, rests, 0xca);
    const __m512i low = _mm512_ternarylogic_epi32(mantissa, rests, exponents, 0xca);
    pairs[0] = _mm512_unpacklo_epi8(low, high);
    pairs[1] = _mm512_unpackhi_epi8(low, high);
    if (index == 3) {
        state->strip += STRIP_BYTES;
        /* Also where none are left: what is found out then is not read, and costs less than asking. */
        continue_rest(&state->rest);
    }
}

/* Sixteen vectors of sixteen four-byte numbers, turned. */
static inline void turn(__m512i *rows) {
    __m512i half[16];
    for (int i = 0; i < 16; i += 2) {
        half[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        half[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            rows[i + 2 * j] = _mm512_unpacklo_epi64(half[i + j], half[i + j + 2]);
            rows[i + 2 * j + 1] = _mm512_unpackhi_epi64(half[i + j], half[i + j + 2]);
        }
    for (int j = 0; j < 4; j++) {
        __m512i a = _mm512_shuffle_i32x4(rows[j], rows[4 + j], 0x88);
        __m512i b = _mm512_shuffle_i32x4(rows[8 + j], rows[12 + j], 0x88);
        __m512i c = _mm512_shuffle_i32x4(rows[j], rows[4 + j], 0xdd);
        __m512i d = _mm512_shuffle_i32x4(rows[8 + j], rows[12 + j], 0xdd);
        rows[j] = _mm512_shuffle_i32x4(a, b, 0x88);
        rows[4 + j] = _mm512_shuffle_i32x4(c, d, 0x88);
        rows[8 + j] = _mm512_shuffle_i32x4(a, b, 0xdd);
        rows[12 + j] = _mm512_shuffle_i32x4(c, d, 0xdd);
    }
}

/* Codes from 1 on of bytes that are in a table, else 0. */
INLINE __m512i codes_in(__m512i bytes, const uint8_t *table, const int count) {
    __m512i codes = _mm512_setzero_si512();
    for (int k = 0; k < count; k++) {
        const __mmask64 same = _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8((char)table[k]));
        codes = _mm512_mask_mov_epi8(codes, same, _mm512_set1_epi8((char)(k + 1)));
    }
    return codes;
}

/* Keep, in order, the bytes whose code is zero; moves `others` on. */
INLINE void keep_others(__m512i bytes, __mmask64 zero, uint8_t **others) {
    const int count = __builtin_popcountll(zero);
    const __mmask64 kept = count == 64 ? ~0ull : (1ull << count) - 1;
    _mm512_mask_storeu_epi8(*others, kept, _mm512_maskz_compress_epi8(zero, bytes));
    *others += count;
}

static void pack_piece(const uint16_t *weights, int64_t stride, int64_t columns, Header header, uint8_t *strips,
                      uint8_t *piece) {
    const __m512i shifts = _mm512_set_epi32(6, 6, 6, 6, 4, 4, 4, 4, 2, 2, 2, 2, 0, 0, 0, 0);
    const __m512i mantissa = _mm512_set1_epi8(0x7f), low_byte = _mm512_set1_epi16(0xff);
    uint8_t exponents[BAND * SPAN + 64], *end = exponents;
    for (int k = 0; k < EXPONENTS; k++) header.exponents[k] = rotated(header.exponents[k]);
    memcpy(piece, &header, sizeof header);
    for (int64_t i = 0; i < columns; i += 2 * STRIP) {
        __m512i pairs[16];
        for (int row = 0; row < BAND; row++) pairs[row] = _mm512_loadu_si512(weights + row * stride + i);
        turn(pairs);
        for (int block = 0; block < 8; block++) {
            uint8_t *strip = strips + (i / STRIP + block / 4) * STRIP_BYTES;
            const __m512i first = pairs[2 * block], second = pairs[2 * block + 1];
            const __m512i low = _mm512_packus_epi16(_mm512_and_si512(first, low_byte), _mm512_and_si512(second, low_byte));
            const __m512i high = _mm512_packus_epi16(_mm512_srli_epi16(first, 8), _mm512_srli_epi16(second, 8));
            const __m512i own = _mm512_ternarylogic_epi32(mantissa, high, low, 0xca);
            const __m512i codes = codes_in(own, header.exponents, FREQUENT);
            const __m512i placed = _mm512_sllv_epi32(codes, shifts);
            const __m256i half = _mm256_or_si256(_mm512_castsi512_si256(placed), _mm512_extracti64x4_epi64(placed, 1));
            _mm_storeu_si128((__m128i *)(strip + 16 * (block % 4)),
                             _mm_or_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1)));
            _mm512_storeu_si512(strip + 64 + 64 * (block % 4), _mm512_ternarylogic_epi32(mantissa, low, high, 0xca));
            keep_others(own, _mm512_testn_epi8_mask(codes, codes), &end);
        }
    }
    uint8_t *out = piece + HEADER_BYTES, *third = out + second_bytes(&header);
    for (const uint8_t *next = exponents; next < end; next += 64) {
        const __mmask64 used = end - next >= 64 ? ~0ull : (1ull << (end - next)) - 1;
        const __m512i own = _mm512_maskz_loadu_epi8(used, next);
        const __m512i codes = _mm512_maskz_mov_epi8(used, codes_in(own, header.exponents + FREQUENT, EXPONENTS - FREQUENT));
        keep_others(own, _mm512_mask_testn_epi8_mask(used, codes, codes), &third);
        uint64_t eights[8];
        _mm512_storeu_si512(eights, codes);
        for (int k = 0; k < 8; k++, out += 3) {
            const uint64_t packed = _pext_u64(eights[k], 0x0707070707070707);
            memcpy(out, &packed, 3);
        }
    }
}

#else

static void pack_piece(const uint16_t *weights, int64_t stride, int64_t columns, Header header, uint8_t *strips,
                       uint8_t *piece) {
    uint8_t first[256] = {0}, second[256] = {0}, *codes = piece + HEADER_BYTES;
    uint8_t *third = codes + second_bytes(&header);
    for (int k = 0; k < FREQUENT; k++) first[header.exponents[k]] = (uint8_t)(k + 1);
    for (int k = FREQUENT; k < EXPONENTS; k++) second[header.exponents[k]] = (uint8_t)(k - FREQUENT + 1);
    int64_t found = 0;
    uint32_t pending = 0; /* eight codes */
    for (int64_t block = 0; block < columns / 4; block++) {
        uint8_t *twos = strips + block / 4 * STRIP_BYTES + 16 * (block % 4);
        uint8_t *rests = strips + block / 4 * STRIP_BYTES + 64 + 64 * (block % 4);
        for (int p = 0; p < 64; p++) {
            uint16_t bits = weights[row_of(p) * stride + 4 * block + column_of(p)];
            uint8_t exponent = exponent_of(bits), code = first[exponent];
            rests[p] = (uint8_t)((bits >> 8 & 0x80) | (bits & 0x7f));
            twos[p % 16] |= (uint8_t)(code << 2 * (p / 16));
            if (code) continue;
            code = second[exponent];
            if (!code) *third++ = rotated(exponent);
            pending |= (uint32_t)code << 3 * (found % 8);
            if (++found % 8 == 0) {
                memcpy(codes + found / 8 * 3 - 3, &pending, 3);
                pending = 0;
            }
        }
    }
    if (found % 8) memcpy(codes + found / 8 * 3, &pending, 3);
    for (int k = 0; k < EXPONENTS; k++) header.exponents[k] = rotated(header.exponents[k]);
    memcpy(piece, &header, sizeof header);
}

/* Unpack one piece. out: (BAND, stride). Returns the next piece. */
static const uint8_t *unpack_piece(const uint8_t *strips, const uint8_t *piece, int64_t columns, uint16_t *out,
                                   int64_t stride) {
    const Header header = header_of(piece);
    const uint8_t *codes = piece + HEADER_BYTES, *third = codes + second_bytes(&header);
    int64_t found = 0;
    for (int64_t block = 0; block < columns / 4; block++) {
        const uint8_t *twos = strips + block / 4 * STRIP_BYTES + 16 * (block % 4);
        const uint8_t *rests = strips + block / 4 * STRIP_BYTES + 64 + 64 * (block % 4);
        for (int p = 0; p < 64; p++) {
            uint8_t code = twos[p % 16] >> 2 * (p / 16) & 3, exponent;
            if (code)
                exponent = header.exponents[code - 1];
            else {
                uint32_t bits = 0;
                memcpy(&bits, codes + found / 8 * 3, 3);
                code = bits >> 3 * (found++ % 8) & 7;
                exponent = code ? header.exponents[FREQUENT + code - 1] : *third++;
            }
            uint16_t high = (uint16_t)((rests[p] & 0x80) | (exponent & 0x7f));
            out[row_of(p) * stride + 4 * block + column_of(p)] =
                (uint16_t)(high << 8 | (exponent & 0x80) | (rests[p] & 0x7f));
        }
    }
    return piece + piece_bytes(&header);
}

#endif

/* The weights of one band. out: (BAND, columns). */
static void unpack_band(const Matrix *matrix, int64_t band, uint16_t *out) {
    const int64_t columns = matrix->columns;
#if FAST_PACKED
    Exponents places[2];
    Unpacking state = begin_unpacking(matrix, band, places);
    for (int64_t i = 0; i < columns;)
        for (const int64_t end = next_piece(&state, matrix, i, 1); i < end; i += 2 * STRIP) {
            __m512i pairs[16];
            for (int block = 0; block < 8; block++) unpack_block(&state, block % 4, pairs + 2 * block);
            turn(pairs);
            for (int row = 0; row < BAND; row++) _mm512_storeu_si512(out + row * columns + i, pairs[row]);
        }
#else
    const uint8_t *strips = strips_of(matrix, band), *piece = first_piece(matrix, band);
    for (int64_t i = 0; i < columns; i += SPAN)
        piece = unpack_piece(strips + i / STRIP * STRIP_BYTES, piece, smaller(SPAN, columns - i), out + i, columns);
#endif
}

#endif
