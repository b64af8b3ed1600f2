/* pieces.c - four workers train one network together. Each has its own copy of the net and its own part of the
   samples, as on four machines; between the pieces of a step they exchange means, and nothing else.

       cc -O2 -o pieces examples/pieces.c -lm && ./pieces

   A fifth net takes the same steps alone, by rp_train on all samples, to show that it comes to the same. */
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "random.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* SHOWN: steps between two lines. */
enum { WORKERS = 4, SAMPLES = 400, STEPS = 200, SHOWN = 20 };
static const int shares[WORKERS] = {40, 80, 120, 160}; /* of the samples; they need not be equal */
static const double wanted = 0.98;                     /* share of new points that must be told apart in the end */

static void check(rp_status status, const rp_net *net) {
    if (!status) return;
    fprintf(stderr, "pieces: %s\n", rp_error(net));
    exit(1);
}

static rp_net *describe(void) { /* one seed, so that all nets begin with the same parameters */
    rp_net *net = rp_net_new(rp_vector(2), NULL);
    rp_dense(net, 32);
    rp_activation(net, RP_TANH);
    rp_dense(net, 32);
    rp_activation(net, RP_TANH);
    rp_dense(net, 2);
    rp_loss(net, RP_SOFTMAX_CROSS_ENTROPY);
    check(rp_net_build(net, SAMPLES, 1), net);
    return net;
}

/* Points of two arms that wind around each other, a class each. */
static rp_data draw(uint64_t *random, rp_real points[SAMPLES][2], int labels[SAMPLES]) {
    for (int i = 0; i < SAMPLES; i++) {
        double radius = (double)random_uniform(random, 0, 1);
        double angle = 7 * radius + 3.14159265358979 * (i % 2);
        points[i][0] = (rp_real)(radius * cos(angle)) + (rp_real)random_uniform(random, -0.02f, 0.02f);
        points[i][1] = (rp_real)(radius * sin(angle)) + (rp_real)random_uniform(random, -0.02f, 0.02f);
        labels[i] = i % 2;
    }
    return rp_labelled(points[0], labels, SAMPLES);
}

/* What libraries of message passing call an all-reduce: every worker's array becomes the mean over all samples. */
static void average(rp_net *const nets[WORKERS], rp_real *(*array)(rp_net *net)) {
    for (size_t i = 0; i < rp_parameter_count(nets[0]); i++) {
        double sum = 0;
        for (int w = 0; w < WORKERS; w++) sum += shares[w] * (double)array(nets[w])[i];
        for (int w = 0; w < WORKERS; w++) array(nets[w])[i] = (rp_real)(sum / SAMPLES);
    }
}

/* One step: the gradient and curvature of all samples, the direction that they give, and the length that the curvature
   along it allows. Returns that length. */
static double step(rp_net *const nets[WORKERS], const rp_data parts[WORKERS], const rp_optimizer *optimizer,
                   double *loss) {
    int measured = rp_measures(nets[0], optimizer); /* so do all; in between the last length serves */
    double second = measured ? 0 : -1, at_zero = 0;
    rp_real alpha = 0;
    *loss = 0;
    for (int w = 0; w < WORKERS; w++) {
        rp_real part = 0;
        check(rp_backward(nets[w], &parts[w], measured ? &optimizer->rule : NULL, &part), nets[w]);
        *loss += shares[w] * (double)part / SAMPLES;
    }
    average(nets, rp_gradient);
    if (measured) average(nets, rp_curvature); /* from the same arrays every worker makes the same direction, */
    for (int w = 0; w < WORKERS; w++) {
        rp_real part = 0;
        check(rp_direction(nets[w], optimizer), nets[w]);
        if (!measured) continue;
        check(rp_gauss_newton_directional(nets[w], &parts[w], rp_step_array(nets[w]), &part), nets[w]);
        second += shares[w] * (double)part / SAMPLES;
        check(rp_loss_limits(nets[w], &parts[w], NULL, &part), nets[w]); /* the least is 0 with labels */
        at_zero += shares[w] * (double)part / SAMPLES;
    }
    for (int w = 0; w < WORKERS; w++) { /* and from the same curvature along it the same length */
        check(rp_step_length(nets[w], optimizer, SAMPLES, (rp_real)*loss, (rp_real)at_zero, (rp_real)second, &alpha),
              nets[w]);
        check(rp_move(nets[w], alpha), nets[w]);
    }
    return (double)alpha;
}

/* Whether all have the same parameters, bit for bit. */
static int agree(rp_net *const nets[WORKERS]) {
    size_t size = rp_parameter_count(nets[0]) * sizeof(rp_real);
    for (int w = 1; w < WORKERS; w++)
        if (memcmp(rp_parameters(nets[w]), rp_parameters(nets[0]), size)) return 0;
    return 1;
}

int main(void) {
    static rp_real points[SAMPLES][2];
    static int labels[SAMPLES];
    uint64_t random = 1;
    rp_net *nets[WORKERS], *alone = describe();
    rp_data all = draw(&random, points, labels), parts[WORKERS];
    rp_score score;
    rp_optimizer optimizer = rp_partitioning();
    optimizer.rule.kind = RP_JACOBIAN; /* RP_SAMPLED serves as well, but draws other vectors for the fifth net */
    int begin = 0;
    for (int w = 0; w < WORKERS; w++) {
        nets[w] = describe();
        parts[w] = rp_labelled(points[begin], labels + begin, shares[w]);
        begin += shares[w];
    }
    if (*rp_warning(alone)) fprintf(stderr, "pieces: %s\n", rp_warning(alone));
    puts("        four workers       one net alone\nstep    loss    alpha    loss    alpha");
    for (int i = 1; i <= STEPS; i++) {
        rp_real alone_loss = 0;
        rp_step last;
        double loss;
        double alpha = step(nets, parts, &optimizer, &loss);
        check(rp_train(alone, &optimizer, &all, &alone_loss), alone);
        check(rp_last_step(alone, &last), alone);
        if (i == 1 || i % SHOWN == 0)
            printf("%4d  %6.4f %8.3f  %6.4f %8.3f\n", i, loss, alpha, (double)alone_loss, (double)last.alpha);
    }
    draw(&random, points, labels); /* new ones in the place of the old */
    check(rp_evaluate(nets[0], &all, &score, NULL), nets[0]);
    printf("\nThe workers' parameters are %s. Of %d new points they tell %.1f%% right.\n",
           agree(nets) ? "the same, bit for bit" : "NOT THE SAME", SAMPLES, 100 * (double)score.accuracy);
    int good = agree(nets) && (double)score.accuracy > wanted;
    for (int w = 0; w < WORKERS; w++) rp_net_free(nets[w]);
    rp_net_free(alone);
    return !good;
}
