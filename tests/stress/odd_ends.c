/* odd_ends.c - threads that end in unusual ways.
 *
 *   raw exit       the bare system call: no destructor runs, the allocator is not told
 *   late frees     malloc and free in destructors of thread-local data, in the last round of key destructors
 *   cancellation   deferred; allocation functions are no cancellation points
 *   main first     main() ends by pthread_exit while another thread goes on
 *
 * argv: seed, threads of each kind */
#define _GNU_SOURCE 1
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check.h"
#include "shadow.h"
#include "subject.h"

enum { RECORDS = 64, LARGEST = 100000 };
static shadow_t *table;
static uint64_t seed;

static void free_table(void) {
    for (size_t i = 0; i < RECORDS; i++) shadow_free(&table[i], &seed);
}

/* ---- raw exit ---- */

static _Atomic long raw_task;

static void *raw_main(void *argument) {
    uint64_t random = (uint64_t)(uintptr_t)argument;
    atomic_store(&raw_task, syscall(SYS_gettid));
    for (int i = 0; i < 300; i++) shadow_step(&table[random_below(&random, RECORDS)], &random, LARGEST);
    syscall(SYS_exit, 0);
    return NULL;
}

static void check_raw_exit(size_t count) {
    tide_stats before = subject_stats();
    pthread_attr_t attributes;
    CHECK(pthread_attr_init(&attributes) == 0);
    CHECK(pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED) == 0);
    CHECK(pthread_attr_setstacksize(&attributes, 128 * 1024) ==
          0); /* libc never learns of the end and keeps the stack */
    for (size_t i = 0; i < count; i++) {
        pthread_t thread;
        atomic_store(&raw_task, 0);
        CHECK(pthread_create(&thread, &attributes, raw_main, (void *)(uintptr_t)random_next(&seed)) == 0);
        /* One at a time: the table is the thread's until the kernel has no such task any more. */
        while (atomic_load(&raw_task) == 0 || syscall(SYS_tgkill, getpid(), atomic_load(&raw_task), 0) == 0)
            clock_sleep_us(500);
    }
    CHECK(pthread_attr_destroy(&attributes) == 0);
    shadow_table_verify(table, RECORDS);
    free_table();
    subject_release_all();
    tide_stats after = subject_stats();
    CHECKF(after.heap_count <= before.heap_count + 8, "%llu heaps before, %llu after %zu threads, one at a time",
           (unsigned long long)before.heap_count, (unsigned long long)after.heap_count, count);
    /* libc leaks under 2 KiB for each such thread. */
    CHECKF(after.allocated_bytes <= before.allocated_bytes + count * 2048, "live bytes: %llu before, %llu after",
           (unsigned long long)before.allocated_bytes, (unsigned long long)after.allocated_bytes);
    printf("raw exit: %zu threads, %llu heaps\n", count, (unsigned long long)after.heap_count);
    fflush(stdout);
}

/* ---- late frees ---- */

extern int __cxa_thread_atexit_impl(void (*)(void *), void *, void *) __attribute__((weak));
extern void *__dso_handle;
static pthread_key_t early_key, late_key;
static _Thread_local int key_rounds;
static atomic_int late_rounds, thread_local_destructions;

static void churn(uint64_t random) {
    for (int i = 0; i < 50; i++) shadow_step(&table[random_below(&random, RECORDS)], &random, LARGEST);
}

static void destroy_key(void *value) {
    churn((uint64_t)(uintptr_t)value + (uint64_t)key_rounds);
    atomic_fetch_add(&late_rounds, 1);
    /* libc calls destructors in at most four rounds. */
    if (++key_rounds < 4) CHECK(pthread_setspecific(late_key, value) == 0);
}
static void destroy_early_key(void *value) { churn((uint64_t)(uintptr_t)value); }
static void destroy_thread_local(void *value) {
    churn((uint64_t)(uintptr_t)value);
    atomic_fetch_add(&thread_local_destructions, 1);
}

static void *late_main(void *argument) {
    CHECK(pthread_setspecific(early_key, argument) == 0);
    CHECK(pthread_setspecific(late_key, argument) == 0);
    if (__cxa_thread_atexit_impl == NULL) /* musl leaves that to the C++ runtime */
        atomic_fetch_add(&thread_local_destructions, 1);
    else
        CHECK(__cxa_thread_atexit_impl(destroy_thread_local, argument, &__dso_handle) == 0);
    /* Every second thread meets the allocator for the first time in its destructors. */
    if ((uintptr_t)argument % 2 == 0) churn((uint64_t)(uintptr_t)argument);
    return NULL;
}

