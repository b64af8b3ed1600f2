/* A heap that counts, and that may run out of memory. Include after rp.h. */
#ifndef HEAP_H
#define HEAP_H
#include "options.h"
#include "test.h"

/* Fails at allocation `fail_at`, from 0, `forever`: and after; -1: never. Blocks beyond 256 MiB it does not have. What it
   gives is not a number anywhere. */
typedef struct heap {
    const struct heap *self;
    long calls, live, fail_at;
    int forever;
} heap;

static inline heap new_heap(void) {
    heap h;
    memset(&h, 0, sizeof h);
    h.fail_at = -1;
    return h;
}
static inline void *heap_allocate(void *user, size_t size) {
    heap *h = (heap *)user;
    long call = h->calls++;
    int fails = h->fail_at >= 0 && (call == h->fail_at || (h->forever && call > h->fail_at));
    void *pointer = fails || size > (size_t)1 << 28 ? NULL : malloc(size);
    CHECK(h->self == h, "not the caller's user pointer");
    if (pointer) memset(pointer, 0xFF, size);
    h->live += pointer != NULL;
    return pointer;
}
static inline void heap_release(void *user, void *pointer) {
    heap *h = (heap *)user;
    CHECK(h->self == h && pointer, "not the caller's user pointer, or a NULL pointer");
    h->live--;
    free(pointer);
}
static inline rp_config heap_config(heap *h) {
    rp_config config = config_of(RP_ISA_AUTO, 0);
    config.allocate = heap_allocate;
    config.release = heap_release;
    config.user = h;
    h->self = h;
    return config;
}
#endif
