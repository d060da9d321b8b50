/* tick.c - keeper=off: the program calls tide_tick() in its own time, and memory comes back all the same. */
#define _GNU_SOURCE 1
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "burst.h"
#include "check.h"
#include "scene.h"
#include "subject.h"
#include "water.h"

static uint64_t (*tick)(void);
static burst_t burst;
static crew_t crew;

static void begin(void) {
    tick = subject_tick();
    CHECK(tick != NULL);
}

/* Call it as it asks for, until it says that there is nothing left. */
static unsigned tick_to_the_end(void) {
    uint64_t until = clock_now_ns() + WATER_PATIENCE_NS;
    for (unsigned calls = 1;; calls++) {
        uint64_t wait_ns = tick();
        if (wait_ns == UINT64_MAX) return calls;
        CHECKF(wait_ns <= UINT64_C(2000000000), "come again in %llu ns", (unsigned long long)wait_ns);
        CHECKF(clock_now_ns() < until, "%u ticks, and no end", calls);
        clock_sleep_us((unsigned)(wait_ns / 1000) + 1);
    }
}

static void expect_baseline_now(size_t baseline, const char *what) {
    size_t level = water_level();
    if (WATER_IS_CLEAR)
        CHECKF(level <= baseline + WATER_SLACK_BYTES, "%s: %zu KiB above the baseline", what,
               (level - baseline) / 1024);
}

static void one_kind(enum burst_kind kind) {
    begin();
    burst_make(&burst, kind, 16 * WATER_MIB, kind);
    size_t baseline = water_level();
    for (unsigned round = 0; round < 3; round++) {
        burst_fill(&burst, kind, 16 * WATER_MIB);
        burst_free(&burst);
        unsigned calls = tick_to_the_end();
        CHECKF(calls < 1000, "%u calls", calls);
        expect_baseline_now(baseline, "after the ticks");
        CHECK(tick() == UINT64_MAX); /* nothing has happened since */
    }
    task_expect_count(1);
}
static void tiny(void) { one_kind(BURST_TINY); }
static void mid(void) { one_kind(BURST_MID); }
static void large(void) { one_kind(BURST_LARGE); }
static void mixed(void) { one_kind(BURST_MIXED); }

static void around_survivors(void) {
    begin();
    burst_make(&burst, BURST_MIXED, 24 * WATER_MIB, 2);
    size_t baseline = water_level();
    burst_fill(&burst, BURST_MIXED, 24 * WATER_MIB);
    burst_thin(&burst, 50);
    size_t pages = burst_page_bytes(&burst);
    tick_to_the_end();
    expect_baseline_now(baseline + pages + pages / 10, "around survivors");
    burst_verify(&burst);
    burst_free(&burst);
    tick_to_the_end();
    expect_baseline_now(baseline, "the survivors are gone");
}

/* One call says nothing about the future: the program works between the calls, and is not taken for idle. */
static void beside_work(void) {
    begin();
    burst_make(&burst, BURST_MIXED, 8 * WATER_MIB, 2);
    size_t baseline = water_level();
    for (unsigned round = 0; round < 40; round++) {
        burst_fill(&burst, BURST_MIXED, 4 * WATER_MIB);
        tick();
        burst_verify(&burst);
        burst_free(&burst);
        uint64_t wait_ns = tick();
        if (wait_ns == UINT64_MAX) wait_ns = 0;
        clock_sleep_us((unsigned)(wait_ns / 1000 < 30000 ? wait_ns / 1000 : 30000));
    }
    tick_to_the_end();
    expect_baseline_now(baseline, "after the work");
}

static void sailor_fill(sailor_t *sailor) { burst_fill(&sailor->burst, BURST_MIXED, WATER_MIB); }
static void sailor_free(sailor_t *sailor) { burst_free(&sailor->burst); }

