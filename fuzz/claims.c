/* claims.c - heaps of up to four threads, which take turns, beside a claimer that marks, sweeps and punches, flushes, forks, refused system calls,
 * locked pages and a virtual clock. After each step every structure is validated, every block has its contents, and the census counts
 * exactly the blocks that live. While a system call is under way with no lock held, another thread may have its turn. */
#include "heap/claim.h"

#include "actors.h"
#include "fuzz.h"
#include "heap/bell.h"
#include "heap/block.h"
#include "heap/census.h"
#include "heap/flush.h"
#include "heap/thread.h"
#include "heap/validate.h"
#include "heap/whole.h"
#include "os/options.h"
#include "span/meta.h"
#include "span/run.h"

#define ACTORS 3u /* thread 0 is the input's own; it also claims */
#define BLOCKS 64u
#define LIVE_MAX_BYTES (48 * MIB)
#define FORKS_MAX 2 /* real ones, of an input */

static struct actor actors[ACTORS];
static bool actor_lives[ACTORS];
static struct input *input;

static struct block_of_ours {
    char *at;  /* NULL: none */
    bool held; /* an operation on it is under way */
    size_t size, usable;
    uint64_t seed;
    uint8_t kind;
} blocks[BLOCKS];
/* Blocks of one size that one thread takes, and another gives back all at once. */
#define POOL 48u
static struct {
    char *at[POOL];
    size_t count, size, usable;
    uint8_t kind;
} pool;
static size_t live_bytes;
static uint64_t seeds;
static unsigned forks;
static bool deferred;        /* a handler has freed a large block: it may wait for the next operation */
static bool unburied;        /* a thread has ended without a word, and nobody has noticed yet */
static bool lost;            /* some thread's heap was given up */
static bool refused;         /* a script or a budget may refuse calls */
static size_t failed_before; /* fake.failed as the step began */

/* --- what must hold ---------------------------------------------------------------------------------------------------- */

static void contents_must_hold(const struct block_of_ours *block) {
    must_be(fuzz_holds(block->at, block->size, block->seed), "a block of %zu bytes has lost its contents", block->size);
}

static void blocks_must_be_apart(const struct block_of_ours *block) {
    for (const struct block_of_ours *other = blocks; other < blocks + BLOCKS; other++) {
        if (other == block || other->at == NULL || other->held)
            continue; /* one that is shrunk now has given up its end */
        bool apart = block->at + block->usable <= other->at || other->at + other->usable <= block->at;
        must_be(apart, "blocks of %zu and %zu bytes overlap", block->size, other->size);
    }
}

static void census_must_count(void) {
    struct census census;
    size_t bytes[TIER_COUNT] = {0};
    for (const struct block_of_ours *block = blocks; block < blocks + BLOCKS; block++) {
        if (block->at == NULL) continue;
        if (block->kind == SPAN_TINY) bytes[TIER_TINY_INDEX] += block->usable;
        if (block->kind == SPAN_MID) bytes[TIER_MID_INDEX] += block->usable;
        if (block->kind == SPAN_LARGE) bytes[TIER_LARGE_INDEX] += block->usable;
    }
    if (pool.count > 0) bytes[pool.kind == SPAN_TINY ? TIER_TINY_INDEX : TIER_MID_INDEX] += pool.count * pool.usable;
    census_take(&census);
    for (unsigned tier = 0; tier < TIER_COUNT; tier++) {
        size_t more = census.live_bytes[tier] - bytes[tier];
        bool may_wait = tier == TIER_LARGE_INDEX && deferred && census.live_bytes[tier] > bytes[tier];
        must_be(more == 0 || may_wait, "tier %u: %zu live bytes, not %zu", tier, census.live_bytes[tier], bytes[tier]);
    }
    must(census.runs.dirty_bytes == run_flow(false).dirty_bytes);
}

static void all_must_be_valid(void) {
    const char *broken = region_main.base != 0 && !unburied ? heap_validate_all() : run_validate();
    must_be(broken == NULL, "%s", broken);
}

