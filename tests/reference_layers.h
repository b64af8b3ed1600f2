/* Convolutions, pools, recurrence, recursion and residual sums of rp.h once more: in float64 and one scalar at a time.
   A net is a list of units; each is a weighted sum of earlier ones, an activation of one, or the largest of some. A
   layer is no more than the loops that say which unit reads which, through which parameter; a sweep is a loop over the
   list. */
#ifndef REFERENCE_LAYERS_H
#define REFERENCE_LAYERS_H
#include "reference.h"

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

/* A layer as it is described to the library. */
typedef struct ref_spec {
    ref_kind kind;
    int units;                     /* dense, recurrent */
    int steps, source, all_states; /* recursive; add; recurrent */
    rp_conv2d_desc window;         /* convolutions; kernel and stride of pools */
    rp_activation_kind activation; /* activation, recurrent, recursive */
    double slope;
    int bias, frozen;
} ref_spec;

typedef enum ref_unit_kind { REF_SUM, REF_SIGMA, REF_LARGEST } ref_unit_kind;
typedef struct ref_unit {
    ref_unit_kind kind;
    int layer, first, end; /* its layer, and the links to what it reads */
} ref_unit;
typedef struct ref_link {
    int from, parameter; /* unit; -1: none, the factor is fixed */
    double factor;
} ref_link;

/* Unit 0 is the bias's input, 1, then come the inputs. Of `net` the layers serve what is one number per parameter
   (scales, updates) or per unit (sigma): a layer with parameters looks like a dense one of its fan-in. */
typedef struct ref_graph {
    ref_net net;
    ref_spec spec[REF_LAYERS];
    rp_shape input, shape[REF_LAYERS];
    int out[REF_LAYERS]; /* each layer's first output unit */
    ref_unit *unit;
    ref_link *link;
    int units, links;
    double *y, *u, *d, *v; /* [units], of the sample that went last */
    double *slope;         /* [links]: the derivative of a unit by what it reads */
} ref_graph;

static inline void *ref_grow(void *array, int count, size_t size) { /* room for one more; doubles at powers of two */
    if (count & (count - 1)) return array;
    array = realloc(array, (count ? 2 * (size_t)count : 1) * size);
    if (!array) exit(2);
    return array;
}
static inline int ref_unit_new(ref_graph *g, ref_unit_kind kind) {
    ref_unit unit = {kind, g->net.layers, g->links, g->links};
    g->unit = (ref_unit *)ref_grow(g->unit, g->units, sizeof unit);
    g->unit[g->units] = unit;
    return g->units++;
}
static inline void ref_read(ref_graph *g, int from, int parameter, double factor) { /* the last unit reads one more */
    ref_link link = {from, parameter, factor};
    g->link = (ref_link *)ref_grow(g->link, g->links, sizeof link);
    g->link[g->links] = link;
    g->unit[g->units - 1].end = ++g->links;
}

static inline int ref_features(rp_shape shape) { return shape.steps * shape.channels * shape.height * shape.width; }
static inline rp_shape ref_shape(const ref_graph *g, int layer) { return layer < 0 ? g->input : g->shape[layer]; }
static inline int ref_out(const ref_graph *g, int layer) { return layer < 0 ? 1 : g->out[layer]; }
static inline rp_shape ref_last_shape(const ref_graph *g) { return ref_shape(g, g->net.layers - 1); }

static inline ref_graph *ref_graph_new(rp_shape input, rp_loss_kind loss, double delta) {
    ref_graph *g = (ref_graph *)calloc(1, sizeof *g);
    if (!g) exit(2);
    g->input = input;
    g->net = ref_net_new(ref_features(input), loss, delta);
    for (int i = 0; i <= g->net.inputs; i++) ref_unit_new(g, REF_SUM);
    return g;
}

/* The layers. Each reads the units from `in` on, of the shape s, and returns its first output unit. */

/* sum_j W_ij x_j, and where there is a state + sum_k U_ik h_k, + b_i */
static inline int ref_affine(ref_graph *g, const ref_layer *layer, int in, int inputs, int state, int states) {
    int first = g->units;
    for (int i = 0; i < layer->out; i++) {
        ref_unit_new(g, REF_SUM);
        for (int j = 0; j < inputs; j++) ref_read(g, in + j, layer->weights + i * inputs + j, 0);
        for (int k = 0; k < states; k++)
            ref_read(g, state + k, layer->weights + layer->out * inputs + i * layer->out + k, 0);
        if (layer->bias) ref_read(g, 0, layer->biases + i, 0);
    }
    return first;
}
static inline int ref_sigmas(ref_graph *g, int in, int count) {
    int first = g->units;
    for (int i = 0; i < count; i++) ref_unit_new(g, REF_SIGMA), ref_read(g, in + i, -1, 0);
    return first;
}

