/* runs.c - the page-run allocator against a naive model: an array with the state of every slice, searched from the front. The fake system refuses
 * calls, locks pages and limits memory as the input says; while slices are purged, other operations come in between. */
#include "span/run.h"

#include <errno.h>
#include <string.h>

#include "fake_os.h"
#include "fuzz.h"
#include "os/options.h"

#define REGIONS 8u
#define SLICES_MAX ((size_t)96 * MIB / SLICE_BYTES) /* of a region */
#define RUNS 64u

/* What the model knows of a slice. A slice that is not dirty reads as zero. */
struct slice {
    uint8_t run; /* 1 + the run that holds it, 0: free */
    bool dirty, written, locked;
};
static struct slice slices[REGIONS][SLICES_MAX];
static size_t tops[REGIONS]; /* slices that the model knows */

static struct run {
    struct span *head;
    unsigned region;
    size_t first, count;
} runs[RUNS];

static size_t failed_before; /* fake.failed as the step began */
static bool nothing_failed(void) { return fake.failed == failed_before; }

/* --- the model and the allocator side by side ---------------------------------------------------------------------------- */

static struct region *region_number(unsigned number) {
    struct region *region = &region_main;
    for (; number > 0 && region != NULL; number--) region = region->next;
    return region;
}

static unsigned number_of(const struct region *region) {
    unsigned number = 0;
    for (struct region *at = &region_main; at != region; at = at->next) number++;
    must(number < REGIONS);
    return number;
}

static char *slice_start(unsigned region, size_t slice) {
    return (char *)region_number(region)->base + slice * SLICE_BYTES;
}

/* Regions grow, with clean free slices. One that was added in vain goes again. */
static void tops_follow(void) {
    for (unsigned number = 0; number < REGIONS; number++) {
        const struct region *region = region_number(number);
        size_t top = region != NULL ? region_top(region) / SLICE_BYTES : 0;
        must(top <= SLICES_MAX);
        for (size_t i = tops[number]; i < top; i++) slices[number][i] = (struct slice){0};
        for (size_t i = top; i < tops[number]; i++) must(slices[number][i].run == 0);
        tops[number] = top;
    }
}

static size_t model_dirty_bytes(void) {
    size_t count = 0;
    for (unsigned number = 0; number < REGIONS; number++)
        for (size_t i = 0; i < tops[number]; i++) count += slices[number][i].run == 0 && slices[number][i].dirty;
    return count * SLICE_BYTES;
}

/* Where write_slice writes. */
static bool slice_is_zero(const char *start) {
    return start[0] == 0 && start[SLICE_BYTES / 2] == 0 && start[SLICE_BYTES - 1] == 0;
}

/* Every slice is as the model has it. Where slices may have been purged, the model learns which: returns their bytes. */
static size_t compare(bool purged) {
    size_t count = 0;
    tops_follow();
    must(run_validate() == NULL);
    for (unsigned number = 0; number < REGIONS; number++) {
        const struct region *region = region_number(number);
        for (size_t i = 0; i < tops[number]; i++) {
            const struct chunk *chunk = &region->chunks[i / CHUNK_SLICES];
            struct slice *slice = &slices[number][i];
            bool free = (chunk->free >> i % CHUNK_SLICES & 1) != 0, dirty = (chunk->dirty >> i % CHUNK_SLICES & 1) != 0;
            must_be(chunk->purging == 0, "slices are left as purging");
            must_be(free == (slice->run == 0), "slice %zu of region %u is %s", i, number, free ? "free" : "taken");
            if (slice->dirty == dirty) continue;
            must_be(purged && free && slice->dirty, "slice %zu of region %u is %s", i, number,
                    dirty ? "dirty" : "clean");
            must_be(!slice->locked, "slice %zu of region %u is locked, and clean", i, number);
            must_be(slice_is_zero(slice_start(number, i)), "slice %zu is clean, and not zero", i);
            slice->dirty = slice->written = false;
            count++;
        }
    }
    struct run_flow flow = run_flow(false);
    must(flow.dirty_bytes == model_dirty_bytes());
    must(flow.dirty_low_bytes <= flow.dirty_bytes);
    must(flow.clean_taken_bytes <= flow.taken_bytes);
    struct run_totals totals;
    run_totals(&totals);
    must(totals.dirty_bytes == flow.dirty_bytes);
    must(fake_locks_held() == 0);
    return count * SLICE_BYTES;
}

/* --- taking ---------------------------------------------------------------------------------------------------------------- */

static bool model_is_free(unsigned number, size_t first, size_t count) {
    if (first + count > tops[number]) return false;
    for (size_t i = 0; i < count; i++)
        if (slices[number][first + i].run != 0) return false;
    return true;
}

