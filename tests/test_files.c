/* Nets as text and in files: every kind of layer, loss and optimizer there and back, training that goes on to the bit,
   every way to refuse a file, failing disks and killed programs, files that PyTorch made. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#if defined(__unix__) || defined(__APPLE__)
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#define HAVE_FORK
#endif

#include "../rp.h"
#include "calls.h"
#include "heap.h"
#include "library.h"
#include "optimizers.h"
#include "random_nets.h"
#ifndef TEST_FOLDER
#define TEST_FOLDER "tests" /* of the source; the Makefile knows its whole path */
#endif

static const char path[] = "test_files.safetensors", temporary[] = "test_files.safetensors.tmp";

/* What writes a file fails at call `io_fail_at`, from 0. */
static long io_calls, io_fail_at = -1;
static int io_fails(void) { return io_calls++ == io_fail_at; }
static size_t failing_write(const void *data, size_t size, size_t count, FILE *file) {
    return fwrite(data, size, io_fails() ? count / 2 : count, file);
}
static int failing_flush(FILE *file) { return io_fails() ? EOF : fflush(file); }
static int failing_close(FILE *file) { return fclose(file) | (io_fails() ? EOF : 0); }
static int failing_rename(const char *from, const char *to) { return io_fails() ? -1 : rename(from, to); }
#ifdef HAVE_FORK
static int failing_sync(int file) { return io_fails() ? -1 : fsync(file); }
static int no_sync(int file) { return (void)file, 0; } /* what is killed, but not the machine, needs no disk */
#endif
static void let_disk_fail(void) {
    library.write = failing_write;
    library.flush = failing_flush;
    library.close = failing_close;
    library.rename = failing_rename;
#ifdef HAVE_FORK
    library.sync = failing_sync;
#endif
}

/* A file in memory. */
typedef struct bytes {
    unsigned char *at;
    size_t size;
} bytes;

static bytes new_bytes(size_t size) {
    bytes b = {(unsigned char *)take(size), size};
    return b;
}
static bytes saved(rp_net *net) {
    size_t size = 0;
    WORKS(rp_save_memory(net, NULL, 0, &size));
    bytes b = new_bytes(size);
    WORKS(rp_save_memory(net, b.at, size, &size));
    return b;
}
static bytes read_bytes(const char *from) {
    bytes b = {NULL, 0};
    FILE *file = fopen(from, "rb");
    if (!file) return b;
    fseek(file, 0, SEEK_END);
    b = new_bytes((size_t)ftell(file));
    rewind(file);
    b.size = fread(b.at, 1, b.size, file);
    fclose(file);
    return b;
}
static void write_bytes(bytes b) { /* to `path` */
    FILE *file = fopen(path, "wb");
    size_t written = file ? fwrite(b.at, 1, b.size, file) : 0;
    if (file) fclose(file);
    CHECK(written == b.size, "%s", path);
}
static int same_bytes(bytes a, bytes b) { return a.size == b.size && !memcmp(a.at, b.at, a.size); }
static int exists(const char *name) {
    FILE *file = fopen(name, "rb");
    if (file) fclose(file);
    return file != NULL;
}

static rp_net *build_text(const char *text, int batch, const rp_config *config) {
    rp_net *net = rp_net_text(text, config);
    WORKS(rp_net_build(net, batch, 3));
    return net;
}
static rp_net *opened(bytes file, int batch, const rp_config *config) {
    rp_net *net = rp_open_memory(file.at, file.size, config);
    WORKS(rp_net_build(net, batch, 7));
    return net;
}
static int same_reals(const rp_real *a, const rp_real *b, size_t count) {
    return !memcmp(a, b, count * sizeof(rp_real));
}
static int same_parameters(rp_net *a, rp_net *b) {
    size_t count = rp_parameter_count(a);
    return count == rp_parameter_count(b) && same_reals(rp_parameters(a), rp_parameters(b), count);
}
static const char *described(const rp_net *net) { /* until memory_release */
    size_t size = rp_describe(net, NULL, 0) + 1;
    char *text = (char *)take(size);
    CHECK(rp_describe(net, text, size) == size - 1 && strlen(text) == size - 1, "%s", text);
    return text;
}

/* Text. */

