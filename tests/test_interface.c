/* What the interface promises beside numbers: data, what outputs mean, copies, warnings, descriptions of layers, clipping,
   fields of other methods, epochs that go on. */
#include "../rp.h"
#include "calls.h"

enum { INPUTS = 5, CLASSES = 3, SAMPLES = 23 };

typedef struct samples {
    rp_real x[SAMPLES * INPUTS], targets[SAMPLES * CLASSES], weights[SAMPLES];
    int labels[SAMPLES], sides[SAMPLES];
} samples;

static samples draw_samples(uint64_t seed) {
    test_random random = {seed};
    samples s;
    for (int i = 0; i < SAMPLES * INPUTS; i++) s.x[i] = (rp_real)test_normal(&random);
    for (int i = 0; i < SAMPLES * CLASSES; i++) s.targets[i] = (rp_real)test_uniform(&random, 0, 1);
    for (int i = 0; i < SAMPLES; i++) {
        s.labels[i] = test_int(&random, 0, CLASSES - 1);
        s.sides[i] = test_int(&random, 0, 1);
        s.weights[i] = (rp_real)test_uniform(&random, 0, 2);
    }
    return s;
}

static rp_net *small_net(int outputs, rp_loss_kind loss, int batch, const rp_config *config) {
    rp_net *net = rp_net_new(rp_vector(INPUTS), config);
    rp_dense(net, 7);
    rp_activation(net, RP_TANH);
    rp_dense(net, outputs);
    rp_loss(net, loss);
    WORKS(rp_net_build(net, batch, 3));
    return net;
}

static double largest_difference(const rp_real *a, const rp_real *b, int count) {
    double most = 0;
    for (int i = 0; i < count; i++) most = larger(most, fabs((double)a[i] - (double)b[i]));
    return most;
}

static int same_parameters(rp_net *a, rp_net *b) {
    size_t count = rp_parameter_count(a);
    return count == rp_parameter_count(b) && !memcmp(rp_parameters(a), rp_parameters(b), count * sizeof(rp_real));
}

static void test_version(void) {
    char text[32];
    snprintf(text, sizeof text, "%d.%d.%d", RP_VERSION_MAJOR, RP_VERSION_MINOR, RP_VERSION_PATCH);
    CHECK(!strcmp(rp_version(), RP_VERSION) && !strcmp(text, RP_VERSION), "%s, %s, %s", rp_version(), RP_VERSION, text);
}

/* Constructors fill what they are given, and nothing else. */
static void test_constructors(void) {
    samples s = draw_samples(1);
    rp_data labelled = rp_labelled(s.x, s.labels, SAMPLES), targeted = rp_targeted(s.x, s.targets, 4);
    CHECK(labelled.inputs == s.x && labelled.labels == s.labels && labelled.count == SAMPLES, "count %d",
          labelled.count);
    CHECK(!labelled.targets && !labelled.weights && !labelled.fill && !labelled.inputs_width, "not all zero");
    CHECK(targeted.inputs == s.x && targeted.targets == s.targets && targeted.count == 4, "count %d", targeted.count);
    CHECK(!targeted.labels && !targeted.targets_width, "not all zero");
}

static void test_widths(void) {
    samples s = draw_samples(2);
    rp_net *net = small_net(CLASSES, RP_SQUARED_ERROR, SAMPLES, NULL);
    rp_data data = rp_targeted(s.x, s.targets, SAMPLES);
    rp_optimizer optimizer = rp_sgd((rp_real)0.1);
    data.inputs_width = INPUTS;
    data.targets_width = CLASSES;
    WORKS(rp_train(net, &optimizer, &data, NULL));
    data.inputs_width = INPUTS - 1;
    FAILS(rp_train(net, &optimizer, &data, NULL), RP_ERR_SHAPE, "rp_train data.inputs_width 4 5");
    data.inputs_width = 0;
    data.targets_width = 1;
    FAILS(rp_fit(net, &optimizer, &data, NULL, NULL), RP_ERR_SHAPE, "rp_fit data.targets_width 1 3");
    rp_net_free(net);
}

/* Two images of 2x2 and two labels; the files in each other's place, and counts that differ, are mistakes. */
static void test_idx_data(void) {
    const unsigned char images[] = {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 51, 102, 153, 204, 255, 0, 255};
    const unsigned char labels[] = {0, 0, 8, 1, 0, 0, 0, 2, 1, 0}, more[] = {0, 0, 8, 1, 0, 0, 0, 3, 1, 0, 1};
    rp_idx image, label, others, swapped;
    rp_score score;
    rp_net *net = rp_net_new(rp_vector(4), NULL);
    rp_dense(net, 2);
    rp_loss(net, RP_SOFTMAX_CROSS_ENTROPY);
    WORKS(rp_net_build(net, 2, 1));
    WORKS(rp_images_memory(images, sizeof images, 0, 1, &image));
    WORKS(rp_labels_memory(labels, sizeof labels, 2, &label));
    WORKS(rp_labels_memory(more, sizeof more, 2, &others));
    WORKS(rp_images_memory(labels, sizeof labels, 0, 1, &swapped));
    rp_data data = rp_idx_data(&image, &label), self = rp_idx_data(&image, NULL);
    CHECK(data.inputs_width == 4 && data.count == 2 && data.labels == label.labels, "%d", data.inputs_width);
    CHECK(self.targets == image.values && self.targets_width == 4 && !self.labels, "%d", self.targets_width);
    WORKS(rp_evaluate(net, &data, &score, NULL));
    data = rp_idx_data(&swapped, &label);
    FAILS(rp_evaluate(net, &data, &score, NULL), RP_ERR_SHAPE, "data.inputs_width 1 4");
    data = rp_idx_data(&image, &others);
    FAILS(rp_evaluate(net, &data, &score, NULL), RP_ERR_VALUE, "data.count -1 rp_idx_data");
    data = rp_idx_data(&label, &label);
    FAILS(rp_evaluate(net, &data, &score, NULL), RP_ERR_VALUE, "data.count -1");
    data = rp_idx_data(&image, &image);
    FAILS(rp_evaluate(net, &data, &score, NULL), RP_ERR_VALUE, "data.count -1");
    data = rp_idx_data(NULL, NULL);
    FAILS(rp_evaluate(net, &data, &score, NULL), RP_ERR_VALUE, "data.count -1");
    rp_idx_free(&image);
    rp_idx_free(&label);
    rp_idx_free(&others);
    rp_idx_free(&swapped);
    rp_net_free(net);
}

