/* curvature.c - looks at a loss surface while a network learns: how steeply the loss curves along its steepest
   direction, how much the samples' gradients disagree, how long a step may be; then lets curvature do the
   learning.

       cc -O2 -o curvature examples/curvature.c -lm && ./curvature

   Gradient descent with a rate r drives the largest eigenvalue of the Hessian up to 2 / r, where its steps begin
   to overshoot. Newton's method has no rate, and no such wall. */
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "random.h"
#include <stdio.h>
#include <stdlib.h>

enum { SAMPLES = 200, ROUNDS = 7, STEPS = 500, NEWTON_STEPS = 40 };
static const rp_real rate = (rp_real)0.4;

static void check(rp_status status, const rp_net *net) {
    if (!status) return;
    fprintf(stderr, "curvature: %s\n", rp_error(net));
    exit(1);
}

/* Points of two arms that wind around each other, a class each. */
static rp_data draw(uint64_t *random, rp_real points[SAMPLES][2], int labels[SAMPLES]) {
    for (int i = 0; i < SAMPLES; i++) {
        double radius = (double)random_uniform(random, 0, 1);
        double angle = 5 * radius + 3.14159265358979 * (i % 2);
        points[i][0] = (rp_real)(radius * cos(angle));
        points[i][1] = (rp_real)(radius * sin(angle));
        labels[i] = i % 2;
    }
    return rp_labelled(points[0], labels, SAMPLES);
}

static double length(const rp_real *x, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

/* The Hessian's eigenvalue of largest size, by power iteration: v becomes its eigenvector, and serves as a start
   next time. */
static double sharpness(rp_net *net, const rp_data *data, rp_real *v) {
    size_t count = rp_parameter_count(net);
    rp_real second;
    for (int i = 0; i < 50; i++) {
        double size;
        check(rp_hessian_vector(net, data, v, v), net);
        size = length(v, count);
        for (size_t k = 0; k < count; k++) v[k] = (rp_real)((double)v[k] / size);
    }
    check(rp_directional(net, data, v, NULL, &second), net); /* v'Hv with |v| = 1 */
    return (double)second;
}

static rp_net *describe(void) {
    rp_net *net = rp_net_new(rp_vector(2), NULL);
    rp_dense(net, 24);
    rp_activation(net, RP_TANH);
    rp_dense(net, 24);
    rp_activation(net, RP_TANH);
    rp_dense(net, 2);
    rp_loss(net, RP_SOFTMAX_CROSS_ENTROPY);
    check(rp_net_build(net, SAMPLES, 1), net);
    if (*rp_warning(net)) fprintf(stderr, "curvature: %s\n", rp_warning(net));
    return net;
}

/* Returns the loss where it ends. */
static double descend(rp_net *net, const rp_data *data, rp_real *v) {
    rp_optimizer optimizer = rp_sgd(rate);
    rp_real loss = 0;
    printf("gradient descent, rate %g, so 2 / rate is %g\n", (double)rate, 2 / (double)rate);
    puts("steps    loss  largest eigenvalue  batch worth its time");
    for (int step = 0; step <= ROUNDS * STEPS; step++) {
        if (step % STEPS == 0) {
            rp_noise noise;
            check(rp_backward(net, data, NULL, &loss), net);
            check(rp_gradient_noise(net, data, &noise, NULL), net);
            printf("%5d  %6.4f  %18.2f  ", step, (double)loss, sharpness(net, data, v));
            if (noise.scale > 0) printf("%20.0f\n", (double)noise.scale);
            else puts("     cannot be told"); /* the gradient is lost in its noise */
        }
        if (step < ROUNDS * STEPS) check(rp_train(net, &optimizer, data, NULL), net);
    }
    return (double)loss;
}

/* Returns the loss before its last step. */
static double leap(rp_net *net, const rp_data *data) {
    rp_optimizer optimizer = rp_newton();
    rp_real loss = 0;
    puts("\nNewton's method from there\nsteps    loss  products in the solve  lambda");
    for (int step = 1; step <= NEWTON_STEPS; step++) {
        rp_step last;
        check(rp_train(net, &optimizer, data, &loss), net);
        check(rp_last_step(net, &last), net);
        if (step % 8) continue;
        printf("%5d  %.1e  %21d  %.1e\n", step, (double)loss, last.products, (double)last.lambda);
    }
    return (double)loss;
}

int main(void) {
    static rp_real points[SAMPLES][2];
    static int labels[SAMPLES];
    uint64_t random = 1;
    rp_data data = draw(&random, points, labels);
    rp_net *net = describe();
    rp_real *v = (rp_real *)malloc(rp_parameter_count(net) * sizeof *v);
    if (!v) return 1;
    for (size_t i = 0; i < rp_parameter_count(net); i++) v[i] = random_uniform(&random, -1, 1);
    double first = descend(net, &data, v);
    double last = leap(net, &data);
    rp_net_free(net);
    free(v);
    return !(last < first / 100);
}
