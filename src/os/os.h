/* os.h - the contract with the operating system: everything that is not arithmetic.
 *
 * Nothing above this folder makes a system call. Calls go to the kernel directly, not through libc's wrappers, so none
 * of them changes errno; those that can fail return 0 or -errno. Unit tests link tests/unit/fake_os.c instead.
 * All functions may be called from any thread and from signal handlers.
 */
#ifndef TIDE_OS_OS_H
#define TIDE_OS_OS_H

#include "base/base.h"

/* Bytes of a page, a power of two; set by os_init. */
extern tide_hidden size_t os_page_bytes;

tide_hidden void os_init(void);

/* --- memory ------------------------------------------------------------------------------------------------------ */

/* Address space without memory behind it, aligned to `alignment` (a power of two >= the page). NULL: none. It is left out of core files until it
 * is committed: gdb's gcore would write all of it. */
tide_hidden void *os_reserve(size_t bytes, size_t alignment);
/* Zeroed memory outside of any reserve. NULL: none. */
tide_hidden void *os_map(size_t bytes);
/* Make reserved pages readable and writable. */
tide_hidden int os_commit(void *at, size_t bytes);
/* Make committed pages resident in one call instead of a page fault each. A hint: nothing is lost where it is not obeyed. */
tide_hidden void os_populate(void *at, size_t bytes);
/* Give the pages' memory back; they read as zero afterwards. Fails half-way on locked pages. */
tide_hidden int os_purge(void *at, size_t bytes);
/* Make pages inaccessible without a mapping of their own, and give their memory back. -EINVAL: the kernel does not know it. And accessible again, reading as zero. */
tide_hidden int os_guard(void *at, size_t bytes);
tide_hidden int os_unguard(void *at, size_t bytes);
/* Make pages inaccessible as a mapping of their own; os_commit undoes it. */
tide_hidden int os_protect(void *at, size_t bytes);
/* Replace committed pages by fresh, zero ones in a mapping that can merge with its neighbours, of that name, again. */
tide_hidden int os_renew(void *at, size_t bytes, const char *name);
/* Move the memory behind `from` to `to` (both committed, of that name); `from` reads as zero afterwards. On failure `from` is as it was, and `to` holds
 * anything; but above a limit on address space `to` may be gone: do not move where there is one. */
tide_hidden int os_move(void *from, void *to, size_t bytes, const char *name);
/* How much of a mapping is resident: whole pages. All of it where the kernel does not tell. */
tide_hidden size_t os_resident_bytes(const void *at, size_t bytes);
tide_hidden void os_release(void *at, size_t bytes);
/* Name private anonymous memory for readers of /proc/PID/maps. Mappings merge only when their names are equal. */
tide_hidden void os_label(void *at, size_t bytes, const char *name);
/* Keep transparent huge pages out of a mapping. */
tide_hidden void os_forbid_huge(void *at, size_t bytes);
/* The soft limit on address space in bytes, SIZE_MAX when there is none. */
tide_hidden size_t os_address_space_limit(void);

/* --- waiting ----------------------------------------------------------------------------------------------------- */

/* A lock for slow paths: the holder's thread id and a bit for sleepers in one word, so that there is no moment in which it is held by nobody
 * known. Recursive, because fork handlers of the program run, and allocate, while the forking thread holds every lock. Zero is a
 * free lock. */
struct os_lock {
    _Atomic uint32_t state;
    uint32_t depth; /* holder only */
#ifdef TIDE_DEBUG
    uint8_t rank;
#endif
};

/* The order in which locks are taken (rank.h); known to the lock in debug builds only. */
enum os_rank {
    RANK_NONE,
    RANK_LIFE_PAUSE,
    RANK_LIFE,
    RANK_KEEPER,
    RANK_CLAIM,
    RANK_REGISTRY,
    RANK_HEAP,
    RANK_SHARED,
    RANK_RUN,
    RANK_META,
    RANKS,
};
#ifdef TIDE_DEBUG
#define OS_LOCK(rank_) \
    { .rank = (rank_) }
#define os_lock_set_rank(lock, rank_) ((void)((lock)->rank = (rank_)))
#else
#define OS_LOCK(rank_) \
    { 0 }
#define os_lock_set_rank(lock, rank_) ((void)(lock))
#endif

tide_hidden void os_lock_take(struct os_lock *lock);
tide_hidden bool os_lock_try(struct os_lock *lock);
tide_hidden void os_lock_drop(struct os_lock *lock);
tide_hidden bool os_lock_is_mine(struct os_lock *lock);
/* In a forked child: nobody holds it, whatever it says. */
tide_inline void os_lock_forget(struct os_lock *lock) {
    atomic_store_explicit(&lock->state, 0, memory_order_relaxed);
    lock->depth = 0;
}
/* After a jump out of an operation: drop a lock however deep, if it is the caller's; wake a sleeper, in case the operation was about to. */
tide_hidden void os_lock_abandon(struct os_lock *lock);

