#include "keeper/policy.h"

#define MS UINT64_C(1000000)
/* What a page costs that is given back and faulted in again, measured: 2 us per 4 KiB. */
#define REFAULT_NS_PER_KIB 512u
/* A refault is costly from this part of a burst on. */
#define BURST_SHARE 50u
/* Longer quiet spells are not waited for. */
#define GAP_MAX_NS (1100 * MS)
#define PATIENCE_MAX_NS (1250 * MS)
/* Within this even a hold that is too long by our uncertainty keeps what is promised of every quiet spell. */
#define PATIENCE_FREE_NS (120 * MS)
#define MISSES_MAX 6u
/* So many holds in a row that paid make up for the misses before. */
#define HITS_TO_FORGIVE 8u

#define RATE_HIGH_BYTES ((uint64_t)64 << 20) /* per tick */
#define RATE_LOW_BYTES ((uint64_t)4 << 20)
/* So many ticks without regret halve the window; each regret doubles the number. */
#define CALM_TICKS_MIN 16u
#define CALM_TICKS_MAX 4096u

static uint64_t u64_max(uint64_t a, uint64_t b) { return a > b ? a : b; }
static uint64_t u64_min(uint64_t a, uint64_t b) { return a < b ? a : b; }

void policy_init(struct policy *policy, enum mode mode) {
    *policy = (struct policy){.mode = mode, .window = 1, .calm_needed = CALM_TICKS_MIN};
}

/* --- patience ------------------------------------------------------------------------------------------------------ */

static void patience_forget(struct policy *policy) {
    policy->known = policy->agreeing = policy->hits = 0;
    policy->patience_ns = 0;
    policy->hold_bytes = 0;
}

static bool gaps_agree(const struct policy *policy) {
    uint64_t a = policy->gaps_ns[0], b = policy->gaps_ns[1];
    uint64_t short_ns = u64_min(a, b), long_ns = u64_max(a, b);
    /* as exactly as they are known */
    uint64_t doubt_ns = u64_max(policy->longest_ns[0] - a, policy->longest_ns[1] - b);
    return long_ns <= short_ns + short_ns / 2 + doubt_ns;
}

static void history_push(struct policy *policy, uint64_t gap_ns, uint64_t longest_ns, size_t volume) {
    for (unsigned i = POLICY_HISTORY - 1; i > 0; i--) {
        policy->gaps_ns[i] = policy->gaps_ns[i - 1];
        policy->longest_ns[i] = policy->longest_ns[i - 1];
        policy->volumes[i] = policy->volumes[i - 1];
    }
    policy->gaps_ns[0] = gap_ns;
    policy->longest_ns[0] = longest_ns;
    policy->volumes[0] = volume;
    if (policy->known < POLICY_HISTORY) policy->known++;
}

static void patience_learn(struct policy *policy, uint64_t gap_ns, uint64_t longest_ns, size_t volume) {
    history_push(policy, gap_ns, longest_ns, volume);
    policy->agreeing = policy->known >= 2 && gaps_agree(policy) ? policy->agreeing + 1 : 0;
    policy->patience_ns = 0;
    if (policy->agreeing < 1u << policy->misses) return;
    uint64_t gap = 0, longest = 0;
    for (unsigned i = 0; i < policy->known; i++) {
        gap = u64_max(gap, policy->gaps_ns[i]);
        longest = u64_max(longest, policy->longest_ns[i]);
    }
    if (gap > GAP_MAX_NS) return;
    policy->patience_ns = u64_min(u64_max(gap + gap / 4, u64_min(longest, PATIENCE_FREE_NS)), PATIENCE_MAX_NS);
    /* Blocks do not come in the same order and sizes again, so they do not fit the same holes. */
    size_t volume_max = size_max(policy->volumes[0], policy->volumes[1]);
    policy->hold_bytes = volume_max + volume_max / 2;
}

