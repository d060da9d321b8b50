#include "span/meta.h"

#include "os/os.h"

#define META_BLOCK_BYTES (64 * KIB)

/* Memory between two pages that nobody may touch, so that nothing runs over from a neighbour. */
static char *meta_map(size_t bytes) {
    char *start = os_map(bytes + 2 * os_page_bytes);
    if (start == NULL) return NULL;
    os_protect(start, os_page_bytes);
    os_protect(start + os_page_bytes + bytes, os_page_bytes);
    return start + os_page_bytes;
}

static struct os_lock meta_guard = OS_LOCK(RANK_META);
static char *meta_next;
static size_t meta_left;
static _Atomic size_t meta_total;

void *meta_take(size_t bytes) {
    bytes = size_round_up(bytes, 64);
    os_lock_take(&meta_guard);
    if (bytes > meta_left) {
        size_t block = size_max(META_BLOCK_BYTES, size_round_up(bytes, os_page_bytes));
        char *fresh = meta_map(block);
        if (fresh == NULL) {
            os_lock_drop(&meta_guard);
            return NULL;
        }
        os_label(fresh, block, META_LABEL);
        meta_next = fresh;
        meta_left = block;
        atomic_store_explicit(&meta_total, meta_bytes() + block, memory_order_relaxed);
    }
    char *result = meta_next;
    meta_next += bytes;
    meta_left -= bytes;
    os_lock_drop(&meta_guard);
    return result;
}

size_t meta_bytes(void) { return load_relaxed(&meta_total); }

void meta_abandon(void) {
    if (os_lock_is_mine(&meta_guard)) meta_left = 0;
    os_lock_abandon(&meta_guard);
}

struct os_lock *meta_lock(void) {
    return &meta_guard;
}

const char *meta_validate(void) {
    os_lock_take(&meta_guard);
    bool whole = meta_left <= meta_bytes() && meta_left % 64 == 0 && (uintptr_t)meta_next % 64 == 0;
    os_lock_drop(&meta_guard);
    invariant(whole, "meta: what is left");
    return NULL;
}
