#include "span/run.h"

#include "span/guard.h"

struct os_lock run_lock = OS_LOCK(RANK_RUN);
_Atomic uint32_t run_grown;
_Atomic size_t run_keep_bytes = SIZE_MAX;
bool run_was_repaired;
static struct { /* run lock */
    struct run_flow flow;
    uint64_t growth_mark;
    size_t look_at_bytes;        /* when dirty bytes reach this, the limit is looked at */
    uint64_t excess_clean_bytes; /* flow.clean_taken_bytes at that time */
    size_t excess_bytes;         /* what went back then */
    size_t returned_bytes;
} runs = {.growth_mark = RUN_GROWTH_STEP_BYTES, .look_at_bytes = SIZE_MAX};

/* Walk a range of slices chunk by chunk: the part of each chunk as a mask. */
struct range {
    size_t slice, left;
    size_t chunk;
    uint32_t mask;
};

static bool range_next(struct range *range) {
    if (range->left == 0) return false;
    unsigned first = (unsigned)(range->slice % CHUNK_SLICES);
    unsigned count = (unsigned)size_min(CHUNK_SLICES - first, range->left);
    range->chunk = range->slice / CHUNK_SLICES;
    range->mask = bits_range(first, count);
    range->slice += count;
    range->left -= count;
    return true;
}

static uint32_t chunk_dirty(const struct chunk *chunk) {
    return atomic_load_explicit(&chunk->dirty, memory_order_relaxed);
}

static void chunk_set_dirty(struct chunk *chunk, uint32_t dirty) {
    atomic_store_explicit(&chunk->dirty, dirty, memory_order_relaxed);
}

/* Put a chunk whose masks have changed into its right bin. */
static void chunk_rebin(struct region *region, size_t index) {
    struct chunk *chunk = &region->chunks[index];
    uint16_t bin = CHUNK_NO_BIN;
    if (chunk->free != 0)
        bin = (uint16_t)bins_index(bits_longest_run(chunk->free), (chunk->free & chunk_dirty(chunk)) != 0);
    if (bin == chunk->bin) return;
    if (chunk->bin != CHUNK_NO_BIN) bins_remove(&region->bins, chunk->bin, index);
    if (bin != CHUNK_NO_BIN) bins_insert(&region->bins, bin, index);
    chunk->bin = bin;
}

/* Never back from surely to maybe. */
static void run_grown_set(enum run_growth growth) {
    if (load_relaxed(&run_grown) < growth) atomic_store_explicit(&run_grown, growth, memory_order_relaxed);
}

/* `count` slices were taken, of which `dirty` were. */
static void flow_take(size_t count, size_t dirty) {
    struct run_flow *flow = &runs.flow;
    flow->dirty_bytes -= dirty * SLICE_BYTES;
    flow->dirty_low_bytes = size_min(flow->dirty_low_bytes, flow->dirty_bytes);
    flow->taken_bytes += count * SLICE_BYTES;
    flow->clean_taken_bytes += (count - dirty) * SLICE_BYTES;
    if (unlikely(flow->clean_taken_bytes >= runs.growth_mark)) run_grown_set(RUN_GROWN_MAYBE);
}

static void range_take(struct region *region, size_t slice, size_t count) {
    size_t dirty = 0;
    for (struct range range = {.slice = slice, .left = count}; range_next(&range);) {
        struct chunk *chunk = &region->chunks[range.chunk];
        dcheck((chunk->free & range.mask) == range.mask);
        chunk->free &= ~range.mask;
        atomic_store_explicit(&chunk->described, true, memory_order_relaxed);
        dirty += bits_count(chunk_dirty(chunk) & range.mask);
        chunk_rebin(region, range.chunk);
    }
    flow_take(count, dirty);
}

static void range_mark(struct region *region, size_t slice, size_t count, enum run_state state) {
    for (struct range range = {.slice = slice, .left = count}; range_next(&range);) {
        struct chunk *chunk = &region->chunks[range.chunk];
        chunk_set_dirty(chunk, state == RUN_DIRTY ? chunk_dirty(chunk) | range.mask : chunk_dirty(chunk) & ~range.mask);
    }
}

