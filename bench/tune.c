/* Looks for the one fixed setting of residual partitioning with a rate that does best over unlike tasks. Without a rate:
   auto.c. Every setting of a grid trains every task for a short while. The table shows validation
   losses as multiples of what Adam reaches at the best of three rates, and is sorted by their geometric mean.

       cc -O2 bench/tune.c -lm -o tune && ./tune --help

   With RP_DATA=folder, which holds mnist/ and fashion/, the tasks on real images are added. */
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "../examples/digits.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* WORST: a loss so many times Adam's is a failure, and so many times is all it counts. */
enum { BATCH = 100, VALIDATION = 2000, WORST = 100, MOST_TASKS = 8, MOST_VALUES = 12, MOST_SETTINGS = 4096 };

typedef struct task {
    const char *name;
    int widths[6]; /* inputs, then dense layers; 0 ends them */
    rp_activation_kind activation;
    int output_activation;
    rp_loss_kind loss;
    double weight_decay;
    rp_real *inputs, *targets; /* training samples, then VALIDATION more */
    int *labels;
    double adam; /* Adam's loss */
} task;

typedef struct setting {
    rp_optimizer optimizer;
    double ratio[MOST_TASKS], mean; /* losses as multiples of Adam's */
} setting;

/* The grid: an option of the command line replaces a list. */
typedef struct list {
    const char *option, *help;
    int choices; /* values are numbers of so many things; 0: any */
    int count;
    double values[MOST_VALUES];
} list;
enum { RATE, AVERAGE, MOMENTUM, SCALE, BOUND, RULE, DAMPING, CUBIC, ADAPTIVE, LISTS };

/* What the numbers of some lists stand for. */
enum { SCALES = 2, BOUNDS = 2, RULES = 3 };
static const rp_scale_kind scales[SCALES] = {RP_SCALE_ONE, RP_SCALE_FAN_IN};
static const rp_bound_kind bounds[BOUNDS] = {RP_BOUND_TIGHT, RP_BOUND_JENSEN};
static const rp_rule_kind rules[RULES] = {RP_PATHS, RP_JACOBIAN, RP_SAMPLED};
static list grid[LISTS] = {
    {"--rate", "rate", 0, 5, {5, 10, 25, 50, 100}},
    {"--average", "curvature_average", 0, 1, {0.99}},
    {"--momentum", "momentum", 0, 2, {0, 0.9}},
    {"--scale", "rule.scale: 0 one, 1 fan-in", SCALES, 2, {0, 1}},
    {"--bound", "rule.bound: 0 tight, 1 Jensen", BOUNDS, 1, {0}},
    {"--rule", "rule.kind: 0 paths, 1 Jacobian, 2 sampled", RULES, 2, {0, 2}},
    {"--damping", "damping", 0, 2, {1e-8, 1e-2}},
    {"--cubic", "cubic_sigma of a computed length, 0 none", 0, 1, {0}},
    {"--adaptive", "cubic_adaptive: 0 no, 1 yes", 2, 1, {0}},
};

static void *must(void *pointer) {
    if (pointer) return pointer;
    fprintf(stderr, "tune: out of memory\n");
    exit(1);
}

static rp_real uniform(uint64_t *random, double low, double high) {
    return (rp_real)(low + (high - low) * (double)(random_bits(random) >> 11) / 9007199254740992.0);
}

/* Two arms of a spiral, a class each; one label in twenty is wrong. */
static void draw_spirals(int count, rp_real *x, int *labels) {
    uint64_t random = 1;
    for (int i = 0; i < count; i++) {
        double r = sqrt((double)uniform(&random, 0, 1)), angle = 7 * r + 3.14159265358979 * (i % 2);
        x[2 * i] = (rp_real)(r * cos(angle)) + uniform(&random, -0.02, 0.02);
        x[2 * i + 1] = (rp_real)(r * sin(angle)) + uniform(&random, -0.02, 0.02);
        labels[i] = i % 2 ^ (random_bits(&random) % 20 == 0);
    }
}

/* A smooth function of four numbers, and noise. */
static void draw_waves(int count, rp_real *x, rp_real *t) {
    uint64_t random = 2;
    for (int i = 0; i < count; i++, x += 4) {
        for (int k = 0; k < 4; k++) x[k] = uniform(&random, -1, 1);
        t[i] = (rp_real)(sin(3 * (double)x[0]) + cos(4 * (double)x[3])) + x[1] * x[2] + uniform(&random, -0.3, 0.3);
    }
}

