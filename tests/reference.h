/* The mathematics of rp.h once more: in float64, naive, one sample and one scalar at a time, straight from the
   equations of Deep Residual Partitioning. What the library is tested against. Of rp.h it uses the public enums and
   structs only. A net is a list of units; each is a weighted sum of earlier ones, an activation of one, or the largest
   of some. A layer is no more than the loops that say which unit reads which, through which parameter; a sweep is a
   loop over the list. As in the paper the bias is one more weight, from unit 0, whose y is 1 and whose u is 0. */
#ifndef REFERENCE_H
#define REFERENCE_H
#include "memory.h"
#include "test.h"

enum { REF_LAYERS = 30, REF_WIDTH = 520 };

static inline double *ref_new(int count) { return (double *)take((size_t)count * sizeof(double)); }
static inline double ref_sum(int n, const double *t) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += t[i];
    return sum;
}
static inline double ref_dot(int n, const double *a, const double *b) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* Losses: of one sample with outputs y and targets t. */

typedef struct ref_objective {
    rp_loss_kind kind;
    double delta; /* of the Huber loss */
    int outputs;
} ref_objective;

static inline void ref_softmax(int n, const double *y, double *p) {
    double largest = y[0], sum = 0;
    for (int i = 1; i < n; i++) largest = fmax(largest, y[i]);
    for (int i = 0; i < n; i++) {
        p[i] = exp(y[i] - largest);
        sum += p[i];
    }
    for (int i = 0; i < n; i++) p[i] /= sum;
}

static inline double ref_loss(const ref_objective *loss, const double *y, const double *t) {
    double p[REF_WIDTH], sum = 0, delta = loss->delta;
    ref_softmax(loss->outputs, y, p);
    for (int i = 0; i < loss->outputs; i++) {
        double r = y[i] - t[i], distance = fabs(r);
        switch (loss->kind) {
        case RP_SQUARED_ERROR: sum += r * r / 2; break;
        case RP_SOFTMAX_CROSS_ENTROPY: sum -= t[i] * log(p[i]); break;
        case RP_BINARY_CROSS_ENTROPY: sum += fmax(y[i], 0) + log1p(exp(-fabs(y[i]))) - t[i] * y[i]; break;
        case RP_HUBER: sum += distance <= delta ? r * r / 2 : delta * (distance - delta / 2); break;
        case RP_POISSON: sum += exp(y[i]) - t[i] * y[i]; break;
        }
    }
    return sum;
}

static inline void ref_loss_gradient(const ref_objective *loss, const double *y, const double *t, double *d) {
    double p[REF_WIDTH], sum = ref_sum(loss->outputs, t);
    ref_softmax(loss->outputs, y, p);
    for (int i = 0; i < loss->outputs; i++) {
        double r = y[i] - t[i];
        switch (loss->kind) {
        case RP_SQUARED_ERROR: d[i] = r; break;
        case RP_SOFTMAX_CROSS_ENTROPY: d[i] = sum * p[i] - t[i]; break;
        case RP_BINARY_CROSS_ENTROPY: d[i] = 1 / (1 + exp(-y[i])) - t[i]; break;
        case RP_HUBER: d[i] = fmax(-loss->delta, fmin(loss->delta, r)); break;
        case RP_POISSON: d[i] = exp(y[i]) - t[i]; break;
        }
    }
}

/* The diagonal that the bounds start from, h^2: the Hessian's, but Huber's is its majorant, and the tight bound's of
   softmax is that of diag(p), which bounds diag(p) - p p'. */
static inline void ref_loss_second(const ref_objective *loss, rp_bound_kind bound, const double *y, const double *t,
                                   double *h2) {
    double p[REF_WIDTH], sum = ref_sum(loss->outputs, t);
    ref_softmax(loss->outputs, y, p);
    for (int i = 0; i < loss->outputs; i++) {
        double s = 1 / (1 + exp(-y[i]));
        switch (loss->kind) {
        case RP_SQUARED_ERROR: h2[i] = 1; break;
        case RP_SOFTMAX_CROSS_ENTROPY: h2[i] = sum * p[i] * (bound == RP_BOUND_JENSEN ? 1 - p[i] : 1); break;
        case RP_BINARY_CROSS_ENTROPY: h2[i] = s * (1 - s); break;
        case RP_HUBER: h2[i] = fmin(1, loss->delta / fabs(y[i] - t[i])); break;
        case RP_POISSON: h2[i] = exp(y[i]); break;
        }
    }
}

/* out = H r for the loss's own Hessian by its outputs: exact, so Huber's is 0 beyond delta. */
static inline void ref_loss_product(const ref_objective *loss, const double *y, const double *t, const double *r,
                                    double *out) {
    double p[REF_WIDTH], sum = ref_sum(loss->outputs, t), mean;
    ref_softmax(loss->outputs, y, p);
    mean = ref_dot(loss->outputs, p, r);
    for (int i = 0; i < loss->outputs; i++) {
        double s = 1 / (1 + exp(-y[i]));
        switch (loss->kind) {
        case RP_SQUARED_ERROR: out[i] = r[i]; break;
        case RP_SOFTMAX_CROSS_ENTROPY: out[i] = sum * p[i] * (r[i] - mean); break;
        case RP_BINARY_CROSS_ENTROPY: out[i] = s * (1 - s) * r[i]; break;
        case RP_HUBER: out[i] = fabs(y[i] - t[i]) <= loss->delta ? r[i] : 0; break;
        case RP_POISSON: out[i] = exp(y[i]) * r[i]; break;
        }
    }
}

