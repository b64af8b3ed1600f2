/* Faults from outside: memory that ends at any allocation, a disk that is full at any byte, threads that cannot be,
   callbacks that stop or call back, a program that is killed, sizes that no machine has. After each the net is as it
   was, works, and comes to the same bits; nothing is left behind. Builds, steps and second derivatives without memory
   are in test_misuse, test_tools and test_solve, other failures of files in test_files, traps and rounding modes in
   test_platform. With the argument `large`: a net of more than 2^31 parameters, alone. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#if defined(__unix__) || defined(__APPLE__)
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#define HAVE_PROCESSES
#endif

#include "../rp.h"
#include "calls.h"
#include "heap.h"
#include "library.h"
#include "memory.h"
#include "optimizers.h"

static const char path[] = "test_faults.safetensors", temporary[] = "test_faults.safetensors.tmp";
static long allocations_failed, writes_failed, threads_failed, callbacks_stopped, calls_back, programs_killed;

enum { INPUTS = 4, CLASSES = 3, SAMPLES = 10, BATCH = 4, EPOCHS = 3 };
static const char classifier[] = "input vector 4; dense 6; tanh; dense 3; loss softmax_cross_entropy";

typedef struct problem {
    rp_real x[SAMPLES * INPUTS];
    int labels[SAMPLES];
    rp_data data, batch;
} problem;
static problem *new_problem(void) {
    problem *p = (problem *)take(sizeof *p);
    test_random random = {5};
    for (int i = 0; i < SAMPLES * INPUTS; i++) p->x[i] = (rp_real)test_normal(&random);
    for (int i = 0; i < SAMPLES; i++) p->labels[i] = test_int(&random, 0, CLASSES - 1);
    p->data = rp_labelled(p->x, p->labels, SAMPLES);
    p->batch = rp_labelled(p->x, p->labels, BATCH);
    return p;
}
static rp_net *new_net(const rp_config *config) {
    rp_net *net = rp_net_text(classifier, config);
    WORKS(rp_net_build(net, BATCH, 3));
    return net;
}

typedef struct bytes {
    unsigned char *at;
    size_t size;
} bytes;
static bytes saved(rp_net *net) {
    bytes b = {NULL, 0};
    WORKS(rp_save_memory(net, NULL, 0, &b.size));
    b.at = (unsigned char *)take(b.size);
    WORKS(rp_save_memory(net, b.at, b.size, &b.size));
    return b;
}
static bytes read_file(const char *name) { /* of size 0: there is none */
    bytes b = {NULL, 0};
    FILE *file = fopen(name, "rb");
    if (!file) return b;
    fseek(file, 0, SEEK_END);
    b.at = (unsigned char *)take((size_t)ftell(file));
    b.size = (size_t)ftell(file);
    rewind(file);
    CHECK(fread(b.at, 1, b.size, file) == b.size, "%s", name);
    fclose(file);
    return b;
}
static int same(bytes a, bytes b) { return a.size == b.size && (!a.size || !memcmp(a.at, b.at, a.size)); }
static int same_parameters(rp_net *a, rp_net *b) {
    return !memcmp(rp_parameters(a), rp_parameters(b), rp_parameter_count(a) * sizeof(rp_real));
}

static rp_fit_options run_of(int epochs) {
    rp_fit_options options = fit_of(epochs);
    options.checkpoint = path;
    options.checkpoint_steps = 2;
    return options;
}
static rp_net *finished_run(const problem *p, const rp_optimizer *o,
                            int epochs) { /* without faults, nor a checkpoint */
    rp_net *net = new_net(NULL);
    rp_fit_options options = fit_of(epochs);
    WORKS(rp_fit(net, o, &p->data, &options, NULL));
    return net;
}

/* Memory. */

enum { PREPARE, EVALUATE, PREDICT, PROBABILITIES, CLASSIFY, SAVE, SAVE_MEMORY, LOAD_MEMORY, IMPORT_MEMORY, ACTS };
static const char *const act_names[] = {"rp_prepare",       "rp_evaluate",    "rp_predict",
                                        "rp_probabilities", "rp_classify",    "rp_save",
                                        "rp_save_memory",   "rp_load_memory", "rp_import_memory"};
