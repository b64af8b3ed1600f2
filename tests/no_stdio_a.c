/* The library without files and without the C library's heap: no_stdio_b.c holds it. */
#define RP_NO_STDIO
#include "../rp.h"
#include "pair.h"
#include "test.h"

RP_EXTERN int no_stdio_taken, no_stdio_returned; /* blocks of memory */

/* Files in memory are left. */
static void check_file(void) {
    static unsigned char file[4000];
    rp_real x[2] = {1, 2}, one = 0, two = 1;
    size_t size = 0;
    rp_net *net = rp_net_text("input vector 2; dense 3; tanh; dense 1", NULL), *other;
    rp_status status = rp_net_build(net, 1, 1);
    CHECK(!status && !rp_save_memory(net, file, sizeof file, &size), "%s", rp_error(net));
    other = rp_open_memory(file, size, NULL);
    CHECK(!rp_net_build(other, 1, 2) && !rp_load_memory(net, file, size), "%s, %s", rp_error(other), rp_error(net));
    CHECK(!rp_predict(net, x, 1, &one) && !rp_predict(other, x, 1, &two) && !(one < two) && !(one > two), "%g, %g",
          (double)one, (double)two);
    rp_net_free(net);
    rp_net_free(other);
}

int main(void) {
    const unsigned char idx[] = {0, 0, 8, 1, 0, 0, 0, 3, 2, 0, 1};
    rp_idx labels;
    double loss = other_loss();
    CHECK(loss > 0 && loss < 0.1, "loss %g", loss);
    CHECK(loss == exclusive_or_loss(), "%g", loss);
    CHECK(rp_labels_memory(idx, sizeof idx, 3, &labels) == RP_OK, "%s", labels.error);
    CHECK(labels.count == 3 && labels.labels[0] == 2, "count %d", labels.count);
    rp_idx_free(&labels);
    check_file();
    CHECK(no_stdio_taken > 0, "%d", no_stdio_taken);
    CHECK(no_stdio_taken == no_stdio_returned, "%d blocks taken, %d returned", no_stdio_taken, no_stdio_returned);
    return test_end();
}
