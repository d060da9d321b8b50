/* modes.c - the modes: static gives nothing back by itself, all others everything in the end. */
#define _GNU_SOURCE 1
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "burst.h"
#include "check.h"
#include "scene.h"
#include "subject.h"
#include "water.h"

enum { STATIC_MS = 2000 };
static burst_t burst;
static size_t baseline;

static void use(void) {
    burst_fill(&burst, BURST_MIXED, 24 * WATER_MIB);
    burst_free(&burst);
}

static void begin(void) {
    burst_make(&burst, BURST_MIXED, 24 * WATER_MIB, 2);
    baseline = water_level();
}

static void expect_mode(const char *mode) {
    char value[32];
    CHECK(subject.get("mode", value, sizeof value) == 0);
    CHECKF(strcmp(value, mode) == 0, "mode %s, expected %s", value, mode);
}

static void gives_back_nothing(void) {
    begin();
    expect_mode("static");
    for (size_t round = 0; round < scene_rounds; round++) {
        burst_fill(&burst, BURST_MIXED, 24 * WATER_MIB);
        size_t full = water_level();
        burst_free(&burst);
        water_expect_none(full - WATER_MIB, STATIC_MS, "mode static");
        task_expect_count(2); /* the keeper answers questions, and does nothing else */
    }
    tide_stats stats = subject_stats();
    CHECK(stats.returned_bytes == 0 && stats.flush_count == 0 && stats.trim_count == 0 && stats.claim_mark_count == 0);
}

static void gives_back(const char *mode) {
    begin();
    expect_mode(mode);
    for (unsigned round = 0; round < 2; round++) {
        use();
        water_expect_baseline(baseline, mode);
    }
}
static void flush(void) { gives_back("flush"); }
static void shrink(void) { gives_back("shrink"); }
static void adaptive(void) { gives_back("adaptive"); }
static void hybrid(void) { gives_back("hybrid"); }

/* While the program runs. */
static void set(void) {
    begin();
    expect_mode("static");
    static const char *const modes[] = {"flush", "static", "shrink", "adaptive", "static", "hybrid"};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        CHECK(subject.set("mode", modes[i]) == 0);
        expect_mode(modes[i]);
        burst_fill(&burst, BURST_MIXED, 24 * WATER_MIB);
        size_t full = water_level();
        burst_free(&burst);
        if (strcmp(modes[i], "static") == 0)
            water_expect_none(full - (full - baseline) / 4, 500, "static again");
        else
            water_expect_baseline(baseline, modes[i]);
    }
    CHECK(subject.set("mode", "banana") != 0);
    expect_mode("hybrid");
}

/* Nothing has to be allocated or freed after the change. */
static void set_in_the_quiet(void) {
    begin();
    use();
    clock_sleep_us(100000);
    CHECK(water_level() > baseline + 12 * WATER_MIB || !WATER_IS_CLEAR);
    CHECK(subject.set("mode", "hybrid") == 0);
    water_expect_baseline(baseline, "set in the quiet");
}

/* --- mistakes ----------------------------------------------------------------------------------------------------------------- */

static void report_mode_part(void) {
    char value[32];
    CHECK(subject.get("mode", value, sizeof value) == 0);
    begin();
    use();
    water_expect_baseline(baseline, "after a mistake");
    printf("%s\n", value);
    CHECKF(strcmp(value, "hybrid") == 0, "mode %s", value);
}

static void expect_one_warning(const char *environment) {
    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t child = scene_start("report-mode-part", environment, ends[1], NULL);
    close(ends[1]);
    char text[2000];
    size_t length = 0;
    for (ssize_t got; (got = read(ends[0], text + length, sizeof text - 1 - length)) > 0;) length += (size_t)got;
    close(ends[0]);
    text[length] = 0;
    process_expect_success(child, environment);
    const char *line_end = strchr(text, '\n');
    CHECKF(line_end != NULL && line_end[1] == 0, "%s: not one line: %s", environment, text);
    CHECKF(strncmp(text, "tidemalloc: ", 12) == 0 && strstr(text, environment) != NULL, "%s: %s", environment, text);
}

static void mistakes(void) {
    expect_one_warning("TIDE_MODE=banana");
    expect_one_warning("TIDE_MODE=");
    expect_one_warning("TIDE_MODE=hybrid2");
    expect_one_warning("TIDE_MODE=3");
    expect_one_warning("TIDE_KEEPER=maybe");
    expect_one_warning("TIDE_LOG=everything");
}

static const scene_t scenes[] = {
    {.name = "static", .environment = "TIDE_MODE=static", .run = gives_back_nothing},
    {.name = "flush", .environment = "TIDE_MODE=flush", .run = flush},
    {.name = "shrink", .environment = "TIDE_MODE=shrink", .run = shrink},
    {.name = "adaptive", .environment = "TIDE_MODE=adaptive", .run = adaptive},
    {.name = "hybrid", .environment = "TIDE_MODE=hybrid", .run = hybrid},
    {.name = "capitals", .environment = "TIDE_MODE=FLUSH", .run = flush},
    {.name = "set", .environment = "TIDE_MODE=static", .run = set},
    {.name = "set-in-the-quiet", .environment = "TIDE_MODE=static", .run = set_in_the_quiet},
    {.name = "mistakes", .run = mistakes},
    {.name = "report-mode-part", .run = report_mode_part, .part = true},
};

int main(int argc, char **argv) { return SCENE_MAIN(argc, argv, scenes); }
