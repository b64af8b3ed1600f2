/* Measures what curvature costs: sweeps and steps as multiples of a gradient (rp_backward without a rule), diagonals on
   nets where they are feasible, and solves against depth and against the number of parameters. Every case is checked
   before it is timed. Fails if a bar is missed.

       cc -O2 -o curvature bench/curvature.c -lm && ./curvature --help */
#define _POSIX_C_SOURCE 200809L
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "measure.h"
#include "tasks.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct options {
    const char *task; /* NULL: all */
    double seconds;   /* of the turns; 0: as few as possible */
} options;

static void check(double error, double limit, const char *name, const char *what) {
    if (error <= limit) return; /* what is not a number is wrong, too */
    fprintf(stderr, "curvature: %s: %s: wrong by %g\n", name, what, error);
    exit(1);
}

static double dot(const rp_real *a, const rp_real *b, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

/* A net with its batch, and the arrays that sweeps read and write. */
typedef struct subject {
    const char *name;
    rp_net *net;
    rp_data data;
    size_t count; /* of parameters */
    rp_real *v, *out, *norms;
    rp_optimizer optimizer; /* of its steps */
} subject;

static rp_real *new_array(size_t count) { return (rp_real *)task_must(calloc(count, sizeof(rp_real))); }

static subject subject_of(const char *name, rp_net *net, const rp_data *data) {
    subject s = {name, net, *data, rp_parameter_count(net), NULL, NULL, NULL, rp_sgd(1)};
    uint32_t random = 2;
    s.v = new_array(s.count), s.out = new_array(s.count), s.norms = new_array((size_t)data->count);
    for (size_t i = 0; i < s.count; i++) {
        random = random * 1664525u + 1013904223u;
        s.v[i] = (rp_real)(random >> 8) / (1 << 23) - 1;
    }
    return s;
}
static void subject_free(subject *s) {
    rp_net_free(s->net);
    free(s->v), free(s->out), free(s->norms);
}
static void data_free(rp_data *data) { free((void *)data->inputs), free((void *)data->labels); }

/* The sweeps. */

static void run_gradient(void *context) {
    subject *s = (subject *)context;
    task_good(rp_backward(s->net, &s->data, NULL, NULL), s->net);
}
static void run_directional(void *context) {
    subject *s = (subject *)context;
    rp_real first, second;
    task_good(rp_directional(s->net, &s->data, s->v, &first, &second), s->net);
}
static void run_hessian(void *context) {
    subject *s = (subject *)context;
    task_good(rp_hessian_vector(s->net, &s->data, s->v, s->out), s->net);
}
static void run_gauss_newton(void *context) {
    subject *s = (subject *)context;
    task_good(rp_gauss_newton_vector(s->net, &s->data, s->v, s->out), s->net);
}
static void run_norms(void *context) {
    subject *s = (subject *)context;
    task_good(rp_sample_gradient_norms(s->net, &s->data, s->norms), s->net);
}
static void run_noise(void *context) {
    subject *s = (subject *)context;
    rp_noise noise;
    task_good(rp_gradient_noise(s->net, &s->data, &noise, NULL), s->net);
}
static void run_variance(void *context) {
    subject *s = (subject *)context;
    rp_noise noise;
    task_good(rp_gradient_noise(s->net, &s->data, &noise, s->out), s->net);
}
static void run_step(void *context) {
    subject *s = (subject *)context;
    task_good(rp_train(s->net, &s->optimizer, &s->data, NULL), s->net);
}

/* The sweeps against each other. */
static void check_sweeps(subject *s) {
    rp_real first, second;
    rp_noise noise;
    double samples = s->data.count, square, squares, slope, curvature, error, length = sqrt(dot(s->v, s->v, s->count));
    run_gradient(s);
    square = dot(rp_gradient(s->net), rp_gradient(s->net), s->count), slope = dot(rp_gradient(s->net), s->v, s->count);
    task_good(rp_directional(s->net, &s->data, s->v, &first, &second), s->net);
    check(fabs((double)first - slope), 1e-4 * sqrt(square) * length, s->name, "slope along a direction");
    run_hessian(s);
    curvature = dot(s->v, s->out, s->count), error = fabs((double)second - curvature);
    check(error, 1e-3 * sqrt(dot(s->out, s->out, s->count)) * length, s->name, "curvature along a direction");
    run_gauss_newton(s);
    check(-dot(s->v, s->out, s->count), 0, s->name, "Gauss-Newton product, by its sign,");
    run_norms(s);
    squares = dot(s->norms, s->norms, (size_t)s->data.count) / samples;
    task_good(rp_gradient_noise(s->net, &s->data, &noise, NULL), s->net);
    check(fabs((double)noise.gradient / square - 1), 1e-3, s->name, "square of the gradient");
    error = fabs((square + (double)noise.variance * (samples - 1) / samples) / squares - 1);
    check(error, 1e-3, s->name, "norms of samples' gradients");
}

enum {
    GRADIENT,
    DIRECTIONAL,
    HESSIAN,
    GAUSS_NEWTON,
    NORMS,
    NOISE,
    VARIANCE,
    SGD_STEP,
    SGD_CUBIC,
    RP_STEP,
    RP_CUBIC,
    SWEEPS
};
static const struct {
    const char *name;
    void (*run)(void *context);
    double most; /* times a gradient; 0: no bar */
} sweeps[SWEEPS] = {
    {"gradient", run_gradient, 0},
    {"directional", run_directional, 1.9},
    {"hessian_vector", run_hessian, 3.2},
    {"gauss_newton_vector", run_gauss_newton, 3.2},
    {"sample_gradient_norms", run_norms, 0},
    {"gradient_noise", run_noise, 0},
    {"gradient_noise_variance", run_variance, 0},
    {"step_sgd", run_step, 0},
    {"step_sgd_cubic", run_step, 0},
    {"step_partitioning", run_step, 0},
    {"step_partitioning_cubic", run_step, 0},
};

/* Steps so short that the net stays what it is: by their rate, or by a sigma that leaves next to nothing of them. */
static rp_optimizer short_steps(int sweep) {
    const rp_real rate = (rp_real)1e-9;
    rp_optimizer optimizer = rp_sgd(rate);
    if (sweep >= RP_STEP) {
        optimizer = rp_partitioning();
        optimizer.rate = rate;
    }
    if (sweep == SGD_CUBIC || sweep == RP_CUBIC) {
        optimizer.rate = 1;
        optimizer.cubic_sigma = (rp_real)1e30;
    }
    return optimizer;
}

/* Prints a task's sweeps. Returns how many bars are missed. */
static int measure_sweeps(const task *t, double seconds) {
    static measurement m[SWEEPS];
    subject subjects[SWEEPS]; /* the steps' nets are their own, since their states differ */
    rp_data data = task_data(t);
    int missed = 0;
    for (int i = 0; i < SWEEPS; i++) {
        if (i == GRADIENT || i >= SGD_STEP) subjects[i] = subject_of(t->name, task_net(t, RP_ISA_AUTO, 1), &data);
        else subjects[i] = subjects[GRADIENT];
        subjects[i].optimizer = short_steps(i);
        m[i].run = sweeps[i].run, m[i].context = &subjects[i];
    }
    check_sweeps(&subjects[GRADIENT]);
    measure(m, SWEEPS, seconds, 2e-3);
    for (int i = 0; i < SWEEPS; i++) {
        double ratio = measure_ratio(&m[i], &m[GRADIENT]);
        printf("sweep task=%s kind=%s us=%.2f us_least=%.2f vs_gradient=%.2f", t->name, sweeps[i].name,
               1e6 * measure_median(&m[i]), 1e6 * measure_least(&m[i]), ratio);
        if (sweeps[i].most > 0) printf(" at_most=%.1f%s", sweeps[i].most, ratio > sweeps[i].most ? " MISSED" : "");
        printf("\n");
        missed += sweeps[i].most > 0 && ratio > sweeps[i].most;
    }
    fflush(stdout);
    for (int i = 0; i < SWEEPS; i++)
        if (i == GRADIENT || i >= SGD_STEP) subject_free(&subjects[i]);
    data_free(&data);
    return missed;
}

/* The diagonals. */

static void run_hessian_diagonal(void *context) {
    subject *s = (subject *)context;
    task_good(rp_hessian_diagonal(s->net, &s->data, s->out), s->net);
}
static void run_gauss_newton_diagonal(void *context) {
    subject *s = (subject *)context;
    task_good(rp_gauss_newton_diagonal(s->net, &s->data, s->out), s->net);
}

/* Some entries of a diagonal against products with unit vectors. */
static void check_diagonal(subject *s, void (*diagonal)(void *context), void (*product)(void *context)) {
    rp_real *want = new_array(s->count);
    double size = 0;
    diagonal(s);
    memcpy(want, s->out, s->count * sizeof *want);
    for (size_t i = 0; i < s->count; i++) size = fmax(size, fabs((double)want[i]));
    for (size_t i = 0; i < s->count; i += s->count / 50 + 1) {
        memset(s->v, 0, s->count * sizeof *s->v);
        s->v[i] = 1;
        product(s);
        check(fabs((double)(s->out[i] - want[i])), 1e-3 * size, s->name, "a diagonal");
    }
    free(want);
}

static void measure_diagonals(const task *t, double seconds) {
    enum { KINDS = 4 };
    static const char *const names[KINDS] = {"gradient", "hessian_vector", "hessian_diagonal", "gauss_newton_diagonal"};
    static void (*const runs[KINDS])(void *context) = {run_gradient, run_hessian, run_hessian_diagonal,
                                                       run_gauss_newton_diagonal};
    static measurement m[KINDS];
    rp_data data = task_data(t);
    subject s = subject_of(t->name, task_net(t, RP_ISA_AUTO, 1), &data);
    check_diagonal(&s, run_hessian_diagonal, run_hessian);
    check_diagonal(&s, run_gauss_newton_diagonal, run_gauss_newton);
    for (int i = 0; i < KINDS; i++) m[i].run = runs[i], m[i].context = &s;
    measure(m, KINDS, seconds, 2e-3);
    for (int i = 2; i < KINDS; i++) {
        double products = measure_ratio(&m[1], &m[0]) * (double)s.count; /* one for each parameter */
        printf("diagonal net=%s kind=%s parameters=%d batch=%d us=%.1f vs_gradient=%.1f", t->name, names[i],
               (int)s.count, t->batch, 1e6 * measure_median(&m[i]), measure_ratio(&m[i], &m[0]));
        printf(" ns_per_parameter=%.1f vs_products=%.2g\n", 1e9 * measure_median(&m[i]) / (double)s.count,
               measure_ratio(&m[i], &m[0]) / products);
    }
    fflush(stdout);
    subject_free(&s), data_free(&data);
}

/* The solves: the damped step of Newton's method in stacks of tanh layers of one width, by the Hessian or by the
   Gauss-Newton matrix in its place. */

enum { WIDTH = 24, BATCH = 16, DEPTHS = 5, SIZES = 4 };
static const char *const matrices[2] = {"hessian", "gauss_newton"};
static const double damping = 0.1, patience = 5; /* seconds: what takes longer is skipped */

typedef struct solve {
    rp_net *net;
    rp_data data;
    rp_real *b, *x;
    rp_solve_options options;
    rp_solve_report report;
    rp_status status;
} solve;

static void run_solve(void *context) {
    solve *s = (solve *)context;
    s->status = rp_hessian_solve(s->net, &s->data, s->b, s->x, &s->options, &s->report);
    if (s->status != RP_ERR_NOT_CONVERGED) task_good(s->status, s->net);
}

static rp_net *stack(int inputs, int depth) {
    rp_net *net = (rp_net *)task_must(rp_net_new(rp_vector(inputs), NULL));
    for (int i = 0; i < depth; i++) {
        if (i) rp_activation(net, RP_TANH);
        rp_dense(net, WIDTH);
    }
    rp_loss(net, RP_SOFTMAX_CROSS_ENTROPY);
    task_good(rp_net_build(net, BATCH, 1), net);
    return net;
}

static solve solve_of(int inputs, int depth, rp_solve_method method, int gauss_newton) {
    task t = {"stack", BATCH, {0}, RP_TANH, 1, NULL};
    t.widths[0] = inputs, t.widths[1] = WIDTH;
    solve s;
    memset(&s, 0, sizeof s);
    s.net = stack(inputs, depth), s.data = task_data(&t);
    s.b = rp_gradient(s.net), s.x = new_array(rp_parameter_count(s.net));
    s.options.method = method, s.options.gauss_newton = gauss_newton, s.options.damping = (rp_real)damping;
    task_good(rp_backward(s.net, &s.data, NULL, NULL), s.net);
    return s;
}
static void solve_free(solve *s) {
    rp_net_free(s->net), data_free(&s->data);
    free(s->x);
}

/* In turns, as in measure(), but as few as solves allow, and a slow one runs once. */
static void measure_solves(measurement *list, int count, int rounds) {
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < count; i++) {
            measurement *m = &list[i];
            if (round == 0) m->repeats = 1, m->rounds = 0;
            else if (m->times[0] > patience / 10) continue;
            m->times[m->rounds++] = measure_run(m);
        }
}

