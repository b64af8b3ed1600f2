/* The reader of IDX files: what it accepts, every way it refuses, and that it never leaks. */
#include "../rp.h"
#include "library.h"
#include "test.h"

static long allocations, live, fail_at = -1; /* fail_at: the allocation, from 0, that finds no memory */

static void *counted_malloc(size_t size) {
    void *pointer = allocations++ == fail_at ? NULL : malloc(size);
    live += pointer != NULL;
    return pointer;
}
static void counted_free(void *pointer) {
    live -= pointer != NULL;
    free(pointer);
}

typedef struct bytes {
    unsigned char at[128];
    size_t size;
} bytes;

/* An IDX file of unsigned bytes with these dimensions, and `payload` bytes 0, 1, 2, ... after its header. */
static bytes idx_file(int dimensions, const uint32_t *shape, size_t payload) {
    bytes file = {{0, 0, 8}, 4};
    file.at[3] = (unsigned char)dimensions;
    for (int i = 0; i < dimensions; i++)
        for (int shift = 24; shift >= 0; shift -= 8) file.at[file.size++] = (unsigned char)(shape[i] >> shift);
    for (size_t i = 0; i < payload; i++) file.at[file.size++] = (unsigned char)i;
    return file;
}

static bytes images_file(void) { /* 3 images of 2 x 4; the first bytes are the extremes */
    const uint32_t shape[] = {3, 2, 4};
    bytes file = idx_file(3, shape, 24);
    file.at[16] = 255;
    return file;
}
static bytes labels_file(void) { /* labels 0 1 2 3 4 */
    const uint32_t shape[] = {5};
    return idx_file(1, shape, 5);
}

enum { IMAGES, LABELS };

/* Reads a file from a heap copy of exactly its size, so that a sanitizer sees every byte read beyond its end. The
   result must be whole: on success one array, on failure none and a message. */
static rp_status read_with(int kind, const void *source, size_t size, int classes, rp_idx *out) {
    unsigned char *copy = (unsigned char *)malloc(size + !size);
    rp_status status;
    if (!copy) return RP_ERR_MEMORY;
    memcpy(copy, source, size);
    memset(out, 0xAB, sizeof *out); /* the reader may not look at what was there */
    status = kind == IMAGES ? rp_images_memory(copy, size, -1, 1, out) : rp_labels_memory(copy, size, classes, out);
    free(copy);
    if (status) {
        CHECK(!out->values && !out->labels && live == 0, "status %d, %ld allocations live", status, live);
        CHECK(out->error[0] && memchr(out->error, 0, sizeof out->error), "status %d without a message", status);
    } else {
        CHECK(!out->values == (kind == LABELS) && !out->labels == (kind == IMAGES), "kind %d", kind);
        CHECK(live == 1, "%ld allocations live", live);
    }
    return status;
}

/* The status of such a read; nothing is kept. */
static rp_status status_of(int kind, const void *source, size_t size, int classes) {
    rp_idx idx;
    rp_status status = read_with(kind, source, size, classes, &idx);
    rp_idx_free(&idx);
    CHECK(live == 0, "%ld allocations live", live);
    return status;
}
#define REFUSES(kind, file, status) check_refused(kind, &(file), status, __LINE__)
static void check_refused(int kind, const bytes *file, rp_status expected, int line) {
    rp_status status = status_of(kind, file->at, file->size, 10);
    CHECK(status == expected, "line %d: status %d, not %d", line, status, expected);
}

