/* rp_hessian_solve: every method against dense solutions of a naive float64 version, what a solve says of itself, where
   it ends early and where there is no solution. For single precision as it is, for double with -DRP_DOUBLE. */
#include "../rp.h"
#include "curvature.h"

/* The residual that is asked for of small systems, and what that makes of the solution when eigenvalues are at most
   1000 times apart (the worst of 8000: 1e-12 and 2e-4). */
#ifdef RP_DOUBLE
static const double solved = 1e-12, solved_error = 1e-9;
#else
static const double solved = 1e-4, solved_error = 1e-2;
#endif

/* (M + damping I) x = b for M = H or G of a small trial, in float64. Frozen parameters have rows of the identity. */
typedef struct problem {
    int n, gauss_newton;
    double damping;
    double *matrix, *x;
    double least, nearest, largest; /* eigenvalue; magnitudes of eigenvalues */
    vector b;
} problem;

static problem problem_new(trial *t, const dense *d, int gauss_newton, double damping) {
    double *values = ref_new(d->n);
    problem p = {d->n,     gauss_newton, damping, ref_matrix(d->n),         ref_new(d->n),
                 HUGE_VAL, HUGE_VAL,     0,       vector_new(&t->random, d)};
    memcpy(p.matrix, gauss_newton ? d->g : d->h, sizeof *p.matrix * (size_t)(d->n * d->n));
    for (int i = 0; i < d->n; i++) p.matrix[i * d->n + i] += d->c[i] > 0 ? damping : 1;
    ref_eigenvalues(d->n, p.matrix, values);
    for (int i = 0; i < d->n; i++) {
        p.least = fmin(p.least, values[i]);
        p.nearest = fmin(p.nearest, fabs(values[i]));
        p.largest = fmax(p.largest, fabs(values[i]));
    }
    ref_solve(d->n, p.matrix, p.b.exact, p.x);
    return p;
}

static double *exact_of(int n, const rp_real *x) {
    double *exact = ref_new(n);
    for (int i = 0; i < n; i++) exact[i] = (double)x[i];
    return exact;
}
static double distance(int n, const double *a, const double *b) {
    double square = 0;
    for (int i = 0; i < n; i++) square += (a[i] - b[i]) * (a[i] - b[i]);
    return sqrt(square);
}

/* |b - (M + damping I) x| / |b| */
static double residual_of(const problem *p, const rp_real *x) {
    double *product = ref_new(p->n);
    ref_times(p->n, p->matrix, exact_of(p->n, x), product);
    return distance(p->n, p->b.exact, product) / ref_norm(p->n, p->b.exact);
}

/* What rounding can change in a residual, relative to |b|: some units of the last digit of (M + damping I) x. */
static double rounding_of(const problem *p) {
    return 100 * last_digit * (1 + p->largest * ref_norm(p->n, p->x) / ref_norm(p->n, p->b.exact));
}

static int is_stack(const ref_net *net) {
    for (int l = 0; l < net->layers; l++)
        if (net->layer[l].kind != REF_DENSE && net->layer[l].kind != REF_ACTIVATION) return 0;
    return 1;
}

static void check_solve(trial *t, const problem *p, rp_solve_method method) {
    rp_solve_options options = options_of(method, p->gauss_newton, p->damping, solved);
    rp_solve_report report;
    rp_real *x = new_reals((size_t)p->n);
    double moved = 0;
    memset(&report, 0, sizeof report);
    rp_status status = rp_hessian_solve(t->net, &t->data, p->b.real, x, &options, &report);
    double residual = residual_of(p, x);
    double error = distance(p->n, exact_of(p->n, x), p->x) / ref_norm(p->n, p->x);
    for (int i = 0; i < p->n; i++) moved += fabs(p->b.exact[i]) > 0 ? 0 : fabs((double)x[i]);
    CHECK(status == RP_OK, "%d, '%s': method %d, gauss_newton %d, damping %g, residual %g, eigenvalues %g, %g..%g; %s",
          (int)status, rp_error(t->net), (int)method, p->gauss_newton, p->damping, residual, p->least, p->nearest,
          p->largest, t->text);
    CHECK(error <= solved_error, "method %d, damping %g: off by %g, residual %g, eigenvalues %g, %g..%g; %s",
          (int)method, p->damping, error, residual, p->least, p->nearest, p->largest, t->text);
    CHECK(moved <= 0, "method %d: frozen entries are %g; %s", (int)method, moved, t->text);
    CHECK(fabs((double)report.residual - residual) <= 1e-3 * residual + rounding_of(p),
          "method %d, damping %g: residual %g, reported as %g; %s", (int)method, p->damping, residual,
          (double)report.residual, t->text);
    CHECK(report.method == method || (method == RP_SOLVE_AUTO && report.method != RP_SOLVE_AUTO),
          "%d instead of %d; %s", (int)report.method, (int)method, t->text);
    CHECK(report.method != RP_SOLVE_DIRECT || is_stack(t->reference), "the direct method where it cannot be; %s",
          t->text);
    CHECK(report.products > 0 && report.refinements >= 0, "%d products, %d refinements; %s", report.products,
          report.refinements, t->text);
    if (report.method == RP_SOLVE_ITERATIVE)
        CHECK(report.negative_curvature == (p->least < 0), "%d, eigenvalues from %g; %s", report.negative_curvature,
              p->least, t->text);
    else CHECK(report.negative_curvature == -1, "%d; %s", report.negative_curvature, t->text);
}

