/* The matrix products of the nets against OpenBLAS's, and whole SGD steps against a step written on OpenBLAS, in turns.
   One line per pair; the ratios say how many times as long OpenBLAS takes, in the median and in the best run of each.
   Results are compared before they are timed.

       cc -O3 -march=native -ffast-math -c bench/peers/blas_step.c
       cc -O2 bench/peers/blas.c blas_step.o -lopenblas -lm */
#define _POSIX_C_SOURCE 200809L
#define RP_IMPLEMENTATION
#define RPI_KEEP_MACROS
#include "../../rp.h"
#include "../measure.h"
#include "../products.h"
#include "../tasks.h"
#include "blas_step.h"
#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* C = op(A) op(B), row-major, packed. */
typedef struct gemm {
    int m, n, k, a_transposed, b_transposed;
    const rp_real *a, *b;
    rp_real *c;
} gemm;

static void run_gemm(void *context) {
    const gemm *g = (const gemm *)context;
    CBLAS_TRANSPOSE a = g->a_transposed ? CblasTrans : CblasNoTrans, b = g->b_transposed ? CblasTrans : CblasNoTrans;
    int lda = g->a_transposed ? g->m : g->k, ldb = g->b_transposed ? g->k : g->n;
    cblas_sgemm(CblasRowMajor, a, b, g->m, g->n, g->k, 1, g->a, lda, g->b, ldb, 0, g->c, g->n);
}

static rp_real *matrix(size_t count) {
    void *memory;
    if (posix_memalign(&memory, 64, count * sizeof(rp_real))) exit(1);
    memset(memory, 0, count * sizeof(rp_real));
    return (rp_real *)memory;
}

/* [rows][ld] packed, or transposed. */
static rp_real *packed(const rp_real *from, int rows, int columns, ptrdiff_t ld, int transposed) {
    rp_real *to = matrix((size_t)rows * (size_t)columns);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) to[transposed ? j * rows + i : i * columns + j] = from[i * ld + j];
    return to;
}

/* The same product for OpenBLAS, a sample in each row, as most libraries have it, or in each column, as rp.h has it. */
static gemm gemm_of(const product_call *c, int by_column) {
    const rpi_buffers *b = &c->net->buffers;
    int in = c->step->inputs, out = c->step->outputs, count = b->batch;
    const rp_real *w = c->net->parameters + c->step->weights;
    const rp_real *y = packed(b->y[c->step->in], in, count, b->ld, !by_column);
    const rp_real *d = packed(b->d[c->step->out], out, count, b->ld, !by_column);
    gemm all[PRODUCTS][2] = {{{count, out, in, 0, 1, y, w, NULL}, {out, count, in, 0, 0, w, y, NULL}},
                             {{count, in, out, 0, 0, d, w, NULL}, {in, count, out, 1, 0, w, d, NULL}},
                             {{out, in, count, 1, 0, d, y, NULL}, {out, in, count, 0, 1, d, y, NULL}}};
    gemm g = all[c->kind][by_column];
    g.c = matrix((size_t)g.m * (size_t)g.n);
    return g;
}

static void check_gemm(const product_call *c, const gemm *g, int by_column) {
    ptrdiff_t ld = c->kind == OUTER ? g->n : c->net->buffers.ld;
    const rp_real *ours = c->kind == OUTER ? c->net->gradient + c->step->weights : c->out;
    const rp_real *bias = c->kind == FORWARD ? c->net->parameters + c->step->biases : NULL;
    double error = 0, size = 0;
    for (ptrdiff_t i = 0; i < g->m; i++)
        for (ptrdiff_t j = 0; j < g->n; j++) {
            int swapped = c->kind != OUTER && !by_column;
            rp_real want = g->c[i * g->n + j] + (bias ? bias[swapped ? j : i] : 0);
            rp_real got = ours[swapped ? j * ld + i : i * ld + j];
            error = fmax(error, fabs((double)(got - want)));
            size = fmax(size, fabs((double)want));
        }
    if (error <= 1e-4 * size) return;
    fprintf(stderr, "blas: results differ by %g of %g\n", error, size);
    exit(1);
}

enum { MOST = 60 };
static measurement measurements[3 * MOST]; /* ours, OpenBLAS by rows, by columns */
static product_call products[MOST];
static gemm gemms[2 * MOST];
static char names[MOST][112];
static int count;

