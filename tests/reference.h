/* The mathematics of rp.h for dense nets once more: in float64, naive, one sample at a time, straight from the
   equations of Deep Residual Partitioning. What the library is tested against. Of rp.h it uses the public enums and
   structs only. */
#ifndef REFERENCE_H
#define REFERENCE_H
#include "test.h"

enum {
    REF_LAYERS = 30,
    REF_WIDTH = 520
};

typedef struct ref_layer {
    int dense;                     /* 1: dense, 0: activation */
    int in, out, weights, biases;  /* widths, and offsets into the flat arrays */
    int bias, frozen;              /* of a dense layer, 0 or 1 */
    rp_activation_kind activation; /* of the others, with the slope of leaky ReLU and ELU */
    double slope;
} ref_layer;

typedef struct ref_net {
    ref_layer layer[REF_LAYERS];
    int layers, inputs, outputs, parameters;
    rp_loss_kind loss;
    double delta; /* of the Huber loss */
    double *w;    /* [parameters] */
} ref_net;

typedef struct ref_data {
    double *inputs, *targets, *weights; /* [count][inputs], [count][outputs], [count] */
    int count;
} ref_data;

/* One sample on its way through the net: [0] is the input, [l + 1] what layer l makes of it. As in the paper the bias
   is one more weight, from a unit behind the last one, whose y is 1 and whose u is 0. */
typedef struct ref_sample {
    double y[REF_LAYERS + 1][REF_WIDTH + 1], u[REF_LAYERS + 1][REF_WIDTH + 1];
    double d[REF_LAYERS + 1][REF_WIDTH + 1], v[REF_LAYERS + 1][REF_WIDTH + 1];
} ref_sample;

static inline double *ref_new(int count) {
    double *array = (double *)calloc((size_t)count + 1, sizeof *array);
    if (!array) exit(2);
    return array;
}

static inline ref_net ref_net_new(int inputs, rp_loss_kind loss, double delta) {
    ref_net net;
    memset(&net, 0, sizeof net);
    net.inputs = net.outputs = inputs, net.loss = loss, net.delta = delta;
    return net;
}
static inline ref_layer *ref_append(ref_net *net, int dense, int out) {
    ref_layer *layer = &net->layer[net->layers++];
    layer->dense = dense, layer->in = net->outputs, layer->out = net->outputs = out;
    return layer;
}
static inline void ref_dense(ref_net *net, int units, int bias, int frozen) {
    ref_layer *layer = ref_append(net, 1, units);
    layer->bias = bias, layer->frozen = frozen;
    layer->weights = net->parameters, layer->biases = layer->weights + units * layer->in;
    net->parameters = layer->biases + bias * units;
}
static inline void ref_activation(ref_net *net, rp_activation_kind activation, double slope) {
    ref_layer *layer = ref_append(net, 0, net->outputs);
    layer->activation = activation, layer->slope = slope;
}
static inline int ref_inputs(const ref_layer *layer) { /* of a dense layer's unit, bias included */
    return layer->in + layer->bias;
}
static inline int ref_index(const ref_layer *layer, int i, int j) { /* of the weight from unit j to unit i */
    return j < layer->in ? layer->weights + i * layer->in + j : layer->biases + i;
}

/* The size that the layer's updates are assumed to have; a frozen layer has none. */
static inline double ref_scale(const ref_layer *layer, rp_scale_kind scale) {
    if (layer->frozen) return 0;
    return scale == RP_SCALE_FAN_IN ? 1 / sqrt(layer->in + 1.0) : 1;
}
static inline void ref_scales(const ref_net *net, rp_scale_kind scale, double *c) { /* the same, for each parameter */
    for (int l = 0; l < net->layers; l++) {
        const ref_layer *layer = &net->layer[l];
        for (int p = layer->weights; layer->dense && p < layer->biases + layer->bias * layer->out; p++)
            c[p] = ref_scale(layer, scale);
    }
}

