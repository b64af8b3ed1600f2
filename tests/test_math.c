/* The library against a naive float64 version of the same mathematics, over some hundreds of random nets, and against
   the facts that the papers prove. For single precision as it is, for double with -DRP_DOUBLE. */
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "trials.h"

/* Largest error allowed, relative to the largest entry of the layer's array. In single precision an error of one
   rounding, 6e-8, grows along up to a dozen layers, and where terms of opposite sign cancel: p - t, or sigma' v with
   sigma'' d u. Over 5000 nets the worst was 2e-4, and 999 of 1000 arrays stayed below 2e-5 (double: 2e-13, 2e-14). */
#ifdef RP_DOUBLE
static const double tolerance = 1e-10, kink = 1e-9;
#else
static const double tolerance = 5e-4, kink = 3e-6;
#endif

/* What a random net may be: sizes are upper limits. */
typedef struct net_recipe {
    int dense, width, outputs, count;
    activation_choice activations;
} net_recipe;

static const char *loss_names[] = {"squared error", "softmax", "binary", "Huber", "Poisson"};
static const char *activation_names[] = {"identity", "relu", "leaky", "tanh", "sigmoid",
                                         "softplus", "elu", "gelu", "silu"};

static int random_width(test_random *random, int most) {
    static const int edges[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49,
                                63, 64, 65, 95, 96, 97, 127, 128, 129, 255, 256, 257, 511, 512, 513};
    int edge = edges[test_int(random, 0, (int)(sizeof edges / sizeof *edges) - 1)];
    return edge <= most ? edge : test_int(random, 1, most);
}

static void random_activation(test_random *random, activation_choice choice, ref_net *net) {
    static const rp_activation_kind smooth[] = {RP_IDENTITY, RP_TANH, RP_SIGMOID, RP_SOFTPLUS, RP_GELU, RP_SILU};
    rp_activation_kind kind = (rp_activation_kind)test_int(random, 0, choice == ANY ? RP_SILU : RP_LEAKY_RELU);
    double slope = chance(random, 0.5) ? kind == RP_ELU ? 1 : 0.01 : test_uniform(random, 0, 2);
    if (choice == SMOOTH) kind = smooth[test_int(random, 0, 5)];
    ref_activation(net, kind, rounded(slope));
}

static ref_net random_net(test_random *random, const net_recipe *recipe, rp_rule_kind kind) {
    rp_loss_kind loss = (rp_loss_kind)test_int(random, RP_SQUARED_ERROR, RP_POISSON);
    int inputs = random_width(random, recipe->width);
    ref_net net = ref_net_new(inputs, loss, rounded(test_uniform(random, 0.3, 2)));
    int outputs = recipe->outputs;
    if (kind == RP_SAMPLED && loss != RP_SOFTMAX_CROSS_ENTROPY && outputs > 5) outputs = 5; /* 2^5 sign vectors */
    if (chance(random, 0.1)) random_activation(random, recipe->activations, &net);
    for (int more = test_int(random, 1, recipe->dense); more > 0; more--) {
        int units = random_width(random, more > 1 ? recipe->width : outputs);
        int bias = chance(random, 0.8), frozen = chance(random, 0.1);
        ref_dense(&net, units, bias, frozen);
        for (double p = more > 1 ? 0.85 : 0.25; chance(random, p) && net.layers + more < REF_LAYERS; p = 0.1)
            random_activation(random, recipe->activations, &net);
    }
    return net;
}

static rp_net *library_net(const ref_net *reference, int batch, uint64_t seed) {
    rp_net *net = rp_net_new(rp_vector(reference->inputs), NULL);
    for (int l = 0; l < reference->layers; l++) {
        const ref_layer *layer = &reference->layer[l];
        int index = layer->dense ? rp_dense(net, layer->out) : rp_activation(net, layer->activation);
        double usual = layer->activation == RP_ELU ? 1 : rounded(0.01);
        int sloped = !layer->dense && (layer->activation == RP_LEAKY_RELU || layer->activation == RP_ELU);
        CHECK(index == l, "layer %d has index %d", l, index);
        if (layer->dense && !layer->bias) rp_no_bias(net);
        if (sloped && fabs(layer->slope - usual) > 0) rp_negative_slope(net, (rp_real)layer->slope);
        if (layer->frozen && seed % 2) rp_freeze(net, l, 1);
    }
    rp_loss(net, reference->loss);
    if (reference->loss == RP_HUBER) rp_huber_delta(net, (rp_real)reference->delta);
    rp_status status = rp_net_build(net, batch, seed);
    if (!CHECK(status == RP_OK && (int)rp_parameter_count(net) == reference->parameters,
               "%s; %d parameters instead of %d", rp_error(net), (int)rp_parameter_count(net), reference->parameters))
        exit(test_end());
    for (int l = 0; l < reference->layers; l++) /* the other half of the seeds freeze after the build */
        if (reference->layer[l].frozen) rp_freeze(net, l, 1);
    return net;
}

