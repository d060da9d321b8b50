/* heap/thread: birth, death and fork, with threads that take turns. */
#include <pthread.h>
#include <semaphore.h>

#include "heap/block.h"
#include "heap/emergency.h"
#include "heap/own.h"
#include "heap/remote.h"
#include "heap/thread.h"
#include "heap/validate.h"
#include "heap/whole.h"
#include "os/options.h"
#include "span/meta.h"
#include "span/run.h"
#include "unit.h"

static void start(void) { options.reserve_bytes = GIB; }

static void validate(void) {
    assert_valid(run_validate());
    for (struct heap *heap = heap_all; heap != NULL; heap = heap->next_heap) assert_valid(heap_validate(heap));
    assert_valid(heap_validate(&heap_shared));
    assert_int_equal(fake_locks_held(), 0);
    assert_false(heap_is_busy());
}

static size_t heaps_in_state(int state) {
    size_t count = 0;
    for (struct heap *heap = heap_all; heap != NULL; heap = heap->next_heap) count += heap->state == state;
    return count;
}

static void *thread_of(void *function) {
    fake_thread_is(2);
    (*(void (**)(void))function)();
    return NULL;
}

/* Another thread from birth to death. */
static void in_thread(void (*function)(void)) {
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, thread_of, &function), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static struct span *span_of(void *block) {
    struct span *span = region_span(region_of(block), block);
    return span->kind == SPAN_INNER ? mid_head(span) : span;
}

/* --- birth and death ------------------------------------------------------------------------------------------------- */

static struct heap *heap_of_thread;
static void *left[4];

static void take_and_leave(void) {
    left[0] = heap_malloc(100);
    left[1] = heap_malloc(5000);
    left[2] = heap_malloc(100000);
    left[3] = heap_malloc(100);
    heap_of_thread = heap_record.self;
    heap_free(left[3]);
}

static void allocate_and_free(void) { heap_free(heap_malloc(100)); }

/* Who may refuse to start is asked once, and before the system is. */
static void test_first_allocation(void **state) {
    (void)state;
    start();
    allocate_and_free();
    allocate_and_free();
    in_thread(allocate_and_free);
    assert_int_equal(fake.starts, 1);
    assert_int_equal(fake.calls_at_start, 0);
}

static void test_life(void **state) {
    (void)state;
    start();
    void *mine = heap_malloc(10);
    assert_ptr_equal(heap_record.self, heap_all);
    assert_int_equal(heaps_in_state(HEAP_BOUND), 1);
    in_thread(take_and_leave);
    assert_true(heap_of_thread != heap_record.self);
    assert_int_equal(heap_of_thread->state, HEAP_ORPHAN);
    assert_null(heap_of_thread->record);
    for (unsigned class = 0; class < CLASSES; class ++) assert_ptr_equal(heap_of_thread->current[class], &span_none);
    validate();
    for (size_t i = 0; i < 3; i++) {
        struct span *span = span_of(left[i]);
        unit_fill(left[i], 100, i);
        heap_free(left[i]); /* the last block of the span: whoever frees it finishes the work */
        assert_int_equal(span->kind, SPAN_FREE);
        validate();
    }
    struct heap *before = heap_of_thread;
    in_thread(take_and_leave);
    assert_ptr_equal(heap_of_thread, before); /* heaps are used again */
    assert_int_equal(heaps_in_state(HEAP_ORPHAN), 1);
    heap_free(mine);
    for (size_t i = 0; i < 3; i++) heap_free(left[i]);
    validate();
}

static void free_left_to_main(void) {
    heap_free(left[0]);
    heap_free(left[1]);
}

/* What another thread frees waits for the owner. */
static void test_free_from_another_thread(void **state) {
    (void)state;
    start();
    left[0] = heap_malloc(300);
    left[1] = heap_malloc(3000);
    struct span *tiny = span_of(left[0]), *mid = span_of(left[1]);
    in_thread(free_left_to_main);
    assert_int_equal(remote_count(tiny->remote), 1);
    assert_int_equal(remote_count(mid->remote), 1);
    uint64_t collected = heap_record.self->remote_count;
    assert_true(heap_try_enter());
    heap_drain(heap_record.self);
    heap_leave();
    assert_int_equal(heap_record.self->remote_count - collected, 2);
    assert_int_equal(tiny->remote, 0);
    validate();
}

