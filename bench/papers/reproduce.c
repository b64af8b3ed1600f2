/* The experiments of Deep Residual Partitioning, section 5: an autoencoder D-64-2-64-D with tanh and a classifier
   D-400-100-36-10 with softplus, in batches of 100, data in [-1, 1], trained by Algorithm 1, Adam and SGD, each over a
   grid of rates with one seed, then at its best rate with more seeds; beside them rp_partitioning() without a rate.

       cc -O2 bench/papers/reproduce.c -lm -lpthread -o reproduce && RP_DATA=folder ./reproduce results.csv

   The folder holds mnist/, fashion/ (four unpacked IDX files each) and cifar10/ (its binary version). Each epoch of each
   run becomes a line of the CSV file; runs that it holds already are not trained again, so the program may be killed and
   started again, and a file made by other code must be removed first. A table of the paper's claims follows. A second
   file, if it is named, gets the means over the seeds, from which plot.sh draws figures.

   What the paper leaves open is chosen here: the autoencoder's loss is half the squared error, summed over the image;
   weight decay is 0.01 as printed, for the classifier also 1e-4; a rate is best where the least validation loss of its
   run is; training losses are those of as many training samples as there are validation samples.

   --bars trains some more methods for 4 epochs and fails if a median over the seeds misses its bar. */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#define RP_IMPLEMENTATION
#include "../../rp.h"
#include "../median.h"
#include "sets.h"
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 100 };

static rp_net *make_net(int classifier, int size, uint64_t seed) {
    static const int widths[2][5] = {{64, 2, 64, 0, 0}, {400, 100, 36, 10, 0}};
    rp_net *net = (rp_net *)must(rp_net_new(rp_vector(size), NULL));
    for (const int *width = widths[classifier]; *width; width++) {
        rp_dense(net, *width);
        if (!classifier) rp_activation(net, RP_TANH);
        else if (width[1]) rp_activation(net, RP_SOFTPLUS);
    }
    if (!classifier) {
        rp_dense(net, size);
        rp_activation(net, RP_TANH);
    }
    rp_loss(net, classifier ? RP_SOFTMAX_CROSS_ENTROPY : RP_SQUARED_ERROR);
    if (!rp_net_build(net, BATCH, seed)) return net;
    fprintf(stderr, "reproduce: %s\n", rp_error(net));
    exit(1);
}

enum { RESIDUAL, ADAM, SGD, DEFAULT, METHODS };
static const struct {
    const char *name, *title;
    rp_optimizer (*make)(rp_real rate); /* NULL: has no rate */
    int centre[2];                      /* of the grid of rates, see rate_of; autoencoder, classifier */
} methods[METHODS] = {
    {"algorithm_1", "Algorithm 1", rp_algorithm_1, {3, 4}},
    {"adam", "Adam", rp_adam, {-5, -6}},
    {"sgd", "SGD", rp_sgd, {-5, -2}},
    {"partitioning", "rp_partitioning()", NULL, {0, 0}},
};

enum { AUTOENCODER, CLASSIFIER, LIGHT, TASKS };
static const struct {
    const char *name, *decay;
    double weight_decay;
    int classifier;
} tasks[TASKS] = {{"autoencoder", "0.01", 0.01, 0}, {"classifier", "0.01", 0.01, 1}, {"classifier", "1e-4", 1e-4, 1}};

/* How much is done. All of it takes 4 to 8 hours of CPU time and 0.8 GB for CIFAR-10; --quick takes a minute. */
static struct plan { int epochs, seeds, drawn, extensions; /* of a grid, in either direction */ } plan = {20, 10, 0, 5};

/* 1, 3, 10, 30, ... for 0, 1, 2, 3, ... */
static double rate_of(int step) { return (step & 1 ? 3 : 1) * pow(10, floor(step / 2.0)); }