static inline int ref_jensen(const ref_objective *loss, rp_bound_kind bound) { /* a Jensen step between the outputs? */
    return loss->kind == RP_SOFTMAX_CROSS_ENTROPY && bound == RP_BOUND_JENSEN;
}

/* v at the outputs when they can move by u: h^2 u, with a Jensen step Equation 46 */
static inline void ref_flow(const ref_objective *loss, rp_bound_kind bound, const double *y, const double *t,
                            const double *u, double *v) {
    double h2[REF_WIDTH], total = 0;
    ref_loss_second(loss, bound, y, t, h2);
    for (int i = 0; i < loss->outputs; i++) total += sqrt(h2[i]) * u[i];
    for (int i = 0; i < loss->outputs; i++) v[i] = ref_jensen(loss, bound) ? sqrt(h2[i]) * total : h2[i] * u[i];
}

/* The random vectors of the sampled rule, one by one, so that sum_index probability r r' is the loss's Hessian. Returns
   the probability. */
static inline int ref_draws(const ref_objective *loss) {
    return loss->kind == RP_SOFTMAX_CROSS_ENTROPY ? loss->outputs : 1 << loss->outputs;
}
static inline double ref_draw(const ref_objective *loss, const double *y, const double *t, int index, double *r) {
    int softmax = loss->kind == RP_SOFTMAX_CROSS_ENTROPY;
    double p[REF_WIDTH], h2[REF_WIDTH], sum = ref_sum(loss->outputs, t);
    ref_softmax(loss->outputs, y, p);
    ref_loss_second(loss, RP_BOUND_TIGHT, y, t, h2);
    for (int i = 0; i < loss->outputs; i++) {
        int negative = !softmax && (index >> i & 1);
        r[i] = softmax ? sqrt(sum) * (p[i] - (i == index)) : (negative ? -1 : 1) * sqrt(h2[i]);
    }
    return softmax ? p[index] : 1.0 / ref_draws(loss);
}

/* Layers and units. */

typedef enum ref_kind {
    REF_DENSE,
    REF_ACTIVATION,
    REF_CONV2D,
    REF_MAX_POOL,
    REF_AVG_POOL,
    REF_RECURRENT,
    REF_RECURSIVE,
    REF_ADD
} ref_kind;

/* A layer as it is described to the library, and from `in` on what becomes of it in a net. */
typedef struct ref_layer {
    ref_kind kind;
    int units;                     /* dense, recurrent */
    int steps, source, all_states; /* recursive; add; recurrent */
    rp_conv2d_desc window;         /* convolutions; kernel and stride of pools */
    rp_activation_kind activation; /* activation, recurrent, recursive */
    double slope;                  /* of leaky ReLU and ELU */
    int bias, frozen;
    rp_shape in, out;
    int first;                /* output unit */
    int fan_in, rows;         /* of its weights: [rows][fan_in]; 0, 0 if there are none */
    int weights, biases, end; /* offsets into the flat arrays */
} ref_layer;

typedef enum ref_unit_kind { REF_SUM, REF_SIGMA, REF_LARGEST } ref_unit_kind;
typedef struct ref_unit {
    ref_unit_kind kind;
    int layer, first, end; /* its layer, and the links to what it reads */
} ref_unit;
typedef struct ref_link {
    int from, parameter; /* unit; -1: none, the factor is fixed */
    double factor;
} ref_link;

typedef struct ref_net {
    ref_layer layer[REF_LAYERS];
    rp_shape input;
    int layers, inputs, parameters;
    ref_objective loss;
    ref_unit *unit; /* unit 0 is 1, then come the inputs */
    ref_link *link;
    int units, links;
    double *w;             /* [parameters] */
    double *y, *u, *d, *v; /* [units], of the sample that went last */
    double *slope;         /* [links]: the derivative of a unit by what it reads */
} ref_net;

typedef struct ref_data {
    double *inputs, *targets, *weights; /* [count][inputs], [count][outputs], [count] */
    int count;
} ref_data;

static inline void *ref_grow(void *array, int count, size_t size) { /* room for one more; doubles at powers of two */
    if (count & (count - 1)) return array;
    void *larger_one = take((count ? 2 * (size_t)count : 1) * size);
    if (count) memcpy(larger_one, array, (size_t)count * size);
    return larger_one;
}
static inline int ref_unit_new(ref_net *net, ref_unit_kind kind) {
    ref_unit unit = {kind, net->layers, net->links, net->links};
    net->unit = (ref_unit *)ref_grow(net->unit, net->units, sizeof unit);
    net->unit[net->units] = unit;
    return net->units++;
}
static inline void ref_read(ref_net *net, int from, int parameter, double factor) { /* the last unit reads one more */
    ref_link link = {from, parameter, factor};
    net->link = (ref_link *)ref_grow(net->link, net->links, sizeof link);
    net->link[net->links] = link;
    net->unit[net->units - 1].end = ++net->links;
}

