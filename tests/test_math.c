/* The library against a naive float64 version of the same mathematics, over some hundreds of random nets, dense stacks
   and nets that mix all kinds of layers, and against the facts that the papers prove. For single precision as it is,
   for double with -DRP_DOUBLE. */
#include "../rp.h"
#include "reference_curvature.h"
#include "trials.h"

/* Largest error allowed, relative to the largest entry of the layer's array. In single precision an error of one
   rounding, 6e-8, grows along up to a dozen layers, and where terms of opposite sign cancel: p - t, or sigma' v with
   sigma'' d u. Over 5000 nets the worst was 2e-4, and 999 of 1000 arrays stayed below 2e-5 (double: 2e-13, 2e-14). */
#ifdef RP_DOUBLE
static const double tolerance = 1e-10, kink = 1e-9;
#else
static const double tolerance = 5e-4, kink = 3e-6;
#endif

/* Of curvatures, whose magnitudes are numbers in bfloat16 where RP_ISA is amx: each up to 2^-8 off. */
static double tolerance_of_curvature(const trial *t) { return strcmp(rp_isa(t->net), "amx") ? tolerance : 5e-3; }

typedef void (*trial_test)(trial *t);
static void run_trial(trial_test test, int seed, const net_recipe *recipe, rp_rule rule, double margin) {
    trial *t = trial_new((uint64_t)seed, recipe, rule, margin);
    test(t);
    trial_free(t);
}
/* So many trials, of the first kinds of rules in turn. */
static void for_trials(trial_test test, int count, net_recipe recipe, int kinds, double margin) {
    for (int n = 0; n < count; n++) run_trial(test, n, &recipe, nth_rule(kinds, n), margin);
}
/* The same of nets that begin with images, sequences and vectors. */
static void for_all_layers(trial_test test, int count, net_recipe recipe, int kinds, double margin) {
    static const net_kind nets[] = {IMAGE, SEQUENCE, VECTOR};
    for (int n = 0; n < 3; n++) {
        recipe.kind = nets[n];
        for_trials(test, count / 3, recipe, kinds, margin);
    }
}

static int separable(const trial *t) { return t->reference->loss.kind != RP_SOFTMAX_CROSS_ENTROPY; }
static int has_draws(const trial *t) { /* does the curvature depend on random numbers? */
    return t->rule.kind == RP_SAMPLED && (t->reference->loss.outputs > 1 || !separable(t));
}
static void check_done(const trial *t, const rp_net *net, rp_status status) {
    CHECK(status == RP_OK, "%d: '%s'; %s", (int)status, rp_error(net), t->text);
}
static void check_loss(const trial *t, rp_real got, double expected) {
    CHECK(fabs((double)got - expected) <= tolerance * fmax(1, fabs(expected)), "%.12g instead of %.12g; %s",
          (double)got, expected, t->text);
}

/* Outputs of the first `count` samples. */
static void check_outputs(const trial *t, const char *what, const rp_real *out, int count) {
    int outputs = t->reference->loss.outputs;
    double error = 0, largest = 0;
    for (int b = 0; b < count; b++) {
        ref_forward_sample(t->reference, RP_SCALE_ONE, &t->exact, b);
        const double *y = ref_output(t->reference);
        for (int i = 0; i < outputs; i++) {
            error = larger(fabs((double)out[b * outputs + i] - y[i]), error);
            largest = fmax(largest, fabs(y[i]));
        }
    }
    CHECK(error <= tolerance * largest, "%s is off by %g, largest %g; %s", what, error, largest, t->text);
}

