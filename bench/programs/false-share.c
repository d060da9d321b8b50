/* false-share.c - does the allocator put blocks of two threads into one cache line?
 *
 * Pattern, active: each thread allocates a small block, writes to it many times and frees it, over and over; an
 * allocator that serves both threads from one line makes them fight for it. Passive: the blocks that a thread frees
 * first were allocated side by side by the main thread; an allocator that gives such a block back to the thread that
 * freed it lets the sharing go on. The ideas are active-false and passive-false of Berger et al., "Hoard"
 * (ASPLOS 2000), in its sources cache-thrash and cache-scratch.
 * Stresses: which thread a freed block belongs to.
 *
 * Arguments: active | passive, threads, blocks of each thread, writes to each block, size in bytes.
 */
#include "common.h"

typedef struct setup {
    size_t blocks, writes, size;
    void **gifts; /* one block for each thread, or NULL */
} setup;

static void *share_run(void *arg) {
    worker *self = arg;
    const setup *s = self->job;
    if (s->gifts != NULL) free(s->gifts[self->index]);
    for (size_t i = 0; i < s->blocks; i++) {
        volatile char *block = take(s->size);
        for (size_t at = 0; at < s->size; at++) block[at] = (char)i;
        for (size_t j = 0; j < s->writes; j++) block[j % s->size] = (char)(block[j % s->size] + 1);
        for (size_t at = 0; at < s->size; at++) self->result.sum += (unsigned char)block[at];
        free((void *)block);
    }
    self->result.blocks = s->blocks;
    return NULL;
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "active";
    bool passive = strcmp(mode, "passive") == 0;
    if (!passive && strcmp(mode, "active") != 0) die("the mode is active or passive");
    size_t threads = argument(argc, argv, 2, 2);
    setup s = {.blocks = argument(argc, argv, 3, 120000),
               .writes = argument(argc, argv, 4, 500),
               .size = argument(argc, argv, 5, 8)};
    if (passive) {
        s.gifts = take(threads * sizeof *s.gifts);
        for (size_t i = 0; i < threads; i++) memset(s.gifts[i] = take(s.size), 1, s.size);
    }
    tally total = workers_run(threads, share_run, &s);
    free(s.gifts);
    return tally_print("false-share", total);
}
