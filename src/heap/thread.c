#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "heap/thread.h"

#include <errno.h>
#include <limits.h>

#include "heap/bell.h"
#include "heap/claim.h"
#include "heap/emergency.h"
#include "heap/own.h"
#include "heap/remote.h"
#include "os/options.h"
#include "os/rank.h"
#include "span/meta.h"
#include "span/run.h"

/* Destructors of the program may free and allocate after ours has run; so ours asks to be called again, until the last round. */
#ifdef TIDE_THREAD_SANITIZER
#define DESTRUCTOR_ROUNDS (PTHREAD_DESTRUCTOR_ITERATIONS - 1) /* the last round is the sanitizer's own */
#else
#define DESTRUCTOR_ROUNDS PTHREAD_DESTRUCTOR_ITERATIONS
#endif

__thread struct thread_record heap_record __attribute__((tls_model("initial-exec"))) = {.heap = &heap_vacant};

struct os_lock heap_registry_lock = OS_LOCK(RANK_REGISTRY);
struct heap *heap_all;
struct heap heap_shared = {.state = HEAP_ORPHAN, .lock = OS_LOCK(RANK_SHARED)};
static struct heap *heap_orphans; /* under heap_registry_lock */
static pthread_key_t heap_key;
static bool heap_key_made;
static bool heap_fork_known; /* the handlers of fork are registered, or about to be; under heap_registry_lock */
static bool heap_ready;      /* the region is reserved; under heap_registry_lock */

void heap_life_init(struct heap *heap) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED); /* musl tells the kernel of no others */
    pthread_mutex_init(&heap->life, &attributes);
    pthread_mutexattr_destroy(&attributes);
}

/* --- orphans ------------------------------------------------------------------------------------------------------- */

void heap_orphan(struct heap *heap) {
    heap->record = NULL;
    heap->claim = HEAP_OWN;
    heap->marked_ns = 0;
    /* From here on remote freers finish their work themselves; those before are seen by the drain that follows. */
    atomic_store_explicit(&heap->state, HEAP_ORPHAN, memory_order_seq_cst);
    heap_flush(heap, TIER_BOTH);
}

void heap_wait_for(struct os_lock *lock) {
    struct heap *self = heap_record.self;
    if (self != NULL) atomic_store_explicit(&self->waiting, 1, memory_order_seq_cst);
    os_lock_take(lock);
    if (self != NULL) atomic_store_explicit(&self->waiting, 0, memory_order_relaxed);
}

static void aside_add(int n) {
    struct heap *self = heap_record.self;
    if (self == NULL) return;
    int aside = atomic_load_explicit(&self->aside, memory_order_relaxed) + n;
    atomic_store_explicit(&self->aside, aside, memory_order_seq_cst);
}

void heap_step_aside(void) { aside_add(1); }

/* Not while somebody forks and relies on it: who forks holds the registry lock. */
void heap_step_back(void) {
    os_lock_take(&heap_registry_lock);
    aside_add(-1);
    os_lock_drop(&heap_registry_lock);
}

void heap_offer(struct heap *heap) {
    if (heap->offered) return; /* by a handler that has forked just now */
    heap->offered = true;
    heap->next_orphan = heap_orphans;
    heap_orphans = heap;
}

/* An operation on it will never end. Its spans would still say that they are on its lists: they get a heap that nobody acts for. */
void heap_reset_shared(void) {
    static struct heap gone;
    atomic_store_explicit(&gone.state, HEAP_LOST, memory_order_relaxed);
    heap_init(&heap_shared);
    for (struct region *region = &region_main; region != NULL;
         region = __atomic_load_n(&region->next, __ATOMIC_ACQUIRE))
        for (struct span *span = region->spans; span < region->spans + region_seen(region) / SLICE_BYTES; span++)
            if (span->heap == &heap_shared) span->heap = &gone;
}

