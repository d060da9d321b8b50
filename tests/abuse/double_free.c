/* double_free.c - a block is freed twice, and this is noticed at the second free, not later.
 *
 * In most cases other blocks of the same span stay alive, so the allocator must still know the block. Where the span itself
 * went back in between it may say instead that there is no live block at this address. */
#define _GNU_SOURCE 1
#include "abuse.h"

#include <stdatomic.h>

#define ALREADY "tidemalloc: free\\(\\): PTR was already free"
#define ALREADY_OR_GONE "tidemalloc: free\\(\\): PTR (was already free|is not a live block)"
#define ALREADY_REALLOC "tidemalloc: realloc\\(\\): PTR was already free"
#define ALREADY_REALLOC_OR_GONE "tidemalloc: realloc\\(\\): PTR (was already free|is not a live block)"

/* Neighbours that stay alive, before and after the victim. They are on the stack of the case, so nothing is freed. */
static void *neighbours[64];
static void *victim_make(size_t size) {
    for (size_t i = 0; i < 8; i++) neighbours[i] = block_make(size);
    void *victim = block_make(size);
    for (size_t i = 8; i < 16; i++) neighbours[i] = block_make(size);
    return victim;
}

static void at_once(size_t size) {
    void *p = victim_make(size);
    block_free(p);
    free(doomed(p));
}
static void tiny_at_once(void) { at_once(TINY_BYTES); }
static void smallest_at_once(void) { at_once(1); }
static void zero_at_once(void) { at_once(0); }
static void mid_at_once(void) { at_once(MID_BYTES); }
static void large_at_once(void) { at_once(LARGE_BYTES); }
static void huge_at_once(void) { at_once(20000000); }

/* Other blocks of the same size are freed in between. */
static void after_others(size_t size) {
    void *p = victim_make(size);
    block_free(p);
    for (size_t i = 4; i < 12; i++) block_free(neighbours[i]);
    free(doomed(p));
}
static void tiny_after_others(void) { after_others(TINY_BYTES); }
static void mid_after_others(void) { after_others(MID_BYTES); }
static void large_after_others(void) { after_others(LARGE_BYTES); }

/* free(a), free(b), free(a): a check that looks at the head of the free list alone misses this one. */
static void a_b_a(size_t size) {
    void *a = victim_make(size);
    void *b = block_make(size);
    block_free(a);
    block_free(b);
    free(doomed(a));
}
static void tiny_a_b_a(void) { a_b_a(TINY_BYTES); }
static void mid_a_b_a(void) { a_b_a(MID_BYTES); }
static void large_a_b_a(void) { a_b_a(LARGE_BYTES); }

/* Blocks of other sizes are allocated and freed in between. */
static void after_other_sizes(void) {
    void *p = victim_make(TINY_BYTES);
    block_free(p);
    for (size_t size = 2 * TINY_BYTES; size < 100000; size += size / 4) block_free(block_make(size));
    free(doomed(p));
}

/* The words of the freed block are overwritten as far as a sloppy program might: the last half, not the list's words. */
static void after_a_late_write(void) {
    char *p = victim_make(TINY_BYTES);
    block_free(p);
    memset(p + TINY_BYTES / 2, 0, TINY_BYTES / 2);
    free(doomed(p));
}

/* The other thread is there, with a heap of its own, before the first free: a thread's birth allocates, and what it gets
 * might be the freed block itself, which would then be alive again. */
static _Atomic(void *) second_block;
static atomic_int second_is_ready;
static void *second_main(void *argument) {
    (void)argument;
    block_free(block_make(TINY_BYTES));
    atomic_store(&second_is_ready, 1);
    void *p;
    while ((p = atomic_load(&second_block)) == NULL) clock_sleep_us(100);
    free(p);
    return NULL;
}
static void second_elsewhere(size_t size) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, second_main, NULL) == 0);
    while (!atomic_load(&second_is_ready)) clock_sleep_us(100);
    void *p = victim_make(size);
    block_free(p);
    atomic_store(&second_block, doomed(p));
    CHECK(pthread_join(thread, NULL) == 0);
}
static void tiny_second_elsewhere(void) { second_elsewhere(TINY_BYTES); }
static void mid_second_elsewhere(void) { second_elsewhere(MID_BYTES); }
static void large_second_elsewhere(void) { second_elsewhere(LARGE_BYTES); }

static void first_elsewhere(size_t size) {
    void *p = victim_make(size);
    block_free_elsewhere(p);
    free(doomed(p));
}
static void tiny_first_elsewhere(void) { first_elsewhere(TINY_BYTES); }
static void mid_first_elsewhere(void) { first_elsewhere(MID_BYTES); }
static void large_first_elsewhere(void) { first_elsewhere(LARGE_BYTES); }

