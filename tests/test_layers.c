/* Convolutions, pools, recurrence, recursion and residual sums: nets by hand of which is known what they must do,
   misuse, threads and instruction sets, and PyTorch. (test_math.c has random nets of all layers against a naive
   version.) For single precision as it is, for double with -DRP_DOUBLE. */
#include "../rp.h"
#include "options.h"
#include "reference.h"
#include "torch_layers.h"
#include <limits.h>

/* Largest error allowed, relative to the largest entry of the array; see test_math.c. */
static const double tolerance = sizeof(rp_real) == sizeof(double) ? 1e-10 : 5e-4;

static rp_real *new_reals(size_t count) { return (rp_real *)take(count * sizeof(rp_real)); }
static void random_reals(test_random *random, rp_real *out, size_t count) {
    for (size_t i = 0; i < count; i++) out[i] = (rp_real)test_normal(random);
}

/* Nets by hand. */

static rp_net *built(rp_net *net, int batch) {
    CHECK(rp_net_build(net, batch, 1) == RP_OK, "%s", rp_error(net));
    return net;
}
static void check_close(const char *what, const rp_real *got, const rp_real *expected, size_t count) {
    double error = 0, largest = 0;
    for (size_t i = 0; i < count; i++) {
        error = larger(fabs((double)got[i] - (double)expected[i]), error);
        largest = fmax(largest, fabs((double)expected[i]));
    }
    CHECK(largest > 0 && error <= tolerance * largest, "%s: off by %g, largest %g", what, error, largest);
}

/* The windows of an image of 2x6x5 under a kernel of 3x2, stride 2x1, padding 1x0. */
enum { CHANNELS = 2, HEIGHT = 6, WIDTH = 5, FILTERS = 3, ROWS = 3, COLUMNS = 4, TAPS = CHANNELS * 3 * 2, SAMPLES = 4 };
enum { PIXELS = CHANNELS * HEIGHT * WIDTH, POSITIONS = ROWS * COLUMNS, ALL = SAMPLES * POSITIONS };

/* The pixel that a tap of a window reads, or -1. */
static int pixel_of(int position, int tap) {
    int row = position / COLUMNS * 2 - 1 + tap / 2 % 3, column = position % COLUMNS + tap % 2;
    return row < 0 || row >= HEIGHT || column >= WIDTH ? -1 : (tap / 6 * HEIGHT + row) * WIDTH + column;
}

/* A convolution is one dense layer that sees each window: its gradient and curvature, summed over the windows. */
static void check_windows(rp_net *conv, const rp_data *data, rp_rule rule) {
    size_t mark = memory_mark();
    rp_net *dense = rp_net_new(rp_vector(TAPS), NULL);
    size_t count = FILTERS * (TAPS + 1);
    rp_real *x = new_reals(ALL * TAPS), *targets = new_reals(ALL * FILTERS), sums[2][FILTERS * (TAPS + 1)];
    rp_data windows = rp_targeted(x, targets, ALL);
    rp_dense(dense, FILTERS);
    rp_activation(dense, RP_TANH);
    built(dense, ALL);
    memcpy(rp_parameters(dense), rp_parameters(conv), count * sizeof *x);
    for (int i = 0; i < ALL; i++) {
        int s = i / POSITIONS, position = i % POSITIONS;
        for (int tap = 0; tap < TAPS; tap++) {
            int pixel = pixel_of(position, tap);
            x[i * TAPS + tap] = pixel < 0 ? 0 : data->inputs[s * PIXELS + pixel];
        }
        for (int f = 0; f < FILTERS; f++)
            targets[i * FILTERS + f] = data->targets[(s * FILTERS + f) * POSITIONS + position];
    }
    rp_backward(conv, data, &rule, NULL);
    rp_backward(dense, &windows, &rule, NULL);
    for (size_t p = 0; p < count; p++) { /* means over samples, and over windows */
        sums[0][p] = POSITIONS * rp_gradient(dense)[p];
        sums[1][p] = POSITIONS * rp_curvature(dense)[p];
    }
    check_close("gradient by windows", rp_gradient(conv), sums[0], count);
    check_close("curvature by windows", rp_curvature(conv), sums[1], count);
    rp_net_free(dense);
    memory_release(mark);
}

/* And it is one dense layer of the whole image, whose weights are zero or tied: values and gradient. (Not curvature:
   there the zeros may move, too.) */
