/* Names of the interface that rp.h does not have yet. Include after rp.h. */
#ifndef INTERFACE_H
#define INTERFACE_H
#include <string.h>

static inline rp_data rp_labelled(const rp_real *inputs, const int *labels, int count) {
    rp_data data;
    memset(&data, 0, sizeof data);
    data.inputs = inputs;
    data.labels = labels;
    data.count = count;
    return data;
}
static inline rp_data rp_targeted(const rp_real *inputs, const rp_real *targets, int count) {
    rp_data data;
    memset(&data, 0, sizeof data);
    data.inputs = inputs;
    data.targets = targets;
    data.count = count;
    return data;
}
static inline rp_data rp_streamed(rp_fill fill, void *user) {
    rp_data data;
    memset(&data, 0, sizeof data);
    data.fill = fill;
    data.user = user;
    return data;
}
#endif
