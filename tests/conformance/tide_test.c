/* tide_test.c - the functions of tidemalloc.h: flushes, statistics, options. All of them are skipped on another malloc. */
#define _GNU_SOURCE 1
#include "unit.h"

enum { KIB = 1024, MIB = 1024 * 1024, COUNT = 4000 };

static unsigned char *blocks[COUNT];

static void allocate_all(size_t count, size_t size) {
    for (size_t i = 0; i < count; i++) {
        blocks[i] = malloc(size);
        assert_non_null(blocks[i]);
        memset(blocks[i], 0x11, size);
    }
}
static void free_all(size_t count) {
    for (size_t i = 0; i < count; i++) free(blocks[i]);
}

static void stats_are_filled(void **state) {
    (void)state;
    ONLY_ON_TIDE();
    tide_stats stats;
    memset(&stats, 0xcc, sizeof stats);
    assert_errno_untouched(assert_int_equal(subject.stats_get(&stats, sizeof stats), 0));
    assert_int_equal(stats.version, TIDE_STATS_VERSION);
    assert_int_equal(stats.size, sizeof stats);
    assert_int_equal(stats.allocated_bytes, stats.tiny_bytes + stats.mid_bytes + stats.large_bytes);
    assert_true(stats.allocated_bytes <= stats.active_bytes);
    assert_true(stats.active_bytes <= stats.committed_bytes);
    assert_true(stats.committed_bytes <= stats.reserved_bytes);
    assert_true(stats.metadata_bytes > 0);
    assert_true(stats.heap_count >= 1);
    assert_true(stats.thread_count >= 1 && stats.thread_count <= process_task_count());
    assert_true(stats.thread_count <= stats.heap_count);
}

/* A caller compiled against an older, shorter or a newer, longer struct. */
static void stats_respect_the_size(void **state) {
    (void)state;
    ONLY_ON_TIDE();
    assert_errno_untouched(assert_int_equal(subject.stats_get(NULL, sizeof(tide_stats)), EINVAL));
    struct {
        tide_stats stats;
        unsigned char after[256];
    } room;
    assert_int_equal(subject.stats_get(&room.stats, 0), EINVAL);
    assert_int_equal(subject.stats_get(&room.stats, 7), EINVAL);
    for (size_t size = 8; size <= sizeof(tide_stats); size += 8) {
        memset(&room, 0xcc, sizeof room);
        assert_int_equal(subject.stats_get(&room.stats, size), 0);
        assert_int_equal(room.stats.version, TIDE_STATS_VERSION);
        assert_int_equal(room.stats.size, size);
        const unsigned char *rest = (const unsigned char *)&room + size;
        assert_int_equal(first_other(rest, sizeof room - size, 0xcc), sizeof room - size);
    }
    memset(&room, 0xcc, sizeof room);
    assert_int_equal(subject.stats_get(&room.stats, sizeof room), 0);
    assert_true(room.stats.size >= sizeof(tide_stats) && room.stats.size <= sizeof room);
    assert_int_equal(first_other((unsigned char *)&room + room.stats.size, sizeof room - room.stats.size, 0xcc),
                     sizeof room - room.stats.size);
}

static uint64_t tier_bytes(const tide_stats *stats, size_t tier) {
    return tier == 0 ? stats->tiny_bytes : tier == 1 ? stats->mid_bytes : stats->large_bytes;
}

