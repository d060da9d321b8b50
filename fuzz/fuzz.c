#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "fuzz.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The wrappers of subject.h, which this file must not see. */
int fuzz_key_create(pthread_key_t *key, void (*destructor)(void *));
int fuzz_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));
void *fuzz_mmap(void *at, size_t bytes, int protection, int flags, int file, off_t offset);
void fuzz_note_mapping(void *at, size_t bytes);
void fuzz_forget_mapping(void *at, size_t bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

void fuzz_die(const char *file, int line, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const char *base = strrchr(file, '/');
    fprintf(stderr, "fuzz: %s:%d: ", base != NULL ? base + 1 : file, line);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    abort();
}

/* For the fake system and the helpers of the unit tests, whose checks end here. */
_Noreturn void check_die(const char *format, ...) __attribute__((format(printf, 1, 2)));
void check_die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    abort();
}

/* --- contents -------------------------------------------------------------------------------------------------------- */

#define WHOLE_BYTES 4096u
#define STEP_BYTES 4096u

static uint8_t pattern(uint64_t seed, size_t i) { return (uint8_t)(seed * 37 + i * 7 + (i >> 8) + 1); }

/* The offsets that carry the pattern: all of the first WHOLE_BYTES, then one in STEP_BYTES. They do not depend on the size. */
static size_t next_offset(size_t i) { return i + 1 < WHOLE_BYTES ? i + 1 : (i / STEP_BYTES + 1) * STEP_BYTES; }

void fuzz_fill(void *block, size_t bytes, uint64_t seed) {
    uint8_t *at = block;
    for (size_t i = 0; i < bytes; i = next_offset(i)) at[i] = pattern(seed, i);
}

bool fuzz_holds(const void *block, size_t bytes, uint64_t seed) {
    const uint8_t *at = block;
    for (size_t i = 0; i < bytes; i = next_offset(i))
        if (at[i] != pattern(seed, i)) return false;
    return true;
}

bool fuzz_is_zero(const void *block, size_t bytes) {
    const uint8_t *at = block;
    for (size_t i = 0; i < bytes; i++)
        if (at[i] != 0) return false;
    return true;
}

/* --- what an input leaves behind --------------------------------------------------------------------------------------- */

#define MAPPINGS_MAX 4096u
static struct { uintptr_t start, end; } mappings[MAPPINGS_MAX];
static size_t mapping_count;
static pthread_mutex_t mapping_lock = PTHREAD_MUTEX_INITIALIZER;

static void mapping_add(uintptr_t start, uintptr_t end) {
    if (start == end) return;
    must(mapping_count < MAPPINGS_MAX);
    mappings[mapping_count].start = start;
    mappings[mapping_count++].end = end;
}

void fuzz_note_mapping(void *at, size_t bytes) {
    pthread_mutex_lock(&mapping_lock);
    mapping_add((uintptr_t)at, (uintptr_t)at + bytes);
    pthread_mutex_unlock(&mapping_lock);
}

/* Before it is unmapped: from then on it may be anybody's. */
void fuzz_forget_mapping(void *at, size_t bytes) {
    uintptr_t start = (uintptr_t)at, end = start + bytes;
    pthread_mutex_lock(&mapping_lock);
    for (size_t i = 0; i < mapping_count; i++) {
        if (mappings[i].end <= start || end <= mappings[i].start) continue;
        uintptr_t first = mappings[i].start, last = mappings[i].end;
        mappings[i--] = mappings[--mapping_count];
        if (first < start) mapping_add(first, start);
        if (end < last) mapping_add(end, last);
        if (first < start || end < last) break; /* the parts that were added lie outside */
    }
    pthread_mutex_unlock(&mapping_lock);
}

void *fuzz_mmap(void *at, size_t bytes, int protection, int flags, int file, off_t offset) {
    void *result = mmap(at, bytes, protection, flags, file, offset);
    if (at == NULL && result != MAP_FAILED) fuzz_note_mapping(result, bytes);
    return result;
}

static void mappings_forget(void) {
    for (size_t i = 0; i < mapping_count; i++) munmap((void *)mappings[i].start, mappings[i].end - mappings[i].start);
    mapping_count = 0;
}

static pthread_key_t the_key;
static bool the_key_is_made;
int fuzz_key_create(pthread_key_t *key, void (*destructor)(void *)) {
    if (!the_key_is_made) the_key_is_made = pthread_key_create(&the_key, destructor) == 0;
    *key = the_key;
    return the_key_is_made ? 0 : EAGAIN;
}

static struct { void (*prepare)(void), (*parent)(void), (*child)(void); } handlers;
int fuzz_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void)) {
    handlers.prepare = prepare;
    handlers.parent = parent;
    handlers.child = child;
    return 0;
}

static bool is_child;
pid_t fuzz_fork(void) {
    if (handlers.prepare != NULL) handlers.prepare();
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) is_child = true;
    void (*after)(void) = child == 0 ? handlers.child : handlers.parent;
    if (after != NULL) after();
    return child;
}

void fuzz_child_end(void) {
    must(is_child);
    _exit(0);
}

void fuzz_child_must_end_well(pid_t child) {
    int status = -1;
    if (child < 0) return; /* the system is short of processes: nothing was tried */
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    must_be(status == 0, "the forked child found something (wait status %#x)", (unsigned)status);
}

/* --- a fresh state ----------------------------------------------------------------------------------------------------- */

extern char __start_tide_data[] __attribute__((weak)), __stop_tide_data[] __attribute__((weak));
extern char __start_tide_bss[] __attribute__((weak)), __stop_tide_bss[] __attribute__((weak));

struct section {
    char *start, *stop, *saved;
};

/* Not memcpy: between variables lie the red zones of AddressSanitizer. */
#ifdef __clang__
__attribute__((no_sanitize("address", "undefined", "coverage")))
#endif
static void
words_copy(char *to, const char *from, size_t bytes) {
#if defined(__x86_64__)
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
#else
    for (size_t i = 0; i < bytes; i++) ((volatile char *)to)[i] = ((const volatile char *)from)[i];
#endif
}

static void section_save(struct section *section) {
    size_t bytes = (size_t)(section->stop - section->start);
    section->saved = malloc(bytes + 1);
    must(section->saved != NULL);
    words_copy(section->saved, section->start, bytes);
}

static void section_restore(const struct section *section) {
    words_copy(section->start, section->saved, (size_t)(section->stop - section->start));
}

struct job {
    const uint8_t *data;
    size_t size;
};

static void *job_run(void *argument) {
    const struct job *job = argument;
    fuzz_one(job->data, job->size);
    return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct section parts[2];
    static bool saved;
    if (!saved) {
        parts[0] = (struct section){__start_tide_data, __stop_tide_data, NULL};
        parts[1] = (struct section){__start_tide_bss, __stop_tide_bss, NULL};
        for (size_t i = 0; i < 2; i++) section_save(&parts[i]);
        saved = true;
    }
    struct job job = {data, size};
    pthread_t thread;
    must(pthread_create(&thread, NULL, job_run, &job) == 0);
    must(pthread_join(thread, NULL) == 0);
    for (size_t i = 0; i < 2; i++) section_restore(&parts[i]);
    mappings_forget();
    memset(&handlers, 0, sizeof handlers);
    return 0;
}
