/* The implementation, compiled once for the test programs that need no more than its interface; see the Makefile. */
#include "../rp.h"
#include "library.h"
#include <stdlib.h>
#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
library_calls library = {malloc, free, fwrite, fflush, fclose, rename, fsync};
#else
library_calls library = {malloc, free, fwrite, fflush, fclose, rename, NULL};
#endif
#define RP_MALLOC(size) library.allocate(size)
#define RP_FREE(pointer) library.release(pointer)
#define fwrite library.write
#define fflush library.flush
#define fclose library.close
#define rename library.rename
#define fsync library.sync
#define RP_IMPLEMENTATION
#define RP_THREADS
#define RPI_GRAIN (1 << 10) /* so that small nets are worth several threads */
#include "../rp.h"

const rp_real *library_state(const rp_net *net, int which) { return which ? net->second : net->first; }
long library_time(const rp_net *net) { return (long)net->time; }