static void check_tied(rp_net *conv, const rp_data *data) {
    rp_net *dense = rp_net_new(rp_image(CHANNELS, HEIGHT, WIDTH), NULL);
    size_t count = FILTERS * (TAPS + 1), outputs = FILTERS * POSITIONS;
    rp_real sum[FILTERS * (TAPS + 1)] = {0}, out[2][SAMPLES * FILTERS * POSITIONS];
    rp_dense(dense, (int)outputs);
    rp_activation(dense, RP_TANH);
    built(dense, SAMPLES);
    for (int again = 0; again < 2; again++) { /* first the weights there, then the gradient back */
        rp_real *w = rp_parameters(dense), *biases = w + outputs * PIXELS, *kernel = rp_parameters(conv);
        const rp_real *g = rp_gradient(dense);
        if (!again) memset(w, 0, rp_parameter_count(dense) * sizeof *w);
        else rp_backward(dense, data, NULL, NULL);
        for (int i = 0; i < (int)outputs; i++) {
            int f = i / POSITIONS;
            biases[i] = kernel[FILTERS * TAPS + f];
            sum[FILTERS * TAPS + f] += g[outputs * PIXELS + (size_t)i];
            for (int tap = 0; tap < TAPS; tap++) {
                int pixel = pixel_of(i % POSITIONS, tap);
                if (pixel < 0) continue;
                w[i * PIXELS + pixel] = kernel[f * TAPS + tap];
                sum[f * TAPS + tap] += g[i * PIXELS + pixel];
            }
        }
    }
    rp_predict(conv, data->inputs, SAMPLES, out[0]);
    rp_predict(dense, data->inputs, SAMPLES, out[1]);
    check_close("tied values", out[0], out[1], SAMPLES * outputs);
    check_close("tied gradient", rp_gradient(conv), sum, count);
    rp_net_free(dense);
}

static void test_conv2d_is_dense(void) {
    rp_conv2d_desc desc = conv2d_of(FILTERS, 3, 1);
    rp_real x[SAMPLES * PIXELS], targets[SAMPLES * FILTERS * POSITIONS];
    test_random random = {1};
    random_reals(&random, x, SAMPLES * PIXELS);
    random_reals(&random, targets, SAMPLES * FILTERS * POSITIONS);
    rp_data data = rp_targeted(x, targets, SAMPLES);
    rp_net *conv = rp_net_new(rp_image(CHANNELS, HEIGHT, WIDTH), NULL);
    desc.kernel_width = 2;
    desc.stride_height = 2;
    desc.padding_height = 1;
    rp_conv2d_with(conv, &desc);
    rp_activation(conv, RP_TANH);
    built(conv, SAMPLES);
    for (int n = 0; n < 4; n++) check_windows(conv, &data, nth_rule(1, n));
    check_tied(conv, &data);
    rp_net_free(conv);
}

/* A recursive layer is a stack of dense layers whose weights are equal, gradient and curvature their sums (Equations 58
   and 59 of Understanding and Exploiting the Low-Rank Structure of Deep Networks). */
static void test_recursion_is_a_stack(void) {
    enum { UNITS = 5, STEPS = 4, OWN = UNITS * (UNITS + 1) };
    rp_real x[SAMPLES * UNITS], targets[SAMPLES * UNITS];
    test_random random = {2};
    random_reals(&random, x, SAMPLES * UNITS);
    random_reals(&random, targets, SAMPLES * UNITS);
    rp_data data = rp_targeted(x, targets, SAMPLES);
    for (int n = 0; n < 4; n++) {
        rp_rule rule = rule_of(RP_PATHS, RP_BOUND_TIGHT, n / 2 ? RP_SCALE_FAN_IN : RP_SCALE_ONE);
        rp_net *recursive = rp_net_new(rp_vector(UNITS), NULL), *stack = rp_net_new(rp_vector(UNITS), NULL);
        rp_activation_kind activation = n % 2 ? RP_TANH : RP_RELU;
        rp_real sums[2][OWN] = {{0}}, loss[2] = {0};
        rp_recursive(recursive, STEPS, activation);
        for (int l = 0; l < STEPS; l++) {
            rp_dense(stack, UNITS);
            rp_activation(stack, activation);
        }
        built(recursive, SAMPLES);
        built(stack, SAMPLES);
        for (size_t p = 0; p < STEPS * OWN; p++) rp_parameters(stack)[p] = rp_parameters(recursive)[p % OWN];
        rp_backward(recursive, &data, &rule, &loss[0]);
        rp_backward(stack, &data, &rule, &loss[1]);
        for (size_t p = 0; p < STEPS * OWN; p++) {
            sums[0][p % OWN] += rp_gradient(stack)[p];
            sums[1][p % OWN] += rp_curvature(stack)[p];
        }
        check_close("loss of the stack", &loss[0], &loss[1], 1);
        check_close("gradient of the stack", rp_gradient(recursive), sums[0], OWN);
        check_close("curvature of the stack", rp_curvature(recursive), sums[1], OWN);
        rp_net_free(recursive);
        rp_net_free(stack);
    }
}

