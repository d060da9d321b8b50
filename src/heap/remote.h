/* remote.h - blocks that another thread frees.
 *
 * Each tiny and mid span has one word that any thread may change, by compare-and-swap:
 *
 *    63          33   32    31      16 15       0
 *   +--------------+--------+---------+----------+
 *   |      0       | queued |  count  | head + 1 |     head: number of the block freed last (tiny: in granules)
 *   +--------------+--------+---------+----------+
 *
 * The blocks are linked through their first word, which holds the number + 1 of the next one, 0 at the end; the second word holds the key.
 * Who sets `queued` also links the span into the queue of its heap; only the owner clears it, when it unlinks the span. A queued
 * span is never given up, so the queue never holds a descriptor that serves something else. The list is only pushed to, and
 * taken whole, so a head that returns is no danger (no ABA).
 */
#ifndef TIDE_HEAP_REMOTE_H
#define TIDE_HEAP_REMOTE_H

#include "heap/heap.h"

#define REMOTE_QUEUED ((uint64_t)1 << 32)

tide_inline uint32_t remote_head(uint64_t word) { return (uint32_t)(word & 0xffff); }
tide_inline uint32_t remote_count(uint64_t word) { return (uint32_t)(word >> 16 & 0xffff); }

tide_inline bool remote_is_queued(const struct span *span) {
    return (atomic_load_explicit(&span->remote, memory_order_acquire) & REMOTE_QUEUED) != 0;
}

/* Put a live block, number `index`, on its span's list. Lock-free, async-signal-safe, needs no heap. True: the span is in its heap's queue
 * only since now. */
tide_hidden bool remote_push(struct span *span, struct block *block, uint32_t index);

/* The owner's side, and that of who stands in for it. */
/* Set `queued` without linking the span, so that nobody else does. False: it is in the queue, or on the way there. */
tide_hidden bool remote_withdraw(struct span *span);
/* Link a span whose `queued` bit the caller has set. */
tide_hidden void remote_enqueue(struct span *span);
/* All of the list; the span is out of the queue then. */
tide_hidden uint64_t remote_take_all(struct span *span);
/* The spans that wait, linked by remote_next. */
tide_hidden struct span *remote_take_queue(struct heap *heap);

#endif
