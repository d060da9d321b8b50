/* heap/block: what is said of good and of bad addresses. Through free and realloc, as programs meet it. */
#include "heap/block.h"
#include "heap/emergency.h"
#include "heap/heap.h"
#include "heap/own.h"
#include "heap/whole.h"
#include "os/options.h"
#include "span/run.h"
#include "unit.h"

static char text[300];

/* The compiler must not see which pointer is freed: it would warn. */
static void release(void *block) {
    void *volatile hidden = block;
    heap_free(hidden);
}

static const char *line(const char *function, const void *pointer, const char *what) {
    snprintf(text, sizeof text, "tidemalloc: %s: %p %s\n", function, pointer, what);
    return text;
}

static const char *inside(const char *function, const char *pointer, const char *start) {
    char what[100];
    snprintf(what, sizeof what, "points inside a block (block starts at %p)", (const void *)start);
    return line(function, pointer, what);
}

static char *take(size_t size) {
    options.reserve_bytes = GIB;
    char *block = heap_malloc(size);
    assert_non_null(block);
    memset(block, 0x5a, size);
    return block;
}

static void check_usable(char *block, size_t size, uint8_t kind) {
    struct block_info info = block_describe("f()", block);
    assert_true(info.usable_bytes >= size);
    assert_int_equal(info.kind, kind);
    assert_int_equal(info.span->kind, kind == SPAN_FREE ? SPAN_FREE : kind);
}

static void test_describe(void **state) {
    (void)state;
    check_usable(take(1), 1, SPAN_TINY);
    check_usable(take(1024), 1024, SPAN_TINY);
    check_usable(take(1025), 1025, SPAN_MID);
    for (int i = 0; i < 20; i++) check_usable(take(30000), 30000, SPAN_MID); /* inner slices, too */
    check_usable(take(32769), 32769, SPAN_LARGE);
    check_usable(heap_malloc_aligned(4 * MIB, 10), 10, SPAN_LARGE);
    check_usable(emergency_take(100, 1), 100, SPAN_EMERGENCY);
    check_usable(emergency_take(10000, 1), 10000, SPAN_FREE);
}

/* The same mistakes with a block of each tier. */
static void mistakes(size_t size) {
    heap_free(heap_malloc(1));
    run_keep_at_most(SIZE_MAX); /* what was given back is not known to have been a block */
    char *block = take(size), *other = take(size);
    assert_fatal(inside("realloc()", block + 16, block), heap_realloc(block + 16, 10));
    assert_fatal(inside("free()", block + 16, block), release(block + 16));
    assert_fatal(inside("free()", block + size - 1, block), release(block + size - 1));
    assert_fatal(inside("f()", block + 1, block), block_describe("f()", block + 1));
    release(block);
    assert_fatal(line("free()", block, "was already free"), release(block));
    assert_fatal(line("realloc()", block, "was already free"), heap_realloc(block, 10));
    assert_fatal(line("f()", block, "was already free"), block_describe("f()", block));
    assert_fatal(line("free()", block, "was already free"), {
        release(other); /* ... also with another one in between */
        release(block);
    });
    char *again = take(size);
    assert_fatal(line("free()", other, "was already free"), {
        release(other);
        release(again);
        release(other);
    });
    release(again);
    release(other);
}

static void test_tiny(void **state) {
    (void)state;
    mistakes(96);
}
static void test_mid(void **state) {
    (void)state;
    mistakes(20000);
}
static void test_large(void **state) {
    (void)state;
    mistakes(300000);
}

/* The last slice of a mid span, and a byte far into a large block. */
static void test_far_inside(void **state) {
    (void)state;
    char *large = take(10 * MIB);
    assert_fatal(inside("free()", large + 9 * MIB, large), release(large + 9 * MIB));
    char *mid = take(32768);
    for (int i = 0; i < 15; i++) mid = take(32768);
    assert_fatal(inside("free()", mid + 17000, mid), release(mid + 17000));
}

/* Blocks of a span that were never handed out. */
static void test_never_handed_out(void **state) {
    (void)state;
    char *tiny = take(1024);
    char *page = (char *)size_round_down((uintptr_t)tiny, SLICE_BYTES);
    assert_fatal(line("free()", page + 40 * KIB, "is not a live block"), release(page + 40 * KIB));
    assert_fatal(line("realloc()", page + 40 * KIB, "is not a live block"), heap_realloc(page + 40 * KIB, 1));
    char *mid = take(4096);
    assert_fatal(line("free()", mid + 20 * 4096, "is not a live block"), release(mid + 20 * 4096));
    assert_fatal(line("realloc()", mid + 20 * 4096, "is not a live block"), heap_realloc(mid + 20 * 4096, 1));
    char *large = take(100000);
    assert_fatal(line("free()", large + 20 * MIB, "is not a live block"),
                 release(large + 20 * MIB)); /* reserved at most */
    assert_fatal(line("free()", large + 512 * MIB, "is not a live block"), release(large + 512 * MIB));
}

static void test_foreign(void **state) {
    (void)state;
    int local = 0;
    static int global;
    assert_fatal(line("free()", (void *)0x10, "is not ours"), release((void *)0x10)); /* before the first operation */
    take(10);
    assert_fatal(line("free()", &local, "is not ours"), release(&local));
    assert_fatal(line("free()", &global, "is not ours"), release(&global));
    assert_fatal(line("realloc()", &global, "is not ours"), heap_realloc(&global, 5));
    assert_fatal(line("free()", (void *)-16, "is not ours"), release((void *)-16));
    release(NULL);
}

static void test_emergency(void **state) {
    (void)state;
    take(1);
    char *block = emergency_take(100, 1);
    assert_fatal(inside("free()", block + 16, block), release(block + 16));
    release(block);
    assert_fatal(line("free()", block, "was already free"), release(block));
    char *mapped = emergency_take(100000, 1);
    assert_fatal(line("free()", mapped + 16, "is not ours"), release(mapped + 16));
    release(mapped);
    assert_fatal(line("free()", mapped, "is not ours"), release(mapped));
}

/* Freed in a handler that interrupts an operation, and again. */
static void nested_free(char *block) {
    fake.on_signal_stack = true;
    heap_enter();
    release(block);
    heap_leave();
    fake.on_signal_stack = false;
}

static void nested(size_t size) {
    char *block = take(size);
    assert_fatal(inside("free()", block + 16, block), nested_free(block + 16));
    nested_free(block);
    const char *expected = line("free()", block, "was already free");
    assert_fatal(expected, {
        alarm(20);
        nested_free(block);
        for (int i = 0; i < 100; i++) take(40000);
    });
    assert_fatal(expected, {
        release(block);
        for (int i = 0; i < 100; i++) take(40000);
    });
    for (int i = 0; i < 100; i++) release(take(size)); /* in order otherwise */
    assert_int_equal(heap_nested_count(), 1);
}

static void test_nested_tiny(void **state) {
    (void)state;
    nested(96);
}
static void test_nested_mid(void **state) {
    (void)state;
    nested(20000);
}
static void test_nested_large(void **state) {
    (void)state;
    nested(300000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_describe),   cmocka_unit_test(test_tiny),         cmocka_unit_test(test_mid),
        cmocka_unit_test(test_large),      cmocka_unit_test(test_far_inside),   cmocka_unit_test(test_never_handed_out),
        cmocka_unit_test(test_foreign),    cmocka_unit_test(test_emergency),    cmocka_unit_test(test_nested_tiny),
        cmocka_unit_test(test_nested_mid), cmocka_unit_test(test_nested_large),
    };
    return unit_run(tests, COUNT_OF(tests));
}
