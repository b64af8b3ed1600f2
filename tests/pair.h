/* For the programs of two files, which test how rp.h is included: main is in name_a.c, other_loss in name_b.c.
   Include after rp.h. */
#ifndef PAIR_H
#define PAIR_H

RP_EXTERN double other_loss(void); /* exclusive_or_loss as name_b.c sees the library */

/* The loss of a small net after 100 steps on "exclusive or", or -1 if a call failed. */
static double exclusive_or_loss(void) {
    const rp_real x[] = {0, 0, 0, 1, 1, 0, 1, 1};
    const int labels[] = {0, 1, 1, 0};
    const rp_data data = rp_labelled(x, labels, 4);
    const rp_optimizer optimizer = rp_sgd(1);
    rp_real loss = 0;
    rp_net *net = rp_net_new(rp_vector(2), NULL);
    rp_dense(net, 8);
    rp_activation(net, RP_TANH);
    rp_dense(net, 2);
    rp_loss(net, RP_SOFTMAX_CROSS_ENTROPY);
    rp_status status = rp_net_build(net, 4, 1);
    for (int step = 0; step < 100 && !status; step++) status = rp_train(net, &optimizer, &data, &loss);
    rp_net_free(net);
    return status ? -1 : (double)loss;
}

/* Both files see one library: the same bits. */
#define CHECK_PAIR() do { \
    double loss = exclusive_or_loss(), other = other_loss(); \
    CHECK(loss > 0 && loss < 0.1, "loss %g", loss); \
    CHECK(memcmp(&loss, &other, sizeof loss) == 0, "losses %.17g and %.17g", loss, other); \
} while (0)
#endif