void heap_offer_none(void) {
    for (struct heap *heap = heap_all; heap != NULL; heap = heap->next_heap) heap->offered = false;
    heap_orphans = NULL;
}

void heap_finish(struct heap *heap) {
    if (atomic_load_explicit(&heap->state, memory_order_seq_cst) != HEAP_ORPHAN) return;
    os_lock_take(&heap->lock);
    if (atomic_load_explicit(&heap->state, memory_order_relaxed) == HEAP_ORPHAN) heap_drain(heap);
    os_lock_drop(&heap->lock);
}

static bool thread_is_dead(struct heap *heap) {
    if (atomic_load_explicit(&heap->dead, memory_order_relaxed) != 0) return true;
    int error = pthread_mutex_trylock(&heap->life);
    if (error == EOWNERDEAD) {
        pthread_mutex_consistent(&heap->life); /* tells it only once */
        atomic_store_explicit(&heap->dead, 1, memory_order_relaxed);
    }
    /* 0: its thread is about to end in order. */
    if (error == 0 || error == EOWNERDEAD) pthread_mutex_unlock(&heap->life);
    return error == EOWNERDEAD;
}

void heap_bury(bool may_wait) {
    for (struct heap *heap = heap_all; heap != NULL; heap = heap->next_heap) {
        if (!heap_is_bound(heap) || !thread_is_dead(heap)) continue;
        if (may_wait)
            os_lock_take(&heap->lock);
        else if (!os_lock_try(&heap->lock))
            continue;
        if (!heap_is_bound(heap)) { /* a handler has forked */
            os_lock_drop(&heap->lock);
            continue;
        }
        atomic_store_explicit(&heap->jumped, true, memory_order_relaxed); /* it may have ended in the middle of a hit */
        heap_orphan(heap);
        atomic_store_explicit(&heap->dead, 0, memory_order_relaxed);
        os_lock_drop(&heap->lock);
        heap_offer(heap);
    }
}

/* --- birth --------------------------------------------------------------------------------------------------------- */

static void heap_thread_end(void *heap);

/* The first operation of the process. Registry lock. False: no address space. */
static bool heap_start(void) {
    if (heap_ready) return true;
    heap_on_start();
    os_init();
    options_load();
    guard_init();
    heap_init(&heap_shared); /* a flush may look at it even where there is no address space */
    if (!region_init(options.reserve_bytes)) return false;
    emergency_init();
    heap_key_made = pthread_key_create(&heap_key, heap_thread_end) == 0;
    os_barrier_register();
    if (options.mode != MODE_STATIC && options.keeper != 0) run_keep_at_most(RUN_KEEP_SMALL_BYTES);
    heap_ready = true;
    return true;
}

/* A new heap, locked. */
static struct heap *heap_make(void) {
    struct heap *heap = meta_take(sizeof *heap);
    if (heap == NULL) return NULL;
    heap_init(heap);
    heap_life_init(heap);
    os_lock_set_rank(&heap->lock, RANK_HEAP);
    (void)os_lock_try(&heap->lock); /* before anybody knows it, so in no order: handlers of a fork hold later locks */
    heap->next_heap = heap_all;
    __atomic_store_n(&heap_all, heap, __ATOMIC_RELEASE);
    return heap;
}

/* The heap of a thread that has ended; NULL: none. Registry lock. */
static struct heap *heap_adopt(void) {
    struct heap *heap;
    do {
        heap = heap_orphans;
        if (heap != NULL) {
            heap_orphans = heap->next_orphan;
            heap->offered = false;
        }
    } while (heap != NULL && atomic_load_explicit(&heap->state, memory_order_relaxed) != HEAP_ORPHAN);
    return heap;
}