/* sigma, sigma' or sigma'' (order 0, 1, 2) */
static inline double ref_sigma(const ref_layer *layer, int order, double z) {
    const double root_2 = 1.4142135623730951, root_2_pi = 2.5066282746310002;
    double value[3] = {z, 1, 0}, a = layer->slope;
    double s = 1 / (1 + exp(-z)), ds = s / (1 + exp(z)), dds = ds * (1 - 2 * s); /* the logistic function */
    switch (layer->activation) {
    case RP_IDENTITY: break;
    case RP_RELU:
        if (z <= 0) value[0] = value[1] = 0;
        break;
    case RP_LEAKY_RELU:
        if (z <= 0) value[0] = a * z, value[1] = a;
        break;
    case RP_ELU:
        if (z <= 0) value[0] = a * expm1(z), value[1] = value[2] = a * exp(z);
        break;
    case RP_TANH:
        value[0] = tanh(z), value[1] = 1 / (cosh(z) * cosh(z)), value[2] = -2 * value[0] * value[1];
        break;
    case RP_SIGMOID: value[0] = s, value[1] = ds, value[2] = dds; break;
    case RP_SOFTPLUS: value[0] = fmax(z, 0) + log1p(exp(-fabs(z))), value[1] = s, value[2] = ds; break;
    case RP_SILU: value[0] = z * s, value[1] = s + z * ds, value[2] = 2 * ds + z * dds; break;
    case RP_GELU: {
        double below = erfc(-z / root_2) / 2, density = exp(-z * z / 2) / root_2_pi;
        value[0] = z * below, value[1] = below + z * density, value[2] = density * (2 - z * z);
    }
    }
    return value[order];
}

/* y, u: Equation 11 */
static inline void ref_forward(const ref_net *net, rp_scale_kind scale, const double *x, ref_sample *s) {
    for (int j = 0; j < net->inputs; j++) s->y[0][j] = x[j], s->u[0][j] = 0;
    for (int l = 0; l < net->layers; l++) {
        const ref_layer *layer = &net->layer[l];
        double *y = s->y[l], *u = s->u[l], c = ref_scale(layer, scale);
        y[layer->in] = 1, u[layer->in] = 0;
        for (int i = 0; i < layer->out; i++) {
            double value = 0, total = 0;
            for (int j = 0; layer->dense && j < ref_inputs(layer); j++) {
                double w = net->w[ref_index(layer, i, j)];
                value += w * y[j];
                total += c * fabs(y[j]) + fabs(w) * u[j];
            }
            s->y[l + 1][i] = layer->dense ? value : ref_sigma(layer, 0, y[i]);
            s->u[l + 1][i] = layer->dense ? total : fabs(ref_sigma(layer, 1, y[i])) * u[i];
        }
    }
}

/* From d and v at the output to every unit, and to the parameters: gradient += factor d y', curvature +=
   factor / c v |y|' (Equation 9 with the shares of Equation 10). NULL: no curvature. */
static inline void ref_backward(const ref_net *net, rp_scale_kind scale, ref_sample *s, double factor, double *gradient,
                                double *curvature) {
    for (int l = net->layers - 1; l >= 0; l--) {
        const ref_layer *layer = &net->layer[l];
        const double *y = s->y[l], *u = s->u[l], *d_out = s->d[l + 1], *v_out = s->v[l + 1];
        double *d = s->d[l], *v = s->v[l], c = ref_scale(layer, scale);
        for (int j = 0; j <= layer->in; j++) d[j] = v[j] = 0;
        for (int i = 0; i < layer->out; i++) {
            for (int j = 0; layer->dense && j < ref_inputs(layer); j++) {
                int p = ref_index(layer, i, j);
                d[j] += net->w[p] * d_out[i];
                if (!layer->frozen) gradient[p] += factor * d_out[i] * y[j];
                if (!curvature) continue;
                v[j] += fabs(net->w[p]) * v_out[i];
                if (!layer->frozen) curvature[p] += factor / c * v_out[i] * fabs(y[j]);
            }
            if (layer->dense) continue;
            d[i] = ref_sigma(layer, 1, y[i]) * d_out[i];
            v[i] = fabs(fabs(ref_sigma(layer, 1, y[i])) * v_out[i] + ref_sigma(layer, 2, y[i]) * d_out[i] * u[i]);
        }
    }
}

