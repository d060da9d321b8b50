/* window.c - the process as `tide` sees it from outside (keeper/window.h): asked through its file, and answering. */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "burst.h"
#include "check.h"
#include "heap/census.h"
#include "keeper/window.h"
#include "scene.h"
#include "subject.h"
#include "water.h"

static burst_t burst;
static struct window_page *page;
static int file = -1;

/* --- the asker's side -------------------------------------------------------------------------------------------------------- */

/* The keeper's file of that name; -1: none. */
static int find_file(pid_t keeper) {
    for (int number = 0; number < 64; number++) {
        char link[64], target[128], path[64];
        snprintf(link, sizeof link, "fd/%d", number);
        if (!task_link(keeper, link, target, sizeof target) || strstr(target, "/memfd:" WINDOW_NAME) == NULL) continue;
        snprintf(path, sizeof path, "/proc/self/task/%d/fd/%d", (int)keeper, number);
        return open(path, O_RDWR | O_CLOEXEC);
    }
    return -1;
}

static void look_in(void) {
    pid_t keeper = keeper_expect();
    uint64_t limit = clock_now_ns() + WATER_PATIENCE_NS;
    while ((file = find_file(keeper)) < 0) {
        CHECKF(clock_now_ns() < limit, "no window: errno %d", errno);
        clock_sleep_us(1000);
    }
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    CHECK(page != MAP_FAILED);
    while (memcmp(page->magic, WINDOW_MAGIC, sizeof page->magic) != 0) {
        CHECK(clock_now_ns() < limit);
        clock_sleep_us(1000);
    }
    CHECK(page->version == WINDOW_VERSION && page->file_bytes == WINDOW_BYTES && page->page_bytes == 4096);
    CHECK(page->process_id == (uint32_t)getpid());
}

