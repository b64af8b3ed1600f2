/* What the tests of exact second derivatives share: trials with what their derivatives must be, comparisons, small
   nets, and all tools and steps in one list, with the checks that each of them must pass. Include after rp.h. */
#ifndef CURVATURE_H
#define CURVATURE_H
#include "calls.h"
#include "heap.h"
#include "optimizers.h"
#include "reference_curvature.h"
#include "trials.h"
#include <limits.h>

/* Largest errors allowed, relative to the sum of the magnitudes that add up to a number (of the layer's largest, in
   arrays), and to `nothing`: derivatives of the loss are about 1, and where they cancel rounding leaves some 1e-7 of
   that. Over 5000 nets the worst were 1e-4 in single precision and 3e-13 in double; differences of the reference's
   gradient are themselves good for 4e-8 (their step is 1e-5, of which they lose the square and the reciprocal times
   1e-16). */
#ifdef RP_DOUBLE
static const double tolerance = 1e-11, difference = 1e-7, last_digit = DBL_EPSILON;
#else
static const double tolerance = 5e-4, difference = 5e-4, last_digit = FLT_EPSILON;
#endif
static const double nothing = 1e-3;

/* The residual that a solve is asked for by default. */
static const double solved_default = sizeof(rp_real) == sizeof(double) ? 1e-9 : 1e-4;

/* In the entries of frozen layers, which are not looked at. */
static const rp_real unseen = (rp_real)NAN;

/* Trials. */

static inline trial *start_trial(uint64_t seed) { /* the rule is not looked at */
    return trial_start(seed, rule_of(RP_PATHS, RP_BOUND_TIGHT, RP_SCALE_ONE));
}

/* Differences must not cross a kink. */
static inline int too_near_a_kink(const trial *t) {
    return ill_conditioned(t, 1e-3) || ref_huber_distance(t->reference, &t->exact) < 1e-3;
}

/* Softmax of one output is constant: what comes out is what rounding leaves. */
static inline int constant(const ref_net *net) {
    return net->loss.kind == RP_SOFTMAX_CROSS_ENTROPY && net->loss.outputs == 1;
}
static inline int trained_parameters(const ref_net *net) {
    size_t mark = memory_mark();
    double sum = ref_sum(net->parameters, ref_scales(net, RP_SCALE_ONE));
    memory_release(mark);
    return (int)sum;
}

/* A trial of at most so many parameters, at least one of them trained. */
static inline trial *small_trial(int seed, const net_recipe *recipe, int most) {
    for (uint64_t now = (uint64_t)seed;; now += 1000000) {
        trial *t = start_trial(now);
        t->reference = random_net(&t->random, recipe, RP_PATHS);
        if (t->reference->parameters <= most && trained_parameters(t->reference) && !constant(t->reference)) {
            trial_finish(t, test_int(&t->random, 1, recipe->count));
            if (!too_near_a_kink(t)) return t;
        }
        trial_free(t);
    }
}

/* What a trial's derivatives must be, and of small ones the matrices. */
typedef struct dense {
    int n, count;
    double *c;                   /* [n]: 1; 0 in frozen layers */
    double *gradient, *samples;  /* [n], [count][n] */
    double *terms;               /* [n]: the size of those that add up to an entry of the gradient */
    double *h, *g, *differences; /* [n][n] */
    double *size;                /* [n][n]: of the terms that add up to an entry of h */
} dense;
static inline dense dense_without_matrices(trial *t) {
    int n = t->reference->parameters, count = t->data.count;
    dense d;
    memset(&d, 0, sizeof d);
    d.n = n;
    d.count = count;
    d.c = ref_scales(t->reference, RP_SCALE_ONE);
    d.gradient = ref_new(n);
    d.terms = ref_new(n);
    ref_batch(t->reference, &t->exact, NULL, d.gradient, NULL);
    d.samples = ref_sample_gradients(t->reference, &t->exact);
    for (int i = 0; i < n * count; i++) d.terms[i % n] += fabs(d.samples[i]) / count;
    return d;
}
static inline dense dense_new(trial *t) {
    dense d = dense_without_matrices(t);
    d.h = ref_hessian(t->reference, &t->exact, 0);
    d.g = ref_gauss_newton(t->reference, &t->exact);
    d.differences = ref_hessian(t->reference, &t->exact, 1e-5);
    d.size = ref_matrix(d.n);
    for (int i = 0; i < d.n * d.n; i++) d.size[i] = fabs(d.g[i]) + fabs(d.h[i] - d.g[i]);
    return d;
}

