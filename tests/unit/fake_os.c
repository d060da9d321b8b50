#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "fake_os.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "heap/bell.h"
#include "os/rank.h"
#include "unit.h"

#define REAL_PAGE ((size_t)4096)

struct fake fake = {
    .page_bytes = 4 * KIB,
    .reserve_max_bytes = SIZE_MAX,
    .budget_bytes = SIZE_MAX,
    .address_space_limit = SIZE_MAX,
    .now_ns = 1000000000,
};
size_t os_page_bytes;

void os_init(void) { os_page_bytes = fake.page_bytes; }

/* --- scripts ------------------------------------------------------------------------------------------------------- */

static struct {
    enum fake_call call;
    size_t first, end; /* numbers of calls, as fake.count counts them */
    int error;
} script;

void fake_fail(enum fake_call call, size_t nth, size_t count, int error) {
    script.call = call;
    script.first = fake.count[call] + nth;
    script.end = count > SIZE_MAX - script.first ? SIZE_MAX : script.first + count;
    script.error = error;
}

void fake_heal(void) { script.end = script.first = 0; }

/* Count a call. 0, or the -errno it must fail with. */
static int call_begin(enum fake_call call, void *at, size_t bytes) {
    fake.count[call]++;
    fake.count[FAKE_ANY]++;
    if (fake.on_call != NULL) fake.on_call(call, at, bytes);
    if (script.call != call && script.call != FAKE_ANY) return 0;
    size_t number = fake.count[script.call];
    if (number < script.first || number >= script.end) return 0;
    fake.failed++;
    return -script.error;
}

/* --- the model of the address space --------------------------------------------------------------------------------- */

enum area_state { AREA_RESERVED, AREA_COMMITTED, AREA_GONE };

static struct area {
    uintptr_t start, end;
    enum area_state state;
    bool locked;
    intptr_t shift;   /* how far the pages have moved */
    unsigned reserve; /* number of the reserve it was cut from */
} areas[4096];        /* by address */
static size_t area_count;
static unsigned reserve_count;

static size_t area_at(uintptr_t address) {
    size_t i = 0;
    while (i < area_count && areas[i].end <= address) i++;
    return i;
}

static void area_split(uintptr_t address) {
    size_t i = area_at(address);
    if (i == area_count || areas[i].start >= address) return;
    if (area_count == sizeof areas / sizeof *areas) fail_msg("more mappings than the fake can hold");
    memmove(&areas[i + 1], &areas[i], (area_count - i) * sizeof *areas);
    area_count++;
    areas[i].end = areas[i + 1].start = address;
}

static bool areas_alike(const struct area *a, const struct area *b) {
    return a->end == b->start && a->state == b->state && a->locked == b->locked && a->shift == b->shift &&
           a->reserve == b->reserve;
}

static void areas_merge(void) {
    size_t kept = 0;
    for (size_t i = 1; i < area_count; i++) {
        if (areas_alike(&areas[kept], &areas[i]))
            areas[kept].end = areas[i].end;
        else
            areas[++kept] = areas[i];
    }
    area_count = area_count == 0 ? 0 : kept + 1;
}

static void area_add(uintptr_t start, size_t bytes, enum area_state state) {
    size_t i = area_at(start);
    if (area_count == sizeof areas / sizeof *areas) fail_msg("more mappings than the fake can hold");
    memmove(&areas[i + 1], &areas[i], (area_count - i) * sizeof *areas);
    area_count++;
    areas[i] = (struct area){.start = start, .end = start + bytes, .state = state, .reserve = ++reserve_count};
}

/* Whether all of a range is in areas of a state. */
static bool range_has_state(uintptr_t start, size_t bytes, enum area_state state) {
    for (uintptr_t at = start; at < start + bytes;) {
        size_t i = area_at(at);
        if (i == area_count || areas[i].start > at || areas[i].state != state) return false;
        at = areas[i].end;
    }
    return true;
}

/* The areas of exactly this range: *first .. *end - 1. */
static void range_cut(uintptr_t start, size_t bytes, size_t *first, size_t *end) {
    area_split(start);
    area_split(start + bytes);
    *first = area_at(start);
    *end = area_at(start + bytes - 1) + 1;
}

