#define _GNU_SOURCE 1
#include "water.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check.h"
#include "subject.h"

enum { PATH_BYTES = 128, TEXT_BYTES = 8192, TASKS_MOST = 512 };

/* --- files --------------------------------------------------------------------------------------------------------- */

static void task_path(char path[PATH_BYTES], pid_t task, const char *file) {
    if (task == 0)
        snprintf(path, PATH_BYTES, "/proc/self/%s", file);
    else
        snprintf(path, PATH_BYTES, "/proc/self/task/%d/%s", (int)task, file);
}

bool task_text(pid_t task, const char *file, char *text, size_t size) {
    char path[PATH_BYTES];
    task_path(path, task, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    size_t length = 0;
    for (ssize_t got; length < size - 1 && (got = read(fd, text + length, size - 1 - length)) > 0;)
        length += (size_t)got;
    close(fd);
    text[length] = 0;
    return length > 0;
}

bool task_link(pid_t task, const char *file, char *target, size_t size) {
    char path[PATH_BYTES];
    task_path(path, task, file);
    ssize_t length = readlink(path, target, size - 1);
    if (length < 0) return false;
    target[length] = 0;
    return true;
}

uint64_t task_number(pid_t task, const char *file, const char *field, int base) {
    char text[TEXT_BYTES];
    if (!task_text(task, file, text, sizeof text)) return UINT64_MAX;
    const char *at = text;
    if (field[0] != 0) {
        do {
            at = strstr(at, field);
            if (at == NULL) return UINT64_MAX;
            at += strlen(field);
        } while (at - strlen(field) != text && *(at - strlen(field) - 1) != '\n');
    }
    char *end = NULL;
    uint64_t number = strtoull(at, &end, base);
    return end != at ? number : UINT64_MAX;
}

size_t task_list(pid_t *tasks, size_t size) {
    struct entry { /* linux_dirent64 */
        uint64_t inode;
        int64_t offset;
        uint16_t length;
        uint8_t type;
        char name[];
    };
    _Alignas(8) char buffer[4096];
    size_t count = 0;
    int fd = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(fd >= 0);
    for (long got; (got = syscall(SYS_getdents64, fd, buffer, sizeof buffer)) > 0;)
        for (long at = 0; at < got;) {
            const struct entry *entry = (const struct entry *)(const void *)(buffer + at);
            at += entry->length;
            if (entry->name[0] != '.' && count < size) tasks[count++] = (pid_t)atoi(entry->name);
        }
    close(fd);
    return count;
}

/* --- the level ----------------------------------------------------------------------------------------------------- */

size_t water_level(void) {
    /* Of the calling thread: the first one may be gone. */
    uint64_t kib = task_number(gettid(), "smaps_rollup", "Rss:", 10);
    CHECK(kib != UINT64_MAX);
    return (size_t)kib * WATER_KIB;
}

static void too_high(size_t level, size_t limit, const char *what) {
    tide_stats now = subject_stats();
    check_die(
        "%s: still %zu KiB resident, %zu KiB too much. keeper %d, state of the library: live %llu KiB, retained %llu "
        "KiB, metadata %llu KiB, returned %llu KiB, flushes %llu, holds %llu, claims %llu, threads %llu",
        what, level / WATER_KIB, (level - limit) / WATER_KIB, (int)keeper_task(),
        (unsigned long long)now.allocated_bytes / WATER_KIB, (unsigned long long)now.retained_bytes / WATER_KIB,
        (unsigned long long)now.metadata_bytes / WATER_KIB, (unsigned long long)now.returned_bytes / WATER_KIB,
        (unsigned long long)now.flush_count, (unsigned long long)now.hold_count, (unsigned long long)now.claim_possible,
        (unsigned long long)now.thread_count);
}

void water_expect_ebb(size_t limit, const char *what) {
    uint64_t until = clock_now_ns() + WATER_PATIENCE_NS;
    while (WATER_IS_CLEAR) {
        size_t level = water_level();
        if (level <= limit) return;
        if (clock_now_ns() > until) too_high(level, limit, what);
        clock_sleep_us(5000);
    }
    clock_sleep_us(200000);
}

void water_expect_baseline(size_t baseline, const char *what) { water_expect_ebb(baseline + WATER_SLACK_BYTES, what); }

void water_expect_none(size_t limit, unsigned milliseconds, const char *what) {
    uint64_t until = clock_now_ns() + milliseconds * UINT64_C(1000000);
    while (clock_now_ns() < until) {
        size_t level = water_level();
        if (WATER_IS_CLEAR) CHECKF(level >= limit, "%s: only %zu KiB left", what, level / WATER_KIB);
        clock_sleep_us(20000);
    }
}

/* --- threads ------------------------------------------------------------------------------------------------------- */

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define HAS_FOREIGN_THREAD 1
#endif
#endif
#ifndef HAS_FOREIGN_THREAD
#define HAS_FOREIGN_THREAD 0
#endif

/* Those of an emulator are there from the start, before anything of the program's own. */
static size_t foreign_threads;
__attribute__((constructor(101))) static void count_foreign_threads(void) {
    foreign_threads = process_task_count() - 1 - (keeper_task() != 0); /* a program may have grown before */
}

void task_expect_count(size_t count) {
    size_t threads = process_task_count();
    count += foreign_threads;
    CHECKF(threads == count || (HAS_FOREIGN_THREAD && threads == count + 1), "%zu threads, expected %zu", threads,
           count);
}

uint64_t task_switches(pid_t task) {
    uint64_t voluntary = task_number(task, "status", "voluntary_ctxt_switches:", 10);
    uint64_t forced = task_number(task, "status", "nonvoluntary_ctxt_switches:", 10);
    CHECKF(voluntary != UINT64_MAX && forced != UINT64_MAX, "task %d is gone", (int)task);
    return voluntary + forced;
}

uint64_t task_cpu_ns(pid_t task) {
    uint64_t ns = task_number(task, "schedstat", "", 10);
    CHECKF(ns != UINT64_MAX, "task %d is gone", (int)task);
    return ns;
}

pid_t keeper_task(void) {
    pid_t tasks[TASKS_MOST], keeper = 0;
    size_t count = task_list(tasks, TASKS_MOST);
    for (size_t i = 0; i < count; i++) {
        char name[64];
        if (!task_text(tasks[i], "comm", name, sizeof name) || strcmp(name, "tide-keeper\n") != 0) continue;
        CHECKF(keeper == 0, "two keepers: tasks %d and %d", (int)keeper, (int)tasks[i]);
        keeper = tasks[i];
    }
    return keeper;
}

pid_t keeper_expect(void) {
    uint64_t until = clock_now_ns() + WATER_PATIENCE_NS;
    for (;;) {
        pid_t keeper = keeper_task();
        if (keeper != 0) return keeper;
        CHECKF(clock_now_ns() < until, "no keeper, %zu threads", process_task_count());
        clock_sleep_us(1000);
    }
}

void keeper_expect_none(size_t threads, unsigned milliseconds) {
    uint64_t until = clock_now_ns() + milliseconds * UINT64_C(1000000);
    do {
        CHECK(keeper_task() == 0);
        task_expect_count(threads);
        clock_sleep_us(2000);
    } while (clock_now_ns() < until);
    CHECK(subject_stats().keeper_running == 0);
}

/* Not one that would like to run, and gets no processor. */
static bool is_asleep(pid_t task) {
    char text[TEXT_BYTES];
    return task_text(task, "status", text, sizeof text) && strstr(text, "\nState:\tS") != NULL;
}

uint64_t keeper_expect_still(pid_t keeper) {
    uint64_t until = clock_now_ns() + WATER_PATIENCE_NS, seen = task_switches(keeper), since = clock_now_ns();
    for (;;) {
        clock_sleep_us(20000);
        uint64_t now = task_switches(keeper);
        if (now != seen || !is_asleep(keeper)) since = clock_now_ns();
        seen = now;
        if (clock_now_ns() - since >= 300000000u) return now;
        CHECKF(clock_now_ns() < until, "the keeper goes on: %llu context switches", (unsigned long long)now);
    }
}

uint64_t (*subject_tick(void))(void) {
#if defined(TIDE_TEST_STATIC) || defined(TIDE_PREFIXED)
    return tide_tick;
#else
    void *symbol = dlsym(RTLD_DEFAULT, "tide_tick");
    uint64_t (*tick)(void) = NULL;
    memcpy(&tick, &symbol, sizeof tick);
    return tick;
#endif
}
