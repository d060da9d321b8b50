/* tier/tiny: carving, the list and its keys, and the test for a block's start against a division. */
#include "os/os.h"
#include "span/run.h"
#include "tier/tiny.h"
#include "unit.h"

static struct span *fresh(unsigned class) {
    if (os_page_bytes == 0) {
        os_init();
        assert_true(region_init(GIB));
    }
    struct span *span = run_take(1, 1);
    assert_non_null(span);
    tiny_init(span, class);
    assert_valid(tiny_validate(span, true));
    return span;
}

/* Every span touches the pages of its carved blocks and no other, and blocks come in order. */
static void carve_all(size_t page_bytes) {
    fake.page_bytes = page_bytes;
    for (unsigned class = 0; class < TINY_CLASSES; class ++) {
        struct span *span = fresh(class);
        size_t bytes = class_bytes(class);
        assert_int_equal(span->capacity, SLICE_BYTES / bytes);
        assert_null(tiny_pop(span));
        unsigned carves = 0;
        char *expected = span_start(span);
        while (tiny_carve(span)) {
            carves++;
            assert_valid(tiny_validate(span, true));
            size_t limit = (size_t)span->carved * bytes;
            size_t step = limit <= 16 * KIB + bytes ? page_bytes : 4 * page_bytes;
            assert_true(fake_resident_bytes(span_start(span), SLICE_BYTES) <= size_round_up(limit, page_bytes));
            assert_true(limit <= (size_t)(expected - span_start(span)) + size_min(step, SLICE_BYTES) + bytes);
            for (void *block; (block = tiny_pop(span)) != NULL; expected += bytes) {
                assert_true(block == expected);
                assert_true(((struct block *)block)->key == 0);
            }
            assert_int_equal((size_t)(expected - span_start(span)), limit);
        }
        assert_int_equal(span->carved, span->capacity);
        assert_int_equal(span->used, span->capacity);
        assert_true(carves >= size_max(SLICE_BYTES / page_bytes / 4, 1));
        run_release(span, 1, RUN_DIRTY);
        size_t kept = 0;
        run_purge(&kept); /* so that the next one starts untouched */
    }
}

static void test_carve_4k(void **state) {
    (void)state;
    carve_all(4 * KIB);
}
static void test_carve_16k(void **state) {
    (void)state;
    carve_all(16 * KIB);
}
static void test_carve_64k(void **state) {
    (void)state;
    carve_all(64 * KIB);
}

static void test_is_block(void **state) {
    (void)state;
    for (unsigned class = 0; class < TINY_CLASSES; class ++) {
        struct span *span = fresh(class);
        uint32_t bytes = (uint32_t)class_bytes(class);
        assert_false(tiny_is_block(span, 0)); /* not carved */
        for (int carves = 0; carves < 20; carves++) {
            bool more = tiny_carve(span);
            for (uint32_t offset = 0; offset < SLICE_BYTES; offset++)
                if (tiny_is_block(span, offset) != (offset % bytes == 0 && offset / bytes < span->carved))
                    fail_msg("class %u, offset %u, %u blocks carved", class, offset, span->carved);
            if (!more) break;
        }
        run_release(span, 1, RUN_DIRTY);
    }
}

static void test_push_pop(void **state) {
    (void)state;
    struct span *span = fresh(class_of_size(48));
    assert_true(tiny_carve(span));
    struct block *a = tiny_pop(span), *b = tiny_pop(span);
    assert_int_equal(span->used, 2);
    assert_false(tiny_is_free(span, a));
    tiny_push(span, a);
    assert_true(tiny_is_free(span, a));
    assert_true(a->key == tiny_key(span, a));
    assert_true(a->key != tiny_key(span, b));
    assert_false(tiny_is_free(span, b));
    tiny_push(span, b);
    assert_true(tiny_pop(span) == b); /* last in, first out */
    assert_true(b->key == 0);
    assert_true(tiny_pop(span) == a);
    assert_int_equal(tiny_offset(a), 0);
    assert_int_equal(tiny_offset(b), 48);
    assert_valid(tiny_validate(span, true));
}

static void test_random(void **state) {
    (void)state;
    struct unit_random random = {11};
    for (unsigned class = 0; class < TINY_CLASSES; class += 3) {
        struct span *span = fresh(class);
        static void *live[SLICE_BYTES / GRANULE_BYTES];
        size_t count = 0;
        for (int step = 0; step < 3000; step++) {
            if (unit_random(&random, 5) < 3) {
                void *block = tiny_pop(span);
                if (block == NULL && tiny_carve(span)) block = tiny_pop(span);
                if (block == NULL) {
                    assert_int_equal(count, span->capacity);
                    continue;
                }
                unit_fill(block, class_bytes(class), (uintptr_t)block / 16);
                live[count++] = block;
            } else if (count > 0) {
                size_t pick = unit_random(&random, count);
                assert_true(unit_holds(live[pick], class_bytes(class), (uintptr_t)live[pick] / 16));
                tiny_push(span, live[pick]);
                live[pick] = live[--count];
            }
            assert_int_equal(span->used, count);
            if (step % 50 == 0) assert_valid(tiny_validate(span, true));
        }
        assert_valid(tiny_validate(span, true));
        run_release(span, 1, RUN_DIRTY);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_carve_4k), cmocka_unit_test(test_carve_16k), cmocka_unit_test(test_carve_64k),
        cmocka_unit_test(test_is_block), cmocka_unit_test(test_push_pop),  cmocka_unit_test(test_random),
    };
    return unit_run(tests, COUNT_OF(tests));
}
