#include "keeper/window.h"

#include <errno.h>

#include "heap/census.h"
#include "heap/flush.h"
#include "heap/thread.h"
#include "keeper/figures.h"
#include "os/options.h"

_Static_assert(offsetof(struct window_page, wake) == 16 && offsetof(struct window_page, argument) == 32,
               "as documented");
_Static_assert(offsetof(struct window_page, event_count) == 64 && offsetof(struct window_page, events) == 128,
               "as documented");
_Static_assert(sizeof(struct window_page) <= WINDOW_STATS_AT, "the page is in front of the answers");
_Static_assert(sizeof(struct tide_stats) <= WINDOW_FLUSH_AT - WINDOW_STATS_AT, "answers do not overlap");
_Static_assert(sizeof(struct window_table) + CLASSES * sizeof(struct window_class) <=
                   WINDOW_THREADS_AT - WINDOW_CLASSES_AT,
               "nor here");
_Static_assert(sizeof(struct window_table) + WINDOW_THREADS_MAX * sizeof(struct window_thread) <=
                   WINDOW_SLICES_AT - WINDOW_THREADS_AT,
               "nor here");
_Static_assert(sizeof(struct window_slices) <= WINDOW_USES_AT - WINDOW_SLICES_AT, "nor here");
_Static_assert(WINDOW_USES_AT + WINDOW_SLICES_MAX <= WINDOW_BYTES, "all answers fit");

static _Atomic uint32_t own_word;                 /* to sleep on without a window */
static _Atomic(struct window_page *) window_page; /* once mapped, the address stays */
static struct {                                   /* the keeper's thread only */
    int file;                                     /* 0: none */
    uint32_t answered;
} window;

_Atomic uint32_t *window_wake_word(void) {
    struct window_page *page = atomic_load(&window_page);
    return page != NULL ? &page->wake : &own_word;
}

void window_open(void) {
    int file = os_file_in_memory(WINDOW_NAME, WINDOW_BYTES);
    if (file < 0) return;
    struct window_page *page = os_file_map(file, os_page_bytes, atomic_load(&window_page));
    if (page == NULL) {
        os_file_close(file);
        return;
    }
    window.file = file;
    window.answered = 0;
    page->version = WINDOW_VERSION;
    page->file_bytes = WINDOW_BYTES;
    page->page_bytes = (uint32_t)os_page_bytes;
    page->event_bytes = sizeof *page->events;
    page->process_id = (uint32_t)os_process_id();
    atomic_thread_fence(memory_order_release);
    memcpy(page->magic, WINDOW_MAGIC, sizeof page->magic); /* last: who finds it finds the rest */
    atomic_store(&window_page, page);
}

/* Others may be about to ring: the page stays where it is. */
void window_close(void) {
    if (window.file == 0) return;
    os_file_close(window.file);
    window.file = 0;
}

void window_forget(void) {
    struct window_page *page = atomic_load(&window_page);
    window.file = 0;
    if (page != NULL) os_file_forget(page, os_page_bytes);
}

/* --- events -------------------------------------------------------------------------------------------------------- */

