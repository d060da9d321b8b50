/* fault.c - runs a program in which chosen system calls of the library fail, or come late.
 *
 *   program --- system call ---> seccomp filter --- notification ---> this process: is it the library's, and its turn?
 *      ^                                                                 |
 *      +---------------------- -errno, or the call itself ---------------+
 *
 * The library makes its system calls itself, so its calls are those whose instruction lies in its text; all others go
 * on untouched. The exception is the keeper's thread, which libc makes: it is known by its small stack. Children and
 * grandchildren have the filter, too.
 *
 *   fault --library PATH --call NAME[,NAME...] --errno NUMBER --when WHEN [--delay MICROSECONDS] [--limit SECONDS]
 *         --report FILE -- program ...
 *
 *   WHEN  always; from:N (the nth and all later ones); once:N; every:K; between:N:M (the nth to the mth);
 *         walk (the nth process that makes such calls loses its nth)
 *
 * With --delay calls that it is the turn of are late instead. The report is one line: `calls failed how number`, where
 * how is exit, signal or hang. Status 0: the program ended with 0; 77: no filters here; else 1. */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

static const struct {
    const char *name;
    long number;
} known[] = {
    {"mmap", SYS_mmap},
    {"munmap", SYS_munmap},
    {"mprotect", SYS_mprotect},
    {"madvise", SYS_madvise},
    {"mremap", SYS_mremap},
    {"mincore", SYS_mincore},
    {"membarrier", SYS_membarrier},
    {"futex", SYS_futex},
    {"clone3", SYS_clone3},
    {"openat", SYS_openat},
    {"ppoll", SYS_ppoll},
    {"read", SYS_read},
    {"write", SYS_write},
    {"close", SYS_close},
    {"prlimit64", SYS_prlimit64},
    {"close_range", SYS_close_range},
    {"unshare", SYS_unshare},
    {"chdir", SYS_chdir},
    {"memfd_create", SYS_memfd_create},
    {"ftruncate", SYS_ftruncate},
    {"fcntl", SYS_fcntl},
    {"pwrite64", SYS_pwrite64},
    {"prctl", SYS_prctl},
    {"rt_sigprocmask", SYS_rt_sigprocmask},
    {"sigaltstack", SYS_sigaltstack},
    {"gettid", SYS_gettid},
    {"getpid", SYS_getpid},
    {"nanosleep", SYS_nanosleep},
    {"clock_nanosleep", SYS_clock_nanosleep},
};
enum { KNOWN = sizeof known / sizeof *known, CALLS_MOST = 8, TEXTS_MOST = 256, PROCESSES_MOST = 4096 };

/* A program's thread has 8 MiB by default; the keeper asks for 64 KiB, and libc adds a little. */
#define KEEPER_STACK_MOST ((uint64_t)512 << 10)

enum when { ALWAYS, FROM, ONCE, EVERY, BETWEEN, WALK };

static long calls[CALLS_MOST];
static size_t call_count;
static const char *library, *report_path;
static enum when when;
static unsigned long when_first, when_last;
static int error_number;
static unsigned delay_us;
static unsigned limit_seconds = 30;
static unsigned long seen, failed;

/* --- whose call it is
 * ------------------------------------------------------------------------------------------------ */

/* Texts that were looked up. Children of fork have them where their parent has; programs that are started are
 * elsewhere, with luck as sure as addresses are random. */
static struct text {
    uint64_t start, end;
    bool ours;
} texts[TEXTS_MOST];
static size_t text_count;

static bool text_look_up(pid_t task, uint64_t address) {
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/maps", (int)task);
    FILE *file = fopen(path, "re");
    if (file == NULL) return false;
    bool ours = false;
    while (fgets(line, sizeof line, file) != NULL) {
        unsigned long start = 0, end = 0;
        if (sscanf(line, "%lx-%lx", &start, &end) != 2 || address < start || address >= end) continue;
        ours = strstr(line, library) != NULL;
        if (text_count < TEXTS_MOST) texts[text_count++] = (struct text){start, end, ours};
        break;
    }
    fclose(file);
    return ours;
}

