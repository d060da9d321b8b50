#include "tier/mid.h"

#include "span/run.h"

/* How much is carved at once: what a page fault or two costs more than a miss. */
#define CARVE_BYTES (8 * KIB)

void mid_init(struct span *head, unsigned class) {
    uint32_t bytes = (uint32_t)class_bytes(class);
    uint32_t slices = (uint32_t)mid_slices(class);
    head->block_bytes = bytes;
    head->inverse = UINT32_MAX / (bytes >> MID_UNIT_SHIFT) + 1;
    head->capacity = (uint16_t)size_min(slices * SLICE_BYTES / bytes, MID_WORDS * 64);
    head->start = span_start(head);
    head->class = (uint8_t) class;
    bool clean = true;
    for (uint32_t i = 0; i < slices; i++) clean = clean && !run_slice_is_dirty(head, i);
    if (clean) head->flags |= SPAN_CLEAN;
    for (uint32_t i = 1; i < slices; i++) {
        head[i].slices_from_head = i;
        head[i].kind = SPAN_INNER;
    }
    head->kind = SPAN_MID;
}

bool mid_carve(struct span *head) {
    if (head->carved == head->capacity) return false;
    uint32_t count = (uint32_t)size_max(CARVE_BYTES / head->block_bytes, 1);
    uint32_t end = (uint32_t)size_min(head->carved + count, head->capacity);
    head->word = (uint8_t)(head->carved / 64);
    for (uint32_t i = head->carved; i < end; i++)
        mid_mask_set(head, i / 64, mid_mask(head, i / 64) | (uint64_t)1 << (i % 64));
    head->carved = (uint16_t)end;
    return true;
}

void mid_clear_inner(struct span *head) {
    for (uint32_t i = 1; i < head->slices; i++) memset((void *)&head[i], 0, sizeof head[i]);
}

bool mid_validate(const struct span *head) {
    uint32_t free_count = 0;
    for (uint32_t word = 0; word < MID_WORDS; word++) {
        free_count += bits_count(mid_mask(head, word));
        if (word < head->word && mid_mask(head, word) != 0) return false;
    }
    for (uint32_t i = 1; i < head->slices; i++)
        if (head[i].kind != SPAN_INNER || head[i].slices_from_head != i) return false;
    uint32_t bias = (head->flags & SPAN_CURRENT) != 0;
    return head->used + free_count == head->carved + bias;
}