void window_tell(enum window_event_kind kind, uint64_t given_bytes, uint64_t argument) {
    if (window.file == 0) return;
    struct window_page *page = atomic_load(&window_page);
    uint64_t count = atomic_load_explicit(&page->event_count, memory_order_relaxed);
    struct window_event *event = &page->events[count % WINDOW_EVENTS];
    atomic_store_explicit(&event->number, 0, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    event->at_ns = os_now_ns();
    event->kind = kind;
    event->given_bytes = given_bytes;
    event->argument = argument;
    atomic_store_explicit(&event->number, count + 1, memory_order_release);
    atomic_store_explicit(&page->event_count, count + 1, memory_order_release);
}

/* --- answers ------------------------------------------------------------------------------------------------------- */

static void put(size_t at, const void *bytes, size_t count) { os_file_write_at(window.file, bytes, count, at); }

static void put_classes(const struct census_class *classes) {
    struct window_table table = {.rows = CLASSES, .row_bytes = sizeof(struct window_class)};
    size_t at = WINDOW_CLASSES_AT + sizeof table;
    for (unsigned class = 0; class < CLASSES; class ++) {
        const struct census_class *seen = &classes[class];
        struct window_class row = {
            .block_bytes = class_bytes(class),
            .spans = seen->spans,
            .live_blocks = seen->live_blocks,
            .free_blocks = seen->free_blocks,
            .free_bytes = seen->free_bytes,
            .allocation_count = seen->allocation_count,
            .refill_count = seen->refill_count,
            .state = seen->state,
            .tier = class < TINY_CLASSES ? TIER_TINY_INDEX : TIER_MID_INDEX,
        };
        put(at + class * sizeof row, &row, sizeof row);
    }
    put(WINDOW_CLASSES_AT, &table, sizeof table);
}

tide_racy static enum heap_claim claim_of(const struct heap *heap) { return heap->claim; }

static struct window_thread thread_row(struct heap *heap) {
    bool bound = heap_is_bound(heap);
    struct window_thread row = {
        .id = bound ? atomic_load_explicit(&heap->thread_id, memory_order_relaxed) : 0,
        .state = (uint64_t)atomic_load_explicit(&heap->state, memory_order_relaxed),
        .claim = claim_of(heap),
        .live_bytes = heap->seen.live_bytes,
        .free_bytes = heap->seen.free_bytes,
        .spans = heap->seen.spans,
    };
    for (unsigned class = 0; class < CLASSES; class ++) {
        row.refill_count += atomic_load_explicit(&heap->refill_counts[class], memory_order_relaxed);
#ifdef TIDE_COUNT
        row.allocation_count += atomic_load_explicit(&heap->allocation_counts[class], memory_order_relaxed);
#endif
    }
    return row;
}

static void put_threads(void) {
    struct window_table table = {.row_bytes = sizeof(struct window_thread)};
    size_t at = WINDOW_THREADS_AT + sizeof table;
    struct heap *all = __atomic_load_n(&heap_all, __ATOMIC_ACQUIRE);
    for (struct heap *heap = &heap_shared; heap != NULL; heap = heap == &heap_shared ? all : heap->next_heap) {
        if (!heap_is_bound(heap) && heap->seen.spans == 0) continue;
        if (table.rows == WINDOW_THREADS_MAX) {
            table.left_out++;
            continue;
        }
        struct window_thread row = thread_row(heap);
        put(at + table.rows++ * sizeof row, &row, sizeof row);
    }
    put(WINDOW_THREADS_AT, &table, sizeof table);
}

static void answer_stats(void) {
    struct census census;
    struct census_class classes[CLASSES];
    struct tide_stats stats;
    census_take_detailed(&census, classes);
    figures_fill(&stats, &census);
    put(WINDOW_STATS_AT, &stats, sizeof stats);
    put_classes(classes);
    put_threads();
}

static void answer_flush(unsigned parts) {
    struct flush_result result;
    size_t given = flush_inside(parts, &result);
    struct tide_flush_report report = {result.returned_bytes, result.kept_bytes, result.pinned_bytes,
                                       result.missed_bytes};
    put(WINDOW_FLUSH_AT, &report, sizeof report);
    window_tell(WINDOW_WAS_ASKED, given, parts);
}

/* From slice `first` on; in pieces, because the stack is small. */
static size_t put_uses(const struct region *region, size_t first, size_t count, size_t at) {
    uint8_t uses[4096];
    struct census_cursor cursor = {0};
    size_t done = 0, found;
    while (done < count && (found = census_slices(region, &cursor, uses, sizeof uses)) > 0) {
        size_t begin = cursor.slice - found;
        size_t skip = first > begin ? size_min(first - begin, found) : 0;
        size_t part = size_min(found - skip, count - done);
        put(at + done, uses + skip, part);
        done += part;
    }
    return done;
}

static void answer_slices(uint64_t skip) {
    struct window_slices answer = {0};
    size_t done = 0;
    for (struct region *region = &region_main; region != NULL && answer.regions < WINDOW_REGIONS_MAX;
         region = __atomic_load_n(&region->next, __ATOMIC_ACQUIRE)) {
        size_t slices = region_seen(region) / SLICE_BYTES;
        if (skip >= slices) {
            skip -= slices;
            continue;
        }
        size_t count = put_uses(region, skip, size_min(slices - skip, WINDOW_SLICES_MAX - done), WINDOW_USES_AT + done);
        answer.region[answer.regions].base = region->base;
        answer.region[answer.regions].first = skip;
        answer.region[answer.regions++].count = count;
        done += count;
        skip = 0;
        if (done == WINDOW_SLICES_MAX) break;
    }
    put(WINDOW_SLICES_AT, &answer, sizeof answer);
}

void window_answer(void) {
    if (window.file == 0) return;
    struct window_page *page = atomic_load(&window_page);
    uint32_t asked = atomic_load_explicit(&page->asked, memory_order_acquire);
    if (asked == window.answered) return;
    int error = 0;
    switch (page->command) {
    case WINDOW_STATS: answer_stats(); break;
    case WINDOW_FLUSH:
        if (page->argument == 0 || page->argument > FLUSH_ALL)
            error = EINVAL;
        else
            answer_flush((unsigned)page->argument);
        break;
    case WINDOW_SLICES: answer_slices(page->argument); break;
    default: error = EINVAL;
    }
    window.answered = asked;
    page->error = error;
    page->answered_ns = os_now_ns();
    page->mode = options.mode;
    atomic_store_explicit(&page->answered, asked, memory_order_release);
}
