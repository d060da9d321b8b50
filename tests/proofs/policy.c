/* The policy, from the start, for every history of a few events. Nothing is known of what is seen; or, in the second half, what physics
 * says: time does not run backwards, counters count up, and there is no more memory than addresses. */
#include "proof.h"

#include "keeper/policy.c"

/* Events after the start: enough for gaps to agree, a hold, its miss, and a trim to be regretted. */
#ifndef EVENTS
#define EVENTS 4
#endif

static struct policy_sight last;

static struct policy_sight sight_any(void) {
    struct policy_sight sight = {.now_ns = nondet_u64(),
                                 .dirty_bytes = nondet_size(),
                                 .dirty_low_bytes = nondet_size(),
                                 .clean_taken_bytes = nondet_u64()};
    for (unsigned tier = 0; tier < TIER_COUNT; tier++) sight.taken_bytes[tier] = nondet_u64();
    return sight;
}

#define TIME_MAX (UINT64_C(1) << 62)
#define BYTES_MAX (UINT64_C(1) << 47)
static struct policy_sight sight_possible(void) {
    struct policy_sight sight = sight_any();
    given(sight.now_ns >= last.now_ns && sight.now_ns < TIME_MAX);
    given(sight.dirty_bytes < BYTES_MAX && sight.dirty_low_bytes <= sight.dirty_bytes);
    given(sight.clean_taken_bytes >= last.clean_taken_bytes && sight.clean_taken_bytes < TIME_MAX);
    for (unsigned tier = 0; tier < TIER_COUNT; tier++)
        given(sight.taken_bytes[tier] >= last.taken_bytes[tier] && sight.taken_bytes[tier] < TIME_MAX);
    last = sight;
    return sight;
}

static enum mode mode_any(void) {
    unsigned mode = nondet_unsigned();
    given(mode < MODES);
    return (enum mode)mode;
}

/* The state stays in range whatever is seen. */
static void state_sane(const struct policy *policy) {
    prove(policy->window >= 1 && policy->window <= POLICY_WINDOWS);
    prove(policy->misses <= MISSES_MAX && policy->known <= POLICY_HISTORY);
    prove(policy->patience_ns <= PATIENCE_MAX_NS);
    prove(policy->calm_needed >= CALM_TICKS_MIN && policy->calm_needed <= CALM_TICKS_MAX);
    for (unsigned tier = 0; tier < TIER_COUNT; tier++) prove(policy->pools[tier].state <= POOL_PERFORMANCE);
}

static void plan_sane(const struct policy *policy, struct policy_plan plan, const struct policy_sight *sight) {
    prove(plan.until_ns == POLICY_FOREVER || plan.until_ns - sight->now_ns <= PATIENCE_MAX_NS);
    prove(plan.keep_bytes != 0 || plan.until_ns == POLICY_FOREVER ||
          policy->held); /* everything went: no need to come back */
    if (!policy->held) prove(plan.keep_bytes <= sight->dirty_bytes);
    if (policy->mode == MODE_STATIC || policy->mode == MODE_FLUSH) prove(plan.keep_bytes == 0);
    prove(!policy->held || policy->mode == MODE_HYBRID);
}

static void tick_sane(const struct policy *policy, size_t give, const struct policy_sight *sight) {
    prove(give <= sight->dirty_low_bytes);
    prove(give == 0 || give >= POLICY_WORTH_BYTES);
    prove(give == 0 || (policy->mode != MODE_STATIC && policy->mode != MODE_FLUSH));
}

static void event(struct policy *policy, struct policy_sight sight, uint64_t last_busy_ns, size_t given_bytes) {
    switch (nondet_u8() % 6) {
    case 0: plan_sane(policy, policy_quiet(policy, &sight, last_busy_ns), &sight); break;
    case 1: plan_sane(policy, policy_waited(policy, &sight), &sight); break;
    case 2: policy_gave(policy, given_bytes, &sight); break;
    case 3: policy_burst(policy, &sight); break;
    case 4: tick_sane(policy, policy_tick(policy, &sight), &sight); break;
    default: policy_pressed(policy);
    }
    state_sane(policy);
}

void prove_any_history(void) {
    struct policy policy;
    policy_init(&policy, mode_any());
    for (unsigned i = 0; i < EVENTS; i++) event(&policy, sight_any(), nondet_u64(), nondet_size());
}

/* With a state that is only sane, one event keeps it so: histories of every length, by induction. */
void prove_any_state(void) {
    struct policy policy;
    policy.mode = mode_any();
    given(policy.window >= 1 && policy.window <= POLICY_WINDOWS && policy.misses <= MISSES_MAX &&
          policy.known <= POLICY_HISTORY);
    given(policy.patience_ns <= PATIENCE_MAX_NS && policy.calm_needed >= CALM_TICKS_MIN &&
          policy.calm_needed <= CALM_TICKS_MAX);
    given(!policy.held || policy.mode == MODE_HYBRID);
    for (unsigned tier = 0; tier < TIER_COUNT; tier++) given(policy.pools[tier].state <= POOL_PERFORMANCE);
    event(&policy, sight_any(), nondet_u64(), nondet_size());
}

/* The order in which the keeper asks: quiet, what was given, perhaps waiting in vain, burst, ticks. No difference of two times or counters is
 * negative (run.sh asks for a check of unsigned overflow here), and times only rise. */
void prove_possible_history(void) {
    struct policy policy;
    struct policy_sight sight = sight_possible();
    policy_init(&policy, mode_any());
    policy.tick_clean_bytes = sight.clean_taken_bytes; /* keeper_reset */
    for (unsigned tier = 0; tier < TIER_COUNT; tier++) policy.pools[tier].seen_bytes = sight.taken_bytes[tier];
    uint64_t busy_ns = sight.now_ns;
    for (unsigned round = 0; round < 2; round++) {
        uint64_t quiet_before_ns = policy.quiet_ns;
        sight = sight_possible();
        struct policy_plan plan = policy_quiet(&policy, &sight, busy_ns);
        plan_sane(&policy, plan, &sight);
        prove(policy.quiet_ns >= quiet_before_ns && policy.last_busy_ns <= policy.quiet_ns);
        size_t given_bytes = nondet_size();
        given(given_bytes < BYTES_MAX);
        sight = sight_possible();
        policy_gave(&policy, given_bytes, &sight);
        if (nondet_bool()) {
            sight = sight_possible();
            plan_sane(&policy, policy_waited(&policy, &sight), &sight);
        }
        sight = sight_possible();
        policy_burst(&policy, &sight);
        prove(policy.burst_ns >= policy.quiet_ns);
        busy_ns = sight.now_ns;
        if (nondet_bool()) {
            sight = sight_possible();
            tick_sane(&policy, policy_tick(&policy, &sight), &sight);
        }
        state_sane(&policy);
    }
}
