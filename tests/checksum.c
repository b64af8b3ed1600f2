/* Prints a checksum of the bits of what the library computes, for many nets and all functions: run it before and after
   a change that must not alter results, and compare. `checksum TEXT` prints the lines whose name contains TEXT.

   A line: its name, with everything that was chosen; the checksum; the mean magnitude of the numbers in it, which tells
   rounding from mistakes; and, if a call failed, the first status that was not RP_OK. Each line has its own net and
   seed: it does not depend on others. Nothing is taken from other files of this directory, which may change together
   with the library.

   A compiler that may fuse multiplications and additions (GCC's default) may do it elsewhere when code is only moved.
   With CFLAGS="-O2 -ffp-contract=off" it does not, before and after. */
#define RP_IMPLEMENTATION
#define RP_THREADS
#include "rp.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

/* What depends on details of the interface: data, rules, names of fields and functions. */

static rp_data data_of(const rp_real *inputs, const rp_real *targets, const int *labels, const rp_real *weights,
                       int count) {
    rp_data data = labels ? rp_labelled(inputs, labels, count) : rp_targeted(inputs, targets, count);
    data.weights = weights;
    return data;
}

enum { RULES = 12, RULES_OF_A_KIND = 4 };
static const struct {
    const char *name;
    rp_rule_kind kind;
} rule_kinds[] = {{"paths", RP_PATHS}, {"jacobian", RP_JACOBIAN}, {"sampled", RP_SAMPLED}};
static const char *rule_name(int n) { return rule_kinds[n / RULES_OF_A_KIND].name; }
static const char *bound_name(int n) { return n % 2 ? "Jensen" : "tight"; }
static const char *scale_name(int n) { return n / 2 % 2 ? "fan-in" : "one"; }
static rp_rule rule_of(int n) {
    rp_rule rule;
    memset(&rule, 0, sizeof rule);
    rule.kind = rule_kinds[n / RULES_OF_A_KIND].kind;
    rule.bound = n % 2 ? RP_BOUND_JENSEN : RP_BOUND_TIGHT;
    rule.scale = n / 2 % 2 ? RP_SCALE_FAN_IN : RP_SCALE_ONE;
    return rule;
}

static void set_cubic(rp_optimizer *optimizer, double sigma, int adaptive) {
    optimizer->cubic_sigma = (rp_real)sigma;
    optimizer->cubic_adaptive = adaptive;
}
static void set_rate_decay(rp_optimizer *optimizer, double decay, int steps) {
    optimizer->rate_decay = (rp_real)decay;
    optimizer->rate_decay_steps = steps;
}
static int computes_length(const rp_optimizer *o) { return o->cubic_sigma > 0 || o->method == RP_NEWTON; }
static int has_rule(const rp_optimizer *o) { return o->method == RP_PARTITIONING || o->method == RP_NEWTON; }
static rp_real adapted(const rp_step *step) { return step->lambda > 0 ? step->lambda : step->sigma; }

/* That a caller's own loss is tried with, beside the line's. */
static rp_rule own_rule(void) {
    rp_rule rule;
    memset(&rule, 0, sizeof rule);
    rule.kind = RP_PATHS;
    rule.bound = RP_BOUND_TIGHT;
    rule.scale = RP_SCALE_ONE;
    return rule;
}
static rp_shape output_shape(rp_net *net, int layer) {
    rp_layer info;
    memset(&info, 0, sizeof info);
    rp_layer_info(net, layer, &info);
    return info.out;
}

static const struct {
    const char *name;
    rp_activation_kind kind;
} activations[] = {
    {"identity", RP_IDENTITY}, {"relu", RP_RELU}, {"leaky", RP_LEAKY_RELU}, {"tanh", RP_TANH}, {"sigmoid", RP_SIGMOID},
    {"softplus", RP_SOFTPLUS}, {"elu", RP_ELU},   {"gelu", RP_GELU},        {"silu", RP_SILU},
};
static const struct {
    const char *name;
    rp_loss_kind kind;
} losses[] = {
    {"squared error", RP_SQUARED_ERROR},
    {"softmax", RP_SOFTMAX_CROSS_ENTROPY},
    {"binary", RP_BINARY_CROSS_ENTROPY},
    {"Huber", RP_HUBER},
    {"Poisson", RP_POISSON},
};
static const struct {
    const char *name;
    rp_isa_kind kind;
} isas[] = {
    {"portable", RP_ISA_PORTABLE},
    {"avx2", RP_ISA_AVX2},
    {"avx512", RP_ISA_AVX512},
    {"neon", RP_ISA_NEON},
};
static const struct {
    const char *name;
    rp_solve_method kind;
} solvers[] = {
    {"auto", RP_SOLVE_AUTO},
    {"iterative", RP_SOLVE_ITERATIVE},
    {"dense", RP_SOLVE_DENSE},
    {"direct", RP_SOLVE_DIRECT},
};

/* Optimizers. The first can take a step from the flat arrays, the next need the batch for its length, the last for the
   step itself. */

enum { PARTITIONINGS = 10, GRADIENTS = 10, CUBICS = 6, NEWTONS = 7 };
enum { PIECEWISE = PARTITIONINGS + GRADIENTS, DIRECTED = PIECEWISE + CUBICS, NEWTON_END = DIRECTED + NEWTONS };
enum { PER_VARIABLE = NEWTON_END, OPTIMIZERS = PER_VARIABLE + 3 };

static rp_optimizer rated_partitioning(void) {
    rp_optimizer optimizer = rp_partitioning();
    optimizer.rate = 5;
    optimizer.curvature_average = (rp_real)0.999;
    return optimizer;
}

static const char *partitioning_of(int which, rp_optimizer *o) {
    *o = rated_partitioning();
    switch (which) {
    case 0: return "partitioning";
    case 1: return o->momentum = 0, "partitioning without momentum";
    case 2: return o->curvature_average = 0, "partitioning without average";
    case 3: return o->momentum = o->curvature_average = 0, "partitioning without state";
    case 4: return *o = rp_algorithm_1((rp_real)0.5), "Algorithm 1";
    case 5: return *o = rp_algorithm_1((rp_real)0.5), o->damping = (rp_real)0.1, "Algorithm 1 damped";
    case 6: return o->weight_decay = (rp_real)0.01, "partitioning with weight decay";
    case 7: return o->weight_decay = (rp_real)0.01, o->decoupled = 1, "partitioning decoupled";
    case 8: return set_rate_decay(o, 0.7, 2), "partitioning with rate decay";
    default: return o->momentum = (rp_real)0.5, o->damping = (rp_real)0.1, o->rate = 1, "partitioning damped";
    }
}