static void must_be_pages(const char *function, const void *at, size_t bytes) {
    if (os_page_bytes == 0) fail_msg("%s before os_init", function);
    if ((uintptr_t)at % os_page_bytes != 0 || bytes % os_page_bytes != 0 || bytes == 0)
        fail_msg("%s(%p, %zu): not whole pages", function, at, bytes);
}

static void must_have_state(const char *function, const void *at, size_t bytes, enum area_state state) {
    must_be_pages(function, at, bytes);
    if (!range_has_state((uintptr_t)at, bytes, state))
        fail_msg("%s(%p, %zu): not all of it is in the right state", function, at, bytes);
}

static void must(bool done) {
    if (!done) fail_msg("the system under the fake refused: %s", strerror(errno));
}

static void real_drop(uintptr_t at, size_t bytes) {
    must(bytes == 0 || madvise((void *)at, bytes, MADV_DONTNEED) == 0);
}

bool fake_is_committed(const void *at, size_t bytes) { return range_has_state((uintptr_t)at, bytes, AREA_COMMITTED); }
bool fake_is_reserved(const void *at, size_t bytes) { return range_has_state((uintptr_t)at, bytes, AREA_RESERVED); }

size_t fake_mappings(void) {
    size_t count = 0;
    for (size_t i = 0; i < area_count; i++) count += areas[i].state != AREA_GONE;
    return count;
}

size_t fake_reserved_bytes(void) {
    size_t bytes = 0;
    for (size_t i = 0; i < area_count; i++)
        if (areas[i].state != AREA_GONE) bytes += areas[i].end - areas[i].start;
    return bytes;
}

/* A window of the real pages around an address, asked for at once. */
#define WINDOW_PAGES ((size_t)1024)
static struct {
    uintptr_t start, end;
    unsigned char resident[WINDOW_PAGES];
} window;

/* `end`: how far the window may reach. Made new by whoever begins a walk. */
static bool page_is_resident(uintptr_t at, uintptr_t end) {
    if (at < window.start || at >= window.end) {
        window.start = at;
        window.end = size_min(at + WINDOW_PAGES * REAL_PAGE, end);
        must(mincore((void *)at, window.end - at, window.resident) == 0);
    }
    return (window.resident[(at - window.start) / REAL_PAGE] & 1) != 0;
}

size_t fake_resident_bytes(const void *at, size_t bytes) {
    size_t count = 0;
    uintptr_t start = size_round_down((uintptr_t)at, os_page_bytes),
              end = size_round_up((uintptr_t)at + bytes, os_page_bytes);
    window.end = window.start = 0;
    for (uintptr_t page = start; page < end; page += os_page_bytes) {
        bool resident = false;
        for (size_t i = 0; i < os_page_bytes; i += REAL_PAGE) resident = page_is_resident(page + i, end) || resident;
        count += resident;
    }
    return count * os_page_bytes;
}

void fake_lock_pages(const void *at, size_t bytes, bool locked) {
    must_have_state("fake_lock_pages", at, bytes, AREA_COMMITTED);
    size_t first, end;
    range_cut((uintptr_t)at, bytes, &first, &end);
    for (size_t i = first; i < end; i++) areas[i].locked = locked;
    areas_merge();
}

size_t os_resident_bytes(const void *at, size_t bytes) {
    if (bytes == 0) return 0;
    must_be_pages("os_resident_bytes", at, bytes);
    if (fake.on_resident != NULL) fake.on_resident(at, bytes);
    return fake_resident_bytes(at, bytes);
}

/* --- os.h: memory --------------------------------------------------------------------------------------------------- */

static bool charge(size_t bytes) {
    if (bytes > fake.budget_bytes || fake.charged_bytes > fake.budget_bytes - bytes) {
        fake.failed++;
        return false;
    }
    fake.charged_bytes += bytes;
    return true;
}

/* An inaccessible page on either side keeps reserves apart. */
static uintptr_t real_reserve(size_t bytes, size_t alignment, size_t offset) {
    size_t whole = bytes + 2 * alignment + offset + 2 * os_page_bytes;
    char *start = mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED) return 0;
    madvise(start, whole, MADV_NOHUGEPAGE); /* or residency is not what was touched */
    return size_round_up((uintptr_t)start + os_page_bytes, alignment) + offset;
}

