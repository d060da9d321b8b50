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

/* Give all dirty free slices back to the system. Returns the bytes returned, adds those that the system refused to
 * `kept_bytes`. */
tide_hidden size_t run_purge(size_t *kept_bytes);

struct run_totals {
    size_t dirty_bytes; /* free and dirty */
    size_t committed_bytes;
    size_t reserved_bytes;
    size_t metadata_bytes;
    size_t returned_bytes; /* purged since the start */
};
tide_hidden void run_totals(struct run_totals *totals);

/* In a forked child: what another thread was purging is free and dirty. Run lock. */
tide_hidden void run_forked(void);
/* If the calling thread holds the run lock, put in order what an operation that will never end has left, and drop it. Slices may be lost. */
tide_hidden void run_repair(void);

/* Every structure consistent? For tests and debug builds; takes the lock. */
tide_hidden bool run_validate(void);

#endif
