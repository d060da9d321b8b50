#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "heap/thread.h"

#include <errno.h>
#include <limits.h>

#include "heap/emergency.h"
#include "heap/own.h"
#include "heap/remote.h"
#include "os/options.h"
#include "span/meta.h"
#include "span/run.h"

/* Destructors of the program may free and allocate after ours has run; so ours asks to be called again, until the last round. */
#ifdef TIDE_THREAD_SANITIZER
#define DESTRUCTOR_ROUNDS (PTHREAD_DESTRUCTOR_ITERATIONS - 1) /* the last round is the sanitizer's own */
#else
#define DESTRUCTOR_ROUNDS PTHREAD_DESTRUCTOR_ITERATIONS
#endif

__thread struct thread_record heap_record __attribute__((tls_model("initial-exec"))) = {.heap = &heap_vacant};

struct os_lock heap_registry_lock;
struct heap *heap_all;
struct heap heap_shared = {.state = HEAP_ORPHAN};
static struct heap *heap_orphans; /* under heap_registry_lock */
static pthread_key_t heap_key;
static bool heap_key_made;
static bool heap_ready; /* the region is reserved; under heap_registry_lock */

void heap_life_init(struct heap *heap) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&heap->life, &attributes);
    pthread_mutexattr_destroy(&attributes);
}

/* --- orphans ------------------------------------------------------------------------------------------------------- */

void heap_orphan(struct heap *heap) {
    heap->record = NULL;
    /* From here on remote freers finish their work themselves; those before are seen by the drain that follows. */
    atomic_store_explicit(&heap->state, HEAP_ORPHAN, memory_order_seq_cst);
    heap_flush(heap, TIER_BOTH);
}

/* A thread that waits for the registry does not touch its heap meanwhile: who forks need not wait for it. */
void heap_registry_take(void) {
    struct heap *self = heap_record.self;
    if (self != NULL) atomic_store_explicit(&self->waiting, 1, memory_order_seq_cst);
    os_lock_take(&heap_registry_lock);
    if (self != NULL) atomic_store_explicit(&self->waiting, 0, memory_order_relaxed);
}

void heap_offer(struct heap *heap) {
    heap->next_orphan = heap_orphans;
    heap_orphans = heap;
}

void heap_offer_none(void) { heap_orphans = NULL; }

void heap_finish(struct heap *heap) {
    if (atomic_load_explicit(&heap->state, memory_order_seq_cst) != HEAP_ORPHAN) return;
    os_lock_take(&heap->lock);
    if (atomic_load_explicit(&heap->state, memory_order_relaxed) == HEAP_ORPHAN) heap_drain(heap);
    os_lock_drop(&heap->lock);
}

void heap_finish_all(void) {
    heap_finish(&heap_shared);
    heap_registry_take();
    for (struct heap *heap = heap_all; heap != NULL; heap = heap->next_heap) heap_finish(heap);
    os_lock_drop(&heap_registry_lock);
}

struct heap *heap_find_dead(void) {
    for (struct heap *heap = heap_all; heap != NULL; heap = heap->next_heap) {
        if (atomic_load_explicit(&heap->state, memory_order_relaxed) != HEAP_BOUND) continue;
        int error = pthread_mutex_trylock(&heap->life);
        if (error == 0) pthread_mutex_unlock(&heap->life); /* its thread is about to begin, or to end in order */
        if (error != EOWNERDEAD) continue;
        pthread_mutex_consistent(&heap->life);
        pthread_mutex_unlock(&heap->life);
        os_lock_take(&heap->lock);
        heap_orphan(heap);
        os_lock_drop(&heap->lock);
        return heap;
    }
    return NULL;
}

/* --- birth --------------------------------------------------------------------------------------------------------- */

static void heap_thread_end(void *heap);

/* The first operation of the process. Registry lock. False: no address space. */
static bool heap_start(void) {
    if (heap_ready) return true;
    os_init();
    options_load();
    heap_init(&heap_shared); /* a flush may look at it even where there is no address space */
    if (!region_init(options.reserve_bytes)) return false;
    emergency_init();
    heap_key_made = pthread_key_create(&heap_key, heap_thread_end) == 0;
    pthread_atfork(heap_fork_prepare, heap_fork_parent, heap_fork_child);
    os_barrier_register();
    heap_ready = true;
    return true;
}

