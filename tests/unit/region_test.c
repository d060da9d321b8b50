/* span/region.c: reserving, growing, failing in each place, trimming, several regions. */
#include "span/region.h"
#include "span/run.h"
#include "unit.h"

static void start(size_t bytes) {
    os_init();
    assert_true(region_init(bytes));
}

static bool grow(struct region *region, size_t chunks) {
    os_lock_take(&run_lock);
    bool done = region_grow(region, chunks);
    os_lock_drop(&run_lock);
    return done;
}

static void test_reserve(void **state) {
    (void)state;
    start(TIB);
    assert_true(region_main.size_bytes == TIB);
    assert_int_equal(region_main.base % CHUNK_BYTES, 0);
    assert_int_equal(fake.count[FAKE_RESERVE], 1);
    assert_int_equal(fake.count[FAKE_COMMIT], 0); /* nothing is charged before it is needed */
    assert_true(fake.huge_forbidden_bytes == fake_reserved_bytes());
    assert_true(fake_reserved_bytes() > TIB && fake_reserved_bytes() < TIB + TIB / 256); /* metadata below 1 % */
    assert_false(region_has_reserved((char *)region_main.base - 1));
    assert_true(region_has_reserved((char *)region_main.base));
    assert_true(region_has_reserved((char *)region_main.base + TIB - 1));
    assert_false(region_has_reserved((char *)region_main.base + TIB));
    assert_null(region_of((char *)region_main.base));
}

static void test_reserve_is_halved(void **state) {
    (void)state;
    fake.reserve_max_bytes = 300 * MIB;
    start(GIB);
    assert_true(region_main.size_bytes == 256 * MIB);
    assert_int_equal(fake.count[FAKE_RESERVE], 3);
}

static void test_reserve_of_the_least(void **state) {
    (void)state;
    fake.reserve_max_bytes = 7 * MIB;
    start(GIB);
    assert_true(region_main.size_bytes == 2 * CHUNK_BYTES);
    assert_true(grow(&region_main, 2));
    assert_false(grow(&region_main, 1));
}

static void test_reserve_refused(void **state) {
    (void)state;
    os_init();
    fake.reserve_max_bytes = 5 * MIB;
    assert_false(region_init(GIB));
    assert_true(region_main.base == 0);
    assert_int_equal(fake_mappings(), 0);
    fake.reserve_max_bytes = SIZE_MAX;
    assert_true(region_init(GIB)); /* later it may work */
}

static void test_quarter_of_the_limit(void **state) {
    (void)state;
    fake.address_space_limit = 1000 * MIB;
    start(TIB);
    assert_true(region_main.size_bytes == 250 * MIB);
}

static void test_tiny_limit(void **state) {
    (void)state;
    fake.address_space_limit = 3 * MIB; /* a quarter of it is less than anything of use */
    start(TIB);
    assert_true(region_main.size_bytes == 2 * CHUNK_BYTES);
}

static void check_committed(const struct region *region) {
    size_t chunks = region_top(region) / CHUNK_BYTES;
    if (chunks == 0) return;
    size_t groups = (chunks + 63) / 64;
    assert_true(fake_is_committed((void *)region->base, region_top(region)));
    assert_true(fake_is_committed(region->spans, chunks * CHUNK_SLICES * sizeof *region->spans));
    assert_true(fake_is_committed(region->chunks, chunks * sizeof *region->chunks));
    assert_true(fake_is_committed(region->bins.words, groups * BIN_COUNT * sizeof(uint64_t)));
    assert_true(fake_is_committed(region->bins.summary, (groups + 63) / 64 * BIN_COUNT * sizeof(uint64_t)));
    assert_int_equal(region->metadata_bytes, region->spans_committed + region->chunks_committed +
                                                 region->words_committed + region->summary_committed);
    assert_valid(run_validate());
}

static void grow_to_the_end(size_t page_bytes) {
    fake.page_bytes = page_bytes;
    start(512 * MIB); /* 256 chunks: four groups */
    size_t top = 0;
    while (grow(&region_main, 1)) {
        size_t now = region_top(&region_main), step = now - top;
        assert_true(step >= CHUNK_BYTES && step <= size_max(top / 8, CHUNK_BYTES));
        top = now;
        check_committed(&region_main);
    }
    assert_int_equal(top, 512 * MIB);
    assert_true(fake.count[FAKE_COMMIT] < 120);
    assert_int_equal(region_main.bins.count[bins_index(CHUNK_SLICES, false)], 256);
    assert_true(region_main.metadata_bytes < top / 100);
    assert_true(region_of((char *)region_main.base + top - 1) == &region_main);
    assert_false(grow(&region_main, SIZE_MAX / 2));
}

