/* Hours of the keeper on a virtual clock: random and hostile patterns of load by threads that take turns, with every
 * structure validated. At rest nothing is held, mappings and metadata do not grow, and the keeper takes no more
 * steps than its clock allows.
 *
 * TIDE_SOAK_MINUTES: virtual minutes, 10 without it; `make soak` takes 360. TIDE_SOAK_SEED. */
#include "actors.h"
#include "heap/bell.h"
#include "heap/block.h"
#include "heap/census.h"
#include "heap/claim.h"
#include "heap/thread.h"
#include "heap/validate.h"
#include "heap/whole.h"
#include "keeper/keeper.h"
#include "keeper/note.h"
#include "os/options.h"
#include "span/run.h"

#define MS 1000000u
#define SECOND UINT64_C(1000000000)
/* After so much quiet everything must be back: the longest patience is 1.25 s. */
#define REST_NS (3 * SECOND)

enum { ACTORS = 3, SLOTS = 400 };

static struct slot {
    char *block;
    size_t bytes;
    uint64_t seed;
} slots[SLOTS];
static struct actor actors[ACTORS];
static struct unit_random dice;
static uint64_t keeper_due_ns, steps, plans, bursts, refusals, validations;
static bool sick; /* system calls fail */
static enum pressure pressure_now;

/* --- what the keeper asks of the layers beside it ----------------------------------------------------------------- */

enum pressure pressure_look(void) { return pressure_now; }
const char *pressure_name(enum pressure pressure) { return pressure == PRESSURE_NONE ? "none" : "some"; }
void note_start(void) {}
void note_plan(size_t given_bytes, size_t keep_bytes, uint64_t wait_ns) {
    (void)given_bytes;
    /* No plan waits longer than gaps are waited for. */
    assert_true(wait_ns <= REST_NS && (keep_bytes == 0 || wait_ns > 0));
    plans++;
}
void note_burst(uint64_t quiet_ns) { (void)quiet_ns; }
void note_trim(size_t given_bytes, size_t spare_bytes) { assert_true(given_bytes <= spare_bytes + GIB); }
void note_pressure(enum pressure pressure, size_t given_bytes) {
    (void)given_bytes;
    assert_int_equal(pressure, pressure_now);
}
void note_failure(const char *what, int error) {
    (void)what;
    (void)error;
}

/* --- load --------------------------------------------------------------------------------------------------------- */

static uint64_t pick(uint64_t below) { return unit_random(&dice, below); }

/* Between `low` and `high`, each order of magnitude as likely as the others. */
static uint64_t pick_log(uint64_t low, uint64_t high) {
    unsigned orders = 0;
    while (low << orders < high) orders++;
    uint64_t base = low << pick(orders + 1);
    return size_min(base + pick(base), high);
}

static void validate(void) {
    assert_null(heap_validate_all());
    assert_int_equal(fake_locks_held(), 0);
    validations++;
}

static size_t edge(const struct slot *slot) { return size_min(slot->bytes, 64); }

static void slot_check(const struct slot *slot) {
    assert_true(unit_holds(slot->block, edge(slot), slot->seed));
    if (slot->bytes >= 128) assert_true(unit_holds(slot->block + slot->bytes - edge(slot), edge(slot), slot->seed + 1));
}

static void slot_fill(struct slot *slot) {
    static uint64_t seed;
    slot->seed = ++seed;
    unit_fill(slot->block, edge(slot), slot->seed);
    if (slot->bytes >= 128) unit_fill(slot->block + slot->bytes - edge(slot), edge(slot), slot->seed + 1);
}

static void slot_drop(struct slot *slot) {
    if (slot->block == NULL) return;
    slot_check(slot);
    heap_free(slot->block);
    slot->block = NULL;
}

static void slot_take(struct slot *slot, size_t bytes) {
    slot_drop(slot);
    slot->block = pick(10) == 0 ? heap_malloc_aligned((size_t)16 << pick(9), bytes) : heap_malloc(bytes);
    slot->bytes = bytes;
    if (slot->block == NULL) {
        assert_true(sick && errno == ENOMEM);
        refusals++;
        return;
    }
    slot_fill(slot);
}

static void slot_resize(struct slot *slot, size_t bytes) {
    if (slot->block == NULL) return;
    slot_check(slot);
    char *block = heap_realloc(slot->block, bytes);
    if (block == NULL) {
        assert_true(sick && errno == ENOMEM && bytes > slot->bytes);
        refusals++;
        return;
    }
    slot->block = block;
    slot->bytes = bytes;
    slot_fill(slot);
}

