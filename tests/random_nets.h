/* Random nets of all kinds of layers, in the library and in the reference, and batches for them. Include after rp.h. */
#ifndef RANDOM_NETS_H
#define RANDOM_NETS_H
#include "reference_layers.h"
#include "trials.h"
#include <float.h>

/* What a random net may be. */
typedef enum input_kind { IMAGE, SEQUENCE, VECTOR } input_kind;
typedef struct net_recipe {
    input_kind input;
    int layers, size, outputs, count; /* upper limits; size: of channels, features, heights, widths, steps */
    activation_choice activations;
} net_recipe;

static inline int smaller(int a, int b) { return a < b ? a : b; }
static inline void random_reals(test_random *random, rp_real *out, size_t count) {
    for (size_t i = 0; i < count; i++) out[i] = (rp_real)test_normal(random);
}

static inline int same_shape(rp_shape a, rp_shape b) {
    return a.kind == b.kind && a.steps == b.steps && a.channels == b.channels && a.height == b.height &&
           a.width == b.width;
}

/* Random layers. */

static inline void random_activation(test_random *random, activation_choice choice, ref_spec *spec) {
    static const rp_activation_kind smooth[] = {RP_TANH, RP_SIGMOID, RP_SOFTPLUS, RP_GELU, RP_SILU};
    spec->activation = (rp_activation_kind)test_int(random, 0, choice == ANY ? RP_SILU : RP_LEAKY_RELU);
    if (choice == SMOOTH) spec->activation = smooth[test_int(random, 0, 4)];
    spec->slope = rounded(chance(random, 0.5) ? spec->activation == RP_ELU ? 1 : 0.01 : test_uniform(random, 0, 2));
}

/* One side of a window: kernels of 1 and beyond the image where the padding allows it, strides beyond the kernel. */
static inline void random_side(test_random *random, int size, int *kernel, int *stride, int *padding) {
    if (padding) *padding = chance(random, 0.5) ? 0 : test_int(random, 1, 3);
    *kernel = test_int(random, 1, smaller(size + (padding ? 2 * *padding : 0), chance(random, 0.3) ? 9 : 3));
    *stride = test_int(random, 1, chance(random, 0.2) ? *kernel + 2 : 2);
}

static inline void random_conv2d(test_random *random, const net_recipe *recipe, rp_shape s, ref_spec *spec) {
    rp_conv2d_desc *w = &spec->window;
    w->groups = chance(random, 0.6) ? 1 : chance(random, 0.5) ? s.channels : test_int(random, 1, s.channels);
    while (s.channels % w->groups) w->groups--;
    w->filters = w->groups * test_int(random, 1, recipe->size / w->groups + 1);
    random_side(random, s.height, &w->kernel_height, &w->stride_height, &w->padding_height);
    random_side(random, s.width, &w->kernel_width, &w->stride_width, &w->padding_width);
    if (!chance(random, 0.5) || w->kernel_height > s.width + 2 * w->padding_height) return;
    w->groups = 1, w->kernel_width = w->kernel_height;
    w->stride_width = w->stride_height, w->padding_width = w->padding_height;
}

static inline void random_pool2d(test_random *random, rp_shape s, ref_spec *spec) {
    rp_conv2d_desc *w = &spec->window;
    spec->kind = chance(random, 0.5) ? REF_MAX_POOL : REF_AVG_POOL;
    random_side(random, smaller(s.height, s.width), &w->kernel_height, &w->stride_height, NULL);
    w->kernel_width = w->kernel_height, w->stride_width = w->stride_height;
    if (!chance(random, 0.2)) return;
    spec->kind = REF_AVG_POOL;
    w->kernel_height = s.height, w->kernel_width = s.width, w->stride_height = w->stride_width = 1;
}

/* A layer, or the input, whose output has the shape of the last layer's. There is always that itself. */
static inline int random_source(test_random *random, const ref_graph *g) {
    int source = test_int(random, RP_INPUT, g->net.layers - 1);
    while (!same_shape(ref_shape(g, source), ref_last_shape(g))) source = test_int(random, RP_INPUT, g->net.layers - 1);
    return source;
}