/* A random vector; frozen entries are not looked at. */
typedef struct vector {
    rp_real *real;
    double *exact, *size; /* in float64, frozen entries 0; magnitudes */
} vector;
static inline vector vector_new(test_random *random, const dense *d) {
    vector v = {new_reals((size_t)d->n), ref_new(d->n), ref_new(d->n)};
    random_reals(random, v.real, (size_t)d->n);
    for (int p = 0; p < d->n; p++) {
        v.exact[p] = d->c[p] > 0 ? (double)v.real[p] : 0;
        v.size[p] = fabs(v.exact[p]);
        if (d->c[p] <= 0) v.real[p] = unseen;
    }
    return v;
}

/* Comparisons. */

/* Each layer's entries against what is expected, relative to the largest sum of magnitudes that adds up to one. */
static inline void check_vector(const trial *t, const char *what, const rp_real *got, const double *expected,
                                const double *size, double allowed) {
    for (int l = 0; l < t->reference->layers; l++) {
        const ref_layer *layer = &t->reference->layer[l];
        double error = 0, largest = 0;
        for (int p = layer->weights; p < layer->end; p++) {
            error = larger(fabs((double)got[p] - expected[p]), error);
            largest = fmax(largest, fabs(size[p]));
        }
        CHECK(error <= allowed * (largest + nothing), "%s of layer %d is off by %g, size %g; %s", what, l, error,
              largest, t->text);
    }
}
static inline void check_number(const trial *t, const char *what, double got, double expected, double size,
                                double allowed) {
    CHECK(fabs(got - expected) <= allowed * (size + nothing), "%s is %.12g instead of %.12g, size %g; %s", what, got,
          expected, size, t->text);
}
static inline void check_done(const trial *t, const char *what, rp_status status) {
    CHECK(status == RP_OK, "%s: %d, '%s'; %s", what, (int)status, rp_error(t->net), t->text);
}
static inline int same_reals(const rp_real *a, const rp_real *b, int count) {
    return !memcmp(a, b, (size_t)count * sizeof *a);
}

/* Larger nets: widths around the kernels' tiles, many inputs, odd batches. */

static inline ref_layer *append(ref_net *net, ref_kind kind, int units, rp_activation_kind activation) {
    ref_layer layer = layer_of(kind);
    int conv2d = kind == REF_CONV2D;
    layer.units = units;
    layer.activation = activation;
    layer.bias = 1;
    layer.steps = 3;
    layer.source = RP_INPUT;
    layer.slope = activation == RP_ELU ? 1 : rounded(0.01);
    layer.all_states = kind == REF_RECURRENT && units == 16;
    layer.window = conv2d_of(units, conv2d ? 3 : 2, 1);
    layer.window.stride_height = layer.window.stride_width = conv2d ? 1 : 2;
    layer.window.padding_height = layer.window.padding_width = conv2d;
    ref_append(net, layer);
    return &net->layer[net->layers - 1];
}
static inline void append_dense(ref_net *net, int units, rp_activation_kind activation) {
    append(net, REF_DENSE, units, RP_IDENTITY);
    append(net, REF_ACTIVATION, 0, activation);
}

