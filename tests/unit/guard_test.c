/* span/guard.c, and what other modules do with it while guards are on (TIDE_SECURE=1 in the default build). */
#include "span/guard.h"
#include "span/run.h"
#include "tier/large.h"
#include "tier/mid.h"
#include "tier/tiny.h"
#include "unit.h"

#include <signal.h>

static void start(size_t page_bytes) {
    fake.page_bytes = page_bytes;
    os_init();
    options.secure = 1;
    guard_init();
    assert_true(region_init(4 * GIB));
}

static struct span *head_of(void *block) { return region_span(region_of(block), block); }

static void test_choose(void **state) {
    (void)state;
    const uint64_t masks[] = {1, UINT64_C(1) << 63, 0x8001, UINT64_MAX, UINT64_C(0xf0f0000000000001)};
    guard_init();
    for (size_t i = 0; i < COUNT_OF(masks); i++) {
        uint64_t seen = 0;
        assert_int_equal(guard_choose(masks[i]), bits_lowest(masks[i]));
        options.secure = 1;
        for (int n = 0; n < 5000; n++) seen |= UINT64_C(1) << guard_choose(masks[i]);
        options.secure = 0;
        assert_true(seen == masks[i]);
    }
}

static void test_secrets_differ(void **state) {
    (void)state;
    guard_init();
    assert_true(guard_secrets.link != 0 && guard_secrets.key != 0 && guard_secrets.tail != 0 &&
                guard_secrets.chance != 0);
    assert_true(guard_random() != guard_random());
}

/* No byte behind a block is accessible, up to the end of its last slice, and that is at least a page away. */
static void test_large_block_has_a_guard(void **state) {
    (void)state;
    start(4 * KIB);
    const size_t sizes[] = {1, SLICE_BYTES - 4096, SLICE_BYTES - 4095, SLICE_BYTES, 300000, 3 * MIB};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        char *block = large_take(sizes[i], 1, LARGE_PLAIN);
        const struct span *head = head_of(block);
        size_t guarded = head->large.slices * SLICE_BYTES - head->large.bytes;
        assert_true(guarded >= 4096 && guarded < SLICE_BYTES + 4096);
        assert_int_equal(fake.guarded_bytes, guarded);
        assert_int_equal(head->guard, GUARD_MARKS);
        memset(block, 1, head->large.bytes);
        int status;
        UNIT_IN_CHILD(status, signal(SIGSEGV, SIG_DFL); ((volatile char *)block)[head->large.bytes] = 1);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
        assert_true(large_release(head_of(block)));
        assert_true(large_settle());
        assert_int_equal(fake.guarded_bytes, 0);
        assert_valid(run_validate());
    }
}

/* Freed: not resident, not accessible, not used again; then its place is clean. */
static void test_freed_block_is_held(void **state) {
    (void)state;
    start(4 * KIB);
    char *block = large_take(300000, 1, LARGE_PLAIN);
    struct span *head = head_of(block);
    size_t bytes = head->large.slices * SLICE_BYTES;
    memset(block, 1, 300000);
    assert_true(large_release(head));
    assert_false(large_release(head));
    assert_int_equal(head->kind, SPAN_HELD);
    assert_int_equal(fake_resident_bytes(block, bytes), 0);
    assert_int_equal(fake.guarded_bytes, bytes);
    assert_true(large_around(head + 1) == head);
    for (int i = 0; i < 63; i++) {
        char *other = large_take(300000, 1, LARGE_PLAIN);
        assert_true(other != block && large_release(head_of(other)));
    }
    assert_int_equal(head->kind, SPAN_HELD);
    assert_true(large_settle());
    assert_false(large_settle());
    assert_int_equal(head->kind, SPAN_FREE);
    assert_false(run_slice_is_dirty(head, 0));
    assert_true(unit_is_zero(block, bytes));
    assert_valid(run_validate());
}

/* Held blocks take the place of each other: they do not become more without end. */
static void test_no_more_than_some_are_held(void **state) {
    (void)state;
    start(4 * KIB);
    for (int i = 0; i < 2000; i++) assert_true(large_release(head_of(large_take(100000, 1, LARGE_PLAIN))));
    assert_true(fake.guarded_bytes <= 64 * 2 * SLICE_BYTES);
    struct run_totals totals;
    run_totals(&totals);
    assert_true(totals.committed_bytes <= 16 * CHUNK_BYTES);
    assert_valid(run_validate());
}

/* A block that is too much of the address space is not held; where there is no room any more, those that are held are given up. */
static void test_address_space_is_not_used_up(void **state) {
    (void)state;
    fake.reserve_max_bytes = 68 * MIB;
    os_init();
    options.secure = 1;
    guard_init();
    assert_true(region_init(64 * MIB));
    char *block = large_take(10 * MIB, 1, LARGE_PLAIN);
    assert_true(large_release(head_of(block)));
    assert_false(large_settle());
    fake.reserve_max_bytes = 0;
    for (int i = 0; i < 100; i++) assert_true(large_release(head_of(large_take(40000, 1, LARGE_PLAIN))));
    assert_non_null(large_take(60 * MIB, 1, LARGE_PLAIN));
}

