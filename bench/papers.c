/* The figures of Deep Residual Partitioning on MNIST: the autoencoder and the classifier, trained by residual
   partitioning, Adam and SGD, and with steps of a computed length. Prints a line for each run, then the medians
   over the seeds and the bars they must reach.

       cc -O2 bench/papers.c -lm -o papers && RP_DATA=folder ./papers

   The folder holds mnist/ (and fashion/) with the four unpacked IDX files. Fails if a bar is missed; without data
   it says so and succeeds. */
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "median.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BATCH = 100, EPOCHS = 4, SEEDS = 3, METHODS = 10 };

/* The median validation loss must lie in [low, high]; high 0: a reference without a bar. The bars hold on MNIST. Adam's
   is 76.6 give or take 2: its single runs spread over 2.5. */
typedef struct method {
    const char *name;
    rp_optimizer optimizer;
    double low, high;
} method;

typedef struct task {
    const char *name;
    double weight_decay;
    int classifier, method_count;
    method methods[METHODS];
} task;

typedef struct images {
    rp_idx train, train_labels, test, test_labels;
} images;

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

static void add_method(task *t, const char *name, rp_optimizer optimizer, double low, double high) {
    method m = {name, optimizer, low, high};
    m.optimizer.weight_decay = (rp_real)t->weight_decay;
    t->methods[t->method_count++] = m;
}

static void describe_tasks(task tasks[2]) {
    task autoencoder = {"autoencoder", 0.01, 0, 0, {{0}}}, classifier = {"classifier", 1e-4, 1, 0, {{0}}};
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
    tasks[0] = autoencoder, tasks[1] = classifier;
}

static rp_net *make_net(int classifier, uint64_t seed) {
    static const int widths[2][5] = {{64, 2, 64, 784, 0}, {400, 100, 36, 10, 0}};
    rp_net *net = rp_net_new(rp_vector(784), NULL);
    for (const int *width = widths[classifier]; *width; width++) {
        rp_dense(net, *width);
        if (!classifier) rp_activation(net, RP_TANH);
        else if (width[1]) rp_activation(net, RP_SOFTPLUS);
    }
    rp_loss(net, classifier ? RP_SOFTMAX_CROSS_ENTROPY : RP_SQUARED_ERROR);
    if (!rp_net_build(net, BATCH, seed)) return net;
    fprintf(stderr, "papers: %s\n", net ? rp_error(net) : "out of memory");
    rp_net_free(net);
    return NULL;
}

static const char *accuracy_text(double accuracy, char text[16]) {
    if (accuracy < 0) return "-";
    snprintf(text, 16, "%.4f", accuracy);
    return text;
}

/* Trains one net and prints its line. */
static rp_status run(const task *t, const method *m, const images *set, uint64_t seed, rp_score *score) {
    rp_net *net = make_net(t->classifier, seed);
    rp_data train = rp_idx_data(&set->train, t->classifier ? &set->train_labels : NULL);
    rp_data test = rp_idx_data(&set->test, t->classifier ? &set->test_labels : NULL);
    rp_fit_options options;
    rp_fit_report report;
    char accuracy[16];
    memset(&options, 0, sizeof options);
    options.epochs = EPOCHS;
    options.seed = seed;
    if (!net) return RP_ERR_MEMORY;
    printf("%-11s  %-26s  seed %d  ", t->name, m->name, (int)seed);
    clock_t start = clock();
    rp_status status = rp_fit(net, &m->optimizer, &train, &options, &report);
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    if (!status) status = rp_evaluate(net, &test, score, NULL);
    if (status) printf("%s\n", rp_error(net));
    else
        printf("train %8.4f  validation %8.4f  accuracy %6s  %5.2f ms a step\n", (double)report.loss,
               (double)score->loss, accuracy_text((double)score->accuracy, accuracy),
               1e3 * seconds / (double)report.steps);
    fflush(stdout);
    rp_net_free(net);
    return status;
}

/* Appends a method's row to the table. Returns 1 if it misses its bar. */
static int add_row(const task *t, const method *m, double loss, double accuracy, int bars, char *table, size_t size) {
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
static int run_task(const task *t, const images *set, int seeds, int bars, char *table, size_t size) {
    int missed = 0;
    for (int i = 0; i < t->method_count; i++) {
        double losses[SEEDS], accuracies[SEEDS];
        for (int s = 0; s < seeds; s++) {
            rp_score score;
            int failed = run(t, &t->methods[i], set, (uint64_t)s + 1, &score) != RP_OK;
            losses[s] = failed ? HUGE_VAL : (double)score.loss;
            accuracies[s] = failed ? -1 : (double)score.accuracy;
        }
        missed += add_row(t, &t->methods[i], median(losses, seeds), median(accuracies, seeds), bars, table, size);
    }
    return missed;
}

static int load(const char *folder, const char *set, const char *name, int labels, rp_idx *out) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s/%s", folder, set, name);
    rp_status status = labels ? rp_labels(path, 10, out) : rp_images(path, -1, 1, out);
    if (status) printf("papers: %s\n", out->error);
    return status == RP_OK;
}

static void free_images(images *set) {
    rp_idx_free(&set->train), rp_idx_free(&set->train_labels), rp_idx_free(&set->test), rp_idx_free(&set->test_labels);
}

static int load_images(const char *set, images *out) {
    const char *folder = getenv("RP_DATA");
    memset(out, 0, sizeof *out);
    if (!folder) return puts("papers: RP_DATA is not set"), 0;
    if (load(folder, set, "train-images-idx3-ubyte", 0, &out->train) &&
        load(folder, set, "train-labels-idx1-ubyte", 1, &out->train_labels) &&
        load(folder, set, "t10k-images-idx3-ubyte", 0, &out->test) &&
        load(folder, set, "t10k-labels-idx1-ubyte", 1, &out->test_labels))
        return 1;
    return free_images(out), 0;
}

static int usage(const char *wrong) {
    if (wrong) fprintf(stderr, "papers: unknown option %s\n", wrong);
    fprintf(wrong ? stderr : stdout,
            "usage: papers [--quick] [--fashion] [--autoencoder | --classifier]\n"
            "  --quick                      one seed instead of %d\n"
            "  --fashion                    on Fashion-MNIST, without bars\n"
            "  --autoencoder, --classifier  only this task\n",
            SEEDS);
    return wrong ? 2 : 0;
}

int main(int argc, char **argv) {
    static char table[4096];
    int seeds = SEEDS, fashion = 0, only = -1, missed = 0;
    task tasks[2];
    images set;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--quick")) seeds = 1;
        else if (!strcmp(argv[i], "--fashion")) fashion = 1;
        else if (!strcmp(argv[i], "--autoencoder")) only = 0;
        else if (!strcmp(argv[i], "--classifier")) only = 1;
        else return usage(strcmp(argv[i], "--help") ? argv[i] : NULL);
    }
    if (!load_images(fashion ? "fashion" : "mnist", &set)) return puts("papers: no data, skipped"), 0;
    describe_tasks(tasks);
    for (int i = 0; i < 2; i++)
        if (only < 0 || only == i) missed += run_task(&tasks[i], &set, seeds, !fashion, table, sizeof table);
    printf("\nMedian of %d seed%s, %d epochs, batch %d:\n\n", seeds, seeds > 1 ? "s" : "", EPOCHS, BATCH);
    printf("| task        | method                     | loss     | accuracy | bar          | verdict |\n");
    printf("| ----------- | -------------------------- | -------- | -------- | ------------ | ------- |\n%s", table);
    free_images(&set);
    return missed != 0;
}
