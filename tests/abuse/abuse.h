/* abuse.h - what the abuse programs share. Each program holds the cases for one fatal message:
 *
 *   program --list     prints a line `name<TAB>regular expression` for every case
 *   program name       runs one case: it makes the mistake, and must not survive it
 *
 * run.py runs every case in a process of its own and judges how it dies. Right before the mistake a case calls doomed(p)
 * or doomed_inside(p, block), which print the pointers; `PTR` and `START` in an expression stand for exactly these, as %p
 * prints them. */
#ifndef TIDE_ABUSE_H
#define TIDE_ABUSE_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "subject.h"

typedef struct abuse_case {
    const char *name;
    void (*run)(void);
    const char *expected;
} abuse_case_t;

/* The size of a block in each tier. */
enum { TINY_BYTES = 200, MID_BYTES = 9000, LARGE_BYTES = 300000 };

/* Announce the pointer of the mistake and the start of the block it points into, and hide from the compiler what it is. */
static inline void *doomed_inside(void *p, void *block) {
    char line[64];
    int length = snprintf(line, sizeof line, "%p %p\n", p, block);
    CHECK(write(STDOUT_FILENO, line, (size_t)length) == length);
    void *volatile hidden = p;
    return hidden;
}
static inline void *doomed(void *p) { return doomed_inside(p, p); }

static inline void *block_make(size_t size) {
    void *volatile p = malloc(size);
    CHECK(p != NULL);
    memset(p, 0x41, size);
    return p;
}

static inline void block_free(void *p) {
    void *volatile hidden = p;
    free(hidden);
}

static inline void *thread_run_free(void *p) {
    free(p);
    return NULL;
}
/* Free a block in another thread, and wait until that has ended. */
static inline void block_free_elsewhere(void *p) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, thread_run_free, p) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

static int abuse_main(int argc, char **argv, const abuse_case_t *cases, size_t count) {
    if (argc != 2) check_die("usage: %s --list | case", argv[0]);
    if (strcmp(argv[1], "--list") == 0) {
        for (size_t i = 0; i < count; i++) printf("%s\t%s\n", cases[i].name, cases[i].expected);
        return 0;
    }
    subject_require();
    for (size_t i = 0; i < count; i++) {
        if (strcmp(argv[1], cases[i].name) != 0) continue;
        cases[i].run();
        check_die("%s: the mistake was not noticed", argv[1]);
    }
    check_die("no such case: %s", argv[1]);
}

#endif
