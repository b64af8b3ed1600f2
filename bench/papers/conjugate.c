/* The experiments that Training Deep Nets Using Conjugate Deep Nets suggests; the text itself has none.

       cc -O2 bench/papers/conjugate.c -lm -o conjugate && ./conjugate results.csv

   Solving: the time of the direct method, which eliminates the parameters as the text does, by depth, which should be a
   straight line, and by the number of parameters, which should not matter.

   Training: w -= (H + epsilon I)^-1 g with the exact Hessian H, as the text proposes it, for several epsilon, against
   rp_newton(), which solves with the Gauss-Newton matrix, adapts its damping and takes no step that raises the loss. Two
   spirals, all samples in each step; and drawn digits in batches, "the stochastic Hessian". A step is uphill where H +
   epsilon I is indefinite enough that (H + epsilon I)^-1 g has an angle of more than 90 degrees with g.

   The CSV file has a line for each time (x: layers or parameters, y: seconds of CPU) and each step (x: step, y: loss).
   --quick: fewer sizes, steps and seeds. The full run takes some 6 minutes. */
#define RP_IMPLEMENTATION
#include "../../rp.h"
#include "../median.h"
#include "sets.h"
#include <math.h>
#include <time.h>

enum { WIDTH = 24, SOLVED = 16, ROUNDS = 7, SIZES = 5, MOST_SEEDS = 5, EPSILONS = 5 };
static int rounds = ROUNDS, sizes = SIZES, seeds = MOST_SEEDS;
static FILE *file;

static void check(rp_status status, const rp_net *net) {
    if (!status) return;
    fprintf(stderr, "conjugate: %s\n", rp_error(net));
    exit(1);
}
static double seconds(void) { return (double)clock() / CLOCKS_PER_SEC; }

/* Solving. */

static rp_net *make_stack(int inputs, int depth) {
    rp_net *net = (rp_net *)must(rp_net_new(rp_vector(inputs), NULL));
    for (int layer = 0; layer < depth; layer++) {
        if (layer) rp_activation(net, RP_TANH);
        rp_dense(net, WIDTH);
    }
    rp_loss(net, RP_SOFTMAX_CROSS_ENTROPY);
    check(rp_net_build(net, SOLVED, 1), net);
    return net;
}

/* Of one solve, to a tolerance that no size needs refinements for. */
static double solve_time(rp_net *net, int gauss_newton) {
    int inputs = rp_inputs(net), labels[SOLVED];
    size_t count = (size_t)SOLVED * (size_t)inputs;
    rp_real *x = (rp_real *)must(malloc(count * sizeof *x));
    uint64_t random = 1;
    rp_solve_options options;
    memset(&options, 0, sizeof options);
    options.method = RP_SOLVE_DIRECT;
    options.gauss_newton = gauss_newton;
    options.damping = (rp_real)0.1;
    options.tolerance = (rp_real)0.01;
    for (size_t i = 0; i < count; i++) x[i] = (rp_real)random_uniform(&random, -1, 1);
    for (int i = 0; i < SOLVED; i++) labels[i] = random_below(&random, WIDTH);
    rp_data batch = rp_labelled(x, labels, SOLVED);
    check(rp_backward(net, &batch, NULL, NULL), net);
    double start = seconds();
    check(rp_hessian_solve(net, &batch, rp_gradient(net), rp_step_array(net), &options, NULL), net);
    free(x);
    return seconds() - start;
}

