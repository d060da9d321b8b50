/* allocate_test.c - malloc, calloc, realloc, reallocarray, free and malloc_usable_size, as ISO C, POSIX and the manual of
 * glibc describe them, at every size where something changes inside. */
#define _GNU_SOURCE 1
#include "unit.h"

enum { KIB = 1024, MIB = 1024 * 1024 };

/* Sizes around all edges between classes (eighths of a doubling), tiers (1 KiB, 32 KiB), slices (64 KiB), chunks (2 MiB). */
typedef void (*size_visitor)(size_t size);
static void visit_edge_sizes(size_visitor visit) {
    for (size_t size = 0; size <= 1100; size++) visit(size);
    for (size_t doubling = 1024; doubling < 256 * KIB; doubling *= 2)
        for (size_t eighth = 0; eighth < 8; eighth++) {
            size_t edge = doubling + doubling / 8 * eighth;
            visit(edge - 1);
            visit(edge);
            visit(edge + 1);
        }
    for (size_t edge = 256 * KIB; edge <= 16 * MIB; edge *= 2)
        for (int step = -1; step <= 1; step++) {
            visit(edge + (size_t)step);
            visit(edge + (size_t)(step * 4096));
            visit(edge + (size_t)(step * 65536));
        }
}

static void visit_malloc(size_t size) {
    unsigned char *p = malloc(size);
    assert_non_null(p);
    assert_true(is_aligned(p, 16));
    size_t usable = malloc_usable_size(p);
    assert_true(usable >= size);
    memset(p, 0xa5, usable);
    assert_int_equal(malloc_usable_size(p), usable);
    assert_int_equal(first_other(p, usable, 0xa5), usable);
    free(p);
}
static void malloc_serves_every_edge_size(void **state) {
    (void)state;
    visit_edge_sizes(visit_malloc);
}

static void malloc_aligns_powers_of_two_naturally(void **state) {
    (void)state;
    ONLY_ON_TIDE();
    if (subject_is_secure()) skip(); /* 8 bytes more make another class of it */
    for (size_t size = 16; size <= 4096; size *= 2) {
        void *blocks[300];
        for (size_t i = 0; i < 300; i++) {
            blocks[i] = malloc(size);
            assert_non_null(blocks[i]);
            if (!is_aligned(blocks[i], size)) fail_msg("malloc(%zu) gave %p", size, blocks[i]);
        }
        for (size_t i = 0; i < 300; i++) free(blocks[i]);
    }
}

static void malloc_usable_size_is_constant(void **state) {
    (void)state;
    enum { COUNT = 400 };
    void *blocks[COUNT];
    size_t usable[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = malloc(i * i);
        assert_non_null(blocks[i]);
        usable[i] = malloc_usable_size(blocks[i]);
        assert_true(usable[i] >= i * i);
    }
    /* Free every second block, allocate others, give back: the survivors must not notice. */
    for (size_t i = 0; i < COUNT; i += 2) {
        free(blocks[i]);
        blocks[i] = NULL;
    }
    malloc_trim(0);
    for (size_t i = 1; i < COUNT; i += 2) assert_int_equal(malloc_usable_size(blocks[i]), usable[i]);
    for (size_t i = 0; i < COUNT; i++) free(blocks[i]);
    assert_int_equal(malloc_usable_size(NULL), 0);
}

static void malloc_0_gives_unique_pointers(void **state) {
    (void)state;
    enum { COUNT = 1000 };
    static unsigned char *blocks[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        switch (i % 4) {
        case 0: blocks[i] = malloc(0); break;
        case 1: blocks[i] = calloc(0, 7); break;
        case 2: blocks[i] = calloc(7, 0); break;
        default: blocks[i] = realloc(NULL, 0); break;
        }
        assert_non_null(blocks[i]);
        assert_true(is_aligned(blocks[i], 16));
        for (size_t j = 0; j < i; j++) assert_ptr_not_equal(blocks[i], blocks[j]);
    }
    for (size_t i = 0; i < COUNT; i++) free(blocks[i]);
}

static void blocks_do_not_overlap(void **state) {
    (void)state;
    enum { COUNT = 3000 };
    static unsigned char *blocks[COUNT];
    static size_t usable[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = malloc(i % 97 * (i % 31));
        assert_non_null(blocks[i]);
        usable[i] = malloc_usable_size(blocks[i]);
        memset(blocks[i], (int)(i % 251), usable[i]);
    }
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(first_other(blocks[i], usable[i], (unsigned char)(i % 251)), usable[i]);
        free(blocks[i]);
    }
}

