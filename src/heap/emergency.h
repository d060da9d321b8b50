/* emergency.h - memory for operations that interrupt another one of the same thread.
 *
 * A signal handler that allocates while its thread is inside malloc must not touch the heap and must not wait for a lock that
 * the interrupted operation may hold. Small blocks come from a lock-free stack of fixed ones in the region; others are mappings of their own,
 * outside of it, listed in a small table. Async-signal-safe; thread-safe.
 */
#ifndef TIDE_HEAP_EMERGENCY_H
#define TIDE_HEAP_EMERGENCY_H

#include "span/span.h"

#define EMERGENCY_BLOCK_BYTES 1024u

/* Take the address space, once. */
tide_hidden void emergency_init(void);
/* `alignment` is a power of two. NULL: none left (the table has room for 256 mappings). */
tide_hidden void *emergency_take(size_t size, size_t alignment);
enum emergency_result { EMERGENCY_FREED, EMERGENCY_INSIDE, EMERGENCY_TWICE };
/* A block of a span of the emergency kind. */
tide_hidden enum emergency_result emergency_put(void *block);
/* A mapping, by its start. False: it is none. */
tide_hidden bool emergency_unmap(void *address);
/* The usable bytes of a mapping by its start, 0 if it is none. */
tide_hidden size_t emergency_mapped_bytes(const void *address);
/* `still`: nobody takes or frees one meanwhile. */
tide_hidden tide_cold const char *emergency_validate(bool still);

/* A large block that a handler frees waits here for the next slow operation, flush or sweep: the run lock may be taken. */
tide_hidden void emergency_defer(void *large_block);
/* Free those that wait; not from a handler. */
tide_hidden void emergency_settle(void);

#endif
