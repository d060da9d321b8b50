/* barrier_litmus.c - what the barrier of the claim is for, shown on the machine at hand.
 *
 *   owner                                  claimer
 *   stores that miss the cache             record.heap = vacant
 *   record.busy = 1                        [barrier in all threads]
 *   load record.heap                       load record.busy
 *
 * Both load the old value: the owner is in its heap, and the claimer believes that it is not. The owner has no fence between its store and its
 * load, so the load may come first, and does when the store waits behind others. The barrier must make that impossible, and without it the
 * same must be seen to happen: otherwise this test shows nothing.
 *
 * The owner's side is heap_enter() and heap_loaded() of heap.h themselves, the barrier is that of src/os/wait.c. Where the barrier is left out the
 * claimer runs a fence of its own, as the lock that it drops is one: what is seen is the owner's doing.
 *
 * argv: rounds, seconds at most for each way */
#define _GNU_SOURCE 1
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "check.h"
#include "heap/heap.h"

enum { CLOG_STORES = 24, ROUNDS_A_LOOK = 4096 };
#define CLOG_BYTES (64 * MIB)

__thread struct thread_record heap_record __attribute__((tls_model("initial-exec")));

static struct heap heap_own_of_test, heap_vacant_of_test;

/* One round: both start together and say at the end what they saw. A line each. */
static struct {
    _Alignas(128) _Atomic uint64_t round; /* set by the claimer */
    _Alignas(128) _Atomic uint64_t owner_done;
    _Alignas(128) _Atomic(struct thread_record *) record;
    bool owner_in;
    _Alignas(128) atomic_bool over;
} shared;

static unsigned char *clog;
static int owner_cpu, claimer_cpu;

static void stay_on(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    CHECK(pthread_setaffinity_np(pthread_self(), sizeof set, &set) == 0);
}

static void spin_until(_Atomic uint64_t *word, uint64_t value) {
    for (unsigned i = 0; atomic_load_explicit(word, memory_order_acquire) < value; i++) {
        if (atomic_load_explicit(&shared.over, memory_order_relaxed)) return;
        if (i % 4096 == 4095) sched_yield();
    }
}

/* The two must meet within the time that the owner's store waits: some hundred nanoseconds, somewhere in the first thousand. */
static void wait_a_little(uint64_t random) {
    for (unsigned i = (unsigned)random % 256; i > 0; i--) atomic_signal_fence(memory_order_seq_cst);
}

static void *owner_main(void *argument) {
    (void)argument;
    uint64_t random = 1;
    stay_on(owner_cpu);
    atomic_store(&shared.record, &heap_record);
    for (uint64_t round = 1;; round += 2) { /* the work, and the way back */
        volatile unsigned char *lines[CLOG_STORES];
        for (unsigned i = 0; i < CLOG_STORES; i++) lines[i] = clog + random_next(&random) % (CLOG_BYTES / 64) * 64;
        spin_until(&shared.round, round);
        if (atomic_load_explicit(&shared.over, memory_order_relaxed)) return NULL;
        for (unsigned i = 0; i < CLOG_STORES; i++) *lines[i] = 1;
        heap_enter();
        struct heap *heap = heap_loaded();
        atomic_signal_fence(memory_order_seq_cst);
        shared.owner_in = heap == &heap_own_of_test;
        atomic_store_explicit(&shared.owner_done, round, memory_order_release);
        /* Busy until the claimer has looked. */
        spin_until(&shared.round, round + 1);
        heap_leave();
        atomic_store_explicit(&shared.owner_done, round + 1, memory_order_release);
    }
}

/* Two numbers a round: the work, and the way back. */
static uint64_t next_round = 1;

static bool round_is_broken(bool with_barrier, uint64_t *random) {
    struct thread_record *record = atomic_load(&shared.record);
    atomic_store_explicit(&record->heap, &heap_own_of_test, memory_order_relaxed);
    atomic_store_explicit(&shared.round, next_round, memory_order_release);
    wait_a_little(random_next(random));

    atomic_store_explicit(&record->heap, &heap_vacant_of_test, memory_order_relaxed);
    if (with_barrier)
        CHECK(os_barrier() == 0);
    else
        atomic_thread_fence(memory_order_seq_cst);
    bool claimed = atomic_load_explicit(&record->busy, memory_order_acquire) == 0;

    spin_until(&shared.owner_done, next_round);
    bool broken = claimed && shared.owner_in;
    atomic_store_explicit(&shared.round, next_round + 1, memory_order_release);
    spin_until(&shared.owner_done, next_round + 1);
    next_round += 2;
    return broken;
}

struct tally {
    uint64_t rounds, broken;
};

static struct tally run(bool with_barrier, uint64_t rounds, uint64_t seconds) {
    struct tally tally = {0};
    uint64_t random = 7, deadline_ns = clock_now_ns() + seconds * 1000000000u;
    while (clock_now_ns() < deadline_ns && tally.rounds < rounds)
        for (unsigned i = 0; i < ROUNDS_A_LOOK; i++, tally.rounds++)
            tally.broken += round_is_broken(with_barrier, &random);
    return tally;
}

static bool processors_find(void) {
    cpu_set_t set;
    CHECK(sched_getaffinity(0, sizeof set, &set) == 0);
    int found = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE && found < 2; cpu++) {
        if (!CPU_ISSET(cpu, &set)) continue;
        *(found == 0 ? &owner_cpu : &claimer_cpu) = cpu;
        found++;
    }
    return found == 2;
}

int main(int argc, char **argv) {
    uint64_t rounds = argument_number(argc, argv, 1, 200000);
    uint64_t seconds = argument_number(argc, argv, 2, 5);
    if (!processors_find() || !os_barrier_register()) {
        puts("skipped: one processor, or no membarrier");
        return CHECK_SKIPPED;
    }
    clog = mmap(NULL, CLOG_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    CHECK(clog != MAP_FAILED);
    pthread_t owner;
    CHECK(pthread_create(&owner, NULL, owner_main, NULL) == 0);
    stay_on(claimer_cpu);
    while (atomic_load(&shared.record) == NULL) sched_yield();

    struct tally without = run(false, rounds, seconds), with = run(true, rounds, seconds);
    atomic_store(&shared.over, true);
    CHECK(pthread_join(owner, NULL) == 0);
    printf("without the barrier %llu of %llu rounds broken%s, with it %llu of %llu\n",
           (unsigned long long)without.broken, (unsigned long long)without.rounds,
           without.broken == 0 ? " (not shown in this run)" : "", (unsigned long long)with.broken,
           (unsigned long long)with.rounds);
    CHECK(with.broken == 0 && with.rounds > 0);
    return 0;
}
