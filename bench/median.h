/* median.h - the middle one of some numbers, which are sorted for it; of an even count the larger of the two. */
#ifndef MEDIAN_H
#define MEDIAN_H
#include <stdlib.h>

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double median(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, by_value);
    return values[count / 2];
}
#endif