static inline int ref_features(rp_shape shape) { return shape.steps * shape.channels * shape.height * shape.width; }
static inline rp_shape ref_shape(const ref_net *net, int layer) { /* of what it gives; RP_INPUT: the input's */
    return layer < 0 ? net->input : net->layer[layer].out;
}
static inline int ref_first(const ref_net *net, int layer) { return layer < 0 ? 1 : net->layer[layer].first; }
static inline rp_shape ref_last_shape(const ref_net *net) { return ref_shape(net, net->layers - 1); }
static inline int ref_outputs(const ref_net *net) { return ref_first(net, net->layers - 1); } /* the first unit */

static inline ref_net *ref_net_new(rp_shape input, rp_loss_kind loss, double delta) {
    ref_net *net = (ref_net *)take(sizeof *net);
    net->input = input;
    net->inputs = net->loss.outputs = ref_features(input);
    net->loss.kind = loss;
    net->loss.delta = delta;
    for (int i = 0; i <= net->inputs; i++) ref_unit_new(net, REF_SUM);
    return net;
}

/* The layers. Each reads the units from `in` on, of the shape layer->in, and returns its first output unit. */

/* sum_j W_ij x_j, and where there is a state + sum_k U_ik h_k, + b_i */
static inline int ref_affine(ref_net *net, const ref_layer *layer, int in, int inputs, int state, int states) {
    int first = net->units, own = layer->weights + layer->rows * inputs;
    for (int i = 0; i < layer->rows; i++) {
        ref_unit_new(net, REF_SUM);
        for (int j = 0; j < inputs; j++) ref_read(net, in + j, layer->weights + i * inputs + j, 0);
        for (int k = 0; k < states; k++) ref_read(net, state + k, own + i * layer->rows + k, 0);
        if (layer->bias) ref_read(net, 0, layer->biases + i, 0);
    }
    return first;
}
static inline int ref_sigmas(ref_net *net, int in, int count) {
    int first = net->units;
    for (int i = 0; i < count; i++) {
        ref_unit_new(net, REF_SIGMA);
        ref_read(net, in + i, -1, 0);
    }
    return first;
}

/* The last unit reads the pixels of a channel that its window sees; `weights`: of the kernel, or -1 for `factor`. */
static inline void ref_window(ref_net *net, const ref_layer *layer, int in, int channel, int y, int x, int weights,
                              double factor) {
    const rp_conv2d_desc *w = &layer->window;
    for (int i = 0; i < w->kernel_height; i++)
        for (int j = 0; j < w->kernel_width; j++) {
            int row = y * w->stride_height - w->padding_height + i;
            int column = x * w->stride_width - w->padding_width + j;
            int from = in + (channel * layer->in.height + row) * layer->in.width + column;
            if (row < 0 || row >= layer->in.height || column < 0 || column >= layer->in.width) continue;
            ref_read(net, from, weights < 0 ? -1 : weights + i * w->kernel_width + j, factor);
        }
}
static inline int ref_conv2d(ref_net *net, const ref_layer *layer, int in) {
    const rp_conv2d_desc *w = &layer->window;
    int first = net->units, channels = layer->in.channels / w->groups, taps = w->kernel_height * w->kernel_width;
    int positions = layer->out.height * layer->out.width;
    for (int at = 0; at < layer->out.channels * positions; at++) {
        int filter = at / positions, group = filter / (w->filters / w->groups);
        ref_unit_new(net, REF_SUM);
        for (int c = 0; c < channels; c++)
            ref_window(net, layer, in, group * channels + c, at % positions / layer->out.width, at % layer->out.width,
                       layer->weights + (filter * channels + c) * taps, 0);
        if (layer->bias) ref_read(net, 0, layer->biases + filter, 0);
    }
    return first;
}
static inline int ref_pool2d(ref_net *net, const ref_layer *layer, int in) {
    int first = net->units, positions = layer->out.height * layer->out.width;
    double share = 1.0 / (layer->window.kernel_height * layer->window.kernel_width);
    for (int at = 0; at < layer->out.channels * positions; at++) {
        ref_unit_new(net, layer->kind == REF_MAX_POOL ? REF_LARGEST : REF_SUM);
        ref_window(net, layer, in, at / positions, at % positions / layer->out.width, at % layer->out.width, -1, share);
    }
    return first;
}

