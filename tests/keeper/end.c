/* end.c - the process ends when the program's last thread does: the keeper is not waited for, and does not do what that thread would have done. */
#define _GNU_SOURCE 1
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "burst.h"
#include "check.h"
#include "scene.h"
#include "subject.h"
#include "water.h"

static burst_t burst;
static pthread_barrier_t barrier;

static void grow(void) {
    if (burst.records == NULL) burst_make(&burst, BURST_MIXED, 12 * WATER_MIB, 1);
    burst_fill(&burst, BURST_MIXED, 12 * WATER_MIB);
    burst_free(&burst);
    keeper_expect();
}

/* Every part is started by the scene of its name, which waits for its end as long as any scene may take. */
static void expect_status(const char *part, int expected) {
    pid_t child = scene_start(part, NULL, -1, NULL);
    int status = 0;
    uint64_t until = clock_now_ns() + WATER_PATIENCE_NS;
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (clock_now_ns() > until) {
            kill(child, SIGKILL);
            check_die("%s: the process does not end", part);
        }
        clock_sleep_us(2000);
    }
    CHECKF(WIFEXITED(status) && WEXITSTATUS(status) == expected, "%s: wait status 0x%x", part, (unsigned)status);
}

/* --- the main thread leaves --------------------------------------------------------------------------------------------- */

static void *worker_main(void *milliseconds) {
    shadow_t record = {0};
    uint64_t random = 3;
    for (unsigned i = 0; i < (unsigned)(uintptr_t)milliseconds; i++) {
        for (unsigned step = 0; step < 20; step++) shadow_step(&record, &random, 100000);
        clock_sleep_us(1000);
    }
    shadow_free(&record, &random);
    return NULL;
}

static void start_worker(uintptr_t milliseconds) {
    pthread_t worker;
    CHECK(pthread_create(&worker, NULL, worker_main, (void *)milliseconds) == 0);
    CHECK(pthread_detach(worker) == 0);
}

static void workers_part(void) {
    grow();
    start_worker(100);
    start_worker(300);
    pthread_exit(NULL);
}
static void workers(void) { expect_status("workers-part", 0); }

static void alone_part(void) {
    grow();
    pthread_exit(NULL);
}
static void alone(void) { expect_status("alone-part", 0); }

static void alone_still_part(void) {
    grow();
    keeper_expect_still(keeper_expect());
    pthread_exit(NULL);
}
static void alone_still(void) { expect_status("alone-still-part", 0); }

/* The last thread has never allocated anything. */
static void *idle_main(void *nothing) {
    clock_sleep_us(300000);
    return nothing;
}
static void idle_part(void) {
    grow();
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, idle_main, NULL) == 0);
    CHECK(pthread_detach(thread) == 0);
    pthread_exit(NULL);
}
static void idle(void) { expect_status("idle-part", 0); }

/* Blocks that nobody frees. */
static void with_blocks_part(void) {
    grow();
    burst_fill(&burst, BURST_MIXED, 8 * WATER_MIB);
    start_worker(50);
    pthread_exit(NULL);
}
static void with_blocks(void) { expect_status("with-blocks-part", 0); }

/* The keeper starts only when the main thread is gone. */
static void *late_main(void *nothing) {
    pthread_barrier_wait(&barrier);
    clock_sleep_us(50000);
    grow();
    return nothing;
}
static void late_part(void) {
    pthread_t thread;
    CHECK(pthread_barrier_init(&barrier, NULL, 2) == 0);
    CHECK(pthread_create(&thread, NULL, late_main, NULL) == 0);
    CHECK(pthread_detach(thread) == 0);
    pthread_barrier_wait(&barrier);
    pthread_exit(NULL);
}
static void late(void) { expect_status("late-part", 0); }

/* Without libc: no destructor tells anybody. The keeper finds out by itself while others work, and does not wait for that thread. */
static void raw_part(void) {
    grow();
    start_worker(300);
    syscall(SYS_exit, 0);
}
static void raw(void) {
    void *list;
    size_t length;
    if (syscall(SYS_get_robust_list, 0, &list, &length) != 0)
        scene_skip("nobody notices such an end here: no robust mutexes");
    expect_status("raw-part", 0);
}

/* --- what runs at the end ------------------------------------------------------------------------------------------------- */

#ifndef TIDE_TEST_STACK_BYTES
#define TIDE_TEST_STACK_BYTES (1024 * 1024)
#endif
enum { END_STATUS = 23, DEEP_BYTES = TIDE_TEST_STACK_BYTES / 2 };

static __attribute__((noinline)) void use_stack(void) {
    volatile char deep[DEEP_BYTES];
    for (size_t i = 0; i < sizeof deep; i += 1024) deep[i] = 1;
}