static task *add_task(task *tasks, int *count, const char *name, const task *kind) {
    task *t = &tasks[(*count)++];
    *t = *kind;
    t->name = name;
    return t;
}

static const task autoencoder = {"", {784, 64, 2, 64, 784, 0}, RP_TANH, 1, RP_SQUARED_ERROR, 0, NULL, NULL, NULL, 0};
static const task classifier = {
    "", {784, 400, 100, 36, 10, 0}, RP_SOFTPLUS, 0, RP_SOFTMAX_CROSS_ENTROPY, 0, NULL, NULL, NULL, 0};
static const task spirals = {"", {2, 32, 32, 2, 0, 0}, RP_TANH, 0, RP_SOFTMAX_CROSS_ENTROPY, 0, NULL, NULL, NULL, 0};
static const task waves = {"", {4, 32, 32, 1, 0, 0}, RP_TANH, 0, RP_SQUARED_ERROR, 0, NULL, NULL, NULL, 0};

static void add_images(task *tasks, int *count, const char *names[2], double decay, rp_real *images, int *labels) {
    task *a = add_task(tasks, count, names[0], &autoencoder), *c = add_task(tasks, count, names[1], &classifier);
    a->inputs = a->targets = c->inputs = images, c->labels = labels;
    a->weight_decay = 100 * decay, c->weight_decay = decay; /* the papers' 0.01 and 1e-4 on real images */
}

static void add_drawn(task *tasks, int *count, int samples) {
    const char *names[2] = {"AE drawn", "class. drawn"};
    size_t n = (size_t)samples;
    rp_real *images = (rp_real *)must(malloc(n * DIGITS_SIZE * sizeof *images));
    int *labels = (int *)must(malloc(n * sizeof *labels));
    digits_draw(1, samples, images, labels);
    add_images(tasks, count, names, 0, images, labels);
    task *s = add_task(tasks, count, "spirals", &spirals), *w = add_task(tasks, count, "waves", &waves);
    s->inputs = (rp_real *)must(malloc(2 * n * sizeof *images));
    s->labels = (int *)must(malloc(n * sizeof *labels));
    draw_spirals(samples, s->inputs, s->labels);
    w->inputs = (rp_real *)must(malloc(4 * n * sizeof *images));
    w->targets = (rp_real *)must(malloc(n * sizeof *images));
    draw_waves(samples, w->inputs, w->targets);
}

/* Training and validation samples both come from the training set. */
static void add_real(task *tasks, int *count, const char *set, const char *names[2], int samples) {
    const char *folder = getenv("RP_DATA");
    char path[1024];
    rp_idx images, labels;
    if (!folder) return;
    snprintf(path, sizeof path, "%s/%s/train-images-idx3-ubyte", folder, set);
    if (rp_images(path, -1, 1, &images)) {
        printf("%s\n", images.error);
        return;
    }
    snprintf(path, sizeof path, "%s/%s/train-labels-idx1-ubyte", folder, set);
    if (rp_labels(path, 10, &labels) || images.count < samples || labels.count < samples) {
        printf("%s: no labels, or too few samples\n", path);
        rp_idx_free(&images);
        return;
    }
    add_images(tasks, count, names, 1e-4, images.values, labels.labels);
}

static rp_net *make_net(const task *t, uint64_t seed) {
    rp_net *net = rp_net_new(rp_vector(t->widths[0]), NULL);
    for (int i = 1; i < 6 && t->widths[i]; i++) {
        rp_dense(net, t->widths[i]);
        if (t->output_activation || t->widths[i + 1]) rp_activation(net, t->activation);
    }
    rp_loss(net, t->loss);
    if (net && !rp_net_build(net, BATCH, seed)) return net;
    fprintf(stderr, "tune: %s\n", net ? rp_error(net) : "out of memory");
    exit(1);
}

static rp_data data_of(const task *t, int first, int count) {
    size_t outputs = 0, start = (size_t)first;
    for (int i = 0; i < 6 && t->widths[i]; i++) outputs = (size_t)t->widths[i];
    const rp_real *inputs = t->inputs + start * (size_t)t->widths[0];
    if (t->labels) return rp_labelled(inputs, t->labels + start, count);
    return rp_targeted(inputs, t->targets + start * outputs, count);
}