void *os_reserve(size_t bytes, size_t alignment) {
    if (!size_is_power(alignment) || alignment < os_page_bytes) fail_msg("os_reserve: an alignment of %zu", alignment);
    must_be_pages("os_reserve", NULL, bytes);
    if (call_begin(FAKE_RESERVE, NULL, bytes) != 0) return NULL;
    if (bytes > fake.reserve_max_bytes || bytes > TIB * 32) {
        fake.failed++;
        return NULL;
    }
    uintptr_t start =
        real_reserve(bytes, size_max(alignment, 64 * MIB), size_round_down(fake.reserve_offset_bytes, alignment));
    if (start == 0) return NULL;
    area_add(start, bytes, AREA_RESERVED);
    return (void *)start;
}

void *os_map(size_t bytes) {
    must_be_pages("os_map", NULL, bytes);
    if (call_begin(FAKE_MAP, NULL, bytes) != 0 || !charge(bytes)) return NULL;
    uintptr_t start = real_reserve(bytes, os_page_bytes, 0);
    must(start != 0 && mprotect((void *)start, bytes, PROT_READ | PROT_WRITE) == 0);
    area_add(start, bytes, AREA_COMMITTED);
    return (void *)start;
}

int os_commit(void *at, size_t bytes) {
    must_have_state("os_commit", at, bytes, AREA_RESERVED);
    int error = call_begin(FAKE_COMMIT, at, bytes);
    if (error != 0) return error;
    if (!charge(bytes)) return -ENOMEM;
    must(mprotect(at, bytes, PROT_READ | PROT_WRITE) == 0);
    size_t first, end;
    range_cut((uintptr_t)at, bytes, &first, &end);
    for (size_t i = first; i < end; i++) areas[i].state = AREA_COMMITTED;
    areas_merge();
    return 0;
}

void os_populate(void *at, size_t bytes) {
    must_have_state("os_populate", at, bytes, AREA_COMMITTED);
    for (size_t i = 0; i < bytes; i += REAL_PAGE) ((volatile char *)at)[i] = 0;
}

int os_purge(void *at, size_t bytes) {
    must_have_state("os_purge", at, bytes, AREA_COMMITTED);
    int error = call_begin(FAKE_PURGE, at, bytes);
    if (error != 0) { /* half-way */
        real_drop((uintptr_t)at, size_round_down(bytes / 2, os_page_bytes));
        return error;
    }
    for (uintptr_t from = (uintptr_t)at; from < (uintptr_t)at + bytes;) {
        const struct area *area = &areas[area_at(from)];
        if (area->locked) return -EINVAL;
        uintptr_t to = size_min(area->end, (uintptr_t)at + bytes);
        real_drop(from, to - from);
        from = to;
    }
    return 0;
}

/* Only one way of guarding: the other would need mappings of its own. */
int os_guard(void *at, size_t bytes) {
    must_have_state("os_guard", at, bytes, AREA_COMMITTED);
    int error = call_begin(FAKE_GUARD, at, bytes);
    if (error != 0) return error;
    real_drop((uintptr_t)at, bytes);
    must(mprotect(at, bytes, PROT_NONE) == 0);
    fake.guarded_bytes += bytes;
    return 0;
}

int os_unguard(void *at, size_t bytes) {
    must_have_state("os_unguard", at, bytes, AREA_COMMITTED);
    must(mprotect(at, bytes, PROT_READ | PROT_WRITE) == 0);
    fake.guarded_bytes -= bytes;
    return 0;
}

int os_protect(void *at, size_t bytes) {
    must_have_state("os_protect", at, bytes, AREA_COMMITTED);
    return -ENOMEM;
}

int os_renew(void *at, size_t bytes, const char *name) {
    (void)name;
    must_have_state("os_renew", at, bytes, AREA_COMMITTED);
    int error = call_begin(FAKE_RENEW, at, bytes);
    if (error != 0) return error;
    real_drop((uintptr_t)at, bytes);
    size_t first, end;
    range_cut((uintptr_t)at, bytes, &first, &end);
    for (size_t i = first; i < end; i++) {
        areas[i].shift = 0;
        areas[i].locked = false;
    }
    areas_merge();
    fake.huge_forbidden_bytes += bytes;
    return 0;
}

