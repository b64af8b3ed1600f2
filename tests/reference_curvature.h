/* Second derivatives once more, on the units of reference.h. The Hessian of a batch by differences of its gradient, and
   by Pearlmutter's rule to all digits; the Gauss-Newton matrix as J'HJ; the gradient of each sample; dense linear
   algebra in its simplest form. Matrices are [n][n], vectors [n], where n is the number of parameters; entries of
   frozen layers are 0. */
#ifndef REFERENCE_CURVATURE_H
#define REFERENCE_CURVATURE_H
#include "reference.h"

static inline double *ref_matrix(int n) { return ref_new(n * n); }
static inline double ref_norm(int n, const double *a) { return sqrt(ref_dot(n, a, a)); }
static inline void ref_times(int n, const double *matrix, const double *v, double *out) {
    for (int i = 0; i < n; i++) out[i] = ref_dot(n, matrix + i * n, v);
}

/* How near any sample's residual is to Huber's kink. */
static inline double ref_huber_distance(ref_net *net, const ref_data *data) {
    double nearest = HUGE_VAL;
    if (net->loss.kind != RP_HUBER) return nearest;
    for (int b = 0; b < data->count; b++) {
        ref_forward_sample(net, RP_SCALE_ONE, data, b);
        for (int i = 0; i < net->loss.outputs; i++) {
            double r = ref_output(net)[i] - ref_targets(net, data, b)[i];
            nearest = fmin(nearest, fabs(fabs(r) - net->loss.delta));
        }
    }
    return nearest;
}

/* The derivative along v of the backward sweep, from rd [units] at the outputs: out += factor (rd y + d r). Without the
   second derivatives of the net (gauss_newton): out += factor rd y. r: of ref_tangent. Backward must have been done. */
static inline void ref_tangent_back(const ref_net *net, const double *v, const double *r, double *rd, int gauss_newton,
                                    double factor, double *out) {
    for (int i = net->units - 1; i > net->inputs; i--) {
        const ref_unit *unit = &net->unit[i];
        const ref_layer *layer = &net->layer[unit->layer];
        double d = gauss_newton ? 0 : net->d[i];
        for (int k = unit->first; k < unit->end; k++) {
            int from = net->link[k].from, p = net->link[k].parameter;
            rd[from] += net->slope[k] * rd[i];
            if (unit->kind == REF_SIGMA) rd[from] += ref_sigma(layer, 2, net->y[from]) * r[from] * d;
            if (!ref_trained(net, p, unit->layer)) continue;
            rd[from] += v[p] * d;
            out[p] += factor * (rd[i] * net->y[from] + d * r[from]);
        }
    }
}

/* out = H v, or G v, of the batch's mean loss. */
static inline void ref_product(ref_net *net, const ref_data *data, int gauss_newton, const double *v, double *out) {
    size_t mark = memory_mark();
    int at = ref_outputs(net);
    double *r = ref_new(net->units), *rd = ref_new(net->units), *ignored = ref_new(net->parameters), d[REF_WIDTH];
    memset(out, 0, sizeof *out * (size_t)net->parameters);
    for (int b = 0; b < data->count; b++) {
        const double *t = ref_targets(net, data, b);
        ref_forward_sample(net, RP_SCALE_ONE, data, b);
        ref_loss_gradient(&net->loss, ref_output(net), t, d);
        ref_backward(net, RP_SCALE_ONE, d, NULL, 0, ignored, NULL);
        ref_tangent(net, v, r);
        memset(rd, 0, sizeof *rd * (size_t)net->units);
        ref_loss_product(&net->loss, ref_output(net), t, r + at, rd + at);
        ref_tangent_back(net, v, r, rd, gauss_newton, ref_factor(data, b), out);
    }
    memory_release(mark);
}

/* out = H v by a central difference of gradients, with this step. */
static inline void ref_difference(ref_net *net, const ref_data *data, double step, const double *v, double *out) {
    size_t mark = memory_mark();
    int n = net->parameters;
    double *w = ref_new(n), *below = ref_new(n), *c = ref_scales(net, RP_SCALE_ONE);
    memcpy(w, net->w, sizeof *w * (size_t)n);
    for (int p = 0; p < n; p++) net->w[p] = w[p] - c[p] * step * v[p];
    ref_batch(net, data, NULL, below, NULL);
    for (int p = 0; p < n; p++) net->w[p] = w[p] + c[p] * step * v[p];
    ref_batch(net, data, NULL, out, NULL);
    for (int p = 0; p < n; p++) out[p] = (out[p] - below[p]) / (2 * step);
    memcpy(net->w, w, sizeof *w * (size_t)n);
    memory_release(mark);
}

/* H, by a product for each parameter: to all digits (step 0), or by differences. */
static inline double *ref_hessian(ref_net *net, const ref_data *data, double step) {
    int n = net->parameters;
    double *h = ref_matrix(n), *one = ref_new(n);
    for (int p = 0; p < n; p++) {
        one[p] = 1;
        if (step > 0) ref_difference(net, data, step, one, h + p * n);
        else ref_product(net, data, 0, one, h + p * n);
        one[p] = 0;
    }
    return h;
}

