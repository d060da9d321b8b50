/* Every call to the system that a mixed workload makes is made to fail, one run for each: an operation then gives NULL and ENOMEM or succeeds, no
 * byte of a live block changes, all structures stay whole, and when the system is well again nothing has been lost. */
#include <pthread.h>

#include "heap/block.h"
#include "heap/census.h"
#include "heap/own.h"
#include "heap/validate.h"
#include "heap/claim.h"
#include "heap/thread.h"
#include "heap/whole.h"
#include "os/options.h"
#include "unit.h"

enum { SLOTS = 32, STEPS = 300, THREAD_STEPS = 30 };

static struct slot {
    char *block;
    size_t bytes;
    uint64_t seed;
} slots[SLOTS];
static size_t refused; /* operations that gave NULL */
static struct unit_random random_state;

static uint64_t pick(uint64_t below) { return unit_random(&random_state, below); }

/* --- contents: the first and last bytes, and one word in four pages of a large block ------------------------------------ */

enum { EDGE = 200, STRIDE = 16 * 1024 };

static bool sparse_visit(char *block, size_t bytes, uint64_t seed, bool write) {
    size_t edge = size_min(bytes, EDGE);
    if (write) {
        unit_fill(block, edge, seed);
        if (bytes > 2 * EDGE) unit_fill(block + bytes - EDGE, EDGE, seed + 1);
    } else if (!unit_holds(block, edge, seed)) {
        return false;
    } else if (bytes > 2 * EDGE && !unit_holds(block + bytes - EDGE, EDGE, seed + 1)) {
        return false;
    }
    for (size_t at = STRIDE; at + EDGE + 16 < bytes; at += STRIDE) {
        uint64_t word = seed * 977 + at;
        if (write)
            memcpy(block + at, &word, sizeof word);
        else if (memcmp(block + at, &word, sizeof word) != 0)
            return false;
    }
    return true;
}

/* After a change of size: the part that is left, without the old end. */
static bool prefix_holds(const char *block, size_t old_bytes, size_t bytes, uint64_t seed) {
    size_t common = size_min(old_bytes, bytes);
    if (!unit_holds(block, size_min(common, EDGE), seed)) return false;
    for (size_t at = STRIDE; at + EDGE + 16 < common; at += STRIDE) {
        uint64_t word = seed * 977 + at;
        if (memcmp(block + at, &word, sizeof word) != 0) return false;
    }
    return true;
}

static void fill(struct slot *slot) {
    static uint64_t seed;
    slot->seed = ++seed;
    sparse_visit(slot->block, slot->bytes, slot->seed, true);
}

static void check(const struct slot *slot) { assert_true(sparse_visit(slot->block, slot->bytes, slot->seed, false)); }

/* --- operations --------------------------------------------------------------------------------------------------------- */

static size_t some_size(void) {
    switch (pick(8)) {
    case 0:
    case 1: return 1 + pick(1024);
    case 2:
    case 3: return 1 + pick(32768);
    case 4: return 32769 + pick(200000);
    case 5: return 1 + pick(MIB);
    case 6: return pick(4) == 0 ? 1 + pick(4 * MIB) : 1 + pick(100000);
    default: return 1 + pick(300);
    }
}

static void *result_of(void *block) {
    if (block == NULL) {
        assert_int_equal(errno, ENOMEM);
        refused++;
    }
    assert_false(heap_is_busy());
    assert_int_equal(fake_locks_held(), 0);
    return block;
}

static void step_take(struct slot *slot) {
    size_t bytes = some_size();
    errno = 0;
    switch (pick(4)) {
    case 0: {
        char *block = result_of(heap_calloc(bytes));
        if (block != NULL) assert_true(block[0] == 0 && memcmp(block, block + 1, bytes - 1) == 0);
        slot->block = block;
        break;
    }
    case 1: {
        size_t alignment = (size_t)1 << pick(18);
        slot->block = result_of(heap_malloc_aligned(alignment, bytes));
        assert_int_equal((uintptr_t)slot->block % alignment, 0);
        break;
    }
    default: slot->block = result_of(heap_malloc(bytes));
    }
    slot->bytes = bytes;
    if (slot->block != NULL) fill(slot);
}

