/* large.h - the large tier: one block per run of slices, above 32 KiB or aligned to more than that.
 *
 *   | the program's bytes, rounded up to pages | never touched, up to the end of the last slice |
 *                                                (while guards are on, at least a page, and nobody can: span/guard.h)
 *
 * Blocks belong to no thread: any thread may allocate, free and resize them. Thread-safe but for the block itself, as usual. A block in the place of an
 * earlier one has that one's bytes behind its last; these go back in a quiet moment.
 */
#ifndef TIDE_TIER_LARGE_H
#define TIDE_TIER_LARGE_H

#include "span/region.h"

enum large_wish {
    LARGE_PLAIN,
    LARGE_ZERO,        /* reads as zero */
    LARGE_GROWN,       /* takes the place of a smaller block */
    LARGE_GROWN_AGAIN, /* of one that had already grown: likely to grow on, so it gets room for that */
};

/* A block of at least `size` bytes at a multiple of `alignment`, a power of two. NULL: no memory. */
tide_hidden void *large_take(size_t size, size_t alignment, enum large_wish wish);
/* False: no live block starts here (another thread was faster). */
tide_hidden bool large_release(struct span *head);
/* While guards are on, a block that was freed is held: its memory goes back at once, its pages are out of reach, and its place in the address space is used
 * again only when others have been freed since. This gives all such places back. Returns whether there were any. */
tide_hidden bool large_settle(void);
/* Change the size in place, or by moving the pages to another place without copying them. Returns where the block is now; NULL:
 * it could not be done, the block is as it was. */
tide_hidden void *large_resize(struct span *head, size_t size);
/* Giving back the pages behind the last bytes of live blocks. */
struct large_trim {
    const struct region *region; /* where to go on; NULL before the first step */
    size_t slice;
    size_t returned_bytes; /* that were resident */
};
/* Whether there may be enough of them to be worth a walk. */
tide_hidden tide_cold bool large_wants_trim(void);
/* A walk was begun and is not finished: there still may be. */
tide_hidden tide_cold void large_trim_break(void);
/* Some more blocks. False: done. The run lock is held for a system call or two at a time. */
tide_hidden tide_cold bool large_trim_step(struct large_trim *trim);

/* The head of the large block that has `span` among its slices, NULL if none has. */
tide_hidden struct span *large_around(struct span *span);
/* Of a block that nobody changes meanwhile, live or held. */
tide_hidden tide_cold const char *large_validate(const struct span *head);

#endif
