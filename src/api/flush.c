/* flush.c - memory given back by hand: the seed's option A. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <malloc.h>

#include "api/public.h"
#include "heap/census.h"
#include "heap/claim.h"
#include "heap/own.h"
#include "heap/thread.h"
#include "tidemalloc.h"

enum flush_part { FLUSH_TINY = 1, FLUSH_MID = 2, FLUSH_LARGE = 4, FLUSH_ALL = 7 };

/* What threads inside an operation keep is tried again so often, with a pause of FLUSH_NAP_NS: operations take less, unless they have lost their
 * processor. */
#define FLUSH_TRIES 3
#define FLUSH_NAP_NS 50000u

/* Empty spans of all heaps become runs, and the empty pages of the others go back. */
static size_t flush_heaps(unsigned tiers) {
    struct claim_sweep sweep = {.tiers = tiers, .punch_before_ns = UINT64_MAX};
    struct heap *self = heap_own();
    if (!claim_begin()) return 0;
    for (unsigned tries = 0; tries < FLUSH_TRIES; tries++) {
        struct claim_survey survey = claim_mark(os_now_ns());
        if (tries == 0 || survey.possible) claim_sweep(&sweep);
        if (survey.busy == 0 || !survey.possible) break;
        os_sleep_ns(FLUSH_NAP_NS);
    }
    heap_step_back();
    if (self != NULL) claim_sweep_own(&sweep, self);
    claim_end();
    return sweep.returned_bytes;
}

static size_t flush_now(unsigned parts, size_t *kept_bytes) {
    if (!heap_try_enter()) return 0; /* inside another operation: nothing may be touched */
    size_t returned = 0;
    if ((parts & (FLUSH_TINY | FLUSH_MID)) != 0) returned += flush_heaps(parts & (FLUSH_TINY | FLUSH_MID));
    heap_step_aside();
    returned += run_purge(kept_bytes);
    heap_step_back();
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
