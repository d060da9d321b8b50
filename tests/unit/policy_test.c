/* The policy on a virtual clock: a small world of free and live memory lives through bursts, plateaus, sawtooth, trickle and silence. */
#include "keeper/policy.h"

#include "unit.h"

#define MS UINT64_C(1000000)
#define IDLE_MS 10

static struct policy policy;
static struct world {
    uint64_t now_ns, busy_ns;
    size_t live, dirty, low;
    uint64_t clean_taken, taken;
    size_t given;
} world;

static struct policy_sight sight(bool reset) {
    struct policy_sight seen = {
        .now_ns = world.now_ns,
        .dirty_bytes = world.dirty,
        .dirty_low_bytes = world.low,
        .clean_taken_bytes = world.clean_taken,
        .taken_bytes = {[TIER_LARGE_INDEX] = world.taken},
    };
    if (reset) world.low = world.dirty;
    return seen;
}

static void start(enum mode mode) {
    world = (struct world){.now_ns = 1000 * MS, .busy_ns = 990 * MS};
    policy_init(&policy, mode);
}

static void pass_ms(uint64_t ms) { world.now_ns += ms * MS; }

static void take(size_t bytes) {
    size_t used = size_min(bytes, world.dirty);
    world.dirty -= used;
    world.low = size_min(world.low, world.dirty);
    world.clean_taken += bytes - used;
    world.taken += bytes;
    world.live += bytes;
}

static void release(size_t bytes) {
    world.live -= bytes;
    world.dirty += bytes;
}

static void purge(size_t bytes) {
    bytes = size_min(bytes, world.dirty);
    world.dirty -= bytes;
    world.low = size_min(world.low, world.dirty);
    world.given += bytes;
}

static void carry_out(struct policy_plan plan) {
    size_t before = world.given;
    purge(world.dirty - size_min(world.dirty, plan.keep_bytes));
    struct policy_sight after = sight(true);
    policy_gave(&policy, world.given - before, &after);
}

/* Quiet begins now; what the keeper does until `gap_ms` have passed. Returns how long something was held, in ms. */
static uint64_t quiet(uint64_t gap_ms) {
    uint64_t begun_ns = world.now_ns, held_ms = 0, end_ns = begun_ns + gap_ms * MS;
    struct policy_sight seen = sight(false);
    struct policy_plan plan = policy_quiet(&policy, &seen, world.busy_ns);
    pass_ms(IDLE_MS);
    carry_out(plan);
    while (plan.until_ns <= end_ns) {
        world.now_ns = plan.until_ns;
        held_ms = (world.now_ns - begun_ns) / MS;
        seen = sight(false);
        plan = policy_waited(&policy, &seen);
        carry_out(plan);
    }
    if (world.dirty > 0) held_ms = gap_ms;
    world.now_ns = end_ns;
    seen = sight(false);
    policy_burst(&policy, &seen);
    return held_ms;
}

static void burst(size_t bytes, uint64_t ms) {
    take(bytes);
    pass_ms(ms);
    release(bytes);
    world.busy_ns = world.now_ns;
}

static size_t tick(void) {
    pass_ms(100);
    struct policy_sight seen = sight(true);
    size_t give = policy_tick(&policy, &seen);
    purge(give);
    return give;
}

/* --- one burst, and silence ------------------------------------------------------------------------------------------ */

static void test_burst_then_silence(void **state) {
    (void)state;
    const enum mode everything[] = {MODE_FLUSH, MODE_HYBRID};
    for (size_t i = 0; i < COUNT_OF(everything); i++) {
        start(everything[i]);
        burst(128 * MIB, 50);
        struct policy_sight seen = sight(false);
        struct policy_plan plan = policy_quiet(&policy, &seen, world.busy_ns);
        assert_int_equal(plan.keep_bytes, 0);
        assert_true(plan.until_ns == POLICY_FOREVER);
    }
}

/* Half of the rest at each step, and nothing is left to wake up for in the end. */
static void test_silence_when_shrinking(void **state) {
    (void)state;
    start(MODE_SHRINK);
    burst(128 * MIB, 50);
    struct policy_sight seen = sight(false);
    struct policy_plan plan = policy_quiet(&policy, &seen, world.busy_ns);
    size_t keep = 64 * MIB;
    unsigned steps = 0;
    while (plan.until_ns != POLICY_FOREVER) {
        assert_int_equal(plan.keep_bytes, keep);
        assert_int_equal(plan.until_ns, world.now_ns + POLICY_TICK_NS);
        carry_out(plan);
        world.now_ns = plan.until_ns;
        seen = sight(false);
        plan = policy_waited(&policy, &seen);
        keep /= 2;
        steps++;
    }
    assert_int_equal(plan.keep_bytes, 0);
    assert_int_equal(steps, 7); /* 128 MiB -> 1 MiB */
}