static double random_target(test_random *random, rp_loss_kind loss) {
    switch (loss) {
    case RP_SQUARED_ERROR:
    case RP_HUBER: return test_normal(random);
    case RP_SOFTMAX_CROSS_ENTROPY:
    case RP_BINARY_CROSS_ENTROPY: return chance(random, 0.3) ? test_int(random, 0, 1) : test_uniform(random, 0, 1);
    case RP_POISSON: return test_uniform(random, 0, 3);
    }
    return 0;
}

static void describe(trial *t) {
    const ref_net *net = t->reference;
    size_t size = sizeof t->text, n = 0;
    n += (size_t)snprintf(t->text, size, "seed %llu, %s, rule %d bound %d scale %d, %d samples of %d%s%s: %d",
                          (unsigned long long)t->seed, loss_names[net->loss], (int)t->rule.kind, (int)t->rule.bound,
                          (int)t->rule.scale, t->data.count, t->batch, t->data.weights ? ", weights" : "",
                          t->data.labels ? ", labels" : "", net->inputs);
    for (int l = 0; l < net->layers && n < size; l++) {
        const ref_layer *layer = &net->layer[l];
        if (layer->dense)
            n += (size_t)snprintf(t->text + n, size - n, " %d%s%s", layer->out, layer->bias ? "" : " no bias",
                                  layer->frozen ? " frozen" : "");
        else n += (size_t)snprintf(t->text + n, size - n, " %s(%g)", activation_names[layer->activation], layer->slope);
    }
}

/* Sweeps that the reference needs for one sample: what bounds the size of the batch. */
static int sweeps(const ref_net *net, rp_rule_kind kind) {
    if (kind == RP_JACOBIAN) return net->outputs;
    return kind == RP_SAMPLED ? ref_draws(net) : 1;
}

/* Is rounding likely to matter more than the formulas: a value so near a kink that it could fall on its other side, a
   tanh layer so saturated that 1 - y^2 is mostly rounding, outputs that exp() takes far apart? */
static int ill_conditioned(const trial *t) {
    const ref_net *net = t->reference;
    double largest_output = net->loss == RP_SQUARED_ERROR || net->loss == RP_HUBER ? 1e3 : 5;
    for (int b = 0; b < t->exact.count; b++) {
        ref_sample s;
        ref_forward(net, RP_SCALE_ONE, t->exact.inputs + b * net->inputs, &s);
        for (int l = 0; l < net->layers; l++) {
            rp_activation_kind kind = net->layer[l].activation;
            int kinked = kind == RP_RELU || kind == RP_LEAKY_RELU || kind == RP_ELU;
            double largest = 0, smallest = 1e300;
            if (net->layer[l].dense) continue;
            for (int i = 0; i < net->layer[l].in; i++) {
                double z = fabs(s.y[l][i]);
                largest = fmax(largest, z);
                if (z > 0) smallest = fmin(smallest, z);
            }
            if (kinked && smallest < kink * largest) return 1;
            if (kind == RP_TANH && smallest > 3) return 1;
        }
        for (int i = 0; i < net->outputs; i++)
            if (fabs(s.y[net->layers][i]) > largest_output) return 1;
    }
    return 0;
}

static void trial_free(trial *t) {
    rp_net_free(t->net);
    trial_arrays_free(t);
    free(t->reference->w), free(t->reference), free(t);
}

