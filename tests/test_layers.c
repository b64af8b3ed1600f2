/* Convolutions, pools, recurrence, recursion and residual sums: the library against a naive float64 version over some
   hundreds of random nets that mix them, against what is known of their mathematics, and against PyTorch. For single
   precision as it is, for double with -DRP_DOUBLE. */
#include "../rp.h"
#include "random_nets.h"
#include "torch_layers.h"
#include <limits.h>

/* Largest error allowed, relative to the largest entry of the layer's array; see test_math.c. */
#ifdef RP_DOUBLE
static const double tolerance = 1e-10, kink = 1e-9;
#else
static const double tolerance = 5e-4, kink = 3e-6;
#endif

static void check_layers(rp_net *net, const ref_graph *g) {
    static const char *names[] = {"dense", NULL, "conv2d", "max_pool2d", "avg_pool2d", "recurrent", "recursive", "add"};
    CHECK(rp_layer_count(net) == g->net.layers, "%d", rp_layer_count(net));
    for (int l = 0; l < g->net.layers; l++) {
        const ref_layer *layer = &g->net.layer[l];
        const char *name = names[g->spec[l].kind];
        rp_layer info;
        CHECK(rp_layer_info(net, l, &info) == RP_OK, "%s", rp_error(net));
        CHECK(!name || !strcmp(name, info.kind), "layer %d is %s instead of %s", l, info.kind, name);
        CHECK(same_shape(info.in, ref_shape(g, l - 1)) && same_shape(info.out, g->shape[l]), "layer %d, %s", l,
              info.kind);
        CHECK(info.weight_count == (size_t)(layer->in * layer->out) &&
                  info.bias_count == (size_t)(layer->bias * layer->out),
              "layer %d, %s", l, info.kind);
        CHECK(!layer->dense || (info.weights == (size_t)layer->weights && info.biases == (size_t)layer->biases),
              "layer %d, %s", l, info.kind);
        CHECK(info.frozen == layer->frozen, "layer %d, %s", l, info.kind);
    }
}

static void check_loss(const trial *t, rp_real got, double expected) {
    CHECK(fabs((double)got - expected) <= tolerance * fmax(1, fabs(expected)), "%.12g instead of %.12g; %s",
          (double)got, expected, t->text);
}

/* Outputs of the first `count` samples. */
static void check_outputs(const trial *t, const char *what, const rp_real *out, int count) {
    int outputs = t->graph->net.outputs;
    double error = 0, largest = 0;
    for (int b = 0; b < count; b++) {
        ref_graph_forward(t->graph, RP_SCALE_ONE, t->exact.inputs + b * t->graph->net.inputs);
        for (int i = 0; i < outputs; i++) {
            error = larger(fabs((double)out[b * outputs + i] - ref_output(t->graph)[i]), error);
            largest = fmax(largest, fabs(ref_output(t->graph)[i]));
        }
    }
    CHECK(error <= tolerance * largest, "%s is off by %g, largest %g; %s", what, error, largest, t->text);
}

/* One net: outputs, loss, gradient, curvature. */
static void compare(trial *t) {
    int n = t->graph->net.parameters, sampled = t->rule.kind == RP_SAMPLED;
    double *gradient = ref_new(n), *low = ref_new(n), *high = ref_new(n);
    rp_real *out = new_reals((size_t)(t->data.count * t->graph->net.outputs)), loss = -1;
    double expected = ref_graph_batch(t->graph, &t->exact, sampled ? NULL : &t->rule, gradient, sampled ? NULL : high);
    if (sampled) ref_graph_sampled(t->graph, &t->exact, t->rule.scale, low, high);
    else memcpy(low, high, sizeof *low * (size_t)n);

    CHECK(rp_predict(t->net, t->inputs, t->data.count, out) == RP_OK, "%s; %s", rp_error(t->net), t->text);
    check_outputs(t, "rp_predict", out, t->data.count);
    CHECK(rp_backward(t->net, &t->data, NULL, &loss) == RP_OK, "%s; %s", rp_error(t->net), t->text);
    check_loss(t, loss, expected);
    check_array(t, "gradient alone", rp_gradient(t->net), gradient, tolerance);
    CHECK(rp_backward(t->net, &t->data, &t->rule, &loss) == RP_OK, "%s; %s", rp_error(t->net), t->text);
    check_loss(t, loss, expected);
    check_array(t, "gradient", rp_gradient(t->net), gradient, tolerance);
    check_between(t, "curvature", rp_curvature(t->net), low, high, tolerance);
    free(gradient), free(low), free(high), free(out);
}