/* The slices are marked already, and that is done before anybody can take them, whatever jumps out of here. */
static void range_release(struct region *region, size_t slice, size_t count) {
    atomic_signal_fence(memory_order_seq_cst);
    for (struct range range = {.slice = slice, .left = count}; range_next(&range);) {
        struct chunk *chunk = &region->chunks[range.chunk];
        dcheck((chunk->free & range.mask) == 0);
        chunk->free |= range.mask;
        runs.flow.dirty_bytes += bits_count(chunk_dirty(chunk) & range.mask) * SLICE_BYTES;
        chunk_rebin(region, range.chunk);
    }
}

static bool range_is_free(const struct region *region, size_t slice, size_t count) {
    if ((slice + count) * SLICE_BYTES > region_top(region)) return false;
    for (struct range range = {.slice = slice, .left = count}; range_next(&range);)
        if ((region->chunks[range.chunk].free & range.mask) != range.mask) return false;
    return true;
}

/* --- finding ------------------------------------------------------------------------------------------------------ */

#define NO_SLICE SIZE_MAX

/* The bits at multiples of an alignment of 1, 2, 4, 8, 16, 32 slices. */
static uint32_t alignment_mask(size_t alignment) {
    static const uint32_t masks[] = {0xffffffffu, 0x55555555u, 0x11111111u, 0x01010101u, 0x00010001u, 0x00000001u};
    return masks[bits_lowest(alignment)];
}

/* Where in this chunk a run fits, dirty slices preferred, then low ones; NO_SLICE: nowhere. With guards on any place, but
 * not where address space is scarce: gaps are left between runs then. */
#define CHANCE_MIN_BYTES (16 * GIB)
static size_t chunk_find(const struct region *region, const struct chunk *chunk, unsigned count, uint32_t aligned) {
    uint32_t starts = bits_run_starts(chunk->free & chunk_dirty(chunk), count) & aligned;
    if (starts == 0) starts = bits_run_starts(chunk->free, count) & aligned;
    if (starts == 0) return NO_SLICE;
    return region->size_bytes >= CHANCE_MIN_BYTES ? guard_choose(starts) : bits_lowest(starts);
}

/* A run of up to a chunk: best fit over the bins, those with dirty memory first. */
static size_t find_in_chunk(const struct region *region, size_t count, size_t alignment) {
    const struct bins *bins = &region->bins;
    uint64_t fitting = bins->occupied & (UINT32_MAX << (count - 1)) * 0x100000001u;
    uint32_t aligned = alignment_mask(alignment);
    for (unsigned half = 0; half < 2; half++) {
        uint64_t candidates = half == 0 ? fitting >> 32 << 32 : fitting & UINT32_MAX;
        for (; candidates != 0; candidates &= candidates - 1) {
            size_t chunk = bins_lowest(bins, bits_lowest(candidates));
            size_t slice = chunk_find(region, &region->chunks[chunk], (unsigned)count, aligned);
            if (slice != NO_SLICE) return chunk * CHUNK_SLICES + slice;
        }
    }
    return NO_SLICE;
}

/* The lowest run of `count` free slices whatever chunks it crosses, its start a multiple of `alignment` slices. Where there is none, *start is where
 * the free slices at the top of the region begin, aligned: the place to grow from. */
static bool find_across(const struct region *region, size_t count, size_t alignment, size_t *start) {
    size_t top = region_top(region) / SLICE_BYTES;
    size_t from = 0; /* slices from .. at - 1 are free, from is aligned */
    for (size_t at = 0; at < top;) {
        uint32_t left = region->chunks[at / CHUNK_SLICES].free >> (at % CHUNK_SLICES);
        size_t room = CHUNK_SLICES - at % CHUNK_SLICES;
        size_t length = left == 0 ? 0 : size_min(room, bits_lowest(~(uint64_t)left));
        if (at + length >= from + count && length > 0) {
            *start = from;
            return true;
        }
        at += length;
        if (length == room) continue;
        left = length < 32 ? left >> length : 0; /* the slices in use that end the run */
        at += left == 0 ? room - length : bits_lowest(left);
        from = size_round_up(at, alignment);
        if (from > at) at = size_min(from, top);
    }
    *start = from;
    return false;
}

/* Longer runs than this are placed across chunks: two of them do not fit one. */
#define WITHIN_CHUNK_MAX (CHUNK_SLICES / 2)
/* Runs from here on start at a chunk's boundary while that costs address space only: the kernel moves them in whole page tables then. */
#define CHUNK_ALIGNED_MIN (8 * CHUNK_SLICES)

