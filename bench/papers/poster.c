/* The poster of Deep Residual Partitioning has two ways to one kind of bound: its Equation 6 takes the magnitudes of the
   exact derivatives |dy/dw| (RP_JACOBIAN), Algorithm 1 sums magnitudes over all paths through the net (RP_PATHS). How
   much tighter is the first, and what does that buy? On a regression with one output, where both are one sweep.

       cc -O2 bench/papers/poster.c -lm -o poster && ./poster results.csv

   Tightness: the curvature that a rule gives beside the exact one, g'Gg, along steps that the rule makes: what it divides
   by that was not needed. By depth, at the first weights and after training. Training: the paper's method, without
   averages, by each rule, over a grid of rates; its best, by the loss of all samples in the end; and at rate 1, the
   minimum of the bound itself.

   The CSV file has a line for each ratio (x: hidden layers, y: curvature of the bound by g'Gg) and each step of the best
   rate (x: step, y: loss). --quick: fewer depths, steps and seeds. The full run takes some 2 minutes. */
#define RP_IMPLEMENTATION
#include "../../rp.h"
#include "../../examples/random.h"
#include "../median.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { INPUTS = 4, SAMPLES = 1000, BATCH = 100, MOST_STEPS = 2000, MOST_SEEDS = 5, DEPTHS = 4, RULES = 2, RATES = 8 };
static const int depths[DEPTHS] = {1, 2, 4, 8};
static const char *const names[RULES] = {"Algorithm 1", "Equation 6"};
static const rp_rule_kind kinds[RULES] = {RP_PATHS, RP_JACOBIAN};
static int steps = MOST_STEPS, seeds = MOST_SEEDS, depth_count = DEPTHS;
static rp_real inputs[SAMPLES][INPUTS], targets[SAMPLES];
static FILE *file;

static void check(rp_status status, const rp_net *net) {
    if (!status) return;
    fprintf(stderr, "poster: %s\n", rp_error(net));
    exit(1);
}

/* A function with bends in every direction, from -1 to 1. */
static void draw(void) {
    uint64_t random = 1;
    for (int i = 0; i < SAMPLES; i++) {
        double sum = 0;
        for (int k = 0; k < INPUTS; k++) {
            inputs[i][k] = (rp_real)random_uniform(&random, -1, 1);
            sum += (k + 1) * (double)inputs[i][k];
        }
        targets[i] = (rp_real)sin(sum);
    }
}
static rp_data batch_of(int step) {
    int first = step * BATCH % SAMPLES;
    return rp_targeted(inputs[first], targets + first, BATCH);
}
static double mean_loss(rp_net *net) {
    rp_data all = rp_targeted(inputs[0], targets, SAMPLES);
    rp_score score;
    if (rp_evaluate(net, &all, &score, NULL)) return HUGE_VAL;
    return (double)score.loss;
}

static rp_net *make_net(int depth, uint64_t seed) {
    rp_net *net = rp_net_new(rp_vector(INPUTS), NULL);
    for (int layer = 0; layer < depth; layer++) {
        rp_dense(net, 16);
        rp_activation(net, RP_TANH);
    }
    rp_dense(net, 1);
    check(rp_net_build(net, BATCH, seed), net);
    return net;
}
static rp_optimizer method(int rule, int rate) { /* rates 1, 3, 10, ... */
    rp_optimizer optimizer = rp_algorithm_1((rp_real)((rate & 1 ? 3 : 1) * pow(10, rate / 2)));
    optimizer.rule.kind = kinds[rule];
    return optimizer;
}

/* sum_i h_i s_i^2 / s'Gs along the step that the rule makes. */
static double looseness(rp_net *net, int rule) {
    rp_optimizer optimizer = method(rule, 0);
    rp_data batch = batch_of(0);
    rp_real second = 0;
    double bound = 0;
    check(rp_backward(net, &batch, &optimizer.rule, NULL), net);
    check(rp_direction(net, &optimizer), net);
    const rp_real *step = rp_step_array(net);
    for (size_t i = 0; i < rp_parameter_count(net); i++)
        bound += (double)rp_curvature(net)[i] * (double)step[i] * (double)step[i];
    check(rp_gauss_newton_directional(net, &batch, step, &second), net);
    return bound / (double)second;
}

/* How much larger Algorithm 1's curvature is: the median over the parameters. */
static double excess(rp_net *net) {
    size_t count = rp_parameter_count(net), used = 0;
    double *ratios = (double *)calloc(count, sizeof *ratios);
    rp_data batch = batch_of(0);
    if (!ratios) exit(1);
    for (int rule = 0; rule < RULES; rule++) {
        rp_optimizer optimizer = method(rule, 0);
        check(rp_backward(net, &batch, &optimizer.rule, NULL), net);
        for (size_t i = 0; i < count; i++) {
            double h = (double)rp_curvature(net)[i];
            if (!rule) ratios[i] = h;
            else if (h > 0) ratios[used++] = ratios[i] / h;
        }
    }
    double middle = median(ratios, (int)used);
    free(ratios);
    return middle;
}

