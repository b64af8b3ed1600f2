/* Measures the library against what one core can do: first the peak of its arithmetic and of its caches, then training
   steps, single matrix products and predictions. Every case is checked before it is timed.

       cc -O2 -o bench bench/bench.c -lm -lpthread && ./bench --help */
#define _POSIX_C_SOURCE 200809L
#define RPI_KEEP_MACROS
#define RP_IMPLEMENTATION
#define RP_THREADS
#include "../rp.h"
#include "measure.h"
#include "products.h"
#include "tasks.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The machine: multiply-adds that stay in registers, and reading, which is summing up. Fourteen sums hide the
   latency. */

enum { SUMS = 14 };
typedef struct machine {
    const char *isa;
    rp_isa_kind kind;
    int lanes;
    float (*multiply_add)(long rounds);
    float (*read)(const float *x, size_t count);
    double peak; /* operations per second, in the best run of all */
    int turns;   /* the case that takes turns with the others */
} machine;

#define UNROLLED _Pragma("GCC unroll 14") for
#define MACHINE(isa, target, vector, all, multiply_add) \
    target static float multiply_add_##isa(long rounds) { \
        vector sum[SUMS], a = all(0.5f), b = all(1.0f); \
        float first; \
        UNROLLED(int i = 0; i < SUMS; i++) sum[i] = all((float)i); \
        for (long round = 0; round < rounds; round++) \
            UNROLLED(int i = 0; i < SUMS; i++) sum[i] = multiply_add(sum[i], a, b); \
        UNROLLED(int i = 1; i < SUMS; i++) sum[0] += sum[i]; \
        memcpy(&first, sum, sizeof first); \
        return first; \
    } \
    target static float read_##isa(const float *x, size_t count) { \
        const size_t lanes = sizeof(vector) / sizeof *x; \
        vector sum[SUMS], part; \
        float first; \
        UNROLLED(int i = 0; i < SUMS; i++) sum[i] = all(0.0f); \
        for (; count >= SUMS * lanes; count -= SUMS * lanes) \
            UNROLLED(int i = 0; i < SUMS; i++, x += lanes) memcpy(&part, x, sizeof part), sum[i] += part; \
        UNROLLED(int i = 1; i < SUMS; i++) sum[0] += sum[i]; \
        memcpy(&first, sum, sizeof first); \
        return first; \
    }

typedef float four_floats __attribute__((vector_size(16)));
#define ALL_FOUR(x) ((four_floats){x, x, x, x})
#define MULTIPLY_THEN_ADD(x, a, b) ((x) * (a) + (b))
MACHINE(portable, , four_floats, ALL_FOUR, MULTIPLY_THEN_ADD)
#if defined(__x86_64__)
#include <immintrin.h>
MACHINE(avx2, __attribute__((target("avx2,fma"))), __m256, _mm256_set1_ps, _mm256_fmadd_ps)
MACHINE(avx512, __attribute__((target("avx512f"))), __m512, _mm512_set1_ps, _mm512_fmadd_ps)
#elif defined(__aarch64__)
#include <arm_neon.h>
#define NEON_MULTIPLY_ADD(x, a, b) vfmaq_f32(b, x, a)
MACHINE(neon, , float32x4_t, vdupq_n_f32, NEON_MULTIPLY_ADD)
#endif

static machine machines[] = {
    {"portable", RP_ISA_PORTABLE, 4, multiply_add_portable, read_portable, 0, 0},
#if defined(__x86_64__)
    {"avx2", RP_ISA_AVX2, 8, multiply_add_avx2, read_avx2, 0, 0},
    {"avx512", RP_ISA_AVX512, 16, multiply_add_avx512, read_avx512, 0, 0},
#elif defined(__aarch64__)
    {"neon", RP_ISA_NEON, 4, multiply_add_neon, read_neon, 0, 0},
#endif
};
static volatile float sink; /* keeps what is only timed from being left out */