static void test_text(void) {
    static const struct {
        const char *written, *read;
    } texts[] = {
        {"input vector 3; dense 2", "input vector 3; dense 2; loss squared_error"},
        {" input\n vector\t784 ;;dense 64 ; tanh; loss softmax_cross_entropy ;",
         "input vector 784; dense 64; tanh; loss softmax_cross_entropy"},
        {"input image 1x28x28; conv2d 8 5; max_pool2d 2; global_avg_pool2d; add 2",
         "input image 1x28x28; conv2d 8 5x5 stride 1 padding 0; max_pool2d 2x2 stride 2; global_avg_pool2d; add 2; "
         "loss squared_error"},
        {"input image 4x9x8; conv2d 6 3x2 groups 2 no_bias padding 1x0 stride 2 frozen; avg_pool2d 2x3 stride 1",
         "input image 4x9x8; conv2d 6 3x2 stride 2 padding 1x0 groups 2 no_bias frozen; avg_pool2d 2x3 stride 1; loss "
         "squared_error"},
        {"input sequence 5x3; recurrent 4 tanh all_states; recurrent 3 leaky_relu frozen slope 0.25; recursive 2 elu "
         "slope 1e-30 no_bias; add 1; elu; loss huber delta 0.3",
         "input sequence 5x3; recurrent 4 tanh all_states; recurrent 3 leaky_relu slope 0.25 frozen; recursive 2 elu "
         "slope 1e-30 no_bias; add 1; elu slope 1; loss huber delta 0.3"},
        {"input vector 2; identity; add input; relu; sigmoid; softplus; gelu; silu; loss poisson",
         "input vector 2; identity; add input; relu; sigmoid; softplus; gelu; silu; loss poisson"},
        {"loss huber; input vector 1", NULL},
        {"input vector 1; loss huber", "input vector 1; loss huber delta 1"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        size_t mark = memory_mark();
        rp_net *net = rp_net_text(texts[i].written, NULL);
        if (texts[i].read)
            CHECK(!strcmp(described(net), texts[i].read), "'%s' is '%s', not '%s'; %s", texts[i].written,
                  described(net), texts[i].read, rp_error(net));
        else CHECK(*rp_error(net), "'%s'", texts[i].written);
        rp_net_free(net);
        memory_release(mark);
    }
}

static void test_misread_text(void) {
    static const struct {
        const char *text, *words;
        rp_status status;
    } texts[] = {
        {"", "rp_net_text empty input", RP_ERR_VALUE},
        {"dense 3", "begins dense input", RP_ERR_VALUE},
        {"input", "input vector, the end", RP_ERR_VALUE},
        {"input plane 3", "input plane", RP_ERR_VALUE},
        {"input vector", "input the end", RP_ERR_VALUE},
        {"input vector 3x3", "input 3x3", RP_ERR_VALUE},
        {"input image 3x3", "input 3x3", RP_ERR_VALUE},
        {"input vector 0", "input 0", RP_ERR_VALUE},
        {"input vector 268435457", "input 268435457", RP_ERR_VALUE},
        {"input image 65536x65536x65536", "input 2^28", RP_ERR_VALUE},
        {"input vector 99999999999999999999", "input", RP_ERR_VALUE},
        {"input vector 3 4", "input must end, not 4", RP_ERR_VALUE},
        {"input vector 3; input vector 3", "input one", RP_ERR_VALUE},
        {"input vector 3; dens 4", "layer 0 'dens'", RP_ERR_VALUE},
        {"input vector 3; tanh; dense", "layer 1 dense number the end", RP_ERR_VALUE},
        {"input vector 3; dense -4", "layer 0 number -4", RP_ERR_VALUE},
        {"input vector 3; dense 0", "layer 0 units 0", RP_ERR_VALUE},
        {"input vector 3; dense 4 stride 2", "dense stride", RP_ERR_VALUE},
        {"input vector 3; dense 4 no_bias no_bias", "dense once no_bias", RP_ERR_VALUE},
        {"input vector 3; dense 4 frozen 2", "dense 2", RP_ERR_VALUE},
        {"input vector 3; conv2d 4 3x3", "layer 0 image vector 3", RP_ERR_SHAPE},
        {"input image 1x4x4; conv2d 4", "conv2d window", RP_ERR_VALUE},
        {"input image 1x4x4; conv2d 4 0", "conv2d window 1", RP_ERR_VALUE},
        {"input image 1x4x4; conv2d 4 3 stride 0", "conv2d stride 1", RP_ERR_VALUE},
        {"input image 1x4x4; conv2d 4 5", "layer 0 window 5x5 1x4x4", RP_ERR_SHAPE},
        {"input image 1x4x4; conv2d 4 3 groups 3", "groups 3", RP_ERR_SHAPE},
        {"input image 1x4x4; conv2d 4 3x3x3", "conv2d 3x3x3", RP_ERR_VALUE},
        {"input image 1x4x4; max_pool2d 2 stride 2x1", "max_pool2d stride 2x1", RP_ERR_VALUE},
        {"input image 1x4x4; max_pool2d 0", "window", RP_ERR_VALUE},
        {"input image 1x4x4; avg_pool2d 2x0", "window", RP_ERR_VALUE},
        {"input sequence 3x2; recurrent 4", "recurrent activation", RP_ERR_VALUE},
        {"input sequence 3x2; recurrent 4 tan", "recurrent activation tan", RP_ERR_VALUE},
        {"input sequence 3x2; recurrent 4 tanh slope 1", "layer 0 slope", RP_ERR_VALUE},
        {"input vector 3; recursive 0 tanh", "steps 0", RP_ERR_VALUE},
        {"input vector 3; relu slope 0.1", "layer 0 slope", RP_ERR_VALUE},
        {"input vector 3; elu slope", "elu number the end", RP_ERR_VALUE},
        {"input vector 3; elu slope 1e39000", "elu number", RP_ERR_VALUE},
        {"input vector 3; elu slope nan", "elu number nan", RP_ERR_VALUE},
        {"input vector 3; elu slope 0x1p3", "elu number", RP_ERR_VALUE},
        {"input vector 3; elu slope 1,5", "elu number 1,5", RP_ERR_VALUE},
        {"input vector 3; elu slope -1", "slope -1", RP_ERR_VALUE},
        {"input vector 3; add", "add number", RP_ERR_VALUE},
        {"input vector 3; add 1", "layer 0 add 1", RP_ERR_VALUE},
        {"input vector 3; dense 2; add input", "layer 1 vector 2 input 3", RP_ERR_SHAPE},
        {"input vector 3; loss", "loss name", RP_ERR_VALUE},
        {"input vector 3; loss hinge", "loss hinge", RP_ERR_VALUE},
        {"input vector 3; loss poisson delta 1", "loss delta", RP_ERR_VALUE},
        {"input vector 3; loss huber delta 0", "delta 0", RP_ERR_VALUE},
        {"input vector 3; loss poisson; loss poisson", "loss one", RP_ERR_VALUE},
        {"input vector 3; a_word_that_is_longer_than_any_that_a_text_may_have 3", "layer 0 kind", RP_ERR_VALUE},
        {"input vector 3; d\xC3\xA9nse 3; \x01", "layer 0", RP_ERR_VALUE},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        rp_net *net = rp_net_text(texts[i].text, NULL);
        FAILS(rp_net_build(net, 1, 1), texts[i].status, texts[i].words);
        rp_net_free(net);
    }
    rp_net *net = rp_net_text(NULL, NULL);
    FAILS(rp_net_build(net, 1, 1), RP_ERR_NULL, "rp_net_text text NULL");
    CHECK(rp_describe(NULL, NULL, 0) == 0, "of NULL");
    rp_net_free(net);
    net = rp_net_new(rp_vector(0), NULL);
    CHECK(rp_describe(net, NULL, 0) == 0, "of a net without a shape");
    rp_net_free(net);
}

/* Random nets of all kinds. */

static const net_recipe recipes[] = {
    {STACK, 4, 12, 5, 9, ANY}, {IMAGE, 5, 7, 5, 9, ANY}, {SEQUENCE, 4, 6, 5, 9, ANY}, {VECTOR, 5, 8, 5, 9, ANY}};

static rp_net *random_built(uint64_t seed, int batch) {
    test_random random = {seed};
    return library_net(random_net(&random, &recipes[seed % 4], RP_SAMPLED), batch, seed, NULL);
}

static void check_same_layers(rp_net *net, rp_net *other) {
    CHECK(rp_layer_count(net) == rp_layer_count(other), "%d layers", rp_layer_count(other));
    for (int i = 0; i < rp_layer_count(net); i++) {
        rp_layer a, b;
        memset(&a, 0, sizeof a);
        memset(&b, 0, sizeof b);
        WORKS(rp_layer_info(net, i, &a));
        WORKS(rp_layer_info(other, i, &b));
        CHECK(!memcmp(&a, &b, sizeof a), "layer %d (%s) of %s", i, a.kind, described(net));
    }
}

static void check_predictions(rp_net *net, rp_net *other, int count) {
    rp_real *x = (rp_real *)take((size_t)(count * rp_inputs(net)) * sizeof *x);
    size_t outputs = (size_t)(count * rp_outputs(net));
    rp_real *one = (rp_real *)take(outputs * sizeof *one), *two = (rp_real *)take(outputs * sizeof *two);
    test_random random = {5};
    for (int i = 0; i < count * rp_inputs(net); i++) x[i] = (rp_real)test_normal(&random);
    WORKS(rp_predict(net, x, count, one));
    WORKS(rp_predict(other, x, count, two));
    CHECK(same_reals(one, two, outputs), "predictions of %s", described(net));
}

static void test_random_nets(void) {
    for (uint64_t seed = 1; seed <= 160; seed++) {
        size_t mark = memory_mark();
        rp_net *net = random_built(seed, 5), *other = build_text(described(net), 5, NULL), *copy, *loaded;
        bytes file = saved(net);
        rp_config inference = inference_config();
        CHECK(!strcmp(described(net), described(other)), "'%s' became '%s'", described(net), described(other));
        check_same_layers(net, other);
        copy = opened(file, 5, NULL);
        check_same_layers(net, copy);
        CHECK(same_parameters(net, copy), "parameters of %s", described(net));
        CHECK(same_bytes(file, saved(copy)), "saved again: %s", described(net));
        WORKS(rp_load_memory(other, file.at, file.size));
        CHECK(same_parameters(net, other), "parameters of %s", described(net));
        loaded = opened(file, 5, &inference);
        check_predictions(net, copy, 4);
        check_predictions(net, loaded, 4);
        rp_net_free(net);
        rp_net_free(other);
        rp_net_free(copy);
        rp_net_free(loaded);
        memory_release(mark);
    }
}

/* Training that goes on. */

enum { SAMPLES = 26, INPUTS = 6, CLASSES = 3, BATCH = 8, STEPS = (SAMPLES + BATCH - 1) / BATCH };
typedef struct problem {
    rp_real x[SAMPLES * INPUTS], weights[SAMPLES];
    int labels[SAMPLES];
    rp_data data;
} problem;
static problem *new_problem(void) {
    problem *p = (problem *)take(sizeof *p);
    test_random random = {11};
    for (int i = 0; i < SAMPLES * INPUTS; i++) p->x[i] = (rp_real)test_normal(&random);
    for (int i = 0; i < SAMPLES; i++) p->labels[i] = test_int(&random, 0, CLASSES - 1);
    for (int i = 0; i < SAMPLES; i++) p->weights[i] = (rp_real)test_uniform(&random, 0, 2);
    p->data = rp_labelled(p->x, p->labels, SAMPLES);
    p->data.weights = p->weights;
    return p;
}

static const char classifier[] = "input vector 6; dense 9; tanh; dense 3; loss softmax_cross_entropy";
static rp_net *new_classifier(int threads) {
    rp_config config = config_of(RP_ISA_AUTO, threads);
    return build_text(classifier, SAMPLES, &config);
}

/* Those of optimizers.h and behind them what else has a state: decay, lengths that adapt, clipping, Newton's method. */
enum { ALL_OPTIMIZERS = OPTIMIZERS + 6 };
static named_optimizer any_optimizer(int which) {
    named_optimizer o = optimizer_of(which);
    if (o.with.rate > 0) o.with.rate_decay = (rp_real)0.97;
    if (which < OPTIMIZERS) return o;
    o.with = rp_partitioning();
    switch (which - OPTIMIZERS) {
    case 0:
        o.name = "adaptive cubic lengths";
        o.with.rate = 5;
        o.with.cubic_sigma = 100;
        o.with.cubic_adaptive = 1;
        break;
    case 1:
        o.name = "Newton";
        o.with = rp_newton();
        break;
    case 2:
        o.name = "Newton with the Hessian";
        o.with = rp_newton();
        o.with.full_hessian = 1;
        o.with.lambda = (rp_real)0.01;
        break;
    case 3:
        o.name = "per variable";
        o.with = rp_per_variable(100);
        break;
    case 4:
        o.name = "adaptive lengths of Adam";
        o.with = rp_adam((rp_real)0.02);
        o.with.cubic_sigma = 1;
        o.with.cubic_adaptive = 1;
        break;
    default:
        o.name = "clipped";
        o.with.clip = (rp_real)0.1;
        o.with.curvature_average = 0;
        break;
    }
    return o;
}

static void train_some(rp_net *net, const rp_optimizer *optimizer, const problem *p, int steps) {
    for (int i = 0; i < steps; i++) WORKS(rp_train(net, optimizer, &p->data, NULL));
}

/* N steps, a file, a new net, N steps, against 2 N; once more into a net that has a state already. */
static void test_resumed(void) {
    for (int which = 0; which < ALL_OPTIMIZERS; which++)
        for (int threads = 1; threads <= 2; threads++) {
            size_t mark = memory_mark();
            problem *p = new_problem();
            named_optimizer o = any_optimizer(which);
            rp_optimizer adam = rp_adam((rp_real)0.1);
            rp_config config = config_of(RP_ISA_AUTO, 3 - threads);
            rp_net *net = new_classifier(threads), *other = new_classifier(threads), *copy;
            int steps = o.with.rate > 0 ? 4 : 21; /* beyond those in which a length is measured each time */
            train_some(net, &o.with, p, steps);
            WORKS(rp_save(net, path));
            copy = rp_open(path, &config); /* the number of threads does not matter */
            WORKS(rp_net_build(copy, SAMPLES, 99));
            train_some(other, which % 2 ? &adam : &o.with, p, 2);
            WORKS(rp_load(other, path));
            train_some(net, &o.with, p, steps);
            train_some(copy, &o.with, p, steps);
            train_some(other, &o.with, p, steps);
            CHECK(same_bytes(saved(net), saved(copy)), "%s, %d threads", o.name, threads);
            CHECK(same_bytes(saved(net), saved(other)), "%s, %d threads, loaded", o.name, threads);
            rp_net_free(net);
            rp_net_free(copy);
            rp_net_free(other);
            memory_release(mark);
        }
}

/* A net that never trained, loaded into one that did: the state is gone, too. */
static void test_state_is_forgotten(void) {
    for (int which = 0; which < ALL_OPTIMIZERS; which++) {
        size_t mark = memory_mark();
        problem *p = new_problem();
        named_optimizer o = any_optimizer(which);
        rp_net *net = new_classifier(1), *other = new_classifier(1);
        train_some(other, &o.with, p, 3);
        WORKS(rp_save(net, path));
        WORKS(rp_load(other, path));
        CHECK(same_bytes(saved(net), saved(other)) && !rp_state_memory(other), "%s: loaded", o.name);
        train_some(net, &o.with, p, 3);
        train_some(other, &o.with, p, 3);
        CHECK(same_bytes(saved(net), saved(other)), "%s: trained", o.name);
        rp_net_free(net);
        rp_net_free(other);
        memory_release(mark);
    }
}

/* Averages in the place of the parameters, as they are or written to. */
static void test_averages(void) {
    for (int written = 0; written < 2; written++) {
        size_t mark = memory_mark();
        problem *p = new_problem();
        rp_optimizer o = rp_partitioning();
        rp_net *net = new_classifier(1), *copy;
        train_some(net, &o, p, 5);
        WORKS(rp_average(net, 1));
        if (written) rp_parameters(net)[3] = 0.25f;
        copy = opened(saved(net), SAMPLES, NULL);
        CHECK(same_parameters(net, copy), "averages");
        WORKS(rp_average(net, 0));
        WORKS(rp_average(copy, 0));
        train_some(net, &o, p, 5);
        train_some(copy, &o, p, 5);
        CHECK(same_bytes(saved(net), saved(copy)), "written to: %d", written);
        rp_net_free(net);
        rp_net_free(copy);
        memory_release(mark);
    }
}

/* Where no step was taken, the averages are the parameters. */
static void test_first_averages(void) {
    for (int way = 0; way < 4; way++) {
        size_t mark = memory_mark();
        problem *p = new_problem();
        rp_optimizer o = rp_partitioning();
        rp_net *net = new_classifier(1), *like = new_classifier(1);
        bytes file = saved(like);
        WORKS(rp_reset(like, 8));
        if (way == 0) WORKS(rp_prepare(net, &o));
        else train_some(net, &o, p, 3);
        if (way == 3) WORKS(rp_average(net, 1)); /* also where they are in place */
        if (way == 1) WORKS(rp_reset(net, 8));
        else if (way) WORKS(rp_import_memory(net, file.at, file.size, NULL));
        memcpy(rp_parameters(like), rp_parameters(net), rp_parameter_count(net) * sizeof(rp_real));
        for (int averages = 1; averages >= 0; averages--) {
            WORKS(rp_average(net, averages));
            CHECK(same_parameters(net, like), "way %d, averages %d", way, averages);
        }
        rp_net_free(net);
        rp_net_free(like);
        memory_release(mark);
    }
}

/* A run of rp_fit with everything that it remembers, saved by its callback behind step `save_at`, or stopped there. */
typedef struct run {
    rp_net *net;
    int save_at, stop_at, calls; /* calls: of the callback, counted on */
    int fills, next;
} run;
static int at_progress(void *user, const rp_progress *progress) {
    run *r = (run *)user;
    (void)progress;
    if (r->calls == r->save_at && rp_save(r->net, path)) return 1;
    return r->calls++ == r->stop_at;
}
static int fill_some(void *user, int index, rp_data *batch) {
    run *r = (run *)user;
    const problem *p = (const problem *)(const void *)memory_blocks[0];
    int at = index * BATCH;
    CHECK(index == (index ? r->next : 0), "batch %d behind %d", index, r->next - 1);
    r->next = index + 1;
    if (at >= SAMPLES) return 0;
    *batch = p->data;
    batch->count = SAMPLES - at < BATCH ? SAMPLES - at : BATCH;
    batch->inputs += at * INPUTS;
    batch->labels += at;
    batch->weights += at;
    return 1;
}
static rp_real halving(void *user, int64_t step, rp_real rate) {
    (void)user;
    return step % 2 ? rate / 2 : rate;
}

static rp_fit_options fit_with(run *r, const rp_data *validation, const rp_optimizer *o) {
    rp_fit_options options = fit_of(3);
    options.batch = BATCH;
    options.seed = 4;
    options.validation = validation;
    options.keep_best = validation != NULL;
    options.patience = validation ? 2 : 0;
    options.progress = at_progress;
    if (o->rate > 0) options.schedule = halving;
    options.user = r;
    return options;
}
static void check_report(const rp_fit_report *a, const rp_fit_report *b, int at) {
    CHECK(a->epochs == b->epochs && a->steps == b->steps && a->loss == b->loss && a->accuracy == b->accuracy,
          "resumed at %d: %d epochs, %d steps, loss %g, not %g", at, b->epochs, (int)b->steps, (double)b->loss,
          (double)a->loss);
    CHECK(a->validation.loss == b->validation.loss && a->best_loss == b->best_loss && a->best_epoch == b->best_epoch &&
              a->stopped == b->stopped,
          "resumed at %d: best %g in %d, not %g in %d", at, (double)b->best_loss, b->best_epoch, (double)a->best_loss,
          a->best_epoch);
}

/* Streamed, validated, with a rate: 0 or 1. */
static void test_resumed_fit(int streamed, int validated, int rated) {
    size_t mark = memory_mark();
    problem *p = new_problem();
    rp_optimizer o = rp_partitioning();
    rp_data validation = rp_labelled(p->x, p->labels, 5);
    run whole = {NULL, -1, -1, 0, 0, 0};
    rp_fit_options options;
    rp_data flow = rp_streamed(fill_some, &whole);
    rp_fit_report report, again;
    rp_net *net = new_classifier(1);
    o.rate = rated ? 3 : 0;
    options = fit_with(&whole, validated ? &validation : NULL, &o);
    WORKS(rp_fit(net, &o, streamed ? &flow : &p->data, &options, &report));
    bytes expected = saved(net);
    for (int at = 0; at < whole.calls; at++) {
        run half = {NULL, at, -1, 0, 0, 0}, rest = {NULL, -1, -1, 0, 0, 0};
        rp_net *first = new_classifier(2), *second = new_classifier(1);
        half.net = first;
        options.user = flow.user = &half;
        WORKS(rp_fit(first, &o, streamed ? &flow : &p->data, &options, NULL));
        CHECK(same_bytes(saved(first), expected), "saving at %d changed the run", at);
        WORKS(rp_load(second, path));
        rest.net = second;
        options.user = flow.user = &rest;
        if (at < whole.calls - 1) { /* behind the last call the run is done, and another begins */
            WORKS(rp_fit(second, &o, streamed ? &flow : &p->data, &options, &again));
            CHECK(same_bytes(saved(second), expected), "resumed at %d of %d", at, whole.calls);
            check_report(&report, &again, at);
        }
        rp_net_free(first);
        rp_net_free(second);
    }
    rp_net_free(net);
    memory_release(mark);
}

/* The same program again and again, stopped by its callback after `every` calls. */
static void test_checkpoints(int every) {
    size_t mark = memory_mark();
    problem *p = new_problem();
    rp_optimizer o = every % 2 ? rp_adam((rp_real)0.1) : rp_partitioning();
    rp_data validation = rp_labelled(p->x, p->labels, 5);
    run whole = {NULL, -1, -1, 0, 0, 0};
    rp_fit_options options = fit_with(&whole, &validation, &o);
    rp_fit_report report, again;
    rp_net *net = new_classifier(1), *end = NULL;
    WORKS(rp_fit(net, &o, &p->data, &options, &report));
    remove(path);
    options.checkpoint = path;
    options.checkpoint_steps = 2;
    memset(&again, 0, sizeof again);
    again.stopped = 2;
    for (int runs = 0; again.stopped == 2 && CHECK(runs < 100, "%d runs", runs); runs++) {
        run part = {NULL, -1, every - 1, 0, 0, 0};
        rp_net_free(end);
        end = new_classifier(1);
        options.user = &part;
        WORKS(rp_fit(end, &o, &p->data, &options, &again));
    }
    CHECK(same_parameters(net, end), "every %d", every);
    check_report(&report, &again, every);
    bytes file = read_bytes(path);
    WORKS(rp_fit(end, &o, &p->data, &options, &again)); /* nothing is left to do */
    CHECK(same_parameters(net, end) && same_bytes(file, read_bytes(path)), "every %d, done", every);
    check_report(&report, &again, every);
    CHECK(!exists(temporary), "the temporary file is left");
    rp_net_free(net);
    rp_net_free(end);
    memory_release(mark);
}

/* A stream that ends before the batch at which the run was saved. */
static int fill_one(void *user, int index, rp_data *batch) { return index < 1 && fill_some(user, index, batch); }
static void test_shorter_stream(void) {
    size_t mark = memory_mark();
    new_problem();
    rp_optimizer o = rp_adam((rp_real)0.1);
    run r = {NULL, -1, 1, 0, 0, 0};
    rp_fit_options options = fit_with(&r, NULL, &o);
    rp_data flow = rp_streamed(fill_some, &r), less = rp_streamed(fill_one, &r);
    rp_net *net = new_classifier(1);
    options.checkpoint = path;
    remove(path);
    WORKS(rp_fit(net, &o, &flow, &options, NULL));
    FAILS(rp_fit(net, &o, &less, &options, NULL), RP_ERR_VALUE, "rp_fit data.fill batch 1 2");
    rp_net_free(net);
    memory_release(mark);
}

/* A run of two epochs that was stopped by call `stop_at` of its callback, or finished, goes on only as it began. */
static void test_other_runs(int stop_at) {
    static const char *const words[] = {"rp_fit 26 samples 25", "rp_fit batches 8 4", "rp_fit shuffled order",
                                        "rp_fit Adam SGD", "rp_fit partitioning momentum"};
    for (int other = 0; other < 5; other++) {
        size_t mark = memory_mark();
        problem *p = new_problem();
        rp_optimizer o = other == 4 ? rp_algorithm_1(3) : rp_adam((rp_real)0.1), changed = o;
        run r = {NULL, -1, stop_at, 0, 0, 0};
        rp_fit_options options = fit_with(&r, NULL, &o);
        rp_net *net = new_classifier(1), *again = new_classifier(1);
        rp_data less = p->data;
        options.epochs = 2;
        options.checkpoint = path;
        options.schedule = NULL;
        remove(path);
        WORKS(rp_fit(net, &o, &p->data, &options, NULL));
        bytes file = read_bytes(path), before = saved(again);
        r.stop_at = -1;
        less.count -= other == 0;
        if (other == 1) options.batch = 4;
        if (other == 2) options.keep_order = 1;
        if (other == 3) changed = rp_sgd((rp_real)0.1);
        if (other == 4) changed.momentum = (rp_real)0.5;
        rp_net_free(net);
        net = again;
        FAILS(rp_fit(net, &changed, &less, &options, NULL), RP_ERR_VALUE, words[other]);
        FAILS(rp_fit(net, &changed, &less, &options, NULL), RP_ERR_VALUE, "saved anew");
        CHECK(same_bytes(before, saved(net)) && same_bytes(file, read_bytes(path)), "stopped at %d, other %d: changed",
              stop_at, other);
        WORKS(rp_load(net, path)); /* the same without a checkpoint, but that a run that is done is no longer there */
        before = saved(net);
        options.checkpoint = NULL;
        if (stop_at < 9) FAILS(rp_fit(net, &changed, &less, &options, NULL), RP_ERR_VALUE, words[other]);
        if (stop_at < 9) CHECK(same_bytes(before, saved(net)), "stopped at %d, other %d: changed", stop_at, other);
        options.anew = 1;
        WORKS(rp_fit(net, &changed, &less, &options, NULL));
        rp_net_free(net);
        memory_release(mark);
    }
}

/* Before its first step a run may be taken up by any optimizer, on the same data. */
static void test_run_without_steps(void) {
    size_t mark = memory_mark();
    problem *p = new_problem();
    rp_optimizer o = rp_partitioning(), adam = rp_adam((rp_real)0.1);
    rp_net *net = new_classifier(1), *other = new_classifier(1);
    rp_fit_options options = fit_of(1);
    options.checkpoint = path;
    remove(path);
    train_some(net, &adam, p, 2);
    p->x[0] = (rp_real)NAN;
    FAILS(rp_fit(net, &adam, &p->data, &options, NULL), RP_ERR_NOT_FINITE, "rp_fit");
    p->x[0] = 1;
    WORKS(rp_fit(other, &o, &p->data, &options, NULL));
    remove(path);
    rp_net_free(net);
    rp_net_free(other);
    memory_release(mark);
}

/* A finished run goes on with more epochs to the bits of one that had them at once; patience that has ended a run ends
   it again unless there is more of it. */
static void test_more_epochs(void) {
    for (int which = 0; which < 4; which++) {
        size_t mark = memory_mark();
        problem *p = new_problem();
        rp_optimizer o = which % 2 ? rp_adam((rp_real)0.1) : rp_partitioning();
        rp_data validation = rp_labelled(p->x, p->labels, 5);
        run r = {NULL, -1, -1, 0, 0, 0};
        rp_fit_options options = fit_with(&r, which / 2 ? &validation : NULL, &o);
        rp_net *net = new_classifier(1), *parts = NULL;
        rp_fit_report report, again;
        options.patience = 0;
        options.epochs = 5;
        WORKS(rp_fit(net, &o, &p->data, &options, &report));
        remove(path);
        options.checkpoint = path;
        for (int epochs = 1; epochs <= 5; epochs += 2) {
            rp_net_free(parts);
            parts = new_classifier(1);
            options.epochs = epochs;
            WORKS(rp_fit(parts, &o, &p->data, &options, &again));
        }
        CHECK(same_bytes(saved(net), saved(parts)), "optimizer %d", which);
        check_report(&report, &again, which);
        rp_net_free(net);
        rp_net_free(parts);
        memory_release(mark);
    }
}

static void test_more_patience(void) {
    size_t mark = memory_mark();
    problem *p = new_problem();
    rp_optimizer o = rp_sgd((rp_real)1e-30); /* no epoch is better than the first */
    rp_data validation = rp_labelled(p->x, p->labels, 5);
    run r = {NULL, -1, -1, 0, 0, 0};
    rp_fit_options options = fit_with(&r, &validation, &o);
    rp_fit_report report;
    options.schedule = NULL;
    options.epochs = 20;
    options.checkpoint = path;
    remove(path);
    for (int patience = 2; patience <= 6; patience += 2)
        for (int twice = 0; twice < 2; twice++) {
            rp_net *net = new_classifier(1);
            options.patience = patience;
            WORKS(rp_fit(net, &o, &p->data, &options, &report));
            CHECK(report.stopped == 1 && report.epochs == patience + 1, "patience %d: %d epochs, stopped %d", patience,
                  report.epochs, report.stopped);
            rp_net_free(net);
        }
    remove(path);
    memory_release(mark);
}

/* options.anew: the file is not read, but replaced. */
static void test_checkpoint_anew(void) {
    size_t mark = memory_mark();
    problem *p = new_problem();
    rp_optimizer o = rp_partitioning();
    rp_net *net = new_classifier(1), *other = build_text("input vector 6; dense 3", SAMPLES, NULL);
    rp_net *expected = new_classifier(1);
    rp_fit_options options = fit_of(1);
    WORKS(rp_fit(expected, &o, &p->data, &options, NULL));
    WORKS(rp_save(other, path));
    options.checkpoint = path;
    options.anew = 1;
    for (int twice = 0; twice < 2; twice++) {
        rp_net_free(net);
        net = new_classifier(1);
        WORKS(rp_fit(net, &o, &p->data, &options, NULL));
        CHECK(same_parameters(net, expected), "run %d", twice);
    }
    rp_net_free(net);
    rp_net_free(other);
    rp_net_free(expected);
    memory_release(mark);
}

static void test_checkpoint_mistakes(void) {
    size_t mark = memory_mark();
    problem *p = new_problem();
    rp_optimizer o = rp_sgd((rp_real)0.1);
    rp_net *net = new_classifier(1), *other = build_text("input vector 6; dense 3", SAMPLES, NULL);
    run r = {net, 1, -1, 0, 0, 0};
    rp_fit_options options = fit_with(&r, NULL, &o);
    bytes before = saved(net);
    options.checkpoint_steps = 3;
    FAILS(rp_fit(net, &o, &p->data, &options, NULL), RP_ERR_VALUE, "rp_fit checkpoint_steps 3");
    options.checkpoint = "no such folder/file";
    FAILS(rp_fit(net, &o, &p->data, &options, NULL), RP_ERR_FILE, "rp_fit checkpoint no such folder/file");
    CHECK(same_bytes(before, saved(net)), "trained");
    options.checkpoint = path;
    WORKS(rp_save(other, path));
    FAILS(rp_fit(net, &o, &p->data, &options, NULL), RP_ERR_SHAPE, "rp_fit checkpoint layers");
    CHECK(same_bytes(before, saved(net)), "trained");
    options.checkpoint = NULL;
    options.checkpoint_steps = 0;
    WORKS(rp_fit(net, &o, &p->data, &options, NULL));
    WORKS(rp_load(net, path)); /* in the midst of the first epoch */
    options.batch = 4;
    FAILS(rp_fit(net, &o, &p->data, &options, NULL), RP_ERR_VALUE, "rp_fit saved 26 8, shuffled 4, shuffled anew");
    options.anew = 1;
    WORKS(rp_fit(net, &o, &p->data, &options, NULL));
    rp_net_free(net);
    rp_net_free(other);
    memory_release(mark);
}

#ifdef HAVE_FORK
/* In a process of its own. */
static void test_new_process(void) {
    size_t mark = memory_mark();
    problem *p = new_problem();
    rp_optimizer o = rp_partitioning();
    rp_net *net = new_classifier(1);
    int status = -1;
    train_some(net, &o, p, 3);
    WORKS(rp_save(net, path));
    train_some(net, &o, p, 3);
    pid_t child = fork();
    if (!child) {
        rp_net *copy = rp_open(path, NULL);
        rp_status failed = rp_net_build(copy, SAMPLES, 1);
        for (int i = 0; i < 3 && !failed; i++) failed = rp_train(copy, &o, &p->data, NULL);
        if (!failed) failed = rp_save(copy, path);
        rp_net_free(copy);
        rp_net_free(net);
        _exit(failed != RP_OK);
    }
    waitpid(child, &status, 0);
    CHECK(status == 0 && same_bytes(read_bytes(path), saved(net)), "status %d", status);
    rp_net_free(net);
    memory_release(mark);
}

/* A program that saves one of two nets, again and again, is killed at any moment: one of the two is there, whole. */
static void test_killed(void) {
    size_t mark = memory_mark();
    rp_net *nets[2];
    bytes files[2];
    test_random random = {3};
    int seen = 0;
    int longest = 5000; /* microseconds until it is killed: more, until both have been there, on slow machines */
    for (int i = 0; i < 2; i++) {
        rp_net *net = build_text("input vector 60; dense 70; relu; dense 10", 1, NULL);
        WORKS(rp_reset(net, (uint64_t)i + 1));
        files[i] = saved(net);
        nets[i] = net;
    }
    CHECK(!rp_save(nets[0], path), "%s", rp_error(nets[0]));
    for (int round = 0; round < 100; round++) {
        struct timespec wait = {0, 1000L * test_int(&random, 0, longest)};
        pid_t child = fork();
        if (!child)
            for (int i = 0;; i++)
                if (rp_save(nets[(round + i) % 2], path)) _exit(1);
        nanosleep(&wait, NULL);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        rp_net *net = rp_open(path, NULL);
        WORKS(rp_net_build(net, 1, 1));
        bytes file = read_bytes(path);
        int which = same_bytes(file, files[1]);
        CHECK(which || same_bytes(file, files[0]), "round %d: %d bytes are neither file", round, (int)file.size);
        seen |= 1 << which;
        if (seen == 3) longest = 5000;
        else if (longest < 500000) longest *= 2;
        rp_net_free(net);
    }
    CHECK(seen == 3, "only one of the files was ever there");
    rp_net_free(nets[0]);
    rp_net_free(nets[1]);
    remove(temporary);
    memory_release(mark);
}
#endif

/* An empty path, and a directory, are told from a file that cannot be opened. */
static void test_paths(void) {
    rp_optimizer o = rp_sgd((rp_real)0.1);
    rp_fit_options options = fit_of(1);
    problem *p = new_problem();
    for (int directory = 0; directory < 2; directory++) {
        const char *place = directory ? "." : "", *words = directory ? ". directory" : "path empty";
        rp_status status = directory ? RP_ERR_FILE : RP_ERR_VALUE;
        rp_net *net = rp_open(place, NULL);
        FAILS(rp_net_build(net, 1, 1), status, words);
        rp_net_free(net);
        net = new_classifier(1);
        FAILS(rp_save(net, place), status, words);
        FAILS(rp_load(net, place), status, words);
        FAILS(rp_import(net, place, NULL), status, words);
        options.checkpoint = place;
        FAILS(rp_fit(net, &o, &p->data, &options, NULL), status, words);
        FAILS(rp_fit(net, &o, &p->data, &options, NULL), status, "rp_fit checkpoint");
        options.anew = 1;
        FAILS(rp_fit(net, &o, &p->data, &options, NULL), status, words);
        options.anew = 0;
        rp_net_free(net);
    }
}

#ifdef HAVE_FORK
static int is_link(const char *name) {
    struct stat what;
    return !lstat(name, &what) && S_ISLNK(what.st_mode);
}

/* What is no file is not replaced by one, be it named itself or by a link. */
static void test_no_files(void) {
    static const char *const links[][3] = {{"test_files.pipe", "device", "/dev/null"},
                                           {"test_files.pipe", "directory", "."},
                                           {"test_files.link", "pipe", "test_files.pipe"},
                                           {"test_files.link", "links", "test_files.link"}};
    rp_net *net = new_classifier(1);
    rp_optimizer o = rp_sgd((rp_real)0.1);
    rp_fit_options options = fit_of(1);
    problem *p = new_problem();
    struct stat what;
    for (int i = 0; i < 4; i++) {
        const char *name = links[i][0];
        CHECK(!symlink(links[i][2], name), "%s", name);
        if (i == 2) CHECK(!mkfifo(links[i][2], 0600), "%s", links[i][2]);
        FAILS(rp_save(net, name), RP_ERR_FILE, "rp_save test_files");
        FAILS(rp_save(net, name), RP_ERR_FILE, links[i][1]);
        options.checkpoint = name;
        FAILS(rp_fit(net, &o, &p->data, &options, NULL), RP_ERR_FILE, i < 3 ? links[i][1] : "checkpoint opened");
        CHECK(is_link(name), "%s is no longer a link", name);
        if (i == 2) FAILS(rp_save(net, links[i][2]), RP_ERR_FILE, "rp_save test_files.pipe pipe");
        CHECK(i != 2 || (!lstat(links[i][2], &what) && S_ISFIFO(what.st_mode)), "%s is no longer a pipe", links[i][2]);
        if (i == 2) remove(links[i][2]);
        remove(name);
    }
    CHECK(!mkfifo(temporary, 0600), "%s", temporary); /* where the new file would be written */
    FAILS(rp_save(net, path), RP_ERR_FILE, "rp_save .tmp pipe");
    CHECK(!lstat(temporary, &what) && S_ISFIFO(what.st_mode), "%s is no longer a pipe", temporary);
    remove(temporary);
    FAILS(rp_load(net, "/dev/zero"), RP_ERR_MAGIC, "rp_load /dev/zero"); /* which has no end */
    rp_net_free(net);
}

/* A link stays, and the file to which it leads is replaced, or made, in its own folder. */
static void test_links(void) {
    size_t mark = memory_mark();
    rp_net *net = new_classifier(1);
    bytes file = saved(net);
    remove("test_files.far");
    CHECK(!mkdir("test_files.d", 0700) && !symlink("test_files.d/near", "test_files.link"), "links cannot be made");
    CHECK(!symlink("../test_files.far", "test_files.d/near"), "links cannot be made");
    for (int there = 0; there < 2; there++) {
        WORKS(rp_save(net, "test_files.link"));
        CHECK(same_bytes(file, read_bytes("test_files.far")), "%d: not what was saved", there);
        CHECK(is_link("test_files.link") && is_link("test_files.d/near"), "%d: a link is gone", there);
        WORKS(rp_load(net, "test_files.link"));
        WORKS(rp_reset(net, 8));
        file = saved(net);
    }
    CHECK(!exists("test_files.far.tmp"), "the temporary file is left");
    remove("test_files.d/near");
    remove("test_files.d");
    remove("test_files.link");
    remove("test_files.far");
    rp_net_free(net);
    memory_release(mark);
}
#endif

/* Every call that writes, flushes, closes or renames fails once. */
static void test_failing_disk(void) {
    size_t mark = memory_mark();
    library_calls usual = library;
    rp_net *net = new_classifier(1), *other = new_classifier(1);
    WORKS(rp_reset(other, 8));
    remove(path);
    let_disk_fail();
    for (int replaced = 0; replaced < 2; replaced++) {
        bytes old = read_bytes(path);
        rp_status status = RP_ERR_FILE;
        for (long n = 0; status; n++) {
            io_calls = 0;
            io_fail_at = n;
            status = rp_save(replaced ? other : net, path);
            io_fail_at = -1;
            if (!status) break;
            CHECK(status == RP_ERR_FILE && has_words(rp_error(replaced ? other : net), "rp_save test_files cannot"),
                  "call %ld: %d", n, status);
            CHECK(!exists(temporary), "call %ld leaves the temporary file", n);
            CHECK(exists(path) == replaced && (!replaced || same_bytes(old, read_bytes(path))),
                  "call %ld changes the old file", n);
        }
        CHECK(io_calls > 10, "%ld calls", io_calls);
        CHECK(same_bytes(read_bytes(path), saved(replaced ? other : net)), "not what was saved");
    }
    library = usual;
    rp_net_free(net);
    rp_net_free(other);
    memory_release(mark);
}

/* Every allocation fails once; nothing leaks, and what was there stays. */
static void test_no_memory(void) {
    size_t mark = memory_mark();
    problem *p = new_problem();
    rp_optimizer o = rp_adam((rp_real)0.1);
    rp_net *source = new_classifier(1);
    train_some(source, &o, p, 2);
    CHECK(!rp_save(source, path), "%s", rp_error(source));
    for (int way = 0; way < 4; way++) {
        rp_status status = RP_ERR_MEMORY;
        for (long n = 0; status && n < 200; n++) {
            heap h = new_heap();
            rp_config config = heap_config(&h);
            rp_net *net = NULL;
            h.fail_at = way < 2 ? n : -1;
            bytes file = read_bytes(path);
            if (way == 0) net = rp_open(path, &config);
            else if (way == 1) net = rp_open_memory(file.at, file.size, &config);
            else net = rp_net_text(classifier, &config);
            status = net ? rp_net_build(net, SAMPLES, 1) : RP_ERR_MEMORY;
            if (way >= 2) {
                bytes before = saved(net);
                h.fail_at = h.calls + n;
                status = way == 2 ? rp_load(net, path) : rp_import(net, path, NULL);
                h.fail_at = -1;
                if (status) CHECK(same_bytes(before, saved(net)), "changed by a failure at %ld", n);
            }
            CHECK(!status || status == RP_ERR_MEMORY, "way %d, allocation %ld: %d: %s", way, n, status, rp_error(net));
            if (!status) CHECK(same_parameters(net, source), "way %d", way);
            rp_net_free(net);
            CHECK(!h.live, "way %d, allocation %ld: %ld blocks are left", way, n, h.live);
        }
        CHECK(!status, "way %d never works", way);
    }
    heap h = new_heap(); /* one allocation for the file, those of the description, two or three of the build */
    rp_config config = heap_config(&h);
    rp_net *net = rp_open(path, &config);
    CHECK(h.calls == 3, "%ld allocations: the net, the file, its layers", h.calls);
    rp_net_free(net);
    rp_net_free(source);
    memory_release(mark);
}

/* Invalid files. */

static bytes file_of(const char *header, size_t data) {
    size_t length = strlen(header);
    bytes b = new_bytes(8 + length + data);
    for (int i = 0; i < 8; i++) b.at[i] = (unsigned char)((uint64_t)length >> 8 * i);
    memcpy(b.at + 8, header, length);
    return b;
}

/* Opened and loaded, from memory and from a path: each refuses alike, and a net into which it is loaded stays. */
static rp_status refused(bytes file, const char *words, int by_path) {
    rp_net *net = rp_open_memory(file.at, file.size, NULL), *built = build_text("input vector 2; dense 1", 1, NULL);
    bytes before = saved(built);
    rp_status status = rp_net_build(net, 1, 1);
    CHECK(status && has_words(rp_error(net), "rp_open_memory") && has_words(rp_error(net), words),
          "%d: '%s' lacks '%s'", status, rp_error(net), words);
    rp_status loaded = rp_load_memory(built, file.at, file.size);
    CHECK(loaded == status && has_words(rp_error(built), words), "%d, not %d: '%s' lacks '%s'", loaded, status,
          rp_error(built), words);
    CHECK(same_bytes(before, saved(built)), "'%s': the net has changed", words);
    rp_net_free(net);
    rp_net_free(built);
    if (!by_path) return status;
    write_bytes(file);
    net = rp_open(path, NULL);
    loaded = rp_net_build(net, 1, 1);
    CHECK(loaded == status && has_words(rp_error(net), "rp_open test_files") && has_words(rp_error(net), words),
          "%d, not %d: '%s' lacks '%s'", loaded, status, rp_error(net), words);
    rp_net_free(net);
    return status;
}

static const char metadata[] =
    "\"__metadata__\":{\"rp.net\":\"input vector 2; dense 1\",\"rp.optimizer\":\"none\",\"rp.random\":\"1\","
    "\"rp.epochs\":\"0\",\"rp.time\":\"0\",\"rp.sigma\":\"0\",\"rp.sigma_from\":\"0\","
    "\"rp.averaged\":\"0\",\"rp.folded\":\"0\",\"rp.averages_print\":\"0\",\"rp.pace.curvature\":\"0\","
    "\"rp.pace.loss\":\"0\",\"rp.pace.first\":\"0\",\"rp.pace.least\":\"0\",\"rp.pace.limit\":\"0\","
    "\"rp.pace.length\":\"0\",\"rp.pace.measurements\":\"0\",\"rp.pace.cap\":\"0\"}";
#define WEIGHT "\"0.weight\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]}"
#define BIAS "\"0.bias\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}"

static void test_refused_headers(void) {
    static const struct {
        const char *tensors; /* behind the metadata; or, with '{' first, all of the header */
        size_t data;
        rp_status status;
        const char *words;
    } files[] = {
        {"x", 12, RP_ERR_MAGIC, "safetensors bytes"},
        {"[]", 12, RP_ERR_MAGIC, "safetensors {"},
        {"{", 12, RP_ERR_MAGIC, "safetensors"},
        {"{ ", 12, RP_ERR_VALUE, "byte 2 string"},
        {"{}", 0, RP_ERR_VALUE, "rp.net rp_save rp_import"},
        {"{} x", 0, RP_ERR_VALUE, "byte 3 end"},
        {"{,}", 0, RP_ERR_VALUE, "byte 1 string"},
        {"{\"a\"}", 0, RP_ERR_VALUE, "byte 4 ':'"},
        {"{\"a\":1}", 0, RP_ERR_VALUE, "byte 5 '{'"},
        {"{\"a\":{\"dtype\":{\"dtype\":{}}}}", 0, RP_ERR_VALUE, "string"},
        {"{\"a\":{}}", 0, RP_ERR_VALUE, "tensor a lacks"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[]}}", 0, RP_ERR_VALUE, "tensor a lacks"},
        {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}", 0, RP_ERR_VALUE, "tensor a twice"},
        {"{\"a\":{\"type\":\"F32\"}}", 0, RP_ERR_VALUE, "tensor a field"},
        {"{\"a\":{\"dtype\":\"Q4\"}}", 0, RP_ERR_UNSUPPORTED, "tensor a type Q4"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[[1]]}}", 0, RP_ERR_VALUE, "whole number"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1]}}", 0, RP_ERR_VALUE, "whole number"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5]}}", 0, RP_ERR_VALUE, "','"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[01]}}", 0, RP_ERR_VALUE, "whole number"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1]}}", 0, RP_ERR_VALUE, "tensor a 8 dimensions"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[18446744073709551617]}}", 0, RP_ERR_VALUE, "smaller number"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0, RP_ERR_OVERFLOW,
         "tensor a addressed"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, RP_ERR_VALUE, "','"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, RP_ERR_VALUE, "']'"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, RP_ERR_VALUE,
         "tensor a ends 0 before 4"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}", 4, RP_ERR_TRUNCATED, "tensor a 8 4"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, RP_ERR_VALUE, "tensor a 4 bytes 8"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, RP_ERR_VALUE, "tensor a 4 0"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 8, RP_ERR_TRAILING, "8 4"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
         12, RP_ERR_VALUE, "tensor b 4 8"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[12,16]}}",
         16, RP_ERR_VALUE, "tensor b 12 8"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"\\u0061\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         8, RP_ERR_VALUE, "tensor a twice"},
        {"{\"__metadata__\":{\"a\":1}}", 0, RP_ERR_VALUE, "string"},
        {"{\"__metadata__\":{\"a\":{\"b\":\"c\"}}}", 0, RP_ERR_VALUE, "string"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, RP_ERR_VALUE, "__metadata__ twice"},
        {"{\"a\n\":1}", 0, RP_ERR_VALUE, "UTF-8"},
        {"{\"a\xFF\":1}", 0, RP_ERR_VALUE, "UTF-8"},
        {"{\"\xC0\x80\":1}", 0, RP_ERR_VALUE, "UTF-8"},
        {"{\"\xED\xA0\x80\":1}", 0, RP_ERR_VALUE, "UTF-8"},
        {"{\"a\\x\":1}", 0, RP_ERR_VALUE, "escape"},
        {"{\"a\\ud800\":1}", 0, RP_ERR_VALUE, "escape"},
        {"{\"a\\ud83d\\u0041\":1}", 0, RP_ERR_VALUE, "escape"},
        {"{\"a\\uD83D\\uDe00\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"a\xF0\x9F\x98\x80\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         8, RP_ERR_VALUE, "tensor twice"},
        {"{\"a\\", 0, RP_ERR_VALUE, "escape"},
        {"{\"abc", 0, RP_ERR_VALUE, "end string"},
        {WEIGHT, 8, RP_ERR_VALUE, "tensor 0.bias bias layer 0 (dense) [1]"},
        {WEIGHT "," BIAS ",\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[12,13]}", 13, RP_ERR_VALUE,
         "3 tensors 2"},
        {WEIGHT "," BIAS ",\"optimizer.first\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[12,24]}", 24,
         RP_ERR_VALUE, "optimizer.first method none"},
        {"\"0.weight\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[0,8]}," BIAS, 12, RP_ERR_SHAPE,
         "tensor 0.weight [2, 1] weight layer 0 (dense) [1, 2]"},
        {"\"0.weight\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}," BIAS, 12, RP_ERR_SHAPE,
         "tensor 0.weight [2] [1, 2]"},
        {"\"0.weight\":{\"dtype\":\"I32\",\"shape\":[1,2],\"data_offsets\":[0,8]}," BIAS, 12, RP_ERR_UNSUPPORTED,
         "tensor 0.weight type I32"},
        {WEIGHT "," BIAS "," BIAS, 12, RP_ERR_VALUE, "tensor 0.bias"},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        size_t mark = memory_mark();
        char *header = (char *)take(4000);
        const char *tensors = files[i].tensors;
        int whole = *tensors != '"';
        snprintf(header, 4000, whole ? "%s%s" : "{%s,%s}", whole ? "" : metadata, tensors);
        rp_status status = refused(file_of(header, files[i].data), files[i].words, 1);
        CHECK(status == files[i].status, "%d, not %d: %s", status, files[i].status, header);
        memory_release(mark);
    }
}