/* Losses: of one sample with outputs y and targets t. */

static inline void ref_softmax(int n, const double *y, double *p) {
    double largest = y[0], sum = 0;
    for (int i = 1; i < n; i++) largest = fmax(largest, y[i]);
    for (int i = 0; i < n; i++) sum += p[i] = exp(y[i] - largest);
    for (int i = 0; i < n; i++) p[i] /= sum;
}
static inline double ref_sum(int n, const double *t) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += t[i];
    return sum;
}

static inline double ref_loss(const ref_net *net, const double *y, const double *t) {
    double p[REF_WIDTH], loss = 0;
    ref_softmax(net->outputs, y, p);
    for (int i = 0; i < net->outputs; i++) {
        double r = y[i] - t[i], distance = fabs(r);
        switch (net->loss) {
        case RP_SQUARED_ERROR: loss += r * r / 2; break;
        case RP_SOFTMAX_CROSS_ENTROPY: loss -= t[i] * log(p[i]); break;
        case RP_BINARY_CROSS_ENTROPY: loss += fmax(y[i], 0) + log1p(exp(-fabs(y[i]))) - t[i] * y[i]; break;
        case RP_HUBER: loss += distance <= net->delta ? r * r / 2 : net->delta * (distance - net->delta / 2); break;
        case RP_POISSON: loss += exp(y[i]) - t[i] * y[i]; break;
        }
    }
    return loss;
}

static inline void ref_loss_gradient(const ref_net *net, const double *y, const double *t, double *d) {
    double p[REF_WIDTH], sum = ref_sum(net->outputs, t);
    ref_softmax(net->outputs, y, p);
    for (int i = 0; i < net->outputs; i++) {
        double r = y[i] - t[i];
        switch (net->loss) {
        case RP_SQUARED_ERROR: d[i] = r; break;
        case RP_SOFTMAX_CROSS_ENTROPY: d[i] = sum * p[i] - t[i]; break;
        case RP_BINARY_CROSS_ENTROPY: d[i] = 1 / (1 + exp(-y[i])) - t[i]; break;
        case RP_HUBER: d[i] = fmax(-net->delta, fmin(net->delta, r)); break;
        case RP_POISSON: d[i] = exp(y[i]) - t[i]; break;
        }
    }
}

/* The diagonal that the bounds start from, h^2: the Hessian's, but Huber's is its majorant, and the tight bound's of
   softmax is that of diag(p), which bounds diag(p) - p p'. */
static inline void ref_loss_second(const ref_net *net, rp_bound_kind bound, const double *y, const double *t,
                                   double *h2) {
    double p[REF_WIDTH], sum = ref_sum(net->outputs, t);
    ref_softmax(net->outputs, y, p);
    for (int i = 0; i < net->outputs; i++) {
        double s = 1 / (1 + exp(-y[i]));
        switch (net->loss) {
        case RP_SQUARED_ERROR: h2[i] = 1; break;
        case RP_SOFTMAX_CROSS_ENTROPY: h2[i] = sum * p[i] * (bound == RP_BOUND_JENSEN ? 1 - p[i] : 1); break;
        case RP_BINARY_CROSS_ENTROPY: h2[i] = s * (1 - s); break;
        case RP_HUBER: h2[i] = fmin(1, net->delta / fabs(y[i] - t[i])); break;
        case RP_POISSON: h2[i] = exp(y[i]); break;
        }
    }
}

/* r' H r with the loss's true Hessian H */
static inline double ref_loss_quadratic(const ref_net *net, const double *y, const double *t, const double *r) {
    double h2[REF_WIDTH], p[REF_WIDTH], sum = 0, mean = 0;
    ref_loss_second(net, RP_BOUND_TIGHT, y, t, h2);
    ref_softmax(net->outputs, y, p);
    for (int i = 0; i < net->outputs; i++) {
        int beyond = net->loss == RP_HUBER && fabs(y[i] - t[i]) > net->delta;
        sum += beyond ? 0 : h2[i] * r[i] * r[i];
        mean += p[i] * r[i];
    }
    return net->loss == RP_SOFTMAX_CROSS_ENTROPY ? sum - ref_sum(net->outputs, t) * mean * mean : sum;
}

