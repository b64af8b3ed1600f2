/* sets.h - MNIST, Fashion-MNIST and CIFAR-10 from the folder RP_DATA, or drawn digits; numbers in [-1, 1]. Include it
   after rp.h. */
#ifndef SETS_H
#define SETS_H
#include "../../examples/digits.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CIFAR_SIZE = 3 * 32 * 32, CIFAR_PART = 10000, CIFAR_PARTS = 5 };

static void *must(void *pointer) {
    if (pointer) return pointer;
    fprintf(stderr, "papers: out of memory\n");
    exit(1);
}

/* Training and validation samples. */
typedef struct set {
    const char *name;
    int size, count[2];
    rp_real *images[2];
    int *labels[2];
} set;

static rp_data set_data(const set *s, int part, int classifier, int count) {
    if (classifier) return rp_labelled(s->images[part], s->labels[part], count);
    return rp_targeted(s->images[part], s->images[part], count);
}

static void free_set(set *s) {
    for (int part = 0; part < 2; part++) {
        free(s->images[part]);
        free(s->labels[part]);
    }
}

static int missing(const char *path, const char *why) {
    printf("papers: %s: %s\n", path, why);
    return 0;
}

static void make_room(set *s, int part, int count) {
    s->count[part] = count;
    s->images[part] = (rp_real *)must(malloc((size_t)count * (size_t)s->size * sizeof(rp_real)));
    s->labels[part] = (int *)must(malloc((size_t)count * sizeof(int)));
}

static int read_idx(set *s, const char *folder, int part) {
    char path[1024];
    const char *kind = part ? "t10k" : "train";
    rp_idx images, labels;
    snprintf(path, sizeof path, "%s/%s/%s-images-idx3-ubyte", folder, s->name, kind);
    if (rp_images(path, -1, 1, &images)) return missing(s->name, images.error);
    s->images[part] = images.values;
    s->count[part] = images.count;
    snprintf(path, sizeof path, "%s/%s/%s-labels-idx1-ubyte", folder, s->name, kind);
    if (rp_labels(path, 10, &labels)) return missing(s->name, labels.error);
    s->labels[part] = labels.labels;
    return labels.count == images.count && images.size == s->size ? 1 : missing(path, "is not of these images");
}

static int read_cifar(set *s, const char *folder, int part) {
    static unsigned char image[1 + CIFAR_SIZE];
    int parts = part ? 1 : CIFAR_PARTS, *label;
    rp_real *x;
    make_room(s, part, parts * CIFAR_PART);
    x = s->images[part];
    label = s->labels[part];
    for (int p = 1; p <= parts; p++) {
        char path[1024];
        int count = 0;
        if (part) snprintf(path, sizeof path, "%s/cifar10/test_batch.bin", folder);
        else snprintf(path, sizeof path, "%s/cifar10/data_batch_%d.bin", folder, p);
        FILE *file = fopen(path, "rb");
        for (; file && count < CIFAR_PART && fread(image, sizeof image, 1, file) == 1; count++) {
            *label++ = image[0];
            for (int k = 0; k < CIFAR_SIZE; k++) *x++ = (rp_real)(image[1 + k] / 127.5 - 1);
        }
        if (file) fclose(file);
        if (count < CIFAR_PART) return missing(path, "cannot be read, or is too short");
    }
    return 1;
}

/* "drawn", of so many samples, or one of the sets in RP_DATA. */
static int load_set(set *s, const char *name, int drawn) {
    const char *folder = getenv("RP_DATA");
    memset(s, 0, sizeof *s);
    s->name = name;
    s->size = strcmp(name, "cifar10") ? DIGITS_SIZE : CIFAR_SIZE;
    if (!strcmp(name, "drawn")) {
        for (int part = 0; part < 2; part++) {
            make_room(s, part, part ? drawn / 5 : drawn);
            digits_draw((uint64_t)part + 1, s->count[part], s->images[part], s->labels[part]);
        }
        return 1;
    }
    if (!folder) return missing(name, "skipped, as RP_DATA is not set");
    for (int part = 0; part < 2; part++)
        if (!(s->size == CIFAR_SIZE ? read_cifar(s, folder, part) : read_idx(s, folder, part))) return free_set(s), 0;
    return 1;
}
#endif
