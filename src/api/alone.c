/* alone.c - unshare and setns, which the kernel refuses in parts to a process with a second thread: the keeper's thread ends before the call
 * and starts again after it. A program that makes these calls without libc needs TIDE_KEEPER=off. */
#ifndef TIDE_PREFIXED

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>

#include "api/public.h"
#include "heap/heap.h"
#include "keeper/life.h"
#include "os/kernel.h"

/* The kernel counts a thread that was joined for a moment longer. */
#define TRIES 100
#define NAP_NS 100000u

/* What the kernel refuses to a process with threads. After CLONE_NEWPID no thread could be started again. */
#define UNSHARE_ALONE (CLONE_NEWUSER | CLONE_VM | CLONE_SIGHAND | CLONE_THREAD)

static int call_alone(int (*call)(int, int), int a, int b, bool alone) {
    if (alone) { /* not inside an operation: the keeper may wait for what that holds */
        alone = heap_try_enter();
        if (alone) heap_quit();
    }
    bool paused = alone && life_pause();
    int error = call(a, b);
    for (int i = 0; i < TRIES && paused && error == -EINVAL; i++) {
        os_sleep_ns(NAP_NS);
        error = call(a, b);
    }
    if (alone) life_resume(paused);
    if (error >= 0) return 0;
    errno = -error;
    return -1;
}

PUBLIC int unshare(int flags) { return call_alone(os_unshare, flags, 0, (flags & UNSHARE_ALONE) != 0); }
/* Type 0: whatever the file is. */
PUBLIC int setns(int file, int type) {
    return call_alone(os_setns, file, type, type == 0 || (type & (CLONE_NEWUSER | CLONE_NEWTIME)) != 0);
}

#endif
typedef int alone_is_not_empty;