static size_t region_find(struct region *region, size_t slices, size_t alignment, bool grow) {
    size_t start;
    if (slices <= WITHIN_CHUNK_MAX && alignment <= CHUNK_SLICES) {
        start = find_in_chunk(region, slices, alignment);
        if (start != NO_SLICE || !grow) return start;
    }
    size_t preferred = slices >= CHUNK_ALIGNED_MIN ? size_max(alignment, CHUNK_SLICES) : alignment;
    if (find_across(region, slices, preferred, &start)) return start;
    if (!grow) return NO_SLICE;
    for (;;) {
        size_t end = start + slices, top = region_top(region) / SLICE_BYTES;
        if (end <= region->size_bytes / SLICE_BYTES &&
            (end <= top || region_grow(region, (end - top + CHUNK_SLICES - 1) / CHUNK_SLICES)))
            return start;
        if (preferred == alignment) return NO_SLICE;
        preferred = alignment;
        if (find_across(region, slices, alignment, &start)) return start;
    }
}

/* How much address space a run that grows gets. */
#define ROOM_FACTOR 4

/* --- the public part ---------------------------------------------------------------------------------------------- */

/* A region's base is aligned to a chunk, and only by luck to more. */
static bool region_is_aligned(const struct region *region, size_t alignment) {
    return region->base % (alignment * SLICE_BYTES) == 0;
}

static struct span *run_take_locked(size_t slices, size_t alignment) {
    for (unsigned grow = 0; grow < 2; grow++) {
        for (struct region *region = &region_main; region != NULL; region = region->next) {
            if (region->base == 0) continue;
            /* A coarse alignment is made within a longer run, whose ends are given back at once. */
            bool coarse = !region_is_aligned(region, alignment);
            size_t wanted = coarse ? slices + alignment : slices;
            size_t slice = region_find(region, wanted, coarse ? 1 : alignment, grow != 0);
            if (slice == NO_SLICE) continue;
            if (coarse) {
                uintptr_t address = region->base + slice * SLICE_BYTES;
                slice += (size_round_up(address, alignment * SLICE_BYTES) - address) / SLICE_BYTES;
            }
            range_take(region, slice, slices);
            return &region->spans[slice];
        }
    }
    return NULL;
}

struct span *run_take(size_t slices, size_t alignment) {
    if (slices > SIZE_MAX / SLICE_BYTES / 4 || alignment > SIZE_MAX / SLICE_BYTES / 4) return NULL;
    os_lock_take(&run_lock);
    struct span *head = run_take_locked(slices, alignment);
    if (head == NULL) {
        struct region *region = region_add((slices + alignment) * SLICE_BYTES);
        if (region != NULL) {
            head = run_take_locked(slices, alignment);
            if (head == NULL) region_drop(region);
        }
    }
    os_lock_drop(&run_lock);
    if (head != NULL) head->slices = (uint32_t)size_min(slices, UINT32_MAX);
    return head;
}

struct span *run_take_roomy(size_t slices) {
    struct region *region = &region_main;
    struct span *head = NULL;
    if (slices > SIZE_MAX / SLICE_BYTES / ROOM_FACTOR) return NULL;
    os_lock_take(&run_lock);
    size_t start = region->base != 0 ? region_find(region, ROOM_FACTOR * slices, 1, false) : NO_SLICE;
    if (start != NO_SLICE) {
        range_take(region, start, slices);
        head = &region->spans[start];
        head->slices = (uint32_t)size_min(slices, UINT32_MAX);
    }
    os_lock_drop(&run_lock);
    return head != NULL ? head : run_take(slices, 1);
}

/* Free memory has reached the point where the limit of run_keep_at_most is looked at. Slices may be resident in small part only, so
 * that is measured. */
static tide_cold void excess_purge(void) {
    size_t resident = run_resident_bytes();
    os_lock_take(&run_lock);
    size_t keep_bytes = load_relaxed(&run_keep_bytes);
    size_t dirty = runs.flow.dirty_bytes;
    /* What went back the last time, and was taken again since. */
    bool regretted =
        runs.excess_bytes != 0 && 4 * (runs.flow.clean_taken_bytes - runs.excess_clean_bytes) >= runs.excess_bytes;
    bool grown = resident >= RUN_GROWTH_STEP_BYTES ||
                 (resident > keep_bytes && regretted && runs.flow.clean_taken_bytes >= RUN_GROWTH_STEP_BYTES);
    runs.excess_bytes = resident > keep_bytes ? dirty - dirty / 2 : 0; /* half, so not at every free again */
    runs.excess_clean_bytes = runs.flow.clean_taken_bytes;
    runs.look_at_bytes =
        resident > keep_bytes ? dirty / 2 + keep_bytes / 2 : dirty + size_max(keep_bytes - resident, keep_bytes / 4);
    struct run_purge purge = {.limit_bytes = runs.excess_bytes};
    os_lock_drop(&run_lock);
    if (grown) run_grown_set(RUN_GROWN_SURELY);
    while (run_purge_step(&purge)) {}
}

