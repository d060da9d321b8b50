/* span/run.c: placement, states, and random operations against an array of slices. flow_test.c has the purging. */
#include "span/run.h"
#include "unit.h"

static void start(size_t bytes) {
    os_init();
    assert_true(region_init(bytes));
}

static size_t slice_of(const struct span *span) { return region_slice(&region_main, span); }

static struct span *take(size_t slices, size_t alignment) {
    struct span *span = run_take(slices, alignment);
    assert_valid(run_validate());
    return span;
}

static void release(struct span *span, size_t slices, enum run_state state) {
    run_release(span, slices, state);
    assert_valid(run_validate());
}

static struct run_totals totals(void) {
    struct run_totals result;
    run_totals(&result);
    return result;
}

/* --- placement ------------------------------------------------------------------------------------------------------ */

static void test_best_fit(void **state) {
    (void)state;
    start(64 * MIB);
    struct span *all = take(64, 1); /* two chunks */
    assert_int_equal(slice_of(all), 0);
    run_shorten(all, 64, 0, RUN_CLEAN); /* slices 0-63 are free; now holes of 5, 3 and 8 */
    struct span *a = take(5, 1), *wall1 = take(1, 1), *b = take(3, 1), *wall2 = take(1, 1), *c = take(8, 1),
                *wall3 = take(14, 1);
    assert_int_equal(slice_of(wall3), 18);
    release(a, 5, RUN_CLEAN);
    release(b, 3, RUN_CLEAN);
    release(c, 8, RUN_CLEAN);
    struct span *fit = take(8, 1);
    assert_int_equal(slice_of(fit), 10); /* in the chunk that is fuller, though the other has more room */
    assert_int_equal(slice_of(take(9, 1)), 32);
    assert_int_equal(slice_of(take(2, 1)), 0);  /* within a chunk the lowest */
    assert_int_equal(slice_of(take(4, 1)), 41); /* chunk 1 again: chunk 0 has runs of three only */
    (void)wall1;
    (void)wall2;
}

static void test_dirty_first(void **state) {
    (void)state;
    start(64 * MIB);
    struct span *a = take(4, 1), *wall = take(2, 1), *b = take(4, 1), *rest = take(22, 1), *other = take(20, 1);
    assert_int_equal(slice_of(other), 32);
    release(a, 4, RUN_CLEAN);
    release(b, 4, RUN_DIRTY);
    assert_int_equal(slice_of(take(3, 1)), 6); /* dirty ones, though clean ones lie lower */
    assert_int_equal(slice_of(take(3, 1)), 0);
    release(other, 20, RUN_DIRTY);
    assert_int_equal(slice_of(take(1, 1)), 9);  /* both chunks are dirty: the fuller one */
    assert_int_equal(slice_of(take(1, 1)), 32); /* the only dirty chunk, though the other fits better */
    (void)wall;
    (void)rest;
}

static void test_alignment(void **state) {
    (void)state;
    start(512 * MIB);
    take(1, 1);
    for (size_t alignment = 1; alignment <= 1024; alignment *= 2)
        for (size_t slices = 1; slices <= 70; slices += 23) {
            struct span *span = take(slices, alignment);
            assert_non_null(span);
            assert_int_equal((uintptr_t)span_start(span) % (alignment * SLICE_BYTES), 0);
            span_start(span)[0] = 1;
            span_start(span)[slices * SLICE_BYTES - 1] = 1;
        }
}

/* The base is aligned to a chunk and no more: a coarser alignment is cut out of a longer run. */
static void test_coarse_alignment(void **state) {
    (void)state;
    fake.reserve_offset_bytes = CHUNK_BYTES;
    start(256 * MIB);
    assert_int_not_equal(region_main.base % (8 * CHUNK_BYTES), 0);
    for (size_t alignment = 64; alignment <= 512; alignment *= 2) {
        struct span *span = take(3, alignment);
        assert_int_equal((uintptr_t)span_start(span) % (alignment * SLICE_BYTES), 0);
        size_t taken = 0;
        for (size_t i = 0; i < region_top(&region_main) / CHUNK_BYTES; i++)
            taken += CHUNK_SLICES - bits_count(region_main.chunks[i].free);
        assert_int_equal(taken, 3); /* the rest of the longer run is free */
        release(span, 3, RUN_CLEAN);
    }
}