static void test_random_nets(void) {
    static const net_recipe recipes[] = {
        {IMAGE, 5, 6, 12, 70, ANY},    {SEQUENCE, 4, 8, 12, 70, ANY}, {VECTOR, 7, 7, 12, 70, ANY},
        {IMAGE, 9, 4, 6, 20, ANY},     {SEQUENCE, 8, 4, 6, 20, ANY},  {IMAGE, 2, 14, 6, 5, ANY},
        {SEQUENCE, 2, 20, 12, 5, ANY}, {IMAGE, 3, 10, 150, 1, ANY},
    };
    for (int n = 0; n < 600; n++) {
        trial *t = trial_new((uint64_t)n, &recipes[n % 8], nth_rule(3, n / 8), kink);
        check_layers(t->net, t->graph);
        compare(t);
        trial_free(t);
    }
}

/* Every entry of the gradient against central differences of the reference's loss. */
static void test_differences(void) {
    for (int n = 0; n < 60; n++) {
        net_recipe recipe = {(input_kind)(n % 3), 5, 4, 4, 3, SMOOTH};
        trial *t = trial_new((uint64_t)n, &recipe, rp_rule_default(), 1e-3);
        ref_net *net = &t->graph->net;
        const double step = 1e-5;
        double largest = 0, worst = 0;
        double *expected = ref_new(net->parameters), *c = ref_new(net->parameters);
        ref_scales(net, RP_SCALE_ONE, c);
        for (int p = 0; p < net->parameters; p++) {
            double w = net->w[p], above, below;
            net->w[p] = w + step, above = ref_graph_batch(t->graph, &t->exact, NULL, NULL, NULL);
            net->w[p] = w - step, below = ref_graph_batch(t->graph, &t->exact, NULL, NULL, NULL);
            net->w[p] = w;
            expected[p] = c[p] > 0 ? (above - below) / (2 * step) : 0;
        }
        rp_backward(t->net, &t->data, NULL, NULL);
        for (int p = 0; p < net->parameters; p++) { /* a quotient of losses that are rounded in the 16th digit */
            double got = (double)rp_gradient(t->net)[p], error = fabs(got - expected[p]);
            largest = fmax(largest, fabs(expected[p])), worst = larger(error, worst);
        }
        CHECK(worst <= fmax(tolerance, 1e-6) * largest + 1e-9, "off by %g, largest %g; %s", worst, largest, t->text);
        free(expected), free(c);
        trial_free(t);
    }
}

/* Equation 44 with scales: sum c^2 curvature is sum v u at the outputs. It holds exactly with every layer that is
   linear for the sample at hand (max pools and ReLUs too, which route), with shared weights, and with frozen layers. */
static void test_exact_sum(void) {
    for (int n = 0; n < 150; n++) {
        net_recipe recipe = {(input_kind)(n % 3), 8, 5, 5, 9, PIECEWISE_LINEAR};
        trial *t = trial_new((uint64_t)n, &recipe, nth_rule(1, n / 3), kink);
        double *c = ref_new(t->graph->net.parameters), sum = 0, expected;
        ref_scales(&t->graph->net, t->rule.scale, c);
        rp_backward(t->net, &t->data, &t->rule, NULL);
        for (int p = 0; p < t->graph->net.parameters; p++) sum += c[p] * c[p] * (double)rp_curvature(t->net)[p];
        expected = ref_graph_exact_sum(t->graph, &t->exact, &t->rule);
        CHECK(fabs(sum - expected) <= tolerance * expected, "%g instead of %g; %s", sum, expected, t->text);
        free(c);
        trial_free(t);
    }
}

/* Theorem 1: sum curvature w^2 is at least the second-order model along any step w; the Jacobian rule bounds its
   Gauss-Newton part. */
static void check_bound(trial *t, const double *w) {
    double bound = 0, gauss_newton, activations, model;
    ref_graph_quadratic(t->graph, &t->exact, w, &gauss_newton, &activations);
    model = gauss_newton + (t->rule.kind == RP_PATHS ? activations : 0);
    for (int p = 0; p < t->graph->net.parameters; p++) bound += (double)rp_curvature(t->net)[p] * w[p] * w[p];
    /* 1e-12: what rounding leaves of the softmax of one output, as in test_math.c */
    CHECK(bound >= model - tolerance * fabs(model) - 1e-12, "%g is no bound for %g; %s", bound, model, t->text);
}
static void test_bound(void) {
    for (int n = 0; n < 120; n++) {
        net_recipe recipe = {(input_kind)(n % 3), 6, 4, 4, 4, ANY};
        trial *t = trial_new((uint64_t)n, &recipe, nth_rule(2, n / 3), kink);
        int parameters = t->graph->net.parameters;
        double *w = ref_new(parameters), *j = ref_new(parameters * t->graph->net.outputs);
        rp_backward(t->net, &t->data, &t->rule, NULL);
        for (int step = 0; step < 10; step++) {
            for (int p = 0; p < parameters; p++)
                w[p] = step % 2 && chance(&t->random, 0.8) ? 0 : test_normal(&t->random);
            check_bound(t, w);
        }
        ref_graph_forward(t->graph, RP_SCALE_ONE, t->exact.inputs);
        ref_graph_jacobian(t->graph, j);
        for (int p = 0; p < parameters; p++) w[p] = j[p] < 0 ? -1 : 1; /* all move the first output upwards */
        check_bound(t, w);
        free(w), free(j);
        trial_free(t);
    }
}