enum { LARGE_NETS = 8 };
static inline ref_net *large_net(int which) {
    static const rp_loss_kind losses[LARGE_NETS] = {
        RP_SOFTMAX_CROSS_ENTROPY, RP_SQUARED_ERROR, RP_HUBER,   RP_POISSON,
        RP_BINARY_CROSS_ENTROPY,  RP_SQUARED_ERROR, RP_POISSON, RP_SOFTMAX_CROSS_ENTROPY};
    const rp_shape inputs[LARGE_NETS] = {rp_vector(5),       rp_vector(3),       rp_vector(300), rp_image(2, 7, 6),
                                         rp_sequence(5, 17), rp_sequence(3, 65), rp_vector(17),  rp_vector(16)};
    ref_net *net = ref_net_new(inputs[which], losses[which], 0.75);
    switch (which) {
    case 0:
        append_dense(net, 16, RP_TANH);
        append_dense(net, 17, RP_GELU);
        append(net, REF_DENSE, 15, RP_IDENTITY);
        break;
    case 1:
        append_dense(net, 64, RP_SOFTPLUS);
        append_dense(net, 65, RP_TANH);
        append_dense(net, 3, RP_TANH);
        break;
    case 2:
        append_dense(net, 7, RP_SILU);
        append_dense(net, 4, RP_ELU);
        break;
    case 3:
        append(net, REF_CONV2D, 17, RP_IDENTITY);
        append(net, REF_ACTIVATION, 0, RP_SOFTPLUS);
        append(net, REF_MAX_POOL, 0, RP_IDENTITY);
        append(net, REF_CONV2D, 5, RP_IDENTITY);
        append(net, REF_ACTIVATION, 0, RP_SIGMOID);
        append(net, REF_DENSE, 3, RP_IDENTITY);
        break;
    case 4:
        append(net, REF_RECURRENT, 16, RP_TANH);
        append(net, REF_RECURRENT, 33, RP_SIGMOID);
        append(net, REF_DENSE, 2, RP_IDENTITY);
        break;
    case 5:
        append(net, REF_RECURRENT, 9, RP_SOFTPLUS);
        append_dense(net, 3, RP_TANH);
        break;
    case 6:
        append(net, REF_RECURSIVE, 0, RP_TANH);
        append(net, REF_ADD, 0, RP_IDENTITY);
        append_dense(net, 17, RP_SIGMOID);
        append(net, REF_ADD, 0, RP_IDENTITY);
        append(net, REF_DENSE, 3, RP_IDENTITY);
        break;
    default:
        append(net, REF_ACTIVATION, 0, RP_RELU);
        append_dense(net, 65, RP_LEAKY_RELU);
        append(net, REF_DENSE, 16, RP_IDENTITY);
    }
    ref_close(net);
    return net;
}

static inline trial *large_trial(int which, int count) {
    for (uint64_t seed = (uint64_t)which;; seed += 1000000) {
        trial *t = start_trial(seed);
        t->reference = large_net(which);
        trial_finish(t, count);
        if (!too_near_a_kink(t)) return t;
        trial_free(t);
    }
}

/* A small classifier, or with RP_POISSON a small regression, and batches for it. */
enum { INPUTS = 4, HIDDEN = 5, OUTPUTS = 3, BATCH = 8, MOST = 64 };
typedef struct samples {
    rp_real inputs[BATCH * INPUTS], targets[BATCH * OUTPUTS];
    int labels[BATCH];
    rp_data data;
} samples;
static inline void draw_samples(samples *s, test_random *random, rp_loss_kind loss) {
    random_reals(random, s->inputs, BATCH * INPUTS);
    for (int i = 0; i < BATCH * OUTPUTS; i++) s->targets[i] = (rp_real)test_uniform(random, 0, 3);
    for (int i = 0; i < BATCH; i++) s->labels[i] = test_int(random, 0, OUTPUTS - 1);
    s->data = rp_targeted(s->inputs, s->targets, BATCH);
    if (loss == RP_SOFTMAX_CROSS_ENTROPY) s->data = rp_labelled(s->inputs, s->labels, BATCH);
}
static inline void draw_classes(samples *s, uint64_t seed) {
    test_random random = {seed};
    draw_samples(s, &random, RP_SOFTMAX_CROSS_ENTROPY);
}
static inline void draw_vector(rp_real *v, uint64_t seed) { /* of as many numbers as a small net may have parameters */
    test_random random = {seed + 1000};
    random_reals(&random, v, MOST);
}
static inline rp_net *describe_net(const rp_config *config, rp_loss_kind loss) {
    rp_net *net = rp_net_new(rp_vector(INPUTS), config);
    rp_dense(net, HIDDEN);
    rp_activation(net, RP_TANH);
    rp_dense(net, OUTPUTS);
    rp_loss(net, loss);
    return net;
}
static inline rp_net *built(rp_net *net) {
    if (!CHECK(rp_net_build(net, BATCH, 1) == RP_OK, "%s", rp_error(net))) exit(test_end());
    return net;
}
static inline rp_net *make_net(rp_loss_kind loss) { return built(describe_net(NULL, loss)); }
static inline rp_net *classifier(void) { return make_net(RP_SOFTMAX_CROSS_ENTROPY); }
static inline size_t count_of(const rp_net *net) { return rp_parameter_count(net); }
static inline size_t bytes_of(const rp_net *net) { return count_of(net) * sizeof(rp_real); }
static inline void copy_parameters(rp_net *to, rp_net *from) {
    memcpy(rp_parameters(to), rp_parameters(from), bytes_of(to));
}
static inline int same_parameters(rp_net *a, rp_net *b) {
    return !memcmp(rp_parameters(a), rp_parameters(b), bytes_of(a));
}
static inline rp_real *flat_array(rp_net *net, int which) {
    rp_real *const arrays[] = {rp_parameters(net), rp_gradient(net), rp_curvature(net), rp_step_array(net)};
    return arrays[which];
}