/* After an epoch; of training [0] and validation samples [1]. */
typedef struct point {
    double wall, cpu, loss[2], accuracy[2]; /* seconds of training up to here */
} point;
enum { MOST_EPOCHS = 50, MOST_RUNS = 4096, MOST_THREADS = 64, KEY = 128 };
typedef struct run {
    char key[KEY]; /* what its lines in the file begin with */
    int task, method, rate, seed, epochs;
    const set *set;
    point points[MOST_EPOCHS];
} run;
static run runs[MOST_RUNS]; /* those in the file, and those of this plan */
static int run_count;

static run *find_run(const char *key) {
    for (int i = 0; i < run_count; i++)
        if (!strcmp(runs[i].key, key)) return &runs[i];
    if (run_count == MOST_RUNS) {
        fprintf(stderr, "reproduce: more than %d runs\n", MOST_RUNS);
        exit(1);
    }
    run *r = &runs[run_count++];
    memset(r, 0, sizeof *r);
    snprintf(r->key, sizeof r->key, "%s", key);
    return r;
}

/* The run of these: in the file (epochs > 0) or not. */
static run *get_run(const set *s, int task, int method, int rate, int seed) {
    char key[KEY];
    snprintf(key, sizeof key, "%s,%s,%s,%s,%g,%d,%d,%d,", s->name, tasks[task].name, tasks[task].decay,
             methods[method].name, methods[method].make ? rate_of(rate) : 0.0, seed, s->count[0], plan.epochs);
    run *r = find_run(key);
    r->set = s, r->task = task, r->method = method, r->rate = rate, r->seed = seed;
    return r;
}

static const char header[] = "set,task,weight_decay,method,rate,seed,samples,epochs,epoch,wall_seconds,cpu_seconds,"
                             "training_loss,training_accuracy,validation_loss,validation_accuracy\n";

/* A line that a killed program has not finished is of no run. */
static void read_runs(const char *path) {
    char line[512];
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file)) {
        char *at = line;
        int epoch;
        point p;
        for (int commas = 0; *at && commas < 8; at++) commas += *at == ',';
        if (at - line >= KEY || !strchr(at, '\n')) continue;
        if (sscanf(at, "%d,%lf,%lf,%lf,%lf,%lf,%lf", &epoch, &p.wall, &p.cpu, &p.loss[0], &p.accuracy[0], &p.loss[1],
                   &p.accuracy[1]) != 7)
            continue;
        if (epoch < 1 || epoch > MOST_EPOCHS) continue;
        char key[KEY];
        memcpy(key, line, (size_t)(at - line));
        key[at - line] = 0;
        run *r = find_run(key);
        r->points[epoch - 1] = p;
        r->epochs = epoch;
    }
    if (file) fclose(file);
}

static void write_run(FILE *file, const run *r) {
    for (int epoch = 0; epoch < plan.epochs; epoch++) {
        const point *p = &r->points[epoch];
        fprintf(file, "%s%d,%.4f,%.4f,%.7g,%.5f,%.7g,%.5f\n", r->key, epoch + 1, p->wall, p->cpu, p->loss[0],
                p->accuracy[0], p->loss[1], p->accuracy[1]);
    }
    fflush(file);
}

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* A run whose numbers leave the range of a float has infinite losses from there on: it failed. */
static void train_run(run *r) {
    int classifier = tasks[r->task].classifier;
    const set *s = r->set;
    rp_net *net = make_net(classifier, s->size, (uint64_t)r->seed);
    rp_optimizer optimizer =
        methods[r->method].make ? methods[r->method].make((rp_real)rate_of(r->rate)) : rp_partitioning();
    rp_data data[2] = {set_data(s, 0, classifier, s->count[1]), set_data(s, 1, classifier, s->count[1])};
    rp_data training = set_data(s, 0, classifier, s->count[0]);
    rp_fit_options options;
    rp_status status = RP_OK;
    point p;
    memset(&p, 0, sizeof p);
    memset(&options, 0, sizeof options);
    options.seed = (uint64_t)r->seed;
    optimizer.weight_decay = (rp_real)tasks[r->task].weight_decay;
    for (int epoch = 0; epoch < plan.epochs; epoch++) {
        double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_THREAD_CPUTIME_ID);
        if (!status) status = rp_fit(net, &optimizer, &training, &options, NULL);
        p.wall += seconds(CLOCK_MONOTONIC) - wall;
        p.cpu += seconds(CLOCK_THREAD_CPUTIME_ID) - cpu;
        for (int part = 0; part < 2; part++) {
            rp_score score;
            if (!status) status = rp_evaluate(net, &data[part], &score, NULL);
            p.loss[part] = status ? HUGE_VAL : (double)score.loss;
            p.accuracy[part] = status ? 0 : (double)score.accuracy;
        }
        r->points[epoch] = p;
    }
    rp_net_free(net);
}

