/* The tools for second derivatives: slopes and curvature along a direction, products, the matrix, diagonals, each
   sample's gradient, noise. The library against dense Hessians of a naive float64 version, over some hundreds of random
   nets, and against what is known of the mathematics. For single precision as it is, for double with -DRP_DOUBLE. */
#include "../rp.h"
#include "curvature.h"

/* The reference itself: products to all digits and differences agree, and so do the two ways to G. */
static void check_reference(trial *t, const dense *d) {
    double error = 0, error_of_g = 0, largest = 0, *v = ref_new(d->n), *out = ref_new(d->n), *expected = ref_new(d->n);
    for (int i = 0; i < d->n * d->n; i++) {
        error = larger(fabs(d->h[i] - d->differences[i]), error);
        largest = fmax(largest, d->size[i] + d->terms[i % d->n]);
    }
    CHECK(error <= 1e-7 * largest, "the Hessian is off by %g, size %g; %s", error, largest, t->text);
    for (int p = 0; p < d->n; p++) v[p] = test_normal(&t->random);
    ref_product(t->reference, &t->exact, 1, v, out);
    ref_times(d->n, d->g, v, expected);
    for (int p = 0; p < d->n; p++) error_of_g = larger(fabs(out[p] - expected[p]), error_of_g);
    CHECK(error_of_g <= 1e-10 * largest * d->n, "the Gauss-Newton matrix is off by %g, size %g; %s", error_of_g,
          largest, t->text);
}

/* The reference's linear algebra: a known spectrum, that of the second difference; and a solution put in. */
static void test_reference_algebra(void) {
    enum { N = 17 };
    double matrix[N * N] = {0}, values[N], x[N], b[N], solution[N];
    test_random random = {1};
    for (int i = 0; i < N; i++) {
        matrix[i * N + i] = 2;
        matrix[i * N + (i ? i - 1 : 1)] = -1;
    }
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
    ref_times(N, matrix, x, b);
    ref_solve(N, matrix, b, solution);
    for (int i = 0; i < N; i++) CHECK(fabs(solution[i] - x[i]) < 1e-11, "%g, not %g", solution[i], x[i]);
}

/* Products. */

typedef rp_status (*multiplier)(rp_net *net, const rp_data *batch, const rp_real *v, rp_real *out);

