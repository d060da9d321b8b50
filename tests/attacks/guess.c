/* guess.c - how well can one know in advance where blocks will be? Exploits that groom a heap must. */
#define _GNU_SOURCE 1
#include "attacks.h"

#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static _Noreturn void guessed(int hits, int of) {
    verdict(2 * hits > of ? OUTCOME_UNDETECTED : OUTCOME_HARMLESS, "%d %%", (100 * hits + of / 2) / of);
}

/* Is the block freed last the one that comes next? */
static void reuse_next(size_t size) {
    enum { TRIES = 1000, LIVE = 64 };
    static char *live[LIVE];
    int hits = 0;
    for (int i = 0; i < LIVE; i++) live[i] = allocate(size);
    for (int i = 0; i < TRIES; i++) {
        char *freed = live[i % LIVE];
        release(freed);
        live[i % LIVE] = allocate(size);
        hits += live[i % LIVE] == freed;
    }
    guessed(hits, TRIES);
}

static void reuse_tiny(void) { reuse_next(TINY_BYTES); }
static void reuse_mid(void) { reuse_next(MID_BYTES); }
static void reuse_large(void) { reuse_next(LARGE_BYTES); }

/* Do two allocations in a row lie side by side? */
static void in_a_row(size_t size) {
    enum { TRIES = 500 };
    int hits = 0;
    char *before = allocate(size);
    for (int i = 0; i < TRIES; i++) {
        char *block = allocate(size);
        ptrdiff_t distance = block > before ? block - before : before - block;
        hits += distance >= (ptrdiff_t)size && distance < (ptrdiff_t)(size + size / 4 + 64);
        before = block;
    }
    guessed(hits, TRIES);
}

static void row_tiny(void) { in_a_row(TINY_BYTES); }
static void row_mid(void) { in_a_row(MID_BYTES); }

/* --- from one run to the next -------------------------------------------------------------------------------------- */

#define PLACES 64

/* Distances between blocks, which randomised addresses of mappings do not change. */
static void print_layout(size_t size) {
    long distances[PLACES];
    const char *first = allocate(size);
    for (int i = 0; i < PLACES; i++) distances[i] = allocate(size) - first;
    _exit(write(STDOUT_FILENO, distances, sizeof distances) != sizeof distances);
}

static void print_layout_tiny(void) { print_layout(TINY_BYTES); }
static void print_layout_mid(void) { print_layout(MID_BYTES); }
static void print_layout_large(void) { print_layout(LARGE_BYTES); }

static void run_again(const char *attack, long distances[PLACES]) {
    int ends[2];
    posix_spawn_file_actions_t actions;
    char *arguments[] = {(char *)(uintptr_t)program_path, (char *)(uintptr_t)attack, NULL};
    pid_t child;
    if (pipe(ends) != 0) verdict(OUTCOME_CRASH, "no pipe");
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    int status = 0;
    if (posix_spawn(&child, program_path, &actions, NULL, arguments, environ) != 0 ||
        waitpid(child, &status, 0) != child || status != 0 ||
        read(ends[0], distances, PLACES * sizeof *distances) != PLACES * (ssize_t)sizeof *distances)
        verdict(OUTCOME_CRASH, "no second run");
}

static void same_layout(const char *attack) {
    long one[PLACES], other[PLACES];
    int hits = 0;
    run_again(attack, one);
    run_again(attack, other);
    for (int i = 0; i < PLACES; i++) hits += one[i] == other[i];
    guessed(hits, PLACES);
}

static void layout_tiny(void) { same_layout("print-layout-tiny"); }
static void layout_mid(void) { same_layout("print-layout-mid"); }
static void layout_large(void) { same_layout("print-layout-large"); }

const struct attack guess_attacks[] = {
    {"reuse-tiny", "guess: the block of 48 bytes freed last comes next", reuse_tiny},
    {"reuse-mid", "the same with 6,000 bytes", reuse_mid},
    {"reuse-large", "the same with 300,000 bytes", reuse_large},
    {"row-tiny", "guess: two blocks of 48 bytes in a row are neighbours", row_tiny},
    {"row-mid", "the same with 6,000 bytes", row_mid},
    {"layout-tiny", "guess: blocks of 48 bytes lie to each other as in another run", layout_tiny},
    {"layout-mid", "the same with 6,000 bytes", layout_mid},
    {"layout-large", "the same with 300,000 bytes", layout_large},
    {"print-layout-tiny", "", print_layout_tiny},
    {"print-layout-mid", "", print_layout_mid},
    {"print-layout-large", "", print_layout_large},
    {0},
};
