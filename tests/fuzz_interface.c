/* A fuzzer of the interface: a string of bytes decides a small net, its data, what is called in which order, which
   allocation fails and what the callbacks do. Checked is what the header promises of every call: a failure has a message
   and leaves parameters, optimizer state and results as they were, success leaves finite parameters, frozen layers
   stay, a net that was saved goes on to the same bits. It needs clang:

       clang -g -O1 -I. -DRP_NO_SIMD -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
           -o fuzz tests/fuzz_interface.c -lm
       ./fuzz -max_len=200 -max_total_time=1200 tests/corpus/interface */
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "fuzz.h"
#include "memory.h"
#include "optimizers.h"
#include "options.h"
#include "test.h"

enum { BATCH = 4, CALLS = 24, FEW = 200 }; /* FEW: parameters, where a call takes a product for each */
enum { STATE = 1, FROZEN = 2, STEPS = 4 }; /* a call may change state; frozen layers, too; also where it fails */

static struct {
    const uint8_t *at, *end;
    long live, until_failure; /* allocations; below 0: none fails */
    int depth, used;          /* calls within callbacks; a callback used the net */
    int busy, changed;        /* one runs that may not, but changed parameters */
    rp_net *net;
} game;

static int byte(void) { return game.at < game.end ? *game.at++ : 0; }
static int below(int n) { return byte() % n; }

static void *limited_memory(void *user, size_t size) {
    (void)user;
    if (size > (size_t)1 << 22 || (game.until_failure >= 0 && !game.until_failure--)) return NULL;
    game.live++;
    return malloc(size);
}
static void limited_release(void *user, void *pointer) {
    (void)user;
    must(pointer != NULL);
    game.live--;
    free(pointer);
}

/* Numbers that suit a net, but for now and then one that does not. They live until the end of the game. */
static rp_real number(void) {
    static const double odd[] = {0, -0.0, 1, -1, 1e-30, -1e-42, 1e20, -1e20, 3e38, -3e38, NAN, INFINITY, -INFINITY};
    int b = byte();
    return (rp_real)(b < 200 ? (b - 50) / 50.0 : odd[b % (int)(sizeof odd / sizeof *odd)]);
}
static rp_real *numbers(size_t count) {
    int seed = byte();
    test_random random = {(uint64_t)seed};
    rp_real *all = (rp_real *)take(count * sizeof *all);
    for (size_t i = 0; i < count; i++)
        all[i] = (rp_real)(seed % 4 == 1 ? test_uniform(&random, 0, 1) : test_normal(&random));
    if (seed >= 224 && count) all[(size_t)byte() % count] = number();
    return all;
}
static rp_real *parameter_numbers(void) { return numbers(rp_parameter_count(game.net)); }

static rp_data some_data(int most) {
    rp_data data;
    int kind = byte(), count = 1 + below(most);
    memset(&data, 0, sizeof data);
    data.count = kind == 255 ? -byte() : count;
    data.inputs = numbers((size_t)(count * rp_inputs(game.net)));
    if (kind & 1) data.targets = numbers((size_t)(count * rp_outputs(game.net)));
    else {
        int *labels = (int *)take((size_t)count * sizeof *labels);
        for (int s = 0; s < count; s++) labels[s] = (kind & 2 ? byte() : s) % (rp_outputs(game.net) + (kind == 254));
        data.labels = labels;
    }
    if (kind & 4) data.weights = numbers((size_t)count);
    if (kind & 8) data.inputs_width = rp_inputs(game.net) + (kind == 253);
    return data;
}

