/* What the tests' library calls in the place of the C library's functions, where a test program may put its own; and
   what only the implementation sees. Include after rp.h. */
#ifndef LIBRARY_H
#define LIBRARY_H
#include <stdint.h>
#include <stdio.h>
#if (defined(__unix__) || defined(__APPLE__)) && !defined(TEST_ALONE)
#include <pthread.h>
#define LIBRARY_HAS_THREADS
#endif

typedef struct library_calls {
    void *(*allocate)(size_t size);
    void (*release)(void *pointer);
    size_t (*write)(const void *bytes, size_t size, size_t count, FILE *file);
    int (*flush)(FILE *file);
    int (*close)(FILE *file);
    int (*rename)(const char *from, const char *to);
    int (*sync)(int file); /* NULL where there is none */
#ifdef LIBRARY_HAS_THREADS
    int (*thread)(pthread_t *thread, const pthread_attr_t *attributes, void *(*function)(void *), void *argument);
#endif
} library_calls;
extern library_calls library;

const rp_real *library_state(const rp_net *net, int which); /* the optimizer's first or second array, or NULL */
long library_time(const rp_net *net);                       /* steps that it has taken */

/* Where library.c was compiled with LIBRARY_TESTS: what looks inside the implementation. */
typedef int library_fuzzer(const uint8_t *data, size_t size);
library_fuzzer library_fuzz_interface, library_fuzz_files, library_fuzz_idx;
int library_test_kernels(int argc, char **argv); /* a test program's main */
#endif
