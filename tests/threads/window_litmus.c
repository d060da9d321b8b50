/* window_litmus.c - the ring of events in the page of the window, by itself: the keeper writes as fast as it can, readers copy events as
 * another process does. An event whose number is the same before and after the copy is whole.
 *
 * argv: events, readers */
#define _GNU_SOURCE 1
#include <pthread.h>
#include <stdio.h>

#include "check.h"
#include "keeper/window.c"

enum { READERS_MAX = 16 };

/* The layers below, which events do not need. */
size_t os_page_bytes = 4096;
struct region region_main;
struct heap *heap_all, heap_shared;
struct os_lock heap_registry_lock;
struct options options;
static uint64_t now_ns;
uint64_t os_now_ns(void) { return now_ns; }
int os_process_id(void) { return 1; }
int os_file_in_memory(const char *name, size_t bytes) { return name != NULL && bytes != 0 ? 5 : -1; }
void *os_file_map(int file, size_t bytes, void *at) {
    static _Alignas(4096) char page[WINDOW_STATS_AT];
    (void)file, (void)bytes, (void)at;
    return page;
}
void os_file_forget(void *at, size_t bytes) { (void)at, (void)bytes; }
void os_file_close(int file) { (void)file; }
long os_file_write_at(int file, const void *from, size_t bytes, size_t offset) {
    (void)file, (void)from, (void)offset;
    return (long)bytes;
}
void census_take_detailed(struct census *census, struct census_class classes[CLASSES]) { (void)census, (void)classes; }
size_t census_slices(const struct region *region, struct census_cursor *cursor, uint8_t *uses, size_t count) {
    (void)region, (void)cursor, (void)uses;
    return count - count;
}
void figures_fill(struct tide_stats *stats, const struct census *census) { (void)stats, (void)census; }
size_t flush_inside(unsigned parts, struct flush_result *result) {
    (void)result;
    return parts;
}
void heap_wait_for(struct os_lock *lock) { (void)lock; }
void os_lock_drop(struct os_lock *lock) { (void)lock; }

static _Atomic bool over;
static _Atomic uint64_t whole, torn;

/* Half of it may be of the next event: that is what the numbers are for. */
#ifdef TIDE_THREAD_SANITIZER
__attribute__((no_sanitize("thread"), noinline))
#endif
static void
copy(struct window_event *to, const struct window_event *from) {
    to->at_ns = *(volatile const uint64_t *)&from->at_ns;
    to->kind = *(volatile const uint32_t *)&from->kind;
    to->given_bytes = *(volatile const uint64_t *)&from->given_bytes;
    to->argument = *(volatile const uint64_t *)&from->argument;
}

static void *reader_main(void *argument) {
    uint64_t random = (uint64_t)(uintptr_t)argument, good = 0, bad = 0;
    const struct window_page *page = atomic_load(&window_page);
    while (!atomic_load_explicit(&over, memory_order_relaxed)) {
        uint64_t count = atomic_load_explicit(&page->event_count, memory_order_acquire);
        if (count == 0) continue;
        /* The newest ones, which are about to be written over when it is slow; or any. */
        const struct window_event *event = &page->events[(count - 1 + random_below(&random, 3)) % WINDOW_EVENTS];
        uint64_t before = atomic_load_explicit(&event->number, memory_order_acquire);
        struct window_event seen;
        copy(&seen, event);
        atomic_thread_fence(memory_order_acquire);
        if (before == 0 || atomic_load_explicit(&event->number, memory_order_relaxed) != before) {
            bad++;
            continue;
        }
        good++;
        CHECKF(seen.at_ns == before && seen.kind == before % 7 + 1 && seen.given_bytes == 3 * before &&
                   seen.argument == ~before,
               "event %llu: at %llu, kind %u, given %llu", (unsigned long long)before, (unsigned long long)seen.at_ns,
               seen.kind, (unsigned long long)seen.given_bytes);
        CHECK(&page->events[(before - 1) % WINDOW_EVENTS] == event);
    }
    atomic_fetch_add(&whole, good);
    atomic_fetch_add(&torn, bad);
    return NULL;
}

int main(int argc, char **argv) {
    uint64_t events = argument_number(argc, argv, 1, 3000000);
    unsigned readers = (unsigned)argument_number(argc, argv, 2, 3);
    CHECK(readers >= 1 && readers <= READERS_MAX);
    window_open();
    pthread_t threads[READERS_MAX];
    for (unsigned i = 0; i < readers; i++)
        CHECK(pthread_create(&threads[i], NULL, reader_main, (void *)(uintptr_t)(i + 1)) == 0);
    for (uint64_t number = 1; number <= events; number++) {
        now_ns = number;
        window_tell((enum window_event_kind)(number % 7 + 1), 3 * number, ~number);
    }
    atomic_store(&over, true);
    for (unsigned i = 0; i < readers; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(atomic_load(&whole) > 0);
    printf("%llu events read whole, %llu left because they changed\n", (unsigned long long)whole,
           (unsigned long long)torn);
    return 0;
}