static void test_resize_keeps_the_guard(void **state) {
    (void)state;
    start(4 * KIB);
    char *block = large_take(300000, 1, LARGE_PLAIN);
    unit_fill(block, 300000, 7);
    const size_t sizes[] = {310000, 900000, 301000, 5 * MIB, 300000};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        char *moved = large_resize(head_of(block), sizes[i]);
        assert_non_null(moved);
        block = moved;
        const struct span *head = head_of(block);
        assert_true(unit_holds(block, 300000, 7));
        assert_true(head->large.bytes >= sizes[i]);
        assert_int_equal(head->guard, GUARD_MARKS);
        assert_true(head->large.slices * SLICE_BYTES - head->large.bytes >= 4096);
        memset(block + 300000, 1, head->large.bytes - 300000);
    }
    assert_true(large_release(head_of(block)));
    large_settle();
    assert_int_equal(fake.guarded_bytes, 0);
    assert_valid(run_validate());
}

/* The system can refuse: there is no guard then, and the rest is as always. */
static void test_guards_may_fail(void **state) {
    (void)state;
    start(4 * KIB);
    fake_fail(FAKE_GUARD, 1, SIZE_MAX, EINVAL);
    for (int i = 0; i < 200; i++) {
        char *block = large_take(100000, 1, LARGE_PLAIN);
        assert_int_equal(head_of(block)->guard, GUARD_NONE);
        memset(block, 1, 100000);
        assert_true(large_release(head_of(block)));
    }
    large_settle();
    assert_int_equal(fake.guarded_bytes, 0);
    assert_valid(run_validate());
}

static void test_spans_end_in_a_guard(void **state) {
    (void)state;
    start(4 * KIB);
    for (unsigned class = 0; class < CLASSES; class ++) {
        size_t slices = class < TINY_CLASSES ? 1 : mid_slices(class), before = fake.guarded_bytes;
        struct span *span = run_take(slices, 1);
        if (class < TINY_CLASSES)
            tiny_init(span, class);
        else
            mid_init(span, class);
        assert_int_equal(fake.guarded_bytes, before + 4096);
        assert_true((size_t)span->capacity * class_bytes(class) <= slices * SLICE_BYTES - 4096);
        assert_true((span->capacity + 1u) * class_bytes(class) > slices * SLICE_BYTES - 4096 || span->capacity == 192);
        guard_span_clear(span);
        assert_int_equal(fake.guarded_bytes, before);
        if (class >= TINY_CLASSES) mid_clear_inner(span);
        run_release(span, slices, RUN_DIRTY);
    }
    assert_valid(run_validate());
}

/* A page would be a waste where it is as large as a span. */
static void test_large_pages_have_no_guards(void **state) {
    (void)state;
    start(64 * KIB);
    assert_int_equal(guard_bytes(), 0);
    struct span *span = run_take(1, 1);
    tiny_init(span, 0);
    assert_int_equal(span->capacity, SLICE_BYTES / 16);
    assert_int_equal(fake.guarded_bytes, 0);
}

/* On either side of the metadata lies memory that nobody may touch, and nothing of it is ever committed. */
static void test_gaps_around_metadata(void **state) {
    (void)state;
    os_init();
    const size_t sizes[] = {4 * MIB, 64 * MIB, 512 * MIB, 8 * GIB, TIB};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        assert_true(region_init(sizes[i]));
        const struct region *region = &region_main;
        os_lock_take(&run_lock);
        while (region_top(region) < region->size_bytes && region_top(region) < GIB)
            assert_true(region_grow(&region_main, 1));
        os_lock_drop(&run_lock);
        assert_true(fake_is_reserved((char *)region->spans - 64 * KIB, 64 * KIB));
        assert_true(fake_is_reserved((char *)region->base - 64 * KIB, 64 * KIB));
        assert_true((char *)region->bins.summary + region->summary_committed <= (char *)region->base - 64 * KIB);
        memset((void *)&region_main, 0, sizeof region_main);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choose),
        cmocka_unit_test(test_secrets_differ),
        cmocka_unit_test(test_large_block_has_a_guard),
        cmocka_unit_test(test_freed_block_is_held),
        cmocka_unit_test(test_no_more_than_some_are_held),
        cmocka_unit_test(test_address_space_is_not_used_up),
        cmocka_unit_test(test_resize_keeps_the_guard),
        cmocka_unit_test(test_guards_may_fail),
        cmocka_unit_test(test_spans_end_in_a_guard),
        cmocka_unit_test(test_large_pages_have_no_guards),
        cmocka_unit_test(test_gaps_around_metadata),
    };
    return unit_run(tests, COUNT_OF(tests));
}
