/* prefixed.h - force-included (`-include`) into every test of the sanitizer builds.
 *
 * A sanitizer brings a malloc of its own, so there tidemalloc is linked under the names tide_malloc, tide_free, … and the
 * test's calls are renamed here. All headers that declare the renamed functions come first, so that only the test's own
 * text is changed. Memory that libc allocated by itself (open_memstream, strdup) must go back through libc_free(). */
#ifndef TIDE_TEST_PREFIXED_H
#define TIDE_TEST_PREFIXED_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#ifndef TIDE_PREFIXED
#define TIDE_PREFIXED 1
#endif
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tidemalloc.h"

static inline void libc_free(void *p) { free(p); }
#define TIDE_TEST_HAS_LIBC_FREE 1

#define malloc tide_malloc
#define free tide_free
#define calloc tide_calloc
#define realloc tide_realloc
#define reallocarray tide_reallocarray
#define memalign tide_memalign
#define aligned_alloc tide_aligned_alloc
#define posix_memalign tide_posix_memalign
#define valloc tide_valloc
#define pvalloc tide_pvalloc
#define cfree tide_cfree
#define free_sized tide_free_sized
#define free_aligned_sized tide_free_aligned_sized
#define malloc_usable_size tide_malloc_usable_size
#define malloc_trim tide_malloc_trim
#define mallopt tide_mallopt
#define malloc_info tide_malloc_info
#define malloc_stats tide_malloc_stats
/* These two are also names of structs: only calls are renamed. */
#define mallinfo() tide_mallinfo()
#define mallinfo2() tide_mallinfo2()

#endif
