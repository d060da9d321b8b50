#include "heap/claim.h"

#include "heap/bell.h"
#include "heap/emergency.h"
#include "heap/punch.h"
#include "heap/remote.h"
#include "heap/secure.h"
#include "heap/thread.h"
#include "heap/validate.h"
#include "tier/large.h"

struct os_lock claim_lock = OS_LOCK(RANK_CLAIM);
struct claim_waits claim_waits;
static uint64_t claim_signals;   /* claim lock: the claimer's mask before */
static struct punch claim_punch; /* claim lock; changed under the lock of its heap, so that fork finds it whole */

static struct heap *first_heap(void) { return __atomic_load_n(&heap_all, __ATOMIC_ACQUIRE); }

/* --- mark ---------------------------------------------------------------------------------------------------------- */

static void heap_vacate(struct heap *heap) {
    os_lock_take(&heap->lock);
    bool dead = atomic_load_explicit(&heap->dead, memory_order_relaxed) != 0;
    if (heap_is_bound(heap) && !dead && heap->claim == HEAP_OWN) {
        atomic_store_explicit(&heap->record->heap, &heap_vacant, memory_order_relaxed);
        heap->claim = HEAP_VACATED;
    }
    os_lock_drop(&heap->lock);
}

static bool is_inside(struct heap *heap) {
    return atomic_load_explicit(&heap->record->busy, memory_order_acquire) != 0;
}

/* A thread that was marked before may have begun an operation and not have come to its heap yet, if it does at all: it counts as busy. */
static void heap_mark(struct heap *heap, uint64_t now_ns, struct claim_survey *survey) {
    os_lock_take(&heap->lock);
    if (heap_is_bound(heap) && heap->claim == HEAP_VACATED) {
        if (survey->possible && !is_inside(heap)) {
            heap->claim = HEAP_MARKED;
            heap->marked_ns = now_ns;
            survey->woken++;
        } else {
            heap->claim = HEAP_OWN;
            atomic_store_explicit(&heap->record->heap, heap, memory_order_relaxed);
        }
    }
    if (heap_is_bound(heap)) *(heap->claim == HEAP_MARKED && !is_inside(heap) ? &survey->marked : &survey->busy) += 1;
    os_lock_drop(&heap->lock);
}

struct claim_survey claim_mark(uint64_t now_ns) {
    struct claim_survey survey = {0};
    struct heap *self = heap_record.self;
    os_lock_take(&heap_registry_lock);
    heap_bury(true);
    os_lock_drop(&heap_registry_lock);
    struct heap *first = first_heap(); /* not before: a heap that was made meanwhile must be seen, or its bell */
    for (struct heap *heap = first; heap != NULL; heap = heap->next_heap)
        if (heap != self) heap_vacate(heap);
    survey.possible = os_barrier() == 0;
    for (struct heap *heap = first; heap != NULL; heap = heap->next_heap)
        if (heap != self) heap_mark(heap, now_ns, &survey);
    return survey;
}

void claim_mark_self(uint64_t now_ns) {
    struct heap *heap = heap_record.self;
    if (heap == NULL) return;
    os_lock_take(&heap->lock);
    atomic_store_explicit(&heap_record.heap, &heap_vacant, memory_order_relaxed);
    if (heap->claim != HEAP_MARKED) heap->marked_ns = now_ns;
    heap->claim = HEAP_MARKED;
    os_lock_drop(&heap->lock);
}

/* --- sweep --------------------------------------------------------------------------------------------------------- */

static bool may_act(struct heap *heap) {
    int state = atomic_load_explicit(&heap->state, memory_order_relaxed);
    return state == HEAP_ORPHAN || (state == HEAP_BOUND && heap->claim == HEAP_MARKED);
}

static bool owner_waits(struct heap *heap) { return atomic_load_explicit(&heap->waiting, memory_order_relaxed) != 0; }

static bool must_stop(const struct claim_sweep *sweep) {
    return sweep->until_bell && load_relaxed(&heap_bell) == BELL_QUIET;
}

/* Collect what others freed; false: somebody wants the heap. */
static bool sweep_drain(const struct claim_sweep *sweep, struct heap *heap) {
    while (heap_drain_step(heap))
        if (owner_waits(heap) || must_stop(sweep)) return false;
    return true;
}

