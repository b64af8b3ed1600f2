/* Two files, one implementation, which is in this one. Either may be C++. */
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "../rp.h" /* a second time: harmless */
#include "pair.h"
#include "test.h"

int main(void) {
    double loss = exclusive_or_loss(), other = other_loss();
    CHECK(loss > 0 && loss < 0.1, "loss %g", loss);
    CHECK(memcmp(&loss, &other, sizeof loss) == 0, "losses %.17g and %.17g", loss, other);
    return test_end();
}
