#include "heap/emergency.h"

#include "heap/block.h"
#include "span/run.h"
#include "tier/large.h"

#define EMERGENCY_SLICES 16u
#define EMERGENCY_BLOCKS (EMERGENCY_SLICES * SLICE_BYTES / EMERGENCY_BLOCK_BYTES)

/* A Treiber stack of block numbers + 1. The upper half of the head counts the pops, so that a head that returns is recognised (ABA).
 * `next` tells a free block from a live one, too. */
#define LIVE UINT32_MAX
static _Atomic(char *) emergency_start;  /* NULL: the process is about to begin, or there is no memory */
static _Atomic uint32_t emergency_fresh; /* blocks from here on were never used */
static _Atomic uint64_t emergency_head;
static _Atomic uint32_t emergency_next[EMERGENCY_BLOCKS];
static _Atomic(void *) emergency_deferred;

void emergency_init(void) {
    struct span *head = run_take(EMERGENCY_SLICES, 1);
    if (head == NULL) return;
    for (uint32_t i = 0; i < EMERGENCY_SLICES; i++) {
        head[i].block_bytes = EMERGENCY_BLOCK_BYTES;
        head[i].kind = SPAN_EMERGENCY;
    }
    /* A handler may have interrupted a thread that waits for this: what it sees is whole. */
    atomic_store_explicit(&emergency_start, span_start(head), memory_order_release);
}

static char *emergency_base(void) { return atomic_load_explicit(&emergency_start, memory_order_acquire); }

static void *emergency_block(uint32_t index) {
    atomic_store_explicit(&emergency_next[index], LIVE, memory_order_relaxed);
    return emergency_base() + (size_t)index * EMERGENCY_BLOCK_BYTES;
}

static void *emergency_pop(void) {
    if (emergency_base() == NULL) return NULL;
    uint64_t head = atomic_load_explicit(&emergency_head, memory_order_acquire);
    while ((uint32_t)head != 0) {
        uint32_t index = (uint32_t)head - 1;
        uint64_t next = atomic_load_explicit(&emergency_next[index], memory_order_relaxed);
        uint64_t after = ((head >> 32) + 1) << 32 | next;
        if (atomic_compare_exchange_weak_explicit(&emergency_head, &head, after, memory_order_acquire,
                                                  memory_order_acquire))
            return emergency_block(index);
    }
    uint32_t fresh = atomic_load_explicit(&emergency_fresh, memory_order_relaxed);
    while (fresh < EMERGENCY_BLOCKS)
        if (atomic_compare_exchange_weak_explicit(&emergency_fresh, &fresh, fresh + 1, memory_order_relaxed,
                                                  memory_order_relaxed))
            return emergency_block(fresh);
    return NULL;
}

/* --- mappings ------------------------------------------------------------------------------------------------------- */

#define EMERGENCY_MAPS 256u
/* Address | 1 while an entry is being filled or emptied: then only its thread looks at `bytes`. */
static struct {
    _Atomic uintptr_t address;
    _Atomic size_t bytes;
} emergency_maps[EMERGENCY_MAPS];

static void *emergency_map(size_t size, size_t alignment) {
    if (size > PTRDIFF_MAX || alignment > PTRDIFF_MAX / 2) return NULL;
    if (unlikely(os_page_bytes == 0)) os_init();
    size = size_round_up(size_max(size, 1), os_page_bytes);
    for (uint32_t i = 0; i < EMERGENCY_MAPS; i++) {
        uintptr_t empty = 0;
        if (!atomic_compare_exchange_strong_explicit(&emergency_maps[i].address, &empty, 1, memory_order_acquire,
                                                     memory_order_relaxed))
            continue;
        void *block = os_reserve(size, size_max(alignment, os_page_bytes));
        if (block != NULL && os_commit(block, size) != 0) {
            os_release(block, size);
            block = NULL;
        }
        atomic_store_explicit(&emergency_maps[i].bytes, size, memory_order_relaxed);
        atomic_store_explicit(&emergency_maps[i].address, (uintptr_t)block, memory_order_release);
        return block;
    }
    return NULL;
}

