/* The experiments of Understanding and Exploiting the Low-Rank Structure of Deep Networks.

       cc -O2 bench/papers/low_rank.c -lm -o low_rank && RP_DATA=folder ./low_rank results.csv

   Section 3.2: 12 hidden layers of 128 with ReLU and without biases, first weights uniform in +-0.1, which is a plateau,
   or +-0.2, in batches of 32; rates fall by 0.95 in 100 steps; with and without steps of a computed length (cubic_sigma),
   sigma and rate as in the figures. Loss and length of each 10 steps go to the CSV file. A plateau is left where the mean
   loss of 100 steps falls below 2.2 (guessing: 2.30). Adagrad's and Adadelta's constants are TensorFlow's, as in the
   paper; Adagrad's first sum of squares, 0.1 there, is here an epsilon of its root.

   Section 2: the rank of the gradient of a sample by the weights of a layer, a sum of as many outer products as there
   are positions or steps, and that of the mean over a batch. Ranks are numerical: pivots down to 1e-5 of the first.

   Table 2: a length for each variable as if it moved alone (rp_per_variable), on a small net of drawn digits: all at once
   times a rate, or with a computed length, beside SGD and Adam; each over a grid of rates.

   --quick: on drawn digits, fewer steps. The full run takes some 10 minutes. */
#define RP_IMPLEMENTATION
#include "../../rp.h"
#include "../median.h"
#include "sets.h"
#include <math.h>
#include <time.h>

enum { BATCH = 32, LAYERS = 12, WIDTH = 128, WINDOW = 100, SHOWN = 10, MOST_STEPS = 3000, SEEDS = 3 };
static int steps = MOST_STEPS, seeds = SEEDS;

static void check(rp_status status, const rp_net *net) {
    if (!status) return;
    fprintf(stderr, "low_rank: %s\n", rp_error(net));
    exit(1);
}

typedef struct figure {
    const char *number, *set, *method;
    double start, rate, sigma;
    const char *theirs;
} figure;
static const figure figures[] = {
    {"1", "mnist", "SGD", 0.2, 0.01, 100, "nothing gained"},
    {"2", "mnist", "SGD", 0.1, 0.02, 100, "leaves sooner, by steps 100 times as long"},
    {"3", "cifar10", "SGD", 0.1, 0.01, 1000, "leaves sooner"},
    {"4", "mnist", "Adagrad", 0.1, 0.1, 1000, "leaves sooner"},
    {"5", "mnist", "Adadelta", 0.1, 1, 1000, "leaves sooner"},
    {"text", "mnist", "Adagrad", 0.2, 0.1, 1000, "nothing gained"},
    {"text", "mnist", "Adadelta", 0.2, 1, 1000, "nothing gained"},
    {"text", "mnist", "Adam", 0.1, 1e-3, 1000, "nothing gained"},
};

static rp_optimizer make_optimizer(const figure *f, int cubic) {
    rp_real rate = (rp_real)f->rate;
    rp_optimizer optimizer = rp_sgd(rate);
    if (!strcmp(f->method, "Adam")) optimizer = rp_adam(rate);
    if (!strcmp(f->method, "Adagrad")) {
        optimizer = rp_adagrad(rate);
        optimizer.epsilon = (rp_real)sqrt(0.1);
    }
    if (!strcmp(f->method, "Adadelta")) {
        optimizer = rp_adadelta(rate);
        optimizer.rho = (rp_real)0.95;
        optimizer.epsilon = (rp_real)1e-8;
    }
    optimizer.rate_decay = (rp_real)0.95;
    optimizer.rate_decay_steps = 100;
    optimizer.cubic_sigma = cubic ? (rp_real)f->sigma : 0;
    return optimizer;
}

static rp_net *make_net(int size, double start, uint64_t seed) {
    rp_net *net = (rp_net *)must(rp_net_new(rp_vector(size), NULL));
    for (int layer = 0; layer < LAYERS; layer++) {
        rp_no_bias(net, rp_dense(net, WIDTH));
        rp_activation(net, RP_RELU);
    }
    rp_no_bias(net, rp_dense(net, 10));
    rp_loss(net, RP_SOFTMAX_CROSS_ENTROPY);
    check(rp_net_build(net, BATCH, seed), net);
    for (size_t i = 0; i < rp_parameter_count(net); i++)
        rp_parameters(net)[i] = (rp_real)random_uniform(&seed, -(float)start, (float)start);
    return net;
}

static rp_data draw_batch(const set *s, uint64_t *random, rp_real *x, int *labels) {
    for (int i = 0; i < BATCH; i++) {
        int sample = random_below(random, s->count[0]);
        memcpy(x + (ptrdiff_t)i * s->size, s->images[0] + (ptrdiff_t)sample * s->size, (size_t)s->size * sizeof *x);
        labels[i] = s->labels[0][sample];
    }
    return rp_labelled(x, labels, BATCH);
}

