/* not_ours.c - a pointer that never came from this allocator is freed, reallocated or measured. */
#define _GNU_SOURCE 1
#include "abuse.h"

#include <stdint.h>

#define NOT_OURS_FREE "tidemalloc: free\\(\\): PTR is not ours"
#define NOT_OURS_REALLOC "tidemalloc: realloc\\(\\): PTR is not ours"
#define NOT_OURS_SIZE "tidemalloc: malloc_usable_size\\(\\): PTR is not ours"

static char global[4096];

/* Pointers to memory of other kinds, and to none. */
static void *stack_pointer(void) {
    static void *volatile kept;
    char local[64];
    memset(local, 1, sizeof local);
    kept = local; /* the address alone matters */
    return kept;
}
static void *global_pointer(void) { return global + 64; }
static void *constant_pointer(void) { return (void *)(uintptr_t) "a string"; }
static void *code_pointer(void) { return (void *)(uintptr_t)&global_pointer; }
static void *mapped_pointer(void) {
    void *p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED);
    return p;
}
static void *small_pointer(void) { return (void *)(uintptr_t)0x1230; }
static void *odd_pointer(void) { return (void *)(uintptr_t)0x1235; }
static void *last_pointer(void) { return (void *)UINTPTR_MAX; }
static void *kernel_pointer(void) { return (void *)(UINTPTR_MAX - 0xffff); }
static void *non_canonical_pointer(void) { return (void *)(uintptr_t)0x4141414141414140; }

#define CASES_FOR(kind) \
    static void free_##kind(void) { free(doomed(kind##_pointer())); } \
    static void realloc_##kind(void) { \
        void *volatile q = realloc(doomed(kind##_pointer()), 100); \
        (void)q; \
    } \
    static void size_##kind(void) { \
        volatile size_t size = malloc_usable_size(doomed(kind##_pointer())); \
        (void)size; \
    }
CASES_FOR(stack)
CASES_FOR(global)
CASES_FOR(constant)
CASES_FOR(code)
CASES_FOR(mapped)
CASES_FOR(small)
CASES_FOR(odd)
CASES_FOR(last)
CASES_FOR(kernel)
CASES_FOR(non_canonical)

static void free_elsewhere(void) { block_free_elsewhere(doomed(global_pointer())); }

#define CASE(kind) \
    {"free_" #kind, free_##kind, NOT_OURS_FREE}, {"realloc_" #kind, realloc_##kind, NOT_OURS_REALLOC}, { \
        "size_" #kind, size_##kind, NOT_OURS_SIZE \
    }

int main(int argc, char **argv) {
    static const abuse_case_t cases[] = {
        CASE(stack),
        CASE(global),
        CASE(constant),
        CASE(code),
        CASE(mapped),
        CASE(small),
        CASE(odd),
        CASE(last),
        CASE(kernel),
        CASE(non_canonical),
        {"free_elsewhere", free_elsewhere, NOT_OURS_FREE},
    };
    return abuse_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