/* One round with the heap's lock held. Returns whether pages of spans wait to be given back, or more rounds are needed. */
static bool sweep_round(struct claim_sweep *sweep, struct heap *heap) {
    bool more = false;
    if (sweep_drain(sweep, heap)) {
        heap_flush(heap, (enum tier_mask)sweep->tiers);
        if (heap->marked_ns < sweep->punch_before_ns) more = punch_take(&claim_punch, heap, sweep->tiers);
    }
    return more || claim_punch.count > 0;
}

static void sweep_heap(struct claim_sweep *sweep, struct heap *heap) {
    for (bool more = true, first = true; more; first = false) {
        os_lock_take(&heap->lock);
        bool mine = may_act(heap);
        if (mine && first) validate_heap(heap); /* before broken lists are walked */
        more = mine && sweep_round(sweep, heap);
        os_lock_drop(&heap->lock);
        if (claim_punch.count > 0) {
            sweep->returned_bytes += punch_purge(&claim_punch);
            os_lock_take(&heap->lock);
            punch_end(&claim_punch);
            /* An orphan has nobody else to collect them. A thread that has come back will do it itself. */
            if (may_act(heap)) sweep_drain(sweep, heap);
            os_lock_drop(&heap->lock);
        }
        sweep->heaps += mine && !more;
        if (mine && owner_waits(heap)) {
            sweep->yielded++;
            return;
        }
        if (must_stop(sweep)) return;
    }
}

/* The secure build: blocks whose reuse is delayed go back first, in all heaps, since many of them belong to another heap than the one that has freed them. */
static void sweep_delayed(struct heap *heap) {
    os_lock_take(&heap->lock);
    if (may_act(heap)) secure_settle(heap);
    os_lock_drop(&heap->lock);
}

bool claim_sweep(struct claim_sweep *sweep) {
    emergency_settle(); /* what handlers have freed must not wait for the program's next operation */
    large_settle();
    if (SECURE_BUILD)
        for (struct heap *heap = first_heap(); heap != NULL; heap = heap->next_heap) sweep_delayed(heap);
    sweep_heap(sweep, &heap_shared);
    for (struct heap *heap = first_heap(); heap != NULL; heap = heap->next_heap) {
        if (must_stop(sweep)) return false;
        sweep_heap(sweep, heap);
    }
    validate_shared();
    return true;
}

void claim_sweep_own(struct claim_sweep *sweep, struct heap *heap) {
    validate_heap(heap);
    while (sweep_round(sweep, heap)) {
        sweep->returned_bytes += punch_purge(&claim_punch);
        punch_end(&claim_punch);
    }
    heap_drain(heap);
    sweep->heaps++;
}

/* Handlers of a fork run with the locks held that come after this one. */
bool claim_begin(void) {
    if (os_lock_is_mine(&heap_registry_lock)) return false;
    uint64_t mask = os_signals_block();
    heap_step_aside();
    os_lock_take(&claim_lock);
    claim_signals = mask;
    return true;
}

void claim_end(void) {
    uint64_t mask = claim_signals;
    os_lock_drop(&claim_lock);
    os_signals_restore(mask);
}

void heap_reclaim(void) {
    struct claim_sweep sweep = {.tiers = TIER_BOTH};
    large_settle();
    if (!claim_begin()) return;
    claim_mark(0);
    claim_sweep(&sweep);
    heap_step_back();
    claim_end();
}

/* --- the rest ------------------------------------------------------------------------------------------------------ */

void claim_note_wait(uint64_t ns) {
    unsigned bucket = ns == 0 ? 0 : bits_highest(ns) + 1;
    if (bucket >= CLAIM_WAIT_BUCKETS) bucket = CLAIM_WAIT_BUCKETS - 1;
    atomic_fetch_add_explicit(&claim_waits.waits[bucket], 1, memory_order_relaxed);
    uint64_t longest = atomic_load_explicit(&claim_waits.longest_ns, memory_order_relaxed);
    while (ns > longest && !atomic_compare_exchange_weak_explicit(&claim_waits.longest_ns, &longest, ns,
                                                                  memory_order_relaxed, memory_order_relaxed)) {}
}

void claim_settle(void) {
    struct heap *heap = claim_punch.heap;
    bool lost =
        heap != NULL && (heap->fork_lost || atomic_load_explicit(&heap->state, memory_order_relaxed) == HEAP_LOST);
    if (!lost) punch_end(&claim_punch);
    claim_punch.count = 0;
}
