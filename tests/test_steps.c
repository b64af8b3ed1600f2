/* Steps whose length is computed: the cubic model, sigma that adapts, per-variable rates, Newton's method; what is
   known of them at saddles and on plateaus. For single precision as it is, for double with -DRP_DOUBLE. */
#include "../rp.h"
#include "curvature.h"
#include "heap.h"

/* Lengths. */

/* alpha a + alpha^2 b / 2 + sigma (alpha n)^3 / 6, and the size of its terms */
static double cubic_model(double alpha, double a, double b, double n, double sigma, double *size) {
    double first = alpha * a, second = alpha * alpha * b / 2, third = sigma * pow(alpha * n, 3) / 6;
    *size = fabs(first) + fabs(second) + fabs(third);
    return first + second + third;
}

/* Nothing on a wide and on a narrow grid is lower. 1e-14: what rounding leaves of the model's terms. */
static void check_minimum(double a, double b, double n, double sigma) {
    double alpha = rp_cubic_length(a, b, n, sigma), size, other, least = cubic_model(alpha, a, b, n, sigma, &size);
    CHECK(alpha > 0 && least < 0, "%g at %g for %g %g %g %g", least, alpha, a, b, n, sigma);
    for (int i = -60; i <= 60; i++) {
        double wide = alpha * pow(10, i / 4.0), near = alpha * (1 + i * 1e-3), size_there;
        other = cubic_model(wide, a, b, n, sigma, &size_there);
        CHECK(least <= other + 1e-14 * (size + size_there), "%.17g at %g, %.17g at %g for %g %g %g %g", least, alpha,
              other, wide, a, b, n, sigma);
        other = cubic_model(near, a, b, n, sigma, &size_there);
        CHECK(least <= other + 1e-14 * (size + size_there), "%.17g at %g, %.17g at %g for %g %g %g %g", least, alpha,
              other, near, a, b, n, sigma);
    }
}

static void test_cubic_minima(void) {
    static const double a[] = {-1e-6, -0.3, -40}, b[] = {-50, -1, -1e-5, 0, 1e-5, 1, 50}, n[] = {0.01, 1, 30},
                        sigma[] = {1e-4, 1, 100};
    for (int i = 0; i < 3 * 7 * 3 * 3; i++) check_minimum(a[i % 3], b[i / 3 % 7], n[i / 21 % 3], sigma[i / 63]);
}

/* Against extended range and precision: nothing cancels, nothing overflows on the way. 1e-14: some dozen roundings. */
static void test_cubic_extremes(void) {
    static const double a[] = {-1e-100, -1e-30, -1e-12, -1e-3, -1, -1e6, -1e12},
                        b[] = {-1e12, -1, -1e-9, -1e-30, 0, 1e-30, 1e-9, 1, 1e12},
                        n[] = {1e-150, 1e-75, 1e-20, 1e-3, 1, 1e3, 1e20, 1e75, 1e150},
                        sigma[] = {1e-12, 1e-3, 1, 1e3, 1e12};
    int compared = 0;
    for (int i = 0; i < 7 * 9 * 9 * 5; i++) {
        double first = a[i % 7], second = b[i / 7 % 9], norm = n[i / 63 % 9], weight = sigma[i / 567];
        double alpha = rp_cubic_length(first, second, norm, weight);
        CHECK(alpha >= 0 && alpha <= DBL_MAX, "%g for %g %g %g %g", alpha, first, second, norm, weight);
#if LDBL_MAX_EXP > 4 * DBL_MAX_EXP
        long double expected = ref_cubic_length(first, second, norm, weight);
        if (expected > DBL_MAX || expected < 1e-290L) continue;
        compared++;
        CHECK(fabsl(alpha - expected) <= 1e-14L * expected, "%.17g, not %.17Lg for %g %g %g %g", alpha, expected, first,
              second, norm, weight);
#endif
    }
    CHECK(compared > 2000 || LDBL_MAX_EXP <= 4 * DBL_MAX_EXP, "%d lengths were compared", compared);
}

static void test_cubic_limits(void) {
    const double bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = -12; i <= 12; i += 3) { /* without the cubic term a Newton step, -a / b; without the others, none */
        double b = pow(10, i), newton = rp_cubic_length(-3, b, 2, 1e-40), square = rp_cubic_length(-3, b, 2, 0);
        CHECK(fabs(newton - 3 / b) <= 1e-12 * newton, "%g, not %g", newton, 3 / b);
        CHECK(fabs(square - 3 / b) <= 1e-15 * 3 / b, "%g, not %g", square, 3 / b);
        CHECK(fabs(rp_cubic_length(-3, b, 0, 1) * b - 3) <= 1e-14, "%g", rp_cubic_length(-3, b, 0, 1));
        CHECK(fabs(rp_cubic_length(-1e-200, b, 1, 1) * b - 1e-200) <= 1e-212, "a -> 0: %g",
              rp_cubic_length(-1e-200, b, 1, 1));
        CHECK(fabs(rp_cubic_length(-1e-200, -b, 1, 1) - 2 * b) <= 1e-12 * b, "a -> 0, b < 0: %g",
              rp_cubic_length(-1e-200, -b, 1, 1));
        CHECK(rp_cubic_length(0, b, 1, 1) == 0 && rp_cubic_length(0, -b, 1, 1) == 0, "a = 0");
        CHECK(rp_cubic_length(b, b, 1, 1) == 0 && rp_cubic_length(b, -b, 1, 1) == 0, "a > 0");
        CHECK(rp_cubic_length(-1, -b, 1, 0) == 0 && rp_cubic_length(-1, -b, 0, 1) == 0, "no minimum for b = %g", -b);
    }
    CHECK(rp_cubic_length(-1, 0, 1, 0) == 0 && rp_cubic_length(-1, 0, 0, 1) == 0, "no minimum for b = 0");
    CHECK(rp_cubic_length(-1, 1, -1, 1) == 0 && rp_cubic_length(-1, 1, 1, -1) == 0, "a negative norm or sigma");
    for (int i = 0; i < 12; i++) {
        double x[4] = {-1, 1, 1, 1};
        x[i / 3] = bad[i % 3];
        CHECK(rp_cubic_length(x[0], x[1], x[2], x[3]) == 0, "%g %g %g %g", x[0], x[1], x[2], x[3]);
    }
}

/* Steps along a method's own direction. */

enum { MOST_OF_NEWTON = 200 }; /* parameters */

