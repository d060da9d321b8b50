#include "heap/validate.h"

#include "base/format.h"
#include "heap/emergency.h"
#include "heap/own.h"
#include "heap/remote.h"
#include "heap/thread.h"
#include "os/options.h"
#include "os/report.h"
#include "span/meta.h"
#include "span/run.h"
#include "tier/large.h"

static bool is_exact(const struct heap *heap) { return !atomic_load_explicit(&heap->jumped, memory_order_relaxed); }

/* --- a span ---------------------------------------------------------------------------------------------------------- */

static uint32_t bias(const struct span *span) { return (span->flags & SPAN_CURRENT) != 0; }

/* The list of blocks that others freed. It grows meanwhile, at its head, so what is reached from one is whole. */
tide_cold static const char *remote_validate(const struct span *span) {
    uint64_t word = atomic_load_explicit(&span->remote, memory_order_acquire);
    uint32_t count = remote_count(word), link = remote_head(word);
    invariant(word >> 33 == 0 && (count == 0 || (word & REMOTE_QUEUED) != 0), "remote: freed blocks, not queued");
    invariant(count + bias(span) <= span->used || !is_exact(span->heap), "remote: more freed blocks than live ones");
    for (; count > 0; count--) {
        uint32_t index = link - 1;
        bool mid = span->kind == SPAN_MID;
        const char *at = mid ? (char *)mid_block(span, index) : span_start(span) + (size_t)index * GRANULE_BYTES;
        const struct block *block = (const struct block *)(const void *)at;
        invariant(link != 0 && index < SLICE_BYTES / GRANULE_BYTES && span_block_index(span, block) == index,
                  "remote: a link that leads to no block");
        invariant(mid ? !mid_is_free(span, index) : !tiny_is_withheld(span, tiny_offset(block)),
                  "remote: a block that is free");
        invariant(block->key == (mid ? mid_key(span, block) : tiny_key(span, block)),
                  "remote: a block without its key");
        link = (uint32_t)(uintptr_t)guard_link(block, block->next);
    }
    invariant(link == 0, "remote: more blocks than counted");
    return NULL;
}

tide_cold static const char *state_validate(const struct span *span) {
    unsigned flags = span->flags, state = flags & (SPAN_CURRENT | SPAN_LISTED | SPAN_IN_HAND);
    const struct heap *owner = NULL;
    invariant((state & (state - 1)) == 0, "span: in two states");
    invariant((flags & SPAN_PUNCHED) == 0 || (state & ~SPAN_CURRENT) != 0, "span: punched and in use");
    invariant((flags & SPAN_IN_HAND) == 0 || remote_is_queued(span), "span: in hand, not queued");
    bool withholds = span->kind == SPAN_TINY && atomic_load_explicit(&span->punched, memory_order_relaxed) != 0;
    if ((state & (SPAN_CURRENT | SPAN_LISTED)) != 0 && (flags & SPAN_PUNCHED) == 0 && !withholds)
        owner = span->kind == SPAN_MID ? mid_owner(span->heap) : span->heap;
    invariant(span_owner(span) == owner, "span: owner");
    return NULL;
}

/* Tiny or mid. Its heap's owner asks. */
tide_cold static const char *span_validate(const struct span *span) {
    bool exact = is_exact(span->heap);
    validated(span->kind == SPAN_MID ? mid_validate(span, exact) : tiny_validate(span, exact));
    validated(state_validate(span));
    return remote_validate(span);
}

/* --- a heap ---------------------------------------------------------------------------------------------------------- */

tide_cold static bool span_is_of(const struct span *span, const struct heap *heap, unsigned class) {
    return span->heap == heap && span->class == class;
}

tide_cold static bool has_room(const struct span *span) {
    if (span->carved < span->capacity) return true;
    if (span->kind == SPAN_TINY)
        return span->free != NULL || atomic_load_explicit(&span->punched, memory_order_relaxed) != 0;
    return (mid_mask(span, 0) | mid_mask(span, 1) | mid_mask(span, 2)) != 0;
}

