/* The training steps of tasks.h as a shared library, for peers in Python.

       cc -O2 -shared -fPIC -o ours.so bench/peers/ours.c -lm -lpthread */
#define RP_IMPLEMENTATION
#define RP_THREADS
#define RP_STATIC
#include "../../rp.h"
#include "../tasks.h"

typedef struct ours {
    const task *task;
    rp_net *net;
    rp_data data;
    rp_optimizer optimizer;
} ours;

ours *ours_new(int task, int method, int threads);
const char *ours_task(int task);
const char *ours_method(int method);
const int *ours_widths(const ours *o);
int ours_batch(const ours *o);
const float *ours_inputs(const ours *o);
const int *ours_labels(const ours *o);
float *ours_parameters(const ours *o);
float ours_steps(ours *o, int count, float rate);

const char *ours_task(int task) { return task < TASKS ? tasks[task].name : NULL; }
const char *ours_method(int method) { return method < METHODS ? methods[method].name : NULL; }

ours *ours_new(int task, int method, int threads) {
    ours *o = (ours *)task_must(malloc(sizeof *o));
    o->task = &tasks[task], o->net = task_net(o->task, RP_ISA_AUTO, threads), o->data = task_data(o->task);
    o->optimizer = methods[method].make(1);
    return o;
}

const int *ours_widths(const ours *o) { return o->task->widths; } /* ends with 0 */
int ours_batch(const ours *o) { return o->task->batch; }
const float *ours_inputs(const ours *o) { return o->data.inputs; }
const int *ours_labels(const ours *o) { return o->data.labels; } /* NULL: an autoencoder */
float *ours_parameters(const ours *o) { return rp_parameters(o->net); }

/* The loss before the last step. */
float ours_steps(ours *o, int count, float rate) {
    float loss = 0;
    o->optimizer.rate = rate;
    for (int i = 0; i < count; i++) task_good(rp_train(o->net, &o->optimizer, &o->data, &loss), o->net);
    return loss;
}