/* The line search by hand: the step of `plain`, its slope and curvature with weight decay's part, its length. */
typedef struct ray {
    rp_real step[MOST_OF_NEWTON];
    double loss, slope, curvature, norm, alpha;
} ray;
static void measure_along(rp_net *net, const rp_real *step, double decay, const rp_data *data, ray *l) {
    rp_real first = 0, second = 0;
    double along = 0, square = 0;
    memcpy(l->step, step, bytes_of(net));
    WORKS(rp_directional(net, data, l->step, &first, &second));
    for (size_t i = 0; i < count_of(net); i++) {
        along += (double)l->step[i] * (double)rp_parameters(net)[i];
        square += (double)l->step[i] * (double)l->step[i];
    }
    l->norm = sqrt(square);
    l->slope = (double)first + decay * along;
    l->curvature = (double)second + decay * square;
}
static ray measure(rp_net *net, const rp_optimizer *plain, const rp_data *data, double sigma) {
    ray l;
    l.loss = fill_arrays(net, plain, data);
    WORKS(rp_direction(net, plain));
    measure_along(net, rp_step_array(net), plain->decoupled ? 0 : (double)plain->weight_decay, data, &l);
    l.alpha = rp_cubic_length(l.slope, l.curvature, l.norm, sigma);
    return l;
}

/* The optimizer without its computed length; what is decoupled shrinks by so much after the step. */
static rp_optimizer plain_of(const rp_optimizer *o, double *shrink) {
    rp_optimizer plain = *o;
    *shrink = o->decoupled ? (double)o->rate * (double)o->weight_decay : 0;
    plain.weight_decay = o->decoupled ? 0 : o->weight_decay;
    plain.cubic_sigma = 0;
    plain.cubic_adaptive = 0;
    return plain;
}

static rp_step last_step(rp_net *net) {
    rp_step step;
    memset(&step, 0, sizeof step);
    WORKS(rp_last_step(net, &step));
    return step;
}
static int has_parameters(rp_net *net, const rp_real *parameters) {
    return !memcmp(parameters, rp_parameters(net), bytes_of(net));
}

/* A length that is computed from a slope inherits its rounding: relative to the length. */
static const double length_error = sizeof(rp_real) == sizeof(double) ? 1e-9 : 1e-3;

static int curved(const rp_optimizer *o) { return o->method == RP_PARTITIONING || o->method == RP_PER_VARIABLE; }

/* now = (before + alpha step) (1 - shrink), to rounding; what is frozen does not shrink */
static void check_moved(const char *what, const char *name, rp_net *net, const rp_real *before, const ray *l,
                        double alpha, double shrink) {
    double error = 0, largest = 0, largest_step = 0;
    rp_layer last;
    WORKS(rp_layer_info(net, rp_layer_count(net) - 1, &last));
    for (size_t i = 0; i < count_of(net); i++) {
        double expected = (double)before[i] + alpha * (double)l->step[i];
        if (!last.frozen || i < last.weights) expected *= 1 - shrink;
        error = larger(fabs((double)rp_parameters(net)[i] - expected), error);
        largest = fmax(largest, fabs(expected));
        largest_step = fmax(largest_step, fabs(alpha * (double)l->step[i]));
    }
    CHECK(error <= 2 * last_digit * largest + length_error * largest_step, "%s, %s: off by %g, step %g, largest %g",
          name, what, error, largest_step, largest);
}

static void check_close(const char *what, const char *name, double got, double expected, double size) {
    CHECK(fabs(got - expected) <= length_error * size, "%s: %s is %g, not %g", name, what, got, expected);
}

static void check_step_report(const char *name, rp_net *net, const ray *l, double sigma) {
    rp_step step = last_step(net);
    check_close("alpha", name, (double)step.alpha, l->alpha, l->alpha);
    check_close("slope", name, (double)step.first, l->slope, fabs(l->slope));
    check_close("curvature", name, (double)step.second, l->curvature, fabs(l->curvature) + 1e-3 * l->norm * l->norm);
    CHECK(step.taken == (l->alpha > 0), "%s: taken %d, alpha %g", name, step.taken, l->alpha);
    CHECK(step.ratio == 0 && step.sigma == (rp_real)sigma && step.products == 0 && step.fallback == 0,
          "%s: ratio %g, sigma %g, %d products, fallback %d", name, (double)step.ratio, (double)step.sigma,
          step.products, step.fallback);
}

/* One step of a net with `cubic`, of one without, and of one by pieces, from the same parameters and states. */
static void check_plain_step(const char *name, rp_net *net, const rp_optimizer *plain, const rp_data *data,
                             const ray *l) {
    rp_real before[MOST];
    memcpy(before, rp_parameters(net), bytes_of(net));
    WORKS(rp_train(net, plain, data, NULL));
    check_moved("plain", name, net, before, l, 1, 0);
    rp_step step = last_step(net);
    CHECK(step.taken == 1 && step.alpha == 1, "%s: taken %d, alpha %g", name, step.taken, (double)step.alpha);
}
static void check_pieces(const char *name, rp_net *net, const rp_optimizer *cubic, const rp_data *data, const ray *l) {
    rp_real before[MOST];
    memcpy(before, rp_parameters(net), bytes_of(net));
    fill_arrays(net, cubic, data);
    WORKS(rp_direction(net, cubic)); /* gives the method's own step whatever `cubic` is */
    CHECK(!memcmp(rp_step_array(net), l->step, bytes_of(net)), "%s: another direction with `cubic`", name);
    WORKS(rp_move(net, (rp_real)l->alpha));
    check_moved("in pieces", name, net, before, l, l->alpha, 0);
}
static void check_cubic_step(const named_optimizer *o, rp_net *nets[4], const rp_data *data, double sigma) {
    double shrink;
    rp_optimizer plain = plain_of(&o->with, &shrink), cubic = o->with;
    rp_real before[MOST], loss = -1;
    rp_net *net = nets[0];
    cubic.cubic_sigma = (rp_real)sigma;
    for (int i = 1; i < 4; i++) copy_parameters(nets[i], net);
    memcpy(before, rp_parameters(net), bytes_of(net));
    ray l = measure(nets[1], &plain, data, sigma);
    WORKS(rp_train(net, &cubic, data, &loss));
    check_close("loss", o->name, (double)loss, l.loss, l.loss);
    check_moved("cubic", o->name, net, before, &l, l.alpha, l.alpha > 0 ? shrink : 0);
    CHECK(!memcmp(rp_gradient(net), rp_gradient(nets[1]), bytes_of(net)), "%s leaves another gradient", o->name);
    CHECK(!memcmp(rp_step_array(net), l.step, bytes_of(net)), "%s leaves another step", o->name);
    CHECK(!curved(&cubic) || !memcmp(rp_curvature(net), rp_curvature(nets[1]), bytes_of(net)),
          "%s leaves another curvature", o->name);
    CHECK(l.alpha > 0 || has_parameters(net, before), "%s: slope %g", o->name, l.slope);
    check_step_report(o->name, net, &l, sigma);
    check_plain_step(o->name, nets[2], &plain, data, &l);
    check_pieces(o->name, nets[3], &cubic, data, &l);
}
static void test_cubic_steps(void) {
    for (int n = 0; n < 4 * METHODS; n++) {
        named_optimizer o = method_of(n / 4);
        rp_loss_kind loss = n % 2 ? RP_POISSON : RP_SOFTMAX_CROSS_ENTROPY;
        rp_net *nets[4];
        samples s;
        test_random random = {(uint64_t)n};
        if (n % 4 >= 2) o.with.weight_decay = (rp_real)0.02;
        for (int i = 0; i < 4; i++) {
            nets[i] = make_net(loss);
            if (n % 3 == 2) rp_freeze(nets[i], 2, 1);
        }
        for (int step = 0; step < 5; step++) {
            draw_samples(&s, &random, loss);
            check_cubic_step(&o, nets, &s.data, n % 2 ? 0.3 : 20);
        }
        for (int i = 0; i < 4; i++) rp_net_free(nets[i]);
    }
}