tide_cold static const char *class_validate(struct heap *heap, unsigned class) {
    const struct span *current = heap->current[class], *prev = NULL;
    if (current != &span_none) {
        invariant(span_is_of(current, heap, class) && (current->flags & SPAN_CURRENT) != 0, "heap: current span");
        invariant(current->used != 0, "heap: a current span without its bias");
        validated(span_validate(current));
    }
    for (const struct span *span = heap->listed[class].first; span != NULL; prev = span, span = span->next) {
        invariant(span_is_of(span, heap, class) && (span->flags & SPAN_LISTED) != 0, "heap: listed span");
        invariant(span->prev == prev, "heap: list of spans");
        invariant(prev == NULL || (prev->flags & SPAN_PUNCHED) <= (span->flags & SPAN_PUNCHED),
                  "heap: punched spans are not last");
        validated(span_validate(span));
        invariant(!is_exact(heap) || (span->used != 0 && has_room(span)), "heap: a listed span that is empty or full");
    }
    invariant(heap->listed[class].last == prev, "heap: end of a list of spans");
    return NULL;
}

/* What malloc pops: the current span of the class, or of the class that lends to it, or of none. */
tide_cold static const char *ready_validate(const struct heap *heap) {
    for (size_t granules = 0; granules <= TINY_GRANULES; granules++) {
        const struct span *span = heap->ready[granules];
        unsigned class = class_of_size(granules * GRANULE_BYTES), lender = heap->lender[class];
        const struct span *own = heap->current[class];
        bool borrows = own == &span_none && lender != CLASSES;
        invariant(lender == CLASSES || (lender > class && lender < TINY_CLASSES), "heap: lender");
        invariant(span == own || (borrows && span == heap->current[lender]), "heap: a ready span that is not current");
        if (span == &span_none || !borrows) continue;
        size_t bytes = class_bytes(class), lent = class_bytes(lender);
        invariant(lent <= 2 * bytes && lent % (bytes & -bytes) == 0, "heap: a loan that does not fit");
    }
    return NULL;
}

tide_cold static const char *queue_validate(const struct heap *heap, const struct span *span) {
    size_t limit = 0;
    for (const struct region *region = &region_main; region != NULL;
         region = __atomic_load_n(&region->next, __ATOMIC_ACQUIRE))
        limit += region_top(region) / SLICE_BYTES;
    for (; span != NULL; span = span->remote_next) {
        invariant(limit-- != 0, "heap: a circle of queued spans");
        invariant(span->heap == heap && (span->kind == SPAN_TINY || span->kind == SPAN_MID), "heap: queued span");
        invariant(remote_is_queued(span), "heap: a queued span that does not know");
        validated(span_validate(span));
    }
    return NULL;
}

const char *heap_validate(struct heap *heap) {
    for (unsigned class = 0; class < CLASSES; class ++) validated(class_validate(heap, class));
    validated(ready_validate(heap));
    validated(queue_validate(heap, heap->undrained));
    return queue_validate(heap, atomic_load_explicit(&heap->remote, memory_order_acquire));
}

/* --- everything ------------------------------------------------------------------------------------------------------ */

static bool is_lost(struct heap *heap) { return atomic_load_explicit(&heap->state, memory_order_relaxed) == HEAP_LOST; }

#ifdef TIDE_DEBUG /* which tests always are */

static bool heap_is_known(struct heap *wanted) {
    for (const struct heap *heap = heap_all; heap != NULL; heap = heap->next_heap)
        if (heap == wanted) return true;
    return wanted == &heap_shared || (wanted != NULL && is_lost(wanted)); /* heap_reset_shared */
}

/* A span as its heap's lists must know it. */
static const char *membership_validate(const struct span *span) {
    struct heap *heap = span->heap;
    unsigned class = span->class;
    invariant(heap_is_known(heap), "slice: a span of no heap");
    if (is_lost(heap) || !is_exact(heap)) return NULL;
    validated(span_validate(span));
    if ((span->flags & SPAN_CURRENT) != 0) {
        invariant(heap->current[class] == span, "slice: a current span that its heap does not know");
    } else if ((span->flags & SPAN_LISTED) != 0) {
        const struct span *before = span->prev != NULL ? span->prev->next : heap->listed[class].first;
        invariant(before == span, "slice: a listed span that is not on the list");
    } else if ((span->flags & SPAN_IN_HAND) == 0) {
        invariant(!has_room(span), "slice: a span with room that nobody knows");
    }
    return NULL;
}

