/* check.h - assertions for test programs, and small helpers that all of them need.
 *
 * A failed CHECK prints one line and ends the process with status 1 at once. It allocates nothing and takes no lock, so it
 * may be used in signal handlers, in forked children and while the allocator under test is broken. */
#ifndef TIDE_TEST_CHECK_H
#define TIDE_TEST_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__cplusplus)
#define CHECK_NORETURN [[noreturn]]
#else
#define CHECK_NORETURN _Noreturn
#endif

CHECK_NORETURN void check_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define CHECK(condition) \
    do { \
        if (!(condition)) check_die("%s:%d: failed: %s", __FILE__, __LINE__, #condition); \
    } while (0)

/* The same with values in the message. */
#define CHECKF(condition, format, ...) \
    do { \
        if (!(condition)) check_die("%s:%d: failed: %s: " format, __FILE__, __LINE__, #condition, __VA_ARGS__); \
    } while (0)

/* ctest counts this exit status as "skipped". */
#define CHECK_SKIPPED 77

/* Random numbers: splitmix64. Each thread keeps a state of its own. */
static inline uint64_t random_next(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
static inline size_t random_below(uint64_t *state, size_t limit) { return (size_t)(random_next(state) % limit); }

/* Nanoseconds of the monotonic clock: to bound how long a test works, never to judge the allocator. */
uint64_t clock_now_ns(void);
/* Sleep without being cut short by signals. */
void clock_sleep_us(unsigned microseconds);

/* What the kernel says about this process, in bytes. Read with raw system calls: nothing is allocated. */
size_t process_resident_bytes(void);
size_t process_virtual_bytes(void);
/* Tasks (threads) the kernel has for this process now. */
size_t process_task_count(void);

/* Wait for a child and require that it exits with status 0. */
void process_expect_success(pid_t child, const char *what);

/* How to start a program, "/proc/self/exe" for this one, with the arguments `argv`: where the kernel cannot do it by itself, because this is a program of
 * another processor, through the emulator that the environment names. Allocates nothing. */
typedef struct again {
    const char *path;
    char *words[24];
} again_t;
again_t process_again(const char *program, char *const argv[]);

/* Program arguments as numbers: argument `index`, or `fallback` when it is not given. */
uint64_t argument_number(int argc, char **argv, int index, uint64_t fallback);

#ifdef __cplusplus
}
#endif
#endif
