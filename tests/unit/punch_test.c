/* heap/punch: spans whose empty pages are given back, of the test's own heap, and another thread that frees. */
#include "heap/punch.h"

#include "actors.h"
#include "heap/block.h"
#include "heap/own.h"
#include "heap/validate.h"
#include "heap/remote.h"
#include "heap/thread.h"
#include "heap/whole.h"
#include "os/options.h"
#include "span/run.h"

#define TINY_BYTES 512
#define MID_BYTES 4096
static struct actor other;
static struct punch punch;
static char *blocks[40][SLICE_BYTES / TINY_BYTES]; /* [span][block] */
static struct heap *heap;

static struct span *span_of(void *block) {
    struct span *at = region_span(region_of(block), block);
    return at->kind == SPAN_INNER ? mid_head(at) : at;
}

static void start(void) {
    options.reserve_bytes = GIB;
    options.mode = MODE_STATIC;
    actor_start(&other, 2);
    heap_free(heap_malloc(40));
    heap = heap_record.self;
}

static void validate(void) {
    assert_valid(heap_validate(heap));
    assert_valid(run_validate());
    assert_int_equal(fake_locks_held(), 0);
}

/* Listed spans with one live block each, the first of block `keep`; the current span of the class is another one. */
static size_t fill(size_t bytes, size_t spans, size_t keep) {
    size_t count = 0;
    for (size_t s = 0; s < spans; s++) {
        blocks[s][0] = heap_malloc(bytes);
        count = span_of(blocks[s][0])->capacity;
        for (size_t i = 1; i < count; i++) {
            blocks[s][i] = heap_malloc(bytes);
            memset(blocks[s][i], 0x77, bytes);
        }
    }
    heap_malloc(bytes);
    for (size_t s = 0; s < spans; s++) {
        unit_fill(blocks[s][keep], bytes, s);
        for (size_t i = 0; i < count; i++)
            if (i != keep) heap_free(blocks[s][i]);
        assert_int_equal(span_of(blocks[s][keep])->flags & (SPAN_LISTED | SPAN_CURRENT), SPAN_LISTED);
    }
    return count;
}

static bool take_in_hand(void) {
    assert_true(heap_try_enter());
    bool more = punch_take(&punch, heap_own(), TIER_BOTH);
    heap_quit();
    return more;
}

static size_t hand_back(void) {
    size_t bytes = punch_purge(&punch);
    assert_true(heap_try_enter());
    punch_end(&punch);
    assert_int_equal(punch.count, 0);
    heap_quit();
    return bytes;
}

static void drain(void) {
    assert_true(heap_try_enter());
    heap_drain(heap_own());
    heap_quit();
    validate();
}

static bool is_listed(const struct span *wanted) {
    for (const struct span *at = heap->listed[wanted->class].first; at != NULL; at = at->next)
        if (at == wanted) return true;
    return false;
}

static void protocol(size_t bytes) {
    start();
    fill(bytes, 3, 9);
    struct span *spans[3];
    for (size_t s = 0; s < 3; s++) spans[s] = span_of(blocks[s][9]);
    assert_false(take_in_hand());
    assert_int_equal(punch.count, 3);
    for (size_t s = 0; s < 3; s++) {
        assert_ptr_equal(punch.spans[s].span, spans[s]); /* in the order of the list */
        assert_int_equal(spans[s]->flags & (SPAN_LISTED | SPAN_CURRENT | SPAN_IN_HAND | SPAN_PUNCHED),
                         SPAN_IN_HAND | SPAN_PUNCHED);
        assert_false(is_listed(spans[s]));
        assert_null(span_owner(spans[s]));
        assert_true(remote_is_queued(spans[s]));
    }
    assert_null(heap->remote);
    unsigned count = punch.count;
    assert_false(take_in_hand()); /* nothing twice */
    assert_int_equal(punch.count, count);
    drain();
    for (size_t s = 0; s < 3; s++) assert_false(is_listed(spans[s]));

    size_t resident = run_resident_bytes(), returned = hand_back();
    assert_int_equal(resident - run_resident_bytes(), returned);
    for (size_t s = 0; s < 3; s++) {
        assert_int_equal(fake_resident_bytes(span_start(spans[s]), spans[s]->slices * SLICE_BYTES),
                         size_round_up(bytes, os_page_bytes)); /* of the live block */
        assert_false(is_listed(spans[s]));
    }
    drain();
    for (size_t s = 0; s < 3; s++) {
        assert_int_equal(spans[s]->flags & (SPAN_LISTED | SPAN_CURRENT | SPAN_IN_HAND | SPAN_PUNCHED),
                         SPAN_LISTED | SPAN_PUNCHED);
        assert_false(remote_is_queued(spans[s]));
        assert_null(span_owner(spans[s]));
        assert_true(unit_holds(blocks[s][9], bytes, s));
    }
    assert_int_equal(hand_back(), 0);
    for (size_t s = 0; s < 3; s++) { /* the first free into it is the last, too */
        heap_free(blocks[s][9]);
        assert_int_equal(spans[s]->kind, SPAN_FREE);
        validate();
    }
}

