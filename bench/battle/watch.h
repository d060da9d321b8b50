/* watch.h - how the battle program watches itself: memory, CPU time, context switches, threads.
 *
 * Watching must not look like work to the allocator: nothing here allocates. Files of /proc are read with open, read
 * and close into static buffers, and what is found stays in static arrays until the end.
 */
#ifndef TIDE_BATTLE_WATCH_H
#define TIDE_BATTLE_WATCH_H

#include "../programs/common.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define WATCH_MS ((uint64_t)1000000)

enum { WATCH_MAX_THREADS = 512, WATCH_MAX_SAMPLES = 32 };

/* Memory as smaps_rollup counts it (exact: it walks the page tables). `others` is every thread but the caller. */
typedef struct sample {
    uint64_t planned_ms, at_ns; /* since the last free */
    uint64_t rss_kib, dirty_kib, huge_kib, lazy_kib;
    uint64_t others_cpu_ns, others_switches;
    uint64_t threads;
} sample;

typedef struct thread_state {
    int tid;
    bool ours;
    char name[16];
    uint64_t switches, cpu_ns, waited_ns;
} thread_state;

/* Every thread but the caller at one moment. */
typedef struct census {
    size_t count;
    uint64_t switches; /* of the others, those that have ended included */
    thread_state threads[WATCH_MAX_THREADS];
} census;

static uint64_t clock_read_ns(clockid_t clock) {
    struct timespec t;
    if (clock_gettime(clock, &t) != 0) return 0;
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t now_ns(void) { return clock_read_ns(CLOCK_MONOTONIC); }
static uint64_t process_cpu_ns(void) { return clock_read_ns(CLOCK_PROCESS_CPUTIME_ID); }

/* The CPU clock of one thread of this process, as pthread_getcpuclockid makes it from a pthread_t. */
static uint64_t thread_cpu_ns(int tid) { return clock_read_ns((clockid_t)(~(uint32_t)tid << 3 | 6)); }

static void sleep_until(uint64_t at_ns) {
    struct timespec t = {.tv_sec = (time_t)(at_ns / 1000000000u), .tv_nsec = (long)(at_ns % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) continue;
}

/* The text of a small file, or "" when there is none (a thread that has ended). It is good until the next call. */
static const char *file_text(const char *path) {
    static char text[16384];
    size_t length = 0;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        ssize_t more;
        while ((more = read(file, text + length, sizeof text - 1 - length)) > 0) length += (size_t)more;
        close(file);
    }
    text[length] = '\0';
    return text;
}

/* The number that follows `name`, which stands at the start of a line. */
static uint64_t field(const char *text, const char *name) {
    size_t length = strlen(name);
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, length) == 0) return strtoull(line + length, NULL, 10);
        if (*line == '\0') break;
    }
    return 0;
}

static uint64_t switches_of(int who) {
    struct rusage used;
    if (getrusage(who, &used) != 0) die("getrusage");
    return (uint64_t)used.ru_nvcsw + (uint64_t)used.ru_nivcsw;
}

/* Switches of all threads but the caller; read again when the caller itself was switched in between. */
static uint64_t others_switches(void) {
    uint64_t own, all;
    do {
        own = switches_of(RUSAGE_THREAD);
        all = switches_of(RUSAGE_SELF);
    } while (own != switches_of(RUSAGE_THREAD));
    return all - own;
}

static sample sample_take(uint64_t planned_ms, uint64_t since_ns) {
    sample s = {.planned_ms = planned_ms, .at_ns = now_ns() - since_ns};
    const char *rollup = file_text("/proc/self/smaps_rollup");
    s.rss_kib = field(rollup, "Rss:");
    s.dirty_kib = field(rollup, "Private_Dirty:");
    s.huge_kib = field(rollup, "AnonHugePages:");
    s.lazy_kib = field(rollup, "LazyFree:");
    if (s.rss_kib == 0) die("no /proc/self/smaps_rollup");
    s.threads = field(file_text("/proc/self/status"), "Threads:");
    s.others_switches = others_switches();
    uint64_t own_ns = clock_read_ns(CLOCK_THREAD_CPUTIME_ID), all_ns = process_cpu_ns();
    s.others_cpu_ns = all_ns > own_ns ? all_ns - own_ns : 0;
    return s;
}

static int own_tids[WATCH_MAX_THREADS];
static size_t own_tid_count;

/* The caller says which threads the program made; all others are the allocator's. */
static void thread_is_ours(int tid) {
    if (own_tid_count == WATCH_MAX_THREADS) die("too many threads");
    own_tids[own_tid_count++] = tid;
}

static bool tid_is_ours(int tid) {
    for (size_t i = 0; i < own_tid_count; i++)
        if (own_tids[i] == tid) return true;
    return false;
}

/* The second number of schedstat: how long the thread was ready to run while no core was free. */
static uint64_t thread_waited_ns(int tid) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/schedstat", tid);
    const char *second = strchr(file_text(path), ' ');
    return second != NULL ? strtoull(second, NULL, 10) : 0;
}

static thread_state thread_look(int tid) {
    thread_state t = {
        .tid = tid, .ours = tid_is_ours(tid), .cpu_ns = thread_cpu_ns(tid), .waited_ns = thread_waited_ns(tid)};
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/status", tid);
    const char *text = file_text(path);
    t.switches = field(text, "voluntary_ctxt_switches:") + field(text, "nonvoluntary_ctxt_switches:");
    if (strncmp(text, "Name:\t", 6) == 0)
        for (size_t i = 0; i + 1 < sizeof t.name && text[6 + i] > ' ' && text[6 + i] != '"' && text[6 + i] != '\\'; i++)
            t.name[i] = text[6 + i];
    return t;
}

static void census_take(census *c) {
    static _Alignas(struct dirent64) char entries[16384];
    int self = gettid(), folder = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ssize_t length;
    c->count = 0;
    c->switches = others_switches();
    while (folder >= 0 && (length = getdents64(folder, entries, sizeof entries)) > 0) {
        for (ssize_t at = 0; at < length;) {
            const struct dirent64 *entry = (const struct dirent64 *)(const void *)(entries + at);
            int tid = (int)strtol(entry->d_name, NULL, 10);
            if (tid > 0 && tid != self && c->count < WATCH_MAX_THREADS) c->threads[c->count++] = thread_look(tid);
            at += entry->d_reclen;
        }
    }
    if (folder >= 0) close(folder);
}

/* What a thread of `after` did since `before`: everything, when it is new. */
static thread_state census_since(const census *before, const thread_state *after) {
    thread_state done = *after;
    for (size_t i = 0; i < before->count; i++) {
        if (before->threads[i].tid != after->tid) continue;
        done.switches -= before->threads[i].switches;
        done.cpu_ns -= before->threads[i].cpu_ns;
        done.waited_ns -= before->threads[i].waited_ns;
    }
    return done;
}

/* How long the allocator's threads have waited for a core since `before`. */
static uint64_t census_waited_ns(const census *before, const census *after) {
    uint64_t sum = 0;
    for (size_t i = 0; i < after->count; i++)
        if (!after->threads[i].ours) sum += census_since(before, &after->threads[i]).waited_ns;
    return sum;
}

#endif
