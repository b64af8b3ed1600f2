/* The Hessian of small nets, put together from the block matrices of Training Deep Nets Using Conjugate Deep Nets, in
   float64 and densely, against rp_hessian_matrix and rp_hessian_vector. "Conjugate" is that text; most of its equations
   have no number, so its sections are named. For single precision as it is, for double with -DRP_DOUBLE.

   The text writes the derivative of f by x and its transpose alike. Here J stands for the Jacobian, [outputs][inputs];
   its nabla f is J' where it multiplies b (D, D_x and M), and J where it multiplies dz or dx (D_x below the diagonal, and
   N). The gradient of a matrix is that of its columns, one below the other. */
#include "../rp.h"
#include "curvature.h"

enum { MOST_STAGES = 5, MOST_WIDTH = 3 };

typedef struct matrix {
    int rows, columns;
    double *at;
} matrix;

static matrix zeros(int rows, int columns) {
    matrix m = {rows, columns, ref_new(rows * columns)};
    return m;
}
static matrix identity(int n) {
    matrix m = zeros(n, n);
    for (int i = 0; i < n; i++) m.at[i * n + i] = 1;
    return m;
}
static double *entry(const matrix *m, int row, int column) { return &m->at[row * m->columns + column]; }

static matrix times(matrix a, matrix b) {
    matrix m = zeros(a.rows, b.columns);
    for (int i = 0; i < a.rows; i++)
        for (int k = 0; k < a.columns; k++)
            for (int j = 0; j < b.columns; j++) *entry(&m, i, j) += *entry(&a, i, k) * *entry(&b, k, j);
    return m;
}
static matrix plus(matrix a, matrix b) {
    matrix m = zeros(a.rows, a.columns);
    for (int i = 0; i < a.rows * a.columns; i++) m.at[i] = a.at[i] + b.at[i];
    return m;
}
static matrix inverse(matrix a) {
    matrix m = zeros(a.rows, a.rows);
    double *unit = ref_new(a.rows), *column = ref_new(a.rows);
    for (int j = 0; j < a.rows; j++) {
        unit[j] = 1;
        ref_solve(a.rows, a.at, unit, column);
        for (int i = 0; i < a.rows; i++) *entry(&m, i, j) = column[i];
        unit[j] = 0;
    }
    return m;
}

/* z_l = f_l(z_(l-1); x_l), Conjugate (1) to (5): a dense layer and its activation, or, in the end, the loss. u: x_l, then
   z_(l-1). */
typedef struct stage {
    int outputs, parameters, inputs, count; /* of z_l, x_l, z_(l-1), u */
    double *z;                              /* z_l; but for the loss */
    double *first;                          /* [outputs][count]: derivatives of z_l by u */
    double *second;                         /* [outputs][count][count] */
} stage;

/* Derivative of the sum s_row = W z + b by u. */
static double sum_slope(const ref_net *net, const ref_layer *layer, const double *z, int row, int u) {
    int weights = layer->rows * layer->fan_in, parameters = layer->end - layer->weights;
    if (u < weights) return u / layer->fan_in == row ? z[u % layer->fan_in] : 0;
    if (u < parameters) return u - weights == row;
    return net->w[layer->weights + row * layer->fan_in + u - parameters];
}
static int sum_bends(const ref_layer *layer, int row, int u, int v) { /* second derivative of it, by a weight and z */
    int weights = layer->rows * layer->fan_in, parameters = layer->end - layer->weights;
    return u < weights && v >= parameters && u / layer->fan_in == row && u % layer->fan_in == v - parameters;
}

/* Derivatives of the outputs by the sums: slope [outputs][rows], bend [outputs][rows][rows]. */
static void outer_derivatives(const ref_net *net, const ref_layer *layer, const double *target, const double *sums,
                              double *slope, double *bend) {
    int rows = layer->rows;
    for (int i = 0; i < rows && !target; i++) {
        slope[i * rows + i] = ref_sigma(layer + 1, 1, sums[i]);
        bend[(i * rows + i) * rows + i] = ref_sigma(layer + 1, 2, sums[i]);
    }
    if (!target) return;
    ref_loss_gradient(&net->loss, sums, target, slope);
    for (int i = 0; i < rows; i++) {
        double unit[MOST_WIDTH] = {0};
        unit[i] = 1;
        ref_loss_product(&net->loss, sums, target, unit, bend + i * rows);
    }
}

