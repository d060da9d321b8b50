/* standalone.c - a main for a fuzz target without libFuzzer: with any compiler, for AFL++, for a debugger, and for `make check`.
 *
 *   fuzz_x FILE                   run one input in this process
 *   fuzz_x FILE|FOLDER...         run each in a process of its own; say which failed
 *   fuzz_x < FILE                 run what comes from standard input
 *   fuzz_x --random SEED COUNT    run so many inputs of random bytes, each in a process of its own
 *   fuzz_x --together FOLDER...   run all in this process, for coverage; compiled with clang only
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_MAX_BYTES (1u << 20)
#define SECONDS_MAX 60u /* an input takes milliseconds; one that hangs is a finding */

static unsigned runs, failures;
static bool together;

static void run_here(const uint8_t *data, size_t size) {
    alarm(SECONDS_MAX);
    LLVMFuzzerTestOneInput(data, size);
    alarm(0);
}

static void run_apart(const char *name, const uint8_t *data, size_t size) {
    int status = -1;
    if (together) {
        run_here(data, size);
        runs++;
        return;
    }
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        run_here(data, size);
        _exit(0);
    }
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    runs++;
    if (status == 0) return;
    failures++;
    printf("failed: %s (wait status %#x)\n", name, (unsigned)status);
}

/* An exact allocation, so that a sanitizer sees a read behind the end. */
static uint8_t *read_all(FILE *file, size_t *size) {
    static uint8_t buffer[INPUT_MAX_BYTES];
    *size = fread(buffer, 1, sizeof buffer, file);
    uint8_t *data = malloc(*size > 0 ? *size : 1);
    if (data == NULL) exit(2);
    memcpy(data, buffer, *size);
    return data;
}

static void run_file(const char *path, bool apart) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(2);
    }
    size_t size;
    uint8_t *data = read_all(file, &size);
    fclose(file);
    if (apart)
        run_apart(path, data, size);
    else
        run_here(data, size);
    free(data);
}

static int is_visible(const struct dirent *entry) { return entry->d_name[0] != '.'; }

static void run_path(const char *path, bool apart) {
    struct stat about;
    if (stat(path, &about) != 0 || !S_ISDIR(about.st_mode)) {
        run_file(path, apart);
        return;
    }
    struct dirent **entries;
    int count = scandir(path, &entries, is_visible, alphasort);
    if (count < 0) exit(2);
    for (int i = 0; i < count; i++) {
        char name[4096];
        snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name);
        run_path(name, true);
        free(entries[i]);
    }
    free(entries);
}

static void run_random(uint64_t seed, unsigned long count) {
    static uint8_t data[4096];
    uint64_t state = seed * 2 + 1;
    for (unsigned long i = 0; i < count; i++) {
        char name[64];
        size_t size = 0, most = 0;
        do {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            uint64_t word = state * 0x2545f4914f6cdd1du;
            if (most == 0)
                most = 16 + word % (sizeof data - 24);
            else
                memcpy(data + size, &word, sizeof word), size += sizeof word;
        } while (size < most);
        snprintf(name, sizeof name, "--random %llu: number %lu", (unsigned long long)seed, i);
        run_apart(name, data, size);
    }
}

int main(int argc, char **argv) {
    if (argc > 2 && strcmp(argv[1], "--together") == 0) {
        together = true;
        for (int i = 2; i < argc; i++) run_path(argv[i], true);
    } else if (argc == 4 && strcmp(argv[1], "--random") == 0) {
        run_random(strtoull(argv[2], NULL, 0), strtoul(argv[3], NULL, 0));
    } else if (argc == 1) {
        size_t size;
        uint8_t *data = read_all(stdin, &size);
        run_here(data, size);
        return 0;
    } else {
        struct stat about;
        bool many = argc > 2 || (stat(argv[1], &about) == 0 && S_ISDIR(about.st_mode));
        for (int i = 1; i < argc; i++) run_path(argv[i], many);
        if (!many) return 0;
    }
    printf("%u inputs, %u failed\n", runs, failures);
    return failures == 0 && runs > 0 ? 0 : 1;
}