/* More samples than the net was built for, one alone, in a workspace, without memory for training: the same outputs. */
static void test_prediction(void) {
    for (int n = 0; n < 90; n++) {
        net_recipe recipe = {(input_kind)(n % 3), 6, 6, 6, 30, ANY};
        trial *t = trial_new((uint64_t)n, &recipe, rp_rule_default(), kink);
        int outputs = t->graph->net.outputs, count = t->data.count;
        rp_config config = {NULL, NULL, NULL, RP_ISA_AUTO, 0, 1};
        rp_net *small = library_net(t->graph, test_int(&t->random, 1, 9), t->seed, &config);
        rp_workspace *workspace = rp_workspace_new(t->net, test_int(&t->random, 1, 9));
        rp_real *out = new_reals((size_t)(count * outputs));
        rp_score score;
        double expected = ref_graph_batch(t->graph, &t->exact, NULL, NULL, NULL);
        CHECK(rp_predict(small, t->inputs, count, out) == RP_OK, "%s; %s", rp_error(small), t->text);
        check_outputs(t, "a net for inference", out, count);
        CHECK(rp_predict_with(t->net, workspace, t->inputs, count, out) == RP_OK, "%s", t->text);
        check_outputs(t, "rp_predict_with", out, count);
        CHECK(rp_predict(t->net, t->inputs, 1, out) == RP_OK, "%s; %s", rp_error(t->net), t->text);
        check_outputs(t, "a single sample", out, 1);
        CHECK(rp_evaluate(small, &t->data, &score) == RP_OK, "%s; %s", rp_error(small), t->text);
        check_loss(t, score.loss, expected);
        CHECK(rp_evaluate(t->net, &t->data, &score) == RP_OK, "%s; %s", rp_error(t->net), t->text);
        check_loss(t, score.loss, expected);
        CHECK(score.count == count, "%d; %s", (int)score.count, t->text);
        CHECK(rp_backward(small, &t->data, NULL, NULL) == RP_ERR_UNSUPPORTED, "%s", t->text);
        CHECK(rp_forward(t->net, t->inputs, count) == RP_OK, "%s; %s", rp_error(t->net), t->text);
        check_outputs(t, "rp_output", rp_output(t->net), count);
        rp_workspace_free(workspace), rp_net_free(small);
        free(out);
        trial_free(t);
    }
}

/* Twenty steps of an optimizer on new data each, against the formulas. */
static void test_training(void) {
    for (int n = 0; n < 45; n++) {
        net_recipe recipe = {(input_kind)(n % 3), 5, 5, 4, 8, SMOOTH};
        trial *t = trial_new((uint64_t)n, &recipe, nth_rule(2, n), kink);
        ref_net *net = &t->graph->net;
        rp_optimizer optimizers[] = {rp_sgd((rp_real)0.01), rp_adam((rp_real)0.01), rp_partitioning_rate((rp_real)0.2)};
        rp_optimizer *o = &optimizers[n / 3 % 3];
        int curved = o->method == RP_PARTITIONING;
        const rp_rule *rule = curved ? &o->rule : NULL;
        ref_state state = {ref_new(net->parameters), ref_new(net->parameters), 0};
        double *gradient = ref_new(net->parameters), *curvature = ref_new(net->parameters);
        o->rule = t->rule, o->damping = (rp_real)0.1;
        if (o->method == RP_SGD) o->momentum = (rp_real)0.9;
        for (int step = 0; step < 20; step++) {
            rp_real loss = -1;
            random_data(t, test_int(&t->random, 1, smaller(t->batch, 8)), random_target);
            double expected = ref_graph_batch(t->graph, &t->exact, rule, gradient, curved ? curvature : NULL);
            ref_update(net, o, gradient, curved ? curvature : NULL, &state);
            CHECK(rp_train(t->net, o, &t->data, &loss) == RP_OK, "%s; %s", rp_error(t->net), t->text);
            check_loss(t, loss, expected);
        }
        check_array(t, "parameters after 20 steps", rp_parameters(t->net), net->w, tolerance);
        free(state.a), free(state.b), free(gradient), free(curvature);
        trial_free(t);
    }
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
    rp_net *dense = rp_net_new(rp_vector(TAPS), NULL);
    size_t count = FILTERS * (TAPS + 1);
    rp_real *x = new_reals(ALL * TAPS), *targets = new_reals(ALL * FILTERS), sums[2][FILTERS * (TAPS + 1)];
    rp_data windows = {x, targets, NULL, NULL, ALL, NULL, NULL};
    rp_dense(dense, FILTERS), rp_activation(dense, RP_TANH);
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
    rp_backward(conv, data, &rule, NULL), rp_backward(dense, &windows, &rule, NULL);
    for (size_t p = 0; p < count; p++) { /* means over samples, and over windows */
        sums[0][p] = POSITIONS * rp_gradient(dense)[p];
        sums[1][p] = POSITIONS * rp_curvature(dense)[p];
    }
    check_close("gradient by windows", rp_gradient(conv), sums[0], count);
    check_close("curvature by windows", rp_curvature(conv), sums[1], count);
    free(x), free(targets);
    rp_net_free(dense);
}

