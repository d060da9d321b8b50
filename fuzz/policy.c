/* policy.c - any sequence of sights, in the order in which a keeper asks: clocks do not go back, counters do not fall, all else is free. */
#include "keeper/policy.h"

#include <string.h>

#include "fuzz.h"

#define MS UINT64_C(1000000)
#define HOLD_MAX_NS (1250 * MS)       /* what TIDE.md promises */
#define BYTES_MAX ((uint64_t)1 << 47) /* an address space */

static struct policy policy;
static struct policy_sight sight = {.now_ns = 1000 * MS};
static uint64_t planned_holds, due_ns;
static bool holding;

/* Small and large steps alike: a few bits, shifted. */
static uint64_t amount(struct input *input, uint64_t most) {
    uint64_t bits = input_byte(input);
    uint64_t value = (bits & 15) << (input_byte(input) % 44) | bits >> 4;
    return value > most ? most : value;
}

static void grow(uint64_t *counter, uint64_t more) {
    *counter += more > BYTES_MAX - *counter ? BYTES_MAX - *counter : more;
}

static void look_around(struct input *input) {
    unsigned what = input_byte(input);
    if ((what & 1) != 0) sight.now_ns += amount(input, (uint64_t)1 << 50);
    if ((what & 2) != 0) sight.dirty_bytes = amount(input, BYTES_MAX);
    if ((what & 4) != 0) sight.dirty_low_bytes = amount(input, BYTES_MAX);
    if ((what & 8) != 0) grow(&sight.clean_taken_bytes, amount(input, BYTES_MAX));
    if ((what & 16) != 0) grow(&sight.taken_bytes[what >> 5 & 1], amount(input, BYTES_MAX));
    if ((what & 64) != 0) grow(&sight.taken_bytes[TIER_LARGE_INDEX], amount(input, BYTES_MAX));
    sight.dirty_low_bytes = size_min(sight.dirty_low_bytes, sight.dirty_bytes);
}

static bool is_power(unsigned n) { return n != 0 && (n & (n - 1)) == 0; }

static void state_must_make_sense(void) {
    must(policy.patience_ns <= HOLD_MAX_NS);
    must(policy.known <= POLICY_HISTORY);
    must(policy.misses <= 6);
    must(is_power(policy.window) && policy.window <= POLICY_WINDOWS);
    must(is_power(policy.calm_needed) && policy.calm_needed >= 16 && policy.calm_needed <= 4096);
    must(policy.hold_hits + policy.hold_misses <= planned_holds);
    must(policy.patience_ns == 0 || policy.known >= 2);
    must(policy.patience_ns == 0 || policy.agreeing >= 1u << policy.misses);
    for (unsigned i = 0; i < policy.known; i++) must(policy.gaps_ns[i] <= policy.longest_ns[i]);
    for (unsigned tier = 0; tier < TIER_COUNT; tier++) {
        must(policy.pools[tier].state <= POOL_PERFORMANCE);
        must(policy.pools[tier].seen_bytes <= sight.taken_bytes[tier]);
        must(policy.pools[tier].rate_bytes <= BYTES_MAX);
    }
}

static void plan_must_make_sense(struct policy_plan plan) {
    must(plan.until_ns >= sight.now_ns);
    if (plan.until_ns == POLICY_FOREVER) {
        must(plan.keep_bytes == 0); /* nobody would come back to give the rest */
        return;
    }
    uint64_t wait_ns = plan.until_ns - sight.now_ns;
    switch (policy.mode) {
    case MODE_SHRINK: must(plan.keep_bytes <= sight.dirty_bytes / 2 && wait_ns <= POLICY_TICK_NS); break;
    case MODE_ADAPTIVE: must(plan.keep_bytes <= sight.dirty_bytes && wait_ns <= POLICY_TICK_NS); break;
    case MODE_HYBRID: {
        size_t volume = size_max(policy.volumes[0], policy.volumes[1]);
        must(policy.held && wait_ns == policy.patience_ns && wait_ns <= HOLD_MAX_NS);
        must(plan.keep_bytes == policy.hold_bytes && plan.keep_bytes <= volume + volume / 2);
        break;
    }
    default: fuzz_die(__FILE__, __LINE__, "mode %d keeps something", policy.mode);
    }
}

