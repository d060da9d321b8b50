/* stack.h - the stack pointer, stored in one instruction. One block per architecture. */
#ifndef TIDE_OS_STACK_H
#define TIDE_OS_STACK_H

#include "base/base.h"

/* `*at` = the stack pointer, never zero; a relaxed store to the caller's thread-local memory. */
#if defined(__x86_64__)
#define stack_store_pointer(at) __asm__ volatile("movq %%rsp, %0" : "=m"(*(uintptr_t *)(at)) : : "memory")
#else
#define stack_store_pointer(at) atomic_store_explicit((at), (uintptr_t)__builtin_frame_address(0), memory_order_relaxed)
#endif

#endif