static bool is_keeper_clone(const struct seccomp_notif *notice) {
    struct clone_args arguments = {0};
    struct iovec here = {&arguments, sizeof arguments},
                 there = {(void *)(uintptr_t)notice->data.args[0], sizeof arguments};
    if (process_vm_readv((pid_t)notice->pid, &here, 1, &there, 1, 0) < (ssize_t)offsetof(struct clone_args, tls))
        return false;
    return (arguments.flags & CLONE_THREAD) != 0 && arguments.stack_size <= KEEPER_STACK_MOST;
}

static bool is_ours(const struct seccomp_notif *notice) {
    if (notice->data.nr == SYS_clone3) return is_keeper_clone(notice);
    uint64_t address = notice->data.instruction_pointer;
    for (size_t i = 0; i < text_count; i++)
        if (address >= texts[i].start && address < texts[i].end) return texts[i].ours;
    return text_look_up((pid_t)notice->pid, address);
}

/* --- whose turn it is
 * ------------------------------------------------------------------------------------------------ */

static struct process {
    pid_t task, group;
    unsigned long seen;
    unsigned long ordinal;
} processes[PROCESSES_MOST];
static size_t process_count;
static unsigned long ordinals;

static pid_t group_of(pid_t task) {
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/%d/status", (int)task);
    FILE *file = fopen(path, "re");
    int group = task;
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "Tgid: %d", &group) == 1) break;
    if (file != NULL) fclose(file);
    return group;
}

/* The process of a task, whose calls count together. */
static struct process *process_of(pid_t task) {
    struct process *found = NULL;
    for (size_t i = 0; i < process_count; i++)
        if (processes[i].task == task) found = &processes[i];
    if (found == NULL) {
        CHECK(process_count < PROCESSES_MOST);
        found = &processes[process_count++];
        *found = (struct process){.task = task, .group = group_of(task)};
    }
    for (size_t i = 0; i < process_count; i++)
        if (processes[i].task == found->group) return &processes[i];
    return found;
}

static bool is_turn(pid_t task) {
    seen++;
    switch (when) {
    case ALWAYS: return true;
    case FROM: return seen >= when_first;
    case ONCE: return seen == when_first;
    case EVERY: return seen % when_first == 0;
    case BETWEEN: return seen >= when_first && seen <= when_last;
    case WALK: {
        struct process *process = process_of(task);
        if (process->ordinal == 0) process->ordinal = ++ordinals;
        return ++process->seen == process->ordinal;
    }
    }
    return false;
}

/* --- serving
 * --------------------------------------------------------------------------------------------------------- */

static void serve(int listener) {
    struct seccomp_notif notice = {0};
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &notice) != 0) return; /* it was killed meanwhile */
    struct seccomp_notif_resp answer = {.id = notice.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
    if (is_ours(&notice) && is_turn((pid_t)notice.pid)) {
        failed++;
        if (delay_us > 0)
            clock_sleep_us(delay_us);
        else
            answer = (struct seccomp_notif_resp){.id = notice.id, .error = -error_number};
    }
    ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
}

static void report(const char *how, int number) {
    FILE *file = fopen(report_path, "we");
    CHECK(file != NULL);
    fprintf(file, "%lu %lu %s %d\n", seen, failed, how, number);
    fclose(file);
}

static int supervise(pid_t child, int listener) {
    uint64_t limit_ns = clock_now_ns() + limit_seconds * UINT64_C(1000000000);
    for (;;) {
        struct pollfd ready = {.fd = listener, .events = POLLIN};
        int status = 0;
        /* A short time-out: the end of the program is no event of the listener while its children live. */
        if (poll(&ready, 1, 5) > 0 && (ready.revents & POLLIN) != 0) serve(listener);
        if ((ready.revents & POLLIN) == 0 && waitpid(child, &status, WNOHANG) == child) {
            kill(-child, SIGKILL);
            if (WIFSIGNALED(status))
                report("signal", WTERMSIG(status));
            else
                report("exit", WEXITSTATUS(status));
            return status == 0 ? 0 : 1;
        }
        if (clock_now_ns() < limit_ns) continue;
        if (getenv("FAULT_STOP_AT_HANG") != NULL) { /* for a debugger */
            kill(-child, SIGSTOP);
            pause();
        }
        kill(-child, SIGKILL);
        report("hang", (int)limit_seconds);
        return 1;
    }
}

