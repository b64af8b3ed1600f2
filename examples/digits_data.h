/* digits_data.h - digits to train and validate on: drawn by digits.h, or read from the four files of MNIST or a
   relative. Include it after rp.h with its implementation, and after digits.h. */
#ifndef DIGITS_DATA_H
#define DIGITS_DATA_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct digits_data {
    rp_data train, validation; /* inputs from -1 to 1, and labels */
    rp_idx files[4];           /* what these point into if they were read, */
    rp_real *images;           /* and if they were drawn */
    int *labels;
} digits_data;

static int digits_generate(digits_data *data, uint64_t seed, int train) {
    int validation = train / 5, count = train + validation;
    data->images = (rp_real *)malloc((size_t)count * DIGITS_SIZE * sizeof *data->images);
    data->labels = (int *)malloc((size_t)count * sizeof *data->labels);
    if (!data->images || !data->labels) {
        fputs("digits: no memory for so many digits\n", stderr);
        return 0;
    }
    digits_draw(seed, count, data->images, data->labels);
    data->train = rp_labelled(data->images, data->labels, train);
    data->validation = rp_labelled(data->images + (ptrdiff_t)train * DIGITS_SIZE, data->labels + train, validation);
    return 1;
}

static int digits_read(const char *folder, const char *part, rp_idx *images, rp_idx *labels, rp_data *out) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s-images-idx3-ubyte", folder, part);
    rp_status status = rp_images(path, -1, 1, images);
    if (status) {
        fprintf(stderr, "digits: %s\n", images->error);
        return 0;
    }
    if (images->size != DIGITS_SIZE) {
        fprintf(stderr, "digits: %s: images must have 28 x 28 pixels\n", path);
        return 0;
    }
    snprintf(path, sizeof path, "%s/%s-labels-idx1-ubyte", folder, part);
    status = rp_labels(path, 10, labels);
    if (status) {
        fprintf(stderr, "digits: %s\n", labels->error);
        return 0;
    }
    *out = rp_idx_data(images, labels);
    if (out->count >= 0) return 1;
    fprintf(stderr, "digits: %s: %d labels for %d images\n", path, labels->count, images->count);
    return 0;
}

/* From the folder, or, if it is NULL, `train` drawn digits and a fifth of it more for validation. Returns 1, or 0 after
   saying on stderr what is wrong. */
static int digits_load(digits_data *data, const char *folder, uint64_t seed, int train) {
    memset(data, 0, sizeof *data);
    if (!folder) return digits_generate(data, seed, train);
    return digits_read(folder, "train", &data->files[0], &data->files[1], &data->train) &&
           digits_read(folder, "t10k", &data->files[2], &data->files[3], &data->validation);
}

/* Also after a failure. */
static void digits_free(digits_data *data) {
    for (int i = 0; i < 4; i++) rp_idx_free(&data->files[i]);
    free(data->images);
    free(data->labels);
}
#endif