/* Seconds of a round of multiply-adds, or of reading the buffer once, in the best of many short runs. */
static double best_of(const machine *m, const float *x, size_t count, double seconds) {
    const long rounds = 20000;
    int calls = x ? (int)((1 << 20) / count) + 1 : 1;
    double best = 1, end = measure_clock() + seconds;
    while (measure_clock() < end) {
        double start = measure_clock();
        for (int i = 0; i < calls; i++) sink = x ? m->read(x, count) : m->multiply_add(rounds);
        best = fmin(best, measure_clock() - start);
    }
    return x ? best / calls : best / (double)rounds;
}

/* Finds the instruction sets that this machine has, and their peaks. Returns their number; the last is the best. */
static int find_machines(double seconds) {
    int count = 0;
    for (size_t i = 0; i < sizeof machines / sizeof *machines; i++) {
        rp_isa_kind kind = machines[i].kind;
        if (rpi_resolve_isa(&kind)) machines[count++] = machines[i];
    }
    for (int i = 0; i < count; i++) {
        machines[i].peak = 2.0 * SUMS * machines[i].lanes / best_of(&machines[i], NULL, 0, seconds);
        printf("peak isa=%s gflops=%.1f\n", machines[i].isa, machines[i].peak / 1e9);
    }
    return count;
}

/* L1, L2 and beyond on most machines. Returns the seconds that a byte takes from L2. */
static double read_caches(const machine *m, double seconds) {
    static const size_t kbytes[] = {16, 512, 8192};
    double l2 = 0;
    void *memory;
    if (posix_memalign(&memory, RPI_LINE, kbytes[2] << 10)) exit(1);
    memset(memory, 0, kbytes[2] << 10);
    for (int i = 0; i < 3; i++) {
        double bytes = 1024.0 * (double)kbytes[i];
        double time = best_of(m, (float *)memory, (kbytes[i] << 10) / sizeof(float), seconds);
        printf("read kbytes=%d isa=%s gbytes_per_second=%.1f\n", (int)kbytes[i], m->isa, bytes / time / 1e9);
        if (i == 1) l2 = time / bytes;
    }
    free(memory);
    return l2;
}

/* The cases. */

enum { MOST_CASES = 400 };
typedef struct bench_case {
    char name[112];
    double flops;       /* of one call, or of a step; 0: not printed */
    int threads, steps; /* steps: of one call */
    double l2;          /* seconds that reading the weights from L2 would take; 0: not printed */
    int reference;      /* another case; -1: none */
    const char *ratio_name;
    rp_net *net;
    rp_optimizer optimizer;
    rp_data data;
    product_call product;
    machine *machine;
    rp_real *output;
} bench_case;
static bench_case cases[MOST_CASES];
static measurement measurements[MOST_CASES];
static int case_count;
static double l2_byte; /* seconds */

static bench_case *add_case(void (*run)(void *context)) {
    if (case_count == MOST_CASES) exit(1);
    bench_case *c = &cases[case_count];
    c->reference = -1, c->threads = c->steps = 1;
    measurements[case_count].run = run, measurements[case_count++].context = c;
    return c;
}

static void run_peak(void *context) {
    enum { ROUNDS = 1000 };
    bench_case *c = (bench_case *)context;
    sink = c->machine->multiply_add(ROUNDS);
    c->flops = 2.0 * SUMS * c->machine->lanes * ROUNDS;
}

/* Once more among the cases: what the core sustains between them, at the frequency to which such work lowers it. */
static void add_peak(machine *m) {
    m->turns = case_count;
    bench_case *c = add_case(run_peak);
    snprintf(c->name, sizeof c->name, "peak in_turns=1 isa=%s", m->isa);
    c->machine = m;
}

static void check(double error, double limit, const char *name) {
    if (error <= limit) return;
    fprintf(stderr, "bench: %s: wrong by %g\n", name, error);
    exit(1);
}

