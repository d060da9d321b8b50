/* options_test.c - options from the environment. The program starts itself again with TIDE_... set and reads what the
 * child writes to stderr: nothing for good values, one line for each bad value and each unknown name. */
#define _GNU_SOURCE 1
#include "unit.h"

#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>

extern char **environ;

typedef struct child_result {
    char text[4096];
    size_t lines;
    int status;
} child_result_t;

/* Run `program --child` with up to two settings added to the environment. */
static child_result_t run_child(const char *program, const char *first, const char *second) {
    child_result_t result = {.status = -1};
    enum { VARIABLES = 1000 };
    static char *variables[VARIABLES];
    size_t count = 0;
    for (char **variable = environ; *variable != NULL && count < VARIABLES - 4; variable++)
        if (strncmp(*variable, "TIDE_", 5) != 0 || strncmp(*variable, "TIDEMALLOC_TEST_ON_ANY", 16) == 0)
            variables[count++] = *variable;
    if (first != NULL) variables[count++] = (char *)(uintptr_t)first;
    if (second != NULL) variables[count++] = (char *)(uintptr_t)second;
    variables[count] = NULL;

    int ends[2];
    assert_int_equal(pipe(ends), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    char *arguments[] = {(char *)(uintptr_t)program, (char *)(uintptr_t) "--child", NULL};
    again_t again = process_again(program, arguments);
    pid_t child = -1;
    assert_int_equal(posix_spawn(&child, again.path, &actions, NULL, again.words, variables), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    size_t length = 0;
    ssize_t got;
    while ((got = read(ends[0], result.text + length, sizeof result.text - 1 - length)) > 0) length += (size_t)got;
    close(ends[0]);
    assert_int_equal(waitpid(child, &result.status, 0), child);
    for (size_t i = 0; i < length; i++) result.lines += result.text[i] == '\n';
    return result;
}

/* The child works, and says one line that begins with `tidemalloc: ` and names what is wrong. */
static void assert_one_warning(const char *setting, const char *named) {
    child_result_t result = run_child("/proc/self/exe", setting, NULL);
    if (result.status != 0 || result.lines != 1 || strncmp(result.text, "tidemalloc: ", 12) != 0 ||
        strcasestr(result.text, named) == NULL)
        fail_msg("%s: wait status 0x%x, %zu lines:\n%s", setting, (unsigned)result.status, result.lines, result.text);
}

static void assert_silent(const char *setting) {
    child_result_t result = run_child("/proc/self/exe", setting, NULL);
    if (result.status != 0 || result.text[0] != 0)
        fail_msg("%s: wait status 0x%x, stderr:\n%s", setting != NULL ? setting : "no option", (unsigned)result.status,
                 result.text);
}

/* A build without the keeper has no modes. */
static bool mode_exists(void) {
    char value[64];
    return subject.is_tide && subject.get("mode", value, sizeof value) != ENOENT;
}

static void good_values_are_silent(void **state) {
    (void)state;
    assert_silent(NULL);
    assert_silent("TIDE_PRINT_STATS=0");
    assert_silent("TIDE_SECURE=1");
    const char *const good[] = {"TIDE_RESERVE=64G", "TIDE_RESERVE=1073741824", "TIDE_RESERVE=524288k"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) assert_silent(good[i]);
    const char *const modes[] = {"TIDE_MODE=static", "TIDE_MODE=flush", "TIDE_MODE=shrink", "TIDE_MODE=adaptive",
                                 "TIDE_MODE=hybrid"};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0] && mode_exists(); i++) assert_silent(modes[i]);
}

static void bad_values_are_named_once(void **state) {
    (void)state;
    ONLY_ON_TIDE();
    assert_one_warning("TIDE_RESERVE=banana", "reserve");
    assert_one_warning("TIDE_RESERVE=", "reserve");
    assert_one_warning("TIDE_RESERVE=-5", "reserve");
    assert_one_warning("TIDE_RESERVE=1Q", "reserve");
    assert_one_warning("TIDE_RESERVE=99999999999999999999999999", "reserve");
    assert_one_warning("TIDE_PRINT_STATS=2", "print_stats");
    assert_one_warning("TIDE_SECURE=2", "secure");
    if (subject_is_secure()) assert_one_warning("TIDE_SECURE=0", "secure");
    assert_one_warning("TIDE_MODE=banana", "mode");
    assert_one_warning("TIDE_MODE=hybrid2", "mode");
}

static void unknown_names_are_named_once(void **state) {
    (void)state;
    ONLY_ON_TIDE();
    assert_one_warning("TIDE_FOO=1", "foo");
    assert_one_warning("TIDE_=1", "tide_");
}

static void each_mistake_has_its_line(void **state) {
    (void)state;
    ONLY_ON_TIDE();
    child_result_t result = run_child("/proc/self/exe", "TIDE_RESERVE=banana", "TIDE_PRINT_STATS=banana");
    assert_int_equal(result.status, 0);
    assert_int_equal(result.lines, 2);
}

/* In a set-user-ID program (AT_SECURE) the environment is the attacker's: options are ignored, silently. Needs root to
 * make one, and a program that has tidemalloc inside (a preloaded library is ignored there by the loader itself). */
static void options_are_ignored_when_secure(void **state) {
    (void)state;
    ONLY_ON_TIDE();
#ifndef TIDE_TEST_STATIC
    skip();
#else
    if (geteuid() != 0) skip();
    char program[64];
    snprintf(program, sizeof program, "./secure-child-%d", (int)getpid());
    FILE *from = fopen("/proc/self/exe", "rb"), *to = fopen(program, "wb");
    assert_non_null(from);
    if (to == NULL) {
        fclose(from);
        skip();
    }
    static char piece[65536];
    size_t got;
    while ((got = fread(piece, 1, sizeof piece, from)) > 0) assert_int_equal(fwrite(piece, 1, got, to), got);
    fclose(from);
    assert_int_equal(fclose(to), 0);
    child_result_t result = {.status = -1};
    if (chown(program, 65534, 65534) == 0 && chmod(program, 04755) == 0)
        result = run_child(program, "TIDE_RESERVE=banana", "TIDE_FOO=1");
    unlink(program);
    /* 3: not started as secure (a file system without set-user-ID). */
    if (result.status == -1 || (WIFEXITED(result.status) && WEXITSTATUS(result.status) == 3)) skip();
    if (result.status != 0 || result.text[0] != 0)
        fail_msg("wait status 0x%x, stderr:\n%s", (unsigned)result.status, result.text);
#endif
}

/* The child: a few blocks, so that all options have been looked at. */
static int child_main(void) {
    if (getuid() != geteuid() && secure_getenv("PATH") != NULL) return 3;
    if (strstr(program_invocation_name, "secure-child") != NULL && getuid() == geteuid()) return 3;
    for (size_t size = 1; size < 4 * 1024 * 1024; size *= 3) {
        unsigned char *p = malloc(size);
        if (p == NULL) return 2;
        memset(p, 1, size);
        free(p);
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--child") == 0) return child_main();
    subject_require();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_values_are_silent),          cmocka_unit_test(bad_values_are_named_once),
        cmocka_unit_test(unknown_names_are_named_once),    cmocka_unit_test(each_mistake_has_its_line),
        cmocka_unit_test(options_are_ignored_when_secure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
