/* tidemalloc.c - the whole library as one translation unit, lowest layer first, so that the hot path inlines. */
#define _GNU_SOURCE

#include "base/format.c"

#include "os/memory.c"
#include "os/options.c"
#include "os/process.c"
#include "os/rank.c"
#include "os/report.c"
#include "os/wait.c"

#include "span/guard.c"
#include "span/meta.c"
#include "span/region.c"
#include "span/run.c"
#include "span/validate.c"

#include "tier/large.c"
#include "tier/mid.c"
#include "tier/tiny.c"

#include "heap/bell.c"
#include "heap/block.c"
#include "heap/census.c"
#include "heap/claim.c"
#include "heap/emergency.c"
#include "heap/flush.c"
#include "heap/fork.c"
#include "heap/heap.c"
#include "heap/own.c"
#include "heap/punch.c"
#include "heap/remote.c"
#include "heap/secure.c"
#include "heap/thread.c"
#include "heap/validate.c"
#include "heap/whole.c"

#include "keeper/figures.c"
#include "keeper/keeper.c"
#include "keeper/life.c"
#include "keeper/note.c"
#include "keeper/policy.c"
#include "keeper/pressure.c"
#include "keeper/window.c"

#ifndef TIDE_ARCHIVE /* there it is an object of its own */
#include "api/cxx.c"
#endif
#include "api/alone.c"
#include "api/beside.c"
#include "api/flush.c"
#include "api/limits.c"
#include "api/malloc.c"
#include "api/stats.c"
#include "api/tick.c"
