/* unit.h - what every unit test includes: cmocka, the fake system, and a main that runs each test in a process of its own, because the
 * modules under test keep their state in static variables. */
#ifndef TIDE_UNIT_UNIT_H
#define TIDE_UNIT_UNIT_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef TIDE_TEST_TINY_CMOCKA
#include "tiny_cmocka.h"
#else
#include <cmocka.h>
#endif

#include "fake_os.h"

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

/* xorshift64*: the same numbers in every run. */
struct unit_random {
    uint64_t state;
};
static inline uint64_t unit_random(struct unit_random *random, uint64_t below) {
    random->state ^= random->state >> 12;
    random->state ^= random->state << 25;
    random->state ^= random->state >> 27;
    return (random->state * 0x2545f4914f6cdd1du >> 16) % below;
}

/* Fill, and test for, a pattern that differs from block to block. */
static inline void unit_fill(void *block, size_t bytes, uint64_t seed) {
    for (size_t i = 0; i < bytes; i++) ((unsigned char *)block)[i] = (unsigned char)(seed * 31 + i * 7 + (i >> 8));
}
static inline bool unit_holds(const void *block, size_t bytes, uint64_t seed) {
    for (size_t i = 0; i < bytes; i++)
        if (((const unsigned char *)block)[i] != (unsigned char)(seed * 31 + i * 7 + (i >> 8))) return false;
    return true;
}
static inline bool unit_is_zero(const void *block, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        if (((const unsigned char *)block)[i] != 0) return false;
    return true;
}

/* Run a statement in a process of its own. Returns waitpid's status. */
#define UNIT_IN_CHILD(status, statement) \
    do { \
        fflush(NULL); \
        pid_t child_ = fork(); \
        assert_true(child_ >= 0); \
        if (child_ == 0) { \
            statement; \
            fflush(NULL); \
            _exit(0); \
        } \
        (status) = -1; \
        while (waitpid(child_, &(status), 0) < 0 && errno == EINTR) continue; \
    } while (0)

/* The statement must end in abort, with exactly this on stderr. */
#define assert_fatal(text, statement) \
    do { \
        int status_; \
        UNIT_IN_CHILD(status_, { \
            fake.error[0] = 0; \
            fake.abort_expected = (text); \
            statement; \
            fprintf(stderr, "no abort where one must be: " #statement "\n"); \
            _exit(2); \
        }); \
        assert_int_equal(status_, 0); \
    } while (0)

/* What a *_validate() has found: nothing; this. */
#define assert_valid(broken) \
    do { \
        const char *broken_ = (broken); \
        if (broken_ != NULL) fail_msg("%s:%d: broken invariant: %s", __FILE__, __LINE__, broken_); \
    } while (0)
#define assert_broken(name, broken) \
    do { \
        const char *found_ = (broken); \
        if (found_ == NULL) fail_msg("%s:%d: not found: %s", __FILE__, __LINE__, (name)); \
        assert_string_equal(found_, (name)); \
    } while (0)

static inline int unit_run(const struct CMUnitTest *tests, size_t count) {
    int failures = 0;
    for (size_t i = 0; i < count; i++) {
        int status;
        UNIT_IN_CHILD(status, {
            struct CMUnitTest one[1] = {tests[i]};
            int failed = cmocka_run_group_tests(one, NULL, NULL);
            fflush(NULL);
            _exit(failed);
        });
        if (status == 0) continue;
        failures++;
        fprintf(stderr, "unit test %s failed (wait status %#x)\n", tests[i].name, (unsigned)status);
    }
    printf("%zu tests, %d failed\n", count, failures);
    return failures == 0 ? 0 : 1;
}

#endif