static rp_optimizer some_optimizer(void) {
    int which = below(OPTIMIZERS + 3), fields = byte();
    rp_optimizer o = optimizer_of(which).with;
    if (which == OPTIMIZERS && rp_parameter_count(game.net) <= FEW) o = rp_per_variable(10);
    if (which == OPTIMIZERS + 1) o = rp_newton();
    if (o.method == RP_NEWTON) o.iterations = 1 + below(4);
    if (o.method == RP_NEWTON) o.full_hessian = fields & 1;
    if (fields & 2) o.clip = number();
    if (fields & 4) o.cubic_sigma = number();
    if (fields & 8) o.cubic_adaptive = o.cubic_sigma > 0 && o.method != RP_NEWTON;
    if (fields & 16) o.weight_decay = number();
    if (fields & 32) o.decoupled = 1;
    if (fields & 64) o.rule = nth_rule(RULE_KINDS, byte());
    if (fields & 128) o.rate = number();
    return o;
}

static rp_config some_config(void) {
    int kind = byte();
    rp_config config = config_of(kind & 1 ? RP_ISA_PORTABLE : RP_ISA_AUTO, 0);
    config.allocate = limited_memory;
    config.release = limited_release;
    config.inference_only = kind % 16 == 15;
    config.not_finite = kind / 16 == 15;
    return config;
}

static void play(int calls);

/* What a callback does first: nothing, or a call of its own. */
static void call_back(void) {
    if (below(4) == 3 && game.depth < 2) {
        game.depth++;
        play(1);
        game.depth--;
    }
}
static int some_batch(void *user, int index, rp_data *batch) {
    (void)user;
    call_back();
    *batch = some_data(BATCH);
    return index < 2 ? 1 : below(8) - 7;
}
static int stop_fit(void *user, const rp_progress *progress) {
    (void)user;
    call_back();
    must(progress->step >= 0 && progress->epoch < progress->epochs);
    return below(8) == 7;
}
static int stop_solve(void *user, int iteration, rp_real residual) {
    (void)user;
    (void)iteration;
    (void)residual;
    game.busy++;
    call_back();
    game.busy--;
    return below(8) == 7;
}
static int stop_samples(void *user, const rp_sample_factors *factors) {
    must(factors->layer >= 0 && factors->layer < rp_layer_count(game.net));
    return stop_solve(user, factors->sample, 0);
}

/* The calls. Each returns its status; what goes out must be as it was where that says failure. */

