/* base/: bits and formatting against loops. */
#include "base/bits.h"
#include "base/format.h"
#include "unit.h"

static unsigned naive_longest(uint32_t word) {
    unsigned best = 0, run = 0;
    for (unsigned i = 0; i < 32; i++) {
        run = (word >> i & 1) != 0 ? run + 1 : 0;
        if (run > best) best = run;
    }
    return best;
}

static uint32_t naive_starts(uint32_t word, unsigned count) {
    uint32_t starts = 0;
    for (unsigned i = 0; i + count <= 32; i++) {
        bool all = true;
        for (unsigned k = i; k < i + count; k++) all = all && (word >> k & 1) != 0;
        if (all) starts |= (uint32_t)1 << i;
    }
    return starts;
}

static void check_word(uint32_t word) {
    assert_int_equal(bits_longest_run(word), naive_longest(word));
    for (unsigned count = 1; count <= 32; count++)
        assert_int_equal(bits_run_starts(word, count), naive_starts(word, count));
}

static void test_runs_of_bits(void **state) {
    (void)state;
    check_word(0);
    check_word(UINT32_MAX);
    for (unsigned first = 0; first < 32; first++)
        for (unsigned count = 1; first + count <= 32; count++) {
            uint32_t range = bits_range(first, count);
            for (unsigned i = 0; i < 32; i++) assert_int_equal(range >> i & 1, i >= first && i < first + count);
            check_word(range);
            check_word(~range);
        }
    struct unit_random random = {7};
    for (int i = 0; i < 20000; i++) {
        uint32_t word = (uint32_t)unit_random(&random, (uint64_t)1 << 32);
        check_word(i % 2 == 0 ? word : word | (uint32_t)unit_random(&random, (uint64_t)1 << 32));
    }
}

static void test_single_bits(void **state) {
    (void)state;
    for (unsigned i = 0; i < 64; i++) {
        uint64_t word = (uint64_t)1 << i;
        assert_int_equal(bits_lowest(word), i);
        assert_int_equal(bits_highest(word), i);
        assert_int_equal(bits_lowest(~(word - 1)), i);
        assert_int_equal(bits_highest(word | (word - 1)), i);
        assert_int_equal(bits_count(word - 1), i);
    }
}

static void test_sizes(void **state) {
    (void)state;
    assert_int_equal(size_round_up(0, 16), 0);
    assert_int_equal(size_round_up(1, 16), 16);
    assert_int_equal(size_round_up(16, 16), 16);
    assert_int_equal(size_round_down(31, 16), 16);
    assert_int_equal(size_min(3, 4), 3);
    assert_int_equal(size_max(3, 4), 4);
    assert_false(size_is_power(0));
    assert_true(size_is_power(1));
    assert_false(size_is_power(6));
    assert_true(size_is_power((size_t)1 << 63));
}

static void test_parse(void **state) {
    (void)state;
    const struct {
        const char *text;
        size_t bytes;
    } good[] = {{"0", 0},
                {"4096", 4096},
                {"64K", 64 * KIB},
                {"64k", 64 * KIB},
                {"3m", 3 * MIB},
                {"3M", 3 * MIB},
                {"1g", GIB},
                {"1G", GIB},
                {"2t", 2 * TIB},
                {"16777215T", 16777215 * TIB},
                {"18446744073709551615", SIZE_MAX},
                {"007", 7}};
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        size_t bytes = 1;
        assert_true(size_parse(good[i].text, &bytes));
        assert_true(bytes == good[i].bytes);
    }
    const char *bad[] = {"",
                         "K",
                         "-1",
                         "+1",
                         " 1",
                         "1 ",
                         "1x",
                         "1KB",
                         "1kk",
                         "0x10",
                         "1.5",
                         "18446744073709551616",
                         "99999999999999999999",
                         "16777216T",
                         "18014398509481984K"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        size_t bytes = 4711;
        assert_false(size_parse(bad[i], &bytes));
        assert_int_equal(bytes, 4711);
    }
}

static void test_lines(void **state) {
    (void)state;
    struct line line = {0};
    line_add(&line, "a ");
    line_add_number(&line, 0);
    line_add(&line, " ");
    line_add_number(&line, UINT64_MAX);
    line_add(&line, " ");
    line_add_pointer(&line, (void *)(uintptr_t)0xdeadbeef10);
    assert_string_equal(line.text, "a 0 18446744073709551615 0xdeadbeef10");
    assert_int_equal(line.length, strlen(line.text));

    struct line full = {0};
    for (int i = 0; i < 100; i++) line_add(&full, "1234567");
    assert_int_equal(full.length, sizeof full.text - 1);
    assert_int_equal(strlen(full.text), sizeof full.text - 1);
    assert_int_equal(full.text[sizeof full.text - 2], "1234567"[(sizeof full.text - 2) % 7]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs_of_bits), cmocka_unit_test(test_single_bits), cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_parse),        cmocka_unit_test(test_lines),
    };
    return unit_run(tests, COUNT_OF(tests));
}