/* As many layers as a text may have, and one more. */
static void test_many_layers(void) {
    enum { MOST = 65536 };
    size_t mark = memory_mark(), length = 0;
    char *text = (char *)take(20 + 5 * (MOST + 1));
    strcpy(text, "input vector 1;");
    for (int i = 0; i < MOST + 1; i++) memcpy(text + 15 + 5 * i, "relu;", 5);
    rp_net *net = rp_net_text(text, NULL);
    FAILS(rp_net_build(net, 1, 1), RP_ERR_VALUE, "more 65536 layers");
    rp_net_free(net);
    text[15 + 5 * MOST] = 0;
    net = rp_net_text(text, NULL);
    CHECK(rp_activation(net, RP_RELU) == MOST, "%s", rp_error(net));
    WORKS(rp_net_build(net, 1, 1));
    FAILS(rp_save_memory(net, NULL, 0, &length), RP_ERR_UNSUPPORTED, "65537 layers 65536");
    rp_net_free(net);
    memory_release(mark);
}

/* A byte of 0 is not white space. */
static void test_refused_zeros(void) {
    static const char *const headers[] = {"{} ", "{\"a\":{\"dtype\":\"F32\",\"shape\":[ 1],\"data_offsets\":[0,4]}}"};
    for (int i = 0; i < 2; i++) {
        size_t mark = memory_mark();
        bytes file = file_of(headers[i], i ? 4 : 0);
        char *space = (char *)memchr(file.at + 8, ' ', file.size - 8);
        *space = 0;
        CHECK(refused(file, i ? "whole number" : "byte 2 end", 1) == RP_ERR_VALUE, "header %d", i);
        memory_release(mark);
    }
}