/* What outputs mean, from the outputs themselves; more samples than a batch, and a single one. */
static void check_meaning(rp_loss_kind loss, int outputs, int count) {
    samples s = draw_samples(3);
    rp_real y[SAMPLES * CLASSES], p[SAMPLES * CLASSES];
    int classes[SAMPLES];
    rp_net *net = small_net(outputs, loss, 8, NULL);
    int decides = outputs > 1 || loss == RP_BINARY_CROSS_ENTROPY;
    WORKS(rp_predict(net, s.x, count, y));
    WORKS(rp_probabilities(net, s.x, count, p));
    if (decides) WORKS(rp_classify(net, s.x, count, classes));
    else FAILS(rp_classify(net, s.x, count, classes), RP_ERR_UNSUPPORTED, "rp_classify one output");
    for (int i = 0; i < count; i++) {
        const rp_real *row = y + i * outputs;
        double sum = 0;
        int best = outputs == 1 && row[0] > 0;
        for (int k = 0; k < outputs; k++) sum += exp((double)row[k]);
        for (int k = 1; k < outputs; k++) best = row[k] > row[best] ? k : best;
        for (int k = 0; k < outputs; k++) {
            double z = (double)row[k], expected = z, got = (double)p[i * outputs + k];
            if (loss == RP_SOFTMAX_CROSS_ENTROPY) expected = exp(z) / sum;
            if (loss == RP_BINARY_CROSS_ENTROPY) expected = 1 / (1 + exp(-z));
            if (loss == RP_POISSON) expected = exp(z);
            CHECK(fabs(got - expected) <= 1e-6 * (1 + fabs(expected)), "loss %d, sample %d, output %d: %g, not %g",
                  (int)loss, i, k, got, expected);
        }
        if (decides) CHECK(classes[i] == best, "loss %d, sample %d: class %d, not %d", (int)loss, i, classes[i], best);
    }
    rp_net_free(net);
}

static void test_meaning(void) {
    for (int loss = RP_SQUARED_ERROR; loss <= RP_POISSON; loss++)
        for (int outputs = 1; outputs <= CLASSES; outputs++) {
            check_meaning((rp_loss_kind)loss, outputs, SAMPLES);
            check_meaning((rp_loss_kind)loss, outputs, 1);
        }
}

/* Values at which exp overflows still have a meaning. */
static void test_extreme_meaning(void) {
    const rp_loss_kind losses[] = {RP_SOFTMAX_CROSS_ENTROPY, RP_BINARY_CROSS_ENTROPY};
    const rp_real x[] = {1};
    for (int i = 0; i < 2; i++) {
        rp_real p[2];
        rp_net *net = rp_net_new(rp_vector(1), NULL);
        rp_no_bias(net, rp_dense(net, 2));
        rp_loss(net, losses[i]);
        WORKS(rp_net_build(net, 1, 1));
        rp_parameters(net)[0] = 5000;
        rp_parameters(net)[1] = -5000;
        WORKS(rp_probabilities(net, x, 1, p));
        CHECK(p[0] == 1 && p[1] == 0, "%g, %g", (double)p[0], (double)p[1]);
        rp_net_free(net);
    }
}

static void test_misuse_of_meaning(void) {
    rp_real x[INPUTS] = {0}, p[CLASSES];
    int class;
    rp_net *net = rp_net_new(rp_vector(INPUTS), NULL);
    CHECK(rp_probabilities(NULL, x, 1, p) == RP_ERR_NULL && rp_classify(NULL, x, 1, &class) == RP_ERR_NULL, "NULL net");
    FAILS(rp_probabilities(net, x, 1, p), RP_ERR_ORDER, "rp_probabilities rp_net_build");
    rp_dense(net, CLASSES);
    WORKS(rp_net_build(net, 1, 1));
    FAILS(rp_probabilities(net, NULL, 1, p), RP_ERR_NULL, "rp_probabilities x");
    FAILS(rp_probabilities(net, x, 1, NULL), RP_ERR_NULL, "rp_probabilities out");
    FAILS(rp_classify(net, x, 1, NULL), RP_ERR_NULL, "rp_classify classes");
    FAILS(rp_classify(net, x, 0, &class), RP_ERR_VALUE, "rp_classify count 0");
    CHECK(rp_inputs(net) == INPUTS && rp_outputs(net) == CLASSES, "%d, %d", rp_inputs(net), rp_outputs(net));
    CHECK(rp_inputs(NULL) == 0 && rp_outputs(NULL) == 0, "NULL net");
    rp_net_free(net);
}

/* Each sample's own loss, whose weighted mean is the score's. */
static void test_losses(void) {
    samples s = draw_samples(4);
    rp_real losses[SAMPLES];
    rp_score score, one;
    double sum = 0;
    rp_net *net = small_net(CLASSES, RP_SOFTMAX_CROSS_ENTROPY, 6, NULL);
    rp_data data = rp_labelled(s.x, s.labels, SAMPLES);
    data.weights = s.weights;
    WORKS(rp_evaluate(net, &data, &score, losses));
    for (int i = 0; i < SAMPLES; i++) {
        rp_data single = rp_labelled(s.x + i * INPUTS, s.labels + i, 1);
        WORKS(rp_evaluate(net, &single, &one, NULL));
        CHECK(fabs((double)(one.loss - losses[i])) < 1e-6, "sample %d: %g, not %g", i, (double)losses[i],
              (double)one.loss);
        sum += (double)s.weights[i] * (double)losses[i];
    }
    CHECK(fabs(sum / SAMPLES - (double)score.loss) < 1e-6, "%g, not %g", sum / SAMPLES, (double)score.loss);
    rp_net_free(net);
}

