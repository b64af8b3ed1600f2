/* finetune.c - takes over a net that PyTorch has trained, and adapts it with a few samples of its own.

       cc -O2 -I. -o finetune examples/finetune.c -lm && ./finetune

   examples/finetune.py has trained a net on a million samples of a wave. Here the wave is another: turned, higher and
   shifted, as a sensor may see it that was built in aslant; and there are 300 samples of it. Freezes no layer, trains for
   some epochs, keeps the best by other 100 samples, and saves the result. A new net with the same samples is the
   comparison. */
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "random.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { INPUTS = 2, TRAINING = 300, VALIDATION = 100, UNSEEN = 2000 };
static const char description[] = "input vector 2; dense 32; tanh; dense 32; tanh; dense 1";

typedef struct samples {
    rp_real x[UNSEEN][INPUTS], y[UNSEEN];
    rp_data data;
} samples;

static void draw(uint64_t seed, int count, samples *s) {
    for (int i = 0; i < count; i++) {
        double a = (double)random_uniform(&seed, -1, 1), b = (double)random_uniform(&seed, -1, 1);
        s->x[i][0] = (rp_real)a;
        s->x[i][1] = (rp_real)b;
        s->y[i] = (rp_real)(1.5 * sin(6 * (0.98 * a - 0.2 * b)) * cos(5 * (0.98 * b + 0.2 * a)) + 0.5);
    }
    s->data = rp_targeted(s->x[0], s->y, count);
}

static void check(rp_status status, const rp_net *net) {
    if (!status) return;
    fprintf(stderr, "finetune: %s\n", rp_error(net));
    exit(1);
}

static double loss_of(rp_net *net, const rp_data *data) {
    rp_score score;
    check(rp_evaluate(net, data, &score, NULL), net);
    return (double)score.loss;
}

int main(int count, char **arguments) {
    static samples training, validation, unseen;
    rp_fit_options options = {0};
    rp_optimizer optimizer = rp_adam((rp_real)0.003);
    rp_net *tuned = rp_net_text(description, NULL), *fresh = rp_net_text(description, NULL);
    double before, after, without;
    draw(1, TRAINING, &training);
    draw(2, VALIDATION, &validation);
    draw(3, UNSEEN, &unseen);
    check(rp_net_build(tuned, TRAINING, 1), tuned);
    check(rp_net_build(fresh, TRAINING, 1), fresh);
    check(rp_import(tuned, count > 1 ? arguments[1] : "examples/finetune.safetensors", NULL), tuned);
    before = loss_of(tuned, &unseen.data);
    options.epochs = 100;
    options.batch = 20;
    options.validation = &validation.data;
    options.keep_best = 1;
    check(rp_fit(tuned, &optimizer, &training.data, &options, NULL), tuned);
    check(rp_fit(fresh, &optimizer, &training.data, &options, NULL), fresh);
    after = loss_of(tuned, &unseen.data);
    without = loss_of(fresh, &unseen.data);
    check(rp_save(tuned, "finetuned.safetensors"), tuned);
    printf("loss on samples that no net has seen: %.5f as PyTorch left it, %.5f after %d samples of its own;\n"
           "%.5f of a new net with these samples. Saved to finetuned.safetensors.\n",
           before, after, TRAINING, without);
    rp_net_free(tuned);
    rp_net_free(fresh);
    return !(after < before / 10 && after < without / 2);
}
