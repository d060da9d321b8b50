/* heap/claim, heap/bell: heaps of sleeping threads, with threads that take turns. The test's own thread claims, and has no heap unless it
 * says so. */
#include "heap/claim.h"

#include <sys/syscall.h>

#include "actors.h"
#include "heap/bell.h"
#include "heap/flush.h"
#include "heap/remote.h"
#include "heap/thread.h"
#include "heap/validate.h"
#include "heap/whole.h"
#include "os/options.h"
#include "span/meta.h"
#include "span/run.h"

static struct actor sleeper, other;
static struct heap *heap; /* the sleeper's */
static void *live[4];     /* blocks of its that live */
#define LIVE_SPANS 4

static struct span *span_of(void *block) {
    struct span *span = region_span(region_of(block), block);
    return span->kind == SPAN_INNER ? mid_head(span) : span;
}

static size_t dirty_bytes(void) { return run_flow(false).dirty_bytes; }

/* Four current spans, two of them without a live block. */
static void take_some(void) {
    live[0] = heap_malloc(100);
    live[1] = heap_malloc(5000);
    heap_free(heap_malloc(500));
    heap_free(heap_malloc(9000));
    heap = heap_record.self;
    for (size_t i = 0; i < 2; i++) unit_fill(live[i], 100, i);
}
#define EMPTY_BYTES \
    ((1 + 1) * SLICE_BYTES) /* of them, what was touched: one tiny slice, and one of the mid span's eight */

static void start(void) {
    options.reserve_bytes = GIB;
    options.mode = MODE_STATIC;
    actor_start(&sleeper, 2);
    actor_start(&other, 3);
    actor_run(&sleeper, take_some);
}

static void validate(void) {
    assert_valid(run_validate());
    for (struct heap *at = heap_all; at != NULL; at = at->next_heap) assert_valid(heap_validate(at));
    assert_valid(heap_validate(&heap_shared));
    assert_int_equal(fake_locks_held(), 0);
}

static void live_is_intact(void) {
    for (size_t i = 0; i < 2; i++) assert_true(unit_holds(live[i], 100, i));
}

static bool is_vacated(void) { return atomic_load(&heap->record->heap) == &heap_vacant; }

static struct claim_survey mark(void) {
    os_lock_take(&claim_lock);
    struct claim_survey survey = claim_mark(fake.now_ns);
    os_lock_drop(&claim_lock);
    return survey;
}

static bool sweep_with(struct claim_sweep *sweep) {
    os_lock_take(&claim_lock);
    bool done = claim_sweep(sweep);
    os_lock_drop(&claim_lock);
    assert_int_equal(fake_locks_held(), 0);
    return done;
}

static struct claim_sweep sweep(void) {
    struct claim_sweep result = {.tiers = TIER_BOTH, .punch_before_ns = UINT64_MAX};
    assert_true(sweep_with(&result));
    return result;
}

#define assert_survey(survey, marked_, woken_, busy_) \
    do { \
        struct claim_survey seen_ = (survey); \
        assert_int_equal(seen_.marked, marked_); \
        assert_int_equal(seen_.woken, woken_); \
        assert_int_equal(seen_.busy, busy_); \
        assert_true(seen_.possible); \
    } while (0)

static void nothing(void) {}
static void work(void) {
    char *block = heap_malloc(100);
    assert_ptr_equal(heap_record.self, heap);
    assert_ptr_equal(span_of(block)->heap, heap);
    heap_free(block);
}
static void pause_inside(void) {
    heap_enter();
    actor_pause();
    heap_leave();
}

/* --- mark ------------------------------------------------------------------------------------------------------------ */

