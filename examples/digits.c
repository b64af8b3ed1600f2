/* digits.c - trains an autoencoder and a classifier of digits by residual partitioning, which has no rate, and by Adam
   and SGD at their best rates, draws the losses by epoch and by time, and says which was ahead by how much.

       cc -O2 -o digits examples/digits.c -lm && ./digits

   To learn the library, read `autoencoder` and `classifier` (nets), `methods` (optimizers), `task_data` (data), and
   `train_one` and `fit` (training); the rest is command line and pictures. */
#if !defined(_WIN32) && !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "curves.h"
#include "digits.h"
#include "digits_data.h"
#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(_WIN32)
#include <io.h>
#else
#include <unistd.h>
#endif

enum { BATCH = 100 };

/* The tasks: the nets of the paper, "Deep Residual Partitioning". */

static void autoencoder(rp_net *net) {
    static const int widths[] = {64, 2, 64, DIGITS_SIZE};
    for (int i = 0; i < 4; i++) {
        rp_dense(net, widths[i]);
        rp_activation(net, RP_TANH);
    }
    rp_loss(net, RP_SQUARED_ERROR);
}

static void classifier(rp_net *net) {
    static const int widths[] = {400, 100, 36};
    for (int i = 0; i < 3; i++) {
        rp_dense(net, widths[i]);
        rp_activation(net, RP_SOFTPLUS);
    }
    rp_dense(net, 10);
    rp_loss(net, RP_SOFTMAX_CROSS_ENTROPY);
}

typedef enum task_kind { AUTOENCODER, CLASSIFIER, TASKS } task_kind;
static const struct {
    const char *option, *name, *text;
    void (*describe)(rp_net *net);
    rp_real weight_decay; /* the same for every optimizer */
} tasks[TASKS] = {
    {"ae", "autoencoder", "784-64-2-64-784, tanh, squared error", autoencoder, (rp_real)1e-2},
    {"clf", "classifier", "784-400-100-36-10, softplus, softmax cross-entropy", classifier, (rp_real)1e-4},
};

static rp_data task_data(task_kind task, rp_data samples) {
    if (task == AUTOENCODER) return rp_targeted(samples.inputs, samples.inputs, samples.count);
    return samples;
}

/* The optimizers. The rates of Adam and SGD are the best of a quarter, half, one, two and four times themselves, by the
   mean validation loss of seeds 1 and 2: `digits --search --optimizer adam,sgd --seed 1` repeats that. 0: the optimizer
   finds it. */

static rp_optimizer partitioning(rp_real rate) {
    rp_optimizer optimizer = rp_partitioning();
    if (rate > 0) optimizer.rate = rate;
    return optimizer;
}

/* The paper's rule, with the averages of the default. */
static rp_optimizer paths(rp_real rate) {
    rp_optimizer optimizer = partitioning(rate);
    optimizer.rule.kind = RP_PATHS;
    return optimizer;
}

enum { METHODS = 6, TRIALS = 5 };
static const struct {
    const char *option, *name;
    rp_optimizer (*make)(rp_real rate);
    rp_real rate[TASKS];
    char mark; /* in the curves */
} methods[METHODS] = {
    {"rp", "RP, no rate", partitioning, {0, 0}, '*'},
    {"adam", "Adam", rp_adam, {(rp_real)3e-3, (rp_real)1e-3}, 'a'},
    {"sgd", "SGD", rp_sgd, {(rp_real)3e-3, (rp_real)0.05}, 's'},
    {"paths", "RP, paths", paths, {100, 100}, 'p'},
    {"adagrad", "Adagrad", rp_adagrad, {(rp_real)3e-2, (rp_real)1e-2}, 'g'},
    {"adadelta", "Adadelta", rp_adadelta, {1, 1}, 'd'},
};

/* The command line. */

typedef struct options {
    const char *folder; /* NULL: draw digits */
    int tasks[TASKS], methods[METHODS];
    int epochs, digits;
    uint64_t seed;
    rp_real rate; /* 0: that of the table above */
    int search;
} options;