/* A recurrent layer over one step is a dense layer. */
static void test_one_step(void) {
    const size_t units = 5, weights = units * units;
    rp_real x[SAMPLES * 5], targets[SAMPLES * 5];
    rp_rule rule = rule_of(RP_PATHS, RP_BOUND_TIGHT, RP_SCALE_ONE);
    test_random random = {5};
    rp_net *one = rp_net_new(rp_sequence(1, 5), NULL), *dense = rp_net_new(rp_vector(5), NULL);
    random_reals(&random, x, SAMPLES * units);
    random_reals(&random, targets, SAMPLES * units);
    rp_data data = rp_targeted(x, targets, SAMPLES);
    rp_recurrent(one, 5, RP_TANH);
    rp_dense(dense, 5);
    rp_activation(dense, RP_TANH);
    built(one, SAMPLES);
    built(dense, SAMPLES);
    memcpy(rp_parameters(dense), rp_parameters(one), weights * sizeof *x);
    memcpy(rp_parameters(dense) + weights, rp_parameters(one) + 2 * weights, units * sizeof *x);
    rp_backward(one, &data, &rule, NULL);
    rp_backward(dense, &data, &rule, NULL);
    check_close("gradient of one step", rp_gradient(one), rp_gradient(dense), weights);
    check_close("curvature of one step", rp_curvature(one), rp_curvature(dense), weights);
    for (size_t p = weights; p < 2 * weights; p++)
        CHECK(rp_gradient(one)[p] == 0 && rp_curvature(one)[p] == 0, "there is no state before the first: %d", (int)p);
    rp_net_free(one);
    rp_net_free(dense);
}

/* Uniform in +-1/sqrt(n): inside, nearly reached, mean and variance as they should be. */
static void check_range(rp_net *net, double n) {
    rp_layer info;
    built(net, 1);
    rp_layer_info(net, 0, &info);
    size_t count = info.weight_count + info.bias_count;
    double bound = 1 / sqrt(n), largest = 0, sum = 0, squares = 0;
    for (size_t p = 0; p < count; p++) {
        double w = (double)rp_parameters(net)[p];
        largest = fmax(largest, fabs(w));
        sum += w;
        squares += w * w;
    }
    CHECK(largest <= bound * (1 + 1e-6) && largest >= 0.98 * bound, "%s: %g, bound %g", info.kind, largest, bound);
    CHECK(fabs(sum) <= 4 * bound * sqrt((double)count / 3), "%s: mean %g", info.kind, sum / (double)count);
    CHECK(fabs(3 * squares / (double)count - bound * bound) <= 0.2 * bound * bound, "%s: variance %g", info.kind,
          squares / (double)count);
    rp_net_free(net);
}
static void test_initialisation(void) {
    rp_conv2d_desc grouped = conv2d_of(30, 3, 2);
    rp_net *net = rp_net_new(rp_image(6, 8, 8), NULL);
    grouped.kernel_width = 2;
    rp_conv2d(net, 10, 3, 1, 0);
    check_range(net, 6 * 3 * 3);
    net = rp_net_new(rp_image(6, 8, 8), NULL);
    rp_conv2d_with(net, &grouped);
    check_range(net, 3 * 3 * 2);
    net = rp_net_new(rp_sequence(4, 3), NULL);
    rp_recurrent(net, 20, RP_TANH);
    check_range(net, 20);
    net = rp_net_new(rp_sequence(4, 60), NULL);
    rp_recurrent(net, 5, RP_TANH);
    check_range(net, 5);
    net = rp_net_new(rp_vector(20), NULL);
    rp_recursive(net, 3, RP_TANH);
    check_range(net, 20);
}

