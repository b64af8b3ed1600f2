/* rp.h - v0.1 - neural networks that see curvature, in one file - public domain or MIT, at your choice

   Trains and runs neural networks (dense, convolutional, recurrent, residual) inside a C or C++ program: by residual
   partitioning, a second-order method that gives every weight its own step from one forward and one backward pass, or by SGD,
   Adam, Adagrad, Adadelta and Newton's method. Shows what it sees: exact Hessian products, diagonals, solves, step lengths. Its
   own kernels for AVX2, AVX-512 and NEON are chosen at run time. Nothing to install or to link.

       #define RP_IMPLEMENTATION            // in exactly one file of the program
       #include "rp.h"
       #include <stdio.h>

       int main(void) {
           float x[] = {0, 0, 0, 1, 1, 0, 1, 1};                    // four samples of two inputs
           int exclusive_or[] = {0, 1, 1, 0};                       // and their classes
           rp_data data = {x, NULL, exclusive_or, NULL, 4, NULL, NULL};
           rp_net *net = rp_net_new(rp_vector(2), NULL);
           rp_dense(net, 16), rp_activation(net, RP_TANH), rp_dense(net, 2);
           rp_loss(net, RP_SOFTMAX_CROSS_ENTROPY);
           rp_optimizer optimizer = rp_partitioning();
           rp_real loss = 0;
           if (rp_net_build(net, 4, 1)) return puts(rp_error(net)), 1;
           for (int step = 0; step < 500; step++) rp_train(net, &optimizer, &data, &loss);
           printf("loss after 500 steps: %g\n", (double)loss);
           rp_net_free(net);
       }

       cc -O2 app.c -lm                     (with several threads: cc -O2 -DRP_THREADS app.c -lm -lpthread)

   Contents (search for the anchor)
       >>concepts        what the words and the shapes mean
       >>configuration   macros that you may define before the include
       >>status          how things fail
       >>first           the first level: describe a net, build it, train it, use it
       >>fit             the second level: data sets, epochs, validation, files in the IDX format
       >>pieces          the third level: a training step in pieces, your own loss, the flat arrays
       >>curvature       exact second derivatives: along a direction, products, diagonals, solves; gradients of single samples
       >>threads         several threads that predict from one net; nets for inference only; memory
     and behind RP_IMPLEMENTATION
       >>platform  >>memory  >>random  >>kernels  >>isa  >>team  >>activations  >>losses  >>layers  >>maps  >>build
       >>sweeps  >>rules  >>tangents  >>diagonals  >>samples  >>solve  >>optimizers  >>steps  >>predict  >>evaluate  >>idx
       >>template  >>licence
*/
#ifndef RPI_PASS /* the file includes itself once for each instruction set, for the part behind >>template */
#ifndef RP_H
#define RP_H

/* >>concepts
   A net is a list of layers, from the input to the last one, and a loss. A batch is `count` samples; inputs are
   [count][inputs], targets and outputs [count][outputs], row after row. No width, sample or batch has more than 2^28 numbers.

   Residual partitioning bounds the loss around the present parameters by a sum of one parabola per parameter (Jensen's
   inequality, its weights chosen so that the bound is tightest), and steps towards the minimum of each:

       step = -rate * gradient / curvature

   In the paths rule, the paper's, it comes from one forward and one backward pass in which a second number travels beside each
   value; the other rules (rp_rule_kind) are cheaper, or tighter, ways to the same kind of bound:
       y   value of a unit                       u   total gradient: how far the unit moves if every weight below moves by one
       d   derivative of the loss by the unit    v   curvature flow: the bound's second derivative at the unit, times u
   "Algorithm 1", "Equation n", "Theorem n" in this file are those of Deep Residual Partitioning (Lawton, Ver Steeg,
   Galstyan); "poster" is its one-page version. "Low-Rank Structure" is Understanding and Exploiting the Low-Rank Structure of
   Deep Networks; "Conjugate" is Training Deep Nets Using Conjugate Deep Nets.

   Loss, gradient and curvature are means over the batch and sums over the outputs. A sample of weight w counts w times in
   the sum; the mean still divides by the number of samples.
*/

/* >>configuration
   Define these before the include that has RP_IMPLEMENTATION (RP_DOUBLE and RP_STATIC before every include).
       RP_STATIC             every function is static: several copies may live in one program
       RP_DOUBLE             rp_real is double (portable kernels), for those who check or study
       RP_MALLOC(size) and RP_FREE(pointer), both or neither: where memory comes from (default: malloc, free)
       RP_THREADS            config.threads may be more than 1: POSIX threads (link with -lpthread where libc lacks them) or Win32's
       RP_NO_SIMD            the portable kernels only, whatever the machine has
       RP_NO_ENVIRONMENT     getenv is not called: the variable RP_ISA (portable, avx2, avx512, neon) is not looked at
       RP_NO_STDIO           no <stdio.h>: no function takes a path; those that read from memory remain
       RP_SELF_FILE          the name under which this file can include itself (default "rp.h"), should you rename it */
#include <stddef.h>
#include <stdint.h>

#ifdef RP_DOUBLE
typedef double rp_real;
#else
typedef float rp_real;
#endif

#ifdef __cplusplus
#define RP_EXTERN extern "C"
#else
#define RP_EXTERN extern
#endif
#ifdef RP_STATIC
#if defined(__GNUC__)
#define RP_API static __attribute__((unused))
#else
#define RP_API static
#endif
#else
#define RP_API RP_EXTERN
#endif

/* >>status
   Functions return a status: RP_OK is 0, errors are negative. rp_error(net) says in a sentence what was wrong with the last
   call that failed on this net: the function, the layer, the field, its value and what it may be. A call that fails leaves
   parameters and optimizer state as they were. Nothing prints, exits or aborts. */
#define RP_STATUS_LIST(X) \
    X(RP_OK, 0, "no error") \
    X(RP_ERR_NULL, -1, "a pointer that must not be NULL is NULL") \
    X(RP_ERR_VALUE, -2, "an argument or field has a value that it may not have") \
    X(RP_ERR_SHAPE, -3, "shapes do not fit each other") \
    X(RP_ERR_ORDER, -4, "the call comes too early or too late") \
    X(RP_ERR_LABEL, -5, "a label is not one of the classes") \
    X(RP_ERR_NOT_FINITE, -6, "a number is infinite or not a number") \
    X(RP_ERR_MEMORY, -7, "out of memory") \
    X(RP_ERR_OVERFLOW, -8, "sizes multiply to more than can be addressed") \
    X(RP_ERR_UNSUPPORTED, -9, "not available in this build, on this machine or for this net") \
    X(RP_ERR_FILE, -10, "a file cannot be opened or read") \
    X(RP_ERR_MAGIC, -11, "the data do not begin as their format does") \
    X(RP_ERR_TRUNCATED, -12, "the data end too early") \
    X(RP_ERR_TRAILING, -13, "the data go on after their end") \
    X(RP_ERR_STOPPED, -14, "a callback of the caller's asked to stop") \
    X(RP_ERR_NOT_CONVERGED, -15, "the result is less exact than was asked for")
typedef enum rp_status {
#define RPI_X(name, value, text) name = value,
    RP_STATUS_LIST(RPI_X)
#undef RPI_X
        RPI_STATUS_END = 1
} rp_status;

typedef struct rp_net rp_net;

RP_API const char *rp_status_text(rp_status status); /* the text in the list above; never NULL */
RP_API const char *
rp_error(const rp_net *net); /* "" if nothing failed yet. Belongs to the net, valid until its next call */

/* >>first
   Describe the net from input to output, build it, train it, use it. */

typedef enum rp_shape_kind { RP_SHAPE_VECTOR = 1, RP_SHAPE_IMAGE, RP_SHAPE_SEQUENCE } rp_shape_kind;
typedef struct rp_shape {
    rp_shape_kind kind;
    int steps; /* of a sequence, otherwise 1 */
    int channels, height,
        width; /* channels: also the features of a vector or of a step; height, width: of an image, otherwise 1 */
} rp_shape;
RP_API rp_shape rp_vector(int features);
RP_API rp_shape rp_image(int channels, int height, int width); /* a sample is [channels][height][width] */
RP_API rp_shape rp_sequence(int steps, int features);          /* a sample is [steps][features] */

typedef enum rp_activation_kind {
    RP_IDENTITY,   /* z */
    RP_RELU,       /* max(z, 0) */
    RP_LEAKY_RELU, /* z or slope * z, whichever z's sign says; slope 0.01 (rp_negative_slope) */
    RP_TANH,
    RP_SIGMOID,  /* 1 / (1 + exp(-z)) */
    RP_SOFTPLUS, /* log(1 + exp(z)) */
    RP_ELU,      /* z, or scale * (exp(z) - 1) below zero; scale 1 (rp_negative_slope) */
    RP_GELU,     /* z * Phi(z), Phi the normal distribution function (exact, not the tanh approximation) */
    RP_SILU      /* z / (1 + exp(-z)) */
} rp_activation_kind;

typedef enum rp_loss_kind { /* y: the last layer's values, t: targets; per sample, summed over the outputs */
                            RP_SQUARED_ERROR, /* 1/2 (y - t)^2 */
                            RP_SOFTMAX_CROSS_ENTROPY, /* -sum_i t_i log softmax(y)_i; labels, or targets >= 0 (they need not sum to one) */
                            RP_BINARY_CROSS_ENTROPY, /* log(1 + exp(y)) - t y, y a logit; targets in [0, 1], or labels 0 and 1 if there is one output */
                            RP_HUBER, /* r = y - t: 1/2 r^2 if |r| <= delta, otherwise delta (|r| - delta / 2); delta 1 (rp_huber_delta) */
                            RP_POISSON /* exp(y) - t y, y the log of the rate; targets >= 0 */
} rp_loss_kind;

/* Where the net's memory comes from, and on what it runs. All zero is the default. */
typedef enum rp_isa_kind { RP_ISA_AUTO, RP_ISA_PORTABLE, RP_ISA_AVX2, RP_ISA_AVX512, RP_ISA_NEON } rp_isa_kind;
typedef struct rp_config {
    void *(*allocate)(void *user,
                      size_t size); /* NULL: RP_MALLOC. Set both or neither. Returns NULL when there is no memory */
    void (*release)(void *user, void *pointer); /* NULL: RP_FREE. Never called with a NULL pointer */
    void *user;
    rp_isa_kind isa;    /* instruction set; RP_ISA_AUTO takes the best that the machine has */
    int threads;        /* that work on one call, the caller's included; 0: 1. More need RP_THREADS. The
                                                    results have the same bits for any number; small pieces of work stay on one */
    int inference_only; /* no memory for training: rp_predict and rp_evaluate only */
} rp_config;

/* A new, empty net. `config` is copied; NULL takes the defaults. Returns NULL only when there is no memory: any other mistake
   sticks to the net and is reported by rp_net_build. Free with rp_net_free. */
RP_API rp_net *rp_net_new(rp_shape input, const rp_config *config);
RP_API void rp_net_free(rp_net *net); /* NULL is allowed */

/* Append a layer. Each returns the layer's index (0, 1, ...), or a negative status that also sticks until rp_net_build. */
RP_API int rp_dense(rp_net *net, int units); /* W x + b; images and sequences are read as one vector */
RP_API int rp_activation(rp_net *net, rp_activation_kind activation);

/* Layers of images. An image may come from any layer that gives one; dense layers read one as a vector, channel after channel. */
RP_API int rp_conv2d(rp_net *net, int filters, int kernel, int stride,
                     int padding); /* weights [filters][channels][kernel][kernel] */
RP_API int rp_max_pool2d(rp_net *net, int window,
                         int stride); /* windows that fit; what is left over at the border is not read */
RP_API int rp_avg_pool2d(rp_net *net, int window, int stride);
RP_API int rp_global_avg_pool2d(rp_net *net); /* one number for each channel */

/* The same with heights and widths apart, and groups: filters of group g see the channels of group g only (groups = channels:
   depthwise); weights [filters][channels / groups][kernel_height][kernel_width]. A size of 0 is 1, paddings may be 0. */
typedef struct rp_conv2d_desc {
    int filters, kernel_height, kernel_width, stride_height, stride_width, padding_height, padding_width, groups;
} rp_conv2d_desc;
RP_API int rp_conv2d_with(rp_net *net, const rp_conv2d_desc *desc);

/* Layers of sequences. Recurrent (Elman): h_t = activation(W x_t + U h_(t-1) + b), h_0 = 0; gives the last h. Weights: W
   [units][features], then U [units][units], then b. With all_states it gives the sequence of all h. */
RP_API int rp_recurrent(rp_net *net, int units, rp_activation_kind activation);
typedef struct rp_recurrent_desc {
    int units;
    rp_activation_kind activation;
    int all_states;
} rp_recurrent_desc;
RP_API int rp_recurrent_with(rp_net *net, const rp_recurrent_desc *desc);

/* v_t = activation(W v_(t-1) + b) from v_0, the last layer's output, to v_steps: one square W for all steps. */
RP_API int rp_recursive(rp_net *net, int steps, rp_activation_kind activation);

/* Residual connection: adds the output of an earlier layer, or of the input (RP_INPUT), of the same shape. RP_ERR_SHAPE names both. */
#define RP_INPUT (-1)
RP_API int rp_add(rp_net *net, int layer);

/* Change what has just been appended. Return a status, which also sticks. */
RP_API rp_status rp_no_bias(rp_net *net);                       /* the affine layer just added has no bias */
RP_API rp_status rp_negative_slope(rp_net *net, rp_real slope); /* of the leaky ReLU or ELU just added; finite, >= 0 */

/* A frozen layer keeps its parameters, whatever the optimizer; its gradient and curvature are reported as 0, and the bound
   of residual partitioning leaves them out. `frozen` 1 or 0. At any time. RP_ERR_VALUE: there is no such layer, or it has no
   parameters; this mistake does not stick. */
RP_API rp_status rp_freeze(rp_net *net, int layer, int frozen);

RP_API rp_status rp_loss(rp_net *net, rp_loss_kind loss);    /* default: RP_SQUARED_ERROR. Before the build; sticks */
RP_API rp_status rp_huber_delta(rp_net *net, rp_real delta); /* > 0. Before the build; sticks */

/* Allocates everything for batches of up to `batch` samples and draws the parameters: weights and biases uniform in
   +-1/sqrt(fan_in), which is PyTorch's default. The same seed gives the same net. Reports the first mistake made in
   describing the net, RP_ERR_SHAPE for a net without a layer, RP_ERR_ORDER if it is built already, RP_ERR_OVERFLOW,
   RP_ERR_MEMORY. After a failure for want of memory the net may be built again. */
RP_API rp_status rp_net_build(rp_net *net, int batch, uint64_t seed);

/* Samples: one batch, or a whole data set. Give targets or labels as the loss wants (see rp_loss_kind); arrays stay the
   caller's. rp_fit and rp_evaluate also take `fill`: the data then come from this callback and the arrays are not looked at.
   fill points `batch`, which arrives all zero, at the arrays of batch number `index` (0, 1, ..., from 0 again in each epoch) and
   sets its count, at most what the net was built for; the arrays stay valid until the next call. It returns 1, or 0 if there
   are no more batches (none at all: RP_ERR_VALUE), or a negative number to stop with RP_ERR_STOPPED. */
typedef struct rp_data rp_data;
typedef int (*rp_fill)(void *user, int index, rp_data *batch);
struct rp_data {
    const rp_real *inputs;  /* [count][inputs] */
    const rp_real *targets; /* [count][outputs], or NULL if there are labels */
    const int *labels;      /* [count], or NULL */
    const rp_real *weights; /* [count], finite and >= 0; NULL: all 1 */
    int count;
    rp_fill fill;
    void *user; /* for fill */
};

/* How the curvature of residual partitioning is computed. All zero is the default. */
typedef enum rp_rule_kind {
    RP_PATHS, /* Algorithm 1: sums magnitudes over all paths through the net. About 1.8 times the work of a gradient */
    RP_JACOBIAN, /* poster, Equation 6: exact |dy/dw|, one backward sweep for each output (two for a bound that mixes outputs) */
    RP_SAMPLED /* one extra backward sweep with a random vector whose covariance is the loss's Hessian: in the mean over the
                    draws its curvature bounds the Gauss-Newton matrix */
} rp_rule_kind;
typedef enum rp_bound_kind {
    RP_BOUND_TIGHT, /* softmax: diag(p) - p p' is bounded by diag(p) */
    RP_BOUND_JENSEN /* softmax: Jensen's inequality over the outputs (Equation 46), as in the paper; far larger */
} rp_bound_kind;    /* the other losses are separable and need neither */
typedef enum rp_scale_kind {
    RP_SCALE_ONE,   /* Theorem 2 as printed: the partition is best if all updates have one size */
    RP_SCALE_FAN_IN /* the partition is best if updates have the size 1/sqrt(fan_in + 1) of their layer */
} rp_scale_kind;
typedef struct rp_rule {
    rp_rule_kind kind;
    rp_bound_kind bound;
    rp_scale_kind scale;
} rp_rule;
RP_API rp_rule rp_rule_default(void);

/* An optimizer is a plain struct: make one, edit its fields, change them between steps. What it remembers of earlier steps
   is kept in the net. With t = 1, 2, ... the step, g = gradient + weight_decay * w (all methods but `decoupled` ones):

   partitioning  m = mean of g over steps (momentum), H = mean of curvature + weight_decay over steps (curvature_average),
                 both bias-corrected exponential means, 0: the present batch alone;  w -= rate * m / (H + damping)
   SGD           b = momentum * b + g (b = g at t = 1);  w -= rate * b, with nesterov: rate * (g + momentum * b)
   Adam          m, s = means of g, g^2 with beta1, beta2, bias-corrected;  w -= rate * m / (sqrt(s) + epsilon)
   Adagrad       s += g^2;  w -= rate * g / (sqrt(s) + epsilon)
   Adadelta      s = mean of g^2 with rho; x = sqrt(a + epsilon) / sqrt(s + epsilon) * g; a = mean of x^2;  w -= rate * x
   per variable  h = the Hessian's diagonal + weight_decay;  w -= rate * sign(g) * rp_cubic_length(-|g|, h, 1, sigma)
                 (Low-Rank Structure, Table 2; see rp_hessian_diagonal for the cost). All parameters move at once, each as if
                 alone: sigma must be large, the rate small, or the length computed
   Newton        (B + (lambda + weight_decay) I) p = -g;  w += p, where B is the batch's Gauss-Newton matrix or Hessian

   SGD to Adadelta give PyTorch's results, and have its defaults. A parameter whose new value would not be finite (0/0
   where the curvature is zero) stays as it is.

   Computed lengths: with `cubic` above 0 the step s of any method is multiplied by the alpha that minimises
   alpha a + alpha^2 b / 2 + cubic |alpha s|^3 / 6, where a and b are the exact slope and curvature along s of this batch's loss with
   weight decay (Low-Rank Structure, section 3). alpha undoes the scale of s, so the rate no longer matters. Where a >= 0 no
   step is taken. It costs one rp_directional more. With cubic_adaptive `cubic` is only the first sigma: the loss is computed once
   more after the step, and sigma halved where the model foretold its decrease well (ratio above 0.9), doubled where it did
   not (below 0.1: Kohler and Lucchi); a step that raised the loss is undone.

   Newton's steps (Levenberg-Marquardt) are solved for by MINRES, up to the first direction of negative curvature, and taken if
   they do not raise this batch's loss. lambda is halved where the quadratic model foretold the decrease well (ratio above 0.75),
   doubled where it did not (below 0.25), and 4 times as large after a step not taken (unless all that it foretold is lost in
   rounding). In the place of that step comes -g / (curvature + lambda), one of residual partitioning, of the length that
   minimises the exact quadratic along it, halved up to 8 times; or none, if all raise the loss. There is no rate in them.
   lambda, as sigma, stays within a million times of what it began with.

   rp_last_step reports what was done. With `cubic`, and in the last two methods, gradient, curvature and step are left in the flat
   arrays. */
typedef enum rp_method {
    RP_PARTITIONING,
    RP_SGD,
    RP_ADAM,
    RP_ADAGRAD,
    RP_ADADELTA,
    RP_PER_VARIABLE,
    RP_NEWTON
} rp_method;
typedef struct rp_optimizer {
    rp_method method;
    rp_real rate;
    rp_real decay;        /* step t (from 0) uses rate * decay^(t / decay_steps); 0: no decay */
    int decay_steps;      /* 0: 1 */
    rp_real weight_decay; /* strength r of r/2 |w|^2 on weights and biases */
    int decoupled; /* 1: w -= rate * weight_decay * w instead, as AdamW does; any method. Where the length of the step is
                                  computed, and for Newton, after the step, if one is taken (in pieces by the caller) */
    rp_real momentum;          /* SGD, partitioning; in [0, 1) */
    int nesterov;              /* SGD; needs momentum */
    rp_real curvature_average; /* partitioning; in [0, 1) */
    rp_real damping; /* partitioning; >= 0. Has the unit of the curvature: where losses or inputs are far below 1, make
                                  it smaller. Newton: the first lambda, > 0 */
    rp_rule rule;    /* partitioning; Newton: of the curvature in its fallback */
    rp_real beta1, beta2; /* Adam; in [0, 1) */
    rp_real rho;          /* Adadelta; in [0, 1] */
    rp_real epsilon;      /* Adam, Adagrad, Adadelta; >= 0 */
    rp_real cubic;        /* any method: sigma of a computed length; 0: the step has its own */
    int cubic_adaptive;   /* 1: sigma adapts; any method but Newton */
    rp_real sigma;        /* per variable; > 0 */
    int full_hessian;     /* Newton: 1: B is the Hessian, 0: the Gauss-Newton matrix, which is never indefinite */
    int iterations;       /* Newton: most products in a solve */
    rp_real tolerance;    /* Newton: at which the solve ends: residual by right-hand side; in [0, 1) */
} rp_optimizer;
RP_API rp_optimizer rp_partitioning(void); /* the default: sampled rule, fan-in scale, averages, damping 1, rate 5 (1 to
                                                           10 are worth a try) */
RP_API rp_optimizer
rp_partitioning_rate(rp_real rate); /* Algorithm 1 as printed: Jensen's bound, scale one, no averages: no state */
RP_API rp_optimizer rp_sgd(rp_real rate);
RP_API rp_optimizer rp_adam(rp_real rate);
RP_API rp_optimizer rp_adagrad(rp_real rate);
RP_API rp_optimizer rp_adadelta(rp_real rate);
RP_API rp_optimizer rp_per_variable(rp_real sigma); /* rate 1 */
RP_API rp_optimizer rp_newton(void); /* Gauss-Newton, lambda from 1, at most 50 products to a tolerance of 0.01; for
                                                           large batches, or the whole data set */

/* Allocates the state that this optimizer keeps between steps (0, 1 or 2 numbers per parameter; the last two methods keep
   scratch memory instead) and sets it to zero, unless the net has this state already. rp_train and rp_update do it themselves
   when they must; after it they allocate nothing. Another method, or a momentum or average switched on or off, is another
   state: it starts from zero.
   RP_ERR_VALUE: a field is out of range. RP_ERR_MEMORY: the earlier state is still there. */
RP_API rp_status rp_prepare(rp_net *net, const rp_optimizer *optimizer);

/* One step on one batch. *loss (NULL: not wanted) is the loss before the step. RP_ERR_NOT_FINITE, with parameters and state
   untouched: loss, gradient or curvature is not finite. RP_ERR_LABEL: labels do not fit the loss, or one is not a class.
   RP_ERR_VALUE: the batch has no sample, or more than the net was built for; a target that the loss does not allow, a weight
   below 0; both targets and labels. RP_ERR_NULL: neither. */
RP_API rp_status rp_train(rp_net *net, const rp_optimizer *optimizer, const rp_data *batch, rp_real *loss);

/* What the last step of rp_train or rp_fit did. Of a method that takes its own length only `taken` and `alpha` (1) are set. */
typedef struct rp_step {
    int taken; /* 0: none, since the slope was not below 0, the loss would have risen, or slope, curvature or length were
                           not finite (these are 0 then); parameters are as they were */
    rp_real alpha;     /* what the method's step was multiplied by */
    rp_real slope;     /* of the loss and weight decay along it, at its beginning */
    rp_real curvature; /* the same */
    rp_real ratio;     /* actual by foretold decrease; 0 where none was computed */
    rp_real sigma;     /* for the next step: of the cubic model; Newton: lambda */
    int products;      /* Newton: in the solve */
    int fallback;      /* Newton: 1: the step is one of residual partitioning */
} rp_step;
RP_API rp_status rp_last_step(rp_net *net, rp_step *step); /* RP_ERR_ORDER: no step yet */

/* The last layer's values (logits, log rates) for any number of samples: x [count][inputs], out [count][outputs]. Values that
   are not finite are passed on as they are (but for programs compiled with -ffast-math, which assume that there are none). */
RP_API rp_status rp_predict(rp_net *net, const rp_real *x, int count, rp_real *out);

/* >>fit
   Whole data sets. */

typedef struct rp_score {
    rp_real loss;
    rp_real
        accuracy; /* softmax: share of samples whose largest output is the label or the largest target; binary cross-entropy:
                          share of outputs on the right side; by weight. -1 for losses that have none, or if all weights are 0 */
    int64_t count; /* samples seen */
} rp_score;

/* Mean loss over a data set of any size. RP_ERR_NOT_FINITE: the loss is not finite (score is filled all the same). */
RP_API rp_status rp_evaluate(rp_net *net, const rp_data *data, rp_score *score);

typedef struct rp_progress {
    int epoch, epochs; /* from 0 */
    int step, steps; /* done in this epoch, of how many; steps is 0 while unknown (the first epoch of streamed data) */
    int epoch_done;  /* 1: the epoch is over, `validation` is fresh if there is validation data */
    rp_real loss;    /* mean over this epoch's samples so far, each before its step */
    rp_score validation; /* the latest; count 0 if there is none */
    rp_step last;        /* the latest step */
} rp_progress;

typedef struct rp_fit_options {
    int epochs;                /* 0: 1 */
    int batch;                 /* 0: what the net was built for */
    int keep_order;            /* 1: do not shuffle. Streamed data are never shuffled */
    uint64_t seed;             /* of the shuffling */
    const rp_data *validation; /* NULL: none */
    int patience;              /* stop after so many epochs without a better validation loss; 0: never */
    int keep_best;             /* 1: end with the parameters of the best validation loss */
    int (*progress)(void *user, const rp_progress *progress); /* after each step and each epoch; anything but 0 stops */
    rp_real (*schedule)(void *user, int64_t step,
                        rp_real rate); /* the rate for step 0, 1, ... of this fit, given the optimizer's */
    void *user;                        /* for both */
} rp_fit_options;                      /* all zero is the default */

typedef struct rp_fit_report {
    int epochs; /* finished */
    int64_t steps;
    rp_real loss;        /* mean over the last epoch's samples, each before its step */
    rp_score validation; /* of the last epoch */
    rp_real best_loss;   /* smallest validation loss, and its epoch (from 0) */
    int best_epoch;      /* -1: none */
    int stopped;         /* 1: by patience, 2: by the progress callback */
    rp_step last;        /* the last step */
} rp_fit_report;

/* Trains for some epochs. A last batch that is not full is trained as it is. `options` and `report` may be NULL. Stopping by
   patience or by the callback is success. Fails as rp_train does; what was learned until then is kept. Allocates nothing
   once the optimizer's state is there, except a copy of the parameters for keep_best. */
RP_API rp_status rp_fit(rp_net *net, const rp_optimizer *optimizer, const rp_data *data, const rp_fit_options *options,
                        rp_fit_report *report);

/* Files in the IDX format (unsigned bytes), in which MNIST and its relatives are kept. `values` or `labels` is filled and
   belongs to the caller until rp_idx_free. On failure nothing is allocated and `error` says what was wrong. */
typedef struct rp_idx {
    rp_real *values; /* [count][size] */
    int *labels;     /* [count] */
    int count, size;
    int dimensions; /* of one sample: 0 for labels, 2 for images */
    int shape[8];   /* of one sample: {28, 28} */
    char error[192];
} rp_idx;
/* Bytes 0..255 become low..high. RP_ERR_FILE: cannot be opened or read (or is larger than memory can hold). RP_ERR_MAGIC: not
   IDX. RP_ERR_UNSUPPORTED: IDX, but not of unsigned bytes. RP_ERR_SHAPE: no dimensions, too many, or one of size zero; labels
   with more than one.
   RP_ERR_OVERFLOW: the dimensions' product. RP_ERR_TRUNCATED, RP_ERR_TRAILING: fewer or more bytes than the dimensions say.
   RP_ERR_LABEL: a label is `classes` or more. RP_ERR_MEMORY. */
RP_API rp_status rp_images_memory(const void *bytes, size_t size, rp_real low, rp_real high, rp_idx *out);
RP_API rp_status rp_labels_memory(const void *bytes, size_t size, int classes, rp_idx *out);
#ifndef RP_NO_STDIO
RP_API rp_status rp_images(const char *path, rp_real low, rp_real high, rp_idx *out);
RP_API rp_status rp_labels(const char *path, int classes, rp_idx *out);
#endif
RP_API void rp_idx_free(rp_idx *idx); /* NULL is allowed, twice too */

/* >>pieces
   A step in pieces: between them the caller may look at the arrays, average them over machines, clip them, or choose the
   length of the step. All flat arrays have rp_parameter_count entries, layer after layer: weights row-major [out][in] (conv2d:
   [out][in][height][width]; recurrent: W [units][features], then U [units][units]), then biases [out]. They belong to the net
   and live as long as it does. */

RP_API size_t rp_parameter_count(const rp_net *net); /* 0 before the build */
RP_API rp_real *rp_parameters(rp_net *net); /* may be written at any time between calls. NULL before the build */
RP_API rp_real *rp_gradient(rp_net *net);  /* what the last rp_backward left; may be written. NULL for inference only */
RP_API rp_real *rp_curvature(rp_net *net); /* the same; >= 0 */
RP_API rp_real *rp_direction_array(rp_net *net); /* what the last rp_direction left; may be written */

typedef struct rp_layer {
    const char *kind; /* "dense", "relu", ...; static */
    rp_shape in, out;
    size_t weights, weight_count, biases, bias_count; /* offsets into the flat arrays, and sizes */
    int frozen;
} rp_layer;
RP_API int rp_layer_count(const rp_net *net);
RP_API rp_status rp_layer_info(rp_net *net, int layer,
                               rp_layer *info); /* offsets are 0 before the build. RP_ERR_VALUE: no such layer */

/* Forward and backward over one batch: fills the flat gradient and, unless `rule` is NULL, the flat curvature. Fails as
   rp_train does; the arrays are then as they were. */
RP_API rp_status rp_backward(rp_net *net, const rp_data *batch, const rp_rule *rule, rp_real *loss);

/* One optimizer step from the flat arrays: rp_direction, then rp_move(net, 1). RP_ERR_NOT_FINITE: the arrays hold something
   that is not finite. RP_ERR_ORDER: nothing filled the gradient, or (partitioning) the curvature, since the build; for
   rp_per_variable the curvature array must hold the Hessian's diagonal (rp_hessian_diagonal). RP_ERR_UNSUPPORTED: the length
   of the step must be computed from a batch (`cubic`): do it by rp_direction, rp_directional, rp_cubic_length and rp_move; or
   the step itself must (rp_newton): rp_hessian_solve. */
RP_API rp_status rp_update(rp_net *net, const rp_optimizer *optimizer);
RP_API rp_status rp_direction(rp_net *net,
                              const rp_optimizer *optimizer); /* the whole step, rate included, into rp_direction_array;
                                                                              counts as a step of the optimizer */
RP_API rp_status rp_move(rp_net *net, rp_real alpha);         /* parameters += alpha * direction */

/* The caller's own loss: forward; read rp_output ([count][outputs]); give back, for each sample and output, the derivative of
   that sample's loss and, or NULL, its second derivative (>= 0; a bound on the Hessian's diagonal). Fills the gradient and,
   with a second derivative, the curvature by `rule` (NULL: rp_rule_default). RP_ERR_UNSUPPORTED: a net for inference only; it
   has rp_predict. RP_ERR_ORDER: no rp_forward went before, or another call (also an earlier rp_backward_from) has used the net
   since. RP_ERR_VALUE: a second derivative is below 0 or not finite. */
RP_API rp_status rp_forward(rp_net *net, const rp_real *x, int count);
RP_API const rp_real *rp_output(const rp_net *net); /* NULL if there was no rp_forward */
RP_API rp_status rp_backward_from(rp_net *net, const rp_real *output_gradient, const rp_real *output_curvature);
RP_API rp_status rp_backward_from_rule(rp_net *net, const rp_real *output_gradient, const rp_real *output_curvature,
                                       const rp_rule *rule);

/* A table of the net (layers, shapes, parameters, bytes) as text. Writes at most `size` bytes with the final 0 and returns the
   length of the whole text, as snprintf does; 0 if net is NULL. At any time. */
RP_API size_t rp_summary(const rp_net *net, char *text, size_t size);

/* >>curvature
   Exact derivatives of the mean loss of a batch, for any net. H is its Hessian by the parameters, G the Gauss-Newton matrix
   (H without the second derivatives of the net itself: never indefinite). Weight decay is left out. Frozen layers count as
   constants: their entries are 0 in what comes out and are not looked at in what goes in. At a kink (ReLU, max pool, Huber)
   the second derivative is that of the side on which the batch is.

   Vectors have rp_parameter_count entries, in the order of the flat arrays. A vector may be one of these; otherwise they stay
   untouched, as do parameters and optimizer state. What comes out is written only on success, but where the function says
   otherwise. Batches are checked as by rp_train; RP_ERR_NOT_FINITE: a vector that goes in, the loss or the result is not
   finite. Numbers behind "cost" are times of a gradient (rp_backward without a rule), as bench/curvature.c measures them. The
   products need one more number for each unit and sample; the first of them allocates these (RP_ERR_MEMORY), and the net
   keeps them. */

/* *first = g'grad f, *second = g'Hg for a direction g, by one forward sweep of second-order jets. Each may be NULL. Cost 1
   to 1.6. */
RP_API rp_status rp_directional(rp_net *net, const rp_data *batch, const rp_real *direction, rp_real *first,
                                rp_real *second);

/* The alpha >= 0 that minimises alpha first + alpha^2 second / 2 + sigma (alpha norm)^3 / 6, where norm is |g|_2 (Low-Rank
   Structure, Equation 37, without its cancellation). 0 if first >= 0, or if an argument is not finite or there is no minimum
   (sigma or norm 0, second <= 0). */
RP_API double rp_cubic_length(double first, double second, double norm, double sigma);

/* out = H v (forward over backward: Pearlmutter; Conjugate's exact Hessian), out = G v. out may be v. Cost 1.8 to 2.8,
   and 1.3 to 2.1. */
RP_API rp_status rp_hessian_vector(rp_net *net, const rp_data *batch, const rp_real *v, rp_real *out);
RP_API rp_status rp_gauss_newton_vector(rp_net *net, const rp_data *batch, const rp_real *v, rp_real *out);

/* H as a matrix [parameters][parameters], symmetric to the bit, by a product for each parameter. RP_ERR_VALUE: the net has more than
   `most` parameters. If one of the products is not finite, `out` holds those before it. */
RP_API rp_status rp_hessian_matrix(rp_net *net, const rp_data *batch, size_t most, rp_real *out);

/* out = the diagonal of H, of either sign. In a stack of dense layers and activations by a recursion over each sample's own Hessian
   by the units of a layer: 2 width^3 multiply-adds for each layer and sample, and three matrices of [width][width]. Elsewhere by
   a product for each parameter: for small nets. */
RP_API rp_status rp_hessian_diagonal(rp_net *net, const rp_data *batch, rp_real *out);

/* out = the diagonal of G, >= 0, through a factor of the loss's Hessian: a backward sweep and a product of squares for each output. */
RP_API rp_status rp_gauss_newton_diagonal(rp_net *net, const rp_data *batch, rp_real *out);

/* The gradient of each sample's own loss (times its weight; the mean of these is the gradient).
   norms[s] = |gradient of sample s|_2, without forming it: |d|^2 (|y|^2 + 1) in a dense layer. Cost 0.5 to 1.3. */
RP_API rp_status rp_sample_gradient_norms(rp_net *net, const rp_data *batch, rp_real *norms);

/* Its factors: d, the derivative by the values before the layer's activation, and y, what the layer reads. In a dense layer the
   gradient of W is the outer product d y', that of b is d; other layers sum over positions: d is [filters][height][width] and y
   [channels][height][width] (conv2d), d [steps][units] and y [steps][features] with states [steps][units], those before each step
   (recurrent: d y' for W and d states' for U; recursive: d states', y is NULL). The arrays live until the callback returns. It
   returns 0, or anything else to stop with RP_ERR_STOPPED, and may not use the net (RP_ERR_ORDER), but for rp_predict_with.
   Called for each sample and for each layer that is trained. */
typedef struct rp_sample_factors {
    int sample, layer;
    const rp_real *d, *y, *states; /* states: NULL unless recurrent or recursive */
} rp_sample_factors;
typedef int (*rp_each_sample)(void *user, const rp_sample_factors *factors);
RP_API rp_status rp_sample_gradients(rp_net *net, const rp_data *batch, rp_each_sample each, void *user);

/* How much the samples' gradients g_s differ from their mean g (S samples, at least 2: RP_ERR_VALUE). The noise scale is about
   the largest batch that still speeds training up (McCandlish et al., An Empirical Model of Large-Batch Training). `variance`
   (NULL: not wanted): of each parameter's derivative over the samples, sum (g_s - g)^2 / (S - 1), to rounding of the mean of
   g_s^2. Cost 0.9 to 1.7, with `variance` 1.6 to 2.7. */
typedef struct rp_noise {
    rp_real gradient; /* |g|^2 */
    rp_real variance; /* sum over the parameters of the variance over the samples */
    rp_real signal;   /* |g|^2 - variance / S: unbiased estimate for the true gradient; may be below 0 */
    rp_real scale;    /* variance / signal; 0 if signal <= 0: this batch cannot tell */
} rp_noise;
RP_API rp_status rp_gradient_noise(rp_net *net, const rp_data *batch, rp_noise *noise, rp_real *variance);

/* Solves (H + damping I) x = b. x may be b. H may be indefinite. */
typedef enum rp_solve_method {
    RP_SOLVE_AUTO, /* the one that takes the fewest operations, iterations counted to their limit, without those whose matrices
                           would take more than a GiB. If iterations do not get there, then the better of the others, unless
                           it would take 100 times as long */
    RP_SOLVE_ITERATIVE, /* MINRES: a product for each iteration; 11 vectors */
    RP_SOLVE_DIRECT, /* stacks of dense layers and activations: the parameters are eliminated by hand (Conjugate), which leaves a
                           block-tridiagonal system in the samples' units. 8 (S width)^3 operations and 6 (S width)^2 numbers
                           for each layer, however many parameters. Needs damping > 0 */
    RP_SOLVE_DENSE /* H as a matrix: 2/3 parameters^3 operations */
} rp_solve_method;
typedef struct rp_solve_options {
    rp_solve_method method;
    int gauss_newton;  /* 1: G in the place of H */
    rp_real damping;   /* >= 0 */
    rp_real tolerance; /* of |b - (H + damping I) x| / |b|; 0: 1e-4, with RP_DOUBLE 1e-9 */
    int iterations;    /* most of MINRES; 0: 1000 */
    int precondition; /* iterative: 1: by the curvature of residual partitioning, by `rule`. Measured: seldom fewer iterations, often
                            more, since what H leaves at the damping is then no longer one eigenvalue */
    rp_rule rule;
    /* iterative, an estimate; anything but 0 stops: RP_ERR_STOPPED. It may not use the net (RP_ERR_ORDER), but for rp_predict_with */
    int (*progress)(void *user, int iteration, rp_real residual);
    void *user;
} rp_solve_options; /* all zero is the default */
typedef struct rp_solve_report {
    rp_solve_method method; /* that was used */
    rp_real residual;       /* |b - (H + damping I) x| / |b|, computed, not estimated */
    int products;           /* with H or G, in all */
    int refinements;        /* times that a solution was improved by solving for its residual */
    int negative_curvature; /* iterative: 1: a direction with v'(H + damping I)v <= 0 was met, 0: none; others: -1 */
} rp_solve_report;
/* `options` and `report` may be NULL. The residual is always computed, with exact products, and lowered by refinement where that
   helps. If it stays above the tolerance (the limit of iterations, or a damping too small for this precision) the status is
   RP_ERR_NOT_CONVERGED, x is the best that was found, also after RP_ERR_STOPPED, and the report says how good it is.
   RP_ERR_UNSUPPORTED: the direct method on another net. RP_ERR_MEMORY. Allocates, and frees, its vectors and matrices. */
RP_API rp_status rp_hessian_solve(rp_net *net, const rp_data *batch, const rp_real *b, rp_real *x,
                                  const rp_solve_options *options, rp_solve_report *report);

/* >>threads
   Nets share nothing: two threads may use two nets at once. One net may serve several threads that predict, each with its
   own workspace, as long as no thread trains it, writes to it or frees it. */

typedef struct rp_workspace rp_workspace;
RP_API rp_workspace *rp_workspace_new(const rp_net *net,
                                      int batch);       /* NULL: the net is not built, batch < 1, or no memory */
RP_API void rp_workspace_free(rp_workspace *workspace); /* before its net; NULL is allowed */
/* As rp_predict; leaves rp_error alone. RP_ERR_VALUE: also a workspace of another net. */
RP_API rp_status rp_predict_with(const rp_net *net, rp_workspace *workspace, const rp_real *x, int count, rp_real *out);

RP_API const char *
rp_isa(const rp_net *net); /* "portable", ...: the kernels that this net runs on; "" before the build */
RP_API size_t rp_memory(const rp_net *net);       /* bytes that the net has allocated */
RP_API size_t rp_state_memory(const rp_net *net); /* of them, optimizer state */

#endif /* RP_H */

#if defined(RP_IMPLEMENTATION) && !defined(RPI_IMPLEMENTED)
#define RPI_IMPLEMENTED

/* >>platform */
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>
#ifndef RP_NO_ENVIRONMENT
#include <stdlib.h> /* getenv */
#endif
#if !defined(RP_MALLOC) && !defined(RP_FREE)
#include <stdlib.h>
#define RP_MALLOC(size) malloc(size)
#define RP_FREE(pointer) free(pointer)
#elif !defined(RP_MALLOC) || !defined(RP_FREE)
#error "rp.h: define both RP_MALLOC and RP_FREE, or neither"
#endif
#ifndef RP_NO_STDIO
#include <stdio.h>
#endif
#ifndef RP_SELF_FILE
#define RP_SELF_FILE "rp.h"
#endif
#if defined(__SANITIZE_ADDRESS__)
#define RPI_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define RPI_ASAN
#endif
#endif
#ifdef RPI_ASAN
#include <sanitizer/asan_interface.h>
#endif
#if defined(__GNUC__) /* and clang: vector extensions, and functions for another instruction set than the file's */
#define RPI_VECTORS
#define RPI_INLINE static inline __attribute__((always_inline, unused))
#if !defined(RP_NO_SIMD) && !defined(RP_DOUBLE) && (defined(__x86_64__) || defined(__i386__))
#define RPI_X86
#include <immintrin.h>
#elif !defined(RP_NO_SIMD) && !defined(RP_DOUBLE) && defined(__aarch64__)
#define RPI_NEON
#include <arm_neon.h>
#endif
#else
#define RPI_INLINE static inline
#endif

#ifdef RP_DOUBLE
typedef int64_t rpi_int; /* as wide as rp_real */
#define RPI_EXPONENT INT64_C(0x7FF0000000000000)
#define RPI_MAGNITUDE INT64_C(0x7FFFFFFFFFFFFFFF)
#define RPI_REAL_MAX DBL_MAX
#define RPI_REAL_MIN DBL_MIN
#define RPI_MATH(name) name
#else
typedef int32_t rpi_int;
#define RPI_EXPONENT INT32_C(0x7F800000)
#define RPI_MAGNITUDE INT32_C(0x7FFFFFFF)
#define RPI_REAL_MAX FLT_MAX
#define RPI_REAL_MIN FLT_MIN
#define RPI_MATH(name) name##f
#endif

#define RPI_LINE 64 /* bytes of a cache line, and the alignment of every array */
#define RPI_LINE_REALS ((int)(RPI_LINE / sizeof(rp_real)))
#define RPI_LARGEST (1 << 28) /* no width, batch or count of a batch is larger */

static rpi_int rpi_bits(rp_real x) {
    rpi_int bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* By its bits, since -ffast-math lets the compiler assume that isfinite is always true. */
static int rpi_finite(rp_real x) { return (rpi_bits(x) & RPI_EXPONENT) != RPI_EXPONENT; }

static int rpi_finite_double(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (bits & UINT64_C(0x7FF0000000000000)) != UINT64_C(0x7FF0000000000000);
}

/* >>memory */
typedef struct rpi_memory {
    void *(*allocate)(void *user, size_t size);
    void (*release)(void *user, void *pointer);
    void *user;
} rpi_memory;

static void *rpi_default_allocate(void *user, size_t size) {
    (void)user;
    return RP_MALLOC(size);
}
static void rpi_default_release(void *user, void *pointer) {
    (void)user;
    RP_FREE(pointer);
}

/* One block holds many arrays. The function that lays it out runs twice: first with base NULL, to add up sizes, then to hand
   out pointers. Under AddressSanitizer the gaps between the arrays are poisoned, so that an overrun shows. */
typedef struct rpi_arena {
    char *base;
    size_t used;
    int overflow;
} rpi_arena;

#ifdef RPI_ASAN
#define RPI_GAP RPI_LINE
#else
#define RPI_GAP 0
#endif

static void *rpi_claim(rpi_arena *arena, ptrdiff_t items, size_t size) {
    size_t count = (size_t)items, at = arena->used, bytes;
    if (items < 0 || count > (SIZE_MAX / 4) / size || count * size > SIZE_MAX / 4 - at) {
        arena->overflow = 1;
        return NULL;
    }
    bytes = (count * size + RPI_LINE - 1) / RPI_LINE * RPI_LINE;
    arena->used = at + bytes + RPI_GAP;
    if (!arena->base) return NULL;
#ifdef RPI_ASAN
    ASAN_POISON_MEMORY_REGION(arena->base + at + count * size, bytes - count * size + RPI_GAP);
#endif
    return arena->base + at;
}
static rp_real *rpi_claim_reals(rpi_arena *arena, ptrdiff_t count) {
    return (rp_real *)rpi_claim(arena, count, sizeof(rp_real));
}

static void rpi_zero(rp_real *x, ptrdiff_t count) {
    if (count > 0) memset(x, 0, (size_t)count * sizeof *x);
}
static void rpi_copy(rp_real *to, const rp_real *from, ptrdiff_t count) {
    if (count > 0) memcpy(to, from, (size_t)count * sizeof *to);
}

/* A block whose arrays begin at a multiple of RPI_LINE, whatever the allocator returns. */
typedef struct rpi_block {
    void *allocation;
    char *base;
    size_t size;
} rpi_block;

static int rpi_block_new(const rpi_memory *memory, rpi_block *block, size_t size) {
    void *allocation = memory->allocate(memory->user, size + RPI_LINE);
    if (!allocation) return 0;
    block->allocation = allocation;
    block->base = (char *)(((uintptr_t)allocation + RPI_LINE - 1) / RPI_LINE * RPI_LINE);
    block->size = size + RPI_LINE;
    return 1;
}

static void rpi_block_free(const rpi_memory *memory, rpi_block *block) {
    if (!block->allocation) return;
#ifdef RPI_ASAN
    ASAN_UNPOISON_MEMORY_REGION(block->allocation, block->size);
#endif
    memory->release(memory->user, block->allocation);
    memset(block, 0, sizeof *block);
}

/* A small printf, since there may be no <stdio.h>: %s, %d int, %z size_t, %l int64_t, %g double. Returns the length of the
   whole text; writes at most `size` bytes, the last one 0. */
typedef struct rpi_text {
    char *out;
    size_t size, length;
} rpi_text;

static void rpi_put(rpi_text *text, char c) {
    if (text->length + 1 < text->size) text->out[text->length] = c;
    text->length++;
}
static void rpi_put_string(rpi_text *text, const char *s) {
    while (*s) rpi_put(text, *s++);
}
static void rpi_put_unsigned(rpi_text *text, uint64_t x) {
    char digits[20];
    int n = 0;
    do digits[n++] = (char)('0' + x % 10);
    while (x /= 10);
    while (n) rpi_put(text, digits[--n]);
}
static void rpi_put_signed(rpi_text *text, int64_t x) {
    if (x < 0) rpi_put(text, '-');
    rpi_put_unsigned(text, x < 0 ? (uint64_t) - (x + 1) + 1 : (uint64_t)x);
}
static void rpi_put_double(rpi_text *text, double x) { /* six digits */
    int exponent = 0;
    uint64_t digits, scale = 100000;
    if (!rpi_finite_double(x)) {
        uint64_t bits;
        memcpy(&bits, &x, sizeof bits);
        rpi_put_string(text, bits << 12 ? "nan" : bits >> 63 ? "-inf" : "inf");
        return;
    }
    if (x < 0) {
        rpi_put(text, '-');
        x = -x;
    }
    if (x > 0) {
        exponent = (int)floor(log10(x));
        x = exponent < -300 ? x * 1e300 * pow(10, -exponent - 295) : x * pow(10, 5 - exponent);
    }
    digits = (uint64_t)(x + 0.5);
    if (digits >= 1000000) {
        digits /= 10;
        exponent++;
    }
    if (digits && digits < 100000) {
        digits *= 10;
        exponent--;
    }
    if (exponent >= 6 || exponent < -4) {
        rpi_put_unsigned(text, digits / scale);
        digits %= scale;
        if (digits) rpi_put(text, '.');
        for (; digits; digits %= scale) {
            scale /= 10;
            rpi_put(text, (char)('0' + digits / scale));
        }
        rpi_put(text, 'e');
        rpi_put_signed(text, exponent);
        return;
    }
    if (exponent < 0) rpi_put_string(text, "0.");
    for (int i = exponent; i < -1; i++) rpi_put(text, '0');
    for (int place = exponent; place >= 0 || digits; place--, scale /= 10) {
        if (place == -1 && exponent >= 0) rpi_put(text, '.');
        rpi_put(text, (char)('0' + (scale ? digits / scale : 0)));
        if (scale) digits %= scale;
    }
}

static size_t rpi_format_list(char *out, size_t size, const char *format, va_list list) {
    rpi_text text = {out, size, 0};
    for (; *format; format++) {
        if (*format != '%') {
            rpi_put(&text, *format);
            continue;
        }
        switch (*++format) {
        case 's': rpi_put_string(&text, va_arg(list, const char *)); break;
        case 'd': rpi_put_signed(&text, va_arg(list, int)); break;
        case 'z': rpi_put_unsigned(&text, va_arg(list, size_t)); break;
        case 'l': rpi_put_signed(&text, va_arg(list, int64_t)); break;
        default: rpi_put_double(&text, va_arg(list, double)); break;
        }
    }
    if (size) out[text.length < size ? text.length : size - 1] = 0;
    return text.length;
}

static size_t rpi_format(char *out, size_t size, const char *format, ...) {
    va_list list;
    size_t length;
    va_start(list, format);
    length = rpi_format_list(out, size, format, list);
    va_end(list);
    return length;
}

/* >>random
   splitmix64: a counter through a mixing function, so that its whole state is one number. */
static uint64_t rpi_mix(uint64_t z) {
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}
static uint64_t rpi_random(uint64_t *state) { return rpi_mix(*state += UINT64_C(0x9E3779B97F4A7C15)); }
static double rpi_uniform(uint64_t *state) {
    return (double)(rpi_random(state) >> 11) * (1.0 / 9007199254740992.0);
} /* [0, 1) */

/* The i-th element of a random permutation of 0..count-1: a Feistel network of four rounds over the next even number of bits,
   walked until it lands below count. No memory, any order of access. */
static int rpi_permute(uint64_t seed, int count, int i) {
    int half = 1;
    uint32_t x = (uint32_t)i, mask;
    while (half < 16 && (1 << (2 * half)) < count) half++;
    mask = (1u << half) - 1;
    do {
        uint32_t left = x >> half, right = x & mask;
        for (uint32_t round = 0; round < 4; round++) {
            uint32_t next = left ^ ((uint32_t)rpi_mix(seed + right + ((uint64_t)round << 32)) & mask);
            left = right;
            right = next;
        }
        x = left << half | right;
    } while (x >= (uint32_t)count);
    return (int)x;
}

/* >>kernels
   What is written once per instruction set; only pointers and sizes cross. A value of the net is a matrix [features][ld]: a row
   per feature, the batch along it, so that weights are broadcast against vectors of samples and never packed. ld is an odd
   number of cache lines, so that rows do not fall on each other in the cache. Kernels work on `n` columns, a multiple of the
   vector length. Columns from the batch's size on repeat the last sample in values and are zero in derivatives. */
#define RPI_K_BLOCK 256  /* inner dimension of a product's block: so many rows of B, one panel wide, stay in L1 */
#define RPI_M_BLOCK 96   /* rows of A in a block: its magnitudes are packed and stay in L2 */
#define RPI_PANEL 64     /* columns of a gradient's panel: at least the widest tile's */
#define RPI_POSITIONS 64 /* positions of a shared weight that are summed up at a time: their rows stay in L2 */
#define RPI_ROWS_MOST 8  /* most rows of a tile in registers, of any instruction set */

/* C = bias + A B (bias[i] in row i), and C2 = column + |A| B2 (column[s] in column s) in the same pass over A.
   A[i][p] = a[i * a_row + p * a_column]; B is [k][ldb], C is [m][ldc]. */
typedef struct rpi_product {
    int m, n, k;
    const rp_real *a;
    ptrdiff_t a_row, a_column;
    const rp_real *b, *b2; /* b NULL: only the second product; b2 NULL: only the first */
    rp_real *c, *c2;
    ptrdiff_t ldb, ldc;
    const rp_real *bias, *column; /* NULL: 0 */
    int add;                      /* C += A B, C2 += |A| B2 instead; bias and column are not looked at */
    rp_real *a_packed;            /* scratch: RPI_M_BLOCK * RPI_K_BLOCK, for |A| */
} rpi_product;

/* C = start + A B: A[i][p] = a[i * a_row + p * a_column], row p of B is at b + p * ldb; where the inner index wanders, they are at
   a[i * a_row + a_at[p]] and b + b_at[p]. start: NULL for 0, one value for each row, or rows start_row apart; C itself is added
   to. */
typedef struct rpi_gemm {
    int m, n, k;
    const rp_real *a, *b, *start; /* b may be NULL if k is 0 */
    rp_real *c;
    const ptrdiff_t *a_at, *b_at; /* both NULL: a_column and ldb count */
    ptrdiff_t a_row, a_column, ldb, ldc, start_row;
    int per_row; /* start: one value for each row */
} rpi_gemm;

/* Sums over positions t: out[i * out_row + j] += sum_s sum_t d_i,t[s] y_j,t[s]; with `samples`, each sample's own sum:
   out[(i * out_row + j) * samples + s] += sum_t d_i,t[s] y_j,t[s]. Row i of d is at d + i * d_row + d_at[t], row j of y at
   y[j * positions + t]; |y| with magnitudes. n: columns, of which d is 0 beyond the samples. */
typedef struct rpi_correlation {
    int m, taps, positions, n, magnitudes; /* at most RPI_TAPS_MOST taps, RPI_POSITIONS positions */
    const rp_real *d;
    ptrdiff_t d_row, out_row, samples;
    const ptrdiff_t *d_at;
    const rp_real *const *y;
    rp_real *out;
} rpi_correlation;
#define RPI_TAPS_MOST 4

/* A max pool's window of k rows at x + at[j]: the largest's place decides, for each column, which row of `in` goes to `out`, or
   to which row of d_in d is added (the first of equals). */
typedef struct rpi_window {
    int k, n;
    const ptrdiff_t *at;
    const rp_real *x;
} rpi_window;

/* A finished piece of gradient (times scale) and curvature (times scale2; each may be NULL): `rows` rows, ld apart, of n
   parameters from `offset` on, stride apart. */
typedef struct rpi_piece {
    ptrdiff_t offset, stride, ld;
    int rows, n;
    const rp_real *gradient, *curvature;
    rp_real scale, scale2;
} rpi_piece;

/* Where the pieces go. */
typedef struct rpi_sink rpi_sink;
struct rpi_sink {
    void (*take)(const rpi_sink *sink, const rpi_piece *piece);
    rp_real *parameters, *gradient, *curvature, *first, *second; /* flat */
    const struct rpi_update *update;
};

/* gradient[i][j] = scale sum_s d[i][s] y[j][s], curvature[i][j] = scale2 sum_s v[i][s] |y[j][s]| into the sink, at
   weights + i * n + j; then the sums for y = 1 at biases + i. d or v may be NULL. */
typedef struct rpi_outer {
    int m, n, count, from, end; /* columns from..end - 1; from is a multiple of RPI_PANEL */
    int squares;                /* y^2 in the place of |y| */
    const rp_real *d, *v, *y;
    ptrdiff_t ld;
    rp_real scale, scale2;
    ptrdiff_t weights, biases;
    int bias;
    rp_real *panel; /* scratch: 2 * count * RPI_PANEL */
    rp_real *tile;  /* scratch: 2 * RPI_ROWS_MOST * RPI_PANEL */
    const rpi_sink *sink;
} rpi_outer;

/* An activation over [rows][ld], in place: y holds z and becomes sigma(z); slope (unless NULL) receives sigma'(z), second (unless
   NULL) sigma''(z). With u: second = sigma''(z) u, u = |sigma'(z)| u. *bad (unless NULL) becomes 1 if a z is not finite: seen
   here, by its bits, since an activation may hide it. */
typedef struct rpi_activate {
    rp_activation_kind kind;
    rp_real alpha;
    int rows, n;
    ptrdiff_t ld;
    rp_real *y, *slope, *second, *u;
    int *bad;
} rpi_activate;

/* What a backward activation makes of its d and v (either may be NULL); d = slope d in all. */
typedef enum rpi_flow {
    RPI_BOUND,  /* v = | |slope| v + second d |, with second = sigma'' u: Algorithm 1 */
    RPI_PLAIN,  /* v = slope v: a vector swept like d */
    RPI_FOLDED, /* second = second d, before d changes: for RPI_BENT */
    RPI_BENT    /* v = slope v + second, with second = sigma'' d Rz: a directional derivative of d */
} rpi_flow;

/* A loss over [outputs][ld]: d holds the targets t and becomes the derivative; h (unless NULL) receives the second derivative
   (softmax: sum(t) p, whose sum over the outputs is sum(t); Huber: unless `exact`, that of the least parabola above it); loss[s]
   receives the sample's loss. */
typedef struct rpi_loss_call {
    int outputs, count, exact;
    ptrdiff_t ld;
    rp_real delta;
    const rp_real *y;
    rp_real *d, *h;
    double *loss;
} rpi_loss_call;

/* One step of an optimizer with its constants worked out; the formulas are at rp_optimizer. */
typedef struct rpi_update {
    rp_method method;
    rp_real rate, weight_decay, shrink, momentum, average, damping, beta1, beta2, rho, epsilon, sigma;
    rp_real correct1, correct2; /* 1 / (1 - beta^t): bias correction */
    int nesterov;
} rpi_update;

/* That step of n parameters w, from gradient scale g and curvature scale2 h (NULL if the method needs none), with the method's
   memory (each NULL where it has none): into `to` (0 where it is not finite), or, if that is NULL, taken where the result is
   finite. */
typedef struct rpi_update_call {
    int n;
    rp_real scale, scale2;
    const rp_real *g, *h;
    rp_real *w, *first, *second, *to;
} rpi_update_call;

typedef struct rpi_kernels {
    const char *name;
    int lanes;
    int rows; /* of a tile: the grain in which rows are split */
    void (*gemm)(const rpi_gemm *gemm);
    void (*product)(const rpi_product *product);
    void (*matrix_vector)(const rpi_product *product); /* of one column, and its first product only */
    void (*outer)(const rpi_outer *outer);
    void (*correlate)(const rpi_correlation *correlation);
    void (*window_magnitudes)(const rpi_window *window, rp_real *out); /* out[s] = sum of the window's |x| */
    void (*select)(const rpi_window *window, const rp_real *in, rp_real *out);
    void (*select_back)(const rpi_window *window, const rp_real *d, rp_real *d_in);
    /* out += scale in; ldi may be 0 */
    void (*add_rows)(int rows, int n, rp_real scale, const rp_real *in, ptrdiff_t ldi, rp_real *out, ptrdiff_t ldo);
    /* out[columns][ldo] = in[rows][ldi] transposed; columns of out from `rows` to `n` repeat the last */
    void (*transpose)(const rp_real *in, ptrdiff_t ldi, int rows, int columns, rp_real *out, ptrdiff_t ldo, int n);
    /* out[s] = sum_i |in[i][s]|, or of the squares */
    void (*column_sums)(int rows, int n, const rp_real *in, ptrdiff_t ld, rp_real *out, int squares);
    /* x[i][s] = factor[i * stride + s] x[i][s], or |x[i][s]| if magnitudes */
    void (*weigh)(int rows, int n, rp_real *x, ptrdiff_t ld, const rp_real *factor, ptrdiff_t stride, int magnitudes);
    void (*signs)(int rows, int n, const rp_real *h, rp_real *e, ptrdiff_t ld,
                  uint64_t *random); /* e = sqrt(h) or -sqrt(h), at random */
    rpi_int (*peak)(int rows, int n, const rp_real *in,
                    ptrdiff_t ld); /* largest |x| as bits: RPI_EXPONENT or more if not finite */
    void (*activate)(const rpi_activate *activate);
    void (*activate_back)(const rpi_activate *activate, rp_real *d, rp_real *v, rpi_flow flow);
    /* a derivative t of z along a direction becomes that of sigma(z): t = slope t; before: half the second derivative t2 =
       slope t2 + second t^2 / 2, or bend = second t. t2 and bend may be NULL, and second where it is always 0 */
    void (*activate_tangent)(const rpi_activate *activate, rp_real *t, rp_real *t2, rp_real *bend);
    void (*loss[RP_POISSON + 1])(const rpi_loss_call *call); /* one for each rp_loss_kind */
    void (*update)(const rpi_update *update, const rpi_update_call *call);
    void (*move)(int n, rp_real alpha, const rp_real *step,
                 rp_real *w); /* w += alpha step, where the result is finite */
    double (*dot)(ptrdiff_t n, const rp_real *a, const rp_real *b);
    void (*blend)(ptrdiff_t n, rp_real a, const rp_real *x, const rp_real *f, rp_real b,
                  rp_real *y); /* y = a f x + b y; f NULL: 1 */
    /* for rpi_sink: train on the piece (with the sink's curvature, if it has one), keep it, or add it up */
    void (*take_step)(const rpi_sink *sink, const rpi_piece *piece);
    void (*take_arrays)(const rpi_sink *sink, const rpi_piece *piece);
    void (*take_sum)(const rpi_sink *sink, const rpi_piece *piece);
} rpi_kernels;

#define RPI_JOIN2(a, b) a##_##b
#define RPI_JOIN(a, b) RPI_JOIN2(a, b)
#define RPI_FN(name) RPI_JOIN(RPI_JOIN(rpi, RPI_PASS), name)
#ifdef RPI_VECTORS
#define RPI_NOINLINE static __attribute__((noinline, unused))
#else
#define RPI_NOINLINE static
#endif

#define RPI_PASS portable
#define RPI_ISA_NAME "portable"
#define RPI_VECTOR_BYTES 16
#include RP_SELF_FILE
#undef RPI_PASS
#undef RPI_ISA_NAME
#undef RPI_VECTOR_BYTES

#ifdef RPI_X86
#define RPI_PASS avx2
#define RPI_ISA_NAME "avx2"
#define RPI_VECTOR_BYTES 32
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#include RP_SELF_FILE
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef RPI_PASS
#undef RPI_ISA_NAME
#undef RPI_VECTOR_BYTES

#define RPI_PASS avx512
#define RPI_ISA_NAME "avx512"
#define RPI_VECTOR_BYTES 64
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx2,fma")
#endif
#include RP_SELF_FILE
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef RPI_PASS
#undef RPI_ISA_NAME
#undef RPI_VECTOR_BYTES
#endif

#ifdef RPI_NEON
#define RPI_PASS neon
#define RPI_ISA_NAME "neon"
#define RPI_VECTOR_BYTES 16
#define RPI_NEON_PASS
#include RP_SELF_FILE
#undef RPI_PASS
#undef RPI_ISA_NAME
#undef RPI_VECTOR_BYTES
#undef RPI_NEON_PASS
#endif

static const char *const rpi_isa_names[] = {"auto", "portable", "avx2", "avx512",
                                            "neon"}; /* in the order of rp_isa_kind */

/* >>isa
   A set is taken only if the processor has every extension that its pass is compiled for, and the system saves its registers. */
#ifdef RPI_X86
#include <cpuid.h>
static uint64_t rpi_saved_registers(void) { /* XCR0 */
    uint32_t low, high;
    __asm__ volatile(".byte 0x0f, 0x01, 0xd0"
                     : "=a"(low), "=d"(high)
                     : "c"(0)); /* xgetbv, which old assemblers do not know */
    return (uint64_t)high << 32 | low;
}
static rp_isa_kind rpi_best_isa(void) {
    enum { FMA = 1 << 12, OSXSAVE = 1 << 27, AVX = 1 << 28, AVX2 = 1 << 5, AVX512F = 1 << 16 };
    unsigned a, b, c, d, first;
    uint64_t saved;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return RP_ISA_PORTABLE;
    first = c;
    if ((first & (FMA | OSXSAVE | AVX)) != (FMA | OSXSAVE | AVX) || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return RP_ISA_PORTABLE;
    saved = rpi_saved_registers();
    if ((saved & 6) != 6 || !(b & AVX2)) return RP_ISA_PORTABLE; /* SSE and AVX state */
    return (saved & 0xE6) == 0xE6 && (b & AVX512F) ? RP_ISA_AVX512
                                                   : RP_ISA_AVX2; /* and masks and both halves of the ZMM registers */
}
#elif defined(RPI_NEON)
static rp_isa_kind rpi_best_isa(void) { return RP_ISA_NEON; }
#else
static rp_isa_kind rpi_best_isa(void) { return RP_ISA_PORTABLE; }
#endif

/* AUTO becomes what the environment's RP_ISA names, or the best. Returns whether this build and machine have it. */
static int rpi_resolve_isa(rp_isa_kind *isa) {
    rp_isa_kind best = rpi_best_isa();
#if !defined(RP_NO_ENVIRONMENT) && (defined(RPI_X86) || defined(RPI_NEON)) /* where there is a choice */
    const char *wanted = *isa == RP_ISA_AUTO ? getenv("RP_ISA") : NULL;
    for (int i = RP_ISA_AUTO; wanted && i <= RP_ISA_NEON; i++)
        if (!strcmp(wanted, rpi_isa_names[i])) {
            *isa = (rp_isa_kind)i;
            wanted = NULL;
        }
    if (wanted && *wanted) return 0;
#endif
    if (*isa == RP_ISA_AUTO) *isa = best;
    return *isa == RP_ISA_PORTABLE || *isa == best || (*isa == RP_ISA_AVX2 && best == RP_ISA_AVX512);
}

static const rpi_kernels *rpi_kernels_of(rp_isa_kind isa) {
#ifdef RPI_X86
    if (isa == RP_ISA_AVX512) return &rpi_avx512_kernels;
    if (isa == RP_ISA_AVX2) return &rpi_avx2_kernels;
#endif
#ifdef RPI_NEON
    if (isa == RP_ISA_NEON) return &rpi_neon_kernels;
#endif
    (void)isa;
    return &rpi_portable_kernels;
}

/* >>team
   A team of threads that belongs to a net: the caller and its helpers do the parts of one piece of work. Parts are chosen so
   that no sum is split between two of them; the bits do not depend on their number. */
#ifndef RPI_GRAIN /* tests make it smaller */
#define RPI_GRAIN \
    (1 \
     << 20) /* multiply-adds that are worth a part of their own: some 20 us on one AVX-512 core; waking takes 2 to 5 */
#endif
typedef void (*rpi_work)(const void *context, int part, int parts);

#ifdef RP_THREADS
#if defined(_WIN32)
#include <windows.h>
typedef HANDLE rpi_thread;
typedef CRITICAL_SECTION rpi_mutex;
typedef CONDITION_VARIABLE rpi_condition;
#define RPI_THREAD_RESULT DWORD WINAPI
#define rpi_mutex_init(m) InitializeCriticalSection(m)
#define rpi_mutex_free(m) DeleteCriticalSection(m)
#define rpi_lock(m) EnterCriticalSection(m)
#define rpi_unlock(m) LeaveCriticalSection(m)
#define rpi_condition_init(c) InitializeConditionVariable(c)
#define rpi_condition_free(c) ((void)(c))
#define rpi_wait(c, m) SleepConditionVariableCS(c, m, INFINITE)
#define rpi_wake_all(c) WakeAllConditionVariable(c)
#define rpi_yield() SwitchToThread()
#define rpi_thread_new(t, f, x) ((*(t) = CreateThread(NULL, 0, f, x, 0, NULL)) != NULL)
#define rpi_thread_join(t) (WaitForSingleObject(t, INFINITE), CloseHandle(t))
#else
#include <pthread.h>
#include <sched.h>
typedef pthread_t rpi_thread;
typedef pthread_mutex_t rpi_mutex;
typedef pthread_cond_t rpi_condition;
#define RPI_THREAD_RESULT void *
#define rpi_mutex_init(m) pthread_mutex_init(m, NULL)
#define rpi_mutex_free(m) pthread_mutex_destroy(m)
#define rpi_lock(m) pthread_mutex_lock(m)
#define rpi_unlock(m) pthread_mutex_unlock(m)
#define rpi_condition_init(c) pthread_cond_init(c, NULL)
#define rpi_condition_free(c) pthread_cond_destroy(c)
#define rpi_wait(c, m) pthread_cond_wait(c, m)
#define rpi_wake_all(c) pthread_cond_broadcast(c)
#define rpi_yield() sched_yield()
#define rpi_thread_new(t, f, x) (pthread_create(t, NULL, f, x) == 0)
#define rpi_thread_join(t) pthread_join(t, NULL)
#endif
#if defined(__GNUC__)
#define rpi_get(p) __atomic_load_n(p, __ATOMIC_SEQ_CST)
#define rpi_add(p, x) __atomic_fetch_add(p, x, __ATOMIC_SEQ_CST)
#else
#define rpi_get(p) InterlockedExchangeAdd((volatile LONG *)(p), 0)
#define rpi_add(p, x) InterlockedExchangeAdd((volatile LONG *)(p), x)
#endif
#define RPI_SPINS 4000 /* looks before a waiting helper sleeps: some 20 us, longer than most gaps within a step */

typedef struct rpi_team rpi_team;
typedef struct rpi_helper {
    rpi_team *team;
    int part;
    rpi_thread thread;
} rpi_helper;
struct rpi_team {
    int size, started; /* threads with the caller; helpers that run */
    rpi_work work;     /* NULL: helpers are to end */
    const void *context;
    int parts;
    int round, busy, asleep; /* atomic: pieces of work given out; helpers at work; helpers asleep */
    rpi_mutex mutex;
    rpi_condition condition;
    rpi_helper *helpers;
};

static RPI_THREAD_RESULT rpi_help(void *argument) {
    rpi_helper *helper = (rpi_helper *)argument;
    rpi_team *team = helper->team;
    for (int seen = 0;;) {
        for (int spin = 0; spin < RPI_SPINS && rpi_get(&team->round) == seen; spin++)
            if (spin % 64 == 63) rpi_yield();
        if (rpi_get(&team->round) == seen) {
            rpi_lock(&team->mutex);
            rpi_add(&team->asleep, 1);
            while (rpi_get(&team->round) == seen) rpi_wait(&team->condition, &team->mutex);
            rpi_add(&team->asleep, -1);
            rpi_unlock(&team->mutex);
        }
        seen++;
        if (!team->work) return 0;
        if (helper->part < team->parts) team->work(team->context, helper->part, team->parts);
        rpi_add(&team->busy, -1);
    }
}

static void rpi_call(rpi_team *team, int parts, rpi_work work, const void *context) {
    team->work = work;
    team->context = context;
    team->parts = parts;
    rpi_add(&team->busy, team->started);
    rpi_add(&team->round, 1);
    if (!rpi_get(&team->asleep)) return;
    rpi_lock(&team->mutex);
    rpi_wake_all(&team->condition);
    rpi_unlock(&team->mutex);
}

static void rpi_share(rpi_team *team, int parts, rpi_work work, const void *context) {
    if (!team || parts < 2) {
        work(context, 0, 1);
        return;
    }
    rpi_call(team, parts, work, context);
    work(context, 0, parts);
    for (int spin = 1; rpi_get(&team->busy); spin++)
        if (spin % 64 == 0) rpi_yield();
}

static void rpi_team_free(const rpi_memory *memory, rpi_team *team) {
    if (!team) return;
    rpi_call(team, 0, NULL, NULL);
    for (int i = 0; i < team->started; i++) rpi_thread_join(team->helpers[i].thread);
    rpi_condition_free(&team->condition);
    rpi_mutex_free(&team->mutex);
    memory->release(memory->user, team);
}

static rpi_team *rpi_team_new(const rpi_memory *memory, int size) {
    size_t bytes = sizeof(rpi_team) + (size_t)size * sizeof(rpi_helper);
    rpi_team *team = (rpi_team *)memory->allocate(memory->user, bytes);
    if (!team) return NULL;
    memset(team, 0, bytes);
    team->size = size;
    team->helpers = (rpi_helper *)(team + 1);
    rpi_mutex_init(&team->mutex);
    rpi_condition_init(&team->condition);
    for (; team->started < size - 1; team->started++) {
        rpi_helper *helper = &team->helpers[team->started];
        helper->team = team;
        helper->part = team->started + 1;
        if (rpi_thread_new(&helper->thread, rpi_help, helper)) continue;
        rpi_team_free(memory, team);
        return NULL;
    }
    return team;
}
static int rpi_team_size(const rpi_team *team) { return team ? team->size : 1; }
#else
typedef void rpi_team;
static void rpi_share(rpi_team *team, int parts, rpi_work work, const void *context) {
    (void)team;
    (void)parts;
    work(context, 0, 1);
}
static void rpi_team_free(const rpi_memory *memory, rpi_team *team) {
    (void)memory;
    (void)team;
}
static int rpi_team_size(const rpi_team *team) {
    (void)team;
    return 1;
}
#endif

/* Parts that `work` multiply-adds are worth, at most one for each grain of `extent`. */
static int rpi_parts(const rpi_team *team, double work, int extent, int grain) {
    int most = rpi_team_size(team), grains = (extent + grain - 1) / grain;
    if (work < (double)RPI_GRAIN * most) most = (int)(work / RPI_GRAIN);
    return most < grains ? most : grains;
}

/* Where part `part` of `parts` begins, in whole grains. */
static int rpi_begin(int extent, int grain, int part, int parts) {
    int64_t grains = (extent + grain - 1) / grain, at = grains * part / parts * grain;
    return at < extent ? (int)at : extent;
}

/* >>activations
   Their formulas are in the template: sigma, sigma', sigma''. */
typedef struct rpi_activation {
    const char *name;
    int curved; /* sigma'' is not zero everywhere */
} rpi_activation;
static const rpi_activation rpi_activations[] = {
    /* in the order of rp_activation_kind */
    {"identity", 0}, {"relu", 0}, {"leaky_relu", 0}, {"tanh", 1}, {"sigmoid", 1},
    {"softplus", 1}, {"elu", 1},  {"gelu", 1},       {"silu", 1},
};
#define RPI_ACTIVATIONS ((int)(sizeof rpi_activations / sizeof *rpi_activations))

/* >>losses
   Their formulas are in the template: value, gradient, Hessian. */
typedef struct rpi_loss {
    const char *name;
    int separable; /* the Hessian by the outputs is diagonal */
} rpi_loss;
static const rpi_loss rpi_losses[] = {
    /* in the order of rp_loss_kind */
    {"squared error", 1}, {"softmax cross-entropy", 0}, {"binary cross-entropy", 1},
    {"Huber loss", 1},    {"Poisson loss", 1},
};
#define RPI_LOSSES ((int)(sizeof rpi_losses / sizeof *rpi_losses))

/* >>layers
   A layer is what the user appended. The build lowers layers to a tape of steps; each step is an affine map, then an
   activation in place. A value on the tape is a slot; slot 0 is the input. Several steps may share parameters, and several
   may write parts of one slot. */
typedef enum rpi_kind {
    RPI_ACTIVATION,
    RPI_DENSE,
    RPI_CONV2D,
    RPI_MAX_POOL2D,
    RPI_AVG_POOL2D,
    RPI_RECURRENT,
    RPI_RECURSIVE,
    RPI_ADD
} rpi_kind;

/* A map whose weights serve many positions: position (y, x) of the output reads the window at (y stride - padding,
   x stride - padding) of the input. Rows of a slot: channel c of the input at (y, x) is row c in_channel + y in_y + x in_x.
   A recurrent layer is one, too: its steps are positions, its kernel is 1, and h_(t-1) is read with a padding of 1. */
typedef struct rpi_geometry {
    int filters, channels, groups; /* channels: of one group */
    int kernel_height, kernel_width, stride_height, stride_width, padding_height, padding_width;
    int height, width, out_height, out_width;
    ptrdiff_t in_channel, in_y, in_x, out_filter, out_y, out_x;
    int first; /* position from which outputs are computed: 1 where 0 is a start value */
} rpi_geometry;

typedef struct rpi_layer {
    rpi_kind kind;
    rp_shape in, out;
    int affine, bias, frozen; /* affine: has parameters */
    rp_activation_kind activation;
    rp_real alpha;
    rpi_geometry geometry;
    int units, steps, all_states, source;                /* recurrent, recursive, add */
    int fan_in, draw_fan_in;                             /* for scales; for the first parameters */
    ptrdiff_t weights, weight_count, biases, bias_count; /* offsets from the build on */
    int slot;                                            /* its output */
} rpi_layer;

typedef struct rpi_map rpi_map;
typedef struct rpi_step {
    const rpi_map *map;
    rp_activation_kind activation;
    rp_real alpha;
    int layer;                         /* that has the parameters */
    int inputs, outputs, bias, fan_in; /* inputs, outputs: rows that it reads and writes */
    ptrdiff_t weights, biases;
    int in, out;         /* slots */
    int in_row, out_row; /* where those rows begin in their slots; maps with a geometry begin at row 0 */
    int add;             /* the map adds to what is there */
    int collects;        /* its outer product is that of all steps that share these parameters */
    rpi_geometry geometry;
    int from, end, in_from, in_end; /* positions of output, and of input, that it works on */
} rpi_step;

/* Where a pass over the tape keeps its numbers: a net's own memory, or a workspace. */
typedef struct rpi_buffers {
    const rpi_kernels *kernels;
    int batch;
    ptrdiff_t ld;
    rp_real **y; /* each slot: value */
    rp_real **d; /* each slot: derivative; without training only the last */
    rp_real **v; /* each slot: u on the way forward, then v; in the other rules the swept vector e */
    rp_real **slope,
        **second;        /* each step: sigma' and sigma'' (times u in the paths rule, times d for products), NULL where
                                         they are constant */
    rp_real **r, **bend; /* for products: each slot's derivative along a direction; each step's sigma'' d times it */
    rp_real *a_packed, *panel, *tile; /* for each thread */
    ptrdiff_t *at;                    /* for each thread: two lists of a window's offsets, at_size long */
    ptrdiff_t at_size, threads;
    rp_real *columns, *own; /* for each thread: a row; RPI_TAPS_MOST * 4 rows */
    rp_real *shared;        /* [2][shared_size]: |W|, or gradient and curvature of a shared weight */
    ptrdiff_t shared_size;
    int *bad;              /* for each step and thread: a value before the activation was not finite */
    rp_real *zeros, *ones; /* a row each */
    rp_real *column, *total;
    rpi_team *team; /* NULL: the caller alone */
} rpi_buffers;

/* >>maps
   An affine map's primitives. p: flat parameters, or any other vector in their place. Pointers are to the slots' first rows. */
struct rpi_map {
    /* y = A x + b and, if u2: u2 = own (|x| summed as the weights are, 1 for the bias) + |A| u; u NULL is 0 */
    void (*apply)(const rpi_buffers *b, const rpi_step *step, const rp_real *p, int n, const rp_real *x, rp_real *y,
                  const rp_real *u, rp_real *u2, rp_real own);
    /* d_in = A' d and, if v: v_in = |A|' v, or A' v if plain; d NULL: only that. add: adds to d_in and v_in */
    void (*transposed)(const rpi_buffers *b, const rpi_step *step, const rp_real *p, int n, const rp_real *d,
                       rp_real *d_in, const rp_real *v, rp_real *v_in, int plain, int add);
    /* scale sum_s d x' and scale2 sum_s v |x|' into the sink; d or v may be NULL. With weight[s] the second is
       scale2 sum_s weight[s] |v x'|, or of the squares, of each sample's own sum over positions; v may be overwritten */
    void (*outer)(const rpi_buffers *b, const rpi_step *step, int count, const rp_real *x, const rp_real *d, rp_real *v,
                  const rp_real *weight, int squares, rp_real scale, rp_real scale2, const rpi_sink *sink);
    /* total[s] += c sum_w |dz_s/dw|, or of the squares, for z with dz/dout = e: of each sample's own gradient */
    void (*reach)(const rpi_buffers *b, const rpi_step *step, int n, const rp_real *x, const rp_real *e, rp_real c,
                  int squares, rp_real *total);
};

typedef struct rpi_product_work {
    const rpi_buffers *b;
    rpi_product product;
} rpi_product_work;
typedef struct rpi_outer_work {
    const rpi_buffers *b;
    rpi_outer outer;
} rpi_outer_work;
typedef enum rpi_way { RPI_FORWARD, RPI_BACKWARD, RPI_TANGENT } rpi_way; /* which of the three kernels */
typedef struct rpi_activate_work {
    const rpi_buffers *b;
    rpi_activate activate;
    rpi_way way;
    rpi_flow flow;
    rp_real *d, *v, *bend; /* backward; tangent: t2, t, bend */
} rpi_activate_work;

static int rpi_columns(const rpi_buffers *b, int count) {
    return (count + b->kernels->lanes - 1) / b->kernels->lanes * b->kernels->lanes;
}

/* Every row of `out` becomes `row`, or 0. */
static void rpi_fill_rows(int rows, int n, ptrdiff_t ld, const rp_real *row, rp_real *out) {
    for (int i = 0; i < rows; i++, out += ld) {
        if (row) rpi_copy(out, row, n);
        else rpi_zero(out, n);
    }
}

/* The kernels on a team: each part takes rows of C, columns of the gradient, or rows of units. */
static void rpi_product_part(const void *context, int part, int parts) {
    const rpi_buffers *b = ((const rpi_product_work *)context)->b;
    rpi_product q = ((const rpi_product_work *)context)->product;
    int from = rpi_begin(q.m, b->kernels->rows, part, parts), end = rpi_begin(q.m, b->kernels->rows, part + 1, parts);
    q.m = end - from;
    q.a += from * q.a_row;
    q.a_packed = b->a_packed + (ptrdiff_t)part * RPI_M_BLOCK * RPI_K_BLOCK;
    if (q.b) q.c += from * q.ldc;
    if (q.b2) q.c2 += from * q.ldc;
    if (q.bias) q.bias += from;
    b->kernels->product(&q);
}
static void rpi_product_run(const rpi_buffers *b, const rpi_product *q) {
    rpi_product_work work;
    work.b = b;
    work.product = *q;
    rpi_share(b->team, rpi_parts(b->team, (double)q->m * q->n * q->k, q->m, b->kernels->rows), rpi_product_part, &work);
}

static void rpi_outer_part(const void *context, int part, int parts) {
    const rpi_buffers *b = ((const rpi_outer_work *)context)->b;
    rpi_outer o = ((const rpi_outer_work *)context)->outer;
    o.panel = b->panel + (ptrdiff_t)part * 2 * RPI_PANEL * b->batch;
    o.tile = b->tile + (ptrdiff_t)part * 2 * RPI_PANEL * RPI_ROWS_MOST;
    o.from = rpi_begin(o.n, RPI_PANEL, part, parts);
    o.end = rpi_begin(o.n, RPI_PANEL, part + 1, parts);
    o.bias = o.bias && part == 0;
    b->kernels->outer(&o);
}
static void rpi_outer_run(const rpi_buffers *b, const rpi_outer *o) {
    rpi_outer_work work;
    work.b = b;
    work.outer = *o;
    rpi_share(b->team, rpi_parts(b->team, (double)o->m * o->n * o->count, o->n, RPI_PANEL), rpi_outer_part, &work);
}

static void rpi_activate_part(const void *context, int part, int parts) {
    const rpi_activate_work *work = (const rpi_activate_work *)context;
    rpi_activate a = work->activate;
    int from = rpi_begin(a.rows, 1, part, parts);
    ptrdiff_t at = from * a.ld;
    a.rows = rpi_begin(a.rows, 1, part + 1, parts) - from;
    a.y += at;
    if (a.slope) a.slope += at;
    if (a.second) a.second += at;
    if (a.u) a.u += at;
    if (a.bad) a.bad += part;
    switch (work->way) {
    case RPI_FORWARD: work->b->kernels->activate(&a); break;
    case RPI_BACKWARD:
        work->b->kernels->activate_back(&a, work->d ? work->d + at : NULL, work->v ? work->v + at : NULL, work->flow);
        break;
    case RPI_TANGENT:
        work->b->kernels->activate_tangent(&a, work->v + at, work->d ? work->d + at : NULL,
                                           work->bend ? work->bend + at : NULL);
    }
}
static void rpi_activate_run(const rpi_activate_work *work) {
    double worth =
        32.0 * work->activate.rows * work->activate.n; /* an exponential costs as much as some 32 multiply-adds */
    rpi_share(work->b->team, rpi_parts(work->b->team, worth, work->activate.rows, 1), rpi_activate_part, work);
}

static void rpi_dense_apply(const rpi_buffers *b, const rpi_step *step, const rp_real *p, int n, const rp_real *x,
                            rp_real *y, const rp_real *u, rp_real *u2, rp_real own) {
    rpi_product product;
    memset(&product, 0, sizeof product);
    product.m = step->outputs;
    product.n = n;
    product.k = step->inputs;
    product.a = p + step->weights;
    product.a_row = step->inputs;
    product.a_column = 1;
    product.b = x;
    product.c = y;
    product.b2 = u;
    product.c2 = u2;
    product.ldb = product.ldc = b->ld;
    product.a_packed = b->a_packed;
    product.bias = step->bias ? p + step->biases : NULL;
    product.column = b->column;
    product.add = step->add;
    if (u2) {
        b->kernels->column_sums(step->inputs, n, x, b->ld, b->column, 0);
        for (int s = 0; s < n; s++) b->column[s] = own * (b->column[s] + (rp_real)step->bias);
        if (!u) rpi_fill_rows(step->outputs, n, b->ld, b->column, u2);
    }
    if (b->ld == 1) {
        b->kernels->matrix_vector(&product);
        return;
    }
    rpi_product_run(b, &product);
}

static void rpi_dense_transposed(const rpi_buffers *b, const rpi_step *step, const rp_real *p, int n, const rp_real *d,
                                 rp_real *d_in, const rp_real *v, rp_real *v_in, int plain, int add) {
    rpi_product product;
    memset(&product, 0, sizeof product);
    product.m = step->inputs;
    product.n = n;
    product.k = step->outputs;
    product.a = p + step->weights;
    product.a_row = 1;
    product.a_column = step->inputs;
    product.b = d;
    product.c = d_in;
    product.b2 = v;
    product.c2 = v_in;
    product.add = add;
    product.ldb = product.ldc = b->ld;
    product.a_packed = b->a_packed;
    if (v && plain) {
        product.b2 = NULL;
        if (d) rpi_product_run(b, &product);
        product.b = v;
        product.c = v_in;
    }
    rpi_product_run(b, &product);
}

static void rpi_dense_outer(const rpi_buffers *b, const rpi_step *step, int count, const rp_real *x, const rp_real *d,
                            rp_real *v, const rp_real *weight, int squares, rp_real scale, rp_real scale2,
                            const rpi_sink *sink) {
    rpi_outer outer;
    if (squares) b->kernels->weigh(step->outputs, rpi_columns(b, count), v, b->ld, v, b->ld, 0);
    if (weight) b->kernels->weigh(step->outputs, rpi_columns(b, count), v, b->ld, weight, 0, 1);
    memset(&outer, 0, sizeof outer);
    outer.squares = squares;
    outer.m = step->outputs;
    outer.n = step->inputs;
    outer.count = count;
    outer.d = d;
    outer.v = v;
    outer.y = x;
    outer.ld = b->ld;
    outer.scale = scale;
    outer.scale2 = scale2;
    outer.weights = step->weights;
    outer.biases = step->biases;
    outer.bias = step->bias;
    outer.panel = b->panel;
    outer.tile = b->tile;
    outer.sink = sink;
    rpi_outer_run(b, &outer);
}

static void rpi_dense_reach(const rpi_buffers *b, const rpi_step *step, int n, const rp_real *x, const rp_real *e,
                            rp_real c, int squares, rp_real *total) {
    rp_real *from = b->column, *to = b->column + b->ld;
    b->kernels->column_sums(step->inputs, n, x, b->ld, from, squares);
    b->kernels->column_sums(step->outputs, n, e, b->ld, to, squares);
    for (int s = 0; s < n; s++) total[s] += c * to[s] * (from[s] + (rp_real)step->bias);
}

/* What a step needs of the scratch in rpi_buffers. */
static void rpi_scratch_of(const rpi_step *step, ptrdiff_t *at_size, ptrdiff_t *shared_size) {
    const rpi_geometry *g = &step->geometry;
    ptrdiff_t window = (ptrdiff_t)g->kernel_height * g->kernel_width, taps = window * g->channels, most = RPI_POSITIONS;
    if (!g->filters) return;
    if (most < taps) most = taps;
    if (most < window * (g->filters / g->groups)) most = window * (g->filters / g->groups);
    if (*at_size < most) *at_size = most;
    if (*shared_size < (taps + 1) * g->filters) *shared_size = (taps + 1) * g->filters;
}

/* Maps with a geometry. Offsets into A (weights of one filter) and B (rows of the group's channels) of the window at a position;
   returns how many of its taps lie inside the input. */
static int rpi_window_taps(const rpi_geometry *g, int position, ptrdiff_t ld, ptrdiff_t *a_at, ptrdiff_t *b_at) {
    int y = position / g->out_width * g->stride_height - g->padding_height,
        x = position % g->out_width * g->stride_width - g->padding_width, k = 0;
    for (int c = 0; c < g->channels; c++)
        for (int i = 0; i < g->kernel_height; i++)
            for (int j = 0; j < g->kernel_width; j++) {
                if (y + i < 0 || y + i >= g->height || x + j < 0 || x + j >= g->width) continue;
                a_at[k] = (c * g->kernel_height + i) * g->kernel_width + j;
                b_at[k++] = (c * g->in_channel + (y + i) * g->in_y + (x + j) * g->in_x) * ld;
            }
    return k;
}

/* The other way: the outputs in from..end - 1 whose windows cover an input position, for each of a group's filters. */
static int rpi_covering_taps(const rpi_step *step, int position, ptrdiff_t ld, ptrdiff_t *a_at, ptrdiff_t *b_at) {
    const rpi_geometry *g = &step->geometry;
    int y = position / g->width + g->padding_height, x = position % g->width + g->padding_width, k = 0;
    ptrdiff_t window = (ptrdiff_t)g->kernel_height * g->kernel_width;
    for (int i = 0; i < g->kernel_height && i <= y; i++) {
        int row = (y - i) / g->stride_height;
        if ((y - i) % g->stride_height || row >= g->out_height) continue;
        for (int j = 0; j < g->kernel_width && j <= x; j++) {
            int column = (x - j) / g->stride_width, output = row * g->out_width + column;
            if ((x - j) % g->stride_width || column >= g->out_width || output < step->from || output >= step->end)
                continue;
            for (int f = 0; f < g->filters / g->groups; f++) {
                a_at[k] = (ptrdiff_t)f * g->channels * window + (ptrdiff_t)i * g->kernel_width + j;
                b_at[k++] = (f * g->out_filter + row * g->out_y + column * g->out_x) * ld;
            }
        }
    }
    return k;
}

typedef struct rpi_shared_work {
    const rpi_buffers *b;
    const rpi_step *step;
    const rp_real *weights, *bias, *x, *u, *d, *v;
    rp_real *y, *u2, *d_in, *v_in;
    rp_real own;
    int n, plain, add;
} rpi_shared_work;

/* |W| into the shared scratch. */
static const rp_real *rpi_shared_magnitudes(const rpi_buffers *b, const rpi_step *step, const rp_real *weights) {
    const rpi_geometry *g = &step->geometry;
    ptrdiff_t count = (ptrdiff_t)g->filters * g->channels * g->kernel_height * g->kernel_width;
    ptrdiff_t whole = count / RPI_LINE_REALS * RPI_LINE_REALS;
    for (ptrdiff_t at = 0; at < whole; at += RPI_LARGEST)
        b->kernels->column_sums(1, whole - at < RPI_LARGEST ? (int)(whole - at) : RPI_LARGEST, weights + at, 0,
                                b->shared + at, 0);
    for (ptrdiff_t at = whole; at < count; at++) b->shared[at] = RPI_MATH(fabs)(weights[at]);
    return b->shared;
}

static void rpi_shared_apply_part(const void *context, int part, int parts) {
    const rpi_shared_work *w = (const rpi_shared_work *)context;
    const rpi_buffers *b = w->b;
    const rpi_step *step = w->step;
    const rpi_geometry *g = &step->geometry;
    ptrdiff_t *a_at = b->at + (ptrdiff_t)part * 2 * b->at_size, *b_at = a_at + b->at_size,
              taps = (ptrdiff_t)g->channels * g->kernel_height * g->kernel_width;
    rp_real *column = b->columns + part * b->ld;
    int m = g->filters / g->groups, count = step->end - step->from;
    for (int t = step->from + rpi_begin(count, 1, part, parts); t < step->from + rpi_begin(count, 1, part + 1, parts);
         t++) {
        int k = rpi_window_taps(g, t, b->ld, a_at, b_at);
        ptrdiff_t row = (t / g->out_width) * g->out_y + (t % g->out_width) * g->out_x;
        for (int group = 0; group < g->groups; group++) {
            ptrdiff_t first = (ptrdiff_t)group * m, from = (ptrdiff_t)group * g->channels * g->in_channel * b->ld;
            ptrdiff_t to = (first * g->out_filter + row) * b->ld;
            rpi_gemm q;
            rpi_window window;
            q.m = m;
            q.n = w->n;
            q.k = k;
            q.a = w->weights + first * taps;
            q.a_row = taps;
            q.a_at = a_at;
            q.b_at = b_at;
            q.b = w->x + from;
            q.c = w->y + to;
            q.ldc = q.start_row = g->out_filter * b->ld;
            q.per_row = !step->add && w->bias;
            q.start = step->add ? q.c : w->bias ? w->bias + first : NULL;
            b->kernels->gemm(&q);
            if (!w->u2) continue;
            window.k = k;
            window.n = w->n;
            window.at = b_at;
            window.x = w->x + from;
            b->kernels->window_magnitudes(&window, column);
            for (int s = 0; s < w->n; s++) column[s] = w->own * (column[s] + (w->bias ? 1 : 0));
            q.c = w->u2 + to;
            q.per_row = 0;
            q.start = column;
            q.start_row = 0;
            if (step->add) {
                b->kernels->add_rows(m, w->n, 1, column, 0, q.c, q.ldc);
                q.start = q.c;
                q.start_row = q.ldc;
            }
            q.a = b->shared + first * taps;
            q.b = w->u ? w->u + from : NULL;
            q.k = w->u ? k : 0;
            b->kernels->gemm(&q);
        }
    }
}

static double rpi_shared_worth(const rpi_step *step, int positions, int n) {
    const rpi_geometry *g = &step->geometry;
    return (double)positions * n * g->filters * g->channels * g->kernel_height * g->kernel_width;
}

static void rpi_shared_apply(const rpi_buffers *b, const rpi_step *step, const rp_real *p, int n, const rp_real *x,
                             rp_real *y, const rp_real *u, rp_real *u2, rp_real own) {
    rpi_shared_work w;
    int positions = step->end - step->from;
    memset(&w, 0, sizeof w);
    w.b = b;
    w.step = step;
    w.weights = p + step->weights;
    w.bias = step->bias ? p + step->biases : NULL;
    w.x = x;
    w.y = y;
    w.u = u;
    w.u2 = u2;
    w.own = own;
    w.n = n;
    if (u) rpi_shared_magnitudes(b, step, w.weights);
    rpi_share(b->team, rpi_parts(b->team, rpi_shared_worth(step, positions, n), positions, 1), rpi_shared_apply_part,
              &w);
}

static void rpi_shared_transposed_part(const void *context, int part, int parts) {
    const rpi_shared_work *w = (const rpi_shared_work *)context;
    const rpi_buffers *b = w->b;
    const rpi_step *step = w->step;
    const rpi_geometry *g = &step->geometry;
    ptrdiff_t *a_at = b->at + (ptrdiff_t)part * 2 * b->at_size, *b_at = a_at + b->at_size,
              window = (ptrdiff_t)g->kernel_height * g->kernel_width;
    int count = step->in_end - step->in_from;
    for (int t = step->in_from + rpi_begin(count, 1, part, parts);
         t < step->in_from + rpi_begin(count, 1, part + 1, parts); t++) {
        int k = rpi_covering_taps(step, t, b->ld, a_at, b_at);
        ptrdiff_t row = (t / g->width) * g->in_y + (t % g->width) * g->in_x;
        for (int group = 0; group < g->groups; group++) {
            ptrdiff_t first = (ptrdiff_t)group * (g->filters / g->groups), weights = first * g->channels * window;
            ptrdiff_t from = first * g->out_filter * b->ld,
                      to = ((ptrdiff_t)group * g->channels * g->in_channel + row) * b->ld;
            rpi_gemm q;
            q.m = g->channels;
            q.n = w->n;
            q.k = k;
            q.a_row = window;
            q.a_at = a_at;
            q.b_at = b_at;
            q.per_row = 0;
            q.ldc = q.start_row = g->in_channel * b->ld;
            if (w->d) {
                q.a = w->weights + weights;
                q.b = w->d + from;
                q.c = w->d_in + to;
                q.start = w->add ? q.c : NULL;
                b->kernels->gemm(&q);
            }
            if (w->v) {
                q.a = (w->plain ? w->weights : b->shared) + weights;
                q.b = w->v + from;
                q.c = w->v_in + to;
                q.start = w->add ? q.c : NULL;
                b->kernels->gemm(&q);
            }
        }
    }
}

static void rpi_shared_transposed(const rpi_buffers *b, const rpi_step *step, const rp_real *p, int n, const rp_real *d,
                                  rp_real *d_in, const rp_real *v, rp_real *v_in, int plain, int add) {
    rpi_shared_work w;
    memset(&w, 0, sizeof w);
    w.b = b;
    w.step = step;
    w.weights = p + step->weights;
    w.d = d;
    w.d_in = d_in;
    w.v = v;
    w.v_in = v_in;
    w.n = n;
    w.plain = plain;
    w.add = add;
    if (v && !plain) rpi_shared_magnitudes(b, step, w.weights);
    rpi_share(b->team,
              rpi_parts(b->team, rpi_shared_worth(step, step->end - step->from, n), step->in_end - step->in_from, 1),
              rpi_shared_transposed_part, &w);
}

/* Sums over positions of d and v with the windows of x. Taps are numbered as the weights of one filter; the one behind the last
   is the bias, whose input is 1. */
typedef struct rpi_taps_work {
    const rpi_buffers *b;
    const rpi_step *step;
    const rp_real *x, *d, *v, *weight; /* weight: v by each sample's own sums */
    rp_real *total, c;                 /* or those sums' magnitudes into total (reach) */
    int n, squares;                    /* squares of those sums in the place of magnitudes */
} rpi_taps_work;

/* Pointers to the rows that taps j..j + count - 1 of a group read at `positions` positions from t on: [count][positions]. */
static void rpi_tap_rows(const rpi_taps_work *w, int group, int j, int count, int t, int positions,
                         const rp_real **rows) {
    const rpi_geometry *g = &w->step->geometry;
    const rpi_buffers *b = w->b;
    const rp_real *x = w->x + (ptrdiff_t)group * g->channels * g->in_channel * b->ld;
    int window = (ptrdiff_t)g->kernel_height * g->kernel_width;
    for (int tap = j; tap < j + count; tap++)
        for (int p = t; p < t + positions; p++) {
            int row = p / g->out_width * g->stride_height - g->padding_height + tap % window / g->kernel_width;
            int column = p % g->out_width * g->stride_width - g->padding_width + tap % g->kernel_width;
            int inside = row >= 0 && row < g->height && column >= 0 && column < g->width;
            ptrdiff_t at = (tap / window) * g->in_channel + row * g->in_y + column * g->in_x;
            *rows++ = tap == window * g->channels ? b->ones : inside ? x + at * b->ld : b->zeros;
        }
}

static void rpi_position_rows(const rpi_geometry *g, int t, int positions, ptrdiff_t ld, ptrdiff_t *at) {
    for (int p = t; p < t + positions; p++)
        *at++ = ((p / g->out_width) * g->out_y + (p % g->out_width) * g->out_x) * ld;
}

static int rpi_block_of(int from, int end) { return end - from < RPI_POSITIONS ? end - from : RPI_POSITIONS; }

/* Gradient, and curvature that needs no own sums, into the shared scratch: a block of positions at a time, so that its rows stay
   in the cache for all taps. Each part has taps of its own. */
static void rpi_taps_part(const void *context, int part, int parts) {
    const rpi_taps_work *w = (const rpi_taps_work *)context;
    const rpi_buffers *b = w->b;
    const rpi_geometry *g = &w->step->geometry;
    int weights = g->channels * g->kernel_height * g->kernel_width, taps = weights + w->step->bias,
        m = g->filters / g->groups;
    int from = rpi_begin(taps, RPI_TAPS_MOST, part, parts), end = rpi_begin(taps, RPI_TAPS_MOST, part + 1, parts),
        positions = g->out_height * g->out_width;
    const rp_real *rows[RPI_TAPS_MOST * RPI_POSITIONS];
    ptrdiff_t *at = b->at + (ptrdiff_t)part * 2 * b->at_size;
    for (int group = 0; group < g->groups; group++)
        for (int t = g->first, some; t < positions; t += some) {
            some = rpi_block_of(t, positions);
            rpi_position_rows(g, t, some, b->ld, at);
            for (int j = from; j < end; j += RPI_TAPS_MOST) {
                ptrdiff_t first = (ptrdiff_t)group * m;
                rpi_correlation q;
                q.m = m;
                q.taps = end - j < RPI_TAPS_MOST ? end - j : RPI_TAPS_MOST;
                q.positions = some;
                q.n = w->n;
                q.samples = 0;
                q.d_row = g->out_filter * b->ld;
                q.d_at = at;
                q.y = rows;
                q.out_row = weights + 1;
                rpi_tap_rows(w, group, j, q.taps, t, some, rows);
                q.magnitudes = 0;
                q.d = w->d ? w->d + first * q.d_row : NULL;
                q.out = b->shared + first * q.out_row + j;
                if (w->d) b->kernels->correlate(&q);
                q.magnitudes = 1;
                q.d = w->v ? w->v + first * q.d_row : NULL;
                q.out += b->shared_size;
                if (w->v && !w->weight) b->kernels->correlate(&q);
            }
        }
}

/* Each sample's own sums over positions for four filters by some taps; their magnitudes or squares, weighted, into the shared
   scratch, or into total. */
static void rpi_own_tile(const rpi_taps_work *w, int group, int i, int m, int j, int taps, ptrdiff_t *at) {
    const rpi_buffers *b = w->b;
    const rpi_geometry *g = &w->step->geometry;
    int positions = g->out_height * g->out_width, sums = 4 * RPI_TAPS_MOST;
    ptrdiff_t first = (ptrdiff_t)group * (g->filters / g->groups) + i,
              width = g->channels * g->kernel_height * g->kernel_width + 1;
    const rp_real *rows[RPI_TAPS_MOST * RPI_POSITIONS];
    rp_real results[4 * RPI_TAPS_MOST] = {0};
    rpi_correlation q;
    rpi_fill_rows(sums, w->n, b->ld, NULL, b->own);
    q.m = m;
    q.taps = taps;
    q.n = w->n;
    q.magnitudes = 0;
    q.samples = b->ld;
    q.out = b->own;
    q.out_row = RPI_TAPS_MOST;
    q.d_row = g->out_filter * b->ld;
    q.d = w->v + first * q.d_row;
    q.d_at = at;
    q.y = rows;
    for (int t = g->first; t < positions; t += q.positions) {
        q.positions = rpi_block_of(t, positions);
        rpi_position_rows(g, t, q.positions, b->ld, at);
        rpi_tap_rows(w, group, j, taps, t, q.positions, rows);
        b->kernels->correlate(&q);
    }
    if (w->total) {
        b->kernels->column_sums(sums, w->n, b->own, b->ld, b->columns, w->squares);
        b->kernels->add_rows(1, w->n, w->c, b->columns, 0, w->total, 0);
        return;
    }
    if (w->squares) b->kernels->weigh(sums, w->n, b->own, b->ld, b->own, b->ld, 0);
    for (int r = 0; r < sums; r++) rows[r] = b->own + r * b->ld;
    at[0] = 0;
    q.m = 1;
    q.taps = sums;
    q.positions = 1;
    q.magnitudes = 1;
    q.samples = 0;
    q.d = w->weight;
    q.out = results;
    b->kernels->correlate(&q);
    for (int r = 0; r < m; r++)
        for (int k = 0; k < taps; k++)
            b->shared[b->shared_size + (first + r) * width + (j + k)] = results[r * RPI_TAPS_MOST + k];
}

static void rpi_own_sums(const rpi_taps_work *w) {
    const rpi_geometry *g = &w->step->geometry;
    int taps = g->channels * g->kernel_height * g->kernel_width + w->step->bias, m = g->filters / g->groups;
    for (int group = 0; group < g->groups; group++)
        for (int i = 0; i < m; i += 4)
            for (int j = 0; j < taps; j += RPI_TAPS_MOST)
                rpi_own_tile(w, group, i, m - i < 4 ? m - i : 4, j, taps - j < RPI_TAPS_MOST ? taps - j : RPI_TAPS_MOST,
                             w->b->at);
}

static void rpi_shared_outer(const rpi_buffers *b, const rpi_step *step, int count, const rp_real *x, const rp_real *d,
                             rp_real *v, const rp_real *weight, int squares, rp_real scale, rp_real scale2,
                             const rpi_sink *sink) {
    const rpi_geometry *g = &step->geometry;
    int weights = g->channels * g->kernel_height * g->kernel_width;
    rpi_taps_work w;
    rpi_piece piece;
    memset(&w, 0, sizeof w);
    w.b = b;
    w.step = step;
    w.x = x;
    w.d = d;
    w.v = v;
    w.weight = weight;
    w.squares = squares;
    w.n = rpi_columns(b, count);
    rpi_zero(b->shared, 2 * b->shared_size);
    rpi_share(b->team,
              rpi_parts(b->team, rpi_shared_worth(step, g->out_height * g->out_width, w.n), weights + step->bias,
                        RPI_TAPS_MOST),
              rpi_taps_part, &w);
    if (v && weight) rpi_own_sums(&w);
    piece.rows = g->filters;
    piece.n = weights;
    piece.ld = weights + 1;
    piece.stride = weights;
    piece.offset = step->weights;
    piece.gradient = d ? b->shared : NULL;
    piece.curvature = v ? b->shared + b->shared_size : NULL;
    piece.scale = scale;
    piece.scale2 = scale2;
    sink->take(sink, &piece);
    if (!step->bias) return;
    piece.n = 1;
    piece.stride = 1;
    piece.offset = step->biases;
    if (d) piece.gradient += weights;
    if (v) piece.curvature += weights;
    sink->take(sink, &piece);
}

static void rpi_shared_reach(const rpi_buffers *b, const rpi_step *step, int n, const rp_real *x, const rp_real *e,
                             rp_real c, int squares, rp_real *total) {
    rpi_taps_work w;
    memset(&w, 0, sizeof w);
    w.b = b;
    w.step = step;
    w.x = x;
    w.v = e;
    w.total = total;
    w.c = c;
    w.squares = squares;
    w.n = n;
    rpi_own_sums(&w);
}

/* Maps without parameters. A copy of some rows of one slot to some rows of another: */
static void rpi_copy_rows(const rpi_buffers *b, int rows, int n, const rp_real *in, rp_real *out, int add) {
    if (b->ld == 1) {
        n = rows;
        rows = 1;
    } /* one sample: its units are contiguous */
    if (add) b->kernels->add_rows(rows, n, 1, in, b->ld, out, b->ld);
    for (int i = 0; i < rows && !add; i++) rpi_copy(out + i * b->ld, in + i * b->ld, n);
}

static void rpi_copy_apply(const rpi_buffers *b, const rpi_step *step, const rp_real *p, int n, const rp_real *x,
                           rp_real *y, const rp_real *u, rp_real *u2, rp_real own) {
    ptrdiff_t in = step->in_row * b->ld, out = step->out_row * b->ld;
    (void)p;
    (void)own;
    rpi_copy_rows(b, step->outputs, n, x + in, y + out, step->add);
    if (u2 && u) rpi_copy_rows(b, step->outputs, n, u + in, u2 + out, step->add);
    else if (u2 && !step->add) rpi_fill_rows(step->outputs, n, b->ld, NULL, u2 + out);
}

static void rpi_copy_transposed(const rpi_buffers *b, const rpi_step *step, const rp_real *p, int n, const rp_real *d,
                                rp_real *d_in, const rp_real *v, rp_real *v_in, int plain, int add) {
    ptrdiff_t in = step->in_row * b->ld, out = step->out_row * b->ld;
    (void)p;
    (void)plain;
    if (d) rpi_copy_rows(b, step->outputs, n, d + out, d_in + in, add);
    if (v) rpi_copy_rows(b, step->outputs, n, v + out, v_in + in, add);
}

/* Pools: the window of channel c begins at channel c's rows. The routes of a max pool follow the values in its input slot, whatever
   is sent along them. */
typedef void (*rpi_pool_window)(const rpi_buffers *b, const rpi_window *window, ptrdiff_t from, ptrdiff_t to,
                                const rp_real *in, rp_real *out);

static void rpi_pool(const rpi_buffers *b, const rpi_step *step, int n, const rp_real *in, rp_real *out,
                     rpi_pool_window each) {
    const rpi_geometry *g = &step->geometry;
    rpi_window window;
    window.n = n;
    window.at = b->at;
    for (int t = 0; t < step->end; t++) {
        window.k = rpi_window_taps(g, t, b->ld, b->at + b->at_size, b->at);
        for (int c = 0; c < g->filters; c++) {
            ptrdiff_t from = c * g->in_channel * b->ld;
            window.x = b->y[step->in] + from;
            each(b, &window, from, (c * g->out_filter + t) * b->ld, in, out);
        }
    }
}

static void rpi_max_window(const rpi_buffers *b, const rpi_window *window, ptrdiff_t from, ptrdiff_t to,
                           const rp_real *in, rp_real *out) {
    b->kernels->select(window, in + from, out + to);
}
static void rpi_max_window_back(const rpi_buffers *b, const rpi_window *window, ptrdiff_t from, ptrdiff_t to,
                                const rp_real *in, rp_real *out) {
    b->kernels->select_back(window, in + to, out + from);
}
static void rpi_avg_window(const rpi_buffers *b, const rpi_window *window, ptrdiff_t from, ptrdiff_t to,
                           const rp_real *in, rp_real *out) {
    rpi_zero(out + to, window->n);
    for (int j = 0; j < window->k; j++)
        b->kernels->add_rows(1, window->n, 1 / (rp_real)window->k, in + from + window->at[j], 0, out + to, 0);
}
static void rpi_avg_window_back(const rpi_buffers *b, const rpi_window *window, ptrdiff_t from, ptrdiff_t to,
                                const rp_real *in, rp_real *out) {
    for (int j = 0; j < window->k; j++)
        b->kernels->add_rows(1, window->n, 1 / (rp_real)window->k, in + to, 0, out + from + window->at[j], 0);
}

static void rpi_pool_apply(const rpi_buffers *b, const rpi_step *step, int n, const rp_real *x, rp_real *y,
                           const rp_real *u, rp_real *u2, rpi_pool_window each) {
    rpi_pool(b, step, n, x, y, each);
    if (u2 && u) rpi_pool(b, step, n, u, u2, each);
    else if (u2) rpi_fill_rows(step->outputs, n, b->ld, NULL, u2);
}
static void rpi_pool_transposed(const rpi_buffers *b, const rpi_step *step, int n, const rp_real *d, rp_real *d_in,
                                const rp_real *v, rp_real *v_in, int add, rpi_pool_window each) {
    if (d && !add) rpi_fill_rows(step->inputs, n, b->ld, NULL, d_in);
    if (v && !add) rpi_fill_rows(step->inputs, n, b->ld, NULL, v_in);
    if (d) rpi_pool(b, step, n, d, d_in, each);
    if (v) rpi_pool(b, step, n, v, v_in, each);
}

static void rpi_max_apply(const rpi_buffers *b, const rpi_step *step, const rp_real *p, int n, const rp_real *x,
                          rp_real *y, const rp_real *u, rp_real *u2, rp_real own) {
    (void)p;
    (void)own;
    rpi_pool_apply(b, step, n, x, y, u, u2, rpi_max_window);
}
static void rpi_max_transposed(const rpi_buffers *b, const rpi_step *step, const rp_real *p, int n, const rp_real *d,
                               rp_real *d_in, const rp_real *v, rp_real *v_in, int plain, int add) {
    (void)p;
    (void)plain;
    rpi_pool_transposed(b, step, n, d, d_in, v, v_in, add, rpi_max_window_back);
}
static void rpi_avg_apply(const rpi_buffers *b, const rpi_step *step, const rp_real *p, int n, const rp_real *x,
                          rp_real *y, const rp_real *u, rp_real *u2, rp_real own) {
    (void)p;
    (void)own;
    rpi_pool_apply(b, step, n, x, y, u, u2, rpi_avg_window);
}
static void rpi_avg_transposed(const rpi_buffers *b, const rpi_step *step, const rp_real *p, int n, const rp_real *d,
                               rp_real *d_in, const rp_real *v, rp_real *v_in, int plain, int add) {
    (void)p;
    (void)plain;
    rpi_pool_transposed(b, step, n, d, d_in, v, v_in, add, rpi_avg_window_back);
}

static const rpi_map rpi_dense_map = {rpi_dense_apply, rpi_dense_transposed, rpi_dense_outer, rpi_dense_reach};
static const rpi_map rpi_shared_map = {rpi_shared_apply, rpi_shared_transposed, rpi_shared_outer, rpi_shared_reach};
static const rpi_map rpi_copy_map = {rpi_copy_apply, rpi_copy_transposed, NULL, NULL};
static const rpi_map rpi_max_pool_map = {rpi_max_apply, rpi_max_transposed, NULL, NULL};
static const rpi_map rpi_avg_pool_map = {rpi_avg_apply, rpi_avg_transposed, NULL, NULL};

/* Scratch for the Hessian's diagonal: in a stack the Hessian of one sample's loss by the units of a layer and two more matrices,
   elsewhere the diagonal as it grows. */
typedef struct rpi_recursion {
    rp_real *s, *left, *turned, *diagonal;
    ptrdiff_t ld;
} rpi_recursion;

struct rp_net {
    rpi_memory memory;
    rp_config config;
    rp_status broken; /* first mistake in the description */
    char error[256];
    rp_shape input, output;
    rpi_layer *layers;
    int layer_count, layer_capacity;
    rp_loss_kind loss;
    rp_real huber_delta;

    int built, batch, inputs, outputs;
    ptrdiff_t parameter_count;
    rpi_block tape, arrays; /* what the build allocates */
    rpi_step *steps;
    int step_count;
    int slot_count;
    int vectors;          /* all maps work on single contiguous vectors too */
    int *slot_rows;       /* each slot: its features */
    int *summed;          /* each slot: several steps send derivatives to it */
    int *live;            /* each slot: parameters below it are trained */
    int *pool;            /* each slot: its buffer when nothing is kept for training */
    ptrdiff_t *pool_rows; /* each such buffer: the features that it must hold */
    int *pool_until;      /* each such buffer: the last step that reads what it holds */
    int pool_count;
    rpi_buffers buffers;
    rp_real *parameters, *gradient, *curvature, *direction;
    rp_real *sums;      /* scratch: the Jacobian rule's curvature, or a product with the Hessian */
    rpi_block tangents; /* buffers.r, buffers.bend, and: */
    rp_real *spare;     /* another scratch vector of parameters */
    int has_gradient, has_curvature, has_direction; /* the array has been filled or zeroed */
    rp_real *h;                                     /* [outputs][ld] second derivatives of the loss */
    rp_real *row_output; /* [batch][outputs] for rp_output; scratch [outputs][ld] of the Jacobian rule */
    double *sample_loss; /* [batch] */
    rp_real *staged_inputs, *staged_targets, *staged_weights;
    int *staged_labels;
    int forward_count; /* samples of the last rp_forward, 0 once another call has used the buffers */

    rpi_block state;
    rp_real *first, *second;
    rp_method method;
    int64_t time;              /* steps that the optimizer has taken */
    rp_real *krylov;           /* Newton's vectors */
    rpi_recursion recursion;   /* of per-variable rates */
    rp_real sigma, sigma_from; /* of a cubic model that adapts, or Newton's lambda; what it began with */
    rp_step last;              /* what the last training step did */
    int stepped;
    uint64_t random;
};

static rp_status rpi_fail(rp_net *net, rp_status status, const char *format, ...) {
    va_list list;
    va_start(list, format);
    rpi_format_list(net->error, sizeof net->error, format, list);
    va_end(list);
    return status;
}

RP_API const char *rp_status_text(rp_status status) {
    switch (status) {
#define RPI_X(name, value, text) \
    case name: return text;
        RP_STATUS_LIST(RPI_X)
#undef RPI_X
    default: return "not a status";
    }
}

RP_API const char *rp_error(const rp_net *net) {
    return net ? net->error : "the net is NULL: rp_net_new found no memory";
}

static int rpi_features(rp_shape shape) { return shape.steps * shape.channels * shape.height * shape.width; }

static rp_shape rpi_shape(rp_shape_kind kind, int steps, int channels, int height, int width) {
    rp_shape shape;
    shape.kind = kind;
    shape.steps = steps;
    shape.channels = channels;
    shape.height = height;
    shape.width = width;
    return shape;
}
RP_API rp_shape rp_vector(int features) { return rpi_shape(RP_SHAPE_VECTOR, 1, features, 1, 1); }
RP_API rp_shape rp_image(int channels, int height, int width) {
    return rpi_shape(RP_SHAPE_IMAGE, 1, channels, height, width);
}
RP_API rp_shape rp_sequence(int steps, int features) { return rpi_shape(RP_SHAPE_SEQUENCE, steps, features, 1, 1); }

static int rpi_shape_valid(rp_shape s) {
    int64_t sizes[4], product = 1;
    sizes[0] = s.steps;
    sizes[1] = s.channels;
    sizes[2] = s.height;
    sizes[3] = s.width;
    for (int i = 0; i < 4; i++) {
        if (sizes[i] < 1 || sizes[i] > RPI_LARGEST) return 0;
        product *= sizes[i];
        if (product > RPI_LARGEST) return 0;
    }
    if (s.kind == RP_SHAPE_IMAGE) return s.steps == 1;
    return (s.kind == RP_SHAPE_VECTOR && s.steps == 1 && s.height == 1 && s.width == 1) ||
           (s.kind == RP_SHAPE_SEQUENCE && s.height == 1 && s.width == 1);
}

static void rpi_put_shape(rpi_text *text, rp_shape s) {
    char buffer[64];
    if (s.kind == RP_SHAPE_IMAGE) rpi_format(buffer, sizeof buffer, "%dx%dx%d", s.channels, s.height, s.width);
    else if (s.kind == RP_SHAPE_SEQUENCE) rpi_format(buffer, sizeof buffer, "%dx%d", s.steps, s.channels);
    else rpi_format(buffer, sizeof buffer, "%d", s.channels);
    rpi_put_string(text, buffer);
}

/* "an image of 3x28x28", ... */
static const char *rpi_shape_text(rp_shape s, char text[64]) {
    static const char *const kinds[] = {"", "a vector of ", "an image of ", "a sequence of "}; /* as rp_shape_kind */
    rpi_text to = {text, 64, 0};
    rpi_put_string(&to, kinds[s.kind]);
    rpi_put_shape(&to, s);
    text[to.length] = 0;
    return text;
}

static const char *rpi_layer_name(const rpi_layer *layer) {
    static const char *const names[] = {NULL,         "dense",     "conv2d",    "max_pool2d",
                                        "avg_pool2d", "recurrent", "recursive", "add"}; /* as rpi_kind */
    return layer->kind == RPI_ACTIVATION ? rpi_activations[layer->activation].name : names[layer->kind];
}

/* >>build
   Describing a net. The first mistake sticks, with its message, until rp_net_build. */
static rp_status rpi_break(rp_net *net, rp_status status) { return net->broken = status; }

static rp_status rpi_may_describe(rp_net *net, const char *who) {
    if (!net) return RP_ERR_NULL;
    if (net->built)
        return rpi_fail(net, RP_ERR_ORDER, "%s: the net is built already; describe it before rp_net_build", who);
    return net->broken;
}

RP_API rp_net *rp_net_new(rp_shape input, const rp_config *config) {
    static const rp_config defaults = {NULL, NULL, NULL, RP_ISA_AUTO, 0, 0};
    rpi_memory memory;
    rp_net *net;
    if (!config) config = &defaults;
    memory.allocate = config->allocate && config->release ? config->allocate : rpi_default_allocate;
    memory.release = config->allocate && config->release ? config->release : rpi_default_release;
    memory.user = config->user;
    net = (rp_net *)memory.allocate(memory.user, sizeof *net);
    if (!net) return NULL;
    memset(net, 0, sizeof *net);
    net->memory = memory;
    net->config = *config;
    net->input = net->output = input;
    net->huber_delta = 1;
    if (!rpi_shape_valid(input))
        rpi_break(
            net,
            rpi_fail(
                net, RP_ERR_VALUE,
                "rp_net_new: the input shape %dx%dx%dx%d (steps, channels, height, width) must come from rp_vector, "
                "rp_image or rp_sequence, with sizes of 1 or more, and at most %d in all",
                input.steps, input.channels, input.height, input.width, RPI_LARGEST));
    else if (!config->allocate != !config->release)
        rpi_break(net, rpi_fail(net, RP_ERR_VALUE,
                                "rp_net_new: config.%s is NULL; set allocate and release both, or neither",
                                config->allocate ? "release" : "allocate"));
    else if ((int)config->isa < 0 || config->isa > RP_ISA_NEON)
        rpi_break(net, rpi_fail(net, RP_ERR_VALUE, "rp_net_new: config.isa is %d, which is no rp_isa_kind",
                                (int)config->isa));
    else if (!rpi_resolve_isa(&net->config.isa))
        rpi_break(net, rpi_fail(net, RP_ERR_UNSUPPORTED,
                                "rp_net_new: the instruction set of config.isa (%s) or of the environment's RP_ISA is "
                                "not known, not in "
                                "this build or not on this machine",
                                rpi_isa_names[net->config.isa]));
    else if (config->threads < 0)
        rpi_break(
            net, rpi_fail(net, RP_ERR_VALUE, "rp_net_new: config.threads is %d; it may be 0 or more", config->threads));
#ifndef RP_THREADS
    else if (config->threads > 1)
        rpi_break(net, rpi_fail(net, RP_ERR_UNSUPPORTED,
                                "rp_net_new: config.threads is %d, but this build has none; define RP_THREADS",
                                config->threads));
#endif
    return net;
}

RP_API void rp_net_free(rp_net *net) {
    rpi_memory memory;
    if (!net) return;
    memory = net->memory;
    rpi_team_free(&memory, net->buffers.team);
    rpi_block_free(&memory, &net->state);
    rpi_block_free(&memory, &net->tangents);
    rpi_block_free(&memory, &net->arrays);
    rpi_block_free(&memory, &net->tape);
    if (net->layers) memory.release(memory.user, net->layers);
    memory.release(memory.user, net);
}

/* A new last layer, all zero but for its input shape; NULL after a failure. */
static rpi_layer *rpi_append(rp_net *net, const char *who) {
    rpi_layer *layer;
    if (net->layer_count == net->layer_capacity) {
        int capacity = net->layer_capacity ? 2 * net->layer_capacity : 16;
        rpi_layer *layers = (rpi_layer *)net->memory.allocate(net->memory.user, (size_t)capacity * sizeof *layers);
        if (!layers) {
            rpi_break(net, rpi_fail(net, RP_ERR_MEMORY, "%s: no memory for layer %d", who, net->layer_count));
            return NULL;
        }
        if (net->layers) {
            memcpy(layers, net->layers, (size_t)net->layer_count * sizeof *layers);
            net->memory.release(net->memory.user, net->layers);
        }
        net->layers = layers;
        net->layer_capacity = capacity;
    }
    layer = &net->layers[net->layer_count];
    memset(layer, 0, sizeof *layer);
    layer->in = layer->out = net->output;
    return layer;
}

static int rpi_appended(rp_net *net, const rpi_layer *layer) {
    net->output = layer->out;
    return net->layer_count++;
}

/* An affine layer with [units][fan_in + fan_back] weights, drawn from +-1/sqrt(fan_back), or fan_in if that is 0. */
static int rpi_appended_affine(rp_net *net, const char *who, rpi_layer *layer, int fan_in, int fan_back, int units) {
    if ((int64_t)units * ((int64_t)fan_in + fan_back) >
        (int64_t)(SIZE_MAX / 64 < INT64_MAX ? SIZE_MAX / 64 : INT64_MAX))
        return rpi_break(net, rpi_fail(net, RP_ERR_OVERFLOW,
                                       "%s: layer %d: %d units with %d inputs have more weights than can be addressed",
                                       who, net->layer_count, units, fan_in));
    layer->affine = layer->bias = 1;
    layer->units = units;
    layer->fan_in = fan_in + fan_back;
    layer->draw_fan_in = fan_back ? fan_back : fan_in;
    layer->weight_count = (ptrdiff_t)units * layer->fan_in;
    layer->bias_count = units;
    return rpi_appended(net, layer);
}

RP_API int rp_dense(rp_net *net, int units) {
    rp_status status = rpi_may_describe(net, "rp_dense");
    rpi_layer *layer;
    if (status) return status;
    if (units < 1 || units > RPI_LARGEST)
        return rpi_break(net, rpi_fail(net, RP_ERR_VALUE, "rp_dense: layer %d: units is %d; it may be 1 to %d",
                                       net->layer_count, units, RPI_LARGEST));
    layer = rpi_append(net, "rp_dense");
    if (!layer) return net->broken;
    layer->kind = RPI_DENSE;
    layer->out = rp_vector(units);
    return rpi_appended_affine(net, "rp_dense", layer, rpi_features(layer->in), 0, units);
}

static void rpi_set_activation(rpi_layer *layer, rp_activation_kind activation) {
    layer->activation = activation;
    layer->alpha = activation == RP_LEAKY_RELU ? (rp_real)0.01 : 1;
}

/* The geometry's output sizes, and the strides of images [channels][height][width]: 1, 0 if no window fits, -1 if the output is too
   large. */
static int rpi_image_geometry(rpi_geometry *g, rp_shape in) {
    int64_t height = (int64_t)in.height + 2 * (int64_t)g->padding_height - g->kernel_height;
    int64_t width = (int64_t)in.width + 2 * (int64_t)g->padding_width - g->kernel_width;
    if (height < 0 || width < 0) return 0;
    height /= g->stride_height;
    width /= g->stride_width;
    g->height = in.height;
    g->width = in.width;
    g->out_height = (int)height + 1;
    g->out_width = (int)width + 1;
    if ((height + 1) * (width + 1) > RPI_LARGEST) return -1;
    g->in_x = g->out_x = 1;
    g->in_y = in.width;
    g->out_y = g->out_width;
    g->in_channel = (ptrdiff_t)in.width * in.height;
    g->out_filter = (ptrdiff_t)g->out_width * g->out_height;
    return 1;
}

/* A layer of images: checks sizes, windows and shapes; NULL after a failure. */
static rpi_layer *rpi_append_image(rp_net *net, const char *who, rpi_kind kind, rpi_geometry g) {
    rpi_layer *layer;
    rp_shape in = net->output;
    int fits;
    const struct {
        const char *name;
        int value, least;
    } fields[] = {{"filters", g.filters, 1},
                  {"kernel height", g.kernel_height, 1},
                  {"kernel width", g.kernel_width, 1},
                  {"stride height", g.stride_height, 1},
                  {"stride width", g.stride_width, 1},
                  {"padding height", g.padding_height, 0},
                  {"padding width", g.padding_width, 0},
                  {"groups", g.groups, 1}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].value < fields[i].least || fields[i].value > RPI_LARGEST) {
            rpi_break(net, rpi_fail(net, RP_ERR_VALUE, "%s: layer %d: %s is %d; it may be %d to %d", who,
                                    net->layer_count, fields[i].name, fields[i].value, fields[i].least, RPI_LARGEST));
            return NULL;
        }
    if (in.kind != RP_SHAPE_IMAGE) {
        char text[64];
        rpi_break(net, rpi_fail(net, RP_ERR_SHAPE, "%s: layer %d: it needs an image, but what comes before gives %s",
                                who, net->layer_count, rpi_shape_text(in, text)));
        return NULL;
    }
    if (g.groups > in.channels || in.channels % g.groups || g.filters % g.groups) {
        rpi_break(net, rpi_fail(net, RP_ERR_SHAPE,
                                "%s: layer %d: groups is %d, which must divide the %d channels and the %d filters", who,
                                net->layer_count, g.groups, in.channels, g.filters));
        return NULL;
    }
    g.channels = in.channels / g.groups;
    fits = rpi_image_geometry(&g, in);
    if (!fits) {
        rpi_break(net,
                  rpi_fail(net, RP_ERR_SHAPE,
                           "%s: layer %d: a window of %dx%d does not fit into the image of %dx%dx%d with padding %dx%d",
                           who, net->layer_count, g.kernel_height, g.kernel_width, in.channels, in.height, in.width,
                           g.padding_height, g.padding_width));
        return NULL;
    }
    if (fits < 0 || !rpi_shape_valid(rp_image(g.filters, g.out_height, g.out_width))) {
        rpi_break(net, rpi_fail(net, RP_ERR_OVERFLOW, "%s: layer %d: its output of %dx%dx%d is too large", who,
                                net->layer_count, g.filters, g.out_height, g.out_width));
        return NULL;
    }
    layer = rpi_append(net, who);
    if (!layer) return NULL;
    layer->kind = kind;
    layer->geometry = g;
    layer->out = rp_image(g.filters, g.out_height, g.out_width);
    return layer;
}

static int rpi_conv2d(rp_net *net, const char *who, const rp_conv2d_desc *desc) {
    rp_status status = rpi_may_describe(net, who);
    rpi_geometry g;
    rpi_layer *layer;
    if (status) return status;
    if (!desc) return rpi_break(net, rpi_fail(net, RP_ERR_NULL, "%s: layer %d: desc is NULL", who, net->layer_count));
    memset(&g, 0, sizeof g);
    g.filters = desc->filters;
    g.kernel_height = desc->kernel_height ? desc->kernel_height : 1;
    g.kernel_width = desc->kernel_width ? desc->kernel_width : 1;
    g.stride_height = desc->stride_height ? desc->stride_height : 1;
    g.stride_width = desc->stride_width ? desc->stride_width : 1;
    g.padding_height = desc->padding_height;
    g.padding_width = desc->padding_width;
    g.groups = desc->groups ? desc->groups : 1;
    layer = rpi_append_image(net, who, RPI_CONV2D, g);
    if (!layer) return net->broken;
    if ((int64_t)g.kernel_height * g.kernel_width > RPI_LARGEST / layer->geometry.channels)
        return rpi_break(net, rpi_fail(net, RP_ERR_OVERFLOW, "%s: layer %d: a window of %dx%dx%d is too large", who,
                                       net->layer_count, layer->geometry.channels, g.kernel_height, g.kernel_width));
    return rpi_appended_affine(net, who, layer, layer->geometry.channels * g.kernel_height * g.kernel_width, 0,
                               g.filters);
}

RP_API int rp_conv2d_with(rp_net *net, const rp_conv2d_desc *desc) { return rpi_conv2d(net, "rp_conv2d_with", desc); }

RP_API int rp_conv2d(rp_net *net, int filters, int kernel, int stride, int padding) {
    rp_conv2d_desc desc;
    rp_status status = rpi_may_describe(net, "rp_conv2d");
    if (status) return status;
    if (kernel < 1 || stride < 1)
        return rpi_break(net,
                         rpi_fail(net, RP_ERR_VALUE, "rp_conv2d: layer %d: %s is %d; it must be 1 or more",
                                  net->layer_count, kernel < 1 ? "kernel" : "stride", kernel < 1 ? kernel : stride));
    if (padding < 0)
        return rpi_break(net, rpi_fail(net, RP_ERR_VALUE, "rp_conv2d: layer %d: padding is %d; it must be 0 or more",
                                       net->layer_count, padding));
    memset(&desc, 0, sizeof desc);
    desc.filters = filters;
    desc.kernel_height = desc.kernel_width = kernel;
    desc.stride_height = desc.stride_width = stride;
    desc.padding_height = desc.padding_width = padding;
    return rpi_conv2d(net, "rp_conv2d", &desc);
}

static int rpi_pool2d(rp_net *net, const char *who, rpi_kind kind, int height, int width, int stride) {
    rp_status status = rpi_may_describe(net, who);
    rpi_geometry g;
    rpi_layer *layer;
    if (status) return status;
    if (height < 1 || stride < 1)
        return rpi_break(net,
                         rpi_fail(net, RP_ERR_VALUE, "%s: layer %d: %s is %d; it must be 1 or more", who,
                                  net->layer_count, height < 1 ? "window" : "stride", height < 1 ? height : stride));
    memset(&g, 0, sizeof g);
    g.filters = g.groups = net->output.channels;
    g.kernel_height = height;
    g.kernel_width = width;
    g.stride_height = g.stride_width = stride;
    layer = rpi_append_image(net, who, kind, g);
    return layer ? rpi_appended(net, layer) : (int)net->broken;
}
RP_API int rp_max_pool2d(rp_net *net, int window, int stride) {
    return rpi_pool2d(net, "rp_max_pool2d", RPI_MAX_POOL2D, window, window, stride);
}
RP_API int rp_avg_pool2d(rp_net *net, int window, int stride) {
    return rpi_pool2d(net, "rp_avg_pool2d", RPI_AVG_POOL2D, window, window, stride);
}
RP_API int rp_global_avg_pool2d(rp_net *net) {
    return rpi_pool2d(net, "rp_global_avg_pool2d", RPI_AVG_POOL2D, net ? net->output.height : 1,
                      net ? net->output.width : 1, 1);
}

static int rpi_known_activation(rp_net *net, const char *who, rp_activation_kind activation) {
    if ((int)activation >= 0 && (int)activation < RPI_ACTIVATIONS) return 1;
    rpi_break(net, rpi_fail(net, RP_ERR_VALUE, "%s: layer %d: %d is no rp_activation_kind", who, net->layer_count,
                            (int)activation));
    return 0;
}

static int rpi_recurrent(rp_net *net, const char *who, const rp_recurrent_desc *desc) {
    rp_status status = rpi_may_describe(net, who);
    rp_shape in, out;
    rpi_layer *layer;
    char text[64];
    if (status) return status;
    if (!desc) return rpi_break(net, rpi_fail(net, RP_ERR_NULL, "%s: layer %d: desc is NULL", who, net->layer_count));
    in = net->output;
    if (in.kind != RP_SHAPE_SEQUENCE)
        return rpi_break(net, rpi_fail(net, RP_ERR_SHAPE,
                                       "%s: layer %d: it needs a sequence, but what comes before gives %s", who,
                                       net->layer_count, rpi_shape_text(in, text)));
    out = rp_sequence(in.steps, desc->units);
    if (!rpi_shape_valid(out))
        return rpi_break(net,
                         rpi_fail(net, RP_ERR_VALUE,
                                  "%s: layer %d: units is %d; it must be 1 or more, and at most %d in all %d steps",
                                  who, net->layer_count, desc->units, RPI_LARGEST, in.steps));
    if (!rpi_known_activation(net, who, desc->activation)) return net->broken;
    layer = rpi_append(net, who);
    if (!layer) return net->broken;
    layer->kind = RPI_RECURRENT;
    layer->steps = in.steps;
    layer->all_states = desc->all_states != 0;
    rpi_set_activation(layer, desc->activation);
    layer->out = desc->all_states ? out : rp_vector(desc->units);
    return rpi_appended_affine(net, who, layer, in.channels, desc->units, desc->units);
}

RP_API int rp_recurrent_with(rp_net *net, const rp_recurrent_desc *desc) {
    return rpi_recurrent(net, "rp_recurrent_with", desc);
}

RP_API int rp_recurrent(rp_net *net, int units, rp_activation_kind activation) {
    rp_recurrent_desc desc;
    desc.units = units;
    desc.activation = activation;
    desc.all_states = 0;
    return rpi_recurrent(net, "rp_recurrent", &desc);
}

RP_API int rp_recursive(rp_net *net, int steps, rp_activation_kind activation) {
    static const char who[] = "rp_recursive";
    rp_status status = rpi_may_describe(net, who);
    rpi_layer *layer;
    int units;
    if (status) return status;
    units = rpi_features(net->output);
    if (steps < 1 || steps >= RPI_LARGEST || (int64_t)units * (steps + 1) > RPI_LARGEST)
        return rpi_break(
            net, rpi_fail(net, RP_ERR_VALUE,
                          "%s: layer %d: steps is %d; it must be 1 or more, and %d units in all steps at most %d", who,
                          net->layer_count, steps, units, RPI_LARGEST));
    if (!rpi_known_activation(net, who, activation)) return net->broken;
    layer = rpi_append(net, who);
    if (!layer) return net->broken;
    layer->kind = RPI_RECURSIVE;
    layer->steps = steps;
    rpi_set_activation(layer, activation);
    layer->out = rp_vector(units);
    return rpi_appended_affine(net, who, layer, units, 0, units);
}

RP_API int rp_add(rp_net *net, int source) {
    rp_status status = rpi_may_describe(net, "rp_add");
    rp_shape other, in;
    rpi_layer *layer;
    if (status) return status;
    if (source < RP_INPUT || source >= net->layer_count)
        return rpi_break(net, rpi_fail(net, RP_ERR_VALUE,
                                       "rp_add: layer %d: the layer to add is %d; it may be RP_INPUT or 0 to %d",
                                       net->layer_count, source, net->layer_count - 1));
    in = net->output;
    other = source == RP_INPUT ? net->input : net->layers[source].out;
    if (in.kind != other.kind || in.steps != other.steps || in.channels != other.channels ||
        in.height != other.height || in.width != other.width) {
        char one[64], two[64], name[32] = "the input";
        if (source != RP_INPUT) rpi_format(name, sizeof name, "layer %d", source);
        return rpi_break(net,
                         rpi_fail(net, RP_ERR_SHAPE,
                                  "rp_add: layer %d: what comes before gives %s, %s gives %s; they must be the same",
                                  net->layer_count, rpi_shape_text(in, one), name, rpi_shape_text(other, two)));
    }
    layer = rpi_append(net, "rp_add");
    if (!layer) return net->broken;
    layer->kind = RPI_ADD;
    layer->source = source;
    return rpi_appended(net, layer);
}

RP_API int rp_activation(rp_net *net, rp_activation_kind activation) {
    rp_status status = rpi_may_describe(net, "rp_activation");
    rpi_layer *layer;
    if (status) return status;
    if ((int)activation < 0 || (int)activation >= RPI_ACTIVATIONS)
        return rpi_break(net, rpi_fail(net, RP_ERR_VALUE, "rp_activation: layer %d: %d is no rp_activation_kind",
                                       net->layer_count, (int)activation));
    layer = rpi_append(net, "rp_activation");
    if (!layer) return net->broken;
    rpi_set_activation(layer, activation);
    return rpi_appended(net, layer);
}

RP_API rp_status rp_no_bias(rp_net *net) {
    rp_status status = rpi_may_describe(net, "rp_no_bias");
    rpi_layer *last;
    if (status) return status;
    last = net->layer_count ? &net->layers[net->layer_count - 1] : NULL;
    if (!last || !last->affine)
        return rpi_break(net, rpi_fail(net, RP_ERR_ORDER,
                                       "rp_no_bias: %s has no bias; call it right after the affine layer is added",
                                       last ? rpi_layer_name(last) : "a net without a layer"));
    last->bias = 0;
    last->bias_count = 0;
    return RP_OK;
}

RP_API rp_status rp_negative_slope(rp_net *net, rp_real slope) {
    rp_status status = rpi_may_describe(net, "rp_negative_slope");
    rpi_layer *last;
    if (status) return status;
    last = net->layer_count ? &net->layers[net->layer_count - 1] : NULL;
    if (!last || (last->activation != RP_LEAKY_RELU && last->activation != RP_ELU))
        return rpi_break(
            net, rpi_fail(net, RP_ERR_ORDER,
                          "rp_negative_slope: %s has no such slope; call it right after a leaky_relu or elu is added",
                          last ? rpi_layer_name(last) : "a net without a layer"));
    if (!rpi_finite(slope) || slope < 0)
        return rpi_break(net, rpi_fail(net, RP_ERR_VALUE,
                                       "rp_negative_slope: layer %d: the slope is %g; it must be finite and 0 or more",
                                       net->layer_count - 1, (double)slope));
    last->alpha = slope;
    return RP_OK;
}

RP_API rp_status rp_loss(rp_net *net, rp_loss_kind loss) {
    rp_status status = rpi_may_describe(net, "rp_loss");
    if (status) return status;
    if ((int)loss < 0 || (int)loss >= RPI_LOSSES)
        return rpi_break(net, rpi_fail(net, RP_ERR_VALUE, "rp_loss: %d is no rp_loss_kind", (int)loss));
    net->loss = loss;
    return RP_OK;
}

RP_API rp_status rp_huber_delta(rp_net *net, rp_real delta) {
    rp_status status = rpi_may_describe(net, "rp_huber_delta");
    if (status) return status;
    if (!rpi_finite(delta) || delta <= 0)
        return rpi_break(net, rpi_fail(net, RP_ERR_VALUE, "rp_huber_delta: delta is %g; it must be finite and above 0",
                                       (double)delta));
    net->huber_delta = delta;
    return RP_OK;
}

/* Offsets of the parameters in the flat arrays. */
static rp_status rpi_place_parameters(rp_net *net) {
    ptrdiff_t at = 0;
    for (int i = 0; i < net->layer_count; i++) {
        rpi_layer *layer = &net->layers[i];
        if (layer->weight_count + layer->bias_count > PTRDIFF_MAX / 8 / (ptrdiff_t)sizeof(rp_real) - at)
            return rpi_fail(net, RP_ERR_OVERFLOW,
                            "rp_net_build: layer %d (%s): its parameters are more than can be addressed", i,
                            rpi_layer_name(layer));
        layer->weights = at;
        layer->biases = at += layer->weight_count;
        at += layer->bias_count;
    }
    net->parameter_count = at;
    return RP_OK;
}

/* A new step that writes `rows` rows: of a new slot, or of slot `out` from out_row on. The first lowering only counts. */
static rpi_step *rpi_emit(rp_net *net, const rpi_map *map, int layer, int in, int rows, int out, int out_row,
                          rpi_step *counted) {
    rpi_step *step = net->steps ? &net->steps[net->step_count] : counted;
    const rpi_layer *l = &net->layers[layer];
    memset(step, 0, sizeof *step);
    step->map = map;
    step->layer = layer;
    step->collects = 1;
    step->in = in;
    step->out = out < 0 ? net->slot_count : out;
    step->out_row = out_row;
    step->outputs = rows;
    step->inputs = net->slot_rows ? net->slot_rows[in] : 0;
    step->bias = l->bias;
    step->fan_in = l->fan_in;
    step->weights = l->weights;
    step->biases = l->biases;
    step->geometry = l->geometry;
    step->end = l->geometry.out_height * l->geometry.out_width;
    step->in_end = l->geometry.height * l->geometry.width;
    if (out < 0) {
        if (net->slot_rows) net->slot_rows[net->slot_count] = rows;
        net->slot_count++;
    }
    net->step_count++;
    return step;
}

/* A sequence's map with one kernel for all positions, `shift` positions back. */
static rpi_geometry rpi_sequence_geometry(int steps, int features, int units, int shift) {
    rpi_geometry g;
    memset(&g, 0, sizeof g);
    g.filters = units;
    g.channels = features;
    g.groups = 1;
    g.kernel_height = g.kernel_width = g.stride_height = g.stride_width = 1;
    g.padding_height = shift;
    g.first = shift;
    g.height = g.out_height = steps;
    g.width = g.out_width = 1;
    g.in_channel = g.out_filter = 1;
    g.in_y = features;
    g.out_y = units;
    return g;
}

/* h_t = activation(... + U h_(t-1)), one step of the tape for each t from `first` on, in place in one slot of `states` states. */
static void rpi_lower_states(rp_net *net, int index, int slot, int states, int first, int add, ptrdiff_t weights,
                             rpi_step *counted) {
    const rpi_layer *layer = &net->layers[index];
    for (int t = first; t < states; t++) {
        rpi_step *step = rpi_emit(net, &rpi_shared_map, index, slot, layer->units, slot, t * layer->units, counted);
        step->geometry = rpi_sequence_geometry(states, layer->units, layer->units, 1);
        step->from = t;
        step->end = t + 1;
        step->in_from = t ? t - 1 : 0;
        step->in_end = t;
        step->inputs = layer->units;
        step->weights = weights;
        step->add = add;
        step->bias = add ? 0 : layer->bias;
        step->collects = t == states - 1;
        step->activation = layer->activation;
        step->alpha = layer->alpha;
    }
}

/* A slot of its own for rows of another. */
static int rpi_lower_copy(rp_net *net, int index, int in, int in_row, int rows, rpi_step *counted) {
    rpi_step *step = rpi_emit(net, &rpi_copy_map, index, in, rows, -1, 0, counted);
    step->in_row = in_row;
    step->inputs = rows;
    return step->out;
}

static int rpi_lower_recurrent(rp_net *net, int index, int in, rpi_step *counted) {
    const rpi_layer *layer = &net->layers[index];
    rpi_step *step = rpi_emit(net, &rpi_shared_map, index, in, layer->steps * layer->units, -1, 0, counted);
    int slot = step->out;
    step->geometry = rpi_sequence_geometry(layer->steps, layer->in.channels, layer->units, 0);
    step->end = step->in_end = layer->steps;
    rpi_lower_states(net, index, slot, layer->steps, 0, 1,
                     layer->weights + (ptrdiff_t)layer->units * layer->in.channels, counted);
    return layer->all_states
               ? slot
               : rpi_lower_copy(net, index, slot, (layer->steps - 1) * layer->units, layer->units, counted);
}

static int rpi_lower_recursive(rp_net *net, int index, int in, rpi_step *counted) {
    const rpi_layer *layer = &net->layers[index];
    rpi_step *step = rpi_emit(net, &rpi_copy_map, index, in, layer->units, -1, 0, counted); /* v_0 */
    int slot = step->out;
    if (net->slot_rows) net->slot_rows[slot] = (layer->steps + 1) * layer->units;
    rpi_lower_states(net, index, slot, layer->steps + 1, 1, 0, layer->weights, counted);
    return rpi_lower_copy(net, index, slot, layer->steps * layer->units, layer->units, counted);
}

/* Whether a later rp_add reads this layer's output, which must then stay as it is. */
static int rpi_added_later(const rp_net *net, int index) {
    for (int i = index + 1; i < net->layer_count; i++)
        if (net->layers[i].kind == RPI_ADD && net->layers[i].source == index) return 1;
    return 0;
}

/* The layer's steps; returns the slot of its output. An activation joins the step before it, if that is the last to write the
   slot and nothing else reads it. */
static int rpi_lower_layer(rp_net *net, int index, int in, rpi_step **open, rpi_step *counted) {
    const rpi_layer *layer = &net->layers[index];
    int rows = rpi_features(layer->out);
    rpi_step *last = *open;
    *open = NULL;
    switch (layer->kind) {
    case RPI_DENSE: *open = rpi_emit(net, &rpi_dense_map, index, in, rows, -1, 0, counted); break;
    case RPI_CONV2D: *open = rpi_emit(net, &rpi_shared_map, index, in, rows, -1, 0, counted); break;
    case RPI_MAX_POOL2D: return rpi_emit(net, &rpi_max_pool_map, index, in, rows, -1, 0, counted)->out;
    case RPI_AVG_POOL2D: return rpi_emit(net, &rpi_avg_pool_map, index, in, rows, -1, 0, counted)->out;
    case RPI_RECURRENT: return rpi_lower_recurrent(net, index, in, counted);
    case RPI_RECURSIVE: return rpi_lower_recursive(net, index, in, counted);
    case RPI_ADD: {
        int out = rpi_lower_copy(net, index, in, 0, rows, counted);
        *open = rpi_emit(net, &rpi_copy_map, index, layer->source == RP_INPUT ? 0 : net->layers[layer->source].slot,
                         rows, out, 0, counted);
        (*open)->add = 1;
        return out;
    }
    default:
        if (!last || rpi_added_later(net, index - 1))
            last = rpi_emit(net, &rpi_copy_map, index, in, rows, -1, 0, counted);
        last->activation = layer->activation;
        last->alpha = layer->alpha;
        return last->out;
    }
    return (*open)->out;
}

static void rpi_lower(rp_net *net) {
    rpi_step counted, *open = NULL;
    int slot = 0;
    net->step_count = 0;
    net->slot_count = 1;
    net->vectors = 1;
    if (net->slot_rows) net->slot_rows[0] = net->inputs;
    for (int i = 0; i < net->layer_count; i++) {
        const rpi_layer *layer = &net->layers[i];
        slot = rpi_lower_layer(net, i, slot, &open, &counted);
        net->layers[i].slot = slot;
        net->vectors &= layer->kind == RPI_DENSE || layer->kind == RPI_ACTIVATION || layer->kind == RPI_ADD;
    }
    if (slot != net->slot_count - 1 ||
        net->layers[net->layer_count - 1].kind == RPI_RECURRENT) /* the output is the last slot, and no step reads it */
        rpi_lower_copy(net, net->layer_count - 1, slot, 0, net->outputs, &counted);
}

static int rpi_trains(const rp_net *net, const rpi_step *step) {
    return step->map->outer && !net->layers[step->layer].frozen;
}

static void rpi_mark_live(rp_net *net) {
    memset(net->live, 0, (size_t)net->slot_count * sizeof *net->live);
    for (int i = 0; i < net->step_count; i++) {
        const rpi_step *step = &net->steps[i];
        net->live[step->out] |= net->live[step->in] || rpi_trains(net, step);
    }
}

/* Slots to which several steps, or steps that read only a part, send derivatives: these begin at zero and are added to. */
static void rpi_mark_summed(rp_net *net) {
    memset(net->summed, 0, (size_t)net->slot_count * sizeof *net->summed);
    for (int i = 0; i < net->step_count; i++) {
        const rpi_step *step = &net->steps[i];
        net->summed[step->in] += step->inputs == net->slot_rows[step->in] ? 1 : 2;
    }
    for (int slot = 0; slot < net->slot_count; slot++) net->summed[slot] = net->summed[slot] > 1;
}

static ptrdiff_t rpi_slot_rows(const rp_net *net, int slot) { return net->slot_rows[slot]; }

/* Slots that are never needed at the same time share a buffer when nothing is kept for a backward pass. first, last: scratch
   for the steps that first and last touch a slot. */
static void rpi_share_slots(rp_net *net, int *first, int *last) {
    for (int slot = 0; slot < net->slot_count; slot++) {
        first[slot] = -1;
        last[slot] = net->step_count;
    }
    for (int i = net->step_count - 1; i >= 0; i--) first[net->steps[i].out] = i;
    for (int i = 0; i < net->step_count; i++) last[net->steps[i].in] = i;
    net->pool_count = 0;
    for (int slot = 0; slot < net->slot_count; slot++) {
        int p = 0;
        while (p < net->pool_count && net->pool_until[p] >= first[slot]) p++;
        if (p == net->pool_count) net->pool_rows[net->pool_count++] = 0;
        net->pool[slot] = p;
        net->pool_until[p] = last[slot];
        if (net->pool_rows[p] < rpi_slot_rows(net, slot)) net->pool_rows[p] = rpi_slot_rows(net, slot);
    }
}

static ptrdiff_t rpi_leading(int batch) {
    ptrdiff_t lines = (batch + RPI_LINE_REALS - 1) / RPI_LINE_REALS;
    return (lines | 1) * RPI_LINE_REALS;
}

static rp_real *rpi_claim_rows(rpi_arena *arena, ptrdiff_t rows, ptrdiff_t ld) {
    if (ld && rows > PTRDIFF_MAX / 8 / ld) {
        arena->overflow = 1;
        return NULL;
    }
    return rpi_claim_reals(arena, rows * ld);
}

static ptrdiff_t rpi_threads(const rp_net *net) { return (net->config.threads > 1 ? net->config.threads : 1); }

static void rpi_lay_out_pointers(const rp_net *net, rpi_arena *arena, rpi_buffers *b, ptrdiff_t threads) {
    ptrdiff_t slots = net->slot_count, steps = net->step_count, all = 4 * slots + 3 * steps;
    rp_real **pointers = (rp_real **)rpi_claim(arena, all, sizeof *pointers);
    b->a_packed = rpi_claim_rows(arena, RPI_M_BLOCK * threads, RPI_K_BLOCK);
    b->at_size = 0;
    b->shared_size = 0;
    b->threads = threads;
    for (int i = 0; i < net->step_count; i++) rpi_scratch_of(&net->steps[i], &b->at_size, &b->shared_size);
    b->at = (ptrdiff_t *)rpi_claim(arena, 2 * threads * b->at_size, sizeof *b->at);
    b->shared = rpi_claim_rows(arena, 2, b->shared_size ? b->shared_size : 1);
    b->columns = rpi_claim_rows(arena, threads, b->ld);
    b->own = rpi_claim_rows(arena, threads * RPI_TAPS_MOST * 4, b->ld);
    b->zeros = rpi_claim_reals(arena, b->ld);
    b->ones = rpi_claim_reals(arena, b->ld);
    b->bad = (int *)rpi_claim(arena, steps * threads, sizeof *b->bad);
    b->column = rpi_claim_reals(arena, 2 * b->ld);
    if (!arena->base) return;
    memset(pointers, 0, (size_t)all * sizeof *pointers);
    b->y = pointers;
    b->d = pointers + slots;
    b->v = pointers + 2 * slots;
    b->r = pointers + 3 * slots;
    b->slope = pointers + 4 * slots;
    b->second = b->slope + steps;
    b->bend = b->second + steps;
    for (ptrdiff_t i = 0; i < b->ld; i++) {
        b->zeros[i] = 0;
        b->ones[i] = 1;
    }
}

/* Values of slots that share buffers: for prediction. */
static void rpi_lay_out_prediction(const rp_net *net, rpi_arena *arena, rpi_buffers *b, ptrdiff_t threads) {
    rpi_lay_out_pointers(net, arena, b, threads);
    for (int p = 0; p < net->pool_count; p++) {
        rp_real *rows = rpi_claim_rows(arena, net->pool_rows[p], b->ld);
        for (int slot = 0; arena->base && slot < net->slot_count; slot++)
            if (net->pool[slot] == p) b->y[slot] = rows;
    }
}

static void rpi_lay_out_training(const rp_net *net, rpi_arena *arena, rpi_buffers *b) {
    ptrdiff_t threads = rpi_threads(net);
    rpi_lay_out_pointers(net, arena, b, threads);
    for (int slot = 0; slot < net->slot_count; slot++) {
        rp_real *y = rpi_claim_rows(arena, rpi_slot_rows(net, slot), b->ld),
                *d = rpi_claim_rows(arena, rpi_slot_rows(net, slot), b->ld);
        rp_real *v = rpi_claim_rows(arena, rpi_slot_rows(net, slot), b->ld);
        if (arena->base) {
            b->y[slot] = y;
            b->d[slot] = d;
            b->v[slot] = v;
        }
    }
    for (int i = 0; i < net->step_count; i++) {
        const rpi_step *step = &net->steps[i];
        rp_real *slope = step->activation ? rpi_claim_rows(arena, step->outputs, b->ld) : NULL;
        rp_real *second = rpi_activations[step->activation].curved ? rpi_claim_rows(arena, step->outputs, b->ld) : NULL;
        if (arena->base) {
            b->slope[i] = slope;
            b->second[i] = second;
        }
    }
    b->panel = rpi_claim_rows(arena, 2 * threads * RPI_PANEL, b->batch);
    b->tile = rpi_claim_rows(arena, 2 * threads * RPI_PANEL, RPI_ROWS_MOST);
    b->total = rpi_claim_reals(arena, b->ld);
}

static void rpi_lay_out_tape(rp_net *net, rpi_arena *arena) {
    ptrdiff_t slots = net->slot_count;
    rpi_step *steps = (rpi_step *)rpi_claim(arena, net->step_count, sizeof *steps);
    int *numbers = (int *)rpi_claim(arena, 7 * slots, sizeof *numbers);
    ptrdiff_t *rows = (ptrdiff_t *)rpi_claim(arena, slots, sizeof *rows);
    if (!arena->base) return;
    memset(steps, 0, (size_t)net->step_count * sizeof *steps);
    net->steps = steps;
    net->pool_rows = rows;
    net->live = numbers;
    net->pool = numbers + slots;
    net->pool_until = numbers + 2 * slots;
    net->slot_rows = numbers + 3 * slots;
    net->summed = numbers + 4 * slots;
    rpi_lower(net);
    rpi_mark_live(net);
    rpi_mark_summed(net);
    rpi_share_slots(net, numbers + 5 * slots, numbers + 6 * slots);
}

static void rpi_lay_out_arrays(rp_net *net, rpi_arena *arena) {
    rpi_buffers *b = &net->buffers;
    ptrdiff_t batch = net->batch, inputs = net->inputs, outputs = net->outputs;
    int training = !net->config.inference_only;
    net->parameters = rpi_claim_reals(arena, net->parameter_count);
    net->sample_loss = (double *)rpi_claim(arena, batch, sizeof *net->sample_loss);
    if (!training) {
        rp_real *targets;
        rpi_lay_out_prediction(net, arena, b, rpi_threads(net));
        targets = rpi_claim_rows(arena, outputs, b->ld);
        if (arena->base) b->d[net->slot_count - 1] = targets;
        return;
    }
    rpi_lay_out_training(net, arena, b);
    net->gradient = rpi_claim_reals(arena, net->parameter_count);
    net->curvature = rpi_claim_reals(arena, net->parameter_count);
    net->direction = rpi_claim_reals(arena, net->parameter_count);
    net->sums = rpi_claim_reals(arena, net->parameter_count);
    net->h = rpi_claim_rows(arena, outputs, b->ld);
    net->row_output = rpi_claim_rows(arena, outputs, b->ld);
    net->staged_inputs = rpi_claim_rows(arena, inputs, batch);
    net->staged_targets = rpi_claim_rows(arena, outputs, batch);
    net->staged_weights = rpi_claim_reals(arena, batch);
    net->staged_labels = (int *)rpi_claim(arena, batch, sizeof(int));
}

/* Runs a layout twice: for its size, then on a block of that size. */
static rp_status rpi_build_block(rp_net *net, const char *who, rpi_block *block,
                                 void (*lay_out)(rp_net *, rpi_arena *)) {
    rpi_arena arena = {NULL, 0, 0};
    lay_out(net, &arena);
    if (arena.overflow)
        return rpi_fail(net, RP_ERR_OVERFLOW, "%s: %z parameters and batch %d need more memory than can be addressed",
                        who, net->parameter_count, net->batch);
    if (!rpi_block_new(&net->memory, block, arena.used))
        return rpi_fail(net, RP_ERR_MEMORY, "%s: no memory for %z bytes (%z parameters, batch %d)", who, arena.used,
                        net->parameter_count, net->batch);
    arena.base = block->base;
    arena.used = 0;
    lay_out(net, &arena);
    return RP_OK;
}

static rp_status rpi_build_team(rp_net *net) {
#ifdef RP_THREADS
    if (net->config.threads > 1) {
        net->buffers.team = rpi_team_new(&net->memory, net->config.threads);
        if (!net->buffers.team)
            return rpi_fail(net, RP_ERR_MEMORY, "rp_net_build: no memory for %d threads", net->config.threads);
    }
#endif
    (void)net;
    return RP_OK;
}

static void rpi_draw_parameters(rp_net *net, uint64_t seed) {
    net->random = rpi_mix(seed);
    for (int i = 0; i < net->layer_count; i++) {
        const rpi_layer *layer = &net->layers[i];
        double bound = layer->affine ? 1 / sqrt((double)layer->draw_fan_in) : 0;
        for (ptrdiff_t at = 0; at < layer->weight_count + layer->bias_count; at++)
            net->parameters[layer->weights + at] = (rp_real)(bound * (2 * rpi_uniform(&net->random) - 1));
    }
}

RP_API rp_status rp_net_build(rp_net *net, int batch, uint64_t seed) {
    rp_status status = rpi_may_describe(net, "rp_net_build");
    if (status) return status;
    if (batch < 1 || batch > RPI_LARGEST)
        return rpi_fail(net, RP_ERR_VALUE, "rp_net_build: batch is %d; it may be 1 to %d", batch, RPI_LARGEST);
    if (!net->layer_count) return rpi_fail(net, RP_ERR_SHAPE, "rp_net_build: the net has no layer");
    net->batch = batch;
    net->inputs = rpi_features(net->input);
    net->outputs = rpi_features(net->output);
    net->buffers.kernels = rpi_kernels_of(net->config.isa);
    net->buffers.batch = batch;
    net->buffers.ld = rpi_leading(batch);
    status = rpi_place_parameters(net);
    net->steps = NULL;
    net->slot_rows = NULL;
    rpi_lower(net);
    if (!status) status = rpi_build_block(net, "rp_net_build", &net->tape, rpi_lay_out_tape);
    if (!status) status = rpi_build_block(net, "rp_net_build", &net->arrays, rpi_lay_out_arrays);
    if (!status) status = rpi_build_team(net);
    if (status) {
        rpi_block_free(&net->memory, &net->arrays);
        rpi_block_free(&net->memory, &net->tape);
        net->parameter_count = 0;
        return status;
    }
    rpi_draw_parameters(net, seed);
    net->built = 1;
    return RP_OK;
}

RP_API rp_status rp_freeze(rp_net *net, int layer, int frozen) {
    if (!net) return RP_ERR_NULL;
    if (layer < 0 || layer >= net->layer_count)
        return rpi_fail(net, RP_ERR_VALUE, "rp_freeze: layer is %d; the net has layers 0 to %d", layer,
                        net->layer_count - 1);
    if (!net->layers[layer].affine)
        return rpi_fail(net, RP_ERR_VALUE, "rp_freeze: layer %d (%s) has no parameters", layer,
                        rpi_layer_name(&net->layers[layer]));
    if (frozen != 0 && frozen != 1)
        return rpi_fail(net, RP_ERR_VALUE, "rp_freeze: frozen is %d; it may be 0 or 1", frozen);
    net->layers[layer].frozen = frozen;
    net->forward_count = 0;
    if (net->built) rpi_mark_live(net);
    return RP_OK;
}

/* While a callback runs that may not use the net: what does so resets forward_count. */
#define RPI_BUSY -1
static rp_status rpi_still_busy(rp_net *net, const char *who, const char *callback) {
    int busy = net->forward_count == RPI_BUSY;
    net->forward_count = 0;
    return busy ? RP_OK : rpi_fail(net, RP_ERR_ORDER, "%s: %s used the net, whose values are needed", who, callback);
}

/* The three guards of the functions that need a built net. */
static rp_status rpi_built(rp_net *net, const char *who) {
    if (!net) return RP_ERR_NULL;
    return net->built ? RP_OK : rpi_fail(net, RP_ERR_ORDER, "%s: the net is not built; call rp_net_build first", who);
}
static rp_status rpi_trainable(rp_net *net, const char *who) {
    rp_status status = rpi_built(net, who);
    if (!status && net->config.inference_only)
        status = rpi_fail(net, RP_ERR_UNSUPPORTED,
                          "%s: the net was made with config.inference_only, so it has no memory for training", who);
    return status;
}
static rp_status rpi_needs(rp_net *net, const char *who, const char *what, const void *pointer) {
    return pointer ? RP_OK : rpi_fail(net, RP_ERR_NULL, "%s: %s is NULL", who, what);
}

RP_API size_t rp_parameter_count(const rp_net *net) { return net && net->built ? (size_t)net->parameter_count : 0; }
RP_API rp_real *rp_parameters(rp_net *net) { return net && net->built ? net->parameters : NULL; }

/* The arrays are zeroed when they are first asked for: a net that only calls rp_train never touches their pages. */
static rp_real *rpi_array(rp_net *net, rp_real *array, int *filled) {
    if (!net->built || !array) return NULL;
    if (!*filled) rpi_zero(array, net->parameter_count);
    *filled |= 2;
    return array;
}
RP_API rp_real *rp_gradient(rp_net *net) { return net ? rpi_array(net, net->gradient, &net->has_gradient) : NULL; }
RP_API rp_real *rp_curvature(rp_net *net) { return net ? rpi_array(net, net->curvature, &net->has_curvature) : NULL; }
RP_API rp_real *rp_direction_array(rp_net *net) {
    return net ? rpi_array(net, net->direction, &net->has_direction) : NULL;
}

RP_API int rp_layer_count(const rp_net *net) { return net ? net->layer_count : 0; }

RP_API rp_status rp_layer_info(rp_net *net, int index, rp_layer *info) {
    const rpi_layer *layer;
    if (!net) return RP_ERR_NULL;
    if (!info) return rpi_needs(net, "rp_layer_info", "info", info);
    if (index < 0 || index >= net->layer_count)
        return rpi_fail(net, RP_ERR_VALUE, "rp_layer_info: layer is %d; the net has layers 0 to %d", index,
                        net->layer_count - 1);
    layer = &net->layers[index];
    memset(info, 0, sizeof *info);
    info->kind = rpi_layer_name(layer);
    info->in = layer->in;
    info->out = layer->out;
    info->frozen = layer->frozen;
    if (!net->built) return RP_OK;
    info->weights = (size_t)layer->weights;
    info->weight_count = (size_t)layer->weight_count;
    info->biases = (size_t)layer->biases;
    info->bias_count = (size_t)layer->bias_count;
    return RP_OK;
}

RP_API const char *rp_isa(const rp_net *net) { return net && net->built ? net->buffers.kernels->name : ""; }
RP_API size_t rp_state_memory(const rp_net *net) { return net ? net->state.size : 0; }
RP_API size_t rp_memory(const rp_net *net) {
    return net ? sizeof *net + (size_t)net->layer_capacity * sizeof *net->layers + net->tape.size + net->arrays.size +
                     net->state.size + net->tangents.size
               : 0;
}

RP_API size_t rp_summary(const rp_net *net, char *out, size_t size) {
    rpi_text text = {out, out ? size : 0, 0};
    char line[256];
    if (!net) {
        if (text.size) out[0] = 0;
        return 0;
    }
    rpi_put_string(&text, "layer  kind        shape  parameters\n   in  ");
    rpi_put_shape(&text, net->input);
    rpi_put(&text, '\n');
    for (int i = 0; i < net->layer_count; i++) {
        const rpi_layer *layer = &net->layers[i];
        ptrdiff_t weights = layer->weight_count, biases = layer->bias_count, length;
        length = (ptrdiff_t)rpi_format(line, sizeof line, "%d", i);
        for (; length < 5; length++) rpi_put(&text, ' ');
        rpi_put_string(&text, line);
        rpi_put_string(&text, "  ");
        rpi_put_string(&text, rpi_layer_name(layer));
        for (length = (ptrdiff_t)strlen(rpi_layer_name(layer)); length < 12; length++) rpi_put(&text, ' ');
        rpi_put_shape(&text, layer->out);
        if (weights)
            rpi_format(line, sizeof line, "  %z%s%s\n", weights + biases, biases ? "" : "  no bias",
                       layer->frozen ? "  frozen" : "");
        rpi_put_string(&text, weights ? line : "\n");
    }
    rpi_format(line, sizeof line, "loss   %s\n", rpi_losses[net->loss].name);
    rpi_put_string(&text, line);
    if (net->built)
        rpi_format(line, sizeof line, "%z parameters, %z bytes, batch %d, %s kernels%s\n", net->parameter_count,
                   rp_memory(net), net->batch, net->buffers.kernels->name,
                   net->config.inference_only ? ", inference only" : "");
    else rpi_format(line, sizeof line, "not built%s%s\n", net->broken ? ": " : "", net->broken ? net->error : "");
    rpi_put_string(&text, line);
    if (text.size) out[text.length < text.size ? text.length : text.size - 1] = 0;
    return text.length;
}

/* >>sweeps
   Each is written once, over the steps of the tape. n: columns in use, the batch rounded up to whole vectors. */
static void rpi_load_rows(const rpi_buffers *b, const rp_real *rows, int count, int features, rp_real *out) {
    b->kernels->transpose(rows, features, count, features, out, b->ld, rpi_columns(b, count));
}

/* c of Theorem 2 as generalised by scales; 0 where nothing is trained. */
static rp_real rpi_scale(const rp_net *net, const rpi_step *step, const rp_rule *rule) {
    if (!rpi_trains(net, step)) return 0;
    return rule->scale == RP_SCALE_FAN_IN ? (rp_real)(1 / sqrt((double)step->fan_in + 1)) : 1;
}

static rpi_activate_work rpi_activate_step(const rpi_buffers *b, int i, const rpi_step *step, int n) {
    rpi_activate_work work;
    rpi_activate *a = &work.activate;
    memset(&work, 0, sizeof work);
    work.b = b;
    a->kind = step->activation;
    a->alpha = step->alpha;
    a->rows = step->outputs;
    a->n = n;
    a->ld = b->ld;
    if (b->ld == 1) {
        a->rows = 1;
        a->n = step->outputs;
    } /* one sample: its units are contiguous */
    a->bad = b->bad + i * b->threads;
    a->y = b->y[step->out] + step->out_row * b->ld;
    a->slope = b->slope[i];
    a->second = b->second[i];
    return work;
}

/* What a forward pass keeps for later ones. */
typedef enum rpi_keep { RPI_KEEP_NOTHING, RPI_KEEP_SLOPES, RPI_KEEP_CURVES } rpi_keep; /* sigma'; sigma' and sigma'' */

/* y of every slot from slot 0 on; with the paths rule u too (Equation 11), and sigma'' u in the place of sigma''. */
static void rpi_forward(const rp_net *net, const rpi_buffers *b, int n, rpi_keep keep, const rp_rule *rule) {
    int twin = rule && rule->kind == RP_PATHS;
    memset(b->bad, 0, (size_t)net->step_count * (size_t)b->threads * sizeof *b->bad);
    for (int i = 0; i < net->step_count; i++) {
        const rpi_step *step = &net->steps[i];
        rp_real *u = twin ? b->v[step->out] : NULL;
        rpi_activate_work work = rpi_activate_step(b, i, step, n);
        step->map->apply(b, step, net->parameters, n, b->y[step->in], b->y[step->out],
                         twin && net->live[step->in] ? b->v[step->in] : NULL, u, twin ? rpi_scale(net, step, rule) : 0);
        work.activate.u = u ? u + step->out_row * b->ld : NULL;
        if (keep == RPI_KEEP_NOTHING) work.activate.slope = NULL;
        if (keep != RPI_KEEP_CURVES && !twin) work.activate.second = NULL;
        if (b->ld == 1) rpi_zero(work.activate.y + step->outputs, (rpi_columns(b, step->outputs) - step->outputs));
        if (step->activation) rpi_activate_run(&work);
    }
}

/* From d and v of the last slot to those of every slot above trained parameters (Equation 9). with_d, with_v: which of them flow.
   g (RPI_BENT; may be NULL): v is the derivative of d along the direction g, and d is in place. */
static void rpi_sweep_back(const rp_net *net, const rpi_buffers *b, int n, int with_d, int with_v, rpi_flow flow,
                           const rp_real *g) {
    for (int slot = 0; slot < net->slot_count; slot++) {
        if (!net->summed[slot] || !net->live[slot]) continue;
        if (with_d) rpi_fill_rows(net->slot_rows[slot], n, b->ld, NULL, b->d[slot]);
        if (with_v) rpi_fill_rows(net->slot_rows[slot], n, b->ld, NULL, b->v[slot]);
    }
    for (int i = net->step_count - 1; i >= 0; i--) {
        const rpi_step *step = &net->steps[i];
        ptrdiff_t row = step->out_row * b->ld;
        rp_real *d = with_d ? b->d[step->out] : NULL, *v = with_v ? b->v[step->out] : NULL;
        rpi_activate_work work = rpi_activate_step(b, i, step, n);
        work.way = RPI_BACKWARD;
        work.flow = flow;
        work.d = d ? d + row : NULL;
        work.v = v ? v + row : NULL;
        if (flow == RPI_BENT) work.activate.second = b->bend[i];
        if (!net->live[step->out]) continue;
        if (step->activation) rpi_activate_run(&work);
        if (!net->live[step->in]) continue;
        step->map->transposed(b, step, net->parameters, n, d, b->d[step->in], v, b->v[step->in], flow != RPI_BOUND,
                              net->summed[step->in]);
        if (g && rpi_trains(net, step))
            step->map->transposed(b, step, g, n, NULL, NULL, b->d[step->out], b->v[step->in], 1, 1);
    }
}

static rp_status rpi_not_finite(rp_net *net, const char *who, const char *what, const rpi_step *step) {
    if (!step) return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: an input is not finite; nothing was changed", who);
    return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: %s is not finite, or too large, at layer %d (%s); nothing was changed",
                    who, what, step->layer, rpi_layer_name(&net->layers[step->layer]));
}

/* Fails with the first layer at which the forward pass left what is finite, if it did. */
static rp_status rpi_check_forward(rp_net *net, const char *who, int n) {
    const rpi_buffers *b = &net->buffers;
    if (b->kernels->peak(net->inputs, n, b->y[0], b->ld) >= RPI_EXPONENT) return rpi_not_finite(net, who, NULL, NULL);
    for (int i = 0; i < net->step_count; i++) {
        const rpi_step *step = &net->steps[i];
        for (ptrdiff_t part = 0; part < b->threads; part++)
            if (b->bad[i * b->threads + part]) return rpi_not_finite(net, who, "a value before the activation", step);
        if (b->kernels->peak(step->outputs, n, b->y[step->out] + step->out_row * b->ld, b->ld) >= RPI_EXPONENT)
            return rpi_not_finite(net, who, "a value", step);
    }
    return RP_OK;
}

static int rpi_all_finite(const rp_real *x, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i++)
        if (!rpi_finite(x[i])) return 0;
    return 1;
}

/* Before anything is changed: values are finite, and S max|d| max|y|, times the positions that share a weight, which bounds
   every sum of a gradient, is too; the same for v, whose sums may be divided by c and multiplied by weight[s]. */
static rp_status rpi_check_finite(rp_net *net, const char *who, int count, int with_d, int with_v,
                                  const rp_real *weight) {
    const rpi_buffers *b = &net->buffers;
    int n = rpi_columns(b, count);
    int bad = b->kernels->peak(net->inputs, n, b->y[0], b->ld) >= RPI_EXPONENT;
    for (ptrdiff_t i = 0; i < net->step_count * b->threads; i++) bad |= b->bad[i];
    if (bad) return rpi_check_forward(net, who, n);
    for (int i = 0; i < net->step_count; i++) {
        const rpi_step *step = &net->steps[i];
        rpi_int peaks[4] = {0, 0, 0, 0};
        rp_real sizes[4], most;
        if (!rpi_trains(net, step) || !step->collects) continue;
        peaks[0] = b->kernels->peak(net->slot_rows[step->in], n, b->y[step->in], b->ld);
        if (with_d) peaks[1] = b->kernels->peak(net->slot_rows[step->out], n, b->d[step->out], b->ld);
        if (with_v) peaks[2] = b->kernels->peak(net->slot_rows[step->out], n, b->v[step->out], b->ld);
        if (weight) peaks[3] = b->kernels->peak(1, n, weight, b->ld);
        memcpy(sizes, peaks, sizeof sizes);
        most = (rp_real)count * (sizes[0] > 1 ? sizes[0] : 1); /* 1: the bias's input */
        if (step->geometry.filters) most *= (rp_real)step->geometry.out_height * (rp_real)step->geometry.out_width;
        if (peaks[0] >= RPI_EXPONENT) return rpi_not_finite(net, who, "a value", step);
        if (peaks[1] >= RPI_EXPONENT || !rpi_finite(sizes[1] * most))
            return rpi_not_finite(net, who, "the gradient", step);
        most *= (rp_real)sqrt((double)step->fan_in + 1); /* at least 1/c */
        if (weight) most *= sizes[3] > 1 ? sizes[3] : 1;
        if (peaks[2] >= RPI_EXPONENT || peaks[3] >= RPI_EXPONENT || !rpi_finite(sizes[2] * most))
            return rpi_not_finite(net, who, "the curvature", step);
    }
    return RP_OK;
}

/* Gradient (with_d) and curvature (with_v; with weight[s] from each sample's own e in v) of every trained step into the sink. */
static void rpi_collect(const rp_net *net, const rpi_buffers *b, int count, int with_d, int with_v, const rp_rule *rule,
                        const rp_real *weight, const rpi_sink *sink) {
    rp_real mean = 1 / (rp_real)count;
    for (int i = 0; i < net->step_count; i++) {
        const rpi_step *step = &net->steps[i];
        if (!rpi_trains(net, step) || !step->collects) continue;
        step->map->outer(b, step, count, b->y[step->in], with_d ? b->d[step->out] : NULL,
                         with_v ? b->v[step->out] : NULL, weight, 0, mean,
                         with_v ? mean / rpi_scale(net, step, rule) : mean, sink);
    }
}

/* >>rules
   h[i][s] is the loss's second derivative by output i, times the sample's weight (softmax: sum(t) p_i; see >>losses). */

/* v = bound's Hessian times u at the output, in place, for each sample (Equations 44 to 46). */
static void rpi_flow_at_output(const rp_net *net, const rp_rule *rule, int separable, int count, rp_real *u) {
    const rpi_buffers *b = &net->buffers;
    ptrdiff_t ld = b->ld, end = net->outputs * ld;
    if (separable || rule->bound == RP_BOUND_TIGHT) {
        b->kernels->weigh(net->outputs, rpi_columns(b, count), u, ld, net->h, ld, 0);
        return;
    }
    for (int s = 0; s < count; s++) {
        const rp_real *h = net->h + s;
        rp_real *v = u + s, total = 0, sum = 0;
        for (ptrdiff_t i = 0; i < end; i += ld) total += h[i];
        for (ptrdiff_t i = 0; i < end; i += ld) {
            rp_real left = total - h[i],
                    root = left > 0 ? RPI_MATH(sqrt)(h[i] * (left / total)) : 0; /* sqrt(sum(t) p (1 - p)) */
            sum += root * v[i];
            v[i] = root;
        }
        for (ptrdiff_t i = 0; i < end; i += ld) v[i] *= sum;
    }
}

/* r with E[r r'] = H_f for every sample (the sampled rule): for softmax, sqrt(sum(t)) (p - onehot(k)) with k drawn from p. */
static void rpi_draw_classes(rp_net *net, int count, rp_real *e) {
    ptrdiff_t ld = net->buffers.ld, end = net->outputs * ld;
    for (int s = 0; s < count; s++) {
        const rp_real *h = net->h + s;
        rp_real total = 0, root, at;
        for (ptrdiff_t i = 0; i < end; i += ld) total += h[i];
        root = total > 0 ? 1 / RPI_MATH(sqrt)(total) : 0;
        at = (rp_real)rpi_uniform(&net->random) * total;
        for (ptrdiff_t i = 0; i < end; i += ld) {
            int chosen = at >= 0 && (at < h[i] || i + ld == end);
            e[i + s] = root * (chosen ? h[i] - total : h[i]);
            at = chosen ? -1 : at - h[i];
        }
    }
}

/* total[s] = T_s = sum_l c_l |e_l|_1 (|y_{l-1}|_1 + 1), from the e in v of every slot. */
static void rpi_reach(const rp_net *net, const rp_rule *rule, int n) {
    const rpi_buffers *b = &net->buffers;
    rpi_zero(b->total, n);
    for (int i = 0; i < net->step_count; i++) {
        const rpi_step *step = &net->steps[i];
        if (rpi_trains(net, step) && step->collects)
            step->map->reach(b, step, n, b->y[step->in], b->v[step->out], rpi_scale(net, step, rule), 0, b->total);
    }
}

/* e = dy_k/d(each unit) in v of every slot, and T_s. */
static void rpi_sweep_output(const rp_net *net, const rp_rule *rule, int count, int k) {
    const rpi_buffers *b = &net->buffers;
    int n = rpi_columns(b, count);
    rp_real *e = b->v[net->slot_count - 1];
    rpi_fill_rows(net->outputs, n, b->ld, NULL, e);
    for (int s = 0; s < count; s++) e[k * b->ld + s] = 1;
    rpi_sweep_back(net, b, n, 0, 1, RPI_PLAIN, NULL);
    rpi_reach(net, rule, n);
}

/* The Jacobian rule: curvature = (1/S) sum_s sum_k v_k |J_kw| / c_w, where v is the loss's bound at u_k = T_k. It is added up
   in a scratch array, and used only when it is finite. */
static rp_status rpi_jacobian(rp_net *net, const char *who, const rp_rule *rule, int separable, int count) {
    const rpi_buffers *b = &net->buffers;
    int n = rpi_columns(b, count), mixes = !separable && rule->bound == RP_BOUND_JENSEN;
    rp_real *flow = net->row_output;
    rpi_sink sink;
    memset(&sink, 0, sizeof sink);
    sink.take = b->kernels->take_sum;
    sink.curvature = net->sums;
    rpi_zero(net->sums, net->parameter_count);
    for (int k = 0; mixes && k < net->outputs; k++) {
        rpi_sweep_output(net, rule, count, k);
        rpi_copy(flow + k * b->ld, b->total, n);
    }
    if (mixes) rpi_flow_at_output(net, rule, separable, count, flow);
    for (int k = 0; k < net->outputs; k++) {
        rp_real *row = flow + k * b->ld;
        rp_status status;
        rpi_sweep_output(net, rule, count, k);
        rpi_zero(row + (mixes ? count : 0), (mixes ? n - count : n));
        for (int s = 0; !mixes && s < count; s++) row[s] = net->h[k * b->ld + s] * b->total[s];
        status = rpi_check_finite(net, who, count, 0, 1, row);
        if (status) return status;
        rpi_collect(net, b, count, 0, 1, rule, row, &sink);
    }
    if (!rpi_all_finite(net->sums, net->parameter_count))
        return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: the curvature is not finite, or too large; nothing was changed",
                        who);
    return RP_OK;
}

/* Checks what can be checked of a batch or data set in memory, before anything is computed. */
static rp_status rpi_check_weights(rp_net *net, const char *who, const rp_data *data) {
    for (int s = 0; data->weights && s < data->count; s++)
        if (!rpi_finite(data->weights[s]) || data->weights[s] < 0)
            return rpi_fail(net, RP_ERR_VALUE, "%s: weights[%d] is %g; a weight must be finite and 0 or more", who, s,
                            (double)data->weights[s]);
    return RP_OK;
}

static rp_status rpi_check_labels(rp_net *net, const char *who, const rp_data *data) {
    int classes = net->loss == RP_BINARY_CROSS_ENTROPY ? 2 : net->outputs;
    if (net->loss != RP_SOFTMAX_CROSS_ENTROPY && !(net->loss == RP_BINARY_CROSS_ENTROPY && net->outputs == 1))
        return rpi_fail(net, RP_ERR_LABEL, "%s: labels do not fit the %s of %d outputs; give targets", who,
                        rpi_losses[net->loss].name, net->outputs);
    for (int s = 0; s < data->count; s++)
        if (data->labels[s] < 0 || data->labels[s] >= classes)
            return rpi_fail(net, RP_ERR_LABEL, "%s: labels[%d] is %d; it may be 0 to %d", who, s, data->labels[s],
                            classes - 1);
    return RP_OK;
}

/* What is not a number passes here, and is found in the loss. */
static rp_status rpi_check_targets(rp_net *net, const char *who, const rp_data *data) {
    ptrdiff_t count = (ptrdiff_t)data->count * net->outputs;
    rp_real most = net->loss == RP_BINARY_CROSS_ENTROPY ? 1 : RPI_REAL_MAX;
    if (net->loss == RP_SQUARED_ERROR || net->loss == RP_HUBER) return RP_OK;
    for (ptrdiff_t i = 0; i < count; i++)
        if (rpi_finite(data->targets[i]) && (data->targets[i] < 0 || data->targets[i] > most))
            return rpi_fail(net, RP_ERR_VALUE, "%s: targets[%z] is %g; with the %s it must be 0 or more%s", who, i,
                            (double)data->targets[i], rpi_losses[net->loss].name, most > 1 ? "" : ", and at most 1");
    return RP_OK;
}

static rp_status rpi_check_data(rp_net *net, const char *who, const rp_data *data, int most) {
    rp_status status = rpi_needs(net, who, "data", data);
    if (!status && data->fill)
        return rpi_fail(net, RP_ERR_VALUE,
                        "%s: data.fill is given; streams are for rp_fit and rp_evaluate, a batch is in memory", who);
    if (!status) status = rpi_needs(net, who, "data.inputs", data->inputs);
    if (status) return status;
    if (data->count < 1 || data->count > most)
        return rpi_fail(net, RP_ERR_VALUE, "%s: data.count is %d; it may be 1 to %d", who, data->count, most);
    if (!data->targets && !data->labels)
        return rpi_fail(net, RP_ERR_NULL, "%s: data.targets and data.labels are both NULL", who);
    if (data->targets && data->labels)
        return rpi_fail(net, RP_ERR_VALUE, "%s: data.targets and data.labels are both given; one must be NULL", who);
    status = data->labels ? rpi_check_labels(net, who, data) : rpi_check_targets(net, who, data);
    return status ? status : rpi_check_weights(net, who, data);
}

static rp_status rpi_check_rule(rp_net *net, const char *who, const char *of,
                                const rp_rule *rule) { /* of: "optimizer.", ... */
    if ((int)rule->kind < 0 || rule->kind > RP_SAMPLED)
        return rpi_fail(net, RP_ERR_VALUE, "%s: %srule.kind is %d, which is no rp_rule_kind", who, of, (int)rule->kind);
    if ((int)rule->bound < 0 || rule->bound > RP_BOUND_JENSEN)
        return rpi_fail(net, RP_ERR_VALUE, "%s: %srule.bound is %d, which is no rp_bound_kind", who, of,
                        (int)rule->bound);
    if ((int)rule->scale < 0 || rule->scale > RP_SCALE_FAN_IN)
        return rpi_fail(net, RP_ERR_VALUE, "%s: %srule.scale is %d, which is no rp_scale_kind", who, of,
                        (int)rule->scale);
    return RP_OK;
}

/* Targets, or labels as targets, into d of the last slot. */
static void rpi_load_targets(const rp_net *net, const rpi_buffers *b, const rp_data *data) {
    rp_real *t = b->d[net->slot_count - 1];
    if (data->targets) {
        rpi_load_rows(b, data->targets, data->count, net->outputs, t);
        return;
    }
    for (int i = 0; i < net->outputs; i++)
        for (int s = 0; s < data->count; s++)
            t[i * b->ld + s] = net->outputs == 1 && net->loss == RP_BINARY_CROSS_ENTROPY
                                   ? (rp_real)data->labels[s]
                                   : (rp_real)(data->labels[s] == i);
}

/* Sum over samples of weight times loss; d of the last slot becomes the derivative, h (may be NULL) the second derivative (see
   rpi_loss_call for `exact`), both unweighted. */
static double rpi_evaluate_loss(const rp_net *net, const rpi_buffers *b, const rp_data *data, rp_real *h, int exact) {
    rpi_loss_call call;
    double sum = 0;
    rpi_load_targets(net, b, data);
    call.outputs = net->outputs;
    call.count = data->count;
    call.ld = b->ld;
    call.delta = net->huber_delta;
    call.exact = exact;
    call.y = b->y[net->slot_count - 1];
    call.d = b->d[net->slot_count - 1];
    call.h = h;
    call.loss = net->sample_loss;
    b->kernels->loss[net->loss](&call);
    for (int s = 0; s < data->count; s++) sum += (data->weights ? (double)data->weights[s] : 1) * net->sample_loss[s];
    return sum;
}

static void rpi_weigh_rows(const rp_net *net, int count, const rp_real *weights, rp_real *x) {
    const rpi_buffers *b = &net->buffers;
    int n = rpi_columns(b, count);
    for (int i = 0; i < net->outputs; i++) {
        rp_real *row = x + i * b->ld;
        for (int s = 0; weights && s < count; s++) row[s] *= weights[s];
        for (int s = count; s < n; s++) row[s] = 0;
    }
}

/* What the curvature of each sample is multiplied by: T_s in the sampled rule. */
static const rp_real *rpi_weight_of(const rpi_buffers *b, const rp_rule *rule) {
    return rule && rule->kind == RP_SAMPLED ? b->total : NULL;
}

/* With d and h of the output in place: everything from there to finite gradient and curvature, which then wait in d and v of
   every slot (Jacobian: the curvature in net->sums). Changes nothing but scratch. */
static rp_status rpi_backward_pass(rp_net *net, const char *who, int count, const rp_real *weights, const rp_rule *rule,
                                   int separable) {
    const rpi_buffers *b = &net->buffers;
    int n = rpi_columns(b, count), second = rule && rule->kind != RP_JACOBIAN;
    rp_real *v = b->v[net->slot_count - 1];
    rp_status status;
    rpi_weigh_rows(net, count, weights, b->d[net->slot_count - 1]);
    if (rule) rpi_weigh_rows(net, count, weights, net->h);
    if (second && rule->kind == RP_PATHS) rpi_flow_at_output(net, rule, separable, count, v);
    if (second && rule->kind == RP_SAMPLED) {
        if (separable) b->kernels->signs(net->outputs, n, net->h, v, b->ld, &net->random);
        else rpi_draw_classes(net, count, v);
    }
    if (second) rpi_weigh_rows(net, count, NULL, v);
    rpi_sweep_back(net, b, n, 1, second, second && rule->kind == RP_SAMPLED ? RPI_PLAIN : RPI_BOUND, NULL);
    if (second && rule->kind == RP_SAMPLED) rpi_reach(net, rule, n);
    status = rpi_check_finite(net, who, count, 1, second, rpi_weight_of(b, rule));
    if (!status && rule && !second) status = rpi_jacobian(net, who, rule, separable, count);
    return status;
}

/* Forward over a batch, to its loss; its second derivative in net->h for a rule, or (exact) for products. */
static rp_status rpi_value(rp_net *net, const char *who, const rp_data *batch, rpi_keep keep, int exact,
                           const rp_rule *rule, double *loss) {
    const rpi_buffers *b = &net->buffers;
    rp_status status = rpi_check_data(net, who, batch, net->batch);
    if (!status && rule) status = rpi_check_rule(net, who, "", rule);
    if (status) return status;
    net->forward_count = 0;
    rpi_load_rows(b, batch->inputs, batch->count, net->inputs, b->y[0]);
    rpi_forward(net, b, rpi_columns(b, batch->count), keep, rule);
    *loss = rpi_evaluate_loss(net, b, batch, rule || exact ? net->h : NULL, exact) / batch->count;
    if (rpi_finite_double(*loss) && rpi_finite((rp_real)*loss)) return RP_OK;
    status = rpi_check_forward(net, who, rpi_columns(b, batch->count));
    return status ? status : rpi_fail(net, RP_ERR_NOT_FINITE, "%s: the loss is %g; nothing was changed", who, *loss);
}

/* Forward, loss and backward over a batch. */
static rp_status rpi_differentiate(rp_net *net, const char *who, const rp_data *batch, rpi_keep keep,
                                   const rp_rule *rule, double *loss) {
    rp_status status = rpi_value(net, who, batch, keep, 0, rule, loss);
    return status ? status
                  : rpi_backward_pass(net, who, batch->count, batch->weights, rule, rpi_losses[net->loss].separable);
}

/* From a successful backward pass into the flat arrays. */
static void rpi_fill_arrays(rp_net *net, int count, const rp_rule *rule) {
    int second = rule && rule->kind != RP_JACOBIAN;
    rpi_sink sink;
    memset(&sink, 0, sizeof sink);
    sink.take = net->buffers.kernels->take_arrays;
    sink.gradient = net->gradient;
    sink.curvature = net->curvature;
    for (int i = 0; i < net->layer_count; i++) {
        const rpi_layer *layer = &net->layers[i];
        ptrdiff_t size = layer->weight_count + layer->bias_count;
        if (!layer->frozen) continue;
        rpi_zero(net->gradient + layer->weights, size);
        if (rule) rpi_zero(net->curvature + layer->weights, size);
    }
    rpi_collect(net, &net->buffers, count, 1, second, rule, rpi_weight_of(&net->buffers, rule), &sink);
    if (rule && !second) rpi_copy(net->curvature, net->sums, net->parameter_count);
    net->has_gradient |= 1;
    if (rule) net->has_curvature |= 1;
}

RP_API rp_rule rp_rule_default(void) {
    rp_rule rule = {RP_PATHS, RP_BOUND_TIGHT, RP_SCALE_ONE};
    return rule;
}

RP_API rp_status rp_backward(rp_net *net, const rp_data *batch, const rp_rule *rule, rp_real *loss) {
    uint64_t random = net ? net->random : 0;
    double value;
    rp_status status = rpi_trainable(net, "rp_backward");
    if (!status) status = rpi_differentiate(net, "rp_backward", batch, RPI_KEEP_SLOPES, rule, &value);
    if (status) {
        if (net) net->random = random;
        return status;
    }
    rpi_fill_arrays(net, batch->count, rule);
    if (loss) *loss = (rp_real)value;
    return RP_OK;
}

RP_API rp_status rp_forward(rp_net *net, const rp_real *x, int count) {
    const rpi_buffers *b;
    rp_status status = rpi_trainable(net, "rp_forward");
    if (!status) status = rpi_needs(net, "rp_forward", "x", x);
    if (status) return status;
    if (count < 1 || count > net->batch)
        return rpi_fail(net, RP_ERR_VALUE, "rp_forward: count is %d; it may be 1 to %d", count, net->batch);
    b = &net->buffers;
    rpi_load_rows(b, x, count, net->inputs, b->y[0]);
    rpi_forward(net, b, rpi_columns(b, count), RPI_KEEP_SLOPES, NULL);
    b->kernels->transpose(b->y[net->slot_count - 1], b->ld, net->outputs, count, net->row_output, net->outputs,
                          net->outputs);
    net->forward_count = count;
    return RP_OK;
}

RP_API const rp_real *rp_output(const rp_net *net) { return net && net->forward_count > 0 ? net->row_output : NULL; }

RP_API rp_status rp_backward_from_rule(rp_net *net, const rp_real *output_gradient, const rp_real *output_curvature,
                                       const rp_rule *rule) {
    static const char who[] = "rp_backward_from";
    rp_rule chosen = rule ? *rule : rp_rule_default();
    rp_status status = rpi_trainable(net, who);
    const rpi_buffers *b;
    uint64_t random;
    int count;
    if (!status) status = rpi_needs(net, who, "output_gradient", output_gradient);
    if (!status) status = rpi_check_rule(net, who, "", &chosen);
    if (status) return status;
    count = net->forward_count;
    if (count < 1)
        return rpi_fail(net, RP_ERR_ORDER, "%s: no rp_forward came before, or another call has used the net since",
                        who);
    for (ptrdiff_t i = 0; output_curvature && i < (ptrdiff_t)count * net->outputs; i++)
        if (!rpi_finite(output_curvature[i]) || output_curvature[i] < 0)
            return rpi_fail(net, RP_ERR_VALUE, "%s: output_curvature[%z] is %g; it must be finite and 0 or more", who,
                            i, (double)output_curvature[i]);
    b = &net->buffers;
    net->forward_count = 0;
    rule = output_curvature ? &chosen : NULL;
    if (rule && rule->kind == RP_PATHS)
        rpi_forward(net, b, rpi_columns(b, count), RPI_KEEP_SLOPES, rule); /* now with u */
    rpi_load_rows(b, output_gradient, count, net->outputs, b->d[net->slot_count - 1]);
    if (rule) rpi_load_rows(b, output_curvature, count, net->outputs, net->h);
    random = net->random;
    status = rpi_backward_pass(net, who, count, NULL, rule, 1);
    if (!status) rpi_fill_arrays(net, count, rule);
    else net->random = random;
    return status;
}

RP_API rp_status rp_backward_from(rp_net *net, const rp_real *output_gradient, const rp_real *output_curvature) {
    return rp_backward_from_rule(net, output_gradient, output_curvature, NULL);
}

/* >>tangents
   Derivatives along a direction g, exact. t: of a value, Ry (Pearlmutter's R operator); where a second is carried, t2 is half of it:
   jets f(w + a g) = y + a t + a^2 t2 + ... */

/* What the products keep: each slot's Ry, each step's bend, two vectors of parameters. */
static void rpi_lay_out_tangents(rp_net *net, rpi_arena *arena) {
    rpi_buffers *b = &net->buffers;
    for (int slot = 0; slot < net->slot_count; slot++) {
        rp_real *rows = rpi_claim_rows(arena, rpi_slot_rows(net, slot), b->ld);
        if (arena->base) b->r[slot] = rows;
    }
    for (int i = 0; i < net->step_count; i++) {
        rp_real *rows = b->second[i] ? rpi_claim_rows(arena, net->steps[i].outputs, b->ld) : NULL;
        if (arena->base) b->bend[i] = rows;
    }
    net->spare = rpi_claim_reals(arena, net->parameter_count);
}

static rp_status rpi_prepare_tangents(rp_net *net, const char *who) {
    return net->tangents.base ? RP_OK : rpi_build_block(net, who, &net->tangents, rpi_lay_out_tangents);
}

/* A step's part of t = A(g) x + A(w) t, where x is the value (with g's bias) or, for t2, itself a derivative (without). Only what can
   be other than zero. */
static void rpi_apply_along(const rp_net *net, const rpi_buffers *b, const rpi_step *step, int n, const rp_real *g,
                            rp_real *const *x, int value, rp_real *const *t) {
    rpi_step term = *step;
    term.bias = value && step->bias;
    if (rpi_trains(net, step) && (value || net->live[step->in])) {
        step->map->apply(b, &term, g, n, x[step->in], t[step->out], NULL, NULL, 0);
        term.add = 1;
    }
    term.bias = 0;
    if (net->live[step->in]) {
        step->map->apply(b, &term, net->parameters, n, t[step->in], t[step->out], NULL, NULL, 0);
        term.add = 1;
    }
    if (!term.add) rpi_fill_rows(step->outputs, n, b->ld, NULL, t[step->out] + step->out_row * b->ld);
}

/* t, and t2 or bend (each may be NULL), of every slot above trained parameters. sigma' and sigma'' (bend: sigma'' d) are in place. */
static void rpi_sweep_tangents(const rp_net *net, const rpi_buffers *b, int n, const rp_real *g, rp_real *const *t,
                               rp_real *const *t2, rp_real *const *bend) {
    for (int i = 0; i < net->step_count; i++) {
        const rpi_step *step = &net->steps[i];
        ptrdiff_t row = step->out_row * b->ld;
        rpi_activate_work work;
        if (!net->live[step->out]) continue;
        rpi_apply_along(net, b, step, n, g, b->y, 1, t);
        if (t2) rpi_apply_along(net, b, step, n, g, t, 0, t2);
        if (!step->activation) continue;
        work = rpi_activate_step(b, i, step, n);
        work.way = RPI_TANGENT;
        work.v = t[step->out] + row;
        work.d = t2 ? t2[step->out] + row : NULL;
        work.bend = bend ? bend[i] : NULL;
        rpi_activate_run(&work);
    }
}

/* x = H_f x for each sample, H_f the loss's Hessian by the outputs: diag(h), for softmax diag(h) - h h' / sum(h). */
static void rpi_loss_hessian(const rp_net *net, int n, rp_real *x) {
    const rpi_buffers *b = &net->buffers;
    ptrdiff_t ld = b->ld, end = net->outputs * ld;
    if (rpi_losses[net->loss].separable) {
        b->kernels->weigh(net->outputs, n, x, ld, net->h, ld, 0);
        return;
    }
    for (int s = 0; s < n; s++) {
        const rp_real *h = net->h + s;
        rp_real total = 0, mean = 0;
        for (ptrdiff_t i = 0; i < end; i += ld) {
            total += h[i];
            mean += h[i] * x[i + s];
        }
        mean = total > 0 ? mean / total : 0;
        for (ptrdiff_t i = 0; i < end; i += ld) x[i + s] = h[i] * (x[i + s] - mean);
    }
}

static double rpi_dot_outputs(const rp_net *net, int count, const rp_real *x, const rp_real *y) {
    double sum = 0;
    for (int i = 0; i < net->outputs; i++, x += net->buffers.ld, y += net->buffers.ld)
        sum += net->buffers.kernels->dot(count, x, y);
    return sum;
}

/* The entries that count are finite. */
static rp_status rpi_check_vector(rp_net *net, const char *who, const char *what, const rp_real *x) {
    for (int i = 0; i < net->layer_count; i++) {
        const rpi_layer *layer = &net->layers[i];
        for (ptrdiff_t at = layer->weights; !layer->frozen && at < layer->biases + layer->bias_count; at++)
            if (!rpi_finite(x[at]))
                return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: %s[%z] is %g", who, what, at, (double)x[at]);
    }
    return RP_OK;
}

static void rpi_zero_frozen(const rp_net *net, rp_real *x) {
    for (int i = 0; i < net->layer_count; i++) {
        const rpi_layer *layer = &net->layers[i];
        if (layer->frozen) rpi_zero(x + layer->weights, (layer->weight_count + layer->bias_count));
    }
}

/* The guards of a tool that takes a batch and a vector (which may be of another name, or none). */
static rp_status rpi_tool(rp_net *net, const char *who, const rp_data *batch, const char *name, const rp_real *x,
                          const char *out_name, const void *out) {
    rp_status status = rpi_trainable(net, who);
    if (!status) status = rpi_needs(net, who, "data", batch);
    if (!status && name) status = rpi_needs(net, who, name, x);
    if (!status && out_name) status = rpi_needs(net, who, out_name, out);
    return status || !name ? status : rpi_check_vector(net, who, name, x);
}

/* g'grad f and g'Hg, with y, sigma', sigma'' and the loss's d and h in place: forward only. */
static rp_status rpi_directional(rp_net *net, const char *who, int count, const rp_real *weights, const rp_real *g,
                                 double *first, double *second) {
    const rpi_buffers *b = &net->buffers;
    int n = rpi_columns(b, count), last = net->slot_count - 1;
    rp_real *d = net->row_output, *t = b->v[last];
    ptrdiff_t size = net->outputs * b->ld;
    *first = *second = 0;
    if (!net->live[last]) return RP_OK;
    rpi_weigh_rows(net, count, weights, b->d[last]);
    rpi_weigh_rows(net, count, weights, net->h);
    rpi_copy(d, b->d[last], size);
    rpi_sweep_tangents(net, b, n, g, b->v, b->d, NULL);
    *first = rpi_dot_outputs(net, count, d, t) / count;
    *second = 2 * rpi_dot_outputs(net, count, d, b->d[last]);
    rpi_copy(d, t, size);
    rpi_loss_hessian(net, n, t);
    *second = (*second + rpi_dot_outputs(net, count, d, t)) / count;
    if (rpi_finite_double(*first) && rpi_finite_double(*second)) return RP_OK;
    return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: the derivatives along the direction are %g and %g", who, *first,
                    *second);
}

RP_API rp_status rp_directional(rp_net *net, const rp_data *batch, const rp_real *direction, rp_real *first,
                                rp_real *second) {
    static const char who[] = "rp_directional";
    double loss, a, b;
    rp_status status = rpi_tool(net, who, batch, "direction", direction, NULL, NULL);
    if (!status) status = rpi_value(net, who, batch, RPI_KEEP_CURVES, 1, NULL, &loss);
    if (!status) status = rpi_directional(net, who, batch->count, batch->weights, direction, &a, &b);
    if (status) return status;
    if (!rpi_finite((rp_real)a) || !rpi_finite((rp_real)b))
        return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: the derivatives along the direction are %g and %g: too large", who,
                        a, b);
    if (first) *first = (rp_real)a;
    if (second) *second = (rp_real)b;
    return RP_OK;
}

/* Everything at the present point that products need: y, sigma', the loss's Hessian in net->h; for those with H, d and sigma'' d. */
static rp_status rpi_expand(rp_net *net, const char *who, const rp_data *batch, int gauss_newton) {
    const rpi_buffers *b = &net->buffers;
    int n = 0;
    double loss;
    rp_status status = rpi_prepare_tangents(net, who);
    if (!status) status = rpi_value(net, who, batch, RPI_KEEP_CURVES, 1, NULL, &loss);
    if (status) return status;
    n = rpi_columns(b, batch->count);
    rpi_weigh_rows(net, batch->count, batch->weights, net->h);
    rpi_weigh_rows(net, batch->count, batch->weights, b->d[net->slot_count - 1]);
    if (!gauss_newton) rpi_sweep_back(net, b, n, 1, 0, RPI_FOLDED, NULL);
    return rpi_check_finite(net, who, batch->count, !gauss_newton, 0, NULL);
}

/* out = mean over the samples of (v y' + d r'), r = Ry; the second part only with H. */
static void rpi_collect_product(const rp_net *net, int count, int gauss_newton, rp_real *out) {
    const rpi_buffers *b = &net->buffers;
    rp_real mean = 1 / (rp_real)count;
    rpi_sink sink;
    memset(&sink, 0, sizeof sink);
    sink.gradient = out;
    rpi_zero_frozen(net, out);
    for (int i = 0; i < net->step_count; i++) {
        rpi_step step = net->steps[i];
        if (!rpi_trains(net, &step) || !step.collects) continue;
        sink.take = b->kernels->take_arrays;
        step.map->outer(b, &step, count, b->y[step.in], b->v[step.out], NULL, NULL, 0, mean, mean, &sink);
        if (gauss_newton || !net->live[step.in]) continue;
        sink.take = b->kernels->take_sum;
        step.bias = 0; /* its input is 1 whatever the direction */
        step.map->outer(b, &step, count, b->r[step.in], b->d[step.out], NULL, NULL, 0, mean, mean, &sink);
    }
}

/* net->sums = H g or G g, after rpi_expand. */
static rp_status rpi_multiply(rp_net *net, const char *who, int count, int gauss_newton, const rp_real *g) {
    const rpi_buffers *b = &net->buffers;
    int n = rpi_columns(b, count), last = net->slot_count - 1;
    if (net->live[last]) {
        rpi_sweep_tangents(net, b, n, g, b->r, NULL, gauss_newton ? NULL : b->bend);
        rpi_copy(b->v[last], b->r[last], net->outputs * b->ld);
        rpi_loss_hessian(net, n, b->v[last]);
        if (gauss_newton) rpi_sweep_back(net, b, n, 0, 1, RPI_PLAIN, NULL);
        else rpi_sweep_back(net, b, n, 0, 1, RPI_BENT, g);
    }
    rpi_collect_product(net, count, gauss_newton, net->sums);
    if (rpi_all_finite(net->sums, net->parameter_count)) return RP_OK;
    return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: a product with the %s is not finite", who,
                    gauss_newton ? "Gauss-Newton matrix" : "Hessian");
}

static rp_status rpi_product_with(rp_net *net, const char *who, const rp_data *batch, int gauss_newton,
                                  const rp_real *v, rp_real *out) {
    rp_status status = rpi_tool(net, who, batch, "v", v, "out", out);
    if (!status) status = rpi_expand(net, who, batch, gauss_newton);
    if (!status) status = rpi_multiply(net, who, batch->count, gauss_newton, v);
    if (!status) rpi_copy(out, net->sums, net->parameter_count);
    return status;
}
RP_API rp_status rp_hessian_vector(rp_net *net, const rp_data *batch, const rp_real *v, rp_real *out) {
    return rpi_product_with(net, "rp_hessian_vector", batch, 0, v, out);
}
RP_API rp_status rp_gauss_newton_vector(rp_net *net, const rp_data *batch, const rp_real *v, rp_real *out) {
    return rpi_product_with(net, "rp_gauss_newton_vector", batch, 1, v, out);
}

/* >>diagonals */

/* A stack of dense layers and activations: each step reads the slot before its own, which nothing else does. */
static int rpi_stack(const rp_net *net) {
    for (int i = 0; i < net->step_count; i++) {
        const rpi_step *step = &net->steps[i];
        if (step->in != i || step->out != i + 1 || step->add || step->inputs != net->slot_rows[i]) return 0;
        if (step->map != &rpi_dense_map && step->map != &rpi_copy_map) return 0;
    }
    return 1;
}

/* net->sums = column i of H or G, after rpi_expand; net->spare is 0 before and after. */
static rp_status rpi_multiply_unit(rp_net *net, const char *who, int count, int gauss_newton, ptrdiff_t i) {
    rp_status status;
    net->spare[i] = 1;
    status = rpi_multiply(net, who, count, gauss_newton, net->spare);
    net->spare[i] = 0;
    return status;
}

/* H or G as a matrix with rows ld apart, by a product for each parameter, after rpi_expand. Exactly symmetric. */
static rp_status rpi_form_matrix(rp_net *net, const char *who, int count, int gauss_newton, rp_real *out,
                                 ptrdiff_t ld) {
    ptrdiff_t n = net->parameter_count;
    rpi_zero(net->spare, n);
    for (ptrdiff_t i = 0; i < n; i++) {
        rp_status status = rpi_multiply_unit(net, who, count, gauss_newton, i);
        if (status) return status;
        rpi_copy(out + i * ld, net->sums, n);
        for (ptrdiff_t j = 0; j < i; j++) out[i * ld + j] = out[j * ld + i] = (out[i * ld + j] + out[j * ld + i]) / 2;
    }
    return RP_OK;
}

RP_API rp_status rp_hessian_matrix(rp_net *net, const rp_data *batch, size_t most, rp_real *out) {
    static const char who[] = "rp_hessian_matrix";
    rp_status status = rpi_tool(net, who, batch, NULL, NULL, "out", out);
    if (!status && (size_t)net->parameter_count > most)
        return rpi_fail(net, RP_ERR_VALUE, "%s: the net has %z parameters, but most is %z", who, net->parameter_count,
                        most);
    if (!status) status = rpi_expand(net, who, batch, 0);
    return status ? status : rpi_form_matrix(net, who, batch->count, 0, out, net->parameter_count);
}

static void rpi_lay_out_recursion(const rp_net *net, rpi_arena *arena, rpi_recursion *r) {
    int widest = net->outputs;
    if (!rpi_stack(net)) {
        r->diagonal = rpi_claim_reals(arena, net->parameter_count);
        return;
    }
    for (int slot = 1; slot < net->slot_count; slot++)
        if (net->slot_rows[slot] > widest) widest = net->slot_rows[slot];
    r->ld = rpi_leading(widest);
    r->s = rpi_claim_rows(arena, widest, r->ld);
    r->left = rpi_claim_rows(arena, widest, r->ld);
    r->turned = rpi_claim_rows(arena, widest, r->ld);
    if (arena->base) rpi_fill_rows(widest, (int)r->ld, r->ld, NULL, r->s);
}

/* S becomes W' S W, as (W' S) turned, then W' of that. */
static void rpi_recursion_below(const rp_net *net, const rpi_step *step, rpi_recursion *r) {
    const rpi_buffers *b = &net->buffers;
    rpi_product q;
    memset(&q, 0, sizeof q);
    q.m = step->inputs;
    q.k = step->outputs;
    q.a = net->parameters + step->weights;
    q.a_row = 1;
    q.a_column = step->inputs;
    q.ldb = q.ldc = r->ld;
    q.a_packed = b->a_packed;
    q.n = rpi_columns(b, step->outputs);
    q.b = r->s;
    q.c = r->left;
    b->kernels->product(&q);
    q.n = rpi_columns(b, step->inputs);
    q.b = r->turned;
    q.c = r->s;
    b->kernels->transpose(r->left, r->ld, step->inputs, step->outputs, r->turned, r->ld, q.n);
    b->kernels->product(&q);
}

/* out = H_f of sample s, rows ld_out apart */
static void rpi_sample_hessian(const rp_net *net, ptrdiff_t s, rp_real *out, ptrdiff_t ld_out) {
    ptrdiff_t ld = net->buffers.ld, outputs = net->outputs;
    const rp_real *h = net->h + s;
    rp_real total = 0;
    for (ptrdiff_t i = 0; i < outputs; i++) total += h[i * ld];
    for (ptrdiff_t i = 0; i < outputs; i++)
        for (ptrdiff_t k = 0; k < outputs; k++) {
            rp_real mixed = rpi_losses[net->loss].separable || !(total > 0) ? 0 : h[i * ld] * (h[k * ld] / total);
            out[i * ld_out + k] = (i == k ? h[i * ld] : 0) - mixed;
        }
}

/* S, the Hessian of sample s by the values before a step's activation: from the step above S = diag(sigma') W' S W diag(sigma') +
   diag(sigma'' d). The second derivative by W_ij is S_ii y_j^2: v = the diagonal of S. */
static void rpi_recur(const rp_net *net, ptrdiff_t s, rpi_recursion *r) {
    const rpi_buffers *b = &net->buffers;
    rpi_sample_hessian(net, s, r->s, r->ld);
    for (int i = net->step_count - 1; i >= 0 && net->live[i + 1]; i--) {
        const rpi_step *step = &net->steps[i];
        ptrdiff_t n = step->outputs, ld = r->ld;
        const rp_real *slope = b->slope[i], *second = b->second[i];
        for (ptrdiff_t a = 0; slope && a < n; a++) {
            for (ptrdiff_t c = 0; c < n; c++) r->s[a * ld + c] *= slope[a * b->ld + s] * slope[c * b->ld + s];
            if (second) r->s[a * ld + a] += second[a * b->ld + s];
        }
        if (rpi_trains(net, step))
            for (ptrdiff_t a = 0; a < n; a++) b->v[i + 1][a * b->ld + s] = r->s[a * ld + a];
        if (net->live[i] && step->map == &rpi_dense_map) rpi_recursion_below(net, step, r);
    }
}

/* net->sums = mean over the samples of v (y^2)' */
static void rpi_collect_squares(const rp_net *net, int count) {
    const rpi_buffers *b = &net->buffers;
    rp_real mean = 1 / (rp_real)count;
    int n = rpi_columns(b, count);
    rpi_sink sink;
    memset(&sink, 0, sizeof sink);
    sink.take = b->kernels->take_arrays;
    sink.gradient = net->sums;
    rpi_zero_frozen(net, net->sums);
    for (int i = 0; i < net->step_count; i++) {
        const rpi_step *step = &net->steps[i];
        if (!rpi_trains(net, step)) continue;
        rpi_copy(b->r[i], b->y[i], rpi_slot_rows(net, i) * b->ld);
        b->kernels->weigh(net->slot_rows[i], n, b->r[i], b->ld, b->r[i], b->ld, 0);
        step->map->outer(b, step, count, b->r[i], b->v[i + 1], NULL, NULL, 0, mean, mean, &sink);
    }
}

static rp_status rpi_check_sums(rp_net *net, const char *who, const char *what) {
    if (rpi_all_finite(net->sums, net->parameter_count)) return RP_OK;
    return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: %s is not finite, or too large", who, what);
}

/* Memory for one call: a layout runs for its size, then on this block. */
static rp_status rpi_temporary(rp_net *net, const char *who, rpi_block *block, rpi_arena *arena) {
    if (arena->overflow)
        return rpi_fail(net, RP_ERR_OVERFLOW, "%s: its matrices need more memory than can be addressed", who);
    if (!rpi_block_new(&net->memory, block, arena->used))
        return rpi_fail(net, RP_ERR_MEMORY, "%s: no memory for %z bytes", who, arena->used);
    arena->base = block->base;
    arena->used = 0;
    return RP_OK;
}

/* By a product for each parameter. */
static rp_status rpi_product_diagonal(rp_net *net, const char *who, int count, rp_real *diagonal) {
    ptrdiff_t n = net->parameter_count;
    rp_status status = RP_OK;
    rpi_zero(net->spare, n);
    for (ptrdiff_t i = 0; !status && i < n; i++) {
        status = rpi_multiply_unit(net, who, count, 0, i);
        diagonal[i] = net->sums[i];
    }
    rpi_copy(net->sums, diagonal, n);
    return status;
}

/* net->sums = the diagonal of H */
static rp_status rpi_hessian_diagonal(rp_net *net, const char *who, const rp_data *batch, rpi_recursion *r) {
    rp_status status = rpi_expand(net, who, batch, 0);
    int stack = rpi_stack(net);
    if (!status && !stack) status = rpi_product_diagonal(net, who, batch->count, r->diagonal);
    if (status) return status;
    for (int s = 0; s < batch->count && stack; s++) rpi_recur(net, s, r);
    if (stack) rpi_collect_squares(net, batch->count);
    return rpi_check_sums(net, who, "the diagonal");
}

RP_API rp_status rp_hessian_diagonal(rp_net *net, const rp_data *batch, rp_real *out) {
    static const char who[] = "rp_hessian_diagonal";
    rpi_recursion r;
    rpi_arena arena = {NULL, 0, 0};
    rpi_block block = {NULL, NULL, 0};
    rp_status status = rpi_tool(net, who, batch, NULL, NULL, "out", out);
    if (!status) status = rpi_check_data(net, who, batch, net->batch);
    if (status) return status;
    rpi_lay_out_recursion(net, &arena, &r);
    status = rpi_temporary(net, who, &block, &arena);
    if (status) return status;
    rpi_lay_out_recursion(net, &arena, &r);
    status = rpi_hessian_diagonal(net, who, batch, &r);
    if (!status) rpi_copy(out, net->sums, net->parameter_count);
    rpi_block_free(&net->memory, &block);
    return status;
}

/* sum = (1/S) sum_s weight[s] (each sample's own v y')^2 into net->sums, added up */
static void rpi_collect_own_squares(const rp_net *net, int count, rp_real *const *v) {
    const rpi_buffers *b = &net->buffers;
    rpi_sink sink;
    memset(&sink, 0, sizeof sink);
    sink.take = b->kernels->take_sum;
    sink.curvature = net->sums;
    for (int i = 0; i < net->step_count; i++) {
        const rpi_step *step = &net->steps[i];
        if (rpi_trains(net, step) && step->collects)
            step->map->outer(b, step, count, b->y[step->in], NULL, v[step->out], b->ones, 1, 1, 1 / (rp_real)count,
                             &sink);
    }
}

/* Column k of a factor C of the loss's Hessian, C C' = H_f: sqrt(h_k) e_k, for softmax sqrt(h_k) (e_k - h / sum(h)). */
static void rpi_factor_column(const rp_net *net, int count, int k, rp_real *e) {
    const rpi_buffers *b = &net->buffers;
    ptrdiff_t ld = b->ld, end = net->outputs * ld, at = k * ld;
    rpi_fill_rows(net->outputs, rpi_columns(b, count), ld, NULL, e);
    for (ptrdiff_t s = 0; s < count; s++) {
        rp_real root = RPI_MATH(sqrt)(net->h[at + s]), total = 0;
        for (ptrdiff_t i = s; i < end && !rpi_losses[net->loss].separable; i += ld) total += net->h[i];
        for (ptrdiff_t i = s; i < end && total > 0; i += ld) e[i] = -root * (net->h[i] / total);
        e[at + s] += root;
    }
}

RP_API rp_status rp_gauss_newton_diagonal(rp_net *net, const rp_data *batch, rp_real *out) {
    static const char who[] = "rp_gauss_newton_diagonal";
    const rpi_buffers *b = net ? &net->buffers : NULL;
    rp_status status = rpi_tool(net, who, batch, NULL, NULL, "out", out);
    if (!status) status = rpi_expand(net, who, batch, 1);
    if (status) return status;
    rpi_zero(net->sums, net->parameter_count);
    for (int k = 0; k < net->outputs && net->live[net->slot_count - 1]; k++) {
        rpi_factor_column(net, batch->count, k, b->v[net->slot_count - 1]);
        rpi_sweep_back(net, b, rpi_columns(b, batch->count), 0, 1, RPI_PLAIN, NULL);
        rpi_collect_own_squares(net, batch->count, b->v);
    }
    status = rpi_check_sums(net, who, "the diagonal");
    if (!status) rpi_copy(out, net->sums, net->parameter_count);
    return status;
}

/* >>samples */

/* Gradients in d of every slot, and in b->total each sample's own |gradient|^2. */
static rp_status rpi_square_norms(rp_net *net, const char *who, const rp_data *batch) {
    const rpi_buffers *b = &net->buffers;
    int n = 0;
    double loss;
    rp_status status = rpi_differentiate(net, who, batch, RPI_KEEP_SLOPES, NULL, &loss);
    if (status) return status;
    n = rpi_columns(b, batch->count);
    rpi_zero(b->total, n);
    for (int i = 0; i < net->step_count; i++) {
        const rpi_step *step = &net->steps[i];
        if (rpi_trains(net, step) && step->collects)
            step->map->reach(b, step, n, b->y[step->in], b->d[step->out], 1, 1, b->total);
    }
    for (int s = 0; s < batch->count; s++)
        if (!rpi_finite(b->total[s]))
            return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: the gradient's square is not finite at sample %d", who, s);
    return RP_OK;
}

RP_API rp_status rp_sample_gradient_norms(rp_net *net, const rp_data *batch, rp_real *norms) {
    static const char who[] = "rp_sample_gradient_norms";
    rp_status status = rpi_tool(net, who, batch, NULL, NULL, "norms", norms);
    if (!status) status = rpi_square_norms(net, who, batch);
    for (int s = 0; !status && s < batch->count; s++) norms[s] = RPI_MATH(sqrt)(net->buffers.total[s]);
    return status;
}

/* variance = sum_s (g_s - g)^2 / (S - 1) = (sum_s g_s^2 - S g^2) / (S - 1), where sums holds g and then the mean of the squares */
static rp_status rpi_sample_variance(rp_net *net, const char *who, int count) {
    ptrdiff_t n = net->parameter_count;
    rp_real scale = (rp_real)count / (rp_real)(count - 1);
    rpi_copy(net->spare, net->sums, n);
    rpi_zero(net->sums, n);
    rpi_collect_own_squares(net, count, net->buffers.d);
    for (ptrdiff_t i = 0; i < n; i++) {
        rp_real rest = net->sums[i] - net->spare[i] * net->spare[i];
        net->sums[i] = rest < 0 ? 0 : scale * rest; /* rounding can leave a little less than 0 */
    }
    return rpi_check_sums(net, who, "the variance");
}

RP_API rp_status rp_gradient_noise(rp_net *net, const rp_data *batch, rp_noise *noise, rp_real *variance) {
    static const char who[] = "rp_gradient_noise";
    double squares = 0, mean, spread;
    rpi_sink sink;
    int count;
    rp_status status = rpi_tool(net, who, batch, NULL, NULL, "noise", noise);
    if (!status && variance) status = rpi_prepare_tangents(net, who);
    if (!status) status = rpi_square_norms(net, who, batch);
    if (status) return status;
    count = batch->count;
    if (count < 2) return rpi_fail(net, RP_ERR_VALUE, "%s: data.count is 1; noise needs 2 samples or more", who);
    for (int s = 0; s < count; s++) squares += (double)net->buffers.total[s];
    memset(&sink, 0, sizeof sink);
    sink.take = net->buffers.kernels->take_arrays;
    sink.gradient = net->sums;
    rpi_zero_frozen(net, net->sums);
    rpi_collect(net, &net->buffers, count, 1, 0, NULL, NULL, &sink);
    mean = net->buffers.kernels->dot(net->parameter_count, net->sums, net->sums);
    spread = (squares - count * mean) / (count - 1);
    spread = spread > 0 ? spread : 0;
    if (!rpi_finite((rp_real)mean) || !rpi_finite((rp_real)spread))
        return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: the squares %g and %g are too large", who, mean, spread);
    if (variance) status = rpi_sample_variance(net, who, count);
    if (status) return status;
    if (variance) rpi_copy(variance, net->sums, net->parameter_count);
    noise->gradient = (rp_real)mean;
    noise->variance = (rp_real)spread;
    noise->signal = (rp_real)(mean - spread / count);
    noise->scale = noise->signal > 0 ? noise->variance / noise->signal : 0;
    if (!rpi_finite(noise->scale)) noise->scale = 0;
    return RP_OK;
}

/* Rows for one sample's factors. */
typedef struct rpi_factors {
    rp_real *d, *y, *states;
} rpi_factors;

static void rpi_lay_out_factors(const rp_net *net, rpi_arena *arena, rpi_factors *rows) {
    ptrdiff_t most = 0;
    for (int slot = 0; slot < net->slot_count; slot++)
        if (rpi_slot_rows(net, slot) > most) most = rpi_slot_rows(net, slot);
    rows->d = rpi_claim_reals(arena, most);
    rows->y = rpi_claim_reals(arena, most);
    rows->states = rpi_claim_reals(arena, most);
}

/* Sample s of a slot, rows from `from` on, as one row. */
static void rpi_gather_sample(const rpi_buffers *b, const rp_real *slot, int from, int rows, int s, rp_real *out) {
    for (int i = 0; i < rows; i++) out[i] = slot[(from + i) * b->ld + s];
}

/* The factors of one layer, from its steps: the one that reads its input, and the last of those that read its own states. */
static void rpi_gather_factors(const rp_net *net, int layer, int s, rpi_factors *rows, rp_sample_factors *factors) {
    const rpi_buffers *b = &net->buffers;
    const rpi_layer *l = &net->layers[layer];
    factors->sample = s;
    factors->layer = layer;
    factors->d = rows->d;
    factors->y = factors->states = NULL;
    for (int i = 0; i < net->step_count; i++) {
        const rpi_step *step = &net->steps[i];
        int size = net->slot_rows[step->out], first = l->kind == RPI_RECURSIVE ? l->units : 0;
        if (step->layer != layer || !rpi_trains(net, step) || !step->collects) continue;
        rpi_gather_sample(b, b->d[step->out], first, size - first, s, rows->d);
        if (step->in != step->out) {
            rpi_gather_sample(b, b->y[step->in], 0, net->slot_rows[step->in], s, rows->y);
            factors->y = rows->y;
            continue;
        }
        for (int k = 0; k < l->units; k++) rows->states[k] = 0; /* the state before a recurrent layer's first */
        rpi_gather_sample(b, b->y[step->out], 0, size - l->units, s, rows->states + l->units - first);
        factors->states = rows->states;
    }
}

RP_API rp_status rp_sample_gradients(rp_net *net, const rp_data *batch, rp_each_sample each, void *user) {
    static const char who[] = "rp_sample_gradients";
    rpi_factors rows;
    rpi_arena arena = {NULL, 0, 0};
    rpi_block block = {NULL, NULL, 0};
    int stopped = 0;
    double loss;
    rp_status status = rpi_tool(net, who, batch, NULL, NULL, NULL, NULL);
    if (!status && !each) return rpi_fail(net, RP_ERR_NULL, "%s: each is NULL", who);
    if (!status) status = rpi_differentiate(net, who, batch, RPI_KEEP_SLOPES, NULL, &loss);
    if (status) return status;
    rpi_lay_out_factors(net, &arena, &rows);
    status = rpi_temporary(net, who, &block, &arena);
    if (status) return status;
    rpi_lay_out_factors(net, &arena, &rows);
    for (int s = 0; s < batch->count && !stopped && !status; s++)
        for (int layer = 0; layer < net->layer_count && !stopped && !status; layer++) {
            rp_sample_factors factors;
            if (!net->layers[layer].affine || net->layers[layer].frozen) continue;
            rpi_gather_factors(net, layer, s, &rows, &factors);
            net->forward_count = RPI_BUSY;
            stopped = each(user, &factors);
            status = rpi_still_busy(net, who, "each");
        }
    rpi_block_free(&net->memory, &block);
    return status || !stopped ? status : rpi_fail(net, RP_ERR_STOPPED, "%s: each returned %d", who, stopped);
}

/* >>solve
   (A + damping I) x = b, A the Hessian or the Gauss-Newton matrix, on the trained parameters. */
typedef struct rpi_system {
    rp_net *net;
    const char *who;
    int count, gauss_newton, products;
    rp_real damping;
} rpi_system;

/* out = (A + damping I) x */
static rp_status rpi_system_times(rpi_system *system, const rp_real *x, rp_real *out) {
    rp_net *net = system->net;
    rp_status status = rpi_multiply(net, system->who, system->count, system->gauss_newton, x);
    system->products++;
    if (status) return status;
    rpi_copy(out, net->sums, net->parameter_count);
    net->buffers.kernels->blend(net->parameter_count, system->damping, x, NULL, 1, out);
    rpi_zero_frozen(net, out);
    return RP_OK;
}

static double rpi_norm(const rp_net *net, const rp_real *x) {
    return sqrt(net->buffers.kernels->dot(net->parameter_count, x, x));
}

/* inverse = 1 / (curvature + damping), kept away from 0. Where the curvature cannot be had (it overflows): 1. */
static void rpi_precondition(rp_net *net, const char *who, const rp_data *batch, const rp_rule *rule, rp_real damping,
                             rp_real *inverse) {
    const rpi_buffers *b = &net->buffers;
    uint64_t random = net->random;
    rp_real most = 0;
    double loss;
    rpi_sink sink;
    memset(&sink, 0, sizeof sink);
    rpi_zero(inverse, net->parameter_count);
    sink.take = b->kernels->take_arrays;
    sink.curvature = inverse;
    if (!rpi_differentiate(net, who, batch, RPI_KEEP_SLOPES, rule, &loss)) {
        if (rule->kind == RP_JACOBIAN) rpi_copy(inverse, net->sums, net->parameter_count);
        else rpi_collect(net, b, batch->count, 0, 1, rule, rpi_weight_of(b, rule), &sink);
    }
    net->random = random;
    net->error[0] = 0;
    for (ptrdiff_t i = 0; i < net->parameter_count; i++) most = inverse[i] > most ? inverse[i] : most;
    most = most > 0 ? most * (rp_real)1e-6 : 1;
    for (ptrdiff_t i = 0; i < net->parameter_count; i++) inverse[i] = 1 / (inverse[i] + damping + most);
}

/* Gaussian elimination with row pivoting: the first `pivots` columns of A, [rows][width], become L and U, and what follows in the
   other columns is done to these. In blocks of columns; rows hold whole vectors. */
#define RPI_LU_BLOCK 32
typedef struct rpi_lu {
    int rows, pivots, width;
    ptrdiff_t ld;
    rp_real *a, *packed; /* packed: scratch [rows][RPI_LU_BLOCK] */
    int *pivot;          /* row that was swapped with row i */
} rpi_lu;

static void rpi_lay_out_lu(rpi_arena *arena, rpi_lu *lu, int rows, int pivots, int width) {
    lu->rows = rows;
    lu->pivots = pivots;
    lu->width = width;
    lu->ld = rpi_leading(width + RPI_LINE_REALS); /* whole vectors from any column on */
    lu->a = rpi_claim_rows(arena, rows, lu->ld);
    lu->packed = rpi_claim_rows(arena, rows, RPI_LU_BLOCK);
    lu->pivot = (int *)rpi_claim(arena, pivots, sizeof *lu->pivot);
}

static void rpi_lu_swap(rp_real *a, rp_real *b, ptrdiff_t n) {
    for (ptrdiff_t i = 0; a != b && i < n; i++) {
        rp_real c = a[i];
        a[i] = b[i];
        b[i] = c;
    }
}

/* Columns k..end - 1 over all rows below; 0: the matrix is singular to working precision. */
static int rpi_lu_panel(const rpi_buffers *b, rpi_lu *lu, int k, int end) {
    for (int j = k; j < end; j++) {
        rp_real *top = lu->a + j * lu->ld, most = 0;
        lu->pivot[j] = j;
        for (int i = j; i < lu->rows; i++) {
            rp_real size = RPI_MATH(fabs)(lu->a[i * lu->ld + j]);
            if (size > most) {
                most = size;
                lu->pivot[j] = i;
            }
        }
        if (!(most > 0) || !rpi_finite(most)) return 0;
        rpi_lu_swap(top, lu->a + lu->pivot[j] * lu->ld, lu->ld);
        for (int i = j + 1; i < lu->rows; i++) {
            rp_real *row = lu->a + i * lu->ld;
            row[j] /= top[j];
            b->kernels->blend((end - j - 1), -row[j], top + j + 1, NULL, 1, row + j + 1);
        }
    }
    return 1;
}

static int rpi_lu_factor(const rpi_buffers *b, rpi_lu *lu) {
    for (int k = 0, end; k < lu->pivots; k = end) {
        rpi_product q;
        end = k + RPI_LU_BLOCK < lu->pivots ? k + RPI_LU_BLOCK : lu->pivots;
        if (!rpi_lu_panel(b, lu, k, end)) return 0;
        for (int i = k + 1; i < end; i++)
            for (int p = k; p < i; p++)
                b->kernels->blend((lu->width - end), -lu->a[i * lu->ld + p], lu->a + p * lu->ld + end, NULL, 1,
                                  lu->a + i * lu->ld + end);
        memset(&q, 0, sizeof q);
        q.m = lu->rows - end;
        q.n = rpi_columns(b, lu->width - end);
        q.k = end - k;
        q.add = 1;
        if (!q.m || !q.n) continue;
        for (int i = end; i < lu->rows; i++)
            b->kernels->blend(q.k, -1, lu->a + i * lu->ld + k, NULL, 0, lu->packed + (ptrdiff_t)i * RPI_LU_BLOCK);
        q.a = lu->packed + (ptrdiff_t)end * RPI_LU_BLOCK;
        q.a_row = RPI_LU_BLOCK;
        q.a_column = 1;
        q.a_packed = b->a_packed;
        q.b = lu->a + k * lu->ld + end;
        q.c = lu->a + end * lu->ld + end;
        q.ldb = q.ldc = lu->ld;
        rpi_product_run(b, &q);
    }
    return 1;
}

/* The same to a right-hand side, [rows]. */
static void rpi_lu_forward(const rpi_buffers *b, const rpi_lu *lu, rp_real *x) {
    for (int i = 0; i < lu->pivots; i++) rpi_lu_swap(x + i, x + lu->pivot[i], 1);
    for (int i = 1; i < lu->rows; i++)
        x[i] -= (rp_real)b->kernels->dot((i < lu->pivots ? i : lu->pivots), lu->a + i * lu->ld, x);
}

/* x, [width], of which what lies behind the pivots is known: their right-hand sides become the solution. */
static void rpi_lu_backward(const rpi_buffers *b, const rpi_lu *lu, rp_real *x) {
    for (int i = lu->pivots - 1; i >= 0; i--) {
        const rp_real *row = lu->a + i * lu->ld;
        x[i] = (x[i] - (rp_real)b->kernels->dot((lu->width - i - 1), row + i + 1, x + i + 1)) / row[i];
    }
}

/* The direct method (the plan of Conjugate, on a stack). Row l of (H + damping I) X = B says, with y~ = (y, 1) and S samples,
       X_l = (B_l - (1/S) sum_r [Rd_l,r y~_r' + d_l,r (Ry_r, 0)']) / damping,
   so that X can be eliminated from the R-forward and R-backward passes. What remains are, for each step and all samples at once,
   z = Rz_l and r = Rd_l, coupled through y~_r'y~_s and d_r'd_s (k = 1 / (damping S)):
       z_l + N_l r_l = f_l + C_l z_(l-1)           N_l: k y~_r'y~_s for each unit
       G_l z_l + r_l = e_l + C_(l+1)' r_(l+1)      G_l: k sigma'_r sigma'_s d_r'd_s of the step above, - sigma'' d; - H_f at the top
       (C_l z)_(i,s) = sum_j W_ij sigma'_js z_js - k sum_r d_ir sum_j y_js sigma'_jr z_jr
   From below, each step hands over as many equations A z_l + B r_l = c as it has unknowns (A = I, B = N, c = f at the first). With r_l
   from the second row they and those of the step above are
       | A - B G  |       | 0   B C_(l+1)' | | z_(l+1) |   | c - B e_l |
       | -C_(l+1) | z_l + | I   N_(l+1)    | | r_(l+1) | = | f_(l+1)   |,
   from which z_l is eliminated, with pivots from both; what is left is for the next. Unknown (i, s) has the index i S + s. With G in
   the place of H, sigma'' d and d are left out. */
typedef struct rpi_direct_step {
    int m; /* unknowns: units times samples */
    rpi_lu lu;
    const rp_real *equations; /* [m][2 m]: A, B; rows ld apart */
    ptrdiff_t ld;
    rp_real *g; /* for each unit [S][S], at the top for each sample [units][units] */
    rp_real *x; /* a right-hand side, then the solution, of lu */
    rp_real *z, *r, *f, *e, *c;
} rpi_direct_step;
typedef struct rpi_direct {
    rpi_system *system;
    rpi_direct_step *steps;
    rp_real *first;                /* equations of the first step */
    rp_real *x, *y, *q, *minus_kd; /* scratch: two matrices of the widest step, [S S][ld], [widest][batch ld] */
    ptrdiff_t ld;
} rpi_direct;

static void rpi_lay_out_direct(const rpi_system *system, rpi_arena *arena, rpi_direct *direct) {
    const rp_net *net = system->net;
    ptrdiff_t steps = net->step_count, count = system->count;
    int most = 0, widest = 0;
    direct->steps = (rpi_direct_step *)rpi_claim(arena, steps, sizeof *direct->steps);
    for (int i = 0; i < net->step_count; i++) {
        rpi_direct_step here;
        int units = net->steps[i].outputs, top = i == net->step_count - 1,
            above = top ? 0 : net->steps[i + 1].outputs * system->count;
        rp_real *vectors;
        memset(&here, 0, sizeof here);
        here.m = units * system->count;
        rpi_lay_out_lu(arena, &here.lu, here.m + above, here.m, here.m + 2 * above);
        here.g = rpi_claim_rows(arena, here.m, top ? units : count);
        vectors = rpi_claim_rows(arena, 6, here.lu.ld);
        if (units > widest) widest = units;
        if (here.m > most) most = here.m;
        if (!arena->base) continue;
        here.x = vectors;
        here.z = here.x + here.lu.ld;
        here.r = here.z + here.lu.ld;
        here.f = here.r + here.lu.ld;
        here.e = here.f + here.lu.ld;
        here.c = here.e + here.lu.ld;
        direct->steps[i] = here;
    }
    direct->ld = rpi_leading(most);
    direct->first = rpi_claim_rows(arena, net->steps[0].outputs * count, 2 * direct->ld);
    direct->x = rpi_claim_rows(arena, most, direct->ld);
    direct->y = rpi_claim_rows(arena, most, direct->ld);
    direct->q = rpi_claim_rows(arena, count * count, direct->ld);
    direct->minus_kd = rpi_claim_rows(arena, widest, net->buffers.ld);
}

/* out = x'x for the columns of x [rows][ld]: [count][count], times scale, added to `start` */
static void rpi_gram(const rpi_buffers *b, int rows, int count, const rp_real *x, rp_real start, rp_real scale,
                     rp_real *out) {
    ptrdiff_t n = count;
    for (ptrdiff_t i = 0; i < n * n; i++) out[i] = start * scale;
    for (int j = 0; j < rows; j++, x += b->ld)
        for (ptrdiff_t r = 0; r < n; r++) b->kernels->blend(n, scale * x[r], x, NULL, 1, out + r * n);
}

static const rp_real *rpi_row_or_one(const rpi_buffers *b, rp_real *const *rows, int i, ptrdiff_t unit) {
    return rows[i] ? rows[i] + unit * b->ld : b->ones;
}

/* The part of step i's d in the equations: not with the Gauss-Newton matrix, nor where nothing is trained. */
static int rpi_direct_couples(const rpi_direct *direct, int i) {
    return i < direct->system->net->step_count && !direct->system->gauss_newton &&
           rpi_trains(direct->system->net, &direct->system->net->steps[i]);
}

/* G of step i. */
static void rpi_direct_g(const rpi_direct *direct, int i) {
    const rp_net *net = direct->system->net;
    const rpi_buffers *b = &net->buffers;
    const rpi_step *step = &net->steps[i];
    ptrdiff_t count = direct->system->count, units = step->outputs;
    rp_real *g = direct->steps[i].g, scale = 1 / (direct->system->damping * (rp_real)count), *gram = direct->q;
    int top = i == net->step_count - 1, couples = rpi_direct_couples(direct, i + 1);
    if (couples) rpi_gram(b, net->steps[i + 1].outputs, (int)count, b->d[i + 2], 0, scale, gram);
    for (ptrdiff_t s = 0; top && s < count; s++) {
        rpi_sample_hessian(net, s, direct->x, direct->ld);
        for (ptrdiff_t a = 0; a < units; a++)
            for (ptrdiff_t k = 0; k < units; k++)
                g[(s * units + a) * units + k] = -direct->x[a * direct->ld + k] * rpi_row_or_one(b, b->slope, i, a)[s] *
                                                 rpi_row_or_one(b, b->slope, i, k)[s];
    }
    for (ptrdiff_t a = 0; a < units; a++) {
        const rp_real *slope = rpi_row_or_one(b, b->slope, i, a),
                      *second = b->second[i] && !direct->system->gauss_newton ? b->second[i] + a * b->ld : NULL;
        for (ptrdiff_t s = 0; !top && s < count; s++)
            for (ptrdiff_t r = 0; r < count; r++)
                g[(a * count + s) * count + r] = couples ? gram[s * count + r] * slope[s] * slope[r] : 0;
        for (ptrdiff_t s = 0; second && s < count; s++)
            g[top ? (s * units + a) * units + a : (a * count + s) * count + s] -= second[s];
    }
}

/* out = G x, for `columns` columns */
static void rpi_direct_times_g(const rpi_direct *direct, int i, const rp_real *x, ptrdiff_t ldx, rp_real *out,
                               ptrdiff_t ldo, int columns) {
    const rp_net *net = direct->system->net;
    const rpi_buffers *b = &net->buffers;
    ptrdiff_t count = direct->system->count, units = net->steps[i].outputs;
    int top = i == net->step_count - 1;
    rpi_product q;
    memset(&q, 0, sizeof q);
    q.m = q.k = (int)(top ? units : count);
    q.n = rpi_columns(b, columns);
    q.a_row = q.m;
    q.a_column = 1;
    q.a_packed = b->a_packed;
    q.ldb = (top ? count : 1) * ldx;
    q.ldc = (top ? count : 1) * ldo;
    for (ptrdiff_t k = 0; k < (top ? count : units); k++) {
        q.a = direct->steps[i].g + k * q.m * q.m;
        q.b = x + (top ? k : k * count) * ldx;
        q.c = out + (top ? k : k * count) * ldo;
        rpi_product_run(b, &q);
    }
}

/* out = C_i x (m rows from those of step i - 1), for `columns` columns; x is overwritten. */
static void rpi_direct_times_c(const rpi_direct *direct, int i, rp_real *x, ptrdiff_t ldx, rp_real *out, ptrdiff_t ldo,
                               int columns) {
    const rp_net *net = direct->system->net;
    const rpi_buffers *b = &net->buffers;
    const rpi_step *step = &net->steps[i];
    ptrdiff_t count = direct->system->count, inputs = step->inputs, outputs = step->outputs, ldq = direct->ld;
    rp_real k = 1 / (direct->system->damping * (rp_real)count);
    rpi_product q;
    memset(&q, 0, sizeof q);
    q.n = rpi_columns(b, columns);
    q.a_packed = b->a_packed;
    for (ptrdiff_t j = 0; j < inputs; j++)
        for (ptrdiff_t s = 0; s < count && b->slope[i - 1]; s++) {
            rp_real *row = x + (j * count + s) * ldx;
            b->kernels->blend(columns, b->slope[i - 1][j * b->ld + s], row, NULL, 0, row);
        }
    for (ptrdiff_t s = 0; s < count; s++) {
        if (step->map != &rpi_dense_map) {
            for (ptrdiff_t j = 0; j < inputs; j++)
                rpi_copy(out + (j * count + s) * ldo, x + (j * count + s) * ldx, q.n);
            continue;
        }
        q.m = step->outputs;
        q.k = step->inputs;
        q.a = net->parameters + step->weights;
        q.a_row = inputs;
        q.a_column = 1;
        q.b = x + s * ldx;
        q.ldb = count * ldx;
        q.c = out + s * ldo;
        q.ldc = count * ldo;
        rpi_product_run(b, &q);
    }
    if (!rpi_direct_couples(direct, i)) return;
    for (ptrdiff_t r = 0; r < count; r++) { /* q_(s,r) = sum_j y_js sigma'_jr x_jr */
        q.m = (int)count;
        q.k = step->inputs;
        q.a = b->y[i];
        q.a_row = 1;
        q.a_column = b->ld;
        q.b = x + r * ldx;
        q.ldb = count * ldx;
        q.c = direct->q + r * ldq;
        q.ldc = count * ldq;
        rpi_product_run(b, &q);
    }
    b->kernels->blend(outputs * b->ld, -k, b->d[i + 1], NULL, 0, direct->minus_kd);
    for (ptrdiff_t s = 0; s < count; s++) {
        q.m = step->outputs;
        q.k = (int)count;
        q.a = direct->minus_kd;
        q.a_row = b->ld;
        q.a_column = 1;
        q.add = 1;
        q.b = direct->q + s * count * ldq;
        q.ldb = ldq;
        q.c = out + s * ldo;
        q.ldc = count * ldo;
        rpi_product_run(b, &q);
    }
}

/* N of step i to [m][ld], which is 0. */
static void rpi_direct_n(const rpi_direct *direct, int i, rp_real *out, ptrdiff_t ld) {
    const rp_net *net = direct->system->net;
    const rpi_step *step = &net->steps[i];
    ptrdiff_t count = direct->system->count, m = direct->steps[i].m;
    if (!rpi_trains(net, step)) return;
    rpi_gram(&net->buffers, step->inputs, (int)count, net->buffers.y[i], (rp_real)step->bias,
             1 / (direct->system->damping * (rp_real)count), direct->q);
    for (ptrdiff_t a = 0; a < m; a++) rpi_copy(out + a * ld + a / count * count, direct->q + a % count * count, count);
}

/* The upper rows of step i's matrix: A - B G and, below the top, B C'. */
static void rpi_direct_upper(const rpi_direct *direct, int i) {
    const rpi_buffers *b = &direct->system->net->buffers;
    const rpi_direct_step *here = &direct->steps[i];
    const rpi_kernels *k = b->kernels;
    int m = here->m, above = (here->lu.width - m) / 2;
    rp_real *a = here->lu.a;
    /* B', then the transposed of G B' and C B' */
    k->transpose(here->equations + m, here->ld, m, m, direct->x, direct->ld, rpi_columns(b, m));
    rpi_direct_times_g(direct, i, direct->x, direct->ld, direct->y, direct->ld, m);
    k->transpose(direct->y, direct->ld, m, m, a, here->lu.ld, m);
    for (int row = 0; row < m; row++) k->blend(m, 1, here->equations + row * here->ld, NULL, -1, a + row * here->lu.ld);
    if (!above) return;
    rpi_direct_times_c(direct, i + 1, direct->x, direct->ld, direct->y, direct->ld, m);
    k->transpose(direct->y, direct->ld, above, m, a + m + above, here->lu.ld, above);
}

/* The lower rows: -C, I and N of the step above. */
static void rpi_direct_lower(const rpi_direct *direct, int i) {
    const rpi_buffers *b = &direct->system->net->buffers;
    const rpi_direct_step *here = &direct->steps[i];
    ptrdiff_t m = here->m, ld = here->lu.ld, above = (here->lu.width - m) / 2;
    rp_real *a = here->lu.a + m * ld;
    rpi_fill_rows(here->m, (int)direct->ld, direct->ld, NULL, direct->x);
    for (ptrdiff_t j = 0; j < m; j++) direct->x[j * direct->ld + j] = 1;
    rpi_direct_times_c(direct, i + 1, direct->x, direct->ld, direct->y, direct->ld, here->m);
    for (ptrdiff_t row = 0; row < above; row++) {
        b->kernels->blend(m, -1, direct->y + row * direct->ld, NULL, 0, a + row * ld);
        a[row * ld + m + row] = 1;
    }
    rpi_direct_n(direct, i + 1, a + m + above, ld);
}

static int rpi_direct_factor(rpi_direct *direct) {
    const rp_net *net = direct->system->net;
    rpi_direct_step *first = &direct->steps[0];
    first->equations = direct->first;
    first->ld = 2 * direct->ld;
    rpi_fill_rows(first->m, (int)first->ld, first->ld, NULL, direct->first);
    for (ptrdiff_t j = 0; j < first->m; j++) direct->first[j * first->ld + j] = 1;
    rpi_direct_n(direct, 0, direct->first + first->m, first->ld);
    for (int i = 0; i < net->step_count; i++) {
        rpi_direct_step *here = &direct->steps[i];
        ptrdiff_t m = here->m;
        rpi_direct_g(direct, i);
        rpi_fill_rows(here->lu.rows, (int)here->lu.ld, here->lu.ld, NULL, here->lu.a);
        rpi_direct_upper(direct, i);
        if (i < net->step_count - 1) rpi_direct_lower(direct, i);
        if (!rpi_lu_factor(&net->buffers, &here->lu)) return 0;
        if (i < net->step_count - 1) {
            here[1].equations = here->lu.a + m * here->lu.ld + m;
            here[1].ld = here->lu.ld;
        }
    }
    return 1;
}

/* Vectors of unknowns to rows of a matrix that products can work on. */
static void rpi_spread(const rp_real *x, int m, rp_real *out) {
    for (int i = 0; i < m; i++, out += RPI_LINE_REALS) {
        memset(out, 0, RPI_LINE);
        out[0] = x[i];
    }
}

/* The right-hand side of step i's matrix, eliminated; the lower part is c of the next. */
static void rpi_direct_forward(const rpi_direct *direct, int i) {
    const rpi_buffers *b = &direct->system->net->buffers;
    const rpi_direct_step *here = &direct->steps[i];
    ptrdiff_t m = here->m, above = here->lu.rows - m;
    for (ptrdiff_t a = 0; a < m; a++)
        here->x[a] = here->c[a] - (rp_real)b->kernels->dot(m, here->equations + a * here->ld + m, here->e);
    if (above) rpi_copy(here->x + m, here[1].f, above);
    rpi_lu_forward(b, &here->lu, here->x);
    if (above) rpi_copy(here[1].c, here->x + m, above);
}

/* z, then r = e - G z, from those of the step above. */
static void rpi_direct_backward(const rpi_direct *direct, int i) {
    const rpi_buffers *b = &direct->system->net->buffers;
    const rpi_direct_step *here = &direct->steps[i];
    ptrdiff_t m = here->m, above = here->lu.rows - m;
    if (above) {
        rpi_copy(here->x + m, here[1].z, above);
        rpi_copy(here->x + m + above, here[1].r, above);
    }
    rpi_lu_backward(b, &here->lu, here->x);
    rpi_copy(here->z, here->x, m);
    rpi_spread(here->z, here->m, direct->x);
    rpi_direct_times_g(direct, i, direct->x, RPI_LINE_REALS, direct->y, RPI_LINE_REALS, 1);
    for (ptrdiff_t a = 0; a < m; a++) here->r[a] = here->e[a] - direct->y[a * RPI_LINE_REALS];
}

/* e_i += C_(i+1)' r_(i+1) */
static void rpi_direct_from_above(const rpi_direct *direct, int i) {
    const rp_net *net = direct->system->net;
    const rpi_buffers *b = &net->buffers;
    const rpi_step *above = &net->steps[i + 1];
    ptrdiff_t count = direct->system->count, outputs = above->outputs;
    int couples = rpi_direct_couples(direct, i + 1), n = rpi_columns(b, (int)count);
    const rp_real *r = direct->steps[i + 1].r, *slope;
    rp_real k = 1 / (direct->system->damping * (rp_real)count), *dr = direct->q;
    rpi_fill_rows(above->outputs, n, b->ld, NULL, b->v[i + 2]);
    for (ptrdiff_t a = 0; a < outputs; a++) rpi_copy(b->v[i + 2] + a * b->ld, r + a * count, count);
    above->map->transposed(b, above, net->parameters, n, NULL, NULL, b->v[i + 2], b->v[i + 1], 1, 0);
    if (couples) rpi_zero(dr, count * count); /* sum_a d_(a,r) r_(a,s) at [s][r] */
    for (ptrdiff_t a = 0; couples && a < outputs; a++)
        for (ptrdiff_t s = 0; s < count; s++)
            b->kernels->blend(count, r[a * count + s], b->d[i + 2] + a * b->ld, NULL, 1, dr + s * count);
    for (ptrdiff_t j = 0; j < above->inputs; j++) {
        rp_real *sum = b->v[i + 1] + j * b->ld, *e = direct->steps[i].e + j * count;
        for (ptrdiff_t s = 0; couples && s < count; s++)
            b->kernels->blend(count, -k * b->y[i + 1][j * b->ld + s], dr + s * count, NULL, 1, sum);
        slope = rpi_row_or_one(b, b->slope, i, j);
        for (ptrdiff_t s = 0; s < count; s++) e[s] += slope[s] * sum[s];
    }
}

/* f and e for the right-hand side x: its products with y and with d. */
static void rpi_direct_right(const rpi_direct *direct, int i, const rp_real *x) {
    const rp_net *net = direct->system->net;
    const rpi_buffers *b = &net->buffers;
    const rpi_direct_step *here = &direct->steps[i];
    const rpi_step *step = &net->steps[i];
    ptrdiff_t count = direct->system->count;
    rp_real scale = 1 / direct->system->damping;
    int trained = rpi_trains(net, step), couples = rpi_direct_couples(direct, i + 1), n = rpi_columns(b, (int)count);
    if (trained) step->map->apply(b, step, x, n, b->y[i], b->r[i + 1], NULL, NULL, 0);
    if (couples) step[1].map->transposed(b, step + 1, x, n, NULL, NULL, b->d[i + 2], b->v[i + 1], 1, 0);
    for (ptrdiff_t a = 0; a < here->m; a++) {
        ptrdiff_t unit = a / count, s = a % count, at = unit * b->ld + s;
        here->f[a] = trained ? scale * b->r[i + 1][at] : 0;
        here->e[a] = couples ? scale * rpi_row_or_one(b, b->slope, i, unit)[s] * b->v[i + 1][at] : 0;
    }
}

/* x = the solution for right-hand side `right`, after rpi_direct_factor. */
static void rpi_direct_solve(const rpi_direct *direct, const rp_real *right, rp_real *x) {
    rp_net *net = direct->system->net;
    const rpi_buffers *b = &net->buffers;
    ptrdiff_t count = direct->system->count;
    rp_real scale = 1 / direct->system->damping;
    for (int i = 0; i < net->step_count; i++) rpi_direct_right(direct, i, right);
    rpi_copy(direct->steps[0].c, direct->steps[0].f, direct->steps[0].m);
    for (int i = 0; i < net->step_count; i++) rpi_direct_forward(direct, i);
    for (int i = net->step_count - 1; i >= 0; i--) {
        if (i < net->step_count - 1) rpi_direct_from_above(direct, i);
        rpi_direct_backward(direct, i);
    }
    for (int i = 0; i < net->step_count; i++)
        for (ptrdiff_t a = 0; a < direct->steps[i].m; a++) {
            ptrdiff_t unit = a / count, s = a % count, at = unit * b->ld + s;
            b->v[i + 1][at] = direct->steps[i].r[a];
            b->r[i + 1][at] = rpi_row_or_one(b, b->slope, i, unit)[s] * direct->steps[i].z[a];
        }
    rpi_collect_product(net, (int)count, direct->system->gauss_newton, x);
    b->kernels->blend(net->parameter_count, scale, right, NULL, -scale, x);
    rpi_zero_frozen(net, x);
}

/* MINRES (Paige and Saunders) for x0 = 0, preconditioned: Lanczos vectors v, residuals r, directions w. */
enum {
    RPI_MINRES_V,
    RPI_MINRES_Y,
    RPI_MINRES_R1,
    RPI_MINRES_R2,
    RPI_MINRES_W,
    RPI_MINRES_W1,
    RPI_MINRES_INVERSE,
    RPI_MINRES_VECTORS
};
typedef struct rpi_minres {
    rp_real *vectors[RPI_MINRES_VECTORS]; /* INVERSE: the preconditioner, as a diagonal to multiply with, or NULL */
    double tolerance;                     /* of the residual's norm under the preconditioner, by its first */
    double begin;                         /* what that first is of the whole, for progress */
    int limit, iterations;                /* over all runs */
    int stop_at_negative;                 /* before the first direction of curvature <= 0 is used */
    int (*progress)(void *user, int iteration, rp_real residual);
    void *user;
    int negative, stopped; /* results */
} rpi_minres;

static void rpi_swap(rp_real **a, rp_real **b) {
    rp_real *c = *a;
    *a = *b;
    *b = c;
}

static rp_status rpi_run_minres(rpi_system *system, rpi_minres *m, const rp_real *b, rp_real *x) {
    const rpi_kernels *k = system->net->buffers.kernels;
    ptrdiff_t n = system->net->parameter_count;
    rp_real **v = &m->vectors[RPI_MINRES_V], **y = &m->vectors[RPI_MINRES_Y], **r1 = &m->vectors[RPI_MINRES_R1],
            **r2 = &m->vectors[RPI_MINRES_R2], **w = &m->vectors[RPI_MINRES_W], **w1 = &m->vectors[RPI_MINRES_W1];
    double beta, before = 0, first, left, c = -1, s = 0, delta_bar = 0, epsilon = 0, gamma1 = 1, gamma2 = 1;
    rpi_zero(x, n);
    rpi_zero(*w, n);
    rpi_zero(*w1, n);
    rpi_zero(*r1, n);
    rpi_copy(*r2, b, n);
    k->blend(n, 1, b, m->vectors[RPI_MINRES_INVERSE], 0, *y);
    beta = k->dot(n, b, *y);
    first = left = beta = beta > 0 ? sqrt(beta) : 0;
    while (m->iterations < m->limit && left > m->tolerance * first && beta > 0) {
        double alpha, epsilon1 = epsilon, delta, gamma_bar, gamma;
        rp_status status;
        k->blend(n, (rp_real)(1 / beta), *y, NULL, 0, *v);
        status = rpi_system_times(system, *v, *y);
        if (status) return status;
        m->iterations++;
        if (before > 0) k->blend(n, (rp_real)(-beta / before), *r1, NULL, 1, *y);
        alpha = k->dot(n, *v, *y);
        k->blend(n, (rp_real)(-alpha / beta), *r2, NULL, 1, *y);
        rpi_swap(r1, r2);
        rpi_swap(r2, y); /* y is free now */
        k->blend(n, 1, *r2, m->vectors[RPI_MINRES_INVERSE], 0, *y);
        before = beta;
        beta = k->dot(n, *r2, *y);
        beta = beta > 0 ? sqrt(beta) : 0;
        delta = c * delta_bar + s * alpha;
        gamma_bar = s * delta_bar - c * alpha;
        /* then the residual r has r'(A + damping I) r <= 0 (Liu and Roosta, MINRES: From Negative Curvature Detection) */
        if (c * gamma_bar >= 0) m->negative = 1;
        if (m->negative && m->stop_at_negative) break;
        epsilon = s * beta;
        delta_bar = -c * beta;
        gamma = sqrt(gamma_bar * gamma_bar + beta * beta);
        if (!(gamma > 0)) break; /* x is the least-squares solution of a singular system */
        c = gamma_bar / gamma;
        s = beta / gamma;
        k->blend(n, 1, *v, NULL, (rp_real)(-epsilon1 / gamma2),
                 *w1); /* two directions old, it becomes the new one, times gamma */
        k->blend(n, (rp_real)(-delta / gamma1), *w, NULL, 1, *w1);
        rpi_swap(w, w1);
        gamma2 = gamma1;
        gamma1 = gamma;
        k->blend(n, (rp_real)(c * left / gamma), *w, NULL, 1, x);
        left *= s;
        if (!m->progress) continue;
        system->net->forward_count = RPI_BUSY;
        m->stopped = m->progress(m->user, m->iterations, (rp_real)(left / first * m->begin)) != 0;
        status = rpi_still_busy(system->net, system->who, "options.progress");
        if (status || m->stopped) return status;
    }
    return RP_OK;
}

/* A solve: its method's memory, and vectors for the solution, its residual, and the next of both. */
typedef struct rpi_solve {
    rpi_system system;
    rp_solve_options options;
    rp_solve_report report;
    rpi_block block;
    rpi_minres minres;
    rpi_direct direct;
    rpi_lu dense;
    rp_real
        scale; /* of the right-hand side, by which it and the solution are divided, so that no square over- or underflows */
    rp_real *x, *residual, *next, *next_residual;
} rpi_solve;

static void rpi_lay_out_solve(const rp_net *net, rpi_arena *arena, rpi_solve *solve) {
    ptrdiff_t n = net->parameter_count;
    solve->x = rpi_claim_reals(arena, n);
    solve->residual = rpi_claim_reals(arena, n);
    solve->next = rpi_claim_reals(arena, n);
    solve->next_residual = rpi_claim_reals(arena, n);
    switch (solve->report.method) {
    case RP_SOLVE_DIRECT: rpi_lay_out_direct(&solve->system, arena, &solve->direct); break;
    case RP_SOLVE_DENSE: rpi_lay_out_lu(arena, &solve->dense, (int)n, (int)n, (int)n); break;
    default:
        for (int i = 0; i < RPI_MINRES_VECTORS; i++) solve->minres.vectors[i] = rpi_claim_reals(arena, n);
    }
}

/* Multiply-adds of a product for one sample, about. */
static double rpi_product_worth(const rp_net *net) {
    double sum = 0;
    for (int i = 0; i < net->step_count; i++) {
        const rpi_step *step = &net->steps[i];
        if (step->map == &rpi_dense_map) sum += (double)step->inputs * step->outputs;
        if (step->map == &rpi_shared_map) sum += rpi_shared_worth(step, step->end - step->from, 1);
    }
    return 6 * sum;
}

/* The method that takes the fewest multiply-adds, among those whose matrices take at most a GiB; after iterations that failed,
   the best of the others that would take at most 100 times as long, if there is one. */
static rp_solve_method rpi_choose_method(const rpi_solve *solve, int failed) {
    const rp_net *net = solve->system.net;
    double n = (double)net->parameter_count, count = solve->system.count, product = rpi_product_worth(net) * count;
    double most = 1073741824.0 / sizeof(rp_real), size = 0, direct = 0, dense = n * product + n * n * n / 3;
    double limit = product * (n < solve->options.iterations ? n : solve->options.iterations) * (failed ? 100 : 1);
    rp_solve_method method = RP_SOLVE_ITERATIVE;
    for (int i = 0; i < net->step_count; i++) {
        double m = (double)net->steps[i].outputs * count;
        direct += 4 * m * m * m;
        size += 6 * m * m;
    }
    if (dense < limit && n * n <= most) {
        method = RP_SOLVE_DENSE;
        limit = dense;
    }
    if (direct < limit && size <= most && solve->system.damping > 0 && rpi_stack(net)) method = RP_SOLVE_DIRECT;
    return method;
}

static rp_status rpi_check_solve(rp_net *net, const char *who, const rp_solve_options *options, int count) {
    const struct {
        const char *name;
        rp_real value;
    } fields[] = {{"damping", options->damping}, {"tolerance", options->tolerance}};
    if ((int)options->method < 0 || options->method > RP_SOLVE_DENSE)
        return rpi_fail(net, RP_ERR_VALUE, "%s: options.method is %d, which is no rp_solve_method", who,
                        (int)options->method);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (!rpi_finite(fields[i].value) || fields[i].value < 0)
            return rpi_fail(net, RP_ERR_VALUE, "%s: options.%s is %g; it must be finite and 0 or more", who,
                            fields[i].name, (double)fields[i].value);
    if (options->iterations < 0)
        return rpi_fail(net, RP_ERR_VALUE, "%s: options.iterations is %d; it must be 0 or more", who,
                        options->iterations);
    if (options->method == RP_SOLVE_DIRECT && !(options->damping > 0))
        return rpi_fail(net, RP_ERR_VALUE, "%s: options.damping is 0; the direct method needs it above 0", who);
    if (options->method == RP_SOLVE_DIRECT && !rpi_stack(net))
        return rpi_fail(net, RP_ERR_UNSUPPORTED, "%s: the direct method is for stacks of dense layers and activations",
                        who);
    if (options->method == RP_SOLVE_DENSE && net->parameter_count > RPI_LARGEST)
        return rpi_fail(net, RP_ERR_OVERFLOW, "%s: a matrix of %z rows is too large for the dense method", who,
                        net->parameter_count);
    for (int i = 0; i < net->step_count && options->method == RP_SOLVE_DIRECT; i++)
        if (net->steps[i].outputs > RPI_LARGEST / 4 / count)
            return rpi_fail(net, RP_ERR_OVERFLOW, "%s: %d samples of %d units are too many for the direct method", who,
                            count, net->steps[i].outputs);
    return rpi_check_rule(net, who, "options.", &options->rule);
}

/* Memory, x = 0 and its residual, preconditioner or factors; 0 in *good: the matrix is singular. */
static rp_status rpi_begin_solve(rpi_solve *solve, const rp_data *batch, const rp_real *b, int *good) {
    rp_net *net = solve->system.net;
    const char *who = solve->system.who;
    rpi_arena arena = {NULL, 0, 0};
    rp_status status = RP_OK;
    solve->direct.system = &solve->system;
    rpi_lay_out_solve(net, &arena, solve);
    status = rpi_temporary(net, who, &solve->block, &arena);
    if (status) return status;
    rpi_lay_out_solve(net, &arena, solve);
    if (solve->report.method == RP_SOLVE_ITERATIVE && solve->options.precondition)
        rpi_precondition(net, who, batch, &solve->options.rule, solve->system.damping,
                         solve->minres.vectors[RPI_MINRES_INVERSE]);
    else solve->minres.vectors[RPI_MINRES_INVERSE] = NULL;
    rpi_zero(solve->x, net->parameter_count);
    rpi_copy(solve->residual, b, net->parameter_count);
    rpi_zero_frozen(net, solve->residual);
    solve->scale = 4 * RPI_REAL_MIN;
    for (ptrdiff_t i = 0; i < net->parameter_count; i++) {
        rp_real size = RPI_MATH(fabs)(solve->residual[i]);
        solve->scale = size > solve->scale ? size : solve->scale;
    }
    net->buffers.kernels->blend(net->parameter_count, 1 / solve->scale, solve->residual, NULL, 0, solve->residual);
    solve->report.residual = rpi_norm(net, solve->residual) > 0;
    status = rpi_expand(net, who, batch, solve->system.gauss_newton);
    if (!status && solve->report.method == RP_SOLVE_DIRECT) *good = rpi_direct_factor(&solve->direct);
    if (status || solve->report.method != RP_SOLVE_DENSE) return status;
    rpi_fill_rows(solve->dense.rows, (int)solve->dense.ld, solve->dense.ld, NULL, solve->dense.a);
    status = rpi_form_matrix(net, who, batch->count, solve->system.gauss_newton, solve->dense.a, solve->dense.ld);
    for (ptrdiff_t i = 0; i < net->parameter_count; i++) net->sums[i] = 1;
    rpi_zero_frozen(net, net->sums);
    for (ptrdiff_t i = 0; i < net->parameter_count; i++)
        solve->dense.a[i * solve->dense.ld + i] += net->sums[i] > 0 ? solve->system.damping : 1;
    solve->report.products += solve->dense.rows;
    if (!status) *good = rpi_lu_factor(&net->buffers, &solve->dense);
    return status;
}

/* next = the method's solution for the present residual */
static rp_status rpi_solve_once(rpi_solve *solve, double residual) {
    rp_net *net = solve->system.net;
    if (solve->report.method == RP_SOLVE_ITERATIVE) { /* preconditioned, its norm is another than the one that counts */
        solve->minres.begin = residual;
        solve->minres.tolerance =
            (double)solve->options.tolerance * (solve->options.precondition ? 0.5 : 0.95) / residual;
        return rpi_run_minres(&solve->system, &solve->minres, solve->residual, solve->next);
    }
    if (solve->report.method == RP_SOLVE_DIRECT) {
        rpi_direct_solve(&solve->direct, solve->residual, solve->next);
        return RP_OK;
    }
    rpi_copy(solve->next, solve->residual, net->parameter_count);
    rpi_lu_forward(&net->buffers, &solve->dense, solve->next);
    rpi_lu_backward(&net->buffers, &solve->dense, solve->next);
    return RP_OK;
}

/* Solves for the residual, and again for what remains as long as that lowers it by a tenth. */
static rp_status rpi_refine(rpi_solve *solve, const rp_real *b) {
    rp_net *net = solve->system.net;
    const rpi_kernels *k = net->buffers.kernels;
    ptrdiff_t n = net->parameter_count;
    double size = rpi_norm(net, solve->residual), residual = size > 0;
    for (int more = size > 0; more; solve->report.refinements += more) {
        double next, before = residual;
        rp_status status = rpi_solve_once(solve, residual);
        if (status) return status;
        k->blend(n, 1, solve->x, NULL, 1, solve->next);
        if (!rpi_all_finite(solve->next, n) || rpi_system_times(&solve->system, solve->next, solve->next_residual))
            break;
        k->blend(n, 1 / solve->scale, b, NULL, -1, solve->next_residual);
        rpi_zero_frozen(net, solve->next_residual);
        next = rpi_norm(net, solve->next_residual) / size;
        if (!(next < residual)) break;
        rpi_swap(&solve->x, &solve->next);
        rpi_swap(&solve->residual, &solve->next_residual);
        residual = next;
        more = residual > (double)solve->options.tolerance && residual < 0.9 * before && !solve->minres.stopped &&
               solve->minres.iterations < solve->minres.limit;
    }
    solve->report.residual = (rp_real)residual;
    net->error[0] = 0;
    return RP_OK;
}

/* By report.method, to solve->x. */
static rp_status rpi_run_solve(rpi_solve *solve, const rp_data *batch, const rp_real *b, int *good) {
    rp_net *net = solve->system.net;
    rp_status status = rpi_begin_solve(solve, batch, b, good);
    if (!status && *good) status = rpi_refine(solve, b);
    if (status) return status;
    net->buffers.kernels->blend(net->parameter_count, solve->scale, solve->x, NULL, 0, solve->x);
    if (rpi_all_finite(solve->x, net->parameter_count)) return RP_OK;
    return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: the solution is too large", solve->system.who);
}

/* After iterations that did not get there: another method, from `start`, a solve that has not begun. The better of both stays. */
static rp_status rpi_solve_otherwise(rpi_solve *solve, const rpi_solve *start, const rp_data *batch, const rp_real *b) {
    const rpi_memory *memory = &solve->system.net->memory;
    rpi_solve other = *start;
    rp_status status;
    int products = solve->system.products, good = 1;
    other.report.method = rpi_choose_method(start, 1);
    if (other.report.method == RP_SOLVE_ITERATIVE) return RP_OK;
    status = rpi_run_solve(&other, batch, b, &good);
    products += other.system.products + other.report.products;
    if (!status && good && other.report.residual < solve->report.residual) {
        rpi_block_free(memory, &solve->block);
        *solve = other;
    } else rpi_block_free(memory, &other.block);
    solve->system.products = products;
    solve->report.products = 0;
    return status == RP_ERR_NOT_FINITE ? RP_OK : status; /* then the iterations' solution is the better one */
}

RP_API rp_status rp_hessian_solve(rp_net *net, const rp_data *batch, const rp_real *b, rp_real *x,
                                  const rp_solve_options *options, rp_solve_report *report) {
    static const char who[] = "rp_hessian_solve";
    rpi_solve solve, start;
    int good = 1;
    rp_status status = rpi_tool(net, who, batch, "b", b, "x", x);
    memset(&solve, 0, sizeof solve);
    if (options) solve.options = *options;
    if (!status) status = rpi_check_data(net, who, batch, net->batch);
    if (!status) status = rpi_check_solve(net, who, &solve.options, batch->count);
    if (!status) status = rpi_prepare_tangents(net, who);
    if (status) return status;
    if (!solve.options.iterations) solve.options.iterations = 1000;
    if (!(solve.options.tolerance > 0)) solve.options.tolerance = (rp_real)(sizeof(rp_real) == 8 ? 1e-9 : 1e-4);
    solve.system.net = net;
    solve.system.who = who;
    solve.system.count = batch->count;
    solve.system.gauss_newton = solve.options.gauss_newton;
    solve.system.damping = solve.options.damping;
    solve.minres.limit = solve.options.iterations;
    solve.minres.progress = solve.options.progress;
    solve.minres.user = solve.options.user;
    solve.report.method = solve.options.method ? solve.options.method : rpi_choose_method(&solve, 0);
    start = solve;
    status = rpi_run_solve(&solve, batch, b, &good);
    if (!status && !solve.options.method && solve.report.method == RP_SOLVE_ITERATIVE && !solve.minres.stopped &&
        solve.report.residual > solve.options.tolerance)
        status = rpi_solve_otherwise(&solve, &start, batch, b);
    if (!status) rpi_copy(x, solve.x, net->parameter_count);
    rpi_block_free(&net->memory, &solve.block);
    if (status) return status;
    solve.report.products += solve.system.products;
    solve.report.negative_curvature = solve.report.method == RP_SOLVE_ITERATIVE ? solve.minres.negative : -1;
    if (report) *report = solve.report;
    if (solve.minres.stopped)
        return rpi_fail(net, RP_ERR_STOPPED, "%s: options.progress asked to stop, at a residual of %g", who,
                        (double)solve.report.residual);
    if (!good)
        return rpi_fail(net, RP_ERR_NOT_CONVERGED,
                        "%s: the matrix is singular to working precision; a larger damping may help", who);
    if (solve.report.residual <= solve.options.tolerance) return RP_OK;
    return rpi_fail(net, RP_ERR_NOT_CONVERGED,
                    "%s: the residual is %g of the right-hand side, above the tolerance of %g: %s", who,
                    (double)solve.report.residual, (double)solve.options.tolerance,
                    solve.report.method == RP_SOLVE_ITERATIVE && solve.minres.iterations >= solve.minres.limit
                        ? "more iterations, a larger damping or another method may help"
                        : "the damping is too small for this precision");
}

/* One formula in two forms, of which one does not cancel (Low-Rank Structure, Equation 37): with q^2 = -2 a k, k = sigma norm^3,
   alpha = -2 a / (b + sqrt(b^2 + q^2)) = (sqrt(b^2 + q^2) - b) / k. k itself, which may overflow, is never formed. */
RP_API double rp_cubic_length(double first, double second, double norm, double sigma) {
    double q, root, alpha;
    if (!rpi_finite_double(first) || !rpi_finite_double(second) || !rpi_finite_double(norm) ||
        !rpi_finite_double(sigma))
        return 0;
    if (first >= 0 || norm < 0 || sigma < 0) return 0;
    q = sqrt(-first) * sqrt(2 * sigma) * norm * sqrt(norm);
    root = hypot(second, q);
    if (second >= 0 ? !(root > 0) : !(q > 0)) return 0;
    alpha = second >= 0 ? -first / (second / 2 + root / 2) : (root - second) / q * (-2 * first / q);
    return rpi_finite_double(alpha) ? alpha : 0;
}

/* >>optimizers */
static rp_optimizer rpi_optimizer(rp_method method, rp_real rate) {
    rp_optimizer o;
    memset(&o, 0, sizeof o);
    o.method = method;
    o.rate = rate;
    return o;
}

/* Measured over eight tasks (bench/tune.c: autoencoders and classifiers of three sets of images, spirals, waves), four epochs:
   validation losses as multiples of those of Adam at the best of three rates,
       sampled, rate 8, average 0.999, damping 1     0.96 to 1.30, mean 1.12
       sampled, rate 4, average 0.999, damping 0.1   1.02 to 2.07, mean 1.29
       paths,   rate 50, average 0.99, damping 1     1.01 to 6.16, mean 1.99
   5 leaves room: at 8 a small convolutional net lost its ReLUs in the first steps for 1 seed of 12, from 12 on some nets diverge.
   No setting wins everywhere: on autoencoders the paths rule at a rate of 100 is better. */
RP_API rp_optimizer rp_partitioning(void) {
    rp_optimizer o = rp_partitioning_rate(5);
    o.rule.kind = RP_SAMPLED;
    o.rule.bound = RP_BOUND_TIGHT;
    o.rule.scale = RP_SCALE_FAN_IN;
    o.momentum = (rp_real)0.9;
    o.curvature_average = (rp_real)0.999;
    o.damping = 1;
    return o;
}
RP_API rp_optimizer rp_partitioning_rate(rp_real rate) {
    rp_optimizer o = rpi_optimizer(RP_PARTITIONING, rate);
    o.damping = (rp_real)1e-8;
    o.rule.bound = RP_BOUND_JENSEN;
    return o;
}
RP_API rp_optimizer rp_sgd(rp_real rate) { return rpi_optimizer(RP_SGD, rate); }
RP_API rp_optimizer rp_adam(rp_real rate) {
    rp_optimizer o = rpi_optimizer(RP_ADAM, rate);
    o.beta1 = (rp_real)0.9;
    o.beta2 = (rp_real)0.999;
    o.epsilon = (rp_real)1e-8;
    return o;
}
RP_API rp_optimizer rp_adagrad(rp_real rate) {
    rp_optimizer o = rpi_optimizer(RP_ADAGRAD, rate);
    o.epsilon = (rp_real)1e-10;
    return o;
}
RP_API rp_optimizer rp_adadelta(rp_real rate) {
    rp_optimizer o = rpi_optimizer(RP_ADADELTA, rate);
    o.rho = (rp_real)0.9;
    o.epsilon = (rp_real)1e-6;
    return o;
}

RP_API rp_optimizer rp_per_variable(rp_real sigma) {
    rp_optimizer o = rpi_optimizer(RP_PER_VARIABLE, 1);
    o.sigma = sigma;
    return o;
}
RP_API rp_optimizer rp_newton(void) {
    rp_optimizer o = rp_partitioning();
    o.method = RP_NEWTON;
    o.rate = 1;
    o.momentum = o.curvature_average = 0;
    o.damping = 1;
    o.iterations = 50;
    o.tolerance = (rp_real)0.01;
    return o;
}

/* One row per field that has a range; `most` is not allowed itself if `below`. */
static rp_status rpi_check_optimizer(rp_net *net, const char *who, const rp_optimizer *o) {
    const struct {
        const char *name;
        rp_real value, most;
        int below;
    } fields[] = {
        {"rate", o->rate, RPI_REAL_MAX, 0},
        {"decay", o->decay, RPI_REAL_MAX, 0},
        {"momentum", o->momentum, 1, 1},
        {"weight_decay", o->weight_decay, RPI_REAL_MAX, 0},
        {"damping", o->damping, RPI_REAL_MAX, 0},
        {"curvature_average", o->curvature_average, 1, 1},
        {"beta1", o->beta1, 1, 1},
        {"beta2", o->beta2, 1, 1},
        {"rho", o->rho, 1, 0},
        {"epsilon", o->epsilon, RPI_REAL_MAX, 0},
        {"cubic", o->cubic, RPI_REAL_MAX, 0},
        {"sigma", o->sigma, RPI_REAL_MAX, 0},
        {"tolerance", o->tolerance, RPI_REAL_MAX, 0},
    };
    if ((int)o->method < 0 || o->method > RP_NEWTON)
        return rpi_fail(net, RP_ERR_VALUE, "%s: optimizer.method is %d, which is no rp_method", who, (int)o->method);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (!rpi_finite(fields[i].value) || !(fields[i].value >= 0) || fields[i].value > fields[i].most ||
            (fields[i].below && fields[i].value >= fields[i].most))
            return rpi_fail(net, RP_ERR_VALUE,
                            fields[i].most > 1 ? "%s: optimizer.%s is %g; it must be finite and 0 or more"
                                               : "%s: optimizer.%s is %g; it must be 0 or more and %s 1",
                            who, fields[i].name, (double)fields[i].value, fields[i].below ? "below" : "at most");
    if (o->decay_steps < 0)
        return rpi_fail(net, RP_ERR_VALUE, "%s: optimizer.decay_steps is %d; it must be 0 or more", who,
                        o->decay_steps);
    if (o->nesterov && (o->method != RP_SGD || !(o->momentum > 0)))
        return rpi_fail(net, RP_ERR_VALUE, "%s: optimizer.nesterov is %d; it needs SGD with a momentum above 0", who,
                        o->nesterov);
    if (o->method == RP_PER_VARIABLE && !(o->sigma > 0))
        return rpi_fail(net, RP_ERR_VALUE, "%s: optimizer.sigma is %g; with per-variable rates it must be above 0", who,
                        (double)o->sigma);
    if (o->method == RP_NEWTON && !(o->damping > 0))
        return rpi_fail(net, RP_ERR_VALUE, "%s: optimizer.damping is %g; with Newton's method it must be above 0", who,
                        (double)o->damping);
    if (o->method == RP_NEWTON && o->iterations < 1)
        return rpi_fail(net, RP_ERR_VALUE, "%s: optimizer.iterations is %d; with Newton's method it must be 1 or more",
                        who, o->iterations);
    if (o->method == RP_NEWTON && o->tolerance >= 1)
        return rpi_fail(net, RP_ERR_VALUE, "%s: optimizer.tolerance is %g; with Newton's method it must be below 1",
                        who, (double)o->tolerance);
    if (o->method == RP_NEWTON && o->cubic_adaptive)
        return rpi_fail(net, RP_ERR_VALUE,
                        "%s: optimizer.cubic_adaptive is %d; with Newton's method lambda adapts instead", who,
                        o->cubic_adaptive);
    if (o->cubic_adaptive && !(o->cubic > 0))
        return rpi_fail(net, RP_ERR_VALUE, "%s: optimizer.cubic_adaptive is %d; it needs optimizer.cubic above 0", who,
                        o->cubic_adaptive);
    return rpi_check_rule(net, who, "optimizer.", &o->rule);
}

static void rpi_state_of(const rp_optimizer *o, int *first, int *second) {
    *first = o->method == RP_PARTITIONING || o->method == RP_SGD ? o->momentum > 0 : o->method <= RP_ADADELTA;
    *second =
        o->method == RP_PARTITIONING ? o->curvature_average > 0 : o->method == RP_ADAM || o->method == RP_ADADELTA;
}

typedef struct rpi_state {
    rp_real *first, *second, *krylov;
    rpi_recursion recursion;
} rpi_state;

static rpi_state rpi_lay_out_state(const rp_net *net, rpi_arena *arena, const rp_optimizer *o) {
    ptrdiff_t n = net->parameter_count;
    rpi_state state;
    int first, second;
    rpi_state_of(o, &first, &second);
    memset(&state, 0, sizeof state);
    if (first) state.first = rpi_claim_reals(arena, n);
    if (second) state.second = rpi_claim_reals(arena, n);
    if (o->method == RP_NEWTON) state.krylov = rpi_claim_rows(arena, RPI_MINRES_INVERSE, n);
    if (o->method == RP_PER_VARIABLE) rpi_lay_out_recursion(net, arena, &state.recursion);
    return state;
}

/* What adapts begins where the optimizer says. */
static void rpi_prepare_sigma(rp_net *net, const rp_optimizer *o) {
    rp_real from = o->method == RP_NEWTON ? o->damping : o->cubic;
    if (from != net->sigma_from) net->sigma = net->sigma_from = from;
}

static rp_status rpi_prepare(rp_net *net, const char *who, const rp_optimizer *o) {
    rpi_block block = {NULL, NULL, 0};
    rpi_arena arena = {NULL, 0, 0};
    rpi_state state;
    int first, second;
    rp_status status = rpi_needs(net, who, "optimizer", o);
    if (!status) status = rpi_check_optimizer(net, who, o);
    if (!status && o->method >= RP_PER_VARIABLE) status = rpi_prepare_tangents(net, who);
    if (status) return status;
    rpi_state_of(o, &first, &second);
    if (net->method != o->method || !net->first != !first || !net->second != !second) {
        rpi_lay_out_state(net, &arena, o);
        if (arena.overflow || (arena.used && !rpi_block_new(&net->memory, &block, arena.used)))
            return rpi_fail(net, RP_ERR_MEMORY, "%s: no memory for %z bytes of optimizer state", who, arena.used);
        arena.base = block.base;
        arena.used = 0;
        state = rpi_lay_out_state(net, &arena, o);
        if (first) rpi_zero(state.first, net->parameter_count);
        if (second) rpi_zero(state.second, net->parameter_count);
        rpi_block_free(&net->memory, &net->state);
        net->first = state.first;
        net->second = state.second;
        net->krylov = state.krylov;
        net->recursion = state.recursion;
        net->state = block;
        net->method = o->method;
        net->time = 0;
        net->sigma_from = 0;
    }
    rpi_prepare_sigma(net, o);
    return RP_OK;
}

RP_API rp_status rp_prepare(rp_net *net, const rp_optimizer *optimizer) {
    rp_status status = rpi_trainable(net, "rp_prepare");
    return status ? status : rpi_prepare(net, "rp_prepare", optimizer);
}

static double rpi_rate(const rp_net *net, const rp_optimizer *o) {
    double steps = o->decay_steps ? o->decay_steps : 1;
    return (double)o->rate * (o->decay > 0 ? pow((double)o->decay, (double)net->time / steps) : 1);
}

/* The constants of step net->time + 1, which is then taken. Where its length is computed, decoupled weights shrink afterwards. */
static rpi_update rpi_next_update(rp_net *net, const rp_optimizer *o) {
    rpi_update u;
    double t = (double)(net->time + 1), rate = rpi_rate(net, o);
    double mean1 = (double)(o->method == RP_ADAM ? o->beta1 : o->momentum),
           mean2 = (double)(o->method == RP_ADAM ? o->beta2 : o->curvature_average);
    memset(&u, 0, sizeof u);
    u.method = o->method;
    u.rate = (rp_real)rate;
    u.weight_decay = o->decoupled ? 0 : o->weight_decay;
    u.shrink = o->decoupled && !(o->cubic > 0) ? (rp_real)(rate * (double)o->weight_decay) : 0;
    u.momentum = o->momentum;
    u.average = o->curvature_average;
    u.damping = o->damping;
    u.beta1 = o->beta1;
    u.beta2 = o->beta2;
    u.rho = o->rho;
    u.epsilon = o->epsilon;
    u.sigma = o->sigma;
    u.nesterov = o->nesterov;
    u.correct1 = (rp_real)(1 / (1 - pow(mean1, t)));
    u.correct2 = (rp_real)(1 / (1 - pow(mean2, t)));
    net->time++;
    return u;
}

/* >>steps */
/* The arrays' part of a step: from gradient and curvature into the direction array, for all parameters that are trained. */
static void rpi_direction(rp_net *net, const rp_optimizer *o, const rp_real *curvature) {
    rpi_update update = rpi_next_update(net, o);
    for (int i = 0; i < net->layer_count; i++) {
        const rpi_layer *layer = &net->layers[i];
        ptrdiff_t at = layer->weights, end = layer->biases + layer->bias_count;
        if (layer->frozen) rpi_zero(net->direction + at, (end - at));
        for (; !layer->frozen && at < end; at += RPI_LARGEST) {
            int n = end - at < RPI_LARGEST ? (int)(end - at) : RPI_LARGEST;
            rpi_update_call call;
            call.n = n;
            call.scale = call.scale2 = 1;
            call.g = net->gradient + at;
            call.h = curvature ? curvature + at : NULL;
            call.w = net->parameters + at;
            call.first = net->first ? net->first + at : NULL;
            call.second = net->second ? net->second + at : NULL;
            call.to = net->direction + at;
            net->buffers.kernels->update(&update, &call);
        }
    }
    net->has_direction = 3;
}

static void rpi_move(rp_net *net, rp_real alpha) {
    for (ptrdiff_t at = 0; at < net->parameter_count; at += RPI_LARGEST) {
        ptrdiff_t left = net->parameter_count - at;
        net->buffers.kernels->move(left < RPI_LARGEST ? (int)left : RPI_LARGEST, alpha, net->direction + at,
                                   net->parameters + at);
    }
}

/* whole: for a step that is taken as it is. */
static rp_status rpi_checked_direction(rp_net *net, const char *who, const rp_optimizer *o, int whole) {
    rp_status status = rpi_trainable(net, who);
    int partitioning;
    if (!status) status = rpi_needs(net, who, "optimizer", o);
    if (!status) status = rpi_check_optimizer(net, who, o);
    if (status) return status;
    partitioning = o->method == RP_PARTITIONING || o->method == RP_PER_VARIABLE;
    if (whole && o->cubic > 0)
        return rpi_fail(net, RP_ERR_UNSUPPORTED,
                        "%s: optimizer.cubic is %g: the length of its step is computed from a batch; use rp_train, or "
                        "rp_direction, rp_directional, rp_cubic_length and rp_move",
                        who, (double)o->cubic);
    if (o->method == RP_NEWTON)
        return rpi_fail(
            net, RP_ERR_UNSUPPORTED,
            "%s: Newton's step needs a batch, not only arrays; use rp_train, or rp_hessian_solve and rp_move", who);
    if (!net->has_gradient || (partitioning && !net->has_curvature))
        return rpi_fail(net, RP_ERR_ORDER, "%s: the %s array was never filled; call rp_backward%s first", who,
                        net->has_gradient ? "curvature" : "gradient",
                        o->method == RP_PARTITIONING ? " with a rule" : "");
    if (!rpi_all_finite(net->gradient, net->parameter_count) ||
        (partitioning && !rpi_all_finite(net->curvature, net->parameter_count)))
        return rpi_fail(net, RP_ERR_NOT_FINITE,
                        "%s: the gradient or curvature array is not finite; nothing was changed", who);
    status = rpi_prepare(net, who, o);
    if (!status) rpi_direction(net, o, partitioning ? net->curvature : NULL);
    return status;
}

RP_API rp_status rp_direction(rp_net *net, const rp_optimizer *optimizer) {
    return rpi_checked_direction(net, "rp_direction", optimizer, 0);
}

RP_API rp_status rp_move(rp_net *net, rp_real alpha) {
    rp_status status = rpi_trainable(net, "rp_move");
    if (status) return status;
    if (!rpi_finite(alpha))
        return rpi_fail(net, RP_ERR_VALUE, "rp_move: alpha is %g; it must be finite", (double)alpha);
    if (!net->has_direction)
        return rpi_fail(net, RP_ERR_ORDER, "rp_move: the direction array was never filled; call rp_direction first");
    rpi_move(net, alpha);
    net->forward_count = 0;
    return RP_OK;
}

RP_API rp_status rp_update(rp_net *net, const rp_optimizer *optimizer) {
    rp_status status = rpi_checked_direction(net, "rp_update", optimizer, 1);
    if (!status) {
        rpi_move(net, 1);
        net->forward_count = 0;
    }
    return status;
}

/* Steps whose length, or which themselves, are computed from the batch. F is the loss with weight decay. */
typedef struct rpi_trial {
    rp_net *net;
    const char *who;
    const rp_optimizer *optimizer;
    const rp_data *batch;
    double before, size; /* F at the beginning; |direction| */
    int kept;            /* values, sigma' and sigma'' of the beginning are still in place */
    double slope, curvature;
    rp_step step;
} rpi_trial;

static double rpi_decay_of(const rpi_trial *trial) {
    return trial->optimizer->decoupled ? 0 : (double)trial->optimizer->weight_decay;
}

/* What weight decay adds to the loss. */
static double rpi_decay_loss(const rpi_trial *trial) {
    const rp_net *net = trial->net;
    double decay = rpi_decay_of(trial);
    return decay > 0 ? decay / 2 * net->buffers.kernels->dot(net->parameter_count, net->parameters, net->parameters)
                     : 0;
}

/* F, or infinity where it is not finite. */
static rp_status rpi_trial_value(const rpi_trial *trial, double *value) {
    rp_net *net = trial->net;
    rp_status status = rpi_value(net, trial->who, trial->batch, RPI_KEEP_NOTHING, 0, NULL, value);
    *value += rpi_decay_loss(trial);
    if (status == RP_ERR_NOT_FINITE) {
        *value = DBL_MAX;
        status = RP_OK;
    }
    return status;
}

/* F's slope and curvature along the direction; where they are not finite the step has no length. */
static rp_status rpi_trial_derivatives(rpi_trial *trial) {
    rp_net *net = trial->net;
    const rpi_kernels *k = net->buffers.kernels;
    const rp_data *batch = trial->batch;
    double decay = rpi_decay_of(trial), loss;
    rp_status status = RP_OK;
    if (trial->kept) rpi_evaluate_loss(net, &net->buffers, batch, net->h, 1); /* the backward pass has used it up */
    else status = rpi_value(net, trial->who, batch, RPI_KEEP_CURVES, 1, NULL, &loss);
    if (!status)
        status = rpi_directional(net, trial->who, batch->count, batch->weights, net->direction, &trial->slope,
                                 &trial->curvature);
    if (decay > 0) trial->slope += decay * k->dot(net->parameter_count, net->direction, net->parameters);
    trial->curvature += decay * trial->size * trial->size;
    if (status && status != RP_ERR_NOT_FINITE) return status;
    if (status || !rpi_finite((rp_real)trial->slope) || !rpi_finite((rp_real)trial->curvature))
        trial->slope = trial->curvature = 0;
    return RP_OK;
}

/* Moves by alpha, and back again if that raises F; `model` is the decrease foretold. Parameters are kept in net->sums. Decreases that
   are lost in the rounding of F count as foretold well. */
static rp_status rpi_trial_move(rpi_trial *trial, double alpha, double model) {
    rp_net *net = trial->net;
    double after, rounding = 8 * (sizeof(rp_real) == 8 ? DBL_EPSILON : FLT_EPSILON) * (1 + fabs(trial->before));
    rp_status status;
    rpi_copy(net->sums, net->parameters, net->parameter_count);
    rpi_move(net, (rp_real)alpha);
    status = rpi_trial_value(trial, &after);
    trial->step.taken = !status && after <= trial->before;
    trial->step.ratio =
        (rp_real)(model >= 0 && after < DBL_MAX ? (trial->before - after + rounding) / (model + rounding) : 0);
    trial->step.alpha = (rp_real)alpha;
    if (!trial->step.taken) rpi_copy(net->parameters, net->sums, net->parameter_count);
    return status;
}

/* sigma or lambda, by a factor, within a million times of what it began with. */
static void rpi_adapt(rp_net *net, double factor) {
    double next = (double)net->sigma * factor, from = (double)net->sigma_from;
    int normal = (rp_real)next >= RPI_REAL_MIN && rpi_finite((rp_real)next);
    if (next >= 1e-6 * from && next <= 1e6 * from && normal) net->sigma = (rp_real)next;
}

/* rp_cubic_length, 0 where it is too large for rp_real. */
static double rpi_trial_length(const rpi_trial *trial, double sigma) {
    double alpha = rp_cubic_length(trial->slope, trial->curvature, trial->size, sigma);
    return rpi_finite((rp_real)alpha) ? alpha : 0;
}

/* The length that minimises the cubic model, and what then becomes of sigma (Kohler and Lucchi, with the thresholds 0.9 and 0.1). */
static rp_status rpi_trial_cubic(rpi_trial *trial) {
    rp_net *net = trial->net;
    const rp_optimizer *o = trial->optimizer;
    double sigma = (double)(o->cubic_adaptive ? net->sigma : o->cubic);
    double alpha = rpi_trial_length(trial, sigma), length = alpha * trial->size;
    rp_status status = RP_OK;
    trial->step.alpha = (rp_real)alpha;
    trial->step.taken = alpha > 0;
    if (alpha > 0 && o->cubic_adaptive) {
        status = rpi_trial_move(trial, alpha,
                                -alpha * (trial->slope + alpha / 2 * trial->curvature) -
                                    sigma / 6 * length * length * length);
        rpi_adapt(net, trial->step.ratio > (rp_real)0.9 ? 0.5 : trial->step.ratio < (rp_real)0.1 ? 2 : 1);
    } else if (alpha > 0) rpi_move(net, (rp_real)alpha);
    trial->step.sigma = o->cubic_adaptive ? net->sigma : o->cubic;
    return status;
}

/* net->direction = -gradient / (curvature + lambda), both of F: a step of residual partitioning. */
static rp_status rpi_newton_fallback(rpi_trial *trial, rp_real decay) {
    rp_net *net = trial->net;
    double alpha, loss;
    rp_status status =
        rpi_differentiate(net, trial->who, trial->batch, RPI_KEEP_SLOPES, &trial->optimizer->rule, &loss);
    if (status == RP_ERR_NOT_FINITE) return RP_OK; /* no curvature to be had: no step */
    if (status) return status;
    rpi_fill_arrays(net, trial->batch->count, &trial->optimizer->rule);
    for (ptrdiff_t i = 0; i < net->parameter_count; i++)
        net->direction[i] = -(net->gradient[i] + decay * net->parameters[i]) / (net->curvature[i] + decay + net->sigma);
    rpi_zero_frozen(net, net->direction);
    trial->size = rpi_norm(net, net->direction);
    status = rpi_trial_derivatives(trial);
    alpha = trial->curvature > 0 ? -trial->slope / trial->curvature : 1;
    trial->step.fallback = 1;
    for (int i = 0; !status && i < 9 && !trial->step.taken && trial->slope < 0; i++, alpha /= 2)
        status = rpi_trial_move(trial, alpha, -alpha * (trial->slope + alpha / 2 * trial->curvature));
    return status;
}

/* net->direction = p, and the model's slope and curvature along it. */
static rp_status rpi_newton_direction(rpi_trial *trial, rp_real decay) {
    rp_net *net = trial->net;
    const rpi_kernels *k = net->buffers.kernels;
    ptrdiff_t n = net->parameter_count;
    rpi_system system;
    rpi_minres minres;
    rp_status status = rpi_expand(net, trial->who, trial->batch, !trial->optimizer->full_hessian);
    memset(&minres, 0, sizeof minres);
    for (ptrdiff_t i = 0; i < RPI_MINRES_INVERSE; i++) minres.vectors[i] = net->krylov + i * n;
    minres.limit = trial->optimizer->iterations;
    minres.tolerance = (double)trial->optimizer->tolerance;
    minres.stop_at_negative = 1;
    system.net = net;
    system.who = trial->who;
    system.count = trial->batch->count;
    system.gauss_newton = !trial->optimizer->full_hessian;
    system.products = 0;
    system.damping = net->sigma + decay;
    k->blend(n, -1, net->gradient, NULL, 0, net->spare);
    k->blend(n, -decay, net->parameters, NULL, 1, net->spare);
    rpi_zero_frozen(net, net->spare);
    if (!status) status = rpi_run_minres(&system, &minres, net->spare, net->direction);
    system.damping = decay;
    if (!status) status = rpi_system_times(&system, net->direction, minres.vectors[RPI_MINRES_V]);
    if (!status) trial->curvature = k->dot(n, net->direction, minres.vectors[RPI_MINRES_V]);
    trial->slope = -k->dot(n, net->direction, net->spare);
    trial->size = rpi_norm(net, net->direction);
    trial->step.products = minres.iterations;
    if (status && status != RP_ERR_NOT_FINITE) return status;
    if (status || !rpi_finite((rp_real)trial->slope) || !rpi_finite((rp_real)trial->curvature))
        trial->slope = trial->curvature = 0; /* no direction: the fallback's turn */
    return RP_OK;
}

static rp_status rpi_newton_step(rpi_trial *trial) {
    rp_net *net = trial->net;
    const rp_optimizer *o = trial->optimizer;
    const rp_step *step = &trial->step;
    rp_real decay = (rp_real)rpi_decay_of(trial), good = (rp_real)0.75, bad = (rp_real)0.25;
    rp_status status = rpi_newton_direction(trial, decay);
    double alpha = 1;
    if (!status && o->cubic > 0) {
        status = rpi_trial_derivatives(trial);
        alpha = rpi_trial_length(trial, (double)o->cubic);
    }
    if (!status && trial->slope < 0 && alpha > 0)
        status = rpi_trial_move(trial, alpha, -alpha * (trial->slope + alpha / 2 * trial->curvature));
    trial->step.sigma = net->sigma;
    if (status || (!step->taken && !(rpi_norm(net, net->spare) > 0)))
        return status; /* a gradient of 0 says nothing about lambda */
    if (step->taken) rpi_adapt(net, step->ratio > good ? 0.5 : step->ratio < bad ? 2 : 1);
    else rpi_adapt(net, step->ratio > good ? 1 : 4);
    if (!step->taken) status = rpi_newton_fallback(trial, decay);
    trial->step.sigma = net->sigma;
    return status;
}

/* w -= shrink w */
static void rpi_shrink(rp_net *net, double shrink) {
    for (int i = 0; i < net->layer_count; i++) {
        const rpi_layer *layer = &net->layers[i];
        rp_real *w = net->parameters + layer->weights;
        if (!layer->frozen)
            net->buffers.kernels->blend(layer->weight_count + layer->bias_count, (rp_real)(1 - shrink), w, NULL, 0, w);
    }
}

/* A step of the methods that compute it, or its length; gradient and, for partitioning, curvature wait in the flat arrays. */
static rp_status rpi_computed_step(rpi_trial *trial) {
    rp_net *net = trial->net;
    const rp_optimizer *o = trial->optimizer;
    int curved = o->method == RP_PARTITIONING || o->method == RP_PER_VARIABLE;
    double rate = rpi_rate(net, o);
    rp_status status = RP_OK;
    trial->before += rpi_decay_loss(trial);
    if (o->method == RP_NEWTON) {
        net->has_direction = 3;
        status = rpi_newton_step(trial);
        net->time++;
    } else {
        rpi_direction(net, o, curved ? net->curvature : NULL);
        if (o->cubic > 0) {
            trial->size = rpi_norm(net, net->direction);
            status = rpi_trial_derivatives(trial);
            if (!status) status = rpi_trial_cubic(trial);
        } else {
            rpi_move(net, 1);
            trial->step.taken = 1;
            trial->step.alpha = 1;
        }
    }
    if (o->decoupled && trial->step.taken && (o->cubic > 0 || o->method == RP_NEWTON))
        rpi_shrink(net, rate * (double)o->weight_decay);
    trial->step.slope = (rp_real)trial->slope;
    trial->step.curvature = (rp_real)trial->curvature;
    net->last = trial->step;
    net->stepped = 1;
    return status;
}

static rp_status rpi_train_computed(rp_net *net, const char *who, const rp_optimizer *o, const rp_data *batch,
                                    rp_real *loss) {
    const rp_rule *rule = o->method == RP_PARTITIONING ? &o->rule : NULL;
    int keep = o->method < RP_PER_VARIABLE &&
               !(rule && rule->kind == RP_PATHS); /* the others leave something else in sigma'' */
    rpi_trial trial;
    double value;
    rp_status status = rpi_differentiate(net, who, batch, keep ? RPI_KEEP_CURVES : RPI_KEEP_SLOPES, rule, &value);
    if (!status) status = rpi_prepare(net, who, o);
    if (status) return status;
    memset(&trial, 0, sizeof trial);
    trial.net = net;
    trial.who = who;
    trial.optimizer = o;
    trial.batch = batch;
    trial.before = value;
    trial.kept = keep;
    rpi_fill_arrays(net, batch->count, rule);
    if (o->method == RP_PER_VARIABLE) {
        status = rpi_hessian_diagonal(net, who, batch, &net->recursion);
        if (status) return status;
        rpi_copy(net->curvature, net->sums, net->parameter_count);
        net->has_curvature |= 1;
    }
    status = rpi_computed_step(&trial);
    if (!status && loss) *loss = (rp_real)value;
    return status;
}

static rp_status rpi_train(rp_net *net, const char *who, const rp_optimizer *o, const rp_data *batch, rp_real *loss) {
    const rp_rule *rule;
    rpi_update update;
    rpi_sink sink;
    double value;
    int jacobian;
    uint64_t random = net->random;
    rp_status status = rpi_needs(net, who, "optimizer", o);
    if (!status) status = rpi_check_optimizer(net, who, o);
    if (status) return status;
    rule = o->method == RP_PARTITIONING ? &o->rule : NULL;
    if (o->cubic > 0 || o->method >= RP_PER_VARIABLE) {
        status = rpi_train_computed(net, who, o, batch, loss);
        if (status) net->random = random;
        return status;
    }
    status = rpi_differentiate(net, who, batch, RPI_KEEP_SLOPES, rule, &value);
    if (!status) status = rpi_prepare(net, who, o); /* last, as it may drop another optimizer's state */
    if (status) {
        net->random = random;
        return status;
    }
    jacobian = rule && rule->kind == RP_JACOBIAN;
    update = rpi_next_update(net, o);
    sink.take = net->buffers.kernels->take_step;
    sink.update = &update;
    sink.parameters = net->parameters;
    sink.first = net->first;
    sink.second = net->second;
    sink.gradient = NULL;
    sink.curvature = jacobian ? net->sums : NULL;
    rpi_collect(net, &net->buffers, batch->count, 1, rule && !jacobian, rule, rpi_weight_of(&net->buffers, rule),
                &sink);
    memset(&net->last, 0, sizeof net->last);
    net->last.taken = net->stepped = 1;
    net->last.alpha = 1;
    if (loss) *loss = (rp_real)value;
    return RP_OK;
}

RP_API rp_status rp_train(rp_net *net, const rp_optimizer *optimizer, const rp_data *batch, rp_real *loss) {
    rp_status status = rpi_trainable(net, "rp_train");
    return status ? status : rpi_train(net, "rp_train", optimizer, batch, loss);
}

RP_API rp_status rp_last_step(rp_net *net, rp_step *step) {
    rp_status status = rpi_trainable(net, "rp_last_step");
    if (!status) status = rpi_needs(net, "rp_last_step", "step", step);
    if (!status && !net->stepped) status = rpi_fail(net, RP_ERR_ORDER, "rp_last_step: no step was taken yet");
    if (!status) *step = net->last;
    return status;
}

/* >>predict */
/* A single sample is kept as contiguous vectors (ld 1), for which an affine map is a matrix-vector product. */
static void rpi_predict_one(const rp_net *net, const rpi_buffers *batch, const rp_real *x, rp_real *out) {
    rpi_buffers b = *batch;
    b.ld = 1;
    rpi_copy(b.y[0], x, net->inputs);
    rpi_forward(net, &b, 1, RPI_KEEP_NOTHING, NULL);
    rpi_copy(out, b.y[net->slot_count - 1], net->outputs);
}

static void rpi_predict_batches(const rp_net *net, const rpi_buffers *b, const rp_real *x, int count, rp_real *out) {
    ptrdiff_t inputs = net->inputs, outputs = net->outputs;
    for (int some; count > 0; count -= some, x += some * inputs, out += some * outputs) {
        some = count < b->batch ? count : b->batch;
        if (some == 1 && net->vectors) {
            rpi_predict_one(net, b, x, out);
            continue;
        }
        rpi_load_rows(b, x, some, net->inputs, b->y[0]);
        rpi_forward(net, b, rpi_columns(b, some), RPI_KEEP_NOTHING, NULL);
        b->kernels->transpose(b->y[net->slot_count - 1], b->ld, net->outputs, some, out, outputs, net->outputs);
    }
}

RP_API rp_status rp_predict(rp_net *net, const rp_real *x, int count, rp_real *out) {
    rp_status status = rpi_built(net, "rp_predict");
    if (!status) status = rpi_needs(net, "rp_predict", "x", x);
    if (!status) status = rpi_needs(net, "rp_predict", "out", out);
    if (status) return status;
    if (count < 1) return rpi_fail(net, RP_ERR_VALUE, "rp_predict: count is %d; it must be 1 or more", count);
    net->forward_count = 0;
    rpi_predict_batches(net, &net->buffers, x, count, out);
    return RP_OK;
}

struct rp_workspace {
    const rp_net *net;
    rpi_memory memory;
    rpi_block block;
    rpi_buffers buffers;
};

RP_API rp_workspace *rp_workspace_new(const rp_net *net, int batch) {
    rpi_arena arena = {NULL, 0, 0};
    rp_workspace *w;
    if (!net || !net->built || batch < 1 || batch > RPI_LARGEST) return NULL;
    w = (rp_workspace *)net->memory.allocate(net->memory.user, sizeof *w);
    if (!w) return NULL;
    memset(w, 0, sizeof *w);
    w->net = net;
    w->memory = net->memory;
    w->buffers.kernels = net->buffers.kernels;
    w->buffers.batch = batch;
    w->buffers.ld = rpi_leading(batch);
    rpi_lay_out_prediction(net, &arena, &w->buffers, 1);
    if (arena.overflow || !rpi_block_new(&w->memory, &w->block, arena.used)) {
        w->memory.release(w->memory.user, w);
        return NULL;
    }
    arena.base = w->block.base;
    arena.used = 0;
    rpi_lay_out_prediction(net, &arena, &w->buffers, 1);
    return w;
}

RP_API void rp_workspace_free(rp_workspace *workspace) {
    rpi_memory memory;
    if (!workspace) return;
    memory = workspace->memory;
    rpi_block_free(&memory, &workspace->block);
    memory.release(memory.user, workspace);
}

RP_API rp_status rp_predict_with(const rp_net *net, rp_workspace *workspace, const rp_real *x, int count,
                                 rp_real *out) {
    if (!net || !workspace || !x || !out) return RP_ERR_NULL;
    if (count < 1 || workspace->net != net) return RP_ERR_VALUE;
    rpi_predict_batches(net, &workspace->buffers, x, count, out);
    return RP_OK;
}

/* >>evaluate */
typedef struct rpi_tally {
    double loss, right, weight; /* right, weight: of decisions */
    int64_t count;
} rpi_tally;

/* d: targets, still. */
static void rpi_tally_decisions(const rp_net *net, const rpi_buffers *b, const rp_data *data, rpi_tally *tally) {
    const ptrdiff_t ld = b->ld, end = net->outputs * ld;
    for (int s = 0; s < data->count; s++) {
        const rp_real *y = b->y[net->slot_count - 1] + s, *t = b->d[net->slot_count - 1] + s;
        double weight = data->weights ? (double)data->weights[s] : 1;
        ptrdiff_t best = 0, truth = 0;
        if (net->loss == RP_SOFTMAX_CROSS_ENTROPY) {
            for (ptrdiff_t i = ld; i < end; i += ld) {
                best = y[i] > y[best] ? i : best;
                truth = t[i] > t[truth] ? i : truth;
            }
            tally->right += best == truth ? weight : 0;
            tally->weight += weight;
        } else if (net->loss == RP_BINARY_CROSS_ENTROPY) {
            for (ptrdiff_t i = 0; i < end; i += ld) tally->right += (y[i] > 0) == (t[i] > (rp_real)0.5) ? weight : 0;
            tally->weight += weight * net->outputs;
        }
    }
}

static void rpi_evaluate_batch(rp_net *net, const rp_data *batch, rpi_tally *tally) {
    const rpi_buffers *b = &net->buffers;
    rpi_load_rows(b, batch->inputs, batch->count, net->inputs, b->y[0]);
    rpi_forward(net, b, rpi_columns(b, batch->count), RPI_KEEP_NOTHING, NULL);
    rpi_load_targets(net, b, batch);
    rpi_tally_decisions(net, b, batch, tally);
    tally->loss += rpi_evaluate_loss(net, b, batch, NULL, 0);
    tally->count += batch->count;
}

/* The samples from `at` on of a data set in memory, at most `most` of them. */
static rp_data rpi_slice(const rp_net *net, const rp_data *data, int at, int most) {
    rp_data slice = *data;
    slice.count = data->count - at < most ? data->count - at : most;
    slice.inputs += (ptrdiff_t)at * net->inputs;
    if (data->targets) slice.targets += (ptrdiff_t)at * net->outputs;
    if (data->labels) slice.labels += at;
    if (data->weights) slice.weights += at;
    return slice;
}

/* Batch `index` of streamed data, checked: 1, 0 at the end, or a negative status. */
static int rpi_stream(rp_net *net, const char *who, const rp_data *data, int index, rp_data *batch) {
    int more;
    rp_status status;
    memset(batch, 0, sizeof *batch);
    more = data->fill(data->user, index, batch);
    if (more < 0) return rpi_fail(net, RP_ERR_STOPPED, "%s: data.fill returned %d for batch %d", who, more, index);
    if (!more) return 0;
    status = rpi_check_data(net, who, batch, net->batch);
    return status ? status : 1;
}

static rp_status rpi_evaluate(rp_net *net, const char *who, const rp_data *data, rp_score *score) {
    rpi_tally tally = {0, 0, 0, 0};
    rp_data batch;
    int more;
    if (data->fill) {
        for (int index = 0; (more = rpi_stream(net, who, data, index, &batch)) > 0; index++)
            rpi_evaluate_batch(net, &batch, &tally);
        if (more < 0) return (rp_status)more;
        if (!tally.count) return rpi_fail(net, RP_ERR_VALUE, "%s: data.fill gave no batch", who);
    } else
        for (int64_t at = 0; at < data->count; at += net->batch) {
            batch = rpi_slice(net, data, (int)at, net->batch);
            rpi_evaluate_batch(net, &batch, &tally);
        }
    score->loss = (rp_real)(tally.loss / (double)tally.count);
    score->accuracy = tally.weight > 0 ? (rp_real)(tally.right / tally.weight) : -1;
    score->count = tally.count;
    if (!rpi_finite(score->loss))
        return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: the loss is %g", who, tally.loss / (double)tally.count);
    return RP_OK;
}

RP_API rp_status rp_evaluate(rp_net *net, const rp_data *data, rp_score *score) {
    rp_status status = rpi_built(net, "rp_evaluate");
    if (!status) status = rpi_needs(net, "rp_evaluate", "data", data);
    if (!status) status = rpi_needs(net, "rp_evaluate", "score", score);
    if (!status && !data->fill) status = rpi_check_data(net, "rp_evaluate", data, INT_MAX);
    if (status) return status;
    net->forward_count = 0;
    return rpi_evaluate(net, "rp_evaluate", data, score);
}

static void rpi_copy_sample(const rp_net *net, const rp_data *data, int from, int to) {
    ptrdiff_t inputs = net->inputs, outputs = net->outputs;
    rpi_copy(net->staged_inputs + to * inputs, data->inputs + from * inputs, inputs);
    if (data->targets) rpi_copy(net->staged_targets + to * outputs, data->targets + from * outputs, outputs);
    if (data->labels) net->staged_labels[to] = data->labels[from];
    if (data->weights) net->staged_weights[to] = data->weights[from];
}

/* One run of rp_fit. */
typedef struct rpi_fit {
    rp_net *net;
    const rp_optimizer *optimizer;
    const rp_data *data;
    rp_fit_options options;
    rp_fit_report report;
    rp_progress progress;
    double sum; /* of losses, and how many, in this epoch */
    int64_t seen;
    rpi_block best; /* the best parameters, for keep_best */
} rpi_fit;

/* The next batch of the epoch: 1, 0 at its end, or a negative status. Shuffled samples are gathered; others are used in place. */
static int rpi_next_batch(rpi_fit *fit, rp_data *batch) {
    rp_net *net = fit->net;
    int64_t at = (int64_t)fit->progress.step * fit->options.batch;
    if (fit->data->fill) return rpi_stream(net, "rp_fit", fit->data, fit->progress.step, batch);
    if (at >= fit->data->count) return 0;
    *batch = rpi_slice(net, fit->data, (int)at, fit->options.batch);
    if (fit->options.keep_order) return 1;
    for (int s = 0; s < batch->count; s++)
        rpi_copy_sample(net, fit->data,
                        rpi_permute(rpi_mix(fit->options.seed + rpi_mix((uint64_t)fit->progress.epoch + 1)),
                                    fit->data->count, (int)at + s),
                        s);
    batch->inputs = net->staged_inputs;
    if (batch->targets) batch->targets = net->staged_targets;
    if (batch->labels) batch->labels = net->staged_labels;
    if (batch->weights) batch->weights = net->staged_weights;
    return 1;
}

static rp_status rpi_fit_step(rpi_fit *fit, const rp_data *batch) {
    rp_optimizer o = *fit->optimizer;
    rp_real loss;
    rp_status status;
    if (fit->options.schedule) o.rate = fit->options.schedule(fit->options.user, fit->report.steps, o.rate);
    status = rpi_train(fit->net, "rp_fit", &o, batch, &loss);
    if (status) return status;
    fit->sum += (double)loss * batch->count;
    fit->seen += batch->count;
    fit->progress.loss = (rp_real)(fit->sum / (double)fit->seen);
    fit->progress.step++;
    fit->report.steps++;
    fit->progress.last = fit->report.last = fit->net->last;
    return RP_OK;
}

static int rpi_fit_progress(rpi_fit *fit) {
    if (!fit->options.progress || !fit->options.progress(fit->options.user, &fit->progress)) return 0;
    return fit->report.stopped = 2;
}

static rp_status rpi_fit_validate(rpi_fit *fit) {
    rp_net *net = fit->net;
    rp_score *score = &fit->progress.validation;
    rp_status status;
    if (!fit->options.validation) return RP_OK;
    status = rpi_evaluate(net, "rp_fit: validation", fit->options.validation, score);
    if (status) return status;
    fit->report.validation = *score;
    if (fit->report.best_epoch < 0 || score->loss < fit->report.best_loss) {
        fit->report.best_loss = score->loss;
        fit->report.best_epoch = fit->progress.epoch;
        if (fit->best.base) rpi_copy((rp_real *)fit->best.base, net->parameters, net->parameter_count);
    } else if (fit->options.patience && fit->progress.epoch - fit->report.best_epoch >= fit->options.patience)
        fit->report.stopped = 1;
    return RP_OK;
}

static rp_status rpi_fit_epoch(rpi_fit *fit) {
    rp_data batch;
    rp_status status;
    int more;
    fit->progress.step = fit->progress.epoch_done = 0;
    fit->sum = 0;
    fit->seen = 0;
    while ((more = rpi_next_batch(fit, &batch)) > 0) {
        status = rpi_fit_step(fit, &batch);
        if (status) return status;
        if (rpi_fit_progress(fit)) return RP_OK;
    }
    if (more < 0) return (rp_status)more;
    if (!fit->seen) return rpi_fail(fit->net, RP_ERR_VALUE, "rp_fit: data.fill gave no batch");
    fit->progress.steps = fit->progress.step;
    fit->report.epochs++;
    fit->report.loss = fit->progress.loss;
    status = rpi_fit_validate(fit);
    fit->progress.epoch_done = 1;
    if (!status && rpi_fit_progress(fit)) return RP_OK;
    return status;
}

static rp_status rpi_fit_check(rpi_fit *fit) {
    rp_net *net = fit->net;
    const rp_fit_options *options = &fit->options;
    const rp_data *validation = options->validation;
    rp_status status = RP_OK;
    if (options->epochs < 0)
        return rpi_fail(net, RP_ERR_VALUE, "rp_fit: options.epochs is %d; it must be 0 or more", options->epochs);
    if (options->batch < 0 || options->batch > net->batch)
        return rpi_fail(net, RP_ERR_VALUE,
                        "rp_fit: options.batch is %d; it may be 0 to %d, the batch that the net was built for",
                        options->batch, net->batch);
    if (options->patience < 0)
        return rpi_fail(net, RP_ERR_VALUE, "rp_fit: options.patience is %d; it must be 0 or more", options->patience);
    if ((options->patience || options->keep_best) && !validation)
        return rpi_fail(net, RP_ERR_VALUE, "rp_fit: options.%s needs options.validation",
                        options->patience ? "patience" : "keep_best");
    if (!fit->data->fill) status = rpi_check_data(net, "rp_fit", fit->data, INT_MAX);
    if (!status && validation && !validation->fill)
        status = rpi_check_data(net, "rp_fit: validation", validation, INT_MAX);
    if (!status) status = rpi_needs(net, "rp_fit", "optimizer", fit->optimizer);
    return status ? status : rpi_check_optimizer(net, "rp_fit", fit->optimizer);
}

RP_API rp_status rp_fit(rp_net *net, const rp_optimizer *optimizer, const rp_data *data, const rp_fit_options *options,
                        rp_fit_report *report) {
    rpi_fit fit;
    rp_status status = rpi_trainable(net, "rp_fit");
    if (!status) status = rpi_needs(net, "rp_fit", "data", data);
    if (status) return status;
    memset(&fit, 0, sizeof fit);
    fit.net = net;
    fit.optimizer = optimizer;
    fit.data = data;
    if (options) fit.options = *options;
    status = rpi_fit_check(&fit);
    if (status) return status;
    if (!fit.options.epochs) fit.options.epochs = 1;
    if (!fit.options.batch) fit.options.batch = net->batch;
    if (!data->fill) fit.progress.steps = (int)(((int64_t)data->count + fit.options.batch - 1) / fit.options.batch);
    fit.progress.epochs = fit.options.epochs;
    fit.report.best_epoch = -1;
    if (fit.options.keep_best &&
        !rpi_block_new(&net->memory, &fit.best, (size_t)net->parameter_count * sizeof(rp_real)))
        return rpi_fail(net, RP_ERR_MEMORY, "rp_fit: no memory for a copy of %z parameters (options.keep_best)",
                        net->parameter_count);
    for (; !status && !fit.report.stopped && fit.progress.epoch < fit.options.epochs; fit.progress.epoch++)
        status = rpi_fit_epoch(&fit);
    if (fit.best.base && fit.report.best_epoch >= 0)
        rpi_copy(net->parameters, (const rp_real *)fit.best.base, net->parameter_count);
    rpi_block_free(&net->memory, &fit.best);
    if (report) *report = fit.report;
    return status;
}

/* >>idx
   Two zero bytes, the type of the elements (8: unsigned byte), the number of dimensions; each dimension as four bytes, largest
   first; the elements. */
static rp_status rpi_idx_fail(rp_idx *idx, rp_status status, const char *format, ...) {
    va_list list;
    va_start(list, format);
    rpi_format_list(idx->error, sizeof idx->error, format, list);
    va_end(list);
    return status;
}

/* Checks the whole header against the size; sets count, size, dimensions, shape. *at: where the elements begin. */
static rp_status rpi_idx_header(rp_idx *idx, const unsigned char *bytes, size_t size, size_t *at) {
    uint64_t product = 1;
    int dimensions;
    if (size < 4)
        return rpi_idx_fail(idx, RP_ERR_TRUNCATED, "%z bytes are too few for the 4 that an IDX file begins with", size);
    if (bytes[0] || bytes[1])
        return rpi_idx_fail(idx, RP_ERR_MAGIC, "not an IDX file: it begins with the bytes %d %d, not 0 0",
                            (int)bytes[0], (int)bytes[1]);
    if (bytes[2] != 8) {
        int known = bytes[2] == 9 || (bytes[2] >= 11 && bytes[2] <= 14);
        return rpi_idx_fail(idx, known ? RP_ERR_UNSUPPORTED : RP_ERR_MAGIC,
                            "the element type is %d; only 8, unsigned bytes, can be read", (int)bytes[2]);
    }
    dimensions = bytes[3];
    if (dimensions < 1 || dimensions > 9)
        return rpi_idx_fail(idx, RP_ERR_SHAPE, "%d dimensions; there may be 1 to 9", dimensions);
    *at = 4 + 4 * (size_t)dimensions;
    if (size < *at)
        return rpi_idx_fail(idx, RP_ERR_TRUNCATED, "%z bytes are too few for %d dimensions", size, dimensions);
    idx->size = 1;
    idx->dimensions = dimensions - 1;
    for (int i = 0; i < dimensions; i++) {
        const unsigned char *b = bytes + 4 + 4 * i;
        uint32_t extent = (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
        if (!extent) return rpi_idx_fail(idx, RP_ERR_SHAPE, "dimension %d is 0", i);
        if (extent > INT_MAX || product > (uint64_t)(SIZE_MAX / 16) / extent ||
            (i && (uint64_t)idx->size * extent > INT_MAX))
            return rpi_idx_fail(idx, RP_ERR_OVERFLOW, "the product of the dimensions is too large (dimension %d is %l)",
                                i, (int64_t)extent);
        product *= extent;
        if (i) {
            idx->size *= (int)extent;
            idx->shape[i - 1] = (int)extent;
        } else idx->count = (int)extent;
    }
    if (size - *at != product)
        return rpi_idx_fail(idx, size - *at < product ? RP_ERR_TRUNCATED : RP_ERR_TRAILING,
                            "%z bytes follow the header, but the dimensions say %l", size - *at, (int64_t)product);
    return RP_OK;
}

static rp_status rpi_idx_parse(rp_idx *idx, const void *data, size_t size, int classes, rp_real low, rp_real high) {
    const unsigned char *bytes = (const unsigned char *)data;
    size_t at = 0, count, width = classes ? sizeof *idx->labels : sizeof *idx->values;
    rp_status status;
    if (!bytes) return rpi_idx_fail(idx, RP_ERR_NULL, "bytes is NULL");
    status = rpi_idx_header(idx, bytes, size, &at);
    if (status) return status;
    if (classes && idx->dimensions)
        return rpi_idx_fail(idx, RP_ERR_SHAPE, "%d dimensions; labels have one", idx->dimensions + 1);
    count = size - at;
    for (size_t i = 0; classes && i < count; i++)
        if (bytes[at + i] >= classes)
            return rpi_idx_fail(idx, RP_ERR_LABEL, "label %z is %d; it may be 0 to %d", i, (int)bytes[at + i],
                                classes - 1);
    if (classes) idx->labels = (int *)RP_MALLOC(count * width);
    else idx->values = (rp_real *)RP_MALLOC(count * width);
    if (!idx->labels && !idx->values) return rpi_idx_fail(idx, RP_ERR_MEMORY, "no memory for %z bytes", count * width);
    for (size_t i = 0; i < count; i++)
        if (classes) idx->labels[i] = bytes[at + i];
        else idx->values[i] = low + (high - low) * ((rp_real)bytes[at + i] / 255);
    return RP_OK;
}

/* Common to the four readers. Images: classes is 0. */
static rp_status rpi_idx_begin(rp_idx *out, int labels, int classes, rp_real low, rp_real high) {
    if (!out) return RP_ERR_NULL;
    memset(out, 0, sizeof *out);
    if (labels && classes < 1) return rpi_idx_fail(out, RP_ERR_VALUE, "classes is %d; it must be 1 or more", classes);
    if (!rpi_finite(low) || !rpi_finite(high) || !rpi_finite(high - low))
        return rpi_idx_fail(out, RP_ERR_VALUE, "low is %g and high is %g; both, and their difference, must be finite",
                            (double)low, (double)high);
    return RP_OK;
}

static rp_status rpi_idx_end(rp_idx *out, rp_status status) {
    if (status && out) {
        out->count = out->size = out->dimensions = 0;
        memset(out->shape, 0, sizeof out->shape);
    }
    return status;
}

RP_API rp_status rp_images_memory(const void *bytes, size_t size, rp_real low, rp_real high, rp_idx *out) {
    rp_status status = rpi_idx_begin(out, 0, 0, low, high);
    return rpi_idx_end(out, status ? status : rpi_idx_parse(out, bytes, size, 0, low, high));
}

RP_API rp_status rp_labels_memory(const void *bytes, size_t size, int classes, rp_idx *out) {
    rp_status status = rpi_idx_begin(out, 1, classes, 0, 1);
    return rpi_idx_end(out, status ? status : rpi_idx_parse(out, bytes, size, classes, 0, 1));
}

#ifndef RP_NO_STDIO
/* The whole file, read in growing pieces so that it need not be seekable; NULL after a failure. */
static unsigned char *rpi_read_file(FILE *file, size_t *size, rp_status *status) {
    size_t capacity = 1 << 16, length = 0, got;
    unsigned char *bytes = (unsigned char *)RP_MALLOC(capacity);
    while (bytes && (got = fread(bytes + length, 1, capacity - length, file)) > 0) {
        unsigned char *larger;
        length += got;
        if (length < capacity) continue;
        larger = capacity > SIZE_MAX / 4 ? NULL : (unsigned char *)RP_MALLOC(capacity * 2);
        if (larger) memcpy(larger, bytes, length);
        RP_FREE(bytes);
        bytes = larger;
        capacity *= 2;
    }
    *status = !bytes ? RP_ERR_MEMORY : ferror(file) ? RP_ERR_FILE : RP_OK;
    if (bytes && *status) {
        RP_FREE(bytes);
        bytes = NULL;
    }
    *size = length;
    return bytes;
}

static rp_status rpi_idx_file(const char *path, int classes, rp_real low, rp_real high, rp_idx *out) {
    rp_status status = RP_ERR_FILE;
    unsigned char *bytes = NULL;
    size_t size = 0;
    FILE *file;
    if (!path) return rpi_idx_fail(out, RP_ERR_NULL, "path is NULL");
    file = fopen(path, "rb");
    if (!file) return rpi_idx_fail(out, RP_ERR_FILE, "%s: cannot be opened", path);
    bytes = rpi_read_file(file, &size, &status);
    fclose(file);
    if (!bytes)
        return rpi_idx_fail(out, status, "%s: %s", path,
                            status == RP_ERR_MEMORY ? "no memory for the file" : "cannot be read");
    status = rpi_idx_parse(out, bytes, size, classes, low, high);
    RP_FREE(bytes);
    if (status) {
        char what[sizeof out->error];
        memcpy(what, out->error, sizeof what);
        rpi_idx_fail(out, status, "%s: %s", path, what);
    }
    return status;
}

RP_API rp_status rp_images(const char *path, rp_real low, rp_real high, rp_idx *out) {
    rp_status status = rpi_idx_begin(out, 0, 0, low, high);
    return rpi_idx_end(out, status ? status : rpi_idx_file(path, 0, low, high, out));
}

RP_API rp_status rp_labels(const char *path, int classes, rp_idx *out) {
    rp_status status = rpi_idx_begin(out, 1, classes, 0, 1);
    return rpi_idx_end(out, status ? status : rpi_idx_file(path, classes, 0, 1, out));
}
#endif

RP_API void rp_idx_free(rp_idx *idx) {
    if (!idx) return;
    if (idx->values) RP_FREE(idx->values);
    if (idx->labels) RP_FREE(idx->labels);
    idx->values = NULL;
    idx->labels = NULL;
}

#endif /* RP_IMPLEMENTATION */

#else /* RPI_PASS */
/* >>template
   The kernels, compiled once for each instruction set. rpi_v is a vector of RPI_LANES reals (one real without the GNU vector
   extensions), rpi_i the integers of the same width; a mask is an rpi_i of zeros and minus ones. */
#ifdef RPI_VECTORS
#define RPI_LANES ((int)(RPI_VECTOR_BYTES / sizeof(rp_real)))
typedef rp_real RPI_FN(vector) __attribute__((vector_size(RPI_VECTOR_BYTES)));
typedef rp_real RPI_FN(unaligned) __attribute__((vector_size(RPI_VECTOR_BYTES), aligned(sizeof(rp_real)), may_alias));
typedef rpi_int RPI_FN(integer) __attribute__((vector_size(RPI_VECTOR_BYTES)));
#define rpi_v RPI_FN(vector)
#define rpi_i RPI_FN(integer)
#define RPI_BITS(x) ((rpi_i)(x))
#define RPI_REALS(x) ((rpi_v)(x))
#define RPI_GREATER(a, b) ((rpi_i)((a) > (b)))
#define RPI_EQUAL(a, b) ((rpi_i)((a) == (b)))
RPI_INLINE rpi_v RPI_FN(load)(const rp_real *p) { return *(const RPI_FN(unaligned) *)p; }
RPI_INLINE void RPI_FN(store)(rp_real *p, rpi_v x) { *(RPI_FN(unaligned) *)p = x; }
/* x in all lanes: an operator widens a number beside a vector, and x - 0 is x, also for -0. */
RPI_INLINE rpi_v RPI_FN(all)(rp_real x) {
    const rpi_v zero = {0};
    return x - zero;
}
RPI_INLINE rpi_i RPI_FN(all_int)(rpi_int x) {
    const rpi_i zero = {0};
    return x - zero;
}
#else
#define RPI_LANES 1
#define rpi_v rp_real
#define rpi_i rpi_int
#define RPI_BITS(x) rpi_bits(x)
#define RPI_REALS(x) RPI_FN(reals)(x)
#define RPI_GREATER(a, b) (-(rpi_int)((a) > (b)))
#define RPI_EQUAL(a, b) (-(rpi_int)((a) == (b)))
RPI_INLINE rp_real RPI_FN(reals)(rpi_int bits) {
    rp_real x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
RPI_INLINE rpi_v RPI_FN(load)(const rp_real *p) { return *p; }
RPI_INLINE void RPI_FN(store)(rp_real *p, rpi_v x) { *p = x; }
RPI_INLINE rpi_v RPI_FN(all)(rp_real x) { return x; }
RPI_INLINE rpi_i RPI_FN(all_int)(rpi_int x) { return x; }
#endif
#define RPI_LOAD RPI_FN(load)
#define RPI_STORE RPI_FN(store)
#define RPI_ALL RPI_FN(all)
#define RPI_ALL_INT RPI_FN(all_int)
#define RPI_FMA RPI_FN(fma)             /* a b + c */
#define RPI_LOAD_SOME RPI_FN(load_some) /* the first n lanes; the others are 0 and stay unwritten */
#define RPI_STORE_SOME RPI_FN(store_some)

/* A function of the C library, lane by lane. */
#define RPI_LANES_OF(name) RPI_JOIN(RPI_FN(lanes), name)
#define RPI_LANEWISE(name) \
    RPI_NOINLINE void RPI_JOIN(RPI_FN(each), name)(rp_real * lanes) { \
        for (int i = 0; i < RPI_LANES; i++) lanes[i] = RPI_MATH(name)(lanes[i]); \
    } \
    RPI_INLINE rpi_v RPI_LANES_OF(name)(rpi_v x) { \
        rp_real lanes[RPI_LANES]; \
        RPI_STORE(lanes, x); \
        RPI_JOIN(RPI_FN(each), name)(lanes); \
        return RPI_LOAD(lanes); \
    }

#if RPI_VECTOR_BYTES == 64
#define RPI_TILE_ROWS 6
#define RPI_TILE_VECTORS 4
RPI_INLINE rpi_v RPI_FMA(rpi_v a, rpi_v b, rpi_v c) { return _mm512_fmadd_ps(a, b, c); }
/* the plain forms of these two make GCC 12 warn of its own header */
#define RPI_ROOT RPI_FN(root)
RPI_INLINE rpi_v RPI_ROOT(rpi_v x) { return _mm512_maskz_sqrt_ps(0xFFFF, x); }
RPI_INLINE rpi_v RPI_FN(to_real)(rpi_i x) { return _mm512_maskz_cvtepi32_ps(0xFFFF, (__m512i)x); }
RPI_INLINE __mmask16 RPI_FN(some)(int n) { return (__mmask16)(n >= 16 ? 0xFFFF : (1u << n) - 1); }
RPI_INLINE rpi_v RPI_LOAD_SOME(const rp_real *p, int n) { return _mm512_maskz_loadu_ps(RPI_FN(some)(n), p); }
RPI_INLINE void RPI_STORE_SOME(rp_real *p, rpi_v x, int n) { _mm512_mask_storeu_ps(p, RPI_FN(some)(n), x); }
#elif RPI_VECTOR_BYTES == 32
#define RPI_TILE_ROWS 6
#define RPI_TILE_VECTORS 2
RPI_INLINE rpi_v RPI_FMA(rpi_v a, rpi_v b, rpi_v c) { return _mm256_fmadd_ps(a, b, c); }
#define RPI_ROOT RPI_FN(root)
RPI_INLINE rpi_v RPI_ROOT(rpi_v x) { return _mm256_sqrt_ps(x); }
RPI_INLINE rpi_v RPI_FN(to_real)(rpi_i x) { return _mm256_cvtepi32_ps((__m256i)x); }
RPI_INLINE __m256i RPI_FN(some)(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
RPI_INLINE rpi_v RPI_LOAD_SOME(const rp_real *p, int n) { return _mm256_maskload_ps(p, RPI_FN(some)(n)); }
RPI_INLINE void RPI_STORE_SOME(rp_real *p, rpi_v x, int n) { _mm256_maskstore_ps(p, RPI_FN(some)(n), x); }
#else
#ifdef RPI_NEON_PASS
#define RPI_TILE_ROWS 6 /* 32 registers */
#define RPI_TILE_VECTORS 4
#else
#define RPI_TILE_ROWS 4
#define RPI_TILE_VECTORS 2
#endif
#ifdef RPI_NEON_PASS
RPI_INLINE rpi_v RPI_FMA(rpi_v a, rpi_v b, rpi_v c) {
    return (rpi_v)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
#else
RPI_INLINE rpi_v RPI_FMA(rpi_v a, rpi_v b, rpi_v c) { return a * b + c; }
#endif
RPI_NOINLINE void RPI_FN(copy_some)(rp_real *to, const rp_real *from, int n) {
    for (int i = 0; i < n; i++) to[i] = from[i];
}
RPI_INLINE rpi_v RPI_LOAD_SOME(const rp_real *p, int n) {
    rp_real some[RPI_LANES] = {0};
    if (n >= RPI_LANES) return RPI_LOAD(p);
    RPI_FN(copy_some)(some, p, n);
    return RPI_LOAD(some);
}
RPI_INLINE void RPI_STORE_SOME(rp_real *p, rpi_v x, int n) {
    rp_real some[RPI_LANES];
    if (n >= RPI_LANES) {
        RPI_STORE(p, x);
        return;
    }
    RPI_STORE(some, x);
    RPI_FN(copy_some)(p, some, n);
}
#define RPI_ROOT RPI_LANES_OF(sqrt)
RPI_LANEWISE(sqrt)
#ifndef RP_DOUBLE
RPI_INLINE rpi_v RPI_FN(to_real)(rpi_i x) {
    rpi_int from[RPI_LANES];
    rp_real lanes[RPI_LANES];
    memcpy(from, &x, sizeof from);
    for (int i = 0; i < RPI_LANES; i++) lanes[i] = (rp_real)from[i];
    return RPI_LOAD(lanes);
}
#endif
#endif

RPI_INLINE rpi_v RPI_FN(magnitude)(rpi_v x) { return RPI_REALS(RPI_BITS(x) & RPI_ALL_INT(RPI_MAGNITUDE)); }
#define RPI_ABS RPI_FN(magnitude)
RPI_INLINE rpi_v RPI_FN(select)(rpi_i mask, rpi_v yes, rpi_v no) {
    return RPI_REALS((RPI_BITS(yes) & mask) | (RPI_BITS(no) & ~mask));
}
#define RPI_SELECT RPI_FN(select)

RPI_INLINE rpi_i RPI_FN(not_finite)(rpi_v x) {
    rpi_i exponent = RPI_ALL_INT(RPI_EXPONENT);
    return RPI_EQUAL(RPI_BITS(x) & exponent, exponent);
}
/* `wanted` where it is finite, elsewhere `otherwise` */
RPI_INLINE rpi_v RPI_FN(finite_or)(rpi_v wanted, rpi_v otherwise) {
    return RPI_SELECT(RPI_FN(not_finite)(wanted), otherwise, wanted);
}
RPI_INLINE int RPI_FN(any_lane)(rpi_i mask) {
    rpi_int lanes[RPI_LANES], any = 0;
    memcpy(lanes, &mask, sizeof lanes);
    for (int i = 0; i < RPI_LANES; i++) any |= lanes[i];
    return any != 0;
}

RPI_LANEWISE(erfc)
RPI_LANEWISE(log)

#ifdef RP_DOUBLE
RPI_LANEWISE(exp)
RPI_LANEWISE(expm1)
RPI_LANEWISE(log1p)
RPI_LANEWISE(tanh)
#define RPI_EXP RPI_LANES_OF(exp)
#define RPI_EXPM1 RPI_LANES_OF(expm1)
#define RPI_LOG1P RPI_LANES_OF(log1p)
#define RPI_TANH RPI_LANES_OF(tanh)
#else
#define RPI_EXP RPI_FN(exp)
#define RPI_EXPM1 RPI_FN(expm1)
#define RPI_LOG1P RPI_FN(log1p)
#define RPI_TANH RPI_FN(tanh)
#define RPI_POWER2(n) RPI_REALS(((n) + RPI_ALL_INT(127)) << 23)

/* x = n log 2 + r; exp(r) - 1 = *remainder + *tail, r and the rest, by the polynomial of Cephes; *low, *high: 2^n in two factors, as one
   may over- or underflow. */
RPI_INLINE void RPI_FN(exp_parts)(rpi_v x, rpi_v *remainder, rpi_v *tail, rpi_v *low, rpi_v *high) {
    const rpi_v magic = RPI_ALL(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer in the low bits */
    rpi_v r, p;
    rpi_i n, half;
    x = RPI_SELECT(RPI_GREATER(x, RPI_ALL(89)), RPI_ALL(89), x);
    x = RPI_SELECT(RPI_GREATER(RPI_ALL(-105), x), RPI_ALL(-105), x);
    n = RPI_BITS(RPI_FMA(x, RPI_ALL(1.44269504088896341f), magic)) - RPI_BITS(magic);
    r = RPI_FMA(RPI_FN(to_real)(n), RPI_ALL(-0.693359375f), x);
    r = RPI_FMA(RPI_FN(to_real)(n), RPI_ALL(2.12194440e-4f), r);
    p = RPI_FMA(RPI_ALL(1.9875691500e-4f), r, RPI_ALL(1.3981999507e-3f));
    p = RPI_FMA(p, r, RPI_ALL(8.3334519073e-3f));
    p = RPI_FMA(p, r, RPI_ALL(4.1665795894e-2f));
    p = RPI_FMA(p, r, RPI_ALL(1.6666665459e-1f));
    p = RPI_FMA(p, r, RPI_ALL(5.0000001201e-1f));
    *remainder = r;
    *tail = p * (r * r);
    half = n >> 1;
    *low = RPI_POWER2(half);
    *high = RPI_POWER2(n - half);
}
RPI_INLINE rpi_v RPI_EXP(rpi_v x) {
    rpi_v r, tail, low, high, sum;
    RPI_FN(exp_parts)(x, &r, &tail, &low, &high);
    sum = RPI_ALL(1) + r;
    return (sum + (tail + (r - (sum - RPI_ALL(1))))) * low * high;
}
RPI_INLINE rpi_v RPI_EXPM1(rpi_v x) { /* x <= 0 */
    rpi_v r, tail, low, high, power;
    RPI_FN(exp_parts)(x, &r, &tail, &low, &high);
    power = low * high;
    return RPI_FMA(r + tail, power, power - RPI_ALL(1));
}
/* 0 <= x <= 1: 2 artanh(x / (2 + x)), by its series */
RPI_INLINE rpi_v RPI_LOG1P(rpi_v x) {
    rpi_v t = x / (RPI_ALL(2) + x), s = t * t, p;
    p = RPI_FMA(RPI_ALL(2.0f / 15), s, RPI_ALL(2.0f / 13));
    p = RPI_FMA(p, s, RPI_ALL(2.0f / 11));
    p = RPI_FMA(p, s, RPI_ALL(2.0f / 9));
    p = RPI_FMA(p, s, RPI_ALL(2.0f / 7));
    p = RPI_FMA(p, s, RPI_ALL(2.0f / 5));
    p = RPI_FMA(p, s, RPI_ALL(2.0f / 3));
    return x - t * (x - p * s); /* 2 t + p s t, but x itself carries no error */
}
/* Cephes: a polynomial near 0; elsewhere (1 - e) / (1 + e), e = exp(-2|x|) */
RPI_INLINE rpi_v RPI_TANH(rpi_v x) {
    rpi_v size = RPI_ABS(x), e = RPI_EXP(RPI_ALL(-2) * size), z = x * x, p, far = (RPI_ALL(1) - e) / (RPI_ALL(1) + e);
    p = RPI_FMA(RPI_ALL(-5.70498872745e-3f), z, RPI_ALL(2.06390887954e-2f));
    p = RPI_FMA(p, z, RPI_ALL(-5.37397155531e-2f));
    p = RPI_FMA(p, z, RPI_ALL(1.33314422036e-1f));
    p = RPI_FMA(p, z, RPI_ALL(-3.33332819422e-1f));
    far = RPI_REALS(RPI_BITS(far) | (RPI_BITS(x) & ~RPI_ALL_INT(RPI_MAGNITUDE)));
    return RPI_SELECT(RPI_GREATER(RPI_ALL(0.625f), size), RPI_FMA(p * z, x, x), far);
}
#endif

/* The one microkernel: a tile of C, `rows` rows by v vectors, stays in registers while the inner index advances. c<i><j> is a sum,
   a<i> an entry of A in all lanes, b<j> a vector of B. */
/* clang-format off */
#define RPI_ROWS_1(X, v) X(0, v)
#define RPI_ROWS_4(X, v) RPI_ROWS_1(X, v) X(1, v) X(2, v) X(3, v)
#define RPI_ROWS_6(X, v) RPI_ROWS_4(X, v) X(4, v) X(5, v)
#define RPI_VECTORS_1(X, i) X(i, 0)
#define RPI_VECTORS_2(X, i) RPI_VECTORS_1(X, i) X(i, 1)
#define RPI_VECTORS_3(X, i) RPI_VECTORS_2(X, i) X(i, 2)
#define RPI_VECTORS_4(X, i) RPI_VECTORS_3(X, i) X(i, 3)
#define RPI_SUM(i, j) rpi_v c##i##j;
#define RPI_SUM_ROW(i, v) RPI_VECTORS_##v(RPI_SUM, i)
#define RPI_SPREAD(i, j) c##i##j = RPI_ALL(start[i]);
#define RPI_SPREAD_ROW(i, v) RPI_VECTORS_##v(RPI_SPREAD, i)
#define RPI_BEGIN(i, j) c##i##j = RPI_LOAD(start + i * start_row + j * RPI_LANES);
#define RPI_BEGIN_ROW(i, v) RPI_VECTORS_##v(RPI_BEGIN, i)
#define RPI_READ(i, j) const rpi_v b##j = RPI_LOAD(b_row + j * RPI_LANES);
#define RPI_TERM(i, j) c##i##j = RPI_FMA(a##i, b##j, c##i##j);
#define RPI_TERM_ROW(i, v) \
    const rpi_v a##i = RPI_ALL(a_column[i * a_row]); \
    RPI_VECTORS_##v(RPI_TERM, i)
#define RPI_END(i, j) RPI_STORE(c + i * ldc + j * RPI_LANES, c##i##j);
#define RPI_END_ROW(i, v) RPI_VECTORS_##v(RPI_END, i)
#define RPI_TILE(advance, rows, v) \
    { \
        RPI_ROWS_##rows(RPI_SUM_ROW, v) \
        if (per_row) { \
            RPI_ROWS_##rows(RPI_SPREAD_ROW, v) \
        } else { \
            RPI_ROWS_##rows(RPI_BEGIN_ROW, v) \
        } \
        for (ptrdiff_t p = 0; p < q->k; p++) { \
            const rp_real *a_column = advance(a, q->a_column, q->a_at, p); \
            const rp_real *b_row = advance(b, q->ldb, q->b_at, p); \
            RPI_VECTORS_##v(RPI_READ, 0) \
            RPI_ROWS_##rows(RPI_TERM_ROW, v) \
        } \
        RPI_ROWS_##rows(RPI_END_ROW, v) \
    }

/* How A and B advance to entry p of the inner index: by strides, or by tables. */
#define RPI_BY_STRIDE(from, stride, at, p) ((from) + (p) * (stride))
#define RPI_BY_TABLE(from, stride, at, p) ((from) + (at)[p])

#if RPI_TILE_ROWS == 6
#define RPI_IF_TALL(advance, v) \
    if (rows == 6) \
        RPI_TILE(advance, 6, v) \
    else
#else
#define RPI_IF_TALL(advance, v)
#endif
#define RPI_STRIP(name, v) RPI_JOIN(RPI_FN(name), v)
#define RPI_DEFINE_STRIP(name, advance, v) \
    static void RPI_STRIP(name, v)(const rpi_gemm *q, const rp_real *b, rp_real *c, const rp_real *start, \
                                   ptrdiff_t start_row) { \
        const ptrdiff_t a_row = q->a_row, ldc = q->ldc; \
        const int per_row = q->start && q->per_row; \
        const rp_real *a = q->a; \
        int rows; \
        for (int left = q->m; left; left -= rows) { \
            rows = RPI_FN(tile_rows)(left); \
            RPI_IF_TALL(advance, v) \
            if (rows == 4) \
                RPI_TILE(advance, 4, v) \
            else \
                RPI_TILE(advance, 1, v) \
            a += rows * a_row; \
            c += rows * ldc; \
            start += per_row ? rows : rows * start_row; \
        } \
    }

/* Rows of the next tile when so many are left. Few sums do not hide their latency, so eight rows are 4 + 4. */
RPI_INLINE int RPI_FN(tile_rows)(int left) {
    if (left >= RPI_TILE_ROWS && left != 8) return RPI_TILE_ROWS;
    return left >= 4 ? 4 : 1;
}

/* All rows of C in a strip of v vectors of columns. */
typedef void (*RPI_FN(strip))(const rpi_gemm *q, const rp_real *b, rp_real *c, const rp_real *start,
                              ptrdiff_t start_row);
RPI_DEFINE_STRIP(strided, RPI_BY_STRIDE, 1)
RPI_DEFINE_STRIP(strided, RPI_BY_STRIDE, 2)
RPI_DEFINE_STRIP(gathered, RPI_BY_TABLE, 1)
RPI_DEFINE_STRIP(gathered, RPI_BY_TABLE, 2)
#if RPI_TILE_VECTORS == 4
RPI_DEFINE_STRIP(strided, RPI_BY_STRIDE, 3)
RPI_DEFINE_STRIP(strided, RPI_BY_STRIDE, 4)
RPI_DEFINE_STRIP(gathered, RPI_BY_TABLE, 3)
RPI_DEFINE_STRIP(gathered, RPI_BY_TABLE, 4)
#define RPI_STRIPS(name) {RPI_STRIP(name, 1), RPI_STRIP(name, 2), RPI_STRIP(name, 3), RPI_STRIP(name, 4)}
#else
#define RPI_STRIPS(name) {RPI_STRIP(name, 1), RPI_STRIP(name, 2)}
#endif
static const RPI_FN(strip) RPI_FN(strips)[2][RPI_TILE_VECTORS] = {RPI_STRIPS(strided), RPI_STRIPS(gathered)};
/* clang-format on */

/* Strips are as wide as a tile, and as even as can be: their rows of B stay in L1 for all rows of A. */
static void RPI_FN(gemm)(const rpi_gemm *q) {
    static const rp_real zeros[RPI_TILE_VECTORS * RPI_LANES] = {0};
    int left = q->n / RPI_LANES, strips = (left + RPI_TILE_VECTORS - 1) / RPI_TILE_VECTORS;
    for (int j = 0; left; strips--) {
        int vectors = (left + strips - 1) / strips;
        const rp_real *start = zeros;
        RPI_FN(strip) strip = RPI_FN(strips)[q->a_at != NULL][vectors - 1];
        if (q->start) start = q->per_row ? q->start : q->start + j;
        strip(q, q->b ? q->b + j : NULL, q->c + j, start, q->start ? q->start_row : 0);
        left -= vectors;
        j += vectors * RPI_LANES;
    }
}

/* The lanes added up in their order, to `sum`. */
RPI_INLINE rp_real RPI_FN(sum_lanes)(rp_real sum, rpi_v x) {
    rp_real lanes[RPI_LANES];
    RPI_STORE(lanes, x);
    for (int i = 0; i < RPI_LANES; i++) sum += lanes[i];
    return sum;
}

/* A tile of 4 rows of d by RPI_TAPS rows of y. */
#if RPI_TILE_VECTORS == 4
#define RPI_TAPS 4
#define RPI_EACH_TAP(X, i) RPI_VECTORS_4(X, i)
#else
#define RPI_TAPS 2
#define RPI_EACH_TAP(X, i) RPI_VECTORS_2(X, i)
#endif
/* clang-format off */
#define RPI_CLEAR(i, j) rpi_v c##i##j = RPI_ALL(0);
#define RPI_CLEAR_ROW(i, v) RPI_EACH_TAP(RPI_CLEAR, i)
#define RPI_READ_TAP(i, j) const rpi_v b##j = RPI_REALS(RPI_BITS(RPI_LOAD(y[j * q->positions + t] + s)) & mask);
#define RPI_CORRELATE_ROW(i, v) \
    const rpi_v a##i = RPI_LOAD(d + row[i] + s); \
    RPI_EACH_TAP(RPI_TERM, i)
#define RPI_KEEP(i, j) kept[i][j] = c##i##j;
#define RPI_KEEP_ROW(i, v) RPI_EACH_TAP(RPI_KEEP, i)

/* Over columns from..end - 1, lane by lane. row: where the four rows of d are; y: [RPI_TAPS][positions]. */
static void RPI_FN(correlate_columns)(const rpi_correlation *q, const ptrdiff_t *row, const rp_real *const *y, int from,
                                      int end, rpi_v kept[4][RPI_TAPS]) {
    const rpi_i mask = RPI_ALL_INT(q->magnitudes ? RPI_MAGNITUDE : -1);
    RPI_ROWS_4(RPI_CLEAR_ROW, RPI_TAPS)
    for (int t = 0; t < q->positions; t++) {
        const rp_real *d = q->d + q->d_at[t];
        for (int s = from; s < end; s += RPI_LANES) {
            RPI_EACH_TAP(RPI_READ_TAP, 0)
            RPI_ROWS_4(RPI_CORRELATE_ROW, RPI_TAPS)
        }
    }
    RPI_ROWS_4(RPI_KEEP_ROW, RPI_TAPS)
}
/* clang-format on */

/* Rows i..i + m - 1 and taps j..j + taps - 1; those beyond the last repeat it and are not kept. */
static void RPI_FN(correlate_tile)(const rpi_correlation *q, int i, int m, int j, int taps) {
    const ptrdiff_t wide = q->samples ? q->samples : 1;
    const int step = q->samples ? RPI_LANES : q->n;
    const rp_real *y[RPI_TAPS * RPI_POSITIONS];
    rp_real *out = q->out + (i * q->out_row + j) * wide;
    ptrdiff_t row[4];
    for (int r = 0; r < 4; r++) row[r] = (i + (r < m ? r : m - 1)) * q->d_row;
    for (int k = 0; k < RPI_TAPS; k++)
        memcpy(y + k * q->positions, q->y + (j + (k < taps ? k : taps - 1)) * q->positions,
               (size_t)q->positions * sizeof *y);
    for (int s = 0; s < q->n; s += step) {
        rpi_v kept[4][RPI_TAPS];
        RPI_FN(correlate_columns)(q, row, y, s, s + step, kept);
        for (int r = 0; r < m; r++)
            for (int k = 0; k < taps; k++) {
                rp_real *to = out + (r * q->out_row + k) * wide;
                if (q->samples) RPI_STORE(to + s, RPI_LOAD(to + s) + kept[r][k]);
                else *to += RPI_FN(sum_lanes)(0, kept[r][k]);
            }
    }
}

static void RPI_FN(correlate)(const rpi_correlation *q) {
    for (int i = 0; i < q->m; i += 4)
        for (int j = 0; j < q->taps; j += RPI_TAPS) {
            int m = q->m - i < 4 ? q->m - i : 4, taps = q->taps - j < RPI_TAPS ? q->taps - j : RPI_TAPS;
            RPI_FN(correlate_tile)(q, i, m, j, taps);
        }
}

static void RPI_FN(window_magnitudes)(const rpi_window *w, rp_real *out) {
    for (int s = 0; s < w->n; s += RPI_LANES) {
        rpi_v sum = RPI_ALL(0);
        for (int j = 0; j < w->k; j++) sum += RPI_ABS(RPI_LOAD(w->x + w->at[j] + s));
        RPI_STORE(out + s, sum);
    }
}

/* The place of the largest of the window's rows at column s. */
RPI_INLINE rpi_i RPI_FN(largest)(const rpi_window *w, int s) {
    rpi_v best = RPI_LOAD(w->x + w->at[0] + s);
    rpi_i place = RPI_ALL_INT(0);
    for (int j = 1; j < w->k; j++) {
        rpi_v x = RPI_LOAD(w->x + w->at[j] + s);
        rpi_i larger = RPI_GREATER(x, best);
        best = RPI_SELECT(larger, x, best);
        place = (RPI_ALL_INT(j) & larger) | (place & ~larger);
    }
    return place;
}
static void RPI_FN(select_rows)(const rpi_window *w, const rp_real *in, rp_real *out) {
    for (int s = 0; s < w->n; s += RPI_LANES) {
        rpi_i place = RPI_FN(largest)(w, s);
        rpi_v chosen = RPI_ALL(0);
        for (int j = 0; j < w->k; j++)
            chosen = RPI_SELECT(RPI_EQUAL(place, RPI_ALL_INT(j)), RPI_LOAD(in + w->at[j] + s), chosen);
        RPI_STORE(out + s, chosen);
    }
}
static void RPI_FN(select_back)(const rpi_window *w, const rp_real *d, rp_real *d_in) {
    for (int s = 0; s < w->n; s += RPI_LANES) {
        rpi_i place = RPI_FN(largest)(w, s);
        rpi_v value = RPI_LOAD(d + s);
        for (int j = 0; j < w->k; j++) {
            rp_real *to = d_in + w->at[j] + s;
            RPI_STORE(to, RPI_LOAD(to) + RPI_SELECT(RPI_EQUAL(place, RPI_ALL_INT(j)), value, RPI_ALL(0)));
        }
    }
}

static void RPI_FN(add_rows)(int rows, int n, rp_real scale, const rp_real *in, ptrdiff_t ldi, rp_real *out,
                             ptrdiff_t ldo) {
    for (int i = 0; i < rows; i++, in += ldi, out += ldo)
        for (int s = 0; s < n; s += RPI_LANES)
            RPI_STORE(out + s, RPI_FMA(RPI_ALL(scale), RPI_LOAD(in + s), RPI_LOAD(out + s)));
}

/* Limited by the reading of A, so four rows share each read of b. */
static void RPI_FN(matrix_vector)(const rpi_product *q) {
    for (int i = 0; i < q->m; i += 4) {
        const rp_real *row[4];
        rpi_v sum0 = RPI_ALL(0), sum1 = sum0, sum2 = sum0, sum3 = sum0;
        for (int r = 0; r < 4; r++) row[r] = q->a + (i + r < q->m ? i + r : q->m - 1) * q->a_row;
        for (int p = 0; p < q->k; p += RPI_LANES) {
            int some = q->k - p;
            rpi_v x = RPI_LOAD_SOME(q->b + p, some);
            sum0 = RPI_FMA(RPI_LOAD_SOME(row[0] + p, some), x, sum0);
            sum1 = RPI_FMA(RPI_LOAD_SOME(row[1] + p, some), x, sum1);
            sum2 = RPI_FMA(RPI_LOAD_SOME(row[2] + p, some), x, sum2);
            sum3 = RPI_FMA(RPI_LOAD_SOME(row[3] + p, some), x, sum3);
        }
        const rpi_v sums[4] = {sum0, sum1, sum2, sum3};
        for (int r = 0; r < 4 && i + r < q->m; r++)
            q->c[i + r] = RPI_FN(sum_lanes)(q->bias ? q->bias[i + r] : 0, sums[r]);
    }
}

/* The part of A, or its magnitudes, goes to `packed` line by line, in the direction in which it is contiguous. */
static void RPI_FN(pack)(rpi_gemm *gemm, int magnitudes, rp_real *packed) {
    const int by_row = gemm->a_column == 1, lines = by_row ? gemm->m : gemm->k, n = by_row ? gemm->k : gemm->m;
    const ptrdiff_t stride = by_row ? gemm->a_row : gemm->a_column;
    const rpi_i mask = RPI_ALL_INT(magnitudes ? RPI_MAGNITUDE : -1);
    for (ptrdiff_t i = 0; i < lines; i++)
        for (int p = 0; p < n; p += RPI_LANES) {
            rpi_v x = RPI_LOAD_SOME(gemm->a + i * stride + p, n - p);
            RPI_STORE_SOME(packed + i * n + p, RPI_REALS(RPI_BITS(x) & mask), n - p);
        }
    gemm->a = packed;
    if (by_row) gemm->a_row = n;
    else gemm->a_column = n;
}

/* Do the lines of A fall on each other in L1? Measured: packed, A of 1024 columns takes 20% less time. */
RPI_INLINE int RPI_FN(worth_packing)(const rpi_gemm *gemm) {
    return (gemm->a_column == 1 ? gemm->a_row : gemm->a_column) % 256 == 0;
}

/* Rows i..i + RPI_M_BLOCK - 1 of both products, for the inner indices p..p + RPI_K_BLOCK - 1. */
static void RPI_FN(product_block)(const rpi_product *q, int i, int p) {
    const int starts = !p && !q->add;
    rpi_gemm gemm, magnitudes;
    gemm.m = q->m - i < RPI_M_BLOCK ? q->m - i : RPI_M_BLOCK;
    gemm.k = q->k - p < RPI_K_BLOCK ? q->k - p : RPI_K_BLOCK;
    gemm.n = q->n;
    gemm.a = q->a + i * q->a_row + p * q->a_column;
    gemm.a_row = q->a_row;
    gemm.a_column = q->a_column;
    gemm.a_at = gemm.b_at = NULL;
    gemm.ldb = q->ldb;
    gemm.ldc = gemm.start_row = q->ldc;
    gemm.per_row = 0;
    magnitudes = gemm;
    if (q->b) {
        gemm.b = q->b + p * q->ldb;
        gemm.c = q->c + i * q->ldc;
        gemm.start = gemm.c;
        if (starts) {
            gemm.start = q->bias ? q->bias + i : NULL;
            gemm.per_row = 1;
        }
        if (RPI_FN(worth_packing)(&gemm)) RPI_FN(pack)(&gemm, 0, q->a_packed);
        RPI_FN(gemm)(&gemm);
    }
    if (q->b2) {
        magnitudes.b = q->b2 + p * q->ldb;
        magnitudes.c = q->c2 + i * q->ldc;
        magnitudes.start = magnitudes.c;
        if (starts) {
            magnitudes.start = q->column;
            magnitudes.start_row = 0;
        }
        RPI_FN(pack)(&magnitudes, 1, q->a_packed);
        RPI_FN(gemm)(&magnitudes);
    }
}

static void RPI_FN(product)(const rpi_product *q) {
    for (int p = 0; p < q->k; p += RPI_K_BLOCK)
        for (int i = 0; i < q->m; i += RPI_M_BLOCK) RPI_FN(product_block)(q, i, p);
}

/* out[i][r] = in[r][i] for a square of RPI_SQUARE */
#if defined(RPI_X86) && RPI_VECTOR_BYTES >= 32
#define RPI_SQUARE 8
RPI_INLINE void RPI_FN(transpose_square)(const rp_real *in, ptrdiff_t ldi, rp_real *out, ptrdiff_t ldo) {
    __m256 r[8], t[8];
    for (int i = 0; i < 4; i++) {
        /* rows i and i + 4 side by side: their left halves in r[i], their right ones in r[i + 4] */
        __m256 upper = _mm256_loadu_ps(in + i * ldi), lower = _mm256_loadu_ps(in + (i + 4) * ldi);
        r[i] = _mm256_permute2f128_ps(upper, lower, 0x20);
        r[i + 4] = _mm256_permute2f128_ps(upper, lower, 0x31);
    }
    for (int i = 0; i < 8; i += 4) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
        t[i + 2] = _mm256_unpacklo_ps(r[i + 2], r[i + 3]);
        t[i + 3] = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
        _mm256_storeu_ps(out + i * ldo, _mm256_shuffle_ps(t[i], t[i + 2], 0x44));
        _mm256_storeu_ps(out + (i + 1) * ldo, _mm256_shuffle_ps(t[i], t[i + 2], 0xEE));
        _mm256_storeu_ps(out + (i + 2) * ldo, _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44));
        _mm256_storeu_ps(out + (i + 3) * ldo, _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xEE));
    }
}
#else
#define RPI_SQUARE 4
RPI_INLINE void RPI_FN(transpose_square)(const rp_real *in, ptrdiff_t ldi, rp_real *out, ptrdiff_t ldo) {
    for (ptrdiff_t i = 0; i < 4; i++) {
        rp_real a = in[i], b = in[ldi + i], c = in[2 * ldi + i], d = in[3 * ldi + i], *to = out + i * ldo;
        to[0] = a;
        to[1] = b;
        to[2] = c;
        to[3] = d;
    }
}
#endif

static void RPI_FN(transpose)(const rp_real *in, ptrdiff_t ldi, int rows, int columns, rp_real *out, ptrdiff_t ldo,
                              int n) {
    int whole = columns / RPI_SQUARE * RPI_SQUARE, r = 0;
    for (; r + RPI_SQUARE <= rows; r += RPI_SQUARE) {
        const rp_real *from = in + r * ldi;
        for (int c = 0; c < whole; c += RPI_SQUARE) RPI_FN(transpose_square)(from + c, ldi, out + c * ldo + r, ldo);
        for (int c = whole; c < columns; c++)
            for (int i = 0; i < RPI_SQUARE; i++) out[c * ldo + (r + i)] = from[i * ldi + c];
    }
    for (int c = 0; c < columns && r < n; c++) {
        rp_real *to = out + c * ldo;
        for (int i = r; i < n; i++) to[i] = in[(i < rows ? i : rows - 1) * ldi + c];
    }
}

/* What the pieces of an outer product have in common. */
static rpi_piece RPI_FN(piece_of)(const rpi_outer *o) {
    rpi_piece piece;
    memset(&piece, 0, sizeof piece);
    piece.gradient = o->d ? o->tile : NULL;
    piece.curvature = o->v ? o->tile + RPI_ROWS_MOST * RPI_PANEL : NULL;
    piece.scale = o->scale;
    piece.scale2 = o->scale2;
    return piece;
}

/* Behind the panel: its magnitudes or squares. */
static rp_real *RPI_FN(panel_magnitudes)(const rpi_outer *o, int n) {
    const ptrdiff_t size = (ptrdiff_t)o->count * RPI_PANEL;
    for (ptrdiff_t i = 0; i < size; i += RPI_PANEL)
        for (ptrdiff_t p = i; p < i + n; p += RPI_LANES) {
            rpi_v y = RPI_LOAD(o->panel + p);
            RPI_STORE(o->panel + size + p, o->squares ? y * y : RPI_ABS(y));
        }
    return o->panel + size;
}

/* The weights' part: a panel of y is transposed once, then serves all rows. */
static void RPI_FN(outer_weights)(const rpi_outer *o) {
    rpi_piece piece = RPI_FN(piece_of)(o);
    rpi_gemm gemm;
    memset(&gemm, 0, sizeof gemm);
    gemm.k = o->count;
    gemm.a_row = o->ld;
    gemm.a_column = 1;
    gemm.ldb = gemm.ldc = RPI_PANEL;
    piece.ld = RPI_PANEL;
    piece.stride = o->n;
    for (int j = o->from; j < o->end; j += RPI_PANEL) {
        rp_real *magnitudes = NULL;
        piece.n = o->end - j < RPI_PANEL ? o->end - j : RPI_PANEL;
        gemm.n = (piece.n + RPI_LANES - 1) / RPI_LANES * RPI_LANES;
        RPI_FN(transpose)(o->y + j * o->ld, o->ld, piece.n, o->count, o->panel, RPI_PANEL, gemm.n);
        if (o->v) magnitudes = RPI_FN(panel_magnitudes)(o, gemm.n);
        for (int i = 0; i < o->m; i += piece.rows) {
            gemm.m = piece.rows = RPI_FN(tile_rows)(o->m - i);
            piece.offset = o->weights + (ptrdiff_t)i * o->n + j;
            if (o->d) {
                gemm.a = o->d + i * o->ld;
                gemm.b = o->panel;
                gemm.c = o->tile;
                RPI_FN(gemm)(&gemm);
            }
            if (o->v) {
                gemm.a = o->v + i * o->ld;
                gemm.b = magnitudes;
                gemm.c = o->tile + RPI_ROWS_MOST * RPI_PANEL;
                RPI_FN(gemm)(&gemm);
            }
            o->sink->take(o->sink, &piece);
        }
    }
}

static void RPI_FN(row_sums)(int rows, int count, const rp_real *in, ptrdiff_t ld, rp_real *out) {
    for (int i = 0; i < rows; i++, in += ld) {
        rpi_v sum = RPI_ALL(0);
        for (int s = 0; s < count; s += RPI_LANES) sum += RPI_LOAD_SOME(in + s, count - s);
        out[i] = RPI_FN(sum_lanes)(0, sum);
    }
}

static void RPI_FN(outer)(const rpi_outer *o) {
    rpi_piece piece = RPI_FN(piece_of)(o);
    RPI_FN(outer_weights)(o);
    piece.rows = 1;
    for (int i = 0; o->bias && i < o->m; i += RPI_PANEL) {
        piece.n = o->m - i < RPI_PANEL ? o->m - i : RPI_PANEL;
        piece.offset = o->biases + i;
        if (o->d) RPI_FN(row_sums)(piece.n, o->count, o->d + i * o->ld, o->ld, o->tile);
        if (o->v) RPI_FN(row_sums)(piece.n, o->count, o->v + i * o->ld, o->ld, o->tile + RPI_ROWS_MOST * RPI_PANEL);
        o->sink->take(o->sink, &piece);
    }
}

static void RPI_FN(column_sums)(int rows, int n, const rp_real *in, ptrdiff_t ld, rp_real *out, int squares) {
    for (int s = 0; s < n; s += RPI_LANES) {
        rpi_v sum = RPI_ALL(0);
        for (int i = 0; i < rows; i++) {
            rpi_v x = RPI_LOAD(in + i * ld + s);
            sum = squares ? RPI_FMA(x, x, sum) : sum + RPI_ABS(x);
        }
        RPI_STORE(out + s, sum);
    }
}

static void RPI_FN(weigh)(int rows, int n, rp_real *x, ptrdiff_t ld, const rp_real *factor, ptrdiff_t stride,
                          int magnitudes) {
    for (int i = 0; i < rows; i++, x += ld, factor += stride)
        for (int s = 0; s < n; s += RPI_LANES) {
            rpi_v value = RPI_LOAD(x + s);
            RPI_STORE(x + s, RPI_LOAD(factor + s) * (magnitudes ? RPI_ABS(value) : value));
        }
}

/* Sample s takes bit s % 64 of a random number, whatever the vectors' length. */
static void RPI_FN(signs)(int rows, int n, const rp_real *h, rp_real *e, ptrdiff_t ld, uint64_t *random) {
    rpi_int bit[RPI_LANES];
    rpi_i lane;
    for (int i = 0; i < RPI_LANES; i++) bit[i] = (rpi_int)1 << i;
    memcpy(&lane, bit, sizeof lane);
    for (int i = 0; i < rows; i++, h += ld, e += ld) {
        uint64_t bits = 0;
        for (int s = 0; s < n; s += RPI_LANES) {
            rpi_v root = RPI_ROOT(RPI_LOAD(h + s));
            bits = s % 64 ? bits >> RPI_LANES : rpi_random(random);
            RPI_STORE(e + s, RPI_SELECT(RPI_EQUAL(RPI_ALL_INT((rpi_int)(bits & 0xFFFF)) & lane, lane), root, -root));
        }
    }
}

static rpi_int RPI_FN(peak)(int rows, int n, const rp_real *in, ptrdiff_t ld) {
    rpi_i most = RPI_ALL_INT(0), magnitude = RPI_ALL_INT(RPI_MAGNITUDE);
    rpi_int lanes[RPI_LANES], peak = 0;
    for (int i = 0; i < rows; i++)
        for (int s = 0; s < n; s += RPI_LANES) {
            rpi_i x = RPI_BITS(RPI_LOAD(in + i * ld + s)) & magnitude, larger = RPI_GREATER(x, most);
            most = (x & larger) | (most & ~larger);
        }
    memcpy(lanes, &most, sizeof lanes);
    for (int i = 0; i < RPI_LANES; i++) peak = lanes[i] > peak ? lanes[i] : peak;
    return peak;
}

/* Activations: z in; out: the value, *first = sigma'(z), *second = sigma''(z). Comparisons are turned so that what is not a
   number stays so. */
RPI_INLINE rpi_v RPI_FN(leaky_relu)(rp_real alpha, rpi_v z, rpi_v *first, rpi_v *second) {
    rpi_v low = alpha > 0 ? RPI_ALL(alpha) * z : RPI_ALL(0);
    *first = RPI_SELECT(RPI_GREATER(z, RPI_ALL(0)), RPI_ALL(1), RPI_ALL(alpha));
    *second = RPI_ALL(0);
    return RPI_SELECT(RPI_GREATER(RPI_ALL(0), z), low, z);
}
RPI_INLINE rpi_v RPI_FN(relu)(rp_real alpha, rpi_v z, rpi_v *first, rpi_v *second) {
    (void)alpha;
    return RPI_FN(leaky_relu)(0, z, first, second);
}
/* *share = e / (1 + e) for 0 <= e <= 1, *p the same with the quotient but as a correction to e, *q = p (1 - p) */
RPI_INLINE void RPI_FN(odds)(rpi_v e, rpi_v *share, rpi_v *p, rpi_v *q) {
    *share = e / (RPI_ALL(1) + e);
    *p = RPI_FMA(-e, *share, e);
    *q = RPI_FMA(-*p, *p, *p);
}
RPI_INLINE rpi_v RPI_FN(hyperbolic_tangent)(rp_real alpha, rpi_v z, rpi_v *first, rpi_v *second) {
    rpi_v y = RPI_TANH(z), e = RPI_EXP(RPI_ALL(-2) * RPI_ABS(z)), share, p;
    (void)alpha;
    RPI_FN(odds)(e, &share, &p, first);
    *first *= RPI_ALL(4); /* 1 - y^2 without cancellation */
    *second = RPI_ALL(-2) * y * *first;
    return y;
}
/* *e = exp(-|z|), *p = 1 / (1 + exp(-z)), *q = p (1 - p), *odd = 1 - 2 p, without overflow or cancellation */
RPI_INLINE void RPI_FN(logistic)(rpi_v z, rpi_v *e, rpi_v *p, rpi_v *q, rpi_v *odd) {
    rpi_v x = RPI_EXP(-RPI_ABS(z)), less = RPI_EXPM1(-RPI_ABS(z)), share, small;
    rpi_i below = RPI_GREATER(RPI_ALL(0), z);
    RPI_FN(odds)(x, &share, &small, q);
    *e = x;
    *p = RPI_SELECT(below, small, RPI_ALL(1) - share);
    *odd = RPI_SELECT(below, -less, less) / (RPI_ALL(1) + x);
}
RPI_INLINE rpi_v RPI_FN(sigmoid)(rp_real alpha, rpi_v z, rpi_v *first, rpi_v *second) {
    rpi_v e, p, odd;
    (void)alpha;
    RPI_FN(logistic)(z, &e, &p, first, &odd);
    *second = *first * odd;
    return p;
}
RPI_INLINE rpi_v RPI_FN(softplus)(rp_real alpha, rpi_v z, rpi_v *first, rpi_v *second) {
    rpi_v e, odd;
    (void)alpha;
    RPI_FN(logistic)(z, &e, first, second, &odd);
    return RPI_SELECT(RPI_GREATER(RPI_ALL(0), z), RPI_ALL(0), z) + RPI_LOG1P(e);
}
RPI_INLINE rpi_v RPI_FN(elu)(rp_real alpha, rpi_v z, rpi_v *first, rpi_v *second) {
    rpi_i above = RPI_GREATER(z, RPI_ALL(0));
    rpi_v low = RPI_SELECT(above, RPI_ALL(0), z), slope = RPI_ALL(alpha) * RPI_EXP(low);
    *first = RPI_SELECT(above, RPI_ALL(1), slope);
    *second = RPI_SELECT(above, RPI_ALL(0), slope);
    return RPI_SELECT(above, z, RPI_ALL(alpha) * RPI_EXPM1(low));
}
RPI_INLINE rpi_v RPI_FN(gelu)(rp_real alpha, rpi_v z, rpi_v *first, rpi_v *second) {
    /* Phi(z), and phi = Phi'(z), which is 0 from 100 on, where the square is still finite */
    rpi_v p = RPI_ALL((rp_real)0.5) * RPI_LANES_OF(erfc)(z * RPI_ALL((rp_real)-0.70710678118654752));
    rpi_v x = RPI_SELECT(RPI_GREATER(RPI_ABS(z), RPI_ALL(100)), RPI_ALL(100), z);
    rpi_v phi = RPI_ALL((rp_real)0.39894228040143268) * RPI_EXP(RPI_ALL((rp_real)-0.5) * x * x);
    (void)alpha;
    *first = p + x * phi;
    *second = phi * (RPI_ALL(2) - x * x);
    return z * p;
}
RPI_INLINE rpi_v RPI_FN(silu)(rp_real alpha, rpi_v z, rpi_v *first, rpi_v *second) {
    rpi_v e, p, q, odd;
    (void)alpha;
    RPI_FN(logistic)(z, &e, &p, &q, &odd);
    *first = p + z * q;
    *second = q * (RPI_ALL(2) + z * odd);
    return z * p;
}

/* Each kind has a loop of its own, which works on a copy of the call that its stores cannot change. */
#define RPI_ACTIVATION(name) RPI_JOIN(RPI_FN(activate), name)
#define RPI_DEFINE_ACTIVATION(name) \
    static void RPI_ACTIVATION(name)(const rpi_activate *call) { \
        const rpi_activate a = *call; \
        rpi_i bad = RPI_ALL_INT(0); \
        for (int row = 0; row < a.rows; row++) \
            for (ptrdiff_t i = row * a.ld, end = i + a.n; i < end; i += RPI_LANES) { \
                rpi_v z = RPI_LOAD(a.y + i), first, second; \
                bad |= RPI_FN(not_finite)(z); \
                RPI_STORE(a.y + i, RPI_FN(name)(a.alpha, z, &first, &second)); \
                if (a.slope) RPI_STORE(a.slope + i, first); \
                if (a.second) RPI_STORE(a.second + i, a.u ? second * RPI_LOAD(a.u + i) : second); \
                if (a.u) RPI_STORE(a.u + i, RPI_ABS(first) * RPI_LOAD(a.u + i)); \
            } \
        if (a.bad && RPI_FN(any_lane)(bad)) *a.bad = 1; \
    }
RPI_DEFINE_ACTIVATION(relu)
RPI_DEFINE_ACTIVATION(leaky_relu)
RPI_DEFINE_ACTIVATION(hyperbolic_tangent)
RPI_DEFINE_ACTIVATION(sigmoid)
RPI_DEFINE_ACTIVATION(softplus)
RPI_DEFINE_ACTIVATION(elu)
RPI_DEFINE_ACTIVATION(gelu)
RPI_DEFINE_ACTIVATION(silu)
static void RPI_FN(activate)(const rpi_activate *a) {
    static void (*const kinds[])(const rpi_activate *) = {
        /* in the order of rp_activation_kind */
        NULL,
        RPI_ACTIVATION(relu),
        RPI_ACTIVATION(leaky_relu),
        RPI_ACTIVATION(hyperbolic_tangent),
        RPI_ACTIVATION(sigmoid),
        RPI_ACTIVATION(softplus),
        RPI_ACTIVATION(elu),
        RPI_ACTIVATION(gelu),
        RPI_ACTIVATION(silu),
    };
    if (kinds[a->kind]) kinds[a->kind](a);
}

static void RPI_FN(activate_back)(const rpi_activate *a, rp_real *d, rp_real *v, rpi_flow flow) {
    for (int row = 0; row < a->rows; row++)
        for (ptrdiff_t i = row * a->ld, end = i + a->n; i < end; i += RPI_LANES) {
            rpi_v s = RPI_LOAD(a->slope + i), zero = RPI_ALL(0), derivative = d ? RPI_LOAD(d + i) : zero;
            rpi_v second = a->second && flow != RPI_PLAIN ? RPI_LOAD(a->second + i) : zero;
            if (a->second && flow == RPI_FOLDED) RPI_STORE(a->second + i, second * derivative);
            if (v && flow == RPI_BOUND)
                RPI_STORE(v + i, RPI_ABS(RPI_FMA(second, derivative, RPI_ABS(s) * RPI_LOAD(v + i))));
            else if (v) RPI_STORE(v + i, RPI_FMA(s, RPI_LOAD(v + i), flow == RPI_BENT ? second : zero));
            if (d) RPI_STORE(d + i, s * derivative);
        }
}

static void RPI_FN(activate_tangent)(const rpi_activate *a, rp_real *t, rp_real *t2, rp_real *bend) {
    for (int row = 0; row < a->rows; row++)
        for (ptrdiff_t i = row * a->ld, end = i + a->n; i < end; i += RPI_LANES) {
            rpi_v s = RPI_LOAD(a->slope + i), x = RPI_LOAD(t + i),
                  second = a->second ? RPI_LOAD(a->second + i) : RPI_ALL(0);
            if (t2) RPI_STORE(t2 + i, RPI_FMA(s, RPI_LOAD(t2 + i), RPI_ALL((rp_real)0.5) * second * x * x));
            if (bend) RPI_STORE(bend + i, second * x);
            RPI_STORE(t + i, s * x);
        }
}

/* Losses. A separable one, for one output: the loss out; *d, *h its derivatives. */
RPI_INLINE rpi_v RPI_FN(separable)(rp_loss_kind kind, rp_real delta, int exact, rpi_v y, rpi_v t, rpi_v *d, rpi_v *h) {
    rpi_v r = y - t, size = RPI_ABS(r), half = RPI_ALL((rp_real)0.5), zero = RPI_ALL(0), e, p, odd;
    rpi_i far;
    *h = RPI_ALL(1);
    *d = r;
    switch (kind) {
    case RP_BINARY_CROSS_ENTROPY:
        RPI_FN(logistic)(y, &e, &p, h, &odd);
        *d = p - t;
        return RPI_SELECT(RPI_GREATER(zero, y), zero, y) - t * y + RPI_LOG1P(e);
    case RP_HUBER: /* h is that of the least parabola above the loss that touches it at y */
        far = RPI_GREATER(size, RPI_ALL(delta));
        *h = RPI_SELECT(far, RPI_ALL(delta) / size, *h);
        *d = *h * r;
        if (exact) *h = RPI_SELECT(far, zero, RPI_ALL(1));
        return RPI_SELECT(far, RPI_ALL(delta) * (size - half * RPI_ALL(delta)), half * r * r);
    case RP_POISSON:
        *h = RPI_EXP(y);
        *d = *h - t;
        return *h - t * y;
    default: return half * r * r;
    }
}
RPI_INLINE void RPI_FN(separable_loss)(rp_loss_kind kind, const rpi_loss_call *call) {
    for (int s = 0; s < call->count; s += RPI_LANES) {
        double *loss = call->loss + s;
        int some = call->count - s < RPI_LANES ? call->count - s : RPI_LANES;
        for (int lane = 0; lane < some; lane++) loss[lane] = 0;
        for (int from = 0; from < call->outputs; from += 32) { /* few in rp_real, then on in double */
            const int end = call->outputs - from < 32 ? call->outputs : from + 32;
            rp_real lanes[RPI_LANES];
            rpi_v sum = RPI_ALL(0);
            for (int i = from; i < end; i++) {
                ptrdiff_t at = i * call->ld + s;
                rpi_v d, h;
                sum += RPI_FN(separable)(kind, call->delta, call->exact, RPI_LOAD(call->y + at), RPI_LOAD(call->d + at),
                                         &d, &h);
                RPI_STORE(call->d + at, d);
                if (call->h) RPI_STORE(call->h + at, h);
            }
            RPI_STORE(lanes, sum);
            for (int lane = 0; lane < some; lane++) loss[lane] += (double)lanes[lane];
        }
    }
}
static void RPI_FN(squared_error)(const rpi_loss_call *call) { RPI_FN(separable_loss)(RP_SQUARED_ERROR, call); }
static void RPI_FN(binary_cross_entropy)(const rpi_loss_call *call) {
    RPI_FN(separable_loss)(RP_BINARY_CROSS_ENTROPY, call);
}
static void RPI_FN(huber)(const rpi_loss_call *call) { RPI_FN(separable_loss)(RP_HUBER, call); }
static void RPI_FN(poisson)(const rpi_loss_call *call) { RPI_FN(separable_loss)(RP_POISSON, call); }
static void RPI_FN(softmax_cross_entropy)(const rpi_loss_call *call) {
    const ptrdiff_t ld = call->ld, end = call->outputs * ld;
    for (int s = 0; s < call->count; s += RPI_LANES) {
        const rp_real *y = call->y + s;
        rp_real *d = call->d + s, *h = call->h ? call->h + s : NULL, lanes[RPI_LANES];
        rpi_v most = RPI_LOAD(y), sum = RPI_ALL(0), total = sum, loss = sum, log_sum;
        for (ptrdiff_t i = ld; i < end; i += ld)
            most = RPI_SELECT(RPI_GREATER(most, RPI_LOAD(y + i)), most, RPI_LOAD(y + i));
        for (ptrdiff_t i = 0; i < end; i += ld) {
            sum += RPI_EXP(RPI_LOAD(y + i) - most);
            total += RPI_LOAD(d + i);
        }
        log_sum = most + RPI_LANES_OF(log)(sum);
        for (ptrdiff_t i = 0; i < end; i += ld) {
            rpi_v t = RPI_LOAD(d + i), z = RPI_LOAD(y + i), p = total * (RPI_EXP(z - most) / sum);
            loss += t * (log_sum - z);
            RPI_STORE(d + i, p - t);
            if (h) RPI_STORE(h + i, p);
        }
        RPI_STORE(lanes, loss);
        for (int lane = 0; lane < RPI_LANES && s + lane < call->count; lane++)
            call->loss[s + lane] = (double)lanes[lane];
    }
}

/* The methods, each on one vector of parameters w: the step out. */
RPI_INLINE rpi_v RPI_FN(mean)(rpi_v *state, rpi_v x, rp_real beta) {
    return *state = RPI_FN(finite_or)(RPI_FMA(RPI_ALL(beta), *state, RPI_ALL(1 - beta) * x), *state);
}
RPI_INLINE rpi_v RPI_FN(step)(const rpi_update *u, rp_method method, rpi_v g, rpi_v h, rpi_v w, rpi_v *first,
                              rpi_v *second) {
    rpi_v epsilon = RPI_ALL(u->epsilon), x;
    g = RPI_FMA(RPI_ALL(u->weight_decay), w, g);
    switch (method) {
    case RP_PARTITIONING:
        h += RPI_ALL(u->weight_decay);
        if (first) g = RPI_FN(mean)(first, g, u->momentum) * RPI_ALL(u->correct1);
        if (second) h = RPI_FN(mean)(second, h, u->average) * RPI_ALL(u->correct2);
        x = g / (h + RPI_ALL(u->damping));
        break;
    case RP_SGD:
        x = g;
        if (first) x = *first = RPI_FN(finite_or)(RPI_FMA(RPI_ALL(u->momentum), *first, g), *first);
        if (first && u->nesterov) x = RPI_FMA(RPI_ALL(u->momentum), x, g);
        break;
    case RP_ADAM:
        x = RPI_FN(mean)(first, g, u->beta1) * RPI_ALL(u->correct1);
        x = x / (RPI_ROOT(RPI_FN(mean)(second, g * g, u->beta2) * RPI_ALL(u->correct2)) + epsilon);
        break;
    case RP_ADAGRAD:
        *first = RPI_FN(finite_or)(*first + g * g, *first);
        x = g / (RPI_ROOT(*first) + epsilon);
        break;
    case RP_PER_VARIABLE: { /* rp_cubic_length(-|g|, h, 1, sigma), for the sign that cancels nothing */
        rpi_v sigma = RPI_ALL(u->sigma), size = RPI_ABS(g), root;
        h += RPI_ALL(u->weight_decay);
        root = RPI_ROOT(RPI_FMA(h, h, RPI_ALL(2) * size * sigma));
        x = RPI_SELECT(RPI_GREATER(RPI_ALL(0), h), (root - h) / sigma, RPI_ALL(2) * size / (h + root));
        x = RPI_SELECT(RPI_GREATER(RPI_ALL(0), g), -x, RPI_SELECT(RPI_GREATER(g, RPI_ALL(0)), x, RPI_ALL(0)));
        break;
    }
    default:
        x = RPI_ROOT((*second + epsilon) / (RPI_FN(mean)(first, g * g, u->rho) + epsilon)) * g;
        RPI_FN(mean)(second, x * x, u->rho);
    }
    return RPI_ALL(-u->rate) * x - RPI_ALL(u->shrink) * w;
}
/* n parameters by one method, which this is inlined for. */
RPI_INLINE void RPI_FN(update_by)(const rpi_update *u, rp_method method, const rpi_update_call *call) {
    const rpi_update_call c = *call;
    rp_real *first = method == RP_PER_VARIABLE ? NULL : c.first;
    rp_real *second = method == RP_PARTITIONING || method == RP_ADAM || method == RP_ADADELTA ? c.second : NULL;
    for (int i = 0; i < c.n; i += RPI_LANES) {
        int some = c.n - i;
        rpi_v w = RPI_LOAD_SOME(c.w + i, some), state1 = RPI_ALL(0), state2 = state1, step;
        if (first) state1 = RPI_LOAD_SOME(first + i, some);
        if (second) state2 = RPI_LOAD_SOME(second + i, some);
        step = RPI_FN(step)(u, method, RPI_ALL(c.scale) * RPI_LOAD_SOME(c.g + i, some),
                            c.h ? RPI_ALL(c.scale2) * RPI_LOAD_SOME(c.h + i, some) : w, w, first ? &state1 : NULL,
                            second ? &state2 : NULL);
        if (first) RPI_STORE_SOME(first + i, state1, some);
        if (second) RPI_STORE_SOME(second + i, state2, some);
        if (c.to) RPI_STORE_SOME(c.to + i, RPI_FN(finite_or)(step, RPI_ALL(0)), some);
        else RPI_STORE_SOME(c.w + i, RPI_FN(finite_or)(w + step, w), some);
    }
}
#define RPI_UPDATE(method) RPI_JOIN(RPI_FN(update), method)
#define RPI_DEFINE_UPDATE(method) \
    static void RPI_UPDATE(method)(const rpi_update *u, const rpi_update_call *call) { \
        RPI_FN(update_by)(u, method, call); \
    }
RPI_DEFINE_UPDATE(RP_PARTITIONING)
RPI_DEFINE_UPDATE(RP_SGD)
RPI_DEFINE_UPDATE(RP_ADAM)
RPI_DEFINE_UPDATE(RP_ADAGRAD)
RPI_DEFINE_UPDATE(RP_ADADELTA)
RPI_DEFINE_UPDATE(RP_PER_VARIABLE)
static void RPI_FN(update)(const rpi_update *u, const rpi_update_call *call) {
    static void (*const methods[])(const rpi_update *, const rpi_update_call *) = {
        /* in the order of rp_method; RP_NEWTON finds its steps elsewhere */
        RPI_UPDATE(RP_PARTITIONING), RPI_UPDATE(RP_SGD),      RPI_UPDATE(RP_ADAM),
        RPI_UPDATE(RP_ADAGRAD),      RPI_UPDATE(RP_ADADELTA), RPI_UPDATE(RP_PER_VARIABLE),
    };
    if (u->method < RP_NEWTON) methods[u->method](u, call);
}

/* b = 0: y is not read. */
static void RPI_FN(blend)(ptrdiff_t n, rp_real a, const rp_real *x, const rp_real *f, rp_real b, rp_real *y) {
    for (ptrdiff_t i = 0; i < n; i += RPI_LANES) {
        int some = n - i < RPI_LANES ? (int)(n - i) : RPI_LANES;
        rpi_v term = RPI_ALL(a) * RPI_LOAD_SOME(x + i, some);
        if (f) term *= RPI_LOAD_SOME(f + i, some);
        if (b != 0) term = RPI_FMA(RPI_ALL(b), RPI_LOAD_SOME(y + i, some), term);
        RPI_STORE_SOME(y + i, term, some);
    }
}

static void RPI_FN(take_step)(const rpi_sink *sink, const rpi_piece *piece) {
    rpi_update_call call;
    call.n = piece->n;
    call.scale = piece->scale;
    call.scale2 = sink->curvature ? 1 : piece->scale2;
    call.to = NULL;
    for (int r = 0; r < piece->rows; r++) {
        ptrdiff_t at = piece->offset + r * piece->stride, from = r * piece->ld;
        call.g = piece->gradient + from;
        call.h = piece->curvature ? piece->curvature + from : NULL;
        if (sink->curvature) call.h = sink->curvature + at;
        call.w = sink->parameters + at;
        call.first = sink->first ? sink->first + at : NULL;
        call.second = sink->second ? sink->second + at : NULL;
        RPI_FN(update)(sink->update, &call);
    }
}
/* The piece becomes b times what the arrays hold, plus itself. */
static void RPI_FN(take)(const rpi_sink *sink, const rpi_piece *piece, rp_real b) {
    for (int r = 0; r < piece->rows; r++) {
        ptrdiff_t at = piece->offset + r * piece->stride, from = r * piece->ld;
        if (piece->gradient)
            RPI_FN(blend)(piece->n, piece->scale, piece->gradient + from, NULL, b, sink->gradient + at);
        if (piece->curvature)
            RPI_FN(blend)(piece->n, piece->scale2, piece->curvature + from, NULL, b, sink->curvature + at);
    }
}
static void RPI_FN(take_arrays)(const rpi_sink *sink, const rpi_piece *piece) { RPI_FN(take)(sink, piece, 0); }
static void RPI_FN(take_sum)(const rpi_sink *sink, const rpi_piece *piece) { RPI_FN(take)(sink, piece, 1); }

static void RPI_FN(move)(int n, rp_real alpha, const rp_real *step, rp_real *w) {
    for (int i = 0; i < n; i += RPI_LANES) {
        rpi_v x = RPI_LOAD_SOME(w + i, n - i);
        RPI_STORE_SOME(w + i, RPI_FN(finite_or)(RPI_FMA(RPI_ALL(alpha), RPI_LOAD_SOME(step + i, n - i), x), x), n - i);
    }
}

/* In double, over blocks short enough for rp_real. */
static double RPI_FN(dot)(ptrdiff_t n, const rp_real *a, const rp_real *b) {
    double total = 0;
    for (ptrdiff_t at = 0; at < n; at += 64 * RPI_LANES) {
        rpi_v sum = RPI_ALL(0);
        for (ptrdiff_t i = at; i < n && i < at + 64 * RPI_LANES; i += RPI_LANES) {
            int some = n - i < RPI_LANES ? (int)(n - i) : RPI_LANES;
            sum = RPI_FMA(RPI_LOAD_SOME(a + i, some), RPI_LOAD_SOME(b + i, some), sum);
        }
        total += (double)RPI_FN(sum_lanes)(0, sum);
    }
    return total;
}

/* clang-format off */
static const rpi_kernels RPI_FN(kernels) = {
    RPI_ISA_NAME,
    RPI_LANES,
    RPI_TILE_ROWS,
    RPI_FN(gemm),
    RPI_FN(product),
    RPI_FN(matrix_vector),
    RPI_FN(outer),
    RPI_FN(correlate),
    RPI_FN(window_magnitudes),
    RPI_FN(select_rows),
    RPI_FN(select_back),
    RPI_FN(add_rows),
    RPI_FN(transpose),
    RPI_FN(column_sums),
    RPI_FN(weigh),
    RPI_FN(signs),
    RPI_FN(peak),
    RPI_FN(activate),
    RPI_FN(activate_back),
    RPI_FN(activate_tangent),
    {
        /* in the order of rp_loss_kind */
        RPI_FN(squared_error),
        RPI_FN(softmax_cross_entropy),
        RPI_FN(binary_cross_entropy),
        RPI_FN(huber),
        RPI_FN(poisson),
    },
    RPI_FN(update),
    RPI_FN(move),
    RPI_FN(dot),
    RPI_FN(blend),
    RPI_FN(take_step),
    RPI_FN(take_arrays),
    RPI_FN(take_sum),
};
/* clang-format on */

#undef RPI_LANES
#undef rpi_v
#undef rpi_i
#undef RPI_BITS
#undef RPI_REALS
#undef RPI_GREATER
#undef RPI_EQUAL
#undef RPI_LOAD
#undef RPI_STORE
#undef RPI_ALL
#undef RPI_ALL_INT
#undef RPI_FMA
#undef RPI_LOAD_SOME
#undef RPI_STORE_SOME
#undef RPI_LANES_OF
#undef RPI_LANEWISE
#undef RPI_TILE_ROWS
#undef RPI_TILE_VECTORS
#undef RPI_ROOT
#undef RPI_ABS
#undef RPI_SELECT
#undef RPI_EXP
#undef RPI_EXPM1
#undef RPI_LOG1P
#undef RPI_TANH
#undef RPI_POWER2
#undef RPI_ROWS_1
#undef RPI_ROWS_4
#undef RPI_ROWS_6
#undef RPI_VECTORS_1
#undef RPI_VECTORS_2
#undef RPI_VECTORS_3
#undef RPI_VECTORS_4
#undef RPI_SUM
#undef RPI_SUM_ROW
#undef RPI_SPREAD
#undef RPI_SPREAD_ROW
#undef RPI_BEGIN
#undef RPI_BEGIN_ROW
#undef RPI_READ
#undef RPI_TERM
#undef RPI_TERM_ROW
#undef RPI_END
#undef RPI_END_ROW
#undef RPI_TILE
#undef RPI_BY_STRIDE
#undef RPI_BY_TABLE
#undef RPI_IF_TALL
#undef RPI_STRIP
#undef RPI_DEFINE_STRIP
#undef RPI_STRIPS
#undef RPI_TAPS
#undef RPI_EACH_TAP
#undef RPI_CLEAR
#undef RPI_CLEAR_ROW
#undef RPI_READ_TAP
#undef RPI_CORRELATE_ROW
#undef RPI_KEEP
#undef RPI_KEEP_ROW
#undef RPI_SQUARE
#undef RPI_ACTIVATION
#undef RPI_DEFINE_ACTIVATION
#undef RPI_UPDATE
#undef RPI_DEFINE_UPDATE
#endif /* RPI_PASS */

/* >>licence
   This software is available under two licences, choose whichever you prefer.

   ALTERNATIVE A - MIT License
   Copyright (c) 2026 the rp.h authors
   Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
   files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
   modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
   Software is furnished to do so, subject to the following conditions: The above copyright notice and this permission notice
   shall be included in all copies or substantial portions of the Software.
   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
   WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
   COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE,
   ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

   ALTERNATIVE B - Public Domain (www.unlicense.org)
   This is free and unencumbered software released into the public domain. Anyone is free to copy, modify, publish, use,
   compile, sell, or distribute this software, either in source code form or as a compiled binary, for any purpose, commercial
   or non-commercial, and by any means. In jurisdictions that recognize copyright laws, the author or authors of this software
   dedicate any and all copyright interest in the software to the public domain. We make this dedication for the benefit of the
   public at large and to the detriment of our heirs and successors. We intend this dedication to be an overt act of
   relinquishment in perpetuity of all present and future rights to this software under copyright law.
   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
   WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS BE LIABLE
   FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
   CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
*/
