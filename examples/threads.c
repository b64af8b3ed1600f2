/* threads.c - four threads answer questions from one trained net, which lies in memory once.

       cc -O2 -o threads examples/threads.c -lm -lpthread && ./threads

   Each has a workspace of its own, a few kilobytes, in which it computes; the net itself is only read. The answers are
   those of one thread, to the bit. (Threads that share one call are another matter: rp_config.threads.) */
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "random.h"
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, SAMPLES = 1000, QUESTIONS = 20000, STEPS = 1000, AT_ONCE = 8 };

static void check(rp_status status, const rp_net *net) {
    if (!status) return;
    fprintf(stderr, "threads: %s\n", rp_error(net));
    exit(1);
}

static void draw(uint64_t seed, int count, rp_real x[][2], rp_real *y) {
    for (int i = 0; i < count; i++) {
        for (int k = 0; k < 2; k++) x[i][k] = (rp_real)random_uniform(&seed, -1, 1);
        y[i] = (rp_real)sin(3 * (double)x[i][0]) * x[i][1];
    }
}

static rp_net *train(void) {
    static rp_real x[SAMPLES][2], y[SAMPLES];
    rp_optimizer optimizer = rp_partitioning();
    rp_net *net = rp_net_text("input vector 2; dense 64; tanh; dense 64; tanh; dense 1", NULL);
    draw(1, SAMPLES, x, y);
    rp_data data = rp_targeted(x[0], y, SAMPLES);
    check(rp_net_build(net, SAMPLES, 1), net);
    for (int step = 0; step < STEPS; step++) check(rp_train(net, &optimizer, &data, NULL), net);
    check(rp_average(net, 1), net); /* averages predict better; now nobody writes to the net any more */
    return net;
}

typedef struct worker {
    pthread_t thread;
    const rp_net *net;
    rp_workspace *workspace;
    rp_real (*x)[2], *answers;
    int count;
    rp_status status;
} worker;

static void *answer(void *user) {
    worker *w = (worker *)user;
    for (int i = 0; i < w->count && !w->status; i += AT_ONCE) {
        int count = w->count - i < AT_ONCE ? w->count - i : AT_ONCE;
        w->status = rp_predict_with(w->net, w->workspace, w->x[i], count, w->answers + i);
    }
    return NULL;
}

int main(void) {
    static rp_real x[QUESTIONS][2], truth[QUESTIONS], alone[QUESTIONS], together[QUESTIONS];
    worker workers[THREADS];
    int failed = 0;
    double error = 0, size = 0;
    rp_net *net = train();
    draw(2, QUESTIONS, x, truth);
    for (int i = 0; i < QUESTIONS; i += AT_ONCE) check(rp_predict(net, x[i], AT_ONCE, alone + i), net);
    for (int t = 0; t < THREADS; t++) {
        int begin = QUESTIONS / THREADS * t;
        worker w = {0};
        w.net = net;
        w.workspace = rp_workspace_new(net, AT_ONCE);
        w.x = x + begin;
        w.answers = together + begin;
        w.count = QUESTIONS / THREADS;
        workers[t] = w;
        if (!w.workspace || pthread_create(&workers[t].thread, NULL, answer, &workers[t])) return 1;
    }
    for (int t = 0; t < THREADS; t++) {
        pthread_join(workers[t].thread, NULL);
        failed |= workers[t].status != RP_OK;
        rp_workspace_free(workers[t].workspace); /* before its net */
    }
    for (int i = 0; i < QUESTIONS; i++) {
        error += pow((double)(together[i] - truth[i]), 2);
        size += pow((double)truth[i], 2);
    }
    int same = !memcmp(alone, together, sizeof alone);
    printf("%d threads answered %d questions with %.2f%% of error, %s one thread\n", THREADS, QUESTIONS,
           100 * sqrt(error / size), same ? "to the bit as" : "NOT AS");
    rp_net_free(net);
    return failed || !same || error > 0.01 * size;
}