static void test_refused_metadata(void) {
    static const struct {
        const char *from, *to; /* replaced in the metadata */
        rp_status status;
        const char *words;
    } changes[] = {
        {"dense 1", "dense 2", RP_ERR_SHAPE, ""},
        {"dense 1", "dens 1", RP_ERR_VALUE, "rp.net layer 0 'dens'"},
        {"input vector 2; dense 1", "", RP_ERR_VALUE, "rp.net empty"},
        {"\"rp.net\"", "\"rp.nat\"", RP_ERR_UNSUPPORTED, "rp.nat version"},
        {"\"rp.net\"", "\"np.net\"", RP_ERR_VALUE, "rp.net rp_import"},
        {"none", "nune", RP_ERR_VALUE, "rp.optimizer nune"},
        {"none", "adam", RP_ERR_VALUE, "optimizer.first missing adam"},
        {"\"rp.time\":\"0\"", "\"rp.time\":\"-1\"", RP_ERR_VALUE, "rp.time -1"},
        {"\"rp.time\":\"0\"", "\"rp.time\":\"9223372036854775807\"", RP_ERR_VALUE, "rp.time"},
        {"\"rp.time\":\"0\"", "\"rp.time\":\"\"", RP_ERR_VALUE, "rp.time not a word"},
        {"\"rp.time\":\"0\"", "\"rp.time\":\"1 2\"", RP_ERR_VALUE, "rp.time not a word"},
        {"\"rp.time\":\"0\"", "\"rp.time\":\" 0\"", RP_ERR_VALUE, "rp.time not a word"},
        {"\"rp.time\":\"0\"", "\"rp.time\":\"0 \"", RP_ERR_VALUE, "rp.time not a word"},
        {"\"rp.time\":\"0\"", "\"rp.time\":\"\\t0\"", RP_ERR_VALUE, "rp.time not a word"},
        {"\"rp.sigma\":\"0\"", "\"rp.sigma\":\" 0\"", RP_ERR_VALUE, "rp.sigma not a word"},
        {"none", " none", RP_ERR_VALUE, "rp.optimizer not a word"},
        {"\"rp.time\":\"0\"", "\"time\":\"0\"", RP_ERR_VALUE, "lacks numbers"},
        {"\"rp.folded\":\"0\"", "\"folded\":\"0\"", RP_ERR_VALUE, "lacks numbers"},
        {"\"rp.random\"", "\"rp.rendom\":\"0\",\"rp.random\"", RP_ERR_UNSUPPORTED, "rp.rendom version"},
        {"\"rp.random\"", "\"rp.format\":\"3\",\"rp.random\"", RP_ERR_UNSUPPORTED, "format 3 2 version " RP_VERSION},
        {"\"rp.random\"", "\"rp.format\":\"3\",\"rp.new\":\"\",\"rp.version\":\"7.8.9\",\"rp.random\"",
         RP_ERR_UNSUPPORTED, "format 3 version 7.8.9 " RP_VERSION},
        {"\"rp.random\"", "\"rp.new\":\"\",\"rp.version\":\"7.8.9\",\"rp.format\":\"3\",\"rp.random\"",
         RP_ERR_UNSUPPORTED, "format 3 version 7.8.9 " RP_VERSION},
        {"\"rp.random\"", "\"rp.format\":\"0\",\"rp.random\"", RP_ERR_VALUE, "rp.format 0"},
        {"\"rp.random\"", "\"rp.format\":\"one\",\"rp.random\"", RP_ERR_VALUE, "rp.format one"},
        {"\"rp.random\"", "\"rp.format\":\"1\",\"rp.format\":\"1\",\"rp.random\"", RP_ERR_VALUE, "rp.format twice"},
        {"\"rp.random\"", "\"rp.version\":\"1\",\"rp.version\":\"1\",\"rp.random\"", RP_ERR_VALUE, "rp.version twice"},
        {"\"rp.random\"", "\"rp.version\":\"1 2\",\"rp.random\"", RP_ERR_VALUE, "rp.version not a word"},
        {"\"rp.time\":\"0\"", "\"rp.time\":\"0\",\"rp.time\":\"0\"", RP_ERR_VALUE, "rp.time twice"},
        {"\"rp.time\":\"0\"", "\"rp.time\":\"0\",\"rp.fit.step\":\"0\"", RP_ERR_VALUE, "lacks numbers"},
        {"\"rp.random\":\"1\"", "\"rp.random\":\"18446744073709551616\"", RP_ERR_VALUE, "rp.random"},
        {"\"rp.sigma\":\"0\"", "\"rp.sigma\":\"-1\"", RP_ERR_VALUE, "rp.sigma -1"},
        {"\"rp.sigma\":\"0\"", "\"rp.sigma\":\"inf\"", RP_ERR_VALUE, "rp.sigma inf"},
        {"\"rp.sigma\":\"0\"", "\"rp.sigma\":\"1e999\"", RP_ERR_VALUE, "rp.sigma"},
        {"\"rp.net\"", "\"rp.net\":\"\",\"rp.net\"", RP_ERR_VALUE, "rp.net twice"},
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        size_t mark = memory_mark();
        char *header = (char *)take(4000);
        const char *found = strstr(metadata, changes[i].from);
        if (!CHECK(found, "%s", changes[i].from)) continue;
        snprintf(header, 4000, "{%.*s%s%s," WEIGHT "," BIAS "}", (int)(found - metadata), metadata, changes[i].to,
                 found + strlen(changes[i].from));
        rp_status status = refused(file_of(header, 12), changes[i].words, 0);
        CHECK(status == changes[i].status, "%d, not %d: %s", status, changes[i].status, header);
        memory_release(mark);
    }
}