static void test_across_chunks(void **state) {
    (void)state;
    start(128 * MIB);
    struct span *low = take(20, 1); /* 0-19 */
    struct span *longer = take(40, 1);
    assert_int_equal(slice_of(longer), 20); /* from the room that chunk 0 still has */
    assert_int_equal(longer->slices, 40);
    struct span *next = take(17, 1);
    assert_int_equal(slice_of(next), 60);
    release(longer, 40, RUN_DIRTY);
    assert_int_equal(slice_of(take(30, 1)), 20); /* first fit for runs above half a chunk */
    struct span *big = take(8 * CHUNK_SLICES, 1);
    assert_int_equal(slice_of(big) % CHUNK_SLICES, 0); /* there is address space for it */
    (void)low;
}

static void test_exact_end_of_the_region(void **state) {
    (void)state;
    start(32 * MIB);
    fake_fail(FAKE_RESERVE, 1, SIZE_MAX, ENOMEM);
    size_t all = 32 * MIB / SLICE_BYTES;
    assert_null(take(all + 1, 1));
    struct span *first = take(5, 1);
    struct span *most = take(all - 5, 1); /* not at a chunk's boundary: there is no more room */
    assert_non_null(most);
    assert_int_equal(slice_of(most), 5);
    assert_null(take(1, 1));
    release(first, 5, RUN_DIRTY);
    assert_null(take(6, 1));
    assert_non_null(take(5, 1));
    assert_null(take(SIZE_MAX / SLICE_BYTES, 1));
    assert_null(take(SIZE_MAX, 1));
    assert_null(take(1, (size_t)1 << 62));
}

static void test_second_region(void **state) {
    (void)state;
    start(4 * MIB);
    struct span *spans[40];
    for (size_t i = 0; i < 40; i++) {
        spans[i] = take(8, 1); /* 20 MiB */
        assert_non_null(spans[i]);
        memset(span_start(spans[i]), (int)i + 1, 8 * SLICE_BYTES);
    }
    assert_non_null(region_main.next);
    assert_true(region_of_span(spans[39]) != &region_main);
    assert_true(totals().reserved_bytes >= 20 * MIB);
    for (size_t i = 0; i < 40; i++) {
        assert_true(region_span(region_of(span_start(spans[i])), span_start(spans[i])) == spans[i]);
        assert_int_equal(span_start(spans[i])[8 * SLICE_BYTES - 1], i + 1);
        release(spans[i], 8, RUN_DIRTY);
    }
    assert_int_equal(totals().dirty_bytes, 20 * MIB);
    assert_int_equal(run_flow(false).dirty_bytes, 20 * MIB);
    size_t kept = 0;
    assert_int_equal(run_purge(&kept), 20 * MIB);
    assert_int_equal(kept, 0);
    for (size_t i = 0; i < 40; i++) assert_int_equal(fake_resident_bytes(span_start(spans[i]), 8 * SLICE_BYTES), 0);
}

/* --- resizing ------------------------------------------------------------------------------------------------------- */

static void test_extend_and_shorten(void **state) {
    (void)state;
    start(16 * MIB);
    struct span *run = take(4, 1), *wall = take(1, 1);
    assert_false(run_extend(run, 4, 1));
    release(wall, 1, RUN_DIRTY);
    assert_true(run_extend(run, 4, 3)); /* the dirty one, and two clean ones */
    assert_valid(run_validate());
    assert_true(run_slice_is_dirty(run, 4));
    assert_false(run_slice_is_dirty(run, 5));
    assert_true(run_extend(run, 7, 60)); /* grows the region */
    assert_valid(run_validate());
    span_start(run)[67 * SLICE_BYTES - 1] = 1;
    assert_int_equal(slice_of(take(1, 1)), 67);
    run_shorten(run, 67, 10, RUN_DIRTY);
    assert_valid(run_validate());
    assert_int_equal(totals().dirty_bytes, 57 * SLICE_BYTES);
    assert_int_equal(slice_of(take(57, 1)), 10);
    assert_false(run_extend(run, 10, 1));
    assert_false(run_extend(run, 10, (size_t)1 << 40));
    struct span *last = take(100, 1); /* up to the end of 256 slices there are 88 left */
    assert_non_null(last);
    assert_false(run_extend(last, 100, 400));
    assert_valid(run_validate());
}

