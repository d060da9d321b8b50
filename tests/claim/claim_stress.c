/* claim_stress.c - sleeping threads' heaps are claimed as fast as it can be done while everything else goes on.
 *
 * Owners, more than there are cores, allocate, resize and free blocks with checked contents, hand them to each other, fill and thin out
 * whole runs of one size (so that spans have few survivors, are punched, and are mended again), sleep for a moment or for long, fork, end and are
 * replaced, in order or by the bare system call. A signal storm makes them allocate inside their operations. Beside them claimers call the
 * flush functions in a loop: each call marks all threads, runs the barrier, sweeps, punches and purges.
 *
 * Every block belongs to a record outside the heap under test. A record belongs to one thread or to one place of the exchange; a thread says in
 * `current` which one it is changing, so that a forked child knows what is half done, and a handler that jumps (siglongjmp) out of an
 * operation or out of a claim, what is lost.
 *
 * The last line of the output has the figures.
 *
 * Options, each with a number: --seconds, or --operations to work until so many are done; --threads, --claimers, --seed; --signals, --forks,
 * --jumps 0 or 1; --rounds of a thread's life at most; --raw-ends N: one of N threads ends by the bare system call, 0: none. */
#define _GNU_SOURCE 1
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "subject.h"

enum {
    OWNERS_MOST = 64,
    CLAIMERS_MOST = 8,
    RECORDS_EACH = 6000,
    HANDLER_RECORDS = 16,
    PLACES = 1024,
    NOTHING = -1,
    STEPS_EACH = 256, /* between two looks at the clock and at `stop` */
    WHOLE_BYTES = 256,
    STRIDE_BYTES = 1024,
    CHILD_SECONDS = 100,
    STACK_BYTES = 256 * 1024,
    OWNER_NICE = 5,
};

#ifdef TIDE_TEST_NO_RAW_ENDS
#define RAW_ENDS 0
#else
#define RAW_ENDS 8
#endif
static struct {
    uint64_t seconds, threads, claimers, signals, forks, jumps, seed, operations;
    uint64_t rounds;   /* of a thread's life, at most */
    uint64_t raw_ends; /* one of so many threads ends by the bare system call; 0: none */
} wanted = {.seconds = 5,
            .threads = 8,
            .claimers = 1,
            .signals = 1,
            .forks = 1,
            .seed = 1,
            .rounds = 4000,
            .raw_ends = RAW_ENDS};

static atomic_bool stop;

/* --- blocks ----------------------------------------------------------------------------------------------------------- */

struct record {
    unsigned char *at; /* NULL: no block */
    uint32_t bytes;
    uint32_t seed;
};

static struct record *records;
static size_t record_count;
static atomic_uint places[PLACES];

static uint64_t word_of(const struct record *record, size_t offset) {
    return (((uint64_t)record->seed << 32 | record->bytes) + offset) * UINT64_C(0x9e3779b97f4a7c15) +
           (uintptr_t)record->at;
}

/* Small blocks are filled wholly; of others the ends, and some words of each page. */
#define FOR_WORDS(bytes, body) \
    do { \
        size_t step = (bytes) <= WHOLE_BYTES ? 8 : STRIDE_BYTES; \
        size_t offset = 0; \
        for (; offset + 16 <= (bytes); offset += step) body; \
        if ((bytes) >= 8) { \
            offset = (bytes)-8; \
            body; \
        } \
    } while (0)

static void block_fill(const struct record *record, size_t bytes) {
    FOR_WORDS(bytes, {
        uint64_t word = word_of(record, offset);
        memcpy(record->at + offset, &word, 8);
    });
    for (size_t i = 0; bytes < 8 && i < bytes; i++) record->at[i] = (unsigned char)(record->seed + i);
}

/* `at` holds what was filled in as `record`. `limit` cuts the words off where realloc has cut the block. */
static void block_verify_at(const struct record *record, const unsigned char *at, size_t limit) {
    size_t bytes = record->bytes;
    FOR_WORDS(bytes, {
        if (offset + 8 <= limit) {
            uint64_t word;
            memcpy(&word, at + offset, 8);
            CHECKF(word == word_of(record, offset), "block %p of %zu bytes has changed at %zu: %#llx", (const void *)at,
                   bytes, offset, (unsigned long long)word);
        }
    });
    for (size_t i = 0; bytes < 8 && i < bytes && i < limit; i++) CHECK(at[i] == (unsigned char)(record->seed + i));
}

