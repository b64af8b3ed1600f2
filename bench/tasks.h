/* tasks.h - the nets that are measured, their data, and the optimizers with the work that each asks for. Include it
   after rp.h. What fails ends the program: there is nothing to measure then. */
#ifndef TASKS_H
#define TASKS_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Layers of another kind before the dense ones. */
typedef struct task_front {
    rp_shape (*input)(void);
    void (*append)(rp_net *net);
    int outputs;
    double first, others; /* multiply-adds of a sample with the weights that meet the input, and with the others */
    rp_real scale;        /* of the first parameters: the paths through 28 steps must stay in the range of a float */
} task_front;

static rp_shape task_image(void) { return rp_image(1, 28, 28); }
static rp_shape task_rows(void) { return rp_sequence(28, 28); }
static void task_convolutions(rp_net *net) {
    for (int filters = 8; filters <= 16; filters *= 2) {
        rp_conv2d(net, filters, 5, 1, 0);
        rp_activation(net, RP_RELU);
        rp_max_pool2d(net, 2, 2);
    }
}
static void task_recurrence(rp_net *net) { rp_recurrent(net, 128, RP_TANH); } /* 28 steps, but 27 from state to state */

static const task_front task_fronts[] = {
    {task_image, task_convolutions, 16 * 4 * 4, 8.0 * 25 * 24 * 24, 16.0 * 8 * 25 * 8 * 8, 1},
    {task_rows, task_recurrence, 128, 28.0 * 28 * 128, 27.0 * 128 * 128, (rp_real)0.25},
};

enum { TASK_LAYERS = 14 };
typedef struct task {
    const char *name;
    int batch, widths[TASK_LAYERS + 1]; /* inputs, then dense layers; 0 ends them */
    rp_activation_kind activation;      /* between the dense layers */
    int classes;                        /* 1: softmax of the last layer; 0: an autoencoder, ending in the activation */
    const task_front *front;            /* NULL: none */
} task;

enum { DENSE_TASKS = 4, TASKS = 6 };
static const task tasks[TASKS] = {
    {"ae", 100, {784, 64, 2, 64, 784}, RP_TANH, 0, NULL},
    {"clf", 100, {784, 400, 100, 36, 10}, RP_SOFTPLUS, 1, NULL},
    {"deep", 32, {784, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 10}, RP_RELU, 1, NULL},
    {"wide", 128, {1024, 1024, 1024, 10}, RP_RELU, 1, NULL},
    {"conv", 100, {784, 10}, RP_RELU, 1, &task_fronts[0]},
    {"rnn", 100, {784, 10}, RP_TANH, 1, &task_fronts[1]},
};

static rp_optimizer task_default(rp_real rate) {
    (void)rate;
    return rp_partitioning();
}
static rp_optimizer task_sampled(rp_real rate) {
    rp_optimizer optimizer = rp_algorithm_1(rate);
    optimizer.rule.kind = RP_SAMPLED;
    return optimizer;
}

/* In a step a weight meets each sample in so many products; in the first layer not to find the input's derivative. */
enum { SGD, ADAM, RP, RP_SAMPLED_RULE, DEFAULT, METHODS };
static const struct {
    const char *name;
    rp_optimizer (*make)(rp_real rate);
    rp_real rate; /* for a step that can be seen in the parameters */
    double first_products, products;
    int period; /* steps until one of the same work comes again */
} methods[METHODS] = {
    {"sgd", rp_sgd, (rp_real)0.1, 2, 3, 1},
    {"adam", rp_adam, (rp_real)1e-3, 2, 3, 1},
    {"rp", rp_algorithm_1, 1, 3, 6, 1},
    {"rp_sampled", task_sampled, 1, 3, 5, 1},
    {"default", task_default, 0, 2 + 1 / 8.0, 3 + 2 / 8.0, 8}, /* the sampled rule at each eighth step */
};

/* Useful floating-point operations of a step; padding and elementwise work do not count. */
static inline double task_flops(const task *t, double first_products, double products) {
    const task_front *front = t->front;
    double sum = front ? front->first * first_products + front->others * products : 0;
    for (const int *w = t->widths; w[1]; w++) {
        int first = w == t->widths;
        sum += (double)(first && front ? front->outputs : w[0]) * w[1] * (first && !front ? first_products : products);
    }
    return 2 * sum * t->batch;
}

static void *task_must(void *pointer) {
    if (pointer) return pointer;
    fprintf(stderr, "out of memory\n");
    exit(1);
}

static void task_good(rp_status status, const rp_net *net) {
    if (!status) return;
    fprintf(stderr, "%s\n", rp_error(net));
    exit(1);
}

static rp_net *task_net(const task *t, rp_isa_kind isa, int threads) {
    rp_config config;
    memset(&config, 0, sizeof config);
    config.isa = isa;
    config.threads = threads;
    rp_shape input = t->front ? t->front->input() : rp_vector(t->widths[0]);
    rp_net *net = (rp_net *)task_must(rp_net_new(input, &config));
    if (t->front) t->front->append(net);
    for (const int *w = t->widths + 1; *w; w++) {
        rp_dense(net, *w);
        if (w[1] || !t->classes) rp_activation(net, t->activation);
    }
    rp_loss(net, t->classes ? RP_SOFTMAX_CROSS_ENTROPY : RP_SQUARED_ERROR);
    task_good(rp_net_build(net, t->batch, 1), net);
    for (size_t i = 0; t->front && i < rp_parameter_count(net); i++) rp_parameters(net)[i] *= t->front->scale;
    return net;
}

/* A batch of noise between -1 and 1, for the classes in turn. */
static inline rp_data task_data(const task *t) {
    size_t count = (size_t)t->batch * (size_t)t->widths[0];
    int classes = 1;
    for (const int *w = t->widths; *w; w++) classes = *w;
    rp_real *inputs = (rp_real *)task_must(malloc(count * sizeof *inputs));
    int *labels = (int *)task_must(malloc((size_t)t->batch * sizeof *labels));
    uint32_t random = 1;
    for (size_t i = 0; i < count; i++) {
        random = random * 1664525u + 1013904223u;
        inputs[i] = (rp_real)(random >> 8) / (1 << 23) - 1;
    }
    for (int i = 0; i < t->batch; i++) labels[i] = i % classes;
    return t->classes ? rp_labelled(inputs, labels, t->batch) : rp_targeted(inputs, inputs, t->batch);
}
#endif
