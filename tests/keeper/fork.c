/* fork.c - children: they begin without a keeper, get their own when they grow, and come back to the baseline like everybody else; whatever the
 * parent's keeper was doing at that moment. */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "burst.h"
#include "check.h"
#include "scene.h"
#include "subject.h"
#include "water.h"

extern char **environ;
static burst_t burst;
static crew_t crew;
static size_t baseline;

static void ebb(const char *what) {
    burst_fill(&burst, BURST_MIXED, 12 * WATER_MIB);
    burst_free(&burst);
    water_expect_baseline(baseline, what);
}

static pid_t grow(void) {
    burst_make(&burst, BURST_MIXED, 12 * WATER_MIB, 1);
    baseline = water_level();
    ebb("at first");
    return keeper_expect();
}

/* --- one child ----------------------------------------------------------------------------------------------------------- */

static void live_as_child(void) {
    task_expect_count(1);
    CHECK(keeper_task() == 0 && subject_stats().keeper_running == 0);
    free(malloc(100));
    task_expect_count(1);
    baseline = water_level();
    for (unsigned round = 0; round < 2; round++) ebb("in the child");
    CHECK(keeper_task() != 0 && process_task_count() == 2);
}

static void grown_child(void) {
    pid_t keeper = grow();
    for (unsigned round = 0; round < 3; round++) {
        if (round == 1) keeper_expect_still(keeper);
        pid_t child = fork();
        if (child == 0) {
            live_as_child();
            _exit(0);
        }
        process_expect_success(child, "a child of a grown program");
        CHECK(keeper_task() == keeper && process_task_count() == 2);
        ebb("in the parent");
    }
}

/* A child that has got all of the parent's blocks, and frees them. */
static void inherited_blocks(void) {
    grow();
    burst_fill(&burst, BURST_MIXED, 12 * WATER_MIB);
    pid_t child = fork();
    if (child == 0) {
        burst_verify(&burst);
        size_t full = water_level();
        burst_free(&burst);
        ebb("in the child");
        CHECK(!WATER_IS_CLEAR || water_level() < full);
        _exit(0);
    }
    process_expect_success(child, "a child that frees what it inherited");
    burst_verify(&burst);
    burst_free(&burst);
    water_expect_baseline(baseline, "in the parent");
}

/* The same, but it allocates nothing afterwards: then nobody has told it that there is something to give back. */
static void inherited_blocks_alone(void) {
    grow();
    burst_fill(&burst, BURST_MIXED, 12 * WATER_MIB);
    pid_t child = fork();
    if (child == 0) {
        burst_free(&burst);
        water_expect_ebb(baseline + 3 * WATER_MIB, "in a child that only frees");
        _exit(0);
    }
    process_expect_success(child, "a child that only frees");
    burst_free(&burst);
}

/* Punched spans, withheld blocks and sleepers' caches are inherited as they are. */
static void sailor_fill(sailor_t *sailor) { burst_fill(&sailor->burst, BURST_MIXED, WATER_MIB); }
static void sailor_thin(sailor_t *sailor) { burst_thin(&sailor->burst, 30); }
static void inherited_survivors(void) {
    grow();
    crew_make(&crew, 8);
    for (size_t i = 0; i < 8; i++) burst_make(&crew.sailors[i].burst, BURST_MIXED, WATER_MIB, i);
    crew_order(&crew, sailor_fill);
    crew_order(&crew, sailor_thin);
    keeper_expect_still(keeper_expect());
    pid_t child = fork();
    if (child == 0) {
        task_expect_count(1);
        for (size_t i = 0; i < 8; i++) burst_verify(&crew.sailors[i].burst);
        for (size_t i = 0; i < 8; i++) burst_fill(&crew.sailors[i].burst, BURST_MIXED, WATER_MIB / 2);
        for (size_t i = 0; i < 8; i++) burst_verify(&crew.sailors[i].burst);
        for (size_t i = 0; i < 8; i++) burst_free(&crew.sailors[i].burst);
        ebb("in the child");
        _exit(0);
    }
    process_expect_success(child, "a child with the survivors of sleepers");
    for (size_t i = 0; i < 8; i++) burst_verify(&crew.sailors[i].burst);
    for (size_t i = 0; i < 8; i++) burst_free(&crew.sailors[i].burst);
    crew_end(&crew);
}

