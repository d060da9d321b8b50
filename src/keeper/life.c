#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "keeper/life.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "base/format.h"
#include "heap/bell.h"
#include "heap/thread.h"
#include "keeper/keeper.h"
#include "keeper/note.h"
#include "keeper/window.h"
#include "os/options.h"
#include "os/report.h"
#include "span/run.h"

/* The thread's own need is a few KiB; libc puts the program's thread-local variables there, too. */
#define STACK_MIN_BYTES (64 * KIB)
#define STACK_MAX_BYTES (64 * MIB)
/* Checking how much is resident costs a system call or two: not more often than once for so much growth. */
#define CHECK_MIN_BYTES (256 * KIB)
#define CHANGING_NAP_NS 100000u
/* Between two tries to start the thread where that is refused. */
#define AGAIN_NS 1000000000u

enum { LIFE_NONE, LIFE_CHANGING, LIFE_RUNNING };
static _Atomic uint32_t life_state;
static _Atomic uint32_t life_stop; /* 1: the thread must end */
static struct os_lock life_lock = OS_LOCK(RANK_LIFE);
static struct os_lock life_pause_lock = OS_LOCK(RANK_LIFE_PAUSE); /* from life_pause to life_resume */
static pthread_t life_thread;                                     /* the keeper's */
static struct {                                                   /* what the thread that started the keeper was like */
    char name[OS_NAME_BYTES];
    sigset_t signals;
} life_program;
static _Atomic int life_process;       /* 0: too early for a thread */
static _Atomic uint64_t life_again_ns; /* no thread was allowed: not asked again before */
static _Atomic bool life_warned;

static void growth_mark_in(uint64_t bytes) { run_set_growth_mark(run_flow(false).clean_taken_bytes + bytes); }

/* A small program that no keeper looks after. */
static void keep_little(void) { run_keep_at_most(options.mode == MODE_STATIC ? SIZE_MAX : RUN_KEEP_SMALL_BYTES); }

void life_begin(void) { atomic_store_explicit(&life_process, os_process_id(), memory_order_relaxed); }

bool life_runs(void) { return atomic_load_explicit(&life_state, memory_order_relaxed) != LIFE_NONE; }

/* --- the thread ---------------------------------------------------------------------------------------------------- */

/* Whoever wants something of the thread counts this up. It looks at the count before it looks at what was wanted, so nothing is missed. */
static void life_call(void) {
    _Atomic uint32_t *word = window_wake_word();
    atomic_fetch_add(word, 1);
    os_wake(word);
}

void heap_on_bell(void) { life_call(); }

/* Nothing else tells a keeper that watches nothing that nobody is left. */
void heap_on_thread_end(void) {
    if (options.mode == MODE_STATIC && life_runs()) life_call();
}

/* Sleep until `due_ns`, or until somebody calls; with `for_bell` also until the bell rings. `calls` is the count that was seen. */
static void life_sleep(uint64_t due_ns, bool for_bell, uint32_t calls) {
    uint64_t now_ns = os_now_ns();
    uint64_t time_ns = due_ns == UINT64_MAX ? UINT64_MAX : due_ns > now_ns ? due_ns - now_ns : 0;
    if (time_ns == 0) return;
    uint32_t asked = BELL_ASKED, asleep = BELL_ASLEEP;
    if (for_bell && !atomic_compare_exchange_strong(&heap_bell, &asked, BELL_ASLEEP)) return;
    os_wait(window_wake_word(), calls, time_ns);
    if (for_bell) atomic_compare_exchange_strong(&heap_bell, &asleep, BELL_ASKED);
}

/* libc makes the last thread of a process call exit(), with the program's own handlers. They must not find the keeper's small stack and blocked
 * signals, so the last thread is one like the program's. */
static void *life_last(void *thread) {
    os_thread_rename(life_program.name);
    pthread_join((pthread_t)(uintptr_t)thread, NULL);
    return NULL;
}

