/* mid.h - the mid tier: spans of 256 or 512 KiB of equal blocks of 1 KiB to 32 KiB.
 *
 *   slices      | 64 KiB | 64 KiB | 64 KiB | 64 KiB |     block i starts at i * size; blocks cross slices
 *   descriptors |  head  | inner 1| inner 2| inner 3|     inner ones tell the distance to the head
 *
 * Which blocks are free stands in a bitmap in the head's descriptor. Free blocks are never written, so their pages can be given back one by
 * one. Blocks are made ("carved": their bits set) a few at a time from the front, when no used one is free any more, so the end of a span
 * stays untouched as long as it can; the lowest free block is handed out first. In the secure build any of the free ones is, by chance;
 * made are more at a time, and what an earlier use has left in them becomes junk.
 *
 * Not thread-safe: the owner of the span, or who stands in for it, calls these.
 */
#ifndef TIDE_TIER_MID_H
#define TIDE_TIER_MID_H

#include "span/guard.h"
#include "span/region.h"
#include "span/span.h"
#include "tier/classes.h"

/* All mid sizes are multiples of 128, so offsets fit a division by multiplication after this shift. */
#define MID_UNIT_SHIFT 7
#define MID_NO_BLOCK UINT32_MAX

/* A key as in tiny.h, for blocks on their way back to their owner; one more, so that it never equals what a tiny span left there. */
tide_inline uintptr_t mid_key(const struct span *head, const void *block) {
    return guard_key((uintptr_t)head + (uintptr_t)block + 1);
}

tide_inline size_t mid_slices(unsigned class) { return class_bytes(class) <= 8 * KIB ? 4 : 8; }

/* The owner field of a mid span of `heap`: never equal to a heap, so the hot path of the tiny tier does not take it for its own. */
tide_inline struct heap *mid_owner(struct heap *heap) { return (struct heap *)((uintptr_t)heap + 1); }

/* The head of a mid span from the descriptor of any of its slices. */
tide_inline struct span *mid_head(struct span *span) {
    return span - (span->kind == SPAN_INNER ? span->slices_from_head : 0);
}

/* The number of the block that starts at `address`; MID_NO_BLOCK: none that was ever handed out does. */
tide_inline uint32_t mid_index(const struct span *head, const void *address) {
    uint32_t offset = (uint32_t)((uintptr_t)address - (uintptr_t)head->start);
    uint32_t index = (uint32_t)(((uint64_t)(offset >> MID_UNIT_SHIFT) * head->inverse) >> 32);
    return index * head->block_bytes == offset && index < load_relaxed(&head->limit) ? index : MID_NO_BLOCK;
}

tide_inline void *mid_block(const struct span *head, uint32_t index) {
    return head->start + (size_t)index * head->block_bytes;
}

tide_inline uint64_t mid_mask(const struct span *head, uint32_t word) {
    return atomic_load_explicit(&head->free_mask[word], memory_order_relaxed);
}

tide_inline void mid_mask_set(struct span *head, uint32_t word, uint64_t mask) {
    atomic_store_explicit(&head->free_mask[word], mask, memory_order_relaxed);
}

/* Any thread may ask this of a block that it holds. */
tide_inline bool mid_is_free(const struct span *head, uint32_t index) {
    return (mid_mask(head, index / 64) >> (index % 64) & 1) != 0;
}

/* Whether a block is free; brings `word` to its place. */
tide_inline bool mid_ready(struct span *head) {
    uint32_t word = head->word;
    while (mid_mask(head, word) == 0)
        if (++word == MID_WORDS) return false;
    head->word = (uint8_t)word;
    return true;
}

/* The secure build: a free block must hold what it was left with; and junk in place of what lies between two offsets from earlier. */
tide_hidden void mid_check_free(const struct span *head, uint32_t index);
tide_hidden void mid_fill(const struct span *head, uint32_t from, uint32_t end);

/* The lowest free block (or any); NULL when there is none, or none where `word` points (mid_ready knows). `*clean`: it reads as zero. */
tide_inline void *mid_pop(struct span *head, bool *clean) {
    uint32_t word = head->word;
    uint64_t mask = mid_mask(head, word);
    if (unlikely(mask == 0)) return NULL;
    uint32_t bit = SECURE_BUILD ? guard_choose(mask) : bits_lowest(mask);
    uint32_t index = word * 64u + bit;
    mid_mask_set(head, word, SECURE_BUILD ? mask & ~((uint64_t)1 << bit) : mask & (mask - 1));
    if (SECURE_BUILD) mid_check_free(head, index);
    head->used++;
    *clean = false;
    if (unlikely(index >= atomic_load_explicit(&head->limit, memory_order_relaxed))) {
        atomic_store_explicit(&head->limit, index + 1, memory_order_relaxed);
        *clean = (head->flags & SPAN_CLEAN) != 0;
    }
    return mid_block(head, index);
}

tide_inline void mid_push(struct span *head, uint32_t index) {
    uint32_t word = index / 64;
    if (word < head->word) head->word = (uint8_t)word;
    mid_mask_set(head, word, mid_mask(head, word) | (uint64_t)1 << (index % 64));
    head->used--;
}

/* How much is carved at once: what a page fault or two costs more than a miss. In the secure build so much that chance has a choice. */
#define MID_CARVE_BYTES (SECURE_BUILD ? 64 * KIB : 8 * KIB)
#define MID_CARVE_LEAST (SECURE_BUILD ? 8u : 1u)
tide_inline uint32_t mid_carve_count(const struct span *head) {
    uint32_t count = (uint32_t)size_max(MID_CARVE_BYTES / head->block_bytes, MID_CARVE_LEAST);
    return (uint32_t)size_min(count, (size_t)(head->capacity - head->carved));
}

/* Make a taken run of mid_slices(class) slices a span of `class`, with no block carved yet. */
tide_hidden void mid_init(struct span *head, unsigned class);
/* Carve the next blocks, when none is free. False: all are carved. */
tide_hidden bool mid_carve(struct span *head);
#define MID_PAGE_WORDS 2 /* 512 KiB of pages of 4 KiB */
/* The pages that hold no live block and may be resident, as a mask. False: none. They may be given back as long as nobody takes a block. */
tide_hidden bool mid_punch(const struct span *head, uint64_t pages[MID_PAGE_WORDS]);
/* Undo mid_init but for the head: clears the inner descriptors. */
tide_hidden void mid_clear_inner(struct span *head);
/* As tiny_validate. */
tide_hidden tide_cold const char *mid_validate(const struct span *head, bool exact);

#endif
