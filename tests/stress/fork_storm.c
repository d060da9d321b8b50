/* fork_storm.c - fork while other threads are inside the allocator.
 *
 * The child inherits the blocks of all threads: it verifies, reallocates and frees them, starts threads, forks again.
 * Records that were half done at the moment of the fork (busy) are left alone. In between: vfork + exec, posix_spawn,
 * system().
 *
 * argv: seed, seconds, threads */
#define _GNU_SOURCE 1
#include <errno.h>
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "shadow.h"
#include "subject.h"

enum { RECORDS_EACH = 300, THREADS_MOST = 64, LARGEST = 200000 };

extern char **environ;
static shadow_t *table;
static size_t records;
static uint64_t seed;
static atomic_int stop;
static size_t thread_indices[THREADS_MOST];

static void *worker_main(void *argument) {
    size_t index = *(const size_t *)argument;
    uint64_t random = seed * 7919 + index;
    while (!atomic_load(&stop))
        for (int i = 0; i < 100; i++)
            shadow_step(&table[index * RECORDS_EACH + random_below(&random, RECORDS_EACH)], &random, LARGEST);
    return NULL;
}

static void *child_thread_main(void *argument) {
    uint64_t random = *(const uint64_t *)argument;
    shadow_t record = {0};
    for (int i = 0; i < 300; i++) shadow_step(&record, &random, LARGEST);
    shadow_free(&record, &random);
    return NULL;
}

/* What a forked child does: use every inherited block, then get new ones. */
static void child_work(uint64_t random, int depth) {
    for (size_t i = 0; i < records; i++) {
        if (atomic_load(&table[i].busy)) {
            /* Half done by a thread that does not exist here. */
            table[i].p = NULL;
            atomic_store(&table[i].busy, 0);
            continue;
        }
        shadow_step(&table[i], &random, LARGEST);
    }
    if (random_below(&random, 4) == 0) subject_release_all();
    for (size_t i = 0; i < records; i++) shadow_step(&table[i], &random, LARGEST);
    shadow_table_verify(table, records);
    if (random_below(&random, 3) == 0) {
        pthread_t threads[2];
        uint64_t seeds[2] = {random_next(&random), random_next(&random)};
        for (int i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, child_thread_main, &seeds[i]) == 0);
        for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    }
    if (depth > 0) {
        pid_t grandchild = fork();
        if (grandchild == 0) {
            child_work(random_next(&random), depth - 1);
            _exit(0);
        }
        process_expect_success(grandchild, "fork in a forked child");
    }
    for (size_t i = 0; i < records; i++) shadow_free(&table[i], &random);
    CHECK(subject_stats().thread_count <= 1 || !subject.is_tide);
}

/* `program --child`: the far end of vfork and posix_spawn. */
static int exec_child(void) {
    uint64_t random = 5;
    shadow_t record = {0};
    for (int i = 0; i < 200; i++) shadow_step(&record, &random, LARGEST);
    shadow_free(&record, &random);
    return 0;
}

static void run_vfork(char **arguments) {
    again_t again = process_again("/proc/self/exe", arguments);
    pid_t child = vfork();
    if (child == 0) {
        execv(again.path, again.words);
        _exit(127);
    }
    process_expect_success(child, "vfork and exec");
}

static void run_spawn(char **arguments) {
    pid_t child = -1;
    again_t again = process_again("/proc/self/exe", arguments);
    CHECK(posix_spawn(&child, again.path, NULL, NULL, again.words, environ) == 0);
    process_expect_success(child, "posix_spawn");
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--child") == 0) {
        subject_require();
        return exec_child();
    }
    subject_require();
    seed = argument_number(argc, argv, 1, 1);
    uint64_t seconds = argument_number(argc, argv, 2, 6);
    size_t threads = argument_number(argc, argv, 3, 8);
    CHECK(threads >= 1 && threads <= THREADS_MOST);
    printf("seed %llu, %llu s, %zu threads\n", (unsigned long long)seed, (unsigned long long)seconds, threads);
    fflush(stdout);

    records = threads * RECORDS_EACH;
    table = shadow_table_make(records);
    pthread_t handles[THREADS_MOST];
    for (size_t t = 0; t < threads; t++) {
        thread_indices[t] = t;
        CHECK(pthread_create(&handles[t], NULL, worker_main, &thread_indices[t]) == 0);
    }

    char program[] = "fork_storm", child_word[] = "--child";
    char *child_arguments[] = {program, child_word, NULL};
    uint64_t random = seed;
    unsigned forks = 0;
    uint64_t deadline_ns = clock_now_ns() + seconds * 1000000000u;
    while (clock_now_ns() < deadline_ns) {
        pid_t child = fork();
        if (child == 0) {
            child_work(random_next(&random), (int)random_below(&random, 3));
            /* exit() would run the handlers of a process whose other threads are gone; that must work as well. */
            if (random_below(&random, 2) == 0) exit(0);
            _exit(0);
        }
        process_expect_success(child, "fork");
        forks++;
        switch (random_below(&random, 12)) {
        case 0: run_vfork(child_arguments); break;
        case 1: run_spawn(child_arguments); break;
        case 2: CHECK(system("exit 0") == 0); break;
        default: break;
        }
    }
    atomic_store(&stop, 1);
    for (size_t t = 0; t < threads; t++) CHECK(pthread_join(handles[t], NULL) == 0);
    shadow_table_verify(table, records);
    for (size_t i = 0; i < records; i++) shadow_free(&table[i], &random);
    CHECK(forks > 0);
    printf("%u forks, all children well\n", forks);
    return 0;
}
