#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "os/call.h"
#include "os/os.h"

#include <linux/futex.h>
#include <linux/membarrier.h>
#include <time.h>

static __thread char os_thread_mark __attribute__((tls_model("initial-exec")));

uintptr_t os_self(void) { return (uintptr_t)&os_thread_mark; }

enum { LOCK_FREE, LOCK_TAKEN, LOCK_CONTENDED };

bool os_lock_is_mine(struct os_lock *lock) {
    return atomic_load_explicit(&lock->holder, memory_order_relaxed) == os_self();
}

bool os_lock_try(struct os_lock *lock) {
    uint32_t state = LOCK_FREE;
    if (atomic_compare_exchange_strong_explicit(&lock->state, &state, LOCK_TAKEN, memory_order_acquire, memory_order_relaxed)) {
        atomic_store_explicit(&lock->holder, os_self(), memory_order_relaxed);
        return true;
    }
    if (os_lock_is_mine(lock)) {
        lock->depth++;
        return true;
    }
    return false;
}

void os_lock_take(struct os_lock *lock) {
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
    while (atomic_exchange_explicit(&lock->state, LOCK_CONTENDED, memory_order_acquire) != LOCK_FREE)
        os_call(SYS_futex, &lock->state, FUTEX_WAIT_PRIVATE, LOCK_CONTENDED, NULL);
    atomic_store_explicit(&lock->holder, os_self(), memory_order_relaxed);
}

void os_lock_drop(struct os_lock *lock) {
    if (lock->depth > 0) {
        lock->depth--;
        return;
    }
    atomic_store_explicit(&lock->holder, 0, memory_order_relaxed);
    if (atomic_exchange_explicit(&lock->state, LOCK_FREE, memory_order_release) == LOCK_CONTENDED)
        os_call(SYS_futex, &lock->state, FUTEX_WAKE_PRIVATE, 1, 0);
}

bool os_barrier_register(void) {
    return os_call(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0, 0) == 0;
}

int os_barrier(void) { return (int)os_call(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0, 0); }

uint64_t os_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void os_sleep_ns(uint64_t ns) {
    struct timespec length = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
    os_call(SYS_nanosleep, &length, NULL, 0, 0);
}
