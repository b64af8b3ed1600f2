/* What must never go wrong: every misuse has its status and its message, extremes and a lack of memory leave a net whole,
   the same seed gives the same bits. */
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "test.h"

#include "optimizers.h"
#include <float.h>
#include <limits.h>

/* A heap that counts, and that may run out of memory: at allocation `fail_at` (from 0), and if `forever` from then on. */
typedef struct heap {
    const struct heap *self;
    long calls, live, fail_at;
    int forever;
} heap;

static heap new_heap(void) {
    heap h = {NULL, 0, 0, -1, 0};
    return h;
}
static void *heap_allocate(void *user, size_t size) {
    heap *h = (heap *)user;
    long call = h->calls++;
    int fails = h->fail_at >= 0 && (call == h->fail_at || (h->forever && call > h->fail_at));
    void *pointer = fails || size > (size_t)1 << 28 ? NULL : malloc(size);
    CHECK(h->self == h, "not the caller's user pointer");
    h->live += pointer != NULL;
    return pointer;
}
static void heap_release(void *user, void *pointer) {
    heap *h = (heap *)user;
    CHECK(h->self == h && pointer, "not the caller's user pointer, or a NULL pointer");
    h->live--;
    free(pointer);
}
static rp_config config_of(heap *h) {
    rp_config config = {heap_allocate, heap_release, NULL, RP_ISA_AUTO, 0, 0};
    config.user = h, h->self = h;
    return config;
}

/* Whether the message has each of the words, which spaces separate. */
static int has_words(const char *message, const char *words) {
    while (*words) {
        char word[40] = "";
        size_t length = strcspn(words, " ");
        memcpy(word, words, length < 39 ? length : 39);
        if (!strstr(message, word)) return 0;
        words += length + (words[length] == ' ');
    }
    return 1;
}

/* The call on `net` fails with this status, and rp_error has these words. */
#define FAILS(call, status, words) check_fails(net, call, status, words, #call, __LINE__)
static void check_fails(const rp_net *net, int got, int expected, const char *words, const char *call, int line) {
    CHECK(got == expected, "line %d: %s: %d, not %d: '%s'", line, call, got, expected, rp_error(net));
    CHECK(has_words(rp_error(net), words), "line %d: %s: '%s' lacks one of '%s'", line, call, rp_error(net), words);
}
#define WORKS(call) check_works(net, call, #call, __LINE__)
static void check_works(const rp_net *net, int got, const char *call, int line) {
    CHECK(got == RP_OK, "line %d: %s: %d: '%s'", line, call, got, rp_error(net));
}

enum { INPUTS = 3, HIDDEN = 5, OUTPUTS = 2, BATCH = 4 };

static rp_net *describe(const rp_config *config, rp_activation_kind activation, rp_loss_kind loss) {
    rp_net *net = rp_net_new(rp_vector(INPUTS), config);
    rp_dense(net, HIDDEN), rp_activation(net, activation), rp_dense(net, OUTPUTS);
    rp_loss(net, loss);
    return net;
}
static rp_net *make_net(rp_activation_kind activation, rp_loss_kind loss, uint64_t seed) {
    rp_net *net = describe(NULL, activation, loss);
    WORKS(rp_net_build(net, BATCH, seed));
    return net;
}

typedef struct samples {
    rp_real inputs[BATCH * INPUTS], targets[BATCH * OUTPUTS], weights[BATCH];
    int labels[BATCH];
    rp_data data; /* inputs and targets */
} samples;

static void make_samples(samples *s, uint64_t seed) {
    test_random random = {seed};
    for (int i = 0; i < BATCH * INPUTS; i++) s->inputs[i] = (rp_real)test_normal(&random);
    for (int i = 0; i < BATCH * OUTPUTS; i++) s->targets[i] = (rp_real)test_uniform(&random, 0, 1);
    for (int i = 0; i < BATCH; i++) s->weights[i] = 1, s->labels[i] = i % OUTPUTS;
    memset(&s->data, 0, sizeof s->data);
    s->data.inputs = s->inputs, s->data.targets = s->targets, s->data.count = BATCH;
}
static rp_data labelled(const samples *s) {
    rp_data data = s->data;
    data.targets = NULL, data.labels = s->labels;
    return data;
}

static size_t parameter_bytes(const rp_net *net) { return rp_parameter_count(net) * sizeof(rp_real); }
static int same_parameters(rp_net *a, rp_net *b) { return !memcmp(rp_parameters(a), rp_parameters(b), parameter_bytes(a)); }
static int finite_parameters(rp_net *net) {
    size_t finite = 0;
    for (size_t i = 0; i < rp_parameter_count(net); i++) finite += isfinite(rp_parameters(net)[i]) != 0;
    return finite == rp_parameter_count(net);
}

/* >>misuse */

