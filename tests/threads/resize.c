/* resize.c - threads realloc and calloc blocks that others made.
 *
 * Each round every thread takes over the records of its neighbour (a barrier lies between), so nearly every realloc and
 * free meets a block of another thread, and calloc gets memory that others dirtied.
 *
 * argv: seed, rounds, threads */
#define _GNU_SOURCE 1
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "shadow.h"
#include "subject.h"

enum { RECORDS_EACH = 100, THREADS_MOST = 32, LARGEST = 300000 };

static shadow_t *table;
static uint64_t seed;
static size_t rounds, threads;
static pthread_barrier_t barrier;

static void *thread_main(void *argument) {
    size_t index = (size_t)(uintptr_t)argument;
    uint64_t random = seed * 17 + index;
    for (size_t round = 0; round < rounds; round++) {
        shadow_t *records = &table[(index + round) % threads * RECORDS_EACH];
        for (size_t i = 0; i < RECORDS_EACH; i++) {
            if (records[i].p == NULL)
                shadow_allocate(&records[i], &random, LARGEST);
            else if (random_below(&random, 4) == 0)
                shadow_free(&records[i], &random);
            else
                shadow_resize(&records[i], &random, LARGEST);
        }
        for (int i = 0; i < 50; i++) {
            size_t size = shadow_random_size(&random, LARGEST);
            unsigned char *p = calloc(1, size);
            CHECK(p != NULL);
            for (size_t at = 0; at < size; at++) CHECKF(p[at] == 0, "calloc of %zu bytes: dirty at %zu", size, at);
            for (size_t at = 0; at < size; at++) p[at] = 0xff;
            free(p);
        }
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

int main(int argc, char **argv) {
    subject_require();
    seed = argument_number(argc, argv, 1, 1);
    rounds = argument_number(argc, argv, 2, 100);
    threads = argument_number(argc, argv, 3, 6);
    CHECK(threads >= 1 && threads <= THREADS_MOST);
    table = shadow_table_make(threads * RECORDS_EACH);
    CHECK(pthread_barrier_init(&barrier, NULL, (unsigned)threads) == 0);
    pthread_t handles[THREADS_MOST];
    for (size_t t = 0; t < threads; t++)
        CHECK(pthread_create(&handles[t], NULL, thread_main, (void *)(uintptr_t)t) == 0);
    for (size_t t = 0; t < threads; t++) CHECK(pthread_join(handles[t], NULL) == 0);
    shadow_table_verify(table, threads * RECORDS_EACH);
    for (size_t i = 0; i < threads * RECORDS_EACH; i++) shadow_free(&table[i], &seed);
    CHECK(pthread_barrier_destroy(&barrier) == 0);
    printf("%zu rounds of %zu threads\n", rounds, threads);
    return 0;
}
