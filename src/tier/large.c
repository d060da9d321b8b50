#include "tier/large.h"

#include "os/os.h"
#include "span/guard.h"
#include "span/run.h"
#include "tier/classes.h"

/* Below this a warm copy is faster than moving page tables, by the first design's measurements. docs/DESIGN.md, "Growing by
 * realloc", has the peaks by this threshold. */
#define MOVE_MIN_BYTES (256 * KIB)
/* Of so much used memory the most is not resident or will not be touched soon: give it back instead of writing zeros. Below, zeros are twice as
 * fast, even for tables of which only a few pages are touched (benchmark calloc-mix: 0.44 of the time, at 3 times the memory). */
#define PURGE_TO_CLEAR_BYTES (32 * MIB)
/* Tails of fewer blocks are half a megabyte at most. */
#define TAILS_WORTH_A_WALK 8u
/* Slices to look at in a step. */
#define TRIM_STEP_SLICES 1024u

static _Atomic uint32_t large_tails; /* made since the last walk */

/* How many freed blocks are held while guards are on, and of what part of the address space each at most: 1 GiB of 1 TiB. */
#define HELD_MAX 64u
#define HELD_PART 1024u
static _Atomic(struct span *) large_held[HELD_MAX];
static _Atomic uint32_t large_held_next; /* the place of the one that has waited longest */

static size_t slices_of(size_t bytes) { return (bytes + guard_bytes() + SLICE_BYTES - 1) >> SLICE_SHIFT; }

/* The guard behind a block, up to the end of its last slice. */
static char *guard_start(const struct span *head) { return span_start(head) + head->large.bytes; }
static size_t guard_length(const struct span *head) { return head->large.slices * SLICE_BYTES - head->large.bytes; }

static void large_guard(struct span *head) {
    if (guard_bytes() != 0) head->guard = (uint8_t)guard_set(guard_start(head), guard_length(head));
}

static void large_unguard(struct span *head) {
    guard_clear(guard_start(head), guard_length(head), head->guard);
    head->guard = GUARD_NONE;
}

static bool round_to_pages(size_t *size) {
    if (*size > PTRDIFF_MAX - SLICE_BYTES) return false;
    *size = size_round_up(size_max(*size, 1), os_page_bytes);
    return true;
}

static void large_clear(struct span *head, size_t bytes) {
    char *start = span_start(head);
    size_t slices = (bytes + SLICE_BYTES - 1) >> SLICE_SHIFT;
    size_t dirty = 0;
    for (size_t i = 0; i < slices; i++) dirty += run_slice_is_dirty(head, i);
    if (dirty * SLICE_BYTES >= PURGE_TO_CLEAR_BYTES && os_purge(start, bytes) == 0) return;
    for (size_t i = 0; i < slices && dirty > 0; i++)
        if (run_slice_is_dirty(head, i))
            memset(start + i * SLICE_BYTES, 0, size_min(SLICE_BYTES, bytes - i * SLICE_BYTES));
}

/* The block has its size now. After large_take the run lock must be held: a walk may be looking. */
static void note_tail(struct span *head) {
    size_t slices = head->large.slices;
    head->large.tail =
        guard_bytes() == 0 && head->large.bytes < slices * SLICE_BYTES && run_slice_is_dirty(head, slices - 1);
    if (head->large.tail) atomic_fetch_add_explicit(&large_tails, 1, memory_order_relaxed);
}

void *large_take(size_t size, size_t alignment, enum large_wish wish) {
    if (!round_to_pages(&size)) return NULL;
    size_t slices = slices_of(size);
    struct span *head = wish == LARGE_GROWN_AGAIN
                            ? run_take_roomy(slices)
                            : run_take(slices, alignment > SLICE_BYTES ? alignment >> SLICE_SHIFT : 1);
    if (head == NULL) return large_settle() ? large_take(size, alignment, wish) : NULL;
    if (wish == LARGE_ZERO) large_clear(head, size);
    if (wish >= LARGE_GROWN) head->flags |= SPAN_GROWN;
    head->large.bytes = size;
    head->large.slices = slices;
    note_tail(head);
    large_guard(head);
    __atomic_store_n(&head->kind, SPAN_LARGE, __ATOMIC_RELEASE);
    return span_start(head);
}

