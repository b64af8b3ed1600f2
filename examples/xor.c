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
