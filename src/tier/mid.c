#include "tier/mid.h"

#include "span/run.h"

void mid_init(struct span *head, unsigned class) {
    uint32_t bytes = (uint32_t)class_bytes(class);
    uint32_t slices = (uint32_t)mid_slices(class);
    head->block_bytes = bytes;
    head->inverse = UINT32_MAX / (bytes >> MID_UNIT_SHIFT) + 1;
    head->capacity = (uint16_t)size_min((slices * SLICE_BYTES - guard_bytes()) / bytes, MID_WORDS * 64);
    head->start = span_start(head);
    head->class = (uint8_t) class;
    bool clean = true;
    for (uint32_t i = 0; i < slices; i++) clean = clean && !run_slice_is_dirty(head, i);
    if (clean) head->flags |= SPAN_CLEAN;
    for (uint32_t i = 1; i < slices; i++) {
        head[i].slices_from_head = i;
        head[i].kind = SPAN_INNER;
    }
    guard_span(head);
    head->kind = SPAN_MID;
}

#ifdef TIDE_SECURE
/* Junk in place of what may lie between two offsets from earlier. */
void mid_fill(const struct span *head, uint32_t from, uint32_t end) {
    while (from < end) {
        uint32_t next = (uint32_t)size_min(size_round_down(from, SLICE_BYTES) + SLICE_BYTES, end);
        if (run_slice_is_dirty(head, from / SLICE_BYTES)) guard_fill(head->start + from, next - from);
        from = next;
    }
}

void mid_check_free(const struct span *head, uint32_t index) {
    const void *block = mid_block(head, index);
    if (!guard_is_junk_or_gone(block, head->block_bytes)) guard_fatal_stale(block);
}
#endif

bool mid_carve(struct span *head) {
    if (head->carved == head->capacity) return false;
    uint32_t end = head->carved + mid_carve_count(head);
    head->word = (uint8_t)(head->carved / 64);
    for (uint32_t i = head->carved; i < end; i++)
        mid_mask_set(head, i / 64, mid_mask(head, i / 64) | (uint64_t)1 << (i % 64));
    if (SECURE_BUILD) {
        mid_fill(head, head->carved * head->block_bytes, end * head->block_bytes);
        atomic_store_explicit(&head->limit, end, memory_order_relaxed); /* none of them counts as clean */
    }
    head->carved = (uint16_t)end;
    return true;
}

bool mid_punch(const struct span *head, uint64_t pages[MID_PAGE_WORDS]) {
    uint32_t limit = atomic_load_explicit(&head->limit, memory_order_relaxed);
    size_t touched_bytes = (size_t)limit * head->block_bytes;
    if ((head->flags & SPAN_POPULATED) != 0)
        touched_bytes = size_round_up((size_t)head->carved * head->block_bytes, SLICE_BYTES);
    size_t touched = (touched_bytes + os_page_bytes - 1) / os_page_bytes;
    bool some = false;
    for (size_t word = 0; word < MID_PAGE_WORDS; word++) {
        size_t count = touched <= word * 64 ? 0 : size_min(touched - word * 64, 64);
        pages[word] = count == 64 ? UINT64_MAX : ((uint64_t)1 << count) - 1;
    }
    for (uint32_t i = 0; i < limit; i++) {
        if (mid_is_free(head, i)) continue;
        size_t first = (size_t)i * head->block_bytes / os_page_bytes;
        size_t last = ((size_t)(i + 1) * head->block_bytes - 1) / os_page_bytes;
        for (size_t page = first; page <= last; page++) pages[page / 64] &= ~((uint64_t)1 << (page % 64));
    }
    for (size_t word = 0; word < MID_PAGE_WORDS; word++) some = some || pages[word] != 0;
    return some;
}

void mid_clear_inner(struct span *head) {
    for (uint32_t i = 1; i < head->slices; i++) memset((void *)&head[i], 0, sizeof head[i]);
}

/* The blocks of `word` whose numbers are below `count`. */
static uint64_t mask_below(uint32_t word, uint32_t count) {
    if (count <= word * 64) return 0;
    return count >= word * 64 + 64 ? UINT64_MAX : ((uint64_t)1 << (count - word * 64)) - 1;
}

const char *mid_validate(const struct span *head, bool exact) {
    uint32_t bytes = head->block_bytes, limit = load_relaxed(&head->limit);
    invariant(head->kind == SPAN_MID && head->class >= TINY_CLASSES && head->class < CLASSES &&
                  head->slices == mid_slices(head->class),
              "mid: kind");
    invariant(bytes == class_bytes(head->class), "mid: class");
    invariant(head->inverse == UINT32_MAX / (bytes >> MID_UNIT_SHIFT) + 1, "mid: inverse");
    invariant(head->start == span_start(head), "mid: start");
    size_t most = head->slices * SLICE_BYTES, least = most - os_page_bytes; /* with a guard at the end */
    invariant(head->capacity == size_min(most / bytes, MID_WORDS * 64) ||
                  head->capacity == size_min(least / bytes, MID_WORDS * 64),
              "mid: capacity");
    invariant(head->carved <= head->capacity && limit <= head->carved, "mid: limit");
    for (uint32_t i = 1; i < head->slices; i++)
        invariant(head[i].kind == SPAN_INNER && head[i].slices_from_head == i, "mid: an inner slice");

    uint32_t free_count = 0;
    for (uint32_t word = 0; word < MID_WORDS; word++) {
        uint64_t mask = mid_mask(head, word), carved = mask_below(word, head->carved);
        free_count += bits_count(mask);
        invariant((mask & ~carved) == 0, "mid: a free block that was not made");
        invariant(!exact || (carved & ~mask_below(word, limit) & ~mask) == 0, "mid: in use and never handed out");
        invariant(mask == 0 || word >= head->word, "mid: a free block before the first word");
    }
    uint32_t bias = (head->flags & SPAN_CURRENT) != 0;
    invariant(!exact || head->used + free_count == head->carved + bias, "mid: count of blocks in use");
    return NULL;
}