static inline int ref_jensen(const ref_net *net, rp_bound_kind bound) { /* a Jensen step between the outputs? */
    return net->loss == RP_SOFTMAX_CROSS_ENTROPY && bound == RP_BOUND_JENSEN;
}

/* v at the outputs when they can move by u: h^2 u, with a Jensen step Equation 46 */
static inline void ref_flow(const ref_net *net, rp_bound_kind bound, const double *y, const double *t, const double *u,
                            double *v) {
    double h2[REF_WIDTH], total = 0;
    ref_loss_second(net, bound, y, t, h2);
    for (int i = 0; i < net->outputs; i++) total += sqrt(h2[i]) * u[i];
    for (int i = 0; i < net->outputs; i++) v[i] = ref_jensen(net, bound) ? sqrt(h2[i]) * total : h2[i] * u[i];
}

/* Rules: a sample's part of the curvature. Forward must have been done. */

/* J [outputs][parameters]: the derivative of each output by each parameter, 0 for frozen ones */
static inline void ref_jacobian(const ref_net *net, ref_sample *s, double *j) {
    memset(j, 0, sizeof *j * (size_t)(net->outputs * net->parameters));
    for (int k = 0; k < net->outputs; k++) {
        for (int i = 0; i < net->outputs; i++) s->d[net->layers][i] = i == k;
        ref_backward(net, RP_SCALE_ONE, s, 1, j + k * net->parameters, NULL);
    }
}

/* Poster, Equation 6, for several outputs: sum_k v_k |J_kw| / c_w with v from T_k = sum_w c_w |J_kw| */
static inline void ref_jacobian_rule(const ref_net *net, const rp_rule *rule, ref_sample *s, const double *t,
                                     double factor, double *curvature) {
    int n = net->parameters;
    double *j = ref_new(net->outputs * n), *c = ref_new(n), total[REF_WIDTH], v[REF_WIDTH];
    ref_scales(net, rule->scale, c);
    ref_jacobian(net, s, j);
    for (int k = 0; k < net->outputs; k++) {
        total[k] = 0;
        for (int p = 0; p < n; p++) total[k] += c[p] * fabs(j[k * n + p]);
    }
    ref_flow(net, rule->bound, s->y[net->layers], t, total, v);
    for (int k = 0; k < net->outputs; k++)
        for (int p = 0; p < n; p++)
            if (c[p] > 0) curvature[p] += factor * v[k] * fabs(j[k * n + p]) / c[p];
    free(j), free(c);
}

/* The random vectors of the sampled rule, one by one, so that sum_index probability r r' is the loss's Hessian. Returns
   the probability. */
static inline int ref_draws(const ref_net *net) {
    return net->loss == RP_SOFTMAX_CROSS_ENTROPY ? net->outputs : 1 << net->outputs;
}
static inline double ref_draw(const ref_net *net, const double *y, const double *t, int index, double *r) {
    double p[REF_WIDTH], h2[REF_WIDTH];
    ref_softmax(net->outputs, y, p);
    ref_loss_second(net, RP_BOUND_TIGHT, y, t, h2);
    for (int i = 0; i < net->outputs; i++)
        r[i] = net->loss == RP_SOFTMAX_CROSS_ENTROPY ? sqrt(ref_sum(net->outputs, t)) * (p[i] - (i == index))
                                                     : sqrt(h2[i]) * (index >> i & 1 ? -1 : 1);
    return net->loss == RP_SOFTMAX_CROSS_ENTROPY ? p[index] : 1.0 / ref_draws(net);
}