/* After a thread's last destructor its operations use the shared heap, and never bind again. */
static void after_the_end(void) {
    heap_free(heap_malloc(10));
    struct heap *heap = heap_record.self;
    heap_record.self = NULL; /* what heap_thread_end does */
    atomic_store(&heap_record.heap, &heap_vacant);
    heap_record.ended = true;
    heap->record = NULL;
    atomic_store(&heap->state, HEAP_ORPHAN);

    void *block = heap_malloc(100);
    assert_non_null(block);
    assert_ptr_equal(span_of(block)->heap, &heap_shared);
    void *large = heap_malloc(200000);
    unit_fill(block, 100, 1);
    block = heap_realloc(block, 7000);
    assert_true(unit_holds(block, 100, 1));
    assert_ptr_equal(span_of(block)->heap, &heap_shared);
    assert_null(heap_record.self);
    heap_free(block);
    heap_free(large);
    heap_free(left[0]); /* of an orphan: finished here, without holding a lock too many */
    assert_int_equal(fake_locks_held(), 0);
}

static void test_operations_after_the_end(void **state) {
    (void)state;
    start();
    void *mine = heap_malloc(10);
    in_thread(take_and_leave);
    struct span *span = span_of(left[0]);
    in_thread(after_the_end);
    assert_int_equal(span->kind, SPAN_FREE);
    heap_free(mine);
    validate();
}

/* No memory for a heap of its own: the shared one serves until there is. */
static void test_no_memory_for_a_heap(void **state) {
    (void)state;
    start();
    fake_fail(FAKE_MAP, 1, 3, ENOMEM);
    void *blocks[5];
    for (size_t i = 0; i < 5; i++) {
        blocks[i] = heap_malloc(100);
        assert_non_null(blocks[i]);
        assert_int_equal(heap_record.self != NULL, i >= 3);
    }
    assert_ptr_equal(span_of(blocks[2])->heap, &heap_shared);
    assert_ptr_equal(span_of(blocks[3])->heap, heap_record.self);
    for (size_t i = 0; i < 5; i++) heap_free(blocks[i]);
    validate();
}

/* --- fork ------------------------------------------------------------------------------------------------------------ */

static sem_t ready, go;
static bool park_busy;

static void *parked(void *result) {
    fake_thread_is(2);
    char *block = heap_malloc(50);
    char *mid = heap_malloc(6000);
    heap_of_thread = heap_record.self;
    if (park_busy) heap_enter();
    sem_post(&ready);
    while (sem_wait(&go) != 0) continue;
    if (park_busy) heap_leave();
    bool same = true;
    for (int i = 0; i < 100; i++) { /* it gets its heap back */
        char *more = heap_malloc(50);
        same = same && span_of(more)->heap == heap_of_thread && heap_record.self == heap_of_thread;
        heap_free(more);
    }
    heap_free(block);
    heap_free(mid);
    *(bool *)result = same;
    return NULL;
}

static pthread_t park(bool busy, bool *result) {
    park_busy = busy;
    sem_init(&ready, 0, 0);
    sem_init(&go, 0, 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, parked, result), 0);
    while (sem_wait(&ready) != 0) continue;
    return thread;
}

static void unpark(pthread_t thread, const bool *result) {
    sem_post(&go);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(*result);
    validate();
}

static void test_fork_beside_a_quiet_thread(void **state) {
    (void)state;
    start();
    heap_free(heap_malloc(10));
    bool same = false;
    pthread_t thread = park(false, &same);
    uint64_t slept = fake.slept_ns;
    heap_fork_prepare();
    assert_int_equal(fake.slept_ns - slept, 0);
    assert_true(os_lock_is_mine(&run_lock) && os_lock_is_mine(&heap_registry_lock) &&
                os_lock_is_mine(&heap_of_thread->lock));
    assert_ptr_equal(heap_of_thread->record->heap, &heap_vacant);
    heap_free(heap_malloc(77)); /* handlers of the program run now */
    heap_fork_parent();
    assert_int_equal(fake_locks_held(), 0);
    assert_int_equal(heap_of_thread->state, HEAP_BOUND);
    unpark(thread, &same);
}

