/* align_test.c - posix_memalign, aligned_alloc, memalign, valloc, pvalloc: alignment kept, bad alignment refused. */
#define _GNU_SOURCE 1
#include "unit.h"

enum { KIB = 1024, MIB = 1024 * 1024 };

static const size_t sizes[] = {0,    1,    7,     8,     16,    24,    100,   1000,   1024,    1025,   4095,
                               4096, 4097, 10000, 32768, 32769, 65536, 65537, 200000, 1048576, 1048577};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

/* The block is aligned, has room, can be written, and goes. */
static void check_block(unsigned char *p, size_t alignment, size_t size) {
    if (p == NULL || !is_aligned(p, alignment))
        fail_msg("alignment %zu, %zu bytes: got %p", alignment, size, (void *)p);
    size_t usable = malloc_usable_size(p);
    if (usable < size) fail_msg("alignment %zu, %zu bytes: usable size %zu", alignment, size, usable);
    memset(p, 0x5a, usable);
    assert_int_equal(malloc_usable_size(p), usable);
    free(p);
}

static void posix_memalign_aligns(void **state) {
    (void)state;
    for (size_t alignment = sizeof(void *); alignment <= 64 * MIB; alignment *= 2)
        for (size_t i = 0; i < SIZES; i++) {
            void *p = NULL;
            int result = -1;
            assert_errno_untouched(result = posix_memalign(&p, alignment, sizes[i]));
            assert_int_equal(result, 0);
            check_block(p, alignment, sizes[i]);
        }
}

static void aligned_alloc_aligns(void **state) {
    (void)state;
    for (size_t alignment = 1; alignment <= 64 * MIB; alignment *= 2)
        for (size_t i = 0; i < SIZES; i++) {
            void *p = NULL;
            assert_errno_untouched(p = aligned_alloc(alignment, sizes[i]));
            check_block(p, alignment, sizes[i]);
        }
}

static void memalign_aligns(void **state) {
    (void)state;
    for (size_t alignment = 1; alignment <= 64 * MIB; alignment *= 2)
        for (size_t i = 0; i < SIZES; i++) {
            void *p = NULL;
            assert_errno_untouched(p = memalign(alignment, sizes[i]));
            check_block(p, alignment, sizes[i]);
        }
}

/* Many live blocks at once: alignment must not hang on the first block of a span. */
static void many_aligned_blocks(void **state) {
    (void)state;
    enum { COUNT = 200 };
    unsigned char *blocks[COUNT];
    for (size_t alignment = 16; alignment <= 256 * KIB; alignment *= 2)
        for (size_t size = 1; size <= 3 * alignment && size <= 128 * KIB; size += 1 + alignment / 2) {
            for (size_t i = 0; i < COUNT; i++) {
                blocks[i] = aligned_alloc(alignment, size);
                if (blocks[i] == NULL || !is_aligned(blocks[i], alignment))
                    fail_msg("aligned_alloc(%zu, %zu) gave %p", alignment, size, (void *)blocks[i]);
                memset(blocks[i], (int)i, size);
            }
            for (size_t i = 0; i < COUNT; i++) {
                assert_int_equal(first_other(blocks[i], size, (unsigned char)i), size);
                free(blocks[i]);
            }
        }
}

/* An aligned block can be reallocated; its content comes along (the alignment need not). */
static void realloc_of_aligned_blocks(void **state) {
    (void)state;
    for (size_t alignment = 16; alignment <= 4 * MIB; alignment *= 4)
        for (size_t i = 1; i < SIZES; i++) {
            unsigned char *p = memalign(alignment, sizes[i]);
            assert_non_null(p);
            memset(p, 0x99, sizes[i]);
            p = realloc(p, sizes[i] * 2 + 100);
            assert_non_null(p);
            assert_int_equal(first_other(p, sizes[i], 0x99), sizes[i]);
            p = realloc(p, sizes[i] / 2 + 1);
            assert_non_null(p);
            assert_int_equal(first_other(p, sizes[i] / 2, 0x99), sizes[i] / 2);
            free(p);
        }
}

static void posix_memalign_refuses_bad_alignments(void **state) {
    (void)state;
    const size_t bad[] = {0, 1, 2, 3, 4, 7, 9, 12, 24, 48, 4097, 65535, unit_size_max, unit_ptrdiff_max_plus_1 + 8};
    void *const mark = state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        void *p = mark;
        int result = -1;
        assert_errno_untouched(result = posix_memalign(&p, bad[i], 64));
        assert_int_equal(result, EINVAL);
        assert_ptr_equal(p, mark);
    }
}

