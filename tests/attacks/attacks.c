#define _GNU_SOURCE 1
#include "attacks.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

const char *program_path;

/* Where the access under way may fault, while there is one. */
static const char *volatile touched;

_Noreturn void verdict(enum outcome outcome, const char *format, ...) {
    char line[200];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    line[length] = '\n';
    if (write(STDOUT_FILENO, line, (size_t)length + 1) != length + 1) _exit(99);
    _exit((int)outcome);
}

static void say(const char *text, enum outcome outcome) {
    size_t length = strlen(text);
    if (write(STDOUT_FILENO, text, length) != (ssize_t)length) _exit(99);
    _exit((int)outcome);
}

/* Who crashes after that has not noticed it in time. */
static volatile bool damage_done;

static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)signal;
    (void)context;
    if (touched != NULL && (const char *)info->si_addr == touched) say("the access faulted\n", OUTCOME_GUARD);
    say("a fault elsewhere\n", damage_done ? OUTCOME_UNDETECTED : OUTCOME_CRASH);
}

static void on_alarm(int signal) {
    (void)signal;
    say("it hangs\n", damage_done ? OUTCOME_UNDETECTED : OUTCOME_CRASH);
}

static void catch_faults(void) {
    static char stack[64 * 1024];
    stack_t alternative = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    struct sigaction late = {.sa_handler = on_alarm, .sa_flags = SA_ONSTACK};
    sigaltstack(&alternative, NULL);
    sigaction(SIGSEGV, &fault, NULL);
    sigaction(SIGBUS, &fault, NULL);
    sigaction(SIGALRM, &late, NULL);
    alarm(20);
}

char *allocate(size_t size) {
    char *volatile block = malloc(size);
    if (block == NULL) verdict(OUTCOME_CRASH, "malloc(%zu) returned NULL", size);
    return block;
}

void release(void *block) {
    void *volatile hidden = block;
    free(hidden);
}

size_t full_size(size_t bytes) {
    for (;; bytes++) {
        char *block = allocate(bytes);
        bool full = malloc_usable_size(block) == bytes;
        release(block);
        if (full) return bytes;
    }
}

void illegal_write(char *at, char value) {
    touched = at;
    *(char *volatile *)&at = at;
    *(volatile char *)at = value;
    touched = NULL;
}

char illegal_read(const char *at) {
    touched = at;
    char value = *(const volatile char *)at;
    touched = NULL;
    return value;
}

struct pair neighbours(size_t size) {
    enum { COUNT = 64 };
    char *blocks[COUNT];
    struct pair best = {0};
    for (int i = 0; i < COUNT; i++) {
        blocks[i] = allocate(size);
        memset(blocks[i], 'A', size);
    }
    for (int i = 0; i < COUNT; i++)
        for (int j = 0; j < COUNT; j++)
            if (blocks[i] < blocks[j] && (best.low == NULL || blocks[j] - blocks[i] < best.high - best.low))
                best = (struct pair){blocks[i], blocks[j]};
    return best;
}

/* --- what comes after ---------------------------------------------------------------------------------------------- */

#define ROUNDS 4
#define BLOCKS 3000
static struct {
    unsigned char *start;
    size_t size;
} crowd[BLOCKS];

static size_t crowd_size(size_t i) {
    static const size_t sizes[] = {TINY_BYTES, 16, 24, 200, 1000, TINY_BYTES, 40, 64, 500, TINY_BYTES};
    if (i % 300 == 299) return LARGE_BYTES;
    if (i % 15 == 14) return MID_BYTES;
    return sizes[i % 10];
}

static void crowd_check(size_t i) {
    for (size_t j = 0; j < crowd[i].size; j++)
        if (crowd[i].start[j] != (unsigned char)(i * 7 + 1)) verdict(OUTCOME_UNDETECTED, "later two blocks overlapped");
}

void aftermath(void) {
    for (int round = 0; round < ROUNDS; round++) {
        size_t blocks =
            BLOCKS * (size_t)(round + 1) / ROUNDS; /* more each time, so that nothing that was freed is left */
        for (size_t i = 0; i < blocks; i++) {
            crowd[i].size = crowd_size(i);
            crowd[i].start = (unsigned char *)allocate(crowd[i].size);
            memset(crowd[i].start, (int)(i * 7 + 1), crowd[i].size);
        }
        for (size_t i = 0; i < blocks; i++) crowd_check(i);
        for (size_t i = 0; i < blocks; i++) release(crowd[i].start);
    }
}

#define TAKEN 400
static char *taken[TAKEN];

static bool is_among(const char *block, char *const *blocks, int count) {
    for (int i = 0; i < count; i++)
        if (blocks[i] == block) return true;
    return false;
}

bool hands_out_any(size_t size, char *const *live, int count) {
    for (int i = 0; i < TAKEN; i++) {
        taken[i] = allocate(size);
        if (is_among(taken[i], taken, i) || is_among(taken[i], live, count)) return true;
    }
    return false;
}

bool hands_out_twice(size_t size) { return hands_out_any(size, NULL, 0); }

bool hands_out(size_t size, const char *bait, size_t bytes) {
    for (int i = 0; i < TAKEN; i++) {
        taken[i] = allocate(size);
        if (taken[i] + size > bait && taken[i] < bait + bytes) return true;
    }
    return false;
}

void gained_if(bool gained, const char *what) {
    if (gained) verdict(OUTCOME_UNDETECTED, "%s", what);
}

_Noreturn void conclude(bool damaged, const char *what) {
    damage_done = damaged;
    aftermath();
    gained_if(damaged, what);
    verdict(OUTCOME_HARMLESS, "no effect");
}

void *optional_function(const char *name) { return dlsym(RTLD_DEFAULT, name); }

/* --- an older kernel ------------------------------------------------------------------------------------------------ */

#define MARKS_ADVICE 102 /* MADV_GUARD_INSTALL */

/* Start again behind a filter that does not know guards in the page table, as kernels before 6.13. */
static void start_without_marks(char **argv) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MARKS_ADVICE, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {.len = sizeof code / sizeof *code, .filter = code};
    unsetenv("ATTACKS_WITHOUT_MARKS");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
        verdict(OUTCOME_NOT_HERE, "no filters");
    execv("/proc/self/exe", argv);
}

/* --- the program --------------------------------------------------------------------------------------------------- */

static const struct attack *const groups[] = {overflow_attacks, misuse_attacks, stale_attacks, guess_attacks};
#define GROUPS (sizeof groups / sizeof *groups)

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    program_path = argv[0];
    if (getenv("ATTACKS_WITHOUT_MARKS") != NULL) start_without_marks(argv);
    bool list = strcmp(argv[1], "--list") == 0;
    for (size_t group = 0; group < GROUPS; group++)
        for (const struct attack *attack = groups[group]; attack->name != NULL; attack++) {
            if (list && *attack->title != 0) printf("%s\t%s\n", attack->name, attack->title);
            if (list || strcmp(argv[1], attack->name) != 0) continue;
            catch_faults();
            attack->run();
            return 99;
        }
    return list ? 0 : 2;
}