/* And it is one dense layer of the whole image, whose weights are zero or tied: values and gradient. (Not curvature:
   there the zeros may move, too.) */
static void check_tied(rp_net *conv, const rp_data *data) {
    rp_net *dense = rp_net_new(rp_image(CHANNELS, HEIGHT, WIDTH), NULL);
    size_t count = FILTERS * (TAPS + 1), outputs = FILTERS * POSITIONS;
    rp_real sum[FILTERS * (TAPS + 1)] = {0}, out[2][SAMPLES * FILTERS * POSITIONS];
    rp_dense(dense, (int)outputs), rp_activation(dense, RP_TANH);
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
    rp_predict(conv, data->inputs, SAMPLES, out[0]), rp_predict(dense, data->inputs, SAMPLES, out[1]);
    check_close("tied values", out[0], out[1], SAMPLES * outputs);
    check_close("tied gradient", rp_gradient(conv), sum, count);
    rp_net_free(dense);
}

static void test_conv2d_is_dense(void) {
    static const rp_conv2d_desc desc = {FILTERS, 3, 2, 2, 1, 1, 0, 1};
    rp_real x[SAMPLES * PIXELS], targets[SAMPLES * FILTERS * POSITIONS];
    rp_data data = {x, targets, NULL, NULL, SAMPLES, NULL, NULL};
    test_random random = {1};
    random_reals(&random, x, SAMPLES * PIXELS), random_reals(&random, targets, SAMPLES * FILTERS * POSITIONS);
    rp_net *conv = rp_net_new(rp_image(CHANNELS, HEIGHT, WIDTH), NULL);
    rp_conv2d_with(conv, &desc), rp_activation(conv, RP_TANH);
    built(conv, SAMPLES);
    for (int n = 0; n < 4; n++) {
        rp_rule rule = {RP_PATHS, n % 2 ? RP_BOUND_JENSEN : RP_BOUND_TIGHT, n / 2 ? RP_SCALE_FAN_IN : RP_SCALE_ONE};
        check_windows(conv, &data, rule);
    }
    check_tied(conv, &data);
    rp_net_free(conv);
}

/* A recursive layer is a stack of dense layers whose weights are equal, gradient and curvature their sums (Equations 58
   and 59 of Understanding and Exploiting the Low-Rank Structure of Deep Networks). */
static void test_recursion_is_a_stack(void) {
    enum { UNITS = 5, STEPS = 4, OWN = UNITS * (UNITS + 1) };
    rp_real x[SAMPLES * UNITS], targets[SAMPLES * UNITS];
    rp_data data = {x, targets, NULL, NULL, SAMPLES, NULL, NULL};
    test_random random = {2};
    random_reals(&random, x, SAMPLES * UNITS), random_reals(&random, targets, SAMPLES * UNITS);
    for (int n = 0; n < 4; n++) {
        rp_rule rule = {RP_PATHS, RP_BOUND_TIGHT, n / 2 ? RP_SCALE_FAN_IN : RP_SCALE_ONE};
        rp_net *recursive = rp_net_new(rp_vector(UNITS), NULL), *stack = rp_net_new(rp_vector(UNITS), NULL);
        rp_activation_kind activation = n % 2 ? RP_TANH : RP_RELU;
        rp_real sums[2][OWN] = {{0}}, loss[2] = {0};
        rp_recursive(recursive, STEPS, activation);
        for (int l = 0; l < STEPS; l++) rp_dense(stack, UNITS), rp_activation(stack, activation);
        built(recursive, SAMPLES), built(stack, SAMPLES);
        for (size_t p = 0; p < STEPS * OWN; p++) rp_parameters(stack)[p] = rp_parameters(recursive)[p % OWN];
        rp_backward(recursive, &data, &rule, &loss[0]), rp_backward(stack, &data, &rule, &loss[1]);
        for (size_t p = 0; p < STEPS * OWN; p++)
            sums[0][p % OWN] += rp_gradient(stack)[p], sums[1][p % OWN] += rp_curvature(stack)[p];
        check_close("loss of the stack", &loss[0], &loss[1], 1);
        check_close("gradient of the stack", rp_gradient(recursive), sums[0], OWN);
        check_close("curvature of the stack", rp_curvature(recursive), sums[1], OWN);
        rp_net_free(recursive), rp_net_free(stack);
    }
}

