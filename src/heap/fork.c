/* fork.c - the child of a program with threads finds every structure whole.
 *
 * Before the fork every other thread's heap is made vacant under its lock, then a barrier runs in all threads: from then on a thread that is not
 * busy cannot touch its heap before it gets the lock, which the forking thread keeps until after the fork. Threads that are busy come out in
 * microseconds, unless they have lost their processor; those that do not within FORK_WAIT_NS leave a heap that the child does not
 * use. In the child all heaps but the caller's are orphans.
 *
 * fork may be called in a signal handler, and that may have interrupted an operation which holds locks. Then nothing is waited for that the
 * interrupted operation may hold up: what cannot be had is left to its holder, and put in order in the child, where that holder does not exist.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "heap/thread.h"

#include "heap/bell.h"
#include "heap/claim.h"
#include "heap/own.h"
#include "heap/validate.h"
#include "span/meta.h"
#include "span/run.h"

#define FORK_WAIT_NS 100000000u
#define FORK_NAP_NS 50000u
#define FORK_TRIES 40

enum fork_lock {
    FORK_REGISTRY = 1,
    FORK_SHARED = 2,
    FORK_RUN = 4,
    FORK_META = 8,
    FORK_FREE = 16 /* called outside of any operation */
};

static bool fork_take(struct os_lock *lock, bool may_wait) {
    if (may_wait) {
        os_lock_take(lock);
        return true;
    }
    for (int i = 0; i < FORK_TRIES; i++) {
        if (os_lock_try(lock)) return true;
        os_sleep_ns(FORK_NAP_NS);
    }
    return false;
}

static bool is_other(const struct heap *heap) { return heap != heap_record.self; }

/* Its thread is out of its heap, or waits for a lock with nothing half done. */
static bool is_still(struct heap *heap) {
    return atomic_load_explicit(&heap->record->busy, memory_order_acquire) == 0 ||
           atomic_load_explicit(&heap->waiting, memory_order_acquire) != 0 ||
           atomic_load_explicit(&heap->aside, memory_order_acquire) != 0;
}

/* Stop all other threads' use of their heaps. Registry lock. */
static void stop_others(bool may_wait) {
    heap_bury(may_wait);
    for (struct heap *heap = heap_all; heap != NULL; heap = heap->next_heap) {
        if (!is_other(heap) || !heap_is_bound(heap) || atomic_load_explicit(&heap->dead, memory_order_relaxed) != 0)
            continue;
        heap->fork_held = fork_take(&heap->lock, may_wait);
        if (heap->fork_held && heap->record != NULL)
            atomic_store_explicit(&heap->record->heap, &heap_vacant, memory_order_relaxed);
    }
    bool stopped = os_barrier() == 0;
    uint64_t deadline = os_now_ns() + FORK_WAIT_NS;
    for (struct heap *heap = heap_all; heap != NULL; heap = heap->next_heap) {
        if (!heap->fork_held || heap->record == NULL) continue;
        while (!is_still(heap) && os_now_ns() < deadline) os_sleep_ns(FORK_NAP_NS);
        heap->fork_lost = !stopped || !is_still(heap);
    }
    struct heap *self = heap_record.self; /* somebody may act for the caller, too */
    if (self != NULL && may_wait) {
        heap_wait_for(&self->lock);
        self->fork_held = true;
    }
    for (struct heap *heap = heap_all; heap != NULL; heap = heap->next_heap) {
        if (heap->fork_held) continue;
        /* One that could not be had before was not stopped. */
        if (is_other(heap) && heap_is_bound(heap)) heap->fork_lost = true;
        heap->fork_held = fork_take(&heap->lock, may_wait);
    }
}

/* Until the fork is over no handler runs, which might fork as well. */
void heap_fork_prepare(void) {
    heap_record.fork_signals = os_signals_block();
    bool free = heap_try_enter();
    uint8_t held = free ? FORK_FREE : 0;
    if (free) heap_wait_for(&heap_registry_lock);
    /* What the interrupted operation holds, it may be changing: the lists of heaps stay as they are. */
    if (free || (!os_lock_is_mine(&heap_registry_lock) && fork_take(&heap_registry_lock, false))) {
        held |= FORK_REGISTRY;
        stop_others(free);
    }
    if (fork_take(&heap_shared.lock, free)) held |= FORK_SHARED;
    if (fork_take(&run_lock, free)) held |= FORK_RUN;
    if (fork_take(meta_lock(), free)) held |= FORK_META;
    heap_record.fork_locks = held;
    if (free) heap_quit();
}

