/* heap/bell: every slow operation rings, once, and no other does. And the hook that says that the program has grown. */
#include "heap/bell.h"

#include "actors.h"
#include "heap/own.h"
#include "heap/thread.h"
#include "heap/whole.h"
#include "os/options.h"
#include "span/run.h"

static struct actor other;
static void *blocks[8];

static void start(void) {
    options.reserve_bytes = GIB;
    options.mode = MODE_STATIC;
    blocks[0] = heap_malloc(100);
    blocks[1] = heap_malloc(5000);
    blocks[2] = heap_malloc(100000);
    heap_free(heap_malloc(300));
    heap_free(heap_malloc(5000));
    actor_start(&other, 2);
}

/* What one operation does to a bell that was asked, or asleep. */
static void expect(void (*operation)(void), bool rings) {
    for (enum bell before = BELL_ASKED; before <= BELL_ASLEEP; before++) {
        int status;
        UNIT_IN_CHILD(status, {
            size_t wakes = fake.wakes;
            fake.abort_expected = NULL;
            atomic_store(&heap_bell, before);
            operation();
            assert_int_equal(heap_bell, rings ? BELL_QUIET : before);
            assert_int_equal(fake.wakes - wakes, rings && before == BELL_ASLEEP);
            operation();
            assert_int_equal(fake.wakes - wakes, rings && before == BELL_ASLEEP); /* once */
            assert_int_equal(fake_locks_held(), 0);
        });
        assert_int_equal(status, 0);
    }
}

static void hot_tiny(void) { heap_free(heap_malloc(300)); }
static void hot_mid(void) { heap_free(heap_malloc(5000)); }
static void hot_realloc(void) { blocks[0] = heap_realloc(blocks[0], 101); }
static void new_class(void) {
    static size_t size = 500;
    heap_free(heap_malloc(size += 40));
}
static void large(void) { heap_free(heap_malloc(100000)); }
static void large_free(void) {
    heap_free(blocks[2]);
    blocks[2] = NULL;
}
static void large_realloc(void) {
    static size_t size = 100000;
    blocks[2] = heap_realloc(blocks[2], size += 100000);
}
static void enters(void) {
    assert_true(heap_try_enter());
    heap_quit();
}
static void vacant(void) {
    atomic_store(&heap_record.heap, &heap_vacant);
    hot_tiny();
}
static void vacant_free(void) {
    atomic_store(&heap_record.heap, &heap_vacant);
    void *block = heap_malloc(64);
    atomic_store(&heap_record.heap, &heap_vacant);
    heap_free(block);
}
static void nested_malloc(void) {
    fake.on_signal_stack = true;
    heap_enter();
    blocks[3] = heap_malloc(10);
    heap_leave();
    fake.on_signal_stack = false;
}
static void nested_free(void) {
    fake.on_signal_stack = true;
    heap_enter();
    heap_free(blocks[1]);
    blocks[1] = NULL;
    heap_leave();
    fake.on_signal_stack = false;
}
static void of_another(void) {
    for (int i = 0; i < 2; i++)
        if (blocks[i] != NULL) heap_free(blocks[i]);
    blocks[0] = blocks[1] = NULL;
}
static void in_other(void) { /* in a child there is no other thread yet: a new one is bound */
    struct actor young;
    actor_start(&young, 3);
    actor_run(&young, of_another);
    actor_end(&young);
}

static void test_quiet(void **state) {
    (void)state;
    start();
    expect(hot_tiny, false);
    expect(hot_mid, false);
    expect(hot_realloc, false);
    assert_int_equal(heap_bell, BELL_QUIET);
    new_class(); /* nobody asks */
    assert_int_equal(heap_bell, BELL_QUIET);
    assert_int_equal(fake.wakes, 0);
}

static void test_rings(void **state) {
    (void)state;
    start();
    expect(new_class, true);
    expect(large, true);
    expect(large_free, true);
    expect(large_realloc, true);
    expect(enters, true);
    expect(vacant, true);
    expect(vacant_free, true);
    expect(nested_malloc, true);
    expect(nested_free, true);
    expect(in_other, true);
}

static void grow(void (*take)(void)) {
    size_t growths = fake.growths;
    run_set_growth_mark(run_flow(false).clean_taken_bytes + 1);
    take();
    assert_true(fake.growths > growths);
    growths = fake.growths;
    run_set_growth_mark(UINT64_MAX);
    take();
    assert_int_equal(fake.growths, growths);
}

static void takes_tiny(void) {
    for (int i = 0; i < 400; i++) heap_malloc(1024);
}
static void takes_mid(void) {
    for (int i = 0; i < 100; i++) heap_malloc(20000);
}
static void takes_large(void) { heap_malloc(1000000); }

static void in_no_operation(void) {
    assert_false(heap_is_busy());
    assert_int_equal(fake_locks_held(), 0);
    run_set_growth_mark(UINT64_MAX);
    heap_free(heap_malloc(100000)); /* whoever starts a thread allocates */
}

static void test_growth(void **state) {
    (void)state;
    start();
    assert_int_equal(fake.growths, 0);
    fake.on_growth = in_no_operation;
    grow(takes_tiny);
    grow(takes_mid);
    grow(takes_large);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quiet),
        cmocka_unit_test(test_rings),
        cmocka_unit_test(test_growth),
    };
    return unit_run(tests, COUNT_OF(tests));
}
