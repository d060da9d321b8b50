#include "heap/own.h"

#include "heap/remote.h"
#include "heap/secure.h"
#include "span/run.h"

/* The borrow rule, for small programs: a class that has no span of its own takes the blocks of the next larger class that has one, up to
 * twice its size, without a miss. Only when it has missed this often while borrowing, that is, when it keeps pages full of blocks alive, it gets
 * its own. So a class of which few blocks live at a time never costs a page. */
#define BORROW_MISSES 2u
/* Among how many of the spans that wait one is chosen. */
#define LISTED_LOOKS 8
/* A class that has opened so many clean spans without giving one up grows, and will use the next slice, too: it is made resident in one call, which
 * costs 0.7 to 0.88 of the page faults (docs/DESIGN.md). So at most a fifth of its memory comes too early. */
#define STREAK_GROWS 4
#define STREAK_MAX UINT8_MAX

struct span span_none;

#define NONE_READY [0 ... TINY_GRANULES] = &span_none
#define NONE_CURRENT [0 ... CLASSES - 1] = &span_none
struct heap heap_vacant = {.ready = {NONE_READY}, .current = {NONE_CURRENT}};

static void counter_add(_Atomic uint64_t *counter, uint64_t n) {
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

void heap_init(struct heap *heap) {
    memcpy(heap->ready, heap_vacant.ready, sizeof heap->ready);
    memcpy(heap->current, heap_vacant.current, sizeof heap->current);
    memset(heap->listed, 0, sizeof heap->listed);
    memset(heap->lender, CLASSES, sizeof heap->lender);
    memset(heap->borrow_misses, 0, sizeof heap->borrow_misses);
    memset(heap->streak, 0, sizeof heap->streak);
    heap->undrained = NULL;
    secure_init(heap);
    atomic_store_explicit(&heap->remote, NULL, memory_order_relaxed);
}

/* --- the list of spans with room ---------------------------------------------------------------------------------- */

/* Spans come in the order of their age, but those that were punched come last. */

static void list_prepend(struct heap *heap, struct span *span) {
    struct span *first = heap->listed[span->class].first;
    span->prev = NULL;
    span->next = first;
    *(first != NULL ? &first->prev : &heap->listed[span->class].last) = span;
    heap->listed[span->class].first = span;
    span->flags |= SPAN_LISTED;
}

static void list_append(struct heap *heap, struct span *span) {
    struct span *last = heap->listed[span->class].last;
    span->next = NULL;
    span->prev = last;
    *(last != NULL ? &last->next : &heap->listed[span->class].first) = span;
    heap->listed[span->class].last = span;
    span->flags |= SPAN_LISTED;
}

void heap_unlist(struct heap *heap, struct span *span) {
    *(span->prev != NULL ? &span->prev->next : &heap->listed[span->class].first) = span->next;
    *(span->next != NULL ? &span->next->prev : &heap->listed[span->class].last) = span->prev;
    span->flags &= (uint8_t)~SPAN_LISTED;
}

/* --- states of a span: current, listed, full ---------------------------------------------------------------------- */

static bool span_is_punched(const struct span *span) {
    return span->kind == SPAN_TINY && atomic_load_explicit(&span->punched, memory_order_relaxed) != 0;
}

/* Blocks that a punched span withholds look live to the hot path, so that one keeps away. */
static void span_set_owner(struct span *span, struct heap *heap) {
    if (span->kind == SPAN_MID) heap = mid_owner(heap);
    atomic_store_explicit(&span->owner, span_is_punched(span) ? NULL : heap, memory_order_relaxed);
}

void span_set_aside(struct span *span) { atomic_store_explicit(&span->owner, NULL, memory_order_relaxed); }

/* Which span malloc pops for the sizes of a tiny class. */
static void ready_set(struct heap *heap, unsigned class, struct span *span) {
    size_t first = class == 0 ? 0 : class_bytes(class - 1) / GRANULE_BYTES + 1;
    for (size_t granules = first; granules <= class_bytes(class) / GRANULE_BYTES; granules++)
        heap->ready[granules] = span;
}

static void current_set(struct heap *heap, unsigned class, struct span *span) {
    heap->current[class] = span;
    if (class >= TINY_CLASSES) return;
    ready_set(heap, class, span);
    for (unsigned smaller = class; smaller-- > 0 && 2 * class_bytes(smaller) >= class_bytes(class);)
        if (heap->lender[smaller] == class) ready_set(heap, smaller, span);
}

static void span_to_current(struct heap *heap, struct span *span) {
    if ((span->flags & SPAN_LISTED) != 0) heap_unlist(heap, span);
    if ((span->flags & SPAN_PUNCHED) != 0 && span->kind == SPAN_MID)
        counter_add(&heap->mended_bytes, (size_t)(span->carved - span->used) * span->block_bytes);
    span->flags = (uint8_t)((span->flags & ~SPAN_PUNCHED) | SPAN_CURRENT);
    span->used++;
    span_set_owner(span, heap);
    if (span->class < TINY_CLASSES)
        heap->lender[span->class] = CLASSES; /* it may have borrowed, and serve another class now */
    current_set(heap, span->class, span);
}

/* Leaves the span in no state: the caller says what becomes of it. */
static void span_from_current(struct heap *heap, struct span *span) {
    span->flags &= (uint8_t)~SPAN_CURRENT;
    span->used--;
    current_set(heap, span->class, &span_none);
}

void heap_list(struct heap *heap, struct span *span) {
    struct span *last = heap->listed[span->class].last;
    if ((span->flags & SPAN_PUNCHED) != 0) {
        span_set_aside(span);
        list_append(heap, span);
        return;
    }
    span_set_owner(span, heap);
    if (last != NULL && (last->flags & SPAN_PUNCHED) != 0)
        list_prepend(heap, span);
    else
        list_append(heap, span);
}

/* Something has changed in a listed span since it was punched. */
static void span_wet(struct heap *heap, struct span *span) {
    heap_unlist(heap, span);
    span->flags &= (uint8_t)~SPAN_PUNCHED;
    heap_list(heap, span);
}

/* Before the next blocks are carved: where they begin a slice that was never touched, and the class grows, make it resident. */
static void span_populate(struct span *span) {
    size_t carved_bytes = (size_t)span->carved * span->block_bytes;
    size_t step_bytes = span->kind == SPAN_MID ? (size_t)mid_carve_count(span) * span->block_bytes : 1;
    size_t slice = (carved_bytes + SLICE_BYTES - 1) / SLICE_BYTES; /* the first without a carved block */
    bool reached = carved_bytes + step_bytes > slice * SLICE_BYTES;
    if (span->heap->streak[span->class] < STREAK_GROWS || !reached || slice >= span->slices ||
        run_slice_is_dirty(span, slice))
        return;
    size_t blocks_end = size_round_up((size_t)span->capacity * span->block_bytes, os_page_bytes);
    os_populate(span_start(span) + slice * SLICE_BYTES, size_min(SLICE_BYTES, blocks_end - slice * SLICE_BYTES));
    span->flags |= SPAN_POPULATED;
}

/* Make more of a current span's blocks free: those that it withholds, then new ones. */
static bool span_carve(struct span *span) {
    if (span->kind == SPAN_TINY && tiny_mend(span)) {
        counter_add(&span->heap->mended_bytes, os_page_bytes);
        span_set_owner(span, span->heap);
        return true;
    }
    if (span->carved == span->capacity) return false;
    span_populate(span);
    return span->kind == SPAN_MID ? mid_carve(span) : tiny_carve(span);
}

/* Whether a block can be popped. The lists decide, not `used`: a jump out of a signal handler may have left that one too high. */
static bool span_has_free(struct span *span) { return span->kind == SPAN_MID ? mid_ready(span) : span->free != NULL; }

/* Whether the span can serve another block, after carving if need be. */
static bool span_has_room(struct span *span) {
    return span_has_free(span) || span->carved < span->capacity || span_is_punched(span);
}

static void span_retire(struct heap *heap, struct span *span) {
    size_t slices = span->slices;
    size_t touched = (span->carved * (size_t)span->block_bytes + SLICE_BYTES - 1) >> SLICE_SHIFT;
    counter_add(&heap->retire_count, 1);
    heap->streak[span->class] = 0;
    if (span->kind == SPAN_MID) mid_clear_inner(span);
    guard_span_clear(span);
    run_release_front(span, slices, touched);
}

/* A span without a live block that is not current goes back to the page runs. It cannot be in the remote queue: blocks in there count
 * as used. */
void heap_give_up(struct heap *heap, struct span *span) {
    dcheck(!remote_is_queued(span));
    if ((span->flags & SPAN_LISTED) != 0) heap_unlist(heap, span);
    span_retire(heap, span);
}

static struct span *span_fresh(struct heap *heap, unsigned class) {
    bool mid = class >= TINY_CLASSES;
    struct span *span = run_take(mid ? mid_slices(class) : 1, 1);
    if (span == NULL) return NULL;
    span->heap = heap;
    heap->streak[class] += heap->streak[class] < STREAK_MAX;
    counter_add(&heap->fresh_bytes[mid ? TIER_MID_INDEX : TIER_TINY_INDEX],
                (mid ? mid_slices(class) : 1) * SLICE_BYTES);
    if (mid)
        mid_init(span, class);
    else
        tiny_init(span, class);
    return span;
}

/* --- taking -------------------------------------------------------------------------------------------------------- */

/* A block that others freed must be one, and hold what they left in it. The address alone is not touched before it is known to be good. */
static void remote_check(const struct span *span, const struct block *block, uint32_t link) {
    uint32_t index = span_block_index(span, block);
    uintptr_t key = span->kind == SPAN_MID ? mid_key(span, block) : tiny_key(span, block);
    if (link != index + 1 || block->key != key || (uintptr_t)guard_link(block, block->next) > UINT16_MAX)
        guard_fatal_stale(block);
}

/* Push the blocks that others freed. Returns how many. */
static uint32_t span_collect(struct heap *heap, struct span *span, uint64_t word) {
    uint32_t count = remote_count(word);
    char *start = span_start(span);
    uint32_t link = remote_head(word);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t index = link - 1;
        struct block *block =
            span->kind == SPAN_MID ? mid_block(span, index) : (struct block *)(start + (size_t)index * GRANULE_BYTES);
        if (SECURE_BUILD) remote_check(span, block, link);
        link = (uint32_t)(uintptr_t)guard_link(block, block->next);
        if (span->kind == SPAN_MID) {
            block->key = 0;
            guard_fill(block, sizeof *block);
            mid_push(span, index);
        } else {
            tiny_push(span, block);
        }
    }
    counter_add(&heap->remote_count, count);
    return count;
}

