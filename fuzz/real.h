/* real.h - what a target may do to the system calls of the library when it runs on the real system (real_subject.c). */
#ifndef TIDE_FUZZ_REAL_H
#define TIDE_FUZZ_REAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum real_call { REAL_MMAP, REAL_MPROTECT, REAL_MADVISE, REAL_MREMAP, REAL_MEMBARRIER, REAL_ANY, REAL_CALLS };

/* From the nth call of the kind from now on, `count` calls fail with -error, without an effect. */
void real_fail(enum real_call call, unsigned nth, unsigned count, int error);
/* Calls that were made to fail so far. */
unsigned real_failed(void);

/* The first allocation finds so much address space, and that mode; `with_keeper`, a thread of the library's may start. */
void real_begin(size_t reserve_bytes, bool with_keeper);
/* The library's thread ends, if there is one. False: it is said to run, and does not. */
bool real_end(void);
/* Who starts that thread sleeps for so long before it goes on. */
void real_nap_at_start(uint64_t ns);

/* Without a keeper the clock stands still but for this. */
void real_clock_advance(uint64_t ns);

/* Called before the library makes one of the calls above while the thread is inside an operation, and signals could come: as a handler would be. */
extern void (*real_interrupt)(void);

bool real_validate(void); /* no other thread is inside an operation */

#endif
