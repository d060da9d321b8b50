/* soak.c - hours of a program's life in minutes: bursts of every kind, rests between them, threads, forks, and a
 * stock of blocks that outlives them.
 *
 *   burst -> rest until the keeper is still -> one line: resident, of it live, metadata, mappings -> next burst ...
 *
 * tests/soak/run.py judges the lines by regression: at rest nothing may grow. Contents of all blocks are checked all
 * the time.
 *
 * argv: seed, seconds, MiB of the largest burst, bytes to lose in each cycle (so that the judge can be shown a leak) */
#define _GNU_SOURCE 1
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "shadow.h"
#include "subject.h"

enum { STOCK = 3000, BURST = 60000, THREADS = 8, EACH = BURST / THREADS, SHORT_THREADS = 100 };
#define MIB ((size_t)1 << 20)
#define STOCK_LARGEST 20000u
/* So long the keeper may take to come to rest; a line from before that is marked. */
#define REST_MOST_US 4000000u

static shadow_t *stock, *burst;
static uint64_t random_state;
static size_t burst_bytes;

/* --- what the kernel says, without allocating
 * ---------------------------------------------------------------------- */

static int file_open(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    return fd;
}

static size_t mapping_count(void) {
    char text[16384];
    size_t lines = 0;
    int fd = file_open("/proc/self/maps");
    for (ssize_t got; (got = read(fd, text, sizeof text)) > 0;)
        for (ssize_t i = 0; i < got; i++) lines += text[i] == '\n';
    close(fd);
    return lines;
}

/* The counters behind statm are only as exact as each processor's share of them. */
static size_t resident_kib(void) {
    char text[4096];
    int fd = file_open("/proc/self/smaps_rollup");
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    CHECK(got > 0);
    text[got] = 0;
    const char *at = strstr(text, "\nRss:");
    CHECK(at != NULL);
    return strtoull(at + 5, NULL, 10);
}

/* --- bursts
 * -------------------------------------------------------------------------------------------------------- */

static size_t live_bytes(void) { return subject_stats().allocated_bytes; }

/* Blocks of about `largest` bytes until there are enough. Returns how many. */
static size_t fill(shadow_t *table, size_t most, size_t bytes, size_t largest, uint64_t *random) {
    size_t count = 0;
    for (size_t sum = 0; count < most && sum < bytes; count++) {
        size_t size = 1 + random_below(random, largest);
        CHECK(shadow_malloc(&table[count], random, size));
        sum += size;
    }
    return count;
}

/* In the order of a random stride, as programs free: neither forwards nor backwards. */
static void drop(shadow_t *table, size_t count, uint64_t *random) {
    static const size_t strides[] = {1, 7919, 104729, 15485863};
    size_t stride = strides[random_below(random, 4)], at = 0;
    if (count == 0 || count % stride == 0) stride = 1;
    for (size_t i = 0; i < count; i++, at = (at + stride) % count)
        if (table[at].p != NULL) shadow_free(&table[at], random);
    for (size_t i = 0; i < count; i++)
        if (table[i].p != NULL) shadow_free(&table[i], random);
}

static void burst_of(size_t largest) {
    size_t count = fill(burst, BURST, 1 + random_below(&random_state, burst_bytes), largest, &random_state);
    if (random_below(&random_state, 2) == 0) clock_sleep_us((unsigned)random_below(&random_state, 60000));
    drop(burst, count, &random_state);
}

/* Again and again, with gaps about as long as the keeper's patience. */
static void stutter(void) {
    size_t bytes = 1 + random_below(&random_state, burst_bytes / 4);
    unsigned gap_us = 1000 + (unsigned)random_below(&random_state, 60000);
    for (int i = 0; i < 12; i++) {
        drop(burst, fill(burst, BURST, bytes, 4000, &random_state), &random_state);
        clock_sleep_us(gap_us);
    }
}

static void grow_and_shrink(void) {
    for (int i = 0; i < 20; i++) CHECK(shadow_malloc(&burst[i], &random_state, 16));
    for (int i = 0; i < 400; i++)
        shadow_resize(&burst[random_below(&random_state, 20)], &random_state, burst_bytes / 16);
    drop(burst, 20, &random_state);
}

static uint64_t seeds[SHORT_THREADS];

static void *thread_main(void *argument) {
    size_t index = (size_t)((uint64_t *)argument - seeds);
    uint64_t random = *(uint64_t *)argument;
    shadow_t *mine = &burst[index * EACH];
    fill(mine, EACH, burst_bytes / THREADS / 2, (size_t)1 << (6 + random_below(&random, 10)), &random);
    for (int i = 0; i < 2000; i++) shadow_step(&mine[random_below(&random, EACH)], &random, 30000);
    return NULL;
}

static void *short_main(void *argument) {
    size_t index = (size_t)((uint64_t *)argument - seeds);
    uint64_t random = *(uint64_t *)argument;
    for (size_t i = 0; i < 20; i++) shadow_step(&burst[index * 20 + i], &random, 5000);
    return NULL;
}