/* Every method that takes its step from arrays: those of optimizers.h, and per-variable rates. */
enum { METHODS = RATED + 1 };
static inline named_optimizer method_of(int which) {
    named_optimizer o = {"per variable", rp_per_variable(2)};
    return which < RATED ? optimizer_of(which) : o;
}
static inline double fill_arrays(rp_net *net, const rp_optimizer *o, const rp_data *data) { /* the loss */
    rp_real loss = -1;
    WORKS(rp_backward(net, data, o->method == RP_PARTITIONING ? &o->rule : NULL, &loss));
    if (o->method == RP_PER_VARIABLE) WORKS(rp_hessian_diagonal(net, data, rp_curvature(net)));
    return (double)loss;
}

static inline void train_both(rp_net *net, rp_net *twin, const rp_optimizer *o, const rp_data *data) {
    WORKS(rp_train(net, o, data, NULL));
    CHECK(rp_train(twin, o, data, NULL) == RP_OK, "%s", rp_error(twin));
}

/* One parameter, f = (w x - t)^2 / 2. */
static inline rp_net *one_parameter(double w) {
    rp_net *net = rp_net_new(rp_vector(1), NULL);
    rp_dense(net, 1);
    rp_no_bias(net, rp_layer_count(net) - 1);
    rp_parameters(built(net))[0] = (rp_real)w;
    return net;
}

static inline rp_solve_options options_of(rp_solve_method method, int gauss_newton, double damping, double within) {
    rp_solve_options options;
    memset(&options, 0, sizeof options);
    options.method = method;
    options.gauss_newton = gauss_newton;
    options.damping = (rp_real)damping;
    options.tolerance = (rp_real)within;
    return options;
}

/* All tools, and all steps whose length, or more, is computed, in one list, for what must hold for each of them. */
enum call {
    DIRECTIONAL,
    HESSIAN_VECTOR,
    GAUSS_NEWTON_VECTOR,
    HESSIAN_MATRIX,
    HESSIAN_DIAGONAL,
    GAUSS_NEWTON_DIAGONAL,
    SAMPLE_NORMS,
    SAMPLE_GRADIENTS,
    GRADIENT_NOISE,
    SOLVE_AUTO,
    SOLVE_ITERATIVE,
    SOLVE_DIRECT,
    SOLVE_DENSE,
    TOOLS,
    CUBIC_STEP = TOOLS,
    ADAPTIVE_STEP,
    CUBIC_PARTITIONING_STEP,
    PER_VARIABLE_STEP,
    GAUSS_NEWTON_STEP,
    NEWTON_STEP,
    CALLS
};
enum { SOLVE_METHODS = TOOLS - SOLVE_AUTO };
static const rp_solve_method solve_methods[SOLVE_METHODS] = {RP_SOLVE_AUTO, RP_SOLVE_ITERATIVE, RP_SOLVE_DIRECT,
                                                             RP_SOLVE_DENSE};

