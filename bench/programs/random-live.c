/* random-live.c - a live set of blocks of all sizes, replaced at random.
 *
 * Pattern: sizes follow a power law from 8 to 2,000 bytes, one in 64 goes up to 30 KiB. Every step frees the block of a
 * random slot and puts a new one there. With several threads one step in 16 exchanges a block with a table that all of
 * them share, so that some blocks end in a foreign thread. One thread is the pattern of OLogN's alloc-test; several are
 * that of rpmalloc's `rptest` and mimalloc's `mstress`.
 * Stresses: many size classes at once, cache misses on the free lists, fragmentation of the live set.
 *
 * Arguments: threads, live blocks of each, steps of each.
 */
#include "common.h"
#include <stdatomic.h>

enum { SHARED_SLOTS = 1024, SMALL_BYTES = 2000, LARGEST_BYTES = 30 * 1024 };

static _Atomic(void *) shared[SHARED_SLOTS];

typedef struct setup {
    size_t threads, live_blocks, steps;
} setup;

static size_t size_draw(rng *random) {
    if (rng_below(random, 64) == 0) return rng_size(random, 1024, LARGEST_BYTES);
    return rng_size(random, 8, SMALL_BYTES);
}

/* Read the block, free it. Slots may be empty. */
static void block_drop(void *block, tally *result) {
    if (block == NULL) return;
    result->sum += block_read(block);
    free(block);
}

static void *live_run(void *arg) {
    worker *self = arg;
    const setup *s = self->job;
    rng random = rng_seed(self->index);
    void **slots = calloc(s->live_blocks, sizeof *slots);
    if (slots == NULL) die("out of memory");

    for (size_t i = 0; i < s->live_blocks + s->steps; i++) {
        size_t slot = i < s->live_blocks ? i : rng_below(&random, s->live_blocks);
        size_t size = size_draw(&random);
        block_drop(slots[slot], &self->result);
        slots[slot] = take(size);
        block_write(slots[slot], size, size);
        self->result.blocks++;
        if (s->threads > 1 && i % 16 == 0)
            slots[slot] = atomic_exchange(&shared[rng_below(&random, SHARED_SLOTS)], slots[slot]);
    }
    for (size_t i = 0; i < s->live_blocks; i++) block_drop(slots[i], &self->result);
    free(slots);
    return NULL;
}

int main(int argc, char **argv) {
    setup s = {.threads = argument(argc, argv, 1, 1),
               .live_blocks = argument(argc, argv, 2, 200000),
               .steps = argument(argc, argv, 3, 4000000)};
    tally total = workers_run(s.threads, live_run, &s);
    for (size_t i = 0; i < SHARED_SLOTS; i++) block_drop(atomic_load(&shared[i]), &total);
    return tally_print("random-live", total);
}