/* What residual partitioning without a rate measured cannot be below 0. */
static void test_refused_pace(void) {
    static const rp_real x[] = {1, 2, 3, -1}, targets[] = {1, 0};
    static const char key[] = "rp.pace.curvature\":\"";
    rp_net *net = build_text("input vector 2; dense 1", 2, NULL);
    rp_optimizer o = rp_partitioning();
    rp_data data = rp_targeted(x, targets, 2);
    size_t at = 0;
    for (int i = 0; i < 5; i++) WORKS(rp_train(net, &o, &data, NULL));
    bytes file = saved(net);
    while (at + sizeof key < file.size && memcmp(file.at + at, key, sizeof key - 1)) at++;
    memcpy(file.at + at + sizeof key - 1, "-1", 2);
    FAILS(rp_load_memory(net, file.at, file.size), RP_ERR_VALUE, "rp_load_memory rp.pace");
    rp_net_free(net);
}

/* A small net with a state. */
static bytes small_file(void) {
    static const rp_real x[] = {1, 2, 3, -1}, targets[] = {1, 0};
    rp_net *net =
        build_text("input vector 2; dense 2 frozen; elu slope 0.3; dense 1 no_bias; loss huber delta 2", 2, NULL);
    rp_optimizer o = rp_adam((rp_real)0.1);
    rp_data data = rp_targeted(x, targets, 2);
    WORKS(rp_train(net, &o, &data, NULL));
    bytes b = saved(net);
    rp_net_free(net);
    return b;
}

