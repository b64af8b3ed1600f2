/* Times saving and opening a net of 100 million parameters against the same bytes by memcpy, fwrite and fread.

       cc -O2 -o files bench/files.c -lm && ./files [FOLDER]

   FOLDER, where it writes, decides what flushing to the disk costs; in /dev/shm it costs nothing. Everything takes turns;
   medians. New memory counts: what reads also allocates. */
#define _POSIX_C_SOURCE 200809L
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "measure.h"
#include <stdlib.h>
#include <unistd.h>

enum { WIDTH = 10000 };

typedef struct job {
    rp_net *net;
    char path[1000];
    char *bytes, *copy; /* the file, and memory that has been used */
    size_t size;
} job;

static void must(int condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "files: %s\n", what);
    exit(1);
}

static void run_memcpy(void *context) {
    job *j = (job *)context;
    memcpy(j->copy, j->bytes, j->size);
}
static void run_memcpy_new(void *context) {
    job *j = (job *)context;
    char *copy = (char *)malloc(j->size);
    must(copy != NULL, "no memory");
    memcpy(copy, j->bytes, j->size);
    must(copy[j->size / 2] == j->bytes[j->size / 2], "memcpy");
    free(copy);
}
static void write_file(job *j, int flush) {
    FILE *file = fopen(j->path, "wb");
    must(file && fwrite(j->bytes, 1, j->size, file) == j->size, "fwrite");
    must(!fflush(file) && (!flush || !fsync(fileno(file))) && !fclose(file), "fflush");
}
static void run_fwrite(void *context) { write_file((job *)context, 0); }
static void run_fwrite_flush(void *context) { write_file((job *)context, 1); }
static void run_save(void *context) {
    job *j = (job *)context;
    must(!rp_save(j->net, j->path), rp_error(j->net));
}
static void run_save_memory(void *context) {
    job *j = (job *)context;
    must(!rp_save_memory(j->net, j->copy, j->size, &j->size), rp_error(j->net));
}
static void run_fread(void *context) {
    job *j = (job *)context;
    FILE *file = fopen(j->path, "rb");
    char *copy = (char *)malloc(j->size);
    must(file && copy && fread(copy, 1, j->size, file) == j->size, "fread");
    fclose(file);
    free(copy);
}
static void build(rp_net *net) {
    must(!rp_net_build(net, 1, 1), rp_error(net));
    rp_net_free(net);
}
static rp_config inference(void) {
    rp_config config;
    memset(&config, 0, sizeof config);
    config.inference_only = 1;
    return config;
}
static void run_open(void *context) {
    rp_config config = inference();
    build(rp_open(((job *)context)->path, &config));
}
static void run_open_memory(void *context) {
    job *j = (job *)context;
    rp_config config = inference();
    build(rp_open_memory(j->bytes, j->size, &config));
}
static void run_load(void *context) {
    job *j = (job *)context;
    must(!rp_load(j->net, j->path), rp_error(j->net));
}

int main(int count, char **arguments) {
    static const struct {
        const char *name;
        void (*run)(void *context);
        int against;
    } lines[] = {{"memcpy", run_memcpy, 0},
                 {"memcpy_to_new", run_memcpy_new, 0},
                 {"fwrite", run_fwrite, 2},
                 {"fwrite_fsync", run_fwrite_flush, 3},
                 {"rp_save", run_save, 3},
                 {"rp_save_memory", run_save_memory, 0},
                 {"fread_to_new", run_fread, 7},
                 {"fread_to_new", run_fread, 7},
                 {"rp_open_build", run_open, 7},
                 {"rp_load", run_load, 7},
                 {"rp_open_memory_build", run_open_memory, 1}};
    enum { LINES = sizeof lines / sizeof *lines };
    static measurement measurements[LINES];
    static job j;
    rp_config config = inference();
    char text[100];
    snprintf(j.path, sizeof j.path, "%s/bench_files.safetensors", count > 1 ? arguments[1] : ".");
    snprintf(text, sizeof text, "input vector %d; dense %d", WIDTH, WIDTH);
    j.net = rp_net_text(text, &config);
    must(!rp_net_build(j.net, 1, 1) && !rp_save_memory(j.net, NULL, 0, &j.size), rp_error(j.net));
    j.bytes = (char *)malloc(j.size);
    j.copy = (char *)malloc(j.size);
    must(j.bytes && j.copy && !rp_save_memory(j.net, j.bytes, j.size, &j.size), "no memory");
    for (int i = 0; i < LINES; i++) {
        measurements[i].run = lines[i].run;
        measurements[i].context = &j;
    }
    measure(measurements, LINES, 0, 0);
    for (int i = 0; i < LINES; i++) {
        const measurement *m = &measurements[i], *other = &measurements[lines[i].against];
        if (i == 7) continue; /* once more, so that what comes before it is alike */
        printf("files case=%s parameters=%.0f us=%.0f gbyte_per_s=%.2f times_%s=%.2f times_memcpy=%.2f\n",
               lines[i].name, (double)rp_parameter_count(j.net), 1e6 * measure_median(m),
               1e-9 * (double)j.size / measure_median(m), lines[lines[i].against].name, measure_ratio(m, other),
               measure_ratio(m, &measurements[0]));
    }
    remove(j.path);
    rp_net_free(j.net);
    free(j.bytes);
    free(j.copy);
    return 0;
}
