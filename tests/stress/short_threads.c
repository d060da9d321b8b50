/* short_threads.c - thousands of threads come and go, and nothing of them stays behind: live bytes return to where they
 * were, heaps are used again, resident memory does not grow. Half of their blocks outlive them and are freed by others.
 *
 * argv: seed, threads in all, threads at a time */
#define _GNU_SOURCE 1
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "shadow.h"
#include "subject.h"

enum { PLACES = 256, EACH = 20, AT_A_TIME_MOST = 64, LARGEST = 40000, MIB = 1024 * 1024 };

static shadow_t *table;
static atomic_uint exchange[PLACES];
static uint64_t seed;

typedef struct birth {
    pthread_t handle;
    uint64_t random;
    unsigned spare; /* index of a record of its own, swapped for others */
} birth_t;
static birth_t births[AT_A_TIME_MOST];

/* Free what others left, leave something, and go. */
static void *thread_main(void *argument) {
    birth_t *birth = argument;
    uint64_t random = birth->random;
    for (int i = 0; i < EACH; i++) {
        birth->spare = atomic_exchange(&exchange[random_below(&random, PLACES)], birth->spare);
        shadow_t *record = &table[birth->spare];
        shadow_free(record, &random);
        if (random_below(&random, 2) == 0) shadow_allocate(record, &random, LARGEST);
    }
    return NULL;
}

static void run_generations(size_t total, size_t at_a_time) {
    for (size_t done = 0; done < total; done += at_a_time) {
        for (size_t i = 0; i < at_a_time; i++) {
            births[i].random = random_next(&seed);
            CHECK(pthread_create(&births[i].handle, NULL, thread_main, &births[i]) == 0);
        }
        for (size_t i = 0; i < at_a_time; i++) CHECK(pthread_join(births[i].handle, NULL) == 0);
    }
}

static void free_all(void) {
    for (size_t i = 0; i < PLACES + AT_A_TIME_MOST; i++) shadow_free(&table[i], &seed);
    subject_release_all();
}

int main(int argc, char **argv) {
    subject_require();
    seed = argument_number(argc, argv, 1, 1);
    size_t total = argument_number(argc, argv, 2, 10000);
    size_t at_a_time = argument_number(argc, argv, 3, 8);
    CHECK(at_a_time >= 1 && at_a_time <= AT_A_TIME_MOST && total >= at_a_time);
    printf("seed %llu, %zu threads, %zu at a time\n", (unsigned long long)seed, total, at_a_time);
    fflush(stdout);

    table = shadow_table_make(PLACES + AT_A_TIME_MOST);
    for (unsigned i = 0; i < PLACES; i++) atomic_init(&exchange[i], i);
    for (unsigned i = 0; i < AT_A_TIME_MOST; i++) births[i].spare = PLACES + i;

    /* The first generations make whatever is kept for reuse: heaps, and libc's cache of stacks. */
    run_generations(4 * at_a_time, at_a_time);
    free_all();
    tide_stats before = subject_stats();
    size_t resident_before = process_resident_bytes();

    run_generations(total, at_a_time);
    free_all();
    tide_stats after = subject_stats();
    size_t resident_after = process_resident_bytes();

    CHECKF(after.allocated_bytes <= before.allocated_bytes + 16 * 1024, "live bytes: %llu before, %llu after",
           (unsigned long long)before.allocated_bytes, (unsigned long long)after.allocated_bytes);
    /* The main thread, those at a time, and a few whose exit was not noticed yet. */
    CHECKF(after.heap_count <= at_a_time + 5, "%llu heaps for %zu threads at a time",
           (unsigned long long)after.heap_count, at_a_time);
    CHECKF(after.thread_count <= 1 + at_a_time, "%llu threads are still bound", (unsigned long long)after.thread_count);
#ifndef TIDE_PREFIXED /* a sanitizer's own memory would count */
    CHECKF(resident_after <= resident_before + 4 * MIB, "resident: %zu before, %zu after", resident_before,
           resident_after);
#endif
    printf("%llu heaps; resident %zu KiB before, %zu KiB after\n", (unsigned long long)after.heap_count,
           resident_before / 1024, resident_after / 1024);
    return 0;
}
