/* limits.c - setrlimit, prlimit and mlockall, which would trip over the reserve: address space that nobody uses counts against
 * RLIMIT_AS and against the limit on locked memory. So the part of the reserve that a limit leaves no room for is given up. */
#ifndef TIDE_PREFIXED

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "api/public.h"
#include "heap/heap.h"
#include "span/run.h"

static void reserve_trim(size_t keep_bytes) {
    if (!heap_try_enter()) return; /* the interrupted operation may be at work on the reserve */
    os_lock_take(&run_lock);
    region_trim(keep_bytes);
    os_lock_drop(&run_lock);
    heap_quit();
}

static int result_of(int error) {
    if (error == 0) return 0;
    errno = -error;
    return -1;
}

static int limit_change(int pid, int resource, const struct rlimit *new_limit, struct rlimit *old_limit) {
    int error = os_limit_change(pid, resource, new_limit, old_limit);
    bool own = pid == 0 || pid == getpid();
    if (error == 0 && own && resource == RLIMIT_AS && new_limit != NULL && os_address_space_limit() != SIZE_MAX)
        reserve_trim(os_address_space_limit() / 4);
    return result_of(error);
}

/* Every libc declares these with types of its own that are the same to the processor, and some as macros: so only the symbols have the names. rlimit and
 * rlimit64 are the same struct on 64-bit systems. */
#define SET_LIMIT(name) \
    PUBLIC int limits_##name(int resource, const struct rlimit *limit) __asm__(#name); \
    int limits_##name(int resource, const struct rlimit *limit) { return limit_change(0, resource, limit, NULL); }
#define PROCESS_LIMIT(name) \
    PUBLIC int limits_##name(int pid, int resource, const struct rlimit *new_limit, \
                             struct rlimit *old_limit) __asm__(#name); \
    int limits_##name(int pid, int resource, const struct rlimit *new_limit, struct rlimit *old_limit) { \
        return limit_change(pid, resource, new_limit, old_limit); \
    }

SET_LIMIT(setrlimit)
SET_LIMIT(setrlimit64)
PROCESS_LIMIT(prlimit)
PROCESS_LIMIT(prlimit64)

PUBLIC int mlockall(int flags) {
    reserve_trim(0);
    return result_of(os_lock_memory(flags));
}

#endif
typedef int limits_is_not_empty;
