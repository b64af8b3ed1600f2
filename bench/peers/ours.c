/* The training steps, predictions and curvature of the nets of tasks.h as a shared library, for peers in Python.

       cc -O2 -shared -fPIC -o ours.so bench/peers/ours.c -lm -lpthread */
#define RP_IMPLEMENTATION
#define RP_THREADS
#define RP_STATIC
#include "../../rp.h"
#include "../tasks.h"

typedef struct ours {
    task task;
    rp_net *net;
    rp_data data;
    rp_optimizer optimizer;
    float *outputs;
} ours;

const char *ours_task(int index); /* NULL behind the last */
const char *ours_method(int index);
ours *ours_new(int task_index, int method, int threads, int batch); /* batch 0: the task's */
const int *ours_widths(const ours *o);
int ours_batch(const ours *o);
const float *ours_inputs(const ours *o);
const int *ours_labels(const ours *o); /* NULL: an autoencoder */
float *ours_parameters(const ours *o);
float ours_steps(ours *o, int count, float rate); /* the loss before the last step */
float ours_predict(ours *o, int count);           /* the first output */
/* Each `count` times: out = H v; out = first and second derivative along v; out = norms of the samples' gradients. */
void ours_hessian_vector(ours *o, const float *v, float *out, int count);
void ours_directional(ours *o, const float *v, float *out, int count);
void ours_sample_norms(ours *o, const float *v, float *out, int count);

const char *ours_task(int index) { return index < TASKS ? tasks[index].name : NULL; }
const char *ours_method(int index) { return index < METHODS ? methods[index].name : NULL; }

ours *ours_new(int task_index, int method, int threads, int batch) {
    ours *o = (ours *)task_must(malloc(sizeof *o));
    o->task = tasks[task_index];
    if (batch) o->task.batch = batch;
    o->net = task_net(&o->task, RP_ISA_AUTO, threads);
    o->data = task_data(&o->task);
    o->optimizer = methods[method].make(1);
    o->outputs = (float *)task_must(malloc((size_t)(o->task.batch * rp_outputs(o->net)) * sizeof *o->outputs));
    return o;
}

const int *ours_widths(const ours *o) { return o->task.widths; }
int ours_batch(const ours *o) { return o->task.batch; }
const float *ours_inputs(const ours *o) { return o->data.inputs; }
const int *ours_labels(const ours *o) { return o->data.labels; }
float *ours_parameters(const ours *o) { return rp_parameters(o->net); }

float ours_steps(ours *o, int count, float rate) {
    float loss = 0;
    if (o->optimizer.rate > 0) o->optimizer.rate = rate; /* else it finds its own */
    for (int i = 0; i < count; i++) task_good(rp_train(o->net, &o->optimizer, &o->data, &loss), o->net);
    return loss;
}

float ours_predict(ours *o, int count) {
    for (int i = 0; i < count; i++) task_good(rp_predict(o->net, o->data.inputs, o->data.count, o->outputs), o->net);
    return o->outputs[0];
}

void ours_hessian_vector(ours *o, const float *v, float *out, int count) {
    for (int i = 0; i < count; i++) task_good(rp_hessian_vector(o->net, &o->data, v, out), o->net);
}
void ours_directional(ours *o, const float *v, float *out, int count) {
    for (int i = 0; i < count; i++) task_good(rp_directional(o->net, &o->data, v, &out[0], &out[1]), o->net);
}
void ours_sample_norms(ours *o, const float *v, float *out, int count) {
    (void)v;
    for (int i = 0; i < count; i++) task_good(rp_sample_gradient_norms(o->net, &o->data, out), o->net);
}
