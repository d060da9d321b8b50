/* address_limit.c - life under RLIMIT_AS: memory is used up, refused with ENOMEM, given back and served again.
 *
 *   address_limit start   the limit is there before the program starts (the program starts itself again under it)
 *   address_limit later   the limit comes while the program runs, with blocks alive; then it is lifted
 */
#define _GNU_SOURCE 1
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "check.h"
#include "subject.h"

enum { MIB = 1024 * 1024 };
static const size_t limit_bytes = (size_t)192 * MIB;

static void set_limit(rlim_t bytes) {
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
    limit.rlim_cur = bytes;
    CHECKF(setrlimit(RLIMIT_AS, &limit) == 0, "setrlimit: errno %d", errno);
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
    if (limit.rlim_cur == bytes) return;
    puts("skipped: the system takes no limit on address space"); /* an emulator needs the room for itself */
    exit(CHECK_SKIPPED);
}

/* A list through the blocks themselves, so that keeping them costs nothing. */
typedef struct node {
    struct node *next;
    size_t size;
} node_t;

/* Allocate blocks until memory is refused, free them all; returns the bytes that could be had. */
static size_t fill_and_empty(size_t size) {
    node_t *list = NULL;
    size_t total = 0;
    for (;;) {
        errno = 0;
        node_t *node = malloc(size);
        if (node == NULL) break;
        memset(node, 0x6b, size);
        *node = (node_t){list, size};
        list = node;
        total += size;
        CHECKF(total <= 4 * limit_bytes, "blocks of %zu bytes: the limit is not in force", size);
    }
    CHECKF(errno == ENOMEM, "blocks of %zu bytes: refused with errno %d", size, errno);
    /* Refused means refused in every way, and still proper. */
    errno = 0;
    CHECK(calloc(1, limit_bytes) == NULL && errno == ENOMEM);
    void *aligned = NULL;
    CHECK(posix_memalign(&aligned, 4096, limit_bytes) == ENOMEM && aligned == NULL);
    if (list != NULL) {
        errno = 0;
        CHECK(realloc(list, limit_bytes) == NULL && errno == ENOMEM);
        CHECK(list->size == size);
    }
    while (list != NULL) {
        node_t *next = list->next;
        CHECK(list->size == size && ((unsigned char *)list)[size - 1] == 0x6b);
        free(list);
        list = next;
    }
    return total;
}

static void *thread_main(void *argument) {
    void *volatile p = malloc(100000);
    CHECK(p != NULL);
    free(p);
    return argument;
}

/* The rest of the process can still map memory and start threads. */
static void check_others_have_room(void) {
    void *own = mmap(NULL, 4 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECKF(own != MAP_FAILED, "mmap of 4 MiB: errno %d, %zu bytes mapped", errno, process_virtual_bytes());
    munmap(own, 4 * MIB);
    pthread_t thread;
    int error = pthread_create(&thread, NULL, thread_main, NULL);
    CHECKF(error == 0, "pthread_create: error %d, %zu bytes mapped", error, process_virtual_bytes());
    CHECK(pthread_join(thread, NULL) == 0);
}

static void check_under_limit(void) {
    const size_t sizes[] = {64, 700, 4000, 20000, 100000, MIB + 5, 10 * MIB};
    enum { COUNT = sizeof sizes / sizeof sizes[0] };
    size_t first[COUNT];
    check_others_have_room();
    for (int round = 0; round < 2; round++)
        for (size_t i = 0; i < COUNT; i++) {
            size_t total = fill_and_empty(sizes[i]);
            printf("round %d: %9zu bytes a block: %4zu MiB\n", round, sizes[i], total / MIB);
            fflush(stdout);
            /* Most of the limit must be usable: 60 %. A tenth of it may get lost to another way of cutting it up. */
            CHECKF(total >= limit_bytes / 10 * 6, "only %zu bytes in blocks of %zu", total, sizes[i]);
            if (round == 0)
                first[i] = total;
            else
                CHECKF(total >= first[i] / 10 * 9, "%zu bytes in blocks of %zu, %zu at first", total, sizes[i],
                       first[i]);
        }
}

static void at_start(char **argv) {
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
    if (limit.rlim_cur != limit_bytes) {
        set_limit(limit_bytes);
        again_t again = process_again("/proc/self/exe", argv);
        execv(again.path, again.words);
        check_die("exec: errno %d", errno);
    }
    subject_require();
    check_under_limit();
}

static void later(void) {
    subject_require();
    /* 30 MiB alive and 30 MiB in caches when the limit comes. */
    enum { COUNT = 6000 };
    static unsigned char *blocks[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = malloc(10000);
        CHECK(blocks[i] != NULL);
        memset(blocks[i], (int)(i % 256), 10000);
    }
    for (size_t i = 0; i < COUNT; i += 2) free(blocks[i]);
    set_limit(limit_bytes);
    check_others_have_room();
    for (size_t i = 1; i < COUNT; i += 2) {
        CHECK(blocks[i][0] == i % 256 && blocks[i][9999] == i % 256);
        free(blocks[i]);
    }
    check_under_limit();
    set_limit(RLIM_INFINITY);
    void *volatile p = malloc(3 * limit_bytes);
    CHECKF(p != NULL, "the limit is gone, but %zu bytes are refused", 3 * limit_bytes);
    free(p);
    /* And once more: a limit that comes and goes must not use anything up. */
    set_limit(limit_bytes);
    CHECK(fill_and_empty(5000) >= limit_bytes / 10 * 6);
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "start") == 0)
        at_start(argv);
    else if (argc == 2 && strcmp(argv[1], "later") == 0)
        later();
    else
        check_die("usage: %s start|later", argv[0]);
    puts("nothing was lost");
    return 0;
}
