#define _GNU_SOURCE 1
#include "scene.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "subject.h"

enum { WORDS_MOST = 4096, TEXT_BYTES = 1024 };
/* A scene that takes so long hangs. */
#define LIMIT_NS (60 * UINT64_C(1000000000))

size_t scene_rounds = 1;
static char *own_arguments[4];
static char rounds_text[24];

void scene_skip(const char *why) {
    printf("skipped: %s\n", why);
    fflush(stdout);
    _exit(CHECK_SKIPPED);
}

static bool is_ours(const char *variable) {
    return strncmp(variable, "TIDE_", 5) == 0 || strncmp(variable, "MEMORY_PRESSURE_", 16) == 0;
}

pid_t scene_start(const char *name, const char *environment, int error, void (*prepare)(void)) {
    static char *words[WORDS_MOST];
    static char text[TEXT_BYTES], name_text[TEXT_BYTES];
    size_t count = 0;
    for (char **variable = environ; *variable != NULL; variable++)
        if (!is_ours(*variable) && count < WORDS_MOST - 32) words[count++] = *variable;
    CHECK(environment == NULL || strlen(environment) < sizeof text);
    strcpy(text, environment != NULL ? environment : "");
    for (char *word = strtok(text, " "); word != NULL && count < WORDS_MOST - 1; word = strtok(NULL, " "))
        words[count++] = word;
    words[count] = NULL;
    CHECK(strlen(name) < sizeof name_text);
    strcpy(name_text, name);
    char *arguments[] = {own_arguments[0], name_text, rounds_text, NULL};
    again_t again = process_again("/proc/self/exe", arguments);
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child != 0) return child;
    if (error >= 0 && dup2(error, STDERR_FILENO) < 0) _exit(1);
    if (prepare != NULL) prepare();
    execve(again.path, again.words, words);
    _exit(126);
}

void scene_expect_success(pid_t child, const char *what) { process_expect_success(child, what); }

/* What each thread of a hanging process waits in. */
static void show_threads(pid_t child) {
    char command[200];
    snprintf(command, sizeof command,
             "for t in /proc/%d/task/*; do echo \"  $(cat $t/comm) state $(sed -n 's/^State:.//p' $t/status) "
             "call $(cut -d' ' -f1-4 $t/syscall)\"; done",
             (int)child);
    if (system(command) != 0) puts("  (threads unknown)");
}

static int wait_for(pid_t child) {
    uint64_t limit = clock_now_ns() + LIMIT_NS * scene_rounds;
    for (;;) {
        int status = 0;
        pid_t waited = waitpid(child, &status, WNOHANG);
        if (waited == child) return status;
        CHECKF(waited == 0, "waitpid: errno %d", errno);
        if (clock_now_ns() > limit) break;
        clock_sleep_us(3000);
    }
    puts("  hangs; its threads are");
    fflush(stdout);
    show_threads(child);
    kill(-child, SIGKILL);
    kill(child, SIGKILL);
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    return status;
}

/* A group of its own, so that what a hanging scene has started ends with it. */
static void begin_group(void) { setpgid(0, 0); }

/* Named in the environment as what does not hold for the library at hand. */
static bool is_left_out(const char *name) {
    const char *words = getenv("SCENES_LEFT_OUT");
    size_t length = strlen(name);
    for (const char *at = words; at != NULL && (at = strstr(at, name)) != NULL; at += length)
        if ((at == words || at[-1] == ' ') && (at[length] == 0 || at[length] == ' ')) return true;
    return false;
}

static int run_all(const scene_t *scenes, size_t count) {
    size_t failed = 0, skipped = 0, total = 0;
    for (size_t i = 0; i < count; i++) {
        if (scenes[i].part || (scenes[i].slow && scene_rounds == 1) || is_left_out(scenes[i].name)) continue;
        total++;
        uint64_t begun = clock_now_ns();
        int status = wait_for(scene_start(scenes[i].name, scenes[i].environment, -1, begin_group));
        bool well = WIFEXITED(status) && WEXITSTATUS(status) == 0;
        bool left_out = WIFEXITED(status) && WEXITSTATUS(status) == CHECK_SKIPPED;
        printf("%s %s (%.1f s)",
               well       ? "ok  "
               : left_out ? "skip"
                          : "FAIL",
               scenes[i].name, (double)(clock_now_ns() - begun) / 1e9);
        if (!well && !left_out) printf(", wait status 0x%x", (unsigned)status);
        puts("");
        failed += !well && !left_out;
        skipped += left_out;
    }
    printf("%zu of %zu scenes went as they should, %zu were skipped\n", total - failed - skipped, total, skipped);
    if (failed > 0) return 1;
    return skipped == total ? CHECK_SKIPPED : 0;
}

int scene_main(int argc, char **argv, const scene_t *scenes, size_t count) {
    own_arguments[0] = argv[0];
    scene_rounds = argument_number(argc, argv, 2, 1);
    snprintf(rounds_text, sizeof rounds_text, "%zu", scene_rounds);
    if (argc < 2 || strcmp(argv[1], "all") == 0) return run_all(scenes, count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(argv[1], scenes[i].name) != 0) continue;
        if (!scenes[i].bare) {
            subject_require();
            if (!subject.is_tide) scene_skip("only tidemalloc has a keeper");
        }
        scenes[i].run();
        return 0;
    }
    fprintf(stderr, "no such scene: %s\n", argv[1]);
    return 2;
}