static int no_batch(void *user, int index, rp_data *batch) {
    (void)user;
    (void)index;
    (void)batch;
    return 0;
}
static void test_losses_of_streams(void) {
    rp_real losses[1];
    rp_score score;
    rp_net *net = small_net(CLASSES, RP_SOFTMAX_CROSS_ENTROPY, 6, NULL);
    rp_data data = rp_streamed(no_batch, NULL);
    FAILS(rp_evaluate(net, &data, &score, losses), RP_ERR_UNSUPPORTED, "losses streams");
    rp_net_free(net);
}

/* A clone goes on exactly as its original does, whatever the optimizer remembers. */
static void check_clone(rp_optimizer optimizer, const char *name) {
    samples s = draw_samples(5);
    rp_data data = rp_labelled(s.x, s.labels, SAMPLES);
    rp_net *net = small_net(CLASSES, RP_SOFTMAX_CROSS_ENTROPY, SAMPLES, NULL), *copy;
    for (int step = 0; step < 5; step++) WORKS(rp_train(net, &optimizer, &data, NULL));
    copy = rp_clone(net, NULL, 0);
    CHECK(copy && same_parameters(net, copy), "%s: %s", name, rp_error(net));
    for (int step = 0; step < 5; step++) {
        WORKS(rp_train(net, &optimizer, &data, NULL));
        CHECK(rp_train(copy, &optimizer, &data, NULL) == RP_OK, "%s: %s", name, rp_error(copy));
    }
    CHECK(same_parameters(net, copy), "%s: the clone went another way", name);
    rp_net_free(copy);
    rp_net_free(net);
}

static void test_clones(void) {
    rp_optimizer momentum = rp_sgd((rp_real)0.1), adaptive = rp_sgd((rp_real)0.1), decaying = rp_adam((rp_real)0.01);
    momentum.momentum = (rp_real)0.9;
    adaptive.cubic_sigma = 1;
    adaptive.cubic_adaptive = 1;
    decaying.rate_decay = (rp_real)0.9;
    check_clone(rp_partitioning(), "partitioning");
    check_clone(rp_algorithm_1((rp_real)0.1), "Algorithm 1");
    check_clone(momentum, "momentum");
    check_clone(adaptive, "adaptive");
    check_clone(decaying, "Adam");
    check_clone(rp_adadelta(1), "Adadelta");
    check_clone(rp_per_variable(1000), "per variable");
    check_clone(rp_newton(), "Newton");
}

/* Other batches, sets and uses; frozen layers and slopes are copied, mistakes stick to the copy. */
static void test_other_clones(void) {
    samples s = draw_samples(6);
    rp_real y[SAMPLES * CLASSES], other[SAMPLES * CLASSES];
    rp_config config;
    rp_layer info;
    rp_net *net = rp_net_new(rp_vector(INPUTS), NULL), *copy;
    CHECK(!rp_clone(NULL, NULL, 0) && !rp_clone(net, NULL, 0), "a net that is not built was cloned");
    CHECK(strstr(rp_error(net), "rp_clone"), "%s", rp_error(net));
    rp_dense(net, 6);
    int slope = rp_activation(net, RP_LEAKY_RELU);
    rp_negative_slope(net, slope, (rp_real)0.25);
    rp_dense(net, CLASSES);
    rp_freeze(net, 0, 1);
    WORKS(rp_net_build(net, SAMPLES, 1));
    WORKS(rp_predict(net, s.x, SAMPLES, y));
    memset(&config, 0, sizeof config);
    config.inference_only = 1;
    config.isa = RP_ISA_PORTABLE;
    copy = rp_clone(net, &config, 5);
    CHECK(copy && !strcmp(rp_isa(copy), "portable") && rp_memory(copy) < rp_memory(net), "%s", rp_error(copy));
    CHECK(rp_predict(copy, s.x, SAMPLES, other) == RP_OK, "%s", rp_error(copy));
    CHECK(largest_difference(y, other, SAMPLES * CLASSES) < 1e-5, "%g",
          largest_difference(y, other, SAMPLES * CLASSES));
    CHECK(rp_layer_info(copy, 0, &info) == RP_OK && info.frozen, "not frozen");
    CHECK(rp_layer_info(copy, slope, &info) == RP_OK && info.slope == (rp_real)0.25, "slope %g", (double)info.slope);
    rp_net_free(copy);
    copy = rp_clone(net, NULL, -1);
    CHECK(copy && strstr(rp_error(copy), "rp_clone: batch is -1") && rp_parameter_count(copy) == 0, "%s",
          rp_error(copy));
    CHECK(rp_net_build(copy, 1, 1) == RP_ERR_VALUE, "a clone with a mistake was built");
    rp_net_free(copy);
    rp_net_free(net);
}