static void in_the_child(int expected_state) {
    assert_int_equal(heap_of_thread->state, expected_state);
    assert_int_equal(fake_locks_held(), 0);
    void *block = heap_malloc(123);
    assert_ptr_equal(span_of(block)->heap, heap_record.self);
    heap_free(block);
    if (expected_state == HEAP_ORPHAN) validate();
    struct heap *old = heap_of_thread;
    in_thread(take_and_leave); /* a new thread takes over what may be used */
    if (expected_state == HEAP_ORPHAN)
        assert_ptr_equal(heap_of_thread, old);
    else
        assert_true(heap_of_thread != old);
    assert_valid(run_validate());
}

static void fork_with(bool busy, int state_in_child) {
    start();
    heap_free(heap_malloc(10));
    bool same = false;
    pthread_t thread = park(busy, &same);
    int status;
    UNIT_IN_CHILD(status, in_the_child(state_in_child)); /* by the handlers that were registered */
    assert_int_equal(status, 0);
    assert_int_equal(heap_of_thread->state, HEAP_BOUND);
    unpark(thread, &same);
}

static void test_fork_child(void **state) {
    (void)state;
    fork_with(false, HEAP_ORPHAN);
}
static void test_fork_child_of_a_busy_thread(void **state) {
    (void)state;
    fork_with(true, HEAP_LOST);
    assert_true(fake.slept_ns >= 100000000); /* so long it may take to leave an operation */
}
static void test_fork_without_barrier(void **state) {
    (void)state;
    fake_fail(FAKE_BARRIER, 1, SIZE_MAX, EPERM);
    fork_with(false, HEAP_LOST); /* nobody knows whether the thread is in its heap */
}

/* --- jumps out of operations -------------------------------------------------------------------------------------------- */

/* The slow path was left for good while it held locks. */
static void test_abandon(void **state) {
    (void)state;
    start();
    void *old = heap_malloc(10);
    struct heap *heap = heap_record.self;
    heap_enter();
    heap_record.slow = true;
    os_lock_take(&heap->lock);
    os_lock_take(&run_lock);
    /* Whoever finds busy set and runs above the operation's frame is not inside it. */
    atomic_store(&heap_record.busy, (uintptr_t)16);
    char *block = heap_malloc(40);
    assert_non_null(block);
    assert_int_equal(heap->state, HEAP_LOST);
    assert_true(heap_record.self != heap && heap_record.self != NULL);
    assert_int_equal(fake_locks_held(), 0);
    assert_valid(run_validate());
    unit_fill(old, 10, 1);
    heap_free(old); /* into a heap that is lost */
    heap_free(block);
    assert_valid(heap_validate(heap_record.self));
    assert_int_equal(heap_nested_count(), 0);
}

