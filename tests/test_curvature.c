/* Exact second derivatives and what is built on them: the library against dense Hessians of a naive float64 version,
   over some hundreds of random nets, and against what is known of the mathematics. For single precision as it is, for
   double with -DRP_DOUBLE. */
#define RP_IMPLEMENTATION
#define RP_THREADS
#define RPI_GRAIN (1 << 10) /* so that small nets are worth several threads */
#include "../rp.h"
#include "calls.h"
#include "random_nets.h"
#include "reference_curvature.h"
#include "optimizers.h"
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

/* Solves: the residual that is asked for of small systems, and what that makes of the solution when eigenvalues are at
   most 1000 times apart (the worst of 8000: 1e-12 and 2e-4); and the residual that is asked for by default. */
#ifdef RP_DOUBLE
static const double solved = 1e-12, solved_error = 1e-9, solved_default = 1e-9;
#else
static const double solved = 1e-4, solved_error = 1e-2, solved_default = 1e-4;
#endif

/* In the entries of frozen layers, which are not looked at. */
static const rp_real unseen = (rp_real)NAN;

/* >>nets */

/* A stack of dense layers and activations: those may come first, last and two in a row. */
static void random_activations(test_random *random, ref_graph *g, double probability) {
    for (; chance(random, probability); probability /= 2) {
        ref_spec spec;
        memset(&spec, 0, sizeof spec);
        spec.kind = REF_ACTIVATION;
        random_activation(random, ANY, &spec);
        ref_add_layer(g, spec);
    }
}
static void add_dense(ref_graph *g, int units, int bias, int frozen) {
    ref_spec spec;
    memset(&spec, 0, sizeof spec);
    spec.kind = REF_DENSE, spec.units = units, spec.bias = bias, spec.frozen = frozen;
    ref_add_layer(g, spec);
}
static ref_graph *random_stack(test_random *random, const net_recipe *recipe) {
    rp_loss_kind loss = (rp_loss_kind)test_int(random, RP_SQUARED_ERROR, RP_POISSON);
    double delta = rounded(test_uniform(random, 0.3, 2));
    ref_graph *g = ref_graph_new(rp_vector(test_int(random, 1, recipe->size)), loss, delta);
    random_activations(random, g, 0.3);
    for (int more = test_int(random, 1, recipe->layers); more > 0; more--) {
        int units = test_int(random, 1, more > 1 ? recipe->size : recipe->outputs);
        add_dense(g, units, chance(random, 0.8), chance(random, 0.15));
        random_activations(random, g, more > 1 ? 0.9 : 0.3);
    }
    ref_graph_close(g);
    return g;
}

/* Differences must not cross a kink. */
static int too_near_a_kink(const trial *t) {
    return ill_conditioned(t, 1e-3) || ref_huber_distance(t->graph, &t->exact) < 1e-3;
}

/* Softmax of one output is constant: what comes out is what rounding leaves. */
static int constant(const ref_graph *g) { return g->net.loss == RP_SOFTMAX_CROSS_ENTROPY && g->net.outputs == 1; }