static const char *gradient_of(int which, rp_optimizer *o) {
    *o = which < 5 ? rp_sgd((rp_real)0.05) : rp_adam((rp_real)0.02);
    switch (which) {
    case 0: return "SGD";
    case 1: return o->momentum = (rp_real)0.9, "momentum";
    case 2: return o->momentum = (rp_real)0.9, o->nesterov = 1, "Nesterov";
    case 3: return o->weight_decay = (rp_real)0.1, set_rate_decay(o, 0.5, 0), "SGD with weight and rate decay";
    case 4: return o->weight_decay = (rp_real)0.1, o->decoupled = 1, "SGD decoupled";
    case 5: return "Adam";
    case 6: return o->weight_decay = (rp_real)0.1, set_rate_decay(o, 0.9, 3), "Adam with decays";
    case 7: return o->weight_decay = (rp_real)0.1, o->decoupled = 1, "AdamW";
    case 8: return *o = rp_adagrad((rp_real)0.1), "Adagrad";
    default: return *o = rp_adadelta(1), "Adadelta";
    }
}

static const char *cubic_of(int which, rp_optimizer *o) {
    *o = which < 4 ? rp_sgd((rp_real)0.1) : rated_partitioning();
    set_cubic(o, which % 2 ? 1e-3 : 2, which % 2);
    switch (which) {
    case 0: return "cubic SGD";
    case 1: return o->momentum = (rp_real)0.5, "adaptive cubic momentum";
    case 2: return o->weight_decay = (rp_real)0.1, "cubic SGD with weight decay";
    case 3: return o->weight_decay = (rp_real)0.1, o->decoupled = 1, "adaptive cubic SGD decoupled";
    case 4: return "cubic partitioning";
    default: return "adaptive cubic partitioning";
    }
}

static const char *newton_of(int which, rp_optimizer *o) {
    *o = rp_newton();
    o->iterations = 20;
    o->full_hessian = which % 2;
    switch (which) {
    case 0: return "Newton";
    case 1: return "Newton with the Hessian";
    case 2: return o->lambda = (rp_real)1e-4, "Newton hardly damped";
    case 3: return o->lambda = (rp_real)1e-4, "Newton with the Hessian hardly damped";
    case 4: return o->weight_decay = (rp_real)0.1, "Newton with weight decay";
    case 5: return o->weight_decay = (rp_real)0.1, o->decoupled = 1, "Newton with the Hessian decoupled";
    default: return set_cubic(o, 1, 0), "Newton cubic";
    }
}

static const char *per_variable_of(int which, rp_optimizer *o) {
    *o = rp_per_variable(10);
    switch (which) {
    case 0: return o->rate = (rp_real)0.1, "per variable";
    case 1: return o->weight_decay = (rp_real)0.1, "per variable with weight decay";
    default: return set_cubic(o, 1, 0), "per variable cubic";
    }
}

static const char *optimizer_of(int which, rp_rule rule, rp_optimizer *o) {
    const char *name;
    if (which < PARTITIONINGS) name = partitioning_of(which, o);
    else if (which < PIECEWISE) name = gradient_of(which - PARTITIONINGS, o);
    else if (which < DIRECTED) name = cubic_of(which - PIECEWISE, o);
    else if (which < NEWTON_END) name = newton_of(which - DIRECTED, o);
    else name = per_variable_of(which - PER_VARIABLE, o);
    if (has_rule(o)) o->rule = rule;
    return name;
}

/* A line: a net, its data, and the checksum. */

enum { MOST_LAYERS = 64 };
typedef struct line {
    uint64_t random;
    char name[4000];
    rp_net *net;
    rp_shape input;
    size_t factors[MOST_LAYERS][3]; /* how many numbers rp_sample_gradients gives: d, y, states */
    int layers, loss, outputs, steps;
    int count, batch, samples; /* of a batch, of the largest, in the data set */
    size_t inputs, parameters;
    rp_real *x, *targets, *weights;
    int *labels;
    rp_data data, set;
    rp_rule rule;
    uint64_t hash;
    double magnitude, hashed;
    rp_status status;
} line;

static void *allocate(size_t size) {
    void *memory = calloc(size + 1, 1);
    if (!memory) exit(2);
    return memory;
}
static rp_real *new_reals(size_t count) { return (rp_real *)allocate(count * sizeof(rp_real)); }

static uint64_t random_bits(uint64_t *state) { /* splitmix64 */
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}
static double uniform(line *l) { return (double)(random_bits(&l->random) >> 11) / 9007199254740992.0; }
static int between(line *l, int low, int high) { return low + (int)(uniform(l) * (high - low + 1)); }
static int chance(line *l, double probability) { return uniform(l) < probability; }
static double normal(line *l) { /* nearly */
    uint64_t bits = random_bits(&l->random);
    uint64_t sum = (bits & 65535) + (bits >> 16 & 65535) + (bits >> 32 & 65535) + (bits >> 48);
    return ((double)sum - 131070) / 37837;
}
static int smaller(int a, int b) { return a < b ? a : b; }

static void add_bits(line *l, uint64_t bits) {
    l->hash = (l->hash ^ bits) * UINT64_C(0x100000001B3);
    l->hash ^= l->hash >> 29; /* FNV-1a by words: the high bits must come down */
}
static void add_integer(line *l, int64_t x) { add_bits(l, (uint64_t)x); }
static void add_double(line *l, double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    add_bits(l, bits);
    l->magnitude += x < 0 ? -x : x;
    l->hashed++;
}
static void add_real(line *l, rp_real x) { add_double(l, (double)x); } /* has all its bits, but for a NaN's */
static void add_reals(line *l, const rp_real *x, size_t count) {
    for (size_t i = 0; i < count; i++) add_real(l, x[i]);
}
static void add_parameters(line *l) { add_reals(l, rp_parameters(l->net), l->parameters); }
static void add_status(line *l, rp_status status) {
    if (!l->status) l->status = status;
    add_integer(l, status);
}

static void add_step(line *l, int whole) {
    rp_step step;
    memset(&step, 0, sizeof step);
    add_status(l, rp_last_step(l->net, &step));
    add_integer(l, step.taken);
    add_real(l, step.alpha);
    if (!whole) return;
    add_real(l, step.first);
    add_real(l, step.second);
    add_real(l, step.ratio);
    add_real(l, adapted(&step));
    add_integer(l, step.products);
    add_integer(l, step.fallback);
}
static void add_score(line *l, const rp_score *score) {
    add_real(l, score->loss);
    add_real(l, score->accuracy);
    add_integer(l, score->count);
}

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
static void
note(line *l, const char *format, ...) {
    size_t length = strlen(l->name);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(l->name + length, sizeof l->name - length, format, arguments);
    va_end(arguments);
}

