/* What must never go wrong: every misuse has its status and its message, extremes and a lack of memory leave a net
   whole, the same seed gives the same bits. */
#include "../rp.h"
#include "calls.h"
#include "heap.h"
#include "optimizers.h"
#include <float.h>
#include <limits.h>

enum { INPUTS = 3, HIDDEN = 5, OUTPUTS = 2, BATCH = 4 };

static rp_net *describe(const rp_config *config, rp_activation_kind activation, rp_loss_kind loss) {
    rp_net *net = rp_net_new(rp_vector(INPUTS), config);
    rp_dense(net, HIDDEN), rp_activation(net, activation), rp_dense(net, OUTPUTS);
    rp_loss(net, loss);
    return net;
}
static rp_net *make_net(rp_activation_kind activation, rp_loss_kind loss, uint64_t seed) {
    rp_net *net = describe(NULL, activation, loss);
    if (!CHECK(rp_net_build(net, BATCH, seed) == RP_OK, "%s", rp_error(net))) exit(test_end());
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
    s->data = rp_targeted(s->inputs, s->targets, BATCH);
}

static size_t parameter_bytes(const rp_net *net) { return rp_parameter_count(net) * sizeof(rp_real); }
static int same_parameters(rp_net *a, rp_net *b) {
    return !memcmp(rp_parameters(a), rp_parameters(b), parameter_bytes(a));
}
static int finite_parameters(rp_net *net) {
    size_t finite = 0;
    for (size_t i = 0; i < rp_parameter_count(net); i++) finite += isfinite(rp_parameters(net)[i]) != 0;
    return finite == rp_parameter_count(net);
}

/* >>misuse */

/* A mistake in the description sticks, and the build reports the first. */
#define DESCRIPTION_FAILS(input, status, words, ...) do { \
    heap h = new_heap(); \
    rp_config config = heap_config(&h); \
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
    DESCRIPTION_FAILS(rp_vector(2), RP_ERR_VALUE, "rp_no_bias", rp_no_bias(net, rp_layer_count(net) - 1));
    DESCRIPTION_FAILS(rp_vector(2), RP_ERR_VALUE, "rp_no_bias tanh", rp_activation(net, RP_TANH), rp_no_bias(net, rp_layer_count(net) - 1));
    DESCRIPTION_FAILS(rp_vector(2), RP_ERR_VALUE, "rp_negative_slope", rp_dense(net, 2), rp_negative_slope(net, rp_layer_count(net) - 1, 1));
    for (int i = 0; i < 3; i++) {
        rp_real slope = i == 0 ? -1 : i == 1 ? nan : infinite, delta = i == 0 ? 0 : slope;
        DESCRIPTION_FAILS(rp_vector(2), RP_ERR_VALUE, "rp_negative_slope",
                          rp_activation(net, RP_ELU), rp_negative_slope(net, rp_layer_count(net) - 1, slope));
        DESCRIPTION_FAILS(rp_vector(2), RP_ERR_VALUE, "rp_huber_delta delta", rp_huber_delta(net, delta));
    }
}

/* A net of 9 parameters and one of 70 layers as wide as can be. Where addresses have 32 bits, more than they reach. */
static void test_builds(void) {
    const int wide = sizeof(size_t) > 4;
    heap h = new_heap();
    rp_config config = heap_config(&h);
    rp_net *net = rp_net_new(rp_vector(2), &config);
    FAILS(rp_net_build(net, 4, 1), RP_ERR_SHAPE, "rp_net_build layer");
    rp_dense(net, 3);
    FAILS(rp_net_build(net, 0, 1), RP_ERR_VALUE, "rp_net_build batch 0");
    FAILS(rp_net_build(net, -1, 1), RP_ERR_VALUE, "rp_net_build batch -1");
    FAILS(rp_net_build(net, INT_MAX, 1), RP_ERR_VALUE, "rp_net_build batch 2147483647");
    FAILS(rp_net_build(net, (1 << 22) / (int)sizeof(rp_real), 1), RP_ERR_MEMORY, "rp_net_build memory");
    FAILS(rp_net_build(net, 1 << 26, 1), wide ? RP_ERR_MEMORY : RP_ERR_OVERFLOW, "rp_net_build memory 67108864");
    WORKS(rp_net_build(net, 4, 1));
    rp_net_free(net);
    net = rp_net_new(rp_vector(1 << 28), &config);
    for (int i = 0; i < 70; i++) rp_dense(net, 1 << 28);
    FAILS(rp_net_build(net, 4, 1), RP_ERR_OVERFLOW, wide ? "rp_net_build" : "rp_dense"); /* the first that cannot be */
    rp_net_free(net);
    CHECK(h.live == 0, "%ld allocations live", h.live);
}