static bytes exact_copy(bytes file) { /* so that a sanitizer sees what is read beyond its end */
    bytes copy = {(unsigned char *)malloc(file.size + !file.size), file.size};
    if (!copy.at) exit(2);
    memcpy(copy.at, file.at, file.size);
    return copy;
}

/* The file, which may be invalid, opened and loaded. Where it is not refused, how many numbers differ from those of
   the net; -1: refused. */
static int differences(bytes file, rp_net *like, const rp_config *config) {
    bytes copy = exact_copy(file);
    rp_net *net = rp_open_memory(copy.at, copy.size, config);
    int count = 0;
    rp_status status;
    free(copy.at);
    status = rp_net_build(net, 2, 1);
    if (status) {
        CHECK(*rp_error(net), "%d without a message", status);
        count = -1;
    } else {
        for (size_t i = 0; i < rp_parameter_count(net); i++)
            count += !same_reals(rp_parameters(net) + i, rp_parameters(like) + i, 1);
        for (int which = 0; which < 2; which++) {
            const rp_real *state = library_state(net, which), *other = library_state(like, which);
            for (size_t i = 0; i < rp_parameter_count(net) && state; i++) count += !same_reals(state + i, other + i, 1);
        }
    }
    rp_net_free(net);
    return count;
}

static void test_mutations(void) {
    size_t mark = memory_mark();
    bytes file = small_file();
    rp_config config = config_of(RP_ISA_PORTABLE, 0);
    rp_net *net = opened(file, 2, NULL);
    size_t numbers = 3 * rp_parameter_count(net) * sizeof(rp_real), begin = file.size - numbers;
    int taken = 0;
    CHECK(differences(file, net, &config) == 0, "%d", differences(file, net, &config));
    for (size_t at = 0; at < file.size; at++)
        for (int way = 0; way < 10; way++) {
            unsigned char old = file.at[at];
            unsigned char mutant = (unsigned char)(way < 8 ? old ^ 1 << way : way == 8 ? 0 : 255);
            file.at[at] = mutant;
            int count = differences(file, net, &config), most = at >= begin && mutant != old;
            CHECK(count <= most && (count >= 0 || mutant != old), "byte %d is %d: %d differences", (int)at, mutant,
                  count);
            if (at >= begin && count < 0) {
                config.not_finite = 1;
                count = differences(file, net, &config);
                CHECK(count == 1, "byte %d is %d: %d differences, not finite", (int)at, mutant, count);
                config.not_finite = 0;
            }
            taken += count >= 0;
            file.at[at] = old;
        }
    CHECK(taken > (int)numbers, "%d of %d were taken", taken, (int)file.size * 10);
    for (size_t size = 0; size < file.size; size++) {
        bytes less = {file.at, size};
        CHECK(differences(less, net, &config) == -1, "%d bytes", (int)size);
    }
    bytes more = new_bytes(file.size + 1);
    memcpy(more.at, file.at, file.size);
    CHECK(differences(more, net, &config) == -1, "a byte more");
    rp_net_free(net);
    memory_release(mark);
}

