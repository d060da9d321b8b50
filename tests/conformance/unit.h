/* unit.h - what every conformance test includes: the subject, cmocka, and the tests' own main. */
#ifndef TIDE_CONFORMANCE_UNIT_H
#define TIDE_CONFORMANCE_UNIT_H

#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef TIDE_TEST_TINY_CMOCKA
#include "tiny_cmocka.h"
#else
#include <cmocka.h>
#endif

#include "check.h"
#include "subject.h"

/* Sizes that no allocator can serve, hidden from the compiler, which would warn about them. */
static volatile size_t unit_size_max = SIZE_MAX;
static volatile size_t unit_ptrdiff_max_plus_1 = (size_t)PTRDIFF_MAX + 1;

/* For what only tidemalloc promises. */
#define ONLY_ON_TIDE() \
    do { \
        if (!subject.is_tide) skip(); \
    } while (0)

/* A value that no function sets, to see whether errno was touched. */
enum { ERRNO_MARK = 4711 };
#define assert_errno_untouched(statement) \
    do { \
        errno = ERRNO_MARK; \
        statement; \
        assert_int_equal(errno, ERRNO_MARK); \
    } while (0)

/* expression must be NULL with this errno. */
#define assert_refused(expression, error) \
    do { \
        errno = 0; \
        void *refused_ = (expression); \
        int errno_ = errno; \
        assert_null(refused_); \
        assert_int_equal(errno_, (error)); \
    } while (0)

static inline bool is_aligned(const void *p, size_t alignment) { return (uintptr_t)p % alignment == 0; }

/* The smallest offset below `size` at which p does not hold `byte`, or `size`. */
static inline size_t first_other(const unsigned char *p, size_t size, unsigned char byte) {
    if (size == 0 || p[0] != byte) return 0;
    if (memcmp(p, p + 1, size - 1) == 0) return size;
    size_t i = 0;
    while (p[i] == byte) i++;
    return i;
}

#endif
