/* wake_wait.c - what a thread pays that wakes while its heap is claimed: a measurement, not a test of a time.
 *
 * Owners, one awake at a time, fill their heaps with empty spans, with spans of few survivors, and with blocks that others have freed, and go
 * to sleep. A claimer calls tide_release_all_caches() in a loop, so the heap of whoever sleeps is being emptied. An owner wakes at a
 * random moment and takes the time of its first malloc or free. The same without a claimer shows what the first operation after a sleep costs
 * anyway, and with spinning threads beside, what happens when processors are scarce.
 *
 * Each way runs in a process of its own, since the library's figures start with it.
 *
 * argv: seconds of each way, owners, blocks of a heap in units of 256 KiB */
#define _GNU_SOURCE 1
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "subject.h"

enum {
    OWNERS_MOST = 32,
    SPINNERS = 4,
    UNIT_BYTES = 256 * 1024,
    MAIL_BLOCKS = 400,
    SURVIVOR_EVERY = 40,
    SAMPLES_MOST = 1 << 20,
    SLEEP_MOST_US = 4000,
};

static struct way {
    const char *name;
    bool claims;
    unsigned spinners;
} const ways[] = {
    {"no claim, cores free", false, 0},
    {"claims, cores free", true, 0},
    {"no claim, overcommitted", false, SPINNERS},
    {"claims, overcommitted", true, SPINNERS},
};

/* Times of one kind, outside of the heap under test. */
struct samples {
    uint32_t *ns;
    size_t count;
};
static struct samples mallocs, frees;

static atomic_bool stop;
static uint64_t seconds, owner_count, unit_count;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

static struct owner {
    uint64_t random;
    void **blocks, **survivors;
    size_t block_count, survivor_count;
    void *mail[MAIL_BLOCKS]; /* blocks of another owner, to be freed here */
    size_t mail_count;
    pthread_t thread;
} owners[OWNERS_MOST];

static void *outside_heap(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    return memory;
}

static void sample_add(struct samples *samples, uint64_t ns) {
    if (samples->count < SAMPLES_MOST) samples->ns[samples->count++] = ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns;
}

static int sample_compare(const void *left, const void *right) {
    uint32_t l = *(const uint32_t *)left, r = *(const uint32_t *)right;
    return (l > r) - (l < r);
}

static double sample_us(const struct samples *samples, double part) {
    if (samples->count == 0) return 0;
    size_t index = (size_t)((double)(samples->count - 1) * part);
    return samples->ns[index] / 1000.0;
}

/* Blocks of some sizes of both small tiers, of which few stay. Some of the others are left to the next owner, which frees them. */
static void heap_fill(struct owner *owner) {
    struct owner *next = &owners[(size_t)(owner - owners + 1) % owner_count];
    for (size_t i = 0; i < owner->survivor_count; i++) free(owner->survivors[i]);
    owner->survivor_count = 0;
    for (size_t i = 0; i < owner->mail_count; i++) free(owner->mail[i]);
    owner->mail_count = 0;
    for (size_t unit = 0; unit < unit_count; unit++) {
        size_t bytes = 16 + random_below(&owner->random, unit % 2 == 0 ? 300 : 9000);
        size_t count = UNIT_BYTES / bytes;
        for (size_t i = 0; i < count; i++) {
            owner->blocks[i] = malloc(bytes);
            CHECK(owner->blocks[i] != NULL);
            memset(owner->blocks[i], 1, bytes);
        }
        for (size_t i = 0; i < count; i++) {
            if (i % SURVIVOR_EVERY == 0)
                owner->survivors[owner->survivor_count++] = owner->blocks[i];
            else if (i % SURVIVOR_EVERY == 1 && next->mail_count < MAIL_BLOCKS && next != owner)
                next->mail[next->mail_count++] = owner->blocks[i];
            else
                free(owner->blocks[i]);
        }
    }
}

static void first_operation(struct owner *owner) {
    bool is_free = owner->survivor_count > 0 && random_next(&owner->random) % 2 == 0;
    void *block = is_free ? owner->survivors[--owner->survivor_count] : NULL;
    uint64_t begun = clock_now_ns();
    if (is_free)
        free(block);
    else
        block = malloc(48);
    sample_add(is_free ? &frees : &mallocs, clock_now_ns() - begun);
    if (!is_free) free(block);
}