/* Only the front of a run was used: what lies behind is as clean, or as dirty, as it was before. */
static void test_release_front(void **state) {
    (void)state;
    start(64 * MIB);
    struct span *used = take(2, 1);
    release(used, 2, RUN_DIRTY);
    struct span *run = take(10, 1);
    run_shorten(run, 10, 6, RUN_DIRTY); /* slices 6-9 are dirty, too */
    run_release(run, 6, RUN_CLEAN);
    run = take(10, 1);
    assert_int_equal(slice_of(run), 0);
    run_release_front(run, 10, 3);
    assert_valid(run_validate());
    assert_true(unit_is_zero(run, sizeof *run));
    assert_int_equal(totals().dirty_bytes, (3 + 4) * SLICE_BYTES);
    for (size_t i = 0; i < 10; i++) assert_int_equal(run_was_used(&region_main.spans[i]), i < 3 || i >= 6);
}

static void test_extend_without_memory(void **state) {
    (void)state;
    start(64 * MIB);
    struct span *run = take(CHUNK_SLICES, 1);
    fake_fail(FAKE_COMMIT, 1, SIZE_MAX, ENOMEM);
    assert_false(run_extend(run, CHUNK_SLICES, 1));
    fake_heal();
    assert_valid(run_validate());
    assert_true(run_extend(run, CHUNK_SLICES, 1));
}

/* --- put in order --------------------------------------------------------------------------------------------------- */

static void test_repair(void **state) {
    (void)state;
    start(64 * MIB);
    struct span *run = take(3, 1);
    run_repair(); /* the lock is not held: nothing happens */
    os_lock_take(&run_lock);
    os_lock_take(&run_lock);
    region_main.chunks[0].bin = 5; /* as if left half-way */
    region_main.bins.count[9] = 77;
    region_main.bins.occupied = 0;
    run_repair();
    assert_int_equal(fake_locks_held(), 0);
    assert_valid(run_validate());
    release(run, 3, RUN_DIRTY);
    assert_non_null(take(3, 1));
}

/* A region that was added in vain leaves its struct, without arrays. */
static void test_repair_beside_a_dropped_region(void **state) {
    (void)state;
    start(4 * MIB);
    struct span *span = take(3, 1);
    fake_fail(FAKE_COMMIT, 1, SIZE_MAX, ENOMEM);
    assert_null(take(100, 1));
    fake_heal();
    assert_non_null(region_main.next);
    os_lock_take(&run_lock);
    run_repair();
    release(span, 3, RUN_DIRTY);
    assert_non_null(take(100, 1));
}

/* --- random operations against an array ----------------------------------------------------------------------------- */

#define MODEL_SLICES (64 * MIB / SLICE_BYTES)
#define RUNS 200
static struct { bool live, dirty, marked; /* marked: its first word is known to be written */ } model[MODEL_SLICES];
static struct {
    struct span *head;
    size_t slices;
} runs[RUNS];
static struct run_flow flow;

static void check_flow(bool reset) {
    struct run_flow seen = run_flow(reset);
    assert_int_equal(seen.dirty_bytes, flow.dirty_bytes);
    assert_int_equal(seen.dirty_low_bytes, flow.dirty_low_bytes);
    assert_int_equal(seen.clean_taken_bytes, flow.clean_taken_bytes);
    assert_int_equal(seen.taken_bytes, flow.taken_bytes);
    if (reset) flow.dirty_low_bytes = flow.dirty_bytes;
}