/* A clone without memory for the n-th piece is no clone, and nothing leaks (the sanitizers see to that). */
typedef struct limited {
    int left, given;
} limited;
static void *limited_allocate(void *user, size_t size) {
    limited *memory = (limited *)user;
    if (memory->left-- <= 0) return NULL;
    memory->given++;
    return malloc(size);
}
static void limited_release(void *user, void *pointer) {
    ((limited *)user)->given--;
    free(pointer);
}
static void test_clones_without_memory(void) {
    limited memory = {0, 0};
    rp_config config;
    rp_optimizer optimizer = rp_adam((rp_real)0.01);
    samples s = draw_samples(7);
    rp_data data = rp_labelled(s.x, s.labels, SAMPLES);
    rp_net *net = small_net(CLASSES, RP_SOFTMAX_CROSS_ENTROPY, SAMPLES, NULL), *copy = NULL;
    WORKS(rp_train(net, &optimizer, &data, NULL));
    memset(&config, 0, sizeof config);
    config.allocate = limited_allocate;
    config.release = limited_release;
    config.user = &memory;
    for (int n = 0; n < 20 && !copy; n++) {
        memory.left = n;
        copy = rp_clone(net, &config, 0);
        if (copy) CHECK(n > 2 && same_parameters(net, copy), "%d allocations", n);
        else
            CHECK(memory.given == 0 && strstr(rp_error(net), "no memory"), "%d: %d, %s", n, memory.given,
                  rp_error(net));
    }
    CHECK(copy != NULL, "never enough memory");
    rp_net_free(copy);
    CHECK(memory.given == 0, "%d pieces are left", memory.given);
    rp_net_free(net);
}

/* After a reset a net does what a new one does. */
static void test_reset(void) {
    samples s = draw_samples(8);
    rp_data data = rp_labelled(s.x, s.labels, SAMPLES);
    rp_optimizer optimizer = rp_partitioning();
    rp_fit_options options;
    rp_step step;
    rp_net *net = small_net(CLASSES, RP_SOFTMAX_CROSS_ENTROPY, 4, NULL), *fresh;
    memset(&options, 0, sizeof options);
    options.epochs = 2;
    WORKS(rp_fit(net, &optimizer, &data, &options, NULL));
    WORKS(rp_reset(net, 3));
    fresh = small_net(CLASSES, RP_SOFTMAX_CROSS_ENTROPY, 4, NULL);
    CHECK(same_parameters(net, fresh), "other parameters");
    FAILS(rp_last_step(net, &step), RP_ERR_ORDER, "rp_last_step");
    WORKS(rp_fit(net, &optimizer, &data, &options, NULL));
    CHECK(rp_fit(fresh, &optimizer, &data, &options, NULL) == RP_OK, "%s", rp_error(fresh));
    CHECK(same_parameters(net, fresh), "trained otherwise");
    CHECK(rp_reset(NULL, 1) == RP_ERR_NULL, "NULL net");
    rp_net_free(net);
    rp_net_free(fresh);
}

/* rp_fit of two epochs is two rp_fits of one. */
static void test_fit_goes_on(void) {
    samples s = draw_samples(9);
    rp_data data = rp_labelled(s.x, s.labels, SAMPLES);
    rp_optimizer optimizer = rp_adam((rp_real)0.01);
    rp_fit_options options;
    rp_net *net = small_net(CLASSES, RP_SOFTMAX_CROSS_ENTROPY, 4, NULL), *other, *repeated;
    memset(&options, 0, sizeof options);
    options.epochs = 3;
    WORKS(rp_fit(net, &optimizer, &data, &options, NULL));
    other = small_net(CLASSES, RP_SOFTMAX_CROSS_ENTROPY, 4, NULL);
    options.epochs = 1;
    for (int epoch = 0; epoch < 3; epoch++)
        CHECK(rp_fit(other, &optimizer, &data, &options, NULL) == RP_OK, "%s", rp_error(other));
    CHECK(same_parameters(net, other), "one fit of three epochs is not three of one");
    repeated = rp_clone(other, NULL, 0);
    CHECK(rp_fit(other, &optimizer, &data, &options, NULL) == RP_OK, "%s", rp_error(other));
    CHECK(rp_fit(repeated, &optimizer, &data, &options, NULL) == RP_OK, "%s", rp_error(repeated));
    CHECK(same_parameters(other, repeated), "a clone shuffles otherwise");
    rp_net_free(net);
    rp_net_free(other);
    rp_net_free(repeated);
}

/* Training accuracy: that of each batch before its step, by weight. */
typedef struct watched {
    rp_net *net;
    const rp_data *data;
    double right, weight, expected;
    int steps;
} watched;
static void watch_batch(watched *w, int from, int count) {
    rp_data batch = *w->data;
    rp_score score;
    double weight = 0;
    batch.inputs += from * INPUTS;
    batch.labels += from;
    batch.weights += from;
    batch.count = count;
    CHECK(rp_evaluate(w->net, &batch, &score, NULL) == RP_OK, "%s", rp_error(w->net));
    for (int i = 0; i < count; i++) weight += (double)batch.weights[i];
    w->right += weight * (double)score.accuracy;
    w->weight += weight;
}
static int compare_accuracy(void *user, const rp_progress *progress) {
    watched *w = (watched *)user;
    int from = progress->step * 8;
    if (progress->epoch_done) return 0;
    CHECK(fabs((double)progress->accuracy - w->right / w->weight) < 1e-6, "step %d: %g, not %g", progress->step,
          (double)progress->accuracy, w->right / w->weight);
    CHECK(progress->steps == 3, "%d steps", progress->steps);
    w->steps++;
    if (from < SAMPLES) watch_batch(w, from, SAMPLES - from < 8 ? SAMPLES - from : 8);
    return 0;
}
static void test_training_accuracy(void) {
    samples s = draw_samples(10);
    rp_data data = rp_labelled(s.x, s.labels, SAMPLES), targets = rp_targeted(s.x, s.targets, SAMPLES);
    rp_optimizer optimizer = rp_sgd((rp_real)0.5);
    rp_fit_options options;
    rp_fit_report report;
    rp_net *net = small_net(CLASSES, RP_SOFTMAX_CROSS_ENTROPY, 8, NULL);
    watched w = {net, &data, 0, 0, 0, 0};
    data.weights = s.weights;
    memset(&options, 0, sizeof options);
    options.keep_order = 1;
    options.progress = compare_accuracy;
    options.user = &w;
    watch_batch(&w, 0, 8);
    WORKS(rp_fit(net, &optimizer, &data, &options, &report));
    CHECK(w.steps == 3 && fabs((double)report.accuracy - w.right / w.weight) < 1e-6, "%d steps, %g, not %g", w.steps,
          (double)report.accuracy, w.right / w.weight);
    rp_net_free(net);
    net = small_net(CLASSES, RP_SQUARED_ERROR, 8, NULL);
    WORKS(rp_fit(net, &optimizer, &targets, NULL, &report));
    CHECK(report.accuracy == -1, "%g", (double)report.accuracy);
    rp_net_free(net);
}

