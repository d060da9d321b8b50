/* heap.h - a thread's heap, and the hot path of malloc and free from top to bottom.
 *
 *   thread_record (TLS)          heap                              span (descriptor)
 *   +-------+                    +--------------------------+      +---------------------------+
 *   | heap -+------------------> | ready[granules of size] -+----> | owner, used, free list ...|
 *   | busy  |                    | current[class]           |      +---------------------------+
 *   | self  |                    | listed[class]: first,last|---> spans with room, oldest first
 *   +-------+                    | remote: queue            |---> spans with blocks that others freed
 *                                +--------------------------+
 *
 * The record's `heap` is the vacant heap, whose lists are all empty, whenever the thread must not touch its own: before its first
 * allocation, after it has ended, or while somebody else stands in for it. Then every operation misses, and the slow path finds
 * out why. No descriptor is ever owned by the vacant heap.
 *
 * `busy` is not zero while the thread is inside an operation. It is stored before `heap` is loaded, and cleared (release) after
 * the last access, so whoever has made `heap` vacant, run a barrier in all threads and then read busy == 0, knows that
 * the thread will not touch its heap any more. Plain stores: the one fence is paid by who asks (asymmetric, as in biased locks).
 * Locks are held, and heap structures touched, with busy set only. An operation that finds busy set interrupts another one of the same
 * thread and goes to emergency.h.
 */
#ifndef TIDE_HEAP_HEAP_H
#define TIDE_HEAP_HEAP_H

#include <pthread.h>

#include "os/os.h"
#include "os/stack.h"
#include "span/region.h"
#include "tier/mid.h"
#include "tier/tiny.h"

enum heap_state {
    HEAP_ORPHAN, /* no thread: whoever needs it, acts for it under its lock. Waits for the next thread */
    HEAP_BOUND,  /* a thread's own */
    HEAP_LOST,   /* left in the middle of an operation (fork, a jump out of a handler): never touched again */
};

/* claim.h tells the story. Whoever comes back to the heap makes it HEAP_OWN again. */
enum heap_claim {
    HEAP_OWN,     /* not vacated by a claimer, or the thread has come back since */
    HEAP_VACATED, /* the thread's record says vacant, but it may still be inside an operation that began before */
    HEAP_MARKED,  /* the thread is out of the heap, and cannot come back without the lock */
};

/* How many freed blocks wait in a heap of the secure build. Each may keep a span from going back as long as nobody settles them. */
#define SECURE_DELAYED_TINY 64u
#define SECURE_DELAYED_MID 8u

struct thread_record;

struct heap {
    struct span
        *ready[TINY_GRANULES +
               1]; /* by size in granules, rounded up: the span that malloc pops; span_none where it must miss */
    struct span *current[CLASSES];
    struct {
        struct span *first, *last;
    } listed[CLASSES];
    /* The borrow rule (own.c): the class whose current span serves this one for now, CLASSES if none does, and how often that missed. */
    uint8_t lender[TINY_CLASSES];
    uint8_t borrow_misses[TINY_CLASSES];
    size_t empty_room_bytes;          /* how much more may empty before that is counted again (heap_mid_emptied) */
    uint32_t tick;                    /* of heap_tick, the last one that this heap has seen */
    uint32_t ticked_refills[CLASSES]; /* refill_counts then */
    uint8_t rate[CLASSES];            /* refills per tick, in eighths, smoothed */
    uint8_t streak[CLASSES]; /* clean spans opened since the class has last given one up: how surely it grows */

    /* Statistics, written by who owns the heap. */
    _Atomic uint64_t refill_counts[CLASSES], retire_count, remote_count;
#ifdef TIDE_COUNT
    _Atomic uint64_t allocation_counts[CLASSES];
#endif
    _Atomic uint64_t fresh_bytes[TIER_LARGE_INDEX]; /* spans taken from the page runs, tiny and mid */
    _Atomic uint64_t mended_bytes; /* of pages that were given back from under live spans and are used again */

    struct span *undrained; /* taken from the queue below, not yet collected */
#ifdef TIDE_SECURE
    struct { /* secure.h */
        void *tiny[SECURE_DELAYED_TINY];
        void *mid[SECURE_DELAYED_MID];
    } delayed;
#endif

    _Alignas(64) _Atomic(struct span *) remote; /* see remote.h */
    _Atomic int state;
    struct os_lock lock; /* held by who acts on a heap that is not its own, and to come back to it */
    _Atomic int waiting; /* the owner is about to take the lock */
    _Atomic int aside;   /* the owner is inside an operation that leaves the heap alone for now (claim_begin) */
    _Atomic int dead;    /* the owner has ended without a word: there is no record any more */
    struct thread_record *record; /* the owner's, while bound; under the lock */
    _Atomic uint32_t thread_id;   /* the last owner's */
    enum heap_claim claim;        /* under the lock */
    uint64_t marked_ns;           /* when it became HEAP_MARKED; under the lock */
    struct heap *next_heap;       /* all heaps, newest first */
    struct heap *next_orphan;
    bool offered; /* is on the list of orphans; under the registry lock */
    struct {
        size_t live_bytes, free_bytes, spans;
    } seen;         /* by the last detailed census (census.h) */
    bool fork_held; /* fork.c: the forking thread has taken the lock */
    _Atomic bool
        jumped; /* a thread has left a hit half done: a block of a span of this heap may be neither free nor in use */
    bool fork_lost;       /* fork.c: its thread is in the middle of an operation, so the child cannot use it */
    pthread_mutex_t life; /* robust, held by the owner: tells that a thread ended without a word */
};