/* What came of a run. left: step at which the plateau was left, or `steps`; longest: the largest mean of WINDOW lengths,
   in units of the first rate. */
typedef struct outcome {
    double loss, left, longest, last;
} outcome;

static double mean_before(const double *values, int end) {
    double sum = 0;
    for (int i = end - WINDOW; i < end; i++) sum += values[i] / WINDOW;
    return sum;
}

static outcome train(const figure *f, const set *s, int cubic, uint64_t seed, FILE *file) {
    static double losses[MOST_STEPS], lengths[MOST_STEPS];
    rp_net *net = make_net(s->size, f->start, seed);
    rp_optimizer optimizer = make_optimizer(f, cubic);
    rp_real *x = (rp_real *)must(malloc((size_t)BATCH * (size_t)s->size * sizeof *x));
    outcome o = {0, 0, 0, 0};
    int labels[BATCH];
    uint64_t random = seed;
    o.left = steps;
    for (int t = 0; t < steps; t++) {
        rp_data batch = draw_batch(s, &random, x, labels);
        rp_real loss = 0;
        rp_step last;
        check(rp_train(net, &optimizer, &batch, &loss), net);
        check(rp_last_step(net, &last), net);
        losses[t] = (double)loss;
        lengths[t] = (double)last.alpha * pow(0.95, t / 100.0);
        if (t + 1 >= WINDOW) {
            double mean = mean_before(lengths, t + 1);
            if (mean > o.longest) o.longest = mean;
            if (o.left >= steps && mean_before(losses, t + 1) < 2.2) o.left = t + 1;
        }
        if (t % SHOWN == SHOWN - 1)
            fprintf(file, "%s,%s,%s,%g,%g,%g,%d,%d,%.6g,%.6g\n", f->number, s->name, f->method, f->start, f->rate,
                    cubic ? f->sigma : 0, (int)seed, t + 1, losses[t], f->rate * lengths[t]);
    }
    o.loss = mean_before(losses, steps);
    o.last = mean_before(lengths, steps);
    free(x);
    rp_net_free(net);
    return o;
}

static void print_outcome(const outcome *list) {
    double loss[SEEDS], left[SEEDS];
    for (int i = 0; i < seeds; i++) {
        loss[i] = list[i].loss;
        left[i] = list[i].left;
    }
    double at = median(left, seeds);
    printf(" %.4f |", median(loss, seeds));
    if (at < steps) printf(" %.0f |", at);
    else printf(" never |");
}

static void run_figure(const figure *f, const set *s, FILE *file) {
    outcome list[2][SEEDS];
    double longest[SEEDS], last[SEEDS];
    for (int cubic = 0; cubic < 2; cubic++)
        for (int i = 0; i < seeds; i++) list[cubic][i] = train(f, s, cubic, (uint64_t)i + 1, file);
    for (int i = 0; i < seeds; i++) {
        longest[i] = list[1][i].longest;
        last[i] = list[1][i].last;
    }
    printf("| %s | %s | %s, rate %g, start %g, sigma %g |", f->number, s->name, f->method, f->rate, f->start, f->sigma);
    print_outcome(list[0]);
    print_outcome(list[1]);
    printf(" %.3g, %.3g | %s |\n", median(longest, seeds), median(last, seeds), f->theirs);
    fflush(stdout);
}

enum { RANKED = 32, MOST_LAYERS = 16 };
typedef struct ranks {
    rp_layer layers[MOST_LAYERS];
    double *one, *sum[MOST_LAYERS]; /* gradient of a sample by a layer's weights, and the sum over the samples */
    int least[MOST_LAYERS], most[MOST_LAYERS];
} ranks;

/* By elimination with the largest pivots; the matrix is lost. */
static int rank_of(double *a, int rows, int columns) {
    double first = 0;
    for (int rank = 0; rank < rows && rank < columns; rank++) {
        int row = 0, column = 0;
        double largest = 0;
        for (int i = 0; i < rows * columns; i++)
            if (fabs(a[i]) > largest) {
                largest = fabs(a[i]);
                row = i / columns;
                column = i % columns;
            }
        if (!rank) first = largest;
        if (!(largest > 1e-5 * first)) return rank;
        for (int i = 0; i < rows; i++) {
            double factor = a[i * columns + column] / a[row * columns + column];
            for (int j = 0; j < columns && i != row; j++) a[i * columns + j] -= factor * a[row * columns + j];
        }
        for (int j = 0; j < columns; j++) a[row * columns + j] = 0;
    }
    return rows < columns ? rows : columns;
}

