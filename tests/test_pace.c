/* Residual partitioning without a rate: its steps against the formulas in float64, the averages of the parameters, steps
   that are undone, the same step in pieces, what is refused. For single precision as it is, for double with
   -DRP_DOUBLE. */
#include "../rp.h"
#include "calls.h"
#include <float.h>

enum { BATCH = 12, INPUTS = 36, OUTPUTS = 3, PARAMETERS = 2000, NETS = 6, LOSSES = 5, STEPS = 45 };

typedef struct samples {
    rp_real x[BATCH * INPUTS], targets[BATCH * OUTPUTS], weights[BATCH];
    rp_data data;
} samples;

static void draw_samples(samples *s, rp_loss_kind loss, uint64_t seed) {
    test_random random = {seed};
    int counts = loss == RP_POISSON, signs = loss == RP_SQUARED_ERROR || loss == RP_HUBER;
    for (int i = 0; i < BATCH * INPUTS; i++) s->x[i] = (rp_real)test_normal(&random);
    for (int i = 0; i < BATCH * OUTPUTS; i++) {
        double t = test_uniform(&random, 0, 1);
        if (counts) t = test_int(&random, 0, 3);
        if (signs) t = test_normal(&random);
        s->targets[i] = (rp_real)(chance(&random, 0.2) ? 0 : t);
    }
    for (int i = 0; i < BATCH; i++) s->weights[i] = (rp_real)test_uniform(&random, 0.5, 2);
    s->data = rp_targeted(s->x, s->targets, BATCH);
    if (seed % 2) s->data.weights = s->weights;
}

static const char *const net_names[NETS] = {"dense",     "dense without bias", "convolution",
                                            "recurrent", "residual",           "linear"};
static rp_net *net_of(int which, rp_loss_kind loss, const rp_config *config) {
    const rp_shape shapes[NETS] = {rp_vector(INPUTS), rp_vector(INPUTS), rp_image(1, 6, 6),
                                   rp_sequence(9, 4), rp_vector(INPUTS), rp_vector(INPUTS)};
    rp_net *net = rp_net_new(shapes[which], config);
    int layer;
    switch (which) {
    case 0:
    case 1:
        layer = rp_dense(net, 17);
        if (which) rp_no_bias(net, layer);
        rp_activation(net, RP_TANH);
        rp_dense(net, 9);
        rp_activation(net, RP_SOFTPLUS);
        break;
    case 2:
        rp_conv2d(net, 4, 3, 1, 1);
        rp_activation(net, RP_RELU);
        rp_max_pool2d(net, 2, 2);
        break;
    case 3: rp_recurrent(net, 8, RP_TANH); break;
    case 4:
        layer = rp_dense(net, 16);
        rp_dense(net, 16);
        rp_activation(net, RP_GELU);
        rp_add(net, layer);
        break;
    default: break;
    }
    rp_dense(net, OUTPUTS);
    rp_loss(net, loss);
    WORKS(rp_net_build(net, BATCH, 7));
    return net;
}

static size_t bytes_of(rp_net *net) { return rp_parameter_count(net) * sizeof(rp_real); }
static int same_parameters(rp_net *a, rp_net *b) { return !memcmp(rp_parameters(a), rp_parameters(b), bytes_of(a)); }

/* The formulas of >>optimizers, step by step. */
typedef struct naive {
    rp_optimizer o;
    double m[PARAMETERS], p[PARAMETERS], d[PARAMETERS], average[PARAMETERS], spread[PARAMETERS];
    double q, mean_loss, first_loss, mean_zero, length;
    rp_cap cap;
    int t;
} naive;

static double x_log_x(double x) { return x > 0 ? x * log(x) : 0; }

static double least_loss(const samples *s, rp_loss_kind loss) {
    double sum = 0;
    for (int i = 0; i < BATCH; i++) {
        double least = 0, total = 0, weight = s->data.weights ? (double)s->data.weights[i] : 1;
        for (int k = 0; k < OUTPUTS; k++) {
            double t = (double)s->targets[i * OUTPUTS + k];
            total += t;
            if (loss == RP_POISSON) least += t - x_log_x(t);
            if (loss == RP_BINARY_CROSS_ENTROPY) least -= x_log_x(t) + x_log_x(1 - t);
            if (loss == RP_SOFTMAX_CROSS_ENTROPY) least -= x_log_x(t);
        }
        if (loss == RP_SOFTMAX_CROSS_ENTROPY) least += x_log_x(total);
        sum += weight * least;
    }
    return sum / BATCH;
}