/* A trial of at most so many parameters, at least one of them trained: any net, or a stack. */
enum { ANY_NET, STACK };
static int trained_parameters(const ref_graph *g) {
    double *c = ref_new(g->net.parameters);
    int count = 0;
    ref_scales(&g->net, RP_SCALE_ONE, c);
    for (int p = 0; p < g->net.parameters; p++) count += c[p] > 0;
    free(c);
    return count;
}
static trial *small_trial(uint64_t seed, int stack, const net_recipe *recipe, int most) {
    for (;; seed += 1000000) {
        trial *t = trial_start(seed, rp_rule_default());
        t->graph = stack ? random_stack(&t->random, recipe) : random_graph(&t->random, recipe, RP_PATHS);
        if (t->graph->net.parameters <= most && trained_parameters(t->graph) && !constant(t->graph)) {
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
static dense dense_without_matrices(trial *t) {
    int n = t->graph->net.parameters, count = t->data.count;
    dense d = {n, count, ref_new(n), ref_new(n), ref_new(n * count), ref_new(n), NULL, NULL, NULL, NULL};
    ref_scales(&t->graph->net, RP_SCALE_ONE, d.c);
    ref_graph_batch(t->graph, &t->exact, NULL, d.gradient, NULL);
    ref_graph_samples(t->graph, &t->exact, d.samples);
    for (int i = 0; i < n * count; i++) d.terms[i % n] += fabs(d.samples[i]) / count;
    return d;
}
static dense dense_new(trial *t) {
    dense d = dense_without_matrices(t);
    d.h = ref_matrix(d.n), d.g = ref_matrix(d.n), d.differences = ref_matrix(d.n), d.size = ref_matrix(d.n);
    ref_graph_hessian(t->graph, &t->exact, d.h);
    ref_graph_gauss_newton(t->graph, &t->exact, d.g);
    ref_graph_differences(t->graph, &t->exact, 1e-5, d.differences);
    for (int i = 0; i < d.n * d.n; i++) d.size[i] = fabs(d.g[i]) + fabs(d.h[i] - d.g[i]);
    return d;
}
static void dense_free(dense *d) {
    free(d->c), free(d->gradient), free(d->samples), free(d->h), free(d->g), free(d->differences), free(d->size),
        free(d->terms);
}

/* A random vector; frozen entries are not looked at. */
typedef struct vector {
    rp_real *real;
    double *exact, *size; /* in float64, frozen entries 0; magnitudes */
} vector;
static vector vector_new(test_random *random, const dense *d) {
    vector v = {new_reals((size_t)d->n), ref_new(d->n), ref_new(d->n)};
    random_reals(random, v.real, (size_t)d->n);
    for (int p = 0; p < d->n; p++) {
        if (d->c[p] > 0) v.exact[p] = (double)v.real[p], v.size[p] = fabs(v.exact[p]);
        else v.real[p] = unseen;
    }
    return v;
}
static void vector_free(vector *v) { free(v->real), free(v->exact), free(v->size); }

/* >>comparisons */

/* Each layer's entries against what is expected, relative to the largest sum of magnitudes that adds up to one. */
static void check_vector(const trial *t, const char *what, const rp_real *got, const double *expected,
                         const double *size, double allowed) {
    for (int l = 0; l < t->graph->net.layers; l++) {
        const ref_layer *layer = &t->graph->net.layer[l];
        double error = 0, largest = 0;
        for (int p = layer->weights; layer->dense && p < layer->biases + layer->bias * layer->out; p++) {
            error = larger(fabs((double)got[p] - expected[p]), error);
            largest = fmax(largest, fabs(size[p]));
        }
        CHECK(error <= allowed * (largest + nothing), "%s of layer %d is off by %g, size %g; %s", what, l, error,
              largest, t->text);
    }
}
static void check_number(const trial *t, const char *what, double got, double expected, double size, double allowed) {
    CHECK(fabs(got - expected) <= allowed * (size + nothing), "%s is %.12g instead of %.12g, size %g; %s", what, got,
          expected, size, t->text);
}
static void check_done(const trial *t, const char *what, rp_status status) {
    CHECK(status == RP_OK, "%s: %d, '%s'; %s", what, (int)status, rp_error(t->net), t->text);
}
static int same_reals(const rp_real *a, const rp_real *b, int count) {
    return !memcmp(a, b, (size_t)count * sizeof *a);
}

/* The reference itself: products to all digits and differences agree, and so do the two ways to G. */
static void check_reference(trial *t, const dense *d) {
    double error = 0, error_of_g = 0, largest = 0, *v = ref_new(d->n), *out = ref_new(d->n), *expected = ref_new(d->n);
    for (int i = 0; i < d->n * d->n; i++) {
        error = larger(fabs(d->h[i] - d->differences[i]), error);
        largest = fmax(largest, d->size[i] + d->terms[i % d->n]);
    }
    CHECK(error <= 1e-7 * largest, "the Hessian is off by %g, size %g; %s", error, largest, t->text);
    for (int p = 0; p < d->n; p++) v[p] = test_normal(&t->random);
    ref_graph_product(t->graph, &t->exact, 1, v, out);
    ref_times(d->n, d->g, v, expected);
    for (int p = 0; p < d->n; p++) error_of_g = larger(fabs(out[p] - expected[p]), error_of_g);
    CHECK(error_of_g <= 1e-10 * largest * d->n, "the Gauss-Newton matrix is off by %g, size %g; %s", error_of_g,
          largest, t->text);
    free(v), free(out), free(expected);
}

/* The reference's linear algebra: a known spectrum, that of the second difference; and a solution put in. */
static void test_reference_algebra(void) {
    enum { N = 17 };
    double matrix[N * N] = {0}, values[N], x[N], b[N], solution[N];
    test_random random = {1};
    for (int i = 0; i < N; i++) matrix[i * N + i] = 2, matrix[i * N + (i ? i - 1 : 1)] = -1;
    for (int i = 0; i + 1 < N; i++) matrix[i * N + i + 1] = -1;
    ref_eigenvalues(N, matrix, values);
    for (int k = 1; k <= N; k++) {
        double nearest = HUGE_VAL;
        for (int i = 0; i < N; i++)
            nearest = fmin(nearest, fabs(values[i] - 2 + 2 * cos(3.14159265358979324 * k / (N + 1))));
        CHECK(nearest < 1e-13, "eigenvalue %d is missed by %g", k, nearest);
    }
    for (int i = 0; i < N * N; i++) matrix[i] = test_normal(&random);
    for (int i = 0; i < N; i++) x[i] = test_normal(&random);
    ref_times(N, matrix, x, b), ref_solve(N, matrix, b, solution);
    for (int i = 0; i < N; i++) CHECK(fabs(solution[i] - x[i]) < 1e-11, "%g, not %g", solution[i], x[i]);
}

/* >>products */

typedef rp_status (*multiplier)(rp_net *net, const rp_data *batch, const rp_real *v, rp_real *out);

/* In place, and from and to a flat array: the same bits. */
static void check_places(trial *t, multiplier multiply, const vector *v, const rp_real *expected, int n) {
    rp_real *(*const arrays[])(rp_net *) = {rp_parameters, rp_gradient, rp_curvature, rp_direction_array};
    size_t bytes = (size_t)n * sizeof(rp_real);
    rp_real *out = new_reals((size_t)n);
    memcpy(out, v->real, bytes);
    check_done(t, "a product in place", multiply(t->net, &t->data, out, out));
    CHECK(same_reals(out, expected, n), "in place; %s", t->text);
    for (int i = 1; i < 4; i++) {
        rp_real *array = arrays[i](t->net);
        memcpy(array, v->real, bytes);
        check_done(t, "a product from a flat array", multiply(t->net, &t->data, array, out));
        CHECK(same_reals(out, expected, n), "from array %d; %s", i, t->text);
        check_done(t, "a product to a flat array", multiply(t->net, &t->data, array, array));
        CHECK(same_reals(array, expected, n), "to array %d; %s", i, t->text);
    }
    /* from the parameters: whatever it is, it is what a copy of them gives */
    rp_real *copy = new_reals((size_t)n);
    memcpy(copy, rp_parameters(t->net), bytes);
    check_done(t, "a product with the parameters", multiply(t->net, &t->data, rp_parameters(t->net), out));
    check_done(t, "a product with a copy", multiply(t->net, &t->data, copy, copy));
    CHECK(same_reals(out, copy, n), "from the parameters; %s", t->text);
    free(out), free(copy);
}

static void check_products(trial *t, const dense *d) {
    static const char *const names[] = {"Hv", "Gv"};
    const multiplier products[] = {rp_hessian_vector, rp_gauss_newton_vector};
    vector u = vector_new(&t->random, d), v = vector_new(&t->random, d);
    double *expected = ref_new(d->n), *size = ref_new(d->n), uhv = 0, vhu = 0, scale = 0;
    rp_real *out = new_reals((size_t)d->n), *out_u = new_reals((size_t)d->n);
    for (int i = 0; i < 2; i++) {
        ref_times(d->n, i ? d->g : d->h, v.exact, expected), ref_times(d->n, d->size, v.size, size);
        check_done(t, names[i], products[i](t->net, &t->data, v.real, out));
        check_vector(t, names[i], out, expected, size, tolerance);
        check_places(t, products[i], &v, out, d->n);
        check_done(t, names[i], products[i](t->net, &t->data, u.real, out_u));
        uhv = vhu = scale = 0;
        for (int p = 0; p < d->n; p++) {
            uhv += u.exact[p] * (double)out[p], vhu += v.exact[p] * (double)out_u[p];
            scale += u.size[p] * size[p];
        }
        check_number(t, "symmetry: u'Hv", uhv, vhu, scale, tolerance);
        if (i) {
            double square = 0;
            for (int p = 0; p < d->n; p++) square += v.exact[p] * (double)out[p];
            CHECK(square >= -tolerance * (scale + nothing), "v'Gv is %g; %s", square, t->text);
            continue;
        }
        ref_times(d->n, d->differences, v.exact, expected);
        for (int p = 0; p < d->n; p++) size[p] += d->terms[p] * ref_sum(d->n, v.size);
        check_vector(t, "Hv by differences", out, expected, size, difference);
    }
    free(expected), free(size), free(out), free(out_u);
    vector_free(&u), vector_free(&v);
}

/* The slope and curvature along a direction; either may be left out. */
static void check_directional(trial *t, const dense *d) {
    vector v = vector_new(&t->random, d);
    double *hv = ref_new(d->n), *size = ref_new(d->n), slope_size;
    rp_real first = 0, second = 0, again = 0;
    ref_times(d->n, d->h, v.exact, hv), ref_times(d->n, d->size, v.size, size);
    slope_size = ref_dot(d->n, d->terms, v.size);
    check_done(t, "rp_directional", rp_directional(t->net, &t->data, v.real, &first, &second));
    check_number(t, "slope", (double)first, ref_dot(d->n, d->gradient, v.exact), slope_size, tolerance);
    check_number(t, "curvature along v", (double)second, ref_dot(d->n, hv, v.exact), ref_dot(d->n, size, v.size),
                 tolerance);
    check_done(t, "the slope alone", rp_directional(t->net, &t->data, v.real, &again, NULL));
    CHECK(same_reals(&again, &first, 1), "%g, not %g; %s", (double)again, (double)first, t->text);
    check_done(t, "the curvature alone", rp_directional(t->net, &t->data, v.real, NULL, &again));
    CHECK(same_reals(&again, &second, 1), "%g, not %g; %s", (double)again, (double)second, t->text);
    check_done(t, "neither", rp_directional(t->net, &t->data, v.real, NULL, NULL));
    free(hv), free(size);
    vector_free(&v);
}

static void check_matrix(trial *t, const dense *d) {
    size_t n = (size_t)d->n;
    rp_real *out = new_reals(n * n);
    int symmetric = 1;
    random_reals(&t->random, out, 1);
    rp_real before = out[0];
    CHECK(rp_hessian_matrix(t->net, &t->data, n - 1, out) == RP_ERR_VALUE, "%s", t->text);
    CHECK(strstr(rp_error(t->net), "rp_hessian_matrix") && strstr(rp_error(t->net), "most"), "'%s'", rp_error(t->net));
    CHECK(same_reals(out, &before, 1), "written in spite of `most`; %s", t->text);
    check_done(t, "rp_hessian_matrix", rp_hessian_matrix(t->net, &t->data, n, out));
    for (int p = 0; p < d->n; p++) {
        for (int q = 0; q < p; q++) symmetric &= same_reals(out + p * d->n + q, out + q * d->n + p, 1);
        check_vector(t, "a row of H", out + p * d->n, d->h + p * d->n, d->size + p * d->n, tolerance);
    }
    CHECK(symmetric, "H is not symmetric to the bit; %s", t->text);
    free(out);
}

static void check_diagonals(trial *t, const dense *d) {
    rp_real *out = new_reals((size_t)d->n);
    double *h = ref_new(d->n), *g = ref_new(d->n), *size = ref_new(d->n);
    int negative = 0;
    for (int p = 0; p < d->n; p++)
        h[p] = d->h[p * d->n + p], g[p] = d->g[p * d->n + p], size[p] = d->size[p * d->n + p];
    check_done(t, "rp_hessian_diagonal", rp_hessian_diagonal(t->net, &t->data, out));
    check_vector(t, "the diagonal of H", out, h, size, tolerance);
    check_done(t, "into a flat array", rp_hessian_diagonal(t->net, &t->data, rp_curvature(t->net)));
    CHECK(same_reals(out, rp_curvature(t->net), d->n), "into the curvature; %s", t->text);
    for (int p = 0; p < d->n; p++) h[p] = d->differences[p * d->n + p], size[p] += d->terms[p];
    check_vector(t, "the diagonal of differences", out, h, size, difference);
    check_done(t, "rp_gauss_newton_diagonal", rp_gauss_newton_diagonal(t->net, &t->data, out));
    check_vector(t, "the diagonal of G", out, g, g, tolerance);
    for (int p = 0; p < d->n; p++) negative += !(out[p] >= 0);
    CHECK(!negative, "%d entries of G's diagonal are negative; %s", negative, t->text);
    free(out), free(h), free(g), free(size);
}

/* >>samples */

/* What rp_sample_gradients hands out, put together again. */
typedef struct rebuilt {
    const trial *t;
    double *gradients; /* [count][n] */
    int calls, wrong, stop_at;
} rebuilt;

static void add_outer(double *matrix, const rp_real *d, int rows, const rp_real *y, int columns) {
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) matrix[i * columns + j] += (double)d[i] * (double)y[j];
}
static void add_reals(double *sums, const rp_real *d, int count) {
    for (int i = 0; i < count; i++) sums[i] += (double)d[i];
}
static void rebuild_conv2d(const ref_spec *spec, rp_shape in, rp_shape out, const rp_sample_factors *f, double *weights,
                           double *biases) {
    const rp_conv2d_desc *w = &spec->window;
    int channels = in.channels / w->groups, taps = channels * w->kernel_height * w->kernel_width;
    for (int at = 0; at < out.channels * out.height * out.width; at++) {
        int filter = at / (out.height * out.width), y = at / out.width % out.height, x = at % out.width;
        if (biases) biases[filter] += (double)f->d[at];
        for (int tap = 0; tap < taps; tap++) {
            int channel = filter / (w->filters / w->groups) * channels + tap / (w->kernel_height * w->kernel_width);
            int row = y * w->stride_height - w->padding_height + tap / w->kernel_width % w->kernel_height;
            int column = x * w->stride_width - w->padding_width + tap % w->kernel_width;
            if (row < 0 || row >= in.height || column < 0 || column >= in.width) continue;
            weights[filter * taps + tap] +=
                (double)f->d[at] * (double)f->y[(channel * in.height + row) * in.width + column];
        }
    }
}
static void rebuild(const ref_graph *g, const rp_sample_factors *f, double *gradient) {
    const ref_spec *spec = &g->spec[f->layer];
    const ref_layer *layer = &g->net.layer[f->layer];
    rp_shape in = ref_shape(g, f->layer - 1);
    double *weights = gradient + layer->weights, *biases = layer->bias ? gradient + layer->biases : NULL;
    int n = layer->out, recurrent = spec->kind == REF_RECURRENT, recursive = spec->kind == REF_RECURSIVE;
    int inputs = recurrent ? in.channels : ref_features(in);
    if (spec->kind == REF_CONV2D) {
        rebuild_conv2d(spec, in, g->shape[f->layer], f, weights, biases);
        return;
    }
    for (int step = 0; step < (recurrent ? in.steps : recursive ? spec->steps : 1); step++) {
        const rp_real *d = f->d + step * n;
        if (f->y) add_outer(weights, d, n, f->y + step * inputs, inputs);
        if (f->states) add_outer(weights + (recurrent ? n * inputs : 0), d, n, f->states + step * n, n);
        if (biases) add_reals(biases, d, n);
    }
}
static int take_factors(void *user, const rp_sample_factors *f) {
    rebuilt *r = (rebuilt *)user;
    const ref_graph *g = r->t->graph;
    if (r->stop_at && r->calls + 1 == r->stop_at) return -5;
    r->calls++;
    if (f->layer < 0 || f->layer >= g->net.layers || f->sample < 0 || f->sample >= r->t->data.count) return 1;
    ref_kind kind = g->spec[f->layer].kind;
    int stateful = kind == REF_RECURRENT || kind == REF_RECURSIVE;
    r->wrong += !g->net.layer[f->layer].dense || g->net.layer[f->layer].frozen || !f->d;
    r->wrong += !f->states != !stateful || !f->y != (kind == REF_RECURSIVE);
    if (!r->wrong) rebuild(g, f, r->gradients + f->sample * g->net.parameters);
    return 0;
}

static int trained_layers(const ref_graph *g) {
    int count = 0;
    for (int l = 0; l < g->net.layers; l++) count += g->net.layer[l].dense && !g->net.layer[l].frozen;
    return count;
}

/* Each sample's gradient, entry by entry, relative to the largest of the layer. */
static void check_sample_gradients(trial *t, const dense *d) {
    rebuilt r = {t, ref_new(d->n * d->count), 0, 0, 0};
    rp_real *got = new_reals((size_t)d->n);
    int calls = d->count * trained_layers(t->graph);
    check_done(t, "rp_sample_gradients", rp_sample_gradients(t->net, &t->data, take_factors, &r));
    CHECK(r.calls == calls && !r.wrong, "%d calls, not %d; %d wrong; %s", r.calls, calls, r.wrong, t->text);
    for (int b = 0; b < d->count; b++) {
        for (int p = 0; p < d->n; p++) got[p] = (rp_real)r.gradients[b * d->n + p];
        check_vector(t, "a sample's gradient", got, d->samples + b * d->n, d->samples + b * d->n, tolerance);
    }
    r.stop_at = (calls + 1) / 2, r.calls = 0;
    CHECK(rp_sample_gradients(t->net, &t->data, take_factors, &r) == RP_ERR_STOPPED, "%s", t->text);
    CHECK(r.calls == r.stop_at - 1, "%d calls after the stop at %d; %s", r.calls, r.stop_at, t->text);
    free(r.gradients), free(got);
}

static void check_norms(trial *t, const dense *d) {
    rp_real *norms = new_reals((size_t)d->count);
    check_done(t, "rp_sample_gradient_norms", rp_sample_gradient_norms(t->net, &t->data, norms));
    for (int b = 0; b < d->count; b++) {
        double expected = ref_norm(d->n, d->samples + b * d->n);
        check_number(t, "the norm of a sample's gradient", (double)norms[b], expected, expected, tolerance);
    }
    free(norms);
}

/* The noise and its parts. `scale` is a quotient of differences: it is checked from the parts. */
static void check_noise(trial *t, const dense *d) {
    double *variance = ref_new(d->n), *squares = ref_new(d->n), total = 0, square = 0, all = 0;
    rp_real *out = new_reals((size_t)d->n);
    rp_noise noise, alone;
    for (int p = 0; p < d->n; p++) {
        for (int b = 0; b < d->count; b++) {
            double g = d->samples[b * d->n + p], distance = g - d->gradient[p];
            variance[p] += distance * distance / (d->count - 1), squares[p] += g * g / (d->count - 1);
        }
        total += variance[p], all += squares[p], square += d->gradient[p] * d->gradient[p];
    }
    check_done(t, "rp_gradient_noise", rp_gradient_noise(t->net, &t->data, &noise, out));
    check_vector(t, "variance", out, variance, squares, tolerance);
    check_number(t, "noise.gradient", (double)noise.gradient, square, all, tolerance);
    check_number(t, "noise.variance", (double)noise.variance, total, all, tolerance);
    check_number(t, "noise.signal", (double)noise.signal, square - total / d->count, all, tolerance);
    if (noise.signal > 0) total = (double)noise.variance / (double)noise.signal;
    check_number(t, "noise.scale", (double)noise.scale, noise.signal > 0 ? total : 0, total, tolerance);
    check_done(t, "without the variance", rp_gradient_noise(t->net, &t->data, &alone, NULL));
    CHECK(fabs((double)(alone.variance - noise.variance)) <= tolerance * all, "%g, not %g; %s", (double)alone.variance,
          (double)noise.variance, t->text);
    free(variance), free(squares), free(out);
}
static void check_lonely_noise(trial *t, const dense *d) {
    rp_real *out = new_reals((size_t)d->n);
    rp_noise noise;
    CHECK(rp_gradient_noise(t->net, &t->data, &noise, out) == RP_ERR_VALUE, "%s", t->text);
    CHECK(strstr(rp_error(t->net), "rp_gradient_noise") && strstr(rp_error(t->net), "count"), "'%s'", rp_error(t->net));
    free(out);
}

static void check_tools(trial *t) {
    dense d = dense_new(t);
    check_reference(t, &d);
    check_products(t, &d);
    check_directional(t, &d);
    check_matrix(t, &d);
    check_diagonals(t, &d);
    check_sample_gradients(t, &d);
    check_norms(t, &d);
    if (d.count > 1) check_noise(t, &d);
    else check_lonely_noise(t, &d);
    dense_free(&d);
}

static void test_random_nets(void) {
    static const net_recipe recipes[] = {
        {IMAGE, 4, 5, 5, 5, ANY}, {SEQUENCE, 3, 4, 4, 5, ANY}, {VECTOR, 6, 4, 5, 5, ANY}, {IMAGE, 6, 4, 3, 3, ANY}};
    static const net_recipe stacks[] = {{VECTOR, 3, 7, 5, 6, ANY}, {VECTOR, 6, 4, 3, 4, ANY}};
    for (int n = 0; n < 200; n++) {
        trial *t = small_trial((uint64_t)n, ANY_NET, &recipes[n % 4], 100);
        check_tools(t);
        trial_free(t);
    }
    for (int n = 0; n < 100; n++) {
        trial *t = small_trial((uint64_t)n, STACK, &stacks[n % 2], 100);
        check_tools(t);
        trial_free(t);
    }
}

/* Larger nets, by products only: widths around the kernels' tiles, many inputs, odd batches. */

static ref_spec *append(ref_graph *g, ref_kind kind, int units, rp_activation_kind activation) {
    ref_spec spec;
    memset(&spec, 0, sizeof spec);
    spec.kind = kind, spec.units = units, spec.activation = activation, spec.bias = 1;
    spec.steps = 3, spec.source = RP_INPUT, spec.slope = activation == RP_ELU ? 1 : rounded(0.01);
    spec.all_states = kind == REF_RECURRENT && units == 16;
    spec.window.filters = units, spec.window.kernel_height = spec.window.kernel_width = kind == REF_CONV2D ? 3 : 2;
    spec.window.stride_height = spec.window.stride_width = kind == REF_CONV2D ? 1 : 2;
    spec.window.padding_height = spec.window.padding_width = kind == REF_CONV2D, spec.window.groups = 1;
    ref_add_layer(g, spec);
    return &g->spec[g->net.layers - 1];
}
static void append_dense(ref_graph *g, int units, rp_activation_kind activation) {
    append(g, REF_DENSE, units, RP_IDENTITY), append(g, REF_ACTIVATION, 0, activation);
}

enum { LARGE_NETS = 8 };
static ref_graph *large_graph(int which) {
    static const rp_loss_kind losses[LARGE_NETS] = {
        RP_SOFTMAX_CROSS_ENTROPY, RP_SQUARED_ERROR, RP_HUBER,   RP_POISSON,
        RP_BINARY_CROSS_ENTROPY,  RP_SQUARED_ERROR, RP_POISSON, RP_SOFTMAX_CROSS_ENTROPY};
    const rp_shape inputs[LARGE_NETS] = {rp_vector(5),       rp_vector(3),       rp_vector(300), rp_image(2, 7, 6),
                                         rp_sequence(5, 17), rp_sequence(3, 65), rp_vector(17),  rp_vector(16)};
    ref_graph *g = ref_graph_new(inputs[which], losses[which], 0.75);
    switch (which) {
    case 0: append_dense(g, 16, RP_TANH), append_dense(g, 17, RP_GELU), append(g, REF_DENSE, 15, RP_IDENTITY); break;
    case 1: append_dense(g, 64, RP_SOFTPLUS), append_dense(g, 65, RP_TANH), append_dense(g, 3, RP_TANH); break;
    case 2: append_dense(g, 7, RP_SILU), append_dense(g, 4, RP_ELU); break;
    case 3:
        append(g, REF_CONV2D, 17, RP_IDENTITY), append(g, REF_ACTIVATION, 0, RP_SOFTPLUS);
        append(g, REF_MAX_POOL, 0, RP_IDENTITY), append(g, REF_CONV2D, 5, RP_IDENTITY);
        append(g, REF_ACTIVATION, 0, RP_SIGMOID), append(g, REF_DENSE, 3, RP_IDENTITY);
        break;
    case 4:
        append(g, REF_RECURRENT, 16, RP_TANH), append(g, REF_RECURRENT, 33, RP_SIGMOID);
        append(g, REF_DENSE, 2, RP_IDENTITY);
        break;
    case 5: append(g, REF_RECURRENT, 9, RP_SOFTPLUS), append_dense(g, 3, RP_TANH); break;
    case 6:
        append(g, REF_RECURSIVE, 0, RP_TANH), append(g, REF_ADD, 0, RP_IDENTITY), append_dense(g, 17, RP_SIGMOID);
        append(g, REF_ADD, 0, RP_IDENTITY), append(g, REF_DENSE, 3, RP_IDENTITY);
        break;
    default:
        append(g, REF_ACTIVATION, 0, RP_RELU), append_dense(g, 65, RP_LEAKY_RELU),
            append(g, REF_DENSE, 16, RP_IDENTITY);
    }
    ref_graph_close(g);
    return g;
}
static trial *large_trial(int which, int count) {
    for (uint64_t seed = (uint64_t)which;; seed += 1000000) {
        trial *t = trial_start(seed, rp_rule_default());
        t->graph = large_graph(which);
        trial_finish(t, count);
        if (!too_near_a_kink(t)) return t;
        trial_free(t);
    }
}

/* Products with one v, and by differences along it. */
static void check_large_products(trial *t, const dense *d) {
    vector v = vector_new(&t->random, d);
    double *h = ref_new(d->n), *g = ref_new(d->n), *size = ref_new(d->n), slope_size;
    rp_real *out = new_reals((size_t)d->n), first = 0, second = 0;
    ref_graph_product(t->graph, &t->exact, 0, v.exact, h), ref_graph_product(t->graph, &t->exact, 1, v.exact, g);
    for (int p = 0; p < d->n; p++) size[p] = fabs(g[p]) + fabs(h[p] - g[p]);
    check_done(t, "Gv", rp_gauss_newton_vector(t->net, &t->data, v.real, out));
    check_vector(t, "Gv", out, g, size, tolerance);
    check_done(t, "Hv", rp_hessian_vector(t->net, &t->data, v.real, out));
    check_vector(t, "Hv", out, h, size, tolerance);
    slope_size = ref_dot(d->n, d->terms, v.size);
    check_done(t, "rp_directional", rp_directional(t->net, &t->data, v.real, &first, &second));
    check_number(t, "slope", (double)first, ref_dot(d->n, d->gradient, v.exact), slope_size, tolerance);
    check_number(t, "curvature along v", (double)second, ref_dot(d->n, h, v.exact), ref_dot(d->n, size, v.size),
                 tolerance);
    ref_graph_difference(t->graph, &t->exact, 1e-6, v.exact, h);
    for (int p = 0; p < d->n; p++) size[p] += d->terms[p] * sqrt(d->n);
    check_vector(t, "Hv by differences", out, h, size, difference);
    free(h), free(g), free(size), free(out);
    vector_free(&v);
}

/* Some of the diagonals' entries. */
static void check_large_diagonals(trial *t, const dense *d) {
    double *one = ref_new(d->n), *h = ref_new(d->n), *g = ref_new(d->n);
    rp_real *diagonal = new_reals((size_t)d->n), *diagonal_of_g = new_reals((size_t)d->n);
    check_done(t, "rp_hessian_diagonal", rp_hessian_diagonal(t->net, &t->data, diagonal));
    check_done(t, "rp_gauss_newton_diagonal", rp_gauss_newton_diagonal(t->net, &t->data, diagonal_of_g));
    for (int p = test_int(&t->random, 0, 20); p < d->n; p += d->n / 30 + 1) {
        one[p] = 1;
        ref_graph_product(t->graph, &t->exact, 0, one, h), ref_graph_product(t->graph, &t->exact, 1, one, g);
        one[p] = 0;
        check_number(t, "an entry of H's diagonal", (double)diagonal[p], h[p], g[p] + fabs(h[p] - g[p]), tolerance);
        check_number(t, "an entry of G's diagonal", (double)diagonal_of_g[p], g[p], g[p], tolerance);
    }
    free(one), free(h), free(g), free(diagonal), free(diagonal_of_g);
}

static void test_large_nets(void) {
    static const int counts[] = {1, 3, 17, 2};
    for (int n = 0; n < 2 * LARGE_NETS; n++) {
        trial *t = large_trial(n % LARGE_NETS, counts[(n + n / LARGE_NETS) % 4]);
        dense d = dense_without_matrices(t);
        check_large_products(t, &d);
        check_large_diagonals(t, &d);
        check_sample_gradients(t, &d);
        check_norms(t, &d);
        if (d.count > 1) check_noise(t, &d);
        dense_free(&d);
        trial_free(t);
    }
}

/* >>edges */

/* A softmax of one output is constant: its derivatives are what rounding leaves of 1 - 1, squares never below 0. */
static void test_constant_loss(void) {
    const double left = 100 * last_digit;
    for (int n = 0; n < 4; n++) {
        trial *t = trial_start((uint64_t)n, rp_rule_default());
        t->graph = ref_graph_new(rp_vector(3), RP_SOFTMAX_CROSS_ENTROPY, 1);
        if (n % 2) append_dense(t->graph, 4, RP_TANH);
        append(t->graph, REF_DENSE, 1, RP_IDENTITY);
        ref_graph_close(t->graph);
        trial_finish(t, 5);
        int parameters = t->graph->net.parameters;
        rp_real *v = new_reals((size_t)parameters), *out = new_reals((size_t)parameters), first, second;
        random_reals(&t->random, v, (size_t)parameters);
        check_done(t, "rp_directional", rp_directional(t->net, &t->data, v, &first, &second));
        CHECK(fabs((double)first) < left && fabs((double)second) < left, "%g, %g", (double)first, (double)second);
        for (int tool = 0; tool < 4; tool++) {
            check_done(t, "a tool",
                       tool == 0   ? rp_hessian_vector(t->net, &t->data, v, out)
                       : tool == 1 ? rp_gauss_newton_vector(t->net, &t->data, v, out)
                       : tool == 2 ? rp_hessian_diagonal(t->net, &t->data, out)
                                   : rp_gauss_newton_diagonal(t->net, &t->data, out));
            for (int p = 0; p < parameters; p++)
                CHECK(fabs((double)out[p]) < left && (tool < 3 || out[p] >= 0), "tool %d: %g", tool, (double)out[p]);
        }
        free(v), free(out);
        trial_free(t);
    }
}

/* On either side of Huber's kink: 1 or 0. */
static void test_huber(void) {
    rp_net *net = rp_net_new(rp_vector(1), NULL);
    rp_real x[] = {1, 1, 1}, targets[] = {0.5, 5, -5}, one[] = {1}, out[] = {-1};
    const rp_real expected[] = {1, 0, 0};
    rp_dense(net, 1), rp_no_bias(net), rp_loss(net, RP_HUBER);
    CHECK(rp_net_build(net, 3, 1) == RP_OK, "%s", rp_error(net));
    rp_parameters(net)[0] = 1;
    for (int i = 0; i < 3; i++) { /* r = 1/2, -4, 6 with delta 1: not the majorant delta / |r| of the rules */
        rp_data data = {x + i, targets + i, NULL, NULL, 1, NULL, NULL};
        rp_real second = -1;
        CHECK(rp_hessian_vector(net, &data, one, out) == RP_OK && out[0] == expected[i], "%d: %g", i, (double)out[0]);
        CHECK(rp_gauss_newton_vector(net, &data, one, out) == RP_OK && out[0] == expected[i], "%d: %g", i,
              (double)out[0]);
        CHECK(rp_hessian_diagonal(net, &data, out) == RP_OK && out[0] == expected[i], "%d: %g", i, (double)out[0]);
        CHECK(rp_gauss_newton_diagonal(net, &data, out) == RP_OK && out[0] == expected[i], "%d: %g", i, (double)out[0]);
        CHECK(rp_directional(net, &data, one, NULL, &second) == RP_OK && second == expected[i], "%d: %g", i,
              (double)second);
    }
    rp_net_free(net);
}

/* Without parameters, and with all of them frozen, there is nothing but zeros. */
static void test_nothing_to_train(void) {
    for (int n = 0; n < 3; n++) {
        rp_real x[] = {1, 2, -1, 3}, v[8], out[64], first = 9, second = 9, norms[2] = {9, 9}, sum = 0;
        rp_data data = {x, x, NULL, NULL, 2, NULL, NULL};
        rp_net *net = rp_net_new(rp_vector(2), NULL);
        rp_noise noise;
        for (int i = 0; i < 8; i++) v[i] = 1;
        for (int i = 0; i < 64; i++) out[i] = 0;
        if (n) rp_dense(net, 2);
        rp_activation(net, RP_TANH);
        CHECK(rp_net_build(net, 2, 1) == RP_OK, "%s", rp_error(net));
        if (n) rp_freeze(net, 0, 1);
        if (n == 2) rp_freeze(net, 0, 0), rp_freeze(net, 0, 1);
        CHECK(rp_directional(net, &data, v, &first, &second) == RP_OK, "%d: %s", n, rp_error(net));
        CHECK(first == 0 && second == 0, "%d: %g, %g", n, (double)first, (double)second);
        CHECK(rp_hessian_vector(net, &data, v, out) == RP_OK, "%d: %s", n, rp_error(net));
        CHECK(rp_gauss_newton_vector(net, &data, v, out + 8) == RP_OK, "%d: %s", n, rp_error(net));
        CHECK(rp_hessian_diagonal(net, &data, out + 16) == RP_OK, "%d: %s", n, rp_error(net));
        CHECK(rp_gauss_newton_diagonal(net, &data, out + 24) == RP_OK, "%d: %s", n, rp_error(net));
        CHECK(rp_hessian_matrix(net, &data, 6, out + 28) == RP_OK, "%d: %s", n, rp_error(net));
        CHECK(rp_sample_gradient_norms(net, &data, norms) == RP_OK, "%d: %s", n, rp_error(net));
        CHECK(rp_gradient_noise(net, &data, &noise, out) == RP_OK, "%d: %s", n, rp_error(net));
        for (int i = 0; i < 64; i++) sum += (rp_real)fabs((double)out[i]);
        CHECK(sum == 0 && norms[0] == 0 && norms[1] == 0, "%d: %g", n, (double)sum);
        CHECK(noise.gradient == 0 && noise.variance == 0 && noise.signal == 0 && noise.scale == 0, "%d", n);
        rp_net_free(net);
    }
}

/* >>solve */

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
    problem p;
    p.n = d->n, p.gauss_newton = gauss_newton, p.damping = damping;
    p.matrix = ref_matrix(d->n), p.x = ref_new(d->n), p.b = vector_new(&t->random, d);
    p.least = p.nearest = HUGE_VAL, p.largest = 0;
    memcpy(p.matrix, gauss_newton ? d->g : d->h, sizeof *p.matrix * (size_t)(d->n * d->n));
    for (int i = 0; i < d->n; i++) p.matrix[i * d->n + i] += d->c[i] > 0 ? damping : 1;
    ref_eigenvalues(d->n, p.matrix, values);
    for (int i = 0; i < d->n; i++) {
        p.least = fmin(p.least, values[i]);
        p.nearest = fmin(p.nearest, fabs(values[i])), p.largest = fmax(p.largest, fabs(values[i]));
    }
    ref_solve(d->n, p.matrix, p.b.exact, p.x);
    free(values);
    return p;
}
static void problem_free(problem *p) { free(p->matrix), free(p->x), vector_free(&p->b); }

/* |b - (M + damping I) x| / |b| */
static double residual_of(const problem *p, const rp_real *x) {
    double *exact = ref_new(p->n), *product = ref_new(p->n), square = 0;
    for (int i = 0; i < p->n; i++) exact[i] = (double)x[i];
    ref_times(p->n, p->matrix, exact, product);
    for (int i = 0; i < p->n; i++) square += (p->b.exact[i] - product[i]) * (p->b.exact[i] - product[i]);
    free(exact), free(product);
    return sqrt(square) / ref_norm(p->n, p->b.exact);
}

static rp_solve_options options_of(rp_solve_method method, int gauss_newton, double damping, double within) {
    rp_solve_options options;
    memset(&options, 0, sizeof options);
    options.method = method, options.gauss_newton = gauss_newton;
    options.damping = (rp_real)damping, options.tolerance = (rp_real)within;
    return options;
}

/* What rounding can change in a residual, relative to |b|: some units of the last digit of (M + damping I) x. */
static double rounding_of(const problem *p) {
    return 100 * last_digit * (1 + p->largest * ref_norm(p->n, p->x) / ref_norm(p->n, p->b.exact));
}

static int is_stack(const ref_graph *g) {
    for (int l = 0; l < g->net.layers; l++)
        if (g->spec[l].kind != REF_DENSE && g->spec[l].kind != REF_ACTIVATION) return 0;
    return 1;
}

/* preconditioned: 0 no, 1.. by one of the rules */
static void check_solve(trial *t, const problem *p, rp_solve_method method, int preconditioned) {
    rp_solve_options options = options_of(method, p->gauss_newton, p->damping, solved);
    rp_solve_report report;
    rp_real *x = new_reals((size_t)p->n);
    double error = 0, moved = 0, residual;
    memset(&report, 0, sizeof report);
    options.precondition = preconditioned > 0;
    if (preconditioned) options.rule = nth_rule(3, preconditioned - 1);
    rp_status status = rp_hessian_solve(t->net, &t->data, p->b.real, x, &options, &report);
    residual = residual_of(p, x);
    for (int i = 0; i < p->n; i++) {
        error += ((double)x[i] - p->x[i]) * ((double)x[i] - p->x[i]);
        moved += fabs(p->b.exact[i]) > 0 ? 0 : fabs((double)x[i]);
    }
    error = sqrt(error) / ref_norm(p->n, p->x);
    CHECK(status == RP_OK, "%d, '%s': method %d, gauss_newton %d, damping %g, residual %g, eigenvalues %g, %g..%g; %s",
          (int)status, rp_error(t->net), (int)method, p->gauss_newton, p->damping, residual, p->least, p->nearest,
          p->largest, t->text);
    CHECK(error <= solved_error, "method %d, damping %g: off by %g, residual %g, eigenvalues %g, %g..%g; %s",
          (int)method, p->damping, error, residual, p->least, p->nearest, p->largest, t->text);
    CHECK(moved <= 0, "method %d: frozen entries are %g; %s", (int)method, moved, t->text);
    CHECK(fabs((double)report.residual - residual) <= 1e-3 * residual + rounding_of(p),
          "method %d, damping %g: residual %g, reported as %g; %s", (int)method, p->damping, residual,
          (double)report.residual, t->text);
    CHECK(report.method == method || (method == RP_SOLVE_AUTO && report.method > RP_SOLVE_AUTO), "%d instead of %d; %s",
          (int)report.method, (int)method, t->text);
    CHECK(report.method != RP_SOLVE_DIRECT || is_stack(t->graph), "the direct method where it cannot be; %s", t->text);
    CHECK(report.products > 0 && report.refinements >= 0, "%d products, %d refinements; %s", report.products,
          report.refinements, t->text);
    if (report.method == RP_SOLVE_ITERATIVE)
        CHECK(report.negative_curvature == (p->least < 0), "%d, eigenvalues from %g; %s", report.negative_curvature,
              p->least, t->text);
    else CHECK(report.negative_curvature == -1, "%d; %s", report.negative_curvature, t->text);
    free(x);
}

/* What the direct method does not do. */
static void check_direct_refusals(trial *t, const problem *p) {
    rp_solve_options options = options_of(RP_SOLVE_DIRECT, p->gauss_newton, is_stack(t->graph) ? 0 : 1, 0);
    rp_real *x = new_reals((size_t)p->n);
    x[0] = 7;
    rp_status status = rp_hessian_solve(t->net, &t->data, p->b.real, x, &options, NULL);
    CHECK(status == (is_stack(t->graph) ? RP_ERR_VALUE : RP_ERR_UNSUPPORTED), "%d; %s", (int)status, t->text);
    CHECK(strstr(rp_error(t->net), "rp_hessian_solve") &&
              strstr(rp_error(t->net), is_stack(t->graph) ? "damping" : "direct"),
          "'%s'; %s", rp_error(t->net), t->text);
    CHECK(x[0] == 7, "written in spite of the refusal; %s", t->text);
    free(x);
}

/* Counts the problems with eigenvalues of both signs, and those without negative ones. */
static void check_solves(trial *t, int *indefinite, int *definite) {
    static const double dampings[] = {1, 0.1, 0.01};
    dense d = dense_new(t);
    for (int n = 0; n < 6; n++) {
        problem p = problem_new(t, &d, n % 2, dampings[n / 2]);
        if (p.nearest > 0.3 * p.damping && p.largest < 1000 * p.nearest) { /* else it is no test of the method */
            *indefinite += p.least<0, *definite += p.least> 0;
            check_solve(t, &p, RP_SOLVE_AUTO, 0);
            check_solve(t, &p, RP_SOLVE_ITERATIVE, 0);
            check_solve(t, &p, RP_SOLVE_ITERATIVE, 1 + (int)(t->seed % 12));
            check_solve(t, &p, RP_SOLVE_DENSE, 0);
            if (is_stack(t->graph)) check_solve(t, &p, RP_SOLVE_DIRECT, 0);
        }
        if (n < 2) check_direct_refusals(t, &p);
        problem_free(&p);
    }
    dense_free(&d);
}
static void test_solves(void) {
    static const net_recipe recipes[] = {
        {IMAGE, 4, 4, 4, 5, ANY}, {SEQUENCE, 3, 3, 3, 5, ANY}, {VECTOR, 6, 3, 4, 5, ANY}};
    static const net_recipe stacks[] = {{VECTOR, 3, 5, 5, 6, ANY}, {VECTOR, 5, 3, 3, 4, ANY}};
    int indefinite = 0, definite = 0;
    for (int n = 0; n < 30; n++) {
        trial *t = small_trial((uint64_t)(n + 5000), ANY_NET, &recipes[n % 3], 60);
        check_solves(t, &indefinite, &definite);
        trial_free(t);
    }
    for (int n = 0; n < 50; n++) {
        trial *t = small_trial((uint64_t)(n + 6000), STACK, &stacks[n % 2], 60);
        check_solves(t, &indefinite, &definite);
        trial_free(t);
    }
    CHECK(indefinite > 20 && definite > 100, "%d problems are indefinite, %d definite", indefinite, definite);
}

/* Larger stacks: the residual by the reference's products, and two methods against each other. */
static double large_residual(trial *t, const vector *b, const rp_real *x, int gauss_newton, double damping) {
    int n = t->graph->net.parameters;
    double *exact = ref_new(n), *product = ref_new(n), square = 0;
    for (int i = 0; i < n; i++) exact[i] = (double)x[i];
    ref_graph_product(t->graph, &t->exact, gauss_newton, exact, product);
    for (int i = 0; i < n; i++) {
        double rest = b->exact[i] - product[i] - damping * exact[i];
        square += rest * rest;
    }
    free(exact), free(product);
    return sqrt(square) / ref_norm(n, b->exact);
}
static void check_large_solves(trial *t, const dense *d, int gauss_newton, int iterative) {
    vector b = vector_new(&t->random, d);
    rp_real *x[2] = {new_reals((size_t)d->n), new_reals((size_t)d->n)};
    double distance = 0, size = 0;
    for (int i = 0; i <= iterative; i++) {
        rp_solve_options options = options_of(i ? RP_SOLVE_ITERATIVE : RP_SOLVE_DIRECT, gauss_newton, 1, 0);
        rp_solve_report report;
        check_done(t, "rp_hessian_solve", rp_hessian_solve(t->net, &t->data, b.real, x[i], &options, &report));
        double residual = large_residual(t, &b, x[i], gauss_newton, 1);
        CHECK(residual <= 1.1 * solved_default, "method %d: residual %g, reported as %g; %s", (int)options.method,
              residual, (double)report.residual, t->text);
    }
    for (int p = 0; p < d->n; p++) {
        distance += ((double)x[0][p] - (double)x[1][p]) * ((double)x[0][p] - (double)x[1][p]);
        size += (double)x[0][p] * (double)x[0][p];
    }
    CHECK(!iterative || sqrt(distance) <= 100 * solved_default * sqrt(size), "off by %g of %g; %s", sqrt(distance),
          sqrt(size), t->text);
    free(x[0]), free(x[1]);
    vector_free(&b);
}
static void test_large_solves(void) {
    static const int nets[] = {0, 1, 2, 7}, counts[] = {9, 3, 17, 5};
    for (int n = 0; n < 8; n++) {
        trial *t = large_trial(nets[n / 2], counts[n / 2]);
        dense d = dense_without_matrices(t);
        /* net 1 has H + I with eigenvalues everywhere around 0: without its matrix that takes thousands of products */
        check_large_solves(t, &d, n % 2, n % 2 || nets[n / 2] != 1);
        dense_free(&d);
        trial_free(t);
    }
}

/* A convex problem: squared error of a linear layer, more samples than inputs; and a frozen layer below it. */
static trial *convex_trial(uint64_t seed, int frozen_below) {
    trial *t = trial_start(seed, rp_rule_default());
    t->graph = ref_graph_new(rp_vector(4), RP_SQUARED_ERROR, 1);
    if (frozen_below) append(t->graph, REF_DENSE, 3, RP_IDENTITY)->frozen = 1, t->graph->net.layer[0].frozen = 1;
    append(t->graph, REF_DENSE, 2, RP_IDENTITY);
    ref_graph_close(t->graph);
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
                   rp_hessian_solve(t->net, &t->data, rp_gradient(t->net), rp_direction_array(t->net), NULL, NULL));
        CHECK(same_reals(x, rp_direction_array(t->net), d.n), "in the flat arrays; %s", t->text);
        free(x), free(other);
        problem_free(&p), dense_free(&d);
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
    w->calls++, w->last = iteration;
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
    options.iterations = 2, options.progress = watch, options.user = &w;
    rp_status status = rp_hessian_solve(t->net, &t->data, p.b.real, x, &options, &report);
    CHECK(status == RP_ERR_NOT_CONVERGED && strstr(rp_error(t->net), "rp_hessian_solve"), "%d; '%s'; %s", (int)status,
          rp_error(t->net), t->text);
    CHECK(report.products >= 1 && report.products <= 4 && w.calls <= 2 && !w.wrong, "%d products, %d calls; %s",
          report.products, w.calls, t->text);
    check_unfinished(t, &p, x, &report, __LINE__);
    options.iterations = 0, w.calls = 0, w.stop_at = 2;
    status = rp_hessian_solve(t->net, &t->data, p.b.real, x, &options, &report);
    CHECK(status == RP_ERR_STOPPED && w.calls == 2 && !w.wrong, "%d, %d calls; %s", (int)status, w.calls, t->text);
    check_unfinished(t, &p, x, &report, __LINE__);
    w.stop_at = 0, w.calls = 0;
    check_done(t, "undisturbed", rp_hessian_solve(t->net, &t->data, p.b.real, x, &options, &report));
    CHECK(w.calls > 2 && w.calls <= report.products && !w.wrong, "%d calls, %d products; %s", w.calls, report.products,
          t->text);
    free(x);
    problem_free(&p);
}
static void test_unfinished_solves(void) {
    for (int n = 0; n < 8; n++) { /* of a rank that two products do not exhaust */
        trial *t = trial_start((uint64_t)n, rp_rule_default());
        t->graph = ref_graph_new(rp_vector(5), RP_SQUARED_ERROR, 1);
        append_dense(t->graph, 4, RP_TANH), append_dense(t->graph, 4, RP_SIGMOID), append_dense(t->graph, 3, RP_TANH);
        ref_graph_close(t->graph);
        trial_finish(t, 7);
        dense d = dense_new(t);
        check_unfinished_solve(t, &d, n % 2);
        dense_free(&d);
        trial_free(t);
    }
}

