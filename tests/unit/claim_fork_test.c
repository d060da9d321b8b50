/* heap/claim beside heap/fork and jumps out of operations: whoever forks or jumps, and whatever a claimer does at that moment, no heap is
 * left half-changed. */
#include "heap/claim.h"

#include "actors.h"
#include "heap/remote.h"
#include "heap/thread.h"
#include "heap/validate.h"
#include "os/options.h"
#include "span/meta.h"
#include "span/run.h"

#define SPANS 6
#define BLOCK_BYTES 512
#define SPAN_BLOCKS (SLICE_BYTES / BLOCK_BYTES)
static struct actor sleeper, other;
static struct heap *heap;
static char *live[SPANS]; /* one block in each of the sleeper's spans, another one each time */

static struct span *span_of(void *block) { return region_span(region_of(block), block); }

/* Spans with one live block each, on the sleeper's list. */
static void take_spans(void) {
    static char *blocks[SPANS][SPAN_BLOCKS];
    for (size_t s = 0; s < SPANS; s++)
        for (size_t i = 0; i < SPAN_BLOCKS; i++) memset(blocks[s][i] = heap_malloc(BLOCK_BYTES), 0x55, BLOCK_BYTES);
    for (size_t s = 0; s < SPANS; s++) {
        size_t kept = s * 19;
        for (size_t i = 0; i < SPAN_BLOCKS; i++)
            if (i != kept) heap_free(blocks[s][i]);
        live[s] = blocks[s][kept];
        unit_fill(live[s], BLOCK_BYTES, s);
    }
    heap = heap_record.self;
}

static void start(void) {
    options.reserve_bytes = GIB;
    options.mode = MODE_STATIC;
    actor_start(&sleeper, 2);
    actor_start(&other, 3);
    actor_run(&sleeper, take_spans);
}

static void validate(void) {
    assert_valid(run_validate());
    for (struct heap *at = heap_all; at != NULL; at = at->next_heap)
        if (at->state != HEAP_LOST) assert_valid(heap_validate(at));
    assert_int_equal(fake_locks_held(), 0);
}

static void live_is_intact(void) {
    for (size_t i = 0; i < SPANS; i++) assert_true(unit_holds(live[i], BLOCK_BYTES, i));
}

static void sweep(void) {
    os_lock_take(&claim_lock);
    struct claim_sweep now = {.tiers = TIER_BOTH, .punch_before_ns = UINT64_MAX};
    claim_mark(fake.now_ns);
    claim_sweep(&now);
    os_lock_drop(&claim_lock);
}

static void make_heap(void) { heap_free(heap_malloc(2000)); }

/* In a child, or at the end: all spans of the sleeper's can be freed; none is lost. */
static void nothing_is_lost(void) {
    live_is_intact();
    for (size_t i = 0; i < SPANS; i++) {
        struct span *span = span_of(live[i]);
        assert_ptr_equal(span->heap, heap);
        heap_free(live[i]);
    }
    sweep();
    for (size_t i = 0; i < SPANS; i++) assert_int_equal(span_of(live[i])->kind, SPAN_FREE);
    validate();
}

/* --- fork ------------------------------------------------------------------------------------------------------------ */

/* The forking thread's own heap may be marked, and in a claimer's hands: it is stopped like all others. */
static void test_fork_of_a_marked_thread(void **state) {
    (void)state;
    start();
    make_heap();
    actor_run(&other, sweep);
    assert_int_equal(heap_record.self->claim, HEAP_MARKED);
    heap_fork_prepare();
    assert_true(os_lock_is_mine(&heap_record.self->lock));
    heap_fork_parent();
    assert_false(os_lock_is_mine(&heap_record.self->lock));
    int status;
    UNIT_IN_CHILD(status, {
        make_heap();
        nothing_is_lost();
    });
    assert_int_equal(status, 0);
    make_heap();
    nothing_is_lost();
}

static void in_the_child(void) {
    assert_int_equal(fake_locks_held(), 0);
    assert_int_equal(fake.forks, 1);
    assert_int_equal(heap->state, HEAP_ORPHAN);
    assert_int_equal(heap->claim, HEAP_OWN);
    assert_null(heap->record);
    make_heap(); /* takes over the sleeper's, if the thread had none */
    nothing_is_lost();
}

static void fork_and_look(void) {
    int status;
    UNIT_IN_CHILD(status, in_the_child());
    assert_int_equal(status, 0);
}

static void test_fork_beside_marked_heaps(void **state) {
    (void)state;
    start();
    sweep();
    assert_int_equal(heap->claim, HEAP_MARKED);
    fork_and_look();
    make_heap();
    assert_true(heap_record.self != heap);
    fork_and_look();
    assert_int_equal(heap->claim, HEAP_MARKED);
    actor_run(&sleeper, make_heap);
    assert_int_equal(heap->claim, HEAP_OWN);
    nothing_is_lost();
}