static rp_status act(int which, rp_net *net, const rp_optimizer *o, const problem *p, bytes file, rp_real *out) {
    rp_score score;
    int classes[SAMPLES];
    size_t length = 0;
    switch (which) {
    case PREPARE: return rp_prepare(net, o);
    case EVALUATE: return rp_evaluate(net, &p->data, &score, out);
    case PREDICT: return rp_predict(net, p->x, SAMPLES, out);
    case PROBABILITIES: return rp_probabilities(net, p->x, SAMPLES, out);
    case CLASSIFY: return rp_classify(net, p->x, SAMPLES, classes);
    case SAVE: return rp_save(net, path);
    case SAVE_MEMORY: return rp_save_memory(net, NULL, 0, &length);
    case LOAD_MEMORY: return rp_load_memory(net, file.at, file.size);
    default: return rp_import_memory(net, file.at, file.size, "0 = 0; 2 weight = 2.weight");
    }
}

/* Returns whether allocation `n` behind the build was asked for, and failed. */
static int fail_allocation(int which, const rp_optimizer *o, const problem *p, bytes file, long n) {
    rp_real out[SAMPLES * CLASSES] = {0}, again[SAMPLES * CLASSES] = {0};
    heap h = new_heap();
    rp_config config = heap_config(&h);
    rp_net *net = new_net(&config), *other = new_net(NULL);
    bytes before = saved(net);
    WORKS(act(which, other, o, p, file, again));
    h.fail_at = h.calls + n;
    h.forever = 1;
    rp_status status = act(which, net, o, p, file, out);
    int failed = h.calls > h.fail_at;
    h.fail_at = -1;
    if (failed) {
        allocations_failed++;
        FAILS(status, RP_ERR_MEMORY, act_names[which]);
        CHECK(same(before, saved(net)), "%s without allocation %ld changes the net", act_names[which], n);
        status = act(which, net, o, p, file, out);
    }
    WORKS(status);
    CHECK(!memcmp(out, again, sizeof out) && same(saved(net), saved(other)), "%s behind allocation %ld: other results",
          act_names[which], n);
    rp_net_free(net);
    rp_net_free(other);
    CHECK(h.live == 0, "%s, allocation %ld: %ld blocks are left", act_names[which], n, h.live);
    return failed;
}
static void test_memory(void) {
    size_t mark = memory_mark();
    problem *p = new_problem();
    rp_optimizer adam = rp_adam((rp_real)0.1);
    rp_net *trained = new_net(NULL);
    check_works(trained, rp_train(trained, &adam, &p->batch, NULL), "rp_train", __LINE__);
    bytes file = saved(trained);
    for (int which = 0; which < ACTS; which++)
        for (int i = 0; i < (which == PREPARE ? OPTIMIZERS + 2 : 1); i++) {
            rp_optimizer o = i < OPTIMIZERS ? optimizer_of(i).with : rp_newton();
            if (i > OPTIMIZERS) o = rp_per_variable(10);
            long n = 0;
            while (n < 100 && fail_allocation(which, &o, p, file, n)) n++;
            CHECK(n < 100, "%s never works", act_names[which]);
        }
    rp_net_free(trained);
    remove(path);
    memory_release(mark);
}

/* A run with a checkpoint that memory ends: begun again it comes to the same end. */
static void test_memory_of_runs(void) {
    size_t mark = memory_mark();
    problem *p = new_problem();
    rp_fit_options options = run_of(EPOCHS);
    long failed = 1;
    for (int i = 0; i < OPTIMIZERS; i += 4) {
        rp_optimizer o = optimizer_of(i).with;
        rp_net *whole = finished_run(p, &o, EPOCHS);
        for (long n = 0; failed; n++) {
            size_t inner = memory_mark();
            heap h = new_heap();
            rp_config config = heap_config(&h);
            rp_net *net = new_net(&config);
            remove(path);
            h.fail_at = h.calls + n;
            rp_status status = rp_fit(net, &o, &p->data, &options, NULL);
            failed = h.calls > h.fail_at;
            h.fail_at = -1;
            if (failed) {
                allocations_failed++;
                FAILS(status, RP_ERR_MEMORY, "memory");
                CHECK(!read_file(temporary).size, "allocation %ld: the temporary file is left", n);
                status = rp_fit(net, &o, &p->data, &options, NULL);
            }
            WORKS(status);
            CHECK(same_parameters(net, whole), "%s, allocation %ld: another end", optimizer_of(i).name, n);
            rp_net_free(net);
            CHECK(h.live == 0, "allocation %ld: %ld blocks are left", n, h.live);
            memory_release(inner);
        }
        failed = 1;
        rp_net_free(whole);
    }
    remove(path);
    memory_release(mark);
}

