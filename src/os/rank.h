/* rank.h - the order of locks, checked in debug builds: a thread that waits for a lock holds none of its rank or a later one.
 *
 *   life_pause, life, keeper, claim, registry, a heap's, heap_shared's, run, meta
 *
 * Who holds the registry's may hold several heaps' locks: fork takes all. To try a lock never waits, so that is allowed in any order, and so is
 * to take once more what the thread holds. Nothing of this is in a release build.
 */
#ifndef TIDE_OS_RANK_H
#define TIDE_OS_RANK_H

#include "os/os.h"

#ifdef TIDE_DEBUG
/* Before waiting: a wrong order ends the process with one line. */
tide_hidden void rank_wanted(struct os_lock *lock);
/* The calling thread holds it now; has just dropped it. */
tide_hidden void rank_taken(struct os_lock *lock);
tide_hidden void rank_dropped(struct os_lock *lock);
/* After a jump: the thread holds none of this rank any more that others know. */
tide_hidden void rank_forget(unsigned rank);
#else
#define rank_wanted(lock) ((void)0)
#define rank_taken(lock) ((void)0)
#define rank_dropped(lock) ((void)0)
#define rank_forget(rank) ((void)0)
#endif

#endif