static inline int ref_recurrent(ref_net *net, const ref_layer *layer, int in) {
    int n = layer->rows, steps = layer->in.steps, inputs = layer->in.channels, before = net->units, first;
    for (int t = 0; t < steps; t++) {
        int sums = ref_affine(net, layer, in + t * inputs, inputs, net->units - n, t ? n : 0);
        ref_sigmas(net, sums, n);
    }
    first = net->units;
    for (int t = layer->all_states ? 0 : steps - 1; t < steps; t++)
        for (int i = 0; i < n; i++) {
            ref_unit_new(net, REF_SUM);
            ref_read(net, before + (2 * t + 1) * n + i, -1, 1);
        }
    return first;
}
static inline int ref_recursive(ref_net *net, const ref_layer *layer, int in) {
    int n = layer->rows;
    for (int t = 0; t < layer->steps; t++) in = ref_sigmas(net, ref_affine(net, layer, in, n, 0, 0), n);
    return in;
}
static inline int ref_add(ref_net *net, int one, int other, int count) {
    int first = net->units;
    for (int i = 0; i < count; i++) {
        ref_unit_new(net, REF_SUM);
        ref_read(net, one + i, -1, 1);
        ref_read(net, other + i, -1, 1);
    }
    return first;
}

static inline rp_shape ref_shape_after(const ref_layer *layer) {
    const rp_conv2d_desc *w = &layer->window;
    rp_shape s = layer->in;
    int down = w->stride_height ? w->stride_height : 1, right = w->stride_width ? w->stride_width : 1;
    int height = (s.height + 2 * w->padding_height - w->kernel_height) / down + 1;
    int width = (s.width + 2 * w->padding_width - w->kernel_width) / right + 1;
    switch (layer->kind) {
    case REF_DENSE: return rp_vector(layer->units);
    case REF_RECURSIVE: return rp_vector(ref_features(s));
    case REF_RECURRENT: return layer->all_states ? rp_sequence(s.steps, layer->units) : rp_vector(layer->units);
    case REF_CONV2D: return rp_image(w->filters, height, width);
    case REF_MAX_POOL:
    case REF_AVG_POOL: return rp_image(s.channels, height, width);
    case REF_ACTIVATION:
    case REF_ADD: break;
    }
    return s;
}

static inline void ref_place(ref_net *net, ref_layer *layer, int rows, int fan_in) {
    layer->rows = rows;
    layer->fan_in = fan_in;
    layer->weights = net->parameters;
    layer->biases = layer->weights + rows * fan_in;
    layer->end = net->parameters = layer->biases + layer->bias * rows;
}

/* Appends a layer of which all before `in` is set. */
static inline void ref_append(ref_net *net, ref_layer described) {
    int in = ref_outputs(net), features = ref_features(ref_last_shape(net));
    ref_layer *layer = &net->layer[net->layers];
    const rp_conv2d_desc *w = &layer->window;
    *layer = described;
    layer->in = ref_last_shape(net);
    layer->out = ref_shape_after(layer);
    switch (layer->kind) {
    case REF_DENSE:
        ref_place(net, layer, layer->units, features);
        layer->first = ref_affine(net, layer, in, features, 0, 0);
        break;
    case REF_CONV2D:
        ref_place(net, layer, w->filters, layer->in.channels / w->groups * w->kernel_height * w->kernel_width);
        layer->first = ref_conv2d(net, layer, in);
        break;
    case REF_RECURRENT:
        ref_place(net, layer, layer->units, layer->in.channels + layer->units);
        layer->first = ref_recurrent(net, layer, in);
        break;
    case REF_RECURSIVE:
        ref_place(net, layer, features, features);
        layer->first = ref_recursive(net, layer, in);
        break;
    case REF_MAX_POOL:
    case REF_AVG_POOL: layer->first = ref_pool2d(net, layer, in); break;
    case REF_ACTIVATION: layer->first = ref_sigmas(net, in, features); break;
    case REF_ADD: layer->first = ref_add(net, in, ref_first(net, layer->source), features); break;
    }
    net->layers++;
    net->loss.outputs = ref_features(layer->out);
}

/* After the last layer: memory for parameters and sweeps. */
static inline void ref_close(ref_net *net) {
    net->w = ref_new(net->parameters);
    net->slope = ref_new(net->links);
    net->y = ref_new(net->units);
    net->u = ref_new(net->units);
    net->d = ref_new(net->units);
    net->v = ref_new(net->units);
}

/* The size that the layer's updates are assumed to have; a frozen layer has none. */
static inline double ref_scale(const ref_layer *layer, rp_scale_kind scale) {
    if (layer->frozen) return 0;
    return scale == RP_SCALE_FAN_IN ? 1 / sqrt(layer->fan_in + 1.0) : 1;
}
static inline double *ref_scales(const ref_net *net, rp_scale_kind scale) { /* the same, for each parameter */
    double *c = ref_new(net->parameters);
    for (int l = 0; l < net->layers; l++)
        for (int p = net->layer[l].weights; p < net->layer[l].end; p++) c[p] = ref_scale(&net->layer[l], scale);
    return c;
}

/* Sweeps. */

static inline const double *ref_output(const ref_net *net) { return net->y + ref_outputs(net); }

