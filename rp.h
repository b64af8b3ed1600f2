/* rp.h - v0.2 - neural networks that see curvature, in one file - public domain or MIT, at your choice

   Trains and runs neural networks (dense, convolutional, recurrent, residual) inside a C or C++ program: by residual
   partitioning, a second-order method that gives every weight its own step from one forward and one backward pass, or
   by SGD, Adam, Adagrad, Adadelta and Newton's method. Shows what it sees: exact Hessian products, diagonals, solves,
   step lengths. Its own kernels for AVX2, AVX-512 and NEON are chosen at run time. Nothing to install or to link.

       #define RP_IMPLEMENTATION // in exactly one file of the program
       #include "rp.h"
       #include <stdio.h>

       int main(void) {
           rp_real x[] = {0, 0, 0, 1, 1, 0, 1, 1}; // four samples of two inputs
           int exclusive_or[] = {0, 1, 1, 0};      // and their classes
           int answers[4] = {0};
           rp_data data = rp_labelled(x, exclusive_or, 4);
           rp_optimizer optimizer = rp_partitioning();
           rp_net *net = rp_net_text("input vector 2; dense 16; tanh; dense 2; loss softmax_cross_entropy", NULL);
           rp_net_build(net, 4, 1); // for batches of up to 4 samples, from seed 1
           for (int step = 0; step < 500; step++) rp_train(net, &optimizer, &data, NULL);
           if (rp_save(net, "xor.safetensors") != RP_OK) printf("%s\n", rp_error(net));
           rp_net_free(net);

           net = rp_open("xor.safetensors", NULL); // as another program would
           rp_net_build(net, 4, 1);
           if (rp_classify(net, x, 4, answers) != RP_OK) printf("%s\n", rp_error(net));
           for (int s = 0; s < 4; s++) printf("%g xor %g is %d\n", x[2 * s], x[2 * s + 1], answers[s]);
           rp_net_free(net);
           return 0;
       }

       cc -O2 app.c -lm                           (several threads: cc -O2 -DRP_THREADS app.c -lm -lpthread)

   C99, C++11 and later. Get the best of it. Scale inputs to a size of about 1: thirty times as large they cost some
   nets much of what they could learn. After a loop of rp_train, rp_average(net, 1) before you predict is worth its
   line; rp_fit does it. Print rp_warning(net) once. What rp_save keeps also goes on training where it was, to the bit.
   Keep the implementation in a file of its own, since it takes seconds to compile.

   Contents (search for the anchor)
       >>configuration   macros that you may define before the include
       >>status          how things fail
       >>first           the first level: describe a net, build it, train it, use it
       >>concepts        what residual partitioning is; notation; sources
       >>optimizers      methods, their formulas and fields, what a step did
       >>fit             the second level: data sets, epochs, validation, files in the IDX format
       >>keep            a net as text, in a file, from PyTorch
       >>pieces          the third level: a training step in pieces, your own loss, the flat arrays, copies
       >>curvature       exact second derivatives: products, diagonals, solves, lengths; gradients of single samples
       >>threads         several threads that predict from one net; what callbacks may do; memory
     and behind RP_IMPLEMENTATION
       >>platform  >>memory  >>random  >>kernels  >>amx  >>isa  >>team
       >>activations  >>net  >>losses  >>maps  >>describe  >>text  >>lower  >>build  >>inspect  >>data
       >>sweeps  >>rules  >>backward  >>tangents  >>diagonals  >>samples  >>lu  >>minres  >>direct  >>solve
       >>methods  >>steps  >>pace  >>train  >>predict  >>evaluate  >>epochs  >>copies  >>idx  >>files  >>macros
       >>template  >>licence
*/
#ifndef RPI_PASS /* the file includes itself once for each instruction set, for the part behind >>template */
#ifndef RP_H
#define RP_H
#define RP_VERSION_MAJOR 0
#define RP_VERSION_MINOR 2
#define RP_VERSION_PATCH 0
#define RP_VERSION "0.2.0"

/* >>configuration
   Define these before the include that has RP_IMPLEMENTATION (RP_DOUBLE and RP_STATIC before every include).
       RP_STATIC             every function is static: several copies may live in one program, each in a file that has
                             RP_IMPLEMENTATION, too
       RP_DOUBLE             rp_real is double (portable kernels), for those who check or study. A program links only if
                             its files agree on it, and if one has RP_IMPLEMENTATION, even where only types are used
       RP_MALLOC(size) and RP_FREE(pointer), both or neither: where memory comes from (default: malloc, free)
       RP_THREADS            config.threads may be more than 1: POSIX threads (-lpthread if libc lacks them) or Win32's
       RP_NO_SIMD            the portable kernels only, whatever the machine has
       RP_NO_ENVIRONMENT     getenv is not called: the variable RP_ISA (portable, avx2, avx512, neon, amx) is not read
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

/* Files that disagree on rp_real would compute garbage with each other: each refers to the name that the
   implementation has for its own. */
#if defined(RP_STATIC)
#elif defined(_MSC_VER) && defined(RP_DOUBLE)
#pragma detect_mismatch("rp_real", "double")
#elif defined(_MSC_VER)
#pragma detect_mismatch("rp_real", "float")
#elif defined(RP_DOUBLE)
RP_EXTERN const char rp_reals_are_double;
#if defined(__GNUC__)
static const char *const rpi_reals __attribute__((used)) = &rp_reals_are_double;
#endif
#else
RP_EXTERN const char rp_reals_are_float;
#if defined(__GNUC__)
static const char *const rpi_reals __attribute__((used)) = &rp_reals_are_float;
#endif
#endif

RP_API const char *rp_version(void); /* RP_VERSION of the implementation */

/* >>status
   Functions return a status: RP_OK is 0, errors are negative. rp_error(net) says in a sentence what was wrong with
   the last call that failed on this net: the function, the layer, the field, its value and what it may be. A call
   that fails leaves parameters and optimizer state as they were; only rp_fit keeps the steps before the one that
   failed. Nothing prints, exits or aborts. */
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
    X(RP_ERR_FILE, -10, "a file cannot be opened, read or written") \
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

/* "" if nothing failed yet. Belongs to the net, valid until its next call. */
RP_API const char *rp_error(const rp_net *net);

/* What is legal and surely a mistake: a sigmoid or ReLU as the last layer before a loss of logits, softmax over one
   output, every layer frozen. "" if there is nothing of that kind, or before the build. Belongs to the net. */
RP_API const char *rp_warning(const rp_net *net);

/* >>first
   Describe the net from input to output, build it, train it, use it.

   A net is a list of layers, from the input to the last one, and a loss. A batch is `count` samples; inputs are
   [count][inputs], targets and outputs [count][outputs], row after row. No width, sample or batch has more than 2^28
   numbers. Loss, gradient and curvature are means over the batch and sums over the outputs. A sample of weight w
   counts w times in the sum; the mean still divides by the number of samples. */

typedef enum rp_shape_kind { RP_SHAPE_VECTOR = 1, RP_SHAPE_IMAGE, RP_SHAPE_SEQUENCE } rp_shape_kind;
typedef struct rp_shape {
    rp_shape_kind kind;
    int steps;         /* of a sequence, otherwise 1 */
    int channels;      /* also the features of a vector or of a step */
    int height, width; /* of an image, otherwise 1 */
} rp_shape;
RP_API rp_shape rp_vector(int features);
RP_API rp_shape rp_image(int channels, int height, int width); /* a sample is [channels][height][width] */
RP_API rp_shape rp_sequence(int steps, int features);          /* a sample is [steps][features] */

/* The derivative at a kink, z = 0, is the left one. */
typedef enum rp_activation_kind {
    RP_IDENTITY,   /* z */
    RP_RELU,       /* max(z, 0) */
    RP_LEAKY_RELU, /* z, or slope * z below zero; slope 0.01 (rp_negative_slope) */
    RP_TANH,
    RP_SIGMOID,  /* 1 / (1 + exp(-z)) */
    RP_SOFTPLUS, /* log(1 + exp(z)) */
    RP_ELU,      /* z, or scale * (exp(z) - 1) below zero; scale 1 (rp_negative_slope) */
    RP_GELU,     /* z * Phi(z), Phi the normal distribution function: exact, not the tanh approximation */
    RP_SILU      /* z / (1 + exp(-z)) */
} rp_activation_kind;

/* Of a sample with targets t, summed over the outputs y, the last layer's values. r = y - t. */
typedef enum rp_loss_kind {
    RP_SQUARED_ERROR,         /* 1/2 r^2 */
    RP_SOFTMAX_CROSS_ENTROPY, /* -t log softmax(y); labels, or targets >= 0 (they need not sum to one) */
    RP_BINARY_CROSS_ENTROPY,  /* log(1 + exp(y)) - t y, y a logit; targets in [0, 1]; one output: or labels 0 and 1 */
    RP_HUBER,                 /* 1/2 r^2 if |r| <= delta, else delta (|r| - delta / 2); delta 1 (rp_huber_delta) */
    RP_POISSON                /* exp(y) - t y, y the log of the rate; targets >= 0 */
} rp_loss_kind;

typedef enum rp_isa_kind {
    RP_ISA_AUTO,
    RP_ISA_PORTABLE,
    RP_ISA_AVX2,
    RP_ISA_AVX512,
    RP_ISA_NEON,
    RP_ISA_AMX
} rp_isa_kind;

/* Where the net's memory comes from, and on what it runs. All zero is the default. */
typedef struct rp_config {
    /* Set both or neither. allocate: NULL: RP_MALLOC; returns NULL if there is no memory. release: NULL: RP_FREE; never
       called with a NULL pointer. */
    void *(*allocate)(void *user, size_t size);
    void (*release)(void *user, void *pointer);
    void *user;
    /* Instruction set; RP_ISA_AUTO takes the best that the machine has, but for RP_ISA_AMX, which is AVX-512 with less
       exact products. Dense layers of 32 and more inputs and units multiply values and gradients as sums of two
       bfloat16 numbers, at batches of 32 and more samples (values: 17): errors, in the root mean square, of 2e-6 (sums
       of 32 terms) to 3e-7 (of 2000) of |A||B|, where float has 3e-8; at most 5e-5. Magnitudes in residual
       partitioning, whose terms have one sign, are one bfloat16 number: 0.06% to 0.01%, at most 0.8%. What is infinite
       counts as not a number. Products with the Hessian, solves and derivatives along a direction are in float, at values
       and a gradient with these errors. For training: after some ms of rest the unit takes 300 us to come to full
       speed. It asks Linux for the tiles' state, for which frames of signal handlers grow by 8 KB, and is refused
       (RP_ERR_UNSUPPORTED) where an alternate stack is too small for that. */
    rp_isa_kind isa;
    /* Threads that work on one call, the caller's included; 0: 1. More need RP_THREADS. The results have the same bits
       for any number; small pieces of work stay on one. */
    int threads;
    int inference_only; /* no memory for training: rp_predict and its like, and rp_evaluate, only */
    int not_finite;     /* 1: files may hold values that are not finite */
} rp_config;

/* A new, empty net. `config` is copied; NULL takes the defaults. Returns NULL only when there is no memory: any other
   mistake sticks to the net and is reported by rp_net_build. Free with rp_net_free. */
RP_API rp_net *rp_net_new(rp_shape input, const rp_config *config);
RP_API void rp_net_free(rp_net *net); /* NULL is allowed */

/* Append a layer. Each returns the layer's index (0, 1, ...), or a negative status that also sticks until
   rp_net_build. */
RP_API int rp_dense(rp_net *net, int units); /* W x + b; images and sequences are read as one vector */
RP_API int rp_activation(rp_net *net, rp_activation_kind activation);

/* Layers of images. An image may come from any layer that gives one; dense layers read one as a vector, channel after
   channel. conv2d: weights [filters][channels][kernel][kernel]. Pools: windows that fit; what is left over at the
   border is not read. */
RP_API int rp_conv2d(rp_net *net, int filters, int kernel, int stride, int padding);
RP_API int rp_max_pool2d(rp_net *net, int window, int stride);
RP_API int rp_avg_pool2d(rp_net *net, int window, int stride);
RP_API int rp_global_avg_pool2d(rp_net *net); /* one number for each channel: an image of channels x 1 x 1 */

/* The same with heights and widths apart, and groups: filters of group g see the channels of group g only (groups =
   channels: depthwise); weights [filters][channels / groups][kernel_height][kernel_width]. A size of 0 is 1, paddings
   may be 0. */
typedef struct rp_conv2d_desc {
    int filters, kernel_height, kernel_width, stride_height, stride_width, padding_height, padding_width, groups;
} rp_conv2d_desc;
RP_API int rp_conv2d_with(rp_net *net, const rp_conv2d_desc *desc);

/* Layers of sequences. Recurrent (Elman): h_t = activation(W x_t + U h_(t-1) + b), h_0 = 0; gives the last h.
   Weights: W [units][features], then U [units][units], then b. With all_states it gives the sequence of all h. */
RP_API int rp_recurrent(rp_net *net, int units, rp_activation_kind activation);
typedef struct rp_recurrent_desc {
    int units;
    rp_activation_kind activation;
    int all_states;
} rp_recurrent_desc;
RP_API int rp_recurrent_with(rp_net *net, const rp_recurrent_desc *desc);

/* v_t = activation(W v_(t-1) + b) from v_0, the last layer's output (an image or sequence is read as one vector), to
   v_steps: one square W for all steps. */
RP_API int rp_recursive(rp_net *net, int steps, rp_activation_kind activation);

/* Residual connection: adds the output of an earlier layer, or of the input (RP_INPUT), of the same shape.
   RP_ERR_SHAPE names both. */
#define RP_INPUT (-1)
RP_API int rp_add(rp_net *net, int layer);

/* Change a layer that has been appended. Before the build. Return a status, which also sticks: RP_ERR_VALUE if there
   is no such layer, or it has no such thing. */
RP_API rp_status rp_no_bias(rp_net *net, int layer);
/* Of a leaky ReLU or ELU, also a recurrent or recursive layer's; finite, >= 0. */
RP_API rp_status rp_negative_slope(rp_net *net, int layer, rp_real slope);

/* A frozen layer keeps its parameters, whatever the optimizer; its gradient and curvature are reported as 0, and the
   bound of residual partitioning leaves them out. `frozen` 1 or 0. At any time. RP_ERR_VALUE: there is no such layer,
   or it has no parameters; this mistake does not stick. */
RP_API rp_status rp_freeze(rp_net *net, int layer, int frozen);

RP_API rp_status rp_loss(rp_net *net, rp_loss_kind loss);    /* default: RP_SQUARED_ERROR. Before the build; sticks */
RP_API rp_status rp_huber_delta(rp_net *net, rp_real delta); /* > 0, for RP_HUBER. Before the build; sticks */

/* Allocates everything for batches of up to `batch` samples and draws the parameters: weights and biases uniform in
   +-1/sqrt(fan_in), which is PyTorch's default; in recurrent layers in +-1/sqrt(units), as there. The same seed gives
   the same net. Reports the first mistake made in describing the net, RP_ERR_SHAPE for a net without a layer,
   RP_ERR_VALUE for a Huber delta with another loss, RP_ERR_ORDER if it is built already, RP_ERR_OVERFLOW,
   RP_ERR_MEMORY; of a net from rp_open what rp_load reports. If the build itself found too little memory, it may be
   tried again. */
RP_API rp_status rp_net_build(rp_net *net, int batch, uint64_t seed);

/* Samples: one batch, or a whole data set. Arrays stay the caller's. Make it by one of the functions below. */
typedef struct rp_data rp_data;
typedef int (*rp_fill)(void *user, int index, rp_data *batch);
struct rp_data {
    const rp_real *inputs;  /* [count][inputs] */
    const rp_real *targets; /* [count][outputs], or NULL if there are labels */
    const int *labels;      /* [count], or NULL */
    const rp_real *weights; /* [count], finite and >= 0; NULL: all 1 */
    int count;
    int inputs_width, targets_width; /* numbers of a row of what is given, else RP_ERR_SHAPE; 0: not checked */
    rp_fill fill;                    /* see rp_streamed */
    void *user;
};
RP_API rp_data rp_labelled(const rp_real *inputs, const int *labels, int count);
RP_API rp_data rp_targeted(const rp_real *inputs, const rp_real *targets, int count);

/* An optimizer is a plain struct: make one by rp_partitioning() (the default), rp_sgd(rate), rp_adam(rate) or another
   such function, and edit its fields. See >>optimizers. */
typedef struct rp_optimizer rp_optimizer;

/* One step on one batch. *loss (NULL: not wanted) is the loss before the step. RP_ERR_NOT_FINITE, with parameters and
   state untouched: loss, gradient or curvature is not finite. RP_ERR_LABEL: labels do not fit the loss, or one is not
   a class.
   RP_ERR_VALUE: the batch has no sample, or more than the net was built for; a target that the loss does not allow, a
   weight below 0; both targets and labels; a field of the optimizer. RP_ERR_NULL: neither targets nor labels.
   RP_ERR_SHAPE: see rp_data. RP_ERR_ORDER: averages are in the place of the parameters (rp_average). */
RP_API rp_status rp_train(rp_net *net, const rp_optimizer *optimizer, const rp_data *batch, rp_real *loss);

/* For any number of samples, x [count][inputs]. Values that are not finite are passed on as they are (but for
   programs compiled with -ffast-math, which assume that there are none). rp_predict: the last layer's values (logits,
   log rates), out [count][outputs]. rp_probabilities: what the loss makes of them: softmax, 1 / (1 + exp(-y)),
   exp(y); the others leave them as they are. rp_classify: the place of the largest value, the first of equals (what
   is not a number is never larger). Of one output with binary cross-entropy: whether it is above 0; with another
   loss: RP_ERR_UNSUPPORTED. */
RP_API rp_status rp_predict(rp_net *net, const rp_real *x, int count, rp_real *out);
RP_API rp_status rp_probabilities(rp_net *net, const rp_real *x, int count, rp_real *out);
RP_API rp_status rp_classify(rp_net *net, const rp_real *x, int count, int *classes);

/* >>concepts
   Residual partitioning bounds the loss around the present parameters by a sum of one parabola per parameter
   (Jensen's inequality, its weights chosen so that the bound is tightest), and steps towards the minimum of each:

       step = -rate * gradient / curvature

   In the paths rule, the paper's, the curvature comes from one forward and one backward pass in which a second number
   travels beside each value; the other rules (rp_rule_kind) are cheaper, or tighter, ways to the same kind of bound:
       y   value of a unit                       u   total gradient: its move if every weight below moves by one
       d   derivative of the loss by the unit    v   curvature flow: the bound's second derivative at it, times u
   "Algorithm 1", "Equation n", "Theorem n" in this file are those of Deep Residual Partitioning (Lawton, Ver Steeg,
   Galstyan); "poster" is its one-page version. "Low-Rank Structure" is Understanding and Exploiting the Low-Rank
   Structure of Deep Networks; "Conjugate" is Training Deep Nets Using Conjugate Deep Nets.

   Where the formulas are, in the implementation:
       Algorithm 1, forward (Equation 11)    rpi_forward, rpi_dense_apply
       Algorithm 1, backward (Equation 9)    rpi_sweep_back, rpi_dense_transposed, RPI_BOUND; rpi_collect
       bounds at the output (44 to 46)       rpi_diagonal_times, rpi_softmax_jensen; Huber: RPI_FN(separable)
       Theorem 2's c                         rpi_scale
       poster, Equation 6                    rpi_begin_jacobian, rpi_weigh_jacobian
       sampled rule: draw, T_s               rpi_softmax_draw, rpi_diagonal_draw; rpi_reach
       jets, g'Hg                            rpi_sweep_tangents, rpi_directional
       Pearlmutter's R passes                rpi_multiply
       MINRES, direct solve                  rpi_recurrences, >>direct
       Low-Rank Structure, Equation 37       rp_cubic_length
       Newton, Levenberg-Marquardt           rpi_newton_step
       length without a rate                 rpi_pace_measure, rpi_energy; s between: rpi_find_spreads
       optimizers                            RPI_FN(step) */

/* How the curvature of residual partitioning is computed. All zero, the first of each, is the default.
   RP_SAMPLED: one extra backward sweep with a random vector whose covariance is the loss's Hessian (Huber: min(1,
   delta/|r|), which bounds it). In the mean over the draws its curvature bounds the Gauss-Newton matrix. `bound` is
   not looked at. Draws from the net's own random numbers, so that two calls differ.
   RP_PATHS: Algorithm 1: sums magnitudes over all paths through the net. About 1.8 times the work of a gradient.
   RP_JACOBIAN: poster, Equation 6: exact |dy/dw|, a backward sweep for each output (two for a bound that mixes
   outputs). */
typedef enum rp_rule_kind { RP_SAMPLED, RP_PATHS, RP_JACOBIAN } rp_rule_kind;

/* Of softmax; the other losses are separable and need none.
   RP_BOUND_TIGHT: diag(p) - p p' is bounded by diag(p).
   RP_BOUND_JENSEN: Jensen's inequality over the outputs (Equation 46), as in the paper; far larger. */
typedef enum rp_bound_kind { RP_BOUND_TIGHT, RP_BOUND_JENSEN } rp_bound_kind;

/* For which updates the partition is best.
   RP_SCALE_FAN_IN: of the size 1/sqrt(fan_in + 1) of their layer, also where it has no bias; recurrent: features +
   units.
   RP_SCALE_ONE: Theorem 2 as printed: all of one size. */
typedef enum rp_scale_kind { RP_SCALE_FAN_IN, RP_SCALE_ONE } rp_scale_kind;
typedef struct rp_rule {
    rp_rule_kind kind;
    rp_bound_kind bound;
    rp_scale_kind scale;
} rp_rule;

/* >>optimizers
   What an optimizer remembers of earlier steps is kept in the net; its fields may change between steps. With t = 1,
   2, ... the step, g = min(1, clip / |gradient|) gradient + weight_decay w (all methods but `decoupled` ones):

   partitioning  with a rate of 0, the default: finds the length of its steps, as below. With a rate:
                 m = mean of g over steps (momentum), H = mean of curvature + weight_decay over steps
                 (curvature_average), both bias-corrected exponential means, 0: the present batch alone;
                 w -= rate * m / (H + damping)
   SGD           b = momentum * b + g (b = g at t = 1);  w -= rate * b, with nesterov: rate * (g + momentum * b)
   Adam          m, s = means of g, g^2 with beta1, beta2, bias-corrected;  w -= rate * m / (sqrt(s) + epsilon)
   Adagrad       s += g^2;  w -= rate * g / (sqrt(s) + epsilon)
   Adadelta      s = mean of g^2 with rho; x = sqrt(a + epsilon) / sqrt(s + epsilon) * g; a = mean of x^2;
                 w -= rate * x
   per variable  h = the Hessian's diagonal + weight_decay;  w -= rate * sign(g) * alpha, where alpha is
                 rp_cubic_length(-|g|, h, 1, variable_sigma) (Low-Rank Structure, Table 2; see rp_hessian_diagonal for
                 the cost). All parameters move at once, each as if alone: variable_sigma must be large, the rate
                 small, or the length computed
   Newton        (B + (lambda + weight_decay) I) p = -g;  w += p, B the batch's Gauss-Newton matrix or Hessian

   Partitioning without a rate. d is the direction, G the batch's Gauss-Newton matrix; at the first 20 steps and then at
   every 8th, where the last measurement left no length or fit, and at each if curvature_average is 0, it measures:
       h = curvature + weight_decay          in between s |gradient| + weight_decay, where s, for each layer, fits
                                             the curvature last measured: s = sum of curvature |gradient| / |gradient|^2
       m = momentum m + (1 - momentum) g     not bias-corrected: the first steps are short
       p = mean of h |g|                     (curvature_average; bias-corrected)
       d = -m / sqrt(p)                      the geometric mean of -g / h (this library's) and -g / |g| (Adam's, about)
       r = (d'Gd + weight_decay |d|^2) / D, D = -m'd
       q = mean of r (0.9), Q = max(q, r)
       L = mean (0.9) of the batches' losses above the least possible for the batch last measured
       A = the first of these or, if less, the mean (0.9) of what outputs of 0 would lose, where r is measured
       w += alpha d, with the largest alpha that has, for S samples and K layers that are trained,
           alpha <= 2.5 / q
           alpha^2 Q D / 2 <= 0.06 (K + 1) / (1 + 20 / S + t / 200) max(0.1, (1 - L / A)^2) L
           alpha |d_k| <= |w_k| / K^2                                                      for each layer k
       average += 9 / (t + 9) (w - average)  before the step, t from 0
   That is, a step goes some times as far as would minimise the batch's loss along it, but raises the loss by its own
   curvature by no more than a part of what is left of it, and changes no layer at once. Steps as long as that do not
   settle; their average does (Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging; the weights:
   Shamir and Zhang, Stochastic Gradient Descent for Non-smooth Optimization). It is in rp_average, and what rp_fit
   evaluates and ends with. Curvature: Residual Partitioning; m and the power 1/2: Adam; the geometric mean, the limits
   and their constants are ours, chosen on twenty tasks (bench/auto.md). A step after which the loss of S
   samples is not finite, or more than 5 + 50 / S times max(L, A), is undone: training goes on from the average with a
   quarter of the length.

   SGD to Adadelta give PyTorch's results, and have its defaults. A parameter whose new value would not be finite (0/0
   where the curvature is zero) stays as it is. Means and b end as 0 where they would become
   subnormal, and steps slow (Adam's s beside an m of 0).

   Computed lengths: with cubic_sigma above 0 the step s of any method is multiplied by the alpha that minimises

       alpha a + alpha^2 b / 2 + cubic_sigma |alpha s|^3 / 6,

   where a and b are the exact first and second derivative along s of this batch's loss with weight decay (Low-Rank
   Structure, section 3). alpha undoes the scale of s, so the rate no longer matters. Where a >= 0 no step is taken.
   It costs one rp_directional more. With cubic_adaptive, cubic_sigma is only the first sigma: the loss is computed
   once more after the step, and sigma halved where the model foretold its decrease well (ratio above 0.9), doubled
   where it did not (below 0.1: Kohler and Lucchi); a step that raised the loss is undone.

   Newton's steps (Levenberg-Marquardt) are solved for by MINRES, up to the first direction of negative curvature, and
   taken if they do not raise this batch's loss. lambda is halved where the quadratic model foretold the decrease well
   (ratio above 0.75), doubled where it did not (below 0.25), and 4 times as large after a step not taken (unless all
   that it foretold is lost in rounding). In the place of that step comes -g / (curvature + lambda), one of residual
   partitioning, of the length that minimises the exact quadratic along it, halved up to 8 times; or none, if all
   raise the loss. The rate is read by decoupled weight decay only. lambda, as sigma, stays within a million times of
   what it began with.

   With cubic_sigma or clip, in the last two methods, and where partitioning without a rate measures, gradient,
   curvature (if it is measured) and step are left in the flat arrays. */
typedef enum rp_method {
    RP_PARTITIONING = 1,
    RP_SGD,
    RP_ADAM,
    RP_ADAGRAD,
    RP_ADADELTA,
    RP_PER_VARIABLE,
    RP_NEWTON
} rp_method;
struct rp_optimizer {
    rp_method method;
    rp_real rate;
    rp_real rate_decay;   /* step t (from 0) uses rate * rate_decay^(t / rate_decay_steps); 0: no decay */
    int rate_decay_steps; /* 0: 1 */
    rp_real weight_decay; /* strength r of r/2 |w|^2 on weights and biases */
    /* 1: w -= rate * weight_decay * w instead, as AdamW does. Where the length of the step is computed, and for Newton,
       after the step, if one is taken (in pieces by the caller). */
    int decoupled;
    rp_real clip;        /* largest norm of the gradient over all trained parameters; 0: any */
    rp_real cubic_sigma; /* of a computed length; 0: the step has its own */
    int cubic_adaptive;  /* 1: that sigma adapts; not for Newton */
    /* The fields of some methods; they must be 0 for the others. */
    rp_real momentum;          /* SGD, partitioning; in [0, 1) */
    int nesterov;              /* SGD; needs momentum */
    rp_real curvature_average; /* partitioning; in [0, 1) */
    rp_real damping;        /* partitioning; >= 0. Has the unit of the curvature: smaller where losses or inputs are */
    rp_rule rule;           /* partitioning; Newton: of the curvature in its fallback */
    rp_real beta1, beta2;   /* Adam; in [0, 1) */
    rp_real rho;            /* Adadelta; in [0, 1] */
    rp_real epsilon;        /* Adam, Adagrad, Adadelta; >= 0 */
    rp_real variable_sigma; /* per variable; > 0 */
    rp_real lambda;         /* Newton: the first, > 0 */
    int full_hessian;       /* Newton: 1: B is the Hessian, 0: the Gauss-Newton matrix, which is never indefinite */
    int iterations;         /* Newton: most products in a solve, >= 1 */
    rp_real tolerance;      /* Newton: at which the solve ends: residual by right-hand side; in [0, 1) */
};
/* rp_partitioning: rate 0, momentum 0.9, curvature_average 0.99, damping 1 (read with a rate only), rule all zero.
   rp_algorithm_1: the paper's, as printed: paths, Jensen's bound, scale one, damping 1e-8, no averages and so no
   state. rp_adam: beta1 0.9, beta2 0.999, epsilon 1e-8. rp_adagrad: epsilon 1e-10. rp_adadelta: rho 0.9, epsilon
   1e-6. rp_per_variable: rate 1. rp_newton: lambda 1, at most 50 products to a tolerance of 0.01; for large batches,
   or the whole data set. */
RP_API rp_optimizer rp_partitioning(void); /* the default: nothing to set. Of rates, 1 to 10 are worth a try */
RP_API rp_optimizer rp_algorithm_1(rp_real rate);
RP_API rp_optimizer rp_sgd(rp_real rate);
RP_API rp_optimizer rp_adam(rp_real rate);
RP_API rp_optimizer rp_adagrad(rp_real rate);
RP_API rp_optimizer rp_adadelta(rp_real rate);
RP_API rp_optimizer rp_per_variable(rp_real variable_sigma);
RP_API rp_optimizer rp_newton(void);

/* Allocates the state that this optimizer keeps between steps (0 to 3 numbers per parameter; the last two methods
   keep scratch memory instead) and sets it to zero, unless the net has this state already. rp_train and rp_update do
   it themselves when they must; after it they allocate nothing. Another method, or a momentum or average switched on
   or off, is another state: it starts from zero.
   RP_ERR_VALUE: a field is out of range, or is one of another method's. RP_ERR_MEMORY: the earlier state is still
   there. */
RP_API rp_status rp_prepare(rp_net *net, const rp_optimizer *optimizer);

/* What bounds the length of a step without a rate: nothing, the curvature along it, the energy that it may add to the
   loss, the size of a layer's weights, or an earlier step that was undone. */
typedef enum rp_cap { RP_CAP_NONE, RP_CAP_CURVATURE, RP_CAP_ENERGY, RP_CAP_LAYER, RP_CAP_UNDONE } rp_cap;

/* What the last step of rp_train or rp_fit did. Of a method whose rate is its length only `taken` and `alpha` (1) are
   set. */
typedef struct rp_step {
    /* 0: none, since the derivative was not below 0, the loss would have risen, or derivatives or length were not
       finite (these are 0 then); parameters are as they were. */
    int taken;
    rp_real alpha;  /* what the method's step was multiplied by */
    rp_real first;  /* derivative of the loss and weight decay along it, at its beginning */
    rp_real second; /* and their second derivative */
    rp_real ratio;  /* actual by foretold decrease; 0 where none was computed */
    rp_real sigma;  /* of the cubic model, for the next step; 0: there is none */
    rp_real lambda; /* Newton's, for the next step; other methods: 0 */
    int products;   /* Newton: in the solve */
    int fallback;   /* Newton: 1: the step is one of residual partitioning */
    /* Without a rate: what bounds alpha; 1 if it was measured at this step (then first is -m'd, second d'Gd with weight
       decay); 1 if the step before was undone first. */
    rp_cap cap;
    int measured, undone;
} rp_step;
RP_API rp_status rp_last_step(rp_net *net, rp_step *step); /* RP_ERR_ORDER: no step yet */

/* Puts the averages of the parameters over the steps, which partitioning without a rate keeps, in their place (1), or
   the parameters back (0); nothing where that is so already. Before the first step, also behind rp_reset or
   rp_import, they are the same. Averages predict better; training needs the parameters: with the averages in their
   place it is RP_ERR_ORDER. Another optimizer begins from what is in place, and forgets the other half. If a
   parameter is written to meanwhile, all that is in place then is where training goes on. Frozen layers stay.
   RP_ERR_ORDER: no averages are kept. */
RP_API rp_status rp_average(rp_net *net, int averages);

/* >>fit
   Whole data sets. rp_fit and rp_evaluate also take streams. */

/* The data come from `fill`. It points `batch`, which arrives all zero, at the arrays of batch number `index` (0, 1,
   ..., from 0 again in each epoch) and sets its count, at most what the net was built for; the arrays stay valid
   until the next call. It returns 1, or 0 if there are no more batches (none at all: RP_ERR_VALUE), or a negative
   number to stop with RP_ERR_STOPPED. */
RP_API rp_data rp_streamed(rp_fill fill, void *user);

/* accuracy: with softmax the share of samples whose largest output is the label or the largest target, with binary
   cross-entropy that of outputs on the right side; by weight. -1 for losses that have none, or if all weights are 0. */
typedef struct rp_score {
    rp_real loss;
    rp_real accuracy;
    int64_t count; /* samples seen */
} rp_score;

/* Mean loss over a data set of any size; `losses` (NULL: not wanted): each sample's own, [count], without its weight,
   not of streams. RP_ERR_NOT_FINITE: the loss is not finite (score and losses are filled all the same). */
RP_API rp_status rp_evaluate(rp_net *net, const rp_data *data, rp_score *score, rp_real *losses);

typedef struct rp_progress {
    int epoch, epochs; /* from 0 */
    int step, steps;  /* done in this epoch, of how many; steps is 0 while unknown (the first epoch of streamed data) */
    int epoch_done;   /* 1: the epoch is over, `validation` is fresh if there is validation data */
    rp_real loss;     /* mean over this epoch's samples so far, each before its step */
    rp_real accuracy; /* of the same, as in rp_score */
    rp_score validation; /* the latest; count 0 if there is none */
    rp_step last;        /* the latest step */
} rp_progress;

typedef struct rp_fit_options { /* all zero is the default: rp_fit_options options = {0}; in C++ {} */
    int epochs;                 /* 0: 1 */
    int batch;                  /* 0: what the net was built for */
    int keep_order;             /* 1: do not shuffle. Streamed data are never shuffled */
    uint64_t seed;              /* of the shuffling, which goes on from one rp_fit of a net to the next */
    const rp_data *validation;  /* NULL: none */
    int patience;               /* stop after so many epochs without a better validation loss; 0: never */
    int keep_best;              /* 1: end with the parameters of the best validation loss */
    /* A file that makes the run survive its program (rp_save, >>keep), NULL: none. It is written when the run begins,
       at the end of each epoch, where the callback stops, and after every checkpoint_steps steps (0: only there). If
       there is one when rp_fit begins, the run goes on where it was written, to the bit; at the end of a run, nothing
       is left to do, unless there are more epochs. See rp_fit. Give each rp_fit of a program a file of its own, and
       remove the file to begin again. */
    const char *checkpoint;
    int checkpoint_steps;
    /* 1: begin at the first epoch, with the net as it is, also if it was saved in an rp_fit; a checkpoint is not read,
       but replaced */
    int anew;
    /* After each step and each epoch; anything but 0 stops. */
    int (*progress)(void *user, const rp_progress *progress);
    /* The rate for step 0, 1, ... of this fit, given the optimizer's, which must be above 0 for partitioning. */
    rp_real (*schedule)(void *user, int64_t step, rp_real rate);
    void *user; /* for both */
} rp_fit_options;

typedef struct rp_fit_report {
    int epochs; /* finished */
    int64_t steps;
    rp_real loss, accuracy; /* of the last finished epoch's samples, each before its step; 0: none was finished */
    rp_score validation;    /* of the last epoch */
    rp_real best_loss;      /* smallest validation loss, and its epoch (from 0) */
    int best_epoch;         /* -1: none */
    int stopped;            /* 1: by patience, 2: by the progress callback */
    rp_step last;           /* the last step */
} rp_fit_report;

/* Trains for some epochs. A last batch that is not full is trained as it is. `options` and `report` may be NULL.
   Stopping by patience or by the callback is success. Fails as rp_train does; what was learned until then is kept.
   Partitioning without a rate is validated, and ended, with the averages in place (rp_average), also where it stops
   or fails. Called again, it goes on, from the parameters behind them: optimizer state stays, and samples are shuffled
   anew. Allocates nothing once the optimizer's state is there, except a copy of the parameters for keep_best, which
   keeps parameters, not state, and what reading and writing a checkpoint takes. The report is also filled where
   training fails, but not where an argument is refused.
   A run goes on where another rp_fit was, if there is a checkpoint, or if the net was saved in a callback of rp_fit and
   then loaded: in the midst of an epoch or between two, the same steps follow. It must be the same run: as many
   samples (or a stream), the same options.batch and keep_order, and, once a step was taken, an optimizer with the same
   state: method, rate above 0 or not (partitioning), momentum and curvature_average above 0 or not. Anything else is
   RP_ERR_VALUE, with the net as it was. What is not in the file is not compared: the numbers of the data and of the
   optimizer, seed, schedule, validation. Streams are asked again for the batches before (RP_ERR_VALUE: they end there).
   Epochs and patience are those of this call: where they leave something to do, a checkpoint of a finished run goes on,
   too. A net that was saved where its run ended, and is then loaded without a checkpoint, begins another run. With a
   checkpoint rp_fit fails as rp_save and rp_load do, too. */
RP_API rp_status rp_fit(rp_net *net, const rp_optimizer *optimizer, const rp_data *data, const rp_fit_options *options,
                        rp_fit_report *report);

/* Files in the IDX format (unsigned bytes), in which MNIST and its relatives are kept. `values` or `labels` is filled
   and belongs to the caller until rp_idx_free. On failure nothing is allocated and `error` says what was wrong. */
typedef struct rp_idx {
    rp_real *values; /* [count][size] */
    int *labels;     /* [count] */
    int count, size;
    int dimensions; /* of one sample: 0 for labels, 2 for images */
    int shape[8];   /* of one sample: {28, 28} */
    char error[192];
} rp_idx;
/* Bytes 0..255 become low..high. RP_ERR_FILE: cannot be opened or read.
   RP_ERR_MAGIC: not IDX. RP_ERR_UNSUPPORTED: IDX, but not of unsigned bytes. RP_ERR_SHAPE: no dimensions, too many,
   or one of size zero; labels with more than one. RP_ERR_OVERFLOW: the dimensions' product. RP_ERR_TRUNCATED,
   RP_ERR_TRAILING: fewer or more bytes than the dimensions say. RP_ERR_LABEL: a label is `classes` or more.
   RP_ERR_MEMORY. RP_ERR_NULL, RP_ERR_VALUE: an argument. */
RP_API rp_status rp_images_memory(const void *bytes, size_t size, rp_real low, rp_real high, rp_idx *out);
RP_API rp_status rp_labels_memory(const void *bytes, size_t size, int classes, rp_idx *out);
#ifndef RP_NO_STDIO
RP_API rp_status rp_images(const char *path, rp_real low, rp_real high, rp_idx *out);
RP_API rp_status rp_labels(const char *path, int classes, rp_idx *out);
#endif
RP_API void rp_idx_free(rp_idx *idx); /* NULL is allowed, twice too */

/* Images with labels, or (NULL) with themselves as targets, widths set. Where counts differ, or one of them is not
   what its name says, the data have a count of -1, which every function refuses. The arrays stay those of `images`
   and `labels`. */
RP_API rp_data rp_idx_data(const rp_idx *images, const rp_idx *labels);

/* >>keep
   A net in a file, with what its training needs to go on to the bit; nets from PyTorch; a net as text.

   The text of a net names its input, its layers and its loss, one after another between semicolons:

       input image 1x28x28; conv2d 8 5x5 stride 1 padding 0; relu; max_pool2d 2x2 stride 2; dense 10;
       loss softmax_cross_entropy

   White space, line breaks too, may stand around words. N is a whole number, x a decimal one (0.01, 1e-3), S a size:
   N, or height and width as NxN. In brackets what may be left out; these come in any order. Layers count from 0; there
   are at most 65536. N is at most 2^31 - 1, x has at most 19 figures. Empty items are skipped.
       input vector N    input image NxNxN (channels, height, width)    input sequence NxN (steps, features)
       dense N [no_bias] [frozen]                                       N units
       conv2d N S [stride S] [padding S] [groups N] [no_bias] [frozen]  N filters; else stride 1, padding 0, groups 1
       max_pool2d S [stride N]    avg_pool2d S [stride N]               otherwise the stride is the window
       global_avg_pool2d
       recurrent N activation [slope x] [all_states] [no_bias] [frozen]   N units
       recursive N activation [slope x] [no_bias] [frozen]                N steps
       add input    add N                                               layer N
       activation [slope x]                                             of leaky_relu and elu
       loss name [delta x]    squared_error (if there is none), softmax_cross_entropy, binary_cross_entropy, huber
                              (with its delta), poisson
   Activations: identity, relu, leaky_relu, tanh, sigmoid, softplus, elu, gelu, silu. Later versions read what earlier
   ones wrote. */

/* A net described by a text, to be added to and built as any other. NULL if there is no memory; its mistakes stick as
   those of rp_net_new do. RP_ERR_VALUE: a word or number that the grammar does not have there. RP_ERR_NULL: text.
   Otherwise as the calls for which it stands. */
RP_API rp_net *rp_net_text(const char *text, const rp_config *config);

/* The text of the net as it is described so far. Writes at most `size` bytes with the final 0 and returns the length of
   the whole text, as snprintf does; 0 if net is NULL or its input is invalid. */
RP_API size_t rp_describe(const rp_net *net, char *text, size_t size);

/* Files are in the safetensors format, with names as PyTorch has them: "0.weight" [out][in], or
   [filters][channels / groups][height][width], and "0.bias" of layer 0; "1.weight_ih" [units][features], "1.weight_hh"
   [units][units] and "1.bias" of recurrent layers. Optimizer state is in tensors "optimizer. ..." with an entry for
   each parameter, in the order of the flat arrays ("optimizer.spreads": for each layer); "fit.best" are the parameters
   that rp_fit's keep_best keeps.
   __metadata__ has the text of the net (rp.net), the version that wrote it (rp.version), the method, its clock, what
   adapts, the random state, and the place in a run of rp_fit. Little-endian on any machine, F32, or F64 with RP_DOUBLE;
   both builds read both.

   rp.format numbers the format: 2; without it, it is 1. The number rises with anything that an earlier version could
   not read as it is meant, a new rp. entry too. A version reads its own format and all before; later ones are
   RP_ERR_UNSUPPORTED, with both versions. So is an rp. entry that the format does not have: it is misspelt, and what
   it meant would be lost. Entries of other names, which other programs may add, are not looked at. Numbers stand
   without white space.

   A file is checked as a whole before anything changes: the JSON and each field of it, names that occur twice,
   lengths and shapes against each other, tensors end to end without a hole, overlap or rest, architecture and state
   against the net, every value finite (but see config.not_finite; what was F64 must be finite as rp_real). What is
   wrong is said with layer, tensor and both shapes. RP_ERR_NULL: net, path or bytes. RP_ERR_FILE: cannot be opened,
   read or written. RP_ERR_MAGIC: not a safetensors file. RP_ERR_TRUNCATED, RP_ERR_TRAILING: fewer or more bytes than it
   says. RP_ERR_VALUE: what it says is not allowed, a tensor is missing or surplus; an empty path. RP_ERR_SHAPE: it is
   of another net. RP_ERR_UNSUPPORTED: a number format that this build does not read, or as above. RP_ERR_NOT_FINITE.
   RP_ERR_OVERFLOW: shapes multiply to more than can be addressed. RP_ERR_MEMORY. */

/* rp_save: a file that was there is replaced as a whole: the new one is written beside it as `path`.tmp, flushed to
   the disk and renamed. A crash, or RP_ERR_FILE, leaves the old one. Where the path is a symbolic link, the link stays,
   and the file to which it leads is replaced, or made. One thread or process at a time saves to a path. Numbers that
   are not finite are saved as they are. RP_ERR_FILE: also what is there is a directory, device or pipe, which stays.
   RP_ERR_VALUE: the path is empty, or too long (4091 characters). RP_ERR_ORDER: the net is not built.
   RP_ERR_UNSUPPORTED: it has more than 65536 layers.
   rp_load: into a built net of the same architecture, which then goes on as the saved one would have: the same bits
   of every later step. Which layers are frozen stays as it is in the net, but parameters of frozen ones are loaded,
   too. A net for inference only takes the parameters. In a callback of rp_fit, that run keeps its place. RP_ERR_ORDER:
   the net is not built.
   rp_open: a net described as the file says; what is wrong sticks, as with rp_net_new, and NULL is no memory, too. It
   may still be frozen or given another loss; rp_net_build(net, batch, seed) then loads where it would draw, and fails
   as rp_load does if layers were changed. Keeps the file's bytes until then. */
#ifndef RP_NO_STDIO
RP_API rp_status rp_save(rp_net *net, const char *path);
RP_API rp_status rp_load(rp_net *net, const char *path);
RP_API rp_net *rp_open(const char *path, const rp_config *config);
#endif

/* The same in memory. rp_save_memory: *length is how many bytes that takes; RP_ERR_VALUE: `size` is less, and nothing
   is written (bytes NULL: RP_OK, to ask for the length); RP_ERR_NULL: length; RP_ERR_OVERFLOW: no memory is that large.
   rp_open_memory copies the bytes. */
RP_API rp_status rp_save_memory(rp_net *net, void *bytes, size_t size, size_t *length);
RP_API rp_status rp_load_memory(rp_net *net, const void *bytes, size_t size);
RP_API rp_net *rp_open_memory(const void *bytes, size_t size, const rp_config *config);

/* Parameters from any safetensors file (torch: safetensors.torch.save_file(module.state_dict(), path)) into a built
   net: F32, F64, F16 or BF16, in any order, beside other tensors, which are not looked at. `names`, between
   semicolons, says which tensor becomes what; layers that it does not name stay as they are:

       0 weight = features.0.weight; 0 bias = features.0.bias; 2 = classifier; 4 bias = rnn.bias_ih_l0 + rnn.bias_hh_l0

   "layer parameter = tensor", where the parameter is weight, weight_ih, weight_hh or bias, and two tensors joined by +
   are added up. "layer = module" is short for all of them: weight = module.weight, bias = module.bias; of a recurrent
   layer weight_ih = module.weight_ih_l0, weight_hh = module.weight_hh_l0, bias = module.bias_ih_l0 +
   module.bias_hh_l0. Of what is named twice, the last counts. A tensor's name has at most 159 characters, and no white
   space, ; or =. NULL fits nn.Sequential: the layers with parameters, in their order, are the modules 0, 1, ... that
   have a weight.
   Frozen layers take parameters, too. Optimizer state begins anew, averages as the parameters. Fails as rp_load does
   and leaves the net as it was. RP_ERR_VALUE: also a mistake in names; a layer that is not there, or has no such
   parameter; a tensor that is not there. RP_ERR_SHAPE: also a module with a bias for a layer without.
   RP_ERR_UNSUPPORTED: also a recurrent module with more than one layer or direction, or a projection; any tensor of a
   type that the format did not have. */
#ifndef RP_NO_STDIO
RP_API rp_status rp_import(rp_net *net, const char *path, const char *names);
#endif
RP_API rp_status rp_import_memory(rp_net *net, const void *bytes, size_t size, const char *names);

/* >>pieces
   A step in pieces: between them the caller may look at the arrays, average them over machines, change them, or
   choose the length of the step. By an optimizer whose rate is its length these are the steps of rp_train, to the bit;
   where the length is found or computed, loss and derivatives pass through rp_real on the way, so that steps may differ
   in the last bits, and none is undone. All flat arrays have rp_parameter_count entries, layer after layer: weights
   row-major [out][in] (conv2d: [out][in][height][width]; recurrent: W [units][features], then U [units][units]), then
   biases [out]. They belong to the net and live as long as it does. */

RP_API size_t rp_parameter_count(const rp_net *net); /* 0 before the build */
RP_API rp_real *rp_parameters(rp_net *net); /* may be written at any time between calls. NULL before the build */
RP_API rp_real *rp_gradient(rp_net *net);  /* what the last rp_backward left; may be written. NULL for inference only */
RP_API rp_real *rp_curvature(rp_net *net); /* the same; >= 0 */
RP_API rp_real *rp_step_array(rp_net *net); /* what the last rp_direction left; may be written */
RP_API int rp_inputs(const rp_net *net);    /* numbers of a sample's inputs and outputs, as described so far */
RP_API int rp_outputs(const rp_net *net);

/* Everything that distinguishes a layer from another. What its kind does not have is 0. */
typedef struct rp_layer {
    const char *kind; /* "dense", "relu", ...; static */
    rp_shape in, out;
    size_t weights, weight_count, biases, bias_count; /* offsets into the flat arrays, once built, and sizes */
    int frozen;
    rp_activation_kind activation; /* of an activation, recurrent or recursive layer */
    rp_real slope;                 /* of a leaky ReLU or ELU */
    rp_conv2d_desc window;         /* of conv2d and, without filters and groups, of pools */
    int units, steps, all_states;  /* dense: units; recurrent, recursive: all three */
    int source;                    /* add: the layer, or RP_INPUT */
} rp_layer;
RP_API int rp_layer_count(const rp_net *net);
RP_API rp_status rp_layer_info(rp_net *net, int layer, rp_layer *info); /* RP_ERR_VALUE: no such layer */

/* Forward and backward over one batch: fills the flat gradient and, unless `rule` is NULL, the flat curvature. Fails
   as rp_train does; the arrays are then as they were. */
RP_API rp_status rp_backward(rp_net *net, const rp_data *batch, const rp_rule *rule, rp_real *loss);

/* One optimizer step from the flat arrays: rp_direction, then rp_move(net, 1). RP_ERR_NOT_FINITE: the arrays hold
   something that is not finite. RP_ERR_ORDER: nothing filled the gradient, or, where it is read (rp_measures), the
   curvature, since the build; for rp_per_variable the curvature array must hold the Hessian's diagonal
   (rp_hessian_diagonal).
   RP_ERR_UNSUPPORTED: the length of the step must be computed from a batch (cubic_sigma): do it by rp_direction,
   rp_directional, rp_cubic_length and rp_move; or found from one (partitioning without a rate): rp_direction,
   rp_gauss_newton_directional, rp_step_length and rp_move; or the step itself must (rp_newton): rp_hessian_solve.
   rp_direction: the whole step, with sign and rate, into rp_step_array; counts as a step of the optimizer. rp_move:
   adds alpha times that step to the parameters; one whose new value would not be finite stays as it is. */
RP_API rp_status rp_update(rp_net *net, const rp_optimizer *optimizer);
RP_API rp_status rp_direction(rp_net *net, const rp_optimizer *optimizer);
RP_API rp_status rp_move(rp_net *net, rp_real alpha);

/* 1 if the next rp_direction will read the curvature array; for partitioning rp_backward needs a rule then. Without a
   rate it does so where it measures, where its length, too, is to be found from rp_gauss_newton_directional. 0: it will
   not, or an argument is NULL, or optimizer.method is none. */
RP_API int rp_measures(const rp_net *net, const rp_optimizer *optimizer);

/* What the batch would lose, as rp_backward's loss: at least, whatever the net (0 with labels), and with outputs of 0.
   Either may be NULL. Inputs are not looked at, and rp_output is NULL after it. RP_ERR_NOT_FINITE: one of the two is
   not. RP_ERR_ORDER, RP_ERR_UNSUPPORTED, and what is wrong with a batch: as rp_backward. */
RP_API rp_status rp_loss_limits(rp_net *net, const rp_data *batch, rp_real *least, rp_real *at_zero);

/* The length of a step of partitioning without a rate, for the direction that rp_direction has left: loss, at_zero
   (both less the least of rp_loss_limits for the batch last measured) and second are those of rp_backward,
   rp_loss_limits and rp_gauss_newton_directional, or their means over the machines that share the batch of so many
   samples. at_zero <= 0: not known. second < 0: not measured at this step (rp_measures): the last length, whatever
   at_zero. *alpha is for rp_move. Call it exactly once for each rp_direction. RP_ERR_ORDER: no rp_direction by this optimizer went before, no earlier step was measured, or
   averages are in place. RP_ERR_UNSUPPORTED: an optimizer with a rate, or another method. RP_ERR_VALUE: samples, or a
   field. RP_ERR_NOT_FINITE: loss, at_zero or second. */
RP_API rp_status rp_step_length(rp_net *net, const rp_optimizer *optimizer, int samples, rp_real loss, rp_real at_zero,
                                rp_real second, rp_real *alpha);

/* The caller's own loss: forward; read rp_output ([count][outputs]); give back, for each sample and output, the
   derivative of that sample's loss and, or NULL, its second derivative (>= 0; a bound on the Hessian's diagonal).
   Fills the gradient and, with a second derivative, the curvature by `rule` (NULL: all zero). RP_ERR_UNSUPPORTED: a
   net for inference only; it has rp_predict. RP_ERR_ORDER: no rp_forward went before, or another call (also an
   earlier rp_backward_from) has used the net since. RP_ERR_NOT_FINITE: a derivative, or what comes of it.
   RP_ERR_VALUE: a second derivative is below 0 or not finite. */
RP_API rp_status rp_forward(rp_net *net, const rp_real *x, int count);
RP_API const rp_real *rp_output(const rp_net *net); /* NULL unless rp_forward was the last call that used the net */
RP_API rp_status rp_backward_from(rp_net *net, const rp_real *output_gradient, const rp_real *output_curvature,
                                  const rp_rule *rule);

/* A new net with the same layers, loss, parameters and frozen layers, for batches of up to `batch` samples (0: as
   many as the net's). `config` NULL: the net's own. Unless it is for inference only, optimizer state, too: training
   goes on from there. NULL if the net is not built or there is no memory (rp_error(net) says so); any other mistake
   sticks to the new net, which is then not built. Its flat gradient, curvature and step are not copied. */
RP_API rp_net *rp_clone(rp_net *net, const rp_config *config, int batch);

/* As if built anew: draws the parameters, forgets optimizer state, epochs, steps and what filled the flat arrays.
   What is frozen stays so. */
RP_API rp_status rp_reset(rp_net *net, uint64_t seed);

/* A table of the net (layers, shapes, parameters, bytes) as text. Writes at most `size` bytes with the final 0 and
   returns the length of the whole text, as snprintf does; 0 if net is NULL. At any time. */
RP_API size_t rp_summary(const rp_net *net, char *text, size_t size);

/* >>curvature
   Exact derivatives of the mean loss of a batch, for any net. H is its Hessian by the parameters, G the Gauss-Newton
   matrix (H without the second derivatives of the net itself: never indefinite). Weight decay is left out. Frozen
   layers count as constants: their entries are 0 in what comes out and are not looked at in what goes in. At a kink
   (ReLU, max pool, Huber) the second derivative is that of the side on which the batch is.

   Vectors have rp_parameter_count entries, in the order of the flat arrays. A vector may be one of these; otherwise
   they stay untouched, as do parameters and optimizer state. What comes out is written only on success, but where the
   function says otherwise. Batches are checked as by rp_train; RP_ERR_NOT_FINITE: a vector that goes in, the loss or
   the result is not finite. Numbers behind "cost" are times of a gradient (rp_backward without a rule), as
   bench/curvature.c measures them. The products need one more number for each unit and sample; the first of them
   allocates these (RP_ERR_MEMORY), and the net keeps them. */

/* *first = g'grad f, *second = g'Hg for a direction g, by one forward sweep of second-order jets. Each may be NULL.
   Cost 1 to 1.6. */
RP_API rp_status rp_directional(rp_net *net, const rp_data *batch, const rp_real *direction, rp_real *first,
                                rp_real *second);

/* *second = g'Gg, by one forward sweep of first-order jets. */
RP_API rp_status rp_gauss_newton_directional(rp_net *net, const rp_data *batch, const rp_real *direction,
                                             rp_real *second);

/* The alpha >= 0 that minimises alpha first + alpha^2 second / 2 + sigma (alpha norm)^3 / 6, where norm is |g|_2 (the
   caller's to compute; Low-Rank Structure, Equation 37, without its cancellation). 0 if first >= 0, or if an argument
   is not finite or there is no minimum (sigma or norm 0, second <= 0). */
RP_API double rp_cubic_length(double first, double second, double norm, double sigma);

/* out = H v (forward over backward: Pearlmutter; Conjugate's exact Hessian), out = G v. out may be v. Cost 1.8 to
   2.8, and 1.3 to 2.1. */
RP_API rp_status rp_hessian_vector(rp_net *net, const rp_data *batch, const rp_real *v, rp_real *out);
RP_API rp_status rp_gauss_newton_vector(rp_net *net, const rp_data *batch, const rp_real *v, rp_real *out);

/* H as a matrix [parameters][parameters], symmetric to the bit, by a product for each parameter. RP_ERR_VALUE: the
   net has more than `most` parameters. If one of the products is not finite, `out` holds those before it. */
RP_API rp_status rp_hessian_matrix(rp_net *net, const rp_data *batch, size_t most, rp_real *out);

/* out = the diagonal of H, of either sign. In a stack of dense layers and activations by a recursion over each
   sample's own Hessian by the units of a layer: 2 width^3 multiply-adds for each layer and sample, and three matrices
   of [width][width]. Elsewhere by a product for each parameter: for small nets. */
RP_API rp_status rp_hessian_diagonal(rp_net *net, const rp_data *batch, rp_real *out);

/* out = the diagonal of G, >= 0, through a factor of the loss's Hessian: a backward sweep and a product of squares
   for each output. */
RP_API rp_status rp_gauss_newton_diagonal(rp_net *net, const rp_data *batch, rp_real *out);

/* The gradient of each sample's own loss (times its weight; the mean of these is the gradient).
   norms[s] = |gradient of sample s|_2, without forming it: |d|^2 (|y|^2 + 1) in a dense layer. Cost 0.5 to 1.3. */
RP_API rp_status rp_sample_gradient_norms(rp_net *net, const rp_data *batch, rp_real *norms);

/* Its factors: d, the derivative by the values before the layer's activation, and y, what the layer reads. In a dense
   layer the gradient of W is the outer product d y', that of b is d; other layers sum over positions: d is
   [filters][height][width] and y [channels][height][width] (conv2d), d [steps][units] and y [steps][features] with
   states [steps][units], those before each step (recurrent: d y' for W and d states' for U; recursive: d states', y
   is NULL). The arrays live until the callback returns. It returns 0, or anything else to stop with RP_ERR_STOPPED,
   and may not use the net (RP_ERR_ORDER), but for rp_predict_with. Called for each sample and for each layer that is
   trained. */
typedef struct rp_sample_factors {
    int sample, layer;
    const rp_real *d, *y, *states; /* states: NULL unless recurrent or recursive */
} rp_sample_factors;
typedef int (*rp_each_sample)(void *user, const rp_sample_factors *factors);
RP_API rp_status rp_sample_gradients(rp_net *net, const rp_data *batch, rp_each_sample each, void *user);

/* How much the samples' gradients g_s differ from their mean g (S samples, at least 2: RP_ERR_VALUE). The noise scale
   is about the largest batch that still speeds training up (McCandlish et al., An Empirical Model of Large-Batch
   Training). `variance` (NULL: not wanted): of each parameter's derivative over the samples, sum (g_s - g)^2 / (S -
   1), to rounding of the mean of g_s^2. Cost 0.9 to 1.7, with `variance` 1.6 to 2.7. */
typedef struct rp_noise {
    rp_real gradient; /* |g|^2 */
    rp_real variance; /* sum over the parameters of the variance over the samples */
    rp_real signal;   /* |g|^2 - variance / S: unbiased estimate for the true gradient; may be below 0 */
    rp_real scale;    /* variance / signal; 0 if signal <= 0: this batch cannot tell */
} rp_noise;
RP_API rp_status rp_gradient_noise(rp_net *net, const rp_data *batch, rp_noise *noise, rp_real *variance);

/* Solves (H + damping I) x = b. x may be b. H may be indefinite.
   RP_SOLVE_AUTO: the one that takes the fewest operations, iterations counted to their limit, without those whose
   matrices would take more than a GiB. If iterations do not get there, then the better of the others, unless it would
   take 100 times as long.
   RP_SOLVE_ITERATIVE: MINRES: a product for each iteration; 10 vectors.
   RP_SOLVE_DIRECT: stacks of dense layers and activations: the parameters are eliminated by hand (Conjugate), which
   leaves a block-tridiagonal system in the samples' units. 8 (S width)^3 operations and 6 (S width)^2 numbers for
   each layer, however many parameters. Needs damping > 0.
   RP_SOLVE_DENSE: H as a matrix: 2/3 parameters^3 operations. */
typedef enum rp_solve_method { RP_SOLVE_AUTO, RP_SOLVE_ITERATIVE, RP_SOLVE_DIRECT, RP_SOLVE_DENSE } rp_solve_method;
typedef struct rp_solve_options { /* all zero is the default */
    rp_solve_method method;
    int gauss_newton;  /* 1: G in the place of H */
    rp_real damping;   /* >= 0 */
    rp_real tolerance; /* of |b - (H + damping I) x| / |b|, < 1; 0: 1e-4, with RP_DOUBLE 1e-9 */
    int iterations;    /* most of MINRES; 0: 1000 */
    /* Iterative, an estimate; anything but 0 stops: RP_ERR_STOPPED. See >>threads for what it may do. */
    int (*progress)(void *user, int iteration, rp_real residual);
    void *user;
} rp_solve_options;
typedef struct rp_solve_report {
    rp_solve_method method; /* that was used */
    rp_real residual;       /* |b - (H + damping I) x| / |b|, computed, not estimated */
    int products;           /* with H or G, in all */
    int refinements;        /* times that a solution was improved by solving for its residual */
    int negative_curvature; /* iterative: 1: a direction with v'(H + damping I)v <= 0 was met, 0: none; others: -1 */
} rp_solve_report;
/* `options` and `report` may be NULL. The residual is always computed, with exact products, and lowered by refinement
   where that helps. If it stays above the tolerance (the limit of iterations, or a damping too small for this
   precision) the status is RP_ERR_NOT_CONVERGED, x is the best that was found, also after RP_ERR_STOPPED, and the
   report says how good it is.
   RP_ERR_UNSUPPORTED: the direct method on another net. RP_ERR_MEMORY. Allocates, and frees, its vectors and
   matrices. */
RP_API rp_status rp_hessian_solve(rp_net *net, const rp_data *batch, const rp_real *b, rp_real *x,
                                  const rp_solve_options *options, rp_solve_report *report);

/* >>threads
   Nets share nothing: two threads may use two nets at once. One net may serve several threads that predict, each with
   its own workspace, as long as no thread trains it, writes to it or frees it. The threads of config.threads belong
   to the process that built the net; in a child of fork the caller works alone, to the same bits.

   Callbacks. Those of rp_fit, and the fill of a stream, run between steps and may use the net. Those of
   rp_sample_gradients and rp_hessian_solve run in the midst of a computation and may not (RP_ERR_ORDER), but for
   rp_predict_with. None may free the net, nor leave by longjmp or by a C++ exception. */

typedef struct rp_workspace rp_workspace;
/* NULL: the net is not built, batch < 1, or no memory. */
RP_API rp_workspace *rp_workspace_new(const rp_net *net, int batch);
RP_API void rp_workspace_free(rp_workspace *workspace); /* before its net; NULL is allowed */
/* As rp_predict; leaves rp_error alone. RP_ERR_VALUE: also a workspace of another net. */
RP_API rp_status rp_predict_with(const rp_net *net, rp_workspace *workspace, const rp_real *x, int count, rp_real *out);

/* "portable", ...: the kernels that this net runs on; "" before the build */
RP_API const char *rp_isa(const rp_net *net);
RP_API size_t rp_memory(const rp_net *net);       /* bytes that the net has allocated */
RP_API size_t rp_state_memory(const rp_net *net); /* of them, optimizer state */

#endif /* RP_H */

#if defined(RP_IMPLEMENTATION) && !defined(__cplusplus) && !defined(_MSC_VER) && \
    (!defined(__STDC_VERSION__) || __STDC_VERSION__ < 199901L)
#error "rp.h: the implementation needs C99 or C++11"
#elif defined(RP_IMPLEMENTATION) && !defined(RPI_IMPLEMENTED)
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
#include <errno.h>
#include <stdio.h>
#if defined(_WIN32)
#include <io.h>
#include <sys/stat.h>
RP_EXTERN __declspec(dllimport) int __stdcall MoveFileExA(const char *from, const char *to, unsigned long flags);
#elif defined(__unix__) || defined(__APPLE__) || defined(__wasi__)
#include <sys/stat.h>
#include <unistd.h>
#define RPI_POSIX
#if !defined(__cplusplus) /* which -std=c99 hides */
int(fileno)(FILE *file);
ssize_t(readlink)(const char *path, char *to, size_t size);
#endif
#endif
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
#define RPI_FETCH(p) __builtin_prefetch(p, 1) /* will be written */
#if !defined(RP_NO_SIMD) && !defined(RP_DOUBLE) && (defined(__x86_64__) || defined(__i386__))
#define RPI_X86
#include <immintrin.h>
#if defined(__x86_64__) && defined(__linux__) && !defined(__ILP32__)
#if (defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && __GNUC__ >= 11)
#define RPI_AMX
#endif
#endif
#elif !defined(RP_NO_SIMD) && !defined(RP_DOUBLE) && defined(__aarch64__)
#define RPI_NEON
#include <arm_neon.h>
#endif
#else
#define RPI_INLINE static inline
#define RPI_FETCH(p) ((void)(p))
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

#if defined(RP_STATIC) || defined(_MSC_VER)
#elif defined(RP_DOUBLE)
const char rp_reals_are_double = 1;
#else
const char rp_reals_are_float = 1;
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

/* One block holds many arrays. The function that lays it out runs twice: first with base NULL, to add up sizes, then
   to hand out pointers. Under AddressSanitizer the gaps between the arrays are poisoned, so that an overrun shows. */
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

/* A small printf, since there may be no <stdio.h>: %s, %d int, %z size_t, %l int64_t, %g double. Returns the length
   of the whole text; writes at most `size` bytes, the last one 0. */
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
    rpi_put_unsigned(text, x < 0 ? 0 - (uint64_t)x : (uint64_t)x);
}

/* digits * 10^(exponent - 5), with six digits; or 0 and 0. */
typedef struct rpi_decimal {
    uint64_t digits;
    int exponent;
} rpi_decimal;

static rpi_decimal rpi_to_decimal(double x) { /* finite, x >= 0 */
    rpi_decimal decimal = {0, 0};
    if (x > 0) {
        int exponent = (int)floor(log10(x));
        decimal.exponent = exponent;
        if (exponent < -300) x = x * 1e300 * pow(10, -exponent - 295); /* one factor would overflow */
        else x *= pow(10, 5 - exponent);
    }
    decimal.digits = (uint64_t)(x + 0.5);
    if (decimal.digits >= 1000000) { /* rounded up to the next power of ten */
        decimal.digits /= 10;
        decimal.exponent++;
    }
    if (decimal.digits && decimal.digits < 100000) { /* log10 was rounded up */
        decimal.digits *= 10;
        decimal.exponent--;
    }
    return decimal;
}

/* As %g: 0.00012, 1.5 or 1e6, without zeros at the end. */
static void rpi_put_decimal(rpi_text *text, rpi_decimal decimal) {
    char digits[6];
    int scientific = decimal.exponent >= 6 || decimal.exponent < -4;
    int whole = scientific ? 1 : decimal.exponent + 1; /* digits before the point */
    int count = 6;
    for (int i = 5; i >= 0; i--) {
        digits[i] = (char)('0' + decimal.digits % 10);
        decimal.digits /= 10;
    }
    while (count > 0 && digits[count - 1] == '0') count--;
    if (whole <= 0) rpi_put_string(text, "0.");
    for (int i = whole; i < 0; i++) rpi_put(text, '0');
    for (int i = 0; i < count || i < whole; i++) {
        if (whole > 0 && i == whole) rpi_put(text, '.');
        rpi_put(text, digits[i]);
    }
    if (scientific) {
        rpi_put(text, 'e');
        rpi_put_signed(text, decimal.exponent);
    }
}

static void rpi_put_double(rpi_text *text, double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (!rpi_finite_double(x) && bits << 12) {
        rpi_put_string(text, "nan");
        return;
    }
    if (x < 0) {
        rpi_put(text, '-');
        x = -x;
    }
    if (rpi_finite_double(x)) rpi_put_decimal(text, rpi_to_decimal(x));
    else rpi_put_string(text, "inf");
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
/* In [0, 1) */
static double rpi_uniform(uint64_t *state) { return (double)(rpi_random(state) >> 11) * (1.0 / 9007199254740992.0); }

/* The i-th element of a random permutation of 0..count-1: a Feistel network of four rounds over the next even number
   of bits, walked until it lands below count. No memory, any order of access. */
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
   What is written once per instruction set; only pointers and sizes cross. A value of the net is a matrix
   [features][ld]: a row per feature, the batch along it, so that weights are broadcast against vectors of samples and
   never packed. ld is an odd number of cache lines, so that rows do not fall on each other in the cache. Columns from
   the batch's size on repeat the last sample in values and are zero in derivatives. Where the contract says
   `columns`, n is a multiple of the vector length, and a row is read and written in whole vectors of them. Elsewhere
   n is any number, and nothing beyond the n-th entry is read or written. No array needs to be aligned. What is
   written overlaps nothing that is read unless the contract says so. (Few samples are vectors of features, each by
   itself: see rpi_singly.) */
#define RPI_K_BLOCK 256        /* inner dimension of a product's block: so many rows of B, one panel wide, stay in L1 */
#define RPI_M_BLOCK 96         /* rows of A in a block: its magnitudes are packed and stay in L2 */
#define RPI_PANEL 64           /* columns of a gradient's panel: at least the widest tile's */
#define RPI_WEIGHTS 64         /* filters, and taps, of a block of shared weights whose sums stay in L2 */
#define RPI_L2_REALS (1 << 17) /* of the rows of a block of filters, and of pointers to those of its taps */
#define RPI_POSITIONS 128      /* times RPI_LANES_MOST samples: a tap's rows of them are met at a time and stay in L1 */
#define RPI_WINDOWS 64         /* positions of one sample whose windows are laid out at a time: they stay in L1 */
#define RPI_ROUGH_STEP 32      /* terms of a rough product that are added at a time, and rows and columns of a block */
#define RPI_ROUGH_TERMS 512    /* most terms of a rough block */
#define RPI_ROUGH_ROWS 64      /* rows of A in a block of so many terms: its halves stay in L2 */
#define RPI_FILTERS 8          /* that share a transposed row of shared weights, at least (measured) */
#define RPI_FEW 4              /* sides of a gradient that are worth no panel, mostly padding (measured) */
#define RPI_ROWS_MOST 8        /* most rows of a tile in registers, of any instruction set */

static int rpi_at_most(int count, int most) { return count < most ? count : most; }
static int rpi_at_least(int count, int least) { return count > least ? count : least; }
static ptrdiff_t rpi_larger(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }

/* C = bias + A B (bias[i] in row i), and C2 = column + |A| B2 (column[s] in column s) in the same pass over A.
   A[i][p] = a[i * a_row + p * a_column], where a_row or a_column is 1; B is [k][ldb], C is [m][ldc]. */
typedef struct rpi_product {
    int m, n, k; /* n: columns of B and C */
    const rp_real *a;
    ptrdiff_t a_row, a_column;
    const rp_real *b, *b2; /* b NULL: only the second product; b2 NULL: only the first */
    rp_real *c, *c2;
    ptrdiff_t ldb, ldc;
    const rp_real *bias, *column; /* NULL: 0 */
    int add;                      /* C += A B, C2 += |A| B2 instead; bias and column are not looked at */
    int rough;                    /* the errors of RP_ISA_AMX are allowed; b2 is >= 0 */
    rp_real *packed;              /* scratch: RPI_M_BLOCK * RPI_K_BLOCK, for |A|; if rough, of rpi_packed_size */
} rpi_product;

/* C = start + A B: A[i][p] = a[i * a_row + p * a_column], row p of B is at b + p * ldb; where the inner index
   wanders, they are at a[i * a_row + a_at[p]] and b + b_at[p]. start: NULL for 0, one value for each row, or rows
   start_row apart; if it is C, A B is added to C. */
typedef struct rpi_gemm {
    int m, n, k;                  /* n: columns of B, C and, unless per_row, start */
    const rp_real *a, *b, *start; /* b may be NULL if k is 0 */
    rp_real *c;
    const ptrdiff_t *a_at, *b_at; /* both NULL: a_column and ldb count */
    ptrdiff_t a_row, a_column, ldb, ldc, start_row;
    int per_row; /* start: one value for each row */
} rpi_gemm;

/* Each sample's sums over positions t: z_ij[s] = sum_t d_i,t[s] y_j,t[s]; row i of d is at d + i * d_row + t * d_step,
   row j of y at y[t * RPI_TAPS_MOST + j]; |y| with magnitudes. They are added up over the samples, lane by lane:
   sums[(i * sums_row + j) * lanes + s % lanes] += z_ij[s], or with a weight weight[s] f(z_ij[s]), where f is the
   magnitude or the square; or, in the place of that, for each sample: total[s] += sum_ij f(z_ij[s]). From column
   `from` on n columns, of which d is 0 beyond the samples. */
typedef struct rpi_correlation {
    int m, taps, positions, from, n; /* at most RPI_TAPS_MOST taps; y has rows for RPI_TAPS_MOST */
    int magnitudes, squares;
    const rp_real *d;
    ptrdiff_t d_row, d_step, sums_row;
    const rp_real *const *y;
    const rp_real *weight;
    rp_real *sums, *total;
} rpi_correlation;
#define RPI_TAPS_MOST 4
#define RPI_LANES_MOST 16

/* A pool's window of k rows at x + at[j], of n columns. In a max pool the largest's place (the first of equals)
   decides for each column which row of `in` (rows at in + at[j]) goes to `out`, or to which row of d_in (at d_in +
   at[j]) d is added; with `alone` these rows are no other window's, and are set. */
typedef struct rpi_window {
    int k, n, alone;
    const ptrdiff_t *at;
    const rp_real *x;
} rpi_window;

/* A finished piece of gradient (times scale) and curvature (times scale2; each may be NULL): `rows` rows, ld apart,
   of n parameters from `offset` on, stride apart. Without a curvature scale2 is as in rpi_update_call. */
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
    rp_real *parameters, *gradient, *curvature, *first, *second, *averages; /* flat */
    const struct rpi_update *update;
    rp_real descent; /* unless it is 0, all that is done is parameters += descent * gradient, where that is finite */
};

/* gradient[i][j] = scale sum_s d[i][s] y[j][s], curvature[i][j] = scale2 sum_s v[i][s] |y[j][s]| into the sink, at
   weights + i * n + j; then, with `bias`, the sums for y = 1 at biases + i. d or v may be NULL. Of d, v and y only
   `count` samples are read. */
typedef struct rpi_outer {
    int m, n, count, from, end; /* columns from..end - 1; from is a multiple of RPI_PANEL */
    int squares;                /* y^2 in the place of |y| */
    const rp_real *d, *v, *y;
    ptrdiff_t ld;
    rp_real scale, scale2;
    ptrdiff_t weights, biases;
    int bias;
    int rough;       /* as in rpi_product: v is >= 0 */
    rp_real *panel;  /* scratch: 2 * count * RPI_PANEL */
    rp_real *tile;   /* scratch: 2 * RPI_ROWS_MOST * RPI_PANEL */
    rp_real *packed; /* scratch, if rough */
    const rpi_sink *sink;
} rpi_outer;

/* An activation over n columns of [rows][ld], in place: y holds z and becomes sigma(z); slope (unless NULL) receives
   sigma'(z), second (unless NULL) sigma''(z). With u: second = sigma''(z) u, u = |sigma'(z)| u. The identity leaves
   all as it is. *bad (unless NULL) becomes 1 if a z is not finite: seen here, by its bits, since an activation may
   hide it. */
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

/* A loss over [outputs][ld]: d holds the targets t and becomes the derivative; h (unless NULL) receives the second
   derivative (softmax: sum(t) p, whose sum over the outputs is sum(t); Huber: unless `exact`, that of the least
   parabola above it); loss[s] receives the sample's loss. y, d and h are read and written in as many columns as hold
   `count` samples, loss in count. */
typedef struct rpi_loss_call {
    int outputs, count, exact;
    ptrdiff_t ld;
    rp_real delta;
    const rp_real *y;
    rp_real *d, *h;
    double *loss;
} rpi_loss_call;

enum { RPI_PACED = RP_NEWTON + 1 }; /* residual partitioning that finds its own rate: a method of its own in here */

/* One step of an optimizer with its constants worked out; the formulas are at rp_optimizer. */
typedef struct rpi_update {
    int method; /* an rp_method, or RPI_PACED */
    rp_real rate, weight_decay, shrink, momentum, average, damping, beta1, beta2, rho, epsilon, sigma;
    rp_real correct1, correct2; /* 1 / (1 - beta^t): bias correction */
    rp_real fold;               /* averages += fold (w - averages), w before the step */
    int nesterov;
} rpi_update;

/* That step of `rows` rows of n parameters w, `stride` apart, from gradient scale g, rows g_row apart, and curvature
   scale2 h (NULL if the method needs none; RPI_PACED: then it is scale2 times the gradient's size), rows h_row apart,
   with the method's memory (each NULL where it has none): into `to` (0 where it is not finite), or, if that is NULL,
   taken where the result is finite. */
typedef struct rpi_update_call {
    int rows, n;
    ptrdiff_t stride, g_row, h_row;
    rp_real scale, scale2;
    const rp_real *g, *h;
    rp_real *w, *first, *second, *averages, *to;
} rpi_update_call;

typedef struct rpi_kernels {
    const char *name;
    int lanes;
    int rows;       /* of a tile: the grain in which rows are split */
    int rough_rows; /* the same of rough products, which have at least so many rows, columns and terms; 0: none are */

    void (*gemm)(const rpi_gemm *gemm);
    void (*product)(const rpi_product *product);
    /* the same of one column: b, b2, c and c2 are contiguous, and m and k any numbers. b2 may be b */
    void (*matrix_vector)(const rpi_product *product);
    void (*outer)(const rpi_outer *outer);
    void (*correlate)(const rpi_correlation *correlation);

    /* out[s] = sum of the window's |x|; n columns of x and out */
    void (*window_magnitudes)(const rpi_window *window, rp_real *out);
    void (*select)(const rpi_window *window, const rp_real *in, rp_real *out);
    void (*select_back)(const rpi_window *window, const rp_real *d, rp_real *d_in);

    /* out[i * out_row + j * out_step] = in[i * in_row + j * in_step] for i < rows, j < n, which is any number; or, with
       `add`, added to it */
    void (*move_rows)(int rows, int n, const rp_real *in, ptrdiff_t in_row, ptrdiff_t in_step, rp_real *out,
                      ptrdiff_t out_row, ptrdiff_t out_step, int add);

    /* Of n columns of [rows][ld]. out += scale in; ldi may be 0, and in may be out */
    void (*add_rows)(int rows, int n, rp_real scale, const rp_real *in, ptrdiff_t ldi, rp_real *out, ptrdiff_t ldo);
    /* out[s] = sum_i |in[i][s]|, or of the squares; ld may be 0 */
    void (*column_sums)(int rows, int n, const rp_real *in, ptrdiff_t ld, rp_real *out, int squares);
    /* x[i][s] = factor[i * stride + s] x[i][s], or, if magnitudes, with |x[i][s]|, and 0 where products with it might
       be subnormal; factor may be x */
    void (*weigh)(int rows, int n, rp_real *x, ptrdiff_t ld, const rp_real *factor, ptrdiff_t stride, int magnitudes);
    /* e = sqrt(h) or -sqrt(h), at random; e may be h */
    void (*signs)(int rows, int n, const rp_real *h, rp_real *e, ptrdiff_t ld, uint64_t *random);
    /* the largest |x| as bits: RPI_EXPONENT or more if not finite */
    rpi_int (*peak)(int rows, int n, const rp_real *in, ptrdiff_t ld);

    /* out[columns][ldo] = in[rows][ldi] transposed; columns of out from `rows` to `n` repeat the last. All are any
       numbers */
    void (*transpose)(const rp_real *in, ptrdiff_t ldi, int rows, int columns, rp_real *out, ptrdiff_t ldo, int n);

    void (*activate)(const rpi_activate *activate);
    /* from slope and second, in place; see rpi_flow */
    void (*activate_back)(const rpi_activate *activate, rp_real *d, rp_real *v, rpi_flow flow);
    /* a derivative t of z along a direction becomes that of sigma(z): t = slope t; before: half the second derivative
       t2 = slope t2 + second t^2 / 2, or bend = second t. t2 and bend may be NULL, and second where it is always 0 */
    void (*activate_tangent)(const rpi_activate *activate, rp_real *t, rp_real *t2, rp_real *bend);
    void (*loss[RP_POISSON + 1])(const rpi_loss_call *call); /* one for each rp_loss_kind */

    /* Of n entries, any number */
    void (*update)(const rpi_update *update, const rpi_update_call *call);
    /* w += alpha step, where the result is finite */
    void (*move)(int n, rp_real alpha, const rp_real *step, rp_real *w);
    double (*dot)(ptrdiff_t n, const rp_real *a, const rp_real *b);
    double (*dot_sizes)(ptrdiff_t n, const rp_real *a, const rp_real *b); /* of |a| and |b| */
    /* y = a f x + b y; f NULL: 1; b 0: y is not read. x or f may be y */
    void (*blend)(ptrdiff_t n, rp_real a, const rp_real *x, const rp_real *f, rp_real b, rp_real *y);
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

#ifdef RPI_AMX
static void rpi_amx_product(const rpi_product *q);
static void rpi_amx_outer(const rpi_outer *o);
#endif

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

#ifdef RPI_AMX
/* >>amx
   Rough products, by the tiles of AMX. A tile holds 16 rows of 16 units, a unit being two numbers in bfloat16; one
   instruction adds to a tile of 16 x 16 floats the product of 16 rows of A and 16 columns of B, 32 terms long. A number
   is split into halves, x = high + low but for 2^-16 |x|, and high high + high low + low high are added up. Magnitudes,
   whose sums cancel nothing, are their high halves alone: within 2^-8. Which sums share a tile changes none of them, so
   rows may be split anywhere. Not a number stays so; what is infinite, or rounds to it, becomes so. Tiles are set up
   and released within each kernel, in the thread that runs it: nothing is left to the caller or to save for it. */
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,amx-tile,amx-bf16,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,amx-tile,amx-bf16,avx2,fma")
#endif
enum { RPI_TILE = 16, RPI_TILE_REALS = RPI_TILE * RPI_TILE }; /* units are as large as reals */

/* Rows of A or columns of B: entry p of line i is from[i * stride + p], or, if the lines lie across,
   from[p * stride + i]. Packed: [lines / 16][k / 32][halves][16][16], where lines or entries beyond the last are 0. */
typedef struct rpi_lines {
    const rp_real *from;
    ptrdiff_t stride;
    int count, k, across, halves;
} rpi_lines;

static ptrdiff_t rpi_line_reals(const rpi_lines *x) { /* of a tile's packed lines */
    return (x->k + RPI_ROUGH_STEP - 1) / RPI_ROUGH_STEP * (ptrdiff_t)x->halves * RPI_TILE_REALS;
}

/* Units of the upper halves of first and second. */
RPI_INLINE __m512i rpi_units(__m512i first, __m512i second) {
    const __m512i upper = _mm512_set1_epi32(-0x10000);
    return _mm512_maskz_srli_epi32(0xFFFF, first, 16) | (second & upper); /* unmasked, GCC 12 warns of its own header */
}

/* High halves are rounded, low ones cut off, by which not a number stays so. */
RPI_INLINE void rpi_split(__m512 first, __m512 second, const rpi_lines *x, rp_real *to) {
    const __m512i half = _mm512_set1_epi32(0x8000), upper = _mm512_set1_epi32(-0x10000);
    const __m512i high = _mm512_add_epi32((__m512i)first, half), high2 = _mm512_add_epi32((__m512i)second, half);
    __m512i units = rpi_units(high, high2);
    if (x->halves == 1) units &= _mm512_set1_epi32(0x7FFF7FFF);
    _mm512_storeu_ps(to, (__m512)units);
    if (x->halves == 1) return;
    first -= (__m512)(high & upper);
    second -= (__m512)(high2 & upper);
    _mm512_storeu_ps(to + RPI_TILE_REALS, (__m512)rpi_units((__m512i)first, (__m512i)second));
}

/* The part of `left` that a vector holds, as a mask. */
RPI_INLINE __mmask16 rpi_mask_of(int left) { return left > 0 ? rpi_avx512_some(left) : 0; }

/* A tile in the direction in which numbers are contiguous: unit (r, i) has number i of a row and of another, 16 rows or
   numbers behind it. */
static void rpi_pack_tile(const rpi_lines *x, int line, int p, rp_real *to) {
    const int lines = x->count - line, terms = x->k - p, rows = x->across ? terms : lines;
    const int rows2 = x->across ? terms - RPI_TILE : lines, n = x->across ? lines : terms;
    const int n2 = x->across ? lines : terms - RPI_TILE;
    const rp_real *row = x->from + (x->across ? p * x->stride + line : line * x->stride + p);
    const rp_real *row2 = row + RPI_TILE * (x->across ? x->stride : 1);
    const __mmask16 some = rpi_mask_of(n), some2 = rpi_mask_of(n2);
    if (rows2 >= RPI_TILE && n2 >= RPI_TILE) {
        for (int r = 0; r < RPI_TILE; r++, row += x->stride, row2 += x->stride)
            rpi_split(_mm512_loadu_ps(row), _mm512_loadu_ps(row2), x, to + r * RPI_TILE);
        return;
    }
    for (int r = 0; r < RPI_TILE; r++) {
        __m512 first = _mm512_maskz_loadu_ps(r < rows ? some : 0, row + (r < rows ? r : 0) * x->stride);
        __m512 second = _mm512_maskz_loadu_ps(r < rows2 ? some2 : 0, row2 + (r < rows2 ? r : 0) * x->stride);
        rpi_split(first, second, x, to + r * RPI_TILE);
    }
}

/* Tiles of A have a line in each row, those of B in each column. */
static void rpi_pack_lines(const rpi_lines *x, int as_b, rp_real *to) {
    rp_real turned[2 * RPI_TILE_REALS] __attribute__((aligned(RPI_LINE)));
    const int tiles = (x->count + RPI_TILE - 1) / RPI_TILE, steps = (x->k + RPI_ROUGH_STEP - 1) / RPI_ROUGH_STEP;
    for (int at = 0; at < tiles * steps; at++) {
        const int i = x->across ? at % tiles : at / steps, p = x->across ? at / tiles : at % steps;
        rp_real *tile = to + ((ptrdiff_t)i * steps + p) * x->halves * RPI_TILE_REALS;
        rpi_pack_tile(x, i * RPI_TILE, p * RPI_ROUGH_STEP, x->across == as_b ? tile : turned);
        for (int h = 0; h < x->halves && x->across != as_b; h++)
            rpi_avx512_transpose_square(turned + h * RPI_TILE_REALS, RPI_TILE, tile + h * RPI_TILE_REALS, RPI_TILE);
    }
}

/* The compiler does not know that tiles are read from and written to memory. */
RPI_INLINE void rpi_tiles_meet_memory(void) { __asm__ volatile("" ::: "memory"); }

static void rpi_tiles_begin(void) {
    /* clang-format off */
    static const unsigned char shapes[64] = {1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* palette */
        64, 0, 64, 0, 64, 0, 64, 0, 64, 0, 64, 0, 64, 0, 64, 0, /* bytes of a row, of each */
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        16, 16, 16, 16, 16, 16, 16, 16}; /* rows */
    /* clang-format on */
    _tile_loadconfig(shapes);
}

/* c = A B of up to 32 lines each, in rows RPI_PANEL apart. */
static void rpi_multiply_tiles(const rpi_lines *x, const rp_real *a, int a_lines, const rp_real *b, int b_lines,
                               rp_real *c) {
    const int tall = a_lines > RPI_TILE, wide = b_lines > RPI_TILE, split = x->halves == 2;
    const ptrdiff_t next = rpi_line_reals(x), step = x->halves * RPI_TILE_REALS, low = RPI_TILE_REALS;
    rpi_tiles_meet_memory();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (const rp_real *end = a + next; a < end; a += step, b += step) {
        _tile_loadd(4, a, 64);
        if (tall) _tile_loadd(5, a + next, 64);
        if (split) {
            _tile_loadd(6, b + low, 64);
            _tile_dpbf16ps(0, 4, 6);
            if (tall) _tile_dpbf16ps(2, 5, 6);
            if (wide) _tile_loadd(7, b + next + low, 64);
            if (wide) _tile_dpbf16ps(1, 4, 7);
            if (wide && tall) _tile_dpbf16ps(3, 5, 7);
        }
        _tile_loadd(6, b, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (tall) _tile_dpbf16ps(2, 5, 6);
        if (wide) _tile_loadd(7, b + next, 64);
        if (wide) _tile_dpbf16ps(1, 4, 7);
        if (wide && tall) _tile_dpbf16ps(3, 5, 7);
        if (!split) continue;
        _tile_loadd(4, a + low, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (wide) _tile_dpbf16ps(1, 4, 7);
        if (tall) _tile_loadd(5, a + next + low, 64);
        if (tall) _tile_dpbf16ps(2, 5, 6);
        if (wide && tall) _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, RPI_PANEL * sizeof *c);
    if (wide) _tile_stored(1, c + RPI_TILE, RPI_PANEL * sizeof *c);
    if (tall) _tile_stored(2, c + RPI_TILE * RPI_PANEL, RPI_PANEL * sizeof *c);
    if (wide && tall) _tile_stored(3, c + RPI_TILE * RPI_PANEL + RPI_TILE, RPI_PANEL * sizeof *c);
    rpi_tiles_meet_memory();
}

/* Up to 32 rows and n columns of C, with `sums`, or, turned, its columns, added to them. */
static void rpi_add_tiles(const rp_real *sums, int turned, int rows, int n, rp_real *c, ptrdiff_t ldc) {
    rp_real square[2 * RPI_TILE * RPI_PANEL] __attribute__((aligned(RPI_LINE)));
    for (int i = 0; i < rows && turned; i += RPI_TILE)
        for (int j = 0; j < n; j += RPI_TILE)
            rpi_avx512_transpose_square(sums + j * RPI_PANEL + i, RPI_PANEL, square + i * RPI_PANEL + j, RPI_PANEL);
    if (turned) sums = square;
    rpi_avx512_add_rows(rows, n, 1, sums, RPI_PANEL, c, ldc);
}

/* A block's products, added to C. */
static void rpi_add_block(const rpi_product *q, const rpi_lines *a, const rp_real *weights, const rp_real *values,
                          rp_real *sums, rp_real *c) {
    const ptrdiff_t tile = rpi_line_reals(a) / RPI_TILE;
    for (int i = 0; i < a->count; i += 2 * RPI_TILE)
        for (int j = 0; j < q->n; j += 2 * RPI_TILE) {
            const rp_real *rows = weights + i * tile, *columns = values + j * tile;
            int m = rpi_at_most(a->count - i, 2 * RPI_TILE), n = rpi_at_most(q->n - j, 2 * RPI_TILE);
            if (a->across) rpi_multiply_tiles(a, columns, n, rows, m, sums);
            else rpi_multiply_tiles(a, rows, m, columns, n, sums);
            rpi_add_tiles(sums, a->across, m, n, c + i * q->ldc + j, q->ldc);
        }
}

/* C += A B, or C2 += |A| B2. Transposed A is the second factor, in the direction in which it is contiguous; then so is
   C, but for its tiles. */
static void rpi_add_rough(const rpi_product *q, const rp_real *b, rp_real *c, int halves) {
    const int across = q->a_column != 1, most = RPI_ROUGH_ROWS * (across ? 4 : 1);
    const int terms = RPI_ROUGH_TERMS * RPI_ROUGH_ROWS / most;
    rpi_lines a = {q->a, across ? q->a_column : q->a_row, 0, 0, across, halves};
    rpi_lines values = {b, q->ldb, q->n, 0, 1, halves};
    rp_real *sums = q->packed, *weights = sums + 2 * RPI_TILE * RPI_PANEL,
            *packed = weights + RPI_ROUGH_TERMS * RPI_ROUGH_ROWS;
    for (int p = 0; p < q->k; p += terms) {
        a.k = values.k = rpi_at_most(q->k - p, terms);
        values.from = b + p * q->ldb;
        rpi_pack_lines(&values, !across, packed);
        for (int i = 0; i < q->m; i += most) {
            a.from = q->a + i * q->a_row + p * q->a_column;
            a.count = rpi_at_most(q->m - i, most);
            rpi_pack_lines(&a, across, weights);
            rpi_add_block(q, &a, weights, packed, sums, c + i * q->ldc);
        }
    }
}

static void rpi_start_rows(const rpi_product *q, const rp_real *bias, const rp_real *column, rp_real *c) {
    for (int i = 0; i < q->m && !q->add; i++, c += q->ldc)
        for (int s = 0; s < q->n; s += RPI_TILE) {
            __m512 start = column ? _mm512_loadu_ps(column + s) : _mm512_setzero_ps();
            _mm512_storeu_ps(c + s, bias ? _mm512_set1_ps(bias[i]) : start);
        }
}

static void rpi_amx_product(const rpi_product *q) {
    if (!q->rough) {
        rpi_avx512_product(q);
        return;
    }
    rpi_tiles_begin();
    if (q->b) {
        rpi_start_rows(q, q->bias, NULL, q->c);
        rpi_add_rough(q, q->b, q->c, 2);
    }
    if (q->b2) {
        rpi_start_rows(q, NULL, q->column, q->c2);
        rpi_add_rough(q, q->b2, q->c2, 1);
    }
    _tile_release();
}

/* What rows of d, or v, and a panel of y have to do with each other. */
typedef struct rpi_side {
    rpi_lines rows, columns;
    rp_real *packed_rows, *packed_columns, *sums;
} rpi_side;

/* Returns the scratch behind it. */
static rp_real *rpi_side_of(const rpi_outer *o, const rp_real *d, int halves, rpi_side *side, rp_real *packed) {
    const rpi_lines rows = {d, o->ld, o->m, o->count, 0, halves}, columns = {NULL, o->ld, 0, o->count, 0, halves};
    const ptrdiff_t tile = rpi_line_reals(&rows);
    side->rows = rows;
    side->columns = columns;
    side->sums = packed;
    side->packed_columns = packed + 2 * RPI_TILE * RPI_PANEL;
    side->packed_rows = side->packed_columns + RPI_PANEL / RPI_TILE * tile;
    if (!d) return packed;
    rpi_pack_lines(&rows, 0, side->packed_rows);
    return side->packed_rows + (o->m + RPI_TILE - 1) / RPI_TILE * tile;
}

static void rpi_pack_columns(rpi_side *side, const rp_real *y, int n) {
    side->columns.from = y;
    side->columns.count = n;
    if (side->rows.from) rpi_pack_lines(&side->columns, 1, side->packed_columns);
}

/* Sums of m rows from i on, by a panel, or NULL if there are none. */
static const rp_real *rpi_outer_tiles(const rpi_side *side, int i, int m) {
    const ptrdiff_t tile = rpi_line_reals(&side->rows) / RPI_TILE;
    if (!side->rows.from) return NULL;
    for (int j = 0; j < side->columns.count; j += 2 * RPI_TILE)
        rpi_multiply_tiles(&side->rows, side->packed_rows + i * tile, m, side->packed_columns + j * tile,
                           rpi_at_most(side->columns.count - j, 2 * RPI_TILE), side->sums + j);
    return side->sums;
}

static void rpi_rough_weights(const rpi_outer *o) {
    rpi_side first, second;
    rpi_piece piece = rpi_avx512_piece_of(o);
    rpi_side_of(o, o->v, 1, &second, rpi_side_of(o, o->d, 2, &first, o->packed));
    piece.ld = RPI_PANEL;
    piece.stride = o->n;
    for (int j = o->from; j < o->end; j += RPI_PANEL) {
        piece.n = rpi_at_most(o->end - j, RPI_PANEL);
        rpi_pack_columns(&first, o->y + j * o->ld, piece.n);
        rpi_pack_columns(&second, o->y + j * o->ld, piece.n);
        for (int i = 0; i < o->m; i += piece.rows) {
            piece.rows = rpi_at_most(o->m - i, 2 * RPI_TILE);
            piece.offset = o->weights + (ptrdiff_t)i * o->n + j;
            rpi_avx512_fetch(o->sink, &piece);
            piece.gradient = rpi_outer_tiles(&first, i, piece.rows);
            piece.curvature = rpi_outer_tiles(&second, i, piece.rows);
            o->sink->take(o->sink, &piece);
        }
    }
}

static void rpi_amx_outer(const rpi_outer *o) {
    rpi_outer rest = *o;
    if (o->rough && !o->squares) {
        rpi_tiles_begin();
        rpi_rough_weights(o);
        _tile_release();
        rest.end = rest.from;
    }
    rpi_avx512_outer(&rest);
}
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

/* In the order of rp_isa_kind. */
static const char *const rpi_isa_names[] = {"auto", "portable", "avx2", "avx512", "neon", "amx"};

/* >>isa
   A set is taken only if the processor has every extension that its pass is compiled for, and the system saves its
   registers. */
#ifdef RPI_X86
#include <cpuid.h>
static uint64_t rpi_saved_registers(void) { /* XCR0 */
    uint32_t low, high;
    /* xgetbv, which old assemblers do not know */
    __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}
static rp_isa_kind rpi_best_isa(void) {
    const unsigned fma_osxsave_avx = 1u << 12 | 1u << 27 | 1u << 28; /* leaf 1, ecx */
    const unsigned avx2 = 1u << 5, avx512f = 1u << 16;               /* leaf 7, ebx */
    const uint64_t ymm = 0x06, zmm = 0xE6; /* SSE and AVX state; and masks and both halves of the ZMM registers */
    unsigned a, b, c, d;
    uint64_t saved;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return RP_ISA_PORTABLE;
    if ((c & fma_osxsave_avx) != fma_osxsave_avx) return RP_ISA_PORTABLE;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return RP_ISA_PORTABLE;
    saved = rpi_saved_registers();
    if ((saved & ymm) != ymm || !(b & avx2)) return RP_ISA_PORTABLE;
    if ((saved & zmm) != zmm || !(b & avx512f)) return RP_ISA_AVX2;
    return RP_ISA_AVX512;
}
#elif defined(RPI_NEON)
static rp_isa_kind rpi_best_isa(void) { return RP_ISA_NEON; }
#else
static rp_isa_kind rpi_best_isa(void) { return RP_ISA_PORTABLE; }
#endif

/* Asks the system for the tiles' state, too, which changes what signal handlers need: so only who wants it does. */
static int rpi_may_use_amx(rp_isa_kind best) {
#ifdef RPI_AMX
    const long arch_prctl = 158, request_permission = 0x1023, tile_data = 18;
    const uint64_t tiles = UINT64_C(3) << 17;           /* of XCR0: their shapes, and they */
    const unsigned amx_bf16_tile = 1u << 22 | 1u << 24; /* leaf 7, edx */
    unsigned a, b, c, d;
    long result;
    if (best != RP_ISA_AVX512 || (rpi_saved_registers() & tiles) != tiles) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & amx_bf16_tile) != amx_bf16_tile) return 0;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "0"(arch_prctl), "D"(request_permission), "S"(tile_data)
                     : "rcx", "r11", "memory");
    return result == 0;
#else
    (void)best;
    return 0;
#endif
}

/* AUTO becomes what the environment's RP_ISA names, or the best. Returns whether this build and machine have it. */
static int rpi_resolve_isa(rp_isa_kind *isa) {
    rp_isa_kind best = rpi_best_isa();
#if !defined(RP_NO_ENVIRONMENT) && (defined(RPI_X86) || defined(RPI_NEON)) /* where there is a choice */
    const char *wanted = *isa == RP_ISA_AUTO ? getenv("RP_ISA") : NULL;
    for (int i = RP_ISA_AUTO; wanted && i <= RP_ISA_AMX; i++)
        if (!strcmp(wanted, rpi_isa_names[i])) {
            *isa = (rp_isa_kind)i;
            wanted = NULL;
        }
    if (wanted && *wanted) return 0;
#endif
    if (*isa == RP_ISA_AUTO) *isa = best;
    if (*isa == RP_ISA_AMX) return rpi_may_use_amx(best);
    return *isa == RP_ISA_PORTABLE || *isa == best || (*isa == RP_ISA_AVX2 && best == RP_ISA_AVX512);
}

static const rpi_kernels *rpi_kernels_of(rp_isa_kind isa) {
#ifdef RPI_AMX
    if (isa == RP_ISA_AMX) return &rpi_amx_kernels;
#endif
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
   A team of threads that belongs to a net: the caller and its helpers do the parts of one piece of work. Parts are
   chosen so that no sum is split between two of them, and are done in the caller's floating-point mode: the bits do not
   depend on their number. */
#ifndef RPI_GRAIN /* tests make it smaller */
/* multiply-adds that are worth a part of their own: some 20 us on one AVX-512 core; waking takes 2 to 5 */
#define RPI_GRAIN (1 << 20)
#endif
typedef void (*rpi_work)(const void *context, int part, int parts);

#ifdef RP_THREADS
#if defined(_WIN32)
#include <windows.h>
typedef HANDLE rpi_thread;
typedef CRITICAL_SECTION rpi_mutex;
typedef CONDITION_VARIABLE rpi_condition;
typedef DWORD rpi_process;
#define RPI_THREAD_RESULT DWORD WINAPI
static void rpi_mutex_init(rpi_mutex *mutex) { InitializeCriticalSection(mutex); }
static void rpi_mutex_free(rpi_mutex *mutex) { DeleteCriticalSection(mutex); }
static void rpi_lock(rpi_mutex *mutex) { EnterCriticalSection(mutex); }
static void rpi_unlock(rpi_mutex *mutex) { LeaveCriticalSection(mutex); }
static void rpi_condition_init(rpi_condition *condition) { InitializeConditionVariable(condition); }
static void rpi_condition_free(rpi_condition *condition) { (void)condition; }
static void rpi_wait(rpi_condition *condition, rpi_mutex *mutex) {
    SleepConditionVariableCS(condition, mutex, INFINITE);
}
static void rpi_wake_all(rpi_condition *condition) { WakeAllConditionVariable(condition); }
static void rpi_yield(void) { SwitchToThread(); }
static rpi_process rpi_this_process(void) { return GetCurrentProcessId(); }
static int rpi_thread_new(rpi_thread *thread, DWORD(WINAPI *function)(void *), void *argument) {
    *thread = CreateThread(NULL, 0, function, argument, 0, NULL);
    return *thread != NULL;
}
static void rpi_thread_join(rpi_thread thread) {
    WaitForSingleObject(thread, INFINITE);
    CloseHandle(thread);
}
#else
#include <pthread.h>
#include <sched.h>
#include <unistd.h>
typedef pthread_t rpi_thread;
typedef pthread_mutex_t rpi_mutex;
typedef pthread_cond_t rpi_condition;
typedef pid_t rpi_process;
#define RPI_THREAD_RESULT void *
static void rpi_mutex_init(rpi_mutex *mutex) { pthread_mutex_init(mutex, NULL); }
static void rpi_mutex_free(rpi_mutex *mutex) { pthread_mutex_destroy(mutex); }
static void rpi_lock(rpi_mutex *mutex) { pthread_mutex_lock(mutex); }
static void rpi_unlock(rpi_mutex *mutex) { pthread_mutex_unlock(mutex); }
static void rpi_condition_init(rpi_condition *condition) { pthread_cond_init(condition, NULL); }
static void rpi_condition_free(rpi_condition *condition) { pthread_cond_destroy(condition); }
static void rpi_wait(rpi_condition *condition, rpi_mutex *mutex) { pthread_cond_wait(condition, mutex); }
static void rpi_wake_all(rpi_condition *condition) { pthread_cond_broadcast(condition); }
static void rpi_yield(void) { sched_yield(); }
static rpi_process rpi_this_process(void) { return getpid(); }
static int rpi_thread_new(rpi_thread *thread, void *(*function)(void *), void *argument) {
    return pthread_create(thread, NULL, function, argument) == 0;
}
static void rpi_thread_join(rpi_thread thread) { pthread_join(thread, NULL); }
#endif

/* Numbers that several threads read and change; rpi_set returns what it was. */
#if defined(__GNUC__)
typedef unsigned rpi_counter;
static void rpi_counter_init(rpi_counter *counter) { *counter = 0; }
static void rpi_counter_free(rpi_counter *counter) { (void)counter; }
static unsigned rpi_get(rpi_counter *counter) { return __atomic_load_n(counter, __ATOMIC_SEQ_CST); }
static void rpi_add(rpi_counter *counter, int x) { __atomic_fetch_add(counter, (unsigned)x, __ATOMIC_SEQ_CST); }
static unsigned rpi_set(rpi_counter *counter, unsigned x) { return __atomic_exchange_n(counter, x, __ATOMIC_SEQ_CST); }
#elif defined(_WIN32)
typedef volatile LONG rpi_counter;
static void rpi_counter_init(rpi_counter *counter) { *counter = 0; }
static void rpi_counter_free(rpi_counter *counter) { (void)counter; }
static unsigned rpi_get(rpi_counter *counter) { return (unsigned)InterlockedExchangeAdd(counter, 0); }
static void rpi_add(rpi_counter *counter, int x) { InterlockedExchangeAdd(counter, x); }
static unsigned rpi_set(rpi_counter *counter, unsigned x) { return (unsigned)InterlockedExchange(counter, (LONG)x); }
#else
typedef struct rpi_counter {
    rpi_mutex mutex;
    unsigned value;
} rpi_counter;
static void rpi_counter_init(rpi_counter *counter) {
    rpi_mutex_init(&counter->mutex);
    counter->value = 0;
}
static void rpi_counter_free(rpi_counter *counter) { rpi_mutex_free(&counter->mutex); }
static unsigned rpi_get(rpi_counter *counter) {
    unsigned value;
    rpi_lock(&counter->mutex);
    value = counter->value;
    rpi_unlock(&counter->mutex);
    return value;
}
static void rpi_add(rpi_counter *counter, int x) {
    rpi_lock(&counter->mutex);
    counter->value += (unsigned)x;
    rpi_unlock(&counter->mutex);
}
static unsigned rpi_set(rpi_counter *counter, unsigned x) {
    unsigned value;
    rpi_lock(&counter->mutex);
    value = counter->value;
    counter->value = x;
    rpi_unlock(&counter->mutex);
    return value;
}
#endif

/* How a thread computes: rounding, flushing to zero, which exceptions trap. */
#if (defined(__x86_64__) && defined(__GNUC__)) || defined(_M_X64)
#include <xmmintrin.h>
typedef unsigned rpi_mode;
static void rpi_mode_get(rpi_mode *mode) { *mode = _mm_getcsr(); }
static void rpi_mode_set(const rpi_mode *mode) {
    const unsigned raised = 0x3F; /* exceptions that occurred, a thread's own */
    unsigned own = _mm_getcsr();
    if ((own ^ *mode) & ~raised) /* seldom; setting takes longer than looking */
        _mm_setcsr((*mode & ~raised) | (own & raised));
}
#else
#include <fenv.h>
typedef fenv_t rpi_mode;
static void rpi_mode_get(rpi_mode *mode) { fegetenv(mode); }
static void rpi_mode_set(const rpi_mode *mode) { fesetenv(mode); }
#endif

#define RPI_SPINS 4000 /* looks before a waiting helper sleeps: some 20 us, longer than most gaps within a step */

typedef struct rpi_team rpi_team;
typedef struct rpi_helper {
    rpi_team *team;
    int part;
    rpi_counter open; /* 1: nobody has begun its part */
    rpi_thread thread;
} rpi_helper;
struct rpi_team {
    int size, started; /* threads with the caller; helpers that run */
    rpi_work work;
    const void *context;
    rpi_mode mode; /* the caller's */
    int parts;
    rpi_counter round, busy, asleep; /* pieces of work given out; parts that are not done; helpers asleep */
    rpi_counter ending;
    rpi_mutex mutex;
    rpi_condition condition;
    rpi_helper *helpers;
    rpi_process process; /* that the helpers run in: a child of it has none */
};

static void rpi_do_part(rpi_helper *helper) {
    rpi_team *team = helper->team;
    team->work(team->context, helper->part, team->parts);
    rpi_add(&team->busy, -1);
}

static RPI_THREAD_RESULT rpi_help(void *argument) {
    rpi_helper *helper = (rpi_helper *)argument;
    rpi_team *team = helper->team;
    for (unsigned seen = 0; !rpi_get(&team->ending); seen = rpi_get(&team->round)) {
        if (rpi_set(&helper->open, 0)) {
            rpi_mode_set(&team->mode);
            rpi_do_part(helper);
        }
        for (int spin = 0; spin < RPI_SPINS && rpi_get(&team->round) == seen; spin++)
            if (spin % 64 == 63) rpi_yield();
        if (rpi_get(&team->round) != seen) continue;
        rpi_lock(&team->mutex);
        rpi_add(&team->asleep, 1);
        while (rpi_get(&team->round) == seen) rpi_wait(&team->condition, &team->mutex);
        rpi_add(&team->asleep, -1);
        rpi_unlock(&team->mutex);
    }
    return 0;
}

static void rpi_next_round(rpi_team *team) {
    rpi_add(&team->round, 1);
    if (!rpi_get(&team->asleep)) return;
    rpi_lock(&team->mutex);
    rpi_wake_all(&team->condition);
    rpi_unlock(&team->mutex);
}

/* On a machine with more to do than it has cores a helper may come late: the caller takes over what nobody has begun,
   and waits only for what somebody has. */
static void rpi_share(rpi_team *team, int parts, rpi_work work, const void *context) {
    if (!team || parts < 2 || team->process != rpi_this_process()) {
        work(context, 0, 1);
        return;
    }
    team->work = work;
    team->context = context;
    team->parts = parts;
    rpi_mode_get(&team->mode);
    rpi_add(&team->busy, parts - 1);
    for (int part = 1; part < parts; part++) rpi_set(&team->helpers[part - 1].open, 1);
    rpi_next_round(team);
    work(context, 0, parts);
    for (int part = 1; part < parts; part++)
        if (rpi_set(&team->helpers[part - 1].open, 0)) rpi_do_part(&team->helpers[part - 1]);
    for (int spin = 1; rpi_get(&team->busy); spin++)
        if (spin % 64 == 0) rpi_yield();
}

static void rpi_team_end(rpi_team *team) {
    rpi_add(&team->ending, 1);
    rpi_next_round(team);
    for (int i = 0; i < team->started; i++) {
        rpi_thread_join(team->helpers[i].thread);
        rpi_counter_free(&team->helpers[i].open);
    }
    rpi_counter_free(&team->round);
    rpi_counter_free(&team->busy);
    rpi_counter_free(&team->asleep);
    rpi_counter_free(&team->ending);
    rpi_condition_free(&team->condition);
    rpi_mutex_free(&team->mutex);
}

static void rpi_team_free(const rpi_memory *memory, rpi_team *team) {
    if (!team) return;
    if (team->process == rpi_this_process()) rpi_team_end(team);
    memory->release(memory->user, team);
}

static rpi_team *rpi_team_new(const rpi_memory *memory, int size) {
    size_t bytes = sizeof(rpi_team) + (size_t)size * sizeof(rpi_helper);
    rpi_team *team = (rpi_team *)memory->allocate(memory->user, bytes);
    if (!team) return NULL;
    memset(team, 0, bytes);
    team->size = size;
    team->process = rpi_this_process();
    team->helpers = (rpi_helper *)(team + 1);
    rpi_mutex_init(&team->mutex);
    rpi_condition_init(&team->condition);
    rpi_counter_init(&team->round);
    rpi_counter_init(&team->busy);
    rpi_counter_init(&team->asleep);
    rpi_counter_init(&team->ending);
    for (; team->started < size - 1; team->started++) {
        rpi_helper *helper = &team->helpers[team->started];
        helper->team = team;
        helper->part = team->started + 1;
        rpi_counter_init(&helper->open);
        if (rpi_thread_new(&helper->thread, rpi_help, helper)) continue;
        rpi_counter_free(&helper->open);
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
    int curved;    /* sigma'' is not zero everywhere */
    rp_real slope; /* of rp_negative_slope, to begin with; 0: it has none */
} rpi_activation;
static const rpi_activation rpi_activations[] = {
    /* in the order of rp_activation_kind */
    {"identity", 0, 0}, {"relu", 0, 0},    {"leaky_relu", 0, (rp_real)0.01},
    {"tanh", 1, 0},     {"sigmoid", 1, 0}, {"softplus", 1, 0},
    {"elu", 1, 1},      {"gelu", 1, 0},    {"silu", 1, 0},
};
#define RPI_ACTIVATIONS ((int)(sizeof rpi_activations / sizeof *rpi_activations))

/* >>net
   A layer is what the user appended. The build lowers layers to a tape of steps; each step is an affine map, then an
   activation in place. A value on the tape is a slot; slot 0 is the input. Several steps may share parameters, and
   several may write parts of one slot. */
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

/* A map whose weights serve many positions: position (y, x) of the output reads the window at (y stride - padding, x
   stride - padding) of the input. Rows of a slot: channel c of the input at (y, x) is row c in_channel + y in_y + x
   in_x. A recurrent layer is one, too: its steps are positions, its kernel is 1, and h_(t-1) is read with a padding
   of 1. */
typedef struct rpi_geometry {
    int filters, channels, groups; /* channels: of one group */
    int kernel_height, kernel_width, stride_height, stride_width, padding_height, padding_width;
    int height, width, out_height, out_width;
    ptrdiff_t in_channel, in_y, in_x, out_filter, out_y, out_x;
    int group_filters; /* filters of one group */
    int window, taps;  /* elements of a kernel; weights of one filter */
    int positions;     /* of the output */
    int first;         /* position from which outputs are computed: 1 where 0 is a start value */
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
    int in, out;           /* slots */
    int in_rows, out_rows; /* all rows of these */
    int in_row, out_row;   /* where those rows begin in their slots; maps with a geometry begin at row 0 */
    int add;               /* the map adds to what is there */
    int adds;              /* on the way back: to what other steps have sent */
    int collects;          /* its outer product is that of all steps that share these parameters */
    rpi_geometry geometry;
    int from, end, in_from, in_end; /* positions of output, and of input, that it works on */
} rpi_step;

/* Where a pass over the tape keeps its numbers: a net's own memory, or a workspace. */
typedef enum rpi_way { RPI_BATCH, RPI_EACH } rpi_way; /* values: rows of samples, or each sample's vector of features */
typedef struct rpi_buffers {
    const rpi_kernels *kernels;
    rpi_way way;
    int batch;
    ptrdiff_t ld;        /* 1 with RPI_EACH */
    int samples;         /* with RPI_EACH: the vectors in a slot, one behind the other */
    rp_real **y;         /* each slot: value */
    rp_real **d;         /* each slot: derivative; without training only the last */
    rp_real **v;         /* each slot: u on the way forward, then v; in the other rules the swept vector e */
    rp_real **slope;     /* each step: sigma', NULL where it is constant */
    rp_real **second;    /* each step: sigma'' (times u in the paths rule, times d for products), NULL where it is 0 */
    rp_real **r, **bend; /* for products: each slot's derivative along a direction; each step's sigma'' d times it */
    rp_real *packed, *panel, *tile;    /* for each thread */
    ptrdiff_t packed_size, rough_rows; /* rough_rows: most outputs of a map without positions */
    ptrdiff_t *at;                     /* for each thread: two lists of a window's offsets, at_size long */
    ptrdiff_t at_size, threads;
    const rp_real **rows; /* for each thread: rows of a block of taps */
    ptrdiff_t rows_size;
    rp_real *columns; /* for each thread: a row */
    rp_real *sums;    /* for each thread: 2 blocks of sums, each of sums_size vectors */
    ptrdiff_t sums_size;
    rp_real *shared; /* [2][shared_size]: |W|, or gradient and curvature of a shared weight */
    ptrdiff_t shared_size;
    rp_real *planes; /* [3][plane_size]: images of one sample */
    ptrdiff_t plane_size;
    int *bad;              /* for each step and thread: a value before the activation was not finite */
    rp_real *zeros, *ones; /* a row each */
    rp_real *column, *total;
    rpi_team *team; /* NULL: the caller alone */
} rpi_buffers;

/* Scratch for the Hessian's diagonal: in a stack the Hessian of one sample's loss by the units of a layer and two more
   matrices, elsewhere the diagonal as it grows. */
typedef struct rpi_recursion {
    rp_real *s, *left, *turned, *diagonal;
    ptrdiff_t ld;
} rpi_recursion;

/* What residual partitioning without a rate has found out about the length of its steps; see >>pace. */
typedef struct rpi_pace {
    double curvature;   /* mean of the relative curvature over measurements; 0: not measured yet */
    double loss, first; /* mean of the losses above the least possible, and the first of them */
    double least;       /* that least of the last measured batch */
    double zero;        /* mean of what measured batches would lose, above it, with outputs of 0; 0: not known */
    double limit;       /* most that the length may be after a step that was undone; 0: any */
    double length;
    int64_t measurements;
    int cap; /* an rp_cap */
} rpi_pace;

/* Sums over samples; right, weight: of decisions. */
typedef struct rpi_tally {
    double loss, right, weight;
    int64_t count;
} rpi_tally;

/* Where a run of rp_fit is: what another needs to go on there. */
typedef struct rpi_place {
    int active;                             /* 0: there is none */
    int epoch, step;                        /* done, the steps in that epoch */
    int epochs, batch, samples, keep_order; /* of the run; samples is 0 for streams */
    uint64_t order;                         /* of the epoch's shuffling */
    rpi_tally tally;                        /* of the epoch */
    rp_fit_report report;
} rpi_place;

/* A safetensors file in memory. */
typedef struct rpi_tensor {
    uint64_t begin, end; /* bytes behind the header */
    uint32_t at;         /* where its name stands in the header */
} rpi_tensor;
typedef struct rpi_file {
    rpi_block block, list; /* memory for bytes and list, or for the list alone */
    const unsigned char *bytes;
    size_t size, header, metadata; /* of all bytes, of the header; where __metadata__ stands in it, or 0 */
    size_t list_size;
    rpi_tensor *tensors; /* by name, once checked */
    int count;
} rpi_file;

struct rp_net {
    rpi_memory memory;
    rp_config config;
    rp_status broken; /* first mistake in the description */
    char error[256], warning[128];
    rp_shape input, output;
    rpi_layer *layers;
    int layer_count, layer_capacity;
    rp_loss_kind loss;
    rp_real huber_delta; /* 0: not given */

    int built, batch, inputs, outputs;
    ptrdiff_t parameter_count;
    rpi_block tape, arrays; /* what the build allocates */
    rpi_step *steps;
    int step_count;
    int slot_count;
    int singles;                    /* samples can be worked on each by itself: the images that this needs are small */
    double single_cost, batch_cost; /* of one sample by itself; of a vector of samples */
    int *slot_rows;                 /* each slot: its features */
    int *zeroed;                    /* each slot: on the way back it begins at zero */
    int *live;                      /* each slot: parameters below it are trained */
    int *pool;                      /* each slot: its buffer when nothing is kept for training */
    ptrdiff_t *pool_rows;           /* each such buffer: the features that it must hold */
    int *pool_until;                /* each such buffer: the last step that reads what it holds */
    int pool_count;
    rpi_buffers buffers, each; /* each: the same memory for samples by themselves */
    const rpi_buffers *swept;  /* that of the two whose values are in place */
    rp_real *parameters, *gradient, *curvature, *direction;
    rp_real *sums;        /* scratch: curvature that is added up, or a product with the Hessian */
    rpi_block recursions; /* for the Hessian's diagonal: */
    rpi_recursion recursion;
    rpi_block tangents;                             /* buffers.r, buffers.bend, and: */
    rp_real *spare;                                 /* another scratch vector of parameters */
    int has_gradient, has_curvature, has_direction; /* the array has been filled or zeroed */
    rp_real *h;                                     /* [outputs][ld] second derivatives of the loss */
    rp_real *row_output;                            /* [batch][outputs] for rp_output; or scratch [outputs][ld] */
    double *sample_loss;                            /* [batch] */
    rp_real *staged_inputs, *staged_targets, *staged_weights;
    int *staged_labels;
    int forward_count; /* samples of the last rp_forward, 0 once another call has used the buffers */

    rpi_block state;
    rp_real *first, *second, *spreads; /* spreads: of each layer, see rpi_find_spreads; 0: not known */
    rp_real *averages; /* of the parameters over the steps, or, if `averaged`, the parameters while averages are used */
    int averaged, folded;    /* folded: the present parameters are in their average */
    uint64_t averages_print; /* of the averages that took the parameters' place: did the caller write to them? */
    rpi_pace pace;
    int method;                /* rp_method, or RPI_PACED; 0: there is no state */
    int64_t time;              /* steps that the optimizer has taken */
    int64_t epochs;            /* that rp_fit has begun */
    rp_real *krylov;           /* Newton's vectors */
    rp_real sigma, sigma_from; /* of a cubic model that adapts, or Newton's lambda; what it began with */
    rpi_place place;           /* of the rp_fit that runs, or of one in whose midst a loaded net was saved */
    int fitting;               /* an rp_fit runs */
    rp_real *best;             /* its best parameters, or NULL */
    rpi_block loaded_best;     /* the same, of a loaded net */
    rpi_file opened;           /* what the build loads */
    rp_step last;              /* what the last training step did */
    int stepped;
    uint64_t random;
};

/* The message of a net that is described wrongly stays that of the first mistake. */
static rp_status rpi_fail(rp_net *net, rp_status status, const char *format, ...) {
    va_list list;
    if (net->broken) return status;
    va_start(list, format);
    rpi_format_list(net->error, sizeof net->error, format, list);
    va_end(list);
    return status;
}

RP_API const char *rp_version(void) { return RP_VERSION; }

RP_API const char *rp_status_text(rp_status status) {
    switch (status) {
#define RPI_X(name, value, text) \
    case name: \
        return text;
        RP_STATUS_LIST(RPI_X)
#undef RPI_X
    default: return "not a status";
    }
}

RP_API const char *rp_error(const rp_net *net) {
    return net ? net->error : "the net is NULL: rp_net_new found no memory";
}

RP_API const char *rp_warning(const rp_net *net) { return net ? net->warning : ""; }

/* The guards of the functions that need a built net. */
static rp_status rpi_built(rp_net *net, const char *who) {
    if (!net) return RP_ERR_NULL;
    return net->built ? RP_OK : rpi_fail(net, RP_ERR_ORDER, "%s: the net is not built; call rp_net_build first", who);
}
static rp_status rpi_trainable(rp_net *net, const char *who) {
    rp_status status = rpi_built(net, who);
    if (status || !net->config.inference_only) return status;
    return rpi_fail(net, RP_ERR_UNSUPPORTED,
                    "%s: the net was made with config.inference_only, so it has no memory for training", who);
}
static rp_status rpi_needs(rp_net *net, const char *who, const char *what, const void *pointer) {
    return pointer ? RP_OK : rpi_fail(net, RP_ERR_NULL, "%s: %s is NULL", who, what);
}

/* While a callback runs that may not use the net: what does so resets forward_count. */
#define RPI_BUSY -1
static rp_status rpi_still_busy(rp_net *net, const char *who, const char *callback) {
    int busy = net->forward_count == RPI_BUSY;
    net->forward_count = 0;
    return busy ? RP_OK : rpi_fail(net, RP_ERR_ORDER, "%s: %s used the net, whose values are needed", who, callback);
}

static ptrdiff_t rpi_slot_rows(const rp_net *net, int slot) { return net->slot_rows[slot]; }

static int rpi_columns(const rpi_buffers *b, int count) {
    return (count + b->kernels->lanes - 1) / b->kernels->lanes * b->kernels->lanes;
}

/* The same memory for samples by themselves. */
static rpi_buffers rpi_buffers_of_each(const rpi_buffers *b, int samples) {
    rpi_buffers each = *b;
    each.way = RPI_EACH;
    each.ld = 1;
    each.samples = samples;
    return each;
}

/* Every row of `out` becomes `row`, or 0. */
static void rpi_fill_rows(int rows, int n, ptrdiff_t ld, const rp_real *row, rp_real *out) {
    for (int i = 0; i < rows; i++) {
        if (row) rpi_copy(out + i * ld, row, n);
        else rpi_zero(out + i * ld, n);
    }
}

/* >>losses
   Value, gradient and second derivative h are kernels (see the template); what else is to know of a loss is its row
   here. h[i][s] is the second derivative by output i, times the sample's weight. For softmax cross-entropy it is
   sum(t) p_i, whose sum over the outputs is sum(t).

   H_f, the Hessian of a sample's loss by its outputs, is diag(h), or, for softmax, diag(h) - h h' / sum(h). B is a bound
   of it, Equations 44 to 46. */
typedef struct rpi_bound {
    void (*times)(const rp_net *net, int count, rp_real *x);      /* x becomes B x */
    void (*row)(const rp_net *net, int count, int k, rp_real *x); /* x_k becomes (B x)_k; NULL: B mixes outputs */
} rpi_bound;
typedef struct rpi_hessian {
    const rpi_bound *bounds[2];                                      /* by rp_bound_kind */
    void (*draw)(rp_net *net, int count, rp_real *r);                /* r at random, with E[r r'] = H_f */
    void (*times)(const rp_net *net, int count, rp_real *x);         /* x becomes H_f x */
    void (*factor)(const rp_net *net, int count, int k, rp_real *c); /* column k of C, where C C' = H_f */
    /* of H_f of sample s; total: sum(h) */
    rp_real (*entry)(const rp_net *net, ptrdiff_t s, int i, int k, rp_real total);
} rpi_hessian;

static rp_real rpi_total_of(const rp_net *net, ptrdiff_t s) {
    rp_real total = 0;
    for (int i = 0; i < net->outputs; i++) total += net->h[i * net->buffers.ld + s];
    return total;
}

/* diag(h): H_f of a separable loss, and RP_BOUND_TIGHT of any, since diag(p) - p p' is at most diag(p) */
static void rpi_diagonal_times(const rp_net *net, int count, rp_real *x) {
    const rpi_buffers *b = &net->buffers;
    b->kernels->weigh(net->outputs, rpi_columns(b, count), x, b->ld, net->h, b->ld, 0);
}

static void rpi_diagonal_row(const rp_net *net, int count, int k, rp_real *x) {
    const rpi_buffers *b = &net->buffers;
    b->kernels->weigh(1, rpi_columns(b, count), x, b->ld, net->h + k * b->ld, b->ld, 0);
}

/* r_i = +-sqrt(h_i), with independent signs */
static void rpi_diagonal_draw(rp_net *net, int count, rp_real *r) {
    const rpi_buffers *b = &net->buffers;
    b->kernels->signs(net->outputs, rpi_columns(b, count), net->h, r, b->ld, &net->random);
}

static void rpi_diagonal_factor(const rp_net *net, int count, int k, rp_real *c) {
    const rpi_buffers *b = &net->buffers;
    const rp_real *h = net->h + k * b->ld;
    rpi_fill_rows(net->outputs, rpi_columns(b, count), b->ld, NULL, c);
    for (int s = 0; s < count; s++) c[k * b->ld + s] = RPI_MATH(sqrt)(h[s]);
}

static rp_real rpi_diagonal_entry(const rp_net *net, ptrdiff_t s, int i, int k, rp_real total) {
    (void)total;
    return i == k ? net->h[i * net->buffers.ld + s] : 0;
}

/* Equation 46, Jensen's inequality over the outputs: v_i = h_i sum_k h_k u_k with h_i^2 = sum(t) p_i (1 - p_i) */
static void rpi_softmax_jensen(const rp_net *net, int count, rp_real *u) {
    ptrdiff_t ld = net->buffers.ld, end = net->outputs * ld;
    for (int s = 0; s < count; s++) {
        const rp_real *h = net->h + s;
        rp_real *v = u + s, total = rpi_total_of(net, s), sum = 0;
        for (ptrdiff_t i = 0; i < end; i += ld) {
            rp_real left = total - h[i];
            rp_real root = left > 0 ? RPI_MATH(sqrt)(h[i] * (left / total)) : 0;
            sum += root * v[i];
            v[i] = root;
        }
        for (ptrdiff_t i = 0; i < end; i += ld) v[i] *= sum;
    }
}

/* r = sqrt(sum(t)) (p - onehot(k)) with k drawn from p */
static void rpi_softmax_draw(rp_net *net, int count, rp_real *r) {
    ptrdiff_t ld = net->buffers.ld, end = net->outputs * ld;
    for (int s = 0; s < count; s++) {
        const rp_real *h = net->h + s;
        rp_real total = rpi_total_of(net, s);
        rp_real root = total > 0 ? 1 / RPI_MATH(sqrt)(total) : 0;
        rp_real at = (rp_real)rpi_uniform(&net->random) * total;
        for (ptrdiff_t i = 0; i < end; i += ld) {
            int chosen = at >= 0 && (at < h[i] || i + ld == end);
            r[i + s] = root * (chosen ? h[i] - total : h[i]);
            at = chosen ? -1 : at - h[i];
        }
    }
}

static void rpi_softmax_times(const rp_net *net, int count, rp_real *x) {
    ptrdiff_t ld = net->buffers.ld, end = net->outputs * ld;
    for (int s = 0; s < rpi_columns(&net->buffers, count); s++) {
        const rp_real *h = net->h + s;
        rp_real total = rpi_total_of(net, s), mean = 0;
        for (ptrdiff_t i = 0; i < end; i += ld) mean += h[i] * x[i + s];
        mean = total > 0 ? mean / total : 0;
        for (ptrdiff_t i = 0; i < end; i += ld) x[i + s] = h[i] * (x[i + s] - mean);
    }
}

/* sqrt(h_k) (e_k - h / sum(h)) */
static void rpi_softmax_factor(const rp_net *net, int count, int k, rp_real *c) {
    const rpi_buffers *b = &net->buffers;
    ptrdiff_t ld = b->ld, end = net->outputs * ld;
    rpi_fill_rows(net->outputs, rpi_columns(b, count), ld, NULL, c);
    for (int s = 0; s < count; s++) {
        rp_real total = rpi_total_of(net, s), root = RPI_MATH(sqrt)(net->h[k * ld + s]);
        if (total > 0)
            for (ptrdiff_t i = s; i < end; i += ld) c[i] = -root * (net->h[i] / total);
        c[k * ld + s] += root;
    }
}

static rp_real rpi_softmax_entry(const rp_net *net, ptrdiff_t s, int i, int k, rp_real total) {
    const rp_real *h = net->h + s;
    ptrdiff_t ld = net->buffers.ld;
    rp_real mixed = total > 0 ? h[i * ld] * (h[k * ld] / total) : 0;
    return (i == k ? h[i * ld] : 0) - mixed;
}

static const rpi_bound rpi_diagonal_bound = {rpi_diagonal_times, rpi_diagonal_row};
static const rpi_bound rpi_jensen_bound = {rpi_softmax_jensen, NULL};
static const rpi_hessian rpi_diagonal_hessian = {{&rpi_diagonal_bound, &rpi_diagonal_bound},
                                                 rpi_diagonal_draw,
                                                 rpi_diagonal_times,
                                                 rpi_diagonal_factor,
                                                 rpi_diagonal_entry};
static const rpi_hessian rpi_softmax_hessian = {{&rpi_diagonal_bound, &rpi_jensen_bound},
                                                rpi_softmax_draw,
                                                rpi_softmax_times,
                                                rpi_softmax_factor,
                                                rpi_softmax_entry};

/* A label stands for targets of 0 and, at this output, a 1; -1: the first of two classes with one output. */
static int rpi_label_output(const rp_data *batch, int outputs, int classes, int s) {
    return batch->labels[s] + outputs - classes;
}
static const rp_real *rpi_targets_of(const rp_data *batch, int outputs, int s) {
    return batch->targets ? batch->targets + (ptrdiff_t)s * outputs : NULL;
}

/* How many classes labels name, given the outputs. */
static int rpi_no_classes(int outputs) {
    (void)outputs;
    return 0;
}
static int rpi_class_each(int outputs) { return outputs; }
static int rpi_two_classes(int outputs) { return outputs == 1 ? 2 : 0; }

/* Decisions of sample s that are right, of *all: the largest output, or each output's side. */
static int rpi_right_largest(const rp_net *net, const rpi_buffers *b, const rp_data *batch, int s, int *all) {
    const rp_real *y = b->y[net->slot_count - 1] + s;
    const rp_real *t = rpi_targets_of(batch, net->outputs, s);
    int best = 0, truth = t ? 0 : rpi_label_output(batch, net->outputs, net->outputs, s);
    for (int i = 1; i < net->outputs; i++) {
        if (y[i * b->ld] > y[best * b->ld]) best = i;
        if (t && t[i] > t[truth]) truth = i;
    }
    *all = 1;
    return best == truth;
}
static int rpi_right_sides(const rp_net *net, const rpi_buffers *b, const rp_data *batch, int s, int *all) {
    const rp_real *y = b->y[net->slot_count - 1] + s;
    const rp_real *t = rpi_targets_of(batch, net->outputs, s);
    int right = 0, truth = t ? 0 : rpi_label_output(batch, net->outputs, rpi_two_classes(net->outputs), s);
    for (int i = 0; i < net->outputs; i++) right += (y[i * b->ld] > 0) == (t ? t[i] > (rp_real)0.5 : i == truth);
    *all = net->outputs;
    return right;
}

/* What a sample's outputs mean, in place. */
static void rpi_softmax(int outputs, rp_real *y) {
    rp_real most = y[0], sum = 0;
    for (int i = 1; i < outputs; i++) most = y[i] > most ? y[i] : most;
    for (int i = 0; i < outputs; i++) {
        y[i] = RPI_MATH(exp)(y[i] - most);
        sum += y[i];
    }
    for (int i = 0; i < outputs; i++) y[i] /= sum;
}
static void rpi_logistic(int outputs, rp_real *y) {
    for (int i = 0; i < outputs; i++) y[i] = 1 / (1 + RPI_MATH(exp)(-y[i]));
}
static void rpi_rate_of_log(int outputs, rp_real *y) {
    for (int i = 0; i < outputs; i++) y[i] = RPI_MATH(exp)(y[i]);
}

/* x log x */
static double rpi_entropic(double x) { return x > 0 ? x * log(x) : 0; }
static double rpi_least_softmax(int outputs, const rp_real *t) {
    double sum = 0, total = 0;
    for (int i = 0; i < outputs; i++) {
        sum -= rpi_entropic((double)t[i]);
        total += (double)t[i];
    }
    return sum + rpi_entropic(total);
}
static double rpi_least_binary(int outputs, const rp_real *t) {
    double sum = 0;
    for (int i = 0; i < outputs; i++) sum -= rpi_entropic((double)t[i]) + rpi_entropic(1 - (double)t[i]);
    return sum;
}
static double rpi_least_poisson(int outputs, const rp_real *t) {
    double sum = 0;
    for (int i = 0; i < outputs; i++) sum += (double)t[i] - rpi_entropic((double)t[i]);
    return sum;
}

typedef struct rpi_loss {
    const char *name;
    const rpi_hessian *hessian;
    rp_real least, most;         /* that a target may be; least below 0: any */
    int (*classes)(int outputs); /* that labels may name; 0: it takes no labels */
    /* decisions of sample s that are right, and *all; NULL: it makes none */
    int (*right)(const rp_net *net, const rpi_buffers *b, const rp_data *batch, int s, int *all);
    void (*mean)(int outputs, rp_real *y);               /* what a sample's outputs mean, in place; NULL: themselves */
    double (*least_loss)(int outputs, const rp_real *t); /* over all y, for a sample's targets; NULL: 0 */
    int logits;    /* outputs are unbounded, so that no ReLU or sigmoid belongs before it */
    int has_delta; /* rp_huber_delta */
} rpi_loss;
static const rpi_loss rpi_losses[] = {
    /* in the order of rp_loss_kind; Huber's h beyond delta is that of the least parabola above: RPI_FN(separable) */
    {"squared error", &rpi_diagonal_hessian, -1, 0, rpi_no_classes, NULL, NULL, NULL, 0, 0},
    {"softmax cross-entropy", &rpi_softmax_hessian, 0, RPI_REAL_MAX, rpi_class_each, rpi_right_largest, rpi_softmax,
     rpi_least_softmax, 1, 0},
    {"binary cross-entropy", &rpi_diagonal_hessian, 0, 1, rpi_two_classes, rpi_right_sides, rpi_logistic,
     rpi_least_binary, 1, 0},
    {"Huber loss", &rpi_diagonal_hessian, -1, 0, rpi_no_classes, NULL, NULL, NULL, 0, 1},
    {"Poisson loss", &rpi_diagonal_hessian, 0, RPI_REAL_MAX, rpi_no_classes, NULL, rpi_rate_of_log, rpi_least_poisson,
     0, 0},
};
static const rpi_loss *rpi_loss_of(const rp_net *net) { return &rpi_losses[net->loss]; }

typedef enum rpi_direction_kind { RPI_FORWARD, RPI_BACKWARD, RPI_TANGENT } rpi_direction_kind; /* one kernel each */
typedef struct rpi_activate_work {
    const rpi_buffers *b;
    const rpi_step *step;
    rpi_activate activate;
    rpi_direction_kind way;
    rpi_flow flow;
    rp_real *d, *v;         /* backward; each may be NULL */
    rp_real *t, *t2, *bend; /* tangent; t2 and bend may be NULL */
} rpi_activate_work;

/* >>maps
   An affine map's primitives; what is true of a map by itself stands in its row, so that no sweep asks which it is.
   Pointers to slots are to their first rows; p: flat parameters, or any other vector in their place. */

/* y = A x + b and, if u_out: u_out = own (|x| summed as the weights are, 1 for the bias) + |A| u; u NULL is 0. */
typedef struct rpi_apply_call {
    const rpi_buffers *b;
    const rpi_step *step;
    const rp_real *p;
    int n;         /* columns */
    int bias, add; /* b counts; y and u_out are added to */
    int rough;     /* as in rpi_product */
    const rp_real *x, *u;
    rp_real *y, *u_out;
    const rp_real *values; /* of the input slot: routes of max pools */
    ptrdiff_t ldx, ldy;    /* between rows; maps of shared weights and pools take those of the slots */
    rp_real own;
    const rpi_activate_work *then; /* the activation of y and u_out that follows; NULL: none */
} rpi_apply_call;

/* d_in = A' d and v_in = |A|' v, or A' v if plain. d or v may be NULL. */
typedef struct rpi_transposed_call {
    const rpi_buffers *b;
    const rpi_step *step;
    const rp_real *p;
    int n;
    int plain, add, rough; /* add: to d_in and v_in */
    const rp_real *d, *v;
    rp_real *d_in, *v_in;
    const rp_real *values;
    ptrdiff_t ld; /* as ldx and ldy */
} rpi_transposed_call;

/* scale sum_s d x' and scale2 sum_s v |x|' into the sink; d or v may be NULL. With weight[s] the second is scale2
   sum_s weight[s] |v x'|, or of the squares, of each sample's own sum over positions; v may be overwritten. */
typedef struct rpi_outer_call {
    const rpi_buffers *b;
    const rpi_step *step;
    int count, squares, bias; /* samples; squares in the place of magnitudes; with the sums for the bias */
    int rough;
    const rp_real *x, *d, *weight;
    rp_real *v;
    rp_real scale, scale2;
    const rpi_sink *sink;
} rpi_outer_call;

/* total[s] += c sum_w |dz_s/dw|, or of the squares, for z with dz/dout = e: of each sample's own gradient. */
typedef struct rpi_reach_call {
    const rpi_buffers *b;
    const rpi_step *step;
    int n, squares;
    const rp_real *x, *e;
    rp_real c;
    rp_real *total;
} rpi_reach_call;

typedef struct rpi_primitives {
    void (*apply)(const rpi_apply_call *call);
    void (*transposed)(const rpi_transposed_call *call);
    void (*outer)(const rpi_outer_call *call); /* of maps with parameters, as reach */
    void (*reach)(const rpi_reach_call *call);
} rpi_primitives;

struct rpi_map {
    rpi_primitives ways[2];                 /* by rpi_way */
    double (*worth)(const rpi_step *step);  /* multiply-adds of A x for one sample */
    int (*positions)(const rpi_step *step); /* products with one weight for one sample */
    int trains;                             /* it has parameters */
    int stacks;    /* each row of x is a unit, and apply and transposed take other ld: direct solves */
    int activates; /* apply to a batch runs what follows, while values are in L1 */
};

static rpi_apply_call rpi_apply_of(const rpi_buffers *b, const rpi_step *step, const rp_real *p, int n) {
    rpi_apply_call call;
    memset(&call, 0, sizeof call);
    call.b = b;
    call.step = step;
    call.p = p;
    call.n = n;
    call.bias = step->bias;
    call.add = step->add;
    call.ldx = call.ldy = b->ld;
    call.values = b->y[step->in];
    return call;
}

static rpi_transposed_call rpi_transposed_of(const rpi_buffers *b, const rpi_step *step, const rp_real *p, int n) {
    rpi_transposed_call call;
    memset(&call, 0, sizeof call);
    call.b = b;
    call.step = step;
    call.p = p;
    call.n = n;
    call.ld = b->ld;
    call.values = b->y[step->in];
    return call;
}

/* Whether a product that may be rough is: decided for all of its parts. */
static int rpi_rough(const rpi_buffers *b, int rough, int m, int n, int k) {
    const int least = b->kernels->rough_rows;
    return rough && least && m >= least && n >= least && k >= least;
}

/* The kernels on a team: each part takes rows of C, columns of the gradient, or rows of units. */
typedef struct rpi_product_work {
    const rpi_buffers *b;
    rpi_product product;
    int grain; /* of rows */
} rpi_product_work;

static void rpi_product_part(const void *context, int part, int parts) {
    const rpi_product_work *work = (const rpi_product_work *)context;
    const rpi_buffers *b = work->b;
    rpi_product q = work->product;
    int from = rpi_begin(q.m, work->grain, part, parts);
    q.m = rpi_begin(q.m, work->grain, part + 1, parts) - from;
    q.a += from * q.a_row;
    q.packed = b->packed + part * b->packed_size;
    if (q.b) q.c += from * q.ldc;
    if (q.b2) q.c2 += from * q.ldc;
    if (q.bias) q.bias += from;
    b->kernels->product(&q);
}

static void rpi_product_run(const rpi_buffers *b, const rpi_product *product) {
    rpi_product_work work;
    double worth = (double)product->m * product->n * product->k;
    work.b = b;
    work.product = *product;
    work.product.rough = rpi_rough(b, product->rough, product->m, product->n, product->k);
    work.grain = work.product.rough ? b->kernels->rough_rows : b->kernels->rows;
    rpi_share(b->team, rpi_parts(b->team, worth, product->m, work.grain), rpi_product_part, &work);
}

typedef struct rpi_outer_work {
    const rpi_buffers *b;
    const rpi_outer *outer;
} rpi_outer_work;

/* A part's scratch: for two panels of a batch, and for samples by themselves. */
static int rpi_panel_rows(const rpi_buffers *b) { return rpi_at_least(b->batch, RPI_LINE_REALS); }
static ptrdiff_t rpi_panel_size(const rpi_buffers *b) { return (ptrdiff_t)2 * RPI_PANEL * rpi_panel_rows(b); }
static rp_real *rpi_part_panel(const rpi_buffers *b, int part) { return b->panel + part * rpi_panel_size(b); }

static void rpi_outer_part(const void *context, int part, int parts) {
    const rpi_outer_work *work = (const rpi_outer_work *)context;
    const rpi_buffers *b = work->b;
    rpi_outer o = *work->outer;
    o.panel = rpi_part_panel(b, part);
    o.tile = b->tile + (ptrdiff_t)part * 2 * RPI_PANEL * RPI_ROWS_MOST;
    o.packed = b->packed + part * b->packed_size;
    o.rough = rpi_rough(b, o.rough, o.m, o.n, o.count);
    o.from = rpi_begin(o.n, RPI_PANEL, part, parts);
    o.end = rpi_begin(o.n, RPI_PANEL, part + 1, parts);
    o.bias = o.bias && part == 0;
    b->kernels->outer(&o);
}

static void rpi_outer_run(const rpi_buffers *b, const rpi_outer *outer) {
    rpi_outer_work work;
    double worth = (double)outer->m * outer->n * outer->count;
    work.b = b;
    work.outer = outer;
    rpi_share(b->team, rpi_parts(b->team, worth, outer->n, RPI_PANEL), rpi_outer_part, &work);
}

static rp_real *rpi_offset(rp_real *x, ptrdiff_t at) { return x ? x + at : NULL; }

static void rpi_activate_rows(const rpi_activate_work *work) {
    const rpi_kernels *kernels = work->b->kernels;
    const rpi_activate *a = &work->activate;
    switch (work->way) {
    case RPI_FORWARD: kernels->activate(a); break;
    case RPI_BACKWARD: kernels->activate_back(a, work->d, work->v, work->flow); break;
    case RPI_TANGENT: kernels->activate_tangent(a, work->t, work->t2, work->bend);
    }
}

/* All that an activation reads and writes. */
enum { RPI_ACTIVATE_ROWS = 9 };
static void rpi_activate_pointers(rpi_activate_work *work, rp_real **rows[RPI_ACTIVATE_ROWS]) {
    rpi_activate *a = &work->activate;
    rp_real **all[RPI_ACTIVATE_ROWS];
    all[0] = &a->y;
    all[1] = &a->slope;
    all[2] = &a->second;
    all[3] = &a->u;
    all[4] = &work->d;
    all[5] = &work->v;
    all[6] = &work->t;
    all[7] = &work->t2;
    all[8] = &work->bend;
    memcpy(rows, all, sizeof all);
}
static void rpi_activate_offset(rpi_activate_work *work, ptrdiff_t at) {
    rp_real **rows[RPI_ACTIVATE_ROWS];
    rpi_activate_pointers(work, rows);
    for (int i = 0; i < RPI_ACTIVATE_ROWS; i++) *rows[i] = rpi_offset(*rows[i], at);
}

/* The last entries of one row, too few for a vector: what is behind them is another's. */
static void rpi_activate_rest(rpi_activate_work work, int n) {
    rp_real rest[RPI_ACTIVATE_ROWS][RPI_LINE_REALS] = {{0}}, *from[RPI_ACTIVATE_ROWS], **rows[RPI_ACTIVATE_ROWS];
    rpi_activate_pointers(&work, rows);
    for (int i = 0; i < RPI_ACTIVATE_ROWS; i++) {
        from[i] = *rows[i];
        if (!from[i]) continue;
        rpi_copy(rest[i], from[i], n);
        *rows[i] = rest[i];
    }
    work.activate.n = work.b->kernels->lanes;
    rpi_activate_rows(&work);
    for (int i = 0; i < RPI_ACTIVATE_ROWS; i++)
        if (from[i]) rpi_copy(from[i], rest[i], n);
}

static void rpi_activate_part(const void *context, int part, int parts) {
    rpi_activate_work work = *(const rpi_activate_work *)context;
    rpi_activate *a = &work.activate;
    int from = rpi_begin(a->rows, 1, part, parts), rest = a->n % work.b->kernels->lanes;
    rpi_activate_offset(&work, from * a->ld);
    a->rows = rpi_begin(a->rows, 1, part + 1, parts) - from;
    a->bad += part;
    a->n -= rest;
    rpi_activate_rows(&work);
    if (!rest) return;
    rpi_activate_offset(&work, a->n);
    rpi_activate_rest(work, rest);
}

/* Of each sample by itself: what lies in slots, and what belongs to the step. */
static void rpi_activate_each(const rpi_activate_work *work) {
    const rpi_step *step = work->step;
    rpi_activate_work each = *work;
    rpi_activate *a = &each.activate;
    rp_real **rows[RPI_ACTIVATE_ROWS];
    rpi_activate_pointers(&each, rows);
    for (int s = 0; s < work->b->samples; s++) {
        rpi_activate_part(&each, 0, 1);
        for (int i = 0; i < RPI_ACTIVATE_ROWS; i++) {
            int own = rows[i] == &a->slope || rows[i] == &a->second || rows[i] == &each.bend;
            *rows[i] = rpi_offset(*rows[i], own ? step->outputs : step->out_rows);
        }
    }
}

static void rpi_activate_run(const rpi_activate_work *work) {
    const rpi_activate *a = &work->activate;
    double worth = 32.0 * a->rows * a->n; /* an exponential costs as much as some 32 multiply-adds */
    if (work->b->way == RPI_EACH) rpi_activate_each(work);
    else rpi_share(work->b->team, rpi_parts(work->b->team, worth, a->rows, 1), rpi_activate_part, work);
}

/* Dense: A is [outputs][inputs]. */
static rpi_product rpi_dense_product(const rpi_apply_call *call) {
    rpi_product product;
    memset(&product, 0, sizeof product);
    product.m = call->step->outputs;
    product.k = call->step->inputs;
    product.n = call->n;
    product.a = call->p + call->step->weights;
    product.a_row = call->step->inputs;
    product.a_column = 1;
    product.b = call->x;
    product.c = call->y;
    product.ldb = call->ldx;
    product.ldc = call->ldy;
    product.bias = call->bias ? call->p + call->step->biases : NULL;
    product.add = call->add;
    product.rough = call->rough;
    return product;
}

static void rpi_dense_apply(const rpi_apply_call *call) {
    const rpi_buffers *b = call->b;
    rpi_product product = rpi_dense_product(call);
    if (call->u_out) {
        b->kernels->column_sums(call->step->inputs, call->n, call->x, call->ldx, b->column, 0);
        for (int s = 0; s < call->n; s++) b->column[s] = call->own * (b->column[s] + (rp_real)call->bias);
        if (!call->u) rpi_fill_rows(call->step->outputs, call->n, call->ldy, b->column, call->u_out);
        product.b2 = call->u;
        product.c2 = call->u_out;
        product.column = b->column;
    }
    rpi_product_run(b, &product);
}

static void rpi_dense_transposed(const rpi_transposed_call *call) {
    rpi_product product;
    memset(&product, 0, sizeof product);
    product.m = call->step->inputs;
    product.k = call->step->outputs;
    product.n = call->n;
    product.a = call->p + call->step->weights;
    product.a_row = 1;
    product.a_column = call->step->inputs;
    product.b = call->d;
    product.c = call->d_in;
    product.ldb = product.ldc = call->ld;
    product.add = call->add;
    product.rough = call->rough;
    if (!call->plain) {
        product.b2 = call->v;
        product.c2 = call->v_in;
    }
    if (product.b || product.b2) rpi_product_run(call->b, &product);
    if (!call->plain || !call->v) return;
    product.b = call->v;
    product.c = call->v_in;
    rpi_product_run(call->b, &product);
}

static void rpi_dense_outer(const rpi_outer_call *call) {
    const rpi_buffers *b = call->b;
    const rpi_step *step = call->step;
    int n = rpi_columns(b, call->count);
    rpi_outer outer;
    if (call->squares) b->kernels->weigh(step->outputs, n, call->v, b->ld, call->v, b->ld, 0);
    if (call->weight) b->kernels->weigh(step->outputs, n, call->v, b->ld, call->weight, 0, 1);
    memset(&outer, 0, sizeof outer);
    outer.squares = call->squares;
    outer.rough = call->rough;
    outer.m = step->outputs;
    outer.n = step->inputs;
    outer.count = call->count;
    outer.d = call->d;
    outer.v = call->v;
    outer.y = call->x;
    outer.ld = b->ld;
    outer.scale = call->scale;
    outer.scale2 = call->scale2;
    outer.weights = step->weights;
    outer.biases = step->biases;
    outer.bias = call->bias;
    outer.sink = call->sink;
    rpi_outer_run(b, &outer);
}

static void rpi_dense_reach(const rpi_reach_call *call) {
    const rpi_buffers *b = call->b;
    rp_real *from = b->column, *to = b->column + b->ld;
    b->kernels->column_sums(call->step->inputs, call->n, call->x, b->ld, from, call->squares);
    b->kernels->column_sums(call->step->outputs, call->n, call->e, b->ld, to, call->squares);
    for (int s = 0; s < call->n; s++) call->total[s] += call->c * to[s] * (from[s] + (rp_real)call->step->bias);
}

static double rpi_dense_worth(const rpi_step *step) { return (double)step->inputs * step->outputs; }
static int rpi_one_position(const rpi_step *step) {
    (void)step;
    return 1;
}

/* Maps of shared weights. What such a step needs of the scratch in rpi_buffers: */
/* Taps of a block: a multiple of RPI_TAPS_MOST; the pointers to their rows stay in L2. */
static int rpi_taps_at_once(const rpi_geometry *g) {
    int taps = RPI_WEIGHTS;
    while (taps > RPI_TAPS_MOST && (ptrdiff_t)taps * g->positions > RPI_L2_REALS / 4) taps /= 2;
    return taps;
}
static void rpi_scratch_of(const rpi_step *step, rpi_buffers *b) {
    const rpi_geometry *g = &step->geometry;
    ptrdiff_t covering = (ptrdiff_t)g->window * g->group_filters;
    if (!g->filters) {
        b->rough_rows = rpi_larger(b->rough_rows, step->outputs);
        return;
    }
    b->at_size = rpi_larger(b->at_size, rpi_larger(g->taps, covering));
    if (g->window == 1) b->at_size = rpi_larger(b->at_size, g->positions); /* of a sample by itself */
    b->rows_size = rpi_larger(b->rows_size, (ptrdiff_t)g->positions * rpi_taps_at_once(g));
    b->shared_size = rpi_larger(b->shared_size, ((ptrdiff_t)g->taps + RPI_LINE_REALS) * g->filters + RPI_LINE_REALS);
    b->sums_size = rpi_larger(b->sums_size, (ptrdiff_t)rpi_at_most(g->group_filters, RPI_WEIGHTS) * RPI_WEIGHTS);
}

/* For rough products: halves of d and v, of a panel, and of a block of weights and its values. */
static ptrdiff_t rpi_packed_size(const rpi_buffers *b) {
    const ptrdiff_t columns = (b->ld + RPI_ROUGH_STEP - 1) / RPI_ROUGH_STEP * RPI_ROUGH_STEP;
    const ptrdiff_t outer = (b->rough_rows + 2 * RPI_PANEL) * columns * 3 / 2 + 2 * RPI_ROUGH_STEP * RPI_PANEL;
    const ptrdiff_t product = (RPI_ROUGH_ROWS + columns) * RPI_ROUGH_TERMS + 2 * RPI_ROUGH_STEP * RPI_PANEL;
    const ptrdiff_t least = (ptrdiff_t)RPI_M_BLOCK * RPI_K_BLOCK;
    return b->kernels->rough_rows ? rpi_larger(least, rpi_larger(outer, product)) : least;
}

/* Rows at which channel or filter 0 has a position. */
static ptrdiff_t rpi_in_at(const rpi_geometry *g, int position) {
    return position / g->width * g->in_y + position % g->width * g->in_x;
}
static ptrdiff_t rpi_out_at(const rpi_geometry *g, int position) {
    return position / g->out_width * g->out_y + position % g->out_width * g->out_x;
}

/* Scratch of a thread: offsets into A and into B of the terms of a gathered product. */
typedef struct rpi_taps {
    ptrdiff_t *a_at, *b_at;
    ptrdiff_t origin; /* of a window: added to b_at */
    int count, whole; /* whole: all of a window's taps, at b_at from its first on */
} rpi_taps;

static rpi_taps rpi_taps_of(const rpi_buffers *b, int part) {
    rpi_taps taps;
    taps.a_at = b->at + (ptrdiff_t)part * 2 * b->at_size;
    taps.b_at = taps.a_at + b->at_size;
    taps.origin = 0;
    taps.count = 0;
    taps.whole = 0;
    return taps;
}

/* The window at an output position: offsets into A (weights of one filter) and B (rows of the group's channels) of
   those of its taps that lie inside the input. From one whole window to the next only the origin changes. */
static void rpi_window_taps(const rpi_geometry *g, int position, ptrdiff_t ld, rpi_taps *taps) {
    int y = position / g->out_width * g->stride_height - g->padding_height;
    int x = position % g->out_width * g->stride_width - g->padding_width;
    int k = 0, before = taps->whole;
    taps->whole = y >= 0 && y + g->kernel_height <= g->height && x >= 0 && x + g->kernel_width <= g->width;
    taps->origin = taps->whole ? (y * g->in_y + x * g->in_x) * ld : 0;
    if (taps->whole && before) return;
    if (taps->whole) y = x = 0;
    for (int c = 0; c < g->channels; c++)
        for (int i = 0; i < g->kernel_height; i++)
            for (int j = 0; j < g->kernel_width; j++) {
                if (y + i < 0 || y + i >= g->height || x + j < 0 || x + j >= g->width) continue;
                taps->a_at[k] = (ptrdiff_t)c * g->window + (ptrdiff_t)i * g->kernel_width + j;
                taps->b_at[k] = (c * g->in_channel + (y + i) * g->in_y + (x + j) * g->in_x) * ld;
                k++;
            }
    taps->count = k;
}

/* The other way: the outputs in from..end - 1 whose windows cover an input position, for each of a group's filters. */
static void rpi_covering_taps(const rpi_step *step, int position, ptrdiff_t ld, rpi_taps *taps) {
    const rpi_geometry *g = &step->geometry;
    int y = position / g->width + g->padding_height, x = position % g->width + g->padding_width;
    int k = 0;
    for (int i = 0; i < g->kernel_height && i <= y; i++) {
        int row = (y - i) / g->stride_height;
        if ((y - i) % g->stride_height || row >= g->out_height) continue;
        for (int j = 0; j < g->kernel_width && j <= x; j++) {
            int column = (x - j) / g->stride_width, output = row * g->out_width + column;
            if ((x - j) % g->stride_width || column >= g->out_width) continue;
            if (output < step->from || output >= step->end) continue;
            for (int f = 0; f < g->group_filters; f++) {
                taps->a_at[k] = (ptrdiff_t)f * g->taps + (ptrdiff_t)i * g->kernel_width + j;
                taps->b_at[k] = (f * g->out_filter + row * g->out_y + column * g->out_x) * ld;
                k++;
            }
        }
    }
    taps->count = k;
}

static void rpi_magnitudes(const rpi_buffers *b, ptrdiff_t n, const rp_real *x, rp_real *out) {
    b->kernels->column_sums(1, rpi_columns(b, (int)n), x, 0, out, 0);
}

/* |W| into the shared scratch. */
static void rpi_shared_magnitudes(const rpi_buffers *b, const rpi_step *step, const rp_real *weights) {
    const rpi_geometry *g = &step->geometry;
    ptrdiff_t count = (ptrdiff_t)g->filters * g->taps, whole = count / RPI_LINE_REALS * RPI_LINE_REALS;
    for (ptrdiff_t at = 0; at < whole; at += RPI_LARGEST) {
        int some = whole - at < RPI_LARGEST ? (int)(whole - at) : RPI_LARGEST;
        b->kernels->column_sums(1, some, weights + at, 0, b->shared + at, 0);
    }
    for (ptrdiff_t at = whole; at < count; at++) b->shared[at] = RPI_MATH(fabs)(weights[at]);
}

/* y of a group at one position */
static void rpi_apply_window(const rpi_apply_call *call, const rpi_taps *taps, int position, int group) {
    const rpi_geometry *g = &call->step->geometry;
    ptrdiff_t ld = call->b->ld, filter = (ptrdiff_t)group * g->group_filters;
    const rp_real *bias = call->bias ? call->p + call->step->biases + filter : NULL;
    rpi_gemm q;
    q.m = g->group_filters;
    q.n = call->n;
    q.k = taps->count;
    q.a = call->p + call->step->weights + filter * g->taps;
    q.a_row = g->taps;
    q.a_column = q.ldb = 0;
    q.a_at = taps->a_at;
    q.b = call->x + (ptrdiff_t)group * g->channels * g->in_channel * ld + taps->origin;
    q.b_at = taps->b_at;
    q.c = call->y + (filter * g->out_filter + rpi_out_at(g, position)) * ld;
    q.ldc = q.start_row = g->out_filter * ld;
    q.start = call->add ? q.c : bias;
    q.per_row = !call->add && bias;
    call->b->kernels->gemm(&q);
}

/* u_out of a group at one position; column: a row of scratch */
static void rpi_u_window(const rpi_apply_call *call, const rpi_taps *taps, int position, int group, rp_real *column) {
    const rpi_geometry *g = &call->step->geometry;
    const rpi_buffers *b = call->b;
    ptrdiff_t ld = b->ld, filter = (ptrdiff_t)group * g->group_filters;
    ptrdiff_t from = (ptrdiff_t)group * g->channels * g->in_channel * ld + taps->origin;
    rpi_window window;
    rpi_gemm q;
    window.k = taps->count;
    window.n = call->n;
    window.at = taps->b_at;
    window.x = call->x + from;
    b->kernels->window_magnitudes(&window, column);
    for (int s = 0; s < call->n; s++) column[s] = call->own * (column[s] + (rp_real)call->bias);
    q.m = g->group_filters;
    q.n = call->n;
    q.k = call->u ? taps->count : 0;
    q.a = b->shared + filter * g->taps;
    q.a_row = g->taps;
    q.a_column = q.ldb = 0;
    q.a_at = taps->a_at;
    q.b = call->u ? call->u + from : NULL;
    q.b_at = taps->b_at;
    q.c = call->u_out + (filter * g->out_filter + rpi_out_at(g, position)) * ld;
    q.ldc = g->out_filter * ld;
    q.start = column;
    q.start_row = 0;
    q.per_row = 0;
    if (call->add) {
        b->kernels->add_rows(q.m, q.n, 1, column, 0, q.c, q.ldc);
        q.start = q.c;
        q.start_row = q.ldc;
    }
    b->kernels->gemm(&q);
}

/* What follows, at one position. */
static void rpi_activate_at(const rpi_apply_call *call, int position, int part) {
    const rpi_geometry *g = &call->step->geometry;
    rpi_activate_work work = *call->then;
    work.activate.rows = g->filters;
    work.activate.ld = g->out_filter * call->b->ld;
    work.activate.bad += part;
    rpi_activate_offset(&work, (rpi_out_at(g, position) - call->step->out_row) * call->b->ld);
    rpi_activate_rows(&work);
}

static void rpi_shared_apply_part(const void *context, int part, int parts) {
    const rpi_apply_call *call = (const rpi_apply_call *)context;
    const rpi_buffers *b = call->b;
    const rpi_step *step = call->step;
    rpi_taps taps = rpi_taps_of(b, part);
    int count = step->end - step->from, end = step->from + rpi_begin(count, 1, part + 1, parts);
    for (int t = step->from + rpi_begin(count, 1, part, parts); t < end; t++) {
        rpi_window_taps(&step->geometry, t, b->ld, &taps);
        for (int group = 0; group < step->geometry.groups; group++) {
            rpi_apply_window(call, &taps, t, group);
            if (call->u_out) rpi_u_window(call, &taps, t, group, b->columns + part * b->ld);
        }
        if (call->then) rpi_activate_at(call, t, part);
    }
}

static double rpi_shared_worth(const rpi_step *step) {
    return (double)(step->end - step->from) * step->geometry.filters * step->geometry.taps;
}

static void rpi_shared_apply(const rpi_apply_call *call) {
    const rpi_step *step = call->step;
    double worth = rpi_shared_worth(step) * call->n;
    if (call->u) rpi_shared_magnitudes(call->b, step, call->p + step->weights);
    rpi_share(call->b->team, rpi_parts(call->b->team, worth, step->end - step->from, 1), rpi_shared_apply_part, call);
}

/* in = A' out of a group at one input position, with A, or its magnitudes, in `weights` */
static void rpi_cover_window(const rpi_transposed_call *call, const rpi_taps *taps, int position, int group,
                             const rp_real *weights, const rp_real *out, rp_real *in) {
    const rpi_geometry *g = &call->step->geometry;
    ptrdiff_t ld = call->b->ld, filter = (ptrdiff_t)group * g->group_filters;
    rpi_gemm q;
    q.m = g->channels;
    q.n = call->n;
    q.k = taps->count;
    q.a = weights + filter * g->taps;
    q.a_row = g->window;
    q.a_column = q.ldb = 0;
    q.a_at = taps->a_at;
    q.b = out + filter * g->out_filter * ld;
    q.b_at = taps->b_at;
    q.c = in + ((ptrdiff_t)group * g->channels * g->in_channel + rpi_in_at(g, position)) * ld;
    q.ldc = q.start_row = g->in_channel * ld;
    q.start = call->add ? q.c : NULL;
    q.per_row = 0;
    call->b->kernels->gemm(&q);
}

static void rpi_shared_transposed_part(const void *context, int part, int parts) {
    const rpi_transposed_call *call = (const rpi_transposed_call *)context;
    const rpi_buffers *b = call->b;
    const rpi_step *step = call->step;
    const rp_real *weights = call->p + step->weights;
    rpi_taps taps = rpi_taps_of(b, part);
    int count = step->in_end - step->in_from, end = step->in_from + rpi_begin(count, 1, part + 1, parts);
    for (int t = step->in_from + rpi_begin(count, 1, part, parts); t < end; t++) {
        rpi_covering_taps(step, t, b->ld, &taps);
        for (int group = 0; group < step->geometry.groups; group++) {
            if (call->d) rpi_cover_window(call, &taps, t, group, weights, call->d, call->d_in);
            if (call->v)
                rpi_cover_window(call, &taps, t, group, call->plain ? weights : b->shared, call->v, call->v_in);
        }
    }
}

static void rpi_shared_transposed(const rpi_transposed_call *call) {
    const rpi_step *step = call->step;
    double worth = rpi_shared_worth(step) * call->n;
    int extent = step->in_end - step->in_from;
    if (call->v && !call->plain) rpi_shared_magnitudes(call->b, step, call->p + step->weights);
    rpi_share(call->b->team, rpi_parts(call->b->team, worth, extent, 1), rpi_shared_transposed_part, call);
}

/* Sums over positions of d with x, and of v with x, or |x|: [filters][ld]. */
typedef struct rpi_sums {
    const rp_real *d, *v;         /* each may be NULL */
    int magnitudes, add_d, add_v; /* add: to what is there */
    rp_real *of_d, *of_v;
    ptrdiff_t ld, bias, bias_step; /* where the sums for the bias are, and how far apart */
    ptrdiff_t size;                /* of all */
} rpi_sums;

static rpi_piece rpi_piece_of(const rpi_outer_call *call, rp_real *gradient, rp_real *curvature) {
    rpi_piece piece;
    memset(&piece, 0, sizeof piece);
    piece.gradient = call->d ? gradient : NULL;
    piece.curvature = call->v ? curvature : NULL;
    piece.scale = call->scale;
    piece.scale2 = call->scale2;
    return piece;
}

/* From one row of a map's sums, [filters][taps + 1], to the next: whole vectors. */
static ptrdiff_t rpi_sums_row(const rpi_geometry *g) {
    return ((ptrdiff_t)g->taps + RPI_LINE_REALS) / RPI_LINE_REALS * RPI_LINE_REALS;
}

/* Sums over positions of d and v with the windows of x. Taps are numbered as the weights of one filter; the one
   behind the last is the bias, whose input is 1. Either for an outer product or for a reach: */
typedef struct rpi_sums_work {
    const rpi_buffers *b;
    const rpi_step *step;
    const rpi_outer_call *outer; /* NULL: reach */
    const rpi_reach_call *reach;
    const rp_real *x;
    int n, taps; /* taps: with the bias's */
} rpi_sums_work;

/* Some filters of a group and some taps, for samples column..end - 1. */
typedef struct rpi_sums_block {
    int group, filter, filters, tap, taps, column, end;
} rpi_sums_block;

/* Pointers to the rows that a tap of a group reads at all positions, RPI_TAPS_MOST pointers apart. */
static void rpi_tap_rows(const rpi_sums_work *w, int group, int tap, const rp_real **rows) {
    const rpi_geometry *g = &w->step->geometry;
    const rpi_buffers *b = w->b;
    const int i = tap % g->window / g->kernel_width - g->padding_height, j = tap % g->kernel_width - g->padding_width;
    const ptrdiff_t channel = ((ptrdiff_t)group * g->channels + tap / g->window) * g->in_channel;
    int p = g->first;
    while (p < g->positions) {
        int y = p / g->out_width, end = rpi_at_most((y + 1) * g->out_width, g->positions);
        int row = y * g->stride_height + i, left = (p - y * g->out_width) * g->stride_width + j;
        for (; p < end; p++, left += g->stride_width, rows += RPI_TAPS_MOST) {
            int inside = row >= 0 && row < g->height && left >= 0 && left < g->width;
            *rows = inside ? w->x + (channel + row * g->in_y + left * g->in_x) * b->ld : b->zeros;
        }
    }
}
static void rpi_bias_rows(const rpi_sums_work *w, const rp_real **rows) {
    const rpi_geometry *g = &w->step->geometry;
    for (int p = g->first; p < g->positions; p++, rows += RPI_TAPS_MOST) *rows = w->b->ones;
}

/* Those of a block's taps: for each RPI_TAPS_MOST of them, of which the last may repeat, [positions][RPI_TAPS_MOST]. */
static void rpi_block_rows(const rpi_sums_work *w, const rpi_sums_block *k, const rp_real **rows) {
    const rpi_geometry *g = &w->step->geometry;
    const int whole = (k->taps + RPI_TAPS_MOST - 1) / RPI_TAPS_MOST * RPI_TAPS_MOST;
    for (int j = 0; j < whole; j++) {
        int tap = k->tap + rpi_at_most(j, k->taps - 1), place = j % RPI_TAPS_MOST;
        const rp_real **to = rows + (ptrdiff_t)(j - place) * (g->positions - g->first) + place;
        if (tap < g->taps) rpi_tap_rows(w, k->group, tap, to);
        else rpi_bias_rows(w, to);
    }
}

/* Samples whose rows of a tap stay in L1. */
static int rpi_sums_columns(const rpi_sums_work *w) {
    const rpi_geometry *g = &w->step->geometry;
    return RPI_LANES_MOST * rpi_at_least(RPI_POSITIONS / rpi_at_least(g->positions - g->first, 1), 1);
}

/* Some correlations of a block; each has its d and where its sums go, as if at the first tap. */
static void rpi_correlate_block(const rpi_sums_work *w, const rpi_sums_block *k, int part, const rpi_correlation *each,
                                int count) {
    const rpi_buffers *b = w->b;
    const rpi_geometry *g = &w->step->geometry;
    const int positions = g->positions - g->first, columns = rpi_sums_columns(w), lanes = b->kernels->lanes;
    const ptrdiff_t filter = (ptrdiff_t)k->group * g->group_filters + k->filter;
    const rp_real **rows = b->rows + part * b->rows_size;
    rpi_block_rows(w, k, rows);
    for (int s = k->column; s < k->end; s += columns)
        for (int j = 0; j < k->taps; j += RPI_TAPS_MOST)
            for (int c = 0; c < count; c++) {
                rpi_correlation q = each[c];
                q.m = k->filters;
                q.taps = rpi_at_most(k->taps - j, RPI_TAPS_MOST);
                q.positions = positions;
                q.from = s;
                q.n = rpi_at_most(k->end - s, columns);
                q.d += (filter * g->out_filter + rpi_out_at(g, g->first)) * b->ld;
                q.d_row = g->out_filter * b->ld;
                q.d_step = (g->out_width > 1 ? g->out_x : g->out_y) * b->ld;
                q.y = rows + (ptrdiff_t)j * positions;
                if (!q.total) q.sums += j * lanes;
                b->kernels->correlate(&q);
            }
}

/* A block's sums [filters][RPI_WEIGHTS][lanes], added up over their lanes, into the map's. */
static void rpi_add_lanes(const rpi_sums_work *w, const rpi_sums_block *k, const rp_real *sums, rp_real *out) {
    const rpi_geometry *g = &w->step->geometry;
    const rpi_kernels *kernels = w->b->kernels;
    const int lanes = kernels->lanes, n = rpi_columns(w->b, k->taps);
    rp_real turned[RPI_LANES_MOST * RPI_WEIGHTS];
    out += ((ptrdiff_t)k->group * g->group_filters + k->filter) * rpi_sums_row(g) + k->tap;
    for (int f = 0; f < k->filters; f++, sums += RPI_WEIGHTS * lanes, out += rpi_sums_row(g)) {
        kernels->transpose(sums, lanes, k->taps, lanes, turned, RPI_WEIGHTS, n);
        for (int i = 1; i < lanes; i++) kernels->add_rows(1, n, 1, turned + i * RPI_WEIGHTS, 0, turned, 0);
        rpi_copy(out, turned, k->taps);
    }
}

/* Gradient and curvature of a block into the shared scratch. */
static void rpi_outer_block(const rpi_sums_work *w, const rpi_sums_block *k, int part) {
    const rpi_buffers *b = w->b;
    const rpi_outer_call *call = w->outer;
    const int lanes = b->kernels->lanes;
    const ptrdiff_t size = b->sums_size * lanes;
    rp_real *sums = b->sums + 2 * part * size;
    rpi_correlation each[2];
    int count = 0;
    memset(each, 0, sizeof each);
    if (call->d) {
        each[count].d = call->d;
        each[count].sums = sums;
        count++;
    }
    if (call->v) {
        each[count].d = call->v;
        each[count].sums = sums + size;
        each[count].weight = call->weight;
        each[count].magnitudes = !call->weight;
        each[count].squares = call->squares;
        count++;
    }
    for (int i = 0; i < count; i++) {
        each[i].sums_row = RPI_WEIGHTS;
        rpi_zero(each[i].sums, (ptrdiff_t)k->filters * RPI_WEIGHTS * lanes);
    }
    rpi_correlate_block(w, k, part, each, count);
    if (call->d) rpi_add_lanes(w, k, sums, b->shared);
    if (call->v) rpi_add_lanes(w, k, sums + size, b->shared + b->shared_size);
}

/* For each sample: the sizes of a block's own sums. */
static void rpi_reach_block(const rpi_sums_work *w, const rpi_sums_block *k, int part) {
    const rpi_buffers *b = w->b;
    rpi_correlation q;
    memset(&q, 0, sizeof q);
    q.d = w->reach->e;
    q.squares = w->reach->squares;
    q.total = b->columns + part * b->ld;
    rpi_correlate_block(w, k, part, &q, 1);
}

/* All blocks: for an outer product each part has taps of its own, for a reach it has samples of its own. The rows of
   a block's filters stay in L2. */
static void rpi_sums_part(const void *context, int part, int parts) {
    const rpi_sums_work *w = (const rpi_sums_work *)context;
    const rpi_buffers *b = w->b;
    const rpi_geometry *g = &w->step->geometry;
    const ptrdiff_t filter = ((ptrdiff_t)g->positions - g->first) * rpi_sums_columns(w) + 1;
    const int filters = rpi_at_least(rpi_at_most((int)(RPI_L2_REALS / filter), RPI_WEIGHTS) / 4 * 4, 4);
    rp_real *total = b->columns + part * b->ld;
    int from = 0, end = w->taps, taps = rpi_taps_at_once(g);
    rpi_sums_block k;
    k.column = 0;
    k.end = w->n;
    if (w->outer) {
        from = rpi_begin(w->taps, RPI_TAPS_MOST, part, parts);
        end = rpi_begin(w->taps, RPI_TAPS_MOST, part + 1, parts);
    } else {
        k.column = rpi_begin(w->n, b->kernels->lanes, part, parts);
        k.end = rpi_begin(w->n, b->kernels->lanes, part + 1, parts);
        rpi_zero(total + k.column, k.end - k.column);
    }
    for (k.group = 0; k.group < g->groups; k.group++)
        for (k.filter = 0; k.filter < g->group_filters; k.filter += filters)
            for (k.tap = from; k.tap < end; k.tap += taps) {
                k.filters = rpi_at_most(g->group_filters - k.filter, filters);
                k.taps = rpi_at_most(end - k.tap, taps);
                if (w->outer) rpi_outer_block(w, &k, part);
                else rpi_reach_block(w, &k, part);
            }
    if (w->reach)
        b->kernels->add_rows(1, k.end - k.column, w->reach->c, total + k.column, 0, w->reach->total + k.column, 0);
}

static double rpi_sums_worth(const rpi_sums_work *w) {
    return (double)w->step->geometry.positions * w->n * w->step->geometry.filters * w->step->geometry.taps;
}

/* Gradient and curvature that have been added up into the sink. */
static void rpi_take_sums(const rpi_outer_call *call, const rpi_sums *sums) {
    const rpi_step *step = call->step;
    const rpi_geometry *g = &step->geometry;
    rpi_piece piece = rpi_piece_of(call, sums->of_d, sums->of_v);
    piece.rows = g->filters;
    piece.n = g->taps;
    piece.ld = sums->ld;
    piece.stride = g->taps;
    piece.offset = step->weights;
    call->sink->take(call->sink, &piece);
    if (!call->bias) return;
    piece.offset = step->biases;
    piece.gradient = rpi_offset(sums->of_d, sums->bias);
    piece.curvature = rpi_offset(sums->of_v, sums->bias);
    piece.rows = sums->bias_step == 1 ? 1 : g->filters;
    piece.n = sums->bias_step == 1 ? g->filters : 1;
    piece.stride = 1;
    call->sink->take(call->sink, &piece);
}

/* Where each tap reads rows of its own (recurrent layers), the sums are products of d with transposed rows, position by
   position; not worth it where few filters share these. */
static int rpi_worth_panels(const rpi_geometry *g) {
    return g->window == 1 && g->group_filters >= RPI_FILTERS && g->first < g->positions;
}

/* A block's taps at a position: [samples][RPI_PANEL]. */
static void rpi_tap_panel(const rpi_sums_work *w, const rpi_sums_block *k, int position, rp_real *panel) {
    const rpi_geometry *g = &w->step->geometry;
    const rpi_buffers *b = w->b;
    const int row = position / g->out_width * g->stride_height - g->padding_height;
    const int column = position % g->out_width * g->stride_width - g->padding_width;
    const int inside = row >= 0 && row < g->height && column >= 0 && column < g->width;
    const int n = rpi_columns(b, k->taps), own = rpi_at_most(g->taps - k->tap, k->taps);
    const ptrdiff_t channel = (ptrdiff_t)k->group * g->channels + k->tap;
    const ptrdiff_t at = channel * g->in_channel + row * g->in_y + column * g->in_x;
    if (inside && own)
        b->kernels->transpose(w->x + at * b->ld, g->in_channel * b->ld, own, w->outer->count, panel, RPI_PANEL, n);
    for (int s = 0; s < w->outer->count; s++, panel += RPI_PANEL) {
        if (!inside || !own) rpi_zero(panel, n);
        if (own < k->taps) panel[own] = 1; /* the bias's */
    }
}

/* d of a block's group at a position, times a panel, is added to the sums. */
static void rpi_add_panel(const rpi_sums_work *w, const rpi_sums_block *k, int position, const rp_real *d,
                          const rp_real *panel, rp_real *sums) {
    const rpi_geometry *g = &w->step->geometry;
    const rpi_buffers *b = w->b;
    const ptrdiff_t filter = (ptrdiff_t)k->group * g->group_filters;
    rpi_gemm q;
    memset(&q, 0, sizeof q);
    q.m = g->group_filters;
    q.n = rpi_columns(b, k->taps);
    q.k = w->outer->count;
    q.a = d + (filter * g->out_filter + rpi_out_at(g, position)) * b->ld;
    q.a_row = g->out_filter * b->ld;
    q.a_column = 1;
    q.b = panel;
    q.ldb = RPI_PANEL;
    q.c = sums + filter * rpi_sums_row(g) + k->tap;
    q.ldc = q.start_row = rpi_sums_row(g);
    if (position > g->first) q.start = q.c;
    b->kernels->gemm(&q);
}

static void rpi_panels_part(const void *context, int part, int parts) {
    const rpi_sums_work *w = (const rpi_sums_work *)context;
    const rpi_outer_call *call = w->outer;
    const rpi_buffers *b = w->b;
    const rpi_geometry *g = &w->step->geometry;
    const int from = rpi_begin(w->taps, RPI_LINE_REALS, part, parts),
              end = rpi_begin(w->taps, RPI_LINE_REALS, part + 1, parts);
    rp_real *panel = rpi_part_panel(b, part);
    rpi_sums_block k;
    memset(&k, 0, sizeof k);
    for (k.group = 0; k.group < g->groups; k.group++)
        for (k.tap = from; k.tap < end; k.tap += RPI_PANEL) {
            k.taps = rpi_at_most(end - k.tap, RPI_PANEL);
            for (int p = g->first; p < g->positions; p++) {
                rpi_tap_panel(w, &k, p, panel);
                if (call->d) rpi_add_panel(w, &k, p, call->d, panel, b->shared);
                if (!call->v) continue;
                for (ptrdiff_t s = 0; s < call->count; s++)
                    rpi_magnitudes(b, k.taps, panel + s * RPI_PANEL, panel + s * RPI_PANEL);
                rpi_add_panel(w, &k, p, call->v, panel, b->shared + b->shared_size);
            }
        }
}

/* Each sum in the way that suits it: those of each sample's own only by correlations. */
static void rpi_shared_outer(const rpi_outer_call *call) {
    const rpi_buffers *b = call->b;
    const rpi_geometry *g = &call->step->geometry;
    const int own = call->weight || call->squares;
    rpi_outer_call panels = *call, rest = *call;
    rpi_sums_work w;
    rpi_sums sums;
    memset(&w, 0, sizeof w);
    w.b = b;
    w.step = call->step;
    w.x = call->x;
    w.n = rpi_columns(b, call->count);
    w.taps = g->taps + call->bias;
    if (rpi_worth_panels(g)) {
        rest.d = NULL;
        if (own) panels.v = NULL;
        else rest.v = NULL;
    } else {
        panels.d = NULL;
        panels.v = NULL;
    }
    w.outer = &panels;
    if (panels.d || panels.v)
        rpi_share(b->team, rpi_parts(b->team, rpi_sums_worth(&w), w.taps, RPI_LINE_REALS), rpi_panels_part, &w);
    w.outer = &rest;
    if (rest.d || rest.v)
        rpi_share(b->team, rpi_parts(b->team, rpi_sums_worth(&w), w.taps, RPI_TAPS_MOST), rpi_sums_part, &w);
    memset(&sums, 0, sizeof sums);
    sums.of_d = call->d ? b->shared : NULL;
    sums.of_v = call->v ? b->shared + b->shared_size : NULL;
    sums.ld = sums.bias_step = rpi_sums_row(g);
    sums.bias = g->taps;
    rpi_take_sums(call, &sums);
}

static void rpi_shared_reach(const rpi_reach_call *call) {
    rpi_team *team = call->b->team;
    rpi_sums_work w;
    memset(&w, 0, sizeof w);
    w.b = call->b;
    w.step = call->step;
    w.reach = call;
    w.x = call->x;
    w.n = call->n;
    w.taps = call->step->geometry.taps + call->step->bias;
    rpi_share(team, rpi_parts(team, rpi_sums_worth(&w), w.n, call->b->kernels->lanes), rpi_sums_part, &w);
}

static int rpi_shared_positions(const rpi_step *step) { return step->geometry.positions; }

/* Maps without parameters. A copy of some rows of one slot to some rows of another: */
static void rpi_copy_rows(const rpi_kernels *kernels, int rows, int n, const rp_real *in, ptrdiff_t ldi, rp_real *out,
                          ptrdiff_t ldo, int add) {
    if (add) {
        kernels->add_rows(rows, n, 1, in, ldi, out, ldo);
        return;
    }
    for (int i = 0; i < rows; i++) rpi_copy(out + i * ldo, in + i * ldi, n);
}

static void rpi_copy_apply(const rpi_apply_call *call) {
    const rpi_kernels *kernels = call->b->kernels;
    const rpi_step *step = call->step;
    ptrdiff_t in = step->in_row * call->ldx, out = step->out_row * call->ldy;
    rpi_copy_rows(kernels, step->outputs, call->n, call->x + in, call->ldx, call->y + out, call->ldy, call->add);
    if (!call->u_out) return;
    if (call->u)
        rpi_copy_rows(kernels, step->outputs, call->n, call->u + in, call->ldx, call->u_out + out, call->ldy,
                      call->add);
    else if (!call->add) rpi_fill_rows(step->outputs, call->n, call->ldy, NULL, call->u_out + out);
}

static void rpi_copy_transposed(const rpi_transposed_call *call) {
    const rpi_kernels *kernels = call->b->kernels;
    const rpi_step *step = call->step;
    ptrdiff_t ld = call->ld, in = step->in_row * ld, out = step->out_row * ld;
    if (call->d) rpi_copy_rows(kernels, step->outputs, call->n, call->d + out, ld, call->d_in + in, ld, call->add);
    if (call->v) rpi_copy_rows(kernels, step->outputs, call->n, call->v + out, ld, call->v_in + in, ld, call->add);
}

/* Pools: the window of channel c begins at channel c's rows. The routes of a max pool follow the values in its input
   slot, whatever is sent along them. */
typedef void (*rpi_pool_window)(const rpi_kernels *kernels, const rpi_window *window, ptrdiff_t from, ptrdiff_t to,
                                const rp_real *in, rp_real *out);

static void rpi_pool(const rpi_buffers *b, const rpi_step *step, int n, const rp_real *in, rp_real *out, int alone,
                     rpi_pool_window each) {
    const rpi_geometry *g = &step->geometry;
    rpi_taps taps = rpi_taps_of(b, 0);
    rpi_window window;
    window.n = n;
    window.at = taps.b_at;
    window.alone = alone;
    for (int t = 0; t < step->end; t++) {
        rpi_window_taps(g, t, b->ld, &taps);
        window.k = taps.count;
        for (int c = 0; c < g->filters; c++) {
            ptrdiff_t from = c * g->in_channel * b->ld + taps.origin, to = (c * g->out_filter + t) * b->ld;
            window.x = b->y[step->in] + from;
            each(b->kernels, &window, from, to, in, out);
        }
    }
}

static void rpi_max_window(const rpi_kernels *kernels, const rpi_window *window, ptrdiff_t from, ptrdiff_t to,
                           const rp_real *in, rp_real *out) {
    kernels->select(window, in + from, out + to);
}
static void rpi_max_window_back(const rpi_kernels *kernels, const rpi_window *window, ptrdiff_t from, ptrdiff_t to,
                                const rp_real *in, rp_real *out) {
    kernels->select_back(window, in + to, out + from);
}
static void rpi_avg_window(const rpi_kernels *kernels, const rpi_window *window, ptrdiff_t from, ptrdiff_t to,
                           const rp_real *in, rp_real *out) {
    rp_real share = 1 / (rp_real)window->k;
    rpi_zero(out + to, window->n);
    for (int j = 0; j < window->k; j++)
        kernels->add_rows(1, window->n, share, in + from + window->at[j], 0, out + to, 0);
}
static void rpi_avg_window_back(const rpi_kernels *kernels, const rpi_window *window, ptrdiff_t from, ptrdiff_t to,
                                const rp_real *in, rp_real *out) {
    rp_real share = 1 / (rp_real)window->k;
    for (int j = 0; j < window->k; j++) {
        rp_real *row = out + from + window->at[j];
        if (window->alone) rpi_zero(row, window->n);
        kernels->add_rows(1, window->n, share, in + to, 0, row, 0);
    }
}

static void rpi_pool_apply(const rpi_apply_call *call, rpi_pool_window each) {
    rpi_pool(call->b, call->step, call->n, call->x, call->y, 0, each);
    if (!call->u_out) return;
    if (call->u) rpi_pool(call->b, call->step, call->n, call->u, call->u_out, 0, each);
    else rpi_fill_rows(call->step->outputs, call->n, call->b->ld, NULL, call->u_out);
}
/* Rows are cleared only where windows do not set each of them, once. Pools are not padded. */
static void rpi_pool_back(const rpi_transposed_call *call, const rp_real *out, rp_real *in, rpi_pool_window each) {
    const rpi_geometry *g = &call->step->geometry;
    const int alone = !call->add && (g->out_height == 1 || g->stride_height >= g->kernel_height) &&
                      (g->out_width == 1 || g->stride_width >= g->kernel_width);
    const int all = alone && (ptrdiff_t)g->positions * g->window == (ptrdiff_t)g->height * g->width;
    if (!out) return;
    if (!call->add && !all) rpi_fill_rows(call->step->inputs, call->n, call->b->ld, NULL, in);
    rpi_pool(call->b, call->step, call->n, out, in, alone, each);
}
static void rpi_pool_transposed(const rpi_transposed_call *call, rpi_pool_window each) {
    rpi_pool_back(call, call->d, call->d_in, each);
    rpi_pool_back(call, call->v, call->v_in, each);
}
static void rpi_max_apply(const rpi_apply_call *call) { rpi_pool_apply(call, rpi_max_window); }
static void rpi_max_transposed(const rpi_transposed_call *call) { rpi_pool_transposed(call, rpi_max_window_back); }
static void rpi_avg_apply(const rpi_apply_call *call) { rpi_pool_apply(call, rpi_avg_window); }
static void rpi_avg_transposed(const rpi_transposed_call *call) { rpi_pool_transposed(call, rpi_avg_window_back); }

static double rpi_no_worth(const rpi_step *step) {
    (void)step;
    return 0;
}

/* Samples by themselves (RPI_EACH). The values of one are a vector of features: no place in a vector of the machine is
   left to samples that there are not. A layer whose positions have contiguous features multiplies matrices by vectors.
   In images a tap (channel, row, column of the kernel) meets, at all output positions, a row of the flattened image
   that begins at the tap's offset, with columns between the rows that are not outputs; so the rows of B are offsets
   into the image, and the columns of the product are positions. */

/* What the maps do with contiguous vectors of any length. */
static rp_real rpi_vector_sum(const rpi_buffers *b, ptrdiff_t n, const rp_real *x, int squares) {
    const int lanes = b->kernels->lanes;
    const ptrdiff_t whole = n / lanes;
    rp_real sums[RPI_LINE_REALS], sum = 0;
    b->kernels->column_sums((int)whole, lanes, x, lanes, sums, squares);
    for (int i = 0; i < lanes; i++) sum += sums[i];
    for (ptrdiff_t i = whole * lanes; i < n; i++) sum += squares ? x[i] * x[i] : RPI_MATH(fabs)(x[i]);
    return sum;
}

/* x[i] = factor |x[i]|, or factor x[i]^2 */
static void rpi_vector_weigh(ptrdiff_t n, rp_real *x, rp_real factor, int squares) {
    for (ptrdiff_t i = 0; i < n; i++) x[i] = factor * (squares ? x[i] * x[i] : RPI_MATH(fabs)(x[i]));
}

static void rpi_vector_add(rp_real factor, ptrdiff_t n, rp_real *x) {
    for (ptrdiff_t i = 0; i < n; i++) x[i] += factor;
}

/* y and u_out of `outputs` units that read `inputs` contiguous values; x and u NULL: 0 */
static void rpi_line_apply(const rpi_apply_call *call, int inputs, int outputs, const rp_real *x, const rp_real *u,
                           rp_real *y, rp_real *u_out) {
    const rpi_buffers *b = call->b;
    rp_real column;
    rpi_product q;
    memset(&q, 0, sizeof q);
    q.m = outputs;
    q.k = x ? inputs : 0;
    q.n = 1;
    q.a = call->p + call->step->weights;
    q.a_row = inputs;
    q.a_column = 1;
    q.b = x ? x : b->zeros;
    q.c = y;
    q.bias = call->bias ? call->p + call->step->biases : NULL;
    q.add = call->add;
    b->kernels->matrix_vector(&q);
    if (!u_out) return;
    column = call->own * ((x ? rpi_vector_sum(b, inputs, x, 0) : 0) + (rp_real)call->bias);
    if (q.add) rpi_vector_add(column, outputs, u_out);
    q.b = NULL;
    q.k = x && u ? inputs : 0;
    q.b2 = u ? u : b->zeros;
    q.c2 = u_out;
    q.column = &column;
    b->kernels->matrix_vector(&q);
}

/* d_in and v_in of the values that these units read */
static void rpi_line_transposed(const rpi_transposed_call *call, int inputs, int outputs, const rp_real *d,
                                const rp_real *v, rp_real *d_in, rp_real *v_in) {
    const rpi_kernels *kernels = call->b->kernels;
    rpi_product q;
    memset(&q, 0, sizeof q);
    q.m = inputs;
    q.k = outputs;
    q.n = 1;
    q.a = call->p + call->step->weights;
    q.a_row = 1;
    q.a_column = inputs;
    q.add = call->add;
    q.b = d;
    q.c = d_in;
    q.b2 = call->plain ? NULL : v;
    q.c2 = v_in;
    kernels->matrix_vector(&q);
    if (!call->plain || !v) return;
    q.b = v;
    q.c = v_in;
    kernels->matrix_vector(&q);
}

static void rpi_dense_apply_one(const rpi_apply_call *call) {
    rpi_line_apply(call, call->step->inputs, call->step->outputs, call->x, call->u, call->y, call->u_out);
}
static void rpi_dense_transposed_one(const rpi_transposed_call *call) {
    rpi_line_transposed(call, call->step->inputs, call->step->outputs, call->d, call->v, call->d_in, call->v_in);
}

/* Columns j to end - 1 of all rows, row after row, as they lie in memory: with few samples that is what a step costs.
   magnitudes: of these columns, [samples][ldm], or NULL */
static void rpi_dense_columns(const rpi_outer_call *call, int j, int end, const rp_real *magnitudes, ptrdiff_t ldm,
                              rpi_piece *piece, rp_real *tile) {
    const rpi_kernels *kernels = call->b->kernels;
    const rpi_step *step = call->step;
    rpi_gemm q;
    memset(&q, 0, sizeof q);
    q.k = call->count;
    q.a_row = 1;
    q.a_column = step->out_rows;
    q.ldc = RPI_PANEL;
    for (int i = 0; i < step->outputs; i += q.m) {
        q.m = piece->rows = rpi_at_most(step->outputs - i, kernels->rows);
        for (int at = j; at < end; at += RPI_PANEL) {
            piece->n = rpi_at_most(end - at, RPI_PANEL);
            piece->offset = step->weights + (ptrdiff_t)i * step->inputs + at;
            q.n = rpi_columns(call->b, piece->n);
            if (call->d) {
                q.a = call->d + i;
                q.b = call->x + at;
                q.ldb = step->in_rows;
                q.c = tile;
                kernels->gemm(&q);
            }
            if (call->v) {
                q.a = call->v + i;
                q.b = magnitudes + (at - j);
                q.ldb = ldm;
                q.c = tile + RPI_ROWS_MOST * RPI_PANEL;
                kernels->gemm(&q);
            }
            call->sink->take(call->sink, piece);
        }
    }
}

/* The bias's sums of some units, from i on. */
static void rpi_bias_sums(const rpi_outer_call *call, const rp_real *d, int i, int count, rp_real *out) {
    int n = rpi_columns(call->b, count);
    if (!d) return;
    rpi_zero(out, n);
    call->b->kernels->add_rows(call->count, n, 1, d + i, call->step->out_rows, out, 0);
}

static void rpi_dense_outer_part(const void *context, int part, int parts) {
    const rpi_outer_call *call = (const rpi_outer_call *)context;
    const rpi_buffers *b = call->b;
    const rpi_step *step = call->step;
    rp_real *panel = rpi_part_panel(b, part);
    rp_real *tile = b->tile + (ptrdiff_t)part * 2 * RPI_PANEL * RPI_ROWS_MOST;
    rp_real *second = tile + RPI_ROWS_MOST * RPI_PANEL;
    rpi_piece piece = rpi_piece_of(call, tile, second);
    const ptrdiff_t width = rpi_panel_size(b) / call->count / RPI_PANEL * RPI_PANEL;
    int last = rpi_begin(step->inputs, RPI_PANEL, part + 1, parts), end;
    piece.ld = RPI_PANEL;
    piece.stride = step->inputs;
    for (int j = rpi_begin(step->inputs, RPI_PANEL, part, parts); j < last; j = end) {
        end = call->v && width < last - j ? j + (int)width : last;
        for (int s = 0; s < call->count && call->v; s++)
            b->kernels->column_sums(1, rpi_columns(b, end - j), call->x + s * (ptrdiff_t)step->in_rows + j, 0,
                                    panel + s * width, call->squares);
        rpi_dense_columns(call, j, end, panel, width, &piece, tile);
    }
    piece.rows = 1;
    for (int i = 0; i < step->outputs && call->bias && !part; i += RPI_PANEL) {
        piece.n = rpi_at_most(step->outputs - i, RPI_PANEL);
        piece.offset = step->biases + i;
        rpi_bias_sums(call, call->d, i, piece.n, tile);
        rpi_bias_sums(call, call->v, i, piece.n, second);
        call->sink->take(call->sink, &piece);
    }
}

static void rpi_dense_outer_each(const rpi_outer_call *call) {
    const rpi_step *step = call->step;
    rpi_team *team = call->b->team;
    double worth = (double)step->outputs * step->inputs * call->count;
    for (int s = 0; s < call->count && call->weight; s++)
        rpi_vector_weigh(step->outputs, call->v + s * (ptrdiff_t)step->out_rows, call->weight[s], call->squares);
    rpi_share(team, rpi_parts(team, worth, step->inputs, RPI_PANEL), rpi_dense_outer_part, call);
}

static void rpi_dense_reach_one(const rpi_reach_call *call) {
    const rpi_step *step = call->step;
    rp_real from = rpi_vector_sum(call->b, step->inputs, call->x, call->squares) + (rp_real)step->bias;
    call->total[0] += call->c * from * rpi_vector_sum(call->b, step->outputs, call->e, call->squares);
}

static void rpi_vector_copy(const rpi_buffers *b, int n, const rp_real *in, rp_real *out, int add) {
    if (add) b->kernels->blend(n, 1, in, NULL, 1, out);
    else rpi_copy(out, in, n);
}
static void rpi_copy_apply_one(const rpi_apply_call *call) {
    const rpi_step *step = call->step;
    rpi_vector_copy(call->b, step->outputs, call->x + step->in_row, call->y + step->out_row, call->add);
    if (!call->u_out) return;
    if (call->u)
        rpi_vector_copy(call->b, step->outputs, call->u + step->in_row, call->u_out + step->out_row, call->add);
    else if (!call->add) rpi_zero(call->u_out + step->out_row, step->outputs);
}
static void rpi_copy_transposed_one(const rpi_transposed_call *call) {
    const rpi_step *step = call->step;
    int n = step->outputs;
    if (call->d) rpi_vector_copy(call->b, n, call->d + step->out_row, call->d_in + step->in_row, call->add);
    if (call->v) rpi_vector_copy(call->b, n, call->v + step->out_row, call->v_in + step->in_row, call->add);
}

/* Positions with contiguous features: the input at output position t, or NULL where it is padding. */
static int rpi_has_lines(const rpi_geometry *g) {
    return g->groups == 1 && g->window == 1 && g->in_channel == 1 && g->out_filter == 1;
}
static const rp_real *rpi_line_at(const rpi_geometry *g, int t, const rp_real *x) {
    int y = t / g->out_width * g->stride_height - g->padding_height;
    int column = t % g->out_width * g->stride_width - g->padding_width;
    if (!x || y < 0 || y >= g->height || column < 0 || column >= g->width) return NULL;
    return x + (y * g->in_y + column * g->in_x);
}

/* Many positions are a product with the weights transposed, which is worth it. */
enum { RPI_LINES_FEW = 4 };

/* y of positions from..end - 1, as [position][unit]; B: the weights, or their magnitudes, transposed. start: for each
   unit, or with per_row for each position */
static void rpi_lines_product(const rpi_apply_call *call, const rp_real *weights, const rp_real *x, rp_real *y,
                              const rp_real *start, int per_row) {
    const rpi_buffers *b = call->b;
    const rpi_step *step = call->step;
    const rpi_geometry *g = &step->geometry;
    const int n = rpi_columns(b, g->filters), count = step->end - step->from;
    rp_real *turned = b->planes, *flat = turned + b->plane_size;
    ptrdiff_t out = rpi_out_at(g, step->from);
    rpi_gemm q;
    memset(&q, 0, sizeof q);
    b->kernels->transpose(weights, g->taps, g->filters, g->taps, turned, n, n);
    q.m = count;
    q.n = n;
    q.k = x ? g->taps : 0;
    q.a = x ? rpi_line_at(g, step->from, x) : turned;
    q.a_row = g->in_y;
    q.a_column = 1;
    q.b = turned;
    q.ldb = n;
    q.start = start;
    q.per_row = per_row;
    q.c = flat;
    q.ldc = n;
    b->kernels->gemm(&q);
    b->kernels->move_rows(count, g->filters, flat, n, 1, y + out, g->out_y, 1, call->add);
}

static void rpi_lines_apply_many(const rpi_apply_call *call) {
    const rpi_buffers *b = call->b;
    const rpi_step *step = call->step;
    const rpi_geometry *g = &step->geometry;
    const rp_real *weights = call->p + step->weights;
    rp_real *start = b->planes + 2 * b->plane_size;
    rpi_copy(start, call->bias ? call->p + step->biases : b->zeros, call->bias ? g->filters : 0);
    rpi_lines_product(call, weights, call->x, call->y, call->bias ? start : NULL, 0);
    if (!call->u_out) return;
    for (int t = step->from; t < step->end; t++)
        start[t - step->from] =
            call->own * (rpi_vector_sum(b, g->taps, rpi_line_at(g, t, call->x), 0) + (rp_real)call->bias);
    if (call->u) rpi_shared_magnitudes(b, step, weights);
    rpi_lines_product(call, call->u ? b->shared : weights, call->u, call->u_out, start, 1);
}

static void rpi_lines_apply(const rpi_apply_call *call) {
    const rpi_step *step = call->step;
    const rpi_geometry *g = &step->geometry;
    if (step->end - step->from >= RPI_LINES_FEW && !g->padding_height && g->width == 1) {
        rpi_lines_apply_many(call);
        return;
    }
    for (int t = step->from; t < step->end; t++) {
        ptrdiff_t out = rpi_out_at(g, t);
        rpi_line_apply(call, g->taps, g->filters, rpi_line_at(g, t, call->x), rpi_line_at(g, t, call->u), call->y + out,
                       rpi_offset(call->u_out, out));
    }
}

static void rpi_lines_transposed(const rpi_transposed_call *call) {
    const rpi_step *step = call->step;
    const rpi_geometry *g = &step->geometry;
    rpi_transposed_call each = *call;
    each.add = 1;
    for (int t = step->in_from; t < step->in_end && !call->add; t++) {
        if (call->d) rpi_zero(call->d_in + rpi_in_at(g, t), g->taps);
        if (call->v) rpi_zero(call->v_in + rpi_in_at(g, t), g->taps);
    }
    for (int t = step->from; t < step->end; t++) {
        ptrdiff_t out = rpi_out_at(g, t);
        const rp_real *origin = call->d ? call->d_in : call->v_in, *line = rpi_line_at(g, t, origin);
        if (!line) continue;
        rpi_line_transposed(&each, g->taps, g->filters, call->d ? call->d + out : NULL, call->v ? call->v + out : NULL,
                            rpi_offset(call->d_in, line - origin), rpi_offset(call->v_in, line - origin));
    }
}

static void rpi_sums_product(const rpi_buffers *b, rpi_gemm *q, const rp_real *d, const rp_real *y, rp_real *out,
                             int add) {
    if (!d) return;
    q->a = d;
    q->b = y;
    q->c = out;
    q->start = add ? out : NULL;
    q->start_row = q->ldc;
    b->kernels->gemm(q);
}

/* For the bias: of each unit over positions. */
static void rpi_lines_bias(const rpi_buffers *b, const rpi_geometry *g, const rp_real *d, rp_real *out, int add) {
    int units = rpi_columns(b, g->filters);
    if (!d) return;
    if (!add) rpi_zero(out, units);
    b->kernels->add_rows(g->positions - g->first, units, 1, d + rpi_out_at(g, g->first), g->out_y, out, 0);
}

static void rpi_lines_sums(const rpi_buffers *b, const rpi_geometry *g, const rp_real *x, rpi_sums *sums) {
    rpi_taps taps = rpi_taps_of(b, 0);
    rpi_gemm q;
    memset(&q, 0, sizeof q);
    q.m = g->filters;
    q.n = rpi_columns(b, g->taps);
    q.a_row = 1;
    q.a_at = taps.a_at;
    q.b_at = taps.b_at;
    q.ldc = sums->ld = q.n;
    sums->bias = g->filters * sums->ld;
    sums->bias_step = 1;
    sums->size = sums->bias + g->filters;
    for (int t = g->first; t < g->positions; t++) {
        const rp_real *line = rpi_line_at(g, t, x);
        if (!line) continue;
        taps.a_at[q.k] = rpi_out_at(g, t);
        taps.b_at[q.k++] = line - x;
    }
    rpi_sums_product(b, &q, sums->d, x, sums->of_d, sums->add_d);
    if (sums->v && sums->magnitudes) {
        rpi_magnitudes(b, (ptrdiff_t)g->height * g->width * g->taps, x, b->planes);
        x = b->planes;
    }
    rpi_sums_product(b, &q, sums->v, x, sums->of_v, sums->add_v);
    rpi_lines_bias(b, g, sums->d, rpi_offset(sums->of_d, sums->bias), sums->add_d);
    rpi_lines_bias(b, g, sums->v, rpi_offset(sums->of_v, sums->bias), sums->add_v);
}

/* Images in phases of the strides: phase (i, j) holds every stride-th row and column of the padded input from row i
   and column j on, so that each tap lies in one phase. Phases are [channels][height][width]; with strides of 1 there
   is one, the padded input. */
typedef struct rpi_phases {
    int rows, columns; /* phases that taps read */
    int channels, height, width;
    ptrdiff_t image, size; /* of a channel, of a phase */
    ptrdiff_t margin;      /* how far taps reach */
    ptrdiff_t spread;      /* of a filter's outputs with margins of zeros before and behind */
} rpi_phases;

static int rpi_ceiling(int whole, int part) { return (whole + part - 1) / part; }
static rpi_phases rpi_phases_of(const rpi_geometry *g) {
    rpi_phases f;
    f.rows = rpi_at_most(g->stride_height, g->kernel_height);
    f.columns = rpi_at_most(g->stride_width, g->kernel_width);
    f.channels = g->channels * g->groups;
    f.height = rpi_ceiling(g->height + 2 * g->padding_height, g->stride_height);
    f.width = rpi_ceiling(g->width + 2 * g->padding_width, g->stride_width);
    f.image = (ptrdiff_t)f.height * f.width;
    f.size = f.channels * f.image;
    f.margin =
        (ptrdiff_t)((g->kernel_height - 1) / g->stride_height) * f.width + (g->kernel_width - 1) / g->stride_width;
    f.spread = f.margin + f.image + RPI_LINE_REALS;
    return f;
}
/* Columns of a product over all outputs, in rows as long as a phase's. */
static int rpi_flat_columns(const rpi_buffers *b, const rpi_geometry *g, const rpi_phases *f) {
    return rpi_columns(b, g->out_height * f->width);
}
static ptrdiff_t rpi_phases_size(const rpi_phases *f) {
    return f->rows * f->columns * f->size + f->width + RPI_LINE_REALS;
}

/* Scratch that a step needs, and in floating point, before it is known that there is so much. */
static ptrdiff_t rpi_plane_of(const rpi_step *step) {
    const rpi_geometry *g = &step->geometry;
    rpi_phases f;
    ptrdiff_t columns, size;
    if (!g->filters) return 0;
    columns = (ptrdiff_t)g->filters + RPI_LINE_REALS;
    size = (ptrdiff_t)g->height * g->width * g->taps + RPI_LINE_REALS;
    if (rpi_has_lines(g)) return rpi_larger(size, columns * rpi_larger(g->taps, g->positions));
    f = rpi_phases_of(g);
    columns = (ptrdiff_t)g->out_height * f.width + RPI_LINE_REALS;
    size = rpi_larger(rpi_phases_size(&f), g->filters * f.spread + RPI_LINE_REALS);
    size = rpi_larger(size, rpi_larger(g->filters * columns, g->channels * (f.image + RPI_LINE_REALS)));
    return rpi_larger(size, rpi_larger(RPI_WINDOWS, g->out_width) * ((ptrdiff_t)g->taps + RPI_LINE_REALS));
}
static double rpi_plane_reals(const rpi_geometry *g) {
    double height = (double)g->height + 2.0 * g->padding_height + g->kernel_height + g->stride_height;
    double width = (double)g->width + 2.0 * g->padding_width + g->kernel_width + g->stride_width + 16;
    if (!g->filters || rpi_has_lines(g)) return 0;
    return (height + 1) * width * ((double)g->channels * g->groups + g->filters);
}

/* The rows (or columns) of a phase that lie inside the input, which has `extent`. */
typedef struct rpi_inside {
    int first, count, at; /* at: where the first lies in the input */
} rpi_inside;
static rpi_inside rpi_inside_of(int extent, int stride, int padding, int phase) {
    rpi_inside inside;
    inside.first = phase >= padding ? 0 : rpi_ceiling(padding - phase, stride);
    inside.at = inside.first * stride + phase - padding;
    inside.count = inside.at < extent ? rpi_ceiling(extent - inside.at, stride) : 0;
    return inside;
}

/* One phase of some channels from, or into (with `add` added to), an image. */
static void rpi_gather_phase(const rpi_buffers *b, const rpi_geometry *g, const rpi_phases *f, int i, int j,
                             const rp_real *x, rp_real *phase) {
    rpi_inside rows = rpi_inside_of(g->height, g->stride_height, g->padding_height, i);
    rpi_inside columns = rpi_inside_of(g->width, g->stride_width, g->padding_width, j);
    for (int c = 0; c < f->channels; c++)
        b->kernels->move_rows(rows.count, columns.count, x + c * g->in_channel + rows.at * g->in_y + columns.at,
                              g->stride_height * g->in_y, g->stride_width,
                              phase + c * f->image + (ptrdiff_t)rows.first * f->width + columns.first, f->width, 1, 0);
}
static void rpi_scatter_phase(const rpi_buffers *b, const rpi_geometry *g, const rpi_phases *f, int i, int j,
                              int channels, const rp_real *phase, ptrdiff_t image, rp_real *x, int add) {
    rpi_inside rows = rpi_inside_of(g->height, g->stride_height, g->padding_height, i);
    rpi_inside columns = rpi_inside_of(g->width, g->stride_width, g->padding_width, j);
    for (int c = 0; c < channels; c++)
        b->kernels->move_rows(rows.count, columns.count,
                              phase + c * image + (ptrdiff_t)rows.first * f->width + columns.first, f->width, 1,
                              x + c * g->in_channel + rows.at * g->in_y + columns.at, g->stride_height * g->in_y,
                              g->stride_width, add);
}

static void rpi_gather_phases(const rpi_buffers *b, const rpi_geometry *g, const rpi_phases *f, const rp_real *x,
                              rp_real *phases) {
    ptrdiff_t all = f->rows * f->columns * f->size;
    int plain = g->stride_height * g->stride_width == 1 && !g->padding_height && !g->padding_width;
    if (plain) rpi_copy(phases, x, f->size);
    rpi_zero(phases + (plain ? all : 0), rpi_phases_size(f) - (plain ? all : 0));
    for (int i = 0; i < f->rows && !plain; i++)
        for (int j = 0; j < f->columns; j++)
            rpi_gather_phase(b, g, f, i, j, x, phases + (i * f->columns + j) * f->size);
}

/* Where the taps of a group's first filter lie in the phases. */
static ptrdiff_t rpi_phase_at(const rpi_geometry *g, const rpi_phases *f, int i, int j) {
    int phase = i % g->stride_height * f->columns + j % g->stride_width;
    return phase * f->size + (ptrdiff_t)(i / g->stride_height) * f->width + j / g->stride_width;
}
static void rpi_phase_taps(const rpi_geometry *g, const rpi_phases *f, rpi_taps *taps) {
    int k = 0;
    for (int c = 0; c < g->channels; c++)
        for (int i = 0; i < g->kernel_height; i++)
            for (int j = 0; j < g->kernel_width; j++) {
                taps->a_at[k] = k;
                taps->b_at[k] = k < g->window ? rpi_phase_at(g, f, i, j) : taps->b_at[k - g->window] + f->image;
                k++;
            }
    taps->count = k;
}

/* Outputs, [filters][out_height][out_width], from rows as long as a phase's. */
static void rpi_take_outputs(const rpi_buffers *b, const rpi_geometry *g, const rpi_phases *f, int filters,
                             const rp_real *flat, ptrdiff_t ld, rp_real *out, int add) {
    for (int i = 0; i < filters; i++)
        b->kernels->move_rows(g->out_height, g->out_width, flat + i * ld, f->width, 1, out + i * g->out_filter,
                              g->out_y, 1, add);
}

/* The other way, between margins of zeros. */
static void rpi_spread_outputs(const rpi_buffers *b, const rpi_geometry *g, const rpi_phases *f, const rp_real *out,
                               ptrdiff_t margin, ptrdiff_t ld, rp_real *flat) {
    rpi_zero(flat, g->filters * ld + RPI_LINE_REALS);
    for (int i = 0; i < g->filters; i++)
        b->kernels->move_rows(g->out_height, g->out_width, out + i * g->out_filter, g->out_y, 1, flat + margin + i * ld,
                              f->width, 1, 0);
}

/* A convolution of one sample: its scratch, and what its products have in common. */
typedef struct rpi_flat {
    const rpi_buffers *b;
    const rpi_geometry *g;
    rpi_phases f;
    rpi_taps taps;
    int n;                          /* columns of the products over outputs */
    rp_real *phases, *flat, *other; /* scratch, each of rpi_buffers' plane_size */
} rpi_flat;
static rpi_flat rpi_flat_of(const rpi_buffers *b, const rpi_step *step) {
    rpi_flat w;
    w.b = b;
    w.g = &step->geometry;
    w.f = rpi_phases_of(w.g);
    w.taps = rpi_taps_of(b, 0);
    w.n = rpi_flat_columns(b, w.g, &w.f);
    w.phases = b->planes;
    w.flat = w.phases + b->plane_size;
    w.other = w.flat + b->plane_size;
    rpi_phase_taps(w.g, &w.f, &w.taps);
    return w;
}

/* out of all groups = start + A times the phases */
static void rpi_flat_product(const rpi_flat *w, const rp_real *weights, const rp_real *bias, const rp_real *columns,
                             rp_real *out, int add) {
    const rpi_geometry *g = w->g;
    rpi_gemm q;
    memset(&q, 0, sizeof q);
    q.m = g->group_filters;
    q.n = w->n;
    q.k = w->taps.count;
    q.a_row = g->taps;
    q.a_at = w->taps.a_at;
    q.b_at = w->taps.b_at;
    q.c = w->flat;
    q.ldc = w->n;
    q.per_row = bias != NULL;
    for (int group = 0; group < g->groups; group++) {
        ptrdiff_t filter = (ptrdiff_t)group * g->group_filters;
        q.a = weights + filter * g->taps;
        q.b = w->phases + group * g->channels * w->f.image;
        q.start = bias ? bias + filter : NULL;
        if (columns) q.start = columns + (ptrdiff_t)group * w->n;
        w->b->kernels->gemm(&q);
        rpi_take_outputs(w->b, g, &w->f, q.m, w->flat, w->n, out + filter * g->out_filter, add);
    }
}

/* own (|x| summed over the window + the bias's 1) at all positions, for each group */
static void rpi_flat_reach(const rpi_flat *w, const rpi_apply_call *call) {
    rpi_window window;
    window.k = w->taps.count;
    window.n = w->n;
    window.at = w->taps.b_at;
    for (int group = 0; group < w->g->groups; group++) {
        rp_real *columns = w->other + (ptrdiff_t)group * w->n;
        window.x = w->phases + group * w->g->channels * w->f.image;
        w->b->kernels->window_magnitudes(&window, columns);
        for (int s = 0; s < w->n; s++) columns[s] = call->own * (columns[s] + (rp_real)call->bias);
    }
}

static void rpi_flat_apply(const rpi_apply_call *call) {
    const rpi_step *step = call->step;
    rpi_flat w = rpi_flat_of(call->b, step);
    rpi_gather_phases(w.b, w.g, &w.f, call->x, w.phases);
    rpi_flat_product(&w, call->p + step->weights, call->bias ? call->p + step->biases : NULL, NULL, call->y, call->add);
    if (!call->u_out) return;
    rpi_flat_reach(&w, call);
    if (!call->u) w.taps.count = 0;
    else {
        rpi_shared_magnitudes(w.b, step, call->p + step->weights);
        rpi_gather_phases(w.b, w.g, &w.f, call->u, w.phases);
    }
    rpi_flat_product(&w, w.b->shared, NULL, w.other, call->u_out, call->add);
}

/* The taps that lie in a phase, for each of a group's filters: offsets into the weights, and into the outputs between
   margins. */
static void rpi_phase_covering(rpi_flat *w, int phase_row, int phase_column) {
    const rpi_geometry *g = w->g;
    int k = 0;
    for (int i = phase_row; i < g->kernel_height; i += g->stride_height)
        for (int j = phase_column; j < g->kernel_width; j += g->stride_width)
            for (int filter = 0; filter < g->group_filters; filter++) {
                w->taps.a_at[k] = (ptrdiff_t)filter * g->taps + (ptrdiff_t)i * g->kernel_width + j;
                w->taps.b_at[k++] =
                    filter * w->f.spread - (ptrdiff_t)(i / g->stride_height) * w->f.width - j / g->stride_width;
            }
    w->taps.count = k;
}

/* in = A' out in one phase, whose covering taps and outputs (in w->flat) are in place */
static void rpi_flat_cover(const rpi_flat *w, int i, int j, const rp_real *weights, rp_real *in, int add) {
    const rpi_geometry *g = w->g;
    rpi_gemm q;
    memset(&q, 0, sizeof q);
    q.m = g->channels;
    q.n = rpi_columns(w->b, (int)w->f.image);
    q.k = w->taps.count;
    q.a_row = g->window;
    q.a_at = w->taps.a_at;
    q.b_at = w->taps.b_at;
    q.c = w->other;
    q.ldc = q.n;
    for (int group = 0; group < g->groups; group++) {
        ptrdiff_t filter = (ptrdiff_t)group * g->group_filters;
        q.a = weights + filter * g->taps;
        q.b = w->flat + filter * w->f.spread + w->f.margin;
        w->b->kernels->gemm(&q);
        rpi_scatter_phase(w->b, g, &w->f, i, j, q.m, w->other, q.n, in + (ptrdiff_t)group * g->channels * g->in_channel,
                          add);
    }
}

static void rpi_flat_back(rpi_flat *w, const rp_real *weights, const rp_real *out, rp_real *in, int add) {
    rpi_spread_outputs(w->b, w->g, &w->f, out, w->f.margin, w->f.spread, w->flat);
    for (int i = 0; i < w->g->stride_height; i++)
        for (int j = 0; j < w->g->stride_width; j++) {
            rpi_phase_covering(w, i, j);
            rpi_flat_cover(w, i, j, weights, in, add);
        }
}

static void rpi_flat_transposed(const rpi_transposed_call *call) {
    const rpi_step *step = call->step;
    const rp_real *weights = call->p + step->weights;
    rpi_flat w = rpi_flat_of(call->b, step);
    if (call->d) rpi_flat_back(&w, weights, call->d, call->d_in, call->add);
    if (!call->v) return;
    if (!call->plain) rpi_shared_magnitudes(w.b, step, weights);
    rpi_flat_back(&w, call->plain ? weights : w.b->shared, call->v, call->v_in, call->add);
}

/* Output rows whose windows are laid out at a time, so that these stay in the cache. */
static int rpi_window_rows(const rpi_geometry *g) {
    return rpi_at_most(g->out_height, (int)rpi_larger(RPI_WINDOWS / g->out_width, 1));
}

/* Windows as rows, [position][tap], and behind the last tap the bias's 1. */
static void rpi_lay_windows(const rpi_flat *w, int group, int from, int rows, ptrdiff_t ld, rp_real *out) {
    const rpi_geometry *g = w->g;
    const int run = g->stride_width == 1 ? g->kernel_width : 1; /* taps that lie side by side */
    for (int y = 0; y < rows; y++) {
        const rp_real *row = w->phases + group * g->channels * w->f.image + (ptrdiff_t)(from + y) * w->f.width;
        for (int j = 0; j < g->taps; j += run)
            w->b->kernels->move_rows(g->out_width, run, row + w->taps.b_at[j], 1, 1, out + j, ld, 1, 0);
        for (int x = 0; x < g->out_width; x++, out += ld) out[g->taps] = 1;
    }
}

/* x is in w->phases. */
static void rpi_flat_sums(const rpi_flat *w, rpi_sums *sums) {
    const rpi_geometry *g = w->g;
    int rows = rpi_window_rows(g);
    rpi_gemm q;
    memset(&q, 0, sizeof q);
    q.m = g->group_filters;
    q.n = rpi_columns(w->b, g->taps + 1);
    q.a_row = g->out_filter;
    q.a_column = 1;
    q.ldb = q.ldc = sums->ld = q.n;
    sums->bias = g->taps;
    sums->bias_step = sums->ld;
    sums->size = g->filters * sums->ld;
    for (int group = 0; group < g->groups; group++)
        for (int y = 0; y < g->out_height; y += rows) {
            int some = rpi_at_most(g->out_height - y, rows);
            ptrdiff_t filter = (ptrdiff_t)group * g->group_filters, to = filter * sums->ld;
            ptrdiff_t from = filter * g->out_filter + y * g->out_y;
            rpi_lay_windows(w, group, y, some, sums->ld, w->flat);
            q.k = some * g->out_width;
            rpi_sums_product(w->b, &q, sums->d ? sums->d + from : NULL, w->flat, rpi_offset(sums->of_d, to),
                             y || sums->add_d);
            if (sums->magnitudes) rpi_magnitudes(w->b, q.k * sums->ld, w->flat, w->flat);
            rpi_sums_product(w->b, &q, sums->v ? sums->v + from : NULL, w->flat, rpi_offset(sums->of_v, to),
                             y || sums->add_v);
        }
}

/* Maps of shared weights, of either kind. */
static void rpi_shared_apply_one(const rpi_apply_call *call) {
    if (rpi_has_lines(&call->step->geometry)) rpi_lines_apply(call);
    else rpi_flat_apply(call);
}
static void rpi_shared_transposed_one(const rpi_transposed_call *call) {
    if (rpi_has_lines(&call->step->geometry)) rpi_lines_transposed(call);
    else rpi_flat_transposed(call);
}

static void rpi_sums_one(const rpi_buffers *b, const rpi_step *step, const rp_real *x, rpi_sums *sums) {
    rpi_flat w;
    if (rpi_has_lines(&step->geometry)) {
        rpi_lines_sums(b, &step->geometry, x, sums);
        return;
    }
    w = rpi_flat_of(b, step);
    rpi_gather_phases(b, w.g, &w.f, x, w.phases);
    rpi_flat_sums(&w, sums);
}

/* Of all samples; with a weight, each sample's own are weighed before they are added up. */
static rpi_sums rpi_sums_all(const rpi_outer_call *call) {
    const rpi_buffers *b = call->b;
    const rpi_step *step = call->step;
    rp_real *second = b->shared + b->shared_size, *own = second + b->shared_size;
    rpi_sums sums;
    memset(&sums, 0, sizeof sums);
    sums.magnitudes = call->v && !call->weight;
    sums.of_d = call->d ? b->shared : NULL;
    for (int s = 0; s < call->count; s++) {
        ptrdiff_t in = s * (ptrdiff_t)step->in_rows, out = s * (ptrdiff_t)step->out_rows;
        sums.d = call->d ? call->d + out : NULL;
        sums.v = call->v ? call->v + out : NULL;
        sums.of_v = !call->v || !call->weight || !s ? second : own;
        sums.add_d = s > 0;
        sums.add_v = s > 0 && !call->weight;
        rpi_sums_one(b, step, call->x + in, &sums);
        if (!call->v || !call->weight) continue;
        rpi_vector_weigh(sums.size, sums.of_v, call->weight[s], call->squares);
        if (s) b->kernels->blend(sums.size, 1, own, NULL, 1, second);
    }
    sums.of_v = call->v ? second : NULL;
    return sums;
}

static void rpi_shared_outer_each(const rpi_outer_call *call) {
    const rpi_sums sums = rpi_sums_all(call);
    rpi_take_sums(call, &sums);
}

static void rpi_shared_reach_one(const rpi_reach_call *call) {
    const rpi_buffers *b = call->b;
    const rpi_geometry *g = &call->step->geometry;
    rp_real total = 0;
    rpi_sums sums;
    memset(&sums, 0, sizeof sums);
    sums.d = call->e;
    sums.of_d = b->shared;
    rpi_sums_one(b, call->step, call->x, &sums);
    for (int i = 0; i < g->filters; i++) {
        rp_real bias = sums.of_d[sums.bias + i * sums.bias_step];
        total += rpi_vector_sum(b, g->taps, sums.of_d + i * sums.ld, call->squares);
        if (call->step->bias) total += call->squares ? bias * bias : RPI_MATH(fabs)(bias);
    }
    call->total[0] += call->c * total;
}

/* Pools of one sample: all channels at once, as the taps of each lie alike. */
typedef void (*rpi_pool_flat)(const rpi_flat *w, const rpi_window *window, const rp_real *in, rp_real *out);

static rpi_window rpi_flat_window(const rpi_flat *w) {
    rpi_window window;
    window.k = w->taps.count;
    window.n = rpi_columns(w->b, (int)w->f.size);
    window.alone = 0;
    window.at = w->taps.b_at;
    window.x = w->phases;
    return window;
}
static void rpi_max_flat(const rpi_flat *w, const rpi_window *window, const rp_real *in, rp_real *out) {
    w->b->kernels->select(window, in, out);
}
static void rpi_max_flat_back(const rpi_flat *w, const rpi_window *window, const rp_real *out, rp_real *in) {
    w->b->kernels->select_back(window, out, in);
}
static void rpi_avg_flat(const rpi_flat *w, const rpi_window *window, const rp_real *in, rp_real *out) {
    rpi_zero(out, window->n);
    for (int j = 0; j < window->k; j++)
        w->b->kernels->add_rows(1, window->n, 1 / (rp_real)window->k, in + window->at[j], 0, out, 0);
}
static void rpi_avg_flat_back(const rpi_flat *w, const rpi_window *window, const rp_real *out, rp_real *in) {
    for (int j = 0; j < window->k; j++)
        w->b->kernels->add_rows(1, window->n, 1 / (rp_real)window->k, out, 0, in + window->at[j], 0);
}

static void rpi_pool_apply_one(const rpi_apply_call *call, rpi_pool_flat each) {
    const rp_real *x = call->values;
    rpi_flat w = rpi_flat_of(call->b, call->step);
    rpi_window window = rpi_flat_window(&w);
    const rp_real *ins[2] = {call->x, call->u};
    rp_real *outs[2] = {call->y, call->u_out};
    rpi_gather_phases(w.b, w.g, &w.f, x, w.phases);
    for (int i = 0; i < 2 && outs[i]; i++) {
        if (!ins[i]) {
            rpi_zero(outs[i], call->step->outputs);
            continue;
        }
        if (ins[i] != x) rpi_gather_phases(w.b, w.g, &w.f, ins[i], w.other);
        each(&w, &window, ins[i] == x ? w.phases : w.other, w.flat);
        rpi_take_outputs(w.b, w.g, &w.f, w.f.channels, w.flat, w.f.image, outs[i], 0);
    }
}
static void rpi_pool_transposed_one(const rpi_transposed_call *call, rpi_pool_flat each) {
    rpi_flat w = rpi_flat_of(call->b, call->step);
    rpi_window window = rpi_flat_window(&w);
    const rp_real *outs[2] = {call->d, call->v};
    rp_real *ins[2] = {call->d_in, call->v_in};
    rpi_gather_phases(w.b, w.g, &w.f, call->values, w.phases);
    for (int v = 0; v < 2; v++) {
        if (!outs[v]) continue;
        if (!call->add) rpi_zero(ins[v], call->step->inputs);
        rpi_spread_outputs(w.b, w.g, &w.f, outs[v], 0, w.f.image, w.flat);
        rpi_zero(w.other, rpi_phases_size(&w.f));
        each(&w, &window, w.flat, w.other);
        for (int i = 0; i < w.f.rows; i++)
            for (int j = 0; j < w.f.columns; j++)
                rpi_scatter_phase(w.b, w.g, &w.f, i, j, w.f.channels, w.other + (i * w.f.columns + j) * w.f.size,
                                  w.f.image, ins[v], call->add);
    }
}
static void rpi_max_apply_one(const rpi_apply_call *call) { rpi_pool_apply_one(call, rpi_max_flat); }
static void rpi_max_transposed_one(const rpi_transposed_call *call) {
    rpi_pool_transposed_one(call, rpi_max_flat_back);
}
static void rpi_avg_apply_one(const rpi_apply_call *call) { rpi_pool_apply_one(call, rpi_avg_flat); }
static void rpi_avg_transposed_one(const rpi_transposed_call *call) {
    rpi_pool_transposed_one(call, rpi_avg_flat_back);
}

/* clang-format off */
static const rpi_map rpi_dense_map = {
    {{rpi_dense_apply, rpi_dense_transposed, rpi_dense_outer, rpi_dense_reach},
     {rpi_dense_apply_one, rpi_dense_transposed_one, rpi_dense_outer_each, rpi_dense_reach_one}},
    rpi_dense_worth, rpi_one_position, 1, 1, 0};
static const rpi_map rpi_shared_map = {
    {{rpi_shared_apply, rpi_shared_transposed, rpi_shared_outer, rpi_shared_reach},
     {rpi_shared_apply_one, rpi_shared_transposed_one, rpi_shared_outer_each, rpi_shared_reach_one}},
    rpi_shared_worth, rpi_shared_positions, 1, 0, 1};
static const rpi_map rpi_copy_map = {
    {{rpi_copy_apply, rpi_copy_transposed, NULL, NULL}, {rpi_copy_apply_one, rpi_copy_transposed_one, NULL, NULL}},
    rpi_no_worth, rpi_one_position, 0, 1, 0};
static const rpi_map rpi_max_pool_map = {
    {{rpi_max_apply, rpi_max_transposed, NULL, NULL}, {rpi_max_apply_one, rpi_max_transposed_one, NULL, NULL}},
    rpi_no_worth, rpi_one_position, 0, 0, 0};
static const rpi_map rpi_avg_pool_map = {
    {{rpi_avg_apply, rpi_avg_transposed, NULL, NULL}, {rpi_avg_apply_one, rpi_avg_transposed_one, NULL, NULL}},
    rpi_no_worth, rpi_one_position, 0, 0, 0};
/* clang-format on */

/* A step's primitives on all samples, in the way in which these lie. Outer products add up over samples themselves. */
static void rpi_run_apply(const rpi_apply_call *call) {
    const rpi_step *step = call->step;
    const rpi_primitives *way = &step->map->ways[call->b->way];
    rpi_apply_call each = *call;
    way->apply(&each);
    for (int s = 1; call->b->way == RPI_EACH && s < call->b->samples; s++) {
        each.x += step->in_rows;
        each.values += step->in_rows;
        if (each.u) each.u += step->in_rows;
        each.y += step->out_rows;
        each.u_out = rpi_offset(each.u_out, step->out_rows);
        way->apply(&each);
    }
    if (call->then && !(step->map->activates && call->b->way == RPI_BATCH)) rpi_activate_run(call->then);
}
static void rpi_run_transposed(const rpi_transposed_call *call) {
    const rpi_step *step = call->step;
    const rpi_primitives *way = &step->map->ways[call->b->way];
    rpi_transposed_call each = *call;
    way->transposed(&each);
    for (int s = 1; call->b->way == RPI_EACH && s < call->b->samples; s++) {
        each.values += step->in_rows;
        if (each.d) each.d += step->out_rows;
        if (each.v) each.v += step->out_rows;
        each.d_in = rpi_offset(each.d_in, step->in_rows);
        each.v_in = rpi_offset(each.v_in, step->in_rows);
        way->transposed(&each);
    }
}
static void rpi_run_reach(const rpi_reach_call *call) {
    const rpi_step *step = call->step;
    const rpi_primitives *way = &step->map->ways[call->b->way];
    rpi_reach_call each = *call;
    way->reach(&each);
    for (int s = 1; call->b->way == RPI_EACH && s < call->b->samples; s++) {
        each.x += step->in_rows;
        each.e += step->out_rows;
        each.total++;
        way->reach(&each);
    }
}

/* >>describe
   The first mistake sticks, with its message, until rp_net_build. */
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

static int rpi_same_shape(rp_shape a, rp_shape b) {
    return a.kind == b.kind && a.steps == b.steps && a.channels == b.channels && a.height == b.height &&
           a.width == b.width;
}

static int rpi_shape_valid(rp_shape s) {
    const int64_t sizes[] = {s.steps, s.channels, s.height, s.width};
    int64_t product = 1;
    for (int i = 0; i < 4; i++) {
        if (sizes[i] < 1 || sizes[i] > RPI_LARGEST) return 0;
        product *= sizes[i];
        if (product > RPI_LARGEST) return 0;
    }
    if (s.kind == RP_SHAPE_IMAGE) return s.steps == 1;
    if (s.height != 1 || s.width != 1) return 0;
    return s.kind == RP_SHAPE_SEQUENCE || (s.kind == RP_SHAPE_VECTOR && s.steps == 1);
}

static void rpi_put_shape(rpi_text *text, rp_shape s) {
    char buffer[64];
    switch (s.kind) {
    case RP_SHAPE_IMAGE: rpi_format(buffer, sizeof buffer, "%dx%dx%d", s.channels, s.height, s.width); break;
    case RP_SHAPE_SEQUENCE: rpi_format(buffer, sizeof buffer, "%dx%d", s.steps, s.channels); break;
    default: rpi_format(buffer, sizeof buffer, "%d", s.channels);
    }
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

/* rpi_fail, and the mistake sticks. */
static rp_status rpi_mistake(rp_net *net, rp_status status, const char *format, ...) {
    va_list list;
    va_start(list, format);
    rpi_format_list(net->error, sizeof net->error, format, list);
    va_end(list);
    net->broken = status;
    return status;
}

static rp_status rpi_may_describe(rp_net *net, const char *who) {
    if (!net) return RP_ERR_NULL;
    if (net->built)
        return rpi_fail(net, RP_ERR_ORDER, "%s: the net is built already; describe it before rp_net_build", who);
    return net->broken;
}

static void rpi_check_config(rp_net *net) {
    const rp_config *config = &net->config;
    if (!config->allocate != !config->release) {
        const char *missing = config->allocate ? "release" : "allocate";
        rpi_mistake(net, RP_ERR_VALUE, "rp_net_new: config.%s is NULL; set allocate and release both, or neither",
                    missing);
        return;
    }
    if ((int)config->isa < 0 || config->isa > RP_ISA_AMX) {
        rpi_mistake(net, RP_ERR_VALUE, "rp_net_new: config.isa is %d, which is no rp_isa_kind", (int)config->isa);
        return;
    }
    if (!rpi_resolve_isa(&net->config.isa)) {
        rpi_mistake(
            net, RP_ERR_UNSUPPORTED,
            "rp_net_new: the instruction set of config.isa (%s) or of the environment's RP_ISA is not known, not in "
            "this build or not on this machine",
            rpi_isa_names[config->isa]);
        return;
    }
    if (config->threads < 0)
        rpi_mistake(net, RP_ERR_VALUE, "rp_net_new: config.threads is %d; it may be 0 or more", config->threads);
#ifndef RP_THREADS
    if (config->threads > 1)
        rpi_mistake(net, RP_ERR_UNSUPPORTED,
                    "rp_net_new: config.threads is %d, but this build has none; define RP_THREADS", config->threads);
#endif
}

RP_API rp_net *rp_net_new(rp_shape input, const rp_config *config) {
    rp_config chosen;
    rpi_memory memory;
    rp_net *net;
    memset(&chosen, 0, sizeof chosen);
    if (config) chosen = *config;
    memory.allocate = rpi_default_allocate;
    memory.release = rpi_default_release;
    memory.user = chosen.user;
    if (chosen.allocate && chosen.release) {
        memory.allocate = chosen.allocate;
        memory.release = chosen.release;
    }
    net = (rp_net *)memory.allocate(memory.user, sizeof *net);
    if (!net) return NULL;
    memset(net, 0, sizeof *net);
    net->memory = memory;
    net->config = chosen;
    net->input = net->output = input;
    if (rpi_shape_valid(input)) rpi_check_config(net);
    else
        rpi_mistake(
            net, RP_ERR_VALUE,
            "rp_net_new: the input shape %dx%dx%dx%d (steps, channels, height, width) must come from rp_vector, "
            "rp_image or rp_sequence, with sizes of 1 or more, and at most %d in all",
            input.steps, input.channels, input.height, input.width, RPI_LARGEST);
    return net;
}

static void rpi_file_free(const rpi_memory *memory, rpi_file *file) {
    rpi_block_free(memory, &file->list);
    rpi_block_free(memory, &file->block);
    memset(file, 0, sizeof *file);
}

RP_API void rp_net_free(rp_net *net) {
    rpi_memory memory;
    if (!net) return;
    memory = net->memory;
    rpi_team_free(&memory, net->buffers.team);
    rpi_file_free(&memory, &net->opened);
    rpi_block_free(&memory, &net->loaded_best);
    rpi_block_free(&memory, &net->state);
    rpi_block_free(&memory, &net->tangents);
    rpi_block_free(&memory, &net->recursions);
    rpi_block_free(&memory, &net->arrays);
    rpi_block_free(&memory, &net->tape);
    if (net->layers) memory.release(memory.user, net->layers);
    memory.release(memory.user, net);
}

/* A new last layer, all zero but for its input shape; NULL after a failure. It counts from rpi_appended on. */
static rpi_layer *rpi_append(rp_net *net, const char *who, rpi_kind kind) {
    rpi_layer *layer;
    if (net->layer_count == net->layer_capacity) {
        int capacity = net->layer_capacity ? 2 * net->layer_capacity : 16;
        rpi_layer *layers = (rpi_layer *)net->memory.allocate(net->memory.user, (size_t)capacity * sizeof *layers);
        if (!layers) {
            rpi_mistake(net, RP_ERR_MEMORY, "%s: no memory for layer %d", who, net->layer_count);
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
    layer->kind = kind;
    layer->in = layer->out = net->output;
    return layer;
}

static int rpi_appended(rp_net *net, const rpi_layer *layer) {
    net->output = layer->out;
    return net->layer_count++;
}

/* An affine layer with [units][fan_in + fan_back] weights, drawn from +-1/sqrt(fan_back), or fan_in if that is 0. */
static int rpi_appended_affine(rp_net *net, const char *who, rpi_layer *layer, int fan_in, int fan_back, int units) {
    if ((double)units * ((double)fan_in + fan_back) > (double)(PTRDIFF_MAX / 32))
        return rpi_mistake(net, RP_ERR_OVERFLOW,
                           "%s: layer %d: %d units with %d inputs have more weights than can be addressed", who,
                           net->layer_count, units, fan_in);
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
        return rpi_mistake(net, RP_ERR_VALUE, "rp_dense: layer %d: units is %d; it may be 1 to %d", net->layer_count,
                           units, RPI_LARGEST);
    layer = rpi_append(net, "rp_dense", RPI_DENSE);
    if (!layer) return net->broken;
    layer->out = rp_vector(units);
    return rpi_appended_affine(net, "rp_dense", layer, rpi_features(layer->in), 0, units);
}

/* What follows from a geometry's other fields. */
static void rpi_complete_geometry(rpi_geometry *g) {
    g->group_filters = g->filters / g->groups;
    g->window = g->kernel_height * g->kernel_width;
    g->taps = g->channels * g->window;
    g->positions = g->out_height * g->out_width;
}

/* Sizes and strides of images [channels][height][width] for a window that fits. 0: the output, or a window, is too
   large. */
static int rpi_image_geometry(rpi_geometry *g, rp_shape in) {
    int64_t height = ((int64_t)in.height + 2 * (int64_t)g->padding_height - g->kernel_height) / g->stride_height + 1;
    int64_t width = ((int64_t)in.width + 2 * (int64_t)g->padding_width - g->kernel_width) / g->stride_width + 1;
    g->height = in.height;
    g->width = in.width;
    g->out_height = (int)height;
    g->out_width = (int)width;
    if (height * width > RPI_LARGEST) return 0;
    g->in_x = g->out_x = 1;
    g->in_y = in.width;
    g->out_y = g->out_width;
    g->in_channel = (ptrdiff_t)in.width * in.height;
    g->out_filter = (ptrdiff_t)g->out_width * g->out_height;
    return rpi_shape_valid(rp_image(g->filters, g->out_height, g->out_width));
}

static rp_status rpi_check_window(rp_net *net, const char *who, const rpi_geometry *g) {
    const struct {
        const char *name;
        int value, least;
    } fields[] = {{"filters", g->filters, 1},
                  {"kernel height", g->kernel_height, 1},
                  {"kernel width", g->kernel_width, 1},
                  {"stride height", g->stride_height, 1},
                  {"stride width", g->stride_width, 1},
                  {"padding height", g->padding_height, 0},
                  {"padding width", g->padding_width, 0},
                  {"groups", g->groups, 1}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].value < fields[i].least || fields[i].value > RPI_LARGEST)
            return rpi_mistake(net, RP_ERR_VALUE, "%s: layer %d: %s is %d; it may be %d to %d", who, net->layer_count,
                               fields[i].name, fields[i].value, fields[i].least, RPI_LARGEST);
    return RP_OK;
}

/* A layer of images: checks sizes, windows and shapes; NULL after a failure. */
static rpi_layer *rpi_append_image(rp_net *net, const char *who, rpi_kind kind, rpi_geometry g) {
    rpi_layer *layer;
    rp_shape in = net->output;
    char text[64];
    if (rpi_check_window(net, who, &g)) return NULL;
    if (in.kind != RP_SHAPE_IMAGE) {
        rpi_mistake(net, RP_ERR_SHAPE, "%s: layer %d: it needs an image, but what comes before gives %s", who,
                    net->layer_count, rpi_shape_text(in, text));
        return NULL;
    }
    if (g.groups > in.channels || in.channels % g.groups || g.filters % g.groups) {
        rpi_mistake(net, RP_ERR_SHAPE,
                    "%s: layer %d: groups is %d, which must divide the %d channels and the %d filters", who,
                    net->layer_count, g.groups, in.channels, g.filters);
        return NULL;
    }
    g.channels = in.channels / g.groups;
    if (g.kernel_height > in.height + 2 * (int64_t)g.padding_height ||
        g.kernel_width > in.width + 2 * (int64_t)g.padding_width) {
        rpi_mistake(net, RP_ERR_SHAPE,
                    "%s: layer %d: a window of %dx%d does not fit into the image of %dx%dx%d with padding %dx%d", who,
                    net->layer_count, g.kernel_height, g.kernel_width, in.channels, in.height, in.width,
                    g.padding_height, g.padding_width);
        return NULL;
    }
    if (!rpi_image_geometry(&g, in)) {
        rpi_mistake(net, RP_ERR_OVERFLOW, "%s: layer %d: its output of %dx%dx%d is too large", who, net->layer_count,
                    g.filters, g.out_height, g.out_width);
        return NULL;
    }
    if ((int64_t)g.kernel_height * g.kernel_width > RPI_LARGEST / g.channels) {
        rpi_mistake(net, RP_ERR_OVERFLOW, "%s: layer %d: a window of %dx%dx%d is too large", who, net->layer_count,
                    g.channels, g.kernel_height, g.kernel_width);
        return NULL;
    }
    rpi_complete_geometry(&g);
    layer = rpi_append(net, who, kind);
    if (!layer) return NULL;
    layer->geometry = g;
    layer->out = rp_image(g.filters, g.out_height, g.out_width);
    return layer;
}

static int rpi_or_one(int size) { return size ? size : 1; }

static int rpi_conv2d(rp_net *net, const char *who, const rp_conv2d_desc *desc) {
    rp_status status = rpi_may_describe(net, who);
    rpi_geometry g;
    rpi_layer *layer;
    if (status) return status;
    if (!desc) return rpi_mistake(net, RP_ERR_NULL, "%s: layer %d: desc is NULL", who, net->layer_count);
    memset(&g, 0, sizeof g);
    g.filters = desc->filters;
    g.kernel_height = rpi_or_one(desc->kernel_height);
    g.kernel_width = rpi_or_one(desc->kernel_width);
    g.stride_height = rpi_or_one(desc->stride_height);
    g.stride_width = rpi_or_one(desc->stride_width);
    g.padding_height = desc->padding_height;
    g.padding_width = desc->padding_width;
    g.groups = rpi_or_one(desc->groups);
    layer = rpi_append_image(net, who, RPI_CONV2D, g);
    if (!layer) return net->broken;
    return rpi_appended_affine(net, who, layer, layer->geometry.taps, 0, g.filters);
}

RP_API int rp_conv2d_with(rp_net *net, const rp_conv2d_desc *desc) { return rpi_conv2d(net, "rp_conv2d_with", desc); }

/* Fails if a size of a square window is below what it may be: 0 in a description would mean 1. */
static rp_status rpi_check_size(rp_net *net, const char *who, const char *name, int size, int least) {
    if (size >= least) return RP_OK;
    return rpi_mistake(net, RP_ERR_VALUE, "%s: layer %d: %s is %d; it must be %d or more", who, net->layer_count, name,
                       size, least);
}

RP_API int rp_conv2d(rp_net *net, int filters, int kernel, int stride, int padding) {
    static const char who[] = "rp_conv2d";
    rp_conv2d_desc desc;
    rp_status status = rpi_may_describe(net, who);
    if (!status) status = rpi_check_size(net, who, "kernel", kernel, 1);
    if (!status) status = rpi_check_size(net, who, "stride", stride, 1);
    if (!status) status = rpi_check_size(net, who, "padding", padding, 0);
    if (status) return status;
    memset(&desc, 0, sizeof desc);
    desc.filters = filters;
    desc.kernel_height = desc.kernel_width = kernel;
    desc.stride_height = desc.stride_width = stride;
    desc.padding_height = desc.padding_width = padding;
    return rpi_conv2d(net, who, &desc);
}

static int rpi_pool2d(rp_net *net, const char *who, rpi_kind kind, int height, int width, int stride) {
    rp_status status = rpi_may_describe(net, who);
    rpi_geometry g;
    rpi_layer *layer;
    if (!status) status = rpi_check_size(net, who, "window", height, 1);
    if (!status) status = rpi_check_size(net, who, "stride", stride, 1);
    if (status) return status;
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
    int height = net ? net->output.height : 1, width = net ? net->output.width : 1;
    return rpi_pool2d(net, "rp_global_avg_pool2d", RPI_AVG_POOL2D, height, width, 1);
}

static rp_status rpi_check_activation(rp_net *net, const char *who, rp_activation_kind activation) {
    if ((int)activation >= 0 && (int)activation < RPI_ACTIVATIONS) return RP_OK;
    return rpi_mistake(net, RP_ERR_VALUE, "%s: layer %d: %d is no rp_activation_kind", who, net->layer_count,
                       (int)activation);
}

static void rpi_set_activation(rpi_layer *layer, rp_activation_kind activation) {
    layer->activation = activation;
    layer->alpha = rpi_activations[activation].slope;
}

static int rpi_recurrent(rp_net *net, const char *who, const rp_recurrent_desc *desc) {
    rp_status status = rpi_may_describe(net, who);
    rp_shape in, out;
    rpi_layer *layer;
    char text[64];
    if (status) return status;
    if (!desc) return rpi_mistake(net, RP_ERR_NULL, "%s: layer %d: desc is NULL", who, net->layer_count);
    in = net->output;
    if (in.kind != RP_SHAPE_SEQUENCE)
        return rpi_mistake(net, RP_ERR_SHAPE, "%s: layer %d: it needs a sequence, but what comes before gives %s", who,
                           net->layer_count, rpi_shape_text(in, text));
    out = rp_sequence(in.steps, desc->units);
    if (!rpi_shape_valid(out))
        return rpi_mistake(net, RP_ERR_VALUE,
                           "%s: layer %d: units is %d; it must be 1 or more, and at most %d in all %d steps", who,
                           net->layer_count, desc->units, RPI_LARGEST, in.steps);
    if (rpi_check_activation(net, who, desc->activation)) return net->broken;
    layer = rpi_append(net, who, RPI_RECURRENT);
    if (!layer) return net->broken;
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
        return rpi_mistake(net, RP_ERR_VALUE,
                           "%s: layer %d: steps is %d; it must be 1 or more, and %d units in all steps at most %d", who,
                           net->layer_count, steps, units, RPI_LARGEST);
    if (rpi_check_activation(net, who, activation)) return net->broken;
    layer = rpi_append(net, who, RPI_RECURSIVE);
    if (!layer) return net->broken;
    layer->steps = steps;
    rpi_set_activation(layer, activation);
    layer->out = rp_vector(units);
    return rpi_appended_affine(net, who, layer, units, 0, units);
}

RP_API int rp_add(rp_net *net, int source) {
    rp_status status = rpi_may_describe(net, "rp_add");
    rp_shape other;
    rpi_layer *layer;
    if (status) return status;
    if (source < RP_INPUT || source >= net->layer_count)
        return rpi_mistake(net, RP_ERR_VALUE, "rp_add: layer %d: the layer to add is %d; it may be RP_INPUT or 0 to %d",
                           net->layer_count, source, net->layer_count - 1);
    other = source == RP_INPUT ? net->input : net->layers[source].out;
    if (!rpi_same_shape(net->output, other)) {
        char one[64], two[64], name[32] = "the input";
        if (source != RP_INPUT) rpi_format(name, sizeof name, "layer %d", source);
        return rpi_mistake(net, RP_ERR_SHAPE,
                           "rp_add: layer %d: what comes before gives %s, %s gives %s; they must be the same",
                           net->layer_count, rpi_shape_text(net->output, one), name, rpi_shape_text(other, two));
    }
    layer = rpi_append(net, "rp_add", RPI_ADD);
    if (!layer) return net->broken;
    layer->source = source;
    return rpi_appended(net, layer);
}

RP_API int rp_activation(rp_net *net, rp_activation_kind activation) {
    rp_status status = rpi_may_describe(net, "rp_activation");
    rpi_layer *layer;
    if (!status) status = rpi_check_activation(net, "rp_activation", activation);
    if (status) return status;
    layer = rpi_append(net, "rp_activation", RPI_ACTIVATION);
    if (!layer) return net->broken;
    rpi_set_activation(layer, activation);
    return rpi_appended(net, layer);
}

/* A layer that has been appended already; NULL after a failure. A negative index is that of a layer that could not
   be. */
static rpi_layer *rpi_appended_layer(rp_net *net, const char *who, int layer) {
    if (rpi_may_describe(net, who)) return NULL;
    if (layer >= 0 && layer < net->layer_count) return &net->layers[layer];
    rpi_mistake(net, RP_ERR_VALUE, "%s: layer is %d; the net has %d layers so far, numbered from 0", who, layer,
                net->layer_count);
    return NULL;
}

RP_API rp_status rp_no_bias(rp_net *net, int layer) {
    rpi_layer *changed = rpi_appended_layer(net, "rp_no_bias", layer);
    if (!changed) return rpi_may_describe(net, "rp_no_bias");
    if (!changed->affine)
        return rpi_mistake(net, RP_ERR_VALUE, "rp_no_bias: layer %d (%s) has no bias", layer, rpi_layer_name(changed));
    changed->bias = 0;
    changed->bias_count = 0;
    return RP_OK;
}

RP_API rp_status rp_negative_slope(rp_net *net, int layer, rp_real slope) {
    rpi_layer *changed = rpi_appended_layer(net, "rp_negative_slope", layer);
    if (!changed) return rpi_may_describe(net, "rp_negative_slope");
    if (!(rpi_activations[changed->activation].slope > 0))
        return rpi_mistake(
            net, RP_ERR_VALUE,
            "rp_negative_slope: layer %d (%s) has no such slope, as its activation is no leaky_relu or elu", layer,
            rpi_layer_name(changed));
    if (!rpi_finite(slope) || slope < 0)
        return rpi_mistake(net, RP_ERR_VALUE,
                           "rp_negative_slope: layer %d: the slope is %g; it must be finite and 0 or more", layer,
                           (double)slope);
    changed->alpha = slope;
    return RP_OK;
}

RP_API rp_status rp_loss(rp_net *net, rp_loss_kind loss) {
    rp_status status = rpi_may_describe(net, "rp_loss");
    if (status) return status;
    if ((int)loss < 0 || loss > RP_POISSON)
        return rpi_mistake(net, RP_ERR_VALUE, "rp_loss: %d is no rp_loss_kind", (int)loss);
    net->loss = loss;
    return RP_OK;
}

RP_API rp_status rp_huber_delta(rp_net *net, rp_real delta) {
    rp_status status = rpi_may_describe(net, "rp_huber_delta");
    if (status) return status;
    if (!rpi_finite(delta) || delta <= 0)
        return rpi_mistake(net, RP_ERR_VALUE, "rp_huber_delta: delta is %g; it must be finite and above 0",
                           (double)delta);
    net->huber_delta = delta;
    return RP_OK;
}

/* >>text
   A description as text, read and written. Numbers in it, and those of a file, are read back as exactly the bits that
   were written, in any locale and floating-point mode: by comparing whole numbers of any length. */
enum { RPI_BIG_WORDS = 48, RPI_WORD = 48, RPI_LAYERS_MOST = 1 << 16 };
typedef struct rpi_big {
    int words;
    uint32_t word[RPI_BIG_WORDS]; /* smallest first; the last is not 0 */
} rpi_big;

static rpi_big rpi_big_of(uint64_t x) {
    rpi_big big;
    big.words = x >> 32 ? 2 : x > 0;
    big.word[0] = (uint32_t)x;
    big.word[1] = (uint32_t)(x >> 32);
    return big;
}

static void rpi_big_times(rpi_big *big, uint32_t factor) {
    uint64_t carry = 0;
    for (int i = 0; i < big->words; i++) {
        carry += (uint64_t)big->word[i] * factor;
        big->word[i] = (uint32_t)carry;
        carry >>= 32;
    }
    if (carry && big->words < RPI_BIG_WORDS) big->word[big->words++] = (uint32_t)carry;
}

static void rpi_big_power(rpi_big *big, uint32_t base, int power) {
    uint32_t square = base * base, eighth = square * square * square * square;
    for (; power >= 8; power -= 8) rpi_big_times(big, eighth);
    for (; power > 0; power--) rpi_big_times(big, base);
}

static int rpi_big_compare(const rpi_big *a, const rpi_big *b) {
    if (a->words != b->words) return a->words < b->words ? -1 : 1;
    for (int i = a->words - 1; i >= 0; i--)
        if (a->word[i] != b->word[i]) return a->word[i] < b->word[i] ? -1 : 1;
    return 0;
}

/* The sign of digits * 10^power - mantissa * 2^exponent, for numbers in the range of double. */
static int rpi_compare_decimal(uint64_t digits, int power, uint64_t mantissa, int exponent) {
    rpi_big decimal = rpi_big_of(digits), binary = rpi_big_of(mantissa);
    rpi_big_power(power > 0 ? &decimal : &binary, 10, power > 0 ? power : -power);
    rpi_big_power(exponent > 0 ? &binary : &decimal, 2, exponent > 0 ? exponent : -exponent);
    return rpi_big_compare(&decimal, &binary);
}

/* A format of IEEE 754: in the order of its positive numbers, a number's place is its bits. */
typedef struct rpi_binary {
    int precision, least; /* bits of the mantissa; the smallest number is 2^least */
    uint64_t infinity;    /* its bits */
} rpi_binary;
static const rpi_binary rpi_float32 = {24, -149, UINT64_C(0x7F800000)};
static const rpi_binary rpi_float64 = {53, -1074, UINT64_C(0x7FF0000000000000)};

static uint64_t rpi_mantissa(const rpi_binary *format, uint64_t bits, int *exponent) {
    uint64_t hidden = UINT64_C(1) << (format->precision - 1), fraction = bits & (hidden - 1);
    int raised = (int)(bits >> (format->precision - 1));
    *exponent = format->least + (raised ? raised - 1 : 0);
    return raised ? fraction | hidden : fraction;
}

/* The bits of the number nearest to digits * 10^power; of two, the even one. */
static uint64_t rpi_nearest(const rpi_binary *format, uint64_t digits, int power) {
    uint64_t low = 0, high = format->infinity;
    if (!digits || power < -360) return 0;
    if (power > 330) return format->infinity;
    while (low < high) { /* is it at most half-way from `middle` to the next? */
        uint64_t middle = low + (high - low) / 2;
        int exponent, sign;
        uint64_t mantissa = rpi_mantissa(format, middle, &exponent);
        sign = rpi_compare_decimal(digits, power, 2 * mantissa + 1, exponent - 1);
        if (sign < 0 || (sign == 0 && !(middle & 1))) high = middle;
        else low = middle + 1;
    }
    return low;
}

/* digits * 10^power, without zeros at the end: 0.25, 17, 1.5e-07. */
static void rpi_put_digits(rpi_text *text, uint64_t digits, int power) {
    char figures[24];
    int count = 0, point, scientific;
    for (; digits && digits % 10 == 0; digits /= 10) power++;
    for (uint64_t left = digits; left; left /= 10) figures[count++] = (char)('0' + left % 10);
    point = count + power; /* figures before the point */
    if (!count || (power >= 0 && point <= 15)) {
        rpi_put_unsigned(text, digits);
        for (int zeros = count ? power : 0; zeros > 0; zeros--) rpi_put(text, '0');
        return;
    }
    scientific = point > 15 || point <= -5;
    if (!scientific && point <= 0) {
        rpi_put_string(text, "0.");
        for (int i = point; i < 0; i++) rpi_put(text, '0');
    }
    for (int i = 0; i < count; i++) {
        if (i && i == (scientific ? 1 : point)) rpi_put(text, '.');
        rpi_put(text, figures[count - 1 - i]);
    }
    if (!scientific) return;
    rpi_put(text, 'e');
    rpi_put_signed(text, point - 1);
}

/* A positive finite number, by as few of its digits as name no other: 6 to 9, or 15 to 17. */
static void rpi_put_bits(rpi_text *text, const rpi_binary *format, uint64_t bits, double value) {
    int exponent, most = format->precision == 24 ? 9 : 17, decimal = (int)floor(log10(value));
    uint64_t mantissa = rpi_mantissa(format, bits, &exponent), low = 0;
    int power = 0;
    for (int count = format->precision == 24 ? 6 : 15; count <= most + 1; count++) { /* log10 may be off by one */
        uint64_t high = 1;
        for (int i = 0; i < count; i++) high *= 10;
        power = decimal - count + 1;
        for (low = 0; low < high;) { /* the most digits that are not above it */
            uint64_t middle = low + (high - low + 1) / 2;
            if (rpi_compare_decimal(middle, power, mantissa, exponent) <= 0) low = middle;
            else high = middle - 1;
        }
        if (rpi_nearest(format, low, power) == bits) break;
        low++;
        if (rpi_nearest(format, low, power) == bits) break;
    }
    rpi_put_digits(text, low, power);
}

static double rpi_value_of(const rpi_binary *format, uint64_t bits) {
    uint32_t few = (uint32_t)bits;
    float single;
    double x;
    memcpy(&single, &few, sizeof single);
    memcpy(&x, &bits, sizeof x);
    return format->precision == 24 ? (double)single : x;
}

/* What is not finite becomes the largest number that is. */
static void rpi_put_exactly(rpi_text *text, const rpi_binary *format, double x) {
    uint64_t bits;
    uint32_t few;
    float single = (float)x;
    memcpy(&bits, &x, sizeof bits);
    memcpy(&few, &single, sizeof few);
    if (bits >> 63) rpi_put(text, '-');
    bits &= UINT64_C(0x7FFFFFFFFFFFFFFF);
    if (format->precision == 24) bits = few & UINT32_C(0x7FFFFFFF);
    if (bits >= format->infinity) bits = format->infinity - 1;
    if (bits) rpi_put_bits(text, format, bits, rpi_value_of(format, bits));
    else rpi_put(text, '0');
}
static const rpi_binary *rpi_real_format(void) { return sizeof(rp_real) == 8 ? &rpi_float64 : &rpi_float32; }
static void rpi_put_real(rpi_text *text, rp_real x) { rpi_put_exactly(text, rpi_real_format(), (double)x); }

/* The whole word as a number -1.25e-3 of this format; 0: it is none, is too large, or has more than 19 digits. */
static int rpi_read_exactly(const char *word, const rpi_binary *format, double *x) {
    uint64_t digits = 0, bits;
    int negative = *word == '-', power = 0, point = 0, some = 0;
    for (word += negative; (*word >= '0' && *word <= '9') || (*word == '.' && !point); word++) {
        if (*word == '.') {
            point = 1;
            continue;
        }
        some = 1;
        if (digits >= UINT64_C(1000000000000000000)) return 0;
        digits = digits * 10 + (uint64_t)(*word - '0');
        power -= point;
    }
    if (*word == 'e' && some) {
        int minus = word[1] == '-', raised = 0, figures = 0;
        for (word += 1 + (minus || word[1] == '+'); *word >= '0' && *word <= '9' && figures < 4; figures++)
            raised = raised * 10 + (*word++ - '0');
        if (!figures) return 0;
        power += minus ? -raised : raised;
    }
    if (*word || !some) return 0;
    bits = rpi_nearest(format, digits, power);
    if (bits == format->infinity) return 0;
    *x = rpi_value_of(format, bits);
    if (negative) *x = -*x;
    return 1;
}

/* The whole word as a number of at most 20 figures; 0: it is none, or above `most`. */
static int rpi_read_unsigned(const char *word, uint64_t most, uint64_t *x) {
    uint64_t value = 0;
    if (!*word) return 0;
    for (; *word; word++) {
        uint64_t figure = (uint64_t)(*word - '0');
        if (*word < '0' || *word > '9' || value > most / 10 || value * 10 > most - figure) return 0;
        value = value * 10 + figure;
    }
    *x = value;
    return 1;
}

/* Characters, of a string in JSON or of plain text. */
typedef struct rpi_reader {
    const char *at, *end;
    int json; /* escapes count */
} rpi_reader;

static rpi_reader rpi_reader_of(const char *text) {
    rpi_reader reader;
    reader.at = text;
    reader.end = text + strlen(text);
    reader.json = 0;
    return reader;
}

/* Four hexadecimal figures, or -1. */
static int32_t rpi_hexadecimal(const char *at, const char *end) {
    int32_t x = 0;
    if (end - at < 4) return -1;
    for (int i = 0; i < 4; i++) {
        int c = at[i], letter = c | 32;
        if (c >= '0' && c <= '9') x = x * 16 + (c - '0');
        else if (letter >= 'a' && letter <= 'f') x = x * 16 + (letter - 'a' + 10);
        else return -1;
    }
    return x;
}

/* The character behind a backslash, and how many bytes it takes with it; -1: there is no such escape. */
static int32_t rpi_escaped(const rpi_reader *reader, int *length) {
    static const char names[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
    const char *at = reader->at + 1, *found;
    int32_t high, low;
    if (at == reader->end || !*at) return -1;
    found = strchr(names, *at);
    if (found) *length = 2;
    if (found) return means[found - names];
    high = *at == 'u' ? rpi_hexadecimal(at + 1, reader->end) : -1;
    if (high < 0 || (high > 0xDBFF && high <= 0xDFFF)) return -1;
    if (high < 0xD800 || high > 0xDFFF) {
        *length = 6;
        return high;
    }
    low = reader->end - at >= 11 && at[5] == '\\' && at[6] == 'u' ? rpi_hexadecimal(at + 7, reader->end) : -1;
    if (low < 0xDC00 || low > 0xDFFF) return -1;
    *length = 12;
    return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
}

/* A character of two to four bytes of UTF-8; -1: it is not one. */
static int32_t rpi_wide(const rpi_reader *reader, int *length) {
    static const int32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *at = (const unsigned char *)reader->at;
    int32_t c;
    int bytes = 2 + (at[0] >= 0xE0) + (at[0] >= 0xF0);
    if (at[0] < 0xC2 || at[0] > 0xF4 || reader->end - reader->at < bytes) return -1;
    c = at[0] & (0xFF >> (bytes + 1));
    for (int i = 1; i < bytes; i++) {
        if ((at[i] & 0xC0) != 0x80) return -1;
        c = c << 6 | (at[i] & 0x3F);
    }
    if (c < least[bytes] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) return -1;
    *length = bytes;
    return c;
}

/* The next character and its bytes; -1: not one that may stand here. Not at the end. */
static int32_t rpi_peek(const rpi_reader *reader, int *length) {
    unsigned char c = (unsigned char)*reader->at;
    *length = 1;
    if (c >= 0x80) return rpi_wide(reader, length);
    if (!reader->json) return c;
    if (c == '\\') return rpi_escaped(reader, length);
    return c >= 0x20 ? c : -1;
}

static int rpi_is_space(int32_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* The next word into `word`, of `size` bytes: characters up to white space or one of `stops`, or one of these by
   itself; its length. 0: the text is at its end. What a word cannot hold becomes '?'. */
static int rpi_next_word(rpi_reader *reader, const char *stops, char *word, int size) {
    int used = 0, length;
    while (reader->at < reader->end) {
        int32_t c = rpi_peek(reader, &length);
        int stop = c > 0 && c < 0x80 && strchr(stops, (char)c) != NULL;
        if ((stop || rpi_is_space(c)) && used) break;
        reader->at += length;
        if (rpi_is_space(c)) continue;
        word[used++] = (char)(c > 0x20 && c < 0x7F ? c : '?');
        if (used == size) word[--used - 1] = '?'; /* too long to be any word */
        if (stop) break;
    }
    word[used] = 0;
    return used;
}

/* What the text can say of a layer. Bits. */
enum {
    RPI_SAYS_COUNT = 1, /* units, filters or steps */
    RPI_SAYS_WINDOW = 2,
    RPI_SAYS_ACTIVATION = 4,
    RPI_SAYS_SOURCE = 8,
    /* behind these, in any order: */
    RPI_SAYS_STRIDE = 16,
    RPI_SAYS_PADDING = 32,
    RPI_SAYS_GROUPS = 64,
    RPI_SAYS_SLOPE = 128,
    RPI_SAYS_DELTA = 256,
    RPI_SAYS_ALL_STATES = 512,
    RPI_SAYS_NO_BIAS = 1024,
    RPI_SAYS_FROZEN = 2048,
    RPI_SAYS_AFFINE = RPI_SAYS_NO_BIAS | RPI_SAYS_FROZEN
};
static const struct rpi_option_word {
    const char *name;
    unsigned bit;
} rpi_option_words[] = {{"stride", RPI_SAYS_STRIDE},   {"padding", RPI_SAYS_PADDING},
                        {"groups", RPI_SAYS_GROUPS},   {"slope", RPI_SAYS_SLOPE},
                        {"delta", RPI_SAYS_DELTA},     {"all_states", RPI_SAYS_ALL_STATES},
                        {"no_bias", RPI_SAYS_NO_BIAS}, {"frozen", RPI_SAYS_FROZEN}};

typedef struct rpi_phrase {
    const char *name;
    rpi_kind kind;
    unsigned says;
} rpi_phrase;
static const rpi_phrase rpi_phrases[] = {
    /* in the order of rpi_kind; behind them others for the same */
    {"", RPI_ACTIVATION, RPI_SAYS_SLOPE},
    {"dense", RPI_DENSE, RPI_SAYS_COUNT | RPI_SAYS_AFFINE},
    {"conv2d", RPI_CONV2D,
     RPI_SAYS_COUNT | RPI_SAYS_WINDOW | RPI_SAYS_STRIDE | RPI_SAYS_PADDING | RPI_SAYS_GROUPS | RPI_SAYS_AFFINE},
    {"max_pool2d", RPI_MAX_POOL2D, RPI_SAYS_WINDOW | RPI_SAYS_STRIDE},
    {"avg_pool2d", RPI_AVG_POOL2D, RPI_SAYS_WINDOW | RPI_SAYS_STRIDE},
    {"recurrent", RPI_RECURRENT,
     RPI_SAYS_COUNT | RPI_SAYS_ACTIVATION | RPI_SAYS_SLOPE | RPI_SAYS_ALL_STATES | RPI_SAYS_AFFINE},
    {"recursive", RPI_RECURSIVE, RPI_SAYS_COUNT | RPI_SAYS_ACTIVATION | RPI_SAYS_SLOPE | RPI_SAYS_AFFINE},
    {"add", RPI_ADD, RPI_SAYS_SOURCE},
    {"global_avg_pool2d", RPI_AVG_POOL2D, 0},
};
enum { RPI_PHRASES = sizeof rpi_phrases / sizeof *rpi_phrases, RPI_GLOBAL_POOL = RPI_PHRASES - 1 };
static const char *const rpi_loss_words[] = {"squared_error", "softmax_cross_entropy", "binary_cross_entropy", "huber",
                                             "poisson"}; /* as rp_loss_kind */
enum { RPI_LOSS_WORDS = sizeof rpi_loss_words / sizeof *rpi_loss_words };
static const char *const rpi_shape_words[] = {"", "vector", "image", "sequence"}; /* as rp_shape_kind */

static void rpi_put_number(rpi_text *text, int64_t x) {
    rpi_put(text, ' ');
    rpi_put_signed(text, x);
}
/* " 5x4", and where both may be said by one, " 5" */
static void rpi_put_sides(rpi_text *text, int height, int width, int shorter) {
    rpi_put_number(text, height);
    if (shorter && height == width) return;
    rpi_put(text, 'x');
    rpi_put_signed(text, width);
}
static void rpi_put_option(rpi_text *text, unsigned bit) {
    for (size_t i = 0; i < sizeof rpi_option_words / sizeof *rpi_option_words; i++) {
        if (rpi_option_words[i].bit != bit) continue;
        rpi_put(text, ' ');
        rpi_put_string(text, rpi_option_words[i].name);
    }
}

static unsigned rpi_layer_says(const rpi_layer *layer) {
    unsigned says = rpi_phrases[layer->kind].says;
    const rpi_geometry *g = &layer->geometry;
    int whole = g->kernel_height == g->height && g->kernel_width == g->width && g->stride_height == 1;
    if (layer->kind == RPI_AVG_POOL2D && whole) says = 0;
    if (!(rpi_activations[layer->activation].slope > 0)) says &= ~(unsigned)RPI_SAYS_SLOPE;
    if (layer->kind == RPI_CONV2D && g->groups == 1) says &= ~(unsigned)RPI_SAYS_GROUPS;
    if (!layer->all_states) says &= ~(unsigned)RPI_SAYS_ALL_STATES;
    if (layer->bias) says &= ~(unsigned)RPI_SAYS_NO_BIAS;
    if (!layer->frozen) says &= ~(unsigned)RPI_SAYS_FROZEN;
    return says;
}

static void rpi_put_layer(rpi_text *text, const rpi_layer *layer) {
    const rpi_geometry *g = &layer->geometry;
    unsigned says = rpi_layer_says(layer);
    if (layer->kind == RPI_AVG_POOL2D && !says) rpi_put_string(text, rpi_phrases[RPI_GLOBAL_POOL].name);
    else rpi_put_string(text, rpi_layer_name(layer));
    if (says & RPI_SAYS_COUNT) {
        int count = layer->kind == RPI_RECURSIVE ? layer->steps : layer->units;
        rpi_put_number(text, layer->kind == RPI_CONV2D ? g->filters : count);
    }
    if (says & RPI_SAYS_WINDOW) rpi_put_sides(text, g->kernel_height, g->kernel_width, 0);
    if (says & RPI_SAYS_ACTIVATION) rpi_put(text, ' ');
    if (says & RPI_SAYS_ACTIVATION) rpi_put_string(text, rpi_activations[layer->activation].name);
    if (says & RPI_SAYS_SOURCE && layer->source == RP_INPUT) rpi_put_string(text, " input");
    else if (says & RPI_SAYS_SOURCE) rpi_put_number(text, layer->source);
    rpi_put_option(text, says & RPI_SAYS_STRIDE);
    if (says & RPI_SAYS_STRIDE) rpi_put_sides(text, g->stride_height, g->stride_width, 1);
    rpi_put_option(text, says & RPI_SAYS_PADDING);
    if (says & RPI_SAYS_PADDING) rpi_put_sides(text, g->padding_height, g->padding_width, 1);
    rpi_put_option(text, says & RPI_SAYS_GROUPS);
    if (says & RPI_SAYS_GROUPS) rpi_put_number(text, g->groups);
    rpi_put_option(text, says & RPI_SAYS_SLOPE);
    if (says & RPI_SAYS_SLOPE) rpi_put(text, ' ');
    if (says & RPI_SAYS_SLOPE) rpi_put_real(text, layer->alpha);
    rpi_put_option(text, says & RPI_SAYS_ALL_STATES);
    rpi_put_option(text, says & RPI_SAYS_NO_BIAS);
    rpi_put_option(text, says & RPI_SAYS_FROZEN);
}

/* Item -1: the input; the layers; item layer_count: the loss. */
static void rpi_put_item(rpi_text *text, const rp_net *net, int item) {
    if (item >= 0 && item < net->layer_count) {
        rpi_put_layer(text, &net->layers[item]);
        return;
    }
    if (item < 0) {
        rpi_put_string(text, "input ");
        rpi_put_string(text, rpi_shape_words[net->input.kind]);
        rpi_put(text, ' ');
        rpi_put_shape(text, net->input);
        return;
    }
    rpi_put_string(text, "loss ");
    rpi_put_string(text, rpi_loss_words[net->loss]);
    if (!rpi_loss_of(net)->has_delta) return;
    rpi_put_option(text, RPI_SAYS_DELTA);
    rpi_put(text, ' ');
    rpi_put_real(text, net->huber_delta > 0 ? net->huber_delta : 1);
}

RP_API size_t rp_describe(const rp_net *net, char *out, size_t size) {
    rpi_text text = {out, out ? size : 0, 0};
    if (net && rpi_shape_valid(net->input))
        for (int item = -1; item <= net->layer_count; item++) {
            if (item >= 0) rpi_put_string(&text, "; ");
            rpi_put_item(&text, net, item);
        }
    if (text.size) out[text.length < text.size ? text.length : text.size - 1] = 0;
    return text.length;
}

/* One item of a text: what is said of a layer or the loss. */
typedef struct rpi_item {
    rp_net *net;
    const char *who;
    rpi_reader *from;
    char word[RPI_WORD]; /* the next one; ";" or "" at the end */
    char name[RPI_WORD]; /* the first one */
    unsigned said;
    int count, groups, source, window[2], stride[2], padding[2];
    rp_activation_kind activation;
    double slope, delta;
} rpi_item;

static void rpi_read_word(rpi_item *item) { rpi_next_word(item->from, ";", item->word, RPI_WORD); }
static int rpi_item_ends(const rpi_item *item) { return !*item->word || *item->word == ';'; }

/* Which item it is, counted as layers are. */
static rp_status rpi_misread(const rpi_item *item, const char *what) {
    char place[24] = "the loss";
    const char *word = rpi_item_ends(item) ? "the end" : item->word;
    if (strcmp(item->name, "loss")) rpi_format(place, sizeof place, "layer %d", item->net->layer_count);
    if (!strcmp(item->name, "input")) rpi_format(place, sizeof place, "the input");
    return rpi_mistake(item->net, RP_ERR_VALUE, "%s: %s, '%s': %s, not %s", item->who, place, item->name, what, word);
}

/* "5" or "5x4x3": how many sizes the word has, at most `most`; 0: it is something else. */
static int rpi_read_sizes(const char *word, int most, int *sizes) {
    for (int count = 1; count <= most; count++) {
        const char *end = strchr(word, 'x');
        size_t length = end ? (size_t)(end - word) : strlen(word);
        char figures[12];
        uint64_t size;
        if (length >= sizeof figures) return 0;
        memcpy(figures, word, length);
        figures[length] = 0;
        if (!rpi_read_unsigned(figures, INT_MAX, &size)) return 0;
        sizes[count - 1] = (int)size;
        if (!end) return count;
        word = end + 1;
    }
    return 0;
}

/* The word is "5x4", or "5" for both. */
static int rpi_read_sides(const char *word, int sides[2]) {
    int count = rpi_read_sizes(word, 2, sides);
    if (count == 1) sides[1] = sides[0];
    return count > 0;
}

static int rpi_read_activation(const char *word, rp_activation_kind *activation) {
    for (int i = 0; i < RPI_ACTIVATIONS; i++) {
        if (strcmp(word, rpi_activations[i].name)) continue;
        *activation = (rp_activation_kind)i;
        return 1;
    }
    return 0;
}

/* What must stand behind the name. */
static rp_status rpi_read_needed(rpi_item *item, unsigned says) {
    int sizes[1];
    if (says & RPI_SAYS_COUNT) {
        if (!rpi_read_sizes(item->word, 1, sizes)) return rpi_misread(item, "it needs a number");
        item->count = sizes[0];
        rpi_read_word(item);
    }
    if (says & RPI_SAYS_WINDOW) {
        if (!rpi_read_sides(item->word, item->window)) return rpi_misread(item, "it needs a window such as 5x5");
        rpi_read_word(item);
    }
    if (says & RPI_SAYS_ACTIVATION) {
        if (!rpi_read_activation(item->word, &item->activation)) return rpi_misread(item, "it needs an activation");
        rpi_read_word(item);
    }
    if (says & RPI_SAYS_SOURCE) {
        int input = !strcmp(item->word, "input");
        if (!input && !rpi_read_sizes(item->word, 1, &item->source))
            return rpi_misread(item, "it needs a layer's number, or input");
        if (input) item->source = RP_INPUT;
        rpi_read_word(item);
    }
    return RP_OK;
}

/* The value of an option; 1 if it is one. */
static int rpi_read_value(rpi_item *item, unsigned option) {
    switch (option) {
    case RPI_SAYS_STRIDE: return rpi_read_sides(item->word, item->stride);
    case RPI_SAYS_PADDING: return rpi_read_sides(item->word, item->padding);
    case RPI_SAYS_GROUPS: return rpi_read_sizes(item->word, 1, &item->groups);
    case RPI_SAYS_SLOPE: return rpi_read_exactly(item->word, rpi_real_format(), &item->slope);
    default: return rpi_read_exactly(item->word, rpi_real_format(), &item->delta);
    }
}

static rp_status rpi_read_options(rpi_item *item, unsigned says) {
    const unsigned valued = RPI_SAYS_STRIDE | RPI_SAYS_PADDING | RPI_SAYS_GROUPS | RPI_SAYS_SLOPE | RPI_SAYS_DELTA;
    while (!rpi_item_ends(item)) {
        unsigned option = 0;
        for (size_t i = 0; i < sizeof rpi_option_words / sizeof *rpi_option_words; i++)
            if (!strcmp(item->word, rpi_option_words[i].name)) option = rpi_option_words[i].bit;
        if (!(option & says)) return rpi_misread(item, "it must end, or go on with a word that it may have");
        if (option & item->said) return rpi_misread(item, "it may have each word once");
        item->said |= option;
        rpi_read_word(item);
        if (!(option & valued)) continue;
        if (!rpi_read_value(item, option)) return rpi_misread(item, "a number must come next");
        rpi_read_word(item);
    }
    return RP_OK;
}

static int rpi_append_conv2d(const rpi_item *item) {
    rp_conv2d_desc desc;
    const int zero = !item->window[0] || !item->window[1] || !item->groups || !item->stride[0] || !item->stride[1];
    if (zero) /* would mean 1 in a description */
        return rpi_mistake(item->net, RP_ERR_VALUE,
                           "%s: layer %d, 'conv2d': window, stride and groups must be 1 or more", item->who,
                           item->net->layer_count);
    desc.filters = item->count;
    desc.kernel_height = item->window[0];
    desc.kernel_width = item->window[1];
    desc.stride_height = item->stride[0];
    desc.stride_width = item->stride[1];
    desc.padding_height = item->padding[0];
    desc.padding_width = item->padding[1];
    desc.groups = item->groups;
    return rpi_conv2d(item->net, item->who, &desc);
}

static int rpi_append_pool2d(const rpi_item *item, rpi_kind kind) {
    if (!item->window[0] || !item->window[1])
        return rpi_mistake(item->net, RP_ERR_VALUE, "%s: layer %d, '%s': the window must be 1 or more", item->who,
                           item->net->layer_count, item->name);
    if (item->stride[0] != item->stride[1])
        return rpi_mistake(item->net, RP_ERR_VALUE, "%s: layer %d, '%s': the stride is %dx%d; it must be one number",
                           item->who, item->net->layer_count, item->name, item->stride[0], item->stride[1]);
    return rpi_pool2d(item->net, item->who, kind, item->window[0], item->window[1], item->stride[0]);
}

/* The layer's index, or a negative status. */
static int rpi_append_item(const rpi_item *item, const rpi_phrase *phrase) {
    rp_recurrent_desc recurrent;
    switch (phrase->kind) {
    case RPI_DENSE: return rp_dense(item->net, item->count);
    case RPI_CONV2D: return rpi_append_conv2d(item);
    case RPI_MAX_POOL2D: return rpi_append_pool2d(item, RPI_MAX_POOL2D);
    case RPI_AVG_POOL2D:
        return phrase->says ? rpi_append_pool2d(item, RPI_AVG_POOL2D) : rp_global_avg_pool2d(item->net);
    case RPI_RECURRENT:
        recurrent.units = item->count;
        recurrent.activation = item->activation;
        recurrent.all_states = (item->said & RPI_SAYS_ALL_STATES) != 0;
        return rpi_recurrent(item->net, item->who, &recurrent);
    case RPI_RECURSIVE: return rp_recursive(item->net, item->count, item->activation);
    case RPI_ADD: return rp_add(item->net, item->source);
    case RPI_ACTIVATION: break;
    }
    return rp_activation(item->net, item->activation);
}

static rp_status rpi_read_layer(rpi_item *item) {
    rp_net *net = item->net;
    const rpi_phrase *phrase = NULL;
    rp_status status;
    int layer;
    for (int i = 1; i < RPI_PHRASES; i++)
        if (!strcmp(item->name, rpi_phrases[i].name)) phrase = &rpi_phrases[i];
    if (rpi_read_activation(item->name, &item->activation)) phrase = &rpi_phrases[RPI_ACTIVATION];
    if (!phrase)
        return rpi_mistake(net, RP_ERR_VALUE, "%s: layer %d: '%s' is no kind of layer, activation or loss", item->who,
                           net->layer_count, item->name);
    if (net->layer_count == RPI_LAYERS_MOST)
        return rpi_mistake(net, RP_ERR_VALUE, "%s: the text has more than %d layers", item->who, RPI_LAYERS_MOST);
    status = rpi_read_needed(item, phrase->says);
    if (!status) status = rpi_read_options(item, phrase->says);
    if (status) return status;
    if (!(item->said & RPI_SAYS_STRIDE)) {
        item->stride[0] = phrase->kind == RPI_CONV2D ? 1 : item->window[0];
        item->stride[1] = phrase->kind == RPI_CONV2D ? 1 : item->window[1];
    }
    layer = rpi_append_item(item, phrase);
    if (layer < 0) return net->broken;
    if (item->said & RPI_SAYS_NO_BIAS) rp_no_bias(net, layer);
    if (item->said & RPI_SAYS_SLOPE) rp_negative_slope(net, layer, (rp_real)item->slope);
    if (item->said & RPI_SAYS_FROZEN) rp_freeze(net, layer, 1);
    return net->broken;
}

static rp_status rpi_read_loss(rpi_item *item) {
    int loss = 0;
    while (loss < RPI_LOSS_WORDS && strcmp(item->word, rpi_loss_words[loss])) loss++;
    if (loss == RPI_LOSS_WORDS) return rpi_misread(item, "it needs the name of a loss");
    rpi_read_word(item);
    if (rpi_read_options(item, rpi_losses[loss].has_delta ? RPI_SAYS_DELTA : 0)) return item->net->broken;
    rp_loss(item->net, (rp_loss_kind)loss);
    if (item->said & RPI_SAYS_DELTA) rp_huber_delta(item->net, (rp_real)item->delta);
    return item->net->broken;
}

static rp_status rpi_read_input(rpi_item *item) {
    rp_net *net = item->net;
    int kind = RP_SHAPE_VECTOR, sizes[3] = {0, 0, 0}, count;
    rp_shape shape;
    while (kind <= RP_SHAPE_SEQUENCE && strcmp(item->word, rpi_shape_words[kind])) kind++;
    if (kind > RP_SHAPE_SEQUENCE) return rpi_misread(item, "it needs vector, image or sequence");
    rpi_read_word(item);
    count = rpi_read_sizes(item->word, 3, sizes);
    if (kind == RP_SHAPE_VECTOR && count == 1) shape = rp_vector(sizes[0]);
    else if (kind == RP_SHAPE_IMAGE && count == 3) shape = rp_image(sizes[0], sizes[1], sizes[2]);
    else if (kind == RP_SHAPE_SEQUENCE && count == 2) shape = rp_sequence(sizes[0], sizes[1]);
    else return rpi_misread(item, "it needs a size such as 784 of a vector, 1x28x28 of an image, 20x5 of a sequence");
    if (!rpi_shape_valid(shape)) return rpi_misread(item, "its sizes must be 1 or more, and at most 2^28 in all");
    rpi_read_word(item);
    if (!rpi_item_ends(item)) return rpi_misread(item, "it must end");
    net->input = net->output = shape;
    return RP_OK;
}

/* Describes a net that has no layer yet as the text says. The first mistake sticks. */
static rp_status rpi_read_text(rp_net *net, const char *who, rpi_reader *from) {
    int inputs = 0, losses = 0;
    rpi_item item;
    while (!net->broken) {
        memset(&item, 0, sizeof item);
        item.net = net;
        item.who = who;
        item.from = from;
        item.groups = 1;
        rpi_read_word(&item);
        memcpy(item.name, item.word, sizeof item.name);
        if (!*item.word) break;
        if (*item.word == ';') continue;
        rpi_read_word(&item);
        if (!inputs && strcmp(item.name, "input"))
            return rpi_mistake(net, RP_ERR_VALUE, "%s: the text begins with '%s', not with input", who, item.name);
        if (!strcmp(item.name, "input")) {
            if (inputs++) return rpi_misread(&item, "there may be one");
            rpi_read_input(&item);
        } else if (!strcmp(item.name, "loss")) {
            if (losses++) return rpi_misread(&item, "there may be one");
            rpi_read_loss(&item);
        } else rpi_read_layer(&item);
    }
    if (!inputs) rpi_mistake(net, RP_ERR_VALUE, "%s: the text is empty; it begins with input", who);
    return net->broken;
}

RP_API rp_net *rp_net_text(const char *text, const rp_config *config) {
    static const char who[] = "rp_net_text";
    rp_net *net = rp_net_new(rp_vector(1), config);
    rpi_reader reader;
    if (!net || net->broken) return net;
    if (!text) {
        rpi_mistake(net, RP_ERR_NULL, "%s: text is NULL", who);
        return net;
    }
    reader = rpi_reader_of(text);
    rpi_read_text(net, who, &reader);
    return net;
}

/* >>lower
   Layers to steps. Runs twice: first it only counts steps and slots, then it writes them. */
typedef struct rpi_lowering {
    rp_net *net;
    rpi_step counted; /* the step that the first run writes to, again and again */
    rpi_step *open;   /* the step which an activation may join; NULL: there is none */
    int last_read;    /* the highest slot that a step reads */
} rpi_lowering;

/* A new step of a layer that reads slot `in` and writes `rows` rows of slot `out` from out_row on. */
static rpi_step *rpi_emit_into(rpi_lowering *lowering, const rpi_map *map, int layer, int in, int rows, int out,
                               int out_row) {
    rp_net *net = lowering->net;
    const rpi_layer *l = &net->layers[layer];
    rpi_step *step = net->steps ? &net->steps[net->step_count] : &lowering->counted;
    memset(step, 0, sizeof *step);
    step->map = map;
    step->layer = layer;
    step->collects = 1;
    step->in = in;
    step->out = out;
    step->out_row = out_row;
    step->outputs = rows;
    step->inputs = net->slot_rows ? net->slot_rows[in] : 0;
    step->bias = l->bias;
    step->fan_in = l->fan_in;
    step->weights = l->weights;
    step->biases = l->biases;
    step->geometry = l->geometry;
    step->end = l->geometry.positions;
    step->in_end = l->geometry.height * l->geometry.width;
    net->step_count++;
    if (in > lowering->last_read) lowering->last_read = in;
    return step;
}

/* The same, to a new slot of slot_rows rows. */
static rpi_step *rpi_emit(rpi_lowering *lowering, const rpi_map *map, int layer, int in, int rows, int slot_rows) {
    rp_net *net = lowering->net;
    rpi_step *step = rpi_emit_into(lowering, map, layer, in, rows, net->slot_count, 0);
    if (net->slot_rows) net->slot_rows[net->slot_count] = slot_rows;
    net->slot_count++;
    return step;
}

/* A slot of its own for rows of another. */
static int rpi_lower_copy(rpi_lowering *lowering, int layer, int in, int in_row, int rows) {
    rpi_step *step = rpi_emit(lowering, &rpi_copy_map, layer, in, rows, rows);
    step->in_row = in_row;
    step->inputs = rows;
    return step->out;
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
    rpi_complete_geometry(&g);
    return g;
}

/* h_t = activation(W h_(t-1) + what is there, or b), one step of the tape for each t from `first` on, in place in one
   slot of `states` states. */
static void rpi_lower_states(rpi_lowering *lowering, int index, int slot, int states, int first) {
    const rpi_layer *layer = &lowering->net->layers[index];
    int inputs = layer->fan_in - layer->units; /* of the product that stands in the slot; 0: there is none */
    for (int t = first; t < states; t++) {
        int row = t * layer->units;
        rpi_step *step = rpi_emit_into(lowering, &rpi_shared_map, index, slot, layer->units, slot, row);
        step->geometry = rpi_sequence_geometry(states, layer->units, layer->units, 1);
        step->from = t;
        step->end = t + 1;
        step->in_from = t ? t - 1 : 0;
        step->in_end = t;
        step->inputs = layer->units;
        step->weights = layer->weights + (ptrdiff_t)layer->units * inputs;
        step->add = inputs > 0;
        step->bias = layer->bias && !step->add;
        step->collects = t == states - 1;
        step->activation = layer->activation;
        step->alpha = layer->alpha;
    }
}

static int rpi_lower_recurrent(rpi_lowering *lowering, int index, int in) {
    const rpi_layer *layer = &lowering->net->layers[index];
    int rows = layer->steps * layer->units;
    rpi_step *step = rpi_emit(lowering, &rpi_shared_map, index, in, rows, rows);
    int slot = step->out;
    step->geometry = rpi_sequence_geometry(layer->steps, layer->in.channels, layer->units, 0);
    step->end = step->in_end = layer->steps;
    rpi_lower_states(lowering, index, slot, layer->steps, 0);
    return layer->all_states ? slot : rpi_lower_copy(lowering, index, slot, rows - layer->units, layer->units);
}

static int rpi_lower_recursive(rpi_lowering *lowering, int index, int in) {
    const rpi_layer *layer = &lowering->net->layers[index];
    int rows = layer->steps * layer->units;
    int slot = rpi_emit(lowering, &rpi_copy_map, index, in, layer->units, rows + layer->units)->out; /* v_0 */
    rpi_lower_states(lowering, index, slot, layer->steps + 1, 1);
    return rpi_lower_copy(lowering, index, slot, rows, layer->units);
}

static int rpi_lower_add(rpi_lowering *lowering, int index, int in) {
    const rp_net *net = lowering->net;
    int source = net->layers[index].source, rows = rpi_features(net->layers[index].out);
    int out = rpi_lower_copy(lowering, index, in, 0, rows);
    int other = source == RP_INPUT ? 0 : net->layers[source].slot;
    lowering->open = rpi_emit_into(lowering, &rpi_copy_map, index, other, rows, out, 0);
    lowering->open->add = 1;
    return out;
}

/* Whether a later rp_add reads this layer's output, which must then stay as it is. */
static int rpi_added_later(const rp_net *net, int index) {
    for (int i = index + 1; i < net->layer_count; i++)
        if (net->layers[i].kind == RPI_ADD && net->layers[i].source == index) return 1;
    return 0;
}

/* An activation joins the step before it, if that is the last to write the slot and nothing else reads it. */
static int rpi_lower_activation(rpi_lowering *lowering, int index, int in, rpi_step *before) {
    const rpi_layer *layer = &lowering->net->layers[index];
    int rows = rpi_features(layer->out);
    if (!before || rpi_added_later(lowering->net, index - 1))
        before = rpi_emit(lowering, &rpi_copy_map, index, in, rows, rows);
    before->activation = layer->activation;
    before->alpha = layer->alpha;
    return before->out;
}

/* The layer's steps; returns the slot of its output. */
static int rpi_lower_layer(rpi_lowering *lowering, int index, int in) {
    const rpi_layer *layer = &lowering->net->layers[index];
    int rows = rpi_features(layer->out);
    rpi_step *before = lowering->open;
    lowering->open = NULL;
    switch (layer->kind) {
    case RPI_DENSE: lowering->open = rpi_emit(lowering, &rpi_dense_map, index, in, rows, rows); break;
    case RPI_CONV2D: lowering->open = rpi_emit(lowering, &rpi_shared_map, index, in, rows, rows); break;
    case RPI_MAX_POOL2D: return rpi_emit(lowering, &rpi_max_pool_map, index, in, rows, rows)->out;
    case RPI_AVG_POOL2D: return rpi_emit(lowering, &rpi_avg_pool_map, index, in, rows, rows)->out;
    case RPI_RECURRENT: return rpi_lower_recurrent(lowering, index, in);
    case RPI_RECURSIVE: return rpi_lower_recursive(lowering, index, in);
    case RPI_ADD: return rpi_lower_add(lowering, index, in);
    case RPI_ACTIVATION: return rpi_lower_activation(lowering, index, in, before);
    }
    return lowering->open->out;
}

/* The output is the last slot, which no step reads. */
static void rpi_lower(rp_net *net) {
    rpi_lowering lowering;
    int slot = 0;
    memset(&lowering, 0, sizeof lowering);
    lowering.net = net;
    net->step_count = 0;
    net->slot_count = 1;
    if (net->slot_rows) net->slot_rows[0] = net->inputs;
    for (int i = 0; i < net->layer_count; i++) {
        slot = rpi_lower_layer(&lowering, i, slot);
        net->layers[i].slot = slot;
    }
    if (slot != net->slot_count - 1 || slot == lowering.last_read)
        rpi_lower_copy(&lowering, net->layer_count - 1, slot, 0, net->outputs);
}

static int rpi_trains(const rp_net *net, const rpi_step *step) {
    return step->map->trains && !net->layers[step->layer].frozen;
}

/* The step behind `step` (NULL: the first) whose parameters are trained; of steps that share them, the one that
   collects. NULL behind the last. */
static const rpi_step *rpi_next_trained(const rp_net *net, const rpi_step *step) {
    const rpi_step *end = net->steps + net->step_count;
    for (step = step ? step + 1 : net->steps; step < end; step++)
        if (rpi_trains(net, step) && step->collects) return step;
    return NULL;
}

static void rpi_mark_live(rp_net *net) {
    for (int slot = 0; slot < net->slot_count; slot++) net->live[slot] = 0;
    for (int i = 0; i < net->step_count; i++) {
        const rpi_step *step = &net->steps[i];
        net->live[step->out] |= net->live[step->in] || rpi_trains(net, step);
    }
}

/* Rows *from..*end - 1 of its input slot, which a step reads and to which it sends derivatives; the steps of a
   recurrence have their `inputs` at each position. */
static void rpi_rows_read(const rpi_step *step, int *from, int *end) {
    int positions = step->in_end - step->in_from, all = step->geometry.height * step->geometry.width;
    *from = positions == all ? step->in_row : step->in_from * step->inputs;
    *end = *from + (positions == all ? step->inputs : positions * step->inputs);
}

/* Derivatives come from the last step to the first. The first to send to some rows sets them, the next ones add. A slot
   that is not covered so, from its last row on and without a gap, begins at zero, and all add to it. low, high:
   scratch, the rows of each slot to which has been sent. */
static void rpi_mark_sums(rp_net *net, int *low, int *high) {
    for (int slot = 0; slot < net->slot_count; slot++) low[slot] = high[slot] = net->zeroed[slot] = 0;
    for (int i = net->step_count - 1; i >= 0; i--) {
        rpi_step *step = &net->steps[i];
        int from, end, slot = step->in, untouched = low[slot] == high[slot];
        rpi_rows_read(step, &from, &end);
        if (from == end) continue;
        step->adds = !untouched && from >= low[slot] && end <= high[slot];
        if (step->adds) continue;
        net->zeroed[slot] |= !untouched && end != low[slot];
        low[slot] = from;
        if (untouched) high[slot] = end;
    }
    for (int slot = 0; slot < net->slot_count; slot++)
        net->zeroed[slot] |= high[slot] > low[slot] && high[slot] - low[slot] < net->slot_rows[slot];
    for (int i = 0; i < net->step_count; i++) net->steps[i].adds |= net->zeroed[net->steps[i].in];
}

/* The time of a map for one sample by itself, in parts of that for a vector of samples, times its lanes: convolutions
   waste nothing, products with vectors read the weights for each sample. Measured with AVX-512, AVX2 and SSE. */
enum { RPI_NEAR = 1 << 19 }; /* parameters that stay in a cache near the core */
static double rpi_single_share(const rp_net *net, const rpi_step *step) {
    int lines = !step->geometry.filters || rpi_has_lines(&step->geometry);
    if (!lines) return 1;
    if (net->parameter_count >= RPI_NEAR) return 4;
    return step->geometry.filters ? 1.5 : 2; /* states are many products with the same weights */
}

/* Wide paddings, kernels and strides can make images of one sample larger than batches of what they serve. */
static void rpi_mark_singles(rp_net *net) {
    const int lanes = net->buffers.kernels->lanes;
    net->singles = 1;
    net->single_cost = net->batch_cost = 0;
    for (int i = 0; i < net->step_count; i++) {
        rpi_step *step = &net->steps[i];
        double most = 65536 + 16.0 * ((double)step->inputs + step->outputs), worth = step->map->worth(step);
        step->in_rows = net->slot_rows[step->in];
        step->out_rows = net->slot_rows[step->out];
        net->singles &= rpi_plane_reals(&step->geometry) < (most < RPI_LARGEST ? most : RPI_LARGEST);
        net->batch_cost += worth;
        net->single_cost += worth * rpi_single_share(net, step) / lanes;
    }
}

/* Slots that are never needed at the same time share a buffer when nothing is kept for a backward pass. first, last:
   scratch for the steps that first and last touch a slot. */
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
        net->pool_rows[p] = rpi_larger(net->pool_rows[p], rpi_slot_rows(net, slot));
    }
}

/* >>build
   Memory: each layout runs twice, first for its size, then to hand out pointers. */
static ptrdiff_t rpi_leading(int batch) {
    ptrdiff_t lines = ((ptrdiff_t)batch + RPI_LINE_REALS - 1) / RPI_LINE_REALS;
    return (lines | 1) * RPI_LINE_REALS;
}

static rp_real *rpi_claim_rows(rpi_arena *arena, ptrdiff_t rows, ptrdiff_t ld) {
    if (ld && rows > PTRDIFF_MAX / 8 / ld) {
        arena->overflow = 1;
        return NULL;
    }
    return rpi_claim_reals(arena, rows * ld);
}

typedef void (*rpi_layout)(rpi_arena *arena, void *context);

/* Runs a layout for its size, and then on a new block of that size. RP_ERR_OVERFLOW, RP_ERR_MEMORY; *size (NULL: not
   wanted): the bytes that it needs. */
static rp_status rpi_lay_out(const rpi_memory *memory, rpi_block *block, rpi_layout layout, void *context,
                             size_t *size) {
    rpi_arena arena = {NULL, 0, 0};
    layout(&arena, context);
    if (size) *size = arena.used;
    if (arena.overflow) return RP_ERR_OVERFLOW;
    if (!rpi_block_new(memory, block, arena.used)) return RP_ERR_MEMORY;
    arena.base = block->base;
    arena.used = 0;
    layout(&arena, context);
    return RP_OK;
}

/* Memory for one call. */
static rp_status rpi_temporary(rp_net *net, const char *who, rpi_block *block, rpi_layout layout, void *context) {
    size_t size = 0;
    rp_status status = rpi_lay_out(&net->memory, block, layout, context, &size);
    if (status == RP_ERR_OVERFLOW)
        rpi_fail(net, status, "%s: its matrices need more memory than can be addressed", who);
    if (status == RP_ERR_MEMORY) rpi_fail(net, status, "%s: no memory for %z bytes", who, size);
    return status;
}

static ptrdiff_t rpi_threads(const rp_net *net) { return net->config.threads > 1 ? net->config.threads : 1; }

static void rpi_lay_out_pointers(const rp_net *net, rpi_arena *arena, rpi_buffers *b, ptrdiff_t threads) {
    ptrdiff_t slots = net->slot_count, steps = net->step_count, all = 4 * slots + 3 * steps, outputs = net->outputs;
    rp_real **pointers = (rp_real **)rpi_claim(arena, all, sizeof *pointers);
    b->at_size = 0;
    b->rough_rows = 0;
    b->shared_size = 0;
    b->rows_size = 0;
    b->sums_size = 0;
    b->threads = threads;
    b->plane_size = 0;
    for (int i = 0; i < net->step_count; i++) {
        rpi_scratch_of(&net->steps[i], b);
        if (net->singles) b->plane_size = rpi_larger(b->plane_size, rpi_plane_of(&net->steps[i]));
    }
    if (outputs > PTRDIFF_MAX / 8 / RPI_LINE_REALS) arena->overflow = 1; /* where addresses have 32 bits */
    else b->plane_size = rpi_larger(b->plane_size, outputs * RPI_LINE_REALS);
    b->packed_size = rpi_packed_size(b);
    b->packed = rpi_claim_rows(arena, threads, b->packed_size);
    b->at = (ptrdiff_t *)rpi_claim(arena, 2 * threads * b->at_size, sizeof *b->at);
    b->shared = rpi_claim_rows(arena, 3, rpi_larger(b->shared_size, 1));
    b->planes = rpi_claim_rows(arena, 3, b->plane_size);
    b->columns = rpi_claim_rows(arena, threads, b->ld);
    b->zeros = rpi_claim_reals(arena, b->ld);
    b->ones = rpi_claim_reals(arena, b->ld);
    b->bad = (int *)rpi_claim(arena, steps * threads, sizeof *b->bad);
    b->column = rpi_claim_reals(arena, 2 * b->ld);
    if (!arena->base) return;
    rpi_zero(b->planes, 3 * b->plane_size); /* what is read there beside numbers must be numbers */
    memset(pointers, 0, (size_t)all * sizeof *pointers);
    b->y = pointers;
    b->d = b->y + slots;
    b->v = b->d + slots;
    b->r = b->v + slots;
    b->slope = b->r + slots;
    b->second = b->slope + steps;
    b->bend = b->second + steps;
    for (ptrdiff_t i = 0; i < b->ld; i++) {
        b->zeros[i] = 0;
        b->ones[i] = 1;
    }
}

/* Whole vectors of a sample by itself reach behind its last entry, where numbers must be that nothing traps at. */
static rp_real *rpi_claim_slot(rpi_arena *arena, ptrdiff_t rows, ptrdiff_t ld) {
    rp_real *slot = rpi_claim_rows(arena, rows + 1, ld);
    if (arena->base) rpi_zero(slot, (rows + 1) * ld);
    return slot;
}

/* Values of slots that share buffers: for prediction. */
static void rpi_lay_out_prediction(const rp_net *net, rpi_arena *arena, rpi_buffers *b, ptrdiff_t threads) {
    rpi_lay_out_pointers(net, arena, b, threads);
    for (int p = 0; p < net->pool_count; p++) {
        rp_real *rows = rpi_claim_slot(arena, net->pool_rows[p], b->ld);
        if (!arena->base) continue;
        for (int slot = 0; slot < net->slot_count; slot++)
            if (net->pool[slot] == p) b->y[slot] = rows;
    }
}

static void rpi_lay_out_training(const rp_net *net, rpi_arena *arena, rpi_buffers *b) {
    ptrdiff_t threads = rpi_threads(net);
    rpi_lay_out_pointers(net, arena, b, threads);
    b->rows = (const rp_real **)rpi_claim(arena, threads * b->rows_size, sizeof *b->rows);
    b->sums = rpi_claim_rows(arena, 2 * threads * b->sums_size, b->kernels->lanes);
    for (int slot = 0; slot < net->slot_count; slot++) {
        rp_real *y = rpi_claim_slot(arena, rpi_slot_rows(net, slot), b->ld);
        rp_real *d = rpi_claim_slot(arena, rpi_slot_rows(net, slot), b->ld);
        rp_real *v = rpi_claim_slot(arena, rpi_slot_rows(net, slot), b->ld);
        if (!arena->base) continue;
        b->y[slot] = y;
        b->d[slot] = d;
        b->v[slot] = v;
    }
    for (int i = 0; i < net->step_count; i++) {
        const rpi_step *step = &net->steps[i];
        int curved = rpi_activations[step->activation].curved;
        rp_real *slope = step->activation ? rpi_claim_rows(arena, step->outputs, b->ld) : NULL;
        rp_real *second = curved ? rpi_claim_rows(arena, step->outputs, b->ld) : NULL;
        if (!arena->base) continue;
        b->slope[i] = slope;
        b->second[i] = second;
    }
    b->panel = rpi_claim_rows(arena, 2 * threads * RPI_PANEL, rpi_panel_rows(b));
    b->tile = rpi_claim_rows(arena, 2 * threads * RPI_PANEL, RPI_ROWS_MOST);
    b->total = rpi_claim_reals(arena, b->ld);
}

static void rpi_lay_out_tape(rpi_arena *arena, void *context) {
    rp_net *net = (rp_net *)context;
    ptrdiff_t slots = net->slot_count;
    rpi_step *steps = (rpi_step *)rpi_claim(arena, net->step_count, sizeof *steps);
    int *numbers = (int *)rpi_claim(arena, 7 * slots, sizeof *numbers);
    ptrdiff_t *rows = (ptrdiff_t *)rpi_claim(arena, slots, sizeof *rows);
    if (!arena->base) return;
    net->steps = steps;
    net->pool_rows = rows;
    net->live = numbers;
    net->pool = numbers + slots;
    net->pool_until = numbers + 2 * slots;
    net->slot_rows = numbers + 3 * slots;
    net->zeroed = numbers + 4 * slots;
    rpi_lower(net);
    rpi_mark_live(net);
    rpi_mark_sums(net, numbers + 5 * slots, numbers + 6 * slots);
    rpi_mark_singles(net);
    rpi_share_slots(net, numbers + 5 * slots, numbers + 6 * slots);
}

static void rpi_lay_out_arrays(rpi_arena *arena, void *context) {
    rp_net *net = (rp_net *)context;
    rpi_buffers *b = &net->buffers;
    net->parameters = rpi_claim_reals(arena, net->parameter_count);
    net->sample_loss = (double *)rpi_claim(arena, net->batch, sizeof *net->sample_loss);
    if (net->config.inference_only) {
        rp_real *targets;
        rpi_lay_out_prediction(net, arena, b, rpi_threads(net));
        targets = rpi_claim_rows(arena, net->outputs, b->ld);
        if (arena->base) b->d[net->slot_count - 1] = targets;
        return;
    }
    rpi_lay_out_training(net, arena, b);
    net->gradient = rpi_claim_reals(arena, net->parameter_count);
    net->curvature = rpi_claim_reals(arena, net->parameter_count);
    net->direction = rpi_claim_reals(arena, net->parameter_count);
    net->sums = rpi_claim_reals(arena, net->parameter_count);
    net->h = rpi_claim_rows(arena, net->outputs, b->ld);
    net->row_output = rpi_claim_rows(arena, net->outputs, b->ld);
    net->staged_inputs = rpi_claim_rows(arena, net->inputs, net->batch);
    net->staged_targets = rpi_claim_rows(arena, net->outputs, net->batch);
    net->staged_weights = rpi_claim_reals(arena, net->batch);
    net->staged_labels = (int *)rpi_claim(arena, net->batch, sizeof(int));
}

/* A block that the net keeps. */
static rp_status rpi_build_block(rp_net *net, const char *who, rpi_block *block, rpi_layout layout) {
    size_t size = 0, parameters = (size_t)net->parameter_count;
    rp_status status = rpi_lay_out(&net->memory, block, layout, net, &size);
    if (status == RP_ERR_OVERFLOW)
        rpi_fail(net, status, "%s: %z parameters and batch %d need more memory than can be addressed", who, parameters,
                 net->batch);
    if (status == RP_ERR_MEMORY)
        rpi_fail(net, status, "%s: no memory for %z bytes (%z parameters, batch %d)", who, size, parameters,
                 net->batch);
    return status;
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

/* Offsets of the parameters in the flat arrays. */
static rp_status rpi_place_parameters(rp_net *net) {
    ptrdiff_t at = 0;
    for (int i = 0; i < net->layer_count; i++) {
        rpi_layer *layer = &net->layers[i];
        ptrdiff_t most = PTRDIFF_MAX / 8 / (ptrdiff_t)sizeof(rp_real);
        if (layer->weight_count + layer->bias_count > most - at)
            return rpi_fail(net, RP_ERR_OVERFLOW,
                            "rp_net_build: layer %d (%s): its parameters are more than can be addressed", i,
                            rpi_layer_name(layer));
        layer->weights = at;
        layer->biases = at + layer->weight_count;
        at = layer->biases + layer->bias_count;
    }
    net->parameter_count = at;
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

static int rpi_all_frozen(const rp_net *net) {
    int affine = 0;
    for (int i = 0; i < net->layer_count; i++) {
        if (net->layers[i].affine && !net->layers[i].frozen) return 0;
        affine |= net->layers[i].affine;
    }
    return affine;
}

/* What rp_warning says. */
static void rpi_warn(rp_net *net) {
    char *text = net->warning;
    size_t size = sizeof net->warning;
    int last = net->layer_count - 1;
    rp_activation_kind end = net->layers[last].activation;
    int logits = rpi_loss_of(net)->logits;
    text[0] = 0;
    if (rpi_all_frozen(net)) rpi_format(text, size, "every layer is frozen: nothing is trained");
    else if (net->loss == RP_SOFTMAX_CROSS_ENTROPY && net->outputs == 1)
        rpi_format(text, size, "softmax of one output is always 1: give it an output for each class");
    else if (logits && (end == RP_RELU || end == RP_SIGMOID))
        rpi_format(text, size, "layer %d ends in %s, but %s takes logits: remove that activation", last,
                   rpi_activations[end].name, rpi_losses[net->loss].name);
}

static rp_status rpi_load_opened(rp_net *net); /* >>files */

RP_API rp_status rp_net_build(rp_net *net, int batch, uint64_t seed) {
    rp_status status = rpi_may_describe(net, "rp_net_build");
    if (status) return status;
    if (batch < 1 || batch > RPI_LARGEST)
        return rpi_fail(net, RP_ERR_VALUE, "rp_net_build: batch is %d; it may be 1 to %d", batch, RPI_LARGEST);
    if (!net->layer_count) return rpi_fail(net, RP_ERR_SHAPE, "rp_net_build: the net has no layer");
    if (net->huber_delta > 0 && !rpi_loss_of(net)->has_delta)
        return rpi_fail(net, RP_ERR_VALUE, "rp_net_build: a Huber delta of %g was given, but the loss is the %s",
                        (double)net->huber_delta, rpi_losses[net->loss].name);
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
    net->each = rpi_buffers_of_each(&net->buffers, 1);
    net->swept = &net->buffers;
    if (!status && net->opened.bytes) status = rpi_load_opened(net);
    else if (!status) rpi_draw_parameters(net, seed);
    if (status) {
        rpi_team_free(&net->memory, net->buffers.team);
        rpi_block_free(&net->memory, &net->arrays);
        rpi_block_free(&net->memory, &net->tape);
        net->buffers.team = NULL;
        net->parameters = NULL;
        net->parameter_count = 0;
        return status;
    }
    rpi_warn(net);
    net->built = 1;
    return RP_OK;
}

/* The average of parameters that did not change. */
static void rpi_copy_layer(rp_net *net, int layer) {
    ptrdiff_t at = net->layers[layer].weights;
    ptrdiff_t count = net->layers[layer].weight_count + net->layers[layer].bias_count;
    rpi_copy(net->averages + at, net->parameters + at, count);
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
    if (net->averages && !frozen && net->layers[layer].frozen) rpi_copy_layer(net, layer);
    net->layers[layer].frozen = frozen;
    net->forward_count = 0;
    if (!net->built) return RP_OK;
    rpi_mark_live(net);
    rpi_warn(net);
    return RP_OK;
}

/* >>inspect */
RP_API size_t rp_parameter_count(const rp_net *net) { return net && net->built ? (size_t)net->parameter_count : 0; }
RP_API rp_real *rp_parameters(rp_net *net) { return net && net->built ? net->parameters : NULL; }

/* The arrays are zeroed when they are first asked for: a net that only calls rp_train never touches their pages. */
static rp_real *rpi_array(rp_net *net, rp_real *array, int *filled) {
    if (!net->built || !array) return NULL;
    if (!*filled) rpi_zero(array, net->parameter_count);
    *filled = 1;
    return array;
}
RP_API rp_real *rp_gradient(rp_net *net) { return net ? rpi_array(net, net->gradient, &net->has_gradient) : NULL; }
RP_API rp_real *rp_curvature(rp_net *net) { return net ? rpi_array(net, net->curvature, &net->has_curvature) : NULL; }
RP_API rp_real *rp_step_array(rp_net *net) { return net ? rpi_array(net, net->direction, &net->has_direction) : NULL; }

RP_API int rp_layer_count(const rp_net *net) { return net ? net->layer_count : 0; }

static rp_conv2d_desc rpi_window_of(const rpi_layer *layer) {
    const rpi_geometry *g = &layer->geometry;
    rp_conv2d_desc window;
    memset(&window, 0, sizeof window);
    window.kernel_height = g->kernel_height;
    window.kernel_width = g->kernel_width;
    window.stride_height = g->stride_height;
    window.stride_width = g->stride_width;
    window.padding_height = g->padding_height;
    window.padding_width = g->padding_width;
    if (!layer->affine) return window;
    window.filters = g->filters;
    window.groups = g->groups;
    return window;
}

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
    info->weights = (size_t)layer->weights;
    info->weight_count = (size_t)layer->weight_count;
    info->biases = (size_t)layer->biases;
    info->bias_count = (size_t)layer->bias_count;
    info->frozen = layer->frozen;
    info->activation = layer->activation;
    info->slope = layer->alpha;
    info->window = rpi_window_of(layer);
    if (layer->kind != RPI_CONV2D) info->units = layer->units;
    info->steps = layer->steps;
    info->all_states = layer->all_states;
    info->source = layer->source;
    return RP_OK;
}

RP_API int rp_inputs(const rp_net *net) { return net && rpi_shape_valid(net->input) ? rpi_features(net->input) : 0; }
RP_API int rp_outputs(const rp_net *net) { return net && rpi_shape_valid(net->output) ? rpi_features(net->output) : 0; }

RP_API const char *rp_isa(const rp_net *net) { return net && net->built ? net->buffers.kernels->name : ""; }
RP_API size_t rp_state_memory(const rp_net *net) { return net ? net->state.size : 0; }
RP_API size_t rp_memory(const rp_net *net) {
    return net ? sizeof *net + (size_t)net->layer_capacity * sizeof *net->layers + net->tape.size + net->arrays.size +
                     net->state.size + net->tangents.size + net->recursions.size + net->loaded_best.size +
                     net->opened.block.size + net->opened.list.size
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
    else rpi_format(line, sizeof line, net->broken ? "not built: %s\n" : "not built\n", net->error);
    rpi_put_string(&text, line);
    if (text.size) out[text.length < text.size ? text.length : text.size - 1] = 0;
    return text.length;
}

/* >>data */
RP_API rp_data rp_labelled(const rp_real *inputs, const int *labels, int count) {
    rp_data data;
    memset(&data, 0, sizeof data);
    data.inputs = inputs;
    data.labels = labels;
    data.count = count;
    return data;
}
RP_API rp_data rp_targeted(const rp_real *inputs, const rp_real *targets, int count) {
    rp_data data = rp_labelled(inputs, NULL, count);
    data.targets = targets;
    return data;
}
RP_API rp_data rp_streamed(rp_fill fill, void *user) {
    rp_data data = rp_labelled(NULL, NULL, 0);
    data.fill = fill;
    data.user = user;
    return data;
}
RP_API rp_data rp_idx_data(const rp_idx *images, const rp_idx *labels) {
    rp_data data = rp_labelled(NULL, NULL, -1);
    if (!images || !images->values || (labels && (!labels->labels || labels->count != images->count))) return data;
    data.inputs = images->values;
    data.inputs_width = images->size;
    data.count = images->count;
    if (labels) {
        data.labels = labels->labels;
    } else {
        data.targets = images->values;
        data.targets_width = images->size;
    }
    return data;
}

static rp_status rpi_check_width(rp_net *net, const char *who, const char *name, int width, int wanted) {
    if (!width || width == wanted) return RP_OK;
    return rpi_fail(net, RP_ERR_SHAPE, "%s: data.%s_width is %d, but the net has %d %s", who, name, width, wanted,
                    wanted == 1 ? "of them" : name);
}

static rp_status rpi_check_weights(rp_net *net, const char *who, const rp_data *data) {
    if (!data->weights) return RP_OK;
    for (int s = 0; s < data->count; s++)
        if (!rpi_finite(data->weights[s]) || data->weights[s] < 0)
            return rpi_fail(net, RP_ERR_VALUE, "%s: weights[%d] is %g; a weight must be finite and 0 or more", who, s,
                            (double)data->weights[s]);
    return RP_OK;
}

static rp_status rpi_check_labels(rp_net *net, const char *who, const rp_data *data) {
    int classes = rpi_loss_of(net)->classes(net->outputs);
    if (!classes)
        return rpi_fail(net, RP_ERR_LABEL, "%s: labels do not fit the %s of %d outputs; give targets", who,
                        rpi_loss_of(net)->name, net->outputs);
    for (int s = 0; s < data->count; s++)
        if (data->labels[s] < 0 || data->labels[s] >= classes)
            return rpi_fail(net, RP_ERR_LABEL, "%s: labels[%d] is %d; it may be 0 to %d", who, s, data->labels[s],
                            classes - 1);
    return RP_OK;
}

/* What is not a number passes here, and is found in the loss. */
static rp_status rpi_check_targets(rp_net *net, const char *who, const rp_data *data) {
    const rpi_loss *loss = rpi_loss_of(net);
    ptrdiff_t count = (ptrdiff_t)data->count * net->outputs;
    if (loss->least < 0) return RP_OK;
    for (ptrdiff_t i = 0; i < count; i++)
        if (rpi_finite(data->targets[i]) && (data->targets[i] < loss->least || data->targets[i] > loss->most))
            return rpi_fail(net, RP_ERR_VALUE, "%s: targets[%z] is %g; with the %s it must be 0 or more%s", who,
                            (size_t)i, (double)data->targets[i], loss->name, loss->most > 1 ? "" : ", and at most 1");
    return RP_OK;
}

/* Checks what can be checked of a batch or data set in memory, before anything is computed. */
static rp_status rpi_check_data(rp_net *net, const char *who, const rp_data *data, int most) {
    rp_status status = rpi_needs(net, who, "data", data);
    if (!status && data->fill)
        return rpi_fail(net, RP_ERR_VALUE,
                        "%s: data.fill is given; streams are for rp_fit and rp_evaluate, a batch is in memory", who);
    if (!status && data->count == -1 && !data->inputs)
        return rpi_fail(net, RP_ERR_VALUE,
                        "%s: data.count is -1: the images and labels given to rp_idx_data do not fit", who);
    if (!status) status = rpi_needs(net, who, "data.inputs", data->inputs);
    if (!status) status = rpi_check_width(net, who, "inputs", data->inputs_width, net->inputs);
    if (!status && data->targets) status = rpi_check_width(net, who, "targets", data->targets_width, net->outputs);
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

/* Samples into a slot's rows. */
static void rpi_load_rows(const rpi_buffers *b, const rp_real *rows, int count, int features, rp_real *out) {
    b->kernels->transpose(rows, features, count, features, out, b->ld, rpi_columns(b, count));
}

/* Targets, or labels as targets, into d of the last slot. */
static void rpi_load_targets(const rp_net *net, const rpi_buffers *b, const rp_data *data) {
    rp_real *t = b->d[net->slot_count - 1];
    int classes = rpi_loss_of(net)->classes(net->outputs);
    if (data->targets) {
        rpi_load_rows(b, data->targets, data->count, net->outputs, t);
        return;
    }
    rpi_fill_rows(net->outputs, rpi_columns(b, data->count), b->ld, NULL, t);
    for (int s = 0; s < data->count; s++) {
        int output = rpi_label_output(data, net->outputs, classes, s);
        if (output >= 0) t[output * b->ld + s] = 1;
    }
}

/* Sum over samples of weight times loss; d of the last slot becomes the derivative, h (may be NULL) the second
   derivative (see rpi_loss_call for `exact`), both unweighted. */
static double rpi_evaluate_loss(const rp_net *net, const rpi_buffers *b, const rp_data *data, rp_real *h, int exact) {
    rpi_loss_call call;
    double sum = 0;
    rpi_load_targets(net, b, data);
    call.outputs = net->outputs;
    call.count = data->count;
    call.ld = b->ld;
    call.delta = net->huber_delta > 0 ? net->huber_delta : 1;
    call.exact = exact;
    call.y = b->y[net->slot_count - 1];
    call.d = b->d[net->slot_count - 1];
    call.h = h;
    call.loss = net->sample_loss;
    b->kernels->loss[net->loss](&call);
    for (int s = 0; s < data->count; s++) sum += (data->weights ? (double)data->weights[s] : 1) * net->sample_loss[s];
    return sum;
}

/* With y of the last slot in place. */
static void rpi_tally_decisions(const rp_net *net, const rpi_buffers *b, const rp_data *batch, rpi_tally *tally) {
    const rpi_loss *loss = rpi_loss_of(net);
    if (!loss->right) return;
    for (int s = 0; s < batch->count; s++) {
        double weight = batch->weights ? (double)batch->weights[s] : 1;
        int all, right = loss->right(net, b, batch, s, &all);
        tally->right += weight * right;
        tally->weight += weight * all;
    }
}

static rp_real rpi_accuracy(const rpi_tally *tally) {
    return tally->weight > 0 ? (rp_real)(tally->right / tally->weight) : -1;
}

/* Columns of [outputs][ld]: times the samples' weights; 0 behind the last. */
static void rpi_weigh_rows(const rp_net *net, int count, const rp_real *weights, rp_real *x) {
    const rpi_buffers *b = &net->buffers;
    int n = rpi_columns(b, count);
    for (int i = 0; i < net->outputs; i++) {
        rp_real *row = x + i * b->ld;
        if (weights)
            for (int s = 0; s < count; s++) row[s] *= weights[s];
        rpi_zero(row + count, n - count);
    }
}

/* >>sweeps
   Each is written once, over the steps of the tape. n: columns in use, the batch rounded up to whole vectors. */

/* What a forward pass keeps for later ones: nothing; sigma'; sigma' and sigma''. */
typedef enum rpi_keep { RPI_KEEP_NOTHING, RPI_KEEP_SLOPES, RPI_KEEP_CURVES } rpi_keep;

/* One pass forward and back over a batch: what is asked for, and what it leaves. */
typedef struct rpi_rule rpi_rule;
typedef struct rpi_pass {
    rp_net *net;
    const char *who;            /* the public function, for messages */
    const rp_data *batch;       /* NULL: the caller's own loss */
    int count;                  /* samples */
    const rp_rule *rule;        /* how curvature is found; NULL: it is not */
    const rpi_rule *how;        /* that rule's row */
    const rpi_hessian *hessian; /* of the loss by the outputs */
    rpi_keep keep;
    int each;              /* samples may be worked on each by itself */
    int exact;             /* second derivatives of the loss that are no bounds, for exact products; without a rule */
    rpi_tally *tally;      /* NULL: decisions are not counted */
    double loss;           /* left: the mean loss */
    const rp_real *weight; /* left: what each sample's |v x'| counts for; NULL: 1 */
    const rp_real *summed; /* left: the curvature, added up; NULL: it waits in v of every slot */
    int undone;            /* left: the step before was undone first */
} rpi_pass;

/* A rule of residual partitioning: curvature = (1/S) sum_s sum_k weight_k,s |v_k,s x_s'| / c, k over its sweeps. */
struct rpi_rule {
    int carries_u;    /* forward: u beside y (Equation 11), and sigma'' u in the place of sigma'' */
    int every_output; /* a sweep of its own for each output; otherwise one, together with the gradient's */
    rpi_flow flow;    /* of v at activations */
    void (*begin)(rpi_pass *pass, int k); /* v at the output, in place of the last slot's u if that is carried */
    const rp_real *(*weigh)(rpi_pass *pass, int k); /* after the sweep; NULL: all 1 */
};

static rpi_pass rpi_pass_over(rp_net *net, const char *who, const rp_data *batch, rpi_keep keep) {
    rpi_pass pass;
    memset(&pass, 0, sizeof pass);
    pass.net = net;
    pass.who = who;
    pass.batch = batch;
    pass.keep = keep;
    pass.hessian = rpi_loss_of(net)->hessian;
    return pass;
}

/* c of Theorem 2 as generalised by scales, in the order of rp_scale_kind; 0 where nothing is trained. */
static double rpi_scale_fan_in(const rpi_step *step) { return 1 / sqrt((double)step->fan_in + 1); }
static double rpi_scale_one(const rpi_step *step) {
    (void)step;
    return 1;
}
static double (*const rpi_scales[])(const rpi_step *step) = {rpi_scale_fan_in, rpi_scale_one};
static rp_real rpi_scale(const rp_net *net, const rpi_step *step, const rp_rule *rule) {
    return rpi_trains(net, step) ? (rp_real)rpi_scales[rule->scale](step) : 0;
}

/* Rows from..from + rows - 1 of a slot that has slot_rows. */
static void rpi_clear_rows(const rpi_buffers *b, int slot_rows, int from, int rows, int n, rp_real *x) {
    if (b->way != RPI_EACH) rpi_fill_rows(rows, n, b->ld, NULL, x + from * b->ld);
    for (int s = 0; b->way == RPI_EACH && s < b->samples; s++) rpi_zero(x + (ptrdiff_t)s * slot_rows + from, rows);
}

/* Losses and their Hessians see rows of samples: the last slot's vectors become these, and vectors again. */
static void rpi_part_outputs(const rp_net *net, rp_real *const *slots) {
    const rpi_buffers *b = net->swept;
    rp_real *x = slots[net->slot_count - 1];
    if (b->way != RPI_EACH) return;
    rpi_copy(b->planes, x, (ptrdiff_t)net->outputs * b->samples);
    b->kernels->transpose(b->planes, net->outputs, b->samples, net->outputs, x, net->buffers.ld,
                          rpi_columns(b, b->samples));
}
static void rpi_join_outputs(const rp_net *net, rp_real *const *slots) {
    const rpi_buffers *b = net->swept;
    rp_real *x = slots[net->slot_count - 1];
    if (b->way != RPI_EACH) return;
    b->kernels->transpose(x, net->buffers.ld, net->outputs, b->samples, b->planes, net->outputs, net->outputs);
    rpi_copy(x, b->planes, (ptrdiff_t)net->outputs * b->samples);
}

static rpi_activate_work rpi_activate_step(const rpi_buffers *b, int i, const rpi_step *step, int n) {
    rpi_activate_work work;
    rpi_activate *a = &work.activate;
    memset(&work, 0, sizeof work);
    work.b = b;
    work.step = step;
    a->kind = step->activation;
    a->alpha = step->alpha;
    a->rows = b->way == RPI_EACH ? 1 : step->outputs;
    a->n = b->way == RPI_EACH ? step->outputs : n;
    a->ld = b->ld;
    a->bad = b->bad + i * b->threads;
    a->y = b->y[step->out] + step->out_row * b->ld;
    a->slope = b->slope[i];
    a->second = b->second[i];
    return work;
}

/* y of every slot from slot 0 on; for a rule that carries it (pass; may be NULL) u too: Algorithm 1, forward
   (Equation 11): u_out = c (|x|_1 + 1) + |A| u, which the map does, and then |sigma'| u, by the activation. */
static void rpi_forward(const rp_net *net, const rpi_buffers *b, int n, rpi_keep keep, const rpi_pass *pass) {
    int carries_u = pass && pass->how && pass->how->carries_u;
    memset(b->bad, 0, (size_t)net->step_count * (size_t)b->threads * sizeof *b->bad);
    for (int i = 0; i < net->step_count; i++) {
        const rpi_step *step = &net->steps[i];
        rpi_activate_work work = rpi_activate_step(b, i, step, n);
        rpi_apply_call call = rpi_apply_of(b, step, net->parameters, n);
        call.rough = 1;
        call.x = b->y[step->in];
        call.y = b->y[step->out];
        if (carries_u) {
            call.u = net->live[step->in] ? b->v[step->in] : NULL;
            call.u_out = b->v[step->out];
            call.own = rpi_scale(net, step, pass->rule);
            work.activate.u = call.u_out + step->out_row * b->ld;
        }
        if (keep == RPI_KEEP_NOTHING) work.activate.slope = NULL;
        if (keep != RPI_KEEP_CURVES && !carries_u) work.activate.second = NULL;
        if (step->activation) call.then = &work;
        rpi_run_apply(&call);
    }
}

/* Whether samples are worked on each by itself: as many as cost less so than a vector of samples, most of which are
   padding. Measured. */
static int rpi_singly(const rp_net *net, const rpi_buffers *b, int count) {
    if (!net->singles || count > b->kernels->lanes) return 0;
    return count == 1 || count * net->single_cost < net->batch_cost;
}

/* Inputs into slot 0; each: as vectors of their own, if that costs less. */
static void rpi_load_inputs(rp_net *net, const rp_real *x, int count, int each) {
    net->swept = each && rpi_singly(net, &net->buffers, count) ? &net->each : &net->buffers;
    net->each.samples = count;
    if (net->swept == &net->each) rpi_copy(net->each.y[0], x, (ptrdiff_t)count * net->inputs);
    else rpi_load_rows(&net->buffers, x, count, net->inputs, net->buffers.y[0]);
}

/* What flows back: d with d, and v by its flow. along (RPI_BENT; may be NULL): v is the derivative of d along this
   direction, and d, which is in place, does not flow. */
typedef struct rpi_back {
    int d, v, rough; /* rough: as in rpi_product */
    rpi_flow flow;
    const rp_real *along;
} rpi_back;

static rpi_back rpi_back_derivative(rpi_flow flow) {
    rpi_back back;
    memset(&back, 0, sizeof back);
    back.d = 1;
    back.flow = flow;
    return back;
}
static rpi_back rpi_back_vector(rpi_flow flow) {
    rpi_back back;
    memset(&back, 0, sizeof back);
    back.v = 1;
    back.flow = flow;
    return back;
}

/* v_in += A(g)' d, the part of v that comes from the parameters' own change along g (see rpi_multiply) */
static void rpi_back_along(const rp_net *net, const rpi_step *step, int n, const rp_real *g) {
    const rpi_buffers *b = net->swept;
    rpi_transposed_call call = rpi_transposed_of(b, step, g, n);
    if (!rpi_trains(net, step)) return;
    call.d = b->d[step->out];
    call.d_in = b->v[step->in];
    call.add = 1;
    rpi_run_transposed(&call);
}

/* From d and v of the last slot to those of every slot above trained parameters (Equation 9). */
static void rpi_sweep_back(const rp_net *net, int n, rpi_back back) {
    const rpi_buffers *b = net->swept;
    if (back.d) rpi_join_outputs(net, b->d);
    if (back.v) rpi_join_outputs(net, b->v);
    for (int slot = 0; slot < net->slot_count; slot++) {
        if (!net->zeroed[slot] || !net->live[slot]) continue;
        if (back.d) rpi_clear_rows(b, net->slot_rows[slot], 0, net->slot_rows[slot], n, b->d[slot]);
        if (back.v) rpi_clear_rows(b, net->slot_rows[slot], 0, net->slot_rows[slot], n, b->v[slot]);
    }
    for (int i = net->step_count - 1; i >= 0; i--) {
        const rpi_step *step = &net->steps[i];
        ptrdiff_t row = step->out_row * b->ld;
        rpi_activate_work work = rpi_activate_step(b, i, step, n);
        rpi_transposed_call call = rpi_transposed_of(b, step, net->parameters, n);
        if (!net->live[step->out]) continue;
        call.d = back.d ? b->d[step->out] : NULL;
        call.v = back.v ? b->v[step->out] : NULL;
        work.way = RPI_BACKWARD;
        work.flow = back.flow;
        work.d = back.d ? b->d[step->out] + row : NULL;
        work.v = back.v ? b->v[step->out] + row : NULL;
        if (back.flow == RPI_BENT) work.activate.second = b->bend[i];
        if (step->activation) rpi_activate_run(&work);
        if (!net->live[step->in]) continue;
        call.d_in = b->d[step->in];
        call.v_in = b->v[step->in];
        call.plain = back.flow != RPI_BOUND;
        call.rough = back.rough;
        call.add = step->adds;
        rpi_run_transposed(&call);
        if (back.along) rpi_back_along(net, step, n, back.along);
    }
}

/* v alone, swept as a derivative is: e = J' r. */
static void rpi_sweep_vector(const rp_net *net, int n) { rpi_sweep_back(net, n, rpi_back_vector(RPI_PLAIN)); }

/* total[s] = sum over the trained parameters of c |dz/dw|, or of the squares, for z with derivatives e: for the rules
   T_s = sum_l c_l |e_l|_1 (|x_l|_1 + 1). rule NULL: c is 1. */
static void rpi_reach(const rp_net *net, int n, rp_real *const *e, const rp_rule *rule, int squares) {
    const rpi_buffers *b = net->swept;
    rpi_zero(b->total, n);
    for (const rpi_step *step = rpi_next_trained(net, NULL); step; step = rpi_next_trained(net, step)) {
        rpi_reach_call call;
        call.b = b;
        call.step = step;
        call.n = n;
        call.squares = squares;
        call.x = b->y[step->in];
        call.e = e[step->out];
        call.c = rule ? rpi_scale(net, step, rule) : 1;
        call.total = b->total;
        rpi_run_reach(&call);
    }
}

/* What rpi_collect sums up over the samples, for every trained step: gradient = mean of d x', curvature = mean of v
   |x|'. */
typedef struct rpi_terms {
    rp_real *const *x, *const *d, *const *v; /* of each slot; d or v may be NULL */
    const rp_real *weight;                   /* curvature: weight[s] |v x'| of each sample's own sum over positions */
    int squares;                             /* of those, in the place of magnitudes */
    const rp_rule *rule;                     /* curvature: divided by this rule's scales; NULL: not */
    const rp_real *spreads;                  /* of each layer, in the place of v; NULL: not wanted */
    int rough;                               /* as in rpi_product */
    int along;                               /* x is itself a derivative along a direction: 0 where nothing is trained
                                                below, and the bias's input has none */
} rpi_terms;

static rpi_terms rpi_terms_of(rp_real *const *x, rp_real *const *d, rp_real *const *v) {
    rpi_terms terms;
    memset(&terms, 0, sizeof terms);
    terms.x = x;
    terms.d = d;
    terms.v = v;
    return terms;
}

static void rpi_collect(const rp_net *net, int count, const rpi_terms *terms, const rpi_sink *sink) {
    rp_real mean = 1 / (rp_real)count;
    for (const rpi_step *step = rpi_next_trained(net, NULL); step; step = rpi_next_trained(net, step)) {
        rpi_outer_call call;
        if (terms->along && !net->live[step->in]) continue;
        call.b = net->swept;
        call.step = step;
        call.count = count;
        call.squares = terms->squares;
        call.rough = terms->rough;
        call.bias = step->bias && !terms->along;
        call.x = terms->x[step->in];
        call.d = terms->d ? terms->d[step->out] : NULL;
        call.v = terms->v ? terms->v[step->out] : NULL;
        call.weight = terms->weight;
        call.scale = mean;
        call.scale2 = terms->rule ? mean / rpi_scale(net, step, terms->rule) : mean;
        if (terms->spreads) call.scale2 = terms->spreads[step->layer];
        call.sink = sink;
        step->map->ways[call.b->way].outer(&call);
    }
}

static rpi_sink rpi_sink_to(void (*take)(const rpi_sink *sink, const rpi_piece *piece), rp_real *gradient,
                            rp_real *curvature) {
    rpi_sink sink;
    memset(&sink, 0, sizeof sink);
    sink.take = take;
    sink.gradient = gradient;
    sink.curvature = curvature;
    return sink;
}

static void rpi_zero_frozen(const rp_net *net, rp_real *x) {
    for (int i = 0; i < net->layer_count; i++) {
        const rpi_layer *layer = &net->layers[i];
        if (layer->frozen) rpi_zero(x + layer->weights, layer->weight_count + layer->bias_count);
    }
}

/* Finite values. */
static int rpi_all_finite(const rp_real *x, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i++)
        if (!rpi_finite(x[i])) return 0;
    return 1;
}

/* The largest magnitude in some rows; infinite if one is not finite. */
static rp_real rpi_peak(const rpi_buffers *b, int rows, int n, const rp_real *x) {
    int all = b->way == RPI_EACH ? rows * b->samples : 0, rest = all % b->kernels->lanes;
    rp_real peak, last[RPI_LINE_REALS] = {0};
    rpi_int bits, bits_of_last;
    if (b->way == RPI_EACH) {
        n = all - rest;
        rows = 1;
    }
    bits = b->kernels->peak(rows, n, x, b->ld);
    rpi_copy(last, x + n, rest);
    bits_of_last = rest ? b->kernels->peak(1, b->kernels->lanes, last, 0) : 0;
    if (bits_of_last > bits) bits = bits_of_last;
    if (bits > RPI_EXPONENT) bits = RPI_EXPONENT;
    memcpy(&peak, &bits, sizeof peak);
    return peak;
}

static rp_status rpi_not_finite(rp_net *net, const char *who, const char *what, const rpi_step *step) {
    return rpi_fail(net, RP_ERR_NOT_FINITE,
                    "%s: %s is not finite, or too large, at layer %d (%s); this batch changed nothing", who, what,
                    step->layer, rpi_layer_name(&net->layers[step->layer]));
}

/* Fails with the first number of a batch's [count][width] inputs or targets that is not finite, if there is one. */
static rp_status rpi_check_rows(const rpi_pass *pass, const char *name, const rp_real *rows, int width) {
    if (!rows) return RP_OK;
    for (int s = 0; s < pass->count; s++)
        for (int i = 0; i < width; i++, rows++)
            if (!rpi_finite(*rows))
                return rpi_fail(pass->net, RP_ERR_NOT_FINITE,
                                "%s: %s %d of sample %d of the batch is %g; this batch changed nothing", pass->who,
                                name, i, s, (double)*rows);
    return RP_OK;
}

/* Fails with the first layer at which the forward pass left what is finite, if it did. */
static rp_status rpi_check_forward(const rpi_pass *pass) {
    rp_net *net = pass->net;
    const rpi_buffers *b = net->swept;
    int n = rpi_columns(b, pass->count);
    rp_status status = pass->batch ? rpi_check_rows(pass, "input", pass->batch->inputs, net->inputs) : RP_OK;
    if (status) return status;
    if (!rpi_finite(rpi_peak(b, net->inputs, n, b->y[0])))
        return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: an input is not finite; this batch changed nothing", pass->who);
    for (int i = 0; i < net->step_count; i++) {
        const rpi_step *step = &net->steps[i];
        for (ptrdiff_t part = 0; part < b->threads; part++)
            if (b->bad[i * b->threads + part])
                return rpi_not_finite(net, pass->who, "a value before the activation", step);
        if (!rpi_finite(rpi_peak(b, step->outputs, n, b->y[step->out] + step->out_row * b->ld)))
            return rpi_not_finite(net, pass->who, "a value", step);
    }
    return RP_OK;
}

static rp_real rpi_at_least_one(rp_real x) { return x > 1 ? x : 1; }

/* Before anything is changed: values are finite, and S max|d| max|x|, times the positions that share a weight, which
   bounds every sum of a gradient, is too; the same for v, whose sums may be divided by c and multiplied by weight[s].
   d, v: of each slot, NULL where they are not used. x_peak: of slot 0. */
static rp_status rpi_check_sums(const rpi_pass *pass, rp_real *const *d, rp_real *const *v, const rp_real *weight,
                                rp_real x_peak) {
    rp_net *net = pass->net;
    const rpi_buffers *b = net->swept;
    int n = rpi_columns(b, pass->count), in = 0, out = 0; /* slots whose peaks are known */
    rp_real weight_peak = weight ? rpi_peak(b, 1, n, weight) : 0, d_peak = 0, v_peak = 0;
    for (const rpi_step *step = rpi_next_trained(net, NULL); step; step = rpi_next_trained(net, step)) {
        const int outputs = net->slot_rows[step->out];
        rp_real most = (rp_real)pass->count * (rp_real)step->map->positions(step);
        if (step->in != in) x_peak = rpi_peak(b, net->slot_rows[step->in], n, b->y[step->in]);
        if (step->out != out && d) d_peak = rpi_peak(b, outputs, n, d[step->out]);
        if (step->out != out && v) v_peak = rpi_peak(b, outputs, n, v[step->out]);
        in = step->in;
        out = step->out;
        most *= rpi_at_least_one(x_peak); /* 1: the bias's input */
        if (!rpi_finite(x_peak)) return rpi_not_finite(net, pass->who, "a value", step);
        if (!rpi_finite(d_peak) || !rpi_finite(d_peak * most))
            return rpi_not_finite(net, pass->who, "the gradient", step);
        most *= (rp_real)sqrt((double)step->fan_in + 1); /* at least 1/c */
        if (weight) most *= rpi_at_least_one(weight_peak);
        if (!rpi_finite(v_peak) || !rpi_finite(weight_peak) || !rpi_finite(v_peak * most))
            return rpi_not_finite(net, pass->who, "the curvature", step);
    }
    return RP_OK;
}

static rp_status rpi_check_finite(const rpi_pass *pass, rp_real *const *d, rp_real *const *v, const rp_real *weight) {
    const rp_net *net = pass->net;
    const rpi_buffers *b = net->swept;
    rp_real x_peak = rpi_peak(b, net->inputs, rpi_columns(b, pass->count), b->y[0]);
    int good = rpi_finite(x_peak);
    for (ptrdiff_t i = 0; i < net->step_count * b->threads; i++) good &= !b->bad[i];
    return good ? rpi_check_sums(pass, d, v, weight, x_peak) : rpi_check_forward(pass);
}

/* >>rules */

static const rpi_bound *rpi_bound_of(const rpi_pass *pass) { return pass->hessian->bounds[pass->rule->bound]; }

/* Paths, Algorithm 1: the bound's Hessian times u. */
static void rpi_begin_paths(rpi_pass *pass, int k) {
    rp_net *net = pass->net;
    (void)k;
    rpi_bound_of(pass)->times(net, pass->count, net->buffers.v[net->slot_count - 1]);
}

/* Sampled: a random vector r with the covariance H_f, and after its sweep T_s, since sum_l c_l |e_l| is how far r'y
   can move. */
static void rpi_begin_sampled(rpi_pass *pass, int k) {
    rp_net *net = pass->net;
    (void)k;
    pass->hessian->draw(net, pass->count, net->buffers.v[net->slot_count - 1]);
}
static const rp_real *rpi_weigh_sampled(rpi_pass *pass, int k) {
    const rpi_buffers *b = &pass->net->buffers;
    (void)k;
    rpi_reach(pass->net, rpi_columns(b, pass->count), b->v, pass->rule, 0);
    return b->total;
}

/* Jacobian (poster, Equation 6): e = dy_k/d(each unit), and after its sweep the bound's Hessian times u_k = T_k. A
   bound that mixes outputs needs all T first. Rows of flow, [outputs][ld]: these products. */
static void rpi_begin_output(rpi_pass *pass, int k) {
    const rp_net *net = pass->net;
    const rpi_buffers *b = &net->buffers;
    rp_real *e = b->v[net->slot_count - 1];
    rpi_fill_rows(net->outputs, rpi_columns(b, pass->count), b->ld, NULL, e);
    for (int s = 0; s < pass->count; s++) e[k * b->ld + s] = 1;
}

static void rpi_flow_of_all(rpi_pass *pass) {
    rp_net *net = pass->net;
    const rpi_buffers *b = &net->buffers;
    int n = rpi_columns(b, pass->count);
    rp_real *flow = net->row_output;
    for (int k = 0; k < net->outputs; k++) {
        rpi_begin_output(pass, k);
        rpi_sweep_vector(net, n);
        rpi_reach(net, n, b->v, pass->rule, 0);
        rpi_copy(flow + k * b->ld, b->total, n);
    }
    rpi_bound_of(pass)->times(net, pass->count, flow);
}

static void rpi_begin_jacobian(rpi_pass *pass, int k) {
    if (k == 0 && !rpi_bound_of(pass)->row) rpi_flow_of_all(pass);
    rpi_begin_output(pass, k);
}
static const rp_real *rpi_weigh_jacobian(rpi_pass *pass, int k) {
    rp_net *net = pass->net;
    const rpi_buffers *b = &net->buffers;
    int n = rpi_columns(b, pass->count);
    rp_real *flow = net->row_output + k * b->ld;
    const rpi_bound *bound = rpi_bound_of(pass);
    if (bound->row) {
        rpi_reach(net, n, b->v, pass->rule, 0);
        rpi_copy(flow, b->total, n);
        bound->row(net, pass->count, k, flow);
    }
    rpi_zero(flow + pass->count, n - pass->count);
    return flow;
}

static const rpi_rule rpi_rules[] = {
    /* in the order of rp_rule_kind */
    {0, 0, RPI_PLAIN, rpi_begin_sampled, rpi_weigh_sampled},
    {1, 0, RPI_BOUND, rpi_begin_paths, NULL},
    {0, 1, RPI_PLAIN, rpi_begin_jacobian, rpi_weigh_jacobian},
};

static rp_status rpi_check_rule(rp_net *net, const char *who, const char *of,
                                const rp_rule *rule) { /* of: "optimizer.", ... */
    if ((int)rule->kind < 0 || rule->kind > RP_JACOBIAN)
        return rpi_fail(net, RP_ERR_VALUE, "%s: %srule.kind is %d, which is no rp_rule_kind", who, of, (int)rule->kind);
    if ((int)rule->bound < 0 || rule->bound > RP_BOUND_JENSEN)
        return rpi_fail(net, RP_ERR_VALUE, "%s: %srule.bound is %d, which is no rp_bound_kind", who, of,
                        (int)rule->bound);
    if ((int)rule->scale < 0 || rule->scale > RP_SCALE_ONE)
        return rpi_fail(net, RP_ERR_VALUE, "%s: %srule.scale is %d, which is no rp_scale_kind", who, of,
                        (int)rule->scale);
    return RP_OK;
}

/* The rule of a pass; NULL: none. */
static rp_status rpi_choose_rule(rpi_pass *pass, const rp_rule *rule) {
    rp_status status = rule ? rpi_check_rule(pass->net, pass->who, "", rule) : RP_OK;
    if (status) return status;
    pass->rule = rule;
    pass->how = rule ? &rpi_rules[rule->kind] : NULL;
    pass->weight = pass->summed = NULL;
    return RP_OK;
}

/* >>backward */

/* The curvature of a rule with a sweep for each output, added up in net->sums. */
static rp_status rpi_sweep_outputs(rpi_pass *pass) {
    rp_net *net = pass->net;
    const rpi_buffers *b = &net->buffers;
    rpi_sink sink = rpi_sink_to(b->kernels->take_sum, NULL, net->sums);
    rpi_terms terms = rpi_terms_of(b->y, NULL, b->v);
    terms.rule = pass->rule;
    terms.rough = 1;
    rpi_zero(net->sums, net->parameter_count);
    for (int k = 0; k < net->outputs; k++) {
        rp_status status;
        pass->how->begin(pass, k);
        rpi_sweep_back(net, rpi_columns(b, pass->count), rpi_back_vector(pass->how->flow));
        terms.weight = pass->how->weigh(pass, k);
        status = rpi_check_finite(pass, NULL, b->v, terms.weight);
        if (status) return status;
        rpi_collect(net, pass->count, &terms, &sink);
    }
    pass->summed = net->sums;
    if (rpi_all_finite(net->sums, net->parameter_count)) return RP_OK;
    return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: the curvature is not finite, or too large; this batch changed nothing",
                    pass->who);
}

/* With d and h of the output in place: everything from there to finite gradient and curvature, which then wait in d
   and v of every slot, or are added up. Changes nothing but scratch. */
static rp_status rpi_backward_pass(rpi_pass *pass) {
    rp_net *net = pass->net;
    const rpi_buffers *b = &net->buffers;
    const rp_real *weights = pass->batch ? pass->batch->weights : NULL;
    int last = net->slot_count - 1, together = pass->how && !pass->how->every_output;
    rpi_back back = rpi_back_derivative(RPI_PLAIN);
    rp_status status;
    back.rough = 1;
    rpi_weigh_rows(net, pass->count, weights, b->d[last]);
    if (pass->rule) rpi_weigh_rows(net, pass->count, weights, net->h);
    if (together) {
        pass->how->begin(pass, 0);
        rpi_weigh_rows(net, pass->count, NULL, b->v[last]);
        back.v = 1;
        back.flow = pass->how->flow;
    }
    rpi_sweep_back(net, rpi_columns(b, pass->count), back);
    if (together && pass->how->weigh) pass->weight = pass->how->weigh(pass, 0);
    status = rpi_check_finite(pass, b->d, together ? b->v : NULL, pass->weight);
    if (!status && pass->rule && !together) status = rpi_sweep_outputs(pass);
    return status;
}

/* Forward over the batch, to its loss; its second derivative in net->h for a rule, or for exact products. */
static rp_status rpi_value(rpi_pass *pass) {
    rp_net *net = pass->net;
    const rpi_buffers *b = &net->buffers;
    const rp_data *batch = pass->batch;
    rp_status status = rpi_check_data(net, pass->who, batch, net->batch);
    if (!status) status = rpi_choose_rule(pass, pass->rule);
    if (status) return status;
    pass->count = batch->count;
    net->forward_count = 0;
    rpi_load_inputs(net, batch->inputs, batch->count, pass->each);
    rpi_forward(net, net->swept, rpi_columns(b, batch->count), pass->keep, pass);
    rpi_part_outputs(net, b->y);
    if (pass->how && pass->how->carries_u) rpi_part_outputs(net, b->v);
    if (pass->tally) rpi_tally_decisions(net, b, batch, pass->tally);
    pass->loss =
        rpi_evaluate_loss(net, b, batch, pass->rule || pass->exact ? net->h : NULL, pass->exact) / batch->count;
    if (rpi_finite_double(pass->loss) && rpi_finite((rp_real)pass->loss)) return RP_OK;
    status = rpi_check_forward(pass);
    if (!status) status = rpi_check_rows(pass, "target", batch->targets, net->outputs);
    if (status) return status;
    return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: the loss is %g; this batch changed nothing", pass->who, pass->loss);
}

/* Forward, loss and backward over the batch. */
static rp_status rpi_differentiate(rpi_pass *pass) {
    rp_status status = rpi_value(pass);
    return status ? status : rpi_backward_pass(pass);
}

/* Gradient and curvature of a successful pass into a sink, but for a curvature that is added up already. */
static void rpi_collect_pass(const rpi_pass *pass, const rpi_sink *sink) {
    const rpi_buffers *b = &pass->net->buffers;
    rpi_terms terms = rpi_terms_of(b->y, b->d, pass->rule && !pass->summed ? b->v : NULL);
    terms.rule = pass->rule;
    terms.spreads = pass->rule ? NULL : pass->net->spreads;
    terms.rough = 1;
    terms.weight = pass->weight;
    rpi_collect(pass->net, pass->count, &terms, sink);
}

/* The same into the flat arrays. */
static void rpi_fill_arrays(const rpi_pass *pass) {
    rp_net *net = pass->net;
    rpi_sink sink = rpi_sink_to(net->buffers.kernels->take_arrays, net->gradient, net->curvature);
    rpi_zero_frozen(net, net->gradient);
    if (pass->rule) rpi_zero_frozen(net, net->curvature);
    rpi_collect_pass(pass, &sink);
    if (pass->summed) rpi_copy(net->curvature, pass->summed, net->parameter_count);
    net->has_gradient = 1;
    if (pass->rule) net->has_curvature = 1;
}

RP_API rp_status rp_backward(rp_net *net, const rp_data *batch, const rp_rule *rule, rp_real *loss) {
    rpi_pass pass;
    uint64_t random;
    rp_status status = rpi_trainable(net, "rp_backward");
    if (status) return status;
    random = net->random;
    pass = rpi_pass_over(net, "rp_backward", batch, RPI_KEEP_SLOPES);
    pass.each = 1;
    pass.rule = rule;
    status = rpi_differentiate(&pass);
    if (status) {
        net->random = random;
        return status;
    }
    rpi_fill_arrays(&pass);
    if (loss) *loss = (rp_real)pass.loss;
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
    rpi_load_inputs(net, x, count, 1);
    rpi_forward(net, net->swept, rpi_columns(b, count), RPI_KEEP_SLOPES, NULL);
    rpi_part_outputs(net, b->y);
    b->kernels->transpose(b->y[net->slot_count - 1], b->ld, net->outputs, count, net->row_output, net->outputs,
                          net->outputs);
    net->forward_count = count;
    return RP_OK;
}

RP_API const rp_real *rp_output(const rp_net *net) { return net && net->forward_count > 0 ? net->row_output : NULL; }

/* The derivatives of the caller's own loss; h may be NULL. */
static rp_status rpi_check_derivatives(rp_net *net, const char *who, int count, const rp_real *d, const rp_real *h) {
    ptrdiff_t end = (ptrdiff_t)count * net->outputs;
    for (ptrdiff_t i = 0; i < end; i++)
        if (!rpi_finite(d[i]))
            return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: output_gradient[%z] is %g", who, (size_t)i, (double)d[i]);
    for (ptrdiff_t i = 0; h && i < end; i++)
        if (!rpi_finite(h[i]) || h[i] < 0)
            return rpi_fail(net, RP_ERR_VALUE, "%s: output_curvature[%z] is %g; it must be finite and 0 or more", who,
                            (size_t)i, (double)h[i]);
    return RP_OK;
}

RP_API rp_status rp_backward_from(rp_net *net, const rp_real *output_gradient, const rp_real *output_curvature,
                                  const rp_rule *rule) {
    static const char who[] = "rp_backward_from";
    static const rp_rule all_zero = {RP_SAMPLED, RP_BOUND_TIGHT, RP_SCALE_FAN_IN};
    rp_status status = rpi_trainable(net, who);
    const rpi_buffers *b;
    rpi_pass pass;
    uint64_t random;
    int count;
    if (!status) status = rpi_needs(net, who, "output_gradient", output_gradient);
    if (status) return status;
    pass = rpi_pass_over(net, who, NULL, RPI_KEEP_SLOPES);
    pass.hessian = &rpi_diagonal_hessian;
    if (!rule) rule = &all_zero;
    status = rpi_check_rule(net, who, "", rule);
    if (!status) status = rpi_choose_rule(&pass, output_curvature ? rule : NULL);
    if (status) return status;
    count = pass.count = net->forward_count;
    if (count < 1)
        return rpi_fail(net, RP_ERR_ORDER, "%s: no rp_forward came before, or another call has used the net since",
                        who);
    status = rpi_check_derivatives(net, who, count, output_gradient, output_curvature);
    if (status) return status;
    b = &net->buffers;
    net->forward_count = 0;
    if (pass.how && pass.how->carries_u) {
        rpi_forward(net, net->swept, rpi_columns(b, count), RPI_KEEP_SLOPES, &pass);
        rpi_part_outputs(net, b->v);
    }
    rpi_load_rows(b, output_gradient, count, net->outputs, b->d[net->slot_count - 1]);
    if (output_curvature) rpi_load_rows(b, output_curvature, count, net->outputs, net->h);
    random = net->random;
    status = rpi_backward_pass(&pass);
    if (!status) rpi_fill_arrays(&pass);
    else net->random = random;
    return status;
}

/* >>tangents
   Derivatives along a direction g, exact. t: of a value, Ry (Pearlmutter's R operator); where a second is carried, t2
   is half of it: jets f(w + a g) = y + a t + a^2 t2 + ... */

/* What the products keep: each slot's Ry, each step's bend, a vector of parameters. */
static void rpi_lay_out_tangents(rpi_arena *arena, void *context) {
    rp_net *net = (rp_net *)context;
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

/* A step's part of t = A(g) x + A(w) t, where x is the value (with g's bias) or, for t2, itself a derivative
   (without). Only what can be other than zero. */
static void rpi_apply_along(const rp_net *net, const rpi_step *step, int n, const rp_real *g, rp_real *const *x,
                            int value, rp_real *const *t) {
    const rpi_buffers *b = net->swept;
    rpi_apply_call call = rpi_apply_of(b, step, g, n);
    call.y = t[step->out];
    if (rpi_trains(net, step) && (value || net->live[step->in])) {
        call.bias = value && step->bias;
        call.x = x[step->in];
        rpi_run_apply(&call);
        call.add = 1;
    }
    if (net->live[step->in]) {
        call.p = net->parameters;
        call.bias = 0;
        call.x = t[step->in];
        rpi_run_apply(&call);
        call.add = 1;
    }
    if (!call.add) rpi_clear_rows(b, step->out_rows, step->out_row, step->outputs, n, call.y);
}

/* t, and t2 or bend (each may be NULL), of every slot above trained parameters. sigma' and sigma'' (bend: sigma'' d)
   are in place. */
static void rpi_sweep_tangents(const rp_net *net, int n, const rp_real *g, rp_real *const *t, rp_real *const *t2,
                               rp_real *const *bend) {
    const rpi_buffers *b = net->swept;
    for (int i = 0; i < net->step_count; i++) {
        const rpi_step *step = &net->steps[i];
        ptrdiff_t row = step->out_row * b->ld;
        rpi_activate_work work;
        if (!net->live[step->out]) continue;
        rpi_apply_along(net, step, n, g, b->y, 1, t);
        if (t2) rpi_apply_along(net, step, n, g, t, 0, t2);
        if (!step->activation) continue;
        work = rpi_activate_step(b, i, step, n);
        work.way = RPI_TANGENT;
        work.t = t[step->out] + row;
        work.t2 = t2 ? t2[step->out] + row : NULL;
        work.bend = bend ? bend[i] : NULL;
        rpi_activate_run(&work);
    }
    rpi_part_outputs(net, t);
    if (t2) rpi_part_outputs(net, t2);
}

static double rpi_dot_outputs(const rp_net *net, int count, const rp_real *x, const rp_real *y) {
    ptrdiff_t ld = net->buffers.ld;
    double sum = 0;
    for (int i = 0; i < net->outputs; i++) sum += net->buffers.kernels->dot(count, x + i * ld, y + i * ld);
    return sum;
}

/* The entries that count are finite. */
static rp_status rpi_check_vector(rp_net *net, const char *who, const char *what, const rp_real *x) {
    for (int i = 0; i < net->layer_count; i++) {
        const rpi_layer *layer = &net->layers[i];
        if (layer->frozen) continue;
        for (ptrdiff_t at = layer->weights; at < layer->biases + layer->bias_count; at++)
            if (!rpi_finite(x[at]))
                return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: %s[%z] is %g", who, what, (size_t)at, (double)x[at]);
    }
    return RP_OK;
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

/* A pass that leaves y, sigma', sigma'' and the loss's exact Hessian in net->h. */
static rp_status rpi_expand_forward(rpi_pass *pass) {
    pass->keep = RPI_KEEP_CURVES;
    pass->exact = 1;
    pass->each = 0;
    return rpi_value(pass);
}

/* sum_s t'H_f t for t at the outputs, which becomes H_f t; its copy goes to scratch. */
static double rpi_output_form(const rpi_pass *pass, rp_real *t) {
    rp_net *net = pass->net;
    rpi_copy(net->row_output, t, net->outputs * net->buffers.ld);
    pass->hessian->times(net, pass->count, t);
    return rpi_dot_outputs(net, pass->count, net->row_output, t);
}

/* g'grad f = sum_s d't / S and g'Hg = sum_s (2 d't2 + t'H_f t) / S, with those and d in place: forward only. */
static rp_status rpi_directional(const rpi_pass *pass, const rp_real *g, double *first, double *second) {
    rp_net *net = pass->net;
    const rpi_buffers *b = &net->buffers;
    int count = pass->count, last = net->slot_count - 1;
    rp_real *d = net->row_output, *t = b->v[last];
    ptrdiff_t size = net->outputs * b->ld;
    *first = *second = 0;
    if (!net->live[last]) return RP_OK;
    rpi_weigh_rows(net, count, pass->batch->weights, b->d[last]);
    rpi_weigh_rows(net, count, pass->batch->weights, net->h);
    rpi_copy(d, b->d[last], size);
    rpi_sweep_tangents(net, rpi_columns(b, count), g, b->v, b->d, NULL);
    *first = rpi_dot_outputs(net, count, d, t) / count;
    *second = 2 * rpi_dot_outputs(net, count, d, b->d[last]);
    *second = (*second + rpi_output_form(pass, t)) / count;
    if (rpi_finite_double(*first) && rpi_finite_double(*second)) return RP_OK;
    return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: the derivatives along the direction are %g and %g", pass->who, *first,
                    *second);
}

/* g'Gg = sum_s t'H_f t / S, with the loss's derivatives in place. They are weighed and used up. */
static rp_status rpi_gauss_newton_along(const rpi_pass *pass, const rp_real *g, double *second) {
    rp_net *net = pass->net;
    const rpi_buffers *b = &net->buffers;
    int last = net->slot_count - 1;
    *second = 0;
    if (!net->live[last]) return RP_OK;
    rpi_weigh_rows(net, pass->count, pass->batch->weights, net->h);
    rpi_sweep_tangents(net, rpi_columns(b, pass->count), g, b->v, NULL, NULL);
    *second = rpi_output_form(pass, b->v[last]) / pass->count;
    if (rpi_finite_double(*second)) return RP_OK;
    return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: the curvature along the direction is %g", pass->who, *second);
}

RP_API rp_status rp_gauss_newton_directional(rp_net *net, const rp_data *batch, const rp_real *direction,
                                             rp_real *second) {
    static const char who[] = "rp_gauss_newton_directional";
    rpi_pass pass;
    double value;
    rp_status status = rpi_tool(net, who, batch, "direction", direction, "second", second);
    if (status) return status;
    pass = rpi_pass_over(net, who, batch, RPI_KEEP_SLOPES);
    pass.exact = 1;
    status = rpi_value(&pass);
    if (!status) status = rpi_gauss_newton_along(&pass, direction, &value);
    if (status) return status;
    if (!rpi_finite((rp_real)value))
        return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: the curvature along the direction is %g: too large", who, value);
    *second = (rp_real)value;
    return RP_OK;
}

RP_API rp_status rp_directional(rp_net *net, const rp_data *batch, const rp_real *direction, rp_real *first,
                                rp_real *second) {
    static const char who[] = "rp_directional";
    rpi_pass pass;
    double a, b;
    rp_status status = rpi_tool(net, who, batch, "direction", direction, NULL, NULL);
    if (status) return status;
    pass = rpi_pass_over(net, who, batch, RPI_KEEP_CURVES);
    status = rpi_expand_forward(&pass);
    if (!status) status = rpi_directional(&pass, direction, &a, &b);
    if (status) return status;
    if (!rpi_finite((rp_real)a) || !rpi_finite((rp_real)b))
        return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: the derivatives along the direction are %g and %g: too large", who,
                        a, b);
    if (first) *first = (rp_real)a;
    if (second) *second = (rp_real)b;
    return RP_OK;
}

/* Everything at the present point that products need: y, sigma', H_f in net->h; for those with H also d and sigma''
   d. */
static rp_status rpi_expand(rpi_pass *pass, int gauss_newton) {
    rp_net *net = pass->net;
    const rpi_buffers *b = &net->buffers;
    rp_status status = rpi_prepare_tangents(net, pass->who);
    if (!status) status = rpi_expand_forward(pass);
    if (status) return status;
    rpi_weigh_rows(net, pass->count, pass->batch->weights, net->h);
    rpi_weigh_rows(net, pass->count, pass->batch->weights, b->d[net->slot_count - 1]);
    if (!gauss_newton) rpi_sweep_back(net, rpi_columns(b, pass->count), rpi_back_derivative(RPI_FOLDED));
    return rpi_check_finite(pass, gauss_newton ? NULL : b->d, NULL, NULL);
}

/* out = mean over the samples of (v y' + d r'), r = Ry; the second part only with H. */
static void rpi_collect_product(const rp_net *net, int count, int gauss_newton, rp_real *out) {
    const rpi_buffers *b = &net->buffers;
    rpi_sink whole = rpi_sink_to(b->kernels->take_arrays, out, NULL),
             more = rpi_sink_to(b->kernels->take_sum, out, NULL);
    rpi_terms values = rpi_terms_of(b->y, b->v, NULL), tangents = rpi_terms_of(b->r, b->d, NULL);
    tangents.along = 1;
    rpi_zero_frozen(net, out);
    rpi_collect(net, count, &values, &whole);
    if (!gauss_newton) rpi_collect(net, count, &tangents, &more);
}

/* net->sums = H g or G g, after rpi_expand. Pearlmutter's R-forward pass, R y' = A(g) y + A(w) R y, then sigma' R z,
   gives r; then H_f of it; then the R-backward pass, R d = A(w)' R d' + A(g)' d', then sigma' R d + sigma'' d R z,
   gives v. With G all terms of d are left out. */
static rp_status rpi_multiply(rp_net *net, const char *who, int count, int gauss_newton, const rp_real *g) {
    const rpi_buffers *b = &net->buffers;
    int n = rpi_columns(b, count), last = net->slot_count - 1;
    rpi_back back = rpi_back_vector(gauss_newton ? RPI_PLAIN : RPI_BENT);
    back.along = gauss_newton ? NULL : g;
    if (net->live[last]) {
        rpi_sweep_tangents(net, n, g, b->r, NULL, gauss_newton ? NULL : b->bend);
        rpi_copy(b->v[last], b->r[last], net->outputs * b->ld);
        rpi_loss_of(net)->hessian->times(net, count, b->v[last]);
        rpi_sweep_back(net, n, back);
    }
    rpi_collect_product(net, count, gauss_newton, net->sums);
    if (rpi_all_finite(net->sums, net->parameter_count)) return RP_OK;
    return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: a product with the %s is not finite", who,
                    gauss_newton ? "Gauss-Newton matrix" : "Hessian");
}

static rp_status rpi_product_with(rp_net *net, const char *who, const rp_data *batch, int gauss_newton,
                                  const rp_real *v, rp_real *out) {
    rpi_pass pass;
    rp_status status = rpi_tool(net, who, batch, "v", v, "out", out);
    if (status) return status;
    pass = rpi_pass_over(net, who, batch, RPI_KEEP_CURVES);
    status = rpi_expand(&pass, gauss_newton);
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

/* A stack: each step reads the slot before its own, which nothing else does, and each row of it is a unit. */
static int rpi_stack(const rp_net *net) {
    for (int i = 0; i < net->step_count; i++) {
        const rpi_step *step = &net->steps[i];
        if (step->in != i || step->out != i + 1 || step->add || step->inputs != net->slot_rows[i]) return 0;
        if (!step->map->stacks) return 0;
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
    rpi_pass pass;
    rp_status status = rpi_tool(net, who, batch, NULL, NULL, "out", out);
    if (status) return status;
    if ((size_t)net->parameter_count > most)
        return rpi_fail(net, RP_ERR_VALUE, "%s: the net has %z parameters, but most is %z", who,
                        (size_t)net->parameter_count, most);
    pass = rpi_pass_over(net, who, batch, RPI_KEEP_CURVES);
    status = rpi_expand(&pass, 0);
    return status ? status : rpi_form_matrix(net, who, batch->count, 0, out, net->parameter_count);
}

static void rpi_lay_out_recursion(rpi_arena *arena, void *context) {
    rp_net *net = (rp_net *)context;
    rpi_recursion *r = &net->recursion;
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

static rp_status rpi_prepare_recursion(rp_net *net, const char *who) {
    return net->recursions.base ? RP_OK : rpi_build_block(net, who, &net->recursions, rpi_lay_out_recursion);
}

/* S becomes W' S W, as (W' S) turned, then W' of that. */
static void rpi_recursion_below(const rp_net *net, const rpi_step *step, const rpi_recursion *r) {
    const rpi_buffers *b = &net->buffers;
    int inputs = rpi_columns(b, step->inputs);
    rpi_transposed_call call = rpi_transposed_of(b, step, net->parameters, rpi_columns(b, step->outputs));
    call.ld = r->ld;
    call.d = r->s;
    call.d_in = r->left;
    step->map->ways[RPI_BATCH].transposed(&call);
    b->kernels->transpose(r->left, r->ld, step->inputs, step->outputs, r->turned, r->ld, inputs);
    call.n = inputs;
    call.d = r->turned;
    call.d_in = r->s;
    step->map->ways[RPI_BATCH].transposed(&call);
}

/* out = H_f of sample s, rows ld apart */
static void rpi_sample_hessian(const rp_net *net, ptrdiff_t s, rp_real *out, ptrdiff_t ld) {
    const rpi_hessian *hessian = rpi_loss_of(net)->hessian;
    rp_real total = rpi_total_of(net, s);
    for (int i = 0; i < net->outputs; i++)
        for (int k = 0; k < net->outputs; k++) out[i * ld + k] = hessian->entry(net, s, i, k, total);
}

/* S becomes diag(sigma') S diag(sigma') + diag(sigma'' d). */
static void rpi_recur_activation(const rpi_buffers *b, int i, int n, ptrdiff_t s, const rpi_recursion *r) {
    const rp_real *slope = b->slope[i] + s, *second = b->second[i];
    for (int a = 0; a < n; a++) {
        rp_real *row = r->s + a * r->ld;
        for (int c = 0; c < n; c++) row[c] *= slope[a * b->ld] * slope[c * b->ld];
        if (second) row[a] += second[a * b->ld + s];
    }
}

/* S, the Hessian of sample s by the values before a step's activation: from the step above S = diag(sigma') W' S W
   diag(sigma') + diag(sigma'' d). The second derivative by W_ij is S_ii y_j^2: v = the diagonal of S. */
static void rpi_recur(const rp_net *net, ptrdiff_t s, const rpi_recursion *r) {
    const rpi_buffers *b = &net->buffers;
    rpi_sample_hessian(net, s, r->s, r->ld);
    for (int i = net->step_count - 1; i >= 0; i--) {
        const rpi_step *step = &net->steps[i];
        if (!net->live[i + 1]) return;
        if (step->activation) rpi_recur_activation(b, i, step->outputs, s, r);
        if (rpi_trains(net, step))
            for (int a = 0; a < step->outputs; a++) b->v[i + 1][a * b->ld + s] = r->s[a * r->ld + a];
        if (net->live[i]) rpi_recursion_below(net, step, r);
    }
}

/* net->sums = mean over the samples of v (y^2)' */
static void rpi_collect_squares(const rp_net *net, int count) {
    const rpi_buffers *b = &net->buffers;
    rpi_sink sink = rpi_sink_to(b->kernels->take_arrays, net->sums, NULL);
    rpi_terms terms = rpi_terms_of(b->r, b->v, NULL);
    for (const rpi_step *step = rpi_next_trained(net, NULL); step; step = rpi_next_trained(net, step)) {
        rp_real *squares = b->r[step->in];
        int rows = net->slot_rows[step->in];
        rpi_copy(squares, b->y[step->in], rows * b->ld);
        b->kernels->weigh(rows, rpi_columns(b, count), squares, b->ld, squares, b->ld, 0);
    }
    rpi_zero_frozen(net, net->sums);
    rpi_collect(net, count, &terms, &sink);
}

static rp_status rpi_finite_result(rp_net *net, const char *who, const char *what) {
    if (rpi_all_finite(net->sums, net->parameter_count)) return RP_OK;
    return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: %s is not finite, or too large", who, what);
}

/* By a product for each parameter. */
static rp_status rpi_product_diagonal(rp_net *net, const char *who, int count, rp_real *diagonal) {
    ptrdiff_t n = net->parameter_count;
    rpi_zero(net->spare, n);
    for (ptrdiff_t i = 0; i < n; i++) {
        rp_status status = rpi_multiply_unit(net, who, count, 0, i);
        if (status) return status;
        diagonal[i] = net->sums[i];
    }
    rpi_copy(net->sums, diagonal, n);
    return RP_OK;
}

/* net->sums = the diagonal of H */
static rp_status rpi_hessian_diagonal(rpi_pass *pass) {
    rp_net *net = pass->net;
    rp_status status = rpi_prepare_recursion(net, pass->who);
    if (!status) status = rpi_expand(pass, 0);
    if (status) return status;
    if (rpi_stack(net)) {
        for (int s = 0; s < pass->count; s++) rpi_recur(net, s, &net->recursion);
        rpi_collect_squares(net, pass->count);
    } else {
        status = rpi_product_diagonal(net, pass->who, pass->count, net->recursion.diagonal);
    }
    return status ? status : rpi_finite_result(net, pass->who, "the diagonal");
}

RP_API rp_status rp_hessian_diagonal(rp_net *net, const rp_data *batch, rp_real *out) {
    static const char who[] = "rp_hessian_diagonal";
    rpi_pass pass;
    rp_status status = rpi_tool(net, who, batch, NULL, NULL, "out", out);
    if (!status) status = rpi_check_data(net, who, batch, net->batch);
    if (status) return status;
    pass = rpi_pass_over(net, who, batch, RPI_KEEP_CURVES);
    status = rpi_hessian_diagonal(&pass);
    if (!status) rpi_copy(out, net->sums, net->parameter_count);
    return status;
}

/* net->sums += mean over the samples of (each sample's own v y')^2 */
static void rpi_collect_own_squares(const rp_net *net, int count, rp_real *const *v) {
    const rpi_buffers *b = &net->buffers;
    rpi_sink sink = rpi_sink_to(b->kernels->take_sum, NULL, net->sums);
    rpi_terms terms = rpi_terms_of(b->y, NULL, v);
    terms.squares = 1;
    terms.weight = b->ones;
    rpi_collect(net, count, &terms, &sink);
}

RP_API rp_status rp_gauss_newton_diagonal(rp_net *net, const rp_data *batch, rp_real *out) {
    static const char who[] = "rp_gauss_newton_diagonal";
    rpi_pass pass;
    rp_real *output;
    rp_status status = rpi_tool(net, who, batch, NULL, NULL, "out", out);
    if (status) return status;
    pass = rpi_pass_over(net, who, batch, RPI_KEEP_CURVES);
    status = rpi_expand(&pass, 1);
    if (status) return status;
    output = net->buffers.v[net->slot_count - 1];
    rpi_zero(net->sums, net->parameter_count);
    for (int k = 0; k < net->outputs; k++) {
        if (!net->live[net->slot_count - 1]) break; /* nothing is trained */
        pass.hessian->factor(net, batch->count, k, output);
        rpi_sweep_vector(net, rpi_columns(&net->buffers, batch->count));
        rpi_collect_own_squares(net, batch->count, net->buffers.v);
    }
    status = rpi_finite_result(net, who, "the diagonal");
    if (!status) rpi_copy(out, net->sums, net->parameter_count);
    return status;
}

/* >>samples */

/* Gradients in d of every slot, and in b->total each sample's own |gradient|^2. */
static rp_status rpi_square_norms(rpi_pass *pass) {
    rp_net *net = pass->net;
    const rpi_buffers *b = &net->buffers;
    rp_status status = rpi_differentiate(pass);
    if (status) return status;
    rpi_reach(net, rpi_columns(b, pass->count), b->d, NULL, 1);
    for (int s = 0; s < pass->count; s++)
        if (!rpi_finite(b->total[s]))
            return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: the gradient's square is not finite at sample %d", pass->who,
                            s);
    return RP_OK;
}

RP_API rp_status rp_sample_gradient_norms(rp_net *net, const rp_data *batch, rp_real *norms) {
    static const char who[] = "rp_sample_gradient_norms";
    rpi_pass pass;
    rp_status status = rpi_tool(net, who, batch, NULL, NULL, "norms", norms);
    if (status) return status;
    pass = rpi_pass_over(net, who, batch, RPI_KEEP_SLOPES);
    status = rpi_square_norms(&pass);
    if (status) return status;
    for (int s = 0; s < batch->count; s++) norms[s] = RPI_MATH(sqrt)(net->buffers.total[s]);
    return RP_OK;
}

/* variance = sum_s (g_s - g)^2 / (S - 1) = (sum_s g_s^2 - S g^2) / (S - 1), where sums holds g and then the mean of
   the squares */
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
    return rpi_finite_result(net, who, "the variance");
}

RP_API rp_status rp_gradient_noise(rp_net *net, const rp_data *batch, rp_noise *noise, rp_real *variance) {
    static const char who[] = "rp_gradient_noise";
    double squares = 0, mean, spread;
    rpi_pass pass;
    rpi_sink sink;
    int count;
    rp_status status = rpi_tool(net, who, batch, NULL, NULL, "noise", noise);
    if (status) return status;
    count = batch->count;
    if (count == 1) return rpi_fail(net, RP_ERR_VALUE, "%s: data.count is 1; noise needs 2 samples or more", who);
    if (variance) status = rpi_prepare_tangents(net, who);
    if (status) return status;
    pass = rpi_pass_over(net, who, batch, RPI_KEEP_SLOPES);
    status = rpi_square_norms(&pass);
    if (status) return status;
    for (int s = 0; s < count; s++) squares += (double)net->buffers.total[s];
    sink = rpi_sink_to(net->buffers.kernels->take_arrays, net->sums, NULL);
    rpi_zero_frozen(net, net->sums);
    rpi_collect_pass(&pass, &sink);
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
    const rp_net *net;
    rp_real *d, *y, *states;
} rpi_factors;

static void rpi_lay_out_factors(rpi_arena *arena, void *context) {
    rpi_factors *rows = (rpi_factors *)context;
    ptrdiff_t most = 0;
    for (int slot = 0; slot < rows->net->slot_count; slot++) most = rpi_larger(most, rpi_slot_rows(rows->net, slot));
    rows->d = rpi_claim_reals(arena, most);
    rows->y = rpi_claim_reals(arena, most);
    rows->states = rpi_claim_reals(arena, most);
}

/* Sample s of a slot, rows from `from` on, as one row. */
static void rpi_gather_sample(const rpi_buffers *b, const rp_real *slot, int from, int rows, int s, rp_real *out) {
    for (int i = 0; i < rows; i++) out[i] = slot[(from + i) * b->ld + s];
}

/* What the steps of a recurrence read, which works in place in one slot: all states but the last, behind zeros where
   that is not one before those which it computes, the rows behind `from`. */
static void rpi_gather_states(const rp_net *net, const rpi_step *step, int from, int s, rp_real *out) {
    int units = step->outputs, rows = net->slot_rows[step->out] - units;
    rpi_zero(out, units);
    rpi_gather_sample(&net->buffers, net->buffers.y[step->out], 0, rows, s, from ? out : out + units);
}

/* The factors of one layer: a recurrence that reads inputs as well has another step for them. */
static void rpi_gather_factors(const rpi_factors *rows, int layer, int s, rp_sample_factors *factors) {
    const rp_net *net = rows->net;
    const rpi_layer *l = &net->layers[layer];
    const rpi_buffers *b = &net->buffers;
    factors->sample = s;
    factors->layer = layer;
    factors->d = rows->d;
    factors->y = factors->states = NULL;
    for (const rpi_step *step = rpi_next_trained(net, NULL); step; step = rpi_next_trained(net, step)) {
        int from = 0, rows_d = net->slot_rows[step->out];
        if (step->layer != layer) continue;
        if (step->in == step->out) {
            from = rows_d - l->steps * l->units;
            factors->states = rows->states;
            rpi_gather_states(net, step, from, s, rows->states);
        } else {
            factors->y = rows->y;
            rpi_gather_sample(b, b->y[step->in], 0, net->slot_rows[step->in], s, rows->y);
        }
        rpi_gather_sample(b, b->d[step->out], from, rows_d - from, s, rows->d);
    }
}

static rp_status rpi_each_factor(rp_net *net, const char *who, const rpi_factors *rows, int count, rp_each_sample each,
                                 void *user) {
    for (int s = 0; s < count; s++)
        for (int layer = 0; layer < net->layer_count; layer++) {
            rp_sample_factors factors;
            rp_status status;
            int stopped;
            if (!net->layers[layer].affine || net->layers[layer].frozen) continue;
            rpi_gather_factors(rows, layer, s, &factors);
            net->forward_count = RPI_BUSY;
            stopped = each(user, &factors);
            status = rpi_still_busy(net, who, "each");
            if (status) return status;
            if (stopped) return rpi_fail(net, RP_ERR_STOPPED, "%s: each returned %d", who, stopped);
        }
    return RP_OK;
}

RP_API rp_status rp_sample_gradients(rp_net *net, const rp_data *batch, rp_each_sample each, void *user) {
    static const char who[] = "rp_sample_gradients";
    rpi_factors rows;
    rpi_block block = {NULL, NULL, 0};
    rpi_pass pass;
    rp_status status = rpi_tool(net, who, batch, NULL, NULL, NULL, NULL);
    if (status) return status;
    if (!each) return rpi_fail(net, RP_ERR_NULL, "%s: each is NULL", who);
    pass = rpi_pass_over(net, who, batch, RPI_KEEP_SLOPES);
    status = rpi_differentiate(&pass);
    if (status) return status;
    memset(&rows, 0, sizeof rows);
    rows.net = net;
    status = rpi_temporary(net, who, &block, rpi_lay_out_factors, &rows);
    if (status) return status;
    status = rpi_each_factor(net, who, &rows, batch->count, each, user);
    rpi_block_free(&net->memory, &block);
    return status;
}

/* >>lu
   Gaussian elimination with row pivoting: the first `pivots` columns of A, [rows][width], become L and U, and what
   follows in the other columns is done to these. In blocks of columns; rows hold whole vectors. */
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

static rp_real *rpi_lu_row(const rpi_lu *lu, int row) { return lu->a + row * lu->ld; }

static void rpi_lu_swap(rp_real *one, rp_real *other, ptrdiff_t n) {
    if (one == other) return;
    for (ptrdiff_t i = 0; i < n; i++) {
        rp_real kept = one[i];
        one[i] = other[i];
        other[i] = kept;
    }
}

/* The row, from the diagonal down, with the largest number in a column; -1: all are 0, or one is infinite. */
static int rpi_lu_find_pivot(const rpi_lu *lu, int column) {
    rp_real most = 0;
    int pivot = -1;
    for (int row = column; row < lu->rows; row++) {
        rp_real size = RPI_MATH(fabs)(rpi_lu_row(lu, row)[column]);
        if (size > most) {
            most = size;
            pivot = row;
        }
    }
    return rpi_finite(most) ? pivot : -1;
}

/* L and U of the columns from..end - 1, over all rows below; 0: the matrix is singular to working precision. */
static int rpi_lu_panel(const rpi_buffers *buffers, rpi_lu *lu, int from, int end) {
    for (int j = from; j < end; j++) {
        rp_real *top = rpi_lu_row(lu, j);
        int pivot = rpi_lu_find_pivot(lu, j);
        if (pivot < 0) return 0;
        lu->pivot[j] = pivot;
        rpi_lu_swap(top, rpi_lu_row(lu, pivot), lu->ld);
        for (int i = j + 1; i < lu->rows; i++) {
            rp_real *row = rpi_lu_row(lu, i);
            row[j] /= top[j];
            buffers->kernels->blend(end - j - 1, -row[j], top + j + 1, NULL, 1, row + j + 1);
        }
    }
    return 1;
}

/* What is eliminated by the columns from..end - 1 in those behind them: first in U's rows, */
static void rpi_lu_solve_rows(const rpi_buffers *buffers, const rpi_lu *lu, int from, int end) {
    for (int i = from + 1; i < end; i++) {
        rp_real *row = rpi_lu_row(lu, i);
        for (int p = from; p < i; p++)
            buffers->kernels->blend(lu->width - end, -row[p], rpi_lu_row(lu, p) + end, NULL, 1, row + end);
    }
}

/* then, by these, in the rows below: A -= L U. */
static void rpi_lu_reduce(const rpi_buffers *buffers, const rpi_lu *lu, int from, int end) {
    rpi_product q;
    memset(&q, 0, sizeof q);
    q.m = lu->rows - end;
    q.n = rpi_columns(buffers, lu->width - end);
    q.k = end - from;
    q.add = 1;
    if (!q.m || !q.n) return;
    for (int i = end; i < lu->rows; i++)
        buffers->kernels->blend(q.k, -1, rpi_lu_row(lu, i) + from, NULL, 0, lu->packed + (ptrdiff_t)i * RPI_LU_BLOCK);
    q.a = lu->packed + (ptrdiff_t)end * RPI_LU_BLOCK;
    q.a_row = RPI_LU_BLOCK;
    q.a_column = 1;
    q.packed = buffers->packed;
    q.b = rpi_lu_row(lu, from) + end;
    q.c = rpi_lu_row(lu, end) + end;
    q.ldb = q.ldc = lu->ld;
    rpi_product_run(buffers, &q);
}

/* 0: the matrix is singular to working precision. */
static int rpi_lu_factor(const rpi_buffers *buffers, rpi_lu *lu) {
    for (int from = 0; from < lu->pivots; from += RPI_LU_BLOCK) {
        int end = from + RPI_LU_BLOCK < lu->pivots ? from + RPI_LU_BLOCK : lu->pivots;
        if (!rpi_lu_panel(buffers, lu, from, end)) return 0;
        rpi_lu_solve_rows(buffers, lu, from, end);
        rpi_lu_reduce(buffers, lu, from, end);
    }
    return 1;
}

/* What a factored matrix does to a right-hand side, [rows]. */
static void rpi_lu_forward(const rpi_buffers *buffers, const rpi_lu *lu, rp_real *x) {
    for (int i = 0; i < lu->pivots; i++) rpi_lu_swap(x + i, x + lu->pivot[i], 1);
    for (int i = 1; i < lu->rows; i++)
        x[i] -= (rp_real)buffers->kernels->dot(i < lu->pivots ? i : lu->pivots, rpi_lu_row(lu, i), x);
}

/* x, [width], of which what lies behind the pivots is known: their right-hand sides become the solution. */
static void rpi_lu_backward(const rpi_buffers *buffers, const rpi_lu *lu, rp_real *x) {
    for (int i = lu->pivots - 1; i >= 0; i--) {
        const rp_real *row = rpi_lu_row(lu, i);
        x[i] = (x[i] - (rp_real)buffers->kernels->dot(lu->width - i - 1, row + i + 1, x + i + 1)) / row[i];
    }
}

/* >>minres
   Systems (A + damping I) x = b, A the Hessian or the Gauss-Newton matrix, on the trained parameters, known by their
   products; and MINRES, which solves them by these. */
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

static void rpi_swap(rp_real **one, rp_real **other) {
    rp_real *kept = *one;
    *one = *other;
    *other = kept;
}

/* MINRES (Paige and Saunders, Solution of Sparse Indefinite Systems of Linear Equations), from x = 0. The Lanczos
   process makes A, damping included, tridiagonal: with r_1 = b, beta_k = |r_k| and v_k = r_k / beta_k,
       r_(k+1) = A v_k - alpha_k / beta_k r_k - beta_k / beta_(k-1) r_(k-1).
   Rotations (c_k, s_k) remove beta_(k+1) below the diagonal. In the upper triangular matrix that they leave, column k
   is epsilon_k, delta_k and, on the diagonal, gamma_k; a bar marks what the next rotation changes. Then
       w_k = (v_k - epsilon_k w_(k-2) - delta_k w_(k-1)) / gamma_k
       x_k = x_(k-1) + phi_k w_k
   with a residual of norm phi_bar_(k+1). */
typedef struct rpi_recurrences {
    double beta_1, alpha, beta, beta_before; /* beta_before: beta_k, once beta is beta_(k+1) */
    double c, s;
    double epsilon, epsilon_next, delta, delta_bar, gamma, gamma_bar;
    double gamma_1, gamma_2; /* gamma_(k-1), gamma_(k-2) */
    double phi, phi_bar;
} rpi_recurrences;

enum { RPI_MINRES_VECTORS = 6 };
typedef struct rpi_minres {
    rp_real *v, *next;     /* v_k; scratch for r_(k+1) */
    rp_real *r, *r_before; /* r_k, r_(k-1) */
    rp_real *w, *w_before; /* gamma_(k-1) w_(k-1), gamma_(k-2) w_(k-2) */
    double tolerance;      /* of the residual's norm, by its first */
    double begin;          /* what that first is of the whole, for progress */
    int limit, iterations; /* over all runs */
    int stop_at_negative;  /* before the first direction of curvature <= 0 is used */
    int (*progress)(void *user, int iteration, rp_real residual);
    void *user;
    int negative, stopped; /* results */
} rpi_minres;

static void rpi_minres_take(rpi_minres *minres, rp_real *const vectors[RPI_MINRES_VECTORS]) {
    minres->v = vectors[0];
    minres->next = vectors[1];
    minres->r = vectors[2];
    minres->r_before = vectors[3];
    minres->w = vectors[4];
    minres->w_before = vectors[5];
}

static void rpi_minres_begin(const rp_net *net, rpi_minres *minres, rpi_recurrences *k, const rp_real *b, rp_real *x) {
    ptrdiff_t n = net->parameter_count;
    double square = net->buffers.kernels->dot(n, b, b);
    rpi_zero(x, n);
    rpi_zero(minres->w, n);
    rpi_zero(minres->w_before, n);
    rpi_zero(minres->r_before, n);
    rpi_copy(minres->r, b, n);
    memset(k, 0, sizeof *k);
    k->beta_1 = square > 0 ? sqrt(square) : 0;
    k->beta = k->beta_1;
    k->phi_bar = k->beta_1;
    k->c = -1;
    k->gamma_1 = 1;
    k->gamma_2 = 1;
}

/* v_k, alpha_k, r_(k+1) and beta_(k+1) */
static rp_status rpi_minres_lanczos(rpi_system *system, rpi_minres *minres, rpi_recurrences *k) {
    const rpi_kernels *kernels = system->net->buffers.kernels;
    ptrdiff_t n = system->net->parameter_count;
    double square;
    rp_status status;
    kernels->blend(n, (rp_real)(1 / k->beta), minres->r, NULL, 0, minres->v);
    status = rpi_system_times(system, minres->v, minres->next);
    if (status) return status;
    minres->iterations++;
    if (k->beta_before > 0)
        kernels->blend(n, (rp_real)(-k->beta / k->beta_before), minres->r_before, NULL, 1, minres->next);
    k->alpha = kernels->dot(n, minres->v, minres->next);
    kernels->blend(n, (rp_real)(-k->alpha / k->beta), minres->r, NULL, 1, minres->next);
    rpi_swap(&minres->r_before, &minres->r);
    rpi_swap(&minres->r, &minres->next);
    square = kernels->dot(n, minres->r, minres->r);
    k->beta_before = k->beta;
    k->beta = square > 0 ? sqrt(square) : 0;
    return RP_OK;
}

/* Column k of the triangular matrix, by the rotation before. */
static void rpi_minres_column(rpi_recurrences *k) {
    k->epsilon = k->epsilon_next;
    k->delta = k->c * k->delta_bar + k->s * k->alpha;
    k->gamma_bar = k->s * k->delta_bar - k->c * k->alpha;
    k->epsilon_next = k->s * k->beta;
    k->delta_bar = -k->c * k->beta;
    k->gamma = sqrt(k->gamma_bar * k->gamma_bar + k->beta * k->beta);
}

static void rpi_minres_rotate(rpi_recurrences *k) {
    k->c = k->gamma_bar / k->gamma;
    k->s = k->beta / k->gamma;
    k->phi = k->c * k->phi_bar;
    k->phi_bar *= k->s;
}

/* w_k and x_k. The vector of w_(k-2) becomes that of w_k. */
static void rpi_minres_move(const rp_net *net, rpi_minres *minres, rpi_recurrences *k, rp_real *x) {
    const rpi_kernels *kernels = net->buffers.kernels;
    ptrdiff_t n = net->parameter_count;
    kernels->blend(n, 1, minres->v, NULL, (rp_real)(-k->epsilon / k->gamma_2), minres->w_before);
    kernels->blend(n, (rp_real)(-k->delta / k->gamma_1), minres->w, NULL, 1, minres->w_before);
    rpi_swap(&minres->w, &minres->w_before);
    kernels->blend(n, (rp_real)(k->phi / k->gamma), minres->w, NULL, 1, x);
    k->gamma_2 = k->gamma_1;
    k->gamma_1 = k->gamma;
}

static rp_status rpi_minres_report(const rpi_system *system, rpi_minres *minres, const rpi_recurrences *k) {
    double residual = k->phi_bar / k->beta_1 * minres->begin;
    if (!minres->progress) return RP_OK;
    system->net->forward_count = RPI_BUSY;
    minres->stopped = minres->progress(minres->user, minres->iterations, (rp_real)residual) != 0;
    return rpi_still_busy(system->net, system->who, "options.progress");
}

static rp_status rpi_run_minres(rpi_system *system, rpi_minres *minres, const rp_real *b, rp_real *x) {
    rpi_recurrences k;
    rp_status status = RP_OK;
    rpi_minres_begin(system->net, minres, &k, b, x);
    while (!status && !minres->stopped && minres->iterations < minres->limit &&
           k.phi_bar > minres->tolerance * k.beta_1 && k.beta > 0) {
        status = rpi_minres_lanczos(system, minres, &k);
        if (status) return status;
        rpi_minres_column(&k);
        /* the residual r has r'(A + damping I) r <= 0 (Liu and Roosta, MINRES: From Negative Curvature Detection) */
        if (k.c * k.gamma_bar >= 0) minres->negative = 1;
        if (minres->negative && minres->stop_at_negative) return RP_OK;
        if (!(k.gamma > 0)) return RP_OK; /* x is the least-squares solution of a singular system */
        rpi_minres_rotate(&k);
        rpi_minres_move(system->net, minres, &k, x);
        status = rpi_minres_report(system, minres, &k);
    }
    return status;
}

/* >>direct
   The direct method (the plan of Conjugate, on a stack). Row l of (H + damping I) X = F says, with y~ = (y, 1) and S
   samples,
       X_l = (F_l - (1/S) sum_r [Rd_l,r y~_r' + d_l,r (Ry_r, 0)']) / damping,                                      (1)
   so that X can be eliminated from the R-forward and R-backward passes. What remains are, for each step and all samples
   at once, z = Rz_l and r = Rd_l, coupled through y~_r'y~_s and d_r'd_s:
       z_l + N_l r_l = f_l + C_l z_(l-1)                                                                           (2)
       G_l z_l + r_l = e_l + C_(l+1)' r_(l+1)                                                                      (3)
       (C_l z)_(i,s) = sum_j W_ij sigma'_js z_js - k sum_r d_ir sum_j y_js sigma'_jr z_jr                          (4)
   where k = 1 / (damping S) and
       f_l   F_l y~ / damping                      N_l   k y~_r'y~_s for each unit
       e_l   sigma' F_(l+1)'d / damping            G_l   k sigma'_r sigma'_s d_r'd_s of the step above, - sigma'' d;
                                                         - H_f at the top
   From below, each step hands over as many equations A z_l + B r_l = c as it has unknowns (A = I, B = N, c = f at the
   first). With r_l from (3) they and (2) of the step above are
       | A - B G  |       | 0   B C_(l+1)' | | z_(l+1) |   | c - B e_l |
       | -C_(l+1) | z_l + | I   N_(l+1)    | | r_(l+1) | = | f_(l+1)   |,                                          (5)
   from which z_l is eliminated, with pivots from both; what is left is for the next. Unknown (i, s) has the index
   i S + s. With G in the place of H, sigma'' d and d are left out. */

/* in = A(p)' out of a step */
static void rpi_direct_transposed(const rp_net *net, const rpi_step *step, const rp_real *p, int n, const rp_real *out,
                                  rp_real *in) {
    rpi_transposed_call call = rpi_transposed_of(&net->buffers, step, p, n);
    call.d = out;
    call.d_in = in;
    step->map->ways[RPI_BATCH].transposed(&call);
}

/* G_l couples the units of each sample at the top, the samples of each unit elsewhere: it consists of `count` dense
   blocks, [size][size], whose rows are next_row unknowns apart, and which begin next_block unknowns apart. */
typedef struct rpi_direct_blocks {
    int count, size;
    ptrdiff_t next_block, next_row;
} rpi_direct_blocks;

typedef struct rpi_direct_step {
    int unknowns, above; /* units times samples of this step; of the one above, 0 at the top */
    rpi_direct_blocks blocks;
    rp_real *g;
    rpi_lu lu;       /* (5): both matrices, of which the first is eliminated */
    rp_real *column; /* (5): the right-hand side, then the solution */
    rp_real *z, *r, *f, *e, *c;
    const rp_real *equations; /* from below, [unknowns][2 unknowns]: A, B; rows ld apart */
    ptrdiff_t ld;
} rpi_direct_step;
typedef struct rpi_direct {
    const rpi_system *system;
    int samples;
    rp_real k;
    rpi_direct_step *steps;
    rp_real *first;            /* equations of the first step */
    rp_real *operand, *result; /* scratch: matrices of the widest step, and what N, G and C make of them */
    rp_real *pairs;            /* scratch: a number, or a row, for each pair of samples */
    rp_real *minus_k_d;        /* scratch: [units of the widest step][batch ld] */
    ptrdiff_t ld;              /* of the scratch matrices */
} rpi_direct;

static int rpi_direct_is_top(const rpi_system *system, int i) { return i == system->net->step_count - 1; }

static void rpi_lay_out_direct_step(const rpi_system *system, rpi_arena *arena, int i, rpi_direct_step *here) {
    const rp_net *net = system->net;
    int samples = system->count, units = net->steps[i].outputs;
    rpi_direct_blocks top = {samples, units, 1, samples}, inner = {units, samples, samples, 1};
    memset(here, 0, sizeof *here);
    here->unknowns = units * samples;
    here->above = rpi_direct_is_top(system, i) ? 0 : net->steps[i + 1].outputs * samples;
    here->blocks = rpi_direct_is_top(system, i) ? top : inner;
    rpi_lay_out_lu(arena, &here->lu, here->unknowns + here->above, here->unknowns, here->unknowns + 2 * here->above);
    here->g = rpi_claim_rows(arena, here->unknowns, here->blocks.size);
    here->column = rpi_claim_reals(arena, here->lu.ld);
    here->z = rpi_claim_reals(arena, here->lu.ld);
    here->r = rpi_claim_reals(arena, here->lu.ld);
    here->f = rpi_claim_reals(arena, here->lu.ld);
    here->e = rpi_claim_reals(arena, here->lu.ld);
    here->c = rpi_claim_reals(arena, here->lu.ld);
}

static void rpi_lay_out_direct(const rpi_system *system, rpi_arena *arena, rpi_direct *direct) {
    const rp_net *net = system->net;
    ptrdiff_t samples = system->count;
    int most = 0, widest = 0;
    direct->system = system;
    direct->samples = system->count;
    direct->k = 1 / (system->damping * (rp_real)samples);
    direct->steps = (rpi_direct_step *)rpi_claim(arena, net->step_count, sizeof *direct->steps);
    for (int i = 0; i < net->step_count; i++) {
        rpi_direct_step here;
        rpi_lay_out_direct_step(system, arena, i, &here);
        if (net->steps[i].outputs > widest) widest = net->steps[i].outputs;
        if (here.unknowns > most) most = here.unknowns;
        if (arena->base) direct->steps[i] = here;
    }
    direct->ld = rpi_leading(most);
    direct->first = rpi_claim_rows(arena, net->steps[0].outputs * samples, 2 * direct->ld);
    direct->operand = rpi_claim_rows(arena, most, direct->ld);
    direct->result = rpi_claim_rows(arena, most, direct->ld);
    direct->pairs = rpi_claim_rows(arena, samples * samples, direct->ld);
    direct->minus_k_d = rpi_claim_rows(arena, widest, net->buffers.ld);
}

/* Step i's sigma' in a unit, for each sample. */
static const rp_real *rpi_direct_slope(const rpi_direct *direct, int i, ptrdiff_t unit) {
    const rpi_buffers *buffers = &direct->system->net->buffers;
    return buffers->slope[i] ? buffers->slope[i] + unit * buffers->ld : buffers->ones;
}

/* The part of step i's d in the equations: not with the Gauss-Newton matrix, nor where nothing is trained. */
static int rpi_direct_couples(const rpi_direct *direct, int i) {
    const rp_net *net = direct->system->net;
    return i < net->step_count && !direct->system->gauss_newton && rpi_trains(net, &net->steps[i]);
}

/* pairs = k (start + sum_j rows_jr rows_js), [samples][samples] */
static void rpi_direct_gram(const rpi_direct *direct, const rp_real *rows, int count, rp_real start) {
    const rpi_buffers *buffers = &direct->system->net->buffers;
    ptrdiff_t samples = direct->samples;
    for (ptrdiff_t i = 0; i < samples * samples; i++) direct->pairs[i] = start * direct->k;
    for (ptrdiff_t j = 0; j < count; j++) {
        const rp_real *row = rows + j * buffers->ld;
        for (ptrdiff_t r = 0; r < samples; r++)
            buffers->kernels->blend(samples, direct->k * row[r], row, NULL, 1, direct->pairs + r * samples);
    }
}

/* G at the top: - H_f, by the values before the activation; */
static void rpi_direct_top_g(const rpi_direct *direct, int i) {
    ptrdiff_t units = direct->system->net->steps[i].outputs;
    rp_real *g = direct->steps[i].g, *hessian = direct->operand;
    for (ptrdiff_t s = 0; s < direct->samples; s++) {
        rpi_sample_hessian(direct->system->net, s, hessian, direct->ld);
        for (ptrdiff_t row = 0; row < units; row++) {
            const rp_real *slope = rpi_direct_slope(direct, i, row), *from = hessian + row * direct->ld;
            rp_real *to = g + (s * units + row) * units;
            for (ptrdiff_t unit = 0; unit < units; unit++)
                to[unit] = -from[unit] * slope[s] * rpi_direct_slope(direct, i, unit)[s];
        }
    }
}

/* elsewhere: what d of the step above couples; */
static void rpi_direct_inner_g(const rpi_direct *direct, int i) {
    const rp_net *net = direct->system->net;
    ptrdiff_t samples = direct->samples, units = net->steps[i].outputs;
    rp_real *g = direct->steps[i].g;
    if (!rpi_direct_couples(direct, i + 1)) {
        rpi_zero(g, units * samples * samples);
        return;
    }
    rpi_direct_gram(direct, net->buffers.d[i + 2], net->steps[i + 1].outputs, 0);
    for (ptrdiff_t unit = 0; unit < units; unit++) {
        const rp_real *slope = rpi_direct_slope(direct, i, unit);
        for (ptrdiff_t s = 0; s < samples; s++)
            for (ptrdiff_t r = 0; r < samples; r++)
                g[(unit * samples + s) * samples + r] = direct->pairs[s * samples + r] * slope[s] * slope[r];
    }
}

/* and on the diagonal - sigma'' d. */
static void rpi_direct_bend_g(const rpi_direct *direct, int i) {
    const rpi_buffers *buffers = &direct->system->net->buffers;
    const rpi_direct_step *here = &direct->steps[i];
    const rpi_direct_blocks *blocks = &here->blocks;
    ptrdiff_t size = blocks->size, samples = direct->samples;
    if (!buffers->second[i] || direct->system->gauss_newton) return;
    for (ptrdiff_t block = 0; block < blocks->count; block++)
        for (ptrdiff_t row = 0; row < size; row++) {
            ptrdiff_t unknown = block * blocks->next_block + row * blocks->next_row;
            const rp_real *second = buffers->second[i] + unknown / samples * buffers->ld;
            here->g[(block * size + row) * size + row] -= second[unknown % samples];
        }
}

static void rpi_direct_g(const rpi_direct *direct, int i) {
    if (rpi_direct_is_top(direct->system, i)) rpi_direct_top_g(direct, i);
    else rpi_direct_inner_g(direct, i);
    rpi_direct_bend_g(direct, i);
}

/* result = G_i operand, so many columns of both; their rows are ld apart. */
static void rpi_direct_times_g(const rpi_direct *direct, int i, int columns, ptrdiff_t ld) {
    const rpi_buffers *buffers = &direct->system->net->buffers;
    const rpi_direct_step *here = &direct->steps[i];
    const rpi_direct_blocks *blocks = &here->blocks;
    rpi_product q;
    memset(&q, 0, sizeof q);
    q.m = q.k = blocks->size;
    q.n = rpi_columns(buffers, columns);
    q.a_row = blocks->size;
    q.a_column = 1;
    q.packed = buffers->packed;
    q.ldb = q.ldc = blocks->next_row * ld;
    for (ptrdiff_t block = 0; block < blocks->count; block++) {
        q.a = here->g + block * blocks->size * blocks->size;
        q.b = direct->operand + block * blocks->next_block * ld;
        q.c = direct->result + block * blocks->next_block * ld;
        rpi_product_run(buffers, &q);
    }
}

/* Each row of `operand`, an unknown of step i, times its sigma'. */
static void rpi_direct_times_slope(const rpi_direct *direct, int i, int columns) {
    const rpi_buffers *buffers = &direct->system->net->buffers;
    ptrdiff_t samples = direct->samples, units = direct->system->net->steps[i].outputs;
    if (!buffers->slope[i]) return;
    for (ptrdiff_t unit = 0; unit < units; unit++)
        for (ptrdiff_t s = 0; s < samples; s++) {
            rp_real *row = direct->operand + (unit * samples + s) * direct->ld;
            buffers->kernels->blend(columns, rpi_direct_slope(direct, i, unit)[s], row, NULL, 0, row);
        }
}

/* result_(i,s) = sum_j W_ij operand_(j,s), n columns */
static void rpi_direct_times_weights(const rpi_direct *direct, int i, int n) {
    const rp_net *net = direct->system->net;
    const rpi_step *step = &net->steps[i];
    ptrdiff_t samples = direct->samples, ld = direct->ld;
    rpi_apply_call call = rpi_apply_of(&net->buffers, step, net->parameters, n);
    call.bias = 0;
    call.ldx = call.ldy = samples * ld;
    for (ptrdiff_t s = 0; s < samples; s++) {
        call.x = direct->operand + s * ld;
        call.y = direct->result + s * ld;
        step->map->ways[RPI_BATCH].apply(&call);
    }
}

/* pairs_(s,r) = sum_j y_js operand_(j,r), a row of n columns */
static void rpi_direct_times_inputs(const rpi_direct *direct, int i, int n) {
    const rp_net *net = direct->system->net;
    ptrdiff_t samples = direct->samples, ld = direct->ld;
    rpi_product q;
    memset(&q, 0, sizeof q);
    q.m = direct->samples;
    q.n = n;
    q.k = net->steps[i].inputs;
    q.a = net->buffers.y[i];
    q.a_row = 1;
    q.a_column = net->buffers.ld;
    q.packed = net->buffers.packed;
    q.ldb = q.ldc = samples * ld;
    for (ptrdiff_t r = 0; r < samples; r++) {
        q.b = direct->operand + r * ld;
        q.c = direct->pairs + r * ld;
        rpi_product_run(&net->buffers, &q);
    }
}

/* result_(i,s) -= k sum_r d_ir pairs_(s,r), n columns */
static void rpi_direct_subtract_pairs(const rpi_direct *direct, int i, int n) {
    const rp_net *net = direct->system->net;
    const rpi_buffers *buffers = &net->buffers;
    ptrdiff_t samples = direct->samples, ld = direct->ld, outputs = net->steps[i].outputs;
    rpi_product q;
    buffers->kernels->blend(outputs * buffers->ld, -direct->k, buffers->d[i + 1], NULL, 0, direct->minus_k_d);
    memset(&q, 0, sizeof q);
    q.m = net->steps[i].outputs;
    q.n = n;
    q.k = direct->samples;
    q.a = direct->minus_k_d;
    q.a_row = buffers->ld;
    q.a_column = 1;
    q.packed = buffers->packed;
    q.add = 1;
    q.ldb = ld;
    q.ldc = samples * ld;
    for (ptrdiff_t s = 0; s < samples; s++) {
        q.b = direct->pairs + s * samples * ld;
        q.c = direct->result + s * ld;
        rpi_product_run(buffers, &q);
    }
}

/* (4): result = C_i operand, so many columns; the operand, unknowns of step i - 1, is overwritten. */
static void rpi_direct_times_c(const rpi_direct *direct, int i, int columns) {
    int n = rpi_columns(&direct->system->net->buffers, columns);
    rpi_direct_times_slope(direct, i - 1, columns);
    rpi_direct_times_weights(direct, i, n);
    if (!rpi_direct_couples(direct, i)) return;
    rpi_direct_times_inputs(direct, i, n);
    rpi_direct_subtract_pairs(direct, i, n);
}

/* (2): N of step i, to [unknowns][ld], which is 0. */
static void rpi_direct_n(const rpi_direct *direct, int i, rp_real *out, ptrdiff_t ld) {
    const rp_net *net = direct->system->net;
    const rpi_step *step = &net->steps[i];
    ptrdiff_t samples = direct->samples, units = step->outputs;
    if (!rpi_trains(net, step)) return;
    rpi_direct_gram(direct, net->buffers.y[i], step->inputs, (rp_real)step->bias);
    for (ptrdiff_t unit = 0; unit < units; unit++)
        for (ptrdiff_t s = 0; s < samples; s++)
            rpi_copy(out + (unit * samples + s) * ld + unit * samples, direct->pairs + s * samples, samples);
}

/* (5), upper rows: A - B G and, below the top, B C'. */
static void rpi_direct_upper(const rpi_direct *direct, int i) {
    const rpi_buffers *buffers = &direct->system->net->buffers;
    const rpi_kernels *kernels = buffers->kernels;
    const rpi_direct_step *here = &direct->steps[i];
    ptrdiff_t ld = direct->ld, out_ld = here->lu.ld;
    int m = here->unknowns, above = here->above;
    rp_real *out = here->lu.a;
    /* B', then the transposed of G B' and C B' */
    kernels->transpose(here->equations + m, here->ld, m, m, direct->operand, ld, rpi_columns(buffers, m));
    rpi_direct_times_g(direct, i, m, ld);
    kernels->transpose(direct->result, ld, m, m, out, out_ld, m);
    for (int row = 0; row < m; row++)
        kernels->blend(m, 1, here->equations + row * here->ld, NULL, -1, out + row * out_ld);
    if (!above) return;
    rpi_direct_times_c(direct, i + 1, m);
    kernels->transpose(direct->result, ld, above, m, out + m + above, out_ld, above);
}

/* (5), lower rows: -C, I and N of the step above. */
static void rpi_direct_lower(const rpi_direct *direct, int i) {
    const rpi_kernels *kernels = direct->system->net->buffers.kernels;
    const rpi_direct_step *here = &direct->steps[i];
    ptrdiff_t m = here->unknowns, ld = direct->ld, out_ld = here->lu.ld;
    rp_real *out = rpi_lu_row(&here->lu, here->unknowns);
    rpi_fill_rows(here->unknowns, (int)ld, ld, NULL, direct->operand);
    for (ptrdiff_t j = 0; j < m; j++) direct->operand[j * ld + j] = 1;
    rpi_direct_times_c(direct, i + 1, here->unknowns);
    for (ptrdiff_t row = 0; row < here->above; row++) {
        kernels->blend(m, -1, direct->result + row * ld, NULL, 0, out + row * out_ld);
        out[row * out_ld + m + row] = 1;
    }
    rpi_direct_n(direct, i + 1, out + m + here->above, out_ld);
}

/* A = I, B = N */
static void rpi_direct_begin(rpi_direct *direct) {
    rpi_direct_step *first = &direct->steps[0];
    ptrdiff_t ld = 2 * direct->ld;
    first->equations = direct->first;
    first->ld = ld;
    rpi_fill_rows(first->unknowns, (int)ld, ld, NULL, direct->first);
    for (ptrdiff_t j = 0; j < first->unknowns; j++) direct->first[j * ld + j] = 1;
    rpi_direct_n(direct, 0, direct->first + first->unknowns, ld);
}

/* The matrices of all steps, eliminated; 0: one is singular to working precision. */
static int rpi_direct_factor(rpi_direct *direct) {
    const rp_net *net = direct->system->net;
    rpi_direct_begin(direct);
    for (int i = 0; i < net->step_count; i++) {
        rpi_direct_step *here = &direct->steps[i];
        rpi_direct_g(direct, i);
        rpi_fill_rows(here->lu.rows, (int)here->lu.ld, here->lu.ld, NULL, here->lu.a);
        rpi_direct_upper(direct, i);
        if (here->above) rpi_direct_lower(direct, i);
        if (!rpi_lu_factor(&net->buffers, &here->lu)) return 0;
        if (!here->above) continue;
        here[1].equations = rpi_lu_row(&here->lu, here->unknowns) + here->unknowns;
        here[1].ld = here->lu.ld;
    }
    return 1;
}

/* f_i = F_i y~ / damping, e_i = sigma' F_(i+1)'d / damping for a right-hand side F. */
static void rpi_direct_right_side(const rpi_direct *direct, int i, const rp_real *right) {
    const rp_net *net = direct->system->net;
    const rpi_buffers *buffers = &net->buffers;
    const rpi_step *step = &net->steps[i];
    rpi_direct_step *here = &direct->steps[i];
    ptrdiff_t samples = direct->samples;
    rp_real scale = 1 / direct->system->damping, *f_rows = buffers->r[i + 1], *e_rows = buffers->v[i + 1];
    int trained = rpi_trains(net, step), couples = rpi_direct_couples(direct, i + 1);
    int n = rpi_columns(buffers, direct->samples);
    rpi_zero(here->f, here->unknowns);
    rpi_zero(here->e, here->unknowns);
    if (trained) {
        rpi_apply_call call = rpi_apply_of(buffers, step, right, n);
        call.x = buffers->y[i];
        call.y = f_rows;
        step->map->ways[RPI_BATCH].apply(&call);
    }
    if (couples) rpi_direct_transposed(net, step + 1, right, n, buffers->d[i + 2], e_rows);
    for (ptrdiff_t unit = 0; unit < step->outputs; unit++) {
        const rp_real *slope = rpi_direct_slope(direct, i, unit);
        for (ptrdiff_t s = 0; s < samples; s++) {
            ptrdiff_t unknown = unit * samples + s, at = unit * buffers->ld + s;
            if (trained) here->f[unknown] = scale * f_rows[at];
            if (couples) here->e[unknown] = scale * slope[s] * e_rows[at];
        }
    }
}

/* (5): the right-hand side, eliminated; what is left is c of the next. */
static void rpi_direct_forward(const rpi_direct *direct, int i) {
    const rpi_buffers *buffers = &direct->system->net->buffers;
    const rpi_direct_step *here = &direct->steps[i];
    ptrdiff_t m = here->unknowns;
    for (ptrdiff_t row = 0; row < m; row++) {
        const rp_real *row_of_b = here->equations + row * here->ld + m;
        here->column[row] = here->c[row] - (rp_real)buffers->kernels->dot(m, row_of_b, here->e);
    }
    if (here->above) rpi_copy(here->column + m, here[1].f, here->above);
    rpi_lu_forward(buffers, &here->lu, here->column);
    if (here->above) rpi_copy(here[1].c, here->column + m, here->above);
}

/* z by (5), from z and r of the step above, then r = e - G z. */
static void rpi_direct_backward(const rpi_direct *direct, int i) {
    const rpi_buffers *buffers = &direct->system->net->buffers;
    const rpi_direct_step *here = &direct->steps[i];
    ptrdiff_t m = here->unknowns, above = here->above;
    if (above) {
        rpi_copy(here->column + m, here[1].z, above);
        rpi_copy(here->column + m + above, here[1].r, above);
    }
    rpi_lu_backward(buffers, &here->lu, here->column);
    rpi_copy(here->z, here->column, m);
    rpi_fill_rows(here->unknowns, RPI_LINE_REALS, RPI_LINE_REALS, NULL, direct->operand);
    for (ptrdiff_t row = 0; row < m; row++) direct->operand[row * RPI_LINE_REALS] = here->z[row];
    rpi_direct_times_g(direct, i, 1, RPI_LINE_REALS);
    for (ptrdiff_t row = 0; row < m; row++) here->r[row] = here->e[row] - direct->result[row * RPI_LINE_REALS];
}

/* The second sum of (4), transposed: sums_jr -= k sum_s y_js sum_i d_ir r_(i,s). */
static void rpi_direct_subtract_from_above(const rpi_direct *direct, int i, const rp_real *r, rp_real *sums) {
    const rpi_step *step = &direct->system->net->steps[i];
    const rpi_buffers *buffers = &direct->system->net->buffers;
    const rpi_kernels *kernels = buffers->kernels;
    ptrdiff_t samples = direct->samples, ld = buffers->ld;
    rpi_zero(direct->pairs, samples * samples);
    for (ptrdiff_t unit = 0; unit < step->outputs; unit++)
        for (ptrdiff_t s = 0; s < samples; s++)
            kernels->blend(samples, r[unit * samples + s], buffers->d[i + 1] + unit * ld, NULL, 1,
                           direct->pairs + s * samples);
    for (ptrdiff_t j = 0; j < step->inputs; j++)
        for (ptrdiff_t s = 0; s < samples; s++)
            kernels->blend(samples, -direct->k * buffers->y[i][j * ld + s], direct->pairs + s * samples, NULL, 1,
                           sums + j * ld);
}

/* (3): e_i += C_(i+1)' r_(i+1) */
static void rpi_direct_from_above(const rpi_direct *direct, int i) {
    const rp_net *net = direct->system->net;
    const rpi_buffers *buffers = &net->buffers;
    const rpi_step *above = &net->steps[i + 1];
    ptrdiff_t samples = direct->samples;
    int n = rpi_columns(buffers, direct->samples);
    const rp_real *r = direct->steps[i + 1].r;
    rp_real *r_rows = buffers->v[i + 2], *sums = buffers->v[i + 1], *e = direct->steps[i].e;
    rpi_fill_rows(above->outputs, n, buffers->ld, NULL, r_rows);
    for (ptrdiff_t unit = 0; unit < above->outputs; unit++)
        rpi_copy(r_rows + unit * buffers->ld, r + unit * samples, samples);
    rpi_direct_transposed(net, above, net->parameters, n, r_rows, sums);
    if (rpi_direct_couples(direct, i + 1)) rpi_direct_subtract_from_above(direct, i + 1, r, sums);
    for (ptrdiff_t unit = 0; unit < above->inputs; unit++) {
        const rp_real *slope = rpi_direct_slope(direct, i, unit), *sum = sums + unit * buffers->ld;
        for (ptrdiff_t s = 0; s < samples; s++) e[unit * samples + s] += slope[s] * sum[s];
    }
}

/* (1): the solution for right-hand side F = `right`, from z and r of all steps: its sum is that of a product. */
static void rpi_direct_collect(const rpi_direct *direct, const rp_real *right, rp_real *solution) {
    const rp_net *net = direct->system->net;
    const rpi_buffers *buffers = &net->buffers;
    ptrdiff_t samples = direct->samples;
    rp_real scale = 1 / direct->system->damping;
    for (int i = 0; i < net->step_count; i++)
        for (ptrdiff_t unit = 0; unit < net->steps[i].outputs; unit++) {
            const rp_real *slope = rpi_direct_slope(direct, i, unit);
            for (ptrdiff_t s = 0; s < samples; s++) {
                ptrdiff_t unknown = unit * samples + s, at = unit * buffers->ld + s;
                buffers->v[i + 1][at] = direct->steps[i].r[unknown];
                buffers->r[i + 1][at] = slope[s] * direct->steps[i].z[unknown];
            }
        }
    rpi_collect_product(net, direct->samples, direct->system->gauss_newton, solution);
    buffers->kernels->blend(net->parameter_count, scale, right, NULL, -scale, solution);
    rpi_zero_frozen(net, solution);
}

/* After rpi_direct_factor. */
static void rpi_direct_solve(const rpi_direct *direct, const rp_real *right, rp_real *solution) {
    int steps = direct->system->net->step_count;
    for (int i = 0; i < steps; i++) rpi_direct_right_side(direct, i, right);
    rpi_copy(direct->steps[0].c, direct->steps[0].f, direct->steps[0].unknowns);
    for (int i = 0; i < steps; i++) rpi_direct_forward(direct, i);
    for (int i = steps - 1; i >= 0; i--) {
        if (direct->steps[i].above) rpi_direct_from_above(direct, i);
        rpi_direct_backward(direct, i);
    }
    rpi_direct_collect(direct, right, solution);
}

/* >>solve
   rp_hessian_solve: which method, its memory, and solving again for what remains. */
typedef struct rpi_solve {
    rpi_system system;
    rp_solve_options options;
    rp_solve_report report; /* method: the row of rpi_solvers */
    rpi_block block;
    rpi_minres minres; /* each method's own; the others' are all zero */
    rpi_direct direct;
    rpi_lu dense;
    rp_real scale;   /* of the right-hand side and the solution, taken out lest a square over- or underflows */
    double relative; /* |residual| by that of the right-hand side */
    rp_real *x, *residual, *next, *next_residual;
} rpi_solve;

/* Multiply-adds, about, and numbers of matrices. */
typedef struct rpi_cost {
    double operations, numbers;
} rpi_cost;

typedef rp_status (*rpi_solve_check)(rp_net *net, const char *who, const char *name, int count);

/* A method: when it applies, what it costs, and what it does. */
typedef struct rpi_solver {
    const char *name;
    int needs_damping;
    int (*fits)(const rp_net *net); /* NULL: any net does */
    const char *nets;               /* that fit, in words */
    rpi_solve_check check_size;     /* NULL: any size does */
    rpi_cost (*cost)(const rpi_solve *solve);
    void (*lay_out)(rpi_arena *arena, rpi_solve *solve);
    rp_status (*begin)(rpi_solve *solve); /* once the derivatives are there: factors */
    rp_status (*once)(rpi_solve *solve);  /* next = the solution for the present residual */
} rpi_solver;

static rp_status rpi_fail_singular(const rpi_system *system) {
    return rpi_fail(system->net, RP_ERR_NOT_CONVERGED,
                    "%s: the matrix is singular to working precision; a larger damping may help", system->who);
}

/* A product with all samples. */
static double rpi_product_worth(const rpi_system *system) {
    const rp_net *net = system->net;
    double sum = 0;
    for (int i = 0; i < net->step_count; i++) sum += net->steps[i].map->worth(&net->steps[i]);
    return 6 * sum * system->count;
}

static rpi_cost rpi_solve_cost_iterative(const rpi_solve *solve) {
    double n = (double)solve->system.net->parameter_count, limit = solve->options.iterations;
    rpi_cost cost = {0, 0};
    cost.operations = rpi_product_worth(&solve->system) * (n < limit ? n : limit);
    return cost;
}
static void rpi_solve_lay_out_iterative(rpi_arena *arena, rpi_solve *solve) {
    rp_real *vectors[RPI_MINRES_VECTORS];
    for (int i = 0; i < RPI_MINRES_VECTORS; i++)
        vectors[i] = rpi_claim_reals(arena, solve->system.net->parameter_count);
    rpi_minres_take(&solve->minres, vectors);
}
static rp_status rpi_solve_begin_iterative(rpi_solve *solve) {
    solve->report.negative_curvature = 0;
    return RP_OK;
}
static rp_status rpi_solve_once_iterative(rpi_solve *solve) {
    rp_status status;
    solve->minres.begin = solve->relative;
    solve->minres.tolerance = (double)solve->options.tolerance * 0.95 / solve->relative;
    status = rpi_run_minres(&solve->system, &solve->minres, solve->residual, solve->next);
    solve->report.negative_curvature = solve->minres.negative;
    return status;
}

static rp_status rpi_solve_check_direct(rp_net *net, const char *who, const char *name, int count) {
    for (int i = 0; i < net->step_count; i++)
        if (net->steps[i].outputs > RPI_LARGEST / 4 / count)
            return rpi_fail(net, RP_ERR_OVERFLOW, "%s: %d samples of %d units are too many for the %s method", who,
                            count, net->steps[i].outputs, name);
    return RP_OK;
}
static rpi_cost rpi_solve_cost_direct(const rpi_solve *solve) {
    const rp_net *net = solve->system.net;
    rpi_cost cost = {0, 0};
    for (int i = 0; i < net->step_count; i++) {
        double m = (double)net->steps[i].outputs * solve->system.count;
        cost.operations += 4 * m * m * m;
        cost.numbers += 6 * m * m;
    }
    return cost;
}
static void rpi_solve_lay_out_direct(rpi_arena *arena, rpi_solve *solve) {
    rpi_lay_out_direct(&solve->system, arena, &solve->direct);
}
static rp_status rpi_solve_begin_direct(rpi_solve *solve) {
    return rpi_direct_factor(&solve->direct) ? RP_OK : rpi_fail_singular(&solve->system);
}
static rp_status rpi_solve_once_direct(rpi_solve *solve) {
    rpi_direct_solve(&solve->direct, solve->residual, solve->next);
    return RP_OK;
}

static rp_status rpi_solve_check_dense(rp_net *net, const char *who, const char *name, int count) {
    (void)count;
    if (net->parameter_count <= RPI_LARGEST) return RP_OK;
    return rpi_fail(net, RP_ERR_OVERFLOW, "%s: a matrix of %z rows is too large for the %s method", who,
                    (size_t)net->parameter_count, name);
}
static rpi_cost rpi_solve_cost_dense(const rpi_solve *solve) {
    double n = (double)solve->system.net->parameter_count;
    rpi_cost cost = {0, 0};
    cost.operations = n * rpi_product_worth(&solve->system) + n * n * n / 3;
    cost.numbers = n * n;
    return cost;
}
static void rpi_solve_lay_out_dense(rpi_arena *arena, rpi_solve *solve) {
    int n = (int)solve->system.net->parameter_count;
    rpi_lay_out_lu(arena, &solve->dense, n, n, n);
}
/* A + damping I, with ones on the diagonal where parameters are frozen. */
static rp_status rpi_solve_begin_dense(rpi_solve *solve) {
    const rpi_system *system = &solve->system;
    rp_net *net = system->net;
    rpi_lu *lu = &solve->dense;
    rp_status status;
    rpi_fill_rows(lu->rows, (int)lu->ld, lu->ld, NULL, lu->a);
    status = rpi_form_matrix(net, system->who, system->count, system->gauss_newton, lu->a, lu->ld);
    solve->report.products += lu->rows;
    if (status) return status;
    for (ptrdiff_t i = 0; i < net->parameter_count; i++) net->sums[i] = 1;
    rpi_zero_frozen(net, net->sums);
    for (ptrdiff_t i = 0; i < net->parameter_count; i++)
        lu->a[i * lu->ld + i] += net->sums[i] > 0 ? system->damping : 1;
    return rpi_lu_factor(&net->buffers, lu) ? RP_OK : rpi_fail_singular(system);
}
static rp_status rpi_solve_once_dense(rpi_solve *solve) {
    const rp_net *net = solve->system.net;
    rpi_copy(solve->next, solve->residual, net->parameter_count);
    rpi_lu_forward(&net->buffers, &solve->dense, solve->next);
    rpi_lu_backward(&net->buffers, &solve->dense, solve->next);
    return RP_OK;
}

/* In the order of rp_solve_method. */
/* clang-format off */
static const rpi_solver rpi_solvers[] = {
    {"auto", 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL}, /* one of the others is chosen for it */
    {"iterative", 0, NULL, NULL, NULL,
     rpi_solve_cost_iterative, rpi_solve_lay_out_iterative, rpi_solve_begin_iterative, rpi_solve_once_iterative},
    {"direct", 1, rpi_stack, "stacks of dense layers and activations", rpi_solve_check_direct,
     rpi_solve_cost_direct, rpi_solve_lay_out_direct, rpi_solve_begin_direct, rpi_solve_once_direct},
    {"dense", 0, NULL, NULL, rpi_solve_check_dense,
     rpi_solve_cost_dense, rpi_solve_lay_out_dense, rpi_solve_begin_dense, rpi_solve_once_dense},
};
/* clang-format on */
#define RPI_SOLVERS ((int)(sizeof rpi_solvers / sizeof *rpi_solvers))

static int rpi_solver_applies(const rpi_solver *solver, const rpi_solve *solve) {
    if (solver->needs_damping && !(solve->system.damping > 0)) return 0;
    return !solver->fits || solver->fits(solve->system.net);
}

/* The method that takes the fewest multiply-adds, among those whose matrices take at most a GiB; after iterations that
   failed, the best of the others that would take at most 100 times as long, if there is one. */
static rp_solve_method rpi_choose_method(const rpi_solve *solve, int failed) {
    rp_solve_method method = RP_SOLVE_ITERATIVE;
    double most = 1073741824.0 / sizeof(rp_real);
    double limit = rpi_solvers[method].cost(solve).operations * (failed ? 100 : 1);
    for (int i = RPI_SOLVERS - 1; i > RP_SOLVE_ITERATIVE; i--) {
        rpi_cost cost = rpi_solvers[i].cost(solve);
        if (!(cost.operations < limit) || cost.numbers > most || !rpi_solver_applies(&rpi_solvers[i], solve)) continue;
        method = (rp_solve_method)i;
        limit = cost.operations;
    }
    return method;
}

static rp_status rpi_check_solve(rp_net *net, const char *who, const rp_solve_options *options, int count) {
    const struct {
        const char *name;
        rp_real value;
    } fields[] = {{"damping", options->damping}, {"tolerance", options->tolerance}};
    const rpi_solver *solver;
    if ((int)options->method < 0 || (int)options->method >= RPI_SOLVERS)
        return rpi_fail(net, RP_ERR_VALUE, "%s: options.method is %d, which is no rp_solve_method", who,
                        (int)options->method);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (!rpi_finite(fields[i].value) || fields[i].value < 0)
            return rpi_fail(net, RP_ERR_VALUE, "%s: options.%s is %g; it must be finite and 0 or more", who,
                            fields[i].name, (double)fields[i].value);
    if (options->tolerance >= 1)
        return rpi_fail(net, RP_ERR_VALUE, "%s: options.tolerance is %g; it must be below 1, which x = 0 attains", who,
                        (double)options->tolerance);
    if (options->iterations < 0)
        return rpi_fail(net, RP_ERR_VALUE, "%s: options.iterations is %d; it must be 0 or more", who,
                        options->iterations);
    solver = &rpi_solvers[options->method];
    if (solver->needs_damping && !(options->damping > 0))
        return rpi_fail(net, RP_ERR_VALUE, "%s: options.damping is 0; the %s method needs it above 0", who,
                        solver->name);
    if (solver->fits && !solver->fits(net))
        return rpi_fail(net, RP_ERR_UNSUPPORTED, "%s: the %s method is for %s", who, solver->name, solver->nets);
    return solver->check_size ? solver->check_size(net, who, solver->name, count) : RP_OK;
}

static void rpi_lay_out_solve(rpi_arena *arena, void *context) {
    rpi_solve *solve = (rpi_solve *)context;
    ptrdiff_t n = solve->system.net->parameter_count;
    solve->x = rpi_claim_reals(arena, n);
    solve->residual = rpi_claim_reals(arena, n);
    solve->next = rpi_claim_reals(arena, n);
    solve->next_residual = rpi_claim_reals(arena, n);
    rpi_solvers[solve->report.method].lay_out(arena, solve);
}

/* x = 0 and its residual, the right-hand side. */
static void rpi_begin_residual(rpi_solve *solve, const rp_real *b) {
    const rp_net *net = solve->system.net;
    ptrdiff_t n = net->parameter_count;
    rpi_zero(solve->x, n);
    rpi_copy(solve->residual, b, n);
    rpi_zero_frozen(net, solve->residual);
    solve->scale = 4 * RPI_REAL_MIN;
    for (ptrdiff_t i = 0; i < n; i++) {
        rp_real size = RPI_MATH(fabs)(solve->residual[i]);
        solve->scale = size > solve->scale ? size : solve->scale;
    }
    net->buffers.kernels->blend(n, 1 / solve->scale, solve->residual, NULL, 0, solve->residual);
    solve->report.residual = rpi_norm(net, solve->residual) > 0;
}

/* RP_ERR_NOT_CONVERGED: the matrix is singular; x and its residual are there all the same. */
static rp_status rpi_begin_solve(rpi_solve *solve, const rp_data *batch, const rp_real *b) {
    rp_net *net = solve->system.net;
    const char *who = solve->system.who;
    rpi_pass pass = rpi_pass_over(net, who, batch, RPI_KEEP_CURVES);
    rp_status status = rpi_temporary(net, who, &solve->block, rpi_lay_out_solve, solve);
    if (status) return status;
    rpi_begin_residual(solve, b);
    status = rpi_expand(&pass, solve->system.gauss_newton);
    return status ? status : rpi_solvers[solve->report.method].begin(solve);
}

/* The present residual's solution added to x, if that leaves a smaller residual. *better: it does. */
static rp_status rpi_improve(rpi_solve *solve, const rp_real *b, double size, int *better) {
    const rp_net *net = solve->system.net;
    const rpi_kernels *kernels = net->buffers.kernels;
    ptrdiff_t n = net->parameter_count;
    double next;
    rp_status status = rpi_solvers[solve->report.method].once(solve);
    *better = 0;
    if (status) return status;
    kernels->blend(n, 1, solve->x, NULL, 1, solve->next);
    if (!rpi_all_finite(solve->next, n)) return RP_OK;
    if (rpi_system_times(&solve->system, solve->next, solve->next_residual)) return RP_OK; /* it overflows: no better */
    kernels->blend(n, 1 / solve->scale, b, NULL, -1, solve->next_residual);
    rpi_zero_frozen(net, solve->next_residual);
    next = rpi_norm(net, solve->next_residual) / size;
    if (!(next < solve->relative)) return RP_OK;
    rpi_swap(&solve->x, &solve->next);
    rpi_swap(&solve->residual, &solve->next_residual);
    solve->relative = next;
    *better = 1;
    return RP_OK;
}

/* Solves for the residual, and again for what remains as long as that lowers it by a tenth. */
static rp_status rpi_refine(rpi_solve *solve, const rp_real *b) {
    rp_net *net = solve->system.net;
    double size = rpi_norm(net, solve->residual);
    int more = size > 0;
    solve->relative = size > 0;
    while (more) {
        double before = solve->relative;
        rp_status status = rpi_improve(solve, b, size, &more);
        if (status) return status;
        more = more && solve->relative > (double)solve->options.tolerance && solve->relative < 0.9 * before &&
               !solve->minres.stopped && solve->minres.iterations < solve->minres.limit;
        solve->report.refinements += more;
    }
    solve->report.residual = (rp_real)solve->relative;
    return RP_OK;
}

/* By report.method, to solve->x. RP_ERR_NOT_CONVERGED: the matrix is singular, x is 0. */
static rp_status rpi_run_solve(rpi_solve *solve, const rp_data *batch, const rp_real *b) {
    rp_net *net = solve->system.net;
    rp_status status = rpi_begin_solve(solve, batch, b);
    if (!status) status = rpi_refine(solve, b);
    if (status) return status;
    net->buffers.kernels->blend(net->parameter_count, solve->scale, solve->x, NULL, 0, solve->x);
    if (rpi_all_finite(solve->x, net->parameter_count)) return RP_OK;
    return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: the solution is too large", solve->system.who);
}

/* After iterations that did not get there: another method, from `start`, a solve that has not begun. The better of both
   stays. */
static rp_status rpi_solve_otherwise(rpi_solve *solve, const rpi_solve *start, const rp_data *batch, const rp_real *b) {
    const rpi_memory *memory = &solve->system.net->memory;
    rpi_solve other = *start;
    rp_status status;
    int products = solve->system.products;
    other.report.method = rpi_choose_method(start, 1);
    if (other.report.method == RP_SOLVE_ITERATIVE) return RP_OK;
    status = rpi_run_solve(&other, batch, b);
    products += other.system.products + other.report.products;
    if (!status && other.report.residual < solve->report.residual) {
        rpi_block_free(memory, &solve->block);
        *solve = other;
    } else rpi_block_free(memory, &other.block);
    solve->system.products = products;
    solve->report.products = 0;
    return status == RP_ERR_ORDER ? status : RP_OK; /* else the iterations' solution is the better one */
}

static void rpi_start_solve(rpi_solve *solve, rp_net *net, const char *who, int count) {
    rp_solve_options *options = &solve->options;
    if (!options->iterations) options->iterations = 1000;
    if (!(options->tolerance > 0)) options->tolerance = (rp_real)(sizeof(rp_real) == 8 ? 1e-9 : 1e-4);
    solve->system.net = net;
    solve->system.who = who;
    solve->system.count = count;
    solve->system.gauss_newton = options->gauss_newton;
    solve->system.damping = options->damping;
    solve->minres.limit = options->iterations;
    solve->minres.progress = options->progress;
    solve->minres.user = options->user;
    solve->report.negative_curvature = -1;
    solve->report.method = options->method ? options->method : rpi_choose_method(solve, 0);
}

/* What is to be said of a solution. */
static rp_status rpi_judge_solve(const rpi_solve *solve) {
    rp_net *net = solve->system.net;
    const char *who = solve->system.who;
    double residual = (double)solve->report.residual, tolerance = (double)solve->options.tolerance;
    int limited = solve->minres.iterations >= solve->minres.limit;
    if (solve->minres.stopped)
        return rpi_fail(net, RP_ERR_STOPPED, "%s: options.progress asked to stop, at a residual of %g", who, residual);
    if (solve->report.residual <= solve->options.tolerance) return RP_OK;
    return rpi_fail(net, RP_ERR_NOT_CONVERGED,
                    "%s: the residual is %g of the right-hand side, above the tolerance of %g: %s", who, residual,
                    tolerance,
                    limited ? "more iterations, a larger damping or another method may help"
                            : "the damping is too small for this precision");
}

RP_API rp_status rp_hessian_solve(rp_net *net, const rp_data *batch, const rp_real *b, rp_real *x,
                                  const rp_solve_options *options, rp_solve_report *report) {
    static const char who[] = "rp_hessian_solve";
    rpi_solve solve, start;
    char error[sizeof net->error];
    rp_status status = rpi_tool(net, who, batch, "b", b, "x", x);
    memset(&solve, 0, sizeof solve);
    if (options) solve.options = *options;
    if (!status) status = rpi_check_data(net, who, batch, net->batch);
    if (!status) status = rpi_check_solve(net, who, &solve.options, batch->count);
    if (!status) status = rpi_prepare_tangents(net, who);
    if (status) return status;
    memcpy(error, net->error, sizeof error);
    rpi_start_solve(&solve, net, who, batch->count);
    start = solve;
    status = rpi_run_solve(&solve, batch, b);
    if (!status && !solve.options.method && solve.report.method == RP_SOLVE_ITERATIVE && !solve.minres.stopped &&
        solve.report.residual > solve.options.tolerance)
        status = rpi_solve_otherwise(&solve, &start, batch, b);
    if (!status || status == RP_ERR_NOT_CONVERGED) rpi_copy(x, solve.x, net->parameter_count);
    rpi_block_free(&net->memory, &solve.block);
    if (status && status != RP_ERR_NOT_CONVERGED) return status;
    solve.report.products += solve.system.products;
    if (report) *report = solve.report;
    if (!status) status = rpi_judge_solve(&solve);
    if (!status) memcpy(net->error, error, sizeof error); /* of what failed on the way and was left aside */
    return status;
}

/* >>methods */
static rp_optimizer rpi_optimizer(rp_method method, rp_real rate) {
    rp_optimizer o;
    memset(&o, 0, sizeof o);
    o.method = method;
    o.rate = rate;
    return o;
}

RP_API rp_optimizer rp_partitioning(void) {
    rp_optimizer o = rpi_optimizer(RP_PARTITIONING, 0);
    o.momentum = (rp_real)0.9;
    o.curvature_average = (rp_real)0.99;
    o.damping = 1;
    return o;
}
RP_API rp_optimizer rp_algorithm_1(rp_real rate) {
    rp_optimizer o = rpi_optimizer(RP_PARTITIONING, rate);
    o.damping = (rp_real)1e-8;
    o.rule.kind = RP_PATHS;
    o.rule.bound = RP_BOUND_JENSEN;
    o.rule.scale = RP_SCALE_ONE;
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
RP_API rp_optimizer rp_per_variable(rp_real variable_sigma) {
    rp_optimizer o = rpi_optimizer(RP_PER_VARIABLE, 1);
    o.variable_sigma = variable_sigma;
    return o;
}
RP_API rp_optimizer rp_newton(void) {
    rp_optimizer o = rpi_optimizer(RP_NEWTON, 1);
    o.lambda = 1;
    o.iterations = 50;
    o.tolerance = (rp_real)0.01;
    return o;
}

/* When a method keeps a number for each parameter between steps; the last: if its momentum or average is above 0. */
typedef enum rpi_keeps { RPI_NEVER, RPI_ALWAYS, RPI_WITH_AVERAGE } rpi_keeps;

typedef struct rpi_method {
    const char *name;
    rpi_keeps first, second;
    int curvature; /* reads the curvature array in a step from the arrays */
    int has_rule;  /* reads optimizer.rule */
    int ruled;     /* that curvature is the rule's, found together with the gradient */
    int computed;  /* the step cannot be fused with the gradient */
    int solved;    /* nor made from the arrays: Newton's */
    int diagonal;  /* its curvature is the Hessian's diagonal */
    int paced;     /* finds its own length, and keeps averages of the parameters */
} rpi_method;
static const rpi_method rpi_methods[] = {
    /* in the order of rp_method, which begins at 1; RPI_PACED */
    {"residual partitioning", RPI_WITH_AVERAGE, RPI_WITH_AVERAGE, 1, 1, 1, 0, 0, 0, 0},
    {"SGD", RPI_WITH_AVERAGE, RPI_NEVER, 0, 0, 0, 0, 0, 0, 0},
    {"Adam", RPI_ALWAYS, RPI_ALWAYS, 0, 0, 0, 0, 0, 0, 0},
    {"Adagrad", RPI_ALWAYS, RPI_NEVER, 0, 0, 0, 0, 0, 0, 0},
    {"Adadelta", RPI_ALWAYS, RPI_ALWAYS, 0, 0, 0, 0, 0, 0, 0},
    {"per-variable rates", RPI_NEVER, RPI_NEVER, 1, 0, 0, 1, 0, 1, 0},
    {"Newton's method", RPI_NEVER, RPI_NEVER, 0, 1, 0, 1, 1, 0, 0},
    {"residual partitioning without a rate", RPI_WITH_AVERAGE, RPI_WITH_AVERAGE, 1, 1, 1, 0, 0, 0, 1},
};
static int rpi_method_number(const rp_optimizer *o) {
    return o->method == RP_PARTITIONING && !(o->rate > 0) ? RPI_PACED : (int)o->method;
}
static const rpi_method *rpi_method_of(const rp_optimizer *o) { return &rpi_methods[rpi_method_number(o) - 1]; }

static int rpi_keeps_first(const rp_optimizer *o) {
    rpi_keeps keeps = rpi_method_of(o)->first;
    return keeps == RPI_WITH_AVERAGE ? o->momentum > 0 : keeps == RPI_ALWAYS;
}
static int rpi_keeps_second(const rp_optimizer *o) {
    rpi_keeps keeps = rpi_method_of(o)->second;
    return keeps == RPI_WITH_AVERAGE ? o->curvature_average > 0 : keeps == RPI_ALWAYS;
}

/* One row per field: where it may lie (below: `most` itself is not allowed), and which methods read it. */
#define RPI_READS(method) (1u << (method))
#define RPI_ALL_READ (~0u)

static rp_status rpi_check_range(rp_net *net, const char *who, const char *name, rp_real value, rp_real most,
                                 int below) {
    if (rpi_finite(value) && value >= 0 && value <= most && !(below && value >= most)) return RP_OK;
    if (most > 1)
        return rpi_fail(net, RP_ERR_VALUE, "%s: optimizer.%s is %g; it must be finite and 0 or more", who, name,
                        (double)value);
    return rpi_fail(net, RP_ERR_VALUE, "%s: optimizer.%s is %g; it must be 0 or more and %s 1", who, name,
                    (double)value, below ? "below" : "at most");
}

static rp_status rpi_check_ranges(rp_net *net, const char *who, const rp_optimizer *o) {
    const unsigned averages = RPI_READS(RP_PARTITIONING) | RPI_READS(RP_SGD);
    const unsigned roots = RPI_READS(RP_ADAM) | RPI_READS(RP_ADAGRAD) | RPI_READS(RP_ADADELTA);
    const struct {
        const char *name;
        rp_real value, most;
        int below;
        unsigned readers;
    } fields[] = {
        {"rate", o->rate, RPI_REAL_MAX, 0, RPI_ALL_READ},
        {"rate_decay", o->rate_decay, RPI_REAL_MAX, 0, RPI_ALL_READ},
        {"rate_decay_steps", (rp_real)o->rate_decay_steps, RPI_REAL_MAX, 0, RPI_ALL_READ},
        {"weight_decay", o->weight_decay, RPI_REAL_MAX, 0, RPI_ALL_READ},
        {"decoupled", (rp_real)o->decoupled, 1, 0, RPI_ALL_READ},
        {"clip", o->clip, RPI_REAL_MAX, 0, RPI_ALL_READ},
        {"cubic_sigma", o->cubic_sigma, RPI_REAL_MAX, 0, RPI_ALL_READ},
        {"cubic_adaptive", (rp_real)o->cubic_adaptive, RPI_REAL_MAX, 0, RPI_ALL_READ},
        {"momentum", o->momentum, 1, 1, averages},
        {"nesterov", (rp_real)o->nesterov, RPI_REAL_MAX, 0, RPI_READS(RP_SGD)},
        {"curvature_average", o->curvature_average, 1, 1, RPI_READS(RP_PARTITIONING)},
        {"damping", o->damping, RPI_REAL_MAX, 0, RPI_READS(RP_PARTITIONING)},
        {"beta1", o->beta1, 1, 1, RPI_READS(RP_ADAM)},
        {"beta2", o->beta2, 1, 1, RPI_READS(RP_ADAM)},
        {"rho", o->rho, 1, 0, RPI_READS(RP_ADADELTA)},
        {"epsilon", o->epsilon, RPI_REAL_MAX, 0, roots},
        {"variable_sigma", o->variable_sigma, RPI_REAL_MAX, 0, RPI_READS(RP_PER_VARIABLE)},
        {"lambda", o->lambda, RPI_REAL_MAX, 0, RPI_READS(RP_NEWTON)},
        {"full_hessian", (rp_real)o->full_hessian, RPI_REAL_MAX, 0, RPI_READS(RP_NEWTON)},
        {"iterations", (rp_real)o->iterations, RPI_REAL_MAX, 0, RPI_READS(RP_NEWTON)},
        {"tolerance", o->tolerance, 1, 1, RPI_READS(RP_NEWTON)},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        rp_status status = rpi_check_range(net, who, fields[i].name, fields[i].value, fields[i].most, fields[i].below);
        if (status) return status;
        if (fields[i].value > 0 && !(fields[i].readers & RPI_READS(o->method)))
            return rpi_fail(net, RP_ERR_VALUE,
                            "%s: optimizer.%s is %g; the method %s does not read it, so it must be 0", who,
                            fields[i].name, (double)fields[i].value, rpi_method_of(o)->name);
    }
    return RP_OK;
}

static rp_status rpi_check_above_0(rp_net *net, const char *who, const char *name, rp_real value, const char *method) {
    if (value > 0) return RP_OK;
    return rpi_fail(net, RP_ERR_VALUE, "%s: optimizer.%s is %g; with %s it must be above 0", who, name, (double)value,
                    method);
}

/* Without a rate there is nothing that it could be multiplied by. */
static rp_status rpi_check_paced(rp_net *net, const char *who, const rp_optimizer *o) {
    const struct {
        const char *name;
        double value;
    } fields[] = {
        {"rate_decay", (double)o->rate_decay},
        {"decoupled", (double)o->decoupled},
        {"cubic_sigma", (double)o->cubic_sigma},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].value > 0)
            return rpi_fail(net, RP_ERR_VALUE,
                            "%s: optimizer.%s is %g; residual partitioning with a rate of 0 finds its own length, so "
                            "it must be 0, or the rate above 0",
                            who, fields[i].name, fields[i].value);
    return RP_OK;
}

/* What holds between fields. */
static rp_status rpi_check_optimizer(rp_net *net, const char *who, const rp_optimizer *o) {
    const char *method;
    rp_status status;
    if ((int)o->method < RP_PARTITIONING || o->method > RP_NEWTON)
        return rpi_fail(
            net, RP_ERR_VALUE,
            "%s: optimizer.method is %d, which is no rp_method; make an optimizer by rp_partitioning, rp_adam, ...",
            who, (int)o->method);
    method = rpi_method_of(o)->name;
    status = rpi_check_ranges(net, who, o);
    if (status) return status;
    if (o->nesterov && !(o->momentum > 0))
        return rpi_fail(net, RP_ERR_VALUE, "%s: optimizer.nesterov is %d; it needs a momentum above 0", who,
                        o->nesterov);
    if (o->cubic_adaptive && !(o->cubic_sigma > 0))
        return rpi_fail(net, RP_ERR_VALUE, "%s: optimizer.cubic_adaptive is %d; it needs optimizer.cubic_sigma above 0",
                        who, o->cubic_adaptive);
    if (o->method == RP_PER_VARIABLE) return rpi_check_above_0(net, who, "variable_sigma", o->variable_sigma, method);
    if (o->method == RP_NEWTON) {
        status = rpi_check_above_0(net, who, "lambda", o->lambda, method);
        if (!status) status = rpi_check_above_0(net, who, "iterations", (rp_real)o->iterations, method);
        if (status) return status;
        if (o->cubic_adaptive)
            return rpi_fail(net, RP_ERR_VALUE, "%s: optimizer.cubic_adaptive is %d; with %s lambda adapts instead", who,
                            o->cubic_adaptive, method);
    }
    if (rpi_method_of(o)->paced) {
        status = rpi_check_paced(net, who, o);
        if (status) return status;
    }
    if (!rpi_method_of(o)->has_rule && (o->rule.kind || o->rule.bound || o->rule.scale))
        return rpi_fail(net, RP_ERR_VALUE,
                        "%s: optimizer.rule is set; the method %s does not read it, so it must be all 0", who, method);
    return rpi_check_rule(net, who, "optimizer.", &o->rule);
}

typedef struct rpi_state {
    const rp_net *net;
    const rp_optimizer *optimizer;
    rp_real *first, *second, *averages, *spreads, *krylov;
} rpi_state;

static void rpi_lay_out_state(rpi_arena *arena, void *context) {
    rpi_state *state = (rpi_state *)context;
    const rpi_method *method = rpi_method_of(state->optimizer);
    ptrdiff_t n = state->net->parameter_count;
    if (rpi_keeps_first(state->optimizer)) state->first = rpi_claim_reals(arena, n);
    if (rpi_keeps_second(state->optimizer)) state->second = rpi_claim_reals(arena, n);
    if (method->paced) state->averages = rpi_claim_reals(arena, n);
    if (method->paced) state->spreads = rpi_claim_reals(arena, state->net->layer_count);
    if (method->solved) state->krylov = rpi_claim_rows(arena, RPI_MINRES_VECTORS, n);
}

/* What adapts begins where the optimizer says. */
static void rpi_prepare_sigma(rp_net *net, const rp_optimizer *o) {
    rp_real from = rpi_method_of(o)->solved ? o->lambda : o->cubic_sigma;
    if (from == net->sigma_from) return;
    net->sigma = from;
    net->sigma_from = from;
}

/* New state for this optimizer, all zero; the earlier one stays if there is no memory. */
static rp_status rpi_new_state(rp_net *net, const char *who, const rp_optimizer *o) {
    rpi_block block = {NULL, NULL, 0};
    rpi_state state;
    size_t size = 0;
    rp_status status = RP_OK;
    memset(&state, 0, sizeof state);
    state.net = net;
    state.optimizer = o;
    if (rpi_keeps_first(o) || rpi_keeps_second(o) || rpi_method_of(o)->solved || rpi_method_of(o)->paced)
        status = rpi_lay_out(&net->memory, &block, rpi_lay_out_state, &state, &size);
    if (status) return rpi_fail(net, RP_ERR_MEMORY, "%s: no memory for %z bytes of optimizer state", who, size);
    if (state.first) rpi_zero(state.first, net->parameter_count);
    if (state.second) rpi_zero(state.second, net->parameter_count);
    if (state.averages) rpi_copy(state.averages, net->parameters, net->parameter_count);
    if (state.spreads) rpi_zero(state.spreads, net->layer_count);
    rpi_block_free(&net->memory, &net->state);
    net->first = state.first;
    net->second = state.second;
    net->averages = state.averages;
    net->spreads = state.spreads;
    net->averaged = net->folded = 0;
    memset(&net->pace, 0, sizeof net->pace);
    net->krylov = state.krylov;
    net->state = block;
    net->method = rpi_method_number(o);
    net->time = 0;
    net->sigma_from = 0;
    return RP_OK;
}

static int rpi_has_state(const rp_net *net, const rp_optimizer *o) {
    int same = net->method == rpi_method_number(o);
    return same && !net->first == !rpi_keeps_first(o) && !net->second == !rpi_keeps_second(o);
}

/* An optimizer whose state has these arrays. */
static rp_optimizer rpi_optimizer_like(int method, int first, int second) {
    rp_optimizer like;
    memset(&like, 0, sizeof like);
    like.method = method == RPI_PACED ? RP_PARTITIONING : (rp_method)method;
    like.rate = method != RPI_PACED;
    like.momentum = first ? (rp_real)0.5 : 0; /* any value above 0 */
    like.curvature_average = second ? (rp_real)0.5 : 0;
    return like;
}

static void rpi_forget_state(rp_net *net) {
    rpi_block_free(&net->memory, &net->state);
    net->first = net->second = net->averages = net->spreads = net->krylov = NULL;
    net->averaged = net->folded = 0;
    memset(&net->pace, 0, sizeof net->pace);
    net->method = 0;
    net->time = 0;
    net->sigma_from = 0;
}

/* What there is begins anew. */
static void rpi_restart_state(rp_net *net) {
    if (net->first) rpi_zero(net->first, net->parameter_count);
    if (net->second) rpi_zero(net->second, net->parameter_count);
    if (net->averages) rpi_copy(net->averages, net->parameters, net->parameter_count);
    if (net->spreads) rpi_zero(net->spreads, net->layer_count);
    net->averaged = net->folded = 0;
    memset(&net->pace, 0, sizeof net->pace);
    net->time = 0;
    net->sigma_from = 0;
    net->stepped = 0;
}

static rp_status rpi_prepare(rp_net *net, const char *who, const rp_optimizer *o) {
    rp_status status = rpi_needs(net, who, "optimizer", o);
    if (!status) status = rpi_check_optimizer(net, who, o);
    if (!status && rpi_method_of(o)->computed) status = rpi_prepare_tangents(net, who);
    if (!status && rpi_method_of(o)->diagonal) status = rpi_prepare_recursion(net, who);
    if (status) return status;
    if (!rpi_has_state(net, o)) status = rpi_new_state(net, who, o);
    if (!status) rpi_prepare_sigma(net, o);
    return status;
}

RP_API rp_status rp_prepare(rp_net *net, const rp_optimizer *optimizer) {
    rp_status status = rpi_trainable(net, "rp_prepare");
    return status ? status : rpi_prepare(net, "rp_prepare", optimizer);
}

static double rpi_rate(const rp_net *net, const rp_optimizer *o) {
    double steps = o->rate_decay_steps ? o->rate_decay_steps : 1;
    double decay = o->rate_decay > 0 ? pow((double)o->rate_decay, (double)net->time / steps) : 1;
    return (double)o->rate * decay;
}

/* How much the present parameters count in their average over the steps (Shamir and Zhang, Stochastic Gradient Descent
   for Non-smooth Optimization, polynomial-decay averaging with eta = 8): (eta + 1) / (t + eta + 1), t = 0, 1, ... */
static rp_real rpi_fold(const rp_net *net) { return net->folded ? 0 : (rp_real)(9 / ((double)net->time + 9)); }

/* The constants of step net->time + 1, which is then taken. Where its length is computed, decoupled weights shrink
   afterwards. */
static rpi_update rpi_next_update(rp_net *net, const rp_optimizer *o) {
    rpi_update u;
    int betas = o->method == RP_ADAM;
    double t = (double)(net->time + 1), rate = rpi_rate(net, o);
    double mean1 = (double)(betas ? o->beta1 : o->momentum), mean2 = (double)(betas ? o->beta2 : o->curvature_average);
    memset(&u, 0, sizeof u);
    u.method = rpi_method_number(o);
    u.rate = rpi_method_of(o)->paced ? 1 : (rp_real)rate;
    u.fold = rpi_fold(net);
    u.weight_decay = o->decoupled ? 0 : o->weight_decay;
    u.shrink = o->decoupled && !(o->cubic_sigma > 0) ? (rp_real)(rate * (double)o->weight_decay) : 0;
    u.momentum = o->momentum;
    u.average = o->curvature_average;
    u.damping = o->damping;
    u.beta1 = o->beta1;
    u.beta2 = o->beta2;
    u.rho = o->rho;
    u.epsilon = o->epsilon;
    u.sigma = o->variable_sigma;
    u.nesterov = o->nesterov;
    u.correct1 = (rp_real)(1 / (1 - pow(mean1, t)));
    u.correct2 = (rp_real)(1 / (1 - pow(mean2, t)));
    net->time++;
    net->folded = 0;
    return u;
}

/* >>steps */

/* One formula in two forms, of which one does not cancel (Low-Rank Structure, Equation 37): with q^2 = -2 a k, k =
   sigma norm^3, alpha = -2 a / (b + sqrt(b^2 + q^2)) = (sqrt(b^2 + q^2) - b) / k. k itself, which may overflow, is
   never formed. */
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

/* Whole arrays by kernels whose lengths are ints. */
static int rpi_some(ptrdiff_t left) { return left < RPI_LARGEST ? (int)left : RPI_LARGEST; }

/* min(1, clip / |gradient|), for the gradient array. */
static rp_real rpi_clip(const rp_net *net, const rp_optimizer *o) {
    double norm;
    if (!(o->clip > 0)) return 1;
    norm = sqrt(net->buffers.kernels->dot(net->parameter_count, net->gradient, net->gradient));
    return norm > (double)o->clip ? (rp_real)((double)o->clip / norm) : 1;
}

enum { RPI_PACE_FIRST = 20, RPI_PACE_EVERY = 8 };

/* Whether the next step reads the curvature, and without a rate finds its length. */
static int rpi_measures(const rp_net *net, const rp_optimizer *o) {
    const rpi_method *method = rpi_method_of(o);
    if (!method->paced) return method->curvature;
    if (!rpi_has_state(net, o) || !net->second || !(net->pace.length > 0)) return 1;
    for (int i = 0; i < net->layer_count; i++)
        if (net->layers[i].weight_count && !net->layers[i].frozen && !(net->spreads[i] > 0)) return 1;
    return net->time < RPI_PACE_FIRST || net->time % RPI_PACE_EVERY == 0;
}

/* For each layer the least squares fit of its curvature by the gradient's size. Where there is none, the last stays. */
static void rpi_find_spreads(rp_net *net) {
    const rpi_kernels *k = net->buffers.kernels;
    for (int i = 0; i < net->layer_count; i++) {
        const rpi_layer *layer = &net->layers[i];
        const rp_real *g = net->gradient + layer->weights, *h = net->curvature + layer->weights;
        ptrdiff_t n = layer->weight_count + layer->bias_count;
        double square = layer->frozen ? 0 : k->dot(n, g, g);
        rp_real spread = square > 0 ? (rp_real)(k->dot_sizes(n, h, g) / square) : 0;
        if (spread > 0 && rpi_finite(spread)) net->spreads[i] = spread;
    }
}

/* The arrays' part of a step: from gradient and curvature into the direction array, for all parameters that are
   trained. */
static void rpi_direction(rp_net *net, const rp_optimizer *o) {
    rp_real scale = rpi_clip(net, o);
    rp_real *curvature = rpi_measures(net, o) ? net->curvature : NULL;
    rpi_update update = rpi_next_update(net, o);
    if (curvature && net->spreads) rpi_find_spreads(net);
    rpi_zero_frozen(net, net->direction);
    for (int i = 0; i < net->layer_count; i++) {
        const rpi_layer *layer = &net->layers[i];
        ptrdiff_t end = layer->biases + layer->bias_count;
        if (layer->frozen) continue;
        for (ptrdiff_t at = layer->weights; at < end; at += RPI_LARGEST) {
            rpi_update_call call;
            call.n = rpi_some(end - at);
            call.scale = scale;
            call.scale2 = curvature || !net->spreads ? 1 : net->spreads[i] / scale;
            call.g = net->gradient + at;
            call.h = rpi_offset(curvature, at);
            call.w = net->parameters + at;
            call.first = rpi_offset(net->first, at);
            call.second = rpi_offset(net->second, at);
            call.averages = rpi_offset(net->averages, at);
            call.rows = 1;
            call.stride = call.g_row = call.h_row = 0;
            call.to = net->direction + at;
            net->buffers.kernels->update(&update, &call);
        }
    }
    net->has_direction = 1;
}

/* w += alpha step, but for what would not be finite */
static void rpi_add_step(const rp_net *net, ptrdiff_t n, rp_real alpha, const rp_real *step, rp_real *w) {
    /* move is a macro of <curses.h> */
    for (ptrdiff_t at = 0; at < n; at += RPI_LARGEST)
        (net->buffers.kernels->move)(rpi_some(n - at), alpha, step + at, w + at);
}
static void rpi_move(rp_net *net, rp_real alpha) {
    rpi_add_step(net, net->parameter_count, alpha, net->direction, net->parameters);
}

/* The arrays that a step is made from have been filled, and are finite. */
static rp_status rpi_check_arrays(rp_net *net, const char *who, const rp_optimizer *o) {
    const rpi_method *method = rpi_method_of(o);
    const int curved = rpi_measures(net, o);
    if (net->has_gradient) rpi_zero_frozen(net, net->gradient);
    if (net->has_curvature) rpi_zero_frozen(net, net->curvature);
    if (!net->has_gradient)
        return rpi_fail(net, RP_ERR_ORDER, "%s: the gradient array was never filled; call rp_backward first", who);
    if (curved && !net->has_curvature)
        return rpi_fail(net, RP_ERR_ORDER, "%s: the curvature array was never filled; call rp_backward%s first", who,
                        method->ruled ? " with a rule" : "");
    if (!rpi_all_finite(net->gradient, net->parameter_count) ||
        (curved && !rpi_all_finite(net->curvature, net->parameter_count)))
        return rpi_fail(net, RP_ERR_NOT_FINITE,
                        "%s: the gradient or curvature array is not finite; nothing was changed", who);
    return RP_OK;
}

static rp_status rpi_fail_averaged(rp_net *net, const char *who) {
    return rpi_fail(net, RP_ERR_ORDER,
                    "%s: the averages are in the place of the parameters; call rp_average(net, 0) before training",
                    who);
}

/* whole: for a step that is taken as it is. */
static rp_status rpi_checked_direction(rp_net *net, const char *who, const rp_optimizer *o, int whole) {
    rp_status status = rpi_trainable(net, who);
    if (!status) status = rpi_needs(net, who, "optimizer", o);
    if (!status) status = rpi_check_optimizer(net, who, o);
    if (status) return status;
    if (whole && o->cubic_sigma > 0)
        return rpi_fail(
            net, RP_ERR_UNSUPPORTED,
            "%s: optimizer.cubic_sigma is %g: the length of its step is computed from a batch; use rp_train, or "
            "rp_direction, rp_directional, rp_cubic_length and rp_move",
            who, (double)o->cubic_sigma);
    if (whole && rpi_method_of(o)->paced)
        return rpi_fail(net, RP_ERR_UNSUPPORTED,
                        "%s: optimizer.rate is 0: the length of its step is found from a batch; use rp_train, or "
                        "rp_direction, rp_gauss_newton_directional, rp_step_length and rp_move",
                        who);
    if (net->averaged && rpi_has_state(net, o)) return rpi_fail_averaged(net, who);
    if (rpi_method_of(o)->solved)
        return rpi_fail(
            net, RP_ERR_UNSUPPORTED,
            "%s: Newton's step needs a batch, not only arrays; use rp_train, or rp_hessian_solve and rp_move", who);
    status = rpi_check_arrays(net, who, o);
    if (!status) status = rpi_prepare(net, who, o);
    if (!status) rpi_direction(net, o);
    return status;
}

RP_API rp_status rp_direction(rp_net *net, const rp_optimizer *optimizer) {
    return rpi_checked_direction(net, "rp_direction", optimizer, 0);
}

RP_API int rp_measures(const rp_net *net, const rp_optimizer *optimizer) {
    if (!net || !optimizer || (int)optimizer->method < RP_PARTITIONING || optimizer->method > RP_NEWTON) return 0;
    return rpi_measures(net, optimizer);
}

RP_API rp_status rp_move(rp_net *net, rp_real alpha) {
    rp_status status = rpi_trainable(net, "rp_move");
    if (status) return status;
    if (!rpi_finite(alpha))
        return rpi_fail(net, RP_ERR_VALUE, "rp_move: alpha is %g; it must be finite", (double)alpha);
    if (!net->has_direction)
        return rpi_fail(net, RP_ERR_ORDER, "rp_move: the step array was never filled; call rp_direction first");
    if (net->averaged) return rpi_fail_averaged(net, "rp_move");
    rpi_zero_frozen(net, net->direction); /* frozen since rp_direction, or written by the caller */
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
    double decay;         /* weight decay in F */
    double before, size;  /* F at the beginning; |direction| */
    int kept;             /* values, sigma' and sigma'' of the beginning are still in place */
    double slope, second; /* F's derivatives along the direction */
    rp_step step;
} rpi_trial;

static double rpi_square_norm(const rp_net *net, const rp_real *x) {
    return net->buffers.kernels->dot(net->parameter_count, x, x);
}

/* What weight decay adds to the loss. */
static double rpi_decay_loss(const rpi_trial *trial) {
    return trial->decay > 0 ? trial->decay / 2 * rpi_square_norm(trial->net, trial->net->parameters) : 0;
}

/* F, or DBL_MAX where it is not finite. */
static rp_status rpi_trial_value(const rpi_trial *trial, double *value) {
    rpi_pass pass = rpi_pass_over(trial->net, trial->who, trial->batch, RPI_KEEP_NOTHING);
    rp_status status = rpi_value(&pass);
    *value = pass.loss + rpi_decay_loss(trial);
    if (status != RP_ERR_NOT_FINITE) return status;
    *value = DBL_MAX;
    return RP_OK;
}

/* Slope and curvature of F along the direction; where they are not finite the step has no length. */
static rp_status rpi_trial_derivatives(rpi_trial *trial) {
    rp_net *net = trial->net;
    rpi_pass pass = rpi_pass_over(net, trial->who, trial->batch, RPI_KEEP_CURVES);
    rp_status status = RP_OK;
    pass.count = trial->batch->count;
    if (trial->kept)
        rpi_evaluate_loss(net, &net->buffers, trial->batch, net->h, 1); /* the backward pass has used it up */
    else status = rpi_expand_forward(&pass);
    if (!status) status = rpi_directional(&pass, net->direction, &trial->slope, &trial->second);
    if (trial->decay > 0)
        trial->slope += trial->decay * net->buffers.kernels->dot(net->parameter_count, net->direction, net->parameters);
    trial->second += trial->decay * trial->size * trial->size;
    if (status && status != RP_ERR_NOT_FINITE) return status;
    if (status || !rpi_finite((rp_real)trial->slope) || !rpi_finite((rp_real)trial->second)) {
        trial->slope = 0;
        trial->second = 0;
    }
    return RP_OK;
}

/* What the quadratic model foretells as the decrease of F for a step of alpha times the direction. */
static double rpi_foretold(const rpi_trial *trial, double alpha) {
    return -alpha * (trial->slope + alpha / 2 * trial->second);
}

/* Moves by alpha, and back again if that raises F; `model` is the decrease foretold. Parameters are kept in
   net->sums. Decreases that are lost in the rounding of F count as foretold well. */
static rp_status rpi_trial_move(rpi_trial *trial, double alpha, double model) {
    rp_net *net = trial->net;
    double epsilon = sizeof(rp_real) == 8 ? DBL_EPSILON : FLT_EPSILON;
    double after, rounding = 8 * epsilon * (1 + fabs(trial->before));
    rp_status status;
    rpi_copy(net->sums, net->parameters, net->parameter_count);
    rpi_move(net, (rp_real)alpha);
    status = rpi_trial_value(trial, &after);
    trial->step.taken = !status && after <= trial->before;
    trial->step.ratio = 0;
    if (model >= 0 && after < DBL_MAX)
        trial->step.ratio = (rp_real)((trial->before - after + rounding) / (model + rounding));
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
    double alpha = rp_cubic_length(trial->slope, trial->second, trial->size, sigma);
    return rpi_finite((rp_real)alpha) ? alpha : 0;
}

/* By which a constant of the model changes: down where the model foretold well, up where it did not. */
static double rpi_trust(rp_real ratio, double good, double bad) {
    if (ratio > (rp_real)good) return 0.5;
    return ratio < (rp_real)bad ? 2 : 1;
}

/* The length that minimises the cubic model, and what then becomes of sigma (Kohler and Lucchi). */
static rp_status rpi_trial_cubic(rpi_trial *trial) {
    rp_net *net = trial->net;
    const rp_optimizer *o = trial->optimizer;
    double sigma = (double)(o->cubic_adaptive ? net->sigma : o->cubic_sigma);
    double alpha = rpi_trial_length(trial, sigma), length = alpha * trial->size;
    rp_status status = RP_OK;
    trial->step.alpha = (rp_real)alpha;
    trial->step.taken = alpha > 0;
    if (alpha > 0 && !o->cubic_adaptive) rpi_move(net, (rp_real)alpha);
    if (alpha > 0 && o->cubic_adaptive) {
        status = rpi_trial_move(trial, alpha, rpi_foretold(trial, alpha) - sigma / 6 * length * length * length);
        rpi_adapt(net, rpi_trust(trial->step.ratio, 0.9, 0.1));
    }
    trial->step.sigma = o->cubic_adaptive ? net->sigma : o->cubic_sigma;
    return status;
}

/* net->direction = -gradient / (curvature + lambda), both of F: a step of residual partitioning. */
static rp_status rpi_newton_fallback(rpi_trial *trial) {
    rp_net *net = trial->net;
    rp_real decay = (rp_real)trial->decay, scale;
    double alpha;
    rpi_pass pass = rpi_pass_over(net, trial->who, trial->batch, RPI_KEEP_SLOPES);
    rp_status status;
    pass.rule = &trial->optimizer->rule;
    status = rpi_differentiate(&pass);
    if (status == RP_ERR_NOT_FINITE) return RP_OK; /* no curvature to be had: no step */
    if (status) return status;
    rpi_fill_arrays(&pass);
    scale = rpi_clip(net, trial->optimizer);
    for (ptrdiff_t i = 0; i < net->parameter_count; i++)
        net->direction[i] =
            -(scale * net->gradient[i] + decay * net->parameters[i]) / (net->curvature[i] + decay + net->sigma);
    rpi_zero_frozen(net, net->direction);
    trial->size = rpi_norm(net, net->direction);
    trial->step.fallback = 1;
    status = rpi_trial_derivatives(trial);
    if (status || trial->slope >= 0) return status;
    alpha = trial->second > 0 ? -trial->slope / trial->second : 1;
    for (int i = 0; i < 9; i++) {
        status = rpi_trial_move(trial, alpha, rpi_foretold(trial, alpha));
        if (status || trial->step.taken) return status;
        alpha /= 2;
    }
    return RP_OK;
}

/* net->direction = p, and the model's slope and curvature along it. */
static rp_status rpi_newton_direction(rpi_trial *trial) {
    rp_net *net = trial->net;
    const rpi_kernels *k = net->buffers.kernels;
    ptrdiff_t n = net->parameter_count;
    rp_real decay = (rp_real)trial->decay;
    rpi_system system;
    rpi_minres minres;
    rp_real *vectors[RPI_MINRES_VECTORS];
    rpi_pass pass = rpi_pass_over(net, trial->who, trial->batch, RPI_KEEP_CURVES);
    rp_status status = rpi_expand(&pass, !trial->optimizer->full_hessian);
    memset(&minres, 0, sizeof minres);
    for (ptrdiff_t i = 0; i < RPI_MINRES_VECTORS; i++) vectors[i] = net->krylov + i * n;
    rpi_minres_take(&minres, vectors);
    minres.limit = trial->optimizer->iterations;
    minres.tolerance = (double)trial->optimizer->tolerance;
    minres.stop_at_negative = 1;
    system.net = net;
    system.who = trial->who;
    system.count = trial->batch->count;
    system.gauss_newton = !trial->optimizer->full_hessian;
    system.products = 0;
    system.damping = net->sigma + decay;
    k->blend(n, -rpi_clip(net, trial->optimizer), net->gradient, NULL, 0, net->spare);
    k->blend(n, -decay, net->parameters, NULL, 1, net->spare);
    rpi_zero_frozen(net, net->spare);
    if (!status) status = rpi_run_minres(&system, &minres, net->spare, net->direction);
    system.damping = decay;
    if (!status) status = rpi_system_times(&system, net->direction, minres.v);
    if (!status) trial->second = k->dot(n, net->direction, minres.v);
    k->blend(n, -1, net->gradient, NULL, 0, net->spare); /* F's own slope: not clipped */
    k->blend(n, -decay, net->parameters, NULL, 1, net->spare);
    rpi_zero_frozen(net, net->spare);
    trial->slope = -k->dot(n, net->direction, net->spare);
    trial->size = rpi_norm(net, net->direction);
    trial->step.products = minres.iterations;
    if (status && status != RP_ERR_NOT_FINITE) return status;
    if (status || !rpi_finite((rp_real)trial->slope) || !rpi_finite((rp_real)trial->second)) {
        trial->slope = 0; /* no direction: the fallback's turn */
        trial->second = 0;
    }
    return RP_OK;
}

static rp_status rpi_newton_step(rpi_trial *trial) {
    rp_net *net = trial->net;
    const rp_optimizer *o = trial->optimizer;
    const rp_step *step = &trial->step;
    rp_status status = rpi_newton_direction(trial);
    double alpha = 1;
    if (!status && o->cubic_sigma > 0) {
        status = rpi_trial_derivatives(trial);
        alpha = rpi_trial_length(trial, (double)o->cubic_sigma);
        trial->step.sigma = o->cubic_sigma;
    }
    if (!status && trial->slope < 0 && alpha > 0) status = rpi_trial_move(trial, alpha, rpi_foretold(trial, alpha));
    if (status) return status;
    if (step->taken) {
        rpi_adapt(net, rpi_trust(step->ratio, 0.75, 0.25));
        return RP_OK;
    }
    if (!(rpi_norm(net, net->spare) > 0)) return RP_OK; /* a gradient of 0 says nothing about lambda */
    rpi_adapt(net, step->ratio > (rp_real)0.75 ? 1 : 4);
    return rpi_newton_fallback(trial);
}

/* >>pace
   Residual partitioning without a rate; the formulas are at >>optimizers. The constants were measured over twenty tasks
   (bench/auto.md): none of them serves one task only. */

/* -m'd for the direction in its array. */
static double rpi_pace_slope(const rp_net *net, const rp_optimizer *o) {
    const rpi_kernels *k = net->buffers.kernels;
    ptrdiff_t n = net->parameter_count;
    if (net->first) return -k->dot(n, net->first, net->direction);
    return -(double)rpi_clip(net, o) * k->dot(n, net->gradient, net->direction) -
           (double)o->weight_decay * k->dot(n, net->parameters, net->direction);
}

static double rpi_pace_mean(double mean, double x, int first) { return first ? x : 0.9 * mean + 0.1 * x; }

/* The loss that there was to begin with. */
static double rpi_pace_from(const rpi_pace *pace) {
    return pace->zero > 0 && pace->zero < pace->first ? pace->zero : pace->first;
}

/* How much a step may raise the loss by its own curvature: for each layer a share of L that falls with the steps, and
   that is small where few samples tell the direction, and while little is gone of the loss that there was to begin
   with, as much will stay for ever: there long steps only forget. Of a first loss above that of outputs of 0 the rest
   is of the first weights' making, and its loss no progress. */
static double rpi_energy(const rp_net *net, int samples, double layers) {
    const rpi_pace *pace = &net->pace;
    double from = rpi_pace_from(pace);
    double gone = pace->loss < from ? 1 - pace->loss / from : 0;
    double share = gone * gone > 0.1 ? gone * gone : 0.1;
    return 0.06 * (layers + 1) / (1 + 20.0 / samples + (double)net->time / 200) * share * pace->loss;
}

static double rpi_range_norm(const rp_net *net, const rp_real *x, const rpi_layer *layer) {
    const rp_real *begin = x + layer->weights;
    return sqrt(net->buffers.kernels->dot(layer->weight_count + layer->bias_count, begin, begin));
}

static void rpi_pace_cap(rpi_pace *pace, double length, rp_cap cap) {
    if (!(length < pace->length)) return;
    pace->length = length;
    pace->cap = (int)cap;
}

static double rpi_trained_layers(const rp_net *net) {
    double layers = 0;
    for (int i = 0; i < net->layer_count; i++) layers += net->layers[i].weight_count > 0 && !net->layers[i].frozen;
    return layers;
}

/* No layer of weights that are all 0 would ever move. */
static void rpi_pace_layers(rp_net *net, double layers) {
    for (int i = 0; i < net->layer_count; i++) {
        const rpi_layer *layer = &net->layers[i];
        double w = rpi_range_norm(net, net->parameters, layer), d = rpi_range_norm(net, net->direction, layer);
        if (!layer->frozen && w > 0 && d > 0) rpi_pace_cap(&net->pace, w / d / (layers * layers), RP_CAP_LAYER);
    }
}

/* A batch's loss above the least possible. */
static void rpi_pace_loss(rp_net *net, double loss) {
    rpi_pace *pace = &net->pace;
    int first = net->time <= 1;
    loss = loss > 0 ? loss : 0;
    if (first) pace->first = loss;
    pace->loss = rpi_pace_mean(pace->loss, loss, first);
}

/* What a measured batch would lose, above the least possible, with outputs of 0. */
static void rpi_pace_zero(rp_net *net, double loss) {
    if (!(loss > 0) || !rpi_finite_double(loss)) return;
    net->pace.zero = rpi_pace_mean(net->pace.zero, loss, !(net->pace.zero > 0));
}

/* The length, from the direction's slope D and curvature d'Gd. */
static void rpi_pace_measure(rp_net *net, int samples, double slope, double second) {
    rpi_pace *pace = &net->pace;
    double ratio = slope > 0 ? second / slope : -1, layers = rpi_trained_layers(net), largest, product;
    int first = !pace->measurements++;
    if (ratio < 0 || !rpi_finite_double(ratio)) { /* nowhere to go, or out of range */
        pace->length /= 2;
        return;
    }
    pace->curvature = rpi_pace_mean(pace->curvature, ratio, first);
    largest = ratio > pace->curvature ? ratio : pace->curvature;
    product = largest * slope;
    pace->length = DBL_MAX;
    pace->cap = RP_CAP_NONE;
    if (pace->curvature > 0) rpi_pace_cap(pace, 2.5 / pace->curvature, RP_CAP_CURVATURE);
    if (product > 0) rpi_pace_cap(pace, sqrt(2 * rpi_energy(net, samples, layers) / product), RP_CAP_ENERGY);
    rpi_pace_layers(net, layers);
    if (pace->limit > 0) {
        pace->limit *= 1.1;
        rpi_pace_cap(pace, pace->limit, RP_CAP_UNDONE);
        if (pace->limit > (double)RPI_REAL_MAX) pace->limit = 0;
    }
    if (pace->length > (double)RPI_REAL_MAX) pace->length = 0; /* nothing bounds it */
}

/* The least that the batch's loss could be, whatever the net. */
static double rpi_least_loss(const rp_net *net, const rp_data *batch) {
    const rpi_loss *loss = rpi_loss_of(net);
    double sum = 0;
    if (!loss->least_loss || !batch->targets) return 0;
    for (int s = 0; s < batch->count; s++) {
        double weight = batch->weights ? (double)batch->weights[s] : 1;
        sum += weight * loss->least_loss(net->outputs, batch->targets + (ptrdiff_t)s * net->outputs);
    }
    return sum / batch->count;
}

/* What the batch would lose with outputs of 0, which are left in the last slot. */
static double rpi_zero_loss(const rp_net *net, const rp_data *batch) {
    const rpi_buffers *b = &net->buffers;
    rpi_fill_rows(net->outputs, rpi_columns(b, batch->count), b->ld, NULL, b->y[net->slot_count - 1]);
    return rpi_evaluate_loss(net, b, batch, NULL, 0) / batch->count;
}

/* Averages and parameters of all layers that are trained change places. */
static void rpi_exchange(rp_net *net) {
    for (int i = 0; i < net->layer_count; i++) {
        const rpi_layer *layer = &net->layers[i];
        if (layer->frozen) continue;
        for (ptrdiff_t at = layer->weights; at < layer->biases + layer->bias_count; at++) {
            rp_real w = net->parameters[at];
            net->parameters[at] = net->averages[at];
            net->averages[at] = w;
        }
    }
    net->forward_count = 0;
}

/* A step after which the loss is not finite, or many times what it was (single samples differ more), is undone:
   training goes on from the averages, which it is not part of, without momentum, and with a quarter of the length. If
   the batch is no better there, nothing changes, and its status stands. */
static rp_status rpi_retreat(rpi_pass *pass, const rp_optimizer *o, rp_status status) {
    rp_net *net = pass->net;
    rpi_pace *pace = &net->pace;
    const rp_rule *rule = pass->rule;
    rpi_tally *tally = pass->tally;
    double from = rpi_pace_from(pace), worst = pace->loss > from ? pace->loss : from;
    int worse = !status && worst > 0 && pass->loss - pace->least > (5 + 50.0 / pass->count) * worst;
    if (!rpi_has_state(net, o) || !net->time || (!worse && status != RP_ERR_NOT_FINITE)) return status;
    pass->tally = NULL; /* each sample counts once */
    rpi_exchange(net);
    pass->rule = &o->rule; /* the length is to be found anew */
    pass->undone = !rpi_differentiate(pass);
    if (pass->undone) {
        rpi_copy(net->averages, net->parameters, net->parameter_count);
        if (net->first) rpi_zero(net->first, net->parameter_count);
        pace->limit = pace->length / 4;
        pace->length = 0;
        status = RP_OK;
    } else {
        rpi_exchange(net);
        pass->rule = rule;
        status = rpi_differentiate(pass);
    }
    pass->tally = tally;
    return status;
}

/* The step's length from the batch of a pass that has just filled the arrays, and the direction's slope. */
static rp_status rpi_pace_find(const rpi_pass *pass, const rp_optimizer *o, double slope) {
    rp_net *net = pass->net;
    rpi_pass along = rpi_pass_over(net, pass->who, pass->batch, RPI_KEEP_SLOPES);
    double second;
    rp_status status;
    along.count = pass->count;
    rpi_evaluate_loss(net, &net->buffers, pass->batch, net->h, 1); /* the backward pass has used it up */
    status = rpi_gauss_newton_along(&along, net->direction, &second);
    if (status && status != RP_ERR_NOT_FINITE) return status;
    if (status) second = -1;
    else second += (double)o->weight_decay * rpi_square_norm(net, net->direction);
    net->last.second = (rp_real)second;
    net->last.measured = 1;
    rpi_pace_zero(net, rpi_zero_loss(net, pass->batch) - net->pace.least);
    rpi_pace_measure(net, pass->count, slope, second);
    return RP_OK;
}

/* A step from the arrays. */
static rp_status rpi_paced_step(const rpi_pass *pass, const rp_optimizer *o, int measure) {
    rp_net *net = pass->net;
    rp_status status = RP_OK;
    double slope;
    rpi_direction(net, o);
    slope = rpi_pace_slope(net, o);
    memset(&net->last, 0, sizeof net->last);
    net->last.first = (rp_real)-slope;
    if (measure) net->pace.least = rpi_least_loss(net, pass->batch);
    rpi_pace_loss(net, pass->loss - net->pace.least);
    if (measure) status = rpi_pace_find(pass, o, slope);
    if (!status) rpi_move(net, (rp_real)net->pace.length);
    return status;
}

/* >>train
   Steps as a whole: those that are computed, those that are fused with the gradient, and averages. */

/* w -= shrink w */
static void rpi_shrink(rp_net *net, double shrink) {
    for (int i = 0; i < net->layer_count; i++) {
        const rpi_layer *layer = &net->layers[i];
        rp_real *w = net->parameters + layer->weights;
        if (!layer->frozen) rpi_add_step(net, layer->weight_count + layer->bias_count, (rp_real)-shrink, w, w);
    }
}

/* A step from the arrays, of the length that is asked for. */
static rp_status rpi_array_step(rpi_trial *trial) {
    rp_net *net = trial->net;
    rp_status status;
    rpi_direction(net, trial->optimizer);
    if (!(trial->optimizer->cubic_sigma > 0)) {
        rpi_move(net, 1);
        trial->step.taken = 1;
        trial->step.alpha = 1;
        return RP_OK;
    }
    trial->size = rpi_norm(net, net->direction);
    status = rpi_trial_derivatives(trial);
    return status ? status : rpi_trial_cubic(trial);
}

static rp_status rpi_solved_step(rpi_trial *trial) {
    rp_status status;
    trial->net->has_direction = 1;
    status = rpi_newton_step(trial);
    trial->step.lambda = trial->net->sigma;
    trial->net->time++;
    return status;
}

/* The Hessian's diagonal into the curvature array. */
static rp_status rpi_diagonal_curvature(const rpi_pass *pass) {
    rp_net *net = pass->net;
    rpi_pass exact = rpi_pass_over(net, pass->who, pass->batch, RPI_KEEP_CURVES);
    rp_status status = rpi_prepare_tangents(net, pass->who);
    if (!status) status = rpi_hessian_diagonal(&exact);
    if (status) return status;
    rpi_copy(net->curvature, net->sums, net->parameter_count);
    net->has_curvature = 1;
    return RP_OK;
}

/* A step of the methods that compute it, or its length, after a pass that has filled the arrays. */
static rp_status rpi_computed_step(const rpi_pass *pass, const rp_optimizer *o) {
    rp_net *net = pass->net;
    const rpi_method *method = rpi_method_of(o);
    double rate = rpi_rate(net, o);
    rpi_trial trial;
    rp_status status;
    memset(&trial, 0, sizeof trial);
    trial.net = net;
    trial.who = pass->who;
    trial.optimizer = o;
    trial.batch = pass->batch;
    trial.decay = o->decoupled ? 0 : (double)o->weight_decay;
    trial.kept = pass->keep == RPI_KEEP_CURVES;
    trial.before = pass->loss + rpi_decay_loss(&trial);
    status = method->solved ? rpi_solved_step(&trial) : rpi_array_step(&trial);
    if (o->decoupled && trial.step.taken && (o->cubic_sigma > 0 || method->solved))
        rpi_shrink(net, rate * (double)o->weight_decay);
    trial.step.first = (rp_real)trial.slope;
    trial.step.second = (rp_real)trial.second;
    net->last = trial.step;
    net->stepped = 1;
    return status;
}

/* The optimizer's update happens while a tile of the gradient is still in the cache. */
static void rpi_fused_step(const rpi_pass *pass, const rp_optimizer *o) {
    rp_net *net = pass->net;
    rpi_update update = rpi_next_update(net, o);
    rpi_sink sink = rpi_sink_to(net->buffers.kernels->take_step, NULL, NULL);
    if (pass->summed) sink.curvature = net->sums;
    sink.update = &update;
    sink.parameters = net->parameters;
    sink.first = net->first;
    sink.second = net->second;
    sink.averages = net->averages;
    if (update.method == RP_SGD && !sink.first && update.weight_decay == 0 && update.shrink == 0)
        sink.descent = -update.rate;
    if (rpi_method_of(o)->paced) {
        rpi_pace_loss(net, pass->loss - net->pace.least);
        update.rate = (rp_real)net->pace.length;
    }
    rpi_collect_pass(pass, &sink);
    memset(&net->last, 0, sizeof net->last);
    net->last.taken = net->stepped = 1;
    net->last.alpha = 1;
}

/* What a step without a rate adds to the account of itself. */
static void rpi_report_pace(const rpi_pass *pass) {
    rp_net *net = pass->net;
    net->last.alpha = (rp_real)net->pace.length;
    net->last.cap = (rp_cap)net->pace.cap;
    net->last.taken = net->pace.length > 0;
    net->last.undone = pass->undone;
    net->stepped = 1;
}

/* Whether the step needs the flat arrays; sets what the pass must keep for that. */
static int rpi_choose_arrays(rpi_pass *pass, const rp_optimizer *o) {
    const rpi_method *method = rpi_method_of(o);
    if (method->computed || !(o->cubic_sigma > 0))
        return method->computed || o->clip > 0;                /* the gradient's norm comes before its first use */
    if (!pass->rule || !rpi_rules[pass->rule->kind].carries_u) /* else sigma'' is overwritten by sigma'' u */
        pass->keep = RPI_KEEP_CURVES;
    return 1;
}

/* *loss, and what the batch adds to the tally, are those before the step; tally NULL: not wanted. */
static rp_status rpi_train(rp_net *net, const char *who, const rp_optimizer *o, const rp_data *batch, double *loss,
                           rpi_tally *tally) {
    rpi_pass pass = rpi_pass_over(net, who, batch, RPI_KEEP_SLOPES);
    uint64_t random = net->random;
    char error[sizeof net->error];
    int arrays, paced, measure;
    rp_status status = rpi_needs(net, who, "optimizer", o);
    if (!status) status = rpi_check_optimizer(net, who, o);
    if (status) return status;
    paced = rpi_method_of(o)->paced;
    if (net->averaged && rpi_has_state(net, o)) return rpi_fail_averaged(net, who);
    memcpy(error, net->error, sizeof error);
    pass.each = 1;
    pass.tally = tally;
    if (rpi_method_of(o)->ruled && rpi_measures(net, o)) pass.rule = &o->rule;
    arrays = rpi_choose_arrays(&pass, o);
    status = rpi_differentiate(&pass);
    if (paced) status = rpi_retreat(&pass, o, status);
    measure = paced && rpi_measures(net, o);
    if (!status && (arrays || measure)) rpi_fill_arrays(&pass);
    if (!status && rpi_method_of(o)->diagonal) status = rpi_diagonal_curvature(&pass);
    if (!status) status = rpi_prepare(net, who, o); /* last, as it may drop another optimizer's state */
    if (!status && !arrays && !measure) rpi_fused_step(&pass, o);
    else if (!status) status = paced ? rpi_paced_step(&pass, o, measure) : rpi_computed_step(&pass, o);
    if (!status && paced) rpi_report_pace(&pass);
    if (status) net->random = random;
    else memcpy(net->error, error, sizeof error); /* of what failed within a step that was then undone */
    *loss = pass.loss;
    return status;
}

RP_API rp_status rp_train(rp_net *net, const rp_optimizer *optimizer, const rp_data *batch, rp_real *loss) {
    double value;
    rp_status status = rpi_trainable(net, "rp_train");
    if (!status) status = rpi_train(net, "rp_train", optimizer, batch, &value, NULL);
    if (!status && loss) *loss = (rp_real)value;
    return status;
}

/* Of the parameters' bits: whether the caller has written to them. */
static uint64_t rpi_print(const rp_net *net) {
    uint64_t print = 0;
    for (ptrdiff_t i = 0; i < net->parameter_count; i++)
        print = (print ^ (uint64_t)rpi_bits(net->parameters[i])) * UINT64_C(0x100000001B3);
    return print;
}

/* Where there are none, nothing. */
static void rpi_use_averages(rp_net *net) {
    rp_real fold = rpi_fold(net);
    if (!net->averages || net->averaged) return;
    net->buffers.kernels->blend(net->parameter_count, fold, net->parameters, NULL, 1 - fold, net->averages);
    net->folded = 1;
    rpi_exchange(net);
    net->averages_print = rpi_print(net);
    net->averaged = 1;
}

/* What the caller wrote in the place of averages is where training goes on. */
static void rpi_use_parameters(rp_net *net) {
    if (!net->averages || !net->averaged) return;
    if (rpi_print(net) == net->averages_print) rpi_exchange(net);
    else rpi_copy(net->averages, net->parameters, net->parameter_count);
    net->averaged = 0;
}

RP_API rp_status rp_average(rp_net *net, int averages) {
    rp_status status = rpi_trainable(net, "rp_average");
    if (status) return status;
    if (averages != 0 && averages != 1)
        return rpi_fail(net, RP_ERR_VALUE, "rp_average: averages is %d; it may be 0 or 1", averages);
    if (!net->averages)
        return rpi_fail(net, RP_ERR_ORDER,
                        "rp_average: there are no averages; residual partitioning with a rate of 0 keeps them");
    if (averages) rpi_use_averages(net);
    else rpi_use_parameters(net);
    return RP_OK;
}

RP_API rp_status rp_loss_limits(rp_net *net, const rp_data *batch, rp_real *least, rp_real *at_zero) {
    static const char who[] = "rp_loss_limits";
    double low, zero;
    rp_status status = rpi_trainable(net, who);
    if (!status) status = rpi_check_data(net, who, batch, net->batch);
    if (status) return status;
    net->forward_count = 0;
    low = rpi_least_loss(net, batch);
    zero = rpi_zero_loss(net, batch);
    if (!rpi_finite((rp_real)low) || !rpi_finite((rp_real)zero))
        return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: at least the batch loses %g, and %g with outputs of 0", who, low,
                        zero);
    if (least) *least = (rp_real)low;
    if (at_zero) *at_zero = (rp_real)zero;
    return RP_OK;
}

RP_API rp_status rp_step_length(rp_net *net, const rp_optimizer *optimizer, int samples, rp_real loss, rp_real at_zero,
                                rp_real second, rp_real *alpha) {
    static const char who[] = "rp_step_length";
    rp_status status = rpi_trainable(net, who);
    if (!status) status = rpi_needs(net, who, "optimizer", optimizer);
    if (!status) status = rpi_needs(net, who, "alpha", alpha);
    if (!status) status = rpi_check_optimizer(net, who, optimizer);
    if (status) return status;
    if (!rpi_method_of(optimizer)->paced)
        return rpi_fail(net, RP_ERR_UNSUPPORTED, "%s: optimizer.rate is %g: the step has its length already", who,
                        (double)optimizer->rate);
    if (!net->has_direction || !rpi_has_state(net, optimizer))
        return rpi_fail(net, RP_ERR_ORDER, "%s: call rp_direction with this optimizer first", who);
    if (net->averaged) return rpi_fail_averaged(net, who);
    if (samples < 1) return rpi_fail(net, RP_ERR_VALUE, "%s: samples is %d; it must be 1 or more", who, samples);
    if (!rpi_finite(loss) || !rpi_finite(at_zero) || !rpi_finite(second))
        return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: loss is %g, at_zero is %g and second is %g", who, (double)loss,
                        (double)at_zero, (double)second);
    if (second < 0 && !net->pace.measurements)
        return rpi_fail(net, RP_ERR_ORDER, "%s: second is %g, and no earlier step was measured", who, (double)second);
    rpi_pace_loss(net, (double)loss);
    if (second >= 0) {
        rpi_pace_zero(net, (double)at_zero);
        rpi_pace_measure(net, samples, rpi_pace_slope(net, optimizer),
                         (double)second + (double)optimizer->weight_decay * rpi_square_norm(net, net->direction));
    }
    *alpha = (rp_real)net->pace.length;
    return RP_OK;
}

RP_API rp_status rp_last_step(rp_net *net, rp_step *step) {
    rp_status status = rpi_trainable(net, "rp_last_step");
    if (!status) status = rpi_needs(net, "rp_last_step", "step", step);
    if (!status && !net->stepped) status = rpi_fail(net, RP_ERR_ORDER, "rp_last_step: no step was taken yet");
    if (!status) *step = net->last;
    return status;
}

/* >>predict */
/* Values of the last slot: output i of sample s is y[i * output + s * sample]. */
typedef struct rpi_outputs {
    const rp_real *y;
    ptrdiff_t output, sample;
} rpi_outputs;

static rpi_outputs rpi_outputs_for(const rp_net *net, const rpi_buffers *b, const rp_real *x, int count) {
    rpi_outputs outputs;
    outputs.y = b->y[net->slot_count - 1];
    if (rpi_singly(net, b, count)) {
        rpi_buffers each = rpi_buffers_of_each(b, count);
        rpi_copy(b->y[0], x, (ptrdiff_t)count * net->inputs);
        rpi_forward(net, &each, count, RPI_KEEP_NOTHING, NULL);
        outputs.output = 1;
        outputs.sample = net->outputs;
    } else {
        rpi_load_rows(b, x, count, net->inputs, b->y[0]);
        rpi_forward(net, b, rpi_columns(b, count), RPI_KEEP_NOTHING, NULL);
        outputs.output = b->ld;
        outputs.sample = 1;
    }
    return outputs;
}

static void rpi_predict_some(const rp_net *net, const rpi_buffers *b, const rp_real *x, int count, rp_real *out) {
    rpi_outputs outputs = rpi_outputs_for(net, b, x, count);
    if (outputs.output == 1) rpi_copy(out, outputs.y, (ptrdiff_t)count * net->outputs);
    else b->kernels->transpose(outputs.y, outputs.output, net->outputs, count, out, net->outputs, net->outputs);
}

static void rpi_predict_batches(const rp_net *net, const rpi_buffers *b, const rp_real *x, int count, rp_real *out) {
    int some;
    for (int64_t at = 0; at < count; at += some) {
        const rp_real *from = x + (ptrdiff_t)at * net->inputs;
        rp_real *to = out + (ptrdiff_t)at * net->outputs;
        some = rpi_at_most(count - (int)at, b->batch);
        rpi_predict_some(net, b, from, some, to);
    }
}

static rp_status rpi_check_predict(rp_net *net, const char *who, const rp_real *x, int count, const char *name,
                                   const void *out) {
    rp_status status = rpi_built(net, who);
    if (!status) status = rpi_needs(net, who, "x", x);
    if (!status) status = rpi_needs(net, who, name, out);
    if (status) return status;
    if (count < 1) return rpi_fail(net, RP_ERR_VALUE, "%s: count is %d; it must be 1 or more", who, count);
    net->forward_count = 0;
    return RP_OK;
}

static rp_status rpi_predict(rp_net *net, const char *who, const rp_real *x, int count, rp_real *out) {
    rp_status status = rpi_check_predict(net, who, x, count, "out", out);
    if (!status) rpi_predict_batches(net, &net->buffers, x, count, out);
    return status;
}
RP_API rp_status rp_predict(rp_net *net, const rp_real *x, int count, rp_real *out) {
    return rpi_predict(net, "rp_predict", x, count, out);
}
RP_API rp_status rp_probabilities(rp_net *net, const rp_real *x, int count, rp_real *out) {
    rp_status status = rpi_predict(net, "rp_probabilities", x, count, out);
    void (*mean)(int outputs, rp_real *y);
    if (status) return status;
    mean = rpi_loss_of(net)->mean;
    if (!mean) return RP_OK;
    for (int s = 0; s < count; s++) mean(net->outputs, out + (ptrdiff_t)s * net->outputs);
    return RP_OK;
}

/* The class that a sample's outputs say: column s of y. */
static int rpi_class_of(const rp_net *net, const rp_real *y, ptrdiff_t ld) {
    int best = 0;
    if (net->outputs == 1) return y[0] > 0;
    for (int i = 1; i < net->outputs; i++)
        if (y[i * ld] > y[best * ld]) best = i;
    return best;
}

RP_API rp_status rp_classify(rp_net *net, const rp_real *x, int count, int *classes) {
    static const char who[] = "rp_classify";
    rpi_outputs outputs;
    int some;
    rp_status status = rpi_check_predict(net, who, x, count, "classes", classes);
    if (status) return status;
    if (net->outputs == 1 && rpi_loss_of(net)->classes(1) != 2)
        return rpi_fail(net, RP_ERR_UNSUPPORTED, "%s: one output and the %s decide between no classes", who,
                        rpi_loss_of(net)->name);
    for (int64_t at = 0; at < count; at += some) {
        some = rpi_at_most(count - (int)at, net->batch);
        outputs = rpi_outputs_for(net, &net->buffers, x + (ptrdiff_t)at * net->inputs, some);
        for (int s = 0; s < some; s++)
            classes[at + s] = rpi_class_of(net, outputs.y + s * outputs.sample, outputs.output);
    }
    return RP_OK;
}

struct rp_workspace {
    const rp_net *net;
    rpi_memory memory;
    rpi_block block;
    rpi_buffers buffers;
};

static void rpi_lay_out_workspace(rpi_arena *arena, void *context) {
    rp_workspace *workspace = (rp_workspace *)context;
    rpi_lay_out_prediction(workspace->net, arena, &workspace->buffers, 1);
}

RP_API rp_workspace *rp_workspace_new(const rp_net *net, int batch) {
    rp_workspace *workspace;
    if (!net || !net->built || batch < 1 || batch > RPI_LARGEST) return NULL;
    workspace = (rp_workspace *)net->memory.allocate(net->memory.user, sizeof *workspace);
    if (!workspace) return NULL;
    memset(workspace, 0, sizeof *workspace);
    workspace->net = net;
    workspace->memory = net->memory;
    workspace->buffers.kernels = net->buffers.kernels;
    workspace->buffers.batch = batch;
    workspace->buffers.ld = rpi_leading(batch);
    if (!rpi_lay_out(&workspace->memory, &workspace->block, rpi_lay_out_workspace, workspace, NULL)) return workspace;
    workspace->memory.release(workspace->memory.user, workspace);
    return NULL;
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
static void rpi_evaluate_batch(rp_net *net, const rp_data *batch, rpi_tally *tally, rp_real *losses) {
    const rpi_buffers *b = &net->buffers;
    net->forward_count = 0;
    rpi_load_inputs(net, batch->inputs, batch->count, 1);
    rpi_forward(net, net->swept, rpi_columns(b, batch->count), RPI_KEEP_NOTHING, NULL);
    rpi_part_outputs(net, b->y);
    rpi_tally_decisions(net, b, batch, tally);
    tally->loss += rpi_evaluate_loss(net, b, batch, NULL, 0);
    tally->count += batch->count;
    if (!losses) return;
    for (int s = 0; s < batch->count; s++) losses[s] = (rp_real)net->sample_loss[s];
}

/* The samples from `at` on of a data set in memory, at most `most` of them. */
static rp_data rpi_slice(const rp_net *net, const rp_data *data, int at, int most) {
    rp_data slice = *data;
    slice.count = rpi_at_most(data->count - at, most);
    slice.inputs += (ptrdiff_t)at * net->inputs;
    if (data->targets) slice.targets += (ptrdiff_t)at * net->outputs;
    if (data->labels) slice.labels += at;
    if (data->weights) slice.weights += at;
    return slice;
}

/* Batch `index` of streamed data, checked: 1, 0 at the end, or a negative status. */
static int rpi_stream(rp_net *net, const char *who, const rp_data *data, int index, rp_data *batch) {
    char what[sizeof net->error];
    int more;
    rp_status status;
    memset(batch, 0, sizeof *batch);
    more = data->fill(data->user, index, batch);
    if (more < 0) return rpi_fail(net, RP_ERR_STOPPED, "%s: data.fill returned %d for batch %d", who, more, index);
    if (!more) return 0;
    status = rpi_check_data(net, who, batch, net->batch);
    if (!status) return 1;
    memcpy(what, net->error, sizeof what);
    return rpi_fail(net, status, "%s (batch %d of data.fill)", what, index);
}

static rp_status rpi_evaluate_stream(rp_net *net, const char *who, const rp_data *data, rpi_tally *tally) {
    rp_data batch;
    for (int index = 0;; index++) {
        int more = rpi_stream(net, who, data, index, &batch);
        if (more < 0) return (rp_status)more;
        if (!more) break;
        rpi_evaluate_batch(net, &batch, tally, NULL);
    }
    return tally->count ? RP_OK : rpi_fail(net, RP_ERR_VALUE, "%s: data.fill gave no batch", who);
}

static rp_status rpi_evaluate(rp_net *net, const char *who, const rp_data *data, rp_score *score, rp_real *losses) {
    rpi_tally tally = {0, 0, 0, 0};
    rp_status status = data->fill ? RP_OK : rpi_check_data(net, who, data, INT_MAX);
    if (status) return status;
    net->forward_count = 0;
    if (data->fill) status = rpi_evaluate_stream(net, who, data, &tally);
    if (status) return status;
    if (!data->fill)
        for (int64_t at = 0; at < data->count; at += net->batch) {
            rp_data batch = rpi_slice(net, data, (int)at, net->batch);
            rpi_evaluate_batch(net, &batch, &tally, rpi_offset(losses, (ptrdiff_t)at));
        }
    score->loss = (rp_real)(tally.loss / (double)tally.count);
    score->accuracy = rpi_accuracy(&tally);
    score->count = tally.count;
    if (rpi_finite(score->loss)) return RP_OK;
    return rpi_fail(net, RP_ERR_NOT_FINITE, "%s: the loss is %g", who, tally.loss / (double)tally.count);
}

RP_API rp_status rp_evaluate(rp_net *net, const rp_data *data, rp_score *score, rp_real *losses) {
    static const char who[] = "rp_evaluate";
    rp_status status = rpi_built(net, who);
    if (!status) status = rpi_needs(net, who, "data", data);
    if (!status) status = rpi_needs(net, who, "score", score);
    if (!status && data->fill && losses)
        return rpi_fail(net, RP_ERR_UNSUPPORTED, "%s: losses of single samples are not given for streams", who);
    return status ? status : rpi_evaluate(net, who, data, score, losses);
}

/* >>epochs */
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
    rpi_tally tally; /* of this epoch */
    uint64_t order;  /* seed of its shuffling */
    rpi_block best;  /* the best parameters, for keep_best */
    int resumed;     /* steps of the first epoch that another run has done */
} rpi_fit;

/* Forgets where a loaded net was in an rp_fit. */
static void rpi_leave_place(rp_net *net) {
    rpi_block_free(&net->memory, &net->loaded_best);
    net->best = NULL;
    net->place.active = 0;
}

/* For what is saved from here on: so many epochs are done, and steps of the next. */
static void rpi_fit_mark(const rpi_fit *fit, int epoch, int step) {
    rpi_place *place = &fit->net->place;
    memset(place, 0, sizeof *place);
    place->active = 1;
    place->epoch = epoch;
    place->step = step;
    place->epochs = fit->options.epochs;
    place->batch = fit->options.batch;
    place->samples = fit->data->fill ? 0 : fit->data->count;
    place->keep_order = fit->options.keep_order != 0;
    place->report = fit->report;
    if (!step) return;
    place->order = fit->order;
    place->tally = fit->tally;
}

static rp_real *rpi_best(const rpi_fit *fit) { return (rp_real *)(void *)fit->best.base; }

/* The next batch of the epoch: 1, 0 at its end, or a negative status. Shuffled samples are gathered; others are used
   in place. */
static int rpi_next_batch(rpi_fit *fit, rp_data *batch) {
    rp_net *net = fit->net;
    int64_t at = (int64_t)fit->progress.step * fit->options.batch;
    if (fit->data->fill) return rpi_stream(net, "rp_fit", fit->data, fit->progress.step, batch);
    if (at >= fit->data->count) return 0;
    *batch = rpi_slice(net, fit->data, (int)at, fit->options.batch);
    if (fit->options.keep_order) return 1;
    for (int s = 0; s < batch->count; s++)
        rpi_copy_sample(net, fit->data, rpi_permute(fit->order, fit->data->count, (int)at + s), s);
    batch->inputs = net->staged_inputs;
    if (batch->targets) batch->targets = net->staged_targets;
    if (batch->labels) batch->labels = net->staged_labels;
    if (batch->weights) batch->weights = net->staged_weights;
    return 1;
}

static rp_status rpi_fit_step(rpi_fit *fit, const rp_data *batch) {
    rp_optimizer o = *fit->optimizer;
    double loss;
    rp_status status;
    if (fit->options.schedule) o.rate = fit->options.schedule(fit->options.user, fit->report.steps, o.rate);
    status = rpi_train(fit->net, "rp_fit", &o, batch, &loss, &fit->tally);
    if (status) return status;
    fit->tally.loss += (double)(rp_real)loss * batch->count;
    fit->tally.count += batch->count;
    fit->progress.loss = (rp_real)(fit->tally.loss / (double)fit->tally.count);
    fit->progress.accuracy = rpi_accuracy(&fit->tally);
    if (!fit->progress.step) fit->net->epochs++; /* an epoch without a step does not count */
    fit->progress.step++;
    fit->report.steps++;
    fit->progress.last = fit->report.last = fit->net->last;
    return RP_OK;
}

static int rpi_fit_progress(rpi_fit *fit) {
    if (!fit->options.progress || !fit->options.progress(fit->options.user, &fit->progress)) return 0;
    return fit->report.stopped = 2;
}

/* The validation that was just made, if it is the best, and whether it is the last. */
static void rpi_fit_keep(rpi_fit *fit) {
    rp_net *net = fit->net;
    const rp_score *score = &fit->progress.validation;
    fit->report.validation = *score;
    if (fit->report.best_epoch < 0 || score->loss < fit->report.best_loss) {
        fit->report.best_loss = score->loss;
        fit->report.best_epoch = fit->progress.epoch;
        if (fit->best.base) rpi_copy(rpi_best(fit), net->parameters, net->parameter_count);
    } else if (fit->options.patience && fit->progress.epoch - fit->report.best_epoch >= fit->options.patience)
        fit->report.stopped = 1;
}

static rp_status rpi_fit_validate(rpi_fit *fit) {
    rp_net *net = fit->net;
    rp_score *score = &fit->progress.validation;
    rp_status status;
    if (!fit->options.validation) return RP_OK;
    rpi_use_averages(net);
    status = rpi_evaluate(net, "rp_fit: validation", fit->options.validation, score, NULL);
    if (!status) rpi_fit_keep(fit);
    rpi_use_parameters(net);
    return status;
}

#ifndef RP_NO_STDIO
static rp_status rpi_save(rp_net *net, const char *who, const char *path); /* >>files */
static rp_status rpi_load(rp_net *net, const char *who, const char *path, const rpi_fit *fit);
static rp_status rpi_check_path(rp_net *net, const char *who, const char *path, int replace);
#endif

static rp_status rpi_fit_save(const rpi_fit *fit) {
#ifndef RP_NO_STDIO
    if (fit->options.checkpoint) return rpi_save(fit->net, "rp_fit: checkpoint", fit->options.checkpoint);
#endif
    (void)fit;
    return RP_OK;
}

/* The first batch of the epoch is at hand. */
static rp_status rpi_fit_begin_epoch(rpi_fit *fit) {
    fit->progress.step = fit->resumed;
    fit->progress.epoch_done = 0;
    fit->resumed = 0;
    if (!fit->progress.step) {
        memset(&fit->tally, 0, sizeof fit->tally);
        fit->order = rpi_mix(fit->options.seed + rpi_mix((uint64_t)fit->net->epochs + 1));
    }
    if (!fit->data->fill) return RP_OK;
    for (int index = 0; index < fit->progress.step; index++) {
        rp_data batch;
        int more = rpi_stream(fit->net, "rp_fit", fit->data, index, &batch);
        if (more < 0) return (rp_status)more;
        if (!more)
            return rpi_fail(fit->net, RP_ERR_VALUE,
                            "rp_fit: data.fill ended at batch %d; the net was saved behind batch %d", index,
                            fit->progress.step);
    }
    return RP_OK;
}

static rp_status rpi_fit_epoch(rpi_fit *fit) {
    rp_data batch;
    rp_status status = rpi_fit_begin_epoch(fit);
    int more;
    if (status) return status;
    for (;;) {
        int stopped, every = fit->options.checkpoint_steps;
        more = rpi_next_batch(fit, &batch);
        if (more <= 0) break;
        status = rpi_fit_step(fit, &batch);
        if (status) return status;
        rpi_fit_mark(fit, fit->progress.epoch, fit->progress.step);
        stopped = rpi_fit_progress(fit);
        if (stopped || (every && fit->report.steps % every == 0)) status = rpi_fit_save(fit);
        if (status || stopped) return status;
    }
    if (more < 0) return (rp_status)more;
    if (!fit->tally.count) return rpi_fail(fit->net, RP_ERR_VALUE, "rp_fit: data.fill gave no batch");
    fit->progress.steps = fit->progress.step;
    fit->report.epochs++;
    fit->report.loss = fit->progress.loss;
    fit->report.accuracy = fit->progress.accuracy;
    status = rpi_fit_validate(fit);
    fit->progress.epoch_done = 1;
    if (status) return status;
    rpi_fit_mark(fit, fit->progress.epoch + 1, 0);
    rpi_fit_progress(fit);
    return rpi_fit_save(fit);
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
    if (options->checkpoint_steps < 0 || (options->checkpoint_steps && !options->checkpoint))
        return rpi_fail(net, RP_ERR_VALUE,
                        "rp_fit: options.checkpoint_steps is %d; it must be 0 or more, and needs options.checkpoint",
                        options->checkpoint_steps);
#ifdef RP_NO_STDIO
    if (options->checkpoint)
        return rpi_fail(net, RP_ERR_UNSUPPORTED, "rp_fit: options.checkpoint is set, but RP_NO_STDIO is defined");
#endif
    if (options->patience < 0)
        return rpi_fail(net, RP_ERR_VALUE, "rp_fit: options.patience is %d; it must be 0 or more", options->patience);
    if ((options->patience || options->keep_best) && !validation)
        return rpi_fail(net, RP_ERR_VALUE, "rp_fit: options.%s needs options.validation",
                        options->patience ? "patience" : "keep_best");
    if (!fit->data->fill) status = rpi_check_data(net, "rp_fit", fit->data, INT_MAX);
    if (!status && validation && !validation->fill)
        status = rpi_check_data(net, "rp_fit: validation", validation, INT_MAX);
    if (!status) status = rpi_needs(net, "rp_fit", "optimizer", fit->optimizer);
    if (!status) status = rpi_check_optimizer(net, "rp_fit", fit->optimizer);
    if (!status && options->schedule && rpi_method_of(fit->optimizer)->paced)
        return rpi_fail(net, RP_ERR_VALUE, "rp_fit: options.schedule needs an optimizer with a rate; this one's is 0");
    return status;
}

/* Whether this run may go on at a place in another one, which an optimizer like that left: on as many samples, in the
   same batches and order, and from its first step on by an optimizer with the same state. */
static rp_status rpi_fit_goes_on(const rpi_fit *fit, const rpi_place *place, const rp_optimizer *like) {
    const rp_optimizer *o = fit->optimizer;
    int samples = fit->data->fill ? 0 : fit->data->count, keep_order = fit->options.keep_order != 0;
    int same = rpi_method_number(o) == rpi_method_number(like);
    const char *method = rpi_method_of(o)->name;
    if (place->batch != fit->options.batch || place->samples != samples || place->keep_order != keep_order)
        return rpi_fail(
            fit->net, RP_ERR_VALUE,
            "rp_fit: the net was saved in an rp_fit of %d samples in batches of %d, %s; here are %d in batches of "
            "%d, %s (options.anew: begin again)",
            place->samples, place->batch, place->keep_order ? "in order" : "shuffled", samples, fit->options.batch,
            keep_order ? "in order" : "shuffled");
    if (!place->report.steps) return RP_OK;
    if (!same)
        return rpi_fail(fit->net, RP_ERR_VALUE,
                        "rp_fit: the net was saved in an rp_fit by %s; this one is by %s (options.anew: begin again)",
                        rpi_method_of(like)->name, method);
    if (rpi_keeps_first(o) == rpi_keeps_first(like) && rpi_keeps_second(o) == rpi_keeps_second(like)) return RP_OK;
    return rpi_fail(fit->net, RP_ERR_VALUE,
                    "rp_fit: the net was saved in an rp_fit by %s, %s momentum and %s curvature_average; this one is "
                    "%s and %s (options.anew: begin again)",
                    method, rpi_keeps_first(like) ? "with" : "without", rpi_keeps_second(like) ? "with" : "without",
                    rpi_keeps_first(o) ? "with" : "without", rpi_keeps_second(o) ? "with" : "without");
}

/* The checkpoint, if there is one. */
static rp_status rpi_fit_load(const rpi_fit *fit) {
#ifndef RP_NO_STDIO
    const char *path = fit->options.checkpoint;
    FILE *file;
    rp_status status;
    if (!path || fit->net->fitting) return RP_OK;
    status = rpi_check_path(fit->net, "rp_fit: checkpoint", path, 1);
    if (status || fit->options.anew) return status;
    errno = 0;
    file = fopen(path, "rb");
    if (!file && errno && errno != ENOENT)
        return rpi_fail(fit->net, RP_ERR_FILE, "rp_fit: checkpoint: %s cannot be opened", path);
    if (!file) return RP_OK;
    fclose(file);
    return rpi_load(fit->net, "rp_fit: checkpoint", path, fit);
#else
    (void)fit;
    return RP_OK;
#endif
}

/* Where a loaded net was saved, if that was in the midst of a run. What patience ended goes on if there is more. */
static rp_status rpi_fit_resume(rpi_fit *fit) {
    const rp_net *net = fit->net;
    const rpi_place *place = &net->place;
    int done = place->epoch >= place->epochs || place->report.stopped == 1;
    int worse = place->epoch - 1 - place->report.best_epoch;
    rp_optimizer like;
    rp_status status;
    if (net->fitting || !place->active || fit->options.anew || (done && !fit->options.checkpoint)) return RP_OK;
    like = rpi_optimizer_like(net->method, net->first != NULL, net->second != NULL);
    status = rpi_fit_goes_on(fit, place, &like);
    if (status) return status;
    fit->report = place->report;
    fit->report.stopped = place->report.stopped == 1 && fit->options.patience && worse >= fit->options.patience;
    fit->resumed = place->step;
    fit->order = place->order;
    fit->tally = place->tally;
    fit->progress.epoch = place->epoch;
    fit->progress.validation = place->report.validation;
    if (!place->step) return RP_OK;
    fit->progress.loss = (rp_real)(fit->tally.loss / (double)fit->tally.count);
    fit->progress.accuracy = rpi_accuracy(&fit->tally);
    return RP_OK;
}

/* Memory for keep_best; a resumed run has them from the file. */
static rp_status rpi_fit_prepare_best(rpi_fit *fit) {
    rp_net *net = fit->net;
    size_t size = (size_t)net->parameter_count * sizeof(rp_real);
    int loaded = !net->fitting && net->loaded_best.base && fit->report.best_epoch >= 0;
    if (!fit->options.keep_best) return RP_OK;
    if (loaded) {
        fit->best = net->loaded_best;
        memset(&net->loaded_best, 0, sizeof net->loaded_best);
        return RP_OK;
    }
    fit->report.best_epoch = -1;
    if (rpi_block_new(&net->memory, &fit->best, size)) return RP_OK;
    return rpi_fail(net, RP_ERR_MEMORY, "rp_fit: no memory for a copy of %z parameters (options.keep_best)",
                    (size_t)net->parameter_count);
}

/* All epochs. Callbacks may run another rp_fit, which leaves this one's place as it was. */
static rp_status rpi_fit_epochs(rpi_fit *fit) {
    rp_net *net = fit->net;
    rpi_place outer = net->place;
    rp_real *outer_best = net->best;
    int nested = net->fitting;
    rp_status status = RP_OK;
    if (!nested) rpi_leave_place(net);
    net->fitting = 1;
    net->best = fit->best.base ? rpi_best(fit) : NULL;
    if (!fit->progress.epoch && !fit->resumed) { /* also to see early that the checkpoint can be written */
        rpi_fit_mark(fit, 0, 0);
        status = rpi_fit_save(fit);
    }
    while (!status && !fit->report.stopped && fit->progress.epoch < fit->options.epochs) {
        status = rpi_fit_epoch(fit);
        fit->progress.epoch++;
    }
    net->fitting = nested;
    net->best = nested ? outer_best : NULL;
    net->place = outer;
    if (!nested) net->place.active = 0;
    return status;
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
    status = rpi_fit_load(&fit);
    if (!status) status = rpi_fit_resume(&fit);
    if (!status) status = rpi_fit_prepare_best(&fit);
    if (status) return status;
    if (rpi_has_state(net, optimizer)) rpi_use_parameters(net);
    status = rpi_fit_epochs(&fit);
    if (fit.report.steps) rpi_use_averages(net);
    if (fit.best.base && fit.report.best_epoch >= 0) {
        rpi_copy(net->parameters, rpi_best(&fit), net->parameter_count);
        if (net->averaged) net->averages_print = rpi_print(net);
    }
    rpi_block_free(&net->memory, &fit.best);
    if (report) *report = fit.report;
    return status;
}

/* >>copies */

/* The same description: layers, and the loss. */
static void rpi_copy_description(rp_net *copy, const rp_net *net) {
    size_t size = (size_t)net->layer_count * sizeof *net->layers;
    if (copy->broken) return;
    copy->layers = (rpi_layer *)copy->memory.allocate(copy->memory.user, size);
    if (!copy->layers) {
        rpi_mistake(copy, RP_ERR_MEMORY, "rp_clone: no memory for %d layers", net->layer_count);
        return;
    }
    memcpy(copy->layers, net->layers, size);
    copy->layer_count = copy->layer_capacity = net->layer_count;
    copy->output = net->output;
    copy->loss = net->loss;
    copy->huber_delta = net->huber_delta;
}

/* What the optimizer remembers, and the random state. */
static rp_status rpi_copy_state(rp_net *copy, const rp_net *net) {
    rp_optimizer like;
    rp_status status = RP_OK;
    copy->random = net->random;
    copy->epochs = net->epochs;
    if (copy->config.inference_only || !net->method) return RP_OK;
    like = rpi_optimizer_like(net->method, net->first != NULL, net->second != NULL);
    if (rpi_method_of(&like)->computed) status = rpi_prepare_tangents(copy, "rp_clone");
    if (!status) status = rpi_new_state(copy, "rp_clone", &like);
    if (status) return status;
    if (net->first) rpi_copy(copy->first, net->first, net->parameter_count);
    if (net->second) rpi_copy(copy->second, net->second, net->parameter_count);
    if (net->averages) rpi_copy(copy->averages, net->averages, net->parameter_count);
    if (net->spreads) rpi_copy(copy->spreads, net->spreads, net->layer_count);
    copy->averaged = net->averaged;
    copy->folded = net->folded;
    copy->averages_print = net->averages_print;
    copy->pace = net->pace;
    copy->time = net->time;
    copy->sigma = net->sigma;
    copy->sigma_from = net->sigma_from;
    return RP_OK;
}

RP_API rp_net *rp_clone(rp_net *net, const rp_config *config, int batch) {
    rp_net *copy;
    rp_status status;
    if (rpi_built(net, "rp_clone")) return NULL;
    copy = rp_net_new(net->input, config ? config : &net->config);
    if (copy) rpi_copy_description(copy, net);
    if (copy && !copy->broken && (batch < 0 || batch > RPI_LARGEST))
        rpi_mistake(copy, RP_ERR_VALUE, "rp_clone: batch is %d; it may be 0 to %d", batch, RPI_LARGEST);
    if (copy && copy->broken != RP_ERR_MEMORY) {
        status = rp_net_build(copy, batch ? batch : net->batch, 0);
        if (!status) rpi_copy(copy->parameters, net->parameters, net->parameter_count);
        if (!status) status = rpi_copy_state(copy, net);
        if (status != RP_ERR_MEMORY) return copy;
    }
    rp_net_free(copy);
    rpi_fail(net, RP_ERR_MEMORY, "rp_clone: no memory");
    return NULL;
}

RP_API rp_status rp_reset(rp_net *net, uint64_t seed) {
    rp_status status = rpi_built(net, "rp_reset");
    if (status) return status;
    rpi_draw_parameters(net, seed);
    rpi_restart_state(net);
    net->epochs = 0;
    if (!net->fitting) rpi_leave_place(net);
    net->has_gradient = net->has_curvature = net->has_direction = 0;
    net->forward_count = 0;
    return RP_OK;
}

/* >>idx
   Two zero bytes, the type of the elements (8: unsigned byte), the number of dimensions; each dimension as four
   bytes, largest first; the elements. */
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
    bytes += at;
    if (classes) {
        for (size_t i = 0; i < count; i++)
            if (bytes[i] >= classes)
                return rpi_idx_fail(idx, RP_ERR_LABEL, "label %z is %d; it may be 0 to %d", i, (int)bytes[i],
                                    classes - 1);
        idx->labels = (int *)RP_MALLOC(count * width);
    } else {
        idx->values = (rp_real *)RP_MALLOC(count * width);
    }
    if (!idx->labels && !idx->values) return rpi_idx_fail(idx, RP_ERR_MEMORY, "no memory for %z bytes", count * width);
    for (size_t i = 0; i < count; i++)
        if (classes) idx->labels[i] = bytes[i];
        else idx->values[i] = low + (high - low) * ((rp_real)bytes[i] / 255);
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
/* The whole file behind its first *size bytes, read in growing pieces so that it need not be seekable; NULL after a
   failure. */
static unsigned char *rpi_read_stream(const rpi_memory *memory, FILE *file, const void *first, size_t *size,
                                      rp_status *status) {
    size_t capacity = 1 << 16, length = *size, got;
    unsigned char *bytes = (unsigned char *)memory->allocate(memory->user, capacity);
    if (bytes && length) memcpy(bytes, first, length);
    while (bytes && (got = fread(bytes + length, 1, capacity - length, file)) > 0) {
        unsigned char *larger;
        length += got;
        if (length < capacity) continue;
        larger = capacity > SIZE_MAX / 4 ? NULL : (unsigned char *)memory->allocate(memory->user, capacity * 2);
        if (larger) memcpy(larger, bytes, length);
        memory->release(memory->user, bytes);
        bytes = larger;
        capacity *= 2;
    }
    *status = bytes ? RP_OK : RP_ERR_MEMORY;
    if (bytes && ferror(file)) {
        *status = RP_ERR_FILE;
        memory->release(memory->user, bytes);
        bytes = NULL;
    }
    *size = length;
    return bytes;
}

static rp_status rpi_idx_file(const char *path, int classes, rp_real low, rp_real high, rp_idx *out) {
    const rpi_memory memory = {rpi_default_allocate, rpi_default_release, NULL};
    rp_status status = RP_ERR_FILE;
    unsigned char *bytes = NULL;
    size_t size = 0;
    FILE *file;
    if (!path) return rpi_idx_fail(out, RP_ERR_NULL, "path is NULL");
    file = fopen(path, "rb");
    if (!file) return rpi_idx_fail(out, RP_ERR_FILE, "%s: cannot be opened", path);
    bytes = rpi_read_stream(&memory, file, NULL, &size, &status);
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

/* >>files
   Safetensors: the length N of the header in eight bytes, smallest first; the header, N bytes of JSON: {"name":
   {"dtype": "F32", "shape": [...], "data_offsets": [begin, end]}, ..., "__metadata__": {"key": "text", ...}}; the
   tensors' bytes. Files are read by walking over the header, which is never stored in another form. Nothing in it is
   believed: lengths and counts are compared with what there is before they are used. */
enum {
    RPI_HEADER_MOST = 100000000, /* bytes: the format's own limit */
    RPI_TENSORS_MOST = 1 << 20,
    RPI_DIMENSIONS_MOST = 8,
    RPI_ENTRY_LEAST = 48, /* bytes of the shortest entry for a tensor */
    RPI_NAME = 160,
    RPI_CHUNK = 512, /* numbers that are converted at a time */
    RPI_PATH = 4096
};

/* One file on its way into a net. */
typedef struct rpi_reading {
    rp_net *net;
    const char *who, *path; /* path NULL: from memory */
    const rpi_fit *fit;     /* the run for which it is read, or NULL */
    rpi_file file;
} rpi_reading;

static rpi_reading rpi_reading_of(rp_net *net, const char *who, const char *path) {
    rpi_reading reading;
    memset(&reading, 0, sizeof reading);
    reading.net = net;
    reading.who = who;
    reading.path = path;
    return reading;
}

static rp_status rpi_refuse(const rpi_reading *reading, rp_status status, const char *format, ...) {
    char what[sizeof reading->net->error];
    const char *path = reading->path ? reading->path : "";
    size_t length = strlen(path), most = 60;
    va_list list;
    va_start(list, format);
    rpi_format_list(what, sizeof what, format, list);
    va_end(list);
    return rpi_fail(reading->net, status, "%s: %s%s%s%s", reading->who, length > most ? "..." : "",
                    length > most ? path + length - most : path, length ? ": " : "", what);
}

/* Names are compared by their characters, however they are escaped. */
static int rpi_compare_names(rpi_reader a, rpi_reader b) {
    while (a.at < a.end && b.at < b.end) {
        int a_length, b_length;
        int32_t x = rpi_peek(&a, &a_length), y = rpi_peek(&b, &b_length);
        if (x != y) return x < y ? -1 : 1;
        a.at += a_length;
        b.at += b_length;
    }
    return (a.at < a.end) - (b.at < b.end);
}
static int rpi_is_name(rpi_reader a, const char *name) { return !rpi_compare_names(a, rpi_reader_of(name)); }

/* What an error message shows of a name. */
static const char *rpi_shown(rpi_reader name, char shown[RPI_WORD]) {
    rpi_text text = {shown, RPI_WORD, 0};
    int length;
    for (; name.at < name.end && text.length < RPI_WORD - 4; name.at += length) {
        int32_t c = rpi_peek(&name, &length);
        rpi_put(&text, (char)(c >= 0x20 && c < 0x7F ? c : '?'));
    }
    if (name.at < name.end) rpi_put_string(&text, "...");
    shown[text.length] = 0;
    return shown;
}

/* A place in the header. */
typedef struct rpi_json {
    const rpi_reading *reading;
    const char *begin, *at, *end;
} rpi_json;

static rpi_json rpi_json_of(const rpi_reading *reading, size_t at) {
    rpi_json json;
    json.reading = reading;
    json.begin = (const char *)reading->file.bytes + 8;
    json.at = json.begin + at;
    json.end = json.begin + reading->file.header;
    return json;
}

static rp_status rpi_expected(const rpi_json *json, const char *what) {
    return rpi_refuse(json->reading, RP_ERR_VALUE, "byte %z of the header: %s was expected",
                      (size_t)(json->at - json->begin), what);
}

static void rpi_json_space(rpi_json *json) {
    while (json->at < json->end && (*json->at == ' ' || *json->at == '\n' || *json->at == '\t' || *json->at == '\r'))
        json->at++;
}
/* Takes the character if it comes next. */
static int rpi_json_char(rpi_json *json, char c) {
    rpi_json_space(json);
    if (json->at == json->end || *json->at != c) return 0;
    json->at++;
    return 1;
}
static rp_status rpi_json_need(rpi_json *json, char c) {
    char what[4] = {'\'', c, '\'', 0};
    return rpi_json_char(json, c) ? RP_OK : rpi_expected(json, what);
}

static rp_status rpi_json_string(rpi_json *json, rpi_reader *string) {
    rpi_reader at;
    if (!rpi_json_char(json, '"')) return rpi_expected(json, "a string");
    at.at = json->at;
    at.end = json->end;
    at.json = 1;
    *string = at;
    while (at.at < at.end && *at.at != '"') {
        int length;
        int32_t c = rpi_peek(&at, &length);
        json->at = at.at;
        if (c < 0) return rpi_expected(json, "a character of UTF-8, or an escape that JSON has,");
        at.at += length;
    }
    json->at = at.at;
    if (at.at == at.end) return rpi_expected(json, "the end of a string");
    string->end = at.at;
    json->at++;
    return RP_OK;
}

/* A whole number, at most 2^62. */
static rp_status rpi_json_number(rpi_json *json, uint64_t *number) {
    const char *begin;
    uint64_t x = 0;
    rpi_json_space(json);
    for (begin = json->at; json->at < json->end && *json->at >= '0' && *json->at <= '9'; json->at++) {
        if (x > (UINT64_C(1) << 62) / 10 - 1) return rpi_expected(json, "a smaller number");
        x = x * 10 + (uint64_t)(*json->at - '0');
    }
    if (json->at == begin || (*begin == '0' && json->at - begin > 1)) return rpi_expected(json, "a whole number");
    *number = x;
    return RP_OK;
}

/* Between the items of an object or array that has been begun: *more is 0 behind the last. */
static rp_status rpi_json_next(rpi_json *json, int first, char closing, int *more) {
    *more = 0;
    if (rpi_json_char(json, closing)) return RP_OK;
    *more = 1;
    return first ? RP_OK : rpi_json_need(json, ',');
}

/* Number formats; the first ones can be read. */
typedef struct rpi_dtype {
    const char *name;
    int size;
} rpi_dtype;
static const rpi_dtype rpi_dtypes[] = {{"F32", 4},     {"F64", 8},    {"F16", 2}, {"BF16", 2}, {"I64", 8},
                                       {"I32", 4},     {"I16", 2},    {"I8", 1},  {"U64", 8},  {"U32", 4},
                                       {"U16", 2},     {"U8", 1},     {"C64", 8}, {"BOOL", 1}, {"F8_E4M3", 1},
                                       {"F8_E5M2", 1}, {"F8_E8M0", 1}};
enum { RPI_F32, RPI_F64, RPI_F16, RPI_BF16, RPI_READABLE, RPI_DTYPES = sizeof rpi_dtypes / sizeof *rpi_dtypes };

typedef struct rpi_entry {
    rpi_reader name;
    int dtype, dimensions;
    uint64_t shape[RPI_DIMENSIONS_MOST], begin, end; /* bytes */
} rpi_entry;

static rp_status rpi_read_dtype(rpi_json *json, rpi_entry *entry) {
    char name[RPI_WORD], type[RPI_WORD];
    rpi_reader word;
    rp_status status = rpi_json_string(json, &word);
    if (status) return status;
    for (int i = 0; i < RPI_DTYPES; i++) {
        if (!rpi_is_name(word, rpi_dtypes[i].name)) continue;
        entry->dtype = i;
        return RP_OK;
    }
    return rpi_refuse(json->reading, RP_ERR_UNSUPPORTED, "the tensor %s has numbers of the type %s, which is not known",
                      rpi_shown(entry->name, name), rpi_shown(word, type));
}

static rp_status rpi_read_shape(rpi_json *json, rpi_entry *entry) {
    char name[RPI_WORD];
    int more, count = 0;
    rp_status status = rpi_json_need(json, '[');
    while (!status) {
        status = rpi_json_next(json, !count, ']', &more);
        if (status || !more) break;
        if (count == RPI_DIMENSIONS_MOST)
            return rpi_refuse(json->reading, RP_ERR_VALUE, "the tensor %s has more than %d dimensions",
                              rpi_shown(entry->name, name), RPI_DIMENSIONS_MOST);
        status = rpi_json_number(json, &entry->shape[count++]);
    }
    entry->dimensions = count;
    return status;
}

static rp_status rpi_read_offsets(rpi_json *json, rpi_entry *entry) {
    rp_status status = rpi_json_need(json, '[');
    if (!status) status = rpi_json_number(json, &entry->begin);
    if (!status) status = rpi_json_need(json, ',');
    if (!status) status = rpi_json_number(json, &entry->end);
    return status ? status : rpi_json_need(json, ']');
}

/* The bytes that shape and type need are those between the offsets, and lie within the file. */
static rp_status rpi_check_entry(const rpi_reading *reading, const rpi_entry *entry) {
    char name[RPI_WORD];
    uint64_t held = reading->file.size - 8 - reading->file.header, count = 1, size;
    rpi_shown(entry->name, name);
    for (int i = 0; i < entry->dimensions; i++) {
        if (entry->shape[i] && count > (UINT64_C(1) << 58) / entry->shape[i])
            return rpi_refuse(reading, RP_ERR_OVERFLOW, "the tensor %s has more numbers than can be addressed", name);
        count *= entry->shape[i];
    }
    size = count * (uint64_t)rpi_dtypes[entry->dtype].size;
    if (entry->begin > entry->end)
        return rpi_refuse(reading, RP_ERR_VALUE, "the tensor %s ends at %l, before it begins at %l", name,
                          (int64_t)entry->end, (int64_t)entry->begin);
    if (entry->end > held)
        return rpi_refuse(reading, RP_ERR_TRUNCATED, "the tensor %s ends at byte %l, but only %l follow the header",
                          name, (int64_t)entry->end, (int64_t)held);
    if (entry->end - entry->begin != size)
        return rpi_refuse(reading, RP_ERR_VALUE, "the tensor %s has %l bytes; its shape and type need %l", name,
                          (int64_t)(entry->end - entry->begin), (int64_t)size);
    return RP_OK;
}

/* What stands behind the name of a tensor. */
static rp_status rpi_read_entry(rpi_json *json, rpi_entry *entry) {
    static const char *const fields[] = {"dtype", "shape", "data_offsets"};
    char name[RPI_WORD];
    int seen = 0, more;
    rp_status status = rpi_json_need(json, '{');
    while (!status) {
        rpi_reader key;
        int field = 0;
        status = rpi_json_next(json, !seen, '}', &more);
        if (status || !more) break;
        status = rpi_json_string(json, &key);
        if (status) return status;
        while (field < 3 && !rpi_is_name(key, fields[field])) field++;
        if (field == 3 || (seen >> field & 1))
            return rpi_refuse(json->reading, RP_ERR_VALUE, "the tensor %s has %s", rpi_shown(entry->name, name),
                              field == 3 ? "a field that the format does not know" : "a field twice");
        seen |= 1 << field;
        status = rpi_json_need(json, ':');
        if (!status && field == 0) status = rpi_read_dtype(json, entry);
        if (!status && field == 1) status = rpi_read_shape(json, entry);
        if (!status && field == 2) status = rpi_read_offsets(json, entry);
    }
    if (!status && seen != 7)
        return rpi_refuse(json->reading, RP_ERR_VALUE, "the tensor %s lacks dtype, shape or data_offsets",
                          rpi_shown(entry->name, name));
    return status ? status : rpi_check_entry(json->reading, entry);
}

static rp_status rpi_skip_metadata(rpi_json *json) {
    rpi_reader key, value;
    int more, count = 0;
    rp_status status = rpi_json_need(json, '{');
    while (!status) {
        status = rpi_json_next(json, !count++, '}', &more);
        if (status || !more) break;
        status = rpi_json_string(json, &key);
        if (!status) status = rpi_json_need(json, ':');
        if (!status) status = rpi_json_string(json, &value);
    }
    return status;
}

/* Walks over the whole header. tensors NULL: checks and counts them; otherwise lists them. */
static rp_status rpi_walk_header(rpi_reading *reading, rpi_tensor *tensors) {
    rpi_json json = rpi_json_of(reading, 0);
    rpi_file *file = &reading->file;
    int more, metadata = 0;
    rp_status status = rpi_json_need(&json, '{');
    file->count = 0;
    file->metadata = 0;
    while (!status) {
        rpi_entry entry;
        size_t at;
        status = rpi_json_next(&json, !file->count && !metadata, '}', &more);
        if (status || !more) break;
        at = (size_t)(json.at - json.begin);
        status = rpi_json_string(&json, &entry.name);
        if (!status) status = rpi_json_need(&json, ':');
        if (status) return status;
        if (rpi_is_name(entry.name, "__metadata__")) {
            if (metadata++) return rpi_refuse(reading, RP_ERR_VALUE, "__metadata__ stands there twice");
            file->metadata = (size_t)(json.at - json.begin);
            status = rpi_skip_metadata(&json);
            continue;
        }
        if (file->count == RPI_TENSORS_MOST)
            return rpi_refuse(reading, RP_ERR_VALUE, "it has more than %d tensors", RPI_TENSORS_MOST);
        status = rpi_read_entry(&json, &entry);
        if (status) return status;
        if (tensors) {
            tensors[file->count].begin = entry.begin;
            tensors[file->count].end = entry.end;
            tensors[file->count].at = (uint32_t)at;
        }
        file->count++;
    }
    if (status) return status;
    rpi_json_space(&json);
    return json.at == json.end ? RP_OK : rpi_expected(&json, "the end");
}

/* The tensor of the list, read again. */
static rpi_entry rpi_entry_of(const rpi_reading *reading, const rpi_tensor *tensor) {
    rpi_json json = rpi_json_of(reading, tensor->at);
    rpi_entry entry;
    memset(&entry, 0, sizeof entry);
    if (!rpi_json_string(&json, &entry.name) && rpi_json_char(&json, ':')) rpi_read_entry(&json, &entry);
    return entry;
}
static rpi_reader rpi_name_of(const rpi_reading *reading, const rpi_tensor *tensor) {
    rpi_json json = rpi_json_of(reading, tensor->at);
    rpi_reader name = rpi_reader_of("");
    rpi_json_string(&json, &name);
    return name;
}

typedef int (*rpi_order)(const rpi_reading *reading, const rpi_tensor *a, const rpi_tensor *b);
static int rpi_by_place(const rpi_reading *reading, const rpi_tensor *a, const rpi_tensor *b) {
    (void)reading;
    if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
    return (a->end > b->end) - (a->end < b->end);
}
static int rpi_by_name(const rpi_reading *reading, const rpi_tensor *a, const rpi_tensor *b) {
    return rpi_compare_names(rpi_name_of(reading, a), rpi_name_of(reading, b));
}

/* Heapsort: tensor `at` sinks below larger ones. */
static void rpi_sink_tensor(const rpi_reading *reading, int at, int count, rpi_order order) {
    rpi_tensor *list = reading->file.tensors, tensor = list[at];
    for (int child = 2 * at + 1; child < count; child = 2 * at + 1) {
        if (child + 1 < count && order(reading, &list[child], &list[child + 1]) < 0) child++;
        if (order(reading, &tensor, &list[child]) >= 0) break;
        list[at] = list[child];
        at = child;
    }
    list[at] = tensor;
}
static void rpi_sort_tensors(const rpi_reading *reading, rpi_order order) {
    rpi_tensor *list = reading->file.tensors;
    int count = reading->file.count;
    for (int i = count / 2 - 1; i >= 0; i--) rpi_sink_tensor(reading, i, count, order);
    for (int end = count - 1; end > 0; end--) {
        rpi_tensor largest = list[0];
        list[0] = list[end];
        list[end] = largest;
        rpi_sink_tensor(reading, 0, end, order);
    }
}

/* The tensors follow each other from the first byte to the last; no two have one name. */
static rp_status rpi_check_tensors(rpi_reading *reading) {
    const rpi_file *file = &reading->file;
    uint64_t at = 0, held = file->size - 8 - file->header;
    char name[RPI_WORD];
    rpi_sort_tensors(reading, rpi_by_place);
    for (int i = 0; i < file->count; i++) {
        const rpi_tensor *tensor = &file->tensors[i];
        if (tensor->begin != at)
            return rpi_refuse(reading, RP_ERR_VALUE,
                              "the tensor %s begins at byte %l, but the one before it ends at %l",
                              rpi_shown(rpi_name_of(reading, tensor), name), (int64_t)tensor->begin, (int64_t)at);
        at = tensor->end;
    }
    if (at != held)
        return rpi_refuse(reading, RP_ERR_TRAILING, "%l bytes follow the header; the tensors take %l", (int64_t)held,
                          (int64_t)at);
    rpi_sort_tensors(reading, rpi_by_name);
    for (int i = 1; i < file->count; i++)
        if (!rpi_by_name(reading, &file->tensors[i - 1], &file->tensors[i]))
            return rpi_refuse(reading, RP_ERR_VALUE, "the tensor %s stands there twice",
                              rpi_shown(rpi_name_of(reading, &file->tensors[i]), name));
    return RP_OK;
}

/* NULL: there is none of that name. */
static const rpi_tensor *rpi_find_tensor(const rpi_reading *reading, const char *name) {
    const rpi_file *file = &reading->file;
    rpi_reader wanted = rpi_reader_of(name);
    int low = 0, high = file->count;
    while (low < high) {
        int middle = low + (high - low) / 2;
        int sign = rpi_compare_names(rpi_name_of(reading, &file->tensors[middle]), wanted);
        if (!sign) return &file->tensors[middle];
        if (sign < 0) low = middle + 1;
        else high = middle;
    }
    return NULL;
}

/* The header's length, from the first eight bytes of a file of `size`. */
static rp_status rpi_read_length(rpi_reading *reading, const unsigned char *bytes, size_t size) {
    uint64_t length = 0;
    if (size < 8)
        return rpi_refuse(reading, RP_ERR_TRUNCATED,
                          "%z bytes are too few for the 8 that a safetensors file begins with", size);
    for (int i = 7; i >= 0; i--) length = length << 8 | bytes[i];
    if (length < 2 || length > RPI_HEADER_MOST)
        return rpi_refuse(reading, RP_ERR_MAGIC, "not a safetensors file: its header would not have 2 to %d bytes",
                          RPI_HEADER_MOST);
    if (length > size - 8)
        return rpi_refuse(reading, RP_ERR_TRUNCATED, "the header has %l bytes, but the file only %z", (int64_t)length,
                          size);
    reading->file.header = (size_t)length;
    reading->file.size = size;
    return RP_OK;
}

/* Memory for the list of the tensors that so long a header may have, and `more` bytes behind it. */
static rp_status rpi_file_block(rpi_reading *reading, rpi_block *block, size_t more) {
    size_t list = (reading->file.header / RPI_ENTRY_LEAST + 1) * sizeof(rpi_tensor), size = list + more;
    if (size < more || size > SIZE_MAX - RPI_LINE || !rpi_block_new(&reading->net->memory, block, size))
        return rpi_refuse(reading, RP_ERR_MEMORY, "no memory for %z bytes", size);
    reading->file.tensors = (rpi_tensor *)(void *)block->base;
    reading->file.list_size = list;
    return RP_OK;
}

/* Every rule of the format, of the bytes that are there; the list of the tensors has its memory. */
static rp_status rpi_check_file(rpi_reading *reading) {
    rp_status status;
    if (reading->file.bytes[8] != '{')
        return rpi_refuse(reading, RP_ERR_MAGIC, "not a safetensors file: its header does not begin with {");
    status = rpi_walk_header(reading, NULL);
    if (!status) status = rpi_walk_header(reading, reading->file.tensors);
    return status ? status : rpi_check_tensors(reading);
}

/* Bytes of the caller's; keep: copied. */
static rp_status rpi_read_memory(rpi_reading *reading, const void *bytes, size_t size, int keep) {
    rp_status status = rpi_needs(reading->net, reading->who, "bytes", bytes);
    if (!status) status = rpi_read_length(reading, (const unsigned char *)bytes, size);
    if (!status) status = rpi_file_block(reading, &reading->file.block, keep ? size : 0);
    if (status) return status;
    reading->file.bytes = (const unsigned char *)bytes;
    if (keep) {
        char *copy = reading->file.block.base + reading->file.list_size;
        memcpy(copy, bytes, size);
        reading->file.bytes = (const unsigned char *)copy;
    }
    return rpi_check_file(reading);
}

/* How numbers stand in a file. */
static int rpi_little_endian(void) {
    const uint16_t one = 1;
    unsigned char first;
    memcpy(&first, &one, 1);
    return first;
}
static uint64_t rpi_get_bytes(const unsigned char *from, int size) {
    uint64_t bits = 0;
    for (int i = size - 1; i >= 0; i--) bits = bits << 8 | from[i];
    return bits;
}
static float rpi_float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
static float rpi_half(uint32_t half) {
    uint32_t sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31, fraction = half & 1023;
    float x;
    if (exponent == 31) return rpi_float_of(sign | 0x7F800000u | fraction << 13);
    if (exponent) return rpi_float_of(sign | (exponent + 112) << 23 | fraction << 13);
    x = (float)fraction / 16777216.0f;
    return sign ? -x : x;
}
static rp_real rpi_number_of(const unsigned char *from, int dtype) {
    uint64_t bits = rpi_get_bytes(from, rpi_dtypes[dtype].size);
    double wide;
    switch (dtype) {
    case RPI_F32: return (rp_real)rpi_float_of((uint32_t)bits);
    case RPI_F16: return (rp_real)rpi_half((uint32_t)bits);
    case RPI_BF16: return (rp_real)rpi_float_of((uint32_t)bits << 16);
    default: break;
    }
    memcpy(&wide, &bits, sizeof wide);
    return (rp_real)wide;
}

static void rpi_decode(const unsigned char *from, int dtype, ptrdiff_t count, rp_real *to) {
    ptrdiff_t size = rpi_dtypes[dtype].size;
    if (dtype == (sizeof(rp_real) == 8 ? RPI_F64 : RPI_F32) && rpi_little_endian()) {
        if (count) memcpy(to, from, (size_t)(count * size));
        return;
    }
    for (ptrdiff_t i = 0; i < count; i++) to[i] = rpi_number_of(from + i * size, dtype);
}

/* Of a whole chunk and without an early end, so that compilers take several at a time. */
static int rpi_all_finite_chunk(const rp_real x[RPI_CHUNK]) {
    rpi_int bad = 0;
    for (int i = 0; i < RPI_CHUNK; i++) bad |= (rpi_bits(x[i]) & RPI_EXPONENT) == RPI_EXPONENT;
    return !bad;
}

/* A parameter of a layer: its tensor's shape and place. Or, with layer -1, a flat array of state. */
typedef struct rpi_part {
    int layer, dimensions;
    const char *name;
    rp_real *to; /* NULL before the build */
    ptrdiff_t count, shape[4];
} rpi_part;

static rpi_part rpi_part_of(const rp_net *net, int index, const char *name, ptrdiff_t at, ptrdiff_t rows,
                            ptrdiff_t columns) {
    rpi_part part;
    memset(&part, 0, sizeof part);
    part.layer = index;
    part.name = name;
    part.to = rpi_offset(net->parameters, at);
    part.shape[0] = rows;
    part.shape[1] = columns;
    part.dimensions = columns ? 2 : 1;
    part.count = columns ? rows * columns : rows;
    return part;
}

/* The parameters of a layer, in the order of the flat arrays; how many. */
static int rpi_layer_parts(const rp_net *net, int index, rpi_part parts[3]) {
    const rpi_layer *layer = &net->layers[index];
    const rpi_geometry *g = &layer->geometry;
    ptrdiff_t at = layer->weights, units = layer->units;
    int count = 0;
    if (!layer->affine) return 0;
    if (layer->kind == RPI_RECURRENT) {
        parts[count++] = rpi_part_of(net, index, "weight_ih", at, units, layer->in.channels);
        parts[count++] = rpi_part_of(net, index, "weight_hh", at + units * layer->in.channels, units, units);
    } else parts[count++] = rpi_part_of(net, index, "weight", at, units, layer->fan_in);
    if (layer->kind == RPI_CONV2D) {
        parts[0].dimensions = 4;
        parts[0].shape[1] = g->channels;
        parts[0].shape[2] = g->kernel_height;
        parts[0].shape[3] = g->kernel_width;
    }
    if (layer->bias) parts[count++] = rpi_part_of(net, index, "bias", layer->biases, units, 0);
    return count;
}

static void rpi_put_size(rpi_text *text, int first, int64_t size) {
    if (!first) rpi_put_string(text, ", ");
    rpi_put_signed(text, size);
}
/* "weight of layer 2 (dense)", or the array's name; `shape` receives [4, 3]. */
static const char *rpi_part_text(const rp_net *net, const rpi_part *part, char name[64], char shape[96]) {
    rpi_text text = {shape, 96, 0};
    rpi_put(&text, '[');
    for (int i = 0; i < part->dimensions; i++) rpi_put_size(&text, !i, part->shape[i]);
    rpi_put(&text, ']');
    shape[text.length] = 0;
    if (part->layer < 0) return part->name;
    rpi_format(name, 64, "%s of layer %d (%s)", part->name, part->layer, rpi_layer_name(&net->layers[part->layer]));
    return name;
}
static const char *rpi_entry_shape(const rpi_entry *entry, char shape[RPI_NAME]) {
    rpi_text text = {shape, RPI_NAME, 0};
    rpi_put(&text, '[');
    for (int i = 0; i < entry->dimensions; i++) rpi_put_size(&text, !i, (int64_t)entry->shape[i]);
    rpi_put(&text, ']');
    shape[text.length < RPI_NAME ? text.length : RPI_NAME - 1] = 0;
    return shape;
}

/* The tensor that is to become a part, or a term of it. */
static rp_status rpi_part_entry(const rpi_reading *reading, const rpi_part *part, const char *tensor,
                                rpi_entry *entry) {
    const rpi_tensor *found = rpi_find_tensor(reading, tensor);
    char name[64], shape[96], other[RPI_NAME];
    const char *what = rpi_part_text(reading->net, part, name, shape);
    int same;
    if (!found) return rpi_refuse(reading, RP_ERR_VALUE, "there is no tensor %s for %s, %s", tensor, what, shape);
    *entry = rpi_entry_of(reading, found);
    if (entry->dtype >= RPI_READABLE)
        return rpi_refuse(reading, RP_ERR_UNSUPPORTED, "the tensor %s for %s has numbers of the type %s", tensor, what,
                          rpi_dtypes[entry->dtype].name);
    same = entry->dimensions == part->dimensions;
    for (int i = 0; i < part->dimensions; i++)
        if (entry->shape[i] != (uint64_t)part->shape[i]) same = 0; /* 0 behind the last */
    if (same) return RP_OK;
    return rpi_refuse(reading, RP_ERR_SHAPE, "the tensor %s has the shape %s, but %s has %s", tensor,
                      rpi_entry_shape(entry, other), what, shape);
}

/* Checks the one or two tensors whose sum a part is to become; with `take`, after that check, copies them. */
static rp_status rpi_read_part(const rpi_reading *reading, const rpi_part *part, const char *const tensors[2],
                               int take) {
    const unsigned char *data = reading->file.bytes + 8 + reading->file.header;
    rp_real sum[RPI_CHUNK], term[RPI_CHUNK];
    rpi_entry entries[2];
    int terms = tensors[1] ? 2 : 1, finite = !reading->net->config.not_finite;
    char name[64], shape[96];
    for (int i = 0; i < terms; i++) {
        rp_status status = rpi_part_entry(reading, part, tensors[i], &entries[i]);
        if (status) return status;
    }
    if (take && terms == 1) {
        rpi_decode(data + entries[0].begin, entries[0].dtype, part->count, part->to);
        return RP_OK;
    }
    if (!take && !finite) return RP_OK;
    for (ptrdiff_t at = 0; at < part->count; at += RPI_CHUNK) {
        int count = part->count - at < RPI_CHUNK ? (int)(part->count - at) : RPI_CHUNK;
        for (int i = 0; i < terms; i++) {
            uint64_t offset = entries[i].begin + (uint64_t)at * (uint64_t)rpi_dtypes[entries[i].dtype].size;
            rpi_decode(data + offset, entries[i].dtype, count, i ? term : sum);
        }
        if (terms == 2)
            for (int k = 0; k < count; k++) sum[k] += term[k];
        if (take) {
            rpi_copy(part->to + at, sum, count);
            continue;
        }
        rpi_zero(sum + count, RPI_CHUNK - count);
        if (!rpi_all_finite_chunk(sum))
            return rpi_refuse(reading, RP_ERR_NOT_FINITE, "the tensor %s for %s holds a number that is not finite",
                              tensors[0], rpi_part_text(reading->net, part, name, shape));
    }
    return RP_OK;
}

static int rpi_keeps_averages(const rp_optimizer *o) { return rpi_method_of(o)->paced; }

/* What a net keeps beside parameters: the flat arrays that are there ... */
typedef struct rpi_kept_array {
    const char *name;
    size_t at;                                  /* of its pointer in rp_net */
    int (*kept)(const rp_optimizer *optimizer); /* NULL: it is no optimizer's */
    int by_layer;                               /* a number for each layer, which earlier files lack; else parameter */
} rpi_kept_array;
static const rpi_kept_array rpi_kept_arrays[] = {
    {"optimizer.first", offsetof(rp_net, first), rpi_keeps_first, 0},
    {"optimizer.second", offsetof(rp_net, second), rpi_keeps_second, 0},
    {"optimizer.averages", offsetof(rp_net, averages), rpi_keeps_averages, 0},
    {"optimizer.spreads", offsetof(rp_net, spreads), rpi_keeps_averages, 1},
    {"fit.best", offsetof(rp_net, best), NULL, 0},
};
enum { RPI_KEPT_ARRAYS = sizeof rpi_kept_arrays / sizeof *rpi_kept_arrays, RPI_FIT_BEST = RPI_KEPT_ARRAYS - 1 };

/* ... and numbers, by where they lie in rp_net. The second list is there in the midst of an rp_fit. Of the numbers that
   may be below 0 and are whole, there is one: -1 for no epoch. */
typedef enum rpi_kept_kind { RPI_INT, RPI_INT64, RPI_UINT64, RPI_REAL, RPI_DOUBLE } rpi_kept_kind;
typedef struct rpi_kept_number {
    const char *name;
    rpi_kept_kind kind;
    size_t at;
} rpi_kept_number;
static const rpi_kept_number rpi_kept_numbers[] = {
    {"rp.random", RPI_UINT64, offsetof(rp_net, random)},
    {"rp.epochs", RPI_INT64, offsetof(rp_net, epochs)},
    {"rp.time", RPI_INT64, offsetof(rp_net, time)},
    {"rp.sigma", RPI_REAL, offsetof(rp_net, sigma)},
    {"rp.sigma_from", RPI_REAL, offsetof(rp_net, sigma_from)},
    /* all of which, or the last, files of version 0.2.0 may lack: 0 */
    {"rp.averaged", RPI_INT, offsetof(rp_net, averaged)},
    {"rp.folded", RPI_INT, offsetof(rp_net, folded)},
    {"rp.averages_print", RPI_UINT64, offsetof(rp_net, averages_print)},
    {"rp.pace.curvature", RPI_DOUBLE, offsetof(rp_net, pace.curvature)},
    {"rp.pace.loss", RPI_DOUBLE, offsetof(rp_net, pace.loss)},
    {"rp.pace.first", RPI_DOUBLE, offsetof(rp_net, pace.first)},
    {"rp.pace.least", RPI_DOUBLE, offsetof(rp_net, pace.least)},
    {"rp.pace.limit", RPI_DOUBLE, offsetof(rp_net, pace.limit)},
    {"rp.pace.length", RPI_DOUBLE, offsetof(rp_net, pace.length)},
    {"rp.pace.measurements", RPI_INT64, offsetof(rp_net, pace.measurements)},
    {"rp.pace.cap", RPI_INT, offsetof(rp_net, pace.cap)},
    {"rp.pace.zero", RPI_DOUBLE, offsetof(rp_net, pace.zero)},
};
static const rpi_kept_number rpi_kept_place[] = {
    {"rp.fit.epoch", RPI_INT, offsetof(rp_net, place.epoch)},
    {"rp.fit.step", RPI_INT, offsetof(rp_net, place.step)},
    {"rp.fit.epochs", RPI_INT, offsetof(rp_net, place.epochs)},
    {"rp.fit.batch", RPI_INT, offsetof(rp_net, place.batch)},
    {"rp.fit.samples", RPI_INT, offsetof(rp_net, place.samples)},
    {"rp.fit.keep_order", RPI_INT, offsetof(rp_net, place.keep_order)},
    {"rp.fit.order", RPI_UINT64, offsetof(rp_net, place.order)},
    {"rp.fit.tally.loss", RPI_DOUBLE, offsetof(rp_net, place.tally.loss)},
    {"rp.fit.tally.right", RPI_DOUBLE, offsetof(rp_net, place.tally.right)},
    {"rp.fit.tally.weight", RPI_DOUBLE, offsetof(rp_net, place.tally.weight)},
    {"rp.fit.tally.count", RPI_INT64, offsetof(rp_net, place.tally.count)},
    {"rp.fit.done.epochs", RPI_INT, offsetof(rp_net, place.report.epochs)},
    {"rp.fit.done.steps", RPI_INT64, offsetof(rp_net, place.report.steps)},
    {"rp.fit.done.loss", RPI_REAL, offsetof(rp_net, place.report.loss)},
    {"rp.fit.done.accuracy", RPI_REAL, offsetof(rp_net, place.report.accuracy)},
    {"rp.fit.validation.loss", RPI_REAL, offsetof(rp_net, place.report.validation.loss)},
    {"rp.fit.validation.accuracy", RPI_REAL, offsetof(rp_net, place.report.validation.accuracy)},
    {"rp.fit.validation.count", RPI_INT64, offsetof(rp_net, place.report.validation.count)},
    {"rp.fit.best.loss", RPI_REAL, offsetof(rp_net, place.report.best_loss)},
    {"rp.fit.best.epoch", RPI_INT, offsetof(rp_net, place.report.best_epoch)},
    {"rp.fit.stopped", RPI_INT, offsetof(rp_net, place.report.stopped)},
};
enum {
    RPI_KEPT_NUMBERS = sizeof rpi_kept_numbers / sizeof *rpi_kept_numbers,
    RPI_KEPT_FIRST = 5, /* numbers that every version has written */
    RPI_KEPT_PLACE = sizeof rpi_kept_place / sizeof *rpi_kept_place
};
static const rpi_kept_number *rpi_kept(int i) {
    return i < RPI_KEPT_NUMBERS ? &rpi_kept_numbers[i] : &rpi_kept_place[i - RPI_KEPT_NUMBERS];
}
static const char *const rpi_method_words[] = {
    "none",   "partitioning",      "sgd", "adam", "adagrad", "adadelta", "per_variable",
    "newton", "partitioning_paced"}; /* as rp_method; RPI_PACED */
enum { RPI_METHOD_WORDS = sizeof rpi_method_words / sizeof *rpi_method_words };

static void *rpi_field(rp_net *net, size_t at) { return (char *)net + at; }
static rp_real **rpi_array_of(rp_net *net, int array) { return (rp_real **)rpi_field(net, rpi_kept_arrays[array].at); }
static rpi_part rpi_array_part(rp_net *net, int array, ptrdiff_t parameters) {
    const rpi_kept_array *kept = &rpi_kept_arrays[array];
    rpi_part part = rpi_part_of(net, -1, kept->name, 0, kept->by_layer ? net->layer_count : parameters, 0);
    part.to = *rpi_array_of(net, array);
    return part;
}

static void rpi_put_kept(rpi_text *text, rp_net *net, const rpi_kept_number *number) {
    const void *at = rpi_field(net, number->at);
    switch (number->kind) {
    case RPI_INT: rpi_put_signed(text, *(const int *)at); break;
    case RPI_INT64: rpi_put_signed(text, *(const int64_t *)at); break;
    case RPI_UINT64: rpi_put_unsigned(text, *(const uint64_t *)at); break;
    case RPI_REAL: rpi_put_real(text, *(const rp_real *)at); break;
    case RPI_DOUBLE: rpi_put_exactly(text, &rpi_float64, *(const double *)at); break;
    }
}

/* 0: the word is not such a number. */
static int rpi_read_kept(rp_net *net, const rpi_kept_number *number, const char *word) {
    void *at = rpi_field(net, number->at);
    uint64_t whole = 0;
    double x = 0;
    switch (number->kind) {
    case RPI_INT:
        if (!strcmp(word, "-1") && at == &net->place.report.best_epoch) {
            *(int *)at = -1;
            return 1;
        }
        if (!rpi_read_unsigned(word, INT_MAX / 2, &whole)) return 0;
        *(int *)at = (int)whole;
        return 1;
    case RPI_INT64:
        if (!rpi_read_unsigned(word, INT64_MAX / 2, &whole)) return 0;
        *(int64_t *)at = (int64_t)whole;
        return 1;
    case RPI_UINT64: return rpi_read_unsigned(word, UINT64_MAX, (uint64_t *)at);
    case RPI_REAL:
        if (!rpi_read_exactly(word, rpi_real_format(), &x)) return 0;
        *(rp_real *)at = (rp_real)x;
        return 1;
    case RPI_DOUBLE: break;
    }
    return rpi_read_exactly(word, &rpi_float64, (double *)at);
}

/* Files of an earlier format are read; a later one has what this version could misunderstand. */
enum { RPI_FORMAT = 2 };

/* What __metadata__ says, in a net of which only these fields are set. */
typedef struct rpi_metadata {
    rp_net kept;
    rpi_reader text;        /* at NULL: there is none */
    char version[RPI_WORD]; /* that wrote it; "": it does not say */
    int format;             /* 0: it does not say, as files of version 0.2.0 may, which have format 1 */
    int has_method;
    uint32_t numbers, place; /* a bit for each that is there */
} rpi_metadata;

/* The whole value as a word; what it is not is none. */
static void rpi_read_whole_word(rpi_reader value, char word[RPI_WORD]) {
    rpi_reader at = value;
    int length, spaced = at.at < at.end && rpi_is_space(rpi_peek(&at, &length));
    if (spaced || !rpi_next_word(&at, "", word, RPI_WORD) || at.at != at.end) memcpy(word, "not a word", 11);
}

/* Of the entries that say which others there may be. */
static rp_status rpi_read_version(const rpi_reading *reading, rpi_reader key, rpi_reader value, rpi_metadata *data) {
    int version = rpi_is_name(key, "rp.version"), twice = version ? *data->version : data->format;
    char word[RPI_WORD];
    uint64_t format = 0;
    if (!version && !rpi_is_name(key, "rp.format")) return RP_OK;
    rpi_read_whole_word(value, word);
    if (version) memcpy(data->version, word, RPI_WORD);
    else if (rpi_read_unsigned(word, INT_MAX, &format)) data->format = (int)format;
    if (!twice && (version ? !strchr(word, ' ') : data->format > 0)) return RP_OK;
    return rpi_refuse(reading, RP_ERR_VALUE, "%s is %s, which it may not be, or stands there twice",
                      version ? "rp.version" : "rp.format", word);
}

/* Of all others; those of other programs are not looked at. */
static rp_status rpi_read_key(const rpi_reading *reading, rpi_reader key, rpi_reader value, rpi_metadata *data) {
    char name[RPI_WORD], word[RPI_WORD];
    int method = 0, known = 0;
    rpi_shown(key, name);
    if (strncmp(name, "rp.", 3) || rpi_is_name(key, "rp.version") || rpi_is_name(key, "rp.format")) return RP_OK;
    if (rpi_is_name(key, "rp.net")) {
        if (data->text.at) return rpi_refuse(reading, RP_ERR_VALUE, "%s stands there twice", name);
        data->text = value;
        return RP_OK;
    }
    rpi_read_whole_word(value, word);
    if (rpi_is_name(key, "rp.optimizer")) {
        while (method < RPI_METHOD_WORDS && strcmp(word, rpi_method_words[method])) method++;
        if (method == RPI_METHOD_WORDS || data->has_method++)
            return rpi_refuse(reading, RP_ERR_VALUE, "%s is %s, which is no method, or stands there twice", name, word);
        data->kept.method = method;
        return RP_OK;
    }
    for (int i = 0; i < RPI_KEPT_NUMBERS + RPI_KEPT_PLACE && !known; i++) {
        int placed = i >= RPI_KEPT_NUMBERS, bit = placed ? i - RPI_KEPT_NUMBERS : i;
        const rpi_kept_number *number = rpi_kept(i);
        uint32_t *seen = placed ? &data->place : &data->numbers;
        if (!rpi_is_name(key, number->name)) continue;
        if ((*seen >> bit & 1) || !rpi_read_kept(&data->kept, number, word))
            return rpi_refuse(reading, RP_ERR_VALUE, "%s is %s, which it may not be, or stands there twice", name,
                              word);
        *seen |= UINT32_C(1) << bit;
        known = 1;
    }
    if (known) return RP_OK;
    return rpi_refuse(reading, RP_ERR_UNSUPPORTED, "%s is not known to version " RP_VERSION ", which reads it", name);
}

/* Of what is there at all. */
static rp_status rpi_check_metadata(const rpi_reading *reading, const rpi_metadata *data) {
    const uint32_t first = (UINT32_C(1) << RPI_KEPT_FIRST) - 1, all = (UINT32_C(1) << RPI_KEPT_NUMBERS) - 1;
    const int written = data->numbers == first || data->numbers == all >> 1 || data->numbers == all;
    const uint32_t all_place = (UINT32_C(1) << RPI_KEPT_PLACE) - 1;
    const rpi_place *place = &data->kept.place;
    const rpi_pace *kept = &data->kept.pace;
    const double pace[] = {kept->curvature, kept->loss, kept->first, kept->zero, kept->limit, kept->length};
    if (!data->text.at)
        return rpi_refuse(reading, RP_ERR_VALUE,
                          "__metadata__ has no text of a net (rp.net): it was not written by rp_save; see rp_import");
    if (!data->has_method || !written || (data->place && data->place != all_place))
        return rpi_refuse(reading, RP_ERR_VALUE, "__metadata__ lacks some of the numbers that rp_save writes");
    if (data->kept.sigma < 0 || data->kept.sigma_from < 0)
        return rpi_refuse(reading, RP_ERR_VALUE, "rp.sigma is %g and rp.sigma_from %g; they must be 0 or more",
                          (double)data->kept.sigma, (double)data->kept.sigma_from);
    if (data->kept.averaged > 1 || data->kept.folded > 1 || data->kept.pace.cap > RP_CAP_UNDONE)
        return rpi_refuse(reading, RP_ERR_VALUE, "rp.averaged is %d, rp.folded %d, rp.pace.cap %d; they are too large",
                          data->kept.averaged, data->kept.folded, data->kept.pace.cap);
    for (size_t i = 0; i < sizeof pace / sizeof *pace; i++)
        if (!(pace[i] >= 0 && pace[i] <= DBL_MAX))
            return rpi_refuse(reading, RP_ERR_VALUE,
                              "one of the numbers rp.pace is %g; it must be finite and 0 or more", pace[i]);
    if (kept->length > (double)RPI_REAL_MAX)
        return rpi_refuse(reading, RP_ERR_VALUE, "rp.pace.length is %g; it is too large", kept->length);
    if (!data->place) return RP_OK;
    if (place->batch < 1 || place->batch > RPI_LARGEST || place->report.stopped > 2 || place->keep_order > 1 ||
        !place->step != !place->tally.count || place->report.best_epoch > place->epoch ||
        (place->report.steps && !data->kept.method))
        return rpi_refuse(reading, RP_ERR_VALUE, "the numbers rp.fit contradict each other");
    return RP_OK;
}

typedef rp_status (*rpi_key_reader)(const rpi_reading *reading, rpi_reader key, rpi_reader value, rpi_metadata *data);

/* Each entry of __metadata__, which the walk over the header has found well formed. */
static rp_status rpi_read_keys(const rpi_reading *reading, rpi_key_reader read, rpi_metadata *data) {
    rpi_json json = rpi_json_of(reading, reading->file.metadata);
    rpi_reader key, value;
    rp_status status = RP_OK;
    int more = 1;
    if (!reading->file.metadata || !rpi_json_char(&json, '{')) return RP_OK;
    for (int count = 0; !status; count++) {
        status = rpi_json_next(&json, !count, '}', &more);
        if (status || !more) break;
        status = rpi_json_string(&json, &key);
        if (!status) status = rpi_json_need(&json, ':');
        if (!status) status = rpi_json_string(&json, &value);
        if (!status) status = read(reading, key, value, data);
    }
    return status;
}

static rp_status rpi_read_metadata(const rpi_reading *reading, rpi_metadata *data) {
    rp_status status;
    memset(data, 0, sizeof *data);
    status = rpi_read_keys(reading, rpi_read_version, data);
    if (!status && data->format > RPI_FORMAT)
        return rpi_refuse(reading, RP_ERR_UNSUPPORTED,
                          "it has format %d and was written by version %s; version " RP_VERSION
                          " reads formats up to %d",
                          data->format, *data->version ? data->version : "?", RPI_FORMAT);
    if (!status) status = rpi_read_keys(reading, rpi_read_key, data);
    if (!status) status = rpi_check_metadata(reading, data);
    data->kept.place.active = data->place != 0;
    return status;
}

static rp_optimizer rpi_saved_optimizer(const rpi_reading *reading, const rpi_metadata *data) {
    return rpi_optimizer_like(data->kept.method, rpi_find_tensor(reading, rpi_kept_arrays[0].name) != NULL,
                              rpi_find_tensor(reading, rpi_kept_arrays[1].name) != NULL);
}

/* Every tensor that the net needs is there, and no other. take: then they are copied, for which all memory is there. */
static rp_status rpi_read_tensors(const rpi_reading *reading, const rpi_metadata *data, int take) {
    rp_net *net = reading->net;
    rp_optimizer like = rpi_saved_optimizer(reading, data);
    ptrdiff_t count = 0;
    int found = 0;
    rp_status status = RP_OK;
    for (int i = 0; i < net->layer_count && !status; i++) {
        rpi_part parts[3];
        int some = rpi_layer_parts(net, i, parts);
        for (int k = 0; k < some && !status; k++) {
            char name[64];
            const char *names[2] = {name, NULL};
            rpi_format(name, sizeof name, "%d.%s", i, parts[k].name);
            count += parts[k].count;
            status = rpi_read_part(reading, &parts[k], names, take);
            found++;
        }
    }
    for (int i = 0; i < RPI_KEPT_ARRAYS && !status; i++) {
        const rpi_kept_array *array = &rpi_kept_arrays[i];
        const char *names[2] = {array->name, NULL};
        int there = rpi_find_tensor(reading, array->name) != NULL;
        int wanted = data->kept.method && array->kept && array->kept(&like);
        rpi_part part = rpi_array_part(net, i, count);
        if (there && !array->kept) wanted = data->place && data->kept.place.report.best_epoch >= 0;
        if (there != wanted && !(wanted && array->by_layer))
            return rpi_refuse(reading, RP_ERR_VALUE, "the tensor %s is %s, which does not fit the method %s",
                              array->name, there ? "there" : "missing", rpi_method_words[data->kept.method]);
        if (!there) continue;
        found++;
        if (take && (!part.to || (!array->kept && net->fitting))) continue; /* it is not wanted */
        status = rpi_read_part(reading, &part, names, take);
    }
    if (status || found == reading->file.count) return status;
    return rpi_refuse(reading, RP_ERR_VALUE, "it has %d tensors, but a net of %d layers with this state has %d",
                      reading->file.count, net->layer_count, found);
}

/* The memory that the file's state needs in a built net. Nothing that the net had is lost on failure. */
static rp_status rpi_make_room(const rpi_reading *reading, const rpi_metadata *data) {
    rp_net *net = reading->net;
    rp_optimizer like = rpi_saved_optimizer(reading, data);
    rpi_block best = {NULL, NULL, 0};
    rp_status status = RP_OK;
    int same = net->method == data->kept.method;
    if (net->config.inference_only) return RP_OK;
    if (rpi_find_tensor(reading, rpi_kept_arrays[RPI_FIT_BEST].name) &&
        !rpi_block_new(&net->memory, &best, (size_t)net->parameter_count * sizeof(rp_real)))
        return rpi_refuse(reading, RP_ERR_MEMORY, "no memory for the best parameters of %z",
                          (size_t)net->parameter_count);
    for (int i = 0; i < RPI_FIT_BEST; i++) {
        int kept = data->kept.method && rpi_kept_arrays[i].kept(&like);
        if (!*rpi_array_of(net, i) != !kept) same = 0;
    }
    if (!same && data->kept.method) status = rpi_new_state(net, reading->who, &like);
    if (!same && !data->kept.method) rpi_forget_state(net);
    if (status) {
        rpi_block_free(&net->memory, &best);
        return status;
    }
    if (net->fitting) rpi_block_free(&net->memory, &best); /* a run of rp_fit has its own */
    else {
        rpi_block_free(&net->memory, &net->loaded_best);
        net->loaded_best = best;
        net->best = (rp_real *)(void *)best.base;
    }
    return RP_OK;
}

/* Whether its numbers are of another format than the net's. */
static int rpi_converts(const rpi_reading *reading) {
    const rpi_file *file = &reading->file;
    return file->count > 0 &&
           rpi_entry_of(reading, &file->tensors[0]).dtype != (sizeof(rp_real) == 8 ? RPI_F64 : RPI_F32);
}

/* From a file that was checked against the net, which has the memory: cannot fail. */
static void rpi_take_file(const rpi_reading *reading, rpi_metadata *data) {
    rp_net *net = reading->net;
    rpi_place place = net->place;
    if (net->config.inference_only) data->kept.place.active = 0;
    for (int i = 0; i < RPI_KEPT_NUMBERS + RPI_KEPT_PLACE; i++) {
        const rpi_kept_number *number = rpi_kept(i);
        static const size_t sizes[] = {sizeof(int), sizeof(int64_t), sizeof(uint64_t), sizeof(rp_real), sizeof(double)};
        memcpy(rpi_field(net, number->at), rpi_field(&data->kept, number->at), sizes[number->kind]);
    }
    net->place.active = data->kept.place.active;
    if (net->fitting) net->place = place;
    rpi_read_tensors(reading, data, 1);
    if (net->averaged && rpi_converts(reading)) net->averages_print = rpi_print(net);
    net->stepped = 0;
    net->forward_count = 0;
}

/* The net that the text describes. */
static rp_status rpi_read_description(const rpi_reading *reading, const rpi_metadata *data, rp_net *net) {
    rpi_reader text = data->text;
    char what[sizeof net->error];
    rp_status status = rpi_read_text(net, "rp.net", &text);
    if (!status) return RP_OK;
    memcpy(what, net->error, sizeof what);
    if (net == reading->net) net->broken = RP_OK; /* so that the message may be changed */
    return rpi_refuse(reading, status, "%s", what);
}

static void rpi_put_compared(rpi_text *text, const rp_net *net, int item) {
    rpi_layer layer;
    if (item < 0 || item >= net->layer_count) {
        rpi_put_item(text, net, item < net->layer_count ? -1 : net->layer_count);
        return;
    }
    layer = net->layers[item];
    layer.frozen = 0;
    layer.alpha = (rp_real)(float)layer.alpha;
    rpi_put_layer(text, &layer);
}

/* Whether input, layers and loss are those of the other net, frozen or not. */
static rp_status rpi_check_same(const rpi_reading *reading, const rp_net *other) {
    const rp_net *net = reading->net;
    if (net->layer_count != other->layer_count)
        return rpi_refuse(reading, RP_ERR_SHAPE, "it is of a net of %d layers; this one has %d", other->layer_count,
                          net->layer_count);
    for (int i = -1; i <= net->layer_count; i++) {
        char ours[96], theirs[96], place[24];
        rpi_text one = {ours, sizeof ours, 0}, two = {theirs, sizeof theirs, 0};
        rpi_put_compared(&one, net, i);
        rpi_put_compared(&two, other, i);
        ours[one.length < sizeof ours ? one.length : sizeof ours - 1] = 0;
        theirs[two.length < sizeof theirs ? two.length : sizeof theirs - 1] = 0;
        rpi_format(place, sizeof place, "layer %d", i);
        if (i < 0) rpi_format(place, sizeof place, "the input");
        if (i == net->layer_count) rpi_format(place, sizeof place, "the loss");
        if (strcmp(ours, theirs))
            return rpi_refuse(reading, RP_ERR_SHAPE, "%s is '%s' in the file, but '%s' in the net", place, theirs,
                              ours);
    }
    return RP_OK;
}

/* A checked file into a built net. */
static rp_status rpi_load_file(const rpi_reading *reading) {
    rp_net *net = reading->net, *other;
    rpi_metadata data;
    rp_status status = rpi_read_metadata(reading, &data);
    if (status) return status;
    other = rp_net_new(rp_vector(1), &net->config);
    if (!other) return rpi_refuse(reading, RP_ERR_MEMORY, "no memory for its text");
    status = rpi_read_description(reading, &data, other);
    if (!status) status = rpi_check_same(reading, other);
    rp_net_free(other);
    if (!status) status = rpi_read_tensors(reading, &data, 0);
    if (!status && reading->fit && data.kept.place.active) {
        rp_optimizer like = rpi_saved_optimizer(reading, &data);
        status = rpi_fit_goes_on(reading->fit, &data.kept.place, &like);
    }
    if (!status) status = rpi_make_room(reading, &data);
    if (!status) rpi_take_file(reading, &data);
    return status;
}

RP_API rp_status rp_load_memory(rp_net *net, const void *bytes, size_t size) {
    rpi_reading reading;
    rp_status status = rpi_built(net, "rp_load_memory");
    if (status) return status;
    reading = rpi_reading_of(net, "rp_load_memory", NULL);
    status = rpi_read_memory(&reading, bytes, size, 0);
    if (!status) status = rpi_load_file(&reading);
    rpi_file_free(&net->memory, &reading.file);
    return status;
}

/* A checked file becomes the description of an empty net, which keeps it for the build. */
static void rpi_open_file(rpi_reading *reading, rp_status status) {
    rp_net *net = reading->net;
    rpi_metadata data;
    if (!status) status = rpi_read_metadata(reading, &data);
    if (!status) status = rpi_read_description(reading, &data, net);
    if (!status) status = rpi_read_tensors(reading, &data, 0);
    if (!status) net->opened = reading->file;
    else rpi_file_free(&net->memory, &reading->file);
    net->broken = status;
}

RP_API rp_net *rp_open_memory(const void *bytes, size_t size, const rp_config *config) {
    rp_net *net = rp_net_new(rp_vector(1), config);
    rpi_reading reading;
    if (!net || net->broken) return net;
    reading = rpi_reading_of(net, "rp_open_memory", NULL);
    rpi_open_file(&reading, rpi_read_memory(&reading, bytes, size, 1));
    return net;
}

/* For the build: what the file says against what the net has become since it was opened. */
static rp_status rpi_load_opened(rp_net *net) {
    rpi_reading reading = rpi_reading_of(net, "rp_net_build", NULL);
    int finite = net->config.not_finite;
    rpi_metadata data;
    rp_status status;
    reading.file = net->opened;
    net->config.not_finite = 1; /* that was looked at before */
    status = rpi_read_metadata(&reading, &data);
    if (!status) status = rpi_read_tensors(&reading, &data, 0);
    net->config.not_finite = finite;
    if (!status) status = rpi_make_room(&reading, &data);
    if (status) return status;
    rpi_take_file(&reading, &data);
    rpi_file_free(&net->memory, &net->opened);
    return RP_OK;
}

/* Writing. */
typedef struct rpi_writer {
    int (*write)(void *to, const void *bytes, size_t size); /* 0: it failed; NULL: only counted */
    void *to;
    uint64_t size;
    int failed;
} rpi_writer;

static void rpi_write(rpi_writer *writer, const void *bytes, size_t size) {
    writer->size += size;
    if (writer->write && size && !writer->failed) writer->failed = !writer->write(writer->to, bytes, size);
}
static void rpi_write_string(rpi_writer *writer, const char *text) { rpi_write(writer, text, strlen(text)); }

static void rpi_write_reals(rpi_writer *writer, const rp_real *x, ptrdiff_t count) {
    unsigned char bytes[RPI_CHUNK * sizeof(rp_real)];
    if (rpi_little_endian()) {
        rpi_write(writer, x, (size_t)count * sizeof *x);
        return;
    }
    for (ptrdiff_t at = 0; at < count; at += RPI_CHUNK) {
        size_t used = 0;
        for (ptrdiff_t i = at; i < count && i < at + RPI_CHUNK; i++) {
            uint64_t bits = (uint64_t)rpi_bits(x[i]);
            for (size_t k = 0; k < sizeof *x; k++) bytes[used++] = (unsigned char)(bits >> 8 * k);
        }
        rpi_write(writer, bytes, used);
    }
}

static void rpi_write_key(rpi_writer *writer, const char *key) {
    rpi_write_string(writer, ",\"");
    rpi_write_string(writer, key);
    rpi_write_string(writer, "\":\"");
}

static void rpi_write_metadata(rpi_writer *writer, rp_net *net) {
    char piece[256];
    rpi_text format = {piece, sizeof piece, 0};
    rpi_put_signed(&format, RPI_FORMAT);
    rpi_write_string(writer, "{\"__metadata__\":{\"format\":\"pt\",\"rp.version\":\"" RP_VERSION "\"");
    rpi_write_key(writer, "rp.format");
    rpi_write(writer, piece, format.length);
    rpi_write_string(writer, "\"");
    rpi_write_key(writer, "rp.net");
    for (int item = -1; item <= net->layer_count; item++) {
        rpi_text text = {piece, sizeof piece, 0};
        if (item >= 0) rpi_put_string(&text, "; ");
        rpi_put_item(&text, net, item);
        rpi_write(writer, piece, text.length);
    }
    rpi_write_string(writer, "\"");
    rpi_write_key(writer, "rp.optimizer");
    rpi_write_string(writer, rpi_method_words[net->method]);
    rpi_write_string(writer, "\"");
    for (int i = 0; i < RPI_KEPT_NUMBERS + (net->place.active ? RPI_KEPT_PLACE : 0); i++) {
        const rpi_kept_number *number = rpi_kept(i);
        rpi_text text = {piece, sizeof piece, 0};
        rpi_put_kept(&text, net, number);
        rpi_write_key(writer, number->name);
        rpi_write(writer, piece, text.length);
        rpi_write_string(writer, "\"");
    }
    rpi_write_string(writer, "}");
}

/* The entry of a tensor that begins at byte *at. */
static void rpi_write_entry(rpi_writer *writer, const rpi_part *part, uint64_t *at) {
    char piece[256];
    rpi_text text = {piece, sizeof piece, 0};
    rpi_put_string(&text, ",\"");
    if (part->layer >= 0) {
        rpi_put_signed(&text, part->layer);
        rpi_put(&text, '.');
    }
    rpi_put_string(&text, part->name);
    rpi_put_string(&text, "\":{\"dtype\":\"");
    rpi_put_string(&text, rpi_dtypes[sizeof(rp_real) == 8 ? RPI_F64 : RPI_F32].name);
    rpi_put_string(&text, "\",\"shape\":[");
    for (int i = 0; i < part->dimensions; i++) {
        if (i) rpi_put(&text, ',');
        rpi_put_signed(&text, part->shape[i]);
    }
    rpi_put_string(&text, "],\"data_offsets\":[");
    rpi_put_unsigned(&text, *at);
    *at += (uint64_t)part->count * sizeof(rp_real);
    rpi_put(&text, ',');
    rpi_put_unsigned(&text, *at);
    rpi_put_string(&text, "]}");
    rpi_write(writer, piece, text.length);
}

/* An array of state that is there, and is to be kept; the best parameters only once there are some. */
static int rpi_keeps_array(rp_net *net, int array) {
    if (!*rpi_array_of(net, array)) return 0;
    return array != RPI_FIT_BEST || (net->place.active && net->place.report.best_epoch >= 0);
}

/* The header without its length, filled up so that what follows is aligned. */
static void rpi_write_header(rpi_writer *writer, rp_net *net) {
    uint64_t at = 0, begin = writer->size;
    rpi_write_metadata(writer, net);
    for (int i = 0; i < net->layer_count; i++) {
        rpi_part parts[3];
        int some = rpi_layer_parts(net, i, parts);
        for (int k = 0; k < some; k++) rpi_write_entry(writer, &parts[k], &at);
    }
    for (int i = 0; i < RPI_KEPT_ARRAYS; i++) {
        rpi_part part = rpi_array_part(net, i, net->parameter_count);
        if (rpi_keeps_array(net, i)) rpi_write_entry(writer, &part, &at);
    }
    rpi_write_string(writer, "}");
    while ((writer->size - begin) % 8) rpi_write(writer, " ", 1);
}

/* The whole file. Tensors of layers follow each other as the flat array has them. */
static void rpi_write_file(rpi_writer *writer, rp_net *net) {
    rpi_writer counter = {NULL, NULL, 0, 0};
    unsigned char length[8];
    rpi_write_header(&counter, net);
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)(counter.size >> 8 * i);
    rpi_write(writer, length, 8);
    rpi_write_header(writer, net);
    rpi_write_reals(writer, net->parameters, net->parameter_count);
    for (int i = 0; i < RPI_KEPT_ARRAYS; i++)
        if (rpi_keeps_array(net, i)) {
            rpi_part part = rpi_array_part(net, i, net->parameter_count);
            rpi_write_reals(writer, part.to, part.count);
        }
}

static int rpi_write_memory(void *to, const void *bytes, size_t size) {
    char **at = (char **)to;
    memcpy(*at, bytes, size);
    *at += size;
    return 1;
}

static rp_status rpi_check_save(rp_net *net, const char *who) {
    rp_status status = rpi_built(net, who);
    if (!status && net->layer_count > RPI_LAYERS_MOST)
        return rpi_fail(net, RP_ERR_UNSUPPORTED, "%s: the net has %d layers; a file may have %d", who, net->layer_count,
                        RPI_LAYERS_MOST);
    return status;
}

RP_API rp_status rp_save_memory(rp_net *net, void *bytes, size_t size, size_t *length) {
    static const char who[] = "rp_save_memory";
    rpi_writer writer = {NULL, NULL, 0, 0};
    char *at = (char *)bytes;
    rp_status status = rpi_check_save(net, who);
    if (!status) status = rpi_needs(net, who, "length", length);
    if (status) return status;
    rpi_write_file(&writer, net);
    if (writer.size > SIZE_MAX)
        return rpi_fail(net, RP_ERR_OVERFLOW, "%s: the file is larger than can be addressed", who);
    *length = (size_t)writer.size;
    if (!bytes) return RP_OK;
    if (size < *length)
        return rpi_fail(net, RP_ERR_VALUE, "%s: size is %z, but the file takes %z bytes", who, size, *length);
    writer.write = rpi_write_memory;
    writer.to = &at;
    rpi_write_file(&writer, net);
    return RP_OK;
}

#ifndef RP_NO_STDIO
static int rpi_write_stream(void *to, const void *bytes, size_t size) {
    return fwrite(bytes, 1, size, (FILE *)to) == size;
}

/* To the disk, not only to the system. 0: it failed. */
static int rpi_flush(FILE *file) {
    if (fflush(file)) return 0;
#if defined(_WIN32)
    return !_commit(_fileno(file));
#elif defined(RPI_POSIX)
    return !fsync(fileno(file));
#else
    return 1;
#endif
}

/* In the place of what is there. 0: it failed. */
static int rpi_replace(const char *from, const char *to) {
#if defined(_WIN32)
    return MoveFileExA(from, to, 1 | 8) != 0; /* replace what is there; through to the disk */
#else
    return !rename(from, to);
#endif
}

/* What is at the path, or where a link there leads, if the system tells; NULL: a file, or nothing. */
static const char *rpi_no_file(const char *path) {
#if defined(_WIN32)
    struct __stat64 what;
    if (_stat64(path, &what) || (what.st_mode & _S_IFMT) == _S_IFREG) return NULL;
    return (what.st_mode & _S_IFMT) == _S_IFDIR ? "a directory" : "a device";
#elif defined(RPI_POSIX)
    struct stat what;
    if (stat(path, &what) || S_ISREG(what.st_mode)) return NULL;
    if (S_ISDIR(what.st_mode)) return "a directory";
    if (S_ISFIFO(what.st_mode)) return "a pipe";
    return S_ISCHR(what.st_mode) || S_ISBLK(what.st_mode) ? "a device" : "no regular file";
#else
    (void)path;
    return NULL;
#endif
}

/* A path that is to be read, be it a pipe, or, with `replace`, at which a file is to be made or replaced. */
static rp_status rpi_check_path(rp_net *net, const char *who, const char *path, int replace) {
    rpi_reading reading = rpi_reading_of(net, who, path);
    const char *what;
    if (!*path) return rpi_refuse(&reading, RP_ERR_VALUE, "the path is empty");
    what = rpi_no_file(path);
    if (what && replace) return rpi_refuse(&reading, RP_ERR_FILE, "it is %s, which no file may replace", what);
    if (what && !strcmp(what, "a directory")) return rpi_refuse(&reading, RP_ERR_FILE, "it is a directory");
    return RP_OK;
}

/* Follows symbolic links from `place`, which becomes the path of the file, there or not. 0: they do not end. */
static int rpi_follow_links(char place[RPI_PATH]) {
#if defined(RPI_POSIX)
    char target[RPI_PATH];
    for (int links = 0; links < 40; links++) {
        ssize_t length = readlink(place, target, sizeof target);
        const char *slash = strrchr(place, '/');
        size_t folder = slash && length > 0 && *target != '/' ? (size_t)(slash - place) + 1 : 0;
        if (length < 0) return 1; /* it is no link */
        if (folder + (size_t)length + 5 > RPI_PATH) return 0;
        memcpy(place + folder, target, (size_t)length);
        place[folder + (size_t)length] = 0;
    }
    return 0;
#else
    (void)place;
    return 1;
#endif
}

/* What could not be done to write the file, which is then not there; NULL: nothing. */
static const char *rpi_write_path(rp_net *net, const char *path) {
    rpi_writer writer = {rpi_write_stream, NULL, 0, 0};
    const char *failed = NULL;
    FILE *file = fopen(path, "wb");
    if (!file) return "opened for writing";
    writer.to = file;
    rpi_write_file(&writer, net);
    if (writer.failed) failed = "written; is the disk full?";
    else if (!rpi_flush(file)) failed = "flushed to the disk; is it full?";
    if (fclose(file) && !failed) failed = "closed; is the disk full?";
    if (failed) remove(path);
    return failed;
}

static rp_status rpi_save(rp_net *net, const char *who, const char *path) {
    char place[RPI_PATH], temporary[RPI_PATH];
    size_t length = strlen(path);
    rpi_reading reading = rpi_reading_of(net, who, path);
    const char *failed;
    rp_status status = rpi_check_path(net, who, path, 1);
    if (status) return status;
    if (length + 5 > sizeof place)
        return rpi_refuse(&reading, RP_ERR_VALUE, "the path has %z characters; it may have %d", length, RPI_PATH - 5);
    memcpy(place, path, length + 1);
    if (!rpi_follow_links(place))
        return rpi_refuse(&reading, RP_ERR_FILE, "its symbolic links lead in a circle, or too far");
    length = strlen(place);
    memcpy(temporary, place, length);
    memcpy(temporary + length, ".tmp", 5);
    status = rpi_check_path(net, who, temporary, 1);
    if (status) return status;
    reading.path = temporary;
    failed = rpi_write_path(net, temporary);
    if (failed) return rpi_refuse(&reading, RP_ERR_FILE, "it cannot be %s", failed);
    if (rpi_replace(temporary, place)) return RP_OK;
    remove(temporary);
    return rpi_refuse(&reading, RP_ERR_FILE, "it cannot be renamed to what it replaces");
}

RP_API rp_status rp_save(rp_net *net, const char *path) {
    rp_status status = rpi_check_save(net, "rp_save");
    if (!status) status = rpi_needs(net, "rp_save", "path", path);
    return status ? status : rpi_save(net, "rp_save", path);
}

/* How many bytes the file has, of which eight have been read; 0: it does not say. */
static size_t rpi_length_of(FILE *file) {
    long length;
    if (fseek(file, 0, SEEK_END)) return 0;
    length = ftell(file);
    if (fseek(file, 8, SEEK_SET) || length < 8) return 0;
    return (size_t)length;
}

/* Into one block of memory, with the list of tensors. */
static rp_status rpi_read_whole(rpi_reading *reading, FILE *file, const unsigned char first[8], size_t size) {
    rp_status status = rpi_read_length(reading, first, size);
    unsigned char *bytes;
    if (!status) status = rpi_file_block(reading, &reading->file.block, size);
    if (status) return status;
    bytes = (unsigned char *)reading->file.block.base + reading->file.list_size;
    memcpy(bytes, first, 8);
    reading->file.bytes = bytes;
    if (fread(bytes + 8, 1, size - 8, file) == size - 8) return RP_OK;
    return rpi_refuse(reading, RP_ERR_FILE, "cannot be read");
}

/* Of a file that does not know its length. */
static rp_status rpi_read_growing(rpi_reading *reading, FILE *file, const unsigned char first[8]) {
    const rpi_memory *memory = &reading->net->memory;
    rp_status status = rpi_read_length(reading, first, SIZE_MAX); /* which what has no end would not be */
    size_t size = 8;
    unsigned char *bytes;
    if (status) return status;
    bytes = rpi_read_stream(memory, file, first, &size, &status);
    if (!bytes) return rpi_refuse(reading, status, status == RP_ERR_MEMORY ? "no memory for it" : "cannot be read");
    reading->file.block.allocation = bytes;
    reading->file.block.base = (char *)bytes;
    reading->file.block.size = size;
    reading->file.bytes = bytes;
    status = rpi_read_length(reading, bytes, size);
    return status ? status : rpi_file_block(reading, &reading->file.list, 0);
}

static rp_status rpi_read_path(rpi_reading *reading) {
    unsigned char first[8];
    rp_status status = rpi_needs(reading->net, reading->who, "path", reading->path);
    size_t size, got;
    FILE *file;
    if (!status) status = rpi_check_path(reading->net, reading->who, reading->path, 0);
    if (status) return status;
    file = fopen(reading->path, "rb");
    if (!file) return rpi_refuse(reading, RP_ERR_FILE, "cannot be opened");
    got = fread(first, 1, 8, file);
    if (got < 8 && ferror(file)) status = rpi_refuse(reading, RP_ERR_FILE, "cannot be read");
    else if (got < 8) status = rpi_read_length(reading, first, got);
    size = status ? 0 : rpi_length_of(file);
    if (!status && size) status = rpi_read_whole(reading, file, first, size);
    else if (!status) status = rpi_read_growing(reading, file, first);
    fclose(file);
    return status ? status : rpi_check_file(reading);
}

static rp_status rpi_load(rp_net *net, const char *who, const char *path, const rpi_fit *fit) {
    rpi_reading reading = rpi_reading_of(net, who, path);
    rp_status status = rpi_read_path(&reading);
    reading.fit = fit;
    if (!status) status = rpi_load_file(&reading);
    rpi_file_free(&net->memory, &reading.file);
    return status;
}

RP_API rp_status rp_load(rp_net *net, const char *path) {
    rp_status status = rpi_built(net, "rp_load");
    return status ? status : rpi_load(net, "rp_load", path, NULL);
}

RP_API rp_net *rp_open(const char *path, const rp_config *config) {
    rp_net *net = rp_net_new(rp_vector(1), config);
    rpi_reading reading;
    if (!net || net->broken) return net;
    reading = rpi_reading_of(net, "rp_open", path);
    rpi_open_file(&reading, rpi_read_path(&reading));
    return net;
}
#endif

/* Parameters from other programs' files. */

/* "prefix.name"; `twice` also "+ prefix.second" */
typedef struct rpi_sources {
    char first[RPI_NAME], second[RPI_NAME]; /* second "": there is one */
} rpi_sources;

static rp_status rpi_import_part(const rpi_reading *reading, const rpi_part *part, const rpi_sources *terms, int take) {
    const char *names[2] = {terms->first, *terms->second ? terms->second : NULL};
    return rpi_read_part(reading, part, names, take);
}

static int rpi_has_tensor(const rpi_reading *reading, const char *module, const char *name) {
    char joined[RPI_NAME];
    rpi_format(joined, sizeof joined, "%s.%s", module, name);
    return rpi_find_tensor(reading, joined) != NULL;
}

/* A layer from a module: all its parameters, and no other that the module has. */
static rp_status rpi_import_module(const rpi_reading *reading, int layer, const char *module, int take) {
    static const char *const unwanted[] = {"weight_ih_l1", "weight_ih_l0_reverse", "weight_hr_l0"};
    rp_net *net = reading->net;
    rpi_part parts[3];
    int some = rpi_layer_parts(net, layer, parts), recurrent = net->layers[layer].kind == RPI_RECURRENT;
    const char *name = rpi_layer_name(&net->layers[layer]), *bias = recurrent ? "bias_ih_l0" : "bias";
    if (!net->layers[layer].bias && rpi_has_tensor(reading, module, bias))
        return rpi_refuse(reading, RP_ERR_SHAPE, "there is a tensor %s.%s, but layer %d (%s) has no bias", module, bias,
                          layer, name);
    for (int i = 0; i < 3; i++)
        if (recurrent && rpi_has_tensor(reading, module, unwanted[i]))
            return rpi_refuse(reading, RP_ERR_UNSUPPORTED,
                              "there is a tensor %s.%s: the module has more than one layer or direction; layer %d (%s) "
                              "has one",
                              module, unwanted[i], layer, name);
    for (int i = 0; i < some; i++) {
        int twice = recurrent && !strcmp(parts[i].name, "bias");
        rpi_sources terms;
        rp_status status;
        terms.second[0] = 0;
        rpi_format(terms.first, RPI_NAME, twice ? "%s.bias_ih_l0" : "%s.%s", module, parts[i].name);
        if (recurrent && !twice) rpi_format(terms.first, RPI_NAME, "%s.%s_l0", module, parts[i].name);
        if (twice) rpi_format(terms.second, RPI_NAME, "%s.bias_hh_l0", module);
        status = rpi_import_part(reading, &parts[i], &terms, take);
        if (status) return status;
    }
    return RP_OK;
}

/* The least number above `last` of a module that has weights; -1: there is none. */
static int rpi_next_module(const rpi_reading *reading, int last) {
    int least = -1;
    for (int i = 0; i < reading->file.count; i++) {
        rpi_reader name = rpi_name_of(reading, &reading->file.tensors[i]);
        char module[RPI_WORD], rest[RPI_WORD];
        uint64_t number;
        rpi_next_word(&name, ".", module, RPI_WORD);
        rpi_next_word(&name, ".", rest, RPI_WORD);
        if (!rpi_read_unsigned(module, INT_MAX, &number) || (int)number <= last) continue;
        rpi_next_word(&name, "", rest, RPI_WORD);
        if (strcmp(rest, "weight") && strcmp(rest, "weight_ih_l0")) continue;
        if (least < 0 || (int)number < least) least = (int)number;
    }
    return least;
}

static rp_status rpi_import_sequential(const rpi_reading *reading, int take) {
    const rp_net *net = reading->net;
    int module = -1;
    for (int i = 0; i < net->layer_count; i++) {
        char name[16];
        rp_status status;
        if (!net->layers[i].affine) continue;
        module = rpi_next_module(reading, module);
        if (module < 0)
            return rpi_refuse(
                reading, RP_ERR_VALUE,
                "there is no module for layer %d (%s): of those with numbers (0.weight, ...), too few have "
                "a weight; see names of rp_import",
                i, rpi_layer_name(&net->layers[i]));
        rpi_format(name, sizeof name, "%d", module);
        status = rpi_import_module(reading, i, name, take);
        if (status) return status;
    }
    return RP_OK;
}

/* One item of the names: "2 weight = a", "2 bias = a + b", "2 = a". */
typedef struct rpi_naming {
    const rpi_reading *reading;
    rpi_reader from;
    char word[RPI_NAME];
} rpi_naming;

static void rpi_next_name(rpi_naming *naming) { rpi_next_word(&naming->from, ";=", naming->word, RPI_NAME); }
static int rpi_naming_ends(const rpi_naming *naming) { return !*naming->word || *naming->word == ';'; }
static rp_status rpi_misnamed(const rpi_naming *naming, const char *what) {
    return rpi_refuse(naming->reading, RP_ERR_VALUE, "names: %s, not '%s'", what,
                      *naming->word ? naming->word : "the end");
}

static rp_status rpi_import_item(rpi_naming *naming, int take) {
    const rpi_reading *reading = naming->reading;
    rp_net *net = reading->net;
    rpi_part parts[3], *part = NULL;
    rpi_sources terms;
    const char *name;
    uint64_t layer;
    int some;
    if (!rpi_read_unsigned(naming->word, INT_MAX, &layer))
        return rpi_misnamed(naming, "the number of a layer must come first");
    if ((int)layer >= net->layer_count)
        return rpi_refuse(reading, RP_ERR_VALUE, "names: there is no layer %d; the net has %d", (int)layer,
                          net->layer_count);
    name = rpi_layer_name(&net->layers[layer]);
    some = rpi_layer_parts(net, (int)layer, parts);
    if (!some) return rpi_refuse(reading, RP_ERR_VALUE, "names: layer %d (%s) has no parameters", (int)layer, name);
    rpi_next_name(naming);
    if (strcmp(naming->word, "=")) {
        for (int i = 0; i < some; i++)
            if (!strcmp(naming->word, parts[i].name)) part = &parts[i];
        if (!part)
            return rpi_refuse(reading, RP_ERR_VALUE, "names: layer %d (%s) has no parameter %s, and = does not follow",
                              (int)layer, name, *naming->word ? naming->word : "there");
        rpi_next_name(naming);
    }
    if (strcmp(naming->word, "=")) return rpi_misnamed(naming, "= must come next");
    rpi_next_name(naming);
    if (rpi_naming_ends(naming) || *naming->word == '=') return rpi_misnamed(naming, "a tensor must follow =");
    memcpy(terms.first, naming->word, RPI_NAME);
    terms.second[0] = 0;
    rpi_next_name(naming);
    if (part && !strcmp(naming->word, "+")) {
        rpi_next_name(naming);
        if (rpi_naming_ends(naming)) return rpi_misnamed(naming, "a tensor must follow +");
        memcpy(terms.second, naming->word, RPI_NAME);
        rpi_next_name(naming);
    }
    if (!rpi_naming_ends(naming)) return rpi_misnamed(naming, "the item must end");
    return part ? rpi_import_part(reading, part, &terms, take)
                : rpi_import_module(reading, (int)layer, terms.first, take);
}

static rp_status rpi_import_names(const rpi_reading *reading, const char *names, int take) {
    rpi_naming naming;
    if (!names) return rpi_import_sequential(reading, take);
    naming.reading = reading;
    naming.from = rpi_reader_of(names);
    for (rpi_next_name(&naming); *naming.word; rpi_next_name(&naming)) {
        rp_status status = *naming.word == ';' ? RP_OK : rpi_import_item(&naming, take);
        if (status) return status;
    }
    return RP_OK;
}

/* Of a checked file; nothing changes before all of it is found good. */
static rp_status rpi_import_file(const rpi_reading *reading, const char *names) {
    rp_net *net = reading->net;
    rp_status status = rpi_import_names(reading, names, 0);
    if (status) return status;
    rpi_import_names(reading, names, 1);
    rpi_restart_state(net);
    net->place.active = net->fitting;
    net->forward_count = 0;
    return RP_OK;
}

RP_API rp_status rp_import_memory(rp_net *net, const void *bytes, size_t size, const char *names) {
    rpi_reading reading;
    rp_status status = rpi_built(net, "rp_import_memory");
    if (status) return status;
    reading = rpi_reading_of(net, "rp_import_memory", NULL);
    status = rpi_read_memory(&reading, bytes, size, 0);
    if (!status) status = rpi_import_file(&reading, names);
    rpi_file_free(&net->memory, &reading.file);
    return status;
}

#ifndef RP_NO_STDIO
RP_API rp_status rp_import(rp_net *net, const char *path, const char *names) {
    rpi_reading reading;
    rp_status status = rpi_built(net, "rp_import");
    if (status) return status;
    reading = rpi_reading_of(net, "rp_import", path);
    status = rpi_read_path(&reading);
    if (!status) status = rpi_import_file(&reading, names);
    rpi_file_free(&net->memory, &reading.file);
    return status;
}
#endif

/* >>macros
   The program keeps what is documented, and RPI_IMPLEMENTED; see tests/inclusion.sh. */
#ifndef RPI_KEEP_MACROS /* tests that look inside */
#undef RPI_ASAN
#undef RPI_POSIX
#undef RPI_VECTORS
#undef RPI_INLINE
#undef RPI_FETCH
#undef RPI_NOINLINE
#undef RPI_X86
#undef RPI_AMX
#undef RPI_ROUGH_STEP
#undef RPI_ROUGH_ROWS
#undef RPI_ROUGH_TERMS
#undef RPI_NEON
#undef RPI_EXPONENT
#undef RPI_MAGNITUDE
#undef RPI_REAL_MAX
#undef RPI_REAL_MIN
#undef RPI_MATH
#undef RPI_LINE
#undef RPI_LINE_REALS
#undef RPI_LARGEST
#undef RPI_GAP
#undef RPI_K_BLOCK
#undef RPI_M_BLOCK
#undef RPI_PANEL
#undef RPI_POSITIONS
#undef RPI_WINDOWS
#undef RPI_FILTERS
#undef RPI_FEW
#undef RPI_ROWS_MOST
#undef RPI_TAPS_MOST
#undef RPI_JOIN2
#undef RPI_JOIN
#undef RPI_FN
#undef RPI_GRAIN
#undef RPI_THREAD_RESULT
#undef RPI_SPINS
#undef RPI_ALL_READ
#undef RPI_LANES_MOST
#undef RPI_WEIGHTS
#undef RPI_L2_REALS
#undef RPI_READS
#undef RPI_SOLVERS
#undef RPI_ACTIVATIONS
#undef RPI_BUSY
#undef RPI_LU_BLOCK
#undef RPI_LOAD
#undef RPI_STORE
#undef RPI_ALL
#undef RPI_ALL_INT
#undef RPI_FMA
#undef RPI_ROOT
#undef RPI_LOAD_SOME
#undef RPI_STORE_SOME
#undef RPI_ABS
#undef RPI_SELECT
#undef RPI_LANEWISE
#undef RPI_EXP
#undef RPI_EXPM1
#undef RPI_LOG1P
#undef RPI_TANH
#undef RPI_NORMAL_TAIL
#undef RPI_POWER2
#undef RPI_ROWS_1
#undef RPI_ROWS_4
#undef RPI_ROWS_6
#undef RPI_VECTORS_1
#undef RPI_VECTORS_2
#undef RPI_VECTORS_3
#undef RPI_VECTORS_4
#undef RPI_BEGIN
#undef RPI_TERM
#undef RPI_END
#undef RPI_BEGIN_ROW
#undef RPI_TERM_ROW
#undef RPI_END_ROW
#undef RPI_DESCEND
#undef RPI_DESCEND_ROW
#undef RPI_LARGEST_TILE
#undef RPI_TILE
#undef RPI_CLEAR
#undef RPI_CLEAR_ROW
#undef RPI_READ_TAP
#undef RPI_CORRELATE_ROW
#undef RPI_KEEP
#undef RPI_KEEP_ROW
#endif

#endif /* RP_IMPLEMENTATION */

#else /* RPI_PASS */
/* >>template
   The kernels, compiled once for each instruction set. rpi_v is a vector of RPI_LANES reals (one real without the GNU
   vector extensions), rpi_i the integers of the same width; a mask is an rpi_i of zeros and minus ones. */
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
/* x in all lanes: an operator widens a number beside a vector, and x - 0 is x, also for -0; but not in strict standard C
   where numbers are evaluated in a wider type (x87, s390x), which does not fit. */
RPI_INLINE rpi_v RPI_FN(all)(rp_real x) {
#if !defined(__STRICT_ANSI__) || !defined(__FLT_EVAL_METHOD__) || __FLT_EVAL_METHOD__ == 0
    const rpi_v zero = {0};
    return x - zero;
#elif RPI_VECTOR_BYTES == 64
    return _mm512_set1_ps(x);
#elif RPI_VECTOR_BYTES == 32
    return _mm256_set1_ps(x);
#else
    rp_real lanes[RPI_LANES];
    for (int i = 0; i < RPI_LANES; i++) lanes[i] = x;
    return *(const RPI_FN(unaligned) *)lanes;
#endif
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
#define RPI_LANES_OF(name) RPI_FN(lanes_##name)
#define RPI_LANEWISE(name) \
    RPI_NOINLINE void RPI_FN(each_##name)(rp_real * lanes) { \
        for (int i = 0; i < RPI_LANES; i++) lanes[i] = RPI_MATH(name)(lanes[i]); \
    } \
    RPI_INLINE rpi_v RPI_LANES_OF(name)(rpi_v x) { \
        rp_real lanes[RPI_LANES]; \
        RPI_STORE(lanes, x); \
        RPI_FN(each_##name)(lanes); \
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
RPI_INLINE rpi_v RPI_FN(load_first)(const rp_real *p, int n) { return _mm512_maskz_loadu_ps(RPI_FN(some)(n), p); }
RPI_INLINE void RPI_FN(store_first)(rp_real *p, rpi_v x, int n) { _mm512_mask_storeu_ps(p, RPI_FN(some)(n), x); }
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
RPI_INLINE rpi_v RPI_FN(load_first)(const rp_real *p, int n) { return _mm256_maskload_ps(p, RPI_FN(some)(n)); }
RPI_INLINE void RPI_FN(store_first)(rp_real *p, rpi_v x, int n) { _mm256_maskstore_ps(p, RPI_FN(some)(n), x); }
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
RPI_INLINE rpi_v RPI_FN(load_first)(const rp_real *p, int n) {
    rp_real some[RPI_LANES] = {0};
    RPI_FN(copy_some)(some, p, n);
    return RPI_LOAD(some);
}
RPI_INLINE void RPI_FN(store_first)(rp_real *p, rpi_v x, int n) {
    rp_real some[RPI_LANES];
    RPI_STORE(some, x);
    RPI_FN(copy_some)(p, some, n);
}
#ifdef RPI_NEON_PASS
#define RPI_ROOT RPI_FN(root)
RPI_INLINE rpi_v RPI_ROOT(rpi_v x) { return (rpi_v)vsqrtq_f32((float32x4_t)x); }
#elif defined(RPI_X86) && defined(__SSE2__)
#define RPI_ROOT RPI_FN(root)
RPI_INLINE rpi_v RPI_ROOT(rpi_v x) { return _mm_sqrt_ps(x); }
#else
#define RPI_ROOT RPI_LANES_OF(sqrt)
RPI_LANEWISE(sqrt)
#endif
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

/* Whole vectors as such: where lanes are left out, some processors write slowly, and read late what was written. */
RPI_INLINE rpi_v RPI_LOAD_SOME(const rp_real *p, int n) {
    return n < RPI_LANES ? RPI_FN(load_first)(p, n) : RPI_LOAD(p);
}
RPI_INLINE void RPI_STORE_SOME(rp_real *p, rpi_v x, int n) {
    if (n < RPI_LANES) RPI_FN(store_first)(p, x, n);
    else RPI_STORE(p, x);
}

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
/* x, or a zero of its sign where it is smaller: subnormal numbers, in which means of zeros end and derivatives of what
   fits already, slow some processors down a hundred times. */
RPI_INLINE rpi_v RPI_FN(at_least)(rp_real least, rpi_v x) {
    const rpi_i magnitude = RPI_ALL_INT(RPI_MAGNITUDE); /* as integers, since to compare what is not a number traps */
    rpi_i below = RPI_GREATER(RPI_BITS(RPI_ALL(least)), RPI_BITS(x) & magnitude);
    return RPI_REALS(RPI_BITS(x) & ~(below & magnitude));
}
RPI_INLINE rpi_v RPI_FN(normal)(rpi_v x) { return RPI_FN(at_least)(RPI_REAL_MIN, x); }
/* A cross-entropy's derivative, or a curvature, whose products with numbers of a usual size are to be normal, too. */
RPI_INLINE rpi_v RPI_FN(substantial)(rpi_v x) { return RPI_FN(at_least)(RPI_REAL_MIN * (1 << 26), x); }
RPI_INLINE int RPI_FN(any_lane)(rpi_i mask) {
    rpi_int lanes[RPI_LANES], any = 0;
    memcpy(lanes, &mask, sizeof lanes);
    for (int i = 0; i < RPI_LANES; i++) any |= lanes[i];
    return any != 0;
}

RPI_LANEWISE(log)

#ifdef RP_DOUBLE
RPI_LANEWISE(erfc)
RPI_LANEWISE(exp)
RPI_LANEWISE(expm1)
RPI_LANEWISE(log1p)
RPI_LANEWISE(tanh)
#define RPI_EXP RPI_LANES_OF(exp)
#define RPI_EXPM1 RPI_LANES_OF(expm1)
#define RPI_LOG1P RPI_LANES_OF(log1p)
#define RPI_TANH(x, share) RPI_LANES_OF(tanh)(x)
#define RPI_NORMAL_TAIL(x, power) (RPI_ALL(0.5) * RPI_LANES_OF(erfc)((x)*RPI_ALL(0.70710678118654752)))
#else
#define RPI_EXP RPI_FN(exp)
#define RPI_EXPM1 RPI_FN(expm1)
#define RPI_LOG1P RPI_FN(log1p)
#define RPI_TANH RPI_FN(tanh)
#define RPI_NORMAL_TAIL RPI_FN(normal_tail)
#define RPI_POWER2(n) RPI_REALS(((n) + RPI_ALL_INT(127)) << 23)

/* x 2^n */
RPI_INLINE rpi_v RPI_FN(times_power)(rpi_v x, rpi_i n) {
#if RPI_VECTOR_BYTES == 64
    return _mm512_maskz_scalef_ps(0xFFFF, x, RPI_FN(to_real)(n));
#else
    rpi_i half = n >> 1; /* two factors, as one may over- or underflow */
    return x * RPI_POWER2(half) * RPI_POWER2(n - half);
#endif
}
/* low <= x <= high, or not a number */
RPI_INLINE rpi_v RPI_FN(clamp)(rpi_v low, rpi_v x, rpi_v high) {
#if RPI_VECTOR_BYTES == 64
    return _mm512_maskz_max_ps(0xFFFF, low, _mm512_maskz_min_ps(0xFFFF, high, x)); /* the second if one is no number */
#elif RPI_VECTOR_BYTES == 32
    return _mm256_max_ps(low, _mm256_min_ps(high, x));
#else
    x = RPI_SELECT(RPI_GREATER(x, high), high, x);
    return RPI_SELECT(RPI_GREATER(low, x), low, x);
#endif
}

/* x = n log 2 + r; exp(r) - 1 = *remainder + *tail, r and the rest, by the polynomial of Cephes. Returns n. */
RPI_INLINE rpi_i RPI_FN(exp_parts)(rpi_v x, rpi_v *remainder, rpi_v *tail) {
    const rpi_v magic = RPI_ALL(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer in the low bits */
    rpi_v r, p;
    rpi_i n;
    x = RPI_FN(clamp)(RPI_ALL(-105), x, RPI_ALL(89));
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
    return n;
}
RPI_INLINE rpi_v RPI_EXP(rpi_v x) {
    rpi_v r, tail, sum;
    rpi_i n = RPI_FN(exp_parts)(x, &r, &tail);
    sum = RPI_ALL(1) + r;
    return RPI_FN(times_power)(sum + (tail + (r - (sum - RPI_ALL(1)))), n);
}
RPI_INLINE rpi_v RPI_EXPM1(rpi_v x) { /* x <= 0 */
    rpi_v r, tail, power;
    rpi_i n = RPI_FN(exp_parts)(x, &r, &tail);
    power = RPI_FN(times_power)(RPI_ALL(1), n);
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
/* Cephes: a polynomial near 0; elsewhere 1 - 2 share, share = e / (1 + e), e = exp(-2|x|) */
RPI_INLINE rpi_v RPI_TANH(rpi_v x, rpi_v share) {
    rpi_v size = RPI_ABS(x), z = x * x, beyond = RPI_FMA(RPI_ALL(-2), share, RPI_ALL(1)), p;
    p = RPI_FMA(RPI_ALL(-5.70498872745e-3f), z, RPI_ALL(2.06390887954e-2f));
    p = RPI_FMA(p, z, RPI_ALL(-5.37397155531e-2f));
    p = RPI_FMA(p, z, RPI_ALL(1.33314422036e-1f));
    p = RPI_FMA(p, z, RPI_ALL(-3.33332819422e-1f));
    beyond = RPI_REALS(RPI_BITS(beyond) | (RPI_BITS(x) & ~RPI_ALL_INT(RPI_MAGNITUDE)));
    return RPI_SELECT(RPI_GREATER(RPI_ALL(0.625f), size), RPI_FMA(p * z, x, x), beyond);
}
/* 1 - Phi(x) for x >= 0, power = exp(-x^2 / 2): their quotient is t times a polynomial in t = 1 / (1 + .35 x), fitted
   to 14.5, where power ends, by least squares reweighted until the largest relative error, 3.2e-8, was least. */
RPI_INLINE rpi_v RPI_NORMAL_TAIL(rpi_v x, rpi_v power) {
    rpi_v t = RPI_ALL(1) / RPI_FMA(RPI_ALL(0.35f), x, RPI_ALL(1)), p;
    p = RPI_FMA(RPI_ALL(-0.02915788572f), t, RPI_ALL(0.1440309192f));
    p = RPI_FMA(p, t, RPI_ALL(-0.2558390029f));
    p = RPI_FMA(p, t, RPI_ALL(0.1593196938f));
    p = RPI_FMA(p, t, RPI_ALL(-0.02321235206f));
    p = RPI_FMA(p, t, RPI_ALL(0.1055525015f));
    p = RPI_FMA(p, t, RPI_ALL(0.1198212879f));
    p = RPI_FMA(p, t, RPI_ALL(0.1398635154f));
    p = RPI_FMA(p, t, RPI_ALL(0.1396213068f));
    return power * (p * t);
}
#endif

/* The one microkernel: a tile of C, `rows` rows by v vectors, stays in registers while the inner index advances.
   c<i><j> is a sum, a<i> an entry of A in all lanes, b<j> a vector of B. */
/* clang-format off */
#define RPI_ROWS_1(X, v) X(0, v)
#define RPI_ROWS_2(X, v) RPI_ROWS_1(X, v) X(1, v)
#define RPI_ROWS_4(X, v) RPI_ROWS_2(X, v) X(2, v) X(3, v)
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
#define RPI_DESCEND(i, j) RPI_FN(descend_by)(c + i * ldc + j * RPI_LANES, scale, c##i##j, rate);
#define RPI_DESCEND_ROW(i, v) RPI_VECTORS_##v(RPI_DESCEND, i)
#define RPI_TILE(advance, rows, v, end) \
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
        RPI_ROWS_##rows(end, v) \
    }

/* How A and B advance to entry p of the inner index: by strides, or by tables. */
#define RPI_BY_STRIDE(from, stride, at, p) ((from) + (p) * (stride))
#define RPI_BY_TABLE(from, stride, at, p) ((from) + (at)[p])

#if RPI_TILE_ROWS == 6
#define RPI_IF_TALL(advance, v) \
    if (rows == 6) \
        RPI_TILE(advance, 6, v, RPI_END_ROW) \
    else
#else
#define RPI_IF_TALL(advance, v)
#endif
#define RPI_STRIP(name, v) RPI_FN(name##_##v)
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
                RPI_TILE(advance, 4, v, RPI_END_ROW) \
            else if (rows == 2) \
                RPI_TILE(advance, 2, v, RPI_END_ROW) \
            else \
                RPI_TILE(advance, 1, v, RPI_END_ROW) \
            a += rows * a_row; \
            c += rows * ldc; \
            start += per_row ? rows : rows * start_row; \
        } \
    }

/* One tile as large as can be, whose sums go from the registers into the parameters at c: c += rate (scale A B), where
   that is finite, rounded as the update of SGD rounds it. */
RPI_INLINE void RPI_FN(descend_by)(rp_real *parameters, rpi_v scale, rpi_v sum, rpi_v rate) {
    const rpi_v w = RPI_LOAD(parameters), step = RPI_FMA(rate, scale * sum, RPI_ALL(0));
    RPI_STORE(parameters, RPI_FN(finite_or)(w + step, w));
}
#define RPI_LARGEST_TILE(rows, v) RPI_TILE(RPI_BY_STRIDE, rows, v, RPI_DESCEND_ROW)
static void RPI_FN(descend)(const rpi_gemm *q, rp_real scale_by, rp_real rate_by) {
    static const rp_real start[RPI_TILE_VECTORS * RPI_LANES] = {0};
    const ptrdiff_t a_row = q->a_row, ldc = q->ldc, start_row = 0;
    const int per_row = 0;
    const rp_real *a = q->a;
    const rpi_v scale = RPI_ALL(scale_by), rate = RPI_ALL(rate_by);
    for (int from = 0; from < q->n; from += RPI_TILE_VECTORS * RPI_LANES) {
        const rp_real *b = q->b + from;
        rp_real *c = q->c + from;
        RPI_LARGEST_TILE(RPI_TILE_ROWS, RPI_TILE_VECTORS)
    }
}

/* Rows of the next tile when so many are left. Few sums do not hide their latency, so eight rows are 4 + 4. */
RPI_INLINE int RPI_FN(tile_rows)(int left) {
    if (left >= RPI_TILE_ROWS && left != 8) return RPI_TILE_ROWS;
    if (left >= 4) return 4;
    return left >= 2 ? 2 : 1;
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
#define RPI_READ_TAP(i, j) const rpi_v b##j = RPI_REALS(RPI_BITS(RPI_LOAD(y[j] + s)) & mask);
#define RPI_CORRELATE_ROW(i, place) \
    const rpi_v a##i = RPI_LOAD(place); \
    RPI_EACH_TAP(RPI_TERM, i)
#define RPI_KEEP(i, j) kept[i][j] = c##i##j;
#define RPI_KEEP_ROW(i, v) RPI_EACH_TAP(RPI_KEEP, i)

/* Columns from..end - 1 of four rows of d, so far apart, and of RPI_TAPS taps of y. */
RPI_INLINE void RPI_FN(correlate_columns)(const rpi_correlation *q, int magnitudes, const rp_real *d,
                                          const ptrdiff_t *row, const rp_real *const *y, int from, int end,
                                          rpi_v kept[4][RPI_TAPS]) {
    const rpi_i mask = RPI_ALL_INT(magnitudes ? RPI_MAGNITUDE : -1);
    const rp_real *const *last = y + (ptrdiff_t)q->positions * RPI_TAPS_MOST;
    const ptrdiff_t d_step = q->d_step, row1 = row[1], row2 = row[2], row3 = row[3];
    RPI_ROWS_4(RPI_CLEAR_ROW, RPI_TAPS)
    for (; y != last; y += RPI_TAPS_MOST, d += d_step)
        for (ptrdiff_t s = from; s < end; s += RPI_LANES) {
            RPI_EACH_TAP(RPI_READ_TAP, 0)
            RPI_CORRELATE_ROW(0, d + s)
            RPI_CORRELATE_ROW(1, d + row1 + s)
            RPI_CORRELATE_ROW(2, d + row2 + s)
            RPI_CORRELATE_ROW(3, d + row3 + s)
        }
    RPI_ROWS_4(RPI_KEEP_ROW, RPI_TAPS)
}
/* clang-format on */

/* What a tile's row adds to the sums of its taps, of which there mostly are RPI_TAPS. */
RPI_INLINE void RPI_FN(add_taps)(const rpi_correlation *q, int taps, rpi_v weight, const rpi_v *kept, rp_real *to) {
    if (!q->weight)
        for (int k = 0; k < taps; k++, to += RPI_LANES) RPI_STORE(to, RPI_LOAD(to) + kept[k]);
    else if (q->squares)
        for (int k = 0; k < taps; k++, to += RPI_LANES) RPI_STORE(to, RPI_FMA(weight, kept[k] * kept[k], RPI_LOAD(to)));
    else
        for (int k = 0; k < taps; k++, to += RPI_LANES) RPI_STORE(to, RPI_FMA(weight, RPI_ABS(kept[k]), RPI_LOAD(to)));
}

/* A tile's sums of rows m and taps, to their place, or to the samples' totals at column s. */
static void RPI_FN(add_tile)(const rpi_correlation *q, int m, int taps, rpi_v kept[4][RPI_TAPS], rp_real *sums, int s) {
    const rpi_v weight = q->weight ? RPI_LOAD(q->weight + s) : RPI_ALL(1);
    const ptrdiff_t row = q->sums_row * RPI_LANES;
    if (q->total) {
        rpi_v total = RPI_ALL(0);
        for (int r = 0; r < m; r++)
            for (int k = 0; k < taps; k++)
                total = q->squares ? RPI_FMA(kept[r][k], kept[r][k], total) : total + RPI_ABS(kept[r][k]);
        RPI_STORE(q->total + s, RPI_LOAD(q->total + s) + total);
    } else if (taps == RPI_TAPS)
        for (int r = 0; r < m; r++) RPI_FN(add_taps)(q, RPI_TAPS, weight, kept[r], sums + r * row);
    else
        for (int r = 0; r < m; r++) RPI_FN(add_taps)(q, taps, weight, kept[r], sums + r * row);
}

/* Rows i..i + m - 1 and taps j..j + taps - 1; those beyond the last repeat it and are not kept. */
static void RPI_FN(correlate_tile)(const rpi_correlation *q, int i, int m, int j, int taps) {
    const int step = q->weight || q->total ? RPI_LANES : q->n, end = q->from + q->n;
    const rp_real *d = q->d + i * q->d_row;
    rp_real *sums = q->total ? NULL : q->sums + (i * q->sums_row + j) * RPI_LANES;
    ptrdiff_t row[4];
    for (int r = 0; r < 4; r++) row[r] = (r < m ? r : m - 1) * q->d_row;
    for (int s = q->from; s < end; s += step) {
        rpi_v kept[4][RPI_TAPS];
        if (q->magnitudes) RPI_FN(correlate_columns)(q, 1, d, row, q->y + j, s, s + step, kept);
        else RPI_FN(correlate_columns)(q, 0, d, row, q->y + j, s, s + step, kept);
        RPI_FN(add_tile)(q, m, taps, kept, sums, s);
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

/* The place of the largest of the window's rows at column s: the first of equals. */
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
            rpi_v before = w->alone ? RPI_ALL(0) : RPI_LOAD(to);
            RPI_STORE(to, before + RPI_SELECT(RPI_EQUAL(place, RPI_ALL_INT(j)), value, RPI_ALL(0)));
        }
    }
}

/* Every second entry of a row, or to every second; the others are another's. */
#if RPI_VECTOR_BYTES == 64
RPI_INLINE rpi_v RPI_FN(take_pairs)(const rp_real *p, int n) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    rpi_v low = RPI_LOAD_SOME(p, 2 * n - 1), high = RPI_ALL(0);
    if (n > 8) high = RPI_LOAD_SOME(p + 16, 2 * n - 17);
    return _mm512_permutex2var_ps(low, even, high);
}
RPI_INLINE void RPI_FN(put_pairs)(rp_real *p, rpi_v x, int n) {
    const __m512i low = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    const __m512i high = _mm512_setr_epi32(8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15);
    const __mmask16 some = RPI_FN(some)(2 * n) & 0x5555;
    _mm512_mask_storeu_ps(p, some, _mm512_maskz_permutexvar_ps(0xFFFF, low, x));
    if (n > 8)
        _mm512_mask_storeu_ps(p + 16, RPI_FN(some)(2 * n - 16) & 0x5555, _mm512_maskz_permutexvar_ps(0xFFFF, high, x));
}
#elif RPI_VECTOR_BYTES == 32
RPI_INLINE rpi_v RPI_FN(take_pairs)(const rp_real *p, int n) {
    rpi_v low = RPI_LOAD_SOME(p, 2 * n - 1), high = RPI_ALL(0);
    if (n > 4) high = RPI_LOAD_SOME(p + 8, 2 * n - 9);
    return (rpi_v)_mm256_permute4x64_pd((__m256d)_mm256_shuffle_ps(low, high, 0x88), 0xD8);
}
RPI_INLINE void RPI_FN(put_pairs)(rp_real *p, rpi_v x, int n) {
    const __m256i even = _mm256_setr_epi32(-1, 0, -1, 0, -1, 0, -1, 0);
    __m256 wide = (__m256)_mm256_permute4x64_pd((__m256d)x, 0xD8);
    _mm256_maskstore_ps(p, even & RPI_FN(some)(2 * n), _mm256_unpacklo_ps(wide, wide));
    if (n > 4) _mm256_maskstore_ps(p + 8, even & RPI_FN(some)(2 * n - 8), _mm256_unpackhi_ps(wide, wide));
}
#else
RPI_INLINE rpi_v RPI_FN(take_pairs)(const rp_real *p, int n) {
    rp_real some[RPI_LANES] = {0};
    for (int i = 0; i < n; i++) some[i] = p[2 * i];
    return RPI_LOAD(some);
}
RPI_INLINE void RPI_FN(put_pairs)(rp_real *p, rpi_v x, int n) {
    rp_real some[RPI_LANES];
    RPI_STORE(some, x);
    for (int i = 0; i < n; i++) p[2 * i] = some[i];
}
#endif

/* One vector of each row, inlined for steps of 1 and 2. */
RPI_INLINE void RPI_FN(move_column)(int rows, int n, const rp_real *in, ptrdiff_t in_row, int in_step, rp_real *out,
                                    ptrdiff_t out_row, int out_step, int add) {
    for (int i = 0; i < rows; i++, in += in_row, out += out_row) {
        rpi_v x = in_step == 1 ? RPI_LOAD_SOME(in, n) : RPI_FN(take_pairs)(in, n);
        if (add) x += out_step == 1 ? RPI_LOAD_SOME(out, n) : RPI_FN(take_pairs)(out, n);
        if (out_step == 1) RPI_STORE_SOME(out, x, n);
        else RPI_FN(put_pairs)(out, x, n);
    }
}
#if RPI_VECTOR_BYTES == 64
/* Half a vector, which crosses fewer lines of the cache. */
RPI_INLINE void RPI_FN(move_narrow)(int rows, int n, const rp_real *in, ptrdiff_t in_row, rp_real *out,
                                    ptrdiff_t out_row) {
    const __m256i some = _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    for (int i = 0; i < rows; i++, in += in_row, out += out_row)
        _mm256_maskstore_ps(out, some, _mm256_maskload_ps(in, some));
}
#endif
static void RPI_FN(move_rows)(int rows, int n, const rp_real *in, ptrdiff_t in_row, ptrdiff_t in_step, rp_real *out,
                              ptrdiff_t out_row, ptrdiff_t out_step, int add) {
    if (in_step > 2 || out_step > 2 || in_step + out_step > 3) {
        for (int i = 0; i < rows; i++, in += in_row, out += out_row)
            for (int s = 0; s < n; s++) out[s * out_step] = add ? out[s * out_step] + in[s * in_step] : in[s * in_step];
        return;
    }
    for (int s = 0; s < n; s += RPI_LANES) {
        const rp_real *from = in + s * in_step;
        rp_real *to = out + s * out_step;
        int some = n - s < RPI_LANES ? n - s : RPI_LANES;
        if (in_step == 2) RPI_FN(move_column)(rows, some, from, in_row, 2, to, out_row, 1, add);
        else if (out_step == 2) RPI_FN(move_column)(rows, some, from, in_row, 1, to, out_row, 2, add);
        else if (add) RPI_FN(move_column)(rows, some, from, in_row, 1, to, out_row, 1, 1);
#if RPI_VECTOR_BYTES == 64
        else if (some <= 8) RPI_FN(move_narrow)(rows, some, from, in_row, to, out_row);
#endif
        else RPI_FN(move_column)(rows, some, from, in_row, 1, to, out_row, 1, 0);
    }
}

static void RPI_FN(add_rows)(int rows, int n, rp_real scale, const rp_real *in, ptrdiff_t ldi, rp_real *out,
                             ptrdiff_t ldo) {
    for (int i = 0; i < rows; i++, in += ldi, out += ldo)
        for (int s = 0; s < n; s += RPI_LANES)
            RPI_STORE(out + s, RPI_FMA(RPI_ALL(scale), RPI_LOAD(in + s), RPI_LOAD(out + s)));
}

/* The sums of LANES vectors, each over its own lanes. */
#if RPI_VECTOR_BYTES == 64
/* a and b folded to half of their lengths, side by side: by fours of lanes, or within them */
RPI_INLINE rpi_v RPI_FN(fold_halves)(rpi_v a, rpi_v b) {
    return _mm512_maskz_shuffle_f32x4(0xFFFF, a, b, 0x44) + _mm512_maskz_shuffle_f32x4(0xFFFF, a, b, 0xEE);
}
RPI_INLINE rpi_v RPI_FN(fold_fours)(rpi_v a, rpi_v b) {
    return _mm512_maskz_shuffle_f32x4(0xFFFF, a, b, 0x88) + _mm512_maskz_shuffle_f32x4(0xFFFF, a, b, 0xDD);
}
RPI_INLINE rpi_v RPI_FN(fold_lanes)(rpi_v a, rpi_v b) {
    return _mm512_maskz_unpacklo_ps(0xFFFF, a, b) + _mm512_maskz_unpackhi_ps(0xFFFF, a, b);
}
/* Of four rows that are four apart, or two apart. */
RPI_INLINE rpi_v RPI_FN(sum_fours)(const rpi_v *x) {
    return RPI_FN(fold_fours)(RPI_FN(fold_halves)(x[0], x[8]), RPI_FN(fold_halves)(x[4], x[12]));
}
RPI_INLINE rpi_v RPI_FN(sum_each)(const rpi_v *x) {
    rpi_v even = RPI_FN(fold_lanes)(RPI_FN(sum_fours)(x), RPI_FN(sum_fours)(x + 2));
    rpi_v odd = RPI_FN(fold_lanes)(RPI_FN(sum_fours)(x + 1), RPI_FN(sum_fours)(x + 3));
    rpi_v all = RPI_FN(fold_lanes)(even, odd);
    return _mm512_maskz_shuffle_f32x4(0xFFFF, all, all, 0xD8);
}
#elif RPI_VECTOR_BYTES == 32
RPI_INLINE rpi_v RPI_FN(sum_each)(const rpi_v *x) {
    __m256 low = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
    __m256 high = _mm256_hadd_ps(_mm256_hadd_ps(x[4], x[5]), _mm256_hadd_ps(x[6], x[7]));
    return _mm256_permute2f128_ps(low, high, 0x20) + _mm256_permute2f128_ps(low, high, 0x31);
}
#else
RPI_INLINE rpi_v RPI_FN(sum_each)(const rpi_v *x) {
    rp_real sums[RPI_LANES];
    for (int i = 0; i < RPI_LANES; i++) sums[i] = RPI_FN(sum_lanes)(0, x[i]);
    return RPI_LOAD(sums);
}
#endif

/* LANES rows of A, or of its magnitudes, times x: limited by the reading of A, so all share each read of x. Rows
   behind the last repeat it. */
/* clang-format off */
#if RPI_VECTOR_BYTES == 64
#define RPI_EACH_ROW(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
#elif RPI_VECTOR_BYTES == 32
#define RPI_EACH_ROW(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#elif !defined(RPI_VECTORS)
#define RPI_EACH_ROW(X) X(0)
#elif defined(RP_DOUBLE)
#define RPI_EACH_ROW(X) X(0) X(1)
#else
#define RPI_EACH_ROW(X) X(0) X(1) X(2) X(3)
#endif
#define RPI_CLEAR_LINE(r) \
    const rp_real *row##r = a + (r < rows ? r : rows - 1) * a_row; \
    rpi_v sum##r = RPI_ALL(0);
#define RPI_ADD_LINE(r) sum##r = RPI_FMA(RPI_REALS(RPI_BITS(RPI_LOAD(row##r + p)) & mask), b, sum##r);
#define RPI_ADD_REST(r) sum##r = RPI_FMA(RPI_REALS(RPI_BITS(RPI_LOAD_SOME(row##r + p, k - p)) & mask), b, sum##r);
#define RPI_LINE_SUM(r) sum##r,
RPI_INLINE rpi_v RPI_FN(rows_times)(const rp_real *a, ptrdiff_t a_row, int rows, int k, rpi_int bits,
                                    const rp_real *x) {
    const rpi_i mask = RPI_ALL_INT(bits);
    int p = 0;
    RPI_EACH_ROW(RPI_CLEAR_LINE)
    for (; p + RPI_LANES <= k; p += RPI_LANES) {
        rpi_v b = RPI_LOAD(x + p);
        RPI_EACH_ROW(RPI_ADD_LINE)
    }
    if (p < k) {
        rpi_v b = RPI_LOAD_SOME(x + p, k - p);
        RPI_EACH_ROW(RPI_ADD_REST)
    }
    {
        const rpi_v sums[] = {RPI_EACH_ROW(RPI_LINE_SUM)};
        return RPI_FN(sum_each)(sums);
    }
}
/* clang-format on */

/* Four vectors of columns, or the first n lanes of one, of x'A, where A's rows are `stride` apart. */
RPI_INLINE void RPI_FN(four_times)(const rp_real *a, ptrdiff_t stride, int k, rpi_int bits, const rp_real *x,
                                   rpi_v *sums) {
    const rpi_i mask = RPI_ALL_INT(bits);
    rpi_v sum0 = RPI_ALL(0), sum1 = sum0, sum2 = sum0, sum3 = sum0;
    for (int p = 0; p < k; p++, a += stride) {
        rpi_v b = RPI_ALL(x[p]);
        sum0 = RPI_FMA(RPI_REALS(RPI_BITS(RPI_LOAD(a)) & mask), b, sum0);
        sum1 = RPI_FMA(RPI_REALS(RPI_BITS(RPI_LOAD(a + RPI_LANES)) & mask), b, sum1);
        sum2 = RPI_FMA(RPI_REALS(RPI_BITS(RPI_LOAD(a + 2 * RPI_LANES)) & mask), b, sum2);
        sum3 = RPI_FMA(RPI_REALS(RPI_BITS(RPI_LOAD(a + 3 * RPI_LANES)) & mask), b, sum3);
    }
    sums[0] = sum0;
    sums[1] = sum1;
    sums[2] = sum2;
    sums[3] = sum3;
}
RPI_INLINE rpi_v RPI_FN(some_times)(const rp_real *a, ptrdiff_t stride, int k, rpi_int bits, const rp_real *x, int n) {
    const rpi_i mask = RPI_ALL_INT(bits);
    rpi_v sum = RPI_ALL(0);
    for (int p = 0; p < k; p++, a += stride)
        sum = RPI_FMA(RPI_REALS(RPI_BITS(RPI_LOAD_SOME(a, n)) & mask), RPI_ALL(x[p]), sum);
    return sum;
}

/* out = A x, or |A| x, by bits, which begins at start[i] (NULL: 0), or at `same`. */
RPI_INLINE void RPI_FN(vector_product)(const rpi_product *q, rpi_int bits, const rp_real *x, const rp_real *start,
                                       rp_real same, rp_real *out) {
    const int by_row = q->a_column == 1;
    int some;
    for (int i = 0; i < q->m; i += some) {
        int left = q->m - i;
        rpi_v sums[4];
        some = by_row || left < 4 * RPI_LANES ? RPI_LANES : 4 * RPI_LANES;
        some = left < some ? left : some;
        if (by_row) sums[0] = RPI_FN(rows_times)(q->a + i * q->a_row, q->a_row, some, q->k, bits, x);
        else if (some > RPI_LANES) RPI_FN(four_times)(q->a + i, q->a_column, q->k, bits, x, sums);
        else sums[0] = RPI_FN(some_times)(q->a + i, q->a_column, q->k, bits, x, some);
        for (int j = 0; j < some; j += RPI_LANES) {
            rpi_v from = start ? RPI_LOAD_SOME(start + i + j, some - j) : RPI_ALL(same);
            RPI_STORE_SOME(out + i + j, from + sums[j / RPI_LANES], some - j);
        }
    }
}
static void RPI_FN(matrix_vector)(const rpi_product *q) {
    const rp_real column = q->column ? *q->column : 0;
    if (q->b) RPI_FN(vector_product)(q, -1, q->b, q->add ? q->c : q->bias, 0, q->c);
    if (q->b2) RPI_FN(vector_product)(q, RPI_MAGNITUDE, q->b2, q->add ? q->c2 : NULL, column, q->c2);
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

/* Do the lines of A fall on each other in L1? Measured: packed, A of 1024 columns takes 20% less time when transposed,
   and as it is with more than 256 columns of B; with fewer it took up to 20% more. */
RPI_INLINE int RPI_FN(worth_packing)(const rpi_gemm *gemm) {
    if (gemm->a_column == 1) return gemm->a_row % 256 == 0 && gemm->n > 256;
    return gemm->a_column % 256 == 0;
}

/* Rows i..i + RPI_M_BLOCK - 1 of A for the inner indices p..p + RPI_K_BLOCK - 1, to be added to C. */
static rpi_gemm RPI_FN(block_of_product)(const rpi_product *q, int i, int p) {
    rpi_gemm gemm;
    gemm.b = gemm.start = gemm.c = NULL; /* the caller's */
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
    return gemm;
}

static void RPI_FN(product_block)(const rpi_product *q, int i, int p) {
    const int starts = !p && !q->add;
    if (q->b) {
        rpi_gemm gemm = RPI_FN(block_of_product)(q, i, p);
        gemm.b = q->b + p * q->ldb;
        gemm.start = gemm.c = q->c + i * q->ldc;
        if (starts) {
            gemm.start = q->bias ? q->bias + i : NULL;
            gemm.per_row = 1;
        }
        if (RPI_FN(worth_packing)(&gemm)) RPI_FN(pack)(&gemm, 0, q->packed);
        RPI_FN(gemm)(&gemm);
    }
    if (q->b2) {
        rpi_gemm gemm = RPI_FN(block_of_product)(q, i, p);
        gemm.b = q->b2 + p * q->ldb;
        gemm.start = gemm.c = q->c2 + i * q->ldc;
        if (starts) {
            gemm.start = q->column;
            gemm.start_row = 0;
        }
        RPI_FN(pack)(&gemm, 1, q->packed);
        RPI_FN(gemm)(&gemm);
    }
}

static void RPI_FN(product)(const rpi_product *q) {
    for (int p = 0; p < q->k; p += RPI_K_BLOCK)
        for (int i = 0; i < q->m; i += RPI_M_BLOCK) RPI_FN(product_block)(q, i, p);
}

/* out[i][r] = in[r][i] for 4 columns of RPI_SQUARE rows. Without loops over vectors: gcc -O2 keeps their arrays in
   memory. */
#if RPI_VECTOR_BYTES == 64
#define RPI_SQUARE 16
/* Four columns of rows r, r + 4, r + 8 and r + 12, one behind the other. */
RPI_INLINE __m512 RPI_FN(every_fourth)(const rp_real *in, ptrdiff_t ldi) {
    __m512 x = _mm512_castps128_ps512(_mm_loadu_ps(in));
    x = _mm512_mask_broadcast_f32x4(x, 0x00F0, _mm_loadu_ps(in + 4 * ldi));
    x = _mm512_mask_broadcast_f32x4(x, 0x0F00, _mm_loadu_ps(in + 8 * ldi));
    return _mm512_mask_broadcast_f32x4(x, 0xF000, _mm_loadu_ps(in + 12 * ldi));
}
RPI_INLINE void RPI_FN(transpose_four)(const rp_real *in, ptrdiff_t ldi, rp_real *out, ptrdiff_t ldo) {
    __m512 a = RPI_FN(every_fourth)(in, ldi), b = RPI_FN(every_fourth)(in + ldi, ldi);
    __m512 c = RPI_FN(every_fourth)(in + 2 * ldi, ldi), d = RPI_FN(every_fourth)(in + 3 * ldi, ldi);
    __m512 ab = _mm512_maskz_unpacklo_ps(0xFFFF, a, b), ab2 = _mm512_maskz_unpackhi_ps(0xFFFF, a, b);
    __m512 cd = _mm512_maskz_unpacklo_ps(0xFFFF, c, d), cd2 = _mm512_maskz_unpackhi_ps(0xFFFF, c, d);
    _mm512_storeu_ps(out, _mm512_maskz_shuffle_ps(0xFFFF, ab, cd, 0x44));
    _mm512_storeu_ps(out + ldo, _mm512_maskz_shuffle_ps(0xFFFF, ab, cd, 0xEE));
    _mm512_storeu_ps(out + 2 * ldo, _mm512_maskz_shuffle_ps(0xFFFF, ab2, cd2, 0x44));
    _mm512_storeu_ps(out + 3 * ldo, _mm512_maskz_shuffle_ps(0xFFFF, ab2, cd2, 0xEE));
}
#elif RPI_VECTOR_BYTES == 32
#define RPI_SQUARE 8
/* Four columns of rows r and r + 4, one behind the other. */
RPI_INLINE __m256 RPI_FN(every_fourth)(const rp_real *in, ptrdiff_t ldi) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(in)), _mm_loadu_ps(in + 4 * ldi), 1);
}
RPI_INLINE void RPI_FN(transpose_four)(const rp_real *in, ptrdiff_t ldi, rp_real *out, ptrdiff_t ldo) {
    __m256 a = RPI_FN(every_fourth)(in, ldi), b = RPI_FN(every_fourth)(in + ldi, ldi);
    __m256 c = RPI_FN(every_fourth)(in + 2 * ldi, ldi), d = RPI_FN(every_fourth)(in + 3 * ldi, ldi);
    __m256 ab = _mm256_unpacklo_ps(a, b), ab2 = _mm256_unpackhi_ps(a, b);
    __m256 cd = _mm256_unpacklo_ps(c, d), cd2 = _mm256_unpackhi_ps(c, d);
    _mm256_storeu_ps(out, _mm256_shuffle_ps(ab, cd, 0x44));
    _mm256_storeu_ps(out + ldo, _mm256_shuffle_ps(ab, cd, 0xEE));
    _mm256_storeu_ps(out + 2 * ldo, _mm256_shuffle_ps(ab2, cd2, 0x44));
    _mm256_storeu_ps(out + 3 * ldo, _mm256_shuffle_ps(ab2, cd2, 0xEE));
}
#else
#define RPI_SQUARE 4
RPI_INLINE void RPI_FN(transpose_four)(const rp_real *in, ptrdiff_t ldi, rp_real *out, ptrdiff_t ldo) {
    for (ptrdiff_t i = 0; i < 4; i++) {
        rp_real a = in[i], b = in[ldi + i], c = in[2 * ldi + i], d = in[3 * ldi + i], *to = out + i * ldo;
        to[0] = a;
        to[1] = b;
        to[2] = c;
        to[3] = d;
    }
}
#endif

RPI_INLINE void RPI_FN(transpose_square)(const rp_real *in, ptrdiff_t ldi, rp_real *out, ptrdiff_t ldo) {
    for (int i = 0; i < RPI_SQUARE; i += 4) RPI_FN(transpose_four)(in + i, ldi, out + i * ldo, ldo);
}

/* The square of rows r.. at column c, where rows beyond the last repeat it. */
RPI_NOINLINE void RPI_FN(transpose_last)(const rp_real *in, ptrdiff_t ldi, int rows, int r, int c, rp_real *out,
                                         ptrdiff_t ldo) {
    rp_real square[RPI_SQUARE * RPI_SQUARE];
    for (int i = 0; i < RPI_SQUARE; i++)
        memcpy(square + i * RPI_SQUARE, in + (r + i < rows ? r + i : rows - 1) * ldi + c, RPI_SQUARE * sizeof *in);
    RPI_FN(transpose_square)(square, RPI_SQUARE, out + c * ldo + r, ldo);
}
static void RPI_FN(transpose)(const rp_real *in, ptrdiff_t ldi, int rows, int columns, rp_real *out, ptrdiff_t ldo,
                              int n) {
    int whole = columns / RPI_SQUARE * RPI_SQUARE, fours = columns / 4 * 4, r = 0;
    for (; r + RPI_SQUARE <= rows; r += RPI_SQUARE) {
        const rp_real *from = in + r * ldi;
        for (int c = 0; c < fours; c += 4) RPI_FN(transpose_four)(from + c, ldi, out + c * ldo + r, ldo);
        for (int c = fours; c < columns; c++)
            for (int i = 0; i < RPI_SQUARE; i++) out[c * ldo + (r + i)] = from[i * ldi + c];
    }
    if (r == n) return;
    if (r + RPI_SQUARE > n) whole = 0;
    for (int c = 0; c < whole; c += RPI_SQUARE) RPI_FN(transpose_last)(in, ldi, rows, r, c, out, ldo);
    for (int c = 0; c < columns; c++) {
        rp_real *to = out + c * ldo;
        for (int i = c < whole ? r + RPI_SQUARE : r; i < n; i++) to[i] = in[(i < rows ? i : rows - 1) * ldi + c];
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

/* Asks for what the sink will read of a piece, so that it comes while the sums are formed: rows that are short and far
   apart, which the processor does not foresee. Measured: Adam's steps up to 1.3 times as fast, SGD's up to 1.13. Inlined,
   since gcc takes a call that only fetches for one without effect. */
RPI_INLINE void RPI_FN(fetch)(const rpi_sink *sink, const rpi_piece *piece) {
    const rp_real *arrays[] = {sink->parameters, sink->gradient, sink->curvature,
                               sink->first,      sink->second,   sink->averages};
    for (size_t k = 0; k < sizeof arrays / sizeof *arrays; k++) {
        if (!arrays[k]) continue;
        for (int r = 0; r < piece->rows; r++)
            for (int i = 0; i < piece->n; i += RPI_LINE_REALS)
                RPI_FETCH(arrays[k] + piece->offset + r * piece->stride + i);
    }
}

/* The magnitudes or squares of n entries of each row, and zeros to the end of a vector. */
static void RPI_FN(sizes)(const rpi_outer *o, int rows, const rp_real *in, ptrdiff_t ldi, rp_real *out, ptrdiff_t ldo,
                          ptrdiff_t n) {
    for (int i = 0; i < rows; i++)
        for (ptrdiff_t p = 0; p < n; p += RPI_LANES) {
            rpi_v y = RPI_LOAD_SOME(in + i * ldi + p, (int)(n - p));
            RPI_STORE(out + i * ldo + p, o->squares ? y * y : RPI_ABS(y));
        }
}

/* A piece of the weights, of rows i on, by the panel and what the curvature needs of it. */
static void RPI_FN(outer_piece)(const rpi_outer *o, int i, const rpi_piece *piece, rpi_gemm *gemm,
                                const rp_real *sizes) {
    const int whole = piece->rows == RPI_TILE_ROWS && piece->n % (RPI_TILE_VECTORS * RPI_LANES) == 0;
    gemm->m = piece->rows;
    gemm->a = o->d ? o->d + i * o->ld : NULL;
    gemm->b = o->panel;
    if (whole && o->sink->descent != 0) {
        gemm->c = o->sink->parameters + piece->offset;
        gemm->ldc = o->n;
        RPI_FN(descend)(gemm, o->scale, o->sink->descent);
        return;
    }
    gemm->c = o->tile;
    gemm->ldc = RPI_PANEL;
    if (o->d) RPI_FN(gemm)(gemm);
    if (o->v) {
        gemm->a = o->v + i * o->ld;
        gemm->b = sizes;
        gemm->c = o->tile + RPI_ROWS_MOST * RPI_PANEL;
        RPI_FN(gemm)(gemm);
    }
    o->sink->take(o->sink, piece);
}

/* The weights' part: a panel of y is transposed once, then serves all rows. */
static void RPI_FN(outer_weights)(const rpi_outer *o) {
    rpi_piece piece = RPI_FN(piece_of)(o);
    rpi_gemm gemm;
    memset(&gemm, 0, sizeof gemm);
    gemm.k = o->count;
    gemm.a_row = o->ld;
    gemm.a_column = 1;
    gemm.ldb = RPI_PANEL;
    piece.ld = RPI_PANEL;
    piece.stride = o->n;
    for (int j = o->from; j < o->end; j += RPI_PANEL) {
        rp_real *sizes = o->panel + (ptrdiff_t)o->count * RPI_PANEL;
        piece.n = rpi_at_most(o->end - j, RPI_PANEL);
        gemm.n = (piece.n + RPI_LANES - 1) / RPI_LANES * RPI_LANES;
        RPI_FN(transpose)(o->y + j * o->ld, o->ld, piece.n, o->count, o->panel, RPI_PANEL, gemm.n);
        if (o->v) RPI_FN(sizes)(o, o->count, o->panel, RPI_PANEL, sizes, RPI_PANEL, gemm.n);
        for (int i = 0; i < o->m; i += piece.rows) {
            piece.rows = RPI_FN(tile_rows)(o->m - i);
            piece.offset = o->weights + (ptrdiff_t)i * o->n + j;
            RPI_FN(fetch)(o->sink, &piece);
            RPI_FN(outer_piece)(o, i, &piece, &gemm, sizes);
        }
    }
}

/* Rows of samples, times a vector of samples. */
static rpi_product RPI_FN(rows_by_vector)(const rpi_outer *o) {
    rpi_product q;
    memset(&q, 0, sizeof q);
    q.k = o->count;
    q.a_row = o->ld;
    q.a_column = 1;
    return q;
}

/* The same for few rows: each is y times a row of d. */
static void RPI_FN(outer_few_rows)(const rpi_outer *o) {
    rpi_piece piece = RPI_FN(piece_of)(o);
    rpi_product q = RPI_FN(rows_by_vector)(o);
    piece.rows = o->m;
    piece.ld = RPI_PANEL;
    piece.stride = o->n;
    for (int j = o->from; j < o->end; j += RPI_PANEL) {
        q.m = piece.n = rpi_at_most(o->end - j, RPI_PANEL);
        q.a = o->y + j * o->ld;
        piece.offset = o->weights + j;
        RPI_FN(fetch)(o->sink, &piece);
        for (int i = 0; i < o->m; i++) {
            q.b = o->d ? o->d + i * o->ld : NULL;
            q.b2 = o->v ? o->v + i * o->ld : NULL;
            q.c = o->tile + i * RPI_PANEL;
            q.c2 = q.c + RPI_ROWS_MOST * RPI_PANEL;
            RPI_FN(matrix_vector)(&q);
        }
        o->sink->take(o->sink, &piece);
    }
}

/* For few columns: each is d times a row of y. Rows of weights lie one behind the other, so that a piece is one row. */
static void RPI_FN(outer_column)(rpi_product q, const rp_real *a, const rp_real *x, rp_real *out, int n) {
    rp_real column[RPI_PANEL];
    q.a = a;
    q.b = x;
    q.c = column;
    RPI_FN(matrix_vector)(&q);
    for (int i = 0; i < q.m; i++) out[i * n] = column[i];
}
static void RPI_FN(outer_few_columns)(const rpi_outer *o) {
    const ptrdiff_t width = (o->count + RPI_LANES - 1) / RPI_LANES * RPI_LANES;
    rpi_piece piece = RPI_FN(piece_of)(o);
    rpi_product q = RPI_FN(rows_by_vector)(o);
    piece.rows = 1;
    if (o->v) RPI_FN(sizes)(o, o->n, o->y, o->ld, o->panel, width, o->count);
    for (int i = 0; i < o->m; i += q.m) {
        q.m = rpi_at_most(o->m - i, RPI_PANEL);
        piece.n = q.m * o->n;
        piece.offset = o->weights + (ptrdiff_t)i * o->n;
        RPI_FN(fetch)(o->sink, &piece);
        for (int j = 0; j < o->n; j++) {
            rp_real *to = o->tile + j;
            if (o->d) RPI_FN(outer_column)(q, o->d + i * o->ld, o->y + j * o->ld, to, o->n);
            to += RPI_ROWS_MOST * RPI_PANEL;
            if (o->v) RPI_FN(outer_column)(q, o->v + i * o->ld, o->panel + j * width, to, o->n);
        }
        o->sink->take(o->sink, &piece);
    }
}

/* Of a vector of rows at a time: their vectors' sums are transposed, and then added in the order of the lanes. */
static void RPI_FN(row_sums)(int rows, int count, const rp_real *in, ptrdiff_t ld, rp_real *out) {
    rp_real sums[RPI_LANES * RPI_LANES], turned[RPI_LANES * RPI_LANES];
    for (int i = 0; i < rows; i += RPI_LANES) {
        const int some = rpi_at_most(rows - i, RPI_LANES);
        rpi_v total = RPI_ALL(0);
        for (int r = 0; r < some; r++, in += ld) {
            rpi_v sum = RPI_ALL(0);
            for (int s = 0; s < count; s += RPI_LANES) sum += RPI_LOAD_SOME(in + s, count - s);
            RPI_STORE(sums + r * RPI_LANES, sum);
        }
        RPI_FN(transpose)(sums, RPI_LANES, some, RPI_LANES, turned, RPI_LANES, RPI_LANES);
        for (int lane = 0; lane < RPI_LANES; lane++) total += RPI_LOAD(turned + lane * RPI_LANES);
        RPI_STORE_SOME(out + i, total, some);
    }
}

static void RPI_FN(outer)(const rpi_outer *o) {
    rpi_piece piece = RPI_FN(piece_of)(o);
    if (o->m <= RPI_FEW && !(o->v && o->squares)) RPI_FN(outer_few_rows)(o);
    else if (o->n <= RPI_FEW) RPI_FN(outer_few_columns)(o);
    else RPI_FN(outer_weights)(o);
    piece.rows = 1;
    for (int i = 0; o->bias && i < o->m; i += RPI_PANEL) {
        piece.n = rpi_at_most(o->m - i, RPI_PANEL);
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
            if (magnitudes) value = RPI_FN(substantial)(RPI_LOAD(factor + s) * RPI_ABS(value));
            else value *= RPI_LOAD(factor + s);
            RPI_STORE(x + s, value);
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

/* Of magnitudes, as integers: what is not a number is larger than all numbers. */
RPI_INLINE rpi_v RPI_FN(larger)(rpi_v a, rpi_v b) { return RPI_SELECT(RPI_GREATER(RPI_BITS(a), RPI_BITS(b)), a, b); }
/* Four vectors at a time, since each comparison with the largest so far waits for the one before. Behind the end of a
   row, or of the rows, the same is read again. */
static rpi_int RPI_FN(peak)(int rows, int n, const rp_real *in, ptrdiff_t ld) {
    rpi_v most = RPI_ALL(0), a, b;
    rpi_int lanes[RPI_LANES], peak = 0;
    for (int i = 0; i < rows; i += 2) {
        const rp_real *row = in + i * ld, *next = i + 1 < rows ? row + ld : row;
        for (int s = 0; s < n; s += 2 * RPI_LANES) {
            int t = s + RPI_LANES < n ? s + RPI_LANES : s;
            a = RPI_FN(larger)(RPI_ABS(RPI_LOAD(row + s)), RPI_ABS(RPI_LOAD(row + t)));
            b = RPI_FN(larger)(RPI_ABS(RPI_LOAD(next + s)), RPI_ABS(RPI_LOAD(next + t)));
            most = RPI_FN(larger)(RPI_FN(larger)(a, b), most);
        }
    }
    memcpy(lanes, &most, sizeof lanes);
    for (int i = 0; i < RPI_LANES; i++) peak = lanes[i] > peak ? lanes[i] : peak;
    return peak;
}

/* Activations: z in; out: the value, *first = sigma'(z), *second = sigma''(z). Comparisons are turned so that what is
   not a number stays so. */
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
    rpi_v share, p, y;
    (void)alpha;
    RPI_FN(odds)(RPI_EXP(RPI_ALL(-2) * RPI_ABS(z)), &share, &p, first);
    y = RPI_TANH(z, share);
    *first *= RPI_ALL(4); /* 1 - y^2 without cancellation */
    *second = RPI_ALL(-2) * y * *first;
    return y;
}
/* *e = exp(-|z|), *p = 1 / (1 + exp(-z)), *q = p (1 - p), *odd = 1 - 2 p, without overflow or cancellation */
RPI_INLINE void RPI_FN(logistic)(rpi_v z, rpi_v *e, rpi_v *p, rpi_v *q, rpi_v *odd) {
    rpi_v x = RPI_EXP(-RPI_ABS(z)), less = RPI_EXPM1(-RPI_ABS(z)), share, lesser;
    rpi_i below = RPI_GREATER(RPI_ALL(0), z);
    RPI_FN(odds)(x, &share, &lesser, q);
    *e = x;
    *p = RPI_SELECT(below, lesser, RPI_ALL(1) - share);
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
    rpi_v x = RPI_SELECT(RPI_GREATER(RPI_ABS(z), RPI_ALL(100)), RPI_ALL(100), z);
    rpi_v power = RPI_EXP(RPI_ALL((rp_real)-0.5) * x * x), tail = RPI_NORMAL_TAIL(RPI_ABS(x), power);
    rpi_v p = RPI_SELECT(RPI_GREATER(z, RPI_ALL(0)), RPI_ALL(1) - tail, tail);
    rpi_v phi = RPI_ALL((rp_real)0.39894228040143268) * power;
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
#define RPI_ACTIVATION(name) RPI_FN(activate_##name)
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
                RPI_STORE(v + i, RPI_FN(normal)(RPI_ABS(RPI_FMA(second, derivative, RPI_ABS(s) * RPI_LOAD(v + i)))));
            else if (v) RPI_STORE(v + i, RPI_FN(normal)(RPI_FMA(s, RPI_LOAD(v + i), flow == RPI_BENT ? second : zero)));
            if (d) RPI_STORE(d + i, RPI_FN(normal)(s * derivative));
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
    rpi_i beyond;
    *h = RPI_ALL(1);
    *d = r;
    switch (kind) {
    case RP_BINARY_CROSS_ENTROPY:
        RPI_FN(logistic)(y, &e, &p, h, &odd);
        *d = RPI_FN(substantial)(p - t);
        *h = RPI_FN(substantial)(*h);
        return RPI_SELECT(RPI_GREATER(zero, y), zero, y) - t * y + RPI_LOG1P(e);
    case RP_HUBER: /* h is that of the least parabola above the loss that touches it at y */
        beyond = RPI_GREATER(size, RPI_ALL(delta));
        *h = RPI_SELECT(beyond, RPI_ALL(delta) / RPI_SELECT(beyond, size, *h), *h); /* size may be 0: no trap */
        *d = *h * r;
        if (exact) *h = RPI_SELECT(beyond, zero, RPI_ALL(1));
        return RPI_SELECT(beyond, RPI_ALL(delta) * (size - half * RPI_ALL(delta)), half * r * r);
    case RP_POISSON:
        *h = RPI_EXP(y);
        *d = *h - t;
        return *h - t * y;
    default: return half * r * r;
    }
}
/* sums[] = losses of outputs from..end - 1 for n samples from s on, row by row as they lie in memory. */
RPI_INLINE void RPI_FN(separable_rows)(rp_loss_kind kind, const rpi_loss_call *call, int from, int end, int s, int n,
                                       rp_real *sums) {
    memset(sums, 0, RPI_PANEL * sizeof *sums);
    for (int i = from; i < end; i++) {
        ptrdiff_t row = i * call->ld + s;
        for (int k = 0; k < n; k += RPI_LANES) {
            rpi_v y = RPI_LOAD(call->y + row + k), t = RPI_LOAD(call->d + row + k), d, h;
            rpi_v loss = RPI_FN(separable)(kind, call->delta, call->exact, y, t, &d, &h);
            RPI_STORE(sums + k, RPI_LOAD(sums + k) + loss);
            RPI_STORE(call->d + row + k, d);
            if (call->h) RPI_STORE(call->h + row + k, h);
        }
    }
}
RPI_INLINE void RPI_FN(separable_loss)(rp_loss_kind kind, const rpi_loss_call *call) {
    rp_real sums[RPI_PANEL];
    for (int s = 0; s < call->count; s += RPI_PANEL) {
        const int n = rpi_at_most(call->count - s, RPI_PANEL);
        for (int k = 0; k < n; k++) call->loss[s + k] = 0;
        for (int from = 0; from < call->outputs; from += 32) { /* few in rp_real, then on in double */
            RPI_FN(separable_rows)(kind, call, from, rpi_at_most(call->outputs, from + 32), s, n, sums);
            for (int k = 0; k < n; k++) call->loss[s + k] += (double)sums[k];
        }
    }
}
static void RPI_FN(squared_error)(const rpi_loss_call *call) { RPI_FN(separable_loss)(RP_SQUARED_ERROR, call); }
static void RPI_FN(binary_cross_entropy)(const rpi_loss_call *call) {
    RPI_FN(separable_loss)(RP_BINARY_CROSS_ENTROPY, call);
}
static void RPI_FN(huber)(const rpi_loss_call *call) { RPI_FN(separable_loss)(RP_HUBER, call); }
static void RPI_FN(poisson)(const rpi_loss_call *call) { RPI_FN(separable_loss)(RP_POISSON, call); }
/* Of n samples from s on, row by row as they lie in memory: log_sum[] = log sum_i exp(y_i), and what p_i needs of it. */
typedef struct RPI_FN(exponentials) {
    rp_real most[RPI_PANEL], sum[RPI_PANEL], total[RPI_PANEL], log_sum[RPI_PANEL]; /* total: of the targets */
} RPI_FN(exponentials);
static void RPI_FN(sum_exponentials)(const rpi_loss_call *call, int s, int n, RPI_FN(exponentials) * x) {
    const rp_real *y = call->y + s, *t = call->d + s;
    const ptrdiff_t ld = call->ld, end = call->outputs * ld;
    memset(x, 0, sizeof *x);
    memcpy(x->most, y, (size_t)n * sizeof *y);
    for (ptrdiff_t row = ld; row < end; row += ld)
        for (int k = 0; k < n; k += RPI_LANES) {
            rpi_v most = RPI_LOAD(x->most + k), z = RPI_LOAD(y + row + k);
            RPI_STORE(x->most + k, RPI_SELECT(RPI_GREATER(most, z), most, z));
        }
    for (ptrdiff_t row = 0; row < end; row += ld)
        for (int k = 0; k < n; k += RPI_LANES) {
            rpi_v power = RPI_EXP(RPI_LOAD(y + row + k) - RPI_LOAD(x->most + k));
            RPI_STORE(x->sum + k, RPI_LOAD(x->sum + k) + power);
            RPI_STORE(x->total + k, RPI_LOAD(x->total + k) + RPI_LOAD(t + row + k));
        }
    for (int k = 0; k < n; k += RPI_LANES)
        RPI_STORE(x->log_sum + k, RPI_LOAD(x->most + k) + RPI_LANES_OF(log)(RPI_LOAD(x->sum + k)));
}
static void RPI_FN(softmax_cross_entropy)(const rpi_loss_call *call) {
    const ptrdiff_t ld = call->ld, end = call->outputs * ld;
    for (int s = 0; s < call->count; s += RPI_PANEL) {
        const int some = rpi_at_most(call->count - s, RPI_PANEL), n = (some + RPI_LANES - 1) / RPI_LANES * RPI_LANES;
        rp_real loss[RPI_PANEL] = {0};
        RPI_FN(exponentials) x;
        RPI_FN(sum_exponentials)(call, s, n, &x);
        for (ptrdiff_t row = s; row < end; row += ld)
            for (int k = 0; k < n; k += RPI_LANES) {
                rpi_v t = RPI_LOAD(call->d + row + k), z = RPI_LOAD(call->y + row + k);
                rpi_v share = RPI_EXP(z - RPI_LOAD(x.most + k)) / RPI_LOAD(x.sum + k);
                rpi_v p = RPI_FN(substantial)(RPI_LOAD(x.total + k) * share);
                RPI_STORE(loss + k, RPI_LOAD(loss + k) + t * (RPI_LOAD(x.log_sum + k) - z));
                RPI_STORE(call->d + row + k, p - t);
                if (call->h) RPI_STORE(call->h + row + k, p);
            }
        for (int k = 0; k < some; k++) call->loss[s + k] = (double)loss[k];
    }
}

/* What is constant in an update, in all lanes: spread once, where a compiler would do it for each vector anew. */
typedef struct RPI_FN(shares) {
    rpi_v before, now; /* of a mean: beta, 1 - beta */
} RPI_FN(shares);
typedef struct RPI_FN(constants) {
    rpi_v scale, scale2, descent, weight_decay, shrink, damping, epsilon, sigma, correct1, correct2, fold;
    RPI_FN(shares) momentum, average, beta1, beta2, rho;
    int nesterov;
} RPI_FN(constants);
RPI_INLINE RPI_FN(shares) RPI_FN(shares_of)(rp_real beta) {
    RPI_FN(shares) shares;
    shares.before = RPI_ALL(beta);
    shares.now = RPI_ALL(1 - beta);
    return shares;
}
RPI_INLINE RPI_FN(constants) RPI_FN(constants_of)(const rpi_update *u, const rpi_update_call *c) {
    RPI_FN(constants) k;
    k.scale = RPI_ALL(c->scale);
    k.scale2 = RPI_ALL(c->scale2);
    k.descent = RPI_ALL(-u->rate);
    k.weight_decay = RPI_ALL(u->weight_decay);
    k.shrink = RPI_ALL(u->shrink);
    k.damping = RPI_ALL(u->damping);
    k.epsilon = RPI_ALL(u->epsilon);
    k.sigma = RPI_ALL(u->sigma);
    k.correct1 = RPI_ALL(u->correct1);
    k.correct2 = RPI_ALL(u->correct2);
    k.fold = RPI_ALL(u->fold);
    k.momentum = RPI_FN(shares_of)(u->momentum);
    k.average = RPI_FN(shares_of)(u->average);
    k.beta1 = RPI_FN(shares_of)(u->beta1);
    k.beta2 = RPI_FN(shares_of)(u->beta2);
    k.rho = RPI_FN(shares_of)(u->rho);
    k.nesterov = u->nesterov;
    return k;
}
RPI_INLINE rpi_v RPI_FN(next_mean)(rpi_v state, rpi_v x, const RPI_FN(shares) * beta) {
    return RPI_FN(finite_or)(RPI_FMA(beta->before, state, beta->now * x), state);
}
RPI_INLINE rpi_v RPI_FN(mean)(rpi_v *state, rpi_v x, const RPI_FN(shares) * beta) {
    return *state = RPI_FN(normal)(RPI_FN(next_mean)(*state, x, beta));
}
/* The same, but subnormal as long as the mean m, which is divided by its root, is not 0. */
RPI_INLINE rpi_v RPI_FN(mean_beside)(rpi_v m, rpi_v *state, rpi_v x, const RPI_FN(shares) * beta) {
    rpi_v next = RPI_FN(next_mean)(*state, x, beta);
    return *state = RPI_SELECT(RPI_EQUAL(m, RPI_ALL(0)), RPI_FN(normal)(next), next);
}
/* The methods, each on one vector of parameters w: the step out. Whatever piece and place in it a parameter has, it is
   rounded alike, so no product and sum are left to the compiler to contract or not. */
RPI_INLINE rpi_v RPI_FN(step)(const RPI_FN(constants) * k, int method, rpi_v g, rpi_v h, rpi_v w, rpi_v *first,
                              rpi_v *second, int one, int two) {
    rpi_v x;
    rpi_i flat;
    g = RPI_FMA(k->weight_decay, w, g);
    h = RPI_FMA(k->scale2, h, k->weight_decay);
    switch (method) {
    case RP_PARTITIONING:
        if (one) g = RPI_FN(mean)(first, g, &k->momentum) * k->correct1;
        if (two) h = RPI_FN(mean)(second, h, &k->average);
        x = g / RPI_FMA(h, two ? k->correct2 : RPI_ALL(1), k->damping);
        break;
    case RPI_PACED:
        h *= RPI_ABS(g);
        if (one) g = RPI_FN(mean)(first, g, &k->momentum);
        if (two) h = RPI_FN(mean)(second, h, &k->average) * k->correct2;
        flat = RPI_GREATER(RPI_ALL(RPI_REAL_MIN), h);
        x = RPI_SELECT(flat, RPI_ALL(0), g) / RPI_ROOT(RPI_SELECT(flat, RPI_ALL(1), h));
        break;
    case RP_SGD:
        x = g;
        if (one) x = *first = RPI_FN(normal)(RPI_FN(finite_or)(RPI_FMA(k->momentum.before, *first, g), *first));
        if (one && k->nesterov) x = RPI_FMA(k->momentum.before, x, g);
        break;
    case RP_ADAM:
        x = RPI_FN(mean)(first, g, &k->beta1) * k->correct1;
        x = x / (RPI_ROOT(RPI_FN(mean_beside)(*first, second, g * g, &k->beta2) * k->correct2) + k->epsilon);
        break;
    case RP_ADAGRAD:
        *first = RPI_FN(finite_or)(RPI_FMA(g, g, *first), *first);
        x = g / (RPI_ROOT(*first) + k->epsilon);
        break;
    case RP_PER_VARIABLE: { /* rp_cubic_length(-|g|, h, 1, sigma), for the sign that cancels nothing */
        rpi_v sigma = k->sigma, size = RPI_ABS(g), root, divisor;
        rpi_i below;
        root = RPI_ROOT(RPI_FMA(h, h, RPI_ALL(2) * size * sigma));
        below = RPI_GREATER(RPI_ALL(0), h);
        divisor = RPI_SELECT(below, sigma, h + root);
        divisor = RPI_SELECT(RPI_EQUAL(size, RPI_ALL(0)), RPI_ALL(1), divisor); /* 0 / 0 would trap */
        x = RPI_SELECT(below, root - h, RPI_ALL(2) * size) / divisor;
        x = RPI_SELECT(RPI_GREATER(RPI_ALL(0), g), -x, RPI_SELECT(RPI_GREATER(g, RPI_ALL(0)), x, RPI_ALL(0)));
        break;
    }
    default:
        x = RPI_ROOT((*second + k->epsilon) / (RPI_FN(mean)(first, g * g, &k->rho) + k->epsilon)) * g;
        RPI_FN(mean)(second, x * x, &k->rho);
    }
    return RPI_FMA(k->descent, x, -(k->shrink * w));
}
/* Of parameters `at` on some, by one method, which this is inlined for; g and h (or NULL): theirs. */
RPI_INLINE void RPI_FN(update_some)(const RPI_FN(constants) * k, int method, const rpi_update_call *c, ptrdiff_t at,
                                    const rp_real *g, const rp_real *h, int some) {
    const int one = method != RP_PER_VARIABLE;
    const int two = method == RP_PARTITIONING || method == RPI_PACED || method == RP_ADAM || method == RP_ADADELTA;
    rp_real *first = one && c->first ? c->first + at : NULL, *second = two && c->second ? c->second + at : NULL;
    rpi_v w = RPI_LOAD_SOME(c->w + at, some), state1 = RPI_ALL(0), state2 = state1, step;
    const rpi_v gradient = k->scale * RPI_LOAD_SOME(g, some);
    rpi_v curvature = w;
    if (first) state1 = RPI_LOAD_SOME(first, some);
    if (second) state2 = RPI_LOAD_SOME(second, some);
    if (h) curvature = RPI_LOAD_SOME(h, some);
    else if (method == RPI_PACED) curvature = RPI_ABS(gradient);
    step = RPI_FN(step)(k, method, gradient, curvature, w, &state1, &state2, first != NULL, second != NULL);
    if (first) RPI_STORE_SOME(first, state1, some);
    if (second) RPI_STORE_SOME(second, state2, some);
    if (method == RPI_PACED && c->averages) {
        rpi_v average = RPI_LOAD_SOME(c->averages + at, some);
        RPI_STORE_SOME(c->averages + at, RPI_FMA(k->fold, w - average, average), some);
    }
    if (c->to) RPI_STORE_SOME(c->to + at, RPI_FN(finite_or)(step, RPI_ALL(0)), some);
    else RPI_STORE_SOME(c->w + at, RPI_FN(finite_or)(w + step, w), some);
}
RPI_INLINE void RPI_FN(update_by)(const rpi_update *update, int method, const rpi_update_call *call) {
    const rpi_update_call c = *call;
    const RPI_FN(constants) k = RPI_FN(constants_of)(update, call);
    const int whole = c.n / RPI_LANES * RPI_LANES;
    for (int r = 0; r < c.rows; r++) {
        const rp_real *g = c.g + r * c.g_row, *h = c.h ? c.h + r * c.h_row : NULL;
        const ptrdiff_t rest = r * c.stride + whole;
        for (int i = 0; i < whole; i += RPI_LANES)
            RPI_FN(update_some)(&k, method, &c, r * c.stride + i, g + i, h ? h + i : NULL, RPI_LANES);
        if (whole < c.n) RPI_FN(update_some)(&k, method, &c, rest, g + whole, h ? h + whole : NULL, c.n - whole);
    }
}
#define RPI_UPDATE(method) RPI_FN(update_##method)
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
RPI_DEFINE_UPDATE(RPI_PACED)
static void RPI_FN(update)(const rpi_update *u, const rpi_update_call *call) {
    static void (*const methods[])(const rpi_update *, const rpi_update_call *) = {
        /* in the order of rp_method, which begins at 1; RP_NEWTON finds its steps elsewhere */
        RPI_UPDATE(RP_PARTITIONING),
        RPI_UPDATE(RP_SGD),
        RPI_UPDATE(RP_ADAM),
        RPI_UPDATE(RP_ADAGRAD),
        RPI_UPDATE(RP_ADADELTA),
        RPI_UPDATE(RP_PER_VARIABLE),
        NULL,
        RPI_UPDATE(RPI_PACED),
    };
    if (methods[u->method - RP_PARTITIONING]) methods[u->method - RP_PARTITIONING](u, call);
}

RPI_INLINE void RPI_FN(blend_row)(ptrdiff_t n, rp_real a, const rp_real *x, const rp_real *f, rp_real b, rp_real *y) {
    for (ptrdiff_t i = 0; i < n; i += RPI_LANES) {
        int some = n - i < RPI_LANES ? (int)(n - i) : RPI_LANES;
        rpi_v term = RPI_ALL(a) * RPI_LOAD_SOME(x + i, some);
        if (f) term *= RPI_LOAD_SOME(f + i, some);
        if (b != 0) term = RPI_FMA(RPI_ALL(b), RPI_LOAD_SOME(y + i, some), term);
        RPI_STORE_SOME(y + i, term, some);
    }
}
static void RPI_FN(blend)(ptrdiff_t n, rp_real a, const rp_real *x, const rp_real *f, rp_real b, rp_real *y) {
    RPI_FN(blend_row)(n, a, x, f, b, y);
}

static void RPI_FN(take_step)(const rpi_sink *sink, const rpi_piece *piece) {
    rpi_update_call call;
    memset(&call, 0, sizeof call);
    call.rows = piece->rows;
    call.n = piece->n;
    call.stride = piece->stride;
    call.scale = piece->scale;
    call.g = piece->gradient;
    call.g_row = piece->ld;
    call.h = sink->curvature ? sink->curvature + piece->offset : piece->curvature;
    call.h_row = sink->curvature ? piece->stride : piece->ld;
    call.scale2 = sink->curvature ? 1 : piece->scale2;
    call.w = sink->parameters + piece->offset;
    call.first = sink->first ? sink->first + piece->offset : NULL;
    call.second = sink->second ? sink->second + piece->offset : NULL;
    call.averages = sink->averages ? sink->averages + piece->offset : NULL;
    RPI_FN(update)(sink->update, &call);
}
/* The piece becomes b times what the arrays hold, plus itself. */
RPI_INLINE void RPI_FN(take)(const rpi_sink *sink, const rpi_piece *piece, rp_real b) {
    for (int r = 0; r < piece->rows; r++) {
        ptrdiff_t at = piece->offset + r * piece->stride, from = r * piece->ld;
        if (piece->gradient)
            RPI_FN(blend_row)(piece->n, piece->scale, piece->gradient + from, NULL, b, sink->gradient + at);
        if (piece->curvature)
            RPI_FN(blend_row)(piece->n, piece->scale2, piece->curvature + from, NULL, b, sink->curvature + at);
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
RPI_INLINE double RPI_FN(products)(ptrdiff_t n, const rp_real *a, const rp_real *b, int sizes) {
    double total = 0;
    for (ptrdiff_t at = 0; at < n; at += 64 * RPI_LANES) {
        rpi_v sum = RPI_ALL(0);
        for (ptrdiff_t i = at; i < n && i < at + 64 * RPI_LANES; i += RPI_LANES) {
            int some = n - i < RPI_LANES ? (int)(n - i) : RPI_LANES;
            rpi_v x = RPI_LOAD_SOME(a + i, some), y = RPI_LOAD_SOME(b + i, some);
            sum = RPI_FMA(sizes ? RPI_ABS(x) : x, sizes ? RPI_ABS(y) : y, sum);
        }
        total += (double)RPI_FN(sum_lanes)(0, sum);
    }
    return total;
}
static double RPI_FN(dot)(ptrdiff_t n, const rp_real *a, const rp_real *b) { return RPI_FN(products)(n, a, b, 0); }
static double RPI_FN(dot_sizes)(ptrdiff_t n, const rp_real *a, const rp_real *b) {
    return RPI_FN(products)(n, a, b, 1);
}

/* clang-format off */
#define RPI_KERNELS(name, rough_rows, product, outer) { \
    name, \
    RPI_LANES, \
    RPI_TILE_ROWS, \
    rough_rows, \
    RPI_FN(gemm), \
    product, \
    RPI_FN(matrix_vector), \
    outer, \
    RPI_FN(correlate), \
    RPI_FN(window_magnitudes), \
    RPI_FN(select_rows), \
    RPI_FN(select_back), \
    RPI_FN(move_rows), \
    RPI_FN(add_rows), \
    RPI_FN(column_sums), \
    RPI_FN(weigh), \
    RPI_FN(signs), \
    RPI_FN(peak), \
    RPI_FN(transpose), \
    RPI_FN(activate), \
    RPI_FN(activate_back), \
    RPI_FN(activate_tangent), \
    { /* in the order of rp_loss_kind */ \
        RPI_FN(squared_error), \
        RPI_FN(softmax_cross_entropy), \
        RPI_FN(binary_cross_entropy), \
        RPI_FN(huber), \
        RPI_FN(poisson), \
    }, \
    RPI_FN(update), \
    RPI_FN(move), \
    RPI_FN(dot), \
    RPI_FN(dot_sizes), \
    RPI_FN(blend), \
    RPI_FN(take_step), \
    RPI_FN(take_arrays), \
    RPI_FN(take_sum), \
}
static const rpi_kernels RPI_FN(kernels) = RPI_KERNELS(RPI_ISA_NAME, 0, RPI_FN(product), RPI_FN(outer));
#if defined(RPI_AMX) && RPI_VECTOR_BYTES == 64
static const rpi_kernels rpi_amx_kernels = RPI_KERNELS("amx", RPI_ROUGH_STEP, rpi_amx_product, rpi_amx_outer);
#endif
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
#undef RPI_NORMAL_TAIL
#undef RPI_POWER2
#undef RPI_ROWS_1
#undef RPI_ROWS_2
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
#undef RPI_DESCEND
#undef RPI_DESCEND_ROW
#undef RPI_LARGEST_TILE
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
#undef RPI_EACH_ROW
#undef RPI_CLEAR_LINE
#undef RPI_ADD_LINE
#undef RPI_ADD_REST
#undef RPI_LINE_SUM
#undef RPI_ACTIVATION
#undef RPI_DEFINE_ACTIVATION
#undef RPI_UPDATE
#undef RPI_DEFINE_UPDATE
#undef RPI_KERNELS
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