/* The disk. */

#ifdef HAVE_PROCESSES
static int no_sync(int file) { return (void)file, 0; } /* what is killed, but not the machine, needs no disk */

/* Files of this program may have so many bytes; any number: RLIM_INFINITY. */
static void limit_files(rlim_t most) {
    struct rlimit limit;
    if (!CHECK(!getrlimit(RLIMIT_FSIZE, &limit), "getrlimit")) return;
    limit.rlim_cur = most < limit.rlim_max ? most : limit.rlim_max;
    CHECK(!setrlimit(RLIMIT_FSIZE, &limit), "setrlimit");
}
static rp_status save_limited(rp_net *net, size_t most) {
    limit_files((rlim_t)most);
    rp_status status = rp_save(net, path);
    limit_files(RLIM_INFINITY);
    writes_failed += status != RP_OK;
    return status;
}

/* At every byte of the file, beside no file and beside an old one. */
static void test_full_disk(void) {
    size_t mark = memory_mark();
    rp_net *net = rp_net_text("input vector 30; dense 40; tanh; dense 3", NULL);
    WORKS(rp_net_build(net, 1, 1));
    remove(path);
    for (int there = 0; there < 2; there++) {
        bytes old = read_file(path);
        WORKS(rp_reset(net, (uint64_t)there));
        bytes file = saved(net);
        size_t inner = memory_mark();
        for (size_t most = 0; most < file.size; most++) {
            FAILS(save_limited(net, most), RP_ERR_FILE, "rp_save test_faults cannot");
            CHECK(same(old, read_file(path)), "the old file changes on a disk of %d bytes", (int)most);
            CHECK(access(temporary, F_OK), "the temporary file is left on a disk of %d bytes", (int)most);
            memory_release(inner);
        }
        WORKS(save_limited(net, file.size));
        CHECK(same(file, read_file(path)), "not what was saved");
    }
    rp_net_free(net);
    remove(path);
    memory_release(mark);
}

/* A run whose disk is full goes on once there is room, to the same end. */
static void test_full_disk_of_runs(void) {
    size_t mark = memory_mark();
    problem *p = new_problem();
    rp_optimizer o = rp_adam((rp_real)0.1);
    rp_fit_options options = run_of(EPOCHS);
    rp_net *whole = finished_run(p, &o, EPOCHS);
    remove(path);
    for (rlim_t most = 0, done = 0; !done; most += 50) {
        rp_net *net = new_net(NULL);
        limit_files(most);
        rp_status status = rp_fit(net, &o, &p->data, &options, NULL);
        limit_files(RLIM_INFINITY);
        done = status == RP_OK;
        if (!done) {
            writes_failed++;
            FAILS(status, RP_ERR_FILE, "rp_fit checkpoint cannot");
            CHECK(access(temporary, F_OK), "the temporary file is left on a disk of %d bytes", (int)most);
            WORKS(rp_fit(net, &o, &p->data, &options, NULL));
        }
        CHECK(same_parameters(net, whole), "a disk of %d bytes: another end", (int)most);
        rp_net_free(net);
        remove(path);
    }
    rp_net_free(whole);
    memory_release(mark);
}

