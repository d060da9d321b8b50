/* start.c - when the keeper's thread begins to exist, and when it does not. */
#define _GNU_SOURCE 1
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "burst.h"
#include "check.h"
#include "scene.h"
#include "subject.h"
#include "water.h"

enum { QUIET_MS = 250 };

static void *touched(size_t size) {
    void *block = malloc(size);
    CHECK(block != NULL);
    memset(block, 0x5a, size);
    return block;
}

/* --- too small for a keeper ------------------------------------------------------------------------------------------ */

/* One block of every class, up to 1.1 MiB in all, again and again. */
static void small_classes(void) {
    enum { COUNT = 64 + 60 };
    static void *blocks[COUNT];
    for (unsigned round = 0; round < 30; round++) {
        size_t count = 0, size = 0, total = 0;
        for (unsigned i = 1; i <= 64; i++) blocks[count++] = touched(size = (size_t)i * 16);
        while (size < 32768 && count < COUNT) {
            size += size / 8;
            total += size;
            blocks[count++] = touched(size);
        }
        CHECK(total < WATER_MIB);
        for (size_t i = 0; i < count; i++) free(blocks[i]);
        task_expect_count(1);
    }
    keeper_expect_none(1, QUIET_MS);
}

/* 300 MiB in all, but never more than 1.2 MiB at a time. */
static void small_again_and_again(void) {
    for (unsigned round = 0; round < 300; round++) {
        void *large = touched(700 * WATER_KIB), *mid[16];
        for (unsigned i = 0; i < 16; i++) mid[i] = touched(28 * WATER_KIB + round);
        for (unsigned i = 0; i < 16; i++) free(mid[i]);
        free(large);
    }
    keeper_expect_none(1, QUIET_MS);
}

/* Much address space, little memory. */
static void small_untouched(void) {
    void *blocks[8];
    for (unsigned i = 0; i < 8; i++) {
        blocks[i] = i % 2 == 0 ? malloc(64 * WATER_MIB) : calloc(64, WATER_MIB);
        CHECK(blocks[i] != NULL);
        *(volatile char *)blocks[i] = 1;
        free(touched(500 * WATER_KIB));
    }
    keeper_expect_none(1, QUIET_MS);
    for (unsigned i = 0; i < 8; i++) free(blocks[i]);
    keeper_expect_none(1, 0);
}

static void touch_a_little(sailor_t *sailor) {
    for (unsigned round = 0; round < 20; round++) {
        void *a = touched(40 * WATER_KIB), *b = touched(1000 + sailor->index), *c = touched(10 * WATER_KIB);
        free(a);
        free(b);
        free(c);
    }
}

static void small_threads(void) {
    static crew_t crew;
    crew_make(&crew, 6);
    crew_order(&crew, touch_a_little);
    keeper_expect_none(7, QUIET_MS);
    crew_end(&crew);
}

/* A program that stays below 2 MiB has no keeper, and what it keeps is small all the same. */
static void small_comes_back(void) {
    static burst_t burst;
    burst_make(&burst, BURST_MIXED, 1200 * WATER_KIB, 3);
    size_t baseline = water_level();
    for (unsigned round = 0; round < 40; round++) {
        burst_fill(&burst, BURST_MID, 1200 * WATER_KIB);
        burst_free(&burst);
    }
    if (keeper_task() == 0) keeper_expect_none(1, QUIET_MS);
    water_expect_baseline(baseline, "a small program");
}

/* --- large enough ---------------------------------------------------------------------------------------------------- */

static void expect_one_keeper(size_t threads) {
    pid_t keeper = keeper_expect();
    task_expect_count(threads + 1);
    CHECK(keeper != getpid());
    static burst_t more;
    burst_make(&more, BURST_MIXED, 24 * WATER_MIB, 7);
    burst_fill(&more, BURST_MIXED, 24 * WATER_MIB);
    burst_free(&more);
    clock_sleep_us(200000);
    CHECK(keeper_task() == keeper);
    task_expect_count(threads + 1);
    CHECK(subject_stats().keeper_running == 1);
}

static void grow_blocks(size_t size) {
    static void *blocks[131072];
    size_t count = 6 * WATER_MIB / size;
    for (size_t i = 0; i < count; i++) blocks[i] = touched(size);
    keeper_expect();
    for (size_t i = 0; i < count; i++) free(blocks[i]);
    expect_one_keeper(1);
}
static void grow_tiny(void) { grow_blocks(64); }
static void grow_mid(void) { grow_blocks(5000); }
static void grow_large(void) { grow_blocks(200000); }
static void grow_huge(void) { grow_blocks(WATER_MIB * 3 / 2); }

