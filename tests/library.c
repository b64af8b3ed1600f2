/* The implementation, compiled once for the test programs that need no more than its interface; see the Makefile. */
#define RP_IMPLEMENTATION
#define RP_THREADS
#include "../rp.h"
