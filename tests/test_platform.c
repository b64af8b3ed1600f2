/* On what results may not depend: the number of threads, the process after a fork, the floating-point mode in which
   helpers began, whether operations trap. All functions run on random nets of all kinds of layers; what they compute is
   one checksum. With the argument `quick` on fewer, with `all` on all. */
#define _GNU_SOURCE /* feenableexcept */
#include "../rp.h"
#include "test.h"
#include <fenv.h>
#if defined(__unix__) || defined(__APPLE__)
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#define HAVE_FORK
#endif
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#undef HAVE_FORK /* it allows no threads in a child process */
#endif
#endif
#if defined(__x86_64__) && defined(__GNUC__)
#include <xmmintrin.h>
#endif

/* clang computes ahead what may trap, and so does gcc for the x87 */
#if defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && !defined(__FAST_MATH__) && \
    (!defined(__i386__) || defined(__SSE2_MATH__))
#include <setjmp.h>
#define HAVE_TRAPS
#endif

static int quick; /* a few nets and one process, for emulators and compilers that do not optimise */
static int all;   /* every net with every loss, where otherwise each net meets some and each loss some */
static uint64_t next_seed(uint64_t seed) { return seed + (quick ? 9 : all ? 1 : 3); }

enum { BATCH = 23, LOSSES = RP_POISSON + 1 };
enum { DENSE, WIDE, CONVOLUTIONS, SEQUENCE, RECURSIVE, RESIDUAL, NO_PARAMETERS, POOLS, NETS };
static const char *const net_names[NETS] = {"dense",     "wide",     "convolutions",  "sequence",
                                            "recursive", "residual", "no parameters", "pools"};

typedef struct problem {
    uint64_t seed;
    int threads, kind, inputs, outputs;
    rp_loss_kind loss;
    rp_activation_kind activation;
    rp_net *net;
    rp_data data;
    rp_real *x, *targets, *vector, *out;
    rp_real weights[BATCH];
    int labels[BATCH];
    const char *doing;
    uint64_t sum; /* of all numbers so far */
} problem;

static const char *text(const problem *p) {
    static char buffer[300];
    snprintf(buffer, sizeof buffer, "problem %d (%s, activation %d, loss %d) on %d threads: %s", (int)p->seed,
             net_names[p->kind], (int)p->activation, (int)p->loss, p->threads, p->doing);
    return buffer;
}
static void add_bytes(problem *p, const void *bytes, size_t size) { /* FNV-1a */
    const unsigned char *byte = (const unsigned char *)bytes;
    for (size_t i = 0; i < size; i++) p->sum = (p->sum ^ byte[i]) * UINT64_C(0x100000001B3);
}
static void add_reals(problem *p, const rp_real *x, size_t count) { add_bytes(p, x, count * sizeof *x); }
static rp_real *new_reals(int count) {
    rp_real *x = (rp_real *)calloc((size_t)count + 1, sizeof *x);
    if (!x) exit(2);
    return x;
}

/* Whether it worked; if not, the reason must be one that a net without mistakes may meet. */
static int worked(problem *p, const char *doing, rp_status status) {
    p->doing = doing;
    CHECK(status == RP_OK || status == RP_ERR_UNSUPPORTED || status == RP_ERR_NOT_CONVERGED, "%s: %s", text(p),
          rp_error(p->net));
    add_bytes(p, &status, sizeof status);
    return status == RP_OK;
}

