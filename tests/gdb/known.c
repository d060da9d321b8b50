/* known.c - a program that knows what its blocks are, and tells by a table that a debugger can read: test_gdb.py compares what tools/gdb/tide.py says.
 *
 *   known            build the scene, then call stop_here()
 *   known damaged    the same, with a free list that was overwritten
 *   known secure     the same on the secure build, where usable sizes tell nothing of what a handler got
 */
#define _GNU_SOURCE 1
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "check.h"
#include "subject.h"

enum { TINY_BYTES = 208, MID_BYTES = 9000, MID_BLOCK_BYTES = 9216, LARGE_BYTES = 300000, LARGE_BLOCK_BYTES = 303104 };
/* The first blocks of a size may come from a larger class. From IN_ORDER on they lie side by side. */
enum { TINY_COUNT = 200, IN_ORDER = 150, PUNCHED_BYTES = 512, PUNCHED_COUNT = 127 };

/* What tide.py must say of an address. `state` is a part of it. `thread`: whose heap it is of; 0: an orphan's; -1: not asked. */
struct known {
    char *address, *start;
    size_t bytes;
    char kind[16], state[48];
    int thread;
} known[64];
int known_count;
tide_stats known_stats;

void stop_here(void);
__attribute__((noinline)) void stop_here(void) { __asm__ volatile("" ::: "memory"); }

static void know(void *address, void *start, size_t bytes, const char *kind, const char *state, int thread) {
    CHECK(known_count < (int)(sizeof known / sizeof *known));
    struct known *entry = &known[known_count++];
    entry->address = address;
    entry->start = start;
    entry->bytes = bytes;
    entry->thread = thread;
    CHECK(strlen(kind) < sizeof entry->kind && strlen(state) < sizeof entry->state);
    strcpy(entry->kind, kind);
    strcpy(entry->state, state);
}

static int thread_id(void) { return (int)syscall(SYS_gettid); }

static char *take(size_t size) {
    char *volatile p = malloc(size);
    CHECK(p != NULL);
    memset(p, 0x41, size);
    return p;
}

static void *free_both(void *blocks) {
    free(((char **)blocks)[0]);
    free(((char **)blocks)[1]);
    return NULL;
}

static void run(void *(*work)(void *), void *argument) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, work, argument) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

/* --- what a signal handler gets that interrupts malloc ---------------------------------------------------------------- */

enum { SMALL_BYTES = 100, BIG_BYTES = 5000 };
static void *volatile small_nested, *volatile big_nested;

static void on_signal(int number) {
    (void)number;
    if (small_nested != NULL && big_nested != NULL) return;
    void *small = malloc(SMALL_BYTES), *big = malloc(BIG_BYTES);
    /* Ordinary blocks of these sizes have 112 and 5120 bytes. */
    if (malloc_usable_size(small) == 1024 && malloc_usable_size(big) == 8192) {
        small_nested = small;
        big_nested = big;
        return;
    }
    free(small);
    free(big);
}

static void interrupt_until_nested(void) {
    struct sigaction action = {.sa_handler = on_signal};
    struct itimerval often = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &often, NULL) == 0);
    while (small_nested == NULL || big_nested == NULL)
        for (int i = 0; i < 1000; i++) free(take(24));
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    know((char *)small_nested + 7, small_nested, 1024, "emergency", "live", -1);
    know((char *)big_nested + 6000, big_nested, 8192, "mapping", "live", -1);
}

/* --- threads ---------------------------------------------------------------------------------------------------------- */

static pthread_barrier_t barrier;

static void *live_on(void *nothing) {
    char *block = take(TINY_BYTES);
    know(block, block, malloc_usable_size(block), "tiny", "live", thread_id());
    pthread_barrier_wait(&barrier);
    pause();
    return nothing;
}

static void *leave_a_block(void *block) {
    *(char **)block = take(TINY_BYTES);
    return NULL;
}

/* ---------------------------------------------------------------------------------------------------------------------- */

/* Survivors here and there; what lies between them goes back. */
static void punch(void) {
    char *blocks[PUNCHED_COUNT];
    for (int i = 0; i < PUNCHED_COUNT; i++) blocks[i] = take(PUNCHED_BYTES);
    for (int i = 1; i < PUNCHED_COUNT - 1; i++) free(blocks[i]);
    subject_release_all();
    know(blocks[0], blocks[0], PUNCHED_BYTES, "tiny", "live", thread_id());
    know(blocks[PUNCHED_COUNT - 1], blocks[PUNCHED_COUNT - 1], PUNCHED_BYTES, "tiny", "live", thread_id());
    char *middle = blocks[PUNCHED_COUNT / 2];
    know(middle + 100, middle, PUNCHED_BYTES, "tiny", "given back", thread_id());
}

int main(int argc, char **argv) {
    subject_require();
    CHECK(!subject.is_tide || subject.set("mode", "static") == 0);
    int self = thread_id();
    punch();

    char *tiny[TINY_COUNT];
    for (int i = 0; i < TINY_COUNT; i++) tiny[i] = take(TINY_BYTES);
    char *mid[4];
    for (int i = 0; i < 4; i++) mid[i] = take(MID_BYTES);
    char *large = take(LARGE_BYTES), *gone = take(LARGE_BYTES), *fence = take(LARGE_BYTES);
    if (argc < 2 || strcmp(argv[1], "secure") != 0) interrupt_until_nested();

    /* In this order: the next thread would adopt the orphan's heap, and keep it if it lived on. */
    pthread_t other;
    pthread_barrier_init(&barrier, NULL, 2);
    CHECK(pthread_create(&other, NULL, live_on, NULL) == 0);
    pthread_barrier_wait(&barrier);
    char *orphan;
    run(leave_a_block, &orphan);
    know(orphan, orphan, malloc_usable_size(orphan), "tiny", "live", 0);

    char *freed = tiny[IN_ORDER], *remote[2] = {tiny[IN_ORDER + 1], mid[1]};
    free(gone);
    free(freed);
    free(mid[2]);
    run(free_both, remote); /* after the last operation that could collect them */
    know(tiny[0] + 200, tiny[0], malloc_usable_size(tiny[0]), "tiny", "live", self);
    know(tiny[IN_ORDER - 1], tiny[IN_ORDER - 1], TINY_BYTES, "tiny", "live", self);
    know(freed + 1, freed, TINY_BYTES, "tiny", "free", self);
    know(remote[0], remote[0], TINY_BYTES, "tiny", "freed by another thread", self);
    know(mid[0] + 9215, mid[0], MID_BLOCK_BYTES, "mid", "live", self);
    know(mid[1] + 1, mid[1], MID_BLOCK_BYTES, "mid", "freed by another thread", self);
    know(mid[2] + 5000, mid[2], MID_BLOCK_BYTES, "mid", "free", self);
    know(mid[0] + 20 * MID_BLOCK_BYTES, mid[0] + 20 * MID_BLOCK_BYTES, MID_BLOCK_BYTES, "mid", "never used", self);
    know(large + LARGE_BYTES - 1, large, LARGE_BLOCK_BYTES, "large", "live", -1);
    know(fence, fence, LARGE_BLOCK_BYTES, "large", "live", -1);
    know(gone + 100000, NULL, 0, "none", "dirty", -1);
    know(&self, NULL, 0, "foreign", "not tidemalloc's", -1);

    known_stats = subject_stats();
    if (argc > 1 && strcmp(argv[1], "damaged") == 0) memset(freed, 0x55, 8);
    stop_here();
    return 0;
}