static rp_status unchanged(rp_status status, const rp_real *out, const rp_real *before, size_t count) {
    if (status && count && !game.used) must(!memcmp(out, before, count * sizeof *out));
    return status;
}
static rp_status train(void) {
    rp_optimizer o = some_optimizer();
    rp_data data = some_data(BATCH + 1);
    rp_real loss = 0;
    rp_status status = rp_train(game.net, &o, &data, &loss);
    must(status || isfinite(loss));
    return status;
}
static rp_status fit(void) {
    rp_optimizer o = some_optimizer();
    rp_data data = some_data(2 * BATCH), validation = some_data(BATCH);
    rp_fit_options options = fit_of(below(3));
    int kind = byte();
    if (kind & 1) data = rp_streamed(some_batch, NULL);
    if (kind & 2) options.progress = stop_fit;
    if (kind & 4) options.validation = &validation;
    options.keep_best = kind >> 3 & 1;
    options.patience = kind >> 4 & 1;
    options.anew = kind >> 5 & 1;
    options.batch = kind >> 6;
    return rp_fit(game.net, &o, &data, &options, NULL);
}
static rp_status predict(void) {
    int kind = below(4), count = below(2 * BATCH);
    size_t size = (size_t)(count * rp_outputs(game.net));
    const rp_real *x = numbers((size_t)(count * rp_inputs(game.net)));
    rp_real *out = numbers(size), *again = numbers(size);
    int *classes = (int *)take((size_t)count * sizeof *classes);
    if (kind == 0) return rp_probabilities(game.net, x, count, out);
    if (kind == 1) return rp_classify(game.net, x, count, classes);
    rp_status status = rp_predict(game.net, x, count, out);
    rp_workspace *workspace = kind == 3 ? rp_workspace_new(game.net, game.net->batch) : NULL;
    if (workspace) must(rp_predict_with(game.net, workspace, x, count, again) == status);
    if (workspace && !status) must(!memcmp(out, again, size * sizeof *out));
    rp_workspace_free(workspace);
    return status;
}
static rp_status evaluate(void) {
    rp_data data = below(3) ? some_data(2 * BATCH) : rp_streamed(some_batch, NULL);
    rp_score score;
    return rp_evaluate(game.net, &data, &score, data.fill ? NULL : numbers(2 * BATCH));
}
static rp_status backward(void) {
    rp_data data = some_data(BATCH + 1);
    rp_rule rule = nth_rule(RULE_KINDS, byte());
    size_t count = rp_parameter_count(game.net);
    rp_real *gradient = rp_gradient(game.net), *before = numbers(count), least = 0, zero = 0;
    if (!rp_loss_limits(game.net, &data, &least, &zero)) must(isfinite(least) && isfinite(zero));
    if (gradient) memcpy(before, gradient, count * sizeof *before);
    return unchanged(rp_backward(game.net, &data, byte() & 1 ? &rule : NULL, NULL), gradient, before,
                     gradient ? count : 0);
}
static rp_status update(void) {
    rp_optimizer o = some_optimizer();
    return byte() & 1 ? rp_update(game.net, &o) : rp_direction(game.net, &o);
}
static rp_status move(void) { return rp_move(game.net, number()); }
static rp_status step_length(void) {
    rp_optimizer o = rp_partitioning();
    rp_real alpha = 0, loss = number(), at_zero = number(), second = number();
    must(rp_measures(game.net, &o) >= 0);
    return rp_step_length(game.net, &o, byte(), loss, at_zero, second, &alpha);
}
static rp_status own_loss(void) {
    int count = 1 + below(BATCH);
    rp_rule rule = nth_rule(RULE_KINDS, byte());
    size_t size = (size_t)(count * rp_outputs(game.net));
    rp_status status = rp_forward(game.net, numbers((size_t)(count * rp_inputs(game.net))), count);
    must(status || rp_output(game.net));
    if (status || below(4) == 3) return status;
    const rp_real *derivatives = numbers(size), *second = byte() & 1 ? numbers(size) : NULL;
    return rp_backward_from(game.net, derivatives, second, byte() & 1 ? &rule : NULL);
}
static rp_status prepare(void) {
    rp_optimizer o = some_optimizer();
    return rp_prepare(game.net, &o);
}
static rp_status average(void) { return rp_average(game.net, below(2)); }
static rp_status reset(void) { return rp_reset(game.net, (uint64_t)byte()); }
static rp_status freeze(void) {
    int layer = below(6) - 1;
    return rp_freeze(game.net, layer, byte() & 1);
}
static rp_status inspect(void) {
    char text[200];
    rp_layer info;
    rp_step step;
    must(rp_summary(game.net, text, sizeof text) > 0 && rp_describe(game.net, text, (size_t)byte() % sizeof text) > 0);
    must(rp_state_memory(game.net) <= rp_memory(game.net) && *rp_isa(game.net) && rp_warning(game.net));
    must(!rp_layer_info(game.net, 0, &info));
    if (byte() & 1) return rp_layer_info(game.net, byte(), &info);
    return byte() & 1 ? rp_last_step(game.net, &step)
                      : (rp_status)(rp_dense(game.net, byte()) < 0 ? RP_ERR_ORDER : RP_OK);
}
static rp_status vector_call(void) {
    typedef rp_status (*product)(rp_net *, const rp_data *, const rp_real *, rp_real *);
    static const product products[] = {rp_hessian_vector, rp_gauss_newton_vector, rp_gauss_newton_directional};
    rp_data data = some_data(BATCH + 1);
    size_t count = rp_parameter_count(game.net);
    const rp_real *v = parameter_numbers();
    rp_real *out = numbers(count + 1), *before = (rp_real *)take((count + 1) * sizeof *out), second = 0;
    int which = below(4);
    memcpy(before, out, (count + 1) * sizeof *out);
    if (which == 3) return unchanged(rp_directional(game.net, &data, v, out, &second), out, before, 1);
    return unchanged(products[which](game.net, &data, v, out), out, before, count + 1);
}
static rp_status diagonals(void) {
    typedef rp_status (*diagonal)(rp_net *, const rp_data *, rp_real *);
    static const diagonal all[] = {rp_hessian_diagonal, rp_gauss_newton_diagonal, rp_sample_gradient_norms};
    rp_data data = some_data(BATCH);
    size_t count = rp_parameter_count(game.net), most = count > BATCH ? count : BATCH;
    rp_real *out = numbers(most), *before = (rp_real *)take(most * sizeof *out);
    int which = below(4);
    if (count > FEW) which = 2;
    memcpy(before, out, most * sizeof *out);
    if (which == 3) return rp_hessian_matrix(game.net, &data, 64, numbers(count * count));
    return unchanged(all[which](game.net, &data, out), out, before, which == 2 ? BATCH : count);
}
static rp_status samples(void) {
    rp_data data = some_data(BATCH);
    rp_noise noise;
    if (byte() & 1) return rp_gradient_noise(game.net, &data, &noise, byte() & 1 ? parameter_numbers() : NULL);
    rp_status status = rp_sample_gradients(game.net, &data, stop_samples, NULL);
    must(status || !game.changed);
    return status;
}
static rp_status solve(void) {
    rp_data data = some_data(BATCH);
    rp_solve_options options;
    rp_solve_report report;
    int kind = byte(), few = rp_parameter_count(game.net) <= FEW;
    rp_real *b = parameter_numbers(), *x = kind & 64 ? b : parameter_numbers();
    memset(&options, 0, sizeof options);
    options.method = few ? (rp_solve_method)(kind & 3) : RP_SOLVE_ITERATIVE;
    options.gauss_newton = kind >> 2 & 1;
    options.iterations = 1 + below(9);
    options.damping = number();
    if (kind & 8) options.progress = stop_solve;
    rp_status status =
        rp_hessian_solve(game.net, &data, b, x, kind & 16 && few ? NULL : &options, kind & 32 ? NULL : &report);
    must(status || !game.changed);
    return status;
}
static rp_status write_parameter(void) {
    size_t count = rp_parameter_count(game.net);
    size_t at = (size_t)byte();
    if (count) rp_parameters(game.net)[at % count] = (rp_real)(below(101) - 50) / 25;
    return RP_OK;
}
static rp_status no_memory(void) {
    game.until_failure = below(40) - 1;
    return RP_OK;
}
static rp_status clone_net(void) {
    rp_config config = some_config();
    int batch = below(BATCH + 1);
    rp_net *copy = rp_clone(game.net, byte() & 1 ? &config : NULL, batch);
    size_t bytes = rp_parameter_count(game.net) * sizeof(rp_real);
    int whole = copy && rp_parameter_count(copy);
    if (whole) must(!memcmp(rp_parameters(copy), rp_parameters(game.net), bytes));
    rp_net *old = whole && !game.depth ? game.net : copy; /* a callback may not free the net */
    if (old == game.net) game.net = copy;
    rp_net_free(old);
    return RP_OK;
}
static rp_status import(void) {
    size_t length = 0;
    rp_status status = rp_save_memory(game.net, NULL, 0, &length);
    if (status) return status;
    char *file = (char *)take(length);
    status = rp_save_memory(game.net, file, length, &length);
    return status ? status : rp_import_memory(game.net, file, length, byte() & 1 ? "0 = 0" : NULL);
}

