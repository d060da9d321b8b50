/* beside.c - the keeper, flushes and ticks beside work of every kind, as fast as they can: nothing that is live is ever touched. Small enough for
 * ThreadSanitizer. */
#define _GNU_SOURCE 1
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "burst.h"
#include "check.h"
#include "scene.h"
#include "subject.h"
#include "water.h"

enum { WORKERS = 4, NAPPERS = 4, RECORDS_EACH = 250, LARGEST = 60000, PLACES = 64 };
#define ROUND_NS UINT64_C(800000000)

static shadow_t *table;
static atomic_uint places[PLACES]; /* blocks that travel between threads: indices into the rest of the table */
static atomic_int stop;
static pthread_t threads[WORKERS + NAPPERS + 2];
static size_t thread_count;
static size_t indices[WORKERS + NAPPERS];

static void exchange(uint64_t *random, unsigned *held) {
    *held = atomic_exchange(&places[random_below(random, PLACES)], *held);
    shadow_step(&table[*held], random, LARGEST);
}

/* Never at rest; some of its blocks are freed by others. */
static void *worker_main(void *argument) {
    size_t index = *(size_t *)argument;
    uint64_t random = index * 17 + 3;
    unsigned held = (unsigned)((WORKERS + NAPPERS) * RECORDS_EACH + PLACES + index);
    while (!atomic_load(&stop))
        for (unsigned i = 0; i < 60; i++) {
            shadow_step(&table[index * RECORDS_EACH + random_below(&random, RECORDS_EACH)], &random, LARGEST);
            if (i % 8 == 0) exchange(&random, &held);
        }
    return NULL;
}

/* Works a little, and sleeps as long as it takes to be marked, or taken, or not. */
static void *napper_main(void *argument) {
    size_t index = *(size_t *)argument;
    uint64_t random = index * 19 + 5;
    unsigned held = (unsigned)((WORKERS + NAPPERS) * RECORDS_EACH + PLACES + index);
    while (!atomic_load(&stop)) {
        for (unsigned i = 0; i < 40; i++) {
            shadow_step(&table[index * RECORDS_EACH + random_below(&random, RECORDS_EACH)], &random, LARGEST);
            if (i % 8 == 0) exchange(&random, &held);
        }
        clock_sleep_us((unsigned)random_below(&random, random_below(&random, 4) == 0 ? 60000 : 300));
    }
    return NULL;
}

static void *flush_main(void *nothing) {
    while (!atomic_load(&stop)) subject.release_all(NULL);
    return nothing;
}

static void *tick_main(void *nothing) {
    uint64_t (*tick)(void) = subject_tick();
    while (!atomic_load(&stop)) tick();
    return nothing;
}

/* Statistics and reports walk all spans while their owners change them: the numbers are a moment's, but the walk does no harm. */
static void *census_main(void *nothing) {
    while (!atomic_load(&stop)) {
        tide_stats stats = subject_stats();
        CHECK(stats.thread_count <= stats.heap_count);
    }
    return nothing;
}

/* Threads come and go, too: heaps are left, found and taken over. */
static void *short_main(void *argument) {
    uint64_t random = (uintptr_t)argument;
    shadow_t record = {0};
    for (unsigned i = 0; i < 40; i++) shadow_step(&record, &random, LARGEST);
    shadow_free(&record, &random);
    return NULL;
}

static void run(void *(*claimer)(void *), bool two) {
    size_t records = (WORKERS + NAPPERS) * RECORDS_EACH + PLACES + WORKERS + NAPPERS;
    table = shadow_table_make(records);
    for (unsigned i = 0; i < PLACES; i++) atomic_init(&places[i], (unsigned)((WORKERS + NAPPERS) * RECORDS_EACH) + i);
    for (size_t i = 0; i < WORKERS + NAPPERS; i++) {
        indices[i] = i;
        CHECK(pthread_create(&threads[thread_count++], NULL, i < WORKERS ? worker_main : napper_main, &indices[i]) ==
              0);
    }
    if (claimer != NULL) CHECK(pthread_create(&threads[thread_count++], NULL, claimer, NULL) == 0);
    if (two) CHECK(pthread_create(&threads[thread_count++], NULL, flush_main, NULL) == 0);
    uint64_t random = 1, until = clock_now_ns() + scene_rounds * ROUND_NS;
    while (clock_now_ns() < until) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, short_main, (void *)(uintptr_t)random_next(&random)) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
        clock_sleep_us(2000);
    }
    atomic_store(&stop, 1);
    for (size_t i = 0; i < thread_count; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    shadow_table_verify(table, records);
    for (size_t i = 0; i < records; i++) shadow_free(&table[i], &random);
    tide_stats stats = subject_stats();
    printf("%llu claims, %llu wakes, %llu of them waited, 99 %% no longer than %llu us, %llu us at most\n",
           (unsigned long long)stats.claim_mark_count, (unsigned long long)stats.claim_wake_count,
           (unsigned long long)stats.claim_wait_count, (unsigned long long)stats.claim_wait_p99_ns / 1000,
           (unsigned long long)stats.claim_wait_max_ns / 1000);
    CHECK(stats.claim_wake_count > 0);
    CHECK(stats.claim_wait_count <= stats.claim_wake_count);
}

static void keeper(void) { run(NULL, false); }
static void flushes(void) { run(flush_main, false); }
static void flushes_and_ticks(void) { run(tick_main, true); }
static void ticks(void) { run(tick_main, false); }
static void statistics_and_flushes(void) { run(census_main, true); }

static const scene_t scenes[] = {
    {.name = "keeper", .run = keeper},
    {.name = "flushes", .environment = "TIDE_MODE=static", .run = flushes},
    {.name = "keeper-and-flushes", .run = flushes},
    {.name = "ticks", .environment = "TIDE_KEEPER=off", .run = ticks},
    {.name = "statistics-and-flushes", .environment = "TIDE_MODE=static", .run = statistics_and_flushes},
    {.name = "ticks-and-flushes", .environment = "TIDE_KEEPER=off", .run = flushes_and_ticks},
};

int main(int argc, char **argv) { return SCENE_MAIN(argc, argv, scenes); }