/* Trains what is not in the file yet, on as many threads as there are processors. */
static struct queue {
    run *list[MOST_RUNS];
    int count, next;
    FILE *file;
    pthread_mutex_t lock;
} queue;

static void *work(void *nothing) {
    for (;;) {
        pthread_mutex_lock(&queue.lock);
        run *r = queue.next < queue.count ? queue.list[queue.next++] : NULL;
        pthread_mutex_unlock(&queue.lock);
        if (!r) return nothing;
        train_run(r);
        pthread_mutex_lock(&queue.lock);
        r->epochs = plan.epochs;
        write_run(queue.file, r);
        const point *last = &r->points[plan.epochs - 1];
        printf("%3d of %3d  %s  training %.4f, validation %.4f\n", queue.next, queue.count, r->key, last->loss[0],
               last->loss[1]);
        fflush(stdout);
        pthread_mutex_unlock(&queue.lock);
    }
}
static void want(run *r) {
    if (r->epochs < plan.epochs) queue.list[queue.count++] = r;
}
static void train_wanted(int threads) {
    pthread_t others[MOST_THREADS];
    for (int i = 1; i < threads; i++)
        if (pthread_create(&others[i], NULL, work, NULL)) threads = i;
    work(NULL);
    for (int i = 1; i < threads; i++) pthread_join(others[i], NULL);
    queue.count = queue.next = 0;
}

static const point *end_of(const run *r) { return &r->points[plan.epochs - 1]; }
static int failed(const run *r) { return !isfinite(end_of(r)->loss[0]) || !isfinite(end_of(r)->loss[1]); }
static double least_validation(const run *r) {
    double least = HUGE_VAL;
    for (int epoch = 0; epoch < plan.epochs; epoch++)
        if (r->points[epoch].loss[1] < least) least = r->points[epoch].loss[1];
    return least;
}

/* A method's rates on a task: those tried, and the best of them. */
typedef struct grid {
    int low, high, best;
} grid;

/* Widens the grids until each best rate lies within its own. */
static void search_rates(const set *s, grid grids[TASKS][METHODS], int threads) {
    for (int t = 0; t < TASKS; t++)
        for (int m = 0; m < METHODS; m++) {
            int centre = methods[m].centre[tasks[t].classifier], width = methods[m].make != NULL;
            grid g = {centre - width, centre + width, centre};
            grids[t][m] = g;
        }
    for (int round = 0, wider = 1; wider; round++) {
        for (int t = 0; t < TASKS; t++)
            for (int m = 0; m < METHODS; m++)
                for (int rate = grids[t][m].low; rate <= grids[t][m].high; rate++) want(get_run(s, t, m, rate, 1));
        train_wanted(threads);
        wider = 0;
        for (int t = 0; t < TASKS; t++)
            for (int m = 0; m < METHODS; m++) {
                grid *g = &grids[t][m];
                for (int rate = g->low; rate <= g->high; rate++)
                    if (least_validation(get_run(s, t, m, rate, 1)) < least_validation(get_run(s, t, m, g->best, 1)))
                        g->best = rate;
                if (!methods[m].make || round == plan.extensions || (g->best > g->low && g->best < g->high)) continue;
                if (g->best == g->low) g->low--;
                else g->high++;
                wider = 1;
            }
    }
}