static void posix_memalign_refuses_impossible_sizes(void **state) {
    (void)state;
    const size_t huge[] = {unit_size_max, unit_size_max - 100, unit_ptrdiff_max_plus_1};
    void *const mark = state;
    for (size_t i = 0; i < sizeof huge / sizeof huge[0]; i++)
        for (size_t alignment = 8; alignment <= 64 * MIB; alignment *= 8) {
            void *p = mark;
            assert_int_equal(posix_memalign(&p, alignment, huge[i]), ENOMEM);
            assert_ptr_equal(p, mark);
        }
}

/* aligned_alloc: a non-power of two is EINVAL, as in glibc from 2.38 on. Earlier ones round up. */
static void aligned_alloc_refuses_bad_alignments(void **state) {
    (void)state;
    ONLY_ON_TIDE();
    const size_t bad[] = {0, 3, 5, 12, 24, 48, 100, 4097, unit_size_max, unit_ptrdiff_max_plus_1 + 1};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_refused(aligned_alloc(bad[i], 64), EINVAL);
}

/* memalign: a non-power of two is rounded up to the next one; what cannot be rounded up is EINVAL. */
static void memalign_rounds_alignment_up(void **state) {
    (void)state;
    const size_t given[] = {0, 3, 12, 17, 24, 33, 48, 100, 1000, 4097, 100000};
    const size_t kept[] = {16, 16, 16, 32, 32, 64, 64, 128, 1024, 8192, 131072};
    for (size_t i = 0; i < sizeof given / sizeof given[0]; i++)
        for (size_t j = 0; j < 10; j++) {
            unsigned char *p = NULL, *q = NULL;
            assert_errno_untouched(p = memalign(given[i], 40));
            assert_errno_untouched(q = memalign(given[i], 40));
            check_block(p, kept[i], 40);
            check_block(q, kept[i], 40);
        }
    assert_refused(memalign(unit_size_max, 40), EINVAL);
    assert_refused(memalign(unit_ptrdiff_max_plus_1 + 1, 40), EINVAL);
}

/* The largest power of two is a valid alignment that no address space can serve. */
static void impossible_alignments_are_refused(void **state) {
    (void)state;
    void *p = NULL;
    assert_refused(aligned_alloc(unit_ptrdiff_max_plus_1, 64), ENOMEM);
    assert_refused(memalign(unit_ptrdiff_max_plus_1, 64), ENOMEM);
    assert_int_equal(posix_memalign(&p, unit_ptrdiff_max_plus_1, 64), ENOMEM);
    volatile size_t pebibyte = (size_t)1 << 50;
    assert_refused(aligned_alloc(pebibyte, pebibyte), ENOMEM);
}

static void valloc_and_pvalloc_align_to_pages(void **state) {
    (void)state;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t i = 0; i < SIZES; i++) {
        void *p = NULL;
        assert_errno_untouched(p = valloc(sizes[i]));
        check_block(p, page, sizes[i]);
        assert_errno_untouched(p = pvalloc(sizes[i]));
        check_block(p, page, (sizes[i] + page - 1) / page * page);
    }
}

static void aligned_blocks_are_all_given_back(void **state) {
    (void)state;
    ONLY_ON_TIDE();
    uint64_t before = subject_allocated_bytes();
    for (size_t round = 0; round < 20; round++)
        for (size_t alignment = 16; alignment <= 64 * MIB; alignment *= 2) {
            void *p = aligned_alloc(alignment, 100 + round * 1000);
            assert_non_null(p);
            free(p);
        }
    assert_int_equal(subject_allocated_bytes(), before);
}

int main(void) {
    subject_require();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(posix_memalign_aligns),
        cmocka_unit_test(aligned_alloc_aligns),
        cmocka_unit_test(memalign_aligns),
        cmocka_unit_test(many_aligned_blocks),
        cmocka_unit_test(realloc_of_aligned_blocks),
        cmocka_unit_test(posix_memalign_refuses_bad_alignments),
        cmocka_unit_test(posix_memalign_refuses_impossible_sizes),
        cmocka_unit_test(aligned_alloc_refuses_bad_alignments),
        cmocka_unit_test(memalign_rounds_alignment_up),
        cmocka_unit_test(impossible_alignments_are_refused),
        cmocka_unit_test(valloc_and_pvalloc_align_to_pages),
        cmocka_unit_test(aligned_blocks_are_all_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
