/* flush.c - memory given back by hand: the seed's option A. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "api/libc.h"
#include "heap/flush.h"
#include "tidemalloc.h"

static size_t flush(unsigned parts, tide_flush_report *report) {
    struct flush_result result;
    size_t returned = flush_now(parts, report != NULL ? &result : NULL);
    if (report != NULL)
        *report =
            (tide_flush_report){result.returned_bytes, result.kept_bytes, result.pinned_bytes, result.missed_bytes};
    return returned;
}

PUBLIC size_t tide_tiny_magazine_flush_all(tide_flush_report *report) { return flush(FLUSH_TINY, report); }
PUBLIC size_t tide_mid_pool_flush(tide_flush_report *report) { return flush(FLUSH_MID, report); }
PUBLIC size_t tide_large_pool_flush(tide_flush_report *report) { return flush(FLUSH_LARGE, report); }
PUBLIC size_t tide_pool_flush_all(tide_flush_report *report) { return flush(FLUSH_MID | FLUSH_LARGE, report); }
PUBLIC size_t tide_release_all_caches(tide_flush_report *report) { return flush(FLUSH_ALL, report); }

/* As glibc: 1 if memory went back. There is no top of the heap to pad. */
PUBLIC int STANDARD(malloc_trim)(size_t pad) {
    (void)pad;
    return flush(FLUSH_ALL, NULL) > 0;
}
