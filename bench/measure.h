/* measure.h - times several things fairly on a machine that is never quite quiet: they take turns, in rounds of short
   runs, so that noise hits all alike. Of each the median counts; two are compared by the median of their ratios within
   the rounds. Needs POSIX clocks: define _POSIX_C_SOURCE before the first include. */
#ifndef MEASURE_H
#define MEASURE_H
#include "median.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MEASURE_ROUNDS = 1000, MEASURE_LEAST_ROUNDS = 7 };

typedef struct measurement {
    void (*run)(void *context);
    void *context;
    int repeats, rounds;
    double times[MEASURE_ROUNDS]; /* of one call, in seconds */
} measurement;

static double measure_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double measure_run(const measurement *m) {
    double start = measure_clock();
    for (int i = 0; i < m->repeats; i++) m->run(m->context);
    return (measure_clock() - start) / m->repeats;
}

/* Rounds until the time is over, of runs that last `run` seconds, at least one call. The call before each run brings
   its memory back into the caches. */
static void measure(measurement *list, int count, double seconds, double run) {
    double end = measure_clock() + seconds;
    for (int i = 0; i < count; i++) {
        measurement *m = &list[i];
        m->repeats = 1, m->rounds = 0;
        m->run(m->context);
        double repeats = run / (measure_run(m) + 1e-9);
        m->repeats = repeats < 1 ? 1 : (int)repeats;
    }
    for (int round = 0; round < MEASURE_ROUNDS && (round < MEASURE_LEAST_ROUNDS || measure_clock() < end); round++)
        for (int i = 0; i < count; i++) {
            list[i].run(list[i].context);
            list[i].times[list[i].rounds++] = measure_run(&list[i]);
        }
}

/* How many times as long m takes as `other`, which took turns with it. */
static inline double measure_ratio(const measurement *m, const measurement *other) {
    double ratios[MEASURE_ROUNDS];
    for (int i = 0; i < m->rounds; i++) ratios[i] = m->times[i] / other->times[i];
    return median(ratios, m->rounds);
}
static inline double measure_median(const measurement *m) {
    double sorted[MEASURE_ROUNDS];
    for (int i = 0; i < m->rounds; i++) sorted[i] = m->times[i];
    return median(sorted, m->rounds);
}
static inline double measure_least(const measurement *m) {
    double least = m->times[0];
    for (int i = 1; i < m->rounds; i++)
        if (m->times[i] < least) least = m->times[i];
    return least;
}

/* The end of a line on ours and a peer's. */
static inline void measure_print_pair(const measurement *ours, const char *name, const measurement *theirs) {
    printf(" us=%.2f %s_us=%.2f", 1e6 * measure_median(ours), name, 1e6 * measure_median(theirs));
    printf(" ratio=%.2f", measure_ratio(theirs, ours));
    printf(" ratio_of_least=%.2f\n", measure_least(theirs) / measure_least(ours));
}
#endif
