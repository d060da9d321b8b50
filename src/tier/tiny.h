/* tiny.h - the tiny tier: 64 KiB spans of equal blocks of up to 1 KiB.
 *
 *   span   | block 0 | block 1 | ... | block carved-1 | never touched ........... |
 *   block  free:  | next free block | key |  ...          live: the program's bytes
 *
 * Free blocks form a list through their first word: the ready list that malloc pops and free pushes. Blocks are made
 * ("carved") a page or so at a time from the front, so a span of a few blocks touches one page.
 *
 * The key in the second word tells a free block from a live one: the sum of two addresses, which no program holds by chance.
 * malloc clears it. It makes a double free known at the second free.
 *
 * Not thread-safe: the owner of the span, or who stands in for it, calls these.
 */
#ifndef TIDE_TIER_TINY_H
#define TIDE_TIER_TINY_H

#include "span/span.h"
#include "tier/classes.h"

struct block {
    struct block *next;
    uintptr_t key;
};

tide_inline uintptr_t tiny_key(const struct span *span, const void *block) {
    return (uintptr_t)span + (uintptr_t)block;
}

/* Whether an offset into the span is the start of a carved block. n is a multiple of d exactly when n * ceil(2^32 / d) mod 2^32 is below
 * ceil(2^32 / d) (Lemire, Kaser, Kurz 2019, "Faster remainder by direct computation"). */
tide_inline bool tiny_is_block(const struct span *span, uint32_t offset) {
    return offset * span->inverse < span->inverse && offset < load_relaxed(&span->limit);
}

tide_inline uint32_t tiny_offset(const void *block) { return (uint32_t)((uintptr_t)block & (SLICE_BYTES - 1)); }

/* The head of the ready list, NULL when it is empty. */
tide_inline void *tiny_pop(struct span *span) {
    struct block *block = span->free;
    if (unlikely(block == NULL)) return NULL;
    struct block *next = block->next;
    span->free = next;
    __builtin_prefetch(next, 0); /* the next malloc would wait for this line */
    span->used++;
    block->key = 0;
    return block;
}

/* Put a live block on the ready list. */
tide_inline void tiny_push(struct span *span, struct block *block) {
    block->key = tiny_key(span, block);
    block->next = span->free;
    span->free = block;
    span->used--;
}

/* Make a taken slice a span of `class`, with no block carved yet. */
tide_hidden void tiny_init(struct span *span, unsigned class);
/* Carve the next blocks onto an empty ready list. False: all are carved. */
tide_hidden bool tiny_carve(struct span *span);
/* Whether the block is on the ready list: a walk, for the suspicion of a double free. */
tide_hidden bool tiny_is_free(const struct span *span, const struct block *block);
tide_hidden bool tiny_validate(const struct span *span);

#endif
