/* Checks of calls on a net, for tests that have it as `net`. Include after rp.h. */
#ifndef CALLS_H
#define CALLS_H
#include "test.h"

/* Whether the message has each of the words, which spaces separate. */
static int has_words(const char *message, const char *words) {
    while (*words) {
        char word[40] = "";
        size_t length = strcspn(words, " ");
        memcpy(word, words, length < 39 ? length : 39);
        if (!strstr(message, word)) return 0;
        words += length + (words[length] == ' ');
    }
    return 1;
}

/* The call fails with this status, and rp_error has these words. */
#define FAILS(call, status, words) check_fails(net, call, status, words, #call, __LINE__)
static inline void check_fails(const rp_net *net, int got, int expected, const char *words, const char *call, int line) {
    CHECK(got == expected, "line %d: %s: %d, not %d: '%s'", line, call, got, expected, rp_error(net));
    CHECK(has_words(rp_error(net), words), "line %d: %s: '%s' lacks one of '%s'", line, call, rp_error(net), words);
}
#define WORKS(call) check_works(net, call, #call, __LINE__)
static inline void check_works(const rp_net *net, int got, const char *call, int line) {
    CHECK(got == RP_OK, "line %d: %s: %d: '%s'", line, call, got, rp_error(net));
}
#endif