static void compare_bounds(int depth) {
    for (int trained = 0; trained < 2; trained++) {
        double loose[RULES][MOST_SEEDS], larger[MOST_SEEDS];
        for (int seed = 0; seed < seeds; seed++) {
            rp_net *net = make_net(depth, (uint64_t)seed + 1);
            rp_optimizer adam = rp_adam((rp_real)3e-3);
            for (int t = 0; t < steps && trained; t++) {
                rp_data batch = batch_of(t);
                check(rp_train(net, &adam, &batch, NULL), net);
            }
            larger[seed] = excess(net);
            for (int rule = 0; rule < RULES; rule++) {
                loose[rule][seed] = looseness(net, rule);
                fprintf(file, "%s,%s,%d,%d,%.6g\n", trained ? "trained" : "first", names[rule], seed + 1, depth,
                        loose[rule][seed]);
            }
            rp_net_free(net);
        }
        printf("| %d | %s | %.3g |", depth, trained ? "after training" : "at the first", median(larger, seeds));
        for (int rule = 0; rule < RULES; rule++) printf(" %.3g |", median(loose[rule], seeds));
        printf("\n");
    }
}

static double train(int depth, int rule, int rate, uint64_t seed, double *losses) {
    rp_net *net = make_net(depth, seed);
    rp_optimizer optimizer = method(rule, rate);
    for (int t = 0; t < steps; t++) {
        rp_data batch = batch_of(t);
        rp_real loss = 0;
        if (rp_train(net, &optimizer, &batch, &loss)) break; /* it left the range of a float: the loss says so */
        losses[t] = (double)loss;
    }
    double loss = mean_loss(net);
    rp_net_free(net);
    return loss;
}

/* The best rate by the first seed, then the loss of all seeds at it, and at rate 1. */
static void compare_training(int depth, int rule) {
    static double losses[MOST_STEPS];
    int best = 0;
    double least = HUGE_VAL, ends[2][MOST_SEEDS];
    clock_t start = 0;
    for (int rate = 0; rate < RATES; rate++) {
        double loss = train(depth, rule, rate, 1, losses);
        if (loss < least) {
            least = loss;
            best = rate;
        }
    }
    for (int k = 0; k < 2; k++) {
        start = clock();
        for (int seed = 0; seed < seeds; seed++) {
            ends[k][seed] = train(depth, rule, k ? best : 0, (uint64_t)seed + 1, losses);
            for (int t = 0; t < steps && k; t += 10)
                fprintf(file, "depth %d,%s,%d,%d,%.6g\n", depth, names[rule], seed + 1, t, losses[t]);
        }
    }
    double time = 1e6 * (double)(clock() - start) / CLOCKS_PER_SEC / steps / seeds;
    double at_one = median(ends[0], seeds), at_best = median(ends[1], seeds);
    printf("| %d | %s | %.4g | %.4g (%.4g to %.4g) at %g | %.0f |\n", depth, names[rule], at_one, at_best, ends[1][0],
           ends[1][seeds - 1], (double)method(rule, best).rate, time);
    fflush(stdout);
}

int main(int argc, char **argv) {
    int quick = argc > 1 && !strcmp(argv[1], "--quick");
    file = argc == 2 + quick ? fopen(argv[1 + quick], "w") : NULL;
    if (!file) return fprintf(stderr, "usage: poster [--quick] FILE.csv, which can be written\n"), 2;
    if (quick) {
        steps = 200;
        seeds = 1;
        depth_count = 3;
    }
    draw();
    fprintf(file, "experiment,rule,seed,x,y\n");
    printf("Curvature, as a multiple; medians of %d seeds\n\n", seeds);
    printf(
        "| hidden layers | weights | Algorithm 1's by Equation 6's, median parameter | Algorithm 1's by the exact one, "
        "along its step | Equation 6's |\n| --- | --- | --- | --- | --- |\n");
    for (int i = 0; i < depth_count; i++) compare_bounds(depths[i]);
    printf("\nTraining, %d steps: half the mean squared error; median and range of %d seeds\n\n", steps, seeds);
    printf("| hidden layers | rule | at rate 1 | at its best rate | us a step |\n| --- | --- | --- | --- | --- |\n");
    for (int i = 0; i < depth_count; i++)
        for (int rule = 0; rule < RULES; rule++) compare_training(depths[i], rule);
    fclose(file);
    return 0;
}