/* What is saved is loaded, or opened as another net, and both go on alike. A byte of the file may be another. */
static rp_status keep(void) {
    rp_config config = some_config();
    size_t length = 0;
    rp_status status = rp_save_memory(game.net, NULL, 0, &length);
    if (status) return status;
    char *file = (char *)take(length);
    status = rp_save_memory(game.net, file, length, &length);
    if (status) return status;
    int damage = below(4), place = byte();
    if (damage == 3) file[(size_t)place * 7 % length] ^= (char)byte();
    if (byte() & 1) return rp_load_memory(game.net, file, length);
    rp_net *other = rp_open_memory(file, length, &config);
    status = rp_net_build(other, game.net->batch, 1);
    must(status || rp_parameter_count(other) == rp_parameter_count(game.net));
    if (status && other) must(*rp_error(other));
    if (!status && !game.depth) {
        rp_net_free(game.net);
        game.net = other;
    } else rp_net_free(other);
    return RP_OK;
}

/* Two nets, one of which was saved and loaded, take the same step. */
static rp_status save_and_go_on(void) {
    rp_config config = config_of(RP_ISA_AUTO, 0);
    rp_optimizer o = some_optimizer();
    rp_data data = some_data(BATCH);
    size_t length = 0, bytes = rp_parameter_count(game.net) * sizeof(rp_real);
    rp_status status = rp_save_memory(game.net, NULL, 0, &length);
    char *file = (char *)take(length);
    config.not_finite = 1;
    config.isa = game.net->config.isa;
    if (status || rp_save_memory(game.net, file, length, &length)) return status;
    rp_net *other = rp_open_memory(file, length, &config);
    must(!rp_net_build(other, game.net->batch, 1));
    status = rp_train(game.net, &o, &data, NULL);
    if (status != RP_ERR_MEMORY && !game.net->config.inference_only) must(rp_train(other, &o, &data, NULL) == status);
    if (!status) must(!memcmp(rp_parameters(other), rp_parameters(game.net), bytes));
    rp_net_free(other);
    return status;
}

