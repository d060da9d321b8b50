/* Page runs, on a region of two chunks of whose 64 slices the 12 in the middle, 6 of each chunk, are in any state and the others in use: finding, taking, giving back, purging. Masks never overlap, nothing is lost, nothing is
 * handed out twice. */
#include "proof.h"

#include "span/run.c"

#define CHUNKS 2u
#define SLICES (CHUNKS * CHUNK_SLICES)

size_t os_page_bytes = 4096;
struct region region_main;
static struct span spans[SLICES];
static struct chunk chunks[CHUNKS];
static uint64_t words[BIN_COUNT], summary[BIN_COUNT];

/* The system, and the layer's other half. */
void os_lock_take(struct os_lock *lock) { (void)lock; }
void os_lock_drop(struct os_lock *lock) { (void)lock; }
void os_lock_abandon(struct os_lock *lock) { (void)lock; }
bool os_lock_is_mine(struct os_lock *lock) { return lock != NULL; }
int os_purge(void *at, size_t bytes) {
    (void)at, (void)bytes;
    return nondet_bool() ? 0 : -22;
}
size_t os_resident_bytes(const void *at, size_t bytes) {
    (void)at;
    size_t resident = nondet_size();
    given(resident <= bytes);
    return resident;
}
struct region *region_add(size_t bytes) {
    (void)bytes;
    return NULL;
}
void region_drop(struct region *region) { (void)region; }
bool region_grow(struct region *region, size_t more) {
    (void)region, (void)more;
    return false;
}
struct region *region_of_span(const struct span *span) {
    (void)span;
    return &region_main;
}

static void region_any(void) {
    region_main.base = CHUNK_BYTES;
    region_main.size_bytes = region_main.top_bytes = CHUNKS * CHUNK_BYTES;
    region_main.spans = spans;
    region_main.chunks = chunks;
    region_main.bins.words = words;
    region_main.bins.summary = summary;
    size_t dirty = 0;
    for (size_t i = 0; i < CHUNKS; i++) {
        chunks[i].free = nondet_u32();
        chunks[i].dirty = nondet_u32();
        chunks[i].purging = nondet_u32();
        chunks[i].bin = CHUNK_NO_BIN;
        chunks[i].described = true;
        uint32_t middle = i == 0 ? UINT32_C(0xfc000000) : UINT32_C(0x3f);
        given(((chunks[i].free | chunks[i].purging) & ~middle) == 0);
        given((chunks[i].free & chunks[i].purging) == 0);
        chunk_rebin(&region_main, i);
        dirty += bits_count(chunks[i].free & chunks[i].dirty);
    }
    runs.flow.dirty_bytes = runs.flow.dirty_low_bytes = dirty * SLICE_BYTES;
}

static uint64_t all_free(void) { return (uint64_t)chunks[1].free << 32 | chunks[0].free; }
static uint64_t all_dirty(void) { return (uint64_t)chunks[1].dirty << 32 | chunks[0].dirty; }
static uint64_t all_purging(void) { return (uint64_t)chunks[1].purging << 32 | chunks[0].purging; }
/* Bits first .. first + count - 1. */
static uint64_t range_of(size_t first, size_t count) {
    uint64_t ones = count >= 64 ? UINT64_MAX : ((uint64_t)1 << count) - 1;
    return first >= 64 ? 0 : ones << first;
}
static bool fits(uint64_t mask, size_t first, size_t count) {
    return first + count <= SLICES && (mask & range_of(first, count)) == range_of(first, count);
}

/* What must hold between two operations. */
static void whole(void) {
    size_t dirty = 0;
    for (size_t i = 0; i < CHUNKS; i++) {
        const struct chunk *chunk = &chunks[i];
        prove((chunk->free & chunk->purging) == 0);
        dirty += bits_count(chunk->free & chunk->dirty);
        uint16_t bin = CHUNK_NO_BIN;
        if (chunk->free != 0)
            bin = (uint16_t)bins_index(bits_longest_run(chunk->free), (chunk->free & chunk->dirty) != 0);
        prove(chunk->bin == bin);
        unsigned any = nondet_unsigned();
        given(any < BIN_COUNT);
        prove((words[any] >> i & 1) == (any == bin)); /* it is in its bin, and in no other */
    }
    prove(runs.flow.dirty_bytes == dirty * SLICE_BYTES);
    prove(runs.flow.dirty_low_bytes <= runs.flow.dirty_bytes);
}