static inline void random_layer(test_random *random, const net_recipe *recipe, ref_graph *g) {
    static const ref_kind kinds[3][8] = {
        {REF_ACTIVATION, REF_DENSE, REF_DENSE, REF_DENSE, REF_RECURSIVE, REF_RECURSIVE, REF_ADD, REF_ADD},
        {REF_ACTIVATION, REF_ACTIVATION, REF_CONV2D, REF_CONV2D, REF_CONV2D, REF_MAX_POOL, REF_MAX_POOL, REF_ADD},
        {REF_ACTIVATION, REF_RECURRENT, REF_RECURRENT, REF_RECURRENT, REF_RECURRENT, REF_RECURRENT, REF_ADD, REF_ADD},
    };
    rp_shape s = ref_last_shape(g);
    ref_spec spec;
    memset(&spec, 0, sizeof spec);
    spec.kind = kinds[s.kind - RP_SHAPE_VECTOR][test_int(random, 0, 7)];
    if (chance(random, 0.05)) spec.kind = chance(random, 0.5) ? REF_RECURSIVE : REF_DENSE;
    if (spec.kind == REF_RECURSIVE && ref_features(s) > 20) spec.kind = REF_ACTIVATION;
    if (g->net.layers && g->spec[g->net.layers - 1].kind == REF_CONV2D && chance(random, 0.5))
        spec.kind = REF_ACTIVATION;
    spec.units = test_int(random, 1, recipe->size), spec.steps = test_int(random, 1, 5);
    spec.all_states = chance(random, 0.6);
    spec.bias = chance(random, 0.8), spec.frozen = chance(random, 0.1);
    random_activation(random, recipe->activations, &spec);
    if (spec.kind == REF_ADD) spec.source = random_source(random, g);
    if (spec.kind == REF_CONV2D) random_conv2d(random, recipe, s, &spec);
    if (spec.kind == REF_MAX_POOL) random_pool2d(random, s, &spec);
    ref_add_layer(g, spec);
}

static inline rp_shape random_input(test_random *random, const net_recipe *recipe) {
    int a = test_int(random, 1, recipe->size), b = test_int(random, 1, recipe->size);
    switch (recipe->input) {
    case IMAGE: return rp_image(test_int(random, 1, 4), a, b);
    case SEQUENCE: return rp_sequence(a, b);
    case VECTOR: break;
    }
    return rp_vector(a);
}

static inline ref_graph *random_graph(test_random *random, const net_recipe *recipe, rp_rule_kind kind) {
    rp_loss_kind loss = (rp_loss_kind)test_int(random, RP_SQUARED_ERROR, RP_POISSON);
    rp_shape input = random_input(random, recipe);
    ref_graph *g = ref_graph_new(input, loss, rounded(test_uniform(random, 0.3, 2)));
    int outputs = recipe->outputs;
    if (kind == RP_SAMPLED && loss != RP_SOFTMAX_CROSS_ENTROPY && outputs > 4) outputs = 4; /* 2^4 sign vectors */
    for (int more = test_int(random, 1, recipe->layers); more > 0; more--) random_layer(random, recipe, g);
    if (g->net.outputs > outputs || chance(random, 0.3)) {
        ref_spec spec;
        memset(&spec, 0, sizeof spec);
        spec.kind = REF_DENSE, spec.bias = 1, spec.units = test_int(random, 1, outputs);
        ref_add_layer(g, spec);
    }
    ref_graph_close(g);
    return g;
}

/* The same net in the library. */

static inline int describe_window(rp_net *net, const ref_spec *spec, rp_shape s) {
    const rp_conv2d_desc *w = &spec->window;
    int same = w->kernel_height == w->kernel_width && w->stride_height == w->stride_width;
    if (spec->kind == REF_MAX_POOL) return rp_max_pool2d(net, w->kernel_height, w->stride_height);
    if (spec->kind == REF_AVG_POOL && w->kernel_height == s.height && w->kernel_width == s.width)
        return rp_global_avg_pool2d(net);
    if (spec->kind == REF_AVG_POOL) return rp_avg_pool2d(net, w->kernel_height, w->stride_height);
    if (same && w->padding_height == w->padding_width && w->groups == 1)
        return rp_conv2d(net, w->filters, w->kernel_height, w->stride_height, w->padding_height);
    return rp_conv2d_with(net, w);
}

static inline int describe_layer(rp_net *net, const ref_spec *spec, rp_shape s) {
    rp_recurrent_desc recurrent;
    switch (spec->kind) {
    case REF_DENSE: return rp_dense(net, spec->units);
    case REF_ACTIVATION: return rp_activation(net, spec->activation);
    case REF_CONV2D:
    case REF_MAX_POOL:
    case REF_AVG_POOL: return describe_window(net, spec, s);
    case REF_RECURRENT:
        recurrent.units = spec->units, recurrent.activation = spec->activation, recurrent.all_states = spec->all_states;
        return spec->all_states ? rp_recurrent_with(net, &recurrent) : rp_recurrent(net, spec->units, spec->activation);
    case REF_RECURSIVE: return rp_recursive(net, spec->steps, spec->activation);
    case REF_ADD: return rp_add(net, spec->source);
    }
    return -1;
}

