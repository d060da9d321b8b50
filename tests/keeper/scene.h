/* scene.h - programs made of scenes, each of which runs in a process of its own, with its own environment.
 *
 * Whether the keeper runs is a matter of the whole process and of how it began, so no scene may see what another has left. Without an
 * argument a program starts itself once for each of its scenes, prints a line for each, and fails when one of them does.
 *
 *   program                      all scenes
 *   program scene [rounds]       one of them, under the debugger for instance; with more rounds, where it has rounds
 *   program all rounds
 *
 * SCENES_LEFT_OUT in the environment: names between single spaces, which `all` leaves out.
 */
#ifndef TIDE_TEST_SCENE_H
#define TIDE_TEST_SCENE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct scene {
    const char *name;
    const char *environment; /* words NAME=value between single spaces, or NULL. No other TIDE_ variable is set */
    void (*run)(void);
    bool bare; /* nothing is allocated before `run`, not even to look for tidemalloc */
    bool slow; /* only where more than one round is wanted */
    bool part; /* other scenes start it; it is no scene of its own */
} scene_t;

int scene_main(int argc, char **argv, const scene_t *scenes, size_t count);
#define SCENE_MAIN(argc, argv, table) scene_main((argc), (argv), (table), sizeof(table) / sizeof(table)[0])

/* 1, or what was given. */
extern size_t scene_rounds;
/* The scene cannot be shown here. */
void scene_skip(const char *why) __attribute__((noreturn));
/* Start another scene of this program as a child. Its stderr is the file `error`, if that is not negative. `prepare`, if not NULL, is called in the
 * child just before. */
pid_t scene_start(const char *name, const char *environment, int error, void (*prepare)(void));
/* Wait for it, and expect that it was well. */
void scene_expect_success(pid_t child, const char *what);

#ifdef __cplusplus
}
#endif
#endif