bool heap_drain_step(struct heap *heap) {
    struct span *span = heap->undrained;
    if (span == NULL) span = remote_take_queue(heap);
    if (span == NULL) return false;
    heap->undrained = span->remote_next;
    uint64_t word = remote_take_all(span);
    span->flags &= (uint8_t)~SPAN_IN_HAND;
    if (remote_count(word) == span->used &&
        span->kind == SPAN_TINY) { /* all that were left: the span goes as it is, and its list with it. A
                                                                          current one counts one more; mid blocks have keys to clear */
        counter_add(&heap->remote_count, remote_count(word));
        heap_give_up(heap, span);
        return true;
    }
    if (remote_count(word) > 0) {
        span_collect(heap, span, word);
        if ((span->flags & (SPAN_LISTED | SPAN_PUNCHED)) == (SPAN_LISTED | SPAN_PUNCHED)) span_wet(heap, span);
        span->flags &= (uint8_t)~SPAN_PUNCHED;
    }
    if (span->used == 0)
        heap_give_up(heap, span);
    else if ((span->flags & (SPAN_CURRENT | SPAN_LISTED)) == 0)
        heap_list(heap, span);
    return true;
}

void heap_drain(struct heap *heap) {
    while (heap_drain_step(heap)) {}
}

/* The class that serves `class`: itself, or the lender. Called on a miss. */
static unsigned heap_server(struct heap *heap, unsigned class) {
    if (class >= TINY_CLASSES || heap->current[class] != &span_none) return class;
    unsigned lender = heap->lender[class];
    if (lender != CLASSES) { /* missed while borrowing */
        if (++heap->borrow_misses[class] < BORROW_MISSES) return lender;
        heap->lender[class] = CLASSES;
        /* Nothing else takes the loan back where there is no memory for a span of its own. */
        ready_set(heap, class, &span_none);
        return class;
    }
    if (heap->borrow_misses[class] >= BORROW_MISSES) return class;
    size_t bytes = class_bytes(class);
    size_t alignment = bytes & -bytes; /* what users of this size may count on */
    for (lender = class + 1; lender < TINY_CLASSES && class_bytes(lender) <= 2 * bytes; lender++) {
        if (heap->current[lender] == &span_none || class_bytes(lender) % alignment != 0) continue;
        heap->lender[class] = (uint8_t)lender;
        ready_set(heap, class, heap->current[lender]);
        return lender;
    }
    return class;
}