/* A run that is killed at any moment, and begun again, comes to the same end. */
static void test_killed_runs(void) {
    enum { MANY = 400, KILLS = 60 };
    size_t mark = memory_mark();
    problem *p = new_problem();
    rp_optimizer o = rp_partitioning();
    rp_fit_options options = run_of(MANY);
    rp_net *whole = finished_run(p, &o, MANY), *net = NULL;
    test_random random = {7};
    remove(path);
    options.checkpoint_steps = 1;
    for (int kill_at = 0; kill_at < KILLS; kill_at++) {
        struct timespec wait = {0, 1000L * test_int(&random, 0, 4000)};
        fflush(stdout);
        pid_t child = fork();
        if (!child) {
            net = rp_net_text(classifier, NULL);
            if (rp_net_build(net, BATCH, 3) || rp_fit(net, &o, &p->data, &options, NULL)) _exit(1);
            for (;;) pause();
        }
        nanosleep(&wait, NULL);
        int status = 0;
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        programs_killed++;
        CHECK(WIFSIGNALED(status), "kill %d: the run failed", kill_at);
        if (access(path, F_OK)) continue;
        net = rp_open(path, NULL);
        WORKS(rp_net_build(net, BATCH, 1));
        rp_net_free(net);
    }
    net = new_net(NULL);
    WORKS(rp_fit(net, &o, &p->data, &options, NULL));
    CHECK(same_parameters(net, whole), "killed: another end");
    rp_net_free(net);
    rp_net_free(whole);
    remove(path);
    remove(temporary);
    memory_release(mark);
}
#endif

/* Threads. */

#ifdef LIBRARY_HAS_THREADS
static long threads_until;
static int failing_thread(pthread_t *thread, const pthread_attr_t *attributes, void *(*function)(void *),
                          void *argument) {
    if (!threads_until--) return 11; /* EAGAIN */
    return pthread_create(thread, attributes, function, argument);
}
static int threads_now(void) { /* 1 where nobody says */
    char line[200];
    int threads = 1;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file)) (void)sscanf(line, "Threads: %d", &threads);
    if (file) fclose(file);
    return threads;
}

/* A thread that has been joined is counted for a moment longer. So many when none of these are left: */
static int threads_settled(void) {
    const struct timespec pause = {0, 1000000};
    int least = threads_now();
    for (int i = 0; i < 50; i++) {
        int threads = threads_now();
        if (threads < least) least = threads;
        nanosleep(&pause, NULL);
    }
    return least;
}
static int threads_are(int expected) {
    const struct timespec pause = {0, 1000000};
    for (int i = 0; i < 1000 && threads_now() != expected; i++) nanosleep(&pause, NULL);
    return threads_now() == expected;
}

/* Every thread that a build, or a clone, asks for. */
static void test_threads(void) {
    enum { THREADS = 5 };
    size_t mark = memory_mark();
    problem *p = new_problem();
    rp_optimizer o = rp_partitioning();
    rp_net *alone = finished_run(p, &o, EPOCHS);
    rp_fit_options options = fit_of(EPOCHS);
    int before = threads_settled();
    for (int n = 0; n < THREADS - 1; n++) {
        heap h = new_heap();
        rp_config config = heap_config(&h);
        config.threads = THREADS;
        rp_net *net = rp_net_text(classifier, &config), *copy;
        library.thread = failing_thread;
        threads_until = n;
        FAILS(rp_net_build(net, BATCH, 3), RP_ERR_MEMORY, "rp_net_build 5 threads");
        CHECK(threads_are(before) && !rp_parameters(net), "thread %d failed: %d others live", n, threads_now());
        threads_until = -1;
        WORKS(rp_net_build(net, BATCH, 3));
        WORKS(rp_fit(net, &o, &p->data, &options, NULL));
        CHECK(same_parameters(net, alone), "thread %d failed once: other bits", n);
        long live = h.live;
        threads_until = n;
        copy = rp_clone(net, NULL, 0);
        CHECK(!copy && has_words(rp_error(net), "rp_clone memory"), "clone without thread %d: %s", n, rp_error(net));
        CHECK(h.live == live && threads_are(before + THREADS - 1), "clone without thread %d leaves something", n);
        threads_failed += 2;
        library.thread = pthread_create;
        rp_net_free(copy);
        copy = rp_clone(net, NULL, 0);
        if (CHECK(copy != NULL, "%s", rp_error(net))) CHECK(same_parameters(copy, net), "a clone with other bits");
        rp_net_free(copy);
        rp_net_free(net);
        CHECK(h.live == 0 && threads_are(before), "thread %d: %ld blocks are left", n, h.live);
    }
    rp_net_free(alone);
    memory_release(mark);
}
#endif

