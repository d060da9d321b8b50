#include "heap/census.h"

#include "heap/own.h"
#include "heap/remote.h"
#include "heap/thread.h"
#include "span/meta.h"

/* What was given back from under the live blocks of a span. */
tide_racy static size_t punched_bytes(const struct span *span) {
    if (span->kind == SPAN_TINY) return bits_count(*(const aliasing_quarter *)&span->punched) * os_page_bytes;
    /* The owner may give the span up meanwhile: what is looked at is a copy, and it must make sense. */
    struct span copy = *span;
    uint64_t pages[MID_PAGE_WORDS];
    size_t blocks = size_max(copy.carved, atomic_load_explicit(&copy.limit, memory_order_relaxed));
    bool sane = copy.kind == SPAN_MID && copy.block_bytes > TINY_MAX_BYTES && copy.block_bytes <= MID_MAX_BYTES &&
                blocks * copy.block_bytes <= 8 * SLICE_BYTES;
    if (!sane || (copy.flags & SPAN_PUNCHED) == 0 || !mid_punch(&copy, pages)) return 0;
    return (bits_count(pages[0]) + bits_count(pages[1])) * os_page_bytes;
}

/* What a census has found so far, and where it writes more than totals; NULL: nowhere. */
struct walk {
    struct census *census;
    struct census_class *classes;
    const struct heap *own;
};

tide_racy static void note_span(const struct span *span, struct census_class *classes, uint32_t live,
                                uint32_t free_count, size_t free_bytes) {
    unsigned class = span->class;
    struct heap *heap = span->heap;
    if (class >= CLASSES || heap == NULL) return;
    classes[class].spans++;
    classes[class].live_blocks += live;
    classes[class].free_blocks += free_count;
    classes[class].free_bytes += free_bytes;
    heap->seen.spans++;
    heap->seen.live_bytes += live * class_bytes(class);
    heap->seen.free_bytes += free_bytes;
}

/* The blocks of a tiny or mid span. */
tide_racy static void count_blocks(struct walk *walk, const struct span *span) {
    struct census *census = walk->census;
    enum tier_index tier = span->kind == SPAN_MID ? TIER_MID_INDEX : TIER_TINY_INDEX;
    uint32_t waiting = remote_count(*(const aliasing_word *)&span->remote); /* freed, not yet collected */
    uint32_t bias = (span->flags & SPAN_CURRENT) != 0;
    uint32_t used = span->used;
    uint32_t live = used > bias + waiting ? used - bias - waiting : 0;
    size_t bytes = span->block_bytes;
    uint32_t carved = span->carved;
    uint32_t free_count = carved > live ? carved - live : 0;
    size_t free_bytes = free_count * bytes;
    census->live_bytes[tier] += live * bytes;
    census->free_blocks += free_count;
    if (live > 0) {
        census->active_bytes += span->slices * SLICE_BYTES;
        free_bytes -= size_min(punched_bytes(span), free_bytes);
        census->free_bytes[tier] += free_bytes;
    } else {
        free_bytes = carved * bytes;
        census->empty_bytes[tier] += free_bytes;
        if (span->heap != walk->own) census->foreign_empty_bytes[tier] += free_bytes;
    }
    if (walk->classes != NULL) note_span(span, walk->classes, live, free_count, free_bytes);
}

/* Returns how many slices to go on. */
tide_racy static size_t count_span(struct walk *walk, const struct span *span) {
    switch (span->kind) {
    case SPAN_TINY:
    case SPAN_MID: count_blocks(walk, span); return size_max(span->slices, 1);
    case SPAN_LARGE: {
        size_t slices = span->large.slices;
        walk->census->live_bytes[TIER_LARGE_INDEX] += span->large.bytes;
        walk->census->active_bytes += slices * SLICE_BYTES;
        walk->census->large_blocks++;
        return size_max(slices, 1);
    }
    default: return 1;
    }
}