/* A range within one mapping only, as mremap. */
int os_move(void *from, void *to, size_t bytes, const char *name) {
    (void)name;
    must_have_state("os_move", from, bytes, AREA_COMMITTED);
    must_have_state("os_move", to, bytes, AREA_COMMITTED);
    if ((uintptr_t)from - (uintptr_t)to < bytes || (uintptr_t)to - (uintptr_t)from < bytes)
        fail_msg("os_move onto itself");
    int error = call_begin(FAKE_MOVE, from, bytes);
    real_drop((uintptr_t)to, bytes);
    if (error != 0) return error;
    const struct area *source = &areas[area_at((uintptr_t)from)];
    if ((uintptr_t)from + bytes > source->end) return -EFAULT;
    intptr_t shift = source->shift + (intptr_t)((uintptr_t)from - (uintptr_t)to);
    window.end = window.start = 0;
    for (size_t i = 0; i < bytes; i += REAL_PAGE)
        if (page_is_resident((uintptr_t)from + i, (uintptr_t)from + bytes))
            memcpy((char *)to + i, (char *)from + i, REAL_PAGE);
    real_drop((uintptr_t)from, bytes);
    size_t first, end;
    range_cut((uintptr_t)to, bytes, &first, &end);
    for (size_t i = first; i < end; i++) {
        areas[i].shift = shift;
        areas[i].locked = false;
    }
    areas_merge();
    return 0;
}

void os_release(void *at, size_t bytes) {
    must_be_pages("os_release", at, bytes);
    size_t first, end;
    range_cut((uintptr_t)at, bytes, &first, &end);
    uintptr_t reached = (uintptr_t)at;
    for (size_t i = first; i < end; i++) {
        if (areas[i].start != reached || areas[i].state == AREA_GONE)
            fail_msg("os_release(%p, %zu): nothing is there", at, bytes);
        if (areas[i].state == AREA_COMMITTED) fake.charged_bytes -= areas[i].end - areas[i].start;
        areas[i].state = AREA_GONE;
        reached = areas[i].end;
    }
    if (reached != (uintptr_t)at + bytes) fail_msg("os_release(%p, %zu): nothing is there", at, bytes);
    must(mprotect(at, bytes, PROT_NONE) == 0);
    real_drop((uintptr_t)at, bytes);
    areas_merge();
}

void os_label(void *at, size_t bytes, const char *name) {
    must_be_pages("os_label", at, bytes);
    if (strlen(name) >= 80) fail_msg("os_label: the kernel takes no name of %zu bytes", strlen(name));
}

void os_forbid_huge(void *at, size_t bytes) {
    must_be_pages("os_forbid_huge", at, bytes);
    fake.huge_forbidden_bytes += bytes;
}

size_t os_address_space_limit(void) { return fake.address_space_limit; }

int os_limit_change(int pid, int resource, const struct rlimit *new_limit, struct rlimit *old_limit) {
    int error = call_begin(FAKE_LIMIT, NULL, 0);
    if (error != 0 || pid != 0 || resource != RLIMIT_AS) return error != 0 ? error : -EINVAL;
    if (old_limit != NULL) old_limit->rlim_cur = old_limit->rlim_max = fake.address_space_limit;
    if (new_limit != NULL) fake.address_space_limit = new_limit->rlim_cur;
    return 0;
}

int os_lock_memory(int flags) {
    (void)flags;
    return 0;
}

/* --- os.h: waiting -------------------------------------------------------------------------------------------------- */

static __thread uint32_t thread_id = 1;
static unsigned locks_held;
static const struct os_lock *held[64];

void fake_thread_is(uint32_t id) { thread_id = id; }
unsigned fake_locks_held(void) { return locks_held; }

static uint32_t lock_holder(const struct os_lock *lock) {
    return atomic_load_explicit(&lock->state, memory_order_relaxed);
}

bool os_lock_is_mine(struct os_lock *lock) { return lock_holder(lock) == thread_id; }

bool os_lock_try(struct os_lock *lock) {
    if (os_lock_is_mine(lock)) {
        lock->depth++;
        return true;
    }
    if (lock_holder(lock) != 0) return false;
    if (locks_held == sizeof held / sizeof *held) fail_msg("more locks held than the fake can count");
    atomic_store_explicit(&lock->state, thread_id, memory_order_relaxed);
    held[locks_held++] = lock;
    rank_taken(lock);
    return true;
}

