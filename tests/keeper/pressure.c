/* pressure.c - MEMORY_PRESSURE_WATCH: a busy program with much free memory gives it back when the service manager asks for it through a pipe; not too
 * often; and a file that is not what it should be does no harm. In mode flush, which gives nothing back while there is work. */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "burst.h"
#include "check.h"
#include "scene.h"
#include "subject.h"
#include "water.h"

#define FREE_BYTES (48 * WATER_MIB)
/* What may be left while the work goes on. */
#define BUSY_SLACK_BYTES (4 * WATER_MIB)

/* --- the program that is under pressure ------------------------------------------------------------------------------------- */

static burst_t burst;
static size_t baseline, full;
static atomic_int stop;

/* One malloc and free each millisecond: never idle, never much. */
static void *work_main(void *nothing) {
    uint64_t random = 4;
    shadow_t record = {0};
    while (!atomic_load(&stop)) {
        shadow_step(&record, &random, 2000);
        clock_sleep_us(1000);
    }
    shadow_free(&record, &random);
    return nothing;
}

static pthread_t worker;
static void begin(void) {
    burst_make(&burst, BURST_MIXED, FREE_BYTES, 2);
    CHECK(pthread_create(&worker, NULL, work_main, NULL) == 0);
    clock_sleep_us(5000);
    baseline = water_level();
    burst_fill(&burst, BURST_MIXED, FREE_BYTES);
    full = water_level();
    keeper_expect();
    burst_free(&burst);
}

static void end(void) {
    atomic_store(&stop, 1);
    CHECK(pthread_join(worker, NULL) == 0);
    water_expect_baseline(baseline, "the work has ended");
}

static void refill(void) {
    burst_fill(&burst, BURST_MIXED, FREE_BYTES);
    burst_free(&burst);
}

static uint64_t pressures(void) { return subject_stats().pressure_count; }

/* It stays while nobody asks. On a machine that is busy with other things the work may stand still so long that the program is idle, or memory may
 * really be scarce for a moment; then it is tried again. */
enum { TRIES_MOST = 50, PRESSURES_MOST = 5 };
static void expect_kept(unsigned milliseconds, const char *what) {
    size_t enough = baseline + (full - baseline) / 2;
    unsigned pressed = 0;
    for (unsigned tries = 0; tries < TRIES_MOST; tries++) {
        uint64_t idle = subject_stats().flush_count, asked = pressures();
        uint64_t until = clock_now_ns() + milliseconds * UINT64_C(1000000);
        size_t level = SIZE_MAX;
        while (clock_now_ns() < until && level >= enough) {
            level = water_level();
            clock_sleep_us(10000);
        }
        if (level >= enough) return;
        pressed += pressures() != asked;
        CHECKF(pressed <= PRESSURES_MOST, "%s: answered as pressure", what);
        CHECKF(pressures() != asked || subject_stats().flush_count != idle, "%s: %zu KiB left", what,
               level / WATER_KIB);
        refill();
    }
    scene_skip("this machine is too busy");
}

static const char *pipe_path(void) {
    const char *path = getenv("MEMORY_PRESSURE_WATCH");
    CHECK(path != NULL);
    return path;
}

static int pipe_open(void) {
    int fd = open(pipe_path(), O_WRONLY | O_NONBLOCK);
    CHECKF(fd >= 0, "nobody reads %s: errno %d", pipe_path(), errno);
    return fd;
}

static void asked_part(void) {
    begin();
    expect_kept(500, "unasked");
    int fd = pipe_open();
    for (unsigned round = 0; round < 2; round++) {
        uint64_t before = pressures();
        CHECK(write(fd, "now", 3) == 3);
        for (uint64_t until = clock_now_ns() + WATER_PATIENCE_NS; pressures() == before;) {
            CHECK(clock_now_ns() < until);
            clock_sleep_us(5000);
        }
        water_expect_ebb(baseline + BUSY_SLACK_BYTES, "asked");
        if (round == 1) break;
        clock_sleep_us(2500000); /* past what limits the answers */
        refill();
        expect_kept(300, "asked before, but not again");
    }
    end();
}

/* Whoever asks again and again is answered twice in the first second, and less often later. */
static void asked_often(void) {
    int fd = pipe_open();
    uint64_t before = pressures(), begun = clock_now_ns();
    unsigned writes = 0;
    while (clock_now_ns() - begun < 1000000000u) {
        CHECK(write(fd, "now", 3) == 3 || errno == EAGAIN);
        clock_sleep_us(50000);
        writes++;
    }
    uint64_t answers = pressures() - before;
    CHECKF(answers >= 1 && answers <= 2, "%llu answers to %u calls", (unsigned long long)answers, writes);
}
static void often_part(void) {
    begin();
    expect_kept(300, "unasked");
    asked_often();
    end();
}