static const struct {
    rp_status (*call)(void);
    int may;
} calls[] = {
    /* clang-format off */
    {train, STATE}, {fit, STATE | STEPS}, {predict, 0}, {evaluate, 0}, {backward, 0}, {update, STATE}, {move, STATE},
    {step_length, STATE}, {own_loss, 0}, {prepare, STATE}, {average, STATE}, {reset, STATE | FROZEN},
    {freeze, STATE | FROZEN}, /* of a layer that thaws averages begin anew */
    {inspect, 0}, {vector_call, 0}, {diagonals, 0}, {samples, 0}, {solve, 0}, {write_parameter, STATE | FROZEN},
    {no_memory, 0}, {clone_net, STATE | FROZEN}, {import, STATE | FROZEN}, {keep, STATE | FROZEN},
    {save_and_go_on, STATE},
    /* clang-format on */
};

/* What a net may not lose unnoticed. */
typedef struct snapshot {
    uint64_t parameters, frozen, state;
    int finite;
} snapshot;

static uint64_t mixed(uint64_t print, const void *bytes, size_t size) { /* FNV-1a */
    for (size_t i = 0; i < size && bytes; i++) print = (print ^ ((const uint8_t *)bytes)[i]) * 0x100000001B3u;
    return print;
}
static snapshot look(rp_net *net) {
    const uint64_t start = 0xCBF29CE484222325u;
    size_t count = rp_parameter_count(net), size = count * sizeof(rp_real);
    snapshot s = {mixed(start, rp_parameters(net), size), start, start, 1};
    rp_layer info;
    for (size_t i = 0; i < count; i++) s.finite &= isfinite(rp_parameters(net)[i]) != 0;
    for (int l = 0; l < rp_layer_count(net); l++) {
        if (rp_layer_info(net, l, &info) || !info.frozen) continue;
        s.frozen = mixed(s.frozen, rp_parameters(net) + info.weights, info.weight_count * sizeof(rp_real));
        s.frozen = mixed(s.frozen, rp_parameters(net) + info.biases, info.bias_count * sizeof(rp_real));
    }
    s.state = mixed(s.state, &net->method, sizeof net->method);
    s.state = mixed(s.state, &net->time, sizeof net->time);
    s.state = mixed(s.state, net->first, size);
    s.state = mixed(s.state, net->second, size);
    s.state = mixed(s.state, net->averages, size);
    return s;
}