static void impossible_sizes_are_refused(void **state) {
    (void)state;
    const size_t huge[] = {unit_size_max,
                           unit_size_max - 15,
                           unit_size_max - 4096,
                           unit_size_max - 65536,
                           unit_size_max - 4 * MIB,
                           unit_ptrdiff_max_plus_1,
                           unit_ptrdiff_max_plus_1 + 4096,
                           unit_ptrdiff_max_plus_1 - 1,
                           unit_ptrdiff_max_plus_1 - 65536};
    for (size_t i = 0; i < sizeof huge / sizeof huge[0]; i++) {
        assert_refused(malloc(huge[i]), ENOMEM);
        assert_refused(calloc(1, huge[i]), ENOMEM);
        assert_refused(calloc(huge[i], 1), ENOMEM);
        assert_refused(realloc(NULL, huge[i]), ENOMEM);
        assert_refused(aligned_alloc(64, huge[i]), ENOMEM);
        assert_refused(memalign(4096, huge[i]), ENOMEM);
        assert_refused(memalign(4 * MIB, huge[i]), ENOMEM);
        assert_refused(valloc(huge[i]), ENOMEM);
        assert_refused(pvalloc(huge[i]), ENOMEM);
    }
}

static void products_that_overflow_are_refused(void **state) {
    (void)state;
    const size_t half = unit_size_max / 2, root = (size_t)1 << 32;
    assert_refused(calloc(half, 3), ENOMEM);
    assert_refused(calloc(3, half), ENOMEM);
    assert_refused(calloc(root, root), ENOMEM);
    assert_refused(calloc(root + 1, root), ENOMEM);
    assert_refused(calloc(unit_size_max, unit_size_max), ENOMEM);
    unsigned char *p = malloc(100);
    assert_non_null(p);
    memset(p, 0x77, 100);
    assert_refused(reallocarray(p, half, 3), ENOMEM);
    assert_refused(reallocarray(p, root, root), ENOMEM);
    assert_refused(reallocarray(NULL, root + 1, root), ENOMEM);
    assert_int_equal(first_other(p, 100, 0x77), 100);
    free(p);
}

/* A refused realloc leaves the old block alone, whatever tier it is in. */
static void refused_realloc_keeps_the_block(void **state) {
    (void)state;
    const size_t sizes[] = {1, 100, 1024, 1025, 20 * KIB, 33 * KIB, 200 * KIB, 3 * MIB};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        unsigned char *p = malloc(sizes[i]);
        assert_non_null(p);
        memset(p, 0x3c, sizes[i]);
        assert_refused(realloc(p, unit_size_max), ENOMEM);
        assert_refused(realloc(p, unit_ptrdiff_max_plus_1), ENOMEM);
        assert_int_equal(first_other(p, sizes[i], 0x3c), sizes[i]);
        free(p);
    }
}

/* One TiB may be refused or granted (the memory is not touched); either way the answer must be proper. */
static void a_tebibyte_is_granted_or_refused(void **state) {
    (void)state;
    volatile size_t tebibyte = (size_t)1 << 40;
    /* The library keeps its reserve small where address space is dear: an emulator would take minutes here. */
    char reserve[32] = "";
    if (subject.is_tide) assert_int_equal(subject.get("reserve", reserve, sizeof reserve), 0);
    if (subject.is_tide && strtoull(reserve, NULL, 10) <= (size_t)1 << 30) skip();
    errno = 0;
    void *p = malloc(tebibyte);
    if (p == NULL)
        assert_int_equal(errno, ENOMEM);
    else
        assert_true(malloc_usable_size(p) >= tebibyte);
    free(p);
    visit_malloc(100);
}

static void realloc_of_null_is_malloc(void **state) {
    (void)state;
    for (size_t size = 0; size < 100000; size += 1 + size / 7) {
        unsigned char *p = realloc(NULL, size);
        assert_non_null(p);
        assert_true(malloc_usable_size(p) >= size);
        memset(p, 1, size);
        unsigned char *q = reallocarray(NULL, size, 1);
        assert_non_null(q);
        memset(q, 2, size);
        assert_int_equal(first_other(p, size, 1), size);
        free(p);
        free(q);
    }
}

/* As glibc: realloc(p, 0) frees p and returns NULL. */
static void realloc_to_0_frees(void **state) {
    (void)state;
    const size_t sizes[] = {1, 500, 5000, 50000, 500000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        void *volatile p = malloc(sizes[i]);
        assert_non_null(p);
        uint64_t with_block = subject_allocated_bytes();
        assert_errno_untouched(assert_null(realloc(p, 0)));
        if (subject.is_tide) assert_true(with_block - subject_allocated_bytes() >= sizes[i]);
    }
    void *volatile p = malloc(64);
    assert_null(reallocarray(p, 0, 8));
}