static rp_shape input_of(int kind) {
    switch (kind) {
    case CONVOLUTIONS:
    case POOLS: return rp_image(2, 6, 5);
    case SEQUENCE: return rp_sequence(4, 3);
    case WIDE: return rp_vector(70);
    default: return rp_vector(7);
    }
}
static void add_layers(problem *p, int units) {
    rp_net *net = p->net;
    rp_recurrent_desc recurrent = {units, p->activation, 1};
    rp_conv2d_desc conv = {2, 3, 2, 1, 1, 1, 0, 2};
    switch (p->kind) {
    case DENSE:
        rp_dense(net, units);
        rp_activation(net, p->activation);
        rp_dense(net, 20);
        rp_activation(net, RP_TANH);
        break;
    case CONVOLUTIONS:
        rp_conv2d(net, 2, 3, 1, 1);
        rp_activation(net, p->activation);
        rp_max_pool2d(net, 2, 1);
        rp_conv2d_with(net, &conv);
        rp_avg_pool2d(net, 2, 2);
        break;
    case SEQUENCE:
        rp_recurrent_with(net, &recurrent);
        rp_recurrent(net, 5, p->activation);
        break;
    case RECURSIVE:
        rp_dense(net, units);
        rp_recursive(net, 3, p->activation);
        break;
    case RESIDUAL:
        rp_dense(net, 7);
        rp_activation(net, p->activation);
        rp_add(net, RP_INPUT);
        break;
    case POOLS:
        rp_max_pool2d(net, 2, 2);
        rp_activation(net, p->activation);
        rp_global_avg_pool2d(net);
        break;
    case WIDE:
        rp_dense(net, 40);
        rp_activation(net, p->activation);
        break;
    default: rp_activation(net, p->activation);
    }
    if (p->kind != NO_PARAMETERS && p->kind != POOLS) rp_dense(net, units % 4 + 1);
}

static void draw_batch(problem *p, test_random *random) {
    int softmax = p->loss == RP_SOFTMAX_CROSS_ENTROPY;
    for (int i = 0; i < p->inputs * BATCH; i++) p->x[i] = chance(random, 0.1) ? 0 : (rp_real)test_normal(random);
    for (int i = 0; i < p->outputs * BATCH; i++)
        p->targets[i] = chance(random, 0.1) ? 0 : (rp_real)test_uniform(random, 0, 1);
    for (int s = 0; s < BATCH; s++) {
        p->labels[s] = test_int(random, 0, p->outputs - 1);
        p->weights[s] = chance(random, 0.1) ? 0 : (rp_real)test_uniform(random, 0.1, 2);
    }
    p->data.inputs = p->x;
    if (softmax && chance(random, 0.5)) p->data.labels = p->labels;
    else p->data.targets = p->targets;
    if (chance(random, 0.5)) p->data.weights = p->weights;
    p->data.count = test_int(random, 2, BATCH);
}

static void problem_new(problem *p, uint64_t seed, int threads) {
    test_random random = {seed};
    rp_config config;
    rp_layer last;
    size_t parameters;
    memset(p, 0, sizeof *p);
    memset(&config, 0, sizeof config);
    p->seed = seed;
    p->threads = config.threads = threads;
    p->kind = (int)(seed % NETS);
    p->loss = (rp_loss_kind)(seed / NETS % LOSSES);
    p->activation = (rp_activation_kind)test_int(&random, RP_IDENTITY, RP_SILU);
    p->net = rp_net_new(input_of(p->kind), &config);
    add_layers(p, test_int(&random, 1, 20));
    rp_loss(p->net, p->loss);
    if (!worked(p, "build", rp_net_build(p->net, BATCH, seed))) exit(test_end());
    rp_layer_info(p->net, 0, &last);
    p->inputs = last.in.steps * last.in.channels * last.in.height * last.in.width;
    rp_layer_info(p->net, rp_layer_count(p->net) - 1, &last);
    p->outputs = last.out.steps * last.out.channels * last.out.height * last.out.width;
    parameters = rp_parameter_count(p->net);
    p->x = new_reals(p->inputs * BATCH);
    p->targets = new_reals(p->outputs * BATCH);
    p->vector = new_reals((int)parameters);
    p->out = new_reals((int)parameters + p->outputs * BATCH);
    draw_batch(p, &random);
    for (size_t i = 0; i < parameters; i++) p->vector[i] = (rp_real)test_normal(&random);
}
static void problem_free(problem *p) {
    rp_net_free(p->net);
    free(p->x);
    free(p->targets);
    free(p->vector);
    free(p->out);
}

