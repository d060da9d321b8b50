#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "os/call.h"
#include "os/kernel.h"
#include "os/os.h"
#include "os/rank.h"

#include <errno.h>
#include <time.h>

#define LOCK_SLEEPERS ((uint32_t)1 << 31)
#define UNKNOWN_ID ((uint32_t)1 << 30)

/* Where a filter refuses a wake-up, who holds a lock must not be waited for without an end. A lock is held for
 * microseconds, so this never runs out otherwise. */
#define LOST_WAKE_NS 20000000
#define WAKE_TRIES 4u
/* Where a filter refuses to let anybody wait, sleep for a while instead. */
#define REFUSED_NAP_NS 50000u
#define REFUSED_SLEEP_NS 20000000u

static bool is_refused(long result) {
    return result < 0 && result != -EAGAIN && result != -ETIMEDOUT && result != -EINTR;
}

static __thread uint32_t wait_self __attribute__((tls_model("initial-exec")));

/* A filter may refuse even this number. Then threads are told apart by the place of their variables, in numbers that
 * the kernel gives to nobody: two threads would have to be a multiple of 64 GiB apart to look alike. */
static tide_cold uint32_t self_ask(void) {
    long id = os_call(SYS_gettid, 0, 0, 0, 0);
    if (id <= 0) id = (long)((uintptr_t)&wait_self >> 6 & (UNKNOWN_ID - 1)) | UNKNOWN_ID;
    return (uint32_t)id;
}

static uint32_t self(void) {
    if (unlikely(wait_self == 0)) wait_self = self_ask();
    return wait_self;
}

uint32_t os_thread_id(void) { return self(); }

uint32_t os_forked(void) {
    uint32_t old_id = self();
    wait_self = 0;
    return old_id;
}

bool os_lock_inherit(struct os_lock *lock, uint32_t old_id) {
    uint32_t holder = atomic_load_explicit(&lock->state, memory_order_relaxed) & ~LOCK_SLEEPERS;
    atomic_store_explicit(&lock->state, holder == old_id ? self() : 0, memory_order_relaxed);
    if (holder == 0 || holder == old_id) return false;
    lock->depth = 0;
    return true;
}

bool os_lock_is_mine(struct os_lock *lock) {
    return (atomic_load_explicit(&lock->state, memory_order_relaxed) & ~LOCK_SLEEPERS) == self();
}

bool os_lock_try(struct os_lock *lock) {
    uint32_t state = 0;
    if (atomic_compare_exchange_strong_explicit(&lock->state, &state, self(), memory_order_acquire,
                                                memory_order_relaxed)) {
        rank_taken(lock);
        return true;
    }
    if ((state & ~LOCK_SLEEPERS) != self()) return false;
    lock->depth++;
    return true;
}

static void wake(_Atomic uint32_t *word, int operation, int count) {
    for (unsigned tries = 0; tries < WAKE_TRIES && os_call(SYS_futex, word, operation, count, 0) < 0; tries++) continue;
}

static void lock_sleep(struct os_lock *lock) {
    const struct timespec most = {.tv_nsec = LOST_WAKE_NS};
    /* Who has slept does not know whether others still do: it takes the lock as one with sleepers. */
    for (;;) {
        uint32_t state = atomic_load_explicit(&lock->state, memory_order_relaxed);
        if (state == 0) {
            if (atomic_compare_exchange_weak_explicit(&lock->state, &state, self() | LOCK_SLEEPERS,
                                                      memory_order_acquire, memory_order_relaxed))
                return;
        } else if ((state & LOCK_SLEEPERS) != 0 ||
                   atomic_compare_exchange_weak_explicit(&lock->state, &state, state | LOCK_SLEEPERS,
                                                         memory_order_relaxed, memory_order_relaxed)) {
            if (is_refused(os_call(SYS_futex, &lock->state, KERNEL_FUTEX_WAIT | KERNEL_FUTEX_PRIVATE,
                                   state | LOCK_SLEEPERS, &most)))
                os_sleep_ns(REFUSED_NAP_NS);
        }
    }
}

void os_lock_take(struct os_lock *lock) {
    rank_wanted(lock);
    /* Critical sections are shorter than a sleep and a wake-up: look again for a moment before sleeping. */
    for (int spin = 0; spin < 40; spin++) {
        if (os_lock_try(lock)) return;
        for (int i = 0; i < 8; i++) {
#if defined(__x86_64__)
            __builtin_ia32_pause();
#else
            __asm__ volatile("yield");
#endif
        }
    }
    lock_sleep(lock);
    rank_taken(lock);
}

void os_lock_drop(struct os_lock *lock) {
    if (lock->depth > 0) {
        lock->depth--;
        return;
    }
    rank_dropped(lock);
    if ((atomic_exchange_explicit(&lock->state, 0, memory_order_release) & LOCK_SLEEPERS) != 0)
        wake(&lock->state, KERNEL_FUTEX_WAKE | KERNEL_FUTEX_PRIVATE, 1);
}

void os_lock_abandon(struct os_lock *lock) {
    if (os_lock_is_mine(lock)) {
        lock->depth = 0;
        os_lock_drop(lock);
    }
    wake(&lock->state, KERNEL_FUTEX_WAKE | KERNEL_FUTEX_PRIVATE, 1);
}

bool os_barrier_register(void) { return os_call(SYS_membarrier, KERNEL_BARRIER_REGISTER, 0, 0, 0) == 0; }

int os_barrier(void) { return (int)os_call(SYS_membarrier, KERNEL_BARRIER_EXPEDITED, 0, 0, 0); }

void os_wait(_Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns) {
    struct timespec length = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
                              .tv_nsec = (long)(timeout_ns % 1000000000u)};
    long result = os_call(SYS_futex, word, KERNEL_FUTEX_WAIT, value, timeout_ns == UINT64_MAX ? NULL : &length);
    if (is_refused(result)) os_sleep_ns(timeout_ns < REFUSED_SLEEP_NS ? timeout_ns : REFUSED_SLEEP_NS);
}

void os_wake(_Atomic uint32_t *word) { wake(word, KERNEL_FUTEX_WAKE, INT_MAX); }

static uint64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t os_now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

uint64_t os_thread_cpu_ns(void) { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }

void os_sleep_ns(uint64_t ns) {
    struct timespec length = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
    os_call(SYS_nanosleep, &length, NULL, 0, 0);
}