static inline int ref_conv2d(ref_graph *g, const ref_spec *spec, const ref_layer *layer, int in, rp_shape s) {
    const rp_conv2d_desc *w = &spec->window;
    rp_shape out = g->shape[g->net.layers];
    int first = g->units, channels = s.channels / w->groups;
    for (int f = 0; f < out.channels; f++)
        for (int y = 0; y < out.height; y++)
            for (int x = 0; x < out.width; x++) {
                ref_unit_new(g, REF_SUM);
                for (int c = 0; c < channels; c++)
                    for (int i = 0; i < w->kernel_height; i++)
                        for (int j = 0; j < w->kernel_width; j++) {
                            int channel = f / (w->filters / w->groups) * channels + c;
                            int row = y * w->stride_height - w->padding_height + i;
                            int column = x * w->stride_width - w->padding_width + j;
                            int at = ((f * channels + c) * w->kernel_height + i) * w->kernel_width + j;
                            if (row < 0 || row >= s.height || column < 0 || column >= s.width) continue;
                            ref_read(g, in + (channel * s.height + row) * s.width + column, layer->weights + at, 0);
                        }
                if (layer->bias) ref_read(g, 0, layer->biases + f, 0);
            }
    return first;
}

static inline int ref_pool2d(ref_graph *g, const ref_spec *spec, int in, rp_shape s) {
    const rp_conv2d_desc *w = &spec->window;
    rp_shape out = g->shape[g->net.layers];
    int first = g->units;
    for (int c = 0; c < out.channels; c++)
        for (int y = 0; y < out.height; y++)
            for (int x = 0; x < out.width; x++) {
                ref_unit_new(g, spec->kind == REF_MAX_POOL ? REF_LARGEST : REF_SUM);
                for (int i = 0; i < w->kernel_height; i++)
                    for (int j = 0; j < w->kernel_width; j++) {
                        int row = y * w->stride_height + i, column = x * w->stride_width + j;
                        ref_read(g, in + (c * s.height + row) * s.width + column, -1,
                                 1.0 / (w->kernel_height * w->kernel_width));
                    }
            }
    return first;
}

static inline int ref_recurrent(ref_graph *g, const ref_spec *spec, const ref_layer *layer, int in, rp_shape s) {
    int n = layer->out, before = g->units, first;
    for (int t = 0; t < s.steps; t++)
        ref_sigmas(g, ref_affine(g, layer, in + t * s.channels, s.channels, g->units - n, t ? n : 0), n);
    first = g->units;
    for (int t = spec->all_states ? 0 : s.steps - 1; t < s.steps; t++)
        for (int i = 0; i < n; i++) ref_unit_new(g, REF_SUM), ref_read(g, before + (2 * t + 1) * n + i, -1, 1);
    return first;
}

static inline int ref_sum_of(ref_graph *g, int one, int other, int count) {
    int first = g->units;
    for (int i = 0; i < count; i++)
        ref_unit_new(g, REF_SUM), ref_read(g, one + i, -1, 1), ref_read(g, other + i, -1, 1);
    return first;
}

static inline rp_shape ref_shape_after(const ref_spec *spec, rp_shape s) {
    const rp_conv2d_desc *w = &spec->window;
    int height = (s.height + 2 * w->padding_height - w->kernel_height) / (w->stride_height ? w->stride_height : 1) + 1;
    int width = (s.width + 2 * w->padding_width - w->kernel_width) / (w->stride_width ? w->stride_width : 1) + 1;
    switch (spec->kind) {
    case REF_DENSE: return rp_vector(spec->units);
    case REF_RECURSIVE: return rp_vector(ref_features(s));
    case REF_RECURRENT: return spec->all_states ? rp_sequence(s.steps, spec->units) : rp_vector(spec->units);
    case REF_CONV2D: return rp_image(w->filters, height, width);
    case REF_MAX_POOL:
    case REF_AVG_POOL: return rp_image(s.channels, height, width);
    case REF_ACTIVATION:
    case REF_ADD: break;
    }
    return s;
}