void run_keep_at_most(size_t bytes) {
    os_lock_take(&run_lock);
    atomic_store_explicit(&run_keep_bytes, bytes, memory_order_relaxed);
    runs.look_at_bytes = bytes == SIZE_MAX ? SIZE_MAX : bytes / 4;
    os_lock_drop(&run_lock);
}

/* Give a run back; its first `marked` slices are in `state` now. */
static void release(struct span *head, size_t slices, size_t marked, enum run_state state) {
    struct region *region = region_of_span(head);
    size_t first = region_slice(region, head);
    os_lock_take(&run_lock);
    memset((void *)head, 0, sizeof *head);
    range_mark(region, first, marked, state);
    range_release(region, first, slices);
    bool excess = runs.flow.dirty_bytes > runs.look_at_bytes;
    os_lock_drop(&run_lock);
    if (unlikely(excess)) excess_purge();
}

void run_release(struct span *head, size_t slices, enum run_state state) { release(head, slices, slices, state); }

void run_release_front(struct span *head, size_t slices, size_t touched) { release(head, slices, touched, RUN_DIRTY); }

bool run_extend(struct span *head, size_t slices, size_t more) {
    struct region *region = region_of_span(head);
    size_t end = region_slice(region, head) + slices;
    size_t missing = 0;
    bool done = false;
    os_lock_take(&run_lock);
    if (more <= region->size_bytes / SLICE_BYTES && (end + more) * SLICE_BYTES > region_top(region))
        missing = (end + more + CHUNK_SLICES - 1) / CHUNK_SLICES - region_top(region) / CHUNK_BYTES;
    if (missing == 0 ||
        (range_is_free(region, end, region_top(region) / SLICE_BYTES - end) && region_grow(region, missing)))
        done = range_is_free(region, end, more);
    if (done) range_take(region, end, more);
    os_lock_drop(&run_lock);
    return done;
}

void run_shorten(struct span *head, size_t slices, size_t keep, enum run_state state) {
    struct region *region = region_of_span(head);
    os_lock_take(&run_lock);
    range_mark(region, region_slice(region, head) + keep, slices - keep, state);
    range_release(region, region_slice(region, head) + keep, slices - keep);
    bool excess = runs.flow.dirty_bytes > runs.look_at_bytes;
    os_lock_drop(&run_lock);
    if (unlikely(excess)) excess_purge();
}

static bool slice_has(const struct span *span, size_t index, bool (*test)(const struct chunk *, uint32_t)) {
    const struct region *region = region_of_span(span);
    size_t slice = region_slice(region, span) + index;
    return test(&region->chunks[slice / CHUNK_SLICES], bits_range(slice % CHUNK_SLICES, 1));
}

static bool test_dirty(const struct chunk *chunk, uint32_t bit) { return (chunk_dirty(chunk) & bit) != 0; }
static bool test_was_used(const struct chunk *chunk, uint32_t bit) {
    return (chunk->free & chunk_dirty(chunk) & bit) != 0;
}

bool run_slice_is_dirty(const struct span *head, size_t index) { return slice_has(head, index, test_dirty); }

bool run_was_used(const struct span *span) {
    os_lock_take(&run_lock);
    bool used = slice_has(span, 0, test_was_used);
    os_lock_drop(&run_lock);
    return used;
}

/* How many ones follow the lowest one of a mask, itself included. */
static unsigned mask_run(uint32_t mask) {
    unsigned first = bits_lowest(mask);
    uint32_t rest = ~(mask >> first);
    unsigned count = rest == 0 ? CHUNK_SLICES : bits_lowest(rest);
    return (unsigned)size_min(count, CHUNK_SLICES - first);
}