static void print_shape(const solve *s, const char *method, int depth, int inputs) {
    printf("solve method=%s matrix=%s width=%d batch=%d depth=%d inputs=%d parameters=%d", method,
           matrices[s->options.gauss_newton], WIDTH, BATCH, depth, inputs, (int)rp_parameter_count(s->net));
}
static void print_solve(const solve *s, const measurement *m) {
    printf(" seconds=%.4f residual=%.1e products=%d refinements=%d%s", measure_median(m), (double)s->report.residual,
           s->report.products, s->report.refinements, s->status ? " NOT_CONVERGED" : "");
}

/* The largest distance from the straight line that fits best, both relative to what was measured. */
static double bend(const double *x, const double *y, int count) {
    double w = 0, wx = 0, wxx = 0, wy = 0, wxy = 0, worst = 0;
    for (int i = 0; i < count; i++) {
        double weight = 1 / (y[i] * y[i]);
        w += weight, wx += weight * x[i], wxx += weight * x[i] * x[i], wy += weight * y[i], wxy += weight * x[i] * y[i];
    }
    double slope = (w * wxy - wx * wy) / (w * wxx - wx * wx), start = (wy - slope * wx) / w;
    for (int i = 0; i < count; i++) worst = fmax(worst, fabs(start + slope * x[i] - y[i]) / y[i]);
    return worst;
}