/* target: NULL but for the last one. */
static stage stage_of(const ref_net *net, const ref_layer *layer, const double *z, const double *target) {
    int rows = layer->rows, n = layer->end - layer->weights + layer->fan_in, outputs = target ? 1 : rows;
    stage f = {outputs, layer->end - layer->weights, layer->fan_in, n, ref_new(rows), ref_new(outputs * n), NULL};
    double *sums = ref_new(rows), *slope = ref_new(outputs * rows), *bend = ref_new(outputs * rows * rows);
    f.second = ref_new(outputs * n * n);
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < f.inputs; j++) sums[i] += net->w[layer->weights + i * f.inputs + j] * z[j];
        if (layer->bias) sums[i] += net->w[layer->biases + i];
        if (!target) f.z[i] = ref_sigma(layer + 1, 0, sums[i]);
    }
    outer_derivatives(net, layer, target, sums, slope, bend);
    for (int at = 0; at < outputs * n * n; at++) {
        int j = at / (n * n), u = at / n % n, v = at % n;
        for (int r = 0; r < rows; r++) {
            double by_u = sum_slope(net, layer, z, r, u);
            if (!v) f.first[j * n + u] += slope[j * rows + r] * by_u;
            f.second[at] += slope[j * rows + r] * (sum_bends(layer, r, u, v) + sum_bends(layer, r, v, u));
            for (int q = 0; q < rows; q++)
                f.second[at] += bend[(j * rows + r) * rows + q] * by_u * sum_slope(net, layer, z, q, v);
        }
    }
    return f;
}

/* The pipeline of a sample, and where its blocks begin: those of x_l, of z_l (l from 1), of z_(l-1), of vec nabla_x f_l
   and of vec nabla_z f_l. Entry `count` is the whole. */
typedef struct pipeline {
    int count;
    stage f[MOST_STAGES];
    int x[MOST_STAGES + 1], z[MOST_STAGES + 1], before[MOST_STAGES + 1], vec_x[MOST_STAGES + 1], vec_z[MOST_STAGES + 1];
} pipeline;

static pipeline pipeline_of(const trial *t, int sample) {
    const ref_net *net = t->reference;
    const double *z = t->exact.inputs + sample * net->inputs;
    pipeline p;
    memset(&p, 0, sizeof p);
    p.count = (net->layers + 1) / 2;
    for (int l = 0; l < p.count; l++) {
        const double *target = l == p.count - 1 ? ref_targets(net, &t->exact, sample) : NULL;
        const stage *f = &p.f[l];
        p.f[l] = stage_of(net, &net->layer[2 * l], z, target);
        z = f->z;
        p.x[l + 1] = p.x[l] + f->parameters;
        p.z[l + 1] = p.z[l] + f->outputs;
        p.before[l + 1] = p.before[l] + f->inputs;
        p.vec_x[l + 1] = p.vec_x[l] + f->parameters * f->outputs;
        p.vec_z[l + 1] = p.vec_z[l] + f->inputs * f->outputs;
    }
    return p;
}

/* Blocks, at a row and a column. u from `low` on, `count` of them. */

static void put_jacobian(matrix *m, int row, int column, const stage *f, int low, int count, double sign) { /* J */
    for (int j = 0; j < f->outputs; j++)
        for (int u = 0; u < count; u++) *entry(m, row + j, column + u) = sign * f->first[j * f->count + low + u];
}
static void put_transposed(matrix *m, int row, int column, const stage *f, int low, int count, double sign) { /* J' */
    for (int j = 0; j < f->outputs; j++)
        for (int u = 0; u < count; u++) *entry(m, row + u, column + j) = sign * f->first[j * f->count + low + u];
}
/* The gradient of vec J', J' by the u from `low` on, by those from `by` on. */
static void put_second(matrix *m, int row, int column, const stage *f, int low, int count, int by, int by_count) {
    for (int j = 0; j < f->outputs; j++)
        for (int u = 0; u < count; u++)
            for (int v = 0; v < by_count; v++)
                *entry(m, row + j * count + u, column + v) = f->second[(j * f->count + low + u) * f->count + by + v];
}
static void put_kronecker(matrix *m, int row, int column, const double *b, int outputs, int n) { /* b' (x) I */
    for (int j = 0; j < outputs; j++)
        for (int i = 0; i < n; i++) *entry(m, row + i, column + j * n + i) = b[j];
}

