/* inside.c - a pointer into the middle of a live block is freed. The message may add where the block starts. */
#define _GNU_SOURCE 1
#include "abuse.h"

#define INSIDE "tidemalloc: free\\(\\): PTR points inside a block( \\((it|block) starts at START\\))?"
#define INSIDE_REALLOC "tidemalloc: realloc\\(\\): PTR points inside a block( \\((it|block) starts at START\\))?"

static void free_inside(size_t size, size_t offset) {
    void *before = block_make(size);
    char *p = block_make(size);
    void *after = block_make(size);
    CHECK(before != NULL && after != NULL);
    free(doomed_inside(p + offset, p));
}
static void tiny_1(void) { free_inside(TINY_BYTES, 1); }
static void tiny_8(void) { free_inside(TINY_BYTES, 8); }
static void tiny_16(void) { free_inside(TINY_BYTES, 16); }
static void tiny_64(void) { free_inside(TINY_BYTES, 64); }
static void smallest_8(void) { free_inside(16, 8); }
static void mid_16(void) { free_inside(MID_BYTES, 16); }
static void mid_4096(void) { free_inside(MID_BYTES, 4096); }
static void mid_last(void) { free_inside(MID_BYTES, MID_BYTES - 1); }
static void large_16(void) { free_inside(LARGE_BYTES, 16); }
static void large_4096(void) { free_inside(LARGE_BYTES, 4096); }
static void large_65536(void) { free_inside(LARGE_BYTES, 65536); }
static void large_131072(void) { free_inside(LARGE_BYTES, 131072); }
static void large_131088(void) { free_inside(LARGE_BYTES, 131088); }
static void huge_2_mib(void) { free_inside((size_t)20 << 20, (size_t)2 << 20); }
static void huge_last_slice(void) { free_inside((size_t)20 << 20, ((size_t)20 << 20) - 65536); }

static void elsewhere(size_t size, size_t offset) {
    void *before = block_make(size);
    char *p = block_make(size);
    CHECK(before != NULL);
    block_free_elsewhere(doomed_inside(p + offset, p));
}
static void tiny_elsewhere(void) { elsewhere(TINY_BYTES, 16); }
static void mid_elsewhere(void) { elsewhere(MID_BYTES, 4096); }
static void large_elsewhere(void) { elsewhere(LARGE_BYTES, 65536); }

static void realloc_inside(size_t size, size_t offset) {
    void *before = block_make(size);
    char *p = block_make(size);
    CHECK(before != NULL);
    void *volatile q = realloc(doomed_inside(p + offset, p), 2 * size);
    (void)q;
}
static void tiny_realloc(void) { realloc_inside(TINY_BYTES, 16); }
static void mid_realloc(void) { realloc_inside(MID_BYTES, 4096); }
static void large_realloc(void) { realloc_inside(LARGE_BYTES, 65536); }
static void large_realloc_page(void) { realloc_inside(LARGE_BYTES, 4096); }

int main(int argc, char **argv) {
    static const abuse_case_t cases[] = {
        {"tiny_1", tiny_1, INSIDE},
        {"tiny_8", tiny_8, INSIDE},
        {"tiny_16", tiny_16, INSIDE},
        {"tiny_64", tiny_64, INSIDE},
        {"smallest_8", smallest_8, INSIDE},
        {"mid_16", mid_16, INSIDE},
        {"mid_4096", mid_4096, INSIDE},
        {"mid_last", mid_last, INSIDE},
        {"large_16", large_16, INSIDE},
        {"large_4096", large_4096, INSIDE},
        {"large_65536", large_65536, INSIDE},
        {"large_131072", large_131072, INSIDE},
        {"large_131088", large_131088, INSIDE},
        {"huge_2_mib", huge_2_mib, INSIDE},
        {"huge_last_slice", huge_last_slice, INSIDE},
        {"tiny_elsewhere", tiny_elsewhere, INSIDE},
        {"mid_elsewhere", mid_elsewhere, INSIDE},
        {"large_elsewhere", large_elsewhere, INSIDE},
        {"tiny_realloc", tiny_realloc, INSIDE_REALLOC},
        {"mid_realloc", mid_realloc, INSIDE_REALLOC},
        {"large_realloc", large_realloc, INSIDE_REALLOC},
        {"large_realloc_page", large_realloc_page, INSIDE_REALLOC},
    };
    return abuse_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
