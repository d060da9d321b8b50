/* span.h - the descriptor of a span: everything known about a run of 64 KiB slices, kept away from the slices.
 *
 *   region:   | slice 0 | slice 1 | slice 2 | slice 3 | ...        64 KiB each, only the program's bytes
 *   spans:    |  128 B  |  128 B  |  128 B  |  128 B  | ...        spans[i] describes slice i
 *
 * A span of several slices is described by its first one, the head. The other slices of a mid span say how far away
 * their head is; those of a large block stay zero. A descriptor of zeros is a slice that nobody uses.
 *
 * Two cache lines: the first is written by the owning thread only, the second by threads that free a block of another.
 */
#ifndef TIDE_SPAN_SPAN_H
#define TIDE_SPAN_SPAN_H

#include "base/base.h"

#define SLICE_SHIFT 16
#define SLICE_BYTES ((size_t)1 << SLICE_SHIFT)
#define CHUNK_SLICES 32u
#define CHUNK_BYTES (SLICE_BYTES * CHUNK_SLICES)

enum span_kind {
    SPAN_FREE = 0,  /* no span: clean or dirty, see run.h */
    SPAN_INNER,     /* not the first slice of a mid span */
    SPAN_TINY,      /* one slice of equal blocks, free ones in a list */
    SPAN_MID,       /* 4 or 8 slices of equal blocks, free ones in a bitmap */
    SPAN_LARGE,     /* one block */
    SPAN_EMERGENCY, /* blocks for operations that interrupt another one */
    SPAN_HELD,      /* a large block that was freed, and may not be used again yet (large.c) */
};

/* What a heap knows of one of its spans. A span is current (its class allocates from it), or listed (it has room and waits),
 * or in hand, or none of these: full, until a block of it is freed. */
enum span_flag {
    SPAN_CURRENT = 1,
    SPAN_LISTED = 2,
    SPAN_CLEAN = 4,  /* blocks behind `limit` were never touched and read as zero (mid) */
    SPAN_GROWN = 16, /* large: was made by growing another block */
    SPAN_MOVED = 8,  /* large: the mapping cannot merge with its neighbours until it is renewed */
    SPAN_PUNCHED =
        32, /* tiny, mid, listed: no block was taken or freed since its empty pages were given back (punch.h) */
    SPAN_IN_HAND = 64,    /* pages of it are being given back: neither current nor listed */
    SPAN_POPULATED = 128, /* tiny, mid: the slice of the block carved last may be resident to its end */
};

#define MID_WORDS 3 /* a mid span has at most 192 blocks */

struct heap;

struct span {
    /* The heap whose hot path may use this span: NULL for a full span; for a mid span the heap's address + 1. */
    _Atomic(struct heap *) owner;
    uint32_t used;    /* blocks not free, + 1 while current, so that a current span never empties on the hot path */
    uint32_t inverse; /* 2^32 / size, rounded up: tests for multiples of the block size without a division */
    _Atomic uint32_t
        limit; /* tiny: bytes of the span that blocks were made of so far; mid: blocks from here on were never handed out */
    uint16_t capacity; /* blocks in the span */
    uint16_t carved;   /* blocks made so far, from the front; what lies behind was not touched */
    uint8_t kind;
    uint8_t class;
    uint8_t flags;
    uint8_t word; /* mid: no word of `free_mask` below this one has a free block */
    union {
        uint32_t block_bytes;      /* tiny, mid, emergency */
        uint32_t slices_from_head; /* inner */
    };
    union {
        struct { /* tiny */
            struct block *free;
            _Atomic uint16_t
                punched; /* pages that were given back: every block that overlaps one is free, and not on the list */
        };
        struct {         /* mid */
            char *start; /* of block 0 */
            _Atomic uint64_t free_mask
                [MID_WORDS]; /* a one is a free block; any thread may look at the bit of a block that it holds */
        };
        struct {          /* large */
            size_t bytes; /* usable */
            size_t slices;
            bool tail; /* what lies behind the last byte may be resident (large_trim_step) */
        } large;
    };

    /* remote.h explains the word. */
    _Alignas(64) _Atomic uint64_t remote;
    struct span *remote_next; /* in the heap's queue of spans with remote frees */
    struct heap *heap;        /* tiny, mid: whose span this is, also when full */
    struct span *next, *prev; /* in the heap's list of its class, when listed */
    uint32_t slices;
    uint8_t guard; /* enum guard: what lies behind the last block */
};

_Static_assert(sizeof(struct span) == 128, "two cache lines");
_Static_assert(offsetof(struct span, remote) == 64, "the shared line starts here");

#endif
