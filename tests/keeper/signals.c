/* signals.c - the keeper's thread and signals: it handles none of the program's, and all of libc's own. */
#define _GNU_SOURCE 1
#include <errno.h>
#include <grp.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "burst.h"
#include "check.h"
#include "scene.h"
#include "subject.h"
#include "water.h"

/* libc uses two to cancel threads and to change their user. */
#ifndef TIDE_TEST_LIBC_LAST_SIGNAL
#define TIDE_TEST_LIBC_LAST_SIGNAL 33
#endif
enum { LIBC_FIRST = 32, LIBC_LAST = TIDE_TEST_LIBC_LAST_SIGNAL, SIGNALS = 64, STRANGER = 54321 };

static burst_t burst;
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

/* --- what it blocks ---------------------------------------------------------------------------------------------------- */

static bool is_in(uint64_t mask, int signal_number) { return (mask >> (signal_number - 1) & 1) != 0; }

static void check_masks(pid_t keeper) {
    uint64_t blocked = task_number(keeper, "status", "SigBlk:", 16);
    CHECK(blocked != UINT64_MAX);
    for (int number = 1; number <= SIGNALS; number++) {
        if (number == SIGKILL || number == SIGSTOP) continue;
        bool of_libc = number >= LIBC_FIRST && number <= LIBC_LAST;
        CHECKF(is_in(blocked, number) == !of_libc, "signal %d, mask %llx", number, (unsigned long long)blocked);
    }
}

static void blocked(void) {
    sigset_t before, after;
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &before) == 0);
    pid_t keeper = grow();
    check_masks(keeper);
    /* Ours are as they were. */
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &after) == 0);
    for (int number = 1; number <= SIGNALS; number++)
        CHECKF(sigismember(&before, number) == sigismember(&after, number), "signal %d", number);
}

/* --- whose they are ------------------------------------------------------------------------------------------------------ */

static atomic_int handled, handled_elsewhere;
static pid_t main_task;

static void note_task(int number) {
    (void)number;
    atomic_fetch_add(&handled, 1);
    if (gettid() != main_task) atomic_fetch_add(&handled_elsewhere, 1);
}

static void of_process(void) {
    static const int numbers[] = {SIGHUP,  SIGINT, SIGTERM,  SIGUSR1, SIGUSR2, SIGALRM,
                                  SIGCHLD, SIGURG, SIGWINCH, 40,      64};
    enum { COUNT = sizeof numbers / sizeof *numbers };
    main_task = gettid();
    sigset_t set;
    sigemptyset(&set);
    struct sigaction action = {.sa_handler = note_task};
    for (int i = 0; i < COUNT; i++) {
        sigaddset(&set, numbers[i]);
        CHECK(sigaction(numbers[i], &action, NULL) == 0);
    }
    pid_t keeper = grow();
    /* Nobody but the keeper could take them now. */
    CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    for (int i = 0; i < COUNT; i++) CHECK(kill(getpid(), numbers[i]) == 0);
    clock_sleep_us(200000);
    ebb("with signals pending");
    CHECKF(atomic_load(&handled) == 0, "%d signals handled while all was blocked", atomic_load(&handled));
    CHECK(pthread_sigmask(SIG_UNBLOCK, &set, NULL) == 0);
    CHECKF(atomic_load(&handled) == COUNT, "%d signals of %d", atomic_load(&handled), (int)COUNT);
    for (int i = 0; i < 2000; i++) CHECK(kill(getpid(), numbers[i % COUNT]) == 0);
    CHECK(atomic_load(&handled_elsewhere) == 0);
    CHECK(keeper_task() == keeper);
    ebb("after the signals");
}

/* The default of SIGTERM ends the process, whoever it is that waits. */
static void termination_part(void) {
    grow();
    char byte = 1;
    CHECK(write(STDERR_FILENO, &byte, 1) == 1);
    for (;;) pause();
}
static void termination(void) {
    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t child = scene_start("termination-part", NULL, ends[1], NULL);
    char byte;
    CHECK(read(ends[0], &byte, 1) == 1 && byte == 1);
    CHECK(kill(child, SIGTERM) == 0);
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECKF(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM, "wait status 0x%x", (unsigned)status);
}

/* --- users ----------------------------------------------------------------------------------------------------------------- */

