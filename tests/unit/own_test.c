/* heap/own: what the owner of a heap does, for two heaps in one thread. */
#include "heap/own.h"
#include "heap/validate.h"
#include "heap/remote.h"
#include "span/run.h"
#include "unit.h"

static struct heap a, b;

static void start(void) {
    os_init();
    assert_true(region_init(GIB));
    heap_init(&a);
    heap_init(&b);
}

static void validate(void) {
    assert_valid(heap_validate(&a));
    assert_valid(heap_validate(&b));
    assert_valid(run_validate());
    assert_int_equal(fake_locks_held(), 0);
}

/* As malloc does: what is ready, else the slow path. */
static void *try_take(struct heap *heap, size_t size, bool *clean) {
    *clean = false;
    void *block = size <= TINY_MAX_BYTES ? tiny_pop(heap->ready[(size + GRANULE_BYTES - 1) / GRANULE_BYTES])
                                         : mid_pop(heap->current[class_of_size(size)], clean);
    return block != NULL ? block : heap_take(heap, class_of_size(size), clean);
}

static void *take(struct heap *heap, size_t size) {
    bool clean;
    void *block = try_take(heap, size, &clean);
    assert_non_null(block);
    return block;
}

static struct span *span_of(void *block) {
    struct span *span = region_span(region_of(block), block);
    return span->kind == SPAN_INNER ? mid_head(span) : span;
}

static void put(struct heap *heap, void *block) {
    assert_true(span_of(block)->heap == heap);
    heap_put(heap, span_of(block), block);
}

/* As another thread frees it. */
static bool push(void *block) {
    struct span *span = span_of(block);
    ((struct block *)block)->key = span->kind == SPAN_MID ? mid_key(span, block) : tiny_key(span, block);
    return remote_push(span, block, span_block_index(span, block));
}

static bool is_state(struct span *span, unsigned flags, struct heap *owner) {
    return (span->flags & (SPAN_CURRENT | SPAN_LISTED)) == flags && span_owner(span) == owner;
}

static size_t dirty_bytes(void) {
    struct run_totals totals;
    run_totals(&totals);
    return totals.dirty_bytes;
}

/* All of the blocks that a span of this size can hold, from the heap's current span. Returns how many. */
static size_t fill(struct heap *heap, size_t size, void **blocks) {
    size_t count = 0;
    blocks[count++] = take(heap, size);
    while (count < span_of(blocks[0])->capacity) {
        blocks[count] = take(heap, size);
        assert_true(span_of(blocks[count]) == span_of(blocks[0]));
        count++;
    }
    return count;
}

static void *blocks[8][SLICE_BYTES / 16];

static void states(size_t size) {
    start();
    unsigned class = class_of_size(size);
    size_t count = fill(&a, size, blocks[0]);
    struct span *span = span_of(blocks[0][0]);
    struct heap *owner = span->kind == SPAN_MID ? mid_owner(&a) : &a;
    assert_true(is_state(span, SPAN_CURRENT, owner));
    assert_true(a.current[class] == span);
    assert_int_equal(span->used, count + 1); /* biased */
    validate();

    blocks[1][0] = take(&a, size); /* the next span; the first is full */
    struct span *next = span_of(blocks[1][0]);
    assert_true(next != span);
    assert_true(is_state(span, 0, NULL));
    assert_true(is_state(next, SPAN_CURRENT, owner));
    assert_int_equal(span->used, count);
    validate();

    put(&a, blocks[0][3]); /* a full one gets room: listed */
    assert_true(is_state(span, SPAN_LISTED, owner));
    assert_true(a.listed[class].first == span && a.listed[class].last == span);
    validate();

    put(&a, blocks[1][0]); /* a current one without a live block stays */
    assert_true(is_state(next, SPAN_CURRENT, owner));
    assert_int_equal(next->used, 1);
    validate();

    for (size_t i = 0; i < count; i++)
        if (i != 3) put(&a, blocks[0][i]);
    assert_int_equal(span->kind, SPAN_FREE); /* a listed one that empties goes */
    assert_null(a.listed[class].first);
    assert_int_equal(dirty_bytes(), (size <= TINY_MAX_BYTES ? 1 : mid_slices(class)) * SLICE_BYTES);
    validate();

    heap_flush(&a, TIER_BOTH);
    assert_int_equal(next->kind, SPAN_FREE);
    assert_true(a.current[class] == &span_none);
    validate();
    assert_true(unit_is_zero(region_main.spans, region_top(&region_main) / SLICE_BYTES * sizeof(struct span)));
}

