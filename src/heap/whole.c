#include "heap/whole.h"

#include <errno.h>

#include "heap/bell.h"
#include "heap/block.h"
#include "heap/claim.h"
#include "heap/emergency.h"
#include "heap/own.h"
#include "heap/thread.h"
#include "heap/validate.h"
#include "span/run.h"
#include "tier/large.h"

/* A block keeps its place when it shrinks to no less than this part of its size. */
#define SHRINK_DIVISOR 2

/* Without a heap of its own a thread can take large blocks, but the process must have started. */
static void *large_take_scarce(struct heap *heap, size_t size, size_t alignment, enum large_wish wish) {
    if (heap != NULL) heap_flush(heap, TIER_BOTH);
    heap_reclaim();
    return large_take(size, alignment, wish);
}

void *heap_malloc_large(size_t size, size_t alignment, enum large_wish wish) {
    if (unlikely(!heap_try_enter())) {
        void *block = heap_malloc_interrupting(size, alignment);
        return block != NULL && wish == LARGE_ZERO ? memset(block, 0, size) : block;
    }
    emergency_settle();
    struct heap *heap = heap_own();
    void *block = NULL;
    if (region_main.base != 0) {
        block = large_take(size, alignment, wish);
        if (block == NULL && size <= PTRDIFF_MAX) block = large_take_scarce(heap, size, alignment, wish);
    }
    validate_large(block);
    heap_quit();
    if (block == NULL) errno = ENOMEM;
    if (unlikely(load_relaxed(&run_grown) != 0)) heap_on_growth();
    return block;
}

void *heap_malloc_above(size_t size) {
    bool clean;
    return size <= MID_MAX_BYTES ? heap_malloc_mid(size, &clean) : heap_malloc_large(size, 1, LARGE_PLAIN);
}

void *heap_malloc_aligned(size_t alignment, size_t size) {
    if (alignment <= GRANULE_BYTES) return heap_malloc(size);
    if (unlikely(heap_is_busy())) return heap_malloc_interrupting(size, alignment);
    unsigned class = class_of_aligned(size, alignment);
    if (class < CLASSES) return heap_malloc(class_bytes(class));
    return heap_malloc_large(size, alignment, LARGE_PLAIN);
}

void *heap_calloc(size_t size) {
    if (likely(size <= TINY_MAX_BYTES)) {
        void *block = heap_malloc_tiny(size);
        return likely(block != NULL) ? memset(block, 0, size) : NULL;
    }
    if (size <= MID_MAX_BYTES) {
        bool clean;
        void *block = heap_malloc_mid(size, &clean);
        return block != NULL && !clean ? memset(block, 0, size) : block;
    }
    return heap_malloc_large(size, 1, LARGE_ZERO);
}

/* In place, or by moving pages. NULL: it takes a copy. */
static void *realloc_large(struct span *head, size_t size) {
    if (!heap_try_enter()) return NULL;
    void *block = large_resize(head, size);
    validate_large(block);
    heap_quit();
    if (unlikely(load_relaxed(&run_grown) != 0)) heap_on_growth();
    return block;
}

void *heap_realloc(void *address, size_t size) {
    struct block_info old = block_describe("realloc()", address);
    if (old.kind == SPAN_LARGE && size > MID_MAX_BYTES) {
        void *block = realloc_large(old.span, size);
        if (block != NULL) return block;
    } else if (size <= old.usable_bytes && size >= old.usable_bytes / SHRINK_DIVISOR) {
        return address;
    }
    int error = errno;
    bool grown = old.kind == SPAN_LARGE && (old.span->flags & SPAN_GROWN) != 0;
    void *block =
        size <= MID_MAX_BYTES ? heap_malloc(size) : heap_malloc_large(size, 1, grown ? LARGE_GROWN_AGAIN : LARGE_GROWN);
    if (block == NULL) {
        if (size > old.usable_bytes) return NULL;
        errno = error;
        return address; /* a smaller block that cannot move stays as it is */
    }
    memcpy(block, address, size_min(size, old.usable_bytes));
    heap_free(address);
    return block;
}
