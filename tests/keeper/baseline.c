/* baseline.c - after the last free everything goes back, with no call of any thread: whoever held it, whoever freed it, and around what is still live.
 * And then there is silence, until the next burst. */
#define _GNU_SOURCE 1
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "burst.h"
#include "check.h"
#include "scene.h"
#include "subject.h"
#include "water.h"

static burst_t burst;
static crew_t crew;

/* --- one thread ------------------------------------------------------------------------------------------------------ */

static void one_thread(enum burst_kind kind, size_t bytes) {
    burst_make(&burst, kind, bytes, kind + 1);
    size_t baseline = water_level();
    for (size_t round = 0; round < 1 + scene_rounds; round++) {
        burst_fill(&burst, kind, bytes);
        if (WATER_IS_CLEAR) CHECK(water_level() > baseline + bytes * 9 / 10);
        burst_free(&burst);
        water_expect_baseline(baseline, "a burst");
    }
    CHECK(keeper_task() != 0);
}
static void one_smallest(void) { one_thread(BURST_SMALLEST, 8 * WATER_MIB); }
static void one_tiny(void) { one_thread(BURST_TINY, 24 * WATER_MIB); }
static void one_mid(void) { one_thread(BURST_MID, 32 * WATER_MIB); }
static void one_large(void) {
    /* Large blocks are resident as far as they were touched: in a word of every page. */
    one_thread(BURST_LARGE, 128 * WATER_MIB);
}
static void one_mixed(void) { one_thread(BURST_MIXED, 48 * WATER_MIB); }

/* --- threads that sleep ------------------------------------------------------------------------------------------------ */

enum { SLEEPERS = 64 };
#define EACH_BYTES (3 * WATER_MIB / 4)

static void sailor_fill(sailor_t *sailor) { burst_fill(&sailor->burst, BURST_MIXED, EACH_BYTES); }
static void sailor_fill_tiny(sailor_t *sailor) { burst_fill(&sailor->burst, BURST_TINY, EACH_BYTES / 4); }
static void sailor_free(sailor_t *sailor) { burst_free(&sailor->burst); }
static void sailor_verify(sailor_t *sailor) { burst_verify(&sailor->burst); }
static void sailor_churn(sailor_t *sailor) {
    for (unsigned round = 0; round < 3; round++) {
        burst_fill(&sailor->burst, BURST_MIXED, EACH_BYTES / 4);
        burst_free(&sailor->burst);
    }
}

static size_t crew_begin(size_t count) {
    crew_make(&crew, count);
    for (size_t i = 0; i < count; i++) burst_make(&crew.sailors[i].burst, BURST_MIXED, EACH_BYTES, i);
    return water_level();
}

/* Each has used and freed its own blocks. They never run again. */
static void sleepers(void) {
    size_t baseline = crew_begin(SLEEPERS);
    for (size_t round = 0; round < scene_rounds; round++) {
        crew_order(&crew, sailor_fill);
        crew_order(&crew, sailor_verify);
        crew_order(&crew, sailor_free);
        water_expect_baseline(baseline, "64 sleepers");
        crew_order(&crew, sailor_churn);
        water_expect_baseline(baseline, "64 sleepers, once more");
    }
    CHECK(subject_stats().claim_possible == 1);
    crew_end(&crew);
}

/* Their blocks are freed by another thread, which sleeps as well afterwards. */
static void frees_into_sleepers(void (*fill)(sailor_t *)) {
    size_t baseline = crew_begin(SLEEPERS);
    for (size_t round = 0; round < 1 + scene_rounds; round++) {
        crew_order(&crew, fill);
        for (size_t i = 0; i < SLEEPERS; i++) burst_free(&crew.sailors[i].burst);
        water_expect_baseline(baseline, "frees into sleepers");
    }
    crew_end(&crew);
}
static void frees_mixed_into_sleepers(void) { frees_into_sleepers(sailor_fill); }
static void frees_tiny_into_sleepers(void) { frees_into_sleepers(sailor_fill_tiny); }

/* The keeper has emptied them already, and has gone to sleep, when the frees come. */
static void late_frees_into_sleepers(void) {
    size_t baseline = crew_begin(16);
    for (size_t round = 0; round < scene_rounds; round++) {
        crew_order(&crew, sailor_fill);
        keeper_expect_still(keeper_expect());
        for (size_t i = 0; i < 16; i++) {
            burst_free(&crew.sailors[i].burst);
            if (i % 8 == 0) keeper_expect_still(keeper_expect());
        }
        water_expect_baseline(baseline, "late frees into sleepers");
    }
    crew_end(&crew);
}

