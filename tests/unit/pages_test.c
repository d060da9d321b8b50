/* Pages without a live block: tier/tiny and tier/mid against naive models, for every class and page size. */
#include "span/run.h"
#include "tier/mid.h"
#include "tier/tiny.h"
#include "unit.h"

/* One span, and what is live in it. */
static struct span *span;
static bool live[SLICE_BYTES / GRANULE_BYTES];
static uint64_t seeds[SLICE_BYTES / GRANULE_BYTES];
static struct unit_random dice;

static char *block_at(uint32_t i) { return span_start(span) + (size_t)i * span->block_bytes; }
static uint32_t index_of(const void *block) {
    return (uint32_t)((size_t)((const char *)block - span_start(span)) / span->block_bytes);
}

static bool overlaps(uint32_t i, size_t page) {
    size_t start = (size_t)i * span->block_bytes, end = start + span->block_bytes;
    return start < (page + 1) * os_page_bytes && end > page * os_page_bytes;
}

static bool overlaps_any(uint32_t i, uint32_t pages) {
    for (size_t page = 0; page < SLICE_BYTES / os_page_bytes; page++)
        if ((pages >> page & 1) != 0 && overlaps(i, page)) return true;
    return false;
}

static bool page_has_live(size_t page) {
    for (uint32_t i = 0; i < span->carved; i++)
        if (live[i] && overlaps(i, page)) return true;
    return false;
}

static void took(void *block) {
    uint32_t i = index_of(block);
    assert_ptr_equal(block, block_at(i));
    assert_true(i < span->carved);
    assert_false(live[i]);
    live[i] = true;
    seeds[i] = unit_random(&dice, 1u << 30);
    unit_fill(block, span->block_bytes, seeds[i]);
}

static void live_is_intact(void) {
    for (uint32_t i = 0; i < span->carved; i++)
        if (live[i]) assert_true(unit_holds(block_at(i), span->block_bytes, seeds[i]));
}

/* Free a stretch of blocks, or some here and there. */
static void free_some(void (*push)(uint32_t)) {
    uint32_t first = (uint32_t)unit_random(&dice, span->carved), end = span->carved;
    uint64_t share = 1 + unit_random(&dice, 12);
    if (unit_random(&dice, 3) != 0) end = first + (uint32_t)unit_random(&dice, span->carved - first + 1), share = 1;
    for (uint32_t i = first; i < end; i++)
        if (live[i] && unit_random(&dice, share) == 0) {
            live[i] = false;
            push(i);
        }
}

/* Give pages back, as punch.c does. */
static void drop(uint64_t pages, size_t offset) {
    for (size_t page = 0; page < 64; page++) {
        char *at = span_start(span) + offset + page * os_page_bytes;
        if ((pages >> page & 1) == 0) continue;
        assert_int_equal(os_purge(at, os_page_bytes), 0);
        assert_int_equal(fake_resident_bytes(at, os_page_bytes), 0);
    }
}

static void start_model(size_t page_bytes, uint64_t seed) {
    fake.page_bytes = page_bytes;
    os_init();
    assert_true(region_init(64 * MIB));
    dice.state = seed;
}

/* --- tiny ------------------------------------------------------------------------------------------------------------ */

static void tiny_free(uint32_t i) { tiny_push(span, (struct block *)(void *)block_at(i)); }

/* The list holds exactly the free blocks that overlap no page of `punched`. */
static void check_list(void) {
    static bool listed[SLICE_BYTES / GRANULE_BYTES];
    memset(listed, 0, sizeof listed);
    for (const struct block *block = span->free; block != NULL; block = block->next) {
        assert_false(listed[index_of(block)]);
        listed[index_of(block)] = true;
    }
    for (uint32_t i = 0; i < span->carved; i++) {
        bool withheld = overlaps_any(i, span->punched);
        assert_false(live[i] && withheld);
        assert_int_equal(listed[i], !live[i] && !withheld);
        assert_int_equal(tiny_is_withheld(span, i * span->block_bytes), withheld);
        assert_int_equal(tiny_is_free(span, (struct block *)(void *)block_at(i)), !live[i]);
    }
    assert_valid(tiny_validate(span, true));
}

/* Pages are mended from the lowest on, until there is a free block. */
static void mend(void) {
    uint32_t punched = span->punched;
    bool some = false;
    while (punched != 0 && !some) {
        punched &= punched - 1;
        for (uint32_t i = 0; i < span->carved; i++) some = some || (!live[i] && !overlaps_any(i, punched));
    }
    assert_int_equal(tiny_mend(span), some);
    assert_int_equal(span->punched, punched);
    check_list();
}

static bool tiny_more(void) {
    if (span->free != NULL) return true;
    if (span->punched != 0) {
        mend();
        return true;
    }
    return tiny_carve(span);
}

static void tiny_take_some(void) {
    for (size_t count = unit_random(&dice, 1 + span->capacity); count > 0 && tiny_more(); count--) took(tiny_pop(span));
}

