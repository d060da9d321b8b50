/* signal_storm.c - signal handlers that use the allocator while the thread they interrupt is inside it.
 *
 * ISO C and POSIX forbid this; programs do it all the same, and tidemalloc promises to survive it. Half of the threads run
 * their handler on a stack of its own (sigaltstack). Blocks from handlers are freed by other handlers, by the interrupted
 * code and by other threads. Blocks up to 1000 bytes they always get, larger ones only when nobody is in the way. On
 * another malloc the handlers only count.
 *
 * argv: seed, seconds, threads */
#define _GNU_SOURCE 1
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>

#include "check.h"
#include "shadow.h"
#include "subject.h"

enum { RECORDS_EACH = 400, PLACES = 64, THREADS_MOST = 64, HANDLER_RECORDS = 8, LARGEST = 100000 };

static uint64_t seed;
static atomic_int stop;
static atomic_ullong signals_handled, nested_handled;
static shadow_t *table, *handler_table, *place_table;
static atomic_uint exchange[PLACES]; /* indices into place_table */
static size_t thread_indices[THREADS_MOST];
static pthread_t handles[THREADS_MOST];

static _Thread_local struct {
    uint64_t random;
    shadow_t *records;
    unsigned place;
    volatile sig_atomic_t depth;
} handler_state;

static void handler(int signal_number) {
    (void)signal_number;
    int saved_errno = errno;
    atomic_fetch_add(&signals_handled, 1);
    if (handler_state.records != NULL && subject.is_tide) {
        handler_state.depth++;
        shadow_refusal_allowed = 1;
        if (handler_state.depth > 1) {
            /* A handler that interrupted a handler has no record of its own: a block that comes and goes. */
            atomic_fetch_add(&nested_handled, 1);
            unsigned char *volatile p = malloc(100);
            CHECK(p != NULL);
            memset(p, 0x22, 100);
            CHECK(p[0] == 0x22 && p[99] == 0x22);
            free(p);
        } else {
            uint64_t *random = &handler_state.random;
            for (int i = 0; i < 3; i++)
                shadow_step(&handler_state.records[random_below(random, HANDLER_RECORDS)], random, LARGEST);
            handler_state.place = atomic_exchange(&exchange[random_below(random, PLACES)], handler_state.place);
            shadow_step(&place_table[handler_state.place], random, LARGEST);
        }
        if (--handler_state.depth == 0) shadow_refusal_allowed = 0;
    }
    errno = saved_errno;
}

static void *worker_main(void *argument) {
    size_t index = *(const size_t *)argument;
    uint64_t random = seed * 31 + index;
    void *stack = NULL;
    size_t stack_bytes = 256 * 1024;
    if (index % 2 == 0) {
        stack = mmap(NULL, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(stack != MAP_FAILED);
        stack_t alternative = {.ss_sp = stack, .ss_size = stack_bytes};
        CHECK(sigaltstack(&alternative, NULL) == 0);
    }
    handler_state.random = ~random;
    handler_state.place = (unsigned)(PLACES + index);
    atomic_signal_fence(memory_order_seq_cst);
    handler_state.records = &handler_table[index * HANDLER_RECORDS];
    sigset_t storm;
    sigemptyset(&storm);
    sigaddset(&storm, SIGUSR1);
    sigaddset(&storm, SIGUSR2);
    sigaddset(&storm, SIGALRM);
    CHECK(pthread_sigmask(SIG_UNBLOCK, &storm, NULL) == 0);
    while (!atomic_load(&stop))
        for (int i = 0; i < 100; i++)
            shadow_step(&table[index * RECORDS_EACH + random_below(&random, RECORDS_EACH)], &random, LARGEST);
    CHECK(pthread_sigmask(SIG_BLOCK, &storm, NULL) == 0);
    if (stack != NULL) {
        stack_t none = {.ss_flags = SS_DISABLE};
        CHECK(sigaltstack(&none, NULL) == 0);
        munmap(stack, stack_bytes);
    }
    return NULL;
}

int main(int argc, char **argv) {
    subject_require();
    seed = argument_number(argc, argv, 1, 1);
    uint64_t seconds = argument_number(argc, argv, 2, 6);
    size_t threads = argument_number(argc, argv, 3, 8);
    CHECK(threads >= 1 && threads <= THREADS_MOST);
    printf("seed %llu, %llu s, %zu threads\n", (unsigned long long)seed, (unsigned long long)seconds, threads);
    fflush(stdout);

    table = shadow_table_make(threads * RECORDS_EACH);
    handler_table = shadow_table_make(threads * HANDLER_RECORDS);
    place_table = shadow_table_make(PLACES + threads);
    for (unsigned i = 0; i < PLACES; i++) atomic_init(&exchange[i], i);

    /* USR1 may be interrupted by the two others, so handlers nest. All are blocked except in the workers. */
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART | SA_ONSTACK};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0 && sigaction(SIGUSR2, &action, NULL) == 0);
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    sigset_t storm;
    sigemptyset(&storm);
    sigaddset(&storm, SIGUSR1);
    sigaddset(&storm, SIGUSR2);
    sigaddset(&storm, SIGALRM);
    CHECK(pthread_sigmask(SIG_BLOCK, &storm, NULL) == 0);

    uint64_t nested_before = subject_stats().nested_count;
    for (size_t t = 0; t < threads; t++) {
        thread_indices[t] = t;
        CHECK(pthread_create(&handles[t], NULL, worker_main, &thread_indices[t]) == 0);
    }
    struct itimerval timer = {{0, 500}, {0, 500}};
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);

    uint64_t random = seed;
    uint64_t deadline_ns = clock_now_ns() + seconds * 1000000000u;
    while (clock_now_ns() < deadline_ns) {
        for (int i = 0; i < 8; i++) {
            int error =
                pthread_kill(handles[random_below(&random, threads)], random_below(&random, 2) ? SIGUSR1 : SIGUSR2);
            CHECK(error == 0);
        }
        clock_sleep_us(50);
    }
    timer = (struct itimerval){0};
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
    atomic_store(&stop, 1);
    for (size_t t = 0; t < threads; t++) CHECK(pthread_join(handles[t], NULL) == 0);

    shadow_table_verify(table, threads * RECORDS_EACH);
    shadow_table_verify(handler_table, threads * HANDLER_RECORDS);
    shadow_table_verify(place_table, PLACES + threads);
    for (size_t i = 0; i < threads * RECORDS_EACH; i++) shadow_free(&table[i], &random);
    for (size_t i = 0; i < threads * HANDLER_RECORDS; i++) shadow_free(&handler_table[i], &random);
    for (size_t i = 0; i < PLACES + threads; i++) shadow_free(&place_table[i], &random);
    unsigned long long handled = atomic_load(&signals_handled);
    unsigned long long nested_operations = subject_stats().nested_count - nested_before;
    CHECK(handled > 100);
    /* Otherwise no handler ever met the allocator at work, and the test has shown nothing. */
    if (subject.is_tide) CHECK(nested_operations > 0);
    printf("%llu signals, %llu of them in handlers, %llu operations inside another one\n", handled,
           (unsigned long long)atomic_load(&nested_handled), nested_operations);
    return 0;
}