/* For outputs of 0, above the least. */
static double zero_loss(const samples *s, rp_loss_kind loss, double delta) {
    double sum = 0;
    for (int i = 0; i < BATCH; i++) {
        double weight = s->data.weights ? (double)s->data.weights[i] : 1;
        for (int k = 0; k < OUTPUTS; k++) {
            double t = (double)s->targets[i * OUTPUTS + k], size = fabs(t);
            if (loss == RP_SQUARED_ERROR) sum += weight * t * t / 2;
            if (loss == RP_HUBER) sum += weight * (size > delta ? delta * (size - delta / 2) : t * t / 2);
            if (loss == RP_POISSON) sum += weight;
            if (loss == RP_BINARY_CROSS_ENTROPY) sum += weight * log(2);
            if (loss == RP_SOFTMAX_CROSS_ENTROPY) sum += weight * t * log(OUTPUTS);
        }
    }
    return sum / BATCH - least_loss(s, loss);
}

static void limit_length(naive *n, double length, rp_cap cap) {
    if (length >= n->length) return;
    n->length = length;
    n->cap = cap;
}

static double part_norm(const double *x, size_t from, size_t count) {
    double sum = 0;
    for (size_t i = from; i < from + count; i++) sum += x[i] * x[i];
    return sqrt(sum);
}

static double count_layers(rp_net *net) {
    double layers = 0;
    for (int i = 0; i < rp_layer_count(net); i++) {
        rp_layer l;
        WORKS(rp_layer_info(net, i, &l));
        layers += l.weight_count > 0 && !l.frozen;
    }
    return layers;
}

static void limit_by_layers(naive *n, rp_net *net, const double *w) {
    double layers = count_layers(net);
    for (int i = 0; i < rp_layer_count(net); i++) {
        rp_layer l;
        double size, step;
        WORKS(rp_layer_info(net, i, &l));
        if (!l.weight_count) continue;
        size = part_norm(w, l.weights, l.weight_count + l.bias_count);
        step = part_norm(n->d, l.weights, l.weight_count + l.bias_count);
        if (!l.frozen) limit_length(n, size / step / (layers * layers), RP_CAP_LAYER);
    }
}

/* The length, from the curvature along d on the twin's batch. */
static void find_length(naive *n, rp_net *twin, const samples *s, rp_loss_kind kind, const double *w) {
    static rp_real v[PARAMETERS], product[PARAMETERS];
    double curvature = 0, slope = 0, ratio, largest, gone, share, energy, zero = zero_loss(s, kind, 1);
    rp_net *net = twin;
    for (size_t i = 0; i < rp_parameter_count(twin); i++) v[i] = (rp_real)n->d[i];
    WORKS(rp_gauss_newton_vector(net, &s->data, v, product));
    for (size_t i = 0; i < rp_parameter_count(twin); i++) {
        curvature += n->d[i] * ((double)product[i] + (double)n->o.weight_decay * n->d[i]);
        slope -= n->m[i] * n->d[i];
    }
    ratio = curvature / slope;
    n->q = n->t ? 0.9 * n->q + 0.1 * ratio : ratio;
    largest = larger(n->q, ratio);
    n->mean_zero = n->t ? 0.9 * n->mean_zero + 0.1 * zero : zero;
    gone = larger(0, 1 - n->mean_loss / fmin(n->first_loss, n->mean_zero));
    share = larger(0.1, gone * gone);
    energy = 0.06 * (count_layers(net) + 1) / (1 + 20.0 / BATCH + (n->t + 1) / 200.0) * share * n->mean_loss;
    n->length = DBL_MAX;
    limit_length(n, 2.5 / n->q, RP_CAP_CURVATURE);
    limit_length(n, sqrt(2 * energy / (largest * slope)), RP_CAP_ENERGY);
    limit_by_layers(n, twin, w);
}