/* Everything that a net can do; each adds what it computed to the sum. */
enum { OPTIMIZERS = 16 };
static rp_optimizer optimizer_of(int which) {
    rp_optimizer o = rp_partitioning();
    switch (which) {
    case 0: break;
    case 1: o = rp_algorithm_1(1); break;
    case 2: o.rule.kind = RP_PATHS; break;
    case 3: o.rule.kind = RP_JACOBIAN; break;
    case 4: o = rp_sgd((rp_real)0.1); break;
    case 5:
    case 6:
        o = rp_sgd((rp_real)0.1);
        o.momentum = (rp_real)0.9;
        o.nesterov = which == 6;
        break;
    case 7: o = rp_adam((rp_real)0.02); break;
    case 8: o = rp_adagrad((rp_real)0.1); break;
    case 9: o = rp_adadelta(1); break;
    case 10:
    case 11:
        o = rp_sgd((rp_real)0.1);
        o.cubic_sigma = 1;
        o.cubic_adaptive = which == 11;
        break;
    case 12:
    case 13:
        o = rp_newton();
        o.full_hessian = which == 13;
        break;
    default:
        o = rp_per_variable(100);
        if (which == 15) o.rate = (rp_real)0.5;
    }
    if (which % 3 == 2) o.weight_decay = (rp_real)0.01;
    return o;
}
static void train(problem *p, int which, int steps) {
    static const char *const names[OPTIMIZERS] = {"partitioning", "Algorithm 1", "paths",        "Jacobian",
                                                  "SGD",          "momentum",    "Nesterov",     "Adam",
                                                  "Adagrad",      "Adadelta",    "cubic",        "adaptive cubic",
                                                  "Gauss-Newton", "Newton",      "per variable", "per variable, slow"};
    rp_optimizer o = optimizer_of(which);
    p->doing = names[which];
    for (int step = 0; step < steps; step++) {
        rp_real loss = 0;
        if (!worked(p, names[which], rp_train(p->net, &o, &p->data, &loss))) break;
        add_reals(p, &loss, 1);
    }
    add_reals(p, rp_parameters(p->net), rp_parameter_count(p->net));
}

static void fit(problem *p) {
    rp_optimizer o = rp_adam((rp_real)0.01);
    rp_fit_options options;
    rp_fit_report report;
    rp_score score;
    memset(&options, 0, sizeof options);
    options.epochs = 2;
    options.batch = 5;
    options.validation = &p->data;
    options.keep_best = 1;
    p->doing = "fit";
    if (worked(p, "fit", rp_fit(p->net, &o, &p->data, &options, &report))) add_reals(p, &report.loss, 1);
    if (worked(p, "evaluate", rp_evaluate(p->net, &p->data, &score, NULL))) add_reals(p, &score.loss, 1);
    if (worked(p, "predict", rp_predict(p->net, p->x, p->data.count, p->out)))
        add_reals(p, p->out, (size_t)(p->data.count * p->outputs));
}

static int take_factors(void *user, const rp_sample_factors *factors) {
    (void)user;
    return factors->sample < 0;
}
static void backward(problem *p) {
    size_t count = rp_parameter_count(p->net);
    static const rp_rule_kind kinds[] = {RP_PATHS, RP_JACOBIAN, RP_SAMPLED};
    for (int i = 0; i < 3; i++) {
        rp_rule rule;
        rule.kind = kinds[i];
        rule.scale = RP_SCALE_ONE;
        rule.bound = p->seed & 1 ? RP_BOUND_TIGHT : RP_BOUND_JENSEN;
        p->doing = "backward";
        if (!worked(p, "backward", rp_backward(p->net, &p->data, &rule, NULL))) continue;
        add_reals(p, rp_gradient(p->net), count);
        add_reals(p, rp_curvature(p->net), count);
    }
    p->doing = "forward";
    if (!worked(p, "forward", rp_forward(p->net, p->x, p->data.count))) return;
    p->doing = "backward from";
    if (!worked(p, "backward from", rp_backward_from(p->net, p->targets, p->targets, NULL))) return;
    add_reals(p, rp_gradient(p->net), count);
}