/* Children of children, each grown. */
static void generations(void) {
    grow();
    for (unsigned depth = 0; depth < 4; depth++) {
        pid_t child = fork();
        if (child != 0) {
            process_expect_success(child, "a generation");
            _exit(0);
        }
        live_as_child();
    }
    _exit(0);
}

/* --- children that become something else ------------------------------------------------------------------------------------ */

static void fresh_part(void) {
    task_expect_count(1);
    grow();
}

static void spawned(void) {
    pid_t keeper = grow();
    char program[] = "fork", part[] = "fresh-part";
    char *arguments[] = {program, part, NULL};
    again_t again = process_again("/proc/self/exe", arguments);
    for (unsigned round = 0; round < 3; round++) {
        pid_t child;
        CHECK(posix_spawn(&child, again.path, NULL, NULL, again.words, environ) == 0);
        process_expect_success(child, "posix_spawn");
        child = vfork();
        if (child == 0) {
            execv(again.path, again.words);
            _exit(126);
        }
        process_expect_success(child, "vfork and exec");
#ifndef TIDE_TEST_FOREIGN_SHELL
        CHECK(system("true") == 0);
        FILE *output = popen("echo tide", "r");
        char word[16];
        CHECK(output != NULL && fgets(word, sizeof word, output) != NULL && pclose(output) == 0);
#endif
        ebb("after children");
    }
    CHECK(keeper_task() == keeper);
}

/* As daemons begin: twice forked, a session of its own, all files closed, another directory. */
static void daemon_style(void) {
    grow();
    int report[2];
    CHECK(pipe(report) == 0);
    pid_t child = fork();
    if (child == 0) {
        CHECK(setsid() > 0);
        pid_t grandchild = fork();
        if (grandchild != 0) _exit(grandchild > 0 ? 0 : 1);
        CHECK(chdir("/") == 0);
        CHECK(dup2(report[1], 200) == 200);
        for (int fd = 0; fd < 1024; fd++)
            if (fd != 200) close(fd);
        CHECK(open("/dev/null", O_RDWR) == 0 && dup(0) == 1 && dup(0) == 2);
        live_as_child();
        CHECK(write(200, "w", 1) == 1);
        _exit(0);
    }
    process_expect_success(child, "the first child");
    close(report[1]);
    char byte = 0;
    CHECK(read(report[0], &byte, 1) == 1 && byte == 'w');
    CHECK(read(report[0], &byte, 1) == 0);
}

/* libc's own. */
static void daemon_of_libc(void) {
    grow();
    int report[2];
    CHECK(pipe(report) == 0);
    pid_t child = fork();
    if (child == 0) {
        CHECK(daemon(0, 0) == 0);
        live_as_child();
        CHECK(write(report[1], "w", 1) == 1);
        _exit(0);
    }
    process_expect_success(child, "the first child");
    close(report[1]);
    char byte = 0;
    CHECK(read(report[0], &byte, 1) == 1 && byte == 'w');
}

/* --- a storm --------------------------------------------------------------------------------------------------------------------- */

enum { WORKERS = 3, RECORDS_EACH = 200, LARGEST = 120000 };
static shadow_t *table;
static atomic_int stop;
static atomic_ulong flushes;

static void *worker_main(void *argument) {
    size_t index = (size_t)(uintptr_t)argument;
    uint64_t random = index + 77;
    while (!atomic_load(&stop)) {
        for (unsigned i = 0; i < 150; i++)
            shadow_step(&table[index * RECORDS_EACH + random_below(&random, RECORDS_EACH)], &random, LARGEST);
        if (random_below(&random, 8) == 0) clock_sleep_us((unsigned)random_below(&random, 3000));
    }
    return NULL;
}