static int filter_install(void) {
    struct sock_filter code[2 * CALLS_MOST + 4];
    size_t length = 0;
    code[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < call_count; i++)
        code[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i],
                                                      (unsigned char)(call_count - i), 0);
    code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    struct sock_fprog program = {(unsigned short)length, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
    unsigned long flags = SECCOMP_FILTER_FLAG_NEW_LISTENER;
    long listener =
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &program);
    if (listener < 0) listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    return (int)listener;
}

static int run(char **program) {
    atomic_int *listener = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(listener != MAP_FAILED);
    char preload[4096];
    snprintf(preload, sizeof preload, "LD_PRELOAD=%s", library);
    /* The file of the filter is in the table of open files that both have until the program is started. */
    pid_t child = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
    CHECK(child >= 0);
    if (child == 0) {
        setpgid(0, 0);
        putenv(preload);
        int number = filter_install();
        atomic_store(listener, number < 0 ? -1 : number);
        if (number < 0) _exit(CHECK_SKIPPED);
        execvp(program[0], program);
        _exit(127);
    }
    setpgid(child, child);
    int status = 0;
    while (atomic_load(listener) == 0)
        if (waitpid(child, &status, WNOHANG) == child) return CHECK_SKIPPED;
    if (atomic_load(listener) < 0) {
        waitpid(child, &status, 0);
        return CHECK_SKIPPED;
    }
    return supervise(child, atomic_load(listener));
}

/* --- arguments
 * ------------------------------------------------------------------------------------------------------- */

static void parse_calls(char *names) {
    for (char *name = strtok(names, ","); name != NULL; name = strtok(NULL, ",")) {
        size_t i = 0;
        while (i < KNOWN && strcmp(known[i].name, name) != 0) i++;
        CHECKF(i < KNOWN && call_count < CALLS_MOST, "call %s", name);
        calls[call_count++] = known[i].number;
    }
}

static void parse_when(const char *text) {
    static const struct {
        const char *name;
        enum when when;
        int numbers;
    } forms[] = {{"always", ALWAYS, 0}, {"from", FROM, 1},       {"once", ONCE, 1},
                 {"every", EVERY, 1},   {"between", BETWEEN, 2}, {"walk", WALK, 0}};
    char name[16] = "";
    int numbers = sscanf(text, "%15[a-z]:%lu:%lu", name, &when_first, &when_last) - 1;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (strcmp(forms[i].name, name) != 0) continue;
        when = forms[i].when;
        CHECKF(numbers == forms[i].numbers && (numbers < 1 || when_first > 0), "when: %s", text);
        return;
    }
    check_die("when: %s", text);
}

int main(int argc, char **argv) {
    int at = 1;
    for (; at + 1 < argc && strcmp(argv[at], "--") != 0; at += 2) {
        char *value = argv[at + 1];
        if (strcmp(argv[at], "--library") == 0)
            library = value;
        else if (strcmp(argv[at], "--call") == 0)
            parse_calls(value);
        else if (strcmp(argv[at], "--errno") == 0)
            error_number = atoi(value);
        else if (strcmp(argv[at], "--when") == 0)
            parse_when(value);
        else if (strcmp(argv[at], "--delay") == 0)
            delay_us = (unsigned)atoi(value);
        else if (strcmp(argv[at], "--limit") == 0)
            limit_seconds = (unsigned)atoi(value);
        else if (strcmp(argv[at], "--report") == 0)
            report_path = value;
        else
            check_die("argument %s", argv[at]);
    }
    CHECK(library != NULL && report_path != NULL && call_count > 0 && at + 1 < argc);
    CHECK(error_number > 0 || delay_us > 0);
    return run(argv + at + 1);
}