/* Content survives every step between sizes of all tiers, up and down, with and without a neighbour in the way. */
static void realloc_keeps_content(void **state) {
    (void)state;
    const size_t sizes[] = {1,     15,     16,     17,     100,          1023,        1024,         1025,
                            1040,  4095,   4097,   9000,   32 * KIB - 1, 32 * KIB,    32 * KIB + 1, 65535,
                            65537, 130000, 262144, 600000, 1 * MIB - 1,  1 * MIB + 1, 3 * MIB,      9 * MIB};
    enum { COUNT = sizeof sizes / sizeof sizes[0] };
    for (size_t from = 0; from < COUNT; from++)
        for (size_t to = 0; to < COUNT; to++) {
            unsigned char mark = (unsigned char)(1 + from * COUNT + to);
            unsigned char *p = malloc(sizes[from]);
            void *neighbour = malloc(sizes[from]);
            assert_non_null(p);
            assert_non_null(neighbour);
            memset(p, mark, sizes[from]);
            unsigned char *q = (from + to) % 2 ? realloc(p, sizes[to]) : reallocarray(p, sizes[to], 1);
            assert_non_null(q);
            assert_true(is_aligned(q, 16));
            assert_true(malloc_usable_size(q) >= sizes[to]);
            size_t kept = sizes[from] < sizes[to] ? sizes[from] : sizes[to];
            assert_int_equal(first_other(q, kept, mark), kept);
            memset(q, 0, sizes[to]);
            free(neighbour);
            free(q);
        }
}

static void realloc_grows_step_by_step(void **state) {
    (void)state;
    unsigned char *p = NULL;
    size_t size = 0;
    while (size < 8 * MIB) {
        size_t larger = size + 1 + size / 3;
        p = realloc(p, larger);
        assert_non_null(p);
        for (size_t i = 0; i < size; i += 1 + size / 64) assert_int_equal(p[i], 0x42);
        memset(p, 0x42, larger);
        size = larger;
    }
    while (size > 1) {
        size -= 1 + size / 5;
        if (size == 0) break;
        p = realloc(p, size);
        assert_non_null(p);
        assert_int_equal(first_other(p, size, 0x42), size);
    }
    free(p);
}

/* A block of 30 MiB shrunk to 1 KiB must not keep 30 MiB. */
static void realloc_shrinks_for_real(void **state) {
    (void)state;
    ONLY_ON_TIDE();
    void *p = malloc(30 * MIB);
    assert_non_null(p);
    p = realloc(p, 1 * KIB);
    assert_non_null(p);
    assert_true(malloc_usable_size(p) <= 64 * KIB);
    free(p);
}

static void check_calloc(size_t size) {
    /* Dirty memory of this size, given back, is what calloc gets to reuse. */
    enum { COUNT = 8 };
    unsigned char *blocks[COUNT];
    size_t count = size <= 1 * MIB ? COUNT : 1;
    for (size_t i = 0; i < count; i++) {
        blocks[i] = malloc(size);
        assert_non_null(blocks[i]);
        memset(blocks[i], 0xff, malloc_usable_size(blocks[i]));
    }
    for (size_t i = 0; i < count; i++) free(blocks[i]);
    for (size_t i = 0; i < count; i++) {
        blocks[i] = i % 2 ? calloc(1, size) : calloc(size, 1);
        assert_non_null(blocks[i]);
        if (first_other(blocks[i], size, 0) != size)
            fail_msg("calloc of %zu bytes is dirty at %zu", size, first_other(blocks[i], size, 0));
        memset(blocks[i], 0xee, size);
    }
    for (size_t i = 0; i < count; i++) free(blocks[i]);
}
static void calloc_clears_recycled_memory(void **state) {
    (void)state;
    for (size_t size = 1; size <= 64 * MIB; size = size < 64 ? size + 1 : size + size / 3) check_calloc(size);
    check_calloc(64 * MIB);
    /* Memory that went back to the system in between is clean, and must be seen as such. */
    malloc_trim(0);
    for (size_t size = 8; size <= 8 * MIB; size *= 4) check_calloc(size);
}

