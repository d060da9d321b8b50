#include "heap/remote.h"

/* Acquire and release on both sides: the owner has read remote_next before it clears `queued`, and a pusher writes it after it has set that. */
bool remote_push(struct span *span, struct block *block, uint32_t index) {
    uint64_t old = atomic_load_explicit(&span->remote, memory_order_relaxed);
    uint64_t word;
    do {
        block->next = guard_link(block, (void *)(uintptr_t)remote_head(old));
        word = (old & ~(uint64_t)0xffff) + ((uint64_t)1 << 16) + (index + 1);
        word |= REMOTE_QUEUED;
    } while (
        !atomic_compare_exchange_weak_explicit(&span->remote, &old, word, memory_order_acq_rel, memory_order_relaxed));
    if ((old & REMOTE_QUEUED) != 0) return false;
    remote_enqueue(span);
    return true;
}

bool remote_withdraw(struct span *span) {
    return (atomic_fetch_or_explicit(&span->remote, REMOTE_QUEUED, memory_order_acq_rel) & REMOTE_QUEUED) == 0;
}

void remote_enqueue(struct span *span) {
    struct heap *heap = span->heap;
    struct span *first = atomic_load_explicit(&heap->remote, memory_order_relaxed);
    do span->remote_next = first;
    while (!atomic_compare_exchange_weak_explicit(&heap->remote, &first, span, memory_order_seq_cst,
                                                  memory_order_relaxed));
}

uint64_t remote_take_all(struct span *span) { return atomic_exchange_explicit(&span->remote, 0, memory_order_acq_rel); }

struct span *remote_take_queue(struct heap *heap) {
    if (atomic_load_explicit(&heap->remote, memory_order_seq_cst) == NULL) return NULL;
    return atomic_exchange_explicit(&heap->remote, NULL, memory_order_acquire);
}
