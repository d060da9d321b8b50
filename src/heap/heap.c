#include "heap/heap.h"

#include <errno.h>

#include "heap/bell.h"
#include "heap/block.h"
#include "heap/claim.h"
#include "heap/emergency.h"
#include "heap/own.h"
#include "heap/remote.h"
#include "heap/thread.h"
#include "heap/validate.h"
#include "heap/whole.h"
#include "os/report.h"
#include "span/meta.h"
#include "span/run.h"
#include "tier/large.h"

/* What a signal handler has between itself and the interrupted code at least: saved registers and signal information. */
#define SIGNAL_FRAME_MIN_BYTES 800u

static _Atomic uint64_t nested_count;

static void slow_begin(void) {
    heap_record.slow = true;
    bell_touch();
    emergency_settle();
}

void heap_quit(void) {
    if (unlikely(heap_record.ended)) bell_touch(); /* whoever asked meanwhile did not see that this thread was busy */
    heap_record.slow = false;
    heap_leave();
}

/* --- malloc -------------------------------------------------------------------------------------------------------- */

/* The last resort: what the caller's heap and the heaps without threads can spare, then once more. */
static void *heap_take_scarce(struct heap *heap, unsigned class, bool *clean) {
    heap_flush(heap, TIER_BOTH);
    heap_reclaim();
    return heap_take(heap, class, clean);
}

void *heap_malloc_miss(size_t size, bool *clean) {
    slow_begin();
    bool unknown;
    if (clean == NULL) clean = &unknown;
    unsigned class = class_of_size(size);
    struct heap *heap = heap_own();
    bool shared = heap == NULL;
    if (shared) {
        heap = &heap_shared;
        os_lock_take(&heap->lock);
    }
    void *block = region_main.base != 0 ? heap_take(heap, class, clean) : NULL;
    if (block == NULL && region_main.base != 0 && !shared) block = heap_take_scarce(heap, class, clean);
    if (block != NULL) validate_slow(heap, heap->current[class]);
    if (shared) os_lock_drop(&heap->lock);
    heap_quit();
    if (block == NULL) errno = ENOMEM;
    if (unlikely(load_relaxed(&run_grown) != 0)) heap_on_growth();
    return block;
}

/* --- free ---------------------------------------------------------------------------------------------------------- */

/* Free a block of a tiny or mid span of another heap. Busy is set, or the thread is inside another operation. */
static bool free_remote(struct span *span, void *address, uint32_t index) {
    struct block *block = address;
    bool mid = span->kind == SPAN_MID;
    uintptr_t key = mid ? mid_key(span, block) : tiny_key(span, block);
    if (block->key == key || (mid ? mid_is_free(span, index) : tiny_is_withheld(span, tiny_offset(block))))
        block_fatal_free("free()", block);
    block->key = key;
    return remote_push(span, block, index);
}

/* Free a block of a span that the caller owns and that looks free already: a double free, if the block is on one of the span's lists. */
static void free_doubtful(struct span *span, void *block) {
    uint32_t index = span_block_index(span, block);
    if (index == MID_NO_BLOCK) block_fatal("free()", block);
    struct heap *heap = span->heap;
    heap_drain(heap); /* may give up the span, if all its blocks were freed by others */
    if (span->kind == SPAN_MID ? mid_is_free(span, index) : span->kind != SPAN_TINY || tiny_is_free(span, block))
        block_fatal_free("free()", block);
    heap_put(heap, span, block);
}

void heap_free_doubtful(struct span *span, void *block) {
    heap_record.slow = true;
    free_doubtful(span, block);
    heap_quit();
}

static void free_small(struct span *span, void *block) {
    uint32_t index = span_block_index(span, block);
    if (index == MID_NO_BLOCK) block_fatal("free()", block);
    struct heap *heap = heap_own();
    if (span->heap == heap && (span->flags & SPAN_IN_HAND) == 0) {
        bool twice = span->kind == SPAN_MID ? mid_is_free(span, index) || load_relaxed(&span->remote) != 0
                                            : ((struct block *)block)->key == tiny_key(span, block) ||
                                                  tiny_is_withheld(span, tiny_offset(block));
        if (unlikely(twice))
            free_doubtful(span, block);
        else
            heap_put(heap, span, block);
        validate_slow(heap, NULL);
        return;
    }
    if (heap == NULL) os_lock_take(&heap_shared.lock); /* so that fork finds it finished */
    struct heap *owner = span->heap;
    bool queued = free_remote(span, block, index);
    if (heap == NULL) os_lock_drop(&heap_shared.lock); /* before the owner's is taken: fork takes heap_shared's last */
    if (queued) heap_finish(owner);
}

static tide_warm void free_other(struct span *span, void *block) {
    slow_begin();
    switch (span->kind) {
    case SPAN_TINY:
    case SPAN_MID: free_small(span, block); break;
    case SPAN_LARGE:
        if ((char *)block != span_start(span)) block_fatal("free()", block);
        validate_large(block);
        if (!large_release(span)) block_fatal("free()", block);
        break;
    case SPAN_EMERGENCY:
        if (emergency_put(block) != EMERGENCY_FREED) block_fatal("free()", block);
        break;
    default: block_fatal("free()", block);
    }
    heap_quit();
}

