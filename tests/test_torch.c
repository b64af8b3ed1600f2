/* The library against PyTorch: parameters and losses after some steps, for each optimizer, activation and loss. */
#include "../rp.h"
#include "test.h"
#include "torch_numbers.h"

enum { SAMPLES = TORCH_BATCHES * TORCH_BATCH, WIDEST = 8 };
static const double tolerance = sizeof(rp_real) == sizeof(double) ? 1e-9 : 1e-5;

/* Numbers in [-1, 1) that are exact in 32-bit floating point; Generator in torch_numbers.py. */
static uint32_t torch_bits(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}
static void torch_reals(uint32_t *state, double low, double high, rp_real *out, size_t count) {
    for (size_t i = 0; i < count; i++) out[i] = (rp_real)(low + (high - low) * torch_bits(state) / 16777216.0);
}

static rp_net *make_net(const struct torch_case *c) {
    rp_net *net = rp_net_new(rp_vector(c->widths[0]), NULL);
    for (int i = 1; i < 4 && c->widths[i]; i++) {
        int last = i == 3 || !c->widths[i + 1];
        rp_dense(net, c->widths[i]);
        if (last && !c->output) break;
        rp_activation(net, c->activation);
        if (c->slope > 0) rp_negative_slope(net, rp_layer_count(net) - 1, (rp_real)c->slope);
    }
    rp_loss(net, c->loss);
    if (c->delta > 0) rp_huber_delta(net, (rp_real)c->delta);
    CHECK(!rp_net_build(net, TORCH_BATCH, 1), "%s", rp_error(net));
    return net;
}

static rp_optimizer make_optimizer(const struct torch_case *c) {
    rp_real rate = (rp_real)c->rate;
    rp_optimizer optimizer = c->method == RP_SGD      ? rp_sgd(rate)
                             : c->method == RP_ADAM    ? rp_adam(rate)
                             : c->method == RP_ADAGRAD ? rp_adagrad(rate)
                                                       : rp_adadelta(rate);
    optimizer.momentum = (rp_real)c->momentum;
    optimizer.nesterov = c->nesterov;
    optimizer.weight_decay = (rp_real)c->weight_decay;
    optimizer.decoupled = c->decoupled;
    optimizer.rate_decay = (rp_real)c->decay;
    return optimizer;
}

/* One step, whole or in pieces: both must give the same. */
static rp_status take_step(rp_net *net, const rp_optimizer *optimizer, const rp_data *batch, int whole, rp_real *loss) {
    if (whole) return rp_train(net, optimizer, batch, loss);
    rp_status status = rp_backward(net, batch, NULL, loss);
    return status ? status : rp_update(net, optimizer);
}

typedef struct samples {
    int inputs, outputs, labelled;
    rp_real x[SAMPLES * WIDEST], targets[SAMPLES * WIDEST];
    int labels[SAMPLES];
} samples;

static void make_samples(const struct torch_case *c, uint32_t *state, samples *s) {
    s->inputs = c->widths[0];
s->outputs = c->widths[3] ? c->widths[3] : c->widths[2];
s->labelled = c->labels;
    double low = c->loss == RP_SQUARED_ERROR || c->loss == RP_HUBER ? -1 : 0;
    uint32_t classes = s->outputs > 1 ? (uint32_t)s->outputs : 2;
    torch_reals(state, -1, 1, s->x, (size_t)(SAMPLES * s->inputs));
    if (!c->labels) torch_reals(state, low, 1, s->targets, (size_t)(SAMPLES * s->outputs));
    for (int i = 0; c->labels && i < SAMPLES; i++) s->labels[i] = (int)((torch_bits(state) >> 8) % classes);
}

static rp_data batch_of(const samples *s, int step) {
    int start = step % TORCH_BATCHES * TORCH_BATCH;
    const rp_real *x = s->x + start * s->inputs;
    if (s->labelled) return rp_labelled(x, s->labels + start, TORCH_BATCH);
    return rp_targeted(x, s->targets + start * s->outputs, TORCH_BATCH);
}

static void check_close(const char *what, int number, int index, int whole, rp_real got, double expected) {
    CHECK(fabs((double)got - expected) <= tolerance,
          "%s %d of case %d, whole %d: %.12g, not %.12g", what, number, index, whole, (double)got, expected);
}

/* Returns the number of parameters. */
static size_t check_case(int index, int whole, const double *expected) {
    const struct torch_case *c = &torch_cases[index];
    rp_net *net = make_net(c);
    rp_optimizer optimizer = make_optimizer(c);
    size_t count = rp_parameter_count(net);
    rp_real *parameters = rp_parameters(net), loss = 0;
    uint32_t state = 1;
    samples s;
    torch_reals(&state, -0.5, 0.5, parameters, count);
    make_samples(c, &state, &s);
    for (int step = 0; step < TORCH_STEPS; step++) {
        rp_data batch = batch_of(&s, step);
        CHECK(!take_step(net, &optimizer, &batch, whole, &loss), "case %d, step %d: %s", index, step, rp_error(net));
        if (step == 0) check_close("loss before step", step, index, whole, loss, c->first_loss);
        if (step == TORCH_STEPS - 1) check_close("loss before step", step, index, whole, loss, c->last_loss);
    }
    for (size_t i = 0; i < count; i++) check_close("parameter", (int)i, index, whole, parameters[i], expected[i]);
    rp_net_free(net);
    return count;
}

static void check_default(const char *name, rp_real got, double expected) {
    CHECK(got == (rp_real)expected, "%s is %g, not %g", name, (double)got, expected);
}

static void check_defaults(void) {
    rp_optimizer sgd = rp_sgd(1), adam = rp_adam(1), adagrad = rp_adagrad(1), adadelta = rp_adadelta(1);
    const rp_optimizer *all[] = {&sgd, &adam, &adagrad, &adadelta};
    for (int i = 0; i < 4; i++) {
        check_default("rate", all[i]->rate, 1);
        check_default("momentum", all[i]->momentum, torch_defaults.momentum);
        check_default("weight_decay", all[i]->weight_decay, torch_defaults.weight_decay);
        CHECK(!all[i]->nesterov && !all[i]->decoupled && all[i]->rate_decay == 0, "method %d", (int)all[i]->method);
    }
    check_default("Adam's beta1", adam.beta1, torch_defaults.beta1);
    check_default("Adam's beta2", adam.beta2, torch_defaults.beta2);
    check_default("Adam's epsilon", adam.epsilon, torch_defaults.adam_epsilon);
    check_default("Adagrad's epsilon", adagrad.epsilon, torch_defaults.adagrad_epsilon);
    check_default("Adadelta's rho", adadelta.rho, torch_defaults.rho);
    check_default("Adadelta's epsilon", adadelta.epsilon, torch_defaults.adadelta_epsilon);
}

int main(void) {
    int cases = (int)(sizeof torch_cases / sizeof *torch_cases);
    size_t total = sizeof torch_parameters / sizeof *torch_parameters;
    check_defaults();
    for (int whole = 0; whole < 2; whole++) {
        size_t offset = 0;
        for (int i = 0; i < cases; i++) offset += check_case(i, whole, torch_parameters + offset);
        CHECK(offset == total, "%d parameters, not %d", (int)offset, (int)total);
    }
    return test_end();
}