static void block_verify(const struct record *record) { block_verify_at(record, record->at, record->bytes); }

static size_t random_size(uint64_t random) {
    uint32_t kind = (uint32_t)(random >> 40) % 1024, part = (uint32_t)random;
    if (kind < 800) return part % 257;
    if (kind < 1000) return part % 1025;
    if (kind < 1022) return part % (32 * 1024 + 1);
    return part % (600 * 1024);
}

/* An accepted block: filled, and nobody else's. */
static void record_set(struct record *record, void *block, size_t bytes, uint64_t random) {
    record->bytes = (uint32_t)bytes;
    record->seed = (uint32_t)(random >> 13);
    record->at = block;
    block_fill(record, bytes);
}

static void record_allocate(struct record *record, uint64_t random, size_t bytes, bool in_handler) {
    void *block;
    bool zeroed = random >> 61 == 0;
    if (zeroed)
        block = calloc(1, bytes);
    else if (random >> 61 == 1 && bytes >= 64)
        block = aligned_alloc(64, bytes);
    else
        block = malloc(bytes);
    if (block == NULL && in_handler) {
        CHECK(errno == ENOMEM && bytes > 1000);
        return;
    }
    CHECKF(block != NULL, "no memory for %zu bytes, errno %d", bytes, errno);
    if (zeroed)
        FOR_WORDS(bytes, {
            uint64_t word;
            memcpy(&word, (unsigned char *)block + offset, 8);
            CHECKF(word == 0, "calloc: %p of %zu bytes is not zero at %zu", block, bytes, offset);
        });
    record_set(record, block, bytes, random);
}

static void record_free(struct record *record) {
    block_verify(record);
    unsigned char *block = record->at;
    if (record->bytes >= 8) memset(block, 0xdb, 8);
    record->at = NULL;
    free(block);
}

static void record_resize(struct record *record, uint64_t random, bool in_handler) {
    size_t bytes = random_size(random) + 1;
    if ((random >> 35 & 1) != 0) bytes = record->bytes + record->bytes / 4 + 1;
    if (bytes > 1024 * 1024) bytes = 1024;
    block_verify(record);
    unsigned char *block = realloc(record->at, bytes);
    if (block == NULL && in_handler) {
        block_verify(record);
        return;
    }
    CHECKF(block != NULL, "realloc from %u to %zu bytes: errno %d", record->bytes, bytes, errno);
    block_verify_at(record, block, bytes);
    record_set(record, block, bytes, random);
}

/* One operation on one record. */
static void record_step(struct record *record, uint64_t random, bool in_handler) {
    if (record->at == NULL)
        record_allocate(record, random, in_handler ? random % 1001 : random_size(random), in_handler);
    else if ((random >> 20 & 15) == 0)
        record_resize(record, random, in_handler);
    else
        record_free(record);
}

/* --- owners ----------------------------------------------------------------------------------------------------------- */

/* A thread's own work, and that of its signal handler. */
struct hands {
    volatile int current; /* the record that is being changed, NOTHING: none */
    uint64_t random;
};

static struct owner {
    _Alignas(128) struct hands work, handler;
    unsigned index;
    unsigned mine[RECORDS_EACH], handlers[HANDLER_RECORDS];
    volatile sig_atomic_t may_jump; /* an operation on a block is under way, and nothing else */
    sigjmp_buf jump_target;
    _Atomic uint64_t operations;
    uint64_t jumps, forks, longest_fork_ns;
    /* The undertaker's: `alive` is changed with the lock held, since others send signals. */
    pthread_mutex_t lock;
    pthread_t thread;
    bool alive;
    atomic_bool finished;
} owners[OWNERS_MOST];

static _Thread_local struct owner *self;
static atomic_ullong signals_handled, threads_ended, raw_ended, claims_done, claims_returned, claim_jumps,
    children_done;

static void count_operations(struct owner *owner, uint64_t count) {
    atomic_store_explicit(&owner->operations, atomic_load_explicit(&owner->operations, memory_order_relaxed) + count,
                          memory_order_relaxed);
}

static struct record *change_begin(struct hands *hands, unsigned index) {
    hands->current = (int)index;
    atomic_signal_fence(memory_order_seq_cst);
    return &records[index];
}

static void change_end(struct hands *hands) {
    atomic_signal_fence(memory_order_seq_cst);
    hands->current = NOTHING;
}

