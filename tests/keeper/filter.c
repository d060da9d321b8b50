/* filter.c - sandboxes: system calls that a seccomp filter refuses, from the program's start on or later. The program works, its blocks keep what is in
 * them, nothing hangs or spins; and where memory can come back, it does. */
#define _GNU_SOURCE 1
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "burst.h"
#include "check.h"
#include "scene.h"
#include "subject.h"
#include "water.h"

#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

enum { ANY_ARGUMENT = -1 };
#define BURST_BYTES (14 * WATER_MIB)
/* What a thread's heap keeps at worst when nobody else can empty it: the span in use of every class. */
#define HEAP_BYTES (8 * WATER_MIB)

enum needs {
    COMES_BACK, /* all of it, as ever */
    STAYS,      /* it cannot */
    NO_CLAIM,   /* what threads have given up comes back; tide_stats says that their caches do not */
    NO_THREAD,  /* there is no keeper; little is kept all the same */
};

static const struct refusal {
    const char *name;
    long call, argument; /* of the first argument, ANY_ARGUMENT */
    enum needs needs;
} refusals[] = {
    {"membarrier", SYS_membarrier, ANY_ARGUMENT, NO_CLAIM}, {"madvise", SYS_madvise, ANY_ARGUMENT, STAYS},
    {"mincore", SYS_mincore, ANY_ARGUMENT, COMES_BACK},     {"close_range", SYS_close_range, ANY_ARGUMENT, COMES_BACK},
    {"unshare", SYS_unshare, ANY_ARGUMENT, COMES_BACK},     {"name", SYS_prctl, PR_SET_NAME, COMES_BACK},
    {"clone3", SYS_clone3, ANY_ARGUMENT, COMES_BACK},       {"clone", SYS_clone, ANY_ARGUMENT, COMES_BACK},
    {"prlimit", SYS_prlimit64, ANY_ARGUMENT, COMES_BACK},   {"futex", SYS_futex, ANY_ARGUMENT, COMES_BACK},
};
enum { REFUSALS = sizeof refusals / sizeof *refusals };

static const struct refusal *chosen;
static int chosen_error;

static void refuse(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)chosen->call, 0, chosen->argument == ANY_ARGUMENT ? 2 : 3),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)chosen->call, 0, 1), /* with any argument: as before */
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)chosen_error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    if (chosen->argument != ANY_ARGUMENT) {
        code[2] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0]));
        code[3] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)chosen->argument, 0, 1);
        code[4] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)chosen_error);
    }
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) _exit(CHECK_SKIPPED);
    /* All threads get the filter, or none. */
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0) _exit(CHECK_SKIPPED);
}

/* libc takes clone where it hears that clone3 is not there; else it takes the answer for an answer. */
static enum needs needs_of(const struct refusal *refusal, int error) {
    return refusal->call == SYS_clone3 && error != ENOSYS ? NO_THREAD : refusal->needs;
}

static burst_t burst;
static size_t baseline;

static pid_t other_task(void) {
    pid_t tasks[8];
    size_t count = task_list(tasks, 8);
    CHECKF(count <= 2, "%zu threads", count);
    for (size_t i = 0; i < count; i++)
        if (tasks[i] != getpid()) return tasks[i];
    return 0;
}

/* The keeper does not spin: it uses less than half of a processor while there is nothing to do. */
static void expect_no_spin(const char *name) {
    pid_t keeper = other_task();
    if (keeper == 0) return;
    clock_sleep_us(60000);
    uint64_t cpu_ns = task_cpu_ns(keeper);
    clock_sleep_us(160000);
    CHECKF(task_cpu_ns(keeper) - cpu_ns < 80000000u, "%s: the keeper spins: %llu ms of CPU in 160 ms", name,
           (unsigned long long)(task_cpu_ns(keeper) - cpu_ns) / 1000000);
}

