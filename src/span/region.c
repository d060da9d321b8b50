#include "span/region.h"

#include "os/os.h"
#include "span/meta.h"

/* In front of the metadata and between it and the blocks lies at least a METADATA_STEP that is never committed: no overflow out of blocks of ours, or out
 * of somebody else's mapping below, walks into a descriptor. Above the blocks there is no metadata. */

/* Smallest reserve that is worth having: one chunk of blocks with its metadata. */
#define REGION_MIN_BYTES (2 * CHUNK_BYTES)
/* Commit in steps of an eighth of what is committed: few system calls, and at most an eighth too much charged. */
#define GROW_DIVISOR 8
#define GROW_MAX_CHUNKS 64
#define METADATA_STEP (64 * KIB)

struct region region_main;

struct region_layout {
    size_t spans, chunks, words, summary, metadata; /* bytes */
};

static struct region_layout region_layout(size_t size_bytes) {
    size_t chunks = size_bytes / CHUNK_BYTES;
    size_t groups = (chunks + 63) / 64;
    struct region_layout layout;
    layout.spans = size_round_up(chunks * CHUNK_SLICES * sizeof(struct span), METADATA_STEP);
    layout.chunks = size_round_up(chunks * sizeof(struct chunk), METADATA_STEP);
    layout.words = size_round_up(groups * BIN_COUNT * sizeof(uint64_t), METADATA_STEP);
    layout.summary = size_round_up((groups + 63) / 64 * BIN_COUNT * sizeof(uint64_t), METADATA_STEP);
    layout.metadata = size_round_up(
        METADATA_STEP + layout.spans + layout.chunks + layout.words + layout.summary + METADATA_STEP, CHUNK_BYTES);
    return layout;
}

static bool region_reserve(struct region *region, size_t size_bytes) {
    struct region_layout layout = region_layout(size_bytes);
    char *start = os_reserve(layout.metadata + size_bytes, CHUNK_BYTES);
    if (start == NULL) return false;
    os_forbid_huge(start, layout.metadata + size_bytes);
    os_label(start, layout.metadata, META_LABEL);
    os_label(start + layout.metadata, size_bytes, REGION_LABEL);
    char *arrays = start + METADATA_STEP;
    region->spans = (struct span *)arrays;
    region->chunks = (struct chunk *)(arrays + layout.spans);
    region->bins.words = (uint64_t *)(arrays + layout.spans + layout.chunks);
    region->bins.summary = (uint64_t *)(arrays + layout.spans + layout.chunks + layout.words);
    region->size_bytes = size_bytes;
    region->base = (uintptr_t)start + layout.metadata;
    return true;
}

bool region_init(size_t reserve_bytes) {
    size_t limit = os_address_space_limit();
    size_t size = size_round_down(reserve_bytes, CHUNK_BYTES);
    if (limit != SIZE_MAX) size = size_min(size, size_round_down(limit / 4, CHUNK_BYTES));
    size = size_max(size, REGION_MIN_BYTES);
    while (!region_reserve(&region_main, size)) {
        if (size == REGION_MIN_BYTES) return false;
        size = size_max(size_round_down(size / 2, CHUNK_BYTES), REGION_MIN_BYTES);
    }
    return true;
}

/* The struct of a new region: one that was dropped, or fresh memory. Structs stay in the list forever, since readers hold no
 * lock. */
static struct region *region_new(void) {
    struct region *last = &region_main;
    while (last->next != NULL) last = last->next;
    if (last->base == 0) return last;
    struct region *region = os_map(size_round_up(sizeof *region, os_page_bytes));
    if (region != NULL) __atomic_store_n(&last->next, region, __ATOMIC_RELEASE);
    return region;
}

struct region *region_add(size_t bytes) {
    size_t least = size_max(size_round_up(bytes, CHUNK_BYTES), REGION_MIN_BYTES);
    if (region_main.base == 0) return NULL;
    for (struct region *region = &region_main; region != NULL; region = region->next)
        if (region->size_bytes - region_top(region) >= least) return NULL;
    struct region *region = region_new();
    if (region == NULL) return NULL;
    size_t size = size_max(least, size_round_down(region_main.size_bytes / 2, CHUNK_BYTES));
    while (!region_reserve(region, size)) {
        if (size == least) return NULL;
        size = size_max(size_round_down(size / 2, CHUNK_BYTES), least);
    }
    return region;
}