/* What the library says of the layers. */
static void check_layers(const trial *t) {
    static const char *const names[] = {"dense",      NULL,        "conv2d",    "max_pool2d",
                                        "avg_pool2d", "recurrent", "recursive", "add"};
    CHECK(rp_layer_count(t->net) == t->reference->layers, "%d; %s", rp_layer_count(t->net), t->text);
    for (int l = 0; l < t->reference->layers; l++) {
        const ref_layer *layer = &t->reference->layer[l];
        const char *name = names[layer->kind];
        size_t weights = (size_t)(layer->fan_in * layer->rows), biases = (size_t)(layer->bias * layer->rows);
        rp_layer info;
        check_done(t, t->net, rp_layer_info(t->net, l, &info));
        CHECK(!name || !strcmp(name, info.kind), "layer %d is %s; %s", l, info.kind, t->text);
        CHECK(same_shape(info.in, layer->in) && same_shape(info.out, layer->out), "layer %d; %s", l, t->text);
        CHECK(info.weight_count == weights && info.bias_count == biases, "layer %d; %s", l, t->text);
        CHECK(!layer->rows || (info.weights == (size_t)layer->weights && info.biases == (size_t)layer->biases),
              "layer %d; %s", l, t->text);
        CHECK(info.frozen == (layer->rows && layer->frozen), "layer %d; %s", l, t->text);
    }
}

/* One net: outputs, loss, gradient, curvature. */
static void compare(trial *t) {
    int n = t->reference->parameters, sampled = t->rule.kind == RP_SAMPLED;
    double *gradient = ref_new(n), *curvature = ref_new(n);
    const rp_rule *rule = sampled ? NULL : &t->rule;
    double expected = ref_batch(t->reference, &t->exact, rule, gradient, sampled ? NULL : curvature);
    rp_real *out = new_reals((size_t)(t->data.count * t->reference->loss.outputs)), loss = -1;

    check_layers(t);
    check_done(t, t->net, rp_predict(t->net, t->inputs, t->data.count, out));
    check_outputs(t, "rp_predict", out, t->data.count);
    check_done(t, t->net, rp_backward(t->net, &t->data, NULL, &loss));
    check_loss(t, loss, expected);
    check_array(t, "gradient alone", rp_gradient(t->net), gradient, tolerance);
    check_done(t, t->net, rp_backward(t->net, &t->data, &t->rule, &loss));
    check_loss(t, loss, expected);
    check_array(t, "gradient", rp_gradient(t->net), gradient, tolerance);
    if (sampled) {
        ref_spread spread = ref_batch_sampled(t->reference, &t->exact, t->rule.scale);
        check_between(t, "sampled curvature", rp_curvature(t->net), spread.low, spread.high, tolerance_of_curvature(t),
                      0);
    } else check_array(t, "curvature", rp_curvature(t->net), curvature, tolerance_of_curvature(t));
}

static void test_random_nets(void) {
    static const net_recipe stacks[] = {{STACK, 3, 20, 10, 300, ANY},   {STACK, 12, 20, 10, 20, ANY},
                                        {STACK, 3, 150, 150, 129, ANY}, {STACK, 5, 3, 2, 1, ANY},
                                        {STACK, 12, 2, 1, 9, ANY},      {STACK, 3, 520, 30, 65, ANY}};
    static const net_recipe others[] = {{IMAGE, 5, 6, 12, 70, ANY},    {SEQUENCE, 4, 8, 12, 70, ANY},
                                        {VECTOR, 7, 7, 12, 70, ANY},   {IMAGE, 9, 4, 6, 20, ANY},
                                        {SEQUENCE, 8, 4, 6, 20, ANY},  {IMAGE, 2, 14, 6, 5, ANY},
                                        {SEQUENCE, 2, 20, 12, 5, ANY}, {IMAGE, 3, 10, 150, 1, ANY}};
    for (int n = 0; n < 450; n++) run_trial(compare, n, &stacks[n % 6], nth_rule(RULE_KINDS, n / 6), kink);
    for (int n = 0; n < 300; n++) run_trial(compare, n, &others[n % 8], nth_rule(RULE_KINDS, n / 8), kink);
}

/* One sample is worked on in other ways than a batch. */
static void test_few_samples(void) {
    static const net_recipe recipes[] = {
        {IMAGE, 5, 9, 12, 3, ANY},     {IMAGE, 2, 18, 12, 2, ANY}, {IMAGE, 8, 5, 6, 17, ANY},
        {SEQUENCE, 5, 9, 40, 3, ANY},  {STACK, 4, 90, 40, 9, ANY}, {VECTOR, 7, 9, 12, 2, ANY},
        {SEQUENCE, 3, 20, 12, 1, ANY}, {IMAGE, 1, 30, 40, 1, ANY},
        {STACK, 2, 2300, 5, 17, ANY},
    };
    for (int n = 0; n < 900; n++) run_trial(compare, n, &recipes[n % 9], nth_rule(RULE_KINDS, n / 9), kink);
}