/* Ten times the rate, the same steps. */
static void test_no_rate(void) {
    for (int n = 0; n < METHODS; n++) {
        named_optimizer o = method_of(n);
        rp_net *net = classifier(), *twin = classifier();
        samples s;
        double distance = 0, size = 0;
        o.with.cubic_sigma = 5;
        rp_optimizer faster = o.with;
        faster.rate *= 10;
        if (faster.decoupled) faster.weight_decay /= 10; /* the shrinking still knows the rate */
        draw_classes(&s, (uint64_t)n);
        for (int step = 0; step < 3; step++) {
            WORKS(rp_train(net, &o.with, &s.data, NULL));
            CHECK(!rp_train(twin, &faster, &s.data, NULL), "%s", rp_error(twin));
        }
        for (size_t i = 0; i < count_of(net); i++) {
            double w = (double)rp_parameters(net)[i];
            distance = larger(fabs(w - (double)rp_parameters(twin)[i]), distance);
            size = fmax(size, fabs(w));
        }
        CHECK(distance <= length_error * size, "%s: %g, largest %g", o.name, distance, size);
        rp_net_free(net);
        rp_net_free(twin);
    }
}

/* Where the rate is the length, backward pass and update are the steps of rp_train, to the bit. */
static void test_update_is_train(void) {
    for (int n = 0; n < METHODS; n++) {
        named_optimizer o = method_of(n);
        rp_net *net = classifier(), *twin = classifier();
        samples s;
        if (n % 2) o.with.clip = (rp_real)0.1;
        draw_classes(&s, (uint64_t)n);
        for (int step = 0; step < 5; step++) {
            CHECK(!rp_train(twin, &o.with, &s.data, NULL), "%s", rp_error(twin));
            fill_arrays(net, &o.with, &s.data);
            WORKS(rp_update(net, &o.with));
            CHECK(has_parameters(net, rp_parameters(twin)), "%s: step %d", o.name, step);
        }
        rp_net_free(net);
        rp_net_free(twin);
    }
}

/* Momentum still points to where the last target was. */
static void check_uphill(int adaptive) {
    rp_net *net = one_parameter(0);
    rp_real x = 1, t = 10, w, loss = 0;
    rp_data data = rp_targeted(&x, &t, 1);
    rp_optimizer o = rp_sgd((rp_real)0.1);
    o.momentum = (rp_real)0.9;
    o.cubic_sigma = 1;
    o.cubic_adaptive = adaptive;
    WORKS(rp_train(net, &o, &data, NULL));
    w = rp_parameters(net)[0];
    CHECK(w > 1, "%g", (double)w);
    t = w - 1; /* b = 0.9 (-10) + 1: the step goes up, the slope is 1 */
    WORKS(rp_train(net, &o, &data, &loss));
    CHECK(has_parameters(net, &w), "%g, not %g", (double)rp_parameters(net)[0], (double)w);
    CHECK(fabs((double)loss - 0.5) < 1e-5, "%g", (double)loss);
    rp_step step = last_step(net);
    CHECK(step.taken == 0 && step.alpha == 0 && step.first > 0 && step.second > 0, "%d, %g, %g, %g", step.taken,
          (double)step.alpha, (double)step.first, (double)step.second);
    /* what was not taken is remembered all the same: b = 0.9 (-8) + 1 = -6.2, then -4.58, ... until it turns */
    for (int i = 0; i < 40 && !step.taken; i++) {
        WORKS(rp_train(net, &o, &data, NULL));
        step = last_step(net);
    }
    CHECK(step.taken == 1 && rp_parameters(net)[0] < w, "%g", (double)rp_parameters(net)[0]);
    rp_net_free(net);
}
static void test_uphill(void) {
    check_uphill(0);
    check_uphill(1);
}

/* A step of no length is none. */
static void test_no_step(void) {
    rp_net *net = one_parameter(3);
    rp_real x = 1, t = 10;
    rp_data data = rp_targeted(&x, &t, 1);
    rp_optimizer o = rp_sgd(0);
    o.cubic_sigma = 1;
    WORKS(rp_train(net, &o, &data, NULL));
    rp_step step = last_step(net);
    CHECK(step.taken == 0 && step.alpha == 0 && rp_parameters(net)[0] == 3, "%d, %g", step.taken, (double)step.alpha);
    rp_net_free(net);
}

/* Sigma and lambda change by a factor, but stay within a million times of what they began with. */
static double within(double from, double factor, double first) {
    double next = from * factor;
    return next >= 1e-6 * first && next <= 1e6 * first ? next : from;
}
static double factor_of(const rp_step *step, double low, double high) { /* of how well the decrease was foretold */
    if ((double)step->ratio > high) return 0.5;
    return (double)step->ratio < low ? 2 : 1;
}

/* With weight decay; may be infinite. */
static double loss_of(rp_net *net, const rp_optimizer *o, const rp_data *data) {
    rp_score score;
    double square = 0;
    rp_evaluate(net, data, &score, NULL);
    for (size_t i = 0; i < count_of(net); i++) square += (double)rp_parameters(net)[i] * (double)rp_parameters(net)[i];
    return (double)score.loss + (o->decoupled ? 0 : (double)o->weight_decay * square / 2);
}