/* Mean and standard deviation of a quantity over the seeds, but for runs that failed. */
typedef struct spread {
    double mean, deviation;
    int count;
} spread;
static spread over_seeds(const set *s, grid grids[TASKS][METHODS], int t, int m, double (*of)(const run *r)) {
    spread result = {0, 0, 0};
    for (int seed = 1; seed <= plan.seeds; seed++) {
        const run *r = get_run(s, t, m, grids[t][m].best, seed);
        if (failed(r)) continue;
        double value = of(r), off = value - result.mean;
        result.mean += off / ++result.count; /* Welford's sums */
        result.deviation += off * (value - result.mean);
    }
    result.deviation = result.count > 1 ? sqrt(result.deviation / (result.count - 1)) : 0;
    return result;
}

static double overfitting(const run *r) { return end_of(r)->loss[1] - end_of(r)->loss[0]; }
static double final_validation(const run *r) { return end_of(r)->loss[1]; }
static double errors(const run *r) { return 100 * (1 - end_of(r)->accuracy[1]); }
static double step_time(const run *r) {
    int steps = (r->set->count[0] + BATCH - 1) / BATCH * plan.epochs;
    return 1e3 * end_of(r)->cpu / steps;
}

/* What the paper says of Algorithm 1 beside the better of Adam and SGD. */
typedef enum verdict { LESS, MORE, SIMILAR, TIMES } verdict;
static const struct claim {
    const char *text, *theirs;
    int task;
    const char *set; /* NULL: all */
    double (*of)(const run *r);
    verdict says;
} claims[] = {
    {"autoencoder: the best validation loss", "best", AUTOENCODER, NULL, least_validation, LESS},
    {"autoencoder: overfits less (validation - training loss)", "less", AUTOENCODER, NULL, overfitting, LESS},
    {"autoencoder: ms of CPU a step", "1.36 Adam's, 1.66 SGD's", AUTOENCODER, NULL, step_time, TIMES},
    {"classifier: worse cross-entropy in the end", "worse", CLASSIFIER, NULL, final_validation, MORE},
    {"classifier: similar accuracy (% wrong)", "similar", CLASSIFIER, NULL, errors, SIMILAR},
    {"classifier: overfits much worse", "more", CLASSIFIER, "cifar10", overfitting, MORE},
    {"classifier: ms of CPU a step", "1.36 Adam's, 1.66 SGD's", CLASSIFIER, NULL, step_time, TIMES},
    {"classifier, decay 1e-4: worse cross-entropy in the end", "worse", LIGHT, NULL, final_validation, MORE},
    {"classifier, decay 1e-4: similar accuracy (% wrong)", "similar", LIGHT, NULL, errors, SIMILAR},
    {"classifier, decay 1e-4: overfits much worse", "more", LIGHT, "cifar10", overfitting, MORE},
};

/* "yes" and "no" only where the difference is more than two standard errors; similar: within one in a hundred. */
static void say_verdict(verdict says, const spread *ours, const spread *adam, const spread *sgd, char *text,
                        size_t size) {
    const spread *other = adam->mean < sgd->mean ? adam : sgd;
    double difference = ours->mean - other->mean;
    double noise = 2 * sqrt(pow(ours->deviation, 2) / ours->count + pow(other->deviation, 2) / other->count);
    const char *answer = "unclear";
    if (says == TIMES) {
        snprintf(text, size, "%.2f Adam's, %.2f SGD's", ours->mean / adam->mean, ours->mean / sgd->mean);
        return;
    }
    if (says == SIMILAR) answer = fabs(difference) <= 1 ? "yes" : "no";
    else if (ours->count > 1 && other->count > 1 && fabs(difference) > noise)
        answer = (difference < 0) == (says == LESS) ? "yes" : "no";
    snprintf(text, size, "%s (%+.3g)", answer, difference);
}