/* The gradient along itself, against the difference of two losses; and all that is checked against this net with it. */
static void check_gradient(const task *t, const rp_data *data) {
    rp_net *net = task_net(t, RP_ISA_PORTABLE, 1);
    rp_real *w = rp_parameters(net);
    rp_score after, before;
    double square = 0, step;
    task_good(rp_backward(net, data, NULL, NULL), net);
    const rp_real *g = rp_gradient(net);
    for (size_t i = 0; i < rp_parameter_count(net); i++) square += (double)g[i] * (double)g[i];
    step = 0.01 / sqrt(square);
    for (size_t i = 0; i < rp_parameter_count(net); i++) w[i] += (rp_real)step * g[i];
    task_good(rp_evaluate(net, data, &after, NULL), net);
    for (size_t i = 0; i < rp_parameter_count(net); i++) w[i] -= (rp_real)(2 * step) * g[i];
    task_good(rp_evaluate(net, data, &before, NULL), net);
    check(fabs((double)(after.loss - before.loss) / (2 * step * square) - 1), 0.02, t->name);
    rp_net_free(net);
}

/* A step's parameters against those of the portable kernels, relative to what the step has changed. */
static void check_step(const bench_case *c, const task *t, int method) {
    rp_optimizer optimizer = methods[method].make(methods[method].rate);
    rp_net *reference = task_net(t, RP_ISA_PORTABLE, 1);
    size_t count = rp_parameter_count(reference);
    rp_real *before = (rp_real *)task_must(malloc(count * sizeof *before));
    double change = 0, error = 0;
    memcpy(before, rp_parameters(reference), count * sizeof *before);
    task_good(rp_train(reference, &optimizer, &c->data, NULL), reference);
    task_good(rp_train(c->net, &optimizer, &c->data, NULL), c->net);
    for (size_t i = 0; i < count; i++) {
        double want = (double)rp_parameters(reference)[i], got = (double)rp_parameters(c->net)[i];
        change += (want - (double)before[i]) * (want - (double)before[i]), error += (got - want) * (got - want);
    }
    check(sqrt(error / change), 0.01, c->name);
    memcpy(rp_parameters(c->net), before, count * sizeof *before);
    rp_net_free(reference);
    free(before);
}

static void run_step(void *context) {
    bench_case *c = (bench_case *)context;
    for (int i = 0; i < c->steps; i++)
        if (rp_train(c->net, &c->optimizer, &c->data, NULL)) exit(1);
}

static void add_steps(const task *t, const rp_data *data, machine *m, int threads) {
    int sgd = case_count;
    for (int i = 0; i < METHODS; i++) {
        bench_case *c = add_case(run_step);
        snprintf(c->name, sizeof c->name, "step task=%s optimizer=%s isa=%s threads=%d batch=%d", t->name,
                 methods[i].name, m->isa, threads, t->batch);
        c->flops = task_flops(t, methods[i].first_products, methods[i].products);
        c->machine = m, c->threads = threads;
        c->reference = sgd, c->ratio_name = "vs_sgd", c->steps = methods[i].period;
        c->net = task_net(t, m->kind, threads), c->data = *data;
        check_step(c, t, i);
        c->optimizer = methods[i].make((rp_real)1e-9); /* which leaves the net what it is; the default finds its own */
    }
}

static void add_products(const task *t, const rp_data *data, machine *m) {
    rp_net *net = task_net(t, m->kind, 1);
    rp_optimizer optimizer = rp_algorithm_1((rp_real)1e-9);
    task_good(rp_train(net, &optimizer, data, NULL), net);
    for (int i = 0; i < net->step_count; i++) {
        const rpi_step *step = &net->steps[i];
        if (i > 1 && step->inputs == step[-1].inputs && step->outputs == step[-1].outputs) continue;
        for (int kind = 0; kind < 2 * PRODUCTS; kind++) {
            product_kind product = (product_kind)(kind % PRODUCTS);
            int twin = kind / PRODUCTS;
            if (i == 0 && (product == TRANSPOSED || (twin && product == FORWARD))) continue; /* no step needs it */
            bench_case *c = add_case(product_run);
            snprintf(c->name, sizeof c->name, "gemm task=%s layer=%d product=%s outputs=%d inputs=%d batch=%d isa=%s",
                     t->name, i + 1, product_names[twin][product], step->outputs, step->inputs, t->batch, m->isa);
            c->flops = 2.0 * step->outputs * step->inputs * t->batch * (1 + twin), c->machine = m;
            c->product = product_new(net, i, product, twin);
            measurements[case_count - 1].context = &c->product;
            product_run(&c->product);
            check(product_error(&c->product), 1e-5, c->name);
        }
    }
}

