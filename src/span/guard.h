/* guard.h - what makes memory hard to attack, as far as it lies below the program's calls: secrets, chance, and pages that nobody may touch.
 *
 *   block, up to its last page | guard, to the end of the slice      large
 *   blocks ........... | rest  | guard: the last page of the span    tiny, mid
 *
 * Two levels. What is chosen off the hot path is in every build, and asked for with TIDE_SECURE=1: guards, large blocks that are out of reach
 * from their free until their place is used again (large.c), the place of a run of slices. What stands in the hot path is in the secure build only,
 * where SECURE_BUILD is one and all of the above is on: encoded links, checked keys, junk in free blocks, order by chance. Elsewhere the functions
 * for it are nothing, or hand back what they get. What concerns the program's calls is in heap/secure.h.
 *
 * The secrets are not cryptography: who can read what was made from them, many times, can find them.
 */
#ifndef TIDE_SPAN_GUARD_H
#define TIDE_SPAN_GUARD_H

#include "base/bits.h"
#include "os/options.h"
#include "span/span.h"

/* Made once, before the first block. A forked child shares them with its parent, since its free blocks are encoded with them. */
struct guard_secrets {
    uint64_t link, key, tail, chance;
};
extern tide_hidden struct guard_secrets guard_secrets;

tide_hidden void guard_init(void);
/* In a forked child: from now on its chance is its own. */
tide_hidden tide_cold void guard_forked(void);

tide_inline bool guard_is_on(void) { return SECURE_BUILD || load_relaxed(&options.secure) != 0; }

/* Every bit of the result depends on every bit of the word (the finisher of MurmurHash3, Appleby 2011). */
tide_inline uint64_t guard_mix(uint64_t word) {
    word = (word ^ (word >> 33)) * UINT64_C(0xff51afd7ed558ccd);
    word = (word ^ (word >> 33)) * UINT64_C(0xc4ceb9fe1a85ec53);
    return word ^ (word >> 33);
}

/* --- chance -------------------------------------------------------------------------------------------------------- */

/* Any thread, any time. */
tide_hidden uint64_t guard_random(void);
/* One of the ones of a mask that is not zero; the lowest while guards are off. */
tide_hidden unsigned guard_choose_by_chance(uint64_t mask);
tide_inline unsigned guard_choose(uint64_t mask) {
    return unlikely(guard_is_on()) ? guard_choose_by_chance(mask) : bits_lowest(mask);
}

/* The numbers from `first` on, as many as fit into a span, in an order by chance. In the default build their own order, and nothing is stored. */
struct guard_order {
    uint32_t first;
    uint16_t numbers[SECURE_BUILD ? SLICE_BYTES / 16 : 1];
};
tide_hidden void guard_shuffle(struct guard_order *order, uint32_t first, uint32_t end);
tide_inline void guard_order_make(struct guard_order *order, uint32_t first, uint32_t end) {
    if (SECURE_BUILD) guard_shuffle(order, first, end);
}
tide_inline uint32_t guard_order_at(const struct guard_order *order, uint32_t i) {
    return SECURE_BUILD ? order->numbers[i - order->first] : i;
}

/* --- free blocks: the secure build only ------------------------------------------------------------------------------ */

/* What stands in `at`, the place of a link, instead of the link; and back. */
tide_inline void *guard_link(const void *at, const void *link) {
    return (void *)((uintptr_t)link ^ (SECURE_BUILD ? guard_mix((uintptr_t)at ^ guard_secrets.link) : 0));
}

/* What stands in a free block as its key. */
tide_inline uintptr_t guard_key(uintptr_t key) { return SECURE_BUILD ? guard_mix(key ^ guard_secrets.key) : key; }

/* Free blocks are full of it. As a pointer it points nowhere. */
#define GUARD_JUNK 0xdf
#define GUARD_JUNK_WORD UINT64_C(0xdfdfdfdfdfdfdfdf)

tide_inline void guard_fill(void *from, size_t bytes) {
    if (SECURE_BUILD) memset(from, GUARD_JUNK, bytes);
}

/* Whether junk is still junk; at least a word. */
tide_hidden bool guard_is_junk(const void *from, size_t bytes);
/* The same for memory that may have been given back since, page by page. */
tide_hidden bool guard_is_junk_or_gone(const void *from, size_t bytes);
/* Somebody has written to a free block: say so, and abort. */
tide_hidden _Noreturn void guard_fatal_stale(const void *block);

/* --- pages that nobody may touch --------------------------------------------------------------------------------------- */

/* How a guard was made. Marks in the page table cost no mapping (MADV_GUARD_INSTALL, Linux 6.13). Without them a guard splits a mapping, of which a process
 * has 65,530, so there are at most GUARD_MAPPINGS_MAX; then there are none. */
enum guard { GUARD_NONE, GUARD_MARKS, GUARD_MAPPING };
#define GUARD_MAPPINGS_MAX 8192u

/* So much at the end of each span is left for a guard. None where pages are so large that it would be a waste. */
tide_inline size_t guard_bytes(void) {
    return unlikely(guard_is_on()) && os_page_bytes <= SLICE_BYTES / 8 ? os_page_bytes : 0;
}

/* Make pages inaccessible. What they hold is lost, whatever comes of it; says how it was done. */
tide_hidden tide_cold enum guard guard_set(void *at, size_t bytes);
/* Make them accessible again. */
tide_hidden tide_cold void guard_clear(void *at, size_t bytes, enum guard guard);
/* The guard at the end of a tiny or mid span. */
tide_hidden tide_cold void guard_span(struct span *head);
tide_hidden tide_cold void guard_span_clear(struct span *head);

#endif