static void step_resize(struct slot *slot) {
    size_t bytes = pick(3) != 0 && slot->bytes < 2 * MIB ? slot->bytes + 1 + pick(slot->bytes + 1) : some_size();
    errno = 0;
    char *block = result_of(heap_realloc(slot->block, bytes));
    if (block == NULL) {
        assert_true(bytes > slot->bytes); /* a smaller one is always to be had */
        check(slot);
        return;
    }
    assert_true(prefix_holds(block, slot->bytes, bytes, slot->seed));
    assert_true(block_describe("test", block).usable_bytes >= bytes);
    slot->block = block;
    slot->bytes = bytes;
    fill(slot);
}

static void step_free(struct slot *slot) {
    check(slot);
    heap_free(slot->block);
    slot->block = NULL;
}

static void step(void) {
    struct slot *slot = &slots[pick(SLOTS)];
    if (slot->block == NULL)
        step_take(slot);
    else if (pick(5) < 3)
        step_resize(slot);
    else
        step_free(slot);
}

/* As the flush functions of the API. */
static size_t flush(void) {
    assert_true(heap_try_enter());
    struct heap *heap = heap_own();
    heap_reclaim();
    if (heap != NULL) heap_flush(heap, TIER_BOTH);
    os_lock_take(&heap_shared.lock);
    heap_flush(&heap_shared, TIER_BOTH);
    os_lock_drop(&heap_shared.lock);
    size_t kept = 0;
    run_purge(&kept);
    heap_leave();
    return kept;
}

static void validate(void) {
    assert_valid(run_validate());
    for (struct heap *heap = heap_all; heap != NULL; heap = heap->next_heap) assert_valid(heap_validate(heap));
    assert_valid(heap_validate(&heap_shared));
}

static void *thread_run(void *unused) {
    (void)unused;
    fake_thread_is(2);
    for (int i = 0; i < THREAD_STEPS; i++) step(); /* on the blocks of the main thread, too */
    validate();
    return NULL;
}

static void workload(uint64_t seed) {
    random_state.state = seed;
    for (int i = 0; i < STEPS; i++) {
        step();
        if (i % 4 == 0) validate();
        if (i % 90 == 50) {
            flush();
            validate();
        }
        if (i % 140 == 70) {
            pthread_t thread;
            assert_int_equal(pthread_create(&thread, NULL, thread_run, NULL), 0);
            assert_int_equal(pthread_join(thread, NULL), 0);
            validate();
        }
    }
}

static void free_all(void) {
    for (size_t i = 0; i < SLOTS; i++)
        if (slots[i].block != NULL) step_free(&slots[i]);
}

/* --- afterwards ----------------------------------------------------------------------------------------------------------- */

static size_t committed(void) {
    struct run_totals totals;
    run_totals(&totals);
    return totals.committed_bytes;
}

/* All slices are free and clean but for the emergency blocks. */
static void nothing_is_lost(void) {
    free_all();
    assert_int_equal(flush(), 0);
    validate();
    struct census census;
    census_take(&census);
    for (int tier = 0; tier < TIER_COUNT; tier++) assert_int_equal(census.live_bytes[tier], 0);
    assert_int_equal(census.active_bytes + census.empty_bytes[TIER_TINY_INDEX] + census.empty_bytes[TIER_MID_INDEX] +
                         census.free_blocks,
                     0);
    assert_int_equal(census.runs.dirty_bytes, 0);
    size_t used = 0, emergency = 0;
    for (struct region *region = &region_main; region != NULL; region = region->next) {
        for (size_t i = 0; i < region_top(region) / CHUNK_BYTES; i++)
            used += CHUNK_SLICES - bits_count(region->chunks[i].free);
        for (size_t i = 0; i < region_top(region) / SLICE_BYTES; i++)
            emergency += region->spans[i].kind == SPAN_EMERGENCY;
        assert_int_equal(fake_resident_bytes((void *)region->base, region_top(region)), 0);
    }
    assert_int_equal(used, emergency);
    /* Moved mappings have healed, but for those that the system refused to renew: what a region is made of, and little more. */
    size_t regions = 0, mapped = fake.count[FAKE_MAP] + 2 * fake.failed;
    for (struct region *region = &region_main; region != NULL; region = region->next) regions += region->base != 0;
    assert_true(fake_mappings() <= 12 * regions + mapped);
}