static void run_predict(void *context) {
    bench_case *c = (bench_case *)context;
    if (rp_predict(c->net, c->data.inputs, c->data.count, c->output)) exit(1);
}
static void run_read(void *context) {
    bench_case *c = (bench_case *)context;
    sink = c->machine->read(rp_parameters(c->net), rp_parameter_count(c->net));
}

/* Against the forward half of a training step. */
static void check_predict(const bench_case *c) {
    double error = 0, size = 0;
    task_good(rp_forward(c->net, c->data.inputs, c->data.count), c->net);
    const rp_real *want = rp_output(c->net);
    run_predict((void *)c);
    for (int i = 0; i < c->data.count * c->net->outputs; i++) {
        error = fmax(error, fabs((double)(c->output[i] - want[i])));
        size = fmax(size, fabs((double)want[i]));
    }
    check(error / size, 1e-4, c->name);
}

static void add_predictions(const task *t, const rp_data *data, machine *m) {
    int reading = case_count;
    bench_case *reader = add_case(run_read);
    snprintf(reader->name, sizeof reader->name, "read task=%s isa=%s", t->name, m->isa);
    reader->machine = m, reader->net = task_net(t, m->kind, 1);
    for (int i = 0; i < 3; i++) {
        static const int batches[] = {1, 8, 100};
        task resized = *t;
        int batch = resized.batch = batches[i];
        bench_case *c = add_case(run_predict);
        snprintf(c->name, sizeof c->name, "predict task=%s isa=%s batch=%d", t->name, m->isa, batch);
        c->flops = task_flops(&resized, 1, 1), c->machine = m;
        c->reference = reading, c->ratio_name = "vs_read";
        c->net = task_net(&resized, m->kind, 1);
        c->l2 = l2_byte * (double)(rp_parameter_count(c->net) * sizeof(rp_real));
        c->data = batch > data->count ? task_data(&resized) : *data;
        c->data.count = batch;
        c->output = (rp_real *)task_must(malloc((size_t)(batch * c->net->outputs) * sizeof *c->output));
        check_predict(c);
    }
}

static void update_peaks(void) {
    for (int i = 0; i < case_count; i++)
        if (measurements[i].run == run_peak) {
            machine *m = cases[i].machine;
            m->peak = fmax(m->peak, cases[i].flops / measure_least(&measurements[i]));
        }
}

/* How far medians are from the best runs, in all but a tenth of the cases: how much other programs disturb. */
static void print_noise(void) {
    double ratios[MOST_CASES];
    for (int i = 0; i < case_count; i++) ratios[i] = measure_median(&measurements[i]) / measure_least(&measurements[i]);
    qsort(ratios, (size_t)case_count, sizeof *ratios, by_value);
    printf("noise median_over_least=%.3f rounds=%d\n", ratios[case_count * 9 / 10], measurements[0].rounds);
}

