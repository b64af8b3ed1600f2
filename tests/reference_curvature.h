/* Second derivatives once more: in float64 and one scalar at a time, on the units of reference_layers.h. The Hessian of
   a batch by differences of its gradient, and by Pearlmutter's rule to all digits; the Gauss-Newton matrix as J'HJ; the
   gradient of each sample; dense linear algebra in its simplest form. Matrices are [n][n], vectors [n], where n is the
   number of parameters; entries of frozen layers are 0. */
#ifndef REFERENCE_CURVATURE_H
#define REFERENCE_CURVATURE_H
#include "reference_layers.h"

static inline double *ref_matrix(int n) { return ref_new(n * n); }
static inline double ref_dot(int n, const double *a, const double *b) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}
static inline double ref_norm(int n, const double *a) { return sqrt(ref_dot(n, a, a)); }
static inline void ref_times(int n, const double *matrix, const double *v, double *out) {
    for (int i = 0; i < n; i++) out[i] = ref_dot(n, matrix + i * n, v);
}

/* out = H r for the loss's own Hessian by its outputs: exact, so Huber's is 0 beyond delta. */
static inline void ref_loss_product(const ref_net *net, const double *y, const double *t, const double *r,
                                    double *out) {
    double p[REF_WIDTH], sum = ref_sum(net->outputs, t), mean;
    ref_softmax(net->outputs, y, p);
    mean = ref_dot(net->outputs, p, r);
    for (int i = 0; i < net->outputs; i++) {
        double s = 1 / (1 + exp(-y[i]));
        switch (net->loss) {
        case RP_SQUARED_ERROR: out[i] = r[i]; break;
        case RP_SOFTMAX_CROSS_ENTROPY: out[i] = sum * p[i] * (r[i] - mean); break;
        case RP_BINARY_CROSS_ENTROPY: out[i] = s * (1 - s) * r[i]; break;
        case RP_HUBER: out[i] = fabs(y[i] - t[i]) <= net->delta ? r[i] : 0; break;
        case RP_POISSON: out[i] = exp(y[i]) * r[i]; break;
        }
    }
}

/* How near any sample's residual is to Huber's kink. */
static inline double ref_huber_distance(ref_graph *g, const ref_data *data) {
    double nearest = HUGE_VAL;
    for (int b = 0; b < data->count && g->net.loss == RP_HUBER; b++) {
        ref_graph_forward(g, RP_SCALE_ONE, data->inputs + b * g->net.inputs);
        for (int i = 0; i < g->net.outputs; i++) {
            double r = ref_output(g)[i] - data->targets[b * g->net.outputs + i];
            nearest = fmin(nearest, fabs(fabs(r) - g->net.delta));
        }
    }
    return nearest;
}

static inline int ref_trained(const ref_graph *g, int parameter, int layer) { /* parameter -1: there is none */
    return parameter >= 0 && !g->net.layer[layer].frozen;
}

/* r [units]: the derivative of each unit along v. Forward must have been done. */
static inline void ref_graph_tangent(const ref_graph *g, const double *v, double *r) {
    for (int i = 0; i <= g->net.inputs; i++) r[i] = 0;
    for (int i = g->net.inputs + 1; i < g->units; i++) {
        r[i] = 0;
        for (int k = g->unit[i].first; k < g->unit[i].end; k++) {
            int from = g->link[k].from, p = g->link[k].parameter;
            r[i] += g->slope[k] * r[from] + (ref_trained(g, p, g->unit[i].layer) ? v[p] * g->y[from] : 0);
        }
    }
}

/* The derivative along v of the backward sweep, from rd [units] at the outputs: out += factor (rd y + d r). Without the
   second derivatives of the net (gauss_newton): out += factor rd y. Backward must have been done. */
