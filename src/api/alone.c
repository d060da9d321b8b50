/* alone.c - unshare and setns, which the kernel refuses in parts to a process with a second thread: the keeper's thread ends before the call
 * and starts again after it. A program that makes these calls without libc needs TIDE_KEEPER=off. */
#ifndef TIDE_PREFIXED

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <sched.h>

#include "api/public.h"
#include "keeper/life.h"

/* The kernel counts a thread that was joined for a moment longer. */
#define TRIES 100
#define NAP_NS 100000u

static int call_alone(int (*call)(int, int), int a, int b) {
    bool paused = life_pause();
    int error = call(a, b);
    for (int i = 0; i < TRIES && paused && error == -EINVAL; i++) {
        os_sleep_ns(NAP_NS);
        error = call(a, b);
    }
    if (paused) life_resume();
    if (error >= 0) return 0;
    errno = -error;
    return -1;
}

PUBLIC int unshare(int flags) { return call_alone(os_unshare, flags, 0); }
PUBLIC int setns(int file, int type) { return call_alone(os_setns, file, type); }

#endif
typedef int alone_is_not_empty;
