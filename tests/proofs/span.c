/* Descriptors and blocks: address, slice, descriptor, number of a block, and back; for every offset of every class. */
#include "proof.h"

#include "heap/own.h"
#include "tier/mid.c"
#include "tier/tiny.c"

#define SLICES 64u
struct region region_main;
size_t os_page_bytes;
static struct span spans[SLICES];
bool run_slice_is_dirty(const struct span *head, size_t index) {
    (void)head, (void)index;
    return nondet_bool();
}
struct region *region_of_span(const struct span *span) {
    (void)span;
    prove(!"a descriptor outside of the region");
    return &region_main;
}

static void region_any(void) {
    region_main.spans = spans;
    region_main.size_bytes = SLICES * SLICE_BYTES;
    region_main.top_bytes = region_main.size_bytes;
    region_main.base = nondet_size();
    given(region_main.base % CHUNK_BYTES == 0 && region_main.base < (uintptr_t)1 << 47); /* a user's addresses */
}

void prove_slices(void) {
    region_any();
    size_t offset = nondet_size();
    given(offset < region_main.size_bytes);
    uintptr_t address = region_main.base + offset;
    prove(address - region_main.base < region_top(&region_main)); /* it is ours */
    struct span *span = region_span(&region_main, (void *)address);
    prove(span >= spans && span < spans + SLICES);
    prove(region_slice(&region_main, span) == offset / SLICE_BYTES);
    prove((uintptr_t)span_start(span) == address - offset % SLICE_BYTES);
    uintptr_t foreign = nondet_size();
    given(foreign < region_main.base || foreign - region_main.base >= region_main.size_bytes);
    prove(foreign - region_main.base >= region_top(&region_main)); /* one comparison tells */
}

static struct span tiny_any(unsigned class) {
    struct span span = {.kind = SPAN_TINY, .class = (uint8_t) class, .block_bytes = (uint32_t)class_bytes(class)};
    span.inverse = UINT32_MAX / span.block_bytes + 1; /* as tiny_init; prove_tiny_init says so */
    span.capacity = (uint16_t)(SLICE_BYTES / span.block_bytes);
    span.carved = nondet_u16();
    given(span.carved <= span.capacity);
    span.limit = (uint32_t)span.carved * span.block_bytes;
    return span;
}

void prove_tiny_init(void) {
    for (unsigned class = 0; class < TINY_CLASSES; class ++) {
        tiny_init(&spans[1], class);
        prove(spans[1].inverse == UINT32_MAX / class_bytes(class) + 1);
        prove(spans[1].capacity == SLICE_BYTES / class_bytes(class) && spans[1].block_bytes == class_bytes(class));
        prove((size_t)spans[1].capacity * spans[1].block_bytes <= SLICE_BYTES);
    }
}

/* Division without a divider, which solvers are bad at: any offset is a number of whole blocks and a rest. */
static void tiny_index_of(unsigned first, unsigned end) {
    for (unsigned class = first; class < end; class ++) {
        struct span span = tiny_any(class);
        uint32_t bytes = span.block_bytes, blocks = nondet_u16(), rest = nondet_u16();
        given(rest < bytes && blocks <= SLICE_BYTES / bytes);
        uint32_t offset = blocks * bytes + rest;
        if (offset >= SLICE_BYTES) continue;
        prove(tiny_is_block(&span, offset) == (rest == 0 && offset < span.limit));
        prove(tiny_index(&span, offset) == blocks);
    }
}
void prove_tiny_index_0(void) { tiny_index_of(0, 8); }
void prove_tiny_index_8(void) { tiny_index_of(8, 16); }
void prove_tiny_index_16(void) { tiny_index_of(16, 24); }
void prove_tiny_index_24(void) { tiny_index_of(24, TINY_CLASSES); }

/* For pages of each size: the pages that a piece of a span overlaps. */
void prove_tiny_pages(void) {
    uint32_t offset = nondet_u32(), bytes = nondet_u32(), page = nondet_u32();
    given(offset < SLICE_BYTES && bytes >= 1 && bytes <= SLICE_BYTES - offset);
    for (os_page_bytes = 4096; os_page_bytes <= SLICE_BYTES; os_page_bytes *= 4) {
        uint32_t mask = tiny_pages(offset, bytes), size = (uint32_t)os_page_bytes;
        prove(mask >> (SLICE_BYTES / size) == 0);
        if (page < SLICE_BYTES / size)
            prove((mask >> page & 1) == (offset < (page + 1) * size && offset + bytes > page * size));
    }
}

/* No block has the key of another one in its span, of a mid span's, or of a cleared block. */
void prove_keys(void) {
    uintptr_t at = nondet_size(), a = nondet_size(), b = nondet_size();
    given(at % sizeof(struct span) == 0 && at != 0 && at < (uintptr_t)1 << 47);
    given(a % 16 == 0 && b % 16 == 0 && a < (uintptr_t)1 << 47 && b < (uintptr_t)1 << 47);
    const struct span *span = (const struct span *)at;
    prove((tiny_key(span, (void *)a) == tiny_key(span, (void *)b)) == (a == b));
    prove((mid_key(span, (void *)a) == mid_key(span, (void *)b)) == (a == b));
    prove(tiny_key(span, (void *)a) != mid_key(span, (void *)b));
    prove(tiny_key(span, (void *)a) != 0 && mid_key(span, (void *)a) != 0);
}