static inline void ref_graph_tangent_back(const ref_graph *g, const double *v, const double *r, double *rd,
                                          int gauss_newton, double factor, double *out) {
    for (int i = g->units - 1; i > g->net.inputs; i--) {
        const ref_unit *unit = &g->unit[i];
        double d = gauss_newton ? 0 : g->d[i];
        for (int k = unit->first; k < unit->end; k++) {
            int from = g->link[k].from, p = g->link[k].parameter, trained = ref_trained(g, p, unit->layer);
            rd[from] += g->slope[k] * rd[i] + (trained ? v[p] * d : 0);
            if (unit->kind == REF_SIGMA) rd[from] += ref_sigma(&g->net.layer[unit->layer], 2, g->y[from]) * r[from] * d;
            if (trained) out[p] += factor * (rd[i] * g->y[from] + d * r[from]);
        }
    }
}

/* out = H v, or G v, of the batch's mean loss. */
static inline void ref_graph_product(ref_graph *g, const ref_data *data, int gauss_newton, const double *v,
                                     double *out) {
    const ref_net *net = &g->net;
    int at = g->out[net->layers - 1];
    double *r = ref_new(g->units), *rd = ref_new(g->units), *ignored = ref_new(net->parameters), d[REF_WIDTH];
    memset(out, 0, sizeof *out * (size_t)net->parameters);
    for (int b = 0; b < data->count; b++) {
        const double *t = data->targets + b * net->outputs;
        ref_graph_forward(g, RP_SCALE_ONE, data->inputs + b * net->inputs);
        ref_loss_gradient(net, ref_output(g), t, d);
        ref_graph_backward(g, RP_SCALE_ONE, d, NULL, 0, ignored, NULL);
        ref_graph_tangent(g, v, r);
        memset(rd, 0, sizeof *rd * (size_t)g->units);
        ref_loss_product(net, ref_output(g), t, r + at, rd + at);
        ref_graph_tangent_back(g, v, r, rd, gauss_newton, data->weights[b] / data->count, out);
    }
    free(r), free(rd), free(ignored);
}

/* H, by a product for each parameter */
static inline void ref_graph_hessian(ref_graph *g, const ref_data *data, double *h) {
    int n = g->net.parameters;
    double *one = ref_new(n);
    for (int p = 0; p < n; p++) {
        one[p] = 1;
        ref_graph_product(g, data, 0, one, h + p * n);
        one[p] = 0;
    }
    free(one);
}

/* out = H v by a central difference of gradients. */
static inline void ref_graph_difference(ref_graph *g, const ref_data *data, double step, const double *v, double *out) {
    int n = g->net.parameters;
    double *w = ref_new(n), *below = ref_new(n), *c = ref_new(n);
    memcpy(w, g->net.w, sizeof *w * (size_t)n);
    ref_scales(&g->net, RP_SCALE_ONE, c);
    for (int p = 0; p < n; p++) g->net.w[p] = w[p] - (c[p] > 0 ? step * v[p] : 0);
    ref_graph_batch(g, data, NULL, below, NULL);
    for (int p = 0; p < n; p++) g->net.w[p] = w[p] + (c[p] > 0 ? step * v[p] : 0);
    ref_graph_batch(g, data, NULL, out, NULL);
    for (int p = 0; p < n; p++) out[p] = (out[p] - below[p]) / (2 * step);
    memcpy(g->net.w, w, sizeof *w * (size_t)n);
    free(w), free(below), free(c);
}
static inline void ref_graph_differences(ref_graph *g, const ref_data *data, double step, double *h) {
    int n = g->net.parameters;
    double *one = ref_new(n);
    for (int p = 0; p < n; p++) {
        one[p] = 1;
        ref_graph_difference(g, data, step, one, h + p * n);
        one[p] = 0;
    }
    free(one);
}