/* One net with every kind of layer, large enough for threads to share its work. */
static rp_net *every_kind(const rp_config *config) {
    rp_conv2d_desc grouped = conv2d_of(16, 3, 4);
    rp_net *net = rp_net_new(rp_image(2, 15, 14), config);
    grouped.padding_height = grouped.padding_width = 1;
    rp_conv2d(net, 16, 5, 1, 2);
    rp_activation(net, RP_RELU);
    rp_conv2d_with(net, &grouped);
    rp_add(net, 1);
    rp_activation(net, RP_SOFTPLUS);
    rp_max_pool2d(net, 2, 2);
    rp_avg_pool2d(net, 2, 1);
    rp_dense(net, 40);
    rp_recursive(net, 3, RP_TANH);
    rp_add(net, 7);
    rp_dense(net, 4);
    rp_loss(net, RP_SOFTMAX_CROSS_ENTROPY);
    return net;
}
static rp_net *sequence_net(const rp_config *config) {
    rp_recurrent_desc all = all_states_of(60, RP_TANH);
    rp_net *net = rp_net_new(rp_sequence(14, 30), config);
    rp_recurrent_with(net, &all);
    rp_recurrent_with(net, &all);
    rp_add(net, 0);
    rp_recurrent(net, 60, RP_RELU);
    rp_dense(net, 4);
    rp_loss(net, RP_SOFTMAX_CROSS_ENTROPY);
    return net;
}

enum { WORK = 40, MOST_INPUTS = 2 * 15 * 14, STEPS = 2 };

/* Labelled samples for both nets. */
static rp_data work_data(uint64_t seed) {
    rp_real *x = new_reals(WORK * MOST_INPUTS);
    int *labels = (int *)take(WORK * sizeof *labels);
    test_random random = {seed};
    random_reals(&random, x, WORK * MOST_INPUTS);
    for (int i = 0; i < WORK; i++) labels[i] = test_int(&random, 0, 3);
    return rp_labelled(x, labels, WORK);
}

/* Gradient, curvature, and parameters after some steps: [3][parameters]; NULL if there is no such net here. */
static rp_real *worked(rp_net *(*describe_net)(const rp_config *), const rp_config *config, rp_rule_kind kind,
                       size_t *count) {
    rp_real *result = NULL;
    rp_data data = work_data(3);
    rp_optimizer optimizer = rp_algorithm_1((rp_real)0.1);
    rp_net *net = describe_net(config);
    optimizer.rule.kind = kind;
    rp_status status = rp_net_build(net, WORK, 1);
    CHECK(status == RP_OK || status == RP_ERR_UNSUPPORTED, "%s", rp_error(net));
    if (status == RP_OK) {
        size_t own = rp_parameter_count(net);
        *count = 3 * own;
        result = new_reals(*count);
        rp_backward(net, &data, &optimizer.rule, NULL);
        memcpy(result, rp_gradient(net), own * sizeof *result);
        memcpy(result + own, rp_curvature(net), own * sizeof *result);
        for (int step = 0; step < STEPS; step++)
            CHECK(rp_train(net, &optimizer, &data, NULL) == RP_OK, "%s", rp_error(net));
        memcpy(result + 2 * own, rp_parameters(net), own * sizeof *result);
    }
    rp_net_free(net);
    return result;
}

/* Any number of threads gives the same bits, any instruction set the same to rounding. */
static void check_threads_and_sets(rp_net *(*describe_net)(const rp_config *), rp_rule_kind kind) {
    rp_config config = config_of(RP_ISA_AUTO, 1);
    size_t count = 0;
    rp_real *alone = worked(describe_net, &config, kind, &count);
    for (config.threads = 2; config.threads <= 3; config.threads++) {
        rp_real *together = worked(describe_net, &config, kind, &count);
        CHECK(!memcmp(alone, together, count * sizeof *alone), "%d threads, %s rule", config.threads, rule_name(kind));
    }
#ifndef RP_DOUBLE /* it has but one set */
    static const char *const parts[] = {"gradient", "curvature", "parameters"};
    static const rp_isa_kind sets[] = {RP_ISA_AVX2, RP_ISA_AVX512, RP_ISA_NEON, RP_ISA_AMX};
    config = config_of(RP_ISA_PORTABLE, 1);
    rp_real *portable = worked(describe_net, &config, kind, &count);
    for (int set = 0; set < 4; set++) {
        config.isa = sets[set];
        rp_real *other = worked(describe_net, &config, kind, &count);
        if (!other) continue;
        for (size_t part = 0; part < 3; part++)
            check_close(parts[part], other + part * count / 3, portable + part * count / 3, count / 3);
    }
#endif
}
static void test_threads_and_sets(void) {
    for (int n = 0; n < RULE_KINDS; n++) {
        size_t mark = memory_mark();
        check_threads_and_sets(every_kind, rule_kinds[n]);
        check_threads_and_sets(sequence_net, rule_kinds[n]);
        memory_release(mark);
    }
}