/* A net that was opened may be changed before the build, but not so that the file no longer fits. */
static void test_opened(void) {
    size_t mark = memory_mark();
    bytes file = small_file();
    rp_net *net = rp_open_memory(file.at, file.size, NULL), *same;
    WORKS(rp_freeze(net, 2, 1));
    WORKS(rp_freeze(net, 0, 0));
    WORKS(rp_net_build(net, 2, 1));
    same = opened(file, 2, NULL);
    CHECK(same_parameters(net, same), "frozen");
    WORKS(rp_load_memory(net, file.at, file.size)); /* frozen layers are no part of the architecture */
    CHECK(strstr(described(net), "dense 1 no_bias frozen"), "%s", described(net));
    rp_net_free(net);
    net = rp_open_memory(file.at, file.size, NULL);
    rp_dense(net, 3);
    FAILS(rp_net_build(net, 2, 1), RP_ERR_VALUE, "rp_net_build 3.weight layer 3 (dense) [3, 1]");
    rp_net_free(net);
    net = rp_open_memory(file.at, file.size, NULL);
    WORKS(rp_no_bias(net, 0));
    FAILS(rp_net_build(net, 2, 1), RP_ERR_SHAPE, "rp_net_build optimizer.first [8] [6]");
    rp_net_free(net);
    net = rp_open_memory(NULL, 3, NULL);
    FAILS(rp_net_build(net, 2, 1), RP_ERR_NULL, "rp_open_memory bytes NULL");
    rp_net_free(net);
    net = rp_net_text(classifier, NULL);
    size_t size = 0;
    FAILS(rp_save_memory(net, NULL, 0, &size), RP_ERR_ORDER, "rp_save_memory built");
    FAILS(rp_load_memory(net, file.at, file.size), RP_ERR_ORDER, "rp_load_memory built");
    WORKS(rp_net_build(net, 1, 1));
    FAILS(rp_save_memory(net, NULL, 0, NULL), RP_ERR_NULL, "rp_save_memory length");
    FAILS(rp_save_memory(net, file.at, 10, &size), RP_ERR_VALUE, "rp_save_memory 10 bytes");
    FAILS(rp_save(net, NULL), RP_ERR_NULL, "rp_save path");
    FAILS(rp_load(net, NULL), RP_ERR_NULL, "rp_load path");
    FAILS(rp_load(net, "no such file"), RP_ERR_FILE, "rp_load no such file opened");
    char *endless = (char *)take(5000);
    memset(endless, 'a', 4999);
    endless[4999] = 0;
    FAILS(rp_save(net, endless), RP_ERR_VALUE, "rp_save 4999 4091");
    FAILS(rp_load_memory(net, file.at, file.size), RP_ERR_SHAPE, "rp_load_memory input vector 2' 6'");
    FAILS(rp_import(net, NULL, NULL), RP_ERR_NULL, "rp_import path");
    CHECK(rp_load(NULL, path) == RP_ERR_NULL && rp_save(NULL, path) == RP_ERR_NULL, "no net");
    rp_net_free(net);
    rp_net_free(same);
    memory_release(mark);
}

static void test_other_architectures(void) {
    static const char *const texts[] = {
        "input vector 2; dense 2 frozen; elu slope 0.4; dense 1 no_bias; loss huber delta 2",
        "input vector 2; dense 2; elu slope 0.3; dense 1 no_bias; loss huber delta 1",
        "input vector 2; dense 2; elu slope 0.3; dense 1; loss huber delta 2",
        "input vector 2; dense 2; elu slope 0.3; dense 1 no_bias; loss squared_error",
        "input image 2x1x1; dense 2; elu slope 0.3; dense 1 no_bias; loss huber delta 2",
        "input vector 2; dense 2; elu slope 0.3; dense 2 no_bias; loss huber delta 2"};
    static const char *const words[] = {
        "layer 1 '0.3' '0.4'",      "loss delta 2 delta 1",       "layer 2 no_bias",
        "loss huber squared_error", "input vector 2 image 2x1x1", "layer 2 'dense 1 'dense 2"};
    size_t mark = memory_mark();
    bytes file = small_file();
    for (int i = 0; i < 6; i++) {
        rp_net *net = build_text(texts[i], 1, NULL);
        const char *word = words[i];
        bytes before = saved(net);
        CHECK(rp_load_memory(net, file.at, file.size) == RP_ERR_SHAPE, "%s", texts[i]);
        for (; *word; word += strcspn(word, " '"), word += strspn(word, " '")) {
            char part[40] = "";
            memcpy(part, word, strcspn(word, " '"));
            CHECK(strstr(rp_error(net), part), "'%s' lacks %s", rp_error(net), part);
        }
        CHECK(same_bytes(before, saved(net)), "changed: %s", texts[i]);
        rp_net_free(net);
    }
    memory_release(mark);
}

/* PyTorch. The files are in the folder tests/files: see torch_files.py. */

enum { TORCH_SAMPLES = 4 };
static bytes folder_bytes(const char *name, const char *suffix) {
    char place[1000];
    snprintf(place, sizeof place, "%s/files/%s%s.safetensors", TEST_FOLDER, name, suffix);
    bytes b = read_bytes(place);
    CHECK(b.at != NULL, "%s cannot be read", place);
    return b;
}

/* A tensor [TORCH_SAMPLES][width] of a file, by the way of a net whose weights have that shape. */
static rp_real *tensor_of(bytes file, const char *name, int width) {
    char text[60], names[60];
    rp_real *values = (rp_real *)take((size_t)(TORCH_SAMPLES * width) * sizeof *values);
    snprintf(text, sizeof text, "input vector %d; dense %d no_bias", width, TORCH_SAMPLES);
    snprintf(names, sizeof names, "0 weight = %s", name);
    rp_net *net = build_text(text, 1, NULL);
    WORKS(rp_import_memory(net, file.at, file.size, names));
    memcpy(values, rp_parameters(net), (size_t)(TORCH_SAMPLES * width) * sizeof *values);
    rp_net_free(net);
    return values;
}

static void check_outputs(rp_net *net, const rp_real *x, const rp_real *expected, const char *name) {
    int count = TORCH_SAMPLES * rp_outputs(net);
    rp_real *y = (rp_real *)take((size_t)count * sizeof *y);
    double most = 0;
    WORKS(rp_predict(net, x, TORCH_SAMPLES, y));
    for (int i = 0; i < count; i++) most = larger(most, fabs((double)y[i] - (double)expected[i]));
    CHECK(most < 1e-6, "%s: outputs differ by %g", name, most);
}

static void test_torch(void) {
    static const struct {
        const char *name, *text, *names;
    } files[] = {
        {"torch_float32", "input vector 5; dense 7; tanh; dense 3", NULL},
        {"torch_float16", "input vector 5; dense 7; tanh; dense 3", NULL},
        {"torch_bfloat16", "input vector 5; dense 7; tanh; dense 3", NULL},
        {"torch_float64", "input vector 5; dense 7; tanh; dense 3", NULL},
        {"torch_shuffled", "input vector 5; dense 7; tanh; dense 3",
         "0=first;\n2 weight = last.weight; 2 bias=last.bias"},
        {"torch_conv2d", "input image 4x7x6; conv2d 6 3x2 stride 2x1 padding 1x2 groups 2; relu; dense 3 no_bias",
         NULL},
        {"torch_rnn", "input sequence 5x3; recurrent 4 tanh; dense 2", "0 = rnn; 1 = linear"},
        {"torch_rnn", "input sequence 5x3; recurrent 4 tanh; dense 2",
         "0 weight_ih = rnn.weight_ih_l0; 0 weight_hh = rnn.weight_hh_l0; 0 bias = rnn.bias_ih_l0 + rnn.bias_hh_l0; 1 "
         "= "
         "linear"},
        {"torch_states", "input sequence 5x3; recurrent 4 relu all_states; recurrent 3 tanh all_states; dense 2", NULL},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        size_t mark = memory_mark();
        bytes file = folder_bytes(files[i].name, "");
        rp_net *net = build_text(files[i].text, TORCH_SAMPLES, NULL);
        if (file.at) {
            WORKS(rp_import_memory(net, file.at, file.size, files[i].names));
            check_outputs(net, tensor_of(file, "inputs", rp_inputs(net)), tensor_of(file, "outputs", rp_outputs(net)),
                          files[i].name);
        }
        rp_net_free(net);
        memory_release(mark);
    }
}

/* A net in the midst of training without a rate, in format 1, without rp.pace.zero and optimizer.spreads: it goes on, and
   first measures what it lacks. Kept anew, it is in today's format. */