static void print_claims(const set *s, grid grids[TASKS][METHODS]) {
    for (size_t c = 0; c < sizeof claims / sizeof *claims; c++) {
        spread of[METHODS];
        char verdict_text[64];
        if (claims[c].set && strcmp(claims[c].set, s->name)) continue;
        printf("| %s | %s | %s |", s->name, claims[c].text, claims[c].theirs);
        for (int m = 0; m < METHODS; m++) {
            of[m] = over_seeds(s, grids, claims[c].task, m, claims[c].of);
            printf(" %.4g +- %.2g", of[m].mean, of[m].deviation);
            if (of[m].count < plan.seeds) printf(" (%d failed)", plan.seeds - of[m].count);
            printf(" |");
        }
        say_verdict(claims[c].says, &of[RESIDUAL], &of[ADAM], &of[SGD], verdict_text, sizeof verdict_text);
        printf(" %s |\n", verdict_text);
    }
}

static void print_rates(const set *s, grid grids[TASKS][METHODS]) {
    for (int t = 0; t < TASKS; t++) {
        printf("%s, %s, decay %s: best rates", s->name, tasks[t].name, tasks[t].decay);
        for (int m = 0; m < METHODS; m++) {
            const grid *g = &grids[t][m];
            if (!methods[m].make) continue;
            printf("%s %s %g of %g to %g%s", m ? "," : "", methods[m].title, rate_of(g->best), rate_of(g->low),
                   rate_of(g->high), g->best == g->low || g->best == g->high ? " (at the edge)" : "");
        }
        printf("\n");
    }
}

/* The means over the seeds by epoch, of runs that did not fail: what figures are drawn from. */
static void write_curves(FILE *file, const set *s, grid grids[TASKS][METHODS]) {
    for (int i = 0; i < TASKS * METHODS * plan.epochs; i++) {
        int epoch = i % plan.epochs, m = i / plan.epochs % METHODS, t = i / plan.epochs / METHODS, count = 0;
        double sums[5] = {0};
        for (int seed = 1; seed <= plan.seeds; seed++) {
            const run *r = get_run(s, t, m, grids[t][m].best, seed);
            const point *p = &r->points[epoch];
            if (failed(r)) continue;
            count++;
            sums[0] += p->cpu;
            for (int part = 0; part < 2; part++) {
                sums[1 + part] += p->loss[part];
                sums[3 + part] += p->accuracy[part];
            }
        }
        if (!count) continue;
        fprintf(file, "%s,%s,%s,%s,%d,", s->name, tasks[t].name, tasks[t].decay, methods[m].name, epoch + 1);
        for (int k = 0; k < 5; k++) fprintf(file, k < 4 ? "%.6g," : "%.6g\n", sums[k] / count);
    }
}

/* One data set: its runs, then its rows. Returns 0 if it is not there. */
static int reproduce_set(const char *name, int threads, FILE *curves) {
    grid grids[TASKS][METHODS];
    set s;
    if (!load_set(&s, name, plan.drawn)) return 0;
    search_rates(&s, grids, threads);
    for (int t = 0; t < TASKS; t++)
        for (int m = 0; m < METHODS; m++)
            for (int seed = 2; seed <= plan.seeds; seed++) want(get_run(&s, t, m, grids[t][m].best, seed));
    train_wanted(threads);
    printf("\n%d epochs of %d samples; mean +- standard deviation over %d seeds; the verdict: Algorithm 1 against the "
           "better of Adam and SGD\n\n",
           plan.epochs, s.count[0], plan.seeds);
    printf("| data | claim | theirs |");
    for (int m = 0; m < METHODS; m++) printf(" %s |", methods[m].title);
    printf(" holds |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n");
    print_claims(&s, grids);
    printf("\n");
    print_rates(&s, grids);
    printf("\n");
    if (curves) write_curves(curves, &s, grids);
    if (curves) fflush(curves);
    free_set(&s);
    return 1;
}

