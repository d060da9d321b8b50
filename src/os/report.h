/* report.h - the two ways to speak: a warning on stderr, and the last words before abort(). Async-signal-safe. */
#ifndef TIDE_OS_REPORT_H
#define TIDE_OS_REPORT_H

#include "os/os.h"

/* `tidemalloc: <text>`; `detail` may be NULL. */
tide_hidden void report_warning(const char *text, const char *detail);

/* `tidemalloc: <function> <pointer> <what>`, then abort(). `function` is NULL where no pointer is at fault. */
tide_hidden _Noreturn void report_fatal(const char *function, const void *pointer, const char *what);

#endif
