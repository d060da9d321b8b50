/* api.c - all entry points of the library, from one to four threads that take turns or run freely, on the real system. Each block carries contents
 * that tell it apart; what every function promises of its result is checked at once. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fuzz.h"
#include "real.h"
#include "tidemalloc.h"

#define THREADS_MAX 4u
#define BLOCKS 128u
#define STEPS_MAX 400u
#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define LIVE_MAX_BYTES (64 * MIB)
#define PAGE_BYTES ((size_t)4096)
/* From here on a refusal is no surprise, and a block is given back at once. */
#define LARGE_BYTES ((size_t)1 << 40)

static struct block {
    unsigned char *at;
    size_t size, usable, alignment;
    uint64_t seed;
    bool held; /* an operation on it is under way */
} blocks[BLOCKS];
static _Atomic size_t live_bytes;
static _Atomic uint64_t seeds;
static unsigned refusals_before; /* real_failed() as the step, or the free run, began */
static bool free_running;
static bool deferred;          /* a handler has freed blocks: those above 32 KiB may count as live for a while */
static size_t uncounted_bytes; /* of live blocks that handlers took, which no tier counts */
static bool armed;             /* some system calls may fail */

struct step {
    uint8_t what, who, how;
    struct block *block;
    size_t size;
    const char *name, *value; /* of options, in memory of libc's malloc */
};

/* --- sizes ----------------------------------------------------------------------------------------------------------------- */

static size_t size_take(struct input *input) {
    unsigned how = input_byte(input);
    size_t value = input_half(input);
    switch (how & 7) {
    case 0: return value % 64;
    case 1: return value % 1100;
    case 2: return value % 33000;
    case 3: return ((size_t)1 << value % 22) + (value >> 5) % 5 - 2;
    case 4: return value * 32;
    case 5: return value % 40 * 64 * KIB + (value >> 6) % 3 * 100;
    case 6: return value;
    default:
        switch (how >> 4) {
        case 0: return SIZE_MAX - value;
        case 1: return PTRDIFF_MAX - (value % 70000);
        case 2: return (size_t)PTRDIFF_MAX + value;
        case 3: return LARGE_BYTES << value % 23;
        default: return value % 300;
        }
    }
}

/* What lives is bounded; sizes that no system grants are not. */
static size_t bounded(size_t size) {
    if (size >= LARGE_BYTES) return size;
    if (size > 24 * MIB) size %= 24 * MIB;
    return live_bytes + size > LIVE_MAX_BYTES ? size % 1000 : size;
}

/* --- what must hold -------------------------------------------------------------------------------------------------------- */

static void refusal_must_have_a_reason(size_t size, int error) {
    must_be(error == ENOMEM, "no memory, and errno is %d", error);
    bool expected = armed && (free_running || real_failed() != refusals_before);
    must_be(expected || size >= LARGE_BYTES / 2, "%zu bytes are refused for no reason", size);
}

static void contents_must_hold(const struct block *block) {
    must_be(fuzz_holds(block->at, block->size, block->seed), "a block of %zu bytes has lost its contents", block->size);
    must(tide_malloc_usable_size(block->at) == block->usable);
}

static size_t natural_alignment(size_t size) {
    bool power = size != 0 && (size & (size - 1)) == 0;
    return power && size > 16 && size <= 32 * KIB ? size : 16;
}

