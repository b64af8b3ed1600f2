/* curves.h - loss curves as text: by epoch, and beside that by time, so that both races can be seen. */
#ifndef CURVES_H
#define CURVES_H
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { CURVE_POINTS = 100, CURVE_WIDTH = 33, CURVE_HEIGHT = 12, CURVE_PANELS = 2 };

/* Point i is where the run was after epoch[i] epochs and seconds[i] of training: x[0] and x[1]. */
typedef struct curve {
    char mark;
    int count;
    double x[CURVE_PANELS][CURVE_POINTS], loss[CURVE_POINTS];
} curve;

static double curve_end(const curve *c, int by) { return c->count ? c->x[by][c->count - 1] : 0; }

/* The loss at x, on straight lines between the points. */
static double curve_at(const curve *c, int by, double x) {
    const double *at = c->x[by];
    int i = 1;
    if (x <= at[0] || c->count == 1) return c->loss[0];
    if (x >= at[c->count - 1]) return c->loss[c->count - 1];
    while (at[i] < x) i++;
    return c->loss[i - 1] + (c->loss[i] - c->loss[i - 1]) * (x - at[i - 1]) / (at[i] - at[i - 1]);
}

/* The first of the list is drawn on top. Losses from low to high, on a logarithmic scale. */
static void curves_paint(char panel[CURVE_HEIGHT][CURVE_WIDTH + 1], const curve *list, int count, int by, double end,
                         double low, double high) {
    for (int row = 0; row < CURVE_HEIGHT; row++) {
        memset(panel[row], ' ', CURVE_WIDTH);
        panel[row][CURVE_WIDTH] = 0;
    }
    for (const curve *c = list + count - 1; c >= list; c--)
        for (int column = 0; column < CURVE_WIDTH; column++) {
            double x = end * (column + 1) / CURVE_WIDTH, margin = end / CURVE_WIDTH / 2;
            if (x < c->x[by][0] - margin || x > curve_end(c, by) + margin) continue;
            double down = log(high / curve_at(c, by, x)) / log(high / low);
            panel[(int)(down * (CURVE_HEIGHT - 1) + 0.5)][column] = c->mark;
        }
}

static void curves_draw(const curve *list, int count) {
    char panels[CURVE_PANELS][CURVE_HEIGHT][CURVE_WIDTH + 1];
    double low = HUGE_VAL, high = 0, end[CURVE_PANELS] = {0, 0};
    for (const curve *c = list; c < list + count; c++)
        for (int i = 0; i < c->count; i++) {
            if (!(c->loss[i] > 0) || c->loss[i] > 1e30) return; /* no scale for that */
            low = fmin(low, c->loss[i]);
            high = fmax(high, c->loss[i]);
            for (int by = 0; by < CURVE_PANELS; by++) end[by] = fmax(end[by], c->x[by][i]);
        }
    if (!(low < high)) return;
    for (int by = 0; by < CURVE_PANELS; by++) curves_paint(panels[by], list, count, by, end[by], low, high);
    for (int row = 0; row < CURVE_HEIGHT; row++) {
        int labelled = row % ((CURVE_HEIGHT - 1) / 2) == 0; /* at the top, near the middle and near the bottom */
        double level = high * pow(low / high, row / (CURVE_HEIGHT - 1.0));
        if (labelled) printf("%7.3g |%s|  |%s|\n", level, panels[0][row], panels[1][row]);
        else printf("        |%s|  |%s|\n", panels[0][row], panels[1][row]);
    }
    printf("%8s 0 %*.3g epochs   0 %*.3g s\n", "", CURVE_WIDTH - 9, end[0], CURVE_WIDTH - 4, end[1]);
}
#endif