static struct heap *heap_bind(void) {
    struct thread_record *record = &heap_record;
    heap_wait_for(&heap_registry_lock);
    struct heap *heap = NULL;
    bool fork_unknown = false;
    if (heap_start()) {
        heap = heap_adopt();
        if (heap == NULL) {
            heap_bury(true);
            heap = heap_adopt();
        }
        if (heap != NULL) {
            os_lock_take(&heap->lock);
            if (atomic_load_explicit(&heap->state, memory_order_relaxed) == HEAP_LOST) { /* a handler has forked */
                os_lock_drop(&heap->lock);
                heap = NULL;
            }
        }
        if (heap == NULL) heap = heap_make();
    }
    if (heap != NULL) {
        record->self = heap;
        atomic_signal_fence(memory_order_seq_cst); /* a handler that forks takes it for the thread's own from here on */
        heap->record = record;
        heap->claim = HEAP_OWN;
        atomic_store_explicit(&heap->thread_id, os_thread_id(), memory_order_relaxed);
        atomic_store_explicit(&heap->state, HEAP_BOUND, memory_order_relaxed);
        atomic_store_explicit(&record->heap, heap, memory_order_relaxed);
        heap_drain(heap);
        os_lock_drop(&heap->lock);
        (void)pthread_mutex_trylock(&heap->life); /* held already, when a handler has forked just now */
        fork_unknown = !heap_fork_known;
        heap_fork_known = true;
    }
    os_lock_drop(&heap_registry_lock);
    bell_touch(); /* who asks cannot have seen that this thread was busy before it was bound */
    if (heap == NULL) return NULL;

    /* These two may allocate (musl's pthread_atfork does): by now that is an ordinary operation. */
    uintptr_t busy = atomic_load_explicit(&record->busy, memory_order_relaxed);
    record->slow = false;
    heap_leave();
    if (fork_unknown) pthread_atfork(heap_fork_prepare, heap_fork_parent, heap_fork_child);
    if (heap_key_made) pthread_setspecific(heap_key, heap);
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
    atomic_fetch_add_explicit(&claim_waits.wakes, 1, memory_order_relaxed);
    if (!os_lock_try(&heap->lock)) {
        uint64_t begun = os_now_ns();
        own_lock_take(heap);
        claim_note_wait(os_now_ns() - begun);
    }
    /* A claimer jumped out of its work here; or a handler has forked meanwhile, and in the child this heap was left to its claimer. */
    bool lost = heap_record.self != heap || atomic_load_explicit(&heap->state, memory_order_relaxed) == HEAP_LOST;
    if (!lost) {
        heap->claim = HEAP_OWN;
        atomic_store_explicit(&heap_record.heap, heap, memory_order_relaxed);
    }
    os_lock_drop(&heap->lock);
    if (!lost) {
        if (heap->tick != load_relaxed(&heap_tick)) heap_trim(heap);
        return heap;
    }
    heap_record.self = NULL;
    return heap_bind();
}

struct heap *heap_own(void) {
    struct heap *heap = heap_loaded();
    if (heap != &heap_vacant) return heap;
    if (heap_record.self != NULL) return heap_wake(heap_record.self);
    if (heap_record.ended) return NULL;
    return heap_bind();
}

/* A jump out of a signal handler has left an operation in the slow path for good. What it was changing is not used again; what others
 * share is put in order. Nobody acts for a lost heap, so its locks can be dropped before the rest is told. */