/* sigma adapts as the ratio says; what raised the loss is undone. By rp_evaluate before and after. */
typedef struct adapted {
    int halved, doubled, kept, undone;
} adapted;
static void check_ratio(const char *name, const rp_step *step, double loss, double after, double foretold) {
    double ratio = (loss - after) / foretold, noise = 10 * last_digit * (fabs(loss) + fabs(after)) / foretold;
    if (after - after == 0)
        check_close("ratio", name, (double)step->ratio, ratio, 1 + fabs(ratio) + noise / length_error);
    else CHECK(!step->taken && step->ratio == 0, "%s: taken %d, ratio %g", name, step->taken, (double)step->ratio);
    if (fabs(ratio) > noise)
        CHECK(step->taken == (after < loss), "%s: taken %d, from %g to %g", name, step->taken, loss, after);
}
static void check_adaptive_step(const named_optimizer *o, rp_net *net, rp_net *twin, const rp_data *data, double *sigma,
                                adapted *seen) {
    double shrink, size, loss = loss_of(net, &o->with, data);
    rp_optimizer plain = plain_of(&o->with, &shrink);
    rp_real before[MOST];
    copy_parameters(twin, net);
    memcpy(before, rp_parameters(net), bytes_of(net));
    ray l = measure(twin, &plain, data, *sigma);
    WORKS(rp_train(net, &o->with, data, NULL));
    rp_step step = last_step(net);
    if (!(l.alpha > 0)) return;
    check_close("alpha", o->name, (double)step.alpha, l.alpha, l.alpha);
    CHECK(!rp_move(twin, (rp_real)l.alpha), "%s", rp_error(twin)); /* to where the step leads, taken or not */
    double foretold = -cubic_model(l.alpha, l.slope, l.curvature, l.norm, *sigma, &size);
    check_ratio(o->name, &step, loss, loss_of(twin, &o->with, data), foretold);
    if (step.taken) check_moved("adaptive", o->name, net, before, &l, l.alpha, shrink);
    else CHECK(has_parameters(net, before), "%s: not undone", o->name);
    double next = within(*sigma, factor_of(&step, 0.1, 0.9), (double)o->with.cubic_sigma);
    CHECK(step.sigma == (rp_real)next, "%s: sigma from %g to %g, ratio %g", o->name, *sigma, (double)step.sigma,
          (double)step.ratio);
    seen->undone += !step.taken;
    seen->halved += next < *sigma;
    seen->doubled += next > *sigma;
    seen->kept += next == *sigma;
    *sigma = (double)step.sigma;
}
static void test_adaptive(void) {
    adapted seen = {0, 0, 0, 0};
    for (int n = 0; n < METHODS; n++) {
        named_optimizer o = method_of(n);
        rp_net *net = make_net(RP_POISSON), *twin = make_net(RP_POISSON);
        test_random random = {(uint64_t)n};
        samples s;
        o.with.cubic_sigma = (rp_real)0.001;
        o.with.cubic_adaptive = 1;
        o.with.weight_decay = (rp_real)(n % 2 ? 0.05 : 0);
        double sigma = (double)o.with.cubic_sigma;
        for (size_t i = 0; i < count_of(net); i++) rp_parameters(net)[i] *= 3;
        for (int step = 0; step < 25; step++) {
            draw_samples(&s, &random, RP_POISSON);
            check_adaptive_step(&o, net, twin, &s.data, &sigma, &seen);
        }
        rp_net_free(net);
        rp_net_free(twin);
    }
    CHECK(seen.halved > 20 && seen.doubled > 20 && seen.kept > 20 && seen.undone > 5,
          "%d halved, %d doubled, %d kept, %d undone", seen.halved, seen.doubled, seen.kept, seen.undone);
}

/* rp_fit takes the same steps and hands out the last. */
static int see_progress(void *user, const rp_progress *progress) {
    *(rp_step *)user = progress->last;
    return 0;
}
static named_optimizer method_or_newton(int which) {
    named_optimizer newton = {"Newton", rp_newton()};
    return which < METHODS ? method_of(which) : newton;
}
static void test_fit_with_lengths(void) {
    for (int n = 0; n <= METHODS; n++) {
        named_optimizer o = method_or_newton(n);
        rp_net *net = classifier(), *fitted = classifier();
        rp_fit_options options = fit_of(3);
        rp_fit_report report;
        rp_step seen;
        samples s;
        memset(&seen, 0, sizeof seen);
        options.keep_order = 1;
        options.progress = see_progress;
        options.user = &seen;
        if (n < METHODS) o.with.cubic_sigma = 3;
        draw_classes(&s, (uint64_t)n);
        for (int i = 0; i < 3; i++) WORKS(rp_train(net, &o.with, &s.data, NULL));
        rp_step step = last_step(net);
        CHECK(rp_fit(fitted, &o.with, &s.data, &options, &report) == RP_OK, "%s: %s", o.name, rp_error(fitted));
        CHECK(same_parameters(net, fitted), "%s: other parameters", o.name);
        CHECK(report.last.alpha == step.alpha && report.last.taken == step.taken && report.last.first == step.first,
              "%s: alpha %g, not %g", o.name, (double)report.last.alpha, (double)step.alpha);
        CHECK(seen.alpha == step.alpha && seen.second == step.second, "%s: alpha %g, not %g", o.name,
              (double)seen.alpha, (double)step.alpha);
        rp_net_free(net);
        rp_net_free(fitted);
    }
}

/* Per variable. */

/* Every parameter by the formula, from the reference's gradient and Hessian. One whose derivative is all rounding may
   go either way and is not looked at. */
static void check_per_variable(trial *t, const dense *d, double sigma, double decay, double rate) {
    rp_optimizer o = rp_per_variable((rp_real)sigma);
    double worst = 0, size_there = 0;
    o.weight_decay = (rp_real)decay;
    o.rate = (rp_real)rate;
    check_done(t, "rp_train", rp_train(t->net, &o, &t->data, NULL));
    for (int p = 0; p < d->n; p++) {
        double w = t->reference->w[p], step = (double)rp_parameters(t->net)[p] - w;
        double g = d->gradient[p] + (double)o.weight_decay * w, h = d->h[p * d->n + p] + (double)o.weight_decay;
        double length = rp_cubic_length(-fabs(g), h, 1, (double)o.variable_sigma);
        double expected = d->c[p] * (g > 0 ? -1 : 1) * (double)o.rate * length;
        double most =
            rp_cubic_length(-fabs(g) - d->terms[p], -d->size[p * d->n + p], 1, (double)o.variable_sigma) + fabs(w);
        double excess = fabs(step - expected) / most;
        if (fabs(g) < 1e-3 * (d->terms[p] + nothing) && d->c[p] > 0) continue;
        if (!(excess <= worst)) size_there = most;
        worst = larger(excess, worst);
    }
    CHECK(worst <= length_error, "a step is off by %g of %g; %s", worst, size_there, t->text);
}
static void test_per_variable(void) {
    static const net_recipe recipes[] = {
        {IMAGE, 4, 4, 4, 5, SMOOTH}, {SEQUENCE, 3, 3, 3, 5, SMOOTH}, {VECTOR, 5, 5, 4, 5, ANY}};
    static const net_recipe stack = {STACK, 5, 5, 4, 5, ANY};
    for (int n = 0; n < 60; n++) {
        trial *t = small_trial(n + 9000, n % 2 ? &stack : &recipes[n % 3], 80);
        dense d = dense_new(t);
        rp_optimizer o = rp_per_variable((rp_real)0.7);
        rp_net *pieces = library_net(t->reference, t->batch, t->seed, NULL);
        check_done(t, "rp_backward", rp_backward(pieces, &t->data, NULL, NULL));
        check_done(t, "rp_hessian_diagonal", rp_hessian_diagonal(pieces, &t->data, rp_curvature(pieces)));
        check_per_variable(t, &d, 0.7, 0, 1);
        CHECK(rp_update(pieces, &o) == RP_OK, "%s", rp_error(pieces));
        CHECK(same_parameters(pieces, t->net), "in pieces it is another; %s", t->text);
        for (int p = 0; p < d.n; p++) rp_parameters(t->net)[p] = (rp_real)t->reference->w[p];
        check_per_variable(t, &d, n % 3 ? 0.01 : 50, 0.1, 0.5);
        rp_net_free(pieces);
        trial_free(t);
    }
}