static int ask(enum window_command command, uint64_t argument) {
    CHECK(flock(file, LOCK_EX) == 0);
    page->command = command;
    page->argument = argument;
    uint32_t number = atomic_fetch_add(&page->asked, 1) + 1;
    atomic_fetch_add(&page->wake, 1);
    syscall(SYS_futex, &page->wake, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    uint64_t limit = clock_now_ns() + WATER_PATIENCE_NS;
    while (atomic_load(&page->answered) != number) {
        CHECKF(clock_now_ns() < limit, "command %d: no answer", (int)command);
        clock_sleep_us(100);
    }
    int error = page->error;
    CHECK(flock(file, LOCK_UN) == 0);
    return error;
}

static void get(size_t at, void *to, size_t bytes) { CHECK(pread(file, to, bytes, (off_t)at) == (ssize_t)bytes); }

static tide_stats asked_stats(void) {
    tide_stats stats = {0};
    CHECK(ask(WINDOW_STATS, 0) == 0);
    get(WINDOW_STATS_AT, &stats, sizeof stats);
    CHECK(stats.version == TIDE_STATS_VERSION && stats.size == sizeof stats);
    return stats;
}

/* --- scenes ------------------------------------------------------------------------------------------------------------------- */

/* From outside as from inside, in total, by class and by thread. */
static void stats(void) {
    burst_make(&burst, BURST_MIXED, 24 * WATER_MIB, 3);
    burst_fill(&burst, BURST_MIXED, 24 * WATER_MIB);
    look_in();
    tide_stats inside = subject_stats(), outside = asked_stats();
    CHECK(outside.allocated_bytes == inside.allocated_bytes && outside.active_bytes == inside.active_bytes);
    CHECK(outside.tiny_bytes == inside.tiny_bytes && outside.mid_bytes == inside.mid_bytes);
    CHECK(outside.large_bytes == inside.large_bytes && outside.refill_count == inside.refill_count);
    CHECK(outside.thread_count == 1 && outside.keeper_running == 1);

    struct window_table table;
    get(WINDOW_CLASSES_AT, &table, sizeof table);
    CHECK(table.rows == CLASSES && table.row_bytes == sizeof(struct window_class));
    uint64_t live[2] = {0}, refills = 0;
    for (unsigned i = 0; i < table.rows; i++) {
        struct window_class row;
        get(WINDOW_CLASSES_AT + sizeof table + i * sizeof row, &row, sizeof row);
        CHECK(row.block_bytes == class_bytes(i) && row.tier == (i >= TINY_CLASSES) && row.state <= 2);
        live[row.tier] += row.live_blocks * row.block_bytes;
        refills += row.refill_count;
    }
    CHECK(live[0] == outside.tiny_bytes && live[1] == outside.mid_bytes && refills == outside.refill_count);

    get(WINDOW_THREADS_AT, &table, sizeof table);
    CHECK(table.row_bytes == sizeof(struct window_thread) && table.left_out == 0);
    uint64_t live_bytes = 0;
    bool found = false;
    for (unsigned i = 0; i < table.rows; i++) {
        struct window_thread row;
        get(WINDOW_THREADS_AT + sizeof table + i * sizeof row, &row, sizeof row);
        live_bytes += row.live_bytes;
        found |= row.id == (uint64_t)getpid() && row.live_bytes > 0;
    }
    CHECK(found && live_bytes == live[0] + live[1]);
    burst_free(&burst);
}

/* Every block lies on slices of its tier. */
static void slices(void) {
    burst_make(&burst, BURST_MIXED, 24 * WATER_MIB, 5);
    burst_fill(&burst, BURST_MIXED, 24 * WATER_MIB);
    look_in();
    CHECK(ask(WINDOW_SLICES, 0) == 0);
    struct window_slices all;
    get(WINDOW_SLICES_AT, &all, sizeof all);
    CHECK(all.regions == 1 && all.region[0].first == 0 && all.region[0].count >= 24 * WATER_MIB / SLICE_BYTES);
    static uint8_t uses[WINDOW_SLICES_MAX], again[WINDOW_SLICES_MAX];
    get(WINDOW_USES_AT, uses, all.region[0].count);
    for (size_t i = 0; i < burst.count; i++) {
        size_t bytes = burst.records[i].size;
        size_t slice = ((uintptr_t)burst.records[i].p - all.region[0].base) / SLICE_BYTES;
        CHECK(slice < all.region[0].count);
        uint8_t expected = bytes <= TINY_MAX_BYTES ? USE_TINY : bytes <= MID_MAX_BYTES ? USE_MID : USE_LARGE;
        CHECKF(uses[slice] == expected, "%zu bytes on a slice of use %u", bytes, uses[slice]);
    }
    size_t skip = all.region[0].count / 2;
    CHECK(ask(WINDOW_SLICES, skip) == 0);
    get(WINDOW_SLICES_AT, &all, sizeof all);
    CHECK(all.region[0].first == skip && all.region[0].count > 0);
    get(WINDOW_USES_AT, again, all.region[0].count);
    CHECK(memcmp(uses + skip, again, all.region[0].count) == 0);
    CHECK(ask(WINDOW_SLICES, UINT64_MAX) == 0);
    get(WINDOW_SLICES_AT, &all, sizeof all);
    CHECK(all.regions == 0);
    burst_free(&burst);
}

static void flush_on_demand(const char *what) {
    size_t baseline = water_level();
    burst_fill(&burst, BURST_MIXED, 24 * WATER_MIB);
    size_t full = water_level();
    burst_free(&burst);
    look_in();
    if (strcmp(what, "static") == 0) CHECK(water_level() > full - 4 * WATER_MIB || !WATER_IS_CLEAR);
    CHECK(ask(WINDOW_FLUSH, 7) == 0);
    tide_flush_report report;
    get(WINDOW_FLUSH_AT, &report, sizeof report);
    if (strcmp(what, "static") == 0) CHECK(report.returned_bytes > 20 * WATER_MIB || !WATER_IS_CLEAR);
    water_expect_baseline(baseline, what);
}

/* The control mode gives nothing back unasked, and does when asked. */
static void flush_static(void) {
    burst_make(&burst, BURST_MIXED, 24 * WATER_MIB, 4);
    flush_on_demand("static");
    tide_stats stats = subject_stats();
    CHECK(stats.claim_mark_count == 0 && stats.flush_count == 0);
}

static void flush_hybrid(void) {
    burst_make(&burst, BURST_MIXED, 24 * WATER_MIB, 4);
    flush_on_demand("hybrid");
}

static void bad_questions(void) {
    burst_make(&burst, BURST_MIXED, 8 * WATER_MIB, 1);
    burst_fill(&burst, BURST_MIXED, 8 * WATER_MIB);
    look_in();
    CHECK(ask((enum window_command)0, 0) == EINVAL);
    CHECK(ask((enum window_command)77, UINT64_MAX) == EINVAL);
    CHECK(ask(WINDOW_FLUSH, 0) == EINVAL);
    CHECK(ask(WINDOW_FLUSH, 8) == EINVAL);
    CHECK(ask(WINDOW_FLUSH, UINT64_MAX) == EINVAL);
    CHECK(asked_stats().allocated_bytes > 0);
    CHECK(ftruncate(file, 0) != 0 && ftruncate(file, 2 * WINDOW_BYTES) != 0); /* sealed */
    struct stat status;
    CHECK(fstat(file, &status) == 0 && (size_t)status.st_size == WINDOW_BYTES);
    burst_free(&burst);
}

/* Who is looked at does not wake up more than it is asked, does not think that there is work, and wakes no more when nobody asks. */
static void looking_is_no_work(void) {
    burst_make(&burst, BURST_MIXED, 24 * WATER_MIB, 6);
    size_t baseline = water_level();
    burst_fill(&burst, BURST_MIXED, 24 * WATER_MIB);
    burst_free(&burst);
    water_expect_baseline(baseline, "before");
    look_in();
    keeper_expect_still(keeper_expect());
    uint64_t events = atomic_load(&page->event_count);
    CHECK(events > 0);
    const struct window_event *last = &page->events[(events - 1) % WINDOW_EVENTS];
    CHECKF(last->number == events && last->kind == WINDOW_GAVE_ALL, "the last event is of kind %u", last->kind);
    uint64_t wakeups = asked_stats().keeper_wakeup_count;
    enum { QUESTIONS = 20 };
    for (int i = 0; i < QUESTIONS; i++) asked_stats();
    tide_stats after = asked_stats();
    CHECKF(after.keeper_wakeup_count - wakeups == QUESTIONS + 1, "%llu wake-ups for %d questions",
           (unsigned long long)(after.keeper_wakeup_count - wakeups), QUESTIONS + 1);
    CHECK(after.keeper_state == TIDE_KEEPER_STILL);
    keeper_expect_still(keeper_expect());
    CHECK(atomic_load(&page->event_count) == events);
}

/* Nobody has asked: the file has one page and no more. */
static void costs_nothing(void) {
    burst_make(&burst, BURST_MIXED, 24 * WATER_MIB, 6);
    burst_fill(&burst, BURST_MIXED, 24 * WATER_MIB);
    burst_free(&burst);
    look_in();
    struct stat status;
    CHECK(fstat(file, &status) == 0);
    CHECKF(status.st_blocks * 512 <= 4096, "%lld bytes", (long long)status.st_blocks * 512);
}

/* A child has a window of its own, or none, and does not touch its parent's. */
static void forked(void) {
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
    scene_skip("ThreadSanitizer does not follow threads of a forked child");
#endif
#endif
    burst_make(&burst, BURST_MIXED, 24 * WATER_MIB, 7);
    burst_fill(&burst, BURST_MIXED, 24 * WATER_MIB);
    burst_free(&burst);
    look_in();
    keeper_expect_still(keeper_expect());
    uint32_t wake = atomic_load(&page->wake);
    uint64_t events = atomic_load(&page->event_count);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct window_page *parents = page;
        uint32_t before = atomic_load(&parents->wake);
        close(file);
        burst_fill(&burst, BURST_MIXED, 24 * WATER_MIB);
        look_in();
        CHECK(page->process_id == (uint32_t)getpid());
        CHECK(asked_stats().keeper_running == 1);
        burst_free(&burst);
        clock_sleep_us(200000);
        CHECK(atomic_load(&parents->wake) == before);
        _exit(0);
    }
    process_expect_success(child, "the child");
    CHECK(atomic_load(&page->event_count) - events <= 2); /* fork itself is an operation */
    CHECK(atomic_load(&page->wake) - wake <= 2);
    CHECK(asked_stats().keeper_running == 1);
}

