#include "keeper/keeper.h"

#include "heap/bell.h"
#include "heap/claim.h"
#include "heap/own.h"
#include "heap/thread.h"
#include "keeper/note.h"
#include "os/options.h"
#include "span/run.h"
#include "tier/large.h"

/* While the program works, giving back may take this part of the time. */
#define BUSY_BUDGET_NS (POLICY_TICK_NS / 100)
/* A heap that is idle while others work is punched only after this: its thread may be back soon. */
#define IDLE_PUNCH_NS 500000000u
/* Between two answers to pressure; doubled while it goes on. */
#define PRESSED_MIN_NS 1000000000u
#define PRESSED_MAX_NS 16000000000u
/* A thread that has lost its processor looks idle. Where the keeper itself wakes up so late, processors are short: then it looks again, but not so
 * often that idleness is noticed much later. */
#define LATE_NS 1500000u
#define LATE_LOOKS_MAX 5u
/* Without a barrier a bell can be missed: then nothing sleeps longer. */
#define BLIND_SLEEP_NS 1000000000u

struct os_lock keeper_lock = OS_LOCK(RANK_KEEPER);
struct keeper_figures keeper_figures;

static struct { /* keeper_lock */
    enum keeper_state state;
    struct policy policy;
    struct claim_survey survey;
    uint64_t mark_ns;    /* the last mark */
    uint64_t busy_ns;    /* the last look that saw something */
    uint64_t tick_ns;    /* the next tick */
    uint64_t due_ns;     /* the next step */
    unsigned late_looks; /* since the mark */
    uint64_t pressed_ns; /* no answer to pressure before this */
    uint64_t pressed_pause_ns;
    size_t stuck_bytes; /* free memory that the system does not take (locked) */
} keeper;

static void figure_set(_Atomic uint64_t *figure, uint64_t value) {
    atomic_store_explicit(figure, value, memory_order_relaxed);
}

static void figure_count(_Atomic uint64_t *figure) {
    figure_set(figure, atomic_load_explicit(figure, memory_order_relaxed) + 1);
}

static void state_set(enum keeper_state state) {
    keeper.state = state;
    atomic_store_explicit(&keeper_figures.state, state, memory_order_relaxed);
    for (unsigned tier = 0; tier < TIER_COUNT; tier++) {
        figure_set(&keeper_figures.pool_states[tier], keeper.policy.pools[tier].state);
        figure_set(&keeper_figures.pool_rates[tier], keeper.policy.pools[tier].rate_bytes);
    }
    figure_set(&keeper_figures.regret_bytes, keeper.policy.regret_bytes);
    figure_set(&keeper_figures.hold_hits, keeper.policy.hold_hits);
    figure_set(&keeper_figures.hold_misses, keeper.policy.hold_misses);
    figure_set(&keeper_figures.locked_bytes, keeper.stuck_bytes);
    figure_set(&keeper_figures.patience_ns, keeper.policy.patience_ns);
}

static struct policy_sight sight(uint64_t now_ns, bool reset) {
    struct run_flow flow = run_flow(reset);
    struct policy_sight seen = {
        .now_ns = now_ns,
        .dirty_bytes = flow.dirty_bytes - size_min(flow.dirty_bytes, keeper.stuck_bytes),
        .dirty_low_bytes = flow.dirty_low_bytes - size_min(flow.dirty_low_bytes, keeper.stuck_bytes),
        .clean_taken_bytes = flow.clean_taken_bytes,
    };
    uint64_t small = 0;
    for (struct heap *heap = __atomic_load_n(&heap_all, __ATOMIC_ACQUIRE); heap != NULL; heap = heap->next_heap) {
        seen.clean_taken_bytes += atomic_load_explicit(&heap->mended_bytes, memory_order_relaxed);
        for (unsigned tier = 0; tier < TIER_LARGE_INDEX; tier++) {
            uint64_t fresh = atomic_load_explicit(&heap->fresh_bytes[tier], memory_order_relaxed);
            seen.taken_bytes[tier] += fresh;
            small += fresh;
        }
    }
    /* A span that was taken after the look at the runs must not make it negative. */
    seen.taken_bytes[TIER_LARGE_INDEX] = flow.taken_bytes > small ? flow.taken_bytes - small : 0;
    return seen;
}