/* The last thread calls exit(): its handlers are the program's code, and find the stack and the signal mask of a thread of the program. */
static void at_end(void) {
    use_stack();
    char name[64];
    CHECK(task_text(gettid(), "comm", name, sizeof name));
    CHECKF(strcmp(name, "tide-keeper\n") != 0, "exit() runs in %s", "the keeper");
    sigset_t mask;
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &mask) == 0);
    CHECK(sigismember(&mask, SIGTERM) == 0);
    burst_fill(&burst, BURST_MIXED, WATER_MIB);
    burst_free(&burst);
    _exit(END_STATUS);
}
static void handlers_part(void) {
    CHECK(atexit(at_end) == 0);
    grow();
    start_worker(100);
    pthread_exit(NULL);
}
static void handlers(void) { expect_status("handlers-part", END_STATUS); }

static void handlers_alone_part(void) {
    CHECK(atexit(at_end) == 0);
    grow();
    pthread_exit(NULL);
}
static void handlers_alone(void) { expect_status("handlers-alone-part", END_STATUS); }

/* --- the usual ends --------------------------------------------------------------------------------------------------------- */

static void exit_part(void) {
    grow();
    burst_fill(&burst, BURST_MIXED, 12 * WATER_MIB);
    exit(7);
}
static void exit_in_the_middle(void) {
    for (unsigned i = 0; i < 5; i++) expect_status("exit-part", 7);
}

static void *exit_main(void *nothing) {
    (void)nothing;
    grow();
    exit(8);
}
static void exit_thread_part(void) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, exit_main, NULL) == 0);
    for (;;) pause();
}
static void exit_in_a_thread(void) { expect_status("exit-thread-part", 8); }

/* exec ends all other threads; the new program starts afresh. */
static void exec_part(void) {
    grow();
    if (scene_rounds > 0) {
        char *arguments[] = {(char *)(uintptr_t) "end", (char *)(uintptr_t) "fresh-part", NULL};
        again_t again = process_again("/proc/self/exe", arguments);
        execv(again.path, again.words);
    }
    _exit(126);
}
static void fresh_part(void) {
    task_expect_count(1);
    grow();
    _exit(9);
}
static void exec_in_the_middle(void) { expect_status("exec-part", 9); }

/* The main thread's end is noticed, and its heap is emptied, while workers go on; memory still comes back. */
static void ebb_without_main_thread_part(void);
static size_t baseline;
static void *last_main(void *main_thread) {
    CHECK(pthread_join(*(pthread_t *)main_thread, NULL) == 0);
    for (unsigned round = 0; round < 2; round++) {
        grow();
        water_expect_baseline(baseline, "without a main thread");
    }
    return NULL;
}
static void ebb_without_main_thread_part(void) {
    static pthread_t own, last;
    own = pthread_self();
    burst_make(&burst, BURST_MIXED, 12 * WATER_MIB, 1);
    baseline = water_level();
    grow();
    CHECK(pthread_create(&last, NULL, last_main, &own) == 0);
    CHECK(pthread_detach(last) == 0);
    pthread_exit(NULL);
}
static void ebb_without_main_thread(void) { expect_status("ebb-without-main-thread-part", 0); }

static const scene_t scenes[] = {
    {.name = "workers", .run = workers},
    {.name = "workers-part", .run = workers_part, .part = true},
    {.name = "alone", .run = alone},
    {.name = "alone-part", .run = alone_part, .part = true},
    {.name = "alone-still", .run = alone_still},
    {.name = "alone-still-part", .run = alone_still_part, .part = true},
    {.name = "idle", .run = idle},
    {.name = "idle-part", .run = idle_part, .part = true},
    {.name = "with-blocks", .run = with_blocks},
    {.name = "with-blocks-part", .run = with_blocks_part, .part = true},
    {.name = "late", .run = late},
    {.name = "late-part", .run = late_part, .part = true},
    {.name = "raw", .run = raw},
    {.name = "raw-part", .run = raw_part, .part = true},
    {.name = "handlers", .run = handlers},
    {.name = "handlers-part", .run = handlers_part, .part = true},
    {.name = "handlers-alone", .run = handlers_alone},
    {.name = "handlers-alone-part", .run = handlers_alone_part, .part = true},
    {.name = "exit", .run = exit_in_the_middle},
    {.name = "exit-part", .run = exit_part, .part = true},
    {.name = "exit-in-a-thread", .run = exit_in_a_thread},
    {.name = "exit-thread-part", .run = exit_thread_part, .part = true},
    {.name = "exec", .run = exec_in_the_middle},
    {.name = "exec-part", .run = exec_part, .part = true},
    {.name = "fresh-part", .run = fresh_part, .part = true},
    {.name = "ebb-without-main-thread", .run = ebb_without_main_thread},
    {.name = "ebb-without-main-thread-part", .run = ebb_without_main_thread_part, .part = true},
};

int main(int argc, char **argv) { return SCENE_MAIN(argc, argv, scenes); }
