/* Residual partitioning without a rate, beside Adam at the best of five: rp_partitioning() as it comes and rp_adam with
   a constant rate, with one that falls linearly to 0, and with the averages of the constant runs (of weight
   9 / (t + 9)). Each at its best by the mean over the seeds, and each task's row in multiples of the loss of the best
   constant Adam.

       cc -O2 bench/auto.c -lm -o auto && ./auto --help

   With RP_DATA=folder, which holds mnist/, fashion/ and cifar10/ (its binary version), the tasks on real images are
   added. Losses are those of validation samples after the last epoch, above the least that their targets allow. */
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "../examples/digits.h"
#include "median.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* WORST: a loss so many times Adam's is a failure, and so many times is all it counts in a mean. */
enum { TRAINING = 10000, VALIDATION = 5000, RATES = 5, MOST_SEEDS = 20, WORST = 100, CIFAR_SIZE = 3 * 32 * 32 };
static const double pi = 3.14159265358979;
static const double rates[RATES] = {3e-4, 1e-3, 3e-3, 1e-2, 3e-2};

enum { SEEDS, SAMPLES, EPOCHS, INPUTS, BATCH, WIDTH, DEPTH, NOISE, OPTIONS };
static struct {
    const char *name, *help;
    double value, low, high;
} options[OPTIONS] = {
    {"--seeds", "seeds 1 to N", 3, 1, MOST_SEEDS},
    {"--samples", "training samples", TRAINING, 1, TRAINING},
    {"--epochs", "passes over them", 5, 1, 1000},
    {"--inputs", "factor of all inputs", 1, 1e-6, 1e6},
    {"--batch", "factor of the batches; those below one sample have one", 1, 0, 1000},
    {"--width", "factor of the layers' widths", 1, 1e-2, 100},
    {"--depth", "layers of tasks `deep` and `smoothed`", 0, 1, 100},
    {"--noise", "share of training samples with a random label", 0, 0, 1},
};
static int quick, all, trace;

typedef struct samples {
    rp_real *inputs, *targets;
    int *labels;
} samples;

typedef struct set {
    const char *name;
    int size, targets, classes; /* numbers of a sample; 0: it has none */
    void (*draw)(uint64_t *random, int index, rp_real *x, rp_real *targets, int *label); /* NULL: another way */
    int state;                                                                           /* 1: loaded, -1: not there */
    samples part[2];                                                                     /* training and validation */
} set;

enum { SPIRALS, WAVES, DRAWN, COUNTS, TAILS, TONES, MNIST, FASHION, CIFAR, SETS };
/* What is learned: the set's labels or targets, the inputs themselves, inputs as shares from 0 to 1, or labels of which
   a tenth is spread over all classes. */
typedef enum goal { LABELS, TARGETS, THEMSELVES, SHARES, SMOOTHED } goal;
typedef enum front { DENSE, CONVOLUTIONS, ROWS, TONE_STEPS } front;

typedef struct task {
    const char *name;
    int extra, set; /* extra: trained only with --all or by name */
    goal learned;
    rp_loss_kind loss;
    double weight_decay;
    int batch;
    front first;
    int widths[4]; /* of hidden layers; 0 ends them */
    rp_activation_kind activation;
    int depth;    /* so many layers of the first width; 0: as they are */
    double start; /* first parameters in [-start, start], and no biases; 0: the library's */
} task;

