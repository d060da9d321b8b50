/* namespaces.c - unshare and setns, which the kernel refuses to processes with a second thread, do what they do without the keeper: the same result, the
 * same errno. And the keeper is there again afterwards. */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "burst.h"
#include "check.h"
#include "scene.h"
#include "subject.h"
#include "water.h"

enum { STRANGER = 54321 };

static burst_t burst;
static size_t baseline;

static void ebb(const char *what) {
    burst_fill(&burst, BURST_MIXED, 12 * WATER_MIB);
    burst_free(&burst);
    water_expect_baseline(baseline, what);
}

typedef struct attempt {
    const char *name;
    int flags;        /* of unshare */
    const char *file; /* of setns, where not NULL: flags is its type */
} attempt_t;

static const attempt_t attempts[] = {
    {"unshare nothing", 0, NULL},
    {"unshare CLONE_NEWUSER", CLONE_NEWUSER, NULL},
    {"unshare CLONE_NEWUSER, CLONE_NEWNS", CLONE_NEWUSER | CLONE_NEWNS, NULL},
    {"unshare CLONE_NEWNS", CLONE_NEWNS, NULL},
    {"unshare CLONE_NEWNET", CLONE_NEWNET, NULL},
    {"unshare CLONE_NEWUTS, CLONE_NEWIPC", CLONE_NEWUTS | CLONE_NEWIPC, NULL},
    {"unshare CLONE_NEWPID", CLONE_NEWPID, NULL},
    {"unshare CLONE_FILES", CLONE_FILES, NULL},
    {"unshare CLONE_FS", CLONE_FS, NULL},
    {"unshare CLONE_VM", CLONE_VM, NULL},
    {"unshare CLONE_THREAD", CLONE_THREAD, NULL},
    {"unshare CLONE_SIGHAND", CLONE_SIGHAND, NULL},
    {"unshare a bad flag", 0x10, NULL},
    {"setns user", 0, "/proc/self/ns/user"},
    {"setns CLONE_NEWUSER user", CLONE_NEWUSER, "/proc/self/ns/user"},
    {"setns mnt", 0, "/proc/self/ns/mnt"},
    {"setns CLONE_NEWNS mnt", CLONE_NEWNS, "/proc/self/ns/mnt"},
    {"setns net", 0, "/proc/self/ns/net"},
    {"setns uts", CLONE_NEWUTS, "/proc/self/ns/uts"},
    {"setns pid", 0, "/proc/self/ns/pid"},
    {"setns of another kind", CLONE_NEWNET, "/proc/self/ns/uts"},
    {"setns no namespace", 0, "/dev/null"},
};
enum { ATTEMPTS = sizeof attempts / sizeof *attempts };

static long raw_attempt(const attempt_t *attempt, int file) {
    return attempt->file != NULL ? syscall(SYS_setns, file, attempt->flags) : syscall(SYS_unshare, attempt->flags);
}

static int library_attempt(const attempt_t *attempt, int file) {
    return attempt->file != NULL ? setns(file, attempt->flags) : unshare(attempt->flags);
}

/* What the kernel says to a process with one thread, written to shared memory by a child. */
typedef struct answer {
    long result;
    int error;
} answer_t;

static answer_t reference(const attempt_t *attempt, int file) {
    answer_t *answer = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(answer != MAP_FAILED);
    pid_t child = fork();
    if (child == 0) {
        task_expect_count(1);
        errno = 0;
        answer->result = raw_attempt(attempt, file);
        answer->error = errno;
        _exit(0);
    }
    process_expect_success(child, attempt->name);
    answer_t seen = *answer;
    munmap(answer, 4096);
    return seen;
}

