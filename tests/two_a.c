/* Two files, one implementation, which is in this one. Either may be C++. */
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "../rp.h" /* a second time: harmless */
#include "pair.h"
#include "test.h"

/* Several threads want RP_THREADS. */
static void check_threads(void) {
    rp_config config;
    memset(&config, 0, sizeof config);
    config.threads = 2;
    rp_net *net = rp_net_text("input vector 2; dense 1", &config);
    CHECK(rp_net_build(net, 1, 1) == RP_ERR_UNSUPPORTED && strstr(rp_error(net), "RP_THREADS"), "%s", rp_error(net));
    rp_net_free(net);
}

int main(void) {
    CHECK_PAIR();
    check_threads();
    return test_end();
}