/* Nets, described in words. */

static rp_activation_kind activation_named(const char *name) {
    for (int i = 0; i < COUNT(activations); i++)
        if (!strcmp(activations[i].name, name)) return activations[i].kind;
    fprintf(stderr, "checksum: there is no activation %s\n", name);
    exit(2);
}

static rp_shape shape_named(const char *text) {
    int a, b, c;
    if (sscanf(text, "image %d %d %d", &a, &b, &c) == 3) return rp_image(a, b, c);
    if (sscanf(text, "sequence %d %d", &a, &b) == 2) return rp_sequence(a, b);
    return rp_vector(sscanf(text, "vector %d", &a) == 1 ? a : 0);
}

static int add_conv2d(rp_net *net, const char *text) {
    rp_conv2d_desc d;
    memset(&d, 0, sizeof d);
    sscanf(text, "conv %d %dx%d stride %dx%d padding %dx%d groups %d", &d.filters, &d.kernel_height, &d.kernel_width,
           &d.stride_height, &d.stride_width, &d.padding_height, &d.padding_width, &d.groups);
    return rp_conv2d_with(net, &d);
}

static int add_states(rp_net *net, int units, rp_activation_kind activation) {
    rp_recurrent_desc d;
    memset(&d, 0, sizeof d);
    d.units = units;
    d.activation = activation;
    d.all_states = 1;
    return rp_recurrent_with(net, &d);
}

static int add_named(rp_net *net, const char *text) {
    char name[16];
    int a, b, c, d;
    if (!strncmp(text, "conv ", 5)) return add_conv2d(net, text);
    if (sscanf(text, "square %d %d stride %d padding %d", &a, &b, &c, &d) == 4) return rp_conv2d(net, a, b, c, d);
    if (sscanf(text, "dense %d", &a) == 1) return rp_dense(net, a);
    if (sscanf(text, "max %d stride %d", &a, &b) == 2) return rp_max_pool2d(net, a, b);
    if (sscanf(text, "average %d stride %d", &a, &b) == 2) return rp_avg_pool2d(net, a, b);
    if (!strcmp(text, "global")) return rp_global_avg_pool2d(net);
    if (sscanf(text, "recurrent %d %15s", &a, name) == 2) return rp_recurrent(net, a, activation_named(name));
    if (sscanf(text, "states %d %15s", &a, name) == 2) return add_states(net, a, activation_named(name));
    if (sscanf(text, "recursive %d %15s", &a, name) == 2) return rp_recursive(net, a, activation_named(name));
    if (sscanf(text, "add %d", &a) == 1) return rp_add(net, a);
    return rp_activation(net, activation_named(text));
}

static size_t size_of(rp_shape s) { return (size_t)s.steps * (size_t)s.channels * (size_t)s.height * (size_t)s.width; }
static rp_shape last_shape(line *l) { return l->layers ? output_shape(l->net, l->layers - 1) : l->input; }

/* Appends a layer, or changes the last. */
static void describe(line *l, const char *text) {
    rp_shape in = last_shape(l), out;
    size_t *factors = l->factors[l->layers];
    int last = l->layers - 1, steps = in.steps;
    int recurrent = !strncmp(text, "recurrent", 9) || !strncmp(text, "states", 6);
    double slope;
    note(l, "; %s", text);
    if (!strcmp(text, "no bias")) rp_no_bias(l->net, last);
    else if (!strcmp(text, "frozen")) rp_freeze(l->net, last, 1);
    else if (sscanf(text, "slope %lf", &slope) == 1) rp_negative_slope(l->net, last, (rp_real)slope);
    else {
        l->layers = add_named(l->net, text) + 1;
        out = last_shape(l);
        factors[0] = size_of(out), factors[1] = size_of(in), factors[2] = 0;
        if (recurrent) factors[0] = factors[2] = (size_t)steps * (size_t)out.channels;
        if (sscanf(text, "recursive %d", &steps) != 1) return;
        factors[0] = factors[2] = (size_t)steps * size_of(out), factors[1] = 0;
    }
}

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
static void
describef(line *l, const char *format, ...) {
    char text[200];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    describe(l, text);
}

static void start_net(line *l, const char *input, const rp_config *config) {
    note(l, "%s", input);
    l->input = shape_named(input);
    l->net = rp_net_new(l->input, config);
    if (!l->net) exit(2);
}

/* Random nets. STACK: of dense layers and activations. */

typedef enum family { STACK, SMALL, ANY } family;

static const char *random_activation(line *l) { return activations[between(l, 0, COUNT(activations) - 1)].name; }
static int largest(line *l, family f) { return f == ANY ? chance(l, 0.15) ? 40 : 12 : f == SMALL ? 4 : 6; }

static void random_changes(line *l, const char *activation, int affine) {
    static const double slopes[] = {0, 0.25, 0.5, 1.5};
    int sloped = !strcmp(activation, "leaky") || !strcmp(activation, "elu");
    if (sloped && chance(l, 0.6)) describef(l, "slope %g", slopes[between(l, 0, 3)]);
    if (affine && chance(l, 0.2)) describe(l, "no bias");
    if (affine && chance(l, 0.1)) describe(l, "frozen");
}

static void random_dense(line *l, int most) {
    describef(l, "dense %d", between(l, 1, most));
    random_changes(l, "", 1);
}
static void random_sigma(line *l) {
    const char *activation = random_activation(l);
    describe(l, activation);
    random_changes(l, activation, 0);
}

/* One side of a window. */
static void random_side(line *l, int size, int *kernel, int *stride, int *padding) {
    *padding = chance(l, 0.5) ? 0 : between(l, 1, 2);
    *kernel = between(l, 1, smaller(size + 2 * *padding, chance(l, 0.3) ? 5 : 3));
    *stride = between(l, 1, chance(l, 0.2) ? *kernel + 1 : 2);
}