/* The mid tier's hot path; everything else goes on from here. */
void heap_free_miss(struct span *span, void *block) {
    if (span->kind == SPAN_INNER) span = mid_head(span);
    struct heap *heap = heap_loaded();
    if (unlikely(span_owner(span) != mid_owner(heap))) {
        free_other(span, block);
        return;
    }
    uint32_t index = mid_index(span, block);
    /* Where other threads have freed blocks of the span, this one may be among them. */
    if (unlikely(index == MID_NO_BLOCK || mid_is_free(span, index) || load_relaxed(&span->remote) != 0)) {
        heap_free_doubtful(span, block);
        return;
    }
    mid_push(span, index);
    if (unlikely(span->used == 0)) {
        heap_span_emptied(heap, span);
        return;
    }
    if (unlikely(load_relaxed(&run_keep_bytes) != SIZE_MAX) && span->used == 1 && (span->flags & SPAN_CURRENT) != 0) {
        heap_record.slow = true;
        heap_mid_emptied(heap, span);
        heap_record.slow = false;
    }
    heap_leave();
}

void heap_span_emptied(struct heap *heap, struct span *span) {
    heap_record.slow = true;
    heap_give_up(heap, span);
    validate_slow(heap, NULL);
    heap_quit();
}

void heap_free_elsewhere(void *block) {
    if (likely(block == NULL)) {
        heap_leave();
        return;
    }
    struct region *region = region_of(block);
    if (region != NULL) {
        heap_free_miss(region_span(region, block), block);
        return;
    }
    if (!emergency_unmap(block)) block_fatal("free()", block);
    heap_leave();
}

/* --- inside another operation -------------------------------------------------------------------------------------- */

/* Whether busy tells of an operation that is interrupted now. False: that operation was left by a jump and is over; busy is clear now. */
static tide_cold bool heap_is_nested(void) {
    struct thread_record *record = &heap_record;
    uintptr_t interrupted = atomic_load_explicit(&record->busy, memory_order_relaxed);
    /* Frames of the interrupted operation, and the kernel's signal frame, lie below its entry. Whoever runs above them has jumped out
     * of it. */
    if ((uintptr_t)__builtin_frame_address(0) + SIGNAL_FRAME_MIN_BYTES < interrupted || os_on_signal_stack())
        return true;
    if (record->slow)
        heap_abandon();
    else if (record->self != NULL)
        atomic_store_explicit(&record->self->jumped, true, memory_order_relaxed);
    record->slow = false;
    heap_leave();
    return false;
}

/* The heap of threads that have ended serves also when all emergency blocks are taken, unless the interrupted operation is at work on what it
 * needs. So a thread that is taken for nested without end, after a jump to a deeper frame, still gets memory. */
static void *malloc_shared(size_t size, size_t alignment) {
    if (region_main.base == 0 || os_lock_is_mine(&heap_shared.lock) || os_lock_is_mine(&run_lock) ||
        os_lock_is_mine(meta_lock()))
        return NULL;
    unsigned class = class_of_aligned(size, alignment);
    if (class == CLASSES) return large_take(size, alignment, LARGE_PLAIN);
    bool clean;
    os_lock_take(&heap_shared.lock);
    heap_drain(&heap_shared);
    void *block = heap_take(&heap_shared, class, &clean);
    os_lock_drop(&heap_shared.lock);
    return block;
}

static void *malloc_nested(size_t size, size_t alignment) {
    atomic_fetch_add_explicit(&nested_count, 1, memory_order_relaxed);
    bell_touch();
    void *block = emergency_take(size, alignment);
    if (block == NULL) block = malloc_shared(size, alignment);
    if (block == NULL) errno = ENOMEM;
    return block;
}

static void free_nested(void *block) {
    if (block == NULL) return;
    atomic_fetch_add_explicit(&nested_count, 1, memory_order_relaxed);
    bell_touch();
    struct region *region = region_of(block);
    struct span *span = region != NULL ? region_span(region, block) : &span_none;
    if (span->kind == SPAN_INNER) span = mid_head(span);
    switch (span->kind) {
    case SPAN_TINY:
    case SPAN_MID: {
        uint32_t index = span_block_index(span, block);
        if (index == MID_NO_BLOCK) block_fatal("free()", block);
        free_remote(span, block, index); /* an orphan's work is finished by the next free that may take its lock */
        break;
    }
    case SPAN_LARGE:
        if ((char *)block != span_start(span)) block_fatal("free()", block);
        emergency_defer(block);
        break;
    case SPAN_EMERGENCY:
        if (emergency_put(block) != EMERGENCY_FREED) block_fatal("free()", block);
        break;
    default:
        if (region != NULL || !emergency_unmap(block)) block_fatal("free()", block);
    }
}

void *heap_malloc_interrupting(size_t size, size_t alignment) {
    return heap_is_nested() ? malloc_nested(size, alignment) : heap_malloc_aligned(alignment, size);
}

void heap_free_interrupting(void *block) {
    if (heap_is_nested())
        free_nested(block);
    else
        heap_free(block);
}

bool heap_try_enter(void) {
    if (heap_is_busy() && heap_is_nested()) return false;
    heap_enter();
    heap_record.slow = true;
    bell_touch();
    return true;
}

uint64_t heap_nested_count(void) { return atomic_load_explicit(&nested_count, memory_order_relaxed); }
