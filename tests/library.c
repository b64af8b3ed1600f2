/* The implementation, compiled once for all test programs; see the Makefile. With LIBRARY_TESTS also the tests that look
   inside of it. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "../rp.h"
#include "library.h"
#include <stdlib.h>
#if defined(__unix__) || defined(__APPLE__) || defined(__wasi__)
#include <unistd.h>
#ifdef LIBRARY_HAS_THREADS
library_calls library = {malloc, free, fwrite, fflush, fclose, rename, fsync, pthread_create};
#define pthread_create library.thread
#else
library_calls library = {malloc, free, fwrite, fflush, fclose, rename, fsync};
#endif
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
#if !defined(__wasi__) && !defined(TEST_ALONE) /* TEST_ALONE: where threads would only take time */
#define RP_THREADS
#endif
#define RPI_GRAIN (1 << 10) /* so that small nets are worth several threads */
#define RPI_KEEP_MACROS
#include "../rp.h"
#undef fwrite
#undef fflush
#undef fclose
#undef rename
#undef fsync

const rp_real *library_state(const rp_net *net, int which) { return which ? net->second : net->first; }
long library_time(const rp_net *net) { return (long)net->time; }

#ifdef LIBRARY_TESTS
#define FUZZ_CORPUS
#define LLVMFuzzerTestOneInput library_fuzz_interface
#include "fuzz_interface.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput library_fuzz_files
#include "fuzz_files.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput library_fuzz_idx
#include "fuzz_idx.c"
#undef LLVMFuzzerTestOneInput
#include "kernels.h"
#endif
