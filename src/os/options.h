/* options.h - the options, one table. Environment variables TIDE_<NAME>, read once before the first allocation; a bad value is one warning and
 * the default. docs/OPTIONS.md says what each is for. */
#ifndef TIDE_OS_OPTIONS_H
#define TIDE_OS_OPTIONS_H

#include "os/os.h"

/* The options of the strategy paper over the same code. */
enum mode {
    MODE_STATIC,   /* its baseline: nothing goes back unasked */
    MODE_FLUSH,    /* A: everything goes when the process is idle, or under pressure */
    MODE_SHRINK,   /* C: what was not needed for a while shrinks, busy or idle */
    MODE_ADAPTIVE, /* B: the caches' sizes follow the rate */
    MODE_HYBRID,   /* D: all of it, with patience */
    MODES,
};

/* The secure build always is: it has the checks that stand in the hot path, too (span/guard.h). */
#ifdef TIDE_SECURE
#define SECURE_BUILD 1
#else
#define SECURE_BUILD 0
#endif

enum log { LOG_OFF, LOG_KEEPER };

struct options {
    _Atomic size_t reserve_bytes; /* TIDE_RESERVE: address space of the first region */
    _Atomic size_t print_stats;   /* TIDE_PRINT_STATS: 1 prints malloc_stats() at exit */
    _Atomic size_t mode;          /* TIDE_MODE: enum mode, by name */
    _Atomic size_t keeper;        /* TIDE_KEEPER: on, or off: no thread of our own, see tide_tick() */
    _Atomic size_t visible;       /* TIDE_VISIBLE: off: nothing for `tide` to see from outside (window.h) */
    _Atomic size_t check;         /* TIDE_CHECK: 1: walk the structures at each tick of the keeper and each flush */
    _Atomic size_t log;           /* TIDE_LOG: off, or keeper: each decision of the keeper as a line on stderr */
    _Atomic size_t secure;        /* TIDE_SECURE: 1: guards, and large blocks out of reach once freed (span/guard.h) */
};

extern tide_hidden struct options options;

/* Read the environment. The first call that finds one counts; later calls do nothing. */
tide_hidden void options_load(void);
/* 0, ENOENT, EINVAL, EPERM as tide_set and tide_get say. */
tide_hidden int options_set(const char *name, const char *value);
tide_hidden int options_get(const char *name, char *value, size_t size);

#endif