static void test_states_tiny(void **state) {
    (void)state;
    states(512);
}
static void test_states_mid(void **state) {
    (void)state;
    states(12000);
}

/* For every class: as many blocks as three spans hold, all different, all writable, all given back. */
static void test_every_class(void **state) {
    (void)state;
    start();
    for (unsigned class = 0; class < CLASSES; class ++) {
        size_t bytes = class_bytes(class);
        for (size_t s = 0; s < 3; s++) {
            size_t count = 0;
            bool clean;
            void *block = heap_take(&a, class, &clean);
            size_t capacity = span_of(block)->class == class ? span_of(block)->capacity : 4;
            for (;; block = heap_take(&a, class, &clean)) {
                assert_non_null(block);
                if (clean) assert_true(unit_is_zero(block, bytes));
                unit_fill(block, bytes, class + s * 1000 + count);
                blocks[s][count++] = block;
                if (count == capacity) break;
            }
            blocks[s + 4][0] = (void *)(uintptr_t)count;
        }
        validate();
        for (size_t s = 0; s < 3; s++)
            for (size_t i = 0; i < (size_t)(uintptr_t)blocks[s + 4][0]; i++)
                assert_true(unit_holds(blocks[s][i], bytes, class + s * 1000 + i));
        for (size_t s = 0; s < 3; s++)
            for (size_t i = 0; i < (size_t)(uintptr_t)blocks[s + 4][0]; i++) put(&a, blocks[s][i]);
        validate();
    }
    heap_flush(&a, TIER_BOTH);
    assert_true(unit_is_zero(region_main.spans, region_top(&region_main) / SLICE_BYTES * sizeof(struct span)));
}

/* Blocks of a mid span that were used before are used again before untouched ones are; a tiny span is carved to its end first, and then no new span
 * is opened while an older one has room. */
static void refill_order(size_t size) {
    start();
    size_t count = fill(&a, size, blocks[0]);
    fill(&a, size, blocks[1]);
    blocks[2][0] = take(&a, size);
    struct span *current = span_of(blocks[2][0]);
    for (size_t i = 0; i < count / 2; i++) put(&a, blocks[0][i]);
    size_t rest = size <= TINY_MAX_BYTES ? current->capacity - 1u : 0;
    size_t resident = fake_resident_bytes((void *)region_main.base, region_top(&region_main));
    size_t allowed = rest != 0 ? SLICE_BYTES : 0;
    size_t refills = a.refill_counts[class_of_size(size)];
    for (size_t i = 0; i < rest + count / 2; i++) {
        struct span *span = span_of(take(&a, size));
        assert_true(span == current || span == span_of(blocks[0][0]));
    }
    assert_true(a.refill_counts[class_of_size(size)] > refills);
    assert_true(fake_resident_bytes((void *)region_main.base, region_top(&region_main)) <= resident + allowed);
    assert_true(span_of(blocks[0][0])->used >= count / 2 + 1);
    assert_true(current->heap == &a);
    validate();
}

static void test_refill_order_tiny(void **state) {
    (void)state;
    refill_order(256);
}
static void test_refill_order_mid(void **state) {
    (void)state;
    refill_order(3000);
}

/* --- borrowing ------------------------------------------------------------------------------------------------------ */

/* Few live blocks at a time never cost a span of their own; many do, and then for good. */
static void test_borrow(void **state) {
    (void)state;
    start();
    unsigned class = class_of_size(80);
    put(&a, take(&a, 96)); /* an open class */
    struct span *open = a.current[class_of_size(96)];
    for (int i = 0; i < 1000; i++) {
        void *first = take(&a, 80), *second = take(&a, 80);
        assert_true(span_of(first) == open && span_of(second) == open);
        put(&a, first);
        put(&a, second);
    }
    assert_true(a.current[class] == &span_none);
    validate();
    size_t borrowed = 0;
    while (borrowed < 1000 && span_of(take(&a, 80))->class != class) borrowed++;
    assert_true(borrowed > 0 && borrowed * 96 <= 16 * KIB);
    assert_true(a.current[class] != &span_none);
    for (int i = 0; i < 100; i++) assert_int_equal(span_of(take(&a, 80))->class, class);
    validate();
}