static void walk_spans(struct walk *walk) {
    for (struct region *region = &region_main; region != NULL;
         region = __atomic_load_n(&region->next, __ATOMIC_ACQUIRE))
        for (size_t slice = 0; slice < region_seen(region) / SLICE_BYTES;)
            slice += count_span(walk, &region->spans[slice]);
}

static uint64_t count_of(const _Atomic uint64_t *count) { return atomic_load_explicit(count, memory_order_relaxed); }

static void count_heap(struct walk *walk, struct heap *heap) {
    struct census *census = walk->census;
    for (unsigned class = 0; class < CLASSES; class ++) {
        uint64_t refills = count_of(&heap->refill_counts[class]), allocations = 0;
#ifdef TIDE_COUNT
        allocations = count_of(&heap->allocation_counts[class]);
#endif
        census->refill_count += refills;
        census->allocation_count += allocations;
        if (walk->classes == NULL) continue;
        walk->classes[class].refill_count += refills;
        walk->classes[class].allocation_count += allocations;
        unsigned state = heap_class_state(heap, class);
        if (state > walk->classes[class].state) walk->classes[class].state = state;
    }
    census->retire_count += count_of(&heap->retire_count);
    census->remote_count += count_of(&heap->remote_count);
    if (heap == &heap_shared) return;
    census->heap_count++;
    census->bound_count += heap_is_bound(heap);
}

static void walk_all(struct walk *walk) {
    struct census *census = walk->census;
    *census = (struct census){0};
    walk->own = heap_record.self;
    run_totals(&census->runs);
    walk_spans(walk);
    count_heap(walk, &heap_shared);
    for (struct heap *heap = __atomic_load_n(&heap_all, __ATOMIC_ACQUIRE); heap != NULL; heap = heap->next_heap)
        count_heap(walk, heap);
    census->metadata_bytes = census->runs.metadata_bytes + meta_bytes();
    census->nested_count = heap_nested_count();
}

void census_take(struct census *census) {
    struct walk walk = {.census = census};
    walk_all(&walk);
}

void census_take_detailed(struct census *census, struct census_class classes[CLASSES]) {
    struct walk walk = {.census = census, .classes = classes};
    memset(classes, 0, CLASSES * sizeof *classes);
    heap_shared.seen.live_bytes = heap_shared.seen.free_bytes = heap_shared.seen.spans = 0;
    for (struct heap *heap = __atomic_load_n(&heap_all, __ATOMIC_ACQUIRE); heap != NULL; heap = heap->next_heap)
        heap->seen.live_bytes = heap->seen.free_bytes = heap->seen.spans = 0;
    walk_all(&walk);
}

/* How many slices the span at this one has, and what they are used for. */
tide_racy static size_t use_of(const struct region *region, size_t slice, uint8_t *use) {
    const struct span *span = &region->spans[slice];
    switch (span->kind) {
    case SPAN_FREE: {
        const struct chunk *chunk = &region->chunks[slice / CHUNK_SLICES];
        uint32_t dirty = *(const aliasing_half *)&chunk->dirty;
        *use = (chunk->free & dirty) >> slice % CHUNK_SLICES & 1 ? USE_DIRTY : USE_CLEAN;
        return 1;
    }
    case SPAN_TINY: *use = USE_TINY; return 1;
    case SPAN_MID: *use = USE_MID; return size_max(span->slices, 1);
    case SPAN_LARGE: *use = USE_LARGE; return size_max(span->large.slices, 1);
    default: *use = USE_OTHER; return 1;
    }
}

size_t census_slices(const struct region *region, struct census_cursor *cursor, uint8_t *uses, size_t count) {
    size_t end = region_seen(region) / SLICE_BYTES, done = 0;
    while (done < count && cursor->slice < end) {
        if (cursor->left == 0) cursor->left = use_of(region, cursor->slice, &cursor->use);
        size_t slices = size_min(size_min(cursor->left, count - done), end - cursor->slice);
        memset(uses + done, cursor->use, slices);
        done += slices;
        cursor->slice += slices;
        cursor->left -= slices;
    }
    return done;
}
