/* heap/emergency: the lock-free stack, the mappings, and large blocks that wait. */
#include "heap/emergency.c" /* not only the header: a test looks at the head of the stack */

#include "unit.h"

static void start(void) {
    os_init();
    assert_true(region_init(GIB));
    emergency_init();
}

static bool is_ours(const void *block) { return region_of(block) != NULL; }

static void test_stack(void **state) {
    (void)state;
    start();
    void *first = emergency_take(1, 1), *second = emergency_take(EMERGENCY_BLOCK_BYTES, EMERGENCY_BLOCK_BYTES);
    assert_true(is_ours(first) && is_ours(second) && first != second);
    assert_int_equal((uintptr_t)first % EMERGENCY_BLOCK_BYTES, 0);
    assert_int_equal(region_span(&region_main, first)->kind, SPAN_EMERGENCY);
    assert_int_equal(emergency_put(first), EMERGENCY_FREED);
    assert_int_equal(emergency_put(second), EMERGENCY_FREED);
    assert_true(emergency_take(5, 16) == second); /* last in, first out */
    assert_true(emergency_take(5, 16) == first);
}

/* A handler interrupts the first operation of the process. */
static void test_too_early(void **state) {
    (void)state;
    char *first = emergency_take(10, 1), *second = emergency_take(10, 1);
    assert_true(first != second && fake_is_committed(first, 4 * KIB) && fake_is_committed(second, 4 * KIB));
    assert_true(region_init(GIB));
    emergency_init();
    assert_true(is_ours(emergency_take(10, 1)));
    assert_true(emergency_unmap(first) && emergency_unmap(second));
}

static void test_bad_puts(void **state) {
    (void)state;
    start();
    char *block = emergency_take(10, 1);
    assert_int_equal(emergency_put(block + 16), EMERGENCY_INSIDE);
    assert_int_equal(emergency_put(block + EMERGENCY_BLOCK_BYTES), EMERGENCY_TWICE); /* never handed out */
    assert_int_equal(emergency_put(block), EMERGENCY_FREED);
    assert_int_equal(emergency_put(block), EMERGENCY_TWICE);
    char *other = emergency_take(10, 1);
    assert_true(other == block);
    assert_int_equal(emergency_put(block), EMERGENCY_FREED);
}

static void test_all_of_them(void **state) {
    (void)state;
    start();
    static char *blocks[EMERGENCY_BLOCKS];
    static bool seen[EMERGENCY_BLOCKS];
    char *base = span_start(region_main.spans);
    for (int round = 0; round < 2; round++) {
        memset(seen, 0, sizeof seen);
        for (size_t i = 0; i < EMERGENCY_BLOCKS; i++) {
            blocks[i] = emergency_take(EMERGENCY_BLOCK_BYTES, 1);
            assert_true(is_ours(blocks[i]));
            size_t index = (size_t)(blocks[i] - base) / EMERGENCY_BLOCK_BYTES;
            assert_true(index < EMERGENCY_BLOCKS && !seen[index]);
            seen[index] = true;
            memset(blocks[i], 0xff, EMERGENCY_BLOCK_BYTES); /* what a block holds is nobody's business but its user's */
        }
        char *mapped = emergency_take(1, 1);
        assert_non_null(mapped);
        assert_false(is_ours(mapped));
        assert_true(emergency_unmap(mapped));
        for (size_t i = 0; i < EMERGENCY_BLOCKS; i += 2) assert_int_equal(emergency_put(blocks[i]), EMERGENCY_FREED);
        for (size_t i = 1; i < EMERGENCY_BLOCKS; i += 2) assert_int_equal(emergency_put(blocks[i]), EMERGENCY_FREED);
    }
}

static void test_maps(void **state) {
    (void)state;
    start();
    size_t before = fake_mappings(), charged = fake.charged_bytes;
    char *block = emergency_take(EMERGENCY_BLOCK_BYTES + 1, 1);
    assert_false(is_ours(block));
    assert_int_equal(emergency_mapped_bytes(block), 4096);
    assert_int_equal(emergency_mapped_bytes(block + 1), 0);
    assert_int_equal(emergency_mapped_bytes(NULL), 0);
    memset(block, 1, 4096);
    char *aligned = emergency_take(1, 64 * KIB);
    assert_int_equal((uintptr_t)aligned % (64 * KIB), 0);
    aligned[0] = 1;
    char *large = emergency_take(10 * MIB + 1, 8 * MIB);
    assert_int_equal((uintptr_t)large % (8 * MIB), 0);
    assert_int_equal(emergency_mapped_bytes(large), 10 * MIB + 4096);
    large[10 * MIB] = 1;
    assert_false(emergency_unmap(block + 1));
    assert_true(emergency_unmap(block));
    assert_false(emergency_unmap(block));
    assert_int_equal(emergency_mapped_bytes(block), 0);
    assert_true(emergency_unmap(aligned));
    assert_true(emergency_unmap(large));
    assert_int_equal(fake_mappings(), before);
    assert_int_equal(fake.charged_bytes, charged);
    assert_null(emergency_take(SIZE_MAX, 1));
    assert_null(emergency_take((size_t)PTRDIFF_MAX + 1, 1));
    assert_null(emergency_take(1, (size_t)1 << 63));
}

