/* xfer.c - blocks that one thread allocates and another one frees.
 *
 * Pattern: pairs of threads, each a producer that fills batches of small blocks and a consumer that reads and frees
 * them; a short bounded queue of batches lies between. The idea is that of Lever and Boreham, "malloc() performance in
 * a multithreaded Linux environment" (USENIX 2000), which benchmark sets carry on as `xmalloc-test`.
 * Stresses: the way of a block home from a foreign thread. With more pairs than cores, producers are preempted while
 * their blocks come back, and an allocator that lets them pile up shows it in its peak.
 *
 * Arguments: pairs, blocks in a batch, batches of each producer.
 */
#include "common.h"

enum { QUEUE_BATCHES = 16, LARGEST_BYTES = 512 };

typedef struct queue {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    void **batches[QUEUE_BATCHES];
    size_t head, count;
} queue;

typedef struct pair {
    queue q;
    size_t index, batch_blocks, batch_count;
    pthread_t producer, consumer;
    tally produced, consumed;
} pair;

static void queue_put(queue *q, void **batch) {
    pthread_mutex_lock(&q->mutex);
    while (q->count == QUEUE_BATCHES) pthread_cond_wait(&q->changed, &q->mutex);
    q->batches[(q->head + q->count++) % QUEUE_BATCHES] = batch;
    pthread_cond_signal(&q->changed);
    pthread_mutex_unlock(&q->mutex);
}

static void **queue_get(queue *q) {
    pthread_mutex_lock(&q->mutex);
    while (q->count == 0) pthread_cond_wait(&q->changed, &q->mutex);
    void **batch = q->batches[q->head];
    q->head = (q->head + 1) % QUEUE_BATCHES;
    q->count--;
    pthread_cond_signal(&q->changed);
    pthread_mutex_unlock(&q->mutex);
    return batch;
}

static void *producer_run(void *arg) {
    pair *p = arg;
    rng random = rng_seed(p->index);
    for (size_t i = 0; i < p->batch_count; i++) {
        void **batch = take(p->batch_blocks * sizeof *batch);
        for (size_t j = 0; j < p->batch_blocks; j++) {
            size_t size = 16 + rng_below(&random, LARGEST_BYTES - 15);
            batch[j] = take(size);
            block_write(batch[j], size, size);
            p->produced.sum += size;
        }
        p->produced.blocks += p->batch_blocks;
        queue_put(&p->q, batch);
    }
    return NULL;
}

static void *consumer_run(void *arg) {
    pair *p = arg;
    for (size_t i = 0; i < p->batch_count; i++) {
        void **batch = queue_get(&p->q);
        for (size_t j = 0; j < p->batch_blocks; j++) {
            p->consumed.sum += block_read(batch[j]);
            free(batch[j]);
        }
        free(batch);
    }
    return NULL;
}

int main(int argc, char **argv) {
    size_t pair_count = argument(argc, argv, 1, 1), batch_blocks = argument(argc, argv, 2, 100);
    size_t batch_count = argument(argc, argv, 3, 40000);
    pair *pairs = calloc(pair_count, sizeof *pairs);
    if (pairs == NULL) die("out of memory");

    for (size_t i = 0; i < pair_count; i++) {
        pair *p = &pairs[i];
        pthread_mutex_init(&p->q.mutex, NULL);
        pthread_cond_init(&p->q.changed, NULL);
        p->index = i;
        p->batch_blocks = batch_blocks;
        p->batch_count = batch_count;
        p->producer = thread_start(producer_run, p);
        p->consumer = thread_start(consumer_run, p);
    }
    tally total = {0, 0};
    for (size_t i = 0; i < pair_count; i++) {
        pthread_join(pairs[i].producer, NULL);
        pthread_join(pairs[i].consumer, NULL);
        if (pairs[i].produced.sum != pairs[i].consumed.sum) die("a block changed on its way");
        tally_add(&total, pairs[i].produced);
    }
    free(pairs);
    return tally_print("xfer", total);
}
