/* rp_fit: what a run over a data set does, sample by sample and epoch by epoch, and that all optimizers learn by it. */
#include "../rp.h"
#include "optimizers.h"
#include "options.h"
#include "test.h"

enum { SAMPLES = 50, INPUTS = 3, CLASSES = 4, BATCH = 8, STEPS = (SAMPLES + BATCH - 1) / BATCH };

typedef struct problem { /* weighted samples of random classes */
    rp_real inputs[SAMPLES * INPUTS], weights[SAMPLES];
    int labels[SAMPLES];
    rp_data data;
} problem;

static void make_problem(problem *p, uint64_t seed) {
    test_random random = {seed};
    for (int i = 0; i < SAMPLES * INPUTS; i++) p->inputs[i] = (rp_real)test_normal(&random);
    for (int i = 0; i < SAMPLES; i++) {
        p->weights[i] = (rp_real)test_uniform(&random, 0, 2);
        p->labels[i] = test_int(&random, 0, CLASSES - 1);
    }
    p->data = rp_labelled(p->inputs, p->labels, SAMPLES);
    p->data.weights = p->weights;
}

static rp_net *make_net(int inputs, int hidden, int outputs, rp_loss_kind loss, int batch) {
    rp_net *net = rp_net_new(rp_vector(inputs), NULL);
    if (hidden) rp_dense(net, hidden), rp_activation(net, RP_TANH);
    rp_dense(net, outputs);
    rp_loss(net, loss);
    if (!CHECK(rp_net_build(net, batch, 1) == RP_OK, "%s", rp_error(net))) exit(test_end());
    return net;
}
static rp_net *classifier(void) { return make_net(INPUTS, 5, CLASSES, RP_SOFTMAX_CROSS_ENTROPY, BATCH); }

/* A net of one input and one output, y = weight x, of batches up to `batch`. */
static rp_net *line(rp_real weight, int batch) {
    rp_net *net = make_net(1, 0, 1, RP_SQUARED_ERROR, batch);
    rp_parameters(net)[0] = weight, rp_parameters(net)[1] = 0;
    return net;
}

static int same_parameters(rp_net *a, rp_net *b) {
    return !memcmp(rp_parameters(a), rp_parameters(b), rp_parameter_count(a) * sizeof(rp_real));
}

/* Frees both; fails if their parameters differ in a bit. */
static void expect_same(rp_net *a, rp_net *b, const char *what) {
    CHECK(same_parameters(a, b), "%s: parameters differ", what);
    rp_net_free(a), rp_net_free(b);
}

/* A step of rp_train on the samples from `at` on. */
static rp_status hand_step(rp_net *net, const rp_optimizer *optimizer, const problem *p, int at) {
    rp_data batch = p->data;
    batch.count = SAMPLES - at < BATCH ? SAMPLES - at : BATCH;
    batch.inputs += at * INPUTS, batch.labels += at, batch.weights += at;
    return rp_train(net, optimizer, &batch, NULL);
}
static void hand_steps(rp_net *net, const rp_optimizer *optimizer, const problem *p, int steps) {
    for (int step = 0; step < steps; step++) {
        rp_status status = hand_step(net, optimizer, p, step % STEPS * BATCH);
        CHECK(status == RP_OK, "step %d: %s", step, rp_error(net));
    }
}

/* A fill callback, and what it may do wrong at batch `wrong_at`. */
typedef enum fault {
    FAULT_NONE,
    FAULT_STOP,
    FAULT_TOO_MANY,
    FAULT_EMPTY,
    FAULT_NO_INPUTS,
    FAULT_LABEL,
    FAULT_NAN
} fault;
typedef struct stream {
    const problem *from;
    fault wrong;
    int wrong_at, calls, next;
} stream;

static int fill(void *user, int index, rp_data *batch) {
    static const int bad_labels[BATCH] = {0, CLASSES};
    static rp_real bad_inputs[BATCH * INPUTS];
    stream *s = (stream *)user;
    int at = index * BATCH;
    s->calls++;
    CHECK(index == (index ? s->next : 0), "batch %d comes after %d", index, s->next - 1);
    s->next = index + 1;
    if (at >= SAMPLES) return 0;
    *batch = s->from->data;
    batch->count = SAMPLES - at < BATCH ? SAMPLES - at : BATCH;
    batch->inputs += at * INPUTS, batch->labels += at, batch->weights += at;
    if (index != s->wrong_at) return 1;
    bad_inputs[INPUTS] = (rp_real)NAN;
    switch (s->wrong) {
    case FAULT_NONE: break;
    case FAULT_STOP: return -7;
    case FAULT_TOO_MANY: batch->count = BATCH + 1; break;
    case FAULT_EMPTY: batch->count = 0; break;
    case FAULT_NO_INPUTS: batch->inputs = NULL; break;
    case FAULT_LABEL: batch->labels = bad_labels; break;
    case FAULT_NAN: batch->inputs = bad_inputs; break;
    }
    return 1;
}

