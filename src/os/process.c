#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "os/call.h"
#include "os/kernel.h"
#include "os/os.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

char **os_environment_all(void) { return getauxval(AT_SECURE) != 0 ? NULL : environ; }

const char *os_environment(const char *name) {
    char **all = os_environment_all();
    size_t length = strlen(name);
    for (; all != NULL && *all != NULL; all++)
        if (strncmp(*all, name, length) == 0 && (*all)[length] == '=') return *all + length + 1;
    return NULL;
}

bool os_on_signal_stack(void) {
    stack_t stack = {0};
    return os_call(SYS_sigaltstack, NULL, &stack, 0, 0) == 0 && (stack.ss_flags & SS_ONSTACK) != 0;
}

int os_process_id(void) { return (int)os_call(SYS_getpid, 0, 0, 0, 0); }

void os_thread_name(char name[OS_NAME_BYTES]) { os_call(SYS_prctl, PR_GET_NAME, name, 0, 0); }

void os_thread_rename(const char *name) { os_call(SYS_prctl, PR_SET_NAME, name, 0, 0); }

/* Of this thread's own table the kernel copies nothing that is closed in the same call. */
bool os_detach_thread(const char *name, bool keep_stderr) {
    os_thread_rename(name);
    if (os_call(SYS_unshare, CLONE_FS, 0, 0, 0) == 0) os_call(SYS_chdir, "/", 0, 0, 0); /* hold no file system busy */
    if (os_call(SYS_close_range, keep_stderr ? STDERR_FILENO + 1 : 0, UINT_MAX, CLOSE_RANGE_UNSHARE, 0) != 0)
        return false;
    if (keep_stderr) os_call(SYS_close_range, 0, STDERR_FILENO - 1, 0, 0);
    return true;
}

/* The number of a new file may be that of a standard stream, where somebody could write a message. */
static long above_standard_streams(long file) {
    if (file < 0 || file > STDERR_FILENO) return file;
    long other = os_call(SYS_fcntl, file, F_DUPFD_CLOEXEC, STDERR_FILENO + 1, 0);
    os_file_close((int)file);
    return other;
}

int os_file_open(const char *path, enum os_open how) {
    int flags = (how == OS_READ ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    return (int)above_standard_streams(os_call(SYS_openat, AT_FDCWD, path, flags, 0));
}

long os_file_read(int file, void *to, size_t bytes) { return os_call(SYS_read, file, to, bytes, 0); }

long os_file_write(int file, const void *from, size_t bytes) { return os_call(SYS_write, file, from, bytes, 0); }

long os_file_write_at(int file, const void *from, size_t bytes, size_t offset) {
    return os_call6(SYS_pwrite64, file, (long)from, (long)bytes, (long)offset, 0, 0);
}

int os_file_in_memory(const char *name, size_t bytes) {
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    long file = os_call(SYS_memfd_create, name, flags | MFD_NOEXEC_SEAL, 0, 0);
    if (file == -EINVAL) file = os_call(SYS_memfd_create, name, flags, 0, 0);
    file = above_standard_streams(file);
    if (file < 0) return (int)file;
    long seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    long result = os_call(SYS_ftruncate, file, bytes, 0, 0);
    if (result == 0) result = os_call(SYS_fcntl, file, F_ADD_SEALS, seals, 0);
    if (result == 0) return (int)file;
    os_file_close((int)file);
    return (int)result;
}

void *os_file_map(int file, size_t bytes, void *at) {
    int flags = MAP_SHARED | (at != NULL ? MAP_FIXED : 0);
    long result = os_call6(SYS_mmap, (long)at, (long)bytes, PROT_READ | PROT_WRITE, flags, file, 0);
    return result < 0 && result > -4096 ? NULL : (void *)result;
}

void os_file_forget(void *at, size_t bytes) {
    os_call6(SYS_mmap, (long)at, (long)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

void os_file_close(int file) { os_call(SYS_close, file, 0, 0, 0); }

enum os_event os_file_poll(int file, bool priority) {
    struct pollfd poll = {.fd = file, .events = priority ? POLLPRI : POLLIN};
    struct timespec now = {0};
    if (os_call6(SYS_ppoll, (long)&poll, 1, (long)&now, 0, 0, 0) <= 0) return OS_NO_EVENT;
    return (poll.revents & poll.events) != 0 ? OS_EVENT : OS_FILE_BROKEN;
}

/* No mask: SIGKILL is in none. What was not changed must not be set back, or signals that the program blocks would come. */
#define NOT_BLOCKED UINT64_MAX

/* Signal n is bit n - 1. libc keeps 32 and 33 for cancellation and for setuid in all threads; its threads for timers have 32 blocked. */
uint64_t os_signals_block(void) {
    uint64_t all = ~(UINT64_C(3) << 31), before = 0;
    return os_call(SYS_rt_sigprocmask, SIG_BLOCK, &all, &before, sizeof before) == 0 ? before : NOT_BLOCKED;
}

void os_signals_restore(uint64_t mask) {
    if (mask != NOT_BLOCKED) os_call(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, sizeof mask);
}

/* Before the kernel's generator is ready, or behind a filter: what the kernel gave this process at its start, and the time. */
static uint8_t random_byte(size_t i) {
    const uint8_t *given = (const uint8_t *)getauxval(AT_RANDOM); /* 16 bytes */
    struct timespec now = {0};
    os_call(SYS_clock_gettime, CLOCK_MONOTONIC, &now, 0, 0);
    uint64_t word = ((uint64_t)now.tv_nsec + i) * UINT64_C(0x9e3779b97f4a7c15);
    return (uint8_t)((given != NULL ? given[i % 16] : 0) ^ (word >> 56));
}

void os_random(void *to, size_t bytes) {
    if (os_call(SYS_getrandom, to, bytes, GRND_NONBLOCK, 0) == (long)bytes) return;
    for (size_t i = 0; i < bytes; i++) ((uint8_t *)to)[i] = random_byte(i);
}

void os_print_error(const char *text, size_t length) {
    while (length > 0) {
        long written = os_call(SYS_write, STDERR_FILENO, text, length, 0);
        if (written <= 0) return;
        text += written;
        length -= (size_t)written;
    }
}

int os_unshare(int flags, int nothing) {
    (void)nothing;
    return (int)os_call(SYS_unshare, flags, 0, 0, 0);
}

int os_setns(int file, int type) { return (int)os_call(SYS_setns, file, type, 0, 0); }

void os_abort(void) { abort(); }

void os_exit(int status) {
    for (;;) os_call(SYS_exit_group, status, 0, 0, 0);
}