/* A recurrent layer over one step is a dense layer. */
static void test_one_step(void) {
    const size_t units = 5, weights = units * units;
    rp_real x[SAMPLES * 5], targets[SAMPLES * 5];
    rp_data data = {x, targets, NULL, NULL, SAMPLES, NULL, NULL};
    rp_rule rule = {RP_PATHS, RP_BOUND_TIGHT, RP_SCALE_ONE};
    test_random random = {5};
    rp_net *one = rp_net_new(rp_sequence(1, 5), NULL), *dense = rp_net_new(rp_vector(5), NULL);
    random_reals(&random, x, SAMPLES * units), random_reals(&random, targets, SAMPLES * units);
    rp_recurrent(one, 5, RP_TANH), rp_dense(dense, 5), rp_activation(dense, RP_TANH);
    built(one, SAMPLES), built(dense, SAMPLES);
    memcpy(rp_parameters(dense), rp_parameters(one), weights * sizeof *x);
    memcpy(rp_parameters(dense) + weights, rp_parameters(one) + 2 * weights, units * sizeof *x);
    rp_backward(one, &data, &rule, NULL), rp_backward(dense, &data, &rule, NULL);
    check_close("gradient of one step", rp_gradient(one), rp_gradient(dense), weights);
    check_close("curvature of one step", rp_curvature(one), rp_curvature(dense), weights);
    for (size_t p = weights; p < 2 * weights; p++)
        CHECK(rp_gradient(one)[p] == 0 && rp_curvature(one)[p] == 0, "there is no state before the first: %d", (int)p);
    rp_net_free(one), rp_net_free(dense);
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
        largest = fmax(largest, fabs(w)), sum += w, squares += w * w;
    }
    CHECK(largest <= bound * (1 + 1e-6) && largest >= 0.98 * bound, "%s: %g, bound %g", info.kind, largest, bound);
    CHECK(fabs(sum) <= 4 * bound * sqrt((double)count / 3), "%s: mean %g", info.kind, sum / (double)count);
    CHECK(fabs(3 * squares / (double)count - bound * bound) <= 0.2 * bound * bound, "%s: variance %g", info.kind,
          squares / (double)count);
    rp_net_free(net);
}
static void test_initialisation(void) {
    static const rp_conv2d_desc grouped = {30, 3, 2, 1, 1, 0, 0, 2};
    rp_net *net = rp_net_new(rp_image(6, 8, 8), NULL);
    rp_conv2d(net, 10, 3, 1, 0), check_range(net, 6 * 3 * 3);
    net = rp_net_new(rp_image(6, 8, 8), NULL);
    rp_conv2d_with(net, &grouped), check_range(net, 3 * 3 * 2);
    net = rp_net_new(rp_sequence(4, 3), NULL);
    rp_recurrent(net, 20, RP_TANH), check_range(net, 20);
    net = rp_net_new(rp_sequence(4, 60), NULL);
    rp_recurrent(net, 5, RP_TANH), check_range(net, 5);
    net = rp_net_new(rp_vector(20), NULL);
    rp_recursive(net, 3, RP_TANH), check_range(net, 20);
}

/* One net with every kind of layer, large enough for threads to share its work. */
static rp_net *every_kind(const rp_config *config) {
    static const rp_conv2d_desc grouped = {16, 3, 3, 1, 1, 1, 1, 4};
    rp_net *net = rp_net_new(rp_image(2, 15, 14), config);
    rp_conv2d(net, 16, 5, 1, 2), rp_activation(net, RP_RELU);
    rp_conv2d_with(net, &grouped), rp_add(net, 1), rp_activation(net, RP_SOFTPLUS);
    rp_max_pool2d(net, 2, 2), rp_avg_pool2d(net, 2, 1), rp_dense(net, 40), rp_recursive(net, 3, RP_TANH);
    rp_add(net, 7), rp_dense(net, 4);
    rp_loss(net, RP_SOFTMAX_CROSS_ENTROPY);
    return net;
}
static rp_net *sequence_net(const rp_config *config) {
    rp_recurrent_desc all = {60, RP_TANH, 1};
    rp_net *net = rp_net_new(rp_sequence(14, 30), config);
    rp_recurrent_with(net, &all), rp_recurrent_with(net, &all), rp_add(net, 0);
    rp_recurrent(net, 60, RP_RELU), rp_dense(net, 4);
    rp_loss(net, RP_SOFTMAX_CROSS_ENTROPY);
    return net;
}

