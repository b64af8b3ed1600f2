/* Random nets of all kinds of layers, as the reference describes them and as the library does. Include after rp.h. */
#ifndef RANDOM_NETS_H
#define RANDOM_NETS_H
#include "options.h"
#include "reference.h"

typedef enum activation_choice { ANY, SMOOTH, PIECEWISE_LINEAR } activation_choice;

/* What a random net may be. A stack has dense layers and activations only. */
typedef enum net_kind { STACK, VECTOR, IMAGE, SEQUENCE } net_kind;
typedef struct net_recipe {
    net_kind kind;
    int layers, size, outputs, count; /* upper limits; size: of channels, features, heights, widths, steps */
    activation_choice activations;
} net_recipe;

static inline int smaller(int a, int b) { return a < b ? a : b; }
static inline double rounded(double x) { return (double)(rp_real)x; }
static inline int same_shape(rp_shape a, rp_shape b) {
    return a.kind == b.kind && a.steps == b.steps && a.channels == b.channels && a.height == b.height &&
           a.width == b.width;
}

/* 1..most, and often where the kernels' tiles begin and end. */
static inline int random_width(test_random *random, int most) {
    static const int edges[] = {1,  2,  3,  4,  5,  7,  8,  9,   15,  16,  17,  31,  32,  33,  47,  48,
                                49, 63, 64, 65, 95, 96, 97, 127, 128, 129, 255, 256, 257, 511, 512, 513};
    int edge = edges[test_int(random, 0, (int)(sizeof edges / sizeof *edges) - 1)];
    return edge <= most ? edge : test_int(random, 1, most);
}

/* Random layers. */

static inline ref_layer layer_of(ref_kind kind) {
    ref_layer layer;
    memset(&layer, 0, sizeof layer);
    layer.kind = kind;
    return layer;
}
static inline void random_activation(test_random *random, activation_choice choice, ref_layer *layer) {
    static const rp_activation_kind kinds[] = {RP_IDENTITY, RP_RELU, RP_LEAKY_RELU, RP_TANH, RP_SIGMOID,
                                               RP_SOFTPLUS, RP_ELU,  RP_GELU,       RP_SILU};
    static const rp_activation_kind smooth[] = {RP_IDENTITY, RP_TANH, RP_SIGMOID, RP_SOFTPLUS, RP_GELU, RP_SILU};
    layer->activation = kinds[test_int(random, 0, choice == ANY ? 8 : 2)];
    if (choice == SMOOTH) layer->activation = smooth[test_int(random, 0, 5)];
    double usual = layer->activation == RP_ELU ? 1 : 0.01;
    layer->slope = rounded(chance(random, 0.5) ? usual : test_uniform(random, 0, 2));
}

/* One side of a window: kernels of 1 and beyond the image where the padding allows it, strides beyond the kernel. */
static inline void random_side(test_random *random, int size, int *kernel, int *stride, int *padding) {
    if (padding) *padding = chance(random, 0.5) ? 0 : test_int(random, 1, 3);
    *kernel = test_int(random, 1, smaller(size + (padding ? 2 * *padding : 0), chance(random, 0.3) ? 9 : 3));
    *stride = test_int(random, 1, chance(random, 0.2) ? *kernel + 2 : 2);
}

static inline void random_conv2d(test_random *random, const net_recipe *recipe, rp_shape s, ref_layer *layer) {
    rp_conv2d_desc *w = &layer->window;
    int some = chance(random, 0.5) ? s.channels : test_int(random, 1, s.channels);
    w->groups = chance(random, 0.6) ? 1 : some;
    while (s.channels % w->groups) w->groups--;
    w->filters = w->groups * test_int(random, 1, recipe->size / w->groups + 1);
    random_side(random, s.height, &w->kernel_height, &w->stride_height, &w->padding_height);
    random_side(random, s.width, &w->kernel_width, &w->stride_width, &w->padding_width);
    if (!chance(random, 0.5) || w->kernel_height > s.width + 2 * w->padding_height) return;
    w->groups = 1;
    w->kernel_width = w->kernel_height;
    w->stride_width = w->stride_height;
    w->padding_width = w->padding_height;
}

static inline void random_pool2d(test_random *random, rp_shape s, ref_layer *layer) {
    rp_conv2d_desc *w = &layer->window;
    layer->kind = chance(random, 0.5) ? REF_MAX_POOL : REF_AVG_POOL;
    random_side(random, smaller(s.height, s.width), &w->kernel_height, &w->stride_height, NULL);
    w->kernel_width = w->kernel_height;
    w->stride_width = w->stride_height;
    if (!chance(random, 0.2)) return;
    layer->kind = REF_AVG_POOL;
    w->kernel_height = s.height;
    w->kernel_width = s.width;
    w->stride_height = w->stride_width = 1;
}

