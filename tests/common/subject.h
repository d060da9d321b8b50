/* subject.h - the allocator under test: is it really tidemalloc, and where are the functions that libc does not declare?
 *
 * A test may reach tidemalloc in three ways: preloaded or linked as a shared object (then the extra functions are looked
 * up by dlsym, so that the same program also starts without tidemalloc), or linked from the archive, where TIDE_TEST_STATIC
 * is defined and they are named directly.
 *
 * With TIDEMALLOC_TEST_ON_ANY=1 in the environment a test also runs on another malloc, so that its expectations can be checked
 * against glibc; whatever only tidemalloc promises is left out then (subject.is_tide is false). */
#ifndef TIDE_TEST_SUBJECT_H
#define TIDE_TEST_SUBJECT_H

#include <malloc.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#include "tidemalloc.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct subject {
    bool is_tide;
    /* All of these are NULL when the allocator under test does not have them; never on tidemalloc. */
    void (*cfree)(void *);
    void (*free_sized)(void *, size_t);
    void (*free_aligned_sized)(void *, size_t, size_t);
    int (*stats_get)(tide_stats *, size_t);
    size_t (*flush_tiny)(tide_flush_report *);
    size_t (*flush_mid)(tide_flush_report *);
    size_t (*flush_large)(tide_flush_report *);
    size_t (*flush_pools)(tide_flush_report *);
    size_t (*release_all)(tide_flush_report *);
    int (*set)(const char *, const char *);
    int (*get)(const char *, char *, size_t);
} subject_t;

extern subject_t subject;

/* Fills `subject`. Ends the process with status 1 when malloc is not tidemalloc's, unless TIDEMALLOC_TEST_ON_ANY=1. Call it first
 * in main. It proves more than the presence of a symbol: a block from malloc must appear in tidemalloc's statistics. */
void subject_require(void);

/* Live bytes; in the secure build without blocks that wait, and with tails. */
uint64_t subject_allocated_bytes(void);

/* A moment's statistics; all zero on another malloc. */
tide_stats subject_stats(void);

/* The secure build, whose blocks have a tail that is not usable, and in which freed blocks wait before they count as free. */
bool subject_is_secure(void);

/* Give back everything that can be given back (malloc_trim(0) on another malloc). */
void subject_release_all(void);

/* free() of the C library, for memory that it allocated by itself. */
#ifndef TIDE_TEST_HAS_LIBC_FREE
static inline void libc_free(void *p) { free(p); }
#endif

#ifdef __cplusplus
}
#endif

#endif