/* Of two threads that free the same block one gets the right to: it changes the kind. */
static bool large_claim(struct span *head, enum span_kind next) {
    uint8_t kind = SPAN_LARGE;
    return __atomic_compare_exchange_n(&head->kind, &kind, next, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

/* Give back slices of a block, from slice `first` on, as far as that needs a new mapping. */
static enum run_state large_renew(struct span *head, size_t first) {
    bool moved = (head->flags & SPAN_MOVED) != 0;
    size_t bytes = (head->large.slices - first) * SLICE_BYTES;
    return moved && os_renew(span_start(head) + first * SLICE_BYTES, bytes, REGION_LABEL) == 0 ? RUN_CLEAN : RUN_DIRTY;
}

/* The place of a held block is free from now on, and clean. */
static void held_release(struct span *head) {
    size_t slices = head->large.slices;
    enum run_state state = head->guard == GUARD_MARKS || (head->flags & SPAN_CLEAN) != 0 ? RUN_CLEAN : RUN_DIRTY;
    guard_clear(span_start(head), slices * SLICE_BYTES, head->guard);
    if (large_renew(head, 0) == RUN_CLEAN) state = RUN_CLEAN;
    run_release(head, slices, state);
}

/* Of those that are held, the one that has waited longest goes for the new one. */
static void large_hold(struct span *head) {
    char *start = span_start(head);
    size_t bytes = head->large.slices * SLICE_BYTES;
    large_unguard(head);
    if (os_purge(start, bytes) == 0) head->flags |= SPAN_CLEAN; /* what guards may not do, where pages are locked */
    head->guard = (uint8_t)guard_set(start, bytes);
    if (bytes <= region_main.size_bytes / HELD_PART) {
        uint32_t place = atomic_fetch_add_explicit(&large_held_next, 1, memory_order_relaxed) % HELD_MAX;
        head = atomic_exchange_explicit(&large_held[place], head, memory_order_acq_rel);
    }
    if (head != NULL) held_release(head);
}

bool large_settle(void) {
    bool some = false;
    for (unsigned i = 0; i < HELD_MAX; i++) {
        if (atomic_load_explicit(&large_held[i], memory_order_relaxed) == NULL) continue;
        struct span *head = atomic_exchange_explicit(&large_held[i], NULL, memory_order_acq_rel);
        if (head == NULL) continue;
        held_release(head);
        some = true;
    }
    return some;
}

bool large_release(struct span *head) {
    bool hold = guard_is_on();
    if (!large_claim(head, hold ? SPAN_HELD : SPAN_FREE)) return false;
    if (hold) {
        large_hold(head);
        return true;
    }
    size_t slices = head->large.slices;
    run_release(head, slices, large_renew(head, 0));
    return true;
}

/* Move memory by page tables. A stretch may lie in several mappings, which the kernel moves only one at a time: halve it until it
 * goes, and copy what does not go at all. Returns whether nothing had to be copied. */
static bool move_pages(char *from, char *to, size_t bytes) {
    if (os_move(from, to, bytes, REGION_LABEL) == 0) return true;
    if (bytes <= SLICE_BYTES) {
        memcpy(to, from, bytes);
        return false;
    }
    size_t half = size_round_up(bytes / 2, SLICE_BYTES);
    bool first = move_pages(from, to, half);
    return move_pages(from + half, to + half, bytes - half) && first;
}

static void *large_move(struct span *head, size_t size) {
    if (os_address_space_limit() != SIZE_MAX) return NULL; /* see os_move */
    struct span *target = run_take_roomy(slices_of(size));
    if (target == NULL) return NULL;
    size_t slices = head->large.slices;
    char *to = span_start(target);
    bool moved = move_pages(span_start(head), to,
                            slices * SLICE_BYTES); /* with what an earlier block left behind the last byte */
    target->large.bytes = size;
    target->large.slices = slices_of(size);
    target->flags |= SPAN_MOVED | SPAN_GROWN;
    note_tail(target);
    large_guard(target);
    __atomic_store_n(&target->kind, SPAN_LARGE, __ATOMIC_RELEASE);
    bool hold = guard_is_on();
    if (!large_claim(head, hold ? SPAN_HELD : SPAN_FREE)) return to;
    if (hold)
        large_hold(head);
    else
        run_release(head, slices, large_renew(head, 0) == RUN_CLEAN || moved ? RUN_CLEAN : RUN_DIRTY);
    return to;
}

/* Nothing may be left behind in slices that are given up while guards are on. */
static enum run_state large_cut(struct span *head, size_t keep) {
    enum run_state state = large_renew(head, keep);
    if (state == RUN_CLEAN || !guard_is_on()) return state;
    size_t bytes = (head->large.slices - keep) * SLICE_BYTES;
    return os_purge(span_start(head) + keep * SLICE_BYTES, bytes) == 0 ? RUN_CLEAN : RUN_DIRTY;
}

/* The block has no guard meanwhile. */
static void *large_change(struct span *head, size_t size) {
    size_t have = head->large.slices, need = slices_of(size);
    if (need > have && !run_extend(head, have, need - have))
        return head->large.bytes >= MOVE_MIN_BYTES ? large_move(head, size) : NULL;
    enum run_state state = need < have ? large_cut(head, need) : RUN_DIRTY;
    os_lock_take(&run_lock); /* a walk that looks at the tail of before has to be done with it */
    head->large.bytes = size;
    head->large.slices = need;
    note_tail(head);
    os_lock_drop(&run_lock);
    if (need < have) run_shorten(head, have, need, state);
    return span_start(head);
}

void *large_resize(struct span *head, size_t size) {
    if (!round_to_pages(&size)) return NULL;
    large_unguard(head);
    void *block = large_change(head, size);
    if (block == NULL || block == span_start(head)) large_guard(head); /* else it is gone */
    return block;
}

struct span *large_around(struct span *span) {
    struct span *first = region_of_span(span)->spans;
    for (struct span *head = span; head >= first; head--) {
        if (head->kind == SPAN_FREE) continue;
        bool inside =
            (head->kind == SPAN_LARGE || head->kind == SPAN_HELD) && (size_t)(span - head) < head->large.slices;
        return inside ? head : NULL;
    }
    return NULL;
}

/* --- tails --------------------------------------------------------------------------------------------------------- */

bool large_wants_trim(void) { return atomic_load_explicit(&large_tails, memory_order_relaxed) >= TAILS_WORTH_A_WALK; }

void large_trim_break(void) { atomic_store_explicit(&large_tails, TAILS_WORTH_A_WALK, memory_order_relaxed); }

tide_racy static bool seems_large(const struct span *head) { return head->kind == SPAN_LARGE; }
tide_racy static bool seems_free(const struct chunk *chunk) { return chunk->free == UINT32_MAX; }

/* Under the run lock a block that is live stays where it is, as long as it is, and its memory is nobody else's: who frees it turns the kind, and
 * then waits for the lock. Returns how many slices it has, 1 where there is none. */
static size_t trim_block(struct large_trim *trim, struct span *head) {
    if (!seems_large(head)) return 1;
    os_lock_take(&run_lock);
    size_t slices = 1;
    if (__atomic_load_n(&head->kind, __ATOMIC_ACQUIRE) == SPAN_LARGE) {
        slices = head->large.slices;
        char *tail = span_start(head) + head->large.bytes;
        size_t bytes = slices * SLICE_BYTES - head->large.bytes;
        size_t resident = head->large.tail ? os_resident_bytes(tail, bytes) : 0;
        if (resident > 0 && os_purge(tail, bytes) == 0) {
            trim->returned_bytes += resident;
            run_count_returned(resident);
        }
        head->large.tail = false;
    }
    os_lock_drop(&run_lock);
    return slices;
}

bool large_trim_step(struct large_trim *trim) {
    if (trim->region == NULL) {
        trim->region = &region_main;
        atomic_store_explicit(&large_tails, 0, memory_order_relaxed);
    }
    size_t end = region_seen(trim->region) / SLICE_BYTES;
    size_t stop = size_min(end, trim->slice + TRIM_STEP_SLICES);
    while (trim->slice < stop) {
        bool free = trim->slice % CHUNK_SLICES == 0 && seems_free(&trim->region->chunks[trim->slice / CHUNK_SLICES]);
        trim->slice += free ? CHUNK_SLICES : trim_block(trim, &trim->region->spans[trim->slice]);
    }
    if (trim->slice < end) return true;
    trim->region = __atomic_load_n(&trim->region->next, __ATOMIC_ACQUIRE);
    trim->slice = 0;
    return trim->region != NULL;
}

#ifdef TIDE_DEBUG
/* Whether a freed block waits for its turn. */
static bool large_is_held(const struct span *head) {
    for (unsigned i = 0; i < HELD_MAX; i++)
        if (atomic_load_explicit(&large_held[i], memory_order_relaxed) == head) return true;
    return false;
}

tide_racy const char *large_validate(const struct span *head) {
    const struct region *region = region_of_span(head);
    size_t first = region_slice(region, head), slices = head->large.slices;
    bool held = head->kind == SPAN_HELD;
    unsigned flags = SPAN_GROWN | SPAN_MOVED | (held ? SPAN_CLEAN : 0);
    invariant((held || head->kind == SPAN_LARGE) && (head->flags & ~flags) == 0, "large: kind");
    invariant(slices != 0 && slices <= region_top(region) / SLICE_BYTES - first, "large: slices");
    size_t least =
        (head->large.bytes + SLICE_BYTES - 1) / SLICE_BYTES; /* without a guard, as before options are read */
    invariant(head->large.bytes != 0 && head->large.bytes % os_page_bytes == 0 &&
                  (slices == least || slices == slices_of(head->large.bytes)),
              "large: bytes");
    for (size_t i = 0; i < slices; i++) {
        const struct chunk *chunk = &region->chunks[(first + i) / CHUNK_SLICES];
        uint32_t free = *(const aliasing_half *)&chunk->free | *(const aliasing_half *)&chunk->purging;
        invariant((free >> (first + i) % CHUNK_SLICES & 1) == 0, "large: a slice of it is free");
        invariant(i == 0 || head[i].kind == SPAN_FREE, "large: a span inside it");
    }
    invariant(!held || large_is_held(head) || run_was_repaired, "large: freed, and nobody waits to give it back");
    return NULL;
}
#endif