static int measured_at(const rp_optimizer *o, int step) {
    return step < 20 || step % 8 == 0 || !(o->curvature_average > 0);
}

/* s of each layer from gradient and curvature as they are. */
static void fit_spreads(naive *n, rp_net *net) {
    for (int i = 0; i < rp_layer_count(net); i++) {
        double sum = 0, square = 0;
        rp_layer l;
        WORKS(rp_layer_info(net, i, &l));
        for (size_t k = l.weights; k < l.weights + l.weight_count + l.bias_count; k++) {
            sum += fabs((double)rp_gradient(net)[k]) * (double)rp_curvature(net)[k];
            square += (double)rp_gradient(net)[k] * (double)rp_gradient(net)[k];
        }
        for (size_t k = l.weights; k < l.weights + l.weight_count + l.bias_count && square > 0; k++)
            n->spread[k] = sum / square;
    }
}

/* w -> w + length d; the twin has w and draws what the net draws. */
static void naive_step(naive *n, rp_net *twin, const samples *s, rp_loss_kind kind, double *w) {
    size_t count = rp_parameter_count(twin);
    double momentum = (double)n->o.momentum, average = (double)n->o.curvature_average, norm = 0, clip = 1, excess;
    const int measured = measured_at(&n->o, n->t);
    rp_net *net = twin;
    rp_real loss;
    WORKS(rp_backward(net, &s->data, measured ? &n->o.rule : NULL, &loss));
    if (measured) fit_spreads(n, twin);
    for (size_t i = 0; i < count; i++) norm += (double)rp_gradient(twin)[i] * (double)rp_gradient(twin)[i];
    if (n->o.clip > 0 && sqrt(norm) > (double)n->o.clip) clip = (double)n->o.clip / sqrt(norm);
    for (size_t i = 0; i < count; i++) {
        double g = clip * (double)rp_gradient(twin)[i] + (double)n->o.weight_decay * w[i], p;
        double curvature = measured ? (double)rp_curvature(twin)[i] : n->spread[i] * fabs((double)rp_gradient(twin)[i]);
        double h = curvature + (double)n->o.weight_decay;
        n->average[i] += 9.0 / (n->t + 9) * (w[i] - n->average[i]);
        n->m[i] = momentum * n->m[i] + (1 - momentum) * g;
        n->p[i] = average * n->p[i] + (1 - average) * h * fabs(g);
        p = n->p[i] / (1 - pow(average, n->t + 1));
        n->d[i] = p > 0 ? -n->m[i] / sqrt(p) : 0;
    }
    excess = (double)loss - least_loss(s, kind);
    if (!n->t) n->first_loss = n->mean_loss = excess;
    else n->mean_loss = 0.9 * n->mean_loss + 0.1 * excess;
    if (measured) find_length(n, twin, s, kind, w);
    for (size_t i = 0; i < count; i++) w[i] += n->length * n->d[i];
    n->t++;
}

static double largest_of(const double *x, size_t count) {
    double most = 0;
    for (size_t i = 0; i < count; i++) most = larger(most, fabs(x[i]));
    return most;
}

/* One net beside the formulas, which are given its parameters before each step: errors do not add up. The tolerance:
   roundings of gradient, curvature and the sums for D and d'Gd, each of some hundred terms. */