void keeper_reset(void) {
    policy_init(&keeper.policy, options.mode);
    keeper.state = KEEPER_WATCH;
    keeper.due_ns = keeper.pressed_ns = 0;
    keeper.stuck_bytes = 0;
    keeper.pressed_pause_ns = PRESSED_MIN_NS;
    keeper.tick_ns = os_now_ns() + POLICY_TICK_NS;
    struct policy_sight now = sight(keeper.tick_ns, true);
    for (unsigned tier = 0; tier < TIER_COUNT; tier++) keeper.policy.pools[tier].seen_bytes = now.taken_bytes[tier];
    keeper.policy.tick_clean_bytes = now.clean_taken_bytes;
}

static bool bell_has_rung(void) { return load_relaxed(&heap_bell) == BELL_QUIET; }

/* --- giving back --------------------------------------------------------------------------------------------------- */

static size_t sweep_heaps(uint64_t punch_before_ns, bool until_bell) {
    struct claim_sweep sweep = {.tiers = TIER_BOTH, .punch_before_ns = punch_before_ns, .until_bell = until_bell};
    if (!claim_begin()) return 0;
    claim_sweep(&sweep);
    heap_step_back();
    claim_end();
    return sweep.returned_bytes;
}

/* Free runs go back, down to `keep_bytes`. Stops at the bell, or when the time is up. */
static size_t purge_runs(size_t keep_bytes, bool until_bell, uint64_t deadline_ns) {
    size_t dirty = run_flow(false).dirty_bytes;
    if (keep_bytes != 0 && dirty <= keep_bytes) return 0;
    struct run_purge purge = {.limit_bytes = keep_bytes == 0 ? SIZE_MAX : dirty - keep_bytes};
    while (run_purge_step(&purge))
        if ((until_bell && bell_has_rung()) || (deadline_ns != UINT64_MAX && os_now_ns() >= deadline_ns)) break;
    if (keep_bytes == 0) keeper.stuck_bytes = purge.kept_bytes;
    return purge.returned_bytes;
}

/* What blocks in the places of others have behind their last bytes. */
static size_t trim_large(bool until_bell) {
    struct large_trim trim = {0};
    if (!large_wants_trim()) return 0;
    while (large_trim_step(&trim)) {
        if (!until_bell || !bell_has_rung()) continue;
        large_trim_break();
        break;
    }
    return trim.returned_bytes;
}

/* --- states -------------------------------------------------------------------------------------------------------- */

static void to_watch(uint64_t now_ns) {
    keeper.busy_ns = now_ns;
    keeper.due_ns = now_ns + KEEPER_MARK_NS - KEEPER_IDLE_NS;
    state_set(KEEPER_WATCH);
}

static void to_burst(uint64_t now_ns) {
    struct policy_sight seen = sight(now_ns, false);
    policy_burst(&keeper.policy, &seen);
    keeper.tick_ns = now_ns + POLICY_TICK_NS;
    note_burst(now_ns - keeper.policy.quiet_ns);
    to_watch(now_ns);
}

static void mark(uint64_t now_ns, bool self) {
    if (!claim_begin()) return;
    atomic_store_explicit(&heap_bell, BELL_ASKED, memory_order_seq_cst);
    keeper.survey = claim_mark(now_ns);
    if (self) claim_mark_self(now_ns);
    heap_step_back();
    claim_end();
    figure_count(&keeper_figures.marks);
    atomic_store_explicit(&keeper_figures.claims_possible, keeper.survey.possible, memory_order_relaxed);
    keeper.mark_ns = now_ns;
    keeper.late_looks = 0;
    keeper.due_ns = now_ns + KEEPER_IDLE_NS;
    state_set(KEEPER_LOOK);
}

/* Carry out a plan for the quiet. */
static void settle(struct policy_plan plan, uint64_t now_ns) {
    bool all = plan.keep_bytes == 0;
    size_t given = 0;
    figure_count(all ? &keeper_figures.flushes : &keeper_figures.holds);
    if (all) given = sweep_heaps(UINT64_MAX, true);
    if (!bell_has_rung()) given += purge_runs(plan.keep_bytes, true, UINT64_MAX);
    if (all) given += trim_large(true);
    struct policy_sight after = sight(now_ns, true);
    policy_gave(&keeper.policy, given, &after);
    note_plan(given, plan.keep_bytes, plan.until_ns == POLICY_FOREVER ? 0 : plan.until_ns - keeper.policy.quiet_ns);
    keeper.due_ns = plan.until_ns;
    state_set(plan.until_ns == POLICY_FOREVER ? KEEPER_STILL : KEEPER_QUIET);
    if (!keeper.survey.possible && keeper.due_ns == POLICY_FOREVER) keeper.due_ns = now_ns + BLIND_SLEEP_NS;
}