static void test_images(void) {
    bytes file = images_file();
    const rp_real ranges[][2] = {{-1, 1}, {0, 1}, {0, 255}, {1, 0}};
    for (int r = 0; r < 4; r++) {
        rp_real low = ranges[r][0], high = ranges[r][1];
        rp_idx idx;
        rp_status status = rp_images_memory(file.at, file.size, low, high, &idx);
        if (!CHECK(status == RP_OK, "%d: %s", status, idx.error)) continue;
        CHECK(idx.count == 3 && idx.size == 8 && idx.dimensions == 2, "%d %d %d", idx.count, idx.size, idx.dimensions);
        CHECK(idx.shape[0] == 2 && idx.shape[1] == 4, "%d x %d", idx.shape[0], idx.shape[1]);
        CHECK(!idx.labels && !idx.error[0], "message '%s'", idx.error);
        for (int i = 0; i < 24; i++) {
            double expected = low + (high - low) * file.at[16 + i] / 255.0;
            CHECK(fabs(idx.values[i] - expected) <= 1e-5 * fabs(high - low),
                  "%d: %g, not %g", i, idx.values[i], expected);
        }
        CHECK(idx.values[0] == high, "255 is %g, not %g", idx.values[0], high);
        rp_idx_free(&idx);
        CHECK(!idx.values && live == 0, "%ld allocations live", live);
        rp_idx_free(&idx);
    }
    file.at[16] = 0;
    rp_idx idx;
    CHECK(!rp_images_memory(file.at, file.size, -3, 7, &idx) && idx.values[0] == -3,
          "0 is the lower end, message '%s'", idx.error);
    rp_idx_free(&idx);
    rp_idx_free(NULL);
}

static void test_dimensions(void) {
    const uint32_t shape[] = {2, 1, 3, 1, 1, 2, 1, 1, 2, 1};
    const int sizes[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 12};
    for (int dimensions = 1; dimensions <= 9; dimensions++) {
        bytes file = idx_file(dimensions, shape, (size_t)(2 * sizes[dimensions]));
        rp_idx idx;
        rp_status status = read_with(IMAGES, file.at, file.size, 0, &idx);
        if (!CHECK(status == RP_OK, "%d dimensions: %d: %s", dimensions, status, idx.error)) continue;
        CHECK(idx.count == 2 && idx.size == sizes[dimensions] && idx.dimensions == dimensions - 1,
              "%d dimensions: %d of %d, %d", dimensions, idx.count, idx.size, idx.dimensions);
        for (int i = 0; i < idx.dimensions; i++) CHECK(idx.shape[i] == (int)shape[i + 1], "%d: %d", i, idx.shape[i]);
        rp_idx_free(&idx);
    }
    bytes none = idx_file(0, shape, 0), ten = idx_file(10, shape, 24);
    REFUSES(IMAGES, none, RP_ERR_SHAPE);
    REFUSES(LABELS, none, RP_ERR_SHAPE);
    REFUSES(IMAGES, ten, RP_ERR_SHAPE);
    for (int zero = 0; zero < 3; zero++) {
        uint32_t empty[] = {3, 2, 4};
        empty[zero] = 0;
        bytes file = idx_file(3, empty, 0);
        REFUSES(IMAGES, file, RP_ERR_SHAPE);
    }
    bytes matrix = idx_file(2, shape, 2);
    REFUSES(LABELS, matrix, RP_ERR_SHAPE);
}

static void test_labels(void) {
    bytes file = labels_file();
    rp_idx idx;
    rp_status status = read_with(LABELS, file.at, file.size, 5, &idx);
    if (CHECK(status == RP_OK, "%d: %s", status, idx.error)) {
        CHECK(idx.count == 5 && idx.dimensions == 0, "%d labels, %d dimensions", idx.count, idx.dimensions);
        for (int i = 0; i < 5; i++) CHECK(idx.labels[i] == i, "label %d is %d", i, idx.labels[i]);
    }
    rp_idx_free(&idx);
    CHECK(read_with(LABELS, file.at, file.size, 4, &idx) == RP_ERR_LABEL, "label 4 of 4 classes");
    CHECK(strstr(idx.error, "4"), "'%s'", idx.error);
    CHECK(status_of(LABELS, file.at, file.size, 0) == RP_ERR_VALUE, "no classes");
    CHECK(status_of(LABELS, file.at, file.size, -1) == RP_ERR_VALUE, "-1 classes");
}

