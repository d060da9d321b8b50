/* tier/large: taking, clearing, resizing in place and by moving pages. */
#include <errno.h>

#include "span/run.h"
#include "tier/large.h"
#include "unit.h"

static void start(size_t page_bytes) {
    fake.page_bytes = page_bytes;
    os_init();
    assert_true(region_init(4 * GIB));
}

static void *take(size_t size, size_t alignment, bool zero) {
    return large_take(size, alignment, zero ? LARGE_ZERO : LARGE_PLAIN);
}

static struct span *head_of(void *block) { return region_span(region_of(block), block); }

static size_t dirty_bytes(void) {
    struct run_totals totals;
    run_totals(&totals);
    return totals.dirty_bytes;
}

static void release(void *block) {
    assert_true(large_release(head_of(block)));
    assert_valid(run_validate());
}

static void take_and_release(size_t page_bytes) {
    start(page_bytes);
    const size_t sizes[] = {0, 1, 4096, 32769, 65536, 65537, 100000, MIB, MIB + 1, 5 * MIB + 4097};
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        for (size_t alignment = 1; alignment <= 8 * MIB; alignment *= 16) {
            char *block = take(sizes[i], alignment, i % 2 == 0);
            assert_non_null(block);
            assert_int_equal((uintptr_t)block % alignment, 0);
            struct span *head = head_of(block);
            assert_int_equal(head->kind, SPAN_LARGE);
            assert_int_equal(head->large.bytes, size_round_up(size_max(sizes[i], 1), page_bytes));
            assert_int_equal(head->large.slices, (head->large.bytes + SLICE_BYTES - 1) / SLICE_BYTES);
            if (i % 2 == 0) assert_true(unit_is_zero(block, head->large.bytes));
            memset(block, 0xee, head->large.bytes);
            for (size_t s = 0; s < head->large.slices; s++) assert_true(large_around(head + s) == head);
            assert_true(large_around(head + head->large.slices) != head);
            release(block);
            assert_false(large_release(head)); /* a second one is refused */
        }
    assert_null(take(SIZE_MAX, 1, false));
    assert_null(take((size_t)PTRDIFF_MAX, 1, false));
    assert_null(take((size_t)PTRDIFF_MAX + 1, 1, false));
    assert_null(take(64 * TIB, 1, false));
    assert_null(take(1, (size_t)1 << 62, false));
    assert_int_equal(fake_locks_held(), 0);
}

static void test_take_4k(void **state) {
    (void)state;
    take_and_release(4 * KIB);
}
static void test_take_64k(void **state) {
    (void)state;
    take_and_release(64 * KIB);
}

enum { TAILED = 12 };
static char *tailed[TAILED];

/* Blocks of 1.5 slices in the places of longer ones. */
static void tailed_take(void) {
    for (int i = 0; i < TAILED; i++) {
        tailed[i] = take(2 * SLICE_BYTES, 1, false);
        memset(tailed[i], 1, 2 * SLICE_BYTES);
    }
    for (int i = 0; i < TAILED; i++) release(tailed[i]);
    assert_false(large_wants_trim());
    for (int i = 0; i < TAILED; i++) {
        tailed[i] = take(SLICE_BYTES + SLICE_BYTES / 2, 1, i % 2 == 0);
        memset(tailed[i], 2, SLICE_BYTES + SLICE_BYTES / 2);
    }
}

static size_t trim_all(void) {
    struct large_trim trim = {0};
    while (large_trim_step(&trim)) {}
    assert_valid(run_validate());
    assert_int_equal(fake_locks_held(), 0);
    return trim.returned_bytes;
}

static bool all_are(const char *bytes, char value, size_t count) {
    return bytes[0] == value && memcmp(bytes, bytes + 1, count - 1) == 0;
}

