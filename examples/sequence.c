/* sequence.c - a recurrent network remembers which of two letters came first.

       cc -O2 -I. -o sequence examples/sequence.c -lm && ./sequence

   A sequence is 20 letters, each as six noisy numbers. Somewhere in it are one A and one B, the other letters are
   C to F. The network reads letter after letter and is asked only at the end: was it A that came first, or B? */
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "random.h"
#include <stdio.h>
#include <string.h>

enum { LENGTH = 20, LETTERS = 6, UNITS = 32, BATCH = 100, EPOCH = 500, EPOCHS = 8 }; /* EPOCH: batches */
static const double wanted = 0.99;                                                   /* share of right answers */

/* Data that come from a callback. No sequence comes twice, so all that are validated on are unseen. */
typedef struct stream {
    uint64_t random;
    int batches;
    rp_real inputs[BATCH][LENGTH][LETTERS];
    int labels[BATCH];
} stream;

static int draw_sequence(uint64_t *random, rp_real sequence[LENGTH][LETTERS]) {
    int a = random_below(random, LENGTH);
    int b = random_below(random, LENGTH - 1);
    b += b >= a;
    for (int t = 0; t < LENGTH; t++) {
        int letter;
        if (t == a) letter = 0;
        else if (t == b) letter = 1;
        else letter = 2 + random_below(random, LETTERS - 2);
        for (int i = 0; i < LETTERS; i++)
            sequence[t][i] = (rp_real)(random_uniform(random, -0.3f, 0.3f) + (i == letter));
    }
    return a < b ? 0 : 1; /* the label */
}

static int draw_batch(void *user, int index, rp_data *batch) {
    stream *s = (stream *)user;
    if (index == s->batches) return 0;
    for (int i = 0; i < BATCH; i++) s->labels[i] = draw_sequence(&s->random, s->inputs[i]);
    batch->inputs = s->inputs[0][0];
    batch->labels = s->labels;
    batch->count = BATCH;
    return 1;
}

static rp_data open_stream(stream *s, uint64_t seed, int batches) {
    s->random = seed;
    s->batches = batches;
    return rp_streamed(draw_batch, s);
}

/* What was read shall stay in the state until another letter changes it: the weights from state to state begin as the
   identity (Le, Jaitly, Hinton: A Simple Way to Initialize Recurrent Networks of Rectified Linear Units). */
static void keep_state(rp_net *net, int layer) {
    rp_layer info;
    if (rp_layer_info(net, layer, &info)) return;
    rp_real *weights = rp_parameters(net) + info.weights + UNITS * LETTERS; /* behind those from letters to state */
    for (int i = 0; i < UNITS; i++)
        for (int j = 0; j < UNITS; j++) weights[i * UNITS + j] = i == j ? 1 : 0;
}

static int show_progress(void *user, const rp_progress *p) {
    (void)user;
    if (!p->epoch_done) return 0;
    printf("%4d steps: loss %.4f; unseen sequences: loss %.4f, %.2f%% right\n", (p->epoch + 1) * EPOCH, (double)p->loss,
           (double)p->validation.loss, 100 * (double)p->validation.accuracy);
    fflush(stdout);
    return 0;
}

static rp_status train(rp_net *net, rp_fit_report *report) {
    static stream streams[2];
    rp_data data = open_stream(&streams[0], 1, EPOCH), validation = open_stream(&streams[1], 2, 20);
    rp_optimizer optimizer = rp_partitioning();
    rp_fit_options options;
    memset(&options, 0, sizeof options); /* all zero is the default */
    options.epochs = EPOCHS;
    options.validation = &validation;
    options.progress = show_progress;
    return rp_fit(net, &optimizer, &data, &options, report);
}

int main(void) {
    rp_net *net = rp_net_new(rp_sequence(LENGTH, LETTERS), NULL);
    int recurrent = rp_recurrent(net, UNITS, RP_TANH); /* gives its last state */
    rp_dense(net, 2);
    rp_loss(net, RP_SOFTMAX_CROSS_ENTROPY);
    rp_fit_report report;
    rp_status status = rp_net_build(net, BATCH, 1);
    if (*rp_warning(net)) fprintf(stderr, "sequence: %s\n", rp_warning(net));
    if (!status) {
        keep_state(net, recurrent);
        status = train(net, &report);
    }
    int good = !status && (double)report.validation.accuracy > wanted;
    if (status) fprintf(stderr, "sequence: %s\n", rp_error(net));
    else
        printf("Right at last: %.2f%%; more than %g%% were wanted.\n", 100 * (double)report.validation.accuracy,
               100 * wanted);
    rp_net_free(net);
    return !good;
}