/* What the direct method does not do. */
static void check_direct_refusals(trial *t, const problem *p) {
    int stack = is_stack(t->reference);
    rp_solve_options options = options_of(RP_SOLVE_DIRECT, p->gauss_newton, stack ? 0 : 1, 0);
    rp_net *net = t->net;
    rp_real *x = new_reals((size_t)p->n);
    x[0] = 7;
    FAILS(rp_hessian_solve(net, &t->data, p->b.real, x, &options, NULL), stack ? RP_ERR_VALUE : RP_ERR_UNSUPPORTED,
          stack ? "rp_hessian_solve damping" : "rp_hessian_solve direct");
    CHECK(x[0] == 7, "written in spite of the refusal; %s", t->text);
}

/* Counts the problems with eigenvalues of both signs, and those without negative ones. */
static void check_solves(trial *t, int *indefinite, int *definite) {
    static const double dampings[] = {1, 0.1, 0.01};
    dense d = dense_new(t);
    for (int n = 0; n < 6; n++) {
        problem p = problem_new(t, &d, n % 2, dampings[n / 2]);
        if (p.nearest > 0.3 * p.damping && p.largest < 1000 * p.nearest) { /* else it is no test of the method */
            *indefinite += p.least < 0;
            *definite += p.least > 0;
            check_solve(t, &p, RP_SOLVE_AUTO);
            check_solve(t, &p, RP_SOLVE_ITERATIVE);
            check_solve(t, &p, RP_SOLVE_DENSE);
            if (is_stack(t->reference)) check_solve(t, &p, RP_SOLVE_DIRECT);
        }
        if (n < 2) check_direct_refusals(t, &p);
    }
}

static void test_solves(void) {
    static const net_recipe recipes[] = {
        {IMAGE, 4, 4, 4, 5, ANY}, {SEQUENCE, 3, 3, 3, 5, ANY}, {VECTOR, 6, 3, 4, 5, ANY}};
    static const net_recipe stacks[] = {{STACK, 3, 5, 5, 6, ANY}, {STACK, 5, 3, 3, 4, ANY}};
    int indefinite = 0, definite = 0;
    for (int n = 0; n < 80; n++) {
        trial *t = small_trial(n + 5000, n < 30 ? &recipes[n % 3] : &stacks[n % 2], 60);
        check_solves(t, &indefinite, &definite);
        trial_free(t);
    }
    CHECK(indefinite > 20 && definite > 100, "%d problems are indefinite, %d definite", indefinite, definite);
}

