/* bins.h - chunks sorted by their longest run of free slices, lowest address first.
 *
 * 64 bins: chunks with no dirty free slice 0..31, chunks with one 32..63, each by longest free run - 1. A bin is a set of chunk
 * numbers, one bit each, with a summary bit per word; the words of all bins for the same chunks lie together, so a
 * small heap touches one page of it:
 *
 *   words:    [chunks 0-63: bin 0, bin 1, ... bin 63] [chunks 64-127: bin 0, ...] ...
 *   summary:  [words  0-63: bin 0, bin 1, ... bin 63] ...
 *
 * Not thread-safe: guarded by the run lock.
 */
#ifndef TIDE_SPAN_BINS_H
#define TIDE_SPAN_BINS_H

#include "base/bits.h"

#define BIN_COUNT 64u
#define BIN_NONE SIZE_MAX

struct bins {
    uint64_t *words;
    uint64_t *summary;
    uint64_t occupied;         /* a bit per bin */
    uint32_t count[BIN_COUNT]; /* chunks in each */
};

tide_inline unsigned bins_index(unsigned longest_run, bool dirty) { return (dirty ? 32u : 0u) + longest_run - 1; }

tide_inline uint64_t *bins_word(const struct bins *bins, size_t group, unsigned bin) {
    return &bins->words[group * BIN_COUNT + bin];
}

static inline void bins_insert(struct bins *bins, unsigned bin, size_t chunk) {
    size_t group = chunk / 64;
    *bins_word(bins, group, bin) |= (uint64_t)1 << (chunk % 64);
    bins->summary[group / 64 * BIN_COUNT + bin] |= (uint64_t)1 << (group % 64);
    bins->count[bin]++;
    bins->occupied |= (uint64_t)1 << bin;
}

static inline void bins_remove(struct bins *bins, unsigned bin, size_t chunk) {
    size_t group = chunk / 64;
    uint64_t *word = bins_word(bins, group, bin);
    *word &= ~((uint64_t)1 << (chunk % 64));
    if (*word == 0) bins->summary[group / 64 * BIN_COUNT + bin] &= ~((uint64_t)1 << (group % 64));
    if (--bins->count[bin] == 0) bins->occupied &= ~((uint64_t)1 << bin);
}

/* The lowest chunk of a bin that is not empty. */
static inline size_t bins_lowest(const struct bins *bins, unsigned bin) {
    const uint64_t *summary = &bins->summary[bin];
    size_t outer = 0;
    while (summary[outer * BIN_COUNT] == 0) outer++;
    size_t group = outer * 64 + bits_lowest(summary[outer * BIN_COUNT]);
    return group * 64 + bits_lowest(*bins_word(bins, group, bin));
}

#endif