/* All that they leave is freed by another thread. */
static void threads(size_t at_once, void *(*work)(void *), size_t records) {
    pthread_t handles[THREADS];
    for (size_t done = 0; done < at_once; done += THREADS) {
        size_t now = at_once - done < THREADS ? at_once - done : THREADS;
        for (size_t t = 0; t < now; t++) {
            seeds[done + t] = random_next(&random_state);
            CHECK(pthread_create(&handles[t], NULL, work, &seeds[done + t]) == 0);
        }
        for (size_t t = 0; t < now; t++) CHECK(pthread_join(handles[t], NULL) == 0);
    }
    drop(burst, records, &random_state);
}

static void child_main(void) {
    uint64_t random = random_next(&random_state);
    shadow_table_verify(stock, STOCK);
    for (size_t i = 0; i < STOCK; i += 3) shadow_step(&stock[i], &random, STOCK_LARGEST);
    size_t count = fill(burst, BURST, burst_bytes / 8, 3000, &random);
    drop(burst, count, &random);
    for (size_t i = 0; i < STOCK; i++)
        if (stock[i].p != NULL) shadow_free(&stock[i], &random);
}

static void forks(void) {
    pid_t children[3];
    for (int i = 0; i < 3; i++) {
        children[i] = fork();
        random_next(&random_state);
        if (children[i] == 0) {
            child_main();
            _exit(0);
        }
        burst_of(3000); /* beside the child: pages that both have are copied */
    }
    for (int i = 0; i < 3; i++) process_expect_success(children[i], "a child");
}

/* A part of the stock is replaced: old and new blocks lie among each other. */
static void turn_over(void) {
    for (size_t i = 0; i < STOCK / 6; i++) {
        shadow_t *record = &stock[random_below(&random_state, STOCK)];
        if (record->p != NULL) shadow_free(record, &random_state);
        CHECK(shadow_malloc(record, &random_state, shadow_random_size(&random_state, STOCK_LARGEST)));
    }
}

static const char *const kinds[] = {"small", "mid", "large", "stutter", "resize", "threads", "short-threads", "forks"};
enum { KINDS = sizeof kinds / sizeof *kinds };

static void run(size_t kind) {
    switch (kind) {
    case 0: burst_of(300); break;
    case 1: burst_of(20000); break;
    case 2: burst_of(4 * MIB); break;
    case 3: stutter(); break;
    case 4: grow_and_shrink(); break;
    case 5: threads(THREADS, thread_main, BURST); break;
    case 6: threads(SHORT_THREADS, short_main, SHORT_THREADS * 20); break;
    default: forks(); break;
    }
}

/* --- rests
 * --------------------------------------------------------------------------------------------------------- */

/* True: the keeper has given all back and sleeps. */
static bool rest(void) {
    clock_sleep_us(100000 + (unsigned)random_below(&random_state, 600000));
    for (unsigned waited_us = 0; waited_us < REST_MOST_US; waited_us += 50000) {
        tide_stats stats = subject_stats();
        if (stats.keeper_running == 0 || stats.keeper_state == TIDE_KEEPER_STILL) return true;
        clock_sleep_us(50000);
    }
    return false;
}

static void say(uint64_t begin_ns, size_t kind, bool still) {
    tide_stats stats = subject_stats();
    char line[300];
    int length = snprintf(line, sizeof line, "%.3f,%s,%d,%zu,%llu,%llu,%zu,%llu,%llu\n",
                          (double)(clock_now_ns() - begin_ns) / 1e9, kinds[kind], still, resident_kib(),
                          (unsigned long long)live_bytes() / 1024, (unsigned long long)stats.metadata_bytes / 1024,
                          mapping_count(), (unsigned long long)stats.heap_count,
                          (unsigned long long)stats.returned_bytes / 1024);
    CHECK(write(STDOUT_FILENO, line, (size_t)length) == length);
}

int main(int argc, char **argv) {
    subject_require();
    random_state = argument_number(argc, argv, 1, 1);
    uint64_t seconds = argument_number(argc, argv, 2, 1200);
    burst_bytes = argument_number(argc, argv, 3, 96) * MIB;
    size_t lost_bytes = argument_number(argc, argv, 4, 0);
    stock = shadow_table_make(STOCK);
    burst = shadow_table_make(BURST);
    for (size_t i = 0; i < STOCK; i++)
        CHECK(shadow_malloc(&stock[i], &random_state, shadow_random_size(&random_state, STOCK_LARGEST)));
    static const char header[] = "seconds,kind,still,resident_kib,live_kib,metadata_kib,mappings,heaps,returned_kib\n";
    CHECK(write(STDOUT_FILENO, header, sizeof header - 1) == sizeof header - 1);
    uint64_t begin_ns = clock_now_ns(), end_ns = begin_ns + seconds * 1000000000u;
    for (size_t cycle = 0; clock_now_ns() < end_ns; cycle++) {
        /* Every kind once, then by chance. */
        size_t kind = cycle < KINDS ? cycle : random_below(&random_state, KINDS);
        run(kind);
        turn_over();
        if (lost_bytes > 0) memset(malloc(lost_bytes), 1, lost_bytes);
        bool still = rest();
        say(begin_ns, kind, still);
    }
    shadow_table_verify(stock, STOCK);
    drop(stock, STOCK, &random_state);
    return 0;
}