/* G = mean of J'HJ over the samples, H the loss's Hessian */
static inline void ref_graph_gauss_newton(ref_graph *g, const ref_data *data, double *matrix) {
    int n = g->net.parameters, outputs = g->net.outputs;
    double *j = ref_new(outputs * n), column[REF_WIDTH], product[REF_WIDTH];
    memset(matrix, 0, sizeof *matrix * (size_t)(n * n));
    for (int b = 0; b < data->count; b++) {
        ref_graph_forward(g, RP_SCALE_ONE, data->inputs + b * g->net.inputs);
        ref_graph_jacobian(g, j);
        for (int p = 0; p < n; p++) {
            for (int i = 0; i < outputs; i++) column[i] = j[i * n + p];
            ref_loss_product(&g->net, ref_output(g), data->targets + b * outputs, column, product);
            for (int q = 0; q < n; q++)
                for (int i = 0; i < outputs; i++)
                    matrix[p * n + q] += data->weights[b] / data->count * product[i] * j[i * n + q];
        }
    }
    free(j);
}

/* [count][n]: the gradient of each sample's loss times its weight */
static inline void ref_graph_samples(ref_graph *g, const ref_data *data, double *gradients) {
    double d[REF_WIDTH];
    memset(gradients, 0, sizeof *gradients * (size_t)(data->count * g->net.parameters));
    for (int b = 0; b < data->count; b++) {
        ref_graph_forward(g, RP_SCALE_ONE, data->inputs + b * g->net.inputs);
        ref_loss_gradient(&g->net, ref_output(g), data->targets + b * g->net.outputs, d);
        ref_graph_backward(g, RP_SCALE_ONE, d, NULL, data->weights[b], gradients + b * g->net.parameters, NULL);
    }
}

/* Linear algebra. */

/* x = the solution of matrix x = b, by elimination with row pivots */
static inline void ref_solve(int n, const double *matrix, const double *b, double *x) {
    double *a = ref_matrix(n);
    memcpy(a, matrix, sizeof *a * (size_t)(n * n));
    memmove(x, b, sizeof *x * (size_t)n);
    for (int k = 0; k < n; k++) {
        int pivot = k;
        for (int i = k + 1; i < n; i++)
            if (fabs(a[i * n + k]) > fabs(a[pivot * n + k])) pivot = i;
        for (int j = 0; j < n; j++) {
            double held = a[k * n + j];
            a[k * n + j] = a[pivot * n + j], a[pivot * n + j] = held;
        }
        double held = x[k];
        x[k] = x[pivot], x[pivot] = held;
        for (int i = k + 1; i < n; i++) {
            double factor = a[i * n + k] / a[k * n + k];
            for (int j = k; j < n && fabs(factor) > 0; j++) a[i * n + j] -= factor * a[k * n + j];
            x[i] -= factor * x[k];
        }
    }
    for (int k = n - 1; k >= 0; k--) {
        for (int j = k + 1; j < n; j++) x[k] -= a[k * n + j] * x[j];
        x[k] /= a[k * n + k];
    }
    free(a);
}

/* One rotation of a symmetric matrix that makes the entry at p, q zero. */
static inline void ref_rotate(int n, double *a, int p, int q) {
    double apq = a[p * n + q], theta = (a[q * n + q] - a[p * n + p]) / (2 * apq);
    double t = (theta < 0 ? -1 : 1) / (fabs(theta) + sqrt(theta * theta + 1)), c = 1 / sqrt(t * t + 1), s = t * c;
    for (int k = 0; k < n; k++) {
        double x = a[k * n + p], y = a[k * n + q];
        a[k * n + p] = c * x - s * y, a[k * n + q] = s * x + c * y;
    }
    for (int k = 0; k < n; k++) {
        double x = a[p * n + k], y = a[q * n + k];
        a[p * n + k] = c * x - s * y, a[q * n + k] = s * x + c * y;
    }
}

/* values = the eigenvalues of a symmetric matrix, in no order: Jacobi's method */
static inline void ref_eigenvalues(int n, const double *matrix, double *values) {
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
    free(a);
}

/* The alpha that minimises the cubic model, in extended precision (where the machine has it) and range. */
static inline long double ref_cubic_length(double first, double second, double norm, double sigma) {
    long double a = first, b = second, k = (long double)sigma * norm * norm * norm, root = sqrtl(b * b - 2 * a * k);
    if (!(first < 0) || (k <= 0 && second <= 0)) return 0;
    return second > 0 ? -2 * a / (b + root) : (root - b) / k;
}
#endif