typedef struct options {
    int steps, epochs, top, seed;
    const char *tasks;
} options;

/* The validation loss after training; infinite if that fails. */
static double train(const task *t, rp_optimizer optimizer, const options *o) {
    rp_net *net = make_net(t, (uint64_t)o->seed);
    rp_data training = data_of(t, 0, o->steps * BATCH), validation = data_of(t, o->steps * BATCH, VALIDATION);
    rp_fit_options fit;
    rp_score score;
    memset(&fit, 0, sizeof fit);
    fit.epochs = o->epochs;
    fit.seed = (uint64_t)o->seed;
    optimizer.weight_decay = (rp_real)t->weight_decay;
    rp_status status = rp_fit(net, &optimizer, &training, &fit, NULL);
    if (!status) status = rp_evaluate(net, &validation, &score, NULL);
    rp_net_free(net);
    return status ? HUGE_VAL : (double)score.loss;
}

static void run_adam(task *t, const options *o) {
    static const double rates[] = {1e-3, 3e-3, 1e-2};
    double best = 0;
    t->adam = HUGE_VAL;
    for (int i = 0; i < 3; i++) {
        double loss = train(t, rp_adam((rp_real)rates[i]), o);
        if (loss < t->adam) t->adam = loss, best = rates[i];
    }
    printf("%-14s Adam at its best rate, %g: %.4f\n", t->name, best, t->adam);
    fflush(stdout);
}

/* Setting number `index` of the grid; 0 when there is none. */
static int pick(int index, rp_optimizer *optimizer) {
    double value[LISTS];
    for (int i = 0; i < LISTS; i++) value[i] = grid[i].values[index % grid[i].count], index /= grid[i].count;
    *optimizer = rp_algorithm_1((rp_real)value[RATE]);
    optimizer->curvature_average = (rp_real)value[AVERAGE];
    optimizer->momentum = (rp_real)value[MOMENTUM];
    optimizer->damping = (rp_real)value[DAMPING];
    optimizer->rule.scale = scales[(int)value[SCALE]];
    optimizer->rule.bound = bounds[(int)value[BOUND]];
    optimizer->rule.kind = rules[(int)value[RULE]];
    optimizer->cubic_sigma = (rp_real)value[CUBIC];
    optimizer->cubic_adaptive = value[CUBIC] > 0 && value[ADAPTIVE] > 0;
    return index == 0;
}

static const char *rule_name(rp_rule_kind kind) {
    switch (kind) {
    case RP_PATHS: return "paths";
    case RP_JACOBIAN: return "Jacobian";
    default: return "sampled";
    }
}

static void print_row(const setting *s, int tasks) {
    const rp_optimizer *o = &s->optimizer;
    printf("| %5g | %7g | %8g ", (double)o->rate, (double)o->curvature_average, (double)o->momentum);
    printf("| %-6s ", o->rule.scale == RP_SCALE_ONE ? "one" : "fan-in");
    printf("| %-6s ", o->rule.bound == RP_BOUND_JENSEN ? "Jensen" : "tight");
    printf("| %-8s | %7g ", rule_name(o->rule.kind), (double)o->damping);
    printf("| %5g | %-8s |", (double)o->cubic_sigma, o->cubic_adaptive ? "yes" : "no");
    for (int i = 0; i < tasks; i++) {
        if (s->ratio[i] < WORST) printf(" %14.3f |", s->ratio[i]);
        else printf(" %14s |", "fails");
    }
    printf(" %6.3f |\n", s->mean);
    fflush(stdout);
}

static void print_head(const task *tasks, int count) {
    printf("\n|  rate | average | momentum | scale  | bound  | rule     | damping | cubic | adaptive |");
    for (int i = 0; i < count; i++) printf(" %14s |", tasks[i].name);
    printf("   mean |\n| ----: | ------: | -------: | ------ | ------ | -------- | ------: | ----: | -------- |");
    for (int i = 0; i < count; i++) printf(" -------------: |");
    printf(" -----: |\n");
}

static int by_mean(const void *a, const void *b) {
    const setting *x = (const setting *)a, *y = (const setting *)b;
    return (x->mean > y->mean) - (x->mean < y->mean);
}