static void random_conv2d(line *l, rp_shape s, int most) {
    int groups = chance(l, 0.5) ? 1 : chance(l, 0.5) ? s.channels : between(l, 1, s.channels);
    int height, width, down, right, top, left;
    random_side(l, s.height, &height, &down, &top);
    random_side(l, s.width, &width, &right, &left);
    if (chance(l, 0.3) && height <= s.width + 2 * top)
        describef(l, "square %d %d stride %d padding %d", between(l, 1, most), height, down, top);
    else {
        while (s.channels % groups) groups--;
        describef(l, "conv %d %dx%d stride %dx%d padding %dx%d groups %d", groups * between(l, 1, most / groups + 1),
                  height, width, down, right, top, left, groups);
    }
    random_changes(l, "", 1);
}

static void random_pool2d(line *l, rp_shape s) {
    int window = between(l, 1, smaller(smaller(s.height, s.width), 4)), stride = between(l, 1, window + 1);
    double which = uniform(l);
    if (which < 0.2) describe(l, "global");
    else describef(l, "%s %d stride %d", which < 0.6 ? "max" : "average", window, stride);
}

static void random_recurrent(line *l, int most) {
    const char *activation = random_activation(l);
    int units = between(l, 1, most);
    describef(l, "%s %d %s", chance(l, 0.6) ? "states" : "recurrent", units, activation);
    random_changes(l, activation, 1);
}
static void random_recursive(line *l) {
    const char *activation = random_activation(l);
    describef(l, "recursive %d %s", between(l, 1, 4), activation);
    random_changes(l, activation, 1);
}

static int same_shape(rp_shape a, rp_shape b) {
    int same = a.kind == b.kind && a.steps == b.steps && a.channels == b.channels;
    return same && a.height == b.height && a.width == b.width;
}
static void random_add(line *l) {
    rp_shape s = last_shape(l);
    int source = between(l, RP_INPUT, l->layers - 1);
    while (!same_shape(source == RP_INPUT ? l->input : output_shape(l->net, source), s))
        source = between(l, RP_INPUT, l->layers - 1);
    describef(l, "add %d", source);
}

static void random_layer(line *l, family f, int most) {
    rp_shape s = last_shape(l);
    double which = uniform(l);
    if (f == STACK && which < 0.6) random_dense(l, most);
    else if (f == STACK || which < 0.2) random_sigma(l);
    else if (which < 0.35) random_add(l);
    else if (s.kind == RP_SHAPE_SEQUENCE) random_recurrent(l, most);
    else if (s.kind == RP_SHAPE_IMAGE && which < 0.7) random_conv2d(l, s, most);
    else if (s.kind == RP_SHAPE_IMAGE) random_pool2d(l, s);
    else if (which < 0.55 && size_of(s) <= 12) random_recursive(l);
    else random_dense(l, most);
}

static void random_net(line *l, family f, const rp_config *config) {
    int most = largest(l, f), a = between(l, 1, most), b = between(l, 1, smaller(most, 12)), affine;
    int kind = f == STACK ? 2 : between(l, 0, 2);
    char input[64];
    if (kind == 0) snprintf(input, sizeof input, "image %d %d %d", between(l, 1, smaller(most, 4)), smaller(a, 12), b);
    if (kind == 1) snprintf(input, sizeof input, "sequence %d %d", b, a);
    if (kind == 2) snprintf(input, sizeof input, "vector %d", a);
    start_net(l, input, config);
    for (int more = between(l, 1, f == SMALL ? 3 : 5); more > 0; more--) random_layer(l, f, most);
    affine = strstr(l->name, "dense") || strstr(l->name, "recur") || strstr(l->name, "states");
    if (size_of(last_shape(l)) > 6 || !affine || chance(l, 0.3)) random_dense(l, 6);
}

/* Layers from a list of words. */
static void listed_net(line *l, const char *list, const rp_config *config) {
    char *copy = (char *)allocate(strlen(list));
    char *text = strtok(strcpy(copy, list), ";");
    start_net(l, text, config);
    for (text = strtok(NULL, ";"); text; text = strtok(NULL, ";")) describe(l, text + (*text == ' '));
    free(copy);
}

/* Data. */

static double random_target(line *l) {
    rp_loss_kind loss = losses[l->loss].kind;
    if (loss == RP_SQUARED_ERROR || loss == RP_HUBER) return normal(l);
    return uniform(l) * (loss == RP_POISSON ? 3 : 1);
}

static void choose_data(line *l, int loss, int count, int batches) {
    static const double deltas[] = {0.25, 1, 1.5};
    rp_loss_kind kind = losses[loss].kind;
    double delta = deltas[between(l, 0, 2)];
    int labels, weights = chance(l, 0.4), binary;
    l->loss = loss;
    l->outputs = (int)size_of(last_shape(l));
    binary = kind == RP_BINARY_CROSS_ENTROPY && l->outputs == 1;
    labels = chance(l, 0.6) && (kind == RP_SOFTMAX_CROSS_ENTROPY || binary);
    l->count = count;
    l->batch = chance(l, 0.5) ? count : count + between(l, 1, 20);
    l->samples = batches * l->batch + between(l, 1, l->batch);
    note(l, " | %s%s%s", losses[loss].name, labels ? ", labels" : "", weights ? ", weights" : "");
    note(l, ", %d of %d samples", count, l->batch);
    rp_loss(l->net, kind);
    if (kind == RP_HUBER) rp_huber_delta(l->net, (rp_real)delta), note(l, ", delta %g", delta);
    l->labels = labels ? (int *)allocate((size_t)l->samples * sizeof(int)) : NULL;
    l->weights = weights ? new_reals((size_t)l->samples) : NULL;
}

static void draw_data(line *l) {
    int classes = losses[l->loss].kind == RP_SOFTMAX_CROSS_ENTROPY ? l->outputs : 2;
    size_t numbers;
    l->inputs = size_of(l->input);
    numbers = (size_t)l->samples * l->inputs;
    l->x = new_reals(numbers);
    for (size_t i = 0; i < numbers; i++) l->x[i] = i % 19 == 5 ? 0 : (rp_real)normal(l);
    numbers = l->labels ? 0 : (size_t)l->samples * (size_t)l->outputs;
    l->targets = l->labels ? NULL : new_reals(numbers);
    for (size_t i = 0; i < numbers; i++) l->targets[i] = (rp_real)random_target(l);
    for (int s = 0; s < l->samples; s++) {
        if (l->labels) l->labels[s] = between(l, 0, classes - 1);
        if (l->weights) l->weights[s] = chance(l, 0.1) ? 0 : (rp_real)(0.1 + 2 * uniform(l));
    }
    l->data = data_of(l->x, l->targets, l->labels, l->weights, l->count);
    l->set = data_of(l->x, l->targets, l->labels, l->weights, l->samples);
}