/* Nobody is left. True: the thread must end. */
static bool life_leave(void) {
    bool leave = false;
    /* Who has started this thread has not said yet that it runs, and would say so when it does not any more. */
    while (atomic_load(&life_state) == LIFE_CHANGING) os_sleep_ns(CHANGING_NAP_NS);
    os_lock_take(&life_lock);
    if (atomic_load(&life_stop) == 0) {
        leave = true;
        atomic_store(&heap_bell, BELL_QUIET);
        atomic_store(&keeper_figures.runs, 0);
        growth_mark_in(RUN_GROWTH_STEP_BYTES);
        keep_little();
        atomic_store(&life_state, LIFE_CHANGING); /* nobody else may join it now */
    }
    os_lock_drop(&life_lock);
    if (!leave) return false;
    pthread_t last;
    pthread_sigmask(SIG_SETMASK, &life_program.signals, NULL);
    if (pthread_create(&last, NULL, life_last, (void *)(uintptr_t)pthread_self()) == 0)
        pthread_detach(last);
    else
        pthread_detach(pthread_self());
    atomic_store(&life_state, LIFE_NONE);
    return true;
}

static void *life_main(void *nothing) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL); /* libc leaves out the signals that setuid and cancellation need */
    bool own_files = os_detach_thread("tide-keeper", options.log != LOG_OFF || options.check != 0);
    if (own_files) {
        pressure_open();
        if (options.visible != 0) window_open();
    }
    note_start();
    for (;;) {
        uint32_t calls = atomic_load(window_wake_word());
        if (atomic_load(&life_stop) != 0) break;
        window_answer();
        os_lock_take(&keeper_lock);
        uint64_t due_ns = keeper_step(os_now_ns(), false);
        bool for_bell = keeper_waits_for_bell(), alone = keeper_is_alone();
        os_lock_drop(&keeper_lock);
        atomic_store_explicit(&keeper_figures.cpu_ns, os_thread_cpu_ns(), memory_order_relaxed);
        if (alone && life_leave()) break;
        life_sleep(due_ns, for_bell, calls);
        atomic_fetch_add_explicit(&keeper_figures.wakeups, 1, memory_order_relaxed);
    }
    pressure_close();
    window_close();
    return nothing;
}

/* libc wants the stack to hold the program's thread-local variables as well, and says how much only by refusing. */
static int thread_create(void) {
    pthread_attr_t attributes;
    int error = pthread_attr_init(&attributes);
    if (error != 0) return error;
    for (size_t bytes = STACK_MIN_BYTES; bytes <= STACK_MAX_BYTES; bytes *= 2) {
        error = pthread_attr_setstacksize(&attributes, bytes);
        if (error == 0) error = pthread_create(&life_thread, &attributes, life_main, NULL);
        if (error != EINVAL) break;
    }
    pthread_attr_destroy(&attributes);
    return error;
}

/* Signals are blocked, and were `signals` before. */
static int life_start(uint64_t signals) {
    memcpy(&life_program.signals, &signals, sizeof signals); /* the kernel's mask comes first in libc's */
    os_thread_name(life_program.name);
    atomic_store(&life_stop, 0);
    os_lock_take(&keeper_lock);
    keeper_reset();
    os_lock_drop(&keeper_lock);
    int saved = errno, error = thread_create();
    errno = saved;
    return error;
}

/* Threads' caches stay resident then, which the user should know; once is enough. */
static void life_failed(int error) {
    struct line number = {0};
    line_add_number(&number, (uint64_t)error);
    if (!atomic_exchange(&life_warned, true))
        report_warning("no thread for the keeper, so memory comes back in part only: error ", number.text);
    note_failure("no thread", error);
    atomic_store_explicit(&life_again_ns, os_now_ns() + AGAIN_NS, memory_order_relaxed);
}

