/* random_blocks.c - random operations on shadow-checked blocks, by many threads that hand blocks to each other.
 *
 * Every record of the table belongs to exactly one thread or to one place of the exchange: threads swap the index of a
 * record of theirs for the index that lies at a random place. No lock is involved, and about half of all frees are remote.
 *
 * argv: seed, seconds, threads (1: no other thread is ever started) */
#define _GNU_SOURCE 1
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <malloc.h>
#include <stdlib.h>

#include "check.h"
#include "shadow.h"
#include "subject.h"

enum { RECORDS_EACH = 1000, PLACES = 512, THREADS_MOST = 64 };

static shadow_t *table;
static atomic_uint exchange[PLACES];
static uint64_t seed, deadline_ns;
static unsigned owned[THREADS_MOST][RECORDS_EACH];
static atomic_ullong steps_done;

static void *thread_main(void *argument) {
    unsigned *mine = argument;
    uint64_t thread_index = (uint64_t)(mine - &owned[0][0]) / RECORDS_EACH;
    uint64_t random = seed * 1000003 + thread_index;
    uint64_t steps = 0;
    while (clock_now_ns() < deadline_ns) {
        /* Phases: the heap grows, then mostly small blocks, then everything goes. */
        size_t largest = random_below(&random, 3) == 0   ? 8 * 1024 * 1024
                         : random_below(&random, 2) == 0 ? 1024
                                                         : 100000;
        for (int i = 0; i < 2000; i++, steps++) {
            unsigned *slot = &mine[random_below(&random, RECORDS_EACH)];
            if (random_below(&random, 4) == 0) *slot = atomic_exchange(&exchange[random_below(&random, PLACES)], *slot);
            shadow_step(&table[*slot], &random, largest);
        }
        if (random_below(&random, 50) == 0)
            for (size_t i = 0; i < RECORDS_EACH; i++) shadow_free(&table[mine[i]], &random);
        if (thread_index == 0 && random_below(&random, 100) == 0) malloc_trim(0);
    }
    atomic_fetch_add(&steps_done, steps);
    return NULL;
}

int main(int argc, char **argv) {
    subject_require();
    seed = argument_number(argc, argv, 1, 1);
    uint64_t seconds = argument_number(argc, argv, 2, 6);
    size_t threads = argument_number(argc, argv, 3, 8);
    CHECK(threads >= 1 && threads <= THREADS_MOST);
    printf("seed %llu, %llu s, %zu threads\n", (unsigned long long)seed, (unsigned long long)seconds, threads);
    fflush(stdout);

    size_t records = threads * RECORDS_EACH + PLACES;
    table = shadow_table_make(records);
    for (size_t t = 0; t < threads; t++)
        for (size_t i = 0; i < RECORDS_EACH; i++) owned[t][i] = (unsigned)(t * RECORDS_EACH + i);
    for (size_t i = 0; i < PLACES; i++) atomic_init(&exchange[i], (unsigned)(threads * RECORDS_EACH + i));

    uint64_t before = subject_stats().allocated_bytes;
    uint64_t random = seed;
    pthread_t handles[THREADS_MOST];
    /* Several rounds, with a check of all blocks against each other while nobody works. Blocks outlive their threads. */
    enum { ROUNDS = 4 };
    for (int round = 0; round < ROUNDS; round++) {
        deadline_ns = clock_now_ns() + seconds * 1000000000u / ROUNDS;
        seed++;
        if (threads == 1)
            thread_main(owned[0]);
        else {
            for (size_t t = 0; t < threads; t++) CHECK(pthread_create(&handles[t], NULL, thread_main, owned[t]) == 0);
            for (size_t t = 0; t < threads; t++) CHECK(pthread_join(handles[t], NULL) == 0);
        }
        shadow_table_verify(table, records);
    }
    for (size_t i = 0; i < records; i++) shadow_free(&table[i], &random);
    subject_release_all();
    uint64_t after = subject_stats().allocated_bytes;
    /* libc keeps the stacks of ended threads, and with each a few hundred bytes of ours; the keeper has one, too. */
    CHECKF(after <= before + 1024 * (threads + 1), "%llu bytes were live before, %llu after",
           (unsigned long long)before, (unsigned long long)after);
    unsigned long long steps = atomic_load(&steps_done);
    CHECK(steps > 0);
    printf("%llu steps, nothing lost, nothing shared\n", steps);
    return 0;
}
