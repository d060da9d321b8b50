/* files.c - the keeper has open files and a working directory of its own: a program may close all of its, and nothing stays open, or busy, because of
 * the keeper. */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "burst.h"
#include "check.h"
#include "scene.h"
#include "subject.h"
#include "water.h"

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

/* The keeper has none of the program's files: only its window, sources of memory pressure, and perhaps stderr. */
static void check_files(pid_t keeper, bool has_stderr) {
    for (int fd = 0; fd < 1024; fd++) {
        char name[32], target[256];
        snprintf(name, sizeof name, "fd/%d", fd);
        if (!task_link(keeper, name, target, sizeof target)) continue;
        bool expected = strcmp(target, "/proc/pressure/memory") == 0 ||
                        strncmp(target, "/memfd:tidemalloc-window", 24) == 0 || (has_stderr && fd == STDERR_FILENO);
        CHECKF(expected, "the keeper has %s open, number %d", target, fd);
        CHECKF(fd >= STDERR_FILENO, "the keeper has %s as a standard stream", target);
    }
}

/* --- closing ------------------------------------------------------------------------------------------------------------- */

static void close_in_a_loop(void) {
    for (int fd = 0; fd < 1024; fd++)
        if (fd != STDERR_FILENO) close(fd);
}
static void close_by_closefrom(void) {
    closefrom(STDERR_FILENO + 1);
    close(0);
    close(1);
}
static void close_by_range(void) {
    CHECK(syscall(SYS_close_range, STDERR_FILENO + 1, ~0u, 0) == 0);
    CHECK(syscall(SYS_close_range, 0, STDERR_FILENO - 1, 0) == 0);
}
static void close_by_unsharing(void) { CHECK(syscall(SYS_close_range, STDERR_FILENO + 1, ~0u, 1u << 1) == 0); }

/* Afterwards the program's new files get the numbers of the old ones, whose contents nobody else reads or writes. */
static void use_new_files(void) {
    int fds[64];
    for (int i = 0; i < 64; i++) {
        fds[i] = memfd_create("tide", 0);
        CHECK(fds[i] >= 0);
        CHECK(write(fds[i], &i, sizeof i) == (ssize_t)sizeof i);
    }
    for (unsigned round = 0; round < 3; round++) ebb("with new files");
    for (int i = 0; i < 64; i++) {
        int value = -1;
        CHECK(lseek(fds[i], 0, SEEK_CUR) == (off_t)sizeof i && lseek(fds[i], 0, SEEK_END) == (off_t)sizeof i);
        CHECK(pread(fds[i], &value, sizeof value, 0) == (ssize_t)sizeof value && value == i);
        CHECK(close(fds[i]) == 0);
    }
}

static void close_all(void (*close_files)(void)) {
    pid_t keeper = grow();
    check_files(keeper, false);
    close_files();
    use_new_files();
    keeper_expect_still(keeper);
    close_files();
    use_new_files();
    CHECK(keeper_task() == keeper);
}
static void in_a_loop(void) { close_all(close_in_a_loop); }
static void by_closefrom(void) { close_all(close_by_closefrom); }
static void by_range(void) { close_all(close_by_range); }
static void by_unsharing(void) { close_all(close_by_unsharing); }

/* No number is free when the keeper starts. */
static void no_number_left(void) {
    int null = open("/dev/null", O_RDONLY);
    struct rlimit few = {32, 32};
    CHECK(null >= 0 && setrlimit(RLIMIT_NOFILE, &few) == 0);
    burst_make(&burst, BURST_MIXED, 12 * WATER_MIB, 1);
    baseline = water_level();
    int last = null;
    for (int fd; (fd = dup(null)) >= 0;) last = fd;
    CHECK(errno == EMFILE);
    burst_fill(&burst, BURST_MIXED, 12 * WATER_MIB);
    burst_free(&burst);
    clock_sleep_us(100000);
    for (int fd = null; fd <= last; fd++) close(fd);
    water_expect_baseline(baseline, "without files");
    check_files(keeper_expect(), false);
}

/* --- ends ------------------------------------------------------------------------------------------------------------------ */

static void expect_end(int fd, const char *what) {
    char byte;
    CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    for (uint64_t until = clock_now_ns() + WATER_PATIENCE_NS;;) {
        ssize_t got = read(fd, &byte, 1);
        if (got == 0) return;
        CHECKF(got < 0 && (errno == EAGAIN || errno == ECONNRESET), "%s: read %zd, errno %d", what, got, errno);
        if (errno == ECONNRESET) return;
        CHECKF(clock_now_ns() < until, "%s: somebody holds the other end", what);
        clock_sleep_us(1000);
    }
}

