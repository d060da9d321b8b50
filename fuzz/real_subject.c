/* real_subject.c - the whole library with prefixed names, on the real system: its system calls are counted, fail when told to, and what they map is
 * noted; its clock is virtual while it has no thread of its own. */
#include "os/call.h"

#include <errno.h>
#include <stdatomic.h>

#include "real.h"

static struct {
    _Atomic unsigned failed;
    _Atomic unsigned wait[REAL_CALLS], left[REAL_CALLS];
    int error;
} script;

static enum real_call call_kind(long number) {
    switch (number) {
    case SYS_mmap: return REAL_MMAP;
    case SYS_mprotect: return REAL_MPROTECT;
    case SYS_madvise: return REAL_MADVISE;
    case SYS_mremap: return REAL_MREMAP;
    case SYS_membarrier: return REAL_MEMBARRIER;
    default: return REAL_CALLS;
    }
}

static int call_must_fail(enum real_call call) {
    if (script.left[call] == 0) return 0;
    if (script.wait[call] > 1) {
        script.wait[call]--;
        return 0;
    }
    script.left[call]--;
    script.failed++;
    return script.error;
}

static long fuzz_call6(long number, long a, long b, long c, long d, long e, long f) {
    enum real_call call = call_kind(number);
    if (call != REAL_CALLS) {
        int error = call_must_fail(call);
        if (error == 0) error = call_must_fail(REAL_ANY);
        if (error != 0) return -error;
    }
    if (number == SYS_munmap) fuzz_forget_mapping((void *)a, (size_t)b);
    long result = os_call6(number, a, b, c, d, e, f);
    if (call == REAL_MMAP && a == 0 && (result > 0 || result < -4095)) fuzz_note_mapping((void *)result, (size_t)b);
    return result;
}
#define os_call6 fuzz_call6

#include "tidemalloc.c"

#undef clock_gettime

void real_fail(enum real_call call, unsigned nth, unsigned count, int error) {
    script.error = error;
    script.wait[call] = nth;
    script.left[call] = count;
}

unsigned real_failed(void) { return script.failed; }

static bool clock_is_virtual;
static uint64_t clock_now_ns = 1000000000;

int fuzz_clock_gettime(clockid_t clock, struct timespec *now) {
    if (!clock_is_virtual) return clock_gettime(clock, now);
    uint64_t ns = clock_now_ns += 100;
    *now = (struct timespec){.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
    return 0;
}

void real_clock_advance(uint64_t ns) { clock_now_ns += ns; }

void real_begin(size_t reserve_bytes, bool with_keeper) {
    if (os_page_bytes == 0) os_init();
    options.reserve_bytes = reserve_bytes;
    options.keeper = with_keeper;
    clock_is_virtual = !with_keeper;
    life_begin(); /* the process may be another one since the constructor has run */
}

void real_end(void) { life_resume(life_pause() && false); }

bool real_validate(void) {
    if (region_main.base == 0) return true;
    bool valid = run_validate() == NULL;
    for (struct heap *heap = heap_all; heap != NULL; heap = heap->next_heap)
        if (heap->state != HEAP_LOST) valid = valid && heap_validate(heap) == NULL;
    return valid && heap_validate(&heap_shared) == NULL;
}