/* Clipping is the gradient scaled by hand, for every method that has steps from arrays. */
static void check_clip(rp_optimizer optimizer, const char *name, double clip) {
    samples s = draw_samples(11);
    rp_data data = rp_labelled(s.x, s.labels, SAMPLES);
    rp_net *net = small_net(CLASSES, RP_SOFTMAX_CROSS_ENTROPY, SAMPLES, NULL), *hand = rp_clone(net, NULL, 0);
    rp_optimizer clipped = optimizer;
    clipped.clip = (rp_real)clip;
    rp_freeze(net, 0, 1);
    rp_freeze(hand, 0, 1);
    for (int step = 0; step < 4; step++) {
        size_t count = rp_parameter_count(hand);
        rp_real *g = rp_gradient(hand);
        double norm = 0;
        WORKS(rp_train(net, &clipped, &data, NULL));
        CHECK(rp_backward(hand, &data, optimizer.method == RP_PARTITIONING ? &optimizer.rule : NULL, NULL) == RP_OK,
              "%s", rp_error(hand));
        for (size_t i = 0; i < count; i++) norm += (double)g[i] * (double)g[i];
        norm = sqrt(norm);
        for (size_t i = 0; i < count && norm > clip; i++) g[i] *= (rp_real)(clip / norm);
        CHECK(rp_update(hand, &optimizer) == RP_OK, "%s", rp_error(hand));
    }
    double most = largest_difference(rp_parameters(net), rp_parameters(hand), (int)rp_parameter_count(net));
    CHECK(most <= 2e-6, "%s, clip %g: parameters differ by %g", name, clip, most);
    rp_net_free(net);
    rp_net_free(hand);
}

static void test_clip(void) {
    rp_optimizer momentum = rp_sgd((rp_real)0.5), decay = rp_sgd((rp_real)0.5);
    momentum.momentum = (rp_real)0.9;
    decay.weight_decay = (rp_real)0.1;
    for (int i = 0; i < 3; i++) {
        double clip = i == 0 ? 1e-3 : i == 1 ? 0.1 : 100;
        check_clip(rp_sgd((rp_real)0.5), "SGD", clip);
        check_clip(momentum, "momentum", clip);
        check_clip(decay, "weight decay", clip);
        check_clip(rp_algorithm_1((rp_real)0.5), "Algorithm 1", clip);
        check_clip(rp_adagrad((rp_real)0.1), "Adagrad", clip);
    }
}

/* Steps that are solved for, or whose length is computed, are shorter, and still descend. */
static void test_clip_of_computed_steps(void) {
    samples s = draw_samples(12);
    rp_data data = rp_labelled(s.x, s.labels, SAMPLES);
    for (int which = 0; which < 3; which++) {
        double lengths[2] = {0, 0};
        for (int clipped = 0; clipped < 2; clipped++) {
            rp_optimizer optimizer = which == 1 ? rp_per_variable(10) : rp_newton();
            rp_real before, after;
            rp_net *net = small_net(CLASSES, RP_SOFTMAX_CROSS_ENTROPY, SAMPLES, NULL);
            if (which == 2) optimizer.full_hessian = 1;
            if (which == 1) optimizer.rate = (rp_real)0.1;
            if (clipped) optimizer.clip = (rp_real)0.01;
            WORKS(rp_train(net, &optimizer, &data, &before));
            for (size_t i = 0; i < rp_parameter_count(net); i++)
                lengths[clipped] += (double)rp_step_array(net)[i] * (double)rp_step_array(net)[i];
            WORKS(rp_backward(net, &data, NULL, &after));
            CHECK(after < before, "method %d, clipped %d: %g to %g", which, clipped, (double)before, (double)after);
            rp_net_free(net);
        }
        CHECK(lengths[1] < 0.5 * lengths[0], "method %d: %g, unclipped %g", which, lengths[1], lengths[0]);
    }
}

/* Fields that a method does not read are refused, as is an optimizer that nothing made. */
static void test_foreign_fields(void) {
    samples s = draw_samples(13);
    rp_data data = rp_labelled(s.x, s.labels, SAMPLES);
    rp_net *net = small_net(CLASSES, RP_SOFTMAX_CROSS_ENTROPY, SAMPLES, NULL);
    rp_optimizer o;
    memset(&o, 0, sizeof o);
    FAILS(rp_train(net, &o, &data, NULL), RP_ERR_VALUE, "optimizer.method 0 rp_partitioning");
    o = rp_adam((rp_real)0.01);
    o.momentum = (rp_real)0.9;
    FAILS(rp_train(net, &o, &data, NULL), RP_ERR_VALUE, "optimizer.momentum 0.9 Adam");
    o = rp_adam((rp_real)0.01);
    o.damping = 1;
    FAILS(rp_train(net, &o, &data, NULL), RP_ERR_VALUE, "optimizer.damping 1 Adam");
    o = rp_adam((rp_real)0.01);
    o.rule.kind = RP_PATHS;
    FAILS(rp_train(net, &o, &data, NULL), RP_ERR_VALUE, "optimizer.rule Adam");
    o = rp_sgd((rp_real)0.01);
    o.curvature_average = (rp_real)0.9;
    FAILS(rp_prepare(net, &o), RP_ERR_VALUE, "optimizer.curvature_average 0.9 SGD");
    o = rp_sgd((rp_real)0.01);
    o.lambda = 1;
    FAILS(rp_prepare(net, &o), RP_ERR_VALUE, "optimizer.lambda 1 SGD");
    o = rp_partitioning();
    o.nesterov = 1;
    FAILS(rp_prepare(net, &o), RP_ERR_VALUE, "optimizer.nesterov 1 residual partitioning");
    o = rp_newton();
    o.damping = 1;
    FAILS(rp_prepare(net, &o), RP_ERR_VALUE, "optimizer.damping 1 Newton");
    o = rp_per_variable(1);
    o.epsilon = 1;
    FAILS(rp_prepare(net, &o), RP_ERR_VALUE, "optimizer.epsilon 1 per-variable");
    o = rp_sgd((rp_real)0.01);
    o.decoupled = -7;
    FAILS(rp_prepare(net, &o), RP_ERR_VALUE, "optimizer.decoupled -7");
    o = rp_sgd((rp_real)0.01);
    o.clip = -1;
    FAILS(rp_prepare(net, &o), RP_ERR_VALUE, "optimizer.clip -1");
    rp_net_free(net);
}

