/* ring.c - blocks made by producers and freed by consumers: every free is a remote one.
 *
 * A ring of atomic places between them; a producer waits for an empty place, a consumer for a full one. Each block carries
 * its size and a checksum. Written for ThreadSanitizer: whatever the allocator does between the two threads must be ordered
 * by the allocator itself, so the hand-over is the only thing that the test synchronizes.
 *
 * argv: seed, blocks per producer, producers (as many consumers) */
#define _GNU_SOURCE 1
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "shadow.h"
#include "subject.h"

enum { PLACES = 128, PAIRS_MOST = 32, LARGEST = 100000 };

typedef struct parcel {
    size_t size;
    unsigned char mark;
} parcel_t;

static parcel_t *_Atomic ring[PLACES];
static uint64_t seed;
static size_t blocks_each;
static atomic_size_t freed_bytes, made_bytes;

static void *producer_main(void *argument) {
    uint64_t random = seed + (uint64_t)(uintptr_t)argument;
    for (size_t i = 0; i < blocks_each; i++) {
        size_t size = sizeof(parcel_t) + shadow_random_size(&random, LARGEST);
        parcel_t *parcel = random_below(&random, 8) == 0 ? calloc(1, size) : malloc(size);
        CHECK(parcel != NULL);
        unsigned char mark = (unsigned char)random_next(&random);
        memset(parcel, mark, size);
        *parcel = (parcel_t){size, mark};
        atomic_fetch_add_explicit(&made_bytes, size, memory_order_relaxed);
        for (;;) {
            parcel_t *empty = NULL;
            if (atomic_compare_exchange_weak(&ring[random_below(&random, PLACES)], &empty, parcel)) break;
            if (random_below(&random, 64) == 0) sched_yield();
        }
    }
    return NULL;
}

static void *consumer_main(void *argument) {
    uint64_t random = ~seed - (uint64_t)(uintptr_t)argument;
    for (size_t i = 0; i < blocks_each;) {
        parcel_t *parcel = atomic_exchange(&ring[random_below(&random, PLACES)], NULL);
        if (parcel == NULL) {
            if (random_below(&random, 64) == 0) sched_yield();
            continue;
        }
        i++;
        size_t size = parcel->size;
        const unsigned char *bytes = (const unsigned char *)parcel;
        for (size_t at = sizeof *parcel; at < size; at += 1 + size / 50)
            CHECKF(bytes[at] == parcel->mark, "block of %zu bytes changed at %zu", size, at);
        atomic_fetch_add_explicit(&freed_bytes, size, memory_order_relaxed);
        if (random_below(&random, 16) == 0) {
            parcel = realloc(parcel, size + 1000);
            CHECK(parcel != NULL && parcel->size == size);
        }
        free(parcel);
    }
    return NULL;
}

int main(int argc, char **argv) {
    subject_require();
    seed = argument_number(argc, argv, 1, 1);
    blocks_each = argument_number(argc, argv, 2, 40000);
    size_t pairs = argument_number(argc, argv, 3, 4);
    CHECK(pairs >= 1 && pairs <= PAIRS_MOST && blocks_each > 0);

    uint64_t before = subject_stats().allocated_bytes, remote_before = subject_stats().remote_free_count;
    pthread_t producers[PAIRS_MOST], consumers[PAIRS_MOST];
    for (size_t i = 0; i < pairs; i++) {
        CHECK(pthread_create(&producers[i], NULL, producer_main, (void *)(uintptr_t)i) == 0);
        CHECK(pthread_create(&consumers[i], NULL, consumer_main, (void *)(uintptr_t)i) == 0);
    }
    for (size_t i = 0; i < pairs; i++) {
        CHECK(pthread_join(producers[i], NULL) == 0);
        CHECK(pthread_join(consumers[i], NULL) == 0);
    }
    CHECK(atomic_load(&freed_bytes) == atomic_load(&made_bytes));
    subject_release_all();
    tide_stats after = subject_stats();
    CHECKF(after.allocated_bytes <= before + 16 * 1024, "live bytes: %llu before, %llu after",
           (unsigned long long)before, (unsigned long long)after.allocated_bytes);
    if (subject.is_tide) CHECK(after.remote_free_count > remote_before);
    printf("%zu blocks through the ring, %llu remote frees\n", pairs * blocks_each,
           (unsigned long long)(after.remote_free_count - remote_before));
    return 0;
}
