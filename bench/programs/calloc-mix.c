/* calloc-mix.c - cleared blocks of all sizes, some of which are hardly used.
 *
 * Pattern: a live set of blocks from calloc, replaced at random. Most are small and written whole; one in 32 is a table
 * of 64 KiB to 4 MiB of which only a few places are touched, as sparse tables and hash maps are. Every block is checked
 * for zeros before use (whole when small, in places when large). Own program.
 * Stresses: whether calloc knows that memory is zero already; clearing a sparse table costs page faults and RSS.
 *
 * Arguments: steps, live small blocks, live tables.
 */
#include "common.h"

typedef struct slot {
    unsigned char *block;
    size_t size;
} slot;

static void slot_small(slot *s, rng *random, tally *result) {
    if (s->block != NULL) result->sum += s->block[0];
    free(s->block);
    s->size = rng_size(random, 16, 8192);
    s->block = calloc(1, s->size);
    if (s->block == NULL) die("out of memory");
    for (size_t i = 0; i + 8 <= s->size; i += 8)
        if (block_read(s->block + i) != 0) die("calloc gave a block that is not clear");
    memset(s->block, (int)(s->size & 127) | 1, s->size);
    result->blocks++;
}

static void slot_table(slot *s, rng *random, tally *result) {
    free(s->block);
    s->size = rng_size(random, 64 << 10, 4 << 20);
    s->block = calloc(s->size / 8, 8);
    if (s->block == NULL) die("out of memory");
    for (size_t i = 0; i < 24; i++) {
        size_t at = rng_below(random, s->size / 8) * 8;
        uint64_t found = block_read(s->block + at);
        if (found != 0 && found != at + 1) die("calloc gave a table that is not clear");
        result->sum += found == 0;
        memcpy(s->block + at, &(uint64_t){at + 1}, sizeof found);
    }
    result->blocks++;
}

int main(int argc, char **argv) {
    size_t steps = argument(argc, argv, 1, 400000), small_count = argument(argc, argv, 2, 5000);
    size_t table_count = argument(argc, argv, 3, 32);
    slot *small = calloc(small_count, sizeof *small), *tables = calloc(table_count, sizeof *tables);
    rng random = rng_seed(0);
    tally result = {0, 0};
    if (small == NULL || tables == NULL) die("out of memory");

    for (size_t i = 0; i < steps; i++) {
        if (i % 32 == 0)
            slot_table(&tables[rng_below(&random, table_count)], &random, &result);
        else
            slot_small(&small[rng_below(&random, small_count)], &random, &result);
    }
    for (size_t i = 0; i < small_count; i++) free(small[i].block);
    for (size_t i = 0; i < table_count; i++) free(tables[i].block);
    free(small);
    free(tables);
    return tally_print("calloc-mix", result);
}