static bool model_has_room(size_t count, size_t alignment) {
    for (size_t from = 0; from + count <= MODEL_SLICES; from++) {
        if ((region_main.base / SLICE_BYTES + from) % alignment != 0) continue;
        size_t i = 0;
        while (i < count && !model[from + i].live) i++;
        if (i == count) return true;
    }
    return false;
}

static void model_take(struct span *head, size_t first, size_t count) {
    for (size_t i = first; i < first + count; i++) {
        size_t slice = slice_of(head) + i;
        uint64_t *word = (uint64_t *)(void *)(span_start(head) + i * SLICE_BYTES);
        assert_true(slice < MODEL_SLICES);
        assert_false(model[slice].live);
        assert_int_equal(run_slice_is_dirty(head, i), model[slice].dirty);
        if (!model[slice].dirty) assert_true(word[0] == 0 && word[SLICE_BYTES / 8 - 1] == 0);
        word[0] = slice + 1;
        word[SLICE_BYTES / 8 - 1] = ~(uint64_t)slice;
        model[slice].live = true;
        flow.dirty_bytes -= model[slice].dirty ? SLICE_BYTES : 0;
        flow.clean_taken_bytes += model[slice].dirty ? 0 : SLICE_BYTES;
    }
    flow.taken_bytes += count * SLICE_BYTES;
    flow.dirty_low_bytes = size_min(flow.dirty_low_bytes, flow.dirty_bytes);
}

static void model_release(struct span *head, size_t first, size_t count, enum run_state state) {
    for (size_t i = first; i < first + count; i++) {
        size_t slice = slice_of(head) + i;
        const uint64_t *word = (const uint64_t *)(void *)(span_start(head) + i * SLICE_BYTES);
        assert_true(word[0] == slice + 1 && word[SLICE_BYTES / 8 - 1] == ~(uint64_t)slice);
        model[slice].live = false;
        model[slice].dirty = state == RUN_DIRTY;
        flow.dirty_bytes += model[slice].dirty ? SLICE_BYTES : 0;
    }
    if (state == RUN_CLEAN) assert_int_equal(os_purge(span_start(head) + first * SLICE_BYTES, count * SLICE_BYTES), 0);
}

static void random_step(struct unit_random *random) {
    size_t pick = unit_random(random, RUNS);
    struct span *head = runs[pick].head;
    size_t slices = runs[pick].slices;
    enum run_state state = unit_random(random, 3) == 0 ? RUN_CLEAN : RUN_DIRTY;
    if (head == NULL) {
        size_t kind = unit_random(random, 10);
        slices = 1 + unit_random(random, kind < 7 ? 8 : kind < 9 ? 40 : 300);
        size_t alignment = unit_random(random, 4) == 0 ? (size_t)1 << unit_random(random, 8) : 1;
        head = run_take(slices, alignment);
        if (head == NULL) {
            /* A coarse alignment is cut out of a run that is as much longer. */
            bool coarse = region_main.base % (alignment * SLICE_BYTES) != 0;
            assert_false(coarse ? model_has_room(slices + alignment, 1) : model_has_room(slices, alignment));
            return;
        }
        assert_int_equal((uintptr_t)span_start(head) % (alignment * SLICE_BYTES), 0);
        assert_int_equal(head->slices, slices);
        model_take(head, 0, slices);
        runs[pick].head = head;
        runs[pick].slices = slices;
        return;
    }
    switch (unit_random(random, 4)) {
    case 0: {
        size_t more = 1 + unit_random(random, 20);
        bool free_behind = slice_of(head) + slices + more <= MODEL_SLICES;
        for (size_t i = 0; free_behind && i < more; i++) free_behind = !model[slice_of(head) + slices + i].live;
        bool done = run_extend(head, slices, more);
        assert_int_equal(done, free_behind);
        if (done) {
            model_take(head, slices, more);
            runs[pick].slices += more;
        }
        return;
    }
    case 1:
        if (slices > 1) {
            size_t keep = 1 + unit_random(random, slices - 1);
            model_release(head, keep, slices - keep, state);
            run_shorten(head, slices, keep, state);
            runs[pick].slices = keep;
            return;
        }
        /* fall through */
    default:
        model_release(head, 0, slices, state);
        run_release(head, slices, state);
        runs[pick].head = NULL;
    }
}