/* The sampled rule for a given r: with g = J'r, curvature = |g| / c sum_w c_w |g_w| */
static inline void ref_sampled_rule(const ref_net *net, rp_scale_kind scale, ref_sample *s, const double *r,
                                    double factor, double *curvature) {
    int n = net->parameters;
    double *g = ref_new(n), *c = ref_new(n), total = 0;
    ref_scales(net, scale, c);
    memcpy(s->d[net->layers], r, sizeof *r * (size_t)net->outputs);
    ref_backward(net, scale, s, 1, g, NULL);
    for (int p = 0; p < n; p++) total += c[p] * fabs(g[p]);
    for (int p = 0; p < n; p++)
        if (c[p] > 0) curvature[p] += factor * total * fabs(g[p]) / c[p];
    free(g), free(c);
}

/* What the sampled rule can give for a batch: each parameter's smallest, mean and largest curvature, its variance. */
typedef struct ref_spread {
    double *low, *mean, *high, *variance;
} ref_spread;
static inline ref_spread ref_spread_new(int n) {
    ref_spread spread = {ref_new(n), ref_new(n), ref_new(n), ref_new(n)};
    return spread;
}
static inline void ref_spread_free(ref_spread *spread) {
    free(spread->low), free(spread->mean), free(spread->high), free(spread->variance);
}
static inline void ref_sampled_spread(const ref_net *net, rp_scale_kind scale, ref_sample *s, const double *t,
                                      double factor, ref_spread *spread) {
    int n = net->parameters;
    ref_spread own = ref_spread_new(n); /* of this sample; .variance holds the mean square */
    for (int index = 0; index < ref_draws(net); index++) {
        double *x = ref_new(n), r[REF_WIDTH], probability = ref_draw(net, s->y[net->layers], t, index, r);
        ref_sampled_rule(net, scale, s, r, factor, x);
        for (int p = 0; p < n; p++) {
            own.low[p] = index ? fmin(own.low[p], x[p]) : x[p];
            own.high[p] = fmax(own.high[p], x[p]);
            own.mean[p] += probability * x[p];
            own.variance[p] += probability * x[p] * x[p];
        }
        free(x);
    }
    for (int p = 0; p < n; p++) {
        spread->low[p] += own.low[p], spread->mean[p] += own.mean[p], spread->high[p] += own.high[p];
        spread->variance[p] += own.variance[p] - own.mean[p] * own.mean[p];
    }
    ref_spread_free(&own);
}

/* A batch: the mean loss, and unless NULL its gradient and by `rule` (not the sampled one) its curvature. */
static inline double ref_batch(const ref_net *net, const ref_data *data, const rp_rule *rule, double *gradient,
                               double *curvature) {
    double loss = 0;
    if (gradient) memset(gradient, 0, sizeof *gradient * (size_t)net->parameters);
    if (curvature) memset(curvature, 0, sizeof *curvature * (size_t)net->parameters);
    for (int b = 0; b < data->count; b++) {
        ref_sample s;
        const double *t = data->targets + b * net->outputs, *y = s.y[net->layers];
        double factor = data->weights[b] / data->count;
        int paths = curvature && rule->kind == RP_PATHS;
        ref_forward(net, rule ? rule->scale : RP_SCALE_ONE, data->inputs + b * net->inputs, &s);
        loss += factor * ref_loss(net, y, t);
        if (!gradient) continue;
        ref_loss_gradient(net, y, t, s.d[net->layers]);
        if (paths) ref_flow(net, rule->bound, y, t, s.u[net->layers], s.v[net->layers]);
        ref_backward(net, rule ? rule->scale : RP_SCALE_ONE, &s, factor, gradient, paths ? curvature : NULL);
        if (curvature && rule->kind == RP_JACOBIAN) ref_jacobian_rule(net, rule, &s, t, factor, curvature);
    }
    return loss;
}
static inline ref_spread ref_batch_sampled(const ref_net *net, const ref_data *data, rp_scale_kind scale) {
    ref_spread spread = ref_spread_new(net->parameters);
    for (int b = 0; b < data->count; b++) {
        ref_sample s;
        ref_forward(net, scale, data->inputs + b * net->inputs, &s);
        ref_sampled_spread(net, scale, &s, data->targets + b * net->outputs, data->weights[b] / data->count, &spread);
    }
    return spread;
}

