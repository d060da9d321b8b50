/* A malloc that is wrong in one way, chosen by -DFLAW_...: `run.sh --self-test` shows that each is caught.
 * It stands on glibc's own functions, so that nothing but the flaw differs. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void __libc_free(void *);

#ifndef FLAW_MUTE /* MUTE: a library that is loaded but defines no malloc */

static _Atomic unsigned long calls;

void *malloc(size_t size) {
    unsigned long call = ++calls;
#ifdef FLAW_ABORT
    if (call >= 5000) abort();
#endif
#ifdef FLAW_CHATTY
    if (call == 20) write(2, "tidemalloc: a complaint\n", 24);
#endif
#ifdef FLAW_TWICE /* from time to time one block for two owners */
    static _Atomic(void *) last;
    if (size == 64 && call > 1000 && call % 7 == 0 && last) return last;
    void *block = __libc_malloc(size);
    if (size == 64) last = block;
    return block;
#else
    (void)call;
    return __libc_malloc(size);
#endif
}

void *calloc(size_t count, size_t size) {
    ++calls;
    void *block = __libc_calloc(count, size);
#ifdef FLAW_UNCLEAN_CALLOC
    if (block && calls > 100) memset(block, 0x5a, count * size);
#endif
    return block;
}

void *realloc(void *block, size_t size) {
    unsigned long call = ++calls;
    char *moved = __libc_realloc(block, size);
#ifdef FLAW_TORN_REALLOC /* the last byte is not copied */
    if (block && moved && size > 64 && call % 16 == 0) moved[size / 2 - 1] ^= 1;
#endif
    (void)call;
    return moved;
}

void free(void *block) { __libc_free(block); }

#endif