static struct { /* the job that an actor does now */
    size_t first, count, largest;
    unsigned keep; /* of 16 blocks so many stay */
} job;

static void do_fill(void) {
    for (size_t i = 0; i < job.count; i++) slot_take(&slots[(job.first + i) % SLOTS], 1 + pick(job.largest));
}
static void do_mix(void) {
    for (size_t i = 0; i < job.count; i++) {
        struct slot *slot = &slots[pick(SLOTS)];
        if (slot->block == NULL)
            slot_take(slot, 1 + pick(job.largest));
        else if (pick(4) == 0)
            slot_resize(slot, 1 + pick(job.largest));
        else
            slot_drop(slot);
    }
}
static void do_drop(void) {
    for (size_t i = 0; i < SLOTS; i++)
        if (pick(16) >= job.keep) slot_drop(&slots[i]);
}

static void act(void (*what)(void)) { actor_run(&actors[pick(ACTORS)], what); }

/* --- time --------------------------------------------------------------------------------------------------------- */

/* As the keeper's thread in life.c: a step when it is due or the bell wakes it. */
static void advance(uint64_t ns) {
    uint64_t end_ns = fake.now_ns + ns, most = ns / MS + 20;
    for (uint64_t count = 0;; count++) {
        assert_true(count < most); /* it does not spin */
        uint32_t asked = BELL_ASKED, asleep = BELL_ASLEEP;
        bool sleeps = !keeper_waits_for_bell() || atomic_compare_exchange_strong(&heap_bell, &asked, BELL_ASLEEP) ||
                      asked == BELL_ASLEEP;
        if (sleeps && keeper_due_ns > end_ns) break;
        if (sleeps && keeper_due_ns > fake.now_ns) fake.now_ns = keeper_due_ns;
        atomic_compare_exchange_strong(&heap_bell, &asleep, BELL_ASKED);
        os_lock_take(&keeper_lock);
        keeper_due_ns = keeper_step(fake.now_ns, false);
        os_lock_drop(&keeper_lock);
        steps++;
        if (pick(16) == 0) validate();
    }
    fake.now_ns = end_ns;
}

/* Time that the program spends at work: the keeper runs beside it. */
static void work_for(uint64_t ns, void (*what)(void)) {
    for (uint64_t end_ns = fake.now_ns + ns; fake.now_ns < end_ns;) {
        act(what);
        if (load_relaxed(&heap_bell) == BELL_QUIET && keeper_waits_for_bell()) keeper_due_ns = fake.now_ns;
        advance(1 * MS + pick(8 * MS));
    }
}

static void one_burst(void) {
    job.first = pick(SLOTS);
    job.count = 1 + pick(SLOTS);
    job.largest = (size_t)64 << pick(14);
    if (job.count * job.largest > 32 * MIB) job.count = 32 * MIB / job.largest;
    act(do_fill);
    if (pick(2) == 0) advance(pick(30 * MS));
    act(do_drop);
    bursts++;
}

/* --- patterns ----------------------------------------------------------------------------------------------------- */

static void pattern_single(void) {
    one_burst();
    advance(pick_log(MS, 60 * SECOND));
}

/* What the policy can learn: and then it stops. */
static void pattern_regular(void) {
    uint64_t gap_ns = pick_log(5 * MS, 2 * SECOND);
    for (uint64_t i = 3 + pick(12); i > 0; i--) {
        one_burst();
        advance(gap_ns + pick(gap_ns / 16 + 1));
    }
}

/* The worst moment: just after everything was given back, or just after patience ended. */
static void pattern_adversary(void) {
    for (uint64_t i = 3 + pick(12); i > 0; i--) {
        uint64_t flushes = keeper_figures.flushes;
        one_burst();
        for (uint64_t waited_ns = 0; keeper_figures.flushes == flushes && waited_ns < REST_NS; waited_ns += MS)
            advance(MS);
    }
}

static void pattern_steady(void) {
    job.count = 1 + pick(60);
    job.largest = (size_t)64 << pick(12);
    work_for(pick_log(50 * MS, 3 * SECOND), do_mix);
    act(do_drop);
}

static void pattern_threads(void) {
    struct actor *actor = &actors[pick(ACTORS)];
    uint32_t id = actor->id;
    actor_end(actor);
    advance(pick(50 * MS));
    actor_start(actor, id);
    one_burst();
}

