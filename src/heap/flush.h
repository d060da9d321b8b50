/* flush.h - give back at once what holds no live block, in every thread's caches, because somebody asks for it. */
#ifndef TIDE_HEAP_FLUSH_H
#define TIDE_HEAP_FLUSH_H

#include "base/base.h"

/* Free runs of pages are shared by all tiers, and go with any. */
enum flush_part { FLUSH_TINY = 1, FLUSH_MID = 2, FLUSH_LARGE = 4, FLUSH_ALL = 7 };

/* Bytes, whole pages: struct tide_flush_report says what they are. */
struct flush_result {
    size_t returned_bytes, kept_bytes, pinned_bytes, missed_bytes;
};

/* Returns the bytes that were resident and are given back. `result` costs a census; it may be NULL. From any thread; inside another operation it does
 * nothing. */
tide_hidden tide_cold size_t flush_now(unsigned parts, struct flush_result *result);
/* The same for the keeper, which has no operations and must not ring the bell. */
tide_hidden tide_cold size_t flush_inside(unsigned parts, struct flush_result *result);

#endif