/* What lies behind the last bytes goes, and nothing else; the block can grow into it again. */
static void test_tails(void **state) {
    (void)state;
    start(4 * KIB);
    tailed_take();
    assert_true(large_wants_trim());
    assert_int_equal(trim_all(), TAILED * SLICE_BYTES / 2);
    assert_false(large_wants_trim());
    assert_int_equal(trim_all(), 0);
    for (int i = 0; i < TAILED; i++) {
        assert_true(all_are(tailed[i], 2, SLICE_BYTES + SLICE_BYTES / 2));
        assert_int_equal(fake_resident_bytes(tailed[i], 2 * SLICE_BYTES), SLICE_BYTES + SLICE_BYTES / 2);
        assert_true(large_resize(head_of(tailed[i]), 2 * SLICE_BYTES) == tailed[i]);
        memset(tailed[i], 3, 2 * SLICE_BYTES);
    }
    assert_int_equal(trim_all(), 0);
    for (int i = 0; i < TAILED; i++) {
        assert_true(all_are(tailed[i], 3, 2 * SLICE_BYTES));
        assert_true(large_resize(head_of(tailed[i]), SLICE_BYTES + 4096) == tailed[i]); /* has a tail again */
    }
    assert_true(large_wants_trim());
    large_trim_break();
    assert_true(large_wants_trim());
    assert_int_equal(trim_all(), TAILED * (SLICE_BYTES - 4096));
    for (int i = 0; i < TAILED; i++) assert_true(all_are(tailed[i], 3, SLICE_BYTES + 4096));
    for (int i = 0; i < TAILED; i++) release(tailed[i]);
}

/* Clean slices have none; locked ones stay, and are not tried again. */
static void test_tails_that_stay(void **state) {
    (void)state;
    start(4 * KIB);
    for (int i = 0; i < TAILED; i++) tailed[i] = take(SLICE_BYTES + 1, 1, false);
    assert_false(large_wants_trim());
    for (int i = 0; i < TAILED; i++) release(tailed[i]);
    struct run_purge purge = {.limit_bytes = SIZE_MAX};
    while (run_purge_step(&purge)) {}
    tailed_take();
    fake_fail(FAKE_PURGE, 1, SIZE_MAX, EINVAL);
    assert_int_equal(trim_all(), 0);
    for (int i = 0; i < TAILED; i++) assert_true(all_are(tailed[i], 2, SLICE_BYTES + SLICE_BYTES / 2));
    for (int i = 0; i < TAILED; i++) release(tailed[i]);
}

/* Clean slices are not written when a block is cleared, dirty ones are. */
static void test_clears_dirty_slices_only(void **state) {
    (void)state;
    start(4 * KIB);
    char *low = take(3 * SLICE_BYTES, 1, false);
    memset(low, 1, 3 * SLICE_BYTES);
    release(low);
    char *block = take(10 * SLICE_BYTES - 5000, 1, true);
    assert_true(block == low);
    assert_int_equal(fake_resident_bytes(block, 10 * SLICE_BYTES), 3 * SLICE_BYTES);
    assert_true(unit_is_zero(block, 10 * SLICE_BYTES));
    assert_int_equal(fake.count[FAKE_PURGE], 0);
    memset(block, 1, 10 * SLICE_BYTES - 5000);
    release(block);

    block = take(64 * MIB, 1, false);
    memset(block, 1, 64 * MIB);
    release(block);
    block = take(65 * MIB, 1, true); /* much used memory is given back instead */
    assert_int_equal(fake.count[FAKE_PURGE], 1);
    assert_int_equal(fake_resident_bytes(block, 65 * MIB), 0);
    memset(block, 1, 65 * MIB);
    release(block);
    fake_fail(FAKE_PURGE, 1, 1, EINVAL); /* locked: then it is cleared by hand */
    block = take(65 * MIB, 1, true);
    assert_int_equal(fake.failed, 1);
    assert_true(unit_is_zero(block, 65 * MIB));
}

