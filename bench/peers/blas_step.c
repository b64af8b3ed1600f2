#define _POSIX_C_SOURCE 200809L
#include "blas_step.h"
#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS = 16 };
struct blas_net {
    int layers, batch, classes, widths[LAYERS + 1];
    blas_activation activation;
    float *w[LAYERS], *b[LAYERS];         /* [out][in], [out] */
    float *y[LAYERS + 1], *d[LAYERS + 1]; /* [batch][width]; d[0] is not needed */
    float *slope[LAYERS + 1], *gradient;
};

static float *new_array(int rows, int columns) {
    void *memory;
    if (posix_memalign(&memory, 64, (size_t)rows * (size_t)columns * sizeof(float))) exit(1);
    return (float *)memory;
}

blas_net *blas_net_new(int layers, const int *widths, int batch, blas_activation activation, int classes,
                       const float *parameters) {
    blas_net *net = (blas_net *)calloc(1, sizeof *net);
    int largest = 0;
    if (!net || layers > LAYERS) exit(1);
    net->layers = layers, net->batch = batch, net->activation = activation, net->classes = classes;
    memcpy(net->widths, widths, (size_t)(layers + 1) * sizeof *widths);
    for (int l = 0; l < layers; l++) {
        int in = widths[l], out = widths[l + 1];
        net->w[l] = new_array(out, in), net->b[l] = new_array(out, 1);
        memcpy(net->w[l], parameters, (size_t)(out * in) * sizeof *parameters), parameters += out * in;
        memcpy(net->b[l], parameters, (size_t)out * sizeof *parameters), parameters += out;
        net->y[l + 1] = new_array(batch, out), net->d[l + 1] = new_array(batch, out);
        net->slope[l + 1] = new_array(batch, out);
        if (in * out > largest) largest = in * out;
    }
    net->gradient = new_array(largest, 1);
    return net;
}

static void activate(blas_activation kind, int n, float *y, float *slope) {
    if (kind == BLAS_TANH)
        for (int i = 0; i < n; i++) y[i] = tanhf(y[i]), slope[i] = 1 - y[i] * y[i];
    else if (kind == BLAS_RELU)
        for (int i = 0; i < n; i++) slope[i] = y[i] > 0 ? 1 : 0, y[i] = y[i] > 0 ? y[i] : 0;
    else
        for (int i = 0; i < n; i++) {
            float e = expf(-fabsf(y[i]));
            slope[i] = (y[i] > 0 ? 1 : e) / (1 + e), y[i] = fmaxf(y[i], 0) + logf(1 + e);
        }
}

static float softmax(int n, const float *y, int label, float *d) {
    float most = y[0], sum = 0;
    for (int i = 1; i < n; i++) most = fmaxf(most, y[i]);
    for (int i = 0; i < n; i++) sum += d[i] = expf(y[i] - most);
    for (int i = 0; i < n; i++) d[i] /= sum;
    d[label] -= 1;
    return most + logf(sum) - y[label];
}

static float half_square(int n, const float *y, const float *t, float *d) {
    float sum = 0;
    for (int i = 0; i < n; i++) d[i] = y[i] - t[i], sum += d[i] * d[i] / 2;
    return sum;
}

float blas_step(blas_net *net, const float *inputs, const int *labels, float rate) {
    int batch = net->batch, last = net->layers;
    float loss = 0;
    for (int l = 0; l < last; l++) {
        int in = net->widths[l], out = net->widths[l + 1];
        const float *x = l ? net->y[l] : inputs;
        float *y = net->y[l + 1];
        for (int s = 0; s < batch; s++) memcpy(y + s * out, net->b[l], (size_t)out * sizeof *y);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, batch, out, in, 1, x, in, net->w[l], in, 1, y, out);
        if (l + 1 < last || !net->classes) activate(net->activation, batch * out, y, net->slope[l + 1]);
    }
    for (int s = 0, n = net->widths[last]; s < batch; s++)
        loss += net->classes ? softmax(n, net->y[last] + s * n, labels[s], net->d[last] + s * n)
                             : half_square(n, net->y[last] + s * n, inputs + s * n, net->d[last] + s * n);
    for (int l = last - 1; l >= 0; l--) {
        int in = net->widths[l], out = net->widths[l + 1];
        const float *x = l ? net->y[l] : inputs;
        float *w = net->w[l], *d = net->d[l + 1], step = -rate / (float)batch;
        if (l + 1 < last || !net->classes)
            for (int i = 0; i < batch * out; i++) d[i] *= net->slope[l + 1][i];
        if (l)
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, batch, in, out, 1, d, out, w, in, 0, net->d[l], in);
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, out, in, batch, step, d, out, x, in, 1, w, in);
        for (int s = 0; s < batch; s++)
            for (int i = 0; i < out; i++) net->b[l][i] += step * d[s * out + i];
    }
    return loss / (float)batch;
}