/* Purge the ones of `mask`, a run at a time. Returns those that the system took back. */
static uint32_t chunk_purge(const struct region *region, size_t index, uint32_t mask) {
    uint32_t purged = 0;
    while (mask != 0) {
        unsigned first = bits_lowest(mask), count = mask_run(mask);
        char *start = (char *)region->base + index * CHUNK_BYTES + first * SLICE_BYTES;
        if (os_purge(start, count * SLICE_BYTES) == 0) {
            purged |= bits_range(first, count);
        } else if (count > 1) { /* one locked page spoils the whole call: find the slices without */
            for (unsigned i = 0; i < count; i++)
                if (os_purge(start + i * SLICE_BYTES, SLICE_BYTES) == 0) purged |= bits_range(first + i, 1);
        }
        mask &= ~bits_range(first, count);
    }
    return purged;
}

static size_t chunk_resident(const struct region *region, size_t index, uint32_t mask) {
    size_t bytes = 0;
    while (mask != 0) {
        unsigned first = bits_lowest(mask), count = mask_run(mask);
        char *start = (char *)region->base + index * CHUNK_BYTES + first * SLICE_BYTES;
        bytes += os_resident_bytes(start, count * SLICE_BYTES);
        mask &= ~bits_range(first, count);
    }
    return bytes;
}

/* The most of `mask` that `limit_bytes` allow, from the top down; at least one slice. */
static uint32_t mask_limit(uint32_t mask, size_t limit_bytes) {
    while (bits_count(mask) > 1 && bits_count(mask) * SLICE_BYTES > limit_bytes) mask &= mask - 1;
    return mask;
}

/* A chunk that is all free and clean needs no descriptors: they are all zero. They fill a page, where pages are small. */
static bool descriptors_purge(const struct region *region, size_t index) {
    size_t bytes = CHUNK_SLICES * sizeof(struct span);
    return bytes == os_page_bytes && os_purge(&region->spans[index * CHUNK_SLICES], bytes) == 0;
}

static void chunk_give_back(struct region *region, size_t index, struct run_purge *purge) {
    struct chunk *chunk = &region->chunks[index];
    bool all = purge->limit_bytes == SIZE_MAX;
    os_lock_take(&run_lock);
    uint32_t before = chunk->free;
    uint32_t mask = mask_limit(before & chunk_dirty(chunk), purge->limit_bytes - purge->purged_bytes);
    bool whole = all && before == UINT32_MAX && atomic_load_explicit(&chunk->described, memory_order_relaxed);
    uint32_t taken = whole ? before : mask;
    chunk->free &= ~taken;
    chunk->purging |= taken;
    runs.flow.dirty_bytes -= bits_count(mask) * SLICE_BYTES;
    runs.flow.dirty_low_bytes = size_min(runs.flow.dirty_low_bytes, runs.flow.dirty_bytes);
    if (taken != 0) chunk_rebin(region, index);
    os_lock_drop(&run_lock);
    if (taken == 0) return;

    size_t resident = chunk_resident(region, index, mask);
    uint32_t purged = chunk_purge(region, index, mask);
    if (purged != mask) {
        size_t left = chunk_resident(region, index, mask);
        resident = resident > left ? resident - left : 0;
    }
    bool described = !whole || purged != mask || !descriptors_purge(region, index);

    os_lock_take(&run_lock);
    chunk->purging &= ~taken;
    chunk->free |= taken;
    atomic_store_explicit(&chunk->described, described, memory_order_relaxed);
    chunk_set_dirty(chunk, chunk_dirty(chunk) & ~purged);
    chunk_rebin(region, index);
    runs.flow.dirty_bytes += bits_count(mask & ~purged) * SLICE_BYTES;
    runs.returned_bytes += resident;
    os_lock_drop(&run_lock);
    purge->purged_bytes += bits_count(purged) * SLICE_BYTES;
    purge->returned_bytes += resident;
    purge->kept_bytes += bits_count(mask & ~purged) * SLICE_BYTES;
}

static bool chunk_may_give(const struct chunk *chunk, bool all) {
    return chunk_dirty(chunk) != 0 || (all && atomic_load_explicit(&chunk->described, memory_order_relaxed));
}