/* The burst between two quiet spells is over: did it miss what was given back, or use what was held? */
static void learn_from_burst(struct policy *policy, const struct policy_sight *sight) {
    uint64_t burst_ns = sight->now_ns - policy->burst_ns;
    uint64_t faulted = sight->clean_taken_bytes - policy->burst_clean_bytes;
    size_t missed = (size_t)u64_min(faulted, policy->given_bytes);
    size_t low = size_min(sight->dirty_low_bytes, policy->burst_low_bytes);
    size_t used = policy->kept_bytes - size_min(low, policy->kept_bytes);
    size_t volume = missed + used;
    policy->regret_bytes += missed;
    bool costly = volume >= POLICY_WORTH_BYTES && volume / KIB * REFAULT_NS_PER_KIB > burst_ns / BURST_SHARE;
    if (costly)
        patience_learn(policy, policy->burst_ns - policy->quiet_ns, policy->burst_ns - policy->last_busy_ns, volume);
    else
        patience_forget(policy);
}

/* --- quiet --------------------------------------------------------------------------------------------------------- */

static struct policy_plan plan_everything(void) {
    return (struct policy_plan){.keep_bytes = 0, .until_ns = POLICY_FOREVER};
}

/* Half of what is left, and again. */
static struct policy_plan plan_half(const struct policy_sight *sight) {
    if (sight->dirty_bytes <= POLICY_WORTH_BYTES) return plan_everything();
    return (struct policy_plan){.keep_bytes = sight->dirty_bytes / 2, .until_ns = sight->now_ns + POLICY_TICK_NS};
}

static enum pool_state state_of_rate(uint64_t rate_bytes) {
    if (rate_bytes >= RATE_HIGH_BYTES) return POOL_PERFORMANCE;
    return rate_bytes < RATE_LOW_BYTES ? POOL_MEMORY : POOL_BALANCED;
}

/* How much free memory a rate justifies. */
static size_t capacity_of_rate(uint64_t rate_bytes) {
    switch (state_of_rate(rate_bytes)) {
    case POOL_PERFORMANCE: return (size_t)rate_bytes;
    case POOL_BALANCED: return (size_t)rate_bytes / 4;
    default: return 0;
    }
}

static void rates_note(struct policy *policy, const struct policy_sight *sight) {
    for (unsigned tier = 0; tier < TIER_COUNT; tier++) {
        struct pool *pool = &policy->pools[tier];
        uint64_t taken = sight->taken_bytes[tier] - u64_min(pool->seen_bytes, sight->taken_bytes[tier]);
        pool->seen_bytes += taken;
        pool->rate_bytes = (pool->rate_bytes + taken) / 2;
        pool->state = state_of_rate(pool->rate_bytes);
    }
}

static size_t capacity(const struct policy *policy) {
    size_t bytes = 0;
    for (unsigned tier = 0; tier < TIER_COUNT; tier++) bytes += capacity_of_rate(policy->pools[tier].rate_bytes);
    return bytes;
}

static struct policy_plan plan_capacity(struct policy *policy, const struct policy_sight *sight) {
    rates_note(policy, sight);
    size_t keep = size_min(capacity(policy), sight->dirty_bytes);
    if (keep == 0) return plan_everything();
    return (struct policy_plan){.keep_bytes = keep, .until_ns = sight->now_ns + POLICY_TICK_NS};
}

struct policy_plan policy_quiet(struct policy *policy, const struct policy_sight *sight, uint64_t last_busy_ns) {
    if (policy->cycle) learn_from_burst(policy, sight);
    policy->quiet = policy->cycle = true;
    policy->quiet_ns = sight->now_ns;
    policy->last_busy_ns = u64_min(last_busy_ns, sight->now_ns);
    policy->given_bytes = 0;
    policy->held = false;
    policy->trimmed_bytes = 0;
    switch (policy->mode) {
    case MODE_SHRINK: return plan_half(sight);
    case MODE_ADAPTIVE: return plan_capacity(policy, sight);
    case MODE_HYBRID:
        if (policy->patience_ns == 0) return plan_everything();
        policy->held = true;
        return (struct policy_plan){.keep_bytes = policy->hold_bytes, .until_ns = sight->now_ns + policy->patience_ns};
    default: return plan_everything();
    }
}