/* Conjugate, "Backpropagation and forward propagation, the matrix way": b = M^-1 e_L, gradient = D M^-1 e_L. */
static matrix make_m(const pipeline *p) {
    matrix m = identity(p->z[p->count]);
    for (int l = 1; l < p->count; l++) {
        const stage *f = &p->f[l];
        put_transposed(&m, p->z[l - 1], p->z[l], f, f->parameters, f->inputs, -1);
    }
    return m;
}
static matrix make_dx(const pipeline *p) { /* D, which "Putting it all together" calls D_x */
    matrix m = zeros(p->x[p->count], p->z[p->count]);
    for (int l = 0; l < p->count; l++) put_transposed(&m, p->x[l], p->z[l], &p->f[l], 0, p->f[l].parameters, 1);
    return m;
}

/* "The term involving dD": N (dz_0, ..., dz_(L-1)) = D_x below the diagonal times dx. Row 0 says that dz_0 = 0. */
static matrix make_n(const pipeline *p) {
    matrix m = identity(p->before[p->count]);
    for (int l = 0; l + 1 < p->count; l++) {
        const stage *f = &p->f[l];
        put_jacobian(&m, p->before[l + 1], p->before[l], f, f->parameters, f->inputs, -1);
    }
    return m;
}
static matrix make_dx_below(const pipeline *p) {
    matrix m = zeros(p->before[p->count], p->x[p->count]);
    for (int l = 0; l + 1 < p->count; l++)
        put_jacobian(&m, p->before[l + 1], p->x[l], &p->f[l], 0, p->f[l].parameters, 1);
    return m;
}

/* (10) to (12): (dD) b = D_b vec(dD). (13) to (16): (dM) b, but for its sign, = B_b vec(d nabla_z f). */
static matrix make_db(const pipeline *p, const double *b) {
    matrix m = zeros(p->x[p->count], p->vec_x[p->count]);
    for (int l = 0; l < p->count; l++)
        put_kronecker(&m, p->x[l], p->vec_x[l], b + p->z[l], p->f[l].outputs, p->f[l].parameters);
    return m;
}
static matrix make_bb(const pipeline *p, const double *b) {
    matrix m = zeros(p->z[p->count], p->vec_z[p->count]);
    for (int l = 1; l < p->count; l++)
        put_kronecker(&m, p->z[l - 1], p->vec_z[l], b + p->z[l], p->f[l].outputs, p->f[l].inputs);
    return m;
}

/* "The term involving dD": vec(dD_l) = (nabla_xx f_l) dx_l + (nabla_zx f_l) dz_(l-1); "The term involving dM": the same
   with nabla_xz and nabla_zz. */
typedef struct second_blocks {
    matrix xx, zx, xz, zz;
} second_blocks;
static second_blocks make_second(const pipeline *p) {
    int n = p->count;
    second_blocks d = {zeros(p->vec_x[n], p->x[n]), zeros(p->vec_x[n], p->before[n]), zeros(p->vec_z[n], p->x[n]),
                       zeros(p->vec_z[n], p->before[n])};
    for (int l = 0; l < n; l++) {
        const stage *f = &p->f[l];
        int x = f->parameters, z = f->inputs;
        put_second(&d.xx, p->vec_x[l], p->x[l], f, 0, x, 0, x);
        put_second(&d.zx, p->vec_x[l], p->before[l], f, 0, x, x, z);
        put_second(&d.xz, p->vec_z[l], p->x[l], f, x, z, 0, x);
        put_second(&d.zz, p->vec_z[l], p->before[l], f, x, z, x, z);
    }
    return d;
}