static const task tasks[] = {
    {"spirals", 0, SPIRALS, LABELS, RP_SOFTMAX_CROSS_ENTROPY, 0, 100, DENSE, {32, 32}, RP_TANH, 0, 0},
    {"waves", 0, WAVES, TARGETS, RP_SQUARED_ERROR, 0, 100, DENSE, {32, 32}, RP_TANH, 0, 0},
    {"ae-drawn", 0, DRAWN, THEMSELVES, RP_SQUARED_ERROR, 0, 100, DENSE, {64, 2, 64}, RP_TANH, 0, 0},
    {"clf-drawn", 0, DRAWN, LABELS, RP_SOFTMAX_CROSS_ENTROPY, 0, 100, DENSE, {400, 100, 36}, RP_SOFTPLUS, 0, 0},
    {"ae-mnist", 0, MNIST, THEMSELVES, RP_SQUARED_ERROR, 1e-2, 100, DENSE, {64, 2, 64}, RP_TANH, 0, 0},
    {"ae-fashion", 0, FASHION, THEMSELVES, RP_SQUARED_ERROR, 1e-2, 100, DENSE, {64, 2, 64}, RP_TANH, 0, 0},
    {"ae-cifar", 0, CIFAR, THEMSELVES, RP_SQUARED_ERROR, 1e-2, 100, DENSE, {64, 2, 64}, RP_TANH, 0, 0},
    {"clf-mnist", 0, MNIST, LABELS, RP_SOFTMAX_CROSS_ENTROPY, 1e-4, 100, DENSE, {400, 100, 36}, RP_SOFTPLUS, 0, 0},
    {"clf-fashion", 0, FASHION, LABELS, RP_SOFTMAX_CROSS_ENTROPY, 1e-4, 100, DENSE, {400, 100, 36}, RP_SOFTPLUS, 0, 0},
    {"clf-cifar", 0, CIFAR, LABELS, RP_SOFTMAX_CROSS_ENTROPY, 1e-4, 100, DENSE, {400, 100, 36}, RP_SOFTPLUS, 0, 0},
    {"deep", 0, MNIST, LABELS, RP_SOFTMAX_CROSS_ENTROPY, 0, 32, DENSE, {128}, RP_RELU, 12, 0.1},
    {"conv", 0, MNIST, LABELS, RP_SOFTMAX_CROSS_ENTROPY, 0, 100, CONVOLUTIONS, {0}, RP_RELU, 0, 0},
    {"rnn", 0, MNIST, LABELS, RP_SOFTMAX_CROSS_ENTROPY, 0, 100, ROWS, {0}, RP_TANH, 0, 0},
    {"counts", 1, COUNTS, TARGETS, RP_POISSON, 0, 50, DENSE, {32, 32}, RP_RELU, 0, 0},
    {"tails", 1, TAILS, TARGETS, RP_HUBER, 0, 64, DENSE, {64, 32}, RP_SILU, 0, 0},
    {"shares", 1, DRAWN, SHARES, RP_BINARY_CROSS_ENTROPY, 0, 100, DENSE, {128, 16, 128}, RP_ELU, 0, 0},
    {"smoothed", 1, DRAWN, SMOOTHED, RP_SOFTMAX_CROSS_ENTROPY, 0, 100, DENSE, {128}, RP_GELU, 4, 0},
    {"tones", 1, TONES, LABELS, RP_SOFTMAX_CROSS_ENTROPY, 0, 50, TONE_STEPS, {0}, RP_TANH, 0, 0},
};
enum { TASKS = sizeof tasks / sizeof *tasks };

/* A task with what its runs share. */
typedef struct job {
    const task *task;
    rp_data data[2]; /* training and validation */
    rp_real *inputs[2], *targets[2];
    int batch, outputs, steps;
    double least; /* the least that the validation loss could be */
} job;

static void *must(void *pointer) {
    if (pointer) return pointer;
    fprintf(stderr, "auto: out of memory\n");
    exit(1);
}
static rp_real *reals(int count, int size) {
    return (rp_real *)must(malloc((size_t)count * (size_t)size * sizeof(rp_real)));
}

static int *integers(int count) { return (int *)must(malloc((size_t)count * sizeof(int))); }

static double uniform(uint64_t *random) { return (double)(random_bits(random) >> 11) / 9007199254740992.0; }
static double normal(uint64_t *random) {
    double length = sqrt(-2 * log(1 - uniform(random)));
    return length * cos(2 * pi * uniform(random));
}

