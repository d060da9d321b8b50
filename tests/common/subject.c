#define _GNU_SOURCE 1
#include "subject.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "check.h"

subject_t subject;

#if defined(TIDE_TEST_STATIC) || defined(TIDE_PREFIXED)

#ifndef TIDE_PREFIXED
extern void cfree(void *);
extern void free_sized(void *, size_t);
extern void free_aligned_sized(void *, size_t, size_t);
#endif

static void subject_find(void) {
    subject = (subject_t){
        .cfree = cfree,
        .free_sized = free_sized,
        .free_aligned_sized = free_aligned_sized,
        .stats_get = tide_stats_get,
        .flush_tiny = tide_tiny_magazine_flush_all,
        .flush_mid = tide_mid_pool_flush,
        .flush_large = tide_large_pool_flush,
        .flush_pools = tide_pool_flush_all,
        .release_all = tide_release_all_caches,
        .set = tide_set,
        .get = tide_get,
    };
}

#else

/* POSIX lets a pointer from dlsym be used as a function, ISO C has no cast for it: copy the bits. */
static void subject_look_up(void *function_pointer, const char *name) {
    void *symbol = dlsym(RTLD_DEFAULT, name);
    memcpy(function_pointer, &symbol, sizeof symbol);
}

static void subject_find(void) {
    subject_look_up(&subject.cfree, "cfree");
    subject_look_up(&subject.free_sized, "free_sized");
    subject_look_up(&subject.free_aligned_sized, "free_aligned_sized");
    subject_look_up(&subject.stats_get, "tide_stats_get");
    subject_look_up(&subject.flush_tiny, "tide_tiny_magazine_flush_all");
    subject_look_up(&subject.flush_mid, "tide_mid_pool_flush");
    subject_look_up(&subject.flush_large, "tide_large_pool_flush");
    subject_look_up(&subject.flush_pools, "tide_pool_flush_all");
    subject_look_up(&subject.release_all, "tide_release_all_caches");
    subject_look_up(&subject.set, "tide_set");
    subject_look_up(&subject.get, "tide_get");
}

#endif

/* A megabyte from malloc shows up in tidemalloc's statistics, and goes again. */
static bool subject_malloc_is_counted(void) {
    const size_t probe_bytes = 1024 * 1024;
    tide_stats before = {0}, during = {0};
    if (subject.stats_get(&before, sizeof before) != 0) return false;
    void *volatile probe = malloc(probe_bytes);
    if (probe == NULL || subject.stats_get(&during, sizeof during) != 0) return false;
    free(probe);
    return during.allocated_bytes >= before.allocated_bytes + probe_bytes;
}

void subject_require(void) {
    subject_find();
    subject.is_tide = subject.stats_get != NULL && subject_malloc_is_counted();
    const char *on_any = getenv("TIDEMALLOC_TEST_ON_ANY");
    if (on_any != NULL && strcmp(on_any, "1") == 0) {
        if (!subject.is_tide) subject.stats_get = NULL;
        return;
    }
    if (!subject.is_tide)
        check_die("this test does not run on tidemalloc (tide_stats_get %s)",
                  subject.stats_get != NULL ? "does not see malloc's blocks" : "not found");
    CHECK(subject.cfree && subject.free_sized && subject.free_aligned_sized && subject.flush_tiny &&
          subject.flush_mid && subject.flush_large && subject.flush_pools && subject.release_all && subject.set &&
          subject.get);
}

bool subject_is_secure(void) {
    void *probe = malloc(1);
    bool secure = subject.is_tide && malloc_usable_size(probe) == 1;
    free(probe);
    return secure;
}

uint64_t subject_allocated_bytes(void) {
    if (subject_is_secure()) subject.release_all(NULL);
    return subject_stats().allocated_bytes;
}

tide_stats subject_stats(void) {
    tide_stats stats = {0};
    if (subject.stats_get != NULL) CHECK(subject.stats_get(&stats, sizeof stats) == 0);
    return stats;
}

void subject_release_all(void) {
    if (subject.release_all != NULL)
        subject.release_all(NULL);
    else
        malloc_trim(0);
}