static void test_sleeping_thread(void **state) {
    (void)state;
    start();
    size_t barriers = fake.count[FAKE_BARRIER], dirty = dirty_bytes();
    uint64_t wakes = claim_waits.wakes;
    assert_survey(mark(), 1, 1, 0);
    assert_int_equal(fake.count[FAKE_BARRIER] - barriers, 1);
    assert_int_equal(heap->claim, HEAP_MARKED);
    assert_true(is_vacated());
    assert_int_equal(heap->marked_ns, fake.now_ns);
    uint64_t marked_ns = fake.now_ns;
    fake.now_ns += 1000;
    assert_survey(mark(), 1, 0, 0); /* it sleeps on */
    assert_int_equal(heap->marked_ns, marked_ns);
    assert_int_equal(dirty_bytes(), dirty);

    struct claim_sweep result = sweep();
    assert_int_equal(result.heaps, 2); /* the shared one, too */
    assert_int_equal(result.yielded, 0);
    assert_int_equal(dirty_bytes() - dirty, EMPTY_BYTES);
    for (unsigned class = 0; class < CLASSES; class ++) assert_ptr_equal(heap->current[class], &span_none);
    validate();
    live_is_intact();

    assert_int_equal(claim_waits.wakes, wakes);
    actor_run(&sleeper, work); /* back in its heap */
    assert_int_equal(claim_waits.wakes, wakes + 1);
    assert_int_equal(heap->claim, HEAP_OWN);
    assert_ptr_equal(heap->record->heap, heap);
    actor_run(&sleeper, work);
    assert_int_equal(claim_waits.wakes, wakes + 1);
    live_is_intact();
    validate();
    assert_survey(mark(), 1, 1, 0);
    assert_int_equal(heap->marked_ns, fake.now_ns);
}

static void test_thread_inside_an_operation(void **state) {
    (void)state;
    start();
    size_t dirty = dirty_bytes();
    actor_run(&sleeper, pause_inside);
    assert_survey(mark(), 0, 0, 1);
    assert_int_equal(heap->claim, HEAP_OWN);
    assert_ptr_equal(heap->record->heap, heap); /* put back: it need not even notice */
    assert_int_equal(sweep().heaps, 1);
    assert_int_equal(dirty_bytes(), dirty);
    uint64_t wakes = claim_waits.wakes;
    actor_resume(&sleeper);
    actor_run(&sleeper, work);
    assert_int_equal(claim_waits.wakes, wakes);
    assert_survey(mark(), 1, 1, 0);
    validate();
}

/* It has begun an operation since it was marked, and has not come back to its heap yet: the bell has not rung for it. */
static void test_marked_thread_inside_an_operation(void **state) {
    (void)state;
    start();
    assert_survey(mark(), 1, 1, 0);
    actor_run(&sleeper, pause_inside);
    size_t barriers = fake.count[FAKE_BARRIER];
    atomic_store(&heap_bell, BELL_ASKED);
    assert_int_equal(mark().busy, 1); /* or the keeper believes that nothing happens */
    assert_int_equal(fake.count[FAKE_BARRIER] - barriers, 1);
    actor_resume(&sleeper);
    actor_run(&sleeper, work);
    validate();
}

static void test_no_barrier(void **state) {
    (void)state;
    start();
    fake_fail(FAKE_BARRIER, 1, 1, EPERM);
    size_t dirty = dirty_bytes();
    struct claim_survey survey = mark();
    assert_false(survey.possible);
    assert_int_equal(survey.marked, 0);
    assert_int_equal(survey.busy, 1);
    assert_int_equal(heap->claim, HEAP_OWN);
    assert_ptr_equal(heap->record->heap, heap);
    assert_int_equal(sweep().heaps, 1);
    assert_int_equal(dirty_bytes(), dirty);
    assert_survey(mark(), 1, 1, 0); /* the filter is gone */
    validate();
}

/* What happens to the sleeper between the vacating and the look at `busy`. */
static void (*at_the_barrier)(void);
static void on_barrier(enum fake_call call, void *at, size_t bytes) {
    (void)at;
    (void)bytes;
    if (call != FAKE_BARRIER) return;
    fake.on_call = NULL;
    assert_int_equal(heap->claim, HEAP_VACATED);
    assert_true(is_vacated());
    assert_int_equal(fake_locks_held(), 1); /* the claim lock */
    at_the_barrier();
}

static struct claim_survey mark_with(void (*function)(void)) {
    at_the_barrier = function;
    fake.on_call = on_barrier;
    struct claim_survey survey = mark();
    assert_null(fake.on_call);
    return survey;
}

static void wakes_up(void) { actor_run(&sleeper, work); }
static void goes_in(void) { actor_run(&sleeper, pause_inside); }
static void ends(void) { actor_end(&sleeper); }
static void bind_again(void) {
    struct heap *old = heap;
    take_some();
    assert_ptr_equal(heap, old);
}
static void ends_and_another_is_born(void) {
    actor_end(&sleeper);
    actor_run(&other, bind_again);
}