static void test_borrow_from_a_class_that_closes(void **state) {
    (void)state;
    start();
    put(&a, take(&a, 96));
    void *block = take(&a, 80);
    assert_int_equal(span_of(block)->class, class_of_size(96));
    validate();
    heap_flush(&a, TIER_BOTH);
    validate();
    void *other = take(&a, 80);
    validate();
    put(&a, block);
    put(&a, other);
    heap_flush(&a, TIER_BOTH);
    validate();
    assert_true(unit_is_zero(region_main.spans, region_top(&region_main) / SLICE_BYTES * sizeof(struct span)));
}

/* A class that borrows but has free blocks of its own uses them when there is no memory: at the second try at the latest, which is what malloc does. */
static void test_own_blocks_when_there_is_no_memory(void **state) {
    (void)state;
    start();
    unsigned class = class_of_size(80);
    void *live = take(&a, 80);
    heap_flush(&a, TIER_BOTH); /* its span is listed, and has room */
    assert_true(a.listed[class].first == span_of(live));
    take(&a, 96);
    take(&a, 80);
    fake.budget_bytes = fake.charged_bytes;
    bool clean;
    while (try_take(&b, 20000, &clean) != NULL) continue;
    while (try_take(&b, 16, &clean) != NULL) continue;
    while (try_take(&a, 96, &clean) != NULL) continue;
    assert_true(try_take(&a, 80, &clean) != NULL || try_take(&a, 80, &clean) != NULL);
    validate();
}

static void test_borrow_keeps_alignment(void **state) {
    (void)state;
    start();
    put(&a, take(&a, 80));
    assert_int_equal((uintptr_t)take(&a, 64) % 64, 0); /* not from the class of 80 */
    assert_true(a.current[class_of_size(64)] != &span_none);
    put(&a, take(&a, 256));
    void *block = take(&a, 128);
    assert_true(span_of(block)->class == class_of_size(256));
    assert_int_equal((uintptr_t)block % 128, 0);
}

static void test_borrow_up_to_twice_the_size(void **state) {
    (void)state;
    start();
    put(&a, take(&a, 224));
    assert_true(span_of(take(&a, 112))->class == class_of_size(224));
    put(&a, take(&a, 1024));
    assert_true(span_of(take(&a, 448))->class == class_of_size(448)); /* 1024 is too large for it */
    put(&a, take(&a, 1152));
    assert_true(span_of(take(&a, 960))->class != class_of_size(1152)); /* never from the mid tier */
}

/* --- blocks that others free ---------------------------------------------------------------------------------------- */

static void test_drain(void **state) {
    (void)state;
    start();
    for (size_t size = 64; size <= 8192; size *= 128) {
        unsigned class = class_of_size(size);
        size_t count = fill(&a, size, blocks[0]);
        blocks[1][0] = take(&a, size);
        struct span *full = span_of(blocks[0][0]), *current = span_of(blocks[1][0]);
        struct heap *owner = full->kind == SPAN_MID ? mid_owner(&a) : &a;
        assert_true(push(blocks[0][1]));
        assert_true(push(blocks[1][0]));
        assert_true(is_state(full, 0, NULL)); /* nothing happens before the owner looks */
        heap_drain(&b);                       /* and not by another's drain */
        assert_true(remote_is_queued(full));
        heap_drain(&a);
        assert_false(remote_is_queued(full));
        assert_true(is_state(full, SPAN_LISTED, owner));
        assert_int_equal(full->used, count - 1);
        assert_int_equal(current->used, 1);
        validate();
        for (size_t i = 0; i < count; i++)
            if (i != 1) assert_int_equal(push(blocks[0][i]), i == 0);
        heap_drain(&a);
        assert_int_equal(full->kind, SPAN_FREE);
        assert_null(a.listed[class].first);
        validate();
    }
}

/* A refill finds what others have freed. */
static void test_refill_collects(void **state) {
    (void)state;
    start();
    size_t count = fill(&a, 1024, blocks[0]);
    assert_true(push(blocks[0][7]));
    assert_true(take(&a, 1024) == blocks[0][7]);
    assert_int_equal(count, 64);
    validate();
}

/* --- flush ---------------------------------------------------------------------------------------------------------- */