/* "Putting it all together":
       H = D_b (D_xx + D_zx N^-1 D_x below) + D_x M^-1 B_b (D_xz + D_zz N^-1 D_x below)
   Adds the sample's part of gradient and Hessian, and the sizes of H's terms. */
static void add_sample(const trial *t, int sample, double *gradient, double *hessian, double *size) {
    pipeline p = pipeline_of(t, sample);
    int n = p.x[p.count];
    double factor = ref_factor(&t->exact, sample);
    matrix back = inverse(make_m(&p)), dx = make_dx(&p), b = zeros(p.z[p.count], 1);
    for (int i = 0; i < b.rows; i++) b.at[i] = *entry(&back, i, b.rows - 1); /* M^-1 e_L */
    matrix slope = times(dx, b), moved = times(inverse(make_n(&p)), make_dx_below(&p));
    second_blocks d = make_second(&p);
    matrix db = make_db(&p, b.at), through = times(times(dx, back), make_bb(&p, b.at));
    matrix terms[4] = {times(db, d.xx), times(times(db, d.zx), moved), times(through, d.xz),
                       times(times(through, d.zz), moved)};
    matrix h = plus(plus(terms[0], terms[1]), plus(terms[2], terms[3]));
    for (int i = 0; i < n; i++) gradient[i] += factor * slope.at[i];
    for (int i = 0; i < n * n; i++) {
        hessian[i] += factor * h.at[i];
        for (int k = 0; k < 4; k++) size[i] += factor * fabs(terms[k].at[i]);
    }
}

static trial *random_trial(int seed) {
    static const rp_activation_kind smooth[] = {RP_TANH, RP_SIGMOID, RP_SOFTPLUS, RP_GELU, RP_SILU, RP_IDENTITY};
    static const rp_loss_kind losses[] = {RP_SQUARED_ERROR, RP_SOFTMAX_CROSS_ENTROPY, RP_BINARY_CROSS_ENTROPY,
                                          RP_POISSON};
    trial *t = start_trial((uint64_t)seed);
    test_random *random = &t->random;
    int stages = test_int(random, 1, MOST_STAGES), softmax = seed % 4 == 1;
    t->reference = ref_net_new(rp_vector(test_int(random, 1, MOST_WIDTH)), losses[seed % 4], 1);
    for (int l = 1; l < stages; l++)
        append_dense(t->reference, test_int(random, 1, MOST_WIDTH), smooth[test_int(random, 0, 5)]);
    append(t->reference, REF_DENSE, test_int(random, 1 + softmax, MOST_WIDTH), RP_IDENTITY);
    ref_close(t->reference);
    return trial_finish(t, test_int(random, 1, 3));
}

static void test_blocks(int seed) {
    trial *t = random_trial(seed);
    int n = t->reference->parameters;
    double *gradient = ref_new(n), *hessian = ref_matrix(n), *size = ref_matrix(n);
    double *product = ref_new(n), *product_size = ref_new(n);
    rp_real *out = new_reals((size_t)(n * n)), *v = new_reals((size_t)n);
    for (int b = 0; b < t->exact.count; b++) add_sample(t, b, gradient, hessian, size);
    check_done(t, "rp_backward", rp_backward(t->net, &t->data, NULL, NULL));
    check_vector(t, "D M^-1 e_L", rp_gradient(t->net), gradient, gradient, tolerance);
    check_done(t, "rp_hessian_matrix", rp_hessian_matrix(t->net, &t->data, (size_t)n, out));
    for (int i = 0; i < n; i++) check_vector(t, "H", out + i * n, hessian + i * n, size + i * n, tolerance);
    random_reals(&t->random, v, (size_t)n);
    for (int i = 0; i < n * n; i++) {
        product[i / n] += hessian[i] * (double)v[i % n];
        product_size[i / n] += size[i] * fabs((double)v[i % n]);
    }
    check_done(t, "rp_hessian_vector", rp_hessian_vector(t->net, &t->data, v, out));
    check_vector(t, "H v", out, product, product_size, tolerance);
    trial_free(t);
}

int main(void) {
    for (int seed = 0; seed < 100; seed++) test_blocks(seed);
    return test_end();
}