static trial *trial_draw(uint64_t seed, const net_recipe *recipe, rp_rule rule) {
    trial *t = (trial *)allocate(sizeof *t);
    test_random *random = &t->random;
    t->seed = random->state = seed;
    t->rule = rule;
    t->reference = (ref_net *)allocate(sizeof *t->reference);
    *t->reference = random_net(random, recipe, rule.kind);
    int parameters = t->reference->parameters;
    double affordable = 1e6 / ((double)parameters * sweeps(t->reference, rule.kind));
    int count = random_width(random, (int)fmax(1, fmin(affordable, recipe->count)));
    double scale = chance(random, 0.5) ? 1 : test_uniform(random, 1, 3);
    t->batch = chance(random, 0.5) ? count : count + test_int(random, 1, 20);
    t->net = library_net(t->reference, t->batch, seed);
    for (int p = 0; p < parameters; p++) rp_parameters(t->net)[p] *= (rp_real)scale;
    trial_arrays(t);
    t->reference->w = ref_new(parameters);
    read_parameters(t);
    random_data(t, count, random_target);
    describe(t);
    return t;
}

static trial *trial_new(uint64_t seed, const net_recipe *recipe, rp_rule rule) {
    trial *t = trial_draw(seed, recipe, rule);
    while (ill_conditioned(t)) {
        trial_free(t);
        t = trial_draw(seed += 1000000, recipe, rule);
    }
    return t;
}

static int separable(const trial *t) { return t->reference->loss != RP_SOFTMAX_CROSS_ENTROPY; }
static int has_draws(const trial *t) { /* does the curvature depend on random numbers? */
    return t->rule.kind == RP_SAMPLED && (t->reference->outputs > 1 || !separable(t));
}

static int check_loss(const trial *t, rp_real got, double expected) {
    return CHECK(fabs((double)got - expected) <= tolerance * fmax(1, fabs(expected)), "%.12g instead of %.12g; %s",
                 (double)got, expected, t->text);
}

/* One net: outputs, loss, gradient, curvature. */
static void compare(trial *t) {
    const ref_net *net = t->reference;
    int outputs = net->outputs;
    double *gradient = ref_new(net->parameters), *curvature = ref_new(net->parameters), error = 0, largest = 0;
    rp_real *out = new_reals((size_t)(t->data.count * outputs)), loss = -1;
    int sampled = t->rule.kind == RP_SAMPLED;
    double expected = ref_batch(net, &t->exact, sampled ? NULL : &t->rule, gradient, sampled ? NULL : curvature);

    CHECK(rp_predict(t->net, t->inputs, t->data.count, out) == RP_OK, "%s; %s", rp_error(t->net), t->text);
    for (int b = 0; b < t->data.count; b++) {
        ref_sample s;
        ref_forward(net, RP_SCALE_ONE, t->exact.inputs + b * net->inputs, &s);
        for (int i = 0; i < outputs; i++) {
            error = larger(fabs((double)out[b * outputs + i] - s.y[net->layers][i]), error);
            largest = fmax(largest, fabs(s.y[net->layers][i]));
        }
    }
    CHECK(error <= tolerance * largest, "outputs are off by %g, largest %g; %s", error, largest, t->text);

    CHECK(rp_backward(t->net, &t->data, NULL, &loss) == RP_OK, "%s; %s", rp_error(t->net), t->text);
    check_loss(t, loss, expected);
    check_array(t, "gradient alone", rp_gradient(t->net), gradient, tolerance);
    CHECK(rp_backward(t->net, &t->data, &t->rule, &loss) == RP_OK, "%s; %s", rp_error(t->net), t->text);
    check_loss(t, loss, expected);
    check_array(t, "gradient", rp_gradient(t->net), gradient, tolerance);
    if (sampled) {
        ref_spread spread = ref_batch_sampled(net, &t->exact, t->rule.scale);
        check_between(t, "sampled curvature", rp_curvature(t->net), spread.low, spread.high, tolerance);
        ref_spread_free(&spread);
    } else check_array(t, "curvature", rp_curvature(t->net), curvature, tolerance);
    free(gradient), free(curvature), free(out);
}

static void test_random_nets(void) {
    static const net_recipe recipes[] = {
        {3, 20, 10, 300, ANY},
        {12, 20, 10, 20, ANY},
        {3, 150, 150, 129, ANY},
        {5, 3, 2, 1, ANY},
        {12, 2, 1, 9, ANY},
        {3, 520, 30, 65, ANY},
    };
    for (int n = 0; n < 900; n++) {
        trial *t = trial_new((uint64_t)n, &recipes[n % 6], nth_rule(3, n / 6));
        compare(t);
        trial_free(t);
    }
}

/* One weight per layer, 3, -1, 0.5, one input, 2, identity: y is 6, -6, -3, u is 2, 8, 10, and with target 1 d is
   2, -2, -4, and v is 5, 5, 10. */