static void test_protocol_tiny(void **state) {
    (void)state;
    protocol(TINY_BYTES);
}
static void test_protocol_mid(void **state) {
    (void)state;
    protocol(MID_BYTES);
}

static void *freed_by_other;
static void free_it(void) { heap_free(freed_by_other); }
static void free_elsewhere(void *block) {
    freed_by_other = block;
    actor_run(&other, free_it);
}

/* Pages of the second half of it fill a word. */
static void test_protocol_large_mid(void **state) {
    (void)state;
    protocol(16 * KIB);
}

/* Of a span in hand no free shows before it is back. */
static void frees_in_hand(size_t bytes) {
    start();
    size_t count = fill(bytes, 3, 9);
    bool tiny = bytes <= TINY_MAX_BYTES;
    char *more[3][2];
    for (size_t s = 0; s < 3; s++) /* three live blocks in each of them */
        for (size_t i = 0; i < 2; i++) {
            struct span *to = span_of(blocks[s][9]);
            if (tiny) {
                more[s][i] = tiny_pop(to);
            } else {
                bool clean;
                mid_ready(to);
                more[s][i] = mid_pop(to, &clean);
            }
        }
    take_in_hand();
    assert_int_equal(punch.count, 3);
    struct span *one = span_of(blocks[0][9]), *two = span_of(blocks[1][9]), *three = span_of(blocks[2][9]);
    free_elsewhere(more[0][0]);
    heap_free(more[0][1]);
    heap_free(more[1][0]); /* all of them: by the owner ... */
    heap_free(more[1][1]);
    heap_free(blocks[1][9]);
    free_elsewhere(more[2][0]); /* ... and by another thread */
    free_elsewhere(more[2][1]);
    free_elsewhere(blocks[2][9]);
    drain();
    assert_int_equal(one->used, 3);
    assert_int_equal(two->used, 3);
    assert_int_equal(remote_count(one->remote), 2);
    assert_int_equal(remote_count(two->remote), 3);
    assert_int_equal(remote_count(three->remote), 3);
    for (int i = 0; i < 2; i++) assert_int_equal((i == 0 ? two : three)->flags & SPAN_IN_HAND, SPAN_IN_HAND);
    assert_true(hand_back() > 0);
    assert_true(two->kind != SPAN_FREE && three->kind != SPAN_FREE);
    drain();
    assert_int_equal(two->kind, SPAN_FREE);
    assert_int_equal(three->kind, SPAN_FREE);
    assert_int_equal(one->used, 1);
    assert_int_equal(one->flags & (SPAN_LISTED | SPAN_PUNCHED | SPAN_IN_HAND), SPAN_LISTED); /* it has changed */
    assert_true(unit_holds(blocks[0][9], bytes, 0));
    for (size_t i = 0; i < 4 * count; i++) unit_fill(heap_malloc(bytes), bytes, i);
    assert_true(unit_holds(blocks[0][9], bytes, 0));
    validate();
}

static void test_frees_in_hand_tiny(void **state) {
    (void)state;
    frees_in_hand(TINY_BYTES);
}
static void test_frees_in_hand_mid(void **state) {
    (void)state;
    frees_in_hand(MID_BYTES);
}

static size_t index_in_page(const void *block) { return (uintptr_t)block % os_page_bytes / TINY_BYTES; }

static unsigned looks;
static void on_look(const void *at, size_t bytes) {
    (void)at;
    looks += bytes == SLICE_BYTES;
}