static void print_case(int index) {
    const bench_case *c = &cases[index];
    const measurement *m = &measurements[index];
    double time = measure_median(m) / c->steps;
    printf("%s us=%.2f us_least=%.2f", c->name, 1e6 * time, 1e6 * measure_least(m) / c->steps);
    if (c->flops > 0) {
        double speed = c->flops / time;
        double sustained =
            c->steps * c->flops / cases[c->machine->turns].flops * measure_ratio(&measurements[c->machine->turns], m);
        printf(" gflops=%.1f peak_percent=%.1f", speed / 1e9, 100 * speed / (c->threads * c->machine->peak));
        printf(" sustained_percent=%.1f", 100 * sustained / c->threads);
    }
    if (c->reference >= 0) printf(" %s=%.3f", c->ratio_name, measure_ratio(m, &measurements[c->reference]) / c->steps);
    if (c->l2 > 0) printf(" vs_l2=%.3f", time / c->l2);
    printf("\n");
}

typedef struct options {
    const char *task, *isa; /* NULL: all */
    int threads;            /* 0: one and two */
    double seconds;
} options;

static int wanted(const char *name, const char *only) { return !only || !strcmp(name, only); }

static void add_task(const task *t, const options *o, int machine_count) {
    rp_data data = task_data(t);
    machine *best = NULL;
    check_gradient(t, &data);
    for (int i = 0; i < machine_count; i++) {
        if (!wanted(machines[i].isa, o->isa)) continue;
        best = &machines[i];
        for (int threads = 1; threads <= 2; threads++) /* two of them on the best set only, unless asked for */
            if (threads == 1 || (!o->threads && (o->isa || i == machine_count - 1)))
                add_steps(t, &data, best, o->threads ? o->threads : threads);
    }
    if (!best) return;
    task one = *t; /* as programs that learn from a stream take them */
    rp_data sample = data;
    one.batch = sample.count = 1;
    add_steps(&one, &sample, best, 1);
    if (!t->front) add_products(t, &data, best);
    add_predictions(t, &data, best);
}

static int usage(const char *wrong) {
    FILE *to = wrong ? stderr : stdout;
    if (wrong) fprintf(to, "bench: %s is not an option, or has no good value\n", wrong);
    fprintf(to, "usage: bench [option]...\n"
                "  --task NAME     only ae, clf, deep, wide, conv or rnn\n"
                "  --isa NAME      only portable, avx2, avx512 or neon\n"
                "  --threads N     only so many threads (default: 1, and on the best instruction set 2)\n"
                "  --seconds N     how long to take turns (40)\n"
                "  --quick         as few turns as possible\n"
                "us is the median, and what the other numbers are made of; vs_sgd is against SGD with the same\n"
                "threads, vs_read against the time that reading the net's weights takes, vs_l2 if all were in L2.\n"
                "peak_percent is of the highest peak seen, times the threads; sustained_percent of the same\n"
                "multiply-adds between the cases, in runs as long as theirs.\n");
    return wrong ? 2 : 0;
}

static int read_option(const char *name, const char *value, options *o) {
    if (!strcmp(name, "--task")) return o->task = value, 1;
    if (!strcmp(name, "--isa")) return o->isa = value, 1;
    if (!strcmp(name, "--threads")) return (o->threads = atoi(value)) > 0;
    if (!strcmp(name, "--seconds")) return (o->seconds = atof(value)) > 0;
    return 0;
}

int main(int argc, char **argv) {
    options o = {NULL, NULL, 0, 40};
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help")) return usage(NULL);
        if (!strcmp(argv[i], "--quick")) o.seconds = 0;
        else if (i + 1 == argc || !read_option(argv[i], argv[i + 1], &o)) return usage(argv[i]);
        else i++;
    }
    double moment = o.seconds > 0 ? 0.5 : 0.05;
    int machine_count = find_machines(moment);
    l2_byte = read_caches(&machines[machine_count - 1], moment);
    fflush(stdout);
    for (int i = 0; i < machine_count; i++) add_peak(&machines[i]);
    for (int i = 0; i < TASKS; i++)
        if (wanted(tasks[i].name, o.task)) add_task(&tasks[i], &o, machine_count);
    if (case_count == machine_count) return usage("--task or --isa");
    measure(measurements, case_count, o.seconds, 2e-3);
    update_peaks();
    for (int i = 0; i < case_count; i++) print_case(i);
    print_noise();
    return 0;
}