/* In place, and from and to a flat array: the same bits. */
static void check_places(trial *t, multiplier multiply, const vector *v, const rp_real *expected, int n) {
    size_t bytes = (size_t)n * sizeof(rp_real);
    rp_real *out = new_reals((size_t)n);
    memcpy(out, v->real, bytes);
    check_done(t, "a product in place", multiply(t->net, &t->data, out, out));
    CHECK(same_reals(out, expected, n), "in place; %s", t->text);
    for (int i = 1; i < 4; i++) {
        rp_real *array = flat_array(t->net, i);
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
}

static void check_products(trial *t, const dense *d) {
    static const char *const names[] = {"Hv", "Gv"};
    const multiplier products[] = {rp_hessian_vector, rp_gauss_newton_vector};
    vector u = vector_new(&t->random, d), v = vector_new(&t->random, d);
    double *expected = ref_new(d->n), *size = ref_new(d->n), uhv = 0, vhu = 0, scale = 0;
    rp_real *out = new_reals((size_t)d->n), *out_u = new_reals((size_t)d->n);
    for (int i = 0; i < 2; i++) {
        ref_times(d->n, i ? d->g : d->h, v.exact, expected);
        ref_times(d->n, d->size, v.size, size);
        check_done(t, names[i], products[i](t->net, &t->data, v.real, out));
        check_vector(t, names[i], out, expected, size, tolerance);
        check_places(t, products[i], &v, out, d->n);
        check_done(t, names[i], products[i](t->net, &t->data, u.real, out_u));
        uhv = vhu = scale = 0;
        for (int p = 0; p < d->n; p++) {
            uhv += u.exact[p] * (double)out[p];
            vhu += v.exact[p] * (double)out_u[p];
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
}

/* The slope and curvature along a direction; either may be left out. */
static void check_directional(trial *t, const dense *d) {
    vector v = vector_new(&t->random, d);
    double *hv = ref_new(d->n), *size = ref_new(d->n), slope_size;
    rp_real first = 0, second = 0, again = 0;
    ref_times(d->n, d->h, v.exact, hv);
    ref_times(d->n, d->size, v.size, size);
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
}

static void check_diagonals(trial *t, const dense *d) {
    rp_real *out = new_reals((size_t)d->n);
    double *h = ref_new(d->n), *g = ref_new(d->n), *size = ref_new(d->n);
    int negative = 0;
    for (int p = 0; p < d->n; p++) {
        h[p] = d->h[p * d->n + p];
        g[p] = d->g[p * d->n + p];
        size[p] = d->size[p * d->n + p];
    }
    check_done(t, "rp_hessian_diagonal", rp_hessian_diagonal(t->net, &t->data, out));
    check_vector(t, "the diagonal of H", out, h, size, tolerance);
    check_done(t, "into a flat array", rp_hessian_diagonal(t->net, &t->data, rp_curvature(t->net)));
    CHECK(same_reals(out, rp_curvature(t->net), d->n), "into the curvature; %s", t->text);
    for (int p = 0; p < d->n; p++) {
        h[p] = d->differences[p * d->n + p];
        size[p] += d->terms[p];
    }
    check_vector(t, "the diagonal of differences", out, h, size, difference);
    check_done(t, "rp_gauss_newton_diagonal", rp_gauss_newton_diagonal(t->net, &t->data, out));
    check_vector(t, "the diagonal of G", out, g, g, tolerance);
    for (int p = 0; p < d->n; p++) negative += !(out[p] >= 0);
    CHECK(!negative, "%d entries of G's diagonal are negative; %s", negative, t->text);
}

/* Samples. */

/* What rp_sample_gradients hands out, put together again. */
typedef struct rebuilt {
    const trial *t;
    double *gradients; /* [count][n] */
    int calls, wrong, stop_at;
} rebuilt;

/* gradient += d y for each sum of the layer, in order; what a sum reads is the bias's 1, the layer's input, or a state.
   */
static void rebuild(const ref_net *net, const rp_sample_factors *f, double *gradient) {
    const ref_layer *layer = &net->layer[f->layer];
    int in = ref_first(net, f->layer - 1), inputs = f->y ? ref_features(layer->in) : 0, at = 0;
    for (int i = net->inputs + 1; i < net->units; i++) {
        const ref_unit *unit = &net->unit[i];
        const rp_real *state = f->states ? f->states + at / layer->rows * layer->rows : NULL;
        if (unit->layer != f->layer || net->link[unit->first].parameter < 0) continue;
        for (int k = unit->first; k < unit->end; k++) {
            int from = net->link[k].from, is_input = from >= in && from < in + inputs;
            double y = 1;
            if (from) y = (double)(is_input ? f->y[from - in] : *state++);
            gradient[net->link[k].parameter] += (double)f->d[at] * y;
        }
        at++;
    }
}
static int take_factors(void *user, const rp_sample_factors *f) {
    rebuilt *r = (rebuilt *)user;
    const ref_net *net = r->t->reference;
    if (r->stop_at && r->calls + 1 == r->stop_at) return -5;
    r->calls++;
    if (f->layer < 0 || f->layer >= net->layers || f->sample < 0 || f->sample >= r->t->data.count) return 1;
    const ref_layer *layer = &net->layer[f->layer];
    int recurrent = layer->kind == REF_RECURRENT, recursive = layer->kind == REF_RECURSIVE;
    r->wrong += !layer->rows || layer->frozen || !f->d;
    r->wrong += (f->states != NULL) != (recurrent || recursive) || (f->y == NULL) != recursive;
    if (r->wrong) return 0;
    for (int i = 0; i < (recurrent ? layer->rows : 0); i++) r->wrong += f->states[i] != 0; /* before the first step */
    rebuild(net, f, r->gradients + f->sample * net->parameters);
    return 0;
}

static int trained_layers(const ref_net *net) {
    int count = 0;
    for (int l = 0; l < net->layers; l++) count += net->layer[l].rows && !net->layer[l].frozen;
    return count;
}

/* Each sample's gradient, entry by entry, relative to the largest of the layer. */
static void check_sample_gradients(trial *t, const dense *d) {
    rebuilt r = {t, ref_new(d->n * d->count), 0, 0, 0};
    rp_real *got = new_reals((size_t)d->n);
    int calls = d->count * trained_layers(t->reference);
    check_done(t, "rp_sample_gradients", rp_sample_gradients(t->net, &t->data, take_factors, &r));
    CHECK(r.calls == calls && !r.wrong, "%d calls, not %d; %d wrong; %s", r.calls, calls, r.wrong, t->text);
    for (int b = 0; b < d->count; b++) {
        for (int p = 0; p < d->n; p++) got[p] = (rp_real)r.gradients[b * d->n + p];
        check_vector(t, "a sample's gradient", got, d->samples + b * d->n, d->samples + b * d->n, tolerance);
    }
    r.stop_at = (calls + 1) / 2;
    r.calls = 0;
    CHECK(rp_sample_gradients(t->net, &t->data, take_factors, &r) == RP_ERR_STOPPED, "%s", t->text);
    CHECK(r.calls == r.stop_at - 1, "%d calls after the stop at %d; %s", r.calls, r.stop_at, t->text);
}

static void check_norms(trial *t, const dense *d) {
    rp_real *norms = new_reals((size_t)d->count);
    check_done(t, "rp_sample_gradient_norms", rp_sample_gradient_norms(t->net, &t->data, norms));
    for (int b = 0; b < d->count; b++) {
        double expected = ref_norm(d->n, d->samples + b * d->n);
        check_number(t, "the norm of a sample's gradient", (double)norms[b], expected, expected, tolerance);
    }
}

/* The noise and its parts. `scale` is a quotient of differences: it is checked from the parts. */
static void check_noise(trial *t, const dense *d) {
    double *variance = ref_new(d->n), *squares = ref_new(d->n), total = 0, square = 0, all = 0;
    rp_real *out = new_reals((size_t)d->n);
    rp_noise noise, alone;
    for (int p = 0; p < d->n; p++) {
        for (int b = 0; b < d->count; b++) {
            double g = d->samples[b * d->n + p], distance = g - d->gradient[p];
            variance[p] += distance * distance / (d->count - 1);
            squares[p] += g * g / (d->count - 1);
        }
        total += variance[p];
        all += squares[p];
        square += d->gradient[p] * d->gradient[p];
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
}

static void check_lonely_noise(trial *t, const dense *d) {
    rp_real *out = new_reals((size_t)d->n);
    rp_noise noise;
    CHECK(rp_gradient_noise(t->net, &t->data, &noise, out) == RP_ERR_VALUE, "%s", t->text);
    CHECK(strstr(rp_error(t->net), "rp_gradient_noise") && strstr(rp_error(t->net), "count"), "'%s'", rp_error(t->net));
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
}

static void test_random_nets(void) {
    static const net_recipe recipes[] = {
        {IMAGE, 4, 5, 5, 5, ANY}, {SEQUENCE, 3, 4, 4, 5, ANY}, {VECTOR, 6, 4, 5, 5, ANY}, {IMAGE, 6, 4, 3, 3, ANY}};
    static const net_recipe stacks[] = {{STACK, 3, 7, 5, 6, ANY}, {STACK, 6, 4, 3, 4, ANY}};
    for (int n = 0; n < 300; n++) {
        trial *t = small_trial(n, n < 200 ? &recipes[n % 4] : &stacks[n % 2], 100);
        check_tools(t);
        trial_free(t);
    }
}

/* Larger nets, by products only. */

/* Products with one v, and by differences along it. */
static void check_large_products(trial *t, const dense *d) {
    vector v = vector_new(&t->random, d);
    double *h = ref_new(d->n), *g = ref_new(d->n), *size = ref_new(d->n), slope_size;
    rp_real *out = new_reals((size_t)d->n), first = 0, second = 0;
    ref_product(t->reference, &t->exact, 0, v.exact, h);
    ref_product(t->reference, &t->exact, 1, v.exact, g);
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
    ref_difference(t->reference, &t->exact, 1e-6, v.exact, h);
    for (int p = 0; p < d->n; p++) size[p] += d->terms[p] * sqrt(d->n);
    check_vector(t, "Hv by differences", out, h, size, difference);
}

/* Some of the diagonals' entries. */
static void check_large_diagonals(trial *t, const dense *d) {
    double *one = ref_new(d->n), *h = ref_new(d->n), *g = ref_new(d->n);
    rp_real *diagonal = new_reals((size_t)d->n), *diagonal_of_g = new_reals((size_t)d->n);
    check_done(t, "rp_hessian_diagonal", rp_hessian_diagonal(t->net, &t->data, diagonal));
    check_done(t, "rp_gauss_newton_diagonal", rp_gauss_newton_diagonal(t->net, &t->data, diagonal_of_g));
    for (int p = test_int(&t->random, 0, 20); p < d->n; p += d->n / 30 + 1) {
        one[p] = 1;
        ref_product(t->reference, &t->exact, 0, one, h);
        ref_product(t->reference, &t->exact, 1, one, g);
        one[p] = 0;
        check_number(t, "an entry of H's diagonal", (double)diagonal[p], h[p], g[p] + fabs(h[p] - g[p]), tolerance);
        check_number(t, "an entry of G's diagonal", (double)diagonal_of_g[p], g[p], g[p], tolerance);
    }
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
        trial_free(t);
    }
}

/* Edges. */

/* A softmax of one output is constant: its derivatives are what rounding leaves of 1 - 1, squares never below 0. */
static void test_constant_loss(void) {
    static const int tools[] = {HESSIAN_VECTOR, GAUSS_NEWTON_VECTOR, HESSIAN_DIAGONAL, GAUSS_NEWTON_DIAGONAL};
    const double left = 100 * last_digit;
    for (int n = 0; n < 4; n++) {
        trial *t = start_trial((uint64_t)n);
        t->reference = ref_net_new(rp_vector(3), RP_SOFTMAX_CROSS_ENTROPY, 1);
        if (n % 2) append_dense(t->reference, 4, RP_TANH);
        append(t->reference, REF_DENSE, 1, RP_IDENTITY);
        ref_close(t->reference);
        trial_finish(t, 5);
        int parameters = t->reference->parameters;
        rp_real *v = new_reals((size_t)parameters), *out = new_reals((size_t)parameters), first, second;
        random_reals(&t->random, v, (size_t)parameters);
        check_done(t, "rp_directional", rp_directional(t->net, &t->data, v, &first, &second));
        CHECK(fabs((double)first) < left && fabs((double)second) < left, "%g, %g", (double)first, (double)second);
        for (int i = 0; i < 4; i++) {
            check_done(t, "a tool", use(tools[i], t->net, &t->data, v, out));
            for (int p = 0; p < parameters; p++) {
                int below = tools[i] == GAUSS_NEWTON_DIAGONAL && out[p] < 0;
                CHECK(fabs((double)out[p]) < left && !below, "%s: %g", call_name(tools[i]), (double)out[p]);
            }
        }
        trial_free(t);
    }
}

/* On either side of Huber's kink: 1 or 0. */
static void test_huber(void) {
    rp_net *net = rp_net_new(rp_vector(1), NULL);
    rp_real x[] = {1, 1, 1}, targets[] = {0.5, 5, -5}, one[] = {1}, out[] = {-1, -1};
    const rp_real expected[] = {1, 0, 0};
    rp_dense(net, 1);
    rp_no_bias(net, rp_layer_count(net) - 1);
    rp_loss(net, RP_HUBER);
    CHECK(rp_net_build(net, 3, 1) == RP_OK, "%s", rp_error(net));
    rp_parameters(net)[0] = 1;
    for (int i = 0; i < 3; i++) { /* r = 1/2, -4, 6 with delta 1: not the majorant delta / |r| of the rules */
        rp_data data = rp_targeted(x + i, targets + i, 1);
        for (int tool = HESSIAN_VECTOR; tool <= GAUSS_NEWTON_DIAGONAL; tool++)
            CHECK(use(tool, net, &data, one, out) == RP_OK && out[0] == expected[i], "%s, %d: %g", call_name(tool), i,
                  (double)out[0]);
        CHECK(use(DIRECTIONAL, net, &data, one, out) == RP_OK && out[1] == expected[i], "%d: %g", i, (double)out[1]);
    }
    rp_net_free(net);
}

/* Without parameters, and with all of them frozen, there is nothing but zeros. */
static void test_nothing_to_train(void) {
    for (int n = 0; n < 3; n++) {
        rp_real x[] = {1, 2, -1, 3}, v[] = {1, 1, 1, 1, 1, 1}, out[36];
        rp_data data = rp_targeted(x, x, 2);
        rp_net *net = rp_net_new(rp_vector(2), NULL);
        rp_noise noise;
        if (n) rp_dense(net, 2);
        rp_activation(net, RP_TANH);
        WORKS(rp_net_build(net, 2, 1));
        if (n) rp_freeze(net, 0, 1);
        if (n == 2) rp_freeze(net, 0, 0);
        if (n == 2) rp_freeze(net, 0, 1);
        for (int tool = 0; tool < SOLVE_AUTO; tool++) {
            size_t count = tool == SAMPLE_GRADIENTS ? 0 : written(tool, count_of(net), 2);
            for (size_t i = 0; i < 36; i++) out[i] = 9;
            WORKS(use(tool, net, &data, v, out));
            for (size_t i = 0; i < 36; i++)
                CHECK(out[i] == (i < count ? 0 : 9), "%d, %s: %g", n, call_name(tool), (double)out[i]);
        }
        WORKS(rp_gradient_noise(net, &data, &noise, NULL));
        CHECK(noise.scale == 0, "%d: %g", n, (double)noise.scale);
        rp_net_free(net);
    }
}

/* What a tool leaves as it was. */

/* The flat arrays keep their bits, and an optimizer goes on as if nothing had happened. */
static void check_untouched(int which, int tool) {
    rp_net *net = classifier(), *twin = classifier();
    named_optimizer o = method_of(which);
    rp_real v[MOST], kept[4][MOST], out[MOST * MOST] = {0};
    samples s, other;
    uint64_t seed = (uint64_t)(100 * which + tool);
    o.with.cubic_sigma = (rp_real)(which % 2);
    o.with.cubic_adaptive = which % 4 == 1;
    draw_vector(v, seed);
    draw_classes(&s, seed);
    draw_classes(&other, seed + 1);
    for (int step = 0; step < 6; step++) {
        train_both(net, twin, &o.with, &s.data);
        fill_arrays(net, &o.with, &s.data);
        fill_arrays(twin, &o.with, &s.data);
        if (!step) memcpy(rp_step_array(net), v, bytes_of(net));
        for (int i = 0; i < 4; i++) memcpy(kept[i], flat_array(net, i), bytes_of(net));
        CHECK(use(tool, net, &other.data, v, out) == RP_OK, "%s: %s", call_name(tool), rp_error(net));
        for (int i = 0; i < 4; i++)
            CHECK(!memcmp(kept[i], flat_array(net, i), bytes_of(net)), "%s changes array %d", call_name(tool), i);
    }
    CHECK(same_parameters(net, twin), "%s changes the state of %s", call_name(tool), o.name);
    rp_net_free(net);
    rp_net_free(twin);
}

static void test_untouched(void) {
    for (int which = 0; which < METHODS; which++)
        for (int tool = 0; tool < TOOLS; tool++) check_untouched(which, tool);
}

/* The flat arrays again, of nets of every kind of layer. */
static void check_untouched_arrays(int which, int tool, const some_samples *s, rp_real *out) {
    static rp_real kept[4][SOME_PARAMETERS];
    rp_net *net = some_net(which, NULL);
    rp_optimizer o = rp_partitioning();
    WORKS(rp_net_build(net, SOME_BATCH, 1));
    WORKS(rp_backward(net, &s->data, &o.rule, NULL));
    WORKS(rp_direction(net, &o));
    for (int i = 0; i < 4; i++) memcpy(kept[i], flat_array(net, i), bytes_of(net));
    WORKS(use(tool, net, &s->data, s->v, out));
    for (int i = 0; i < 4; i++)
        CHECK(!memcmp(kept[i], flat_array(net, i), bytes_of(net)), "net %d: %s changes array %d", which,
              call_name(tool), i);
    rp_net_free(net);
}
static void test_untouched_arrays(void) {
    size_t mark = memory_mark();
    rp_real *out = new_reals(SOME_PARAMETERS * SOME_PARAMETERS);
    some_samples s;
    draw_some(&s);
    for (int which = 0; which < SOME_NETS; which++)
        for (int tool = 0; tool < TOOLS; tool++)
            if (is_possible(which, tool)) check_untouched_arrays(which, tool, &s, out);
    memory_release(mark);
}

/* What rp_forward left is gone: rp_backward_from says so. */
static void test_stale_forward(void) {
    for (int tool = 0; tool < TOOLS; tool++) {
        rp_net *net = classifier();
        rp_real v[MOST] = {1}, out[MOST * MOST] = {0};
        samples s;
        draw_classes(&s, 1);
        WORKS(rp_forward(net, s.inputs, BATCH));
        WORKS(use(tool, net, &s.data, v, out));
        CHECK(rp_backward_from(net, s.targets, NULL, NULL) == RP_ERR_ORDER, "after %s: '%s'", call_name(tool), rp_error(net));
        rp_net_free(net);
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
    (void)iteration;
    (void)residual;
    return m->calls++ == 1 && rp_predict(m->net, m->inputs, 1, out) != RP_OK;
}
static int meddle_with_samples(void *user, const rp_sample_factors *factors) {
    (void)factors;
    return meddle(user, 0, 0);
}
static void test_meddling(void) {
    rp_net *net = classifier();
    rp_solve_options options = options_of(RP_SOLVE_ITERATIVE, 0, 1, 0);
    rp_real b[MOST], x[MOST] = {0};
    samples s;
    draw_classes(&s, 1);
    draw_vector(b, 1);
    meddler m = {net, s.inputs, 0};
    options.progress = meddle;
    options.user = &m;
    FAILS(rp_hessian_solve(net, &s.data, b, x, &options, NULL), RP_ERR_ORDER, "options.progress");
    CHECK(m.calls == 2 && x[0] == 0, "%d calls, %g", m.calls, (double)x[0]);
    m.calls = 0;
    FAILS(rp_sample_gradients(net, &s.data, meddle_with_samples, &m), RP_ERR_ORDER, "each");
    CHECK(m.calls == 2, "%d calls", m.calls);
    WORKS(rp_hessian_solve(net, &s.data, b, x, &options, NULL));
    rp_net_free(net);
}

/* Misuse. */

/* The tool refuses, says who refuses what, and writes nothing. */
#define REFUSES(tool, data, v, status, words) check_refuses(net, tool, data, v, status, words, __LINE__)

static void check_refuses(rp_net *net, int tool, const rp_data *data, const rp_real *v, rp_status status,
                          const char *words, int line) {
    rp_real out[MOST * MOST], before[MOST * MOST];
    for (int i = 0; i < MOST * MOST; i++) out[i] = before[i] = (rp_real)(i % 7);
    check_fails(net, use(tool, net, data, v, out), status, words, call_name(tool), line);
    CHECK(!net || has_words(rp_error(net), call_name(tool)), "line %d: '%s' does not name %s", line, rp_error(net),
          call_name(tool));
    CHECK(!memcmp(out, before, sizeof out), "line %d: %s writes, though it fails", line, call_name(tool));
}

static const char *vector_name(int tool) { /* NULL: it takes none */
    if (tool == DIRECTIONAL) return "direction";
    if (tool == HESSIAN_VECTOR || tool == GAUSS_NEWTON_VECTOR) return "v";
    return tool >= SOLVE_AUTO ? "b" : NULL;
}
static void refuse_vectors(rp_net *net, int tool, const rp_data *data, rp_real *v) {
    const double bad[] = {NAN, INFINITY, -INFINITY};
    if (!vector_name(tool)) return;
    for (int i = 0; i < 3; i++) {
        char words[40];
        rp_real good = v[7];
        snprintf(words, sizeof words, "%s[7]", vector_name(tool));
        v[7] = (rp_real)bad[i];
        REFUSES(tool, data, v, RP_ERR_NOT_FINITE, words);
        v[7] = good;
    }
    REFUSES(tool, data, NULL, RP_ERR_NULL, vector_name(tool));
}

static void refuse_data(rp_net *net, int tool, samples *s, const rp_real *v) {
    rp_real weights[BATCH] = {1, 1, -1, 1, 1, 1, 1, 1}, nan = (rp_real)NAN, x = s->inputs[5];
    rp_data data = s->data;
    REFUSES(tool, NULL, v, RP_ERR_NULL, "data");
    data.inputs = NULL;
    REFUSES(tool, &data, v, RP_ERR_NULL, "data.inputs");
    data = s->data;
    data.labels = NULL;
    REFUSES(tool, &data, v, RP_ERR_NULL, "data.targets data.labels");
    data = s->data;
    data.targets = s->targets;
    REFUSES(tool, &data, v, RP_ERR_VALUE, "data.targets data.labels");
    data = s->data;
    data.count = 0;
    REFUSES(tool, &data, v, RP_ERR_VALUE, "data.count 0");
    data.count = BATCH + 1;
    REFUSES(tool, &data, v, RP_ERR_VALUE, "data.count 9");
    data = s->data;
    data.weights = weights;
    REFUSES(tool, &data, v, RP_ERR_VALUE, "weights[2]");
    s->labels[3] = OUTPUTS;
    REFUSES(tool, &s->data, v, RP_ERR_LABEL, "labels[3]");
    s->labels[3] = 0;
    s->inputs[5] = nan;
    REFUSES(tool, &s->data, v, RP_ERR_NOT_FINITE, "");
    s->inputs[5] = x;
}

static void test_misuse_of_tools(void) {
    rp_config inference = inference_config();
    rp_real v[MOST], out[MOST * MOST] = {0};
    samples s;
    draw_vector(v, 1);
    draw_classes(&s, 1);
    for (int tool = 0; tool < TOOLS; tool++) {
        rp_net *net = NULL;
        CHECK(use(tool, net, &s.data, v, out) == RP_ERR_NULL, "%s without a net", call_name(tool));
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
    rp_net *net = classifier();
    rp_real v[MOST] = {0};
    samples s;
    draw_classes(&s, 1);
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

/* Results that are too large for rp_real: nothing is written. y = w x with w = 0: loss and gradient are finite, H = x
   x' is not, but for its first row, where x is 0. */
static void check_overflow(rp_net *net, int tool, const rp_data *data) {
    const rp_real v[] = {1, 1};
    rp_real out[] = {3, 3, 3, 3};
    if (tool == SAMPLE_GRADIENTS) WORKS(use(tool, net, data, v, out));
    else if (tool == HESSIAN_MATRIX) { /* the exception: it holds the products before the one that failed */
        FAILS(use(tool, net, data, v, out), RP_ERR_NOT_FINITE, "rp_hessian_matrix");
        CHECK(out[0] == 0 && out[1] == 0 && out[2] == 3 && out[3] == 3, "%g %g %g %g", (double)out[0], (double)out[1],
              (double)out[2], (double)out[3]);
    } else if (tool < SOLVE_AUTO) REFUSES(tool, data, v, RP_ERR_NOT_FINITE, "");
    else { /* a solve may also do without what overflows */ rp_status status = use(tool, net, data, v, out);
        CHECK(status == RP_ERR_NOT_FINITE || status == RP_ERR_NOT_CONVERGED, "%d: '%s'", (int)status, rp_error(net));
        CHECK(out[0] - out[0] == 0 && out[1] - out[1] == 0, "%g, %g", (double)out[0], (double)out[1]);
    }
}
static void test_overflowing_results(void) {
    const rp_real large = (rp_real)(sizeof(rp_real) == sizeof(double) ? 1e200 : 1e25);
    const rp_real x[] = {0, large, 0, large}, targets[] = {1, -1};
    rp_data data = rp_targeted(x, targets, 2);
    for (int tool = 0; tool < TOOLS; tool++) {
        heap h = new_heap();
        rp_config config = heap_config(&h);
        rp_net *net = rp_net_new(rp_vector(2), &config);
        rp_dense(net, 1);
        rp_no_bias(net, rp_layer_count(net) - 1);
        WORKS(rp_net_build(net, 2, 1));
        memset(rp_parameters(net), 0, bytes_of(net));
        check_overflow(net, tool, &data);
        rp_net_free(net);
        CHECK(h.live == 0, "%s: %ld allocations live", call_name(tool), h.live);
    }
}

int main(void) {
    test_reference_algebra();
    test_random_nets();
    test_large_nets();
    test_constant_loss();
    test_huber();
    test_nothing_to_train();
    test_untouched();
    test_untouched_arrays();
    test_stale_forward();
    test_meddling();
    test_misuse_of_tools();
    test_missing_outputs();
    test_overflowing_results();
    test_memory(0, SOLVE_AUTO);
    test_threads_and_sets(0, SOLVE_AUTO);
    return test_end();
}
