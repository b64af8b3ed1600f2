/* random.h - random numbers that are the same on every machine: splitmix64. The state is any number, the seed. */
#ifndef RANDOM_H
#define RANDOM_H
#include <stdint.h>

static inline uint64_t random_bits(uint64_t *state) {
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}
static inline float random_uniform(uint64_t *state, float low, float high) {
    return low + (high - low) * (float)(random_bits(state) >> 40) / 16777216.0f;
}
static inline int random_below(uint64_t *state, int end) { /* from 0 */
    return (int)(random_bits(state) % (uint64_t)end);
}
#endif