/* Adds the outer product of columns of d and of what the layer reads, over positions or steps. */
static void add_gradient(const rp_layer *l, const rp_sample_factors *f, int columns, double *out) {
    const rp_conv2d_desc *w = &l->window;
    int rows = l->out.channels, positions = l->out.height * l->out.width;
    if (strcmp(l->kind, "conv2d")) {
        for (int t = 0; t < l->steps + !l->steps; t++)
            for (int i = 0; i < rows; i++)
                for (int j = 0; j < columns; j++)
                    out[i * columns + j] +=
                        (double)f->d[t * rows + i] * (double)(l->steps ? f->states[t * columns + j] : f->y[j]);
        return;
    }
    for (int p = 0; p < positions; p++) /* stride 1, no padding */
        for (int j = 0; j < columns; j++) {
            int x = j % w->kernel_width, y = j / w->kernel_width % w->kernel_height;
            int channel = j / (w->kernel_width * w->kernel_height);
            int row = p / l->out.width + y, column = p % l->out.width + x;
            double read = (double)f->y[(channel * l->in.height + row) * l->in.width + column];
            for (int i = 0; i < rows; i++) out[i * columns + j] += (double)f->d[i * positions + p] * read;
        }
}

/* The matrix that is looked at: the weights, of recurrent layers those from state to state. */
static int columns_of(const rp_layer *l) {
    if (!strcmp(l->kind, "recurrent")) return l->units;
    return (int)(l->weight_count / (size_t)l->out.channels);
}

static int rank_sample(void *user, const rp_sample_factors *f) {
    ranks *r = (ranks *)user;
    const rp_layer *l = &r->layers[f->layer];
    int rows = l->out.channels, columns = columns_of(l), rank;
    memset(r->one, 0, (size_t)rows * (size_t)columns * sizeof *r->one);
    add_gradient(l, f, columns, r->one);
    for (int i = 0; i < rows * columns; i++) r->sum[f->layer][i] += r->one[i];
    rank = rank_of(r->one, rows, columns);
    if (f->sample == 0 || rank < r->least[f->layer]) r->least[f->layer] = rank;
    if (f->sample == 0 || rank > r->most[f->layer]) r->most[f->layer] = rank;
    return 0;
}

static void print_ranks(const char *text, const rp_data *training) {
    static ranks r;
    rp_net *net = rp_net_text(text, NULL);
    rp_optimizer optimizer = rp_adam((rp_real)1e-3);
    rp_data batch = *training;
    size_t largest = 0;
    memset(&r, 0, sizeof r);
    check(rp_net_build(net, RANKED, 1), net);
    check(rp_fit(net, &optimizer, training, NULL, NULL), net); /* an epoch, so that it is not at chance */
    batch.count = RANKED;
    for (int k = 0; k < rp_layer_count(net); k++) {
        check(rp_layer_info(net, k, &r.layers[k]), net);
        if (r.layers[k].weight_count > largest) largest = r.layers[k].weight_count;
        r.sum[k] = (double *)must(calloc(r.layers[k].weight_count + 1, sizeof(double)));
    }
    r.one = (double *)must(malloc(largest * sizeof(double)));
    check(rp_sample_gradients(net, &batch, rank_sample, &r), net);
    for (int k = 0; k < rp_layer_count(net); k++) {
        const rp_layer *l = &r.layers[k];
        int columns = columns_of(l), terms = l->steps ? l->steps : l->out.height * l->out.width;
        if (l->weight_count)
            printf("| %s | %d x %d | %d | %d to %d | %d |\n", l->kind, l->out.channels, columns, terms, r.least[k],
                   r.most[k], rank_of(r.sum[k], l->out.channels, columns));
        free(r.sum[k]);
    }
    free(r.one);
    rp_net_free(net);
}

static void measure_ranks(void) {
    set s;
    load_set(&s, "drawn", 2000);
    rp_data training = set_data(&s, 0, 1, s.count[0]);
    printf("\nSection 2: ranks of the gradients of %d samples, drawn digits\n\n", RANKED);
    printf(
        "| layer | matrix | outer products | rank, one sample | rank, their mean |\n| --- | --- | --- | --- | --- |\n");
    print_ranks("input image 1x28x28; conv2d 8 5x5; relu; max_pool2d 2x2; conv2d 16 5x5; relu; max_pool2d 2x2;"
                "conv2d 32 3x3; relu; dense 48; tanh; recursive 6 tanh; dense 10; loss softmax_cross_entropy",
                &training);
    print_ranks("input sequence 28x28; recurrent 64 tanh; dense 10; loss softmax_cross_entropy", &training);
    free_set(&s);
}

/* Table 2. */
typedef struct variable_method {
    const char *name;
    rp_optimizer optimizer;
    double rates[5]; /* 0 behind the last one */
} variable_method;
enum { VARIABLE_METHODS = 4 };

