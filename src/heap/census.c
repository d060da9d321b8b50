#include "heap/census.h"

#include "heap/own.h"
#include "heap/remote.h"
#include "heap/thread.h"
#include "span/meta.h"

/* Reads descriptors while their owners write them. */
#ifdef TIDE_THREAD_SANITIZER
#define CENSUS_RACY __attribute__((no_sanitize("thread"), noinline))
#else
#define CENSUS_RACY
#endif

/* What was given back from under the live blocks of a span. */
CENSUS_RACY static size_t punched_bytes(const struct span *span) {
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

/* The blocks of a tiny or mid span. */
CENSUS_RACY static void count_blocks(struct census *census, const struct span *span, const struct heap *own) {
    enum tier_index tier = span->kind == SPAN_MID ? TIER_MID_INDEX : TIER_TINY_INDEX;
    uint32_t waiting = remote_count(*(const aliasing_word *)&span->remote); /* freed, not yet collected */
    uint32_t bias = (span->flags & SPAN_CURRENT) != 0;
    uint32_t used = span->used;
    uint32_t live = used > bias + waiting ? used - bias - waiting : 0;
    size_t bytes = span->block_bytes;
    uint32_t carved = span->carved;
    uint32_t free_count = carved > live ? carved - live : 0;
    census->live_bytes[tier] += live * bytes;
    census->free_blocks += free_count;
    if (live > 0) {
        census->active_bytes += span->slices * SLICE_BYTES;
        size_t returned = punched_bytes(span);
        census->free_bytes[tier] += free_count * bytes - size_min(returned, free_count * bytes);
    } else {
        census->empty_bytes += carved * bytes;
        if (span->heap != own) census->foreign_empty_bytes += carved * bytes;
    }
}

/* Returns how many slices to go on. */
CENSUS_RACY static size_t count_span(struct census *census, const struct span *span, const struct heap *own) {
    switch (span->kind) {
    case SPAN_TINY:
    case SPAN_MID: count_blocks(census, span, own); return size_max(span->slices, 1);
    case SPAN_LARGE: {
        size_t slices = span->large.slices;
        census->live_bytes[TIER_LARGE_INDEX] += span->large.bytes;
        census->active_bytes += slices * SLICE_BYTES;
        census->large_blocks++;
        return size_max(slices, 1);
    }
    default: return 1;
    }
}

void census_take(struct census *census) {
    *census = (struct census){0};
    bool mine = heap_try_enter();
    run_totals(&census->runs);
    for (struct region *region = &region_main; region != NULL;
         region = __atomic_load_n(&region->next, __ATOMIC_ACQUIRE))
        for (size_t slice = 0; slice < region_top(region) / SLICE_BYTES;)
            slice += count_span(census, &region->spans[slice], heap_record.self);
    heap_wait_for(&heap_registry_lock);
    for (struct heap *heap = &heap_shared; heap != NULL; heap = heap == &heap_shared ? heap_all : heap->next_heap) {
        census->refill_count += atomic_load_explicit(&heap->refill_count, memory_order_relaxed);
        census->retire_count += atomic_load_explicit(&heap->retire_count, memory_order_relaxed);
        census->remote_count += atomic_load_explicit(&heap->remote_count, memory_order_relaxed);
        if (heap == &heap_shared) continue;
        census->heap_count++;
        census->bound_count += atomic_load_explicit(&heap->state, memory_order_relaxed) == HEAP_BOUND;
    }
    os_lock_drop(&heap_registry_lock);
    census->metadata_bytes = census->runs.metadata_bytes + meta_bytes();
    census->nested_count = heap_nested_count();
    if (mine) heap_quit();
}