static void test_by_hand(void) {
    static const double w[] = {3, -1, 0.5}, gradient[] = {4, -12, 24}, curvature[] = {10, 30, 60};
    rp_real x = 2, target = 1, loss = 0;
    rp_data data = {&x, &target, NULL, NULL, 1, NULL, NULL};
    for (int n = 0; n < 12; n++) { /* with one path and one output all rules agree */
        rp_net *net = rp_net_new(rp_vector(1), NULL);
        rp_rule rule = nth_rule(3, n);
        double scale = rule.scale == RP_SCALE_FAN_IN ? sqrt(0.5) : 1;
        for (int l = 0; l < 3; l++) rp_dense(net, 1), rp_no_bias(net), rp_activation(net, RP_IDENTITY);
        rp_net_build(net, 1, 1);
        for (int l = 0; l < 3; l++) rp_parameters(net)[l] = (rp_real)w[l];
        CHECK(rp_backward(net, &data, &rule, &loss) == RP_OK && fabs((double)loss - 8) <= tolerance, "rule %d", n);
        for (int l = 0; l < 3; l++) {
            double g = (double)rp_gradient(net)[l], h = (double)rp_curvature(net)[l];
            CHECK(fabs(g - gradient[l]) <= 1e-6, "weight %d, rule %d: %g", l, n, g);
            CHECK(fabs(h - curvature[l]) <= 1e-5, "weight %d, rule %d, scale %g: %g", l, n, scale, h);
        }
        rp_net_free(net);
    }
}

/* Every entry of the gradient against central differences of the reference's loss. */
static void test_differences(void) {
    static const net_recipe recipe = {4, 6, 4, 5, SMOOTH};
    for (uint64_t seed = 1; seed <= 60; seed++) {
        trial *t = trial_new(seed, &recipe, rp_rule_default());
        ref_net *net = t->reference;
        const double step = 1e-5, allowed = tolerance > 1e-7 ? tolerance : 1e-7;
        double *expected = ref_new(net->parameters);
        for (int l = 0; l < net->layers; l++) {
            const ref_layer *layer = &net->layer[l];
            for (int p = layer->weights; layer->dense && p < layer->biases + layer->bias * layer->out; p++) {
                double w = net->w[p], above, below;
                net->w[p] = w + step, above = ref_batch(net, &t->exact, NULL, NULL, NULL);
                net->w[p] = w - step, below = ref_batch(net, &t->exact, NULL, NULL, NULL);
                net->w[p] = w;
                expected[p] = layer->frozen ? 0 : (above - below) / (2 * step);
            }
        }
        rp_backward(t->net, &t->data, NULL, NULL);
        check_array(t, "difference quotient", rp_gradient(t->net), expected, allowed);
        free(expected);
        trial_free(t);
    }
}

/* sum c^2 curvature of the library */
static double weighted_sum(const trial *t, const double *curvature) {
    double sum = 0, *c = ref_new(t->reference->parameters);
    ref_scales(t->reference, t->rule.scale, c);
    for (int p = 0; p < t->reference->parameters; p++)
        sum += c[p] * c[p] * (curvature ? curvature[p] : (double)rp_curvature(t->net)[p]);
    free(c);
    return sum;
}

/* Equation 44, and Theorem 2: the best partition gives the library's curvature, others give a larger sum. */
static void test_partitions(void) {
    static const net_recipe recipe = {5, 9, 5, 6, PIECEWISE_LINEAR};
    static const double mixes[] = {0.02, 0.3, 1, 1};
    for (int n = 0; n < 160; n++) {
        trial *t = trial_new((uint64_t)n, &recipe, nth_rule(1, n));
        double *curvature = ref_new(t->reference->parameters), sum;
        rp_backward(t->net, &t->data, &t->rule, NULL);
        sum = ref_exact_sum(t->reference, &t->exact, &t->rule);
        CHECK(fabs(weighted_sum(t, NULL) - sum) <= tolerance * sum, "%g instead of %g; %s", weighted_sum(t, NULL), sum,
              t->text);
        ref_partition(t->reference, &t->exact, &t->rule, 0, &t->random, curvature);
        check_array(t, "best partition", rp_curvature(t->net), curvature, tolerance);
        for (int m = 0; m < 4; m++) {
            ref_partition(t->reference, &t->exact, &t->rule, mixes[m], &t->random, curvature);
            double other = weighted_sum(t, curvature);
            CHECK(weighted_sum(t, NULL) <= other * (1 + tolerance), "%g, another partition gives %g; %s", sum, other,
                  t->text);
        }
        free(curvature);
        trial_free(t);
    }
}