void os_lock_take(struct os_lock *lock) {
    rank_wanted(lock);
    if (!os_lock_try(lock))
        fail_msg("thread %u waits for a lock that thread %u holds: deadlock", thread_id, lock_holder(lock));
}

static void lock_free(struct os_lock *lock) {
    rank_dropped(lock);
    lock->depth = 0;
    atomic_store_explicit(&lock->state, 0, memory_order_relaxed);
    unsigned i = 0;
    while (held[i] != lock) i++;
    held[i] = held[--locks_held];
}

void os_lock_drop(struct os_lock *lock) {
    if (!os_lock_is_mine(lock)) fail_msg("thread %u drops a lock that is not its own", thread_id);
    if (lock->depth > 0) {
        lock->depth--;
        return;
    }
    lock_free(lock);
}

void os_lock_abandon(struct os_lock *lock) {
    if (!os_lock_is_mine(lock)) return;
    lock->depth = 0;
    os_lock_drop(lock);
}

/* The simulated child goes on with the id of its parent's thread. */
uint32_t os_forked(void) { return thread_id; }

bool os_lock_inherit(struct os_lock *lock, uint32_t old_id) {
    uint32_t holder = lock_holder(lock);
    if (holder == 0 || holder == old_id) return false;
    lock_free(lock);
    return true;
}

bool os_barrier_register(void) { return call_begin(FAKE_BARRIER_REGISTER, NULL, 0) == 0; }
int os_barrier(void) { return call_begin(FAKE_BARRIER, NULL, 0); }

uint64_t os_signals_block(void) { return fake.signals_blocked++; }
void os_signals_restore(uint64_t mask) {
    (void)mask;
    if (fake.signals_blocked-- == 0) fail_msg("os_signals_restore: they are not blocked");
}

void os_wait(_Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns) {
    if (atomic_load(word) != value) return;
    if (timeout_ns == UINT64_MAX) fail_msg("os_wait: nobody is there to wake the only thread");
    os_sleep_ns(timeout_ns);
}

void os_wake(_Atomic uint32_t *word) {
    (void)word;
    fake.wakes++;
}

uint32_t os_thread_id(void) { return 1; }
uint64_t os_now_ns(void) { return fake.now_ns; }
uint64_t os_thread_cpu_ns(void) { return fake.now_ns; }

void os_sleep_ns(uint64_t ns) {
    fake.now_ns += ns;
    fake.slept_ns += ns;
}

/* --- bell.h: what the layer above the heap defines ------------------------------------------------------------------ */

void heap_on_growth(void) {
    fake.growths++;
    if (fake.on_growth != NULL) fake.on_growth();
}
void heap_on_start(void) {
    if (fake.starts++ == 0) fake.calls_at_start = fake.count[FAKE_ANY];
}

void heap_on_fork(void) { fake.forks++; }
void heap_on_bell(void) { fake.wakes++; }
void heap_on_thread_end(void) { fake.ends++; }

/* --- os.h: process -------------------------------------------------------------------------------------------------- */

char **os_environment_all(void) { return fake.environment; }

const char *os_environment(const char *name) {
    size_t length = strlen(name);
    for (char **all = fake.environment; all != NULL && *all != NULL; all++)
        if (strncmp(*all, name, length) == 0 && (*all)[length] == '=') return *all + length + 1;
    return NULL;
}

bool os_is_emulated(void) { return fake.emulated; }
bool os_on_signal_stack(void) { return fake.on_signal_stack; }

void os_random(void *to, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) ((unsigned char *)to)[i] = (unsigned char)(i * 37 + 11);
}

void os_print_error(const char *text, size_t length) {
    size_t have = strlen(fake.error);
    length = size_min(length, sizeof fake.error - 1 - have);
    memcpy(fake.error + have, text, length);
    fake.error[have + length] = 0;
}

void os_abort(void) {
    if (fake.abort_expected != NULL) {
        bool right = strcmp(fake.error, fake.abort_expected) == 0;
        if (!right) fprintf(stderr, "abort with:  %sinstead of:  %s", fake.error, fake.abort_expected);
        _exit(right ? 0 : 1);
    }
    fprintf(stderr, "unexpected abort: %s", fake.error);
    fail_msg("unexpected abort: %s", fake.error);
    abort();
}