static void check_late_frees(size_t count) {
    CHECK(pthread_key_create(&late_key, destroy_key) == 0);
    uint64_t heaps_before = subject_stats().heap_count;
    for (size_t i = 0; i < count; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, late_main, (void *)(uintptr_t)(i + 1)) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
    }
    CHECK(atomic_load(&late_rounds) == (int)(4 * count));
    CHECK(atomic_load(&thread_local_destructions) == (int)count);
    shadow_table_verify(table, RECORDS);
    free_table();
    uint64_t heaps = subject_stats().heap_count;
    CHECKF(heaps <= heaps_before + 8, "%llu heaps before, %llu after", (unsigned long long)heaps_before,
           (unsigned long long)heaps);
    CHECK(pthread_key_delete(late_key) == 0);
    printf("late frees: %zu threads, %llu heaps\n", count, (unsigned long long)heaps);
    fflush(stdout);
}

/* ---- cancellation ---- */

static atomic_int cancel_ready, cancel_sent, cancel_survived, cancel_cleaned;

static void clean_up(void *argument) {
    free(argument);
    atomic_fetch_add(&cancel_cleaned, 1);
}

static void *cancel_main(void *argument) {
    uint64_t random = (uint64_t)(uintptr_t)argument;
    void *volatile kept = malloc(1 + random % 50000);
    CHECK(kept != NULL);
    pthread_cleanup_push(clean_up, kept);
    atomic_store(&cancel_ready, 1);
    while (!atomic_load(&cancel_sent)) shadow_step(&table[random_below(&random, RECORDS)], &random, LARGEST);
    /* The request is pending now. None of this may act on it. */
    for (int i = 0; i < 500; i++) shadow_step(&table[random_below(&random, RECORDS)], &random, 4 * LARGEST);
    void *volatile large = malloc(3000000);
    CHECK(large != NULL);
    memset(large, 1, 3000000);
    free(large);
    subject_release_all();
    subject_stats();
    atomic_fetch_add(&cancel_survived, 1);
    pthread_testcancel();
    check_die("a cancelled thread went on");
    pthread_cleanup_pop(0);
    return NULL;
}

static void check_cancellation(size_t count) {
    for (size_t i = 0; i < count; i++) {
        atomic_store(&cancel_ready, 0);
        atomic_store(&cancel_sent, 0);
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, cancel_main, (void *)(uintptr_t)(i + 1)) == 0);
        while (!atomic_load(&cancel_ready)) clock_sleep_us(50);
        CHECK(pthread_cancel(thread) == 0);
        atomic_store(&cancel_sent, 1);
        void *result = NULL;
        CHECK(pthread_join(thread, &result) == 0);
        CHECK(result == PTHREAD_CANCELED);
    }
    CHECKF(atomic_load(&cancel_survived) == (int)count, "%d of %zu threads got through the allocator",
           atomic_load(&cancel_survived), count);
    CHECK(atomic_load(&cancel_cleaned) == (int)count);
    shadow_table_verify(table, RECORDS);
    free_table();
    printf("cancellation: %zu threads\n", count);
    fflush(stdout);
}

/* ---- main ends first ---- */

static void *survivor_main(void *argument) {
    pthread_t main_thread = *(pthread_t *)argument;
    CHECK(pthread_join(main_thread, NULL) == 0);
    uint64_t random = 77;
    for (int i = 0; i < 3000; i++) shadow_step(&table[random_below(&random, RECORDS)], &random, LARGEST);
    shadow_table_verify(table, RECORDS);
    free_table();
    exit(0);
}

static void check_main_first(void) {
    pid_t child = fork();
    if (child == 0) {
        static pthread_t self;
        self = pthread_self();
        for (size_t i = 0; i < RECORDS; i++) shadow_allocate(&table[i], &seed, LARGEST);
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, survivor_main, &self) == 0);
        pthread_exit(NULL);
    }
    process_expect_success(child, "main ended before another thread");
    puts("main first: fine");
}

int main(int argc, char **argv) {
    /* Older than any key of the allocator's, if it makes its key at the first chance; late_key is younger. */
    CHECK(pthread_key_create(&early_key, destroy_early_key) == 0);
    subject_require();
    seed = argument_number(argc, argv, 1, 1);
    size_t count = argument_number(argc, argv, 2, 300);
    printf("seed %llu, %zu threads of each kind\n", (unsigned long long)seed, count);
    fflush(stdout);
    table = shadow_table_make(RECORDS);
    check_late_frees(count);
    check_cancellation(count);
#ifdef TIDE_TEST_NO_MAIN_FIRST
    (void)check_main_first;
    puts("main first: left out, this libc does not survive it");
#else
    check_main_first();
#endif
#ifdef TIDE_TEST_NO_RAW_ENDS
    (void)check_raw_exit;
    puts("raw exit: left out, this libc does not survive it");
#else
    check_raw_exit(count);
#endif
    return 0;
}