/* sigma, sigma' or sigma'' (order 0, 1, 2) */
static inline double ref_sigma(const ref_layer *layer, int order, double z) {
    const double root_2 = 1.4142135623730951, root_2_pi = 2.5066282746310002;
    double value[3] = {z, 1, 0}, a = layer->slope;
    double s = 1 / (1 + exp(-z)), ds = s / (1 + exp(z)), dds = ds * (1 - 2 * s); /* the logistic function */
    double below, density;
    switch (layer->activation) {
    case RP_IDENTITY: break;
    case RP_RELU:
        if (z <= 0) value[0] = value[1] = 0;
        break;
    case RP_LEAKY_RELU:
        if (z > 0) break;
        value[0] = a * z;
        value[1] = a;
        break;
    case RP_ELU:
        if (z > 0) break;
        value[0] = a * expm1(z);
        value[1] = value[2] = a * exp(z);
        break;
    case RP_TANH:
        value[0] = tanh(z);
        value[1] = 1 / (cosh(z) * cosh(z));
        value[2] = -2 * value[0] * value[1];
        break;
    case RP_SIGMOID:
        value[0] = s;
        value[1] = ds;
        value[2] = dds;
        break;
    case RP_SOFTPLUS:
        value[0] = fmax(z, 0) + log1p(exp(-fabs(z)));
        value[1] = s;
        value[2] = ds;
        break;
    case RP_SILU:
        value[0] = z * s;
        value[1] = s + z * ds;
        value[2] = 2 * ds + z * dds;
        break;
    case RP_GELU:
        below = erfc(-z / root_2) / 2;
        density = exp(-z * z / 2) / root_2_pi;
        value[0] = z * below;
        value[1] = below + z * density;
        value[2] = density * (2 - z * z);
    }
    return value[order];
}

static inline void ref_slopes(ref_net *net, const ref_unit *unit) {
    int largest = unit->first;
    for (int k = unit->first; k < unit->end; k++) {
        const ref_link *link = &net->link[k];
        net->slope[k] = link->parameter >= 0 ? net->w[link->parameter] : link->factor;
        if (unit->kind == REF_SIGMA) net->slope[k] = ref_sigma(&net->layer[unit->layer], 1, net->y[link->from]);
        if (unit->kind == REF_LARGEST && net->y[link->from] > net->y[net->link[largest].from]) largest = k;
    }
    if (unit->kind != REF_LARGEST) return;
    for (int k = unit->first; k < unit->end; k++) net->slope[k] = k == largest;
}

/* y, u: Equation 11 */
static inline void ref_forward(ref_net *net, rp_scale_kind scale, const double *x) {
    memset(net->y, 0, sizeof *net->y * (size_t)net->units);
    memset(net->u, 0, sizeof *net->u * (size_t)net->units);
    memcpy(net->y + 1, x, sizeof *x * (size_t)net->inputs);
    net->y[0] = 1;
    for (int i = net->inputs + 1; i < net->units; i++) {
        const ref_unit *unit = &net->unit[i];
        const ref_layer *layer = &net->layer[unit->layer];
        double c = ref_scale(layer, scale), y = 0, u = 0;
        ref_slopes(net, unit);
        for (int k = unit->first; k < unit->end; k++) {
            int from = net->link[k].from;
            y += unit->kind == REF_SIGMA ? ref_sigma(layer, 0, net->y[from]) : net->slope[k] * net->y[from];
            u += fabs(net->slope[k]) * net->u[from];
            if (net->link[k].parameter >= 0) u += c * fabs(net->y[from]);
        }
        net->y[i] = y;
        net->u[i] = u;
    }
}

/* From d and v (NULL: 0) at the outputs to all units, and to the parameters: gradient += factor d y, curvature +=
   factor / c v |y| (NULL: none), which is Equation 9 with the shares of Equation 10, for each time that a parameter is
   used. */
static inline void ref_backward(ref_net *net, rp_scale_kind scale, const double *d, const double *v, double factor,
                                double *gradient, double *curvature) {
    memset(net->d, 0, sizeof *net->d * (size_t)net->units);
    memset(net->v, 0, sizeof *net->v * (size_t)net->units);
    memcpy(net->d + ref_outputs(net), d, sizeof *d * (size_t)net->loss.outputs);
    if (v) memcpy(net->v + ref_outputs(net), v, sizeof *v * (size_t)net->loss.outputs);
    for (int i = net->units - 1; i > net->inputs; i--) {
        const ref_unit *unit = &net->unit[i];
        const ref_layer *layer = &net->layer[unit->layer];
        double c = ref_scale(layer, scale);
        for (int k = unit->first; k < unit->end; k++) {
            int from = net->link[k].from, p = net->link[k].parameter;
            double flow = fabs(net->slope[k]) * net->v[i];
            if (v && unit->kind == REF_SIGMA) flow += ref_sigma(layer, 2, net->y[from]) * net->d[i] * net->u[from];
            net->d[from] += net->slope[k] * net->d[i];
            net->v[from] += fabs(flow);
            if (p < 0 || layer->frozen) continue;
            gradient[p] += factor * net->d[i] * net->y[from];
            if (curvature) curvature[p] += factor / c * net->v[i] * fabs(net->y[from]);
        }
    }
}

static inline int ref_trained(const ref_net *net, int parameter, int layer) { /* parameter -1: there is none */
    return parameter >= 0 && !net->layer[layer].frozen;
}

