#define _GNU_SOURCE 1
#include "burst.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check.h"
#include "subject.h"

enum { PAGE = 4096 };

static const struct {
    size_t from, to;
} sizes[] = {[BURST_SMALLEST] = {1, 64},
             [BURST_TINY] = {1, 1024},
             [BURST_MID] = {1025, 32768},
             [BURST_LARGE] = {32769, 2097152}};

void burst_make(burst_t *burst, enum burst_kind kind, size_t bytes, uint64_t seed) {
    size_t mean = kind == BURST_MIXED ? 1200 : (sizes[kind].from + sizes[kind].to) / 2;
    *burst = (burst_t){.capacity = bytes / mean * 11 / 10 + 64, .random = seed};
    burst->records = shadow_table_make(burst->capacity);
    memset((void *)burst->records, 0, burst->capacity * sizeof(shadow_t));
}

void burst_drop(burst_t *burst) {
    CHECK(burst->count == 0);
    munmap((void *)burst->records, burst->capacity * sizeof(shadow_t));
    burst->records = NULL;
}

static void fill(burst_t *burst, enum burst_kind kind, size_t bytes) {
    for (size_t total = 0; total < bytes && burst->count < burst->capacity;) {
        shadow_t *record = &burst->records[burst->count];
        size_t size = sizes[kind].from + random_below(&burst->random, sizes[kind].to - sizes[kind].from + 1);
        CHECK(shadow_malloc(record, &burst->random, size));
        total += record->size;
        burst->count++;
    }
}

void burst_fill(burst_t *burst, enum burst_kind kind, size_t bytes) {
    if (kind != BURST_MIXED) {
        fill(burst, kind, bytes);
        return;
    }
    for (size_t part = 0; part < 8; part++) {
        fill(burst, BURST_TINY, bytes / 24);
        fill(burst, BURST_LARGE, bytes / 24);
        fill(burst, BURST_MID, bytes / 24);
    }
}

void burst_verify(const burst_t *burst) {
    for (size_t i = 0; i < burst->count; i++) shadow_verify(&burst->records[i]);
}

/* A step that visits every number below `count` once. */
static size_t scattering_step(size_t count) {
    size_t step = count * 618 / 1000 | 1;
    for (;; step += 2) {
        size_t a = count, b = step;
        while (b != 0) {
            size_t rest = a % b;
            a = b;
            b = rest;
        }
        if (a == 1) return step;
    }
}

static void free_all_but(burst_t *burst, size_t survivors) {
    if (burst->count == 0) return;
    size_t step = scattering_step(burst->count), at = 0;
    for (size_t i = 0; i < burst->count; i++, at = (at + step) % burst->count)
        if (survivors == 0 || at % survivors != 0) shadow_free(&burst->records[at], &burst->random);
}

void burst_free(burst_t *burst) {
    free_all_but(burst, 0);
    burst->count = 0;
}

void burst_thin(burst_t *burst, size_t survivors) {
    free_all_but(burst, survivors);
    size_t kept = 0;
    for (size_t i = 0; i < burst->count; i += survivors) {
        memmove((void *)&burst->records[kept], (void *)&burst->records[i], sizeof burst->records[i]);
        if (kept != i) memset((void *)&burst->records[i], 0, sizeof burst->records[i]);
        kept++;
    }
    burst->count = kept;
}

size_t burst_bytes(const burst_t *burst) {
    size_t bytes = 0;
    for (size_t i = 0; i < burst->count; i++) bytes += burst->records[i].size;
    return bytes;
}

static int by_address(const void *left, const void *right) {
    const shadow_t *a = left, *b = right;
    return a->p < b->p ? -1 : a->p > b->p;
}

size_t burst_page_bytes(const burst_t *burst) {
    size_t bytes = burst->count * sizeof(shadow_t) + PAGE, pages = 0;
    shadow_t *sorted = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(sorted != MAP_FAILED);
    memcpy((void *)sorted, (void *)burst->records, burst->count * sizeof(shadow_t));
    /* qsort may allocate, but gives it back, and nobody waits for silence here. */
    qsort((void *)sorted, burst->count, sizeof(shadow_t), by_address);
    uintptr_t counted = 0; /* the end of the pages counted so far */
    for (size_t i = 0; i < burst->count; i++) {
        uintptr_t from = (uintptr_t)sorted[i].p & ~(uintptr_t)(PAGE - 1);
        uintptr_t to = ((uintptr_t)sorted[i].p + sorted[i].size + PAGE - 1) & ~(uintptr_t)(PAGE - 1);
        if (from < counted) from = counted;
        if (to > from) pages += (to - from) / PAGE;
        if (to > counted) counted = to;
    }
    munmap(sorted, bytes);
    return pages * PAGE;
}