void prove_chunk_find(void) {
    struct chunk chunk = {.free = nondet_u32(), .dirty = nondet_u32()};
    unsigned count = nondet_unsigned(), shift = nondet_unsigned(), other = nondet_unsigned();
    given(count >= 1 && count <= CHUNK_SLICES && shift <= 5 && other < CHUNK_SLICES);
    size_t alignment = (size_t)1 << shift, slice = chunk_find(&chunk, count, alignment_mask(alignment));
    bool other_fits = other % alignment == 0 && fits(chunk.free, other, count) && other + count <= CHUNK_SLICES;
    if (slice == NO_SLICE) {
        prove(!other_fits);
        return;
    }
    prove(slice + count <= CHUNK_SLICES && fits(chunk.free, slice, count) && slice % alignment == 0);
    uint64_t used = chunk.free & chunk.dirty;
    if (fits(used, slice, count)) /* the lowest of the used ones, else of all */
        prove(!(other_fits && fits(used, other, count)) || slice <= other);
    else
        prove(!other_fits || (slice <= other && !fits(used, other, count)));
}

void prove_find_across(void) {
    region_any();
    size_t count = nondet_size(), shift = nondet_size(), start, other = nondet_size();
    given(count >= 1 && count <= SLICES && shift <= 2 && other < SLICES);
    size_t alignment = (size_t)1 << shift;
    bool found = find_across(&region_main, count, alignment, &start);
    prove(start % alignment == 0);
    if (found) {
        prove(fits(all_free(), start, count));
        prove(other >= start || other % alignment != 0 || !fits(all_free(), other, count)); /* the lowest */
    } else {
        prove(other % alignment != 0 || !fits(all_free(), other, count));
        prove(start >= SLICES || fits(all_free(), start, SLICES - start)); /* where to grow from */
    }
}

void prove_find_in_chunk(void) {
    region_any();
    size_t count = nondet_size(), shift = nondet_size(), other = nondet_size();
    given(count >= 1 && count <= WITHIN_CHUNK_MAX && shift <= 1 && other < SLICES);
    size_t alignment = (size_t)1 << shift, slice = find_in_chunk(&region_main, count, alignment);
    if (slice != NO_SLICE)
        prove(fits(all_free(), slice, count) && slice % alignment == 0 &&
              slice / CHUNK_SLICES == (slice + count - 1) / CHUNK_SLICES);
    else if (alignment == 1)
        prove(!fits(all_free(), other, count) || other / CHUNK_SLICES != (other + count - 1) / CHUNK_SLICES);
}

/* Split: a part of what is free is taken, exactly that. Merge: it is given back. */
void prove_take_release(void) {
    region_any();
    uint64_t free = all_free(), dirty = all_dirty(), purging = all_purging();
    size_t slice = nondet_size(), count = nondet_size(), touched = nondet_size();
    given(slice < SLICES && count >= 1 && count <= SLICES - slice && touched <= count && fits(free, slice, count));
    range_take(&region_main, slice, count);
    whole();
    prove(all_free() == (free & ~range_of(slice, count)));
    prove(all_dirty() == dirty && all_purging() == purging);

    enum run_state state = nondet_bool() ? RUN_CLEAN : RUN_DIRTY;
    release(&spans[slice], count, touched, state);
    whole();
    prove(all_free() == free && all_purging() == purging);
    prove(all_dirty() == (state == RUN_DIRTY ? dirty | range_of(slice, touched) : dirty & ~range_of(slice, touched)));
}

/* A run grows into what follows it, and gives its end back. */
void prove_extend_shorten(void) {
    region_any();
    uint64_t free = all_free();
    size_t slice = nondet_size(), count = nondet_size(), more = nondet_size(), keep = nondet_size();
    given(slice < SLICES && count >= 1 && count <= SLICES - slice && more >= 1 && more <= SLICES);
    given((free & range_of(slice, count)) == 0);
    bool done = run_extend(&spans[slice], count, more);
    whole();
    prove(done == (slice + count + more <= SLICES && fits(free, slice + count, more)));
    prove(all_free() == (done ? free & ~range_of(slice + count, more) : free));
    if (!done) return;
    given(keep >= 1 && keep < count + more);
    run_shorten(&spans[slice], count + more, keep, RUN_DIRTY);
    whole();
    prove(all_free() == ((free & ~range_of(slice + count, more)) | range_of(slice + keep, count + more - keep)));
}

/* One chunk goes back to the system, which may refuse any part of it; a slice counts as clean only if it agreed. */
void prove_purge(void) {
    region_any();
    given(chunks[0].purging == 0 && chunks[1].purging == 0);
    uint64_t free = all_free(), dirty = all_dirty();
    struct run_purge purge = {.limit_bytes = nondet_bool() ? SIZE_MAX : nondet_size()};
    given(purge.limit_bytes >= SLICE_BYTES);
    size_t index = nondet_bool() ? 0 : 1;
    chunk_give_back(&region_main, index, &purge);
    whole();
    prove(all_free() == free && all_purging() == 0);
    prove((all_dirty() & ~dirty) == 0); /* nothing has become dirty, and only free slices have become clean */
    prove(((dirty & ~all_dirty()) & ~free) == 0);
    prove(purge.purged_bytes == bits_count(dirty & ~all_dirty()) * SLICE_BYTES);
    prove(purge.limit_bytes == SIZE_MAX || purge.purged_bytes <= size_max(purge.limit_bytes, SLICE_BYTES));
}