/* What is free and clean reads as zero because it was never touched since it went back. */
static void clean_must_be_untouched(void) {
    for (const struct region *region = &region_main; region != NULL; region = region->next)
        for (size_t i = 0; i < region_top(region) / SLICE_BYTES; i++) {
            const struct chunk *chunk = &region->chunks[i / CHUNK_SLICES];
            if (((chunk->free & ~chunk->dirty) >> i % CHUNK_SLICES & 1) == 0) continue;
            size_t bytes = fake_resident_bytes((char *)region->base + i * SLICE_BYTES, SLICE_BYTES);
            must_be(bytes == 0, "slice %zu is free and clean, and %zu bytes of it are resident", i, bytes);
        }
}

static void all_must_hold(void) {
    must(fake_locks_held() == 0);
    all_must_be_valid();
    if (region_main.base == 0) return;
    census_must_count();
    must(fake_locks_held() == 0);
}

/* --- blocks ---------------------------------------------------------------------------------------------------------------- */

static size_t size_take(void) {
    unsigned how = input_byte(input);
    size_t value = input_half(input);
    switch (how & 7) {
    case 0:
    case 1: return value % 1025;
    case 2: return value % 4200;
    case 3: return value % 33000;
    case 4: return ((size_t)1 << value % 21) + (value >> 5) % 5 - 2; /* around the powers of two */
    case 5: return value * 16;
    case 6: return value % 64 * SLICE_BYTES + (value >> 6) % 3 * 100;
    default: return how < 240 ? value : SIZE_MAX >> (how & 8 ? value % 24 : 0); /* more than there is */
    }
}

/* What a thread is to do: set by who gives it the turn, read as the job begins. */
static struct {
    unsigned what, how;
    struct block_of_ours *block;
    size_t size;
} turn;

static void block_made(struct block_of_ours *block, void *at, size_t size, size_t alignment) {
    if (at == NULL) {
        bool too_much = size > LIVE_MAX_BYTES || alignment > LIVE_MAX_BYTES;
        must_be(too_much || fake.failed != failed_before || refused || fake.on_signal_stack, "no memory for %zu bytes",
                size);
        return;
    }
    if (size > LIVE_MAX_BYTES) { /* may be had, but not filled */
        heap_free(at);
        return;
    }
    struct block_info info = block_describe("fuzz", at);
    must(info.usable_bytes >= size);
    must((uintptr_t)at % alignment == 0);
    *block = (struct block_of_ours){at, block->held, size, info.usable_bytes, ++seeds, info.kind};
    live_bytes += block->usable;
    blocks_must_be_apart(block);
    fuzz_fill(at, size, block->seed);
}

static void take(struct block_of_ours *block, unsigned how, size_t size) {
    size_t alignment = how % 4 == 3 ? (size_t)1 << (how >> 2) % 22 : 16;
    if (size <= LIVE_MAX_BYTES && live_bytes + size + alignment > LIVE_MAX_BYTES) size %= 1024;
    void *at;
    if (how % 4 == 2) {
        at = heap_calloc(size);
        if (at != NULL) must_be(fuzz_is_zero(at, size_min(size, 256 * KIB)), "calloc of %zu bytes is not zero", size);
        alignment = 16;
    } else {
        at = alignment > 16 ? heap_malloc_aligned(alignment, size) : heap_malloc(size);
    }
    block_made(block, at, size, size_max(alignment, 16));
}

static void give(struct block_of_ours *block) {
    contents_must_hold(block);
    must(block_describe("fuzz", block->at).usable_bytes == block->usable);
    live_bytes -= block->usable;
    void *at = block->at;
    block->at = NULL;
    heap_free(at);
}

static void resize(struct block_of_ours *block, size_t size) {
    contents_must_hold(block);
    if (size == 0) size = 1;
    if (size <= LIVE_MAX_BYTES && live_bytes + size > LIVE_MAX_BYTES) size %= 4096;
    struct block_of_ours before = *block;
    void *at = heap_realloc(before.at, size);
    if (at == NULL) {
        must(size > before.usable);
        block_made(block, NULL, size, 16);
        contents_must_hold(block);
        return;
    }
    live_bytes -= before.usable;
    block->at = NULL;
    must_be(fuzz_holds(at, size_min(size, before.size), before.seed), "realloc from %zu to %zu bytes lost contents",
            before.size, size);
    block_made(block, at, size, 16);
}

