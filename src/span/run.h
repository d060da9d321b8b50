/* run.h - the page-run allocator: runs of consecutive slices, taken and given back under one lock.
 *
 * Every slice below a region's top is in one of these states:
 *
 *     clean  --take-->  live  --release-->  dirty  --take-->  live
 *       ^                 |                   |
 *       |                 +--release clean--+ +--purge--> purging
 *       +-----------------------------------+----------------+
 *
 * clean: reads as zero, not resident. dirty: resident perhaps, reused first. purging: being given back, belongs to nobody
 * else meanwhile, so no lock is held during the system call.
 *
 * Placement: runs of up to 1 MiB come from the chunk whose longest free run fits best (so chunks fill up before others are opened), dirty ones
 * first, lowest address first. Longer runs take the lowest place where they fit, across chunks; from 16 MiB on at a chunk's boundary, if that
 * costs no refusal. Thread-safe; all functions take the run lock themselves.
 */
#ifndef TIDE_SPAN_RUN_H
#define TIDE_SPAN_RUN_H

#include "os/os.h"
#include "span/region.h"

/* Guards everything in regions but the contents of descriptors in use. Rank: after a heap's lock. */
extern tide_hidden struct os_lock run_lock;

/* `slices` consecutive slices, the first a multiple of `alignment` slices (a power of two). The head's descriptor is zero but
 * for `slices`. NULL: no memory. */
tide_hidden struct span *run_take(size_t slices, size_t alignment);

/* The same for a run that will be extended: at the start of a free stretch of several times its length, where there is one. */
tide_hidden struct span *run_take_roomy(size_t slices);

enum run_state { RUN_CLEAN, RUN_DIRTY };

/* Give a run back. Clears its head's descriptor; the others of the run are zero already. */
tide_hidden void run_release(struct span *head, size_t slices, enum run_state state);
/* The same for a run of which only the first `touched` slices were used: the others are what they were before. */
tide_hidden void run_release_front(struct span *head, size_t slices, size_t touched);
/* Take the slices that follow a run, too. False: they are not free. */
tide_hidden bool run_extend(struct span *head, size_t slices, size_t more);
/* Give back the slices of a run behind the first `keep`. */
tide_hidden void run_shorten(struct span *head, size_t slices, size_t keep, enum run_state state);

/* Whether slice `index` of a run that the caller holds may hold old data. */
tide_hidden bool run_slice_is_dirty(const struct span *head, size_t index);
/* Whether the slice of this descriptor is free and was in use before. */
tide_hidden bool run_was_used(const struct span *span);

/* Giving dirty free slices back to the system, the highest first, a chunk at a time. */
struct run_purge {
    size_t limit_bytes;    /* about so much and no more; SIZE_MAX: all, and the descriptors of empty chunks */
    size_t purged_bytes;   /* slices that are clean now */
    size_t returned_bytes; /* what was resident and went; also the part of kept slices that went before a call failed */
    size_t kept_bytes;     /* slices that the system refused (locked pages) */
    struct region *region; /* where to go on; NULL before the first step */
    size_t chunks_left;
};
/* The next chunk. False: done. */
tide_hidden tide_cold bool run_purge_step(struct run_purge *purge);
/* All at once. Returns the bytes returned, adds those that the system refused to `kept_bytes`. */
tide_hidden tide_cold size_t run_purge(size_t *kept_bytes);

/* Count what went back in another way, from under live blocks. */
tide_hidden tide_cold void run_count_returned(size_t bytes);

/* How memory moves between the program and the free runs. */
struct run_flow {
    size_t dirty_bytes;         /* free and dirty now */
    size_t dirty_low_bytes;     /* the least of it since the last look that reset it: what nobody has needed */
    uint64_t clean_taken_bytes; /* since the start: slices that were clean when taken; they cost page faults */
    uint64_t taken_bytes;       /* since the start: all slices taken */
};
/* A look; `reset`: the low mark starts again from now. */
tide_hidden tide_cold struct run_flow run_flow(bool reset);

/* Keep at most so much resident, as far as it is free: where that is exceeded, half of the free memory goes back at once. When a quarter of that is
 * taken again before the next time, and RUN_GROWTH_STEP_BYTES were taken in all, the program counts as grown, so that it does not pay again and
 * again. SIZE_MAX: no limit. */
#define RUN_KEEP_SMALL_BYTES (512 * KIB) /* of a program that is too small for a keeper */
tide_hidden tide_cold void run_keep_at_most(size_t bytes);
extern tide_hidden _Atomic size_t run_keep_bytes; /* that limit now */

/* Whether the program has grown beyond RUN_GROWTH_STEP_BYTES of resident blocks: maybe, when `clean_taken_bytes` has reached the mark (at first, that
 * step); surely, when that was seen as memory went back because of the limit above. Setting a mark clears it. */
#define RUN_GROWTH_STEP_BYTES (2 * MIB)
enum run_growth { RUN_NOT_GROWN, RUN_GROWN_MAYBE, RUN_GROWN_SURELY };
extern tide_hidden _Atomic uint32_t run_grown;
tide_hidden tide_cold void run_set_growth_mark(uint64_t clean_taken_bytes);
/* Resident bytes of all blocks' memory. */
tide_hidden tide_cold size_t run_resident_bytes(void);

struct run_totals {
    size_t dirty_bytes; /* free and dirty */
    size_t committed_bytes;
    size_t reserved_bytes;
    size_t metadata_bytes;
    size_t returned_bytes; /* since the start */
};
/* Without the lock: a moment's estimate while others work. */
tide_hidden tide_cold void run_totals(struct run_totals *totals);

/* In a forked child: what another thread was purging is free and dirty. Run lock. */
tide_hidden tide_cold void run_forked(void);
/* If the calling thread holds the run lock, put in order what an operation that will never end has left, and drop it. Slices may be lost. */
tide_hidden tide_cold void run_repair(void);

extern tide_hidden bool run_was_repaired; /* ever: slices may be lost since */

/* Everything that the lock guards; takes it. */
tide_hidden tide_cold const char *run_validate(void);
/* The same a piece at a time, beside other threads: the next chunks from number *next on. Sets it to where to go on, 0 at the end. */
tide_hidden tide_cold const char *run_validate_part(size_t *next);

#endif
