/* stats_beside_claims.c - statistics walk all descriptors without a lock while spans of few large and many small blocks come, are punched,
 * go, and come again in the other kind. Under the sanitizers: what is read may be of any moment, but nothing may be made of it that is not memory
 * of the walk.
 *
 * argv: seconds, working threads */
#define _GNU_SOURCE 1
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "subject.h"

enum { THREADS_MOST = 32, SMALL_BLOCKS = 4000, LARGE_BLOCKS = 150, KEEP_EVERY = 97 };

static atomic_bool stop;
static atomic_ullong rounds_done, looks_done;

static void *worker_main(void *nothing) {
    static _Thread_local void *blocks[SMALL_BLOCKS];
    while (!atomic_load(&stop)) {
        for (int i = 0; i < SMALL_BLOCKS; i++) {
            blocks[i] = malloc(1152);
            CHECK(blocks[i] != NULL);
            *(char *)blocks[i] = 1;
        }
        for (int i = 0; i < SMALL_BLOCKS; i++)
            if (i % KEEP_EVERY != 0) free(blocks[i]);
        clock_sleep_us(1000);
        for (int i = 0; i < SMALL_BLOCKS; i += KEEP_EVERY) free(blocks[i]);
        for (int i = 0; i < LARGE_BLOCKS; i++) {
            blocks[i] = malloc(32768);
            CHECK(blocks[i] != NULL);
            *(char *)blocks[i] = 1;
        }
        for (int i = 0; i < LARGE_BLOCKS; i++) free(blocks[i]);
        atomic_fetch_add(&rounds_done, 1);
    }
    return nothing;
}

static void *looker_main(void *nothing) {
    while (!atomic_load(&stop)) {
        tide_stats stats = subject_stats();
        CHECK(stats.committed_bytes <= stats.reserved_bytes);
        atomic_fetch_add(&looks_done, 1);
    }
    return nothing;
}

int main(int argc, char **argv) {
    subject_require();
    uint64_t seconds = argument_number(argc, argv, 1, 4);
    size_t workers = argument_number(argc, argv, 2, 4), count = 0;
    CHECK(workers >= 1 && 2 * workers <= THREADS_MOST);
    pthread_t threads[THREADS_MOST];
    for (size_t i = 0; i < workers; i++) CHECK(pthread_create(&threads[count++], NULL, worker_main, NULL) == 0);
    for (size_t i = 0; i < workers; i++) CHECK(pthread_create(&threads[count++], NULL, looker_main, NULL) == 0);
    uint64_t deadline_ns = clock_now_ns() + seconds * 1000000000u;
    while (clock_now_ns() < deadline_ns) subject.flush_mid(NULL);
    atomic_store(&stop, true);
    for (size_t i = 0; i < count; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(atomic_load(&rounds_done) > 0 && atomic_load(&looks_done) > 0);
    printf("%llu looks beside %llu rounds of work\n", (unsigned long long)atomic_load(&looks_done),
           (unsigned long long)atomic_load(&rounds_done));
    return 0;
}