/* Of the mid spans that have waited longest, and so have had most time to gather free blocks, the fullest: the others may empty. NULL: none has a
 * free block. */
static struct span *listed_fullest(const struct heap *heap, unsigned class) {
    struct span *best = NULL;
    uint32_t least = UINT32_MAX;
    int looks = LISTED_LOOKS;
    for (struct span *span = heap->listed[class].first; span != NULL && looks-- > 0; span = span->next) {
        uint32_t count = span->carved - span->used; /* a listed span is not current */
        if (count >= least || !span_has_free(span)) continue;
        best = span;
        least = count;
    }
    return best;
}

/* Make a span with a free block current. The tiny tier carves what the current span still has and goes on with the span that has waited longest:
 * few misses, and at most a span's pages more. In the mid tier, where a block is a page or so, used blocks of any span come first. */
static struct span *heap_refill(struct heap *heap, unsigned class) {
    counter_add(&heap->refill_counts[class], 1);
    heap_drain(heap);
    struct span *span = heap->current[class];
    if (span != &span_none && span_has_free(span)) return span;
    struct span *best = class < TINY_CLASSES ? NULL : listed_fullest(heap, class);
    if (span != &span_none) {
        if (best == NULL && span_carve(span)) return span;
        span_from_current(heap, span);
        if (span_has_room(span))
            heap_list(heap, span);
        else
            span_set_aside(span);
    }
    if (best == NULL) best = heap->listed[class].first;
    if (best == NULL) best = span_fresh(heap, class);
    if (best == NULL) return NULL;
    span_to_current(heap, best);
    if (!span_has_free(best)) span_carve(best);
    return best;
}

