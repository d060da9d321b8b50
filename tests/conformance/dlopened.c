/* dlopened.c - libtidemalloc.so loaded by dlopen into a program that runs on the system's malloc.
 *
 * Both allocators then live side by side. The library's functions must call each other, never the system's functions of
 * the same names. argv: the library's path. Not to be preloaded. */
#define _GNU_SOURCE 1
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "tidemalloc.h"

typedef struct library {
    void *handle;
    void *(*malloc)(size_t);
    void (*free)(void *);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void *(*reallocarray)(void *, size_t, size_t);
    void *(*aligned_alloc)(size_t, size_t);
    void *(*memalign)(size_t, size_t);
    int (*posix_memalign)(void **, size_t, size_t);
    void (*cfree)(void *);
    void (*free_sized)(void *, size_t);
    size_t (*malloc_usable_size)(void *);
    int (*malloc_trim)(size_t);
    void *(*operator_new)(size_t);
    void (*operator_delete)(void *);
    int (*stats_get)(tide_stats *, size_t);
} library_t;

static void look_up(const library_t *library, void *function_pointer, const char *name) {
    void *symbol = dlsym(library->handle, name);
    CHECKF(symbol != NULL, "%s is not exported", name);
    Dl_info from, library_from;
    CHECK(dladdr(symbol, &from) != 0 && dladdr(dlsym(library->handle, "tide_stats_get"), &library_from) != 0);
    CHECKF(from.dli_fbase == library_from.dli_fbase, "%s comes from %s", name, from.dli_fname);
    memcpy(function_pointer, &symbol, sizeof symbol);
}

static library_t library_open(const char *path, int flags) {
    library_t library = {.handle = dlopen(path, flags)};
    const char *refusal = library.handle == NULL ? dlerror() : "";
    if (strstr(refusal, "initial-exec TLS") != NULL) { /* musl */
        puts("skipped: this libc loads no library that has thread-local variables at a fixed place");
        exit(CHECK_SKIPPED);
    }
    CHECKF(library.handle != NULL, "dlopen: %s", refusal);
    look_up(&library, &library.malloc, "malloc");
    look_up(&library, &library.free, "free");
    look_up(&library, &library.calloc, "calloc");
    look_up(&library, &library.realloc, "realloc");
    look_up(&library, &library.reallocarray, "reallocarray");
    look_up(&library, &library.aligned_alloc, "aligned_alloc");
    look_up(&library, &library.memalign, "memalign");
    look_up(&library, &library.posix_memalign, "posix_memalign");
    look_up(&library, &library.cfree, "cfree");
    look_up(&library, &library.free_sized, "free_sized");
    look_up(&library, &library.malloc_usable_size, "malloc_usable_size");
    look_up(&library, &library.malloc_trim, "malloc_trim");
    look_up(&library, &library.operator_new, "_Znwm");
    look_up(&library, &library.operator_delete, "_ZdlPv");
    look_up(&library, &library.stats_get, "tide_stats_get");
    return library;
}

static uint64_t live_bytes(const library_t *library) {
    tide_stats stats = {0};
    CHECK(library->stats_get(&stats, sizeof stats) == 0);
    return stats.allocated_bytes;
}