static void test_wakes_while_it_is_marked(void **state) {
    (void)state;
    start();
    assert_survey(mark_with(wakes_up), 0, 0, 1);
    assert_int_equal(heap->claim, HEAP_OWN);
    assert_ptr_equal(heap->record->heap, heap);
    assert_survey(mark_with(goes_in), 0, 0, 1);
    assert_int_equal(heap->claim, HEAP_OWN);
    assert_ptr_equal(heap->record->heap, heap);
    actor_resume(&sleeper);
    actor_run(&sleeper, work);
    validate();
}

static void test_ends_while_it_is_marked(void **state) {
    (void)state;
    start();
    assert_survey(mark_with(ends), 0, 0, 0);
    assert_int_equal(heap->state, HEAP_ORPHAN);
    assert_int_equal(heap->claim, HEAP_OWN);
    assert_int_equal(sweep().heaps, 2);
    live_is_intact();
    validate();
}

static void test_bound_again_while_it_is_marked(void **state) {
    (void)state;
    start();
    assert_survey(mark_with(ends_and_another_is_born), 0, 0, 1);
    assert_int_equal(heap->claim, HEAP_OWN);
    assert_ptr_equal(heap->record->heap, heap);
    assert_int_equal(sweep().heaps, 1);
    actor_run(&other, work);
    validate();
}

static void end_without_a_word(void) {
    sem_post(&actor_self->stopped);
    syscall(SYS_exit, 0);
}

/* The record of such a thread is gone: nobody may write to it. */
static void test_dead_thread(void **state) {
    (void)state;
    void *list;
    size_t length;
    if (syscall(SYS_get_robust_list, 0, &list, &length) != 0) skip(); /* such an end leaves no trace in qemu-user */
#ifdef TIDE_TEST_NO_RAW_ENDS
    skip();
#endif
    start();
    actor_run(&sleeper, end_without_a_word);
    assert_int_equal(pthread_join(sleeper.thread, NULL), 0);
    assert_int_equal(heap->state, HEAP_BOUND);
    assert_survey(mark(), 0, 0, 0);
    assert_int_equal(heap->state, HEAP_ORPHAN);
    assert_null(heap->record);
    validate();
    actor_run(&other, bind_again);
    validate();
}

/* --- sweep ----------------------------------------------------------------------------------------------------------- */

static void test_wakes_before_the_sweep(void **state) {
    (void)state;
    start();
    size_t dirty = dirty_bytes();
    assert_survey(mark(), 1, 1, 0);
    wakes_up();
    assert_int_equal(sweep().heaps, 1);
    assert_int_equal(dirty_bytes(), dirty);
    assert_survey(mark(), 1, 1, 0);
    ends_and_another_is_born();
    dirty = dirty_bytes();
    assert_int_equal(sweep().heaps, 1);
    assert_int_equal(dirty_bytes(), dirty);
    actor_run(&other, work);
    validate();
}

static void test_tiers(void **state) {
    (void)state;
    start();
    mark();
    struct claim_sweep result = {.tiers = TIER_MID};
    assert_true(sweep_with(&result));
    assert_true(heap->current[class_of_size(500)] != &span_none);
    assert_true(heap->current[class_of_size(9000)] == &span_none);
    wakes_up();
    assert_true(heap->current[class_of_size(500)] != &span_none);
    validate();
}

/* Spans of their own for three blocks, freed by somebody else. */
static void free_live(void) {
    heap_free(live[0]);
    heap_free(live[1]);
}

static void test_gives_way(void **state) {
    (void)state;
    start();
    mark();
    actor_run(&other, free_live);
    struct span *spans[2] = {span_of(live[0]), span_of(live[1])};
    atomic_store(&heap->waiting, 1); /* as if it had begun to wait while the claimer held the lock */
    struct claim_sweep result = {.tiers = TIER_BOTH, .punch_before_ns = UINT64_MAX};
    assert_true(sweep_with(&result));
    assert_int_equal(result.yielded, 1);
    assert_non_null(heap->undrained); /* one step was made */
    assert_true(heap->current[class_of_size(500)] != &span_none);
    atomic_store(&heap->waiting, 0);
    validate();
    wakes_up();
    mark();
    assert_int_equal(sweep().yielded, 0); /* it goes on where it was */
    assert_null(heap->undrained);
    for (size_t i = 0; i < 2; i++) assert_int_equal(spans[i]->kind, SPAN_FREE);
    validate();
}