/* The naive search: is there room below the tops? */
static bool model_has_room(size_t count, size_t alignment) {
    for (unsigned number = 0; number < REGIONS; number++)
        for (size_t i = 0; i + count <= tops[number]; i++)
            if ((uintptr_t)slice_start(number, i) % (alignment * SLICE_BYTES) == 0 && model_is_free(number, i, count))
                return true;
    return false;
}

static struct run *run_unused(void) {
    for (struct run *run = runs; run < runs + RUNS; run++)
        if (run->head == NULL) return run;
    return NULL;
}

static void model_take(struct run *run, size_t first, size_t count) {
    for (size_t i = first; i < first + count; i++) {
        struct slice *slice = &slices[run->region][i];
        must_be(slice->run == 0, "slice %zu was handed out twice", i);
        slice->run = (uint8_t)(run - runs + 1);
        must(run_slice_is_dirty(run->head, i - run->first) == slice->dirty);
        if (!slice->dirty) must_be(slice_is_zero(slice_start(run->region, i)), "slice %zu is clean, and not zero", i);
    }
}

static void take(size_t count, size_t alignment, bool roomy) {
    struct run *run = run_unused();
    if (run == NULL) return;
    if (region_number(REGIONS - 1) != NULL) fake.reserve_max_bytes = 0; /* the model has no room for more */
    bool coarse = alignment > CHUNK_SLICES;                             /* may need more room than it takes */
    size_t most = coarse && count <= SIZE_MAX - alignment ? count + alignment : count;
    bool room = model_has_room(most, coarse ? 1 : alignment);
    struct span *head = roomy ? run_take_roomy(count) : run_take(count, alignment);
    tops_follow();
    if (head == NULL) {
        must_be(!room, "no run of %zu slices, though there is room", count);
        bool huge = count > SLICES_MAX / 2 || alignment > SLICES_MAX / 2;
        must_be(!nothing_failed() || huge, "no run of %zu slices, though nothing failed", count);
        return;
    }
    struct region *region = region_of_span(head);
    *run = (struct run){head, number_of(region), region_slice(region, head), count};
    must((uintptr_t)span_start(head) % (alignment * SLICE_BYTES) == 0);
    must(head->slices == count && head->kind == SPAN_FREE && head->flags == 0);
    must_be(run->first + count <= tops[run->region], "a run beyond the top");
    model_take(run, run->first, count);
}

/* --- what holders do --------------------------------------------------------------------------------------------------------- */

static struct run *run_chosen(struct input *input) {
    struct run *run = &runs[input_byte(input) % RUNS];
    for (unsigned i = 0; i < RUNS && run->head == NULL; i++) run = run + 1 < runs + RUNS ? run + 1 : runs;
    return run->head != NULL ? run : NULL;
}

static void write_slice(struct run *run, size_t index) {
    struct slice *slice = &slices[run->region][run->first + index];
    char *start = slice_start(run->region, run->first + index);
    start[0] = start[SLICE_BYTES / 2] = start[SLICE_BYTES - 1] = 1;
    slice->written = true;
}

/* Whoever says "clean" has seen to it that the slices read as zero; the allocator believes it. */
static enum run_state state_wanted(struct run *run, size_t first, bool clean) {
    if (!clean) return RUN_DIRTY;
    for (size_t i = first; i < run->count; i++) {
        struct slice *slice = &slices[run->region][run->first + i];
        if (!slice->dirty && !slice->written) continue;
        if (os_renew(slice_start(run->region, run->first + i), SLICE_BYTES, "") != 0) return RUN_DIRTY;
        slice->locked = false; /* a fresh mapping */
        slice->written = false;
    }
    return RUN_CLEAN;
}

/* Slices first .. end - 1 of a run are free now; those before `marked` are in the state. */
static void model_release(struct run *run, size_t first, size_t marked, enum run_state state) {
    for (size_t i = first; i < run->count; i++) {
        struct slice *slice = &slices[run->region][run->first + i];
        slice->run = 0;
        if (i < marked) slice->dirty = state == RUN_DIRTY;
    }
    run->count = first;
}

static void release(struct input *input, unsigned how) {
    struct run *run = run_chosen(input);
    if (run == NULL) return;
    struct span *head = run->head;
    size_t count = run->count, touched = 0;
    if (how % 3 == 2) { /* only the front was used */
        for (size_t i = 0; i < count; i++)
            if (slices[run->region][run->first + i].written) touched = i + 1;
        run->head = NULL;
        model_release(run, 0, touched, RUN_DIRTY);
        run_release_front(head, count, touched);
    } else {
        enum run_state state = state_wanted(run, 0, how % 3 == 1);
        run->head = NULL;
        model_release(run, 0, count, state);
        run_release(head, count, state);
    }
}