/* In order, from memory or streamed, a fit is a loop of rp_train, the last batch partial. */
static void test_keep_order(void) {
    problem p;
    make_problem(&p, 1);
    for (int i = 0; i < OPTIMIZERS; i++) {
        named_optimizer o = optimizer_of(i);
        rp_net *by_hand = classifier(), *memory = classifier(), *flow = classifier();
        rp_fit_options options = fit_of(0);
        rp_fit_report report;
        stream s = {&p, FAULT_NONE, 0, 0, 0};
        rp_data data = rp_streamed(fill, &s);
        options.epochs = 3, options.keep_order = 1;
        hand_steps(by_hand, &o.with, &p, 3 * STEPS);
        CHECK(i < RATED || !rp_average(by_hand, 1), "%s", rp_error(by_hand));
        CHECK(!rp_fit(memory, &o.with, &p.data, &options, &report), "%s: %s", o.name, rp_error(memory));
        CHECK(report.epochs == 3 && report.steps == 3 * STEPS, "%d epochs, %d steps", report.epochs, (int)report.steps);
        CHECK(report.stopped == 0 && report.best_epoch == -1, "stopped %d, best %d", report.stopped, report.best_epoch);
        options.keep_order = 0;
        CHECK(!rp_fit(flow, &o.with, &data, &options, &report), "%s: %s", o.name, rp_error(flow));
        CHECK(s.calls == 3 * (STEPS + 1) && report.steps == 3 * STEPS, "%d calls, %d steps", s.calls,
              (int)report.steps);
        CHECK(same_parameters(by_hand, flow), "%s: streamed data give other parameters", o.name);
        rp_net_free(flow);
        expect_same(by_hand, memory, o.name);
    }
}

/* Without options, and without a report: one epoch, shuffled with seed 0, in the batches of the build. */
static void test_defaults(void) {
    problem p;
    rp_optimizer o = rp_adam((rp_real)0.01);
    rp_net *plain = classifier(), *zero = classifier();
    rp_fit_options options = fit_of(0);
    rp_fit_report report;
    make_problem(&p, 2);
    CHECK(!rp_fit(plain, &o, &p.data, NULL, NULL), "%s", rp_error(plain));
    CHECK(!rp_fit(zero, &o, &p.data, &options, &report), "%s", rp_error(zero));
    CHECK(report.epochs == 1 && report.steps == STEPS && report.loss > 0, "%d epochs, loss %g", report.epochs,
          report.loss);
    CHECK(report.validation.count == 0 && report.best_epoch == -1, "%d", (int)report.validation.count);
    expect_same(plain, zero, "defaults");
}

static void test_seeds(void) {
    problem p;
    rp_optimizer o = rp_sgd((rp_real)0.1);
    rp_net *a = classifier(), *b = classifier(), *other = classifier();
    rp_fit_options options = fit_of(0);
    make_problem(&p, 3);
    options.seed = 1;
    CHECK(!rp_fit(a, &o, &p.data, &options, NULL) && !rp_fit(b, &o, &p.data, &options, NULL), "%s", rp_error(a));
    options.seed = 2;
    CHECK(!rp_fit(other, &o, &p.data, &options, NULL), "%s", rp_error(other));
    CHECK(!same_parameters(a, other), "another seed shuffles alike");
    rp_net_free(other);
    expect_same(a, b, "one seed");
}

/* Watches which samples an epoch has seen: each has a power of two for its loss, so that the sum of losses is a set. */
enum { WATCHED = 20, EPOCHS = 4 };
typedef struct watch {
    int batch;
    long seen, order[EPOCHS][WATCHED]; /* the set of this epoch, and what each step added to it */
} watch;

