/* blas_step.h - SGD on a dense net as one writes it by hand on a BLAS. */
#ifndef BLAS_STEP_H
#define BLAS_STEP_H
typedef enum blas_activation { BLAS_TANH, BLAS_SOFTPLUS, BLAS_RELU } blas_activation;
typedef struct blas_net blas_net;

/* parameters: layer after layer, weights [out][in], then biases. classes: softmax cross-entropy of the last layer;
   otherwise half the squared error of the inputs, behind an activation. Ends the program when there is no memory. */
blas_net *blas_net_new(int layers, const int *widths, int batch, blas_activation activation, int classes,
                       const float *parameters);

/* One step. Returns the loss before it. */
float blas_step(blas_net *net, const float *inputs, const int *labels, float rate);
#endif
