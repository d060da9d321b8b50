/* flush.c - memory given back by hand: the seed's option A. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <malloc.h>

#include "api/public.h"
#include "heap/census.h"
#include "heap/own.h"
#include "heap/thread.h"
#include "tidemalloc.h"

enum flush_part { FLUSH_TINY = 1, FLUSH_MID = 2, FLUSH_LARGE = 4, FLUSH_ALL = 7 };

/* Spans of the caller's heap and of heaps without a thread become runs; runs go back to the system. */
static size_t flush_now(unsigned parts, size_t *kept_bytes) {
    if (!heap_try_enter()) return 0; /* inside another operation: nothing may be touched */
    struct heap *heap = heap_own();
    enum tier_mask tiers = (enum tier_mask)(parts & (FLUSH_TINY | FLUSH_MID));
    if (tiers != 0) {
        heap_finish_all();
        if (heap != NULL) heap_flush(heap, tiers);
        os_lock_take(&heap_shared.lock);
        heap_flush(&heap_shared, tiers);
        os_lock_drop(&heap_shared.lock);
    }
    size_t returned = run_purge(kept_bytes);
    heap_quit();
    return returned;
}

static size_t flush(unsigned parts, tide_flush_report *report) {
    size_t kept_bytes = 0;
    size_t returned = flush_now(parts, &kept_bytes);
    if (report != NULL) {
        struct census census;
        census_take(&census);
        *report = (tide_flush_report){.returned_bytes = returned, .kept_bytes = kept_bytes};
        if ((parts & FLUSH_TINY) != 0) report->pinned_bytes += census.free_bytes[TIER_TINY_INDEX];
        if ((parts & FLUSH_MID) != 0) report->pinned_bytes += census.free_bytes[TIER_MID_INDEX];
        if ((parts & (FLUSH_TINY | FLUSH_MID)) != 0) report->missed_bytes = census.foreign_empty_bytes;
        report->pinned_bytes = size_round_down(report->pinned_bytes, os_page_bytes);
        report->missed_bytes = size_round_up(report->missed_bytes, os_page_bytes);
    }
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