static void test_flush_by_tier(void **state) {
    (void)state;
    start();
    put(&a, take(&a, 512));
    put(&a, take(&a, 16000));
    void *live = take(&a, 700);
    struct span *span = span_of(live);
    heap_flush(&a, TIER_MID);
    assert_true(a.current[class_of_size(512)] != &span_none);
    assert_true(a.current[class_of_size(16000)] == &span_none);
    heap_flush(&a, TIER_TINY);
    assert_true(a.current[class_of_size(512)] == &span_none);
    assert_true(is_state(span, SPAN_LISTED, &a)); /* a live block keeps it */
    validate();
    put(&a, live);
    assert_int_equal(span->kind, SPAN_FREE);
    /* What was touched is dirty, and no more than the three spans. */
    assert_true(dirty_bytes() >= 3 * SLICE_BYTES && dirty_bytes() <= (1 + 1 + 8) * SLICE_BYTES);
}

static void test_flush_of_a_full_span(void **state) {
    (void)state;
    start();
    for (size_t size = 1024; size <= 32768; size *= 32) {
        size_t count = fill(&a, size, blocks[0]);
        struct span *span = span_of(blocks[0][0]);
        heap_flush(&a, TIER_BOTH);
        assert_true(is_state(span, 0, NULL));
        validate();
        for (size_t i = 0; i < count; i++) put(&a, blocks[0][i]);
        assert_int_equal(span->kind, SPAN_FREE);
        validate();
    }
}

static void test_no_memory(void **state) {
    (void)state;
    start();
    void *block = take(&a, 100);
    fake.budget_bytes = fake.charged_bytes;
    bool clean;
    size_t taken = 0;
    while (heap_take(&a, class_of_size(20000), &clean) != NULL) taken++;
    assert_true(taken > 0);
    validate();
    assert_null(heap_take(&a, class_of_size(20000), &clean));
    fake.budget_bytes = SIZE_MAX;
    assert_non_null(heap_take(&a, class_of_size(20000), &clean));
    put(&a, block);
    validate();
}

/* A class that borrows gets a span of its own because another one borrows from it: from then on that span is its ready one. */
static void test_loan_to_a_borrower(void **state) {
    (void)state;
    start();
    take(&a, 768);
    assert_int_equal(span_of(take(&a, 384))->class, class_of_size(768));
    heap_flush(&a, TIER_BOTH);
    void *block = take(&a, 1024);
    assert_int_equal(span_of(take(&a, 768))->class, class_of_size(1024));
    assert_int_equal(span_of(take(&a, 384))->class, class_of_size(768));
    validate();
    while (a.current[class_of_size(1024)] == span_of(block)) take(&a, 1024);
    assert_ptr_equal(a.ready[768 / GRANULE_BYTES], a.current[class_of_size(768)]);
    validate();
}

/* A class gives its loan back, gets no span of its own, and the lender's span goes: what malloc would pop must not be that one. */
static void test_no_memory_after_a_loan(void **state) {
    (void)state;
    start();
    unsigned class = class_of_size(80);
    void *other = take(&a, 96);
    void *block = take(&a, 80);
    struct span *lent = span_of(block);
    assert_ptr_equal(lent, span_of(other));
    bool clean;
    while (a.borrow_misses[class] == 0) take(&a, 80); /* the first miss; the next one ends the loan */
    while (lent->free != NULL) take(&a, 96);
    fake.budget_bytes = fake.charged_bytes;
    while (heap_take(&b, class_of_size(20000), &clean) != NULL) continue;
    while (run_take(1, 1) != NULL) continue;
    assert_ptr_equal(a.ready[80 / GRANULE_BYTES], lent);
    assert_null(heap_take(&a, class, &clean));
    assert_null(heap_take(&a, class, &clean));
    validate();
    heap_flush(&a, TIER_BOTH);
    assert_ptr_equal(a.ready[80 / GRANULE_BYTES], &span_none);
    validate();
}

/* --- two heaps, random operations ------------------------------------------------------------------------------------ */