/* The same inside the heap of threads that have ended: its spans are not on its new lists, and must not come back to them. */
static void test_abandon_shared(void **state) {
    (void)state;
    start();
    heap_free(heap_malloc(10));
    struct heap *own = heap_record.self;
    heap_record.self = NULL; /* as after its last destructor */
    heap_record.ended = true;
    heap_record.heap = &heap_vacant;
    static void *old[3 * SLICE_BYTES / 1024], *fresh[3 * SLICE_BYTES / 1024];
    for (size_t i = 0; i < COUNT_OF(old); i++) old[i] = heap_malloc(1024);
    heap_record.heap = own; /* another thread's work from here on, for a while */
    heap_record.self = own;
    heap_record.ended = false;
    for (size_t i = 0; i < 2; i++) heap_free(old[i * SLICE_BYTES / 1024]); /* two full spans get room: listed */
    assert_ptr_equal(heap_shared.listed[class_of_size(1024)].last, span_of(old[SLICE_BYTES / 1024]));

    heap_enter();
    heap_record.slow = true;
    os_lock_take(&heap_shared.lock);
    atomic_store(&heap_record.busy, (uintptr_t)16);
    heap_free(heap_malloc(40));
    assert_int_equal(fake_locks_held(), 0);
    assert_valid(heap_validate(&heap_shared));

    for (size_t i = 0; i < COUNT_OF(old); i++) { /* the old spans empty */
        if (i % (SLICE_BYTES / 1024) == 0 && i / (SLICE_BYTES / 1024) != 2) continue;
        heap_free(old[i]);
        assert_valid(heap_validate(&heap_shared));
    }
    struct thread_record mine = heap_record;
    heap_record.self = NULL;
    heap_record.ended = true;
    heap_record.heap = &heap_vacant;
    for (size_t i = 0; i < COUNT_OF(fresh); i++) fresh[i] = heap_malloc(1024);
    heap_record = mine;
    for (size_t i = 0; i < COUNT_OF(fresh); i += 5) heap_free(fresh[i]);
    assert_valid(heap_validate(&heap_shared));
    assert_valid(run_validate());
}

/* A handler in the middle of an operation that holds the last lock of all: no other may be waited for. */
static void test_nested_holding_meta(void **state) {
    (void)state;
    start();
    heap_free(heap_malloc(10));
    fake.on_signal_stack = true;
    heap_enter();
    os_lock_take(meta_lock());
    size_t count = 0;
    while (heap_malloc(40) != NULL) count++;
    assert_true(count >= 1024); /* the emergency blocks */
    os_lock_drop(meta_lock());
    void *block = heap_malloc(40);
    assert_ptr_equal(span_of(block)->heap, &heap_shared);
    heap_leave();
    fake.on_signal_stack = false;
}

static void test_nested(void **state) {
    (void)state;
    start();
    void *tiny = heap_malloc(40), *mid = heap_malloc(4000), *large = heap_malloc(400000);
    struct span *span = span_of(large);
    fake.on_signal_stack = true;
    heap_enter();
    void *a = heap_malloc(40), *b = heap_malloc(4000), *c = heap_malloc_aligned(4096, 100), *d = heap_calloc(100000);
    assert_true(a != NULL && b != NULL && c != NULL && d != NULL);
    assert_int_equal(span_of(a)->kind, SPAN_EMERGENCY);
    assert_int_equal((uintptr_t)c % 4096, 0);
    assert_true(unit_is_zero(d, 100000));
    a = heap_realloc(a, 3000);
    assert_non_null(a);
    heap_free(tiny);
    heap_free(mid);
    heap_free(large);
    heap_free(NULL);
    heap_free(b);
    heap_free(c);
    assert_true(heap_is_busy());
    assert_int_equal(fake_locks_held(), 0);
    assert_int_equal(span->kind, SPAN_LARGE); /* it waits */
    heap_leave();
    fake.on_signal_stack = false;
    heap_free(heap_malloc(100000)); /* and goes with the next ordinary slow operation */
    assert_int_equal(span->kind, SPAN_FREE);
    heap_free(a);
    heap_free(d);
    assert_true(heap_try_enter());
    heap_flush(heap_record.self, TIER_BOTH);
    heap_leave();
    validate();
    for (size_t class = 0; class < CLASSES; class ++) assert_null(heap_record.self->listed[class].first);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_allocation),
        cmocka_unit_test(test_life),
        cmocka_unit_test(test_free_from_another_thread),
        cmocka_unit_test(test_operations_after_the_end),
        cmocka_unit_test(test_no_memory_for_a_heap),
        cmocka_unit_test(test_fork_beside_a_quiet_thread),
        cmocka_unit_test(test_fork_child),
        cmocka_unit_test(test_fork_child_of_a_busy_thread),
        cmocka_unit_test(test_fork_without_barrier),
        cmocka_unit_test(test_abandon),
        cmocka_unit_test(test_abandon_shared),
        cmocka_unit_test(test_nested_holding_meta),
        cmocka_unit_test(test_nested),
    };
    return unit_run(tests, COUNT_OF(tests));
}
