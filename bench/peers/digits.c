/* A whole program: reads drawn digits, trains the classifier 784-400-100-36-10 for two epochs, prints its accuracy.
   digits.py is the same in PyTorch.

       cc -O2 -o digits bench/peers/digits.c -lm && ./digits --draw digits.raw && ./digits digits.raw adam */
#define RP_IMPLEMENTATION
#include "../../rp.h"
#include "../../examples/digits.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HIDDEN = 3, TRAINING = 5000, VALIDATION = 1000, COUNT = TRAINING + VALIDATION };
static const int widths[HIDDEN] = {400, 100, 36};

/* The file: images, then labels, as they are in memory. */
typedef struct digits {
    rp_real images[COUNT][DIGITS_SIZE];
    int labels[COUNT];
} digits;

static int draw(const char *path, digits *d) {
    FILE *file = fopen(path, "wb");
    digits_draw(1, COUNT, d->images[0], d->labels);
    return !file || fwrite(d, sizeof *d, 1, file) != 1 || fclose(file);
}

static int train(const char *path, const char *method, digits *d) {
    FILE *file = fopen(path, "rb");
    if (!file || fread(d, sizeof *d, 1, file) != 1) return perror(path), 1;
    fclose(file);
    rp_data training = rp_labelled(d->images[0], d->labels, TRAINING);
    rp_data validation = rp_labelled(d->images[TRAINING], d->labels + TRAINING, VALIDATION);
    rp_optimizer optimizer = strcmp(method, "rp") ? rp_adam((rp_real)1e-3) : rp_partitioning();
    rp_fit_options options;
    rp_score score;
    memset(&options, 0, sizeof options);
    options.epochs = 2;

    rp_net *net = rp_net_new(rp_vector(DIGITS_SIZE), NULL);
    for (int i = 0; i < HIDDEN; i++) {
        rp_dense(net, widths[i]);
        rp_activation(net, RP_SOFTPLUS);
    }
    rp_dense(net, 10);
    rp_loss(net, RP_SOFTMAX_CROSS_ENTROPY);
    rp_status status = rp_net_build(net, 100, 1);
    if (!status) status = rp_fit(net, &optimizer, &training, &options, NULL);
    if (!status) status = rp_evaluate(net, &validation, &score, NULL);
    if (status) fprintf(stderr, "digits: %s\n", rp_error(net));
    else printf("accuracy %.4f\n", (double)score.accuracy);
    rp_net_free(net);
    return status != RP_OK;
}

int main(int argc, char **argv) {
    static digits d;
    if (argc != 3) return fprintf(stderr, "usage: digits --draw FILE | digits FILE adam | digits FILE rp\n"), 2;
    return strcmp(argv[1], "--draw") ? train(argv[1], argv[2], &d) : draw(argv[2], &d);
}
