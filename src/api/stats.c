/* stats.c - what the library tells about itself: tide_stats_get and glibc's older windows onto the same numbers. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>

#include "api/beside.h"
#include "api/libc.h"
#include "base/format.h"
#include "heap/census.h"
#include "keeper/figures.h"
#include "keeper/life.h"
#include "os/options.h"
#include "tidemalloc.h"

static void stats_fill(struct tide_stats *stats) {
    struct census census;
    census_take(&census);
    figures_fill(stats, &census);
}

PUBLIC int tide_stats_get(tide_stats *stats, size_t size) {
    if (stats == NULL || size < offsetof(tide_stats, size) + sizeof stats->size) return EINVAL;
    struct tide_stats all;
    stats_fill(&all);
    all.size = (uint32_t)size_min(size, sizeof all);
    memcpy(stats, &all, all.size);
    return 0;
}

static struct mallinfo2 info(void) {
    struct census census;
    census_take(&census);
    size_t live = census.live_bytes[TIER_TINY_INDEX] + census.live_bytes[TIER_MID_INDEX];
    size_t large = census.live_bytes[TIER_LARGE_INDEX];
    size_t arena = size_max(census.runs.committed_bytes, large + live) - large; /* others may allocate meanwhile */
    return (struct mallinfo2){
        .arena = arena,
        .ordblks = census.free_blocks,
        .hblks = census.large_blocks,
        .hblkhd = large,
        .uordblks = live,
        .fordblks = arena - live,
        .keepcost = census.runs.dirty_bytes + census.empty_bytes[TIER_TINY_INDEX] + census.empty_bytes[TIER_MID_INDEX],
    };
}

PUBLIC struct mallinfo2 STANDARD(mallinfo2)(void) { return info(); }

static int int_of(size_t n) { return n > INT_MAX ? INT_MAX : (int)n; }

PUBLIC struct mallinfo STANDARD(mallinfo)(void) {
    struct mallinfo2 wide = info();
    return (struct mallinfo){
        .arena = int_of(wide.arena),
        .ordblks = int_of(wide.ordblks),
        .hblks = int_of(wide.hblks),
        .hblkhd = int_of(wide.hblkhd),
        .uordblks = int_of(wide.uordblks),
        .fordblks = int_of(wide.fordblks),
        .keepcost = int_of(wide.keepcost),
    };
}

/* Valid XML of glibc's outer form; the elements inside are ours. */
PUBLIC int STANDARD(malloc_info)(int flags, FILE *file) {
    if (flags != 0) return EINVAL;
    struct tide_stats stats;
    stats_fill(&stats);
    int written = fprintf(file,
                          "<malloc version=\"1\">\n"
                          "<allocator name=\"tidemalloc\" version=\"" TIDEMALLOC_VERSION "\"/>\n"
                          "<tier name=\"tiny\" live=\"%llu\"/>\n<tier name=\"mid\" live=\"%llu\"/>\n<tier "
                          "name=\"large\" live=\"%llu\"/>\n"
                          "<total type=\"allocated\" size=\"%llu\"/>\n<total type=\"active\" size=\"%llu\"/>\n"
                          "<total type=\"retained\" size=\"%llu\"/>\n<total type=\"returned\" size=\"%llu\"/>\n"
                          "<system type=\"current\" size=\"%llu\"/>\n<system type=\"metadata\" size=\"%llu\"/>\n"
                          "<aspace type=\"total\" size=\"%llu\"/>\n"
                          "<heaps count=\"%llu\" bound=\"%llu\"/>\n"
                          "</malloc>\n",
                          (unsigned long long)stats.tiny_bytes, (unsigned long long)stats.mid_bytes,
                          (unsigned long long)stats.large_bytes, (unsigned long long)stats.allocated_bytes,
                          (unsigned long long)stats.active_bytes, (unsigned long long)stats.retained_bytes,
                          (unsigned long long)stats.returned_bytes, (unsigned long long)stats.committed_bytes,
                          (unsigned long long)stats.metadata_bytes, (unsigned long long)stats.reserved_bytes,
                          (unsigned long long)stats.heap_count, (unsigned long long)stats.thread_count);
    return written < 0 ? -1 : 0;
}

static void print_number(const char *name, uint64_t number) {
    struct line line = {0};
    line_add(&line, "tidemalloc: ");
    line_add(&line, name);
    for (size_t i = strlen(name); i < 18; i++) line_add(&line, " ");
    line_add_number(&line, number);
    line_add(&line, "\n");
    os_print_error(line.text, line.length);
}

static void print_stats(void) {
    struct tide_stats stats;
    stats_fill(&stats);
    print_number("allocated bytes", stats.allocated_bytes);
    print_number("  tiny", stats.tiny_bytes);
    print_number("  mid", stats.mid_bytes);
    print_number("  large", stats.large_bytes);
    print_number("active bytes", stats.active_bytes);
    print_number("retained bytes", stats.retained_bytes);
    print_number("  tiny", stats.tiny_retained_bytes);
    print_number("  mid", stats.mid_retained_bytes);
    print_number("  large", stats.large_retained_bytes);
    print_number("returned bytes", stats.returned_bytes);
    print_number("committed bytes", stats.committed_bytes);
    print_number("metadata bytes", stats.metadata_bytes);
    print_number("refills", stats.refill_count);
    print_number("retired spans", stats.span_retire_count);
    print_number("remote frees", stats.remote_free_count);
    print_number("nested operations", stats.nested_count);
    print_number("heaps", stats.heap_count);
    print_number("threads", stats.thread_count);
    print_number("keeper wake-ups", stats.keeper_wakeup_count);
    print_number("keeper CPU us", stats.keeper_cpu_ns / 1000);
    print_number("flushes", stats.flush_count);
    print_number("holds", stats.hold_count);
    print_number("  in time", stats.hold_hit_count);
    print_number("trims", stats.trim_count);
    print_number("regretted bytes", stats.refault_bytes);
}

PUBLIC void STANDARD(malloc_stats)(void) { print_stats(); }

/* Nothing to tune: there is no fixed cache. Accepted as glibc accepts what it does not know. */
PUBLIC int STANDARD(mallopt)(int parameter, int value) {
    (void)parameter;
    (void)value;
    return 1;
}

PUBLIC int tide_set(const char *name, const char *value) {
    int error = options_set(name, value);
    if (error == 0) life_option_set();
    return error;
}
PUBLIC int tide_get(const char *name, char *value, size_t size) { return options_get(name, value, size); }

/* libc's start-up may come after the first allocation: then the environment is read here. */
__attribute__((constructor)) static void stats_begin(void) {
    if (os_page_bytes == 0) os_init();
    options_load();
    life_begin();
    beside_say();
}

__attribute__((destructor)) static void stats_end(void) {
    if (options.print_stats != 0) print_stats();
}
