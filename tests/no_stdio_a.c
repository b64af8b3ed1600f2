/* The library without files and without the C library's heap: no_stdio_b.c holds it. */
#define RP_NO_STDIO
#include "../rp.h"
#include "pair.h"
#include "test.h"

RP_EXTERN int no_stdio_taken, no_stdio_returned; /* blocks of memory */

int main(void) {
    const unsigned char idx[] = {0, 0, 8, 1, 0, 0, 0, 3, 2, 0, 1};
    rp_idx labels;
    double loss = other_loss();
    CHECK(loss > 0 && loss < 0.1, "loss %g", loss);
    CHECK(loss == exclusive_or_loss(), "%g", loss);
    CHECK(rp_labels_memory(idx, sizeof idx, 3, &labels) == RP_OK, "%s", labels.error);
    CHECK(labels.count == 3 && labels.labels[0] == 2, "count %d", labels.count);
    rp_idx_free(&labels);
    CHECK(no_stdio_taken > 0, "%d", no_stdio_taken);
    CHECK(no_stdio_taken == no_stdio_returned, "%d blocks taken, %d returned", no_stdio_taken, no_stdio_returned);
    return test_end();
}
