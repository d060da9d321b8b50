/* libc.h - the functions of glibc's malloc.h, whatever libc this is: musl lacks most of them, older ones of glibc mallinfo2. Where libc declares them,
 * too, it says the same. */
#ifndef TIDE_API_LIBC_H
#define TIDE_API_LIBC_H

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/public.h"

#if defined(__GLIBC__) && defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 33)
#define LIBC_HAS_MALLINFO2 1
#endif
#endif

#ifndef __GLIBC__
struct mallinfo {
    int arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
};
#endif
#ifndef LIBC_HAS_MALLINFO2
struct mallinfo2 {
    size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
};
#endif

#ifndef TIDE_PREFIXED
void cfree(void *);
void free_sized(void *, size_t);
void free_aligned_sized(void *, size_t, size_t);
void *pvalloc(size_t);
int malloc_trim(size_t);
int mallopt(int, int);
int malloc_info(int, FILE *);
void malloc_stats(void);
struct mallinfo mallinfo(void);
struct mallinfo2 mallinfo2(void);
#endif

#endif
