/* common.h - what every benchmark program shares: arguments, a random generator, threads, memory that is really used.
 *
 * A program takes numbers as arguments, in the order that its opening comment gives; a missing one gets the default.
 * The work depends on the arguments alone: random numbers start from fixed seeds, so that two runs (and two allocators)
 * do the same. Each program ends by printing one line: its name, a checksum and how many blocks were allocated.
 */
#ifndef TIDE_BENCH_COMMON_H
#define TIDE_BENCH_COMMON_H

#define _GNU_SOURCE
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The sum that a program prints, and the number of blocks it allocated. Each thread fills its own. */
typedef struct tally {
    uint64_t sum;
    uint64_t blocks;
} tally;

static inline void tally_add(tally *into, tally one) {
    into->sum += one.sum;
    into->blocks += one.blocks;
}

static inline int tally_print(const char *name, tally total) {
    printf("%s: sum %016" PRIx64 " blocks %" PRIu64 "\n", name, total.sum, total.blocks);
    return 0;
}

_Noreturn static inline void die(const char *what) {
    fprintf(stderr, "benchmark: %s\n", what);
    exit(1);
}

/* Argument `index` as a positive number, or the default. */
static inline size_t argument(int argc, char **argv, int index, size_t fallback) {
    if (index >= argc) return fallback;
    char *end;
    unsigned long long value = strtoull(argv[index], &end, 10);
    if (*end != '\0' || value == 0) die("arguments are positive numbers");
    return (size_t)value;
}

/* A xorshift64* generator (Vigna 2016): three shifts and a multiplication, so that it costs little beside a malloc. */
typedef struct rng {
    uint64_t state;
} rng;

static inline rng rng_seed(uint64_t seed) { return (rng){(seed + 1) * UINT64_C(0x9E3779B97F4A7C15)}; }

static inline uint64_t rng_next(rng *r) {
    uint64_t x = r->state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    r->state = x;
    return x * UINT64_C(0x2545F4914F6CDD1D);
}

/* A number below `limit` (limit < 2^32). */
static inline size_t rng_below(rng *r, size_t limit) { return (size_t)(((rng_next(r) >> 32) * limit) >> 32); }

/* A size that follows a power law: each doubling from `low` to `high` is `1/2` as likely as the one before. */
static inline size_t rng_size(rng *r, size_t low, size_t high) {
    uint64_t coin = rng_next(r);
    size_t base = low;
    while ((coin & 1) && base * 2 <= high) {
        base *= 2;
        coin >>= 1;
    }
    size_t top = base * 2 < high ? base * 2 : high;
    return base + rng_below(r, top - base + 1);
}

static inline void *take(size_t size) {
    void *block = malloc(size);
    if (block == NULL) die("out of memory");
    return block;
}

/* Use a small block as a program would: write its first and last word. Sizes are at least 8. */
static inline void block_write(void *block, size_t size, uint64_t value) {
    memcpy(block, &value, sizeof value);
    memcpy((char *)block + size - sizeof value, &value, sizeof value);
}

static inline uint64_t block_read(const void *block) {
    uint64_t value;
    memcpy(&value, block, sizeof value);
    return value;
}

#define BENCH_PAGE_BYTES ((size_t)4096)

/* Write one word in every page of a large block, the last word included; the sum over them afterwards. */
static inline void pages_write(void *block, size_t size, uint64_t value) {
    for (size_t at = 0; at + sizeof value <= size; at += BENCH_PAGE_BYTES)
        memcpy((char *)block + at, &value, sizeof value);
    memcpy((char *)block + size - sizeof value, &value, sizeof value);
}

static inline uint64_t pages_read(const void *block, size_t size) {
    uint64_t sum = 0;
    for (size_t at = 0; at + sizeof sum <= size; at += BENCH_PAGE_BYTES) sum += block_read((const char *)block + at);
    return sum;
}

/* Stops the compiler from seeing through a pointer, so that a malloc and its free are not optimised away. */
static inline void *opaque(void *block) {
    __asm__ volatile("" : "+r"(block) : : "memory");
    return block;
}

/* One worker: its number, its share of the work in `job`, its result. */
typedef struct worker {
    pthread_t thread;
    size_t index;
    void *job;
    tally result;
} worker;

static inline pthread_t thread_start(void *(*body)(void *), void *argument) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, body, argument) != 0) die("no thread");
    return thread;
}

/* Run `body` in `count` threads at once (in the calling thread when there is one) and add up their tallies. */
static inline tally workers_run(size_t count, void *(*body)(void *), void *job) {
    enum { MAX_WORKERS = 256 };
    static worker workers[MAX_WORKERS];
    tally total = {0, 0};
    if (count > MAX_WORKERS) die("too many threads");
    for (size_t i = 0; i < count; i++) {
        workers[i] = (worker){.index = i, .job = job};
        if (count == 1)
            body(&workers[i]);
        else
            workers[i].thread = thread_start(body, &workers[i]);
    }
    for (size_t i = 0; i < count; i++) {
        if (count > 1) pthread_join(workers[i].thread, NULL);
        tally_add(&total, workers[i].result);
    }
    return total;
}

#endif