enum { WORK = 40, MOST_INPUTS = 2 * 15 * 14, STEPS = 3 };

/* Gradient, curvature, and parameters after some steps: [3][parameters], which the caller frees; NULL if there is no
   such net here. */
static rp_real *worked(rp_net *(*describe_net)(const rp_config *), const rp_config *config, rp_rule_kind kind,
                       size_t *count) {
    rp_real *x = new_reals(WORK * MOST_INPUTS), *result = NULL;
    int labels[WORK];
    rp_data data = {x, NULL, labels, NULL, WORK, NULL, NULL};
    rp_optimizer optimizer = rp_partitioning_rate((rp_real)0.1);
    rp_net *net = describe_net(config);
    test_random random = {3};
    random_reals(&random, x, WORK * MOST_INPUTS);
    for (int i = 0; i < WORK; i++) labels[i] = test_int(&random, 0, 3);
    optimizer.rule.kind = kind;
    rp_status status = rp_net_build(net, WORK, 1);
    CHECK(status == RP_OK || status == RP_ERR_UNSUPPORTED, "%s", rp_error(net));
    if (status == RP_OK) {
        *count = 3 * rp_parameter_count(net);
        result = new_reals(*count);
        rp_backward(net, &data, &optimizer.rule, NULL);
        memcpy(result, rp_gradient(net), *count / 3 * sizeof *x);
        memcpy(result + *count / 3, rp_curvature(net), *count / 3 * sizeof *x);
        for (int step = 0; step < STEPS; step++)
            CHECK(rp_train(net, &optimizer, &data, NULL) == RP_OK, "%s", rp_error(net));
        memcpy(result + *count / 3 * 2, rp_parameters(net), *count / 3 * sizeof *x);
    }
    free(x);
    rp_net_free(net);
    return result;
}

/* Any number of threads gives the same bits, any instruction set the same to rounding. */
static void test_threads_and_sets(void) {
    static const char *parts[] = {"gradient", "curvature", "parameters"};
    rp_net *(*const nets[])(const rp_config *) = {every_kind, sequence_net};
    for (int n = 0; n < 6; n++) {
        rp_rule_kind kind = (rp_rule_kind)(n % 3);
        rp_config config = {NULL, NULL, NULL, RP_ISA_AUTO, 1, 0};
        size_t count = 0;
        rp_real *alone = worked(nets[n / 3], &config, kind, &count);
        for (config.threads = 2; config.threads <= 3; config.threads++) {
            rp_real *together = worked(nets[n / 3], &config, kind, &count);
            CHECK(!memcmp(alone, together, count * sizeof *alone), "net %d, %d threads, rule %d", n / 3, config.threads,
                  (int)kind);
            free(together);
        }
        config.threads = 1, config.isa = RP_ISA_PORTABLE;
        rp_real *portable = worked(nets[n / 3], &config, kind, &count);
        for (config.isa = RP_ISA_AVX2; config.isa <= RP_ISA_NEON; config.isa = (rp_isa_kind)(config.isa + 1)) {
            rp_real *other = worked(nets[n / 3], &config, kind, &count);
            if (!other) continue;
            for (size_t part = 0; part < 3; part++)
                check_close(parts[part], other + part * count / 3, portable + part * count / 3, count / 3);
            free(other);
        }
        free(alone), free(portable);
    }
}