static enum fake_call fork_at;
static void fork_during(enum fake_call call, void *at, size_t bytes) {
    (void)at;
    (void)bytes;
    if (call != fork_at) return;
    fake.on_call = NULL;
    actor_run(&other, fork_and_look);
}

static void test_fork_while_heaps_are_vacated(void **state) {
    (void)state;
    start();
    actor_run(&other, make_heap);
    fork_at = FAKE_BARRIER;
    fake.on_call = fork_during;
    sweep();
    assert_null(fake.on_call);
    nothing_is_lost();
}

static void test_fork_while_spans_are_in_hand(void **state) {
    (void)state;
    start();
    actor_run(&other, make_heap);
    fork_at = FAKE_PURGE;
    fake.on_call = fork_during;
    sweep();
    assert_null(fake.on_call);
    nothing_is_lost();
}

/* The spans in hand are the forking thread's own. */
static void in_the_child_of_the_owner(void) {
    assert_ptr_equal(heap_record.self, heap);
    make_heap();
    nothing_is_lost();
}
static void owner_forks(void) {
    int status;
    UNIT_IN_CHILD(status, in_the_child_of_the_owner());
    assert_int_equal(status, 0);
}
static void owner_forks_during(enum fake_call call, void *at, size_t bytes) {
    (void)at;
    (void)bytes;
    if (call != FAKE_PURGE) return;
    fake.on_call = NULL;
    actor_run(&sleeper, owner_forks);
}

static void test_fork_of_the_owner_of_spans_in_hand(void **state) {
    (void)state;
    start();
    fake.on_call = owner_forks_during;
    sweep();
    assert_null(fake.on_call);
    nothing_is_lost();
}

/* A handler interrupts the claimer, forks, and returns in the child: the claimer goes on there, with what it has in hand. */
static pid_t handler_child = -1;
static int looks_before_fork;
static void handler_forks(const void *at, size_t bytes) {
    (void)at;
    (void)bytes;
    if (--looks_before_fork > 0) return;
    fake.on_resident = NULL;
    fake.on_signal_stack = true;
    handler_child = fork();
    if (handler_child == 0) alarm(20); /* alarms are not inherited */
    fake.on_signal_stack = false;
}

static void fork_inside_a_sweep(int looks) {
    start();
    make_heap();
    looks_before_fork = looks;
    fake.on_resident = handler_forks;
    assert_true(heap_try_enter());
    sweep();
    heap_quit();
    assert_true(handler_child >= 0);
    live_is_intact();
    nothing_is_lost();
    if (handler_child == 0) _exit(0);
    int status = -1;
    while (waitpid(handler_child, &status, 0) < 0 && errno == EINTR) continue;
    assert_int_equal(status, 0);
}

static void test_fork_by_a_handler_that_interrupts_a_claimer(void **state) {
    (void)state;
    for (int looks = 1; looks <= 2 * SPANS;
         looks++) { /* one while each span is taken, one or two before its pages go */
        int status;
        UNIT_IN_CHILD(status, fork_inside_a_sweep(looks));
        assert_int_equal(status, 0);
    }
}

static void keep_empty_spans(void) {
    void *blocks[40];
    for (size_t i = 0; i < COUNT_OF(blocks); i++) blocks[i] = heap_malloc(i % 2 == 0 ? 900 : 8000);
    for (size_t i = 0; i < COUNT_OF(blocks); i++) heap_free(blocks[i]);
}

static void begin_again(void) {
    heap_record = (struct thread_record){.heap = &heap_vacant};
    make_heap();
}

/* A handler forks while a thread that begins takes over what a dead one has left: in the child no heap is offered twice. */
static void fork_inside_a_burial(void) {
    alarm(20);
    start();
    actor_run(&sleeper, keep_empty_spans);
    atomic_store(&heap->dead, 1);
    run_keep_at_most(SLICE_BYTES);
    looks_before_fork = 1;
    fake.on_resident = handler_forks;
    make_heap();
    assert_true(handler_child >= 0);
    for (int i = 0; i < 3; i++) begin_again();
    live_is_intact();
    validate();
    if (handler_child == 0) _exit(0);
    int status = -1;
    while (waitpid(handler_child, &status, 0) < 0 && errno == EINTR) continue;
    assert_int_equal(status, 0);
}

static void test_fork_by_a_handler_that_interrupts_a_burial(void **state) {
    (void)state;
    int status;
    UNIT_IN_CHILD(status, fork_inside_a_burial());
    assert_int_equal(status, 0);
}

