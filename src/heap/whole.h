/* whole.h - the operations on blocks of every tier that the public functions are made of. They enter and leave by themselves. */
#ifndef TIDE_HEAP_WHOLE_H
#define TIDE_HEAP_WHOLE_H

#include "heap/heap.h"
#include "tier/large.h"

/* Above MID_MAX_BYTES, or aligned to more. NULL and ENOMEM when there is no memory. */
tide_hidden tide_warm void *heap_malloc_large(size_t size, size_t alignment, enum large_wish wish);

/* `alignment` is a power of two. */
tide_hidden void *heap_malloc_aligned(size_t alignment, size_t size);
/* Zeroed. */
tide_hidden void *heap_calloc(size_t size);
/* `address` is not NULL, `size` not 0. NULL and ENOMEM: the block is as it was. */
tide_hidden void *heap_realloc(void *address, size_t size);

#endif
