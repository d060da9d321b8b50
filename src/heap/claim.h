/* claim.h - how somebody else empties a sleeping thread's heap, without its help.
 *
 *   HEAP_OWN --vacate--> HEAP_VACATED --barrier in all threads, busy == 0--> HEAP_MARKED --> the claimer may act for the owner
 *      ^                      |                                                  |              while it holds the lock
 *      |                      +--busy: it was inside an operation; put back      |
 *      +-----------the thread's next operation misses, takes the lock, comes back+
 *
 * Vacate: under the heap's lock the thread's record is pointed at the vacant heap. Then one barrier in all threads. `busy` is stored before
 * the record is read, and cleared with release, so a thread that is not busy after the barrier will see the vacant heap in its next operation, and all
 * that it did before is visible. A working thread pays one miss per mark: the vacant heap is a reference bit, as in the CLOCK
 * algorithm (Corbato 1968), and nothing is counted on the way.
 *
 * A heap that was changed is put back by its owner only; the claimer puts back what it has merely vacated. Between two steps it looks
 * whether the owner waits, and gives way. Where the kernel has no barrier (old, or forbidden by a filter) nothing is ever marked.
 *
 * Lock order: os/rank.h. Between claim_lock and run_lock: heap_registry_lock, a heap's lock.
 */
#ifndef TIDE_HEAP_CLAIM_H
#define TIDE_HEAP_CLAIM_H

#include "heap/heap.h"
#include "heap/own.h"

/* Held by who claims: the keeper, or a thread that flushes. */
extern tide_hidden struct os_lock claim_lock;

struct claim_survey {
    unsigned marked; /* threads that are out of their heaps now */
    unsigned woken;  /* of them, those that were not when this began */
    unsigned busy;   /* threads inside an operation, whose heaps stay theirs */
    bool possible;   /* false: no barrier, no claim */
};
/* Mark every thread but the caller. Claim lock. */
tide_hidden tide_cold struct claim_survey claim_mark(uint64_t now_ns);
/* Mark the calling thread, which is inside an operation and leaves its heap alone until that ends. Claim lock. */
tide_hidden tide_cold void claim_mark_self(uint64_t now_ns);

struct claim_sweep {
    unsigned tiers;           /* whose spans to give up and to punch (enum tier_mask) */
    uint64_t punch_before_ns; /* give empty pages of other spans back, too, in heaps marked before this; 0: nowhere */
    bool until_bell;          /* stop when the bell has rung (bell.h) */
    size_t returned_bytes;    /* by punching */
    unsigned heaps;           /* worked on */
    unsigned yielded;         /* given way to their owners */
};
/* Do the owners' work for all marked and orphaned heaps: collect, give up empty spans, punch. Claim lock, and no other. False: stopped by the
 * bell. */
tide_hidden tide_cold bool claim_sweep(struct claim_sweep *sweep);
/* The same for the caller's own heap, after heap_step_back. */
tide_hidden tide_cold void claim_sweep_own(struct claim_sweep *sweep, struct heap *heap);
/* Take the claim lock in an operation that has nothing half done, and step aside (thread.h), since what follows may wait for locks that fork
 * holds. Signals are blocked from now on: a handler that jumped would leave other threads without their heaps. False: not now, since a fork is
 * under way in this thread. */
tide_hidden tide_cold bool claim_begin(void);
/* Drop it, and let signals come. */
tide_hidden tide_cold void claim_end(void);

/* How long threads have waited for their heaps since the start: threads that came back, and of them, those that had to wait for 2^(i-1) to
 * 2^i - 1 ns. */
#define CLAIM_WAIT_BUCKETS 32
struct claim_waits {
    _Atomic uint64_t wakes;
    _Atomic uint64_t waits[CLAIM_WAIT_BUCKETS];
    _Atomic uint64_t longest_ns;
};
extern tide_hidden struct claim_waits claim_waits;
tide_hidden tide_cold void claim_note_wait(uint64_t ns);

/* The last resort of an allocation: the empty spans of all heaps but the caller's become free runs. Nothing of the caller's is half done. */
tide_hidden tide_cold void heap_reclaim(void);

/* The claimer is gone (a fork, a jump): the spans that it had in hand go into the queue of their heap. */
tide_hidden tide_cold void claim_settle(void);

#endif
