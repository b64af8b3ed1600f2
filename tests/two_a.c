/* Two files, one implementation, which is in this one. Either may be C++. */
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "../rp.h" /* a second time: harmless */
#include "pair.h"
#include "test.h"

int main(void) {
    CHECK_PAIR();
    return test_end();
}