/* In a forked child, which has one thread. The caller's id as its locks still show it; from now on it has a new one. */
tide_hidden uint32_t os_forked(void);
/* Give a lock of the caller's its new id; free a lock that a thread of the parent held. True: that was so. */
tide_hidden bool os_lock_inherit(struct os_lock *lock, uint32_t old_id);

/* Prepare for os_barrier. False: the kernel cannot, or a filter forbids it. */
tide_hidden bool os_barrier_register(void);
/* A full memory fence in every thread of the process that is running. */
tide_hidden int os_barrier(void);

/* Sleep until somebody wakes the word, if it holds `value`; at most `timeout_ns`, UINT64_MAX: without a limit. May return early. The word may be in memory
 * that processes share. */
tide_hidden void os_wait(_Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns);
/* Wake who waits for the word; harmless where nobody does. */
tide_hidden void os_wake(_Atomic uint32_t *word);

/* The calling thread's, as the kernel numbers them. */
tide_hidden uint32_t os_thread_id(void);
tide_hidden uint64_t os_now_ns(void);
tide_hidden uint64_t os_thread_cpu_ns(void);
tide_hidden void os_sleep_ns(uint64_t ns);

/* --- process ----------------------------------------------------------------------------------------------------- */

/* The value of an environment variable; NULL also in a program with raised privileges. */
tide_hidden const char *os_environment(const char *name);
/* All variables, or NULL (too early in the program's start, or raised privileges). */
tide_hidden char **os_environment_all(void);
tide_hidden bool os_is_emulated(void); /* Valgrind, qemu-user: there a large reserve is slow. After os_init */
tide_hidden bool os_on_signal_stack(void);
/* Block all signals for the calling thread but those that libc needs. Returns the mask before: signal n is bit n - 1. */
tide_hidden uint64_t os_signals_block(void);
tide_hidden void os_signals_restore(uint64_t mask);
/* As the kernel knows it. In a child of vfork, which shares our memory, it is not what it was. */
tide_hidden int os_process_id(void);
#define OS_NAME_BYTES 16
tide_hidden void os_thread_name(char name[OS_NAME_BYTES]);
tide_hidden void os_thread_rename(const char *name);
/* The calling thread gets a name, and a table of open files and a working directory of its own; the table holds nothing but standard error, if
 * wanted. False: the table is still everybody's. */
tide_hidden bool os_detach_thread(const char *name, bool keep_stderr);

/* Files, for a detached thread: never standard in- or output. Numbers, or -errno. */
enum os_open { OS_READ, OS_READ_WRITE };
tide_hidden int os_file_open(const char *path, enum os_open how);
tide_hidden long os_file_read(int file, void *to, size_t bytes);
tide_hidden long os_file_write(int file, const void *from, size_t bytes);
tide_hidden long os_file_write_at(int file, const void *from, size_t bytes, size_t offset);
/* A file in memory that nobody can make larger or smaller, full of zeros; no directory has it. */
tide_hidden int os_file_in_memory(const char *name, size_t bytes);
/* The first bytes of a file as memory that is shared with whoever else has mapped it; in place of what is at `at`, unless that is NULL. NULL: not possible. */
tide_hidden void *os_file_map(int file, size_t bytes, void *at);
/* Put zeroed memory of our own in its place. */
tide_hidden void os_file_forget(void *at, size_t bytes);
tide_hidden void os_file_close(int file);
enum os_event { OS_NO_EVENT, OS_EVENT, OS_FILE_BROKEN };
/* Whether a file has something to tell now: data, or the priority event of a pressure trigger. */
tide_hidden enum os_event os_file_poll(int file, bool priority);

/* Bytes that nobody can guess; from early in the start on, and without waiting. */
tide_hidden void os_random(void *to, size_t bytes);

tide_hidden void os_print_error(const char *text, size_t length);
tide_hidden _Noreturn void os_abort(void);
/* End the process at once: nothing of libc runs any more. */
tide_hidden _Noreturn void os_exit(int status);
/* setrlimit and mlockall without libc, for the functions of that name that stand in front of libc's. 0 or -errno. */
struct rlimit;
tide_hidden int os_limit_change(int pid, int resource, const struct rlimit *new_limit, struct rlimit *old_limit);
tide_hidden int os_lock_memory(int flags);
/* unshare and setns, too. */
tide_hidden int os_unshare(int flags, int nothing);
tide_hidden int os_setns(int file, int type);

#endif
