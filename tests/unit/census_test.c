/* heap/census against a count of the blocks that the test itself holds. */
#include <pthread.h>

#include "heap/block.h"
#include "heap/census.h"
#include "heap/own.h"
#include "heap/thread.h"
#include "heap/whole.h"
#include "os/options.h"
#include "span/meta.h"
#include "unit.h"

enum { LIVE = 1500 };
static void *live[LIVE];

static struct span *span_of(void *block) {
    struct span *span = region_span(region_of(block), block);
    return span->kind == SPAN_INNER ? mid_head(span) : span;
}

/* Walks all slices one by one; what is live it knows from `live`. */
static struct census naive_census(void) {
    struct census c = {0};
    for (struct region *region = &region_main; region != NULL; region = region->next)
        for (size_t i = 0; i < region_top(region) / SLICE_BYTES; i++) {
            struct span *span = &region->spans[i];
            if (span->kind != SPAN_TINY && span->kind != SPAN_MID && span->kind != SPAN_LARGE) continue;
            size_t count = 0;
            for (size_t k = 0; k < LIVE; k++) count += live[k] != NULL && span_of(live[k]) == span;
            if (span->kind == SPAN_LARGE) {
                assert_int_equal(count, 1);
                c.live_bytes[TIER_LARGE_INDEX] += span->large.bytes;
                c.active_bytes += span->large.slices * SLICE_BYTES;
                c.large_blocks++;
                continue;
            }
            enum tier_index tier = span->kind == SPAN_MID ? TIER_MID_INDEX : TIER_TINY_INDEX;
            size_t bytes = class_bytes(span->class), idle = span->carved - count;
            c.live_bytes[tier] += count * bytes;
            c.free_blocks += idle;
            if (count > 0) {
                c.free_bytes[tier] += idle * bytes;
                c.active_bytes += (tier == TIER_TINY_INDEX ? 1 : mid_slices(span->class)) * SLICE_BYTES;
            } else {
                c.empty_bytes[tier] += idle * bytes;
                if (span->heap != heap_record.self) c.foreign_empty_bytes[tier] += idle * bytes;
            }
        }
    return c;
}

static size_t all_empty(const struct census *c) {
    return c->empty_bytes[TIER_TINY_INDEX] + c->empty_bytes[TIER_MID_INDEX];
}

static size_t all_foreign(const struct census *c) {
    return c->foreign_empty_bytes[TIER_TINY_INDEX] + c->foreign_empty_bytes[TIER_MID_INDEX];
}

static struct census check(void) {
    struct census c;
    census_take(&c);
    struct census naive = naive_census();
    for (int tier = 0; tier < TIER_COUNT; tier++) {
        assert_int_equal(c.live_bytes[tier], naive.live_bytes[tier]);
        assert_int_equal(c.free_bytes[tier], naive.free_bytes[tier]);
    }
    assert_int_equal(c.active_bytes, naive.active_bytes);
    assert_int_equal(all_empty(&c), all_empty(&naive));
    assert_int_equal(all_foreign(&c), all_foreign(&naive));
    assert_int_equal(c.free_blocks, naive.free_blocks);
    assert_int_equal(c.large_blocks, naive.large_blocks);
    assert_int_equal(c.metadata_bytes, c.runs.metadata_bytes + meta_bytes());
    assert_false(heap_is_busy());
    assert_int_equal(fake_locks_held(), 0);
    return c;
}

static size_t all_live(const struct census *c) {
    return c->live_bytes[TIER_TINY_INDEX] + c->live_bytes[TIER_MID_INDEX] + c->live_bytes[TIER_LARGE_INDEX];
}

static void test_before_the_first_operation(void **state) {
    (void)state;
    struct census c;
    census_take(&c);
    assert_int_equal(all_live(&c) + c.active_bytes + all_empty(&c) + c.heap_count + c.runs.committed_bytes, 0);
}