/* fan-in of one unit, number of units: of the layers that have parameters */
static inline void ref_place(ref_net *net, ref_layer *layer, int fan_in, int units, const ref_spec *spec) {
    layer->dense = 1, layer->in = fan_in, layer->out = units;
    layer->bias = spec->bias, layer->frozen = spec->frozen;
    layer->weights = net->parameters, layer->biases = layer->weights + fan_in * units;
    net->parameters = layer->biases + layer->bias * units;
}

static inline void ref_add_layer(ref_graph *g, ref_spec spec) {
    int l = g->net.layers, in = ref_out(g, l - 1), first = 0;
    rp_shape s = ref_last_shape(g);
    ref_layer *layer = &g->net.layer[l];
    const rp_conv2d_desc *w = &spec.window;
    int features = ref_features(s);
    g->spec[l] = spec, g->shape[l] = ref_shape_after(&spec, s);
    layer->activation = spec.activation, layer->slope = spec.slope;
    switch (spec.kind) {
    case REF_DENSE:
        ref_place(&g->net, layer, features, spec.units, &spec);
        first = ref_affine(g, layer, in, features, 0, 0);
        break;
    case REF_CONV2D:
        ref_place(&g->net, layer, s.channels / w->groups * w->kernel_height * w->kernel_width, w->filters, &spec);
        first = ref_conv2d(g, &spec, layer, in, s);
        break;
    case REF_RECURRENT:
        ref_place(&g->net, layer, s.channels + spec.units, spec.units, &spec);
        first = ref_recurrent(g, &spec, layer, in, s);
        break;
    case REF_RECURSIVE:
        ref_place(&g->net, layer, features, features, &spec);
        first = in;
        for (int t = 0; t < spec.steps; t++)
            first = ref_sigmas(g, ref_affine(g, layer, first, features, 0, 0), features);
        break;
    case REF_MAX_POOL:
    case REF_AVG_POOL: first = ref_pool2d(g, &spec, in, s); break;
    case REF_ACTIVATION: first = ref_sigmas(g, in, features); break;
    case REF_ADD: first = ref_sum_of(g, in, ref_out(g, spec.source), features); break;
    }
    g->out[l] = first;
    g->net.layers++, g->net.outputs = ref_features(g->shape[l]);
}

/* After the last layer: memory for parameters and sweeps. */
static inline void ref_graph_close(ref_graph *g) {
    g->net.w = ref_new(g->net.parameters), g->slope = ref_new(g->links);
    g->y = ref_new(4 * g->units), g->u = g->y + g->units, g->d = g->u + g->units, g->v = g->d + g->units;
}
static inline void ref_graph_free(ref_graph *g) {
    free(g->net.w), free(g->slope), free(g->y), free(g->unit), free(g->link), free(g);
}
static inline const double *ref_output(const ref_graph *g) { return g->y + g->out[g->net.layers - 1]; }

/* Sweeps. */

static inline void ref_slopes(ref_graph *g, const ref_unit *unit) {
    int largest = unit->first;
    for (int k = unit->first; k < unit->end; k++) {
        const ref_link *link = &g->link[k];
        g->slope[k] = link->parameter >= 0 ? g->net.w[link->parameter] : link->factor;
        if (unit->kind == REF_SIGMA) g->slope[k] = ref_sigma(&g->net.layer[unit->layer], 1, g->y[link->from]);
        if (unit->kind == REF_LARGEST && g->y[link->from] > g->y[g->link[largest].from]) largest = k;
    }
    for (int k = unit->first; k < unit->end && unit->kind == REF_LARGEST; k++) g->slope[k] = k == largest;
}

/* y, u: Equation 11 */
static inline void ref_graph_forward(ref_graph *g, rp_scale_kind scale, const double *x) {
    memset(g->y, 0, sizeof *g->y * 4 * (size_t)g->units);
    memcpy(g->y + 1, x, sizeof *x * (size_t)g->net.inputs);
    g->y[0] = 1;
    for (int i = g->net.inputs + 1; i < g->units; i++) {
        const ref_unit *unit = &g->unit[i];
        const ref_layer *layer = &g->net.layer[unit->layer];
        double c = layer->dense ? ref_scale(layer, scale) : 0;
        ref_slopes(g, unit);
        for (int k = unit->first; k < unit->end; k++) {
            const ref_link *link = &g->link[k];
            g->y[i] += unit->kind == REF_SIGMA ? ref_sigma(layer, 0, g->y[link->from]) : g->slope[k] * g->y[link->from];
            g->u[i] += fabs(g->slope[k]) * g->u[link->from] + (link->parameter >= 0 ? c * fabs(g->y[link->from]) : 0);
        }
    }
}

