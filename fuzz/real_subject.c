/* real_subject.c - the whole library with prefixed names, on the real system: its system calls are counted, fail when told to, and what they map is
 * noted; its clock is virtual while it has no thread of its own. */
#include "os/call.h"

#include <dirent.h>
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

void (*real_interrupt)(void);
static void interrupt(void);

static long fuzz_call6(long number, long a, long b, long c, long d, long e, long f) {
    enum real_call call = call_kind(number);
    if (call != REAL_CALLS) {
        interrupt();
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
#undef pthread_create

/* A handler runs below the kernel's frame, which lies below the interrupted ones. */
static __attribute__((noinline)) void run_below(volatile char *room) {
    room[0] = 0;
    real_interrupt();
    room[1] = 0;
}

static void interrupt(void) {
    sigset_t blocked;
    if (real_interrupt == NULL || !heap_is_busy()) return;
    if (pthread_sigmask(SIG_BLOCK, NULL, &blocked) != 0 || sigismember(&blocked, SIGUSR1)) return;
    volatile char frame[2 * SIGNAL_FRAME_MIN_BYTES];
    int error = errno;
    run_below(frame);
    errno = error;
}

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

/* A keeper that finds itself alone leaves by itself, and another thread waits for it: both must be gone before everything is as it was. */
static size_t threads_before;

static size_t thread_count(void) {
    size_t count = 0;
    DIR *tasks = opendir("/proc/self/task");
    if (tasks == NULL) return 0;
    while (readdir(tasks) != NULL) count++;
    closedir(tasks);
    return count;
}

void real_begin(size_t reserve_bytes, bool with_keeper) {
    if (os_page_bytes == 0) os_init();
    options.reserve_bytes = reserve_bytes;
    options.keeper = with_keeper;
    clock_is_virtual = !with_keeper;
    threads_before = thread_count();
    life_begin(); /* the process may be another one since the constructor has run */
}

static uint64_t start_nap_ns;
void real_nap_at_start(uint64_t ns) { start_nap_ns = ns; }

int fuzz_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument) {
    int error = pthread_create(thread, attributes, run, argument);
    if (error == 0 && run == life_main && start_nap_ns != 0) os_sleep_ns(start_nap_ns);
    return error;
}

/* While it says that it runs it is there. */
static bool keeper_is_there(void) {
    if (life_state != LIFE_RUNNING || thread_count() > threads_before) return true;
    os_sleep_ns(20000000); /* it may be on its way out */
    return life_state != LIFE_RUNNING || thread_count() > threads_before;
}

bool real_end(void) {
    if (options.keeper == 0) return true;
    if (!keeper_is_there()) return false;
    life_resume(life_pause() && false);
    while (thread_count() > threads_before) os_sleep_ns(1000000);
    return true;
}

bool real_validate(void) {
    const char *broken = region_main.base != 0 ? heap_validate_all() : NULL;
    if (broken != NULL) report_warning(broken, NULL);
    return broken == NULL;
}