static void play_once(void) {
    int which = below((int)(sizeof calls / sizeof *calls)), may = calls[which].may;
    snapshot before = look(game.net);
    size_t mark = memory_mark();
    game.used = 0;
    if (!game.depth) game.changed = 0;
    game.net->error[0] = 0;
    rp_status status = calls[which].call();
    snapshot after = look(game.net);
    int used = game.used;
    game.used = game.depth > 0;
    game.changed |= game.busy && calls[which].call != write_parameter && after.parameters != before.parameters;
    if (!game.depth) memory_release(mark);
    if (status) must(*rp_error(game.net));
    if (used) return;
    must(after.finite || !before.finite);
    must((may & FROZEN) || after.frozen == before.frozen);
    if (!(may & STATE) || (status && !(may & STEPS)))
        must(after.parameters == before.parameters && after.state == before.state);
}
static void play(int most) {
    for (int i = 0; i < most && game.at < game.end; i++) play_once();
}

static void some_layer(rp_net *net) {
    int filters = 1 + below(3), kernel = 1 + below(3), groups = 1 + below(2); /* in one order with every compiler */
    rp_conv2d_desc window = conv2d_of(filters, kernel, groups);
    int units = 1 + below(5), last = rp_layer_count(net) - 1;
    rp_activation_kind activation = (rp_activation_kind)below(10);
    rp_recurrent_desc all = all_states_of(units, activation);
    window.stride_width = 1 + below(2);
    window.padding_height = below(3);
    switch (below(14)) {
    case 0:
    case 1: rp_dense(net, units); return;
    case 2: rp_conv2d_with(net, &window); return;
    case 3: rp_max_pool2d(net, window.kernel_width, window.stride_width); return;
    case 4: rp_avg_pool2d(net, window.kernel_width, window.stride_width); return;
    case 5: rp_global_avg_pool2d(net); return;
    case 6: rp_recurrent(net, units, activation); return;
    case 7: rp_recurrent_with(net, &all); return;
    case 8: rp_recursive(net, 1 + below(3), activation); return;
    case 9: rp_add(net, below(4) - 1); return;
    case 10: rp_no_bias(net, last); return;
    case 11: rp_negative_slope(net, last, number()); return;
    case 12: rp_freeze(net, last, 1); return;
    default: rp_activation(net, activation); return;
    }
}

static rp_net *some_net(void) {
    rp_config config = some_config();
    int kind = below(8), size = 1 + below(4);
    rp_shape input = rp_vector(size);
    int channels = 1 + below(3), width = 1 + below(4);
    if (kind == 1) input = rp_image(channels, size, width);
    if (kind == 2) input = rp_sequence(channels, size);
    rp_net *net = rp_net_new(input, &config);
    for (int more = 1 + below(6); net && more; more--) some_layer(net);
    if (kind > 3) rp_dense(net, size);
    if (byte() & 1) rp_loss(net, (rp_loss_kind)below(5));
    return net;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    memset(&game, 0, sizeof game);
    game.at = data;
    game.end = data + size;
    game.until_failure = below(8) ? -1 : below(30);
    game.net = some_net();
    int batch = 1 + below(BATCH), seed = byte();
    rp_status status = rp_net_build(game.net, batch, (uint64_t)seed);
    if (game.net && status) must(*rp_error(game.net));
    if (!status) play(CALLS);
    rp_net_free(game.net);
    memory_release(0);
    must(!game.live);
    return 0;
}
