/* *_validate: a world with a span in every state, and one thing at a time broken in it; what is found first must have the right name. */
#include "heap/validate.h"

#include "heap/own.h"
#include "heap/punch.h"
#include "heap/remote.h"
#include "heap/whole.h"
#include "os/options.h"
#include "unit.h"

/* In place of the archive's: what they keep to themselves is broken, too. */
#include "heap/emergency.c"
#include "heap/thread.c"
#include "span/meta.c"
#include "span/run.c"

#define TINY_BYTES 64u
#define MID_BYTES 5000u
#define TINY_PER_SPAN (SLICE_BYTES / TINY_BYTES)

static struct heap *heap, *orphan;
static unsigned tiny_class, mid_class;
static void *tiny[4 * TINY_PER_SPAN], *mid[4 * 64];
static struct span *tiny_full, *tiny_listed, *tiny_listed2, *tiny_current, *tiny_queued, *tiny_punched;
static struct span *mid_full, *mid_listed, *mid_current, *mid_queued, *large, *held, *emergency;
static struct block *tiny_remote, *mid_remote;
static uint32_t mid_remote_index;
static struct chunk *chunk; /* one with free slices, dirty ones among them */
static size_t chunk_index;
static struct thread_record other_record;
static struct heap other_heap;

static struct span *span_of(void *block) {
    struct span *span = region_span(&region_main, block);
    return span->kind == SPAN_INNER ? mid_head(span) : span;
}

static void *thread_job(void *unused) {
    (void)unused;
    fake_thread_is(2);
    (void)heap_malloc(48); /* lives on */
    orphan = heap_record.self;
    return NULL;
}

/* As another thread frees it. */
static void free_from_afar(void *block) {
    struct span *span = span_of(block);
    ((struct block *)block)->key = span->kind == SPAN_MID ? mid_key(span, block) : tiny_key(span, block);
    assert_true(remote_push(span, block, span_block_index(span, block)));
}

/* A listed span with one live block gives its empty pages back. */
static void make_punched(void) {
    static void *blocks[SLICE_BYTES / 512 + 1];
    for (size_t i = 0; i < COUNT_OF(blocks); i++) blocks[i] = heap_malloc(512);
    tiny_punched = span_of(blocks[0]);
    for (size_t i = 1; i < COUNT_OF(blocks) - 1; i++) heap_free(blocks[i]);
    static struct punch punch;
    assert_false(punch_take(&punch, heap, TIER_BOTH));
    assert_int_equal(punch.count, 1);
    punch_purge(&punch);
    punch_end(&punch);
    heap_drain(heap);
    assert_true((tiny_punched->flags & SPAN_PUNCHED) != 0);
}

