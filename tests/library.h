/* What the tests' library calls in the place of the C library's functions, where a test program may put its own; and
   what only the implementation sees. Include after rp.h. */
#ifndef LIBRARY_H
#define LIBRARY_H
#include <stdio.h>

typedef struct library_calls {
    void *(*allocate)(size_t size);
    void (*release)(void *pointer);
    size_t (*write)(const void *bytes, size_t size, size_t count, FILE *file);
    int (*flush)(FILE *file);
    int (*close)(FILE *file);
    int (*rename)(const char *from, const char *to);
    int (*sync)(int file); /* NULL where there is none */
} library_calls;
extern library_calls library;

const rp_real *library_state(const rp_net *net, int which); /* the optimizer's first or second array, or NULL */
long library_time(const rp_net *net);                       /* steps that it has taken */
#endif
