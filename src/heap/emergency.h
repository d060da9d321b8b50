/* emergency.h - memory for operations that interrupt another one of the same thread.
 *
 * A signal handler that allocates while its thread is inside malloc must not touch the heap and must not wait for a lock that
 * the interrupted operation may hold. Small blocks come from a lock-free stack of fixed ones; larger ones from the page runs if their lock
 * is free at this moment. Async-signal-safe; thread-safe.
 */
#ifndef TIDE_HEAP_EMERGENCY_H
#define TIDE_HEAP_EMERGENCY_H

#include "span/span.h"

#define EMERGENCY_BLOCK_BYTES 1024u

/* Take the address space, once. */
tide_hidden void emergency_init(void);
/* NULL: none at the moment. */
tide_hidden void *emergency_take(size_t size);
enum emergency_result { EMERGENCY_FREED, EMERGENCY_INSIDE, EMERGENCY_TWICE };
tide_hidden enum emergency_result emergency_put(void *block);

/* Large blocks that a handler freed while the run lock was taken wait here for the next ordinary operation. */
tide_hidden void emergency_defer(void *large_block);
/* Free those that wait. Run lock not held by the interrupted operation. */
tide_hidden void emergency_settle(void);
/* Large blocks in a handler: only while the run lock can be had at once. */
tide_hidden bool emergency_lock(void);
tide_hidden void emergency_unlock(void);

#endif
