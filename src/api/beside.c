/* beside.c - say whose malloc the program has, where another one is expected (beside.h). */
#include "api/beside.h"

#include "heap/bell.h"

#ifdef TIDE_PREFIXED /* leaves malloc alone */
void heap_on_start(void) {}
void beside_say(void) {}
#else

#include "api/libc.h"
#include "base/format.h"
#include "os/report.h"
#include "span/region.h"

/* A function that every program with this sanitizer has. */
extern void __asan_init(void) __attribute__((weak));
extern void __hwasan_init(void) __attribute__((weak));
extern void __lsan_init(void) __attribute__((weak));
extern void __msan_init(void) __attribute__((weak));
extern void __tsan_init(void) __attribute__((weak));

static const char *sanitizer_name(void) {
    if (__asan_init != NULL) return "AddressSanitizer";
    if (__hwasan_init != NULL) return "HWAddressSanitizer";
    if (__msan_init != NULL) return "MemorySanitizer";
    if (__tsan_init != NULL) return "ThreadSanitizer";
    if (__lsan_init != NULL) return "LeakSanitizer";
    return NULL;
}

/* What the dynamic linker calls malloc. */
static bool malloc_is_ours(void) {
    void *(*volatile found)(size_t) = malloc, *(*volatile ours)(size_t) = malloc_of_ours;
    return found == ours;
}

/* Valgrind leaves malloc where it is, and runs another instead. */
static bool malloc_comes_here(void) {
    void *(*volatile take)(size_t) = malloc;
    void (*volatile give)(void *) = free;
    void *block = take(1);
    bool ours = region_of(block) != NULL;
    give(block);
    return ours;
}

/* Valgrind preloads a library of its core, and one more for a tool that replaces malloc. */
static bool valgrind_has_malloc(void) {
    const char *preload = os_environment("LD_PRELOAD");
    if (preload == NULL) return false;
    while ((preload = strstr(preload, "/vgpreload_")) != NULL) {
        preload += strlen("/vgpreload_");
        if (strncmp(preload, "core", strlen("core")) != 0) return true;
    }
    return false;
}

void heap_on_start(void) {
    const char *name = sanitizer_name();
    if (name == NULL || !malloc_is_ours()) return;
    struct line line = {0};
    line_add(&line, "this program is built with ");
    line_add(&line, name);
    line_add(&line, ", which needs a malloc of its own: run it without tidemalloc");
    report_warning(line.text, NULL);
    os_exit(1); /* the sanitizer may have replaced abort, and not be ready for it */
}

void beside_say(void) {
    const char *name = sanitizer_name();
    if (name != NULL) {
        heap_on_start();
        report_warning("not in use: this program has the malloc of ", name);
    } else if (valgrind_has_malloc()) {
        report_warning(
            malloc_comes_here()
                ? "in use under Valgrind, which sees its mappings, but not the blocks in them: for what Valgrind "
                  "finds in blocks, run without tidemalloc"
                : "not in use: Valgrind has put a malloc of its own in place of it (to keep this one: "
                  "--soname-synonyms=somalloc=nouserintercepts)",
            NULL);
    }
}

#endif
