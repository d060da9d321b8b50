/* secure.h - the operations that the public functions call. In the default build these are the functions of heap.h and whole.h themselves.
 *
 * The secure build asks them for a little more, and writes what lies behind the program's bytes:
 *
 *   | size bytes: the program's | filler | tail: 8 bytes |     to the end of the block
 *
 *   tail   63      48 47               1   0
 *         +----------+-------------------+---+
 *         | filler   | made of secret,   | 1 |     its length; the rest must fit to it and to the block's address
 *         | bytes    | address, length   |   |
 *         +----------+-------------------+---+
 *
 * So a block knows the size that was asked for, which is also its usable size, and whether something was written behind it: no byte of the filler is zero,
 * nor the tail's first. Looked at by free, realloc, malloc_usable_size and the forms of free and delete that are told a size.
 *
 * A tiny or mid block that is freed is filled with junk and waits in its heap, marked as free, until chance has it go for another one; then it goes the
 * ordinary way, and everything below knows nothing of this. (Large ones: large.h.) Who waits counts as in use. Whoever acts for a heap can let them all
 * go (secure_settle), as the keeper does.
 */
#ifndef TIDE_HEAP_SECURE_H
#define TIDE_HEAP_SECURE_H

#include "heap/block.h"
#include "heap/heap.h"
#include "heap/whole.h"

#ifdef TIDE_SECURE

tide_hidden void *secure_malloc(size_t size);
tide_hidden void *secure_malloc_aligned(size_t alignment, size_t size);
tide_hidden void *secure_calloc(size_t size);
/* As heap_realloc. */
tide_hidden void *secure_realloc(void *block, size_t size);
tide_hidden void secure_free(void *block);
/* The size must be the one that was asked for. */
tide_hidden void secure_free_sized(const char *function, void *block, size_t size);
tide_hidden size_t secure_usable_size(const void *block);
/* No block waits, whatever did: for a new heap, or one that is lost. */
tide_hidden void secure_init(struct heap *heap);
/* Blocks that wait become free. The caller owns the heap. Blocks of other heaps go into the queues of these. */
tide_hidden void secure_settle(struct heap *heap);

#else

tide_inline void *secure_malloc(size_t size) { return heap_malloc(size); }
tide_inline void *secure_malloc_aligned(size_t alignment, size_t size) { return heap_malloc_aligned(alignment, size); }
tide_inline void *secure_calloc(size_t size) { return heap_calloc(size); }
tide_inline void *secure_realloc(void *block, size_t size) { return heap_realloc(block, size); }
tide_inline void secure_free(void *block) { heap_free(block); }
tide_inline void secure_free_sized(const char *function, void *block, size_t size) {
    (void)function;
    (void)size;
    heap_free(block);
}
tide_inline size_t secure_usable_size(const void *block) {
    return block_describe("malloc_usable_size()", block).usable_bytes;
}
tide_inline void secure_init(struct heap *heap) { (void)heap; }
tide_inline void secure_settle(struct heap *heap) { (void)heap; }

#endif
#endif