/* A mistake in the description sticks, and the build reports the first. */
#define DESCRIPTION_FAILS(input, status, words, ...) do { \
    heap h = new_heap(); \
    rp_config config = config_of(&h); \
    rp_net *net = rp_net_new(input, &config); \
    __VA_ARGS__; \
    rp_dense(net, -77); \
    FAILS(rp_net_build(net, BATCH, 1), status, words); \
    CHECK(rp_parameter_count(net) == 0 && !rp_parameters(net), "%s", words); \
    rp_net_free(net); \
    CHECK(h.live == 0, "%s: %ld allocations live", words, h.live); \
} while (0)

static void test_descriptions(void) {
    const rp_real nan = (rp_real)NAN, infinite = (rp_real)INFINITY;
    rp_shape odd = rp_vector(2);
    odd.kind = (rp_shape_kind)9;
    DESCRIPTION_FAILS(odd, RP_ERR_VALUE, "rp_net_new shape", rp_dense(net, 1));
    DESCRIPTION_FAILS(rp_vector(0), RP_ERR_VALUE, "rp_net_new shape 0", rp_dense(net, 1));
    DESCRIPTION_FAILS(rp_vector(-3), RP_ERR_VALUE, "rp_net_new shape -3", rp_dense(net, 1));
    DESCRIPTION_FAILS(rp_image(1, 0, 3), RP_ERR_VALUE, "rp_net_new shape height", rp_dense(net, 1));
    DESCRIPTION_FAILS(rp_sequence(INT_MIN, 3), RP_ERR_VALUE, "rp_net_new shape steps", rp_dense(net, 1));
    DESCRIPTION_FAILS(rp_image(INT_MAX, INT_MAX, INT_MAX), RP_ERR_VALUE, "rp_net_new 2147483647", rp_dense(net, 1));
    DESCRIPTION_FAILS(rp_vector(2), RP_ERR_VALUE, "rp_dense layer 0 units", rp_dense(net, 0));
    DESCRIPTION_FAILS(rp_vector(2), RP_ERR_VALUE, "rp_dense layer 1 units -5", rp_dense(net, 3), rp_dense(net, -5));
    DESCRIPTION_FAILS(rp_vector(2), RP_ERR_VALUE, "rp_dense units 2147483647", rp_dense(net, INT_MAX));
    DESCRIPTION_FAILS(rp_vector(2), RP_ERR_VALUE, "rp_activation 99", rp_activation(net, (rp_activation_kind)99));
    DESCRIPTION_FAILS(rp_vector(2), RP_ERR_VALUE, "rp_activation -1", rp_activation(net, (rp_activation_kind)-1));
    DESCRIPTION_FAILS(rp_vector(2), RP_ERR_VALUE, "rp_loss 99", rp_loss(net, (rp_loss_kind)99));
    DESCRIPTION_FAILS(rp_vector(2), RP_ERR_ORDER, "rp_no_bias", rp_no_bias(net));
    DESCRIPTION_FAILS(rp_vector(2), RP_ERR_ORDER, "rp_no_bias tanh", rp_activation(net, RP_TANH), rp_no_bias(net));
    DESCRIPTION_FAILS(rp_vector(2), RP_ERR_ORDER, "rp_negative_slope", rp_dense(net, 2), rp_negative_slope(net, 1));
    for (int i = 0; i < 3; i++) {
        rp_real slope = i == 0 ? -1 : i == 1 ? nan : infinite, delta = i == 0 ? 0 : slope;
        DESCRIPTION_FAILS(rp_vector(2), RP_ERR_VALUE, "rp_negative_slope", rp_activation(net, RP_ELU), rp_negative_slope(net, slope));
        DESCRIPTION_FAILS(rp_vector(2), RP_ERR_VALUE, "rp_huber_delta delta", rp_huber_delta(net, delta));
    }
}

static void test_builds(void) {
    heap h = new_heap();
    rp_config config = config_of(&h);
    rp_net *net = rp_net_new(rp_vector(2), &config);
    FAILS(rp_net_build(net, 4, 1), RP_ERR_SHAPE, "rp_net_build layer");
    rp_dense(net, 3);
    FAILS(rp_net_build(net, 0, 1), RP_ERR_VALUE, "rp_net_build batch 0");
    FAILS(rp_net_build(net, -1, 1), RP_ERR_VALUE, "rp_net_build batch -1");
    FAILS(rp_net_build(net, INT_MAX, 1), RP_ERR_VALUE, "rp_net_build batch 2147483647");
    FAILS(rp_net_build(net, 1 << 26, 1), RP_ERR_MEMORY, "rp_net_build memory 67108864");
    WORKS(rp_net_build(net, 4, 1));
    rp_net_free(net);
    net = rp_net_new(rp_vector(1 << 28), &config);
    for (int i = 0; i < 70; i++) rp_dense(net, 1 << 28);
    FAILS(rp_net_build(net, 4, 1), RP_ERR_OVERFLOW, "rp_net_build");
    rp_net_free(net);
    CHECK(h.live == 0, "%ld allocations live", h.live);
}

