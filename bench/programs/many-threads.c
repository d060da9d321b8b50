/* many-threads.c - threads that are born, allocate a little and die.
 *
 * Pattern: a fixed number of threads is alive at any time. Each allocates 200 blocks of mixed sizes, frees three
 * quarters of them and ends; what is left is freed by the thread that takes its place in the ring. Idea: servers with a
 * thread for each request; close to the `threadtest` of Berger et al. (ASPLOS 2000), but with threads that live
 * shortly.
 * Stresses: the cost of a heap's birth and death, memory that ended threads leave behind, RSS by thread.
 *
 * Arguments: threads alive at a time, threads in all, blocks of each.
 */
#include "common.h"

typedef struct place {
    pthread_t thread;
    size_t number; /* of the thread that is in this place, from 0 */
    size_t block_count;
    void **inherited;
    tally result;
} place;

static void blocks_drop(void **blocks, size_t count, tally *result) {
    for (size_t i = 0; i < count; i++) {
        result->sum += block_read(blocks[i]);
        free(blocks[i]);
    }
}

static void *short_life(void *arg) {
    place *p = arg;
    rng random = rng_seed(p->number);
    size_t left_count = p->block_count / 4;
    void **blocks = take(p->block_count * sizeof *blocks);
    for (size_t i = 0; i < p->block_count; i++) {
        size_t size = rng_size(&random, 16, 4096);
        blocks[i] = take(size);
        block_write(blocks[i], size, size);
    }
    p->result.blocks += p->block_count;
    if (p->inherited != NULL) {
        blocks_drop(p->inherited, left_count, &p->result);
        free(p->inherited);
    }
    blocks_drop(blocks + left_count, p->block_count - left_count, &p->result);
    p->inherited = blocks;
    return NULL;
}

int main(int argc, char **argv) {
    size_t alive = argument(argc, argv, 1, 64), threads = argument(argc, argv, 2, 6000);
    size_t block_count = argument(argc, argv, 3, 200);
    place *places = calloc(alive, sizeof *places);
    if (places == NULL) die("out of memory");

    for (size_t i = 0; i < threads; i++) {
        place *p = &places[i % alive];
        if (i >= alive) pthread_join(p->thread, NULL);
        p->number = i;
        p->block_count = block_count;
        p->thread = thread_start(short_life, p);
    }
    tally total = {0, 0};
    for (size_t i = 0; i < alive && i < threads; i++) {
        pthread_join(places[i].thread, NULL);
        blocks_drop(places[i].inherited, block_count / 4, &places[i].result);
        free(places[i].inherited);
        tally_add(&total, places[i].result);
    }
    free(places);
    return tally_print("many-threads", total);
}
