/* span/run.c: giving memory back, and what is known of its flow. */
#include "span/run.h"
#include "unit.h"

static void start(size_t bytes) {
    os_init();
    assert_true(region_init(bytes));
}

static size_t slice_of(const struct span *span) { return region_slice(&region_main, span); }

static struct span *take(size_t slices) {
    struct span *span = run_take(slices, 1);
    assert_non_null(span);
    assert_valid(run_validate());
    return span;
}

static void touch(struct span *span, size_t slices) { memset(span_start(span), 1, slices * SLICE_BYTES); }

static void release(struct span *span, size_t slices, enum run_state state) {
    run_release(span, slices, state);
    assert_valid(run_validate());
}

static struct run_totals totals(void) {
    struct run_totals result;
    run_totals(&result);
    return result;
}

static size_t resident(const struct span *span, size_t slices) {
    return fake_resident_bytes(span_start(span), slices * SLICE_BYTES);
}

static size_t descriptors_resident(size_t chunk) {
    return fake_resident_bytes(&region_main.spans[chunk * CHUNK_SLICES], CHUNK_SLICES * sizeof(struct span));
}

#define assert_flow(dirty, low, clean_taken, taken) \
    do { \
        struct run_flow seen_ = run_flow(false); \
        assert_int_equal(seen_.dirty_bytes, (dirty)*SLICE_BYTES); \
        assert_int_equal(seen_.dirty_low_bytes, (low)*SLICE_BYTES); \
        assert_int_equal(seen_.clean_taken_bytes, (clean_taken)*SLICE_BYTES); \
        assert_int_equal(seen_.taken_bytes, (taken)*SLICE_BYTES); \
        assert_int_equal(totals().dirty_bytes, (dirty)*SLICE_BYTES); \
    } while (0)

/* --- flow: figures in slices ----------------------------------------------------------------------------------------- */

static void test_flow(void **state) {
    (void)state;
    start(64 * MIB);
    assert_flow(0, 0, 0, 0);
    struct span *a = take(40), *b = take(10);
    assert_flow(0, 0, 50, 50);
    release(a, 40, RUN_DIRTY);
    assert_flow(40, 0, 50, 50); /* the low mark is what it was */
    assert_int_equal(run_flow(true).dirty_low_bytes, 0);
    assert_flow(40, 40, 50, 50);
    struct span *c = take(3);
    assert_flow(37, 37, 50, 53);
    release(b, 10, RUN_CLEAN);
    assert_flow(37, 37, 50, 53);
    release(c, 3, RUN_DIRTY);
    assert_flow(40, 37, 50, 53);
    a = take(48); /* slices 0-39 dirty, 40-47 clean */
    assert_int_equal(slice_of(a), 0);
    assert_flow(0, 0, 58, 101);
    run_shorten(a, 48, 20, RUN_DIRTY);
    assert_flow(28, 0, 58, 101);
    assert_int_equal(run_flow(true).dirty_low_bytes, 0);
    assert_true(run_extend(a, 20, 30)); /* 28 dirty, 2 clean */
    assert_flow(0, 0, 60, 131);
    run_shorten(a, 50, 40, RUN_CLEAN);
    assert_flow(0, 0, 60, 131);
    run_release_front(a, 40, 5); /* all of it was dirty before */
    assert_flow(40, 0, 60, 131);
    a = take(1);
    assert_flow(39, 0, 60, 132);
    run_flow(true);
    size_t kept = 0;
    run_purge(&kept);
    assert_flow(0, 0, 60, 132); /* what was given back was needed by nobody else */
}

/* In a forked child what another thread was giving back is free and dirty again. */
static void fork_meanwhile(enum fake_call call, void *at, size_t bytes) {
    (void)at;
    (void)bytes;
    if (call != FAKE_PURGE) return;
    fake.on_call = NULL;
    assert_flow(32, 32, 45, 45);
    int status;
    UNIT_IN_CHILD(status, {
        os_lock_take(&run_lock);
        run_forked();
        os_lock_drop(&run_lock);
        assert_valid(run_validate());
        assert_flow(45, 32, 45, 45);
        assert_int_equal(region_main.chunks[0].purging, 0);
        size_t kept = 0;
        assert_int_equal(run_purge(&kept), 45 * SLICE_BYTES);
        assert_flow(0, 0, 45, 45);
    });
    assert_int_equal(status, 0);
}

