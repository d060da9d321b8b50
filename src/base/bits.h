/* bits.h - questions about the bits of a word. */
#ifndef TIDE_BASE_BITS_H
#define TIDE_BASE_BITS_H

#include "base/base.h"

/* The index of the lowest one. `word` is not zero. */
tide_inline unsigned bits_lowest(uint64_t word) { return (unsigned)__builtin_ctzll(word); }
/* The index of the highest one. `word` is not zero. */
tide_inline unsigned bits_highest(uint64_t word) { return 63u - (unsigned)__builtin_clzll(word); }
tide_inline unsigned bits_count(uint64_t word) { return (unsigned)__builtin_popcountll(word); }

/* `count` ones from bit `first` on; count 1..32, first + count <= 32. */
tide_inline uint32_t bits_range(unsigned first, unsigned count) {
    return (uint32_t)((((uint64_t)1 << count) - 1) << first);
}

/* The length of the longest run of ones: each step shortens every run by one. */
static inline unsigned bits_longest_run(uint32_t word) {
    unsigned length = 0;
    if (word == UINT32_MAX) return 32;
    for (; word != 0; word &= word << 1) length++;
    return length;
}

/* Bit i of the result says that bits i .. i + count - 1 are all ones; count >= 1. The step doubles (Hacker's Delight 6-2). */
static inline uint32_t bits_run_starts(uint32_t word, unsigned count) {
    while (count > 1) {
        unsigned step = count / 2;
        word &= word >> step;
        count -= step;
    }
    return word;
}

#endif