static void curvature(problem *p) {
    size_t count = rp_parameter_count(p->net);
    rp_noise noise;
    rp_real first, second, *square = new_reals((int)(count * count));
    p->doing = "directional";
    if (worked(p, p->doing, rp_directional(p->net, &p->data, p->vector, &first, &second))) {
        add_reals(p, &first, 1);
        add_reals(p, &second, 1);
    }
    p->doing = "Hessian times vector";
    if (worked(p, p->doing, rp_hessian_vector(p->net, &p->data, p->vector, p->out))) add_reals(p, p->out, count);
    p->doing = "Gauss-Newton matrix times vector";
    if (worked(p, p->doing, rp_gauss_newton_vector(p->net, &p->data, p->vector, p->out))) add_reals(p, p->out, count);
    p->doing = "Hessian";
    if (count < 200 && worked(p, p->doing, rp_hessian_matrix(p->net, &p->data, count, square)))
        add_reals(p, square, count * count);
    free(square);
    p->doing = "Hessian's diagonal";
    if (worked(p, p->doing, rp_hessian_diagonal(p->net, &p->data, p->out))) add_reals(p, p->out, count);
    p->doing = "Gauss-Newton matrix's diagonal";
    if (worked(p, p->doing, rp_gauss_newton_diagonal(p->net, &p->data, p->out))) add_reals(p, p->out, count);
    p->doing = "norms of samples";
    if (worked(p, p->doing, rp_sample_gradient_norms(p->net, &p->data, p->out)))
        add_reals(p, p->out, (size_t)p->data.count);
    p->doing = "gradients of samples";
    worked(p, p->doing, rp_sample_gradients(p->net, &p->data, take_factors, NULL));
    p->doing = "noise";
    if (worked(p, p->doing, rp_gradient_noise(p->net, &p->data, &noise, p->out))) {
        add_reals(p, p->out, count);
        add_reals(p, &noise.scale, 1);
    }
}

static void solve(problem *p) {
    static const char *const names[] = {"solve", "solve by MINRES", "solve directly", "solve with a matrix"};
    for (int method = RP_SOLVE_AUTO; method <= RP_SOLVE_DENSE; method++) {
        rp_solve_options options;
        memset(&options, 0, sizeof options);
        options.method = (rp_solve_method)method;
        options.gauss_newton = p->seed % 3 == 0;
        options.damping = 1;
        p->doing = names[method];
        if (rp_parameter_count(p->net) > 200) continue;
        worked(p, p->doing, rp_hessian_solve(p->net, &p->data, p->vector, p->out, &options, NULL));
        add_reals(p, p->out, rp_parameter_count(p->net));
    }
}

static void pieces(problem *p) {
    rp_optimizer o = rp_adam((rp_real)0.01);
    rp_workspace *workspace = rp_workspace_new(p->net, 3);
    p->doing = "a step in pieces";
    worked(p, p->doing, rp_prepare(p->net, &o));
    worked(p, p->doing, rp_backward(p->net, &p->data, NULL, NULL));
    worked(p, p->doing, rp_direction(p->net, &o));
    add_reals(p, rp_step_array(p->net), rp_parameter_count(p->net));
    worked(p, p->doing, rp_move(p->net, 1));
    worked(p, p->doing, rp_update(p->net, &o));
    worked(p, "prediction in a workspace", rp_predict_with(p->net, workspace, p->x, p->data.count, p->out));
    add_reals(p, p->out, (size_t)(p->data.count * p->outputs));
    rp_workspace_free(workspace);
}
/* Without a parameter that is trained. */
static void frozen(problem *p) {
    for (int layer = 0; layer < rp_layer_count(p->net); layer++) rp_freeze(p->net, layer, 1);
    train(p, 0, 1);
    train(p, 12, 1);
    backward(p);
    curvature(p);
    solve(p);
}

