#define _GNU_SOURCE 1
#include "check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

void check_die(const char *format, ...) {
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (length < 0) length = 0;
    if ((size_t)length > sizeof line - 2) length = (int)sizeof line - 2;
    line[length] = '\n';
    ssize_t written = write(STDERR_FILENO, line, (size_t)length + 1);
    (void)written;
    _exit(1);
}

uint64_t clock_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void clock_sleep_us(unsigned microseconds) {
    struct timespec left = {microseconds / 1000000, (long)(microseconds % 1000000) * 1000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {}
}

/* Field `field` (from 0) of /proc/self/statm, in pages. */
static size_t statm_pages(int field) {
    char text[128];
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    CHECK(length > 0);
    text[length] = 0;
    const char *at = text;
    for (int i = 0; i < field; i++) {
        at = strchr(at, ' ');
        CHECK(at != NULL);
        at++;
    }
    return strtoull(at, NULL, 10);
}

size_t process_virtual_bytes(void) { return statm_pages(0) * (size_t)sysconf(_SC_PAGESIZE); }
size_t process_resident_bytes(void) { return statm_pages(1) * (size_t)sysconf(_SC_PAGESIZE); }

size_t process_task_count(void) {
    char text[2048];
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    CHECK(length > 0);
    text[length] = 0;
    const char *at = strstr(text, "\nThreads:");
    CHECK(at != NULL);
    return strtoull(at + 9, NULL, 10);
}

void process_expect_success(pid_t child, const char *what) {
    int status = 0;
    CHECKF(child > 0, "%s: no child: errno %d", what, errno);
    pid_t waited;
    do waited = waitpid(child, &status, 0);
    while (waited < 0 && errno == EINTR);
    CHECKF(waited == child, "%s: waitpid: errno %d", what, errno);
    CHECKF(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: wait status 0x%x", what, (unsigned)status);
}

again_t process_again(const char *program, char *const argv[]) {
    static char text[256], path[4096];
    again_t again = {.path = program};
    size_t count = 0, most = sizeof again.words / sizeof *again.words - 1;
    const char *emulator = getenv("TIDEMALLOC_TEST_EMULATOR");
    if (emulator != NULL) {
        ssize_t length = readlink(program, path, sizeof path - 1);
        if (length > 0)
            path[length] = 0;
        else
            snprintf(path, sizeof path, "%s", program);
        CHECK(strlen(emulator) < sizeof text);
        strcpy(text, emulator);
        char *rest = NULL;
        for (char *word = strtok_r(text, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
            CHECK(count < most);
            again.words[count++] = word;
        }
        again.path = again.words[0];
        again.words[count++] = path;
        if (*argv != NULL) argv++;
    }
    for (; *argv != NULL; argv++) {
        CHECK(count < most);
        again.words[count++] = *argv;
    }
    return again;
}

uint64_t argument_number(int argc, char **argv, int index, uint64_t fallback) {
    if (index >= argc) return fallback;
    char *end = NULL;
    errno = 0;
    uint64_t number = strtoull(argv[index], &end, 0);
    CHECKF(errno == 0 && end != argv[index] && *end == 0, "argument %d is no number: %s", index, argv[index]);
    return number;
}
