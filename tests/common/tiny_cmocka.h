/* tiny_cmocka.h - the few names of cmocka that the conformance tests use, for fully static programs.
 *
 * Distributions ship cmocka as a shared object only, and a `-static` program cannot load one. All other builds of the
 * same tests use cmocka itself. A failed assertion ends the program. */
#ifndef TIDE_TEST_TINY_CMOCKA_H
#define TIDE_TEST_TINY_CMOCKA_H

#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "check.h"

struct CMUnitTest {
    const char *name;
    void (*function)(void **);
};
#define cmocka_unit_test(function) \
    { #function, function }

static jmp_buf tiny_cmocka_skip;

#define assert_true(condition) CHECK(condition)
#define assert_false(condition) CHECK(!(condition))
#define assert_non_null(pointer) CHECK((pointer) != NULL)
#define assert_null(pointer) CHECK((pointer) == NULL)
#define assert_int_equal(left, right) CHECK((intmax_t)(left) == (intmax_t)(right))
#define assert_int_not_equal(left, right) CHECK((intmax_t)(left) != (intmax_t)(right))
#define assert_in_range(value, low, high) \
    CHECK((uintmax_t)(value) >= (uintmax_t)(low) && (uintmax_t)(value) <= (uintmax_t)(high))
#define assert_ptr_equal(left, right) CHECK((const void *)(left) == (const void *)(right))
#define assert_ptr_not_equal(left, right) CHECK((const void *)(left) != (const void *)(right))
#define assert_string_equal(left, right) CHECK(strcmp((left), (right)) == 0)
#define assert_memory_equal(left, right, size) CHECK(memcmp((left), (right), (size)) == 0)
#define fail_msg(...) check_die(__VA_ARGS__)
#define skip() longjmp(tiny_cmocka_skip, 1)

#define cmocka_run_group_tests(tests, setup, teardown) tiny_cmocka_run((tests), sizeof(tests) / sizeof((tests)[0]))
static inline int tiny_cmocka_run(const struct CMUnitTest *tests, size_t count) {
    for (volatile size_t i = 0; i < count; i++) {
        void *state = NULL;
        printf("[ RUN      ] %s\n", tests[i].name);
        fflush(stdout);
        if (setjmp(tiny_cmocka_skip) == 0)
            tests[i].function(&state);
        else
            printf("[  SKIPPED ] %s\n", tests[i].name);
    }
    return 0;
}

#endif