/* With a damping far below what the precision can tell from 0, and a singular H (two equal inputs), there is no
   solution to be had: the best x is given, finite, with its true residual. */
static void test_hopeless_solves(void) {
    static const rp_solve_method methods[] = {RP_SOLVE_ITERATIVE, RP_SOLVE_DIRECT, RP_SOLVE_DENSE};
    const rp_real x[] = {1, 1, -2, -2, 3, 3}, targets[] = {1, -1, 0.5};
    rp_data data = {x, targets, NULL, NULL, 3, NULL, NULL};
    for (int n = 0; n < 6; n++) {
        rp_real b[] = {1, -1, 0.5, 2, 0.25, -1, 1, 2, 3}, out[9], product[9];
        rp_net *net = rp_net_new(rp_vector(2), NULL);
        rp_solve_options options =
            options_of(methods[n % 3], n / 3, sizeof(rp_real) == sizeof(double) ? 1e-25 : 1e-12, 0);
        rp_solve_report report;
        double square = 0, size = 0;
        rp_dense(net, 2), rp_activation(net, RP_TANH), rp_dense(net, 1);
        CHECK(rp_net_build(net, 3, 1) == RP_OK && rp_parameter_count(net) == 9, "%s", rp_error(net));
        rp_status status = rp_hessian_solve(net, &data, b, out, &options, &report);
        CHECK(status == RP_ERR_NOT_CONVERGED, "method %d: %d, residual %g", n % 3, (int)status,
              (double)report.residual);
        for (int i = 0; i < 9; i++) CHECK(out[i] - out[i] == 0, "method %d: %g", n % 3, (double)out[i]);
        rp_status multiplied =
            n / 3 ? rp_gauss_newton_vector(net, &data, out, product) : rp_hessian_vector(net, &data, out, product);
        CHECK(multiplied == RP_OK, "%s", rp_error(net));
        for (int i = 0; i < 9; i++) {
            double rest = (double)b[i] - (double)product[i] - (double)options.damping * (double)out[i];
            square += rest * rest, size += (double)b[i] * (double)b[i];
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
    free(b), free(x);
    trial_free(t);
}

/* b = 0 */
static void test_zero_solves(void) {
    for (int method = RP_SOLVE_AUTO; method <= RP_SOLVE_DENSE; method++) {
        trial *t = convex_trial(3, method % 2);
        rp_real b[32] = {0}, x[32];
        rp_solve_options options = options_of((rp_solve_method)method, 0, 0.1, 0);
        rp_solve_report report;
        for (int i = 0; i < 32; i++) x[i] = 5;
        check_done(t, "b = 0", rp_hessian_solve(t->net, &t->data, b, x, &options, &report));
        for (int p = 0; p < t->graph->net.parameters; p++) CHECK(x[p] == 0, "method %d: %g", method, (double)x[p]);
        CHECK(report.residual == 0, "method %d: residual %g", method, (double)report.residual);
        trial_free(t);
    }
}

/* >>lengths */

/* alpha a + alpha^2 b / 2 + sigma (alpha n)^3 / 6, and the size of its terms */
static double cubic_model(double alpha, double a, double b, double n, double sigma, double *size) {
    double first = alpha * a, second = alpha * alpha * b / 2, third = sigma * pow(alpha * n, 3) / 6;
    *size = fabs(first) + fabs(second) + fabs(third);
    return first + second + third;
}

/* Nothing on a wide and on a narrow grid is lower. 1e-14: what rounding leaves of the model's terms. */
static void check_minimum(double a, double b, double n, double sigma) {
    double alpha = rp_cubic_length(a, b, n, sigma), size, other, least = cubic_model(alpha, a, b, n, sigma, &size);
    CHECK(alpha > 0 && least < 0, "%g at %g for %g %g %g %g", least, alpha, a, b, n, sigma);
    for (int i = -60; i <= 60; i++) {
        double wide = alpha * pow(10, i / 4.0), near = alpha * (1 + i * 1e-3), size_there;
        other = cubic_model(wide, a, b, n, sigma, &size_there);
        CHECK(least <= other + 1e-14 * (size + size_there), "%.17g at %g, %.17g at %g for %g %g %g %g", least, alpha,
              other, wide, a, b, n, sigma);
        other = cubic_model(near, a, b, n, sigma, &size_there);
        CHECK(least <= other + 1e-14 * (size + size_there), "%.17g at %g, %.17g at %g for %g %g %g %g", least, alpha,
              other, near, a, b, n, sigma);
    }
}
static void test_cubic_minima(void) {
    static const double a[] = {-1e-6, -0.3, -40}, b[] = {-50, -1, -1e-5, 0, 1e-5, 1, 50}, n[] = {0.01, 1, 30},
                        sigma[] = {1e-4, 1, 100};
    for (int i = 0; i < 3 * 7 * 3 * 3; i++) check_minimum(a[i % 3], b[i / 3 % 7], n[i / 21 % 3], sigma[i / 63]);
}

/* Against extended range and precision: nothing cancels, nothing overflows on the way. 1e-14: some dozen roundings. */
static void test_cubic_extremes(void) {
    static const double a[] = {-1e-100, -1e-30, -1e-12, -1e-3, -1, -1e6, -1e12},
                        b[] = {-1e12, -1, -1e-9, -1e-30, 0, 1e-30, 1e-9, 1, 1e12},
                        n[] = {1e-150, 1e-75, 1e-20, 1e-3, 1, 1e3, 1e20, 1e75, 1e150},
                        sigma[] = {1e-12, 1e-3, 1, 1e3, 1e12};
    int compared = 0;
    for (int i = 0; i < 7 * 9 * 9 * 5; i++) {
        double first = a[i % 7], second = b[i / 7 % 9], norm = n[i / 63 % 9], weight = sigma[i / 567];
        double alpha = rp_cubic_length(first, second, norm, weight);
        CHECK(alpha >= 0 && alpha <= DBL_MAX, "%g for %g %g %g %g", alpha, first, second, norm, weight);
#if LDBL_MAX_EXP > 4 * DBL_MAX_EXP
        long double expected = ref_cubic_length(first, second, norm, weight);
        if (expected > DBL_MAX || expected < 1e-290L) continue;
        compared++;
        CHECK(fabsl(alpha - expected) <= 1e-14L * expected, "%.17g, not %.17Lg for %g %g %g %g", alpha, expected, first,
              second, norm, weight);
#endif
    }
    CHECK(compared > 2000 || LDBL_MAX_EXP <= 4 * DBL_MAX_EXP, "%d lengths were compared", compared);
}

static void test_cubic_limits(void) {
    const double bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = -12; i <= 12;
         i += 3) { /* without the cubic term a Newton step, -a / b; and without the others, none */
        double b = pow(10, i), newton = rp_cubic_length(-3, b, 2, 1e-40);
        CHECK(fabs(newton - 3 / b) <= 1e-12 * newton, "%g, not %g", newton, 3 / b);
        CHECK(rp_cubic_length(-3, b, 2, 0) <= 3 / b * (1 + 1e-15) &&
                  rp_cubic_length(-3, b, 2, 0) >= 3 / b * (1 - 1e-15),
              "%g, not %g", rp_cubic_length(-3, b, 2, 0), 3 / b);
        CHECK(fabs(rp_cubic_length(-3, b, 0, 1) * b - 3) <= 1e-14, "%g", rp_cubic_length(-3, b, 0, 1));
        CHECK(fabs(rp_cubic_length(-1e-200, b, 1, 1) * b - 1e-200) <= 1e-212, "a -> 0: %g",
              rp_cubic_length(-1e-200, b, 1, 1));
        CHECK(fabs(rp_cubic_length(-1e-200, -b, 1, 1) - 2 * b) <= 1e-12 * b, "a -> 0, b < 0: %g",
              rp_cubic_length(-1e-200, -b, 1, 1));
        CHECK(rp_cubic_length(0, b, 1, 1) == 0 && rp_cubic_length(0, -b, 1, 1) == 0, "a = 0");
        CHECK(rp_cubic_length(b, b, 1, 1) == 0 && rp_cubic_length(b, -b, 1, 1) == 0, "a > 0");
        CHECK(rp_cubic_length(-1, -b, 1, 0) == 0 && rp_cubic_length(-1, -b, 0, 1) == 0, "no minimum for b = %g", -b);
    }
    CHECK(rp_cubic_length(-1, 0, 1, 0) == 0 && rp_cubic_length(-1, 0, 0, 1) == 0, "no minimum for b = 0");
    CHECK(rp_cubic_length(-1, 1, -1, 1) == 0 && rp_cubic_length(-1, 1, 1, -1) == 0, "a negative norm or sigma");
    for (int i = 0; i < 12; i++) {
        double x[4] = {-1, 1, 1, 1};
        x[i / 3] = bad[i % 3];
        CHECK(rp_cubic_length(x[0], x[1], x[2], x[3]) == 0, "%g %g %g %g", x[0], x[1], x[2], x[3]);
    }
}

/* >>steps */

/* A small classifier, or with RP_POISSON a small regression, and batches for it. */
enum { INPUTS = 4, HIDDEN = 5, OUTPUTS = 3, BATCH = 8, MOST = 64 };
typedef struct samples {
    rp_real inputs[BATCH * INPUTS], targets[BATCH * OUTPUTS];
    int labels[BATCH];
    rp_data data;
} samples;
static void draw_samples(samples *s, test_random *random, rp_loss_kind loss) {
    random_reals(random, s->inputs, BATCH * INPUTS);
    for (int i = 0; i < BATCH * OUTPUTS; i++) s->targets[i] = (rp_real)test_uniform(random, 0, 3);
    for (int i = 0; i < BATCH; i++) s->labels[i] = test_int(random, 0, OUTPUTS - 1);
    memset(&s->data, 0, sizeof s->data);
    s->data.inputs = s->inputs, s->data.count = BATCH;
    if (loss == RP_SOFTMAX_CROSS_ENTROPY) s->data.labels = s->labels;
    else s->data.targets = s->targets;
}
static rp_net *describe_net(const rp_config *config, rp_loss_kind loss) {
    rp_net *net = rp_net_new(rp_vector(INPUTS), config);
    rp_dense(net, HIDDEN), rp_activation(net, RP_TANH), rp_dense(net, OUTPUTS);
    rp_loss(net, loss);
    return net;
}
static rp_net *built(rp_net *net) {
    if (!CHECK(rp_net_build(net, BATCH, 1) == RP_OK, "%s", rp_error(net))) exit(test_end());
    return net;
}
static rp_net *make_net(rp_loss_kind loss) { return built(describe_net(NULL, loss)); }
static size_t count_of(const rp_net *net) { return rp_parameter_count(net); }
static size_t bytes_of(const rp_net *net) { return count_of(net) * sizeof(rp_real); }
static void copy_parameters(rp_net *to, rp_net *from) { memcpy(rp_parameters(to), rp_parameters(from), bytes_of(to)); }

/* Every method that takes its step from arrays: those of optimizers.h, and per-variable rates. */
enum { PLAIN_METHODS = 12, METHODS };
static named_optimizer method_of(int which) {
    named_optimizer o = {"per variable", rp_per_variable(2)};
    return which < PLAIN_METHODS ? optimizer_of(which) : o;
}

/* The line search by hand: the step of `plain`, its slope and curvature with weight decay's part, its length. */
typedef struct ray {
    rp_real step[MOST];
    double loss, slope, curvature, norm, alpha;
} ray;
static double fill_arrays(rp_net *net, const rp_optimizer *o, const rp_data *data) { /* the loss */
    rp_real loss = -1;
    WORKS(rp_backward(net, data, o->method == RP_PARTITIONING ? &o->rule : NULL, &loss));
    if (o->method == RP_PER_VARIABLE) WORKS(rp_hessian_diagonal(net, data, rp_curvature(net)));
    return (double)loss;
}
static ray measure(rp_net *net, const rp_optimizer *plain, const rp_data *data, double sigma) {
    ray l;
    rp_real first = 0, second = 0;
    double decay = plain->decoupled ? 0 : (double)plain->weight_decay, along = 0, square = 0;
    l.loss = fill_arrays(net, plain, data);
    WORKS(rp_direction(net, plain));
    memcpy(l.step, rp_direction_array(net), bytes_of(net));
    WORKS(rp_directional(net, data, l.step, &first, &second));
    for (size_t i = 0; i < count_of(net); i++) {
        along += (double)l.step[i] * (double)rp_parameters(net)[i];
        square += (double)l.step[i] * (double)l.step[i];
    }
    l.norm = sqrt(square);
    l.slope = (double)first + decay * along, l.curvature = (double)second + decay * square;
    l.alpha = rp_cubic_length(l.slope, l.curvature, l.norm, sigma);
    return l;
}

/* A length that is computed from a slope inherits its rounding: relative to the length. */
static const double length_error = sizeof(rp_real) == sizeof(double) ? 1e-9 : 1e-3;
static int curved(const rp_optimizer *o) { return o->method == RP_PARTITIONING || o->method == RP_PER_VARIABLE; }

/* now = (before + alpha step) (1 - shrink), to rounding; what is frozen does not shrink */
static void check_moved(const char *what, const char *name, rp_net *net, const rp_real *before, const ray *l,
                        double alpha, double shrink) {
    double error = 0, largest = 0, largest_step = 0;
    rp_layer last;
    WORKS(rp_layer_info(net, rp_layer_count(net) - 1, &last));
    for (size_t i = 0; i < count_of(net); i++) {
        double expected = (double)before[i] + alpha * (double)l->step[i];
        if (!last.frozen || i < last.weights) expected *= 1 - shrink;
        error = larger(fabs((double)rp_parameters(net)[i] - expected), error);
        largest = fmax(largest, fabs(expected)), largest_step = fmax(largest_step, fabs(alpha * (double)l->step[i]));
    }
    CHECK(error <= 2 * last_digit * largest + length_error * largest_step, "%s, %s: off by %g, step %g, largest %g",
          name, what, error, largest_step, largest);
}
static void check_close(const char *what, const char *name, double got, double expected, double size) {
    CHECK(fabs(got - expected) <= length_error * size, "%s: %s is %g, not %g", name, what, got, expected);
}

static void check_step_report(const char *name, rp_net *net, const ray *l, double sigma) {
    rp_step step;
    WORKS(rp_last_step(net, &step));
    check_close("alpha", name, (double)step.alpha, l->alpha, l->alpha);
    check_close("slope", name, (double)step.slope, l->slope, fabs(l->slope));
    check_close("curvature", name, (double)step.curvature, l->curvature, fabs(l->curvature) + 1e-3 * l->norm * l->norm);
    CHECK(step.taken == (l->alpha > 0), "%s: taken %d, alpha %g", name, step.taken, l->alpha);
    CHECK(step.ratio == 0 && step.sigma == (rp_real)sigma && step.products == 0 && step.fallback == 0,
          "%s: ratio %g, sigma %g, %d products, fallback %d", name, (double)step.ratio, (double)step.sigma,
          step.products, step.fallback);
}

/* One step of a net with `cubic`, of one without, and of one by pieces, from the same parameters and states. */
static void check_cubic_step(const named_optimizer *o, rp_net *nets[4], const rp_data *data, double sigma) {
    rp_optimizer plain = o->with, cubic = o->with;
    rp_real before[MOST], loss = -1;
    rp_net *net = nets[0];
    rp_step step;
    double shrink = plain.decoupled ? (double)plain.rate * (double)plain.weight_decay : 0; /* after the step */
    if (plain.decoupled) plain.weight_decay = 0;
    cubic.cubic = (rp_real)sigma;
    for (int i = 1; i < 4; i++) copy_parameters(nets[i], net);
    memcpy(before, rp_parameters(net), bytes_of(net));
    ray l = measure(nets[1], &plain, data, sigma);
    WORKS(rp_train(net, &cubic, data, &loss));
    check_close("loss", o->name, (double)loss, l.loss, l.loss);
    check_moved("cubic", o->name, net, before, &l, l.alpha, l.alpha > 0 ? shrink : 0);
    CHECK(!memcmp(rp_gradient(net), rp_gradient(nets[1]), bytes_of(net)), "%s leaves another gradient", o->name);
    CHECK(!memcmp(rp_direction_array(net), l.step, bytes_of(net)), "%s leaves another step", o->name);
    CHECK(!curved(&cubic) || !memcmp(rp_curvature(net), rp_curvature(nets[1]), bytes_of(net)),
          "%s leaves another curvature", o->name);
    if (!(l.alpha > 0)) CHECK(!memcmp(before, rp_parameters(net), bytes_of(net)), "%s: slope %g", o->name, l.slope);
    check_step_report(o->name, net, &l, sigma);
    net = nets[2];
    WORKS(rp_train(net, &plain, data, NULL));
    check_moved("plain", o->name, net, before, &l, 1, 0);
    WORKS(rp_last_step(net, &step));
    CHECK(step.taken == 1 && step.alpha == 1, "%s: taken %d, alpha %g", o->name, step.taken, (double)step.alpha);
    net = nets[3]; /* rp_direction gives the method's own step whatever `cubic` is */
    fill_arrays(net, &cubic, data);
    WORKS(rp_direction(net, &cubic));
    CHECK(!memcmp(rp_direction_array(net), l.step, bytes_of(net)), "%s: another direction with `cubic`", o->name);
    WORKS(rp_move(net, (rp_real)l.alpha));
    check_moved("in pieces", o->name, net, before, &l, l.alpha, 0);
}
static void test_cubic_steps(void) {
    for (int n = 0; n < 4 * METHODS; n++) {
        named_optimizer o = method_of(n / 4);
        rp_net *nets[4];
        samples s;
        test_random random = {(uint64_t)n};
        double sigma = n % 2 ? 0.3 : 20;
        if (n % 4 >= 2) o.with.weight_decay = (rp_real)0.02;
        for (int i = 0; i < 4; i++) {
            nets[i] = make_net(n % 2 ? RP_POISSON : RP_SOFTMAX_CROSS_ENTROPY);
            if (n % 3 == 2) rp_freeze(nets[i], 2, 1);
        }
        for (int step = 0; step < 5; step++) {
            draw_samples(&s, &random, n % 2 ? RP_POISSON : RP_SOFTMAX_CROSS_ENTROPY);
            check_cubic_step(&o, nets, &s.data, sigma);
        }
        for (int i = 0; i < 4; i++) rp_net_free(nets[i]);
    }
}

/* Ten times the rate, the same steps. */
static void test_no_rate(void) {
    for (int n = 0; n < METHODS; n++) {
        named_optimizer o = method_of(n);
        rp_net *nets[2] = {make_net(RP_SOFTMAX_CROSS_ENTROPY), make_net(RP_SOFTMAX_CROSS_ENTROPY)};
        samples s;
        test_random random = {(uint64_t)n};
        double distance = 0, size = 0;
        o.with.cubic = 5;
        draw_samples(&s, &random, RP_SOFTMAX_CROSS_ENTROPY);
        for (int step = 0; step < 3; step++)
            for (int i = 0; i < 2; i++) {
                rp_net *net = nets[i];
                rp_optimizer with = o.with;
                if (i) with.rate *= 10;
                if (i && with.decoupled) with.weight_decay /= 10; /* the shrinking still knows the rate */
                WORKS(rp_train(net, &with, &s.data, NULL));
            }
        for (size_t i = 0; i < count_of(nets[0]); i++) {
            double difference_there = (double)(rp_parameters(nets[0])[i] - rp_parameters(nets[1])[i]);
            distance = larger(fabs(difference_there), distance),
            size = fmax(size, fabs((double)rp_parameters(nets[0])[i]));
        }
        CHECK(distance <= length_error * size, "%s: %g, largest %g", o.name, distance, size);
        rp_net_free(nets[0]), rp_net_free(nets[1]);
    }
}

/* A callback that uses the net would change the values that the solve, or the next sample's factors, need. */
typedef struct meddler {
    rp_net *net;
    const rp_real *inputs;
    int calls;
} meddler;
static int meddle(void *user, int iteration, rp_real residual) {
    meddler *m = (meddler *)user;
    rp_real out[OUTPUTS];
    (void)iteration, (void)residual;
    return m->calls++ == 1 && rp_predict(m->net, m->inputs, 1, out) != RP_OK;
}
static int meddle_with_samples(void *user, const rp_sample_factors *factors) {
    (void)factors;
    return meddle(user, 0, 0);
}
static void test_meddling(void) {
    rp_net *net = make_net(RP_SOFTMAX_CROSS_ENTROPY);
    rp_solve_options options = {RP_SOLVE_ITERATIVE, 0, 1, 0, 0, 0, {RP_PATHS, RP_BOUND_TIGHT, RP_SCALE_ONE}, meddle, NULL};
    rp_real b[MOST], x[MOST];
    test_random random = {1};
    samples s;
    draw_samples(&s, &random, RP_SOFTMAX_CROSS_ENTROPY);
    random_reals(&random, b, MOST);
    memset(x, 0, sizeof x);
    meddler m = {net, s.inputs, 0};
    options.user = &m;
    rp_status status = rp_hessian_solve(net, &s.data, b, x, &options, NULL);
    CHECK(status == RP_ERR_ORDER && strstr(rp_error(net), "options.progress") && m.calls == 2 && x[0] == 0, "%d: '%s'",
          (int)status, rp_error(net));
    m.calls = 0;
    status = rp_sample_gradients(net, &s.data, meddle_with_samples, &m);
    CHECK(status == RP_ERR_ORDER && strstr(rp_error(net), "each") && m.calls == 2, "%d: '%s'", (int)status, rp_error(net));
    m.calls = 2;
    WORKS(rp_hessian_solve(net, &s.data, b, x, &options, NULL));
    rp_net_free(net);
}

/* Where iterations are not enough, AUTO goes on to another method. */
static void test_auto_goes_on(void) {
    rp_net *net = make_net(RP_SOFTMAX_CROSS_ENTROPY);
    rp_solve_options options;
    rp_solve_report report;
    rp_real b[MOST], x[MOST];
    test_random random = {2};
    samples s;
    draw_samples(&s, &random, RP_SOFTMAX_CROSS_ENTROPY);
    random_reals(&random, b, MOST);
    memset(&options, 0, sizeof options);
    options.damping = (rp_real)0.01, options.iterations = 2;
    WORKS(rp_hessian_solve(net, &s.data, b, x, &options, &report));
    CHECK(report.method != RP_SOLVE_ITERATIVE && (double)report.residual <= solved_default, "method %d, residual %g",
          (int)report.method, (double)report.residual);
    rp_net_free(net);
}

/* What AUTO gives back is the best that it found: never worse than iterations alone, and as good as the method that it
   goes on to, refinements included. */
static void test_auto_keeps_the_best(void) {
    enum { WIDTH = 24, SAMPLES = 16 };
    static const double dampings[] = {0.1, 1e-4, 1e-12};
    rp_net *net = rp_net_new(rp_vector(WIDTH), NULL);
    rp_real inputs[SAMPLES * WIDTH];
    int labels[SAMPLES];
    rp_data data = {inputs, NULL, labels, NULL, SAMPLES, NULL, NULL};
    test_random random = {1};
    for (int i = 0; i < 4; i++) {
        if (i) rp_activation(net, RP_TANH);
        rp_dense(net, WIDTH);
    }
    rp_loss(net, RP_SOFTMAX_CROSS_ENTROPY);
    CHECK(rp_net_build(net, SAMPLES, 1) == RP_OK, "%s", rp_error(net));
    random_reals(&random, inputs, SAMPLES * WIDTH);
    for (int i = 0; i < SAMPLES; i++) labels[i] = i;
    WORKS(rp_backward(net, &data, NULL, NULL));
    rp_real *x = new_reals(count_of(net));
    for (size_t i = 0; i < sizeof dampings / sizeof *dampings; i++) {
        rp_solve_report reports[RP_SOLVE_DENSE + 1];
        rp_status status[RP_SOLVE_DENSE + 1];
        for (int method = RP_SOLVE_AUTO; method <= RP_SOLVE_DIRECT; method++) {
            rp_solve_options options = options_of((rp_solve_method)method, 0, dampings[i], 0);
            options.iterations = 100;
            status[method] = rp_hessian_solve(net, &data, rp_gradient(net), x, &options, &reports[method]);
            CHECK(!status[method] || status[method] == RP_ERR_NOT_CONVERGED, "%s", rp_error(net));
        }
        double residual = (double)reports[RP_SOLVE_AUTO].residual, direct = (double)reports[RP_SOLVE_DIRECT].residual,
               iterative = (double)reports[RP_SOLVE_ITERATIVE].residual;
        CHECK(residual <= iterative && (residual <= direct || status[RP_SOLVE_AUTO] == RP_OK),
              "damping %g: residual %g by method %d, %g by iterations, %g directly", dampings[i], residual,
              (int)reports[RP_SOLVE_AUTO].method, iterative, direct);
        CHECK(reports[RP_SOLVE_AUTO].products >= reports[RP_SOLVE_ITERATIVE].products, "%d products, %d by iterations",
              reports[RP_SOLVE_AUTO].products, reports[RP_SOLVE_ITERATIVE].products);
    }
    rp_net_free(net);
    free(x);
}

/* Right-hand sides whose squares are beyond the range. */
static void test_scaled_solves(void) {
    rp_net *net = make_net(RP_SOFTMAX_CROSS_ENTROPY);
    rp_real b[MOST], x[MOST], scaled[MOST];
    test_random random = {3};
    samples s;
    draw_samples(&s, &random, RP_SOFTMAX_CROSS_ENTROPY);
    random_reals(&random, b, MOST);
    for (int method = RP_SOLVE_ITERATIVE; method <= RP_SOLVE_DENSE; method++)
        for (int power = -30; power <= 30; power += 10) {
            rp_solve_options options;
            rp_solve_report report;
            double error = 0, scale = pow(10, power);
            memset(&options, 0, sizeof options);
            options.method = (rp_solve_method)method, options.damping = 1;
            WORKS(rp_hessian_solve(net, &s.data, b, x, &options, NULL));
            for (size_t i = 0; i < count_of(net); i++) scaled[i] = (rp_real)(scale * (double)b[i]);
            WORKS(rp_hessian_solve(net, &s.data, scaled, scaled, &options, &report));
            for (size_t i = 0; i < count_of(net); i++) error = larger(fabs((double)scaled[i] / scale - (double)x[i]), error);
            CHECK(error <= 1e-3 && report.residual > 0, "method %d, 1e%d: error %g, residual %g", method, power, error,
                  (double)report.residual);
        }
    rp_net_free(net);
}

/* One parameter, f = (w x - t)^2 / 2 with x = 1. Momentum still points to where the last target was. */
static rp_net *one_parameter(double w) {
    rp_net *net = rp_net_new(rp_vector(1), NULL);
    rp_dense(net, 1), rp_no_bias(net);
    rp_parameters(built(net))[0] = (rp_real)w;
    return net;
}
static void test_uphill(void) {
    for (int adaptive = 0; adaptive < 2; adaptive++) {
        rp_net *net = one_parameter(0);
        rp_real x = 1, t = 10, w, loss = 0;
        rp_data data = {&x, &t, NULL, NULL, 1, NULL, NULL};
        rp_optimizer o = rp_sgd((rp_real)0.1);
        rp_step step = {0, 0, 0, 0, 0, 0, 0, 0};
        o.momentum = (rp_real)0.9, o.cubic = 1, o.cubic_adaptive = adaptive;
        WORKS(rp_train(net, &o, &data, NULL));
        w = rp_parameters(net)[0];
        CHECK(w > 1, "%g", (double)w);
        t = w - 1; /* b = 0.9 (-10) + 1: the step goes up, the slope is 1 */
        WORKS(rp_train(net, &o, &data, &loss));
        CHECK(!memcmp(&w, rp_parameters(net), sizeof w), "%g, not %g", (double)rp_parameters(net)[0], (double)w);
        CHECK(fabs((double)loss - 0.5) < 1e-5, "%g", (double)loss);
        WORKS(rp_last_step(net, &step));
        CHECK(step.taken == 0 && step.alpha == 0 && step.slope > 0 && step.curvature > 0, "%d, %g, %g, %g", step.taken,
              (double)step.alpha, (double)step.slope, (double)step.curvature);
        /* what was not taken is remembered all the same: b = 0.9 (-8) + 1 = -6.2, then -4.58, ... until it turns */
        for (int i = 0; i < 40 && !step.taken; i++) WORKS(rp_train(net, &o, &data, NULL)), rp_last_step(net, &step);
        CHECK(step.taken == 1 && rp_parameters(net)[0] < w, "%g", (double)rp_parameters(net)[0]);
        rp_net_free(net);
    }
}

/* Sigma and lambda change by a factor, but stay within a million times of what they began with. */
static double within(double from, double factor, double first) {
    double next = from * factor;
    return next >= 1e-6 * first && next <= 1e6 * first ? next : from;
}

/* A step of no length is none. */
static void test_no_step(void) {
    rp_net *net = one_parameter(3);
    rp_real x = 1, t = 10;
    rp_data data = {&x, &t, NULL, NULL, 1, NULL, NULL};
    rp_optimizer o = rp_sgd(0);
    rp_step step;
    o.cubic = 1;
    WORKS(rp_train(net, &o, &data, NULL));
    WORKS(rp_last_step(net, &step));
    CHECK(step.taken == 0 && step.alpha == 0 && rp_parameters(net)[0] == 3, "%d, %g", step.taken, (double)step.alpha);
    rp_net_free(net);
}

/* sigma adapts as the ratio says; what raised the loss is undone. By rp_evaluate before and after. */
typedef struct adapted {
    int halved, doubled, kept, undone;
} adapted;
static double loss_of(rp_net *net, const rp_optimizer *o,
                      const rp_data *data) { /* with weight decay; may be infinite */
    rp_score score;
    double square = 0;
    rp_evaluate(net, data, &score);
    for (size_t i = 0; i < count_of(net); i++) square += (double)rp_parameters(net)[i] * (double)rp_parameters(net)[i];
    return (double)score.loss + (o->decoupled ? 0 : (double)o->weight_decay * square / 2);
}
static void check_adaptive_step(const named_optimizer *o, rp_net *net, rp_net *twin, const rp_data *data, double *sigma,
                                adapted *seen) {
    rp_optimizer plain = o->with;
    rp_real before[MOST];
    rp_step step;
    double foretold, noise, size, loss = loss_of(net, &o->with, data), after, next;
    double shrink = plain.decoupled ? (double)plain.rate * (double)plain.weight_decay : 0; /* after the step */
    if (plain.decoupled) plain.weight_decay = 0;
    plain.cubic = 0, plain.cubic_adaptive = 0;
    copy_parameters(twin, net);
    memcpy(before, rp_parameters(net), bytes_of(net));
    ray l = measure(twin, &plain, data, *sigma);
    WORKS(rp_train(net, &o->with, data, NULL));
    WORKS(rp_last_step(net, &step));
    if (!(l.alpha > 0)) return;
    check_close("alpha", o->name, (double)step.alpha, l.alpha, l.alpha);
    rp_net *moved = twin; /* to where the step leads, taken or not */
    WORKS(rp_move(moved, (rp_real)l.alpha));
    after = loss_of(moved, &o->with, data);
    foretold = -cubic_model(l.alpha, l.slope, l.curvature, l.norm, *sigma, &size);
    next = (double)step.ratio > 0.9 ? 0.5 : (double)step.ratio < 0.1 ? 2 : 1;
    noise = 10 * last_digit * (fabs(loss) + fabs(after)) / foretold;
    if (after - after == 0)
        check_close("ratio", o->name, (double)step.ratio, (loss - after) / foretold,
                    1 + fabs(loss - after) / foretold + noise / length_error);
    else CHECK(!step.taken && step.ratio == 0, "%s: taken %d, ratio %g", o->name, step.taken, (double)step.ratio);
    if (fabs(loss - after) / foretold > noise)
        CHECK(step.taken == (after < loss), "%s: taken %d, from %g to %g", o->name, step.taken, loss, after);
    if (step.taken) check_moved("adaptive", o->name, net, before, &l, l.alpha, shrink);
    else CHECK(!memcmp(before, rp_parameters(net), bytes_of(net)), "%s: not undone", o->name), seen->undone++;
    next = within(*sigma, next, (double)o->with.cubic);
    CHECK(step.sigma == (rp_real)next, "%s: sigma from %g to %g, ratio %g", o->name, *sigma, (double)step.sigma,
          (double)step.ratio);
    seen->halved += next<*sigma, seen->doubled += next> * sigma, seen->kept += next == *sigma;
    *sigma = (double)step.sigma;
}
static void test_adaptive(void) {
    adapted seen = {0, 0, 0, 0};
    for (int n = 0; n < METHODS; n++) {
        named_optimizer o = method_of(n);
        rp_net *net = make_net(RP_POISSON), *twin = make_net(RP_POISSON);
        test_random random = {(uint64_t)n};
        double sigma = 0.001;
        samples s;
        o.with.cubic = (rp_real)sigma, o.with.cubic_adaptive = 1, o.with.weight_decay = (rp_real)(n % 2 ? 0.05 : 0);
        sigma = (double)o.with.cubic;
        for (size_t i = 0; i < count_of(net); i++) rp_parameters(net)[i] *= 3;
        for (int step = 0; step < 25; step++) {
            draw_samples(&s, &random, RP_POISSON);
            check_adaptive_step(&o, net, twin, &s.data, &sigma, &seen);
        }
        rp_net_free(net), rp_net_free(twin);
    }
    CHECK(seen.halved > 20 && seen.doubled > 20 && seen.kept > 20 && seen.undone > 5,
          "%d halved, %d doubled, %d kept, %d undone", seen.halved, seen.doubled, seen.kept, seen.undone);
}

/* rp_fit takes the same steps and hands out the last. */
static rp_step seen_step;
static int see_progress(void *user, const rp_progress *progress) {
    (void)user;
    seen_step = progress->last;
    return 0;
}
static void test_fit_with_lengths(void) {
    for (int n = 0; n < METHODS + 1; n++) {
        named_optimizer o = method_of(n);
        rp_net *net = make_net(RP_SOFTMAX_CROSS_ENTROPY), *fitted = make_net(RP_SOFTMAX_CROSS_ENTROPY);
        test_random random = {(uint64_t)n};
        rp_fit_options options;
        rp_fit_report report;
        rp_step step;
        samples s;
        memset(&options, 0, sizeof options), memset(&seen_step, 0, sizeof seen_step), memset(&step, 0, sizeof step);
        options.epochs = 3, options.keep_order = 1, options.progress = see_progress;
        o.with.cubic = 3;
        if (n == METHODS) o.name = "Newton", o.with = rp_newton();
        draw_samples(&s, &random, RP_SOFTMAX_CROSS_ENTROPY);
        for (int i = 0; i < 3; i++) WORKS(rp_train(net, &o.with, &s.data, NULL));
        WORKS(rp_last_step(net, &step));
        CHECK(rp_fit(fitted, &o.with, &s.data, &options, &report) == RP_OK, "%s: %s", o.name, rp_error(fitted));
        CHECK(!memcmp(rp_parameters(net), rp_parameters(fitted), bytes_of(net)), "%s: other parameters", o.name);
        CHECK(report.last.alpha == step.alpha && report.last.taken == step.taken && report.last.slope == step.slope,
              "%s: alpha %g, not %g", o.name, (double)report.last.alpha, (double)step.alpha);
        CHECK(seen_step.alpha == step.alpha && seen_step.curvature == step.curvature, "%s: alpha %g, not %g", o.name,
              (double)seen_step.alpha, (double)step.alpha);
        rp_net_free(net), rp_net_free(fitted);
    }
}

/* >>per variable */

/* Every parameter by the formula, from the reference's gradient and Hessian. One whose derivative is all rounding may
   go either way and is not looked at. */
static void check_per_variable(trial *t, const dense *d, double sigma, double decay, double rate) {
    rp_optimizer o = rp_per_variable((rp_real)sigma);
    const rp_real *w = rp_parameters(t->net);
    double worst = 0, size_there = 0;
    int wrong = 0;
    o.weight_decay = (rp_real)decay, o.rate = (rp_real)rate;
    check_done(t, "rp_train", rp_train(t->net, &o, &t->data, NULL));
    for (int p = 0; p < d->n; p++) {
        double g = d->gradient[p] + (double)o.weight_decay * t->graph->net.w[p],
               h = d->h[p * d->n + p] + (double)o.weight_decay;
        double length = rp_cubic_length(-fabs(g), h, 1, (double)o.sigma), step = (double)w[p] - t->graph->net.w[p];
        double expected = d->c[p] > 0 ? (g > 0 ? -1 : 1) * (double)o.rate * length : 0;
        double most = rp_cubic_length(-fabs(g) - d->terms[p], -d->size[p * d->n + p], 1, (double)o.sigma) +
                      fabs(t->graph->net.w[p]);
        if (fabs(g) < 1e-3 * (d->terms[p] + nothing) && d->c[p] > 0) continue;
        wrong += !(fabs(step - expected) <= length_error * most);
        if (fabs(step - expected) > worst) worst = fabs(step - expected), size_there = most;
    }
    CHECK(!wrong, "%d steps are off, by %g at most, size %g; %s", wrong, worst, size_there, t->text);
}

static void test_per_variable(void) {
    static const net_recipe recipes[] = {
        {IMAGE, 4, 4, 4, 5, SMOOTH}, {SEQUENCE, 3, 3, 3, 5, SMOOTH}, {VECTOR, 5, 5, 4, 5, ANY}};
    for (int n = 0; n < 60; n++) {
        trial *t = small_trial((uint64_t)(n + 9000), n % 2 ? STACK : ANY_NET, &recipes[n % 2 ? 2 : n % 3], 80);
        dense d = dense_new(t);
        int parameters = d.n;
        rp_optimizer o = rp_per_variable((rp_real)0.7);
        rp_net *pieces = library_net(t->graph, t->batch, t->seed, NULL);
        check_done(t, "rp_backward", rp_backward(pieces, &t->data, NULL, NULL));
        check_done(t, "rp_hessian_diagonal", rp_hessian_diagonal(pieces, &t->data, rp_curvature(pieces)));
        check_per_variable(t, &d, 0.7, 0, 1);
        CHECK(rp_update(pieces, &o) == RP_OK, "%s", rp_error(pieces));
        CHECK(same_reals(rp_parameters(pieces), rp_parameters(t->net), parameters), "in pieces it is another; %s",
              t->text);
        for (int p = 0; p < parameters; p++) rp_parameters(t->net)[p] = (rp_real)t->graph->net.w[p];
        check_per_variable(t, &d, n % 3 ? 0.01 : 50, 0.1, 0.5);
        rp_net_free(pieces);
        dense_free(&d);
        trial_free(t);
    }
}

/* >>Newton */

enum { MOST_OF_NEWTON = 200 }; /* parameters */

/* The step that was taken, from the flat arrays, at the parameters before it: with B as the Gauss-Newton matrix the
   solution of (B + lambda + decay) p = -g to the tolerance; or a step of residual partitioning whose length minimises
   the quadratic along it, halved up to 8 times. Where its curvature is not above 0 that length is 1. */
static void check_newton_solution(rp_net *net, const rp_optimizer *o, const rp_data *data, double lambda,
                                  const char *text) {
    rp_real product[MOST_OF_NEWTON];
    const rp_real *p = rp_direction_array(net), *g = rp_gradient(net), *w = rp_parameters(net);
    double decay = (double)o->weight_decay, rest = 0, right = 0, terms = 0;
    WORKS(rp_gauss_newton_vector(net, data, p, product));
    for (size_t i = 0; i < count_of(net); i++) {
        int frozen = p[i] == 0 && g[i] == 0;
        double b = frozen ? 0 : (double)g[i] + decay * (double)w[i],
               left = (double)product[i] + (lambda + decay) * (double)p[i];
        rest += (left + b) * (left + b), right += b * b;
        terms += fabs((double)g[i]) + decay * fabs((double)w[i]) + fabs((double)p[i]);
    }
    CHECK(sqrt(rest) <= 1.1 * (double)o->tolerance * sqrt(right) + 10 * last_digit * terms, "residual %g of %g; %s",
          sqrt(rest), sqrt(right), text);
}
static void check_newton_fallback(rp_net *net, const rp_optimizer *o, const rp_data *data, const rp_step *step,
                                  const char *text) {
    const rp_real *p = rp_direction_array(net), *g = rp_gradient(net), *w = rp_parameters(net), *h = rp_curvature(net);
    double decay = (double)o->weight_decay, error = 0, largest = 0, along = 0, square = 0, size = 0, slope, curvature,
           length;
    rp_real first = 0, second = 0;
    for (size_t i = 0; i < count_of(net); i++) { /* g and decay w may cancel */
        double denominator = (double)h[i] + decay + (double)step->sigma,
               terms = fabs((double)g[i]) + decay * fabs((double)w[i]);
        double expected =
            p[i] == 0 && g[i] == 0 ? 0 : -((double)g[i] + decay * (double)w[i]) / denominator; /* or frozen */
        error = larger(fabs((double)p[i] - expected), error), largest = fmax(largest, terms / denominator);
        along += (double)p[i] * (double)w[i], square += (double)p[i] * (double)p[i], size += terms * fabs((double)p[i]);
    }
    CHECK(error <= length_error * largest, "the step is off by %g of %g; %s", error, largest, text);
    WORKS(rp_directional(net, data, p, &first, &second));
    slope = (double)first + decay * along, curvature = (double)second + decay * square;
    check_close("slope", text, (double)step->slope, slope, size);
    check_close("curvature", text, (double)step->curvature, curvature, fabs(curvature) + 1e-3 * square);
    length = step->curvature > 0 ? -(double)step->slope / (double)step->curvature : 1;
    length = log(length / (double)step->alpha) / log(2);
    CHECK(fabs(length - floor(length + 0.5)) < 1e-3 && length > -0.5 && length < 8.5, "%g halvings; %s", length, text);
}
static int newton_fallbacks, newton_solutions; /* that were looked at */
static void check_newton_parts(rp_net *net, const rp_optimizer *o, const rp_data *data, const rp_real *before,
                               double lambda, const rp_step *step, const char *text) {
    rp_real after[MOST_OF_NEWTON];
    double error = 0, largest = 0;
    if (!step->taken) return;
    for (size_t i = 0; i < count_of(net); i++) {
        double expected = (double)before[i] + (double)step->alpha * (double)rp_direction_array(net)[i];
        error = larger(fabs((double)rp_parameters(net)[i] - expected), error), largest = fmax(largest, fabs(expected));
    }
    CHECK(error <= 2 * last_digit * largest, "off by %g, largest %g; %s", error, largest, text);
    memcpy(after, rp_parameters(net), bytes_of(net)), memcpy(rp_parameters(net), before, bytes_of(net));
    if (step->fallback) check_newton_fallback(net, o, data, step, text), newton_fallbacks++;
    else if (!o->full_hessian && step->products < o->iterations)
        check_newton_solution(net, o, data, lambda, text), newton_solutions++;
    memcpy(rp_parameters(net), after, bytes_of(net));
}

/* One step of Newton: lambda as it should adapt, the loss not raised. */
static void check_newton_step(rp_net *net, const rp_optimizer *o, const rp_data *data, double *lambda,
                              const char *text) {
    rp_real before[MOST_OF_NEWTON], loss = -1;
    rp_step step;
    rp_score score;
    double was = loss_of(net, o, data), is, next;
    memcpy(before, rp_parameters(net), bytes_of(net));
    rp_evaluate(net, data, &score);
    WORKS(rp_train(net, o, data, &loss));
    WORKS(rp_last_step(net, &step));
    is = loss_of(net, o, data);
    CHECK(fabs((double)(loss - score.loss)) <= 10 * last_digit * (1 + fabs((double)loss)), "%g, not %g; %s",
          (double)loss, (double)score.loss, text);
    CHECK(is <= was + 10 * last_digit * (fabs(was) + fabs(is)), "the loss rises from %.9g to %.9g; %s", was, is, text);
    CHECK(step.taken == 0 || step.slope < 0, "slope %g; %s", (double)step.slope, text);
    CHECK(step.products >= 0 && step.products <= o->iterations, "%d products; %s", step.products, text);
    if (!step.taken) CHECK(!memcmp(before, rp_parameters(net), bytes_of(net)), "not taken, but moved; %s", text);
    next = (double)step.ratio > 0.75 ? 0.5 : (double)step.ratio < 0.25 ? 2 : 1;
    if (!step.taken) next = 1; /* the gradient is 0 */
    next = within(*lambda, step.fallback ? 4 : next, (double)o->damping);
    /* a step that Newton could not take, though all that was foretold was rounding, says nothing about lambda */
    if (!step.fallback || fabs((double)step.slope) > 1e4 * last_digit * (1 + fabs(was)))
        CHECK(fabs((double)step.sigma - next) <= 1e-5 * next,
              "lambda from %g to %g, ratio %g, fallback %d, taken %d; %s", *lambda, (double)step.sigma,
              (double)step.ratio, step.fallback, step.taken, text);
    check_newton_parts(net, o, data, before, *lambda, &step, text);
    *lambda = (double)step.sigma;
}

/* Convex: the gradient vanishes in a few steps. */
static void test_newton_converges(void) {
    const double small = sizeof(rp_real) == sizeof(double) ? 1e-7 : 1e-3; /* where the loss is flat to rounding */
    for (int n = 0; n < 8; n++) {
        rp_loss_kind loss = n % 2 ? RP_SOFTMAX_CROSS_ENTROPY : RP_SQUARED_ERROR;
        rp_net *net = rp_net_new(rp_vector(INPUTS), NULL);
        rp_optimizer o = rp_newton();
        test_random random = {(uint64_t)n};
        double lambda = (double)o.damping, square = 0;
        samples s;
        rp_dense(net, OUTPUTS), rp_loss(net, loss);
        draw_samples(&s, &random, loss);
        built(net);
        o.full_hessian = n / 2 % 2, o.weight_decay = (rp_real)(n / 4 ? 0 : 0.01);
        if (loss == RP_SOFTMAX_CROSS_ENTROPY) o.weight_decay = (rp_real)0.01; /* 8 samples of 4 inputs are separable */
        for (int step = 0; step < 25; step++) check_newton_step(net, &o, &s.data, &lambda, "convex");
        WORKS(rp_backward(net, &s.data, NULL, NULL));
        for (size_t i = 0; i < count_of(net); i++) {
            double g = (double)rp_gradient(net)[i] + (double)o.weight_decay * (double)rp_parameters(net)[i];
            square += g * g;
        }
        CHECK(sqrt(square) <= small, "case %d: |g| is %g after 25 steps, lambda %g", n, sqrt(square), lambda);
        CHECK(lambda < (double)o.damping, "case %d: lambda %g", n, lambda);
        rp_net_free(net);
    }
}

/* By hand: w = 1, x = 2, t = 3, r = 0.5: g = x (w x - t) + r w = -1.5, B + lambda + r = 4 + 1 + 0.5. */
static void test_newton_by_hand(void) {
    rp_net *net = one_parameter(1);
    rp_real x = 2, t = 3;
    rp_data data = {&x, &t, NULL, NULL, 1, NULL, NULL};
    rp_optimizer o = rp_newton();
    rp_step step;
    o.weight_decay = (rp_real)0.5;
    WORKS(rp_train(net, &o, &data, NULL));
    WORKS(rp_last_step(net, &step));
    CHECK(fabs((double)rp_parameters(net)[0] - (1 + 1.5 / 5.5)) < 1e-6, "%g", (double)rp_parameters(net)[0]);
    CHECK(fabs((double)step.slope + 1.5 * 1.5 / 5.5) < 1e-5, "slope %g", (double)step.slope);
    CHECK(step.taken == 1 && step.fallback == 0 && step.products >= 1 && step.sigma == (rp_real)0.5, "%d %d %d %g",
          step.taken, step.fallback, step.products, (double)step.sigma);
    CHECK(fabs((double)step.ratio - 1) < 0.2, "ratio %g",
          (double)step.ratio); /* of a model that is exact, but for lambda */
    rp_net_free(net);
}

static void test_newton_never_rises(void) {
    static const net_recipe recipes[] = {
        {IMAGE, 4, 4, 4, 5, ANY}, {SEQUENCE, 3, 3, 3, 5, ANY}, {VECTOR, 6, 5, 4, 5, ANY}};
    for (int n = 0; n < 60; n++) {
        trial *t = small_trial((uint64_t)(n + 11000), n % 2 ? STACK : ANY_NET, &recipes[n % 3], 150);
        rp_optimizer o = rp_newton();
        double lambda;
        o.full_hessian = n / 2 % 2, o.weight_decay = (rp_real)(n % 5 ? 0 : 0.02),
        o.damping = (rp_real)(n % 7 ? 1 : 1e-4);
        lambda = (double)o.damping, o.cubic = (rp_real)(n % 4 == 3);
        for (int step = 0; step < 8; step++) check_newton_step(t->net, &o, &t->data, &lambda, t->text);
        trial_free(t);
    }
    CHECK(newton_fallbacks > 20 && newton_solutions > 50, "%d and %d", newton_fallbacks, newton_solutions);
}

/* >>saddles */

/* f = (w1 w2 - 1)^2 / 2: in w1 + w2 and w1 - w2 a saddle at 0, like x^2 - y^2. SGD creeps away from it. */
static double after_saddle(rp_optimizer o, int steps) {
    rp_net *net = rp_net_new(rp_vector(1), NULL);
    rp_real one = 1;
    rp_data data = {&one, &one, NULL, NULL, 1, NULL, NULL};
    rp_score score;
    rp_dense(net, 1), rp_no_bias(net), rp_dense(net, 1), rp_no_bias(net);
    built(net);
    rp_parameters(net)[0] = (rp_real)1e-3, rp_parameters(net)[1] = (rp_real)2e-3;
    for (int step = 0; step < steps; step++) WORKS(rp_train(net, &o, &data, NULL));
    WORKS(rp_evaluate(net, &data, &score));
    rp_net_free(net);
    return (double)score.loss;
}
static void test_saddle(void) {
    enum { STEPS = 20 };
    rp_optimizer sgd = rp_sgd((rp_real)0.05), partitioning = rp_partitioning(), newton = rp_newton();
    double left = after_saddle(sgd, STEPS);
    CHECK(left > 0.4999, "SGD: %g", left);
    sgd.cubic = partitioning.cubic = 1;
    CHECK(after_saddle(sgd, STEPS) < 0.01, "cubic SGD: %g", after_saddle(sgd, STEPS));
    CHECK(after_saddle(partitioning, STEPS) < 0.01, "cubic partitioning: %g", after_saddle(partitioning, STEPS));
    CHECK(after_saddle(rp_per_variable(1), STEPS) < 0.01, "per variable: %g", after_saddle(rp_per_variable(1), STEPS));
    for (newton.full_hessian = 0; newton.full_hessian < 2; newton.full_hessian++) {
        left = after_saddle(newton, STEPS);
        CHECK(left < 0.01, "Newton, full_hessian %d: %g", newton.full_hessian, left);
    }
}

/* The plateau of Low-Rank Structure: twelve hidden layers of ReLUs, small weights, no biases. The output hardly depends
   on the input, the gradient is tiny, and so is every step of SGD; a step whose length is computed is not. */
enum { PLATEAU_LAYERS = 12, PLATEAU_WIDTH = 128, PLATEAU_INPUTS = 64, PLATEAU_BATCH = 32, PLATEAU_CLASSES = 10 };
static rp_net *plateau_net(void) {
    rp_net *net = rp_net_new(rp_vector(PLATEAU_INPUTS), NULL);
    test_random random = {1};
    for (int l = 0; l < PLATEAU_LAYERS; l++) rp_dense(net, PLATEAU_WIDTH), rp_no_bias(net), rp_activation(net, RP_RELU);
    rp_dense(net, PLATEAU_CLASSES), rp_no_bias(net);
    rp_loss(net, RP_SOFTMAX_CROSS_ENTROPY);
    CHECK(rp_net_build(net, PLATEAU_BATCH, 1) == RP_OK, "%s", rp_error(net));
    for (size_t i = 0; i < count_of(net); i++) rp_parameters(net)[i] = (rp_real)test_uniform(&random, -0.1, 0.1);
    return net;
}
static double on_plateau(const rp_optimizer *o, int steps) { /* the loss after so many */
    static rp_real x[PLATEAU_BATCH * PLATEAU_INPUTS];
    int labels[PLATEAU_BATCH];
    double prototypes[PLATEAU_CLASSES][PLATEAU_INPUTS];
    rp_data data = {x, NULL, labels, NULL, PLATEAU_BATCH, NULL, NULL};
    rp_net *net = plateau_net();
    test_random random = {2};
    rp_score score;
    for (int i = 0; i < PLATEAU_CLASSES * PLATEAU_INPUTS; i++)
        prototypes[i / PLATEAU_INPUTS][i % PLATEAU_INPUTS] = test_normal(&random);
    for (int b = 0; b < PLATEAU_BATCH; b++) {
        labels[b] = b % PLATEAU_CLASSES;
        for (int i = 0; i < PLATEAU_INPUTS; i++)
            x[b * PLATEAU_INPUTS + i] = (rp_real)(prototypes[labels[b]][i] + 0.3 * test_normal(&random));
    }
    for (int step = 0; step < steps; step++) WORKS(rp_train(net, o, &data, NULL));
    WORKS(rp_evaluate(net, &data, &score));
    rp_net_free(net);
    return (double)score.loss;
}
static void test_plateau(void) {
    enum { STEPS = 200 };
    rp_optimizer sgd = rp_sgd((rp_real)0.02), cubic = sgd;
    double still = on_plateau(&sgd, STEPS), gone;
    CHECK(fabs(still - log(10)) < 0.01, "SGD: %g", still);
    cubic.cubic = 100;
    gone = on_plateau(&cubic, STEPS);
    CHECK(gone < 2, "cubic SGD: %g", gone);
}

/* >>tools
   All tools in one list, for what must hold for each of them. */
enum tool {
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
    TOOLS
};
static const char *const tool_names[] = {"rp_directional",           "rp_hessian_vector",   "rp_gauss_newton_vector",
                                         "rp_hessian_matrix",        "rp_hessian_diagonal", "rp_gauss_newton_diagonal",
                                         "rp_sample_gradient_norms", "rp_sample_gradients", "rp_gradient_noise",
                                         "rp_hessian_solve",         "rp_hessian_solve",    "rp_hessian_solve",
                                         "rp_hessian_solve"};
static int takes_vector(int tool) { return tool <= GAUSS_NEWTON_VECTOR || tool >= SOLVE_AUTO; }
static const char *vector_name(int tool) { return tool == DIRECTIONAL ? "direction" : tool >= SOLVE_AUTO ? "b" : "v"; }

static int add_factors(void *user, const rp_sample_factors *f) {
    rp_real *out = (rp_real *)user;
    out[f->sample] += f->d[0] + (f->y ? f->y[0] : 0) + (f->states ? f->states[0] : 0);
    return 0;
}

/* How many numbers a tool writes for n parameters and so many samples. */
static size_t written(int tool, size_t n, int count) {
    switch (tool) {
    case DIRECTIONAL: return 2;
    case HESSIAN_MATRIX: return n * n;
    case SAMPLE_NORMS:
    case SAMPLE_GRADIENTS: return (size_t)count;
    case GRADIENT_NOISE: return n + 4;
    default: return n;
    }
}
static rp_status use_solver(int tool, rp_net *net, const rp_data *data, const rp_real *v, rp_real *out) {
    rp_solve_options options = options_of((rp_solve_method)(tool - SOLVE_AUTO), 0, 0.5, 0);
    options.precondition = tool == SOLVE_ITERATIVE, options.rule.kind = RP_SAMPLED; /* which draws random numbers */
    return rp_hessian_solve(net, data, v, out, &options, NULL);
}
static rp_status use_noise(rp_net *net, const rp_data *data, rp_real *out) {
    rp_noise noise = {out[0], out[1], out[2], out[3]};
    rp_status status = rp_gradient_noise(net, data, &noise, out + 4);
    out[0] = noise.gradient, out[1] = noise.variance, out[2] = noise.signal;
    out[3] = status ? noise.scale : noise.scale * noise.signal; /* a quotient by a difference: its error is large */
    return status;
}
static rp_status use(int tool, rp_net *net, const rp_data *data, const rp_real *v, rp_real *out) {
    switch (tool) {
    case DIRECTIONAL: return rp_directional(net, data, v, out, out + 1);
    case HESSIAN_VECTOR: return rp_hessian_vector(net, data, v, out);
    case GAUSS_NEWTON_VECTOR: return rp_gauss_newton_vector(net, data, v, out);
    case HESSIAN_MATRIX: return rp_hessian_matrix(net, data, 1000, out);
    case HESSIAN_DIAGONAL: return rp_hessian_diagonal(net, data, out);
    case GAUSS_NEWTON_DIAGONAL: return rp_gauss_newton_diagonal(net, data, out);
    case SAMPLE_NORMS: return rp_sample_gradient_norms(net, data, out);
    case SAMPLE_GRADIENTS: return rp_sample_gradients(net, data, add_factors, out);
    case GRADIENT_NOISE: return use_noise(net, data, out);
    default: return use_solver(tool, net, data, v, out);
    }
}

/* The flat arrays keep their bits, and an optimizer goes on as if nothing had happened. */
static void check_untouched(int which, int tool) {
    rp_real *(*const arrays[])(rp_net *) = {rp_parameters, rp_gradient, rp_curvature, rp_direction_array};
    rp_net *nets[2] = {make_net(RP_SOFTMAX_CROSS_ENTROPY), make_net(RP_SOFTMAX_CROSS_ENTROPY)}, *net = nets[0];
    named_optimizer o = method_of(which);
    rp_real v[MOST], kept[4][MOST], out[MOST * MOST] = {0};
    samples s, other;
    test_random random = {(uint64_t)(100 * which + tool)};
    o.with.cubic = (rp_real)(which % 2), o.with.cubic_adaptive = which % 4 == 1;
    random_reals(&random, v, MOST);
    draw_samples(&s, &random, RP_SOFTMAX_CROSS_ENTROPY), draw_samples(&other, &random, RP_SOFTMAX_CROSS_ENTROPY);
    for (int step = 0; step < 6; step++) {
        WORKS(rp_train(nets[0], &o.with, &s.data, NULL)), WORKS(rp_train(nets[1], &o.with, &s.data, NULL));
        fill_arrays(net, &o.with, &s.data), fill_arrays(nets[1], &o.with, &s.data);
        for (size_t i = 0; i < count_of(net) && !step; i++) rp_direction_array(net)[i] = (rp_real)i;
        for (int i = 0; i < 4; i++) memcpy(kept[i], arrays[i](net), bytes_of(net));
        CHECK(use(tool, net, &other.data, v, out) == RP_OK, "%s: %s", tool_names[tool], rp_error(net));
        for (int i = 0; i < 4; i++)
            CHECK(!memcmp(kept[i], arrays[i](net), bytes_of(net)), "%s changes array %d", tool_names[tool], i);
    }
    CHECK(!memcmp(rp_parameters(nets[0]), rp_parameters(nets[1]), bytes_of(net)), "%s changes the state of %s",
          tool_names[tool], o.name);
    rp_net_free(nets[0]), rp_net_free(nets[1]);
}
static void test_untouched(void) {
    for (int which = 0; which < METHODS; which++)
        for (int tool = 0; tool < TOOLS; tool++) check_untouched(which, tool);
}

/* What rp_forward left is gone: rp_backward_from says so. */
static void test_stale_forward(void) {
    for (int tool = 0; tool < TOOLS; tool++) {
        rp_net *net = make_net(RP_SOFTMAX_CROSS_ENTROPY);
        rp_real v[MOST] = {1}, out[MOST * MOST] = {0};
        samples s;
        test_random random = {1};
        draw_samples(&s, &random, RP_SOFTMAX_CROSS_ENTROPY);
        WORKS(rp_forward(net, s.inputs, BATCH));
        WORKS(use(tool, net, &s.data, v, out));
        CHECK(rp_backward_from(net, s.targets, NULL) == RP_ERR_ORDER, "after %s: '%s'", tool_names[tool],
              rp_error(net));
        rp_net_free(net);
    }
}

/* >>misuse */

/* The tool refuses, says who refuses what, and writes nothing. */
#define REFUSES(tool, data, v, status, words) check_refuses(net, tool, data, v, status, words, __LINE__)
static void check_refuses(rp_net *net, int tool, const rp_data *data, const rp_real *v, rp_status status,
                          const char *words, int line) {
    rp_real out[MOST * MOST], before[MOST * MOST];
    for (int i = 0; i < MOST * MOST; i++) out[i] = before[i] = (rp_real)(i % 7);
    check_fails(net, use(tool, net, data, v, out), status, words, tool_names[tool], line);
    CHECK(!net || has_words(rp_error(net), tool_names[tool]), "line %d: '%s' does not name %s", line, rp_error(net),
          tool_names[tool]);
    CHECK(!memcmp(out, before, sizeof out), "line %d: %s writes, though it fails", line, tool_names[tool]);
}

static void refuse_vectors(rp_net *net, int tool, const rp_data *data, rp_real *v) {
    const double bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3 && takes_vector(tool); i++) {
        char words[40];
        rp_real good = v[7];
        snprintf(words, sizeof words, "%s[7]", vector_name(tool));
        v[7] = (rp_real)bad[i];
        REFUSES(tool, data, v, RP_ERR_NOT_FINITE, words);
        v[7] = good;
    }
    if (takes_vector(tool)) REFUSES(tool, data, NULL, RP_ERR_NULL, vector_name(tool));
}
static void refuse_data(rp_net *net, int tool, samples *s, const rp_real *v) {
    rp_real weights[BATCH] = {1, 1, -1, 1, 1, 1, 1, 1}, nan = (rp_real)NAN, x = s->inputs[5];
    rp_data data = s->data;
    REFUSES(tool, NULL, v, RP_ERR_NULL, "data");
    data.inputs = NULL;
    REFUSES(tool, &data, v, RP_ERR_NULL, "data.inputs");
    data = s->data, data.labels = NULL;
    REFUSES(tool, &data, v, RP_ERR_NULL, "data.targets data.labels");
    data = s->data, data.targets = s->targets;
    REFUSES(tool, &data, v, RP_ERR_VALUE, "data.targets data.labels");
    data = s->data, data.count = 0;
    REFUSES(tool, &data, v, RP_ERR_VALUE, "data.count 0");
    data.count = BATCH + 1;
    REFUSES(tool, &data, v, RP_ERR_VALUE, "data.count 9");
    data = s->data, data.weights = weights;
    REFUSES(tool, &data, v, RP_ERR_VALUE, "weights[2]");
    s->labels[3] = OUTPUTS;
    REFUSES(tool, &s->data, v, RP_ERR_LABEL, "labels[3]");
    s->labels[3] = 0, s->inputs[5] = nan;
    REFUSES(tool, &s->data, v, RP_ERR_NOT_FINITE, "");
    s->inputs[5] = x;
}

