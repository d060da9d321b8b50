/* early.c - malloc at the odd moments of a process's life: before any constructor, in constructors of the highest priority,
 * in fork handlers, in destructors of thread-specific data, in atexit handlers and in destructors after them.
 *
 * Each place allocates, frees what an earlier place allocated, and ticks its box; the last one reports. */
#define _GNU_SOURCE 1
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "subject.h"

enum {
    PREINIT,
    CONSTRUCTOR,
    CONSTRUCTOR_2,
    PREPARE,
    PARENT,
    CHILD,
    KEY_1,
    KEY_2,
    KEY_3,
    KEY_4,
    ATEXIT,
    DESTRUCTOR,
    PLACES
};
static const char *const place_names[PLACES] = {
    "preinit_array",     "constructor(101)",  "constructor",       "fork: prepare",     "fork: parent", "fork: child",
    "key destructor, 1", "key destructor, 2", "key destructor, 3", "key destructor, 4", "atexit",       "destructor",
};
static int visited[PLACES];

/* Blocks that travel from one place to the next. */
enum { BLOCKS = 24 };
static unsigned char *blocks[BLOCKS];
static size_t sizes[BLOCKS];
static unsigned char marks[BLOCKS];

/* One place's work: check and free a third of the blocks, reallocate a third, allocate what is missing. */
static void work(int place) {
    visited[place]++;
    for (size_t i = 0; i < BLOCKS; i++) {
        for (size_t j = 0; blocks[i] != NULL && j < sizes[i]; j++)
            CHECKF(blocks[i][j] == marks[i], "%s: block %zu of %zu bytes is damaged", place_names[place], i, sizes[i]);
        size_t size = ((size_t)1 << (i % 20)) + (size_t)place;
        switch ((i + (size_t)place) % 3) {
        case 0:
            free(blocks[i]);
            blocks[i] = NULL;
            break;
        case 1:
            blocks[i] = realloc(blocks[i], size);
            CHECK(blocks[i] != NULL);
            break;
        default:
            if (blocks[i] != NULL) continue;
            blocks[i] = calloc(1, size);
            CHECK(blocks[i] != NULL);
            for (size_t j = 0; j < size; j++) CHECK(blocks[i][j] == 0);
        }
        if (blocks[i] == NULL) continue;
        sizes[i] = size;
        marks[i] = (unsigned char)(place + 1 + (int)i);
        memset(blocks[i], marks[i], size);
    }
}

static void at_preinit(int argc, char **argv, char **environment) {
    (void)argc, (void)argv, (void)environment;
    work(PREINIT);
}
__attribute__((section(".preinit_array"), used)) static void (*const preinit)(int, char **, char **) = at_preinit;

__attribute__((constructor(101))) static void at_construction(void) { work(CONSTRUCTOR); }
__attribute__((constructor)) static void at_construction_2(void) { work(CONSTRUCTOR_2); }

static void before_fork(void) { work(PREPARE); }
static void after_fork_in_parent(void) { work(PARENT); }
static void after_fork_in_child(void) { work(CHILD); }

/* musl calls nothing before the constructors. */
#ifdef TIDE_TEST_MUSL_H
enum { PREINITS = 0 };
#else
enum { PREINITS = 1 };
#endif

static pthread_key_t key;
static int key_round;
/* Sets the key again three times: glibc calls destructors in at most four rounds. */
static void at_key_destruction(void *value) {
    CHECK(key_round < 4);
    work(KEY_1 + key_round);
    if (++key_round < 4) CHECK(pthread_setspecific(key, value) == 0);
}
static void *key_thread(void *argument) {
    CHECK(pthread_setspecific(key, argument) == 0);
    return NULL;
}

static void at_exit(void) { work(ATEXIT); }

__attribute__((destructor(101))) static void at_destruction(void) {
    work(DESTRUCTOR);
    for (size_t i = 0; i < BLOCKS; i++) free(blocks[i]);
    for (int place = 0; place < PLACES; place++) {
        /* The fork child is checked by the parent and does not come here. */
        int expected = place == CHILD ? 0 : place == PREINIT ? PREINITS : 1;
        CHECKF(visited[place] == expected, "%s: visited %d times", place_names[place], visited[place]);
    }
    static const char line[] = "all places visited\n";
    CHECK(write(STDOUT_FILENO, line, sizeof line - 1) == (ssize_t)sizeof line - 1);
}

int main(void) {
    subject_require();
    CHECK(visited[PREINIT] == PREINITS && visited[CONSTRUCTOR] == 1 && visited[CONSTRUCTOR_2] == 1);
    CHECK(pthread_key_create(&key, at_key_destruction) == 0);
    CHECK(atexit(at_exit) == 0);
    CHECK(pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) == 0);

    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, key_thread, &key_round) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(key_round == 4);

    pid_t child = fork();
    if (child == 0) _exit(visited[CHILD] == 1 ? 0 : 1);
    process_expect_success(child, "fork with handlers that allocate");
    return 0;
}
