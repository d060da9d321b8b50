#include "tier/mid.h"

#include "span/run.h"

void mid_init(struct span *head, unsigned class) {
    uint32_t bytes = (uint32_t)class_bytes(class);
    uint32_t slices = (uint32_t)mid_slices(class);
    head->block_bytes = bytes;
    head->inverse = UINT32_MAX / (bytes >> MID_UNIT_SHIFT) + 1;
    head->capacity = (uint16_t)(slices * SLICE_BYTES / bytes);
    head->class = (uint8_t)class;
    bool clean = true;
    for (uint32_t i = 0; i < slices; i++) clean = clean && !run_slice_is_dirty(head, i);
    if (clean) head->flags |= SPAN_CLEAN;
    for (uint32_t word = 0; word < MID_WORDS; word++) {
        uint32_t below = word * 64;
        uint32_t count = head->capacity > below ? head->capacity - below : 0;
        mid_mask_set(head, word, count >= 64 ? UINT64_MAX : ((uint64_t)1 << count) - 1);
    }
    for (uint32_t i = 1; i < slices; i++) {
        head[i].slices_from_head = i;
        head[i].kind = SPAN_INNER;
    }
    head->kind = SPAN_MID;
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
    return head->used + free_count == head->capacity + bias;
}
