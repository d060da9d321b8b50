/* work.c - what runs while system calls fail (fault.c): all that makes the library call the system, with the content
 * of every block checked. An allocation may be refused, with ENOMEM; nothing else may go wrong, and what was lost
 * meanwhile is not lost for good.
 *
 * argv: seed, rounds, threads. The last line on stdout is `refused N claims N keeper N`. Status 3: no memory from
 * the start. */
#define _GNU_SOURCE 1
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "keeper/window.h"
#include "shadow.h"
#include "subject.h"

enum { RECORDS_EACH = 300, PLACES = 128, THREADS_MOST = 16, STEPS = 1500, NOTHING_TO_WORK_WITH = 3 };
#define MIB ((size_t)1 << 20)

static shadow_t *table;
static atomic_uint exchange[PLACES];
static unsigned owned[THREADS_MOST][RECORDS_EACH];
static uint64_t seed;

static void *worker_main(void *argument) {
    unsigned *mine = argument;
    uint64_t random = seed * 1000003 + (uint64_t)(mine - &owned[0][0]);
    shadow_refusal_allowed = SHADOW_REFUSE_ANY;
    size_t largest = random_below(&random, 2) == 0 ? 40000 : 2 * MIB;
    for (int i = 0; i < STEPS; i++) {
        unsigned *slot = &mine[random_below(&random, RECORDS_EACH)];
        if (random_below(&random, 4) == 0) *slot = atomic_exchange(&exchange[random_below(&random, PLACES)], *slot);
        shadow_step(&table[*slot], &random, largest);
        if (i % 500 == 499) clock_sleep_us(12000); /* long enough to be claimed */
    }
    return NULL;
}

static void work_in_threads(size_t threads) {
    pthread_t handles[THREADS_MOST];
    bool started[THREADS_MOST];
    for (size_t t = 0; t < threads; t++) {
        /* libc allocates for a thread, too. */
        int error = pthread_create(&handles[t], NULL, worker_main, owned[t]);
        CHECKF(error == 0 || error == ENOMEM || error == EAGAIN, "pthread_create: %d", error);
        started[t] = error == 0;
        if (!started[t]) worker_main(owned[t]);
    }
    for (size_t t = 0; t < threads; t++)
        if (started[t]) CHECK(pthread_join(handles[t], NULL) == 0);
}

/* A block grows to 16 MiB and moves; its first and last words come along. */
static void grow(void) {
    size_t bytes = 100000;
    uint64_t *block = malloc(bytes);
    if (block == NULL) return;
    block[0] = seed;
    block[bytes / 8 - 1] = ~seed;
    while (bytes < 16 * MIB) {
        size_t more = bytes + bytes / 2;
        uint64_t *next = realloc(block, more);
        if (next == NULL) {
            CHECK(errno == ENOMEM);
            break;
        }
        block = next;
        CHECK(block[0] == seed && block[bytes / 8 - 1] == ~seed);
        bytes = more;
        block[bytes / 8 - 1] = ~seed;
        free(malloc(70000)); /* the next place behind it is often taken */
    }
    CHECK(block[0] == seed);
    free(block);
}

static void child_main(size_t records) {
    uint64_t random = seed + 77;
    shadow_table_verify(table, records);
    for (size_t i = 0; i < records; i += 2) shadow_step(&table[i], &random, 100000);
    for (size_t i = 0; i < records; i++) shadow_free(&table[i], &random);
    malloc_trim(0);
    _exit(0);
}

static void fork_and_wait(size_t records) {
    pid_t child = fork();
    if (child == 0) child_main(records);
    process_expect_success(child, "fork");
}

/* Ask the keeper through its window, as `tide stat` does from outside. It may have none, and it may be unable to
 * answer. */
static void ask(void) {
    char path[80], target[128];
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *task; tasks != NULL && (task = readdir(tasks)) != NULL;)
        for (int number = 3; number < 20; number++) {
            snprintf(path, sizeof path, "/proc/self/task/%.20s/fd/%d", task->d_name, number);
            ssize_t length = readlink(path, target, sizeof target - 1);
            target[length < 0 ? 0 : length] = 0;
            int file = strstr(target, WINDOW_NAME) != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
            struct window_page *page =
                file < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
            if (file >= 0) close(file);
            if (page == MAP_FAILED) continue;
            page->command = WINDOW_STATS;
            atomic_fetch_add(&page->asked, 1);
            atomic_fetch_add(&page->wake, 1);
            syscall(SYS_futex, &page->wake, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
            for (int i = 0; i < 50 && atomic_load(&page->answered) != atomic_load(&page->asked); i++)
                clock_sleep_us(1000);
            munmap(page, 4096);
        }
    if (tasks != NULL) closedir(tasks);
}

/* One that the program blocks stays so, whatever the library does to the mask meanwhile. */
static void signal_block(void) {
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR2);
    CHECK(pthread_sigmask(SIG_BLOCK, &blocked, NULL) == 0);
}

static void signal_check(void) {
    sigset_t now;
    CHECK(pthread_sigmask(SIG_BLOCK, NULL, &now) == 0);
    CHECK(sigismember(&now, SIGUSR2) == 1);
}

int main(int argc, char **argv) {
    void *first = malloc(1);
    if (first == NULL) return errno == ENOMEM ? NOTHING_TO_WORK_WITH : 1;
    free(first);
    subject_require();
    signal_block();
    shadow_refusal_allowed = SHADOW_REFUSE_ANY;
    seed = argument_number(argc, argv, 1, 1);
    uint64_t rounds = argument_number(argc, argv, 2, 3);
    size_t threads = argument_number(argc, argv, 3, 4);
    CHECK(threads >= 1 && threads <= THREADS_MOST);
    size_t records = threads * RECORDS_EACH + PLACES;
    table = shadow_table_make(records);
    for (size_t t = 0; t < threads; t++)
        for (size_t i = 0; i < RECORDS_EACH; i++) owned[t][i] = (unsigned)(t * RECORDS_EACH + i);
    for (size_t i = 0; i < PLACES; i++) atomic_init(&exchange[i], (unsigned)(threads * RECORDS_EACH + i));
    uint64_t random = seed, before = subject_stats().allocated_bytes;
    for (uint64_t round = 0; round < rounds; round++, seed++) {
        work_in_threads(threads);
        shadow_table_verify(table, records);
        grow();
        fork_and_wait(records);
        /* Two of three go, here and there: spans with survivors are punched while nobody works. */
        for (size_t i = 0; i < records; i++)
            if (random_below(&random, 3) != 0) shadow_free(&table[i], &random);
        ask();
        clock_sleep_us(80000);
        shadow_table_verify(table, records);
        for (int i = 0; i < 12; i++) {
            subject_release_all();
            signal_check();
        }
    }
    for (size_t i = 0; i < records; i++) shadow_free(&table[i], &random);
    subject_release_all();
    tide_stats stats = subject_stats();
    /* As in random_blocks: what libc keeps for threads that have ended. */
    CHECKF(stats.allocated_bytes <= before + threads * 4096 + 65536, "%llu bytes are lost",
           (unsigned long long)(stats.allocated_bytes - before));
    char line[200];
    int length = snprintf(line, sizeof line, "refused %llu claims %llu keeper %llu\n",
                          (unsigned long long)atomic_load(&shadow_refusals), (unsigned long long)stats.claim_possible,
                          (unsigned long long)stats.keeper_running);
    CHECK(write(STDOUT_FILENO, line, (size_t)length) == length);
    return 0;
}