/* Punched spans come last, and are left alone until something changes. */
static void test_order(void **state) {
    (void)state;
    start();
    fill(TINY_BYTES, 4, 9);
    unsigned class = class_of_size(TINY_BYTES);
    struct span *spans[4];
    void *more[4];
    for (size_t s = 0; s < 4; s++) {
        spans[s] = span_of(blocks[s][9]);
        more[s] = tiny_pop(spans[s]);
    }
    fake.on_resident = on_look;
    take_in_hand();
    assert_int_equal(looks, 4);
    hand_back();
    drain();
    looks = 0;
    assert_false(take_in_hand());
    assert_int_equal(punch.count + looks, 0);

    heap_free(more[2]);
    assert_int_equal(spans[2]->flags & (SPAN_LISTED | SPAN_PUNCHED), SPAN_LISTED);
    assert_ptr_equal(heap->listed[class].first, spans[2]);
    assert_true(heap->listed[class].first->next != NULL &&
                (heap->listed[class].first->next->flags & SPAN_PUNCHED) != 0);
    free_elsewhere(more[3]); /* the last one */
    drain();
    assert_int_equal(spans[3]->flags & (SPAN_LISTED | SPAN_PUNCHED), SPAN_LISTED);
    size_t place = 0;
    for (struct span *at = heap->listed[class].first; at != NULL; at = at->next)
        assert_int_equal((at->flags & SPAN_PUNCHED) != 0, place++ >= 2);
    assert_int_equal(place, 4);
    take_in_hand(); /* no page more in one of them, perhaps, but both are looked at */
    assert_int_equal(looks, 2);
    hand_back();
    drain();
    for (size_t s = 0; s < 4; s++) assert_true((spans[s]->flags & SPAN_PUNCHED) != 0);
    validate();

    /* Malloc takes from them again, and mends them: nothing of it is punched then. */
    heap_flush(heap, TIER_BOTH);
    while (heap->listed[class].first != NULL && (heap->listed[class].first->flags & SPAN_PUNCHED) == 0)
        for (size_t i = 0; i < 200; i++) heap_malloc(TINY_BYTES);
    for (size_t i = 0; i < 5 * 128; i++) unit_fill(heap_malloc(TINY_BYTES), TINY_BYTES, i);
    for (size_t s = 0; s < 4; s++) {
        assert_int_equal(spans[s]->used, spans[s]->capacity);
        assert_int_equal(spans[s]->punched, 0);
        assert_int_equal(spans[s]->flags & SPAN_PUNCHED, 0);
        assert_true(unit_holds(blocks[s][9], TINY_BYTES, s));
    }
    validate();
}

/* What is swapped out is not brought back for this: its pages are looked at no more. */
static void test_swapped_out(void **state) {
    (void)state;
    start();
    fill(TINY_BYTES, 1, 9);
    struct span *swapped = span_of(blocks[0][9]);
    static char saved[8 * KIB];
    memcpy(saved, span_start(swapped) + 16 * KIB, sizeof saved);
    os_purge(span_start(swapped) + 16 * KIB, sizeof saved);
    size_t resident = run_resident_bytes();
    assert_false(take_in_hand());
    assert_int_equal(punch.count, 0);
    assert_int_equal(swapped->punched, 0);
    assert_int_equal(run_resident_bytes(), resident); /* no walk */
    memcpy(span_start(swapped) + 16 * KIB, saved, sizeof saved);
    drain();
    assert_int_equal(swapped->flags & (SPAN_LISTED | SPAN_PUNCHED | SPAN_IN_HAND), SPAN_LISTED | SPAN_PUNCHED);
    assert_false(take_in_hand());
    assert_int_equal(punch.count, 0);
}

/* A span into which somebody has just freed is collected first. */
static void test_queued_spans_stay(void **state) {
    (void)state;
    start();
    fill(TINY_BYTES, 2, 9);
    struct span *queued = span_of(blocks[0][9]);
    struct block *extra = tiny_pop(queued);
    free_elsewhere(extra);
    take_in_hand();
    assert_int_equal(punch.count, 1);
    assert_ptr_equal(punch.spans[0].span, span_of(blocks[1][9]));
    assert_int_equal(queued->flags & (SPAN_LISTED | SPAN_IN_HAND), SPAN_LISTED);
    hand_back();
    drain();
    assert_int_equal(queued->flags & (SPAN_LISTED | SPAN_PUNCHED), SPAN_LISTED);
    take_in_hand();
    assert_int_equal(punch.count, 1);
    assert_ptr_equal(punch.spans[0].span, queued);
    hand_back();
    drain();
}

/* A few at a time; the others next time. */
static void test_many(void **state) {
    (void)state;
    start();
    fill(TINY_BYTES, 40, 9);
    assert_true(take_in_hand());
    assert_int_equal(punch.count, PUNCH_SPANS);
    hand_back();
    drain();
    assert_false(take_in_hand());
    assert_int_equal(punch.count, 40 - PUNCH_SPANS);
    hand_back();
    drain();
    assert_false(take_in_hand());
    assert_int_equal(punch.count, 0);
    for (size_t s = 0; s < 40; s++) {
        assert_true(unit_holds(blocks[s][9], TINY_BYTES, s));
        assert_int_equal(fake_resident_bytes(span_start(span_of(blocks[s][9])), SLICE_BYTES), os_page_bytes);
    }
}