static _Thread_local sigjmp_buf claimer_target;
static _Thread_local volatile sig_atomic_t claimer_may_jump;

static void handler(int signal_number) {
    (void)signal_number;
    int saved = errno;
    if (claimer_may_jump) {
        claimer_may_jump = 0;
        siglongjmp(claimer_target, 1);
    }
    if (self == NULL) return;
    atomic_fetch_add_explicit(&signals_handled, 1, memory_order_relaxed);
    if (wanted.jumps && self->may_jump && random_next(&self->handler.random) % 8 == 0) {
        self->may_jump = 0;
        siglongjmp(self->jump_target, 1);
    }
    for (int i = 0; i < 3; i++) {
        uint64_t random = random_next(&self->handler.random);
        unsigned *mine = &self->handlers[random % HANDLER_RECORDS];
        record_step(change_begin(&self->handler, *mine), random, true);
        change_end(&self->handler);
        if (random >> 60 == 0)
            *mine = atomic_exchange_explicit(&places[(random >> 8) % PLACES], *mine, memory_order_acq_rel);
    }
    errno = saved;
}

/* --- forks ------------------------------------------------------------------------------------------------------------ */

static bool is_current(unsigned index) {
    for (unsigned t = 0; t < wanted.threads; t++)
        if (owners[t].work.current == (int)index || owners[t].handler.current == (int)index) return true;
    return false;
}

static void *child_thread(void *argument) {
    uint64_t random = (uintptr_t)argument;
    struct record record = {0};
    for (int i = 0; i < 500; i++) record_step(&record, random_next(&random), false);
    if (record.at != NULL) record_free(&record);
    return NULL;
}

_Noreturn static void child_work(uint64_t random) {
    alarm(CHILD_SECONDS);
    for (unsigned i = 0; i < record_count; i++) {
        if (records[i].at == NULL || is_current(i)) continue;
        block_verify(&records[i]);
        if (random_next(&random) % 4 == 0) record_free(&records[i]);
    }
    struct record fresh[64] = {{0}};
    for (int i = 0; i < 2000; i++) record_step(&fresh[random_next(&random) % 64], random_next(&random), false);
    if (random % 4 == 0) subject_release_all();
    if (random % 8 == 1) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, child_thread, (void *)(uintptr_t)random) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
    }
    for (int i = 0; i < 64; i++)
        if (fresh[i].at != NULL) record_free(&fresh[i]);
    if (random % 2 == 0) exit(0);
    _exit(0);
}

static void owner_fork(struct owner *owner, uint64_t random) {
    uint64_t begun = clock_now_ns();
    pid_t child = fork();
    if (child == 0) child_work(random);
    uint64_t taken = clock_now_ns() - begun;
    if (taken > owner->longest_fork_ns) owner->longest_fork_ns = taken;
    process_expect_success(child, "fork");
    atomic_fetch_add_explicit(&children_done, 1, memory_order_relaxed);
    owner->forks++;
}

/* --- what an owner does ------------------------------------------------------------------------------------------------- */

static void random_work(struct owner *owner) {
    for (int i = 0; i < STEPS_EACH; i++) {
        uint64_t random = random_next(&owner->work.random);
        unsigned *mine = &owner->mine[(random >> 32) % RECORDS_EACH];
        if ((random & 7) == 0)
            *mine = atomic_exchange_explicit(&places[(random >> 12) % PLACES], *mine, memory_order_acq_rel);
        random = random_next(&owner->work.random);
        struct record *record = change_begin(&owner->work, *mine);
        owner->may_jump = 1;
        record_step(record, random, false);
        owner->may_jump = 0;
        change_end(&owner->work);
    }
    count_operations(owner, STEPS_EACH);
}

/* Many blocks of one size, of which few stay, far apart. */
static void fill_and_thin(struct owner *owner, uint64_t random) {
    size_t bytes = (random & 7) != 0 ? 16 + (random >> 8) % 512 : 1100 + (random >> 8) % 8000;
    unsigned count = bytes > 1024 ? 400 : 3000, first = (unsigned)((random >> 32) % RECORDS_EACH);
    unsigned keep = 8 + (unsigned)((random >> 50) % 120);
    uint64_t operations = 0;
    for (unsigned pass = 0; pass < 2; pass++)
        for (unsigned i = 0; i < count; i++) {
            unsigned index = owner->mine[(first + i) % RECORDS_EACH];
            struct record *record = change_begin(&owner->work, index);
            uint64_t next = random_next(&owner->work.random);
            owner->may_jump = 1;
            if (pass == 0 && record->at == NULL) {
                record_allocate(record, next, bytes, false);
                operations++;
            } else if (pass == 1 && record->at != NULL && i % keep != 0) {
                record_free(record);
                operations++;
            }
            owner->may_jump = 0;
            change_end(&owner->work);
        }
    count_operations(owner, operations);
}

