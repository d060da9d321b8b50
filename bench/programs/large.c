/* large.c - a small live set of large blocks, replaced at random.
 *
 * Pattern: buffers of images, tables or messages, from tens of KiB to many MiB. Every step frees the block of a random
 * slot and allocates another one of a random size; most blocks get one word written in every page, one in four is
 * filled completely. The range is chosen by arguments. The idea is that of OLogN's alloc-test, at sizes that most sets
 * of allocator benchmarks leave out.
 * Stresses: whether memory is kept or returned at each free (page faults cost far more than the allocator), fitting of
 * large runs, zeroing by the kernel.
 *
 * Arguments: steps, live blocks, smallest and largest size in KiB.
 */
#include "common.h"

typedef struct slot {
    void *block;
    size_t size;
} slot;

static void slot_empty(slot *s, tally *result) {
    if (s->block == NULL) return;
    result->sum += pages_read(s->block, s->size);
    free(s->block);
}

static void slot_fill(slot *s, size_t size, bool whole, tally *result) {
    *s = (slot){.block = take(size), .size = size};
    if (whole) memset(s->block, 1, size);
    pages_write(s->block, size, result->blocks++);
}

int main(int argc, char **argv) {
    size_t steps = argument(argc, argv, 1, 20000), slot_count = argument(argc, argv, 2, 64);
    size_t low = argument(argc, argv, 3, 40) << 10, high = argument(argc, argv, 4, 2048) << 10;
    slot *slots = calloc(slot_count, sizeof *slots);
    rng random = rng_seed(0);
    tally result = {0, 0};
    if (slots == NULL || high < low) die("a largest size below the smallest");

    for (size_t i = 0; i < steps; i++) {
        slot *s = &slots[rng_below(&random, slot_count)];
        bool whole = rng_below(&random, 4) == 0;
        slot_empty(s, &result);
        slot_fill(s, rng_size(&random, low, high) & ~(size_t)7, whole, &result);
    }
    for (size_t i = 0; i < slot_count; i++) slot_empty(&slots[i], &result);
    free(slots);
    return tally_print("large", result);
}