static void check_users(uid_t user, gid_t group) {
    pid_t tasks[16];
    size_t count = task_list(tasks, 16);
    CHECK(count >= 2);
    for (size_t i = 0; i < count; i++) {
        CHECKF(task_number(tasks[i], "status", "Uid:", 10) == user, "task %d", (int)tasks[i]);
        CHECKF(task_number(tasks[i], "status", "Gid:", 10) == group, "task %d", (int)tasks[i]);
    }
}

/* libc changes all threads, by a signal to each: the keeper must answer, asleep or awake. */
static void users(void) {
    pid_t keeper = grow();
    CHECK(setgid(getgid()) == 0 && setuid(getuid()) == 0);
    check_users(getuid(), getgid());
    keeper_expect_still(keeper);
    CHECK(setgid(getgid()) == 0 && setuid(getuid()) == 0);
    for (unsigned i = 0; i < 200; i++) {
        if (i % 20 == 0) {
            burst_fill(&burst, BURST_MIXED, WATER_MIB);
            burst_free(&burst);
        }
        CHECK(setresgid(getgid(), getgid(), getgid()) == 0);
        CHECK(setresuid(getuid(), getuid(), getuid()) == 0);
        clock_sleep_us(500);
    }
    ebb("as the same user");
    if (geteuid() != 0) return;
    CHECK(setgroups(0, NULL) == 0);
    CHECK(setgid(STRANGER) == 0 && setuid(STRANGER) == 0);
    CHECK(keeper_task() == keeper);
    check_users(STRANGER, STRANGER);
    CHECK(setuid(STRANGER) == 0 && setgid(STRANGER) == 0);
    ebb("as another user");
}

/* --- handlers that allocate -------------------------------------------------------------------------------------------------- */

enum { HANDLER_RECORDS = 8, WORKERS = 3 };
static atomic_int storm_stop;
static atomic_uint handler_calls;
static _Thread_local shadow_t *handler_records;
static _Thread_local uint64_t handler_random;
static _Thread_local volatile sig_atomic_t handler_depth;
static pthread_t workers[WORKERS];

static void allocate_in_handler(int number) {
    (void)number;
    int saved = errno;
    if (handler_records != NULL && handler_depth++ == 0) {
        shadow_refusal_allowed = 1;
        for (unsigned i = 0; i < 3; i++)
            shadow_step(&handler_records[random_below(&handler_random, HANDLER_RECORDS)], &handler_random, 20000);
        shadow_refusal_allowed = 0;
        handler_depth--;
    }
    atomic_fetch_add(&handler_calls, 1);
    errno = saved;
}

static void *storm_main(void *argument) {
    size_t index = (size_t)(uintptr_t)argument;
    static _Thread_local burst_t own;
    burst_make(&own, BURST_MIXED, WATER_MIB, index);
    shadow_t *records = shadow_table_make(HANDLER_RECORDS);
    handler_random = index;
    atomic_signal_fence(memory_order_seq_cst);
    handler_records = records;
    uint64_t random = index;
    while (!atomic_load(&storm_stop)) {
        burst_fill(&own, BURST_MIXED, WATER_MIB);
        burst_thin(&own, 9);
        /* Sometimes long enough to be marked, and to be taken. */
        struct timespec nap = {0, (long)random_below(&random, 40) * 1000000};
        nanosleep(&nap, NULL);
        burst_free(&own);
    }
    sigset_t all;
    sigfillset(&all);
    CHECK(pthread_sigmask(SIG_SETMASK, &all, NULL) == 0);
    for (size_t i = 0; i < HANDLER_RECORDS; i++) shadow_free(&records[i], &random);
    return NULL;
}

static void *flush_main(void *nothing) {
    sigset_t all;
    sigfillset(&all);
    CHECK(pthread_sigmask(SIG_SETMASK, &all, NULL) == 0);
    while (!atomic_load(&storm_stop)) subject.release_all(NULL);
    return nothing;
}

