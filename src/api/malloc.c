/* malloc.c - the allocation functions of ISO C, POSIX and glibc. Each is a check of its arguments and one call down. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>

#include "api/beside.h"
#include "api/libc.h"
#include "api/public.h"
#include "heap/secure.h"
#include "tidemalloc.h"

static void *out_of_memory(void) {
    errno = ENOMEM;
    return NULL;
}

static void *bad_argument(void) {
    errno = EINVAL;
    return NULL;
}

/* Where these two lie within a cache line changes a pair by 5 %. */
__attribute__((aligned(64))) PUBLIC void *STANDARD(malloc)(size_t size) { return secure_malloc(size); }

#ifndef TIDE_PREFIXED
void *malloc_of_ours(size_t size)
    __attribute__((alias("malloc"), visibility("hidden"), nothrow, leaf, malloc, alloc_size(1)));
#endif

__attribute__((aligned(64))) PUBLIC void STANDARD(free)(void *block) { secure_free(block); }

PUBLIC void *STANDARD(calloc)(size_t count, size_t size) {
    size_t bytes;
    if (unlikely(__builtin_mul_overflow(count, size, &bytes))) return out_of_memory();
    return secure_calloc(bytes);
}

/* The library calls no public function of its own: that name may be another allocator's in the program. */
tide_inline void *resize(void *block, size_t size) {
    if (unlikely(block == NULL)) return secure_malloc(size);
    if (unlikely(size == 0)) { /* as glibc does */
        secure_free(block);
        return NULL;
    }
    return secure_realloc(block, size);
}

PUBLIC void *STANDARD(realloc)(void *block, size_t size) { return resize(block, size); }

PUBLIC void *STANDARD(reallocarray)(void *block, size_t count, size_t size) {
    size_t bytes;
    if (unlikely(__builtin_mul_overflow(count, size, &bytes))) return out_of_memory();
    return resize(block, bytes);
}

PUBLIC void *STANDARD(aligned_alloc)(size_t alignment, size_t size) {
    if (unlikely(!size_is_power(alignment))) return bad_argument();
    return secure_malloc_aligned(alignment, size);
}

PUBLIC int STANDARD(posix_memalign)(void **result, size_t alignment, size_t size) {
    if (unlikely(!size_is_power(alignment) || alignment % sizeof(void *) != 0)) return EINVAL;
    int error = errno;
    void *block = secure_malloc_aligned(alignment, size);
    errno = error;
    if (unlikely(block == NULL)) return ENOMEM;
    *result = block;
    return 0;
}

/* As glibc: an alignment that is no power of two counts as the next one. */
PUBLIC void *STANDARD(memalign)(size_t alignment, size_t size) {
    if (unlikely(alignment > SIZE_MAX / 2 + 1)) return bad_argument();
    if (unlikely(!size_is_power(alignment))) alignment = alignment < 2 ? 1 : (size_t)2 << bits_highest(alignment);
    return secure_malloc_aligned(alignment, size);
}

static size_t page_bytes(void) {
    if (unlikely(os_page_bytes == 0)) os_init();
    return os_page_bytes;
}

PUBLIC void *STANDARD(valloc)(size_t size) { return secure_malloc_aligned(page_bytes(), size); }

PUBLIC void *STANDARD(pvalloc)(size_t size) {
    if (unlikely(size > SIZE_MAX - page_bytes())) return out_of_memory();
    return secure_malloc_aligned(page_bytes(), size_round_up(size, page_bytes()));
}

PUBLIC void STANDARD(cfree)(void *block) { secure_free(block); }

PUBLIC void STANDARD(free_sized)(void *block, size_t size) { secure_free_sized("free_sized()", block, size); }

PUBLIC void STANDARD(free_aligned_sized)(void *block, size_t alignment, size_t size) {
    (void)alignment;
    secure_free_sized("free_aligned_sized()", block, size);
}

PUBLIC size_t STANDARD(malloc_usable_size)(void *block) { return block != NULL ? secure_usable_size(block) : 0; }