/* r [units]: the derivative of each unit along w. Forward must have been done. */
static inline void ref_tangent(const ref_net *net, const double *w, double *r) {
    for (int i = 0; i <= net->inputs; i++) r[i] = 0;
    for (int i = net->inputs + 1; i < net->units; i++) {
        r[i] = 0;
        for (int k = net->unit[i].first; k < net->unit[i].end; k++) {
            int from = net->link[k].from, p = net->link[k].parameter;
            r[i] += net->slope[k] * r[from];
            if (ref_trained(net, p, net->unit[i].layer)) r[i] += w[p] * net->y[from];
        }
    }
}

/* Rules: a sample's part of the curvature, from its own derivatives by the parameters. Forward must have been done. */

/* J [outputs][parameters]: the derivative of each output by each parameter, 0 for frozen ones */
static inline double *ref_jacobian(ref_net *net) {
    double *j = ref_new(net->loss.outputs * net->parameters);
    for (int k = 0; k < net->loss.outputs; k++) {
        double one[REF_WIDTH] = {0};
        one[k] = 1;
        ref_backward(net, RP_SCALE_ONE, one, NULL, 1, j + k * net->parameters, NULL);
    }
    return j;
}

static inline double ref_weighted_sum(int n, const double *c, const double *j) {
    double sum = 0;
    for (int p = 0; p < n; p++) sum += c[p] * fabs(j[p]);
    return sum;
}
/* curvature += factor |j| / c */
static inline void ref_add_magnitudes(int n, const double *c, const double *j, double factor, double *curvature) {
    for (int p = 0; p < n; p++)
        if (c[p] > 0) curvature[p] += factor * fabs(j[p]) / c[p];
}

/* Poster, Equation 6, for several outputs: sum_k v_k |J_kw| / c_w with v from T_k = sum_w c_w |J_kw| */
static inline void ref_jacobian_rule(ref_net *net, const rp_rule *rule, const double *t, double factor,
                                     double *curvature) {
    size_t mark = memory_mark();
    int n = net->parameters, outputs = net->loss.outputs;
    double *j = ref_jacobian(net), *c = ref_scales(net, rule->scale), total[REF_WIDTH], v[REF_WIDTH];
    for (int k = 0; k < outputs; k++) total[k] = ref_weighted_sum(n, c, j + k * n);
    ref_flow(&net->loss, rule->bound, ref_output(net), t, total, v);
    for (int k = 0; k < outputs; k++) ref_add_magnitudes(n, c, j + k * n, factor * v[k], curvature);
    memory_release(mark);
}

/* What the sampled rule can give for a batch: each parameter's smallest, mean and largest curvature, its variance. */
typedef struct ref_spread {
    double *low, *mean, *high, *variance;
} ref_spread;
static inline ref_spread ref_spread_new(int n) {
    ref_spread spread = {ref_new(n), ref_new(n), ref_new(n), ref_new(n)};
    return spread;
}

/* A sample's part, of which forward must have been done. For a given r, with g = J'r, the rule gives
   |g| / c sum_w c_w |g_w|. */
static inline void ref_sampled_rule(ref_net *net, const double *c, const double *t, double factor, ref_spread *spread) {
    size_t mark = memory_mark();
    int n = net->parameters;
    ref_spread own = ref_spread_new(n); /* .variance holds the mean square */
    double *g = ref_new(n), *x = ref_new(n), r[REF_WIDTH];
    for (int index = 0; index < ref_draws(&net->loss); index++) {
        double probability = ref_draw(&net->loss, ref_output(net), t, index, r);
        memset(g, 0, sizeof *g * (size_t)n);
        memset(x, 0, sizeof *x * (size_t)n);
        ref_backward(net, RP_SCALE_ONE, r, NULL, 1, g, NULL);
        ref_add_magnitudes(n, c, g, factor * ref_weighted_sum(n, c, g), x);
        for (int p = 0; p < n; p++) {
            own.low[p] = index ? fmin(own.low[p], x[p]) : x[p];
            own.high[p] = fmax(own.high[p], x[p]);
            own.mean[p] += probability * x[p];
            own.variance[p] += probability * x[p] * x[p];
        }
    }
    for (int p = 0; p < n; p++) {
        spread->low[p] += own.low[p];
        spread->mean[p] += own.mean[p];
        spread->high[p] += own.high[p];
        spread->variance[p] += own.variance[p] - own.mean[p] * own.mean[p];
    }
    memory_release(mark);
}

/* Batches. */

static inline double ref_factor(const ref_data *data, int b) { return data->weights[b] / data->count; }
static inline const double *ref_targets(const ref_net *net, const ref_data *data, int b) {
    return data->targets + b * net->loss.outputs;
}
static inline void ref_forward_sample(ref_net *net, rp_scale_kind scale, const ref_data *data, int b) {
    ref_forward(net, scale, data->inputs + b * net->inputs);
}