static void grow_by_realloc(void) {
    char *block = NULL;
    size_t size = 0;
    while (size < 24 * WATER_MIB) {
        block = realloc(block, size + 100000);
        CHECK(block != NULL);
        memset(block + size, 1, 100000);
        size += 100000;
    }
    expect_one_keeper(1);
    free(block);
}

static void grow_by_calloc(void) {
    static void *blocks[400];
    for (unsigned i = 0; i < 400; i++) {
        blocks[i] = calloc(1, 20000);
        CHECK(blocks[i] != NULL);
        memset(blocks[i], 1, 20000);
    }
    keeper_expect();
    for (unsigned i = 0; i < 400; i++) free(blocks[i]);
    expect_one_keeper(1);
}

static void grow_by_alignment(void) {
    static void *blocks[400];
    for (unsigned i = 0; i < 400; i++) {
        CHECK(posix_memalign(&blocks[i], 65536, 20000) == 0);
        memset(blocks[i], 1, 20000);
    }
    keeper_expect();
    for (unsigned i = 0; i < 400; i++) free(blocks[i]);
    expect_one_keeper(1);
}

/* Memory that is touched only after it was all allocated, and then freed, is noticed at the end at the latest. */
static void grow_late(void) {
    static char *blocks[64];
    size_t baseline = water_level();
    for (unsigned i = 0; i < 64; i++) CHECK((blocks[i] = malloc(WATER_MIB / 2)) != NULL);
    for (unsigned i = 0; i < 64; i++) memset(blocks[i], 1, WATER_MIB / 2);
    for (unsigned i = 0; i < 64; i++) free(blocks[i]);
    water_expect_baseline(baseline, "blocks that were touched late");
}

/* A block that was grown and is cut, in a program that calls nothing but realloc. */
static void cut_by_realloc(void) {
    size_t baseline = water_level();
    char *block = NULL;
    for (size_t size = 0; size < 40 * WATER_MIB; size += WATER_MIB / 4) {
        block = realloc(block, size + WATER_MIB / 4);
        CHECK(block != NULL);
        memset(block + size, 1, WATER_MIB / 4);
    }
    block = realloc(block, 200000);
    CHECK(block != NULL);
    water_expect_baseline(baseline + 200000, "a block that was cut");
    free(block);
}

static void *grow_main(void *barrier) {
    pthread_barrier_wait(barrier);
    void *blocks[2000];
    for (unsigned i = 0; i < 2000; i++) blocks[i] = touched(1000 + i);
    for (unsigned i = 0; i < 2000; i++) free(blocks[i]);
    pthread_barrier_wait(barrier);
    return NULL;
}