/* Theorem 1: sum curvature w^2 is at least the second-order model along any step w; the Jacobian rule bounds its
   Gauss-Newton part, and reaches it for one sample and one output along the signs of the derivatives. */
static void check_bound(trial *t, const double *w, int reached) {
    double bound = 0, gauss_newton, activations, model;
    ref_quadratic(t->reference, &t->exact, w, &gauss_newton, &activations);
    model = gauss_newton + (t->rule.kind == RP_PATHS ? activations : 0);
    for (int p = 0; p < t->reference->parameters; p++) bound += (double)rp_curvature(t->net)[p] * w[p] * w[p];
    /* 1e-12: the softmax of one output has the second derivative p (1 - p) = 0, of which a fused multiply-add in the
       reference leaves the rounding. */
    CHECK(bound >= model - tolerance * fabs(model) - 1e-12, "%g is no bound for %g; %s", bound, model, t->text);
    CHECK(!reached || fabs(bound - model) <= tolerance * fabs(model), "%g should be %g; %s", bound, model, t->text);
}
static void test_bound(void) {
    static const net_recipe recipe = {4, 6, 4, 4, ANY};
    for (int n = 0; n < 160; n++) {
        trial *t = trial_new((uint64_t)n, &recipe, nth_rule(2, n));
        const ref_net *net = t->reference;
        int n_w = net->parameters;
        double *w = ref_new(n_w), *c = ref_new(n_w), *j = ref_new(n_w * net->outputs);
        int reached = t->rule.kind == RP_JACOBIAN && net->outputs == 1 && t->data.count == 1 && separable(t);
        ref_sample s;
        rp_backward(t->net, &t->data, &t->rule, NULL);
        for (int step = 0; step < 20; step++) {
            for (int p = 0; p < net->parameters; p++)
                w[p] = step % 2 && chance(&t->random, 0.8) ? 0 : test_normal(&t->random);
            check_bound(t, w, 0);
        }
        ref_scales(net, t->rule.scale, c);
        ref_forward(net, t->rule.scale, t->exact.inputs, &s);
        ref_jacobian(net, &s, j);
        for (int p = 0; p < net->parameters; p++)
            w[p] = j[p] < 0 ? -c[p] : c[p]; /* all move the first output upwards */
        check_bound(t, w, reached && net->loss != RP_HUBER);
        free(w), free(j), free(c);
        trial_free(t);
    }
}

/* Is the symmetric matrix a [n][n] positive semidefinite? By its Cholesky factor, which replaces it. */
static int positive_semidefinite(int n, double *a, double ridge) {
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++) {
            double sum = a[i * n + j] + (i == j ? ridge : 0);
            for (int k = 0; k < j; k++) sum -= a[i * n + k] * a[j * n + k];
            if (i == j && sum <= 0) return 0;
            a[i * n + j] = i == j ? sqrt(sum) : sum / a[j * n + j];
        }
    return 1;
}

/* a -= (1/S) sum_s J' H J, by polarisation of the loss's quadratic form */
static void subtract_gauss_newton(const trial *t, double *a) {
    const ref_net *net = t->reference;
    int n = net->parameters;
    double *j = ref_new(net->outputs * n), plus[REF_WIDTH], minus[REF_WIDTH];
    for (int b = 0; b < t->exact.count; b++) {
        ref_sample s;
        const double *target = t->exact.targets + b * net->outputs, *y = s.y[net->layers];
        ref_forward(net, RP_SCALE_ONE, t->exact.inputs + b * net->inputs, &s);
        ref_jacobian(net, &s, j);
        for (int p = 0; p < n; p++)
            for (int q = 0; q < n; q++) {
                for (int k = 0; k < net->outputs; k++)
                    plus[k] = j[k * n + p] + j[k * n + q], minus[k] = j[k * n + p] - j[k * n + q];
                a[p * n + q] -= t->exact.weights[b] / t->exact.count / 4 *
                                (ref_loss_quadratic(net, y, target, plus) - ref_loss_quadratic(net, y, target, minus));
            }
    }
    free(j);
}