static void test_orphans(void **state) {
    (void)state;
    start();
    actor_end(&sleeper);
    struct span *tiny = span_of(live[0]), *mid = span_of(live[1]);
    /* A nested free leaves its work undone. */
    ((struct block *)live[0])->key = tiny_key(tiny, live[0]);
    assert_true(remote_push(tiny, live[0], span_block_index(tiny, live[0])));
    assert_int_equal(tiny->kind, SPAN_TINY);
    assert_int_equal(sweep().heaps, 2);
    assert_int_equal(tiny->kind, SPAN_FREE);
    assert_int_equal(mid->kind, SPAN_MID);
    assert_true(unit_holds(live[1], 100, 1));
    validate();
}

static void take_a_span(void) {
    static void *blocks[SLICE_BYTES / 512];
    for (size_t i = 0; i < COUNT_OF(blocks); i++) memset(blocks[i] = heap_malloc(512), 1, 512);
    for (size_t i = 1; i < COUNT_OF(blocks); i++) heap_free(blocks[i]);
    live[2] = blocks[0];
    heap = heap_record.self;
}

/* Nobody else collects what was in hand. */
static void test_orphans_are_punched(void **state) {
    (void)state;
    start();
    actor_run(&sleeper, take_a_span);
    actor_end(&sleeper);
    struct span *punched = span_of(live[2]);
    size_t resident = run_resident_bytes();
    struct claim_sweep result = sweep();
    assert_true(result.returned_bytes >= SLICE_BYTES - 2 * os_page_bytes);
    assert_int_equal(resident - run_resident_bytes(), result.returned_bytes);
    assert_null(heap->remote);
    assert_null(heap->undrained);
    assert_int_equal(punched->flags & (SPAN_LISTED | SPAN_PUNCHED | SPAN_IN_HAND), SPAN_LISTED | SPAN_PUNCHED);
    validate();
}

/* Heaps that were marked just now are not punched yet. */
static void test_punch_later(void **state) {
    (void)state;
    start();
    actor_run(&sleeper, take_a_span);
    mark();
    struct claim_sweep result = {.tiers = TIER_BOTH, .punch_before_ns = fake.now_ns};
    assert_true(sweep_with(&result));
    assert_int_equal(result.returned_bytes, 0);
    assert_int_equal(span_of(live[2])->flags & SPAN_PUNCHED, 0);
    result.punch_before_ns = fake.now_ns + 1;
    mark(); /* it sleeps on */
    assert_true(sweep_with(&result));
    assert_true(result.returned_bytes >= SLICE_BYTES - 2 * os_page_bytes);
    validate();
}

static void test_stops_at_the_bell(void **state) {
    (void)state;
    start();
    mark();
    size_t dirty = dirty_bytes();
    struct claim_sweep result = {.tiers = TIER_BOTH, .until_bell = true};
    assert_false(sweep_with(&result)); /* it has rung */
    assert_int_equal(dirty_bytes(), dirty);
    atomic_store(&heap_bell, BELL_ASKED);
    assert_true(sweep_with(&result));
    assert_int_equal(dirty_bytes() - dirty, EMPTY_BYTES);
    assert_int_equal(heap_bell, BELL_ASKED);
    validate();
}

/* --- memory is scarce ------------------------------------------------------------------------------------------------ */

static void test_reclaim(void **state) {
    (void)state;
    start();
    heap_free(heap_malloc(10)); /* the test's thread has a heap of its own now */
    struct heap *self = heap_record.self;
    struct span *tiny = heap->current[class_of_size(500)], *mid = heap->current[class_of_size(9000)];
    assert_true(tiny != &span_none && mid != &span_none);
    fake.budget_bytes = fake.charged_bytes;
    while (mid->kind == SPAN_FREE || mid->heap == heap) assert_non_null(heap_malloc(2000)); /* until it is ours */
    assert_ptr_equal(heap_record.self, self);
    assert_int_equal(heap->claim, HEAP_MARKED);
    assert_true(tiny->kind == SPAN_FREE || tiny->heap == self);
    for (unsigned class = 0; class < CLASSES; class ++) assert_ptr_equal(heap->current[class], &span_none);
    while (heap_malloc(30000) != NULL) continue;
    errno = 0;
    assert_null(heap_malloc(30000));
    assert_int_equal(errno, ENOMEM);
    live_is_intact();
    validate();
    fake.budget_bytes = SIZE_MAX;
    wakes_up();
    validate();
}

