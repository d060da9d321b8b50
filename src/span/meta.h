/* meta.h - memory for the allocator's own long-lived structs: never given back, zeroed, aligned to a cache line. */
#ifndef TIDE_SPAN_META_H
#define TIDE_SPAN_META_H

#include "base/base.h"

/* What /proc/PID/maps calls it. */
#define META_LABEL "tidemalloc: metadata"

/* `bytes` of zeroed memory. Thread-safe. NULL: no memory. */
tide_hidden void *meta_take(size_t bytes);
tide_hidden size_t meta_bytes(void);
/* A jump has left an operation that may have held the lock: give up what it was cutting up. */
tide_hidden void meta_abandon(void);
/* For fork: nobody may hold its lock while the process is copied. */
tide_hidden struct os_lock *meta_lock(void);
tide_hidden tide_cold const char *meta_validate(void);

#endif