static void answer_pressure(uint64_t now_ns) {
    if (now_ns < keeper.pressed_ns) return;
    enum pressure pressure = pressure_look();
    if (pressure == PRESSURE_NONE) {
        keeper.pressed_pause_ns = PRESSED_MIN_NS; /* a pause went by without */
        return;
    }
    keeper.pressed_ns = now_ns + keeper.pressed_pause_ns;
    keeper.pressed_pause_ns =
        keeper.pressed_pause_ns * 2 < PRESSED_MAX_NS ? keeper.pressed_pause_ns * 2 : PRESSED_MAX_NS;
    policy_pressed(&keeper.policy);
    size_t given = sweep_heaps(now_ns, false) + purge_runs(0, false, UINT64_MAX) + trim_large(false);
    figure_count(&keeper_figures.pressed);
    note_pressure(pressure, given);
}

static void tick(uint64_t now_ns) {
    if (now_ns < keeper.tick_ns) return;
    keeper.tick_ns = now_ns + POLICY_TICK_NS;
    answer_pressure(now_ns);
    if (options.mode != MODE_FLUSH) atomic_fetch_add_explicit(&heap_tick, 1, memory_order_relaxed);
    /* What an idle thread keeps goes to the others first. */
    sweep_heaps(now_ns > IDLE_PUNCH_NS ? now_ns - IDLE_PUNCH_NS : 0, false);
    struct policy_sight seen = sight(now_ns, true);
    size_t give = policy_tick(&keeper.policy, &seen);
    if (give == 0) return;
    size_t given = purge_runs(seen.dirty_bytes - size_min(give, seen.dirty_bytes - 1), false, now_ns + BUSY_BUDGET_NS);
    figure_count(&keeper_figures.trims);
    note_trim(given, seen.dirty_low_bytes);
}

static void look(uint64_t now_ns) {
    /* Without a barrier nobody is ever marked: then only the bell counts. */
    bool quiet = !bell_has_rung() && (keeper.survey.busy == 0 || !keeper.survey.possible);
    if (quiet && now_ns - keeper.due_ns > LATE_NS && keeper.late_looks++ < LATE_LOOKS_MAX) {
        keeper.due_ns = now_ns + KEEPER_IDLE_NS;
        return;
    }
    if (!quiet) {
        tick(now_ns);
        to_watch(now_ns);
        return;
    }
    struct policy_sight seen = sight(keeper.mark_ns, false);
    settle(policy_quiet(&keeper.policy, &seen, keeper.busy_ns), now_ns);
}

uint64_t keeper_step(uint64_t now_ns, bool self) {
    if (keeper.policy.mode != options.mode) keeper_reset();
    if (options.mode == MODE_STATIC) return UINT64_MAX;
    bool rung = bell_has_rung();
    switch (keeper.state) {
    case KEEPER_WATCH:
        if (now_ns >= keeper.due_ns) mark(now_ns, self);
        break;
    case KEEPER_LOOK:
        if (now_ns >= keeper.due_ns) look(now_ns);
        break;
    case KEEPER_QUIET:
        if (!rung && now_ns >= keeper.due_ns) {
            struct policy_sight seen = sight(now_ns, false);
            settle(policy_waited(&keeper.policy, &seen), now_ns);
        }
        break;
    case KEEPER_STILL:
        if (!rung && now_ns >= keeper.due_ns)
            settle((struct policy_plan){.until_ns = POLICY_FOREVER}, now_ns); /* blind */
        break;
    }
    /* The bell may have rung before this step or during it. */
    if (keeper.state >= KEEPER_QUIET && bell_has_rung()) to_burst(os_now_ns());
    return keeper.due_ns;
}

bool keeper_waits_for_bell(void) { return keeper.state >= KEEPER_QUIET; }

static bool nobody_is_bound(void) {
    for (struct heap *heap = __atomic_load_n(&heap_all, __ATOMIC_ACQUIRE); heap != NULL; heap = heap->next_heap)
        if (heap_is_bound(heap)) return false;
    return true;
}

bool keeper_is_alone(void) {
    if (options.mode == MODE_STATIC) return nobody_is_bound();
    return keeper.state == KEEPER_STILL && keeper.survey.marked + keeper.survey.busy == 0;
}