static FILE *open_file(const char *path, const char *mode) {
    FILE *file = fopen(path, mode);
    if (file) return file;
    fprintf(stderr, "reproduce: cannot write %s\n", path);
    exit(1);
}

static int reproduce(const char *path, const char *curves_path, int threads) {
    static const char *const names[] = {"mnist", "fashion", "cifar10"};
    int found = 0;
    read_runs(path);
    queue.file = open_file(path, "a");
    fseek(queue.file, 0, SEEK_END);
    FILE *curves = curves_path ? open_file(curves_path, "w") : NULL;
    fprintf(queue.file, "%s", ftell(queue.file) ? "\n" : header); /* behind what a killed program may have left */
    pthread_mutex_init(&queue.lock, NULL);
    if (curves)
        fprintf(curves, "set,task,weight_decay,method,epoch,cpu_seconds,training_loss,validation_loss,"
                        "training_accuracy,validation_accuracy\n");
    if (plan.drawn) found = reproduce_set("drawn", threads, curves);
    for (int i = 0; i < 3 && !plan.drawn; i++) found += reproduce_set(names[i], threads, curves);
    fclose(queue.file);
    if (curves) fclose(curves);
    pthread_mutex_destroy(&queue.lock);
    if (!found) puts("reproduce: no data, skipped");
    return 0;
}

enum { BAR_EPOCHS = 4, BAR_SEEDS = 3, BAR_METHODS = 10 };

/* The median validation loss must lie in [low, high]; high 0: a reference without a bar. The bars hold on MNIST. Adam's
   is 76.6 give or take 2: its single runs spread over 2.5. */
typedef struct bar_method {
    const char *name;
    rp_optimizer optimizer;
    double low, high;
} bar_method;

typedef struct bar_task {
    const char *name;
    double weight_decay;
    int classifier, method_count;
    bar_method methods[BAR_METHODS];
} bar_task;

static rp_optimizer averaged(double rate, rp_bound_kind bound) {
    rp_optimizer optimizer = rp_algorithm_1((rp_real)rate);
    optimizer.curvature_average = (rp_real)0.99;
    optimizer.momentum = (rp_real)0.9;
    optimizer.rule.bound = bound;
    optimizer.rule.scale = RP_SCALE_FAN_IN;
    return optimizer;
}

/* The method with steps whose length is computed; the rate no longer matters then. */
static rp_optimizer cubic(rp_optimizer optimizer, double sigma, int adaptive) {
    optimizer.cubic_sigma = (rp_real)sigma;
    if (!(optimizer.rate > 0)) optimizer.rate = 1; /* any: the length is computed */
    optimizer.cubic_adaptive = adaptive;
    return optimizer;
}

static void add_method(bar_task *t, const char *name, rp_optimizer optimizer, double low, double high) {
    bar_method m = {name, optimizer, low, high};
    m.optimizer.weight_decay = (rp_real)t->weight_decay;
    t->methods[t->method_count++] = m;
}