bool emergency_unmap(void *address) {
    for (uint32_t i = 0; i < EMERGENCY_MAPS; i++) {
        uintptr_t held = (uintptr_t)address;
        if (!atomic_compare_exchange_strong_explicit(&emergency_maps[i].address, &held, 1, memory_order_acquire,
                                                     memory_order_relaxed))
            continue;
        os_release(address, atomic_load_explicit(&emergency_maps[i].bytes, memory_order_relaxed));
        atomic_store_explicit(&emergency_maps[i].address, 0, memory_order_release);
        return true;
    }
    return false;
}

size_t emergency_mapped_bytes(const void *address) {
    for (uint32_t i = 0; i < EMERGENCY_MAPS; i++)
        if (atomic_load_explicit(&emergency_maps[i].address, memory_order_acquire) == (uintptr_t)address)
            return atomic_load_explicit(&emergency_maps[i].bytes, memory_order_relaxed);
    return 0;
}

void *emergency_take(size_t size, size_t alignment) {
    void *block = NULL;
    if (size <= EMERGENCY_BLOCK_BYTES && alignment <= EMERGENCY_BLOCK_BYTES) block = emergency_pop();
    return block != NULL ? block : emergency_map(size, alignment);
}

/* --- giving back ---------------------------------------------------------------------------------------------------- */

enum emergency_result emergency_put(void *block) {
    size_t offset = (size_t)((char *)block - emergency_base());
    uint32_t index = (uint32_t)(offset / EMERGENCY_BLOCK_BYTES);
    if (offset % EMERGENCY_BLOCK_BYTES != 0) return EMERGENCY_INSIDE;
    uint32_t live = LIVE;
    if (!atomic_compare_exchange_strong_explicit(&emergency_next[index], &live, 0, memory_order_relaxed,
                                                 memory_order_relaxed))
        return EMERGENCY_TWICE;
    uint64_t head = atomic_load_explicit(&emergency_head, memory_order_relaxed);
    uint64_t after;
    do {
        atomic_store_explicit(&emergency_next[index], (uint32_t)head, memory_order_relaxed);
        after = (head >> 32 << 32) | (index + 1);
    } while (!atomic_compare_exchange_weak_explicit(&emergency_head, &head, after, memory_order_release,
                                                    memory_order_relaxed));
    return EMERGENCY_FREED;
}

void emergency_defer(void *large_block) {
    void *first = atomic_load_explicit(&emergency_deferred, memory_order_relaxed);
    do *(void **)large_block = first;
    while (!atomic_compare_exchange_weak_explicit(&emergency_deferred, &first, large_block, memory_order_release,
                                                  memory_order_relaxed));
}

void emergency_settle(void) {
    if (atomic_load_explicit(&emergency_deferred, memory_order_relaxed) == NULL) return;
    void *block = atomic_exchange_explicit(&emergency_deferred, NULL, memory_order_acquire);
    while (block != NULL) {
        void *next = *(void **)block;
        if (!large_release(region_span(region_of(block), block)))
            block_fatal_free("free()", block); /* it waited twice */
        block = next;
    }
}

const char *emergency_validate(bool still) {
    uint32_t free_count = 0, reached = 0, entries[EMERGENCY_BLOCKS];
    uint32_t head = (uint32_t)atomic_load_explicit(&emergency_head, memory_order_acquire);
    for (uint32_t i = 0; i < EMERGENCY_BLOCKS; i++)
        entries[i] = atomic_load_explicit(&emergency_next[i], memory_order_relaxed);
    uint32_t fresh = atomic_load_explicit(&emergency_fresh, memory_order_relaxed); /* after them: it only grows */
    invariant(fresh <= EMERGENCY_BLOCKS && head <= fresh, "emergency: a block that was never made");
    for (uint32_t i = 0; i < EMERGENCY_BLOCKS; i++) {
        invariant(entries[i] == LIVE || entries[i] <= fresh, "emergency: a link that leads to no block");
        free_count += i < fresh && entries[i] != LIVE;
    }
    for (uint32_t i = 0; i < EMERGENCY_MAPS; i++) {
        uintptr_t address = atomic_load_explicit(&emergency_maps[i].address, memory_order_acquire);
        invariant(address <= 1 || address % os_page_bytes == 0, "emergency: a mapping's address");
    }
    if (!still || emergency_start == NULL) return NULL; /* the rest is for tests */
    for (uint32_t link = head; link != 0 && reached <= free_count; link = entries[link - 1]) {
        invariant(entries[link - 1] != LIVE, "emergency: a live block is on the list");
        reached++;
    }
    invariant(reached == free_count, "emergency: free blocks and list");
    return NULL;
}
