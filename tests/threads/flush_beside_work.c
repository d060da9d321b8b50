/* flush_beside_work.c - all flush functions, statistics and reports at full speed while other threads allocate and free,
 * and while others sleep with full caches.
 *
 * argv: seed, seconds, working threads (and half as many that sleep) */
#define _GNU_SOURCE 1
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "shadow.h"
#include "subject.h"

enum { RECORDS_EACH = 500, THREADS_MOST = 32, LARGEST = 150000 };

static shadow_t *table;
static uint64_t seed;
static atomic_int stop;
static size_t workers;

static void *worker_main(void *argument) {
    size_t index = (size_t)(uintptr_t)argument;
    uint64_t random = seed * 23 + index;
    while (!atomic_load(&stop))
        for (int i = 0; i < 200; i++)
            shadow_step(&table[index * RECORDS_EACH + random_below(&random, RECORDS_EACH)], &random, LARGEST);
    return NULL;
}

/* Work in bursts, free everything, sleep: what a sleeper's cache holds is what the others try to reach. */
static void *sleeper_main(void *argument) {
    size_t index = (size_t)(uintptr_t)argument;
    uint64_t random = seed * 29 + index;
    shadow_t *records = &table[index * RECORDS_EACH];
    while (!atomic_load(&stop)) {
        for (size_t i = 0; i < RECORDS_EACH; i++) shadow_allocate(&records[i], &random, 5000);
        for (size_t i = 0; i < RECORDS_EACH; i++) shadow_free(&records[i], &random);
        clock_sleep_us((unsigned)random_below(&random, 40000));
    }
    return NULL;
}

static void check_report(size_t result, const tide_flush_report *report) {
    CHECK(result == report->returned_bytes);
    CHECK(report->returned_bytes % 4096 == 0);
}

static void call_something(uint64_t *random) {
    static FILE *sink;
    if (sink == NULL) {
        sink = fopen("/dev/null", "w");
        CHECK(sink != NULL);
    }
    tide_flush_report report;
    size_t choice = random_below(random, 10);
    if (!subject.is_tide && choice < 7) choice = 7;
    switch (choice) {
    case 0: check_report(subject.flush_tiny(&report), &report); break;
    case 1: check_report(subject.flush_mid(&report), &report); break;
    case 2: check_report(subject.flush_large(&report), &report); break;
    case 3: check_report(subject.flush_pools(&report), &report); break;
    case 4: check_report(subject.release_all(&report), &report); break;
    case 5:
    case 6: {
        tide_stats stats = subject_stats();
        CHECK(stats.thread_count <= stats.heap_count);
        CHECK(stats.committed_bytes <= stats.reserved_bytes);
        break;
    }
    case 7: malloc_trim(0); break;
    case 8: CHECK(malloc_info(0, sink) == 0); break;
    default: {
        struct mallinfo2 info = mallinfo2();
        CHECK(info.arena + info.hblkhd > 0);
    }
    }
}

int main(int argc, char **argv) {
    subject_require();
    seed = argument_number(argc, argv, 1, 1);
    uint64_t seconds = argument_number(argc, argv, 2, 5);
    workers = argument_number(argc, argv, 3, 4);
    size_t threads = workers + (workers + 1) / 2;
    CHECK(workers >= 1 && threads <= THREADS_MOST);
    table = shadow_table_make(threads * RECORDS_EACH);
    pthread_t handles[THREADS_MOST];
    for (size_t t = 0; t < threads; t++)
        CHECK(pthread_create(&handles[t], NULL, t < workers ? worker_main : sleeper_main, (void *)(uintptr_t)t) == 0);
    uint64_t random = seed, calls = 0;
    uint64_t deadline_ns = clock_now_ns() + seconds * 1000000000u;
    while (clock_now_ns() < deadline_ns) {
        call_something(&random);
        calls++;
    }
    atomic_store(&stop, 1);
    for (size_t t = 0; t < threads; t++) CHECK(pthread_join(handles[t], NULL) == 0);
    shadow_table_verify(table, threads * RECORDS_EACH);
    for (size_t i = 0; i < threads * RECORDS_EACH; i++) shadow_free(&table[i], &random);
    CHECK(calls > 0);
    printf("%llu calls beside the work\n", (unsigned long long)calls);
    return 0;
}