static void test_resize_in_place(void **state) {
    (void)state;
    start(4 * KIB);
    char *block = take(100000, 1, false);
    struct span *head = head_of(block);
    unit_fill(block, 100000, 1);
    assert_true(large_resize(head, 110000) == block); /* within its slices */
    assert_int_equal(head->large.bytes, size_round_up(110000, 4096));
    assert_true(large_resize(head, 20 * SLICE_BYTES) == block);
    assert_true(unit_holds(block, 100000, 1));
    unit_fill(block, 20 * SLICE_BYTES, 2);
    assert_true(large_resize(head, 3 * SLICE_BYTES) == block);
    assert_int_equal(dirty_bytes(), 17 * SLICE_BYTES); /* the tail is free */
    assert_true(unit_holds(block, 3 * SLICE_BYTES, 2));
    assert_valid(run_validate());
    char *wall = take(40000, 1, false);
    assert_true(wall == block + 3 * SLICE_BYTES);
    assert_null(large_resize(head, 3 * SLICE_BYTES + 1)); /* too small to be moved by page tables */
    assert_null(large_resize(head, SIZE_MAX));
    assert_null(large_resize(head, 64 * TIB));
    assert_int_equal(head->large.bytes, 3 * SLICE_BYTES);
    assert_true(unit_holds(block, 3 * SLICE_BYTES, 2));
    release(block);
    release(wall);
}

/* A block that moves: its pages come along, its old place is clean, and mappings heal when it goes. */
static void test_move(void **state) {
    (void)state;
    start(4 * KIB);
    size_t have = 2 * MIB, want = 5 * MIB;
    char *block = take(have, 1, false);
    char *wall = take(40000, 1, false);
    assert_true(wall == block + have);
    char *extra = take(16 * MIB, 1, false); /* so that no growth is in the way of the count */
    release(extra);
    size_t mappings = fake_mappings();
    unit_fill(block, have, 3);
    char *moved = large_resize(head_of(block), want);
    assert_non_null(moved);
    assert_true(moved != block);
    assert_int_equal(fake.count[FAKE_MOVE], 1);
    assert_true(unit_holds(moved, have, 3));
    assert_int_equal(head_of(moved)->large.bytes, want);
    assert_int_equal(fake_resident_bytes(block, have), 0);
    assert_false(run_slice_is_dirty(head_of(block), 0)); /* clean, and so counted */
    struct span *target = head_of(moved);
    for (size_t i = 0; i < want / SLICE_BYTES; i++) assert_false(run_was_used(target + i)); /* it is not free */
    assert_true(fake_mappings() > mappings);
    assert_valid(run_validate());

    unit_fill(moved, want, 4);
    assert_true(large_resize(head_of(moved), 3 * MIB) == moved); /* its tail is renewed, so it is clean */
    assert_true(fake.count[FAKE_RENEW] == 1);
    assert_int_equal(fake_resident_bytes(moved + 3 * MIB, 2 * MIB), 0);
    assert_false(run_slice_is_dirty(head_of(moved) + 3 * MIB / SLICE_BYTES, 0));
    assert_true(unit_holds(moved, 3 * MIB, 4));
    release(moved);
    assert_int_equal(fake_resident_bytes(moved, want), 0);
    assert_int_equal(fake_mappings(), mappings);
    char *zero = take(5 * MIB, 1, true);
    assert_true(unit_is_zero(zero, 5 * MIB));
    release(zero);
    release(wall);
}

/* A stretch that lies in two mappings is moved in parts. */
static void test_move_of_two_mappings(void **state) {
    (void)state;
    start(4 * KIB);
    char *block = take(2 * MIB, 1, false);
    char *wall = take(40000, 1, false);
    unit_fill(block, 2 * MIB, 5);
    char *moved = large_resize(head_of(block), 3 * MIB); /* one mapping of 2 MiB, one of 1 MiB */
    unit_fill(moved, 3 * MIB, 6);
    char *wall2 = NULL; /* right behind it */
    for (int i = 0; i < 32 && wall2 != moved + 3 * MIB; i++) wall2 = take(MIB, 1, false);
    assert_true(wall2 == moved + 3 * MIB);
    fake.count[FAKE_MOVE] = 0;
    char *again = large_resize(head_of(moved), 4 * MIB);
    assert_non_null(again);
    assert_true(again != moved);
    assert_true(fake.count[FAKE_MOVE] > 2);
    assert_true(unit_holds(again, 3 * MIB, 6));
    assert_int_equal(fake_resident_bytes(moved, 3 * MIB), 0);
    release(again);
    release(wall);
    release(wall2);
    assert_int_equal(fake_locks_held(), 0);
}

