/* digits.h - handwritten-looking digits drawn by the program itself: a data set of any size that needs no file.

   digits_draw(seed, count, images, labels) draws `count` grey images of 28 x 28, from -1 (paper) to 1 (ink), in MNIST's
   layout. Image i shows the digit i % 10 and depends only on (seed, i): drawing more never changes the first ones, and
   the tail of a set serves to validate what was learned from its head. About 40,000 images per second. Include it after
   rp.h, of which it takes rp_real. */
#ifndef DIGITS_H
#define DIGITS_H
#include "random.h"
#include <math.h>
#include <stddef.h>
#include <stdint.h>

enum { DIGITS_SIDE = 28, DIGITS_SIZE = DIGITS_SIDE * DIGITS_SIDE, DIGITS_POINTS = 16, DIGITS_VARIANTS = 4 };

/* How a digit may be written: points on a grid (column and row, 0 to 9 from the top left) that the pen passes through
   smoothly. A point that comes twice is a corner; after a bar the pen starts anew. NULL: no further variant. */
static const char *const digits_glyphs[10][DIGITS_VARIANTS] = {
    {"50 12 05 18 59 87 94 82 50", "72 40 12 06 28 59 87 94 81 50 31", "60 22 05 08 39 77 94 91 60", NULL},
    {"50 59", "22 50 50 59", "22 50 50 59|29 79", NULL},
    {"12 30 70 92 74 46 09 09 99", "13 20 60 82 64 37 19 07 17 48 98", "02 20 60 93 66 09 09 57 99", NULL},
    {"11 40 81 83 44 44 86 98 59 08", "00 90 90 54 54 86 97 69 28 07", "02 20 70 82 64 34 64 96 98 59 19 07", NULL},
    {"20 05 05 95|70 69", "60 06 06 96|60 69", "20 14 35 85|80 84 79", "71 05 06 46 95|71 64 59"},
    {"90 20 20 14 14 53 85 87 59 08", "20 14 14 53 85 97 69 08|20 90", "80 10 10 04 04 44 86 78 39 09", NULL},
    {"80 41 15 18 49 88 96 64 25 07", "60 23 07 29 69 87 75 35 17", "40 12 06 29 79 96 75 26 08", NULL},
    {"00 90 90 63 49", "00 90 90 63 49|24 84", "02 00 00 90 90 52 39", "11 40 90 90 53 49"},
    {"82 60 20 12 44 87 79 29 06 45 82", "50 11 23 54 83 81 50|54 16 18 59 88 86 54",
     "71 40 12 34 76 78 39 17 46 73 71", NULL},
    {"81 40 12 14 45 83 81 81 79", "81 40 12 14 45 83 81 81 87 59 18", "80 40 13 35 73 80 80 64 49", NULL},
};

typedef struct digits_pen {
    uint64_t random;
    float xx, xy, yx, yy, x, y;  /* from grid to pixels: (xx gx + xy gy + x, yx gx + yy gy + y) */
    float wobble;                /* standard deviation of a point's own displacement, in cells of the grid */
    float reach;                 /* pixels farther than this from every stroke stay blank */
    float distance[DIGITS_SIZE]; /* squared, to the nearest stroke */
} digits_pen;

static float digits_bell(uint64_t *random, float deviation) { /* mean 0, nearly normal, at most three deviations */
    float sum = 0;
    for (int i = 0; i < 3; i++) sum += random_uniform(random, -1, 1);
    return deviation * sum;
}

static float digits_clamp(float x, float low, float high) {
    if (x < low) return low;
    return x > high ? high : x;
}

/* Lowers the distances around the straight line from a to b. */
static void digits_line(digits_pen *pen, const float a[2], const float b[2]) {
    int low[2], high[2];
    float step[2] = {b[0] - a[0], b[1] - a[1]}, length = step[0] * step[0] + step[1] * step[1] + 1e-12f;
    for (int k = 0; k < 2; k++) {
        float first = a[k] < b[k] ? a[k] : b[k], last = a[k] < b[k] ? b[k] : a[k];
        low[k] = (int)digits_clamp(first - pen->reach + 1, 0, DIGITS_SIDE);
        high[k] = (int)digits_clamp(last + pen->reach + 1, 0, DIGITS_SIDE);
    }
    for (int row = low[1]; row < high[1]; row++) {
        for (int column = low[0]; column < high[0]; column++) {
            float *nearest = &pen->distance[row * DIGITS_SIDE + column];
            float x = (float)column - a[0], y = (float)row - a[1];
            float along = digits_clamp((x * step[0] + y * step[1]) / length, 0, 1);
            float dx = x - along * step[0], dy = y - along * step[1], distance = dx * dx + dy * dy;
            if (distance < *nearest) *nearest = distance;
        }
    }
}