/* Larger stacks: the residual by the reference's products, and two methods against each other. */
static double large_residual(trial *t, const vector *b, const double *x, int gauss_newton, double damping) {
    int n = t->reference->parameters;
    double *product = ref_new(n);
    ref_product(t->reference, &t->exact, gauss_newton, x, product);
    for (int i = 0; i < n; i++) product[i] += damping * x[i];
    return distance(n, b->exact, product) / ref_norm(n, b->exact);
}
static void check_large_solves(trial *t, const dense *d, int gauss_newton, int iterative) {
    static const rp_solve_method methods[] = {RP_SOLVE_DIRECT, RP_SOLVE_ITERATIVE};
    vector b = vector_new(&t->random, d);
    rp_real *real = new_reals((size_t)d->n);
    double *x[2] = {NULL, NULL};
    for (int i = 0; i <= iterative; i++) {
        rp_solve_options options = options_of(methods[i], gauss_newton, 1, 0);
        rp_solve_report report;
        check_done(t, "rp_hessian_solve", rp_hessian_solve(t->net, &t->data, b.real, real, &options, &report));
        x[i] = exact_of(d->n, real);
        double residual = large_residual(t, &b, x[i], gauss_newton, 1);
        CHECK(residual <= 1.1 * solved_default, "method %d: residual %g, reported as %g; %s", (int)options.method,
              residual, (double)report.residual, t->text);
    }
    if (!iterative) return;
    double apart = distance(d->n, x[0], x[1]), size = ref_norm(d->n, x[0]);
    CHECK(apart <= 100 * solved_default * size, "off by %g of %g; %s", apart, size, t->text);
}

static void test_large_solves(void) {
    static const int nets[] = {0, 1, 2, 7}, counts[] = {9, 3, 17, 5};
    for (int n = 0; n < 8; n++) {
        trial *t = large_trial(nets[n / 2], counts[n / 2]);
        dense d = dense_without_matrices(t);
        /* net 1 has H + I with eigenvalues everywhere around 0: without its matrix that takes thousands of products */
        check_large_solves(t, &d, n % 2, n % 2 || nets[n / 2] != 1);
        trial_free(t);
    }
}

/* A convex problem: squared error of a linear layer, more samples than inputs; and a frozen layer below it. */
static trial *convex_trial(uint64_t seed, int frozen_below) {
    trial *t = start_trial(seed);
    t->reference = ref_net_new(rp_vector(4), RP_SQUARED_ERROR, 1);
    if (frozen_below) append(t->reference, REF_DENSE, 3, RP_IDENTITY)->frozen = 1;
    append(t->reference, REF_DENSE, 2, RP_IDENTITY);
    ref_close(t->reference);
    return trial_finish(t, 12);
}

static void test_defaults_of_solve(void) {
    for (int n = 0; n < 4; n++) {
        trial *t = convex_trial((uint64_t)n, n % 2);
        dense d = dense_new(t);
        problem p = problem_new(t, &d, 0, 0);
        rp_real *x = new_reals((size_t)d.n), *other = new_reals((size_t)d.n);
        rp_solve_report report;
        check_done(t, "without options", rp_hessian_solve(t->net, &t->data, p.b.real, x, NULL, NULL));
        CHECK(residual_of(&p, x) <= 1.1 * solved_default, "residual %g; %s", residual_of(&p, x), t->text);
        check_done(t, "with a report", rp_hessian_solve(t->net, &t->data, p.b.real, other, NULL, &report));
        CHECK(same_reals(x, other, d.n), "the report changes the result; %s", t->text);
        CHECK(report.method == RP_SOLVE_ITERATIVE || report.method == RP_SOLVE_DENSE, "%d without damping",
              (int)report.method);
        memcpy(other, p.b.real, (size_t)d.n * sizeof *other);
        check_done(t, "in place", rp_hessian_solve(t->net, &t->data, other, other, NULL, &report));
        CHECK(same_reals(x, other, d.n), "in place the result is another; %s", t->text);
        memcpy(rp_gradient(t->net), p.b.real, (size_t)d.n * sizeof *other);
        check_done(t, "in the flat arrays",
                   rp_hessian_solve(t->net, &t->data, rp_gradient(t->net), rp_step_array(t->net), NULL, NULL));
        CHECK(same_reals(x, rp_step_array(t->net), d.n), "in the flat arrays; %s", t->text);
        trial_free(t);
    }
}

/* Stopping early. The report tells the truth, and x is finite and no worse than 0. */
typedef struct watched {
    int calls, stop_at, wrong;
    double last;
} watched;

static int watch(void *user, int iteration, rp_real residual) {
    watched *w = (watched *)user;
    w->wrong += !(residual >= 0) || (w->calls && iteration <= w->last);
    w->calls++;
    w->last = iteration;
    return w->calls == w->stop_at;
}

static void check_unfinished(trial *t, const problem *p, const rp_real *x, const rp_solve_report *report, int line) {
    double residual = residual_of(p, x);
    CHECK(residual <= 1 + rounding_of(p), "line %d: residual %g; %s", line, residual, t->text);
    CHECK(fabs((double)report->residual - residual) <= 1e-3 * residual + rounding_of(p),
          "line %d: %g reported as %g; %s", line, residual, (double)report->residual, t->text);
}