/* A pure function: the same history gives the same plan. */
static void plan_must_be_pure(const struct policy *before, bool waited, uint64_t busy_ns, struct policy_plan plan) {
    struct policy again = *before;
    struct policy_plan other = waited ? policy_waited(&again, &sight) : policy_quiet(&again, &sight, busy_ns);
    must(other.keep_bytes == plan.keep_bytes && other.until_ns == plan.until_ns);
    must(again.patience_ns == policy.patience_ns && again.misses == policy.misses);
}

static void obey(struct input *input, struct policy_plan plan) {
    plan_must_make_sense(plan);
    bool held_before = holding;
    holding = policy.held;
    if (holding && !held_before) planned_holds++;
    due_ns = plan.until_ns;
    if ((input_byte(input) & 1) == 0) return; /* the bell rang before anything was given */
    size_t given = sight.dirty_bytes > plan.keep_bytes ? sight.dirty_bytes - plan.keep_bytes : 0;
    sight.dirty_bytes -= given;
    sight.dirty_low_bytes = sight.dirty_bytes;
    policy_gave(&policy, given, &sight);
}

static void quiet(struct input *input) {
    uint64_t ago = amount(input, 200 * MS);
    uint64_t busy_ns = sight.now_ns > ago ? sight.now_ns - ago : 0;
    if ((input_byte(input) & 7) == 0) busy_ns = sight.now_ns + ago; /* seen later than the mark */
    struct policy before = policy;
    holding = false;
    struct policy_plan plan = policy_quiet(&policy, &sight, busy_ns);
    plan_must_be_pure(&before, false, busy_ns, plan);
    obey(input, plan);
}

static void waited(struct input *input) {
    if (due_ns != POLICY_FOREVER && due_ns > sight.now_ns) sight.now_ns = due_ns;
    struct policy before = policy;
    bool was_held = policy.held;
    struct policy_plan plan = policy_waited(&policy, &sight);
    plan_must_be_pure(&before, true, 0, plan);
    must(!policy.held);
    must(!was_held || (policy.patience_ns == 0 && plan.keep_bytes == 0)); /* one hold in vain ends it */
    obey(input, plan);
}

static void tick(void) {
    size_t spare = sight.dirty_low_bytes;
    size_t give = policy_tick(&policy, &sight);
    must(give <= spare);
    must(give == 0 || give >= POLICY_WORTH_BYTES);
    must(give == 0 || (policy.mode != MODE_STATIC && policy.mode != MODE_FLUSH));
    sight.dirty_bytes -= size_min(give, sight.dirty_bytes);
    sight.dirty_low_bytes = sight.dirty_bytes;
}

void fuzz_one(const uint8_t *data, size_t size) {
    struct input input = {data, data + size};
    memset(&sight, 0, sizeof sight);
    sight.now_ns = 1000 * MS;
    planned_holds = 0;
    due_ns = POLICY_FOREVER;
    holding = false;
    policy_init(&policy, (enum mode)(input_byte(&input) % MODES));
    while (input_left(&input)) {
        unsigned step = input_byte(&input);
        look_around(&input);
        if (policy.quiet) {
            if (step % 2 == 0)
                waited(&input);
            else
                policy_burst(&policy, &sight);
        } else if (step % 4 == 0) {
            quiet(&input);
        } else if (step % 4 == 1) { /* bursts that miss what was given, as they recur */
            quiet(&input);
            sight.now_ns += (uint64_t)(step >> 2) * 16 * MS;
            policy_burst(&policy, &sight);
            sight.now_ns += 40 * MS;
            grow(&sight.clean_taken_bytes, (uint64_t)64 << 20);
            sight.dirty_bytes = (size_t)64 << 20;
        } else if (step % 4 == 2) {
            tick();
        } else if (step >> 2 < 8) {
            policy_pressed(&policy);
            must(policy.patience_ns == 0 && policy.hold_bytes == 0 && !policy.held);
        }
        state_must_make_sense();
    }
}