/* No page of these can go: that takes looks, too, and the lock is not held for many. */
static void test_many_in_vain(void **state) {
    (void)state;
    start();
    fill(TINY_BYTES, 40, 9);
    for (size_t s = 0; s < 40; s++) { /* a live block in each page */
        struct span *one = span_of(blocks[s][9]);
        struct block *free = one->free;
        one->free = NULL;
        while (free != NULL) {
            struct block *next = free->next;
            if (index_in_page(free) == 1) {
                free->key = 0;
                one->used++;
            } else {
                free->next = one->free;
                one->free = free;
            }
            free = next;
        }
    }
    validate();
    assert_true(take_in_hand());
    assert_int_equal(punch.count, 0);
    drain();
    assert_false(take_in_hand());
    assert_int_equal(punch.count, 0);
    drain();
    for (size_t s = 0; s < 40; s++) {
        struct span *one = span_of(blocks[s][9]);
        assert_int_equal(one->flags & (SPAN_LISTED | SPAN_PUNCHED | SPAN_IN_HAND), SPAN_LISTED | SPAN_PUNCHED);
        assert_int_equal(one->punched, 0);
        assert_int_equal(fake_resident_bytes(span_start(one), SLICE_BYTES), SLICE_BYTES);
    }
}

/* --- blocks that are freed twice ---------------------------------------------------------------------------------------- */

static char text[200];
static const char *twice(const char *function, const void *block) {
    snprintf(text, sizeof text, "tidemalloc: %s: %p was already free\n", function, block);
    return text;
}

static void release(void *block) {
    void *volatile hidden = block; /* or the compiler warns */
    heap_free(hidden);
}

static void each_mistake(void *block) {
    assert_fatal(twice("free()", block), release(block));
    assert_fatal(twice("free()", block), {
        actor_start(&other, 2); /* in the child there is no other thread yet */
        free_elsewhere(block);
    });
    assert_fatal(twice("realloc()", block), heap_realloc(block, 5000));
    assert_fatal(twice("usable()", block), block_describe("usable()", block));
}

static void double_frees(size_t bytes) {
    start();
    size_t count = fill(bytes, 1, 9);
    bool tiny = bytes <= TINY_MAX_BYTES;
    void *extra = tiny ? tiny_pop(span_of(blocks[0][9])) : NULL;
    take_in_hand();
    for (size_t i = 0; i < count; i += 17)
        if (i != 9) each_mistake(blocks[0][i]); /* in hand */
    hand_back();
    for (size_t i = 0; i < count; i += 17)
        if (i != 9) each_mistake(blocks[0][i]);
    drain();
    for (size_t i = 0; i < count; i += 17)
        if (i != 9) each_mistake(blocks[0][i]); /* listed */
    assert_int_equal(block_describe("usable()", blocks[0][9]).usable_bytes, bytes);
    if (!tiny) return;
    heap_free(extra); /* it has changed: no longer marked as punched, but blocks are withheld still */
    for (size_t i = 34; i < count; i += 17) each_mistake(blocks[0][i]);
    struct span *one = span_of(blocks[0][9]);
    heap_flush(heap, TIER_BOTH);
    while ((one->flags & SPAN_CURRENT) == 0) heap_malloc(bytes); /* it serves malloc, from its lowest pages */
    assert_int_not_equal(one->punched, 0);
    for (size_t i = 51; i < count; i += 17) each_mistake(blocks[0][i]);
    validate();
}

static void test_double_free_tiny(void **state) {
    (void)state;
    double_frees(TINY_BYTES);
}
static void test_double_free_mid(void **state) {
    (void)state;
    double_frees(MID_BYTES);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_protocol_tiny),
        cmocka_unit_test(test_protocol_mid),
        cmocka_unit_test(test_protocol_large_mid),
        cmocka_unit_test(test_frees_in_hand_tiny),
        cmocka_unit_test(test_frees_in_hand_mid),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_swapped_out),
        cmocka_unit_test(test_queued_spans_stay),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_many_in_vain),
        cmocka_unit_test(test_double_free_tiny),
        cmocka_unit_test(test_double_free_mid),
    };
    return unit_run(tests, COUNT_OF(tests));
}