static void test_configs(void) {
    heap h = new_heap();
    for (int i = 0; i < 5; i++) {
        const char *const words[] = {"config.release", "config.allocate", "config.threads -2",
                                     "config.isa 99", "config.isa -1"};
        rp_config config = heap_config(&h);
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
    rp_real expected[BATCH * OUTPUTS] = {0}, out[BATCH * OUTPUTS] = {0};
    int refused = 0;
    make_samples(&s, 1);
    for (int isa = RP_ISA_PORTABLE; isa <= RP_ISA_AMX; isa++) {
        rp_config config = config_of((rp_isa_kind)isa, 0);
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
    CHECK(refused > 0 && refused < 5, "%d instruction sets are refused", refused);
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
        rp_dense(NULL, 1), rp_activation(NULL, RP_TANH), rp_no_bias(NULL, rp_layer_count(NULL) - 1), rp_negative_slope(NULL, rp_layer_count(NULL) - 1, 1),
        rp_freeze(NULL, 0, 1), rp_loss(NULL, RP_HUBER), rp_huber_delta(NULL, 1), rp_net_build(NULL, 1, 1),
        rp_prepare(NULL, &o), rp_train(NULL, &o, &s.data, NULL), rp_predict(NULL, x, 1, out),
        rp_evaluate(NULL, &s.data, &score, NULL), rp_fit(NULL, &o, &s.data, NULL, NULL), rp_layer_info(NULL, 0, &layer), rp_loss_limits(NULL, &s.data, NULL, NULL),
        rp_backward(NULL, &s.data, NULL, NULL), rp_update(NULL, &o), rp_direction(NULL, &o), rp_move(NULL, 1),
        rp_forward(NULL, x, 1), rp_backward_from(NULL, x, NULL, NULL), rp_backward_from(NULL, x, NULL, NULL),
        rp_predict_with(NULL, workspace, x, 1, out), rp_predict_with(net, NULL, x, 1, out),
        rp_predict_with(net, workspace, NULL, 1, out), rp_predict_with(net, workspace, x, 1, NULL)};
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
        CHECK(statuses[i] == RP_ERR_NULL, "call %d: %d", (int)i, statuses[i]);
    CHECK(!rp_parameters(NULL) && !rp_gradient(NULL) && !rp_curvature(NULL) && !rp_step_array(NULL) &&
          !rp_output(NULL), "arrays");
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
    FAILS(rp_evaluate(net, &s.data, &score, NULL), RP_ERR_ORDER, "rp_evaluate rp_net_build");
    FAILS(rp_fit(net, &o, &s.data, NULL, NULL), RP_ERR_ORDER, "rp_fit rp_net_build");
    FAILS(rp_backward(net, &s.data, NULL, NULL), RP_ERR_ORDER, "rp_backward rp_net_build");
    FAILS(rp_update(net, &o), RP_ERR_ORDER, "rp_update rp_net_build");
    FAILS(rp_direction(net, &o), RP_ERR_ORDER, "rp_direction rp_net_build");
    FAILS(rp_move(net, 1), RP_ERR_ORDER, "rp_move rp_net_build");
    FAILS(rp_forward(net, s.inputs, 1), RP_ERR_ORDER, "rp_forward rp_net_build");
    FAILS(rp_backward_from(net, s.targets, NULL, NULL), RP_ERR_ORDER, "rp_backward_from rp_net_build");
    CHECK(!rp_parameters(net) && !rp_gradient(net) && !rp_curvature(net) && !rp_step_array(net) &&
          !rp_output(net), "arrays");
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
    FAILS(rp_no_bias(net, rp_layer_count(net) - 1), RP_ERR_ORDER, "rp_no_bias built");
    FAILS(rp_negative_slope(net, rp_layer_count(net) - 1, 1), RP_ERR_ORDER, "rp_negative_slope built");
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
    const rp_rule rule = rule_of(RP_PATHS, RP_BOUND_TIGHT, RP_SCALE_ONE);
    rp_optimizer o = rp_partitioning();
    rp_score score;
    switch (consumer) {
    case TRAIN: return rp_train(net, &o, data, NULL);
    case BACKWARD: return rp_backward(net, data, &rule, NULL);
    case EVALUATE: return rp_evaluate(net, data, &score, NULL);
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

static int no_batch(void *user, int index, rp_data *batch) {
    (void)user;
    (void)index;
    (void)batch;
    return 0;
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
    data = rp_streamed(no_batch, NULL);
    FAILS(consume(TRAIN, net, &data), RP_ERR_VALUE, "rp_train data.fill");
    FAILS(consume(BACKWARD, net, &data), RP_ERR_VALUE, "rp_backward data.fill");
    FAILS(rp_evaluate(net, &s.data, NULL, NULL), RP_ERR_NULL, "rp_evaluate score");
    FAILS(rp_train(net, NULL, &s.data, NULL), RP_ERR_NULL, "rp_train optimizer");
    FAILS(rp_fit(net, NULL, &s.data, NULL, NULL), RP_ERR_NULL, "rp_fit optimizer");
    rp_net_free(net);
}

static void test_labels(void) {
    samples s;
    make_samples(&s, 1);
    for (int loss = 0; loss <= RP_POISSON; loss++) {
        rp_net *net = make_net(RP_TANH, (rp_loss_kind)loss, 1);
        rp_data data = rp_labelled(s.inputs, s.labels, BATCH);
        if (loss == RP_SOFTMAX_CROSS_ENTROPY) {
            WORKS(rp_backward(net, &data, NULL, NULL));
            s.labels[1] = OUTPUTS;
            DATA_FAILS(&data, RP_ERR_LABEL, "labels[1] 2");
            s.labels[1] = -1;
            DATA_FAILS(&data, RP_ERR_LABEL, "labels[1] -1");
            s.labels[1] = INT_MAX;
            DATA_FAILS(&data, RP_ERR_LABEL, "labels[1] 2147483647");
        } else DATA_FAILS(&data, RP_ERR_LABEL, "labels targets"); /* binary cross-entropy too: there are two outputs */
        rp_net_free(net);
    }
    rp_net *net = rp_net_new(rp_vector(INPUTS), NULL);
    rp_data data = rp_labelled(s.inputs, s.labels, BATCH);
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
    } cases[] = {{RP_SOFTMAX_CROSS_ENTROPY, -1}, {RP_POISSON, -1}, {RP_BINARY_CROSS_ENTROPY, -1},
                 {RP_BINARY_CROSS_ENTROPY, 2}};
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
    typedef rp_status (*taker)(rp_net *, const rp_optimizer *);
    static const taker takers[] = {rp_prepare, rp_update, rp_direction};
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
    FAILS(rp_backward_from(net, s.targets, s.targets, &o.rule), RP_ERR_VALUE, "rp_backward_from rule." #field); \
} while (0)

static void test_optimizer_fields(void) {
    const double everywhere[] = {NAN, INFINITY, -INFINITY, -1};
    samples s;
    rp_net *net = make_net(RP_TANH, RP_SQUARED_ERROR, 1);
    make_samples(&s, 1);
    for (int i = 0; i < 4; i++) {
        FIELD_FAILS(rp_sgd(1), rate, rp_real, everywhere[i]);
        FIELD_FAILS(rp_adam(1), rate_decay, rp_real, everywhere[i]);
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
    FIELD_FAILS(rp_sgd(1), rate_decay_steps, int, -1);
    FIELD_FAILS(rp_sgd(1), nesterov, int, 1);
    FIELD_FAILS(rp_sgd(1), method, rp_method, 99);
    FIELD_FAILS(rp_sgd(1), method, rp_method, -1);
    rp_optimizer newton = rp_newton();
    newton.cubic_sigma = 1;
    FIELD_FAILS(newton, cubic_adaptive, int, 1);
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
    rp_fit_options zero = fit_of(0), options;
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
#ifndef __FAST_MATH__ /* which assumes that there are no such numbers */
    CHECK(!isfinite(out[0]) && isnan(out[OUTPUTS]), "%g, %g", out[0], out[OUTPUTS]);
#endif
    for (int i = 2 * OUTPUTS; i < BATCH * OUTPUTS; i++)
        CHECK(isfinite(out[i]), "another sample's output %d is %g", i, out[i]);
    rp_workspace_free(workspace);
    rp_net_free(net);
}

static void test_foreign_workspace(void) { /* of a larger net, so that a mistaken use stays within it */
    samples s;
    rp_net *net = make_net(RP_RELU, RP_SQUARED_ERROR, 1), *other = rp_net_new(rp_vector(50), NULL);
    rp_dense(other, 50), rp_activation(other, RP_RELU), rp_dense(other, 50);
    CHECK(!rp_net_build(other, 50, 1), "%s", rp_error(other));
    rp_workspace *workspace = rp_workspace_new(other, 50);
    make_samples(&s, 1);
    CHECK(rp_predict_with(net, workspace, s.inputs, BATCH, s.targets) == RP_ERR_VALUE, "another net's workspace");
    rp_workspace_free(workspace);
    rp_net_free(net), rp_net_free(other);
}

/* Steps in pieces, out of order. */
static void test_pieces(void) {
    samples s;
    rp_optimizer sgd = rp_sgd((rp_real)0.1), partitioning = rp_partitioning();
    const rp_rule rule = rule_of(RP_PATHS, RP_BOUND_TIGHT, RP_SCALE_ONE);
    rp_net *net = make_net(RP_TANH, RP_SQUARED_ERROR, 1);
    partitioning.rate = 5;
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
    FAILS(rp_backward_from(net, gradient, NULL, NULL), RP_ERR_ORDER, "rp_backward_from rp_forward");
    FAILS(rp_forward(net, NULL, 1), RP_ERR_NULL, "rp_forward x");
    FAILS(rp_forward(net, s.inputs, 0), RP_ERR_VALUE, "rp_forward count 0");
    FAILS(rp_forward(net, s.inputs, BATCH + 1), RP_ERR_VALUE, "rp_forward count 5");
    WORKS(rp_forward(net, s.inputs, BATCH));
    FAILS(rp_backward_from(net, NULL, curvature, NULL), RP_ERR_NULL, "rp_backward_from output_gradient");
    for (int i = 0; i < 3; i++) {
        const double bad[] = {-1, NAN, INFINITY};
        curvature[3] = (rp_real)bad[i];
        FAILS(rp_backward_from(net, gradient, curvature, NULL), RP_ERR_VALUE, "rp_backward_from output_curvature[3]");
    }
    curvature[3] = 0;
    WORKS(rp_backward_from(net, gradient, curvature, NULL));
    gradient[2] = (rp_real)NAN;
    WORKS(rp_forward(net, s.inputs, BATCH));
    FAILS(rp_backward_from(net, gradient, curvature, NULL), RP_ERR_NOT_FINITE, "rp_backward_from");
    for (int i = 0; i < CONSUMERS + 2; i++) {
        WORKS(rp_forward(net, s.inputs, BATCH));
        if (i < CONSUMERS) consume(i, net, &s.data);
        else if (i == CONSUMERS) rp_predict(net, s.inputs, 1, s.targets);
        else rp_update(net, &o);
        FAILS(rp_backward_from(net, curvature, NULL, NULL), RP_ERR_ORDER, "rp_backward_from rp_forward");
    }
    rp_net_free(net);
}

static void test_inference_only(void) {
    samples s;
    rp_optimizer o = rp_sgd(1);
    rp_config config = inference_config();
    rp_net *full = make_net(RP_SILU, RP_SOFTMAX_CROSS_ENTROPY, 3);
    rp_net *net = describe(&config, RP_SILU, RP_SOFTMAX_CROSS_ENTROPY);
    rp_real expected[BATCH * OUTPUTS], out[BATCH * OUTPUTS];
    rp_score score, full_score;
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
    FAILS(rp_backward_from(net, out, NULL, NULL), RP_ERR_UNSUPPORTED, "rp_backward_from config.inference_only");
    CHECK(!rp_gradient(net) && !rp_curvature(net) && !rp_step_array(net), "arrays for training");
    CHECK(same_parameters(net, full) && rp_memory(net) < rp_memory(full), "%d bytes", (int)rp_memory(net));
    WORKS(rp_predict(net, s.inputs, BATCH, out));
    WORKS(rp_predict(full, s.inputs, BATCH, expected));
    CHECK(!memcmp(out, expected, sizeof out), "another prediction: %g, not %g", out[0], expected[0]);
    WORKS(rp_evaluate(net, &s.data, &score, NULL));
    WORKS(rp_evaluate(full, &s.data, &full_score, NULL));
    CHECK(score.loss == full_score.loss && score.accuracy == full_score.accuracy, "another loss: %g", score.loss);
    rp_net_free(net), rp_net_free(full);
}

/* >>extremes */

/* What a step cannot digest. */
typedef enum poison {
    NAN_INPUT, INFINITE_INPUT, NAN_TARGET, INFINITE_TARGET, NAN_WEIGHT, NAN_PARAMETER, POISONS
} poison;

static rp_real *poisoned_place(poison kind, rp_real *parameters, samples *s) {
    switch (kind) {
    case NAN_INPUT: case INFINITE_INPUT: return &s->inputs[4];
    case NAN_TARGET: case INFINITE_TARGET: return &s->targets[5];
    case NAN_WEIGHT: return &s->weights[1];
    default: return &parameters[HIDDEN * INPUTS + 2];
    }
}

/* What the message must name; rp_fit shuffles samples. */
static void words_for(poison kind, const char *who, int shuffled, char words[60]) {
    int input = kind == NAN_INPUT || kind == INFINITE_INPUT, target = kind == NAN_TARGET || kind == INFINITE_TARGET;
    int at = input ? 4 : 5, width = input ? INPUTS : OUTPUTS, length;
    length = snprintf(words, 60, "%s", who);
    if (!input && !target) return;
    length += snprintf(words + length, 60 - (size_t)length, " %s %d of sample", input ? "input" : "target", at % width);
    if (!shuffled) snprintf(words + length, 60 - (size_t)length, " %d", at / width);
}

/* A step on a poisoned batch, in its three forms, fails and leaves the flat arrays as they were. */
static void check_poison(poison kind, rp_net *net, const rp_optimizer *o, samples *s) {
    char words[60];
    rp_status expected = kind == NAN_WEIGHT ? RP_ERR_VALUE : RP_ERR_NOT_FINITE;
    rp_real *place = poisoned_place(kind, rp_parameters(net), s), kept = *place, gradient[64], curvature[64];
    memcpy(gradient, rp_gradient(net), parameter_bytes(net));
    memcpy(curvature, rp_curvature(net), parameter_bytes(net));
    *place = (rp_real)(kind == INFINITE_INPUT || kind == INFINITE_TARGET ? INFINITY : NAN);
    words_for(kind, "rp_train", 0, words);
    FAILS(rp_train(net, o, &s->data, NULL), expected, words);
    words_for(kind, "rp_fit", 1, words);
    FAILS(rp_fit(net, o, &s->data, NULL, NULL), expected, words);
    words_for(kind, "rp_backward", 0, words);
    FAILS(rp_backward(net, &s->data, &o->rule, NULL), expected, words);
    *place = kept;
    CHECK(!memcmp(gradient, rp_gradient(net), parameter_bytes(net)), "poison %d changed the gradient", kind);
    CHECK(!memcmp(curvature, rp_curvature(net), parameter_bytes(net)), "poison %d changed the curvature", kind);
}

static void good_steps(rp_net *net, const rp_optimizer *o, const samples *s) {
    for (int i = 0; i < 3; i++) WORKS(rp_train(net, o, &s->data, NULL));
}

/* A failed step is as if it had never been: parameters, state and random numbers go on with the same bits. */
static void test_failed_steps(rp_activation_kind activation) {
    samples s;
    make_samples(&s, 2);
    s.data.weights = s.weights;
    for (int i = 0; i < OPTIMIZERS; i++) {
        for (int kind = 0; kind < POISONS; kind++) {
            if (i >= RATED && kind == NAN_PARAMETER) continue; /* from which it recovers: test_pace.c */
            named_optimizer o = optimizer_of(i);
            rp_net *net = make_net(activation, RP_SQUARED_ERROR, 4);
            rp_net *spared = make_net(activation, RP_SQUARED_ERROR, 4);
            good_steps(net, &o.with, &s), good_steps(spared, &o.with, &s);
            check_poison((poison)kind, net, &o.with, &s);
            CHECK(same_parameters(net, spared), "%s: poison %d changed the parameters", o.name, kind);
            good_steps(net, &o.with, &s), good_steps(spared, &o.with, &s);
            CHECK(same_parameters(net, spared), "%s: poison %d changed the state", o.name, kind);
            rp_net_free(net), rp_net_free(spared);
        }
    }
}

/* A value that is not finite is reported at the layer where it first appears, whatever becomes of it in the layers above. */
static void test_failed_layer(rp_activation_kind activation) {
    const rp_real poisons[] = {NAN, INFINITY, -INFINITY};
    rp_optimizer o = rp_sgd((rp_real)0.1);
    samples s;
    make_samples(&s, 2);
    for (int at = 0; at < 3 * 3; at++) {
        rp_net *net = rp_net_new(rp_vector(INPUTS), NULL);
        char words[40];
        rp_layer info;
        for (int l = 0; l < 3; l++) {
            if (l) rp_activation(net, activation);
            rp_dense(net, l < 2 ? HIDDEN : OUTPUTS);
        }
        rp_loss(net, RP_SQUARED_ERROR);
        WORKS(rp_net_build(net, BATCH, 1));
        WORKS(rp_layer_info(net, at / 3 * 2, &info));
        rp_parameters(net)[info.biases] = poisons[at % 3];
        snprintf(words, sizeof words, "rp_train layer %d dense", at / 3 * 2);
        FAILS(rp_train(net, &o, &s.data, NULL), RP_ERR_NOT_FINITE, words);
        rp_net_free(net);
    }
}

/* A failed step by another optimizer does not cost the first its state. */
static void test_failed_switch(void) {
    samples s;
    make_samples(&s, 2);
    s.data.weights = s.weights;
    for (int i = 0; i < OPTIMIZERS; i++) {
        rp_optimizer o = optimizer_of(i).with, other = optimizer_of((i + 4) % OPTIMIZERS).with;
        rp_net *net = make_net(RP_TANH, RP_SQUARED_ERROR, 4), *spared = make_net(RP_TANH, RP_SQUARED_ERROR, 4);
        good_steps(net, &o, &s), good_steps(spared, &o, &s);
        check_poison(NAN_INPUT, net, &other, &s);
        good_steps(net, &o, &s), good_steps(spared, &o, &s);
        CHECK(same_parameters(net, spared), "%s lost its state", optimizer_of(i).name);
        rp_net_free(net), rp_net_free(spared);
    }
}

/* Arrays that the caller filled with what is not finite. */
static void test_bad_arrays(void) {
    const rp_rule rule = rule_of(RP_PATHS, RP_BOUND_TIGHT, RP_SCALE_ONE);
    samples s;
    make_samples(&s, 3);
    for (int i = 0; i < RATED; i++) {
        named_optimizer o = optimizer_of(i);
        rp_net *net = make_net(RP_TANH, RP_SQUARED_ERROR, 4), *spared = make_net(RP_TANH, RP_SQUARED_ERROR, 4);
        good_steps(net, &o.with, &s), good_steps(spared, &o.with, &s);
        for (int which = 0; which < 1 + (o.with.method == RP_PARTITIONING); which++) {
            WORKS(rp_backward(net, &s.data, &rule, NULL));
            (which ? rp_curvature(net) : rp_gradient(net))[3] = (rp_real)(which ? INFINITY : NAN);
            FAILS(rp_update(net, &o.with), RP_ERR_NOT_FINITE, "rp_update gradient");
            FAILS(rp_direction(net, &o.with), RP_ERR_NOT_FINITE, "rp_direction gradient");
        }
        memset(rp_step_array(net), 0, parameter_bytes(net));
        rp_step_array(net)[0] = (rp_real)NAN, rp_step_array(net)[1] = (rp_real)INFINITY;
        WORKS(rp_move(net, 1));
        good_steps(net, &o.with, &s), good_steps(spared, &o.with, &s);
        CHECK(same_parameters(net, spared), "%s", o.name);
        rp_net_free(net), rp_net_free(spared);
    }
}

/* rp_train leaves what rp_backward and rp_direction left. */
static void test_arrays_stay(void) {
    const rp_rule rule = rule_of(RP_PATHS, RP_BOUND_TIGHT, RP_SCALE_ONE);
    samples s;
    make_samples(&s, 3);
    for (int i = 0; i < RATED; i++) {
        named_optimizer o = optimizer_of(i);
        rp_real gradient[64], curvature[64], direction[64];
        rp_net *net = make_net(RP_TANH, RP_SQUARED_ERROR, 4);
        WORKS(rp_backward(net, &s.data, &rule, NULL));
        WORKS(rp_direction(net, &o.with));
        memcpy(gradient, rp_gradient(net), parameter_bytes(net));
        memcpy(curvature, rp_curvature(net), parameter_bytes(net));
        memcpy(direction, rp_step_array(net), parameter_bytes(net));
        WORKS(rp_train(net, &o.with, &s.data, NULL));
        CHECK(!memcmp(gradient, rp_gradient(net), parameter_bytes(net)), "%s: the gradient", o.name);
        CHECK(!memcmp(curvature, rp_curvature(net), parameter_bytes(net)), "%s: the curvature", o.name);
        CHECK(!memcmp(direction, rp_step_array(net), parameter_bytes(net)), "%s: the direction", o.name);
        rp_net_free(net);
    }
}

/* Weights on an input that is always zero have neither gradient nor curvature, and stay exactly. */
static void test_zero_columns(void) {
    samples s;
    make_samples(&s, 5);
    for (int i = 0; i < BATCH; i++) s.inputs[i * INPUTS + 1] = 0;
    for (int i = 0; i < OPTIMIZERS; i++) {
        named_optimizer o = optimizer_of(i);
        rp_net *net = make_net(RP_SOFTPLUS, RP_SOFTMAX_CROSS_ENTROPY, 6);
        rp_net *before = make_net(RP_SOFTPLUS, RP_SOFTMAX_CROSS_ENTROPY, 6);
        o.with.weight_decay = o.with.damping = 0;
        good_steps(net, &o.with, &s);
        for (int at = 0; at < HIDDEN * INPUTS; at++) {
            int stays = rp_parameters(net)[at] == rp_parameters(before)[at];
            CHECK(stays == (at % INPUTS == 1), "%s: weight %d %s", o.name, at, stays ? "stays" : "moves");
        }
        rp_net_free(net), rp_net_free(before);
    }
}

/* Inputs of +-10^4 and denormal ones: the first step is taken; whatever follows, the parameters stay finite. */
static void test_extreme_inputs(void) {
    const double sizes[] = {1e4, sizeof(rp_real) == sizeof(float) ? FLT_MIN / 8 : DBL_MIN / 8};
    for (int activation = RP_IDENTITY; activation <= RP_SILU; activation++) {
        for (int i = 0; i < OPTIMIZERS * 4; i++) {
            named_optimizer o = optimizer_of(i / 4);
            rp_loss_kind loss = i & 1 ? RP_SQUARED_ERROR : RP_SOFTMAX_CROSS_ENTROPY;
            rp_net *net = make_net((rp_activation_kind)activation, loss, 7);
            double size = sizes[i / 2 % 2];
            samples s;
            make_samples(&s, 8);
            for (int at = 0; at < BATCH * INPUTS; at++) s.inputs[at] = (rp_real)(at % 2 ? -size : size);
            WORKS(rp_train(net, &o.with, &s.data, NULL));
            for (int step = 0; step < 5; step++) {
                rp_status status = rp_train(net, &o.with, &s.data, NULL);
                CHECK(!status || status == RP_ERR_NOT_FINITE, "%s: %d", o.name, status);
            }
            CHECK(finite_parameters(net), "%s, activation %d", o.name, activation);
            rp_net_free(net);
        }
    }
}

/* Logits so large that probabilities are exactly 0 and 1, on the right side and on the wrong one. */
static void test_saturated(void) {
    const rp_loss_kind losses[] = {RP_SOFTMAX_CROSS_ENTROPY, RP_BINARY_CROSS_ENTROPY, RP_POISSON};
    for (int i = 0; i < OPTIMIZERS * 3; i++) {
        named_optimizer o = optimizer_of(i / 3);
        rp_net *net = make_net(RP_TANH, losses[i % 3], 9);
        rp_real *biases = rp_parameters(net) + rp_parameter_count(net) - OUTPUTS, loss = -1;
        samples s;
        make_samples(&s, 10);
        for (int at = 0; at < BATCH * OUTPUTS; at++) s.targets[at] = (rp_real)((at + at / OUTPUTS) % 2);
        biases[0] = -10000, biases[1] = losses[i % 3] == RP_POISSON ? -10000 : 10000;
        WORKS(rp_train(net, &o.with, &s.data, &loss));
        CHECK(loss > 1000 && isfinite(loss), "%s: loss %g", o.name, loss);
        CHECK(finite_parameters(net), "%s", o.name);
        rp_net_free(net);
    }
    samples s;
    rp_optimizer o = rp_sgd(1);
    rp_net *net = make_net(RP_TANH, RP_POISSON, 9);
    make_samples(&s, 10);
    rp_parameters(net)[rp_parameter_count(net) - 1] = 10000;
    FAILS(rp_train(net, &o, &s.data, NULL), RP_ERR_NOT_FINITE, "rp_train loss");
    rp_net_free(net);
}

/* A batch smaller than the largest sees nothing of the larger one before it. */
static void test_small_batches(void) {
    for (int i = 0; i < BATCH * 3; i++) {
        int count = 1 + i / 3;
        const rp_rule rule = rule_of(i % 2 ? RP_JACOBIAN : RP_PATHS, RP_BOUND_TIGHT, RP_SCALE_FAN_IN);
        rp_net *used = make_net(RP_TANH, RP_SOFTMAX_CROSS_ENTROPY, 11);
        rp_net *net = describe(NULL, RP_TANH, RP_SOFTMAX_CROSS_ENTROPY), *fresh = net;
        rp_real used_loss = 0, fresh_loss = 1;
        samples large, small;
        make_samples(&large, 12), make_samples(&small, 13);
        for (int at = 0; at < BATCH * INPUTS; at++) large.inputs[at] *= 1000;
        small.data.count = count;
        WORKS(rp_net_build(fresh, count, 11));
        rp_backward(used, &large.data, &rule, NULL);
        CHECK(!rp_backward(used, &small.data, &rule, &used_loss), "%s", rp_error(used));
        CHECK(!rp_backward(fresh, &small.data, &rule, &fresh_loss), "%s", rp_error(fresh));
        CHECK(fabs((double)(used_loss - fresh_loss)) < 1e-5, "loss %g, not %g", used_loss, fresh_loss);
        for (size_t at = 0; at < rp_parameter_count(used); at++) {
            CHECK(fabs((double)(rp_gradient(used)[at] - rp_gradient(fresh)[at])) < 1e-5,
                  "gradient %d of %d samples", (int)at, count);
            CHECK(fabs((double)(rp_curvature(used)[at] - rp_curvature(fresh)[at])) < 1e-5,
                  "curvature %d of %d samples", (int)at, count);
        }
        rp_net_free(used), rp_net_free(fresh);
    }
}

/* At an absurd rate the parameters stay finite, and each step either is taken or says why not. */
static void test_blow_up(void) {
    samples s;
    make_samples(&s, 14);
    for (int i = 0; i < OPTIMIZERS * 2; i++) {
        named_optimizer o = optimizer_of(i / 2);
        rp_net *net = make_net(i % 2 ? RP_RELU : RP_TANH, RP_SQUARED_ERROR, 15);
        o.with.rate = (rp_real)1e30;
        for (int step = 0; step < 10; step++) {
            rp_status status = rp_train(net, &o.with, &s.data, NULL);
            CHECK(!status || status == RP_ERR_NOT_FINITE, "%s: %d", o.name, status);
            CHECK(finite_parameters(net), "%s, step %d", o.name, step);
        }
        rp_net_free(net);
    }
}

/* A parameter whose new value would not be finite stays; the others move. */
static void test_overflowing_step(void) {
    const rp_real largest = (rp_real)(sizeof(rp_real) == sizeof(float) ? FLT_MAX : DBL_MAX);
    samples s;
    make_samples(&s, 14);
    for (int i = 0; i < 2; i++) {
        rp_optimizer o = i ? rp_algorithm_1(1) : rp_sgd(largest / 4);
        rp_net *net = make_net(RP_TANH, RP_SQUARED_ERROR, 16);
        o.damping = 0;
        rp_real *w = rp_parameters(net), w0 = w[0], w1 = w[1], w2 = w[2];
        memset(rp_gradient(net), 0, parameter_bytes(net));
        memset(rp_curvature(net), 0, parameter_bytes(net));
        rp_gradient(net)[0] = 16, rp_gradient(net)[1] = 1;
        rp_curvature(net)[1] = 2;
        WORKS(rp_update(net, &o));
        CHECK(w[0] == w0 && w[2] == w2, "%g became %g, %g became %g", w0, w[0], w2, w[2]);
        CHECK(w[1] < w1 && isfinite(w[1]), "%g became %g", w1, w[1]);
        rp_net_free(net);
    }
}

/* A gradient whose square overflows, once: the state recovers. */
static void test_state_recovers(void) {
    const rp_real huge = (rp_real)(sizeof(rp_real) == sizeof(float) ? 1e30 : 1e200);
    for (int i = 0; i < RATED; i++) {
        named_optimizer o = optimizer_of(i);
        rp_net *net = make_net(RP_TANH, RP_SQUARED_ERROR, 17);
        rp_real *w = rp_parameters(net), before;
        for (size_t at = 0; at < rp_parameter_count(net); at++) rp_gradient(net)[at] = huge, rp_curvature(net)[at] = 1;
        WORKS(rp_update(net, &o.with));
        CHECK(finite_parameters(net), "%s", o.name);
        w[0] = before = 1;
        rp_gradient(net)[0] = 1;
        for (int step = 0; step < 30; step++) WORKS(rp_update(net, &o.with));
        CHECK(w[0] != before && isfinite(w[0]), "%s: a parameter stays at %g for ever", o.name, w[0]);
        rp_net_free(net);
    }
}

/* >>memory */

/* A net on a heap that may fail: what cannot be built is built again, once. NULL: not even then. */
static rp_net *build_on(heap *h) {
    rp_config config = heap_config(h);
    for (int attempt = 0; attempt < 2; attempt++) {
        rp_net *net = describe(&config, RP_ELU, RP_SQUARED_ERROR);
        rp_status status = net ? rp_net_build(net, BATCH, 18) : RP_ERR_MEMORY;
        if (net && status == RP_ERR_MEMORY) {
            CHECK(has_words(rp_error(net), "memory"), "'%s'", rp_error(net));
            status = rp_net_build(net, BATCH, 18);
        }
        if (!status) return net;
        CHECK(status == RP_ERR_MEMORY, "%d: %s", status, rp_error(net));
        rp_net_free(net);
    }
    return NULL;
}

/* A step or fit; when it fails for want of memory, once more. */
static rp_status persist(rp_net *net, const rp_optimizer *o, const samples *s, int keep_best) {
    rp_status status = RP_OK;
    for (int attempt = 0; attempt < 2; attempt++) {
        rp_real before[64];
        rp_fit_options options = fit_of(3);
        memcpy(before, rp_parameters(net), parameter_bytes(net));
        options.validation = &s->data;
        options.keep_best = 1;
        status = keep_best ? rp_fit(net, o, &s->data, &options, NULL) : rp_train(net, o, &s->data, NULL);
        if (!status) return status;
        CHECK(status == RP_ERR_MEMORY && has_words(rp_error(net), "memory"), "%d: '%s'", status, rp_error(net));
        CHECK(!memcmp(before, rp_parameters(net), parameter_bytes(net)), "parameters changed");
    }
    return status;
}

/* Whatever allocates. Returns whether it came to its end, with the parameters that it learned. */
static int work_on(heap *h, rp_real *parameters) {
    samples s;
    rp_net *net = build_on(h);
    rp_workspace *workspace;
    int done = net != NULL;
    make_samples(&s, 19);
    for (int i = 0; done && i < OPTIMIZERS; i++) {
        rp_optimizer o = optimizer_of(i).with;
        done = !persist(net, &o, &s, i % 2);
    }
    if (done) {
        workspace = rp_workspace_new(net, 3);
        if (!workspace) workspace = rp_workspace_new(net, 3);
        done = workspace && !rp_predict_with(net, workspace, s.inputs, BATCH, s.targets);
        rp_workspace_free(workspace);
        memcpy(parameters, rp_parameters(net), parameter_bytes(net));
    }
    rp_net_free(net);
    return done;
}

static void test_failing_allocations(void) {
    heap h = new_heap();
    rp_real expected[64] = {0};
    CHECK(work_on(&h, expected) && h.live == 0, "%ld allocations live", h.live);
    long needed = h.calls;
    for (long n = 0; n < needed; n++) {
        rp_real parameters[64] = {0};
        h.calls = 0, h.fail_at = n, h.forever = 0;
        CHECK(work_on(&h, parameters), "after allocation %ld failed", n);
        CHECK(!memcmp(parameters, expected, sizeof expected), "allocation %ld: other parameters", n);
        CHECK(h.live == 0, "allocation %ld: %ld live", n, h.live);
        h.calls = 0, h.forever = 1;
        CHECK(!work_on(&h, parameters), "without memory from allocation %ld on", n);
        CHECK(h.live == 0, "from allocation %ld on: %ld live", n, h.live);
    }
}

/* After the build and rp_prepare nothing allocates, but for rp_fit's copy of the best parameters. */
static void test_no_allocation(void) {
    samples s;
    heap h = new_heap();
    rp_config config = heap_config(&h);
    rp_net *net = describe(&config, RP_GELU, RP_SQUARED_ERROR);
    make_samples(&s, 20);
    WORKS(rp_net_build(net, BATCH, 21));
    rp_workspace *workspace = rp_workspace_new(net, 2);
    for (int i = 0; i < OPTIMIZERS; i++) {
        rp_optimizer o = optimizer_of(i).with;
        rp_fit_options options = fit_of(2);
        rp_score score;
        rp_real outputs[BATCH * OUTPUTS];
        char text[100];
        options.validation = &s.data;
        options.batch = 3;
        WORKS(rp_prepare(net, &o));
        size_t memory = rp_memory(net);
        long calls = h.calls, live = h.live;
        WORKS(rp_prepare(net, &o));
        WORKS(rp_train(net, &o, &s.data, NULL));
        WORKS(rp_backward(net, &s.data, &o.rule, NULL));
        if (i < RATED) WORKS(rp_update(net, &o));
        WORKS(rp_direction(net, &o));
        WORKS(rp_move(net, 1));
        WORKS(rp_forward(net, s.inputs, BATCH));
        WORKS(rp_backward_from(net, s.targets, s.targets, NULL));
        WORKS(rp_predict(net, s.inputs, BATCH, outputs));
        WORKS(rp_predict_with(net, workspace, s.inputs, BATCH, outputs));
        WORKS(rp_evaluate(net, &s.data, &score, NULL));
        WORKS(rp_fit(net, &o, &s.data, &options, NULL));
        rp_freeze(net, 0, i % 2), rp_summary(net, text, sizeof text);
        CHECK(h.calls == calls && rp_memory(net) == memory, "%ld allocations", h.calls - calls);
        options.keep_best = 1;
        WORKS(rp_fit(net, &o, &s.data, &options, NULL));
        CHECK(h.calls == calls + 1 && h.live == live, "%ld allocations, %ld live", h.calls - calls, h.live - live);
        CHECK(rp_state_memory(net) < memory, "%d bytes", (int)rp_state_memory(net));
    }
    rp_workspace_free(workspace);
    rp_net_free(net);
    CHECK(h.live == 0, "%ld allocations live", h.live);
}

/* >>sameness */

/* One seed gives the same bits, run to run; another seed gives others. */
static void test_seeds(void) {
    samples s;
    make_samples(&s, 22);
    for (int i = 0; i < OPTIMIZERS; i++) {
        named_optimizer o = optimizer_of(i);
        rp_net *a = make_net(RP_SIGMOID, RP_SOFTMAX_CROSS_ENTROPY, 23);
        rp_net *b = make_net(RP_SIGMOID, RP_SOFTMAX_CROSS_ENTROPY, 23);
        rp_net *other = make_net(RP_SIGMOID, RP_SOFTMAX_CROSS_ENTROPY, 24);
        CHECK(same_parameters(a, b) && !same_parameters(a, other), "seeds");
        for (int step = 0; step < 5; step++) good_steps(a, &o.with, &s), good_steps(b, &o.with, &s);
        CHECK(same_parameters(a, b), "%s: one seed, two results", o.name);
        rp_net_free(a), rp_net_free(b), rp_net_free(other);
    }
}

/* Parameters are uniform in +-1/sqrt(fan_in): bounds, a histogram, and neighbours that know nothing of each other. */
static void test_initialisation(void) {
    enum { WIDE = 200, UNITS = 100, BINS = 20 };
    rp_net *net = rp_net_new(rp_vector(WIDE), NULL);
    rp_dense(net, UNITS);
    WORKS(rp_net_build(net, 1, 25));
    int count = (int)rp_parameter_count(net), bins[BINS] = {0};
    double bound = 1 / sqrt((double)WIDE), square = 0, neighbours = 0;
    CHECK(count == WIDE * UNITS + UNITS, "%d", count);
    for (int i = 0; i < count; i++) {
        double w = rp_parameters(net)[i] / bound, next = rp_parameters(net)[(i + 1) % count] / bound;
        if (!CHECK(fabs(w) <= 1, "parameter %d is %g of its bound", i, w)) continue;
        int bin = (int)((w + 1) / 2 * BINS);
        bins[bin < BINS ? bin : BINS - 1]++;
        neighbours += w * next;
    }
    for (int i = 0; i < BINS; i++) square += pow(bins[i] - (double)count / BINS, 2) / ((double)count / BINS);
    CHECK(square < 60, "chi squared is %g, of 19 degrees of freedom", square);
    CHECK(fabs(neighbours) < 5 * sqrt(count) / 3, "the sum of neighbours' products is %g", neighbours);
    rp_net_free(net);
}

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
enum { THREADS = 4, CROWD = 37, ROUNDS = 50 };
typedef struct reader {
    const rp_net *net;
    const rp_real *inputs;
    rp_real out[CROWD * OUTPUTS];
    int failures;
    pthread_t thread;
} reader;

static void *read_net(void *argument) {
    reader *r = (reader *)argument;
    rp_workspace *workspace = rp_workspace_new(r->net, BATCH);
    for (int i = 0; i < ROUNDS; i++)
        r->failures += rp_predict_with(r->net, workspace, r->inputs, CROWD, r->out) != RP_OK;
    rp_workspace_free(workspace);
    return NULL;
}

/* Threads that predict from one net, each with its own workspace, all get the bits that one gets. */
static void test_threads(void) {
    rp_net *net = make_net(RP_TANH, RP_SQUARED_ERROR, 26);
    rp_real inputs[CROWD * INPUTS], expected[CROWD * OUTPUTS];
    reader readers[THREADS];
    test_random random = {27};
    for (int i = 0; i < CROWD * INPUTS; i++) inputs[i] = (rp_real)test_normal(&random);
    WORKS(rp_predict(net, inputs, CROWD, expected));
    for (int i = 0; i < THREADS; i++) {
        readers[i].net = net, readers[i].inputs = inputs, readers[i].failures = 0;
        if (!CHECK(!pthread_create(&readers[i].thread, NULL, read_net, &readers[i]), "thread %d", i)) exit(test_end());
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(readers[i].thread, NULL);
        CHECK(!readers[i].failures && !memcmp(readers[i].out, expected, sizeof expected),
              "thread %d: %d failures", i, readers[i].failures);
    }
    rp_net_free(net);
}
#else
static void test_threads(void) { test_skipped++; }
#endif

/* >>description */

/* As snprintf: the whole length is returned, what fits is written with a 0 at its end, nothing beyond `size`. */
static void check_summary(const rp_net *net, const char *words) {
    char whole[2048], part[2048];
    size_t length = rp_summary(net, NULL, 0);
    if (!CHECK(length > 0 && length < sizeof whole, "%d", (int)length)) return;
    CHECK(rp_summary(net, whole, sizeof whole) == length && strlen(whole) == length, "%d", (int)length);
    CHECK(has_words(whole, words), "'%s' lacks one of '%s'", whole, words);
    for (size_t size = 0; size <= length + 1; size++) {
        memset(part, 'x', sizeof part);
        CHECK(rp_summary(net, part, size) == length, "size %d", (int)size);
        CHECK(!size || (!part[size - 1] && !memcmp(part, whole, size - 1)), "size %d", (int)size);
        CHECK(part[size] == 'x', "wrote beyond %d", (int)size);
    }
}

static void test_summary(void) {
    rp_net *net = rp_net_new(rp_vector(INPUTS), NULL);
    check_summary(net, "3");
    rp_dense(net, HIDDEN), rp_activation(net, RP_TANH), rp_dense(net, OUTPUTS), rp_loss(net, RP_HUBER);
    check_summary(net, "dense tanh 5 2 Huber");
    WORKS(rp_net_build(net, BATCH, 1));
    rp_freeze(net, 2, 1);
    check_summary(net, "dense tanh 20 12 32 frozen bytes");
    rp_net_free(net);
}

/* Layers' offsets tile the flat arrays, in order, without a gap. */
static void test_layer_info(void) {
    rp_net *net = rp_net_new(rp_image(2, 3, 4), NULL);
    size_t at = 0;
    rp_dense(net, 7), rp_activation(net, RP_RELU), rp_dense(net, 3), rp_no_bias(net, rp_layer_count(net) - 1);
    rp_dense(net, 1), rp_activation(net, RP_TANH);
    WORKS(rp_freeze(net, 2, 1));
    WORKS(rp_net_build(net, 2, 1));
    for (int i = 0; i < rp_layer_count(net); i++) {
        const char *const kinds[] = {"dense", "relu", "dense", "dense", "tanh"};
        const int ins[] = {24, 7, 7, 3, 1}, outs[] = {7, 7, 3, 1, 1}, biases[] = {7, 0, 0, 1, 0};
        rp_layer layer;
        WORKS(rp_layer_info(net, i, &layer));
        int in = layer.in.steps * layer.in.channels * layer.in.height * layer.in.width, dense = kinds[i][0] == 'd';
        int out = layer.out.steps * layer.out.channels * layer.out.height * layer.out.width;
        CHECK(!strcmp(layer.kind, kinds[i]) && in == ins[i] && out == outs[i],
              "layer %d: %s, %d to %d", i, layer.kind, in, out);
        CHECK(layer.weight_count == (size_t)(dense ? ins[i] * outs[i] : 0),
              "layer %d: %d weights", i, (int)layer.weight_count);
        CHECK(layer.bias_count == (size_t)biases[i] && layer.frozen == (i == 2),
              "layer %d: %d biases", i, (int)layer.bias_count);
        CHECK(!layer.weight_count || layer.weights == at, "layer %d: weights at %d", i, (int)layer.weights);
        CHECK(!layer.bias_count || layer.biases == at + layer.weight_count,
              "layer %d: biases at %d", i, (int)layer.biases);
        at += layer.weight_count + layer.bias_count;
    }
    CHECK(at == rp_parameter_count(net), "%d parameters, not %d", (int)at, (int)rp_parameter_count(net));
    rp_net_free(net);
}

/* What weight decay alone would make infinite stays, also where the length of the step is computed. */
static void test_decay_beyond_range(void) {
    samples s;
    make_samples(&s, 30);
    for (int i = 0; i < 3; i++) {
        rp_optimizer o = i == 2 ? rp_newton() : rp_sgd((rp_real)0.1);
        rp_net *net = make_net(RP_TANH, RP_SQUARED_ERROR, 31);
        o.rate = (rp_real)1.5;
        o.cubic_sigma = i == 1;
        o.decoupled = 1;
        o.weight_decay = sizeof(rp_real) == 4 ? (rp_real)3e38 : (rp_real)1.7e308;
        for (int step = 0; step < 3; step++) WORKS(rp_train(net, &o, &s.data, NULL));
        CHECK(finite_parameters(net), "optimizer %d", i);
        rp_net_free(net);
    }
}

/* A frozen layer stays, whatever the optimizer and its weight decay, and trains on once it is released. */
static void test_freeze(void) {
    const size_t first = HIDDEN * INPUTS + HIDDEN;
    samples s;
    make_samples(&s, 28);
    for (int i = 0; i < OPTIMIZERS * 2; i++) {
        named_optimizer o = optimizer_of(i / 2);
        rp_net *net = make_net(RP_TANH, RP_SOFTMAX_CROSS_ENTROPY, 29);
        rp_net *before = make_net(RP_TANH, RP_SOFTMAX_CROSS_ENTROPY, 29);
        rp_real *w = rp_parameters(net), *w0 = rp_parameters(before);
        o.with.weight_decay = (rp_real)0.1, o.with.decoupled = i % 2 && i / 2 < RATED;
        WORKS(rp_freeze(net, 0, 1));
        good_steps(net, &o.with, &s);
        CHECK(!memcmp(w, w0, first * sizeof *w) && w[first] != w0[first], "%s: the frozen layer", o.name);
        WORKS(rp_backward(net, &s.data, &o.with.rule, NULL));
        for (size_t at = 0; at < first; at++)
            CHECK(rp_gradient(net)[at] == 0 && rp_curvature(net)[at] == 0, "%s: frozen parameter %d", o.name, (int)at);
        if (i / 2 < RATED) WORKS(rp_update(net, &o.with));
        CHECK(!memcmp(w, w0, first * sizeof *w), "%s: rp_update moves the frozen layer", o.name);
        WORKS(rp_freeze(net, 0, 0));
        good_steps(net, &o.with, &s);
        for (size_t at = 0; at < first; at++) CHECK(w[at] != w0[at], "%s: parameter %d still stays", o.name, (int)at);
        rp_net_free(net), rp_net_free(before);
    }
}

static void test_status_texts(void) {
    rp_net *net = rp_net_new(rp_vector(1), NULL);
    for (int status = 1; status >= -15; status--) {
        const char *text = rp_status_text((rp_status)status);
        CHECK(text && *text, "status %d", status);
        for (int other = status + 1; other <= 0; other++)
            CHECK(status == -15 || strcmp(text, rp_status_text((rp_status)other)), "%d and %d", status, other);
    }
    CHECK(!strcmp(rp_status_text(RP_OK), "no error"), "%s", rp_status_text(RP_OK));
    CHECK(!strcmp(rp_error(net), ""), "'%s' before anything failed", rp_error(net));
    rp_net_free(net);
}

int main(void) {
    test_descriptions();
    test_builds();
    test_configs();
    test_isas();
    test_null_nets();
    test_before_build();
    test_after_build();
    test_data();
    test_labels();
    test_targets();
    test_optimizer_fields();
    test_fit_options();
    test_predictions();
    test_foreign_workspace();
    test_pieces();
    test_own_loss();
    test_inference_only();
    test_failed_steps(RP_RELU);
    test_failed_steps(RP_TANH);
    test_failed_layer(RP_RELU);
    test_failed_layer(RP_TANH);
    test_failed_layer(RP_SIGMOID);
    test_failed_switch();
    test_bad_arrays();
    test_arrays_stay();
    test_zero_columns();
    test_extreme_inputs();
    test_saturated();
    test_small_batches();
    test_blow_up();
    test_overflowing_step();
    test_state_recovers();
    test_failing_allocations();
    test_no_allocation();
    test_seeds();
    test_initialisation();
    test_threads();
    test_summary();
    test_layer_info();
    test_decay_beyond_range();
    test_freeze();
    test_status_texts();
    return test_end();
}
