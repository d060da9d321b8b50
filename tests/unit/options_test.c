/* os/options.c and os/report.c. */
#include "os/options.h"
#include "os/report.h"
#include "unit.h"

static void load(char **environment) {
    fake.environment = environment;
    options_load();
}

static void test_defaults(void **state) {
    (void)state;
    size_t reserve = options.reserve_bytes;
    assert_true(reserve >= GIB && size_is_power(reserve));
    load((char *[]){"HOME=/", "TIDY=1", "tide_reserve=1", NULL});
    assert_true(options.reserve_bytes == reserve);
    assert_int_equal(options.print_stats, 0);
    assert_string_equal(fake.error, "");
}

static void test_values(void **state) {
    (void)state;
    load((char *[]){"A=1", "TIDE_RESERVE=2g", "TIDE_PRINT_STATS=1", NULL});
    assert_true(options.reserve_bytes == 2 * GIB);
    assert_int_equal(options.print_stats, 1);
    assert_string_equal(fake.error, "");
    load((char *[]){"TIDE_RESERVE=4g", NULL}); /* the first environment counts */
    assert_true(options.reserve_bytes == 2 * GIB);
}

static void test_bad_values(void **state) {
    (void)state;
    size_t reserve = options.reserve_bytes;
    load((char *[]){"TIDE_RESERVE=15m", "TIDE_RESERVE=17t", "TIDE_RESERVE=", "TIDE_RESERVE=much", "TIDE_PRINT_STATS=2",
                    "TIDE_SPEED=1", "TIDE_=1", "TIDE_RESERVES=1g", "TIDE_RESERV=1g", "TIDE_NOTHING", NULL});
    assert_true(options.reserve_bytes == reserve);
    assert_int_equal(options.print_stats, 0);
    assert_string_equal(fake.error, "tidemalloc: using the default instead of the bad value in TIDE_RESERVE=15m\n"
                                    "tidemalloc: using the default instead of the bad value in TIDE_RESERVE=17t\n"
                                    "tidemalloc: using the default instead of the bad value in TIDE_RESERVE=\n"
                                    "tidemalloc: using the default instead of the bad value in TIDE_RESERVE=much\n"
                                    "tidemalloc: using the default instead of the bad value in TIDE_PRINT_STATS=2\n"
                                    "tidemalloc: ignoring an option that does not exist: TIDE_SPEED=1\n"
                                    "tidemalloc: ignoring an option that does not exist: TIDE_=1\n"
                                    "tidemalloc: ignoring an option that does not exist: TIDE_RESERVES=1g\n"
                                    "tidemalloc: ignoring an option that does not exist: TIDE_RESERV=1g\n");
}

/* os_environment_all gives nothing to a program with raised privileges, and nothing too early; then a later call counts. */
static void test_no_environment(void **state) {
    (void)state;
    size_t reserve = options.reserve_bytes;
    load(NULL);
    assert_true(options.reserve_bytes == reserve);
    load((char *[]){"TIDE_RESERVE=1g", NULL});
    assert_true(options.reserve_bytes == GIB);
}

static void test_emulated(void **state) {
    (void)state;
    fake.emulated = true;
    load((char *[]){NULL});
    assert_true(options.reserve_bytes == GIB);
}

static void test_emulated_but_told(void **state) {
    (void)state;
    fake.emulated = true;
    load((char *[]){"TIDE_RESERVE=8g", NULL});
    assert_true(options.reserve_bytes == 8 * GIB);
}

static void test_set_and_get(void **state) {
    (void)state;
    char value[32] = "x";
    assert_int_equal(options_set("print_stats", "1"), 0);
    assert_int_equal(options.print_stats, 1);
    assert_int_equal(options_get("print_stats", value, sizeof value), 0);
    assert_string_equal(value, "1");
    assert_int_equal(options_set("print_stats", "2"), EINVAL);
    assert_int_equal(options_set("print_stats", ""), EINVAL);
    assert_int_equal(options_set("print_stats", NULL), EINVAL);
    assert_int_equal(options.print_stats, 1);
    assert_int_equal(options_set("reserve", "1g"), EPERM);
    assert_int_equal(options_set("nothing", "1"), ENOENT);
    assert_int_equal(options_set("", "1"), ENOENT);
    assert_int_equal(options_set(NULL, "1"), ENOENT);
    assert_int_equal(options_get(NULL, value, sizeof value), ENOENT);
    assert_int_equal(options_get("nothing", value, sizeof value), ENOENT);
    assert_int_equal(options_get("print_stats", NULL, 9), EINVAL);
    assert_int_equal(options_get("print_stats", value, 1), EINVAL); /* no room for the zero */
    assert_int_equal(options_get("print_stats", value, 2), 0);
    options.reserve_bytes = 3 * GIB;
    assert_int_equal(options_get("reserve", value, sizeof value), 0);
    assert_string_equal(value, "3221225472");
    assert_string_equal(fake.error, "");
}

static void test_report(void **state) {
    (void)state;
    report_warning("one ", NULL);
    report_warning("two ", "and more");
    assert_string_equal(fake.error, "tidemalloc: one \ntidemalloc: two and more\n");
    fake.error[0] = 0;
    char text[400];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    report_warning(text, text);
    assert_int_equal(strlen(fake.error), 255); /* cut, but still a line */
    assert_int_equal(fake.error[254], '\n');
    assert_fatal("tidemalloc: free(): 0x1234 was a mistake\n", report_fatal("free()", (void *)0x1234, "was a mistake"));
    assert_fatal("tidemalloc: no more\n", report_fatal(NULL, (void *)0x1234, "no more"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),    cmocka_unit_test(test_values),
        cmocka_unit_test(test_bad_values),  cmocka_unit_test(test_no_environment),
        cmocka_unit_test(test_emulated),    cmocka_unit_test(test_emulated_but_told),
        cmocka_unit_test(test_set_and_get), cmocka_unit_test(test_report),
    };
    return unit_run(tests, COUNT_OF(tests));
}
