/* Looks for cliffs: sizes at which a training step takes suddenly longer than at the size next to it. Nets n-n-n of all
   widths n at batch 32, then a net 256-256-10 at all batch sizes; SGD and residual partitioning.

       cc -O2 -o sweep bench/sweep.c -lm && ./sweep --help */
#define _POSIX_C_SOURCE 200809L
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "measure.h"
#include "tasks.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIZES = 130 };
typedef struct step {
    rp_net *net;
    rp_optimizer optimizer;
    rp_data data;
} step;

static void run_step(void *context) {
    step *s = (step *)context;
    if (rp_train(s->net, &s->optimizer, &s->data, NULL)) exit(1);
}

static task task_of_size(int batches, int n) {
    task width = {"width", 32, {n, n, n}, RP_RELU, 1, NULL}, batch = {"batch", n, {256, 256, 10}, RP_RELU, 1, NULL};
    return batches ? batch : width;
}

/* The largest ratios: of a time to that of the size before; of a time to that of the size behind; and of the times per
   useful multiply-add of a size and the one before. */
static void print_worst(const measurement *m, const double *work) {
    double worst[3] = {0, 0, 0};
    int at[3] = {0, 0, 0};
    for (int i = 1; i < SIZES; i++) {
        double ratio = measure_ratio(&m[i], &m[i - 1]);
        double ratios[3] = {ratio, 1 / ratio, ratio * work[i - 1] / work[i]};
        for (int k = 0; k < 3; k++)
            if (ratios[k] > worst[k]) worst[k] = ratios[k], at[k] = k == 1 ? i : i + 1;
    }
    printf(" time_vs_smaller=%.3f at=%d time_vs_larger=%.3f at=%d", worst[0], at[0], worst[1], at[1]);
    printf(" cost_vs_smaller=%.3f at=%d\n", worst[2], at[2]);
}

static void sweep(int batches, int method, int every, double seconds) {
    static measurement m[SIZES];
    step steps[SIZES];
    double work[SIZES];
    for (int i = 0; i < SIZES; i++) {
        task t = task_of_size(batches, i + 1);
        steps[i].net = task_net(&t, RP_ISA_AUTO, 1), steps[i].data = task_data(&t);
        steps[i].optimizer = methods[method].make((rp_real)1e-9);
        m[i].run = run_step, m[i].context = &steps[i];
        work[i] = task_flops(&t, methods[method].first_products, methods[method].products);
    }
    measure(m, SIZES, seconds, 2e-4);
    for (int i = 0; i < SIZES && every; i++)
        printf("size %s=%d optimizer=%s us=%.2f gflops=%.2f\n", batches ? "batch" : "width", i + 1,
               methods[method].name, 1e6 * measure_median(&m[i]), work[i] / measure_median(&m[i]) / 1e9);
    printf("sweep %s=1..%d optimizer=%s isa=%s", batches ? "net=256-256-10 batch" : "net=n-n-n batch=32 n", SIZES,
           methods[method].name, rp_isa(steps[0].net));
    print_worst(m, work);
    fflush(stdout);
    for (int i = 0; i < SIZES; i++) {
        rp_net_free(steps[i].net);
        free((void *)steps[i].data.inputs), free((void *)steps[i].data.labels);
    }
}

static int usage(const char *wrong) {
    FILE *to = wrong ? stderr : stdout;
    if (wrong) fprintf(to, "sweep: %s is not an option, or has no good value\n", wrong);
    fprintf(to, "usage: sweep [--all] [--seconds N]\n"
                "  --all        every size, not only the worst\n"
                "  --seconds N  for each of four sweeps (5)\n"
                "time: ratio of a size's time to its neighbour's; cost: the same per useful multiply-add.\n"
                "The environment's RP_ISA chooses the instruction set.\n");
    return wrong ? 2 : 0;
}

int main(int argc, char **argv) {
    int every = 0;
    double seconds = 5;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help")) return usage(NULL);
        if (!strcmp(argv[i], "--all")) every = 1;
        else if (strcmp(argv[i], "--seconds") || i + 1 == argc) return usage(argv[i]);
        else if ((seconds = atof(argv[++i])) <= 0) return usage(argv[i]);
    }
    for (int batches = 0; batches < 2; batches++)
        for (int method = SGD; method <= RP; method += RP - SGD) sweep(batches, method, every, seconds);
    return 0;
}