/* Each frees the blocks of its neighbour. */
static void sailor_free_neighbour(sailor_t *sailor) {
    burst_free(&crew.sailors[(sailor->index + 1) % crew.count].burst);
}
static void frees_in_a_ring(void) {
    size_t baseline = crew_begin(24);
    for (size_t round = 0; round < 2 + scene_rounds; round++) {
        crew_order(&crew, sailor_fill);
        crew_order(&crew, sailor_free_neighbour);
        water_expect_baseline(baseline, "frees in a ring");
    }
    crew_end(&crew);
}

/* One thread works on and on, a little, while the others sleep: what they freed goes back all the same, if not the last bit of it. */
#define WORK_SLACK_BYTES (4 * WATER_MIB)
static atomic_int worker_stop;
static void *worker_main(void *nothing) {
    uint64_t random = 5;
    shadow_t record = {0};
    while (!atomic_load(&worker_stop)) {
        for (int i = 0; i < 20; i++) shadow_step(&record, &random, 3000);
        clock_sleep_us(1000);
    }
    shadow_free(&record, &random);
    return nothing;
}
static void sleepers_beside_work(void) {
    size_t baseline = crew_begin(16);
    pthread_t worker;
    CHECK(pthread_create(&worker, NULL, worker_main, NULL) == 0);
    crew_order(&crew, sailor_fill);
    crew_order(&crew, sailor_free);
    water_expect_ebb(baseline + WORK_SLACK_BYTES, "sleepers beside a thread that works");
    crew_order(&crew, sailor_fill);
    for (size_t i = 0; i < 16; i++) burst_free(&crew.sailors[i].burst);
    water_expect_ebb(baseline + WORK_SLACK_BYTES, "frees into sleepers beside a thread that works");
    atomic_store(&worker_stop, 1);
    CHECK(pthread_join(worker, NULL) == 0);
    water_expect_baseline(baseline, "the work has ended");
    crew_end(&crew);
}

/* --- threads that have ended ------------------------------------------------------------------------------------------- */

static void frees_into_ended_threads(void) {
    static burst_t all[16];
    crew_make(&crew, 16);
    crew_end(&crew); /* the stacks are libc's from now on */
    for (size_t i = 0; i < 16; i++) burst_make(&all[i], BURST_MIXED, EACH_BYTES, 100 + i);
    size_t baseline = water_level();
    for (size_t round = 0; round < 1 + scene_rounds; round++) {
        crew_make(&crew, 16);
        for (size_t i = 0; i < 16; i++) crew.sailors[i].burst = all[i];
        crew_order(&crew, sailor_fill);
        for (size_t i = 0; i < 16; i++) all[i] = crew.sailors[i].burst;
        crew_end(&crew);
        for (size_t i = 0; i < 16; i++) burst_verify(&all[i]);
        for (size_t i = 0; i < 16; i++) burst_free(&all[i]);
        water_expect_baseline(baseline, "frees into threads that have ended");
    }
}

static void ended_with_caches(void) {
    crew_make(&crew, 16);
    crew_end(&crew);
    size_t baseline = water_level();
    crew_begin(16);
    crew_order(&crew, sailor_fill);
    crew_order(&crew, sailor_free);
    for (size_t i = 0; i < 16; i++) burst_drop(&crew.sailors[i].burst);
    crew_end(&crew);
    water_expect_baseline(baseline, "threads that ended after they had freed");
}

/* --- survivors ----------------------------------------------------------------------------------------------------------- */

enum { SURVIVORS = 50 };

static void expect_survivor_level(size_t baseline, size_t page_bytes, const char *what) {
    water_expect_ebb(baseline + page_bytes + page_bytes / 10 + WATER_SLACK_BYTES, what);
}

static void survivors(enum burst_kind kind, size_t bytes) {
    static burst_t more;
    burst_make(&burst, kind, bytes, 11);
    burst_make(&more, kind, bytes, 12);
    size_t baseline = water_level();
    for (size_t round = 0; round < scene_rounds; round++) {
        burst_fill(&burst, kind, bytes);
        burst_thin(&burst, SURVIVORS);
        size_t pages = burst_page_bytes(&burst);
        expect_survivor_level(baseline, pages, "around survivors");
        burst_verify(&burst);
        /* The holes are used again, by blocks that are checked as well. */
        burst_fill(&more, kind, bytes);
        burst_verify(&burst);
        burst_verify(&more);
        burst_thin(&more, SURVIVORS);
        expect_survivor_level(baseline, pages + burst_page_bytes(&more), "around survivors, twice");
        burst_free(&burst);
        burst_fill(&burst, kind, bytes / 4);
        burst_verify(&more);
        burst_free(&more);
        burst_verify(&burst);
        burst_free(&burst);
        water_expect_baseline(baseline, "the survivors are gone");
    }
}
static void survivors_smallest(void) { survivors(BURST_SMALLEST, 4 * WATER_MIB); }
static void survivors_tiny(void) { survivors(BURST_TINY, 12 * WATER_MIB); }
static void survivors_mid(void) { survivors(BURST_MID, 24 * WATER_MIB); }
static void survivors_mixed(void) { survivors(BURST_MIXED, 24 * WATER_MIB); }

