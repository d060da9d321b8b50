#define _GNU_SOURCE 1
#include "shadow.h"

#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "check.h"
#include "subject.h"

enum { WHOLE_BYTES = 64 * 1024, STRIDE_BYTES = 4096, SAMPLE_BYTES = 64 };

shadow_t *shadow_table_make(size_t count) {
    void *table = mmap(NULL, count * sizeof(shadow_t), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(table != MAP_FAILED);
    return table;
}

static uint64_t word_at(uint64_t seed, size_t offset) { return (seed + offset) * 0x9e3779b97f4a7c15u; }

/* Ranges start at multiples of 8. The last word may be cut. */
static void range_fill(unsigned char *p, size_t from, size_t to, uint64_t seed) {
    size_t i = from;
    for (; i + 8 <= to; i += 8) {
        uint64_t word = word_at(seed, i);
        memcpy(p + i, &word, 8);
    }
    uint64_t word = word_at(seed, i);
    memcpy(p + i, &word, to - i);
}

static void range_verify(const unsigned char *p, size_t from, size_t to, uint64_t seed, size_t size) {
    for (size_t i = from; i < to; i += 8) {
        uint64_t expected = word_at(seed, i);
        size_t bytes = to - i < 8 ? to - i : 8;
        CHECKF(memcmp(p + i, &expected, bytes) == 0, "block %p of %zu bytes changed at %zu", (const void *)p, size, i);
    }
}

/* The ranges to fill or verify in the first `limit` bytes of a block of `size` bytes. Which bytes carry words depends on
 * `size` alone, so a block that realloc cut or moved can still be verified. */
#define FOR_RANGES(size, limit, body) \
    do { \
        if ((size) <= WHOLE_BYTES) { \
            size_t from = 0, to = (limit); \
            body; \
        } else { \
            for (size_t from = 0; from + SAMPLE_BYTES <= (limit); from += STRIDE_BYTES) { \
                size_t to = from + SAMPLE_BYTES; \
                body; \
            } \
            if ((limit) == (size)) { \
                size_t from = ((size)-SAMPLE_BYTES) & ~(size_t)7, to = (size); \
                body; \
            } \
        } \
    } while (0)

static void block_fill(unsigned char *p, size_t size, uint64_t seed) {
    FOR_RANGES(size, size, range_fill(p, from, to, seed));
}

/* The first `limit` bytes at p came from a block that was filled with `size` and `seed`. */
static void block_verify(const unsigned char *p, size_t size, size_t limit, uint64_t seed) {
    FOR_RANGES(size, limit, range_verify(p, from, to, seed, size));
}

static void block_verify_zero(const unsigned char *p, size_t size) {
    size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        uint64_t word;
        memcpy(&word, p + i, 8);
        CHECKF(word == 0, "calloc: %p of %zu bytes is not zero at %zu", (const void *)p, size, i);
    }
    for (; i < size; i++) CHECKF(p[i] == 0, "calloc: %p of %zu bytes is not zero at %zu", (const void *)p, size, i);
}

size_t shadow_random_size(uint64_t *random, size_t largest) {
    size_t size;
    size_t kind = random_below(random, 200);
    if (kind < 90)
        size = random_below(random, 129);
    else if (kind < 140)
        size = random_below(random, 1025);
    else if (kind < 165)
        size = random_below(random, 32 * 1024 + 1);
    else if (kind < 185) {
        /* Around the edges: eighths of a doubling, one byte to either side. */
        size_t doubling = (size_t)16 << random_below(random, 15);
        size = doubling + doubling / 8 * random_below(random, 8) + random_below(random, 3) - 1;
    } else if (kind < 199)
        size = random_below(random, 256 * 1024);
    else
        size = random_below(random, 4 * 1024 * 1024);
    return size <= largest ? size : size % (largest + 1);
}

_Thread_local volatile sig_atomic_t shadow_refusal_allowed;
atomic_ullong shadow_refusals;

/* The largest block that a handler always gets. */
enum { HANDLER_BYTES = 1000 };

static int is_proper_refusal(const void *p, size_t size, size_t alignment) {
    if (p != NULL || !shadow_refusal_allowed || errno != ENOMEM) return 0;
    if (shadow_refusal_allowed != SHADOW_REFUSE_ANY && size <= HANDLER_BYTES && alignment <= 16) return 0;
    atomic_fetch_add(&shadow_refusals, 1);
    return 1;
}

/* A block has arrived: check what every block promises, take note, fill. */
static void record_accept(shadow_t *record, void *p, size_t size, size_t alignment, uint64_t *random) {
    CHECKF(p != NULL, "no memory for %zu bytes at alignment %zu, errno %d", size, alignment, errno);
    CHECKF((uintptr_t)p % alignment == 0, "%p of %zu bytes is not aligned to %zu", p, size, alignment);
    size_t usable = malloc_usable_size(p);
    CHECKF(usable >= size, "%p of %zu bytes has a usable size of %zu", p, size, usable);
    /* Every eighth block uses all that it may. */
    if (random_below(random, 8) == 0) size = usable;
    record->alignment = (uint32_t)alignment;
    record->p = p;
    record->size = size;
    record->seed = random_next(random) ^ (uint64_t)(uintptr_t)p ^ (uint64_t)size << 40;
    block_fill(record->p, record->size, record->seed);
}