/* rp_fit is rp_train on batch after batch. */
static void test_fit(void) {
    rp_net *(*const nets[])(const rp_config *) = {every_kind, sequence_net};
    rp_real *x = new_reals(WORK * MOST_INPUTS);
    int labels[WORK];
    test_random random = {4};
    rp_data data = {x, NULL, labels, NULL, WORK, NULL, NULL};
    random_reals(&random, x, WORK * MOST_INPUTS);
    for (int i = 0; i < WORK; i++) labels[i] = test_int(&random, 0, 3);
    for (int n = 0; n < 2; n++) {
        rp_net *fitted = built(nets[n](NULL), 16), *trained = built(nets[n](NULL), 16);
        rp_optimizer optimizer = rp_adam((rp_real)0.01);
        rp_fit_options options;
        rp_fit_report report;
        rp_layer info;
        memset(&options, 0, sizeof options);
        options.keep_order = 1, options.epochs = 2;
        CHECK(rp_fit(fitted, &optimizer, &data, &options, &report) == RP_OK, "%s", rp_error(fitted));
        rp_layer_info(fitted, 0, &info);
        size_t inputs = (size_t)ref_features(info.in);
        for (int step = 0; step < 6; step++) {
            int at = step % 3 * 16;
            rp_data batch = {x + (size_t)at * inputs, NULL, labels + at, NULL, smaller(16, WORK - at), NULL, NULL};
            CHECK(rp_train(trained, &optimizer, &batch, NULL) == RP_OK, "%s", rp_error(trained));
        }
        CHECK(!memcmp(rp_parameters(fitted), rp_parameters(trained), rp_parameter_count(fitted) * sizeof *x), "net %d",
              n);
        rp_net_free(fitted), rp_net_free(trained);
    }
    free(x);
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
#define REFUSED(input, call, status, one, other) \
    do { \
        rp_net *net = rp_net_new(input, NULL); \
        int got = (call); \
        check_refused(net, got, status, one, other); \
    } while (0)

static int conv2d_of(rp_net *net, int filters, int height, int width, int stride, int padding, int groups) {
    rp_conv2d_desc desc = {filters, height, width, stride, 1, padding, 0, groups};
    return rp_conv2d_with(net, &desc);
}
static int states_of(rp_net *net, int units, rp_activation_kind activation) {
    rp_recurrent_desc desc = {units, activation, 1};
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
        REFUSED(image, conv2d_of(net, 3, wrong[i], 1, 1, 0, 1), RP_ERR_VALUE, "kernel height", value);
        REFUSED(image, conv2d_of(net, 3, 1, wrong[i], 1, 0, 1), RP_ERR_VALUE, "kernel width", value);
        REFUSED(image, conv2d_of(net, 3, 1, 1, wrong[i], 0, 1), RP_ERR_VALUE, "stride height", value);
        REFUSED(image, conv2d_of(net, 3, 1, 1, 1, wrong[i], 1), RP_ERR_VALUE, "padding height", value);
        REFUSED(image, conv2d_of(net, 3, 1, 1, 1, 0, wrong[i]), RP_ERR_VALUE, "groups", value);
    }
    REFUSED(image, rp_conv2d_with(net, NULL), RP_ERR_NULL, "rp_conv2d", "desc");
    REFUSED(image, conv2d_of(net, 2, 1, 1, 1, 0, 3), RP_ERR_SHAPE, "3", "2 channels");
    REFUSED(image, conv2d_of(net, 3, 1, 1, 1, 0, 2), RP_ERR_SHAPE, "3 filters", "2 channels");
    REFUSED(image, rp_conv2d(net, 3, 5, 1, 0), RP_ERR_SHAPE, "5x5", "2x5x4");
    REFUSED(image, conv2d_of(net, 3, 8, 1, 1, 1, 1), RP_ERR_SHAPE, "8x1", "2x5x4");
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
    REFUSED(image, (rp_dense(net, 9), rp_conv2d(net, 3, 1, 1, 0)), RP_ERR_SHAPE, "image", "9");
    REFUSED(image, (rp_max_pool2d(net, 2, 2), rp_no_bias(net)), RP_ERR_ORDER, "rp_no_bias", "max_pool2d");
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
    REFUSED(sequence, (rp_recurrent(net, 4, RP_TANH), rp_recurrent(net, 2, RP_TANH)), RP_ERR_SHAPE, "sequence", "4");
    REFUSED(sequence, (rp_recurrent(net, 4, RP_TANH), rp_negative_slope(net, 1)), RP_ERR_ORDER, "rp_negative_slope",
            "recurrent");
}

static void test_misuse_of_add(void) {
    rp_shape image = rp_image(2, 5, 4), vector = rp_vector(7), sequence = rp_sequence(7, 1);
    REFUSED(vector, (rp_dense(net, 7), rp_add(net, 1)), RP_ERR_VALUE, "rp_add", "1"); /* itself */
    REFUSED(vector, (rp_dense(net, 7), rp_add(net, 2)), RP_ERR_VALUE, "rp_add", "2");
    REFUSED(vector, (rp_dense(net, 7), rp_add(net, -2)), RP_ERR_VALUE, "rp_add", "-2");
    REFUSED(vector, (rp_dense(net, 7), rp_add(net, INT_MAX)), RP_ERR_VALUE, "rp_add", "2147483647");
    REFUSED(vector, (rp_dense(net, 6), rp_add(net, RP_INPUT)), RP_ERR_SHAPE, "gives a vector of 6", "the input gives a vector of 7");
    REFUSED(vector, (rp_dense(net, 6), rp_dense(net, 8), rp_add(net, 0)), RP_ERR_SHAPE, "layer 0 gives a vector of 6", "gives a vector of 8");
    REFUSED(image, (rp_conv2d(net, 3, 1, 1, 0), rp_add(net, RP_INPUT)), RP_ERR_SHAPE, "3x5x4", "2x5x4");
    REFUSED(image, (rp_dense(net, 40), rp_add(net, RP_INPUT)), RP_ERR_SHAPE, "2x5x4", "40");
    REFUSED(sequence, (rp_dense(net, 7), rp_add(net, RP_INPUT)), RP_ERR_SHAPE, "a sequence of 7x1", "a vector of 7");
    REFUSED(vector, (rp_dense(net, 7), rp_add(net, 0), rp_no_bias(net)), RP_ERR_ORDER, "rp_no_bias", "add");
}