static void test_grow_4k(void **state) {
    (void)state;
    grow_to_the_end(4 * KIB);
}
static void test_grow_16k(void **state) {
    (void)state;
    grow_to_the_end(16 * KIB);
}
static void test_grow_64k(void **state) {
    (void)state;
    grow_to_the_end(64 * KIB);
}

/* The first growth commits spans, chunks, words, summary and the memory: each may be refused, and what was granted is not asked for again. */
static void test_commit_fails_in_each_place(void **state) {
    (void)state;
    start(GIB);
    for (size_t granted = 0; granted < 5; granted++) {
        fake_fail(FAKE_COMMIT, granted == 0 ? 1 : 2, 1, ENOMEM); /* one more is granted each time */
        assert_false(grow(&region_main, 1));
        assert_int_equal(fake.failed, granted + 1);
        assert_int_equal(fake.count[FAKE_COMMIT], granted == 0 ? 1 : 1 + 2 * granted);
        assert_int_equal(region_top(&region_main), 0);
        assert_null(region_of((void *)region_main.base));
        assert_true(fake.charged_bytes == region_main.metadata_bytes);
    }
    fake_heal();
    assert_true(grow(&region_main, 1));
    check_committed(&region_main);
    assert_true(fake.charged_bytes == CHUNK_BYTES + region_main.metadata_bytes);
    assert_int_equal(fake.count[FAKE_COMMIT], 10);
}

static void test_step_falls_back_to_what_is_needed(void **state) {
    (void)state;
    start(GIB);
    assert_true(grow(&region_main, 64));
    fake_fail(FAKE_COMMIT, 1, 1, ENOMEM); /* the memory of a step of 8 chunks; the metadata is there */
    size_t failed = fake.failed;
    while (fake.failed == failed) assert_true(grow(&region_main, 1));
    check_committed(&region_main);
    fake.budget_bytes = fake.charged_bytes + CHUNK_BYTES + 256 * KIB;
    size_t top = region_top(&region_main);
    assert_true(grow(&region_main, 1));
    assert_int_equal(region_top(&region_main), top + CHUNK_BYTES);
    assert_false(grow(&region_main, 1));
    check_committed(&region_main);
}

static void trim(size_t keep) {
    os_lock_take(&run_lock);
    region_trim(keep);
    os_lock_drop(&run_lock);
}

static void test_trim(void **state) {
    (void)state;
    start(64 * GIB);
    assert_true(grow(&region_main, 3));
    size_t before = fake_reserved_bytes();
    trim(100 * MIB + 1);
    assert_true(region_main.size_bytes == 108 * MIB);
    assert_true(fake_reserved_bytes() < before / 64);
    check_committed(&region_main);
    trim(GIB); /* never grows */
    assert_true(region_main.size_bytes == 108 * MIB);
    trim(9 * MIB);
    assert_true(region_main.size_bytes == 16 * MIB);
    assert_true(grow(&region_main, 5));
    assert_false(grow(&region_main, 1));
    check_committed(&region_main);
    trim(0);
    assert_true(region_main.size_bytes == 16 * MIB);
    assert_true(fake_reserved_bytes() < 19 * MIB);
    assert_false(region_has_reserved((char *)region_main.base + 16 * MIB));
    check_committed(&region_main);
}

/* A growth whose metadata was granted and whose memory was not leaves arrays committed beyond what is kept. */
static void test_trim_after_a_refused_growth(void **state) {
    (void)state;
    start(64 * GIB);
    assert_true(grow(&region_main, 3));
    size_t words = region_main.words_committed, chunks = region_main.chunks_committed;
    fake_fail(FAKE_COMMIT, 4, 1, ENOMEM); /* spans, chunks, words, memory */
    assert_false(grow(&region_main, 20000));
    assert_true(region_main.words_committed > words && region_main.chunks_committed > chunks);
    trim(0);
    assert_true(fake_is_committed(region_main.spans, region_main.spans_committed));
    assert_true(fake_is_committed(region_main.chunks, region_main.chunks_committed));
    assert_true(fake_is_committed(region_main.bins.words, region_main.words_committed));
    assert_true(fake_is_committed(region_main.bins.summary, region_main.summary_committed));
    check_committed(&region_main);
    os_lock_take(&run_lock);
    run_repair();
    check_committed(&region_main);
}