static inline const char *call_name(int call) {
    static const char *const names[] = {"rp_directional",           "rp_hessian_vector",   "rp_gauss_newton_vector",
                                        "rp_hessian_matrix",        "rp_hessian_diagonal", "rp_gauss_newton_diagonal",
                                        "rp_sample_gradient_norms", "rp_sample_gradients", "rp_gradient_noise"};
    if (call < SOLVE_AUTO) return names[call];
    return call < TOOLS ? "rp_hessian_solve" : "rp_train";
}

/* How many numbers a call writes for n parameters and so many samples. */
static inline size_t written(int call, size_t n, int count) {
    switch (call) {
    case DIRECTIONAL: return 2;
    case HESSIAN_MATRIX: return n * n;
    case SAMPLE_NORMS:
    case SAMPLE_GRADIENTS: return (size_t)count;
    case GRADIENT_NOISE: return n + 4;
    default: return n;
    }
}

static inline int add_factors(void *user, const rp_sample_factors *f) {
    rp_real *out = (rp_real *)user;
    out[f->sample] += f->d[0] + (f->y ? f->y[0] : 0) + (f->states ? f->states[0] : 0);
    return 0;
}
static inline rp_status use_noise(rp_net *net, const rp_data *data, rp_real *out) {
    rp_noise noise;
    noise.gradient = out[0];
    noise.variance = out[1];
    noise.signal = out[2];
    noise.scale = out[3];
    rp_status status = rp_gradient_noise(net, data, &noise, out + 4);
    out[0] = noise.gradient;
    out[1] = noise.variance;
    out[2] = noise.signal;
    out[3] = status ? noise.scale : noise.scale * noise.signal; /* a quotient by a difference: its error is large */
    return status;
}
static inline rp_status use_solver(int call, rp_net *net, const rp_data *data, const rp_real *v, rp_real *out) {
    rp_solve_options options = options_of(solve_methods[call - SOLVE_AUTO], 0, 0.5, 0);
    return rp_hessian_solve(net, data, v, out, &options, NULL);
}
static inline rp_optimizer computed_step(int call) {
    rp_optimizer o = rp_newton();
    if (call == CUBIC_STEP || call == ADAPTIVE_STEP) o = rp_sgd(1);
    if (call == CUBIC_PARTITIONING_STEP) {
        o = rp_partitioning();
        o.rate = 5;
    }
    if (call == PER_VARIABLE_STEP) o = rp_per_variable(1);
    if (call <= CUBIC_PARTITIONING_STEP) o.cubic_sigma = 1;
    o.cubic_adaptive = call == ADAPTIVE_STEP;
    o.full_hessian = call == NEWTON_STEP;
    return o;
}
static inline rp_status use_step(int call, rp_net *net, const rp_data *data, rp_real *out) {
    rp_optimizer o = computed_step(call);
    rp_status status = rp_train(net, &o, data, NULL);
    memcpy(out, rp_parameters(net), bytes_of(net));
    return status;
}
static inline rp_status use(int call, rp_net *net, const rp_data *data, const rp_real *v, rp_real *out) {
    switch (call) {
    case DIRECTIONAL: return rp_directional(net, data, v, out, out + 1);
    case HESSIAN_VECTOR: return rp_hessian_vector(net, data, v, out);
    case GAUSS_NEWTON_VECTOR: return rp_gauss_newton_vector(net, data, v, out);
    case HESSIAN_MATRIX: return rp_hessian_matrix(net, data, 1000, out);
    case HESSIAN_DIAGONAL: return rp_hessian_diagonal(net, data, out);
    case GAUSS_NEWTON_DIAGONAL: return rp_gauss_newton_diagonal(net, data, out);
    case SAMPLE_NORMS: return rp_sample_gradient_norms(net, data, out);
    case SAMPLE_GRADIENTS: return rp_sample_gradients(net, data, add_factors, out);
    case GRADIENT_NOISE: return use_noise(net, data, out);
    default: return call < TOOLS ? use_solver(call, net, data, v, out) : use_step(call, net, data, out);
    }
}

