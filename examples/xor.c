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