static rp_real *random_vector(line *l, size_t count) {
    rp_real *v = new_reals(count);
    for (size_t i = 0; i < count; i++) v[i] = (rp_real)normal(l);
    return v;
}

static void line_free(line *l) {
    rp_net_free(l->net);
    free(l->x), free(l->targets), free(l->weights), free(l->labels);
    free(l);
}

/* What a line computes; `which` is a variant. */

static void do_gradient(line *l, int which) {
    rp_real loss = 0;
    (void)which;
    add_status(l, rp_backward(l->net, &l->data, NULL, &loss));
    add_real(l, loss);
    add_reals(l, rp_gradient(l->net), l->parameters);
}

static void do_backward(line *l, int which) { /* the sampled rule draws again */
    rp_real loss = 0;
    (void)which;
    for (int times = l->rule.kind == RP_SAMPLED ? 2 : 1; times > 0; times--) {
        add_status(l, rp_backward(l->net, &l->data, &l->rule, &loss));
        add_real(l, loss);
        add_reals(l, rp_gradient(l->net), l->parameters);
        add_reals(l, rp_curvature(l->net), l->parameters);
    }
}

static void train(line *l, const rp_optimizer *optimizer) {
    rp_real loss = 0;
    add_status(l, rp_train(l->net, optimizer, &l->data, &loss));
    add_real(l, loss);
    add_step(l, computes_length(optimizer));
    add_parameters(l);
}

static void do_train(line *l, int which) {
    rp_optimizer optimizer;
    optimizer_of(which, l->rule, &optimizer);
    for (int step = 0; step < l->steps; step++) train(l, &optimizer);
    if (!computes_length(&optimizer)) return;
    add_reals(l, rp_gradient(l->net), l->parameters);
    add_reals(l, rp_step_array(l->net), l->parameters);
}

/* Layers that are frozen and thawed, and optimizers that are changed, between steps. */
static void do_switch(line *l, int which) {
    rp_optimizer one, two;
    optimizer_of(which, l->rule, &one);
    optimizer_of((which + 5) % PIECEWISE, l->rule, &two);
    add_status(l, rp_prepare(l->net, &one));
    for (int step = 0; step < 6; step++) {
        for (int layer = 0; layer < l->layers; layer++)
            if (step % 2 == 0) rp_freeze(l->net, layer, step == 2 && layer % 2 == 0);
        train(l, step == 4 ? &two : &one);
    }
}

static void fill_arrays(line *l, const rp_optimizer *optimizer) {
    rp_real loss = 0;
    add_status(l, rp_backward(l->net, &l->data, &l->rule, &loss));
    add_real(l, loss);
    if (optimizer->method != RP_PER_VARIABLE) return;
    add_status(l, rp_hessian_diagonal(l->net, &l->data, rp_curvature(l->net)));
}

static void do_pieces(line *l, int which) {
    rp_optimizer optimizer;
    optimizer_of(which, l->rule, &optimizer);
    for (int step = 0; step < 4; step++) {
        fill_arrays(l, &optimizer);
        if (step % 2) add_status(l, rp_update(l->net, &optimizer));
        else {
            add_status(l, rp_direction(l->net, &optimizer));
            add_reals(l, rp_step_array(l->net), l->parameters);
            add_status(l, rp_move(l->net, (rp_real)0.5));
        }
        add_parameters(l);
    }
}

/* A cubic step by its pieces. */
static void do_length(line *l, int which) {
    rp_optimizer optimizer;
    optimizer_of(which, l->rule, &optimizer);
    for (int step = 0; step < 3; step++) {
        rp_real first = 0, second = 0;
        double alpha;
        fill_arrays(l, &optimizer);
        add_status(l, rp_direction(l->net, &optimizer));
        add_status(l, rp_directional(l->net, &l->data, rp_step_array(l->net), &first, &second));
        alpha = rp_cubic_length((double)first, (double)second, 1, 0.5);
        add_real(l, first);
        add_real(l, second);
        add_double(l, alpha);
        add_status(l, rp_move(l->net, (rp_real)alpha));
        add_parameters(l);
    }
}

/* The caller's own loss: without a second derivative, with one and a rule of its own, with one and the line's rule. */
static void do_forward(line *l, int which) {
    size_t numbers = (size_t)l->count * (size_t)l->outputs;
    rp_real *d = random_vector(l, numbers), *h = random_vector(l, numbers);
    const rp_rule own = own_rule();
    for (size_t i = 0; i < numbers; i++) h[i] = h[i] < 0 ? 0 : h[i];
    (void)which;
    for (int way = 0; way < 3; way++) {
        add_status(l, rp_forward(l->net, l->x, l->count));
        add_reals(l, rp_output(l->net), numbers);
        add_status(l, rp_backward_from(l->net, d, way ? h : NULL, way == 2 ? &l->rule : &own));
        add_reals(l, rp_gradient(l->net), l->parameters);
        if (way) add_reals(l, rp_curvature(l->net), l->parameters);
    }
    free(d), free(h);
}

static void do_predict(line *l, int which) {
    int counts[] = {1, l->count, l->samples};
    rp_real *out = new_reals((size_t)l->samples * (size_t)l->outputs);
    rp_workspace *workspace = rp_workspace_new(l->net, l->count);
    (void)which;
    for (int i = 0; i < COUNT(counts); i++) {
        add_status(l, rp_predict(l->net, l->x, counts[i], out));
        add_reals(l, out, (size_t)counts[i] * (size_t)l->outputs);
        add_status(l, rp_predict_with(l->net, workspace, l->x, counts[i], out));
        add_reals(l, out, (size_t)counts[i] * (size_t)l->outputs);
    }
    rp_workspace_free(workspace);
    free(out);
}

/* A data set that comes in batches. */
typedef struct stream {
    line *owner;
    int size;
} stream;
static int fill_batch(void *user, int index, rp_data *batch) {
    const stream *s = (const stream *)user;
    const line *l = s->owner;
    int at = index * s->size;
    if (at >= l->samples) return 0;
    *batch = l->set;
    batch->inputs += (size_t)at * l->inputs;
    if (l->targets) batch->targets += (size_t)at * (size_t)l->outputs;
    if (l->labels) batch->labels += at;
    if (l->weights) batch->weights += at;
    batch->count = smaller(s->size, l->samples - at);
    return 1;
}