static int run_grid(const task *tasks, int count, const options *o, setting *settings) {
    int used = 0;
    for (; used < MOST_SETTINGS && pick(used, &settings[used].optimizer); used++) {
        setting *s = &settings[used];
        double sum = 0;
        for (int i = 0; i < count; i++) {
            s->ratio[i] = train(&tasks[i], s->optimizer, o) / tasks[i].adam;
            sum += log(s->ratio[i] < WORST ? s->ratio[i] : WORST);
        }
        s->mean = exp(sum / count);
        print_row(s, count);
    }
    return used;
}

static int usage(const char *wrong) {
    FILE *to = wrong ? stderr : stdout;
    if (wrong) fprintf(to, "tune: %s is not an option, or has no good value\n", wrong);
    fprintf(to, "usage: tune [--steps N] [--epochs N] [--seed N] [--top N] [--tasks WORD] [list]...\n"
                "  --steps N      steps in an epoch (300)\n"
                "  --epochs N     epochs for each setting (1)\n"
                "  --seed N       of the first parameters and of the shuffling (1)\n"
                "  --top N        rows of the sorted table (12)\n"
                "  --tasks WORD   only tasks with WORD in their name\n"
                "lists of values, as in --rate 10,30,100 (which are the defaults):\n");
    for (int i = 0; i < LISTS; i++) {
        fprintf(to, "  %-12s %-44s", grid[i].option, grid[i].help);
        for (int k = 0; k < grid[i].count; k++) fprintf(to, "%s%g", k ? "," : "", grid[i].values[k]);
        fprintf(to, "\n");
    }
    return wrong ? 2 : 0;
}

static int chosen(const list *l, double value) {
    if (!l->choices) return 1;
    return value >= 0 && value < l->choices && value == (int)value;
}

static int read_list(list *l, const char *text) {
    for (l->count = 0; l->count < MOST_VALUES;) {
        char *end;
        l->values[l->count++] = strtod(text, &end);
        if (end == text || !chosen(l, l->values[l->count - 1])) return 0;
        if (!*end) return 1;
        if (*end != ',') return 0;
        text = end + 1;
    }
    return 0;
}

/* One option with its value. */
static int read_option(const char *name, const char *value, options *o) {
    if (!strcmp(name, "--steps")) return (o->steps = atoi(value)) > 0;
    if (!strcmp(name, "--epochs")) return (o->epochs = atoi(value)) > 0;
    if (!strcmp(name, "--seed")) return (o->seed = atoi(value)) > 0;
    if (!strcmp(name, "--top")) return (o->top = atoi(value)) > 0;
    if (!strcmp(name, "--tasks")) return o->tasks = value, 1;
    for (int i = 0; i < LISTS; i++)
        if (!strcmp(name, grid[i].option)) return read_list(&grid[i], value);
    return 0;
}

/* Keeps the tasks with the word in their name; returns how many. */
static int keep_tasks(task *tasks, int count, const char *word) {
    int kept = 0;
    for (int i = 0; i < count; i++)
        if (strstr(tasks[i].name, word)) tasks[kept++] = tasks[i];
    return kept;
}

int main(int argc, char **argv) {
    static const char *mnist[2] = {"AE MNIST", "class. MNIST"}, *fashion[2] = {"AE Fashion", "class. Fashion"};
    static task tasks[MOST_TASKS];
    static setting settings[MOST_SETTINGS];
    options o = {300, 1, 12, 1, ""};
    int count = 0;
    if (argc == 2 && !strcmp(argv[1], "--help")) return usage(NULL);
    for (int i = 1; i < argc; i += 2)
        if (i + 1 == argc || !read_option(argv[i], argv[i + 1], &o)) return usage(argv[i]);
    int samples = o.steps * BATCH + VALIDATION;
    add_drawn(tasks, &count, samples);
    add_real(tasks, &count, "mnist", mnist, samples);
    add_real(tasks, &count, "fashion", fashion, samples);
    count = keep_tasks(tasks, count, o.tasks);
    if (!count) return usage("--tasks");
    for (int i = 0; i < count; i++) run_adam(&tasks[i], &o);
    print_head(tasks, count);
    int used = run_grid(tasks, count, &o, settings);
    qsort(settings, (size_t)used, sizeof *settings, by_mean);
    printf("\nThe best, after %d epochs of %d steps: validation losses as multiples of Adam's:\n", o.epochs, o.steps);
    print_head(tasks, count);
    for (int i = 0; i < used && i < o.top; i++) print_row(&settings[i], count);
    return 0;
}
