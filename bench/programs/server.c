/* server.c - a server whose sessions live longer than the threads that serve them.
 *
 * Pattern: every lane has an array of blocks. A thread replaces blocks at random places for one round, then starts the
 * next thread of its lane, hands the whole array over and ends. So nearly every free is of a block that a thread made
 * which is gone by now. After the simulation of Larson and Krishnan, "Memory allocation for long-running server
 * applications" (ISMM 1998), known in benchmark sets as `larson`.
 * Stresses: frees of foreign blocks, heaps left behind by ended threads and taken up again, fragmentation that adds up.
 *
 * Arguments: lanes, blocks in each lane, replacements in a round, rounds.
 */
#include "common.h"

typedef struct lane {
    void **slots;
    size_t slot_count;
    size_t replacements;
    size_t rounds_left;
    rng random;
    tally result;
    pthread_mutex_t *mutex;
    pthread_cond_t *finished;
    size_t *running;
} lane;

static void slot_fill(lane *l, size_t slot) {
    size_t size = rng_size(&l->random, 16, 1024);
    l->slots[slot] = take(size);
    block_write(l->slots[slot], size, size);
    l->result.blocks++;
}

static void slot_empty(lane *l, size_t slot) {
    l->result.sum += block_read(l->slots[slot]);
    free(l->slots[slot]);
}

static void *lane_round(void *arg) {
    lane *l = arg;
    for (size_t i = 0; i < l->replacements; i++) {
        size_t slot = rng_below(&l->random, l->slot_count);
        slot_empty(l, slot);
        slot_fill(l, slot);
    }
    if (--l->rounds_left > 0) {
        pthread_detach(thread_start(lane_round, l));
        return NULL;
    }
    pthread_mutex_lock(l->mutex);
    --*l->running;
    pthread_cond_signal(l->finished);
    pthread_mutex_unlock(l->mutex);
    return NULL;
}

int main(int argc, char **argv) {
    size_t lane_count = argument(argc, argv, 1, 2), slot_count = argument(argc, argv, 2, 5000);
    size_t replacements = argument(argc, argv, 3, 20000), rounds = argument(argc, argv, 4, 350);
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t finished = PTHREAD_COND_INITIALIZER;
    size_t running = lane_count;
    lane *lanes = calloc(lane_count, sizeof *lanes);
    if (lanes == NULL) die("out of memory");

    for (size_t i = 0; i < lane_count; i++) {
        lane *l = &lanes[i];
        *l = (lane){.slots = take(slot_count * sizeof(void *)),
                    .slot_count = slot_count,
                    .replacements = replacements,
                    .rounds_left = rounds,
                    .random = rng_seed(i),
                    .mutex = &mutex,
                    .finished = &finished,
                    .running = &running};
        for (size_t slot = 0; slot < slot_count; slot++) slot_fill(l, slot);
    }
    for (size_t i = 0; i < lane_count; i++) pthread_detach(thread_start(lane_round, &lanes[i]));

    pthread_mutex_lock(&mutex);
    while (running > 0) pthread_cond_wait(&finished, &mutex);
    pthread_mutex_unlock(&mutex);

    tally total = {0, 0};
    for (size_t i = 0; i < lane_count; i++) {
        for (size_t slot = 0; slot < slot_count; slot++) slot_empty(&lanes[i], slot);
        free(lanes[i].slots);
        tally_add(&total, lanes[i].result);
    }
    free(lanes);
    return tally_print("server", total);
}
