#include "tier/tiny.h"

#include "span/region.h"

/* A span's first pages are carved one at a time; once this much is in use, several at once. */
#define CARVE_SLOWLY_BYTES (16 * KIB)
#define CARVE_PAGES 4

void tiny_init(struct span *span, unsigned class) {
    uint32_t bytes = (uint32_t)class_bytes(class);
    span->free = NULL;
    span->block_bytes = bytes;
    span->inverse = UINT32_MAX / bytes + 1;
    span->capacity = (uint16_t)((SLICE_BYTES - guard_bytes()) / bytes);
    span->class = (uint8_t) class;
    guard_span(span);
    span->kind = SPAN_TINY;
}

/* Make a free block of memory that was none, in front of `next`. */
tide_inline struct block *tiny_make(const struct span *span, void *at, struct block *next) {
    struct block *block = at;
    guard_fill(block, span->block_bytes);
    block->next = guard_link(block, next);
    block->key = tiny_key(span, block);
    return block;
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
    struct guard_order order;
    guard_order_make(&order, span->carved, end);
    for (uint32_t i = end; i-- > span->carved;) /* backwards, so that the list runs forwards */
        next = tiny_make(span, start + (size_t)guard_order_at(&order, i) * span->block_bytes, next);
    span->free = next;
    span->carved = (uint16_t)end;
    atomic_store_explicit(&span->limit, end * span->block_bytes, memory_order_relaxed);
    return true;
}

static uint32_t tiny_index(const struct span *span, uint32_t offset) {
    return (uint32_t)(((uint64_t)offset * span->inverse) >> 32);
}

/* The walk of a list that criss-crosses its span waits for memory at every step; going through the span in order first does not. */
static void tiny_sweep(const struct span *span, const char *start, uint32_t limit) {
    uint32_t punched = atomic_load_explicit(&span->punched, memory_order_relaxed);
    for (uint32_t offset = 0; offset < limit; offset += 64)
        if ((punched & tiny_pages(offset, 1)) == 0) __builtin_prefetch(start + offset);
}

uint32_t tiny_punch(struct span *span) {
    uint64_t on_list[SLICE_BYTES / GRANULE_BYTES / 64] = {0};
    const char *start = span_start(span);
    uint32_t bytes = span->block_bytes, limit = span->limit;
    uint32_t punched = atomic_load_explicit(&span->punched, memory_order_relaxed);

    tiny_sweep(span, start, limit);
    for (const struct block *block = span->free; block != NULL; block = tiny_next(span, block)) {
        uint32_t index = tiny_index(span, tiny_offset(block));
        on_list[index / 64] |= (uint64_t)1 << (index % 64);
    }
    uint32_t live = 0;
    for (uint32_t i = 0; i < span->carved; i++)
        if ((on_list[i / 64] >> (i % 64) & 1) == 0 && !tiny_is_withheld(span, i * bytes))
            live |= tiny_pages(i * bytes, bytes);
    uint32_t touched = limit == 0 ? 0 : tiny_pages(0, limit);
    uint32_t early = (span->flags & SPAN_POPULATED) != 0 ? tiny_pages(0, SLICE_BYTES) & ~touched : 0;
    uint32_t drop = touched & ~live & ~punched;
    if (drop == 0) return early;

    atomic_store_explicit(&span->punched, (uint16_t)(punched | drop), memory_order_relaxed);
    struct block *next = NULL;
    struct guard_order order;
    guard_order_make(&order, 0, span->carved);
    for (uint32_t n = span->carved; n-- > 0;) { /* backwards, so that the list runs forwards */
        uint32_t i = guard_order_at(&order, n);
        if ((on_list[i / 64] >> (i % 64) & 1) == 0 || tiny_is_withheld(span, i * bytes)) continue;
        struct block *block = (struct block *)(start + (size_t)i * bytes);
        block->next = guard_link(block, next);
        next = block;
    }
    span->free = next;
    return drop | early;
}

bool tiny_mend(struct span *span) {
    char *start = span_start(span);
    uint32_t bytes = span->block_bytes;
    while (span->free == NULL) {
        uint32_t punched = atomic_load_explicit(&span->punched, memory_order_relaxed);
        if (punched == 0) return false;
        uint32_t page = bits_lowest(punched);
        atomic_store_explicit(&span->punched, (uint16_t)(punched & (punched - 1)), memory_order_relaxed);
        uint32_t from = page * (uint32_t)os_page_bytes / bytes;
        uint32_t end = (uint32_t)size_min(((page + 1) * os_page_bytes + bytes - 1) / bytes, span->carved);
        struct guard_order order;
        guard_order_make(&order, from, end);
        for (uint32_t n = end; n-- > from;) {
            uint32_t i = guard_order_at(&order, n);
            if (!tiny_is_withheld(span, i * bytes)) span->free = tiny_make(span, start + (size_t)i * bytes, span->free);
        }
    }
    return true;
}

bool tiny_is_free(const struct span *span, const struct block *block) {
    if (tiny_is_withheld(span, tiny_offset(block))) return true;
    for (const struct block *at = span->free; at != NULL; at = tiny_next(span, at))
        if (at == block) return true;
    return false;
}

#ifdef TIDE_SECURE
void tiny_check_free(const struct span *span, const struct block *block) {
    const char *rest = (const char *)(block + 1);
    size_t bytes = span->block_bytes - sizeof *block;
    if (block->key != tiny_key(span, block) || (bytes > 0 && !guard_is_junk(rest, bytes))) guard_fatal_stale(block);
}
#endif

const char *tiny_validate(const struct span *span, bool exact) {
    const char *start = span_start(span);
    uint32_t limit = load_relaxed(&span->limit), bytes = span->block_bytes;
    uint32_t punched = atomic_load_explicit(&span->punched, memory_order_relaxed);
    invariant(span->kind == SPAN_TINY && span->slices == 1, "tiny: kind");
    invariant(span->class < TINY_CLASSES && bytes == class_bytes(span->class), "tiny: class");
    invariant(span->inverse == UINT32_MAX / bytes + 1, "tiny: inverse");
    size_t most = SLICE_BYTES / bytes, least = (SLICE_BYTES - os_page_bytes) / bytes; /* with a guard at the end */
    invariant((span->capacity == most || span->capacity == least) && span->carved <= span->capacity, "tiny: capacity");
    invariant(limit == span->carved * bytes, "tiny: limit");
    invariant((punched & ~(limit == 0 ? 0 : tiny_pages(0, limit))) == 0, "tiny: punched where nothing was touched");

    uint32_t free_count = 0;
    for (const struct block *block = span->free; block != NULL; block = guard_link(block, block->next)) {
        size_t offset = (size_t)((const char *)block - start);
        invariant(offset < limit && offset % bytes == 0, "tiny: a link that leads to no block");
        invariant(++free_count <= span->carved, "tiny: a circle of free blocks");
        invariant(!exact || block->key == tiny_key(span, block), "tiny: a free block without its key");
        invariant(!tiny_is_withheld(span, (uint32_t)offset), "tiny: a withheld block is on the list");
    }
    for (uint32_t i = 0; i < span->carved && punched != 0; i++) free_count += tiny_is_withheld(span, i * bytes);
    uint32_t bias = (span->flags & SPAN_CURRENT) != 0;
    invariant(!exact || span->used + free_count == span->carved + bias, "tiny: count of blocks in use");
    return NULL;
}
