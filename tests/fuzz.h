/* What the fuzzers share; tests/test_corpus.c runs them, too. Include after rp.h. */
#ifndef FUZZ_H
#define FUZZ_H
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* What must hold, or the program ends. */
#define must(condition) fuzz_must((condition) != 0, #condition, __FILE__, __LINE__)
static void fuzz_must(int condition, const char *text, const char *file, int line) {
    if (condition) return;
    fprintf(stderr, "%s:%d: %s does not hold\n", file, line, text);
    abort();
}

/* A copy of exactly these bytes, so that a sanitizer sees what reads beyond them. */
static inline uint8_t *exact_copy(const uint8_t *data, size_t size) {
    uint8_t *copy = (uint8_t *)malloc(size + !size);
    must(copy != NULL);
    if (size) memcpy(copy, data, size);
    return copy;
}
#endif