/* rp_fit is rp_train on batch after batch. */
static void check_fit(rp_net *fitted, rp_net *trained) {
    size_t mark = memory_mark();
    rp_data data = work_data(4);
    rp_optimizer optimizer = rp_adam((rp_real)0.01);
    rp_fit_options options = fit_of(2);
    rp_fit_report report;
    rp_layer info;
    options.keep_order = 1;
    CHECK(rp_fit(fitted, &optimizer, &data, &options, &report) == RP_OK, "%s", rp_error(fitted));
    rp_layer_info(fitted, 0, &info);
    int inputs = ref_features(info.in);
    for (int step = 0; step < 6; step++) {
        int at = step % 3 * 16, count = WORK - at < 16 ? WORK - at : 16;
        rp_data batch = rp_labelled(data.inputs + at * inputs, data.labels + at, count);
        CHECK(rp_train(trained, &optimizer, &batch, NULL) == RP_OK, "%s", rp_error(trained));
    }
    CHECK(!memcmp(rp_parameters(fitted), rp_parameters(trained), rp_parameter_count(fitted) * sizeof(rp_real)),
          "%d layers", rp_layer_count(fitted));
    rp_net_free(fitted);
    rp_net_free(trained);
    memory_release(mark);
}
static void test_fit(void) {
    check_fit(built(every_kind(NULL), 16), built(every_kind(NULL), 16));
    check_fit(built(sequence_net(NULL), 16), built(sequence_net(NULL), 16));
}

/* Misuse: the call's status, that of the build after it, and what the message names. */
static void check_refused(rp_net *net, int got, rp_status expected, const char *one, const char *other) {
    CHECK(got == (int)expected, "%d (%s) instead of %d", got, rp_error(net), (int)expected);
    CHECK(strstr(rp_error(net), one) && strstr(rp_error(net), other), "'%s' names neither %s nor %s", rp_error(net),
          one, other);
    CHECK(rp_dense(net, 1) == (int)expected, "the first mistake should stick: %s", rp_error(net));
    CHECK(rp_net_build(net, 1, 1) == expected && strstr(rp_error(net), one), "%s", rp_error(net));
    rp_net_free(net);
}
#define REFUSED_AFTER(input, before, call, status, one, other) \
    do { \
        rp_net *net = rp_net_new(input, NULL); \
        before; \
        int got = (call); \
        check_refused(net, got, status, one, other); \
    } while (0)
#define REFUSED(input, call, status, one, other) REFUSED_AFTER(input, (void)0, call, status, one, other)

static int window_of(rp_net *net, int filters, int height, int width, int stride, int padding, int groups) {
    rp_conv2d_desc desc = conv2d_of(filters, height, groups);
    desc.kernel_width = width;
    desc.stride_height = stride;
    desc.padding_height = padding;
    return rp_conv2d_with(net, &desc);
}
static int states_of(rp_net *net, int units, rp_activation_kind activation) {
    rp_recurrent_desc desc = all_states_of(units, activation);
    return rp_recurrent_with(net, &desc);
}