static void test_silence_when_adaptive(void **state) {
    (void)state;
    start(MODE_ADAPTIVE);
    burst(512 * MIB, 50);
    struct policy_sight seen = sight(false);
    struct policy_plan plan = policy_quiet(&policy, &seen, world.busy_ns);
    assert_int_equal(policy.pools[TIER_LARGE_INDEX].state, POOL_PERFORMANCE);
    assert_int_equal(policy.pools[TIER_TINY_INDEX].state, POOL_MEMORY);
    size_t keep = plan.keep_bytes;
    assert_int_equal(keep, 256 * MIB);
    bool balanced = false;
    while (plan.until_ns != POLICY_FOREVER) {
        carry_out(plan);
        world.now_ns = plan.until_ns;
        seen = sight(false);
        plan = policy_waited(&policy, &seen);
        assert_true(plan.keep_bytes < keep);
        keep = plan.keep_bytes;
        balanced = balanced || policy.pools[TIER_LARGE_INDEX].state == POOL_BALANCED;
    }
    assert_true(balanced);
    assert_int_equal(policy.pools[TIER_LARGE_INDEX].state, POOL_MEMORY);
    assert_int_equal(plan.keep_bytes, 0);
}

/* --- bursts that recur ----------------------------------------------------------------------------------------------- */

static void test_recurring_bursts_are_learned(void **state) {
    (void)state;
    const uint64_t gaps[] = {20, 50, 100, 300, 1000};
    for (size_t g = 0; g < COUNT_OF(gaps); g++) {
        start(MODE_HYBRID);
        for (unsigned cycle = 1; cycle <= 12; cycle++) {
            uint64_t missed = world.clean_taken;
            burst(64 * MIB, 20);
            missed = world.clean_taken - missed;
            if (cycle >= 5) assert_int_equal(missed, 0);
            if (cycle <= 3) assert_int_equal(missed, 64 * MIB);
            quiet(gaps[g]);
        }
        assert_true(policy.hold_hits >= 9);
        assert_int_equal(policy.hold_misses, 0);
        /* and then they stop: held once, not much longer than a gap */
        burst(64 * MIB, 20);
        uint64_t held_ms = quiet(100000);
        assert_true(held_ms <= (gaps[g] < 96 ? 120 : gaps[g] + gaps[g] / 4));
        assert_int_equal(policy.hold_misses, 1);
        assert_int_equal(world.dirty, 0);
    }
}

static void test_long_gaps_are_not_waited_for(void **state) {
    (void)state;
    start(MODE_HYBRID);
    for (unsigned cycle = 0; cycle < 10; cycle++) {
        burst(64 * MIB, 20);
        assert_int_equal(quiet(2000), 0);
    }
    assert_int_equal(policy.hold_hits + policy.hold_misses, 0);
}

static void test_irregular_gaps_are_not_learned(void **state) {
    (void)state;
    const uint64_t gaps[] = {100, 500, 60, 900, 200, 700, 100, 400};
    start(MODE_HYBRID);
    for (size_t g = 0; g < COUNT_OF(gaps); g++) {
        burst(64 * MIB, 20);
        assert_int_equal(quiet(gaps[g]), 0);
    }
}

/* 64 MiB cost 32 ms of page faults: nothing beside two seconds of work. */
static void test_cheap_refaults_are_not_held_for(void **state) {
    (void)state;
    start(MODE_HYBRID);
    for (unsigned cycle = 0; cycle < 10; cycle++) {
        burst(64 * MIB, 2000);
        assert_int_equal(quiet(300), 0);
    }
    start(MODE_HYBRID);
    for (unsigned cycle = 0; cycle < 10; cycle++) {
        burst(512 * KIB, 1); /* nor is so little */
        assert_int_equal(quiet(300), 0);
    }
}

/* After a hold in vain two agreeing pairs of gaps are asked for, after the next four. */
static void test_misses_make_it_harder(void **state) {
    (void)state;
    start(MODE_HYBRID);
    unsigned needed[3] = {0};
    for (unsigned miss = 0; miss < 3; miss++) {
        unsigned cycles = 0;
        do {
            burst(64 * MIB, 20);
            cycles++;
        } while (quiet(200) == 0);
        needed[miss] = cycles;
        burst(64 * MIB, 20);
        quiet(50000);
    }
    assert_int_equal(needed[0], 3); /* gap, gap, hold */
    assert_true(needed[1] > needed[0]);
    assert_true(needed[2] > needed[1]);
    assert_int_equal(policy.hold_misses, 3);
}

/* One large burst among small ones: what it needed is not held for long. */
static void test_holds_what_recent_bursts_need(void **state) {
    (void)state;
    start(MODE_HYBRID);
    for (unsigned cycle = 0; cycle < 6; cycle++) {
        burst(16 * MIB, 5);
        quiet(200);
    }
    burst(512 * MIB, 100);
    quiet(200);
    for (unsigned cycle = 0; cycle < 4; cycle++) {
        burst(16 * MIB, 5);
        quiet(200);
    }
    assert_true(world.dirty <= 24 * MIB);
    assert_true(world.dirty >= 16 * MIB);
}