/* A layer, or the input, whose output has the shape of the last layer's. There is always that itself. */
static inline int random_source(test_random *random, const ref_net *net) {
    int source = test_int(random, RP_INPUT, net->layers - 1);
    while (!same_shape(ref_shape(net, source), ref_last_shape(net)))
        source = test_int(random, RP_INPUT, net->layers - 1);
    return source;
}

static inline ref_kind random_kind(test_random *random, const ref_net *net) {
    static const ref_kind vector[] = {REF_ACTIVATION, REF_DENSE,     REF_DENSE, REF_DENSE,
                                      REF_RECURSIVE,  REF_RECURSIVE, REF_ADD,   REF_ADD};
    static const ref_kind image[] = {REF_ACTIVATION, REF_ACTIVATION, REF_CONV2D,   REF_CONV2D,
                                     REF_CONV2D,     REF_MAX_POOL,   REF_MAX_POOL, REF_ADD};
    static const ref_kind sequence[] = {REF_ACTIVATION, REF_RECURRENT, REF_RECURRENT, REF_RECURRENT,
                                        REF_RECURRENT,  REF_RECURRENT, REF_ADD,       REF_ADD};
    rp_shape s = ref_last_shape(net);
    int which = test_int(random, 0, 7), after_conv2d = net->layers && net->layer[net->layers - 1].kind == REF_CONV2D;
    ref_kind kind = s.kind == RP_SHAPE_IMAGE ? image[which] : sequence[which];
    if (s.kind == RP_SHAPE_VECTOR) kind = vector[which];
    if (chance(random, 0.05)) kind = chance(random, 0.5) ? REF_RECURSIVE : REF_DENSE;
    if (kind == REF_RECURSIVE && ref_features(s) > 20) kind = REF_ACTIVATION;
    if (after_conv2d && chance(random, 0.5)) kind = REF_ACTIVATION;
    return kind;
}
static inline void random_layer(test_random *random, const net_recipe *recipe, ref_net *net) {
    ref_layer layer = layer_of(random_kind(random, net));
    layer.units = test_int(random, 1, recipe->size);
    layer.steps = test_int(random, 1, 5);
    layer.all_states = chance(random, 0.6);
    layer.bias = chance(random, 0.8);
    layer.frozen = chance(random, 0.1);
    random_activation(random, recipe->activations, &layer);
    if (layer.kind == REF_ADD) layer.source = random_source(random, net);
    if (layer.kind == REF_CONV2D) random_conv2d(random, recipe, ref_last_shape(net), &layer);
    if (layer.kind == REF_MAX_POOL) random_pool2d(random, ref_last_shape(net), &layer);
    ref_append(net, layer);
}

/* Dense layers and activations, which may also come first and several in a row. */
static inline void random_stack(test_random *random, const net_recipe *recipe, int outputs, ref_net *net) {
    ref_layer activation = layer_of(REF_ACTIVATION), dense = layer_of(REF_DENSE);
    double another = 0.1;
    for (int more = test_int(random, 1, recipe->layers); more >= 0; more--) {
        while (chance(random, another) && net->layers + more < REF_LAYERS) {
            random_activation(random, recipe->activations, &activation);
            ref_append(net, activation);
            another = 0.1;
        }
        if (!more) break;
        dense.units = random_width(random, more > 1 ? recipe->size : outputs);
        dense.bias = chance(random, 0.8);
        dense.frozen = chance(random, 0.1);
        ref_append(net, dense);
        another = more > 1 ? 0.85 : 0.25;
    }
}

static inline rp_shape random_input(test_random *random, const net_recipe *recipe) {
    int a = random_width(random, recipe->size), b = test_int(random, 1, recipe->size);
    if (recipe->kind == IMAGE) return rp_image(test_int(random, 1, 4), a, b);
    return recipe->kind == SEQUENCE ? rp_sequence(a, b) : rp_vector(a);
}

/* kind: of the rule that it is for; the sampled one's reference goes through all vectors of signs, one for each output.
   */