/* The sizes take turns. */
static void measure(const char *experiment, const int inputs[SIZES], const int depths[SIZES], int gauss_newton) {
    static const char *const matrices[] = {"Hessian", "Gauss-Newton"};
    double times[SIZES][ROUNDS], first = 0;
    rp_net *nets[SIZES];
    for (int i = 0; i < sizes; i++) nets[i] = make_stack(inputs[i], depths[i]);
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < sizes; i++) times[i][round] = solve_time(nets[i], gauss_newton);
    for (int i = 0; i < sizes; i++) {
        int parameters = (int)rp_parameter_count(nets[i]), x = depths[0] == depths[1] ? parameters : depths[i];
        double time = median(times[i], rounds);
        if (!i) first = time / (depths[0] == depths[1] ? 1 : depths[0]);
        printf("| %s | %d | %d | %.2f | %.2f |\n", matrices[gauss_newton], depths[i], parameters, 1e3 * time,
               time / first / (depths[0] == depths[1] ? 1 : depths[i]));
        fprintf(file, "%s,%s,0,%d,%.6g\n", experiment, matrices[gauss_newton], x, time);
        rp_net_free(nets[i]);
    }
}

static void measure_solves(void) {
    static const int narrow[SIZES] = {WIDTH, WIDTH, WIDTH, WIDTH, WIDTH}, depths[SIZES] = {4, 8, 16, 32, 64};
    static const int inputs[SIZES] = {24, 100, 1000, 3000, 10000}, shallow[SIZES] = {4, 4, 4, 4, 4};
    printf("Direct solves of (H + 0.1 I) x = g, layers of %d units, tanh, softmax, batch %d; medians of %d\n\n", WIDTH,
           SOLVED, rounds);
    printf("| matrix | layers | parameters | ms | by layer (above) or in all (below), in times of the first |\n"
           "| --- | --- | --- | --- | --- |\n");
    for (int gauss_newton = 0; gauss_newton < 2; gauss_newton++) measure("depth", narrow, depths, gauss_newton);
    for (int gauss_newton = 0; gauss_newton < 2; gauss_newton++) measure("parameters", inputs, shallow, gauss_newton);
    fflush(stdout);
}

/* Training. */

typedef struct problem {
    const char *name, *text;
    int samples, batch, steps, quick_steps;
    rp_solve_method method; /* the faster one; both are exact */
} problem;
static const problem problems[] = {
    {"spirals", "input vector 2; dense 16; tanh; dense 16; tanh; dense 2; loss softmax_cross_entropy", 200, 200, 200,
     30, RP_SOLVE_DENSE},
    {"digits", "input vector 784; dense 16; tanh; dense 16; tanh; dense 10; loss softmax_cross_entropy", 2000, 20, 150,
     12, RP_SOLVE_DIRECT},
};

static void draw_spirals(rp_real *x, int *labels, int count) {
    uint64_t random = 1;
    for (int i = 0; i < count; i++) {
        double radius = (double)random_uniform(&random, 0, 1), angle = 7 * radius + 3.14159265358979 * (i % 2);
        x[2 * i] = (rp_real)(radius * cos(angle));
        x[2 * i + 1] = (rp_real)(radius * sin(angle));
        labels[i] = i % 2;
    }
}

/* What came of a run: the loss of all samples in the end, HUGE_VAL if it left the range; shares of steps. */
typedef struct outcome {
    double loss, uphill, raised;
} outcome;

/* One step of the text. Returns 1 if it goes uphill, -1 if there is no finite one. */
static int take_step(rp_net *net, const rp_data *batch, rp_solve_method method, double epsilon) {
    rp_solve_options options;
    rp_real *g = rp_gradient(net), *p = rp_step_array(net), *w = rp_parameters(net);
    double slope = 0;
    memset(&options, 0, sizeof options);
    options.method = method;
    options.damping = (rp_real)epsilon;
    if (rp_backward(net, batch, NULL, NULL)) return -1;
    rp_status status = rp_hessian_solve(net, batch, g, p, &options, NULL);
    if (status && status != RP_ERR_NOT_CONVERGED) return -1; /* that has the best that there is */
    for (size_t i = 0; i < rp_parameter_count(net); i++) {
        slope -= (double)g[i] * (double)p[i];
        w[i] -= p[i];
    }
    return slope > 0;
}

