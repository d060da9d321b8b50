/* policy.h - when to give memory back, and how much of it: pure functions of what was seen. No clock, no lock, no system call.
 *
 *   busy  --nothing for 10 ms--> quiet: give back, or hold for a while --something--> busy
 *
 * Quiet. Normally everything goes at once. But memory that comes back soon costs more than it saves (a page fault per 4 KiB, as much as the
 * burst itself), so recurring bursts are learned. A quiet spell whose pages were missed in the next burst, for more than BURST_SHARE of
 * its time, leaves its length and its volume in the history. When lengths agree, the policy is patient: it holds half more than the last two bursts
 * needed, for a quarter longer than the longest of the last quiet spells. Waiting as long as giving back costs is never worse than twice
 * the best (ski rental: Karlin, Manasse, Rudolph, Sleator 1988); here the wait is bounded by 1.25 s as well. One hold in vain ends the patience, and each
 * makes the next harder to earn.
 *
 * Busy. Every 100 ms the free memory that nobody needed in the last window shrinks by half. Memory that is given back in this way and
 * missed afterwards ("regret") doubles the window; a long time without regret, longer after each, halves it again.
 */
#ifndef TIDE_KEEPER_POLICY_H
#define TIDE_KEEPER_POLICY_H

#include "os/options.h"
#include "tier/classes.h"

enum pool_state { POOL_MEMORY, POOL_BALANCED, POOL_PERFORMANCE };

#define POLICY_TICK_NS 100000000u     /* between two shrinks */
#define POLICY_FOREVER UINT64_MAX     /* nothing to do until something happens */
#define POLICY_WORTH_BYTES (1u << 20) /* less than this is not worth a system call while the program is busy */

/* What the keeper sees at one moment. */
struct policy_sight {
    uint64_t now_ns;
    size_t dirty_bytes; /* free memory that is kept now */
    size_t
        dirty_low_bytes; /* the least of it since the last tick, or since memory was given back in the quiet spell, whichever is later */
    uint64_t clean_taken_bytes;       /* since the start: memory taken that has to be faulted in */
    uint64_t taken_bytes[TIER_COUNT]; /* since the start: all memory taken, by pool */
};

struct policy_plan {
    size_t keep_bytes; /* give free memory back down to this; 0: empty the threads' caches too, and punch */
    uint64_t until_ns; /* when to ask policy_waited, if nothing happens before; POLICY_FOREVER */
};

#define POLICY_HISTORY 4
#define POLICY_WINDOWS 16 /* the longest window, in ticks */

struct policy {
    enum mode mode;
    /* quiet and burst */
    uint64_t quiet_ns;     /* when the last quiet spell began: nothing has happened since */
    uint64_t last_busy_ns; /* when something was last known to happen before it */
    uint64_t burst_ns;     /* when it ended */
    uint64_t burst_clean_bytes;
    size_t kept_bytes;      /* free memory left in it */
    size_t burst_low_bytes; /* the least free memory since then */
    size_t given_bytes;     /* given back in it */
    bool quiet, held, cycle;
    /* patience */
    uint64_t gaps_ns[POLICY_HISTORY], longest_ns[POLICY_HISTORY]; /* lengths: at least, at most. Newest first */
    size_t volumes[POLICY_HISTORY];
    unsigned known, agreeing, misses, hits;
    uint64_t patience_ns;
    size_t hold_bytes;
    /* shrinking */
    size_t lows[POLICY_WINDOWS]; /* a ring, by tick */
    unsigned tick, ticks_seen, window, calm, calm_needed;
    uint64_t tick_clean_bytes;
    size_t trimmed_bytes; /* by the last trims, not missed so far */
    struct pool {
        uint64_t seen_bytes, rate_bytes; /* rate: taken per tick, smoothed */
        enum pool_state state;
    } pools[TIER_COUNT];
    /* since the start */
    uint64_t regret_bytes, hold_hits, hold_misses;
};

tide_hidden tide_cold void policy_init(struct policy *policy, enum mode mode);
/* Nothing has happened since `sight->now_ns`, and the last look that saw something was at `last_busy_ns`. */
tide_hidden tide_cold struct policy_plan policy_quiet(struct policy *policy, const struct policy_sight *sight,
                                                      uint64_t last_busy_ns);
/* The plan's time is up, and still nothing has happened. */
tide_hidden tide_cold struct policy_plan policy_waited(struct policy *policy, const struct policy_sight *sight);
/* The plan was carried out: so much was given back, and `after` is left. The low mark starts again from here. */
tide_hidden tide_cold void policy_gave(struct policy *policy, size_t bytes, const struct policy_sight *after);
/* Something happens again, since a moment ago. */
tide_hidden tide_cold void policy_burst(struct policy *policy, const struct policy_sight *sight);
/* Every POLICY_TICK_NS while busy: so much may go now, 0: nothing. The low mark starts again. */
tide_hidden tide_cold size_t policy_tick(struct policy *policy, const struct policy_sight *sight);
/* Memory is scarce: all that was learned about keeping it is void. */
tide_hidden tide_cold void policy_pressed(struct policy *policy);

#endif