static void check_unfinished_solve(trial *t, const dense *d, int gauss_newton) {
    problem p = problem_new(t, d, gauss_newton, 0.01);
    rp_real *x = new_reals((size_t)d->n);
    rp_solve_options options = options_of(RP_SOLVE_ITERATIVE, gauss_newton, 0.01, solved);
    rp_solve_report report;
    watched w = {0, 0, 0, 0};
    options.iterations = 2;
    options.progress = watch;
    options.user = &w;
    rp_status status = rp_hessian_solve(t->net, &t->data, p.b.real, x, &options, &report);
    CHECK(status == RP_ERR_NOT_CONVERGED && strstr(rp_error(t->net), "rp_hessian_solve"), "%d; '%s'; %s", (int)status,
          rp_error(t->net), t->text);
    CHECK(report.products >= 1 && report.products <= 4 && w.calls <= 2 && !w.wrong, "%d products, %d calls; %s",
          report.products, w.calls, t->text);
    check_unfinished(t, &p, x, &report, __LINE__);
    options.iterations = 0;
    w.calls = 0;
    w.stop_at = 2;
    status = rp_hessian_solve(t->net, &t->data, p.b.real, x, &options, &report);
    CHECK(status == RP_ERR_STOPPED && w.calls == 2 && !w.wrong, "%d, %d calls; %s", (int)status, w.calls, t->text);
    check_unfinished(t, &p, x, &report, __LINE__);
    w.stop_at = 0;
    w.calls = 0;
    check_done(t, "undisturbed", rp_hessian_solve(t->net, &t->data, p.b.real, x, &options, &report));
    CHECK(w.calls > 2 && w.calls <= report.products && !w.wrong, "%d calls, %d products; %s", w.calls, report.products,
          t->text);
}

static void test_unfinished_solves(void) {
    for (int n = 0; n < 8; n++) { /* of a rank that two products do not exhaust */
        trial *t = start_trial((uint64_t)n);
        t->reference = ref_net_new(rp_vector(5), RP_SQUARED_ERROR, 1);
        append_dense(t->reference, 4, RP_TANH);
        append_dense(t->reference, 4, RP_SIGMOID);
        append_dense(t->reference, 3, RP_TANH);
        ref_close(t->reference);
        trial_finish(t, 7);
        dense d = dense_new(t);
        check_unfinished_solve(t, &d, n % 2);
        trial_free(t);
    }
}

/* With a damping far below what the precision can tell from 0, and a singular H (two equal inputs), there is no
   solution to be had: the best x is given, finite, with its true residual. */
static void test_hopeless_solves(void) {
    static const rp_solve_method methods[] = {RP_SOLVE_ITERATIVE, RP_SOLVE_DIRECT, RP_SOLVE_DENSE};
    const double damping = sizeof(rp_real) == sizeof(double) ? 1e-25 : 1e-12;
    const rp_real x[] = {1, 1, -2, -2, 3, 3}, targets[] = {1, -1, 0.5};
    rp_data data = rp_targeted(x, targets, 3);
    for (int n = 0; n < 6; n++) {
        rp_real b[] = {1, -1, 0.5, 2, 0.25, -1, 1, 2, 3}, out[9], product[9];
        rp_net *net = rp_net_new(rp_vector(2), NULL);
        rp_solve_options options = options_of(methods[n % 3], n / 3, damping, 0);
        rp_solve_report report;
        double square = 0, size = 0;
        rp_dense(net, 2);
        rp_activation(net, RP_TANH);
        rp_dense(net, 1);
        CHECK(!rp_net_build(net, 3, 1) && count_of(net) == 9, "%s", rp_error(net));
        rp_status status = rp_hessian_solve(net, &data, b, out, &options, &report);
        CHECK(status == RP_ERR_NOT_CONVERGED, "method %d: %d, residual %g", n % 3, (int)status,
              (double)report.residual);
        for (int i = 0; i < 9; i++) CHECK(out[i] - out[i] == 0, "method %d: %g", n % 3, (double)out[i]);
        WORKS(use(n / 3 ? GAUSS_NEWTON_VECTOR : HESSIAN_VECTOR, net, &data, out, product));
        for (int i = 0; i < 9; i++) {
            double rest = (double)b[i] - (double)product[i] - (double)options.damping * (double)out[i];
            square += rest * rest;
            size += (double)b[i] * (double)b[i];
        }
        CHECK(fabs((double)report.residual - sqrt(square / size)) <= 1e-3 * sqrt(square / size),
              "method %d: %g, reported as %g", n % 3, sqrt(square / size), (double)report.residual);
        CHECK(report.residual > 0 && report.residual <= 1, "method %d: %g is no better than 0", n % 3,
              (double)report.residual);
        rp_net_free(net);
    }
}