/* The keeper's thread ends and starts again (unshare): its window closes, and another one opens. */
static void opens_again(void) {
    burst_make(&burst, BURST_MIXED, 24 * WATER_MIB, 8);
    burst_fill(&burst, BURST_MIXED, 24 * WATER_MIB);
    look_in();
    asked_stats();
    int (*stand_in)(int) = unshare;
    if (stand_in(CLONE_NEWUSER) != 0) scene_skip("no user namespaces here");
    struct window_page *old = page;
    int old_file = file;
    look_in();
    struct stat before, now;
    CHECK(fstat(old_file, &before) == 0 && fstat(file, &now) == 0 && before.st_ino != now.st_ino);
    CHECK(asked_stats().allocated_bytes > 0);
    CHECK(atomic_load(&old->asked) == 1);
    burst_free(&burst);
}

static void closed(void) {
    burst_make(&burst, BURST_MIXED, 24 * WATER_MIB, 9);
    size_t baseline = water_level();
    burst_fill(&burst, BURST_MIXED, 24 * WATER_MIB);
    burst_free(&burst);
    pid_t keeper = keeper_expect();
    water_expect_baseline(baseline, "without a window");
    CHECK(find_file(keeper) < 0);
}

/* Many ask at once, while the program works. */
enum { ASKERS = 3, QUESTIONS_EACH = 60 };
static void ask_much(uint64_t seed) {
    for (int i = 0; i < QUESTIONS_EACH; i++) {
        switch (random_next(&seed) % 3) {
        case 0: asked_stats(); break;
        case 1: CHECK(ask(WINDOW_FLUSH, 1 + random_next(&seed) % 7) == 0); break;
        default: CHECK(ask(WINDOW_SLICES, random_next(&seed) % 1000) == 0);
        }
    }
}