static int watch_step(void *user, const rp_progress *progress) {
    watch *w = (watch *)user;
    int done = progress->step * w->batch < WATCHED ? progress->step * w->batch : WATCHED, bits = 0;
    long seen = lround((double)progress->loss * done);
    if (progress->epoch_done) {
        CHECK(w->seen == (1L << WATCHED) - 1, "the epoch saw the set %lx", w->seen);
        w->seen = 0;
        return 0;
    }
    for (int i = 0; i < WATCHED; i++) bits += (int)(seen >> i & 1);
    CHECK(bits == done && (seen & w->seen) == w->seen, "step %d: the set %lx became %lx", progress->step, w->seen,
          seen);
    w->order[progress->epoch][progress->step - 1] = seen - w->seen;
    w->seen = seen;
    return 0;
}

/* Every epoch visits each sample once, with its own target and weight, in another order. y = x, the target is x + 2. */
static void test_shuffling(void) {
    rp_real x[WATCHED], t[WATCHED], weights[WATCHED];
    rp_optimizer o = rp_sgd((rp_real)0.1);
    rp_net *net = line(1, 7);
    rp_freeze(net, 0, 1);
    for (int i = 0; i < WATCHED; i++) {
        x[i] = (rp_real)(8 * i);
        t[i] = x[i] + 2;
        weights[i] = (rp_real)ldexp(0.5, i);
    }
    rp_data data = rp_targeted(x, t, WATCHED);
    data.weights = weights;
    for (int batch = 1; batch <= 7; batch++) {
        watch w = {0, 0, {{0}}};
        rp_fit_options options = fit_of(0);
        w.batch = options.batch = batch, options.epochs = EPOCHS, options.progress = watch_step, options.user = &w;
        CHECK(!rp_fit(net, &o, &data, &options, NULL), "%s", rp_error(net));
        for (int a = 0; a < EPOCHS; a++)
            for (int b = 0; b < a; b++)
                CHECK(memcmp(w.order[a], w.order[b], sizeof w.order[a]), "epochs %d and %d are in one order", a, b);
        options.keep_order = 1;
        CHECK(!rp_fit(net, &o, &data, &options, NULL), "%s", rp_error(net));
        CHECK(w.order[0][0] == (1 << batch) - 1 && !memcmp(w.order[0], w.order[1], sizeof w.order[0]), "%lx",
              w.order[0][0]);
    }
    rp_net_free(net);
}

/* Labels move with their samples: the net is the identity, with a margin. */
static void test_shuffled_labels(void) {
    rp_real x[16 * 16] = {0};
    int labels[16];
    rp_optimizer o = rp_sgd(0);
    rp_net *net = make_net(16, 0, 16, RP_SOFTMAX_CROSS_ENTROPY, 5);
    rp_fit_report report;
    memset(&report, 0, sizeof report);
    memset(rp_parameters(net), 0, rp_parameter_count(net) * sizeof(rp_real));
    for (int i = 0; i < 16; i++) {
        labels[i] = i;
        x[17 * i] = 1;
        rp_parameters(net)[17 * i] = 20;
    }
    rp_data data = rp_labelled(x, labels, 16);
    CHECK(!rp_fit(net, &o, &data, NULL, &report) && report.loss < 1e-6, "loss %g, %s", report.loss, rp_error(net));
    rp_net_free(net);
}

/* Bad batches at the start and in the middle: their status, and what was learned before is kept. */
static void test_bad_streams(void) {
    const struct {
        fault wrong;
        rp_status status;
    } cases[] = {{FAULT_STOP, RP_ERR_STOPPED},   {FAULT_TOO_MANY, RP_ERR_VALUE}, {FAULT_EMPTY, RP_ERR_VALUE},
                 {FAULT_NO_INPUTS, RP_ERR_NULL}, {FAULT_LABEL, RP_ERR_LABEL},    {FAULT_NAN, RP_ERR_NOT_FINITE}};
    problem p;
    rp_optimizer o = rp_adam((rp_real)0.01);
    make_problem(&p, 4);
    for (int i = 0; i < 6; i++) {
        for (int at = 0; at <= 3; at += 3) {
            rp_net *net = classifier(), *by_hand = classifier();
            stream s = {&p, cases[i].wrong, at, 0, 0};
            rp_data data = rp_streamed(fill, &s);
            rp_fit_report report;
            rp_score score;
            rp_status status = rp_fit(net, &o, &data, NULL, &report);
            CHECK(status == cases[i].status && rp_error(net)[0], "case %d: %d, '%s'", i, status, rp_error(net));
            CHECK(report.steps == at && report.epochs == 0, "case %d: %d steps", i, (int)report.steps);
            status = rp_evaluate(net, &data, &score, NULL);
            CHECK(status == cases[i].status, "case %d evaluated: %d", i, status);
            hand_steps(by_hand, &o, &p, at);
            expect_same(net, by_hand, "stopped by bad data");
        }
    }
}

