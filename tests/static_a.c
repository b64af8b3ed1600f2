/* Two private copies of the library in one program: this one computes in float, that of static_b.c in double. */
#define RP_STATIC
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "pair.h"
#include "test.h"

int main(void) {
    double loss = exclusive_or_loss(), other = other_loss();
    CHECK(loss > 0 && loss < 0.1, "loss %g", loss);
    CHECK(fabs(loss - other) < 1e-3 * loss, "losses %.9g and %.9g", loss, other);
    CHECK(memcmp(&loss, &other, sizeof loss) != 0, "both %.17g: one of them is not in its own precision", loss);
    return test_end();
}
