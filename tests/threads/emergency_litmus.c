/* emergency_litmus.c - the stack of emergency blocks, by itself: more threads than processors take and free blocks. No block is ever two
 * threads', what one wrote the next one to get it can read, and at the end all of them are there.
 *
 * argv: seed, steps of each thread, threads */
#define _GNU_SOURCE 1
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "heap/emergency.c"

enum { HOLD_MAX = 6, THREADS_MAX = 32, SPARE_MIN = EMERGENCY_BLOCKS - 24 };

/* The layers below: one run, and no mappings. */
size_t os_page_bytes = 4096;
struct region region_main;
static struct span spans[EMERGENCY_SLICES];
void os_init(void) {}
struct span *run_take(size_t slices, size_t alignment) {
    (void)alignment;
    CHECK(slices == EMERGENCY_SLICES);
    region_main.spans = spans;
    region_main.size_bytes = slices * SLICE_BYTES;
    region_main.base = (uintptr_t)aligned_alloc(SLICE_BYTES, slices * SLICE_BYTES);
    CHECK(region_main.base != 0);
    return spans;
}
struct region *region_of(const void *address) {
    return address != NULL ? &region_main : NULL;
}
struct region *region_of_span(const struct span *span) {
    return span != NULL ? &region_main : NULL;
}
void *os_reserve(size_t bytes, size_t alignment) {
    (void)bytes, (void)alignment;
    return NULL;
}
int os_commit(void *at, size_t bytes) { return at != NULL && bytes != 0 ? 0 : -1; }
void os_release(void *at, size_t bytes) { (void)at, (void)bytes; }
bool large_release(struct span *head) { return head != NULL; }
void block_fatal_free(const char *function, const void *address) { check_die("%s %p", function, address); }

static uint64_t seed, steps;
static _Atomic uint32_t owners[EMERGENCY_BLOCKS]; /* by number: whose it is, 0: nobody's */

static uint32_t number_of(const char *block) {
    return (uint32_t)((size_t)(block - emergency_start) / EMERGENCY_BLOCK_BYTES);
}

static void *thread_main(void *argument) {
    uint32_t self = (uint32_t)(uintptr_t)argument;
    uint64_t random = seed * 1000 + self;
    char *held[HOLD_MAX] = {NULL};
    for (uint64_t step = 0; step < steps + HOLD_MAX; step++) {
        char **slot = &held[step < steps ? random_below(&random, HOLD_MAX) : step - steps];
        if (*slot != NULL) {
            uint32_t number = number_of(*slot);
            CHECK(*(uint64_t *)(void *)*slot == ((uint64_t)self << 32 | number));
            CHECK(atomic_exchange_explicit(&owners[number], 0, memory_order_relaxed) == self);
            CHECK(emergency_put(*slot) == EMERGENCY_FREED);
            *slot = NULL;
        } else if (step < steps) {
            *slot = emergency_take(100, 16);
            if (*slot == NULL) continue;
            uint32_t number = number_of(*slot);
            CHECK(number < EMERGENCY_BLOCKS &&
                  atomic_exchange_explicit(&owners[number], self, memory_order_relaxed) == 0);
            *(uint64_t *)(void *)*slot = (uint64_t)self << 32 | number;
        }
    }
    return NULL;
}

int main(int argc, char **argv) {
    seed = argument_number(argc, argv, 1, 1);
    steps = argument_number(argc, argv, 2, 300000);
    unsigned count = (unsigned)argument_number(argc, argv, 3, 6);
    CHECK(count >= 1 && count <= THREADS_MAX);
    emergency_init();
    /* Few are left to fight for, so the list is short and its head changes all the time. */
    static void *spare[SPARE_MIN];
    for (unsigned i = 0; i < SPARE_MIN; i++) spare[i] = emergency_take(1, 1);
    pthread_t threads[THREADS_MAX];
    for (unsigned i = 0; i < count; i++)
        CHECK(pthread_create(&threads[i], NULL, thread_main, (void *)(uintptr_t)(i + 1)) == 0);
    for (unsigned i = 0; i < count; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    const char *broken = emergency_validate(true);
    CHECKF(broken == NULL, "%s", broken);
    for (unsigned i = 0; i < SPARE_MIN; i++) CHECK(emergency_put(spare[i]) == EMERGENCY_FREED);
    unsigned taken = 0;
    while (emergency_take(1, 1) != NULL) taken++;
    CHECKF(taken == EMERGENCY_BLOCKS, "%u blocks are left", taken);
    printf("%u threads, %llu pops of the list\n", count, (unsigned long long)(atomic_load(&emergency_head) >> 32));
    return 0;
}
