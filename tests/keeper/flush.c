/* flush.c - giving memory back by hand reaches every tier and every thread, also those that sleep, and the report tells the truth. In mode static, so
 * that nobody else gives anything back. */
#define _GNU_SOURCE 1
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "burst.h"
#include "check.h"
#include "scene.h"
#include "subject.h"
#include "water.h"

enum { SLEEPERS = 16 };
#define EACH_BYTES WATER_MIB
/* Pages of stacks, tables and code that come and go beside the heap. */
#define TOLERANCE_BYTES WATER_MIB

static crew_t crew;
static enum burst_kind kind;

static void sailor_fill(sailor_t *sailor) { burst_fill(&sailor->burst, kind, EACH_BYTES); }
static void sailor_free(sailor_t *sailor) { burst_free(&sailor->burst); }
static void sailor_verify(sailor_t *sailor) { burst_verify(&sailor->burst); }
static void sailor_thin(sailor_t *sailor) { burst_thin(&sailor->burst, 50); }

static size_t crew_begin(enum burst_kind of) {
    kind = of;
    crew_make(&crew, SLEEPERS);
    for (size_t i = 0; i < SLEEPERS; i++) burst_make(&crew.sailors[i].burst, of, EACH_BYTES, i);
    return water_level();
}

static void expect_near(size_t said, size_t seen, const char *what) {
    size_t apart = said > seen ? said - seen : seen - said;
    if (WATER_IS_CLEAR)
        CHECKF(apart <= TOLERANCE_BYTES + seen / 20, "%s: report %zu KiB, really %zu KiB", what, said / WATER_KIB,
               seen / WATER_KIB);
}

/* Flush, and hold the report against what the kernel says. What was not given back must be accounted for. `live`: pages with live blocks. */
static tide_flush_report flush_and_check(size_t (*flush)(tide_flush_report *), size_t baseline, size_t live,
                                         const char *what) {
    tide_flush_report report = {0};
    size_t before = water_level();
    size_t returned = flush(&report);
    size_t after = water_level();
    CHECK(returned == report.returned_bytes);
    CHECK(report.returned_bytes % 4096 == 0 && report.kept_bytes % 4096 == 0);
    CHECK(report.pinned_bytes % 4096 == 0 && report.missed_bytes % 4096 == 0);
    expect_near(returned, before > after ? before - after : 0, what);
    size_t explained = baseline + live + report.kept_bytes + report.missed_bytes + TOLERANCE_BYTES;
    if (WATER_IS_CLEAR)
        CHECKF(after <= explained + live / 10, "%s: %zu KiB resident, %zu KiB explained", what, after / WATER_KIB,
               explained / WATER_KIB);
    return report;
}

/* Sleepers have freed their own blocks, or others have done it for them. */
static void tier(enum burst_kind of, size_t (*flush)(tide_flush_report *), const char *what) {
    size_t baseline = crew_begin(of);
    for (unsigned round = 0; round < 4; round++) {
        crew_order(&crew, sailor_fill);
        size_t full = water_level();
        if (round % 2 == 0)
            crew_order(&crew, sailor_free);
        else
            for (size_t i = 0; i < SLEEPERS; i++) burst_free(&crew.sailors[i].burst);
        if (round == 0 && WATER_IS_CLEAR) {
            clock_sleep_us(300000);
            CHECK(water_level() > baseline + (full - baseline) / 2); /* nobody gives back unasked */
        }
        tide_flush_report report = flush_and_check(flush, baseline, 0, what);
        if (WATER_IS_CLEAR) CHECK(report.returned_bytes > SLEEPERS * EACH_BYTES / 2);
        CHECKF(report.missed_bytes == 0, "%s: %zu KiB missed in threads that sleep", what,
               report.missed_bytes / WATER_KIB);
        if (WATER_IS_CLEAR) CHECK(water_level() <= baseline + WATER_SLACK_BYTES);
    }
    CHECK(subject_stats().flush_count == 0);
    crew_end(&crew);
}