void region_drop(struct region *region) {
    struct region_layout layout = region_layout(region->size_bytes);
    os_release((char *)region->base - layout.metadata, layout.metadata + region->size_bytes);
    struct region *next = region->next;
    atomic_store_explicit(&region->top_bytes, 0, memory_order_relaxed);
    memset((void *)region, 0, sizeof *region);
    region->next = next;
}

/* Commit the first `bytes` of one metadata array. */
static bool metadata_commit(struct region *region, void *array, size_t *committed, size_t bytes) {
    bytes = size_round_up(bytes, METADATA_STEP);
    if (bytes <= *committed) return true;
    if (os_commit((char *)array + *committed, bytes - *committed) != 0) return false;
    region->metadata_bytes += bytes - *committed;
    *committed = bytes;
    return true;
}

static bool region_commit(struct region *region, size_t chunks) {
    size_t top = region_top(region);
    size_t first = top / CHUNK_BYTES;
    size_t end = first + chunks;
    size_t groups = (end + 63) / 64;
    if (!metadata_commit(region, region->spans, &region->spans_committed, end * CHUNK_SLICES * sizeof(struct span)) ||
        !metadata_commit(region, region->chunks, &region->chunks_committed, end * sizeof(struct chunk)) ||
        !metadata_commit(region, region->bins.words, &region->words_committed, groups * BIN_COUNT * sizeof(uint64_t)) ||
        !metadata_commit(region, region->bins.summary, &region->summary_committed,
                         (groups + 63) / 64 * BIN_COUNT * sizeof(uint64_t)))
        return false;
    if (os_commit((char *)region->base + top, chunks * CHUNK_BYTES) != 0) return false;
    for (size_t i = first; i < end; i++) {
        region->chunks[i].free = UINT32_MAX;
        region->chunks[i].bin = (uint16_t)bins_index(CHUNK_SLICES, false);
        bins_insert(&region->bins, region->chunks[i].bin, i);
    }
    atomic_store_explicit(&region->top_bytes, end * CHUNK_BYTES, memory_order_release);
    return true;
}

bool region_grow(struct region *region, size_t chunks) {
    size_t top = region_top(region) / CHUNK_BYTES;
    size_t room = region->size_bytes / CHUNK_BYTES - top;
    if (chunks > room) return false;
    size_t step = size_min(size_max(chunks, size_min(top / GROW_DIVISOR, GROW_MAX_CHUNKS)), room);
    return region_commit(region, step) || (step > chunks && region_commit(region, chunks));
}

/* Give up the ends of the metadata arrays, which stay where they are. A growth that was refused may have committed some of that. */
static void metadata_trim(struct region *region, struct region_layout have, struct region_layout keep) {
    const struct {
        void *array;
        size_t *committed;
        size_t have, keep;
    } parts[] = {
        {region->spans, &region->spans_committed, have.spans, keep.spans},
        {region->chunks, &region->chunks_committed, have.chunks, keep.chunks},
        {region->bins.words, &region->words_committed, have.words, keep.words},
        {region->bins.summary, &region->summary_committed, have.summary, keep.summary},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (parts[i].keep >= parts[i].have) continue;
        os_release((char *)parts[i].array + parts[i].keep, parts[i].have - parts[i].keep);
        size_t left = size_min(*parts[i].committed, parts[i].keep);
        region->metadata_bytes -= *parts[i].committed - left;
        *parts[i].committed = left;
    }
}

void region_trim(size_t keep_bytes) {
    for (struct region *region = &region_main; region != NULL; region = region->next) {
        size_t keep = size_round_up(region_top(region) + keep_bytes, CHUNK_BYTES);
        if (region->base == 0 || keep >= region->size_bytes) continue;
        os_release((char *)region->base + keep, region->size_bytes - keep);
        metadata_trim(region, region_layout(region->size_bytes), region_layout(keep));
        region->size_bytes = keep;
    }
}

struct region *region_of(const void *address) {
    for (struct region *region = &region_main; region != NULL;
         region = __atomic_load_n(&region->next, __ATOMIC_ACQUIRE))
        if ((uintptr_t)address - region->base < region_top(region)) return region;
    return NULL;
}

bool region_has_reserved(const void *address) {
    for (struct region *region = &region_main; region != NULL;
         region = __atomic_load_n(&region->next, __ATOMIC_ACQUIRE))
        if ((uintptr_t)address - region->base < region->size_bytes) return true;
    return false;
}

struct region *region_of_span(const struct span *span) {
    struct region *region = &region_main;
    while ((uintptr_t)span - (uintptr_t)region->spans >= region->size_bytes / (SLICE_BYTES / sizeof *span))
        region = region->next;
    return region;
}