static void test_misuse_of_images(void) {
    rp_shape image = rp_image(2, 5, 4), vector = rp_vector(7), sequence = rp_sequence(6, 3);
    static const int wrong[] = {0, -1, INT_MIN, INT_MAX};
    for (int i = 0; i < 4; i++) {
        char value[20];
        snprintf(value, sizeof value, "%d", wrong[i]);
        REFUSED(image, rp_conv2d(net, wrong[i], 3, 1, 0), RP_ERR_VALUE, "filters", value);
        REFUSED(image, rp_conv2d(net, 3, 3, wrong[i], 0), RP_ERR_VALUE, "stride", value);
        REFUSED(image, rp_conv2d(net, 3, wrong[i], 1, 0), RP_ERR_VALUE, "kernel", value);
        REFUSED(image, rp_max_pool2d(net, wrong[i], 1), RP_ERR_VALUE, "rp_max_pool2d", value);
        REFUSED(image, rp_max_pool2d(net, 1, wrong[i]), RP_ERR_VALUE, "stride", value);
        REFUSED(image, rp_avg_pool2d(net, wrong[i], 1), RP_ERR_VALUE, "rp_avg_pool2d", value);
        REFUSED(image, rp_avg_pool2d(net, 1, wrong[i]), RP_ERR_VALUE, "stride", value);
        if (!wrong[i]) continue; /* a padding may be 0, and in a desc 0 is 1 */
        REFUSED(image, rp_conv2d(net, 3, 3, 1, wrong[i]), RP_ERR_VALUE, "padding", value);
        REFUSED(image, window_of(net, 3, wrong[i], 1, 1, 0, 1), RP_ERR_VALUE, "kernel height", value);
        REFUSED(image, window_of(net, 3, 1, wrong[i], 1, 0, 1), RP_ERR_VALUE, "kernel width", value);
        REFUSED(image, window_of(net, 3, 1, 1, wrong[i], 0, 1), RP_ERR_VALUE, "stride height", value);
        REFUSED(image, window_of(net, 3, 1, 1, 1, wrong[i], 1), RP_ERR_VALUE, "padding height", value);
        REFUSED(image, window_of(net, 3, 1, 1, 1, 0, wrong[i]), RP_ERR_VALUE, "groups", value);
    }
    REFUSED(image, rp_conv2d_with(net, NULL), RP_ERR_NULL, "rp_conv2d", "desc");
    REFUSED(image, window_of(net, 2, 1, 1, 1, 0, 3), RP_ERR_SHAPE, "3", "2 channels");
    REFUSED(image, window_of(net, 3, 1, 1, 1, 0, 2), RP_ERR_SHAPE, "3 filters", "2 channels");
    REFUSED(image, rp_conv2d(net, 3, 5, 1, 0), RP_ERR_SHAPE, "5x5", "2x5x4");
    REFUSED(image, window_of(net, 3, 8, 1, 1, 1, 1), RP_ERR_SHAPE, "8x1", "2x5x4");
    REFUSED(image, rp_max_pool2d(net, 5, 1), RP_ERR_SHAPE, "5x5", "2x5x4");
    REFUSED(image, rp_avg_pool2d(net, 6, 6), RP_ERR_SHAPE, "6x6", "2x5x4");
    REFUSED(image, rp_conv2d(net, 1 << 28, 1, 1, 0), RP_ERR_OVERFLOW, "rp_conv2d", "268435456x5x4");
    REFUSED(image, rp_conv2d(net, 1, 1, 1, 1 << 28), RP_ERR_OVERFLOW, "rp_conv2d", "536870917x536870916");
    REFUSED(vector, rp_conv2d(net, 3, 1, 1, 0), RP_ERR_SHAPE, "image", "7");
    REFUSED(sequence, rp_conv2d(net, 3, 1, 1, 0), RP_ERR_SHAPE, "image", "6x3");
    REFUSED(sequence, rp_max_pool2d(net, 1, 1), RP_ERR_SHAPE, "image", "6x3");
    REFUSED(vector, rp_avg_pool2d(net, 1, 1), RP_ERR_SHAPE, "image", "7");
    REFUSED(vector, rp_global_avg_pool2d(net), RP_ERR_SHAPE, "image", "7");
    REFUSED(sequence, rp_global_avg_pool2d(net), RP_ERR_SHAPE, "image", "6x3");
    REFUSED_AFTER(image, rp_dense(net, 9), rp_conv2d(net, 3, 1, 1, 0), RP_ERR_SHAPE, "image", "9");
    REFUSED_AFTER(image, rp_max_pool2d(net, 2, 2), rp_no_bias(net, rp_layer_count(net) - 1), RP_ERR_VALUE, "rp_no_bias",
                  "max_pool2d");
}

static void test_misuse_of_sequences(void) {
    rp_shape image = rp_image(2, 5, 4), vector = rp_vector(7), sequence = rp_sequence(6, 3);
    rp_activation_kind none = (rp_activation_kind)99;
    static const int wrong[] = {0, -1, INT_MIN, INT_MAX};
    for (int i = 0; i < 4; i++) {
        char value[20];
        snprintf(value, sizeof value, "%d", wrong[i]);
        REFUSED(sequence, rp_recurrent(net, wrong[i], RP_TANH), RP_ERR_VALUE, "units", value);
        REFUSED(sequence, states_of(net, wrong[i], RP_TANH), RP_ERR_VALUE, "units", value);
        REFUSED(vector, rp_recursive(net, wrong[i], RP_TANH), RP_ERR_VALUE, "steps", value);
    }
    REFUSED(sequence, rp_recurrent_with(net, NULL), RP_ERR_NULL, "rp_recurrent", "desc");
    REFUSED(sequence, rp_recurrent(net, 2, none), RP_ERR_VALUE, "rp_recurrent", "99");
    REFUSED(vector, rp_recursive(net, 2, none), RP_ERR_VALUE, "rp_recursive", "99");
    REFUSED(image, rp_recurrent(net, 2, RP_TANH), RP_ERR_SHAPE, "sequence", "2x5x4");
    REFUSED(vector, rp_recurrent(net, 2, RP_TANH), RP_ERR_SHAPE, "sequence", "7");
    REFUSED_AFTER(sequence, rp_recurrent(net, 4, RP_TANH), rp_recurrent(net, 2, RP_TANH), RP_ERR_SHAPE, "sequence",
                  "4");
    REFUSED_AFTER(sequence, rp_recurrent(net, 4, RP_TANH), rp_negative_slope(net, rp_layer_count(net) - 1, 1),
                  RP_ERR_VALUE, "rp_negative_slope", "recurrent");
}

