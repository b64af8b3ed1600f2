#define RP_STATIC
#define RP_DOUBLE
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "pair.h"

double other_loss(void) {
    return exclusive_or_loss();
}