/* malloc, free or realloc, by whoever has the turn. */
static void job_work(void) {
    struct block_of_ours *block = turn.block;
    unsigned how = turn.how;
    size_t size = turn.size;
    if (block->held) return;
    block->held = true;
    if (block->at == NULL)
        take(block, how, size);
    else if (how % 3 == 0)
        resize(block, size);
    else
        give(block);
    block->held = false;
}

/* Enough blocks of one size for some spans, of which a few stay: what punching is for. */
#define CROWD 400u
static unsigned crowds; /* under way: their blocks are known to nobody else */
static void job_crowd(void) {
    unsigned how = turn.how;
    size_t size = turn.size % 4000 + 1, count = size_max(size_min(CROWD, 400 * KIB / size), 1);
    struct block_of_ours *block = turn.block;
    void *crowd[CROWD];
    size_t kept = how % count;
    if (block->held) return;
    block->held = true;
    crowds++;
    for (size_t i = 0; i < count; i++) crowd[i] = heap_malloc(size);
    for (size_t i = 0; i < count; i++)
        if (i != kept || block->at != NULL) heap_free(crowd[i]);
    if (block->at == NULL) block_made(block, crowd[kept], size, 16);
    crowds--;
    block->held = false;
}

static void job_pool(void) {
    if (pool.count > 0) {
        while (pool.count > 0) {
            char *at = pool.at[--pool.count];
            must(fuzz_holds(at, pool.size, 1000 + pool.count));
            heap_free(at);
        }
        return;
    }
    pool.size = turn.size % 2000;
    for (size_t i = 0; i < POOL; i++) {
        char *at = heap_malloc(pool.size);
        if (at == NULL) break;
        struct block_info info = block_describe("fuzz", at);
        bool alike = (i == 0 || (info.usable_bytes == pool.usable && info.kind == pool.kind)) &&
                     (info.kind == SPAN_TINY || info.kind == SPAN_MID);
        if (!alike) { /* borrowed from another class, or an emergency block */
            heap_free(at);
            break;
        }
        pool.usable = info.usable_bytes;
        pool.kind = info.kind;
        fuzz_fill(at, pool.size, 1000 + i);
        pool.at[i] = at;
        pool.count = i + 1;
    }
}

/* A signal handler that interrupts an operation of its thread: malloc or free. */
static void handler(void) {
    struct block_of_ours *block = turn.block;
    unsigned how = turn.how;
    if (block->held) return;
    bool before = fake.on_signal_stack, large = block->at != NULL && block->kind == SPAN_LARGE;
    fake.on_signal_stack = block->held = true;
    if (block->at == NULL)
        take(block, how, turn.size);
    else
        give(block);
    deferred = deferred || large;
    fake.on_signal_stack = before;
    block->held = false;
}

static void job_inside(void) {
    heap_enter();
    handler();
    heap_leave();
}

static void job_pause_inside(void) {
    heap_enter();
    actor_pause();
    heap_leave();
}

/* A handler has jumped out of a slow operation: the next one finds out, and gives the heap up. */
static void job_jump(void) {
    if (heap_record.self == NULL) return;
    heap_enter();
    heap_record.slow = true;
    atomic_store(&heap_record.busy, (uintptr_t)16);
    lost = true;
    heap_free(heap_malloc(40));
}

static void job_flush(void) {
    struct flush_result result;
    unsigned parts = 1 + turn.how % FLUSH_ALL;
    size_t returned = flush_now(parts, &result);
    must(returned == result.returned_bytes);
    if (region_main.base == 0) return;
    must(result.returned_bytes % os_page_bytes == 0 && result.kept_bytes % os_page_bytes == 0);
    must(result.pinned_bytes % os_page_bytes == 0 && result.missed_bytes % os_page_bytes == 0);
}

static void job_fork_unseen(void) { /* the parent's side alone, or what a failing fork leaves */
    heap_fork_prepare();
    heap_fork_parent();
}

static void sweep(unsigned how) {
    struct claim_sweep sweep = {.tiers = how & 3, .until_bell = (how & 4) != 0};
    sweep.punch_before_ns = (how & 8) != 0 ? UINT64_MAX : (how & 16) != 0 ? fake.now_ns : 0;
    claim_sweep(&sweep);
    must(sweep.returned_bytes % os_page_bytes == 0);
}