static void pattern_pressure(void) {
    pressure_now = PRESSURE_STALL;
    pattern_steady();
    pressure_now = PRESSURE_NONE;
}

static void pattern_sick(void) {
    sick = true;
    fake_fail(pick(2) == 0 ? FAKE_ANY : (enum fake_call)pick(FAKE_ANY), 1 + pick(5), 1 + pick(20), ENOMEM);
    pattern_steady();
    one_burst();
    fake_heal();
    sick = false;
}

static void pattern_mode(void) {
    static const uint32_t modes[] = {MODE_HYBRID, MODE_HYBRID, MODE_FLUSH, MODE_ADAPTIVE, MODE_SHRINK};
    options.mode = modes[pick(sizeof modes / sizeof *modes)];
    keeper_due_ns = fake.now_ns;
    pattern_regular();
    options.mode = MODE_HYBRID;
    keeper_due_ns = fake.now_ns;
    one_burst();
}

static void (*const patterns[])(void) = {pattern_single,    pattern_single, pattern_single,  pattern_regular,
                                         pattern_adversary, pattern_steady, pattern_threads, pattern_pressure,
                                         pattern_sick,      pattern_mode};

/* --- the soak ----------------------------------------------------------------------------------------------------- */

static uint64_t setting(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text == NULL ? otherwise : strtoull(text, NULL, 10);
}

static size_t metadata_most, mappings_most;

/* Everything is given back: no free run is dirty, and the keeper waits for nothing but the bell. */
static void rest(void) {
    advance(REST_NS);
    assert_int_equal(keeper_due_ns, UINT64_MAX);
    assert_int_equal(run_flow(false).dirty_bytes, 0);
    uint64_t before = steps;
    advance(pick_log(SECOND / 4, 30 * SECOND));
    assert_int_equal(steps, before); /* sleep is sleep */
    validate();
    for (size_t i = 0; i < SLOTS; i++)
        if (slots[i].block != NULL) slot_check(&slots[i]);
}

static void test_hours(void **state) {
    (void)state;
    uint64_t minutes = setting("TIDE_SOAK_MINUTES", 10);
    dice.state = setting("TIDE_SOAK_SEED", 20261123);
    options.reserve_bytes = 4 * GIB;
    options.mode = MODE_HYBRID;
    for (uint32_t i = 0; i < ACTORS; i++) actor_start(&actors[i], 2 + i);
    one_burst();
    keeper_reset();
    uint64_t begin_ns = fake.now_ns, end_ns = begin_ns + minutes * 60 * SECOND,
             early_ns = begin_ns + minutes * 10 * SECOND;
    size_t metadata_early = 0, mappings_early = 0;
    while (fake.now_ns < end_ns) {
        job.keep = (unsigned)pick(6);
        for (uint64_t i = 1 + pick(4); i > 0; i--) patterns[pick(sizeof patterns / sizeof *patterns)]();
        rest();
        struct census census;
        census_take(&census);
        metadata_most = size_max(metadata_most, census.metadata_bytes);
        mappings_most = size_max(mappings_most, fake_mappings());
        if (fake.now_ns < early_ns || metadata_early == 0) {
            metadata_early = metadata_most;
            mappings_early = mappings_most;
        }
    }
    printf("%llu virtual minutes: %llu bursts, %llu steps of the keeper, %llu plans (%llu to hold), %llu validations, "
           "%zu failing calls, %llu refusals; metadata at most %zu KiB (first sixth: %zu), mappings %zu (%zu)\n",
           (unsigned long long)minutes, (unsigned long long)bursts, (unsigned long long)steps,
           (unsigned long long)plans, (unsigned long long)keeper_figures.holds, (unsigned long long)validations,
           fake.failed, (unsigned long long)refusals, metadata_most / KIB, metadata_early / KIB, mappings_most,
           mappings_early);
    /* A sixth of the time shows how large the largest bursts are; the rest adds little. */
    assert_true(metadata_most <= metadata_early + metadata_early / 4 + 64 * KIB);
    assert_true(mappings_most <= 2 * mappings_early + 40);
    job.keep = 0;
    act(do_drop);
    rest();
    struct census census;
    census_take(&census);
    assert_int_equal(census.live_bytes[0] + census.live_bytes[1] + census.live_bytes[2], 0);
    assert_int_equal(fake_resident_bytes((void *)region_main.base, region_top(&region_main)), 0);
}

int main(void) {
    static const struct CMUnitTest tests[] = {cmocka_unit_test(test_hours)};
    return unit_run(tests, COUNT_OF(tests));
}