void *heap_take(struct heap *heap, unsigned class, bool *clean) {
    *clean = false;
    heap_count(heap, class);
    class = heap_server(heap, class);
    struct span *span = heap->current[class];
    if (span == &span_none || !span_has_free(span)) span = heap_refill(heap, class);
    if (span == NULL) return NULL;
    if (class < TINY_CLASSES) return tiny_pop(span);
    mid_ready(span);
    return mid_pop(span, clean);
}

/* --- giving back --------------------------------------------------------------------------------------------------- */

void heap_put(struct heap *heap, struct span *span, void *block) {
    if (span->kind == SPAN_MID)
        mid_push(span, mid_index(span, block));
    else
        tiny_push(span, block);
    if (span->used == 0)
        heap_give_up(heap, span);
    else if ((span->flags & (SPAN_CURRENT | SPAN_LISTED)) == 0)
        heap_list(heap, span);
    else if ((span->flags & SPAN_PUNCHED) != 0)
        span_wet(heap, span);
}

void heap_flush(struct heap *heap, enum tier_mask tiers) {
    secure_settle(heap);
    heap_drain(heap);
    for (unsigned class = 0; class < CLASSES; class ++) {
        if ((tiers & (class < TINY_CLASSES ? TIER_TINY : TIER_MID)) == 0) continue;
        struct span *span = heap->current[class];
        if (span == &span_none) continue;
        span_from_current(heap, span);
        if (span->used == 0)
            span_retire(heap, span);
        else if (span_has_room(span))
            heap_list(heap, span);
        else
            span_set_aside(span);
    }
}

/* Counting takes a look at all classes: it is done only when spans that emptied since the last time may have filled what was left of the limit. */
void heap_mid_emptied(struct heap *heap, const struct span *span) {
    size_t bytes = (size_t)span->carved * span->block_bytes;
    if (bytes < heap->empty_room_bytes) {
        heap->empty_room_bytes -= bytes;
        return;
    }
    size_t limit_bytes = load_relaxed(&run_keep_bytes) / 4, empty_bytes = 0;
    for (unsigned class = 0; class < CLASSES; class ++) {
        const struct span *current = heap->current[class];
        if (current->used == 1) empty_bytes += (size_t)current->carved * current->block_bytes;
    }
    if (empty_bytes > limit_bytes) {
        heap_flush(heap, TIER_BOTH);
        empty_bytes = 0;
    }
    heap->empty_room_bytes = limit_bytes - empty_bytes;
}

/* --- shrinking while at work --------------------------------------------------------------------------------------- */

#define RATE_UNIT 8u
#define RATE_HIGH (16 * RATE_UNIT)

_Atomic uint32_t heap_tick;

tide_racy enum class_state heap_class_state(const struct heap *heap, unsigned class) {
    if (heap->rate[class] >= RATE_HIGH) return CLASS_PERFORMANCE;
    return heap->rate[class] != 0 ? CLASS_BALANCED : CLASS_MEMORY;
}

static void rate_note(struct heap *heap, unsigned class) {
    uint32_t count = (uint32_t)atomic_load_explicit(&heap->refill_counts[class], memory_order_relaxed);
    size_t refills = size_min(count - heap->ticked_refills[class], UINT8_MAX / RATE_UNIT);
    heap->ticked_refills[class] = count;
    heap->rate[class] = (uint8_t)((heap->rate[class] + refills * RATE_UNIT) / 2);
}

void heap_trim(struct heap *heap) {
    heap->tick = atomic_load_explicit(&heap_tick, memory_order_relaxed);
    for (unsigned class = 0; class < CLASSES; class ++) {
        rate_note(heap, class);
        struct span *span = heap->current[class];
        if (heap_class_state(heap, class) != CLASS_MEMORY || span == &span_none || span->used != 1) continue;
        span_from_current(heap, span);
        span_retire(heap, span);
    }
}