/* The sampled rule: the mean over many draws is the expectation, and the expectation bounds the Gauss-Newton matrix. */
static void test_sampled_mean(void) {
    enum { DRAWS = 2000 };
    static const net_recipe recipe = {3, 3, 3, 3, ANY};
    for (int n = 0; n < 24; n++) {
        rp_rule rule = {RP_SAMPLED, RP_BOUND_TIGHT, n % 2 ? RP_SCALE_FAN_IN : RP_SCALE_ONE};
        trial *t = trial_new((uint64_t)n, &recipe, rule);
        int count = t->reference->parameters;
        double *mean = ref_new(count), *difference = ref_new(count * count), largest = 0;
        ref_spread spread = ref_batch_sampled(t->reference, &t->exact, t->rule.scale);
        for (int draw = 0; draw < DRAWS; draw++) {
            rp_backward(t->net, &t->data, &t->rule, NULL);
            for (int p = 0; p < count; p++) mean[p] += (double)rp_curvature(t->net)[p] / DRAWS;
        }
        for (int p = 0; p < count; p++) largest = fmax(largest, spread.mean[p]);
        for (int p = 0; p < count; p++) {
            double noise = sqrt(fmax(spread.variance[p], 0) / DRAWS);
            CHECK(fabs(mean[p] - spread.mean[p]) <= 5 * noise + tolerance * largest,
                  "parameter %d: mean %g, expected %g +- %g; %s", p, mean[p], spread.mean[p], noise, t->text);
            difference[p * count + p] = mean[p] + 3 * noise;
        }
        subtract_gauss_newton(t, difference);
        CHECK(positive_semidefinite(count, difference, tolerance * largest + 1e-300), "%s", t->text);
        free(mean), free(difference);
        ref_spread_free(&spread);
        trial_free(t);
    }
}

/* Any optimizer, with any of its fields. */
static rp_optimizer random_optimizer(trial *t) {
    static const rp_real decays[] = {0, (rp_real)0.95, 1};
    test_random *random = &t->random;
    rp_optimizer optimizer = rp_sgd((rp_real)0.01);
    switch ((rp_method)test_int(random, RP_PARTITIONING, RP_ADADELTA)) {
    case RP_PARTITIONING: optimizer = rp_partitioning_rate((rp_real)test_uniform(random, 0.1, 0.5)); break;
    case RP_SGD: break;
    case RP_ADAM: optimizer = rp_adam((rp_real)0.01); break;
    case RP_ADAGRAD: optimizer = rp_adagrad((rp_real)0.02); break;
    case RP_ADADELTA: optimizer = rp_adadelta(1); break;
    case RP_PER_VARIABLE: /* tests/test_curvature.c has these */
    case RP_NEWTON: break;
    }
    optimizer.rule = t->rule;
    optimizer.decay = decays[test_int(random, 0, 2)];
    optimizer.decay_steps = test_int(random, 0, 7);
    if (chance(random, 0.5)) optimizer.weight_decay = (rp_real)0.01;
    if (chance(random, 0.5)) optimizer.decoupled = 1;
    int partitioning = optimizer.method == RP_PARTITIONING, sgd = optimizer.method == RP_SGD;
    if ((partitioning || sgd) && chance(random, 0.5)) optimizer.momentum = (rp_real)0.9;
    if (sgd && optimizer.momentum > 0 && chance(random, 0.5)) optimizer.nesterov = 1;
    if (partitioning && chance(random, 0.5)) optimizer.curvature_average = (rp_real)0.9;
    if (partitioning && optimizer.momentum > 0) optimizer.damping = 1; /* against earlier gradients over no curvature */
    return optimizer;
}