/* The system is well again: everything that lives is intact, everything can be had. */
static void recover(uint64_t seed, size_t healthy_bytes) {
    fake_heal();
    fake.budget_bytes = SIZE_MAX;
    fake.reserve_max_bytes = SIZE_MAX;
    nothing_is_lost();
    refused = 0;
    size_t before = committed();
    workload(seed);
    assert_int_equal(refused, 0);
    assert_true(committed() <= size_max(before, healthy_bytes) + healthy_bytes / 2);
    nothing_is_lost();
}

/* --- the runs -------------------------------------------------------------------------------------------------------------- */

struct healthy {
    size_t calls[FAKE_CALLS + 1];
    size_t committed_bytes, charged_bytes;
};

static void start(size_t page_bytes, size_t reserve_bytes) {
    fake.page_bytes = page_bytes;
    options.reserve_bytes = reserve_bytes;
}

/* Count the calls in a run where all goes well. */
static struct healthy healthy_run(size_t page_bytes, size_t reserve_bytes, uint64_t seed) {
    struct healthy result = {0};
    int pipe_ends[2], status;
    assert_int_equal(pipe(pipe_ends), 0);
    UNIT_IN_CHILD(status, {
        start(page_bytes, reserve_bytes);
        workload(seed);
        assert_int_equal(refused, 0);
        memcpy(result.calls, fake.count, sizeof result.calls);
        result.committed_bytes = committed();
        result.charged_bytes = fake.charged_bytes;
        assert_int_equal(write(pipe_ends[1], &result, sizeof result), sizeof result);
        recover(seed, result.committed_bytes);
    });
    assert_int_equal(status, 0);
    assert_int_equal(read(pipe_ends[0], &result, sizeof result), sizeof result);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    return result;
}

static void unhealthy_run(enum fake_call call, size_t nth, size_t count, uint64_t seed, const struct healthy *healthy,
                          size_t page_bytes, size_t reserve_bytes) {
    int status;
    UNIT_IN_CHILD(status, {
        start(page_bytes, reserve_bytes);
        fake_fail(call, nth, count, ENOMEM);
        workload(seed);
        assert_true(fake.failed > 0);
        recover(seed, healthy->committed_bytes);
    });
    if (status != 0)
        fail_msg("call %zu of kind %d and %zu more failed: then the run did, too", nth, (int)call, count - 1);
}

/* One region of 1 GiB, or a small one that others must follow. */
static void each_call_fails(size_t page_bytes, size_t reserve_bytes, uint64_t seed) {
    struct healthy healthy = healthy_run(page_bytes, reserve_bytes, seed);
    assert_true(healthy.calls[FAKE_MOVE] > 3 && healthy.calls[FAKE_RENEW] > 3);
    assert_true(healthy.calls[FAKE_COMMIT] > 10 && healthy.calls[FAKE_PURGE] > 10);
    /* Every call in its turn is for `make soak`; other seeds make other calls anyway. */
    size_t stride = getenv("TIDE_TEST_LONG") != NULL ? 1 : 3;
    for (size_t nth = 1; nth <= healthy.calls[FAKE_ANY]; nth += stride)
        unhealthy_run(FAKE_ANY, nth, 1, seed, &healthy, page_bytes, reserve_bytes);
}