static void live_with(const struct refusal *refusal, enum needs needs) {
    for (unsigned round = 0; round < 2; round++) {
        burst_fill(&burst, BURST_MIXED, BURST_BYTES);
        burst_verify(&burst);
        burst_thin(&burst, 30);
        clock_sleep_us(60000);
        burst_verify(&burst);
        burst_free(&burst);
        switch (needs) {
        case STAYS: break;
        case NO_CLAIM:
        case NO_THREAD: water_expect_ebb(baseline + HEAP_BYTES + WATER_SLACK_BYTES, refusal->name); break;
        default: water_expect_baseline(baseline, refusal->name);
        }
    }
    expect_no_spin(refusal->name);
    tide_stats stats = subject_stats();
    CHECKF(needs != NO_CLAIM || stats.claim_possible == 0, "%s", refusal->name);
    subject_release_all();
    burst_fill(&burst, BURST_MIXED, 4 * WATER_MIB);
    burst_verify(&burst);
    burst_free(&burst);
}

/* The part that is started with the filter in force: which one says the environment. */
static void filtered_part(void) {
    const char *name = getenv("KEEPER_TEST_REFUSED"), *error = getenv("KEEPER_TEST_ERROR");
    CHECK(name != NULL && error != NULL);
    burst_make(&burst, BURST_MIXED, BURST_BYTES, 3);
    baseline = water_level();
    for (unsigned i = 0; i < REFUSALS; i++)
        if (strcmp(refusals[i].name, name) == 0) live_with(&refusals[i], needs_of(&refusals[i], atoi(error)));
}

static void expect_well(pid_t child, const char *name, unsigned *skipped) {
    int status = 0;
    uint64_t until = clock_now_ns() + 3 * WATER_PATIENCE_NS;
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (clock_now_ns() > until) {
            kill(child, SIGKILL);
            check_die("%s refused with errno %d: hangs", name, chosen_error);
        }
        clock_sleep_us(2000);
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == CHECK_SKIPPED) {
        ++*skipped;
        return;
    }
    CHECKF(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s refused with errno %d: wait status 0x%x", name,
           chosen_error, (unsigned)status);
}

/* In force before the program begins. */
static void from_the_start(const struct refusal *refusal, int error) {
    unsigned skipped = 0;
    chosen = refusal;
    chosen_error = error;
    char environment[100];
    snprintf(environment, sizeof environment, "KEEPER_TEST_REFUSED=%s KEEPER_TEST_ERROR=%d", refusal->name, error);
    expect_well(scene_start("filtered-part", environment, -1, refuse), refusal->name, &skipped);
    if (skipped > 0) scene_skip("no filters here");
}

/* In force from a moment on at which the keeper exists, or not yet. */
static void later(const struct refusal *refusal, int error, bool grown) {
    unsigned skipped = 0;
    chosen = refusal;
    chosen_error = error;
    burst_make(&burst, BURST_MIXED, BURST_BYTES, 3);
    baseline = water_level();
    pid_t child = fork();
    if (child == 0) {
        if (grown) {
            burst_fill(&burst, BURST_MIXED, BURST_BYTES);
            burst_free(&burst);
            keeper_expect();
            water_expect_baseline(baseline, "before the filter");
        }
        refuse();
        enum needs needs = needs_of(refusal, error);
        /* A keeper that is there goes on; one that sleeps, and cannot be woken, does not. */
        if (grown && needs == NO_THREAD) needs = COMES_BACK;
        if (grown && refusal->call == SYS_futex) needs = STAYS;
        live_with(refusal, needs);
        _exit(0);
    }
    expect_well(child, refusal->name, &skipped);
    burst_drop(&burst);
    if (skipped > 0) scene_skip("no filters here");
}

static void all_from_the_start(int error) {
    for (unsigned i = 0; i < REFUSALS; i++) from_the_start(&refusals[i], error);
}
static void all_later(int error, bool grown) {
    for (unsigned i = 0; i < REFUSALS; i++) later(&refusals[i], error, grown);
}

static void start_eperm(void) { all_from_the_start(EPERM); }
static void start_enosys(void) { all_from_the_start(ENOSYS); }
static void ungrown_eperm(void) { all_later(EPERM, false); }
static void ungrown_enosys(void) { all_later(ENOSYS, false); }
static void grown_eperm(void) { all_later(EPERM, true); }
static void grown_enosys(void) { all_later(ENOSYS, true); }