/* Twenty steps, in one piece (rp_train), in two (rp_backward, rp_update) and in three, against the formulas. */
static void train(trial *t, const rp_optimizer *optimizer, const char *text) {
    enum { WAYS = 3 };
    ref_net *net = t->reference;
    int n = net->parameters;
    int rule_used = optimizer->method == RP_PARTITIONING;
    const rp_rule *rule = rule_used ? &optimizer->rule : NULL;
    rp_net *ways[WAYS];
    ref_state state = {ref_new(n), ref_new(n), 0};
    double *gradient = ref_new(n), *curvature = ref_new(n), *start = ref_new(n), *scales = ref_new(n);
    memcpy(start, net->w, sizeof *start * (size_t)n);
    ref_scales(net, RP_SCALE_ONE, scales);
    for (int w = 0; w < WAYS; w++) {
        ways[w] = library_net(net, t->batch, t->seed);
        for (int p = 0; p < n; p++) rp_parameters(ways[w])[p] = (rp_real)net->w[p];
    }
    for (int step = 0; step < 20; step++) {
        rp_real loss = -1;
        random_data(t, test_int(&t->random, 1, t->batch), random_target);
        double expected = ref_batch(net, &t->exact, rule, gradient, rule_used ? curvature : NULL);
        ref_update(net, optimizer, gradient, rule_used ? curvature : NULL, &state);
        rp_status status = rp_train(ways[0], optimizer, &t->data, &loss);
        CHECK(status == RP_OK, "%s; %s", rp_error(ways[0]), text);
        CHECK(fabs((double)loss - expected) <= tolerance * fmax(1, expected),
              "step %d: loss %g instead of %g; %s; %s", step, (double)loss, expected, text, t->text);
        for (int w = 1; w < WAYS; w++)
            CHECK(rp_backward(ways[w], &t->data, rule, NULL) == RP_OK, "%s; %s", rp_error(ways[w]), text);
        CHECK(rp_update(ways[1], optimizer) == RP_OK, "%s; %s", rp_error(ways[1]), text);
        CHECK(rp_direction(ways[2], optimizer) == RP_OK, "%s; %s", rp_error(ways[2]), text);
        CHECK(rp_move(ways[2], 1) == RP_OK, "%s; %s", rp_error(ways[2]), text);
    }
    for (int w = 0; w < WAYS; w++) {
        double error = 0, largest = 0, moved = 0;
        for (int p = 0; p < n; p++) {
            double now = (double)rp_parameters(ways[w])[p];
            error = larger(fabs(now - net->w[p]), error);
            largest = fmax(largest, fabs(net->w[p]));
            if (scales[p] <= 0) moved = larger(fabs(now - start[p]), moved);
        }
        CHECK(moved <= 0, "way %d moves a frozen parameter by %g; %s; %s", w, moved, text, t->text);
        CHECK(error <= tolerance * largest, "way %d is off by %g, largest %g; %s; %s", w, error, largest, text,
              t->text);
        rp_net_free(ways[w]);
    }
    free(state.a), free(state.b), free(gradient), free(curvature), free(start), free(scales);
}

static void test_optimizers(void) {
    static const net_recipe recipe = {4, 12, 5, 20, SMOOTH};
    for (int n = 0; n < 160; n++) {
        char text[300];
        trial *t = trial_new((uint64_t)n, &recipe, nth_rule(2, n));
        rp_optimizer o = random_optimizer(t);
        snprintf(text, sizeof text,
                 "method %d, rate %g, decay %g per %d, weight decay %g%s, momentum %g%s, average %g, damping %g",
                 (int)o.method, (double)o.rate, (double)o.decay, o.decay_steps, (double)o.weight_decay,
                 o.decoupled ? " decoupled" : "", (double)o.momentum, o.nesterov ? " Nesterov" : "",
                 (double)o.curvature_average, (double)o.damping);
        train(t, &o, text);
        trial_free(t);
    }
}

/* The caller's own loss, here each of the library's: the same gradient and curvature. */
static void test_own_loss(void) {
    static const net_recipe recipe = {4, 20, 5, 20, ANY};
    for (int n = 0; n < 120; n++) {
        rp_rule rule = nth_rule(3, n);
        rule.bound = RP_BOUND_TIGHT; /* a diagonal is all that a caller can give */
        trial *t = trial_new((uint64_t)n, &recipe, rule);
        const ref_net *net = t->reference;
        int outputs = net->outputs, total = t->data.count * outputs;
        rp_real *d = new_reals((size_t)total), *h2 = new_reals((size_t)total);
        double *gradient = ref_new(net->parameters), *curvature = ref_new(net->parameters);
        rp_backward(t->net, &t->data, &t->rule, NULL);
        for (int p = 0; p < net->parameters; p++)
            gradient[p] = (double)rp_gradient(t->net)[p], curvature[p] = (double)rp_curvature(t->net)[p];
        CHECK(rp_forward(t->net, t->inputs, t->data.count) == RP_OK, "%s; %s", rp_error(t->net), t->text);
        for (int b = 0; b < t->data.count; b++) {
            double y[REF_WIDTH] = {0}, slope[REF_WIDTH], second[REF_WIDTH];
            for (int i = 0; i < outputs; i++) y[i] = (double)rp_output(t->net)[b * outputs + i];
            ref_loss_gradient(net, y, t->exact.targets + b * outputs, slope);
            ref_loss_second(net, RP_BOUND_TIGHT, y, t->exact.targets + b * outputs, second);
            for (int i = 0; i < outputs; i++) {
                d[b * outputs + i] = (rp_real)(t->exact.weights[b] * slope[i]);
                h2[b * outputs + i] = (rp_real)(t->exact.weights[b] * second[i]);
            }
        }
        CHECK(rp_backward_from_rule(t->net, d, h2, &t->rule) == RP_OK, "%s; %s", rp_error(t->net), t->text);
        check_array(t, "gradient from outside", rp_gradient(t->net), gradient, tolerance);
        if (!has_draws(t)) check_array(t, "curvature from outside", rp_curvature(t->net), curvature, tolerance);
        rp_forward(t->net, t->inputs, t->data.count);
        CHECK(rp_backward_from(t->net, d, NULL) == RP_OK, "%s; %s", rp_error(t->net), t->text);
        check_array(t, "gradient from outside alone", rp_gradient(t->net), gradient, tolerance);
        free(d), free(h2), free(gradient), free(curvature);
        trial_free(t);
    }
}

