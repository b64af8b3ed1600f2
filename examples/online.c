/* online.c - learns from a stream while it is in use: reads a sample at a time, predicts, then learns from it. What it
   has learned is in a file, so that it may be killed at any moment and started again.

       cc -O2 -I. -o online examples/online.c -lm
       ./online draw 4000 | ./online learn wave.safetensors
       ./online draw 4000 | ./online learn wave.safetensors      goes on where it was

   A sample is a line of text: INPUTS numbers, then the target. `draw` prints samples of a function that drifts. */
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "random.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INPUTS = 2, KEPT_EVERY = 100, SHOWN_EVERY = 500 };
static const char description[] = "input vector 2; dense 32; tanh; dense 32; tanh; dense 1";

static int draw(int count) {
    uint64_t random = 1;
    for (int i = 0; i < count; i++) {
        double x = (double)random_uniform(&random, -1, 1), y = (double)random_uniform(&random, -1, 1);
        printf("%.6f %.6f %.6f\n", x, y, sin(3 * x + 1e-3 * i) * y);
    }
    return 0;
}

/* The net in the file, or, if there is no such file, a new one. */
static rp_net *start(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) return rp_net_text(description, NULL);
    fclose(file);
    fprintf(stderr, "goes on with what is in %s\n", path);
    return rp_open(path, NULL);
}

static int failed(const rp_net *net) {
    fprintf(stderr, "online: %s\n", rp_error(net));
    return 1;
}

static int learn(rp_net *net, const char *path) {
    rp_optimizer optimizer = rp_adam((rp_real)0.003);
    double numbers[INPUTS + 1], error = 0, variance = 0;
    char line[200];
    int count = 0;
    if (rp_net_build(net, 1, 1) || rp_inputs(net) != INPUTS || rp_outputs(net) != 1) return failed(net);
    while (fgets(line, sizeof line, stdin)) {
        rp_real x[INPUTS], target, prediction;
        rp_data sample = rp_targeted(x, &target, 1);
        if (sscanf(line, "%lf %lf %lf", &numbers[0], &numbers[1], &numbers[2]) != INPUTS + 1) continue;
        for (int i = 0; i < INPUTS; i++) x[i] = (rp_real)numbers[i];
        target = (rp_real)numbers[INPUTS];
        if (rp_predict(net, x, 1, &prediction)) return failed(net);
        error += pow((double)(prediction - target), 2);
        variance += pow((double)target, 2);
        if (rp_train(net, &optimizer, &sample, NULL)) return failed(net);
        count++;
        if (count % KEPT_EVERY == 0 && rp_save(net, path)) return failed(net);
        if (count % SHOWN_EVERY) continue;
        printf("%6d samples: the last %d were predicted with an error of %.4f of their variance\n", count, SHOWN_EVERY,
               error / variance);
        fflush(stdout);
        error = variance = 0;
    }
    return rp_save(net, path) ? failed(net) : 0;
}

int main(int count, char **arguments) {
    if (count == 3 && !strcmp(arguments[1], "draw")) return draw(atoi(arguments[2]));
    if (count == 3 && !strcmp(arguments[1], "learn")) {
        rp_net *net = start(arguments[2]);
        int status = learn(net, arguments[2]);
        rp_net_free(net);
        return status;
    }
    fprintf(stderr, "online draw COUNT, or online learn FILE\n");
    return 1;
}