static struct heap *heap_make(void) {
    struct heap *heap = meta_take(sizeof *heap);
    if (heap == NULL) return NULL;
    heap_init(heap);
    heap_life_init(heap);
    heap->next_heap = heap_all;
    __atomic_store_n(&heap_all, heap, __ATOMIC_RELEASE);
    return heap;
}

static struct heap *heap_bind(void) {
    struct thread_record *record = &heap_record;
    heap_registry_take();
    struct heap *heap = NULL;
    if (heap_start()) {
        do {
            heap = heap_orphans;
            if (heap != NULL) heap_orphans = heap->next_orphan;
        } while (heap != NULL && atomic_load_explicit(&heap->state, memory_order_relaxed) != HEAP_ORPHAN);
        if (heap == NULL) heap = heap_find_dead();
        if (heap == NULL) heap = heap_make();
    }
    if (heap != NULL) {
        os_lock_take(&heap->lock);
        heap->record = record;
        record->self = heap;
        atomic_store_explicit(&heap->state, HEAP_BOUND, memory_order_relaxed);
        atomic_store_explicit(&record->heap, heap, memory_order_relaxed);
        heap_drain(heap);
        os_lock_drop(&heap->lock);
    }
    os_lock_drop(&heap_registry_lock);
    if (heap == NULL) return NULL;

    /* pthread_setspecific may allocate: by now that is an ordinary operation. */
    uintptr_t busy = atomic_load_explicit(&record->busy, memory_order_relaxed);
    record->slow = false;
    heap_leave();
    if (heap_key_made) pthread_setspecific(heap_key, heap);
    (void)pthread_mutex_trylock(&heap->life); /* held already, when a handler has forked just now */
    atomic_store_explicit(&record->busy, busy, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
    record->slow = true;
    return heap_own();
}

static void own_lock_take(struct heap *heap) {
    atomic_store_explicit(&heap->waiting, 1, memory_order_seq_cst);
    os_lock_take(&heap->lock);
    atomic_store_explicit(&heap->waiting, 0, memory_order_relaxed);
}

/* Come back to the own heap after somebody else has made it vacant. */
static struct heap *heap_wake(struct heap *heap) {
    own_lock_take(heap);
    atomic_store_explicit(&heap_record.heap, heap, memory_order_relaxed);
    os_lock_drop(&heap->lock);
    return heap;
}

struct heap *heap_own(void) {
    struct heap *heap = heap_loaded();
    if (heap != &heap_vacant) return heap;
    if (heap_record.self != NULL) return heap_wake(heap_record.self);
    if (heap_record.ended) return NULL;
    return heap_bind();
}

/* A jump out of a signal handler has left an operation in the slow path for good. What it was changing is not used again; what others
 * share is put in order. */
void heap_abandon(void) {
    struct thread_record *record = &heap_record;
    for (struct heap *heap = __atomic_load_n(&heap_all, __ATOMIC_ACQUIRE); heap != NULL; heap = heap->next_heap) {
        if (heap == record->self || os_lock_is_mine(&heap->lock)) {
            heap->record = NULL;
            atomic_store_explicit(&heap->state, HEAP_LOST, memory_order_relaxed);
        }
        os_lock_abandon(&heap->lock);
    }
    atomic_store_explicit(&record->heap, &heap_vacant, memory_order_relaxed);
    record->self = NULL;
    if (os_lock_is_mine(&heap_shared.lock)) heap_init(&heap_shared);
    os_lock_abandon(&heap_shared.lock);
    run_repair();
    meta_abandon();
    os_lock_abandon(&heap_registry_lock);
}

/* --- death --------------------------------------------------------------------------------------------------------- */

static void heap_thread_end(void *argument) {
    struct heap *heap = argument;
    struct thread_record *record = &heap_record;
    if (record->self != heap) return;
    if (++record->destructor_rounds < DESTRUCTOR_ROUNDS && pthread_setspecific(heap_key, heap) == 0) return;
    if (!heap_try_enter()) return; /* ends from within a handler: found by its mutex */
    if (record->self == heap) {
        own_lock_take(heap);
        atomic_store_explicit(&record->heap, &heap_vacant, memory_order_relaxed);
        record->self = NULL;
        heap_orphan(heap);
        os_lock_drop(&heap->lock);
    }
    record->ended = true;
    heap_quit();
    pthread_mutex_unlock(&heap->life);
    if (!heap_try_enter()) return;
    heap_registry_take();
    heap_offer(heap);
    os_lock_drop(&heap_registry_lock);
    heap_quit();
}