static void grown_attempt(const attempt_t *attempt, int file, answer_t expected) {
    ebb("in a child");
    pid_t keeper = keeper_expect();
    errno = 4711;
    int result = library_attempt(attempt, file), error = errno;
    CHECKF(result == expected.result && (result == 0 ? error == 4711 : error == expected.error),
           "%s: result %d errno %d, without the library %ld errno %d", attempt->name, result, error, expected.result,
           expected.error);
    keeper = keeper_expect();
    task_expect_count(2);
    ebb("afterwards");
    CHECK(keeper_task() == keeper);
}

static void all_attempts(void) {
    burst_make(&burst, BURST_MIXED, 12 * WATER_MIB, 1);
    baseline = water_level();
    unsigned refused = 0;
    for (unsigned i = 0; i < ATTEMPTS; i++) {
        int file = attempts[i].file != NULL ? open(attempts[i].file, O_RDONLY | O_CLOEXEC) : -1;
        if (attempts[i].file != NULL && file < 0) continue;
        answer_t expected = reference(&attempts[i], file);
        refused += expected.result != 0;
        pid_t child = fork();
        if (child == 0) {
            grown_attempt(&attempts[i], file, expected);
            _exit(0);
        }
        process_expect_success(child, attempts[i].name);
        if (file >= 0) close(file);
    }
    printf("the kernel refuses %u of %u\n", refused, (unsigned)ATTEMPTS);
}

static void become_stranger(void) {
    if (geteuid() != 0) return;
    CHECK(setgid(STRANGER) == 0 && setuid(STRANGER) == 0);
    CHECK(prctl(PR_SET_DUMPABLE, 1) == 0);
}

static void as_another_user(void) {
    become_stranger();
    all_attempts();
}

/* A thread that grows the heap again and again, while another one calls unshare: the thread that is not the keeper is in the way, and that is what
 * the caller hears. Nobody hangs. */
static atomic_int stop;
static void *grow_main(void *nothing) {
    static burst_t own;
    burst_make(&own, BURST_MIXED, 4 * WATER_MIB, 9);
    while (!atomic_load(&stop)) {
        burst_fill(&own, BURST_MIXED, 4 * WATER_MIB);
        burst_free(&own);
    }
    return nothing;
}
static void beside_growth(void) {
    burst_make(&burst, BURST_MIXED, 12 * WATER_MIB, 1);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, grow_main, NULL) == 0);
    for (unsigned i = 0; i < 60; i++) {
        errno = 0;
        if (i % 2 == 0)
            CHECK(unshare(CLONE_NEWUSER) == -1 && errno == EINVAL);
        else
            CHECK(unshare(0) == 0);
    }
    atomic_store(&stop, 1);
    CHECK(pthread_join(thread, NULL) == 0);
    clock_sleep_us(50000);
    baseline = water_level() + 8 * WATER_MIB;
    ebb("after the growth");
    keeper_expect();
    task_expect_count(2);
}

/* Two threads call at the same time. */
static void *unshare_main(void *nothing) {
    int file = open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC);
    CHECK(file >= 0);
    for (unsigned i = 0; i < 100; i++) {
        CHECK(unshare(CLONE_FS) == 0);
        CHECK(unshare(CLONE_NEWUSER) == -1 && errno == EINVAL); /* the others are threads, too */
        setns(file, 0);
    }
    close(file);
    return nothing;
}
static void by_two_threads(void) {
    burst_make(&burst, BURST_MIXED, 12 * WATER_MIB, 1);
    baseline = water_level();
    ebb("at first");
    pthread_t threads[3];
    for (unsigned i = 0; i < 3; i++) CHECK(pthread_create(&threads[i], NULL, unshare_main, NULL) == 0);
    for (unsigned i = 0; i < 3; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    ebb("after both");
    keeper_expect();
    task_expect_count(2);
}

static const scene_t scenes[] = {
    {.name = "own-user", .run = all_attempts},
    {.name = "another-user", .run = as_another_user},
    {.name = "beside-growth", .run = beside_growth},
    {.name = "by-two-threads", .run = by_two_threads},
};

int main(int argc, char **argv) { return SCENE_MAIN(argc, argv, scenes); }
