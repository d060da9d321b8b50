/* span/bins.h against a list of chunks, with more chunks than one word of the summary covers. */
#include "span/bins.h"
#include "unit.h"

#define CHUNKS 9000u
#define GROUPS ((CHUNKS + 63) / 64)
#define OUTER ((GROUPS + 63) / 64)

static uint64_t words[GROUPS * BIN_COUNT], summary[OUTER * BIN_COUNT];
static struct bins bins = {.words = words, .summary = summary};
static unsigned bin_of[CHUNKS];

static void check(void) {
    for (unsigned bin = 0; bin < BIN_COUNT; bin++) {
        size_t count = 0, lowest = BIN_NONE;
        for (size_t i = CHUNKS; i-- > 0;)
            if (bin_of[i] == bin) {
                count++;
                lowest = i;
            }
        assert_int_equal(bins.count[bin], count);
        assert_int_equal(bins.occupied >> bin & 1, count > 0);
        if (count > 0) assert_int_equal(bins_lowest(&bins, bin), lowest);
    }
}

static void test_against_a_list(void **state) {
    (void)state;
    for (size_t i = 0; i < CHUNKS; i++) bin_of[i] = BIN_COUNT;
    check();
    struct unit_random random = {3};
    for (unsigned step = 0; step < 60000; step++) {
        size_t chunk = unit_random(&random, CHUNKS);
        unsigned bin = (unsigned)unit_random(&random, step % 3 == 0 ? BIN_COUNT : 3);
        if (bin_of[chunk] == BIN_COUNT) {
            bins_insert(&bins, bin, chunk);
            bin_of[chunk] = bin;
        } else {
            bins_remove(&bins, bin_of[chunk], chunk);
            bin_of[chunk] = BIN_COUNT;
        }
        if (step % 2000 == 0) check();
    }
    for (size_t i = 0; i < CHUNKS; i++)
        if (bin_of[i] != BIN_COUNT) {
            bins_remove(&bins, bin_of[i], i);
            bin_of[i] = BIN_COUNT;
        }
    check();
    assert_true(bins.occupied == 0);
    assert_true(unit_is_zero(words, sizeof words));
    assert_true(unit_is_zero(summary, sizeof summary));
}

static void test_index(void **state) {
    (void)state;
    bool seen[BIN_COUNT] = {false};
    for (unsigned longest = 1; longest <= 32; longest++)
        for (unsigned dirty = 0; dirty < 2; dirty++) {
            unsigned bin = bins_index(longest, dirty != 0);
            assert_true(bin < BIN_COUNT);
            assert_false(seen[bin]);
            seen[bin] = true;
            assert_int_equal(bin >= 32, dirty);
            if (longest > 1) assert_true(bin > bins_index(longest - 1, dirty != 0)); /* best fit = lowest bin */
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_a_list), cmocka_unit_test(test_index)};
    return unit_run(tests, COUNT_OF(tests));
}
