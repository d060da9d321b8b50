/* water.h - what the kernel says about this process's memory and threads, read without allocating, and waiting for it to change.
 *
 * What must happen is waited for, as long as WATER_PATIENCE_NS, and fails only when it never does: no test judges how long it took. What must
 * not happen is looked for over a fixed span of quiet. While a test waits its thread makes no call of the allocator. */
#ifndef TIDE_TEST_WATER_H
#define TIDE_TEST_WATER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tidemalloc.h"

#ifdef __cplusplus
extern "C" {
#endif

#define WATER_MIB ((size_t)1 << 20)
#define WATER_KIB ((size_t)1 << 10)
#define WATER_PATIENCE_NS UINT64_C(10000000000)
/* What is promised: so much above the baseline, and no more. */
#define WATER_SLACK_BYTES WATER_MIB

/* Sanitizers have memory of their own: there the level says nothing, and is not checked. */
#ifdef TIDE_PREFIXED
#define WATER_IS_CLEAR 0
#else
#define WATER_IS_CLEAR 1
#endif

/* Rss of /proc/self/smaps_rollup, in bytes. */
size_t water_level(void);
/* Wait until the level is at most `limit` bytes. */
void water_expect_ebb(size_t limit, const char *what);
/* Wait until it is at most WATER_SLACK_BYTES above the baseline. */
void water_expect_baseline(size_t baseline, const char *what);
/* The level does not fall below `limit` for so long. */
void water_expect_none(size_t limit, unsigned milliseconds, const char *what);

/* The first number after `field` in /proc/self/<file> (task 0) or /proc/self/task/<task>/<file>; `field` "" is the start of the file. UINT64_MAX when there
 * is none. `base`: 10 or 16. */
uint64_t task_number(pid_t task, const char *file, const char *field, int base);
/* Text of the same files, ended by a zero; false when there is no such task. */
bool task_text(pid_t task, const char *file, char *text, size_t size);
/* The target of a link of the same kind. */
bool task_link(pid_t task, const char *file, char *target, size_t size);
/* All threads of the process. Returns how many there are, at most `size`. */
size_t task_list(pid_t *tasks, size_t size);
/* The process has so many threads. Where a sanitizer brings one of its own nobody counts. */
void task_expect_count(size_t count);
/* Context switches so far. */
uint64_t task_switches(pid_t task);
/* CPU time so far. */
uint64_t task_cpu_ns(pid_t task);

/* The keeper's thread, 0: there is none. Fails when there is more than one. */
pid_t keeper_task(void);
/* Wait until it exists. */
pid_t keeper_expect(void);
/* There is none, and for so long none comes; the process has `threads` threads. */
void keeper_expect_none(size_t threads, unsigned milliseconds);
/* Wait until the keeper sleeps for good: its context switches have stood still for 300 ms. Returns their number. */
uint64_t keeper_expect_still(pid_t keeper);

/* tide_tick(), looked up or linked; NULL when there is none. */
uint64_t (*subject_tick(void))(void);

#ifdef __cplusplus
}
#endif
#endif