enum { JOBS = OPTIMIZERS + 6 };
static void run_job(problem *p, int job) {
    switch (job - OPTIMIZERS) {
    case 0: fit(p); break;
    case 1: backward(p); break;
    case 2: curvature(p); break;
    case 3: solve(p); break;
    case 4: pieces(p); break;
    case 5: frozen(p); break;
    default: train(p, job, p->kind == WIDE && job > 12 ? 1 : 3);
    }
}
static uint64_t run_jobs(problem *p) {
    for (int job = 0; job < JOBS; job++) run_job(p, job);
    return p->sum;
}

/* The same bits on any number of threads. */
static void threads(void) {
    for (uint64_t seed = 0; seed < NETS * LOSSES; seed = next_seed(seed)) {
        uint64_t expected = 0;
        for (int count = 1; count <= 3; count += seed % 2 ? 1 : 2) {
            problem p;
            problem_new(&p, seed, count);
            run_jobs(&p);
            if (count == 1) expected = p.sum;
            CHECK(p.sum == expected, "%s: not the bits of one thread", text(&p));
            problem_free(&p);
        }
    }
}

/* A child process has nets whose helpers stayed behind in its parent: it computes the same, and frees them. */
#ifdef HAVE_FORK
static int in_child(problem *p, uint64_t expected) {
    problem own;
    uint64_t sum = run_jobs(p);
    problem_free(p);
    problem_new(&own, p->seed, 2); /* with helpers of the child's */
    run_jobs(&own);
    problem_free(&own);
    return sum == expected && own.sum == expected;
}
static void processes(void) {
    for (uint64_t seed = 0; seed < NETS; seed++) {
        problem p;
        uint64_t expected;
        int status = 0;
        pid_t child;
        problem_new(&p, seed, 1);
        expected = run_jobs(&p);
        problem_free(&p);
        problem_new(&p, seed, 2);
        fflush(stdout);
        child = fork();
        if (child == 0) {
            alarm(60); /* rather than hang */
            _exit(in_child(&p, expected) ? 0 : 1);
        }
        if (!CHECK(child > 0, "no process")) break;
        run_jobs(&p); /* meanwhile */
        CHECK(p.sum == expected, "%s: not the bits of one thread", text(&p));
        waitpid(child, &status, 0);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: in a child process: %s %d", text(&p),
              WIFSIGNALED(status) ? "signal" : "status", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        problem_free(&p);
    }
}
#endif

/* The same bits on any number of threads also where the caller changed the floating-point mode after the build. */
enum { DOWN, UP, FLUSH, MODES };
static const char *const mode_names[MODES] = {"rounding down", "rounding up", "flush to zero"};
static int enter_mode(int mode) {
    if (mode == FLUSH) {
#if defined(__x86_64__) && defined(__GNUC__)
        _mm_setcsr(_mm_getcsr() | 0x8040); /* results, and what is read */
        return 1;
#elif defined(__aarch64__) && defined(__GNUC__)
        uint64_t control;
        __asm__ volatile("mrs %0, fpcr" : "=r"(control));
        __asm__ volatile("msr fpcr, %0" : : "r"(control | 1 << 24));
        return 1;
#endif
    }
#if defined(FE_DOWNWARD) && defined(FE_UPWARD)
    if (mode == DOWN) return fesetround(FE_DOWNWARD) == 0;
    if (mode == UP) return fesetround(FE_UPWARD) == 0;
#endif
    return 0;
}