/* Live bytes are exact while this is the only thread at work. */
static void stats_count_every_block(void **state) {
    (void)state;
    ONLY_ON_TIDE();
    const struct {
        size_t size, count, tier;
    } cases[] = {
        {0, 10, 0},     {1, 100, 0},        {24, 1000, 0},     {1024, 500, 0},     {1100, 300, 1},
        {9000, 200, 1}, {32 * KIB, 100, 1}, {33 * KIB, 50, 2}, {200 * KIB, 20, 2}, {5 * MIB, 3, 2},
    };
    /* A keeper that starts has a block or two of its own. */
    char *much = malloc(8 * MIB), *more;
    memset(much, 1, 8 * MIB);
    more = malloc(8 * MIB);
    for (int naps = 0; subject_stats().keeper_running == 0; naps++) {
        assert_true(naps < 10000);
        clock_sleep_us(1000);
    }
    free(more);
    free(much);
    assert_int_equal(subject.set("mode", "static"), 0);
    bool secure = subject_is_secure();
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        size_t size = cases[c].size - (secure && cases[c].size >= 8 ? 8 : 0);
        if (secure) subject.release_all(NULL);
        tide_stats before = subject_stats();
        uint64_t usable = 0;
        for (size_t i = 0; i < cases[c].count; i++) {
            blocks[i] = malloc(size);
            assert_non_null(blocks[i]);
            usable += malloc_usable_size(blocks[i]);
        }
        tide_stats during = subject_stats();
        free_all(cases[c].count);
        if (secure) subject.release_all(NULL);
        tide_stats after = subject_stats();
        uint64_t allocated = during.allocated_bytes - before.allocated_bytes;
        if (secure)
            assert_true(allocated >= usable + 8 * cases[c].count);
        else
            assert_int_equal(allocated, usable);
        assert_int_equal(after.allocated_bytes, before.allocated_bytes);
        for (size_t tier = 0; tier < 3; tier++) {
            uint64_t grown = tier_bytes(&during, tier) - tier_bytes(&before, tier);
            assert_int_equal(grown, tier == cases[c].tier ? allocated : 0);
        }
    }
    assert_int_equal(subject.set("mode", "hybrid"), 0);
}

/* Flush, and check what every report promises; returns the bytes given back. */
static size_t check_flush(size_t (*flush)(tide_flush_report *)) {
    tide_flush_report report;
    memset(&report, 0xcc, sizeof report);
    uint64_t before = subject_stats().returned_bytes;
    size_t result = 0;
    assert_errno_untouched(result = flush(&report));
    uint64_t returned = subject_stats().returned_bytes - before;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    assert_int_equal(result, report.returned_bytes);
    assert_int_equal(report.returned_bytes % page, 0);
    assert_int_equal(report.kept_bytes % page, 0);
    assert_int_equal(report.pinned_bytes % page, 0);
    assert_int_equal(report.missed_bytes % page, 0);
    assert_int_equal(report.kept_bytes, 0);
    assert_true(returned >= report.returned_bytes);
    /* A second one finds (nearly) nothing left. */
    assert_true(flush(NULL) <= 256 * KIB);
    return result;
}

/* A build without the keeper gives nothing back on its own and has no modes. */
static bool mode_exists(void) {
    char value[64];
    return subject.get("mode", value, sizeof value) != ENOENT;
}

/* What a tier's own cache holds, and the large pool, which has the spans that are wholly empty: together all there was. */
static void flushes_give_back_their_tier(void **state) {
    (void)state;
    ONLY_ON_TIDE();
    const struct {
        size_t (*first)(tide_flush_report *), (*second)(tide_flush_report *);
        size_t size, count;
    } cases[] = {
        {subject.flush_tiny, subject.flush_large, 500, COUNT},
        {subject.flush_mid, subject.flush_large, 8000, COUNT},
        {subject.flush_large, NULL, 100 * KIB, 200},
        {subject.flush_pools, NULL, 20000, 1000},
        {subject.flush_pools, NULL, 1 * MIB, 20},
        {subject.release_all, NULL, 100, COUNT},
        {subject.release_all, NULL, 5000, COUNT},
        {subject.release_all, NULL, 3 * MIB, 10},
    };
    /* static: nothing goes back by itself between the last free and the flush. */
    char mode[64];
    if (mode_exists()) {
        assert_int_equal(subject.get("mode", mode, sizeof mode), 0);
        assert_int_equal(subject.set("mode", "static"), 0);
    }
    bool secure = subject_is_secure();
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        if (secure && cases[c].size > 32 * KIB) continue; /* went back as they were freed */
        subject.release_all(NULL);
        allocate_all(cases[c].count, cases[c].size);
        free_all(cases[c].count);
        size_t returned = check_flush(cases[c].first);
        if (cases[c].second != NULL) returned += check_flush(cases[c].second);
        size_t freed = cases[c].count * cases[c].size, slack = freed / 8 + 128 * KIB;
        if (returned + slack < freed) fail_msg("case %zu: %zu bytes freed, %zu returned", c, freed, returned);
    }
    if (mode_exists()) assert_int_equal(subject.set("mode", mode), 0);
}