bool run_purge_step(struct run_purge *purge) {
    bool all = purge->limit_bytes == SIZE_MAX;
    if (purge->region == NULL) {
        purge->region = &region_main;
        purge->chunks_left = region_seen(&region_main) / CHUNK_BYTES;
    }
    while (purge->purged_bytes < purge->limit_bytes) {
        while (purge->chunks_left > 0) {
            size_t index = --purge->chunks_left;
            if (!chunk_may_give(&purge->region->chunks[index], all)) continue;
            chunk_give_back(purge->region, index, purge);
            return true;
        }
        struct region *next = __atomic_load_n(&purge->region->next, __ATOMIC_ACQUIRE);
        if (next == NULL) return false;
        purge->region = next;
        purge->chunks_left = region_seen(next) / CHUNK_BYTES;
    }
    return false;
}

size_t run_purge(size_t *kept_bytes) {
    struct run_purge purge = {.limit_bytes = SIZE_MAX};
    while (run_purge_step(&purge)) {}
    *kept_bytes += purge.kept_bytes;
    return purge.returned_bytes;
}

struct run_flow run_flow(bool reset) {
    os_lock_take(&run_lock);
    struct run_flow flow = runs.flow;
    if (reset) runs.flow.dirty_low_bytes = runs.flow.dirty_bytes;
    os_lock_drop(&run_lock);
    return flow;
}

void run_set_growth_mark(uint64_t clean_taken_bytes) {
    os_lock_take(&run_lock);
    runs.growth_mark = clean_taken_bytes;
    bool reached = runs.flow.clean_taken_bytes >= clean_taken_bytes;
    atomic_store_explicit(&run_grown, reached ? RUN_GROWN_MAYBE : RUN_NOT_GROWN, memory_order_relaxed);
    os_lock_drop(&run_lock);
}

void run_count_returned(size_t bytes) {
    os_lock_take(&run_lock);
    runs.returned_bytes += bytes;
    os_lock_drop(&run_lock);
}

size_t run_resident_bytes(void) {
    size_t bytes = 0;
    for (struct region *region = &region_main; region != NULL;
         region = __atomic_load_n(&region->next, __ATOMIC_ACQUIRE))
        if (region_seen(region) != 0) bytes += os_resident_bytes((void *)region->base, region_top(region));
    return bytes;
}

tide_racy void run_totals(struct run_totals *totals) {
    *totals = (struct run_totals){.returned_bytes = runs.returned_bytes};
    for (struct region *region = &region_main; region != NULL;
         region = __atomic_load_n(&region->next, __ATOMIC_ACQUIRE)) {
        for (size_t i = 0; i < region_seen(region) / CHUNK_BYTES; i++)
            totals->dirty_bytes += bits_count(region->chunks[i].free & chunk_dirty(&region->chunks[i])) * SLICE_BYTES;
        totals->committed_bytes += region_top(region);
        totals->reserved_bytes += region->size_bytes;
        totals->metadata_bytes += region->metadata_bytes;
    }
}

/* Make the figure of dirty bytes from the masks. Run lock. */
static void flow_count(void) {
    size_t slices = 0;
    for (struct region *region = &region_main; region != NULL; region = region->next)
        for (size_t i = 0; i < region_top(region) / CHUNK_BYTES; i++)
            slices += bits_count(region->chunks[i].free & chunk_dirty(&region->chunks[i]));
    runs.flow.dirty_bytes = slices * SLICE_BYTES;
    runs.flow.dirty_low_bytes = size_min(runs.flow.dirty_low_bytes, runs.flow.dirty_bytes);
}

void run_forked(void) {
    for (struct region *region = &region_main; region != NULL; region = region->next)
        for (size_t i = 0; i < region_top(region) / CHUNK_BYTES; i++) {
            region->chunks[i].free |= region->chunks[i].purging;
            region->chunks[i].purging = 0;
            chunk_rebin(region, i);
        }
    flow_count();
}

/* The masks of a chunk change in single stores and tell the truth; the bins can be made from them. */
void run_repair(void) {
    if (!os_lock_is_mine(&run_lock)) return;
    run_was_repaired = true;
    for (struct region *region = &region_main; region != NULL; region = region->next) {
        if (region->base == 0) continue; /* dropped: it has no arrays */
        memset(region->bins.words, 0, region->words_committed);
        memset(region->bins.summary, 0, region->summary_committed);
        memset(region->bins.count, 0, sizeof region->bins.count);
        region->bins.occupied = 0;
        for (size_t i = 0; i < region_top(region) / CHUNK_BYTES; i++) {
            region->chunks[i].bin = CHUNK_NO_BIN;
            chunk_rebin(region, i);
        }
    }
    flow_count();
    os_lock_abandon(&run_lock);
}
