/* tiny.h - the tiny tier: 64 KiB spans of equal blocks of up to 1 KiB.
 *
 *   span   | block 0 | block 1 | ... | block carved-1 | never touched ........... |
 *   block  free:  | next free block | key |  ...          live: the program's bytes
 *                   (both encoded, and junk behind them, in the secure build: span/guard.h)
 *
 * Free blocks form a list through their first word: the ready list that malloc pops and free pushes. Blocks are made
 * ("carved") a page or so at a time from the front, so a span of a few blocks touches one page.
 *
 * Pages without a live block can be given back ("punched"): the blocks that overlap them are withheld from the list, until it is
 * empty and they are made again, a page at a time ("mended").
 *
 * The key in the second word tells a free block from a live one: the sum of two addresses, which no program holds by chance.
 * malloc clears it. It makes a double free known at the second free.
 *
 * Not thread-safe: the owner of the span, or who stands in for it, calls these.
 */
#ifndef TIDE_TIER_TINY_H
#define TIDE_TIER_TINY_H

#include "os/os.h"
#include "span/guard.h"
#include "span/span.h"
#include "tier/classes.h"

struct block {
    struct block *next;
    uintptr_t key;
};

tide_inline uintptr_t tiny_key(const struct span *span, const void *block) {
    return guard_key((uintptr_t)span + (uintptr_t)block);
}

/* Whether an offset into the span is the start of a carved block. n is a multiple of d exactly when n * ceil(2^32 / d) mod 2^32 is below
 * ceil(2^32 / d) (Lemire, Kaser, Kurz 2019, "Faster remainder by direct computation"). */
tide_inline bool tiny_is_block(const struct span *span, uint32_t offset) {
    return offset * span->inverse < span->inverse && offset < load_relaxed(&span->limit);
}

tide_inline uint32_t tiny_offset(const void *block) { return (uint32_t)((uintptr_t)block & (SLICE_BYTES - 1)); }

/* The free block behind this one on its list. A link that leads out of the span, or not to a block, was not made here. */
tide_inline struct block *tiny_next(const struct span *span, const struct block *block) {
    struct block *next = guard_link(block, block->next);
    if (SECURE_BUILD && next != NULL &&
        unlikely(((uintptr_t)next ^ (uintptr_t)block) >= SLICE_BYTES || !tiny_is_block(span, tiny_offset(next))))
        guard_fatal_stale(block);
    return next;
}

/* The secure build: what a free block holds must be as it was left. */
tide_hidden void tiny_check_free(const struct span *span, const struct block *block);

/* The head of the ready list, NULL when it is empty. */
tide_inline void *tiny_pop(struct span *span) {
    struct block *block = span->free;
    if (unlikely(block == NULL)) return NULL;
    if (SECURE_BUILD) tiny_check_free(span, block);
    struct block *next = tiny_next(span, block);
    span->free = next;
    __builtin_prefetch(next, 0); /* the next malloc would wait for this line */
    span->used++;
    block->key = 0;
    if (SECURE_BUILD) block->next = NULL;
    return block;
}

/* Put a live block on the ready list; in the secure build it is full of junk by now. */
tide_inline void tiny_push(struct span *span, struct block *block) {
    block->key = tiny_key(span, block);
    block->next = guard_link(block, span->free);
    span->free = block;
    span->used--;
}

/* The pages that `bytes` from `offset` on overlap, as a mask. */
tide_inline uint32_t tiny_pages(uint32_t offset, uint32_t bytes) {
    uint32_t first = offset / (uint32_t)os_page_bytes, last = (offset + bytes - 1) / (uint32_t)os_page_bytes;
    return (UINT32_C(2) << last) - (UINT32_C(1) << first);
}

/* Whether the block at `offset` is free because a page of it was given back. Any thread may ask this of a block that it holds. */
tide_inline bool tiny_is_withheld(const struct span *span, uint32_t offset) {
    uint32_t punched = atomic_load_explicit(&span->punched, memory_order_relaxed);
    return unlikely(punched != 0) && (punched & tiny_pages(offset, span->block_bytes)) != 0;
}

/* Withhold the blocks of pages that hold no live block. Returns these pages, and those that were populated too early, as a mask: they may be given back
 * until the span is used again. */
tide_hidden uint32_t tiny_punch(struct span *span);
/* Put the withheld blocks of a page or more on an empty ready list. False: none were withheld. */
tide_hidden bool tiny_mend(struct span *span);

/* Make a taken slice a span of `class`, with no block carved yet. */
tide_hidden void tiny_init(struct span *span, unsigned class);
/* Carve the next blocks onto an empty ready list. False: all are carved. */
tide_hidden bool tiny_carve(struct span *span);
/* Whether the block is on the ready list: a walk, for the suspicion of a double free. */
tide_hidden bool tiny_is_free(const struct span *span, const struct block *block);
/* Who owns the span asks. `exact`: a block is either free or in use; not so after a jump out of the hot path, which may leave one that is neither. */
tide_hidden tide_cold const char *tiny_validate(const struct span *span, bool exact);

#endif