static void sailor_thin(sailor_t *sailor) { burst_thin(&sailor->burst, SURVIVORS); }

/* In the heaps of sleepers; freed by themselves, and by another thread. */
static void survivors_in_sleepers(void) {
    size_t baseline = crew_begin(32);
    for (size_t round = 0; round < 1 + scene_rounds; round++) {
        crew_order(&crew, sailor_fill);
        if (round % 2 == 0)
            crew_order(&crew, sailor_thin);
        else
            for (size_t i = 0; i < 32; i++) burst_thin(&crew.sailors[i].burst, SURVIVORS);
        size_t pages = 0;
        for (size_t i = 0; i < 32; i++) pages += burst_page_bytes(&crew.sailors[i].burst);
        expect_survivor_level(baseline, pages, "around survivors in sleepers");
        crew_order(&crew, sailor_verify);
        crew_order(&crew, sailor_fill); /* as far as there is room in the tables */
        crew_order(&crew, sailor_verify);
        crew_order(&crew, round % 2 == 0 ? sailor_free : sailor_free_neighbour);
        water_expect_baseline(baseline, "the survivors in sleepers are gone");
    }
    crew_end(&crew);
}

/* --- silence ------------------------------------------------------------------------------------------------------------- */

enum { SILENCE_US = 1500000 };

static void expect_silence(pid_t keeper) {
    uint64_t switches = keeper_expect_still(keeper), cpu_ns = task_cpu_ns(keeper);
    clock_sleep_us(SILENCE_US);
    CHECKF(task_switches(keeper) == switches, "%llu context switches in the quiet",
           (unsigned long long)(task_switches(keeper) - switches));
    CHECKF(task_cpu_ns(keeper) == cpu_ns, "%llu ns of CPU in the quiet",
           (unsigned long long)(task_cpu_ns(keeper) - cpu_ns));
}

static void still(void) {
    burst_make(&burst, BURST_MIXED, 24 * WATER_MIB, 21);
    size_t baseline = water_level();
    burst_fill(&burst, BURST_MIXED, 24 * WATER_MIB);
    burst_free(&burst);
    water_expect_baseline(baseline, "before the quiet");
    pid_t keeper = keeper_expect();
    expect_silence(keeper);
    uint64_t switches = task_switches(keeper);
    burst_fill(&burst, BURST_MIXED, 24 * WATER_MIB);
    burst_free(&burst);
    water_expect_baseline(baseline, "after the quiet");
    CHECK(task_switches(keeper) > switches);
}

/* With live blocks and with sleeping threads there is just as little to do. */
static void still_with_sleepers(void) {
    crew_begin(16);
    crew_order(&crew, sailor_fill);
    crew_order(&crew, sailor_thin);
    pid_t keeper = keeper_expect();
    expect_silence(keeper);
    crew_order(&crew, sailor_verify); /* no call of the allocator: nothing that wakes it */
    CHECK(task_cpu_ns(keeper) != 0);
    uint64_t switches = task_switches(keeper);
    crew_order(&crew, sailor_free);
    for (uint64_t until = clock_now_ns() + WATER_PATIENCE_NS; task_switches(keeper) == switches;) {
        CHECK(clock_now_ns() < until);
        clock_sleep_us(1000);
    }
    crew_end(&crew);
}

static const scene_t scenes[] = {
    {.name = "one-smallest", .run = one_smallest},
    {.name = "one-tiny", .run = one_tiny},
    {.name = "one-mid", .run = one_mid},
    {.name = "one-large", .run = one_large},
    {.name = "one-mixed", .run = one_mixed},
    {.name = "sleepers", .run = sleepers},
    {.name = "frees-mixed-into-sleepers", .run = frees_mixed_into_sleepers},
    {.name = "frees-tiny-into-sleepers", .run = frees_tiny_into_sleepers},
    {.name = "late-frees-into-sleepers", .run = late_frees_into_sleepers},
    {.name = "frees-in-a-ring", .run = frees_in_a_ring},
    {.name = "sleepers-beside-work", .run = sleepers_beside_work, .slow = true},
    {.name = "frees-into-ended-threads", .run = frees_into_ended_threads},
    {.name = "ended-with-caches", .run = ended_with_caches},
    {.name = "survivors-smallest", .run = survivors_smallest},
    {.name = "survivors-tiny", .run = survivors_tiny},
    {.name = "survivors-mid", .run = survivors_mid},
    {.name = "survivors-mixed", .run = survivors_mixed},
    {.name = "survivors-in-sleepers", .run = survivors_in_sleepers},
    {.name = "still", .run = still},
    {.name = "still-with-sleepers", .run = still_with_sleepers},
};

int main(int argc, char **argv) { return SCENE_MAIN(argc, argv, scenes); }