static void test_each_call(void **state) {
    (void)state;
    each_call_fails(4 * KIB, GIB, 46);
}
static void test_each_call_in_many_regions(void **state) {
    (void)state;
    each_call_fails(4 * KIB, 16 * MIB, 42);
}
static void test_each_call_with_large_pages(void **state) {
    (void)state;
    each_call_fails(64 * KIB, GIB, 43);
}

/* Calls of a kind fail for a while, or from some moment on. */
static void test_kinds_for_a_while(void **state) {
    (void)state;
    for (size_t reserve = 16 * MIB; reserve <= GIB; reserve *= 64) {
        struct healthy healthy = healthy_run(4 * KIB, reserve, 44);
        for (enum fake_call call = 0; call <= FAKE_ANY; call++) {
            size_t calls = healthy.calls[call], stride = calls / 6 + 1;
            for (size_t nth = 1; nth <= calls; nth += stride) {
                unhealthy_run(call, nth, 5, 44, &healthy, 4 * KIB, reserve);
                unhealthy_run(call, nth, 60, 44, &healthy, 4 * KIB, reserve);
                unhealthy_run(call, nth, SIZE_MAX, 44, &healthy, 4 * KIB, reserve);
            }
        }
    }
}

/* As under strict overcommit: what may be charged is limited. */
static void test_budget(void **state) {
    (void)state;
    for (size_t reserve = 16 * MIB; reserve <= GIB; reserve *= 64) {
        struct healthy healthy = healthy_run(4 * KIB, reserve, 45);
        size_t starved = 0;
        for (size_t part = 0; part < 16; part++) {
            size_t budget = healthy.charged_bytes / 16 * part;
            int status;
            UNIT_IN_CHILD(status, {
                start(4 * KIB, reserve);
                fake.budget_bytes = budget;
                workload(45);
                assert_true(fake.failed > 0);
                assert_true(fake.charged_bytes <= budget);
                bool hungry = refused > 0;
                recover(45, healthy.committed_bytes);
                fflush(NULL);
                _exit(hungry ? 7 : 0);
            });
            if (status != 0 && !(WIFEXITED(status) && WEXITSTATUS(status) == 7))
                fail_msg("the run with a budget of %zu failed", budget);
            starved += status != 0;
        }
        assert_true(starved >= 8);
    }
}

/* No address space beyond the first region. */
static void test_no_second_region(void **state) {
    (void)state;
    int status;
    UNIT_IN_CHILD(status, {
        start(4 * KIB, 6 * MIB);
        heap_free(heap_malloc(1));
        fake.reserve_max_bytes = 0;
        workload(46);
        assert_true(refused > 10);
        assert_int_equal(committed(), 6 * MIB);
        struct healthy healthy = {.committed_bytes = 128 * MIB};
        recover(46, healthy.committed_bytes);
    });
    assert_int_equal(status, 0);
}

/* Before an operation is refused, the thread gives up the spans that it keeps for nothing: those of all classes together are more than there is. */
static void test_reclaim_before_refusal(void **state) {
    (void)state;
    start(4 * KIB, 6 * MIB);
    heap_free(heap_malloc(1));
    fake.reserve_max_bytes = 0;
    for (int round = 0; round < 3; round++) {
        size_t kept = 0;
        for (unsigned class = TINY_CLASSES; class < CLASSES; class ++) {
            void *block = heap_malloc(class_bytes(class));
            assert_non_null(block);
            heap_free(block);
            kept += mid_slices(class) * SLICE_BYTES;
        }
        assert_true(kept > 2 * 6 * MIB);
        void *large = heap_malloc(4 * MIB);
        assert_non_null(large);
        heap_free(large);
    }
    validate();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_call),
        cmocka_unit_test(test_each_call_in_many_regions),
        cmocka_unit_test(test_each_call_with_large_pages),
        cmocka_unit_test(test_kinds_for_a_while),
        cmocka_unit_test(test_budget),
        cmocka_unit_test(test_no_second_region),
        cmocka_unit_test(test_reclaim_before_refusal),
    };
    return unit_run(tests, COUNT_OF(tests));
}