struct thread_record {
    _Atomic(struct heap *) heap;
    _Atomic uintptr_t busy; /* the stack pointer of the operation under way, or 0 */
    struct heap *self;      /* bound heap, NULL: none yet, or none any more */
    bool slow;              /* the operation has left the hot path */
    bool ended;             /* the last destructor has run: never bind again */
    uint8_t destructor_rounds;
    uint8_t fork_locks;    /* fork.c: which shared locks are held */
    uint64_t fork_signals; /* fork.c: the mask before */
};

extern tide_hidden struct heap heap_vacant;
extern tide_hidden struct span span_none; /* has no block, ever */
extern tide_hidden __thread struct thread_record heap_record __attribute__((tls_model("initial-exec")));

/* --- off the hot path ---------------------------------------------------------------------------------------------
 * Every one is the last thing its caller does, so the hot path needs no stack frame. */

/* A block of at least `size` <= MID_MAX_BYTES. Busy is set, and clear on return. `*clean`: the block reads as zero; may be NULL. NULL and ENOMEM
 * when there is no memory. */
tide_hidden tide_warm void *heap_malloc_miss(size_t size, bool *clean);
/* Any size above TINY_MAX_BYTES. */
tide_hidden tide_warm void *heap_malloc_above(size_t size);
/* Free a block that is not a tiny one of the caller's own open spans. Busy is set, and clear on return, here and below. */
tide_hidden tide_warm void heap_free_miss(struct span *span, void *block);
/* NULL, an address outside the first region, or a bad one. */
tide_hidden tide_warm void heap_free_elsewhere(void *block);
/* A block that looks free already, is not at a block's start, or was never handed out. */
tide_hidden tide_cold void heap_free_doubtful(struct span *span, void *block);
/* The last live block of a span that is not current was freed. */
tide_hidden tide_warm void heap_span_emptied(struct heap *heap, struct span *span);

/* Busy was found set: this operation interrupts another one of the same thread, or that one was left by a jump. Any size, any alignment. */
tide_hidden tide_cold void *heap_malloc_interrupting(size_t size, size_t alignment);
tide_hidden tide_cold void heap_free_interrupting(void *block);
/* For all other operations, which count as slow from the start and end with heap_quit. False: stay away from heaps and locks. */
tide_hidden bool heap_try_enter(void);
tide_hidden void heap_quit(void);
/* Operations so far that interrupted another one. */
tide_hidden uint64_t heap_nested_count(void);

/* libtidemalloc-count.so counts every allocation, for who wants to know how many hit. Ours to use has no counter on its hot path. */
#ifdef TIDE_COUNT
tide_inline void heap_count(struct heap *heap, unsigned class) {
    _Atomic uint64_t *count = &heap->allocation_counts[class];
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + 1, memory_order_relaxed);
}
#else
#define heap_count(heap, class) ((void)0)
#endif

/* --- the hot path ------------------------------------------------------------------------------------------------ */

tide_inline bool heap_is_busy(void) { return load_relaxed(&heap_record.busy) != 0; }

/* The thread is not busy. */
tide_inline void heap_enter(void) {
    stack_store_pointer(&heap_record.busy);
    atomic_signal_fence(memory_order_seq_cst);
}

tide_inline void heap_leave(void) {
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store_explicit(&heap_record.busy, 0, memory_order_release);
}

tide_inline struct heap *heap_loaded(void) { return load_relaxed(&heap_record.heap); }

tide_inline struct heap *span_owner(const struct span *span) { return load_relaxed(&span->owner); }

/* A block of at least `size` <= TINY_MAX_BYTES. */
tide_inline void *heap_malloc_tiny(size_t size) {
    if (unlikely(heap_is_busy())) return heap_malloc_interrupting(size, 1);
    heap_enter();
    void *block = tiny_pop(heap_loaded()->ready[(size + GRANULE_BYTES - 1) / GRANULE_BYTES]);
    if (unlikely(block == NULL)) return heap_malloc_miss(size, NULL);
    heap_count(heap_loaded(), class_of_size(size));
    heap_leave();
    return block;
}

/* A block of at least `size`, TINY_MAX_BYTES < size <= MID_MAX_BYTES. `*clean`: it reads as zero. */
tide_inline void *heap_malloc_mid(size_t size, bool *clean) {
    *clean = false;
    if (unlikely(heap_is_busy())) return heap_malloc_interrupting(size, 1);
    heap_enter();
    void *block = mid_pop(heap_loaded()->current[class_of_size(size)], clean);
    if (unlikely(block == NULL)) return heap_malloc_miss(size, clean);
    heap_count(heap_loaded(), class_of_size(size));
    heap_leave();
    return block;
}

tide_inline void *heap_malloc(size_t size) {
    return likely(size <= TINY_MAX_BYTES) ? heap_malloc_tiny(size) : heap_malloc_above(size);
}

tide_inline void heap_free(void *address) {
    struct block *block = address;
    if (unlikely(heap_is_busy())) {
        heap_free_interrupting(block);
        return;
    }
    heap_enter();
    uintptr_t offset = (uintptr_t)block - region_main.base;
    if (unlikely(offset >= region_top(&region_main))) {
        heap_free_elsewhere(block);
        return;
    }
    struct span *span = &region_main.spans[offset >> SLICE_SHIFT];
    struct heap *heap = heap_loaded();
    if (unlikely(span_owner(span) != heap)) {
        heap_free_miss(span, block);
        return;
    }
    if (unlikely(!tiny_is_block(span, tiny_offset(block)) || block->key == tiny_key(span, block))) {
        heap_free_doubtful(span, block);
        return;
    }
    tiny_push(span, block);
    if (unlikely(span->used == 0)) {
        heap_span_emptied(heap, span);
        return;
    }
    heap_leave();
}

#endif