static void test_arguments(void) {
    bytes images = images_file(), labels = labels_file();
    const rp_real bad[] = {(rp_real)NAN, (rp_real)INFINITY};
    rp_idx idx;
    CHECK(rp_images_memory(NULL, 9, 0, 1, &idx) == RP_ERR_NULL && idx.error[0], "no bytes");
    CHECK(rp_labels_memory(NULL, 9, 2, &idx) == RP_ERR_NULL && idx.error[0], "no bytes");
    CHECK(rp_images_memory(images.at, images.size, 0, 1, NULL) == RP_ERR_NULL, "no result");
    CHECK(rp_labels_memory(labels.at, labels.size, 9, NULL) == RP_ERR_NULL, "no result");
    for (int i = 0; i < 2; i++) {
        CHECK(rp_images_memory(images.at, images.size, bad[i], 1, &idx) == RP_ERR_VALUE && idx.error[0],
              "low %g", bad[i]);
        CHECK(rp_images_memory(images.at, images.size, 0, bad[i], &idx) == RP_ERR_VALUE && idx.error[0],
              "high %g", bad[i]);
    }
    CHECK(live == 0, "%ld allocations live", live);
}

static void test_lengths(int kind, bytes file) {
    for (size_t size = 0; size < file.size; size++) {
        rp_status status = status_of(kind, file.at, size, 10);
        CHECK(status == RP_ERR_TRUNCATED || (size < 4 && status == RP_ERR_MAGIC),
              "%d bytes: status %d", (int)size, status);
    }
    file.size++;
    REFUSES(kind, file, RP_ERR_TRAILING);
}

/* Any other byte in the header makes the file another one, which no longer fits its length. */
static void test_header_bytes(int kind, bytes file) {
    size_t header = 4 + 4 * (size_t)file.at[3];
    for (size_t place = 0; place < header; place++) {
        for (int value = 0; value < 256; value++) {
            bytes changed = file;
            changed.at[place] = (unsigned char)value;
            rp_status status = status_of(kind, changed.at, changed.size, 10);
            int same = value == file.at[place], other_type = value >= 9 && value <= 14 && value != 10;
            CHECK((status == RP_OK) == same, "byte %d is %d: status %d", (int)place, value, status);
            if (place < 2 && !same)
                CHECK(status == RP_ERR_MAGIC, "byte %d is %d: status %d", (int)place, value, status);
            if (place == 2 && other_type) CHECK(status == RP_ERR_UNSUPPORTED, "type %d: status %d", value, status);
            if (place == 2 && !same && !other_type) CHECK(status == RP_ERR_MAGIC, "type %d: status %d", value, status);
        }
    }
}

static void test_random_bytes(void) {
    test_random random = {1};
    for (int round = 0; round < 4000; round++) {
        int kind = round & 1;
        bytes file = kind == IMAGES ? images_file() : labels_file();
        for (int changes = test_int(&random, 1, 4); changes; changes--)
            file.at[test_int(&random, 2, (int)file.size - 1)] = (unsigned char)test_int(&random, 0, 16);
        file.size = (size_t)test_int(&random, 4, (int)file.size);
        status_of(kind, file.at, file.size, 10);
    }
}

static void test_overflow(void) {
    const uint32_t most = 0xFFFFFFFFu, all[] = {most, most, most}, wraps[] = {1u << 31, 1u << 31, 4};
    const uint32_t wide[] = {1, most};
    bytes cube = idx_file(3, all, 8), zero = idx_file(3, wraps, 0);
    bytes row = idx_file(2, wide, 8), many = idx_file(1, all, 8);
    REFUSES(IMAGES, cube, RP_ERR_OVERFLOW);
    REFUSES(IMAGES, zero, RP_ERR_OVERFLOW);
    REFUSES(IMAGES, row, RP_ERR_OVERFLOW);
    REFUSES(IMAGES, many, RP_ERR_OVERFLOW);
    REFUSES(LABELS, many, RP_ERR_OVERFLOW);
}

static void test_no_memory(int kind, bytes file) {
    rp_idx idx;
    allocations = 0;
    CHECK(!status_of(kind, file.at, file.size, 10), "kind %d", kind);
    long needed = allocations;
    for (long n = 0; n < needed; n++) {
        allocations = 0, fail_at = n;
        CHECK(read_with(kind, file.at, file.size, 10, &idx) == RP_ERR_MEMORY, "allocation %ld", n);
    }
    fail_at = -1;
}

#ifndef RP_NO_STDIO
static int write_file(const char *path, const bytes *file) {
    FILE *stream = fopen(path, "wb");
    size_t written = stream ? fwrite(file->at, 1, file->size, stream) : 0;
    return CHECK(stream && !fclose(stream) && written == file->size, "cannot write '%s'", path);
}

