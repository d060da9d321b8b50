/* large.h - the large tier: one block per run of slices, above 32 KiB or aligned to more than that.
 *
 *   | the program's bytes, rounded up to pages | never touched, up to the end of the last slice |
 *
 * Blocks belong to no thread: any thread may allocate, free and resize them. Thread-safe but for the block itself, as usual.
 */
#ifndef TIDE_TIER_LARGE_H
#define TIDE_TIER_LARGE_H

#include "span/span.h"

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
/* Change the size in place, or by moving the pages to another place without copying them. Returns where the block is now; NULL:
 * it could not be done, the block is as it was. */
tide_hidden void *large_resize(struct span *head, size_t size);
/* The head of the large block that has `span` among its slices, NULL if none has. */
tide_hidden struct span *large_around(struct span *span);

#endif