static void heal(void) {
    fake_heal();
    fake.budget_bytes = SIZE_MAX;
    refused = false;
}

static bool some_heap_is_lost(void) {
    for (struct heap *heap = heap_all; heap != NULL; heap = heap->next_heap)
        if (heap->state == HEAP_LOST) return true;
    return false;
}

/* All blocks were freed, and all heaps swept: no span is kept, but those of heaps that were given up. */
static void no_span_must_be_left(void) {
    struct census census;
    census_take(&census);
    if (some_heap_is_lost()) return;
    must(census.empty_bytes[TIER_TINY_INDEX] + census.empty_bytes[TIER_MID_INDEX] == 0);
}

/* Some thread is in the middle of a realloc, or of a crowd: which blocks there are, nobody knows here. */
static bool some_change(void) {
    if (crowds > 0) return true;
    for (const struct block_of_ours *block = blocks; block < blocks + BLOCKS; block++)
        if (block->at != NULL && block->held) return true;
    return false;
}

static bool is_queued(const struct span *wanted) {
    struct heap *heap = wanted->heap;
    for (const struct span *span = heap->undrained; span != NULL; span = span->remote_next)
        if (span == wanted) return true;
    for (const struct span *span = atomic_load(&heap->remote); span != NULL; span = span->remote_next)
        if (span == wanted) return true;
    return false;
}

/* There is no claimer: the spans that one had in hand are where their heap finds them. */
static void no_span_must_be_in_hand(void) {
    for (const struct region *region = &region_main; region != NULL; region = region->next)
        for (size_t i = 0; i < region_top(region) / SLICE_BYTES; i++) {
            const struct span *span = &region->spans[i];
            if ((span->kind != SPAN_TINY && span->kind != SPAN_MID) || span->heap->state == HEAP_LOST) continue;
            must((span->flags & SPAN_IN_HAND) == 0 || is_queued(span));
        }
}

/* In a forked child there is this thread only, and all blocks. */
static unsigned between; /* see below */
static void child_checks(void) {
    must(fake_locks_held() == 0);
    if (region_main.base == 0) fuzz_child_end();
    no_span_must_be_in_hand();
    between = 0;
    heal();
    failed_before = fake.failed;
    for (struct block_of_ours *block = blocks; block < blocks + BLOCKS; block++)
        if (block->at != NULL && !block->held) give(block);
    if (pool.count > 0) job_pool();
    must(claim_begin());
    claim_mark(fake.now_ns);
    claim_mark_self(fake.now_ns);
    sweep(3 + 8);
    heap_step_back();
    claim_end();
    all_must_be_valid();
    if (!some_change()) census_must_count();
    no_span_must_be_left();
    fuzz_child_end();
}

static void job_fork(void) {
    if (forks++ >= FORKS_MAX) return;
    pid_t child = fuzz_fork();
    if (child == 0) child_checks();
    fuzz_child_must_end_well(child);
}

/* --- turns ------------------------------------------------------------------------------------------------------------------- */

static bool may_run(unsigned who) { return actor_lives[who] && actors[who].job == NULL; }

static void run_as(unsigned who, void (*job)(void)) {
    if (who == 0)
        job();
    else if (may_run(who - 1))
        actor_run(&actors[who - 1], job);
}

static void actor_begins(unsigned who) {
    actor_start(&actors[who], who + 2);
    actor_lives[who] = true;
}

static void actor_ends(unsigned who) {
    if (actors[who].paused) actor_resume(&actors[who]);
    actor_end(&actors[who]);
    actor_lives[who] = false;
}

/* As by a raw exit: no destructor knows the heap, and its mutex dies with the thread. */
static void job_forget(void) { heap_record.self = NULL; }

static void turn_take(void) {
    turn.how = input_byte(input);
    turn.block = &blocks[input_byte(input) % BLOCKS];
    turn.size = size_take();
}