static void do_evaluate(line *l, int which) {
    stream parts;
    rp_data data = rp_streamed(fill_batch, &parts);
    rp_score score;
    memset(&score, 0, sizeof score);
    parts.owner = l, parts.size = (l->batch + 1) / 2;
    (void)which;
    add_status(l, rp_evaluate(l->net, &l->data, &score, NULL)), add_score(l, &score);
    add_status(l, rp_evaluate(l->net, &l->set, &score, NULL)), add_score(l, &score);
    add_status(l, rp_evaluate(l->net, &data, &score, NULL)), add_score(l, &score);
}

static int watch(void *user, const rp_progress *progress) {
    line *l = ((stream *)user)->owner;
    add_integer(l, progress->epoch);
    add_integer(l, progress->step);
    add_integer(l, progress->steps);
    add_integer(l, progress->epoch_done);
    add_real(l, progress->loss);
    add_score(l, &progress->validation);
    add_real(l, progress->last.alpha);
    return 0;
}
static rp_real lower_rate(void *user, int64_t step, rp_real rate) {
    (void)user;
    return rate / (rp_real)(step + 1);
}

static void add_report(line *l, const rp_fit_report *report) {
    add_integer(l, report->epochs);
    add_integer(l, report->steps);
    add_real(l, report->loss);
    add_score(l, &report->validation);
    add_real(l, report->best_loss);
    add_integer(l, report->best_epoch);
    add_integer(l, report->stopped);
    add_integer(l, report->last.taken);
    add_real(l, report->last.alpha);
}

static const char *const fits[] = {"shuffled", "in order", "validated", "streamed", "scheduled", "in small batches"};
static const int fit_optimizers[] = {0, 3, 1 + PARTITIONINGS, 5 + PARTITIONINGS, 1 + PIECEWISE, DIRECTED};
enum { FITS = COUNT(fits), FIT_VARIANTS = FITS * COUNT(fit_optimizers) };

static void do_fit(line *l, int which) {
    int way = which % FITS;
    stream parts;
    rp_data stream_data = rp_streamed(fill_batch, &parts);
    rp_optimizer optimizer;
    rp_fit_options options;
    rp_fit_report report;
    parts.owner = l, parts.size = (l->batch + 1) / 2;
    optimizer_of(fit_optimizers[which / FITS], l->rule, &optimizer);
    memset(&options, 0, sizeof options), memset(&report, 0, sizeof report);
    options.epochs = l->steps / 2;
    options.seed = 7;
    options.keep_order = way == 1;
    options.batch = way == 5 ? (l->batch + 2) / 3 : 0;
    options.user = &parts;
    options.progress = way == 1 ? NULL : watch;
    if (way == 2) options.validation = &l->data, options.patience = 1, options.keep_best = 1;
    if (way == 3) options.validation = &stream_data;
    if (way == 4) options.schedule = lower_rate;
    add_status(l, rp_fit(l->net, &optimizer, way == 3 ? &stream_data : &l->set, &options, &report));
    add_report(l, &report);
    add_parameters(l);
}

/* Exact derivatives. */

static void do_directional(line *l, int which) {
    rp_real *v = random_vector(l, l->parameters), first = 0, second = 0;
    (void)which;
    add_status(l, rp_directional(l->net, &l->data, v, &first, &second));
    add_real(l, first);
    add_real(l, second);
    add_status(l, rp_directional(l->net, &l->data, v, &second, NULL));
    add_real(l, second);
    free(v);
}

static void do_product(line *l, int which) {
    rp_real *v = random_vector(l, l->parameters), *out = new_reals(l->parameters);
    rp_real *outs[] = {out, v}; /* the second in place */
    for (int i = 0; i < (l->parameters < 10000 ? 2 : 1); i++) {
        if (which) add_status(l, rp_gauss_newton_vector(l->net, &l->data, v, outs[i]));
        else add_status(l, rp_hessian_vector(l->net, &l->data, v, outs[i]));
        add_reals(l, outs[i], l->parameters);
    }
    free(v), free(out);
}

static void do_matrix(line *l, int which) {
    enum { MOST = 300 };
    size_t numbers = l->parameters <= MOST ? l->parameters * l->parameters : 0;
    rp_real *out = new_reals(numbers);
    (void)which;
    add_status(l, rp_hessian_matrix(l->net, &l->data, MOST, out));
    add_reals(l, out, numbers);
    free(out);
}

static void do_diagonal(line *l, int which) {
    rp_real *out = new_reals(l->parameters);
    if (which) add_status(l, rp_gauss_newton_diagonal(l->net, &l->data, out));
    else add_status(l, rp_hessian_diagonal(l->net, &l->data, out));
    add_reals(l, out, l->parameters);
    free(out);
}

static int add_factors(void *user, const rp_sample_factors *factors) {
    line *l = (line *)user;
    const size_t *sizes = l->factors[factors->layer];
    add_integer(l, factors->sample);
    add_integer(l, factors->layer);
    add_reals(l, factors->d, sizes[0]);
    if (factors->y) add_reals(l, factors->y, sizes[1]);
    if (factors->states) add_reals(l, factors->states, sizes[2]);
    return 0;
}
static void do_samples(line *l, int which) {
    rp_real *norms = new_reals((size_t)l->count);
    (void)which;
    add_status(l, rp_sample_gradient_norms(l->net, &l->data, norms));
    add_reals(l, norms, (size_t)l->count);
    add_status(l, rp_sample_gradients(l->net, &l->data, add_factors, l));
    free(norms);
}

static void do_noise(line *l, int which) {
    rp_real *variance = which ? new_reals(l->parameters) : NULL;
    rp_noise noise;
    memset(&noise, 0, sizeof noise);
    add_status(l, rp_gradient_noise(l->net, &l->data, &noise, variance));
    add_real(l, noise.gradient);
    add_real(l, noise.variance);
    add_real(l, noise.signal);
    add_real(l, noise.scale);
    if (variance) add_reals(l, variance, l->parameters);
    free(variance);
}

static int watch_solve(void *user, int iteration, rp_real residual) {
    add_integer((line *)user, iteration);
    add_real((line *)user, residual);
    return 0;
}
static const char *solver_used(rp_solve_method method) {
    for (int i = 0; i < COUNT(solvers); i++)
        if (solvers[i].kind == method) return solvers[i].name;
    return "?";
}