static const char help[] = "Trains the networks of the paper on images of digits and compares optimizers.\n"
                           "\n"
                           "  --task T        ae (autoencoder), clf (classifier) or both; default both\n"
                           "  --optimizer O   rp (residual partitioning, which finds its own rate),\n"
                           "                  paths (by the paper's rule), adam, sgd, adagrad, adadelta,\n"
                           "                  several with commas between, or all; default\n"
                           "                  rp,adam,sgd\n"
                           "  --rate R        learning rate of them all; default: what suits each best\n"
                           "  --search        find these: the best of five rates for each; four minutes\n"
                           "  --epochs N      default 10, or 4 with --data\n"
                           "  --seed N        of parameters, order and drawn digits; default 2\n"
                           "  --digits N      how many to draw for training (and a fifth of it more for\n"
                           "                  validation); default 20000\n"
                           "  --data FOLDER   real images instead: MNIST or a relative, unpacked, in files\n"
                           "                  named train-images-idx3-ubyte, train-labels-idx1-ubyte,\n"
                           "                  t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte\n"
                           "  --help          this text\n";

static void wrong_value(const char *name, const char *value, const char *right) {
    fprintf(stderr, "digits: %s must be %s, not '%s'\n", name, right, value);
    exit(2);
}

static int whole(const char *name, const char *value, int low, int high) {
    char *end, right[64];
    errno = 0;
    long number = strtol(value, &end, 10);
    if (end != value && !*end && !errno && number >= low && number <= high) return (int)number;
    snprintf(right, sizeof right, "a whole number from %d to %d", low, high);
    wrong_value(name, value, right);
    return 0;
}

static rp_real positive(const char *name, const char *value) {
    char *end;
    double number = strtod(value, &end);
    int good = end != value && !*end && number > 0 && number <= 1e9;
    if (!good) wrong_value(name, value, "a number above 0 and up to 1e9");
    return (rp_real)number;
}

static void choose_tasks(options *o, const char *name, const char *value) {
    int found = 0;
    for (int t = 0; t < TASKS; t++) {
        o->tasks[t] = !strcmp(value, tasks[t].option) || !strcmp(value, "both");
        found += o->tasks[t];
    }
    if (!found) wrong_value(name, value, "ae, clf or both");
}

static void choose_methods(options *o, const char *name, const char *value) {
    const char *word = value;
    memset(o->methods, 0, sizeof o->methods);
    for (size_t length;; word += length + 1) {
        int found = 0;
        length = strcspn(word, ",");
        for (int m = 0; m < METHODS; m++) {
            const char *option = methods[m].option;
            if (strcmp(value, "all") && (strlen(option) != length || strncmp(word, option, length))) continue;
            o->methods[m] = 1;
            found = 1;
        }
        if (!found)
            wrong_value(name, value, "rp, paths, adam, sgd, adagrad, adadelta, several with commas between, or all");
        if (!word[length]) return;
    }
}

static void unknown_option(const char *name) {
    fprintf(stderr, "digits: there is no option '%s'. This is what there is:\n\n%s", name, help);
    exit(2);
}

static options parse(int count, char **arguments) {
    options o = {NULL, {1, 1}, {1, 1, 1, 0, 0, 0}, 0, 20000, 2, 0, 0};
    for (int i = 1; i < count; i += 2) {
        const char *name = arguments[i], *value = i + 1 < count ? arguments[i + 1] : "";
        if (!strcmp(name, "--help")) {
            fputs(help, stdout);
            exit(0);
        }
        if (!strcmp(name, "--search")) {
            o.search = 1;
            i--;
            continue;
        }
        if (!strcmp(name, "--task")) choose_tasks(&o, name, value);
        else if (!strcmp(name, "--optimizer")) choose_methods(&o, name, value);
        else if (!strcmp(name, "--rate")) o.rate = positive(name, value);
        else if (!strcmp(name, "--epochs")) o.epochs = whole(name, value, 1, 100000);
        else if (!strcmp(name, "--seed")) o.seed = (uint64_t)whole(name, value, 0, 2147483647);
        else if (!strcmp(name, "--digits")) o.digits = whole(name, value, 100, 1000000);
        else if (!strcmp(name, "--data") && *value) o.folder = value;
        else if (!strcmp(name, "--data")) wrong_value(name, value, "a folder");
        else unknown_option(name);
    }
    if (!o.epochs) o.epochs = o.folder ? 4 : 10;
    return o;
}

/* Progress: a line that is rewritten on a terminal, a line per epoch elsewhere. */