static void mid_any(struct span *head, unsigned class) {
    uint32_t bytes = (uint32_t)class_bytes(class);
    head->kind = SPAN_MID;
    head->class = (uint8_t) class;
    head->slices = (uint32_t)mid_slices(class);
    head->block_bytes = bytes;
    head->inverse = UINT32_MAX / (bytes >> MID_UNIT_SHIFT) + 1;
    head->capacity = (uint16_t)size_min(head->slices * SLICE_BYTES / bytes, MID_WORDS * 64);
    head->limit = nondet_u16();
    given(head->limit <= head->capacity);
}

void prove_mid_init(void) {
    region_any();
    for (unsigned class = TINY_CLASSES; class < CLASSES; class ++) {
        struct span *head = &spans[3];
        head->slices = (uint32_t)mid_slices(class);
        mid_init(head, class);
        prove(head->inverse == UINT32_MAX / (class_bytes(class) >> MID_UNIT_SHIFT) + 1);
        prove(head->capacity >= 1 && head->capacity <= MID_WORDS * 64);
        prove((size_t)head->capacity * head->block_bytes <= head->slices * SLICE_BYTES);
        for (uint32_t i = 0; i < head->slices; i++) prove(mid_head(&head[i]) == head);
        mid_clear_inner(head);
        for (uint32_t i = 1; i < head->slices; i++) prove(head[i].kind == SPAN_FREE && head[i].slices_from_head == 0);
    }
}

/* Any address of the span: what is found is the block that starts there. */
static void mid_index_of(unsigned first, unsigned end) {
    for (unsigned class = first; class < end; class ++) {
        struct span head = {0};
        mid_any(&head, class);
        head.start = (char *)(uintptr_t)(SLICE_BYTES * nondet_u16());
        uint32_t bytes = head.block_bytes, blocks = nondet_u8(), rest = nondet_u16();
        given(rest < bytes && blocks * bytes + rest < head.slices * SLICE_BYTES);
        uint32_t index = mid_index(&head, head.start + (blocks * bytes + rest));
        prove(index == (rest == 0 && blocks < head.limit ? blocks : MID_NO_BLOCK));
    }
}
void prove_mid_index_32(void) { mid_index_of(TINY_CLASSES, 42); }
void prove_mid_index_42(void) { mid_index_of(42, 52); }
void prove_mid_index_52(void) { mid_index_of(52, 62); }
void prove_mid_index_62(void) { mid_index_of(62, CLASSES); }

/* Any address at all: what is found is a block that was handed out, and starts there. */
void prove_mid_index_anywhere(void) {
    struct span head = {0};
    unsigned class = nondet_bool() ? TINY_CLASSES : CLASSES - 1;
    mid_any(&head, class);
    head.start = (char *)(uintptr_t)(SLICE_BYTES * nondet_u16());
    uint32_t offset = nondet_u32(), index = mid_index(&head, head.start + offset);
    prove(index == MID_NO_BLOCK || (index < head.limit && index * head.block_bytes == offset));
}

/* A bitmap of which `word` is not past a free block. */
static void bitmap_any(struct span *head) {
    mid_any(head, nondet_bool() ? TINY_CLASSES : CLASSES - 1);
    for (uint32_t word = 0; word < MID_WORDS; word++) head->free_mask[word] = nondet_u64();
    head->word = nondet_u8();
    head->used = nondet_u32();
    head->flags = nondet_u8();
    head->carved = nondet_u16();
    given(head->used < UINT16_MAX && head->carved <= head->capacity && head->limit <= head->carved &&
          head->word < MID_WORDS);
    for (uint32_t word = 0; word < MID_WORDS; word++) {
        given(word >= head->word || head->free_mask[word] == 0);
        given(head->carved >= 64 * word + 64 ||
              head->free_mask[word] >> (head->carved > 64 * word ? head->carved - 64 * word : 0) == 0);
    }
}
static bool is_free(const struct span *head, uint32_t index) {
    return (head->free_mask[index / 64] >> (index % 64) & 1) != 0;
}

void prove_mid_pop(void) {
    struct span head = {0}, before;
    uint32_t other = nondet_u32();
    bitmap_any(&head);
    head.start = (char *)(uintptr_t)SLICE_BYTES;
    given(other < MID_WORDS * 64);
    before = head;
    bool some = mid_ready(&head), clean;
    prove(some == ((before.free_mask[0] | before.free_mask[1] | before.free_mask[2]) != 0));
    if (!some) return;
    void *block = mid_pop(&head, &clean);
    prove(block != NULL);
    uint32_t index = (uint32_t)(((uintptr_t)block - SLICE_BYTES) / head.block_bytes);
    prove(index < head.carved && is_free(&before, index) && !is_free(&head, index));
    prove(index <= other || !is_free(&before, other)); /* the lowest */
    prove(other == index || is_free(&before, other) == is_free(&head, other));
    prove(head.used == before.used + 1 && head.limit > index && head.limit <= head.carved);
    if (clean) prove(index >= before.limit);
    mid_push(&head, index);
    prove(is_free(&head, other) == is_free(&before, other) && head.used == before.used);
    prove(mid_ready(&head) && head.word <= index / 64);
}

void prove_mid_carve(void) {
    struct span head = {0}, before;
    uint32_t other = nondet_u32();
    bitmap_any(&head);
    given(other < MID_WORDS * 64);
    given((head.free_mask[0] | head.free_mask[1] | head.free_mask[2]) == 0);
    before = head;
    bool done = mid_carve(&head);
    prove(done == (before.carved < before.capacity));
    if (!done) return;
    prove(head.carved > before.carved && head.carved <= head.capacity);
    prove(is_free(&head, other) == (other >= before.carved && other < head.carved));
    prove(mid_ready(&head));
}