static void dense_twice(rp_net *net, int first, int second) {
    rp_dense(net, first);
    rp_dense(net, second);
}
static void dense_and_add(rp_net *net, int units) {
    rp_dense(net, units);
    rp_add(net, 0);
}
static void test_misuse_of_add(void) {
    rp_shape image = rp_image(2, 5, 4), vector = rp_vector(7), sequence = rp_sequence(7, 1);
    REFUSED_AFTER(vector, rp_dense(net, 7), rp_add(net, 1), RP_ERR_VALUE, "rp_add", "1"); /* itself */
    REFUSED_AFTER(vector, rp_dense(net, 7), rp_add(net, 2), RP_ERR_VALUE, "rp_add", "2");
    REFUSED_AFTER(vector, rp_dense(net, 7), rp_add(net, -2), RP_ERR_VALUE, "rp_add", "-2");
    REFUSED_AFTER(vector, rp_dense(net, 7), rp_add(net, INT_MAX), RP_ERR_VALUE, "rp_add", "2147483647");
    REFUSED_AFTER(vector, rp_dense(net, 6), rp_add(net, RP_INPUT), RP_ERR_SHAPE, "gives a vector of 6",
                  "the input gives a vector of 7");
    REFUSED_AFTER(vector, dense_twice(net, 6, 8), rp_add(net, 0), RP_ERR_SHAPE, "layer 0 gives a vector of 6",
                  "gives a vector of 8");
    REFUSED_AFTER(image, rp_conv2d(net, 3, 1, 1, 0), rp_add(net, RP_INPUT), RP_ERR_SHAPE, "3x5x4", "2x5x4");
    REFUSED_AFTER(image, rp_dense(net, 40), rp_add(net, RP_INPUT), RP_ERR_SHAPE, "2x5x4", "40");
    REFUSED_AFTER(sequence, rp_dense(net, 7), rp_add(net, RP_INPUT), RP_ERR_SHAPE, "a sequence of 7x1",
                  "a vector of 7");
    REFUSED_AFTER(vector, dense_and_add(net, 7), rp_no_bias(net, rp_layer_count(net) - 1), RP_ERR_VALUE, "rp_no_bias",
                  "add");
}

/* On no net, and on one that is built. */
static void test_misuse_of_time(void) {
    for (int n = 0; n < 2; n++) {
        rp_net *net = n ? rp_net_new(rp_image(1, 3, 3), NULL) : NULL;
        int expected = n ? RP_ERR_ORDER : RP_ERR_NULL, pool = 0;
        if (n) {
            rp_max_pool2d(net, 2, 1);
            built(net, 1);
        }
        const int got[] = {rp_conv2d(net, 1, 1, 1, 0), window_of(net, 1, 1, 1, 1, 0, 1), rp_max_pool2d(net, 1, 1),
                           rp_avg_pool2d(net, 1, 1),   rp_global_avg_pool2d(net),        rp_recurrent(net, 1, RP_TANH),
                           states_of(net, 1, RP_TANH), rp_recursive(net, 1, RP_TANH),    rp_add(net, RP_INPUT)};
        for (size_t i = 0; i < sizeof got / sizeof *got; i++) CHECK(got[i] == expected, "call %d: %d", (int)i, got[i]);
        if (!n) continue;
        CHECK(rp_freeze(net, pool, 1) == RP_ERR_VALUE && strstr(rp_error(net), "max_pool2d"), "%s", rp_error(net));
        CHECK(rp_parameter_count(net) == 0, "%d", (int)rp_parameter_count(net));
        rp_net_free(net);
    }
}

/* Sizes at the edge of what is allowed: of 3x3 positions only the one in the middle meets the image. */
static void test_far_padding(void) {
    rp_net *net = rp_net_new(rp_image(1, 1, 1), NULL);
    rp_real x = 3, out[9];
    rp_conv2d(net, 1, 1, 1 << 28, 1 << 28);
    built(net, 1);
    rp_parameters(net)[0] = 2;
    rp_parameters(net)[1] = 1;
    CHECK(rp_predict(net, &x, 1, out) == RP_OK, "%s", rp_error(net));
    for (int i = 0; i < 9; i++) CHECK(out[i] == (i == 4 ? 7 : 1), "%d: %g", i, (double)out[i]);
    rp_net_free(net);
}

