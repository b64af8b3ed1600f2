/* Random trials: a net in the library and in the reference, and a batch for both. Include after rp.h. */
#ifndef TRIALS_H
#define TRIALS_H
#include "reference.h"

typedef enum activation_choice { ANY, SMOOTH, PIECEWISE_LINEAR } activation_choice;

typedef struct trial {
    uint64_t seed;
    test_random random;
    rp_rule rule;
    struct ref_graph *graph; /* of random_nets.h, or NULL */
    ref_net *reference;      /* the graph's, or the trial's own */
    rp_net *net;
    int batch; /* built for */
    rp_real *inputs, *targets, *weights;
    int *labels;
    rp_data data;   /* what the library sees */
    ref_data exact; /* the same in float64, labels as targets */
    char text[1200];
} trial;

static inline void *allocate(size_t size) {
    void *memory = calloc(size + 1, 1);
    if (!memory) exit(2);
    return memory;
}
static inline rp_real *new_reals(size_t count) { return (rp_real *)allocate(count * sizeof(rp_real)); }
static inline double rounded(double x) { return (double)(rp_real)x; }

/* All combinations of the first so many kinds with bounds and scales, in turn. */
static inline rp_rule nth_rule(int kinds, int n) {
    rp_rule rule;
    rule.kind = (rp_rule_kind)(n % kinds), n /= kinds;
    rule.bound = (rp_bound_kind)(n % 2), n /= 2;
    rule.scale = (rp_scale_kind)(n % 2);
    return rule;
}

/* Room for a batch. */
static inline void trial_arrays(trial *t) {
    size_t batch = (size_t)t->batch, in = (size_t)t->reference->inputs, out = (size_t)t->reference->outputs;
    t->inputs = new_reals(batch * in), t->exact.inputs = ref_new((int)(batch * in));
    t->targets = new_reals(batch * out), t->exact.targets = ref_new((int)(batch * out));
    t->weights = new_reals(batch), t->exact.weights = ref_new(t->batch);
    t->labels = (int *)allocate(batch * sizeof *t->labels);
}
static inline void trial_arrays_free(trial *t) {
    free(t->inputs), free(t->targets), free(t->weights), free(t->labels);
    free(t->exact.inputs), free(t->exact.targets), free(t->exact.weights);
}
static inline void read_parameters(trial *t) { /* the library's into the reference */
    for (int p = 0; p < t->reference->parameters; p++) t->reference->w[p] = (double)rp_parameters(t->net)[p];
}

/* A batch of so many samples; target: draws a number that the loss may have for one. */
static inline void random_data(trial *t, int count, double (*target)(test_random *random, rp_loss_kind loss)) {
    test_random *random = &t->random;
    int in = t->reference->inputs, out = t->reference->outputs;
    rp_loss_kind loss = t->reference->loss;
    int classes = loss == RP_SOFTMAX_CROSS_ENTROPY || (loss == RP_BINARY_CROSS_ENTROPY && out == 1);
    int labels = classes && chance(random, 0.5), weights = chance(random, 0.4);
    for (int i = 0; i < count * in; i++)
        t->exact.inputs[i] = (double)(t->inputs[i] = chance(random, 0.05) ? 0 : (rp_real)test_normal(random));
    for (int i = 0; i < count * out; i++)
        t->exact.targets[i] = (double)(t->targets[i] = (rp_real)target(random, loss));
    for (int b = 0; b < count; b++) {
        t->weights[b] = chance(random, 0.1) ? 0 : (rp_real)test_uniform(random, 0.1, 2);
        t->exact.weights[b] = weights ? (double)t->weights[b] : 1;
        t->labels[b] = test_int(random, 0, loss == RP_SOFTMAX_CROSS_ENTROPY ? out - 1 : 1);
        for (int i = 0; labels && i < out; i++)
            t->exact.targets[b * out + i] = loss == RP_SOFTMAX_CROSS_ENTROPY ? t->labels[b] == i : t->labels[b];
    }
    memset(&t->data, 0, sizeof t->data);
    t->data.inputs = t->inputs;
    t->data.targets = labels ? NULL : t->targets;
    t->data.labels = labels ? t->labels : NULL;
    t->data.weights = weights ? t->weights : NULL;
    t->data.count = t->exact.count = count;
}

/* Entries between low and high, to rounding; for each layer. */
static inline void check_between(const trial *t, const char *what, const rp_real *got, const double *low,
                                 const double *high, double allowed) {
    for (int l = 0; l < t->reference->layers; l++) {
        const ref_layer *layer = &t->reference->layer[l];
        double error = 0, largest = 0;
        if (!layer->dense) continue;
        for (int p = layer->weights; p < layer->biases + layer->bias * layer->out; p++) {
            double x = (double)got[p];
            error = larger(x < low[p] ? low[p] - x : x - high[p], error);
            largest = fmax(largest, fabs(high[p]));
        }
        CHECK(error <= allowed * largest, "%s of layer %d is off by %g, largest %g; %s", what, l, error, largest,
              t->text);
    }
}
static inline void check_array(const trial *t, const char *what, const rp_real *got, const double *expected,
                               double allowed) {
    check_between(t, what, got, expected, expected, allowed);
}
#endif