static void test_misuse_of_tools(void) {
    rp_config inference = {NULL, NULL, NULL, RP_ISA_AUTO, 0, 1};
    rp_real v[MOST], out[MOST * MOST] = {0};
    samples s;
    test_random random = {1};
    random_reals(&random, v, MOST);
    draw_samples(&s, &random, RP_SOFTMAX_CROSS_ENTROPY);
    for (int tool = 0; tool < TOOLS; tool++) {
        rp_net *net = NULL;
        CHECK(use(tool, net, &s.data, v, out) == RP_ERR_NULL, "%s without a net", tool_names[tool]);
        net = describe_net(NULL, RP_SOFTMAX_CROSS_ENTROPY);
        REFUSES(tool, &s.data, v, RP_ERR_ORDER, "rp_net_build");
        built(net);
        refuse_vectors(net, tool, &s.data, v);
        refuse_data(net, tool, &s, v);
        WORKS(use(tool, net, &s.data, v, out));
        rp_net_free(net);
        net = built(describe_net(&inference, RP_SOFTMAX_CROSS_ENTROPY));
        REFUSES(tool, &s.data, v, RP_ERR_UNSUPPORTED, "");
        rp_net_free(net);
    }
}

static void test_missing_outputs(void) {
    rp_net *net = make_net(RP_SOFTMAX_CROSS_ENTROPY);
    rp_real v[MOST] = {0};
    samples s;
    test_random random = {1};
    draw_samples(&s, &random, RP_SOFTMAX_CROSS_ENTROPY);
    FAILS(rp_hessian_vector(net, &s.data, v, NULL), RP_ERR_NULL, "rp_hessian_vector out");
    FAILS(rp_gauss_newton_vector(net, &s.data, v, NULL), RP_ERR_NULL, "rp_gauss_newton_vector out");
    FAILS(rp_hessian_matrix(net, &s.data, 1000, NULL), RP_ERR_NULL, "rp_hessian_matrix out");
    FAILS(rp_hessian_diagonal(net, &s.data, NULL), RP_ERR_NULL, "rp_hessian_diagonal out");
    FAILS(rp_gauss_newton_diagonal(net, &s.data, NULL), RP_ERR_NULL, "rp_gauss_newton_diagonal out");
    FAILS(rp_sample_gradient_norms(net, &s.data, NULL), RP_ERR_NULL, "rp_sample_gradient_norms norms");
    FAILS(rp_sample_gradients(net, &s.data, NULL, v), RP_ERR_NULL, "rp_sample_gradients each");
    FAILS(rp_gradient_noise(net, &s.data, NULL, v), RP_ERR_NULL, "rp_gradient_noise noise");
    FAILS(rp_hessian_solve(net, &s.data, v, NULL, NULL, NULL), RP_ERR_NULL, "rp_hessian_solve x");
    FAILS(rp_last_step(net, NULL), RP_ERR_NULL, "rp_last_step step");
    rp_net_free(net);
}