static void describe_bars(bar_task described[2]) {
    bar_task autoencoder = {"autoencoder", 0.01, 0, 0, {{0}}}, classifier = {"classifier", 1e-4, 1, 0, {{0}}};
    add_method(&autoencoder, "Algorithm 1, rate 30", rp_algorithm_1(30), 0, 86);
    add_method(&autoencoder, "averaged, fan-in, rate 100", averaged(100, RP_BOUND_TIGHT), 0, 75.5);
    add_method(&autoencoder, "averaged, fan-in, cubic 1", cubic(averaged(1, RP_BOUND_TIGHT), 1, 0), 0, 0);
    add_method(&autoencoder, "rp_partitioning()", rp_partitioning(), 0, 0);
    add_method(&autoencoder, "rp_partitioning(), cubic 100", cubic(rp_partitioning(), 100, 0), 0, 0);
    add_method(&autoencoder, "the same, adaptive", cubic(rp_partitioning(), 100, 1), 0, 0);
    add_method(&autoencoder, "Adam, rate 6e-3", rp_adam((rp_real)6e-3), 74.6, 78.6);
    add_method(&autoencoder, "SGD, rate 3e-3", rp_sgd((rp_real)3e-3), 0, 0);
    add_method(&autoencoder, "SGD, cubic 100", cubic(rp_sgd(1), 100, 0), 0, 0);
    add_method(&classifier, "Algorithm 1, rate 100", rp_algorithm_1(100), 0, 0);
    add_method(&classifier, "averaged, Jensen, rate 100", averaged(100, RP_BOUND_JENSEN), 0, 0);
    add_method(&classifier, "averaged, tight, rate 100", averaged(100, RP_BOUND_TIGHT), 0, 0);
    add_method(&classifier, "rp_partitioning()", rp_partitioning(), 0, 0);
    add_method(&classifier, "rp_partitioning(), cubic 100", cubic(rp_partitioning(), 100, 0), 0, 0);
    add_method(&classifier, "the same, adaptive", cubic(rp_partitioning(), 100, 1), 0, 0);
    add_method(&classifier, "Adam, rate 1e-3", rp_adam((rp_real)1e-3), 0, 0);
    add_method(&classifier, "SGD, rate 0.1", rp_sgd((rp_real)0.1), 0, 0);
    add_method(&classifier, "SGD, cubic 100", cubic(rp_sgd(1), 100, 0), 0, 0);
    described[0] = autoencoder;
    described[1] = classifier;
}

static const char *accuracy_text(double accuracy, char text[16]) {
    if (accuracy < 0) return "-";
    snprintf(text, 16, "%.4f", accuracy);
    return text;
}

/* Trains one net and prints its line. */
static rp_status run_bar(const bar_task *t, const bar_method *m, const set *s, uint64_t seed, rp_score *score) {
    rp_net *net = make_net(t->classifier, s->size, seed);
    rp_data train = set_data(s, 0, t->classifier, s->count[0]), test = set_data(s, 1, t->classifier, s->count[1]);
    rp_fit_options options;
    rp_fit_report report;
    char accuracy[16];
    memset(&options, 0, sizeof options);
    options.epochs = BAR_EPOCHS;
    options.seed = seed;
    printf("%-11s  %-26s  seed %d  ", t->name, m->name, (int)seed);
    clock_t start = clock();
    rp_status status = rp_fit(net, &m->optimizer, &train, &options, &report);
    double cpu = (double)(clock() - start) / CLOCKS_PER_SEC;
    if (!status) status = rp_evaluate(net, &test, score, NULL);
    if (status) printf("%s\n", rp_error(net));
    else
        printf("train %8.4f  validation %8.4f  accuracy %6s  %5.2f ms a step\n", (double)report.loss,
               (double)score->loss, accuracy_text((double)score->accuracy, accuracy), 1e3 * cpu / (double)report.steps);
    fflush(stdout);
    rp_net_free(net);
    return status;
}

/* Appends a method's row to the table. Returns 1 if it misses its bar. */
static int add_row(const bar_task *t, const bar_method *m, double loss, double accuracy, int bars, char *table,
                   size_t size) {
    char bar[32] = "-", text[16];
    int barred = bars && m->high > 0, missed = barred && !(loss >= m->low && loss <= m->high);
    size_t used = strlen(table);
    if (barred && m->low > 0) snprintf(bar, sizeof bar, "%g to %g", m->low, m->high);
    else if (barred) snprintf(bar, sizeof bar, "<= %g", m->high);
    snprintf(table + used, size - used, "| %-11s | %-26s | %8.4f | %8s | %-12s | %-7s |\n", t->name, m->name, loss,
             accuracy_text(accuracy, text), bar,
             missed   ? "MISSED"
             : barred ? "reached"
                      : "-");
    return missed;
}

