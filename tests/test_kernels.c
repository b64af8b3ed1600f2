/* The tests of kernels.h, which look inside the implementation; see library.c. */
#include "../rp.h"
#include "library.h"

int main(int argc, char **argv) { return library_test_kernels(argc, argv); }