/* Callbacks. */

typedef struct caller {
    rp_net *net;
    const problem *p;
    int stop_at, calls, back; /* back: what is called back, or -1 */
} caller;

enum {
    BACK_PREDICT,
    BACK_EVALUATE,
    BACK_SAVE,
    BACK_CLONE,
    BACK_GRADIENT,
    BACK_PRODUCT,
    BACK_FORWARD, /* only look */
    BACK_TRAIN,
    BACK_FIT,
    BACK_RESET,
    BACK_LOAD,
    BACK_FREEZE,
    BACKS
};
static void call_back(caller *c) {
    rp_net *net = c->net;
    rp_optimizer o = rp_sgd((rp_real)0.1);
    rp_fit_options options = fit_of(1);
    rp_real out[64];
    rp_score score;
    size_t mark = memory_mark();
    calls_back++;
    switch (c->back) {
    case BACK_PREDICT: WORKS(rp_predict(net, c->p->x, SAMPLES, out)); break;
    case BACK_EVALUATE: WORKS(rp_evaluate(net, &c->p->data, &score, NULL)); break;
    case BACK_SAVE: saved(net); break;
    case BACK_CLONE: rp_net_free(rp_clone(net, NULL, 0)); break;
    case BACK_GRADIENT: WORKS(rp_backward(net, &c->p->batch, NULL, NULL)); break;
    case BACK_PRODUCT: WORKS(rp_hessian_vector(net, &c->p->batch, rp_parameters(net), out)); break;
    case BACK_FORWARD: WORKS(rp_forward(net, c->p->x, BATCH)); break;
    case BACK_TRAIN: WORKS(rp_train(net, &o, &c->p->batch, NULL)); break;
    case BACK_FIT: WORKS(rp_fit(net, &o, &c->p->data, &options, NULL)); break;
    case BACK_RESET: WORKS(rp_reset(net, 5)); break;
    case BACK_LOAD: {
        bytes file = saved(net);
        WORKS(rp_load_memory(net, file.at, file.size));
        break;
    }
    case BACK_FREEZE: WORKS(rp_freeze(net, 0, c->calls % 2)); break;
    }
    memory_release(mark);
}
static int stops(caller *c) {
    int stop = c->calls++ == c->stop_at;
    if (c->back >= 0) call_back(c);
    callbacks_stopped += stop;
    return stop;
}
static int on_progress(void *user, const rp_progress *progress) { return (void)progress, stops((caller *)user); }
static int on_fill(void *user, int index, rp_data *batch) {
    caller *c = (caller *)user;
    if (stops(c)) return -1;
    *batch = c->p->batch;
    batch->inputs += index * INPUTS;
    return index < 3;
}
static rp_real on_schedule(void *user, int64_t step, rp_real rate) {
    call_back((caller *)user);
    return (void)step, rate;
}
static int on_sample(void *user, const rp_sample_factors *factors) { return (void)factors, stops((caller *)user); }
static int on_iteration(void *user, int iteration, rp_real residual) {
    return (void)iteration, (void)residual, stops((caller *)user);
}

enum { PROGRESS, FILL_FIT, FILL_EVALUATE, EACH_SAMPLE, ITERATION, SCHEDULE, CALLBACKS };
static rp_status run_with(int callback, caller *c, rp_real *x) {
    static const rp_real b[64] = {1, -2, 3, 1};
    rp_optimizer o = rp_sgd((rp_real)0.1);
    rp_fit_options options = fit_of(2);
    rp_solve_options solve;
    rp_score score;
    rp_data stream = rp_streamed(on_fill, c);
    memset(&solve, 0, sizeof solve);
    options.user = solve.user = c;
    solve.method = RP_SOLVE_ITERATIVE;
    solve.damping = 1;
    solve.progress = on_iteration;
    if (callback == PROGRESS) options.progress = on_progress;
    if (callback == SCHEDULE) options.schedule = on_schedule;
    switch (callback) {
    case FILL_FIT: return rp_fit(c->net, &o, &stream, &options, NULL);
    case FILL_EVALUATE: return rp_evaluate(c->net, &stream, &score, NULL);
    case EACH_SAMPLE: return rp_sample_gradients(c->net, &c->p->batch, on_sample, c);
    case ITERATION: return rp_hessian_solve(c->net, &c->p->batch, b, x, &solve, NULL);
    default: return rp_fit(c->net, &o, &c->p->data, &options, NULL);
    }
}