/* Runs every method of a task. Returns the number of bars missed. */
static int run_bars(const bar_task *t, const set *samples, int seeds, int bars, char *table, size_t size) {
    int missed = 0;
    for (int i = 0; i < t->method_count; i++) {
        double losses[BAR_SEEDS], accuracies[BAR_SEEDS];
        for (int s = 0; s < seeds; s++) {
            rp_score score;
            int failed = run_bar(t, &t->methods[i], samples, (uint64_t)s + 1, &score) != RP_OK;
            losses[s] = failed ? HUGE_VAL : (double)score.loss;
            accuracies[s] = failed ? -1 : (double)score.accuracy;
        }
        missed += add_row(t, &t->methods[i], median(losses, seeds), median(accuracies, seeds), bars, table, size);
    }
    return missed;
}

static int reach_bars(int seeds, int fashion, int only) {
    static char table[4096];
    int missed = 0;
    bar_task described[2];
    set s;
    if (!load_set(&s, fashion ? "fashion" : "mnist", 0)) return puts("reproduce: no data, skipped"), 0;
    describe_bars(described);
    for (int i = 0; i < 2; i++)
        if (only < 0 || only == i) missed += run_bars(&described[i], &s, seeds, !fashion, table, sizeof table);
    printf("\nMedian of %d seed%s, %d epochs, batch %d:\n\n", seeds, seeds > 1 ? "s" : "", BAR_EPOCHS, BATCH);
    printf("| task        | method                     | loss     | accuracy | bar          | verdict |\n");
    printf("| ----------- | -------------------------- | -------- | -------- | ------------ | ------- |\n%s", table);
    free_set(&s);
    return missed != 0;
}

static int usage(const char *wrong) {
    if (wrong) fprintf(stderr, "reproduce: not understood, or missing: %s\n", wrong);
    fprintf(wrong ? stderr : stdout,
            "usage: reproduce [--quick] [--threads N] [--epochs N] [--seeds N] FILE.csv [CURVES.csv]\n"
            "       reproduce --bars [--quick] [--fashion] [--autoencoder | --classifier]\n"
            "  --quick      on drawn digits: 5 epochs, 3 seeds; with --bars: one seed instead of %d\n"
            "  --threads N  runs at a time; otherwise one for each processor, with the same results\n"
            "  --epochs N, --seeds N  otherwise 20 and 10\n"
            "  --fashion    on Fashion-MNIST, without bars\n"
            "  --autoencoder, --classifier  only this task\n",
            BAR_SEEDS);
    return wrong ? 2 : 0;
}

int main(int argc, char **argv) {
    static const struct plan quick_plan = {5, 3, 3000, 1};
    int quick = 0, epochs = 0, seeds = 0, bars = 0, fashion = 0, only = -1,
        threads = (int)sysconf(_SC_NPROCESSORS_ONLN);
    const char *path = NULL, *curves = NULL;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--quick")) quick = 1;
        else if (!strcmp(argv[i], "--bars")) bars = 1;
        else if (!strcmp(argv[i], "--fashion")) fashion = 1;
        else if (!strcmp(argv[i], "--autoencoder")) only = 0;
        else if (!strcmp(argv[i], "--classifier")) only = 1;
        else if (!strcmp(argv[i], "--threads") && i + 1 < argc) threads = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--epochs") && i + 1 < argc) epochs = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--seeds") && i + 1 < argc) seeds = atoi(argv[++i]);
        else if (argv[i][0] != '-' && !path) path = argv[i];
        else if (argv[i][0] != '-' && !curves) curves = argv[i];
        else return usage(strcmp(argv[i], "--help") ? argv[i] : NULL);
    }
    if (threads < 1 || threads > MOST_THREADS) return usage("--threads");
    if (bars) return reach_bars(quick ? 1 : BAR_SEEDS, fashion, only);
    if (!path) return usage("FILE.csv");
    if (quick) plan = quick_plan;
    if (epochs < 0 || epochs > MOST_EPOCHS || seeds < 0) return usage("--epochs or --seeds");
    if (epochs) plan.epochs = epochs;
    if (seeds) plan.seeds = seeds;
    return reproduce(path, curves, threads);
}
