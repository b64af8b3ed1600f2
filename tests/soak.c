/* A soak: random nets of all kinds are trained, saved, opened, loaded, cloned and freed, for as long as one likes, and
   memory has to stay flat: between two rounds not a byte more may be in use than after the first, and the resident set
   may not grow once every size of net was met. A development program for Linux; it may be killed at any time, and the
   file that a killed one leaves must open.

       cc -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -I. -o soak tests/soak.c -lm -lpthread
       ASAN_OPTIONS=quarantine_size_mb=16 ./soak 3600 soak.safetensors */
#define RP_IMPLEMENTATION
#define RP_THREADS
#define RPI_GRAIN (1 << 10) /* so that small nets are worth several threads */
#include "../rp.h"
#include "memory.h"
#include "optimizers.h"
#include "trials.h"
#include <time.h>
#include <unistd.h>

size_t __sanitizer_get_current_allocated_bytes(void); /* of sanitizer/allocator_interface.h, which not all have */

static const char *path;

static size_t resident(void) { /* bytes */
    unsigned long all = 0, pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%lu %lu", &all, &pages) != 2) exit(2);
    fclose(file);
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}

static void check_works(const rp_net *net, rp_status status) {
    CHECK(status == RP_OK, "%d: %s", status, rp_error(net));
}

/* Refused for its numbers, as some nets and rates are, is as good as done. */
static void check_step(const rp_net *net, rp_status status) {
    CHECK(status == RP_OK || status == RP_ERR_NOT_FINITE, "%d: %s", status, rp_error(net));
}
static void check_same(rp_net *a, rp_net *b, const char *what) {
    size_t count = rp_parameter_count(a);
    int same = count == rp_parameter_count(b) &&
               (!count || !memcmp(rp_parameters(a), rp_parameters(b), count * sizeof(rp_real)));
    CHECK(same, "%s: other parameters", what);
}

/* The same two steps by both nets, which are equal. */
static void train_both(rp_net *a, rp_net *b, const rp_optimizer *o, const rp_data *data, const char *what) {
    check_same(a, b, what);
    for (int step = 0; step < 2; step++) {
        check_step(a, rp_train(a, o, data, NULL));
        check_step(b, rp_train(b, o, data, NULL));
    }
    check_same(a, b, what);
}

static void save_and_open(const trial *t, const rp_optimizer *o, const rp_config *config) {
    rp_net *net = t->net, *other;
    check_works(net, rp_save(net, path));
    other = rp_open(path, config);
    check_works(other, rp_net_build(other, t->batch, 1));
    train_both(net, other, o, &t->data, "opened");
    check_works(other, rp_load(other, path));
    check_works(net, rp_load(net, path));
    train_both(net, other, o, &t->data, "loaded");
    rp_net_free(other);
}
static void clone(const trial *t, const rp_optimizer *o, const rp_config *config) {
    rp_net *net = t->net, *other = rp_clone(net, config, 0);
    if (!CHECK(other != NULL, "%s", rp_error(net))) return;
    train_both(net, other, o, &t->data, "cloned");
    rp_net_free(other);
}
static void fit(const trial *t, const rp_optimizer *o) {
    rp_fit_options options = fit_of(2);
    options.validation = &t->data;
    options.keep_best = 1;
    options.checkpoint = path;
    options.anew = 1;
    check_step(t->net, rp_fit(t->net, o, &t->data, &options, NULL));
}

/* A whole life, with memory as it was at its end. */
static void live(uint64_t seed) {
    static const net_recipe recipes[] = {{STACK, 4, 70, 12, 40, ANY},
                                         {VECTOR, 4, 12, 5, 20, ANY},
                                         {IMAGE, 4, 8, 5, 12, ANY},
                                         {SEQUENCE, 4, 7, 5, 12, ANY}};
    trial *t = trial_draw(seed, &recipes[seed % 4], nth_rule(RULE_KINDS, (int)(seed % 12)));
    rp_optimizer o = optimizer_of((int)(seed / 4 % OPTIMIZERS)).with;
    rp_config config = config_of(RP_ISA_AUTO, 1 + (int)(seed % 3));
    for (int step = 0; step < 3; step++) check_step(t->net, rp_train(t->net, &o, &t->data, NULL));
    save_and_open(t, &o, &config);
    clone(t, &o, &config);
    fit(t, &o);
    trial_free(t);
}

static void check_left_file(void) { /* by one that was killed */
    rp_net *net;
    if (access(path, R_OK)) return;
    net = rp_open(path, NULL);
    check_works(net, rp_net_build(net, 1, 1));
    printf("the file that is there opens\n");
    rp_net_free(net);
}

/* What the program itself keeps, so that it does not grow later: stdout's buffer and the list of what was taken. */
static void grow_first(void) {
    printf("seconds, nets, memory\n");
    for (int i = 0; i < 1 << 18; i++) take(0);
    memory_release(0);
}

static void round_of_lives(uint64_t *seed) {
    for (int i = 0; i < 52; i++) live((*seed)++);
}

int main(int count, char **arguments) {
    double seconds = count > 1 ? atof(arguments[1]) : 60, interval = fmin(60, seconds / 20), shown = 0;
    time_t start = time(NULL);
    uint64_t seed = 0;
    size_t first_heap, early = 0, late = 0;
    path = count > 2 ? arguments[2] : "soak.safetensors";
    check_left_file();
    grow_first();
    round_of_lives(&seed);
    first_heap = __sanitizer_get_current_allocated_bytes();
    for (double at = 0; at < seconds && !test_failed; at = difftime(time(NULL), start)) {
        round_of_lives(&seed);
        size_t heap = __sanitizer_get_current_allocated_bytes(), now = resident();
        CHECK(heap == first_heap, "after %d nets %ld bytes more are in use", (int)seed, (long)heap - (long)first_heap);
        if (at < seconds / 2) early = now > early ? now : early;
        else late = now > late ? now : late;
        if (at < shown) continue;
        printf("%6.0f s: %8d nets, heap %zu bytes, resident %.1f MB\n", at, (int)seed, heap, (double)now / 1e6);
        fflush(stdout);
        shown += interval;
    }
    CHECK((double)late <= 1.02 * (double)early + 4e6, "resident: %.1f MB at most in the first half, %.1f in the second",
          (double)early / 1e6, (double)late / 1e6);
    printf("%d nets; resident at most %.1f MB in the first half, %.1f in the second; heap %zu bytes throughout\n",
           (int)seed, (double)early / 1e6, (double)late / 1e6, first_heap);
    remove(path);
    return test_end();
}