/* --- a crew ---------------------------------------------------------------------------------------------------------- */

static long futex(atomic_uint *word, int operation, unsigned value) {
    return syscall(SYS_futex, word, operation, value, NULL, NULL, 0);
}

static void on_wake(int signal_number) { (void)signal_number; }

static void sleep_in_futex(sailor_t *sailor, unsigned done) { futex(&sailor->orders, FUTEX_WAIT, done); }

static void sleep_in_read(const sailor_t *sailor) {
    char byte;
    ssize_t got = read(sailor->pipe[0], &byte, 1);
    CHECK(got == 1 || errno == EINTR);
}

static void sleep_in_sigwait(void) {
    sigset_t set;
    int signal_number;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    CHECK(sigwait(&set, &signal_number) == 0);
}

static void sleep_in_nanosleep(void) {
    struct timespec long_time = {100000, 0};
    nanosleep(&long_time, NULL);
}

static void sleep_for_order(sailor_t *sailor, unsigned done) {
    switch (sailor->index % 4) {
    case 0: sleep_in_futex(sailor, done); break;
    case 1: sleep_in_read(sailor); break;
    case 2: sleep_in_sigwait(); break;
    default: sleep_in_nanosleep(); break;
    }
}

static void wake(sailor_t *sailor) {
    switch (sailor->index % 4) {
    case 0: futex(&sailor->orders, FUTEX_WAKE, 1); break;
    case 1: CHECK(write(sailor->pipe[1], "", 1) == 1); break;
    case 2: CHECK(pthread_kill(sailor->thread, SIGUSR2) == 0); break;
    default: CHECK(pthread_kill(sailor->thread, SIGUSR1) == 0); break;
    }
}

/* What later calls need of the stack is resident from now on. */
static __attribute__((noinline)) void touch_stack(void) {
    volatile char bytes[65536];
    for (size_t i = 0; i < sizeof bytes; i += 512) bytes[i] = 1;
}

static void *sailor_main(void *argument) {
    sailor_t *sailor = argument;
    touch_stack();
    unsigned done = 0;
    for (bool go_on = true; go_on;) {
        atomic_store(&sailor->done, done);
        while (atomic_load(&sailor->orders) == done) sleep_for_order(sailor, done);
        if (sailor->crew->order != NULL)
            sailor->crew->order(sailor);
        else
            go_on = false;
        done++;
    }
    return NULL;
}

/* A signal that comes before the sleep is lost: it is sent again until the order is carried out. */
static void wait_for_all(crew_t *crew, bool wakes) {
    for (size_t i = 0; i < crew->count; i++) {
        sailor_t *sailor = &crew->sailors[i];
        for (unsigned naps = 0; atomic_load(&sailor->done) != atomic_load(&sailor->orders); naps++) {
            clock_sleep_us(200);
            if (wakes && naps % 50 == 49 && i % 4 == 3) wake(sailor);
        }
    }
}

void crew_make(crew_t *crew, size_t count) {
    CHECK(count <= CREW_MOST);
    struct sigaction action = {.sa_handler = on_wake};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    crew->count = count;
    for (size_t i = 0; i < count; i++) {
        sailor_t *sailor = &crew->sailors[i];
        sailor->crew = crew;
        sailor->index = i;
        atomic_init(&sailor->orders, 0);
        atomic_init(&sailor->done, 1);
        CHECK(pipe(sailor->pipe) == 0);
        CHECK(pthread_create(&sailor->thread, NULL, sailor_main, sailor) == 0);
    }
    wait_for_all(crew, false);
}

void crew_order(crew_t *crew, void (*order)(sailor_t *)) {
    crew->order = order;
    for (size_t i = 0; i < crew->count; i++) {
        atomic_fetch_add(&crew->sailors[i].orders, 1);
        wake(&crew->sailors[i]);
    }
    wait_for_all(crew, true);
}

void crew_end(crew_t *crew) {
    crew->order = NULL;
    for (size_t i = 0; i < crew->count; i++) {
        atomic_fetch_add(&crew->sailors[i].orders, 1);
        wake(&crew->sailors[i]);
    }
    for (size_t i = 0; i < crew->count; i++) {
        sailor_t *sailor = &crew->sailors[i];
        while (pthread_tryjoin_np(sailor->thread, NULL) == EBUSY) {
            clock_sleep_us(1000);
            if (i % 4 == 3) pthread_kill(sailor->thread, SIGUSR1);
        }
        close(sailor->pipe[0]);
        close(sailor->pipe[1]);
    }
    crew->count = 0;
}