/* The caller empties the heaps of threads that sleep. */
static void for_sleepers(void) {
    begin();
    crew_make(&crew, 16);
    for (size_t i = 0; i < 16; i++) burst_make(&crew.sailors[i].burst, BURST_MIXED, WATER_MIB, i);
    size_t baseline = water_level();
    for (unsigned round = 0; round < 2; round++) {
        crew_order(&crew, sailor_fill);
        if (round == 0)
            crew_order(&crew, sailor_free);
        else
            for (size_t i = 0; i < 16; i++) burst_free(&crew.sailors[i].burst);
        tick_to_the_end();
        expect_baseline_now(baseline, "sleepers");
    }
    task_expect_count(17);
    crew_end(&crew);
}

static atomic_uint ends;
static void sailor_tick(sailor_t *sailor) {
    burst_fill(&sailor->burst, BURST_MIXED, WATER_MIB);
    for (unsigned i = 0; i < 200; i++) {
        uint64_t wait_ns = tick();
        if (wait_ns == UINT64_MAX) atomic_fetch_add(&ends, 1);
        if (i % 10 == 0) {
            burst_thin(&sailor->burst, 10);
            burst_fill(&sailor->burst, BURST_MIXED, WATER_MIB / 8);
        }
        if (wait_ns != UINT64_MAX && i % 4 == 0) clock_sleep_us(500);
    }
    burst_verify(&sailor->burst);
    burst_free(&sailor->burst);
}

static void by_several_threads(void) {
    begin();
    crew_make(&crew, 6);
    for (size_t i = 0; i < 6; i++) burst_make(&crew.sailors[i].burst, BURST_MIXED, WATER_MIB, i);
    size_t baseline = water_level();
    for (size_t round = 0; round < scene_rounds; round++) crew_order(&crew, sailor_tick);
    tick_to_the_end();
    expect_baseline_now(baseline, "ticks by several threads");
    crew_end(&crew);
}

/* One thread ticks as fast as it can, while others work. */
static atomic_int stop;
static atomic_ulong ticks;
static void *tick_main(void *nothing) {
    while (!atomic_load(&stop)) {
        tick();
        atomic_fetch_add(&ticks, 1);
    }
    return nothing;
}
static void sailor_work(sailor_t *sailor) {
    uint64_t random = sailor->index;
    for (unsigned i = 0; i < 30; i++) {
        burst_fill(&sailor->burst, BURST_MIXED, WATER_MIB / 2);
        burst_thin(&sailor->burst, 7);
        if (i % 4 == 0) clock_sleep_us((unsigned)random_below(&random, 30000));
        burst_verify(&sailor->burst);
        burst_free(&sailor->burst);
    }
}
static void without_pause(void) {
    begin();
    crew_make(&crew, 4);
    for (size_t i = 0; i < 4; i++) burst_make(&crew.sailors[i].burst, BURST_MIXED, WATER_MIB, i);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, tick_main, NULL) == 0);
    for (size_t round = 0; round < scene_rounds; round++) crew_order(&crew, sailor_work);
    atomic_store(&stop, 1);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(atomic_load(&ticks) > 0);
    crew_end(&crew);
}

/* --- handlers --------------------------------------------------------------------------------------------------------------- */

static atomic_uint handler_ticks;
static void tick_in_handler(int number) {
    (void)number;
    tick();
    atomic_fetch_add(&handler_ticks, 1);
}

