/* One optimizer of every kind that computes something of its own or keeps a state of its own, for tests that must hold
   for all of them. Include after rp.h. */
#ifndef OPTIMIZERS_H
#define OPTIMIZERS_H

enum { RATED = 12, OPTIMIZERS = 13 }; /* the last finds the length of its steps from the batch */

typedef struct named_optimizer {
    const char *name;
    rp_optimizer with;
} named_optimizer;

/* Optimizer 0 .. OPTIMIZERS - 1, at a rate that suits a small classifier. */
static named_optimizer optimizer_of(int which) {
    named_optimizer o = {"partitioning", rp_partitioning()};
    o.with.rate = 3;
    switch (which) {
    case 0: break;
    case 1:
        o.name = "Algorithm 1";
        o.with = rp_algorithm_1(1);
        break;
    case 2:
        o.name = "Jacobian rule";
        o.with.rule.kind = RP_JACOBIAN;
        o.with.momentum = 0;
        break;
    case 3:
        o.name = "sampled rule";
        o.with.rule.kind = RP_SAMPLED;
        break;
    case 4:
        o.name = "sampled rule, damped";
        o.with = rp_algorithm_1((rp_real)0.3);
        o.with.rule.kind = RP_SAMPLED;
        o.with.damping = (rp_real)0.1;
        break;
    case 5:
        o.name = "SGD";
        o.with = rp_sgd((rp_real)0.5);
        break;
    case 6:
    case 7:
        o.name = which == 6 ? "momentum" : "Nesterov";
        o.with = rp_sgd((rp_real)0.1);
        o.with.momentum = (rp_real)0.9;
        o.with.nesterov = which == 7;
        break;
    case 8:
        o.name = "Adam";
        o.with = rp_adam((rp_real)0.02);
        break;
    case 9:
        o.name = "AdamW";
        o.with = rp_adam((rp_real)0.02);
        o.with.weight_decay = (rp_real)0.01;
        o.with.decoupled = 1;
        break;
    case 10:
        o.name = "Adagrad";
        o.with = rp_adagrad((rp_real)0.1);
        break;
    case 11:
        o.name = "Adadelta";
        o.with = rp_adadelta(2);
        break;
    default:
        o.name = "no rate";
        o.with = rp_partitioning();
        break;
    }
    return o;
}
#endif
