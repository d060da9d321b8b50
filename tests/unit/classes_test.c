/* tier/classes.h, for every size and every alignment there is. */
#include "tier/classes.h"
#include "unit.h"

static void test_sizes(void **state) {
    (void)state;
    assert_int_equal(class_of_size(0), 0);
    assert_int_equal(class_bytes(0), GRANULE_BYTES);
    assert_int_equal(class_bytes(TINY_CLASSES - 1), TINY_MAX_BYTES);
    assert_int_equal(class_bytes(CLASSES - 1), MID_MAX_BYTES);
    unsigned before = 0;
    for (size_t size = 1; size <= MID_MAX_BYTES; size++) {
        unsigned class = class_of_size(size);
        assert_true(class < CLASSES);
        assert_true(class == before || class == before + 1); /* monotone, and none is left out */
        before = class;
        size_t bytes = class_bytes(class);
        assert_true(bytes >= size);
        assert_true(class == 0 || class_bytes(class - 1) < size); /* the smallest that fits */
        assert_int_equal(class < TINY_CLASSES, size <= TINY_MAX_BYTES);
        if (size > 256)
            assert_true((bytes - size) * 8 < size); /* at most an eighth is wasted */
        else
            assert_true(bytes - size < GRANULE_BYTES);
    }
    assert_int_equal(before, CLASSES - 1);
    for (unsigned class = 0; class < CLASSES; class ++) assert_int_equal(class_of_size(class_bytes(class)), class);
}

static void test_natural_alignment(void **state) {
    (void)state;
    for (unsigned class = 0; class < CLASSES; class ++) {
        assert_int_equal(class_bytes(class) % GRANULE_BYTES, 0);
        if (class >= TINY_CLASSES) assert_int_equal(class_bytes(class) % 128, 0);
    }
    for (size_t power = GRANULE_BYTES; power <= MID_MAX_BYTES; power *= 2)
        assert_int_equal(class_bytes(class_of_size(power)), power);
}

static void test_aligned(void **state) {
    (void)state;
    for (size_t alignment = 1; alignment <= MID_MAX_BYTES; alignment *= 2)
        for (size_t size = 0; size <= MID_MAX_BYTES; size++) {
            unsigned class = class_of_aligned(size, alignment);
            unsigned naive = 0;
            while (naive < CLASSES && (class_bytes(naive) < size || class_bytes(naive) % alignment != 0)) naive++;
            assert_int_equal(class, naive);
        }
    assert_int_equal(class_of_aligned(1, 2 * MID_MAX_BYTES), CLASSES);
    assert_int_equal(class_of_aligned(MID_MAX_BYTES + 1, 1), CLASSES);
    assert_int_equal(class_of_aligned(SIZE_MAX, 1), CLASSES);
    assert_int_equal(class_of_aligned(SIZE_MAX, (size_t)1 << 63), CLASSES);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sizes), cmocka_unit_test(test_natural_alignment),
                                       cmocka_unit_test(test_aligned)};
    return unit_run(tests, COUNT_OF(tests));
}