/* From d and v (NULL: 0) at the outputs to all units, and to the parameters: gradient += factor d y, curvature +=
   factor / c v |y| (NULL: none), for each time that a parameter is used. */
static inline void ref_graph_backward(ref_graph *g, rp_scale_kind scale, const double *d, const double *v,
                                      double factor, double *gradient, double *curvature) {
    int out = g->out[g->net.layers - 1];
    memset(g->d, 0, sizeof *g->d * 2 * (size_t)g->units);
    memcpy(g->d + out, d, sizeof *d * (size_t)g->net.outputs);
    if (v) memcpy(g->v + out, v, sizeof *v * (size_t)g->net.outputs);
    for (int i = g->units - 1; i > g->net.inputs; i--) {
        const ref_unit *unit = &g->unit[i];
        const ref_layer *layer = &g->net.layer[unit->layer];
        double c = layer->dense ? ref_scale(layer, scale) : 0;
        for (int k = unit->first; k < unit->end; k++) {
            int from = g->link[k].from, p = g->link[k].parameter, trained = p >= 0 && !layer->frozen;
            double second = unit->kind == REF_SIGMA ? ref_sigma(layer, 2, g->y[from]) * g->d[i] * g->u[from] : 0;
            g->d[from] += g->slope[k] * g->d[i];
            g->v[from] += fabs(fabs(g->slope[k]) * g->v[i] + (v ? second : 0));
            if (trained) gradient[p] += factor * g->d[i] * g->y[from];
            if (trained && curvature) curvature[p] += factor / c * g->v[i] * fabs(g->y[from]);
        }
    }
}

/* Rules: a sample's part of the curvature, from its own derivatives by the parameters. Forward must have been done. */