static void ends_of(bool has_stderr) {
    int early[2], late[2], pair[2], ends[2];
    CHECK(pipe(early) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    int listener = socket(AF_UNIX, SOCK_DGRAM, 0), lock = memfd_create("lock", 0), again;
    CHECK(listener >= 0 && lock >= 0);
    pid_t keeper = grow();
    check_files(keeper, has_stderr);
    CHECK(pipe(late) == 0);
    close(early[1]);
    close(late[1]);
    close(pair[1]);
    expect_end(early[0], "a pipe from before the keeper");
    expect_end(late[0], "a pipe from after the keeper's start");
    expect_end(pair[0], "a socket");
    /* A lock that goes with the last number of a file. */
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", lock);
    again = open(path, O_RDWR);
    CHECK(again >= 0);
    struct flock whole = {.l_type = F_WRLCK};
    CHECK(fcntl(lock, F_OFD_SETLK, &whole) == 0);
    CHECK(fcntl(again, F_OFD_SETLK, &whole) == -1);
    close(lock);
    CHECK(fcntl(again, F_OFD_SETLK, &whole) == 0);
    /* And the other way round: a reader's end that is closed breaks the pipe. */
    CHECK(pipe(ends) == 0);
    ebb("beside a pipe");
    close(ends[0]);
    CHECK(fcntl(ends[1], F_SETFL, O_NONBLOCK) == 0);
    signal(SIGPIPE, SIG_IGN);
    CHECK(write(ends[1], "", 1) == -1 && errno == EPIPE);
}
static void ends(void) { ends_of(false); }
static void ends_with_log(void) { ends_of(true); }

/* Started with closed standard streams: the keeper's files never get their numbers, where messages go. */
static void no_streams(void) {
    int kept = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 100);
    close(0);
    close(1);
    close(2);
    pid_t keeper = grow();
    CHECK(dup2(kept, STDERR_FILENO) == STDERR_FILENO);
    check_files(keeper, false);
}

/* --- directories ------------------------------------------------------------------------------------------------------------ */

static void check_directory(pid_t keeper, const char *of_program, bool follows) {
    char own[256], its[256];
    CHECK(getcwd(own, sizeof own) != NULL && strcmp(own, of_program) == 0);
    if (!task_link(keeper, "cwd", its, sizeof its)) return;
    CHECKF((strcmp(own, its) == 0) == follows, "the program is in %s, the keeper in %s", own, its);
}

/* What the program does with its directory and its umask is its own. */
static void directory(void) {
    char place[] = "/tmp/tide-directory-XXXXXX";
    CHECK(mkdtemp(place) != NULL);
    pid_t keeper = grow();
    CHECK(chdir(place) == 0);
    check_directory(keeper, place, false);
    umask(0123);
    CHECK(task_number(keeper, "status", "Umask:", 8) != 0123);
    ebb("in another directory");
    CHECK(chdir("/") == 0 && rmdir(place) == 0);
}

/* A daemon goes to / so that what it was started from can be unmounted: the keeper must not stay there. */
static void unmount(void) {
    char place[] = "/tmp/tide-mount-XXXXXX";
    CHECK(mkdtemp(place) != NULL);
    if (syscall(SYS_unshare, CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tide", place, "tmpfs", 0, NULL) != 0) {
        rmdir(place);
        scene_skip("nothing can be mounted here");
    }
    CHECK(chdir(place) == 0);
    grow();
    CHECK(chdir("/") == 0);
    int result = umount(place), error = errno;
    if (result != 0) umount2(place, MNT_DETACH);
    rmdir(place);
    CHECKF(result == 0, "umount: errno %d", error);
}

static const scene_t scenes[] = {
    {.name = "close-in-a-loop", .run = in_a_loop},
    {.name = "closefrom", .run = by_closefrom},
    {.name = "close_range", .run = by_range},
    {.name = "close_range-unshare", .run = by_unsharing},
    {.name = "no-number-left", .run = no_number_left},
    {.name = "ends", .run = ends},
    {.name = "ends-with-log", .environment = "TIDE_LOG=keeper", .run = ends_with_log},
    {.name = "no-streams", .run = no_streams},
    {.name = "directory", .run = directory},
    {.name = "unmount", .run = unmount},
};

int main(int argc, char **argv) { return SCENE_MAIN(argc, argv, scenes); }