static void *owner_main(void *argument) {
    struct owner *owner = argument;
    for (bool first = true; !atomic_load_explicit(&stop, memory_order_relaxed); first = false) {
        CHECK(pthread_mutex_lock(&turn) == 0);
        if (!first) first_operation(owner);
        heap_fill(owner);
        CHECK(pthread_mutex_unlock(&turn) == 0);
        clock_sleep_us((unsigned)random_below(&owner->random, SLEEP_MOST_US));
    }
    return NULL;
}

static atomic_ullong claims_done, claimed_bytes;

static void *claimer_main(void *nothing) {
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        atomic_fetch_add_explicit(&claimed_bytes, subject.release_all(NULL), memory_order_relaxed);
        atomic_fetch_add_explicit(&claims_done, 1, memory_order_relaxed);
    }
    return nothing;
}

static void *spinner_main(void *nothing) {
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {}
    return nothing;
}

static void samples_print(const char *what, struct samples *samples) {
    qsort(samples->ns, samples->count, sizeof *samples->ns, sample_compare);
    printf("  %-7s %8zu %9.1f %9.1f %9.1f %9.1f", what, samples->count, sample_us(samples, 0.5),
           sample_us(samples, 0.99), sample_us(samples, 0.999), sample_us(samples, 1));
}

static void way_run(const struct way *way) {
    CHECK(subject.set("mode", "static") == 0); /* the keeper claims nothing */
    mallocs.ns = outside_heap(SAMPLES_MOST * sizeof *mallocs.ns);
    frees.ns = outside_heap(SAMPLES_MOST * sizeof *frees.ns);
    for (size_t i = 0; i < owner_count; i++) {
        owners[i].random = i + 1;
        owners[i].blocks = outside_heap(UNIT_BYTES / 16 * sizeof(void *));
        owners[i].survivors = outside_heap(unit_count * (UNIT_BYTES / 16 / SURVIVOR_EVERY + 1) * sizeof(void *));
    }
    for (size_t i = 0; i < owner_count; i++)
        CHECK(pthread_create(&owners[i].thread, NULL, owner_main, &owners[i]) == 0);
    pthread_t claimer, spinners[SPINNERS];
    if (way->claims) CHECK(pthread_create(&claimer, NULL, claimer_main, NULL) == 0);
    for (unsigned i = 0; i < way->spinners; i++) CHECK(pthread_create(&spinners[i], NULL, spinner_main, NULL) == 0);
    clock_sleep_us((unsigned)(seconds * 1000000));
    atomic_store(&stop, true);
    for (size_t i = 0; i < owner_count; i++) CHECK(pthread_join(owners[i].thread, NULL) == 0);
    if (way->claims) CHECK(pthread_join(claimer, NULL) == 0);
    for (unsigned i = 0; i < way->spinners; i++) CHECK(pthread_join(spinners[i], NULL) == 0);

    tide_stats stats = subject_stats();
    printf("%s: %llu claims, %llu MiB returned\n", way->name, (unsigned long long)claims_done,
           (unsigned long long)claimed_bytes >> 20);
    samples_print("malloc", &mallocs);
    printf("\n");
    samples_print("free", &frees);
    printf("\n  the library: %llu wakes, %llu waits, 99 of 100 wakes within %.1f us, longest %.1f us\n",
           (unsigned long long)stats.claim_wake_count, (unsigned long long)stats.claim_wait_count,
           (double)stats.claim_wait_p99_ns / 1000, (double)stats.claim_wait_max_ns / 1000);
    CHECK(mallocs.count + frees.count > 0);
}

int main(int argc, char **argv) {
    subject_require();
    seconds = argument_number(argc, argv, 1, 3);
    owner_count = argument_number(argc, argv, 2, 4);
    unit_count = argument_number(argc, argv, 3, 16);
    CHECK(owner_count >= 1 && owner_count <= OWNERS_MOST && unit_count >= 1 && seconds <= 1000);
    printf("  first op   count  p50 (us)  p99 (us) p99.9(us)  max (us)\n");
    fflush(stdout);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        pid_t child = fork();
        if (child == 0) {
            way_run(&ways[i]);
            fflush(stdout);
            _exit(0);
        }
        process_expect_success(child, ways[i].name);
    }
    return 0;
}
