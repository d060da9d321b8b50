/* actors.h - real threads that take turns: each runs a job when it is told to, and may pause in the middle of it. At any time one thread
 * runs, so the fake system's own state needs no lock.
 *
 *   test:   actor_start   actor_run(job) ... ... actor_resume ... ... actor_end
 *   actor:        |          job begins   actor_pause     job ends    thread ends, with its destructors
 */
#ifndef TIDE_UNIT_ACTORS_H
#define TIDE_UNIT_ACTORS_H

#include <pthread.h>
#include <semaphore.h>

#include "unit.h"

struct actor {
    uint32_t id; /* as fake_thread_is has it: 2 .. 9 */
    pthread_t thread;
    sem_t go, stopped;
    void (*job)(void); /* NULL: the thread ends */
    bool paused;
};

static __thread struct actor *actor_self; /* NULL: the test itself */

static inline void semaphore_wait(sem_t *semaphore) {
    while (sem_wait(semaphore) != 0) continue;
}

static void *actor_main(void *argument) {
    actor_self = argument;
    fake_thread_is(actor_self->id);
    for (;;) {
        semaphore_wait(&actor_self->go);
        if (actor_self->job == NULL) return NULL;
        actor_self->job();
        actor_self->job = NULL;
        sem_post(&actor_self->stopped);
    }
}

static inline void actor_start(struct actor *actor, uint32_t id) {
    *actor = (struct actor){.id = id};
    sem_init(&actor->go, 0, 0);
    sem_init(&actor->stopped, 0, 0);
    assert_int_equal(pthread_create(&actor->thread, NULL, actor_main, actor), 0);
}

static inline void actor_resume(struct actor *actor) {
    actor->paused = false;
    sem_post(&actor->go);
    semaphore_wait(&actor->stopped);
}

/* Runs the job to its end, or until it pauses. */
static inline void actor_run(struct actor *actor, void (*job)(void)) {
    assert_null(actor->job);
    actor->job = job;
    actor_resume(actor);
}

/* By an actor: the one who told it to run goes on, until actor_resume. */
static inline void actor_pause(void) {
    actor_self->paused = true;
    sem_post(&actor_self->stopped);
    semaphore_wait(&actor_self->go);
}

static inline void actor_end(struct actor *actor) {
    assert_null(actor->job);
    sem_post(&actor->go);
    assert_int_equal(pthread_join(actor->thread, NULL), 0);
}

#endif