static void extend(struct input *input, unsigned how) {
    struct run *run = run_chosen(input);
    if (run == NULL) return;
    size_t end = run->first + run->count, more = input_byte(input);
    more = how % 4 == 3 ? (size_t)1 << more % 47 : 1 + more % 64; /* no size of a block is more than 2^47 slices */
    bool room = model_is_free(run->region, end, more);
    bool done = run_extend(run->head, run->count, more);
    tops_follow();
    if (!done) {
        must_be(!room, "a run does not grow into free slices");
        return;
    }
    model_take(run, end, more);
    run->count += more;
}

static void shorten(struct input *input, unsigned how) {
    struct run *run = run_chosen(input);
    if (run == NULL || run->count < 2) return;
    size_t keep = 1 + input_byte(input) % (run->count - 1), count = run->count;
    enum run_state state = state_wanted(run, keep, how % 2 == 1);
    model_release(run, keep, count, state);
    run_shorten(run->head, count, keep, state);
}

/* --- giving back ----------------------------------------------------------------------------------------------------------- */

static struct input *between; /* what happens while slices are being purged; NULL: nothing */

/* A run that is taken or given back while others are on their way to the system: no lock is held. */
static void on_call(enum fake_call call, void *at, size_t bytes) {
    struct input *input = between;
    if (call != FAKE_PURGE || input == NULL || fake_locks_held() != 0) return;
    struct region *region = region_of(at);
    if (region == NULL) return; /* descriptors */
    between = NULL;
    size_t first = ((uintptr_t)at - region->base) / SLICE_BYTES;
    unsigned how = input_byte(input);
    if ((how & 1) == 0) {
        release(input, how >> 1);
    } else {
        struct run *run = run_unused();
        struct span *head = run != NULL ? run_take(1 + how / 2 % 8, 1) : NULL;
        if (head != NULL) {
            struct region *other = region_of_span(head);
            size_t slice = region_slice(other, head), count = 1 + how / 2 % 8;
            bool apart = other != region || slice >= first + bytes / SLICE_BYTES || slice + count <= first;
            must_be(apart, "a slice was handed out while it was purged");
            tops_follow();
            *run = (struct run){head, number_of(other), slice, count};
            for (size_t i = 0; i < count; i++) slices[run->region][slice + i].run = (uint8_t)(run - runs + 1);
            /* Which of them are dirty is known to the allocator only, until the purge has ended. */
            for (size_t i = 0; i < count; i++) slices[run->region][slice + i].dirty = run_slice_is_dirty(head, i);
        }
    }
    between = input;
}

static void purge(struct input *input, size_t limit_bytes, bool mixed) {
    size_t dirty = model_dirty_bytes();
    bool locked = false;
    for (unsigned number = 0; number < REGIONS; number++)
        for (size_t i = 0; i < tops[number]; i++)
            locked = locked || (slices[number][i].locked && slices[number][i].run == 0);
    between = mixed ? input : NULL;
    struct run_purge purge = {.limit_bytes = limit_bytes};
    while (run_purge_step(&purge)) {}
    between = NULL;
    size_t purged = compare(true);
    must(purge.returned_bytes <= purge.purged_bytes + purge.kept_bytes); /* a call that fails has done a part */
    if (mixed) return; /* what was given back or taken meanwhile may have changed once more */
    must(purged == purge.purged_bytes);
    must(purge.purged_bytes <= limit_bytes || purge.purged_bytes - limit_bytes < SLICE_BYTES);
    must(purge.purged_bytes + purge.kept_bytes <= dirty);
    /* A part of a slice is not purged, so up to that much less. */
    if (nothing_failed() && !locked) must(purge.purged_bytes + SLICE_BYTES > size_min(dirty, limit_bytes));
    if (limit_bytes == SIZE_MAX) must(purge.purged_bytes + purge.kept_bytes == dirty);
}

static void lock(struct input *input) {
    unsigned number = input_byte(input) % REGIONS;
    if (tops[number] == 0) number = 0;
    if (tops[number] == 0) return;
    size_t i = input_half(input) % tops[number];
    struct slice *slice = &slices[number][i];
    slice->locked = !slice->locked;
    fake_lock_pages(slice_start(number, i), SLICE_BYTES, slice->locked);
}

static void trim(struct input *input) {
    os_lock_take(&run_lock);
    region_trim((size_t)input_byte(input) * MIB);
    os_lock_drop(&run_lock);
}