/* Newton. */

/* The step that was taken, from the flat arrays, at the parameters before it: with B as the Gauss-Newton matrix the
   solution of (B + lambda + decay) p = -g to the tolerance; or a step of residual partitioning whose length minimises
   the quadratic along it, halved up to 8 times. Where its curvature is not above 0 that length is 1. */
static void check_newton_solution(rp_net *net, const rp_optimizer *o, const rp_data *data, double lambda,
                                  const char *text) {
    rp_real product[MOST_OF_NEWTON];
    const rp_real *p = rp_step_array(net), *g = rp_gradient(net), *w = rp_parameters(net);
    double decay = (double)o->weight_decay, rest = 0, right = 0, terms = 0;
    WORKS(rp_gauss_newton_vector(net, data, p, product));
    for (size_t i = 0; i < count_of(net); i++) {
        int frozen = p[i] == 0 && g[i] == 0;
        double b = frozen ? 0 : (double)g[i] + decay * (double)w[i],
               left = (double)product[i] + (lambda + decay) * (double)p[i];
        rest += (left + b) * (left + b);
        right += b * b;
        terms += fabs((double)g[i]) + decay * fabs((double)w[i]) + fabs((double)p[i]);
    }
    CHECK(sqrt(rest) <= 1.1 * (double)o->tolerance * sqrt(right) + 10 * last_digit * terms, "residual %g of %g; %s",
          sqrt(rest), sqrt(right), text);
}

static void check_newton_fallback(rp_net *net, const rp_optimizer *o, const rp_data *data, const rp_step *step,
                                  const char *text) {
    const rp_real *p = rp_step_array(net), *g = rp_gradient(net), *w = rp_parameters(net), *h = rp_curvature(net);
    double decay = (double)o->weight_decay, error = 0, largest = 0, size = 0, length = 1;
    for (size_t i = 0; i < count_of(net); i++) {
        int frozen = p[i] == 0 && g[i] == 0;
        double numerator = (double)g[i] + decay * (double)w[i], terms = fabs((double)g[i]) + decay * fabs((double)w[i]);
        double denominator = (double)h[i] + decay + (double)step->lambda;
        error = larger(fabs((double)p[i] + (frozen ? 0 : numerator / denominator)), error);
        largest = fmax(largest, terms / denominator); /* g and decay w may cancel */
        size += terms * fabs((double)p[i]);
    }
    CHECK(error <= length_error * largest, "the step is off by %g of %g; %s", error, largest, text);
    ray l;
    measure_along(net, p, decay, data, &l);
    check_close("slope", text, (double)step->first, l.slope, size);
    check_close("curvature", text, (double)step->second, l.curvature, fabs(l.curvature) + 1e-3 * l.norm * l.norm);
    if (step->second > 0) length = -(double)step->first / (double)step->second;
    double halvings = log(length / (double)step->alpha) / log(2);
    CHECK(fabs(halvings - floor(halvings + 0.5)) < 1e-3 && halvings > -0.5 && halvings < 8.5, "%g halvings; %s",
          halvings, text);
}

static int newton_fallbacks, newton_solutions; /* that were looked at */

static void check_newton_parts(rp_net *net, const rp_optimizer *o, const rp_data *data, const rp_real *before,
                               double lambda, const rp_step *step, const char *text) {
    rp_real after[MOST_OF_NEWTON];
    double error = 0, largest = 0;
    if (!step->taken) return;
    for (size_t i = 0; i < count_of(net); i++) {
        double expected = (double)before[i] + (double)step->alpha * (double)rp_step_array(net)[i];
        error = larger(fabs((double)rp_parameters(net)[i] - expected), error);
        largest = fmax(largest, fabs(expected));
    }
    CHECK(error <= 2 * last_digit * largest, "off by %g, largest %g; %s", error, largest, text);
    memcpy(after, rp_parameters(net), bytes_of(net));
    memcpy(rp_parameters(net), before, bytes_of(net));
    if (step->fallback) {
        check_newton_fallback(net, o, data, step, text);
        newton_fallbacks++;
    } else if (!o->full_hessian && step->products < o->iterations) {
        check_newton_solution(net, o, data, lambda, text);
        newton_solutions++;
    }
    memcpy(rp_parameters(net), after, bytes_of(net));
}

/* One step of Newton: lambda as it should adapt, the loss not raised. */
static double next_lambda(const rp_step *step, const rp_optimizer *o, double lambda) {
    double factor = step->fallback ? 4 : factor_of(step, 0.25, 0.75);
    if (!step->taken && !step->fallback) factor = 1; /* the gradient is 0 */
    return within(lambda, factor, (double)o->lambda);
}
static void check_newton_step(rp_net *net, const rp_optimizer *o, const rp_data *data, double *lambda,
                              const char *text) {
    rp_real before[MOST_OF_NEWTON], loss = -1;
    rp_score score;
    double was = loss_of(net, o, data);
    memcpy(before, rp_parameters(net), bytes_of(net));
    rp_evaluate(net, data, &score, NULL);
    WORKS(rp_train(net, o, data, &loss));
    rp_step step = last_step(net);
    double is = loss_of(net, o, data), next = next_lambda(&step, o, *lambda);
    CHECK(fabs((double)(loss - score.loss)) <= 10 * last_digit * (1 + fabs((double)loss)), "%g, not %g; %s",
          (double)loss, (double)score.loss, text);
    /* the square: of what rounding leaves in an output, below which losses say nothing */
    CHECK(is <= was + 10 * last_digit * (fabs(was) + fabs(is)) + last_digit * last_digit,
          "the loss rises from %.9g to %.9g; %s", was, is, text);
    CHECK(step.taken == 0 || step.first < 0, "slope %g; %s", (double)step.first, text);
    CHECK(step.products >= 0 && step.products <= o->iterations, "%d products; %s", step.products, text);
    CHECK(step.taken || has_parameters(net, before), "not taken, but moved; %s", text);
    /* a step that Newton could not take, though all that was foretold was rounding, says nothing about lambda */
    if (!step.fallback || fabs((double)step.first) > 1e4 * last_digit * (1 + fabs(was)))
        CHECK(fabs((double)step.lambda - next) <= 1e-5 * next,
              "lambda from %g to %g, ratio %g, fallback %d, taken %d; %s", *lambda, (double)step.lambda,
              (double)step.ratio, step.fallback, step.taken, text);
    check_newton_parts(net, o, data, before, *lambda, &step, text);
    *lambda = (double)step.lambda;
}