static void test_flow_after_fork(void **state) {
    (void)state;
    start(64 * MIB);
    struct span *a = take(45);
    touch(a, 45);
    release(a, 45, RUN_DIRTY);
    run_flow(true);
    struct span *head = &region_main.spans[0];
    assert_int_equal(resident(head, 45), 45 * SLICE_BYTES);
    fake.on_call = fork_meanwhile;
    struct run_purge purge = {.limit_bytes = 40 * SLICE_BYTES};
    assert_true(run_purge_step(&purge)); /* chunk 1 */
    assert_null(fake.on_call);
    assert_int_equal(purge.purged_bytes, 13 * SLICE_BYTES);
}

static void test_flow_after_repair(void **state) {
    (void)state;
    start(64 * MIB);
    struct span *a = take(9);
    release(a, 9, RUN_DIRTY);
    run_flow(true);
    os_lock_take(&run_lock);
    region_main.chunks[0].free &= ~(uint32_t)0x7; /* an operation has taken three of them, and got no further */
    run_repair();
    assert_valid(run_validate());
    assert_flow(6, 6, 9, 9);
    os_lock_take(&run_lock);
    region_main.chunks[0].free |= 0x7;
    run_repair();
    assert_flow(9, 6, 9, 9);
}

/* --- growth ---------------------------------------------------------------------------------------------------------- */

static void test_growth_mark(void **state) {
    (void)state;
    start(64 * MIB);
    size_t step = RUN_GROWTH_STEP_BYTES / SLICE_BYTES;
    struct span *a = take(step - 1);
    assert_int_equal(run_grown, 0);
    release(a, step - 1, RUN_DIRTY);
    a = take(step - 1); /* no growth: they were there */
    assert_int_equal(run_grown, 0);
    assert_true(run_extend(a, step - 1, 1));
    assert_int_equal(run_grown, 1);
    run_set_growth_mark((step + 4) * SLICE_BYTES);
    assert_int_equal(run_grown, 0);
    take(3);
    assert_int_equal(run_grown, 0);
    take(1);
    assert_int_equal(run_grown, 1);
    run_set_growth_mark((step + 4) * SLICE_BYTES); /* reached already */
    assert_int_equal(run_grown, 1);
    run_set_growth_mark(UINT64_MAX);
    assert_int_equal(run_grown, 0);
    take(100);
    assert_int_equal(run_grown, 0);
}

/* A small program takes a megabyte again and again: half of it went each time, until what it has taken in all says that it is not so small. */
static void test_growth_by_regret(void **state) {
    (void)state;
    start(64 * MIB);
    run_keep_at_most(RUN_KEEP_SMALL_BYTES);
    run_set_growth_mark(UINT64_MAX); /* that is not how it is found */
    unsigned loops = 0;
    while (run_grown == RUN_NOT_GROWN) {
        struct span *span = take(16);
        memset(span_start(span), 1, 16 * SLICE_BYTES);
        release(span, 16, RUN_DIRTY);
        assert_true(run_resident_bytes() <= RUN_KEEP_SMALL_BYTES);
        assert_int_equal(run_keep_bytes, RUN_KEEP_SMALL_BYTES);
        assert_true(++loops <= 4);
    }
    assert_int_equal(run_grown, RUN_GROWN_SURELY);
    assert_true(loops >= 3);
    assert_true(run_flow(false).clean_taken_bytes >= RUN_GROWTH_STEP_BYTES);
}

static void test_resident(void **state) {
    (void)state;
    start(4 * MIB);
    assert_int_equal(run_resident_bytes(), 0);
    struct span *a = take(40), *b = take(40); /* the second one in another region */
    assert_non_null(region_main.next);
    span_start(a)[39 * SLICE_BYTES] = 1;
    span_start(b)[0] = span_start(b)[40 * SLICE_BYTES - 1] = 1;
    assert_int_equal(run_resident_bytes(), 3 * os_page_bytes);
}

/* --- giving everything back ------------------------------------------------------------------------------------------ */