static size_t model_resident(size_t slice) {
    return fake_resident_bytes((char *)region_main.base + slice * SLICE_BYTES, SLICE_BYTES);
}

static void model_purge(void) {
    size_t dirty = 0, resident = 0, kept = 0, returned = totals().returned_bytes;
    for (size_t i = 0; i < region_top(&region_main) / SLICE_BYTES; i++) {
        if (model[i].live) continue;
        dirty += model[i].dirty;
        resident += model_resident(i);
        if (!model[i].dirty) assert_int_equal(model_resident(i), 0);
    }
    assert_int_equal(totals().dirty_bytes, dirty * SLICE_BYTES);
    assert_int_equal(run_purge(&kept), resident);
    assert_int_equal(totals().returned_bytes - returned, resident);
    assert_int_equal(kept, 0);
    for (size_t i = 0; i < region_top(&region_main) / SLICE_BYTES; i++) {
        if (model[i].live) continue;
        model[i].dirty = false;
        assert_int_equal(model_resident(i), 0);
    }
    flow.dirty_bytes = flow.dirty_low_bytes = 0;
}

static void random_operations(size_t page_bytes, size_t offset, uint64_t seed) {
    fake.page_bytes = page_bytes;
    fake.reserve_offset_bytes = offset;
    start(64 * MIB);
    fake_fail(FAKE_RESERVE, 1, SIZE_MAX, ENOMEM); /* one region only */
    struct unit_random random = {seed};
    for (int step = 0; step < 20000; step++) {
        random_step(&random);
        assert_valid(run_validate());
        check_flow(unit_random(&random, 200) == 0);
        if (unit_random(&random, 500) == 0) model_purge();
    }
    for (size_t i = 0; i < RUNS; i++)
        if (runs[i].head != NULL) {
            model_release(runs[i].head, 0, runs[i].slices, RUN_DIRTY);
            release(runs[i].head, runs[i].slices, RUN_DIRTY);
        }
    model_purge();
    assert_int_equal(fake_locks_held(), 0);
    assert_int_equal(fake_resident_bytes((void *)region_main.base, region_top(&region_main)), 0);
    assert_true(unit_is_zero(region_main.spans, region_top(&region_main) / SLICE_BYTES * sizeof(struct span)));
    fake_fail(FAKE_RESERVE, 1, SIZE_MAX, ENOMEM);
    assert_non_null(take(MODEL_SLICES, 1)); /* nothing was lost */
}

static void test_random(void **state) {
    (void)state;
    random_operations(4 * KIB, 0, 1);
}
static void test_random_odd_base(void **state) {
    (void)state;
    random_operations(4 * KIB, CHUNK_BYTES, 2);
}
static void test_random_64k_pages(void **state) {
    (void)state;
    random_operations(64 * KIB, 3 * CHUNK_BYTES, 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_best_fit),         cmocka_unit_test(test_dirty_first),
        cmocka_unit_test(test_alignment),        cmocka_unit_test(test_coarse_alignment),
        cmocka_unit_test(test_across_chunks),    cmocka_unit_test(test_exact_end_of_the_region),
        cmocka_unit_test(test_second_region),    cmocka_unit_test(test_extend_and_shorten),
        cmocka_unit_test(test_release_front),    cmocka_unit_test(test_extend_without_memory),
        cmocka_unit_test(test_repair),           cmocka_unit_test(test_repair_beside_a_dropped_region),
        cmocka_unit_test(test_random),           cmocka_unit_test(test_random_odd_base),
        cmocka_unit_test(test_random_64k_pages),
    };
    return unit_run(tests, COUNT_OF(tests));
}