static void nap(uint64_t random) {
    unsigned microseconds = (random >> 32) % 16 == 0 ? 30000 : (unsigned)((random >> 40) % 2000);
    clock_sleep_us(microseconds);
}

static void owner_round(struct owner *owner) {
    uint64_t random = random_next(&owner->work.random);
    switch (random % 64) {
    case 0:
    case 1:
    case 2: fill_and_thin(owner, random_next(&owner->work.random)); break;
    case 3: nap(random); break;
    case 4:
        if (wanted.forks && random >> 58 == 0) {
            bool after_sleep = random >> 57 & 1;
            if (after_sleep) clock_sleep_us(20000);
            owner_fork(owner, random_next(&owner->work.random));
        }
        break;
    default: random_work(owner);
    }
}

/* The interrupted operation's block is nobody's: a leak, nothing worse. */
static void after_jump(struct owner *owner) {
    struct hands *all[] = {&owner->work, &owner->handler};
    for (int i = 0; i < 2; i++) {
        if (all[i]->current != NOTHING) records[all[i]->current].at = NULL;
        all[i]->current = NOTHING;
    }
    owner->jumps++;
}

static void storm_mask(int how) {
    sigset_t storm;
    sigemptyset(&storm);
    sigaddset(&storm, SIGUSR1);
    CHECK(pthread_sigmask(how, &storm, NULL) == 0);
}

static void *owner_main(void *argument) {
    struct owner *owner = argument;
    self = owner;
    /* Claimers come first: per thread, as Linux has it. */
    CHECK(setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), getpriority(PRIO_PROCESS, 0) + OWNER_NICE) == 0);
    uint64_t rounds = 1 + random_next(&owner->work.random) % wanted.rounds;
    if (wanted.signals) storm_mask(SIG_UNBLOCK);
    volatile uint64_t done = 0;
    if (wanted.jumps && sigsetjmp(owner->jump_target, 1) != 0) after_jump(owner);
    for (; done < rounds && !atomic_load_explicit(&stop, memory_order_relaxed); done++) owner_round(owner);
    atomic_fetch_add_explicit(&threads_ended, 1, memory_order_relaxed);
    if (RAW_ENDS != 0 && wanted.raw_ends != 0 && random_next(&owner->work.random) % wanted.raw_ends == 0) {
        storm_mask(SIG_BLOCK);
        atomic_fetch_add_explicit(&raw_ended, 1, memory_order_relaxed);
        atomic_store(&owner->finished, true);
        syscall(SYS_exit, 0);
    }
    atomic_store(&owner->finished, true);
    return NULL;
}

/* --- the others ------------------------------------------------------------------------------------------------------- */

static void claim_once(uint64_t random) {
    tide_flush_report report = {0};
    size_t returned;
    switch (random % 16) {
    case 0: returned = subject.flush_tiny(&report); break;
    case 1: returned = subject.flush_mid(&report); break;
    case 2: returned = subject.flush_pools(&report); break;
    case 3: returned = subject.flush_large(&report); break;
    case 4:
        malloc_trim(0);
        returned = 0;
        break;
    case 5: {
        tide_stats stats = subject_stats();
        CHECK(stats.thread_count <= stats.heap_count);
        returned = 0;
        break;
    }
    default: returned = subject.release_all(&report);
    }
    CHECK(returned == report.returned_bytes && returned % 4096 == 0);
    atomic_fetch_add_explicit(&claims_returned, returned, memory_order_relaxed);
    atomic_fetch_add_explicit(&claims_done, 1, memory_order_relaxed);
}