static void start(void) {
    options.reserve_bytes = GIB;
    options.mode = MODE_STATIC;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, thread_job, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    void *first = heap_malloc(16);
    heap = heap_record.self;
    if (heap == orphan) { /* adopted: one more thread for one more orphan */
        assert_int_equal(pthread_create(&thread, NULL, thread_job, NULL), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
    }
    assert_true(heap != orphan && orphan->state == HEAP_ORPHAN);
    heap_free(first);
    make_punched();

    tiny_class = class_of_size(TINY_BYTES);
    mid_class = class_of_size(MID_BYTES);
    for (size_t i = 0; i < 4 * TINY_PER_SPAN + 3; i++) {
        void *block = heap_malloc(TINY_BYTES);
        if (i < 4 * TINY_PER_SPAN) tiny[i] = block;
        tiny_current = span_of(block);
    }
    tiny_full = span_of(tiny[0]);
    tiny_queued = span_of(tiny[TINY_PER_SPAN]);
    tiny_listed = span_of(tiny[2 * TINY_PER_SPAN]);
    tiny_listed2 = span_of(tiny[3 * TINY_PER_SPAN]);
    for (size_t i = 5; i < 8; i++) heap_free(tiny[2 * TINY_PER_SPAN + i]);
    for (size_t i = 5; i < 8; i++) heap_free(tiny[3 * TINY_PER_SPAN + i]);

    mid[0] = heap_malloc(MID_BYTES);
    size_t per_span = span_of(mid[0])->capacity;
    for (size_t i = 1; i < 3 * per_span; i++) mid[i] = heap_malloc(MID_BYTES);
    mid_full = span_of(mid[0]);
    mid_queued = span_of(mid[per_span]);
    mid_listed = span_of(mid[2 * per_span]);
    for (size_t i = 0; i < 3; i++) mid_current = span_of(heap_malloc(MID_BYTES));
    heap_free(mid[2 * per_span + 2]);
    heap_free(mid[2 * per_span + 3]);

    large = span_of(heap_malloc(300 * KIB));
    void *hold = heap_malloc(500 * KIB);
    held = span_of(hold);
    options.secure = 1;
    heap_free(hold);
    options.secure = 0;
    assert_int_equal(held->kind, SPAN_HELD);
    heap_free(heap_malloc(200 * KIB)); /* dirty slices that nobody uses */
    void *nested = emergency_take(100, 1);
    (void)emergency_take(100, 1);
    emergency = span_of(nested);
    assert_int_equal(emergency_put(nested), EMERGENCY_FREED);

    tiny_remote = tiny[TINY_PER_SPAN + 9];
    mid_remote = mid[per_span + 4];
    mid_remote_index = mid_index(mid_queued, mid_remote);
    free_from_afar(tiny_remote);
    free_from_afar(mid_remote);
    while ((region_main.chunks[chunk_index].free & region_main.chunks[chunk_index].dirty) == 0) chunk_index++;
    chunk = &region_main.chunks[chunk_index];
    assert_valid(heap_validate_all());
}

static uint32_t free_bit(void) { return UINT32_C(1) << bits_lowest(chunk->free); }
static uint32_t clean_free_bit(void) { return UINT32_C(1) << bits_lowest(chunk->free & ~chunk->dirty); }
static uint64_t *word_of_chunk(void) { return bins_word(&region_main.bins, 0, chunk->bin); }
static struct block *tiny_first(void) { return tiny_listed->free; }

/* name: what must be found; then how to break it. */
#define BREAKS(X) \
    X(slice_twice, "chunk: a slice is free and on its way back", chunk->purging |= free_bit()) \
    X(not_described, "chunk: used, not described", chunk->described = false) \
    X(free_with_span, "chunk: a free slice has a span", \
      region_main.spans[chunk_index * CHUNK_SLICES + bits_lowest(chunk->free)].used = 1) \
    X(wrong_bin, "chunk: in the wrong bin", chunk->bin--) \
    X(bin_without, "chunk: its bin does not know it", *word_of_chunk() &= ~(UINT64_C(1) << chunk_index)) \
    X(summary, "bins: summary", region_main.bins.summary[chunk->bin] = 0) \
    X(bin_count, "bins: count", region_main.bins.count[3]++) \
    X(bin_member, "bins: count", *word_of_chunk() |= UINT64_C(1) << 63) \
    X(occupied, "bins: occupied", region_main.bins.occupied ^= 1) \
    X(top, "region: top", region_main.top_bytes += SLICE_BYTES) \
    X(committed, "region: descriptors are missing", region_main.spans_committed = 0) \
    X(dirty_bytes, "flow: dirty bytes", chunk->dirty |= clean_free_bit()) \
    X(low_bytes, "flow: low mark", runs.flow.dirty_low_bytes = runs.flow.dirty_bytes + 1) \
    X(clean_bytes, "flow: more clean bytes than bytes", runs.flow.taken_bytes = 0) \
    X(meta_left, "meta: what is left", meta_left = meta_total + 64) \
    X(meta_next, "meta: what is left", meta_next += 8) \
    X(heaps_circle, "thread: a circle of heaps", orphan->next_heap = orphan; heap->next_heap = orphan) \
    X(heap_state, "thread: state of a heap", orphan->state = 3) \
    X(orphan_record, "thread: a heap without a thread has a record", orphan->record = &other_record) \
    X(record_self, "thread: a record of another heap", heap_record.self = orphan) \
    X(record_none, "thread: a record of another heap", heap->record = NULL) \
    X(record_heap, "thread: a record with a foreign heap", heap_record.heap = orphan) \
    X(record_claim, "thread: claimed, and not vacated", heap->claim = HEAP_MARKED) \
    X(orphans_circle, "thread: a circle of orphans", orphan->next_orphan = orphan) \
    X(emergency_made, "emergency: a block that was never made", emergency_head = 900) \
    X(emergency_fresh, "emergency: a block that was never made", emergency_fresh = EMERGENCY_BLOCKS + 1) \
    X(emergency_link, "emergency: a link that leads to no block", emergency_next[0] = 900) \
    X(emergency_live, "emergency: a live block is on the list", emergency_head = 2) \
    X(emergency_lost, "emergency: free blocks and list", emergency_head = 0) \
    X(emergency_circle, "emergency: free blocks and list", emergency_next[0] = 1) \
    X(emergency_map, "emergency: a mapping's address", emergency_maps[7].address = 100) \
    X(tiny_kind, "tiny: kind", tiny_listed->kind = SPAN_LARGE) \
    X(tiny_slices, "tiny: kind", tiny_current->slices = 2) \
    X(tiny_bytes, "tiny: class", tiny_current->block_bytes = 80) \
    X(tiny_inverse, "tiny: inverse", tiny_current->inverse++) \
    X(tiny_capacity, "tiny: capacity", tiny_current->capacity--) \
    X(tiny_carved, "tiny: capacity", tiny_current->carved = TINY_PER_SPAN + 1) \
    X(tiny_limit, "tiny: limit", tiny_current->limit += TINY_BYTES) \
    X(tiny_mask, "tiny: punched where nothing was touched", tiny_current->punched = 0x8000) \
    X(tiny_link, "tiny: a link that leads to no block", \
      tiny_first()->next = (struct block *)(void *)((char *)tiny_first() + 16)) \
    X(tiny_foreign, "tiny: a link that leads to no block", tiny_first()->next = tiny_current->free) \
    X(tiny_circle, "tiny: a circle of free blocks", tiny_first()->next = tiny_first()) \
    X(tiny_no_key, "tiny: a free block without its key", tiny_first()->key ^= 16) \
    X(tiny_withheld, "tiny: a withheld block is on the list", tiny_listed->punched = 1) \
    X(tiny_used, "tiny: count of blocks in use", tiny_listed->used++) \
    X(tiny_lost, "tiny: count of blocks in use", tiny_listed->free = tiny_first()->next) \
    X(tiny_used_full, "tiny: count of blocks in use", tiny_full->used--) \
    X(mid_kind, "mid: kind", mid_listed->slices++) \
    X(mid_bytes, "mid: class", mid_listed->block_bytes += 128) \
    X(mid_inverse, "mid: inverse", mid_listed->inverse--) \
    X(mid_start, "mid: start", mid_listed->start += 128) \
    X(mid_capacity, "mid: capacity", mid_listed->capacity -= 3) \
    X(mid_limit, "mid: limit", mid_current->limit = mid_current->carved + 1u) \
    X(mid_inner, "mid: an inner slice", mid_listed[2].slices_from_head = 1) \
    X(mid_inner_kind, "mid: an inner slice", mid_full[1].kind = SPAN_FREE) \
    X(mid_not_made, "mid: a free block that was not made", mid_current->free_mask[2] = 1) \
    X(mid_not_handed_out, "mid: in use and never handed out", mid_listed->limit--; \
      mid_listed->free_mask[0] &= ~(UINT64_C(1) << (mid_listed->capacity - 1))) \
    X(mid_word, "mid: a free block before the first word", mid_listed->word = 1) \
    X(mid_used, "mid: count of blocks in use", mid_listed->used++) \
    X(mid_lost, "mid: count of blocks in use", mid_listed->free_mask[0] &= mid_listed->free_mask[0] - 1) \
    X(remote_bits, "remote: freed blocks, not queued", tiny_queued->remote |= UINT64_C(1) << 40) \
    X(remote_unqueued, "remote: freed blocks, not queued", tiny_full->remote = (1 << 16) + 1) \
    X(remote_many, "remote: more freed blocks than live ones", tiny_queued->remote |= UINT64_C(0xffff) << 16) \
    X(remote_link, "remote: a link that leads to no block", tiny_queued->remote += 1) \
    X(remote_count, "remote: a link that leads to no block", mid_queued->remote += 1 << 16) \
    X(remote_free, "remote: a block that is free", mid_queued->used--; \
      mid_queued->free_mask[0] |= UINT64_C(1) << mid_remote_index) \
    X(remote_key, "remote: a block without its key", tiny_remote->key = 0) \
    X(remote_mid_key, "remote: a block without its key", mid_remote->key = tiny_remote->key) \
    X(remote_more, "remote: more blocks than counted", mid_remote->next = (struct block *)(uintptr_t)3) \
    X(two_states, "span: in two states", tiny_listed->flags |= SPAN_IN_HAND) \
    X(punched_current, "span: punched and in use", tiny_current->flags |= SPAN_PUNCHED) \
    X(hand_unqueued, "span: in hand, not queued", tiny_full->flags |= SPAN_IN_HAND) \
    X(owner_full, "span: owner", tiny_full->owner = heap) \
    X(owner_current, "span: owner", tiny_current->owner = NULL) \
    X(owner_mid, "span: owner", mid_listed->owner = heap) \
    X(owner_punched, "span: owner", tiny_punched->owner = heap) \
    X(current_heap, "heap: current span", tiny_current->heap = orphan) \
    X(current_flag, "heap: current span", mid_current->flags = 0) \
    X(current_bias, "heap: a current span without its bias", mid_current->used = 0) \
    X(listed_heap, "heap: listed span", mid_listed->heap = orphan) \
    X(listed_flag, "heap: listed span", mid_listed->flags &= (uint8_t)~SPAN_LISTED) \
    X(listed_prev, "heap: list of spans", tiny_listed2->prev = NULL) \
    X(listed_last, "heap: end of a list of spans", heap->listed[tiny_class].last = tiny_listed) \
    X(listed_order, "heap: punched spans are not last", tiny_listed->flags |= SPAN_PUNCHED; tiny_listed->owner = NULL) \
    X(listed_full, "heap: a listed span that is empty or full", tiny_listed->free = NULL; \
      tiny_listed->used = TINY_PER_SPAN) \
    X(listed_empty, "heap: a listed span that is empty or full", mid_listed->used = 0; \
      mid_listed->free_mask[0] = (UINT64_C(1) << mid_listed->capacity) - 1) \
    X(ready, "heap: a ready span that is not current", heap->ready[TINY_BYTES / 16] = &span_none) \
    X(ready_listed, "heap: a ready span that is not current", heap->ready[TINY_BYTES / 16] = tiny_listed) \
    X(lender, "heap: lender", heap->lender[tiny_class] = (uint8_t)tiny_class) \
    X(loan, "heap: a loan that does not fit", heap->lender[1] = (uint8_t)class_of_size(512); \
      heap->ready[2] = heap->current[class_of_size(512)]) \
    X(queue_circle, "heap: a circle of queued spans", mid_queued->remote_next = mid_queued) \
    X(queue_foreign, "heap: queued span", mid_queued->heap = orphan) \
    X(queue_unaware, "heap: a queued span that does not know", tiny_queued->remote = 0) \
    X(undrained, "heap: a queued span that does not know", heap->undrained = tiny_full) \
    X(slice_heap, "slice: a span of no heap", tiny_full->heap = &other_heap) \
    X(slice_current, "slice: a current span that its heap does not know", heap->current[mid_class] = &span_none) \
    X(slice_listed, "slice: a listed span that is not on the list", heap->listed[mid_class].first = NULL; \
      heap->listed[mid_class].last = NULL) \
    X(slice_room, "slice: a span with room that nobody knows", mid_full->free_mask[0] |= 1; mid_full->used--) \
    X(slice_emergency, "slice: emergency blocks", emergency[3].block_bytes = 0) \
    X(slice_nobodys, "slice: in use, and nobody's", large->kind = SPAN_FREE) \
    X(slice_inner, "slice: an inner one without a head", large->kind = SPAN_INNER) \
    X(large_flags, "large: kind", large->flags |= SPAN_CURRENT) \
    X(large_slices, "large: slices", large->large.slices = 0) \
    X(large_beyond, "large: slices", large->large.slices = region_top(&region_main) / SLICE_BYTES) \
    X(large_bytes, "large: bytes", large->large.bytes += 2 * SLICE_BYTES) \
    X(large_free, "large: a slice of it is free", \
      region_main.chunks[(large - region_main.spans + 1) / CHUNK_SLICES].purging |= \
      UINT32_C(1) << (large - region_main.spans + 1) % CHUNK_SLICES) \
    X(large_inside, "large: a span inside it", large[2].kind = SPAN_TINY) \
    X(held_flags, "large: kind", held->flags |= SPAN_CURRENT) \
    X(held_inside, "large: a span inside it", held[3].kind = SPAN_MID) \
    X(held_by_nobody, "large: freed, and nobody waits to give it back", large->kind = SPAN_HELD)

#define DEFINE(name, text, how) \
    static void break_##name(void) { how; }
BREAKS(DEFINE)

#define ROW(name, text, how) {#name, text, break_##name},
static const struct {
    const char *name, *text;
    void (*how)(void);
} breaks[] = {BREAKS(ROW)};

static void test_each_is_found(void **state) {
    (void)state;
    start();
    for (size_t i = 0; i < COUNT_OF(breaks); i++) {
        int status;
        UNIT_IN_CHILD(status, {
            breaks[i].how();
            const char *found = heap_validate_all();
            if (found == NULL || strcmp(found, breaks[i].text) != 0) {
                fprintf(stderr, "%s: found %s\n", breaks[i].name, found != NULL ? found : "nothing");
                _exit(1);
            }
        });
        assert_int_equal(status, 0);
    }
    assert_valid(heap_validate_all());
}

static void test_one_line(void **state) {
    (void)state;
    validate_must(NULL);
    assert_fatal("tidemalloc: broken invariant: tiny: limit\n", validate_must("tiny: limit"));
}

/* Debug builds look at what a slow operation has touched, and in time at the rest. */
static void test_slow_paths_see(void **state) {
    (void)state;
    start();
    assert_fatal("tidemalloc: broken invariant: tiny: count of blocks in use\n", {
        tiny_current->used++;
        for (size_t i = 0; i < TINY_PER_SPAN; i++) (void)heap_malloc(TINY_BYTES);
    });
    assert_fatal("tidemalloc: broken invariant: mid: an inner slice\n", {
        mid_listed[1].slices_from_head = 3;
        for (size_t i = 0; i < 1000 * TINY_PER_SPAN; i++) (void)heap_malloc(16);
    });
    assert_fatal("tidemalloc: broken invariant: large: a span inside it\n", {
        large[2].kind = SPAN_TINY;
        heap_free(span_start(large));
    });
}

/* After a jump out of a hit a block may be neither free nor in use, and that is no fault of ours. */
static void test_after_a_jump(void **state) {
    (void)state;
    start();
    atomic_store(&heap->jumped, true);
    tiny_listed->used++;
    mid_listed->used--;
    tiny_first()->key = 0;
    assert_valid(heap_validate_all());
    tiny_first()->next = tiny_first(); /* but this is */
    assert_broken("tiny: a circle of free blocks", heap_validate(heap));
}

/* A handler jumps out of a hit: the next operation finds busy set by a deeper frame. */
static void test_jump_is_noted(void **state) {
    (void)state;
    start();
    atomic_store(&heap_record.busy, 1);
    assert_false(atomic_load(&heap->jumped));
    heap_free(heap_malloc(16));
    assert_true(atomic_load(&heap->jumped));
}

/* In parts: every chunk is looked at, in all regions, and then it ends. */
static void test_parts(void **state) {
    (void)state;
    os_init();
    assert_true(region_init(300 * MIB));
    assert_non_null(run_take(290 * MIB / SLICE_BYTES, 1));
    assert_non_null(run_take(20 * MIB / SLICE_BYTES, 1)); /* another region */
    assert_non_null(region_main.next);
    size_t chunks = region_top(&region_main) / CHUNK_BYTES + region_top(region_main.next) / CHUNK_BYTES;
    assert_true(chunks > 150);
    for (size_t i = 0; i < chunks; i++) {
        size_t first = region_top(&region_main) / CHUNK_BYTES;
        struct chunk *broken = i < first ? &region_main.chunks[i] : &region_main.next->chunks[i - first];
        broken->purging ^= UINT32_MAX;
        broken->free = 1;
        size_t next = 0, calls = 0, found = 0;
        do {
            const char *name = run_validate_part(&next);
            found += name != NULL;
            assert_true(++calls <= chunks / 32 + 2);
        } while (next != 0);
        assert_int_equal(found, 1);
        broken->purging ^= UINT32_MAX;
        broken->free = 0;
        if (i + 1 == chunks) assert_true(calls >= 3);
    }
    assert_int_equal(fake_locks_held(), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_is_found),  cmocka_unit_test(test_one_line),
        cmocka_unit_test(test_slow_paths_see), cmocka_unit_test(test_after_a_jump),
        cmocka_unit_test(test_jump_is_noted),  cmocka_unit_test(test_parts),
    };
    return unit_run(tests, COUNT_OF(tests));
}
