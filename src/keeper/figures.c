#include "keeper/figures.h"

#include "heap/claim.h"
#include "keeper/keeper.h"
#include "keeper/life.h"

static uint64_t figure(const _Atomic uint64_t *figure) { return atomic_load_explicit(figure, memory_order_relaxed); }

/* The upper end of the bucket that holds the 99th of 100 wakes; most of them wait for nothing. */
static void fill_waits(struct tide_stats *stats) {
    uint64_t wakes = figure(&claim_waits.wakes), longer = 0;
    unsigned bucket = CLAIM_WAIT_BUCKETS;
    while (bucket > 0 && longer <= wakes / 100) longer += figure(&claim_waits.waits[--bucket]);
    stats->claim_wake_count = wakes;
    for (unsigned i = 0; i < CLAIM_WAIT_BUCKETS; i++) stats->claim_wait_count += figure(&claim_waits.waits[i]);
    stats->claim_wait_p99_ns = longer <= wakes / 100 ? 0 : (UINT64_C(1) << bucket) - 1;
    stats->claim_wait_max_ns = figure(&claim_waits.longest_ns);
}

static void fill_keeper(struct tide_stats *stats) {
    const struct keeper_figures *seen = &keeper_figures;
    stats->keeper_running = atomic_load_explicit(&seen->runs, memory_order_relaxed);
    stats->keeper_wakeup_count = figure(&seen->wakeups);
    stats->keeper_cpu_ns = figure(&seen->cpu_ns);
    stats->flush_count = figure(&seen->flushes);
    stats->hold_count = figure(&seen->holds);
    stats->hold_hit_count = figure(&seen->hold_hits);
    stats->hold_miss_count = figure(&seen->hold_misses);
    stats->trim_count = figure(&seen->trims);
    stats->pressure_count = figure(&seen->pressed);
    stats->refault_bytes = figure(&seen->regret_bytes);
    stats->patience_ns = figure(&seen->patience_ns);
    stats->claim_possible = atomic_load_explicit(&seen->claims_possible, memory_order_relaxed);
    stats->claim_mark_count = figure(&seen->marks);
    stats->locked_bytes = figure(&seen->locked_bytes);
    stats->keeper_state = atomic_load_explicit(&seen->state, memory_order_relaxed);
    fill_waits(stats);
    uint64_t *const states[TIER_COUNT] = {&stats->tiny_state, &stats->mid_state, &stats->large_state};
    uint64_t *const rates[TIER_COUNT] = {&stats->tiny_rate_bytes, &stats->mid_rate_bytes, &stats->large_rate_bytes};
    for (unsigned tier = 0; tier < TIER_COUNT; tier++) {
        *states[tier] = figure(&seen->pool_states[tier]);
        *rates[tier] = figure(&seen->pool_rates[tier]);
    }
}

void figures_fill(struct tide_stats *stats, const struct census *taken) {
    const struct census census = *taken;
    *stats = (struct tide_stats){
        .version = TIDE_STATS_VERSION,
        .size = sizeof *stats,
        .allocated_bytes = census.live_bytes[TIER_TINY_INDEX] + census.live_bytes[TIER_MID_INDEX] +
                           census.live_bytes[TIER_LARGE_INDEX],
        .active_bytes = census.active_bytes,
        .tiny_bytes = census.live_bytes[TIER_TINY_INDEX],
        .mid_bytes = census.live_bytes[TIER_MID_INDEX],
        .large_bytes = census.live_bytes[TIER_LARGE_INDEX],
        .retained_bytes =
            census.runs.dirty_bytes + census.empty_bytes[TIER_TINY_INDEX] + census.empty_bytes[TIER_MID_INDEX],
        .metadata_bytes = census.metadata_bytes,
        .committed_bytes = census.runs.committed_bytes,
        .reserved_bytes = census.runs.reserved_bytes,
        .returned_bytes = census.runs.returned_bytes,
        .refill_count = census.refill_count,
        .span_retire_count = census.retire_count,
        .remote_free_count = census.remote_count,
        .nested_count = census.nested_count,
        .heap_count = census.heap_count,
        .thread_count = census.bound_count,
        .tiny_retained_bytes = census.empty_bytes[TIER_TINY_INDEX],
        .mid_retained_bytes = census.empty_bytes[TIER_MID_INDEX],
        .large_retained_bytes = census.runs.dirty_bytes,
        .tiny_pinned_bytes = census.free_bytes[TIER_TINY_INDEX],
        .mid_pinned_bytes = census.free_bytes[TIER_MID_INDEX],
        .allocation_count = census.allocation_count,
    };
    fill_keeper(stats);
}