/* One weight per layer, 3, -1, 0.5, one input, 2, identity: y is 6, -6, -3, u is 2, 8, 10, and with target 1 d is
   2, -2, -4, and v is 5, 5, 10. */
static void test_by_hand(void) {
    static const double w[] = {3, -1, 0.5}, gradient[] = {4, -12, 24}, curvature[] = {10, 30, 60};
    rp_real x = 2, target = 1, loss = 0;
    rp_data data = rp_targeted(&x, &target, 1);
    for (int n = 0; n < 4 * RULE_KINDS; n++) { /* with one path and one output all rules agree */
        rp_net *net = rp_net_new(rp_vector(1), NULL);
        rp_rule rule = nth_rule(RULE_KINDS, n);
        for (int l = 0; l < 3; l++) {
            rp_dense(net, 1);
            rp_no_bias(net, rp_layer_count(net) - 1);
            rp_activation(net, RP_IDENTITY);
        }
        rp_net_build(net, 1, 1);
        for (int l = 0; l < 3; l++) rp_parameters(net)[l] = (rp_real)w[l];
        CHECK(rp_backward(net, &data, &rule, &loss) == RP_OK && fabs((double)loss - 8) <= tolerance, "rule %d", n);
        for (int l = 0; l < 3; l++) {
            double g = (double)rp_gradient(net)[l], h = (double)rp_curvature(net)[l];
            CHECK(fabs(g - gradient[l]) <= 1e-6, "weight %d, rule %d: %g", l, n, g);
            CHECK(fabs(h - curvature[l]) <= 1e-5, "weight %d, rule %d: %g", l, n, h);
        }
        rp_net_free(net);
    }
}

/* Every entry of the gradient against central differences of the reference's loss, quotients of numbers that are
   rounded in the 16th digit. */
static void check_differences(trial *t, double allowed, double floor) {
    ref_net *net = t->reference;
    const double step = 1e-5;
    double *expected = ref_new(net->parameters), *c = ref_scales(net, RP_SCALE_ONE);
    for (int p = 0; p < net->parameters; p++) {
        double w = net->w[p];
        net->w[p] = w + step;
        double above = ref_batch(net, &t->exact, NULL, NULL, NULL);
        net->w[p] = w - step;
        double below = ref_batch(net, &t->exact, NULL, NULL, NULL);
        net->w[p] = w;
        expected[p] = c[p] * (above - below) / (2 * step);
    }
    check_done(t, t->net, rp_backward(t->net, &t->data, NULL, NULL));
    check_between(t, "difference quotient", rp_gradient(t->net), expected, expected, allowed, floor);
}
static void check_stack_differences(trial *t) { check_differences(t, fmax(tolerance, 1e-7), 0); }
static void check_layer_differences(trial *t) { /* floor: where all cancels, what rounding leaves */
    check_differences(t, fmax(tolerance, 1e-6), sizeof(rp_real) == sizeof(double) ? 1e-9 : 3e-8);
}
static void test_differences(void) {
    for_trials(check_stack_differences, 60, (net_recipe){STACK, 4, 6, 4, 5, SMOOTH}, 1, kink);
    for_all_layers(check_layer_differences, 60, (net_recipe){VECTOR, 5, 4, 4, 3, SMOOTH}, 1, 1e-3);
}

/* Equation 44, and Theorem 2: sum c^2 curvature is sum v u at the outputs, the best partition gives the library's
   curvature, others give a larger sum. All hold exactly with every layer that is linear for the sample at hand (max
   pools and ReLUs too, which route), with shared weights, and with frozen layers. */