static void check_steps(int which, rp_loss_kind loss, rp_optimizer o, int frozen) {
    static naive n;
    static double w[PARAMETERS];
    const double tolerance = sizeof(rp_real) == 4 ? 2e-3 : 1e-9;
    rp_net *net = net_of(which, loss, NULL), *twin;
    size_t count = rp_parameter_count(net);
    samples s;
    memset(&n, 0, sizeof n);
    n.o = o;
    draw_samples(&s, loss, (uint64_t)(which + (int)loss));
    if (frozen) WORKS(rp_freeze(net, 0, 1));
    twin = rp_clone(net, NULL, 0);
    CHECK(count <= PARAMETERS && twin != NULL, "%d parameters", (int)count);
    for (int step = 0; step < STEPS; step++) {
        double error = 0, size = 0;
        rp_step last;
        memcpy(rp_parameters(twin), rp_parameters(net), bytes_of(net));
        for (size_t i = 0; i < count; i++) w[i] = (double)rp_parameters(net)[i];
        naive_step(&n, twin, &s, loss, w);
        WORKS(rp_train(net, &o, &s.data, NULL));
        WORKS(rp_last_step(net, &last));
        for (size_t i = 0; i < count; i++) error = larger(error, fabs((double)rp_parameters(net)[i] - w[i]));
        size = n.length * largest_of(n.d, count);
        CHECK(error <= tolerance * size + 4 * (sizeof(rp_real) == 4 ? FLT_EPSILON : DBL_EPSILON) * largest_of(w, count),
              "%s, loss %d, step %d: off by %g of %g", net_names[which], (int)loss, step, error, size);
        CHECK(last.cap == n.cap && last.taken, "%s, loss %d, step %d: cap %d, not %d", net_names[which], (int)loss,
              step, (int)last.cap, (int)n.cap);
        CHECK(last.measured == measured_at(&o, step) && !last.undone, "step %d: measured %d", step, last.measured);
        CHECK(fabs((double)last.alpha - n.length) <= tolerance * n.length, "alpha %g, not %g", (double)last.alpha,
              n.length);
    }
    WORKS(rp_average(net, 1));
    for (size_t i = 0; i < count; i++) {
        double average = n.average[i] + 9.0 / (n.t + 9) * (w[i] - n.average[i]);
        CHECK(fabs((double)rp_parameters(net)[i] - average) <= tolerance * (fabs(average) + 0.01),
              "%s, loss %d: average %d is %g, not %g", net_names[which], (int)loss, (int)i,
              (double)rp_parameters(net)[i], average);
    }
    rp_net_free(net);
    rp_net_free(twin);
}

static void test_formulas(void) {
    for (int which = 0; which < NETS; which++)
        for (int loss = 0; loss < LOSSES; loss++) {
            rp_optimizer o = rp_partitioning();
            o.weight_decay = (rp_real)(loss % 2 ? 0.01 : 0);
            o.clip = (rp_real)((which + loss) % 3 ? 0 : 0.5);
            o.rule.kind = (rp_rule_kind)((which + loss) % 4 == 3 ? RP_PATHS : RP_SAMPLED);
            check_steps(which, (rp_loss_kind)loss, o, which != 5 && loss == 2);
        }
    for (int i = 1; i < 4; i++) { /* without one or both of the means */
        rp_optimizer o = rp_partitioning();
        if (i & 1) o.momentum = 0;
        if (i & 2) o.curvature_average = 0;
        check_steps(0, RP_SQUARED_ERROR, o, 0);
    }
}

/* g'Gg is that of the product. */
static void test_directional(void) {
    for (int which = 0; which < NETS * LOSSES; which++) {
        rp_loss_kind loss = (rp_loss_kind)(which / NETS);
        rp_net *net = net_of(which % NETS, loss, NULL);
        test_random random = {(uint64_t)which};
        static rp_real v[PARAMETERS], product[PARAMETERS];
        rp_real second;
        double sum = 0, size = 0;
        samples s;
        draw_samples(&s, loss, (uint64_t)which);
        for (size_t i = 0; i < rp_parameter_count(net); i++) v[i] = (rp_real)test_normal(&random);
        WORKS(rp_gauss_newton_directional(net, &s.data, v, &second));
        WORKS(rp_gauss_newton_vector(net, &s.data, v, product));
        for (size_t i = 0; i < rp_parameter_count(net); i++) {
            sum += (double)v[i] * (double)product[i];
            size += fabs((double)v[i] * (double)product[i]);
        }
        CHECK(fabs((double)second - sum) <= 1e-5 * size, "%s, loss %d: %g, not %g", net_names[which % NETS], (int)loss,
              (double)second, sum);
        v[1] = (rp_real)NAN;
        FAILS(rp_gauss_newton_directional(net, &s.data, v, &second), RP_ERR_NOT_FINITE, "direction 1");
        FAILS(rp_gauss_newton_directional(net, &s.data, v, NULL), RP_ERR_NULL, "second");
        rp_net_free(net);
    }
}

