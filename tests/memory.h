/* The memory of a test program: taken block by block, so that tools see what reads or writes beyond one, and given back
   all at once. */
#ifndef MEMORY_H
#define MEMORY_H
#include <stdlib.h>

static void **memory_blocks;
static size_t memory_used, memory_room;

/* Zeros, until memory_release. Ends the program if there is no memory. */
static inline void *take(size_t size) {
    if (memory_used == memory_room) {
        memory_room = memory_room ? 2 * memory_room : 64;
        memory_blocks = (void **)realloc(memory_blocks, memory_room * sizeof *memory_blocks);
        if (!memory_blocks) exit(2);
    }
    void *block = calloc(size + 1, 1);
    if (!block) exit(2);
    memory_blocks[memory_used++] = block;
    return block;
}
static inline size_t memory_mark(void) { return memory_used; }

/* Frees all that was taken since memory_mark returned this. */
static inline void memory_release(size_t mark) {
    while (memory_used > mark) free(memory_blocks[--memory_used]);
}
#endif
