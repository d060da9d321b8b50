/* census.h - count what there is: a walk over all descriptors. Other threads go on meanwhile, so what they change is a moment's
 * estimate. */
#ifndef TIDE_HEAP_CENSUS_H
#define TIDE_HEAP_CENSUS_H

#include "heap/heap.h"
#include "span/run.h"

struct census {
    size_t live_bytes[TIER_COUNT];
    size_t free_bytes[TIER_COUNT];          /* free blocks in spans with a live one (touched ones, for tiny spans) */
    size_t active_bytes;                    /* spans with a live block */
    size_t empty_bytes[TIER_COUNT];         /* touched bytes of spans that a heap keeps without a live block */
    size_t foreign_empty_bytes[TIER_COUNT]; /* the part of them that another thread's heap keeps */
    size_t free_blocks, large_blocks;
    size_t metadata_bytes;
    struct run_totals runs;
    uint64_t refill_count, retire_count, remote_count, nested_count;
    uint64_t allocation_count; /* 0 but in the counting library (heap.h) */
    size_t heap_count, bound_count;
};

/* The same by class of the tiny and the mid tier. */
struct census_class {
    uint32_t spans;
    size_t live_blocks, free_blocks, free_bytes; /* bytes: those that were not given back */
    uint64_t refill_count, allocation_count;
    unsigned state; /* enum class_state, the highest of all heaps */
};

/* Takes no lock and is no operation: a handler may ask, whatever it has interrupted, or jump out of the answer. */
tide_hidden void census_take(struct census *census);
/* For the keeper: also by class, and by heap, in the heaps' `seen`. */
tide_hidden tide_cold void census_take_detailed(struct census *census, struct census_class classes[CLASSES]);
/* What each slice of a region is used for, from its first on: one byte of enum census_use each, `count` at a time, fewer where the region ends. Returns how many. */
enum census_use { USE_CLEAN, USE_DIRTY, USE_TINY, USE_MID, USE_LARGE, USE_OTHER };
struct census_cursor { /* zero at first */
    size_t slice;
    size_t left; /* slices of the span that the last call was in */
    uint8_t use;
};
tide_hidden tide_cold size_t census_slices(const struct region *region, struct census_cursor *cursor, uint8_t *uses,
                                           size_t count);

#endif
