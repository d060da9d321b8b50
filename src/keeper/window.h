/* window.h - how a process shows itself to `tide`: a file in memory that the keeper has open, where another process asks and the keeper answers.
 *
 *   /proc/PID/task/KEEPER/fd/N -> /memfd:tidemalloc-window         readable and writable for the same user, as the kernel checks; gone with the process
 *
 *        0  struct window_page: mapped by the keeper and by who asks
 *     4096  answers, written when somebody has asked: until then the file has no memory behind them
 *
 * Who asks holds flock(LOCK_EX), writes the command, adds one to `asked`, then one to `wake`, and wakes that word (a futex that processes share).
 * The keeper does what the command says, writes the answer, and sets `answered` to `asked`. It reads nothing else from the page, so whoever can write to it can
 * at most make it work. The events are there for who looks often enough. Nothing is done while nobody asks.
 *
 * Every number is little-endian and naturally aligned. `version` changes when the meaning of a field does; fields may be appended.
 */
#ifndef TIDE_KEEPER_WINDOW_H
#define TIDE_KEEPER_WINDOW_H

#include "os/os.h"

#define WINDOW_NAME "tidemalloc-window"
#define WINDOW_MAGIC "tidewin"
#define WINDOW_VERSION 1u
#define WINDOW_BYTES MIB

enum window_command { WINDOW_STATS = 1, WINDOW_FLUSH, WINDOW_SLICES };

enum window_event_kind {
    WINDOW_STARTED = 1,
    WINDOW_GAVE_ALL,  /* idle */
    WINDOW_HOLDS,     /* idle; argument: how long, in ns */
    WINDOW_BUSY,      /* argument: how long it was quiet, in ns */
    WINDOW_TRIMMED,   /* argument: bytes that nobody needed */
    WINDOW_PRESSED,   /* argument: enum pressure */
    WINDOW_WAS_ASKED, /* by somebody outside; argument: enum flush_part */
};

struct window_event {
    _Atomic uint64_t number; /* from 1; written last */
    uint64_t at_ns;          /* CLOCK_MONOTONIC */
    uint32_t kind, nothing;
    uint64_t given_bytes, argument;
};

#define WINDOW_EVENTS 64u

struct window_page {
    char magic[8];
    uint32_t version, file_bytes;
    _Atomic uint32_t wake;            /* the keeper sleeps on this word */
    _Atomic uint32_t asked, answered; /* numbers of the last question and answer */
    uint32_t command;
    uint64_t argument; /* flush: enum flush_part; slices: how many to skip, of all regions together */
    int32_t error;     /* of the last answer: 0 or an errno */
    uint32_t page_bytes;
    uint64_t answered_ns;
    uint64_t mode;                /* enum mode, at the last answer */
    _Atomic uint64_t event_count; /* so far; event n is in events[n % WINDOW_EVENTS] */
    uint32_t event_bytes, process_id;
    char room[48];
    struct window_event events[WINDOW_EVENTS];
};

/* Where answers stand in the file. */
#define WINDOW_STATS_AT 4096u    /* struct tide_stats */
#define WINDOW_FLUSH_AT 6144u    /* struct tide_flush_report */
#define WINDOW_CLASSES_AT 8192u  /* struct window_table, then rows */
#define WINDOW_THREADS_AT 16384u /* struct window_table, then rows */
#define WINDOW_SLICES_AT 65536u  /* struct window_slices */
#define WINDOW_USES_AT (WINDOW_SLICES_AT + 256u)
#define WINDOW_THREADS_MAX 766u /* what fits in front of the slices */
#define WINDOW_SLICES_MAX ((size_t)512 * KIB)
#define WINDOW_REGIONS_MAX 8u

struct window_table {
    uint32_t rows, row_bytes, left_out, nothing;
};

struct window_class {
    uint64_t block_bytes, spans, live_blocks, free_blocks, free_bytes, allocation_count, refill_count, tier;
    uint64_t state; /* enum class_state: the highest that a thread has */
};

struct window_thread {
    uint64_t id;           /* 0: the heap of threads that have ended */
    uint64_t state, claim; /* enum heap_state, enum heap_claim */
    uint64_t live_bytes, free_bytes, spans, refill_count, allocation_count;
};

struct window_slices {
    uint64_t regions;
    struct {
        uint64_t base, first, count; /* slices */
    } region[WINDOW_REGIONS_MAX];
};

/* For the keeper's thread, which has open files of its own. Where the system refuses, there is no window. */
tide_hidden tide_cold void window_open(void);
tide_hidden tide_cold void window_close(void);
/* In a forked child: the page is the parent's. */
tide_hidden tide_cold void window_forget(void);
/* The word that the keeper sleeps on: of the page, or of ours while there is none. It stays valid. */
tide_hidden _Atomic uint32_t *window_wake_word(void);
/* Do what was asked, if anything was. */
tide_hidden void window_answer(void);
tide_hidden void window_tell(enum window_event_kind kind, uint64_t given_bytes, uint64_t argument);

#endif