/* Equation 44, with scales: what sum c^2 curvature must be if no activation has a second derivative. */
static inline double ref_exact_sum(const ref_net *net, const ref_data *data, const rp_rule *rule) {
    double sum = 0, v[REF_WIDTH];
    for (int b = 0; b < data->count; b++) {
        ref_sample s;
        const double *t = data->targets + b * net->outputs, *u = s.u[net->layers];
        ref_forward(net, rule->scale, data->inputs + b * net->inputs, &s);
        ref_flow(net, rule->bound, s.y[net->layers], t, u, v);
        for (int i = 0; i < net->outputs; i++) sum += data->weights[b] / data->count * v[i] * u[i];
    }
    return sum;
}

/* What Theorem 1 bounds, along the step w: the Gauss-Newton part Ry' H Ry and the activations' part sigma'' d (Rz)^2 */
static inline void ref_quadratic(const ref_net *net, const ref_data *data, const double *w, double *gauss_newton,
                                 double *activations) {
    double *ignored = ref_new(net->parameters);
    *gauss_newton = *activations = 0;
    for (int b = 0; b < data->count; b++) {
        ref_sample s;
        const double *t = data->targets + b * net->outputs, *y = s.y[net->layers];
        double factor = data->weights[b] / data->count, r[REF_WIDTH + 1] = {0}, next[REF_WIDTH + 1] = {0};
        ref_forward(net, RP_SCALE_ONE, data->inputs + b * net->inputs, &s);
        ref_loss_gradient(net, y, t, s.d[net->layers]);
        ref_backward(net, RP_SCALE_ONE, &s, 0, ignored, NULL);
        for (int l = 0; l < net->layers; l++) {
            const ref_layer *layer = &net->layer[l];
            r[layer->in] = 0;
            for (int i = 0; i < layer->out; i++) {
                double z = s.y[l][i];
                next[i] = layer->dense ? 0 : ref_sigma(layer, 1, z) * r[i];
                if (!layer->dense) *activations += factor * ref_sigma(layer, 2, z) * s.d[l + 1][i] * r[i] * r[i];
                for (int j = 0; layer->dense && j < ref_inputs(layer); j++) {
                    int p = ref_index(layer, i, j);
                    next[i] += net->w[p] * r[j] + (layer->frozen ? 0 : w[p]) * s.y[l][j];
                }
            }
            memcpy(r, next, sizeof r);
        }
        *gauss_newton += factor * ref_loss_quadratic(net, y, t, r);
    }
    free(ignored);
}

/* Shares that sum to one: the best, amount / sum (Lemma 3), mixed with random ones; none where there is no amount. */
static inline void ref_shares(int n, const double *amount, double mix, test_random *random, double *share) {
    double total = ref_sum(n, amount), sum = 0;
    for (int i = 0; i < n; i++)
        sum += share[i] = amount[i] > 0 ? (1 - mix) * amount[i] / total + mix * test_uniform(random, 0.01, 1) / n : 0;
    for (int i = 0; i < n; i++) share[i] /= sum > 0 ? sum : 1;
}

/* One sample through one layer: `second` (Y..) at its outputs becomes that at its inputs. */
static inline void ref_partition_layer(const ref_net *net, int l, const ref_sample *s, rp_scale_kind scale,
                                       double factor, double mix, test_random *random, double *second,
                                       double *curvature) {
    const ref_layer *layer = &net->layer[l];
    const double *y = s->y[l], *u = s->u[l];
    double amount[2 * REF_WIDTH + 2], share[2 * REF_WIDTH + 2], below[REF_WIDTH + 1] = {0};
    int n = ref_inputs(layer);
    for (int i = 0; i < layer->out; i++) {
        if (!layer->dense) {
            below[i] = second[i] * ref_sigma(layer, 1, y[i]) * ref_sigma(layer, 1, y[i]);
            continue;
        }
        for (int j = 0; j < n; j++) {
            amount[j] = ref_scale(layer, scale) * fabs(y[j]);
            amount[n + j] = fabs(net->w[ref_index(layer, i, j)]) * u[j];
        }
        ref_shares(2 * n, amount, mix, random, share);
        for (int j = 0; j < n; j++) {
            double epsilon = share[j], phi = share[n + j], w = net->w[ref_index(layer, i, j)];
            if (epsilon > 0) curvature[ref_index(layer, i, j)] += factor * second[i] * y[j] * y[j] / epsilon;
            if (phi > 0) below[j] += second[i] * w * w / phi;
        }
    }
    memcpy(second, below, sizeof below);
}