void shadow_allocate(shadow_t *record, uint64_t *random, size_t largest) {
    CHECK(record->p == NULL);
    atomic_store(&record->busy, 1);
    size_t size = shadow_random_size(random, largest);
    size_t alignment = 16;
    void *p = NULL;
    switch (random_below(random, 16)) {
    case 0:
    case 1:
    case 2: {
        size_t count = 1 + random_below(random, 8);
        p = calloc(count, size / count);
        size = count * (size / count);
        if (p != NULL) block_verify_zero(p, size);
        break;
    }
    case 3:
        alignment = (size_t)16 << random_below(random, 13);
        errno = posix_memalign(&p, alignment, size);
        break;
    case 4:
        alignment = (size_t)16 << random_below(random, 10);
        p = aligned_alloc(alignment, size);
        break;
    case 5:
        alignment = (size_t)16 << random_below(random, 8);
        p = memalign(alignment, size);
        break;
    case 6: p = realloc(NULL, size); break;
    case 7: p = reallocarray(NULL, 1, size); break;
    case 8:
        if (size > WHOLE_BYTES) {
            alignment = 4096;
            p = valloc(size);
            break;
        }
        p = malloc(size);
        break;
    default: p = malloc(size); break;
    }
    if (!is_proper_refusal(p, size, alignment)) record_accept(record, p, size, alignment, random);
    atomic_store(&record->busy, 0);
}

int shadow_malloc(shadow_t *record, uint64_t *random, size_t size) {
    CHECK(record->p == NULL);
    atomic_store(&record->busy, 1);
    errno = 0;
    void *p = malloc(size);
    if (p != NULL)
        record_accept(record, p, size, 16, random);
    else
        CHECK(errno == ENOMEM);
    atomic_store(&record->busy, 0);
    return p != NULL;
}

void shadow_resize(shadow_t *record, uint64_t *random, size_t largest) {
    CHECK(record->p != NULL);
    atomic_store(&record->busy, 1);
    /* realloc to 0 would free. */
    size_t size = 1 + shadow_random_size(random, largest - 1);
    /* Half of the time a small step, which may stay in place. */
    if (random_below(random, 2) == 0 && record->size > 0)
        size = record->size + random_below(random, record->size / 4 + 1);
    block_verify(record->p, record->size, record->size, record->seed);
    unsigned char *p = random_below(random, 4) == 0 ? reallocarray(record->p, size, 1) : realloc(record->p, size);
    if (is_proper_refusal(p, size, 16)) {
        CHECKF(shadow_refusal_allowed != SHADOW_REFUSE_ANY || size > record->size,
               "realloc from %zu to %zu bytes refused", record->size, size);
        block_verify(record->p, record->size, record->size, record->seed);
        atomic_store(&record->busy, 0);
        return;
    }
    CHECKF(p != NULL, "realloc from %zu to %zu bytes: errno %d", record->size, size, errno);
    block_verify(p, record->size, size < record->size ? size : record->size, record->seed);
    record_accept(record, p, size, 16, random);
    atomic_store(&record->busy, 0);
}

void shadow_verify(const shadow_t *record) {
    if (record->p != NULL) block_verify(record->p, record->size, record->size, record->seed);
}

void shadow_free(shadow_t *record, uint64_t *random) {
    atomic_store(&record->busy, 1);
    unsigned char *p = record->p;
    if (p != NULL) {
        shadow_verify(record);
        /* Damage the words: whoever still thinks that it owns this block finds out. */
        size_t damage = record->size < SAMPLE_BYTES ? record->size : SAMPLE_BYTES;
        memset(p, 0xdb, damage);
        if (random_below(random, 64) == 0 && subject.cfree != NULL && subject.is_tide)
            subject.cfree(p);
        else
            free(p);
    }
    record->p = NULL;
    atomic_store(&record->busy, 0);
}

void shadow_step(shadow_t *record, uint64_t *random, size_t largest) {
    if (record->p == NULL) {
        shadow_allocate(record, random, largest);
        return;
    }
    size_t choice = random_below(random, 16);
    if (choice < 10)
        shadow_free(record, random);
    else if (choice < 14)
        shadow_resize(record, random, largest);
    else
        shadow_verify(record);
}

static int record_compare(const void *left, const void *right) {
    uintptr_t l = (uintptr_t)(*(const shadow_t *const *)left)->p, r = (uintptr_t)(*(const shadow_t *const *)right)->p;
    return l < r ? -1 : l > r;
}

void shadow_table_verify(const shadow_t *table, size_t count) {
    const shadow_t **sorted =
        mmap(NULL, count * sizeof(shadow_t *), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(sorted != MAP_FAILED);
    size_t live = 0;
    for (size_t i = 0; i < count; i++) {
        if (atomic_load(&table[i].busy) || table[i].p == NULL) continue;
        shadow_verify(&table[i]);
        sorted[live++] = &table[i];
    }
    qsort(sorted, live, sizeof *sorted, record_compare);
    for (size_t i = 1; i < live; i++) {
        const shadow_t *low = sorted[i - 1], *high = sorted[i];
        size_t low_bytes = malloc_usable_size(low->p);
        if (low_bytes == 0) low_bytes = 1;
        CHECKF(low->p + low_bytes <= high->p, "block %p of %zu (%zu usable) bytes overlaps block %p", (void *)low->p,
               low->size, low_bytes, (void *)high->p);
    }
    munmap(sorted, count * sizeof(shadow_t *));
}