/* Keep what a function gave, or see why it gave nothing. */
static void keep(struct block *block, void *at, size_t size, size_t alignment) {
    if (at == NULL) {
        refusal_must_have_a_reason(size > alignment ? size : alignment, errno);
        return;
    }
    if (size >= LARGE_BYTES / 2) { /* a system that promises everything */
        tide_free(at);
        return;
    }
    *block = (struct block){at, size, tide_malloc_usable_size(at), alignment, ++seeds, block->held};
    must(block->usable >= size);
    must_be((uintptr_t)at % alignment == 0, "%p for %zu bytes, aligned to %zu", at, size, alignment);
    live_bytes += block->usable;
    if (!free_running)
        for (const struct block *other = blocks; other < blocks + BLOCKS; other++) {
            if (other == block || other->at == NULL) continue;
            bool apart = block->at + block->usable <= other->at || other->at + other->usable <= block->at;
            must_be(apart, "blocks of %zu and %zu bytes overlap", size, other->size);
        }
    fuzz_fill(at, size, block->seed);
    if (block->usable > size) memset(block->at + size, 0xa5, block->usable - size < 64 ? block->usable - size : 64);
}

static void give_back(struct block *block, unsigned how) {
    contents_must_hold(block);
    void *at = block->at;
    live_bytes -= block->usable;
    block->at = NULL;
    errno = 77;
    switch (how % 6) {
    default: tide_free(at); break;
    case 1: tide_cfree(at); break;
    case 2: tide_free_sized(at, block->size); break;
    case 3: tide_free_aligned_sized(at, block->alignment, block->size); break;
    case 4: must(tide_realloc(at, 0) == NULL); break;
    }
    must_be(errno == 77, "free has changed errno to %d", errno);
}

/* --- one operation each ---------------------------------------------------------------------------------------------------- */

static void call_malloc(const struct step *step) {
    size_t size = bounded(step->size);
    keep(step->block, tide_malloc(size), size, natural_alignment(size));
}

static void call_calloc(const struct step *step) {
    size_t size = bounded(step->size), count = 1 + step->how % 7, bytes;
    bool overflow = __builtin_mul_overflow(size / count, count, &bytes);
    if (step->how >= 250) {
        errno = 0;
        must(tide_calloc(SIZE_MAX / 2, 3 + step->how % 4) == NULL && errno == ENOMEM);
        return;
    }
    must(!overflow);
    void *at = tide_calloc(size / count, count);
    if (at != NULL) must_be(fuzz_is_zero(at, bytes < MIB ? bytes : MIB), "calloc of %zu bytes is not zero", bytes);
    keep(step->block, at, bytes, natural_alignment(bytes));
}

static void call_realloc(const struct step *step) {
    struct block *block = step->block, before = *block;
    size_t size = bounded(step->size);
    contents_must_hold(block);
    if (size == 0) size = 1;
    bool array = step->how % 2 == 1;
    if (array && step->how >= 240) {
        errno = 0;
        must(tide_reallocarray(before.at, SIZE_MAX / 8, 9) == NULL && errno == ENOMEM);
        contents_must_hold(block);
        return;
    }
    if (array) size = size / 3 * 3;
    if (size == 0) size = 3;
    unsigned char *at = array ? tide_reallocarray(before.at, size / 3, 3) : tide_realloc(before.at, size);
    if (at == NULL) {
        refusal_must_have_a_reason(size, errno);
        contents_must_hold(block); /* as it was */
        return;
    }
    must_be(fuzz_holds(at, size < before.size ? size : before.size, before.seed),
            "realloc from %zu to %zu lost contents", before.size, size);
    live_bytes -= before.usable;
    block->at = NULL;
    keep(block, at, size, 16);
}