/* Convex: the gradient vanishes in a few steps. */
static void test_newton_converges(void) {
    const double small = sizeof(rp_real) == sizeof(double) ? 1e-7 : 1e-3; /* where the loss is flat to rounding */
    for (int n = 0; n < 8; n++) {
        rp_loss_kind loss = n % 2 ? RP_SOFTMAX_CROSS_ENTROPY : RP_SQUARED_ERROR;
        rp_net *net = rp_net_new(rp_vector(INPUTS), NULL);
        rp_optimizer o = rp_newton();
        test_random random = {(uint64_t)n};
        double lambda = (double)o.lambda, square = 0;
        samples s;
        rp_dense(net, OUTPUTS);
        rp_loss(net, loss);
        draw_samples(&s, &random, loss);
        built(net);
        o.full_hessian = n / 2 % 2;
        o.weight_decay = (rp_real)(n / 4 ? 0 : 0.01);
        if (loss == RP_SOFTMAX_CROSS_ENTROPY) o.weight_decay = (rp_real)0.01; /* 8 samples of 4 inputs are separable */
        for (int step = 0; step < 25; step++) check_newton_step(net, &o, &s.data, &lambda, "convex");
        WORKS(rp_backward(net, &s.data, NULL, NULL));
        for (size_t i = 0; i < count_of(net); i++) {
            double g = (double)rp_gradient(net)[i] + (double)o.weight_decay * (double)rp_parameters(net)[i];
            square += g * g;
        }
        CHECK(sqrt(square) <= small, "case %d: |g| is %g after 25 steps, lambda %g", n, sqrt(square), lambda);
        CHECK(lambda < (double)o.lambda, "case %d: lambda %g", n, lambda);
        rp_net_free(net);
    }
}

/* By hand: w = 1, x = 2, t = 3, r = 0.5: g = x (w x - t) + r w = -1.5, B + lambda + r = 4 + 1 + 0.5. */
static void test_newton_by_hand(void) {
    rp_net *net = one_parameter(1);
    rp_real x = 2, t = 3;
    rp_data data = rp_targeted(&x, &t, 1);
    rp_optimizer o = rp_newton();
    o.weight_decay = (rp_real)0.5;
    WORKS(rp_train(net, &o, &data, NULL));
    rp_step step = last_step(net);
    CHECK(fabs((double)rp_parameters(net)[0] - (1 + 1.5 / 5.5)) < 1e-6, "%g", (double)rp_parameters(net)[0]);
    CHECK(fabs((double)step.first + 1.5 * 1.5 / 5.5) < 1e-5, "slope %g", (double)step.first);
    CHECK(step.taken == 1 && step.fallback == 0 && step.products >= 1 && step.lambda == (rp_real)0.5, "%d %d %d %g",
          step.taken, step.fallback, step.products, (double)step.lambda);
    /* of a model that is exact, but for lambda */
    CHECK(fabs((double)step.ratio - 1) < 0.2, "ratio %g", (double)step.ratio);
    rp_net_free(net);
}

static void test_newton_never_rises(void) {
    static const net_recipe recipes[] = {
        {IMAGE, 4, 4, 4, 5, ANY}, {SEQUENCE, 3, 3, 3, 5, ANY}, {VECTOR, 6, 5, 4, 5, ANY}};
    for (int n = 0; n < 60; n++) {
        net_recipe recipe = recipes[n % 3];
        if (n % 2) recipe.kind = STACK;
        trial *t = small_trial(n + 11000, &recipe, 150);
        rp_optimizer o = rp_newton();
        o.full_hessian = n / 2 % 2;
        o.weight_decay = (rp_real)(n % 5 ? 0 : 0.02);
        o.lambda = (rp_real)(n % 7 ? 1 : 1e-4);
        o.cubic_sigma = (rp_real)(n % 4 == 3);
        double lambda = (double)o.lambda;
        for (int step = 0; step < 8; step++) check_newton_step(t->net, &o, &t->data, &lambda, t->text);
        trial_free(t);
    }
    CHECK(newton_fallbacks > 20 && newton_solutions > 50, "%d and %d", newton_fallbacks, newton_solutions);
}

/* Saddles and plateaus. */

/* f = (w1 w2 - 1)^2 / 2: in w1 + w2 and w1 - w2 a saddle at 0, like x^2 - y^2. SGD creeps away from it. */
static double after_saddle(rp_optimizer o, int steps) {
    rp_net *net = rp_net_new(rp_vector(1), NULL);
    rp_real one = 1;
    rp_data data = rp_targeted(&one, &one, 1);
    rp_score score;
    rp_dense(net, 1);
    rp_no_bias(net, rp_layer_count(net) - 1);
    rp_dense(net, 1);
    rp_no_bias(net, rp_layer_count(net) - 1);
    built(net);
    rp_parameters(net)[0] = (rp_real)1e-3;
    rp_parameters(net)[1] = (rp_real)2e-3;
    for (int step = 0; step < steps; step++) WORKS(rp_train(net, &o, &data, NULL));
    WORKS(rp_evaluate(net, &data, &score, NULL));
    rp_net_free(net);
    return (double)score.loss;
}

static void test_saddle(void) {
    enum { STEPS = 20 };
    rp_optimizer sgd = rp_sgd((rp_real)0.05), partitioning = rp_partitioning(), newton = rp_newton();
    double left = after_saddle(sgd, STEPS);
    CHECK(left > 0.4999, "SGD: %g", left);
    sgd.cubic_sigma = partitioning.cubic_sigma = 1;
    partitioning.rate = 5;
    CHECK(after_saddle(sgd, STEPS) < 0.01, "cubic SGD: %g", after_saddle(sgd, STEPS));
    CHECK(after_saddle(partitioning, STEPS) < 0.01, "cubic partitioning: %g", after_saddle(partitioning, STEPS));
    CHECK(after_saddle(rp_per_variable(1), STEPS) < 0.01, "per variable: %g", after_saddle(rp_per_variable(1), STEPS));
    for (newton.full_hessian = 0; newton.full_hessian < 2; newton.full_hessian++) {
        left = after_saddle(newton, STEPS);
        CHECK(left < 0.01, "Newton, full_hessian %d: %g", newton.full_hessian, left);
    }
}

/* The plateau of Low-Rank Structure: twelve hidden layers of ReLUs, small weights, no biases. The output hardly depends
   on the input, the gradient is tiny, and so is every step of SGD; a step whose length is computed is not. */