/* `*slices`: how many to go on. */
static const char *head_validate(const struct span *span, size_t *slices) {
    switch (span->kind) {
    case SPAN_TINY: return membership_validate(span);
    case SPAN_MID: *slices = size_max(span->slices, 1); return membership_validate(span);
    case SPAN_LARGE:
    case SPAN_HELD: *slices = size_max(span->large.slices, 1); return large_validate(span);
    case SPAN_EMERGENCY: invariant(span->block_bytes == EMERGENCY_BLOCK_BYTES, "slice: emergency blocks"); return NULL;
    case SPAN_FREE: invariant(run_was_repaired, "slice: in use, and nobody's"); return NULL;
    default: return "slice: an inner one without a head";
    }
}

static const char *slices_validate(const struct region *region) {
    for (size_t slice = 0, count; slice < region_top(region) / SLICE_BYTES; slice += count) {
        const struct chunk *chunk = &region->chunks[slice / CHUNK_SLICES];
        count = 1;
        if (((chunk->free | chunk->purging) >> slice % CHUNK_SLICES & 1) == 0)
            validated(head_validate(&region->spans[slice], &count));
    }
    return NULL;
}

const char *heap_validate_all(void) {
    validated(run_validate());
    validated(meta_validate());
    validated(thread_validate());
    validated(emergency_validate(true));
    validated(heap_validate(&heap_shared));
    for (struct heap *heap = heap_all; heap != NULL; heap = heap->next_heap)
        if (!is_lost(heap)) validated(heap_validate(heap));
    for (const struct region *region = &region_main; region != NULL; region = region->next)
        if (region->base != 0) validated(slices_validate(region));
    return NULL;
}

#endif

/* --- when ------------------------------------------------------------------------------------------------------------ */

void validate_must(const char *broken) {
    if (likely(broken == NULL)) return;
    struct line what = {0};
    line_add(&what, "broken invariant: ");
    line_add(&what, broken);
    report_fatal(NULL, NULL, what.text);
}

static bool is_wanted(void) {
#ifdef TIDE_DEBUG
    return true;
#else
    return options.check != 0;
#endif
}

void validate_heap(struct heap *heap) {
    if (is_wanted()) validate_must(heap_validate(heap));
}

void validate_shared(void) {
    if (!is_wanted()) return;
    size_t next = 0;
    do validate_must(run_validate_part(&next));
    while (next != 0);
    validate_must(meta_validate());
    validate_must(emergency_validate(false));
}

void validate_child(void) {
    if (!is_wanted()) return;
    validate_must(thread_validate());
    validate_shared();
    validate_heap(&heap_shared);
    for (struct heap *heap = heap_all; heap != NULL; heap = heap->next_heap)
        if (!is_lost(heap)) validate_heap(heap);
}

#ifdef TIDE_DEBUG
/* The more spans a heap has, the rarer it is walked. */
#define SLOW_STEPS_PER_SPAN 16
static __thread struct {
    uint32_t steps_left;
    size_t next;
} slow __attribute__((tls_model("initial-exec")));

void validate_slow(struct heap *heap, const struct span *span) {
    if (span != NULL && span != &span_none) validate_must(span_validate(span));
    if (slow.steps_left-- != 0) return;
    validate_must(heap_validate(heap));
    validate_must(run_validate_part(&slow.next));
    uint32_t spans = 16;
    for (unsigned class = 0; class < CLASSES; class ++) {
        for (span = heap->listed[class].first; span != NULL; span = span->next) spans++;
    }
    slow.steps_left = spans * SLOW_STEPS_PER_SPAN;
}

void validate_large(const void *block) {
    struct region *region = block != NULL ? region_of(block) : NULL;
    if (region != NULL) validate_must(large_validate(region_span(region, block)));
}
#endif