static double seconds(void) {
#if defined(_WIN32)
    return (double)clock() / CLOCKS_PER_SEC;
#else
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
#endif
}

/* Of one thread: what a clock on the wall shows if nothing else runs on the machine. Methods are timed by it. */
static double processor_seconds(void) { return (double)clock() / CLOCKS_PER_SEC; }

static int on_terminal(void) {
#if defined(_WIN32)
    return _isatty(_fileno(stdout));
#else
    return isatty(fileno(stdout));
#endif
}

typedef struct run {
    const char *name;
    int samples;
    double start, last, shown; /* when: it began, the last call came, the line was last written */
    double processor;          /* what that clock said at the end of the last call */
    double training;           /* seconds of it in training steps alone */
    int64_t steps;
    curve *losses; /* of validation losses */
} run;

/* Writes nothing for a loss that has no accuracy. */
static const char *right(char *text, size_t size, rp_real accuracy) {
    *text = 0;
    if (accuracy >= 0) snprintf(text, size, " (%.1f%% right)", 100 * (double)accuracy);
    return text;
}

static void epoch_line(char *line, size_t size, const run *r, const rp_progress *p) {
    char train[32], validation[32];
    snprintf(line, size, "%-12s  epoch %d/%d  loss %.4g%s, validation %.4g%s  %.1f s", r->name, p->epoch + 1, p->epochs,
             (double)p->loss, right(train, sizeof train, p->accuracy), (double)p->validation.loss,
             right(validation, sizeof validation, p->validation.accuracy), r->last - r->start);
}

static void step_line(char *line, size_t size, const run *r, const rp_progress *p) {
    double epochs = p->epoch + (double)p->step / p->steps;
    int left = (int)((r->last - r->start) * (p->epochs - epochs) / epochs + 0.5);
    snprintf(line, size, "%-12s  epoch %d/%d  step %d/%d  loss %-6.4g  %.0f images/s  %d:%02d left", r->name,
             p->epoch + 1, p->epochs, p->step, p->steps, (double)p->loss, epochs * r->samples / r->training, left / 60,
             left % 60);
}

/* Of so many epochs that there are more than points, some are left out. */
static void add_point(curve *c, const rp_progress *p, double time) {
    int i = p->epochs <= CURVE_POINTS ? p->epoch : (int)((int64_t)p->epoch * CURVE_POINTS / p->epochs);
    c->x[0][i] = p->epoch + 1;
    c->x[1][i] = time;
    c->loss[i] = (double)p->validation.loss;
    c->count = i + 1;
}

static int show_progress(void *user, const rp_progress *p) {
    run *r = (run *)user;
    char line[160];
    double now = seconds();
    if (!p->epoch_done) {
        r->training += processor_seconds() - r->processor;
        r->steps++;
    }
    r->last = now;
    if (p->epoch_done) add_point(r->losses, p, r->training);
    if (p->epoch_done) epoch_line(line, sizeof line, r, p);
    else step_line(line, sizeof line, r, p);
    if (!on_terminal()) {
        if (p->epoch_done) puts(line);
    } else if (p->epoch_done || now - r->shown > 0.1) {
        printf("\r%-79.79s", line);
        r->shown = now;
    }
    fflush(stdout);
    r->last = seconds();
    r->processor = processor_seconds();
    return 0;
}

/* Training, and what came of it. */

enum { SHOWN = 3, COLUMNS = 3 }; /* digits, and pictures of each: the input and its first reconstructions */
typedef struct gallery {
    int columns;
    const char *names[COLUMNS];
    rp_real pictures[COLUMNS][SHOWN][DIGITS_SIZE];
} gallery;

typedef struct result {
    task_kind task;
    const char *name;
    double rate, milliseconds, state; /* state: bytes for each parameter */
    rp_fit_report report;
    curve losses;
} result;

static rp_status fit(rp_net *net, const rp_optimizer *optimizer, const options *o, const digits_data *data,
                     result *out) {
    rp_data train = task_data(out->task, data->train), validation = task_data(out->task, data->validation);
    double now = seconds();
    run r = {out->name, train.count, now, now, 0, processor_seconds(), 0, 0, &out->losses};
    rp_fit_options fit_options;
    memset(&fit_options, 0, sizeof fit_options);
    fit_options.epochs = o->epochs;
    fit_options.seed = o->seed;
    fit_options.validation = &validation;
    fit_options.progress = show_progress;
    fit_options.user = &r;
    rp_status status = rp_fit(net, optimizer, &train, &fit_options, &out->report);
    if (on_terminal()) putchar('\n');
    out->milliseconds = 1000 * r.training / (double)(r.steps ? r.steps : 1);
    out->state = (double)rp_state_memory(net) / (double)rp_parameter_count(net);
    return status;
}

