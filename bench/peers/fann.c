/* One SGD step against one of FANN: the gradient over a batch and one update (FANN_TRAIN_BATCH), in turns. FANN has
   neither softplus nor softmax: its classifiers are sigmoid with a squared error, of as many weights and samples. The
   ratios say how many times as long FANN takes, in the median and in the best run of each.

       cc -O2 bench/peers/fann.c -lfann -lm */
#define _POSIX_C_SOURCE 200809L
#define RP_IMPLEMENTATION
#include "../../rp.h"
#include "../measure.h"
#include "../tasks.h"
#include <fann.h>
#include <stdio.h>

typedef struct sgd {
    rp_net *net;
    rp_data data;
    rp_optimizer optimizer;
    struct fann *theirs;
    struct fann_train_data *their_data;
} sgd;

static void run_ours(void *context) {
    sgd *s = (sgd *)context;
    if (rp_train(s->net, &s->optimizer, &s->data, NULL)) exit(1);
}
static void run_theirs(void *context) {
    sgd *s = (sgd *)context;
    fann_train_epoch(s->theirs, s->their_data);
}

static struct fann_train_data *fann_data(const task *t, const rp_data *data, unsigned inputs, unsigned outputs) {
    struct fann_train_data *to = fann_create_train((unsigned)t->batch, inputs, outputs);
    task_must(to);
    for (unsigned s = 0; s < (unsigned)t->batch; s++) {
        for (unsigned i = 0; i < inputs; i++) to->input[s][i] = data->inputs[s * inputs + i];
        for (unsigned i = 0; i < outputs; i++)
            to->output[s][i] = data->targets ? data->targets[s * outputs + i] : (float)((unsigned)data->labels[s] == i);
    }
    return to;
}

static void add_step(const task *t, sgd *s, measurement *m) {
    enum fann_activationfunc_enum activation = t->activation == RP_TANH ? FANN_SIGMOID_SYMMETRIC : FANN_SIGMOID;
    unsigned widths[TASK_LAYERS + 1], layers = 0;
    for (; t->widths[layers]; layers++) widths[layers] = (unsigned)t->widths[layers];
    s->net = task_net(t, RP_ISA_AUTO, 1), s->data = task_data(t), s->optimizer = rp_sgd((rp_real)1e-9);
    s->theirs = (struct fann *)task_must(fann_create_standard_array(layers, widths));
    s->their_data = fann_data(t, &s->data, widths[0], widths[layers - 1]);
    fann_set_training_algorithm(s->theirs, FANN_TRAIN_BATCH);
    fann_set_learning_rate(s->theirs, 1e-3f);
    fann_set_activation_function_hidden(s->theirs, activation);
    fann_set_activation_function_output(s->theirs, activation);
    float before = fann_train_epoch(s->theirs, s->their_data);
    for (int i = 0; i < 5; i++) fann_train_epoch(s->theirs, s->their_data);
    if (fann_train_epoch(s->theirs, s->their_data) >= before) {
        fprintf(stderr, "fann: %s: FANN does not learn\n", t->name);
        exit(1);
    }
    m[0].run = run_ours, m[1].run = run_theirs, m[0].context = m[1].context = s;
}

int main(int argc, char **argv) {
    static measurement steps[2 * DENSE_TASKS];
    sgd pairs[DENSE_TASKS];
    const int most = 3; /* wide would take FANN seconds a step */
    for (int i = 0; i < most; i++) add_step(&tasks[i], &pairs[i], &steps[2 * i]);
    measure(steps, 2 * most, argc > 1 ? atof(argv[1]) : 10, 2e-3);
    for (int i = 0; i < most; i++) {
        printf("step task=%s optimizer=sgd batch=%d", tasks[i].name, tasks[i].batch);
        measure_print_pair(&steps[2 * i], "fann", &steps[2 * i + 1]);
    }
    return 0;
}