/* PyTorch: the nets of torch_layers.py. */
static rp_net *torch_net(int which) {
    rp_conv2d_desc desc = conv2d_of(6, 3, 2);
    const rp_shape inputs[TORCH_NETS] = {rp_image(4, 7, 6), rp_image(2, 7, 6), rp_image(2, 8, 7),
                                         rp_sequence(5, 3), rp_sequence(5, 3), rp_image(3, 5, 4)};
    rp_net *net = rp_net_new(inputs[which], NULL);
    desc.kernel_width = 2;
    desc.stride_height = 2;
    desc.padding_height = 1;
    desc.padding_width = 2;
    switch (which) {
    case 0:
        rp_conv2d_with(net, &desc);
        rp_activation(net, RP_TANH);
        rp_dense(net, 3);
        break;
    case 1:
        rp_conv2d(net, 3, 2, 1, 0);
        rp_max_pool2d(net, 3, 2);
        rp_activation(net, RP_SIGMOID);
        rp_dense(net, 3);
        break;
    case 2:
        rp_conv2d(net, 3, 2, 1, 0);
        rp_activation(net, RP_RELU);
        rp_avg_pool2d(net, 3, 2);
        rp_dense(net, 3);
        break;
    case 3:
        rp_recurrent(net, 4, RP_TANH);
        rp_dense(net, 2);
        break;
    case 4:
        states_of(net, 4, RP_TANH);
        states_of(net, 3, RP_RELU);
        rp_dense(net, 2);
        break;
    default:
        rp_conv2d(net, 3, 3, 1, 1);
        rp_activation(net, RP_RELU);
        rp_conv2d(net, 3, 3, 1, 1);
        rp_activation(net, RP_SOFTPLUS);
        rp_add(net, 1);
        rp_add(net, RP_INPUT);
        rp_global_avg_pool2d(net);
        rp_dense(net, 2);
    }
    return built(net, TORCH_BATCH);
}

static void torch_reals(uint32_t *state, double scale, rp_real *out, size_t count) { /* Generator in torch_layers.py */
    for (size_t i = 0; i < count; i++) {
        *state = *state * 1664525u + 1013904223u;
        out[i] = (rp_real)(scale * ((*state >> 8) / 8388608.0 - 1));
    }
}

static void test_torch(void) {
    const double *expected = torch_results;
    const double allowed = sizeof(rp_real) == sizeof(double) ? 1e-9 : 1e-5;
    for (int which = 0; which < TORCH_NETS; which++) {
        size_t mark = memory_mark();
        rp_net *net = torch_net(which);
        rp_layer first, last;
        rp_layer_info(net, 0, &first);
        rp_layer_info(net, rp_layer_count(net) - 1, &last);
        size_t inputs = TORCH_BATCH * (size_t)ref_features(first.in), count = rp_parameter_count(net);
        size_t outputs = TORCH_BATCH * (size_t)ref_features(last.out);
        rp_real *x = new_reals(inputs), *targets = new_reals(outputs), *got = new_reals(outputs + 1 + count);
        rp_data data = rp_targeted(x, targets, TORCH_BATCH);
        uint32_t state = 1;
        torch_reals(&state, 0.5, rp_parameters(net), count);
        torch_reals(&state, 1, x, inputs);
        torch_reals(&state, 1, targets, outputs);
        CHECK(rp_predict(net, x, TORCH_BATCH, got) == RP_OK, "%s", rp_error(net));
        CHECK(rp_backward(net, &data, NULL, got + outputs) == RP_OK, "%s", rp_error(net));
        memcpy(got + outputs + 1, rp_gradient(net), count * sizeof *got);
        for (size_t i = 0; i < outputs + 1 + count; i++)
            CHECK(fabs((double)got[i] - expected[i]) <= allowed, "net %d: number %d is %.12g, not %.12g", which, (int)i,
                  (double)got[i], expected[i]);
        expected += outputs + 1 + count;
        rp_net_free(net);
        memory_release(mark);
    }
    CHECK(expected == torch_results + sizeof torch_results / sizeof *torch_results, "%d numbers",
          (int)(expected - torch_results));
}

int main(void) {
    test_torch();
    test_conv2d_is_dense();
    test_recursion_is_a_stack();
    test_one_step();
    test_initialisation();
    test_far_padding();
    test_misuse_of_images();
    test_misuse_of_sequences();
    test_misuse_of_add();
    test_misuse_of_time();
    test_threads_and_sets();
    test_fit();
    return test_end();
}
