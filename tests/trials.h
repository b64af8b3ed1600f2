/* Random trials: a net in the library and in the reference, a batch for both, and checks that say which trial failed.
   Include after rp.h. */
#ifndef TRIALS_H
#define TRIALS_H
#include "random_nets.h"
#include <float.h>

typedef struct trial {
    uint64_t seed;
    test_random random;
    rp_rule rule;
    ref_net *reference;
    rp_net *net;
    int batch; /* built for */
    rp_real *inputs, *targets, *weights;
    int *labels;
    rp_data data;   /* what the library sees */
    ref_data exact; /* the same in float64, labels as targets */
    size_t mark;    /* what it has taken is given back to */
    char text[1200];
} trial;

static inline rp_real *new_reals(size_t count) { return (rp_real *)take(count * sizeof(rp_real)); }
static inline void random_reals(test_random *random, rp_real *out, size_t count) {
    for (size_t i = 0; i < count; i++) out[i] = (rp_real)test_normal(random);
}

/* Batches. */

static inline double random_target(test_random *random,
                                   rp_loss_kind loss) { /* a number that the loss may have for one */
    if (loss == RP_SQUARED_ERROR || loss == RP_HUBER) return test_normal(random);
    if (loss == RP_POISSON) return test_uniform(random, 0, 3);
    return chance(random, 0.3) ? test_int(random, 0, 1) : test_uniform(random, 0, 1);
}

/* `count` reals, and the same in float64. */
static inline void draw_inputs(test_random *random, int count, rp_real *inputs, double *exact) {
    for (int i = 0; i < count; i++) {
        inputs[i] = chance(random, 0.05) ? 0 : (rp_real)test_normal(random);
        exact[i] = (double)inputs[i];
    }
}
static inline void draw_targets(test_random *random, int count, rp_loss_kind loss, rp_real *targets, double *exact) {
    for (int i = 0; i < count; i++) {
        targets[i] = (rp_real)random_target(random, loss);
        exact[i] = (double)targets[i];
    }
}

/* A batch of so many samples. */
static inline void random_data(trial *t, int count) {
    test_random *random = &t->random;
    int out = t->reference->loss.outputs;
    rp_loss_kind loss = t->reference->loss.kind;
    int softmax = loss == RP_SOFTMAX_CROSS_ENTROPY;
    int classes = softmax || (loss == RP_BINARY_CROSS_ENTROPY && out == 1);
    int labels = classes && chance(random, 0.5), weights = chance(random, 0.4);
    draw_inputs(random, count * t->reference->inputs, t->inputs, t->exact.inputs);
    draw_targets(random, count * out, loss, t->targets, t->exact.targets);
    for (int b = 0; b < count; b++) {
        t->weights[b] = chance(random, 0.1) ? 0 : (rp_real)test_uniform(random, 0.1, 2);
        t->exact.weights[b] = weights ? (double)t->weights[b] : 1;
        t->labels[b] = test_int(random, 0, softmax ? out - 1 : 1);
        if (!labels) continue;
        for (int i = 0; i < out; i++) t->exact.targets[b * out + i] = softmax ? t->labels[b] == i : t->labels[b];
    }
    t->data = labels ? rp_labelled(t->inputs, t->labels, count) : rp_targeted(t->inputs, t->targets, count);
    if (weights) t->data.weights = t->weights;
    t->exact.count = count;
}

