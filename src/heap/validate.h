/* validate.h - what must hold for heaps and their spans, and for all that there is. Each layer checks its own (run_validate, tiny_validate,
 * ...); a *_validate() returns the name of the first broken invariant, NULL when all hold.
 *
 * Debug builds check what a slow operation has touched, and now and then its whole heap. With TIDE_CHECK=1 a release build, too, checks each heap that
 * somebody else acts for (claim.h), and the page runs, whenever caches are swept: at the keeper's ticks and in each flush.
 */
#ifndef TIDE_HEAP_VALIDATE_H
#define TIDE_HEAP_VALIDATE_H

#include "heap/heap.h"

/* The caller owns the heap, as own.h says. */
tide_hidden tide_cold const char *heap_validate(struct heap *heap);
/* Everything, and every slice. Nobody else runs. Debug builds and tests only, like the other checks of what may not be looked at beside other threads. */
tide_hidden tide_cold const char *heap_validate_all(void);

/* One line and abort, unless it is NULL. */
tide_hidden tide_cold void validate_must(const char *broken);
/* If wanted: a heap that the caller owns; what all share, with no lock held after the claim lock; both, in a forked child. */
tide_hidden tide_cold void validate_heap(struct heap *heap);
tide_hidden tide_cold void validate_shared(void);
tide_hidden tide_cold void validate_child(void);

/* At the end of a slow operation of the owner's: the span that it has made current, or NULL. */
/* A large block that was taken or resized, or is about to be freed; not NULL's. */
#ifdef TIDE_DEBUG
tide_hidden tide_cold void validate_slow(struct heap *heap, const struct span *span);
tide_hidden tide_cold void validate_large(const void *block);
#else
tide_inline void validate_slow(struct heap *heap, const struct span *span) { (void)heap, (void)span; }
tide_inline void validate_large(const void *block) { (void)block; }
#endif

#endif