static void test_purge(void **state) {
    (void)state;
    start(64 * MIB);
    struct span *a = take(6), *live = take(1), *b = take(40);
    touch(a, 6);
    memset(span_start(live), 2, SLICE_BYTES);
    touch(b, 40);
    release(a, 6, RUN_DIRTY);
    release(b, 40, RUN_DIRTY);
    assert_int_equal(totals().dirty_bytes, 46 * SLICE_BYTES);
    assert_true(run_was_used(a));
    assert_false(run_was_used(live));
    size_t kept = 0, calls = fake.count[FAKE_PURGE];
    assert_int_equal(run_purge(&kept), 46 * SLICE_BYTES);
    assert_int_equal(fake.count[FAKE_PURGE] - calls, 3 + 1); /* merged, chunk by chunk; descriptors of the empty one */
    assert_int_equal(kept, 0);
    assert_valid(run_validate());
    assert_int_equal(totals().dirty_bytes, 0);
    assert_int_equal(totals().returned_bytes, 46 * SLICE_BYTES);
    assert_int_equal(run_resident_bytes(), SLICE_BYTES);
    assert_int_equal(span_start(live)[SLICE_BYTES - 1], 2);
    assert_false(run_was_used(a));
    assert_int_equal(run_purge(&kept), 0);
    assert_int_equal(fake.count[FAKE_PURGE] - calls, 3 + 1);
    assert_false(run_slice_is_dirty(take(6), 0));
}

/* Dirty slices count as what was resident of them. */
static void test_returned_bytes(void **state) {
    (void)state;
    start(64 * MIB);
    struct span *a = take(10);
    span_start(a)[0] = span_start(a)[5 * SLICE_BYTES + 100] = span_start(a)[10 * SLICE_BYTES - 1] = 1;
    release(a, 10, RUN_DIRTY);
    struct run_purge purge = {.limit_bytes = SIZE_MAX};
    while (run_purge_step(&purge)) {}
    assert_int_equal(purge.purged_bytes, 10 * SLICE_BYTES);
    assert_int_equal(purge.returned_bytes, 3 * os_page_bytes);
    assert_int_equal(totals().returned_bytes, 3 * os_page_bytes);
}

static void test_purge_with_locked_pages(void **state) {
    (void)state;
    start(64 * MIB);
    struct span *run = take(30);
    touch(run, 30);
    fake_lock_pages(span_start(run) + 7 * SLICE_BYTES + 8 * KIB, 4 * KIB, true);
    fake_lock_pages(span_start(run) + 20 * SLICE_BYTES, 4 * KIB, true);
    release(run, 30, RUN_DIRTY);
    size_t kept = 0, before_the_lock = 8 * KIB; /* a purge fails half-way */
    assert_int_equal(run_purge(&kept), 28 * SLICE_BYTES + before_the_lock);
    assert_int_equal(kept, 2 * SLICE_BYTES);
    assert_int_equal(totals().dirty_bytes, 2 * SLICE_BYTES); /* those are not believed to be clean */
    assert_int_equal(run_flow(false).dirty_bytes, 2 * SLICE_BYTES);
    assert_int_equal(totals().returned_bytes, 28 * SLICE_BYTES + before_the_lock);
    assert_valid(run_validate());
    for (size_t i = 0; i < 30; i++) assert_int_equal(run_slice_is_dirty(&region_main.spans[i], 0), i == 7 || i == 20);
    assert_int_equal(descriptors_resident(0), 4 * KIB);
    fake_lock_pages(span_start(run), 30 * SLICE_BYTES, false);
    kept = 0;
    assert_int_equal(run_purge(&kept), 2 * SLICE_BYTES - before_the_lock);
    assert_int_equal(kept, 0);
    assert_int_equal(descriptors_resident(0), 0);
    assert_int_equal(run_resident_bytes(), 0);
}

static void test_purge_that_always_fails(void **state) {
    (void)state;
    start(64 * MIB);
    struct span *run = take(30);
    release(run, 30, RUN_DIRTY);
    fake_fail(FAKE_PURGE, 1, SIZE_MAX, EINVAL);
    size_t kept = 0;
    assert_int_equal(run_purge(&kept), 0);
    assert_int_equal(kept, 30 * SLICE_BYTES);
    assert_int_equal(totals().dirty_bytes, 30 * SLICE_BYTES);
    assert_int_equal(run_flow(false).dirty_bytes, 30 * SLICE_BYTES);
    assert_int_equal(totals().returned_bytes, 0);
    assert_valid(run_validate());
}

