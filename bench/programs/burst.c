/* burst.c - bursts of blocks, all freed at the end of the burst in one of three orders.
 *
 * Pattern: a burst allocates blocks of 16 bytes to 1 KiB, mostly small and in short runs of one size, then frees all of
 * them: the newest first, the oldest first, or in random order. A quarter of the blocks outlives its burst by one. The
 * idea is MicroQuill's SmartHeap test, known as `sh6bench` and `sh8bench`.
 * Stresses: how a span is filled and emptied, and the order of the free list that the next burst finds: after random
 * frees, neighbours in the list are far apart in memory.
 *
 * Arguments: lifo | fifo | random, threads, blocks in a burst, bursts.
 */
#include "common.h"

typedef enum order { ORDER_LIFO, ORDER_FIFO, ORDER_RANDOM } order;

typedef struct setup {
    order order;
    size_t blocks, bursts;
} setup;

static order order_parse(const char *name) {
    if (strcmp(name, "lifo") == 0) return ORDER_LIFO;
    if (strcmp(name, "fifo") == 0) return ORDER_FIFO;
    if (strcmp(name, "random") == 0) return ORDER_RANDOM;
    die("the order is lifo, fifo or random");
}

static void blocks_shuffle(void **blocks, size_t count, rng *random) {
    for (size_t i = count; i > 1; i--) {
        size_t j = rng_below(random, i);
        void *block = blocks[i - 1];
        blocks[i - 1] = blocks[j];
        blocks[j] = block;
    }
}

static void block_drop(void *block, tally *result) {
    result->sum += block_read(block);
    free(block);
}

/* Free `count` blocks from the far end or from the near one. */
static void blocks_drop(void **blocks, size_t count, order o, tally *result) {
    for (size_t i = 0; i < count; i++) block_drop(blocks[o == ORDER_LIFO ? count - 1 - i : i], result);
}

static void *burst_run(void *arg) {
    enum { SAME_SIZE_RUN = 8 };
    worker *self = arg;
    const setup *s = self->job;
    rng random = rng_seed(self->index);
    size_t kept_count = s->blocks / 4, short_count = s->blocks - kept_count;
    void **blocks = take(s->blocks * sizeof *blocks);
    void **kept = take((kept_count + 1) * sizeof *kept);
    size_t size = 16;

    for (size_t burst = 0; burst < s->bursts; burst++) {
        for (size_t i = 0; i < s->blocks; i++) {
            if (i % SAME_SIZE_RUN == 0) size = rng_size(&random, 16, 1024);
            blocks[i] = take(size);
            block_write(blocks[i], size, size);
        }
        self->result.blocks += s->blocks;
        if (burst > 0) blocks_drop(kept, kept_count, s->order, &self->result);
        if (s->order == ORDER_RANDOM) blocks_shuffle(blocks, s->blocks, &random);
        /* The survivors are spread evenly, so that no span of the burst comes free at once. */
        size_t short_lived = 0, survivors = 0;
        for (size_t i = 0; i < s->blocks; i++) {
            if (i % 4 == 3 && survivors < kept_count)
                kept[survivors++] = blocks[i];
            else
                blocks[short_lived++] = blocks[i];
        }
        blocks_drop(blocks, short_count, s->order, &self->result);
    }
    blocks_drop(kept, kept_count, s->order, &self->result);
    free(kept);
    free(blocks);
    return NULL;
}

int main(int argc, char **argv) {
    setup s = {.order = order_parse(argc > 1 ? argv[1] : "lifo"),
               .blocks = argument(argc, argv, 3, 40000),
               .bursts = argument(argc, argv, 4, 200)};
    return tally_print("burst", workers_run(argument(argc, argv, 2, 1), burst_run, &s));
}
