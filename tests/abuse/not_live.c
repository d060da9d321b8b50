/* not_live.c - an address inside the allocator's own region that is not, or not now, a block. */
#define _GNU_SOURCE 1
#include "abuse.h"

#include <stdint.h>

#define NOT_LIVE "tidemalloc: free\\(\\): PTR is not a live block"
#define NOT_LIVE_REALLOC "tidemalloc: realloc\\(\\): PTR is not a live block"
/* The rest of an open span belongs to blocks that were never handed out: both messages are true. */
#define NOT_LIVE_OR_FREE "tidemalloc: free\\(\\): PTR (is not a live block|was already free)"

/* Reserved but never used: 512 MiB behind a live block, at the start of a slice. */
static char *far_away(void) {
    char *p = block_make(TINY_BYTES);
    return (char *)(((uintptr_t)p + ((uintptr_t)1 << 29)) & ~(uintptr_t)65535);
}
static void untouched_slice(void) { free(doomed(far_away())); }
static void untouched_middle(void) { free(doomed(far_away() + 4096 + 48)); }
static void untouched_elsewhere(void) { block_free_elsewhere(doomed(far_away())); }
static void untouched_realloc(void) {
    void *volatile q = realloc(doomed(far_away()), 100);
    (void)q;
}

/* A block of the open span that nobody got yet. */
static void never_handed_out(void) {
    char *highest = NULL;
    size_t step = 1024;
    for (int i = 0; i < 3; i++) {
        char *p = block_make(step);
        if (p > highest) highest = p;
    }
    free(doomed(highest + 4 * step));
}

/* Where a run of 20 MiB was, nothing is. */
static void in_a_freed_run(void) {
    char *p = block_make((size_t)20 << 20);
    block_free(p);
    subject_release_all();
    free(doomed(p + ((size_t)10 << 20)));
}

/* The unused end of a large block's last slice. */
static void behind_a_large_block(void) {
    char *p = block_make(65536 + 100);
    size_t usable = malloc_usable_size(p);
    uintptr_t end = ((uintptr_t)p + usable + 65535) & ~(uintptr_t)65535;
    if ((uintptr_t)p + usable + 16 > end) end += 65536;
    free(doomed((char *)end - 16));
}

int main(int argc, char **argv) {
    static const abuse_case_t cases[] = {
        {"untouched_slice", untouched_slice, NOT_LIVE},
        {"untouched_middle", untouched_middle, NOT_LIVE},
        {"untouched_elsewhere", untouched_elsewhere, NOT_LIVE},
        {"untouched_realloc", untouched_realloc, NOT_LIVE_REALLOC},
        {"never_handed_out", never_handed_out, NOT_LIVE_OR_FREE},
        {"in_a_freed_run", in_a_freed_run, NOT_LIVE_OR_FREE},
        {"behind_a_large_block", behind_a_large_block,
         "tidemalloc: free\\(\\): PTR (is not a live block|was already free|points inside a block.*)"},
    };
    return abuse_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
