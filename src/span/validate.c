/* validate.c - what must hold for the page runs. */
#include "span/run.h"

#define PART_CHUNKS 64 /* looked at with the lock held once, some 30 us */

tide_cold static bool is_zero(const struct span *span) {
    const aliasing_word *words = (const aliasing_word *)span;
    aliasing_word all = 0;
    for (size_t i = 0; i < sizeof *span / sizeof *words; i++) all |= words[i];
    return all == 0;
}

tide_cold static const char *chunk_validate(const struct region *region, size_t index) {
    const struct chunk *chunk = &region->chunks[index];
    uint32_t dirty = atomic_load_explicit(&chunk->dirty, memory_order_relaxed);
    invariant((chunk->free & chunk->purging) == 0, "chunk: a slice is free and on its way back");
    bool described = atomic_load_explicit(&chunk->described, memory_order_relaxed);
    invariant(described || ((chunk->free | chunk->purging) == UINT32_MAX && dirty == 0), "chunk: used, not described");
    for (uint32_t rest = described ? chunk->free : 0; rest != 0; rest &= rest - 1)
        invariant(is_zero(&region->spans[index * CHUNK_SLICES + bits_lowest(rest)]), "chunk: a free slice has a span");
    unsigned bin = CHUNK_NO_BIN;
    if (chunk->free != 0) bin = bins_index(bits_longest_run(chunk->free), (chunk->free & dirty) != 0);
    invariant(chunk->bin == bin, "chunk: in the wrong bin");
    invariant(bin == CHUNK_NO_BIN || (*bins_word(&region->bins, index / 64, bin) >> (index % 64) & 1) != 0,
              "chunk: its bin does not know it");
    return NULL;
}

#ifdef TIDE_DEBUG
/* Together with chunk_validate: each bin holds its chunks and no others. */
static const char *bins_validate(const struct region *region, size_t chunks) {
    const struct bins *bins = &region->bins;
    size_t groups = (chunks + 63) / 64;
    for (unsigned bin = 0; bin < BIN_COUNT; bin++) {
        size_t members = 0, count = 0;
        for (size_t i = 0; i < chunks; i++) count += region->chunks[i].bin == bin;
        for (size_t group = 0; group < groups; group++) {
            uint64_t word = *bins_word(bins, group, bin);
            members += bits_count(word);
            bool in_summary = (bins->summary[group / 64 * BIN_COUNT + bin] >> (group % 64) & 1) != 0;
            invariant(in_summary == (word != 0), "bins: summary");
        }
        invariant(members == count && bins->count[bin] == count, "bins: count");
        invariant((bins->occupied >> bin & 1) == (count != 0), "bins: occupied");
    }
    return NULL;
}

static const char *region_validate(const struct region *region, size_t *dirty_slices) {
    size_t top = region_top(region), chunks = top / CHUNK_BYTES;
    invariant(top % CHUNK_BYTES == 0 && top <= region->size_bytes, "region: top");
    invariant(region->spans_committed >= chunks * CHUNK_SLICES * sizeof(struct span) &&
                  region->chunks_committed >= chunks * sizeof(struct chunk),
              "region: descriptors are missing");
    for (size_t i = 0; i < chunks; i++) {
        validated(chunk_validate(region, i));
        *dirty_slices += bits_count(region->chunks[i].free & region->chunks[i].dirty);
    }
    return bins_validate(region, chunks);
}

static const char *all_validate(void) {
    size_t dirty_slices = 0;
    for (const struct region *region = &region_main; region != NULL; region = region->next)
        if (region->base != 0) validated(region_validate(region, &dirty_slices));
    struct run_flow flow = run_flow(false);
    invariant(flow.dirty_bytes == dirty_slices * SLICE_BYTES, "flow: dirty bytes");
    invariant(flow.dirty_low_bytes <= flow.dirty_bytes, "flow: low mark");
    invariant(flow.clean_taken_bytes <= flow.taken_bytes, "flow: more clean bytes than bytes");
    return NULL;
}

const char *run_validate(void) {
    os_lock_take(&run_lock);
    const char *broken = all_validate();
    os_lock_drop(&run_lock);
    return broken;
}
#endif

const char *run_validate_part(size_t *next) {
    const char *broken = NULL;
    size_t from = *next, before = 0;
    *next = 0;
    os_lock_take(&run_lock);
    for (const struct region *region = &region_main; region != NULL; region = region->next) {
        size_t chunks = region_top(region) / CHUNK_BYTES;
        size_t end = size_min(from - before + PART_CHUNKS, chunks);
        for (size_t i = from - before; i < end && broken == NULL; i++) broken = chunk_validate(region, i);
        if (from - before < chunks) {
            *next = before + end;
            break;
        }
        before += chunks;
    }
    os_lock_drop(&run_lock);
    return broken;
}