/* While pages are being given back no lock is held, and nobody can take them. */
static struct span *taken_meanwhile;
static unsigned looked_on;

static void take_meanwhile(enum fake_call call, void *at, size_t bytes) {
    if (call != FAKE_PURGE) return;
    looked_on++;
    assert_int_equal(fake_locks_held(), 0);
    assert_valid(run_validate());
    assert_int_equal(totals().dirty_bytes, 0);
    assert_int_equal(run_flow(false).dirty_bytes, 0);
    fake.on_call = NULL;
    taken_meanwhile = run_take(2, 1);
    char *start = span_start(taken_meanwhile);
    assert_true(start + 2 * SLICE_BYTES <= (char *)at || start >= (char *)at + bytes);
    memset(start, 9, 2 * SLICE_BYTES);
}

static void test_purge_beside_take(void **state) {
    (void)state;
    start(64 * MIB);
    struct span *run = take(4);
    take(1);
    touch(run, 4);
    release(run, 4, RUN_DIRTY);
    fake.on_call = take_meanwhile;
    size_t kept = 0;
    assert_int_equal(run_purge(&kept), 4 * SLICE_BYTES);
    assert_int_equal(looked_on, 1);
    assert_int_equal(span_start(taken_meanwhile)[0], 9);
    assert_valid(run_validate());
}

/* --- in steps -------------------------------------------------------------------------------------------------------- */

/* Dirty slices: 4-9 of chunk 0, all 32 of chunk 1, 0-2 and 20-23 of chunk 2, one live one between them. */
static void three_chunks(void) {
    start(64 * MIB);
    struct span *a = take(4), *b = take(6), *wall = take(22), *c = take(32), *d = take(3), *e = take(17), *f = take(4);
    assert_int_equal(slice_of(f), 84);
    struct span *dirty[] = {b, c, d, f};
    size_t slices[] = {6, 32, 3, 4};
    for (size_t i = 0; i < 4; i++) {
        touch(dirty[i], slices[i]);
        release(dirty[i], slices[i], RUN_DIRTY);
    }
    (void)a;
    (void)wall;
    (void)e;
}

static uint32_t dirty_of(size_t chunk) {
    const struct chunk *at = &region_main.chunks[chunk];
    return at->free & at->dirty;
}

static void steps(size_t page_bytes) {
    fake.page_bytes = page_bytes;
    three_chunks();
    struct run_purge purge = {.limit_bytes = 20 * SLICE_BYTES};
    assert_true(run_purge_step(&purge));
    assert_int_equal(purge.purged_bytes, 7 * SLICE_BYTES);
    assert_int_equal(dirty_of(2), 0);
    assert_int_equal(dirty_of(1), UINT32_MAX);
    assert_true(run_purge_step(&purge));
    assert_int_equal(purge.purged_bytes, 20 * SLICE_BYTES);
    assert_int_equal(purge.returned_bytes, 20 * SLICE_BYTES);
    assert_int_equal(dirty_of(1), (1u << 19) - 1); /* the upper 13 are gone */
    assert_int_equal(dirty_of(0), 0x3f0);
    assert_false(run_purge_step(&purge));
    assert_int_equal(purge.purged_bytes, 20 * SLICE_BYTES);
    assert_int_equal(totals().dirty_bytes, 25 * SLICE_BYTES);
    assert_int_equal(run_flow(false).dirty_bytes, 25 * SLICE_BYTES);

    purge = (struct run_purge){.limit_bytes = SLICE_BYTES / 2}; /* one slice at least */
    assert_true(run_purge_step(&purge));
    assert_int_equal(purge.purged_bytes, SLICE_BYTES);
    assert_int_equal(dirty_of(1), (1u << 18) - 1);
    assert_false(run_purge_step(&purge));

    purge = (struct run_purge){.limit_bytes = SIZE_MAX - 1}; /* more than there is */
    while (run_purge_step(&purge)) {}
    assert_int_equal(purge.purged_bytes, 24 * SLICE_BYTES);
    assert_int_equal(totals().dirty_bytes, 0);
    assert_valid(run_validate());
    assert_int_equal(descriptors_resident(1), size_max(4 * KIB, page_bytes));
}

