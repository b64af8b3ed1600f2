/* The implementation, compiled once for the test programs that need no more than its interface; see the Makefile. */
#define RP_IMPLEMENTATION
#define RP_THREADS
#define RPI_GRAIN (1 << 10) /* so that small nets are worth several threads */
#include "../rp.h"