/* An operation was left by a jump, and had made nonsense of the bins. */
static void repair(struct input *input) {
    os_lock_take(&run_lock);
    size_t chunks = region_top(&region_main) / CHUNK_BYTES;
    if (chunks > 0) {
        region_main.bins.words[input_byte(input) % BIN_COUNT] ^= 1;
        region_main.bins.occupied ^= (uint64_t)1 << input_byte(input) % 64;
    }
    run_repair();
    must(fake_locks_held() == 0);
}

static void look(struct input *input) {
    struct run *run = run_chosen(input);
    struct run_flow flow = run_flow(true);
    must(run_flow(false).dirty_low_bytes == flow.dirty_bytes);
    unsigned number = input_byte(input) % REGIONS;
    if (tops[number] > 0) {
        size_t i = input_half(input) % tops[number];
        const struct slice *slice = &slices[number][i];
        must(run_was_used(&region_number(number)->spans[i]) == (slice->run == 0 && slice->dirty));
        must(region_of(slice_start(number, i)) == region_number(number));
    }
    run_set_growth_mark(flow.clean_taken_bytes + input_byte(input) * SLICE_BYTES);
    if (run != NULL) must(region_of_span(run->head) == region_number(run->region));
}

static void fail_some(struct input *input) {
    unsigned which = input_byte(input), nth = which >> 4;
    static const int errors[] = {ENOMEM, EINVAL, EAGAIN, EPERM};
    fake_fail((enum fake_call)(which % (FAKE_MOVE + 1)), 1 + nth % 4, 1 + nth / 4, errors[which / 8 % 4]);
}

void fuzz_one(const uint8_t *data, size_t size) {
    struct input input = {data, data + size};
    memset(slices, 0, sizeof slices);
    memset(tops, 0, sizeof tops);
    memset(runs, 0, sizeof runs);
    failed_before = 0;
    between = NULL;
    fake.on_call = on_call;
    fake.page_bytes = (size_t[]){4 * KIB, 4 * KIB, 16 * KIB, 64 * KIB}[input_byte(&input) % 4];
    fake.reserve_offset_bytes = input_byte(&input) % 32 * CHUNK_BYTES;
    fake.reserve_max_bytes = (64 + input_byte(&input) % 32u) * MIB;
    unsigned budget = input_byte(&input);
    if (budget % 4 == 1) fake.budget_bytes = (size_t)budget * MIB;
    os_init();
    if (!region_init((size_t)(4 + 2 * (input_byte(&input) % 32)) * MIB)) return;

    for (unsigned step = 0; input_left(&input) && step < 400; step++) {
        unsigned what = input_byte(&input), how = what >> 4;
        bool may_purge = false;
        failed_before = fake.failed;
        switch (what & 15) {
        case 0:
        case 1: take(1 + how, 1, false); break;
        case 2: take(1 + input_byte(&input), (size_t)1 << how % 6, false); break;
        case 3: take(1 + input_half(&input) % 700, (size_t)1 << how % 10, false); break;
        case 4: take(1 + input_byte(&input) % 100u, 1, true); break;
        case 5:
        case 6:
        case 7:
            release(&input, how);
            may_purge = true;
            break;
        case 8: extend(&input, how); break;
        case 9:
            shorten(&input, how);
            may_purge = true;
            break;
        case 10: {
            struct run *run = run_chosen(&input);
            for (size_t i = 0; run != NULL && i < size_min(run->count, 1 + how); i++) write_slice(run, i);
            break;
        }
        case 11: purge(&input, how < 8 ? SIZE_MAX : (size_t)input_byte(&input) * SLICE_BYTES / 2, how % 8 >= 5); break;
        case 12: lock(&input); break;
        case 13:
            if (how == 0)
                run_keep_at_most(SIZE_MAX);
            else if (how < 4)
                run_keep_at_most((size_t)input_byte(&input) * 32 * KIB);
            else if (how == 4)
                trim(&input);
            else if (how == 5)
                repair(&input);
            else if (how == 6)
                run_forked();
            else
                look(&input);
            break;
        case 14:
            if (how < 8)
                fail_some(&input);
            else
                fake_heal();
            break;
        default: take(SIZE_MAX >> how * 3, (size_t)1 << input_byte(&input) % 60, false);
        }
        compare(may_purge);
    }

    /* All of it back: nothing is left that is neither free nor accounted for. */
    fake_heal();
    failed_before = fake.failed;
    for (struct run *run = runs; run < runs + RUNS; run++) {
        if (run->head == NULL) continue;
        struct span *head = run->head;
        size_t count = run->count;
        run->head = NULL;
        model_release(run, 0, count, RUN_DIRTY);
        run_release(head, count, RUN_DIRTY);
        compare(true);
    }
    purge(&input, SIZE_MAX, false);
}
