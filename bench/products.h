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
    ptrdiff_t size = widest * net->buffers.ld;
    void *memory;
    if (posix_memalign(&memory, RPI_LINE, (size_t)(2 * size) * sizeof(rp_real))) exit(1);
    call.out = (rp_real *)memory;
    call.out2 = call.out + size;
    return call;
}

static void product_forward(const product_call *c) {
    const rpi_buffers *b = &c->net->buffers;
    rpi_apply_call call = rpi_apply_of(b, c->step, c->net->parameters, rpi_columns(b, b->batch));
    call.x = b->y[c->step->in];
    call.y = c->out;
    if (c->twin) {
        call.u = b->v[c->step->in];
        call.u_out = c->out2;
        call.own = 1;
    }
    c->step->map->ways[RPI_BATCH].apply(&call);
}

static void product_transposed(const product_call *c) {
    const rpi_buffers *b = &c->net->buffers;
    rpi_transposed_call call = rpi_transposed_of(b, c->step, c->net->parameters, rpi_columns(b, b->batch));
    call.d = b->d[c->step->out];
    call.d_in = c->out;
    if (c->twin) {
        call.v = b->v[c->step->out];
        call.v_in = c->out2;
    }
    c->step->map->ways[RPI_BATCH].transposed(&call);
}

static void product_outer(const product_call *c) {
    const rpi_buffers *b = &c->net->buffers;
    rpi_sink sink = rpi_sink_to(b->kernels->take_arrays, c->net->gradient, c->net->curvature);
    rpi_outer_call call;
    memset(&call, 0, sizeof call);
    call.b = b;
    call.step = c->step;
    call.count = b->batch;
    call.bias = c->step->bias;
    call.x = b->y[c->step->in];
    call.d = b->d[c->step->out];
    call.v = c->twin ? b->v[c->step->out] : NULL;
    call.scale = 1;
    call.scale2 = 1;
    call.sink = &sink;
    c->step->map->ways[RPI_BATCH].outer(&call);
}

static void product_run(void *context) {
    const product_call *c = (const product_call *)context;
    if (c->kind == FORWARD) product_forward(c);
    else if (c->kind == TRANSPOSED) product_transposed(c);
    else product_outer(c);
}

/* The error of an entry against float64, relative to the sum of its terms' magnitudes. */
static double product_entry_error(int k, const rp_real *a, ptrdiff_t a_stride, const rp_real *b, ptrdiff_t b_stride,
                                  double more, int magnitudes, rp_real got) {
    double sum = more, size = fabs(more) + 1e-30;
    for (int p = 0; p < k; p++) {
        double term = (double)a[p * a_stride] * (double)b[p * b_stride];
        sum += magnitudes ? fabs(term) : term;
        size += fabs(term);
    }
    return fabs((double)got - sum) / size;
}

/* The largest error of a few entries of what product_run has left. */
static inline double product_error(const product_call *c) {
    const rpi_buffers *b = &c->net->buffers;
    const rpi_step *step = c->step;
    const rp_real *w = c->net->parameters + step->weights, *bias = c->net->parameters + step->biases;
    const rp_real *y = b->y[step->in], *d = b->d[step->out], *v = b->v[step->out], *u = b->v[step->in];
    ptrdiff_t ld = b->ld, in = step->inputs, out = step->outputs;
    double worst = 0;
    for (int entry = 0; entry < 50; entry++) {
        ptrdiff_t i = entry * 7919 % out, j = entry * 104729 % in, s = entry * 31 % b->batch;
        ptrdiff_t at = step->weights + i * in + j;
        double error[2] = {0, 0}, own = 1;
        for (ptrdiff_t p = 0; p < in; p++) own += fabs((double)y[p * ld + s]);
        switch (c->kind) {
        case FORWARD:
            error[0] =
                product_entry_error(step->inputs, w + i * in, 1, y + s, ld, (double)bias[i], 0, c->out[i * ld + s]);
            if (c->twin)
                error[1] = product_entry_error(step->inputs, w + i * in, 1, u + s, ld, own, 1, c->out2[i * ld + s]);
            break;
        case TRANSPOSED:
            error[0] = product_entry_error(step->outputs, w + j, in, d + s, ld, 0, 0, c->out[j * ld + s]);
            if (c->twin) error[1] = product_entry_error(step->outputs, w + j, in, v + s, ld, 0, 1, c->out2[j * ld + s]);
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