static void many_askers(void) {
    burst_make(&burst, BURST_MIXED, 16 * WATER_MIB, 10);
    burst_fill(&burst, BURST_MIXED, 8 * WATER_MIB);
    look_in();
    pid_t children[ASKERS];
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    for (int i = 0; i < ASKERS; i++) {
        children[i] = fork();
        CHECK(children[i] >= 0);
        if (children[i] != 0) continue;
        file = open(path, O_RDWR); /* a lock of its own */
        CHECK(file >= 0);
        ask_much((uint64_t)i);
        _exit(0);
    }
    for (int done = 0; done < ASKERS;) {
        burst_fill(&burst, BURST_MIXED, 8 * WATER_MIB);
        burst_thin(&burst, 4);
        burst_verify(&burst);
        int status;
        pid_t ended = waitpid(-1, &status, WNOHANG);
        CHECK(ended >= 0 && (ended == 0 || status == 0));
        done += ended > 0;
        burst_free(&burst);
    }
}

static const scene_t scenes[] = {
    {.name = "stats", .run = stats},
    {.name = "slices", .run = slices},
    {.name = "flush-static", .environment = "TIDE_MODE=static", .run = flush_static},
    {.name = "flush-hybrid", .run = flush_hybrid},
    {.name = "bad-questions", .run = bad_questions},
    {.name = "looking-is-no-work", .run = looking_is_no_work},
    {.name = "costs-nothing", .run = costs_nothing},
    {.name = "forked", .run = forked},
    {.name = "opens-again", .run = opens_again},
    {.name = "closed", .environment = "TIDE_VISIBLE=off", .run = closed},
    {.name = "many-askers", .run = many_askers},
};

int main(int argc, char **argv) { return SCENE_MAIN(argc, argv, scenes); }