/* Every way in and every way out, next to blocks of the system's malloc. */
static void work(const library_t *library, uint64_t seed) {
    enum { COUNT = 500 };
    unsigned char *ours[COUNT] = {0}, *system[COUNT] = {0};
    for (int round = 0; round < 10; round++)
        for (size_t i = 0; i < COUNT; i++) {
            size_t size = 1 + random_below(&seed, random_below(&seed, 20) == 0 ? 300000 : 3000);
            void *p = NULL;
            switch (random_below(&seed, 7)) {
            case 0: p = library->malloc(size); break;
            case 1: p = library->calloc(1, size); break;
            case 2: p = library->realloc(NULL, size); break;
            case 3: p = library->reallocarray(NULL, size, 1); break;
            case 4: p = library->aligned_alloc(64, size); break;
            case 5: p = library->memalign(4096, size); break;
            default: CHECK(library->posix_memalign(&p, 128, size) == 0);
            }
            CHECK(p != NULL && library->malloc_usable_size(p) >= size);
            memset(p, (int)(i % 256), size);
            unsigned char *q = malloc(size);
            CHECK(q != NULL);
            memset(q, (int)(i % 256), size);
            if (ours[i] != NULL) {
                CHECK(ours[i][0] == i % 256 && system[i][0] == i % 256);
                switch (random_below(&seed, 3)) {
                case 0: library->free(ours[i]); break;
                case 1: library->cfree(ours[i]); break;
                default: CHECK(library->realloc(ours[i], 0) == NULL);
                }
                free(system[i]);
            }
            ours[i] = library->realloc(p, size * 2);
            system[i] = q;
            CHECK(ours[i] != NULL && ours[i][0] == i % 256 && ours[i][size - 1] == i % 256);
        }
    for (size_t i = 0; i < COUNT; i++) {
        library->free(ours[i]);
        free(system[i]);
    }
    void *object = library->operator_new(100);
    CHECK(object != NULL && library->malloc_usable_size(object) >= 100);
    library->operator_delete(object);
}

enum { THREADS = 4 };
static library_t shared;
static atomic_int go;
static void *_Atomic exchange[64];

/* Half of these threads existed before dlopen: their TLS for the library is made on the fly. */
static void *thread_main(void *argument) {
    while (!atomic_load(&go)) clock_sleep_us(1000);
    uint64_t seed = (uint64_t)(uintptr_t)argument;
    work(&shared, seed);
    for (int i = 0; i < 20000; i++) {
        void *p = shared.malloc(1 + random_below(&seed, 2000));
        CHECK(p != NULL);
        p = atomic_exchange(&exchange[random_below(&seed, 64)], p);
        shared.free(p);
    }
    return NULL;
}

static void check_library(const char *path, int flags) {
    pthread_t threads[THREADS];
    atomic_store(&go, 0);
    for (size_t i = 0; i < THREADS / 2; i++)
        CHECK(pthread_create(&threads[i], NULL, thread_main, (void *)(uintptr_t)(i + 1)) == 0);
    shared = library_open(path, flags);
    work(&shared, 99);
    uint64_t live = live_bytes(&shared);
    void *mine = shared.malloc(50000);
    CHECK(mine != NULL && live_bytes(&shared) >= live + 50000);
    for (size_t i = THREADS / 2; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, thread_main, (void *)(uintptr_t)(i + 1)) == 0);
    atomic_store(&go, 1);
    for (size_t i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    for (size_t i = 0; i < 64; i++) shared.free(atomic_exchange(&exchange[i], NULL));

    pid_t child = fork();
    if (child == 0) {
        work(&shared, 7);
        shared.free(mine);
        _exit(0);
    }
    process_expect_success(child, "fork with the library loaded");

    /* A program's own blocks stay the system's. */
    uint64_t before = live_bytes(&shared);
    void *volatile p = malloc(1000000);
    CHECK(p != NULL && live_bytes(&shared) == before);
    free(p);
    shared.malloc_trim(0);
    shared.free(mine);
    CHECK(dlclose(shared.handle) == 0);
    p = malloc(1000);
    CHECK(p != NULL);
    free(p);
}

int main(int argc, char **argv) {
    if (argc != 2) check_die("usage: %s libtidemalloc.so", argv[0]);
    CHECK(dlsym(RTLD_DEFAULT, "tide_stats_get") == NULL);
    check_library(argv[1], RTLD_NOW | RTLD_LOCAL);
    /* Again: the library stays in memory after dlclose (-z nodelete), and can be opened in another way. */
    check_library(argv[1], RTLD_NOW | RTLD_LOCAL);
    check_library(argv[1], RTLD_NOW | RTLD_GLOBAL);
    check_library(argv[1], RTLD_LAZY | RTLD_GLOBAL);
    puts("side by side with the system's malloc: fine");
    return 0;
}
