/* The implementation, and in hostile_b.c the interface, behind macros that other headers define. The system's own
   headers come first, as they would in those. */
#include "test.h"
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sched.h>
#include <unistd.h>
#endif
#include "hostile.h"
#define RP_THREADS
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "pair.h"

int main(void) {
    CHECK_PAIR();
    return test_end();
}
