/* musl.h - force-included into the tests of a library for musl: what they use of glibc, which the library brings along. Weak: where it is preloaded, it is
 * found when the program starts. */
#ifndef TIDE_TEST_MUSL_H
#define TIDE_TEST_MUSL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <stddef.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

struct mallinfo2 {
    size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
};
void *pvalloc(size_t) __attribute__((weak));
int malloc_trim(size_t) __attribute__((weak));
int malloc_info(int, FILE *) __attribute__((weak));
struct mallinfo2 mallinfo2(void) __attribute__((weak));

#define TIDE_TEST_STACK_BYTES (128 * 1024) /* of a thread, unless the program asks for more */
#define TIDE_TEST_FOREIGN_SHELL \
    1 /* the system's shell is of another libc: it does not start with our library preloaded */

#define TIDE_TEST_LIBC_LAST_SIGNAL 34
#define TIDE_TEST_NO_MAIN_FIRST \
    1 /* in a forked child that leaves the lock of the list of threads held (1.2.3, on its own malloc, too) */
#define TIDE_TEST_NO_RAW_ENDS 1 /* threads are in a list that only pthread_exit takes them off */

static inline void closefrom(int lowest) { syscall(SYS_close_range, lowest, ~0u, 0); }

#endif