static void one_by_name(void) {
    const char *name = getenv("KEEPER_TEST_REFUSED");
    CHECK(name != NULL);
    for (unsigned i = 0; i < REFUSALS; i++) {
        if (strcmp(refusals[i].name, name) != 0) continue;
        from_the_start(&refusals[i], EPERM);
        puts("from the start: good");
        later(&refusals[i], EPERM, false);
        puts("before it has grown: good");
        later(&refusals[i], EPERM, true);
        puts("after it has grown: good");
    }
}

/* Without a barrier nobody empties the heap of a thread that sleeps; but the threads themselves, and what they gave up, are served. */
enum { SLEEPERS = 4 };
#define EACH_BYTES (12 * WATER_MIB)
static void sailor_fill(sailor_t *sailor) { burst_fill(&sailor->burst, BURST_MIXED, EACH_BYTES); }
static void sailor_free(sailor_t *sailor) { burst_free(&sailor->burst); }
static void sleepers_without_barrier(void) {
    static crew_t crew;
    chosen = &refusals[0];
    chosen_error = EPERM;
    refuse();
    crew_make(&crew, SLEEPERS);
    for (size_t i = 0; i < SLEEPERS; i++) burst_make(&crew.sailors[i].burst, BURST_MIXED, EACH_BYTES, i);
    size_t level = water_level();
    for (unsigned round = 0; round < 2; round++) {
        crew_order(&crew, sailor_fill);
        crew_order(&crew, sailor_free);
        water_expect_ebb(level + SLEEPERS * HEAP_BYTES, "sleepers without a barrier");
        CHECK(subject_stats().claim_possible == 0);
        tide_flush_report report = {0};
        subject.release_all(&report);
        if (WATER_IS_CLEAR)
            CHECKF(water_level() <= level + report.missed_bytes + report.pinned_bytes + 4 * WATER_MIB,
                   "%zu KiB above, %zu KiB missed", (water_level() - level) / WATER_KIB,
                   report.missed_bytes / WATER_KIB);
    }
    crew_end(&crew);
}

/* And the keeper does not look again and again for what it cannot see: it may look once a second. */
static void still_without_barrier(void) {
    chosen = &refusals[0];
    chosen_error = EPERM;
    refuse();
    burst_make(&burst, BURST_MIXED, BURST_BYTES, 3);
    burst_fill(&burst, BURST_MIXED, BURST_BYTES);
    pid_t keeper = keeper_expect();
    burst_free(&burst);
    clock_sleep_us(3000000);
    uint64_t switches = task_switches(keeper), cpu_ns = task_cpu_ns(keeper);
    clock_sleep_us(2000000);
    switches = task_switches(keeper) - switches;
    cpu_ns = task_cpu_ns(keeper) - cpu_ns;
    CHECKF(switches <= 10, "%llu context switches in 2 s of quiet", (unsigned long long)switches);
    CHECKF(cpu_ns < 100000000u, "%llu ms of CPU in 2 s of quiet", (unsigned long long)cpu_ns / 1000000);
}

static const scene_t scenes[] = {
    {.name = "filtered-part", .run = filtered_part, .part = true},
    {.name = "one", .run = one_by_name, .part = true},
    {.name = "start-eperm", .run = start_eperm},
    {.name = "ungrown-eperm", .run = ungrown_eperm},
    {.name = "grown-enosys", .run = grown_enosys, .slow = true},
    {.name = "sleepers-without-barrier", .run = sleepers_without_barrier},
    {.name = "still-without-barrier", .run = still_without_barrier},
    {.name = "start-enosys", .run = start_enosys, .slow = true},
    {.name = "ungrown-enosys", .run = ungrown_enosys, .slow = true},
    {.name = "grown-eperm", .run = grown_eperm, .slow = true},
};

int main(int argc, char **argv) { return SCENE_MAIN(argc, argv, scenes); }
