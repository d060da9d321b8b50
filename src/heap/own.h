/* own.h - what the owner of a heap does with its spans off the hot path, and whoever stands in for the owner: every function takes the
 * heap as an argument and none reads the caller's thread record. The caller owns the heap: it is the bound thread with busy set, or holds
 * the lock of a heap whose thread is not there. */
#ifndef TIDE_HEAP_OWN_H
#define TIDE_HEAP_OWN_H

#include "heap/heap.h"

/* Make a zeroed struct an empty heap, or reset one. */
tide_hidden void heap_init(struct heap *heap);
/* A block of the class, NULL: no memory. */
tide_hidden void *heap_take(struct heap *heap, unsigned class, bool *clean);
/* A block of one of the heap's own spans goes back; it has been checked. */
tide_hidden void heap_put(struct heap *heap, struct span *span, void *block);
/* One of the heap's spans, not current, has no live block: it becomes a dirty run. */
tide_hidden void heap_give_up(struct heap *heap, struct span *span);
/* Collect what other threads freed. */
tide_hidden void heap_drain(struct heap *heap);
/* The same for one span. False: there was none. */
tide_hidden bool heap_drain_step(struct heap *heap);
/* Put a span that has room on the list of those that wait; it is in no other state. Remove it from there. */
tide_hidden void heap_list(struct heap *heap, struct span *span);
tide_hidden void heap_unlist(struct heap *heap, struct span *span);
/* Let no hot path use a span: its next free takes the slow path, and finds what is special about it. */
tide_hidden void span_set_aside(struct span *span);

/* A current mid span, without a live block now: in a program too small for a keeper, spans like this one are given up when they are many. */
tide_hidden tide_cold void heap_mid_emptied(struct heap *heap, const struct span *span);

/* How fast a class is refilled, and what its cache may be: nothing without a live block; its current span; that, and pages in advance. */
enum class_state { CLASS_MEMORY, CLASS_BALANCED, CLASS_PERFORMANCE };
tide_hidden enum class_state heap_class_state(const struct heap *heap, unsigned class);
/* Counted up by the keeper every POLICY_TICK_NS of work, in the modes that shrink. Each owner that comes by once a tick gives up the empty spans of classes that were not
 * refilled for a while: a thread that works all the time is never taken for idle, but most of its classes are. */
extern tide_hidden _Atomic uint32_t heap_tick;
tide_hidden tide_cold void heap_trim(struct heap *heap);

enum tier_mask { TIER_TINY = 1, TIER_MID = 2, TIER_BOTH = 3 };
/* Give up every span without a live block, current ones too: they become dirty runs. */
tide_hidden void heap_flush(struct heap *heap, enum tier_mask tiers);

/* The block of a span that starts at `address`: its number (the offset in granules for tiny ones), MID_NO_BLOCK if none does. */
tide_inline uint32_t span_block_index(const struct span *span, const void *address) {
    if (span->kind == SPAN_MID) return mid_index(span, address);
    return tiny_is_block(span, tiny_offset(address)) ? tiny_offset(address) / GRANULE_BYTES : MID_NO_BLOCK;
}

#endif