/* Two arms, a class each; one label in twenty is wrong. */
static void draw_spirals(uint64_t *random, int index, rp_real *x, rp_real *targets, int *label) {
    double r = sqrt(uniform(random)), angle = 7 * r + pi * (index % 2);
    (void)targets;
    x[0] = (rp_real)(r * cos(angle) + 0.04 * (uniform(random) - 0.5));
    x[1] = (rp_real)(r * sin(angle) + 0.04 * (uniform(random) - 0.5));
    *label = uniform(random) < 0.05 ? 1 - index % 2 : index % 2;
}

/* A smooth function of four numbers, and noise. */
static void draw_waves(uint64_t *random, int index, rp_real *x, rp_real *targets, int *label) {
    (void)index;
    (void)label;
    for (int k = 0; k < 4; k++) x[k] = (rp_real)(2 * uniform(random) - 1);
    double wave = sin(3 * (double)x[0]) + cos(4 * (double)x[3]) + (double)x[1] * (double)x[2];
    targets[0] = (rp_real)(wave + 0.6 * (uniform(random) - 0.5));
}

/* Poisson numbers, by counting how many uniform ones their product takes to fall below exp(-rate). */
static void draw_counts(uint64_t *random, int index, rp_real *x, rp_real *targets, int *label) {
    double v[6];
    (void)index;
    (void)label;
    for (int k = 0; k < 6; k++) {
        v[k] = 2 * uniform(random) - 1;
        x[k] = (rp_real)v[k];
    }
    double logs[3] = {1.5 * v[0] + sin(3 * v[1]), v[2] * v[3] + 1, 1 - 2 * v[4] * v[4] + v[5]};
    for (int k = 0; k < 3; k++) {
        double end = exp(-exp(logs[k])), product = uniform(random);
        int count = 0;
        for (; product > end; count++) product *= uniform(random);
        targets[k] = (rp_real)count;
    }
}

/* Noise with heavy tails: a normal number divided by another. */
static void draw_tails(uint64_t *random, int index, rp_real *x, rp_real *targets, int *label) {
    (void)index;
    (void)label;
    for (int k = 0; k < 8; k++) x[k] = (rp_real)normal(random);
    for (int k = 0; k < 2; k++) {
        double noise = normal(random) / (fabs(normal(random)) + 0.1);
        targets[k] = (rp_real)(sin(2 * (double)x[k]) * (double)x[2 + k] + 0.5 * (double)x[4 + k] + 0.3 * noise);
    }
}

/* Four frequencies, of which 50 steps can be heard in noise. */
static void draw_tones(uint64_t *random, int index, rp_real *x, rp_real *targets, int *label) {
    double phase = 2 * pi * uniform(random);
    (void)targets;
    *label = index % 4;
    for (int step = 0; step < 50; step++)
        for (int k = 0; k < 4; k++, x++)
            *x = (rp_real)(sin((0.15 + 0.1 * *label) * step + phase + k) + 0.8 * normal(random));
}

static set sets[SETS] = {
    {"spirals", 2, 0, 2, draw_spirals, 0, {{0}}},   {"waves", 4, 1, 0, draw_waves, 0, {{0}}},
    {"drawn", DIGITS_SIZE, 0, 10, NULL, 0, {{0}}},  {"counts", 6, 3, 0, draw_counts, 0, {{0}}},
    {"tails", 8, 2, 0, draw_tails, 0, {{0}}},       {"tones", 200, 0, 4, draw_tones, 0, {{0}}},
    {"mnist", DIGITS_SIZE, 0, 10, NULL, 0, {{0}}},  {"fashion", DIGITS_SIZE, 0, 10, NULL, 0, {{0}}},
    {"cifar10", CIFAR_SIZE, 0, 10, NULL, 0, {{0}}},
};

static int draw_part(set *s, int part) {
    uint64_t random = (uint64_t)part + 1;
    int count = part ? VALIDATION : TRAINING, *labels = integers(count);
    rp_real *x = reals(count, s->size), *t = reals(count, s->targets + 1);
    s->part[part].inputs = x;
    s->part[part].targets = t;
    s->part[part].labels = labels;
    if (!s->draw) digits_draw(random, count, x, labels);
    for (int i = 0; s->draw && i < count; i++)
        s->draw(&random, i, x + (ptrdiff_t)i * s->size, t + (ptrdiff_t)i * s->targets, &labels[i]);
    return 1;
}