/* The share of a sample's outputs that are right, as rp_score defines it; -1 where there is no such thing. */
static double right(const ref_net *net, const double *y, const double *target) {
    int n = net->outputs, best = 0, wanted = 0, sides = 0;
    for (int i = 0; i < n; i++) {
        if (y[i] > y[best]) best = i;
        if (target[i] > target[wanted]) wanted = i;
        sides += (y[i] > 0) == (target[i] > 0.5);
    }
    if (net->loss == RP_SOFTMAX_CROSS_ENTROPY) return best == wanted;
    return net->loss == RP_BINARY_CROSS_ENTROPY ? (double)sides / n : -1;
}

/* More samples than the net was built for: the same as one by one. */
static void test_predict_evaluate(void) {
    static const net_recipe recipe = {4, 40, 10, 40, ANY};
    for (int n = 0; n < 60; n++) {
        trial *t = trial_new((uint64_t)n, &recipe, rp_rule_default());
        const ref_net *net = t->reference;
        int batch = test_int(&t->random, 1, 9), outputs = net->outputs;
        rp_net *small = library_net(net, batch, t->seed);
        rp_workspace *workspace = rp_workspace_new(small, test_int(&t->random, 1, 9));
        rp_real *all = new_reals((size_t)(t->data.count * outputs)), *own = new_reals((size_t)(t->data.count * outputs));
        rp_score score;
        memcpy(rp_parameters(small), rp_parameters(t->net), rp_parameter_count(small) * sizeof(rp_real));
        CHECK(rp_predict(small, t->inputs, t->data.count, all) == RP_OK, "%s; %s", rp_error(small), t->text);
        CHECK(rp_predict_with(small, workspace, t->inputs, t->data.count, own) == RP_OK, "%s", t->text);
        CHECK(rp_evaluate(small, &t->data, &score) == RP_OK, "%s; %s", rp_error(small), t->text);
        double error = 0, largest = 0, good = 0, weights = 0;
        for (int b = 0; b < t->data.count; b++) {
            ref_sample s;
            const double *y = s.y[net->layers];
            ref_forward(net, RP_SCALE_ONE, t->exact.inputs + b * net->inputs, &s);
            good += t->exact.weights[b] * right(net, y, t->exact.targets + b * outputs);
            weights += t->exact.weights[b];
            for (int i = 0; i < outputs; i++) {
                error = larger(fabs((double)all[b * outputs + i] - y[i]), error);
                error = larger(fabs((double)own[b * outputs + i] - y[i]), error);
                largest = fmax(largest, fabs(y[i]));
            }
        }
        CHECK(error <= tolerance * largest, "outputs are off by %g, largest %g; %s", error, largest, t->text);
        check_loss(t, score.loss, ref_batch(net, &t->exact, NULL, NULL, NULL));
        CHECK(score.count == t->data.count, "%d; %s", (int)score.count, t->text);
        if (weights > 0)
            CHECK(fabs((double)score.accuracy - good / weights) <= 1e-6, "accuracy %g instead of %g; %s",
                  (double)score.accuracy, good / weights, t->text);
        rp_workspace_free(workspace), rp_net_free(small);
        free(all), free(own);
        trial_free(t);
    }
}

int main(void) {
    test_by_hand();
    test_random_nets();
    test_differences();
    test_partitions();
    test_bound();
    test_sampled_mean();
    test_optimizers();
    test_own_loss();
    test_predict_evaluate();
    return test_end();
}
