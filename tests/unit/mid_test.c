/* tier/mid: the bitmap against an array of blocks, the clean frontier, and the numbers of blocks against a division. */
#include "span/run.h"
#include "tier/mid.h"
#include "unit.h"

static struct span *fresh(unsigned class) {
    if (os_page_bytes == 0) {
        os_init();
        assert_true(region_init(GIB));
    }
    struct span *head = run_take(mid_slices(class), 1);
    assert_non_null(head);
    mid_init(head, class);
    assert_valid(mid_validate(head, true));
    return head;
}

/* As the owner of a span does it. */
static char *pop(struct span *head, bool *clean) {
    if (!mid_ready(head) && (!mid_carve(head) || !mid_ready(head))) return NULL;
    return mid_pop(head, clean);
}

static void give_back(struct span *head) {
    size_t slices = head->slices;
    mid_clear_inner(head);
    run_release(head, slices, RUN_DIRTY);
    assert_true(unit_is_zero(head, slices * sizeof *head));
    assert_valid(run_validate());
}

static void test_index(void **state) {
    (void)state;
    for (unsigned class = TINY_CLASSES; class < CLASSES; class ++) {
        struct span *head = fresh(class);
        size_t bytes = class_bytes(class), length = head->slices * SLICE_BYTES;
        char *start = span_start(head);
        assert_int_equal(head->capacity, size_min(length / bytes, MID_WORDS * 64));
        assert_true(head->capacity >= 16);
        bool clean;
        for (uint32_t handed_out = 0;; handed_out++) {
            size_t step = handed_out == 0 || handed_out == 3 || handed_out == head->capacity ? 1 : bytes;
            for (size_t offset = 0; offset < length; offset += step) {
                uint32_t naive =
                    offset % bytes == 0 && offset / bytes < handed_out ? (uint32_t)(offset / bytes) : MID_NO_BLOCK;
                if (mid_index(head, start + offset) != naive)
                    fail_msg("class %u, offset %zu, %u handed out", class, offset, handed_out);
            }
            if (pop(head, &clean) == NULL) break;
        }
        assert_int_equal(head->used, head->capacity);
        for (size_t i = 0; i < head->slices; i++) assert_true(mid_head(&head[i]) == head);
        for (uint32_t i = 0; i < head->capacity; i++) assert_true(mid_block(head, i) == start + i * bytes);
        give_back(head);
    }
}

static void test_lowest_first_and_clean(void **state) {
    (void)state;
    struct span *head = fresh(class_of_size(4096));
    bool clean = false;
    char *start = span_start(head);
    for (size_t i = 0; i < 4; i++) {
        assert_true(pop(head, &clean) == start + i * 4096);
        assert_true(clean);
        memset(start + i * 4096, 1, 4096);
    }
    assert_int_equal(head->limit, 4);
    mid_push(head, 2);
    mid_push(head, 0);
    assert_true(mid_is_free(head, 0) && !mid_is_free(head, 1) && mid_is_free(head, 2));
    assert_true(pop(head, &clean) == start);
    assert_false(clean);
    assert_true(pop(head, &clean) == start + 2 * 4096);
    assert_false(clean);
    assert_true(pop(head, &clean) == start + 4 * 4096);
    assert_true(clean);
    assert_int_equal(fake_resident_bytes(start, head->slices * SLICE_BYTES),
                     4 * 4096); /* free blocks are not touched */
    assert_valid(mid_validate(head, true));
    give_back(head);

    head = fresh(class_of_size(4096)); /* the same slices, dirty now */
    assert_true(span_start(head) == start);
    pop(head, &clean);
    assert_false(clean);
    for (int i = 0; i < 20; i++) pop(head, &clean);
    assert_false(clean); /* one dirty slice spoils the span: nobody knows how much of it was used */
}

static void random_blocks(size_t page_bytes) {
    fake.page_bytes = page_bytes;
    struct unit_random random = {5};
    for (unsigned class = TINY_CLASSES; class < CLASSES; class ++) {
        struct span *head = fresh(class);
        size_t bytes = class_bytes(class);
        bool live[MID_WORDS * 64] = {false}, used[MID_WORDS * 64] = {false};
        size_t count = 0;
        bool spotless = (head->flags & SPAN_CLEAN) != 0;
        for (int step = 0; step < 1500; step++) {
            if (unit_random(&random, step % 200 < 100 ? 4 : 2) != 0) {
                size_t lowest = 0;
                while (lowest < head->capacity && live[lowest]) lowest++;
                if (lowest == head->carved &&
                    lowest < head->capacity) { /* none is free: carving makes a few more, not all */
                    assert_false(mid_ready(head));
                    assert_true(mid_carve(head));
                    assert_true((head->carved - lowest) * bytes <= size_max(bytes, 8 * KIB));
                    assert_valid(mid_validate(head, true));
                }
                assert_int_equal(mid_ready(head), lowest < head->capacity);
                bool clean = false;
                char *block = mid_pop(head, &clean);
                if (lowest == head->capacity) {
                    assert_null(block);
                    continue;
                }
                assert_true(block == mid_block(head, (uint32_t)lowest));
                if (clean) assert_true(unit_is_zero(block, bytes));
                assert_int_equal(clean, spotless && !used[lowest]);
                memset(block, (int)lowest + 1, bytes);
                live[lowest] = used[lowest] = true;
                count++;
            } else {
                uint32_t pick = (uint32_t)unit_random(&random, head->capacity);
                assert_int_equal(mid_is_free(head, pick), pick < head->carved && !live[pick]);
                if (!live[pick]) continue;
                char *block = mid_block(head, pick);
                assert_true(block[0] == (char)(pick + 1) && memcmp(block, block + 1, bytes - 1) == 0);
                mid_push(head, pick);
                live[pick] = false;
                count--;
            }
            assert_int_equal(head->used, count);
            assert_valid(mid_validate(head, true));
        }
        give_back(head);
        if (class % 2 == 0) { /* half of the spans start on clean memory, half on used */
            size_t kept = 0;
            run_purge(&kept);
        }
    }
}

static void test_random(void **state) {
    (void)state;
    random_blocks(4 * KIB);
}
static void test_random_64k_pages(void **state) {
    (void)state;
    random_blocks(64 * KIB);
}

static void test_owner_and_key(void **state) {
    (void)state;
    struct span *head = fresh(TINY_CLASSES);
    static max_align_t a, b;
    struct heap *heaps[] = {(struct heap *)(void *)&a, (struct heap *)(void *)&b};
    assert_true(mid_owner(heaps[0]) != heaps[0] && mid_owner(heaps[0]) != mid_owner(heaps[1]));
    assert_true(mid_key(head, span_start(head)) % 2 == 1); /* a tiny block's key is even */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_index),
        cmocka_unit_test(test_lowest_first_and_clean),
        cmocka_unit_test(test_owner_and_key),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_random_64k_pages),
    };
    return unit_run(tests, COUNT_OF(tests));
}
