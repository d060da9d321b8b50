#include "span/guard.h"

#include "os/report.h"
#include "span/region.h"

struct guard_secrets guard_secrets;

static _Atomic uint32_t guard_mappings; /* guards that split a mapping, now */

/* Each thread draws from a sequence of its own. */
static _Atomic uint64_t guard_sequences;
static __thread uint64_t guard_drawn __attribute__((tls_model("initial-exec")));

void guard_init(void) { os_random(&guard_secrets, sizeof guard_secrets); }

void guard_forked(void) {
    if (guard_is_on()) os_random(&guard_secrets.chance, sizeof guard_secrets.chance);
}

/* --- chance -------------------------------------------------------------------------------------------------------- */

#define GOLDEN \
    UINT64_C(0x9e3779b97f4a7c15) /* steps of it come back to the start as late as can be (Steele, Lea, Flood 2014) */

uint64_t guard_random(void) {
    if (guard_drawn == 0)
        guard_drawn = guard_mix(atomic_fetch_add_explicit(&guard_sequences, 1, memory_order_relaxed) + GOLDEN);
    guard_drawn += GOLDEN;
    return guard_mix(guard_drawn ^ guard_secrets.chance);
}

/* 0 .. count - 1; count < 2^32. */
static uint32_t chance_below(uint32_t count) { return (uint32_t)(((guard_random() >> 32) * count) >> 32); }

unsigned guard_choose_by_chance(uint64_t mask) {
    for (uint32_t skip = chance_below(bits_count(mask)); skip > 0; skip--) mask &= mask - 1;
    return bits_lowest(mask);
}

#ifdef TIDE_SECURE

/* Fisher and Yates, from the inside out. */
void guard_shuffle(struct guard_order *order, uint32_t first, uint32_t end) {
    order->first = first;
    for (uint32_t i = 0; i < end - first; i++) {
        uint32_t place = chance_below(i + 1);
        order->numbers[i] = order->numbers[place];
        order->numbers[place] = (uint16_t)(first + i);
    }
}

/* --- free blocks ----------------------------------------------------------------------------------------------------- */

/* All words are like the first one: each is compared with the one before. */
static bool is_all(const char *from, size_t bytes, uint64_t word) {
    return memcmp(from, &word, sizeof word) == 0 && memcmp(from, from + sizeof word, bytes - sizeof word) == 0;
}

bool guard_is_junk(const void *from, size_t bytes) { return is_all(from, bytes, GUARD_JUNK_WORD); }

bool guard_is_junk_or_gone(const void *from, size_t bytes) {
    const char *at = from, *end = at + bytes;
    while (at < end) {
        size_t part = size_min(os_page_bytes - ((uintptr_t)at & (os_page_bytes - 1)), (size_t)(end - at));
        if (!is_all(at, part, GUARD_JUNK_WORD) && !is_all(at, part, 0)) return false;
        at += part;
    }
    return true;
}

void guard_fatal_stale(const void *block) { report_fatal("heap", block, "was written to after it was freed"); }

#endif

/* --- pages ----------------------------------------------------------------------------------------------------------- */

enum guard guard_set(void *at, size_t bytes) {
    if (os_guard(at, bytes) == 0) return GUARD_MARKS;
    os_purge(at, bytes);
    if (atomic_fetch_add_explicit(&guard_mappings, 1, memory_order_relaxed) < GUARD_MAPPINGS_MAX &&
        os_protect(at, bytes) == 0)
        return GUARD_MAPPING;
    atomic_fetch_sub_explicit(&guard_mappings, 1, memory_order_relaxed);
    return GUARD_NONE;
}

void guard_clear(void *at, size_t bytes, enum guard guard) {
    if (guard == GUARD_NONE) return;
    int error = guard == GUARD_MARKS ? os_unguard(at, bytes) : os_commit(at, bytes);
    if (error != 0) os_renew(at, bytes, REGION_LABEL); /* anything is better than pages that nobody can use */
    if (guard == GUARD_MAPPING) atomic_fetch_sub_explicit(&guard_mappings, 1, memory_order_relaxed);
}

static char *span_guard(const struct span *head) {
    return span_start(head) + head->slices * SLICE_BYTES - os_page_bytes;
}

void guard_span(struct span *head) {
    if (guard_bytes() != 0) head->guard = (uint8_t)guard_set(span_guard(head), os_page_bytes);
}

void guard_span_clear(struct span *head) { guard_clear(span_guard(head), os_page_bytes, head->guard); }