static void test_pressure_voids_patience(void **state) {
    (void)state;
    start(MODE_HYBRID);
    for (unsigned cycle = 0; cycle < 6; cycle++) {
        burst(64 * MIB, 20);
        quiet(200);
    }
    assert_true(policy.patience_ns > 0);
    policy_pressed(&policy);
    assert_int_equal(policy.patience_ns, 0);
    burst(64 * MIB, 20);
    assert_int_equal(quiet(200), 0);
}

/* --- busy ------------------------------------------------------------------------------------------------------------ */

/* The work goes on with less than before: the rest goes, by halves. */
static void test_plateau(void **state) {
    (void)state;
    start(MODE_HYBRID);
    burst(128 * MIB, 50);
    take(32 * MIB);
    world.low = world.dirty;
    size_t last = world.dirty;
    unsigned steps = 0;
    while (world.dirty > MIB && steps < 20) {
        tick();
        assert_true(world.dirty < last || steps == 0);
        assert_true(last - world.dirty <= last / 2 + MIB);
        last = world.dirty;
        steps++;
    }
    assert_true(steps >= 5 && steps < 12);
    const enum mode never[] = {MODE_STATIC, MODE_FLUSH};
    for (size_t i = 0; i < COUNT_OF(never); i++) {
        start(never[i]);
        burst(128 * MIB, 50);
        world.low = world.dirty;
        for (unsigned t = 0; t < 50; t++) assert_int_equal(tick(), 0);
    }
}

/* Up and down faster than a tick: nothing that a swing needs goes. */
static void test_fast_sawtooth(void **state) {
    (void)state;
    start(MODE_HYBRID);
    for (unsigned t = 0; t < 50; t++) {
        take(64 * MIB);
        release(64 * MIB);
        assert_int_equal(tick(), 0);
    }
}

/* Up and down in 800 ms: the first trims are regretted, the window grows, and the trims stop. */
static void test_slow_sawtooth(void **state) {
    (void)state;
    start(MODE_SHRINK);
    uint64_t regret_early = 0;
    for (unsigned cycle = 0; cycle < 60; cycle++) {
        take(64 * MIB);
        tick();
        release(64 * MIB);
        for (unsigned t = 0; t < 7; t++) tick();
        if (cycle == 19) regret_early = policy.regret_bytes;
    }
    assert_true(regret_early > 0);
    assert_true(policy.regret_bytes - regret_early < regret_early); /* in twice the time, and ever less */
    assert_true(policy.window >= 8);
}

/* A little all the time: the leftovers of the burst before go, and what the trickle turns over stays. */
static void test_trickle(void **state) {
    (void)state;
    start(MODE_HYBRID);
    burst(128 * MIB, 50);
    world.low = world.dirty;
    for (unsigned t = 0; t < 30; t++) {
        take(256 * KIB);
        release(256 * KIB);
        tick();
    }
    assert_true(world.dirty <= 2 * MIB);
    assert_int_equal(policy.regret_bytes, 0);
}

/* Rates decide how much spare memory is worth keeping. */
static void test_states_follow_the_rate(void **state) {
    (void)state;
    start(MODE_HYBRID);
    const struct {
        size_t bytes;
        enum pool_state state;
    } steps[] = {{200 * MIB, POOL_PERFORMANCE}, {20 * MIB, POOL_BALANCED}, {MIB, POOL_MEMORY}};
    for (size_t s = 0; s < COUNT_OF(steps); s++) {
        for (unsigned t = 0; t < 10; t++) {
            take(steps[s].bytes);
            release(steps[s].bytes);
            tick();
        }
        assert_int_equal(policy.pools[TIER_LARGE_INDEX].state, steps[s].state);
        assert_int_equal(policy.pools[TIER_MID_INDEX].state, POOL_MEMORY);
    }
}

/* A counter that was read a little too early does not become a huge rate. */
static void test_counters_that_seem_to_go_back(void **state) {
    (void)state;
    start(MODE_HYBRID);
    world.taken = 10 * MIB;
    tick();
    world.taken = 9 * MIB;
    tick();
    assert_true(policy.pools[TIER_LARGE_INDEX].rate_bytes <= 10 * MIB);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_burst_then_silence),
        cmocka_unit_test(test_silence_when_shrinking),
        cmocka_unit_test(test_silence_when_adaptive),
        cmocka_unit_test(test_recurring_bursts_are_learned),
        cmocka_unit_test(test_long_gaps_are_not_waited_for),
        cmocka_unit_test(test_irregular_gaps_are_not_learned),
        cmocka_unit_test(test_cheap_refaults_are_not_held_for),
        cmocka_unit_test(test_misses_make_it_harder),
        cmocka_unit_test(test_holds_what_recent_bursts_need),
        cmocka_unit_test(test_pressure_voids_patience),
        cmocka_unit_test(test_plateau),
        cmocka_unit_test(test_fast_sawtooth),
        cmocka_unit_test(test_slow_sawtooth),
        cmocka_unit_test(test_trickle),
        cmocka_unit_test(test_states_follow_the_rate),
        cmocka_unit_test(test_counters_that_seem_to_go_back),
    };
    return unit_run(tests, COUNT_OF(tests));
}
