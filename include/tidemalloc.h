/* tidemalloc.h - what tidemalloc offers beyond the standard allocation functions.
 *
 * tidemalloc replaces malloc and friends by being preloaded or linked: a program needs this header only to give memory
 * back by hand, to read statistics or to set options. Every function here may be called from any thread, but not
 * from a signal handler. None of them changes errno unless it says so.
 */
#ifndef TIDEMALLOC_H
#define TIDEMALLOC_H

#include <stddef.h>
#include <stdint.h>

#define TIDEMALLOC_VERSION "0.1.0"

#ifdef __cplusplus
extern "C" {
#endif

/* What a flush did. All numbers are bytes, multiples of the page size. */
typedef struct tide_flush_report {
    size_t returned_bytes; /* resident before, given back to the operating system now */
    size_t kept_bytes;     /* empty memory that could not be given back (locked pages, a failing system call) */
    size_t pinned_bytes;   /* free blocks on resident pages that hold a live block, too */
    size_t
        missed_bytes; /* empty memory in the caches of threads that were inside an operation at every try, or, where the
                              kernel has no membarrier, of all other threads */
} tide_flush_report;

/* Give the empty memory of one tier back to the operating system now: the caches of all threads, sleeping ones too, what was freed into
 * them by others, the empty pages between live blocks, and all that threads share (spans that became empty are shared, whatever tier
 * they served). `report` may be NULL. Returns the bytes that were resident and are given back. Other threads go on: one that wants its cache back
 * waits for microseconds. Cost: about 0.3 us per 4 KiB page given back, and a membarrier for each of at most three tries.
 *   tiny magazine: blocks up to 1 KiB; mid pool: above, up to 32 KiB; large pool: above 32 KiB and all empty spans. */
size_t tide_tiny_magazine_flush_all(tide_flush_report *report);
size_t tide_mid_pool_flush(tide_flush_report *report);
size_t tide_large_pool_flush(tide_flush_report *report);
/* The mid and large pools together. */
size_t tide_pool_flush_all(tide_flush_report *report);
/* All three tiers. `malloc_trim(0)` does the same. */
size_t tide_release_all_caches(tide_flush_report *report);

/* For programs that want no thread but their own (TIDE_KEEPER=off): do what the keeper's thread would do now. Call it while the program has nothing
 * else to do, for instance in an event loop; from one thread or several. Returns the nanoseconds after which the next call is useful, UINT64_MAX: not
 * before the program allocates or frees again. With a keeper, or inside an allocation (a signal handler), it does nothing and returns UINT64_MAX. */
uint64_t tide_tick(void);

/* Statistics of the whole process, in bytes unless the name says otherwise. */
#define TIDE_STATS_VERSION 3
/* What a pool's capacity follows: how fast memory is taken from it. */
enum tide_pool_state { TIDE_POOL_MEMORY, TIDE_POOL_BALANCED, TIDE_POOL_PERFORMANCE };
typedef struct tide_stats {
    uint32_t version;         /* TIDE_STATS_VERSION of the library that filled it */
    uint32_t size;            /* bytes filled, never more than the caller's struct */
    uint64_t allocated_bytes; /* live blocks, rounded up to their usable size */
    uint64_t active_bytes;    /* spans and runs that hold at least one live block */
    uint64_t tiny_bytes;      /* live bytes by tier */
    uint64_t mid_bytes;
    uint64_t large_bytes;
    uint64_t retained_bytes;    /* empty, perhaps resident: what the caches hold now */
    uint64_t metadata_bytes;    /* committed for descriptors and heaps */
    uint64_t committed_bytes;   /* address space made readable and writable so far */
    uint64_t reserved_bytes;    /* address space reserved */
    uint64_t returned_bytes;    /* given back to the operating system since the start, cumulative */
    uint64_t refill_count;      /* times a thread's list of ready blocks was refilled */
    uint64_t span_retire_count; /* spans that became empty and left their heap */
    uint64_t remote_free_count; /* blocks freed by another thread, counted when their owner collects them */
    uint64_t nested_count;      /* operations that interrupted another one of the same thread (signal handlers) */
    uint64_t heap_count;        /* heaps ever made; they are reused by later threads */
    uint64_t thread_count;      /* threads bound to a heap now */
    /* Version 2: the keeper. Counted since the start, unless it says "now". */
    uint64_t keeper_running;      /* now: 1 while the keeper's thread exists */
    uint64_t keeper_wakeup_count; /* times its thread has slept */
    uint64_t keeper_cpu_ns;       /* of its thread */
    uint64_t flush_count;         /* quiet spells in which everything was given back */
    uint64_t hold_count;          /* quiet spells in which something was held, for a burst that was expected */
    uint64_t hold_hit_count;      /* of them, those in which it came in time */
    uint64_t hold_miss_count;     /* and those in which it did not */
    uint64_t trim_count;          /* shrinks while the program was busy */
    uint64_t pressure_count;      /* answers to memory pressure */
    uint64_t refault_bytes;       /* regret: given back, and taken again by the next burst */
    uint64_t patience_ns;         /* now: how long a quiet spell is waited out */
    uint64_t claim_possible;      /* now: 1 if sleeping threads' caches can be emptied (membarrier works) */
    uint64_t claim_mark_count;    /* rounds of marking all threads */
    uint64_t claim_wake_count;    /* threads that came back to their heap */
    uint64_t claim_wait_count;    /* of them, those that had to wait for it */
    uint64_t claim_wait_p99_ns;   /* 99 of 100 of those that came back waited no longer (within a factor of 2) */
    uint64_t claim_wait_max_ns;   /* the longest wait */
    uint64_t tiny_state, mid_state, large_state;                /* now: enum tide_pool_state */
    uint64_t tiny_rate_bytes, mid_rate_bytes, large_rate_bytes; /* now: taken from the page runs per 100 ms, smoothed */
    /* Version 3: what is retained, by tier, and why some of it stays. Now. */
    uint64_t tiny_retained_bytes, mid_retained_bytes; /* empty spans that threads keep */
    uint64_t large_retained_bytes;                    /* free page runs, whatever tier they served */
    uint64_t tiny_pinned_bytes, mid_pinned_bytes;     /* free blocks beside live ones */
    uint64_t locked_bytes;                            /* free page runs that the system did not take back (mlock) */
    uint64_t
        allocation_count; /* blocks handed out by the tiny and the mid tier; counted by libtidemalloc-count.so, else 0 */
    uint64_t keeper_state; /* enum tide_keeper_state */
} tide_stats;

/* Work is watched; the program looks idle; something is held for a burst that is expected; all went back, and the keeper is asleep. */
enum tide_keeper_state { TIDE_KEEPER_WATCH, TIDE_KEEPER_LOOK, TIDE_KEEPER_HOLD, TIDE_KEEPER_STILL };

/* Fill `stats`, a struct of `size` bytes. Returns 0, or EINVAL when stats is NULL or size is too small to hold version and
 * size. Walks all descriptors: microseconds per MiB of heap; numbers of threads at work are a moment's estimate. */
int tide_stats_get(tide_stats *stats, size_t size);

/* Read and change options by the name they have in the environment without `TIDE_`, in lower case (docs/OPTIONS.md).
 * Return 0; ENOENT for an unknown name; EINVAL for a bad value or a buffer that is too small; EPERM for an option
 * that can only be given in the environment, before the program starts. */
int tide_set(const char *name, const char *value);
int tide_get(const char *name, char *value, size_t size);

#ifdef TIDE_PREFIXED
/* A library built with -DTIDE_PREFIXED leaves the program's malloc alone and has these names instead. */
#include <stdio.h>
#include <malloc.h>
void *tide_malloc(size_t);
void tide_free(void *);
void *tide_calloc(size_t, size_t);
void *tide_realloc(void *, size_t);
void *tide_reallocarray(void *, size_t, size_t);
void *tide_memalign(size_t, size_t);
void *tide_aligned_alloc(size_t, size_t);
int tide_posix_memalign(void **, size_t, size_t);
void *tide_valloc(size_t);
void *tide_pvalloc(size_t);
void tide_cfree(void *);
void tide_free_sized(void *, size_t);
void tide_free_aligned_sized(void *, size_t, size_t);
size_t tide_malloc_usable_size(void *);
int tide_malloc_trim(size_t);
int tide_mallopt(int, int);
int tide_malloc_info(int, FILE *);
void tide_malloc_stats(void);
struct mallinfo tide_mallinfo(void);
struct mallinfo2 tide_mallinfo2(void);
#endif

#ifdef __cplusplus
}
#endif
#endif
