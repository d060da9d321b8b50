/* os/wait, os/rank: the real locks, and their order, which debug builds check. */
#include "os/rank.h"

#include <pthread.h>

#include "unit.h"

/* What the layer below would do. */
static char said[512];
static const char *expected;
void os_print_error(const char *text, size_t length) { memcpy(said, text, size_min(length, sizeof said - 1)); }
void os_abort(void) {
    bool right = expected != NULL && strcmp(said, expected) == 0;
    if (!right) fprintf(stderr, "abort with: %s", said);
    _exit(right ? 0 : 1);
}
struct fake fake; /* for assert_fatal */
#undef assert_fatal
#define assert_fatal(text, statement) \
    do { \
        int status_; \
        UNIT_IN_CHILD(status_, { \
            expected = (text); \
            statement; \
            fprintf(stderr, "no abort where one must be: " #statement "\n"); \
            _exit(2); \
        }); \
        assert_int_equal(status_, 0); \
    } while (0)

static struct os_lock claim = OS_LOCK(RANK_CLAIM), registry = OS_LOCK(RANK_REGISTRY),
                      heaps[2] = {OS_LOCK(RANK_HEAP), OS_LOCK(RANK_HEAP)}, run = OS_LOCK(RANK_RUN),
                      meta = OS_LOCK(RANK_META);

static void test_rising(void **state) {
    (void)state;
    for (int round = 0; round < 3; round++) {
        os_lock_take(&claim);
        os_lock_take(&registry);
        os_lock_take(&heaps[0]);
        os_lock_take(&run);
        os_lock_take(&meta);
        os_lock_take(&claim); /* its own already: nobody waits */
        os_lock_drop(&claim);
        os_lock_drop(&meta);
        os_lock_drop(&run);
        os_lock_take(&run);
        os_lock_drop(&run);
        os_lock_drop(&heaps[0]);
        os_lock_drop(&claim);
        os_lock_drop(&registry);
    }
    os_lock_take(&claim); /* after the registry's was dropped */
    os_lock_drop(&claim);
}

static void test_falling(void **state) {
    (void)state;
    assert_fatal("tidemalloc: lock order: claim wanted while run is held\n", os_lock_take(&run); os_lock_take(&claim));
    assert_fatal("tidemalloc: lock order: registry wanted while heap is held\n", os_lock_take(&claim);
                 os_lock_take(&heaps[1]); os_lock_take(&registry));
    assert_fatal("tidemalloc: lock order: run wanted while meta is held\n", os_lock_take(&run); os_lock_drop(&run);
                 os_lock_take(&meta); os_lock_take(&run));
}

static void test_two_heaps(void **state) {
    (void)state;
    assert_fatal("tidemalloc: lock order: heap wanted while heap is held\n", os_lock_take(&heaps[0]);
                 os_lock_take(&heaps[1]));
    os_lock_take(&registry); /* as fork does */
    os_lock_take(&heaps[0]);
    os_lock_take(&heaps[1]);
    os_lock_take(&run);
    os_lock_drop(&run);
    os_lock_drop(&heaps[0]);
    os_lock_drop(&heaps[1]);
    os_lock_drop(&registry);
}

static void test_to_try_is_free(void **state) {
    (void)state;
    os_lock_take(&meta);
    assert_true(os_lock_try(&run));
    assert_true(os_lock_try(&claim));
    assert_fatal("tidemalloc: lock order: registry wanted while run is held\n", os_lock_drop(&meta);
                 os_lock_take(&registry));
    os_lock_drop(&run);
    os_lock_drop(&meta);
    os_lock_take(&registry);
    os_lock_drop(&registry);
    os_lock_drop(&claim);
}

/* A jump drops locks, however deep; so does a fork, for locks of threads that are not there. */
static void test_abandoned(void **state) {
    (void)state;
    os_lock_take(&run);
    os_lock_take(&run);
    os_lock_abandon(&run);
    os_lock_take(&claim);
    os_lock_drop(&claim);
    os_lock_take(&run);
    os_lock_forget(&run);
    os_lock_take(&claim);
    os_lock_drop(&claim);
}

static void *other(void *unused) {
    os_lock_take(&claim); /* this thread holds nothing */
    os_lock_drop(&claim);
    return unused;
}
static void test_other_threads(void **state) {
    (void)state;
    pthread_t thread;
    os_lock_take(&meta);
    assert_int_equal(pthread_create(&thread, NULL, other, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    os_lock_drop(&meta);
}

/* More threads than processors, and locks that are slept for: nobody is lost, and no count. */
#define THREADS 8
#define ROUNDS 20000
static unsigned counted;
static void *count(void *unused) {
    for (int i = 0; i < ROUNDS; i++) {
        os_lock_take(&registry);
        os_lock_take(&run);
        counted++;
        os_lock_drop(&run);
        os_lock_drop(&registry);
    }
    return unused;
}
static void test_exclusion(void **state) {
    (void)state;
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&threads[i], NULL, count, NULL), 0);
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(counted, THREADS * ROUNDS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rising),         cmocka_unit_test(test_falling),   cmocka_unit_test(test_two_heaps),
        cmocka_unit_test(test_to_try_is_free), cmocka_unit_test(test_abandoned), cmocka_unit_test(test_other_threads),
        cmocka_unit_test(test_exclusion),
    };
    return unit_run(tests, COUNT_OF(tests));
}
