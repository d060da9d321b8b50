/* classes.h - block sizes of the tiny and the mid tier.
 *
 *   tiny  class  0 .. 15    16, 32, ... 256         steps of 16
 *         class 16 .. 31    288, 320, ... 1024      8 per doubling
 *   mid   class 32 .. 71    1152, 1280, ... 32768   8 per doubling
 *
 * Eight sizes per doubling waste at most 12.5 % of a block, 6 % on average (the spacing of jemalloc and mimalloc, doubled).
 * Powers of two are sizes, and every block of 2^k bytes up to 32 KiB is aligned to its size.
 */
#ifndef TIDE_TIER_CLASSES_H
#define TIDE_TIER_CLASSES_H

#include "base/bits.h"

#define GRANULE_BYTES 16u
#define TINY_MAX_BYTES ((size_t)1024)
#define TINY_GRANULES (TINY_MAX_BYTES / GRANULE_BYTES) /* 64 */
#define TINY_CLASSES 32u
#define MID_MAX_BYTES ((size_t)32 * KIB)
#define MID_CLASSES 40u
#define CLASSES (TINY_CLASSES + MID_CLASSES)

enum tier_index { TIER_TINY_INDEX, TIER_MID_INDEX, TIER_LARGE_INDEX, TIER_COUNT };

/* The class of a size of 1 .. 32768 bytes. */
tide_inline unsigned class_of_size(size_t size) {
    if (size <= 256) return (unsigned)((size + GRANULE_BYTES - 1) / GRANULE_BYTES) - (size != 0);
    unsigned doubling = bits_highest(size - 1); /* 2^doubling < size <= 2^(doubling+1), 8 or more */
    return 16 + (doubling - 8) * 8 + (unsigned)(((size - 1) >> (doubling - 3)) & 7);
}

tide_inline size_t class_bytes(unsigned class) {
    if (class < 16) return (class + 1) * (size_t)GRANULE_BYTES;
    unsigned doubling = 8 + (class - 16) / 8;
    return ((size_t)1 << doubling) + (((class - 16) % 8 + 1) * ((size_t)1 << (doubling - 3)));
}

/* The smallest class of at least `size` bytes whose blocks are all aligned to `alignment`, a power of two up to 32 KiB; CLASSES
 * when there is none. Spans start at multiples of 64 KiB, so a block is aligned when its size is. */
static inline unsigned class_of_aligned(size_t size, size_t alignment) {
    if (size > MID_MAX_BYTES || alignment > MID_MAX_BYTES) return CLASSES;
    unsigned class = class_of_size(size_round_up(size_max(size, 1), alignment));
    while (class < CLASSES && class_bytes(class) % alignment != 0) class ++;
    return class;
}

#endif