/* Few samples, many parameters, no damping: what would be the direct method's, if it did not divide by it. */
static void test_undamped_stack(void) {
    trial *t = large_trial(2, 1);
    size_t n = rp_parameter_count(t->net);
    rp_real *b = new_reals(n), *x = new_reals(n);
    rp_solve_report report;
    random_reals(&t->random, b, n);
    rp_status status = rp_hessian_solve(t->net, &t->data, b, x, NULL, &report); /* H is singular */
    CHECK(status == RP_ERR_NOT_CONVERGED && report.method != RP_SOLVE_DIRECT, "%d by method %d", (int)status,
          (int)report.method);
    for (size_t i = 0; i < n; i++) CHECK(x[i] - x[i] == 0, "%g", (double)x[i]);
    trial_free(t);
}

/* b = 0 */
static void test_zero_solves(void) {
    for (int m = 0; m < SOLVE_METHODS; m++) {
        trial *t = convex_trial(3, m % 2);
        rp_real b[32] = {0}, x[32];
        rp_solve_options options = options_of(solve_methods[m], 0, 0.1, 0);
        rp_solve_report report;
        for (int i = 0; i < 32; i++) x[i] = 5;
        check_done(t, "b = 0", rp_hessian_solve(t->net, &t->data, b, x, &options, &report));
        for (int p = 0; p < t->reference->parameters; p++) CHECK(x[p] == 0, "method %d: %g", m, (double)x[p]);
        CHECK(report.residual == 0, "method %d: residual %g", m, (double)report.residual);
        trial_free(t);
    }
}

/* Where iterations are not enough, AUTO goes on to another method. */
static void test_auto_goes_on(void) {
    rp_net *net = classifier();
    rp_solve_options options = options_of(RP_SOLVE_AUTO, 0, 0.01, 0);
    rp_solve_report report;
    rp_real b[MOST], x[MOST];
    samples s;
    draw_classes(&s, 2);
    draw_vector(b, 2);
    options.iterations = 2;
    WORKS(rp_hessian_solve(net, &s.data, b, x, &options, &report));
    CHECK(report.method != RP_SOLVE_ITERATIVE && (double)report.residual <= solved_default, "method %d, residual %g",
          (int)report.method, (double)report.residual);
    rp_net_free(net);
}

/* What AUTO gives back is the best that it found: never worse than iterations alone, and as good as the method that it
   goes on to, refinements included. */
static void check_best(rp_net *net, const rp_data *data, double damping) {
    enum { BY_AUTO, ITERATIVE, DIRECT, WAYS };
    static const rp_solve_method methods[WAYS] = {RP_SOLVE_AUTO, RP_SOLVE_ITERATIVE, RP_SOLVE_DIRECT};
    size_t mark = memory_mark();
    rp_real *x = new_reals(count_of(net));
    rp_solve_report reports[WAYS];
    rp_status status[WAYS];
    double residual[WAYS];
    for (int way = 0; way < WAYS; way++) {
        rp_solve_options options = options_of(methods[way], 0, damping, 0);
        options.iterations = 100;
        status[way] = rp_hessian_solve(net, data, rp_gradient(net), x, &options, &reports[way]);
        residual[way] = (double)reports[way].residual;
        CHECK(!status[way] || status[way] == RP_ERR_NOT_CONVERGED, "%s", rp_error(net));
    }
    CHECK(residual[BY_AUTO] <= residual[ITERATIVE] && (residual[BY_AUTO] <= residual[DIRECT] || !status[BY_AUTO]),
          "damping %g: residual %g by method %d, %g by iterations, %g directly", damping, residual[BY_AUTO],
          (int)reports[BY_AUTO].method, residual[ITERATIVE], residual[DIRECT]);
    CHECK(reports[BY_AUTO].products >= reports[ITERATIVE].products, "%d products, %d by iterations",
          reports[BY_AUTO].products, reports[ITERATIVE].products);
    memory_release(mark);
}
static void test_auto_keeps_the_best(void) {
#ifdef RP_DOUBLE
    enum { WIDTH = 16, SAMPLES = 12 };
#else
    enum { WIDTH = 24, SAMPLES = 16 };
#endif
    rp_net *net = rp_net_new(rp_vector(WIDTH), NULL);
    rp_real inputs[SAMPLES * WIDTH];
    int labels[SAMPLES];
    test_random random = {1};
    for (int i = 0; i < 4; i++) {
        if (i) rp_activation(net, RP_TANH);
        rp_dense(net, WIDTH);
    }
    rp_loss(net, RP_SOFTMAX_CROSS_ENTROPY);
    WORKS(rp_net_build(net, SAMPLES, 1));
    random_reals(&random, inputs, SAMPLES * WIDTH);
    for (int i = 0; i < SAMPLES; i++) labels[i] = i;
    rp_data data = rp_labelled(inputs, labels, SAMPLES);
    WORKS(rp_backward(net, &data, NULL, NULL));
    check_best(net, &data, 0.1);
    check_best(net, &data, 1e-4);
    check_best(net, &data, 1e-12);
    rp_net_free(net);
}

