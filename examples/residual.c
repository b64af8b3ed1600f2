/* residual.c - twenty layers learn to tell two spirals apart if there are residual connections, and do not without
   them.

       cc -O2 -I. -o residual examples/residual.c -lm && ./residual

   Both networks see the same samples and are trained in the same way, step by step. */
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "random.h"
#include <stdio.h>
#include <stdlib.h>

/* SHOWN: steps between two lines. */
enum { DEPTH = 20, WIDTH = 32, BATCH = 100, TEST = 2000, STEPS = 1000, SHOWN = 100 };
enum { PLAIN, RESIDUAL, NETS };
/* Shares of right answers: what a net must reach, and what is a failure. */
static const double wanted = 0.99, failed = 0.7;

static rp_net *describe(int residual) {
    rp_net *net = rp_net_new(rp_vector(2), NULL);
    int last = rp_dense(net, WIDTH);
    for (int i = 0; i < DEPTH - 2; i++) {
        rp_dense(net, WIDTH);
        int block = rp_activation(net, RP_TANH);
        last = residual ? rp_add(net, last) : block; /* adds what went into the block to what comes out of it */
    }
    rp_dense(net, 2);
    rp_loss(net, RP_SOFTMAX_CROSS_ENTROPY);
    return net;
}

/* Points of two arms that wind around each other twice, a class each. */
static rp_data draw(uint64_t *random, int count, rp_real points[][2], int *labels) {
    for (int i = 0; i < count; i++) {
        double radius = (double)random_uniform(random, 0, 1);
        double angle = 12 * radius + 3.14159265358979 * (i % 2);
        points[i][0] = (rp_real)(radius * cos(angle)) + (rp_real)random_uniform(random, -0.02f, 0.02f);
        points[i][1] = (rp_real)(radius * sin(angle)) + (rp_real)random_uniform(random, -0.02f, 0.02f);
        labels[i] = i % 2;
    }
    return rp_labelled(points[0], labels, count);
}

static void check(rp_status status, const rp_net *net) {
    if (!status) return;
    fprintf(stderr, "residual: %s\n", rp_error(net));
    exit(1);
}

/* Loss and share of right answers of both nets on points that they have not seen. */
static void compare(int step, rp_net *const nets[NETS], const rp_data *unseen, rp_score scores[NETS]) {
    printf("%4d", step);
    for (int i = 0; i < NETS; i++) {
        if (step) check(rp_average(nets[i], 1), nets[i]); /* the means over the steps do better than the last one */
        check(rp_evaluate(nets[i], unseen, &scores[i], NULL), nets[i]);
        if (step && step < STEPS) check(rp_average(nets[i], 0), nets[i]);
        printf("%12.4f %6.2f%%", (double)scores[i].loss, 100 * (double)scores[i].accuracy);
    }
    putchar('\n');
}

static void train(rp_net *const nets[NETS], rp_score scores[NETS]) {
    static rp_real points[BATCH][2], unseen_points[TEST][2];
    static int labels[BATCH], unseen_labels[TEST];
    uint64_t random = 1;
    rp_data unseen = draw(&random, TEST, unseen_points, unseen_labels);
    rp_optimizer optimizer = rp_partitioning();
    optimizer.rule.kind = RP_JACOBIAN; /* exact for each of two outputs, which costs little more than to sample */
    printf("step %19s %19s\n", "plain", "residual");
    compare(0, nets, &unseen, scores);
    for (int step = 1; step <= STEPS; step++) {
        rp_data batch = draw(&random, BATCH, points, labels);
        for (int i = 0; i < NETS; i++) check(rp_train(nets[i], &optimizer, &batch, NULL), nets[i]);
        if (step % SHOWN == 0) compare(step, nets, &unseen, scores);
    }
}

/* What the nets take each point of the square around the spirals for. */
static void print_classes(rp_net *const nets[NETS]) {
    enum { ROWS = 20, COLUMNS = 36 };
    for (int row = 0; row < ROWS; row++) {
        for (int i = 0; i < NETS; i++) {
            rp_real points[COLUMNS][2];
            int classes[COLUMNS] = {0};
            for (int column = 0; column < COLUMNS; column++) {
                points[column][0] = (rp_real)(2 * column + 1) / (rp_real)COLUMNS - 1;
                points[column][1] = (rp_real)(2 * row + 1) / (rp_real)ROWS - 1;
            }
            check(rp_classify(nets[i], points[0], COLUMNS, classes), nets[i]);
            for (int column = 0; column < COLUMNS; column++) putchar("#."[classes[column]]);
            fputs(i + 1 < NETS ? "  " : "\n", stdout);
        }
    }
}

int main(void) {
    rp_net *nets[NETS];
    rp_score scores[NETS];
    for (int i = 0; i < NETS; i++) {
        nets[i] = describe(i == RESIDUAL);
        check(rp_net_build(nets[i], BATCH, 1), nets[i]);
        if (*rp_warning(nets[i])) fprintf(stderr, "residual: %s\n", rp_warning(nets[i]));
    }
    train(nets, scores);
    printf("\nWhat they have learned, plain and residual:\n");
    print_classes(nets);
    for (int i = 0; i < NETS; i++) rp_net_free(nets[i]);
    return !((double)scores[RESIDUAL].accuracy > wanted && (double)scores[PLAIN].accuracy < failed);
}