/* Each stops at each of its calls. The net can be used afterwards, to the same bits. */
static void test_stops(void) {
    size_t mark = memory_mark();
    problem *p = new_problem();
    for (int callback = 0; callback < SCHEDULE; callback++)
        for (int n = 0, stopped = 1; stopped; n++) {
            rp_net *net = new_net(NULL), *like = new_net(NULL);
            rp_real x[64] = {0};
            caller c = {net, p, n, 0, -1};
            rp_status status = run_with(callback, &c, x);
            stopped = c.calls > n;
            CHECK(c.calls <= n + 1, "callback %d is called %d times, although call %d stops", callback, c.calls, n);
            if (!stopped || callback == PROGRESS) WORKS(status);
            else FAILS(status, RP_ERR_STOPPED, "");
            if (callback != PROGRESS && callback != FILL_FIT)
                CHECK(same(saved(net), saved(like)), "callback %d, call %d: the net changes", callback, n);
            caller again = {like, p, -1, 0, -1};
            WORKS(rp_reset(net, 3));
            c.stop_at = -1;
            WORKS(run_with(callback, &c, x));
            check_works(like, run_with(callback, &again, x), "without a stop", __LINE__);
            CHECK(same_parameters(net, like), "callback %d, call %d: other bits afterwards", callback, n);
            rp_net_free(net);
            rp_net_free(like);
        }
    memory_release(mark);
}

/* Each calls back, from between two steps: what only looks changes no bit. From within a computation it is refused,
   unless it left the values alone. */
static void test_calls_back(void) {
    size_t mark = memory_mark();
    problem *p = new_problem();
    for (int callback = 0; callback < CALLBACKS; callback++)
        for (int back = 0; back < BACKS; back++) {
            rp_net *net = new_net(NULL), *like = new_net(NULL);
            rp_real x[64] = {0};
            caller c = {net, p, -1, 0, back}, silent = {like, p, -1, 0, -1};
            rp_status status = run_with(callback, &c, x);
            if (callback == EACH_SAMPLE || callback == ITERATION) {
                int left = back == BACK_SAVE || back == BACK_FREEZE || back == BACK_CLONE || back == BACK_LOAD ||
                           back == BACK_RESET;
                CHECK(status == RP_ERR_ORDER || (left && !status), "callback %d, call back %d: %d: %s", callback, back,
                      status, rp_error(net));
            } else {
                WORKS(status);
                if (callback != SCHEDULE) check_works(like, run_with(callback, &silent, x), "silent", __LINE__);
                if (callback != SCHEDULE && back < BACK_TRAIN)
                    CHECK(same_parameters(net, like), "callback %d, call back %d: other bits", callback, back);
            }
            for (size_t i = 0; i < rp_parameter_count(net); i++)
                CHECK(isfinite(rp_parameters(net)[i]), "callback %d, call back %d", callback, back);
            WORKS(rp_predict(net, p->x, SAMPLES, x));
            rp_net_free(net);
            rp_net_free(like);
        }
    memory_release(mark);
}

/* Sizes. */

/* Products of sizes beyond an int, or beyond what can be addressed: refused, in a sentence, for want of memory at the
   latest. */