/* The kernel may refuse to move, all or from some call on: then bytes are copied, and the old place is dirty unless it could be renewed. */
static void move_refused(size_t nth, size_t count) {
    start(4 * KIB);
    char *block = take(2 * MIB, 1, false);
    char *wall = take(40000, 1, false);
    unit_fill(block, 2 * MIB, 7);
    fake_fail(FAKE_MOVE, nth, count, ENOMEM);
    char *moved = large_resize(head_of(block), 5 * MIB);
    assert_true(fake.failed > 0);
    assert_non_null(moved);
    assert_true(unit_holds(moved, 2 * MIB, 7));
    assert_int_equal(run_slice_is_dirty(head_of(block), 0), fake_resident_bytes(block, 2 * MIB) > 0);
    fake_heal();
    char *zero = take(2 * MIB, 1, true);
    assert_true(zero == block);
    assert_true(unit_is_zero(zero, 2 * MIB));
    release(moved);
    release(zero);
    release(wall);
}

/* A move that the kernel refuses may cost its target; under a limit on address space nobody could bring that back. */
static void test_no_move_under_a_limit(void **state) {
    (void)state;
    fake.address_space_limit = 64 * GIB;
    start(4 * KIB);
    char *block = take(2 * MIB, 1, false);
    char *wall = take(40000, 1, false);
    unit_fill(block, 2 * MIB, 9);
    assert_null(large_resize(head_of(block), 5 * MIB));
    assert_int_equal(fake.count[FAKE_MOVE], 0);
    assert_true(unit_holds(block, 2 * MIB, 9));
    release(wall);
    assert_true(large_resize(head_of(block), 5 * MIB) == block); /* in place it goes */
    release(block);
}

static void test_move_refused(void **state) {
    (void)state;
    move_refused(1, SIZE_MAX);
}
static void test_move_refused_once(void **state) {
    (void)state;
    move_refused(1, 1);
}

/* Whatever call fails while a block is moved, shrunk and freed, no byte of it is lost and clean memory is clean. */
static void test_move_with_any_failure(void **state) {
    (void)state;
    for (size_t nth = 1;; nth++) {
        int status;
        UNIT_IN_CHILD(status, {
            start(4 * KIB);
            char *block = take(2 * MIB, 1, false);
            char *wall = take(40000, 1, false);
            unit_fill(block, 2 * MIB, 8);
            size_t failed = fake.failed;
            fake_fail(FAKE_ANY, nth, 1 + nth % 3, ENOMEM);
            char *moved = large_resize(head_of(block), 5 * MIB);
            if (moved == NULL) moved = block;
            assert_true(unit_holds(moved, 2 * MIB, 8));
            moved = large_resize(head_of(moved), MIB + 1);
            assert_true(unit_holds(moved, MIB + 1, 8));
            release(moved);
            bool reached = fake.failed > failed;
            fake_heal();
            char *zero = take(20 * MIB, 1, true);
            assert_non_null(zero);
            assert_true(unit_is_zero(zero, 20 * MIB));
            release(zero);
            release(wall);
            assert_int_equal(fake_locks_held(), 0);
            _exit(reached ? 0 : 3);
        });
        if (WIFEXITED(status) && WEXITSTATUS(status) == 3) {
            assert_true(nth > 3); /* several calls were there to fail */
            return;
        }
        assert_int_equal(status, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_take_4k),
        cmocka_unit_test(test_take_64k),
        cmocka_unit_test(test_clears_dirty_slices_only),
        cmocka_unit_test(test_tails),
        cmocka_unit_test(test_tails_that_stay),
        cmocka_unit_test(test_resize_in_place),
        cmocka_unit_test(test_move),
        cmocka_unit_test(test_move_of_two_mappings),
        cmocka_unit_test(test_no_move_under_a_limit),
        cmocka_unit_test(test_move_refused),
        cmocka_unit_test(test_move_refused_once),
        cmocka_unit_test(test_move_with_any_failure),
    };
    return unit_run(tests, COUNT_OF(tests));
}