/* What a net of so many threads computes in this mode, from values so small that many results are denormal. */
static uint64_t sum_in_mode(int mode, uint64_t seed, int count, int *entered) {
    fenv_t before;
    problem p;
    problem_new(&p, seed, count);
    for (size_t i = 0; i < rp_parameter_count(p.net); i++) {
        rp_parameters(p.net)[i] *= sizeof(rp_real) > 4 ? (rp_real)1e-160 : (rp_real)1e-20;
        p.vector[i] *= sizeof(rp_real) > 4 ? (rp_real)1e-160 : (rp_real)1e-20;
    }
    fegetenv(&before);
    *entered = enter_mode(mode);
    for (int job = OPTIMIZERS; job < OPTIMIZERS + 3; job++) run_job(&p, job);
    train(&p, 4, 2);
    fesetenv(&before);
    problem_free(&p);
    return p.sum;
}
static void modes(void) {
    for (uint64_t seed = 0; seed < NETS * LOSSES; seed = next_seed(seed)) {
        int entered, ignored, mode = (int)(seed / NETS % MODES);
        uint64_t one = sum_in_mode(mode, seed, 1, &entered), two = sum_in_mode(mode, seed, 2, &ignored);
        if (entered) CHECK(one == two, "problem %d, %s: not the bits of one thread", (int)seed, mode_names[mode]);
        else test_skipped++;
    }
}

/* Healthy steps survive where what is invalid, a division by zero or an overflow ends the program. */
#ifdef HAVE_TRAPS
static sigjmp_buf trapped;
static void on_trap(int number) {
    (void)number;
    siglongjmp(trapped, 1);
}
static void check_traps(problem *p, int job) {
    fenv_t before;
    volatile int survived = 0;
    fegetenv(&before);
    if (sigsetjmp(trapped, 1) == 0) {
        feclearexcept(FE_ALL_EXCEPT);
        if (feenableexcept(FE_INVALID | FE_DIVBYZERO | FE_OVERFLOW) != -1) run_job(p, job);
        survived = 1;
    }
    fesetenv(&before);
    CHECK(survived, "%s: an operation trapped", text(p));
}
static void traps(void) {
    struct sigaction action, before;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_trap;
    sigaction(SIGFPE, &action, &before);
    for (uint64_t seed = 0; seed < NETS * LOSSES; seed = next_seed(seed))
        for (int job = 0; job < JOBS; job++) {
            problem p;
            problem_new(&p, seed, 1);
            check_traps(&p, job);
            problem_free(&p);
        }
    sigaction(SIGFPE, &before, NULL);
}
#endif

#ifdef HAVE_FORK
/* The environment's word, where the program does not choose. */
static void environment(void) {
    static const char *const words[] = {"portable", "z80", ""};
    for (int i = 0; i < 3; i++) {
        char before[40] = "";
        const char *old = getenv("RP_ISA");
        if (old) snprintf(before, sizeof before, "%s", old);
        setenv("RP_ISA", words[i], 1);
        rp_net *net = rp_net_text("input vector 2; dense 2", NULL);
        rp_status status = rp_net_build(net, 1, 1);
        if (i == 0) CHECK(!status && !strcmp(rp_isa(net), "portable"), "'%s'", rp_isa(net));
        if (i == 1) CHECK(!status || status == RP_ERR_UNSUPPORTED, "%d", status); /* fine where there is no choice */
        if (i == 2) CHECK(!status, "%s", rp_error(net));
        rp_net_free(net);
        if (old) setenv("RP_ISA", before, 1);
        else unsetenv("RP_ISA");
    }
}
#endif

int main(int count, char **arguments) {
    quick = count > 1 && !strcmp(arguments[1], "quick");
    all = count > 1 && !strcmp(arguments[1], "all");
    threads();
    modes();
#ifdef HAVE_TRAPS
    traps();
#endif
#ifdef HAVE_FORK
    environment();
    if (!quick) processes();
#endif
    return test_end();
}