static inline ref_net *random_net(test_random *random, const net_recipe *recipe, rp_rule_kind kind) {
    static const rp_loss_kind losses[] = {RP_SQUARED_ERROR, RP_SOFTMAX_CROSS_ENTROPY, RP_BINARY_CROSS_ENTROPY, RP_HUBER,
                                          RP_POISSON};
    rp_loss_kind loss = losses[test_int(random, 0, 4)];
    ref_net *net = ref_net_new(random_input(random, recipe), loss, rounded(test_uniform(random, 0.3, 2)));
    int outputs = recipe->outputs;
    if (kind == RP_SAMPLED && loss != RP_SOFTMAX_CROSS_ENTROPY) outputs = smaller(outputs, 5);
    if (recipe->kind == STACK) random_stack(random, recipe, outputs, net);
    else {
        for (int more = test_int(random, 1, recipe->layers); more > 0; more--) random_layer(random, recipe, net);
        if (net->loss.outputs > outputs || chance(random, 0.3)) {
            ref_layer last = layer_of(REF_DENSE);
            last.bias = 1;
            last.units = test_int(random, 1, outputs);
            ref_append(net, last);
        }
    }
    ref_close(net);
    return net;
}

/* The same net in the library. */

static inline int describe_window(rp_net *net, const ref_layer *layer) {
    const rp_conv2d_desc *w = &layer->window;
    int same = w->kernel_height == w->kernel_width && w->stride_height == w->stride_width;
    int whole = w->kernel_height == layer->in.height && w->kernel_width == layer->in.width;
    if (layer->kind == REF_MAX_POOL) return rp_max_pool2d(net, w->kernel_height, w->stride_height);
    if (layer->kind == REF_AVG_POOL && whole) return rp_global_avg_pool2d(net);
    if (layer->kind == REF_AVG_POOL) return rp_avg_pool2d(net, w->kernel_height, w->stride_height);
    if (same && w->padding_height == w->padding_width && w->groups == 1)
        return rp_conv2d(net, w->filters, w->kernel_height, w->stride_height, w->padding_height);
    return rp_conv2d_with(net, w);
}

static inline int describe_layer(rp_net *net, const ref_layer *layer) {
    rp_recurrent_desc all = all_states_of(layer->units, layer->activation);
    switch (layer->kind) {
    case REF_DENSE: return rp_dense(net, layer->units);
    case REF_ACTIVATION: return rp_activation(net, layer->activation);
    case REF_CONV2D:
    case REF_MAX_POOL:
    case REF_AVG_POOL: return describe_window(net, layer);
    case REF_RECURRENT:
        if (layer->all_states) return rp_recurrent_with(net, &all);
        return rp_recurrent(net, layer->units, layer->activation);
    case REF_RECURSIVE: return rp_recursive(net, layer->steps, layer->activation);
    case REF_ADD: return rp_add(net, layer->source);
    }
    return -1;
}

static inline int has_activation(const ref_layer *layer) {
    return layer->kind == REF_ACTIVATION || layer->kind == REF_RECURRENT || layer->kind == REF_RECURSIVE;
}
static inline int has_unusual_slope(const ref_layer *layer) {
    double usual = layer->activation == RP_ELU ? 1 : rounded(0.01);
    int sloped = layer->activation == RP_LEAKY_RELU || layer->activation == RP_ELU;
    return has_activation(layer) && sloped && fabs(layer->slope - usual) > 0;
}

/* Half of the seeds freeze before the build, half after it. */
static inline rp_net *library_net(const ref_net *reference, int batch, uint64_t seed, const rp_config *config) {
    rp_net *net = rp_net_new(reference->input, config);
    int early = seed % 2 == 1, count = reference->parameters;
    for (int l = 0; l < reference->layers; l++) {
        const ref_layer *layer = &reference->layer[l];
        int index = describe_layer(net, layer);
        CHECK(index == l, "layer %d has index %d: %s", l, index, rp_error(net));
        if (layer->rows && !layer->bias) rp_no_bias(net, rp_layer_count(net) - 1);
        if (has_unusual_slope(layer)) rp_negative_slope(net, rp_layer_count(net) - 1, (rp_real)layer->slope);
        if (layer->rows && layer->frozen && early) rp_freeze(net, l, 1);
    }
    rp_loss(net, reference->loss.kind);
    if (reference->loss.kind == RP_HUBER) rp_huber_delta(net, (rp_real)reference->loss.delta);
    rp_status status = rp_net_build(net, batch, seed);
    if (!CHECK(status == RP_OK && (int)rp_parameter_count(net) == count, "%s; %d parameters instead of %d",
               rp_error(net), (int)rp_parameter_count(net), count))
        exit(test_end());
    for (int l = 0; l < reference->layers; l++)
        if (reference->layer[l].rows && reference->layer[l].frozen) rp_freeze(net, l, 1);
    return net;
}
#endif