static size_t trim(tide_flush_report *report) {
    uint64_t before = subject_stats().returned_bytes;
    CHECK(malloc_trim(0) == 1);
    *report = (tide_flush_report){.returned_bytes = (size_t)(subject_stats().returned_bytes - before)};
    return report->returned_bytes;
}

static void tiny_magazine(void) { tier(BURST_TINY, subject.flush_tiny, "tiny"); }
static void mid_pool(void) { tier(BURST_MID, subject.flush_mid, "mid"); }
static void large_pool(void) { tier(BURST_LARGE, subject.flush_large, "large"); }
static void both_pools(void) { tier(BURST_MID, subject.flush_pools, "pools"); }
static void all_caches(void) { tier(BURST_MIXED, subject.release_all, "all"); }
static void by_trim(void) { tier(BURST_MIXED, trim, "malloc_trim"); }

/* With nothing to give back, nothing is said to be given back. */
static void nothing_left(void) {
    size_t baseline = crew_begin(BURST_MIXED);
    crew_order(&crew, sailor_fill);
    crew_order(&crew, sailor_free);
    flush_and_check(subject.release_all, baseline, 0, "once");
    for (unsigned round = 0; round < 3; round++) {
        tide_flush_report report = flush_and_check(subject.release_all, baseline, 0, "again");
        CHECKF(report.returned_bytes <= 64 * WATER_KIB, "%zu KiB once more", report.returned_bytes / WATER_KIB);
        CHECK(report.kept_bytes == 0 && report.missed_bytes == 0);
    }
    crew_end(&crew);
}

/* Live blocks pin what lies beside them: that is reported, too, and the pages in between go back. */
static void survivors(void) {
    size_t baseline = crew_begin(BURST_MIXED);
    crew_order(&crew, sailor_fill);
    crew_order(&crew, sailor_thin);
    size_t live = 0, pages = 0;
    for (size_t i = 0; i < SLEEPERS; i++) {
        live += burst_bytes(&crew.sailors[i].burst);
        pages += burst_page_bytes(&crew.sailors[i].burst);
    }
    tide_flush_report report = flush_and_check(subject.release_all, baseline, pages, "survivors");
    CHECKF(report.pinned_bytes + TOLERANCE_BYTES > pages - live,
           "%zu KiB pinned, %zu KiB of pages for %zu KiB of blocks", report.pinned_bytes / WATER_KIB, pages / WATER_KIB,
           live / WATER_KIB);
    CHECK(report.pinned_bytes > 0);
    crew_order(&crew, sailor_verify);
    crew_order(&crew, sailor_free);
    report = flush_and_check(subject.release_all, baseline, 0, "no survivors");
    CHECKF(report.pinned_bytes <= 256 * WATER_KIB, "%zu KiB pinned by nothing", report.pinned_bytes / WATER_KIB);
    crew_end(&crew);
}

/* The pages between survivors of one tier go, those of the other stay. */
static void survivors_by_tier(void) {
    static burst_t tiny, mid;
    burst_make(&tiny, BURST_TINY, 16 * WATER_MIB, 1);
    burst_make(&mid, BURST_MID, 16 * WATER_MIB, 2);
    burst_fill(&tiny, BURST_TINY, 16 * WATER_MIB);
    burst_fill(&mid, BURST_MID, 16 * WATER_MIB);
    burst_thin(&tiny, 200);
    burst_thin(&mid, 200);
    tide_flush_report report = {0};
    subject.flush_large(NULL); /* what is wholly empty */
    size_t level = water_level();
    subject.flush_tiny(&report);
    size_t tiny_bytes = level - water_level();
    CHECK(report.missed_bytes == 0);
    subject.flush_mid(&report);
    size_t mid_bytes = level - tiny_bytes - water_level();
    if (WATER_IS_CLEAR)
        CHECKF(tiny_bytes > 4 * WATER_MIB && mid_bytes > 4 * WATER_MIB, "%zu KiB of tiny spans, %zu KiB of mid spans",
               tiny_bytes / WATER_KIB, mid_bytes / WATER_KIB);
    burst_verify(&tiny);
    burst_verify(&mid);
    burst_free(&tiny);
    burst_free(&mid);
}

/* --- a thread that is never at rest -------------------------------------------------------------------------------------- */