/* J [outputs][parameters], 0 for frozen ones */
static inline void ref_graph_jacobian(ref_graph *g, double *j) {
    memset(j, 0, sizeof *j * (size_t)(g->net.outputs * g->net.parameters));
    for (int k = 0; k < g->net.outputs; k++) {
        double one[REF_WIDTH] = {0};
        one[k] = 1;
        ref_graph_backward(g, RP_SCALE_ONE, one, NULL, 1, j + k * g->net.parameters, NULL);
    }
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

static inline void ref_graph_jacobian_rule(ref_graph *g, const rp_rule *rule, const double *t, double factor,
                                           double *curvature) {
    int n = g->net.parameters;
    double *j = ref_new(g->net.outputs * n), *c = ref_new(n), total[REF_WIDTH], v[REF_WIDTH];
    ref_scales(&g->net, rule->scale, c);
    ref_graph_jacobian(g, j);
    for (int k = 0; k < g->net.outputs; k++) total[k] = ref_weighted_sum(n, c, j + k * n);
    ref_flow(&g->net, rule->bound, ref_output(g), t, total, v);
    for (int k = 0; k < g->net.outputs; k++) ref_add_magnitudes(n, c, j + k * n, factor * v[k], curvature);
    free(j), free(c);
}

/* The smallest and the largest that the sampled rule can give. */
static inline void ref_graph_sampled(ref_graph *g, const ref_data *data, rp_scale_kind scale, double *low,
                                     double *high) {
    int n = g->net.parameters;
    double *e = ref_new(n), *x = ref_new(n), *least = ref_new(n), *most = ref_new(n), *c = ref_new(n);
    ref_scales(&g->net, scale, c);
    for (int b = 0; b < data->count; b++) {
        const double *t = data->targets + b * g->net.outputs;
        ref_graph_forward(g, scale, data->inputs + b * g->net.inputs);
        for (int index = 0; index < ref_draws(&g->net); index++) {
            double r[REF_WIDTH];
            ref_draw(&g->net, ref_output(g), t, index, r);
            memset(e, 0, sizeof *e * (size_t)n), memset(x, 0, sizeof *x * (size_t)n);
            ref_graph_backward(g, scale, r, NULL, 1, e, NULL);
            ref_add_magnitudes(n, c, e, data->weights[b] / data->count * ref_weighted_sum(n, c, e), x);
            for (int p = 0; p < n; p++) {
                least[p] = index ? fmin(least[p], x[p]) : x[p];
                most[p] = index ? fmax(most[p], x[p]) : x[p];
            }
        }
        for (int p = 0; p < n; p++) low[p] += least[p], high[p] += most[p];
    }
    free(e), free(x), free(least), free(most), free(c);
}

/* A batch: the mean loss, and unless NULL its gradient and by `rule` (not the sampled one) its curvature. */
static inline double ref_graph_batch(ref_graph *g, const ref_data *data, const rp_rule *rule, double *gradient,
                                     double *curvature) {
    const ref_net *net = &g->net;
    rp_scale_kind scale = rule ? rule->scale : RP_SCALE_ONE;
    int paths = curvature && rule->kind == RP_PATHS;
    double loss = 0;
    if (gradient) memset(gradient, 0, sizeof *gradient * (size_t)net->parameters);
    if (curvature) memset(curvature, 0, sizeof *curvature * (size_t)net->parameters);
    for (int b = 0; b < data->count; b++) {
        const double *t = data->targets + b * net->outputs, *y = ref_output(g);
        double factor = data->weights[b] / data->count, d[REF_WIDTH], v[REF_WIDTH];
        ref_graph_forward(g, scale, data->inputs + b * net->inputs);
        loss += factor * ref_loss(net, y, t);
        if (!gradient) continue;
        ref_loss_gradient(net, y, t, d);
        if (paths) ref_flow(net, rule->bound, y, t, g->u + g->out[net->layers - 1], v);
        ref_graph_backward(g, scale, d, paths ? v : NULL, factor, gradient, paths ? curvature : NULL);
        if (curvature && rule->kind == RP_JACOBIAN) ref_graph_jacobian_rule(g, rule, t, factor, curvature);
    }
    return loss;
}

/* Equation 44, with scales: what sum c^2 curvature must be if no activation has a second derivative. A pool, a sum and
   a copy have no parameters and no slope but fixed ones, so that v'u' = sum v u holds across them as across an affine
   layer. */
static inline double ref_graph_exact_sum(ref_graph *g, const ref_data *data, const rp_rule *rule) {
    double sum = 0, v[REF_WIDTH];
    for (int b = 0; b < data->count; b++) {
        const double *u = g->u + g->out[g->net.layers - 1];
        ref_graph_forward(g, rule->scale, data->inputs + b * g->net.inputs);
        ref_flow(&g->net, rule->bound, ref_output(g), data->targets + b * g->net.outputs, u, v);
        for (int i = 0; i < g->net.outputs; i++) sum += data->weights[b] / data->count * v[i] * u[i];
    }
    return sum;
}

/* What Theorem 1 bounds, along the step w: the Gauss-Newton part Ry' H Ry and the activations' part sigma'' d (Rz)^2 */
static inline void ref_graph_quadratic(ref_graph *g, const ref_data *data, const double *w, double *gauss_newton,
                                       double *activations) {
    double *ignored = ref_new(g->net.parameters), *r = ref_new(g->units), d[REF_WIDTH];
    *gauss_newton = *activations = 0;
    for (int b = 0; b < data->count; b++) {
        const double *t = data->targets + b * g->net.outputs;
        double factor = data->weights[b] / data->count;
        ref_graph_forward(g, RP_SCALE_ONE, data->inputs + b * g->net.inputs);
        ref_loss_gradient(&g->net, ref_output(g), t, d);
        ref_graph_backward(g, RP_SCALE_ONE, d, NULL, 0, ignored, NULL);
        for (int i = g->net.inputs + 1; i < g->units; i++) {
            const ref_unit *unit = &g->unit[i];
            const ref_layer *layer = &g->net.layer[unit->layer];
            r[i] = 0;
            for (int k = unit->first; k < unit->end; k++) {
                int from = g->link[k].from, p = g->link[k].parameter;
                r[i] += g->slope[k] * r[from] + (p >= 0 && !layer->frozen ? w[p] * g->y[from] : 0);
                if (unit->kind == REF_SIGMA)
                    *activations += factor * ref_sigma(layer, 2, g->y[from]) * g->d[i] * r[from] * r[from];
            }
        }
        *gauss_newton += factor * ref_loss_quadratic(&g->net, ref_output(g), t, r + g->out[g->net.layers - 1]);
    }
    free(ignored), free(r);
}
#endif