/* While a thread is in a system call something happens: in another thread, if nobody's lock is in its way, or in a handler of its own. */
/* `between`: calls until then; 0: never. */
static void another_comes_between(unsigned what, unsigned who) {
    unsigned locks = fake_locks_held();
    if (locks > 1 || (locks == 1 && !os_lock_is_mine(&claim_lock)) || refused) return;
    if (what % 16 == 15 && may_run(who)) {
        actor_ends(who);
    } else if (!actor_lives[who]) {
        actor_begins(who);
    } else if (actors[who].paused) {
        actor_resume(&actors[who]);
    } else {
        void (*jobs[])(void) = {job_work, job_work, job_crowd, job_inside, job_pause_inside, job_fork, job_fork_unseen};
        run_as(who + 1, jobs[what % (sizeof jobs / sizeof *jobs)]);
    }
}

static void come_between(void) {
    if (between == 0 || --between != 0) return;
    unsigned what = input_byte(input), who = what >> 4 & 3;
    turn_take();
    turn.size %= MIB; /* who finds no memory would wait for the claimer */
    if (who != 0)
        another_comes_between(what, who - 1);
    else if (heap_is_busy() && fake.signals_blocked == 0)
        handler();
}

static void on_call(enum fake_call call, void *at, size_t bytes) {
    (void)call;
    (void)at;
    (void)bytes;
    come_between();
}

static void on_resident(const void *at, size_t bytes) {
    (void)at;
    (void)bytes;
    come_between();
}

/* --- the claimer, and the world -------------------------------------------------------------------------------------------- */

static void claim(unsigned how) {
    if (region_main.base == 0 || !claim_begin()) return;
    if ((how & 32) != 0) atomic_store(&heap_bell, BELL_ASKED);
    if ((how & 64) == 0) {
        struct claim_survey survey = claim_mark(fake.now_ns);
        unburied = false;
        must(survey.woken <= survey.marked);
        must(survey.marked == 0 || survey.possible || refused);
    }
    if ((how & 128) == 0) sweep(how);
    heap_step_back();
    claim_end();
}

/* As tide_tick: the claimer has a heap of its own, which it marks as well. */
static void claim_as_worker(unsigned how) {
    if (region_main.base == 0) return;
    heap_enter();
    heap_record.slow = true;
    heap_step_aside();
    if (claim_begin()) {
        claim_mark(fake.now_ns);
        claim_mark_self(fake.now_ns);
        sweep(how);
        heap_step_back();
        claim_end();
    }
    heap_step_back();
    heap_quit();
}

static void purge(size_t limit_bytes) {
    struct run_purge purge = {.limit_bytes = limit_bytes};
    while (run_purge_step(&purge)) {}
}

static void lock_pages(void) {
    size_t top = region_top(&region_main), where = input_half(input);
    if (top == 0) return;
    size_t offset = size_round_down(where * 16 * KIB % top, os_page_bytes);
    fake_lock_pages((void *)(region_main.base + offset), size_max(16 * KIB, os_page_bytes), (where & 1) != 0);
}

static void refuse(unsigned how) {
    static const int errors[] = {ENOMEM, EINVAL, EPERM, EAGAIN};
    if (how % 4 == 3) {
        fake.budget_bytes = fake.charged_bytes + input_byte(input) * 64 * KIB;
    } else {
        fake_fail((enum fake_call)(input_byte(input) % (FAKE_ANY + 1)), 1 + how / 16, 1 + how % 4 * 3,
                  errors[how / 4 % 4]);
    }
    refused = true;
}

/* The input's thread goes on as the only one of a forked child; the others were never more than paper here. */
static void become_the_child(void) {
    if (region_main.base == 0) return;
    heap_fork_prepare();
    for (unsigned who = 0; who < ACTORS; who++)
        if (actor_lives[who] && actors[who].paused) lost = true; /* it was inside an operation */
    heap_fork_child();
    for (unsigned who = 0; who < ACTORS; who++) {
        if (!actor_lives[who]) continue;
        if (actors[who].paused) actor_resume(&actors[who]);
        actor_run(&actors[who], job_forget);
        actor_ends(who);
    }
}

