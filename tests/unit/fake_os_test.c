/* What the other unit tests rely on: the fake system catches misuse, fails on demand, and forgets what was purged. */
#include <sys/wait.h>

#include "unit.h"

#define assert_caught(statement) \
    do { \
        int status_; \
        UNIT_IN_CHILD(status_, statement); \
        assert_int_not_equal(status_, 0); \
    } while (0)

static void test_states(void **state) {
    (void)state;
    os_init();
    char *at = os_reserve(MIB, 64 * KIB);
    assert_non_null(at);
    assert_true(fake_is_reserved(at, MIB));
    assert_int_equal(fake_mappings(), 1);
    assert_int_equal(os_commit(at, 64 * KIB), 0);
    assert_int_equal(os_commit(at + 64 * KIB, 64 * KIB), 0);
    assert_int_equal(fake_mappings(), 2); /* adjacent steps merge */
    assert_true(fake_is_committed(at, 128 * KIB));
    assert_false(fake_is_committed(at, 128 * KIB + 1));
    assert_int_equal(fake_resident_bytes(at, 128 * KIB), 0);
    memset(at + 5000, 1, 5000);
    assert_int_equal(fake_resident_bytes(at, 128 * KIB), 8 * KIB);
    assert_int_equal(os_purge(at + 4096, 4096), 0);
    assert_int_equal(fake_resident_bytes(at, 128 * KIB), 4 * KIB);
    assert_true(unit_is_zero(at + 4096, 4096));
    assert_int_equal(at[8192], 1);
    os_release(at, MIB);
    assert_int_equal(fake_mappings(), 0);
    assert_int_equal(fake.count[FAKE_ANY], 4);
    assert_int_equal(fake.count[FAKE_COMMIT], 2);
}

static void test_misuse_is_caught(void **state) {
    (void)state;
    os_init();
    char *at = os_reserve(MIB, 64 * KIB);
    assert_int_equal(os_commit(at, 64 * KIB), 0);
    assert_caught(*(volatile char *)(at + 64 * KIB) = 1);
    assert_caught(os_commit(at, 64 * KIB));
    assert_caught(os_purge(at + 100, 4096));
    assert_caught(os_purge(at + 64 * KIB, 4096));
    assert_caught(os_renew(at + 32 * KIB, 64 * KIB, ""));
    assert_caught(os_release(at + MIB, 4096));
    assert_caught({
        os_release(at, 64 * KIB);
        *(volatile char *)at = 1;
    });
    struct os_lock lock = {0};
    assert_caught(os_lock_drop(&lock));
    os_lock_take(&lock);
    os_lock_take(&lock);
    assert_int_equal(fake_locks_held(), 1);
    assert_caught({
        fake_thread_is(2);
        os_lock_take(&lock);
    });
    assert_caught({
        fake_thread_is(2);
        os_lock_drop(&lock);
    });
    os_lock_drop(&lock);
    assert_true(os_lock_is_mine(&lock));
    os_lock_drop(&lock);
    assert_int_equal(fake_locks_held(), 0);
    assert_caught(os_abort());
    assert_fatal("bye\n", {
        os_print_error("bye\n", 4);
        os_abort();
    });
}

static void test_failures_on_demand(void **state) {
    (void)state;
    os_init();
    char *at = os_reserve(MIB, 64 * KIB);
    assert_int_equal(os_commit(at, 256 * KIB), 0);
    memset(at, 1, 256 * KIB);
    fake_fail(FAKE_PURGE, 2, 2, EIO);
    assert_int_equal(os_purge(at, 8 * KIB), 0);
    assert_int_equal(os_purge(at + 8 * KIB, 8 * KIB), -EIO);
    assert_true(unit_is_zero(at + 8 * KIB, 4 * KIB)); /* half of it is done */
    assert_int_equal(at[12 * KIB], 1);
    assert_int_equal(os_purge(at + 8 * KIB, 8 * KIB), -EIO);
    assert_int_equal(os_purge(at + 8 * KIB, 8 * KIB), 0);
    fake_fail(FAKE_ANY, 1, SIZE_MAX, ENOMEM);
    assert_null(os_map(4096));
    assert_null(os_reserve(MIB, 64 * KIB));
    assert_int_equal(os_commit(at + 256 * KIB, 4096), -ENOMEM);
    fake_heal();
    assert_int_equal(fake.failed, 5);
    fake.budget_bytes = fake.charged_bytes + 4096;
    assert_int_equal(os_commit(at + 256 * KIB, 8192), -ENOMEM);
    assert_int_equal(os_commit(at + 256 * KIB, 4096), 0);
    fake_lock_pages(at + 100 * KIB, 4096, true);
    assert_int_equal(os_purge(at + 64 * KIB, 64 * KIB), -EINVAL);
    assert_true(unit_is_zero(at + 64 * KIB, 36 * KIB));
    assert_int_equal(at[100 * KIB], 1);
    assert_int_equal(at[104 * KIB], 1);
    assert_non_null(os_map(4096) == NULL ? at : NULL); /* over budget */
}

static void test_move(void **state) {
    (void)state;
    os_init();
    char *at = os_reserve(MIB, 64 * KIB);
    assert_int_equal(os_commit(at, MIB), 0);
    memset(at, 1, 128 * KIB);
    assert_int_equal(os_move(at, at + 512 * KIB, 256 * KIB, ""), 0);
    assert_true(unit_is_zero(at, 128 * KIB));
    assert_int_equal(at[512 * KIB], 1);
    assert_int_equal(fake_resident_bytes(at + 512 * KIB, 256 * KIB), 128 * KIB); /* what was not there did not come */
    assert_int_equal(fake_mappings(), 3);
    assert_int_equal(os_move(at + 448 * KIB, at, 128 * KIB, ""), -EFAULT); /* two mappings */
    assert_int_equal(os_renew(at + 512 * KIB, 256 * KIB, ""), 0);
    assert_int_equal(fake_mappings(), 1);
    assert_true(unit_is_zero(at + 512 * KIB, 256 * KIB));
}

static void test_clock_and_pages(void **state) {
    (void)state;
    fake.page_bytes = 16 * KIB;
    os_init();
    assert_int_equal(os_page_bytes, 16 * KIB);
    char *at = os_reserve(MIB, 64 * KIB);
    assert_int_equal(os_commit(at, 64 * KIB), 0);
    at[20 * KIB] = 1;
    assert_int_equal(fake_resident_bytes(at, 64 * KIB), 16 * KIB);
    assert_caught(os_purge(at, 4 * KIB));
    uint64_t before = os_now_ns();
    assert_true(os_now_ns() == before);
    os_sleep_ns(700);
    assert_true(os_now_ns() == before + 700);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_misuse_is_caught),
        cmocka_unit_test(test_failures_on_demand),
        cmocka_unit_test(test_move),
        cmocka_unit_test(test_clock_and_pages),
    };
    return unit_run(tests, COUNT_OF(tests));
}