/* The mean loss, and unless NULL its gradient and by `rule` (not the sampled one) its curvature. */
static inline double ref_batch(ref_net *net, const ref_data *data, const rp_rule *rule, double *gradient,
                               double *curvature) {
    rp_scale_kind scale = rule ? rule->scale : RP_SCALE_ONE;
    int paths = curvature && rule->kind == RP_PATHS;
    double loss = 0, d[REF_WIDTH], v[REF_WIDTH];
    if (gradient) memset(gradient, 0, sizeof *gradient * (size_t)net->parameters);
    if (curvature) memset(curvature, 0, sizeof *curvature * (size_t)net->parameters);
    for (int b = 0; b < data->count; b++) {
        const double *t = ref_targets(net, data, b), *y = ref_output(net);
        double factor = ref_factor(data, b);
        ref_forward_sample(net, scale, data, b);
        loss += factor * ref_loss(&net->loss, y, t);
        if (!gradient) continue;
        ref_loss_gradient(&net->loss, y, t, d);
        if (paths) ref_flow(&net->loss, rule->bound, y, t, net->u + ref_outputs(net), v);
        ref_backward(net, scale, d, paths ? v : NULL, factor, gradient, paths ? curvature : NULL);
        if (curvature && rule->kind == RP_JACOBIAN) ref_jacobian_rule(net, rule, t, factor, curvature);
    }
    return loss;
}
static inline ref_spread ref_batch_sampled(ref_net *net, const ref_data *data, rp_scale_kind scale) {
    ref_spread spread = ref_spread_new(net->parameters);
    double *c = ref_scales(net, scale);
    for (int b = 0; b < data->count; b++) {
        ref_forward_sample(net, RP_SCALE_ONE, data, b);
        ref_sampled_rule(net, c, ref_targets(net, data, b), ref_factor(data, b), &spread);
    }
    return spread;
}

/* Theorems. */

/* Equation 44, with scales: what sum c^2 curvature must be if no activation has a second derivative. A pool, a sum and
   a copy have no parameters and no slope but fixed ones, so that v'u' = sum v u holds across them as across an affine
   layer. */
static inline double ref_exact_sum(ref_net *net, const ref_data *data, const rp_rule *rule) {
    double sum = 0, v[REF_WIDTH];
    for (int b = 0; b < data->count; b++) {
        const double *u = net->u + ref_outputs(net);
        ref_forward_sample(net, rule->scale, data, b);
        ref_flow(&net->loss, rule->bound, ref_output(net), ref_targets(net, data, b), u, v);
        sum += ref_factor(data, b) * ref_dot(net->loss.outputs, v, u);
    }
    return sum;
}

/* What Theorem 1 bounds, along the step w: the Gauss-Newton part Ry' H Ry and the activations' part sigma'' d (Rz)^2 */
static inline void ref_quadratic(ref_net *net, const ref_data *data, const double *w, double *gauss_newton,
                                 double *activations) {
    size_t mark = memory_mark();
    int outputs = net->loss.outputs;
    double *ignored = ref_new(net->parameters), *r = ref_new(net->units), d[REF_WIDTH], hr[REF_WIDTH];
    const double *y = ref_output(net), *ry = r + ref_outputs(net);
    *gauss_newton = *activations = 0;
    for (int b = 0; b < data->count; b++) {
        const double *t = ref_targets(net, data, b);
        ref_forward_sample(net, RP_SCALE_ONE, data, b);
        ref_loss_gradient(&net->loss, y, t, d);
        ref_backward(net, RP_SCALE_ONE, d, NULL, 0, ignored, NULL);
        ref_tangent(net, w, r);
        for (int i = net->inputs + 1; i < net->units; i++) {
            const ref_unit *unit = &net->unit[i];
            int from = net->link[unit->first].from;
            if (unit->kind != REF_SIGMA) continue;
            double second = ref_sigma(&net->layer[unit->layer], 2, net->y[from]);
            *activations += ref_factor(data, b) * second * net->d[i] * r[from] * r[from];
        }
        ref_loss_product(&net->loss, y, t, ry, hr);
        *gauss_newton += ref_factor(data, b) * ref_dot(outputs, ry, hr);
    }
    memory_release(mark);
}

/* Shares that sum to one: the best, amount / sum (Lemma 3), mixed with random ones; none where there is no amount. */
static inline void ref_shares(int n, const double *amount, double mix, test_random *random, double *share) {
    double total = ref_sum(n, amount), sum = 0;
    for (int i = 0; i < n; i++) {
        double best = amount[i] / total;
        share[i] = amount[i] > 0 ? (1 - mix) * best + mix * test_uniform(random, 0.01, 1) / n : 0;
        sum += share[i];
    }
    for (int i = 0; i < n; i++) share[i] /= sum > 0 ? sum : 1;
}

/* One sample through one unit: `second` (Y..) of it becomes a part of what it reads, and of its parameters' curvature.
   */