static void test_sizes(void) {
    static const char *const texts[] = {"input vector 268435456; dense 268435456",
                                        "input vector 268435456; dense 268435456; dense 268435456; dense 268435456",
                                        "input image 1x16384x16384; conv2d 268435456 1x1",
                                        "input image 1x16384x16384; conv2d 4096 16384x16384",
                                        "input image 65536x64x64; conv2d 4096 64x64 groups 1",
                                        "input image 1x3x3; conv2d 1 2147483647 padding 2147483647",
                                        "input image 1x3x3; conv2d 1 3 padding 2147483647",
                                        "input image 1x3x3; conv2d 1 3x3 stride 2147483647 padding 1073741824",
                                        "input image 1x65536x65536; dense 1",
                                        "input image 2147483647x2147483647x2147483647; dense 1",
                                        "input sequence 2147483647x2147483647; dense 1",
                                        "input sequence 268435456x1; recurrent 268435456 tanh all_states",
                                        "input sequence 1x268435456; recurrent 268435456 tanh",
                                        "input sequence 16384x1; recurrent 16384 tanh all_states; recurrent 16384 tanh",
                                        "input vector 268435456; recursive 2147483647 tanh",
                                        "input vector 268435456; recursive 1 tanh",
                                        "input vector 65536; dense 65536; dense 65536",
                                        "input vector 1; dense 268435456; dense 268435456"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        for (int power = 0; power <= 28; power += 14) {
            int batch = 1 << power;
            heap h = new_heap();
            rp_config config = heap_config(&h);
            rp_net *net = rp_net_text(texts[i], &config);
            rp_status status = rp_net_build(net, batch, 1);
            int kind = status == RP_ERR_OVERFLOW || status == RP_ERR_MEMORY || status == RP_ERR_VALUE;
            CHECK(kind, "%s, batch %d: %d: '%s'", texts[i], batch, status, rp_error(net));
            CHECK(strlen(rp_error(net)) > 30 && strstr(rp_error(net), "rp_"), "%s, batch %d: '%s'", texts[i], batch,
                  rp_error(net));
            CHECK(!rp_parameters(net), "%s", texts[i]);
            rp_net_free(net);
            CHECK(h.live == 0, "%s: %ld blocks are left", texts[i], h.live);
        }
}

/* More than 2^31 parameters: what lies behind the last int is drawn, and predicted with. */
static void test_large(void) {
    enum { WIDE = 1 << 16, UNITS = (1 << 15) + 1 };
    rp_config config = inference_config();
    rp_net *net = rp_net_new(rp_vector(WIDE), &config);
    rp_real *x = (rp_real *)take(WIDE * sizeof *x), *y = (rp_real *)take(UNITS * sizeof *y);
    test_random random = {1};
    rp_dense(net, UNITS);
    rp_status status = sizeof(size_t) > 4 ? rp_net_build(net, 1, 1) : RP_ERR_MEMORY;
    if (status == RP_ERR_MEMORY) {
        printf("SKIPPED: there is no memory for %d times %d parameters\n", WIDE, UNITS);
        test_skipped++;
        rp_net_free(net);
        return;
    }
    WORKS(status);
    CHECK(rp_parameter_count(net) == (size_t)UNITS * (WIDE + 1), "%.0f parameters", (double)rp_parameter_count(net));
    for (int i = 0; i < WIDE; i++) x[i] = (rp_real)test_normal(&random);
    WORKS(rp_predict(net, x, 1, y));
    for (int u = 0; u < UNITS; u += u < UNITS - 5 ? 1023 : 1) {
        const rp_real *row = rp_parameters(net) + (size_t)u * WIDE;
        double sum = (double)rp_parameters(net)[(size_t)UNITS * WIDE + (size_t)u];
        for (int i = 0; i < WIDE; i++) sum += (double)row[i] * (double)x[i];
        CHECK(fabs(sum - (double)y[u]) < 1e-4, "unit %d: %g, not %g", u, (double)y[u], sum);
    }
    printf("%.0f parameters, %.0f bytes\n", (double)rp_parameter_count(net), (double)rp_memory(net));
    rp_net_free(net);
}

int main(int count, char **arguments) {
    if (count > 1 && !strcmp(arguments[1], "large")) {
        test_large();
        memory_release(0);
        return test_end();
    }
#ifdef HAVE_PROCESSES
    signal(SIGXFSZ, SIG_IGN);
    library.sync = no_sync;
    test_full_disk();
    test_full_disk_of_runs();
    test_killed_runs();
#endif
    test_memory();
    test_memory_of_runs();
#ifdef LIBRARY_HAS_THREADS
    test_threads();
#endif
    test_stops();
    test_calls_back();
    test_sizes();
    memory_release(0);
    printf("failed: %ld allocations, %ld writes, %ld threads; %ld callbacks stopped, %ld calls back, %ld programs "
           "killed\n",
           allocations_failed, writes_failed, threads_failed, callbacks_stopped, calls_back, programs_killed);
    return test_end();
}