static inline int has_activation(const ref_spec *spec) {
    return spec->kind == REF_ACTIVATION || spec->kind == REF_RECURRENT || spec->kind == REF_RECURSIVE;
}

static inline rp_net *library_net(const ref_graph *g, int batch, uint64_t seed, const rp_config *config) {
    rp_net *net = rp_net_new(g->input, config);
    for (int l = 0; l < g->net.layers; l++) {
        const ref_spec *spec = &g->spec[l];
        int index = describe_layer(net, spec, ref_shape(g, l - 1));
        CHECK(index == l, "layer %d has index %d: %s", l, index, rp_error(net));
        if (g->net.layer[l].dense && !spec->bias) rp_no_bias(net);
        if (has_activation(spec) && (spec->activation == RP_LEAKY_RELU || spec->activation == RP_ELU))
            rp_negative_slope(net, (rp_real)spec->slope);
        if (g->net.layer[l].frozen && seed % 2) rp_freeze(net, l, 1);
    }
    rp_loss(net, g->net.loss);
    if (g->net.loss == RP_HUBER) rp_huber_delta(net, (rp_real)g->net.delta);
    rp_status status = rp_net_build(net, batch, seed);
    if (!CHECK(status == RP_OK && (int)rp_parameter_count(net) == g->net.parameters, "%s; %d parameters instead of %d",
               rp_error(net), (int)rp_parameter_count(net), g->net.parameters))
        exit(test_end());
    for (int l = 0; l < g->net.layers; l++) /* the other half of the seeds freeze after the build */
        if (g->net.layer[l].frozen) rp_freeze(net, l, 1);
    return net;
}

static inline double random_target(test_random *random, rp_loss_kind loss) {
    if (loss == RP_SQUARED_ERROR || loss == RP_HUBER) return test_normal(random);
    return test_uniform(random, 0, loss == RP_POISSON ? 3 : 1);
}

/* Appends to the description of a trial. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
static inline void note(trial *t, const char *format, ...) {
    size_t length = strlen(t->text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(t->text + length, sizeof t->text - length, format, arguments);
    va_end(arguments);
}
static inline void note_shape(trial *t, rp_shape s) { note(t, " %dx%dx%dx%d", s.steps, s.channels, s.height, s.width); }

static inline void describe(trial *t) {
    static const char *names[] = {"dense", "activation", "conv", "max", "avg", "recurrent", "recursive", "add"};
    const ref_graph *g = t->graph;
    note(t, "seed %llu, loss %d, rule %d bound %d scale %d, ", (unsigned long long)t->seed, (int)g->net.loss,
         (int)t->rule.kind, (int)t->rule.bound, (int)t->rule.scale);
    note(t, "%d samples of %d%s%s:", t->data.count, t->batch, t->data.weights ? ", weights" : "",
         t->data.labels ? ", labels" : "");
    note_shape(t, g->input);
    for (int l = 0; l < g->net.layers; l++) {
        const ref_spec *s = &g->spec[l];
        const rp_conv2d_desc *w = &s->window;
        note(t, "; %s", names[s->kind]);
        if (s->kind == REF_CONV2D || s->kind == REF_MAX_POOL || s->kind == REF_AVG_POOL)
            note(t, " %dx%d stride %dx%d padding %dx%d groups %d", w->kernel_height, w->kernel_width, w->stride_height,
                 w->stride_width, w->padding_height, w->padding_width, w->groups);
        if (s->kind == REF_ADD) note(t, " %d", s->source);
        if (s->kind == REF_RECURSIVE) note(t, " %d steps", s->steps);
        if (has_activation(s)) note(t, " sigma %d(%g)", (int)s->activation, s->slope);
        if (g->net.layer[l].dense) note(t, "%s%s", s->bias ? "" : " no bias", s->frozen ? " frozen" : "");
        note_shape(t, g->shape[l]);
    }
}

/* Of the present sample, in each layer: the largest magnitude that is read, and the smallest that a tanh reads. */
typedef struct extremes {
    double largest[REF_LAYERS], smallest[REF_LAYERS];
} extremes;
static inline extremes find_extremes(const ref_graph *g) {
    extremes e;
    for (int l = 0; l < REF_LAYERS; l++) e.largest[l] = 0, e.smallest[l] = DBL_MAX;
    for (int i = g->net.inputs + 1; i < g->units; i++) {
        const ref_unit *unit = &g->unit[i];
        int l = unit->layer, saturates = unit->kind == REF_SIGMA && g->net.layer[l].activation == RP_TANH;
        for (int k = unit->first; k < unit->end; k++) {
            double z = fabs(g->y[g->link[k].from]);
            e.largest[l] = fmax(e.largest[l], z);
            if (saturates) e.smallest[l] = fmin(e.smallest[l], z);
        }
    }
    return e;
}