static void test_configs(void) {
    heap h = new_heap();
    for (int i = 0; i < 5; i++) {
        const char *const words[] = {"config.release", "config.allocate", "config.threads -2", "config.isa 99", "config.isa -1"};
        rp_config config = config_of(&h);
        if (i == 0) config.release = NULL;
        if (i == 1) config.allocate = NULL;
        if (i == 2) config.threads = -2;
        if (i >= 3) config.isa = (rp_isa_kind)(i == 3 ? 99 : -1);
        rp_net *net = describe(&config, RP_TANH, RP_SQUARED_ERROR);
        FAILS(rp_net_build(net, BATCH, 1), RP_ERR_VALUE, words[i]);
        rp_net_free(net);
    }
    CHECK(h.live == 0, "%ld allocations live", h.live);
}

/* Each instruction set is there or refused; no machine has all. Those that are there agree. */
static void test_isas(void) {
    samples s;
    rp_real expected[BATCH * OUTPUTS], out[BATCH * OUTPUTS];
    int refused = 0;
    make_samples(&s, 1);
    for (int isa = RP_ISA_PORTABLE; isa <= RP_ISA_NEON; isa++) {
        rp_config config = {NULL, NULL, NULL, (rp_isa_kind)isa, 0, 0};
        rp_net *net = describe(&config, RP_GELU, RP_SQUARED_ERROR);
        rp_status status = rp_net_build(net, BATCH, 1);
        if (status) {
            FAILS(status, RP_ERR_UNSUPPORTED, "config.isa");
            CHECK(!strcmp(rp_isa(net), ""), "'%s'", rp_isa(net));
            refused++;
        } else {
            CHECK(rp_isa(net)[0], "instruction set %d has no name", isa);
            WORKS(rp_predict(net, s.inputs, BATCH, isa == RP_ISA_PORTABLE ? expected : out));
            for (int i = 0; i < BATCH * OUTPUTS && isa != RP_ISA_PORTABLE; i++)
                CHECK(fabs((double)(out[i] - expected[i])) < 1e-5, "%s: %g, not %g", rp_isa(net), out[i], expected[i]);
        }
        rp_net_free(net);
    }
    CHECK(refused > 0 && refused < 4, "%d instruction sets are refused", refused);
}

static void test_null_nets(void) {
    samples s;
    rp_optimizer o = rp_sgd(1);
    rp_score score;
    rp_layer layer;
    rp_net *net = make_net(RP_TANH, RP_SQUARED_ERROR, 1);
    rp_workspace *workspace = rp_workspace_new(net, 1);
    rp_real *x = s.inputs, *out = s.targets;
    make_samples(&s, 1);
    const int statuses[] = {
        rp_dense(NULL, 1), rp_activation(NULL, RP_TANH), rp_no_bias(NULL), rp_negative_slope(NULL, 1), rp_freeze(NULL, 0, 1),
        rp_loss(NULL, RP_HUBER), rp_huber_delta(NULL, 1), rp_net_build(NULL, 1, 1), rp_prepare(NULL, &o),
        rp_train(NULL, &o, &s.data, NULL), rp_predict(NULL, x, 1, out), rp_evaluate(NULL, &s.data, &score),
        rp_fit(NULL, &o, &s.data, NULL, NULL), rp_layer_info(NULL, 0, &layer), rp_backward(NULL, &s.data, NULL, NULL),
        rp_update(NULL, &o), rp_direction(NULL, &o), rp_move(NULL, 1), rp_forward(NULL, x, 1), rp_backward_from(NULL, x, NULL),
        rp_backward_from_rule(NULL, x, NULL, NULL), rp_predict_with(NULL, workspace, x, 1, out),
        rp_predict_with(net, NULL, x, 1, out), rp_predict_with(net, workspace, NULL, 1, out),
        rp_predict_with(net, workspace, x, 1, NULL)};
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
        CHECK(statuses[i] == RP_ERR_NULL, "call %d: %d", (int)i, statuses[i]);
    CHECK(!rp_parameters(NULL) && !rp_gradient(NULL) && !rp_curvature(NULL) && !rp_direction_array(NULL) && !rp_output(NULL), "arrays");
    CHECK(!rp_parameter_count(NULL) && !rp_layer_count(NULL) && !rp_memory(NULL) && !rp_state_memory(NULL), "counts");
    CHECK(!rp_summary(NULL, NULL, 0) && !rp_workspace_new(NULL, 1) && !*rp_isa(NULL) && rp_error(NULL), "others");
    rp_workspace_free(NULL);
    rp_workspace_free(workspace);
    rp_net_free(NULL);
    rp_net_free(net);
}