static void test_steps(void **state) {
    (void)state;
    int status;
    for (size_t page_bytes = 4 * KIB; page_bytes <= 64 * KIB; page_bytes *= 4) {
        UNIT_IN_CHILD(status, steps(page_bytes));
        assert_int_equal(status, 0);
    }
}

static void test_steps_with_locked_pages(void **state) {
    (void)state;
    three_chunks();
    fake_lock_pages((char *)region_main.base + 86 * SLICE_BYTES, 4 * KIB, true); /* of slices 64-66, 84-87 */
    struct run_purge purge = {.limit_bytes = 4 * SLICE_BYTES};
    assert_true(run_purge_step(&purge)); /* the upper four */
    assert_int_equal(purge.purged_bytes, 3 * SLICE_BYTES);
    assert_int_equal(purge.kept_bytes, SLICE_BYTES);
    assert_int_equal(dirty_of(2), 1u << 22 | 7);
    assert_true(run_purge_step(&purge)); /* one more, elsewhere */
    assert_int_equal(purge.purged_bytes, 4 * SLICE_BYTES);
    assert_int_equal(dirty_of(1), UINT32_MAX >> 1);
    assert_false(run_purge_step(&purge));
    assert_int_equal(run_flow(false).dirty_bytes, (45 - 4) * SLICE_BYTES);
}

static void test_steps_between_takes(void **state) {
    (void)state;
    three_chunks();
    struct run_purge purge = {.limit_bytes = SIZE_MAX};
    assert_true(run_purge_step(&purge));
    struct span *low = take(5), *many = take(30); /* of chunk 0, which is fuller, and of chunk 1 */
    assert_int_equal(slice_of(low), 4);
    assert_int_equal(slice_of(many), 32);
    memset(span_start(low), 7, 5 * SLICE_BYTES);
    memset(span_start(many), 7, 30 * SLICE_BYTES);
    assert_true(run_purge_step(&purge));
    assert_int_equal(purge.purged_bytes, (7 + 2) * SLICE_BYTES);
    release(low, 5, RUN_DIRTY);
    while (run_purge_step(&purge)) {}
    assert_int_equal(purge.purged_bytes, (7 + 2 + 6) * SLICE_BYTES);
    assert_true(span_start(many)[0] == 7 && span_start(many)[30 * SLICE_BYTES - 1] == 7);
    assert_int_equal(resident(many, 30), 30 * SLICE_BYTES);
    assert_int_equal(run_flow(false).dirty_bytes, 0);
}

static void test_steps_over_regions(void **state) {
    (void)state;
    start(4 * MIB);
    struct span *a = take(40), *b = take(40);
    release(a, 40, RUN_DIRTY);
    release(b, 40, RUN_DIRTY);
    struct run_purge purge = {.limit_bytes = 45 * SLICE_BYTES};
    while (run_purge_step(&purge)) {}
    assert_int_equal(purge.purged_bytes, 45 * SLICE_BYTES);
    assert_int_equal(dirty_of(0) | dirty_of(1), 0);
    assert_int_equal(totals().dirty_bytes, 35 * SLICE_BYTES);
}

/* --- descriptors of empty chunks ------------------------------------------------------------------------------------- */

static unsigned descriptor_calls;
static size_t chunk_seen, left_resident;

static void on_descriptors(enum fake_call call, void *at, size_t bytes) {
    if (call != FAKE_PURGE || (uintptr_t)at >= region_main.base) return;
    descriptor_calls++;
    chunk_seen = (size_t)((struct span *)at - region_main.spans) / CHUNK_SLICES;
    assert_ptr_equal(at, &region_main.spans[chunk_seen * CHUNK_SLICES]);
    assert_int_equal(bytes, CHUNK_SLICES * sizeof(struct span));
    assert_true(unit_is_zero(at, bytes));
    struct chunk *chunk = &region_main.chunks[chunk_seen];
    assert_int_equal(chunk->free, 0);
    assert_int_equal(chunk->purging, UINT32_MAX);
    assert_int_equal(fake_locks_held(), 0);
    assert_valid(run_validate());
    if (chunk_seen != 1) return;
    assert_null(taken_meanwhile);
    taken_meanwhile = run_take(32, 1); /* never one of these */
    assert_true(slice_of(taken_meanwhile) / CHUNK_SLICES != chunk_seen);
}