static void train(rp_net *net, const rp_optimizer *o, const samples *s, int steps) {
    for (int i = 0; i < steps; i++) WORKS(rp_train(net, o, &s->data, NULL));
}

/* Averages take the parameters' place and give it back, to the bit; meanwhile nothing trains. */
static void test_average(void) {
    rp_net *net = net_of(0, RP_SQUARED_ERROR, NULL), *twin;
    rp_optimizer o = rp_partitioning(), adam = rp_adam((rp_real)0.01);
    rp_real alpha;
    samples s;
    draw_samples(&s, RP_SQUARED_ERROR, 2);
    FAILS(rp_average(net, 1), RP_ERR_ORDER, "rp_average rate");
    CHECK(rp_average(NULL, 1) == RP_ERR_NULL, "NULL net");
    train(net, &o, &s, 11);
    FAILS(rp_average(net, 2), RP_ERR_VALUE, "rp_average averages 2");
    twin = rp_clone(net, NULL, 0);
    WORKS(rp_average(net, 1));
    CHECK(!same_parameters(net, twin), "the averages are the parameters");
    WORKS(rp_average(net, 1));
    FAILS(rp_train(net, &o, &s.data, NULL), RP_ERR_ORDER, "rp_train rp_average");
    WORKS(rp_backward(net, &s.data, &o.rule, NULL));
    FAILS(rp_direction(net, &o), RP_ERR_ORDER, "rp_direction rp_average");
    FAILS(rp_move(net, 1), RP_ERR_ORDER, "rp_move rp_average");
    FAILS(rp_step_length(net, &o, BATCH, 1, 0, 1, &alpha), RP_ERR_ORDER, "rp_step_length rp_average");
    WORKS(rp_average(net, 0));
    CHECK(same_parameters(net, twin), "other parameters came back");
    WORKS(rp_average(net, 0));
    train(net, &o, &s, 1);
    WORKS(rp_backward(twin, &s.data, &o.rule, NULL)); /* draws as net did */
    train(twin, &o, &s, 1);
    train(net, &o, &s, 30);
    train(twin, &o, &s, 30);
    WORKS(rp_average(net, 1));
    rp_parameters(net)[3] = 5; /* what is written meanwhile is where training goes on */
    memcpy(rp_parameters(twin), rp_parameters(net), bytes_of(net));
    WORKS(rp_average(net, 0));
    CHECK(same_parameters(net, twin), "what was written is lost");
    WORKS(rp_average(net, 1));
    train(net, &adam, &s, 1); /* another method, another state: the averages are the parameters from here on */
    FAILS(rp_average(net, 0), RP_ERR_ORDER, "rp_average");
    rp_net_free(net);
    rp_net_free(twin);
}

/* A fit ends with the averages, evaluates by them, and goes on from behind them: twice one epoch is two epochs. */
static void test_fit(void) {
    rp_net *one = net_of(0, RP_SQUARED_ERROR, NULL), *two = net_of(0, RP_SQUARED_ERROR, NULL), *net = one;
    rp_optimizer o = rp_partitioning();
    rp_fit_options options;
    rp_fit_report report;
    rp_score score;
    samples s;
    memset(&options, 0, sizeof options);
    draw_samples(&s, RP_SQUARED_ERROR, 4);
    options.batch = 4;
    options.validation = &s.data;
    options.epochs = 1;
    for (int i = 0; i < 6; i++) WORKS(rp_fit(one, &o, &s.data, &options, &report));
    WORKS(rp_evaluate(one, &s.data, &score, NULL));
    CHECK(score.loss == report.validation.loss, "loss %g, validation %g", (double)score.loss,
          (double)report.validation.loss);
    FAILS(rp_train(one, &o, &s.data, NULL), RP_ERR_ORDER, "rp_average");
    options.epochs = 6;
    options.keep_best = 1;
    net = two;
    WORKS(rp_fit(two, &o, &s.data, &options, &report));
    WORKS(rp_evaluate(two, &s.data, &score, NULL));
    CHECK(score.loss == report.best_loss, "loss %g, best %g", (double)score.loss, (double)report.best_loss);
    WORKS(rp_average(one, 0));
    WORKS(rp_average(two, 0));
    CHECK(same_parameters(one, two), "six fits of an epoch are not one of six");
    rp_net_free(one);
    rp_net_free(two);
}