static void call_aligned(const struct step *step) {
    size_t size = bounded(step->size), alignment = (size_t)1 << step->how % 23;
    void *at = NULL;
    if (size < LARGE_BYTES && live_bytes + size + alignment > LIVE_MAX_BYTES) size %= 100;
    switch (step->how / 23 % 6) {
    case 0:
    case 1: at = tide_aligned_alloc(alignment, size); break;
    case 2: at = tide_memalign(alignment - (alignment > 4 ? step->how % 2 : 0), size); break;
    case 3: {
        void *untouched = &at;
        at = untouched;
        errno = 77;
        int error = tide_posix_memalign(&at, alignment, size);
        must(errno == 77);
        must((error == EINVAL) == (alignment < sizeof(void *)));
        must(error == 0 || at == untouched);
        if (error == EINVAL) return;
        if (error != 0) at = NULL;
        errno = error;
        break;
    }
    case 4:
        at = tide_valloc(size);
        alignment = PAGE_BYTES;
        break;
    default:
        at = tide_pvalloc(size);
        alignment = PAGE_BYTES;
        if (at != NULL) must(tide_malloc_usable_size(at) >= (size + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES);
    }
    keep(step->block, at, size, alignment);
}

static void call_misaligned(const struct step *step) {
    size_t bad = step->how < 3 ? 0 : step->how | 3; /* no power of two */
    void *at = &at, *untouched = at;
    errno = 0;
    must(tide_aligned_alloc(bad, 100) == NULL && errno == EINVAL);
    must(tide_posix_memalign(&at, bad, 100) == EINVAL && at == untouched);
    must(tide_posix_memalign(&at, 4, 100) == EINVAL && at == untouched);
    errno = 0;
    must(tide_memalign(SIZE_MAX - step->how, 100) == NULL && errno == EINVAL);
    tide_free(NULL);
    tide_cfree(NULL);
    tide_free_sized(NULL, 3);
    must(tide_malloc_usable_size(NULL) == 0);
    must(tide_mallopt(step->how, 1) == 1);
}

static void call_flush(const struct step *step) {
    static size_t (*const functions[])(tide_flush_report *) = {
        tide_tiny_magazine_flush_all, tide_mid_pool_flush,     tide_large_pool_flush,
        tide_pool_flush_all,          tide_release_all_caches,
    };
    unsigned which = step->how % 6;
    if (which == 5) {
        must((tide_malloc_trim(step->size) & ~1) == 0);
        return;
    }
    tide_flush_report report;
    memset(&report, 0xff, sizeof report);
    size_t returned = functions[which](step->how & 64 ? NULL : &report);
    must(returned % PAGE_BYTES == 0);
    if ((step->how & 64) != 0) return;
    must(report.returned_bytes == returned);
    must((report.kept_bytes | report.pinned_bytes | report.missed_bytes) % PAGE_BYTES == 0);
}

/* The statistics count what lives, when nobody else is at work. */
static void statistics_must_agree(const tide_stats *stats) {
    must(stats->tiny_bytes + stats->mid_bytes + stats->large_bytes == stats->allocated_bytes);
    if (free_running) return;
    if (deferred || uncounted_bytes != 0) {
        must(stats->allocated_bytes + uncounted_bytes >= live_bytes);
        return;
    }
    must(stats->active_bytes >= stats->allocated_bytes || stats->allocated_bytes == 0);
    must_be(stats->allocated_bytes == live_bytes, "%zu bytes are said to live, not %zu", (size_t)stats->allocated_bytes,
            (size_t)live_bytes);
    must(stats->committed_bytes <= stats->reserved_bytes);
    must(stats->thread_count <= stats->heap_count);
}

static void call_statistics(const struct step *step) {
    size_t size = step->size % (2 * sizeof(tide_stats)), least = offsetof(tide_stats, size) + sizeof(uint32_t);
    unsigned char *area = malloc(size + 1); /* libc's: a write behind the end is seen */
    must(area != NULL);
    memset(area, 0x5a, size + 1);
    int error = tide_stats_get((tide_stats *)(void *)area, size);
    must(area[size] == 0x5a);
    must((error == EINVAL) == (size < least) && (error == 0 || error == EINVAL));
    if (error == 0) {
        tide_stats stats = {0};
        memcpy(&stats, area, size < sizeof stats ? size : sizeof stats);
        must(stats.version == TIDE_STATS_VERSION && stats.size == (size < sizeof stats ? size : sizeof stats));
    }
    free(area);
    must(tide_stats_get(NULL, sizeof(tide_stats)) == EINVAL);
    tide_stats stats;
    must(tide_stats_get(&stats, sizeof stats) == 0);
    statistics_must_agree(&stats);
    struct mallinfo2 info = tide_mallinfo2();
    bool exact = !free_running && !deferred && uncounted_bytes == 0;
    if (exact) must(info.uordblks + info.hblkhd == live_bytes);
    struct mallinfo narrow = tide_mallinfo();
    if (exact) must((size_t)narrow.uordblks + (size_t)narrow.hblkhd == live_bytes);
}

static void call_info(const struct step *step) {
    must(tide_malloc_info(1 + step->how, stdout) == EINVAL);
    FILE *file = fopen("/dev/null", "w");
    if (file == NULL) return;
    must(tide_malloc_info(0, file) == 0);
    fclose(file);
}

static void call_options(const struct step *step) {
    char value[64];
    int error = tide_set(step->name, step->value);
    must(error == 0 || error == ENOENT || error == EINVAL || error == EPERM);
    size_t size = step->how % sizeof value;
    memset(value, '#', sizeof value);
    int got = tide_get(step->name, value, size);
    must((got == ENOENT) == (error == ENOENT));
    must(got == 0 ? memchr(value, 0, size) != NULL : size == 0 || value[0] == '#');
    for (size_t i = size; i < sizeof value; i++) must(value[i] == '#');
}

static void call_tick(const struct step *step) {
    real_clock_advance((uint64_t)step->how * 1000000);
    uint64_t due = tide_tick();
    if (due != UINT64_MAX) must(due <= 10 * UINT64_C(1000000000));
}

/* Enough blocks of one size for some spans, of which few stay: what punching is for. */
#define CROWD 300u
static void call_crowd(const struct step *step) {
    void *crowd[CROWD];
    size_t size = step->size % 2100 + 1, count = CROWD, kept = step->how % count;
    for (size_t i = 0; i < count; i++) crowd[i] = tide_malloc(size);
    for (size_t i = 0; i < count; i++)
        if (i != kept) tide_free(crowd[i]);
    keep(step->block, crowd[kept], size, 16);
}

/* What a signal handler does when the library is in a system call. In turns only: one thread runs. */
static unsigned interrupt_in; /* so many calls from now; 0: never */
static struct block *interrupt_block;
static size_t interrupt_size;
static void handler(void) {
    struct block *block = interrupt_block;
    if (interrupt_in == 0 || --interrupt_in != 0 || block->held) return;
    block->held = true;
    if (block->at != NULL) {
        deferred = true;
        give_back(block, 0);
    } else {
        void *at = tide_malloc(interrupt_size);
        size_t usable = at != NULL ? tide_malloc_usable_size(at) : 0;
        if (at != NULL) keep(block, at, interrupt_size, 16);
        uncounted_bytes += usable; /* an emergency block, mostly; what is known is that it is no more than this */
    }
    block->held = false;
}

static void call_interrupt(const struct step *step) {
    interrupt_block = step->block;
    interrupt_size = step->size % 100000;
    interrupt_in = 1 + step->how % 8;
}

static void call_check(void) {
    for (const struct block *block = blocks; block < blocks + BLOCKS; block++)
        if (block->at != NULL) contents_must_hold(block);
}

static void in_the_child(void) {
    free_running = false;
    interrupt_in = 0;
    call_check();
    for (unsigned i = 0; i < BLOCKS; i++)
        if (blocks[i].at != NULL) give_back(&blocks[i], 0);
    tide_free(tide_malloc(100));
    tide_release_all_caches(NULL);
    must(real_validate());
    fuzz_child_end();
}

static void call_fork(const struct step *step) {
    if (step->how % 16 != 0) return;
    pid_t child = fuzz_fork();
    if (child == 0) in_the_child();
    fuzz_child_must_end_well(child);
}

static void run_step(const struct step *step) {
    bool empty = step->block->at == NULL;
    if (step->block->held) return;
    step->block->held = true;
    switch (step->what & 31) {
    default:
        if (empty)
            call_malloc(step);
        else
            give_back(step->block, step->how);
        break;
    case 12:
    case 13:
    case 14:
        if (!empty) give_back(step->block, step->how);
        break;
    case 15:
    case 16:
        if (empty) call_calloc(step);
        break;
    case 17:
    case 18:
    case 19:
        if (empty)
            keep(step->block, tide_realloc(NULL, bounded(step->size)), bounded(step->size), 16);
        else
            call_realloc(step);
        break;
    case 20:
    case 21:
        if (empty) call_aligned(step);
        break;
    case 22: call_misaligned(step); break;
    case 23:
    case 24: call_flush(step); break;
    case 25: call_statistics(step); break;
    case 26: call_info(step); break;
    case 27: call_options(step); break;
    case 28:
    case 29: call_tick(step); break;
    case 30:
        if (!free_running) call_fork(step);
        break;
    case 31:
        if (!free_running) call_check();
        break;
    case 10:
        if (empty) call_crowd(step);
        break;
    case 11:
        if (!free_running) call_interrupt(step);
        break;
    }
    step->block->held = false;
}

/* --- threads --------------------------------------------------------------------------------------------------------------- */

static struct worker {
    pthread_t thread;
    sem_t go, done;
    const struct step *steps; /* NULL: end */
    size_t count;
    bool lives;
} workers[THREADS_MAX];

static void sem_take(sem_t *semaphore) {
    while (sem_wait(semaphore) != 0) {}
}

static void *worker_run(void *argument) {
    struct worker *worker = argument;
    for (;;) {
        sem_take(&worker->go);
        if (worker->steps == NULL) return NULL;
        for (size_t i = 0; i < worker->count; i++) run_step(&worker->steps[i]);
        sem_post(&worker->done);
    }
}

static void worker_begin(struct worker *worker) {
    sem_init(&worker->go, 0, 0);
    sem_init(&worker->done, 0, 0);
    must(pthread_create(&worker->thread, NULL, worker_run, worker) == 0);
    worker->lives = true;
}

static void worker_send(struct worker *worker, const struct step *steps, size_t count) {
    if (!worker->lives) worker_begin(worker);
    worker->steps = steps;
    worker->count = count;
    sem_post(&worker->go);
}

static void worker_end(struct worker *worker) {
    if (!worker->lives) return;
    worker_send(worker, NULL, 0);
    must(pthread_join(worker->thread, NULL) == 0);
    worker->lives = false;
}

/* --- the input ------------------------------------------------------------------------------------------------------------- */

/* A few words that options know, and what the input has instead. */
static const char *text_take(struct input *input, char *room, size_t size) {
    static const char *const words[] = {"mode",   "print_stats", "reserve", "keeper", "static", "flush",
                                        "shrink", "adaptive",    "hybrid",  "0",      "2",      "MODE"};
    unsigned which = input_byte(input);
    if (which < 128) return words[which % (sizeof words / sizeof *words)];
    if (which == 255) return NULL;
    size_t length = which % size;
    for (size_t i = 0; i < length; i++) room[i] = (char)input_byte(input);
    room[length] = 0;
    return room;
}

#define TEXT_BYTES 24u
static struct step steps[STEPS_MAX];
static char texts[STEPS_MAX][2][TEXT_BYTES];

/* A free run: who may touch a block changes from phase to phase, so blocks are freed by other threads than took them. */
#define PHASE_STEPS 16u
static void run_freely(struct step *all, size_t count, unsigned threads) {
    static struct step parts[THREADS_MAX][STEPS_MAX];
    for (size_t first = 0, phase = 0; first < count; first += PHASE_STEPS * threads, phase++) {
        size_t counts[THREADS_MAX] = {0};
        for (size_t i = first; i < count && i < first + PHASE_STEPS * threads; i++) {
            unsigned who = (unsigned)(((size_t)(all[i].block - blocks) + phase) % threads);
            parts[who][counts[who]++] = all[i];
        }
        for (unsigned who = 0; who < threads; who++)
            if (counts[who] > 0) worker_send(&workers[who], parts[who], counts[who]);
        for (unsigned who = 0; who < threads; who++)
            if (counts[who] > 0) sem_take(&workers[who].done);
        must(real_validate());
    }
}

static void run_in_turns(struct step *all, size_t count, unsigned threads) {
    for (size_t i = 0; i < count; i++) {
        refusals_before = real_failed();
        unsigned who = all[i].who % (threads + 1);
        if (who == 0) {
            run_step(&all[i]);
        } else if ((all[i].who & 0xf0) == 0xf0) {
            worker_end(&workers[who - 1]);
        } else {
            worker_send(&workers[who - 1], &all[i], 1);
            sem_take(&workers[who - 1].done);
        }
        must(real_validate());
    }
}

static size_t steps_take(struct input *input) {
    size_t count = 0;
    for (; count < STEPS_MAX && input_left(input); count++) {
        struct step *step = &steps[count];
        *step = (struct step){.what = input_byte(input), .who = input_byte(input), .how = input_byte(input)};
        step->block = &blocks[input_byte(input) % BLOCKS];
        step->size = size_take(input);
        if ((step->what & 31) != 27) continue;
        step->name = text_take(input, texts[count][0], TEXT_BYTES);
        step->value = text_take(input, texts[count][1], TEXT_BYTES);
    }
    return count;
}

void fuzz_one(const uint8_t *data, size_t size) {
    struct input input = {data, data + size};
    memset(blocks, 0, sizeof blocks);
    memset(workers, 0, sizeof workers);
    live_bytes = 0;
    seeds = 0;
    uncounted_bytes = 0;
    interrupt_in = 0;
    deferred = false;
    real_interrupt = handler;
    unsigned first = input_byte(&input), second = input_byte(&input), nth = input_half(&input);
    unsigned threads = 1 + first % THREADS_MAX;
    bool keeper = (first & 0xf0) == 0xf0;
    free_running = (first & 4) != 0;
    real_begin((size_t[]){16 * MIB, 64 * MIB, 256 * MIB, 1024 * MIB}[second % 4], keeper);
    if ((first & 8) != 0) tide_set("mode", (const char *[]){"static", "flush", "shrink", "adaptive"}[second / 4 % 4]);
    static const int errors[] = {ENOMEM, EINVAL, EPERM, EAGAIN};
    enum real_call call = (enum real_call)(second / 16 % REAL_CALLS);
    /* A purge asks again after EAGAIN, forever if need be. */
    int error = errors[nth >> 12 & 3];
    armed = (nth & 0x800) != 0;
    if (armed) real_fail(call, 1 + nth % 64, 1 + (nth >> 6) % 16, error);

    if ((nth & 0x8000) != 0) real_nap_at_start(60000000);
    size_t count = steps_take(&input);
    if (keeper) free_running = true; /* it may be at work at any moment */
    if (free_running && !keeper)
        run_freely(steps, count, threads);
    else if (keeper)
        for (size_t i = 0; i < count; i++) run_step(&steps[i]);
    else
        run_in_turns(steps, count, threads);

    must(real_end());
    real_fail(call, 0, 0, 0);
    interrupt_in = 0;
    free_running = armed = false;
    refusals_before = real_failed();
    call_check();
    for (unsigned i = 0; i < BLOCKS; i++)
        if (blocks[i].at != NULL) give_back(&blocks[i], 0);
    for (unsigned i = 0; i < THREADS_MAX; i++) worker_end(&workers[i]);
    tide_release_all_caches(NULL);
    must(real_validate());
    tide_stats stats;
    must(tide_stats_get(&stats, sizeof stats) == 0);
    must_be(stats.allocated_bytes == 0, "%zu bytes are said to live", (size_t)stats.allocated_bytes);
}