/* To a tolerance that no depth needs refinements for, so that all do the same. */
static void measure_depths(int gauss_newton, int rounds) {
    static const int depths[DEPTHS] = {4, 8, 16, 32, 64};
    static measurement m[DEPTHS];
    solve solves[DEPTHS];
    double x[DEPTHS], y[DEPTHS];
    for (int i = 0; i < DEPTHS; i++) {
        solves[i] = solve_of(WIDTH, depths[i], RP_SOLVE_DIRECT, gauss_newton);
        solves[i].options.tolerance = (rp_real)0.01;
        m[i].run = run_solve, m[i].context = &solves[i];
    }
    measure_solves(m, DEPTHS, rounds);
    for (int i = 0; i < DEPTHS; i++) {
        x[i] = depths[i], y[i] = measure_median(&m[i]);
        print_shape(&solves[i], "direct", depths[i], WIDTH);
        print_solve(&solves[i], &m[i]);
        printf(" ms_per_layer=%.3f\n", 1e3 * y[i] / depths[i]);
        solve_free(&solves[i]);
    }
    printf("line matrix=%s depths=%d..%d deviation_percent=%.1f\n", matrices[gauss_newton], depths[0],
           depths[DEPTHS - 1], 100 * bend(x, y, DEPTHS));
    fflush(stdout);
}

