/* launch.c - starts one program and reports what it used: wall time, CPU time, peak RSS, context switches.
 *
 * Usage: launch REPORT_FILE [NAME=VALUE ...] -- PROGRAM [ARGUMENT ...]
 *
 * Why not from Python: Linux counts the RSS that a process has at the moment of exec into its peak, so a child of a
 * large process seems to use that much itself. This program is smaller than any that it starts. The variables are set
 * for the child alone, so that a preloaded allocator is in nothing but the program that is measured. Exits as the child
 * did; 128 + n after signal n; 127 when it cannot be started.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t child;

static void signal_pass_on(int number) {
    if (child > 0) kill((pid_t)child, number);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t us(struct timeval t) { return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_usec; }

int main(int argc, char **argv) {
    int at = 2;
    while (at < argc && strcmp(argv[at], "--") != 0) at++;
    if (at + 1 >= argc) {
        fputs("usage: launch REPORT_FILE [NAME=VALUE ...] -- PROGRAM [ARGUMENT ...]\n", stderr);
        return 127;
    }
    signal(SIGTERM, signal_pass_on);

    uint64_t start_ns = now_ns();
    pid_t pid = fork();
    if (pid == 0) {
        for (int i = 2; i < at; i++) putenv(argv[i]);
        execvp(argv[at + 1], argv + at + 1);
        perror(argv[at + 1]);
        _exit(127);
    }
    child = pid;
    int status;
    struct rusage used;
    while (pid > 0 && wait4(pid, &status, 0, &used) < 0) continue;
    uint64_t wall_ns = now_ns() - start_ns;
    if (pid < 0) return 127;

    FILE *report = fopen(argv[1], "w");
    if (report == NULL) return 127;
    fprintf(report,
            "{\"wall_ns\": %" PRIu64 ", \"user_us\": %" PRIu64 ", \"system_us\": %" PRIu64
            ", \"peak_kib\": %ld, \"faults\": %ld, \"switches\": %ld}\n",
            wall_ns, us(used.ru_utime), us(used.ru_stime), used.ru_maxrss, used.ru_minflt,
            used.ru_nvcsw + used.ru_nivcsw);
    fclose(report);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