/* Every function that needs a built net says so; the build cures it. */
static void test_before_build(void) {
    samples s;
    rp_optimizer o = rp_sgd(1);
    rp_score score;
    rp_layer layer;
    rp_net *net = describe(NULL, RP_TANH, RP_SQUARED_ERROR);
    make_samples(&s, 1);
    FAILS(rp_prepare(net, &o), RP_ERR_ORDER, "rp_prepare rp_net_build");
    FAILS(rp_train(net, &o, &s.data, NULL), RP_ERR_ORDER, "rp_train rp_net_build");
    FAILS(rp_predict(net, s.inputs, 1, s.targets), RP_ERR_ORDER, "rp_predict rp_net_build");
    FAILS(rp_evaluate(net, &s.data, &score), RP_ERR_ORDER, "rp_evaluate rp_net_build");
    FAILS(rp_fit(net, &o, &s.data, NULL, NULL), RP_ERR_ORDER, "rp_fit rp_net_build");
    FAILS(rp_backward(net, &s.data, NULL, NULL), RP_ERR_ORDER, "rp_backward rp_net_build");
    FAILS(rp_update(net, &o), RP_ERR_ORDER, "rp_update rp_net_build");
    FAILS(rp_direction(net, &o), RP_ERR_ORDER, "rp_direction rp_net_build");
    FAILS(rp_move(net, 1), RP_ERR_ORDER, "rp_move rp_net_build");
    FAILS(rp_forward(net, s.inputs, 1), RP_ERR_ORDER, "rp_forward rp_net_build");
    FAILS(rp_backward_from(net, s.targets, NULL), RP_ERR_ORDER, "rp_backward_from rp_net_build");
    CHECK(!rp_parameters(net) && !rp_gradient(net) && !rp_curvature(net) && !rp_direction_array(net) && !rp_output(net), "arrays");
    CHECK(!rp_parameter_count(net) && !*rp_isa(net) && !rp_workspace_new(net, 1), "%s", rp_isa(net));
    WORKS(rp_layer_info(net, 2, &layer));
    CHECK(layer.weights == 0 && !strcmp(layer.kind, "dense"), "%s", layer.kind);
    WORKS(rp_net_build(net, BATCH, 1));
    WORKS(rp_train(net, &o, &s.data, NULL));
    rp_net_free(net);
}

static void test_after_build(void) {
    samples s;
    rp_optimizer o = rp_sgd(1);
    rp_layer layer;
    rp_net *net = make_net(RP_LEAKY_RELU, RP_SQUARED_ERROR, 1);
    make_samples(&s, 1);
    FAILS(rp_dense(net, 3), RP_ERR_ORDER, "rp_dense built");
    FAILS(rp_activation(net, RP_TANH), RP_ERR_ORDER, "rp_activation built");
    FAILS(rp_no_bias(net), RP_ERR_ORDER, "rp_no_bias built");
    FAILS(rp_negative_slope(net, 1), RP_ERR_ORDER, "rp_negative_slope built");
    FAILS(rp_loss(net, RP_HUBER), RP_ERR_ORDER, "rp_loss built");
    FAILS(rp_huber_delta(net, 1), RP_ERR_ORDER, "rp_huber_delta built");
    FAILS(rp_net_build(net, BATCH, 1), RP_ERR_ORDER, "rp_net_build built");
    FAILS(rp_freeze(net, -1, 1), RP_ERR_VALUE, "rp_freeze layer -1");
    FAILS(rp_freeze(net, 3, 1), RP_ERR_VALUE, "rp_freeze layer 3");
    FAILS(rp_freeze(net, 1, 1), RP_ERR_VALUE, "rp_freeze layer 1 leaky");
    FAILS(rp_freeze(net, 0, 2), RP_ERR_VALUE, "rp_freeze frozen 2");
    FAILS(rp_layer_info(net, -1, &layer), RP_ERR_VALUE, "rp_layer_info layer -1");
    FAILS(rp_layer_info(net, 3, &layer), RP_ERR_VALUE, "rp_layer_info layer 3");
    FAILS(rp_layer_info(net, 0, NULL), RP_ERR_NULL, "rp_layer_info info");
    CHECK(!rp_workspace_new(net, 0) && !rp_workspace_new(net, -1) && !rp_workspace_new(net, INT_MAX), "a workspace");
    CHECK(rp_layer_count(net) == 3, "%d layers", rp_layer_count(net));
    WORKS(rp_train(net, &o, &s.data, NULL));
    rp_net_free(net);
}

/* The four functions that take rp_data. */
enum { TRAIN, BACKWARD, EVALUATE, FIT, CONSUMERS };
static const char *const consumers[] = {"rp_train", "rp_backward", "rp_evaluate", "rp_fit"};
static rp_status consume(int consumer, rp_net *net, const rp_data *data) {
    const rp_rule rule = rp_rule_default();
    rp_optimizer o = rp_partitioning();
    rp_score score;
    switch (consumer) {
    case TRAIN: return rp_train(net, &o, data, NULL);
    case BACKWARD: return rp_backward(net, data, &rule, NULL);
    case EVALUATE: return rp_evaluate(net, data, &score);
    default: return rp_fit(net, &o, data, NULL, NULL);
    }
}