/* Three nets of smooth layers, a stack first; only that can be solved directly. */
static inline void describe_image_net(rp_net *net) {
    rp_conv2d_desc grouped = conv2d_of(4, 3, 2);
    grouped.padding_height = grouped.padding_width = 1;
    rp_conv2d(net, 4, 3, 1, 1);
    rp_activation(net, RP_SOFTPLUS);
    rp_conv2d_with(net, &grouped);
    rp_add(net, 1);
    rp_max_pool2d(net, 2, 1);
    rp_avg_pool2d(net, 2, 2);
    rp_dense(net, 8);
    rp_recursive(net, 3, RP_TANH);
    rp_add(net, 6);
}
static inline rp_net *some_net(int which, const rp_config *config) {
    const rp_shape inputs[] = {rp_vector(12), rp_image(2, 6, 6), rp_sequence(5, 6)};
    const rp_recurrent_desc all = all_states_of(6, RP_TANH);
    rp_net *net = rp_net_new(inputs[which], config);
    switch (which) {
    case 0:
        rp_dense(net, 14);
        rp_activation(net, RP_TANH);
        rp_dense(net, 9);
        rp_activation(net, RP_GELU);
        break;
    case 1: describe_image_net(net); break;
    default:
        rp_recurrent_with(net, &all);
        rp_recurrent_with(net, &all);
        rp_add(net, 0);
        rp_recurrent(net, 5, RP_SIGMOID);
    }
    rp_dense(net, OUTPUTS);
    rp_loss(net, RP_SOFTMAX_CROSS_ENTROPY);
    return net;
}
static inline int is_possible(int which, int call) { return which == 0 || call != SOLVE_DIRECT; }

enum { SOME_NETS = 3, SOME_BATCH = 16, SOME_INPUTS = 72, SOME_PARAMETERS = 500 };
typedef struct some_samples {
    rp_real inputs[SOME_BATCH * SOME_INPUTS], v[SOME_PARAMETERS]; /* v: for the tools that take a vector */
    int labels[SOME_BATCH];
    rp_data data;
} some_samples;
static inline void draw_some(some_samples *s) {
    test_random random = {5};
    random_reals(&random, s->inputs, SOME_BATCH * SOME_INPUTS);
    random_reals(&random, s->v, SOME_PARAMETERS);
    for (int i = 0; i < SOME_BATCH; i++) s->labels[i] = test_int(&random, 0, OUTPUTS - 1);
    s->data = rp_labelled(s->inputs, s->labels, SOME_BATCH);
}

/* One call with a heap of which allocation `fail_at` after the build fails; `needed`: how many there were. */
static inline rp_status call_with(heap *h, int which, int call, long fail_at, const some_samples *s, rp_real *out,
                                  long *needed) {
    rp_config config = heap_config(h);
    h->fail_at = -1;
    h->calls = 0;
    rp_net *net = some_net(which, &config);
    CHECK(rp_net_build(net, SOME_BATCH, 1) == RP_OK, "%s", rp_error(net));
    long before = h->calls;
    if (fail_at >= 0) h->fail_at = before + fail_at;
    rp_status status = use(call, net, &s->data, s->v, out);
    *needed = h->calls - before;
    h->fail_at = -1;
    if (status == RP_ERR_MEMORY) { /* the net can be used, and the call succeeds with memory */
        CHECK(has_words(rp_error(net), call_name(call)), "'%s' does not name %s", rp_error(net), call_name(call));
        WORKS(use(call, net, &s->data, s->v, out));
    }
    rp_net_free(net);
    CHECK(h->live == 0, "net %d, call %d: %ld live", which, call, h->live);
    return status;
}
static inline void check_memory(int which, int call, const some_samples *s) {
    size_t mark = memory_mark(), size = SOME_PARAMETERS * SOME_PARAMETERS;
    heap h = new_heap();
    rp_real *expected = new_reals(size), *out = new_reals(size);
    long needed, ignored;
    rp_status status = call_with(&h, which, call, -1, s, expected, &needed);
    CHECK(status == RP_OK, "net %d, call %d: %d", which, call, (int)status);
    CHECK(needed <= 12, "net %d, call %d: %ld allocations", which, call, needed);
    for (long n = 0; n < needed; n++) {
        memset(out, 0, size * sizeof *out);
        status = call_with(&h, which, call, n, s, out, &ignored);
        CHECK(status == RP_ERR_MEMORY, "net %d, call %d: %d with allocation %ld of %ld failing", which, call,
              (int)status, n, needed);
        CHECK(!memcmp(out, expected, size * sizeof *out), "net %d, call %d: another result after allocation %ld failed",
              which, call, n);
    }
    memory_release(mark);
}
static inline void test_memory(int from, int to) { /* of these calls */
    some_samples s;
    draw_some(&s);
    for (int which = 0; which < SOME_NETS; which++)
        for (int call = from; call < to; call++)
            if (is_possible(which, call)) check_memory(which, call, &s);
}