static void test_path_memory(const char *path) {
    rp_idx idx;
    for (long n = 0;; n++) {
        allocations = 0, fail_at = n;
        rp_status status = rp_images(path, 0, 1, &idx);
        fail_at = -1;
        rp_idx_free(&idx);
        CHECK(live == 0 && (!status || status == RP_ERR_MEMORY),
              "allocation %ld: status %d, %ld live", n, status, live);
        if (status != RP_ERR_MEMORY) return;
    }
}

static void test_paths(const char *path) {
    bytes images = images_file(), labels = labels_file();
    rp_idx idx, expected;
    if (!write_file(path, &images)) return;
    CHECK(!rp_images(path, -1, 1, &idx) && !rp_images_memory(images.at, images.size, -1, 1, &expected),
          "'%s'", idx.error);
    CHECK(idx.count == 3 && idx.values && !memcmp(idx.values, expected.values, 24 * sizeof(rp_real)),
          "%d images", idx.count);
    rp_idx_free(&idx), rp_idx_free(&expected);
    test_path_memory(path);
    write_file(path, &labels);
    CHECK(!rp_labels(path, 5, &idx) && idx.count == 5 && idx.labels[4] == 4, "'%s'", idx.error);
    rp_idx_free(&idx);
    for (int i = 0; i < 1100; i++) rp_labels(path, 4, &idx); /* more files than a process may leave open */
    CHECK(rp_labels(path, 4, &idx) == RP_ERR_LABEL && idx.error[0], "'%s'", idx.error);
    const size_t whole = labels.size;
    for (labels.size = 0; labels.size < whole; labels.size++) {
        write_file(path, &labels);
        rp_status status = rp_labels(path, 5, &idx);
        CHECK(status == RP_ERR_TRUNCATED || (labels.size < 4 && status == RP_ERR_MAGIC),
              "%d: %d", (int)labels.size, status);
    }
    labels.size = whole + 1;
    write_file(path, &labels);
    CHECK(rp_labels(path, 5, &idx) == RP_ERR_TRAILING, "'%s'", idx.error);
    remove(path);
}

static void test_bad_paths(const char *path) {
    char longest[600];
    rp_idx idx;
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = 0;
    CHECK(rp_images(path, 0, 1, &idx) == RP_ERR_FILE && strstr(idx.error, path), "missing: '%s'", idx.error);
    CHECK(rp_labels(path, 9, &idx) == RP_ERR_FILE && strstr(idx.error, path), "missing: '%s'", idx.error);
    CHECK(rp_images(".", 0, 1, &idx) == RP_ERR_FILE && idx.error[0], "a directory: '%s'", idx.error);
    CHECK(rp_images("", 0, 1, &idx) == RP_ERR_FILE && idx.error[0], "no name: '%s'", idx.error);
    CHECK(rp_images(longest, 0, 1, &idx) == RP_ERR_FILE && strlen(idx.error) < sizeof idx.error, "'%.20s'", idx.error);
    CHECK(rp_images(NULL, 0, 1, &idx) == RP_ERR_NULL && idx.error[0], "'%s'", idx.error);
    CHECK(rp_labels(NULL, 9, &idx) == RP_ERR_NULL && idx.error[0], "'%s'", idx.error);
    CHECK(rp_images(path, 0, 1, NULL) == RP_ERR_NULL && rp_labels(path, 9, NULL) == RP_ERR_NULL, "no result");
    CHECK(live == 0, "%ld allocations live", live);
}
#endif

int main(int count, char **arguments) {
    library.allocate = counted_malloc;
    library.release = counted_free;
    test_images();
    test_dimensions();
    test_labels();
    test_arguments();
    test_lengths(IMAGES, images_file());
    test_lengths(LABELS, labels_file());
    test_header_bytes(IMAGES, images_file());
    test_header_bytes(LABELS, labels_file());
    test_random_bytes();
    test_overflow();
    test_no_memory(IMAGES, images_file());
    test_no_memory(LABELS, labels_file());
#ifndef RP_NO_STDIO
    const char *path = count > 1 ? arguments[1] : "test_idx.tmp"; /* written and removed again */
    test_paths(path);
    test_bad_paths(path);
#else
    (void)count, (void)arguments;
#endif
    return test_end();
}