static void step(void) {
    unsigned what = input_byte(input), who = what >> 6;
    turn_take();
    failed_before = fake.failed;
    if (who != 0 && actor_lives[who - 1] && actors[who - 1].paused && what % 2 == 0) {
        actor_resume(&actors[who - 1]);
        return;
    }
    if (who != 0 && !actor_lives[who - 1]) actor_begins(who - 1);
    switch (what & 31) {
    default: run_as(who, job_work); break;
    case 10:
    case 11: run_as(who, job_pool); break;
    case 12:
    case 13: run_as(who, job_crowd); break;
    case 14: run_as(who, job_inside); break;
    case 15: run_as(who, job_flush); break;
    case 16: run_as(who != 0 ? who : 1, job_pause_inside); break;
    case 17:
        if (turn.how < 64) run_as(who, job_jump);
        break;
    case 18:
        if (turn.how < 32 && who != 0 && may_run(who - 1) && actors[who - 1].paused == false) {
            run_as(who, job_forget);
            actor_ends(who - 1);
            unburied = true;
        }
        break;
    case 19:
        if (who != 0 && may_run(who - 1)) actor_ends(who - 1);
        break;
    case 20: run_as(who, job_fork_unseen); break;
    case 21: run_as(who, job_fork); break;
    case 22:
        if (turn.how < 32) become_the_child();
        break;
    case 23:
    case 24:
    case 25: claim(turn.how); break;
    case 26: claim_as_worker(turn.how); break;
    case 27: purge(turn.how < 128 ? SIZE_MAX : turn.size); break;
    case 28: fake.now_ns += (uint64_t)turn.how * 1000000; break;
    case 29: lock_pages(); break;
    case 30:
        if (turn.how < 128)
            refuse(turn.how);
        else
            heal();
        break;
    case 31: between = 1 + turn.how % 8; break;
    }
}

/* --- the end ------------------------------------------------------------------------------------------------------------------- */

static void end(void) {
    between = 0;
    heal();
    for (unsigned who = 0; who < ACTORS; who++)
        if (actor_lives[who] && actors[who].paused) actor_resume(&actors[who]);
    if (pool.count > 0) job_pool();
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (blocks[i].at == NULL) continue;
        turn.how = 1;
        turn.block = &blocks[i];
        run_as(i % (ACTORS + 1), job_work);
        if (blocks[i].at != NULL) give(&blocks[i]);
    }
    for (unsigned who = 0; who < ACTORS; who++)
        if (actor_lives[who]) actor_ends(who);
    if (region_main.base == 0) return;
    heap_free(heap_malloc(1)); /* settles what handlers have freed */
    deferred = false;
    fake_lock_pages((void *)region_main.base, region_top(&region_main), false);
    struct flush_result result;
    flush_now(FLUSH_ALL, &result);
    unburied = false;
    all_must_hold();
    clean_must_be_untouched();
    struct census census;
    census_take(&census);
    must(census.bound_count <= 1);
    if (lost || some_heap_is_lost()) return; /* spans of a heap that is given up stay */
    no_span_must_be_left();
    must_be(census.runs.dirty_bytes == 0 && result.kept_bytes == 0, "%zu bytes stay dirty", census.runs.dirty_bytes);
    must(result.pinned_bytes == 0 && result.missed_bytes == 0);
}

void fuzz_one(const uint8_t *data, size_t size) {
    struct input bytes = {data, data + size};
    input = &bytes;
    memset(blocks, 0, sizeof blocks);
    memset(actors, 0, sizeof actors);
    memset(actor_lives, 0, sizeof actor_lives);
    live_bytes = 0;
    seeds = 0;
    forks = 0;
    crowds = 0;
    between = 0;
    deferred = lost = refused = unburied = false;
    pool.count = 0;
    unsigned first = input_byte(input);
    fake.page_bytes = (size_t[]){4 * KIB, 4 * KIB, 16 * KIB, 64 * KIB}[first % 4];
    options.reserve_bytes = (size_t[]){16 * MIB, 64 * MIB, GIB, GIB}[first / 4 % 4];
    options.mode = (first & 16) != 0 ? MODE_HYBRID : MODE_STATIC; /* the first keeps small programs small */
    fake.reserve_max_bytes = 2 * GIB;
    fake.on_call = on_call;
    fake.on_resident = on_resident;
    for (unsigned i = 0; i < 150 && input_left(input); i++) {
        step();
        all_must_hold();
        if (i % 4 == 0) clean_must_be_untouched();
    }
    end();
    for (unsigned who = 0; who < ACTORS; who++) must(!actor_lives[who]);
}