/* Every solver with both matrices and two dampings. NUMBERS: of one; more than it uses, since seeds come from them. */
enum { MATRICES = 2, DAMPINGS = 2, SOLVES_OF_ONE = MATRICES * DAMPINGS, NUMBERS = 8 };
static void do_solve(line *l, int which) {
    rp_real *b = random_vector(l, l->parameters), *x = new_reals(l->parameters);
    rp_solve_options options;
    rp_solve_report report;
    memset(&options, 0, sizeof options), memset(&report, 0, sizeof report);
    options.gauss_newton = which % MATRICES;
    options.damping = (rp_real)(which / MATRICES % DAMPINGS ? 0.01 : 0.5);
    options.method = solvers[which / NUMBERS].kind;
    options.iterations = 100;
    options.progress = watch_solve;
    options.user = l;
    add_status(l, rp_hessian_solve(l->net, &l->data, b, x, &options, &report));
    add_reals(l, x, l->parameters);
    add_integer(l, solver_used(report.method)[0] + 256 * solver_used(report.method)[2]);
    add_real(l, report.residual);
    add_integer(l, report.products);
    add_integer(l, report.refinements);
    add_integer(l, report.negative_curvature);
    free(b), free(x);
}

static void do_images(line *l, int which) {
    unsigned char bytes[16 + 2 * 6 * 4] = {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 6, 0, 0, 0, 4};
    rp_idx images;
    (void)which;
    for (int i = 16; i < COUNT(bytes); i++) bytes[i] = (unsigned char)between(l, 0, 255);
    add_status(l, rp_images_memory(bytes, sizeof bytes, (rp_real)-0.4, (rp_real)2.8, &images));
    add_reals(l, images.values, images.values ? (size_t)images.count * (size_t)images.size : 0);
    rp_idx_free(&images);
}

/* The names of variants. */

static const char *no_name(int which) { return which ? "?" : ""; }
static const char *rule_kind_name(int which) { return rule_kinds[which].name; }
static const char *optimizer_name(int which) {
    rp_optimizer ignored;
    return optimizer_of(which, rule_of(0), &ignored);
}
static const char *fit_name(int which) {
    static char name[100];
    snprintf(name, sizeof name, "%s by %s", fits[which % FITS], optimizer_name(fit_optimizers[which / FITS]));
    return name;
}
static const char *matrix_name(int which) { return which ? "Gauss-Newton" : "Hessian"; }
static const char *noise_name(int which) { return which ? "with variance" : ""; }
static const char *solve_name(int which) {
    static char name[100];
    const char *damping = which / MATRICES % DAMPINGS ? "0.01" : "0.5";
    snprintf(name, sizeof name, "%s %s, damping %s", solvers[which / NUMBERS].name, matrix_name(which % MATRICES),
             damping);
    return name;
}

/* What is computed with random nets: variants from first to end, each with so many nets, of at most so many samples. */
typedef struct job {
    const char *name;
    void (*work)(line *l, int which);
    const char *(*variant)(int which);
    int first, end, nets, most;
    family of;
} job;
#define SOLVES(solver, nets, family) \
    { "solve", do_solve, solve_name, NUMBERS *(solver), NUMBERS *(solver) + SOLVES_OF_ONE, nets, 16, family }
static const job jobs[] = {
    {"gradient", do_gradient, no_name, 0, 1, 30, 100, ANY},
    {"backward", do_backward, no_name, 0, 1, 300, 100, ANY},
    {"train", do_train, optimizer_name, 0, NEWTON_END, 6, 100, ANY},
    {"train", do_train, optimizer_name, PER_VARIABLE, OPTIMIZERS, 5, 33, STACK},
    {"train", do_train, optimizer_name, PER_VARIABLE, OPTIMIZERS, 4, 17, SMALL},
    {"switch", do_switch, optimizer_name, 0, PIECEWISE, 1, 33, ANY},
    {"pieces", do_pieces, optimizer_name, 0, PIECEWISE, 3, 100, ANY},
    {"pieces", do_pieces, optimizer_name, PER_VARIABLE, PER_VARIABLE + 2, 3, 33, STACK},
    {"length", do_length, optimizer_name, PIECEWISE, DIRECTED, 4, 100, ANY},
    {"forward", do_forward, no_name, 0, 1, 60, 100, ANY},
    {"predict", do_predict, no_name, 0, 1, 40, 100, ANY},
    {"evaluate", do_evaluate, no_name, 0, 1, 30, 100, ANY},
    {"fit", do_fit, fit_name, 0, FIT_VARIANTS, 2, 33, ANY},
    {"directional", do_directional, no_name, 0, 1, 40, 100, ANY},
    {"product", do_product, matrix_name, 0, 2, 40, 100, ANY},
    {"matrix", do_matrix, no_name, 0, 1, 12, 17, SMALL},
    {"diagonal", do_diagonal, matrix_name, 0, 2, 15, 33, STACK},
    {"diagonal", do_diagonal, matrix_name, 0, 2, 12, 17, SMALL},
    {"diagonal", do_diagonal, matrix_name, 1, 2, 20, 100, ANY},
    {"samples", do_samples, no_name, 0, 1, 40, 100, ANY},
    {"noise", do_noise, noise_name, 0, 2, 20, 100, ANY},
    SOLVES(0, 3, STACK),
    SOLVES(1, 3, STACK),
    SOLVES(2, 3, STACK),
    SOLVES(3, 3, STACK),
    SOLVES(0, 2, SMALL),
    SOLVES(1, 2, SMALL),
    SOLVES(2, 2, SMALL),
    {"images", do_images, no_name, 0, 1, 1, 1, SMALL},
};

