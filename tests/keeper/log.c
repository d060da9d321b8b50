/* log.c - TIDE_LOG=keeper: each decision is a line of one of the known forms, there are not too many of them, and without the option there are none. */
#define _GNU_SOURCE 1
#include <fcntl.h>
#include <pthread.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "burst.h"
#include "check.h"
#include "scene.h"
#include "subject.h"
#include "water.h"

enum { TEXT_BYTES = 1 << 16, LINES_PER_SECOND = 10 };

static burst_t burst;
static size_t baseline;

/* --- what is logged ---------------------------------------------------------------------------------------------------------- */

static void few_part(void) {
    burst_make(&burst, BURST_MIXED, 12 * WATER_MIB, 2);
    baseline = water_level();
    for (unsigned round = 0; round < 2; round++) {
        burst_fill(&burst, BURST_MIXED, 12 * WATER_MIB);
        burst_free(&burst);
        water_expect_baseline(baseline, "a burst");
        clock_sleep_us(100000);
    }
}

/* Idle and busy again as often as the keeper can see it. */
static void many_part(void) {
    burst_make(&burst, BURST_MIXED, 8 * WATER_MIB, 2);
    uint64_t until = clock_now_ns() + 2200000000u;
    while (clock_now_ns() < until) {
        burst_fill(&burst, BURST_MIXED, 4 * WATER_MIB);
        burst_free(&burst);
        clock_sleep_us(60000);
    }
}

/* --- who reads it -------------------------------------------------------------------------------------------------------------- */

static char *text;

static size_t read_all(const char *part, const char *environment) {
    int ends[2];
    text = mmap(NULL, TEXT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(text != MAP_FAILED && pipe(ends) == 0);
    pid_t child = scene_start(part, environment, ends[1], NULL);
    close(ends[1]);
    size_t length = 0;
    for (ssize_t got; (got = read(ends[0], text + length, TEXT_BYTES - 1 - length)) > 0;) length += (size_t)got;
    close(ends[0]);
    text[length] = 0;
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    CHECKF(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: wait status 0x%x, %s", part, (unsigned)status, text);
    return length;
}

#define FORM_LEFT_OUT "(\\([0-9]+ lines left out\\) )?"
static const char form[] = "^tidemalloc: keeper: " FORM_LEFT_OUT "(started, mode [a-z]+"
                           "|idle: gave back [0-9]+ KiB(, keep [0-9]+ KiB)?( for [0-9]+ ms|, sleep)"
                           "|busy again after [0-9]+ ms"
                           "|busy: gave back [0-9]+ KiB of [0-9]+ KiB that nobody needed"
                           "|memory pressure \\([a-z ]+\\): gave back [0-9]+ KiB"
                           "|[a-z ]+: error [0-9]+)$";

/* Returns how many lines there are, and how many have this word in them. */
static unsigned check_lines(const char *word, unsigned *found) {
    regex_t pattern;
    CHECK(regcomp(&pattern, form, REG_EXTENDED | REG_NOSUB) == 0);
    unsigned lines = 0;
    *found = 0;
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        CHECKF(regexec(&pattern, line, 0, NULL, 0) == 0, "line %u is of no known form: %s", lines + 1, line);
        *found += strstr(line, word) != NULL;
        lines++;
    }
    regfree(&pattern);
    return lines;
}

static void forms(void) {
    read_all("few-part", "TIDE_LOG=keeper");
    CHECKF(strncmp(text, "tidemalloc: keeper: started, mode hybrid\n", 41) == 0, "begins with %s", text);
    unsigned idle;
    unsigned lines = check_lines("idle: gave back ", &idle);
    CHECKF(idle >= 1 && lines >= 2, "%u lines, %u of them idle", lines, idle);
}

static void of_mode(void) {
    read_all("few-part", "TIDE_LOG=keeper TIDE_MODE=flush");
    CHECKF(strncmp(text, "tidemalloc: keeper: started, mode flush\n", 40) == 0, "begins with %s", text);
}

static void not_too_many(void) {
    uint64_t begun = clock_now_ns();
    read_all("many-part", "TIDE_LOG=keeper TIDE_MODE=flush");
    uint64_t seconds = (clock_now_ns() - begun) / 1000000000u + 2; /* one that had begun, and one that had not ended */
    unsigned left_out;
    unsigned lines = check_lines("lines left out", &left_out);
    CHECKF(lines <= LINES_PER_SECOND * seconds, "%u lines in %u s", lines, (unsigned)seconds);
    CHECKF(left_out >= 1, "%u lines, and none was left out", lines);
}

static void silent(void) {
    size_t length = read_all("few-part", NULL);
    CHECKF(length == 0, "%zu bytes: %s", length, text);
    length = read_all("few-part", "TIDE_LOG=off");
    CHECKF(length == 0, "%zu bytes: %s", length, text);
}

/* Nobody reads: the program ends neither by a signal nor in a full pipe. */
static void sigpipe_default(void) {}
static void nobody_reads(void) {
    int ends[2];
    CHECK(pipe(ends) == 0);
    close(ends[0]);
    process_expect_success(scene_start("few-part", "TIDE_LOG=keeper", ends[1], sigpipe_default), "a broken pipe");
}

static const scene_t scenes[] = {
    {.name = "forms", .run = forms},
    {.name = "of-mode", .run = of_mode},
    {.name = "not-too-many", .run = not_too_many},
    {.name = "silent", .run = silent},
    {.name = "nobody-reads", .run = nobody_reads},
    {.name = "few-part", .run = few_part, .part = true},
    {.name = "many-part", .run = many_part, .part = true},
};

int main(int argc, char **argv) { return SCENE_MAIN(argc, argv, scenes); }