/* The curvature of the paths bound for other partitioning variables than the best: Equations 9, 14 and 18 as they
   stand, with shares mixed from the best (mix 0) to random ones (mix 1). Activations must have no second derivative. */
static inline void ref_partition(const ref_net *net, const ref_data *data, const rp_rule *rule, double mix,
                                 test_random *random, double *curvature) {
    memset(curvature, 0, sizeof *curvature * (size_t)net->parameters);
    for (int b = 0; b < data->count; b++) {
        ref_sample s;
        double amount[REF_WIDTH], share[REF_WIDTH], second[REF_WIDTH + 1];
        const double *y = s.y[net->layers], *u = s.u[net->layers];
        ref_forward(net, rule->scale, data->inputs + b * net->inputs, &s);
        ref_loss_second(net, rule->bound, y, data->targets + b * net->outputs, second);
        for (int i = 0; i < net->outputs; i++) amount[i] = sqrt(second[i]) * u[i];
        ref_shares(net->outputs, amount, mix, random, share);
        for (int i = 0; ref_jensen(net, rule->bound) && i < net->outputs; i++)
            second[i] = share[i] > 0 ? second[i] / share[i] : 0;
        for (int l = net->layers - 1; l >= 0; l--)
            ref_partition_layer(net, l, &s, rule->scale, data->weights[b] / data->count, mix, random, second,
                                curvature);
    }
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
    case RP_SGD:
        *a = t == 1 ? g : momentum * *a + g;
        return rate * (o->nesterov ? g + momentum * *a : *a);
    case RP_ADAM:
        *a = beta1 * *a + (1 - beta1) * g;
        *b = beta2 * *b + (1 - beta2) * g * g;
        return rate * *a / (1 - pow(beta1, t)) / (sqrt(*b / (1 - pow(beta2, t))) + epsilon);
    case RP_ADAGRAD:
        *a += g * g;
        return rate * g / (sqrt(*a) + epsilon);
    case RP_ADADELTA:
        *a = rho * *a + (1 - rho) * g * g;
        step = sqrt(*b + epsilon) / sqrt(*a + epsilon) * g;
        *b = rho * *b + (1 - rho) * step * step;
        return rate * step;
    case RP_PER_VARIABLE: /* these need second derivatives, which tests/reference_curvature.h has */
    case RP_NEWTON: break;
    }
    return 0;
}

static inline void ref_update(ref_net *net, const rp_optimizer *o, const double *gradient, const double *curvature,
                              ref_state *state) {
    double r = (double)o->weight_decay, coupled = o->decoupled ? 0 : r, *c = ref_new(net->parameters);
    double exponent = (double)state->steps / (o->decay_steps ? o->decay_steps : 1);
    double rate = (double)o->rate * (o->decay > 0 ? pow((double)o->decay, exponent) : 1);
    state->steps++;
    ref_scales(net, RP_SCALE_ONE, c);
    for (int p = 0; p < net->parameters; p++) {
        double w = net->w[p], g = gradient[p] + coupled * w, h = (curvature ? curvature[p] : 0) + coupled;
        double step = ref_step(o, state->steps, rate, g, h, &state->a[p], &state->b[p]);
        double next = w - step - (o->decoupled ? rate * r * w : 0);
        if (c[p] > 0 && next - next == 0) net->w[p] = next; /* not frozen, and finite */
    }
    free(c);
}
#endif