/* calloc on pages that are partly dropped (punched around survivors). */
static void calloc_clears_around_survivors(void **state) {
    (void)state;
    enum { COUNT = 4000 };
    static unsigned char *blocks[COUNT];
    const size_t sizes[] = {48, 700, 3000, 20000};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        for (size_t i = 0; i < COUNT; i++) {
            blocks[i] = malloc(sizes[s]);
            assert_non_null(blocks[i]);
            memset(blocks[i], 0xff, sizes[s]);
        }
        for (size_t i = 0; i < COUNT; i++) {
            if (i % 41 == 0) continue;
            free(blocks[i]);
            blocks[i] = NULL;
        }
        malloc_trim(0);
        for (size_t i = 0; i < COUNT; i++) {
            if (blocks[i] != NULL) continue;
            blocks[i] = calloc(1, sizes[s]);
            assert_non_null(blocks[i]);
            assert_int_equal(first_other(blocks[i], sizes[s], 0), sizes[s]);
        }
        for (size_t i = 0; i < COUNT; i++) {
            if (i % 41 == 0) assert_int_equal(first_other(blocks[i], sizes[s], 0xff), sizes[s]);
            free(blocks[i]);
        }
    }
}

static void visit_errno(size_t size) {
    void *p, *q;
    assert_errno_untouched(p = malloc(size));
    assert_errno_untouched(p = realloc(p, size + size / 2 + 1));
    assert_errno_untouched(p = reallocarray(p, 2, size + 1));
    assert_errno_untouched(p = realloc(p, size / 3 + 1));
    assert_errno_untouched(free(p));
    assert_errno_untouched(q = calloc(1, size));
    assert_errno_untouched(malloc_usable_size(q));
    assert_errno_untouched(free(q));
}
static void success_leaves_errno_alone(void **state) {
    (void)state;
    for (size_t size = 0; size < 40 * MIB; size += 1 + size / 2) visit_errno(size);
    assert_errno_untouched(free(NULL));
    /* Many live blocks, so that new spans and new regions are needed. */
    enum { COUNT = 300 };
    void *blocks[COUNT];
    for (size_t size = 16; size <= 256 * KIB; size *= 4) {
        for (size_t i = 0; i < COUNT; i++) assert_errno_untouched(blocks[i] = malloc(size));
        for (size_t i = 0; i < COUNT; i++) assert_errno_untouched(free(blocks[i]));
    }
    assert_errno_untouched(malloc_trim(0));
}

static void free_sized_frees(void **state) {
    (void)state;
    if (subject.free_sized == NULL || subject.free_aligned_sized == NULL || subject.cfree == NULL) skip();
    uint64_t before = subject_allocated_bytes();
    for (size_t size = 0; size < 3 * MIB; size += 1 + size / 2) {
        void *p = malloc(size);
        assert_non_null(p);
        assert_errno_untouched(subject.free_sized(p, size));
        p = calloc(1, size);
        assert_non_null(p);
        assert_errno_untouched(subject.free_sized(p, size));
        p = aligned_alloc(256, (size + 255) / 256 * 256);
        assert_non_null(p);
        assert_errno_untouched(subject.free_aligned_sized(p, 256, (size + 255) / 256 * 256));
        p = malloc(size);
        assert_non_null(p);
        assert_errno_untouched(subject.cfree(p));
    }
    subject.free_sized(NULL, 10);
    subject.free_sized(NULL, 0);
    subject.free_aligned_sized(NULL, 16, 10);
    subject.cfree(NULL);
    assert_int_equal(subject_allocated_bytes(), before);
}

int main(void) {
    subject_require();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malloc_serves_every_edge_size),
        cmocka_unit_test(malloc_aligns_powers_of_two_naturally),
        cmocka_unit_test(malloc_usable_size_is_constant),
        cmocka_unit_test(malloc_0_gives_unique_pointers),
        cmocka_unit_test(blocks_do_not_overlap),
        cmocka_unit_test(impossible_sizes_are_refused),
        cmocka_unit_test(products_that_overflow_are_refused),
        cmocka_unit_test(refused_realloc_keeps_the_block),
        cmocka_unit_test(a_tebibyte_is_granted_or_refused),
        cmocka_unit_test(realloc_of_null_is_malloc),
        cmocka_unit_test(realloc_to_0_frees),
        cmocka_unit_test(realloc_keeps_content),
        cmocka_unit_test(realloc_grows_step_by_step),
        cmocka_unit_test(realloc_shrinks_for_real),
        cmocka_unit_test(calloc_clears_recycled_memory),
        cmocka_unit_test(calloc_clears_around_survivors),
        cmocka_unit_test(success_leaves_errno_alone),
        cmocka_unit_test(free_sized_frees),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