static int missing(const char *path, const char *why) {
    fprintf(stderr, "auto: %s: %s\n", path, why);
    return 0;
}

static int read_idx(set *s, const char *folder, int part) {
    char path[1024];
    const char *kind = part ? "t10k" : "train";
    int least = part ? VALIDATION : TRAINING;
    rp_idx images, labels;
    snprintf(path, sizeof path, "%s/%s/%s-images-idx3-ubyte", folder, s->name, kind);
    if (rp_images(path, -1, 1, &images)) return missing(path, images.error);
    s->part[part].inputs = images.values;
    if (images.size != s->size || images.count < least) return missing(path, "too few images, or of another size");
    snprintf(path, sizeof path, "%s/%s/%s-labels-idx1-ubyte", folder, s->name, kind);
    if (rp_labels(path, 10, &labels)) return missing(path, labels.error);
    s->part[part].labels = labels.labels;
    return labels.count < least ? missing(path, "too few labels") : 1;
}

static int read_cifar(set *s, const char *folder, int part) {
    unsigned char image[1 + CIFAR_SIZE];
    char path[1024];
    int index = 0, count = part ? VALIDATION : TRAINING, *labels = integers(count);
    rp_real *x = reals(count, CIFAR_SIZE);
    snprintf(path, sizeof path, "%s/%s/%s.bin", folder, s->name, part ? "test_batch" : "data_batch_1");
    FILE *file = fopen(path, "rb");
    s->part[part].inputs = x;
    s->part[part].labels = labels;
    for (; file && index < count && fread(image, sizeof image, 1, file) == 1; index++) {
        labels[index] = image[0];
        for (int k = 0; k < CIFAR_SIZE; k++) *x++ = (rp_real)(image[1 + k] / 127.5 - 1);
    }
    if (file) fclose(file);
    return index < count ? missing(path, "cannot be read, or is too short") : 1;
}

static int load_part(set *s, int part) {
    const char *folder = getenv("RP_DATA");
    if (s < &sets[MNIST]) return draw_part(s, part);
    if (!folder) return part ? 0 : missing(s->name, "skipped, as RP_DATA is not set");
    return s == &sets[CIFAR] ? read_cifar(s, folder, part) : read_idx(s, folder, part);
}

static int load_set(set *s) {
    uint64_t random = 2;
    if (s->state) return s->state > 0;
    s->state = load_part(s, 0) && load_part(s, 1) ? 1 : -1;
    for (int i = 0; s->state > 0 && s->classes && i < TRAINING; i++)
        if (uniform(&random) < options[NOISE].value) s->part[0].labels[i] = random_below(&random, s->classes);
    return s->state > 0;
}

static void free_set(set *s) {
    for (int part = 0; part < 2; part++) {
        free(s->part[part].inputs);
        free(s->part[part].targets);
        free(s->part[part].labels);
    }
}

/* What the task learns from sample i, whose inputs are x. */
static void make_target(const task *t, const set *s, const rp_real *x, int label, rp_real *out) {
    if (t->learned == SMOOTHED)
        for (int k = 0; k < s->classes; k++) out[k] = (rp_real)(0.1 / s->classes + (k == label ? 0.9 : 0));
    else
        for (int k = 0; k < s->size; k++) out[k] = t->learned == SHARES ? (x[k] + 1) / 2 : x[k];
}