static void mark_oneself(void) {
    assert_true(heap_try_enter());
    os_lock_take(&claim_lock);
    claim_mark_self(77);
    struct claim_sweep result = {.tiers = TIER_BOTH, .punch_before_ns = 78};
    assert_true(claim_sweep(&result));
    assert_int_equal(result.heaps, 2);
    os_lock_drop(&claim_lock);
    heap_quit();
}

static void test_mark_self(void **state) {
    (void)state;
    start();
    size_t dirty = dirty_bytes();
    actor_run(&sleeper, mark_oneself);
    assert_int_equal(heap->marked_ns, 77);
    assert_int_equal(dirty_bytes() - dirty, EMPTY_BYTES);
    wakes_up();
    actor_run(&other, nothing);
    live_is_intact();
    validate();
}

static void test_waits(void **state) {
    (void)state;
    static const struct {
        uint64_t ns;
        unsigned bucket;
    } expected[] = {
        {0, 0}, {1, 1}, {2, 2}, {3, 2}, {4, 3}, {1023, 10}, {1024, 11}, {UINT64_C(1) << 30, 31}, {UINT64_MAX, 31},
    };
    for (size_t i = 0; i < COUNT_OF(expected); i++) {
        uint64_t before = claim_waits.waits[expected[i].bucket];
        claim_note_wait(expected[i].ns);
        assert_int_equal(claim_waits.waits[expected[i].bucket] - before, 1);
        assert_int_equal(claim_waits.longest_ns, expected[i].ns);
    }
    claim_note_wait(5);
    assert_int_equal(claim_waits.longest_ns, UINT64_MAX);
}

/* A handler that interrupts an operation frees a large block, and nothing else happens. */
static void *large;
static void free_inside(void) {
    heap_enter();
    fake.on_signal_stack = true;
    heap_free(large);
    fake.on_signal_stack = false;
    heap_leave();
}

static void test_large_block_freed_by_a_handler(void **state) {
    (void)state;
    start();
    for (int i = 0; i < 2; i++) {
        large = heap_malloc(MIB);
        assert_non_null(large);
        size_t dirty = dirty_bytes();
        actor_run(&sleeper, free_inside);
        assert_int_equal(dirty_bytes(), dirty); /* it waits */
        if (i == 0) {
            mark();
            sweep();
        } else {
            flush_now(FLUSH_LARGE, NULL);
        }
        assert_int_equal(span_of(large)->kind, SPAN_FREE);
    }
    live_is_intact();
    validate();
}

/* A program may begin by giving back what it does not have. */
static void test_flush_before_the_first_allocation(void **state) {
    (void)state;
    struct flush_result result = {1, 1, 1, 1};
    assert_int_equal(flush_now(FLUSH_ALL, &result), 0);
    assert_int_equal(result.returned_bytes + result.kept_bytes + result.pinned_bytes + result.missed_bytes, 0);
    start();
    live_is_intact();
    validate();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sleeping_thread),
        cmocka_unit_test(test_thread_inside_an_operation),
        cmocka_unit_test(test_marked_thread_inside_an_operation),
        cmocka_unit_test(test_no_barrier),
        cmocka_unit_test(test_wakes_while_it_is_marked),
        cmocka_unit_test(test_ends_while_it_is_marked),
        cmocka_unit_test(test_bound_again_while_it_is_marked),
        cmocka_unit_test(test_dead_thread),
        cmocka_unit_test(test_wakes_before_the_sweep),
        cmocka_unit_test(test_tiers),
        cmocka_unit_test(test_gives_way),
        cmocka_unit_test(test_orphans),
        cmocka_unit_test(test_orphans_are_punched),
        cmocka_unit_test(test_punch_later),
        cmocka_unit_test(test_stops_at_the_bell),
        cmocka_unit_test(test_reclaim),
        cmocka_unit_test(test_mark_self),
        cmocka_unit_test(test_waits),
        cmocka_unit_test(test_large_block_freed_by_a_handler),
        cmocka_unit_test(test_flush_before_the_first_allocation),
    };
    return unit_run(tests, COUNT_OF(tests));
}