static void test_trim_of_an_empty_one(void **state) {
    (void)state;
    start(64 * GIB);
    trim(0);
    assert_true(region_main.size_bytes == 0);
    assert_false(grow(&region_main, 1));
    assert_valid(run_validate());
    struct span *span = run_take(1, 1); /* from a second region */
    assert_non_null(span);
    assert_true(region_of_span(span) != &region_main);
    *(volatile char *)span_start(span) = 1;
    run_release(span, 1, RUN_DIRTY);
    assert_valid(run_validate());
}

static struct region *add(size_t bytes) {
    os_lock_take(&run_lock);
    struct region *region = region_add(bytes);
    os_lock_drop(&run_lock);
    return region;
}

static void drop(struct region *region) {
    os_lock_take(&run_lock);
    region_drop(region);
    os_lock_drop(&run_lock);
}

static void test_add_and_drop(void **state) {
    (void)state;
    os_init();
    assert_null(add(MIB)); /* before the first */
    assert_true(region_init(32 * MIB));
    assert_null(add(32 * MIB)); /* the first has room */
    struct region *second = add(32 * MIB + 1);
    assert_non_null(second);
    assert_true(second->size_bytes == 34 * MIB);
    size_t mappings = fake_mappings();
    assert_true(grow(second, 2));
    check_committed(second);
    void *address = (char *)second->base + 3 * MIB;
    assert_true(region_of(address) == second);
    assert_true(region_of_span(region_span(second, address)) == second);
    assert_true(span_start(region_span(second, address)) == (char *)address);
    drop(second);
    assert_null(region_of(address));
    assert_false(region_has_reserved(address));
    assert_int_equal(fake_mappings(), mappings - 1);
    assert_valid(run_validate());

    struct region *third = add(100 * MIB); /* in the struct of the second */
    assert_true(third == second);
    assert_true(third->size_bytes == 100 * MIB);
    assert_true(grow(third, 1));
    assert_int_equal(fake.count[FAKE_MAP], 1);
    check_committed(third);
}

static void test_added_region_is_halved(void **state) {
    (void)state;
    start(GIB);
    fake.reserve_max_bytes = 30 * MIB;
    assert_null(add(GIB + 1)); /* less than the wish is no use */
    assert_true(grow(&region_main, 512));
    struct region *region = add(MIB);
    assert_non_null(region);
    assert_true(region->size_bytes == 16 * MIB); /* half of the first, halved until it was granted */
    assert_null(add(16 * MIB));
    assert_non_null(add(17 * MIB));
}

static void test_add_without_memory_for_its_struct(void **state) {
    (void)state;
    start(4 * MIB);
    fake_fail(FAKE_MAP, 1, 1, ENOMEM);
    assert_null(add(5 * MIB));
    assert_int_equal(fake.failed, 1);
    assert_null(region_main.next);
    assert_non_null(add(5 * MIB));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reserve),
        cmocka_unit_test(test_reserve_is_halved),
        cmocka_unit_test(test_reserve_of_the_least),
        cmocka_unit_test(test_reserve_refused),
        cmocka_unit_test(test_quarter_of_the_limit),
        cmocka_unit_test(test_tiny_limit),
        cmocka_unit_test(test_grow_4k),
        cmocka_unit_test(test_grow_16k),
        cmocka_unit_test(test_grow_64k),
        cmocka_unit_test(test_commit_fails_in_each_place),
        cmocka_unit_test(test_step_falls_back_to_what_is_needed),
        cmocka_unit_test(test_trim),
        cmocka_unit_test(test_trim_after_a_refused_growth),
        cmocka_unit_test(test_trim_of_an_empty_one),
        cmocka_unit_test(test_add_and_drop),
        cmocka_unit_test(test_added_region_is_halved),
        cmocka_unit_test(test_add_without_memory_for_its_struct),
    };
    return unit_run(tests, COUNT_OF(tests));
}
