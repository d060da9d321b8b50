/* crew.h - threads that exist before the baseline and sleep on a condition between the stages of the work.
 *
 *   main     crew_make ......... crew_do(allocate) ........... crew_do(free) ........... (silence)
 *   member   warm | sleep        | allocate | sleep           | free | sleep ...
 */
#ifndef TIDE_BATTLE_CREW_H
#define TIDE_BATTLE_CREW_H

#include "blocks.h"
#include "watch.h"

enum { CREW_MAX = 256, CREW_STACK_BYTES = 64 * 1024, SMALL_BYTES = 64 };

typedef struct member {
    pthread_t thread;
    size_t index;
    batch work;
    uint64_t done_ns; /* when it ended its part of the current stage */
} member;

static member crew[CREW_MAX];
static size_t crew_count;
static pthread_mutex_t crew_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t crew_go = PTHREAD_COND_INITIALIZER, crew_done = PTHREAD_COND_INITIALIZER;
static size_t crew_stage, crew_arrived;
static void (*crew_part)(member *);

/* Pages of the stack that the work will need, and a first malloc and free: the thread has its heap. */
static void thread_warm(void) {
    volatile char stack[CREW_STACK_BYTES];
    for (size_t i = 0; i < sizeof stack; i += BENCH_PAGE_BYTES) stack[i] = 1;
    free(opaque(take(SMALL_BYTES)));
}

static void *member_run(void *arg) {
    member *self = arg;
    thread_warm();
    pthread_mutex_lock(&crew_lock);
    thread_is_ours(gettid());
    for (size_t stage = 0;; stage++) {
        crew_arrived++;
        pthread_cond_signal(&crew_done);
        while (crew_stage == stage) pthread_cond_wait(&crew_go, &crew_lock);
        pthread_mutex_unlock(&crew_lock);
        crew_part(self);
        self->done_ns = now_ns();
        pthread_mutex_lock(&crew_lock);
    }
    return NULL;
}

static void crew_wait(void) {
    while (crew_arrived < crew_count) pthread_cond_wait(&crew_done, &crew_lock);
    crew_arrived = 0;
}

static void crew_make(size_t count) {
    crew_count = count;
    for (size_t i = 0; i < count; i++) {
        crew[i].index = i;
        crew[i].thread = thread_start(member_run, &crew[i]);
    }
    pthread_mutex_lock(&crew_lock);
    crew_wait();
    pthread_mutex_unlock(&crew_lock);
}

/* Every member does `part` at once; returns when the last one has ended it and all sleep again. Without a crew the
 * caller does it, as the only member. Returns the time of the last end. */
static uint64_t crew_do(void (*part)(member *)) {
    if (crew_count == 0) {
        part(&crew[0]);
        return now_ns();
    }
    pthread_mutex_lock(&crew_lock);
    crew_part = part;
    crew_stage++;
    pthread_cond_broadcast(&crew_go);
    crew_wait();
    pthread_mutex_unlock(&crew_lock);
    uint64_t last_ns = 0;
    for (size_t i = 0; i < crew_count; i++)
        if (crew[i].done_ns > last_ns) last_ns = crew[i].done_ns;
    return last_ns;
}

static size_t batch_count(void) { return crew_count > 0 ? crew_count : 1; }

#endif