struct policy_plan policy_waited(struct policy *policy, const struct policy_sight *sight) {
    if (policy->held) { /* in vain */
        policy->held = false;
        policy->hold_misses++;
        if (policy->misses < MISSES_MAX) policy->misses++;
        patience_forget(policy);
    }
    switch (policy->mode) {
    case MODE_SHRINK: return plan_half(sight);
    case MODE_ADAPTIVE: return plan_capacity(policy, sight);
    default: return plan_everything();
    }
}

void policy_gave(struct policy *policy, size_t bytes, const struct policy_sight *after) {
    policy->given_bytes += bytes;
    policy->kept_bytes = policy->burst_low_bytes = after->dirty_bytes;
    policy->burst_clean_bytes = after->clean_taken_bytes;
}

void policy_burst(struct policy *policy, const struct policy_sight *sight) {
    policy->quiet = false;
    policy->burst_ns = sight->now_ns;
    policy->ticks_seen = 0;
    if (!policy->held) return;
    policy->hold_hits++;
    if (++policy->hits >= HITS_TO_FORGIVE) policy->misses = 0;
}

/* --- busy ---------------------------------------------------------------------------------------------------------- */

/* Trims of the last ticks that were missed since. */
static void regret_note(struct policy *policy, const struct policy_sight *sight) {
    uint64_t faulted = sight->clean_taken_bytes - policy->tick_clean_bytes;
    policy->tick_clean_bytes = sight->clean_taken_bytes;
    size_t missed = (size_t)u64_min(faulted, policy->trimmed_bytes);
    policy->regret_bytes += missed;
    if (missed >= POLICY_WORTH_BYTES && missed >= policy->trimmed_bytes / 4) {
        policy->window = (unsigned)size_min(policy->window * 2, POLICY_WINDOWS);
        policy->calm_needed = (unsigned)size_min(policy->calm_needed * 2, CALM_TICKS_MAX);
        policy->trimmed_bytes = 0;
        policy->calm = 0;
    } else if (++policy->calm >= policy->calm_needed) {
        if (policy->window == 1) policy->calm_needed = (unsigned)size_max(policy->calm_needed / 2, CALM_TICKS_MIN);
        policy->window = (unsigned)size_max(policy->window / 2, 1);
        policy->trimmed_bytes = 0;
        policy->calm = 0;
    }
}

/* The least free memory of the last window; 0 when that was not seen in full. */
static size_t window_low(const struct policy *policy) {
    if (policy->ticks_seen < policy->window) return 0;
    size_t low = SIZE_MAX;
    for (unsigned i = 0; i < policy->window; i++)
        low = size_min(low, policy->lows[(policy->tick - i) % POLICY_WINDOWS]);
    return low;
}

size_t policy_tick(struct policy *policy, const struct policy_sight *sight) {
    rates_note(policy, sight);
    regret_note(policy, sight);
    policy->burst_low_bytes = size_min(policy->burst_low_bytes, sight->dirty_low_bytes);
    policy->tick++;
    policy->ticks_seen++;
    policy->lows[policy->tick % POLICY_WINDOWS] = sight->dirty_low_bytes;
    size_t spare = window_low(policy), slack;
    switch (policy->mode) {
    case MODE_SHRINK: slack = 0; break;
    case MODE_ADAPTIVE:
    case MODE_HYBRID: slack = capacity(policy); break;
    default: return 0;
    }
    if (spare < POLICY_WORTH_BYTES || spare - POLICY_WORTH_BYTES < slack) return 0;
    size_t give = size_max((spare - slack) / 2, POLICY_WORTH_BYTES);
    policy->trimmed_bytes += give;
    return give;
}

void policy_pressed(struct policy *policy) {
    patience_forget(policy);
    policy->window = 1;
    policy->held = false;
}