/* The least loss that any net could have on such targets: an entropy. Squared errors and labels allow 0. */
static double least_loss(rp_loss_kind loss, const rp_real *targets, int count, int outputs) {
    double sum = 0;
    for (int i = 0; i < count * outputs; i++) {
        double t = (double)targets[i], entropy = t > 0 ? -t * log(t) : 0;
        if (loss == RP_POISSON) sum += t + entropy;
        if (loss == RP_SOFTMAX_CROSS_ENTROPY) sum += entropy;
        if (loss == RP_BINARY_CROSS_ENTROPY) sum += entropy - (t < 1 ? (1 - t) * log(1 - t) : 0);
    }
    return sum / count;
}

static rp_data make_data(job *j, int part) {
    const task *t = j->task;
    const set *s = &sets[t->set];
    const samples *from = &s->part[part];
    int count = part ? VALIDATION : (int)options[SAMPLES].value;
    rp_real *x = j->inputs[part] = reals(count, s->size), *targets = j->targets[part] = reals(count, j->outputs);
    for (int i = 0; i < count * s->size; i++) x[i] = (rp_real)options[INPUTS].value * from->inputs[i];
    if (t->learned == LABELS) return rp_labelled(x, from->labels, count);
    for (int i = 0; i < count; i++)
        if (t->learned != TARGETS)
            make_target(t, s, from->inputs + (ptrdiff_t)i * s->size, from->labels[i],
                        targets + (ptrdiff_t)i * j->outputs);
    if (t->learned == TARGETS) memcpy(targets, from->targets, (size_t)count * (size_t)j->outputs * sizeof *targets);
    if (part) j->least = least_loss(t->loss, targets, count, j->outputs);
    return rp_targeted(x, targets, count);
}

static int outputs_of(const task *t) {
    const set *s = &sets[t->set];
    if (t->learned == TARGETS) return s->targets;
    return t->learned == LABELS || t->learned == SMOOTHED ? s->classes : s->size;
}

static void begin_job(job *j, const task *t) {
    memset(j, 0, sizeof *j);
    j->task = t;
    j->outputs = outputs_of(t);
    j->batch = (int)(t->batch * options[BATCH].value);
    if (j->batch < 1) j->batch = 1;
    for (int part = 0; part < 2; part++) j->data[part] = make_data(j, part);
    if (j->batch > j->data[0].count) j->batch = j->data[0].count;
    j->steps = (int)options[EPOCHS].value * ((j->data[0].count + j->batch - 1) / j->batch);
}

static void end_job(job *j) {
    for (int part = 0; part < 2; part++) {
        free(j->inputs[part]);
        free(j->targets[part]);
    }
}

static int widened(int units) {
    int wide = (int)(units * options[WIDTH].value + 0.5);
    return wide < 1 ? 1 : wide;
}

static void append_front(rp_net *net, front kind) {
    if (kind == ROWS) rp_recurrent(net, widened(64), RP_TANH);
    if (kind == TONE_STEPS) rp_recurrent(net, widened(48), RP_TANH);
    for (int filters = 8; kind == CONVOLUTIONS && filters <= 16; filters *= 2) {
        rp_conv2d(net, widened(filters), 5, 1, 0);
        rp_activation(net, RP_RELU);
        rp_max_pool2d(net, 2, 2);
    }
}

static rp_shape shape_of(const task *t) {
    switch (t->first) {
    case CONVOLUTIONS: return rp_image(1, DIGITS_SIDE, DIGITS_SIDE);
    case ROWS: return rp_sequence(DIGITS_SIDE, DIGITS_SIDE);
    case TONE_STEPS: return rp_sequence(50, 4);
    default: return rp_vector(sets[t->set].size);
    }
}

static void good(rp_status status, const rp_net *net) {
    if (!status) return;
    fprintf(stderr, "auto: %s\n", net ? rp_error(net) : "out of memory");
    exit(1);
}

static void append_dense(rp_net *net, int units, int biases) {
    int layer = rp_dense(net, units);
    if (!biases) rp_no_bias(net, layer);
}

