#include "heap/flush.h"

#include "heap/census.h"
#include "heap/claim.h"
#include "heap/emergency.h"
#include "heap/own.h"
#include "heap/secure.h"
#include "heap/thread.h"
#include "heap/validate.h"
#include "tier/large.h"

/* What threads inside an operation keep is tried again so often, with a pause of FLUSH_NAP_NS: operations take less, unless they have lost their
 * processor. */
#define FLUSH_TRIES 3
#define FLUSH_NAP_NS 50000u

/* Empty spans of all heaps become runs, and the empty pages of the others go back. */
static size_t flush_heaps(unsigned tiers) {
    struct claim_sweep sweep = {.tiers = tiers, .punch_before_ns = UINT64_MAX};
    struct heap *self = heap_record.self != NULL ? heap_own() : NULL;
    if (self != NULL) secure_settle(self);
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

static void flush_report(unsigned parts, struct flush_result *result) {
    struct census census;
    census_take(&census);
    for (unsigned tier = TIER_TINY_INDEX; tier <= TIER_MID_INDEX; tier++) {
        if ((parts & (tier == TIER_TINY_INDEX ? FLUSH_TINY : FLUSH_MID)) == 0) continue;
        result->pinned_bytes += census.free_bytes[tier];
        result->missed_bytes += census.foreign_empty_bytes[tier];
    }
    result->pinned_bytes = size_round_down(result->pinned_bytes, os_page_bytes);
    result->missed_bytes = size_round_up(result->missed_bytes, os_page_bytes);
}

size_t flush_inside(unsigned parts, struct flush_result *result) {
    size_t kept_bytes = 0, returned = 0;
    emergency_settle();
    if ((parts & (FLUSH_TINY | FLUSH_MID)) != 0) returned += flush_heaps(parts & (FLUSH_TINY | FLUSH_MID));
    heap_step_aside();
    returned += run_purge(&kept_bytes);
    struct large_trim trim = {0};
    if ((parts & FLUSH_LARGE) != 0 && large_wants_trim())
        while (large_trim_step(&trim)) {}
    returned += trim.returned_bytes;
    validate_shared();
    heap_step_back();
    if (result == NULL) return returned;
    *result = (struct flush_result){.returned_bytes = returned, .kept_bytes = kept_bytes};
    flush_report(parts, result);
    return returned;
}

size_t flush_now(unsigned parts, struct flush_result *result) {
    if (result != NULL) *result = (struct flush_result){0};
    if (region_main.base == 0) return 0; /* nothing was ever allocated, and no heap made */
    if (!heap_try_enter()) return 0;     /* inside another operation: nothing may be touched */
    size_t returned = flush_inside(parts, result);
    heap_quit();
    return returned;
}