static void *claimer_main(void *argument) {
    volatile uint64_t random = (uintptr_t)argument;
    struct record volatile own = {0};
    bool jumps = wanted.jumps != 0;
    if (jumps) {
        storm_mask(SIG_UNBLOCK);
        if (sigsetjmp(claimer_target, 1) != 0) atomic_fetch_add_explicit(&claim_jumps, 1, memory_order_relaxed);
    }
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        uint64_t next = random;
        uint64_t value = random_next(&next);
        random = next;
        claimer_may_jump = jumps;
        claim_once(value);
        claimer_may_jump = 0;
        struct record copy = {own.at, own.bytes, own.seed};
        record_step(&copy, value >> 8, false);
        own.at = copy.at, own.bytes = copy.bytes, own.seed = copy.seed;
        if (value >> 56 == 0) clock_sleep_us(5000);
    }
    claimer_may_jump = 0;
    return NULL;
}

static pthread_t claimers[CLAIMERS_MOST];

static void *storm_main(void *argument) {
    uint64_t random = (uintptr_t)argument;
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        struct owner *owner = &owners[random_below(&random, wanted.threads)];
        CHECK(pthread_mutex_lock(&owner->lock) == 0);
        if (owner->alive) pthread_kill(owner->thread, SIGUSR1);
        CHECK(pthread_mutex_unlock(&owner->lock) == 0);
        if (wanted.jumps && random_below(&random, 16) == 0)
            pthread_kill(claimers[random_below(&random, wanted.claimers)], SIGUSR1);
        clock_sleep_us(50);
    }
    return NULL;
}

static void owner_start(struct owner *owner) {
    pthread_attr_t attributes;
    CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, STACK_BYTES) == 0);
    atomic_store(&owner->finished, false);
    CHECK(pthread_mutex_lock(&owner->lock) == 0);
    CHECK(pthread_create(&owner->thread, &attributes, owner_main, owner) == 0);
    owner->alive = true;
    CHECK(pthread_mutex_unlock(&owner->lock) == 0);
    CHECK(pthread_attr_destroy(&attributes) == 0);
}

static void owner_bury(struct owner *owner) {
    CHECK(pthread_mutex_lock(&owner->lock) == 0);
    owner->alive = false;
    CHECK(pthread_mutex_unlock(&owner->lock) == 0);
    CHECK(pthread_join(owner->thread, NULL) == 0);
}

static uint64_t operations_total(void) {
    uint64_t total = 0;
    for (unsigned t = 0; t < wanted.threads; t++)
        total += atomic_load_explicit(&owners[t].operations, memory_order_relaxed);
    return total;
}

/* --- the run ---------------------------------------------------------------------------------------------------------- */

static void options_read(int argc, char **argv) {
    static const struct option options[] = {
        {"seconds", 1, NULL, 0},    {"threads", 1, NULL, 1},  {"claimers", 1, NULL, 2}, {"signals", 1, NULL, 3},
        {"forks", 1, NULL, 4},      {"raw-ends", 1, NULL, 5}, {"jumps", 1, NULL, 6},    {"seed", 1, NULL, 7},
        {"operations", 1, NULL, 8}, {"rounds", 1, NULL, 9},   {NULL, 0, NULL, 0},
    };
    uint64_t *const values[] = {&wanted.seconds,    &wanted.threads,  &wanted.claimers, &wanted.signals,
                                &wanted.forks,      &wanted.raw_ends, &wanted.jumps,    &wanted.seed,
                                &wanted.operations, &wanted.rounds};
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        CHECKF(option >= 0 && option < 10, "usage: claim_stress [--%s N] ...",
               "seconds|threads|claimers|signals|forks|raw-ends|jumps|seed|operations|rounds");
        *values[option] = strtoull(optarg, NULL, 0);
    }
    CHECK(wanted.threads >= 1 && wanted.threads <= OWNERS_MOST && wanted.rounds >= 1);
    CHECK(wanted.claimers <= CLAIMERS_MOST && (wanted.claimers > 0 || !wanted.jumps));
}

