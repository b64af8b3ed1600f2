/* A fuzzer of the reader of IDX files. The first byte says how it is read; a second reader, written as the format is
   described, says what must come of it. It needs clang:

       clang -g -O1 -I. -DRP_NO_SIMD -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -o fuzz tests/fuzz_idx.c -lm
       ./fuzz -max_len=300 -max_total_time=1200 tests/corpus/idx */
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "fuzz.h"

/* The numbers behind the header of a well-formed file; -1 if it is none. */
static int64_t payload_of(const uint8_t *data, size_t size, int *dimensions, int64_t *shape) {
    uint64_t product = 1;
    if (size < 4 || data[0] || data[1] || data[2] != 8) return -1;
    *dimensions = data[3];
    if (*dimensions < 1 || *dimensions > 9 || size < 4 + 4 * (size_t)*dimensions) return -1;
    for (int i = 0; i < *dimensions; i++) {
        const uint8_t *at = data + 4 + 4 * i;
        shape[i] = (int64_t)at[0] << 24 | at[1] << 16 | at[2] << 8 | at[3];
        if (!shape[i] || (uint64_t)shape[i] > size) return -1;
        product *= (uint64_t)shape[i];
        if (product > size) return -1;
    }
    return 4 + 4 * (size_t)*dimensions + product == size ? (int64_t)product : -1;
}

static void read_images(const uint8_t *data, size_t size, rp_real low, rp_real high) {
    int64_t shape[9] = {0};
    int dimensions = 0;
    int64_t numbers = payload_of(data, size, &dimensions, shape);
    rp_idx idx;
    rp_status status = rp_images_memory(data, size, low, high, &idx);
    must(!status == (numbers > 0) && !status == !idx.error[0] && !status == (idx.values != NULL));
    if (!status) {
        const rp_data copies = rp_idx_data(&idx, NULL);
        must(idx.count == shape[0] && idx.dimensions == dimensions - 1 && (int64_t)idx.count * idx.size == numbers);
        for (int i = 0; i < idx.dimensions; i++) must(idx.shape[i] == shape[i + 1]);
        for (int64_t i = 0; i < numbers; i++) {
            double value = low + ((double)high - low) * data[size - (size_t)numbers + (size_t)i] / 255;
            must(fabs(idx.values[i] - value) <= 1e-5 * fabs((double)high - low));
        }
        must(copies.count == idx.count && copies.inputs == idx.values && copies.targets == idx.values);
    }
    rp_idx_free(&idx);
}

static void read_labels(const uint8_t *data, size_t size, int classes) {
    int64_t shape[9] = {0};
    int dimensions = 0, fit = 1;
    int64_t numbers = payload_of(data, size, &dimensions, shape);
    rp_idx idx;
    rp_status status = rp_labels_memory(data, size, classes, &idx);
    for (int64_t i = 0; i < numbers; i++) fit &= data[size - (size_t)numbers + (size_t)i] < classes;
    must(!status == (numbers > 0 && dimensions == 1 && fit) && !status == !idx.error[0]);
    must(!status == (idx.labels != NULL));
    for (int64_t i = 0; !status && i < numbers; i++) must(idx.labels[i] == data[size - (size_t)numbers + (size_t)i]);
    must(status || idx.count == numbers);
    rp_idx_free(&idx);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) return 0;
    uint8_t *copy = exact_copy(data + 1, size - 1);
    read_images(copy, size - 1, data[0] & 1 ? -1 : 0, (rp_real)(data[0] >> 1));
    read_labels(copy, size - 1, 1 + data[0] % 16);
    free(copy);
    return 0;
}