/* Right-hand sides whose squares are beyond the range. */
static void check_scaled(rp_net *net, const rp_data *data, rp_solve_method method, int power) {
    rp_solve_options options = options_of(method, 0, 1, 0);
    rp_solve_report report;
    rp_real b[MOST], x[MOST], scaled[MOST];
    double error = 0, scale = pow(10, power);
    draw_vector(b, 3);
    WORKS(rp_hessian_solve(net, data, b, x, &options, NULL));
    for (size_t i = 0; i < count_of(net); i++) scaled[i] = (rp_real)(scale * (double)b[i]);
    WORKS(rp_hessian_solve(net, data, scaled, scaled, &options, &report));
    for (size_t i = 0; i < count_of(net); i++) error = larger(fabs((double)scaled[i] / scale - (double)x[i]), error);
    CHECK(error <= 1e-3 && report.residual > 0, "method %d, 1e%d: error %g, residual %g", (int)method, power, error,
          (double)report.residual);
}
static void test_scaled_solves(void) {
    rp_net *net = classifier();
    samples s;
    draw_classes(&s, 3);
    for (int m = 1; m < SOLVE_METHODS; m++) /* all but AUTO, which is one of them */
        for (int power = -30; power <= 30; power += 10) check_scaled(net, &s.data, solve_methods[m], power);
    rp_net_free(net);
}

/* Misuse. */

#define OPTION_FAILS(field, type, value) \
    do { \
        rp_solve_options options = options_of(RP_SOLVE_AUTO, 0, 0.5, 0); \
        options.field = (type)(value); \
        x[0] = 5; \
        FAILS(rp_hessian_solve(net, &s.data, v, x, &options, NULL), RP_ERR_VALUE, "rp_hessian_solve options." #field); \
        CHECK(x[0] == 5, "written in spite of options." #field); \
    } while (0)

static void test_misuse_of_options(void) {
    const double bad[] = {-1, NAN, INFINITY, -INFINITY};
    rp_net *net = classifier();
    rp_real v[MOST] = {1}, x[MOST] = {0};
    samples s;
    draw_classes(&s, 1);
    for (int i = 0; i < 4; i++) {
        OPTION_FAILS(damping, rp_real, bad[i]);
        OPTION_FAILS(tolerance, rp_real, bad[i]);
    }
    OPTION_FAILS(method, rp_solve_method, -1);
    OPTION_FAILS(method, rp_solve_method, RP_SOLVE_DENSE + 1);
    OPTION_FAILS(iterations, int, -1);
    OPTION_FAILS(iterations, int, INT_MIN);
    rp_net_free(net);
}

int main(void) {
    test_solves();
    test_large_solves();
    test_defaults_of_solve();
    test_unfinished_solves();
    test_hopeless_solves();
    test_undamped_stack();
    test_zero_solves();
    test_auto_goes_on();
    test_auto_keeps_the_best();
    test_scaled_solves();
    test_misuse_of_options();
    test_memory(SOLVE_AUTO, TOOLS);
    test_threads_and_sets(SOLVE_AUTO, TOOLS);
    return test_end();
}