static void punch_tiny(void) {
    uint32_t expected = 0, before = span->punched;
    for (size_t page = 0; page * os_page_bytes < span->limit; page++)
        if ((before >> page & 1) == 0 && !page_has_live(page)) expected |= 1u << page;
    bool populated = unit_random(&dice, 3) == 0; /* pages that hold no block yet may be resident */
    uint32_t early = 0;
    for (size_t page = 0; page < SLICE_BYTES / os_page_bytes; page++)
        if (populated && page * os_page_bytes >= span->limit) early |= 1u << page;
    if (populated) span->flags |= SPAN_POPULATED;
    assert_int_equal(tiny_punch(span), expected | early);
    assert_int_equal(span->punched, before | expected);
    span->flags &= (uint8_t)~SPAN_POPULATED; /* the caller does */
    drop(expected | early, 0);
    check_list();
    live_is_intact();
    assert_int_equal(tiny_punch(span), 0); /* nothing new */
    assert_int_equal(span->punched, before | expected);
}

static size_t tiny_class(unsigned class) {
    size_t dropped = 0;
    memset(live, 0, sizeof live);
    span = run_take(1, 1);
    tiny_init(span, class);
    assert_int_equal(tiny_punch(span), 0);
    assert_false(tiny_mend(span));
    for (int round = 0; round < 12; round++) {
        tiny_take_some();
        for (size_t i = 1 + unit_random(&dice, 4); i > 0 && span->carved > 0; i--) {
            free_some(tiny_free);
            if (unit_random(&dice, 2) != 0) punch_tiny();
        }
        dropped += bits_count(span->punched);
        check_list();
    }
    while (tiny_more()) took(tiny_pop(span)); /* each block is there, once */
    live_is_intact();
    for (uint32_t i = 0; i < span->capacity; i++) assert_true(live[i]);
    assert_int_equal(span->used, span->capacity);
    assert_int_equal(span->punched, 0);
    assert_int_equal(tiny_punch(span), 0);
    for (uint32_t i = 0; i < span->capacity; i++) {
        live[i] = false;
        tiny_free(i);
    }
    punch_tiny(); /* the whole span */
    assert_int_equal(fake_resident_bytes(span_start(span), SLICE_BYTES), 0);
    assert_null(span->free);
    run_release(span, 1, RUN_DIRTY);
    return dropped;
}

static void tiny_pages_of(size_t page_bytes) {
    start_model(page_bytes, page_bytes + 3);
    size_t dropped = 0;
    for (unsigned class = 0; class < TINY_CLASSES; class ++) dropped += tiny_class(class);
    assert_true(page_bytes == SLICE_BYTES ||
                dropped > 2 * TINY_CLASSES); /* one page is hardly ever without a live block */
}

/* --- mid ------------------------------------------------------------------------------------------------------------- */

static void mid_free(uint32_t i) { mid_push(span, i); }

static void mid_take_some(void) {
    for (size_t count = unit_random(&dice, 1 + span->capacity); count > 0; count--) {
        bool clean = false;
        if (!mid_ready(span) && !mid_carve(span)) return;
        mid_ready(span);
        void *block = mid_pop(span, &clean);
        assert_non_null(block);
        if (clean) assert_true(unit_is_zero(block, span->block_bytes));
        took(block);
    }
}

static size_t punch_mid(void) {
    uint64_t expected[MID_PAGE_WORDS] = {0}, pages[MID_PAGE_WORDS] = {77, 77};
    size_t count = 0, touched = (size_t)span->limit * span->block_bytes;
    if (unit_random(&dice, 3) == 0) {
        span->flags |= SPAN_POPULATED;
        touched = (size_t)span->carved * span->block_bytes;
        while (touched % SLICE_BYTES != 0) touched += 128;
    }
    for (size_t page = 0; page * os_page_bytes < touched; page++) {
        if (page_has_live(page)) continue;
        expected[page / 64] |= (uint64_t)1 << (page % 64);
        count++;
    }
    assert_int_equal(mid_punch(span, pages), count > 0);
    span->flags &= (uint8_t)~SPAN_POPULATED;
    for (size_t word = 0; word < MID_PAGE_WORDS; word++) {
        assert_int_equal(pages[word], expected[word]);
        drop(pages[word], word * 64 * os_page_bytes);
    }
    live_is_intact();
    assert_valid(mid_validate(span, true));
    return count;
}

static size_t mid_class(unsigned class) {
    size_t dropped = 0;
    memset(live, 0, sizeof live);
    span = run_take(mid_slices(class), 1);
    mid_init(span, class);
    assert_int_equal(punch_mid(), 0);
    for (int round = 0; round < 12; round++) {
        mid_take_some();
        for (size_t i = 1 + unit_random(&dice, 4); i > 0 && span->carved > 0; i--) {
            free_some(mid_free);
            dropped += punch_mid();
        }
    }
    mid_clear_inner(span);
    run_release(span, span->slices, RUN_DIRTY);
    return dropped;
}

static void mid_pages_of(size_t page_bytes) {
    start_model(page_bytes, page_bytes + 1);
    size_t dropped = 0;
    for (unsigned class = TINY_CLASSES; class < CLASSES; class ++) dropped += mid_class(class);
    assert_true(dropped > 4 * MID_CLASSES);
}

static void each_page_size(void (*test)(size_t)) {
    for (size_t page_bytes = 4 * KIB; page_bytes <= 64 * KIB; page_bytes *= 4) {
        int status;
        UNIT_IN_CHILD(status, test(page_bytes));
        assert_int_equal(status, 0);
    }
}
static void test_tiny(void **state) {
    (void)state;
    each_page_size(tiny_pages_of);
}
static void test_mid(void **state) {
    (void)state;
    each_page_size(mid_pages_of);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny),
        cmocka_unit_test(test_mid),
    };
    return unit_run(tests, COUNT_OF(tests));
}