/* What these calls give, one after the other, each twice; 0: there is no such net here. */
typedef struct call_results {
    rp_real *of[CALLS];
    size_t count[CALLS];
} call_results;
static inline int get_results(int which, int from, int to, const rp_config *config, call_results *results) {
    some_samples s;
    rp_net *net = some_net(which, config);
    draw_some(&s);
    rp_status status = rp_net_build(net, SOME_BATCH, 1);
    CHECK(status == RP_OK || status == RP_ERR_UNSUPPORTED, "%s", rp_error(net));
    memset(results, 0, sizeof *results);
    for (int call = from; call < to; call++) {
        if (status || !is_possible(which, call)) continue;
        results->count[call] = written(call, count_of(net), SOME_BATCH);
        results->of[call] = new_reals(results->count[call]);
        for (int time = 0; time < 2; time++) WORKS(use(call, net, &s.data, s.v, results->of[call]));
    }
    rp_net_free(net);
    return status == RP_OK;
}

/* Any number of threads gives the same bits, any instruction set the same to rounding. */
static inline void check_same_results(int which, int from, int to, const call_results *a, const call_results *b) {
    for (int call = from; call < to; call++)
        CHECK(!a->count[call] || !memcmp(a->of[call], b->of[call], a->count[call] * sizeof(rp_real)),
              "net %d, call %d: other bits", which, call);
}
static inline void check_like_results(int which, int from, int to, const call_results *got, const call_results *other) {
    for (int call = from; call < to; call++) {
        int newton = call == GAUSS_NEWTON_STEP || call == NEWTON_STEP; /* solves to a tolerance of 0.01 */
        double error = 0, largest = 0, allowed = newton ? 3e-2 : 1e-3;
        for (size_t i = 0; i < got->count[call]; i++) {
            error = larger(fabs((double)got->of[call][i] - (double)other->of[call][i]), error);
            largest = fmax(largest, fabs((double)other->of[call][i]));
        }
        CHECK(error <= allowed * largest, "net %d, call %d: off by %g, largest %g", which, call, error, largest);
    }
}
static inline void test_threads_and_sets(int from, int to) { /* by these calls */
    for (int which = 0; which < SOME_NETS; which++) {
        size_t mark = memory_mark();
        call_results alone, together;
        rp_config one = config_of(RP_ISA_AUTO, 1), three = config_of(RP_ISA_AUTO, 3);
        get_results(which, from, to, &one, &alone);
        get_results(which, from, to, &three, &together);
        check_same_results(which, from, to, &alone, &together);
#ifndef RP_DOUBLE /* it has but one set */
        static const rp_isa_kind sets[] = {RP_ISA_AVX2, RP_ISA_AVX512, RP_ISA_NEON, RP_ISA_AMX};
        rp_config plain = config_of(RP_ISA_PORTABLE, 1);
        call_results portable, other;
        get_results(which, from, to, &plain, &portable);
        for (int set = 0; set < 4; set++) {
            rp_config config = config_of(sets[set], 1);
            if (get_results(which, from, to, &config, &other)) check_like_results(which, from, to, &other, &portable);
        }
#endif
        memory_release(mark);
    }
}
#endif