static void test_table_is_full(void **state) {
    (void)state;
    start();
    void *blocks[256];
    for (size_t i = 0; i < 256; i++) {
        blocks[i] = emergency_take(5000, 1);
        assert_non_null(blocks[i]);
    }
    assert_null(emergency_take(5000, 1));
    assert_non_null(emergency_take(500, 1)); /* from the stack */
    assert_true(emergency_unmap(blocks[100]));
    blocks[100] = emergency_take(5000, 1);
    assert_non_null(blocks[100]);
    for (size_t i = 0; i < 256; i++) assert_true(emergency_unmap(blocks[i]));
}

/* A refused call leaves no entry behind. */
static void test_refused(void **state) {
    (void)state;
    start();
    size_t before = fake_mappings();
    for (int i = 0; i < 300; i++) {
        fake_fail(i % 2 == 0 ? FAKE_RESERVE : FAKE_COMMIT, 1, 1, ENOMEM);
        assert_null(emergency_take(5000, 1));
    }
    assert_int_equal(fake.failed, 300);
    assert_int_equal(fake_mappings(), before);
    fake_heal();
    assert_non_null(emergency_take(5000, 1));
}

static void test_no_stack(void **state) {
    (void)state;
    os_init();
    assert_true(region_init(GIB));
    fake_fail(FAKE_COMMIT, 1, SIZE_MAX, ENOMEM);
    emergency_init();
    assert_null(emergency_take(1, 1));
    fake_heal();
    char *block = emergency_take(1, 1); /* a mapping serves */
    assert_non_null(block);
    assert_false(is_ours(block));
    assert_true(emergency_unmap(block));
}

/* The upper half of the head counts the pops: who has read the head before others popped and pushed the same block again, does not succeed with the
 * successor that it saw. */
static void test_stale_head(void **state) {
    (void)state;
    start();
    char *a = emergency_take(1, 1), *b = emergency_take(1, 1);
    assert_int_equal(emergency_put(b), EMERGENCY_FREED);
    assert_int_equal(emergency_put(a), EMERGENCY_FREED);
    uint64_t stale = emergency_head; /* a slow popper has read a, and b behind it */
    assert_true(emergency_take(1, 1) == a);
    assert_true(emergency_take(1, 1) == b);
    assert_int_equal(emergency_put(a), EMERGENCY_FREED);
    assert_int_equal((uint32_t)emergency_head, (uint32_t)stale); /* a is on top again, b is not behind it */
    assert_int_equal((emergency_head >> 32) - (stale >> 32), 2);
    assert_false(atomic_compare_exchange_strong(&emergency_head, &stale, stale + ((uint64_t)1 << 32)));
    assert_true(emergency_take(1, 1) == a);
    char *fresh = emergency_take(1, 1);
    assert_true(fresh != a && fresh != b);
}

static void test_deferred(void **state) {
    (void)state;
    start();
    emergency_settle(); /* nothing waits */
    struct span *heads[3];
    for (size_t i = 0; i < 3; i++) {
        char *block = large_take(100000 * (i + 1), 1, LARGE_PLAIN);
        heads[i] = region_span(&region_main, block);
        emergency_defer(block);
        assert_int_equal(heads[i]->kind, SPAN_LARGE);
    }
    emergency_settle();
    for (size_t i = 0; i < 3; i++) assert_int_equal(heads[i]->kind, SPAN_FREE);
    assert_valid(run_validate());
    emergency_settle();
}

static void test_deferred_twice(void **state) {
    (void)state;
    start();
    char *block = large_take(100000, 1, LARGE_PLAIN);
    char text[100];
    snprintf(text, sizeof text, "tidemalloc: free(): %p was already free\n", (void *)block);
    assert_fatal(text, {
        alarm(20); /* a list that bites its tail has no end */
        emergency_defer(block);
        emergency_defer(block);
        emergency_settle();
    });
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stack),       cmocka_unit_test(test_too_early),      cmocka_unit_test(test_bad_puts),
        cmocka_unit_test(test_all_of_them), cmocka_unit_test(test_maps),           cmocka_unit_test(test_table_is_full),
        cmocka_unit_test(test_refused),     cmocka_unit_test(test_no_stack),       cmocka_unit_test(test_stale_head),
        cmocka_unit_test(test_deferred),    cmocka_unit_test(test_deferred_twice),
    };
    return unit_run(tests, COUNT_OF(tests));
}