static size_t purge_all(void) {
    size_t kept = 0;
    descriptor_calls = 0;
    run_purge(&kept);
    left_resident = descriptors_resident(chunk_seen); /* before anybody looks at them */
    assert_valid(run_validate());
    return descriptor_calls;
}

static void test_descriptors(void **state) {
    (void)state;
    start(64 * MIB);
    struct span *live = take(5), *rest = take(27), *whole = take(32);
    assert_int_equal(slice_of(whole), 32);
    release(rest, 27, RUN_DIRTY);
    for (size_t i = 1; i < 32; i += 5) whole[i].kind = SPAN_INNER; /* as a mid span; cleared before it is given back */
    for (size_t i = 1; i < 32; i++) whole[i].kind = SPAN_FREE;
    touch(whole, 32);
    release(whole, 32, RUN_DIRTY);
    fake.on_call = on_descriptors;
    struct run_purge limited = {.limit_bytes = 64 * MIB};
    while (run_purge_step(&limited)) {}
    assert_int_equal(descriptor_calls, 0); /* only when all is wanted */
    assert_int_equal(purge_all(), 1);      /* clean already */
    assert_int_equal(chunk_seen, 1);
    assert_int_equal(left_resident, 0);
    assert_int_equal(descriptors_resident(0), 4 * KIB);
    assert_int_equal(slice_of(taken_meanwhile), 64);
    assert_int_equal(taken_meanwhile->slices, 32);
    assert_int_equal(purge_all(), 0); /* no chunk is empty but that one */

    release(live, 5, RUN_CLEAN);
    assert_int_equal(purge_all(), 1);
    assert_int_equal(chunk_seen, 0);
    assert_int_equal(left_resident, 0);
    struct span *again = take(32);
    assert_int_equal(slice_of(again), 0);
    release(again, 32, RUN_CLEAN); /* no dirty one: described all the same */
    fake_fail(FAKE_PURGE, 1, 1, ENOMEM);
    assert_int_equal(purge_all(), 1);
    assert_int_equal(left_resident, 4 * KIB);
    assert_int_equal(purge_all(), 1); /* tried again */
    assert_int_equal(left_resident, 0);
    assert_int_equal(purge_all(), 0);
}

/* A page holds the descriptors of several chunks. */
static void test_descriptors_in_large_pages(void **state) {
    (void)state;
    for (size_t page_bytes = 16 * KIB; page_bytes <= 64 * KIB; page_bytes *= 4) {
        int status;
        UNIT_IN_CHILD(status, {
            fake.page_bytes = page_bytes;
            start(64 * MIB);
            struct span *all = take(5 * 32);
            release(all, 5 * 32, RUN_DIRTY);
            fake.on_call = on_descriptors;
            assert_int_equal(purge_all(), 0);
            assert_int_equal(run_flow(false).dirty_bytes, 0);
        });
        assert_int_equal(status, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flow),
        cmocka_unit_test(test_flow_after_fork),
        cmocka_unit_test(test_flow_after_repair),
        cmocka_unit_test(test_growth_mark),
        cmocka_unit_test(test_growth_by_regret),
        cmocka_unit_test(test_resident),
        cmocka_unit_test(test_purge),
        cmocka_unit_test(test_returned_bytes),
        cmocka_unit_test(test_purge_with_locked_pages),
        cmocka_unit_test(test_purge_that_always_fails),
        cmocka_unit_test(test_purge_beside_take),
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_steps_with_locked_pages),
        cmocka_unit_test(test_steps_between_takes),
        cmocka_unit_test(test_steps_over_regions),
        cmocka_unit_test(test_descriptors),
        cmocka_unit_test(test_descriptors_in_large_pages),
    };
    return unit_run(tests, COUNT_OF(tests));
}
