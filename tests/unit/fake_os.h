/* fake_os.h - an operating system for unit tests: implements os/os.h in place of src/os/{memory,wait,process}.c.
 *
 * Memory is real, but every range of it is also in a model of the address space:
 *
 *    reserve --commit--> committed --release--> gone (never handed out again; an access faults)
 *       +-----------------------------release-----^
 *
 * and a misuse (committing what is not reserved, purging half a page, dropping a lock of another thread ...) fails the test at once.
 * Neighbouring ranges that are alike count as one mapping, as in the kernel; what was moved is unlike until it is renewed.
 *
 * Every call is counted, and scripts make chosen ones fail. Failing calls do the worst that the kernel may do: a purge has been done half, a
 * move has emptied its target. The clock stands still until somebody sleeps. Not thread-safe: simulated threads take turns.
 */
#ifndef TIDE_UNIT_FAKE_OS_H
#define TIDE_UNIT_FAKE_OS_H

#include "os/os.h"

enum fake_call {
    FAKE_RESERVE,
    FAKE_MAP,
    FAKE_COMMIT,
    FAKE_PURGE,
    FAKE_RENEW,
    FAKE_MOVE,
    FAKE_GUARD,
    FAKE_LIMIT,
    FAKE_BARRIER_REGISTER,
    FAKE_BARRIER,
    FAKE_ANY, /* all of the above: those that may fail */
    FAKE_CALLS = FAKE_ANY,
};

struct fake {
    size_t page_bytes;           /* what os_init finds: 4, 16 or 64 KiB */
    size_t reserve_max_bytes;    /* larger reserves fail */
    size_t reserve_offset_bytes; /* a reserve starts this far behind a multiple of 64 MiB */
    size_t budget_bytes;         /* commits and maps beyond it fail, as under strict overcommit */
    size_t address_space_limit;  /* RLIMIT_AS */
    char **environment;          /* NULL: too early, or raised privileges */
    bool emulated, on_signal_stack;
    uint64_t now_ns, slept_ns;
    unsigned signals_blocked;
    size_t wakes;                  /* calls of os_wake and heap_on_bell */
    size_t ends;                   /* calls of heap_on_thread_end */
    size_t starts, calls_at_start; /* calls of heap_on_start, and of the system when the first one came */
    size_t growths, forks;        /* calls of heap_on_growth and heap_on_fork, which the layer above the heap defines */
    size_t count[FAKE_CALLS + 1]; /* calls so far; [FAKE_ANY]: of all kinds */
    size_t failed;                /* calls that a script or a limit made fail */
    size_t huge_forbidden_bytes;
    size_t guarded_bytes; /* by os_guard, less those of os_unguard */
    size_t charged_bytes; /* committed and mapped, to compare with the budget */
    char error[4096];     /* all that was printed */
    /* Looks on before a call of the kinds above does its work: what locks are held, what state things are in. */
    void (*on_call)(enum fake_call call, void *at, size_t bytes);
    void (*on_resident)(const void *at, size_t bytes); /* the same for os_resident_bytes, which cannot fail */
    void (*on_growth)(void);
    const char *abort_expected; /* fake_abort_text */
};
extern struct fake fake;

/* From the nth call of the kind from now on (1: the next one), `count` calls fail with -error. Replaces the script before it. */
void fake_fail(enum fake_call call, size_t nth, size_t count, int error);
void fake_heal(void); /* no script any more */

bool fake_is_committed(const void *at, size_t bytes);
bool fake_is_reserved(const void *at, size_t bytes); /* reserved, not committed */
size_t fake_mappings(void);
size_t fake_reserved_bytes(void);                         /* committed or not */
size_t fake_resident_bytes(const void *at, size_t bytes); /* whole pages with a byte that was touched */
/* mlock: a purge stops there with -EINVAL. */
void fake_lock_pages(const void *at, size_t bytes, bool locked);

unsigned fake_locks_held(void);
/* The calling thread takes the place of thread `id`, 1 .. 9, at the locks. 1 at the start. */
void fake_thread_is(uint32_t id);

#endif
