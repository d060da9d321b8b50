#include "tier/tiny.h"

#include "os/os.h"
#include "span/region.h"

/* A span's first pages are carved one at a time; once this much is in use, several at once. */
#define CARVE_SLOWLY_BYTES (16 * KIB)
#define CARVE_PAGES 4

void tiny_init(struct span *span, unsigned class) {
    uint32_t bytes = (uint32_t)class_bytes(class);
    span->free = NULL;
    span->block_bytes = bytes;
    span->inverse = UINT32_MAX / bytes + 1;
    span->capacity = (uint16_t)(SLICE_BYTES / bytes);
    span->class = (uint8_t) class;
    span->kind = SPAN_TINY;
}

bool tiny_carve(struct span *span) {
    if (span->carved == span->capacity) return false;
    size_t from = atomic_load_explicit(&span->limit, memory_order_relaxed);
    size_t step = from < CARVE_SLOWLY_BYTES ? os_page_bytes : CARVE_PAGES * os_page_bytes;
    size_t to = size_round_down(from, os_page_bytes) + step;
    uint32_t end = (uint32_t)size_min(to / span->block_bytes, span->capacity);
    if (end <= span->carved) end = span->carved + 1u;

    char *start = span_start(span);
    struct block *next = span->free;
    for (uint32_t i = end; i-- > span->carved;) { /* backwards, so that the list runs forwards */
        struct block *block = (struct block *)(start + (size_t)i * span->block_bytes);
        block->next = next;
        block->key = tiny_key(span, block);
        next = block;
    }
    span->free = next;
    span->carved = (uint16_t)end;
    atomic_store_explicit(&span->limit, end * span->block_bytes, memory_order_relaxed);
    return true;
}

bool tiny_is_free(const struct span *span, const struct block *block) {
    for (const struct block *at = span->free; at != NULL; at = at->next)
        if (at == block) return true;
    return false;
}

bool tiny_validate(const struct span *span) {
    const char *start = span_start(span);
    uint32_t free_count = 0;
    for (const struct block *block = span->free; block != NULL; block = block->next) {
        size_t offset = (size_t)((const char *)block - start);
        if (offset >= span->limit || offset % span->block_bytes != 0) return false;
        if (block->key != tiny_key(span, block)) return false;
        if (++free_count > span->carved) return false; /* a cycle */
    }
    uint32_t bias = (span->flags & SPAN_CURRENT) != 0;
    return span->used + free_count == span->carved + bias && span->limit == (uint32_t)span->carved * span->block_bytes;
}
