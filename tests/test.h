/* A test program's few tools: checks that count and print, a small deterministic random generator. */
#ifndef TEST_H
#define TEST_H
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int test_passed, test_failed, test_skipped;

/* One check. On failure prints the place, the condition and the inputs that the caller describes. */
#define CHECK(condition, ...) test_check((condition) != 0, __FILE__, __LINE__, #condition, __VA_ARGS__)
#if defined(__GNUC__)
__attribute__((format(printf, 5, 6)))
#endif
static int test_check(int good, const char *file, int line, const char *condition, const char *format, ...) {
    if (good) return ++test_passed, 1;
    if (++test_failed <= 30) {
        va_list arguments;
        va_start(arguments, format);
        printf("FAILED %s:%d: %s: ", file, line, condition);
        vprintf(format, arguments);
        printf("\n");
        va_end(arguments);
    }
    return 0;
}

/* The last line of every test program; the return value is that of main. */
static int test_end(void) {
    if (test_failed > 30) printf("... and %d more failures\n", test_failed - 30);
    if (test_skipped) printf("%d passed, %d failed, %d skipped\n", test_passed, test_failed, test_skipped);
    else printf("%d passed, %d failed\n", test_passed, test_failed);
    return test_failed != 0;
}

typedef struct test_random {
    uint64_t state;
} test_random;

static inline uint64_t test_bits(test_random *random) { /* splitmix64 */
    uint64_t z = random->state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}
static inline int test_int(test_random *random, int low, int high) { /* uniform in low..high, both included */
    return low + (int)(test_bits(random) % (uint64_t)(high - low + 1));
}
static inline double test_uniform(test_random *random, double low, double high) {
    return low + (high - low) * (double)(test_bits(random) >> 11) / 9007199254740992.0;
}
static inline int chance(test_random *random, double probability) { return test_uniform(random, 0, 1) < probability; }
static inline double test_normal(test_random *random) {
    double r = sqrt(-2 * log(1 - test_uniform(random, 0, 1)));
    return r * cos(6.283185307179586 * test_uniform(random, 0, 1));
}

static inline double larger(double a, double b) { return a <= b || b != b ? b : a; } /* keeps what is not a number */
#endif
