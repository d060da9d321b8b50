/* broken_invariant.c - memory that was freed is written to: with TIDE_CHECK=1 the next sweep of the caches finds what the program has destroyed, in a
 * release build, too. */
#define _GNU_SOURCE 1
#include "abuse.h"

#define BROKEN(what) "tidemalloc: broken invariant: " what

/* Free blocks among live ones of their size. `count` of them, the last one freed first in the list. */
static void **make_free(size_t size, size_t count) {
    static void *blocks[64];
    for (size_t i = 0; i < 64; i++) blocks[i] = block_make(size);
    for (size_t i = 0; i < count; i++) block_free(blocks[10 + i]);
    return &blocks[10];
}

static void check_now(void) { malloc_trim(0); }

static void link_overwritten(void) {
    char *freed = doomed(make_free(TINY_BYTES, 3)[2]);
    *(void **)(void *)freed = freed + 24;
    check_now();
}
static void key_overwritten(void) {
    char *freed = doomed(make_free(TINY_BYTES, 3)[1]);
    memset(freed + 8, 0x41, 8);
    check_now();
}
static void link_to_itself(void) {
    char *freed = doomed(make_free(TINY_BYTES, 3)[2]);
    *(void **)(void *)freed = freed;
    check_now();
}
/* By the keeper, with no call of the program: it checks what it sweeps. */
static void found_by_the_keeper(void) {
    void *much[4]; /* so that there is a keeper */
    for (int i = 0; i < 4; i++) much[i] = block_make(4000000);
    char *freed = doomed(make_free(TINY_BYTES, 3)[1]);
    memset(freed + 8, 0x41, 8);
    for (int i = 0; i < 4; i++) block_free(much[i]);
    for (int i = 0; i < 50; i++) usleep(100000);
}

static const abuse_case_t cases[] = {
    {"link_overwritten", link_overwritten, BROKEN("tiny: a link that leads to no block")},
    {"key_overwritten", key_overwritten, BROKEN("tiny: a free block without its key")},
    {"link_to_itself", link_to_itself, BROKEN("tiny: a circle of free blocks")},
    {"found_by_the_keeper", found_by_the_keeper, BROKEN("tiny: a free block without its key")},
};

int main(int argc, char **argv) {
    if (getenv("TIDE_CHECK") == NULL) {
        setenv("TIDE_CHECK", "1", 1);
        again_t again = process_again("/proc/self/exe", argv);
        execvp(again.path, again.words);
    }
    return abuse_main(argc, argv, cases, sizeof cases / sizeof *cases);
}