/* A heap that counts, and that may run out of memory: at allocation `fail_at`, from 0. */
typedef struct heap {
    long calls, live, fail_at;
} heap;
static void *heap_allocate(void *user, size_t size) {
    heap *h = (heap *)user;
    void *pointer = h->calls++ == h->fail_at ? NULL : malloc(size);
    h->live += pointer != NULL;
    return pointer;
}
static void heap_release(void *user, void *pointer) {
    ((heap *)user)->live--;
    free(pointer);
}
static rp_config config_of(heap *h) {
    rp_config config = {heap_allocate, heap_release, NULL, RP_ISA_AUTO, 0, 0};
    config.user = h;
    return config;
}

/* Results that are too large for rp_real: nothing is written. */
static void test_overflowing_results(void) {
    const double large = sizeof(rp_real) == sizeof(double) ? 1e200 : 1e25;
    for (int tool = 0; tool < TOOLS; tool++) {
        /* y = w x with w = 0: loss and gradient are finite, H = x x' is not, but for its first row, where x is 0 */
        heap h = {0, 0, -1};
        rp_config config = config_of(&h);
        rp_net *net = rp_net_new(rp_vector(2), &config);
        rp_real x[] = {0, (rp_real)large, 0, (rp_real)large}, targets[] = {1, -1}, v[MOST] = {1, 1}, out[2] = {3, 3},
                w[2] = {0, 0};
        rp_data data = {x, targets, NULL, NULL, 2, NULL, NULL};
        rp_dense(net, 1), rp_no_bias(net);
        CHECK(rp_net_build(net, 2, 1) == RP_OK, "%s", rp_error(net));
        memcpy(rp_parameters(net), w, sizeof w);
        if (tool == SAMPLE_GRADIENTS) WORKS(use(tool, net, &data, v, out));
        else if (tool == HESSIAN_MATRIX) { /* the exception: it holds the products before the one that failed */
            rp_real matrix[] = {3, 3, 3, 3};
            FAILS(rp_hessian_matrix(net, &data, 2, matrix), RP_ERR_NOT_FINITE, "rp_hessian_matrix");
            CHECK(matrix[0] == 0 && matrix[1] == 0 && matrix[2] == 3 && matrix[3] == 3, "%g %g %g %g",
                  (double)matrix[0], (double)matrix[1], (double)matrix[2], (double)matrix[3]);
        } else if (tool < SOLVE_AUTO) REFUSES(tool, &data, v, RP_ERR_NOT_FINITE, "");
        else { /* a solve may also do without what overflows */ rp_status status = use(tool, net, &data, v, out);
            CHECK(status == RP_ERR_NOT_FINITE || status == RP_ERR_NOT_CONVERGED, "%d: '%s'", (int)status,
                  rp_error(net));
            CHECK(out[0] - out[0] == 0 && out[1] - out[1] == 0, "%g, %g", (double)out[0], (double)out[1]);
        }
        rp_net_free(net);
        CHECK(h.live == 0, "%s: %ld allocations live", tool_names[tool], h.live);
    }
}

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
    rp_net *net = make_net(RP_SOFTMAX_CROSS_ENTROPY);
    rp_real v[MOST] = {1}, x[MOST] = {0};
    samples s;
    test_random random = {1};
    draw_samples(&s, &random, RP_SOFTMAX_CROSS_ENTROPY);
    for (int i = 0; i < 4; i++) {
        OPTION_FAILS(damping, rp_real, bad[i]);
        OPTION_FAILS(tolerance, rp_real, bad[i]);
    }
    OPTION_FAILS(method, rp_solve_method, -1);
    OPTION_FAILS(method, rp_solve_method, 4);
    OPTION_FAILS(iterations, int, -1);
    OPTION_FAILS(iterations, int, INT_MIN);
    rp_solve_options options = options_of(RP_SOLVE_ITERATIVE, 0, 0.5, 0);
    options.precondition = 1, options.rule.kind = (rp_rule_kind)9;
    FAILS(rp_hessian_solve(net, &s.data, v, x, &options, NULL), RP_ERR_VALUE, "rp_hessian_solve rule.kind 9");
    rp_net_free(net);
}