/* Is a unit so near a kink, or are the two largest of a window so near each other, that rounding decides? */
static inline int delicate(const ref_graph *g, const ref_unit *unit, double margin) {
    rp_activation_kind kind = g->net.layer[unit->layer].activation;
    int kinked = kind == RP_RELU || kind == RP_LEAKY_RELU || kind == RP_ELU;
    double largest = -DBL_MAX;
    if (unit->kind == REF_SUM || (unit->kind == REF_SIGMA && !kinked)) return 0;
    for (int k = unit->first; k < unit->end; k++) largest = fmax(largest, g->y[g->link[k].from]);
    for (int k = unit->first; k < unit->end; k++) {
        double z = g->y[g->link[k].from], gap = unit->kind == REF_SIGMA ? fabs(z) : largest - z;
        if (gap > 0 && gap < margin) return 1;
    }
    return 0;
}

/* Is rounding likely to matter more than the formulas? Also with a tanh layer so saturated that 1 - y^2 is mostly
   rounding, and outputs that exp() takes far apart. */
static inline int ill_conditioned(const trial *t, double margin) {
    ref_graph *g = t->graph;
    double most = g->net.loss == RP_SQUARED_ERROR || g->net.loss == RP_HUBER ? 1e3 : 5;
    for (int b = 0; b < t->exact.count; b++) {
        ref_graph_forward(g, RP_SCALE_ONE, t->exact.inputs + b * g->net.inputs);
        extremes e = find_extremes(g);
        for (int i = g->net.inputs + 1; i < g->units; i++)
            if (delicate(g, &g->unit[i], margin * e.largest[g->unit[i].layer])) return 1;
        for (int l = 0; l < g->net.layers; l++)
            if (e.smallest[l] > 3 && e.smallest[l] < DBL_MAX) return 1;
        for (int i = 0; i < g->net.outputs; i++)
            if (fabs(ref_output(g)[i]) > most) return 1;
    }
    return 0;
}

static inline void trial_free(trial *t) {
    rp_net_free(t->net);
    ref_graph_free(t->graph);
    trial_arrays_free(t);
    free(t);
}

/* A trial in three steps: random numbers, the graph, and with trial_finish the net and a batch of so many samples. */
static inline trial *trial_start(uint64_t seed, rp_rule rule) {
    trial *t = (trial *)allocate(sizeof *t);
    t->seed = t->random.state = seed;
    t->rule = rule;
    return t;
}
static inline trial *trial_finish(trial *t, int count) {
    t->reference = &t->graph->net;
    t->batch = chance(&t->random, 0.5) ? count : count + test_int(&t->random, 1, 20);
    t->net = library_net(t->graph, t->batch, t->seed, NULL);
    read_parameters(t);
    trial_arrays(t);
    random_data(t, count, random_target);
    describe(t);
    return t;
}

static inline trial *trial_draw(uint64_t seed, const net_recipe *recipe, rp_rule rule) {
    trial *t = trial_start(seed, rule);
    t->graph = random_graph(&t->random, recipe, rule.kind);
    int sweeps = 1;
    if (rule.kind == RP_JACOBIAN) sweeps = t->graph->net.outputs;
    if (rule.kind == RP_SAMPLED) sweeps = ref_draws(&t->graph->net);
    double affordable = 1.5e5 / ((double)t->graph->links * sweeps);
    return trial_finish(t, test_int(&t->random, 1, (int)fmax(1, fmin(affordable, recipe->count))));
}

static inline trial *trial_new(uint64_t seed, const net_recipe *recipe, rp_rule rule, double margin) {
    trial *t = trial_draw(seed, recipe, rule);
    while (ill_conditioned(t, margin)) {
        trial_free(t);
        t = trial_draw(seed += 1000000, recipe, rule);
    }
    return t;
}

#endif