/* Handlers that the program has registered run while the forking thread holds every lock. */
static void test_reclaim_in_a_fork_handler(void **state) {
    (void)state;
    start();
    make_heap();
    heap_fork_prepare();
    fake.budget_bytes = fake.charged_bytes;
    while (heap_malloc(30000) != NULL) continue; /* asks for the spans of all heaps at last */
    fake.budget_bytes = SIZE_MAX;
    heap_fork_parent();
    nothing_is_lost();
}

/* --- jumps ----------------------------------------------------------------------------------------------------------- */

/* The next operation finds that the thread has jumped out of a slow one. */
static void finds_out(void) {
    heap_enter();
    heap_record.slow = true;
    atomic_store(&heap_record.busy, (uintptr_t)16);
    void *block = heap_malloc(40);
    assert_true(heap_record.self != heap);
    assert_int_equal(heap->state, HEAP_LOST);
    heap_free(block);
}

static void jump_during(enum fake_call call, void *at, size_t bytes) {
    (void)at;
    (void)bytes;
    if (call != FAKE_BARRIER) return;
    fake.on_call = NULL;
    actor_run(&sleeper, finds_out);
}

static void test_heap_is_lost_while_it_is_vacated(void **state) {
    (void)state;
    start();
    fake.on_call = jump_during;
    sweep();
    assert_null(fake.on_call);
    assert_int_equal(heap->state, HEAP_LOST);
    live_is_intact();
    validate();
}

/* Nobody touches a heap that was left half-changed: neither the next claimer nor its owner. */
static void jump_out_of_a_sweep(void) {
    assert_true(heap_try_enter());
    os_lock_take(&claim_lock);
    claim_mark(fake.now_ns);
    os_lock_take(&heap->lock);
    atomic_store(&heap_record.busy, (uintptr_t)16);
    heap_free(heap_malloc(40));
    assert_int_equal(heap->state, HEAP_LOST);
    assert_int_equal(fake_locks_held(), 0);
}

static void comes_back(void) {
    char *block = heap_malloc(40);
    assert_true(span_of(block)->heap != heap);
    heap_free(block);
}

static void test_claimer_jumps(void **state) {
    (void)state;
    start();
    make_heap();
    struct span *first = heap->listed[class_of_size(BLOCK_BYTES)].first;
    jump_out_of_a_sweep();
    sweep();
    assert_ptr_equal(heap->listed[class_of_size(BLOCK_BYTES)].first, first);
    assert_int_equal(first->punched, 0);
    actor_run(&sleeper, comes_back);
    live_is_intact();
}

/* ... and what it had in hand goes back. */
static jmp_buf out;
static void jump_out(enum fake_call call, void *at, size_t bytes) {
    (void)at;
    (void)bytes;
    if (call != FAKE_PURGE) return;
    fake.on_call = NULL;
    longjmp(out, 1);
}

static void test_claimer_jumps_with_spans_in_hand(void **state) {
    (void)state;
    start();
    make_heap();
    struct heap *own = heap_record.self;
    fake.on_call = jump_out;
    if (setjmp(out) == 0) {
        assert_true(heap_try_enter());
        sweep();
        fail_msg("the sweep has come to its end");
    }
    assert_true(heap_is_busy() && os_lock_is_mine(&claim_lock));
    assert_true((span_of(live[0])->flags & SPAN_IN_HAND) != 0);
    make_heap(); /* finds out */
    assert_true(heap_record.self != own);
    assert_int_equal(fake_locks_held(), 0);
    assert_int_equal(heap->state, HEAP_BOUND);
    actor_run(&sleeper, make_heap);
    for (size_t i = 0; i < SPANS; i++) assert_int_equal(span_of(live[i])->flags & SPAN_IN_HAND, 0);
    nothing_is_lost();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fork_of_a_marked_thread),
        cmocka_unit_test(test_fork_beside_marked_heaps),
        cmocka_unit_test(test_fork_while_heaps_are_vacated),
        cmocka_unit_test(test_fork_while_spans_are_in_hand),
        cmocka_unit_test(test_fork_of_the_owner_of_spans_in_hand),
        cmocka_unit_test(test_fork_by_a_handler_that_interrupts_a_claimer),
        cmocka_unit_test(test_fork_by_a_handler_that_interrupts_a_burial),
        cmocka_unit_test(test_reclaim_in_a_fork_handler),
        cmocka_unit_test(test_heap_is_lost_while_it_is_vacated),
        cmocka_unit_test(test_claimer_jumps),
        cmocka_unit_test(test_claimer_jumps_with_spans_in_hand),
    };
    return unit_run(tests, COUNT_OF(tests));
}