static void check_partitions(trial *t) {
    static const double mixes[] = {0.02, 0.3, 1, 1};
    int n = t->reference->parameters;
    double *c = ref_scales(t->reference, t->rule.scale), sum = 0;
    check_done(t, t->net, rp_backward(t->net, &t->data, &t->rule, NULL));
    for (int p = 0; p < n; p++) sum += c[p] * c[p] * (double)rp_curvature(t->net)[p];
    double expected = ref_exact_sum(t->reference, &t->exact, &t->rule);
    CHECK(fabs(sum - expected) <= tolerance_of_curvature(t) * expected, "%g instead of %g; %s", sum, expected, t->text);
    const double *best = ref_partition(t->reference, &t->exact, &t->rule, 0, &t->random);
    check_array(t, "best partition", rp_curvature(t->net), best, tolerance_of_curvature(t));
    for (int m = 0; m < 4; m++) {
        const double *curvature = ref_partition(t->reference, &t->exact, &t->rule, mixes[m], &t->random);
        double other = 0;
        for (int p = 0; p < n; p++) other += c[p] * c[p] * curvature[p];
        CHECK(sum <= other * (1 + tolerance), "%g, another partition gives %g; %s", sum, other, t->text);
    }
}
static void test_partitions(void) {
    for_trials(check_partitions, 160, (net_recipe){STACK, 5, 9, 5, 6, PIECEWISE_LINEAR}, 1, kink);
    for_all_layers(check_partitions, 150, (net_recipe){VECTOR, 8, 5, 5, 9, PIECEWISE_LINEAR}, 1, kink);
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
static void check_bounds(trial *t) {
    ref_net *net = t->reference;
    int n = net->parameters, single = net->loss.outputs == 1 && t->data.count == 1;
    int reached = t->rule.kind == RP_JACOBIAN && single && separable(t) && net->loss.kind != RP_HUBER;
    double *w = ref_new(n), *c = ref_scales(net, t->rule.scale);
    check_done(t, t->net, rp_backward(t->net, &t->data, &t->rule, NULL));
    for (int step = 0; step < 20; step++) {
        for (int p = 0; p < n; p++) w[p] = step % 2 && chance(&t->random, 0.8) ? 0 : test_normal(&t->random);
        check_bound(t, w, 0);
    }
    ref_forward_sample(net, RP_SCALE_ONE, &t->exact, 0);
    const double *j = ref_jacobian(net);
    for (int p = 0; p < n; p++) w[p] = j[p] < 0 ? -1 : 1; /* all move the first output upwards */
    check_bound(t, w, 0);
    for (int p = 0; p < n; p++) w[p] *= c[p]; /* and by the sizes that they are assumed to have */
    check_bound(t, w, reached);
}
static void test_bound(void) {
    for_trials(check_bounds, 160, (net_recipe){STACK, 4, 6, 4, 4, ANY}, 2, kink);
    for_all_layers(check_bounds, 120, (net_recipe){VECTOR, 6, 4, 4, 4, ANY}, 2, kink);
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

/* The sampled rule: the mean over many draws is the expectation, and the expectation bounds the Gauss-Newton matrix. */
static void check_sampled_mean(trial *t) {
    enum { DRAWS = 2000 };
    int n = t->reference->parameters;
    double *mean = ref_new(n), *difference = ref_gauss_newton(t->reference, &t->exact), largest = 0;
    ref_spread spread = ref_batch_sampled(t->reference, &t->exact, t->rule.scale);
    for (int draw = 0; draw < DRAWS; draw++) {
        rp_backward(t->net, &t->data, &t->rule, NULL);
        for (int p = 0; p < n; p++) mean[p] += (double)rp_curvature(t->net)[p] / DRAWS;
    }
    for (int p = 0; p < n; p++) largest = fmax(largest, spread.mean[p]);
    for (int i = 0; i < n * n; i++) difference[i] *= -1;
    for (int p = 0; p < n; p++) {
        double noise = sqrt(fmax(spread.variance[p], 0) / DRAWS);
        CHECK(fabs(mean[p] - spread.mean[p]) <= 5 * noise + tolerance * largest,
              "parameter %d: mean %g, expected %g +- %g; %s", p, mean[p], spread.mean[p], noise, t->text);
        difference[p * n + p] += mean[p] + 3 * noise;
    }
    CHECK(positive_semidefinite(n, difference, tolerance * largest + 1e-300), "%s", t->text);
}
static void test_sampled_mean(void) {
    static const net_recipe recipe = {STACK, 3, 3, 3, 3, ANY};
    for (int n = 0; n < 24; n++) {
        rp_rule rule = rule_of(RP_SAMPLED, RP_BOUND_TIGHT, n % 2 ? RP_SCALE_FAN_IN : RP_SCALE_ONE);
        trial *t = trial_new((uint64_t)n, &recipe, rule, kink);
        check_sampled_mean(t);
        trial_free(t);
    }
}

/* Any optimizer that a reference needs no second derivatives for, with any of its fields. */
static rp_optimizer random_optimizer(trial *t) {
    static const rp_real decays[] = {0, (rp_real)0.95, 1};
    test_random *random = &t->random;
    rp_optimizer all[] = {rp_sgd((rp_real)0.01), rp_adam((rp_real)0.01), rp_adagrad((rp_real)0.02), rp_adadelta(1),
                          rp_algorithm_1((rp_real)test_uniform(random, 0.1, 0.5))};
    rp_optimizer optimizer = all[test_int(random, 0, 4)];
    int partitioning = optimizer.method == RP_PARTITIONING, sgd = optimizer.method == RP_SGD;
    if (partitioning) optimizer.rule = t->rule;
    optimizer.rate_decay = decays[test_int(random, 0, 2)];
    optimizer.rate_decay_steps = test_int(random, 0, 7);
    if (chance(random, 0.5)) optimizer.weight_decay = (rp_real)0.01;
    if (chance(random, 0.5)) optimizer.decoupled = 1;
    if ((partitioning || sgd) && chance(random, 0.5)) optimizer.momentum = (rp_real)0.9;
    if (sgd && optimizer.momentum > 0 && chance(random, 0.5)) optimizer.nesterov = 1;
    if (partitioning && chance(random, 0.5)) optimizer.curvature_average = (rp_real)0.9;
    if (partitioning && optimizer.momentum > 0) optimizer.damping = 1; /* against earlier gradients over no curvature */
    return optimizer;
}
static void note_optimizer(trial *t, const rp_optimizer *o) {
    note(t, "; method %d, rate %g, decay %g per %d, ", (int)o->method, (double)o->rate, (double)o->rate_decay,
         o->rate_decay_steps);
    note(t, "weight decay %g%s, momentum %g%s, average %g, damping %g", (double)o->weight_decay,
         o->decoupled ? " decoupled" : "", (double)o->momentum, o->nesterov ? " Nesterov" : "",
         (double)o->curvature_average, (double)o->damping);
}

/* Twenty steps, in one piece (rp_train), in two (rp_backward, rp_update) and in three, against the formulas. */
enum { WAYS = 3 };
static void step_in_ways(trial *t, rp_net *ways[WAYS], const rp_optimizer *o, double expected) {
    const rp_rule *rule = o->method == RP_PARTITIONING ? &o->rule : NULL;
    rp_real loss = -1;
    check_done(t, ways[0], rp_train(ways[0], o, &t->data, &loss));
    check_loss(t, loss, expected);
    for (int w = 1; w < WAYS; w++) check_done(t, ways[w], rp_backward(ways[w], &t->data, rule, NULL));
    check_done(t, ways[1], rp_update(ways[1], o));
    check_done(t, ways[2], rp_direction(ways[2], o));
    check_done(t, ways[2], rp_move(ways[2], 1));
}
static void check_training(trial *t) {
    static const char *const names[WAYS] = {"rp_train", "rp_update", "rp_move"};
    ref_net *net = t->reference;
    int n = net->parameters;
    rp_optimizer o = random_optimizer(t);
    const rp_rule *rule = o.method == RP_PARTITIONING ? &o.rule : NULL;
    rp_net *ways[WAYS];
    ref_state state = {ref_new(n), ref_new(n), 0};
    double *gradient = ref_new(n), *curvature = rule ? ref_new(n) : NULL, *scales = ref_scales(net, RP_SCALE_ONE);
    rp_real *start = new_reals((size_t)n);
    note_optimizer(t, &o);
    memcpy(start, rp_parameters(t->net), (size_t)n * sizeof *start);
    for (int w = 0; w < WAYS; w++) {
        ways[w] = library_net(net, t->batch, t->seed, NULL);
        memcpy(rp_parameters(ways[w]), start, (size_t)n * sizeof *start);
    }
    for (int step = 0; step < 20; step++) {
        random_data(t, test_int(&t->random, 1, t->batch));
        double expected = ref_batch(net, &t->exact, rule, gradient, curvature);
        ref_update(net, &o, gradient, curvature, &state);
        step_in_ways(t, ways, &o, expected);
    }
    for (int w = 0; w < WAYS; w++) {
        int moved = 0;
        for (int p = 0; p < n; p++) moved += scales[p] <= 0 && rp_parameters(ways[w])[p] != start[p];
        CHECK(!moved, "%s moves %d frozen parameters; %s", names[w], moved, t->text);
        check_array(t, names[w], rp_parameters(ways[w]), net->w, tolerance);
        rp_net_free(ways[w]);
    }
}
static void test_optimizers(void) {
    for_trials(check_training, 160, (net_recipe){STACK, 4, 12, 5, 20, SMOOTH}, 2, kink);
    for_all_layers(check_training, 45, (net_recipe){VECTOR, 5, 5, 4, 8, SMOOTH}, 2, kink);
}

/* The caller's own loss, here each of the library's: the same gradient and curvature. A diagonal is all that a caller
   can give, so the bound is the tight one. */
static void check_own_loss(trial *t) {
    const ref_objective *loss = &t->reference->loss;
    int outputs = loss->outputs, n = t->reference->parameters;
    rp_real *d = new_reals((size_t)(t->data.count * outputs)), *h2 = new_reals((size_t)(t->data.count * outputs));
    double *gradient = ref_new(n), *curvature = ref_new(n), y[REF_WIDTH] = {0}, slope[REF_WIDTH], second[REF_WIDTH];
    t->rule.bound = RP_BOUND_TIGHT;
    check_done(t, t->net, rp_backward(t->net, &t->data, &t->rule, NULL));
    for (int p = 0; p < n; p++) {
        gradient[p] = (double)rp_gradient(t->net)[p];
        curvature[p] = (double)rp_curvature(t->net)[p];
    }
    check_done(t, t->net, rp_forward(t->net, t->inputs, t->data.count));
    for (int b = 0; b < t->data.count; b++) {
        const double *targets = ref_targets(t->reference, &t->exact, b);
        for (int i = 0; i < outputs; i++) y[i] = (double)rp_output(t->net)[b * outputs + i];
        ref_loss_gradient(loss, y, targets, slope);
        ref_loss_second(loss, RP_BOUND_TIGHT, y, targets, second);
        for (int i = 0; i < outputs; i++) {
            d[b * outputs + i] = (rp_real)(t->exact.weights[b] * slope[i]);
            h2[b * outputs + i] = (rp_real)(t->exact.weights[b] * second[i]);
        }
    }
    check_done(t, t->net, rp_backward_from(t->net, d, h2, &t->rule));
    check_array(t, "gradient from outside", rp_gradient(t->net), gradient, tolerance);
    if (!has_draws(t))
        check_array(t, "curvature from outside", rp_curvature(t->net), curvature, tolerance_of_curvature(t));
    rp_forward(t->net, t->inputs, t->data.count);
    check_done(t, t->net, rp_backward_from(t->net, d, NULL, NULL));
    check_array(t, "gradient from outside alone", rp_gradient(t->net), gradient, tolerance);
}
static void test_own_loss(void) {
    for_trials(check_own_loss, 120, (net_recipe){STACK, 4, 20, 5, 20, ANY}, RULE_KINDS, kink);
    for_all_layers(check_own_loss, 36, (net_recipe){VECTOR, 6, 6, 6, 20, ANY}, RULE_KINDS, kink);
}

/* The share of a sample's outputs that are right, as rp_score defines it; -1 where there is no such thing. */
static double right(const ref_objective *loss, const double *y, const double *target) {
    int n = loss->outputs, best = 0, wanted = 0, sides = 0;
    for (int i = 0; i < n; i++) {
        if (y[i] > y[best]) best = i;
        if (target[i] > target[wanted]) wanted = i;
        sides += (y[i] > 0) == (target[i] > 0.5);
    }
    if (loss->kind == RP_SOFTMAX_CROSS_ENTROPY) return best == wanted;
    return loss->kind == RP_BINARY_CROSS_ENTROPY ? (double)sides / n : -1;
}
static double accuracy_of(const trial *t) { /* -2: there is none, as all weights are 0 */
    double good = 0, weights = 0;
    for (int b = 0; b < t->exact.count; b++) {
        const double *targets = ref_targets(t->reference, &t->exact, b);
        ref_forward_sample(t->reference, RP_SCALE_ONE, &t->exact, b);
        good += t->exact.weights[b] * right(&t->reference->loss, ref_output(t->reference), targets);
        weights += t->exact.weights[b];
    }
    return weights > 0 ? good / weights : -2;
}

/* More samples than a net or a workspace is for: the same as from all at once, with memory for training and without. */
static void check_scores(const trial *t, rp_net *net) {
    rp_score score;
    double accuracy = accuracy_of(t);
    check_done(t, net, rp_evaluate(net, &t->data, &score, NULL));
    check_loss(t, score.loss, ref_batch(t->reference, &t->exact, NULL, NULL, NULL));
    CHECK(score.count == t->data.count, "%d; %s", (int)score.count, t->text);
    CHECK(accuracy < -1 || fabs((double)score.accuracy - accuracy) <= 1e-6, "accuracy %g instead of %g; %s",
          (double)score.accuracy, accuracy, t->text);
}
static void check_workspace(trial *t, const rp_net *net, rp_real *out) {
    rp_workspace *workspace = rp_workspace_new(net, test_int(&t->random, 1, 9));
    check_done(t, net, rp_predict_with(net, workspace, t->inputs, t->data.count, out));
    check_outputs(t, "rp_predict_with", out, t->data.count);
    rp_workspace_free(workspace);
}
static void check_prediction(trial *t) {
    int count = t->data.count;
    rp_config inference = inference_config();
    rp_real *out = new_reals((size_t)(count * t->reference->loss.outputs));
    for (int lean = 0; lean < 2; lean++) {
        rp_net *small = library_net(t->reference, test_int(&t->random, 1, 9), t->seed, lean ? &inference : NULL);
        memcpy(rp_parameters(small), rp_parameters(t->net), rp_parameter_count(small) * sizeof(rp_real));
        check_done(t, small, rp_predict(small, t->inputs, count, out));
        check_outputs(t, lean ? "a net for inference" : "a small net", out, count);
        check_workspace(t, small, out);
        check_scores(t, small);
        if (lean) CHECK(rp_backward(small, &t->data, NULL, NULL) == RP_ERR_UNSUPPORTED, "%s", t->text);
        rp_net_free(small);
    }
    check_workspace(t, t->net, out);
    check_done(t, t->net, rp_predict(t->net, t->inputs, 1, out));
    check_outputs(t, "a single sample", out, 1);
    check_scores(t, t->net);
    check_done(t, t->net, rp_forward(t->net, t->inputs, count));
    check_outputs(t, "rp_output", rp_output(t->net), count);
}
static void test_prediction(void) {
    for_trials(check_prediction, 60, (net_recipe){STACK, 4, 40, 10, 40, ANY}, 1, kink);
    for_all_layers(check_prediction, 90, (net_recipe){VECTOR, 6, 6, 6, 30, ANY}, 1, kink);
}

int main(void) {
    test_by_hand();
    test_random_nets();
    test_few_samples();
    test_differences();
    test_partitions();
    test_bound();
    test_sampled_mean();
    test_optimizers();
    test_own_loss();
    test_prediction();
    return test_end();
}