/* The same from before there is anybody to answer. */
static void *ask_main(void *file) {
    while (!atomic_load(&stop)) {
        CHECK(write(*(int *)file, "now", 3) == 3 || errno == EAGAIN);
        clock_sleep_us(10000);
    }
    return NULL;
}
static void asked_early_part(void) {
    static int fd;
    pthread_t asker;
    fd = open(pipe_path(), O_RDWR | O_NONBLOCK);
    CHECK(fd >= 0);
    CHECK(pthread_create(&asker, NULL, ask_main, &fd) == 0);
    begin();
    uint64_t before = pressures();
    clock_sleep_us(1000000);
    uint64_t answers = pressures() - before;
    CHECKF(answers <= 2, "%llu answers in a second", (unsigned long long)answers);
    end();
    CHECK(pthread_join(asker, NULL) == 0);
}

/* Nothing comes of it, and the program goes on. */
static void harmless_part(void) {
    begin();
    expect_kept(400, "a useless file");
    end();
}

/* The pipe's last writer goes, and another one comes. */
static void closed_part(void) {
    begin();
    int fd = pipe_open();
    close(fd);
    expect_kept(400, "a pipe that was closed");
    fd = pipe_open();
    CHECK(write(fd, "now", 3) == 3);
    water_expect_ebb(baseline + BUSY_SLACK_BYTES, "asked by the next one");
    close(fd);
    end();
}

/* A pipe is no work: an idle program's keeper sleeps, whatever is in it. */
static void asked_in_the_quiet_part(void) {
    burst_make(&burst, BURST_MIXED, FREE_BYTES, 2);
    baseline = water_level();
    refill();
    water_expect_baseline(baseline, "idle");
    pid_t keeper = keeper_expect();
    uint64_t switches = keeper_expect_still(keeper);
    int fd = pipe_open();
    CHECK(write(fd, "now", 3) == 3);
    clock_sleep_us(500000);
    CHECK(task_switches(keeper) == switches);
    refill();
    water_expect_baseline(baseline, "idle again");
}

/* --- who asks ------------------------------------------------------------------------------------------------------------------- */

static char folder[] = "/tmp/tide-pressure-XXXXXX";
static char path[64];

static void run_part(const char *part, const char *file) {
    char environment[200];
    snprintf(environment, sizeof environment, "TIDE_MODE=flush MEMORY_PRESSURE_WATCH=%s", file);
    int status = 0;
    pid_t child = scene_start(part, environment, -1, NULL);
    CHECK(waitpid(child, &status, 0) == child);
    unlink(path);
    rmdir(folder);
    CHECKF(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: wait status 0x%x", part, (unsigned)status);
}

static void make_folder(void) {
    CHECK(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/pressure", folder);
}

static void with_pipe(const char *part) {
    make_folder();
    CHECK(mkfifo(path, 0600) == 0);
    run_part(part, path);
}

static void asked(void) { with_pipe("asked-part"); }
static void often(void) { with_pipe("often-part"); }
static void asked_early(void) { with_pipe("asked-early-part"); }
static void closed(void) { with_pipe("closed-part"); }
static void asked_in_the_quiet(void) { with_pipe("asked-in-the-quiet-part"); }
static void no_such_file(void) {
    make_folder();
    run_part("harmless-part", path);
}
static void forbidden_file(void) {
    make_folder();
    CHECK(mkfifo(path, 0) == 0);
    if (geteuid() == 0) CHECK(chmod(folder, 0755) == 0);
    run_part("harmless-part", path);
}
static void null_file(void) { run_part("harmless-part", "/dev/null"); }
static void a_folder(void) { run_part("harmless-part", "/tmp"); }
static void empty_name(void) { run_part("harmless-part", ""); }

static const scene_t scenes[] = {
    {.name = "asked", .run = asked},
    {.name = "asked-part", .run = asked_part, .part = true},
    {.name = "often", .run = often},
    {.name = "often-part", .run = often_part, .part = true},
    {.name = "asked-early", .run = asked_early},
    {.name = "asked-early-part", .run = asked_early_part, .part = true},
    {.name = "closed", .run = closed},
    {.name = "closed-part", .run = closed_part, .part = true},
    {.name = "asked-in-the-quiet", .run = asked_in_the_quiet},
    {.name = "asked-in-the-quiet-part", .run = asked_in_the_quiet_part, .part = true},
    {.name = "no-such-file", .run = no_such_file},
    {.name = "forbidden-file", .run = forbidden_file},
    {.name = "null-file", .run = null_file},
    {.name = "folder", .run = a_folder, .slow = true},
    {.name = "empty-name", .run = empty_name, .slow = true},
    {.name = "harmless-part", .run = harmless_part, .part = true},
};

int main(int argc, char **argv) { return SCENE_MAIN(argc, argv, scenes); }
