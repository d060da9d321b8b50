/* region.h - the reserved address space, its descriptors, and its growth.
 *
 *            reserved, inaccessible                                      committed              reserved
 *   | gap | spans (1/512 of the size) | chunks | bins | gap | base ............... top | ............... base + size |
 *
 * The first region is reserved at the first allocation and is normally the only one: it is so large (1 TiB) that it does not fill
 * up. Below RLIMIT_AS it is at most a quarter of the limit, and further regions follow when it is full. `top` only grows: memory
 * below it is given back by purging, never by making it inaccessible again.
 */
#ifndef TIDE_SPAN_REGION_H
#define TIDE_SPAN_REGION_H

#include "span/bins.h"
#include "span/span.h"

/* What the run allocator knows about 2 MiB: a bit per slice. Guarded by the run lock. */
struct chunk {
    uint32_t free;          /* slices that nobody uses */
    _Atomic uint32_t dirty; /* touched since they were mapped or purged; kept for slices in use, so that calloc knows */
    uint32_t purging;       /* being given back: neither free nor in use */
    uint16_t bin;           /* where bins.h has it; CHUNK_NO_BIN when no slice is free */
    _Atomic bool described; /* descriptors of its slices were written since their memory was given back */
};
#define CHUNK_NO_BIN UINT16_MAX

struct region {
    uintptr_t base;
    _Atomic size_t top_bytes; /* committed from base on; a multiple of the chunk size. Grows under the run lock. */
    struct span *spans;
    size_t size_bytes;
    struct chunk *chunks;
    struct bins bins;
    size_t metadata_bytes; /* committed for spans, chunks and bins */
    size_t spans_committed, chunks_committed, words_committed, summary_committed;
    struct region *next;
};

/* What /proc/PID/maps calls the memory of blocks. */
#define REGION_LABEL "tidemalloc: heap"

/* The first region: the only one that the hot path looks at. All zero before the first allocation. */
extern tide_hidden struct region region_main;

/* Reserve the first region. `reserve_bytes` is the size wished for; it is halved until the system grants it. False: none. */
tide_hidden bool region_init(size_t reserve_bytes);
/* One more region, for a run of `bytes` that no other region has room for. Run lock. NULL: another one has the room (so it is memory that
 * is missing, not address space), or the system refuses. */
tide_hidden struct region *region_add(size_t bytes);
/* Take back a region that was just added. Run lock. */
tide_hidden void region_drop(struct region *region);
/* Commit at least `chunks` more chunks; they are free and clean then. Run lock. False: full, or the system refuses. */
tide_hidden bool region_grow(struct region *region, size_t chunks);
/* Give up the reserve that is not committed, but for `keep_bytes`, so that a new RLIMIT_AS is not used up by it. Run lock. */
tide_hidden void region_trim(size_t keep_bytes);
/* The region of an address of ours, committed so far; NULL for any other. */
tide_hidden struct region *region_of(const void *address);
/* Whether an address lies in a reserve of ours, committed or not. */
tide_hidden bool region_has_reserved(const void *address);
tide_hidden struct region *region_of_span(const struct span *span);

tide_inline size_t region_top(const struct region *region) { return load_relaxed(&region->top_bytes); }
/* The same for who neither holds the run lock nor knows a block of the region: what lies below is described, and by these arrays. */
tide_inline size_t region_seen(const struct region *region) {
    return atomic_load_explicit(&region->top_bytes, memory_order_acquire);
}

/* The descriptor of the slice that holds `address`. */
tide_inline struct span *region_span(const struct region *region, const void *address) {
    return &region->spans[((uintptr_t)address - region->base) >> SLICE_SHIFT];
}

tide_inline size_t region_slice(const struct region *region, const struct span *span) {
    return (size_t)(span - region->spans);
}

/* Where the memory of a span starts. */
tide_inline char *span_start(const struct span *span) {
    const struct region *region = &region_main;
    if (unlikely((uintptr_t)span - (uintptr_t)region->spans >= region->size_bytes / (SLICE_BYTES / sizeof *span)))
        region = region_of_span(span);
    return (char *)region->base + (region_slice(region, span) << SLICE_SHIFT);
}

#endif