static atomic_int spin_stop;
static atomic_ullong spins;

static void *spin_main(void *nothing) {
    while (!atomic_load_explicit(&spin_stop, memory_order_relaxed)) {
        for (unsigned i = 0; i < 1000; i++) {
            void *volatile a = malloc(64), *volatile b = malloc(3000), *volatile c = malloc(100000);
            CHECK(a != NULL && b != NULL && c != NULL);
            free(b);
            free(a);
            free(c);
        }
        atomic_fetch_add(&spins, 1);
    }
    return nothing;
}

static void beside_spinning(unsigned spinners) {
    pthread_t threads[4];
    size_t baseline = crew_begin(BURST_MIXED);
    for (unsigned i = 0; i < spinners; i++) CHECK(pthread_create(&threads[i], NULL, spin_main, NULL) == 0);
    for (unsigned round = 0; round < 3; round++) {
        crew_order(&crew, sailor_fill);
        crew_order(&crew, sailor_free);
        tide_flush_report report = {0};
        subject.release_all(&report);
        size_t level = water_level();
        if (WATER_IS_CLEAR)
            CHECKF(level <= baseline + report.kept_bytes + report.missed_bytes + 3 * WATER_MIB,
                   "%zu KiB above the baseline, %zu KiB missed", (level - baseline) / WATER_KIB,
                   report.missed_bytes / WATER_KIB);
        CHECK(report.missed_bytes < 2 * WATER_MIB); /* spinners hold little, sleepers are reached */
    }
    uint64_t before = atomic_load(&spins);
    for (unsigned call = 0; call < 300; call++) subject.release_all(NULL);
    /* It does not stop them for good, either. */
    for (uint64_t until = clock_now_ns() + WATER_PATIENCE_NS; atomic_load(&spins) < before + 2;) {
        CHECK(clock_now_ns() < until);
        clock_sleep_us(1000);
    }
    atomic_store(&spin_stop, 1);
    for (unsigned i = 0; i < spinners; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    crew_end(&crew);
}
static void beside_one_spinning(void) { beside_spinning(1); }
static void beside_four_spinning(void) { beside_spinning(4); }

/* Several threads flush at the same time, beside a keeper that does the same. */
static void sailor_flush(sailor_t *sailor) {
    for (unsigned round = 0; round < 20; round++) {
        tide_flush_report report = {0};
        burst_fill(&sailor->burst, BURST_MIXED, EACH_BYTES / 8);
        switch ((sailor->index + round) % 5) {
        case 0: subject.flush_tiny(&report); break;
        case 1: subject.flush_mid(&report); break;
        case 2: subject.flush_large(&report); break;
        case 3: subject.flush_pools(&report); break;
        default: subject.release_all(&report); break;
        }
        burst_thin(&sailor->burst, 20);
        burst_verify(&sailor->burst);
    }
}
static void all_at_once(void) {
    size_t baseline = crew_begin(BURST_MIXED);
    crew_order(&crew, sailor_flush);
    crew_order(&crew, sailor_verify);
    crew_order(&crew, sailor_free);
    subject_release_all();
    water_expect_baseline(baseline, "all threads have flushed");
    crew_end(&crew);
}

/* --- behind the last bytes of large blocks ------------------------------------------------------------------------------- */

enum { TAILED = 200, TAIL_ROUNDS = 150, SLOTS = 12 };
static unsigned char *tailed[TAILED];

/* Blocks in the places of longer ones: their own pages stay, the rest goes. */
static void tails(void) {
    size_t baseline = water_level();
    for (size_t i = 0; i < TAILED; i++) {
        CHECK((tailed[i] = malloc(128 * WATER_KIB)) != NULL);
        memset(tailed[i], 1, 128 * WATER_KIB);
    }
    for (size_t i = 0; i < TAILED; i++) free(tailed[i]);
    for (size_t i = 0; i < TAILED; i++) {
        CHECK((tailed[i] = malloc(66 * WATER_KIB)) != NULL);
        memset(tailed[i], (int)i, 66 * WATER_KIB);
    }
    tide_flush_report report = {0};
    subject.flush_large(&report);
    if (WATER_IS_CLEAR) CHECK(water_level() <= baseline + TAILED * 68 * WATER_KIB + WATER_SLACK_BYTES);
    for (size_t i = 0; i < TAILED; i++) {
        for (size_t k = 0; k < 66 * WATER_KIB; k += 64) CHECK(tailed[i][k] == (unsigned char)i);
        free(tailed[i]);
    }
}

static void expect_filled(const unsigned char *block, size_t bytes, unsigned char value) {
    for (size_t k = 0; k < bytes; k += 256) CHECK(block[k] == value);
    CHECK(bytes == 0 || block[bytes - 1] == value);
}

/* Large blocks that grow and shrink in their last slice, move and die, while others flush. */
static void sailor_resize(sailor_t *sailor) {
    unsigned char *slots[SLOTS] = {0};
    size_t sizes[SLOTS] = {0};
    uint64_t random = sailor->index + 1;
    for (unsigned round = 0; round < TAIL_ROUNDS; round++) {
        size_t i = random_below(&random, SLOTS), wanted = random_below(&random, 260 * WATER_KIB);
        unsigned char value = (unsigned char)(sailor->index * SLOTS + i + 1);
        expect_filled(slots[i], sizes[i], value);
        if (wanted < 60 * WATER_KIB) {
            free(slots[i]);
            slots[i] = NULL;
            sizes[i] = 0;
            continue;
        }
        CHECK((slots[i] = realloc(slots[i], wanted)) != NULL);
        expect_filled(slots[i], sizes[i] < wanted ? sizes[i] : wanted, value);
        memset(slots[i], value, wanted);
        sizes[i] = wanted;
    }
    for (size_t i = 0; i < SLOTS; i++) {
        expect_filled(slots[i], sizes[i], (unsigned char)(sailor->index * SLOTS + i + 1));
        free(slots[i]);
    }
}

static atomic_int resizing;
static void *flush_main(void *nothing) {
    while (atomic_load(&resizing)) subject.flush_large(NULL);
    return nothing;
}

static void tails_beside(void) {
    pthread_t flushers[2];
    crew_begin(BURST_LARGE);
    atomic_store(&resizing, 1);
    for (size_t i = 0; i < 2; i++) CHECK(pthread_create(&flushers[i], NULL, flush_main, NULL) == 0);
    for (size_t round = 0; round < 2 * scene_rounds; round++) crew_order(&crew, sailor_resize);
    atomic_store(&resizing, 0);
    for (size_t i = 0; i < 2; i++) CHECK(pthread_join(flushers[i], NULL) == 0);
    crew_end(&crew);
}

static const scene_t scenes[] = {
    {.name = "tiny-magazine", .environment = "TIDE_MODE=static", .run = tiny_magazine},
    {.name = "mid-pool", .environment = "TIDE_MODE=static", .run = mid_pool},
    {.name = "large-pool", .environment = "TIDE_MODE=static", .run = large_pool},
    {.name = "both-pools", .environment = "TIDE_MODE=static", .run = both_pools},
    {.name = "all-caches", .environment = "TIDE_MODE=static", .run = all_caches},
    {.name = "malloc_trim", .environment = "TIDE_MODE=static", .run = by_trim},
    {.name = "nothing-left", .environment = "TIDE_MODE=static", .run = nothing_left},
    {.name = "survivors", .environment = "TIDE_MODE=static", .run = survivors},
    {.name = "survivors-by-tier", .environment = "TIDE_MODE=static", .run = survivors_by_tier},
    {.name = "beside-one-spinning", .environment = "TIDE_MODE=static", .run = beside_one_spinning},
    {.name = "beside-four-spinning", .environment = "TIDE_MODE=static", .run = beside_four_spinning},
    {.name = "tails", .environment = "TIDE_MODE=static", .run = tails},
    {.name = "tails-beside", .run = tails_beside},
    {.name = "all-at-once", .environment = "TIDE_MODE=static", .run = all_at_once},
    {.name = "all-at-once-and-the-keeper", .run = all_at_once},
};

int main(int argc, char **argv) { return SCENE_MAIN(argc, argv, scenes); }
