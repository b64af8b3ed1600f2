/* products.h - the matrix products of one dense layer, as a training step does them: through the layer's three
   primitives, into memory of their own. Include it after rp.h with its implementation; needs _POSIX_C_SOURCE. */
#ifndef PRODUCTS_H
#define PRODUCTS_H
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A twin is the product and, sharing its loads, the one of magnitudes that residual partitioning needs beside it. */
typedef enum product_kind { FORWARD, TRANSPOSED, OUTER, PRODUCTS } product_kind;
static const char *const product_names[2][PRODUCTS] = {{"forward", "transposed", "outer"},
                                                       {"twin_forward", "twin_transposed", "twin_outer"}};

typedef struct product_call {
    rp_net *net;
    const rpi_step *step;
    product_kind kind;
    int twin;
    rp_real *out, *out2; /* [wider side][ld]; an outer product goes to the net's gradient and curvature */
} product_call;

/* The net must have taken a residual-partitioning step on a full batch, which leaves y, d and v in place. */
static product_call product_new(rp_net *net, int step, product_kind kind, int twin) {
    product_call call = {net, &net->steps[step], kind, twin, NULL, NULL};
    int widest = call.step->inputs > call.step->outputs ? call.step->inputs : call.step->outputs;
    size_t bytes = (size_t)widest * net->buffers.ld * sizeof(rp_real);
    void *memory;
    if (posix_memalign(&memory, RPI_LINE, 2 * bytes)) exit(1);
    call.out = (rp_real *)memory, call.out2 = call.out + bytes / sizeof(rp_real);
    return call;
}

static void product_run(void *context) {
    const product_call *c = (const product_call *)context;
    const rpi_buffers *b = &c->net->buffers;
    const rpi_step *s = c->step;
    const rp_real *y = b->y[s->in], *d = b->d[s->out], *u = c->twin ? b->v[s->in] : NULL;
    rp_real *w = c->net->parameters, *v = c->twin ? b->v[s->out] : NULL, *out2 = c->twin ? c->out2 : NULL;
    int n = rpi_columns(b, b->batch);
    rpi_sink sink = {b->kernels->take_arrays, w, c->net->gradient, c->net->curvature, NULL, NULL, NULL};
    if (c->kind == FORWARD) s->map->apply(b, s, w, n, y, c->out, u, out2, 1);
    else if (c->kind == TRANSPOSED) s->map->transposed(b, s, w, n, d, c->out, v, out2, 0, 0);
    else s->map->outer(b, s, b->batch, y, d, v, NULL, 0, 1, 1, &sink);
}

/* The error of an entry against float64, relative to the sum of its terms' magnitudes. */
static double product_entry_error(int k, const rp_real *a, size_t a_stride, const rp_real *b, size_t b_stride,
                                  double more, int magnitudes, rp_real got) {
    double sum = more, size = fabs(more) + 1e-30;
    for (size_t p = 0; p < (size_t)k; p++) {
        double term = (double)a[p * a_stride] * (double)b[p * b_stride];
        sum += magnitudes ? fabs(term) : term, size += fabs(term);
    }
    return fabs((double)got - sum) / size;
}

/* The largest error of a few entries of what product_run has left. */
static inline double product_error(const product_call *c) {
    const rpi_buffers *b = &c->net->buffers;
    const rpi_step *step = c->step;
    const rp_real *w = c->net->parameters + step->weights, *bias = c->net->parameters + step->biases;
    const rp_real *y = b->y[step->in], *d = b->d[step->out], *v = b->v[step->out], *u = b->v[step->in];
    size_t ld = b->ld, in = (size_t)step->inputs, out = (size_t)step->outputs;
    double worst = 0;
    for (size_t entry = 0; entry < 50; entry++) {
        size_t i = entry * 7919 % out, j = entry * 104729 % in, s = entry * 31 % (size_t)b->batch;
        size_t at = step->weights + i * in + j;
        double error[2] = {0, 0}, own = 1;
        for (size_t p = 0; p < in; p++) own += fabs((double)y[p * ld + s]);
        switch (c->kind) {
        case FORWARD:
            error[0] = product_entry_error((int)in, w + i * in, 1, y + s, ld, (double)bias[i], 0, c->out[i * ld + s]);
            if (c->twin) error[1] = product_entry_error((int)in, w + i * in, 1, u + s, ld, own, 1, c->out2[i * ld + s]);
            break;
        case TRANSPOSED:
            error[0] = product_entry_error((int)out, w + j, in, d + s, ld, 0, 0, c->out[j * ld + s]);
            if (c->twin) error[1] = product_entry_error((int)out, w + j, in, v + s, ld, 0, 1, c->out2[j * ld + s]);
            break;
        default:
            error[0] = product_entry_error(b->batch, d + i * ld, 1, y + j * ld, 1, 0, 0, c->net->gradient[at]);
            if (!c->twin) break;
            error[1] = product_entry_error(b->batch, v + i * ld, 1, y + j * ld, 1, 0, 1, c->net->curvature[at]);
        }
        worst = fmax(worst, fmax(error[0], error[1]));
    }
    return worst;
}
#endif
