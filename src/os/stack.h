/* stack.h - the stack pointer, stored in one instruction. One block per architecture. */
#ifndef TIDE_OS_STACK_H
#define TIDE_OS_STACK_H

#include "base/base.h"

/* `*at` = the stack pointer, never zero; a relaxed store to the caller's thread-local memory. */
#if defined(__x86_64__)
#define stack_store_pointer(at) __asm__ volatile("movq %%rsp, %0" : "=m"(*(uintptr_t *)(at)) : : "memory")
#elif defined(__aarch64__) /* __builtin_frame_address would make the hot path set up a frame */
#define stack_store_pointer(at) \
    do { \
        uintptr_t pointer_; \
        __asm__ volatile("mov %0, sp" : "=r"(pointer_)); \
        atomic_store_explicit((at), pointer_, memory_order_relaxed); \
    } while (0)
#endif

#endif