enum { PLATEAU_LAYERS = 12, PLATEAU_WIDTH = 128, PLATEAU_INPUTS = 64, PLATEAU_BATCH = 32, PLATEAU_CLASSES = 10 };

static rp_net *plateau_net(void) {
    rp_net *net = rp_net_new(rp_vector(PLATEAU_INPUTS), NULL);
    test_random random = {1};
    for (int l = 0; l < PLATEAU_LAYERS; l++) {
        rp_dense(net, PLATEAU_WIDTH);
        rp_no_bias(net, rp_layer_count(net) - 1);
        rp_activation(net, RP_RELU);
    }
    rp_dense(net, PLATEAU_CLASSES);
    rp_no_bias(net, rp_layer_count(net) - 1);
    rp_loss(net, RP_SOFTMAX_CROSS_ENTROPY);
    WORKS(rp_net_build(net, PLATEAU_BATCH, 1));
    for (size_t i = 0; i < count_of(net); i++) rp_parameters(net)[i] = (rp_real)test_uniform(&random, -0.1, 0.1);
    return net;
}

static double on_plateau(const rp_optimizer *o, int steps) { /* the loss after so many */
    static rp_real x[PLATEAU_BATCH * PLATEAU_INPUTS];
    int labels[PLATEAU_BATCH];
    double prototypes[PLATEAU_CLASSES][PLATEAU_INPUTS];
    rp_net *net = plateau_net();
    test_random random = {2};
    rp_score score;
    for (int i = 0; i < PLATEAU_CLASSES * PLATEAU_INPUTS; i++)
        prototypes[i / PLATEAU_INPUTS][i % PLATEAU_INPUTS] = test_normal(&random);
    for (int b = 0; b < PLATEAU_BATCH; b++) {
        labels[b] = b % PLATEAU_CLASSES;
        for (int i = 0; i < PLATEAU_INPUTS; i++)
            x[b * PLATEAU_INPUTS + i] = (rp_real)(prototypes[labels[b]][i] + 0.3 * test_normal(&random));
    }
    rp_data data = rp_labelled(x, labels, PLATEAU_BATCH);
    for (int step = 0; step < steps; step++) WORKS(rp_train(net, o, &data, NULL));
    WORKS(rp_evaluate(net, &data, &score, NULL));
    rp_net_free(net);
    return (double)score.loss;
}

static void test_plateau(void) {
    enum { STEPS = 200 };
    rp_optimizer sgd = rp_sgd((rp_real)0.02), cubic = sgd;
    double still = on_plateau(&sgd, STEPS), gone;
    CHECK(fabs(still - log(10)) < 0.01, "SGD: %g", still);
    cubic.cubic_sigma = 100;
    gone = on_plateau(&cubic, STEPS);
    CHECK(gone < 2, "cubic SGD: %g", gone);
}

/* Misuse. */