/* A field out of range: refused by all that take an optimizer, and the parameters stay. */
#define FIELD_FAILS(start, field, type, value) \
    do { \
        rp_optimizer o = start; \
        o.field = (type)(value); \
        check_field(net, &o, &s.data, "optimizer." #field, __LINE__); \
    } while (0)
static void check_field(rp_net *net, const rp_optimizer *o, const rp_data *data, const char *words, int line) {
    typedef rp_status (*taker)(rp_net *, const rp_optimizer *);
    static const taker takers[] = {rp_prepare, rp_update, rp_direction};
    rp_real before[MOST];
    memcpy(before, rp_parameters(net), bytes_of(net));
    for (int i = 0; i < 3; i++) check_fails(net, takers[i](net, o), RP_ERR_VALUE, words, "an optimizer", line);
    check_fails(net, rp_train(net, o, data, NULL), RP_ERR_VALUE, words, "rp_train", line);
    check_fails(net, rp_fit(net, o, data, NULL, NULL), RP_ERR_VALUE, words, "rp_fit", line);
    CHECK(!memcmp(before, rp_parameters(net), bytes_of(net)), "line %d: %s: the parameters changed", line, words);
}
static rp_optimizer cubic_of(rp_optimizer o, double cubic) {
    o.cubic = (rp_real)cubic;
    return o;
}
static void test_misuse_of_fields(void) {
    const double bad[] = {-1, NAN, INFINITY, -INFINITY};
    rp_net *net = make_net(RP_SOFTMAX_CROSS_ENTROPY);
    samples s;
    test_random random = {1};
    draw_samples(&s, &random, RP_SOFTMAX_CROSS_ENTROPY);
    for (int i = 0; i < 4; i++) {
        FIELD_FAILS(rp_sgd(1), cubic, rp_real, bad[i]);
        FIELD_FAILS(rp_partitioning(), cubic, rp_real, bad[i]);
        FIELD_FAILS(rp_newton(), cubic, rp_real, bad[i]);
        FIELD_FAILS(rp_per_variable(1), sigma, rp_real, bad[i]);
        FIELD_FAILS(rp_newton(), damping, rp_real, bad[i]);
        FIELD_FAILS(rp_newton(), tolerance, rp_real, bad[i]);
        FIELD_FAILS(rp_newton(), weight_decay, rp_real, bad[i]);
    }
    FIELD_FAILS(rp_per_variable(1), sigma, rp_real, 0);
    FIELD_FAILS(rp_newton(), damping, rp_real, 0);
    FIELD_FAILS(rp_newton(), iterations, int, 0);
    FIELD_FAILS(rp_newton(), iterations, int, -3);
    FIELD_FAILS(rp_sgd(1), method, rp_method, RP_NEWTON + 1);
    FIELD_FAILS(rp_newton(), method, rp_method, -1);
    FIELD_FAILS(rp_sgd(1), cubic_adaptive, int, 1); /* without `cubic` there is nothing that could adapt */
    rp_net_free(net);
}

/* What arrays alone cannot do. */
static void test_refused_updates(void) {
    rp_net *net = make_net(RP_SOFTMAX_CROSS_ENTROPY);
    rp_real before[MOST];
    rp_step step;
    samples s;
    test_random random = {1};
    rp_rule rule = rp_rule_default();
    rp_optimizer newton = rp_newton();
    draw_samples(&s, &random, RP_SOFTMAX_CROSS_ENTROPY);
    FAILS(rp_last_step(net, &step), RP_ERR_ORDER, "rp_last_step");
    WORKS(rp_backward(net, &s.data, &rule, NULL));
    memcpy(before, rp_parameters(net), bytes_of(net));
    for (int n = 0; n < METHODS; n++) {
        rp_optimizer o = cubic_of(method_of(n).with, 1);
        FAILS(rp_update(net, &o), RP_ERR_UNSUPPORTED, "rp_update rp_direction rp_directional rp_move cubic");
        WORKS(rp_direction(net, &o));
    }
    FAILS(rp_update(net, &newton), RP_ERR_UNSUPPORTED, "rp_update rp_hessian_solve");
    FAILS(rp_direction(net, &newton), RP_ERR_UNSUPPORTED, "rp_direction rp_hessian_solve");
    newton.cubic = 1;
    CHECK(rp_update(net, &newton) == RP_ERR_UNSUPPORTED, "%s", rp_error(net));
    FAILS(rp_direction(net, &newton), RP_ERR_UNSUPPORTED, "rp_direction rp_hessian_solve");
    CHECK(!memcmp(before, rp_parameters(net), bytes_of(net)), "a refused update changed the parameters");
    rp_net_free(net);
}

/* A step that fails leaves the parameters, and the state of the method that went before. */
static void check_failed_step(const rp_optimizer *failing, const char *name, int reason) {
    rp_net *nets[2] = {make_net(RP_SOFTMAX_CROSS_ENTROPY), make_net(RP_SOFTMAX_CROSS_ENTROPY)}, *net = nets[0];
    rp_optimizer adam = rp_adam((rp_real)0.01);
    samples s, bad;
    test_random random = {3};
    draw_samples(&s, &random, RP_SOFTMAX_CROSS_ENTROPY);
    bad = s, bad.data.inputs = bad.inputs, bad.data.labels = bad.labels;
    for (int i = 0; i < 2 * 3; i++) WORKS(rp_train(nets[i % 2], &adam, &s.data, NULL));
    if (reason == 0) bad.labels[2] = 77;
    if (reason == 1) bad.inputs[2] = (rp_real)INFINITY;
    if (reason == 2) bad.data.count = 99;
    CHECK(rp_train(net, failing, &bad.data, NULL) < 0, "%s: reason %d", name, reason);
    CHECK(!memcmp(rp_parameters(nets[0]), rp_parameters(nets[1]), bytes_of(net)), "%s: reason %d: parameters", name,
          reason);
    for (int i = 0; i < 2 * 3; i++) WORKS(rp_train(nets[i % 2], &adam, &s.data, NULL));
    CHECK(!memcmp(rp_parameters(nets[0]), rp_parameters(nets[1]), bytes_of(net)), "%s: reason %d: state", name, reason);
    rp_net_free(nets[0]), rp_net_free(nets[1]);
}
static void test_failed_steps(void) {
    for (int n = 0; n < METHODS + 1; n++)
        for (int reason = 0; reason < 3; reason++) {
            named_optimizer o = method_of(n);
            if (n == METHODS) o.name = "Newton", o.with = rp_newton();
            o.with.cubic = 1;
            check_failed_step(&o.with, o.name, reason);
        }
}

/* >>memory */

/* Three nets of smooth layers, a stack first. */
static rp_net *some_net(int which, const rp_config *config) {
    static const rp_conv2d_desc grouped = {4, 3, 3, 1, 1, 1, 1, 2};
    rp_recurrent_desc all = {6, RP_TANH, 1};
    rp_net *net = rp_net_new(which == 0 ? rp_vector(12) : which == 1 ? rp_image(2, 6, 6) : rp_sequence(5, 6), config);
    switch (which) {
    case 0: rp_dense(net, 14), rp_activation(net, RP_TANH), rp_dense(net, 9), rp_activation(net, RP_GELU); break;
    case 1:
        rp_conv2d(net, 4, 3, 1, 1), rp_activation(net, RP_SOFTPLUS), rp_conv2d_with(net, &grouped), rp_add(net, 1);
        rp_max_pool2d(net, 2, 1), rp_avg_pool2d(net, 2, 2), rp_dense(net, 8), rp_recursive(net, 3, RP_TANH),
            rp_add(net, 6);
        break;
    default:
        rp_recurrent_with(net, &all), rp_recurrent_with(net, &all), rp_add(net, 0), rp_recurrent(net, 5, RP_SIGMOID);
    }
    rp_dense(net, OUTPUTS);
    rp_loss(net, RP_SOFTMAX_CROSS_ENTROPY);
    return net;
}
enum { SOME_NETS = 3, SOME_BATCH = 16, SOME_INPUTS = 72 };
typedef struct some_samples {
    rp_real inputs[SOME_BATCH * SOME_INPUTS];
    int labels[SOME_BATCH];
    rp_data data;
} some_samples;
static void draw_some(some_samples *s) {
    test_random random = {5};
    random_reals(&random, s->inputs, SOME_BATCH * SOME_INPUTS);
    for (int i = 0; i < SOME_BATCH; i++) s->labels[i] = test_int(&random, 0, OUTPUTS - 1);
    memset(&s->data, 0, sizeof s->data);
    s->data.inputs = s->inputs, s->data.labels = s->labels, s->data.count = SOME_BATCH;
}

/* The steps whose length, or more, is computed. */
enum { COMPUTED = 6 };
static rp_optimizer computed(int which) {
    rp_optimizer o = which < 2    ? rp_sgd(1)
                     : which == 2 ? rp_partitioning()
                     : which == 3 ? rp_per_variable(1)
                                  : rp_newton();
    if (which < 3) o.cubic = 1;
    if (which == 1) o.cubic_adaptive = 1;
    if (which == 5) o.full_hessian = 1;
    return o;
}
static int is_direct_refusal(int which, int tool) { return which > 0 && tool == SOLVE_DIRECT; }

/* One call, a tool or after them a step, with a heap of which allocation `fail_at` after the build fails. */
static rp_status call_with(heap *h, int which, int call, long fail_at, const some_samples *s, const rp_real *v,
                           rp_real *out, long *needed) {
    rp_config config = config_of(h);
    h->fail_at = -1, h->calls = 0;
    rp_net *net = some_net(which, &config);
    CHECK(rp_net_build(net, SOME_BATCH, 1) == RP_OK, "%s", rp_error(net));
    long before = h->calls;
    if (fail_at >= 0) h->fail_at = before + fail_at;
    rp_optimizer o = computed(call - TOOLS < 0 ? 0 : call - TOOLS);
    rp_status status = call < TOOLS ? use(call, net, &s->data, v, out) : rp_train(net, &o, &s->data, NULL);
    *needed = h->calls - before;
    h->fail_at = -1;
    if (status == RP_ERR_MEMORY) { /* the net can be used, and the call succeeds with memory */
        const char *name = call < TOOLS ? tool_names[call] : "rp_train";
        CHECK(has_words(rp_error(net), name), "'%s' does not name %s", rp_error(net), name);
        WORKS(call < TOOLS ? use(call, net, &s->data, v, out) : rp_train(net, &o, &s->data, NULL));
    }
    if (call >= TOOLS) memcpy(out, rp_parameters(net), bytes_of(net));
    rp_net_free(net);
    CHECK(h->live == 0, "net %d, call %d: %ld live", which, call, h->live);
    return status;
}
static void check_memory(int which, int call, const some_samples *s, const rp_real *v) {
    heap h = {0, 0, -1};
    size_t size = 500 * 500;
    rp_real *expected = new_reals(size), *out = new_reals(size);
    long needed, ignored;
    rp_status status = call_with(&h, which, call, -1, s, v, expected, &needed);
    CHECK(status == RP_OK, "net %d, call %d: %d", which, call, (int)status);
    CHECK(needed <= 12, "net %d, call %d: %ld allocations", which, call, needed);
    for (long n = 0; n < needed; n++) {
        memset(out, 0, size * sizeof *out);
        status = call_with(&h, which, call, n, s, v, out, &ignored);
        CHECK(status == RP_ERR_MEMORY, "net %d, call %d: %d with allocation %ld of %ld failing", which, call,
              (int)status, n, needed);
        CHECK(!memcmp(out, expected, size * sizeof *out), "net %d, call %d: another result after allocation %ld failed",
              which, call, n);
    }
    free(expected), free(out);
}
static void test_memory(void) {
    some_samples s;
    rp_real v[1000];
    test_random random = {6};
    draw_some(&s);
    random_reals(&random, v, 1000);
    for (int which = 0; which < SOME_NETS; which++)
        for (int call = 0; call < TOOLS + COMPUTED; call++)
            if (!is_direct_refusal(which, call)) check_memory(which, call, &s, v);
}

/* After rp_prepare no step allocates; and a step that fails for want of memory leaves the state of the one before. */
static void test_prepared_steps(void) {
    some_samples s;
    draw_some(&s);
    for (int n = 0; n < SOME_NETS * COMPUTED; n++) {
        heap h = {0, 0, -1};
        rp_config config = config_of(&h);
        rp_net *net = some_net(n / COMPUTED, &config), *twin = some_net(n / COMPUTED, NULL);
        rp_optimizer o = computed(n % COMPUTED), adam = rp_adam((rp_real)0.01);
        CHECK(!rp_net_build(net, SOME_BATCH, 1) && !rp_net_build(twin, SOME_BATCH, 1), "%s", rp_error(net));
        for (int i = 0; i < 3; i++)
            WORKS(rp_train(net, &adam, &s.data, NULL)), WORKS(rp_train(twin, &adam, &s.data, NULL));
        for (int fail_at = 0; fail_at < 4;
             fail_at++) { /* each that there is: nothing happened, or it was taken and ends this */
            h.fail_at = h.calls + fail_at;
            rp_status status = rp_train(net, &o, &s.data, NULL);
            h.fail_at = -1;
            if (status == RP_OK) break;
            CHECK(status == RP_ERR_MEMORY, "%d: '%s'", (int)status, rp_error(net));
            WORKS(rp_train(net, &adam, &s.data, NULL)), WORKS(rp_train(twin, &adam, &s.data, NULL));
            CHECK(!memcmp(rp_parameters(net), rp_parameters(twin), bytes_of(net)),
                  "net %d, step %d: Adam's state is lost", n / COMPUTED, n % COMPUTED);
        }
        WORKS(rp_prepare(net, &o));
        long calls = h.calls;
        for (int i = 0; i < 3; i++) WORKS(rp_train(net, &o, &s.data, NULL));
        CHECK(h.calls == calls, "net %d, step %d: %ld allocations", n / COMPUTED, n % COMPUTED, h.calls - calls);
        rp_net_free(net), rp_net_free(twin);
        CHECK(h.live == 0, "%ld live", h.live);
    }
}

/* Without parameters, and with all of them frozen: nothing to solve for and nothing to move. */
static void test_no_steps(void) {
    for (int n = 0; n < 2; n++) {
        rp_real x[] = {1, 2, -1, 3}, v[6] = {1, 2, 3, 4, 5, 6}, out[6], before[6] = {0};
        rp_data data = {x, x, NULL, NULL, 2, NULL, NULL};
        rp_net *net = rp_net_new(rp_vector(2), NULL);
        rp_step step;
        if (n) rp_dense(net, 2);
        rp_activation(net, RP_TANH);
        WORKS(rp_net_build(net, 2, 1));
        if (n) rp_freeze(net, 0, 1), memcpy(before, rp_parameters(net), sizeof before);
        for (int tool = SOLVE_AUTO; tool < TOOLS; tool++) {
            for (int i = 0; i < 6; i++) out[i] = n ? 9 : 0;
            WORKS(use(tool, net, &data, v, out));
            for (int i = 0; i < 6; i++) CHECK(out[i] == 0, "tool %d: %g", tool, (double)out[i]);
        }
        for (int i = 0; i < COMPUTED; i++) {
            rp_optimizer o = computed(i);
            WORKS(rp_train(net, &o, &data, NULL));
            WORKS(rp_last_step(net, &step));
            CHECK(!n || !memcmp(before, rp_parameters(net), sizeof before), "step %d moves what is frozen", i);
            CHECK(!step.taken || o.method == RP_PER_VARIABLE, "step %d is taken: slope %g", i, (double)step.slope);
        }
        rp_net_free(net);
    }
}

/* >>sets */

/* What all tools and some steps of each kind give, one after the other; NULL if there is no such net here. */
static rp_real *all_results(int which, const rp_config *config, size_t *ends) {
    some_samples s;
    rp_net *net = some_net(which, config);
    test_random random = {7};
    rp_real v[1000], *results = NULL;
    size_t at = 0;
    draw_some(&s);
    random_reals(&random, v, 1000);
    rp_status status = rp_net_build(net, SOME_BATCH, 1);
    CHECK(status == RP_OK || status == RP_ERR_UNSUPPORTED, "%s", rp_error(net));
    if (status == RP_OK) results = new_reals(1000 * 1000 + 40 * 1000);
    for (int tool = 0; tool < TOOLS && results; tool++) {
        if (!is_direct_refusal(which, tool)) {
            WORKS(use(tool, net, &s.data, v, results + at));
            at += written(tool, count_of(net), SOME_BATCH);
        }
        ends[tool] = at;
    }
    for (int n = 0; n < COMPUTED && results; n++) {
        rp_optimizer o = computed(n);
        for (int step = 0; step < 2; step++) WORKS(rp_train(net, &o, &s.data, NULL));
        memcpy(results + at, rp_parameters(net), bytes_of(net));
        ends[TOOLS + n] = at += count_of(net);
    }
    rp_net_free(net);
    return results;
}
static void check_set(int which, const rp_real *got, const rp_real *expected, const size_t *ends) {
    for (int call = 0; call < TOOLS + COMPUTED; call++) {
        double error = 0, largest = 0;
        for (size_t i = call ? ends[call - 1] : 0; i < ends[call]; i++) {
            error = larger(fabs((double)got[i] - (double)expected[i]), error);
            largest = fmax(largest, fabs((double)expected[i]));
        }
        double allowed =
            call < TOOLS + 4 ? 1e-3 : 3e-2; /* the last two are Newton's, which solves to a tolerance of 0.01 */
        CHECK(error <= allowed * largest, "net %d, call %d: off by %g, largest %g", which, call, error, largest);
    }
}

/* The flat arrays again, of nets of every kind of layer. */
static void test_untouched_arrays(void) {
    rp_real *(*const arrays[])(rp_net *) = {rp_parameters, rp_gradient, rp_curvature, rp_direction_array};
    rp_real v[1000], *out = new_reals(500 * 500), *kept = new_reals(4 * 500);
    some_samples s;
    test_random random = {8};
    rp_optimizer o = rp_partitioning();
    draw_some(&s);
    random_reals(&random, v, 1000);
    for (int which = 0; which < SOME_NETS; which++) {
        rp_net *net = some_net(which, NULL);
        WORKS(rp_net_build(net, SOME_BATCH, 1));
        WORKS(rp_backward(net, &s.data, &o.rule, NULL)), WORKS(rp_direction(net, &o));
        for (size_t i = 0; i < 4; i++) memcpy(kept + i * 500, arrays[i](net), bytes_of(net));
        for (int tool = 0; tool < TOOLS; tool++) {
            if (!is_direct_refusal(which, tool)) WORKS(use(tool, net, &s.data, v, out));
            for (size_t i = 0; i < 4; i++)
                CHECK(!memcmp(kept + i * 500, arrays[i](net), bytes_of(net)), "net %d: %s changes array %d", which,
                      tool_names[tool], (int)i);
        }
        rp_net_free(net);
    }
    free(out), free(kept);
}

/* Any number of threads gives the same bits, any instruction set the same to rounding. */
static void test_threads_and_sets(void) {
    for (int which = 0; which < SOME_NETS; which++) {
        rp_config config = {NULL, NULL, NULL, RP_ISA_AUTO, 1, 0};
        size_t ends[TOOLS + COMPUTED] = {0}, ends_there[TOOLS + COMPUTED] = {0};
        rp_real *alone = all_results(which, &config, ends);
        config.threads = 3;
        rp_real *together = all_results(which, &config, ends_there);
        for (int call = 0; call < TOOLS + COMPUTED; call++) {
            size_t from = call ? ends[call - 1] : 0;
            CHECK(!memcmp(alone + from, together + from, (ends[call] - from) * sizeof *alone),
                  "net %d, call %d: other bits", which, call);
        }
        config.threads = 1, config.isa = RP_ISA_PORTABLE;
        rp_real *portable = all_results(which, &config, ends);
        for (config.isa = RP_ISA_AVX2; config.isa <= RP_ISA_NEON; config.isa = (rp_isa_kind)(config.isa + 1)) {
            rp_real *other = all_results(which, &config, ends);
            if (other) check_set(which, other, portable, ends);
            free(other);
        }
        free(alone), free(together), free(portable);
    }
}

int main(void) {
    test_reference_algebra();
    test_random_nets();
    test_large_nets();
    test_constant_loss();
    test_huber();
    test_nothing_to_train();
    test_solves();
    test_large_solves();
    test_defaults_of_solve();
    test_unfinished_solves();
    test_hopeless_solves();
    test_undamped_stack();
    test_zero_solves();
    test_cubic_minima();
    test_cubic_extremes();
    test_cubic_limits();
    test_cubic_steps();
    test_no_rate();
    test_meddling();
    test_auto_goes_on();
    test_auto_keeps_the_best();
    test_scaled_solves();
    test_uphill();
    test_no_step();
    test_adaptive();
    test_fit_with_lengths();
    test_per_variable();
    test_newton_converges();
    test_newton_by_hand();
    test_newton_never_rises();
    test_saddle();
    test_plateau();
    test_untouched();
    test_stale_forward();
    test_misuse_of_tools();
    test_missing_outputs();
    test_overflowing_results();
    test_misuse_of_options();
    test_misuse_of_fields();
    test_refused_updates();
    test_failed_steps();
    test_memory();
    test_prepared_steps();
    test_no_steps();
    test_untouched_arrays();
    test_threads_and_sets();
    return test_end();
}