static void random_steps(struct unit_random *random, int steps) {
    for (int step = 0; step < steps; step++) {
        size_t pick = unit_random(random, LIVE);
        if (live[pick] != NULL) {
            heap_free(live[pick]);
            live[pick] = NULL;
            continue;
        }
        size_t kind = unit_random(random, 100);
        size_t size = unit_random(random, kind < 70 ? 600 : kind < 97 ? 20000 : 500000);
        live[pick] = heap_malloc(size);
        assert_non_null(live[pick]);
    }
}

static struct unit_random shared_random = {29};

static void *other_thread(void *rounds) {
    fake_thread_is(2);
    for (int i = 0; i < *(int *)rounds; i++) {
        random_steps(&shared_random, 700); /* frees blocks of the main thread, too */
        check();
    }
    struct census c = check();
    assert_int_equal(c.bound_count, 2);
    return NULL;
}

static void test_random(void **state) {
    (void)state;
    options.reserve_bytes = GIB;
    struct unit_random random = {23};
    for (int round = 0; round < 12; round++) {
        random_steps(&random, 500);
        struct census c = check();
        assert_true(c.refill_count > 0);
        if (round % 4 != 3) continue;
        pthread_t thread;
        int rounds = 2;
        assert_int_equal(pthread_create(&thread, NULL, other_thread, &rounds), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        c = check();
        assert_int_equal(c.heap_count, 2);
        assert_int_equal(c.bound_count, 1);
    }
    run_keep_at_most(SIZE_MAX); /* a small program gives empty spans up */
    for (size_t i = 0; i < LIVE; i++) {
        heap_free(live[i]);
        live[i] = NULL;
    }
    struct census c = check();
    assert_int_equal(all_live(&c), 0);
    assert_int_equal(c.active_bytes, 0);
    assert_true(all_empty(&c) > 0);
    assert_int_equal(all_foreign(&c), 0);
    assert_true(c.remote_count > 0);
    assert_true(heap_try_enter());
    heap_flush(heap_record.self, TIER_BOTH);
    heap_leave();
    c = check();
    assert_int_equal(all_empty(&c), 0);
    assert_int_equal(c.free_blocks, 0);
    assert_true(c.retire_count > 0);
}

/* Whoever asks waits for nobody: it may be a handler in the middle of an operation, or run after a jump out of one. */
static void test_with_all_locks_held(void **state) {
    (void)state;
    options.reserve_bytes = GIB;
    heap_free(heap_malloc(500));
    struct os_lock *locks[] = {&heap_registry_lock, &heap_record.self->lock, &heap_shared.lock, &run_lock, meta_lock()};
    fake_thread_is(2);
    for (size_t i = 0; i < COUNT_OF(locks); i++) assert_true(os_lock_try(locks[i]));
    fake_thread_is(1);
    struct census c;
    census_take(&c);
    assert_int_equal(c.heap_count, 1);
    assert_true(c.metadata_bytes > meta_bytes() && meta_bytes() > 0);
    assert_true(c.runs.committed_bytes > 0);
    fake_thread_is(2);
    for (size_t i = COUNT_OF(locks); i-- > 0;) os_lock_drop(locks[i]);
    fake_thread_is(1);
}

static void *empty_spans(void *unused) {
    (void)unused;
    fake_thread_is(2);
    heap_free(heap_malloc(100));
    check();
    return heap_record.self;
}

/* Empty spans of another thread's heap are foreign. */
static void test_foreign(void **state) {
    (void)state;
    options.reserve_bytes = GIB;
    heap_free(heap_malloc(500));
    struct census c = check();
    assert_true(all_empty(&c) > 0);
    assert_int_equal(all_foreign(&c), 0);
    struct heap *heap = heap_record.self;
    heap_record.self = NULL; /* seen by somebody else */
    c = check();
    assert_int_equal(all_foreign(&c), all_empty(&c));
    heap_record.self = heap;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, empty_spans, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    check();
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_before_the_first_operation), cmocka_unit_test(test_random),
                                       cmocka_unit_test(test_foreign), cmocka_unit_test(test_with_all_locks_held)};
    return unit_run(tests, COUNT_OF(tests));
}