static rp_net *make_net(const job *j, int seed) {
    const task *t = j->task;
    rp_net *net = (rp_net *)must(rp_net_new(shape_of(t), NULL));
    int depth = t->depth && options[DEPTH].value > 0 ? (int)options[DEPTH].value : t->depth;
    uint64_t random = (uint64_t)seed;
    append_front(net, t->first);
    for (int i = 0; t->depth ? i < depth : i < 4 && t->widths[i]; i++) {
        int units = t->widths[t->depth ? 0 : i];
        append_dense(net, units > 2 ? widened(units) : units, !(t->start > 0)); /* the bottleneck stays */
        rp_activation(net, t->activation);
    }
    append_dense(net, j->outputs, !(t->start > 0));
    if (t->learned == THEMSELVES) rp_activation(net, t->activation);
    rp_loss(net, t->loss);
    good(rp_net_build(net, j->batch, (uint64_t)seed), net);
    for (size_t i = 0; t->start > 0 && i < rp_parameter_count(net); i++)
        rp_parameters(net)[i] = (rp_real)(t->start * (2 * uniform(&random) - 1));
    return net;
}

/* One training. */
typedef struct run {
    rp_net *net;
    rp_real *averages; /* NULL: none are kept */
    int64_t step, limit, total;
    int traced;
} run;

static rp_real falling(void *user, int64_t step, rp_real rate) {
    return rate * (rp_real)(1 - (double)step / (double)((const run *)user)->total);
}

static void print_step(const run *r, const rp_progress *p) {
    static const char *const caps[] = {"nothing", "curvature", "energy", "a layer", "an undone step"};
    printf("    step %d: loss %.4g in the mean, length %.3g, bounded by %s%s%s\n", (int)r->step, (double)p->loss,
           (double)p->last.alpha, caps[p->last.cap], p->last.measured ? ", measured" : "",
           p->last.undone ? ", the step before undone" : "");
}

static int progress(void *user, const rp_progress *p) {
    run *r = (run *)user;
    const rp_real *w = rp_parameters(r->net);
    size_t count = r->averages ? rp_parameter_count(r->net) : 0;
    rp_real weight = (rp_real)(9 / ((double)r->step + 9));
    if (p->epoch_done) return 0;
    for (size_t i = 0; i < count; i++) r->averages[i] += weight * (w[i] - r->averages[i]);
    if (r->traced && (r->step % (r->total / 20 + 1) == 0 || p->last.undone)) print_step(r, p);
    return ++r->step >= r->limit;
}

static double validate(const job *j, rp_net *net) {
    rp_score score;
    if (rp_evaluate(net, &j->data[1], &score, NULL)) return HUGE_VAL;
    return (double)score.loss - j->least;
}

/* What came of it: validation losses, infinite if training fails; seconds of the processor. */
typedef struct outcome {
    double loss, averaged, seconds;
} outcome;

/* Trains for so many steps. With `average` the bench keeps the averages; the loss of partitioning is that of its own,
   which rp_fit leaves in place. */
static outcome train(const job *j, int seed, rp_optimizer optimizer, int linear, int average, int64_t steps) {
    rp_fit_options fit;
    run r;
    outcome o = {HUGE_VAL, HUGE_VAL, 0};
    memset(&fit, 0, sizeof fit);
    memset(&r, 0, sizeof r);
    r.net = make_net(j, seed);
    r.limit = steps;
    r.total = j->steps;
    r.traced = trace && !(optimizer.rate > 0) && steps == j->steps;
    size_t bytes = rp_parameter_count(r.net) * sizeof *r.averages;
    if (average) r.averages = (rp_real *)must(calloc(1, bytes));
    fit.epochs = (int)options[EPOCHS].value;
    fit.seed = (uint64_t)seed;
    fit.progress = progress;
    fit.schedule = linear ? falling : NULL;
    fit.user = &r;
    optimizer.weight_decay = (rp_real)j->task->weight_decay;
    clock_t start = clock();
    rp_status status = rp_fit(r.net, &optimizer, &j->data[0], &fit, NULL);
    o.seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    if (status && trace) printf("    stopped: %s\n", rp_error(r.net));
    if (!status) o.loss = validate(j, r.net);
    if (average && !status) {
        memcpy(rp_parameters(r.net), r.averages, bytes);
        o.averaged = validate(j, r.net);
    }
    free(r.averages);
    rp_net_free(r.net);
    return o;
}