/* epsilon 0: rp_newton(). */
static outcome train(const problem *p, const rp_data *data, double epsilon, uint64_t seed, int steps) {
    rp_net *net = (rp_net *)must(rp_net_text(p->text, NULL));
    rp_optimizer newton = rp_newton();
    outcome o = {0, 0, 0};
    int uphill = 0;
    check(rp_net_build(net, p->batch, seed), net);
    for (int t = 0; t < steps && uphill >= 0; t++) {
        int first = t * p->batch % p->samples;
        rp_data batch = rp_labelled(data->inputs + (ptrdiff_t)first * rp_inputs(net), data->labels + first, p->batch);
        rp_score before, after;
        check(rp_evaluate(net, &batch, &before, NULL), net);
        if (epsilon > 0) uphill = take_step(net, &batch, p->method, epsilon);
        else check(rp_train(net, &newton, &batch, NULL), net);
        if (rp_evaluate(net, &batch, &after, NULL)) uphill = -1;
        o.uphill += (uphill == 1) / (double)steps;
        o.raised += (uphill < 0 || after.loss > before.loss) / (double)steps;
        if (epsilon > 0)
            fprintf(file, "%s,epsilon %g,%d,%d,%.6g\n", p->name, epsilon, (int)seed, t, (double)before.loss);
        else fprintf(file, "%s,rp_newton(),%d,%d,%.6g\n", p->name, (int)seed, t, (double)before.loss);
    }
    rp_score all;
    o.loss = uphill < 0 || rp_evaluate(net, data, &all, NULL) ? HUGE_VAL : (double)all.loss;
    rp_net_free(net);
    return o;
}

static void load_problem(const problem *p, set *s) {
    load_set(s, "drawn", p->samples);
    if (!strcmp(p->name, "digits")) return;
    free_set(s);
    memset(s, 0, sizeof *s);
    s->size = 2;
    make_room(s, 0, p->samples);
    draw_spirals(s->images[0], s->labels[0], p->samples);
}

static void compare(const problem *p, int quick) {
    static const double epsilons[EPSILONS + 1] = {1e-3, 1e-2, 0.1, 1, 10, 0};
    int steps = quick ? p->quick_steps : p->steps;
    set s;
    load_problem(p, &s);
    rp_data data = set_data(&s, 0, 1, p->samples);
    for (int e = quick; e <= EPSILONS; e += 1 + quick) {
        double loss[MOST_SEEDS], uphill[MOST_SEEDS], raised[MOST_SEEDS], start = seconds();
        for (int i = 0; i < seeds; i++) {
            outcome o = train(p, &data, epsilons[e], (uint64_t)i + 1, steps);
            loss[i] = o.loss;
            uphill[i] = 100 * o.uphill;
            raised[i] = 100 * o.raised;
        }
        double time = 1e3 * (seconds() - start) / seeds / steps, middle = median(loss, seeds);
        printf("| %s | %d | ", p->name, steps);
        if (epsilons[e] > 0) printf("epsilon %g", epsilons[e]);
        else printf("`rp_newton()`");
        printf(" | %.3g (%.3g to %.3g) | %.0f%% | %.0f%% | %.1f |\n", middle, loss[0], loss[seeds - 1],
               median(uphill, seeds), median(raised, seeds), time);
        fflush(stdout);
    }
    free_set(&s);
}

int main(int argc, char **argv) {
    int quick = argc > 1 && !strcmp(argv[1], "--quick");
    file = argc == 2 + quick ? fopen(argv[1 + quick], "w") : NULL;
    if (!file) return fprintf(stderr, "usage: conjugate [--quick] FILE.csv, which can be written\n"), 2;
    if (quick) {
        rounds = 2;
        sizes = 2;
        seeds = 1;
    }
    fprintf(file, "experiment,method,seed,x,y\n");
    measure_solves();
    printf("\nTraining by (H + epsilon I)^-1 g; loss of all samples in the end: median and range of %d seeds\n\n",
           seeds);
    printf("| task | steps | method | loss | uphill | raised the loss | ms a step |\n");
    printf("| --- | --- | --- | --- | --- | --- | --- |\n");
    for (size_t i = 0; i < sizeof problems / sizeof *problems; i++) compare(&problems[i], quick);
    fclose(file);
    return 0;
}