static rp_status reconstruct(rp_net *net, const rp_data *samples, const char *name, gallery *g) {
    int count = samples->count < SHOWN ? samples->count : SHOWN;
    if (g->columns == COLUMNS) return RP_OK;
    if (g->columns == 0) {
        memcpy(g->pictures[0], samples->inputs, (size_t)count * sizeof g->pictures[0][0]);
        g->names[g->columns++] = "input";
    }
    g->names[g->columns] = name;
    return rp_predict(net, samples->inputs, count, g->pictures[g->columns++][0]);
}

static int train_one(task_kind task, int method, rp_real rate, const options *o, const digits_data *data, result *out,
                     gallery *g) {
    rp_optimizer optimizer = methods[method].make(rate);
    optimizer.weight_decay = tasks[task].weight_decay;
    memset(out, 0, sizeof *out);
    out->task = task;
    out->name = methods[method].name;
    out->losses.mark = methods[method].mark;
    out->rate = (double)optimizer.rate;
    rp_net *net = rp_net_new(rp_vector(DIGITS_SIZE), NULL);
    tasks[task].describe(net);
    rp_status status = rp_net_build(net, BATCH, o->seed);
    if (*rp_warning(net)) fprintf(stderr, "digits: %s\n", rp_warning(net));
    if (!status) status = fit(net, &optimizer, o, data, out);
    if (!status && task == AUTOENCODER) status = reconstruct(net, &data->validation, out->name, g);
    if (status) fprintf(stderr, "digits: %s, %s: %s\n", tasks[task].name, out->name, rp_error(net));
    rp_net_free(net);
    return !status;
}

/* With --search, that of the best rate. */
static int train_best(task_kind task, int method, const options *o, const digits_data *data, result *out, gallery *g) {
    static const rp_real trials[TRIALS] = {(rp_real)0.25, (rp_real)0.5, 1, 2, 4};
    rp_real rate = o->rate > 0 ? o->rate : methods[method].rate[task];
    int found = 0;
    if (!o->search || !(methods[method].rate[task] > 0)) return train_one(task, method, rate, o, data, out, g);
    for (int i = 0; i < TRIALS; i++) {
        result r;
        printf("rate %g\n", (double)(rate * trials[i]));
        if (!train_one(task, method, rate * trials[i], o, data, &r, g)) continue;
        if (!found || r.report.validation.loss < out->report.validation.loss) *out = r;
        found = 1;
    }
    return found;
}

/* What was seen: our validation loss beside theirs, after all epochs and at equal time. */
static void compare(const result *ours, const result *theirs) {
    double time = fmin(curve_end(&ours->losses, 1), curve_end(&theirs->losses, 1));
    double loss = (double)theirs->report.validation.loss, all = (double)ours->report.validation.loss / loss - 1;
    double equal = curve_at(&ours->losses, 1, time) / curve_at(&theirs->losses, 1, time) - 1;
    printf(", %.1f%% %s %s's %.4g at rate %g (at equal time, %.1f s: %.1f%% %s)", 100 * fabs(all),
           all < 0 ? "below" : "above", theirs->name, loss, theirs->rate, time, 100 * fabs(equal),
           equal < 0 ? "below" : "above");
}

/* The runs of one task. The first is compared with the others if it is the one without a rate. */
static void show_task(const result *runs, int count) {
    curve curves[METHODS];
    for (int i = 0; i < count; i++) curves[i] = runs[i].losses;
    printf("\nvalidation loss:");
    for (int i = 0; i < count; i++) printf(" %c %s%s", runs[i].losses.mark, runs[i].name, i + 1 < count ? "," : "\n");
    curves_draw(curves, count);
    if (count < 2 || runs->rate > 0) return;
    printf("\nIn the %s, without a rate, residual partitioning ends at %.4g", tasks[runs->task].name,
           (double)runs->report.validation.loss);
    for (int i = 1; i < count; i++) compare(runs, runs + i);
    printf(".\n");
}