static void both_elsewhere(size_t size) {
    void *p = victim_make(size);
    block_free_elsewhere(p);
    block_free_elsewhere(doomed(p));
}
static void tiny_both_elsewhere(void) { both_elsewhere(TINY_BYTES); }
static void mid_both_elsewhere(void) { both_elsewhere(MID_BYTES); }

/* All blocks of the span are free, and the caches were emptied. */
static void after_release(size_t size) {
    void *p = victim_make(size);
    for (size_t i = 0; i < 16; i++) block_free(neighbours[i]);
    block_free(p);
    subject_release_all();
    free(doomed(p));
}
static void tiny_after_release(void) { after_release(TINY_BYTES); }
static void mid_after_release(void) { after_release(MID_BYTES); }
static void large_after_release(void) { after_release(LARGE_BYTES); }

/* The page of the freed block went back to the system, while others of its span live on. */
static void after_punch(size_t size) {
    enum { COUNT = 400 };
    static void *blocks[COUNT];
    for (size_t i = 0; i < COUNT; i++) blocks[i] = block_make(size);
    for (size_t i = 1; i < COUNT - 1; i++)
        if (i % 100 != 0) block_free(blocks[i]);
    subject_release_all();
    free(doomed(blocks[150]));
}
static void tiny_after_punch(void) { after_punch(TINY_BYTES); }
static void mid_after_punch(void) { after_punch(MID_BYTES); }

static void after_realloc_to_0(void) {
    void *p = victim_make(TINY_BYTES);
    void *volatile null = realloc(p, 0);
    CHECK(null == NULL);
    free(doomed(p));
}
static void after_realloc_moved(void) {
    void *p = victim_make(TINY_BYTES);
    void *volatile q = realloc(p, 100 * TINY_BYTES);
    CHECK(q != NULL && q != p);
    free(doomed(p));
}
static void realloc_of_free(size_t size) {
    void *p = victim_make(size);
    block_free(p);
    void *volatile q = realloc(doomed(p), 2 * size);
    (void)q;
}
static void tiny_realloc(void) { realloc_of_free(TINY_BYTES); }
static void mid_realloc(void) { realloc_of_free(MID_BYTES); }
static void large_realloc(void) { realloc_of_free(LARGE_BYTES); }

static void aligned(void) {
    for (size_t i = 0; i < 8; i++) neighbours[i] = aligned_alloc(256, 512);
    void *p = neighbours[3];
    block_free(p);
    free(doomed(p));
}

int main(int argc, char **argv) {
    static const abuse_case_t cases[] = {
        {"tiny_at_once", tiny_at_once, ALREADY},
        {"smallest_at_once", smallest_at_once, ALREADY},
        {"zero_at_once", zero_at_once, ALREADY},
        {"mid_at_once", mid_at_once, ALREADY},
        {"large_at_once", large_at_once, ALREADY_OR_GONE},
        {"huge_at_once", huge_at_once, ALREADY_OR_GONE},
        {"tiny_after_others", tiny_after_others, ALREADY},
        {"mid_after_others", mid_after_others, ALREADY},
        {"large_after_others", large_after_others, ALREADY_OR_GONE},
        {"tiny_a_b_a", tiny_a_b_a, ALREADY},
        {"mid_a_b_a", mid_a_b_a, ALREADY},
        {"large_a_b_a", large_a_b_a, ALREADY_OR_GONE},
        {"after_other_sizes", after_other_sizes, ALREADY},
        {"after_a_late_write", after_a_late_write, ALREADY},
        {"tiny_second_elsewhere", tiny_second_elsewhere, ALREADY},
        {"mid_second_elsewhere", mid_second_elsewhere, ALREADY},
        {"large_second_elsewhere", large_second_elsewhere, ALREADY_OR_GONE},
        {"tiny_first_elsewhere", tiny_first_elsewhere, ALREADY},
        {"mid_first_elsewhere", mid_first_elsewhere, ALREADY},
        {"large_first_elsewhere", large_first_elsewhere, ALREADY_OR_GONE},
        {"tiny_both_elsewhere", tiny_both_elsewhere, ALREADY},
        {"mid_both_elsewhere", mid_both_elsewhere, ALREADY},
        {"tiny_after_release", tiny_after_release, ALREADY_OR_GONE},
        {"mid_after_release", mid_after_release, ALREADY_OR_GONE},
        {"large_after_release", large_after_release, ALREADY_OR_GONE},
        {"tiny_after_punch", tiny_after_punch, ALREADY_OR_GONE},
        {"mid_after_punch", mid_after_punch, ALREADY_OR_GONE},
        {"after_realloc_to_0", after_realloc_to_0, ALREADY},
        {"after_realloc_moved", after_realloc_moved, ALREADY},
        {"tiny_realloc", tiny_realloc, ALREADY_REALLOC},
        {"mid_realloc", mid_realloc, ALREADY_REALLOC},
        {"large_realloc", large_realloc, ALREADY_REALLOC_OR_GONE},
        {"aligned", aligned, ALREADY},
    };
    return abuse_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