static void *flush_main(void *nothing) {
    while (!atomic_load(&stop)) {
        subject.release_all(NULL);
        atomic_fetch_add(&flushes, 1);
    }
    return nothing;
}

static void use_inherited(uint64_t random) {
    for (size_t i = 0; i < WORKERS * RECORDS_EACH; i++) {
        if (atomic_load(&table[i].busy)) { /* half done by a thread that does not exist here */
            table[i].p = NULL;
            atomic_store(&table[i].busy, 0);
            continue;
        }
        shadow_verify(&table[i]);
        shadow_step(&table[i], &random, LARGEST);
    }
    if (random_below(&random, 3) == 0) subject_release_all();
    for (size_t i = 0; i < 300; i++)
        shadow_step(&table[random_below(&random, WORKERS * RECORDS_EACH)], &random, LARGEST);
    for (size_t i = 0; i < WORKERS * RECORDS_EACH; i++) shadow_free(&table[i], &random);
}

static void storm(void) {
    grow();
    table = shadow_table_make(WORKERS * RECORDS_EACH);
    pthread_t threads[WORKERS + 1];
    for (size_t i = 0; i < WORKERS; i++)
        CHECK(pthread_create(&threads[i], NULL, worker_main, (void *)(uintptr_t)i) == 0);
    CHECK(pthread_create(&threads[WORKERS], NULL, flush_main, NULL) == 0);
    uint64_t random = 4, until = clock_now_ns() + scene_rounds * 1200000000u;
    unsigned forks = 0, kept = 0;
    while (clock_now_ns() < until) {
        pid_t child = fork();
        if (child == 0) {
            alarm(60);
            use_inherited(random_next(&random));
            if (forks % 16 == 0) { /* and lives on */
                ebb("in a child of the storm");
                CHECK(keeper_task() != 0);
            }
            if (forks % 2 == 0) exit(0);
            _exit(0);
        }
        kept += forks % 16 == 0;
        process_expect_success(child, "a child of the storm");
        forks++;
    }
    atomic_store(&stop, 1);
    for (size_t i = 0; i <= WORKERS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    for (size_t i = 0; i < WORKERS * RECORDS_EACH; i++) shadow_free(&table[i], &random);
    printf("%u forks beside %lu flushes, %u children lived on\n", forks, atomic_load(&flushes), kept);
    CHECK(forks > 0 && atomic_load(&flushes) > 0);
}

/* Children born at every moment of the keeper's round: bursts, marks, the purge, the quiet. */
static void at_any_moment(void) {
    grow();
    uint64_t random = 8;
    for (unsigned round = 0; round < 12 * scene_rounds; round++) {
        burst_fill(&burst, BURST_MIXED, 3 * WATER_MIB);
        burst_thin(&burst, 20);
        clock_sleep_us((unsigned)random_below(&random, 60000));
        pid_t child = fork();
        if (child == 0) {
            alarm(60);
            burst_verify(&burst);
            burst_fill(&burst, BURST_MIXED, 3 * WATER_MIB);
            burst_verify(&burst);
            burst_free(&burst);
            _exit(0);
        }
        process_expect_success(child, "a child at any moment");
        burst_verify(&burst);
        burst_free(&burst);
    }
    water_expect_baseline(baseline, "in the parent");
}

static const scene_t scenes[] = {
    {.name = "grown-child", .run = grown_child},
    {.name = "inherited-blocks", .run = inherited_blocks},
    {.name = "inherited-blocks-alone", .run = inherited_blocks_alone},
    {.name = "inherited-survivors", .run = inherited_survivors},
    {.name = "generations", .run = generations},
    {.name = "spawned", .run = spawned},
    {.name = "fresh-part", .run = fresh_part, .part = true},
    {.name = "daemon-style", .run = daemon_style},
    {.name = "daemon-of-libc", .run = daemon_of_libc},
    {.name = "storm", .run = storm},
    {.name = "at-any-moment", .run = at_any_moment},
};

int main(int argc, char **argv) { return SCENE_MAIN(argc, argv, scenes); }
