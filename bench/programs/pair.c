/* pair.c - malloc and free right after each other: the shortest path and nothing else.
 *
 * Pattern: a block is allocated, written and freed at once; every 16th step does so for a stack of eight blocks. The
 * size is fixed, or drawn from a short table of small sizes. The idea is glibc's own `bench-malloc-simple` and
 * `bench-malloc-thread`.
 * Stresses: the instructions of a hit of malloc and free, and what two threads at it cost each other.
 *
 * Arguments: threads, steps of each, size in bytes (without it: mixed sizes).
 */
#include "common.h"

enum { STACK_BLOCKS = 8, STACK_EVERY = 16, TABLE_SIZES = 1024 };

typedef struct setup {
    size_t steps;
    uint16_t sizes[TABLE_SIZES];
} setup;

static void *pair_run(void *arg) {
    worker *self = arg;
    const setup *s = self->job;
    void *stack[STACK_BLOCKS];
    uint64_t sum = 0, blocks = 0;
    for (size_t i = 0; i < s->steps; i++) {
        size_t depth = i % STACK_EVERY == 0 ? STACK_BLOCKS : 1;
        for (size_t j = 0; j < depth; j++) {
            size_t size = s->sizes[(i + j) % TABLE_SIZES];
            stack[j] = opaque(take(size));
            block_write(stack[j], size, i + j);
        }
        for (size_t j = depth; j-- > 0;) {
            sum += block_read(stack[j]);
            free(stack[j]);
        }
        blocks += depth;
    }
    self->result = (tally){sum, blocks};
    return NULL;
}

int main(int argc, char **argv) {
    static setup s;
    size_t threads = argument(argc, argv, 1, 1), size = argc > 3 ? argument(argc, argv, 3, 16) : 0;
    rng random = rng_seed(0);
    s.steps = argument(argc, argv, 2, 30000000);
    if (size > UINT16_MAX || (size > 0 && size < 8)) die("the size is 8 to 65535");
    for (size_t i = 0; i < TABLE_SIZES; i++) s.sizes[i] = (uint16_t)(size > 0 ? size : rng_size(&random, 8, 512));
    return tally_print("pair", workers_run(threads, pair_run, &s));
}