/* A step that leads where the loss is not finite, or many times what it was, is undone. */
static void test_undone(void) {
    const double sizes[] = {1e30, 1e3, NAN};
    for (int i = 0; i < 3; i++) {
        rp_net *net = net_of(5, RP_SQUARED_ERROR, NULL), *twin;
        rp_optimizer o = rp_partitioning();
        rp_real before, loss;
        rp_step last;
        samples s;
        draw_samples(&s, RP_SQUARED_ERROR, 6);
        train(net, &o, &s, 25);
        twin = rp_clone(net, NULL, 0);
        WORKS(rp_last_step(net, &last));
        before = last.alpha;
        rp_parameters(net)[2] = (rp_real)sizes[i]; /* as if a step had led there */
        s.data.count = 0;
        FAILS(rp_train(net, &o, &s.data, NULL), RP_ERR_VALUE, "count");
        s.data.count = BATCH;
        WORKS(rp_train(net, &o, &s.data, &loss));
        WORKS(rp_last_step(net, &last));
        CHECK(last.undone && last.measured && last.alpha <= before / 2, "undone %d, alpha %g after %g", last.undone,
              (double)last.alpha, (double)before);
        CHECK(isfinite(loss) && isfinite(rp_parameters(net)[2]), "loss %g", (double)loss);
        train(net, &o, &s, 25);
        CHECK(rp_train(net, &o, &s.data, &loss) == RP_OK && loss < 1, "loss %g", (double)loss);
        s.x[5] = (rp_real)NAN; /* a batch that is bad in itself changes nothing */
        memcpy(rp_parameters(twin), rp_parameters(net), bytes_of(net));
        FAILS(rp_train(net, &o, &s.data, NULL), RP_ERR_NOT_FINITE, "input");
        CHECK(same_parameters(net, twin), "a failed step moved the parameters");
        rp_net_free(net);
        rp_net_free(twin);
    }
}

/* The limit after a step that was undone grows for ever; a net that is saved long after that opens. */
static void test_long_after_undone(void) {
    rp_net *net = net_of(5, RP_SQUARED_ERROR, NULL), *other;
    rp_optimizer o = rp_partitioning();
    rp_status status = RP_OK;
    size_t length = 0;
    samples s;
    char *file;
    draw_samples(&s, RP_SQUARED_ERROR, 6);
    train(net, &o, &s, 25);
    rp_parameters(net)[2] = (rp_real)1e3;
    for (int step = 0; step < 8000 && !status; step++) status = rp_train(net, &o, &s.data, NULL);
    WORKS(status);
    WORKS(rp_save_memory(net, NULL, 0, &length));
    file = (char *)malloc(length);
    WORKS(rp_save_memory(net, file, length, &length));
    other = rp_open_memory(file, length, NULL);
    CHECK(!rp_net_build(other, BATCH, 1), "%s", rp_error(other));
    rp_net_free(other);
    rp_net_free(net);
    free(file);
}

/* Targets whose squares are not finite, met exactly: what outputs of 0 would lose then is not known, nor kept. */
static void test_huge_targets(void) {
    rp_net *net = rp_net_text("input vector 1; dense 1", NULL);
    const rp_real huge = sizeof(rp_real) == 4 ? (rp_real)1e25 : (rp_real)1e200, x = (rp_real)0.5;
    rp_data data = rp_targeted(&x, &huge, 1);
    rp_optimizer o = rp_partitioning();
    static char file[1 << 16];
    size_t length = 0;
    WORKS(rp_net_build(net, 1, 1));
    rp_parameters(net)[0] = 0;
    rp_parameters(net)[1] = huge;
    WORKS(rp_train(net, &o, &data, NULL));
    WORKS(rp_save_memory(net, file, sizeof file - 1, &length));
    CHECK(strstr(file + 8, "\"rp.pace.zero\":\"0\""), "%s", file + 8); /* behind the header's length */
    rp_net_free(net);
}