static int fill_nothing(void *user, int index, rp_data *batch) { return (void)user, (void)index, (void)batch, 0; }

static void test_empty_stream(void) {
    rp_data data = rp_streamed(fill_nothing, NULL);
    rp_optimizer o = rp_sgd(1);
    rp_score score;
    rp_net *net = classifier();
    CHECK(rp_fit(net, &o, &data, NULL, NULL) == RP_ERR_VALUE, "'%s'", rp_error(net));
    CHECK(rp_evaluate(net, &data, &score, NULL) == RP_ERR_VALUE, "'%s'", rp_error(net));
    rp_net_free(net);
}

static void test_evaluate_streamed(void) {
    problem p;
    rp_net *net = classifier();
    stream s = {&p, FAULT_NONE, 0, 0, 0};
    rp_data data = rp_streamed(fill, &s);
    rp_score memory, flow;
    make_problem(&p, 5);
    CHECK(!rp_evaluate(net, &p.data, &memory, NULL) && !rp_evaluate(net, &data, &flow, NULL), "%s", rp_error(net));
    CHECK(memory.loss == flow.loss && memory.accuracy == flow.accuracy, "%g, %g", memory.loss, flow.loss);
    CHECK(memory.count == SAMPLES && flow.count == SAMPLES, "%d, %d", (int)memory.count, (int)flow.count);
    rp_net_free(net);
}

/* Training pulls y towards 1; validation wants 1/2, so it gets better, then worse. x = 1 throughout. */
static const rp_real one[] = {1}, half[] = {(rp_real)0.5};

static void test_validation(void) {
    rp_optimizer o = rp_sgd((rp_real)0.05);
    const rp_data towards_one = rp_targeted(one, one, 1), towards_half = rp_targeted(one, half, 1);
    for (int keep_best = 0; keep_best < 2; keep_best++) {
        rp_net *net = line(0, 1), *by_hand = line(0, 1);
        rp_fit_options options = fit_of(0);
        rp_fit_report report;
        rp_score score;
        rp_real best = 1, at_best[2] = {0, 0}, at_end[2] = {0, 0};
        int best_epoch = -1, epochs = 0;
        for (; best_epoch < 0 || epochs <= best_epoch + 3; epochs++) {
            rp_train(by_hand, &o, &towards_one, NULL);
            CHECK(!rp_evaluate(by_hand, &towards_half, &score, NULL), "%s", rp_error(by_hand));
            memcpy(at_end, rp_parameters(by_hand), sizeof at_end);
            if (score.loss < best) best = score.loss, best_epoch = epochs, memcpy(at_best, at_end, sizeof at_best);
        }
        options.epochs = 100, options.validation = &towards_half, options.patience = 3, options.keep_best = keep_best;
        CHECK(!rp_fit(net, &o, &towards_one, &options, &report), "%s", rp_error(net));
        CHECK(best_epoch > 1 && report.best_epoch == best_epoch, "best epoch %d, not %d", report.best_epoch,
              best_epoch);
        CHECK(report.best_loss == best && report.validation.loss == score.loss, "%g %g", report.best_loss,
              report.validation.loss);
        CHECK(report.stopped == 1 && report.epochs == epochs, "stopped %d after %d, not %d", report.stopped,
              report.epochs, epochs);
        CHECK(report.validation.count == 1 && report.validation.accuracy == -1, "accuracy %g",
              report.validation.accuracy);
        CHECK(!memcmp(rp_parameters(net), keep_best ? at_best : at_end, sizeof at_end), "keep_best %d", keep_best);
        rp_net_free(net), rp_net_free(by_hand);
    }
}

/* A validation set that cannot be evaluated ends the fit with its status. */
static void test_bad_validation(void) {
    problem p;
    rp_optimizer o = rp_sgd((rp_real)0.1);
    rp_net *net = classifier();
    stream s = {&p, FAULT_STOP, 2, 0, 0};
    rp_data data = rp_streamed(fill, &s);
    rp_fit_options options = fit_of(0);
    make_problem(&p, 6);
    options.validation = &data;
    CHECK(rp_fit(net, &o, &p.data, &options, NULL) == RP_ERR_STOPPED && strstr(rp_error(net), "validation"), "'%s'",
          rp_error(net));
    rp_net_free(net);
}

static int spoil_labels(void *user, const rp_progress *progress) {
    (void)progress;
    *(int *)user = 100000000;
    return 0;
}