/* On no net, and on one that is built. */
static void test_misuse_of_time(void) {
    for (int n = 0; n < 2; n++) {
        rp_net *net = n ? rp_net_new(rp_image(1, 3, 3), NULL) : NULL;
        int expected = n ? RP_ERR_ORDER : RP_ERR_NULL, pool = 0;
        if (n) rp_max_pool2d(net, 2, 1), built(net, 1);
        const int got[] = {rp_conv2d(net, 1, 1, 1, 0), conv2d_of(net, 1, 1, 1, 1, 0, 1), rp_max_pool2d(net, 1, 1),
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
    rp_parameters(net)[0] = 2, rp_parameters(net)[1] = 1;
    CHECK(rp_predict(net, &x, 1, out) == RP_OK, "%s", rp_error(net));
    for (int i = 0; i < 9; i++) CHECK(out[i] == (i == 4 ? 7 : 1), "%d: %g", i, (double)out[i]);
    rp_net_free(net);
}

/* PyTorch: the nets of torch_layers.py. */
static rp_net *torch_net(int which) {
    static const rp_conv2d_desc desc = {6, 3, 2, 2, 1, 1, 2, 2};
    const rp_shape inputs[TORCH_NETS] = {rp_image(4, 7, 6), rp_image(2, 7, 6), rp_image(2, 8, 7),
                                         rp_sequence(5, 3), rp_sequence(5, 3), rp_image(3, 5, 4)};
    rp_net *net = rp_net_new(inputs[which], NULL);
    switch (which) {
    case 0: rp_conv2d_with(net, &desc), rp_activation(net, RP_TANH), rp_dense(net, 3); break;
    case 1:
        rp_conv2d(net, 3, 2, 1, 0), rp_max_pool2d(net, 3, 2), rp_activation(net, RP_SIGMOID);
        rp_dense(net, 3);
        break;
    case 2: rp_conv2d(net, 3, 2, 1, 0), rp_activation(net, RP_RELU), rp_avg_pool2d(net, 3, 2), rp_dense(net, 3); break;
    case 3: rp_recurrent(net, 4, RP_TANH), rp_dense(net, 2); break;
    case 4: states_of(net, 4, RP_TANH), states_of(net, 3, RP_RELU), rp_dense(net, 2); break;
    default:
        rp_conv2d(net, 3, 3, 1, 1), rp_activation(net, RP_RELU);
        rp_conv2d(net, 3, 3, 1, 1), rp_activation(net, RP_SOFTPLUS), rp_add(net, 1);
        rp_add(net, RP_INPUT), rp_global_avg_pool2d(net), rp_dense(net, 2);
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
        rp_net *net = torch_net(which);
        rp_layer first, last;
        rp_layer_info(net, 0, &first), rp_layer_info(net, rp_layer_count(net) - 1, &last);
        size_t inputs = TORCH_BATCH * (size_t)ref_features(first.in), count = rp_parameter_count(net);
        size_t outputs = TORCH_BATCH * (size_t)ref_features(last.out);
        rp_real *x = new_reals(inputs), *targets = new_reals(outputs), *got = new_reals(outputs + 1 + count);
        rp_data data = {x, targets, NULL, NULL, TORCH_BATCH, NULL, NULL};
        uint32_t state = 1;
        torch_reals(&state, 0.5, rp_parameters(net), count);
        torch_reals(&state, 1, x, inputs), torch_reals(&state, 1, targets, outputs);
        CHECK(rp_predict(net, x, TORCH_BATCH, got) == RP_OK, "%s", rp_error(net));
        CHECK(rp_backward(net, &data, NULL, got + outputs) == RP_OK, "%s", rp_error(net));
        memcpy(got + outputs + 1, rp_gradient(net), count * sizeof *got);
        for (size_t i = 0; i < outputs + 1 + count; i++)
            CHECK(fabs((double)got[i] - expected[i]) <= allowed, "net %d: number %d is %.12g, not %.12g", which, (int)i,
                  (double)got[i], expected[i]);
        expected += outputs + 1 + count;
        free(x), free(targets), free(got);
        rp_net_free(net);
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
    test_random_nets();
    test_differences();
    test_exact_sum();
    test_bound();
    test_prediction();
    test_training();
    test_threads_and_sets();
    test_fit();
    return test_end();
}