static void flush_reports_what_survivors_pin(void **state) {
    (void)state;
    ONLY_ON_TIDE();
    allocate_all(COUNT, 256);
    for (size_t i = 0; i < COUNT; i++) {
        if (i % 8 == 0) continue; /* every page keeps two blocks */
        free(blocks[i]);
        blocks[i] = NULL;
    }
    tide_flush_report report;
    subject.flush_tiny(&report);
    assert_true(report.pinned_bytes >= COUNT / 2 * 256);
    for (size_t i = 0; i < COUNT; i += 8) {
        assert_int_equal(first_other(blocks[i], 256, 0x11), 256);
        free(blocks[i]);
    }
}

static void options_can_be_read(void **state) {
    (void)state;
    ONLY_ON_TIDE();
    char value[64];
    assert_errno_untouched(assert_int_equal(subject.get("print_stats", value, sizeof value), 0));
    assert_string_equal(value, "0");
    assert_int_equal(subject.get("print_stats", value, 2), 0);
    assert_int_equal(subject.get("print_stats", value, 1), EINVAL);
    assert_int_equal(subject.get("print_stats", value, 0), EINVAL);
    assert_int_equal(subject.get("reserve", value, sizeof value), 0);
    assert_true(strlen(value) > 0);
    assert_errno_untouched(assert_int_equal(subject.get("no_such_option", value, sizeof value), ENOENT));
    assert_int_equal(subject.get("", value, sizeof value), ENOENT);
    assert_int_equal(subject.get("TIDE_RESERVE", value, sizeof value), ENOENT);
}

static void options_can_be_set(void **state) {
    (void)state;
    ONLY_ON_TIDE();
    assert_errno_untouched(assert_int_equal(subject.set("print_stats", "0"), 0));
    assert_errno_untouched(assert_int_equal(subject.set("print_stats", "banana"), EINVAL));
    assert_int_equal(subject.set("print_stats", ""), EINVAL);
    assert_errno_untouched(assert_int_equal(subject.set("no_such_option", "1"), ENOENT));
    assert_errno_untouched(assert_int_equal(subject.set("reserve", "1G"), EPERM));
    assert_int_equal(subject.set("secure", "1"), EPERM);
}

static void every_mode_can_be_set(void **state) {
    (void)state;
    ONLY_ON_TIDE();
    char saved[64], value[64];
    if (!mode_exists()) skip();
    assert_int_equal(subject.get("mode", saved, sizeof saved), 0);
    const char *const modes[] = {"static", "flush", "shrink", "adaptive", "hybrid"};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        assert_errno_untouched(assert_int_equal(subject.set("mode", modes[i]), 0));
        assert_int_equal(subject.get("mode", value, sizeof value), 0);
        assert_string_equal(value, modes[i]);
    }
    /* A bad value changes nothing. */
    assert_errno_untouched(assert_int_equal(subject.set("mode", "banana"), EINVAL));
    assert_int_equal(subject.set("mode", ""), EINVAL);
    assert_int_equal(subject.get("mode", value, sizeof value), 0);
    assert_string_equal(value, "hybrid");
    assert_int_equal(subject.set("mode", saved), 0);
}

int main(void) {
    subject_require();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stats_are_filled),
        cmocka_unit_test(stats_respect_the_size),
        cmocka_unit_test(stats_count_every_block),
        cmocka_unit_test(flushes_give_back_their_tier),
        cmocka_unit_test(flush_reports_what_survivors_pin),
        cmocka_unit_test(options_can_be_read),
        cmocka_unit_test(options_can_be_set),
        cmocka_unit_test(every_mode_can_be_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
