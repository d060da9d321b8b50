#include "heap/punch.h"

#include "heap/own.h"
#include "heap/remote.h"
#include "span/run.h"

/* A tiny span's memory was all written when its blocks were made. Where it is not resident now it is swapped out, and a walk would bring it
 * back. The page of the last block may never have been touched. */
static bool is_swapped_out(const struct span *span) {
    uint32_t punched = atomic_load_explicit(&span->punched, memory_order_relaxed);
    size_t touched = size_round_up(span->limit, os_page_bytes) - bits_count(punched) * os_page_bytes;
    return os_resident_bytes(span_start(span), SLICE_BYTES) + os_page_bytes < touched;
}

static bool find_pages(struct span *span, uint64_t pages[MID_PAGE_WORDS]) {
    bool some;
    if (span->kind == SPAN_MID) {
        some = mid_punch(span, pages);
    } else {
        if (is_swapped_out(span)) return false;
        pages[0] = tiny_punch(span);
        pages[1] = 0;
        some = pages[0] != 0;
    }
    span->flags &= (uint8_t)~SPAN_POPULATED;
    return some;
}

/* The next span of a class. Of the list only the front was not punched yet. */
static bool take_one(struct punch *punch, struct heap *heap, unsigned class) {
    struct span *span = heap->listed[class].first;
    if (span == NULL || (span->flags & SPAN_PUNCHED) != 0) return false;
    heap_unlist(heap, span);
    span->flags |= SPAN_PUNCHED;
    span_set_aside(span);
    uint64_t *pages = punch->spans[punch->count].pages;
    if (!remote_withdraw(span)) { /* somebody has just freed into it: later */
        heap_list(heap, span);
    } else if (!find_pages(span, pages)) {
        span->flags |= SPAN_IN_HAND;
        remote_enqueue(span);
    } else {
        span->flags |= SPAN_IN_HAND;
        punch->spans[punch->count].span = span;
        punch->count++;
    }
    return true;
}

bool punch_take(struct punch *punch, struct heap *heap, unsigned tiers) {
    unsigned looks = 0;
    unsigned first = (tiers & TIER_TINY) != 0 ? 0 : TINY_CLASSES;
    unsigned end = (tiers & TIER_MID) != 0 ? CLASSES : TINY_CLASSES;
    punch->heap = heap;
    for (unsigned class = first; class < end; class ++)
        while (take_one(punch, heap, class))
            if (punch->count == PUNCH_SPANS || ++looks == PUNCH_SPANS ||
                atomic_load_explicit(&heap->waiting, memory_order_relaxed) != 0) /* a look takes 10 us */
                return true;
    return false;
}

static size_t purge_pages(char *start, uint64_t pages) {
    size_t bytes = 0;
    while (pages != 0) {
        unsigned first = bits_lowest(pages);
        uint64_t rest = ~(pages >> first);
        unsigned count = rest == 0 ? 64 : bits_lowest(rest);
        char *at = start + first * os_page_bytes;
        size_t resident = os_resident_bytes(at, count * os_page_bytes);
        if (resident != 0 && os_purge(at, count * os_page_bytes) == 0) bytes += resident;
        pages &= count == 64 ? 0 : ~((((uint64_t)1 << count) - 1) << first);
    }
    return bytes;
}

size_t punch_purge(const struct punch *punch) {
    size_t bytes = 0;
    for (unsigned i = 0; i < punch->count; i++)
        for (unsigned word = 0; word < MID_PAGE_WORDS; word++)
            bytes +=
                purge_pages(span_start(punch->spans[i].span) + word * 64 * os_page_bytes, punch->spans[i].pages[word]);
    run_count_returned(bytes);
    return bytes;
}

void punch_end(struct punch *punch) {
    while (punch->count > 0) remote_enqueue(punch->spans[--punch->count].span);
}
