/* cxx.c - every form of C++ operator new and delete, in C: the library must load into C programs, so nothing of the C++ runtime is
 * needed until an allocation fails in a program that has one. Exceptions pass through these functions (-fexceptions).
 *
 * Names are mangled by the Itanium C++ ABI: Znw new, Zna new[], Zdl delete, Zda delete[]; m size_t, Pv void *. */
#ifndef TIDE_PREFIXED

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>

#include "api/public.h"
#include "heap/secure.h"
#include "os/report.h"

typedef void (*new_handler)(void);

/* In the shared library weak: resolved by the C++ runtime of the program, if it has one. The archive's object is linked by C++ programs only, and
 * brings the runtime in. dlsym is missing in static programs. */
#ifdef TIDE_ARCHIVE
#define RUNTIME_WEAK
#else
#define RUNTIME_WEAK __attribute__((weak))
#endif
extern new_handler _ZSt15get_new_handlerv(void) RUNTIME_WEAK;
extern _Noreturn void _ZSt17__throw_bad_allocv(void) RUNTIME_WEAK;
extern void *dlsym(void *restrict handle, const char *restrict name) __attribute__((weak));

/* A function of the C++ runtime; `linked` where it was there when the program started, else one that was loaded since. */
static void *runtime_function(void *linked, const char *name) {
    if (linked != NULL || dlsym == NULL) return linked;
    return dlsym(RTLD_DEFAULT, name);
}

static new_handler handler_now(void) {
    void *get = runtime_function((void *)_ZSt15get_new_handlerv, "_ZSt15get_new_handlerv");
    return get != NULL ? ((new_handler(*)(void))get)() : NULL;
}

static _Noreturn void throw_bad_alloc(void) {
    void (*raise)(void) =
        (void (*)(void))runtime_function((void *)_ZSt17__throw_bad_allocv, "_ZSt17__throw_bad_allocv");
    if (raise != NULL) raise();
    report_fatal(NULL, NULL, "out of memory in operator new, and no C++ runtime to throw std::bad_alloc");
}

static void *allocate(size_t size, size_t alignment) {
    return alignment == 1 ? secure_malloc(size) : secure_malloc_aligned(alignment, size);
}

/* [new.delete.single]: call the new-handler until there is memory, or none is installed. */
static tide_cold void *new_failed(size_t size, size_t alignment) {
    for (;;) {
        new_handler handler = handler_now();
        if (handler == NULL) throw_bad_alloc();
        handler();
        void *block = allocate(size, alignment);
        if (block != NULL) return block;
    }
}

/* The nothrow forms must catch what a handler throws. C cannot. */
#ifdef TIDE_ARCHIVE
void *cxx_catch(void *(*allocate)(size_t, size_t), size_t size, size_t alignment); /* catch.cpp */

static tide_cold void *new_failed_nothrow(size_t size, size_t alignment, const void *nothrow) {
    (void)nothrow;
    return handler_now() != NULL ? cxx_catch(new_failed, size, alignment) : NULL;
}
#else
/* The runtime's own form can: it calls the throwing form, which is ours. */
static tide_cold void *new_failed_nothrow(size_t size, size_t alignment, const void *nothrow) {
    if (handler_now() == NULL) return NULL;
    if (alignment == 1) {
        void *(*next)(size_t, const void *) = NULL;
        if (dlsym != NULL) next = (void *(*)(size_t, const void *))dlsym(RTLD_NEXT, "_ZnwmRKSt9nothrow_t");
        if (next != NULL) return next(size, nothrow);
    } else {
        void *(*next)(size_t, size_t, const void *) = NULL;
        if (dlsym != NULL)
            next = (void *(*)(size_t, size_t, const void *))dlsym(RTLD_NEXT, "_ZnwmSt11align_val_tRKSt9nothrow_t");
        if (next != NULL) return next(size, alignment, nothrow);
    }
    return new_failed(size, alignment);
}
#endif

tide_inline void *new_block(size_t size) {
    void *block = secure_malloc(size);
    return likely(block != NULL) ? block : new_failed(size, 1);
}

tide_inline void *new_aligned(size_t size, size_t alignment) {
    void *block = secure_malloc_aligned(alignment, size);
    return likely(block != NULL) ? block : new_failed(size, alignment);
}

tide_inline void *new_nothrow(size_t size, size_t alignment, const void *nothrow) {
    void *block = allocate(size, alignment);
    return likely(block != NULL) ? block : new_failed_nothrow(size, alignment, nothrow);
}

#define NEW(name) \
    PUBLIC void *name(size_t size); \
    void *name(size_t size) { return new_block(size); }
#define NEW_NOTHROW(name) \
    PUBLIC void *name(size_t size, const void *nothrow); \
    void *name(size_t size, const void *nothrow) { return new_nothrow(size, 1, nothrow); }
#define NEW_ALIGNED(name) \
    PUBLIC void *name(size_t size, size_t alignment); \
    void *name(size_t size, size_t alignment) { return new_aligned(size, alignment); }
#define NEW_ALIGNED_NOTHROW(name) \
    PUBLIC void *name(size_t size, size_t alignment, const void *nothrow); \
    void *name(size_t size, size_t alignment, const void *nothrow) { return new_nothrow(size, alignment, nothrow); }
/* delete needs neither size nor alignment; the other arguments are passed in registers and not looked at, but for a size in the secure build. */
#define DELETE(name) \
    PUBLIC void name(void *block); \
    void name(void *block) { secure_free(block); }

#define DELETE_SIZED(name) \
    PUBLIC void name(void *block, size_t size); \
    void name(void *block, size_t size) { secure_free_sized("operator delete", block, size); }

NEW(_Znwm)
NEW(_Znam)
NEW_NOTHROW(_ZnwmRKSt9nothrow_t)
NEW_NOTHROW(_ZnamRKSt9nothrow_t)
NEW_ALIGNED(_ZnwmSt11align_val_t)
NEW_ALIGNED(_ZnamSt11align_val_t)
NEW_ALIGNED_NOTHROW(_ZnwmSt11align_val_tRKSt9nothrow_t)
NEW_ALIGNED_NOTHROW(_ZnamSt11align_val_tRKSt9nothrow_t)
DELETE(_ZdlPv)
DELETE(_ZdaPv)
DELETE_SIZED(_ZdlPvm)
DELETE_SIZED(_ZdaPvm)
DELETE(_ZdlPvRKSt9nothrow_t)
DELETE(_ZdaPvRKSt9nothrow_t)
DELETE(_ZdlPvSt11align_val_t)
DELETE(_ZdaPvSt11align_val_t)
DELETE_SIZED(_ZdlPvmSt11align_val_t)
DELETE_SIZED(_ZdaPvmSt11align_val_t)
DELETE(_ZdlPvSt11align_val_tRKSt9nothrow_t)
DELETE(_ZdaPvSt11align_val_tRKSt9nothrow_t)

#endif
typedef int cxx_is_not_empty;
