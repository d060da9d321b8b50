/* tls.c - a program whose thread-local variables need more than the keeper's small stack: libc puts them there, and refuses stacks that are too
 * small for them. The keeper starts all the same. */
#define _GNU_SOURCE 1
#include <pthread.h>
#include <string.h>

#include "burst.h"
#include "check.h"
#include "scene.h"
#include "subject.h"
#include "water.h"

static _Thread_local volatile char huge[2 * 1024 * 1024];

static void *thread_main(void *nothing) {
    for (size_t i = 0; i < sizeof huge; i += 4096) {
        CHECK(huge[i] == 0);
        huge[i] = 1;
    }
    return nothing;
}

static void of_program(void) {
    static burst_t burst;
    burst_make(&burst, BURST_MIXED, 16 * WATER_MIB, 2);
    thread_main(NULL);
    /* libc clears the keeper's copy when it makes the thread, so that is resident, too. */
    size_t baseline = water_level() + sizeof huge;
    for (unsigned round = 0; round < 2; round++) {
        burst_fill(&burst, BURST_MIXED, 16 * WATER_MIB);
        burst_free(&burst);
        water_expect_baseline(baseline, "beside large thread-local variables");
    }
    CHECK(keeper_task() != 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, thread_main, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

static const scene_t scenes[] = {{.name = "of-program", .run = of_program}};

int main(int argc, char **argv) { return SCENE_MAIN(argc, argv, scenes); }