/* Several threads pass the limit in the same moment. */
static void grow_together(void) {
    pthread_t threads[8];
    pthread_barrier_t barrier;
    CHECK(pthread_barrier_init(&barrier, NULL, 9) == 0);
    for (unsigned i = 0; i < 8; i++) CHECK(pthread_create(&threads[i], NULL, grow_main, &barrier) == 0);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    for (unsigned i = 0; i < 8; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    expect_one_keeper(1);
}

/* --- not wanted, not possible ---------------------------------------------------------------------------------------- */

static void grow_without(void) {
    static burst_t burst;
    burst_make(&burst, BURST_MIXED, 32 * WATER_MIB, 5);
    burst_fill(&burst, BURST_MIXED, 32 * WATER_MIB);
    keeper_expect_none(1, QUIET_MS);
    burst_free(&burst);
    keeper_expect_none(1, QUIET_MS);
}

static void grow_some(void) {
    static burst_t burst;
    burst_make(&burst, BURST_MIXED, 16 * WATER_MIB, 6);
    burst_fill(&burst, BURST_MIXED, 16 * WATER_MIB);
    burst_free(&burst);
}

/* A child of vfork has the parent's memory: a thread there would be the end of both. */
static void in_vfork(void) {
    static burst_t burst;
    static volatile size_t child_threads;
    burst_make(&burst, BURST_MIXED, 16 * WATER_MIB, 8);
    pid_t child = vfork();
    if (child == 0) {
        burst_fill(&burst, BURST_MIXED, 16 * WATER_MIB);
        child_threads = process_task_count();
        _exit(0);
    }
    process_expect_success(child, "vfork");
    if (child_threads == 0) scene_skip("vfork copies the memory here");
    CHECKF(child_threads == 1, "the child had %zu threads", child_threads);
    CHECK(keeper_task() == 0);
    burst_free(&burst);
    grow_some();
    expect_one_keeper(1);
    /* And while there is a keeper. */
    child = vfork();
    if (child == 0) {
        burst_fill(&burst, BURST_MIXED, 16 * WATER_MIB);
        child_threads = process_task_count();
        _exit(0);
    }
    process_expect_success(child, "vfork beside the keeper");
    CHECK(child_threads == 1);
    burst_free(&burst);
    expect_one_keeper(1);
}

/* The system refuses a second thread: the program goes on, and memory does come back. */
static void no_thread_allowed(void) {
    static burst_t burst;
    burst_make(&burst, BURST_MIXED, 16 * WATER_MIB, 9);
    if (geteuid() == 0) CHECK(setgid(54321) == 0 && setuid(54321) == 0);
    struct rlimit one = {1, 1};
    CHECK(setrlimit(RLIMIT_NPROC, &one) == 0);
    size_t baseline = water_level();
    for (unsigned round = 0; round < 5; round++) {
        burst_fill(&burst, BURST_MIXED, 16 * WATER_MIB);
        burst_free(&burst);
    }
    keeper_expect_none(1, QUIET_MS);
    water_expect_ebb(baseline + 3 * WATER_MIB, "without a thread");
}

/* --- errno ------------------------------------------------------------------------------------------------------------- */

static void errno_burst(void) {
    static void *blocks[3000];
    for (unsigned i = 0; i < 3000; i++) {
        size_t size = i % 10 == 0 ? 50000 : i % 3 == 0 ? 5000 : 100;
        errno = 4711;
        blocks[i] = i % 4 == 0 ? calloc(1, size) : i % 4 == 1 ? realloc(NULL, size) : malloc(size);
        CHECKF(errno == 4711, "block %u of %zu bytes: errno %d", i, size, errno);
        CHECK(blocks[i] != NULL);
        memset(blocks[i], 1, size);
        CHECK(errno == 4711);
    }
    for (unsigned i = 0; i < 3000; i++) {
        errno = 4712;
        free(blocks[i]);
        CHECKF(errno == 4712, "free of block %u: errno %d", i, errno);
    }
}

static void errno_kept(void) {
    errno_burst();
    pid_t keeper = keeper_expect();
    for (unsigned round = 0; round < 2; round++) {
        keeper_expect_still(keeper);
        errno_burst(); /* its first call wakes the keeper */
    }
}

static void errno_kept_without_thread(void) {
    if (geteuid() == 0) CHECK(setgid(54321) == 0 && setuid(54321) == 0);
    struct rlimit one = {1, 1};
    CHECK(setrlimit(RLIMIT_NPROC, &one) == 0);
    for (unsigned round = 0; round < 4; round++) errno_burst();
    keeper_expect_none(1, 0);
}

static const scene_t scenes[] = {
    {.name = "small-classes", .run = small_classes},
    {.name = "small-again-and-again", .run = small_again_and_again},
    {.name = "small-untouched", .run = small_untouched},
    {.name = "small-threads", .run = small_threads},
    {.name = "small-comes-back", .run = small_comes_back},
    {.name = "grow-tiny", .run = grow_tiny},
    {.name = "grow-mid", .run = grow_mid},
    {.name = "grow-large", .run = grow_large},
    {.name = "grow-huge", .run = grow_huge},
    {.name = "grow-by-realloc", .run = grow_by_realloc},
    {.name = "grow-by-calloc", .run = grow_by_calloc},
    {.name = "grow-by-alignment", .run = grow_by_alignment},
    {.name = "grow-late", .run = grow_late},
    {.name = "cut-by-realloc", .run = cut_by_realloc},
    {.name = "grow-together", .run = grow_together},
    {.name = "off", .environment = "TIDE_KEEPER=off", .run = grow_without},
    {.name = "in-vfork", .run = in_vfork},
    {.name = "no-thread-allowed", .run = no_thread_allowed},
    {.name = "errno", .run = errno_kept},
    {.name = "errno-without-thread", .run = errno_kept_without_thread},
};

int main(int argc, char **argv) { return SCENE_MAIN(argc, argv, scenes); }
