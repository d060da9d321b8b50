/* burst.h - many blocks at once, whose contents are checked (shadow.h), and threads that sleep in different ways in between. */
#ifndef TIDE_TEST_BURST_H
#define TIDE_TEST_BURST_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "shadow.h"

enum burst_kind {
    BURST_SMALLEST, /* up to 64 bytes */
    BURST_TINY,     /* up to 1 KiB */
    BURST_MID,      /* up to 32 KiB */
    BURST_LARGE,    /* up to 2 MiB */
    BURST_MIXED,    /* a third of the bytes each */
};

typedef struct burst {
    shadow_t *records;
    size_t count, capacity;
    uint64_t random;
} burst_t;

/* Room for the records of at most `bytes` of blocks of this kind, outside the heap and resident from now on. */
void burst_make(burst_t *burst, enum burst_kind kind, size_t bytes, uint64_t seed);
void burst_drop(burst_t *burst);
/* Allocate and fill `bytes` more, as far as there is room. */
void burst_fill(burst_t *burst, enum burst_kind kind, size_t bytes);
void burst_verify(const burst_t *burst);
/* Check and free all, in no order that an allocator would like. */
void burst_free(burst_t *burst);
/* The same, but one of `survivors` stays. */
void burst_thin(burst_t *burst, size_t survivors);
/* Bytes of the blocks, and of the pages on which they lie. Pages that two bursts share count twice. */
size_t burst_bytes(const burst_t *burst);
size_t burst_page_bytes(const burst_t *burst);

/* --- a crew: threads that sleep until they get an order -------------------------------------------------------------- */

enum { CREW_MOST = 64 };

typedef struct crew crew_t;
typedef struct sailor {
    crew_t *crew;
    pthread_t thread;
    size_t index;
    atomic_uint orders, done; /* counts; the thread sleeps while they are equal */
    int pipe[2];
    burst_t burst; /* for the orders to use */
} sailor_t;

struct crew {
    size_t count;
    void (*order)(sailor_t *); /* NULL: end */
    sailor_t sailors[CREW_MOST];
};

/* Start threads, every fourth of which sleeps in futex, read, sigwait and nanosleep. They have touched their stacks, and allocated nothing. Takes SIGUSR1 and
 * SIGUSR2. */
void crew_make(crew_t *crew, size_t count);
/* Every thread carries it out at the same time; returns when all are done. They go to sleep again. */
void crew_order(crew_t *crew, void (*order)(sailor_t *));
/* They end. */
void crew_end(crew_t *crew);

#endif