void heap_abandon(void) {
    struct thread_record *record = &heap_record;
    struct heap *first = __atomic_load_n(&heap_all, __ATOMIC_ACQUIRE), *self = record->self;
    bool aside =
        self != NULL && atomic_load_explicit(&self->aside, memory_order_relaxed) != 0; /* the own heap is whole */
    for (struct heap *heap = first; heap != NULL; heap = heap->next_heap)
        if ((heap == record->self && !aside) || os_lock_is_mine(&heap->lock))
            atomic_store_explicit(&heap->state, HEAP_LOST, memory_order_relaxed);
    if (!aside) {
        atomic_store_explicit(&record->heap, &heap_vacant, memory_order_relaxed);
        record->self = NULL;
    }
    if (os_lock_is_mine(&claim_lock)) claim_settle();
    for (struct heap *heap = first; heap != NULL; heap = heap->next_heap) os_lock_abandon(&heap->lock);
    rank_forget(RANK_HEAP); /* one that was just made is on no list, and stays locked */
    if (os_lock_is_mine(&heap_shared.lock)) heap_reset_shared();
    os_lock_abandon(&heap_shared.lock);
    run_repair();
    meta_abandon();
    os_lock_abandon(&heap_registry_lock);
    os_lock_abandon(&claim_lock);

    for (struct heap *heap = first; heap != NULL; heap = heap->next_heap) {
        if (atomic_load_explicit(&heap->state, memory_order_relaxed) != HEAP_LOST) continue;
        os_lock_take(&heap->lock);
        heap->record = NULL;
        heap->claim = HEAP_OWN;
        os_lock_drop(&heap->lock);
    }
    if (!aside) return;
    os_lock_take(&heap_registry_lock); /* as heap_step_back */
    atomic_store_explicit(&self->aside, 0, memory_order_relaxed);
    os_lock_drop(&heap_registry_lock);
}

/* --- death --------------------------------------------------------------------------------------------------------- */

static void heap_thread_end(void *argument) {
    struct heap *heap = argument;
    struct thread_record *record = &heap_record;
    if (record->self != heap) return;
    if (++record->destructor_rounds < DESTRUCTOR_ROUNDS && pthread_setspecific(heap_key, heap) == 0) return;
    if (!heap_try_enter()) return; /* ends from within a handler: found by its mutex */
    bool lost = record->self != heap;
    if (!lost) {
        own_lock_take(heap);
        lost = atomic_load_explicit(&heap->state, memory_order_relaxed) ==
               HEAP_LOST; /* a claimer jumped out of its work here */
        atomic_store_explicit(&record->heap, &heap_vacant, memory_order_relaxed);
        record->self = NULL;
        if (!lost) heap_orphan(heap);
        os_lock_drop(&heap->lock);
    }
    record->ended = true;
    heap_quit();
    pthread_mutex_unlock(&heap->life);
    if (lost || !heap_try_enter()) return;
    heap_wait_for(&heap_registry_lock);
    heap_offer(heap);
    os_lock_drop(&heap_registry_lock);
    heap_quit();
    heap_on_thread_end();
}

/* --- what must hold -------------------------------------------------------------------------------------------------- */

tide_cold static const char *record_validate(struct heap *heap) {
    const struct thread_record *record = heap->record;
    int state = atomic_load_explicit(&heap->state, memory_order_relaxed);
    invariant(state >= HEAP_ORPHAN && state <= HEAP_LOST, "thread: state of a heap");
    invariant(state != HEAP_ORPHAN || record == NULL, "thread: a heap without a thread has a record");
    if (state != HEAP_BOUND || atomic_load_explicit(&heap->dead, memory_order_relaxed) != 0) return NULL;
    invariant(record != NULL && record->self == heap, "thread: a record of another heap");
    const struct heap *loaded = atomic_load_explicit(&record->heap, memory_order_relaxed);
    invariant(loaded == heap || loaded == &heap_vacant, "thread: a record with a foreign heap");
    invariant(loaded == &heap_vacant || heap->claim == HEAP_OWN, "thread: claimed, and not vacated");
    return NULL;
}

const char *thread_validate(void) {
    size_t heaps = 0, orphans = 0, limit = meta_bytes() / sizeof(struct heap);
    for (struct heap *heap = heap_all; heap != NULL; heap = heap->next_heap) {
        invariant(++heaps <= limit, "thread: a circle of heaps");
        validated(record_validate(heap));
    }
    for (struct heap *heap = heap_orphans; heap != NULL; heap = heap->next_orphan)
        invariant(++orphans <= heaps, "thread: a circle of orphans");
    return NULL;
}