static inline void ref_partition_unit(const ref_net *net, int i, rp_scale_kind scale, double factor, double mix,
                                      test_random *random, double *second, double *curvature) {
    const ref_unit *unit = &net->unit[i];
    const ref_layer *layer = &net->layer[unit->layer];
    const ref_link *link = net->link + unit->first;
    const double *slope = net->slope + unit->first;
    int n = unit->end - unit->first;
    double amount[2 * REF_WIDTH + 2], share[2 * REF_WIDTH + 2];
    for (int k = 0; k < n; k++) {
        amount[k] = link[k].parameter < 0 ? 0 : ref_scale(layer, scale) * fabs(net->y[link[k].from]);
        amount[n + k] = fabs(slope[k]) * net->u[link[k].from];
    }
    ref_shares(2 * n, amount, mix, random, share);
    for (int k = 0; k < n; k++) {
        double epsilon = share[k], phi = share[n + k], y = net->y[link[k].from];
        if (epsilon > 0) curvature[link[k].parameter] += factor * second[i] * y * y / epsilon;
        if (phi > 0) second[link[k].from] += second[i] * slope[k] * slope[k] / phi;
    }
}

/* The curvature of the paths bound for other partitioning variables than the best: Equations 9, 14 and 18 as they
   stand, with shares mixed from the best (mix 0) to random ones (mix 1). Activations must have no second derivative. */
static inline double *ref_partition(ref_net *net, const ref_data *data, const rp_rule *rule, double mix,
                                    test_random *random) {
    double *curvature = ref_new(net->parameters), *second = ref_new(net->units), *h2 = second + ref_outputs(net);
    int outputs = net->loss.outputs, jensen = ref_jensen(&net->loss, rule->bound);
    for (int b = 0; b < data->count; b++) {
        double amount[REF_WIDTH], share[REF_WIDTH];
        const double *u = net->u + ref_outputs(net);
        ref_forward_sample(net, rule->scale, data, b);
        memset(second, 0, sizeof *second * (size_t)net->units);
        ref_loss_second(&net->loss, rule->bound, ref_output(net), ref_targets(net, data, b), h2);
        for (int i = 0; i < outputs; i++) amount[i] = sqrt(h2[i]) * u[i];
        ref_shares(outputs, amount, mix, random, share);
        for (int i = 0; i < outputs; i++)
            if (jensen) h2[i] = share[i] > 0 ? h2[i] / share[i] : 0;
        for (int i = net->units - 1; i > net->inputs; i--)
            ref_partition_unit(net, i, rule->scale, ref_factor(data, b), mix, random, second, curvature);
    }
    return curvature;
}

/* Optimizers: the formulas above rp_optimizer, one parameter at a time. */

typedef struct ref_state {
    double *a, *b; /* [parameters]: two things to remember, in the order in which the formula names them */
    int steps;
} ref_state;

static inline double ref_step(const rp_optimizer *o, int t, double rate, double g, double h, double *a, double *b) {
    double momentum = (double)o->momentum, average = (double)o->curvature_average, epsilon = (double)o->epsilon;
    double beta1 = (double)o->beta1, beta2 = (double)o->beta2, rho = (double)o->rho, step = 0;
    switch (o->method) {
    case RP_PARTITIONING:
        *a = momentum * *a + (1 - momentum) * g;
        *b = average * *b + (1 - average) * h;
        return rate * *a / (1 - pow(momentum, t)) / (*b / (1 - pow(average, t)) + (double)o->damping);
    case RP_SGD: *a = t == 1 ? g : momentum * *a + g; return rate * (o->nesterov ? g + momentum * *a : *a);
    case RP_ADAM:
        *a = beta1 * *a + (1 - beta1) * g;
        *b = beta2 * *b + (1 - beta2) * g * g;
        return rate * *a / (1 - pow(beta1, t)) / (sqrt(*b / (1 - pow(beta2, t))) + epsilon);
    case RP_ADAGRAD: *a += g * g; return rate * g / (sqrt(*a) + epsilon);
    case RP_ADADELTA:
        *a = rho * *a + (1 - rho) * g * g;
        step = sqrt(*b + epsilon) / sqrt(*a + epsilon) * g;
        *b = rho * *b + (1 - rho) * step * step;
        return rate * step;
    case RP_PER_VARIABLE: /* these need second derivatives: tests/test_steps.c */
    case RP_NEWTON: break;
    }
    return 0;
}

static inline void ref_update(ref_net *net, const rp_optimizer *o, const double *gradient, const double *curvature,
                              ref_state *state) {
    size_t mark = memory_mark();
    double r = (double)o->weight_decay, coupled = o->decoupled ? 0 : r, *c = ref_scales(net, RP_SCALE_ONE);
    double exponent = (double)state->steps / (o->rate_decay_steps ? o->rate_decay_steps : 1);
    double rate = (double)o->rate * (o->rate_decay > 0 ? pow((double)o->rate_decay, exponent) : 1);
    state->steps++;
    for (int p = 0; p < net->parameters; p++) {
        double w = net->w[p], g = gradient[p] + coupled * w, h = (curvature ? curvature[p] : 0) + coupled;
        double step = ref_step(o, state->steps, rate, g, h, &state->a[p], &state->b[p]);
        double next = w - step - (o->decoupled ? rate * r * w : 0);
        if (c[p] > 0 && next - next == 0) net->w[p] = next; /* not frozen, and finite */
    }
    memory_release(mark);
}
#endif