/* All of them refuse the data, and the parameters stay. */
#define DATA_FAILS(data, status, words) check_data_fails(net, data, status, words, __LINE__)
static void check_data_fails(rp_net *net, const rp_data *data, rp_status status, const char *words, int line) {
    rp_real before[64];
    memcpy(before, rp_parameters(net), parameter_bytes(net));
    for (int i = 0; i < CONSUMERS; i++) {
        check_fails(net, consume(i, net, data), status, words, consumers[i], line);
        CHECK(strstr(rp_error(net), consumers[i]), "'%s' does not name %s", rp_error(net), consumers[i]);
    }
    CHECK(!memcmp(before, rp_parameters(net), parameter_bytes(net)), "line %d: parameters changed", line);
}

static void test_data(void) {
    samples s;
    rp_data data;
    rp_net *net = make_net(RP_TANH, RP_SOFTMAX_CROSS_ENTROPY, 1);
    make_samples(&s, 1);
    DATA_FAILS(NULL, RP_ERR_NULL, "data");
    data = s.data, data.inputs = NULL;
    DATA_FAILS(&data, RP_ERR_NULL, "data.inputs");
    data = s.data, data.targets = NULL;
    DATA_FAILS(&data, RP_ERR_NULL, "data.targets data.labels");
    data = s.data, data.labels = s.labels;
    DATA_FAILS(&data, RP_ERR_VALUE, "data.targets data.labels");
    data = s.data, data.count = 0;
    DATA_FAILS(&data, RP_ERR_VALUE, "data.count 0");
    data.count = INT_MIN;
    DATA_FAILS(&data, RP_ERR_VALUE, "data.count -2147483648");
    data = s.data, data.count = BATCH + 1;
    FAILS(rp_backward(net, &data, NULL, NULL), RP_ERR_VALUE, "rp_backward data.count 5");
    FAILS(consume(TRAIN, net, &data), RP_ERR_VALUE, "rp_train data.count 5");
    data.count = INT_MAX;
    FAILS(consume(TRAIN, net, &data), RP_ERR_VALUE, "rp_train data.count 2147483647");
    data = s.data, data.weights = s.weights;
    for (int i = 0; i < 3; i++) {
        const double bad[] = {-0.5, NAN, INFINITY};
        s.weights[2] = (rp_real)bad[i];
        DATA_FAILS(&data, RP_ERR_VALUE, "weights[2]");
    }
    FAILS(rp_evaluate(net, &s.data, NULL), RP_ERR_NULL, "rp_evaluate score");
    FAILS(rp_train(net, NULL, &s.data, NULL), RP_ERR_NULL, "rp_train optimizer");
    FAILS(rp_fit(net, NULL, &s.data, NULL, NULL), RP_ERR_NULL, "rp_fit optimizer");
    rp_net_free(net);
}

static void test_labels(void) {
    samples s;
    make_samples(&s, 1);
    for (int loss = 0; loss <= RP_POISSON; loss++) {
        rp_net *net = make_net(RP_TANH, (rp_loss_kind)loss, 1);
        rp_data data = labelled(&s);
        if (loss == RP_SOFTMAX_CROSS_ENTROPY) {
            WORKS(rp_backward(net, &data, NULL, NULL));
            s.labels[1] = OUTPUTS;
            DATA_FAILS(&data, RP_ERR_LABEL, "labels[1] 2");
            s.labels[1] = -1;
            DATA_FAILS(&data, RP_ERR_LABEL, "labels[1] -1");
            s.labels[1] = INT_MAX;
            DATA_FAILS(&data, RP_ERR_LABEL, "labels[1] 2147483647");
        } else DATA_FAILS(&data, RP_ERR_LABEL, "labels targets"); /* two outputs, so neither under binary cross-entropy */
        rp_net_free(net);
    }
    rp_net *net = rp_net_new(rp_vector(INPUTS), NULL);
    rp_data data = labelled(&s);
    rp_dense(net, 1), rp_loss(net, RP_BINARY_CROSS_ENTROPY);
    WORKS(rp_net_build(net, BATCH, 1));
    s.labels[1] = 1;
    WORKS(rp_backward(net, &data, NULL, NULL));
    s.labels[1] = 2;
    DATA_FAILS(&data, RP_ERR_LABEL, "labels[1] 2");
    rp_net_free(net);
}

static void test_targets(void) {
    const struct {
        rp_loss_kind loss;
        rp_real target;
    } cases[] = {{RP_SOFTMAX_CROSS_ENTROPY, -1}, {RP_POISSON, -1}, {RP_BINARY_CROSS_ENTROPY, -1}, {RP_BINARY_CROSS_ENTROPY, 2}};
    for (int i = 0; i < 4; i++) {
        samples s;
        rp_net *net = make_net(RP_TANH, cases[i].loss, 1);
        make_samples(&s, 1);
        s.targets[3] = cases[i].target;
        DATA_FAILS(&s.data, RP_ERR_VALUE, "targets[3]");
        rp_net_free(net);
    }
}