/* The same blocks in the direct method, and ever more parameters: the first layer's inputs grow. */
static void measure_parameters(int rounds) {
    enum { KINDS = 5, DEPTH = 4 };
    static const struct {
        const char *name;
        rp_solve_method method;
        int gauss_newton;
    } kinds[KINDS] = {
        {"direct", RP_SOLVE_DIRECT, 0}, {"iterative", RP_SOLVE_ITERATIVE, 0}, {"dense", RP_SOLVE_DENSE, 0},
        {"direct", RP_SOLVE_DIRECT, 1}, {"iterative", RP_SOLVE_ITERATIVE, 1},
    };
    static const int inputs[SIZES] = {24, 100, 1000, 10000};
    static measurement m;
    double seconds = 0, size = 1; /* of the last dense solve */
    for (int i = 0; i < SIZES; i++) {
        for (int k = 0; k < KINDS; k++) {
            solve s = solve_of(inputs[i], DEPTH, kinds[k].method, kinds[k].gauss_newton);
            double parameters = (double)rp_parameter_count(s.net), expected = seconds * pow(parameters / size, 3);
            int dense = kinds[k].method == RP_SOLVE_DENSE;
            print_shape(&s, kinds[k].name, DEPTH, inputs[i]);
            if (dense && expected > patience) printf(" skipped: about %.0f seconds", expected);
            else {
                m.run = run_solve, m.context = &s;
                measure_solves(&m, 1, rounds);
                print_solve(&s, &m);
                if (dense) seconds = measure_median(&m), size = parameters;
            }
            printf("\n");
            fflush(stdout);
            solve_free(&s);
        }
    }
}

