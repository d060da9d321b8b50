/* punch.h - giving back the empty pages of spans that still hold live blocks.
 *
 *   listed --take--> in hand --(pages go back, no lock held)--> in the heap's remote queue --drain--> listed, punched
 *
 * A span in hand is on no list, so nobody allocates from it. Its `queued` bit is set, so blocks that are freed meanwhile, by
 * its own thread too, gather in its remote word, and nobody else links it into the queue: that is done when the pages are back, and then
 * the span is collected like any other. So no lock is held during the system calls, and the owner never waits for them.
 *
 * A punched span has no owner on the hot path. Its first free takes the slow path, which sees that the span has changed; a span that
 * has not is not looked at again.
 */
#ifndef TIDE_HEAP_PUNCH_H
#define TIDE_HEAP_PUNCH_H

#include "heap/heap.h"

#define PUNCH_SPANS 32u

struct punch {
    struct heap *heap;
    unsigned count;
    struct {
        struct span *span;
        uint64_t pages[MID_PAGE_WORDS];
    } spans[PUNCH_SPANS];
};

/* Take spans of these tiers (enum tier_mask) of a heap in hand, while there is room. The caller owns the heap. Looks at a few spans only: false when none is left that was not looked
 * at. */
tide_hidden tide_cold bool punch_take(struct punch *punch, struct heap *heap, unsigned tiers);
/* Give their pages back; no lock. Returns the bytes that were resident. */
tide_hidden tide_cold size_t punch_purge(const struct punch *punch);
/* Put the spans in hand into the queue of their heap. Its lock is held, or the caller owns it. */
tide_hidden tide_cold void punch_end(struct punch *punch);

#endif