/* Mean loss of the last steps, HUGE_VAL if there is none. */
static double train_small(const variable_method *m, double rate, const set *s, uint64_t seed, FILE *file) {
    rp_net *net =
        rp_net_text("input vector 784; dense 24; tanh; dense 24; tanh; dense 10; loss softmax_cross_entropy", NULL);
    rp_optimizer optimizer = m->optimizer;
    rp_real *x = (rp_real *)must(malloc((size_t)BATCH * (size_t)s->size * sizeof *x));
    double end = 0;
    int labels[BATCH];
    uint64_t random = seed;
    optimizer.rate = (rp_real)rate;
    check(rp_net_build(net, BATCH, seed), net);
    for (int t = 0; t < steps / 4; t++) {
        rp_data batch = draw_batch(s, &random, x, labels);
        rp_real loss = 0;
        if (rp_train(net, &optimizer, &batch, &loss)) end = HUGE_VAL;
        if (t >= steps / 4 - WINDOW) end += (double)loss / WINDOW;
        if (t % SHOWN == SHOWN - 1)
            fprintf(file, "table2,drawn,%s,0,%g,0,%d,%d,%.6g,0\n", m->name, rate, (int)seed, t + 1, (double)loss);
    }
    free(x);
    rp_net_free(net);
    return end;
}

static void compare_variable_lengths(FILE *file) {
    variable_method methods[VARIABLE_METHODS] = {
        {"SGD", rp_sgd(1), {0.01, 0.03, 0.1, 0.3, 1}},
        {"Adam", rp_adam(1), {1e-3, 3e-3, 0.01, 0.03, 0}},
        {"a length for each variable", rp_per_variable(1), {1e-3, 3e-3, 0.01, 0.03, 0.1}},
        {"the same, and a computed one", rp_per_variable(1), {1, 0, 0, 0, 0}},
    };
    set s;
    methods[3].optimizer.cubic_sigma = 100;
    load_set(&s, "drawn", 4000);
    printf("\nTable 2: drawn digits, 784-24-24-10, tanh, %d steps; mean loss of the last %d, median of %d runs\n\n",
           steps / 4, WINDOW, seeds);
    printf("| method | best rate | loss | ms a step |\n| --- | --- | --- | --- |\n");
    for (int k = 0; k < VARIABLE_METHODS; k++) {
        double best = HUGE_VAL, best_rate = 0;
        clock_t start = clock();
        int runs = 0;
        for (int i = 0; i < 5 && methods[k].rates[i] > 0; i++) {
            double losses[SEEDS];
            for (int seed = 0; seed < seeds; seed++, runs++)
                losses[seed] = train_small(&methods[k], methods[k].rates[i], &s, (uint64_t)seed + 1, file);
            double middle = median(losses, seeds);
            if (middle < best) {
                best = middle;
                best_rate = methods[k].rates[i];
            }
        }
        double time = 1e3 * (double)(clock() - start) / CLOCKS_PER_SEC / runs / (steps / 4);
        printf("| %s | %g | %.4f | %.2f |\n", methods[k].name, best_rate, best, time);
    }
    free_set(&s);
}

static void run_figures(int quick, FILE *file) {
    const int count = sizeof figures / sizeof *figures;
    const char *loaded = "";
    int there = 0;
    set s;
    printf("Section 3.2: medians of %d runs of %d steps; loss: mean of the last %d; length: of steps of a computed "
           "length, "
           "in units of the first rate, the largest mean of %d and the last\n\n",
           seeds, steps, WINDOW, WINDOW);
    printf("| figure | data | method | loss | leaves at | loss, computed lengths | leaves at | length | theirs |\n");
    printf("| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
    fprintf(file, "figure,set,method,start,rate,sigma,seed,step,loss,length\n");
    for (int i = 0; i < count; i++) {
        const char *name = quick ? "drawn" : figures[i].set;
        if (strcmp(name, loaded)) {
            if (there) free_set(&s);
            there = load_set(&s, name, 4000);
            loaded = name;
        }
        if (there) run_figure(&figures[i], &s, file);
    }
    if (there) free_set(&s);
}

int main(int argc, char **argv) {
    int quick = argc > 1 && !strcmp(argv[1], "--quick");
    FILE *file = argc == 2 + quick ? fopen(argv[1 + quick], "w") : NULL;
    if (!file) return fprintf(stderr, "usage: low_rank [--quick] FILE.csv, which can be written\n"), 2;
    if (quick) {
        steps = 600;
        seeds = 1;
    }
    run_figures(quick, file);
    compare_variable_lengths(file);
    fclose(file);
    measure_ranks();
    return 0;
}