static void release_all(void) {
    uint8_t held = heap_record.fork_locks;
    if ((held & FORK_META) != 0) os_lock_drop(meta_lock());
    if ((held & FORK_RUN) != 0) os_lock_drop(&run_lock);
    if ((held & FORK_SHARED) != 0) os_lock_drop(&heap_shared.lock);
    if ((held & FORK_REGISTRY) == 0) return;
    for (struct heap *heap = heap_all; heap != NULL; heap = heap->next_heap) {
        heap->fork_lost = false;
        if (!heap->fork_held) continue;
        heap->fork_held = false;
        os_lock_drop(&heap->lock);
    }
    os_lock_drop(&heap_registry_lock);
}

void heap_fork_parent(void) {
    bool free = heap_try_enter();
    release_all();
    if (free) heap_quit();
    os_signals_restore(heap_record.fork_signals);
}

/* Locks that threads of the parent hold are freed, and what they guard is put in order. */
static void inherit_locks(void) {
    uint32_t old_id = os_forked();
    bool claimer_is_gone = os_lock_inherit(&claim_lock, old_id);
    os_lock_inherit(&heap_registry_lock, old_id);
    for (struct heap *heap = heap_all; heap != NULL; heap = heap->next_heap)
        if (os_lock_inherit(&heap->lock, old_id)) heap->fork_lost = true;
    if (claimer_is_gone) claim_settle();
    if (os_lock_inherit(&heap_shared.lock, old_id)) heap_reset_shared();
    if (os_lock_inherit(&run_lock, old_id)) {
        (void)os_lock_try(&run_lock); /* nobody else is here */
        run_repair();
    }
    if (os_lock_inherit(meta_lock(), old_id)) {
        (void)os_lock_try(meta_lock());
        meta_abandon();
    }
}

/* What becomes of a heap of a thread that does not exist here. */
static void inherit_heap(struct heap *heap, uint8_t held) {
    heap->record = NULL;
    atomic_store_explicit(&heap->waiting, 0, memory_order_relaxed);
    atomic_store_explicit(&heap->aside, 0, memory_order_relaxed);
    atomic_store_explicit(&heap->dead, 0, memory_order_relaxed);
    if ((held & FORK_REGISTRY) == 0 || heap->fork_lost) {
        atomic_store_explicit(&heap->state, HEAP_LOST, memory_order_relaxed);
        run_was_repaired = true; /* what its thread had in its hands is nobody's */
    }
    if (atomic_load_explicit(&heap->state, memory_order_relaxed) == HEAP_LOST) return;
    heap_life_init(heap);
    if (heap_is_bound(heap) && (held & FORK_FREE) != 0) heap_orphan(heap);
    atomic_store_explicit(&heap->state, HEAP_ORPHAN, memory_order_relaxed);
    heap_offer(heap);
}

/* A claimer was at work on the caller's own heap, and a handler that forks could not wait for it: the thread gets another one. */
static void inherit_own(struct heap *heap) {
    if (heap->fork_lost) {
        atomic_store_explicit(&heap->state, HEAP_LOST, memory_order_relaxed);
        atomic_store_explicit(&heap_record.heap, &heap_vacant, memory_order_relaxed);
        heap_record.self = NULL;
        return;
    }
    heap->claim = HEAP_OWN;
    atomic_store_explicit(&heap->thread_id, os_thread_id(), memory_order_relaxed);
    /* glibc's child has given up what its thread held; musl's still has it in its list, where it must not come twice. There it stays as it is: held. */
#ifdef __GLIBC__
    heap_life_init(heap);
    pthread_mutex_lock(&heap->life);
#endif
}

void heap_fork_child(void) {
    bool free = heap_try_enter();
    uint8_t held = heap_record.fork_locks;
    inherit_locks();
    if ((held & (FORK_RUN | FORK_FREE)) == (FORK_RUN | FORK_FREE)) run_forked();
    heap_offer_none();
    for (struct heap *heap = heap_all; heap != NULL; heap = heap->next_heap) {
        if (is_other(heap))
            inherit_heap(heap, held);
        else
            inherit_own(heap);
    }
    guard_forked();
    if (free) validate_child();
    release_all();
    heap_on_fork();
    if (free) heap_quit();
    os_signals_restore(heap_record.fork_signals);
}