/* G = mean of J'HJ over the samples, H the loss's Hessian */
static inline double *ref_gauss_newton(ref_net *net, const ref_data *data) {
    int n = net->parameters, outputs = net->loss.outputs;
    double *matrix = ref_matrix(n), column[REF_WIDTH], product[REF_WIDTH];
    for (int b = 0; b < data->count; b++) {
        size_t mark = memory_mark();
        ref_forward_sample(net, RP_SCALE_ONE, data, b);
        double *j = ref_jacobian(net);
        for (int p = 0; p < n; p++) {
            for (int i = 0; i < outputs; i++) column[i] = j[i * n + p];
            ref_loss_product(&net->loss, ref_output(net), ref_targets(net, data, b), column, product);
            for (int q = 0; q < n; q++)
                for (int i = 0; i < outputs; i++) matrix[p * n + q] += ref_factor(data, b) * product[i] * j[i * n + q];
        }
        memory_release(mark);
    }
    return matrix;
}

/* [count][n]: the gradient of each sample's loss times its weight */
static inline double *ref_sample_gradients(ref_net *net, const ref_data *data) {
    int n = net->parameters;
    double *gradients = ref_new(data->count * n), d[REF_WIDTH];
    for (int b = 0; b < data->count; b++) {
        ref_forward_sample(net, RP_SCALE_ONE, data, b);
        ref_loss_gradient(&net->loss, ref_output(net), ref_targets(net, data, b), d);
        ref_backward(net, RP_SCALE_ONE, d, NULL, data->weights[b], gradients + b * n, NULL);
    }
    return gradients;
}

/* Linear algebra. */

/* x = the solution of matrix x = b, by elimination with row pivots */
static inline void ref_solve(int n, const double *matrix, const double *b, double *x) {
    size_t mark = memory_mark();
    double *a = ref_matrix(n);
    memcpy(a, matrix, sizeof *a * (size_t)(n * n));
    memmove(x, b, sizeof *x * (size_t)n);
    for (int k = 0; k < n; k++) {
        int pivot = k;
        for (int i = k + 1; i < n; i++)
            if (fabs(a[i * n + k]) > fabs(a[pivot * n + k])) pivot = i;
        for (int j = 0; j < n; j++) {
            double held = a[k * n + j];
            a[k * n + j] = a[pivot * n + j];
            a[pivot * n + j] = held;
        }
        double held = x[k];
        x[k] = x[pivot];
        x[pivot] = held;
        for (int i = k + 1; i < n; i++) {
            double factor = a[i * n + k] / a[k * n + k];
            for (int j = k; j < n; j++) a[i * n + j] -= factor * a[k * n + j];
            x[i] -= factor * x[k];
        }
    }
    for (int k = n - 1; k >= 0; k--) {
        for (int j = k + 1; j < n; j++) x[k] -= a[k * n + j] * x[j];
        x[k] /= a[k * n + k];
    }
    memory_release(mark);
}

/* Two columns, or rows, of a matrix turned into each other: entries of each are `step` apart. */
static inline void ref_turn(int n, double *one, double *other, int step, double c, double s) {
    for (int k = 0; k < n; k++) {
        double x = one[k * step], y = other[k * step];
        one[k * step] = c * x - s * y;
        other[k * step] = s * x + c * y;
    }
}
/* One rotation of a symmetric matrix that makes the entry at p, q zero. */
static inline void ref_rotate(int n, double *a, int p, int q) {
    double apq = a[p * n + q], theta = (a[q * n + q] - a[p * n + p]) / (2 * apq);
    double t = (theta < 0 ? -1 : 1) / (fabs(theta) + sqrt(theta * theta + 1)), c = 1 / sqrt(t * t + 1), s = t * c;
    ref_turn(n, a + p, a + q, n, c, s);
    ref_turn(n, a + p * n, a + q * n, 1, c, s);
}

/* values = the eigenvalues of a symmetric matrix, in no order: Jacobi's method */
static inline void ref_eigenvalues(int n, const double *matrix, double *values) {
    size_t mark = memory_mark();
    double *a = ref_matrix(n), largest = 0, off = 1;
    memcpy(a, matrix, sizeof *a * (size_t)(n * n));
    for (int i = 0; i < n * n; i++) largest = fmax(largest, fabs(a[i]));
    for (int sweep = 0; sweep < 30 && off > 1e-14 * largest; sweep++) {
        off = 0;
        for (int p = 0; p < n; p++)
            for (int q = p + 1; q < n; q++) {
                off = fmax(off, fabs(a[p * n + q]));
                if (fabs(a[p * n + q]) > 1e-16 * largest) ref_rotate(n, a, p, q);
            }
    }
    for (int i = 0; i < n; i++) values[i] = a[i * n + i];
    memory_release(mark);
}

/* The alpha that minimises the cubic model, in extended precision (where the machine has it) and range. */
static inline long double ref_cubic_length(double first, double second, double norm, double sigma) {
    long double a = first, b = second, k = (long double)sigma * norm * norm * norm, root = sqrtl(b * b - 2 * a * k);
    if (!(first < 0) || (k <= 0 && second <= 0)) return 0;
    return second > 0 ? -2 * a / (b + root) : (root - b) / k;
}
#endif
