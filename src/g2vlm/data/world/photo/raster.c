/* Depth and nearest triangle of every pixel, by homogeneous rasterisation: a ray r = ((u-cx)/fx, (v-cy)/fy, 1) meets
   the plane of the triangle (a, b, c) at t r with t = det / (e0 + e1 + e2), e0 = r.(b x c), e1 = r.(c x a),
   e2 = r.(a x b), det = a.(b x c), and inside it where all e have the sign of det (Olano and Greer 1997). No clipping
   is needed, and t is the exact z-depth at the middle of the pixel. */
#include <math.h>
#include <stdint.h>

typedef struct { float x, y, z; } vec;
static inline vec cross(vec a, vec b) { return (vec){a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x}; }
static inline float dot(vec a, vec b) { return a.x * b.x + a.y * b.y + a.z * b.z; }

/* Smallest rectangle of pixels around the part of a triangle beyond the near plane; 0 if there is none. */
static int bounds(const vec *p, const float *K, float near, int height, int width, int *box) {
    float low_u = 1e30f, high_u = -1e30f, low_v = 1e30f, high_v = -1e30f;
    for (int i = 0; i < 3; i++) {
        vec a = p[i], b = p[(i + 1) % 3];
        for (int part = 0; part < 2; part++) {
            vec q = a;
            if (part == 0 && a.z < near) continue;
            if (part == 1) {
                if ((a.z < near) == (b.z < near)) continue;
                float s = (near - a.z) / (b.z - a.z);
                q = (vec){a.x + s * (b.x - a.x), a.y + s * (b.y - a.y), near};
            }
            float u = K[0] * q.x / q.z + K[2], v = K[1] * q.y / q.z + K[3];
            low_u = fminf(low_u, u), high_u = fmaxf(high_u, u), low_v = fminf(low_v, v), high_v = fmaxf(high_v, v);
        }
    }
    if (!(low_u <= width && high_u >= -1.0f && low_v <= height && high_v >= -1.0f)) return 0;
    /* A pixel of margin absorbs rounding; the test at the pixel decides. */
    box[0] = (int)fmaxf(0.0f, floorf(fmaxf(low_u, 0.0f) - 0.01f)), box[1] = (int)fminf(width - 1.0f, ceilf(fminf(high_u, width) + 0.01f));
    box[2] = (int)fmaxf(0.0f, floorf(fmaxf(low_v, 0.0f) - 0.01f)), box[3] = (int)fminf(height - 1.0f, ceilf(fminf(high_v, height) + 0.01f));
    return box[0] <= box[1] && box[2] <= box[3];
}

/* views: world-to-camera 3x4 rows; K: fx, fy, cx, cy; alpha: first texel of a texture with holes, or -1. */
void g2vlm_raster(const float *triangles, const float *uv, const int64_t *alpha, const int32_t *side,
                  const uint8_t *texels, int64_t first, int64_t end, const float *view, const float *K, int height,
                  int width, float near, float *depth, int32_t *index) {
    for (int64_t k = first; k < end; k++) {
        const float *t = triangles + 9 * k;
        vec p[3];
        int behind = 0;
        for (int i = 0; i < 3; i++, t += 3) {
            p[i].x = view[0] * t[0] + view[1] * t[1] + view[2] * t[2] + view[3];
            p[i].y = view[4] * t[0] + view[5] * t[1] + view[6] * t[2] + view[7];
            p[i].z = view[8] * t[0] + view[9] * t[1] + view[10] * t[2] + view[11];
            behind += p[i].z < near;
        }
        int box[4];
        if (behind == 3 || !bounds(p, K, near, height, width, box)) continue;
        vec e[3] = {cross(p[1], p[2]), cross(p[2], p[0]), cross(p[0], p[1])};
        float det = dot(p[0], e[0]);
        if (fabsf(det) < 1e-12f) continue;
        float inverse = 1.0f / det;
        for (int i = 0; i < 3; i++) e[i] = (vec){e[i].x * inverse, e[i].y * inverse, e[i].z * inverse};
        float step0 = e[0].x / K[0], step1 = e[1].x / K[0], step2 = e[2].x / K[0];
        for (int v = box[2]; v <= box[3]; v++) {
            float x = (box[0] - K[2]) / K[0], y = (v - K[3]) / K[1];
            float w0 = e[0].x * x + e[0].y * y + e[0].z, w1 = e[1].x * x + e[1].y * y + e[1].z,
                  w2 = e[2].x * x + e[2].y * y + e[2].z;
            float *row = depth + (int64_t)v * width + box[0];
            int32_t *owner = index ? index + (int64_t)v * width + box[0] : 0;
            int count = box[1] - box[0] + 1;
            if (alpha && alpha[k] >= 0) {
                for (int u = 0; u < count; u++) {
                    float a = w0 + u * step0, b = w1 + u * step1, c = w2 + u * step2, sum = a + b + c;
                    if (a < 0 || b < 0 || c < 0 || !(sum * row[u] > 1.0f) || sum * near > 1.0f) continue;
                    const float *q = uv + 6 * k;
                    float s = (a * q[0] + b * q[2] + c * q[4]) / sum, r = (a * q[1] + b * q[3] + c * q[5]) / sum;
                    int n = side[k], i = (int)floorf(s * n) & (n - 1), j = (int)floorf(r * n) & (n - 1);
                    if (texels[4 * (alpha[k] + (int64_t)j * n + i) + 3] < 128) continue;
                    row[u] = 1.0f / sum;
                    if (owner) owner[u] = (int32_t)k;
                }
            } else if (owner) {
                for (int u = 0; u < count; u++) {
                    float a = w0 + u * step0, b = w1 + u * step1, c = w2 + u * step2, sum = a + b + c;
                    int hit = (a >= 0) & (b >= 0) & (c >= 0) & (sum * row[u] > 1.0f) & (sum * near <= 1.0f);
                    row[u] = hit ? 1.0f / sum : row[u];
                    owner[u] = hit ? (int32_t)k : owner[u];
                }
            } else {
                for (int u = 0; u < count; u++) {
                    float a = w0 + u * step0, b = w1 + u * step1, c = w2 + u * step2, sum = a + b + c;
                    int hit = (a >= 0) & (b >= 0) & (c >= 0) & (sum * row[u] > 1.0f) & (sum * near <= 1.0f);
                    row[u] = hit ? 1.0f / sum : row[u];
                }
            }
        }
    }
}
