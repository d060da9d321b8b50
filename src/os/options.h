/* options.h - the options, one table. Environment variables TIDE_<NAME>, read once before the first allocation; a bad value is one warning and
 * the default. docs/OPTIONS.md says what each is for. */
#ifndef TIDE_OS_OPTIONS_H
#define TIDE_OS_OPTIONS_H

#include "os/os.h"

struct options {
    size_t reserve_bytes; /* TIDE_RESERVE: address space of the first region */
    size_t print_stats;   /* TIDE_PRINT_STATS: 1 prints malloc_stats() at exit */
};

extern tide_hidden struct options options;

/* Read the environment. The first call that finds one counts; later calls do nothing. */
tide_hidden void options_load(void);
/* 0, ENOENT, EINVAL, EPERM as tide_set and tide_get say. */
tide_hidden int options_set(const char *name, const char *value);
tide_hidden int options_get(const char *name, char *value, size_t size);

#endif