static int usage(const char *wrong) {
    FILE *to = wrong ? stderr : stdout;
    if (wrong) fprintf(to, "curvature: %s is not an option, or has no good value\n", wrong);
    fprintf(to,
            "usage: curvature [option]...\n"
            "  --task NAME     only ae, clf, deep, wide, conv or rnn, and neither diagonals nor solves\n"
            "  --seconds N     how long the sweeps and diagonals of a net take turns (8)\n"
            "  --quick         as few turns as possible\n"
            "us and seconds are medians; vs_gradient is against rp_backward without a rule, which takes turns with\n"
            "it, vs_products against a product for each parameter. deviation_percent is from a straight line through\n"
            "the times of all depths. The environment's RP_ISA chooses the instruction set.\n");
    return wrong ? 2 : 0;
}

int main(int argc, char **argv) {
    static const task small = {"small", 16, {64, 24, 24, 10}, RP_TANH, 1, NULL};
    options o = {NULL, 8};
    int missed = 0, measured = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help")) return usage(NULL);
        if (!strcmp(argv[i], "--quick")) o.seconds = 0;
        else if (i + 1 == argc) return usage(argv[i]);
        else if (!strcmp(argv[i], "--task")) o.task = argv[++i];
        else if (strcmp(argv[i], "--seconds") || (o.seconds = atof(argv[i + 1])) <= 0) return usage(argv[i]);
        else i++;
    }
    for (int i = 0; i < TASKS; i++)
        if (!o.task || !strcmp(o.task, tasks[i].name)) missed += measure_sweeps(&tasks[i], o.seconds), measured++;
    if (!measured) return usage("--task");
    if (!o.task) {
        int quick = o.seconds <= 0, rounds = quick ? 3 : 9;
        measure_diagonals(&small, o.seconds);
        if (!quick) measure_diagonals(&tasks[2], o.seconds);
        measure_depths(0, rounds);
        if (!quick) measure_depths(1, rounds);
        measure_parameters(rounds);
    }
    return missed != 0;
}