/* A field out of range: refused by all that take an optimizer, and the parameters stay. */
#define FIELD_FAILS(start, field, type, value) \
    do { \
        rp_optimizer o = start; \
        o.field = (type)(value); \
        check_field(net, &o, &s.data, "optimizer." #field, __LINE__); \
    } while (0)

static void check_field(rp_net *net, const rp_optimizer *o, const rp_data *data, const char *words, int line) {
    typedef rp_status (*taker)(rp_net *, const rp_optimizer *);
    static const taker takers[] = {rp_prepare, rp_update, rp_direction};
    rp_real before[MOST];
    memcpy(before, rp_parameters(net), bytes_of(net));
    for (int i = 0; i < 3; i++) check_fails(net, takers[i](net, o), RP_ERR_VALUE, words, "an optimizer", line);
    check_fails(net, rp_train(net, o, data, NULL), RP_ERR_VALUE, words, "rp_train", line);
    check_fails(net, rp_fit(net, o, data, NULL, NULL), RP_ERR_VALUE, words, "rp_fit", line);
    CHECK(has_parameters(net, before), "line %d: %s: the parameters changed", line, words);
}

static void test_misuse_of_fields(void) {
    const double bad[] = {-1, NAN, INFINITY, -INFINITY};
    rp_net *net = classifier();
    samples s;
    draw_classes(&s, 1);
    for (int i = 0; i < 4; i++) {
        FIELD_FAILS(rp_sgd(1), cubic_sigma, rp_real, bad[i]);
        FIELD_FAILS(rp_partitioning(), cubic_sigma, rp_real, bad[i]);
        FIELD_FAILS(rp_newton(), cubic_sigma, rp_real, bad[i]);
        FIELD_FAILS(rp_per_variable(1), variable_sigma, rp_real, bad[i]);
        FIELD_FAILS(rp_newton(), lambda, rp_real, bad[i]);
        FIELD_FAILS(rp_newton(), tolerance, rp_real, bad[i]);
        FIELD_FAILS(rp_newton(), weight_decay, rp_real, bad[i]);
    }
    FIELD_FAILS(rp_per_variable(1), variable_sigma, rp_real, 0);
    FIELD_FAILS(rp_newton(), lambda, rp_real, 0);
    FIELD_FAILS(rp_newton(), iterations, int, 0);
    FIELD_FAILS(rp_newton(), iterations, int, -3);
    FIELD_FAILS(rp_sgd(1), method, rp_method, RP_NEWTON + 1);
    FIELD_FAILS(rp_newton(), method, rp_method, -1);
    FIELD_FAILS(rp_sgd(1), cubic_adaptive, int, 1); /* without `cubic` there is nothing that could adapt */
    rp_net_free(net);
}

/* What arrays alone cannot do. */
static void test_refused_updates(void) {
    rp_net *net = classifier();
    rp_real before[MOST];
    rp_step step;
    samples s;
    rp_rule rule = rule_of(RP_PATHS, RP_BOUND_TIGHT, RP_SCALE_ONE);
    rp_optimizer newton = rp_newton();
    draw_classes(&s, 1);
    FAILS(rp_last_step(net, &step), RP_ERR_ORDER, "rp_last_step");
    WORKS(rp_backward(net, &s.data, &rule, NULL));
    memcpy(before, rp_parameters(net), bytes_of(net));
    for (int n = 0; n < METHODS; n++) {
        rp_optimizer o = method_of(n).with;
        o.cubic_sigma = 1;
        FAILS(rp_update(net, &o), RP_ERR_UNSUPPORTED, "rp_update rp_direction rp_directional rp_move cubic");
        WORKS(rp_direction(net, &o));
    }
    FAILS(rp_update(net, &newton), RP_ERR_UNSUPPORTED, "rp_update rp_hessian_solve");
    FAILS(rp_direction(net, &newton), RP_ERR_UNSUPPORTED, "rp_direction rp_hessian_solve");
    newton.cubic_sigma = 1;
    CHECK(rp_update(net, &newton) == RP_ERR_UNSUPPORTED, "%s", rp_error(net));
    FAILS(rp_direction(net, &newton), RP_ERR_UNSUPPORTED, "rp_direction rp_hessian_solve");
    CHECK(has_parameters(net, before), "a refused update changed the parameters");
    rp_net_free(net);
}

/* A step that fails leaves the parameters, and the state of the method that went before. */
static void check_failed_step(const named_optimizer *failing, int reason) {
    rp_net *net = classifier(), *twin = classifier();
    rp_optimizer adam = rp_adam((rp_real)0.01);
    samples s, bad;
    draw_classes(&s, 3);
    draw_classes(&bad, 3);
    for (int i = 0; i < 3; i++) train_both(net, twin, &adam, &s.data);
    if (reason == 0) bad.labels[2] = 77;
    if (reason == 1) bad.inputs[2] = (rp_real)INFINITY;
    if (reason == 2) bad.data.count = 99;
    CHECK(rp_train(net, &failing->with, &bad.data, NULL) < 0, "%s: reason %d", failing->name, reason);
    CHECK(same_parameters(net, twin), "%s: reason %d: parameters", failing->name, reason);
    for (int i = 0; i < 3; i++) train_both(net, twin, &adam, &s.data);
    CHECK(same_parameters(net, twin), "%s: reason %d: state", failing->name, reason);
    rp_net_free(net);
    rp_net_free(twin);
}
static void test_failed_steps(void) {
    for (int n = 0; n <= METHODS; n++)
        for (int reason = 0; reason < 3; reason++) {
            named_optimizer o = method_or_newton(n);
            o.with.cubic_sigma = 1;
            check_failed_step(&o, reason);
        }
}

/* After rp_prepare no step allocates; and a step that fails for want of memory leaves the state of the one before. */
static void check_prepared_step(int which, int call, const rp_data *data) {
    heap h = new_heap();
    rp_config config = heap_config(&h);
    rp_net *net = some_net(which, &config), *twin = some_net(which, NULL);
    rp_optimizer o = computed_step(call), adam = rp_adam((rp_real)0.01);
    rp_status status = RP_ERR_MEMORY;
    CHECK(!rp_net_build(net, SOME_BATCH, 1) && !rp_net_build(twin, SOME_BATCH, 1), "%s", rp_error(net));
    for (int i = 0; i < 3; i++) train_both(net, twin, &adam, data);
    for (int fail_at = 0; fail_at < 4 && status; fail_at++) { /* until there is no allocation left that could fail */
        h.fail_at = h.calls + fail_at;
        status = rp_train(net, &o, data, NULL);
        h.fail_at = -1;
        if (!status) continue;
        CHECK(status == RP_ERR_MEMORY, "%d: '%s'", (int)status, rp_error(net));
        train_both(net, twin, &adam, data);
        CHECK(same_parameters(net, twin), "net %d, call %d: Adam's state is lost", which, call);
    }
    WORKS(rp_prepare(net, &o));
    long calls = h.calls;
    for (int i = 0; i < 3; i++) WORKS(rp_train(net, &o, data, NULL));
    CHECK(h.calls == calls, "net %d, call %d: %ld allocations", which, call, h.calls - calls);
    rp_net_free(net);
    rp_net_free(twin);
    CHECK(h.live == 0, "%ld live", h.live);
}
static void test_prepared_steps(void) {
    some_samples s;
    draw_some(&s);
    for (int which = 0; which < SOME_NETS; which++)
        for (int call = TOOLS; call < CALLS; call++) check_prepared_step(which, call, &s.data);
}

/* Without parameters, and with all of them frozen: nothing to solve for and nothing to move. */
static void test_no_steps(void) {
    for (int n = 0; n < 2; n++) {
        rp_real x[] = {1, 2, -1, 3}, v[6] = {1, 2, 3, 4, 5, 6}, out[6], before[6] = {0};
        rp_data data = rp_targeted(x, x, 2);
        rp_net *net = rp_net_new(rp_vector(2), NULL);
        if (n) rp_dense(net, 2);
        rp_activation(net, RP_TANH);
        WORKS(rp_net_build(net, 2, 1));
        if (n) rp_freeze(net, 0, 1);
        memcpy(before, rp_parameters(net), bytes_of(net));
        for (int tool = SOLVE_AUTO; tool < TOOLS; tool++) {
            for (int i = 0; i < 6; i++) out[i] = n ? 9 : 0;
            WORKS(use(tool, net, &data, v, out));
            for (int i = 0; i < 6; i++) CHECK(out[i] == 0, "tool %d: %g", tool, (double)out[i]);
        }
        for (int call = TOOLS; call < CALLS; call++) {
            WORKS(use(call, net, &data, v, out));
            rp_step step = last_step(net);
            CHECK(has_parameters(net, before), "step %d moves what is frozen", call);
            CHECK(!step.taken || call == PER_VARIABLE_STEP, "step %d is taken: slope %g", call, (double)step.first);
        }
        rp_net_free(net);
    }
}

/* Steps of computed lengths, of batches that are worked on sample by sample, read no memory that nobody has written. */
static void test_new_memory(void) {
    const rp_real inputs[] = {1, -2, 3, -4, 5, -6};
    for (int layers = 1; layers <= 3; layers++)
        for (int count = 1; count <= 3; count++) {
            heap h = new_heap();
            rp_config config = heap_config(&h);
            rp_net *net = rp_net_new(rp_vector(2), &config);
            rp_optimizer o = rp_sgd((rp_real)0.1), paced = rp_partitioning();
            rp_data data = rp_targeted(inputs, inputs, count);
            for (int i = 0; i < layers; i++) rp_recursive(net, 2, RP_TANH);
            o.cubic_sigma = 1;
            for (int i = 0; i < 2; i++) {
                rp_step step = {0};
                CHECK(i || !rp_net_build(net, 3, 1), "%s", rp_error(net));
                CHECK(!rp_train(net, i ? &paced : &o, &data, NULL) && !rp_last_step(net, &step) && step.first < 0,
                      "%d layers, %d samples, optimizer %d: %s", layers, count, i, rp_error(net));
            }
            rp_net_free(net);
        }
}

int main(void) {
    test_cubic_minima();
    test_cubic_extremes();
    test_cubic_limits();
    test_cubic_steps();
    test_no_rate();
    test_update_is_train();
    test_uphill();
    test_no_step();
    test_adaptive();
    test_fit_with_lengths();
    test_per_variable();
    test_newton_converges();
    test_newton_by_hand();
    test_newton_never_rises();
    test_saddle();
    if (sizeof(rp_real) == sizeof(float)) test_plateau(); /* double takes four times as long, and gets as far */
    test_misuse_of_fields();
    test_refused_updates();
    test_failed_steps();
    test_prepared_steps();
    test_no_steps();
    test_new_memory();
    test_memory(TOOLS, CALLS);
    test_threads_and_sets(TOOLS, CALLS);
    return test_end();
}
