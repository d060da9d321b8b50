/* life.h - the keeper's thread: when it starts, what it must not disturb, how it ends.
 *
 * It starts when more than 2 MiB of blocks are resident, from an operation that allocates (with nothing held), after the library's constructor has
 * run. keeper=off never starts it; in mode static it only answers (window.h). It has all signals blocked but those libc needs, a small stack, and open files and a working
 * directory of its own, so that a daemon that closes all files does not close ours, and no pipe stays open because of us.
 *
 * It ends when no thread of the program has a heap any more (else a main thread that left by pthread_exit would never be the last), and around
 * unshare() and setns(), which need a process with one thread. A forked child starts its own when it grows.
 */
#ifndef TIDE_KEEPER_LIFE_H
#define TIDE_KEEPER_LIFE_H

#include "os/os.h"

/* The process may have threads from now on. */
tide_hidden tide_cold void life_begin(void);
/* End the thread, if there is one. Returns whether there was. Other callers wait until life_resume. */
tide_hidden tide_cold bool life_pause(void);
/* Start it again, if there was one. */
tide_hidden tide_cold void life_resume(bool paused);
tide_hidden tide_cold bool life_runs(void);
/* An option of the keeper's was set. */
tide_hidden tide_cold void life_option_set(void);

#endif