static double mean(const double *values) {
    double sum = 0;
    int seeds = (int)options[SEEDS].value;
    for (int i = 0; i < seeds; i++) sum += values[i] / seeds;
    return sum;
}

/* A way to use Adam, at the rate of the least mean over the seeds. */
typedef struct best {
    double loss, rate;
} best;

static void keep_best(best *b, const double *losses, double rate) {
    double loss = mean(losses);
    if (!(loss < b->loss)) return;
    b->loss = loss;
    b->rate = rate;
}

/* Returns the time of a run, of those in which the bench does nothing else: the median over the seeds, at the fastest
   rate (units that a long rate has killed may slow a processor down, by subnormal numbers). */
enum { CONSTANT, LINEAR, AVERAGED, ADAMS };
static double run_adam(const job *j, best adam[ADAMS]) {
    double losses[ADAMS][MOST_SEEDS], seconds[MOST_SEEDS], least = HUGE_VAL;
    int seeds = (int)options[SEEDS].value;
    for (int i = 0; i < RATES; i++) {
        rp_optimizer optimizer = rp_adam((rp_real)rates[i]);
        if (quick && (i == 0 || i == RATES - 1)) continue;
        for (int s = 0; s < seeds; s++) {
            outcome constant = train(j, s + 1, optimizer, 0, 1, j->steps);
            outcome linear = train(j, s + 1, optimizer, 1, 0, j->steps);
            losses[CONSTANT][s] = constant.loss;
            losses[AVERAGED][s] = constant.averaged;
            losses[LINEAR][s] = linear.loss;
            seconds[s] = linear.seconds;
        }
        for (int k = 0; k < ADAMS; k++) keep_best(&adam[k], losses[k], rates[i]);
        double time = median(seconds, seeds);
        least = time < least ? time : least;
    }
    return least;
}

/* The columns that have a geometric mean. */
enum { OURS, LINEAR_ADAM, AVERAGED_ADAM, TIME, EQUAL_TIME, COLUMNS };
static double logs[COLUMNS];

static void print_ratio(int column, double ratio) {
    if (ratio < WORST) printf(" %8.3f ", ratio);
    else printf(" diverges ");
    logs[column] += log(ratio < WORST ? ratio : WORST);
}

static void run_task(const task *t) {
    job j;
    best adam[ADAMS] = {{HUGE_VAL, 0}, {HUGE_VAL, 0}, {HUGE_VAL, 0}};
    double losses[MOST_SEEDS], equal[MOST_SEEDS], seconds[MOST_SEEDS], low = HUGE_VAL, high = 0;
    int seeds = (int)options[SEEDS].value;
    begin_job(&j, t);
    if (trace) printf("%s\n", t->name);
    for (int s = 0; s < seeds; s++) {
        outcome o = train(&j, s + 1, rp_partitioning(), 0, 0, j.steps);
        losses[s] = o.loss;
        seconds[s] = o.seconds;
        low = o.loss < low ? o.loss : low;
        high = o.loss > high ? o.loss : high;
    }
    double adam_seconds = run_adam(&j, adam), time = median(seconds, seeds) / adam_seconds;
    int64_t steps = time > 1 ? (int64_t)((double)j.steps / time) : j.steps;
    for (int s = 0; s < seeds; s++) equal[s] = train(&j, s + 1, rp_partitioning(), 0, 0, steps).loss;
    double unit = adam[CONSTANT].loss;
    printf("| %-11s | %8.4g | %5g |", t->name, unit, adam[CONSTANT].rate);
    print_ratio(OURS, mean(losses) / unit);
    printf("| %6.3f to %6.3f |", low / unit, high / unit);
    print_ratio(LINEAR_ADAM, adam[LINEAR].loss / unit);
    printf("| %5g |", adam[LINEAR].rate);
    print_ratio(AVERAGED_ADAM, adam[AVERAGED].loss / unit);
    printf("| %5g |", adam[AVERAGED].rate);
    print_ratio(TIME, time);
    printf("|");
    print_ratio(EQUAL_TIME, mean(equal) / unit);
    printf("|\n");
    fflush(stdout);
    end_job(&j);
}