/* Forbidden, and harmless: inside an operation it does nothing. */
static void in_a_handler(void) {
    begin();
    burst_make(&burst, BURST_MIXED, 4 * WATER_MIB, 2);
    size_t baseline = water_level();
    struct sigaction action = {.sa_handler = tick_in_handler, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    struct itimerval timer = {{0, 300}, {0, 300}};
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
    uint64_t until = clock_now_ns() + scene_rounds * 1000000000u;
    while (clock_now_ns() < until) {
        burst_fill(&burst, BURST_MIXED, 2 * WATER_MIB);
        burst_verify(&burst);
        tick();
        burst_free(&burst);
    }
    timer = (struct itimerval){0};
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
    CHECK(atomic_load(&handler_ticks) > 20);
    tick_to_the_end();
    expect_baseline_now(baseline, "after the handlers");
}

/* --- where it has nothing to do --------------------------------------------------------------------------------------------------- */

/* The first call of all. */
static void before_anything(void) {
    begin();
    CHECK(tick() == UINT64_MAX || tick_to_the_end() < 1000);
    subject_require();
    one_kind(BURST_MIXED);
}

static void with_a_keeper(void) {
    begin();
    burst_make(&burst, BURST_MIXED, 16 * WATER_MIB, 2);
    size_t baseline = water_level();
    burst_fill(&burst, BURST_MIXED, 16 * WATER_MIB);
    keeper_expect();
    CHECK(tick() == UINT64_MAX);
    burst_free(&burst);
    CHECK(tick() == UINT64_MAX);
    water_expect_baseline(baseline, "with a keeper");
}

static void in_mode_static(void) {
    begin();
    burst_make(&burst, BURST_MIXED, 16 * WATER_MIB, 2);
    burst_fill(&burst, BURST_MIXED, 16 * WATER_MIB);
    size_t full = water_level();
    burst_free(&burst);
    for (unsigned i = 0; i < 20; i++) {
        CHECK(tick() == UINT64_MAX);
        clock_sleep_us(10000);
    }
    if (WATER_IS_CLEAR) CHECK(water_level() > full / 2);
}

static void in_a_child(void) {
    begin();
    burst_make(&burst, BURST_MIXED, 16 * WATER_MIB, 2);
    size_t baseline = water_level();
    burst_fill(&burst, BURST_MIXED, 16 * WATER_MIB);
    tick();
    pid_t child = fork();
    if (child == 0) {
        burst_verify(&burst);
        burst_free(&burst);
        tick_to_the_end();
        expect_baseline_now(baseline, "in a child");
        task_expect_count(1);
        _exit(0);
    }
    process_expect_success(child, "a child that ticks");
    burst_free(&burst);
    tick_to_the_end();
    expect_baseline_now(baseline, "in the parent");
}

static const scene_t scenes[] = {
    {.name = "tiny", .environment = "TIDE_KEEPER=off", .run = tiny},
    {.name = "mid", .environment = "TIDE_KEEPER=off", .run = mid},
    {.name = "large", .environment = "TIDE_KEEPER=off", .run = large},
    {.name = "mixed", .environment = "TIDE_KEEPER=off", .run = mixed},
    {.name = "mixed-flush", .environment = "TIDE_KEEPER=off TIDE_MODE=flush", .run = mixed},
    {.name = "mixed-shrink", .environment = "TIDE_KEEPER=off TIDE_MODE=shrink", .run = mixed},
    {.name = "mixed-adaptive", .environment = "TIDE_KEEPER=off TIDE_MODE=adaptive", .run = mixed},
    {.name = "around-survivors", .environment = "TIDE_KEEPER=off", .run = around_survivors},
    {.name = "beside-work", .environment = "TIDE_KEEPER=off", .run = beside_work},
    {.name = "for-sleepers", .environment = "TIDE_KEEPER=off", .run = for_sleepers},
    {.name = "by-several-threads", .environment = "TIDE_KEEPER=off", .run = by_several_threads},
    {.name = "without-pause", .environment = "TIDE_KEEPER=off", .run = without_pause},
    {.name = "in-a-handler", .environment = "TIDE_KEEPER=off", .run = in_a_handler},
    {.name = "before-anything", .environment = "TIDE_KEEPER=off", .run = before_anything, .bare = true},
    {.name = "with-a-keeper", .run = with_a_keeper},
    {.name = "in-mode-static", .environment = "TIDE_KEEPER=off TIDE_MODE=static", .run = in_mode_static},
    {.name = "in-a-child", .environment = "TIDE_KEEPER=off", .run = in_a_child},
};

int main(int argc, char **argv) { return SCENE_MAIN(argc, argv, scenes); }
