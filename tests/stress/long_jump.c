/* long_jump.c - siglongjmp out of a handler that interrupted the allocator.
 *
 * The operation in flight is lost, and so may be its block: a leak, nothing worse. The thread must be able to go on
 * allocating, other threads must not wait for it, and no other block may be harmed. (An interpreter that leaves a
 * computation on SIGINT does just this.) On another malloc the handler does not jump while a record is busy.
 *
 * argv: seed, seconds, threads */
#define _GNU_SOURCE 1
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "shadow.h"
#include "subject.h"

enum { RECORDS_EACH = 400, THREADS_MOST = 64, LARGEST = 100000 };

static uint64_t seed;
static atomic_int stop;
static shadow_t *table;
static size_t thread_indices[THREADS_MOST];
static pthread_t handles[THREADS_MOST];
static atomic_ullong jumps_done, jumps_out_of_work;

static _Thread_local sigjmp_buf jump_target;
static _Thread_local volatile sig_atomic_t jump_allowed;
static _Thread_local shadow_t *volatile current;

static void handler(int signal_number) {
    (void)signal_number;
    if (!jump_allowed) return;
    if (!subject.is_tide && current != NULL) return;
    jump_allowed = 0;
    siglongjmp(jump_target, 1);
}

static void *worker_main(void *argument) {
    size_t index = *(const size_t *)argument;
    shadow_t *records = &table[index * RECORDS_EACH];
    static _Thread_local uint64_t random;
    random = seed * 31 + index;
    sigset_t storm;
    sigemptyset(&storm);
    sigaddset(&storm, SIGUSR1);
    CHECK(pthread_sigmask(SIG_UNBLOCK, &storm, NULL) == 0);
    while (!atomic_load(&stop)) {
        if (sigsetjmp(jump_target, 1) != 0) {
            atomic_fetch_add(&jumps_done, 1);
            shadow_t *abandoned = current;
            if (abandoned != NULL) {
                /* Nobody knows how far it came. */
                atomic_fetch_add(&jumps_out_of_work, 1);
                abandoned->p = NULL;
                atomic_store(&abandoned->busy, 0);
                current = NULL;
            }
        }
        jump_allowed = 1;
        for (int i = 0; i < 100; i++) {
            shadow_t *record = &records[random_below(&random, RECORDS_EACH)];
            current = record;
            atomic_signal_fence(memory_order_seq_cst);
            shadow_step(record, &random, LARGEST);
            atomic_signal_fence(memory_order_seq_cst);
            current = NULL;
        }
        /* Where a jump may only meet idle code, there must be some. */
        if (!subject.is_tide) clock_sleep_us(100);
        jump_allowed = 0;
    }
    CHECK(pthread_sigmask(SIG_BLOCK, &storm, NULL) == 0);
    return NULL;
}

int main(int argc, char **argv) {
    subject_require();
    seed = argument_number(argc, argv, 1, 1);
    uint64_t seconds = argument_number(argc, argv, 2, 5);
    size_t threads = argument_number(argc, argv, 3, 4);
    CHECK(threads >= 1 && threads <= THREADS_MOST);
    printf("seed %llu, %llu s, %zu threads\n", (unsigned long long)seed, (unsigned long long)seconds, threads);
    fflush(stdout);

    table = shadow_table_make(threads * RECORDS_EACH);
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    sigset_t storm;
    sigemptyset(&storm);
    sigaddset(&storm, SIGUSR1);
    CHECK(pthread_sigmask(SIG_BLOCK, &storm, NULL) == 0);
    for (size_t t = 0; t < threads; t++) {
        thread_indices[t] = t;
        CHECK(pthread_create(&handles[t], NULL, worker_main, &thread_indices[t]) == 0);
    }
    uint64_t random = seed;
    uint64_t deadline_ns = clock_now_ns() + seconds * 1000000000u;
    while (clock_now_ns() < deadline_ns) {
        CHECK(pthread_kill(handles[random_below(&random, threads)], SIGUSR1) == 0);
        clock_sleep_us(500);
    }
    atomic_store(&stop, 1);
    for (size_t t = 0; t < threads; t++) CHECK(pthread_join(handles[t], NULL) == 0);
    shadow_table_verify(table, threads * RECORDS_EACH);
    for (size_t i = 0; i < threads * RECORDS_EACH; i++) shadow_free(&table[i], &random);
    unsigned long long jumps = atomic_load(&jumps_done), abandoned = atomic_load(&jumps_out_of_work);
    CHECK(jumps > 0);
    if (subject.is_tide) CHECK(abandoned > 0);
    printf("%llu jumps, %llu out of the allocator or the work around it\n", jumps, abandoned);
    return 0;
}