static void records_make(void) {
    size_t each = RECORDS_EACH + HANDLER_RECORDS;
    record_count = wanted.threads * each + PLACES;
    records = mmap(NULL, record_count * sizeof *records, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(records != MAP_FAILED);
    unsigned next = 0;
    for (unsigned t = 0; t < wanted.threads; t++) {
        struct owner *owner = &owners[t];
        owner->index = t;
        owner->work = (struct hands){NOTHING, wanted.seed * 1000003 + t};
        owner->handler = (struct hands){NOTHING, ~owner->work.random};
        CHECK(pthread_mutex_init(&owner->lock, NULL) == 0);
        for (unsigned i = 0; i < RECORDS_EACH; i++) owner->mine[i] = next++;
        for (unsigned i = 0; i < HANDLER_RECORDS; i++) owner->handlers[i] = next++;
    }
    for (unsigned i = 0; i < PLACES; i++) atomic_init(&places[i], next++);
}

static bool is_over(uint64_t deadline_ns) {
    if (wanted.operations != 0) return operations_total() >= wanted.operations;
    return clock_now_ns() >= deadline_ns;
}

int main(int argc, char **argv) {
    options_read(argc, argv);
    subject_require();
    CHECK(subject.is_tide);
    printf("seed %llu, %llu s, %llu threads, %llu claimers\n", (unsigned long long)wanted.seed,
           (unsigned long long)wanted.seconds, (unsigned long long)wanted.threads, (unsigned long long)wanted.claimers);
    fflush(stdout);
    storm_mask(SIG_BLOCK);
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    records_make();

    tide_stats before = subject_stats();
    uint64_t begun_ns = clock_now_ns(), deadline_ns = begun_ns + wanted.seconds * 1000000000u;
    for (unsigned t = 0; t < wanted.threads; t++) owner_start(&owners[t]);
    for (unsigned i = 0; i < wanted.claimers; i++)
        CHECK(pthread_create(&claimers[i], NULL, claimer_main, (void *)(uintptr_t)(wanted.seed * 77 + i)) == 0);
    pthread_t storm;
    if (wanted.signals) CHECK(pthread_create(&storm, NULL, storm_main, (void *)(uintptr_t)wanted.seed) == 0);
    while (!is_over(deadline_ns)) {
        for (unsigned t = 0; t < wanted.threads; t++) {
            if (!atomic_load(&owners[t].finished)) continue;
            owner_bury(&owners[t]);
            owner_start(&owners[t]);
        }
        clock_sleep_us(500);
    }
    atomic_store(&stop, true);
    if (wanted.signals) CHECK(pthread_join(storm, NULL) == 0);
    for (unsigned t = 0; t < wanted.threads; t++) owner_bury(&owners[t]);
    for (unsigned i = 0; i < wanted.claimers; i++) CHECK(pthread_join(claimers[i], NULL) == 0);
    uint64_t run_ns = clock_now_ns() - begun_ns;

    for (size_t i = 0; i < record_count; i++)
        if (records[i].at != NULL) record_free(&records[i]);
    tide_flush_report report = {0};
    subject.release_all(&report);
    tide_stats after = subject_stats();
    uint64_t jumps = 0, longest_fork_ns = 0;
    for (unsigned t = 0; t < wanted.threads; t++) {
        jumps += owners[t].jumps;
        if (owners[t].longest_fork_ns > longest_fork_ns) longest_fork_ns = owners[t].longest_fork_ns;
    }
    uint64_t total = operations_total(), claims = atomic_load(&claims_done);
    CHECK(total > 0 && (claims > 0 || wanted.claimers == 0));
    if (wanted.jumps) CHECK(jumps > 0);
    /* A jump may cost a heap with all that lies in it. */
    if (!wanted.jumps)
        CHECKF(after.allocated_bytes <= before.allocated_bytes + 256 * 1024, "%llu bytes were live before, %llu after",
               (unsigned long long)before.allocated_bytes, (unsigned long long)after.allocated_bytes);
#define LLU(value) ((unsigned long long)(value))
    printf("%llu operations, %llu claims, %llu wakes, %llu waits (longest %llu us), %llu MiB returned by claims of "
           "them %llu MiB of "
           "whole spans, %llu threads ended (%llu by raw exit), %llu heaps, %llu signals, %llu nested operations, %llu "
           "forks "
           "(longest %llu us), %llu jumps out of work, %llu out of claims, %.1f s\n",
           LLU(total), LLU(claims), LLU(after.claim_wake_count - before.claim_wake_count),
           LLU(after.claim_wait_count - before.claim_wait_count), LLU(after.claim_wait_max_ns / 1000),
           LLU(atomic_load(&claims_returned) >> 20), LLU((after.returned_bytes - before.returned_bytes) >> 20),
           LLU(atomic_load(&threads_ended)), LLU(atomic_load(&raw_ended)), LLU(after.heap_count),
           LLU(atomic_load(&signals_handled)), LLU(after.nested_count - before.nested_count),
           LLU(atomic_load(&children_done)), LLU(longest_fork_ns / 1000), LLU(jumps), LLU(atomic_load(&claim_jumps)),
           (double)run_ns / 1e9);
    return 0;
}
