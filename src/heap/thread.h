/* thread.h - how threads get their heaps, lose them, and what happens to the heaps in between.
 *
 *   new thread --bind--> bound --last destructor--> ended (the heap is an orphan now; later operations use heap_shared)
 *                          |
 *                          +-- ends without destructors (raw exit): found by its robust mutex, the heap becomes an orphan
 *
 * Heaps are never freed; a new thread takes an orphan before a new heap is made. Blocks that live on in an orphan stay where they are; who frees
 * the last ones finishes the work under the heap's lock.
 *
 * Lock order: see os/rank.h.
 */
#ifndef TIDE_HEAP_THREAD_H
#define TIDE_HEAP_THREAD_H

#include "heap/heap.h"

extern tide_hidden struct os_lock heap_registry_lock; /* guards the lists of heaps and orphans */
extern tide_hidden struct heap *heap_all;
/* Take a lock (of the registry, of claims) in an operation that has nothing half done: who forks does not wait for it meanwhile. */
tide_hidden void heap_wait_for(struct os_lock *lock);
/* For threads that have ended, or for which no heap could be made: used under its lock only. Counts as an orphan. */
extern tide_hidden struct heap heap_shared;

/* The calling thread's own heap, bound or claimed back if need be; NULL: use heap_shared. Busy is set, and may have been clear meanwhile. */
tide_hidden struct heap *heap_own(void);
/* Collect what was freed into a heap that has no thread; does nothing for others. Busy is set. */
tide_hidden void heap_finish(struct heap *heap);

/* The calling thread, inside an operation, leaves its own heap alone for a while: who forks does not wait for it meanwhile. May be nested. */
tide_hidden tide_cold void heap_step_aside(void);
tide_hidden tide_cold void heap_step_back(void);

/* The calling thread has jumped out of an operation: give up what it was changing, and its locks. */
tide_hidden void heap_abandon(void);

tide_inline bool heap_is_bound(struct heap *heap) {
    return atomic_load_explicit(&heap->state, memory_order_relaxed) == HEAP_BOUND;
}

/* For fork.c and claim.c; all but heap_life_init with the registry lock held. */
tide_hidden void heap_life_init(struct heap *heap);
/* Leave nothing in a heap but spans with live blocks, and let others act for it. Its lock is held. */
tide_hidden void heap_orphan(struct heap *heap);
/* Put a heap on the list that new threads take from; empty that list. */
tide_hidden void heap_offer(struct heap *heap);
tide_hidden void heap_offer_none(void);
tide_hidden tide_cold void heap_reset_shared(void);
/* The lists of heaps and orphans, and the records of threads: nobody else runs. */
tide_hidden tide_cold const char *thread_validate(void);
/* Bound heaps whose threads are gone without having run destructors become orphans and are offered. Where a lock is held by another and may not be waited
 * for, they are only marked as dead. */
tide_hidden void heap_bury(bool may_wait);

/* The handlers that are registered with pthread_atfork (fork.c). */
tide_hidden void heap_fork_prepare(void);
tide_hidden void heap_fork_parent(void);
tide_hidden void heap_fork_child(void);

#endif