/* Data that the program changes between two epochs are checked anew. */
static void test_spoilt_validation(void) {
    problem p;
    int labels[SAMPLES] = {0};
    rp_optimizer o = rp_sgd((rp_real)0.1);
    rp_net *net = classifier();
    rp_fit_options options = fit_of(0);
    make_problem(&p, 7);
    rp_data validation = rp_labelled(p.data.inputs, labels, SAMPLES);
    options.epochs = 2, options.progress = spoil_labels, options.user = labels, options.validation = &validation;
    CHECK(rp_fit(net, &o, &p.data, &options, NULL) == RP_ERR_LABEL && strstr(rp_error(net), "validation"), "'%s'",
          rp_error(net));
    rp_net_free(net);
}

typedef struct record {
    rp_progress at[64];
    int calls, stop_at; /* stop_at: the call, from 1, that stops */
} record;

static int record_progress(void *user, const rp_progress *progress) {
    record *r = (record *)user;
    if (r->calls < 64) r->at[r->calls] = *progress;
    return ++r->calls == r->stop_at;
}

/* One call after each step and one after each epoch, with what is known by then. */
static void test_progress(int stream_them) {
    problem p;
    record r = {{{0}}, 0, 0};
    stream s = {&p, FAULT_NONE, 0, 0, 0};
    rp_data data = rp_streamed(fill, &s);
    rp_optimizer o = rp_sgd((rp_real)0.1);
    rp_net *net = classifier();
    rp_fit_options options = fit_of(0);
    rp_fit_report report;
    make_problem(&p, 7);
    options.epochs = 2, options.progress = record_progress, options.user = &r, options.validation = &p.data;
    CHECK(!rp_fit(net, &o, stream_them ? &data : &p.data, &options, &report), "%s", rp_error(net));
    CHECK(r.calls == 2 * (STEPS + 1), "%d calls", r.calls);
    for (int i = 0; i < r.calls && i < 64; i++) {
        const rp_progress *q = &r.at[i];
        int epoch = i / (STEPS + 1), step = i % (STEPS + 1), done = step == STEPS;
        int known = !stream_them || epoch || done;
        CHECK(q->epoch == epoch && q->epochs == 2, "call %d: epoch %d of %d", i, q->epoch, q->epochs);
        CHECK(q->step == (done ? STEPS : step + 1) && q->steps == (known ? STEPS : 0), "call %d: step %d of %d", i,
              q->step, q->steps);
        CHECK(q->epoch_done == done && q->loss > 0, "call %d: done %d, loss %g", i, q->epoch_done, q->loss);
        CHECK(q->validation.count == (epoch || done ? SAMPLES : 0), "call %d: %d validated", i,
              (int)q->validation.count);
    }
    CHECK(r.at[r.calls - 1].loss == report.loss, "%g, %g", r.at[r.calls - 1].loss, report.loss);
    CHECK(r.at[r.calls - 1].validation.loss == report.validation.loss, "%g", report.validation.loss);
    rp_net_free(net);
}

static void test_progress_stops(void) {
    problem p;
    rp_optimizer o = rp_adam((rp_real)0.01);
    make_problem(&p, 8);
    for (int stop_at = 1; stop_at <= STEPS + 3; stop_at++) {
        record r = {{{0}}, 0, 0};
        rp_net *net = classifier(), *by_hand = classifier();
        rp_fit_options options = fit_of(0);
        rp_fit_report report;
        int steps = stop_at > STEPS ? stop_at - 1 : stop_at; /* one call is the epoch's */
        r.stop_at = stop_at;
        options.epochs = 3, options.keep_order = 1, options.progress = record_progress, options.user = &r;
        CHECK(!rp_fit(net, &o, &p.data, &options, &report), "%s", rp_error(net));
        CHECK(report.stopped == 2 && report.steps == steps, "stopped %d after %d steps", report.stopped,
              (int)report.steps);
        CHECK(report.epochs == (stop_at > STEPS), "stopped at call %d, %d epochs finished", stop_at, report.epochs);
        hand_steps(by_hand, &o, &p, steps);
        expect_same(net, by_hand, "stopped by the callback");
    }
}

static rp_real schedule(void *user, int64_t step, rp_real rate) {
    int64_t *next = (int64_t *)user;
    CHECK(step == (*next)++, "step %d", (int)step);
    return rate / (rp_real)(1 + step);
}
static rp_real bad_schedule(void *user, int64_t step, rp_real rate) { return step == *(int64_t *)user ? -rate : rate; }

