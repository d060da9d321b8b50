#include "span/run.h"

struct os_lock run_lock;
static size_t run_returned_bytes; /* run lock */

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
    uint32_t bin = CHUNK_NO_BIN;
    if (chunk->free != 0) bin = bins_index(bits_longest_run(chunk->free), (chunk->free & chunk_dirty(chunk)) != 0);
    if (bin == chunk->bin) return;
    if (chunk->bin != CHUNK_NO_BIN) bins_remove(&region->bins, chunk->bin, index);
    if (bin != CHUNK_NO_BIN) bins_insert(&region->bins, bin, index);
    chunk->bin = bin;
}

static void range_take(struct region *region, size_t slice, size_t count) {
    for (struct range range = {.slice = slice, .left = count}; range_next(&range);) {
        dcheck((region->chunks[range.chunk].free & range.mask) == range.mask);
        region->chunks[range.chunk].free &= ~range.mask;
        chunk_rebin(region, range.chunk);
    }
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

/* Where in this chunk a run fits, dirty slices preferred; NO_SLICE: nowhere. */
static size_t chunk_find(const struct chunk *chunk, unsigned count, uint32_t aligned) {
    uint32_t starts = bits_run_starts(chunk->free & chunk_dirty(chunk), count) & aligned;
    if (starts == 0) starts = bits_run_starts(chunk->free, count) & aligned;
    return starts == 0 ? NO_SLICE : bits_lowest(starts);
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
            size_t slice = chunk_find(&region->chunks[chunk], (unsigned)count, aligned);
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

/* Give a run back; its first `marked` slices are in `state` now. */
static void release(struct span *head, size_t slices, size_t marked, enum run_state state) {
    struct region *region = region_of_span(head);
    size_t first = region_slice(region, head);
    os_lock_take(&run_lock);
    memset((void *)head, 0, sizeof *head);
    range_mark(region, first, marked, state);
    range_release(region, first, slices);
    os_lock_drop(&run_lock);
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
    os_lock_drop(&run_lock);
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

/* Purge the ones of `mask`, a run at a time. Returns those that the system took back. */
static uint32_t chunk_purge(const struct region *region, size_t index, uint32_t mask) {
    uint32_t purged = 0;
    while (mask != 0) {
        unsigned first = bits_lowest(mask);
        uint32_t rest = ~(mask >> first);
        unsigned count = rest == 0 ? CHUNK_SLICES : bits_lowest(rest);
        count = (unsigned)size_min(count, CHUNK_SLICES - first);
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

static void region_purge(struct region *region, size_t *returned_bytes, size_t *kept_bytes) {
    for (size_t i = 0; i < region_top(region) / CHUNK_BYTES; i++) {
        struct chunk *chunk = &region->chunks[i];
        os_lock_take(&run_lock);
        uint32_t mask = chunk->free & chunk_dirty(chunk);
        chunk->free &= ~mask;
        chunk->purging |= mask;
        if (mask != 0) chunk_rebin(region, i);
        os_lock_drop(&run_lock);
        if (mask == 0) continue;

        uint32_t purged = chunk_purge(region, i, mask);

        os_lock_take(&run_lock);
        chunk->purging &= ~mask;
        chunk->free |= mask;
        chunk_set_dirty(chunk, chunk_dirty(chunk) & ~purged);
        chunk_rebin(region, i);
        run_returned_bytes += bits_count(purged) * SLICE_BYTES;
        os_lock_drop(&run_lock);
        *returned_bytes += bits_count(purged) * SLICE_BYTES;
        *kept_bytes += bits_count(mask & ~purged) * SLICE_BYTES;
    }
}

size_t run_purge(size_t *kept_bytes) {
    size_t returned_bytes = 0;
    for (struct region *region = &region_main; region != NULL; region = region->next)
        region_purge(region, &returned_bytes, kept_bytes);
    return returned_bytes;
}

void run_totals(struct run_totals *totals) {
    *totals = (struct run_totals){0};
    os_lock_take(&run_lock);
    for (struct region *region = &region_main; region != NULL; region = region->next) {
        for (size_t i = 0; i < region_top(region) / CHUNK_BYTES; i++)
            totals->dirty_bytes += bits_count(region->chunks[i].free & chunk_dirty(&region->chunks[i])) * SLICE_BYTES;
        totals->committed_bytes += region_top(region);
        totals->reserved_bytes += region->size_bytes;
        totals->metadata_bytes += region->metadata_bytes;
    }
    totals->returned_bytes = run_returned_bytes;
    os_lock_drop(&run_lock);
}

void run_forked(void) {
    for (struct region *region = &region_main; region != NULL; region = region->next)
        for (size_t i = 0; i < region_top(region) / CHUNK_BYTES; i++) {
            region->chunks[i].free |= region->chunks[i].purging;
            region->chunks[i].purging = 0;
            chunk_rebin(region, i);
        }
}

/* The masks of a chunk change in single stores and tell the truth; the bins can be made from them. */
void run_repair(void) {
    if (!os_lock_is_mine(&run_lock)) return;
    for (struct region *region = &region_main; region != NULL; region = region->next) {
        memset(region->bins.words, 0, region->words_committed);
        memset(region->bins.summary, 0, region->summary_committed);
        memset(region->bins.count, 0, sizeof region->bins.count);
        region->bins.occupied = 0;
        for (size_t i = 0; i < region_top(region) / CHUNK_BYTES; i++) {
            region->chunks[i].bin = CHUNK_NO_BIN;
            chunk_rebin(region, i);
        }
    }
    os_lock_abandon(&run_lock);
}

static bool region_validate(const struct region *region) {
    uint32_t count[BIN_COUNT] = {0};
    for (size_t i = 0; i < region_top(region) / CHUNK_BYTES; i++) {
        const struct chunk *chunk = &region->chunks[i];
        if ((chunk->free & chunk->purging) != 0) return false;
        for (unsigned bit = 0; bit < CHUNK_SLICES; bit++)
            if ((chunk->free >> bit & 1) != 0 && region->spans[i * CHUNK_SLICES + bit].kind != SPAN_FREE) return false;
        if (chunk->free == 0) {
            if (chunk->bin != CHUNK_NO_BIN) return false;
            continue;
        }
        if (chunk->bin != bins_index(bits_longest_run(chunk->free), (chunk->free & chunk_dirty(chunk)) != 0))
            return false;
        if ((*bins_word(&region->bins, i / 64, chunk->bin) >> (i % 64) & 1) == 0) return false;
        count[chunk->bin]++;
    }
    return memcmp(count, region->bins.count, sizeof count) == 0;
}

bool run_validate(void) {
    bool valid = true;
    os_lock_take(&run_lock);
    for (struct region *region = &region_main; region != NULL && region->base != 0; region = region->next)
        valid = valid && region_validate(region);
    os_lock_drop(&run_lock);
    return valid;
}