static void storm(void) {
    grow();
    struct sigaction action = {.sa_handler = allocate_in_handler, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0 && sigaction(SIGALRM, &action, NULL) == 0);
    for (size_t i = 0; i < WORKERS; i++)
        CHECK(pthread_create(&workers[i], NULL, storm_main, (void *)(uintptr_t)(i + 1)) == 0);
    pthread_t flusher;
    CHECK(pthread_create(&flusher, NULL, flush_main, NULL) == 0);
    struct itimerval timer = {{0, 700}, {0, 700}};
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
    uint64_t random = 9, until = clock_now_ns() + scene_rounds * 1500000000u;
    while (clock_now_ns() < until) {
        CHECK(pthread_kill(workers[random_below(&random, WORKERS)], SIGUSR1) == 0);
        clock_sleep_us((unsigned)random_below(&random, 400));
    }
    timer = (struct itimerval){0};
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
    atomic_store(&storm_stop, 1);
    for (size_t i = 0; i < WORKERS; i++) CHECK(pthread_join(workers[i], NULL) == 0);
    CHECK(pthread_join(flusher, NULL) == 0);
    CHECK(atomic_load(&handler_calls) > 100);
    tide_stats stats = subject_stats();
    CHECK(stats.nested_count > 0 && stats.claim_mark_count > 0);
    ebb("after the storm");
}

/* The program grows in a handler: the keeper's thread begins there, or later, but the program goes on. */
static volatile sig_atomic_t grown_in_handler;
static void grow_in_handler(int number) {
    (void)number;
    if (grown_in_handler) return;
    burst_fill(&burst, BURST_MIXED, 8 * WATER_MIB);
    grown_in_handler = 1;
}
static void grown_in_a_handler(void) {
    burst_make(&burst, BURST_MIXED, 12 * WATER_MIB, 1);
    struct sigaction action = {.sa_handler = grow_in_handler};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    baseline = water_level();
    CHECK(raise(SIGUSR1) == 0);
    CHECK(grown_in_handler == 1);
    burst_verify(&burst);
    burst_free(&burst);
    ebb("after growth in a handler");
    check_masks(keeper_expect());
}

/* The program grows, and a handler jumps out of that again and again: the keeper's thread begins all the same, and other threads go on. */
enum { GROWTHS = 60, GROWN_BLOCKS = 16, GROWN_BYTES = 300 * WATER_KIB };
static sigjmp_buf out_of_growth;
static volatile sig_atomic_t may_jump;
static void jump_out(int number) {
    (void)number;
    if (!may_jump) return;
    may_jump = 0;
    siglongjmp(out_of_growth, 1);
}

static void *work_beside(void *unused) {
    burst_t own;
    (void)unused;
    burst_make(&own, BURST_MIXED, 4 * WATER_MIB, 2);
    burst_fill(&own, BURST_MIXED, 4 * WATER_MIB);
    burst_verify(&own);
    burst_free(&own);
    return NULL;
}

static void grow_and_jump(unsigned microseconds) {
    struct sigaction action = {.sa_handler = jump_out};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    struct itimerval timer = {{0, microseconds}, {0, microseconds}};
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
    volatile unsigned blocks = 0;
    (void)sigsetjmp(out_of_growth, 1);
    while (blocks < GROWN_BLOCKS) {
        blocks = blocks + 1;
        may_jump = 1;
        char *block = malloc(GROWN_BYTES);
        may_jump = 0;
        CHECK(block != NULL);
        memset(block, 1, GROWN_BYTES);
    }
    timer = (struct itimerval){0};
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
    free(malloc(1)); /* what the last jump has left is found by the thread's next operation */
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, work_beside, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    keeper_expect();
}

static void jumps_out_of_growth(void) {
    for (unsigned round = 0; round < GROWTHS * scene_rounds; round++) {
        pid_t child = fork();
        if (child == 0) {
            grow_and_jump(30 + round);
            _exit(0);
        }
        process_expect_success(child, "growth with jumps");
    }
}

static const scene_t scenes[] = {
    {.name = "blocked", .run = blocked},
    {.name = "of-process", .run = of_process},
    {.name = "termination", .run = termination},
    {.name = "termination-part", .run = termination_part, .part = true},
    {.name = "users", .run = users},
    {.name = "storm", .run = storm},
    {.name = "grown-in-a-handler", .run = grown_in_a_handler},
    {.name = "jumps-out-of-growth", .run = jumps_out_of_growth},
};

int main(int argc, char **argv) { return SCENE_MAIN(argc, argv, scenes); }