static const char *percent(char *text, size_t size, rp_real accuracy) {
    if (accuracy < 0) return "-";
    snprintf(text, size, "%.2f%%", 100 * (double)accuracy);
    return text;
}

static void print_table(const result *results, int count) {
    printf("\n%-12s %-12s %8s %19s %19s %9s %14s\n", "task", "optimizer", "rate", "train", "validation", "ms",
           "state bytes");
    printf("%44s %9s %9s %9s %9s %14s\n", "loss", "accuracy", "loss", "accuracy", "per step", "per parameter");
    for (const result *r = results; r < results + count; r++) {
        char train[16], validation[16];
        const rp_fit_report *report = &r->report;
        printf("%-12s %-12s %8.3g %9.4g %9s %9.4g %9s %9.2f %14.1f\n", tasks[r->task].name, r->name, r->rate,
               (double)report->loss, percent(train, sizeof train, report->accuracy), (double)report->validation.loss,
               percent(validation, sizeof validation, report->validation.accuracy), r->milliseconds, r->state);
    }
}

/* Pictures: two pixels to a character, one above the other. */

static int utf8(void) {
    const char *locale = setlocale(LC_CTYPE, "");
    return locale && (strstr(locale, "UTF-8") || strstr(locale, "utf8"));
}

static void draw_pixels(rp_real top, rp_real bottom, int colour, int unicode) {
    static const char *const shades[] = {" ", "░", "▒", "▓", "█"}, ramp[] = " .:-=+*#%@";
    int a = (int)(11.5 * ((double)top + 1) + 0.5), b = (int)(11.5 * ((double)bottom + 1) + 0.5); /* 0..23 */
    if (colour) printf("\033[38;5;%d;48;5;%dm▀\033[0m", 232 + a, 232 + b);
    else if (unicode) fputs(shades[(a + b) * 5 / 47], stdout);
    else putchar(ramp[(a + b) * 10 / 47]);
}

static void draw_gallery(const gallery *g) {
    const int first = 2, end = DIGITS_SIDE - 2; /* without the margins, three pictures fit in 80 columns */
    const char *no_colour = getenv("NO_COLOR");
    int unicode = utf8(), colour = unicode && on_terminal() && !(no_colour && *no_colour);
    putchar('\n');
    for (int column = 0; column < g->columns; column++) printf("%-26s", g->names[column]);
    putchar('\n');
    for (int digit = 0; digit < SHOWN; digit++) {
        for (int row = first; row < end; row += 2) {
            for (int column = 0; column < g->columns; column++) {
                const rp_real *top = g->pictures[column][digit] + row * DIGITS_SIDE, *bottom = top + DIGITS_SIDE;
                for (int x = first; x < end; x++) draw_pixels(top[x], bottom[x], colour, unicode);
                fputs("  ", stdout);
            }
            putchar('\n');
        }
    }
}

static int train_all(const options *o, const digits_data *data) {
    result results[TASKS * METHODS];
    int done = 0, failed = 0;
    gallery *pictures = (gallery *)calloc(1, sizeof *pictures);
    if (!pictures) {
        fputs("digits: out of memory\n", stderr);
        return 0;
    }
    for (int task = 0; task < TASKS; task++) {
        int before = done;
        if (!o->tasks[task]) continue;
        printf("\n%s: %s, weight decay %g, batch %d\n", tasks[task].name, tasks[task].text,
               (double)tasks[task].weight_decay, BATCH);
        for (int method = 0; method < METHODS; method++) {
            if (!o->methods[method]) continue;
            if (train_best((task_kind)task, method, o, data, &results[done], pictures)) done++;
            else failed++;
        }
        if (done > before) show_task(results + before, done - before);
    }
    if (done) print_table(results, done);
    if (pictures->columns) draw_gallery(pictures);
    free(pictures);
    return !failed;
}

int main(int count, char **arguments) {
    options o = parse(count, arguments);
    digits_data data;
    int good = digits_load(&data, o.folder, o.seed, o.digits);
    if (good) {
        printf("%d images to train and %d to validate, %s\n", data.train.count, data.validation.count,
               o.folder ? o.folder : "drawn by the program");
        good = train_all(&o, &data);
    }
    digits_free(&data);
    return !good;
}