/* What a batch may lose. */
static void test_limits(void) {
    for (int loss = 0; loss <= RP_POISSON; loss++) {
        rp_net *net = net_of(0, (rp_loss_kind)loss, NULL);
        rp_real least = -1, zero = -1, only = -1, kept;
        double wanted, expected;
        samples s;
        draw_samples(&s, (rp_loss_kind)loss, (uint64_t)loss);
        wanted = least_loss(&s, (rp_loss_kind)loss);
        expected = wanted + zero_loss(&s, (rp_loss_kind)loss, 1);
        WORKS(rp_loss_limits(net, &s.data, &least, &zero));
        CHECK(fabs((double)least - wanted) < 1e-5 * (1 + fabs(wanted)), "loss %d: %g, not %g", loss, (double)least,
              wanted);
        CHECK(fabs((double)zero - expected) < 1e-5 * (1 + fabs(expected)), "loss %d: %g, not %g", loss, (double)zero,
              expected);
        WORKS(rp_loss_limits(net, &s.data, NULL, &only));
        CHECK(only == zero, "%g, not %g", (double)only, (double)zero);
        WORKS(rp_loss_limits(net, &s.data, &only, NULL));
        CHECK(only == least, "%g, not %g", (double)only, (double)least);
        FAILS(rp_loss_limits(net, NULL, &least, &zero), RP_ERR_NULL, "rp_loss_limits data");
        kept = s.targets[3];
        s.targets[3] = (rp_real)NAN;
        FAILS(rp_loss_limits(net, &s.data, &least, &zero), RP_ERR_NOT_FINITE, "rp_loss_limits");
        s.targets[3] = kept;
        rp_net_free(net);
    }
    CHECK(rp_loss_limits(NULL, NULL, NULL, NULL) == RP_ERR_NULL, "a net of NULL");
}

/* In pieces, as several machines would: the same steps as rp_train's, to the rounding of one length. */
static void test_pieces(void) {
    rp_net *net = net_of(0, RP_POISSON, NULL), *whole = net_of(0, RP_POISSON, NULL);
    rp_optimizer o = rp_partitioning(), adam = rp_adam((rp_real)0.01);
    rp_real loss, least, zero, second, alpha;
    double most = 0;
    samples s;
    draw_samples(&s, RP_POISSON, 8);
    WORKS(rp_backward(net, &s.data, &o.rule, &loss));
    FAILS(rp_update(net, &o), RP_ERR_UNSUPPORTED, "rp_update rate rp_step_length");
    FAILS(rp_step_length(net, &o, BATCH, loss, 0, 1, &alpha), RP_ERR_ORDER, "rp_direction");
    WORKS(rp_direction(net, &o));
    FAILS(rp_step_length(net, &o, BATCH, loss, 0, -1, &alpha), RP_ERR_ORDER, "second measured");
    FAILS(rp_step_length(net, &o, BATCH, (rp_real)NAN, 0, 1, &alpha), RP_ERR_NOT_FINITE, "loss");
    FAILS(rp_step_length(net, &o, BATCH, loss, (rp_real)NAN, 1, &alpha), RP_ERR_NOT_FINITE, "at_zero");
    FAILS(rp_step_length(net, &o, 0, loss, 0, 1, &alpha), RP_ERR_VALUE, "samples 0");
    FAILS(rp_step_length(net, &adam, BATCH, loss, 0, 1, &alpha), RP_ERR_UNSUPPORTED, "rate");
    FAILS(rp_step_length(net, &o, BATCH, loss, 0, 1, NULL), RP_ERR_NULL, "alpha");
    for (int step = 0; step < 30; step++) {
        int measure = step < 20 || step % 8 == 0;
        if (step) CHECK(rp_measures(net, &o) == measure, "step %d", step); /* step 0's direction is there already */
        if (step) WORKS(rp_backward(net, &s.data, measure ? &o.rule : NULL, &loss));
        if (step) WORKS(rp_direction(net, &o));
        second = -1;
        if (measure) WORKS(rp_gauss_newton_directional(net, &s.data, rp_step_array(net), &second));
        WORKS(rp_loss_limits(net, &s.data, &least, &zero));
        WORKS(rp_step_length(net, &o, BATCH, loss - least, zero - least, second, &alpha));
        WORKS(rp_move(net, alpha));
    }
    train(whole, &o, &s, 30);
    for (size_t i = 0; i < rp_parameter_count(net); i++)
        most = larger(most, fabs((double)(rp_parameters(net)[i] - rp_parameters(whole)[i])));
    CHECK(most < (sizeof(rp_real) == 4 ? 2e-2 : 1e-8), "off by %g", most); /* thirty steps: errors add up */
    rp_net_free(net);
    rp_net_free(whole);
}

