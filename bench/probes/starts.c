/* starts.c - how long a program takes from its start to its end, without and with libraries to preload.
 *
 * Usage: starts COUNT PROGRAM [LIBRARY ...]
 *
 * Prints one line for each of COUNT rounds: nanoseconds without a library, then with each library. The order rotates
 * from round to round, so that a drift of the machine falls on all of them. Five rounds before the first are not
 * printed.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

enum { MAX_LIBRARIES = 15, WARM_UP_ROUNDS = 5 };

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Nanoseconds of one run, or 0 when it failed. */
static uint64_t run_once(char *program, char *preload, posix_spawn_file_actions_t *actions) {
    char *arguments[] = {program, NULL}, *environment[] = {preload, NULL};
    pid_t pid;
    int status;
    uint64_t start_ns = now_ns();
    if (posix_spawn(&pid, program, actions, NULL, arguments, environment) != 0) return 0;
    if (waitpid(pid, &status, 0) != pid || status != 0) return 0;
    return now_ns() - start_ns;
}

int main(int argc, char **argv) {
    static char preload[MAX_LIBRARIES + 1][4096];
    if (argc < 3 || argc - 3 > MAX_LIBRARIES) return 2;
    size_t kinds = (size_t)argc - 2, rounds = strtoul(argv[1], NULL, 10);
    uint64_t taken_ns[MAX_LIBRARIES + 1];
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    snprintf(preload[0], sizeof preload[0], "LC_ALL=C");
    for (size_t i = 1; i < kinds; i++) snprintf(preload[i], sizeof preload[i], "LD_PRELOAD=%s", argv[2 + i]);

    for (size_t round = 0; round < rounds + WARM_UP_ROUNDS; round++) {
        for (size_t i = 0; i < kinds; i++) {
            size_t kind = (i + round) % kinds;
            taken_ns[kind] = run_once(argv[2], preload[kind], &actions);
            if (taken_ns[kind] == 0) {
                fputs("starts: the program failed\n", stderr);
                return 1;
            }
        }
        if (round < WARM_UP_ROUNDS) continue;
        for (size_t i = 0; i < kinds; i++) printf("%" PRIu64 "%c", taken_ns[i], i + 1 < kinds ? ' ' : '\n');
    }
    return 0;
}
