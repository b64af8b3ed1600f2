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
    double loss = exclusive_or_loss(), other = other_loss();
    CHECK(loss > 0 && loss < 0.1, "loss %g", loss);
    CHECK(memcmp(&loss, &other, sizeof loss) == 0, "losses %.17g and %.17g", loss, other);
    return test_end();
}
