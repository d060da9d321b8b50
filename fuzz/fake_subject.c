/* fake_subject.c - the layers on the fake operating system of the unit tests, as one translation unit. */
#include "base/format.c"

#include "os/options.c"
#include "os/rank.c"
#include "os/report.c"

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

#include "keeper/policy.c"

#undef MS
#include "fake_os.c"