/* A smooth curve through the points (Catmull-Rom), in short lines. */
static void digits_stroke(digits_pen *pen, float points[][2], int count) {
    const int lines = 5;
    float from[2] = {points[0][0], points[0][1]}, to[2];
    for (int i = 0; i + 1 < count; i++) {
        const float *p = points[i], *q = points[i + 1];
        const float *before = i ? points[i - 1] : p, *after = i + 2 < count ? points[i + 2] : q;
        if (p[0] == q[0] && p[1] == q[1]) continue;
        for (int line = 1; line <= lines; line++) {
            float t = (float)line / (float)lines;
            for (int k = 0; k < 2; k++) {
                float bend = 2 * before[k] - 5 * p[k] + 4 * q[k] - after[k];
                float twist = 3 * (p[k] - q[k]) + after[k] - before[k];
                to[k] = p[k] + 0.5f * t * (q[k] - before[k] + t * (bend + t * twist));
            }
            digits_line(pen, from, to);
            from[0] = to[0];
            from[1] = to[1];
        }
    }
}

static void digits_glyph(digits_pen *pen, const char *glyph) {
    float points[DIGITS_POINTS][2];
    int count = 0;
    for (;; glyph += 3) {
        int corner = count > 0 && glyph[0] == glyph[-3] && glyph[1] == glyph[-2];
        float gx = (float)(glyph[0] - '0') - 4.5f + digits_bell(&pen->random, pen->wobble);
        float gy = (float)(glyph[1] - '0') - 4.5f + digits_bell(&pen->random, pen->wobble);
        float *point = points[count++];
        point[0] = corner ? point[-2] : pen->xx * gx + pen->xy * gy + pen->x;
        point[1] = corner ? point[-1] : pen->yx * gx + pen->yy * gy + pen->y;
        if (glyph[2] == ' ') continue;
        digits_stroke(pen, points, count);
        count = 0;
        if (!glyph[2]) return;
    }
}

/* Turns, slants, scales and shifts the grid. A column is about 1.4 pixels wide, a row about 2.1 high. */
static void digits_place(digits_pen *pen) {
    float angle = digits_bell(&pen->random, 0.1f), slant = digits_bell(&pen->random, 0.22f);
    float sine = angle - angle * angle * angle / 6, cosine = 1 - angle * angle / 2; /* the same on every machine */
    float height = random_uniform(&pen->random, 1.85f, 2.3f);
    float width = height * random_uniform(&pen->random, 0.5f, 0.85f);
    pen->xx = width * cosine;
    pen->xy = -height * (sine + slant * cosine);
    pen->yx = width * sine;
    pen->yy = height * (cosine - slant * sine);
    pen->x = 13.5f + digits_bell(&pen->random, 0.6f);
    pen->y = 13.5f + digits_bell(&pen->random, 0.6f);
}

static void digits_image(uint64_t seed, int index, rp_real *image) {
    digits_pen pen;
    int variants = 0;
    pen.random = seed;
    pen.random = random_bits(&pen.random) ^ (uint64_t)index;
    while (variants < DIGITS_VARIANTS && digits_glyphs[index % 10][variants]) variants++;
    const char *glyph = digits_glyphs[index % 10][random_bits(&pen.random) % (uint64_t)variants];

    float radius = random_uniform(&pen.random, 0.6f, 1.7f), edge = random_uniform(&pen.random, 0.9f, 1.6f);
    float noise = random_uniform(&pen.random, 0, 0.06f);
    pen.wobble = random_uniform(&pen.random, 0.1f, 0.55f);
    pen.reach = radius + edge / 2;
    for (int i = 0; i < DIGITS_SIZE; i++) pen.distance[i] = pen.reach * pen.reach;
    digits_place(&pen);
    digits_glyph(&pen, glyph);
    for (int i = 0; i < DIGITS_SIZE; i++) {
        float ink = digits_clamp((pen.reach - sqrtf(pen.distance[i])) / edge, 0, 1);
        ink = digits_clamp(ink + random_uniform(&pen.random, -noise, noise), 0, 1);
        image[i] = (rp_real)(2 * (int)(255 * ink + 0.5f) - 255) / 255; /* 256 levels, as in MNIST */
    }
}

/* images [count][28 * 28], labels [count]; NULL: not wanted. */
static void digits_draw(uint64_t seed, int count, rp_real *images, int *labels) {
    for (int i = 0; i < count; i++) {
        if (images) digits_image(seed, i, images + (ptrdiff_t)i * DIGITS_SIZE);
        if (labels) labels[i] = i % 10;
    }
}
#endif
