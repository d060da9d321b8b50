/* base.h - compiler words and the arithmetic that every layer uses. No operating system in here. */
#ifndef TIDE_BASE_BASE_H
#define TIDE_BASE_BASE_H

#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* A miss of the hot path: never inlined, and grouped away from the code that runs all the time. */
#define tide_cold __attribute__((cold, noinline))
/* Called from the hot path, often enough that it must not be grouped with the cold code. */
#define tide_warm __attribute__((noinline))
#define tide_inline static inline __attribute__((always_inline))
#define tide_hidden __attribute__((visibility("hidden")))

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)
#define TIB ((size_t)1 << 40)

tide_inline size_t size_min(size_t a, size_t b) { return a < b ? a : b; }
tide_inline size_t size_max(size_t a, size_t b) { return a > b ? a : b; }

/* `unit` is a power of two. */
tide_inline size_t size_round_up(size_t n, size_t unit) { return (n + unit - 1) & ~(unit - 1); }
tide_inline size_t size_round_down(size_t n, size_t unit) { return n & ~(unit - 1); }
tide_inline bool size_is_power(size_t n) { return n != 0 && (n & (n - 1)) == 0; }

/* A relaxed load that the compiler may fold into the instruction that uses it, as it does not with atomic_load_explicit. Where the order of
 * loads and stores matters, a fence stands beside it. */
#if defined(__SANITIZE_THREAD__)
#define TIDE_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TIDE_THREAD_SANITIZER 1
#endif
#endif
/* For functions that look at what its owner is writing, know that they see a moment's estimate, and are content with that. */
#ifdef TIDE_THREAD_SANITIZER
#define tide_racy __attribute__((no_sanitize("thread"), noinline))
#else
#define tide_racy
#endif
typedef uintptr_t __attribute__((may_alias)) aliasing_word;
typedef uint32_t __attribute__((may_alias)) aliasing_half;
typedef uint16_t __attribute__((may_alias)) aliasing_quarter;
#ifdef TIDE_THREAD_SANITIZER
#define load_relaxed(atomic) atomic_load_explicit((atomic), memory_order_relaxed)
#else
#define load_relaxed(atomic) \
    ((__typeof__(atomic_load_explicit((atomic), memory_order_relaxed)))(sizeof *(atomic) == 8 \
                                                                            ? *(aliasing_word *)(atomic) \
                                                                            : *(aliasing_half *)(atomic)))
#endif

/* dcheck: an invariant, tested in debug builds only. */
#ifdef TIDE_DEBUG
#define dcheck(cond) ((cond) ? (void)0 : __builtin_trap())
#else
#define dcheck(cond) ((void)sizeof(cond))
#endif

/* The steps of a *_validate(), which returns the name of the first broken invariant, NULL when all hold. */
#define invariant(cond, name) \
    do { \
        if (unlikely(!(cond))) return (name); \
    } while (0)
#define validated(part) \
    do { \
        const char *broken_ = (part); \
        if (unlikely(broken_ != NULL)) return broken_; \
    } while (0)

#endif