static void test_huber_delta(void) {
    rp_net *net = rp_net_new(rp_vector(2), NULL);
    rp_dense(net, 1);
    WORKS(rp_huber_delta(net, 2));
    FAILS(rp_net_build(net, 1, 1), RP_ERR_VALUE, "rp_net_build Huber delta 2 squared");
    WORKS(rp_loss(net, RP_HUBER));
    WORKS(rp_net_build(net, 1, 1));
    rp_net_free(net);
}

typedef struct warning_case {
    int outputs;
    rp_activation_kind last;
    rp_loss_kind loss;
    const char *words; /* "": no warning */
} warning_case;

static void test_warnings(void) {
    static const warning_case cases[] = {
        {2, RP_IDENTITY, RP_SOFTMAX_CROSS_ENTROPY, ""},
        {1, RP_IDENTITY, RP_BINARY_CROSS_ENTROPY, ""},
        {2, RP_SIGMOID, RP_SQUARED_ERROR, ""},
        {2, RP_RELU, RP_HUBER, ""},
        {1, RP_SIGMOID, RP_BINARY_CROSS_ENTROPY, "layer 1 sigmoid binary logits"},
        {1, RP_RELU, RP_BINARY_CROSS_ENTROPY, "layer 1 relu binary logits"},
        {3, RP_RELU, RP_SOFTMAX_CROSS_ENTROPY, "layer 1 relu softmax logits"},
        {3, RP_SIGMOID, RP_SOFTMAX_CROSS_ENTROPY, "layer 1 sigmoid softmax logits"},
        {1, RP_IDENTITY, RP_SOFTMAX_CROSS_ENTROPY, "softmax one output"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rp_net *net = rp_net_new(rp_vector(2), NULL);
        rp_dense(net, cases[i].outputs);
        if (cases[i].last) rp_activation(net, cases[i].last);
        rp_loss(net, cases[i].loss);
        CHECK(!*rp_warning(net), "case %d warns before the build: %s", (int)i, rp_warning(net));
        WORKS(rp_net_build(net, 1, 1));
        CHECK(!*cases[i].words == !*rp_warning(net) && has_words(rp_warning(net), cases[i].words),
              "case %d: '%s' lacks '%s'", (int)i, rp_warning(net), cases[i].words);
        WORKS(rp_freeze(net, 0, 1));
        CHECK(has_words(rp_warning(net), "every layer frozen"), "case %d: '%s'", (int)i, rp_warning(net));
        WORKS(rp_freeze(net, 0, 0));
        CHECK(has_words(rp_warning(net), cases[i].words), "case %d: '%s'", (int)i, rp_warning(net));
        rp_net_free(net);
    }
    CHECK(!*rp_warning(NULL), "%s", rp_warning(NULL));
}

/* Layers that differ are told apart by rp_layer_info. */
static void test_layer_info(void) {
    rp_conv2d_desc desc;
    rp_recurrent_desc recurrent;
    rp_layer info;
    rp_net *net = rp_net_new(rp_image(4, 9, 8), NULL);
    memset(&desc, 0, sizeof desc);
    desc.filters = 6;
    desc.kernel_height = 3;
    desc.kernel_width = 2;
    desc.stride_height = 2;
    desc.stride_width = 1;
    desc.padding_height = 1;
    desc.groups = 2;
    int conv = rp_conv2d_with(net, &desc), relu = rp_activation(net, RP_LEAKY_RELU), pool = rp_max_pool2d(net, 2, 1);
    int flat = rp_recursive(net, 3, RP_ELU), add = rp_add(net, flat), dense = rp_dense(net, 11);
    WORKS(rp_no_bias(net, conv));
    WORKS(rp_negative_slope(net, relu, (rp_real)0.5));
    WORKS(rp_negative_slope(net, flat, (rp_real)0.75));
    WORKS(rp_net_build(net, 1, 1));
    WORKS(rp_layer_info(net, conv, &info));
    CHECK(info.window.filters == 6 && info.window.kernel_height == 3 && info.window.kernel_width == 2, "kernel");
    CHECK(info.window.stride_height == 2 && info.window.stride_width == 1 && info.window.padding_height == 1, "stride");
    CHECK(info.window.padding_width == 0 && info.window.groups == 2 && info.bias_count == 0, "groups");
    WORKS(rp_layer_info(net, relu, &info));
    CHECK(info.activation == RP_LEAKY_RELU && info.slope == (rp_real)0.5, "slope %g", (double)info.slope);
    WORKS(rp_layer_info(net, pool, &info));
    CHECK(info.window.kernel_height == 2 && info.window.stride_width == 1 && !info.window.filters, "pool");
    WORKS(rp_layer_info(net, flat, &info));
    CHECK(info.activation == RP_ELU && info.slope == (rp_real)0.75 && info.steps == 3, "recursive");
    WORKS(rp_layer_info(net, add, &info));
    CHECK(info.source == flat, "source %d", info.source);
    WORKS(rp_layer_info(net, dense, &info));
    CHECK(info.units == 11 && info.bias_count == 11 && info.activation == RP_IDENTITY && info.slope == 0, "dense");
    rp_net_free(net);
    net = rp_net_new(rp_sequence(4, 3), NULL);
    recurrent.units = 5;
    recurrent.activation = RP_TANH;
    recurrent.all_states = 1;
    rp_recurrent_with(net, &recurrent);
    WORKS(rp_layer_info(net, 0, &info));
    CHECK(info.units == 5 && info.steps == 4 && info.all_states && info.activation == RP_TANH, "recurrent");
    rp_net_free(net);
}

/* Changes of a layer name it. */
static void test_changes_of_layers(void) {
    rp_net *net = rp_net_new(rp_vector(3), NULL);
    int dense = rp_dense(net, 2);
    FAILS(rp_no_bias(net, 1), RP_ERR_VALUE, "rp_no_bias layer 1");
    rp_net_free(net);
    net = rp_net_new(rp_vector(3), NULL);
    FAILS(rp_no_bias(net, -3), RP_ERR_VALUE, "rp_no_bias layer -3");
    FAILS(rp_net_build(net, 1, 1), RP_ERR_VALUE, "rp_no_bias layer -3");
    rp_net_free(net);
    net = rp_net_new(rp_vector(3), NULL);
    dense = rp_dense(net, 2);
    int relu = rp_activation(net, RP_RELU);
    FAILS(rp_negative_slope(net, relu, (rp_real)0.5), RP_ERR_VALUE, "rp_negative_slope layer 1 relu");
    rp_net_free(net);
    net = rp_net_new(rp_vector(3), NULL);
    dense = rp_dense(net, 2);
    rp_activation(net, RP_ELU);
    rp_dense(net, 2);
    WORKS(rp_no_bias(net, dense)); /* not only the last */
    WORKS(rp_negative_slope(net, 1, 2));
    WORKS(rp_net_build(net, 1, 1));
    FAILS(rp_no_bias(net, dense), RP_ERR_ORDER, "rp_no_bias built");
    FAILS(rp_negative_slope(net, 1, 1), RP_ERR_ORDER, "rp_negative_slope built");
    CHECK(rp_parameter_count(net) == 3 * 2 + 2 * 2 + 2, "%d parameters", (int)rp_parameter_count(net));
    CHECK(rp_no_bias(NULL, 0) == RP_ERR_NULL && rp_negative_slope(NULL, 0, 1) == RP_ERR_NULL, "NULL net");
    rp_net_free(net);
}

/* What a failed call, or one that undoes a step, leaves. */

static rp_net *overflowing_net(void) {
    rp_net *net = rp_net_new(rp_vector(1), NULL);
    rp_no_bias(net, rp_dense(net, 1));
    WORKS(rp_net_build(net, 1, 1));
    return net;
}

/* The diagonal of x^2 overflows where the gradient does not. */
static void test_state_after_failure(void) {
    const rp_real huge = sizeof(rp_real) == 8 ? (rp_real)1e160 : (rp_real)1e25, target = 0;
    rp_real usual = 1, w;
    rp_data good = rp_targeted(&usual, &target, 1), bad = rp_targeted(&huge, &target, 1);
    rp_optimizer adam = rp_adam((rp_real)0.01), each = rp_per_variable(1);
    rp_net *net = overflowing_net(), *twin = overflowing_net();
    WORKS(rp_train(net, &adam, &good, NULL));
    WORKS(rp_train(twin, &adam, &good, NULL));
    w = rp_parameters(net)[0];
    rp_parameters(net)[0] = w / huge / huge;
    FAILS(rp_train(net, &each, &bad, NULL), RP_ERR_NOT_FINITE, "rp_train diagonal");
    rp_parameters(net)[0] = w;
    for (int step = 0; step < 3; step++) {
        WORKS(rp_train(net, &adam, &good, NULL));
        WORKS(rp_train(twin, &adam, &good, NULL));
    }
    CHECK(same_parameters(net, twin), "Adam's state was lost: %g, not %g", (double)rp_parameters(net)[0],
          (double)rp_parameters(twin)[0]);
    rp_net_free(net);
    rp_net_free(twin);
}

/* The first mistake in a description is the one that helps, whatever is called afterwards. */
static void test_first_mistake_stays(void) {
    rp_real x[INPUTS] = {0}, y[1];
    rp_net *net = rp_net_new(rp_vector(INPUTS), NULL);
    rp_dense(net, 0);
    CHECK(rp_predict(net, x, 1, y) == RP_ERR_ORDER, "predicted");
    FAILS(rp_net_build(net, 1, 1), RP_ERR_VALUE, "rp_dense units 0");
    rp_net_free(net);
}

/* A step that was undone, since exp overflowed, is no failure, and says nothing. */
static void test_silence_of_undone_steps(void) {
    const rp_real x = 1, target = (rp_real)1e6;
    rp_data data = rp_targeted(&x, &target, 1);
    rp_optimizer optimizer = rp_sgd(1);
    rp_step step;
    rp_net *net = rp_net_new(rp_vector(1), NULL);
    rp_dense(net, 1);
    rp_loss(net, RP_POISSON);
    WORKS(rp_net_build(net, 1, 1));
    optimizer.cubic_sigma = (rp_real)1e-30;
    optimizer.cubic_adaptive = 1;
    WORKS(rp_train(net, &optimizer, &data, NULL));
    WORKS(rp_last_step(net, &step));
    CHECK(!step.taken && !*rp_error(net), "taken %d, '%s' after success", step.taken, rp_error(net));
    rp_net_free(net);
}

/* Layers frozen between rp_direction or rp_backward and the step stay, and do not count. */
static void test_frozen_in_between(void) {
    samples s = draw_samples(14);
    rp_data data = rp_labelled(s.x, s.labels, SAMPLES);
    rp_optimizer optimizer = rp_sgd(1);
    rp_layer info;
    rp_net *net = small_net(CLASSES, RP_SOFTMAX_CROSS_ENTROPY, SAMPLES, NULL), *before;
    double square = 0;
    WORKS(rp_backward(net, &data, NULL, NULL));
    WORKS(rp_direction(net, &optimizer));
    before = rp_clone(net, NULL, 0);
    WORKS(rp_freeze(net, 0, 1));
    WORKS(rp_move(net, 1));
    WORKS(rp_layer_info(net, 0, &info));
    CHECK(!memcmp(rp_parameters(net), rp_parameters(before), info.weight_count * sizeof(rp_real)),
          "frozen weights moved");
    WORKS(rp_freeze(net, 0, 0));
    WORKS(rp_backward(net, &data, NULL, NULL));
    WORKS(rp_freeze(net, 0, 1));
    rp_gradient(net)[0] = (rp_real)NAN; /* of a frozen layer */
    optimizer.clip = (rp_real)1e-3;
    WORKS(rp_direction(net, &optimizer));
    for (size_t i = 0; i < rp_parameter_count(net); i++)
        square += (double)rp_step_array(net)[i] * (double)rp_step_array(net)[i];
    CHECK(fabs(sqrt(square) - 1e-3) < 1e-6, "a clipped step of %g", sqrt(square));
    rp_net_free(before);
    rp_net_free(net);
}

/* rp_evaluate uses the values of rp_forward up, also where a stream's callback called that. */
static int forward_within(void *user, int index, rp_data *batch) {
    static const rp_real x[INPUTS] = {1, 2, 3, 4, 5};
    static const int label = 1;
    rp_net *net = (rp_net *)user;
    if (index > 0) return 0;
    WORKS(rp_forward(net, x, 1));
    *batch = rp_labelled(x, &label, 1);
    return 1;
}
static void test_forward_within_evaluate(void) {
    rp_real d[CLASSES] = {0};
    rp_score score;
    rp_net *net = small_net(CLASSES, RP_SOFTMAX_CROSS_ENTROPY, 2, NULL);
    rp_data stream = rp_streamed(forward_within, net);
    WORKS(rp_evaluate(net, &stream, &score, NULL));
    FAILS(rp_backward_from(net, d, NULL, NULL), RP_ERR_ORDER, "rp_backward_from rp_forward");
    rp_net_free(net);
}

/* A derivative that is refused can be corrected: the forward pass is still there. */
static void test_refused_derivatives(void) {
    samples s = draw_samples(16);
    rp_real d[CLASSES] = {0}, h[CLASSES] = {0};
    rp_net *net = small_net(CLASSES, RP_SOFTMAX_CROSS_ENTROPY, 1, NULL);
    WORKS(rp_forward(net, s.x, 1));
    d[1] = (rp_real)NAN;
    FAILS(rp_backward_from(net, d, h, NULL), RP_ERR_NOT_FINITE, "output_gradient[1] nan");
    d[1] = 1;
    h[1] = -1;
    FAILS(rp_backward_from(net, d, h, NULL), RP_ERR_VALUE, "output_curvature[1] -1");
    WORKS(rp_backward_from(net, d, NULL, NULL));
    rp_net_free(net);
}

/* x = 0 has a residual of 1, so that a tolerance of 1 would ask for nothing. */
static void test_tolerance(void) {
    samples s = draw_samples(17);
    rp_data data = rp_labelled(s.x, s.labels, SAMPLES);
    rp_solve_options options = {RP_SOLVE_AUTO, 0, 0, 0, 0, NULL, NULL};
    rp_net *net = small_net(CLASSES, RP_SOFTMAX_CROSS_ENTROPY, SAMPLES, NULL);
    rp_real *x = rp_parameters(net);
    options.damping = 1;
    options.tolerance = 1;
    FAILS(rp_hessian_solve(net, &data, x, x, &options, NULL), RP_ERR_VALUE, "options.tolerance 1 below");
    rp_net_free(net);
}

static void test_after_reset(void) {
    samples s = draw_samples(15);
    rp_data data = rp_labelled(s.x, s.labels, SAMPLES);
    rp_optimizer optimizer = rp_sgd(1);
    rp_net *net = small_net(CLASSES, RP_SOFTMAX_CROSS_ENTROPY, SAMPLES, NULL);
    WORKS(rp_backward(net, &data, NULL, NULL));
    WORKS(rp_reset(net, 4));
    FAILS(rp_update(net, &optimizer), RP_ERR_ORDER, "rp_update gradient");
    rp_net_free(net);
}

static void test_sizes_of_broken_nets(void) {
    rp_net *net = rp_net_new(rp_image(1 << 20, 1 << 20, 1 << 20), NULL);
    CHECK(rp_inputs(net) == 0 && rp_outputs(net) == 0, "%d, %d", rp_inputs(net), rp_outputs(net));
    rp_net_free(net);
}

int main(void) {
    test_version();
    test_constructors();
    test_widths();
    test_idx_data();
    test_meaning();
    test_extreme_meaning();
    test_misuse_of_meaning();
    test_losses();
    test_losses_of_streams();
    test_clones();
    test_other_clones();
    test_clones_without_memory();
    test_reset();
    test_fit_goes_on();
    test_training_accuracy();
    test_clip();
    test_clip_of_computed_steps();
    test_foreign_fields();
    test_huber_delta();
    test_warnings();
    test_layer_info();
    test_changes_of_layers();
    test_state_after_failure();
    test_first_mistake_stays();
    test_silence_of_undone_steps();
    test_frozen_in_between();
    test_forward_within_evaluate();
    test_refused_derivatives();
    test_tolerance();
    test_after_reset();
    test_sizes_of_broken_nets();
    return test_end();
}
