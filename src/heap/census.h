/* census.h - count what there is: a walk over all descriptors. Other threads go on meanwhile, so what they change is a moment's
 * estimate. */
#ifndef TIDE_HEAP_CENSUS_H
#define TIDE_HEAP_CENSUS_H

#include "heap/heap.h"
#include "span/run.h"

struct census {
    size_t live_bytes[TIER_COUNT];
    size_t free_bytes[TIER_COUNT]; /* free blocks in spans with a live one (touched ones, for tiny spans) */
    size_t active_bytes;           /* spans with a live block */
    size_t empty_bytes;            /* touched bytes of spans that a heap keeps without a live block */
    size_t foreign_empty_bytes;    /* the part of them that another thread's heap keeps */
    size_t free_blocks, large_blocks;
    size_t metadata_bytes;
    struct run_totals runs;
    uint64_t refill_count, retire_count, remote_count, nested_count;
    size_t heap_count, bound_count;
};

tide_hidden void census_take(struct census *census);

#endif