static void print_head(void) {
    printf("\n| task        | constant |  rate |  no rate | of its seeds     |   linear |  rate | averaged |  rate "
           "|     time | equal    |\n"
           "| ----------- | -------: | ----: | -------: | ---------------: | -------: | ----: | -------: | ----: "
           "| -------: | -------: |\n");
}

static void print_means(int count) {
    printf("| geom. mean  |        1 |       | %8.3f |                  | %8.3f |       | %8.3f |       | %8.3f | "
           "%8.3f |\n\n",
           exp(logs[OURS] / count), exp(logs[LINEAR_ADAM] / count), exp(logs[AVERAGED_ADAM] / count),
           exp(logs[TIME] / count), exp(logs[EQUAL_TIME] / count));
    printf("constant: loss of Adam at its best constant rate; all others are multiples of it. no rate: partitioning;\n"
           "time: of the processor, of its run, as a multiple of Adam's; equal: its loss after Adam's time.\n");
}

static int usage(const char *wrong) {
    FILE *to = wrong ? stderr : stdout;
    if (wrong) fprintf(to, "auto: %s is not an option, or has no good value\n", wrong);
    fprintf(to, "usage: auto [--quick] [--all] [--trace] [--tasks a,b] [option N]...\n"
                "  --quick    1 seed, 2000 samples, 3 rates\n"
                "  --all      the tasks of other losses, too\n"
                "  --trace    print what bounds the steps' lengths\n"
                "  --tasks    only these, separated by commas:");
    for (int i = 0; i < TASKS; i++) fprintf(to, " %s", tasks[i].name);
    fprintf(to, "\n");
    for (int i = 0; i < OPTIONS; i++)
        fprintf(to, "  %-9s  %s (%g)\n", options[i].name, options[i].help, options[i].value);
    return wrong ? 2 : 0;
}

static int read_flag(const char *name) {
    int *flag = NULL;
    if (!strcmp(name, "--quick")) flag = &quick;
    if (!strcmp(name, "--all")) flag = &all;
    if (!strcmp(name, "--trace")) flag = &trace;
    if (!flag) return 0;
    *flag = 1;
    if (flag == &quick) {
        options[SEEDS].value = 1;
        options[SAMPLES].value = 2000;
    }
    return 1;
}

static int read_number(const char *name, const char *text) {
    char *end;
    double value = strtod(text, &end);
    for (int i = 0; i < OPTIONS; i++)
        if (!strcmp(name, options[i].name) && end != text && !*end && value >= options[i].low &&
            value <= options[i].high) {
            options[i].value = value;
            return 1;
        }
    return 0;
}

/* Whether the list, separated by commas, has this name. */
static int listed(const char *list, const char *name) {
    size_t length = strlen(name);
    for (const char *at = list; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (!strncmp(at, name, length) && (!at[length] || at[length] == ',')) return 1;
    }
    return 0;
}

int main(int argc, char **argv) {
    const char *only = NULL;
    int count = 0;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--help")) return usage(NULL);
        if (read_flag(argv[i])) continue;
        if (!strcmp(argv[i], "--tasks") && *value) only = value;
        else if (!read_number(argv[i], value)) return usage(argv[i]);
        i++;
    }
    print_head();
    for (int i = 0; i < TASKS; i++) {
        int wanted = only ? listed(only, tasks[i].name) : all || !tasks[i].extra;
        if (!wanted || !load_set(&sets[tasks[i].set])) continue;
        run_task(&tasks[i]);
        count++;
    }
    if (!count) return usage("--tasks");
    print_means(count);
    for (int i = 0; i < SETS; i++) free_set(&sets[i]);
    return 0;
}