#define REFUSED(field, value) \
    do { \
        rp_optimizer with = rp_partitioning(); \
        with.field = value; \
        FAILS(rp_train(net, &with, &s.data, NULL), RP_ERR_VALUE, #field " rate"); \
    } while (0)
static rp_real any_schedule(void *user, int64_t step, rp_real rate) {
    (void)user;
    return rate + (rp_real)step;
}
static void test_refused(void) {
    rp_net *net = net_of(0, RP_SQUARED_ERROR, NULL);
    rp_optimizer o = rp_partitioning();
    rp_fit_options options;
    samples s;
    draw_samples(&s, RP_SQUARED_ERROR, 10);
    memset(&options, 0, sizeof options);
    REFUSED(rate_decay, (rp_real)0.5);
    REFUSED(decoupled, 1);
    REFUSED(cubic_sigma, 1);
    options.schedule = any_schedule;
    FAILS(rp_fit(net, &o, &s.data, &options, NULL), RP_ERR_VALUE, "rp_fit options.schedule rate");
    rp_net_free(net);
}

/* A frozen layer's average is its parameters, whenever it is frozen and released. */
static void test_frozen(void) {
    rp_net *net = net_of(0, RP_SQUARED_ERROR, NULL);
    rp_optimizer o = rp_partitioning();
    rp_real first;
    samples s;
    draw_samples(&s, RP_SQUARED_ERROR, 12);
    WORKS(rp_freeze(net, 0, 1));
    first = rp_parameters(net)[0];
    train(net, &o, &s, 30);
    WORKS(rp_average(net, 1));
    CHECK(rp_parameters(net)[0] == first, "%g, not %g", (double)rp_parameters(net)[0], (double)first);
    WORKS(rp_average(net, 0));
    rp_parameters(net)[0] = first = 2;
    WORKS(rp_freeze(net, 0, 0));
    WORKS(rp_average(net, 1));
    CHECK(fabs((double)(rp_parameters(net)[0] - first)) < 1e-6, "%g, not %g", (double)rp_parameters(net)[0],
          (double)first);
    rp_net_free(net);
}

/* Exclusive or, from a hundred beginnings. */
static void test_exclusive_or(void) {
    const rp_real x[] = {0, 0, 0, 1, 1, 0, 1, 1};
    const int labels[] = {0, 1, 1, 0};
    const rp_data data = rp_labelled(x, labels, 4);
    rp_optimizer o = rp_partitioning();
    int learned = 0;
    for (int seed = 1; seed <= 100; seed++) {
        rp_net *net = rp_net_new(rp_vector(2), NULL);
        rp_score score;
        rp_dense(net, 16);
        rp_activation(net, RP_TANH);
        rp_dense(net, 2);
        rp_loss(net, RP_SOFTMAX_CROSS_ENTROPY);
        WORKS(rp_net_build(net, 4, (uint64_t)seed));
        for (int i = 0; i < 500; i++) WORKS(rp_train(net, &o, &data, NULL));
        WORKS(rp_average(net, 1));
        WORKS(rp_evaluate(net, &data, &score, NULL));
        learned += score.accuracy == 1;
        rp_net_free(net);
    }
    CHECK(learned == 100, "%d of 100", learned);
}

int main(void) {
    test_formulas();
    test_directional();
    test_average();
    test_fit();
    test_undone();
    test_long_after_undone();
    test_huge_targets();
    test_limits();
    test_pieces();
    test_refused();
    test_frozen();
    test_exclusive_or();
    return test_end();
}
