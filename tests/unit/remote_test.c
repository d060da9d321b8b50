/* heap/remote: the word of a span and the queue of a heap. */
#include "heap/own.h"
#include "heap/validate.h"
#include "heap/remote.h"
#include "unit.h"

static struct heap heap;

static void *take(size_t size) {
    if (os_page_bytes == 0) {
        os_init();
        assert_true(region_init(GIB));
        heap_init(&heap);
    }
    bool clean;
    void *block = heap_take(&heap, class_of_size(size), &clean);
    assert_non_null(block);
    return block;
}

static struct span *span_of(void *block) {
    struct span *span = region_span(&region_main, block);
    return span->kind == SPAN_INNER ? mid_head(span) : span;
}

static bool push(void *block) { return remote_push(span_of(block), block, span_block_index(span_of(block), block)); }

static void check_list(size_t size) {
    void *blocks[20];
    for (size_t i = 0; i < 20; i++) blocks[i] = take(size);
    struct span *span = span_of(blocks[0]);
    for (size_t i = 0; i < 20; i++) assert_true(span_of(blocks[i]) == span);
    assert_true(span->remote == 0);
    assert_false(remote_is_queued(span));
    for (size_t i = 0; i < 20; i++) {
        assert_int_equal(push(blocks[i]), i == 0); /* the first one queues the span */
        assert_true(remote_is_queued(span));
        assert_int_equal(remote_count(span->remote), i + 1);
        assert_int_equal(remote_head(span->remote), span_block_index(span, blocks[i]) + 1);
    }
    uint64_t word = remote_take_all(span);
    assert_true(span->remote == 0);
    assert_int_equal(remote_count(word), 20);
    uint32_t link = remote_head(word);
    for (size_t i = 20; i-- > 0;) { /* last in, first out */
        assert_int_equal(link, span_block_index(span, blocks[i]) + 1);
        link = (uint32_t)(uintptr_t)((struct block *)blocks[i])->next;
    }
    assert_int_equal(link, 0);
    assert_true(remote_take_queue(&heap) == span);
    assert_null(span->remote_next);
    assert_null(remote_take_queue(&heap));
}

static void test_list_of_tiny_blocks(void **state) {
    (void)state;
    check_list(112);
}
static void test_list_of_mid_blocks(void **state) {
    (void)state;
    check_list(9000);
}

/* Every block of the span with the most blocks, and of one with the largest numbers. */
static void test_whole_spans(void **state) {
    (void)state;
    for (size_t size = 16; size <= 1024; size *= 8) {
        static void *blocks[SLICE_BYTES / 16];
        size_t count = SLICE_BYTES / size;
        for (size_t i = 0; i < count; i++) blocks[i] = take(size);
        struct span *span = span_of(blocks[0]);
        assert_true(span_of(take(size)) != span); /* it is full */
        for (size_t i = 0; i < count; i++) assert_int_equal(push(blocks[i]), i == 0);
        assert_int_equal(remote_count(span->remote), count);
        assert_int_equal(remote_head(span->remote), (SLICE_BYTES - size) / 16 + 1);
        uint64_t collected = heap.remote_count;
        heap_drain(&heap);
        assert_int_equal(heap.remote_count - collected, count);
        assert_int_equal(span->kind, SPAN_FREE); /* it was full, and is empty now */
        assert_valid(heap_validate(&heap));
    }
}

static void test_queue(void **state) {
    (void)state;
    void *blocks[5] = {take(16), take(100), take(1000), take(5000), take(32000)};
    for (size_t i = 0; i < 5; i++) assert_true(push(blocks[i]));
    struct span *span = remote_take_queue(&heap);
    for (size_t i = 5; i-- > 0; span = span->remote_next) assert_true(span == span_of(blocks[i]));
    assert_null(span);
    assert_true(remote_is_queued(span_of(blocks[2]))); /* until its list is taken */
    remote_take_all(span_of(blocks[2]));
    assert_false(remote_is_queued(span_of(blocks[2])));
}

/* Freed after the queue was taken but before the span's list was: the block is in the list, and the span is not queued twice. Freed after that: it
 * is queued again. */
static void test_free_beside_a_drain(void **state) {
    (void)state;
    void *a = take(64), *b = take(64), *c = take(64);
    assert_true(push(a));
    struct span *span = remote_take_queue(&heap);
    assert_false(push(b));
    assert_null(remote_take_queue(&heap));
    assert_int_equal(remote_count(remote_take_all(span)), 2);
    assert_true(push(c));
    assert_true(remote_take_queue(&heap) == span);
    assert_int_equal(remote_count(remote_take_all(span)), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list_of_tiny_blocks), cmocka_unit_test(test_list_of_mid_blocks),
        cmocka_unit_test(test_whole_spans),         cmocka_unit_test(test_queue),
        cmocka_unit_test(test_free_beside_a_drain),
    };
    return unit_run(tests, COUNT_OF(tests));
}
