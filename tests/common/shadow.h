/* shadow.h - blocks with a shadow: what a stress test knows about every block it holds.
 *
 *   shadow table (mmap'ed, shared by all threads)          the block itself
 *   +------+------+------+------+-----------+------+        +---------------------------------+
 *   | busy | p    | size | seed | alignment | ...  | -----> | words made from seed and offset |
 *   +------+------+------+------+-----------+------+        +---------------------------------+
 *
 * The seed mixes address, size and a sequence number, so two blocks never carry the same words: memory that is handed out
 * twice, lost in realloc or touched after free is seen when either owner checks. Blocks up to 64 KiB are filled wholly, in
 * larger ones the first and last 64 bytes and 64 bytes of every page.
 *
 * A record belongs to one thread at a time. `busy` is set while its owner changes it, so that a forked child or code after
 * a siglongjmp knows which records are half done. */
#ifndef TIDE_TEST_SHADOW_H
#define TIDE_TEST_SHADOW_H

#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stddef.h>

typedef struct shadow {
    atomic_int busy;
    uint32_t alignment; /* what was asked for; at least 16 */
    unsigned char *p;   /* NULL: no block */
    size_t size;
    uint64_t seed;
} shadow_t;

/* Set by a thread while it runs a signal handler that may have interrupted the allocator: then blocks above 1000 bytes, or
 * aligned to more than 16, may be refused (errno ENOMEM). A refused record stays as it is. */
extern _Thread_local volatile sig_atomic_t shadow_refusal_allowed;
/* A value of it: any allocation may be refused, but a realloc to a smaller size may not. For tests that take memory or system calls away. */
#define SHADOW_REFUSE_ANY 2
/* What was refused so far. */
extern atomic_ullong shadow_refusals;

/* A table of empty records outside the heap under test. It is never given back. */
shadow_t *shadow_table_make(size_t count);

/* Allocate through a random entry point with a random size, check alignment, usable size and zeroing, fill. The record must
 * be empty. `largest` bounds the size. Fails the test when memory is refused. */
void shadow_allocate(shadow_t *record, uint64_t *random, size_t largest);
/* Allocate `size` bytes by malloc; 0 when refused. */
int shadow_malloc(shadow_t *record, uint64_t *random, size_t size);
/* realloc or reallocarray to a random size; checks that the content came along. The record must hold a block. */
void shadow_resize(shadow_t *record, uint64_t *random, size_t largest);
/* Check the words, then free through a random entry point. The record is empty afterwards. */
void shadow_free(shadow_t *record, uint64_t *random);
/* Check the words only. */
void shadow_verify(const shadow_t *record);
/* Check all records that are not busy, and that no two of their blocks overlap (usable bytes included). No other thread may
 * change the records meanwhile. */
void shadow_table_verify(const shadow_t *table, size_t count);

/* One random step on one record: allocate when empty, else free, resize or verify. */
void shadow_step(shadow_t *record, uint64_t *random, size_t largest);

/* A size from a mix that visits all tiers and the edges between their classes, at most `largest`. */
size_t shadow_random_size(uint64_t *random, size_t largest);

#endif