static void add_products(const task *t) {
    rp_net *net = task_net(t, RP_ISA_AUTO, 1);
    rp_data data = task_data(t);
    rp_optimizer optimizer = rp_algorithm_1((rp_real)1e-9);
    task_good(rp_train(net, &optimizer, &data, NULL), net);
    for (int i = 0; i < net->step_count; i++) {
        const rpi_step *step = &net->steps[i];
        if (i > 1 && step->inputs == step[-1].inputs && step->outputs == step[-1].outputs) continue;
        for (int kind = 0; kind < PRODUCTS; kind++) {
            if (i == 0 && kind == TRANSPOSED) continue;
            measurement *m = &measurements[3 * count];
            product_call *c = &products[count];
            *c = product_new(net, i, (product_kind)kind, 0);
            product_run(c);
            m->run = product_run, m->context = c;
            for (int by_column = 0; by_column < 2; by_column++) {
                gemm *g = &gemms[2 * count + by_column];
                *g = gemm_of(c, by_column);
                run_gemm(g);
                check_gemm(c, g, by_column);
                m[1 + by_column].run = run_gemm, m[1 + by_column].context = g;
            }
            snprintf(names[count++], sizeof *names, "gemm task=%s layer=%d product=%s outputs=%d inputs=%d batch=%d",
                     t->name, i + 1, product_names[0][kind], step->outputs, step->inputs, t->batch);
        }
    }
}

static void print_products(void) {
    for (int i = 0; i < count; i++) {
        const measurement *m = &measurements[3 * i];
        const measurement *theirs = measure_median(&m[1]) < measure_median(&m[2]) ? &m[1] : &m[2];
        printf("%s samples_in=%s", names[i], theirs == &m[1] ? "rows" : "columns");
        measure_print_pair(m, "openblas", theirs);
    }
}

typedef struct sgd {
    rp_net *net;
    rp_data data;
    rp_optimizer optimizer;
    blas_net *theirs;
} sgd;
static void run_ours(void *context) {
    sgd *s = (sgd *)context;
    if (rp_train(s->net, &s->optimizer, &s->data, NULL)) exit(1);
}
static void run_theirs(void *context) {
    sgd *s = (sgd *)context;
    blas_step(s->theirs, s->data.inputs, s->data.labels, (float)s->optimizer.rate);
}

static blas_activation blas_activation_of(rp_activation_kind kind) {
    return kind == RP_TANH ? BLAS_TANH : kind == RP_SOFTPLUS ? BLAS_SOFTPLUS : BLAS_RELU;
}

static void add_step(const task *t, sgd *s, measurement *m) {
    int layers = 0;
    while (t->widths[layers + 1]) layers++;
    s->net = task_net(t, RP_ISA_AUTO, 1), s->data = task_data(t), s->optimizer = rp_sgd((rp_real)0.1);
    s->theirs =
        blas_net_new(layers, t->widths, t->batch, blas_activation_of(t->activation), t->classes, rp_parameters(s->net));
    for (int i = 0; i < 3; i++) {
        rp_real loss;
        task_good(rp_train(s->net, &s->optimizer, &s->data, &loss), s->net);
        float other = blas_step(s->theirs, s->data.inputs, s->data.labels, (float)s->optimizer.rate);
        if (fabs((double)(loss - other)) <= 1e-4 * fabs((double)loss)) continue;
        fprintf(stderr, "blas: %s: losses %g and %g\n", t->name, (double)loss, (double)other);
        exit(1);
    }
    s->optimizer.rate = (rp_real)1e-9;
    m[0].run = run_ours, m[1].run = run_theirs, m[0].context = m[1].context = s;
}

int main(int argc, char **argv) {
    static measurement steps[2 * DENSE_TASKS];
    sgd pairs[DENSE_TASKS];
    double seconds = argc > 1 ? atof(argv[1]) : 20;
    openblas_set_num_threads(1);
    printf("openblas %s\n", openblas_get_config());
    for (int i = 0; i < DENSE_TASKS; i++) add_products(&tasks[i]);
    measure(measurements, 3 * count, seconds / 2, 1e-3);
    print_products();
    for (int i = 0; i < DENSE_TASKS; i++) add_step(&tasks[i], &pairs[i], &steps[2 * i]);
    measure(steps, 2 * DENSE_TASKS, seconds / 2, 2e-3);
    for (int i = 0; i < DENSE_TASKS; i++) {
        printf("step task=%s optimizer=sgd batch=%d", tasks[i].name, tasks[i].batch);
        measure_print_pair(&steps[2 * i], "openblas", &steps[2 * i + 1]);
    }
    return 0;
}