static void test_schedule(void) {
    problem p;
    rp_optimizer o = rp_sgd((rp_real)0.1), now = o;
    rp_net *net = classifier(), *by_hand = classifier();
    rp_fit_options options = fit_of(0);
    int64_t next = 0, bad = 3;
    make_problem(&p, 9);
    options.epochs = 2, options.keep_order = 1, options.schedule = schedule, options.user = &next;
    CHECK(!rp_fit(net, &o, &p.data, &options, NULL) && next == 2 * STEPS, "%d calls, %s", (int)next, rp_error(net));
    for (int step = 0; step < 2 * STEPS; step++) {
        now.rate = o.rate / (rp_real)(1 + step);
        hand_step(by_hand, &now, &p, step % STEPS * BATCH);
    }
    CHECK(same_parameters(net, by_hand), "a schedule differs from rates set by hand");
    options.schedule = bad_schedule, options.user = &bad;
    CHECK(rp_fit(net, &o, &p.data, &options, NULL) == RP_ERR_VALUE && strstr(rp_error(net), "rate"), "'%s'",
          rp_error(net));
    hand_steps(by_hand, &o, &p, (int)bad);
    expect_same(net, by_hand, "stopped by a bad rate");
}

/* Far from its target Huber's gradient is -1: the bias moves by the very rate. */
static void test_decay(void) {
    const rp_real zero[] = {0}, far_away[] = {1000};
    rp_data data = rp_targeted(zero, far_away, 1);
    rp_optimizer o = rp_sgd((rp_real)0.5);
    rp_net *net = make_net(1, 0, 1, RP_HUBER, 1);
    o.rate_decay = (rp_real)0.9, o.rate_decay_steps = 4;
    for (int step = 0; step < 20; step++) {
        rp_real before = rp_parameters(net)[1];
        CHECK(!rp_fit(net, &o, &data, NULL, NULL), "%s", rp_error(net));
        double moved = rp_parameters(net)[1] - before, expected = 0.5 * pow(0.9, step / 4.0);
        CHECK(fabs(moved - expected) < 1e-5, "step %d moves %g, not %g", step, moved, expected);
    }
    rp_net_free(net);
}

/* The accuracy after a fit with every optimizer. */
static void check_learned(const char *what, const rp_data *data, int hidden, int batch, int epochs, double accuracy) {
    for (int i = 0; i < OPTIMIZERS; i++) {
        named_optimizer o = optimizer_of(i);
        rp_net *net = make_net(2, hidden, 2, RP_SOFTMAX_CROSS_ENTROPY, batch);
        rp_fit_options options = fit_of(0);
        rp_score score;
        memset(&score, 0, sizeof score);
        options.epochs = epochs, options.seed = 1;
        CHECK(!rp_fit(net, &o.with, data, &options, NULL) && !rp_evaluate(net, data, &score, NULL), "%s",
              rp_error(net));
        CHECK((double)score.accuracy >= accuracy, "%s by %s: accuracy %g, loss %g", what, o.name, score.accuracy,
              score.loss);
        rp_net_free(net);
    }
}

static void test_exclusive_or(void) {
    const rp_real x[] = {0, 0, 0, 1, 1, 0, 1, 1};
    const int labels[] = {0, 1, 1, 0};
    const rp_data data = rp_labelled(x, labels, 4);
    check_learned("exclusive or", &data, 8, 4, 200, 1);
}

static void test_spiral(void) { /* two arms of most of a turn each */
    enum { POINTS = 100 };
    rp_real x[2 * POINTS];
    int labels[POINTS];
    for (int i = 0; i < POINTS; i++) {
        double radius = 0.2 + 1.8 * (i / 2) / (POINTS / 2), angle = 2.5 * radius + 3.141592653589793 * (i % 2);
        x[2 * i] = (rp_real)(radius * cos(angle)), x[2 * i + 1] = (rp_real)(radius * sin(angle));
        labels[i] = i % 2;
    }
    rp_data data = rp_labelled(x, labels, POINTS);
    check_learned("spiral", &data, 16, 20, 80, 0.98);
}

int main(void) {
    test_keep_order();
    test_defaults();
    test_seeds();
    test_shuffling();
    test_shuffled_labels();
    test_bad_streams();
    test_empty_stream();
    test_evaluate_streamed();
    test_validation();
    test_bad_validation();
    test_spoilt_validation();
    test_progress(0);
    test_progress(1);
    test_progress_stops();
    test_schedule();
    test_decay();
    test_exclusive_or();
    test_spiral();
    return test_end();
}