/* Nets whose sizes cross the edges of blocks and panels, and that are worth several threads. */
typedef struct wide_net {
    const char *layers;
    int loss, count, few_outputs;
} wide_net;
#define TWICE(text) text text
static const wide_net wide_nets[] = {
    {"vector 784; dense 64; tanh; dense 2; tanh; dense 64; tanh; dense 784", 0, 17, 0},
    {"vector 784; dense 400; relu; dense 100; relu; dense 36; relu; dense 10", 1, 33, 1},
    {"vector 128" TWICE(TWICE("; dense 128; tanh; dense 128; relu; dense 128; gelu")) "; dense 3", 1, 33, 1},
    {"vector 97; dense 257; gelu; dense 65; silu; dense 95; elu; dense 33; no bias", 3, 65, 0},
    {"vector 255; dense 97; leaky; slope 0.25; dense 300; softplus; dense 193; sigmoid; dense 16", 2, 47, 0},
    {"vector 256; dense 256; relu; add -1; dense 256; relu; add 1; dense 3", 1, 40, 1},
    {"vector 200; recursive 4 tanh; dense 3", 4, 33, 1},
    {"sequence 5 64; states 100 tanh; recurrent 96 tanh; dense 3", 1, 33, 1},
    {"image 3 20 20; square 20 3 stride 1 padding 1; relu; max 2 stride 2; "
     "conv 32 3x3 stride 1x1 padding 1x1 groups 4; tanh; average 2 stride 2; global; dense 3",
     1, 9, 1},
    {"image 16 16 16; conv 16 3x5 stride 1x2 padding 1x2 groups 16; gelu; "
     "conv 40 1x1 stride 1x1 padding 0x0 groups 1; relu; global; dense 3",
     4, 17, 1},
    {"image 8 16 16; square 8 3 stride 1 padding 1; softplus; add -1; "
     "square 24 3 stride 2 padding 0; silu; dense 65",
     0, 17, 0},
};
static const job wide_jobs[] = {
    {"gradient", do_gradient, no_name, 0, 1, 0, 0, ANY},
    {"backward", do_backward, rule_kind_name, 0, COUNT(rule_kinds), 0, 0, ANY},
    {"train", do_train, optimizer_name, 0, 1, 0, 0, ANY},
    {"train", do_train, optimizer_name, 2, 3, 0, 0, ANY},
    {"train", do_train, optimizer_name, PARTITIONINGS + 7, PARTITIONINGS + 8, 0, 0, ANY},
    {"train", do_train, optimizer_name, PIECEWISE + 1, PIECEWISE + 2, 0, 0, ANY},
    {"forward", do_forward, no_name, 0, 1, 0, 0, ANY},
    {"predict", do_predict, no_name, 0, 1, 0, 0, ANY},
    {"evaluate", do_evaluate, no_name, 0, 1, 0, 0, ANY},
    {"fit", do_fit, fit_name, 0, 1, 0, 0, ANY},
    {"directional", do_directional, no_name, 0, 1, 0, 0, ANY},
    {"product", do_product, matrix_name, 0, 2, 0, 0, ANY},
    {"samples", do_samples, no_name, 0, 1, 0, 0, ANY},
    {"noise", do_noise, noise_name, 1, 2, 0, 0, ANY},
};

/* On what it runs. */
typedef struct place {
    int isa, threads;
} place;
static rp_config config_of(place at) {
    rp_config config;
    memset(&config, 0, sizeof config);
    config.isa = isas[at.isa].kind;
    config.threads = at.threads;
    return config;
}
static int available(int isa) {
    place at = {0, 1};
    rp_config config;
    rp_net *net;
    int good;
    at.isa = isa;
    config = config_of(at);
    net = rp_net_new(rp_vector(1), &config);
    rp_dense(net, 1);
    good = rp_net_build(net, 1, 1) == RP_OK;
    rp_net_free(net);
    return good;
}

static const char *filter = "";

static uint64_t seed_of(const job *j, int which, int n) { /* the same on every machine */
    uint64_t seed = (uint64_t)which * 1000 + (uint64_t)n;
    for (const char *c = j->name; *c; c++) seed = seed * 257 + (uint64_t)*c;
    return seed * 3 + j->of;
}

static void finish(line *l, const job *j, int which, uint64_t seed) {
    add_status(l, rp_net_build(l->net, l->batch, seed));
    if (l->status) printf("%s: %s\n", l->name, rp_error(l->net));
    if (l->status) exit(1);
    l->parameters = rp_parameter_count(l->net);
    draw_data(l);
    add_parameters(l);
    j->work(l, which);
    printf("%s  %016llx %.6g", l->name, (unsigned long long)l->hash, l->magnitude / l->hashed);
    if (l->status) printf(" (%s)", rp_status_text(l->status));
    printf("\n");
}

static line *start(const job *j, int which, int rule, uint64_t seed, place at) {
    line *l = (line *)allocate(sizeof *l);
    const char *variant = j->variant(which);
    l->random = seed, l->hash = UINT64_C(0xCBF29CE484222325);
    l->rule = rule_of(rule);
    note(l, "%s%s%s | %s", j->name, *variant ? " " : "", variant, sizeof(rp_real) == 8 ? "double" : "float");
    note(l, ", %s, threads %d", isas[at.isa].name, at.threads);
    note(l, " | rule %s, %s, %s | ", rule_name(rule), bound_name(rule), scale_name(rule));
    return l;
}

static void run_random(const job *j, int which, int n, place at) {
    static const int counts[] = {1, 3, 16, 17, 33, 100};
    uint64_t seed = seed_of(j, which, n);
    line *l = start(j, which, (which + 5 * n) % RULES, seed, at);
    rp_config config = config_of(at);
    int allowed = COUNT(counts);
    while (counts[allowed - 1] > j->most) allowed--;
    l->steps = 5;
    random_net(l, j->of, &config);
    choose_data(l, (which + n) % COUNT(losses), counts[between(l, 0, allowed - 1)], 2);
    if (strstr(l->name, filter)) finish(l, j, which, seed);
    line_free(l);
}

static void run_wide(const job *j, int which, int n, place at) {
    const wide_net *w = &wide_nets[n];
    int kind = which % COUNT(rule_kinds), sweeps = j->work == do_backward && rule_kinds[kind].kind == RP_JACOBIAN;
    uint64_t seed = seed_of(j, which, n);
    line *l = start(j, which, kind * RULES_OF_A_KIND + n % RULES_OF_A_KIND, seed, at);
    rp_config config = config_of(at);
    l->steps = 2;
    listed_net(l, w->layers, &config);
    choose_data(l, w->loss, w->count, 1);
    sweeps = sweeps && !w->few_outputs; /* one for each of many takes long */
    if (!sweeps && strstr(l->name, filter)) finish(l, j, which, seed);
    line_free(l);
}

static void run_job(const job *j, int isa, int nets, int most_threads, void (*run)(const job *, int, int, place)) {
    place at;
    at.isa = isa;
    for (int which = j->first; which < j->end; which++)
        for (int n = 0; n < nets; n++)
            for (at.threads = 1; at.threads <= most_threads; at.threads++) run(j, which, n, at);
}

int main(int count, char **arguments) {
    if (count > 1) filter = arguments[1];
    for (int isa = 0; isa < COUNT(isas); isa++) {
        if (!available(isa)) continue;
        for (int i = 0; i < COUNT(jobs); i++) run_job(&jobs[i], isa, jobs[i].nets, 1, run_random);
        for (int i = 0; i < COUNT(wide_jobs); i++) run_job(&wide_jobs[i], isa, COUNT(wide_nets), 2, run_wide);
    }
    return 0;
}