/* What a failed check says of its trial. */

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
static inline void
note(trial *t, const char *format, ...) {
    size_t length = strlen(t->text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(t->text + length, sizeof t->text - length, format, arguments);
    va_end(arguments);
}
static inline void note_shape(trial *t, rp_shape s) { note(t, " %dx%dx%dx%d", s.steps, s.channels, s.height, s.width); }
static inline void note_layer(trial *t, const ref_layer *layer) {
    static const char *const names[] = {"dense", "activation", "conv",      "max pool",
                                        "pool",  "recurrent",  "recursive", "add"};
    const rp_conv2d_desc *w = &layer->window;
    note(t, "; %s", names[layer->kind]);
    if (w->kernel_height)
        note(t, " %dx%d stride %dx%d padding %dx%d groups %d", w->kernel_height, w->kernel_width, w->stride_height,
             w->stride_width, w->padding_height, w->padding_width, w->groups);
    if (layer->kind == REF_ADD) note(t, " %d", layer->source);
    if (layer->kind == REF_RECURSIVE) note(t, " %d steps", layer->steps);
    if (has_activation(layer)) note(t, " sigma %d(%g)", (int)layer->activation, layer->slope);
    if (layer->rows) note(t, "%s%s", layer->bias ? "" : " no bias", layer->frozen ? " frozen" : "");
    note_shape(t, layer->out);
}
static inline void describe(trial *t) {
    static const char *const losses[] = {"squared error", "softmax", "binary", "Huber", "Poisson"};
    const ref_net *net = t->reference;
    note(t, "seed %llu, %s, %s rule, %s bound, scale %s, ", (unsigned long long)t->seed, losses[net->loss.kind],
         rule_name(t->rule.kind), t->rule.bound == RP_BOUND_JENSEN ? "Jensen's" : "tight",
         t->rule.scale == RP_SCALE_ONE ? "one" : "fan-in");
    note(t, "%d samples of %d%s%s:", t->data.count, t->batch, t->data.weights ? ", weights" : "",
         t->data.labels ? ", labels" : "");
    note_shape(t, net->input);
    for (int l = 0; l < net->layers; l++) note_layer(t, &net->layer[l]);
}

/* A trial in three steps: random numbers, the reference's net, and with trial_finish the library's and a batch of so
   many samples. */
static inline trial *trial_start(uint64_t seed, rp_rule rule) {
    size_t mark = memory_mark();
    trial *t = (trial *)take(sizeof *t);
    t->mark = mark;
    t->seed = t->random.state = seed;
    t->rule = rule;
    return t;
}
static inline void read_parameters(trial *t) { /* the library's into the reference */
    for (int p = 0; p < t->reference->parameters; p++) t->reference->w[p] = (double)rp_parameters(t->net)[p];
}
static inline trial *trial_finish(trial *t, int count) {
    t->batch = chance(&t->random, 0.5) ? count : count + test_int(&t->random, 1, 20);
    t->net = library_net(t->reference, t->batch, t->seed, NULL);
    read_parameters(t);
    int in = t->batch * t->reference->inputs, out = t->batch * t->reference->loss.outputs;
    t->inputs = new_reals((size_t)in);
    t->exact.inputs = ref_new(in);
    t->targets = new_reals((size_t)out);
    t->exact.targets = ref_new(out);
    t->weights = new_reals((size_t)t->batch);
    t->exact.weights = ref_new(t->batch);
    t->labels = (int *)take((size_t)t->batch * sizeof *t->labels);
    random_data(t, count);
    describe(t);
    return t;
}
static inline void trial_free(trial *t) { /* and all that was taken since it began */
    rp_net_free(t->net);
    memory_release(t->mark);
}

/* Is rounding likely to matter more than the formulas? */

/* Of the present sample, in each layer: the largest magnitude that is read, and the smallest that a tanh reads. */
typedef struct extremes {
    double largest[REF_LAYERS], smallest[REF_LAYERS];
} extremes;
static inline extremes find_extremes(const ref_net *net) {
    extremes e;
    for (int l = 0; l < REF_LAYERS; l++) {
        e.largest[l] = 0;
        e.smallest[l] = DBL_MAX;
    }
    for (int i = net->inputs + 1; i < net->units; i++) {
        const ref_unit *unit = &net->unit[i];
        int l = unit->layer, saturates = unit->kind == REF_SIGMA && net->layer[l].activation == RP_TANH;
        for (int k = unit->first; k < unit->end; k++) {
            double z = fabs(net->y[net->link[k].from]);
            e.largest[l] = fmax(e.largest[l], z);
            if (saturates) e.smallest[l] = fmin(e.smallest[l], z);
        }
    }
    return e;
}

/* Is a unit so near a kink, or are the two largest of a window so near each other, that rounding decides? */
static inline int delicate(const ref_net *net, const ref_unit *unit, double margin) {
    rp_activation_kind kind = net->layer[unit->layer].activation;
    int kinked = kind == RP_RELU || kind == RP_LEAKY_RELU || kind == RP_ELU;
    double largest = -DBL_MAX;
    if (unit->kind == REF_SUM || (unit->kind == REF_SIGMA && !kinked)) return 0;
    for (int k = unit->first; k < unit->end; k++) largest = fmax(largest, net->y[net->link[k].from]);
    for (int k = unit->first; k < unit->end; k++) {
        double z = net->y[net->link[k].from], gap = unit->kind == REF_SIGMA ? fabs(z) : largest - z;
        if (gap > 0 && gap < margin) return 1;
    }
    return 0;
}

/* Also with a tanh layer so saturated that 1 - y^2 is mostly rounding, and outputs that exp() takes far apart. */
static inline int ill_conditioned(const trial *t, double margin) {
    ref_net *net = t->reference;
    double most = net->loss.kind == RP_SQUARED_ERROR || net->loss.kind == RP_HUBER ? 1e3 : 5;
    for (int b = 0; b < t->exact.count; b++) {
        ref_forward_sample(net, RP_SCALE_ONE, &t->exact, b);
        extremes e = find_extremes(net);
        for (int i = net->inputs + 1; i < net->units; i++)
            if (delicate(net, &net->unit[i], margin * e.largest[net->unit[i].layer])) return 1;
        for (int l = 0; l < net->layers; l++)
            if (e.smallest[l] > 3 && e.smallest[l] < DBL_MAX) return 1;
        for (int i = 0; i < net->loss.outputs; i++)
            if (fabs(ref_output(net)[i]) > most) return 1;
    }
    return 0;
}

/* Any trial; the parameters of half of the stacks are larger than a build makes them. */
static inline trial *trial_draw(uint64_t seed, const net_recipe *recipe, rp_rule rule) {
    trial *t = trial_start(seed, rule);
    int sweeps = 1, stack = recipe->kind == STACK;
    t->reference = random_net(&t->random, recipe, rule.kind);
    if (rule.kind == RP_JACOBIAN) sweeps = t->reference->loss.outputs;
    if (rule.kind == RP_SAMPLED) sweeps = ref_draws(&t->reference->loss);
    double affordable = (stack ? 1e6 : 1.5e5) / ((double)t->reference->links * sweeps);
    trial_finish(t, random_width(&t->random, (int)fmax(1, fmin(affordable, recipe->count))));
    double scale = stack && chance(&t->random, 0.5) ? test_uniform(&t->random, 1, 3) : 1;
    for (int p = 0; p < t->reference->parameters; p++) rp_parameters(t->net)[p] *= (rp_real)scale;
    read_parameters(t);
    return t;
}
static inline trial *trial_new(uint64_t seed, const net_recipe *recipe, rp_rule rule, double margin) {
    trial *t = trial_draw(seed, recipe, rule);
    while (ill_conditioned(t, margin)) {
        trial_free(t);
        seed += 1000000;
        t = trial_draw(seed, recipe, rule);
    }
    return t;
}

/* Entries between low and high, to rounding; for each layer. `floor`: what may always be lacking. */
static inline void check_between(const trial *t, const char *what, const rp_real *got, const double *low,
                                 const double *high, double allowed, double floor) {
    for (int l = 0; l < t->reference->layers; l++) {
        const ref_layer *layer = &t->reference->layer[l];
        double error = 0, largest = 0;
        if (!layer->rows) continue;
        for (int p = layer->weights; p < layer->end; p++) {
            double x = (double)got[p];
            error = larger(x < low[p] ? low[p] - x : x - high[p], error);
            largest = fmax(largest, fabs(high[p]));
        }
        CHECK(error <= allowed * largest + floor, "%s of layer %d is off by %g, largest %g; %s", what, l, error,
              largest, t->text);
    }
}
static inline void check_array(const trial *t, const char *what, const rp_real *got, const double *expected,
                               double allowed) {
    check_between(t, what, got, expected, expected, allowed, 0);
}
#endif