static void test_format_1(void) {
    static const rp_real x[4][2] = {{0, 0}, {0, 1}, {1, 0}, {1, 1}}, targets[4] = {0, 1, 1, 0};
    const rp_data data = rp_targeted(x[0], targets, 4);
    const rp_optimizer o = rp_partitioning();
    bytes file = folder_bytes("paced_format_1", ""), kept;
    rp_net *net = rp_open_memory(file.at, file.size, NULL), *again;
    rp_step step;
    WORKS(rp_net_build(net, 4, 1));
    CHECK(rp_measures(net, &o), "step 25 does not measure");
    WORKS(rp_train(net, &o, &data, NULL));
    WORKS(rp_last_step(net, &step));
    CHECK(step.measured && step.alpha > 0, "measured %d, alpha %g", step.measured, (double)step.alpha);
    CHECK(!rp_measures(net, &o), "step 26 measures");
    kept = saved(net);
    again = rp_open_memory(kept.at, kept.size, NULL);
    WORKS(rp_net_build(again, 4, 1));
    for (int i = 0; i < 10; i++) {
        WORKS(rp_train(net, &o, &data, NULL));
        WORKS(rp_train(again, &o, &data, NULL));
    }
    CHECK(!memcmp(rp_parameters(net), rp_parameters(again), rp_parameter_count(net) * sizeof(rp_real)), "%s",
          "the bits differ");
    free(file.at);
    free(kept.at);
    rp_net_free(net);
    rp_net_free(again);
}

static void test_import_mistakes(void) {
    static const struct {
        const char *file, *text, *names, *words;
        rp_status status;
    } wrong[] = {
        {"torch_float32", "input vector 5; dense 6; tanh; dense 3", NULL,
         "0.weight [7, 5] weight layer 0 (dense) [6, 5]", RP_ERR_SHAPE},
        {"torch_float32", "input vector 5; dense 7; dense 3; dense 3", NULL, "module layer 2 (dense) names",
         RP_ERR_VALUE},
        {"torch_float32", "input vector 5; dense 7 no_bias; dense 3", NULL, "0.bias layer 0 (dense) no bias",
         RP_ERR_SHAPE},
        {"torch_conv2d", "input image 4x7x6; conv2d 6 3x2 stride 2x1 padding 1x2 groups 2; dense 3", NULL,
         "3.bias bias layer 1 (dense) [3]", RP_ERR_VALUE},
        {"torch_conv2d", "input image 4x7x6; conv2d 6 3x2", "0 weight = 0.weight",
         "0.weight [6, 2, 3, 2] weight layer 0 (conv2d) [6, 4, 3, 2]", RP_ERR_SHAPE},
        {"torch_float32", "input vector 5; dense 7", "0 weight = 1.weight", "1.weight weight layer 0 (dense) [7, 5]",
         RP_ERR_VALUE},
        {"torch_float32", "input vector 5; dense 7", "0 weight = step", "step I64", RP_ERR_UNSUPPORTED},
        {"torch_float32", "input vector 5; dense 7", "1 = 0", "names no layer 1", RP_ERR_VALUE},
        {"torch_float32", "input vector 5; dense 7; tanh", "1 = 0", "names layer 1 (tanh) no parameters", RP_ERR_VALUE},
        {"torch_float32", "input image 1x4x4; max_pool2d 2; dense 7", "0 weight = 0.weight",
         "names layer 0 (max_pool2d) no parameters", RP_ERR_VALUE},
        {"torch_float32", "input vector 5; dense 7", "weight = 0", "names layer 'weight'", RP_ERR_VALUE},
        {"torch_float32", "input vector 5; dense 7", "0 weight_hh = 0", "names layer 0 (dense) no parameter weight_hh",
         RP_ERR_VALUE},
        {"torch_float32", "input vector 5; dense 7", "0 weight 0.weight", "names '0.weight'", RP_ERR_VALUE},
        {"torch_float32", "input vector 5; dense 7", "0 weight =", "names 'the end'", RP_ERR_VALUE},
        {"torch_float32", "input vector 5; dense 7", "0 weight = a b", "names end 'b'", RP_ERR_VALUE},
        {"torch_float32", "input vector 5; dense 7", "0 weight = 0.weight +", "names 'the end'", RP_ERR_VALUE},
        {"torch_float32", "input vector 5; dense 7", "0 = 0 + 2", "names end '+'", RP_ERR_VALUE},
        {"torch_float32", "input vector 5; dense 7", "0 = 0; 0 bias = 0.bias + 2.bias", "2.bias [3] [7]", RP_ERR_SHAPE},
        {"torch_layers", "input sequence 5x3; recurrent 4 tanh", "0 = rnn", "rnn.weight_ih_l1 layer 0 (recurrent)",
         RP_ERR_UNSUPPORTED},
        {"torch_infinite", "input vector 5; dense 7; tanh; dense 3", NULL, "2.bias layer 2 (dense) finite",
         RP_ERR_NOT_FINITE},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        size_t mark = memory_mark();
        bytes file = folder_bytes(wrong[i].file, "");
        rp_net *net = build_text(wrong[i].text, 1, NULL);
        bytes before = saved(net);
        if (file.at) FAILS(rp_import_memory(net, file.at, file.size, wrong[i].names), wrong[i].status, wrong[i].words);
        CHECK(same_bytes(before, saved(net)), "%s: changed", wrong[i].words);
        rp_net_free(net);
        memory_release(mark);
    }
    rp_config config = config_of(RP_ISA_AUTO, 0);
    config.not_finite = 1;
    bytes file = folder_bytes("torch_infinite", "");
    rp_net *net = build_text("input vector 5; dense 7; tanh; dense 3", 1, &config);
    if (file.at) WORKS(rp_import_memory(net, file.at, file.size, NULL));
    rp_net_free(net);
}

/* Names in part: the rest stays; optimizer state begins anew. */
static void test_partial_import(void) {
    size_t mark = memory_mark();
    problem *p = new_problem();
    rp_optimizer o = rp_adam((rp_real)0.1);
    bytes file = folder_bytes("torch_float32", "");
    rp_net *net = build_text("input vector 5; dense 7; tanh; dense 3; loss softmax_cross_entropy", SAMPLES, NULL);
    rp_real before[7 * 5 + 7 + 3 * 7 + 3];
    train_some(net, &o, p, 1);
    memcpy(before, rp_parameters(net), sizeof before);
    if (file.at) WORKS(rp_import_memory(net, file.at, file.size, " ;2 bias = 2.bias; "));
    CHECK(same_reals(before, rp_parameters(net), 7 * 5 + 7 + 3 * 7), "layers that were not named");
    CHECK(!same_reals(before + 63, rp_parameters(net) + 63, 3), "the bias that was named");
    CHECK(library_time(net) == 0, "time %ld", library_time(net));
    rp_net_free(net);
    memory_release(mark);
}

/* Files that this library wrote: torch_files.py compares them with PyTorch, this test with what the library does. */
static const struct {
    const char *name, *text;
} our_files[] = {
    {"ours_dense",
     "input vector 5; dense 7; tanh; dense 3 no_bias; leaky_relu slope 0.3; dense 2; gelu; loss huber delta 0.5"},
    {"ours_conv2d",
     "input image 4x7x6; conv2d 6 3x2 stride 2x1 padding 1x2 groups 2; elu slope 0.7; max_pool2d 2x2 stride "
     "1; conv2d 3 2x2 stride 1 padding 0 no_bias; silu; avg_pool2d 2x2 stride 1; softplus; dense 3; loss "
     "softmax_cross_entropy"},
    {"ours_pool",
     "input image 2x5x6; conv2d 3 3x3 stride 1 padding 1; sigmoid; conv2d 3 3x3 stride 1 padding 1; add 1; "
     "relu; global_avg_pool2d; identity; loss poisson"},
    {"ours_recurrent",
     "input sequence 5x3; recurrent 4 tanh all_states; add 0; recurrent 3 leaky_relu slope 0.2 no_bias; "
     "recursive 3 sigmoid; dense 1; loss binary_cross_entropy"},
};
enum { OUR_FILES = sizeof our_files / sizeof *our_files };

/* The generator of torch_files.py: numbers in [-1, 1). */
static rp_real *our_inputs(rp_net *net) {
    int count = TORCH_SAMPLES * rp_inputs(net);
    rp_real *x = (rp_real *)take((size_t)count * sizeof *x);
    uint32_t state = 1;
    for (int i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (rp_real)((double)(state >> 8) / 8388608.0 - 1);
    }
    return x;
}

static void test_ours(void) {
    for (int i = 0; i < OUR_FILES; i++) {
        size_t mark = memory_mark();
        bytes file = folder_bytes(our_files[i].name, ""), outputs = folder_bytes(our_files[i].name, "_outputs");
        if (!file.at || !outputs.at) continue;
        rp_net *net = opened(file, TORCH_SAMPLES, NULL);
        CHECK(!strcmp(described(net), our_files[i].text), "'%s' is not '%s'", described(net), our_files[i].text);
        check_outputs(net, our_inputs(net), tensor_of(outputs, "0.weight", rp_outputs(net)), our_files[i].name);
        rp_net_free(net);
        memory_release(mark);
    }
}

/* With the argument `write`: makes these files in the present folder. */
static void write_ours(void) {
    for (int i = 0; i < OUR_FILES; i++) {
        char name[100], text[100];
        rp_net *net = build_text(our_files[i].text, TORCH_SAMPLES, NULL), *outputs;
        snprintf(name, sizeof name, "%s.safetensors", our_files[i].name);
        WORKS(rp_save(net, name));
        snprintf(text, sizeof text, "input vector %d; dense %d no_bias", rp_outputs(net), TORCH_SAMPLES);
        outputs = build_text(text, 1, NULL);
        WORKS(rp_predict(net, our_inputs(net), TORCH_SAMPLES, rp_parameters(outputs)));
        snprintf(name, sizeof name, "%s_outputs.safetensors", our_files[i].name);
        WORKS(rp_save(outputs, name));
        rp_net_free(net);
        rp_net_free(outputs);
    }
}

int main(int count, char **arguments) {
#ifdef HAVE_FORK
    library.sync = no_sync;
#endif
    if (count > 1 && !strcmp(arguments[1], "write")) {
        write_ours();
        return test_end();
    }
    test_text();
    test_misread_text();
    test_random_nets();
    test_resumed();
    test_state_is_forgotten();
    test_averages();
    test_first_averages();
    for (int way = 0; way < 8; way++) test_resumed_fit(way % 2, way / 2 % 2, way / 4);
    for (int every = 1; every < 8; every++) test_checkpoints(every);
    for (int stop_at = 2; stop_at <= 10; stop_at += 2) test_other_runs(stop_at);
    test_other_runs(9);
    test_shorter_stream();
    test_run_without_steps();
    test_more_epochs();
    test_more_patience();
    test_checkpoint_anew();
    test_checkpoint_mistakes();
#ifdef HAVE_FORK
    test_new_process();
    test_killed();
    test_no_files();
    test_links();
#endif
    test_paths();
    test_failing_disk();
    test_no_memory();
    test_many_layers();
    test_refused_headers();
    test_refused_zeros();
    test_refused_pace();
    test_refused_metadata();
    test_mutations();
    test_opened();
    test_other_architectures();
    test_torch();
    test_format_1();
    test_import_mistakes();
    test_partial_import();
    test_ours();
    remove(path);
    return test_end();
}