static void test_two_heaps(void **state) {
    (void)state;
    start();
    enum { LIVE = 3000 };
    static struct {
        void *block;
        size_t bytes;
        uint64_t seed;
    } live[LIVE];
    struct heap *heaps[2] = {&a, &b};
    struct unit_random random = {17};
    for (uint64_t step = 0; step < 200000; step++) {
        size_t pick = unit_random(&random, LIVE);
        struct heap *heap = heaps[unit_random(&random, 2)];
        if (live[pick].block == NULL) {
            if (step % 60000 > 40000) continue; /* an ebb now and then */
            size_t bytes = 1 + unit_random(&random, unit_random(&random, 4) != 0 ? 300 : 12000);
            bool clean;
            live[pick].block = try_take(heap, bytes, &clean);
            assert_non_null(live[pick].block);
            if (clean) assert_true(unit_is_zero(live[pick].block, bytes));
            live[pick].bytes = bytes;
            live[pick].seed = step;
            unit_fill(live[pick].block, bytes, step);
        } else {
            assert_true(unit_holds(live[pick].block, live[pick].bytes, live[pick].seed));
            if (span_of(live[pick].block)->heap == heap)
                put(heap, live[pick].block);
            else
                push(live[pick].block);
            live[pick].block = NULL;
        }
        if (unit_random(&random, 3000) == 0) heap_flush(heap, (enum tier_mask)(1 + unit_random(&random, 3)));
        if (unit_random(&random, 3000) == 0) heap_drain(heap);
        if (step % 1000 == 0) validate();
    }
    for (size_t i = 0; i < LIVE; i++)
        if (live[i].block != NULL) push(live[i].block);
    heap_flush(&a, TIER_BOTH);
    heap_flush(&b, TIER_BOTH);
    validate();
    assert_true(unit_is_zero(region_main.spans, region_top(&region_main) / SLICE_BYTES * sizeof(struct span)));
    size_t kept = 0, resident = run_resident_bytes();
    assert_true(resident > 0 && resident <= dirty_bytes());
    assert_int_equal(run_purge(&kept), resident);
    assert_int_equal(fake_resident_bytes((void *)region_main.base, region_top(&region_main)), 0);
}

/* The empty spans of classes that are not used go, after some ticks; those with a live block, and those that are refilled, stay. */
static void test_trim(void **state) {
    (void)state;
    start();
    put(&a, take(&a, 64)); /* used once */
    put(&a, take(&a, 5000));
    blocks[0][0] = take(&a, 512); /* lives */
    struct span *kept = span_of(blocks[0][0]);
    assert_int_equal(heap_class_state(&a, class_of_size(64)), CLASS_MEMORY); /* no tick has seen it */
    unsigned busy = class_of_size(256), high = 0;
    for (int tick = 0; tick < 12; tick++) {
        for (int i = 0; i < 40; i++) { /* refilled again and again */
            const size_t count = 2 * SLICE_BYTES / 256;
            for (size_t k = 0; k < count; k++) blocks[1][k] = take(&a, 256);
            for (size_t k = 0; k < count; k++) put(&a, blocks[1][k]);
        }
        atomic_fetch_add(&heap_tick, 1);
        heap_trim(&a);
        assert_int_equal(a.tick, heap_tick);
        assert_true(a.current[busy] != &span_none);
        high += heap_class_state(&a, busy) == CLASS_PERFORMANCE;
        if (tick == 0) {
            assert_int_equal(heap_class_state(&a, class_of_size(64)), CLASS_BALANCED);
            assert_true(a.current[class_of_size(64)] != &span_none);
        }
        validate();
    }
    assert_true(high > 6);
    assert_ptr_equal(a.current[class_of_size(64)], &span_none);
    assert_ptr_equal(a.current[class_of_size(5000)], &span_none);
    assert_ptr_equal(a.current[class_of_size(512)], kept);
    for (int tick = 0; tick < 12; tick++) heap_trim(&a);
    assert_ptr_equal(a.current[busy], &span_none);
    put(&a, blocks[0][0]);
    heap_trim(&a);
    assert_ptr_equal(a.current[class_of_size(512)], &span_none);
    validate();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states_tiny),
        cmocka_unit_test(test_states_mid),
        cmocka_unit_test(test_every_class),
        cmocka_unit_test(test_refill_order_tiny),
        cmocka_unit_test(test_refill_order_mid),
        cmocka_unit_test(test_borrow),
        cmocka_unit_test(test_borrow_from_a_class_that_closes),
        cmocka_unit_test(test_own_blocks_when_there_is_no_memory),
        cmocka_unit_test(test_borrow_keeps_alignment),
        cmocka_unit_test(test_borrow_up_to_twice_the_size),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_refill_collects),
        cmocka_unit_test(test_trim),
        cmocka_unit_test(test_flush_by_tier),
        cmocka_unit_test(test_flush_of_a_full_span),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_loan_to_a_borrower),
        cmocka_unit_test(test_no_memory_after_a_loan),
        cmocka_unit_test(test_two_heaps),
    };
    return unit_run(tests, COUNT_OF(tests));
}