static void life_start_once(uint64_t signals) {
    uint32_t none = LIFE_NONE;
    if (!atomic_compare_exchange_strong(&life_state, &none, LIFE_CHANGING)) return;
    run_set_growth_mark(UINT64_MAX);
    run_keep_at_most(SIZE_MAX);
    int error = life_start(signals);
    if (error != 0) { /* no thread allowed: ask again after as much growth again, once a second at most */
        life_failed(error);
        keep_little();
        growth_mark_in(run_flow(false).clean_taken_bytes);
    } else {
        atomic_store(&keeper_figures.runs, 1);
    }
    atomic_store(&life_state, error == 0 ? LIFE_RUNNING : LIFE_NONE);
}

/* --- when ---------------------------------------------------------------------------------------------------------- */

static void look_at_growth(uint64_t signals) {
    if (options.keeper == 0 || life_runs()) {
        run_set_growth_mark(UINT64_MAX);
        /* Nobody learns what it needs: this much, then. */
        if (options.keeper == 0 && load_relaxed(&run_keep_bytes) < RUN_GROWTH_STEP_BYTES)
            run_keep_at_most(RUN_GROWTH_STEP_BYTES);
        return;
    }
    if (os_lock_is_mine(&heap_registry_lock)) return; /* a handler of fork: all locks are held */
    /* In a child of vfork, which shares our memory, a thread would be the end of both. */
    if (atomic_load_explicit(&life_process, memory_order_relaxed) != os_process_id()) return;
    if (load_relaxed(&life_again_ns) > os_now_ns()) {
        growth_mark_in(CHECK_MIN_BYTES);
        return;
    }
    bool surely = load_relaxed(&run_grown) == RUN_GROWN_SURELY;
    size_t resident = surely ? RUN_GROWTH_STEP_BYTES : run_resident_bytes();
    if (resident < RUN_GROWTH_STEP_BYTES)
        growth_mark_in(size_max(RUN_GROWTH_STEP_BYTES - resident, CHECK_MIN_BYTES));
    else
        life_start_once(signals);
}

/* Nobody jumps out of it. */
void heap_on_growth(void) {
    uint64_t signals = os_signals_block();
    look_at_growth(signals);
    os_signals_restore(signals);
}

void heap_on_fork(void) {
    atomic_store(&life_state, LIFE_NONE);
    atomic_store(&life_stop, 0);
    atomic_store(&heap_bell, BELL_QUIET);
    atomic_store(&keeper_figures.runs, 0);
    os_lock_forget(&keeper_lock);
    os_lock_forget(&life_lock);
    os_lock_forget(&life_pause_lock);
    if (atomic_load(&life_process) != 0) life_begin();
    growth_mark_in(RUN_GROWTH_STEP_BYTES);
    window_forget();
    if (options.keeper != 0)
        keep_little(); /* what was inherited is free memory, too, and the child may only use that */
}

bool life_pause(void) {
    os_lock_take(&life_pause_lock);
    while (atomic_load(&life_state) == LIFE_CHANGING) os_sleep_ns(CHANGING_NAP_NS);
    os_lock_take(&life_lock);
    bool running = atomic_load(&life_state) == LIFE_RUNNING;
    if (running) {
        atomic_store(&life_stop, 1);
        life_call();
    }
    os_lock_drop(&life_lock);
    if (!running) return false;
    pthread_join(life_thread, NULL);
    atomic_store(&heap_bell, BELL_QUIET);
    atomic_store(&keeper_figures.runs, 0);
    atomic_store(&life_state, LIFE_NONE);
    return true;
}

void life_option_set(void) {
    if (!life_runs()) {
        if (options.keeper != 0) keep_little();
        growth_mark_in(0); /* the next allocation that is not a hit looks again */
    }
    bell_ring();
    life_call();
}

void life_resume(bool paused) {
    if (paused) {
        uint64_t signals = os_signals_block();
        life_start_once(signals);
        os_signals_restore(signals);
    }
    os_lock_drop(&life_pause_lock);
}
