/* blocks.h - batches of blocks: planned before the measurement, allocated and freed in it.
 *
 * Sizes, the order of frees and the choice of survivors are drawn in advance into memory that is resident before the
 * baseline, so that a burst consists of malloc, writes and free alone. Every block is checked before it is freed, and
 * survivors at the end: what a purge takes by mistake does not go unseen.
 */
#ifndef TIDE_BATTLE_BLOCKS_H
#define TIDE_BATTLE_BLOCKS_H

#include "../programs/common.h"
#include <sys/mman.h>

/* The tiers of tidemalloc, by size; other allocators draw their borders nearby. */
typedef enum kind { KIND_TINY, KIND_MID, KIND_LARGE, KIND_MIXED, KIND_SMALL } kind;
typedef enum keep { KEEP_NONE, KEEP_RUNS, KEEP_SCATTERED } keep;

enum { KEEP_ONE_IN = 50, KEEP_RUN_OF = 8 };

/*   blocks[i]  of sizes[i] bytes, in order of allocation
 *   order      [ those that are freed, in that order | survivors ]
 *              0                            free_count       count                                                  */
typedef struct batch {
    void **blocks;
    uint32_t *sizes, *order;
    size_t count, free_count;
} batch;

/* Memory of the program's own: resident from now on, and no part of what is measured. */
static void *ground(size_t bytes) {
    void *found = mmap(NULL, bytes + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (found == MAP_FAILED) die("no memory for the program's own lists");
    madvise(found, bytes, MADV_NOHUGEPAGE);
    memset(found, 0, bytes);
    return found;
}

static size_t size_draw(rng *random, kind k) {
    const size_t KIB = 1024;
    if (k == KIND_MIXED) {
        /* Mean sizes are near 80 bytes, 5 KiB and 200 KiB: half of the bytes are large, a quarter each mid and tiny. */
        size_t coin = rng_below(random, 10000);
        k = coin < 8 ? KIND_LARGE : coin < 165 ? KIND_MID : KIND_TINY;
    }
    switch (k) {
    case KIND_TINY: return rng_size(random, 16, KIB);
    case KIND_MID: return rng_size(random, KIB + 1, 32 * KIB);
    case KIND_LARGE: return rng_size(random, 32 * KIB + 1, 4096 * KIB);
    default: return rng_size(random, 16, 32 * KIB);
    }
}

/* Sizes of at least two words until `bytes` are reached. Without an array it only counts. */
static size_t sizes_draw(uint32_t *sizes, kind k, size_t bytes, uint64_t seed) {
    rng random = rng_seed(seed);
    size_t count = 0;
    for (size_t sum = 0; sum < bytes; count++) {
        size_t size = size_draw(&random, k), left = bytes - sum;
        if (size > left) size = left < 16 ? 16 : left;
        if (sizes != NULL) sizes[count] = (uint32_t)size;
        sum += size;
    }
    return count;
}

static void order_shuffle(uint32_t *order, size_t count, rng *random) {
    for (size_t i = count; i > 1; i--) {
        size_t j = rng_below(random, i);
        uint32_t moved = order[i - 1];
        order[i - 1] = order[j];
        order[j] = moved;
    }
}

static bool block_survives(keep what, size_t bytes_before, rng *random) {
    if (what == KEEP_RUNS) return (bytes_before >> 20) % KEEP_RUN_OF == KEEP_RUN_OF - 1;
    return what == KEEP_SCATTERED && rng_below(random, KEEP_ONE_IN) == 0;
}

static void batch_plan(batch *b, kind k, size_t bytes, keep what, bool in_order, uint64_t seed) {
    rng random = rng_seed(seed + 1000);
    b->count = sizes_draw(NULL, k, bytes, seed);
    b->sizes = ground(b->count * sizeof *b->sizes);
    b->order = ground(b->count * sizeof *b->order);
    b->blocks = ground(b->count * sizeof *b->blocks);
    sizes_draw(b->sizes, k, bytes, seed);
    size_t freed = 0, kept = b->count, sum = 0;
    for (size_t i = 0; i < b->count; i++) {
        bool stays = block_survives(what, sum, &random);
        b->order[stays ? --kept : freed++] = (uint32_t)i;
        sum += b->sizes[i];
    }
    b->free_count = freed;
    if (!in_order) order_shuffle(b->order, freed, &random);
}

/* Every byte of a block says which one it is; never zero, as the pages are that come back from the system. */
static uint64_t block_mark(size_t index) { return (index % 255 + 1) * 0x0101010101010101u; }

static void batch_allocate(batch *b) {
    for (size_t i = 0; i < b->count; i++) {
        b->blocks[i] = take(b->sizes[i]);
        memset(b->blocks[i], (int)(block_mark(i) & 255), b->sizes[i]);
    }
}

static void batch_free_one(batch *b, size_t place) {
    size_t i = b->order[place];
    uint64_t mark = block_mark(i);
    char *block = b->blocks[i];
    if (block_read(block) != mark || block_read(block + b->sizes[i] - sizeof mark) != mark) die("a block changed");
    free(block);
}

static void batch_free(batch *b) {
    for (size_t place = 0; place < b->free_count; place++) batch_free_one(b, place);
}

static void survivors_check(const batch *b) {
    for (size_t place = b->free_count; place < b->count; place++) {
        size_t i = b->order[place], size = b->sizes[i];
        uint64_t mark = block_mark(i);
        const char *block = b->blocks[i];
        for (size_t at = 0; at + sizeof mark <= size; at += sizeof mark)
            if (block_read(block + at) != mark) die("a survivor changed");
        if (block_read(block + size - sizeof mark) != mark) die("the end of a survivor changed");
    }
}

/* A set of page numbers: open addressing in a table that is resident before the baseline. */
typedef struct page_set {
    uint64_t *slots; /* page number + 1, 0: empty */
    size_t mask, count;
} page_set;

static size_t survivor_pages_at_most(const batch *b) {
    size_t pages = 0;
    for (size_t place = b->free_count; place < b->count; place++)
        pages += b->sizes[b->order[place]] / BENCH_PAGE_BYTES + 2;
    return pages;
}

static void page_set_make(page_set *set, size_t pages_at_most) {
    size_t slots = 2;
    while (slots < 2 * pages_at_most) slots *= 2;
    set->slots = ground(slots * sizeof *set->slots);
    set->mask = slots - 1;
}

static void page_set_add(page_set *set, uint64_t page) {
    size_t at = (size_t)((page * 0x9E3779B97F4A7C15u) >> 32) & set->mask;
    while (set->slots[at] != 0 && set->slots[at] != page + 1) at = (at + 1) & set->mask;
    set->count += set->slots[at] == 0;
    set->slots[at] = page + 1;
}

/* Pages that hold at least one live byte; an allocator cannot keep fewer resident. */
static void survivors_add_pages(const batch *b, page_set *set) {
    for (size_t place = b->free_count; place < b->count; place++) {
        uintptr_t first = (uintptr_t)b->blocks[b->order[place]], last = first + b->sizes[b->order[place]] - 1;
        for (uintptr_t page = first / BENCH_PAGE_BYTES; page <= last / BENCH_PAGE_BYTES; page++)
            page_set_add(set, page);
    }
}

#endif