/* A field out of range: refused by each function that takes an optimizer. */
static void check_field(rp_net *net, const rp_optimizer *o, const rp_data *data, const char *words, double value) {
    rp_status (*const takers[])(rp_net *, const rp_optimizer *) = {rp_prepare, rp_update, rp_direction};
    for (int i = 0; i < 3; i++) check_fails(net, takers[i](net, o), RP_ERR_VALUE, words, "an optimizer", __LINE__);
    check_fails(net, rp_train(net, o, data, NULL), RP_ERR_VALUE, words, "rp_train", __LINE__);
    check_fails(net, rp_fit(net, o, data, NULL, NULL), RP_ERR_VALUE, words, "rp_fit", __LINE__);
    CHECK(isnan(value) ? strstr(rp_error(net), "nan") != NULL : 1, "'%s'", rp_error(net));
}
#define FIELD_FAILS(start, field, type, value) do { \
    rp_optimizer o = start; \
    o.field = (type)(value); \
    check_field(net, &o, &s.data, "optimizer." #field, (double)(value)); \
} while (0)
#define RULE_FAILS(field, type, value) do { \
    rp_optimizer o = rp_partitioning(); \
    o.rule.field = (type)(value); \
    check_field(net, &o, &s.data, "rule." #field " " #value, value); \
    FAILS(rp_backward(net, &s.data, &o.rule, NULL), RP_ERR_VALUE, "rp_backward rule." #field " " #value); \
    WORKS(rp_forward(net, s.inputs, BATCH)); \
    FAILS(rp_backward_from_rule(net, s.targets, s.targets, &o.rule), RP_ERR_VALUE, "rp_backward_from rule." #field); \
} while (0)

static void test_optimizer_fields(void) {
    const double everywhere[] = {NAN, INFINITY, -INFINITY, -1};
    samples s;
    rp_net *net = make_net(RP_TANH, RP_SQUARED_ERROR, 1);
    make_samples(&s, 1);
    for (int i = 0; i < 4; i++) {
        FIELD_FAILS(rp_sgd(1), rate, rp_real, everywhere[i]);
        FIELD_FAILS(rp_adam(1), decay, rp_real, everywhere[i]);
        FIELD_FAILS(rp_sgd(1), weight_decay, rp_real, everywhere[i]);
        FIELD_FAILS(rp_partitioning(), momentum, rp_real, everywhere[i]);
        FIELD_FAILS(rp_partitioning(), curvature_average, rp_real, everywhere[i]);
        FIELD_FAILS(rp_partitioning(), damping, rp_real, everywhere[i]);
        FIELD_FAILS(rp_adam(1), beta1, rp_real, everywhere[i]);
        FIELD_FAILS(rp_adam(1), beta2, rp_real, everywhere[i]);
        FIELD_FAILS(rp_adadelta(1), rho, rp_real, everywhere[i]);
        FIELD_FAILS(rp_adagrad(1), epsilon, rp_real, everywhere[i]);
    }
    FIELD_FAILS(rp_sgd(1), momentum, rp_real, 1);
    FIELD_FAILS(rp_partitioning(), curvature_average, rp_real, 1);
    FIELD_FAILS(rp_adam(1), beta1, rp_real, 1);
    FIELD_FAILS(rp_adam(1), beta2, rp_real, 1);
    FIELD_FAILS(rp_adadelta(1), rho, rp_real, 1.5);
    FIELD_FAILS(rp_sgd(1), decay_steps, int, -1);
    FIELD_FAILS(rp_sgd(1), nesterov, int, 1);
    FIELD_FAILS(rp_sgd(1), method, rp_method, 99);
    FIELD_FAILS(rp_sgd(1), method, rp_method, -1);
    RULE_FAILS(kind, rp_rule_kind, 3);
    RULE_FAILS(bound, rp_bound_kind, 2);
    RULE_FAILS(scale, rp_scale_kind, -1);
    FAILS(rp_prepare(net, NULL), RP_ERR_NULL, "rp_prepare optimizer");
    FAILS(rp_update(net, NULL), RP_ERR_NULL, "rp_update optimizer");
    FAILS(rp_direction(net, NULL), RP_ERR_NULL, "rp_direction optimizer");
    rp_net_free(net);
}

static void test_fit_options(void) {
    samples s;
    rp_optimizer o = rp_sgd(1);
    rp_data bad;
    rp_net *net = make_net(RP_TANH, RP_SQUARED_ERROR, 1);
    rp_fit_options zero, options;
    memset(&zero, 0, sizeof zero);
    make_samples(&s, 1);
    bad = s.data, bad.count = -4;
    options = zero, options.epochs = -1;
    FAILS(rp_fit(net, &o, &s.data, &options, NULL), RP_ERR_VALUE, "rp_fit options.epochs -1");
    options = zero, options.batch = BATCH + 1;
    FAILS(rp_fit(net, &o, &s.data, &options, NULL), RP_ERR_VALUE, "rp_fit options.batch 5");
    options.batch = -2;
    FAILS(rp_fit(net, &o, &s.data, &options, NULL), RP_ERR_VALUE, "rp_fit options.batch -2");
    options = zero, options.patience = -1;
    FAILS(rp_fit(net, &o, &s.data, &options, NULL), RP_ERR_VALUE, "rp_fit options.patience -1");
    options.patience = 1;
    FAILS(rp_fit(net, &o, &s.data, &options, NULL), RP_ERR_VALUE, "rp_fit options.patience options.validation");
    options = zero, options.keep_best = 1;
    FAILS(rp_fit(net, &o, &s.data, &options, NULL), RP_ERR_VALUE, "rp_fit options.keep_best options.validation");
    options = zero, options.validation = &bad;
    FAILS(rp_fit(net, &o, &s.data, &options, NULL), RP_ERR_VALUE, "rp_fit validation data.count -4");
    rp_net_free(net);
}

static void test_predictions(void) {
    samples s;
    rp_real out[BATCH * OUTPUTS];
    rp_net *net = make_net(RP_RELU, RP_SQUARED_ERROR, 1);
    rp_workspace *workspace = rp_workspace_new(net, 2);
    make_samples(&s, 1);
    FAILS(rp_predict(net, NULL, 1, out), RP_ERR_NULL, "rp_predict x");
    FAILS(rp_predict(net, s.inputs, 1, NULL), RP_ERR_NULL, "rp_predict out");
    FAILS(rp_predict(net, s.inputs, 0, out), RP_ERR_VALUE, "rp_predict count 0");
    FAILS(rp_predict(net, s.inputs, INT_MIN, out), RP_ERR_VALUE, "rp_predict count -2147483648");
    CHECK(rp_predict_with(net, workspace, s.inputs, -1, out) == RP_ERR_VALUE, "count -1");
    CHECK(rp_predict_with(net, workspace, s.inputs, 0, out) == RP_ERR_VALUE, "count 0");
    s.inputs[0] = (rp_real)INFINITY, s.inputs[INPUTS] = (rp_real)NAN;
    WORKS(rp_predict(net, s.inputs, BATCH, out));
    CHECK(!isfinite(out[0]) && isnan(out[OUTPUTS]), "%g, %g", out[0], out[OUTPUTS]);
    for (int i = 2 * OUTPUTS; i < BATCH * OUTPUTS; i++) CHECK(isfinite(out[i]), "another sample's output %d is %g", i, out[i]);
    rp_workspace_free(workspace);
    rp_net_free(net);
}

/* Steps in pieces, out of order. */
static void test_pieces(void) {
    samples s;
    rp_optimizer sgd = rp_sgd((rp_real)0.1), partitioning = rp_partitioning();
    const rp_rule rule = rp_rule_default();
    rp_net *net = make_net(RP_TANH, RP_SQUARED_ERROR, 1);
    make_samples(&s, 1);
    FAILS(rp_update(net, &sgd), RP_ERR_ORDER, "rp_update gradient rp_backward");
    FAILS(rp_direction(net, &partitioning), RP_ERR_ORDER, "rp_direction gradient rp_backward");
    WORKS(rp_backward(net, &s.data, NULL, NULL));
    FAILS(rp_update(net, &partitioning), RP_ERR_ORDER, "rp_update curvature rp_backward");
    FAILS(rp_move(net, 1), RP_ERR_ORDER, "rp_move direction rp_direction");
    WORKS(rp_update(net, &sgd));
    WORKS(rp_backward(net, &s.data, &rule, NULL));
    WORKS(rp_direction(net, &partitioning));
    FAILS(rp_move(net, (rp_real)NAN), RP_ERR_VALUE, "rp_move alpha nan");
    FAILS(rp_move(net, (rp_real)-INFINITY), RP_ERR_VALUE, "rp_move alpha -inf");
    WORKS(rp_move(net, (rp_real)0.5));
    rp_net_free(net);
}

/* The caller's own loss. Any call that uses the net makes the forward pass stale. */
static void test_own_loss(void) {
    samples s;
    rp_optimizer o = rp_sgd(1);
    rp_real gradient[BATCH * OUTPUTS] = {1}, curvature[BATCH * OUTPUTS] = {1};
    rp_net *net = make_net(RP_TANH, RP_SQUARED_ERROR, 1);
    make_samples(&s, 1);
    CHECK(!rp_output(net), "an output before rp_forward");
    FAILS(rp_backward_from(net, gradient, NULL), RP_ERR_ORDER, "rp_backward_from rp_forward");
    FAILS(rp_forward(net, NULL, 1), RP_ERR_NULL, "rp_forward x");
    FAILS(rp_forward(net, s.inputs, 0), RP_ERR_VALUE, "rp_forward count 0");
    FAILS(rp_forward(net, s.inputs, BATCH + 1), RP_ERR_VALUE, "rp_forward count 5");
    WORKS(rp_forward(net, s.inputs, BATCH));
    FAILS(rp_backward_from(net, NULL, curvature), RP_ERR_NULL, "rp_backward_from output_gradient");
    for (int i = 0; i < 3; i++) {
        const double bad[] = {-1, NAN, INFINITY};
        curvature[3] = (rp_real)bad[i];
        FAILS(rp_backward_from(net, gradient, curvature), RP_ERR_VALUE, "rp_backward_from output_curvature[3]");
    }
    curvature[3] = 0;
    WORKS(rp_backward_from(net, gradient, curvature));
    gradient[2] = (rp_real)NAN;
    WORKS(rp_forward(net, s.inputs, BATCH));
    FAILS(rp_backward_from(net, gradient, curvature), RP_ERR_NOT_FINITE, "rp_backward_from");
    for (int i = 0; i < CONSUMERS + 2; i++) {
        WORKS(rp_forward(net, s.inputs, BATCH));
        if (i < CONSUMERS) consume(i, net, &s.data);
        else if (i == CONSUMERS) rp_predict(net, s.inputs, 1, s.targets);
        else rp_update(net, &o);
        FAILS(rp_backward_from(net, curvature, NULL), RP_ERR_ORDER, "rp_backward_from rp_forward");
    }
    rp_net_free(net);
}

static void test_inference_only(void) {
    samples s;
    rp_optimizer o = rp_sgd(1);
    rp_config config = {NULL, NULL, NULL, RP_ISA_AUTO, 0, 1};
    rp_net *full = make_net(RP_SILU, RP_SOFTMAX_CROSS_ENTROPY, 3), *net = describe(&config, RP_SILU, RP_SOFTMAX_CROSS_ENTROPY);
    rp_real expected[BATCH * OUTPUTS], out[BATCH * OUTPUTS];
    rp_score score = {0, 0, 0}, full_score = {0, 0, 0};
    make_samples(&s, 1);
    WORKS(rp_net_build(net, BATCH, 3));
    FAILS(rp_prepare(net, &o), RP_ERR_UNSUPPORTED, "rp_prepare config.inference_only");
    FAILS(rp_train(net, &o, &s.data, NULL), RP_ERR_UNSUPPORTED, "rp_train config.inference_only");
    FAILS(rp_fit(net, &o, &s.data, NULL, NULL), RP_ERR_UNSUPPORTED, "rp_fit config.inference_only");
    FAILS(rp_backward(net, &s.data, NULL, NULL), RP_ERR_UNSUPPORTED, "rp_backward config.inference_only");
    FAILS(rp_update(net, &o), RP_ERR_UNSUPPORTED, "rp_update config.inference_only");
    FAILS(rp_direction(net, &o), RP_ERR_UNSUPPORTED, "rp_direction config.inference_only");
    FAILS(rp_move(net, 1), RP_ERR_UNSUPPORTED, "rp_move config.inference_only");
    FAILS(rp_forward(net, s.inputs, 1), RP_ERR_UNSUPPORTED, "rp_forward config.inference_only");
    FAILS(rp_backward_from(net, out, NULL), RP_ERR_UNSUPPORTED, "rp_backward_from config.inference_only");
    CHECK(!rp_gradient(net) && !rp_curvature(net) && !rp_direction_array(net), "arrays for training");
    CHECK(same_parameters(net, full) && rp_memory(net) < rp_memory(full), "%d bytes", (int)rp_memory(net));
    WORKS(rp_predict(net, s.inputs, BATCH, out));
    WORKS(rp_predict(full, s.inputs, BATCH, expected));
    CHECK(!memcmp(out, expected, sizeof out), "another prediction: %g, not %g", out[0], expected[0]);
    WORKS(rp_evaluate(net, &s.data, &score));
    WORKS(rp_evaluate(full, &s.data, &full_score));
    CHECK(score.loss == full_score.loss && score.accuracy == full_score.accuracy, "another loss: %g", score.loss);
    rp_net_free(net), rp_net_free(full);
}

/* >>extremes */

/* What a step cannot digest, and what is to be said of it. */
typedef enum poison { NAN_INPUT, INFINITE_INPUT, NAN_TARGET, INFINITE_TARGET, NAN_WEIGHT, NAN_PARAMETER, POISONS } poison;
static rp_status poisoned_call(poison kind, int consumer, rp_net *net, const samples *clean) {
    samples s = *clean;
    rp_real *at = kind <= INFINITE_INPUT ? &s.inputs[4] : kind <= INFINITE_TARGET ? &s.targets[5] : &s.weights[1], kept;
    rp_status status;
    s.data.inputs = s.inputs, s.data.targets = s.targets, s.data.weights = s.weights;
    if (kind == NAN_PARAMETER) at = &rp_parameters(net)[HIDDEN * INPUTS + 2];
    kept = *at;
    *at = (rp_real)(kind == INFINITE_INPUT || kind == INFINITE_TARGET ? INFINITY : NAN);
    status = consumer == TRAIN ? RP_OK : consume(consumer, net, &s.data);
    if (consumer == TRAIN) status = RP_OK;
    *at = kept;
    return status;
}

int main(void) { return test_end(); }
